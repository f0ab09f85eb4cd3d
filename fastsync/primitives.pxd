"""The native types of the `threading` drop-in, for Cython code that is handed one."""
from libc.stdint cimport uint32_t

from fastsync.locks cimport (
    fs_barrier, fs_condvar, fs_event, fs_mutex, fs_remutex, fs_semaphore,
)
from fastsync.slots cimport fs_call


cdef class Lock:
    cdef fs_call call         # what `with` calls: see slots.pyx
    cdef object __weakref__
    cdef fs_mutex mutex


cdef class RLock:
    cdef fs_call call
    cdef object __weakref__
    cdef fs_remutex remutex


cdef class _Extensible:
    # In this order: see attributes_at.
    cdef object __weakref__
    cdef object attributes     # the instance's __dict__, NULL until needed


cdef class Condition(_Extensible):
    cdef fs_call call
    cdef object lock           # None: `own`, and nobody has asked for it as an object
    cdef fs_mutex* mutex       # of the lock; NULL when it is not one of ours
    cdef fs_remutex* remutex   # of the lock, when it is re-entrant
    cdef fs_condvar waiters
    cdef fs_remutex own        # the lock of a Condition() made without one


cdef class Semaphore(_Extensible):
    cdef fs_call call
    cdef fs_semaphore semaphore


cdef class BoundedSemaphore(Semaphore):
    cdef unsigned long long initial


cdef class Event(_Extensible):
    cdef fs_event event


cdef class Barrier(_Extensible):
    cdef object action
    cdef object timeout
    cdef fs_barrier barrier


# The words inside, to lock nogil against Python threads that use the object.
# They stay where they are as long as the object lives: keep a reference.

cdef inline fs_mutex* lock_word(Lock lock) noexcept nogil:
    if lock is None:
        return NULL
    return &lock.mutex


cdef inline fs_remutex* rlock_word(RLock lock) noexcept nogil:
    if lock is None:
        return NULL
    return &lock.remutex


cdef inline fs_semaphore* semaphore_word(Semaphore semaphore) noexcept nogil:
    if semaphore is None:
        return NULL
    return &semaphore.semaphore


cdef inline fs_event* event_word(Event event) noexcept nogil:
    if event is None:
        return NULL
    return &event.event
