"""ReentrantMutex, which owns what it protects, for Cython code that is handed one."""
from libc.stdint cimport uint32_t
from cpython.object cimport PyObject

from fastsync.objects._slots cimport fs_call
from fastsync.objects.guards cimport _Owner, _Writing
from fastsync.objects.mutex cimport fs_levels
from fastsync.raw.c_atomic cimport fs_atomic_u32
from fastsync.raw.remutex cimport fs_remutex


cdef class ReentrantMutex(_Owner):
    cdef fs_call call            # what `with` calls: see _slots.pyx
    cdef fs_remutex word
    cdef uint32_t guarded        # levels that guards have; the others are leaked or C code's
    cdef fs_atomic_u32 orphans   # those of them whose guards other threads dropped
    cdef PyObject* block         # the guard of the `with` blocks, owned


cdef class ReentrantMutexGuard(_Writing):
    cdef fs_levels levels
    cdef PyObject* outer         # the next `block` of the mutex


# The word inside, to be locked in nogil code against Python threads.  A level taken there
# has no guard; it ends there.
cdef inline fs_remutex* reentrant_mutex_word(ReentrantMutex m) noexcept nogil:
    if m is None:
        return NULL
    return &m.word
