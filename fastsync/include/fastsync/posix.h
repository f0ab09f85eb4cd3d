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
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

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

#endif
