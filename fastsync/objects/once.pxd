"""Once, OnceLock and LazyLock, for Cython code that is handed one."""
from libc.stdint cimport uint8_t

from fastsync.raw.c_atomic cimport fs_atomic_uptr
from fastsync.raw.once cimport fs_once


cdef class _Once:
    cdef object __weakref__
    cdef fs_atomic_uptr owner  # the thread that runs it: see start()
    cdef fs_once once


cdef class Once(_Once):
    pass


cdef class OnceLock(_Once):
    cdef list box              # the value, or EMPTY: see c_box.pxd


cdef class LazyLock(_Once):
    cdef object function       # None when it is no longer needed
    cdef object result
    cdef object error          # what it raised


# The byte of the object, for nogil code.  The object must stay alive.
cdef inline fs_once* once_word(Once o) noexcept nogil:
    if o is None:
        return NULL
    return &o.once


# -- between the modules of this package; not for others ---------------------

# Begin to run it, or wait while another thread does: FS_ONCE_RUN when the caller is to run it
# and then to call finish().
cdef int start(_Once self, bint force) except -1
cdef void finish(_Once self, uint8_t outcome) noexcept
# In a fork's child: whether a thread runs it that does not exist there.
cdef bint is_lost(_Once self) noexcept
