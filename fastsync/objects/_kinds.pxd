"""Words of every kind: see _kinds.pyx."""
cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.object cimport PyObject

from fastsync.raw cimport c_version  # so that versions are compared
from fastsync.raw.c_atomic_float cimport f32_widen, f64_bits, f64_from_bits, fs_fold
from fastsync.raw.c_atomic_order cimport FS_BOOL, FS_F64, FS_I64, FS_KINDS, FS_U64
from fastsync.raw.c_python cimport fs_small_int, Py_NewRef

cdef extern from "Python.h":
    PyObject* Py_True
    PyObject* Py_False
    PyObject* _PyLong_FromLongLong "PyLong_FromLongLong" (int64_t) noexcept
    PyObject* _PyLong_FromUnsignedLongLong "PyLong_FromUnsignedLongLong" (uint64_t) noexcept
    PyObject* _PyFloat_FromDouble "PyFloat_FromDouble" (double) noexcept


# What a kind of integer can be.
cdef int64_t LOWEST[FS_KINDS]
cdef int64_t HIGHEST[FS_KINDS]

# A buffer that is kept exported.
@cython.final
cdef class _Exported:
    cdef object source
    cdef Py_buffer buffer


cdef inline bint quick_bits(int kind, PyObject* value, uint64_t* bits) noexcept:
    """to_bits for the values that need no call; False: use that."""
    cdef int64_t number
    if kind <= FS_U64:
        if not fs_small_int(value, &number):
            return False
        bits[0] = <uint64_t>number
        return LOWEST[kind] <= number <= HIGHEST[kind]
    if kind == FS_BOOL:
        bits[0] = value == Py_True
        return value == Py_True or value == Py_False
    if kind == FS_F64 and PyFloat_CheckExact(<object>value):
        bits[0] = f64_bits(PyFloat_AS_DOUBLE(<object>value))
        return True
    return False


cdef inline PyObject* new_value(int kind, uint64_t bits) noexcept:
    """to_python, for a function that passes its error on as NULL."""
    if kind <= FS_I64:
        return _PyLong_FromLongLong(<int64_t>bits)
    if kind <= FS_U64:
        return _PyLong_FromUnsignedLongLong(bits)
    if kind == FS_BOOL:
        return Py_NewRef(Py_True if bits else Py_False)
    return _PyFloat_FromDouble(
        f64_from_bits(bits) if kind == FS_F64 else f32_widen(<uint32_t>bits))


cdef object to_python(int kind, uint64_t bits)
cdef int to_bits(int kind, object value, uint64_t* bits) except -1
cdef int kind_size(int kind) noexcept nogil
cdef uint64_t fold_float(void* word, int kind, uint64_t v, fs_fold fold, int order) noexcept nogil
cdef int64_t word_deadline(object timeout) except? -1
cdef object wait_word(
    void* word, int kind, bint shared, object expected, object timeout, object ordering)
cdef int notify_word(void* word, int kind, bint shared, bint all) except -1
cdef tuple update_word(
    void* word, int kind, object f, object success, object failure, bint may_give_up)
cdef tuple cas_word(
    void* word, int kind, object current, object new, object success, object failure,
    bint weak)
cdef int check_shared(bint shared) except -1
cdef int get_writable(object source, Py_buffer* view) except -1
cdef _Exported export_writable(object source)
# (done, value), a new reference; or NULL, and an exception is set.
cdef PyObject* new_pair(bint done, int kind, uint64_t bits) noexcept
