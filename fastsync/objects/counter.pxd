"""Counter, for Cython code that is handed one."""
cimport cython

from fastsync.raw cimport c_version  # so that versions are compared

@cython.final
cdef class Counter:
    cdef char* cells   # the first cell, at the start of a cache line
    cdef void* memory  # what was allocated for them
