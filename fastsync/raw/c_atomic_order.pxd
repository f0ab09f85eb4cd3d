# Extern declarations of include/fastsync/atomic_order.h; no logic.
#
# fs_<type>_<operation>(a, ...) is seq_cst; fs_<type>_<operation>_order takes one
# of FS_RELAXED ... FS_SEQ_CST and, when that is a constant, compiles to the one
# instruction.  Read-modify-write operations return the previous value; cas
# (which never fails spuriously) and cas_weak (which may) write it to `expected`.
from libc.stdint cimport (
    int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t,
)

from fastsync.raw.c_atomic cimport (
    fs_atomic_i64, fs_atomic_u8, fs_atomic_u32, fs_atomic_u64, fs_atomic_uptr,
)


cdef extern from "fastsync/atomic_order.h" nogil:
    enum:
        FS_RELAXED
        FS_ACQUIRE
        FS_RELEASE
        FS_ACQ_REL
        FS_SEQ_CST

    enum:  # the kinds of a word
        FS_I8
        FS_I16
        FS_I32
        FS_I64
        FS_U8
        FS_U16
        FS_U32
        FS_U64
        FS_BOOL
        FS_F32
        FS_F64
        FS_KINDS

    void fs_fence(int order) noexcept
    void fs_compiler_fence(int order) noexcept

    uint64_t fs_word_load(const void*, int kind, int order) noexcept
    void fs_word_store(void*, int kind, uint64_t, int order) noexcept
    bint fs_word_cas(void*, int kind, uint64_t* expected, uint64_t, int success, int failure) noexcept
    bint fs_word_cas_weak(void*, int kind, uint64_t* expected, uint64_t, int success, int failure) noexcept
    uint64_t fs_word_exchange(void*, int kind, uint64_t, int order) noexcept
    uint64_t fs_word_fetch_add(void*, int kind, uint64_t, int order) noexcept
    uint64_t fs_word_fetch_sub(void*, int kind, uint64_t, int order) noexcept
    uint64_t fs_word_fetch_and(void*, int kind, uint64_t, int order) noexcept
    uint64_t fs_word_fetch_or(void*, int kind, uint64_t, int order) noexcept
    uint64_t fs_word_fetch_xor(void*, int kind, uint64_t, int order) noexcept
    uint64_t fs_word_fetch_nand(void*, int kind, uint64_t, int order) noexcept
    uint64_t fs_word_fetch_max(void*, int kind, uint64_t, int order) noexcept
    uint64_t fs_word_fetch_min(void*, int kind, uint64_t, int order) noexcept

    ctypedef struct fs_atomic_i8:
        pass
    int8_t fs_i8_load(const fs_atomic_i8*) noexcept
    int8_t fs_i8_load_order(const fs_atomic_i8*, int order) noexcept
    void fs_i8_store(fs_atomic_i8*, int8_t) noexcept
    void fs_i8_store_order(fs_atomic_i8*, int8_t, int order) noexcept
    bint fs_i8_cas(fs_atomic_i8*, int8_t* expected, int8_t) noexcept
    bint fs_i8_cas_order(fs_atomic_i8*, int8_t* expected, int8_t, int success, int failure) noexcept
    bint fs_i8_cas_weak(fs_atomic_i8*, int8_t* expected, int8_t) noexcept
    bint fs_i8_cas_weak_order(fs_atomic_i8*, int8_t* expected, int8_t, int success, int failure) noexcept
    int8_t fs_i8_exchange(fs_atomic_i8*, int8_t) noexcept
    int8_t fs_i8_exchange_order(fs_atomic_i8*, int8_t, int order) noexcept
    int8_t fs_i8_fetch_add(fs_atomic_i8*, int8_t) noexcept
    int8_t fs_i8_fetch_add_order(fs_atomic_i8*, int8_t, int order) noexcept
    int8_t fs_i8_fetch_sub(fs_atomic_i8*, int8_t) noexcept
    int8_t fs_i8_fetch_sub_order(fs_atomic_i8*, int8_t, int order) noexcept
    int8_t fs_i8_fetch_and(fs_atomic_i8*, int8_t) noexcept
    int8_t fs_i8_fetch_and_order(fs_atomic_i8*, int8_t, int order) noexcept
    int8_t fs_i8_fetch_or(fs_atomic_i8*, int8_t) noexcept
    int8_t fs_i8_fetch_or_order(fs_atomic_i8*, int8_t, int order) noexcept
    int8_t fs_i8_fetch_xor(fs_atomic_i8*, int8_t) noexcept
    int8_t fs_i8_fetch_xor_order(fs_atomic_i8*, int8_t, int order) noexcept
    int8_t fs_i8_fetch_nand(fs_atomic_i8*, int8_t) noexcept
    int8_t fs_i8_fetch_nand_order(fs_atomic_i8*, int8_t, int order) noexcept
    int8_t fs_i8_fetch_max(fs_atomic_i8*, int8_t) noexcept
    int8_t fs_i8_fetch_max_order(fs_atomic_i8*, int8_t, int order) noexcept
    int8_t fs_i8_fetch_min(fs_atomic_i8*, int8_t) noexcept
    int8_t fs_i8_fetch_min_order(fs_atomic_i8*, int8_t, int order) noexcept

    ctypedef struct fs_atomic_i16:
        pass
    int16_t fs_i16_load(const fs_atomic_i16*) noexcept
    int16_t fs_i16_load_order(const fs_atomic_i16*, int order) noexcept
    void fs_i16_store(fs_atomic_i16*, int16_t) noexcept
    void fs_i16_store_order(fs_atomic_i16*, int16_t, int order) noexcept
    bint fs_i16_cas(fs_atomic_i16*, int16_t* expected, int16_t) noexcept
    bint fs_i16_cas_order(fs_atomic_i16*, int16_t* expected, int16_t, int success, int failure) noexcept
    bint fs_i16_cas_weak(fs_atomic_i16*, int16_t* expected, int16_t) noexcept
    bint fs_i16_cas_weak_order(fs_atomic_i16*, int16_t* expected, int16_t, int success, int failure) noexcept
    int16_t fs_i16_exchange(fs_atomic_i16*, int16_t) noexcept
    int16_t fs_i16_exchange_order(fs_atomic_i16*, int16_t, int order) noexcept
    int16_t fs_i16_fetch_add(fs_atomic_i16*, int16_t) noexcept
    int16_t fs_i16_fetch_add_order(fs_atomic_i16*, int16_t, int order) noexcept
    int16_t fs_i16_fetch_sub(fs_atomic_i16*, int16_t) noexcept
    int16_t fs_i16_fetch_sub_order(fs_atomic_i16*, int16_t, int order) noexcept
    int16_t fs_i16_fetch_and(fs_atomic_i16*, int16_t) noexcept
    int16_t fs_i16_fetch_and_order(fs_atomic_i16*, int16_t, int order) noexcept
    int16_t fs_i16_fetch_or(fs_atomic_i16*, int16_t) noexcept
    int16_t fs_i16_fetch_or_order(fs_atomic_i16*, int16_t, int order) noexcept
    int16_t fs_i16_fetch_xor(fs_atomic_i16*, int16_t) noexcept
    int16_t fs_i16_fetch_xor_order(fs_atomic_i16*, int16_t, int order) noexcept
    int16_t fs_i16_fetch_nand(fs_atomic_i16*, int16_t) noexcept
    int16_t fs_i16_fetch_nand_order(fs_atomic_i16*, int16_t, int order) noexcept
    int16_t fs_i16_fetch_max(fs_atomic_i16*, int16_t) noexcept
    int16_t fs_i16_fetch_max_order(fs_atomic_i16*, int16_t, int order) noexcept
    int16_t fs_i16_fetch_min(fs_atomic_i16*, int16_t) noexcept
    int16_t fs_i16_fetch_min_order(fs_atomic_i16*, int16_t, int order) noexcept

    ctypedef struct fs_atomic_i32:
        pass
    int32_t fs_i32_load(const fs_atomic_i32*) noexcept
    int32_t fs_i32_load_order(const fs_atomic_i32*, int order) noexcept
    void fs_i32_store(fs_atomic_i32*, int32_t) noexcept
    void fs_i32_store_order(fs_atomic_i32*, int32_t, int order) noexcept
    bint fs_i32_cas(fs_atomic_i32*, int32_t* expected, int32_t) noexcept
    bint fs_i32_cas_order(fs_atomic_i32*, int32_t* expected, int32_t, int success, int failure) noexcept
    bint fs_i32_cas_weak(fs_atomic_i32*, int32_t* expected, int32_t) noexcept
    bint fs_i32_cas_weak_order(fs_atomic_i32*, int32_t* expected, int32_t, int success, int failure) noexcept
    int32_t fs_i32_exchange(fs_atomic_i32*, int32_t) noexcept
    int32_t fs_i32_exchange_order(fs_atomic_i32*, int32_t, int order) noexcept
    int32_t fs_i32_fetch_add(fs_atomic_i32*, int32_t) noexcept
    int32_t fs_i32_fetch_add_order(fs_atomic_i32*, int32_t, int order) noexcept
    int32_t fs_i32_fetch_sub(fs_atomic_i32*, int32_t) noexcept
    int32_t fs_i32_fetch_sub_order(fs_atomic_i32*, int32_t, int order) noexcept
    int32_t fs_i32_fetch_and(fs_atomic_i32*, int32_t) noexcept
    int32_t fs_i32_fetch_and_order(fs_atomic_i32*, int32_t, int order) noexcept
    int32_t fs_i32_fetch_or(fs_atomic_i32*, int32_t) noexcept
    int32_t fs_i32_fetch_or_order(fs_atomic_i32*, int32_t, int order) noexcept
    int32_t fs_i32_fetch_xor(fs_atomic_i32*, int32_t) noexcept
    int32_t fs_i32_fetch_xor_order(fs_atomic_i32*, int32_t, int order) noexcept
    int32_t fs_i32_fetch_nand(fs_atomic_i32*, int32_t) noexcept
    int32_t fs_i32_fetch_nand_order(fs_atomic_i32*, int32_t, int order) noexcept
    int32_t fs_i32_fetch_max(fs_atomic_i32*, int32_t) noexcept
    int32_t fs_i32_fetch_max_order(fs_atomic_i32*, int32_t, int order) noexcept
    int32_t fs_i32_fetch_min(fs_atomic_i32*, int32_t) noexcept
    int32_t fs_i32_fetch_min_order(fs_atomic_i32*, int32_t, int order) noexcept

    int64_t fs_i64_load(const fs_atomic_i64*) noexcept
    int64_t fs_i64_load_order(const fs_atomic_i64*, int order) noexcept
    void fs_i64_store(fs_atomic_i64*, int64_t) noexcept
    void fs_i64_store_order(fs_atomic_i64*, int64_t, int order) noexcept
    bint fs_i64_cas(fs_atomic_i64*, int64_t* expected, int64_t) noexcept
    bint fs_i64_cas_order(fs_atomic_i64*, int64_t* expected, int64_t, int success, int failure) noexcept
    bint fs_i64_cas_weak(fs_atomic_i64*, int64_t* expected, int64_t) noexcept
    bint fs_i64_cas_weak_order(fs_atomic_i64*, int64_t* expected, int64_t, int success, int failure) noexcept
    int64_t fs_i64_exchange(fs_atomic_i64*, int64_t) noexcept
    int64_t fs_i64_exchange_order(fs_atomic_i64*, int64_t, int order) noexcept
    int64_t fs_i64_fetch_add(fs_atomic_i64*, int64_t) noexcept
    int64_t fs_i64_fetch_add_order(fs_atomic_i64*, int64_t, int order) noexcept
    int64_t fs_i64_fetch_sub(fs_atomic_i64*, int64_t) noexcept
    int64_t fs_i64_fetch_sub_order(fs_atomic_i64*, int64_t, int order) noexcept
    int64_t fs_i64_fetch_and(fs_atomic_i64*, int64_t) noexcept
    int64_t fs_i64_fetch_and_order(fs_atomic_i64*, int64_t, int order) noexcept
    int64_t fs_i64_fetch_or(fs_atomic_i64*, int64_t) noexcept
    int64_t fs_i64_fetch_or_order(fs_atomic_i64*, int64_t, int order) noexcept
    int64_t fs_i64_fetch_xor(fs_atomic_i64*, int64_t) noexcept
    int64_t fs_i64_fetch_xor_order(fs_atomic_i64*, int64_t, int order) noexcept
    int64_t fs_i64_fetch_nand(fs_atomic_i64*, int64_t) noexcept
    int64_t fs_i64_fetch_nand_order(fs_atomic_i64*, int64_t, int order) noexcept
    int64_t fs_i64_fetch_max(fs_atomic_i64*, int64_t) noexcept
    int64_t fs_i64_fetch_max_order(fs_atomic_i64*, int64_t, int order) noexcept
    int64_t fs_i64_fetch_min(fs_atomic_i64*, int64_t) noexcept
    int64_t fs_i64_fetch_min_order(fs_atomic_i64*, int64_t, int order) noexcept

    uint8_t fs_u8_load(const fs_atomic_u8*) noexcept
    uint8_t fs_u8_load_order(const fs_atomic_u8*, int order) noexcept
    void fs_u8_store(fs_atomic_u8*, uint8_t) noexcept
    void fs_u8_store_order(fs_atomic_u8*, uint8_t, int order) noexcept
    bint fs_u8_cas(fs_atomic_u8*, uint8_t* expected, uint8_t) noexcept
    bint fs_u8_cas_order(fs_atomic_u8*, uint8_t* expected, uint8_t, int success, int failure) noexcept
    bint fs_u8_cas_weak(fs_atomic_u8*, uint8_t* expected, uint8_t) noexcept
    bint fs_u8_cas_weak_order(fs_atomic_u8*, uint8_t* expected, uint8_t, int success, int failure) noexcept
    uint8_t fs_u8_exchange(fs_atomic_u8*, uint8_t) noexcept
    uint8_t fs_u8_exchange_order(fs_atomic_u8*, uint8_t, int order) noexcept
    uint8_t fs_u8_fetch_add(fs_atomic_u8*, uint8_t) noexcept
    uint8_t fs_u8_fetch_add_order(fs_atomic_u8*, uint8_t, int order) noexcept
    uint8_t fs_u8_fetch_sub(fs_atomic_u8*, uint8_t) noexcept
    uint8_t fs_u8_fetch_sub_order(fs_atomic_u8*, uint8_t, int order) noexcept
    uint8_t fs_u8_fetch_and(fs_atomic_u8*, uint8_t) noexcept
    uint8_t fs_u8_fetch_and_order(fs_atomic_u8*, uint8_t, int order) noexcept
    uint8_t fs_u8_fetch_or(fs_atomic_u8*, uint8_t) noexcept
    uint8_t fs_u8_fetch_or_order(fs_atomic_u8*, uint8_t, int order) noexcept
    uint8_t fs_u8_fetch_xor(fs_atomic_u8*, uint8_t) noexcept
    uint8_t fs_u8_fetch_xor_order(fs_atomic_u8*, uint8_t, int order) noexcept
    uint8_t fs_u8_fetch_nand(fs_atomic_u8*, uint8_t) noexcept
    uint8_t fs_u8_fetch_nand_order(fs_atomic_u8*, uint8_t, int order) noexcept
    uint8_t fs_u8_fetch_max(fs_atomic_u8*, uint8_t) noexcept
    uint8_t fs_u8_fetch_max_order(fs_atomic_u8*, uint8_t, int order) noexcept
    uint8_t fs_u8_fetch_min(fs_atomic_u8*, uint8_t) noexcept
    uint8_t fs_u8_fetch_min_order(fs_atomic_u8*, uint8_t, int order) noexcept

    ctypedef struct fs_atomic_u16:
        pass
    uint16_t fs_u16_load(const fs_atomic_u16*) noexcept
    uint16_t fs_u16_load_order(const fs_atomic_u16*, int order) noexcept
    void fs_u16_store(fs_atomic_u16*, uint16_t) noexcept
    void fs_u16_store_order(fs_atomic_u16*, uint16_t, int order) noexcept
    bint fs_u16_cas(fs_atomic_u16*, uint16_t* expected, uint16_t) noexcept
    bint fs_u16_cas_order(fs_atomic_u16*, uint16_t* expected, uint16_t, int success, int failure) noexcept
    bint fs_u16_cas_weak(fs_atomic_u16*, uint16_t* expected, uint16_t) noexcept
    bint fs_u16_cas_weak_order(fs_atomic_u16*, uint16_t* expected, uint16_t, int success, int failure) noexcept
    uint16_t fs_u16_exchange(fs_atomic_u16*, uint16_t) noexcept
    uint16_t fs_u16_exchange_order(fs_atomic_u16*, uint16_t, int order) noexcept
    uint16_t fs_u16_fetch_add(fs_atomic_u16*, uint16_t) noexcept
    uint16_t fs_u16_fetch_add_order(fs_atomic_u16*, uint16_t, int order) noexcept
    uint16_t fs_u16_fetch_sub(fs_atomic_u16*, uint16_t) noexcept
    uint16_t fs_u16_fetch_sub_order(fs_atomic_u16*, uint16_t, int order) noexcept
    uint16_t fs_u16_fetch_and(fs_atomic_u16*, uint16_t) noexcept
    uint16_t fs_u16_fetch_and_order(fs_atomic_u16*, uint16_t, int order) noexcept
    uint16_t fs_u16_fetch_or(fs_atomic_u16*, uint16_t) noexcept
    uint16_t fs_u16_fetch_or_order(fs_atomic_u16*, uint16_t, int order) noexcept
    uint16_t fs_u16_fetch_xor(fs_atomic_u16*, uint16_t) noexcept
    uint16_t fs_u16_fetch_xor_order(fs_atomic_u16*, uint16_t, int order) noexcept
    uint16_t fs_u16_fetch_nand(fs_atomic_u16*, uint16_t) noexcept
    uint16_t fs_u16_fetch_nand_order(fs_atomic_u16*, uint16_t, int order) noexcept
    uint16_t fs_u16_fetch_max(fs_atomic_u16*, uint16_t) noexcept
    uint16_t fs_u16_fetch_max_order(fs_atomic_u16*, uint16_t, int order) noexcept
    uint16_t fs_u16_fetch_min(fs_atomic_u16*, uint16_t) noexcept
    uint16_t fs_u16_fetch_min_order(fs_atomic_u16*, uint16_t, int order) noexcept

    uint32_t fs_u32_load(const fs_atomic_u32*) noexcept
    uint32_t fs_u32_load_order(const fs_atomic_u32*, int order) noexcept
    void fs_u32_store(fs_atomic_u32*, uint32_t) noexcept
    void fs_u32_store_order(fs_atomic_u32*, uint32_t, int order) noexcept
    bint fs_u32_cas(fs_atomic_u32*, uint32_t* expected, uint32_t) noexcept
    bint fs_u32_cas_order(fs_atomic_u32*, uint32_t* expected, uint32_t, int success, int failure) noexcept
    bint fs_u32_cas_weak(fs_atomic_u32*, uint32_t* expected, uint32_t) noexcept
    bint fs_u32_cas_weak_order(fs_atomic_u32*, uint32_t* expected, uint32_t, int success, int failure) noexcept
    uint32_t fs_u32_exchange(fs_atomic_u32*, uint32_t) noexcept
    uint32_t fs_u32_exchange_order(fs_atomic_u32*, uint32_t, int order) noexcept
    uint32_t fs_u32_fetch_add(fs_atomic_u32*, uint32_t) noexcept
    uint32_t fs_u32_fetch_add_order(fs_atomic_u32*, uint32_t, int order) noexcept
    uint32_t fs_u32_fetch_sub(fs_atomic_u32*, uint32_t) noexcept
    uint32_t fs_u32_fetch_sub_order(fs_atomic_u32*, uint32_t, int order) noexcept
    uint32_t fs_u32_fetch_and(fs_atomic_u32*, uint32_t) noexcept
    uint32_t fs_u32_fetch_and_order(fs_atomic_u32*, uint32_t, int order) noexcept
    uint32_t fs_u32_fetch_or(fs_atomic_u32*, uint32_t) noexcept
    uint32_t fs_u32_fetch_or_order(fs_atomic_u32*, uint32_t, int order) noexcept
    uint32_t fs_u32_fetch_xor(fs_atomic_u32*, uint32_t) noexcept
    uint32_t fs_u32_fetch_xor_order(fs_atomic_u32*, uint32_t, int order) noexcept
    uint32_t fs_u32_fetch_nand(fs_atomic_u32*, uint32_t) noexcept
    uint32_t fs_u32_fetch_nand_order(fs_atomic_u32*, uint32_t, int order) noexcept
    uint32_t fs_u32_fetch_max(fs_atomic_u32*, uint32_t) noexcept
    uint32_t fs_u32_fetch_max_order(fs_atomic_u32*, uint32_t, int order) noexcept
    uint32_t fs_u32_fetch_min(fs_atomic_u32*, uint32_t) noexcept
    uint32_t fs_u32_fetch_min_order(fs_atomic_u32*, uint32_t, int order) noexcept

    uint64_t fs_u64_load(const fs_atomic_u64*) noexcept
    uint64_t fs_u64_load_order(const fs_atomic_u64*, int order) noexcept
    void fs_u64_store(fs_atomic_u64*, uint64_t) noexcept
    void fs_u64_store_order(fs_atomic_u64*, uint64_t, int order) noexcept
    bint fs_u64_cas(fs_atomic_u64*, uint64_t* expected, uint64_t) noexcept
    bint fs_u64_cas_order(fs_atomic_u64*, uint64_t* expected, uint64_t, int success, int failure) noexcept
    bint fs_u64_cas_weak(fs_atomic_u64*, uint64_t* expected, uint64_t) noexcept
    bint fs_u64_cas_weak_order(fs_atomic_u64*, uint64_t* expected, uint64_t, int success, int failure) noexcept
    uint64_t fs_u64_exchange(fs_atomic_u64*, uint64_t) noexcept
    uint64_t fs_u64_exchange_order(fs_atomic_u64*, uint64_t, int order) noexcept
    uint64_t fs_u64_fetch_add(fs_atomic_u64*, uint64_t) noexcept
    uint64_t fs_u64_fetch_add_order(fs_atomic_u64*, uint64_t, int order) noexcept
    uint64_t fs_u64_fetch_sub(fs_atomic_u64*, uint64_t) noexcept
    uint64_t fs_u64_fetch_sub_order(fs_atomic_u64*, uint64_t, int order) noexcept
    uint64_t fs_u64_fetch_and(fs_atomic_u64*, uint64_t) noexcept
    uint64_t fs_u64_fetch_and_order(fs_atomic_u64*, uint64_t, int order) noexcept
    uint64_t fs_u64_fetch_or(fs_atomic_u64*, uint64_t) noexcept
    uint64_t fs_u64_fetch_or_order(fs_atomic_u64*, uint64_t, int order) noexcept
    uint64_t fs_u64_fetch_xor(fs_atomic_u64*, uint64_t) noexcept
    uint64_t fs_u64_fetch_xor_order(fs_atomic_u64*, uint64_t, int order) noexcept
    uint64_t fs_u64_fetch_nand(fs_atomic_u64*, uint64_t) noexcept
    uint64_t fs_u64_fetch_nand_order(fs_atomic_u64*, uint64_t, int order) noexcept
    uint64_t fs_u64_fetch_max(fs_atomic_u64*, uint64_t) noexcept
    uint64_t fs_u64_fetch_max_order(fs_atomic_u64*, uint64_t, int order) noexcept
    uint64_t fs_u64_fetch_min(fs_atomic_u64*, uint64_t) noexcept
    uint64_t fs_u64_fetch_min_order(fs_atomic_u64*, uint64_t, int order) noexcept

    uintptr_t fs_uptr_load(const fs_atomic_uptr*) noexcept
    uintptr_t fs_uptr_load_order(const fs_atomic_uptr*, int order) noexcept
    void fs_uptr_store(fs_atomic_uptr*, uintptr_t) noexcept
    void fs_uptr_store_order(fs_atomic_uptr*, uintptr_t, int order) noexcept
    bint fs_uptr_cas(fs_atomic_uptr*, uintptr_t* expected, uintptr_t) noexcept
    bint fs_uptr_cas_order(fs_atomic_uptr*, uintptr_t* expected, uintptr_t, int success, int failure) noexcept
    bint fs_uptr_cas_weak(fs_atomic_uptr*, uintptr_t* expected, uintptr_t) noexcept
    bint fs_uptr_cas_weak_order(fs_atomic_uptr*, uintptr_t* expected, uintptr_t, int success, int failure) noexcept
    uintptr_t fs_uptr_exchange(fs_atomic_uptr*, uintptr_t) noexcept
    uintptr_t fs_uptr_exchange_order(fs_atomic_uptr*, uintptr_t, int order) noexcept
    uintptr_t fs_uptr_fetch_add(fs_atomic_uptr*, uintptr_t) noexcept
    uintptr_t fs_uptr_fetch_add_order(fs_atomic_uptr*, uintptr_t, int order) noexcept
    uintptr_t fs_uptr_fetch_sub(fs_atomic_uptr*, uintptr_t) noexcept
    uintptr_t fs_uptr_fetch_sub_order(fs_atomic_uptr*, uintptr_t, int order) noexcept
    uintptr_t fs_uptr_fetch_and(fs_atomic_uptr*, uintptr_t) noexcept
    uintptr_t fs_uptr_fetch_and_order(fs_atomic_uptr*, uintptr_t, int order) noexcept
    uintptr_t fs_uptr_fetch_or(fs_atomic_uptr*, uintptr_t) noexcept
    uintptr_t fs_uptr_fetch_or_order(fs_atomic_uptr*, uintptr_t, int order) noexcept
    uintptr_t fs_uptr_fetch_xor(fs_atomic_uptr*, uintptr_t) noexcept
    uintptr_t fs_uptr_fetch_xor_order(fs_atomic_uptr*, uintptr_t, int order) noexcept
    uintptr_t fs_uptr_fetch_nand(fs_atomic_uptr*, uintptr_t) noexcept
    uintptr_t fs_uptr_fetch_nand_order(fs_atomic_uptr*, uintptr_t, int order) noexcept
    uintptr_t fs_uptr_fetch_max(fs_atomic_uptr*, uintptr_t) noexcept
    uintptr_t fs_uptr_fetch_max_order(fs_atomic_uptr*, uintptr_t, int order) noexcept
    uintptr_t fs_uptr_fetch_min(fs_atomic_uptr*, uintptr_t) noexcept
    uintptr_t fs_uptr_fetch_min_order(fs_atomic_uptr*, uintptr_t, int order) noexcept

    ctypedef struct fs_atomic_ptr:
        pass
    void* fs_ptr_load(const fs_atomic_ptr*) noexcept
    void* fs_ptr_load_order(const fs_atomic_ptr*, int order) noexcept
    void fs_ptr_store(fs_atomic_ptr*, void*) noexcept
    void fs_ptr_store_order(fs_atomic_ptr*, void*, int order) noexcept
    bint fs_ptr_cas(fs_atomic_ptr*, void** expected, void*) noexcept
    bint fs_ptr_cas_order(fs_atomic_ptr*, void** expected, void*, int success, int failure) noexcept
    bint fs_ptr_cas_weak(fs_atomic_ptr*, void** expected, void*) noexcept
    bint fs_ptr_cas_weak_order(fs_atomic_ptr*, void** expected, void*, int success, int failure) noexcept
    void* fs_ptr_exchange(fs_atomic_ptr*, void*) noexcept
    void* fs_ptr_exchange_order(fs_atomic_ptr*, void*, int order) noexcept
