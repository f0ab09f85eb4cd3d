"""Condvar, a condition variable over the guards of a Mutex, for Cython code that is handed one."""
from fastsync.raw.condvar cimport fs_condvar


cdef class Condvar:
    cdef object __weakref__
    cdef fs_condvar word


# The word inside, for nogil code.
cdef inline fs_condvar* condvar_word(Condvar c) noexcept nogil:
    if c is None:
        return NULL
    return &c.word
