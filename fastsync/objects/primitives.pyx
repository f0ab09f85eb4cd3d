# distutils: define_macros=CYTHON_USE_TYPE_SPECS=1
# Heap types, because these can be patched and renamed as the originals can: `type` writes a new
# name where only a heap type has room for it.
"""The native types behind fastsync.threading.

Veneers: each method parses its arguments, calls a raw lock and
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

from fastsync._watch.trace cimport (
    FS_BLOCK, FS_EXCLUSIVE, FS_PERMIT, FS_REENTRANT, fs_section, FS_SIGNAL, fs_wait,
    trace_condition, trace_disowned, trace_lock, trace_made, trace_notified, trace_release,
    trace_release_all, trace_released, trace_relock, trace_signal, trace_signalled, tracing,
)
from fastsync.objects._slots cimport (
    finish_type, forbid_instances, fs_call, fs_method, make_constructor, make_context_manager,
    make_lazy_dict, rename_type, set_metaclass, share_layout, shorten, version_tag,
    weakrefs_offset,
)
from fastsync.objects._timeouts cimport lock_deadline, wait_deadline
from fastsync.raw.barrier cimport (
    barrier_abort, barrier_arrive, barrier_init, barrier_is_broken, barrier_open, barrier_reinit,
    barrier_reset, barrier_waiting, FS_BARRIER_BROKEN, FS_BARRIER_LAST, FS_BARRIER_PASSED,
)
from fastsync.raw.c_atomic cimport fs_uptr_load_relaxed, fs_uptr_store_relaxed
from fastsync.raw.c_atomic_order cimport fs_fence, FS_SEQ_CST
from fastsync.raw.c_python cimport fs_small_int
from fastsync.raw.c_wait cimport FS_FOREVER, fs_now, fs_thread_id
from fastsync.raw.condvar cimport (
    condvar_has_waiters, condvar_notify_some, condvar_reset, condvar_wait, FS_CONDVAR_BAD_MUTEX,
)
from fastsync.raw.event cimport (
    event_clear, event_is_set, event_reset, event_set, event_wait_until, fs_event,
)
from fastsync.raw.mutex cimport (
    fs_mutex, mutex_is_locked, mutex_lock, mutex_lock_until, mutex_reset, mutex_unlock,
)
from fastsync.raw.parking cimport FS_ACQUIRED, FS_SIGNALS, parked_count
from fastsync.raw.remutex cimport (
    fs_remutex, remutex_count, remutex_is_mine, remutex_lock_until, remutex_own, remutex_set_count,
    remutex_unlock,
)
from fastsync.raw.semaphore cimport (
    fs_semaphore, semaphore_acquire_until, semaphore_init, semaphore_max, semaphore_release,
    semaphore_set_value, semaphore_value,
)

import _thread
import copyreg
import threading as stdlib
from collections import deque
from weakref import ref

from fastsync.objects._pin import register_pinnable

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


cdef inline bint is_original(_Extensible self) noexcept:
    """Whether the standard library's methods do its work: see _Extensible."""
    return <PyObject*>self.inner == Py_True


cdef inline bint is_plain_type(PyTypeObject* cls) noexcept:
    """No subclass, whose instances refer to anything."""
    return (cls == <PyTypeObject*>Event or cls == <PyTypeObject*>Condition
            or cls == <PyTypeObject*>Semaphore or cls == <PyTypeObject*>BoundedSemaphore
            or cls == <PyTypeObject*>Barrier)


@cython.no_gc_clear  # what it refers to must outlive a waiter; cycles end in the __dict__
cdef class _Extensible:
    """A type whose instances take attributes, in a `__dict__` made on first use.

    Until then the collector need not know the instance.

    An instance is `original` when the standard library's own methods do its work, on
    attributes of its own (`_cond`, `_value` and so on).  That is so for every instance of
    a subclass: subclasses override these attributes, set them, and rely on the way in
    which the inherited methods use them.  It is also so for a Condition over a lock that
    is not one of ours, and for an instance one of whose private attributes has been set.
    """

    def __cinit__(self):
        # Cython fills the slot with None, which tp_dictoffset would take for a dict.
        cdef PyObject** slot = attribute_slot(self)
        cdef PyObject* none = slot[0]
        slot[0] = NULL
        Py_XDECREF(none)
        if is_plain_type(Py_TYPE(self)):
            PyObject_GC_UnTrack(<void*>self)
        else:
            self.inner = True

    @property
    def __dict__(self):
        attributes = PyObject_GenericGetDict(self, NULL)
        track(self)
        return attributes

    @__dict__.setter
    def __dict__(self, value):
        PyObject_GenericSetDict(self, value, NULL)
        track(self)

    @__dict__.deleter
    def __dict__(self):
        PyObject_GenericSetDict(self, {}, NULL)

    def __setattr__(self, name, value):
        PyObject_GenericSetAttr(self, name, value)
        track(self)

    def __reduce_ex__(self, protocol):
        if is_original(self):
            # As for any other object: the subclass may have `__getstate__` and the like.
            return object.__reduce_ex__(self, protocol)
        refuse_pickling(self)


ctypedef object (*fs_private_read)(object self)
ctypedef int (*fs_private_write)(object self, object value) except -1


@cython.final
cdef class _Private:
    """One of the original's private attributes: what the word says, for an instance that is
    not `original`; an entry of the `__dict__`, for one that is."""
    cdef type owner
    cdef str name
    cdef fs_private_read read
    cdef fs_private_write write  # NULL: who sets it has the instance become `original`

    cdef int check(self, instance) except -1:
        if not isinstance(instance, self.owner):
            raise TypeError(f"descriptor {self.name!r} for {self.owner.__name__!r} objects "
                            f"doesn't apply to a {type(instance).__name__!r} object")
        return 0

    def __get__(self, instance, owner):
        if instance is None:
            return self
        self.check(instance)
        if not is_original(instance):
            return self.read(instance)
        try:
            return PyObject_GenericGetDict(instance, NULL)[self.name]
        except KeyError:
            pass
        raise AttributeError(
            f"{type(instance).__name__!r} object has no attribute {self.name!r}")

    def __set__(self, instance, value):
        self.check(instance)
        if not is_original(instance):
            if self.write != NULL:
                self.write(instance, value)
                return
            become_original(instance)
        instance.__dict__[self.name] = value

    def __delete__(self, instance):
        self.check(instance)
        become_original(instance)
        try:
            del instance.__dict__[self.name]
            return
        except KeyError:
            pass
        raise AttributeError(
            f"{type(instance).__name__!r} object has no attribute {self.name!r}")


cdef int add_private(
    type owner, str name, fs_private_read read, fs_private_write write,
) except -1:
    cdef _Private descriptor = _Private.__new__(_Private)
    descriptor.owner = owner
    descriptor.name = name
    descriptor.read = read
    descriptor.write = write
    setattr(owner, name, descriptor)
    return 0


cdef int become_original(_Extensible self) except -1:
    """From now on the standard library's methods do its work, from the state that it has.
    No other thread may use it meanwhile, as for `__init__()`."""
    cdef object state = None
    cdef size_t waiting
    with cython.critical_section(self):
        if is_original(self):
            return 0
        waiting = threads_waiting(self)
        if waiting == 0:
            self.inner = True
    if waiting != 0:
        raise RuntimeError("a private attribute cannot be set while threads wait")
    if isinstance(self, Semaphore):
        StdlibSemaphore.__init__(self, semaphore_value(&(<Semaphore>self).semaphore))
        if isinstance(self, BoundedSemaphore):
            self._initial_value = (<Semaphore>self).initial
    elif isinstance(self, Event):
        StdlibEvent.__init__(self)
        self._flag = event_is_set(&(<Event>self).event)
    elif isinstance(self, Condition):
        StdlibCondition.__init__(self, condition_lock(self))
    else:
        StdlibBarrier.__init__(
            self, (<Barrier>self).barrier.parties, kept(<PyObject*>(<Barrier>self).action),
            kept(<PyObject*>(<Barrier>self).timeout))
        if barrier_is_broken(&(<Barrier>self).barrier):
            self._state = -2
    return 0


cdef size_t threads_waiting(_Extensible self) noexcept:
    """How many threads wait in it natively."""
    if isinstance(self, Semaphore):
        return parked_count(<uintptr_t>&(<Semaphore>self).semaphore)
    if isinstance(self, Event):
        return parked_count(<uintptr_t>&(<Event>self).event)
    if isinstance(self, Condition):
        return parked_count(<uintptr_t>&(<Condition>self).waiters)
    return barrier_waiting(&(<Barrier>self).barrier)


cdef inline object kept(PyObject* seen):
    """What a field had when it was read, once: another thread may be setting it."""
    return <object>seen


# `_cond` of an object that works natively: a condition that locks nothing for us, but it
# is notified as the original's is, and `_waiters` counts the threads that wait natively.

cdef object inner_condition(object self):
    cdef _Extensible owner = self
    cdef Condition made
    if owner.inner is None:
        made = Condition(Lock())
        made.shown = ref(self)
        with cython.critical_section(owner):
            if owner.inner is None:
                owner.inner = made
        track(owner)
    # Pairs with the fence in notify_inner: this thread will look at the state after it.
    # Either it sees what the other thread has set, or that one sees `inner`.
    fs_fence(FS_SEQ_CST)
    return owner.inner


cdef int notify_inner(_Extensible self, uint64_t n) except -1:
    """After the state has changed: wake those who wait for `_cond`."""
    cdef Condition condition
    fs_fence(FS_SEQ_CST)  # pairs with the one in inner_condition
    if <PyObject*>self.inner == Py_None:
        return 0
    condition = self.inner
    condition_acquire(condition, FS_FOREVER, 0)
    try:
        condvar_notify_some(&condition.waiters, <size_t>min(n, <uint64_t>PY_SSIZE_T_MAX))
    finally:
        condition_release(condition)
    return 0


cdef int refuse_pickling(object self) except -1:
    name = "_thread.RLock" if isinstance(self, (RLock, Condition)) else "_thread.lock"
    raise TypeError(f"cannot pickle '{name}' object")


cdef str address(object self):
    return f"0x{<uintptr_t><PyObject*>self:x}"


cdef str stock_name(object self):
    """Module and name of the runtime class, as the originals' reprs have it."""
    return f"{type(self).__module__}.{type(self).__qualname__}"


# -- Lock and RLock, whose originals are types of `_thread` --------------------

cdef type stdlib_lock = type(_thread.allocate_lock())
cdef type stdlib_rlock = _thread.RLock


cdef object twin(cls):
    """The type whose instances count as instances of ours, made before a swap or in C."""
    if cls is Lock:
        return stdlib_lock
    return stdlib_rlock if cls is RLock else None


class _LockType(type):
    """Locks of the standard library are instances of ours, as ours are of its types."""

    def __instancecheck__(cls, instance):
        return type.__instancecheck__(cls, instance) or (
            twin(cls) is not None and isinstance(instance, twin(cls)))

    def __subclasscheck__(cls, other):
        return type.__subclasscheck__(cls, other) or (
            twin(cls) is not None and issubclass(other, twin(cls)))


cdef object reduce_as(object self, type original):
    """What a program has registered for the original's locks holds for ours."""
    reduce = copyreg.dispatch_table.get(original)
    if reduce is not None:
        return reduce(self)
    refuse_pickling(self)


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

Any thread may release it.  One byte of state; a thread that waits is handed it
in its turn, however often others take it.  release() happens before the acquire()
that takes the lock next (release / acquire ordering)."""

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
        """Whether a thread holds it, at this moment."""
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

    @property
    def __class__(self):
        return stdlib_lock  # what isinstance() and singledispatch ask; type() is Lock

    def __reduce_ex__(self, protocol):
        return reduce_as(self, stdlib_lock)

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

    @property
    def __class__(self):
        return stdlib_rlock if type(self) is RLock else type(self)

    def __reduce_ex__(self, protocol):
        if type(self) is not RLock:
            return object.__reduce_ex__(self, protocol)
        return reduce_as(self, stdlib_rlock)

    def __repr__(self):
        name = "_thread.RLock" if type(self) is RLock else type(self).__name__
        return remutex_repr(&self.remutex, name, self)


# -- Condition ---------------------------------------------------------------

# The standard library's classes, for what is `original`.  They are taken once: the module's
# attributes may be ours by now.
cdef object StdlibCondition = stdlib.Condition
cdef object StdlibSemaphore = stdlib.Semaphore
cdef object StdlibBoundedSemaphore = stdlib.BoundedSemaphore
cdef object StdlibEvent = stdlib.Event
cdef object StdlibBarrier = stdlib.Barrier


# A second __init__() may exchange the lock while other threads use it.  So it is never let
# go, and each call reads the field once: all that it does is done with that lock.

cdef inline PyObject* own_lock(Condition self) except NULL:
    cdef PyObject* lock = <PyObject*>self.lock
    if lock == Py_None:
        raise AttributeError("'Condition' object has no attribute '_lock'")
    return lock


cdef inline fs_remutex* rlock_of(PyObject* lock) noexcept:
    """Its word, or NULL when it is a Lock."""
    return NULL if Py_TYPE(<object>lock) == <PyTypeObject*>Lock else &(<RLock>lock).remutex


cdef object condition_lock(Condition self):
    return <object>own_lock(self)


cdef inline bint condition_acquire(Condition self, int64_t deadline, int block) except -1:
    cdef PyObject* lock = own_lock(self)
    cdef fs_remutex* remutex = rlock_of(lock)
    if remutex != NULL:
        return remutex_acquire(<object>lock, remutex, deadline)
    return word_acquire(<object>lock, &(<Lock>lock).mutex, deadline, block)


cdef inline int condition_release(Condition self) except -1:
    cdef PyObject* lock = own_lock(self)
    cdef fs_remutex* remutex = rlock_of(lock)
    if remutex != NULL:
        return remutex_release(<object>lock, remutex)
    return word_release(<object>lock, &(<Lock>lock).mutex)


cdef inline bint is_held(PyObject* lock) noexcept:
    cdef fs_remutex* remutex = rlock_of(lock)
    return remutex_is_mine(remutex) if remutex != NULL else mutex_is_locked(&(<Lock>lock).mutex)


cdef inline PyObject* held_lock(Condition self) except NULL:
    """The lock, which a thread must hold that waits."""
    cdef PyObject* lock = own_lock(self)
    if not is_held(lock):
        raise RuntimeError("cannot wait on un-acquired lock")
    return lock


cdef bint is_plain(Condition self) except -1:
    """Nothing stands in for a method: no attribute, no patch of the class."""
    return (attribute_slot(self)[0] == NULL
            and Condition.wait is own_wait and Condition.notify is own_notify)


cdef bint condition_wait(Condition self, PyObject* lock, int64_t deadline) except -1:
    """Wait for a notification, the lock held before and after."""
    cdef fs_remutex* remutex = rlock_of(lock)
    cdef fs_mutex* mutex = &(<Lock>lock).mutex if remutex == NULL else &remutex.mutex
    cdef int kind = FS_EXCLUSIVE if remutex == NULL else FS_REENTRANT
    cdef uint32_t count = 0
    cdef int outcome
    cdef bint noted = tracing()
    cdef fs_wait noting
    if deadline == 0:
        deadline = 1  # the past: give the lock up and take it again, at once
    if noted:
        trace_condition(&noting, self, <object>lock, kind, NULL, mutex, deadline)
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


cdef int condition_notify(Condition self, object n) except -1:
    if not is_held(own_lock(self)):
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


cdef int set_lock(Condition self, object lock) except -1:
    with cython.critical_section(self):
        if self.lock is not None and self.lock is not lock:
            Py_INCREF(self.lock)  # see own_lock
        self.lock = lock
    return 0


cdef object read_lock(object self):
    return condition_lock(self)


cdef object read_waiters(object self):
    cdef Condition condition = self
    cdef Py_ssize_t count = parked_count(<uintptr_t>&condition.waiters)
    shown = kept(<PyObject*>condition.shown)
    owner = None if shown is None else shown()
    if owner is not None:
        count += threads_waiting(owner)
    return deque([None] * count)


cdef PyObject* condition_call(
    PyObject* self, PyObject** args, size_t nargsf, PyObject* names,
) except NULL:
    cdef size_t nargs = PyVectorcall_NARGS(nargsf)
    if names != NULL or (nargs != 0 and nargs != 3):
        refuse_call(nargs)
    if is_original(<Condition>self):
        answer = (StdlibCondition.__enter__(<object>self) if nargs == 0 else
                  StdlibCondition.__exit__(
                      <object>self, <object>args[0], <object>args[1], <object>args[2]))
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

    def __init__(self, lock=None):
        if not is_original(self):
            if lock is None:
                lock = RLock()
            if type(lock) is Lock or type(lock) is RLock:
                set_lock(self, lock)
                return
            self.inner = True
            set_lock(self, None)
        StdlibCondition.__init__(self, lock)

    def acquire(self, blocking=True, timeout=-1):
        """The lock's acquire()."""
        if is_original(self):
            return self._lock.acquire(blocking, timeout)
        return condition_acquire(self, lock_deadline(blocking, timeout), 0)

    def release(self):
        """The lock's release()."""
        if is_original(self):
            return self._lock.release()
        condition_release(self)

    def locked(self):
        """The lock's locked()."""
        if is_original(self):
            return self._lock.locked()
        return condition_lock(self).locked()

    def __enter__(self):
        if is_original(self):
            return StdlibCondition.__enter__(self)
        return condition_acquire(self, FS_FOREVER, FS_BLOCK)

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        if is_original(self):
            return StdlibCondition.__exit__(self, exc_type, exc_value, traceback)
        condition_release(self)

    def wait(self, timeout=None):
        """Release the lock, sleep until notified, take the lock again.

        timeout: seconds, None for no limit.  False when it passed first (the lock
        is taken again all the same, without a limit).  RuntimeError when the
        lock is not held.
        """
        cdef int64_t deadline
        if is_original(self):
            return StdlibCondition.wait(self, timeout)
        held_lock(self)
        deadline = wait_deadline(timeout)
        # Once more: methods of `timeout` may have released the lock, or exchanged it.
        return condition_wait(self, held_lock(self), deadline)

    def wait_for(self, predicate, timeout=None):
        """wait() until predicate() is true, or `timeout` seconds have passed in all:
        the predicate's last value."""
        cdef int64_t deadline
        cdef bint plain
        if is_original(self):
            return StdlibCondition.wait_for(self, predicate, timeout)
        plain = is_plain(self)
        result = predicate()
        if result:
            return result
        deadline = wait_deadline(timeout)
        while True:
            # Once at least, also when there is no time: the lock is released.
            if not plain:
                self.wait(None if timeout is None else max((deadline - fs_now()) * 1e-9, 0.0))
            else:
                condition_wait(self, held_lock(self), deadline)
            result = predicate()
            if result or (timeout is not None and fs_now() >= deadline):
                return result

    def notify(self, n=1):
        """Wake up to n waiting threads; they run when they get the lock.
        RuntimeError when the lock is not held."""
        if is_original(self):
            return StdlibCondition.notify(self, n)
        condition_notify(self, n)

    def notify_all(self):
        """Wake every waiting thread.  RuntimeError when the lock is not held."""
        if is_original(self):
            StdlibCondition.notify_all(self)
        elif is_plain(self):
            condition_notify(self, PY_SSIZE_T_MAX)
        else:
            self.notify(parked_count(<uintptr_t>&self.waiters))

    def notifyAll(self):
        """Deprecated alias of notify_all()."""
        PyErr_WarnEx(DeprecationWarning,
                     b"notifyAll() is deprecated, use notify_all() instead", 1)
        self.notify_all()

    def _is_owned(self):
        if is_original(self):
            return StdlibCondition._is_owned(self)
        return is_held(own_lock(self))

    def _release_save(self):
        cdef fs_remutex* remutex
        if is_original(self):
            return StdlibCondition._release_save(self)
        remutex = rlock_of(own_lock(self))
        if remutex != NULL:
            return remutex_release_save(condition_lock(self), remutex)
        condition_release(self)

    def _acquire_restore(self, state):
        cdef PyObject* lock
        cdef fs_remutex* remutex
        if is_original(self):
            StdlibCondition._acquire_restore(self, state)
            return
        lock = own_lock(self)
        remutex = rlock_of(lock)
        if remutex != NULL:
            remutex_acquire_restore(<object>lock, remutex, state)
        else:
            word_retake(<object>lock, &(<Lock>lock).mutex)

    def _recursion_count(self):
        return self._lock._recursion_count()

    def _at_fork_reinit(self):
        if is_original(self):
            StdlibCondition._at_fork_reinit(self)
            return
        condition_lock(self)._at_fork_reinit()
        # The waiters did not survive the fork; if there was none, they wake.
        condvar_reset(&self.waiters)

    def __repr__(self):
        if is_original(self):
            return StdlibCondition.__repr__(self)
        count = parked_count(<uintptr_t>&self.waiters)
        return f"<Condition({condition_lock(self)!r}, {count})>"


# -- Semaphore, BoundedSemaphore ---------------------------------------------

cdef uint64_t permits(object n) except 0:
    cdef int64_t small
    if fs_small_int(<PyObject*>n, &small) and small > 0:
        return small
    n = PyNumber_Index(n)
    if n < 1:
        raise ValueError("n must be one or more")
    return min(n, PY_SSIZE_T_MAX)  # which is past every limit


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
    return notify_inner(self, n)


cdef PyObject* semaphore_call(
    PyObject* self, PyObject** args, size_t nargsf, PyObject* names,
) except NULL:
    cdef size_t nargs = PyVectorcall_NARGS(nargsf)
    if names == NULL and nargs == 0:
        if is_original(<Semaphore>self):
            answer = StdlibSemaphore.acquire(<object>self)
            return Py_NewRef(<PyObject*>answer)
        acquire_semaphore(<Semaphore>self, FS_FOREVER)
        return Py_NewRef(Py_True)
    if names != NULL or nargs != 3:
        refuse_call(nargs)
    if <PyObject*>(<Semaphore>self).attributes == NULL and is_as_made(<Semaphore>self):
        semaphore_give(<Semaphore>self, 1)
    else:
        (<object>self).release()  # it may be an override, or a patch of the class
    return Py_NewRef(Py_None)


# The version of the two classes while nothing in them has been patched.
cdef unsigned int semaphore_version = 0
cdef unsigned int bounded_semaphore_version = 0


cdef inline bint is_as_made(Semaphore self) noexcept:
    """Its class has the methods that it was made with: no subclass, no patch."""
    if type(self) is Semaphore:
        return semaphore_version != 0 and version_tag(Semaphore) == semaphore_version
    return (type(self) is BoundedSemaphore and bounded_semaphore_version != 0
            and version_tag(BoundedSemaphore) == bounded_semaphore_version)


cdef object read_value(object self):
    return semaphore_value(&(<Semaphore>self).semaphore)


cdef int write_value(object self, object value) except -1:
    semaphore_set_value(&(<Semaphore>self).semaphore, initial_value(value))
    return 0


cdef object read_initial_value(object self):
    return (<Semaphore>self).initial


cdef int write_initial_value(object self, object value) except -1:
    (<Semaphore>self).initial = initial_value(value)
    return 0


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
        cdef uint64_t initial
        if is_original(self):
            StdlibSemaphore.__init__(self, value)
            return
        initial = initial_value(value)
        semaphore_set_value(&self.semaphore, initial)

    def acquire(self, blocking=True, timeout=None):
        """Take a permit, waiting for one; whether it was taken.

        blocking: False answers at once.  timeout: seconds, None for no limit, not
        positive: at once.  ValueError for a timeout in a call that does not block.
        """
        if is_original(self):
            return StdlibSemaphore.acquire(self, blocking, timeout)
        if blocking is True and timeout is None:
            return acquire_semaphore(self, FS_FOREVER)
        if not blocking and timeout is not None:
            raise ValueError("can't specify timeout for non-blocking acquire")
        return acquire_semaphore(self, wait_deadline(timeout) if blocking else 0)

    def release(self, n=1):
        """Give n permits back, waking up to n waiting threads; ValueError for n < 1."""
        if is_original(self):
            StdlibSemaphore.release(self, n)
        else:
            semaphore_give(self, permits(n))

    def __enter__(self, blocking=True, timeout=None):
        return Semaphore.acquire(self, blocking, timeout)

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        self.release()

    def __repr__(self):
        if is_original(self):
            return StdlibSemaphore.__repr__(self)
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
        cdef uint64_t initial
        if is_original(self):
            StdlibSemaphore.__init__(self, value)
            self._initial_value = value
            return
        initial = initial_value(value)
        with cython.critical_section(self):  # not the value of one call and the bound of another
            self.initial = initial
            semaphore_set_value(&self.semaphore, initial)

    def release(self, n=1):
        """As Semaphore.release(); ValueError when the value would exceed the initial one."""
        if is_original(self):
            StdlibBoundedSemaphore.release(self, n)
        else:
            semaphore_give(self, permits(n))

    def __repr__(self):
        if is_original(self):
            return StdlibBoundedSemaphore.__repr__(self)
        return (f"<{stock_name(self)} at {address(self)}: "
                f"value={semaphore_value(&self.semaphore)}/{self.initial}>")


# -- Event -------------------------------------------------------------------

cdef int take_event(void* event, int64_t deadline) noexcept:
    return event_wait_until(<fs_event*>event, deadline, FS_SIGNALS)


cdef inline bint wait_for_event(Event self, int64_t deadline) except -1:
    if tracing():
        return trace_lock(self, FS_SIGNAL, deadline, NULL, take_event, &self.event)
    return checked(event_wait_until(&self.event, deadline, FS_SIGNALS))


cdef object read_flag(object self):
    return event_is_set(&(<Event>self).event)


cdef int write_flag(object self, object value) except -1:
    if value:
        event_set(&(<Event>self).event)
    else:
        event_clear(&(<Event>self).event)
    return 0


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
        if is_original(self):
            StdlibEvent.__init__(self)
            return
        event_clear(&self.event)

    def is_set(self):
        """Whether the flag is set."""
        if is_original(self):
            return StdlibEvent.is_set(self)
        return event_is_set(&self.event)

    def isSet(self):
        """Deprecated alias of is_set()."""
        PyErr_WarnEx(DeprecationWarning, b"isSet() is deprecated, use is_set() instead", 1)
        return self.is_set()

    def set(self):
        """Set the flag and wake every waiting thread."""
        cdef fs_section section
        if is_original(self):
            StdlibEvent.set(self)
            return
        if tracing():
            trace_release(&section, self, FS_SIGNAL, NULL)
            event_set(&self.event)
            trace_released(&section)
        else:
            event_set(&self.event)
        notify_inner(self, PY_SSIZE_T_MAX)

    def clear(self):
        """Clear the flag; threads that a set() has woken are not held back."""
        if is_original(self):
            StdlibEvent.clear(self)
            return
        event_clear(&self.event)

    def wait(self, timeout=None):
        """Wait until the flag is set; False when `timeout` seconds passed first."""
        if is_original(self):
            return StdlibEvent.wait(self, timeout)
        if event_is_set(&self.event):
            return True
        return wait_for_event(self, wait_deadline(timeout))

    def _at_fork_reinit(self):
        # The flag stays; threads that were parked did not survive the fork.
        cdef bint was_set
        if is_original(self):
            StdlibEvent._at_fork_reinit(self)
            return
        was_set = event_is_set(&self.event)
        event_reset(&self.event, was_set)
        if self.inner is not None:
            self.inner._at_fork_reinit()

    def __repr__(self):
        if is_original(self):
            return StdlibEvent.__repr__(self)
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


cdef object read_action(object self):
    return kept(<PyObject*>(<Barrier>self).action)


cdef int write_action(object self, object value) except -1:
    return set_extras(self, value, kept(<PyObject*>(<Barrier>self).timeout))


cdef object read_timeout(object self):
    return kept(<PyObject*>(<Barrier>self).timeout)


cdef int write_timeout(object self, object value) except -1:
    return set_extras(self, kept(<PyObject*>(<Barrier>self).action), value)


cdef object read_parties(object self):
    return (<Barrier>self).barrier.parties


cdef object read_count(object self):
    return barrier_waiting(&(<Barrier>self).barrier)


cdef object read_state(object self):
    return -2 if barrier_is_broken(&(<Barrier>self).barrier) else 0


cdef int set_extras(Barrier self, object action, object timeout) except -1:
    with cython.critical_section(self):
        if self.action is not None or self.timeout is not None:
            # Other threads may be reading them: what is replaced is never let go.
            Py_INCREF(self.action)
            Py_INCREF(self.timeout)
        elif action is None and timeout is None:
            return 0
        self.action = action
        self.timeout = timeout
    track(self)
    return 0


@cython.trashcan(True)
cdef class Barrier(_Extensible):
    """Barrier(parties, action=None, timeout=None)
--

A meeting point for `parties` threads, as `threading.Barrier`.

action: called by the last to arrive, before anybody leaves; what it raises
breaks the barrier.  timeout: seconds, the default of wait().  Everything
before a wait() happens before everything after any other wait() of the round."""

    def __cinit__(self):
        barrier_init(&self.barrier, 1)
        if tracing():
            trace_made(self)

    def __init__(self, parties, action=None, timeout=None):
        if is_original(self):
            StdlibBarrier.__init__(self, parties, action, timeout)
            return
        barrier_reinit(&self.barrier, party_count(parties))
        set_extras(self, action, timeout)

    def wait(self, timeout=None):
        """Wait until `parties` threads have called this; the order of arrival, from 0.

        timeout: seconds, None for the constructor's.  BrokenBarrierError when it
        passes first (which breaks the barrier for all), or the barrier is or
        gets broken or reset.
        """
        cdef uint32_t index = 0
        cdef int64_t deadline
        cdef int outcome
        cdef fs_wait noting
        if is_original(self):
            return StdlibBarrier.wait(self, timeout)
        if timeout is None:
            timeout = kept(<PyObject*>self.timeout)
        deadline = wait_deadline(timeout)
        if deadline == 0:
            deadline = 1  # the past: arriving last still passes
        if tracing():
            trace_signal(&noting, self, deadline)
            outcome = barrier_arrive(&self.barrier, deadline, FS_SIGNALS, &index)
            trace_signalled(&noting)
        else:
            outcome = barrier_arrive(&self.barrier, deadline, FS_SIGNALS, &index)
        checked(outcome)
        if outcome == FS_BARRIER_LAST:
            outcome = finish_round(self)
        if outcome == FS_BARRIER_BROKEN:
            broken_barrier()
        return index

    def reset(self):
        """Start over; threads that wait now get BrokenBarrierError."""
        if is_original(self):
            StdlibBarrier.reset(self)
            return
        checked(barrier_reset(&self.barrier, FS_SIGNALS))

    def abort(self):
        """Break the barrier: waiting now or later raises BrokenBarrierError."""
        if is_original(self):
            StdlibBarrier.abort(self)
            return
        barrier_abort(&self.barrier)

    @property
    def parties(self):
        """How many threads make a round."""
        if is_original(self):
            return StdlibBarrier.parties.__get__(self)
        return self.barrier.parties

    @property
    def n_waiting(self):
        """How many threads wait, at this moment."""
        if is_original(self):
            return StdlibBarrier.n_waiting.__get__(self)
        return barrier_waiting(&self.barrier)

    @property
    def broken(self):
        """Whether the barrier is broken."""
        if is_original(self):
            return StdlibBarrier.broken.__get__(self)
        return barrier_is_broken(&self.barrier)

    # The steps of the original's wait(), for subclasses that override one and call another.

    def _enter(self):
        become_original(self)
        StdlibBarrier._enter(self)

    def _release(self):
        become_original(self)
        StdlibBarrier._release(self)

    def _wait(self, timeout):
        become_original(self)
        StdlibBarrier._wait(self, timeout)

    def _exit(self):
        become_original(self)
        StdlibBarrier._exit(self)

    def _break(self):
        if not is_original(self):
            barrier_abort(&self.barrier)
            return
        StdlibBarrier._break(self)

    def __repr__(self):
        if is_original(self):
            return StdlibBarrier.__repr__(self)
        if barrier_is_broken(&self.barrier):
            return f"<{stock_name(self)} at {address(self)}: broken>"
        return (f"<{stock_name(self)} at {address(self)}: "
                f"waiters={barrier_waiting(&self.barrier)}/{self.barrier.parties}>")


# -- holding -----------------------------------------------------------------

@cython.final
cdef class holding:
    """holding(lock, timeout)
--

A `with` block under a lock that gives up after a time.

    with holding(lock, timeout=2):
        ...

lock: anything with acquire(blocking, timeout) and release(), of this library or not.
timeout: seconds; not positive: does not wait.  None waits without a limit.  `as` gives
the lock.  TimeoutError when it was not acquired in time; the block does not run then.
One object may be used again, and by several threads.  Ordering: the lock's."""
    cdef object lock
    cdef object timeout

    def __cinit__(self, lock, timeout):
        self.lock = lock
        self.timeout = timeout

    def __enter__(self):
        if self.timeout is None:
            acquired = self.lock.acquire()
        elif not self.timeout <= 0:  # also what is not a number, which acquire() refuses
            acquired = self.lock.acquire(True, self.timeout)
        else:
            acquired = self.lock.acquire(False)
        if acquired is not None and not acquired:  # some locks answer nothing when they are taken
            raise TimeoutError(f"the lock was not acquired within {self.timeout} seconds")
        return self.lock

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        self.lock.release()

    def __reduce_ex__(self, protocol):
        refuse_pickling(self)

    def __repr__(self):
        return f"holding({self.lock!r}, timeout={self.timeout!r})"


# -- short ways: the plain calls of the most used methods, see shorten() -----

cdef fs_method usual_lock_acquire
cdef fs_method usual_rlock_acquire
cdef fs_method usual_semaphore_acquire
cdef fs_method usual_semaphore_release
cdef fs_method usual_bounded_release


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
    if nargs != 0 or names != NULL or is_original(<Semaphore>self):
        return usual_semaphore_acquire(self, args, nargs, names)
    return semaphore_call(self, args, 0, NULL)


cdef PyObject* short_semaphore_release(
    PyObject* self, PyObject** args, Py_ssize_t nargs, PyObject* names,
) except NULL:
    if nargs != 0 or names != NULL or is_original(<Semaphore>self):
        return usual_semaphore_release(self, args, nargs, names)
    semaphore_give(<Semaphore>self, 1)
    return Py_NewRef(Py_None)


cdef PyObject* short_bounded_release(
    PyObject* self, PyObject** args, Py_ssize_t nargs, PyObject* names,
) except NULL:
    if nargs != 0 or names != NULL or is_original(<Semaphore>self):
        return usual_bounded_release(self, args, nargs, names)
    semaphore_give(<Semaphore>self, 1)
    return Py_NewRef(Py_None)


cdef int shorten_methods() except -1:
    global usual_lock_acquire, usual_rlock_acquire
    global usual_semaphore_acquire, usual_semaphore_release, usual_bounded_release
    usual_lock_acquire = shorten(Lock, "acquire", short_lock_acquire)
    usual_rlock_acquire = shorten(RLock, "acquire", short_rlock_acquire)
    usual_semaphore_acquire = shorten(Semaphore, "acquire", short_semaphore_acquire)
    usual_semaphore_release = shorten(Semaphore, "release", short_semaphore_release)
    usual_bounded_release = shorten(BoundedSemaphore, "release", short_bounded_release)
    return 0


# -- set-up ------------------------------------------------------------------

cdef inline Py_ssize_t offset(object probe, void* field) noexcept:
    return <char*>field - <char*><PyObject*>probe


cdef int add_private_attributes() except -1:
    add_private(Condition, "_lock", read_lock, NULL)
    add_private(Condition, "_waiters", read_waiters, NULL)
    add_private(Semaphore, "_value", read_value, write_value)
    add_private(Semaphore, "_cond", inner_condition, NULL)
    add_private(BoundedSemaphore, "_initial_value", read_initial_value, write_initial_value)
    add_private(Event, "_flag", read_flag, write_flag)
    add_private(Event, "_cond", inner_condition, NULL)
    add_private(Barrier, "_action", read_action, write_action)
    add_private(Barrier, "_timeout", read_timeout, write_timeout)
    add_private(Barrier, "_parties", read_parties, NULL)
    add_private(Barrier, "_count", read_count, NULL)
    add_private(Barrier, "_state", read_state, NULL)
    add_private(Barrier, "_cond", inner_condition, NULL)
    return 0


cdef int remember_versions() except -1:
    global semaphore_version, bounded_semaphore_version
    getattr(Semaphore, "release"), getattr(BoundedSemaphore, "release")  # a lookup gives one
    semaphore_version = version_tag(Semaphore)
    bounded_semaphore_version = version_tag(BoundedSemaphore)
    return 0


cdef int set_up() except -1:
    cdef Lock lock = Lock()
    cdef RLock rlock = RLock()
    cdef Condition condition = Condition()
    cdef Semaphore semaphore = Semaphore()
    make_context_manager(Lock, offset(lock, &lock.call))
    make_context_manager(RLock, offset(rlock, &rlock.call))
    make_context_manager(Condition, offset(condition, &condition.call))
    make_context_manager(Semaphore, offset(semaphore, &semaphore.call))
    make_context_manager(BoundedSemaphore, offset(semaphore, &semaphore.call))
    make_constructor(RLock, new_rlock)
    shorten_methods()
    make_lazy_dict(Condition, attributes_at)
    make_lazy_dict(Semaphore, attributes_at)
    make_lazy_dict(BoundedSemaphore, attributes_at)
    make_lazy_dict(Event, attributes_at)
    make_lazy_dict(Barrier, attributes_at)
    add_private_attributes()
    forbid_instances(_Private)
    share_layout(BoundedSemaphore, Semaphore)
    for cls in (RLock, Condition, Semaphore, BoundedSemaphore, Event, Barrier):
        finish_type(cls, True)  # as the originals are
    for cls in (Lock, _Extensible, _Private):
        finish_type(cls, False)
    rename_type(Lock, b"threading.Lock")
    rename_type(RLock, b"threading.RLock")
    rename_type(Condition, b"threading.Condition")
    rename_type(Semaphore, b"threading.Semaphore")
    rename_type(BoundedSemaphore, b"threading.BoundedSemaphore")
    rename_type(Event, b"threading.Event")
    rename_type(Barrier, b"threading.Barrier")
    set_metaclass(Lock, _LockType)
    set_metaclass(RLock, _LockType)
    remember_versions()
    register_pinnable(Lock, RLock, Condition, Semaphore, BoundedSemaphore, Event, Barrier)
    return 0


set_up()

# What is_plain() compares with.
cdef object own_wait = Condition.wait
cdef object own_notify = Condition.notify
