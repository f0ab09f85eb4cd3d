"""A type whose instances take attributes, for the types of `threading`."""
from cpython.object cimport PyObject


cdef extern from "Python.h":
    PyObject* Py_True


cdef class _Extensible:
    # In this order: see attributes_at.
    cdef object __weakref__
    cdef object attributes     # the instance's __dict__, NULL until needed
    cdef object inner          # None; what `_cond` gives, once asked for; True: see is_original


cdef inline bint is_original(_Extensible self) noexcept:
    """Whether the standard library's methods do its work: see _Extensible."""
    return <PyObject*>self.inner == Py_True


# How many threads wait in an instance natively; and how one becomes `original`.
ctypedef size_t (*fs_threads_waiting)(object self) noexcept
ctypedef int (*fs_become)(object self) except -1

cdef int add_extensible(type cls, fs_threads_waiting waiting, fs_become become) except -1
cdef size_t threads_waiting(object self) noexcept
cdef int become_original(_Extensible self) except -1
cdef void track(object self) noexcept

# One of the original's private attributes, as the word has it.
ctypedef object (*fs_private_read)(object self)
ctypedef int (*fs_private_write)(object self, object value) except -1

cdef int add_private(
    type owner, str name, fs_private_read read, fs_private_write write,
) except -1

# Make `cls.__init__` a Python function, as the original's is, so that it has a signature.
# `cls(...)` does not call it; subclasses do.
cdef int sign_constructor(type cls) except -1


# Module and name of the runtime class, as the originals' reprs have it.
cdef str stock_name(object self)
