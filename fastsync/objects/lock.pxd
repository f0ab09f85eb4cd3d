"""Lock, for Cython code that is handed one."""
from libc.stdint cimport int64_t

from fastsync._watch.trace cimport tracing
from fastsync.objects._slots cimport fs_call
from fastsync.objects._veneer cimport checked
from fastsync.raw.c_wait cimport FS_FOREVER
from fastsync.raw.mutex cimport fs_mutex, mutex_lock_until, mutex_try_lock, mutex_unlock
from fastsync.raw.parking cimport deadline_after, FS_SIGNALS


cdef class Lock:
    cdef fs_call call         # what `with` calls: see _slots.pyx
    cdef object __weakref__
    cdef fs_mutex mutex


# The words inside, to lock nogil against Python threads that use the object.
# They stay where they are as long as the object lives: keep a reference.

cdef inline fs_mutex* lock_word(Lock lock) noexcept nogil:
    if lock is None:
        return NULL
    return &lock.mutex


# -- between the modules of this package; not for others ---------------------

# Let instances of `original` count as instances of `cls`.
cdef int add_twin(type cls, type original) except -1
cdef object reduce_as(object self, type original)

cdef int take_word(void* mutex, int64_t deadline) noexcept
cdef int word_retake(object lock, fs_mutex* m) except -1
cdef bint word_acquire_traced(object lock, fs_mutex* m, int64_t deadline, int block) except -1
cdef int word_release_traced(object lock, fs_mutex* m) except -1


# `lock` is the object that trace.pxd's hooks know the word by; `block` is FS_BLOCK for
# a `with` statement, else 0.
cdef inline bint word_acquire(object lock, fs_mutex* m, int64_t deadline, int block) except -1:
    if tracing():
        return word_acquire_traced(lock, m, deadline, block)
    return checked(mutex_lock_until(m, deadline, FS_SIGNALS))


cdef inline bint word_acquire_within(object lock, fs_mutex* m, int64_t ns) except -1:
    """As word_acquire, for nanoseconds from now: the clock is asked only if there is a wait."""
    if ns != 0 and ns != FS_FOREVER:
        if not tracing() and mutex_try_lock(m):
            return True
        ns = deadline_after(ns)
    return word_acquire(lock, m, ns, 0)


cdef inline int word_release(object lock, fs_mutex* m) except -1:
    if tracing():
        return word_release_traced(lock, m)
    if mutex_unlock(m) < 0:
        raise RuntimeError("release unlocked lock")
    return 0
