/* Any POSIX system: a mutex and a condition variable for each sleeper.
 * Builds on Linux too (FS_FORCE_WAIT_PTHREAD), so that it is tested. */
#ifndef FASTSYNC_WAIT_PTHREAD_H
#define FASTSYNC_WAIT_PTHREAD_H

#include "posix.h"

#define FS_WAIT_BACKEND "pthread"

/* A signal does not end pthread_cond_wait. */
#define FS_LOOK_NS 20000000

/* Not a pthread mutex: that has no value of zeros, and no way to take it from a thread
 * that a fork has left behind.  The sleep lets a thread of any priority go on that holds
 * the lock and has lost its processor. */
#define FS_BUCKET_SLEEP_NS 20000

FS_INLINE void fs_bucket_lock_sleep(fs_atomic_u32 *word, uint32_t value) {
    struct timespec t = fs_timespec(FS_BUCKET_SLEEP_NS);
    (void)word; (void)value;
    nanosleep(&t, NULL);
}

FS_INLINE void fs_bucket_lock_wake(fs_atomic_u32 *word) { (void)word; }

typedef struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    fs_atomic_u32 woken;
} fs_waitword;

static inline void fs_waitword_init(fs_waitword *w) {
    pthread_condattr_t monotonic;
    fs_u32_store_relaxed(&w->woken, 0);  /* relaxed: published by the bucket lock */
    pthread_condattr_init(&monotonic);
#ifndef __APPLE__
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
#endif
    int error = pthread_mutex_init(&w->mutex, NULL);
    if (!error) {
        error = pthread_cond_init(&w->changed, &monotonic);
    }
    pthread_condattr_destroy(&monotonic);
    if (error) {
        fs_fatal("pthread_cond_init", error);
    }
}

FS_INLINE int fs_waitword_woken(const fs_waitword *w) {
    /* acquire: pairs with the release in fs_waitword_wake */
    return fs_u32_load_acquire((fs_atomic_u32 *)&w->woken) != 0;
}

/* One sleep until `until`; the caller holds w->mutex. */
static inline int fs_waitword_sleep(fs_waitword *w, int64_t until) {
    if (until == FS_FOREVER) {
        return pthread_cond_wait(&w->changed, &w->mutex);
    }
#ifdef __APPLE__
    int64_t left = until - fs_now();
    struct timespec t = fs_timespec(left);
    return left <= 0 ? ETIMEDOUT
                     : pthread_cond_timedwait_relative_np(&w->changed, &w->mutex, &t);
#else
    struct timespec t = fs_timespec(until);
    return pthread_cond_timedwait(&w->changed, &w->mutex, &t);
#endif
}

static inline int fs_waitword_wait(fs_waitword *w, int64_t deadline) {
    int result = FS_WOKEN;
    pthread_mutex_lock(&w->mutex);
    while (!fs_waitword_woken(w)) {
        int error = fs_waitword_sleep(w, deadline);
        if (error && error != ETIMEDOUT) {
            fs_fatal("pthread_cond_wait", error);
        }
        /* A relative sleep may end a moment early. */
        if (error && !fs_waitword_woken(w) && fs_now() >= deadline) {
            result = FS_TIMED_OUT;
            break;
        }
    }
    pthread_mutex_unlock(&w->mutex);
    return result;
}

static inline void fs_waitword_wake(fs_waitword *w) {
    /* The sleeper frees *w only after it has held this mutex (destroy below). */
    pthread_mutex_lock(&w->mutex);
    /* release: pairs with the acquire in fs_waitword_woken */
    fs_u32_store_release(&w->woken, 1);
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->mutex);
}

static inline void fs_waitword_destroy(fs_waitword *w) {
    /* A spinning sleeper may have seen `woken` while the waker is still inside:
     * passing through the mutex lets it leave first. */
    pthread_mutex_lock(&w->mutex);
    pthread_mutex_unlock(&w->mutex);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->mutex);
}

#endif
