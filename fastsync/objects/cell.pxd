"""AtomicRef and AtomicCell, for Cython code that is handed one."""
cimport cython

from fastsync.objects.reference cimport _Ref

@cython.final
cdef class AtomicRef(_Ref):
    pass

@cython.final
cdef class AtomicCell(_Ref):
    pass
