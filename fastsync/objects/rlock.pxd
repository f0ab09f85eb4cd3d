"""RLock, for Cython code that is handed one."""
from libc.stdint cimport int64_t, UINT32_MAX, uint32_t

from fastsync._watch.trace cimport tracing
from fastsync.objects._slots cimport fs_call
from fastsync.objects._veneer cimport checked
from fastsync.raw.c_wait cimport FS_FOREVER
from fastsync.raw.parking cimport deadline_after, FS_SIGNALS
from fastsync.raw.remutex cimport (
    fs_remutex, remutex_count, remutex_is_mine, remutex_lock_until, remutex_try_lock,
    remutex_unlock,
)


cdef class RLock:
    cdef fs_call call
    cdef object __weakref__
    cdef fs_remutex remutex


cdef inline fs_remutex* rlock_word(RLock lock) noexcept nogil:
    if lock is None:
        return NULL
    return &lock.remutex


# -- between the modules of this package; not for others ---------------------

cdef bint remutex_acquire_traced(object lock, fs_remutex* m, int64_t deadline) except -1
cdef int remutex_release_traced(object lock, fs_remutex* m) noexcept


cdef inline bint remutex_acquire(object lock, fs_remutex* m, int64_t deadline) except -1:
    if remutex_count(m) == UINT32_MAX and remutex_is_mine(m):
        raise OverflowError("Internal lock count overflowed")
    if tracing():
        return remutex_acquire_traced(lock, m, deadline)
    return checked(remutex_lock_until(m, deadline, FS_SIGNALS))


cdef inline bint remutex_acquire_within(object lock, fs_remutex* m, int64_t ns) except -1:
    """As remutex_acquire, for nanoseconds from now: the clock is asked only if there is a wait."""
    if ns != 0 and ns != FS_FOREVER:
        if not tracing() and remutex_count(m) != UINT32_MAX and remutex_try_lock(m):
            return True
        ns = deadline_after(ns)
    return remutex_acquire(lock, m, ns)


cdef inline int remutex_release(object lock, fs_remutex* m) except -1:
    if (remutex_release_traced(lock, m) if tracing() else remutex_unlock(m)) < 0:
        raise RuntimeError("cannot release un-acquired lock")
    return 0


cdef int take_remutex(void* remutex, int64_t deadline) noexcept
cdef uint32_t remutex_let_go(fs_remutex* m) noexcept nogil
cdef object remutex_release_save(object lock, fs_remutex* m)
cdef int remutex_acquire_restore(object lock, fs_remutex* m, object state) except -1
