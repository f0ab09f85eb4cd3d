/* Atomic bools and floats: their bits in an integer word.
 *
 * fs_<type>_<operation>(a, ...) is seq_cst, fs_<type>_<operation>_order takes
 * the order, both as in atomic_order.h; all but store give the previous value.
 */
#ifndef FASTSYNC_ATOMIC_FLOAT_H
#define FASTSYNC_ATOMIC_FLOAT_H

#include <string.h>

#include "atomic_order.h"

/* -- bool: a byte that is 0 or 1 ---------------------------------------------- */

typedef fs_atomic_u8 fs_atomic_bool;

#define FS_BOOL_CAS(CAS)                                                       \
    FS_INLINE int fs_bool_##CAS##_order(fs_atomic_bool *a, int *expected,      \
                                        int v, int success, int failure) {     \
        uint8_t seen = *expected != 0;                                         \
        int done = fs_u8_##CAS##_order(a, &seen, v != 0, success, failure);    \
        *expected = seen != 0;                                                 \
        return done;                                                           \
    }                                                                          \
    FS_INLINE int fs_bool_##CAS(fs_atomic_bool *a, int *expected, int v) {     \
        return fs_bool_##CAS##_order(a, expected, v, FS_SEQ_CST, FS_SEQ_CST);  \
    }

#define FS_BOOL_RMW(NAME, EXPRESSION)                                          \
    FS_INLINE int fs_bool_##NAME##_order(fs_atomic_bool *a, int v, int order) { \
        return (EXPRESSION) != 0;                                              \
    }                                                                          \
    FS_INLINE int fs_bool_##NAME(fs_atomic_bool *a, int v) {                   \
        return fs_bool_##NAME##_order(a, v, FS_SEQ_CST);                       \
    }

FS_INLINE int fs_bool_load_order(const fs_atomic_bool *a, int order) {
    return fs_u8_load_order(a, order) != 0;
}
FS_INLINE int fs_bool_load(const fs_atomic_bool *a) { return fs_u8_load(a) != 0; }

FS_INLINE void fs_bool_store_order(fs_atomic_bool *a, int v, int order) {
    fs_u8_store_order(a, v != 0, order);
}
FS_INLINE void fs_bool_store(fs_atomic_bool *a, int v) { fs_u8_store(a, v != 0); }

FS_BOOL_CAS(cas)
FS_BOOL_CAS(cas_weak)
FS_BOOL_RMW(exchange, fs_u8_exchange_order(a, v != 0, order))
FS_BOOL_RMW(fetch_and, fs_u8_fetch_and_order(a, v != 0, order))
FS_BOOL_RMW(fetch_or, fs_u8_fetch_or_order(a, v != 0, order))
FS_BOOL_RMW(fetch_xor, fs_u8_fetch_xor_order(a, v != 0, order))
/* not (x and True) is not x; not (x and False) is True */
FS_BOOL_RMW(fetch_nand, v ? fs_u8_fetch_xor_order(a, 1, order) : fs_u8_exchange_order(a, 1, order))

FS_INLINE int fs_bool_fetch_not_order(fs_atomic_bool *a, int order) {
    return fs_u8_fetch_xor_order(a, 1, order) != 0;
}
FS_INLINE int fs_bool_fetch_not(fs_atomic_bool *a) {
    return fs_bool_fetch_not_order(a, FS_SEQ_CST);
}

/* -- float ---------------------------------------------------------------------- */

typedef fs_atomic_u32 fs_atomic_f32;
typedef fs_atomic_u64 fs_atomic_f64;

/* What a read-modify-write does. */
typedef enum { FS_FOLD_ADD, FS_FOLD_SUB, FS_FOLD_MAX, FS_FOLD_MIN } fs_fold;

/* In max and min a number wins over NaN. */
FS_INLINE double fs_fold_f64(double old, double v, fs_fold fold) {
    switch (fold) {
    case FS_FOLD_ADD: return old + v;
    case FS_FOLD_SUB: return old - v;
    case FS_FOLD_MAX: return (old != old || v > old) ? v : old;
    default: return (old != old || v < old) ? v : old;
    }
}

/* Not by way of fs_fold_f64: a conversion would quiet a signalling NaN that is only passed on. */
FS_INLINE float fs_fold_f32(float old, float v, fs_fold fold) {
    switch (fold) {
    case FS_FOLD_ADD: return old + v;
    case FS_FOLD_SUB: return old - v;
    case FS_FOLD_MAX: return (old != old || v > old) ? v : old;
    default: return (old != old || v < old) ? v : old;
    }
}

/* The compare-exchange compares bits: NaN equals the same NaN, 0.0 is not -0.0. */
#define FS_FLOAT_CAS(N, T, U, BITS, CAS)                                       \
    FS_INLINE int fs_##N##_##CAS##_order(fs_atomic_##N *a, T *expected, T v,   \
                                         int success, int failure) {           \
        BITS seen = fs_##N##_bits(*expected);                                  \
        int done = fs_##U##_##CAS##_order(a, &seen, fs_##N##_bits(v), success, \
                                          failure);                            \
        *expected = fs_##N##_from_bits(seen);                                  \
        return done;                                                           \
    }                                                                          \
    FS_INLINE int fs_##N##_##CAS(fs_atomic_##N *a, T *expected, T v) {         \
        return fs_##N##_##CAS##_order(a, expected, v, FS_SEQ_CST, FS_SEQ_CST); \
    }

#define FS_FLOAT_RMW(N, T, NAME, FOLD)                                         \
    FS_INLINE T fs_##N##_##NAME##_order(fs_atomic_##N *a, T v, int order) {    \
        return fs_##N##_fold_order(a, v, FOLD, order);                         \
    }                                                                          \
    FS_INLINE T fs_##N##_##NAME(fs_atomic_##N *a, T v) {                       \
        return fs_##N##_fold_order(a, v, FOLD, FS_SEQ_CST);                    \
    }

#define FS_FLOAT_TYPE(N, T, U, BITS)                                           \
    FS_INLINE BITS fs_##N##_bits(T x) {                                        \
        BITS bits;                                                             \
        memcpy(&bits, &x, sizeof(bits));                                       \
        return bits;                                                           \
    }                                                                          \
    FS_INLINE T fs_##N##_from_bits(BITS bits) {                                \
        T x;                                                                   \
        memcpy(&x, &bits, sizeof(x));                                          \
        return x;                                                              \
    }                                                                          \
    FS_INLINE T fs_##N##_load_order(const fs_atomic_##N *a, int order) {       \
        return fs_##N##_from_bits(fs_##U##_load_order(a, order));              \
    }                                                                          \
    FS_INLINE T fs_##N##_load(const fs_atomic_##N *a) {                        \
        return fs_##N##_load_order(a, FS_SEQ_CST);                             \
    }                                                                          \
    FS_INLINE void fs_##N##_store_order(fs_atomic_##N *a, T v, int order) {    \
        fs_##U##_store_order(a, fs_##N##_bits(v), order);                      \
    }                                                                          \
    FS_INLINE void fs_##N##_store(fs_atomic_##N *a, T v) {                     \
        fs_##N##_store_order(a, v, FS_SEQ_CST);                                \
    }                                                                          \
    FS_INLINE T fs_##N##_exchange_order(fs_atomic_##N *a, T v, int order) {    \
        return fs_##N##_from_bits(fs_##U##_exchange_order(a, fs_##N##_bits(v), order)); \
    }                                                                          \
    FS_INLINE T fs_##N##_exchange(fs_atomic_##N *a, T v) {                     \
        return fs_##N##_exchange_order(a, v, FS_SEQ_CST);                      \
    }                                                                          \
    FS_FLOAT_CAS(N, T, U, BITS, cas)                                           \
    FS_FLOAT_CAS(N, T, U, BITS, cas_weak)                                      \
    FS_INLINE T fs_##N##_fold_order(fs_atomic_##N *a, T v, fs_fold fold, int order) { \
        BITS seen = fs_##U##_load_relaxed(a); /* relaxed: the CAS decides */   \
        while (!fs_##U##_cas_weak_order(                                       \
            a, &seen, fs_##N##_bits(fs_fold_##N(fs_##N##_from_bits(seen), v, fold)), \
            order, FS_RELAXED)) {                                              \
        }                                                                      \
        return fs_##N##_from_bits(seen);                                       \
    }                                                                          \
    FS_FLOAT_RMW(N, T, fetch_add, FS_FOLD_ADD)                                 \
    FS_FLOAT_RMW(N, T, fetch_sub, FS_FOLD_SUB)                                 \
    FS_FLOAT_RMW(N, T, fetch_max, FS_FOLD_MAX)                                 \
    FS_FLOAT_RMW(N, T, fetch_min, FS_FOLD_MIN)

FS_FLOAT_TYPE(f32, float, u32, uint32_t)
FS_FLOAT_TYPE(f64, double, u64, uint64_t)

/* A float's bits as a double, and back.  As the processor converts, except that a NaN keeps
 * its payload and stays signalling if it was, so that a value can be compared with what was
 * loaded: narrow(widen(bits)) == bits, always. */
FS_INLINE double fs_f32_widen(uint32_t bits) {
    if ((bits & 0x7fffffffu) <= 0x7f800000u) {
        return fs_f32_from_bits(bits);
    }
    return fs_f64_from_bits((uint64_t)(bits & 0x80000000u) << 32 | (uint64_t)0x7ff << 52 |
                            (uint64_t)(bits & 0x7fffffu) << 29);
}
FS_INLINE uint32_t fs_f32_narrow(double x) {
    uint64_t bits = fs_f64_bits(x);
    uint32_t payload = (uint32_t)(bits >> 29) & 0x7fffffu;
    if (x == x) {
        return fs_f32_bits((float)x);
    }
    /* Without payload it would be infinity. */
    return (uint32_t)(bits >> 32 & 0x80000000u) | 0x7f800000u | (payload ? payload : 0x400000u);
}
/* Whether a float is too narrow for `x`; infinities fit. */
FS_INLINE int fs_f32_overflows(double x) {
    return x - x == 0 && (float)x - (float)x != 0;
}

#endif
