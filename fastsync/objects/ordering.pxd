"""Ordering, and what order an argument stands for."""
cimport cython

from fastsync.raw cimport c_version  # so that versions are compared

@cython.final
cdef class Ordering:
    cdef int code  # FS_RELAXED ... FS_SEQ_CST
    cdef str label


# The FS_RELAXED ... FS_SEQ_CST of an Ordering: of any, of one that loads, that stores, or that a
# compare-exchange has when it fails.  ValueError or TypeError for others.
cdef int order_code(object ordering) except -1
cdef int load_order(object ordering) except -1
cdef int store_order(object ordering) except -1
cdef int failure_order(object ordering) except -1
