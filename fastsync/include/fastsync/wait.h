/* Put one thread to sleep and wake it: the only place that knows a platform.
 *
 * Every backend provides
 *
 *   FS_WAIT_BACKEND            its name, a string
 *   fs_bucket_lock             a small lock that may not use the parking table; all
 *                              zeros are a free one
 *     int  fs_bucket_lock_acquire(l, epoch) whether its last use was in another epoch:
 *                                           it may have been held then, by a thread
 *                                           that a fork has left behind
 *     void fs_bucket_lock_release(l, epoch)
 *   FS_LOOK_NS                 how long a thread that runs signal handlers may
 *                              sleep and not look whether one is due
 *   fs_waitword                one sleeping thread; lives in that thread's frame
 *     void fs_waitword_init(w)
 *     int  fs_waitword_woken(w)             polled while spinning
 *     int  fs_waitword_wait(w, deadline)
 *     void fs_waitword_wake(w)              exactly once for each init
 *     void fs_waitword_destroy(w)
 *   int64_t fs_now(void)       monotonic nanoseconds, time.monotonic()'s clock
 *   int64_t fs_ticks(void)     the same or a finer clock, for durations only
 *   uintptr_t fs_thread_id(void)            never 0; what threading.get_ident() says
 *   void fs_yield(void)
 *
 * fs_waitword_wait returns FS_WOKEN, FS_TIMED_OUT (deadline passed), or
 * FS_SIGNALLED: a signal handler may have run.  That last is a hint; a caller
 * that does not care calls again.  It may be missing: no platform can tell of a
 * signal that came before the sleep or to another thread, and most of none.
 * So the parking table looks, too.
 *
 * fs_waitword_wake releases what the waker wrote before it (the woken thread
 * acquires it in wait or woken) and may not touch *w in a way that matters
 * once the sleeper can see the wake-up, because the sleeper's frame may be gone.
 */
#ifndef FASTSYNC_WAIT_H
#define FASTSYNC_WAIT_H

#include "atomic.h"

/* A deadline that never comes. */
#define FS_FOREVER INT64_MAX

#define FS_WOKEN 0
#define FS_TIMED_OUT 1
#define FS_SIGNALLED 2

/* After how long it looks for the first time; then twice as long each time. */
#define FS_FIRST_LOOK_NS 1000000

/* What several threads write without pause is kept on lines of its own. */
#define FS_CACHE_LINE 64
#if defined(__cplusplus)
#  define FS_LINE_ALIGNED alignas(FS_CACHE_LINE)
#elif defined(_MSC_VER)
#  define FS_LINE_ALIGNED __declspec(align(FS_CACHE_LINE))
#else
#  define FS_LINE_ALIGNED _Alignas(FS_CACHE_LINE)
#endif

#if defined(_WIN32)
#  include "wait_windows.h"
#elif defined(FS_FORCE_WAIT_PTHREAD)
#  include "wait_pthread.h"
#elif defined(__linux__)
#  include "wait_linux.h"
#elif defined(__APPLE__)
#  include "wait_darwin.h"
#else
#  include "wait_pthread.h"
#endif

#ifndef FS_SHARED_WAIT
/* No wait between processes here: callers look at FS_SHARED_WAIT first. */
#  define FS_SHARED_WAIT 0
FS_INLINE int fs_shared_wait(void *word, int size, uint64_t expected, int64_t deadline) {
    (void)word; (void)size; (void)expected; (void)deadline;
    return FS_TIMED_OUT;
}
FS_INLINE int fs_shared_wake(void *word, int size, int count) {
    (void)word; (void)size; (void)count;
    return 0;
}
#endif

#endif
