/* fastsync for C and C++ extension modules: this header alone.
 *
 *     #include <fastsync/fastsync.h>            after Python.h
 *
 *     if (fastsync_import() < 0) return NULL;   in the module's init function
 *
 * Compile with fastsync.get_include() among the include folders.  A word that
 * is all zeros is a valid, free one; it must not move while anybody uses it.
 * The functions may be called with or without an attached thread state; one
 * that waits detaches the state that it finds.  Nothing links against
 * fastsync: fast paths are inline, what waits or wakes goes through a table of
 * functions that fastsync_import() gets.  docs/cython-api.md has the contract
 * of each function; names here are those of the .pxd files with fs_ in front.
 */
#ifndef FASTSYNC_FASTSYNC_H
#define FASTSYNC_FASTSYNC_H

#include <Python.h>
#include <string.h>

#include "atomic.h"
#include "version.h"

/* A deadline, in nanoseconds of time.monotonic()'s clock, that never comes. */
#ifndef FS_FOREVER
#  define FS_FOREVER INT64_MAX
#endif

/* Flags of what waits. */
#define FS_PLAIN 0
#define FS_SIGNALS 1 /* run Python's signal handlers: with a thread state only */

/* What it answers. */
#define FS_ERROR (-1) /* a signal handler raised: an exception is set */
#define FS_TIMEOUT 0
#define FS_ACQUIRED 1

#define FS_CONDVAR_TIMEOUT 0
#define FS_CONDVAR_NOTIFIED 1
#define FS_CONDVAR_BAD_MUTEX 2

#define FS_BARRIER_BROKEN 0
#define FS_BARRIER_PASSED 1
#define FS_BARRIER_LAST 2

/* -- the words: the same as in locks.pxd, where their states are explained -- */

typedef struct { fs_atomic_u8 state; } fs_mutex;

typedef struct {
    fs_atomic_uptr owner;
    uint32_t count;
    fs_mutex mutex;
} fs_remutex;

typedef struct { fs_atomic_uptr mutex; } fs_condvar;

typedef struct { fs_atomic_u64 state; } fs_semaphore;

typedef struct { fs_atomic_u8 state; } fs_event;

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
} fs_barrier;

typedef struct { fs_atomic_uptr state; } fs_rwlock;

/* -- the parking table's callbacks: see parking.pxd ------------------------- */

#define FS_PARK_UNPARKED 0
#define FS_PARK_INVALID 1
#define FS_PARK_TIMED_OUT 2
#define FS_PARK_INTERRUPTED 3
#define FS_PARK_UNPARKED_INTERRUPTED 4

#define FS_UNPARK 0
#define FS_SKIP 1
#define FS_STOP 2

#define FS_REQUEUE_ABORT 0
#define FS_REQUEUE_UNPARK_ONE_REST 1
#define FS_REQUEUE_ALL 2

typedef struct {
    size_t unparked;
    size_t requeued;
    int have_more;
    int be_fair;
} fs_unpark_result;

typedef int (*fs_validate)(void *ctx);
typedef int (*fs_before_sleep)(void *ctx);
typedef void (*fs_timed_out)(void *ctx, uintptr_t key, int was_last);
typedef uintptr_t (*fs_unparked)(void *ctx, fs_unpark_result *result);
typedef int (*fs_filter)(void *ctx, uintptr_t park_token);
typedef int (*fs_requeue_op)(void *ctx);

/* -- the table --------------------------------------------------------------- */

typedef struct {
    const char *version; /* of the fastsync that runs, "0.1.0" */
    size_t size;         /* of its table */
    int64_t (*now)(void);
    int (*mutex_lock_slow)(fs_mutex *, int64_t deadline, int flags);
    int (*mutex_unlock_slow)(fs_mutex *, int fair);
    int (*remutex_lock_until)(fs_remutex *, int64_t deadline, int flags);
    int (*remutex_try_lock)(fs_remutex *);
    int (*remutex_unlock)(fs_remutex *);
    int (*condvar_wait)(fs_condvar *, fs_mutex *, int64_t deadline, int flags);
    size_t (*condvar_notify_some)(fs_condvar *, size_t limit);
    int (*semaphore_acquire_slow)(fs_semaphore *, int64_t deadline, int flags);
    int (*semaphore_release)(fs_semaphore *, uint64_t n, uint64_t limit);
    void (*event_set)(fs_event *);
    void (*event_clear)(fs_event *);
    int (*event_wait_slow)(fs_event *, int64_t deadline, int flags);
    int (*barrier_arrive)(fs_barrier *, int64_t deadline, int flags, uint32_t *index);
    int (*barrier_open)(fs_barrier *);
    void (*barrier_abort)(fs_barrier *);
    int (*barrier_reset)(fs_barrier *, int flags);
    int (*park)(uintptr_t key, fs_validate, fs_before_sleep, fs_timed_out, void *ctx,
                uintptr_t park_token, int64_t deadline, int flags, uintptr_t *token);
    size_t (*unpark_one)(uintptr_t key, fs_unparked, void *ctx);
    size_t (*unpark_all)(uintptr_t key, uintptr_t token);
    size_t (*unpark_filter)(uintptr_t key, fs_filter, fs_unparked, void *ctx);
    size_t (*unpark_requeue)(uintptr_t from, uintptr_t to, size_t limit, fs_requeue_op,
                             fs_unparked, void *ctx);
    size_t (*parked_count)(uintptr_t key);
    int (*rwlock_read_until)(fs_rwlock *, int64_t deadline, int flags);
    int (*rwlock_try_read)(fs_rwlock *);
    int (*rwlock_unlock_read)(fs_rwlock *);
    int (*rwlock_write_until)(fs_rwlock *, int64_t deadline, int flags);
    int (*rwlock_try_write)(fs_rwlock *);
    int (*rwlock_unlock_write)(fs_rwlock *);
    void (*rwlock_downgrade)(fs_rwlock *);
    int (*rwlock_upgradable_read_until)(fs_rwlock *, int64_t deadline, int flags);
    int (*rwlock_unlock_upgradable)(fs_rwlock *);
    int (*rwlock_upgrade_until)(fs_rwlock *, int64_t deadline, int flags);
} fs_table;

#define FASTSYNC_CAPSULE "fastsync.capi.table"

/* One pointer for all source files of an extension, and for no other extension. */
#if defined(_MSC_VER)
__declspec(selectany) const fs_table *fastsync_table = NULL;
#else
__attribute__((weak, visibility("hidden"))) const fs_table *fastsync_table = NULL;
#endif

/* 0, or -1 with an ImportError that names both versions. */
static inline int fastsync_import(void) {
    /* PyCapsule_Import alone would import the package only. */
    PyObject *home = PyImport_ImportModule("fastsync.capi");
    const fs_table *table = NULL;
    if (home != NULL) {
        table = (const fs_table *)PyCapsule_Import(FASTSYNC_CAPSULE, 0);
        Py_DECREF(home); /* sys.modules has it, and it is never unloaded */
    }
    if (table == NULL) {
        return -1;
    }
    if (strncmp(table->version, FASTSYNC_SERIES, sizeof(FASTSYNC_SERIES) - 1) != 0 ||
        table->size < sizeof(fs_table)) {
        PyErr_Format(PyExc_ImportError,
                     "this extension was compiled for fastsync " FASTSYNC_VERSION
                     ", but fastsync %s is installed",
                     table->version);
        return -1;
    }
    fastsync_table = table;
    return 0;
}

/* -- time ---------------------------------------------------------------------- */

FS_INLINE int64_t fs_deadline_after(int64_t ns) {
    int64_t now = fastsync_table->now();
    if (ns <= 0) {
        return 0;
    }
    return ns >= FS_FOREVER - now ? FS_FOREVER : now + ns;
}

/* -- mutex --------------------------------------------------------------------- */

#define FS_MUTEX_LOCKED 1
#define FS_MUTEX_PARKED 2

FS_INLINE int fs_mutex_is_locked(const fs_mutex *m) {
    /* relaxed: a snapshot that orders nothing */
    return fs_u8_load_relaxed(&m->state) & FS_MUTEX_LOCKED;
}

FS_INLINE int fs_mutex_try_lock(fs_mutex *m) {
    uint8_t seen = 0;
    /* acquire: pairs with the release in fs_mutex_unlock */
    while (!fs_u8_cas_acquire(&m->state, &seen, (uint8_t)(seen | FS_MUTEX_LOCKED))) {
        if (seen & FS_MUTEX_LOCKED) {
            return 0;
        }
    }
    return 1;
}

FS_INLINE int fs_mutex_lock_until(fs_mutex *m, int64_t deadline, int flags) {
    uint8_t free = 0;
    /* acquire: pairs with the release in fs_mutex_unlock */
    if (fs_u8_cas_acquire(&m->state, &free, FS_MUTEX_LOCKED)) {
        return FS_ACQUIRED;
    }
    return fastsync_table->mutex_lock_slow(m, deadline, flags);
}

FS_INLINE void fs_mutex_lock(fs_mutex *m) { fs_mutex_lock_until(m, FS_FOREVER, FS_PLAIN); }

FS_INLINE int fs_mutex_try_lock_for(fs_mutex *m, int64_t ns) {
    return fs_mutex_try_lock(m) ||
           fs_mutex_lock_until(m, fs_deadline_after(ns), FS_PLAIN) == FS_ACQUIRED;
}

FS_INLINE int fs_mutex_unlock(fs_mutex *m) {
    uint8_t held = FS_MUTEX_LOCKED;
    /* release: pairs with the acquire of the next owner */
    if (fs_u8_cas_release(&m->state, &held, 0)) {
        return 0;
    }
    return fastsync_table->mutex_unlock_slow(m, 0);
}

FS_INLINE int fs_mutex_unlock_fair(fs_mutex *m) {
    uint8_t held = FS_MUTEX_LOCKED;
    /* release: pairs with the acquire of the next owner */
    if (fs_u8_cas_release(&m->state, &held, 0)) {
        return 0;
    }
    return fastsync_table->mutex_unlock_slow(m, 1);
}

FS_INLINE void fs_mutex_bump(fs_mutex *m) {
    /* relaxed: advisory; the slow path looks again under the bucket lock */
    if (fs_u8_load_relaxed(&m->state) & FS_MUTEX_PARKED) {
        fastsync_table->mutex_unlock_slow(m, 1);
        fs_mutex_lock(m);
    }
}

/* -- re-entrant mutex ------------------------------------------------------------ */

FS_INLINE int fs_remutex_lock_until(fs_remutex *m, int64_t deadline, int flags) {
    return fastsync_table->remutex_lock_until(m, deadline, flags);
}
FS_INLINE void fs_remutex_lock(fs_remutex *m) {
    fastsync_table->remutex_lock_until(m, FS_FOREVER, FS_PLAIN);
}
FS_INLINE int fs_remutex_try_lock(fs_remutex *m) { return fastsync_table->remutex_try_lock(m); }
FS_INLINE int fs_remutex_unlock(fs_remutex *m) { return fastsync_table->remutex_unlock(m); }

/* -- condition variable ------------------------------------------------------------ */

FS_INLINE int fs_condvar_wait(fs_condvar *c, fs_mutex *m, int64_t deadline, int flags) {
    return fastsync_table->condvar_wait(c, m, deadline, flags);
}

FS_INLINE int fs_condvar_wait_for(fs_condvar *c, fs_mutex *m, int64_t ns) {
    return fs_condvar_wait(c, m, fs_deadline_after(ns), FS_PLAIN) == FS_CONDVAR_NOTIFIED;
}

FS_INLINE int fs_condvar_has_waiters(const fs_condvar *c) {
    /* relaxed: the waiters' mutex orders it, see locks.pxd */
    return fs_uptr_load_relaxed(&c->mutex) != 0;
}

FS_INLINE int fs_condvar_notify_one(fs_condvar *c) {
    return fs_condvar_has_waiters(c) && fastsync_table->condvar_notify_some(c, 1) != 0;
}

FS_INLINE size_t fs_condvar_notify_all(fs_condvar *c) {
    return fs_condvar_has_waiters(c) ? fastsync_table->condvar_notify_some(c, SIZE_MAX) : 0;
}

/* -- semaphore ----------------------------------------------------------------------- */

#define FS_SEMAPHORE_MAX (UINT64_MAX >> 1)

FS_INLINE void fs_semaphore_init(fs_semaphore *s, uint64_t value) {
    fs_u64_store_relaxed(&s->state, value << 1); /* relaxed: not shared yet */
}

FS_INLINE uint64_t fs_semaphore_value(const fs_semaphore *s) {
    /* relaxed: a snapshot that orders nothing */
    return fs_u64_load_relaxed(&s->state) >> 1;
}

FS_INLINE int fs_semaphore_try_acquire(fs_semaphore *s) {
    uint64_t seen = fs_u64_load_relaxed(&s->state); /* relaxed: the CAS decides */
    while (seen >= 2) {
        /* acquire: pairs with the release in fs_semaphore_release */
        if (fs_u64_cas_acquire(&s->state, &seen, seen - 2)) {
            return 1;
        }
    }
    return 0;
}

FS_INLINE int fs_semaphore_acquire_until(fs_semaphore *s, int64_t deadline, int flags) {
    if (fs_semaphore_try_acquire(s)) {
        return FS_ACQUIRED;
    }
    return fastsync_table->semaphore_acquire_slow(s, deadline, flags);
}

FS_INLINE void fs_semaphore_acquire(fs_semaphore *s) {
    fs_semaphore_acquire_until(s, FS_FOREVER, FS_PLAIN);
}

FS_INLINE int fs_semaphore_release(fs_semaphore *s, uint64_t n) {
    return fastsync_table->semaphore_release(s, n, FS_SEMAPHORE_MAX);
}

/* -- event ------------------------------------------------------------------------------ */

#define FS_EVENT_SET 1

FS_INLINE int fs_event_is_set(const fs_event *e) {
    /* acquire: pairs with the release in fs_event_set */
    return fs_u8_load_acquire(&e->state) == FS_EVENT_SET;
}

FS_INLINE void fs_event_set(fs_event *e) { fastsync_table->event_set(e); }
FS_INLINE void fs_event_clear(fs_event *e) { fastsync_table->event_clear(e); }

FS_INLINE int fs_event_wait_until(fs_event *e, int64_t deadline, int flags) {
    return fs_event_is_set(e) ? FS_ACQUIRED
                              : fastsync_table->event_wait_slow(e, deadline, flags);
}

FS_INLINE void fs_event_wait(fs_event *e) { fs_event_wait_until(e, FS_FOREVER, FS_PLAIN); }

/* -- barrier ---------------------------------------------------------------------------- */

FS_INLINE void fs_barrier_init(fs_barrier *b, uint32_t parties) {
    b->parties = parties;
    b->generation = 1;
}

/* FS_BARRIER_LAST for one of the threads, FS_BARRIER_PASSED for the others. */
FS_INLINE int fs_barrier_wait(fs_barrier *b) {
    uint32_t index;
    int result = fastsync_table->barrier_arrive(b, FS_FOREVER, FS_PLAIN, &index);
    if (result == FS_BARRIER_LAST && fastsync_table->barrier_open(b) != 0) {
        return FS_BARRIER_BROKEN;
    }
    return result;
}

FS_INLINE void fs_barrier_abort(fs_barrier *b) { fastsync_table->barrier_abort(b); }

/* -- reader-writer lock --------------------------------------------------------------------- */

FS_INLINE int fs_rwlock_read_until(fs_rwlock *rw, int64_t deadline, int flags) {
    return fastsync_table->rwlock_read_until(rw, deadline, flags);
}
FS_INLINE int fs_rwlock_read(fs_rwlock *rw) {
    return fastsync_table->rwlock_read_until(rw, FS_FOREVER, FS_PLAIN);
}
FS_INLINE int fs_rwlock_try_read(fs_rwlock *rw) { return fastsync_table->rwlock_try_read(rw); }
FS_INLINE int fs_rwlock_unlock_read(fs_rwlock *rw) {
    return fastsync_table->rwlock_unlock_read(rw);
}

FS_INLINE int fs_rwlock_write_until(fs_rwlock *rw, int64_t deadline, int flags) {
    return fastsync_table->rwlock_write_until(rw, deadline, flags);
}
FS_INLINE void fs_rwlock_write(fs_rwlock *rw) {
    fastsync_table->rwlock_write_until(rw, FS_FOREVER, FS_PLAIN);
}
FS_INLINE int fs_rwlock_try_write(fs_rwlock *rw) { return fastsync_table->rwlock_try_write(rw); }
FS_INLINE int fs_rwlock_unlock_write(fs_rwlock *rw) {
    return fastsync_table->rwlock_unlock_write(rw);
}

FS_INLINE void fs_rwlock_downgrade(fs_rwlock *rw) { fastsync_table->rwlock_downgrade(rw); }
FS_INLINE int fs_rwlock_upgradable_read(fs_rwlock *rw) {
    return fastsync_table->rwlock_upgradable_read_until(rw, FS_FOREVER, FS_PLAIN);
}
FS_INLINE int fs_rwlock_unlock_upgradable(fs_rwlock *rw) {
    return fastsync_table->rwlock_unlock_upgradable(rw);
}
FS_INLINE int fs_rwlock_upgrade(fs_rwlock *rw) {
    return fastsync_table->rwlock_upgrade_until(rw, FS_FOREVER, FS_PLAIN);
}

/* -- C++ --------------------------------------------------------------------------------- */

#ifdef __cplusplus
namespace fastsync {

/* One byte.  The standard's Lockable: for std::lock_guard, std::unique_lock,
 * std::scoped_lock. */
class mutex {
  public:
    mutex() noexcept : word_() {}
    mutex(const mutex &) = delete;
    mutex &operator=(const mutex &) = delete;
    void lock() noexcept { fs_mutex_lock(&word_); }
    bool try_lock() noexcept { return fs_mutex_try_lock(&word_) != 0; }
    void unlock() noexcept { fs_mutex_unlock(&word_); }
    fs_mutex *word() noexcept { return &word_; }

  private:
    fs_mutex word_;
};

} /* namespace fastsync */
#endif

#endif
