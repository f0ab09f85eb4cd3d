"""Semaphore, for Cython code that is handed one."""
from fastsync.objects._extensible cimport _Extensible
from fastsync.objects._slots cimport fs_call
from fastsync.raw.semaphore cimport fs_semaphore


cdef class Semaphore(_Extensible):
    cdef fs_call call
    cdef unsigned long long initial  # value; the bound of a BoundedSemaphore
    cdef fs_semaphore semaphore


cdef class BoundedSemaphore(Semaphore):
    pass


cdef inline fs_semaphore* semaphore_word(Semaphore semaphore) noexcept nogil:
    if semaphore is None:
        return NULL
    return &semaphore.semaphore
