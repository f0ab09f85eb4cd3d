# distutils: define_macros=CYTHON_USE_TYPE_SPECS=1
# Heap types, because these can be patched and renamed as the originals can: `type` writes a new
# name where only a heap type has room for it.
"""The native types behind fastsync.threading.

Veneers: each method parses its arguments, calls a raw lock of locks.pxd and
raises what `threading` raises, in its words.  docs/migrating.md lists every
difference.  A call that must wait drops the thread state and runs signal
handlers in the main thread; an exception from one leaves the wait with
nothing owned (Condition.wait: with the lock re-taken).
"""
cimport cython
from libc.stdint cimport UINT32_MAX, int64_t, uint32_t, uint64_t, uintptr_t
from cpython.exc cimport PyErr_WarnEx
from cpython.float cimport PyFloat_CheckExact
from cpython.long cimport PyLong_CheckExact
from cpython.number cimport PyNumber_Index
from cpython.object cimport (
    PyObject, PyObject_GenericSetAttr, PyTypeObject,
)
from cpython.ref cimport Py_INCREF, Py_XDECREF

from fastsync.c_atomic cimport (
    fs_uptr_load_relaxed, fs_uptr_store_relaxed,
)
from fastsync.c_python cimport fs_small_int
from fastsync.c_wait cimport FS_FOREVER, fs_now, fs_thread_id
from fastsync.locks cimport *
from fastsync.parking cimport FS_SIGNALS, parked_count
from fastsync.slots cimport (
    fs_call, fs_method, make_constructor, make_context_manager, make_lazy_dict,
    finish_type, rename_type, shorten, weakrefs_offset,
)
from fastsync.trace cimport (
    FS_BLOCK, FS_EXCLUSIVE, FS_PERMIT, FS_REENTRANT, FS_SIGNAL, fs_section, fs_wait,
    trace_condition, trace_disowned, trace_lock, trace_made, trace_notified, trace_release,
    trace_release_all, trace_released, trace_relock, tracing,
)
from fastsync.timeouts cimport lock_deadline, wait_deadline

from fastsync._pin import register_pinnable

cdef extern from "Python.h":
    PyObject* Py_True
    PyObject* Py_None
    PyObject* Py_NewRef(PyObject*) noexcept
    size_t PyVectorcall_NARGS(size_t) noexcept
    const Py_ssize_t PY_SSIZE_T_MAX  # not sys.maxsize: `sys` is None in late finalizers
    object PyObject_GenericGetDict(object, void*)
    int PyObject_GenericSetDict(object, object, void*) except -1
    void PyObject_GC_Track(void*) noexcept
    void PyObject_GC_UnTrack(void*) noexcept
    bint PyObject_GC_IsTracked(PyObject*) noexcept
    PyTypeObject* Py_TYPE(object) noexcept


# The default of `timeout`, the one object that -1 is: known without a conversion.
cdef object UNSET = -1


# -- what several types share ------------------------------------------------

cdef inline bint checked(int outcome) except -1:
    """FS_ACQUIRED and FS_TIMEOUT as a bool; FS_ERROR: its exception is set."""
    return outcome


cdef int refuse_call(size_t nargs) except -1:
    raise TypeError(
        "a lock is called by `with` only: with no arguments to acquire it, with "
        f"three to release it, not with {nargs} or with keywords")


cdef inline void track(object self) noexcept:
    # Two threads may come at once, and tracking twice is a fatal error.
    with cython.critical_section(self):
        if not PyObject_GC_IsTracked(<PyObject*>self):
            PyObject_GC_Track(<void*>self)


# Where the `__dict__` of an _Extensible is: right after its weak references.
cdef Py_ssize_t attributes_at = weakrefs_offset(_Extensible) + sizeof(PyObject*)


cdef inline PyObject** attribute_slot(_Extensible self) noexcept:
    return <PyObject**>(<char*><PyObject*>self + attributes_at)


cdef inline bint is_plain_type(PyTypeObject* cls) noexcept:
    """No subclass, whose instances refer to anything."""
    return (cls == <PyTypeObject*>Event or cls == <PyTypeObject*>Condition
            or cls == <PyTypeObject*>Semaphore or cls == <PyTypeObject*>BoundedSemaphore
            or cls == <PyTypeObject*>Barrier)


@cython.no_gc_clear  # what it refers to must outlive a waiter; cycles end in the __dict__
cdef class _Extensible:
    """A type whose instances take attributes, in a `__dict__` made on first use.

    Until then the collector need not know the instance.
    """

    def __cinit__(self):
        # Cython fills the slot with None, which tp_dictoffset would take for a dict.
        cdef PyObject** slot = attribute_slot(self)
        cdef PyObject* none = slot[0]
        slot[0] = NULL
        Py_XDECREF(none)
        if is_plain_type(Py_TYPE(self)):
            PyObject_GC_UnTrack(<void*>self)

    @property
    def __dict__(self):
        attributes = PyObject_GenericGetDict(self, NULL)
        track(self)
        return attributes

    @__dict__.setter
    def __dict__(self, value):
        PyObject_GenericSetDict(self, value, NULL)
        track(self)

    def __setattr__(self, name, value):
        PyObject_GenericSetAttr(self, name, value)
        track(self)


cdef object lazily(object self, str name, make):
    """An attribute made on first use, the same for everybody."""
    return self.__dict__.setdefault(name, make())


cdef int refuse_pickling(str name) except -1:
    raise TypeError(f"cannot pickle '{name}' object")


cdef str address(object self):
    return f"0x{<uintptr_t><PyObject*>self:x}"


cdef str stock_name(object self):
    """Module and name of the runtime class, as the originals' reprs have it."""
    return f"{type(self).__module__}.{type(self).__qualname__}"


# -- Lock --------------------------------------------------------------------

# `lock` is the object that trace.pxd's hooks know the word by; `block` is FS_BLOCK for
# a `with` statement, else 0.
cdef int take_word(void* mutex, int64_t deadline) noexcept:
    return mutex_lock_until(<fs_mutex*>mutex, deadline, FS_SIGNALS)


cdef int retake_word(void* mutex, int64_t deadline) noexcept:
    """No signal handler ends it."""
    mutex_lock(<fs_mutex*>mutex)
    return FS_ACQUIRED


cdef inline bint word_acquire(object lock, fs_mutex* m, int64_t deadline, int block) except -1:
    if tracing():
        return trace_lock(lock, FS_EXCLUSIVE | block, deadline, NULL, take_word, m)
    return checked(mutex_lock_until(m, deadline, FS_SIGNALS))


cdef int word_retake(object lock, fs_mutex* m) except -1:
    """As word_acquire, but no signal handler ends it."""
    if tracing():
        trace_relock(lock, FS_EXCLUSIVE, 1, NULL, retake_word, m)
    else:
        mutex_lock(m)
    return 0


cdef inline int word_release(object lock, fs_mutex* m) except -1:
    if tracing():
        return word_release_traced(lock, m)
    if mutex_unlock(m) < 0:
        raise RuntimeError("release unlocked lock")
    return 0


cdef int word_release_traced(object lock, fs_mutex* m) except -1:
    cdef fs_section section
    cdef int result
    if mutex_is_locked(m):
        trace_release(&section, lock, FS_EXCLUSIVE, NULL)
        result = mutex_unlock(m)
        trace_released(&section)
        if result == 0:
            return 0
    raise RuntimeError("release unlocked lock")


cdef inline bint lock_acquire(Lock self, int64_t deadline, int block) except -1:
    return word_acquire(self, &self.mutex, deadline, block)


cdef inline int lock_release(Lock self) except -1:
    return word_release(self, &self.mutex)


cdef PyObject* lock_call(
    PyObject* self, PyObject** args, size_t nargsf, PyObject* names,
) except NULL:
    cdef size_t nargs = PyVectorcall_NARGS(nargsf)
    if names == NULL and nargs == 0:
        lock_acquire(<Lock>self, FS_FOREVER, FS_BLOCK)
        return Py_NewRef(Py_True)
    if names == NULL and nargs == 3:
        lock_release(<Lock>self)
        return Py_NewRef(Py_None)
    refuse_call(nargs)


@cython.final
cdef class Lock:
    """Lock()
--

A mutual exclusion lock that is not re-entrant, as `threading.Lock`.

Any thread may release it.  One byte of state; a thread that has waited about a
millisecond gets it handed over.  release() happens before the acquire() that
takes the lock next (release / acquire ordering)."""

    def __cinit__(self):
        self.call = lock_call
        if tracing():
            trace_made(self)

    def __init__(self):
        pass

    def acquire(self, blocking=True, timeout=-1):
        """Take the lock; whether it was taken.

        blocking: False answers at once.  timeout: seconds, -1 for no limit.
        ValueError for a timeout that is negative, NaN, or given to a call that
        does not block; OverflowError past TIMEOUT_MAX.
        """
        if timeout is UNSET:
            return lock_acquire(self, FS_FOREVER if blocking else 0, 0)
        return lock_acquire(self, lock_deadline(blocking, timeout), 0)

    def release(self):
        """Let the lock go; RuntimeError when it is not held."""
        lock_release(self)

    def locked(self):
        """Whether somebody holds it, at this moment."""
        return mutex_is_locked(&self.mutex)

    def acquire_lock(self, blocking=True, timeout=-1):
        """Obsolete name of acquire()."""
        return lock_acquire(self, lock_deadline(blocking, timeout), 0)

    def release_lock(self):
        """Obsolete name of release()."""
        lock_release(self)

    def locked_lock(self):
        """Obsolete name of locked()."""
        return mutex_is_locked(&self.mutex)

    def __enter__(self, blocking=True, timeout=-1):
        return lock_acquire(self, lock_deadline(blocking, timeout), FS_BLOCK)

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        lock_release(self)

    def _at_fork_reinit(self):
        if tracing():
            trace_disowned(self, NULL)
        mutex_reset(&self.mutex)

    def __reduce__(self):
        refuse_pickling("_thread.lock")

    def __repr__(self):
        state = "locked" if mutex_is_locked(&self.mutex) else "unlocked"
        return f"<{state} _thread.lock object at {address(self)}>"


# -- RLock -------------------------------------------------------------------

cdef inline bint remutex_acquire(object lock, fs_remutex* m, int64_t deadline) except -1:
    cdef int outcome
    if remutex_count(m) == UINT32_MAX and remutex_is_mine(m):
        raise OverflowError("Internal lock count overflowed")
    if tracing():
        return trace_lock(lock, FS_REENTRANT, deadline, NULL, take_remutex, m)
    return checked(remutex_lock_until(m, deadline, FS_SIGNALS))


cdef int take_remutex(void* remutex, int64_t deadline) noexcept:
    return remutex_lock_until(<fs_remutex*>remutex, deadline, FS_SIGNALS)


cdef int retake_remutex(void* remutex, int64_t deadline) noexcept:
    """No signal handler ends it.  The depth is the caller's to set."""
    mutex_lock(&(<fs_remutex*>remutex).mutex)
    return FS_ACQUIRED


cdef inline int remutex_release(object lock, fs_remutex* m) except -1:
    cdef fs_section section
    cdef int result
    if not tracing():
        result = remutex_unlock(m)
    elif not remutex_is_mine(m):
        result = -1
    else:
        trace_release(&section, lock, FS_REENTRANT, NULL)
        result = remutex_unlock(m)
        trace_released(&section)
    if result < 0:
        raise RuntimeError("cannot release un-acquired lock")
    return 0


cdef void remutex_reset(fs_remutex* m) noexcept:
    remutex_set_count(m, 0)
    fs_uptr_store_relaxed(&m.owner, 0)  # relaxed: a fork's child has one thread
    mutex_reset(&m.mutex)


cdef uint32_t remutex_let_go(fs_remutex* m) noexcept nogil:
    """Give the ownership up, `m.mutex` still held: the depth to restore."""
    cdef uint32_t count = remutex_count(m)
    remutex_set_count(m, 0)
    fs_uptr_store_relaxed(&m.owner, 0)  # relaxed: see remutex_is_mine
    return count


cdef object remutex_release_save(object lock, fs_remutex* m):
    cdef uint32_t count
    cdef fs_section section
    cdef bint traced = False
    if not remutex_is_mine(m):
        raise RuntimeError("cannot release un-acquired lock")
    if tracing():
        trace_release_all(&section, lock, FS_REENTRANT)
        traced = True
    count = remutex_let_go(m)
    mutex_unlock(&m.mutex)
    if traced:
        trace_released(&section)
    return (count, fs_thread_id())


cdef int remutex_acquire_restore(object lock, fs_remutex* m, object state) except -1:
    cdef uint32_t count
    depth, _ = state
    count = PyNumber_Index(depth)
    if count == 0:
        raise ValueError("the depth to restore must be at least 1")
    # Without signal handlers, as the original: this re-takes what was held.
    if tracing():
        trace_relock(lock, FS_REENTRANT, count, NULL, retake_remutex, m)
    else:
        mutex_lock(&m.mutex)
    remutex_own(m, count)
    return 0


cdef str remutex_repr(fs_remutex* m, str name, object self):
    # relaxed: a snapshot
    cdef uintptr_t owner = fs_uptr_load_relaxed(&m.owner)
    state = "locked" if mutex_is_locked(&m.mutex) else "unlocked"
    return f"<{state} {name} object owner={owner} count={remutex_count(m)} at {address(self)}>"


cdef PyObject* rlock_call(
    PyObject* self, PyObject** args, size_t nargsf, PyObject* names,
) except NULL:
    cdef size_t nargs = PyVectorcall_NARGS(nargsf)
    if names == NULL and nargs == 0:
        remutex_acquire(<object>self, &(<RLock>self).remutex, FS_FOREVER)
        return Py_NewRef(Py_True)
    if names == NULL and nargs == 3:
        remutex_release(<object>self, &(<RLock>self).remutex)
        return Py_NewRef(Py_None)
    refuse_call(nargs)


cdef int warn_of_arguments() except -1:
    return PyErr_WarnEx(
        DeprecationWarning,
        b"Passing arguments to RLock is deprecated and will be removed in 3.15", 1)


# RLock(...): spares the tuple and the dict of __init__.
cdef PyObject* new_rlock(
    PyObject* cls, PyObject** args, size_t nargsf, PyObject* names,
) except NULL:
    cdef RLock lock
    if PyVectorcall_NARGS(nargsf) != 0 or names != NULL:
        warn_of_arguments()
    lock = RLock.__new__(RLock)
    return Py_NewRef(<PyObject*>lock)


cdef class RLock:
    """RLock()
--

A lock that its owner may take again, as `threading.RLock`.

It must be released by the thread that took it, as often as it was taken.  The
ordering is Lock's."""

    def __cinit__(self):
        self.call = rlock_call
        if tracing():
            trace_made(self)

    def __init__(self, *args, **kwargs):
        if (args or kwargs) and type(self) is RLock:
            warn_of_arguments()

    def acquire(self, blocking=True, timeout=-1):
        """Take the lock, or go one deeper; whether it was taken.

        Arguments and errors as Lock.acquire(); OverflowError also past 2**32-1
        levels.
        """
        if timeout is UNSET:
            return remutex_acquire(self, &self.remutex, FS_FOREVER if blocking else 0)
        return remutex_acquire(self, &self.remutex, lock_deadline(blocking, timeout))

    def release(self):
        """Go one level up, at the last let go; RuntimeError for who is not the owner."""
        remutex_release(self, &self.remutex)

    def locked(self):
        """Whether somebody holds it, at this moment."""
        return mutex_is_locked(&self.remutex.mutex)

    def __enter__(self, blocking=True, timeout=-1):
        return remutex_acquire(self, &self.remutex, lock_deadline(blocking, timeout))

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        remutex_release(self, &self.remutex)

    def _is_owned(self):
        return remutex_is_mine(&self.remutex)

    def _recursion_count(self):
        return remutex_count(&self.remutex) if remutex_is_mine(&self.remutex) else 0

    def _release_save(self):
        return remutex_release_save(self, &self.remutex)

    def _acquire_restore(self, state):
        remutex_acquire_restore(self, &self.remutex, state)

    def _at_fork_reinit(self):
        if tracing():
            trace_disowned(self, NULL)
        remutex_reset(&self.remutex)

    def __reduce__(self):
        refuse_pickling("_thread.RLock")

    def __repr__(self):
        name = "_thread.RLock" if type(self) is RLock else type(self).__name__
        return remutex_repr(&self.remutex, name, self)


# -- Condition ---------------------------------------------------------------

cdef fs_remutex* condition_word(_ConditionLock view) except NULL:
    if view.condition is None:
        # The collector has taken the cycle of the two apart.
        raise ReferenceError("the Condition of this lock has been collected")
    return &view.condition.own


@cython.final
cdef class _ConditionLock:
    """The re-entrant lock of a Condition() that was made without one."""
    cdef fs_call call
    cdef object __weakref__
    cdef Condition condition

    def __cinit__(self, Condition condition not None):
        self.call = condition_lock_call
        self.condition = condition

    def acquire(self, blocking=True, timeout=-1):
        """As RLock.acquire()."""
        return remutex_acquire(
            self.condition, condition_word(self), lock_deadline(blocking, timeout))

    def release(self):
        """As RLock.release()."""
        remutex_release(self.condition, condition_word(self))

    def locked(self):
        """As RLock.locked()."""
        return mutex_is_locked(&condition_word(self).mutex)

    def __enter__(self, blocking=True, timeout=-1):
        return remutex_acquire(
            self.condition, condition_word(self), lock_deadline(blocking, timeout))

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        remutex_release(self.condition, condition_word(self))

    def _is_owned(self):
        return remutex_is_mine(condition_word(self))

    def _recursion_count(self):
        return (remutex_count(condition_word(self))
                if remutex_is_mine(condition_word(self)) else 0)

    def _release_save(self):
        return remutex_release_save(self.condition, condition_word(self))

    def _acquire_restore(self, state):
        remutex_acquire_restore(self.condition, condition_word(self), state)

    def _at_fork_reinit(self):
        remutex_reset(condition_word(self))

    def __reduce__(self):
        refuse_pickling("_thread.RLock")

    def __repr__(self):
        return remutex_repr(condition_word(self), "_thread.RLock", self)


cdef PyObject* condition_lock_call(
    PyObject* self, PyObject** args, size_t nargsf, PyObject* names,
) except NULL:
    cdef size_t nargs = PyVectorcall_NARGS(nargsf)
    if names == NULL and nargs == 0:
        remutex_acquire(
            (<_ConditionLock>self).condition, condition_word(<_ConditionLock>self), FS_FOREVER)
        return Py_NewRef(Py_True)
    if names == NULL and nargs == 3:
        remutex_release((<_ConditionLock>self).condition, condition_word(<_ConditionLock>self))
        return Py_NewRef(Py_None)
    refuse_call(nargs)


cdef inline PyObject* traced(Condition self) noexcept:
    """What the deadlock detector knows the lock by."""
    return <PyObject*>self if self.remutex == &self.own else <PyObject*>self.lock


cdef inline fs_mutex* own_word(fs_mutex* mutex) except NULL:
    """It, unless another thread has just exchanged the lock for one that is not ours."""
    if mutex == NULL:
        raise RuntimeError("the lock of a Condition was exchanged while threads use it")
    return mutex


cdef inline object kept(PyObject* seen):
    """What a field had when it was read, once: see set_lock."""
    return <object>seen


cdef inline bint condition_acquire(Condition self, int64_t deadline, int block) except -1:
    cdef fs_remutex* remutex = self.remutex  # once: see set_lock
    cdef fs_mutex* mutex = self.mutex
    if remutex != NULL:
        return remutex_acquire(<object>traced(self), remutex, deadline)
    return word_acquire(<object>traced(self), own_word(mutex), deadline, block)


cdef inline int condition_release(Condition self) except -1:
    cdef fs_remutex* remutex = self.remutex
    cdef fs_mutex* mutex = self.mutex
    if remutex != NULL:
        return remutex_release(<object>traced(self), remutex)
    return word_release(<object>traced(self), own_word(mutex))


cdef inline bint condition_is_owned(Condition self) except -1:
    cdef fs_remutex* remutex = self.remutex
    cdef fs_mutex* mutex = self.mutex
    if remutex != NULL:
        return remutex_is_mine(remutex)
    if mutex != NULL:
        return mutex_is_locked(mutex)
    return bool(self._is_owned())


cdef bint is_plain(Condition self) except -1:
    """Nothing stands in for a method: no subclass, no attribute, no patch of the class."""
    return (type(self) is Condition and attribute_slot(self)[0] == NULL
            and Condition.wait is own_wait and Condition.notify is own_notify)


cdef struct foreign_wait:
    PyObject* condition
    PyObject* saved  # what _release_save() gave, owned; NULL: still held


# park()'s before_sleep hook: called attached, with no internal lock held.
cdef int release_foreign(void* ctx) except -1:
    cdef foreign_wait* wait = <foreign_wait*>ctx
    saved = (<object>wait.condition)._release_save()
    Py_INCREF(saved)
    wait.saved = <PyObject*>saved
    return 0


cdef bint condition_wait_foreign(Condition self, int64_t deadline) except -1:
    cdef foreign_wait wait
    cdef int outcome
    wait.condition = <PyObject*>self
    wait.saved = NULL
    outcome = condvar_wait_foreign(
        &self.waiters, <int (*)(void*) noexcept nogil><void*>release_foreign, &wait,
        deadline, FS_SIGNALS)
    try:
        checked(outcome)
        if outcome == FS_CONDVAR_BAD_MUTEX:
            raise RuntimeError("the lock of a Condition was exchanged while threads wait on it")
    finally:
        if wait.saved != NULL:
            saved = <object>wait.saved
            Py_XDECREF(wait.saved)
            self._acquire_restore(saved)
    return outcome


cdef bint condition_wait(Condition self, int64_t deadline) except -1:
    """Wait for a notification, the lock held before and after."""
    # Both are kept: a second __init__() meanwhile gives the others another lock.
    cdef fs_mutex* mutex = self.mutex
    cdef fs_remutex* remutex = self.remutex
    cdef uint32_t count = 0
    cdef int outcome
    cdef bint noted = False
    cdef fs_wait noting
    if deadline == 0:
        deadline = 1  # the past: give the lock up and take it again, at once
    if mutex == NULL:
        return condition_wait_foreign(self, deadline)
    if tracing():
        lock = <object>traced(self)  # kept: see set_lock
        trace_condition(&noting, lock, FS_EXCLUSIVE if remutex == NULL else FS_REENTRANT,
                        NULL, mutex, deadline)
        noted = True
    if remutex != NULL:
        count = remutex_let_go(remutex)
    outcome = condvar_wait(&self.waiters, mutex, deadline, FS_SIGNALS)
    if remutex != NULL:
        remutex_own(remutex, count)
    if noted:
        trace_notified(&noting)
    if outcome == FS_CONDVAR_BAD_MUTEX:
        raise RuntimeError("the lock of a Condition was exchanged while threads wait on it")
    return checked(outcome)


cdef inline int check_owned(Condition self) except -1:
    if not condition_is_owned(self):
        raise RuntimeError("cannot wait on un-acquired lock")
    return 0


cdef int condition_notify(Condition self, object n) except -1:
    if not condition_is_owned(self):
        raise RuntimeError("cannot notify on un-acquired lock")
    if condvar_has_waiters(&self.waiters) and n > 0:
        condvar_notify_some(&self.waiters, notify_limit(self, n))
    return 0


cdef size_t notify_limit(Condition self, object n) except? 0:
    """How many threads the original wakes: it counts n down while it is positive."""
    cdef size_t limit = 0
    cdef size_t waiting
    if PyLong_CheckExact(n):
        return <size_t>-1 if n >= PY_SSIZE_T_MAX else n
    waiting = parked_count(<uintptr_t>&self.waiters)
    while n > 0 and limit < waiting:
        n -= 1
        limit += 1
    return limit


cdef object condition_lock(Condition self):
    """The lock as an object; made on demand when it is our own."""
    cdef object lock = kept(<PyObject*>self.lock)
    if lock is not None:
        return lock
    view = _ConditionLock(self)
    track(self)  # they refer to each other
    with cython.critical_section(self):
        if self.lock is None:
            self.lock = view
    return kept(<PyObject*>self.lock)


cdef int set_lock(Condition self, object lock) except -1:
    """In __init__(), a second one too: others may be reading the old lock at the same
    time.  So that is never let go, and a reader reads the field once."""
    with cython.critical_section(self):
        if self.lock is not None and self.lock is not lock:
            Py_INCREF(self.lock)
        self.lock = lock
    return 0


cdef PyObject* condition_call(
    PyObject* self, PyObject** args, size_t nargsf, PyObject* names,
) except NULL:
    cdef size_t nargs = PyVectorcall_NARGS(nargsf)
    cdef Condition condition
    if names != NULL or (nargs != 0 and nargs != 3):
        refuse_call(nargs)
    if (<Condition>self).mutex == NULL:
        # A foreign lock: its own `with`, looked up as the original does.
        condition = <Condition>self
        lock = condition_lock(condition)
        answer = (lock.__enter__() if nargs == 0 else
                  lock.__exit__(<object>args[0], <object>args[1], <object>args[2]))
        return Py_NewRef(<PyObject*>answer)
    if nargs == 0:
        condition_acquire(<Condition>self, FS_FOREVER, FS_BLOCK)
        return Py_NewRef(Py_True)
    condition_release(<Condition>self)
    return Py_NewRef(Py_None)


@cython.no_gc_clear
cdef class Condition(_Extensible):
    """Condition(lock=None)
--

A condition variable over a lock, as `threading.Condition`.

lock: a Lock or an RLock of this library, whose waiters notify() moves to the
lock's queue without waking them twice; or anything with acquire() and
release().  None makes an RLock.  No spurious wake-ups; first come, first
notified.  Ordering: the lock's."""

    def __cinit__(self):
        self.call = condition_call
        if tracing():
            trace_made(self)
        self.mutex = &self.own.mutex
        self.remutex = &self.own

    def __init__(self, lock=None):
        if lock is None:
            if self.lock is None and remutex_count(&self.own) == 0:
                return
            lock = RLock()  # a second __init__(): a new lock, as the original
        track(self)
        if self.mutex == NULL:
            forget_foreign_lock(self)
        set_lock(self, lock)
        if type(lock) is Lock:
            self.mutex = &(<Lock>lock).mutex
            self.remutex = NULL
        elif type(lock) is RLock:
            self.mutex = &(<RLock>lock).remutex.mutex
            self.remutex = &(<RLock>lock).remutex
        else:
            adopt_foreign_lock(self, lock)

    @property
    def _lock(self):
        return condition_lock(self)

    @property
    def _waiters(self):
        from collections import deque
        return deque([None] * <Py_ssize_t>parked_count(<uintptr_t>&self.waiters))

    def acquire(self, blocking=True, timeout=-1):
        """The lock's acquire()."""
        if self.mutex == NULL:
            return condition_lock(self).acquire(blocking, timeout)
        return condition_acquire(self, lock_deadline(blocking, timeout), 0)

    def release(self):
        """The lock's release()."""
        if self.mutex == NULL:
            return condition_lock(self).release()
        condition_release(self)

    def locked(self):
        """The lock's locked()."""
        cdef fs_mutex* mutex = self.mutex
        if mutex == NULL:
            return condition_lock(self).locked()
        return mutex_is_locked(mutex)

    def __enter__(self):
        if self.mutex == NULL:
            return condition_lock(self).__enter__()
        return condition_acquire(self, FS_FOREVER, FS_BLOCK)

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        if self.mutex == NULL:
            return condition_lock(self).__exit__(exc_type, exc_value, traceback)
        condition_release(self)

    def wait(self, timeout=None):
        """Let the lock go, sleep until notified, take the lock again.

        timeout: seconds, None for no limit.  False when it passed first (the lock
        is taken again all the same, without a limit).  RuntimeError when the
        lock is not held.
        """
        cdef int64_t deadline
        check_owned(self)
        deadline = wait_deadline(timeout)
        if not (timeout is None or PyFloat_CheckExact(timeout) or PyLong_CheckExact(timeout)):
            check_owned(self)  # its own methods may have let the lock go
        return condition_wait(self, deadline)

    def wait_for(self, predicate, timeout=None):
        """wait() until predicate() is true, or `timeout` seconds have passed in all:
        the predicate's last value."""
        cdef int64_t deadline
        cdef bint plain = is_plain(self)
        result = predicate()
        if result:
            return result
        deadline = wait_deadline(timeout)
        while True:
            # Once at least, also when there is no time: the lock is let go.
            if not plain:
                self.wait(None if timeout is None else max((deadline - fs_now()) * 1e-9, 0.0))
            else:
                check_owned(self)
                condition_wait(self, deadline)
            result = predicate()
            if result or (timeout is not None and fs_now() >= deadline):
                return result

    def notify(self, n=1):
        """Wake up to n waiting threads; they run when they get the lock.
        RuntimeError when the lock is not held."""
        condition_notify(self, n)

    def notify_all(self):
        """Wake every waiting thread.  RuntimeError when the lock is not held."""
        if is_plain(self):
            condition_notify(self, PY_SSIZE_T_MAX)
        else:
            self.notify(parked_count(<uintptr_t>&self.waiters))

    def notifyAll(self):
        """Deprecated alias of notify_all()."""
        PyErr_WarnEx(DeprecationWarning,
                     b"notifyAll() is deprecated, use notify_all() instead", 1)
        self.notify_all()

    def _is_owned(self):
        if self.mutex != NULL:
            return condition_is_owned(self)
        # A foreign lock without _is_owned(): try it.
        if condition_lock(self).acquire(False):
            condition_lock(self).release()
            return False
        return True

    def _release_save(self):
        cdef fs_remutex* remutex = self.remutex
        if remutex != NULL:
            return remutex_release_save(<object>traced(self), remutex)
        if self.mutex != NULL:
            condition_release(self)
        else:
            condition_lock(self).release()

    def _acquire_restore(self, state):
        cdef fs_remutex* remutex = self.remutex
        cdef fs_mutex* mutex = self.mutex
        if remutex != NULL:
            remutex_acquire_restore(<object>traced(self), remutex, state)
        elif mutex != NULL:
            word_retake(<object>traced(self), mutex)
        else:
            condition_lock(self).acquire()

    def _recursion_count(self):
        cdef fs_remutex* remutex = self.remutex
        if self.mutex == NULL:
            return condition_lock(self)._recursion_count()
        if remutex == NULL:
            raise AttributeError("_recursion_count")
        return remutex_count(remutex) if remutex_is_mine(remutex) else 0

    def _at_fork_reinit(self):
        if self.mutex == NULL:
            condition_lock(self)._at_fork_reinit()
        elif self.remutex != NULL:
            remutex_reset(self.remutex)
        else:
            mutex_reset(self.mutex)
        # The waiters did not survive the fork; if there was none, they wake.
        condvar_reset(&self.waiters)

    def __reduce__(self):
        refuse_pickling("_thread.RLock")

    def __repr__(self):
        count = parked_count(<uintptr_t>&self.waiters)
        return f"<Condition({condition_lock(self)!r}, {count})>"


cdef tuple OPTIONAL_METHODS = ("_release_save", "_acquire_restore", "_is_owned", "locked")


cdef int forget_foreign_lock(Condition self) except -1:
    for name in ("acquire", "release", *OPTIONAL_METHODS):
        self.__dict__.pop(name, None)
    return 0


cdef int adopt_foreign_lock(Condition self, object lock) except -1:
    """Bind the lock's methods to the instance, as the original does."""
    self.mutex = NULL
    self.remutex = NULL
    self.acquire = lock.acquire
    self.release = lock.release
    for name in OPTIONAL_METHODS:
        method = getattr(lock, name, None)
        if method is not None:
            setattr(self, name, method)
    return 0


# -- Semaphore, BoundedSemaphore ---------------------------------------------

cdef object make_inner_condition():
    return Condition(Lock())


cdef inline uint64_t semaphore_limit(Semaphore self) noexcept:
    if isinstance(self, BoundedSemaphore):
        return (<BoundedSemaphore>self).initial
    return semaphore_max()


cdef int take_permit(void* semaphore, int64_t deadline) noexcept:
    return semaphore_acquire_until(<fs_semaphore*>semaphore, deadline, FS_SIGNALS)


cdef inline bint acquire_semaphore(Semaphore self, int64_t deadline) except -1:
    if tracing():
        return trace_lock(self, FS_PERMIT, deadline, NULL, take_permit, &self.semaphore)
    return checked(semaphore_acquire_until(&self.semaphore, deadline, FS_SIGNALS))


cdef int semaphore_give(Semaphore self, uint64_t n) except -1:
    cdef fs_section section
    cdef bint traced = tracing()
    cdef int result
    if traced:
        trace_release(&section, self, FS_PERMIT, NULL)
    result = semaphore_release(&self.semaphore, n, semaphore_limit(self))
    if traced:
        trace_released(&section)
    if result < 0:
        if isinstance(self, BoundedSemaphore):
            raise ValueError("Semaphore released too many times")
        raise OverflowError("semaphore value is too large")
    return 0


cdef PyObject* semaphore_call(
    PyObject* self, PyObject** args, size_t nargsf, PyObject* names,
) except NULL:
    cdef size_t nargs = PyVectorcall_NARGS(nargsf)
    if names == NULL and nargs == 0:
        acquire_semaphore(<Semaphore>self, FS_FOREVER)
        return Py_NewRef(Py_True)
    if names != NULL or nargs != 3:
        refuse_call(nargs)
    if (<PyObject*>(<Semaphore>self).attributes == NULL
            and (type(<object>self) is Semaphore or type(<object>self) is BoundedSemaphore)):
        semaphore_give(<Semaphore>self, 1)
    else:
        (<object>self).release()  # it may be somebody's override
    return Py_NewRef(Py_None)


cdef uint64_t initial_value(object value) except? 0:
    cdef int64_t small
    if fs_small_int(<PyObject*>value, &small) and small >= 0:
        return small
    value = PyNumber_Index(value)
    if value < 0:
        raise ValueError("semaphore initial value must be >= 0")
    if value > PY_SSIZE_T_MAX:
        raise OverflowError("semaphore value is too large")
    return value


@cython.no_gc_clear
cdef class Semaphore(_Extensible):
    """Semaphore(value=1)
--

A counter of permits, as `threading.Semaphore`.

value: how many may acquire before one must release; ValueError below 0.
release() happens before the acquire() that takes its permit (release / acquire
ordering)."""

    def __cinit__(self):
        self.call = semaphore_call
        semaphore_init(&self.semaphore, 1)
        if tracing():
            trace_made(self)

    def __init__(self, value=1):
        semaphore_set_value(&self.semaphore, initial_value(value))

    @property
    def _value(self):
        return semaphore_value(&self.semaphore)

    @_value.setter
    def _value(self, value):
        semaphore_set_value(&self.semaphore, initial_value(value))

    @property
    def _cond(self):
        return lazily(self, "_inner_condition", make_inner_condition)

    def acquire(self, blocking=True, timeout=None):
        """Take a permit, waiting for one; whether it was taken.

        blocking: False answers at once.  timeout: seconds, None for no limit, not
        positive: at once.  ValueError for a timeout in a call that does not block.
        """
        if blocking is True and timeout is None:
            return acquire_semaphore(self, FS_FOREVER)
        if not blocking and timeout is not None:
            raise ValueError("can't specify timeout for non-blocking acquire")
        return acquire_semaphore(self, wait_deadline(timeout) if blocking else 0)

    def release(self, n=1):
        """Give n permits back, waking up to n waiting threads; ValueError for n < 1."""
        cdef int64_t small
        if fs_small_int(<PyObject*>n, &small) and small > 0:
            semaphore_give(self, small)
            return
        n = PyNumber_Index(n)
        if n < 1:
            raise ValueError("n must be one or more")
        if n > PY_SSIZE_T_MAX:
            n = PY_SSIZE_T_MAX  # past every limit
        semaphore_give(self, n)

    def __enter__(self, blocking=True, timeout=None):
        return Semaphore.acquire(self, blocking, timeout)

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        self.release()

    def __reduce__(self):
        refuse_pickling("_thread.lock")

    def __repr__(self):
        return f"<{stock_name(self)} at {address(self)}: value={semaphore_value(&self.semaphore)}>"


@cython.no_gc_clear
cdef class BoundedSemaphore(Semaphore):
    """BoundedSemaphore(value=1)
--

A Semaphore whose value may not exceed the initial one.

release() past it raises ValueError and changes nothing."""

    def __cinit__(self):
        self.initial = 1

    def __init__(self, value=1):
        semaphore_set_value(&self.semaphore, initial_value(value))
        self.initial = value

    @property
    def _initial_value(self):
        return self.initial

    @_initial_value.setter
    def _initial_value(self, value):
        self.initial = initial_value(value)

    def __repr__(self):
        return (f"<{stock_name(self)} at {address(self)}: "
                f"value={semaphore_value(&self.semaphore)}/{self.initial}>")


# -- Event -------------------------------------------------------------------

cdef int take_event(void* event, int64_t deadline) noexcept:
    return event_wait_until(<fs_event*>event, deadline, FS_SIGNALS)


cdef inline bint wait_for_event(Event self, int64_t deadline) except -1:
    if tracing():
        return trace_lock(self, FS_SIGNAL, deadline, NULL, take_event, &self.event)
    return checked(event_wait_until(&self.event, deadline, FS_SIGNALS))


@cython.no_gc_clear
cdef class Event(_Extensible):
    """Event()
--

A flag that threads wait for, as `threading.Event`.

set() happens before every wait() and is_set() that sees it (release / acquire
ordering)."""

    def __cinit__(self):
        if tracing():
            trace_made(self)

    def __init__(self):
        event_clear(&self.event)

    @property
    def _flag(self):
        return event_is_set(&self.event)

    @_flag.setter
    def _flag(self, value):
        if value:
            event_set(&self.event)
        else:
            event_clear(&self.event)

    @property
    def _cond(self):
        return lazily(self, "_inner_condition", make_inner_condition)

    def is_set(self):
        """Whether the flag is set."""
        return event_is_set(&self.event)

    def isSet(self):
        """Deprecated alias of is_set()."""
        PyErr_WarnEx(DeprecationWarning, b"isSet() is deprecated, use is_set() instead", 1)
        return self.is_set()

    def set(self):
        """Set the flag and wake everybody who waits."""
        cdef fs_section section
        if not tracing():
            event_set(&self.event)
            return
        trace_release(&section, self, FS_SIGNAL, NULL)
        event_set(&self.event)
        trace_released(&section)

    def clear(self):
        """Clear the flag; threads that a set() has woken are not held back."""
        event_clear(&self.event)

    def wait(self, timeout=None):
        """Wait until the flag is set; False when `timeout` seconds passed first."""
        if event_is_set(&self.event):
            return True
        return wait_for_event(self, wait_deadline(timeout))

    def _at_fork_reinit(self):
        # The flag stays; whoever was parked did not survive the fork.
        cdef bint was_set = event_is_set(&self.event)
        event_reset(&self.event, was_set)
        if <PyObject*>(<_Extensible>self).attributes != NULL and "_inner_condition" in self.__dict__:
            self._cond._at_fork_reinit()

    def __reduce__(self):
        refuse_pickling("_thread.lock")

    def __repr__(self):
        status = "set" if event_is_set(&self.event) else "unset"
        return f"<{stock_name(self)} at {address(self)}: {status}>"


# -- Barrier -----------------------------------------------------------------

cdef int broken_barrier() except -1:
    # The standard library's own class, and not at import: `threading` itself
    # may be about to be replaced.
    from threading import BrokenBarrierError
    raise BrokenBarrierError


cdef uint32_t party_count(object parties) except 0:
    parties = PyNumber_Index(parties)
    if parties < 1:
        raise ValueError("parties must be >= 1")
    return parties


cdef int finish_round(Barrier self) except -1:
    cdef object action = kept(<PyObject*>self.action)
    if action is not None:
        try:
            if action:  # its truth decides, as in the original
                action()
        except BaseException:
            barrier_abort(&self.barrier)
            barrier_open(&self.barrier)
            raise
    return FS_BARRIER_BROKEN if barrier_open(&self.barrier) else FS_BARRIER_PASSED


cdef class Barrier(_Extensible):
    """Barrier(parties, action=None, timeout=None)
--

A meeting point for `parties` threads, as `threading.Barrier`.

action: called by the last to arrive, before anybody leaves; what it raises
breaks the barrier.  timeout: seconds, the default of wait().  Everything
before a wait() happens before everything after any other wait() of the round."""

    def __cinit__(self):
        barrier_init(&self.barrier, 1)

    def __init__(self, parties, action=None, timeout=None):
        barrier_reinit(&self.barrier, party_count(parties))
        with cython.critical_section(self):
            if self.action is not None or self.timeout is not None:
                # A second __init__(): as set_lock.
                Py_INCREF(self.action)
                Py_INCREF(self.timeout)
            elif action is None and timeout is None:
                return
            self.action = action
            self.timeout = timeout
        track(self)

    def wait(self, timeout=None):
        """Wait until `parties` threads have called this; the order of arrival, from 0.

        timeout: seconds, None for the constructor's.  BrokenBarrierError when it
        passes first (which breaks the barrier for all), or the barrier is or
        gets broken or reset.
        """
        cdef uint32_t index = 0
        cdef int64_t deadline
        cdef int outcome
        if timeout is None:
            timeout = kept(<PyObject*>self.timeout)
        deadline = wait_deadline(timeout)
        if deadline == 0:
            deadline = 1  # the past: arriving last still passes
        outcome = barrier_arrive(&self.barrier, deadline, FS_SIGNALS, &index)
        checked(outcome)
        if outcome == FS_BARRIER_LAST:
            outcome = finish_round(self)
        if outcome == FS_BARRIER_BROKEN:
            broken_barrier()
        return index

    def reset(self):
        """Start over; threads that wait now get BrokenBarrierError."""
        checked(barrier_reset(&self.barrier, FS_SIGNALS))

    def abort(self):
        """Break the barrier: waiting now or later raises BrokenBarrierError."""
        barrier_abort(&self.barrier)

    @property
    def parties(self):
        """How many threads make a round."""
        return self.barrier.parties

    @property
    def n_waiting(self):
        """How many threads wait, at this moment."""
        return barrier_waiting(&self.barrier)

    @property
    def broken(self):
        """Whether the barrier is broken."""
        return barrier_is_broken(&self.barrier)

    @property
    def _action(self):
        return kept(<PyObject*>self.action)

    @property
    def _timeout(self):
        return kept(<PyObject*>self.timeout)

    @property
    def _parties(self):
        return self.barrier.parties

    @property
    def _count(self):
        return barrier_waiting(&self.barrier)

    def __reduce__(self):
        refuse_pickling("_thread.lock")

    def __repr__(self):
        if barrier_is_broken(&self.barrier):
            return f"<{stock_name(self)} at {address(self)}: broken>"
        return (f"<{stock_name(self)} at {address(self)}: "
                f"waiters={barrier_waiting(&self.barrier)}/{self.barrier.parties}>")


# -- short ways: the plain calls of the most used methods, see shorten() -----

cdef fs_method usual_lock_acquire
cdef fs_method usual_rlock_acquire
cdef fs_method usual_semaphore_acquire
cdef fs_method usual_semaphore_release


cdef PyObject* short_lock_acquire(
    PyObject* self, PyObject** args, Py_ssize_t nargs, PyObject* names,
) except NULL:
    if nargs != 0 or names != NULL:
        return usual_lock_acquire(self, args, nargs, names)
    lock_acquire(<Lock>self, FS_FOREVER, 0)
    return Py_NewRef(Py_True)


cdef PyObject* short_rlock_acquire(
    PyObject* self, PyObject** args, Py_ssize_t nargs, PyObject* names,
) except NULL:
    if nargs != 0 or names != NULL:
        return usual_rlock_acquire(self, args, nargs, names)
    return rlock_call(self, args, 0, NULL)


cdef PyObject* short_semaphore_acquire(
    PyObject* self, PyObject** args, Py_ssize_t nargs, PyObject* names,
) except NULL:
    if nargs != 0 or names != NULL:
        return usual_semaphore_acquire(self, args, nargs, names)
    return semaphore_call(self, args, 0, NULL)


cdef PyObject* short_semaphore_release(
    PyObject* self, PyObject** args, Py_ssize_t nargs, PyObject* names,
) except NULL:
    if nargs != 0 or names != NULL:
        return usual_semaphore_release(self, args, nargs, names)
    semaphore_give(<Semaphore>self, 1)
    return Py_NewRef(Py_None)


cdef int shorten_methods() except -1:
    global usual_lock_acquire, usual_rlock_acquire
    global usual_semaphore_acquire, usual_semaphore_release
    usual_lock_acquire = shorten(Lock, "acquire", short_lock_acquire)
    usual_rlock_acquire = shorten(RLock, "acquire", short_rlock_acquire)
    usual_semaphore_acquire = shorten(Semaphore, "acquire", short_semaphore_acquire)
    usual_semaphore_release = shorten(Semaphore, "release", short_semaphore_release)
    return 0


# -- set-up ------------------------------------------------------------------

cdef inline Py_ssize_t offset(object probe, void* field) noexcept:
    return <char*>field - <char*><PyObject*>probe


cdef int set_up() except -1:
    cdef Lock lock = Lock()
    cdef RLock rlock = RLock()
    cdef Condition condition = Condition()
    cdef _ConditionLock view = _ConditionLock(condition)
    cdef Semaphore semaphore = Semaphore()
    make_context_manager(Lock, offset(lock, &lock.call))
    make_context_manager(RLock, offset(rlock, &rlock.call))
    make_context_manager(Condition, offset(condition, &condition.call))
    make_context_manager(_ConditionLock, offset(view, &view.call))
    make_context_manager(Semaphore, offset(semaphore, &semaphore.call))
    make_context_manager(BoundedSemaphore, offset(semaphore, &semaphore.call))
    make_constructor(RLock, new_rlock)
    shorten_methods()
    make_lazy_dict(Condition, attributes_at)
    make_lazy_dict(Semaphore, attributes_at)
    make_lazy_dict(BoundedSemaphore, attributes_at)
    make_lazy_dict(Event, attributes_at)
    make_lazy_dict(Barrier, attributes_at)
    for cls in (RLock, Condition, Semaphore, BoundedSemaphore, Event, Barrier):
        finish_type(cls, True)  # as the originals are
    for cls in (Lock, _Extensible, _ConditionLock):
        finish_type(cls, False)
    rename_type(Lock, b"threading.Lock")
    rename_type(RLock, b"threading.RLock")
    rename_type(Condition, b"threading.Condition")
    rename_type(Semaphore, b"threading.Semaphore")
    rename_type(BoundedSemaphore, b"threading.BoundedSemaphore")
    rename_type(Event, b"threading.Event")
    rename_type(Barrier, b"threading.Barrier")
    register_pinnable(Lock, RLock, Condition, Semaphore, BoundedSemaphore, Event, Barrier)
    return 0


set_up()

# What is_plain() compares with.
cdef object own_wait = Condition.wait
cdef object own_notify = Condition.notify
