"""The native types of the `threading` drop-in, for Cython code that is handed one."""
from libc.stdint cimport uint32_t

from fastsync.objects._slots cimport fs_call
from fastsync.raw.barrier cimport fs_barrier
from fastsync.raw.condvar cimport fs_condvar
from fastsync.raw.event cimport fs_event
from fastsync.raw.mutex cimport fs_mutex
from fastsync.raw.remutex cimport fs_remutex
from fastsync.raw.semaphore cimport fs_semaphore


cdef class Lock:
    cdef fs_call call         # what `with` calls: see _slots.pyx
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
    cdef object inner          # None; what `_cond` gives, once asked for; True: see is_original


cdef class Condition(_Extensible):
    cdef fs_call call
    cdef object lock           # a Lock or an RLock; None before __init__() and when `original`
    cdef object shown          # weak reference to the object whose `_cond` this is, or None
    cdef fs_condvar waiters


cdef class Semaphore(_Extensible):
    cdef fs_call call
    cdef unsigned long long initial  # of a BoundedSemaphore
    cdef fs_semaphore semaphore


cdef class BoundedSemaphore(Semaphore):
    pass


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
