/* What the POSIX backends share: clock, thread identity, yield, fork hook. */
#ifndef FASTSYNC_POSIX_H
#define FASTSYNC_POSIX_H

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

FS_INLINE int64_t fs_now(void) {
#ifdef __APPLE__
    /* mach_absolute_time() in nanoseconds: it stands still while the machine sleeps, as
     * time.monotonic() does; CLOCK_MONOTONIC goes on. */
    return (int64_t)clock_gettime_nsec_np(CLOCK_UPTIME_RAW);
#else
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
#endif
}

FS_INLINE int64_t fs_ticks(void) { return fs_now(); }

FS_INLINE struct timespec fs_timespec(int64_t ns) {
    struct timespec t;
    if (ns < 0) {
        ns = 0;
    }
    t.tv_sec = (time_t)(ns / 1000000000);
    t.tv_nsec = (long)(ns % 1000000000);
    return t;
}

FS_INLINE uintptr_t fs_thread_id(void) { return (uintptr_t)pthread_self(); }

FS_INLINE void fs_yield(void) { sched_yield(); }

/* An error that the protocol rules out: nothing sensible can go on. */
static inline void fs_fatal(const char *what, int error) {
    fprintf(stderr, "fastsync: %s: %s\n", what, strerror(error));
    abort();
}

FS_INLINE int fs_at_fork(void (*before)(void), void (*parent)(void),
                         void (*child)(void)) {
    return pthread_atfork(before, parent, child);
}

/* Bucket lock.  Bits 0 and 1: 0 free, 1 held, 2 held and somebody may sleep on it.  The
 * others are the epoch of its last use, as the caller counts them, modulo 2^30: when
 * they differ, the lock is free, whatever bits 0 and 1 say. */
typedef struct {
    fs_atomic_u32 word;
} fs_bucket_lock;

/* The backend's: sleep while *word == value, or for a while; wake one such sleeper. */
FS_INLINE void fs_bucket_lock_sleep(fs_atomic_u32 *word, uint32_t value);
FS_INLINE void fs_bucket_lock_wake(fs_atomic_u32 *word);

static FS_COLD int fs_bucket_lock_slow(fs_bucket_lock *l, uint32_t free) {
    /* Held for tens of instructions: a short spin usually outlasts it. */
    for (int i = 0; i < 40; i++) {
        uint32_t seen = fs_u32_load_relaxed(&l->word);  /* relaxed: the CAS decides */
        uint32_t other_epoch = (seen ^ free) & ~(uint32_t)3;
        /* acquire: pairs with the release in fs_bucket_lock_release; in another epoch
         * with nothing, as this process was one thread when its epoch began */
        if ((other_epoch || seen == free) &&
            fs_u32_cas_acquire(&l->word, &seen, free | 1)) {
            return other_epoch != 0;
        }
        fs_pause();
    }
    /* A thread of this epoch has had it by now, or the CAS would not have failed.
     * acquire: pairs with the release in fs_bucket_lock_release */
    while (fs_u32_exchange_acquire(&l->word, free | 2) != free) {
        fs_bucket_lock_sleep(&l->word, free | 2);
    }
    return 0;
}

FS_INLINE int fs_bucket_lock_acquire(fs_bucket_lock *l, uint32_t epoch) {
    uint32_t free = epoch << 2;
    uint32_t seen = free;
    /* acquire: pairs with the release in fs_bucket_lock_release */
    if (fs_likely(fs_u32_cas_acquire(&l->word, &seen, free | 1))) {
        return 0;
    }
    return fs_bucket_lock_slow(l, free);
}

FS_INLINE void fs_bucket_lock_release(fs_bucket_lock *l, uint32_t epoch) {
    /* release: pairs with the acquires above */
    if ((fs_u32_exchange_release(&l->word, epoch << 2) & 3) == 2) {
        fs_bucket_lock_wake(&l->word);
    }
}

#endif
