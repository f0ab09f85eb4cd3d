# Extern declarations of include/fastsync/python.h and of the interpreter calls
# that a waiting thread makes by hand; no logic.
from cpython.object cimport PyObject


cdef extern from "fastsync/python.h" nogil:
    bint FS_FREE_THREADED
    ctypedef struct PyThreadState:
        pass
    bint fs_attached() noexcept
    PyThreadState* fs_detach() noexcept
    void fs_attach(PyThreadState*) noexcept
    bint fs_may_spin() noexcept
    # Runs Python signal handlers: only with the thread state attached.
    int PyErr_CheckSignals() noexcept
