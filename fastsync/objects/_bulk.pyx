"""What AtomicArray does in bulk: operations on many items in one call.

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
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.math cimport NAN
from libc.stdint cimport (
    INT64_MAX, INT64_MIN, UINT64_MAX,
    int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t,
)
from libc.string cimport memcpy

from fastsync.objects._kinds cimport fold_float, kind_size
from fastsync.raw.c_atomic cimport fs_atomic_i64, fs_atomic_u64
from fastsync.raw.c_atomic_float cimport (
    f32_narrow, f32_overflows, f32_widen, f64_bits, f64_from_bits, fold_f64, fs_fold, FS_FOLD_ADD,
    FS_FOLD_MAX, FS_FOLD_MIN, FS_FOLD_SUB,
)
from fastsync.raw.c_atomic_order cimport (
    FS_F32, FS_F64, FS_I16, FS_I32, FS_I64, FS_I8, FS_SEQ_CST, FS_U16, FS_U32, FS_U64,
    fs_word_fetch_add, fs_word_fetch_and, fs_word_fetch_max, fs_word_fetch_min, fs_word_fetch_nand,
    fs_word_fetch_or, fs_word_fetch_sub, fs_word_fetch_xor,
)

cdef extern from "fastsync/atomic.h" nogil:
    int64_t fs_i64_load_relaxed(const fs_atomic_i64*) noexcept
    uint64_t fs_u64_load_relaxed(const fs_atomic_u64*) noexcept


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


cdef uint64_t bits_at(const char* p, int kind) noexcept nogil:
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
