"""Barrier, for Cython code that is handed one."""
from fastsync.objects._extensible cimport _Extensible
from fastsync.raw.barrier cimport fs_barrier


cdef class Barrier(_Extensible):
    cdef object action
    cdef object timeout
    cdef fs_barrier barrier
