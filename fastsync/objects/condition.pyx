# distutils: define_macros=CYTHON_USE_TYPE_SPECS=1
# Heap types, because these can be patched and renamed as the originals can: `type` writes a new
# name where only a heap type has room for it.
"""Condition, as `threading.Condition`.

A call that must wait drops the thread state and runs signal handlers in the main thread; an
exception from one leaves the wait with nothing owned (wait: with the lock taken again).
docs/migrating.md lists every difference from the original.
"""
cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t
from cpython.exc cimport PyErr_WarnEx
from cpython.long cimport PyLong_CheckExact
from cpython.object cimport PyObject, PyObject_GenericSetAttr, PyTypeObject
from cpython.ref cimport Py_INCREF

from fastsync._watch.trace cimport (
    FS_BLOCK, FS_EXCLUSIVE, FS_REENTRANT, fs_section, fs_wait, trace_condition, trace_give,
    trace_made, trace_notified, trace_released, tracing,
)
from fastsync.objects._extensible cimport (
    _Extensible, add_extensible, add_private, become_original, is_original, sign_constructor,
    threads_waiting, track,
)
from fastsync.objects._slots cimport finish_type, make_context_manager, rename_type
from fastsync.objects._timeouts cimport lock_deadline, wait_deadline
from fastsync.objects._veneer cimport checked, kept, offset, refuse_call, refuse_pickling
from fastsync.objects.lock cimport Lock, word_acquire, word_release, word_retake
from fastsync.objects.rlock cimport (
    remutex_acquire, remutex_acquire_restore, remutex_let_go, remutex_release,
    remutex_release_save, RLock,
)
from fastsync.raw.c_atomic_order cimport fs_fence, FS_SEQ_CST
from fastsync.raw.c_python cimport Py_NewRef
from fastsync.raw.c_wait cimport FS_FOREVER, fs_now
from fastsync.raw.condvar cimport (
    condvar_has_waiters, condvar_notify_some, condvar_reset, condvar_wait, FS_CONDVAR_BAD_MUTEX,
)
from fastsync.raw.mutex cimport fs_mutex, mutex_is_locked
from fastsync.raw.parking cimport FS_SIGNALS, parked_count
from fastsync.raw.remutex cimport fs_remutex, remutex_is_mine, remutex_own

import threading as stdlib
from collections import deque
from weakref import ref

from fastsync.objects._pin import register_pinnable

cdef extern from "Python.h":
    PyObject* Py_True
    size_t PyVectorcall_NARGS(size_t) noexcept
    const Py_ssize_t PY_SSIZE_T_MAX  # not sys.maxsize: `sys` is None in late finalizers
    PyTypeObject* Py_TYPE(object) noexcept


# `_cond` of an object that works natively.  Threads that waited before it was made still wait
# natively, and `_waiters` counts them; those that come later wait for it.

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
    # Pairs with the fence in tell_inner: this thread will look at the state after it.
    # Either it sees what the other thread has set, or that one sees `inner`.
    fs_fence(FS_SEQ_CST)
    return owner.inner


cdef int enter_inner(Condition condition) except -1:
    condition_acquire(condition, FS_FOREVER, 0)
    fs_fence(FS_SEQ_CST)  # as in inner_condition: another thread may have made it
    return 0


cdef int leave_inner(Condition condition) except -1:
    return condition_release(condition)


cdef int notify_inner(Condition condition, uint64_t n) except -1:
    condvar_notify_some(&condition.waiters, <size_t>min(n, <uint64_t>PY_SSIZE_T_MAX))
    return 0


cdef bint wait_inner(Condition condition, int64_t deadline) except -1:
    return condition_wait(condition, held_lock(condition), deadline)


cdef int wake_inner(Condition condition, uint64_t n) except -1:
    enter_inner(condition)
    try:
        notify_inner(condition, n)
    finally:
        leave_inner(condition)
    return 0


cdef int change_of_inner(Condition condition, object name) except -1:
    """The owner's calls have to find what is about to be set: by the original's methods."""
    cdef object shown = kept(<PyObject*>condition.shown)
    cdef object owner = None if shown is None else shown()
    if (owner is not None and condition.more == NULL and not is_original(owner)
            and hasattr(Condition, name)):
        become_original(owner)
    return 0


# The standard library's classes, for what is `original`.  They are taken once: the module's
# attributes may be ours by now.
cdef object StdlibCondition = stdlib.Condition


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
    return (<PyObject*>self.attributes == NULL
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
    cdef fs_section section
    cdef bint noted
    cdef size_t limit
    if condvar_has_waiters(&self.waiters) and n > 0:
        limit = notify_limit(self, n)
        noted = tracing()
        if noted:
            trace_give(&section, <uintptr_t><PyObject*>self)
        condvar_notify_some(&self.waiters, limit)
        if noted:
            trace_released(&section)
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
        count += condition.more(owner, condition) if condition.more != NULL else threads_waiting(owner)
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

    def __reduce_ex__(self, protocol):
        if is_original(self):
            return object.__reduce_ex__(self, protocol)
        refuse_pickling("_thread.RLock")

    def _at_fork_reinit(self):
        if is_original(self):
            StdlibCondition._at_fork_reinit(self)
            return
        condition_lock(self)._at_fork_reinit()
        # The waiters did not survive the fork; if there was none, they wake.
        condvar_reset(&self.waiters)

    def __setattr__(self, name, value):
        change_of_inner(self, name)
        PyObject_GenericSetAttr(self, name, value)
        track(self)

    def __repr__(self):
        if is_original(self):
            return StdlibCondition.__repr__(self)
        count = parked_count(<uintptr_t>&self.waiters)
        return f"<Condition({condition_lock(self)!r}, {count})>"


# What is_plain() compares with.
cdef object own_wait = Condition.wait
cdef object own_notify = Condition.notify


# -- set-up of condition ---

cdef size_t waiting_in_condition(object self) noexcept:
    return parked_count(<uintptr_t>&(<Condition>self).waiters)


cdef int condition_becomes_original(object self) except -1:
    StdlibCondition.__init__(self, condition_lock(self))
    return 0


cdef int set_up() except -1:
    cdef Condition condition
    add_extensible(Condition, waiting_in_condition, condition_becomes_original)
    condition = Condition()
    make_context_manager(Condition, offset(condition, &condition.call))
    add_private(Condition, "_lock", read_lock, NULL)
    add_private(Condition, "_waiters", read_waiters, NULL)
    finish_type(Condition, True)  # as the original is
    rename_type(Condition, b"threading.Condition")
    sign_constructor(Condition)
    register_pinnable(Condition)
    return 0


set_up()
