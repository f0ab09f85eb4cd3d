/* A small number for each thread: 0, 1, 2, ... in the order in which they first
 * ask.  Consecutive threads get different numbers modulo any table size, which
 * a hash of the thread's address cannot promise.
 *
 * Each module that includes this counts for itself. */
#ifndef FASTSYNC_THREAD_INDEX_H
#define FASTSYNC_THREAD_INDEX_H

#include "atomic.h"

static FS_THREAD_LOCAL uint32_t fs_thread_number;  /* one more than the index; 0: not asked */
static fs_atomic_u32 fs_threads_numbered;

FS_INLINE uint32_t fs_thread_index(void) {
    if (fs_thread_number == 0) {
        /* relaxed: only the number has to be new */
        fs_thread_number = fs_u32_fetch_add_relaxed(&fs_threads_numbered, 1) + 1;
    }
    return fs_thread_number - 1;
}

#endif
