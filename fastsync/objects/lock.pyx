# cython: always_allow_keywords=False
# distutils: define_macros=CYTHON_USE_TYPE_SPECS=1
# Heap types, because these can be patched and renamed as the originals can: `type` writes a new
# name where only a heap type has room for it.
"""Lock, as `threading.Lock`, and holding(), for any lock.

A call that must wait drops the thread state and runs signal handlers in the main thread; an
exception from one leaves the wait with nothing owned.  docs/migrating.md lists every
difference from the original.
"""
cimport cython
from libc.stdint cimport int64_t
from cpython.object cimport PyObject

from fastsync._watch.trace cimport (
    detecting, FS_BLOCK, FS_EXCLUSIVE, fs_section, noting_release, trace_disowned, trace_lock,
    trace_made, trace_release, trace_released, trace_relock, tracing,
)
from fastsync.objects._slots cimport (
    finish_type, fs_method, make_context_manager, publish, rename_type, set_metaclass, shorten,
)
from fastsync.objects._timeouts cimport is_false_alone, is_timeout_alone, lock_deadline, lock_timeout
from fastsync.objects._veneer cimport address, offset, refuse_call, refuse_pickling
from fastsync.raw.c_python cimport fs_constant
from fastsync.raw.c_wait cimport FS_FOREVER
from fastsync.raw.mutex cimport (
    fs_mutex, mutex_is_locked, mutex_lock, mutex_lock_until, mutex_reset, mutex_try_lock,
    mutex_unlock,
)
from fastsync.raw.parking cimport FS_ACQUIRED, FS_SIGNALS

import _thread
import copyreg

from fastsync.objects._pin import register_pinnable

cdef extern from "Python.h":
    PyObject* Py_True
    PyObject* Py_False
    PyObject* Py_None
    size_t PyVectorcall_NARGS(size_t) noexcept


# The default of `timeout`, the one object that -1 is: known without a conversion.
cdef object UNSET = -1


# -- Lock and RLock, whose originals are types of `_thread` --------------------

cdef type stdlib_lock = type(_thread.allocate_lock())
cdef dict originals = {}  # our type: the one whose instances count as instances of ours


cdef object twin_of(cls):
    """The type whose instances count as instances of `cls`, made before a swap or in C."""
    return originals.get(cls)


class _LockType(type):
    """Locks of the standard library are instances of ours, as ours are of its types."""

    def __instancecheck__(cls, instance):
        return type.__instancecheck__(cls, instance) or (
            twin_of(cls) is not None and isinstance(instance, twin_of(cls)))

    def __subclasscheck__(cls, other):
        return type.__subclasscheck__(cls, other) or (
            twin_of(cls) is not None and issubclass(other, twin_of(cls)))


cdef int add_twin(type cls, type original) except -1:
    originals[cls] = original
    return set_metaclass(cls, _LockType)


cdef object reduce_as(object self, type original):
    """What a program has registered for the original's locks holds for ours."""
    reduce = copyreg.dispatch_table.get(original)
    if reduce is not None:
        return reduce(self)
    refuse_pickling(f"{original.__module__}.{original.__name__}")


# -- Lock --------------------------------------------------------------------

cdef int take_word(void* mutex, int64_t deadline) noexcept:
    return mutex_lock_until(<fs_mutex*>mutex, deadline, FS_SIGNALS)


cdef int retake_word(void* mutex, int64_t deadline) noexcept:
    """No signal handler ends it."""
    mutex_lock(<fs_mutex*>mutex)
    return FS_ACQUIRED


cdef int word_retake(object lock, fs_mutex* m) except -1:
    """As word_acquire, but no signal handler ends it."""
    if tracing():
        trace_relock(lock, FS_EXCLUSIVE, 1, NULL, retake_word, m)
    else:
        mutex_lock(m)
    return 0


cdef bint word_acquire_traced(object lock, fs_mutex* m, int64_t deadline, int block) except -1:
    if not detecting() and mutex_try_lock(m):
        return True
    return trace_lock(lock, FS_EXCLUSIVE | block, deadline, NULL, take_word, m)


cdef int word_release_traced(object lock, fs_mutex* m) except -1:
    cdef fs_section section
    cdef int result
    if not noting_release(lock):
        if mutex_unlock(m) == 0:
            return 0
    elif mutex_is_locked(m):
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
        return fs_constant(Py_True)
    if names == NULL and nargs == 3:
        lock_release(<Lock>self)
        return fs_constant(Py_None)
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
        return word_acquire_within(self, &self.mutex, lock_timeout(blocking, timeout))

    def release(self):
        """Release the lock; RuntimeError when it is not held."""
        lock_release(self)

    def locked(self):
        """Whether a thread holds it, at this moment."""
        return mutex_is_locked(&self.mutex)

    def acquire_lock(self, blocking=True, timeout=-1):
        """Obsolete name of acquire()."""
        return word_acquire_within(self, &self.mutex, lock_timeout(blocking, timeout))

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
        refuse_pickling("_thread.lock")

    def __repr__(self):
        return f"holding({self.lock!r}, timeout={self.timeout!r})"


# -- short ways: the plain calls of the most used methods, see shorten() -----

cdef fs_method usual_lock_acquire
cdef fs_method usual_lock_enter
cdef fs_method usual_lock_exit


cdef PyObject* acquire_within(Lock self, object timeout) except NULL:
    cdef bint taken = word_acquire_within(self, &self.mutex, lock_timeout(True, timeout))
    return fs_constant(Py_True if taken else Py_False)


cdef PyObject* short_lock_acquire(
    PyObject* self, PyObject** args, Py_ssize_t nargs, PyObject* names,
) except NULL:
    if nargs == 0 and names == NULL:
        lock_acquire(<Lock>self, FS_FOREVER, 0)
        return fs_constant(Py_True)
    if is_false_alone(args, nargs, names):
        return fs_constant(Py_True if lock_acquire(<Lock>self, 0, 0) else Py_False)
    if is_timeout_alone(nargs, names):
        return acquire_within(<Lock>self, <object>args[0])
    return usual_lock_acquire(self, args, nargs, names)


cdef PyObject* short_lock_enter(
    PyObject* self, PyObject** args, Py_ssize_t nargs, PyObject* names,
) except NULL:
    if nargs != 0 or names != NULL:
        return usual_lock_enter(self, args, nargs, names)
    lock_acquire(<Lock>self, FS_FOREVER, FS_BLOCK)
    return fs_constant(Py_True)


cdef PyObject* short_lock_exit(
    PyObject* self, PyObject** args, Py_ssize_t nargs, PyObject* names,
) except NULL:
    if nargs != 3 or names != NULL:
        return usual_lock_exit(self, args, nargs, names)
    lock_release(<Lock>self)
    return fs_constant(Py_None)


# -- set-up of lock ---

cdef int set_up() except -1:
    global usual_lock_acquire, usual_lock_enter, usual_lock_exit
    cdef Lock lock = Lock()
    usual_lock_acquire = shorten(Lock, "acquire", short_lock_acquire)
    usual_lock_enter = shorten(Lock, "__enter__", short_lock_enter)
    usual_lock_exit = shorten(Lock, "__exit__", short_lock_exit)
    make_context_manager(Lock, offset(lock, &lock.call))
    finish_type(Lock, False)
    rename_type(Lock, b"threading.Lock")
    add_twin(Lock, stdlib_lock)
    register_pinnable(Lock)
    publish((holding,))
    return 0


set_up()
