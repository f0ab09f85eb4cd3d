"""Words that own a Python object.

These belong to threads with an attached thread state: counting references, and
whatever a dropped object runs, needs one.  For pointers that are not Python
objects there is fs_atomic_ptr in atomics.pxd.
"""
from cpython.object cimport PyObject
cimport cython

from fastsync.raw.c_atomic cimport fs_atomic_i64, fs_atomic_uptr

# A new reference, or NULL when the word is empty.
cdef PyObject* ref_load(fs_atomic_uptr* word) noexcept
# Sets a new reference to `new` (NULL: empty); gives the word's reference to the caller.
cdef PyObject* ref_swap(fs_atomic_uptr* word, PyObject* new) noexcept
# If the word refers to `expected`, sets `new` and drops the word's reference.
cdef bint ref_cas(fs_atomic_uptr* word, PyObject* expected, PyObject* new) noexcept

cdef class _Ref:
    cdef fs_atomic_uptr word
    cdef object __weakref__

@cython.final
cdef class AtomicRef(_Ref):
    pass

@cython.final
cdef class AtomicCell(_Ref):
    pass

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
    cdef fs_atomic_i64 counts    # of Arcs and Weaks: see cell.pyx
    cdef PyObject* later         # in the list of values that a thread is to drop
