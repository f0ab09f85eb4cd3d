"""Waiting for an atomic of any type to change, as C++20's wait and notify.

The operations on atomics are those of c_atomic_order.pxd and c_atomic_float.pxd.
"""
from libc.stdint cimport (
    int16_t, int32_t, int64_t, int8_t, uint16_t, uint32_t, uint64_t, uint8_t, uintptr_t,
)

from fastsync.raw.c_atomic cimport (
    fs_atomic_i64, fs_atomic_u32, fs_atomic_u64, fs_atomic_u8, fs_atomic_uptr,
)
from fastsync.raw.c_atomic_float cimport (
    f32_bits, f64_bits, fs_atomic_bool, fs_atomic_f32, fs_atomic_f64,
)
from fastsync.raw.c_atomic_order cimport (
    fs_atomic_i16, fs_atomic_i32, fs_atomic_i8, fs_atomic_ptr, fs_atomic_u16, FS_BOOL, FS_F32,
    FS_F64, FS_I16, FS_I32, FS_I64, FS_I8, FS_SEQ_CST, FS_U16, FS_U32, FS_U64, FS_U8,
)


# A wait returns FS_ACQUIRED (1) once the word differs from `expected`,
# FS_TIMEOUT (0) at the deadline (nanoseconds of time.monotonic()'s clock; 0: do
# not wait; FS_FOREVER), FS_ERROR (-1) when a signal handler raised (only with
# FS_SIGNALS).  A notify without a change does not end it.  Change the word
# first, then notify; any order of the change will do, because both sides go
# through the bucket lock of the word's address.

# A word of any type.  Its C name carries the API's series: see fs_key in parking.pxd.
ctypedef void* fs_word "fastsync_0_2_word"

cdef int word_wait(
    fs_word word, int kind, uint64_t expected, int order, int64_t deadline, int flags,
) noexcept nogil
cdef bint word_notify_one(fs_word word) noexcept nogil    # whether there was one
cdef size_t word_notify_all(fs_word word) noexcept nogil  # how many there were

cdef inline int fs_i8_wait(fs_atomic_i8* a, int8_t expected, int64_t deadline, int flags) noexcept nogil:
    return word_wait(a, FS_I8, <uint64_t><int64_t>expected, FS_SEQ_CST, deadline, flags)

cdef inline int fs_i16_wait(fs_atomic_i16* a, int16_t expected, int64_t deadline, int flags) noexcept nogil:
    return word_wait(a, FS_I16, <uint64_t><int64_t>expected, FS_SEQ_CST, deadline, flags)

cdef inline int fs_i32_wait(fs_atomic_i32* a, int32_t expected, int64_t deadline, int flags) noexcept nogil:
    return word_wait(a, FS_I32, <uint64_t><int64_t>expected, FS_SEQ_CST, deadline, flags)

cdef inline int fs_i64_wait(fs_atomic_i64* a, int64_t expected, int64_t deadline, int flags) noexcept nogil:
    return word_wait(a, FS_I64, <uint64_t>expected, FS_SEQ_CST, deadline, flags)

cdef inline int fs_u8_wait(fs_atomic_u8* a, uint8_t expected, int64_t deadline, int flags) noexcept nogil:
    return word_wait(a, FS_U8, expected, FS_SEQ_CST, deadline, flags)

cdef inline int fs_u16_wait(fs_atomic_u16* a, uint16_t expected, int64_t deadline, int flags) noexcept nogil:
    return word_wait(a, FS_U16, expected, FS_SEQ_CST, deadline, flags)

cdef inline int fs_u32_wait(fs_atomic_u32* a, uint32_t expected, int64_t deadline, int flags) noexcept nogil:
    return word_wait(a, FS_U32, expected, FS_SEQ_CST, deadline, flags)

cdef inline int fs_u64_wait(fs_atomic_u64* a, uint64_t expected, int64_t deadline, int flags) noexcept nogil:
    return word_wait(a, FS_U64, expected, FS_SEQ_CST, deadline, flags)

cdef inline int fs_ptr_wait(fs_atomic_ptr* a, void* expected, int64_t deadline, int flags) noexcept nogil:
    return word_wait(a, FS_U64 if sizeof(void*) == 8 else FS_U32, <uintptr_t>expected,
                     FS_SEQ_CST, deadline, flags)

cdef inline int fs_uptr_wait(fs_atomic_uptr* a, uintptr_t expected, int64_t deadline, int flags) noexcept nogil:
    return fs_ptr_wait(<fs_atomic_ptr*>a, <void*>expected, deadline, flags)

cdef inline int fs_bool_wait(fs_atomic_bool* a, bint expected, int64_t deadline, int flags) noexcept nogil:
    return word_wait(a, FS_BOOL, expected, FS_SEQ_CST, deadline, flags)

cdef inline int fs_f64_wait(fs_atomic_f64* a, double expected, int64_t deadline, int flags) noexcept nogil:
    return word_wait(a, FS_F64, f64_bits(expected), FS_SEQ_CST, deadline, flags)

cdef inline int fs_f32_wait(fs_atomic_f32* a, float expected, int64_t deadline, int flags) noexcept nogil:
    return word_wait(a, FS_F32, f32_bits(expected), FS_SEQ_CST, deadline, flags)
