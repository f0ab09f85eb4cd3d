"""Atomics: Rust's std::sync::atomic, C++20's wait and notify, Java's LongAdder.

One object is one word:

    owned      flags 0            word holds the value, in its low bytes
    borrowed   FS_BORROWED [| FS_PROCESS_SHARED]
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
from libc.stdint cimport int64_t, uint64_t, uintptr_t
from libc.string cimport memcpy
from cpython.object cimport PyObject

from fastsync.objects._kinds cimport (
    _Exported, cas_word, check_shared, export_writable, fold_float, kind_size, new_pair, new_value,
    notify_word, quick_bits, to_bits, to_python, update_word, wait_word,
)
from fastsync.objects._slots cimport (
    forbid_instances, fs_method, own_methods, publish, shorten,
)
from fastsync.objects.ordering cimport (
    Ordering, failure_order, load_order, order_code, store_order,
)
from fastsync.raw cimport c_version  # so that versions are compared
from fastsync.raw.c_atomic cimport fs_atomic_i64
from fastsync.raw.c_atomic_float cimport (
    fs_atomic_bool, fs_bool_fetch_and_order, fs_bool_fetch_nand_order, fs_bool_fetch_not_order,
    fs_bool_fetch_or_order, fs_bool_fetch_xor_order, FS_FOLD_ADD, FS_FOLD_MAX, FS_FOLD_MIN,
    FS_FOLD_SUB,
)
from fastsync.raw.c_atomic_order cimport (
    FS_ACQ_REL, FS_ACQUIRE, FS_BOOL, FS_F32, FS_F64, FS_I16, FS_I32, FS_I64, fs_i64_fetch_add,
    fs_i64_fetch_add_order, fs_i64_fetch_sub, fs_i64_load_order, FS_I8, FS_RELAXED, FS_RELEASE,
    FS_SEQ_CST, FS_U16, FS_U32, FS_U64, FS_U8, fs_word_cas, fs_word_exchange, fs_word_fetch_add,
    fs_word_fetch_and, fs_word_fetch_max, fs_word_fetch_min, fs_word_fetch_nand, fs_word_fetch_or,
    fs_word_fetch_sub, fs_word_fetch_xor, fs_word_load, fs_word_store,
)
from fastsync.raw.c_python cimport Py_NewRef

from fastsync.objects._pin import register_pinnable


cdef extern from "Python.h":
    ctypedef struct PyTypeObject
    PyTypeObject* Py_TYPE(PyObject*) noexcept
    void PyObject_GC_Track(PyObject*) noexcept
    void PyObject_GC_UnTrack(PyObject*) noexcept
    PyObject* Py_None
    PyObject* Py_True
    PyObject* Py_False
    PyObject* _PyLong_FromLongLong "PyLong_FromLongLong" (int64_t) noexcept


# -- memory that others own ---------------------------------------------------

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
    self.flags = FS_BORROWED | (FS_PROCESS_SHARED if shared else 0)
    PyObject_GC_Track(<PyObject*>self)
    return 0


# -- types -------------------------------------------------------------------

cdef inline int initialize(_Atomic self, int kind, object value) except -1:
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
        return wait_word(word_address(self), self.kind, self.flags & FS_PROCESS_SHARED,
                         expected, timeout, ordering)

    def notify_one(self):
        """Wake one thread that waits on this atomic, if there is one."""
        notify_word(word_address(self), self.kind, self.flags & FS_PROCESS_SHARED, False)

    def notify_all(self):
        """Wake all threads that wait on this atomic."""
        notify_word(word_address(self), self.kind, self.flags & FS_PROCESS_SHARED, True)

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
        initialize(self, FS_BOOL, value)

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
        initialize(self, FS_I8, value)


@cython.final
cdef class AtomicU8(_AtomicInt):
    """An atomic unsigned integer of 8 bits, as std::sync::atomic::AtomicU8."""

    def __cinit__(self, value=0):
        initialize(self, FS_U8, value)


@cython.final
cdef class AtomicI16(_AtomicInt):
    """An atomic signed integer of 16 bits, as std::sync::atomic::AtomicI16."""

    def __cinit__(self, value=0):
        initialize(self, FS_I16, value)


@cython.final
cdef class AtomicU16(_AtomicInt):
    """An atomic unsigned integer of 16 bits, as std::sync::atomic::AtomicU16."""

    def __cinit__(self, value=0):
        initialize(self, FS_U16, value)


@cython.final
cdef class AtomicI32(_AtomicInt):
    """An atomic signed integer of 32 bits, as std::sync::atomic::AtomicI32."""

    def __cinit__(self, value=0):
        initialize(self, FS_I32, value)


@cython.final
cdef class AtomicU32(_AtomicInt):
    """An atomic unsigned integer of 32 bits, as std::sync::atomic::AtomicU32."""

    def __cinit__(self, value=0):
        initialize(self, FS_U32, value)


@cython.final
cdef class AtomicI64(_AtomicInt):
    """An atomic signed integer of 64 bits, as std::sync::atomic::AtomicI64."""

    def __cinit__(self, value=0):
        initialize(self, FS_I64, value)


@cython.final
cdef class AtomicU64(_AtomicInt):
    """An atomic unsigned integer of 64 bits, as std::sync::atomic::AtomicU64."""

    def __cinit__(self, value=0):
        initialize(self, FS_U64, value)


@cython.final
cdef class AtomicIsize(_AtomicInt):
    """An atomic signed integer as wide as a pointer, as std::sync::atomic::AtomicIsize."""

    def __cinit__(self, value=0):
        initialize(self, FS_I64 if sizeof(void*) == 8 else FS_I32, value)


@cython.final
cdef class AtomicUsize(_AtomicInt):
    """An atomic unsigned integer as wide as a pointer, as std::sync::atomic::AtomicUsize."""

    def __cinit__(self, value=0):
        initialize(self, FS_U64 if sizeof(void*) == 8 else FS_U32, value)


@cython.final
cdef class AtomicF64(_AtomicFloat):
    """An atomic float of 64 bits: Python's own."""

    def __cinit__(self, value=0.0):
        initialize(self, FS_F64, value)


@cython.final
cdef class AtomicF32(_AtomicFloat):
    """An atomic float of 32 bits. Values are rounded to it; OverflowError if too large."""

    def __cinit__(self, value=0.0):
        initialize(self, FS_F32, value)


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
    general[which] = <entry_point>shorten(base, name, <fs_method>way_in)
    return 0


new_entry(ENTER_LOAD, "load", _Atomic, enter_load)
new_entry(ENTER_STORE, "store", _Atomic, enter_store)
new_entry(ENTER_SWAP, "swap", _Atomic, enter_swap)
new_entry(ENTER_CAS, "compare_and_set", _Atomic, enter_cas)
new_entry(ENTER_CAS_PAIR, "compare_exchange", _Atomic, enter_cas_pair)
new_entry(ENTER_ADD, "fetch_add", _AtomicInt, enter_add)
new_entry(ENTER_SUB, "fetch_sub", _AtomicInt, enter_sub)


cdef tuple TYPES = (
    AtomicBool, AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicIsize, AtomicU8, AtomicU16,
    AtomicU32, AtomicU64, AtomicUsize, AtomicF32, AtomicF64,
)
for cls in TYPES:
    own_methods(cls)
for cls in (_Atomic, _AtomicInt, _AtomicFloat):
    forbid_instances(cls)  # they have no kind
del cls
register_pinnable(*TYPES)
publish(TYPES)
