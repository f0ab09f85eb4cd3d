/* C11 atomics behind opaque structs.
 *
 * Cython has no syntax for _Atomic, and a plain C read of an _Atomic is a
 * hidden seq_cst load.  So nothing here is visible as an _Atomic: one struct
 * per width, one function per operation and order.
 *
 * Naming: fs_<type>_<operation>[_<order>].  No suffix means seq_cst; a weaker
 * order is always spelled at the call site.  Read-modify-write operations
 * return the previous value.  A failed compare-exchange of a weaker order loads
 * relaxed (the caller loops and re-examines); of seq_cst, seq_cst.
 */
#ifndef FASTSYNC_ATOMIC_H
#define FASTSYNC_ATOMIC_H

#include <stdint.h>
#include <stddef.h>
#if defined(_MSC_VER)
#  include <intrin.h>  /* what fs_pause() needs */
#endif

/* MSVC still defines __STDC_NO_ATOMICS__ when its C11 atomics are on. */
#if defined(__STDC_NO_ATOMICS__) && !defined(_MSC_VER)
#  error "fastsync needs C11 atomics"
#endif

#ifdef __cplusplus
#  include <atomic>
#  define FS_ATOMIC(T) std::atomic<T>
#  define FS_STD(name) std::name
#else
#  include <stdatomic.h>
#  define FS_ATOMIC(T) _Atomic(T)
#  define FS_STD(name) name
#endif

#if defined(__GNUC__) || defined(__clang__)
#  define FS_INLINE static inline __attribute__((always_inline, unused))
#  define FS_COLD __attribute__((cold, noinline))
#  define fs_likely(condition) __builtin_expect(!!(condition), 1)
#else
#  define FS_INLINE static inline
#  define FS_COLD
#  define fs_likely(condition) (condition)
#endif

#if defined(_MSC_VER) && !defined(__cplusplus)
#  define FS_THREAD_LOCAL __declspec(thread)
#elif defined(__cplusplus)
#  define FS_THREAD_LOCAL thread_local
#else
#  define FS_THREAD_LOCAL _Thread_local
#endif

#define FS_ATOMIC_LOAD(N, T, SUFFIX, ORDER)                                    \
    FS_INLINE T fs_##N##_load##SUFFIX(const fs_atomic_##N *a) {                \
        return FS_STD(atomic_load_explicit)(&a->value, FS_STD(ORDER));         \
    }

#define FS_ATOMIC_STORE(N, T, SUFFIX, ORDER)                                   \
    FS_INLINE void fs_##N##_store##SUFFIX(fs_atomic_##N *a, T v) {             \
        FS_STD(atomic_store_explicit)(&a->value, v, FS_STD(ORDER));            \
    }

#define FS_ATOMIC_RMW1(N, T, NAME, STDNAME, SUFFIX, ORDER)                     \
    FS_INLINE T fs_##N##_##NAME##SUFFIX(fs_atomic_##N *a, T v) {               \
        return FS_STD(STDNAME)(&a->value, v, FS_STD(ORDER));                   \
    }

#define FS_ATOMIC_CAS(N, T, SUFFIX, SUCCESS, FAILURE)                          \
    FS_INLINE int fs_##N##_cas##SUFFIX(fs_atomic_##N *a, T *expected, T v) {   \
        return FS_STD(atomic_compare_exchange_strong_explicit)(                \
            &a->value, expected, v, FS_STD(SUCCESS), FS_STD(FAILURE));         \
    }                                                                          \
    FS_INLINE int fs_##N##_cas_weak##SUFFIX(fs_atomic_##N *a, T *expected,     \
                                            T v) {                             \
        return FS_STD(atomic_compare_exchange_weak_explicit)(                  \
            &a->value, expected, v, FS_STD(SUCCESS), FS_STD(FAILURE));         \
    }

#define FS_ATOMIC_RMW(N, T, NAME, STDNAME)                                     \
    FS_ATOMIC_RMW1(N, T, NAME, STDNAME, , memory_order_seq_cst)                \
    FS_ATOMIC_RMW1(N, T, NAME, STDNAME, _relaxed, memory_order_relaxed)        \
    FS_ATOMIC_RMW1(N, T, NAME, STDNAME, _acquire, memory_order_acquire)        \
    FS_ATOMIC_RMW1(N, T, NAME, STDNAME, _release, memory_order_release)        \
    FS_ATOMIC_RMW1(N, T, NAME, STDNAME, _acq_rel, memory_order_acq_rel)

/* tools/sanitize.py plants a race, one of these, in a build of its own. */
#define FS_RACE_UNLOCK 1  /* unlocking no longer releases */
#define FS_RACE_LOCK 2    /* locking no longer acquires */
#define FS_RACE_LOOK 3    /* seeing that something is done no longer acquires */
#ifdef FS_PLANT_RACE
#  define FS_ORDER_OR_RACE(ORDER, RACE)                                        \
    (FS_PLANT_RACE == RACE ? memory_order_relaxed : ORDER)
#else
#  define FS_ORDER_OR_RACE(ORDER, RACE) ORDER
#endif
#define FS_UNLOCK_ORDER FS_ORDER_OR_RACE(memory_order_release, FS_RACE_UNLOCK)
#define FS_LOCK_ORDER FS_ORDER_OR_RACE(memory_order_acquire, FS_RACE_LOCK)
#define FS_LOOK_ORDER FS_ORDER_OR_RACE(memory_order_acquire, FS_RACE_LOOK)

/* What every type has; pointers stop here. */
#define FS_ATOMIC_TYPE(N, T)                                                   \
    typedef struct { FS_ATOMIC(T) value; } fs_atomic_##N;                      \
    FS_ATOMIC_LOAD(N, T, , memory_order_seq_cst)                               \
    FS_ATOMIC_LOAD(N, T, _acquire, FS_LOOK_ORDER)                              \
    FS_ATOMIC_LOAD(N, T, _relaxed, memory_order_relaxed)                       \
    FS_ATOMIC_STORE(N, T, , memory_order_seq_cst)                              \
    FS_ATOMIC_STORE(N, T, _release, memory_order_release)                      \
    FS_ATOMIC_STORE(N, T, _relaxed, memory_order_relaxed)                      \
    FS_ATOMIC_RMW(N, T, exchange, atomic_exchange_explicit)                    \
    FS_ATOMIC_CAS(N, T, , memory_order_seq_cst, memory_order_seq_cst)          \
    FS_ATOMIC_CAS(N, T, _relaxed, memory_order_relaxed, memory_order_relaxed)  \
    FS_ATOMIC_CAS(N, T, _acquire, FS_LOCK_ORDER, memory_order_relaxed)         \
    FS_ATOMIC_CAS(N, T, _release, FS_UNLOCK_ORDER, memory_order_relaxed)       \
    FS_ATOMIC_CAS(N, T, _acq_rel, memory_order_acq_rel, memory_order_relaxed)

#define FS_ATOMIC_INT_TYPE(N, T)                                               \
    FS_ATOMIC_TYPE(N, T)                                                       \
    FS_ATOMIC_RMW(N, T, fetch_add, atomic_fetch_add_explicit)                  \
    FS_ATOMIC_RMW(N, T, fetch_sub, atomic_fetch_sub_explicit)                  \
    FS_ATOMIC_RMW(N, T, fetch_and, atomic_fetch_and_explicit)                  \
    FS_ATOMIC_RMW(N, T, fetch_or, atomic_fetch_or_explicit)                    \
    FS_ATOMIC_RMW(N, T, fetch_xor, atomic_fetch_xor_explicit)

FS_ATOMIC_INT_TYPE(u8, uint8_t)
FS_ATOMIC_INT_TYPE(u16, uint16_t)
FS_ATOMIC_INT_TYPE(u32, uint32_t)
FS_ATOMIC_INT_TYPE(u64, uint64_t)
FS_ATOMIC_INT_TYPE(i8, int8_t)
FS_ATOMIC_INT_TYPE(i16, int16_t)
FS_ATOMIC_INT_TYPE(i32, int32_t)
FS_ATOMIC_INT_TYPE(i64, int64_t)
FS_ATOMIC_INT_TYPE(uptr, uintptr_t)
FS_ATOMIC_TYPE(ptr, void *)

/* Tell the core that this thread is spinning. */
FS_INLINE void fs_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || (defined(__arm__) && __ARM_ARCH >= 7)
    __asm__ __volatile__("isb" ::: "memory");
#elif defined(_MSC_VER) && (defined(_M_X64) || defined(_M_IX86))
    _mm_pause();
#elif defined(_MSC_VER) && defined(_M_ARM64)
    __yield();
#endif
}

#endif
