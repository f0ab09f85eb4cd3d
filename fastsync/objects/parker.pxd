"""Parker and WaitGroup, for Cython code that is handed one."""
from fastsync.raw.c_atomic cimport fs_atomic_u8, fs_atomic_uptr
from fastsync.raw.event cimport fs_event


cdef class Parker:
    cdef object __weakref__
    cdef fs_event token      # set: the next park() takes it and does not wait


cdef class Unparker:
    cdef object __weakref__
    cdef Parker parker


cdef class _Group:
    cdef fs_atomic_uptr handles  # those that are not done
    cdef fs_event empty          # set for good when there are none


cdef class WaitGroup:
    cdef object __weakref__
    cdef _Group group
    cdef fs_atomic_u8 state      # see parker.pyx
