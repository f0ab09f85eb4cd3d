/* The words of the locks: one definition for C, C++ and Cython, so that a pointer to
 * one passes between them.  Their states are explained in the .pxd files.
 *
 * The first names are those that Cython compares when an extension is imported,
 * hence the API's series in them: see fs_key in parking.pxd. */
#ifndef FASTSYNC_WORDS_H
#define FASTSYNC_WORDS_H

#include <stddef.h>
#include <stdint.h>

#include "atomic.h"

typedef struct { fs_atomic_u8 state; } fastsync_0_2_mutex;
typedef fastsync_0_2_mutex fs_mutex;

typedef struct {
    fs_atomic_uptr owner;
    fs_atomic_u32 count;
    fs_mutex mutex;
} fastsync_0_2_remutex;
typedef fastsync_0_2_remutex fs_remutex;

typedef struct { fs_atomic_uptr mutex; } fastsync_0_2_condvar;
typedef fastsync_0_2_condvar fs_condvar;

typedef struct { fs_atomic_u64 state; } fastsync_0_2_semaphore;
typedef fastsync_0_2_semaphore fs_semaphore;

typedef struct { fs_atomic_u8 state; } fastsync_0_2_event;
typedef fastsync_0_2_event fs_event;

typedef struct {
    uint32_t parties;
    uint32_t count;
    uint32_t generation;
    uint32_t draining;
    uint32_t epoch;
    int passed;
    int running;
    int broken;
    fs_mutex lock;
} fastsync_0_2_barrier;
typedef fastsync_0_2_barrier fs_barrier;

typedef struct { fs_atomic_uptr state; } fastsync_0_2_rwlock;
typedef fastsync_0_2_rwlock fs_rwlock;

typedef struct { fs_atomic_u8 state; } fastsync_0_2_once;
typedef fastsync_0_2_once fs_once;

/* What a callback of the parking table is told. */
typedef struct {
    size_t unparked;
    size_t requeued;
    int have_more;
    int be_fair;
} fs_unpark_result;

#endif
