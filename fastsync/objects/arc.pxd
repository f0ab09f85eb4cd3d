"""Arc and Weak, for Cython code that is handed one."""
cimport cython
from cpython.object cimport PyObject

from fastsync.objects.reference cimport _Ref
from fastsync.raw.c_atomic cimport fs_atomic_i64, fs_atomic_uptr

@cython.final
cdef class Arc(_Ref):
    pass

@cython.final
cdef class Weak(_Ref):
    pass

# What the handles of one value share.
@cython.final
cdef class _Shared:
    cdef fs_atomic_uptr value
    cdef fs_atomic_uptr on_drop  # a callable, or empty
    cdef fs_atomic_i64 counts    # of Arcs and Weaks: see arc.pyx
    cdef PyObject* later         # in the list of values that a thread is to drop
