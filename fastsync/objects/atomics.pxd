"""Atomics for Cython: words to embed, and the words inside Python's atomics.

    from fastsync.objects.atomics cimport fs_atomic_i64, fs_i64_fetch_add, fs_i64_wait, word_notify_all

The operations are those of c_atomic_order.pxd and c_atomic_float.pxd, which this
module passes on.  Everything here is ``noexcept nogil`` and inline, but for
the waits: their slow path is in the one parking table.
"""
from libc.stdint cimport (
    int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t,
)
from libc.string cimport memcpy
cimport cython

from fastsync.raw.c_atomic cimport *
from fastsync.raw.c_atomic_float cimport *
from fastsync.raw.c_atomic_order cimport *
from fastsync.raw.c_wait cimport FS_FOREVER
from fastsync.raw.parking cimport (
    FS_ACQUIRED, FS_ERROR, FS_PLAIN, FS_SIGNALS, FS_TIMEOUT, deadline_after,
)
from fastsync.raw cimport c_version  # so that versions are compared


# -- wait and notify ---------------------------------------------------------
#
# A wait returns FS_ACQUIRED (1) once the word differs from `expected`,
# FS_TIMEOUT (0) at the deadline (nanoseconds of time.monotonic()'s clock; 0: do
# not wait; FS_FOREVER), FS_ERROR (-1) when a signal handler raised (only with
# FS_SIGNALS).  A notify without a change does not end it.  Change the word
# first, then notify; any order of the change will do, because both sides go
# through the bucket lock of the word's address.

# A word of any type.  Its C name carries the API's series: see fs_key in parking.pxd.
ctypedef void* fs_word "fastsync_0_1_word"

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


# -- Python's types ----------------------------------------------------------

@cython.final
cdef class Ordering:
    cdef int code  # FS_RELAXED ... FS_SEQ_CST
    cdef str label

cdef enum:  # _Atomic.flags
    FS_BORROWED = 1  # the value is in the buffer that `exported` keeps, and `word` is its address
    FS_SHARED = 2    # other processes wait on it too

@cython.final
cdef class _Exported:
    cdef object source
    cdef Py_buffer buffer

cdef class _Atomic:
    cdef fs_atomic_u64 word
    cdef _Exported exported  # or None
    cdef uint8_t kind
    cdef uint8_t flags

cdef class _AtomicInt(_Atomic):
    pass

cdef class _AtomicFloat(_Atomic):
    pass

@cython.final
cdef class AtomicBool(_Atomic):
    pass

@cython.final
cdef class AtomicI8(_AtomicInt):
    pass

@cython.final
cdef class AtomicI16(_AtomicInt):
    pass

@cython.final
cdef class AtomicI32(_AtomicInt):
    pass

@cython.final
cdef class AtomicI64(_AtomicInt):
    pass

@cython.final
cdef class AtomicIsize(_AtomicInt):
    pass

@cython.final
cdef class AtomicU8(_AtomicInt):
    pass

@cython.final
cdef class AtomicU16(_AtomicInt):
    pass

@cython.final
cdef class AtomicU32(_AtomicInt):
    pass

@cython.final
cdef class AtomicU64(_AtomicInt):
    pass

@cython.final
cdef class AtomicUsize(_AtomicInt):
    pass

@cython.final
cdef class AtomicF32(_AtomicFloat):
    pass

@cython.final
cdef class AtomicF64(_AtomicFloat):
    pass

@cython.final
cdef class Counter:
    cdef char* cells   # the first cell, at the start of a cache line
    cdef void* memory  # what was allocated for them

# Where the word is.  It stays there as long as the object lives; the caller
# keeps a reference to the object, the function needs none of the interpreter.
cdef inline void* word_address(_Atomic a) noexcept nogil:
    cdef void* address
    if a.flags & FS_BORROWED:
        memcpy(&address, &a.word, sizeof(address))
        return address
    return &a.word

cdef inline fs_atomic_i8* i8_word(AtomicI8 a) noexcept nogil:
    if a is None:
        return NULL
    return <fs_atomic_i8*>word_address(a)

cdef inline fs_atomic_i16* i16_word(AtomicI16 a) noexcept nogil:
    if a is None:
        return NULL
    return <fs_atomic_i16*>word_address(a)

cdef inline fs_atomic_i32* i32_word(AtomicI32 a) noexcept nogil:
    if a is None:
        return NULL
    return <fs_atomic_i32*>word_address(a)

cdef inline fs_atomic_i64* i64_word(AtomicI64 a) noexcept nogil:
    if a is None:
        return NULL
    return <fs_atomic_i64*>word_address(a)

cdef inline fs_atomic_u8* u8_word(AtomicU8 a) noexcept nogil:
    if a is None:
        return NULL
    return <fs_atomic_u8*>word_address(a)

cdef inline fs_atomic_u16* u16_word(AtomicU16 a) noexcept nogil:
    if a is None:
        return NULL
    return <fs_atomic_u16*>word_address(a)

cdef inline fs_atomic_u32* u32_word(AtomicU32 a) noexcept nogil:
    if a is None:
        return NULL
    return <fs_atomic_u32*>word_address(a)

cdef inline fs_atomic_u64* u64_word(AtomicU64 a) noexcept nogil:
    if a is None:
        return NULL
    return <fs_atomic_u64*>word_address(a)

cdef inline fs_atomic_bool* bool_word(AtomicBool a) noexcept nogil:
    if a is None:
        return NULL
    return <fs_atomic_bool*>word_address(a)

cdef inline fs_atomic_f32* f32_word(AtomicF32 a) noexcept nogil:
    if a is None:
        return NULL
    return <fs_atomic_f32*>word_address(a)

cdef inline fs_atomic_f64* f64_word(AtomicF64 a) noexcept nogil:
    if a is None:
        return NULL
    return <fs_atomic_f64*>word_address(a)


# -- between the modules of this package; not for others ---------------------

cdef int order_code(object ordering) except -1
cdef int load_order(object ordering) except -1
cdef int store_order(object ordering) except -1
cdef int failure_order(object ordering) except -1
cdef object to_python(int kind, uint64_t bits)
cdef int to_bits(int kind, object value, uint64_t* bits) except -1
cdef int kind_size(int kind) noexcept nogil
cdef uint64_t fold_float(void* word, int kind, uint64_t v, fs_fold fold, int order) noexcept nogil
cdef int64_t wait_deadline(object timeout) except? -1
cdef object raise_or_bool(int result)
cdef object wait_word(
    void* word, int kind, bint shared, object expected, object timeout, object ordering)
cdef int notify_word(void* word, int kind, bint shared, bint everybody) except -1
cdef tuple update_word(
    void* word, int kind, object f, object success, object failure, bint may_give_up)
cdef tuple cas_word(
    void* word, int kind, object current, object new, object success, object failure,
    bint weak)
cdef int check_shared(bint shared) except -1
cdef int get_writable(object source, Py_buffer* view) except -1
cdef _Exported export_writable(object source)
