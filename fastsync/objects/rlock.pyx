# cython: always_allow_keywords=False
# distutils: define_macros=CYTHON_USE_TYPE_SPECS=1
# Heap types, because these can be patched and renamed as the originals can: `type` writes a new
# name where only a heap type has room for it.
"""RLock, as `threading.RLock`.

A call that must wait drops the thread state and runs signal handlers in the main thread; an
exception from one leaves the wait with nothing owned.  docs/migrating.md lists every
difference from the original.
"""
from libc.stdint cimport int64_t, uint32_t, uintptr_t
from cpython.exc cimport PyErr_WarnEx
from cpython.number cimport PyNumber_Index
from cpython.object cimport PyObject

from fastsync._watch.trace cimport (
    detecting, FS_REENTRANT, fs_section, noting_release, trace_disowned, trace_lock, trace_made,
    trace_release, trace_release_all, trace_released, trace_relock, tracing,
)
from fastsync.objects._slots cimport (
    finish_type, fs_method, make_constructor, make_context_manager, rename_type, shorten,
)
from fastsync.objects._timeouts cimport is_false_alone, is_timeout_alone, lock_deadline, lock_timeout
from fastsync.objects._veneer cimport address, offset, refuse_call
from fastsync.objects.lock cimport add_twin, reduce_as
from fastsync.raw.c_atomic cimport fs_uptr_load_relaxed, fs_uptr_store_relaxed
from fastsync.raw.c_python cimport fs_constant, Py_NewRef
from fastsync.raw.c_wait cimport FS_FOREVER, fs_thread_id
from fastsync.raw.mutex cimport mutex_is_locked, mutex_lock, mutex_reset, mutex_unlock
from fastsync.raw.parking cimport FS_ACQUIRED, FS_SIGNALS
from fastsync.raw.remutex cimport (
    fs_remutex, remutex_count, remutex_is_mine, remutex_lock_until, remutex_own, remutex_set_count,
    remutex_try_lock, remutex_unlock,
)

import _thread

from fastsync.objects._pin import register_pinnable

cdef extern from "Python.h":
    unsigned long PY_VERSION_HEX
    PyObject* Py_True
    PyObject* Py_False
    PyObject* Py_None
    size_t PyVectorcall_NARGS(size_t) noexcept


# The default of `timeout`, the one object that -1 is: known without a conversion.
cdef object UNSET = -1


cdef type stdlib_rlock = _thread.RLock


cdef int take_remutex(void* remutex, int64_t deadline) noexcept:
    return remutex_lock_until(<fs_remutex*>remutex, deadline, FS_SIGNALS)


cdef int retake_remutex(void* remutex, int64_t deadline) noexcept:
    """No signal handler ends it.  The depth is the caller's to set."""
    mutex_lock(&(<fs_remutex*>remutex).mutex)
    return FS_ACQUIRED


cdef void remutex_reset(fs_remutex* m) noexcept:
    remutex_set_count(m, 0)
    fs_uptr_store_relaxed(&m.owner, 0)  # relaxed: a fork's child has one thread
    mutex_reset(&m.mutex)


cdef bint remutex_acquire_traced(object lock, fs_remutex* m, int64_t deadline) except -1:
    if not detecting() and remutex_try_lock(m):
        return True
    return trace_lock(lock, FS_REENTRANT, deadline, NULL, take_remutex, m)


cdef int remutex_release_traced(object lock, fs_remutex* m) noexcept:
    """As remutex_unlock."""
    cdef fs_section section
    cdef int result
    if not remutex_is_mine(m):
        return -1
    # An inner level lets no thread go on: only the detector counts it.
    if not (noting_release(lock) if remutex_count(m) == 1 else detecting()):
        return remutex_unlock(m)
    trace_release(&section, lock, FS_REENTRANT, NULL)
    result = remutex_unlock(m)
    trace_released(&section)
    return result


cdef uint32_t remutex_let_go(fs_remutex* m) noexcept nogil:
    """Give the ownership up, while `m.mutex` stays locked: the depth to restore."""
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
        return fs_constant(Py_True)
    if names == NULL and nargs == 3:
        remutex_release(<object>self, &(<RLock>self).remutex)
        return fs_constant(Py_None)
    refuse_call(nargs)


cdef int refuse_arguments() except -1:
    if PY_VERSION_HEX >= 0x030F0000:
        raise TypeError("RLock() takes no arguments")
    return PyErr_WarnEx(
        DeprecationWarning,
        b"Passing arguments to RLock is deprecated and will be removed in 3.15", 1)


# RLock(...): spares the tuple and the dict of __init__.
cdef PyObject* new_rlock(
    PyObject* cls, PyObject** args, size_t nargsf, PyObject* names,
) except NULL:
    cdef RLock lock
    if PyVectorcall_NARGS(nargsf) != 0 or names != NULL:
        refuse_arguments()
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
        if (args or kwargs) and (type(self) is RLock or PY_VERSION_HEX >= 0x030F0000):
            refuse_arguments()

    def acquire(self, blocking=True, timeout=-1):
        """Take the lock, or go one deeper; whether it was taken.

        Arguments and errors as Lock.acquire(); OverflowError also past 2**32-1
        levels.
        """
        if timeout is UNSET:
            return remutex_acquire(self, &self.remutex, FS_FOREVER if blocking else 0)
        return remutex_acquire_within(self, &self.remutex, lock_timeout(blocking, timeout))

    def release(self):
        """Go one level up, and release the lock at the last one; RuntimeError for a thread
        that is not the owner."""
        remutex_release(self, &self.remutex)

    def locked(self):
        """Whether a thread holds it, at this moment."""
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


cdef fs_method usual_rlock_acquire
cdef fs_method usual_rlock_enter
cdef fs_method usual_rlock_exit


cdef PyObject* acquire_within(RLock self, object timeout) except NULL:
    cdef bint taken = remutex_acquire_within(self, &self.remutex, lock_timeout(True, timeout))
    return fs_constant(Py_True if taken else Py_False)


cdef PyObject* short_rlock_acquire(
    PyObject* self, PyObject** args, Py_ssize_t nargs, PyObject* names,
) except NULL:
    cdef bint taken
    if nargs == 0 and names == NULL:
        remutex_acquire(<object>self, &(<RLock>self).remutex, FS_FOREVER)
        return fs_constant(Py_True)
    if is_false_alone(args, nargs, names):
        taken = remutex_acquire(<object>self, &(<RLock>self).remutex, 0)
        return fs_constant(Py_True if taken else Py_False)
    if is_timeout_alone(nargs, names):
        return acquire_within(<RLock>self, <object>args[0])
    return usual_rlock_acquire(self, args, nargs, names)


cdef PyObject* short_rlock_enter(
    PyObject* self, PyObject** args, Py_ssize_t nargs, PyObject* names,
) except NULL:
    if nargs != 0 or names != NULL:
        return usual_rlock_enter(self, args, nargs, names)
    remutex_acquire(<object>self, &(<RLock>self).remutex, FS_FOREVER)
    return fs_constant(Py_True)


cdef PyObject* short_rlock_exit(
    PyObject* self, PyObject** args, Py_ssize_t nargs, PyObject* names,
) except NULL:
    if nargs != 3 or names != NULL:
        return usual_rlock_exit(self, args, nargs, names)
    remutex_release(<object>self, &(<RLock>self).remutex)
    return fs_constant(Py_None)


# -- set-up of rlock ---

cdef int set_up() except -1:
    global usual_rlock_acquire, usual_rlock_enter, usual_rlock_exit
    cdef RLock lock = RLock()
    make_constructor(RLock, new_rlock)
    usual_rlock_acquire = shorten(RLock, "acquire", short_rlock_acquire)
    usual_rlock_enter = shorten(RLock, "__enter__", short_rlock_enter)
    usual_rlock_exit = shorten(RLock, "__exit__", short_rlock_exit)
    make_context_manager(RLock, offset(lock, &lock.call))
    finish_type(RLock, True)  # as the original is
    rename_type(RLock, b"threading.RLock")
    add_twin(RLock, stdlib_rlock)
    register_pinnable(RLock)
    return 0


set_up()
