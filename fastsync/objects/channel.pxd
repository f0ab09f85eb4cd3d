"""Channels, for the modules of this package."""
from libc.stdint cimport int64_t
from cpython.object cimport PyObject

from fastsync.raw.c_atomic cimport fs_atomic_u8
from fastsync.raw.mutex cimport fs_mutex
from fastsync.objects._ring cimport _Ring


cdef class _Channel(_Ring):
    cdef int64_t senders    # handles that are not closed; guarded by the ring's lock
    cdef int64_t receivers


cdef class Sender:
    cdef object __weakref__
    cdef _Channel channel
    cdef fs_atomic_u8 is_closed
    cdef int put(self, object item, int64_t deadline) except -1


cdef class Receiver:
    cdef object __weakref__
    cdef _Channel channel
    cdef fs_atomic_u8 is_closed
    cdef object take(self, int64_t deadline)


cdef class _Timer(Receiver):
    cdef fs_mutex lock
    cdef int64_t due        # when there is a message; FS_FOREVER: never; guarded by `lock`
    cdef int64_t period     # 0: once; less: never
    cdef bint has_come(self) noexcept


cdef bint is_closed(fs_atomic_u8* flag) noexcept nogil
# The message of a timer, NULL if there is none yet; then `due` says when.
cdef object take_tick(_Timer self, int64_t* due)
