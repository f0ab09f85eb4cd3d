"""What the Python types say, refuse and pass on alike."""
from cpython.object cimport PyObject
from libc.stdint cimport uintptr_t


cdef inline bint checked(int outcome) except -1:
    """FS_ACQUIRED and FS_TIMEOUT as a bool; FS_ERROR: its exception is set."""
    return outcome


cdef inline object kept(PyObject* seen):
    """What a field had when it was read, once: another thread may be setting it."""
    return <object>seen


cdef inline Py_ssize_t offset(object probe, void* field) noexcept:
    return <char*>field - <char*><PyObject*>probe


cdef inline str address(object self):
    return f"0x{<uintptr_t><PyObject*>self:x}"


cdef inline int refuse_call(size_t nargs) except -1:
    raise TypeError(
        "it is called by `with` only: with no arguments to enter, with three to leave, "
        f"not with {nargs} or with keywords")


cdef inline int refuse_pickling(str name) except -1:
    raise TypeError(f"cannot pickle '{name}' object")
