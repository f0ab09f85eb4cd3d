"""Atomics: Rust's std::sync::atomic, C++20's wait and notify, Java's LongAdder.

One object is one word:

    owned      flags 0            word holds the value, in its low bytes
    borrowed   FS_BORROWED [| FS_SHARED]
                                  word holds the address of the value, in a buffer
                                  that `exported` keeps until the object dies

`kind`, `flags`, `exported` and, of a borrowed one, `word` are written before another
thread can see the object and never again.  All types share the methods of the bases
below: the kind picks the C operation, a predictable switch of about a
nanosecond, and the twelve classes stay names.

Memory orders.  The default everywhere is seq_cst.  The caller's order goes to
the C operation as it is, so what it pairs with is the caller's to say; the
relaxed loads in here are said to be so where they stand.
"""
cimport cython
from libc.stdint cimport (
    INT16_MAX, INT16_MIN, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN, int64_t, INT8_MAX, INT8_MIN,
    UINT16_MAX, UINT32_MAX, uint32_t, UINT64_MAX, uint64_t, UINT8_MAX, uintptr_t,
)
from libc.string cimport memcpy, memset
from cpython.bool cimport PyBool_FromLong
from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_AsDouble, PyFloat_CheckExact
from cpython.long cimport (
    PyLong_AsLongLongAndOverflow, PyLong_FromLongLong, PyLong_FromUnsignedLongLong,
)
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from cpython.number cimport PyNumber_Index
from cpython.object cimport PyObject

from fastsync.objects._slots cimport forbid_instances, publish
from fastsync.objects._timeouts cimport deadline_for
from fastsync.raw cimport c_version  # so that versions are compared
from fastsync.raw.c_atomic cimport fs_atomic_i64, fs_pause
from fastsync.raw.c_atomic_float cimport (
    f32_bits, f32_from_bits, f32_narrow, f32_overflows, f32_widen, f64_bits, f64_from_bits,
    fs_atomic_bool, fs_atomic_f32, fs_atomic_f64, fs_bool_fetch_and_order,
    fs_bool_fetch_nand_order, fs_bool_fetch_not_order, fs_bool_fetch_or_order,
    fs_bool_fetch_xor_order, fs_f32_fold_order, fs_f64_fold_order, fs_fold, FS_FOLD_ADD,
    FS_FOLD_MAX, FS_FOLD_MIN, FS_FOLD_SUB,
)
from fastsync.raw.c_atomic_order cimport (
    FS_ACQ_REL, FS_ACQUIRE, FS_BOOL, fs_compiler_fence, FS_F32, FS_F64, fs_fence, FS_I16, FS_I32,
    FS_I64, fs_i64_exchange_order, fs_i64_fetch_add, fs_i64_fetch_add_order, fs_i64_fetch_sub,
    fs_i64_load_order, FS_I8, FS_KINDS, FS_RELAXED, FS_RELEASE, FS_SEQ_CST, FS_U16, FS_U32, FS_U64,
    FS_U8, fs_word_cas, fs_word_cas_weak, fs_word_exchange, fs_word_fetch_add, fs_word_fetch_and,
    fs_word_fetch_max, fs_word_fetch_min, fs_word_fetch_nand, fs_word_fetch_or, fs_word_fetch_sub,
    fs_word_fetch_xor, fs_word_load, fs_word_store,
)
from fastsync.raw.c_python cimport fs_make_immortal, fs_small_int
from fastsync.raw.c_wait cimport FS_FOREVER, fs_now
from fastsync.raw.parking cimport (
    FS_ACQUIRED, FS_ERROR, FS_PARK_INTERRUPTED, FS_PARKS_SHARED, FS_SIGNALS, FS_TIMEOUT,
    park_shared, unpark_shared,
)
from fastsync.raw.word cimport word_notify_all, word_notify_one, word_wait

from fastsync.objects._pin import register_pinnable


cdef extern from "fastsync/thread_index.h" nogil:
    uint32_t fs_thread_index() noexcept

cdef extern from "Python.h":
    enum:
        METH_FASTCALL
        METH_KEYWORDS
    ctypedef struct PyMethodDef:
        int ml_flags
        void* ml_meth
    ctypedef struct PyMethodDescrObject:
        PyMethodDef* d_method
    ctypedef struct PyTypeObject:
        PyObject* tp_dict
    void PyType_Modified(PyTypeObject*)
    void PyObject_GC_Track(PyObject*) noexcept
    void PyObject_GC_UnTrack(PyObject*) noexcept
    object PyDescr_NewMethod(type, PyMethodDef*)
    uint64_t as_u64 "PyLong_AsUnsignedLongLong"(object) noexcept
    void* PyErr_Occurred() noexcept
    bint PyErr_ExceptionMatches(object) noexcept
    void PyErr_Clear() noexcept
    PyTypeObject* Py_TYPE(PyObject*) noexcept
    PyObject* Py_NewRef(PyObject*) noexcept
    PyObject* Py_None
    PyObject* Py_True
    PyObject* Py_False
    PyObject* _PyLong_FromLongLong "PyLong_FromLongLong" (int64_t) noexcept
    PyObject* _PyFloat_FromDouble "PyFloat_FromDouble" (double) noexcept
    PyObject* _PyTuple_New "PyTuple_New" (Py_ssize_t) noexcept
    void _PyTuple_SET_ITEM "PyTuple_SET_ITEM" (PyObject*, Py_ssize_t, PyObject*) noexcept
    void Py_XDECREF(PyObject*) noexcept
    PyObject* _PyLong_FromUnsignedLongLong "PyLong_FromUnsignedLongLong" (uint64_t) noexcept


# -- orders ------------------------------------------------------------------

cdef bint making_orderings = True


@cython.final
cdef class Ordering:
    """How a memory operation is ordered among the others: Rust's Ordering.

    Relaxed orders nothing, Acquire keeps what follows after it, Release keeps what came before
    it, AcqRel does both, and SeqCst puts all SeqCst operations into one order that every thread
    agrees on. An acquire operation that reads what a release operation wrote sees everything
    that came before the latter.
    """

    def __cinit__(self):
        if not making_orderings:
            raise TypeError("cannot create 'fastsync.Ordering' instances")

    @property
    def name(self):
        """The name in Ordering: 'Acquire' of Ordering.Acquire."""
        return self.label

    @staticmethod
    def members():
        """Return all five, weakest first."""
        return tuple(ORDERINGS)

    def __repr__(self):
        return f"Ordering.{self.label}"

    def __reduce__(self):
        return getattr, (Ordering, self.label)


cdef Ordering new_ordering(int code, str label):
    cdef Ordering ordering = Ordering.__new__(Ordering)
    cdef PyTypeObject* type_object = <PyTypeObject*>Ordering
    ordering.code = code
    ordering.label = label
    (<dict>type_object.tp_dict)[label] = ordering
    PyType_Modified(type_object)
    # An argument of every call from every thread: counting would serialize them.
    fs_make_immortal(<PyObject*>ordering)
    return ordering


cdef list ORDERINGS = [
    new_ordering(FS_RELAXED, "Relaxed"),
    new_ordering(FS_ACQUIRE, "Acquire"),
    new_ordering(FS_RELEASE, "Release"),
    new_ordering(FS_ACQ_REL, "AcqRel"),
    new_ordering(FS_SEQ_CST, "SeqCst"),
]
making_orderings = False


# What is refused, in Rust's words.

cdef int order_code(object ordering) except -1:
    # The default is spelled `...`, which a signature can show and None is not.
    if ordering is Ellipsis:
        return FS_SEQ_CST
    if type(ordering) is not Ordering:
        raise TypeError(f"expected a fastsync.Ordering, not {type(ordering).__name__}")
    return (<Ordering>ordering).code


cdef int load_order(object ordering) except -1:
    cdef int code = order_code(ordering)
    if code == FS_RELEASE:
        raise ValueError("there is no such thing as a release load")
    if code == FS_ACQ_REL:
        raise ValueError("there is no such thing as an acquire-release load")
    return code


cdef int store_order(object ordering) except -1:
    cdef int code = order_code(ordering)
    if code == FS_ACQUIRE:
        raise ValueError("there is no such thing as an acquire store")
    if code == FS_ACQ_REL:
        raise ValueError("there is no such thing as an acquire-release store")
    return code


cdef int failure_order(object ordering) except -1:
    cdef int code = order_code(ordering)
    if code == FS_RELEASE:
        raise ValueError("there is no such thing as a release failure ordering")
    if code == FS_ACQ_REL:
        raise ValueError("there is no such thing as an acquire-release failure ordering")
    return code


cdef int fence_order(object ordering) except -1:
    cdef int code = order_code(ordering)
    if code == FS_RELAXED:
        raise ValueError("there is no such thing as a relaxed fence")
    return code


def fence(ordering=...):
    """Order this thread's memory operations across this point, as std::sync::atomic::fence.

    ValueError for Relaxed.
    """
    fs_fence(fence_order(ordering))


def compiler_fence(ordering=...):
    """Keep the compiler, but not the processor, from reordering across this point.

    For a thread and its own signal handlers. ValueError for Relaxed.
    """
    fs_compiler_fence(fence_order(ordering))


def spin_loop():
    """Tell the processor that this thread is polling, as std::hint::spin_loop.

    It does not yield to another thread: with the GIL, polling for another thread never ends.
    """
    fs_pause()


# -- values ------------------------------------------------------------------

cdef int64_t LOWEST[FS_KINDS]
cdef int64_t HIGHEST[FS_KINDS]
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
    deadline = wait_deadline(timeout)
    if shared:
        result = wait_shared(word, kind, bits, order, deadline)
    else:
        result = word_wait(word, kind, bits, order, deadline, FS_SIGNALS)
    return raise_or_bool(result)


cdef int64_t wait_deadline(object timeout) except? -1:
    """None and what is too large: for ever; zero and less: 0; NaN is a ValueError."""
    return FS_FOREVER if timeout is None else deadline_for(timeout)


cdef object raise_or_bool(int result):
    if result == FS_ERROR:
        raise_current()
    return result == FS_ACQUIRED


cdef int raise_current() except -1:
    """An exception is set already."""
    return -1


cdef int notify_word(void* word, int kind, bint shared, bint everybody) except -1:
    if shared:
        unpark_shared(word, kind_size(kind), INT32_MAX if everybody else 1)
    elif everybody:
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
# somebody can reach the object that uses it.  Nothing is lost, because an object that is
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


cdef int borrow(_Atomic self, object buffer, Py_ssize_t offset, bint shared) except -1:
    """Make a new atomic one over `buffer`."""
    cdef int size = kind_size(self.kind)
    cdef _Exported exported
    cdef uintptr_t address
    check_shared(shared)
    exported = export_writable(buffer)
    if offset < 0 or offset > exported.buffer.len - size:
        raise ValueError(
            f"{size} bytes at offset {offset} are outside a buffer of {exported.buffer.len}")
    address = <uintptr_t>exported.buffer.buf + <uintptr_t>offset
    if address % <uintptr_t>size:
        raise ValueError(f"offset {offset} of this buffer is not aligned to {size} bytes")
    self.exported = exported
    memcpy(&self.word, &address, sizeof(address))
    self.flags = FS_BORROWED | (FS_SHARED if shared else 0)
    PyObject_GC_Track(<PyObject*>self)
    return 0


# -- types -------------------------------------------------------------------

cdef inline int set_up(_Atomic self, int kind, object value) except -1:
    cdef uint64_t bits
    self.kind = kind
    to_bits(kind, value, &bits)
    # relaxed: no other thread can see the object yet
    fs_word_store(&self.word, kind, bits, FS_RELAXED)
    # It refers to nothing, unless borrow() changes that.
    PyObject_GC_UnTrack(<PyObject*>self)
    return 0


cdef bint is_ours(type cls):
    """Whether it is one of TYPES itself."""
    for ours in TYPES:
        if ours is cls:
            return True
    return False


cdef inline object relaxed_value(_Atomic self):
    # relaxed: a look that orders nothing, as Rust's Debug
    return to_python(self.kind, fs_word_load(word_address(self), self.kind, FS_RELAXED))


cdef inline object current_value(_Atomic self):
    return to_python(self.kind, fs_word_load(word_address(self), self.kind, FS_SEQ_CST))


@cython.no_gc_clear  # see _Exported
cdef class _Atomic:
    """What every atomic number and AtomicBool has.

    Operations are indivisible and, unless an `ordering` says otherwise, sequentially
    consistent. Comparison and hashing are by identity. Atomics cannot be copied or pickled.
    """

    @classmethod
    def from_buffer(cls, buffer, Py_ssize_t offset=0, bint shared=False):
        """Return an atomic over memory that `buffer` owns, `offset` bytes from its start.

        Two of them over the same bytes are the same atomic. The buffer stays exported as long
        as the object lives. `shared=True` makes `wait` and `notify_*` work between processes
        (all of them must say so); NotImplementedError where the platform cannot.
        ValueError when the bytes are outside the buffer or not aligned to the width,
        BufferError when it is read-only, TypeError when its format tells of Python objects. An
        AtomicBool over a byte that is neither 0 nor 1 loads True, and compare_exchange() finds
        it equal to neither: store() a bool first.
        """
        cdef _Atomic self
        if not is_ours(cls):
            # Its __new__ might return an atomic that is in use.
            raise TypeError(f"cannot create {cls.__name__!r} instances")
        self = cls.__new__(cls)
        borrow(self, buffer, offset, shared)
        return self

    def load(self, ordering=...):
        """Return the value. ValueError for Release and AcqRel."""
        return to_python(
            self.kind, fs_word_load(word_address(self), self.kind, load_order(ordering)))

    def store(self, value, ordering=...):
        """Set the value. ValueError for Acquire and AcqRel, OverflowError if it does not fit."""
        cdef uint64_t bits
        cdef int order = store_order(ordering)
        to_bits(self.kind, value, &bits)
        fs_word_store(word_address(self), self.kind, bits, order)

    def swap(self, value, ordering=...):
        """Set the value and return the previous one."""
        cdef uint64_t bits
        to_bits(self.kind, value, &bits)
        return to_python(self.kind, fs_word_exchange(
            word_address(self), self.kind, bits, order_code(ordering)))

    def compare_exchange(
        self, current, new, success=..., failure=...,
    ):
        """Set `new` if the value is `current`; return (succeeded, previous).

        Floats compare by their bits. `failure` orders the load of a call that does not
        succeed: ValueError for Release and AcqRel.
        """
        return cas_word(word_address(self), self.kind, current, new, success, failure, False)

    def compare_exchange_weak(
        self, current, new, success=..., failure=...,
    ):
        """As compare_exchange, but it may fail for no reason: for loops."""
        return cas_word(word_address(self), self.kind, current, new, success, failure, True)

    def compare_and_set(
        self, current, new, success=..., failure=...,
    ):
        """Set `new` if the value is `current`; return whether it was."""
        cdef uint64_t seen, wanted
        cdef int ok = order_code(success)
        cdef int fail = failure_order(failure)
        to_bits(self.kind, current, &seen)
        to_bits(self.kind, new, &wanted)
        return fs_word_cas(
            word_address(self), self.kind, &seen, wanted, ok, fail)

    def fetch_update(
        self, f, success=..., failure=...,
    ):
        """Set f(value), trying again while others interfere; return (succeeded, previous).

        None from `f` gives up. `f` may run several times, raise, or use this atomic.
        """
        return update_word(word_address(self), self.kind, f, success, failure, True)

    def try_update(
        self, f, success=..., failure=...,
    ):
        """The same as fetch_update."""
        return update_word(word_address(self), self.kind, f, success, failure, True)

    def update(
        self, f, success=..., failure=...,
    ):
        """Set f(value), trying again while others interfere; return the previous value."""
        return update_word(word_address(self), self.kind, f, success, failure, False)[1]

    def into_inner(self):
        """Return the value; for when no other thread uses the atomic any more."""
        return current_value(self)

    def wait(self, expected, timeout=None, ordering=...):
        """Block while the value is `expected`; return whether it differs now.

        `timeout` is in seconds; None and what is too large wait for ever, zero and less do not
        wait, NaN is a ValueError. A change must be followed by notify_one or notify_all; a
        notify without a change does not end the wait. As std::atomic::wait of C++20.
        """
        return wait_word(word_address(self), self.kind, self.flags & FS_SHARED,
                         expected, timeout, ordering)

    def notify_one(self):
        """Wake one thread that waits on this atomic, if there is one."""
        notify_word(word_address(self), self.kind, self.flags & FS_SHARED, False)

    def notify_all(self):
        """Wake all threads that wait on this atomic."""
        notify_word(word_address(self), self.kind, self.flags & FS_SHARED, True)

    def __bool__(self):
        return fs_word_load(word_address(self), self.kind, FS_SEQ_CST) != 0

    def __int__(self):
        return int(current_value(self))

    def __float__(self):
        return float(current_value(self))

    def __format__(self, str spec not None):
        return format(current_value(self), spec)

    def __repr__(self):
        return f"{type(self).__name__}({relaxed_value(self)!r})"

    def __reduce_ex__(self, protocol):
        raise TypeError(f"cannot pickle or copy {type(self).__name__!r} object")


cdef class _AtomicInt(_Atomic):
    """What every atomic integer has: arithmetic that wraps at the width."""

    def fetch_add(self, value, ordering=...):
        """Add `value`, wrapping at the width; return the previous value."""
        cdef uint64_t bits
        to_bits(self.kind, value, &bits)
        return to_python(self.kind, fs_word_fetch_add(
            word_address(self), self.kind, bits, order_code(ordering)))

    def fetch_sub(self, value, ordering=...):
        """Subtract `value`, wrapping at the width; return the previous value."""
        cdef uint64_t bits
        to_bits(self.kind, value, &bits)
        return to_python(self.kind, fs_word_fetch_sub(
            word_address(self), self.kind, bits, order_code(ordering)))

    def fetch_and(self, value, ordering=...):
        """Keep the bits that `value` has too; return the previous value."""
        cdef uint64_t bits
        to_bits(self.kind, value, &bits)
        return to_python(self.kind, fs_word_fetch_and(
            word_address(self), self.kind, bits, order_code(ordering)))

    def fetch_nand(self, value, ordering=...):
        """Set the complement of the bits in common with `value`; return the previous value."""
        cdef uint64_t bits
        to_bits(self.kind, value, &bits)
        return to_python(self.kind, fs_word_fetch_nand(
            word_address(self), self.kind, bits, order_code(ordering)))

    def fetch_or(self, value, ordering=...):
        """Set the bits of `value` too; return the previous value."""
        cdef uint64_t bits
        to_bits(self.kind, value, &bits)
        return to_python(self.kind, fs_word_fetch_or(
            word_address(self), self.kind, bits, order_code(ordering)))

    def fetch_xor(self, value, ordering=...):
        """Flip the bits of `value`; return the previous value."""
        cdef uint64_t bits
        to_bits(self.kind, value, &bits)
        return to_python(self.kind, fs_word_fetch_xor(
            word_address(self), self.kind, bits, order_code(ordering)))

    def fetch_max(self, value, ordering=...):
        """Set `value` if it is larger; return the previous value."""
        cdef uint64_t bits
        to_bits(self.kind, value, &bits)
        return to_python(self.kind, fs_word_fetch_max(
            word_address(self), self.kind, bits, order_code(ordering)))

    def fetch_min(self, value, ordering=...):
        """Set `value` if it is smaller; return the previous value."""
        cdef uint64_t bits
        to_bits(self.kind, value, &bits)
        return to_python(self.kind, fs_word_fetch_min(
            word_address(self), self.kind, bits, order_code(ordering)))

    def __iadd__(self, value):
        cdef uint64_t bits = 0
        if not quick_bits(self.kind, <PyObject*>value, &bits):
            to_bits(self.kind, value, &bits)
        if self.kind == FS_I64:
            fs_i64_fetch_add(<fs_atomic_i64*>word_address(self), <int64_t>bits)
        else:
            fs_word_fetch_add(word_address(self), self.kind, bits, FS_SEQ_CST)
        return self

    def __isub__(self, value):
        cdef uint64_t bits = 0
        if not quick_bits(self.kind, <PyObject*>value, &bits):
            to_bits(self.kind, value, &bits)
        if self.kind == FS_I64:
            fs_i64_fetch_sub(<fs_atomic_i64*>word_address(self), <int64_t>bits)
        else:
            fs_word_fetch_sub(word_address(self), self.kind, bits, FS_SEQ_CST)
        return self

    def __iand__(self, value):
        cdef uint64_t bits
        to_bits(self.kind, value, &bits)
        fs_word_fetch_and(word_address(self), self.kind, bits, FS_SEQ_CST)
        return self

    def __ior__(self, value):
        cdef uint64_t bits
        to_bits(self.kind, value, &bits)
        fs_word_fetch_or(word_address(self), self.kind, bits, FS_SEQ_CST)
        return self

    def __ixor__(self, value):
        cdef uint64_t bits
        to_bits(self.kind, value, &bits)
        fs_word_fetch_xor(word_address(self), self.kind, bits, FS_SEQ_CST)
        return self


cdef class _AtomicFloat(_Atomic):
    """What both atomic floats have."""

    def fetch_add(self, value, ordering=...):
        """Add `value`; return the previous value."""
        cdef uint64_t bits
        to_bits(self.kind, value, &bits)
        return to_python(self.kind, fold_float(
            word_address(self), self.kind, bits, FS_FOLD_ADD, order_code(ordering)))

    def fetch_sub(self, value, ordering=...):
        """Subtract `value`; return the previous value."""
        cdef uint64_t bits
        to_bits(self.kind, value, &bits)
        return to_python(self.kind, fold_float(
            word_address(self), self.kind, bits, FS_FOLD_SUB, order_code(ordering)))

    def fetch_max(self, value, ordering=...):
        """Set `value` if it is larger; a number wins over NaN. Return the previous value."""
        cdef uint64_t bits
        to_bits(self.kind, value, &bits)
        return to_python(self.kind, fold_float(
            word_address(self), self.kind, bits, FS_FOLD_MAX, order_code(ordering)))

    def fetch_min(self, value, ordering=...):
        """Set `value` if it is smaller; a number wins over NaN. Return the previous value."""
        cdef uint64_t bits
        to_bits(self.kind, value, &bits)
        return to_python(self.kind, fold_float(
            word_address(self), self.kind, bits, FS_FOLD_MIN, order_code(ordering)))

    def __iadd__(self, value):
        cdef uint64_t bits
        to_bits(self.kind, value, &bits)
        fold_float(word_address(self), self.kind, bits, FS_FOLD_ADD, FS_SEQ_CST)
        return self

    def __isub__(self, value):
        cdef uint64_t bits
        to_bits(self.kind, value, &bits)
        fold_float(word_address(self), self.kind, bits, FS_FOLD_SUB, FS_SEQ_CST)
        return self

    def __bool__(self):
        return current_value(self) != 0.0  # -0.0 has a bit set


@cython.final
cdef class AtomicBool(_Atomic):
    """An atomic bool, as std::sync::atomic::AtomicBool. It takes True, False, 1 and 0."""

    def __cinit__(self, value=False):
        set_up(self, FS_BOOL, value)

    def fetch_and(self, value, ordering=...):
        """Set `old and value`; return old."""
        cdef uint64_t bits
        to_bits(FS_BOOL, value, &bits)
        return fs_bool_fetch_and_order(
            <fs_atomic_bool*>word_address(self), bits != 0, order_code(ordering))

    def fetch_or(self, value, ordering=...):
        """Set `old or value`; return old."""
        cdef uint64_t bits
        to_bits(FS_BOOL, value, &bits)
        return fs_bool_fetch_or_order(
            <fs_atomic_bool*>word_address(self), bits != 0, order_code(ordering))

    def fetch_xor(self, value, ordering=...):
        """Set `old != value`; return old."""
        cdef uint64_t bits
        to_bits(FS_BOOL, value, &bits)
        return fs_bool_fetch_xor_order(
            <fs_atomic_bool*>word_address(self), bits != 0, order_code(ordering))

    def fetch_nand(self, value, ordering=...):
        """Set `not (old and value)`; return old."""
        cdef uint64_t bits
        to_bits(FS_BOOL, value, &bits)
        return fs_bool_fetch_nand_order(
            <fs_atomic_bool*>word_address(self), bits != 0, order_code(ordering))

    def fetch_not(self, ordering=...):
        """Set `not old`; return old."""
        return fs_bool_fetch_not_order(<fs_atomic_bool*>word_address(self), order_code(ordering))

    def __iand__(self, value):
        cdef uint64_t bits
        to_bits(FS_BOOL, value, &bits)
        fs_bool_fetch_and_order(
            <fs_atomic_bool*>word_address(self), bits != 0, FS_SEQ_CST)
        return self

    def __ior__(self, value):
        cdef uint64_t bits
        to_bits(FS_BOOL, value, &bits)
        fs_bool_fetch_or_order(
            <fs_atomic_bool*>word_address(self), bits != 0, FS_SEQ_CST)
        return self

    def __ixor__(self, value):
        cdef uint64_t bits
        to_bits(FS_BOOL, value, &bits)
        fs_bool_fetch_xor_order(
            <fs_atomic_bool*>word_address(self), bits != 0, FS_SEQ_CST)
        return self


@cython.final
cdef class AtomicI8(_AtomicInt):
    """An atomic signed integer of 8 bits, as std::sync::atomic::AtomicI8."""

    def __cinit__(self, value=0):
        set_up(self, FS_I8, value)


@cython.final
cdef class AtomicU8(_AtomicInt):
    """An atomic unsigned integer of 8 bits, as std::sync::atomic::AtomicU8."""

    def __cinit__(self, value=0):
        set_up(self, FS_U8, value)


@cython.final
cdef class AtomicI16(_AtomicInt):
    """An atomic signed integer of 16 bits, as std::sync::atomic::AtomicI16."""

    def __cinit__(self, value=0):
        set_up(self, FS_I16, value)


@cython.final
cdef class AtomicU16(_AtomicInt):
    """An atomic unsigned integer of 16 bits, as std::sync::atomic::AtomicU16."""

    def __cinit__(self, value=0):
        set_up(self, FS_U16, value)


@cython.final
cdef class AtomicI32(_AtomicInt):
    """An atomic signed integer of 32 bits, as std::sync::atomic::AtomicI32."""

    def __cinit__(self, value=0):
        set_up(self, FS_I32, value)


@cython.final
cdef class AtomicU32(_AtomicInt):
    """An atomic unsigned integer of 32 bits, as std::sync::atomic::AtomicU32."""

    def __cinit__(self, value=0):
        set_up(self, FS_U32, value)


@cython.final
cdef class AtomicI64(_AtomicInt):
    """An atomic signed integer of 64 bits, as std::sync::atomic::AtomicI64."""

    def __cinit__(self, value=0):
        set_up(self, FS_I64, value)


@cython.final
cdef class AtomicU64(_AtomicInt):
    """An atomic unsigned integer of 64 bits, as std::sync::atomic::AtomicU64."""

    def __cinit__(self, value=0):
        set_up(self, FS_U64, value)


@cython.final
cdef class AtomicIsize(_AtomicInt):
    """An atomic signed integer as wide as a pointer, as std::sync::atomic::AtomicIsize."""

    def __cinit__(self, value=0):
        set_up(self, FS_I64 if sizeof(void*) == 8 else FS_I32, value)


@cython.final
cdef class AtomicUsize(_AtomicInt):
    """An atomic unsigned integer as wide as a pointer, as std::sync::atomic::AtomicUsize."""

    def __cinit__(self, value=0):
        set_up(self, FS_U64 if sizeof(void*) == 8 else FS_U32, value)


@cython.final
cdef class AtomicF64(_AtomicFloat):
    """An atomic float of 64 bits: Python's own."""

    def __cinit__(self, value=0.0):
        set_up(self, FS_F64, value)


@cython.final
cdef class AtomicF32(_AtomicFloat):
    """An atomic float of 32 bits. Values are rounded to it; OverflowError if too large."""

    def __cinit__(self, value=0.0):
        set_up(self, FS_F32, value)


# -- Counter -----------------------------------------------------------------
#
# A power of two of cells, each on a cache line of its own; a thread adds to the
# cell of its number.  The value is the sum, modulo 2^64.  No cell orders
# anything: every access is relaxed, because a counter publishes no other data.

cdef enum:
    CACHE_LINE = 64
    # Threads numbered one after the other get different cells up to this many.
    # Fewer would make two busy threads of a small pool meet, more cost memory.
    FEWEST_CELLS = 8
    MOST_CELLS = 128


cdef uint32_t cell_count() except 0:
    """Twice the processors, as a power of two, within the bounds above."""
    import os
    cdef uint32_t wanted = 2 * (os.cpu_count() or 1)
    cdef uint32_t count = FEWEST_CELLS
    while count < wanted and count < MOST_CELLS:
        count *= 2
    return count


cdef uint32_t CELLS = cell_count()


@cython.final
cdef class Counter:
    """Counter()
--

    A sum that many threads add to at full speed, as Java's LongAdder.

    Each thread adds to a cell of its own, so that threads do not slow each other down, and
    `value()` adds the cells up: for statistics, where writing is frequent and reading rare.
    The sum wraps at 64 bits, signed. Additions order nothing (relaxed).
    """

    def __cinit__(self):
        cdef uintptr_t start
        self.memory = PyMem_RawCalloc(CELLS + 1, CACHE_LINE)
        if self.memory == NULL:
            raise MemoryError
        start = (<uintptr_t>self.memory + CACHE_LINE - 1) & ~<uintptr_t>(CACHE_LINE - 1)
        self.cells = <char*>start

    def __init__(self):
        pass

    def __dealloc__(self):
        PyMem_RawFree(self.memory)

    def add(self, n, /):
        """Add the integer `n`. OverflowError when it does not fit 64 bits, signed."""
        counter_add(self, n)

    def increment(self):
        """Add 1."""
        fs_i64_fetch_add_order(counter_cell(self), 1, FS_RELAXED)

    def value(self):
        """Return the sum. Additions under way may be in it or not."""
        cdef uint64_t total = 0
        cdef uint32_t i
        for i in range(CELLS):
            total += <uint64_t>fs_i64_load_order(cell_at(self, i), FS_RELAXED)
        return PyLong_FromLongLong(<int64_t>total)

    def reset(self):
        """Set the sum to 0 and return what it was; no addition is lost between the two."""
        cdef uint64_t total = 0
        cdef uint32_t i
        for i in range(CELLS):
            total += <uint64_t>fs_i64_exchange_order(cell_at(self, i), 0, FS_RELAXED)
        return PyLong_FromLongLong(<int64_t>total)

    def __iadd__(self, n):
        counter_add(self, n)
        return self

    def __int__(self):
        return self.value()

    def __sizeof__(self):
        return object.__sizeof__(self) + (CELLS + 1) * CACHE_LINE

    def __repr__(self):
        return f"Counter({self.value()})"

    def __reduce_ex__(self, protocol):
        raise TypeError("cannot pickle or copy 'Counter' object")


cdef inline fs_atomic_i64* cell_at(Counter self, uint32_t i) noexcept nogil:
    return <fs_atomic_i64*>(self.cells + i * CACHE_LINE)


cdef inline fs_atomic_i64* counter_cell(Counter self) noexcept nogil:
    return cell_at(self, fs_thread_index() & (CELLS - 1))


cdef inline int counter_add(Counter self, object n) except -1:
    cdef uint64_t bits = 0
    if not quick_bits(FS_I64, <PyObject*>n, &bits):
        to_bits(FS_I64, n, &bits)
    fs_i64_fetch_add_order(counter_cell(self), <int64_t>bits, FS_RELAXED)
    return 0


# -- the shortest way into the hot methods -----------------------------------
#
# Cython's unpacking of optional and keyword arguments costs 5 to 8 ns, and an
# inherited C method 2 more for a walk through the bases that checks `self`.  So
# each type gets its bases' methods as its own, and for those below the entry is
# a function that serves the common calls by itself (arguments by position, values
# whose conversion cannot fail) and sends all others to the method above.

ctypedef PyObject* (*entry_point)(
    _Atomic self, PyObject** args, Py_ssize_t count, PyObject* keywords) noexcept

cdef enum:
    ENTER_LOAD
    ENTER_STORE
    ENTER_SWAP
    ENTER_ADD
    ENTER_SUB
    ENTER_CAS
    ENTER_CAS_PAIR
    ENTRIES

cdef entry_point general[ENTRIES]  # the methods above


cdef inline int order_at(PyObject** args, Py_ssize_t count, Py_ssize_t at) noexcept:
    """The order of a call whose argument number `at`, the last, is one; -1: look closer."""
    if count == at:
        return FS_SEQ_CST
    if count == at + 1 and Py_TYPE(args[at]) == <PyTypeObject*>Ordering:
        return (<Ordering>args[at]).code
    return -1


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


cdef PyObject* enter_load(
    _Atomic self, PyObject** args, Py_ssize_t count, PyObject* keywords,
) noexcept:
    cdef int order = order_at(args, count, 0)
    if keywords != NULL or order < 0 or order == FS_RELEASE or order == FS_ACQ_REL:
        return general[ENTER_LOAD](self, args, count, keywords)
    if self.kind == FS_I64:
        return _PyLong_FromLongLong(fs_i64_load_order(<fs_atomic_i64*>word_address(self), order))
    return new_value(self.kind, fs_word_load(word_address(self), self.kind, order))


cdef PyObject* enter_store(
    _Atomic self, PyObject** args, Py_ssize_t count, PyObject* keywords,
) noexcept:
    cdef int order = order_at(args, count, 1)
    cdef uint64_t bits = 0
    if (keywords != NULL or order < 0 or order == FS_ACQUIRE or order == FS_ACQ_REL
            or not quick_bits(self.kind, args[0], &bits)):
        return general[ENTER_STORE](self, args, count, keywords)
    fs_word_store(word_address(self), self.kind, bits, order)
    return Py_NewRef(Py_None)


cdef PyObject* enter_swap(
    _Atomic self, PyObject** args, Py_ssize_t count, PyObject* keywords,
) noexcept:
    cdef int order = order_at(args, count, 1)
    cdef uint64_t bits = 0
    if keywords != NULL or order < 0 or not quick_bits(self.kind, args[0], &bits):
        return general[ENTER_SWAP](self, args, count, keywords)
    return new_value(self.kind, fs_word_exchange(word_address(self), self.kind, bits, order))


cdef PyObject* enter_add(
    _Atomic self, PyObject** args, Py_ssize_t count, PyObject* keywords,
) noexcept:
    cdef int order = order_at(args, count, 1)
    cdef uint64_t bits = 0
    if keywords != NULL or order < 0 or not quick_bits(self.kind, args[0], &bits):
        return general[ENTER_ADD](self, args, count, keywords)
    if self.kind == FS_I64:
        return _PyLong_FromLongLong(fs_i64_fetch_add_order(
            <fs_atomic_i64*>word_address(self), <int64_t>bits, order))
    return new_value(self.kind, fs_word_fetch_add(word_address(self), self.kind, bits, order))


cdef PyObject* enter_sub(
    _Atomic self, PyObject** args, Py_ssize_t count, PyObject* keywords,
) noexcept:
    cdef int order = order_at(args, count, 1)
    cdef uint64_t bits = 0
    if keywords != NULL or order < 0 or not quick_bits(self.kind, args[0], &bits):
        return general[ENTER_SUB](self, args, count, keywords)
    return new_value(self.kind, fs_word_fetch_sub(word_address(self), self.kind, bits, order))


cdef PyObject* enter_cas(
    _Atomic self, PyObject** args, Py_ssize_t count, PyObject* keywords,
) noexcept:
    cdef int order = order_at(args, count, 2)
    cdef uint64_t seen = 0, wanted = 0
    if (keywords != NULL or order < 0 or not quick_bits(self.kind, args[0], &seen)
            or not quick_bits(self.kind, args[1], &wanted)):
        return general[ENTER_CAS](self, args, count, keywords)
    if fs_word_cas(word_address(self), self.kind, &seen, wanted, order, FS_SEQ_CST):
        return Py_NewRef(Py_True)
    return Py_NewRef(Py_False)


# What compare_exchange() of a flag or a state answers is one of a few pairs.  To make and
# free a tuple is a quarter of the call, so these are kept for ever, and nobody counts them.

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


cdef PyObject* enter_cas_pair(
    _Atomic self, PyObject** args, Py_ssize_t count, PyObject* keywords,
) noexcept:
    cdef int order = order_at(args, count, 2)
    cdef uint64_t seen = 0, wanted = 0
    cdef bint done
    if (keywords != NULL or order < 0 or not quick_bits(self.kind, args[0], &seen)
            or not quick_bits(self.kind, args[1], &wanted)):
        return general[ENTER_CAS_PAIR](self, args, count, keywords)
    done = fs_word_cas(word_address(self), self.kind, &seen, wanted, order, FS_SEQ_CST)
    return new_pair(done, self.kind, seen)


cdef int new_entry(int which, str name, type base, entry_point way_in) except -1:
    """Put `way_in` before the method `name`, which keeps its name and signature."""
    cdef PyMethodDef* method = (<PyMethodDescrObject*>base.__dict__[name]).d_method
    if method.ml_flags != METH_FASTCALL | METH_KEYWORDS:
        raise SystemError("Cython has changed its calling convention")
    general[which] = <entry_point>method.ml_meth
    method.ml_meth = <void*>way_in
    return 0


new_entry(ENTER_LOAD, "load", _Atomic, enter_load)
new_entry(ENTER_STORE, "store", _Atomic, enter_store)
new_entry(ENTER_SWAP, "swap", _Atomic, enter_swap)
new_entry(ENTER_CAS, "compare_and_set", _Atomic, enter_cas)
new_entry(ENTER_CAS_PAIR, "compare_exchange", _Atomic, enter_cas_pair)
new_entry(ENTER_ADD, "fetch_add", _AtomicInt, enter_add)
new_entry(ENTER_SUB, "fetch_sub", _AtomicInt, enter_sub)


cdef int own_methods(type cls) except -1:
    """Give `cls` the methods of its bases as its own."""
    cdef dict own = <dict>(<PyTypeObject*>cls).tp_dict
    cdef type method_descriptor = type(_Atomic.load)
    for base in cls.__mro__:
        if base is cls or base is object:
            continue
        for name, method in base.__dict__.items():
            if type(method) is method_descriptor and name not in own:
                own[name] = PyDescr_NewMethod(cls, (<PyMethodDescrObject*>method).d_method)
    PyType_Modified(<PyTypeObject*>cls)
    return 0


cdef tuple TYPES = (
    AtomicBool, AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicIsize, AtomicU8, AtomicU16,
    AtomicU32, AtomicU64, AtomicUsize, AtomicF32, AtomicF64,
)
for cls in TYPES:
    own_methods(cls)
for cls in (_Atomic, _AtomicInt, _AtomicFloat):
    forbid_instances(cls)  # they have no kind
del cls
register_pinnable(Counter, *TYPES)
publish((Ordering, Counter, *TYPES))
