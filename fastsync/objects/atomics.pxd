"""Python's atomics, and the words inside them, for Cython code that is handed one."""
cimport cython
from libc.stdint cimport int64_t, uint64_t, uint8_t
from libc.string cimport memcpy

from fastsync.raw cimport c_version  # so that versions are compared
from fastsync.raw.c_atomic cimport fs_atomic_i64, fs_atomic_u32, fs_atomic_u64, fs_atomic_u8
from fastsync.raw.c_atomic_float cimport fs_atomic_bool, fs_atomic_f32, fs_atomic_f64, fs_fold
from fastsync.raw.c_atomic_order cimport fs_atomic_i16, fs_atomic_i32, fs_atomic_i8, fs_atomic_u16


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
