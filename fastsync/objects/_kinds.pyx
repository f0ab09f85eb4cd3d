"""Words of every kind, numbers and bools: their values in Python, and what atomics.pyx and
array.pyx do with them alike.

A kind is FS_I8 ... FS_F64 of c_atomic_order.pxd; the bits of a value are its word, in 64 bits.
"""
cimport cython
from libc.stdint cimport (
    INT16_MAX, INT16_MIN, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN, int64_t, INT8_MAX, INT8_MIN,
    UINT16_MAX, UINT32_MAX, uint32_t, UINT64_MAX, uint64_t, UINT8_MAX,
)
from libc.string cimport memset
from cpython.bool cimport PyBool_FromLong
from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.float cimport PyFloat_AsDouble
from cpython.long cimport (
    PyLong_AsLongLongAndOverflow, PyLong_FromLongLong, PyLong_FromUnsignedLongLong,
)
from cpython.number cimport PyNumber_Index
from cpython.object cimport PyObject

from fastsync.objects._timeouts cimport deadline_for
from fastsync.objects._veneer cimport checked
from fastsync.objects.ordering cimport failure_order, load_order, order_code
from fastsync.raw cimport c_version  # so that versions are compared
from fastsync.raw.c_atomic_float cimport (
    f32_bits, f32_from_bits, f32_narrow, f32_overflows, f32_widen, f64_bits, f64_from_bits,
    fs_atomic_f32, fs_atomic_f64, fs_f32_fold_order, fs_f64_fold_order, fs_fold,
)
from fastsync.raw.c_atomic_order cimport (
    FS_BOOL, FS_F32, FS_F64, FS_I16, FS_I32, FS_I64, FS_I8, FS_U16, FS_U32, FS_U64, FS_U8,
    fs_word_cas, fs_word_cas_weak, fs_word_load,
)
from fastsync.raw.c_python cimport fs_make_immortal
from fastsync.raw.c_wait cimport FS_FOREVER, fs_now
from fastsync.raw.parking cimport (
    FS_ACQUIRED, FS_ERROR, FS_PARK_INTERRUPTED, FS_PARKS_SHARED, FS_SIGNALS, FS_TIMEOUT,
    park_shared, unpark_shared,
)
from fastsync.raw.word cimport word_notify_all, word_notify_one, word_wait


cdef extern from "Python.h":
    void PyObject_GC_UnTrack(PyObject*) noexcept
    uint64_t as_u64 "PyLong_AsUnsignedLongLong"(object) noexcept
    void* PyErr_Occurred() noexcept
    bint PyErr_ExceptionMatches(object) noexcept
    void PyErr_Clear() noexcept
    PyObject* _PyTuple_New "PyTuple_New" (Py_ssize_t) noexcept
    void _PyTuple_SET_ITEM "PyTuple_SET_ITEM" (PyObject*, Py_ssize_t, PyObject*) noexcept
    void Py_XDECREF(PyObject*) noexcept


# -- values ------------------------------------------------------------------

cdef list KIND_NAMES = [
    "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "bool", "f32", "f64",
]
memset(LOWEST, 0, sizeof(LOWEST))
LOWEST[FS_I8], LOWEST[FS_I16] = INT8_MIN, INT16_MIN
LOWEST[FS_I32], LOWEST[FS_I64] = INT32_MIN, INT64_MIN
HIGHEST[FS_I8], HIGHEST[FS_I16] = INT8_MAX, INT16_MAX
HIGHEST[FS_I32], HIGHEST[FS_I64] = INT32_MAX, INT64_MAX
HIGHEST[FS_U8], HIGHEST[FS_U16] = UINT8_MAX, UINT16_MAX
HIGHEST[FS_U32], HIGHEST[FS_U64] = UINT32_MAX, INT64_MAX  # the rest of u64: big_to_bits
HIGHEST[FS_BOOL] = 1


cdef int kind_size(int kind) noexcept nogil:
    """Bytes of a word of this kind."""
    if kind == FS_BOOL:
        return 1
    if kind == FS_F32:
        return 4
    return 8 if kind == FS_F64 else 1 << (kind & 3)


cdef object to_python(int kind, uint64_t bits):
    if kind <= FS_I64:
        return PyLong_FromLongLong(<int64_t>bits)
    if kind <= FS_U64:
        return PyLong_FromUnsignedLongLong(bits)
    if kind == FS_BOOL:
        return PyBool_FromLong(bits != 0)
    if kind == FS_F32:
        return f32_widen(<uint32_t>bits)
    return f64_from_bits(bits)


cdef int to_bits(int kind, object value, uint64_t* bits) except -1:
    """OverflowError for what does not fit, TypeError for what is no number of that sort."""
    cdef int overflow = 0
    cdef long long number
    if kind >= FS_F32:
        return float_to_bits(kind, value, bits)
    number = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow == 0 and LOWEST[kind] <= number <= HIGHEST[kind]:
        bits[0] = <uint64_t>number
        return 0
    return big_to_bits(kind, value, overflow, bits)


cdef int big_to_bits(int kind, object value, int overflow, uint64_t* bits) except -1:
    if kind == FS_U64 and overflow > 0:
        # By hand, because Cython's `except` crashes when no memory is left for the traceback.
        bits[0] = as_u64(PyNumber_Index(value))
        if bits[0] != UINT64_MAX or PyErr_Occurred() == NULL:
            return 0
        if not PyErr_ExceptionMatches(OverflowError):
            return -1
        PyErr_Clear()
    # Without the value: an int of thousands of digits has no repr, a subclass's may raise.
    raise OverflowError(f"the value does not fit {KIND_NAMES[kind]}")


cdef int float_to_bits(int kind, object value, uint64_t* bits) except -1:
    cdef double x = PyFloat_AsDouble(value)
    if kind == FS_F64:
        bits[0] = f64_bits(x)
    elif f32_overflows(x):
        raise OverflowError("the value does not fit f32")
    else:
        bits[0] = f32_narrow(x)
    return 0


# -- operations on a word of any kind, for the objects here and for AtomicArray --

cdef tuple cas_word(
    void* word, int kind, object current, object new, object success, object failure,
    bint weak,
):
    cdef uint64_t seen, wanted
    cdef int ok = order_code(success)
    cdef int fail = failure_order(failure)
    cdef bint done
    to_bits(kind, current, &seen)
    to_bits(kind, new, &wanted)
    if weak:
        done = fs_word_cas_weak(word, kind, &seen, wanted, ok, fail)
    else:
        done = fs_word_cas(word, kind, &seen, wanted, ok, fail)
    return done, to_python(kind, seen)


cdef tuple update_word(
    void* word, int kind, object f, object success, object failure, bint may_give_up,
):
    """(succeeded, previous).  `f` runs with nothing held and may do anything."""
    cdef int ok = order_code(success)
    cdef int fail = failure_order(failure)
    cdef uint64_t wanted
    cdef uint64_t seen = fs_word_load(word, kind, fail)
    while True:
        previous = to_python(kind, seen)
        new = f(previous)
        if new is None and may_give_up:
            return False, previous
        to_bits(kind, new, &wanted)
        if fs_word_cas_weak(word, kind, &seen, wanted, ok, fail):
            return True, previous


cdef uint64_t fold_float(
    void* word, int kind, uint64_t v, fs_fold fold, int order,
) noexcept nogil:
    if kind == FS_F64:
        return f64_bits(fs_f64_fold_order(
            <fs_atomic_f64*>word, f64_from_bits(v), fold, order))
    return f32_bits(fs_f32_fold_order(
        <fs_atomic_f32*>word, f32_from_bits(<uint32_t>v), fold, order))


cdef int wait_shared(
    void* word, int kind, uint64_t expected, int order, int64_t deadline,
) noexcept nogil:
    """word_wait for a word that other processes change too."""
    while fs_word_load(word, kind, order) == expected:
        if fs_now() >= deadline:
            return FS_TIMEOUT
        if park_shared(word, kind_size(kind), expected, deadline,
                       FS_SIGNALS) == FS_PARK_INTERRUPTED:
            return FS_ERROR
    return FS_ACQUIRED


cdef object wait_word(
    void* word, int kind, bint shared, object expected, object timeout, object ordering,
):
    cdef int order = load_order(ordering)
    cdef uint64_t bits
    cdef int64_t deadline
    cdef int result
    to_bits(kind, expected, &bits)
    deadline = word_deadline(timeout)
    if shared:
        result = wait_shared(word, kind, bits, order, deadline)
    else:
        result = word_wait(word, kind, bits, order, deadline, FS_SIGNALS)
    return checked(result)


cdef int64_t word_deadline(object timeout) except? -1:
    """None and what is too large: for ever; zero and less: 0; NaN is a ValueError."""
    return FS_FOREVER if timeout is None else deadline_for(timeout)


cdef int notify_word(void* word, int kind, bint shared, bint all) except -1:
    if shared:
        unpark_shared(word, kind_size(kind), INT32_MAX if all else 1)
    elif all:
        word_notify_all(word)
    else:
        word_notify_one(word)
    return 0


# -- memory that others own ---------------------------------------------------

cdef int check_shared(bint shared) except -1:
    if shared and not FS_PARKS_SHARED:
        raise NotImplementedError(
            "this platform has no wait between processes; use shared=False and poll")
    return 0


cdef int get_writable(object source, Py_buffer* view) except -1:
    """Its memory, contiguous.  TypeError for one of Python objects: they count references."""
    PyObject_GetBuffer(source, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | PyBUF_WRITABLE)
    if holds_objects(view.format):
        PyBuffer_Release(view)
        raise TypeError("the buffer holds references to Python objects")
    return 0


cdef bint holds_objects(const char* format) noexcept:
    """Whether a buffer's format has an O, the names of fields, `:name:`, left out."""
    cdef bint in_name = False
    while format != NULL and format[0] != 0:
        if format[0] == c":":
            in_name = not in_name
        elif format[0] == c"O" and not in_name:
            return True
        format += 1
    return False


# `source` makes this a type that the collector looks into; Cython shows it buffer.obj, too.
#
# No tp_clear, here and in what refers to this: the memory must be there as long as
# the object that uses it can be reached.  Nothing is lost, because an object that is
# older than the one that refers to it closes a cycle only by a change, and what can be
# changed can be cleared.

@cython.final
@cython.no_gc_clear
@cython.trashcan(True)  # long chains of arrays over arrays are freed without a deep stack
cdef class _Exported:
    """A buffer that is kept exported."""

    def __dealloc__(self):
        PyBuffer_Release(&self.buffer)


cdef _Exported export_writable(object source):
    """get_writable, for as long as the result lives."""
    cdef _Exported exported = _Exported.__new__(_Exported)
    exported.source = source
    get_writable(source, &exported.buffer)
    return exported


# -- results --------------------------------------------------------------------

# What compare_exchange() of a flag or a state answers is one of a few pairs.  To make and
# free a tuple is a quarter of the call, so these are kept for ever, and are immortal.

cdef enum:
    SMALL = 256  # the ints below, and behind them False and True

cdef PyObject* kept_pairs[2][SMALL + 2]


cdef int keep_pairs() except -1:
    cdef tuple pair
    for done in (False, True):
        for place, value in enumerate([*range(SMALL), False, True]):
            pair = (done, value)
            PyObject_GC_UnTrack(<PyObject*>pair)
            fs_make_immortal(<PyObject*>pair)
            kept_pairs[<int>done][<int>place] = Py_NewRef(<PyObject*>pair)
    return 0


keep_pairs()


cdef PyObject* new_pair(bint done, int kind, uint64_t bits) noexcept:
    cdef PyObject* pair
    cdef PyObject* value
    if kind <= FS_U64 and bits < SMALL:
        return Py_NewRef(kept_pairs[done][bits])
    if kind == FS_BOOL:
        return Py_NewRef(kept_pairs[done][SMALL + (bits != 0)])
    value = new_value(kind, bits)
    pair = _PyTuple_New(2) if value != NULL else NULL
    if pair == NULL:
        Py_XDECREF(value)
        return NULL
    _PyTuple_SET_ITEM(pair, 0, Py_NewRef(Py_True if done else Py_False))
    _PyTuple_SET_ITEM(pair, 1, value)
    return pair
