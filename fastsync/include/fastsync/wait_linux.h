/* Linux: futex(2), private, absolute CLOCK_MONOTONIC deadlines. */
#ifndef FASTSYNC_WAIT_LINUX_H
#define FASTSYNC_WAIT_LINUX_H

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "posix.h"

#define FS_WAIT_BACKEND "futex"
/* A signal ends a sleep by itself, nearly always. */
#define FS_LOOK_NS 1000000000

/* A deadline as the kernel reads it.  The C library's struct timespec is neither of these
 * on some 32-bit systems: its seconds may have 64 bits where those of SYS_futex have 32. */
typedef struct { int64_t seconds, ns; } fs_time64;
typedef struct { __kernel_long_t seconds, ns; } fs_time_long;

FS_INLINE fs_time64 fs_kernel_time(int64_t ns) {
    fs_time64 t;
    ns = ns < 0 ? 0 : ns;
    t.seconds = ns / 1000000000;
    t.ns = ns % 1000000000;
    return t;
}

static inline long fs_futex(void *word, int op, uint32_t value, int64_t deadline,
                            uint32_t bits) {
    fs_time64 t = fs_kernel_time(deadline);
    int timed = deadline != FS_FOREVER;
#ifdef SYS_futex_time64  /* 32 bits */
    long r = syscall(SYS_futex_time64, word, op, value, timed ? &t : NULL, NULL, bits);
#  ifdef SYS_futex  /* Linux before 5.1 has only this */
    if (r < 0 && errno == ENOSYS) {
        fs_time_long old;
        old.seconds = (__kernel_long_t)t.seconds;
        old.ns = (__kernel_long_t)t.ns;
        r = syscall(SYS_futex, word, op, value, timed ? &old : NULL, NULL, bits);
    }
#  endif
    return r;
#else
    fs_time_long as_long;
    as_long.seconds = t.seconds;
    as_long.ns = t.ns;
    return syscall(SYS_futex, word, op, value, timed ? &as_long : NULL, NULL, bits);
#endif
}

/* Sleep while *word == value.  Returns FS_WOKEN on any wake-up, true or not. */
static inline int fs_futex_wait(fs_atomic_u32 *word, uint32_t value,
                                int64_t deadline) {
    long r = fs_futex(word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, value, deadline,
                      FUTEX_BITSET_MATCH_ANY);
    if (r == 0) {
        return FS_WOKEN;
    }
    switch (errno) {
    case EAGAIN:
        return FS_WOKEN;
    case EINTR:
        return FS_SIGNALLED;
    case ETIMEDOUT:
        return FS_TIMED_OUT;
    default:
        fs_fatal("futex wait", errno);
        return FS_WOKEN;
    }
}

/* The word may be gone by now (EFAULT), or be somebody else's (a spurious
 * wake-up, which every futex user must bear): both are harmless. */
FS_INLINE void fs_futex_wake_one(fs_atomic_u32 *word) {
    fs_futex(word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, FS_FOREVER, 0);
}

/* -- words that several processes map ------------------------------------------
 *
 * The kernel finds the sleepers by the memory itself, not by its address.  A
 * futex is 32 bits: a narrower word sleeps on the aligned 32 bits around it, and
 * a mask says which of the four bytes; of a wider one both halves are waited for
 * (futex_waitv, Linux 5.16), so that a change of either is seen. */
#define FS_SHARED_WAIT 1

#ifndef SYS_futex_waitv
#  define SYS_futex_waitv 449  /* the same on every architecture but Alpha */
#endif
/* Without futex_waitv a change of the other half alone is seen this late. */
#define FS_HALF_POLL_NS 5000000

FS_INLINE int fs_futex_result(long r) {
    if (r >= 0 || errno == EAGAIN) {
        return FS_WOKEN;
    }
    return errno == EINTR ? FS_SIGNALLED : errno == ETIMEDOUT ? FS_TIMED_OUT : -1;
}

static inline int fs_shared_wait_wide(char *word, uint64_t expected, int64_t deadline) {
    struct { uint64_t value, address; uint32_t flags, reserved; } half[2];
    uint32_t parts[2];
    fs_time64 t = fs_kernel_time(deadline);
    memcpy(parts, &expected, sizeof parts);
    for (int i = 0; i < 2; i++) {
        half[i].value = parts[i];
        half[i].address = (uintptr_t)word + 4 * (unsigned)i;
        half[i].flags = 2;  /* 32 bits, shared */
        half[i].reserved = 0;
    }
    int result = fs_futex_result(syscall(SYS_futex_waitv, half, 2, 0,
        deadline == FS_FOREVER ? NULL : &t, CLOCK_MONOTONIC));
    if (result >= 0) {
        return result;
    }
    int64_t look = fs_now() + FS_HALF_POLL_NS;
    result = fs_futex_result(fs_futex(word, FUTEX_WAIT_BITSET, parts[0],
                                      look < deadline ? look : deadline,
                                      FUTEX_BITSET_MATCH_ANY));
    return result == FS_TIMED_OUT && look < deadline ? FS_WOKEN : result;
}

/* Sleep while the `size` bytes at `word` are `expected`.  FS_WOKEN may be false. */
static inline int fs_shared_wait(void *word, int size, uint64_t expected, int64_t deadline) {
    unsigned at = (unsigned)((uintptr_t)word & 3);
    char *base = (char *)word - at;
    uint32_t around;
    int result;
    if (size == 8) {
        result = fs_shared_wait_wide(base, expected, deadline);
    } else {
        uint8_t e8 = (uint8_t)expected;
        uint16_t e16 = (uint16_t)expected;
        uint32_t e32 = (uint32_t)expected;
        const void *e = size == 1 ? (void *)&e8 : size == 2 ? (void *)&e16 : (void *)&e32;
        around = fs_u32_load((fs_atomic_u32 *)base);
        if (memcmp((char *)&around + at, e, (size_t)size) != 0) {
            return FS_WOKEN;
        }
        /* The neighbours' changes wake us falsely; ours is never missed. */
        result = fs_futex_result(fs_futex(base, FUTEX_WAIT_BITSET, around, deadline, 1u << at));
    }
    if (result < 0) {
        fs_fatal("shared futex wait", errno);
    }
    return result;
}

FS_INLINE int fs_shared_wake(void *word, int size, int count) {
    unsigned at = (unsigned)((uintptr_t)word & 3);
    return (int)fs_futex((char *)word - at, FUTEX_WAKE_BITSET, (uint32_t)count, FS_FOREVER,
                         size == 8 ? FUTEX_BITSET_MATCH_ANY : 1u << at);
}

FS_INLINE void fs_bucket_lock_sleep(fs_atomic_u32 *word, uint32_t value) {
    fs_futex_wait(word, value, FS_FOREVER);
}

FS_INLINE void fs_bucket_lock_wake(fs_atomic_u32 *word) { fs_futex_wake_one(word); }

/* Wait word: 1 not woken, awake; 2 not woken, asleep; 0 woken. */
typedef struct {
    fs_atomic_u32 word;
} fs_waitword;

FS_INLINE void fs_waitword_init(fs_waitword *w) {
    fs_u32_store_relaxed(&w->word, 1);  /* relaxed: published by the bucket lock */
}

FS_INLINE int fs_waitword_woken(const fs_waitword *w) {
    /* acquire: pairs with the release in fs_waitword_wake */
    return fs_u32_load_acquire((fs_atomic_u32 *)&w->word) == 0;
}

static inline int fs_waitword_wait(fs_waitword *w, int64_t deadline) {
    uint32_t awake = 1;
    /* relaxed: only announces that a wake-up needs the system call */
    fs_u32_cas_relaxed(&w->word, &awake, 2);
    while (!fs_waitword_woken(w)) {
        int r = fs_futex_wait(&w->word, 2, deadline);
        if (r != FS_WOKEN) {
            return fs_waitword_woken(w) ? FS_WOKEN : r;
        }
    }
    return FS_WOKEN;
}

FS_INLINE void fs_waitword_wake(fs_waitword *w) {
    /* release: pairs with the acquire in fs_waitword_woken */
    if (fs_u32_exchange_release(&w->word, 0) == 2) {
        fs_futex_wake_one(&w->word);  /* *w may be gone: see above */
    }
}

FS_INLINE void fs_waitword_destroy(fs_waitword *w) { (void)w; }

#endif
