# Extern declarations of include/fastsync/atomic.h; no logic.
from libc.stdint cimport uint8_t, uint32_t, uint64_t, int64_t, uintptr_t


cdef extern from "fastsync/atomic.h" nogil:
    void fs_pause() noexcept
    bint fs_likely(bint condition) noexcept   # lets what follows be the straight way

    ctypedef struct fs_atomic_u8:
        pass
    uint8_t fs_u8_load(const fs_atomic_u8*) noexcept
    uint8_t fs_u8_load_acquire(const fs_atomic_u8*) noexcept
    uint8_t fs_u8_load_relaxed(const fs_atomic_u8*) noexcept
    void fs_u8_store(fs_atomic_u8*, uint8_t) noexcept
    void fs_u8_store_release(fs_atomic_u8*, uint8_t) noexcept
    void fs_u8_store_relaxed(fs_atomic_u8*, uint8_t) noexcept
    uint8_t fs_u8_exchange(fs_atomic_u8*, uint8_t) noexcept
    uint8_t fs_u8_exchange_release(fs_atomic_u8*, uint8_t) noexcept
    uint8_t fs_u8_exchange_acq_rel(fs_atomic_u8*, uint8_t) noexcept
    uint8_t fs_u8_fetch_or_relaxed(fs_atomic_u8*, uint8_t) noexcept
    uint8_t fs_u8_fetch_and(fs_atomic_u8*, uint8_t) noexcept
    uint8_t fs_u8_fetch_and_relaxed(fs_atomic_u8*, uint8_t) noexcept
    bint fs_u8_cas(fs_atomic_u8*, uint8_t*, uint8_t) noexcept
    bint fs_u8_cas_acquire(fs_atomic_u8*, uint8_t*, uint8_t) noexcept
    bint fs_u8_cas_release(fs_atomic_u8*, uint8_t*, uint8_t) noexcept
    bint fs_u8_cas_relaxed(fs_atomic_u8*, uint8_t*, uint8_t) noexcept
    bint fs_u8_cas_acq_rel(fs_atomic_u8*, uint8_t*, uint8_t) noexcept
    bint fs_u8_cas_weak_acquire(fs_atomic_u8*, uint8_t*, uint8_t) noexcept
    bint fs_u8_cas_weak_relaxed(fs_atomic_u8*, uint8_t*, uint8_t) noexcept

    ctypedef struct fs_atomic_u32:
        pass
    uint32_t fs_u32_load(const fs_atomic_u32*) noexcept
    uint32_t fs_u32_load_acquire(const fs_atomic_u32*) noexcept
    uint32_t fs_u32_load_relaxed(const fs_atomic_u32*) noexcept
    void fs_u32_store(fs_atomic_u32*, uint32_t) noexcept
    void fs_u32_store_release(fs_atomic_u32*, uint32_t) noexcept
    void fs_u32_store_relaxed(fs_atomic_u32*, uint32_t) noexcept
    uint32_t fs_u32_fetch_add_relaxed(fs_atomic_u32*, uint32_t) noexcept
    uint32_t fs_u32_fetch_add_release(fs_atomic_u32*, uint32_t) noexcept
    uint32_t fs_u32_exchange_acquire(fs_atomic_u32*, uint32_t) noexcept
    bint fs_u32_cas_acquire(fs_atomic_u32*, uint32_t*, uint32_t) noexcept
    bint fs_u32_cas_release(fs_atomic_u32*, uint32_t*, uint32_t) noexcept
    bint fs_u32_cas_relaxed(fs_atomic_u32*, uint32_t*, uint32_t) noexcept
    bint fs_u32_cas_acq_rel(fs_atomic_u32*, uint32_t*, uint32_t) noexcept

    ctypedef struct fs_atomic_i64:
        pass
    int64_t fs_i64_load(const fs_atomic_i64*) noexcept
    int64_t fs_i64_load_acquire(const fs_atomic_i64*) noexcept
    int64_t fs_i64_load_relaxed(const fs_atomic_i64*) noexcept
    void fs_i64_store_relaxed(fs_atomic_i64*, int64_t) noexcept
    int64_t fs_i64_fetch_add_relaxed(fs_atomic_i64*, int64_t) noexcept
    bint fs_i64_cas_acquire(fs_atomic_i64*, int64_t*, int64_t) noexcept
    bint fs_i64_cas_release(fs_atomic_i64*, int64_t*, int64_t) noexcept
    bint fs_i64_cas_relaxed(fs_atomic_i64*, int64_t*, int64_t) noexcept

    ctypedef struct fs_atomic_u64:
        pass
    uint64_t fs_u64_load(const fs_atomic_u64*) noexcept
    uint64_t fs_u64_load_acquire(const fs_atomic_u64*) noexcept
    uint64_t fs_u64_load_relaxed(const fs_atomic_u64*) noexcept
    void fs_u64_store_relaxed(fs_atomic_u64*, uint64_t) noexcept
    void fs_u64_store_release(fs_atomic_u64*, uint64_t) noexcept
    uint64_t fs_u64_fetch_add_relaxed(fs_atomic_u64*, uint64_t) noexcept
    uint64_t fs_u64_fetch_and_relaxed(fs_atomic_u64*, uint64_t) noexcept
    bint fs_u64_cas_acquire(fs_atomic_u64*, uint64_t*, uint64_t) noexcept
    bint fs_u64_cas_release(fs_atomic_u64*, uint64_t*, uint64_t) noexcept
    bint fs_u64_cas_acq_rel(fs_atomic_u64*, uint64_t*, uint64_t) noexcept
    bint fs_u64_cas_relaxed(fs_atomic_u64*, uint64_t*, uint64_t) noexcept

    ctypedef struct fs_atomic_uptr:
        pass
    uintptr_t fs_uptr_load(const fs_atomic_uptr*) noexcept
    uintptr_t fs_uptr_load_acquire(const fs_atomic_uptr*) noexcept
    uintptr_t fs_uptr_load_relaxed(const fs_atomic_uptr*) noexcept
    void fs_uptr_store_release(fs_atomic_uptr*, uintptr_t) noexcept
    void fs_uptr_store_relaxed(fs_atomic_uptr*, uintptr_t) noexcept
    uintptr_t fs_uptr_exchange_acq_rel(fs_atomic_uptr*, uintptr_t) noexcept
    uintptr_t fs_uptr_fetch_add_relaxed(fs_atomic_uptr*, uintptr_t) noexcept
    uintptr_t fs_uptr_fetch_add_release(fs_atomic_uptr*, uintptr_t) noexcept
    uintptr_t fs_uptr_fetch_add_acquire(fs_atomic_uptr*, uintptr_t) noexcept
    uintptr_t fs_uptr_fetch_add_acq_rel(fs_atomic_uptr*, uintptr_t) noexcept
    uintptr_t fs_uptr_fetch_sub_release(fs_atomic_uptr*, uintptr_t) noexcept
    uintptr_t fs_uptr_fetch_sub_relaxed(fs_atomic_uptr*, uintptr_t) noexcept
    uintptr_t fs_uptr_fetch_sub_acq_rel(fs_atomic_uptr*, uintptr_t) noexcept
    uintptr_t fs_uptr_fetch_and_relaxed(fs_atomic_uptr*, uintptr_t) noexcept
    uintptr_t fs_uptr_fetch_or_relaxed(fs_atomic_uptr*, uintptr_t) noexcept
    bint fs_uptr_cas_acquire(fs_atomic_uptr*, uintptr_t*, uintptr_t) noexcept
    bint fs_uptr_cas_release(fs_atomic_uptr*, uintptr_t*, uintptr_t) noexcept
    bint fs_uptr_cas_relaxed(fs_atomic_uptr*, uintptr_t*, uintptr_t) noexcept
    bint fs_uptr_cas_acq_rel(fs_atomic_uptr*, uintptr_t*, uintptr_t) noexcept
    bint fs_uptr_cas_weak_acquire(fs_atomic_uptr*, uintptr_t*, uintptr_t) noexcept
    bint fs_uptr_cas_weak_relaxed(fs_atomic_uptr*, uintptr_t*, uintptr_t) noexcept
