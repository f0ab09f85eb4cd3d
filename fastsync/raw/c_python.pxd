# Extern declarations of include/fastsync/python.h and of the interpreter calls
# that a waiting thread makes by hand; no logic.
from cpython.object cimport PyObject
from libc.stdint cimport int64_t


cdef extern from "fastsync/python.h" nogil:
    bint FS_FREE_THREADED
    ctypedef struct PyThreadState:
        pass
    bint fs_attached() noexcept
    PyThreadState* fs_detach() noexcept
    void fs_attach(PyThreadState*) noexcept
    bint fs_may_spin() noexcept
    bint FS_TELLS_OF_SIGNALS
    bint fs_signal_due(PyThreadState*) noexcept
    # Only in the main thread, with the thread state attached.
    int fs_check_signals() noexcept
    # Runs Python signal handlers: only with the thread state attached.
    int PyErr_CheckSignals() noexcept
    # These only with the thread state attached.
    PyObject* Py_NewRef(PyObject*) noexcept
    bint fs_is_immortal(PyObject*) noexcept
    int fs_make_immortal(PyObject*) noexcept
    bint fs_is_unique(PyObject*) noexcept
    const char* fs_check_interpreter(PyObject* fresh) noexcept
    bint fs_small_int(PyObject*, int64_t* value) noexcept
    object fs_given(PyObject*)
    list fs_new_list(Py_ssize_t size)
    PyObject* fs_constant(PyObject*) noexcept


cdef extern from "fastsync/python.h":
    void fs_keep_exception(PyObject*, int (*drop)(PyObject*) noexcept) noexcept
    void fs_free_object(PyObject*, void (*whole)(PyObject*) noexcept,
                        int (*drop)(PyObject*) noexcept) noexcept
