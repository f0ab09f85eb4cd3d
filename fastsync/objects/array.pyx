"""AtomicArray: atomics over memory, one by one and in bulk.

An array's fields are written before another thread can see it and never again; the
memory stays where it is, our own until the array dies, a borrowed buffer because
it is kept exported.  So a single operation is a bounds check and the operation of
atomics.pyx.

Bulk operations run detached, over memory that others may change meanwhile:
indices and values are copied in blocks, each once, and what was checked is what
is used.

    few bins   a private table collects the call, one pass over the indices, and is
               merged with one atomic operation a bin.  A bad index or value throws
               the table away: nothing was applied
    many bins  one pass checks everything, a second checks again and applies with one
               atomic operation an index; only a change of the index memory between
               the two can stop it half-way (IndexError)

The table costs about a nanosecond an index and seven a bin, an atomic add five an
index and, on bins that two threads share, many times that.
"""
cimport cython
from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_FULL_RO, PyBUF_ND, PyBUF_STRIDES, PyBUF_WRITABLE,
    PyBuffer_IsContiguous, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer,
)
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree, PyMem_RawMalloc
from cpython.long cimport PyLong_FromLongLong
from cpython.number cimport PyNumber_AsSsize_t
from cpython.object cimport PyObject
from libc.math cimport NAN
from libc.stdint cimport (
    INT64_MAX, INT64_MIN, UINT64_MAX,
    int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t,
)
from libc.string cimport memcpy, memset, strlen

from fastsync.objects._pin import register_pinnable
from fastsync.objects.atomics cimport (
    _Exported, cas_word, check_shared, export_writable, failure_order, fold_float, get_writable,
    kind_size, load_order, notify_word, order_code, store_order, to_bits, to_python, update_word,
    wait_word,
)
from fastsync.raw.c_atomic cimport fs_atomic_i64, fs_atomic_u64
from fastsync.raw.c_atomic_float cimport (
    f32_from_bits, f32_narrow, f32_overflows, f32_widen, f64_bits, f64_from_bits, fold_f64,
    fs_fold, FS_FOLD_ADD, FS_FOLD_MAX, FS_FOLD_MIN, FS_FOLD_SUB,
)
from fastsync.raw.c_atomic_order cimport (
    FS_F32, FS_F64, FS_I16, FS_I32, FS_I64, FS_I8, FS_SEQ_CST, FS_U16, FS_U32, FS_U64, FS_U8,
    fs_word_cas, fs_word_exchange, fs_word_fetch_add, fs_word_fetch_and, fs_word_fetch_max,
    fs_word_fetch_min, fs_word_fetch_nand, fs_word_fetch_or, fs_word_fetch_sub, fs_word_fetch_xor,
    fs_word_load, fs_word_store,
)
from fastsync.raw.c_python cimport fs_small_int
from fastsync.objects._slots cimport publish

cdef extern from "Python.h":
    void PyObject_GC_UnTrack(PyObject*) noexcept
    int PyBuffer_ToContiguous(void*, Py_buffer*, Py_ssize_t, char) except -1

cdef extern from "fastsync/atomic.h" nogil:
    int64_t fs_i64_load_relaxed(const fs_atomic_i64*) noexcept
    uint64_t fs_u64_load_relaxed(const fs_atomic_u64*) noexcept

cdef enum operation:
    ADD
    SUB
    AND
    NAND
    OR
    XOR
    MAX
    MIN

cdef list OPERATION_NAMES = ["add", "sub", "and", "nand", "or", "xor", "max", "min"]


# -- item types ----------------------------------------------------------------

cdef dict KIND_OF_NAME = {
    name: kind for kind, name in enumerate(
        ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
}
KIND_OF_NAME["float32"] = FS_F32
KIND_OF_NAME["float64"] = FS_F64
cdef dict NAME_OF_KIND = {kind: name for name, kind in KIND_OF_NAME.items()}

# What the buffer protocol calls the kinds, in its order.
cdef const char** FORMATS = ["b", "h", "i", "q", "B", "H", "I", "Q", "?", "f", "d"]


cdef int kind_of_dtype(object dtype) except -1:
    """The kind of a numpy dtype or of a full name."""
    name = dtype
    if isinstance(dtype, type) and dtype.__module__ == "numpy":
        name = dtype.__name__
    elif hasattr(dtype, "isnative"):
        if not dtype.isnative:
            raise ValueError(f"{dtype!r} is not in native byte order")
        name = dtype.name
    if not isinstance(name, str):
        raise TypeError(f"dtype must be a numpy dtype or a name, not {type(dtype).__name__}")
    if name not in KIND_OF_NAME:
        raise ValueError(
            f"dtype {name!r} is not supported; the names are {', '.join(KIND_OF_NAME)}")
    return KIND_OF_NAME[name]


cdef bint is_little_endian() noexcept nogil:
    cdef uint16_t one = 1
    return (<uint8_t*>&one)[0] == 1


cdef int kind_of_format(const char* format, Py_ssize_t itemsize) except -1:
    """The kind of a buffer's items."""
    cdef const char* code = format
    cdef const char* plain = "B"
    cdef bint is_signed
    cdef int log2 = 0
    if code == NULL:
        code = plain
    if code[0] in b"@=" or code[0] == (c"<" if is_little_endian() else c">"):
        code += 1
    if strlen(code) == 1:
        if code[0] in b"bhilqnBHILQN":
            is_signed = code[0] >= c"a"
            while log2 < 3 and 1 << log2 < itemsize:
                log2 += 1
            if 1 << log2 == itemsize:
                return (FS_I8 if is_signed else FS_U8) + log2
        if code[0] == c"f" and itemsize == 4:
            return FS_F32
        if code[0] == c"d" and itemsize == 8:
            return FS_F64
    raise TypeError(f"buffer format {(<bytes>code).decode()!r} is not supported")


cdef inline bint is_float(int kind) noexcept nogil:
    return kind >= FS_F32


# -- bulk ------------------------------------------------------------------------

cdef enum:
    BLOCK = 512  # items copied at a time: two blocks and their raw bytes stay in the L1 cache
    NO_VALUES = -1     # one value for all: bulk.scalar
    READY_VALUES = -2  # already 64 bits of the array's kind

cdef enum bulk_error:
    FINE
    BAD_INDEX
    BAD_VALUE
    NO_MEMORY

cdef struct bulk:
    char* data            # the array
    Py_ssize_t bins
    int kind
    operation op
    const char* indices
    int index_kind
    Py_ssize_t count
    const char* values
    int value_kind        # or NO_VALUES, READY_VALUES
    uint64_t scalar
    int64_t lowest        # bounds of the kind, for integers from elsewhere
    int64_t highest
    int64_t at[BLOCK]     # the present block, checked
    uint64_t value[BLOCK]
    char raw[8 * BLOCK]
    int64_t offender      # a BAD_INDEX


# Memory whose type is only known at run time is read by memcpy, which any memory may be.

cdef inline int64_t signed_at(const char* p, int kind) noexcept nogil:
    """The integer at `p`, whose kind is signed or narrower than 64 bits."""
    cdef int8_t i8
    cdef int16_t i16
    cdef int32_t i32
    cdef int64_t i64
    cdef uint8_t u8
    cdef uint16_t u16
    cdef uint32_t u32
    if kind == FS_I64:
        memcpy(&i64, p, 8)
        return i64
    if kind == FS_I32:
        memcpy(&i32, p, 4)
        return i32
    if kind == FS_I16:
        memcpy(&i16, p, 2)
        return i16
    if kind == FS_I8:
        memcpy(&i8, p, 1)
        return i8
    if kind == FS_U32:
        memcpy(&u32, p, 4)
        return u32
    if kind == FS_U16:
        memcpy(&u16, p, 2)
        return u16
    memcpy(&u8, p, 1)
    return u8


cdef inline uint64_t bits_at(const char* p, int kind) noexcept nogil:
    """What is at `p`, as the 64 bits that fs_word_load gives."""
    cdef uint32_t narrow
    cdef uint64_t wide
    if kind == FS_U64 or kind == FS_F64:
        memcpy(&wide, p, 8)
        return wide
    if kind == FS_F32:
        memcpy(&narrow, p, 4)
        return narrow
    return <uint64_t>signed_at(p, kind)


cdef inline int64_t widened(const char* raw, int kind, Py_ssize_t i) noexcept nogil:
    """Integer i of `raw`; a uint64 that no int64 holds comes out as INT64_MAX."""
    cdef uint64_t wide
    if kind != FS_U64:
        return signed_at(raw + i * kind_size(kind), kind)
    wide = bits_at(raw + 8 * i, FS_U64)
    return INT64_MAX if wide > <uint64_t>INT64_MAX else <int64_t>wide


cdef bint read_indices(bulk* b, Py_ssize_t start, Py_ssize_t length) noexcept nogil:
    """Copy a block of indices into b.at, from 0 to bins - 1 each; False: BAD_INDEX."""
    cdef int size = kind_size(b.index_kind)
    cdef bint bad = False
    cdef int64_t x
    cdef Py_ssize_t i
    if b.index_kind == FS_I64:
        memcpy(b.at, b.indices + start * size, length * size)
    else:
        memcpy(b.raw, b.indices + start * size, length * size)
        for i in range(length):
            b.at[i] = widened(b.raw, b.index_kind, i)
    for i in range(length):
        x = b.at[i]
        x += (x >> 63) & b.bins  # negative: from the end
        b.at[i] = x
        bad |= <uint64_t>x >= <uint64_t>b.bins
    if not bad:
        return True
    for i in range(length):
        if <uint64_t>b.at[i] >= <uint64_t>b.bins:
            b.offender = b.at[i] - b.bins if b.at[i] < 0 else b.at[i]
            return False
    return False


cdef bint read_values(bulk* b, Py_ssize_t start, Py_ssize_t length) noexcept nogil:
    """Copy a block of values into b.value, as the array's kind; False: BAD_VALUE."""
    cdef int size = 8 if b.value_kind == READY_VALUES else kind_size(b.value_kind)
    memcpy(b.raw, b.values + start * size, length * size)
    if b.value_kind == READY_VALUES:
        memcpy(b.value, b.raw, length * size)
        return True
    if is_float(b.kind):
        return read_floats(b, length)
    return read_ints(b, length)


cdef bint read_ints(bulk* b, Py_ssize_t length) noexcept nogil:
    cdef bint bad = False
    cdef int64_t x
    cdef Py_ssize_t i
    if b.value_kind == FS_U64 and b.kind == FS_U64:
        memcpy(b.value, b.raw, length * 8)
        return True
    for i in range(length):
        x = widened(b.raw, b.value_kind, i)
        bad |= x < b.lowest or x > b.highest
        b.value[i] = <uint64_t>x
    if b.value_kind == FS_U64 and b.kind == FS_I64:
        # INT64_MAX may stand for more than it is: look again
        for i in range(length):
            bad |= bits_at(b.raw + 8 * i, FS_U64) > <uint64_t>INT64_MAX
    return not bad


cdef bint read_floats(bulk* b, Py_ssize_t length) noexcept nogil:
    cdef bint bad = False
    cdef double x
    cdef Py_ssize_t i
    if b.value_kind == b.kind:
        for i in range(length):
            b.value[i] = bits_at(b.raw + i * kind_size(b.kind), b.kind)
        return True
    for i in range(length):
        if b.value_kind == FS_F64:
            x = f64_from_bits(bits_at(b.raw + 8 * i, FS_F64))
        elif b.value_kind == FS_F32:
            x = f32_widen(<uint32_t>bits_at(b.raw + 4 * i, FS_F32))
        elif b.value_kind == FS_U64:
            x = <double>bits_at(b.raw + 8 * i, FS_U64)
        else:
            x = <double>widened(b.raw, b.value_kind, i)
        if b.kind == FS_F64:
            b.value[i] = f64_bits(x)
        else:
            bad |= f32_overflows(x)
            b.value[i] = f32_narrow(x)
    return not bad


cdef bulk_error read_block(bulk* b, Py_ssize_t start, Py_ssize_t length) noexcept nogil:
    if not read_indices(b, start, length):
        return BAD_INDEX
    if b.value_kind != NO_VALUES and not read_values(b, start, length):
        return BAD_VALUE
    return FINE


cdef inline fs_fold fold_of(operation op) noexcept nogil:
    if op == ADD:
        return FS_FOLD_ADD
    if op == SUB:
        return FS_FOLD_SUB
    return FS_FOLD_MAX if op == MAX else FS_FOLD_MIN


cdef uint64_t apply(void* word, int kind, operation op, uint64_t v, int order) noexcept nogil:
    """One atomic operation; the previous value."""
    if is_float(kind):
        return fold_float(word, kind, v, fold_of(op), order)
    if op == ADD:
        return fs_word_fetch_add(word, kind, v, order)
    if op == SUB:
        return fs_word_fetch_sub(word, kind, v, order)
    if op == AND:
        return fs_word_fetch_and(word, kind, v, order)
    if op == NAND:
        return fs_word_fetch_nand(word, kind, v, order)
    if op == OR:
        return fs_word_fetch_or(word, kind, v, order)
    if op == XOR:
        return fs_word_fetch_xor(word, kind, v, order)
    if op == MAX:
        return fs_word_fetch_max(word, kind, v, order)
    return fs_word_fetch_min(word, kind, v, order)


# The private table holds 64 bits a bin: integers sign- or zero-extended (a sum
# wraps at 64 bits and again when it is merged), floats as the bits of doubles.

cdef uint64_t identity(bulk* b) noexcept nogil:
    """What changes no value that it is merged into."""
    if is_float(b.kind):
        # -0.0 and not 0.0, which makes -0.0 positive; a number wins over NaN.
        return f64_bits(-0.0) if b.op == ADD else f64_bits(NAN)
    if b.op == ADD or b.op == OR:
        return 0
    if b.op == MAX:
        return <uint64_t>INT64_MIN if b.kind <= FS_I64 else 0
    return <uint64_t>INT64_MAX if b.kind <= FS_I64 else UINT64_MAX


cdef void collect_ints(bulk* b, uint64_t* table, Py_ssize_t length) noexcept nogil:
    cdef bint one = b.value_kind == NO_VALUES
    cdef uint64_t scalar = b.scalar
    cdef uint64_t v
    cdef Py_ssize_t i
    if b.op == ADD and one:
        for i in range(length):
            table[b.at[i]] += scalar
    elif b.op == ADD:
        for i in range(length):
            table[b.at[i]] += b.value[i]
    else:
        for i in range(length):
            v = scalar if one else b.value[i]
            table[b.at[i]] = merged_int(b, table[b.at[i]], v)


cdef inline uint64_t merged_int(bulk* b, uint64_t old, uint64_t v) noexcept nogil:
    cdef bint less
    if b.op == OR:
        return old | v
    less = <int64_t>old < <int64_t>v if b.kind <= FS_I64 else old < v
    if b.op == MAX:
        return v if less else old
    return old if less else v


cdef void collect_floats(bulk* b, uint64_t* table, Py_ssize_t length) noexcept nogil:
    cdef bint one = b.value_kind == NO_VALUES
    cdef fs_fold fold = fold_of(b.op)
    cdef uint64_t bits
    cdef double v
    cdef Py_ssize_t i
    for i in range(length):
        bits = b.scalar if one else b.value[i]
        v = f64_from_bits(bits) if b.kind == FS_F64 else f32_widen(<uint32_t>bits)
        table[b.at[i]] = f64_bits(fold_f64(f64_from_bits(table[b.at[i]]), v, fold))


cdef void merge_table(bulk* b, uint64_t* table) noexcept nogil:
    cdef uint64_t untouched = identity(b)
    cdef int size = kind_size(b.kind)
    cdef uint64_t v
    cdef Py_ssize_t i
    for i in range(b.bins):
        v = table[i]
        if v == untouched:
            continue
        if b.kind == FS_F32:
            v = f32_narrow(f64_from_bits(v))
        apply(b.data + i * size, b.kind, b.op, v, FS_SEQ_CST)


# The commonest calls, adding with 64-bit indices, need no copy: each index and value
# is read once, into a register.

cdef inline bint aligned(const void* p) noexcept nogil:
    return <uintptr_t>p % 8 == 0


cdef bint is_plain_add(bulk* b) noexcept nogil:
    if b.op != ADD or b.index_kind != FS_I64 or not aligned(b.indices):
        return False
    if b.value_kind == NO_VALUES:
        return not is_float(b.kind)
    return (b.value_kind == b.kind and (b.kind == FS_I64 or b.kind == FS_F64)
            and aligned(b.values))


cdef inline int64_t one_index(bulk* b, Py_ssize_t i, int64_t bins) noexcept nogil:
    # relaxed: read once, whatever others write there; order does not matter
    cdef int64_t x = fs_i64_load_relaxed(<const fs_atomic_i64*>b.indices + i)
    return x + ((x >> 63) & bins)  # negative: from the end


cdef inline uint64_t one_value(bulk* b, Py_ssize_t i) noexcept nogil:
    # relaxed: as one_index
    return fs_u64_load_relaxed(<const fs_atomic_u64*>b.values + i)


cdef bulk_error collect_plain_add(bulk* b, uint64_t* table) noexcept nogil:
    cdef uint64_t scalar = b.scalar
    cdef int64_t bins = b.bins
    cdef Py_ssize_t count = b.count
    cdef Py_ssize_t i
    cdef int64_t x = 0
    if b.value_kind == NO_VALUES:
        for i in range(count):
            x = one_index(b, i, bins)
            if <uint64_t>x >= <uint64_t>bins:
                break
            table[x] += scalar
        else:
            return FINE
    elif b.kind == FS_I64:
        for i in range(count):
            x = one_index(b, i, bins)
            if <uint64_t>x >= <uint64_t>bins:
                break
            table[x] += one_value(b, i)
        else:
            return FINE
    else:
        for i in range(count):
            x = one_index(b, i, bins)
            if <uint64_t>x >= <uint64_t>bins:
                break
            table[x] = f64_bits(f64_from_bits(table[x]) + f64_from_bits(one_value(b, i)))
        else:
            return FINE
    b.offender = x - bins if x < 0 else x
    return BAD_INDEX


cdef bulk_error collect_blocks(bulk* b, uint64_t* table) noexcept nogil:
    cdef bulk_error error
    cdef Py_ssize_t start = 0
    cdef Py_ssize_t length
    while start < b.count:
        length = min(<Py_ssize_t>BLOCK, b.count - start)
        error = read_block(b, start, length)
        if error != FINE:
            return error
        if is_float(b.kind):
            collect_floats(b, table, length)
        else:
            collect_ints(b, table, length)
        start += length
    return FINE


cdef bulk_error run_collected(bulk* b) noexcept nogil:
    cdef uint64_t* table = <uint64_t*>PyMem_RawCalloc(b.bins, 8)
    cdef uint64_t first = identity(b)
    cdef bulk_error error
    cdef Py_ssize_t i
    if table == NULL:
        return NO_MEMORY
    if first != 0:
        for i in range(b.bins):
            table[i] = first
    error = collect_plain_add(b, table) if is_plain_add(b) else collect_blocks(b, table)
    if error == FINE:
        merge_table(b, table)
    PyMem_RawFree(table)
    return error


cdef bulk_error run_direct(bulk* b) noexcept nogil:
    cdef int size = kind_size(b.kind)
    cdef bulk_error error
    cdef Py_ssize_t start, length, i
    cdef int applying
    cdef uint64_t v = b.scalar
    for applying in range(2):
        start = 0
        while start < b.count:
            length = min(<Py_ssize_t>BLOCK, b.count - start)
            error = read_block(b, start, length)
            if error != FINE:
                return error
            if applying:
                for i in range(length):
                    if b.value_kind != NO_VALUES:
                        v = b.value[i]
                    apply(b.data + b.at[i] * size, b.kind, b.op, v, FS_SEQ_CST)
            start += length
    return FINE


cdef bulk_error run(bulk* b) noexcept nogil:
    # A bin costs the table about seven times what an index saves: break-even near 1:1.
    if b.bins <= b.count // 2:
        return run_collected(b)
    return run_direct(b)


# -- arguments of bulk operations --------------------------------------------------

cdef class _Items:
    """Indices or values as contiguous memory: a buffer's own, or a copy."""

    cdef Py_buffer buffer
    cdef void* copy
    cdef const char* data
    cdef Py_ssize_t count
    cdef int kind
    cdef tuple shape

    def __dealloc__(self):
        PyMem_RawFree(self.copy)
        PyBuffer_Release(&self.buffer)

    cdef int allocate(self, Py_ssize_t nbytes) except -1:
        self.copy = PyMem_RawMalloc(nbytes or 1)
        if self.copy == NULL:
            raise MemoryError
        self.data = <const char*>self.copy
        return 0


cdef _Items items_of_buffer(object source):
    cdef _Items items = _Items()
    cdef Py_buffer* buffer = &items.buffer
    cdef int i
    PyObject_GetBuffer(source, buffer, PyBUF_FULL_RO)
    items.kind = kind_of_format(buffer.format, buffer.itemsize)
    items.count = buffer.len // buffer.itemsize
    shape = []
    for i in range(buffer.ndim):
        shape.append(buffer.shape[i])
    items.shape = tuple(shape)
    items.data = <const char*>buffer.buf
    if not PyBuffer_IsContiguous(buffer, c"C"):
        items.allocate(buffer.len)
        PyBuffer_ToContiguous(items.copy, buffer, buffer.len, c"C")
    return items


cdef _Items indices_of(object source):
    cdef _Items items
    cdef int64_t* out
    if PyObject_CheckBuffer(source):
        items = items_of_buffer(source)
        if is_float(items.kind):
            raise TypeError("indices must be integers")
        return items
    source = tuple(source)  # a list could change while the items are converted
    items = _Items()
    items.allocate(8 * len(source))
    items.kind = FS_I64
    items.count = len(source)
    items.shape = (items.count,)
    out = <int64_t*>items.copy
    for i, index in enumerate(source):
        out[i] = PyNumber_AsSsize_t(index, IndexError)
    return items


cdef bint is_scalar(object values):
    if isinstance(values, (int, float)):
        return True
    if PyObject_CheckBuffer(values):
        return memoryview(values).ndim == 0  # numpy's numbers are buffers too
    return not hasattr(values, "__iter__")


cdef _Items values_of(int kind, object source):
    cdef _Items items
    cdef uint64_t* out
    if PyObject_CheckBuffer(source):
        items = items_of_buffer(source)
        if is_float(items.kind) and not is_float(kind):
            raise TypeError(f"floats do not go into an array of {NAME_OF_KIND[kind]}")
        return items
    source = tuple(source)  # a list could change while the items are converted
    items = _Items()
    items.allocate(8 * len(source))
    items.kind = READY_VALUES
    items.count = len(source)
    items.shape = (items.count,)
    out = <uint64_t*>items.copy
    for i, value in enumerate(source):
        to_bits(kind, value, &out[i])
    return items


cdef inline int64_t lowest_of(int kind) noexcept:
    return -(<int64_t>1 << (8 * kind_size(kind) - 1)) if kind < FS_I64 else (
        INT64_MIN if kind == FS_I64 else 0)


cdef inline int64_t highest_of(int kind) noexcept:
    # Of the 64-bit floats too, whose range nobody asks for: a shift by 64 means nothing.
    if kind_size(kind) == 8:
        return INT64_MAX
    return (<int64_t>1 << (8 * kind_size(kind) - (1 if kind < FS_U8 else 0))) - 1


cdef int operate_at(AtomicArray array, operation op, object indices, object values) except -1:
    """Check everything, then apply everything, detached in between."""
    cdef bulk b
    cdef bulk_error error
    cdef _Items at, items
    if op == OR and is_float(array.kind):
        raise TypeError(f"{NAME_OF_KIND[array.kind]} has no or")
    at = indices_of(indices)
    b.value_kind = NO_VALUES
    b.scalar = 0
    b.values = NULL
    if is_scalar(values):
        to_bits(array.kind, values, &b.scalar)
    else:
        items = values_of(array.kind, values)
        if items.shape != at.shape:
            raise ValueError(f"values of shape {items.shape} for indices of shape {at.shape}")
        b.values = items.data
        b.value_kind = items.kind
    b.data, b.bins, b.kind, b.op = array.data, array.count, array.kind, op
    b.indices, b.index_kind, b.count = at.data, at.kind, at.count
    b.lowest, b.highest = lowest_of(array.kind), highest_of(array.kind)
    with nogil:
        error = run(&b)
    if error == BAD_INDEX:
        raise IndexError(f"index {b.offender} is out of range for {b.bins} items")
    if error == BAD_VALUE:
        raise OverflowError(f"a value does not fit {NAME_OF_KIND[array.kind]}")
    if error == NO_MEMORY:
        raise MemoryError
    return 0


# -- the array -----------------------------------------------------------------------

cdef inline int bits_of(int kind, object value, uint64_t* bits) except -1:
    """to_bits, without a call for a small int."""
    cdef int64_t number
    if (not is_float(kind) and fs_small_int(<PyObject*>value, &number)
            and lowest_of(kind) <= number <= highest_of(kind)):
        bits[0] = <uint64_t>number
        return 0
    return to_bits(kind, value, bits)


cdef inline object value_of(int kind, uint64_t bits):
    """to_python, without a call into the other module for a signed integer."""
    return PyLong_FromLongLong(<int64_t>bits) if kind <= FS_I64 else to_python(kind, bits)


cdef void* item(AtomicArray self, object index) except NULL:
    cdef int64_t small
    cdef Py_ssize_t i
    if fs_small_int(<PyObject*>index, &small):
        i = <Py_ssize_t>small
    else:
        i = PyNumber_AsSsize_t(index, IndexError)
    if i < 0:
        i += self.count
    if i < 0 or i >= self.count:
        raise IndexError(f"the index is out of range for {self.count} items")
    return self.data + i * self.size


cdef object fetch(AtomicArray self, object index, object value, object ordering, operation op):
    cdef void* word = item(self, index)
    cdef int order = order_code(ordering)
    cdef uint64_t bits
    if is_float(self.kind) and not (op == ADD or op == SUB or op == MAX or op == MIN):
        raise TypeError(f"{NAME_OF_KIND[self.kind]} has no {OPERATION_NAMES[op]}")
    bits_of(self.kind, value, &bits)
    return value_of(self.kind, apply(word, self.kind, op, bits, order))


# In place of a dtype: the memory will be a buffer's.
cdef object BORROWED = object()


@cython.final
@cython.no_gc_clear  # see _Exported
cdef class AtomicArray:
    """AtomicArray(dtype, n)
--

    Atomic numbers in one block of memory, its own or another object's.

    `dtype` is a numpy dtype or one of the names int8 to int64, uint8 to uint64, float32 and
    float64. All items start at 0. The operations of the atomic types take an index first;
    negative ones count from the end. The array exports its memory: numpy.asarray(array) is a
    view, whose own reads and writes are not atomic. `array[i]` loads; there is no assignment to
    `array[i]`, because `array[i] += 1` would lose updates: use fetch_add, or store.
    """

    # Here and not in __init__, which could be called twice, and by two threads.
    def __cinit__(self, dtype, n):
        if dtype is BORROWED:
            return  # from_buffer goes on
        cdef int kind = kind_of_dtype(dtype)
        cdef Py_ssize_t count = PyNumber_AsSsize_t(n, OverflowError)
        if count < 0:
            raise ValueError("n must not be negative")
        if count > <Py_ssize_t>(<size_t>-1 >> 1) // 8 - 64:
            raise MemoryError
        # On a cache line of its own.
        self.memory = PyMem_RawCalloc(count * kind_size(kind) + 64, 1)
        if self.memory == NULL:
            raise MemoryError
        self.data = <char*>((<uintptr_t>self.memory + 63) & ~<uintptr_t>63)
        self.kind = kind
        self.size = kind_size(kind)
        self.count = count
        PyObject_GC_UnTrack(<PyObject*>self)  # it refers to nothing

    def __dealloc__(self):
        PyMem_RawFree(self.memory)

    @staticmethod
    def from_buffer(buffer, dtype=None, shared=False):
        """Return an array over the memory of `buffer`, any writable contiguous buffer.

        None for `dtype` takes the buffer's own format, anything else reads its bytes as that.
        The buffer stays exported as long as the array lives. `shared=True` makes `wait` and
        `notify_*` work between processes (all of them must say so); NotImplementedError where
        the platform cannot. ValueError when the length is no multiple of the item, or the
        memory is not aligned to it; BufferError when the buffer is read-only; TypeError when
        its format tells of Python objects.
        """
        cdef AtomicArray self
        cdef _Exported exported
        cdef Py_buffer* view
        cdef int kind, size
        check_shared(shared)
        exported = export_writable(buffer)
        view = &exported.buffer
        if dtype is None:
            kind = kind_of_format(view.format, view.itemsize)
        else:
            kind = kind_of_dtype(dtype)
        size = kind_size(kind)
        if view.len % size:
            raise ValueError(f"{view.len} bytes are no multiple of {size}")
        if view.len != 0 and <uintptr_t>view.buf % <uintptr_t>size:
            raise ValueError(f"the buffer is not aligned to {size} bytes")
        self = AtomicArray.__new__(AtomicArray, BORROWED, 0)
        # No other thread can have seen it yet, and what follows runs no Python.
        self.exported = exported
        self.data = <char*>view.buf
        self.kind = kind
        self.size = size
        self.shared = shared
        self.count = view.len // size
        return self

    @property
    def dtype(self):
        """The name of the item type, such as 'int64'."""
        return NAME_OF_KIND[self.kind]

    @property
    def itemsize(self):
        """Bytes of an item."""
        return self.size

    @property
    def nbytes(self):
        """Bytes of all items."""
        return self.count * self.size

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return value_of(self.kind, fs_word_load(item(self, index), self.kind, FS_SEQ_CST))

    def load(self, index, ordering=...):
        """Return the item. ValueError for Release and AcqRel."""
        return value_of(
            self.kind, fs_word_load(item(self, index), self.kind, load_order(ordering)))

    def store(self, index, value, ordering=...):
        """Set the item. ValueError for Acquire and AcqRel, OverflowError if it does not fit."""
        cdef void* word = item(self, index)
        cdef int order = store_order(ordering)
        cdef uint64_t bits
        bits_of(self.kind, value, &bits)
        fs_word_store(word, self.kind, bits, order)

    def swap(self, index, value, ordering=...):
        """Set the item and return the previous one."""
        cdef void* word = item(self, index)
        cdef int order = order_code(ordering)
        cdef uint64_t bits
        bits_of(self.kind, value, &bits)
        return value_of(self.kind, fs_word_exchange(word, self.kind, bits, order))

    def compare_exchange(self, index, current, new, success=..., failure=...):
        """Set `new` if the item is `current`; return (succeeded, previous)."""
        return cas_word(item(self, index), self.kind, current, new, success, failure, False)

    def compare_exchange_weak(self, index, current, new, success=..., failure=...):
        """As compare_exchange, but it may fail for no reason: for loops."""
        return cas_word(item(self, index), self.kind, current, new, success, failure, True)

    def compare_and_set(self, index, current, new, success=..., failure=...):
        """Set `new` if the item is `current`; return whether it was."""
        cdef void* word = item(self, index)
        cdef int ok = order_code(success)
        cdef int fail = failure_order(failure)
        cdef uint64_t seen, wanted
        bits_of(self.kind, current, &seen)
        bits_of(self.kind, new, &wanted)
        return fs_word_cas(word, self.kind, &seen, wanted, ok, fail)

    def fetch_add(self, index, value, ordering=...):
        """Add `value`, wrapping at the width; return the previous item."""
        return fetch(self, index, value, ordering, ADD)

    def fetch_sub(self, index, value, ordering=...):
        """Subtract `value`, wrapping at the width; return the previous item."""
        return fetch(self, index, value, ordering, SUB)

    def fetch_and(self, index, value, ordering=...):
        """Keep the bits that `value` has too; return the previous item."""
        return fetch(self, index, value, ordering, AND)

    def fetch_nand(self, index, value, ordering=...):
        """Set the complement of the bits in common with `value`; return the previous item."""
        return fetch(self, index, value, ordering, NAND)

    def fetch_or(self, index, value, ordering=...):
        """Set the bits of `value` too; return the previous item."""
        return fetch(self, index, value, ordering, OR)

    def fetch_xor(self, index, value, ordering=...):
        """Flip the bits of `value`; return the previous item."""
        return fetch(self, index, value, ordering, XOR)

    def fetch_max(self, index, value, ordering=...):
        """Set `value` if it is larger; return the previous item."""
        return fetch(self, index, value, ordering, MAX)

    def fetch_min(self, index, value, ordering=...):
        """Set `value` if it is smaller; return the previous item."""
        return fetch(self, index, value, ordering, MIN)

    def fetch_update(self, index, f, success=..., failure=...):
        """Set f(item), trying again while others interfere; return (succeeded, previous).

        None from `f` gives up. `f` may run several times, raise, or use this array.
        """
        return update_word(item(self, index), self.kind, f, success, failure, True)

    def try_update(self, index, f, success=..., failure=...):
        """The same as fetch_update."""
        return update_word(item(self, index), self.kind, f, success, failure, True)

    def update(self, index, f, success=..., failure=...):
        """Set f(item), trying again while others interfere; return the previous item."""
        return update_word(item(self, index), self.kind, f, success, failure, False)[1]

    def wait(self, index, expected, timeout=None, ordering=...):
        """Block while the item is `expected`; return whether it differs now. As AtomicI64.wait."""
        return wait_word(
            item(self, index), self.kind, self.shared, expected, timeout, ordering)

    def notify_one(self, index):
        """Wake one thread that waits on the item, if there is one."""
        notify_word(item(self, index), self.kind, self.shared, False)

    def notify_all(self, index):
        """Wake all threads that wait on the item."""
        notify_word(item(self, index), self.kind, self.shared, True)

    def add_at(self, indices, values):
        """Add values[k] to item indices[k], for all k: numpy.add.at, but atomic.

        `indices` is an array or sequence of integers, `values` a number or as many as indices.
        Every index and value is checked before anything is applied: IndexError, OverflowError,
        and TypeError for floats into integers. Each item is added to atomically, not all items
        at once. Runs with the thread state detached.
        """
        operate_at(self, ADD, indices, values)

    def max_at(self, indices, values):
        """Set item indices[k] to values[k] where that is larger, for all k. As add_at."""
        operate_at(self, MAX, indices, values)

    def min_at(self, indices, values):
        """Set item indices[k] to values[k] where that is smaller, for all k. As add_at."""
        operate_at(self, MIN, indices, values)

    def or_at(self, indices, values):
        """Set the bits of values[k] in item indices[k], for all k. As add_at; integers only."""
        operate_at(self, OR, indices, values)

    def load_all(self, out=None):
        """Return all items as a list, each loaded atomically; not a snapshot of one moment.

        With `out`, a writable contiguous buffer of the same number of bytes, they go there and
        `out` is returned.
        """
        cdef Py_buffer view
        cdef void* copy
        cdef Py_ssize_t i
        if out is None:
            copy = PyMem_RawMalloc(self.count * self.size + 1)
            if copy == NULL:
                raise MemoryError
            # No comprehension: Cython's drops an item twice when the list cannot grow.
            values = []
            try:
                with nogil:
                    load_into(self, <char*>copy)
                for i in range(self.count):
                    values.append(raw_item(<char*>copy, self.kind, self.size, i))
                return values
            finally:
                PyMem_RawFree(copy)
        get_writable(out, &view)
        try:
            if view.len != self.count * self.size:
                raise ValueError(f"{self.count * self.size} bytes do not fit {view.len}")
            with nogil:
                load_into(self, <char*>view.buf)
        finally:
            PyBuffer_Release(&view)
        return out

    def fill(self, value):
        """Store `value` in every item, one after the other."""
        cdef uint64_t bits
        cdef Py_ssize_t i
        bits_of(self.kind, value, &bits)
        with nogil:
            for i in range(self.count):
                fs_word_store(self.data + i * self.size, self.kind, bits, FS_SEQ_CST)

    def __getbuffer__(self, Py_buffer* view, int flags):
        if self.size == 0:
            raise BufferError("this AtomicArray was not initialized")
        view.obj = self
        view.buf = self.data
        view.len = self.count * self.size
        view.readonly = 0
        view.itemsize = self.size
        view.format = <char*>FORMATS[self.kind] if flags & PyBUF_FORMAT else NULL
        view.ndim = 1
        view.shape = &self.count if flags & PyBUF_ND else NULL
        view.strides = &view.itemsize if (flags & PyBUF_STRIDES) == PyBUF_STRIDES else NULL
        view.suboffsets = NULL
        view.internal = NULL

    def __sizeof__(self):
        own = 0 if self.memory == NULL else self.count * self.size + 64
        return object.__sizeof__(self) + own

    def __repr__(self):
        return f"AtomicArray({NAME_OF_KIND[self.kind]!r}, {self.count})"

    def __reduce_ex__(self, protocol):
        raise TypeError("cannot pickle or copy 'AtomicArray' object")


cdef void load_into(AtomicArray self, char* out) noexcept nogil:
    cdef uint64_t bits
    cdef Py_ssize_t i
    cdef bint little = is_little_endian()
    for i in range(self.count):
        bits = fs_word_load(self.data + i * self.size, self.kind, FS_SEQ_CST)
        # The low bytes are the item.
        memcpy(out + i * self.size, <char*>&bits + (0 if little else 8 - self.size), self.size)


cdef object raw_item(const char* data, int kind, int size, Py_ssize_t i):
    return to_python(kind, bits_at(data + i * size, kind))


register_pinnable(AtomicArray)
publish((AtomicArray,))
