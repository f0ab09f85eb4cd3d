"""Python's atomics, and the words inside them, for Cython code that is handed one."""
cimport cython
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from fastsync.objects._kinds cimport _Exported
from fastsync.raw cimport c_version  # so that versions are compared
from fastsync.raw.c_atomic cimport fs_atomic_i64, fs_atomic_u32, fs_atomic_u64, fs_atomic_u8
from fastsync.raw.c_atomic_float cimport fs_atomic_bool, fs_atomic_f32, fs_atomic_f64
from fastsync.raw.c_atomic_order cimport fs_atomic_i16, fs_atomic_i32, fs_atomic_i8, fs_atomic_u16


cdef enum:  # _Atomic.flags
    FS_BORROWED = 1  # the value is in the buffer that `exported` keeps, and `word` is its address
    FS_PROCESS_SHARED = 2    # other processes wait on it too

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
