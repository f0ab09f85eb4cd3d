/* Atomic operations whose memory order is an argument.
 *
 * With a constant order the switch folds away and what is left is the operation
 * of atomic.h; Python callers pass an order that is only known at run time.
 * fs_word_<operation> takes the type as an argument too (an FS_KIND).
 *
 * A caller checks the order first: a load is never release or acq_rel, a store
 * never acquire or acq_rel, a failed compare-exchange is a load.
 */
#ifndef FASTSYNC_ATOMIC_ORDER_H
#define FASTSYNC_ATOMIC_ORDER_H

#include "atomic.h"

enum { FS_RELAXED, FS_ACQUIRE, FS_RELEASE, FS_ACQ_REL, FS_SEQ_CST };

/* Bit 2 tells signed from unsigned, bits 0 and 1 are log2 of the bytes. */
enum {
    FS_I8, FS_I16, FS_I32, FS_I64, FS_U8, FS_U16, FS_U32, FS_U64,
    FS_BOOL, FS_F32, FS_F64, FS_KINDS
};

#if defined(__GNUC__) || defined(__clang__)
#  define FS_MAYBE_UNUSED __attribute__((unused))
#else
#  define FS_MAYBE_UNUSED
#endif

#define FS_ORDERED_LOAD(N, T)                                                  \
    FS_INLINE T fs_##N##_load_order(const fs_atomic_##N *a, int order) {       \
        switch (order) {                                                       \
        case FS_RELAXED: return fs_##N##_load_relaxed(a);                      \
        case FS_ACQUIRE: return fs_##N##_load_acquire(a);                      \
        default: return fs_##N##_load(a);                                      \
        }                                                                      \
    }

#define FS_ORDERED_STORE(N, T)                                                 \
    FS_INLINE void fs_##N##_store_order(fs_atomic_##N *a, T v, int order) {    \
        switch (order) {                                                       \
        case FS_RELAXED: fs_##N##_store_relaxed(a, v); break;                  \
        case FS_RELEASE: fs_##N##_store_release(a, v); break;                  \
        default: fs_##N##_store(a, v);                                         \
        }                                                                      \
    }

#define FS_ORDERED_RMW(N, T, NAME)                                             \
    FS_INLINE T fs_##N##_##NAME##_order(fs_atomic_##N *a, T v, int order) {    \
        switch (order) {                                                       \
        case FS_RELAXED: return fs_##N##_##NAME##_relaxed(a, v);               \
        case FS_ACQUIRE: return fs_##N##_##NAME##_acquire(a, v);               \
        case FS_RELEASE: return fs_##N##_##NAME##_release(a, v);               \
        case FS_ACQ_REL: return fs_##N##_##NAME##_acq_rel(a, v);               \
        default: return fs_##N##_##NAME(a, v);                                 \
        }                                                                      \
    }

/* C11 wants no failure order stronger than the success order, Rust allows any:
 * the success order is raised to cover the failure order. */
#define FS_ORDERED_CAS1(N, T, CAS, STDNAME)                                    \
    FS_INLINE int fs_##N##_##CAS##_order(fs_atomic_##N *a, T *expected, T v,   \
                                         int success, int failure) {           \
        if (success == FS_SEQ_CST || failure == FS_SEQ_CST) {                  \
            return fs_##N##_##CAS(a, expected, v);                             \
        }                                                                      \
        if (failure == FS_ACQUIRE) {                                           \
            return success == FS_RELAXED || success == FS_ACQUIRE              \
                ? FS_STD(STDNAME)(&a->value, expected, v,                      \
                      FS_STD(memory_order_acquire),                            \
                      FS_STD(memory_order_acquire))                            \
                : FS_STD(STDNAME)(&a->value, expected, v,                      \
                      FS_STD(memory_order_acq_rel),                            \
                      FS_STD(memory_order_acquire));                           \
        }                                                                      \
        switch (success) {                                                     \
        case FS_RELAXED: return fs_##N##_##CAS##_relaxed(a, expected, v);      \
        case FS_ACQUIRE: return fs_##N##_##CAS##_acquire(a, expected, v);      \
        case FS_RELEASE: return fs_##N##_##CAS##_release(a, expected, v);      \
        default: return fs_##N##_##CAS##_acq_rel(a, expected, v);              \
        }                                                                      \
    }

#define FS_ORDERED_CAS(N, T)                                                   \
    FS_ORDERED_CAS1(N, T, cas, atomic_compare_exchange_strong_explicit)        \
    FS_ORDERED_CAS1(N, T, cas_weak, atomic_compare_exchange_weak_explicit)

/* What C11 has no instruction for: `old` and `v` make the new value. */
#define FS_ORDERED_FOLD(N, T, NAME, EXPRESSION)                                \
    FS_INLINE T fs_##N##_##NAME##_order(fs_atomic_##N *a, T v, int order) {    \
        T old = fs_##N##_load_relaxed(a);  /* relaxed: the CAS decides */      \
        while (!fs_##N##_cas_weak_order(a, &old, (T)(EXPRESSION), order,       \
                                        FS_RELAXED)) {                         \
        }                                                                      \
        return old;                                                            \
    }                                                                          \
    FS_INLINE T fs_##N##_##NAME(fs_atomic_##N *a, T v) {                       \
        return fs_##N##_##NAME##_order(a, v, FS_SEQ_CST);                      \
    }

#define FS_ORDERED_TYPE(N, T)                                                  \
    FS_ORDERED_LOAD(N, T)                                                      \
    FS_ORDERED_STORE(N, T)                                                     \
    FS_ORDERED_RMW(N, T, exchange)                                             \
    FS_ORDERED_CAS(N, T)

#define FS_ORDERED_INT_TYPE(N, T)                                              \
    FS_ORDERED_TYPE(N, T)                                                      \
    FS_ORDERED_RMW(N, T, fetch_add)                                            \
    FS_ORDERED_RMW(N, T, fetch_sub)                                            \
    FS_ORDERED_RMW(N, T, fetch_and)                                            \
    FS_ORDERED_RMW(N, T, fetch_or)                                             \
    FS_ORDERED_RMW(N, T, fetch_xor)                                            \
    FS_ORDERED_FOLD(N, T, fetch_nand, ~(old & v))                              \
    FS_ORDERED_FOLD(N, T, fetch_max, old > v ? old : v)                        \
    FS_ORDERED_FOLD(N, T, fetch_min, old < v ? old : v)

FS_ORDERED_INT_TYPE(u8, uint8_t)
FS_ORDERED_INT_TYPE(u16, uint16_t)
FS_ORDERED_INT_TYPE(u32, uint32_t)
FS_ORDERED_INT_TYPE(u64, uint64_t)
FS_ORDERED_INT_TYPE(i8, int8_t)
FS_ORDERED_INT_TYPE(i16, int16_t)
FS_ORDERED_INT_TYPE(i32, int32_t)
FS_ORDERED_INT_TYPE(i64, int64_t)
FS_ORDERED_INT_TYPE(uptr, uintptr_t)
FS_ORDERED_TYPE(ptr, void *)

/* -- the type as an argument ------------------------------------------------
 *
 * A value travels as 64 bits: signed ones sign-extended, all others
 * zero-extended, floats as their bits. */

#define FS_WORD_RMW(NAME)                                                      \
    FS_MAYBE_UNUSED static uint64_t fs_word_##NAME(void *p, int kind,          \
                                                   uint64_t v, int order) {    \
        switch (kind) {                                                        \
        case FS_I8: return (uint64_t)(int64_t)fs_i8_##NAME##_order(            \
            (fs_atomic_i8 *)p, (int8_t)v, order);                              \
        case FS_I16: return (uint64_t)(int64_t)fs_i16_##NAME##_order(          \
            (fs_atomic_i16 *)p, (int16_t)v, order);                            \
        case FS_I32: return (uint64_t)(int64_t)fs_i32_##NAME##_order(          \
            (fs_atomic_i32 *)p, (int32_t)v, order);                            \
        case FS_I64: return (uint64_t)fs_i64_##NAME##_order(                   \
            (fs_atomic_i64 *)p, (int64_t)v, order);                            \
        case FS_U8: case FS_BOOL: return fs_u8_##NAME##_order(                 \
            (fs_atomic_u8 *)p, (uint8_t)v, order);                             \
        case FS_U16: return fs_u16_##NAME##_order(                             \
            (fs_atomic_u16 *)p, (uint16_t)v, order);                           \
        case FS_U32: case FS_F32: return fs_u32_##NAME##_order(                \
            (fs_atomic_u32 *)p, (uint32_t)v, order);                           \
        default: return fs_u64_##NAME##_order(                                 \
            (fs_atomic_u64 *)p, v, order);                                     \
        }                                                                      \
    }

FS_WORD_RMW(exchange)
FS_WORD_RMW(fetch_add)
FS_WORD_RMW(fetch_sub)
FS_WORD_RMW(fetch_and)
FS_WORD_RMW(fetch_or)
FS_WORD_RMW(fetch_xor)
FS_WORD_RMW(fetch_nand)
FS_WORD_RMW(fetch_max)
FS_WORD_RMW(fetch_min)

FS_INLINE uint64_t fs_word_load(const void *p, int kind, int order) {
    switch (kind) {
    case FS_I8: return (uint64_t)(int64_t)fs_i8_load_order((const fs_atomic_i8 *)p, order);
    case FS_I16: return (uint64_t)(int64_t)fs_i16_load_order((const fs_atomic_i16 *)p, order);
    case FS_I32: return (uint64_t)(int64_t)fs_i32_load_order((const fs_atomic_i32 *)p, order);
    case FS_U8: case FS_BOOL: return fs_u8_load_order((const fs_atomic_u8 *)p, order);
    case FS_U16: return fs_u16_load_order((const fs_atomic_u16 *)p, order);
    case FS_U32: case FS_F32: return fs_u32_load_order((const fs_atomic_u32 *)p, order);
    default: return fs_u64_load_order((const fs_atomic_u64 *)p, order);
    }
}

FS_INLINE void fs_word_store(void *p, int kind, uint64_t v, int order) {
    switch (kind) {
    case FS_I8: case FS_U8: case FS_BOOL:
        fs_u8_store_order((fs_atomic_u8 *)p, (uint8_t)v, order);
        break;
    case FS_I16: case FS_U16:
        fs_u16_store_order((fs_atomic_u16 *)p, (uint16_t)v, order);
        break;
    case FS_I32: case FS_U32: case FS_F32:
        fs_u32_store_order((fs_atomic_u32 *)p, (uint32_t)v, order);
        break;
    default:
        fs_u64_store_order((fs_atomic_u64 *)p, v, order);
    }
}

/* The compare-exchange of one width, its `expected` widened again on failure. */
#define FS_WORD_CAS_CASE(N, T, WIDE, CAS)                                      \
    {                                                                          \
        T narrow = (T)*expected;                                               \
        int done = fs_##N##_##CAS##_order((fs_atomic_##N *)p, &narrow, (T)v,   \
                                          success, failure);                   \
        *expected = (uint64_t)(WIDE)narrow;                                    \
        return done;                                                           \
    }

#define FS_WORD_CAS(CAS)                                                       \
    FS_MAYBE_UNUSED static int fs_word_##CAS(void *p, int kind,                \
            uint64_t *expected, uint64_t v, int success, int failure) {        \
        switch (kind) {                                                        \
        case FS_I8: FS_WORD_CAS_CASE(i8, int8_t, int64_t, CAS)                 \
        case FS_I16: FS_WORD_CAS_CASE(i16, int16_t, int64_t, CAS)              \
        case FS_I32: FS_WORD_CAS_CASE(i32, int32_t, int64_t, CAS)              \
        case FS_U8: case FS_BOOL: FS_WORD_CAS_CASE(u8, uint8_t, uint64_t, CAS) \
        case FS_U16: FS_WORD_CAS_CASE(u16, uint16_t, uint64_t, CAS)            \
        case FS_U32: case FS_F32: FS_WORD_CAS_CASE(u32, uint32_t, uint64_t, CAS) \
        default: FS_WORD_CAS_CASE(u64, uint64_t, uint64_t, CAS)                \
        }                                                                      \
    }

FS_WORD_CAS(cas)
FS_WORD_CAS(cas_weak)

/* -- fences ----------------------------------------------------------------- */

FS_INLINE void fs_fence(int order) {
    switch (order) {
    case FS_ACQUIRE: FS_STD(atomic_thread_fence)(FS_STD(memory_order_acquire)); break;
    case FS_RELEASE: FS_STD(atomic_thread_fence)(FS_STD(memory_order_release)); break;
    case FS_ACQ_REL: FS_STD(atomic_thread_fence)(FS_STD(memory_order_acq_rel)); break;
    default: FS_STD(atomic_thread_fence)(FS_STD(memory_order_seq_cst));
    }
}

FS_INLINE void fs_compiler_fence(int order) {
    switch (order) {
    case FS_ACQUIRE: FS_STD(atomic_signal_fence)(FS_STD(memory_order_acquire)); break;
    case FS_RELEASE: FS_STD(atomic_signal_fence)(FS_STD(memory_order_release)); break;
    case FS_ACQ_REL: FS_STD(atomic_signal_fence)(FS_STD(memory_order_acq_rel)); break;
    default: FS_STD(atomic_signal_fence)(FS_STD(memory_order_seq_cst));
    }
}

#endif
