"""The memory behind an AtomicArray."""
cimport cython

from fastsync.objects._kinds cimport _Exported
from fastsync.raw cimport c_version  # so that versions are compared

@cython.final
cdef class AtomicArray:
    cdef char* data        # item 0
    cdef Py_ssize_t count
    cdef int kind          # FS_I8 ... of c_atomic_order.pxd
    cdef int size          # bytes of an item
    cdef bint shared       # other processes wait on the items too
    cdef void* memory      # what was allocated, if it is our own
    cdef _Exported exported  # the buffer that it is in, if it is not
    cdef object __weakref__

# The word of item `i`, which the caller has checked against `a.count`.
cdef inline void* item_word(AtomicArray a, Py_ssize_t i) noexcept nogil:
    return a.data + i * a.size
