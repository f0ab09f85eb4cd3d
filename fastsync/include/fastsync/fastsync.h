/* fastsync for C and C++ extension modules: this header alone.
 *
 *     #include <fastsync/fastsync.h>            after Python.h
 *
 *     if (fastsync_import() < 0) return NULL;   in the module's init function
 *
 * Compile with fastsync.get_include() among the include folders.  A word that
 * is all zeros is a valid, free one; it must not move while any thread uses it.
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
#include "atomic_float.h"
#include "atomic_order.h"
#include "version.h"
#include "words.h"

/* A deadline, in nanoseconds of time.monotonic()'s clock, that never comes. */
#ifndef FS_FOREVER
#  define FS_FOREVER INT64_MAX
#endif

/* Flags of what waits. */
#define FS_PLAIN 0
#define FS_SIGNALS 1 /* run Python's signal handlers: with a thread state only */
#define FS_SPIN 2 /* of park alone, as the next four: see parking.pxd */
#define FS_KEEP_PLACE 4
#define FS_FIRST 8
#define FS_ASK 16
#define FS_NO_FORK 32

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

#define FS_RWLOCK_FULL 2

#define FS_ONCE_NEW 0
#define FS_ONCE_DONE 1
#define FS_ONCE_POISON 2
#define FS_ONCE_RUN 16
#define FS_ONCE_RUN_POISONED 17

/* -- the parking table's callbacks: see parking.pxd ------------------------- */

#define FS_PARK_UNPARKED 0
#define FS_PARK_INVALID 1
#define FS_PARK_TIMED_OUT 2
#define FS_PARK_INTERRUPTED 3
#define FS_PARK_UNPARKED_INTERRUPTED 4
#define FS_PARK_SIGNALLED 5

#define FS_TOKEN_NORMAL 0
#define FS_TOKEN_HANDOFF 1

#define FS_UNPARK 0
#define FS_SKIP 1
#define FS_STOP 2

#define FS_REQUEUE_ABORT 0
#define FS_REQUEUE_UNPARK_ONE_REST 1
#define FS_REQUEUE_ALL 2

typedef uintptr_t fs_key; /* an address */

typedef int (*fs_validate)(void *ctx);
typedef int (*fs_before_sleep)(void *ctx);
typedef void (*fs_timed_out)(void *ctx, uintptr_t key, int was_last);
typedef uintptr_t (*fs_unparked)(void *ctx, fs_unpark_result *result);
typedef int (*fs_filter)(void *ctx, uintptr_t park_token);
typedef int (*fs_requeue_op)(void *ctx);

/* -- the table --------------------------------------------------------------- */

/* Grows at its end only, within a series. */
typedef struct {
    const char *version; /* of the fastsync that runs, "0.1.0" */
    int64_t (*now)(void);
    uintptr_t (*thread_id)(void);
    void *(*object_word)(PyObject *, int type);

    int (*mutex_lock_slow)(fs_mutex *, int64_t deadline, int flags);
    int (*mutex_unlock_slow)(fs_mutex *, int fair);
    void (*mutex_reset)(fs_mutex *);

    int (*remutex_lock_until)(fs_remutex *, int64_t deadline, int flags);
    int (*remutex_try_lock)(fs_remutex *);
    int (*remutex_unlock)(fs_remutex *);
    int (*remutex_unlock_fair)(fs_remutex *);

    int (*condvar_wait)(fs_condvar *, fs_mutex *, int64_t deadline, int flags);
    size_t (*condvar_notify_some)(fs_condvar *, size_t limit);
    void (*condvar_reset)(fs_condvar *);

    int (*semaphore_acquire_slow)(fs_semaphore *, int64_t deadline, int flags);
    int (*semaphore_release)(fs_semaphore *, uint64_t n, uint64_t limit);
    void (*semaphore_set_value)(fs_semaphore *, uint64_t value);

    void (*event_set)(fs_event *);
    void (*event_clear)(fs_event *);
    int (*event_wait_slow)(fs_event *, int64_t deadline, int flags);
    void (*event_reset)(fs_event *, int set);

    int (*barrier_arrive)(fs_barrier *, int64_t deadline, int flags, uint32_t *index);
    int (*barrier_open)(fs_barrier *);
    void (*barrier_abort)(fs_barrier *);
    int (*barrier_reset)(fs_barrier *, int flags);
    void (*barrier_reinit)(fs_barrier *, uint32_t parties);
    uint32_t (*barrier_waiting)(fs_barrier *);
    int (*barrier_is_broken)(fs_barrier *);

    int (*rwlock_read_until)(fs_rwlock *, int64_t deadline, int flags);
    int (*rwlock_read_recursive_until)(fs_rwlock *, int64_t deadline, int flags);
    int (*rwlock_try_read)(fs_rwlock *);
    int (*rwlock_try_read_recursive)(fs_rwlock *);
    int (*rwlock_unlock_read)(fs_rwlock *);
    void (*rwlock_bump_read)(fs_rwlock *);
    int (*rwlock_write_until)(fs_rwlock *, int64_t deadline, int flags);
    int (*rwlock_try_write)(fs_rwlock *);
    int (*rwlock_unlock_write)(fs_rwlock *);
    int (*rwlock_unlock_write_fair)(fs_rwlock *);
    void (*rwlock_bump_write)(fs_rwlock *);
    int (*rwlock_upgradable_read_until)(fs_rwlock *, int64_t deadline, int flags);
    int (*rwlock_try_upgradable_read)(fs_rwlock *);
    int (*rwlock_unlock_upgradable)(fs_rwlock *);
    int (*rwlock_unlock_upgradable_fair)(fs_rwlock *);
    void (*rwlock_bump_upgradable)(fs_rwlock *);
    int (*rwlock_upgrade_until)(fs_rwlock *, int64_t deadline, int flags);
    int (*rwlock_try_upgrade)(fs_rwlock *);
    void (*rwlock_downgrade)(fs_rwlock *);
    void (*rwlock_downgrade_to_upgradable)(fs_rwlock *);
    void (*rwlock_downgrade_upgradable)(fs_rwlock *);
    uintptr_t (*rwlock_readers)(const fs_rwlock *);
    int (*rwlock_is_locked)(const fs_rwlock *);
    int (*rwlock_is_locked_exclusive)(const fs_rwlock *);
    void (*rwlock_reset)(fs_rwlock *);

    int (*once_begin)(fs_once *, int force, int64_t deadline, int flags);
    int (*once_wait_slow)(fs_once *, int64_t deadline, int flags);
    void (*once_end)(fs_once *, uint8_t outcome);
    int (*once_retract)(fs_once *);

    int (*word_wait)(void *, int kind, uint64_t expected, int order, int64_t deadline, int flags);
    int (*word_notify_one)(void *);
    size_t (*word_notify_all)(void *);

    int (*park)(uintptr_t key, fs_validate, fs_before_sleep, fs_timed_out, void *ctx,
                uintptr_t park_token, int64_t deadline, int flags, uintptr_t *token);
    size_t (*unpark_one)(uintptr_t key, fs_unparked, void *ctx);
    size_t (*unpark_all)(uintptr_t key, uintptr_t token);
    size_t (*unpark_filter)(uintptr_t key, fs_filter, fs_unparked, void *ctx);
    size_t (*unpark_requeue)(uintptr_t from, uintptr_t to, size_t limit, fs_requeue_op,
                             fs_unparked, void *ctx);
    size_t (*parked_count)(uintptr_t key);
    int (*spin_round)(int round, int64_t deadline);
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
    PyObject *package = PyImport_ImportModule("fastsync");
    PyObject *marker = NULL;
    PyObject *home = NULL;
    if (package != NULL) {
        /* What extensions that Cython made look up first, too: see c_version.pxd. */
        marker = PyObject_GetAttrString(package, FASTSYNC_MARKER);
    }
    if (marker != NULL) {
        /* PyCapsule_Import alone would import the package only. */
        home = PyImport_ImportModule("fastsync.capi");
    }
    if (home != NULL) {
        fastsync_table = (const fs_table *)PyCapsule_Import(FASTSYNC_CAPSULE, 0);
    }
    /* sys.modules has them, and they are never unloaded. */
    Py_XDECREF(home);
    Py_XDECREF(marker);
    Py_XDECREF(package);
    return fastsync_table != NULL ? 0 : -1;
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

FS_INLINE void fs_mutex_reset(fs_mutex *m) { fastsync_table->mutex_reset(m); }

/* -- re-entrant mutex ------------------------------------------------------------ */

FS_INLINE int fs_remutex_lock_until(fs_remutex *m, int64_t deadline, int flags) {
    return fastsync_table->remutex_lock_until(m, deadline, flags);
}
FS_INLINE void fs_remutex_lock(fs_remutex *m) {
    fastsync_table->remutex_lock_until(m, FS_FOREVER, FS_PLAIN);
}
FS_INLINE int fs_remutex_try_lock(fs_remutex *m) { return fastsync_table->remutex_try_lock(m); }
FS_INLINE int fs_remutex_try_lock_for(fs_remutex *m, int64_t ns) {
    return fs_remutex_lock_until(m, fs_deadline_after(ns), FS_PLAIN) == FS_ACQUIRED;
}
FS_INLINE int fs_remutex_unlock(fs_remutex *m) { return fastsync_table->remutex_unlock(m); }
FS_INLINE int fs_remutex_unlock_fair(fs_remutex *m) {
    return fastsync_table->remutex_unlock_fair(m);
}
FS_INLINE int fs_remutex_is_mine(const fs_remutex *m) {
    /* relaxed: only this thread writes its own id there */
    return fs_uptr_load_relaxed(&m->owner) == fastsync_table->thread_id();
}
FS_INLINE uint32_t fs_remutex_count(const fs_remutex *m) {
    /* relaxed: exact for the owner, a snapshot for others */
    return fs_u32_load_relaxed(&m->count);
}
FS_INLINE int fs_remutex_is_locked(const fs_remutex *m) { return fs_mutex_is_locked(&m->mutex); }

/* -- condition variable ------------------------------------------------------------ */

FS_INLINE int fs_condvar_wait(fs_condvar *c, fs_mutex *m, int64_t deadline, int flags) {
    return fastsync_table->condvar_wait(c, m, deadline, flags);
}

FS_INLINE int fs_condvar_wait_for(fs_condvar *c, fs_mutex *m, int64_t ns) {
    return fs_condvar_wait(c, m, fs_deadline_after(ns), FS_PLAIN) == FS_CONDVAR_NOTIFIED;
}

FS_INLINE int fs_condvar_has_waiters(const fs_condvar *c) {
    /* relaxed: the waiters' mutex orders it, see raw/condvar.pxd */
    return fs_uptr_load_relaxed(&c->mutex) != 0;
}

FS_INLINE int fs_condvar_notify_one(fs_condvar *c) {
    return fs_condvar_has_waiters(c) && fastsync_table->condvar_notify_some(c, 1) != 0;
}

FS_INLINE size_t fs_condvar_notify_all(fs_condvar *c) {
    return fs_condvar_has_waiters(c) ? fastsync_table->condvar_notify_some(c, SIZE_MAX) : 0;
}

FS_INLINE void fs_condvar_reset(fs_condvar *c) { fastsync_table->condvar_reset(c); }

/* -- semaphore ----------------------------------------------------------------------- */

/* The largest value. */
FS_INLINE uint64_t fs_semaphore_max(void) { return UINT64_MAX >> 1; }

FS_INLINE void fs_semaphore_init(fs_semaphore *s, uint64_t value) {
    if (value > fs_semaphore_max()) {
        value = fs_semaphore_max();
    }
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

FS_INLINE int fs_semaphore_try_acquire_for(fs_semaphore *s, int64_t ns) {
    return fs_semaphore_acquire_until(s, fs_deadline_after(ns), FS_PLAIN) == FS_ACQUIRED;
}

FS_INLINE int fs_semaphore_release(fs_semaphore *s, uint64_t n, uint64_t limit) {
    return fastsync_table->semaphore_release(s, n, limit);
}

FS_INLINE void fs_semaphore_set_value(fs_semaphore *s, uint64_t value) {
    fastsync_table->semaphore_set_value(s, value);
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

FS_INLINE int fs_event_wait_for(fs_event *e, int64_t ns) {
    return fs_event_wait_until(e, fs_deadline_after(ns), FS_PLAIN) == FS_ACQUIRED;
}

FS_INLINE void fs_event_reset(fs_event *e, int set) { fastsync_table->event_reset(e, set); }

/* -- barrier ---------------------------------------------------------------------------- */

FS_INLINE void fs_barrier_init(fs_barrier *b, uint32_t parties) {
    memset((void *)b, 0, sizeof(*b));
    b->parties = parties;
}

FS_INLINE int fs_barrier_arrive(fs_barrier *b, int64_t deadline, int flags, uint32_t *index) {
    return fastsync_table->barrier_arrive(b, deadline, flags, index);
}
FS_INLINE int fs_barrier_open(fs_barrier *b) { return fastsync_table->barrier_open(b); }

/* FS_BARRIER_LAST for one of the threads, FS_BARRIER_PASSED for the others. */
FS_INLINE int fs_barrier_wait(fs_barrier *b) {
    uint32_t index;
    int result = fs_barrier_arrive(b, FS_FOREVER, FS_PLAIN, &index);
    if (result == FS_BARRIER_LAST && fs_barrier_open(b) != 0) {
        return FS_BARRIER_BROKEN;
    }
    return result;
}

FS_INLINE void fs_barrier_abort(fs_barrier *b) { fastsync_table->barrier_abort(b); }
FS_INLINE int fs_barrier_reset(fs_barrier *b, int flags) {
    return fastsync_table->barrier_reset(b, flags);
}
FS_INLINE void fs_barrier_reinit(fs_barrier *b, uint32_t parties) {
    fastsync_table->barrier_reinit(b, parties);
}
FS_INLINE uint32_t fs_barrier_waiting(fs_barrier *b) { return fastsync_table->barrier_waiting(b); }
FS_INLINE int fs_barrier_is_broken(fs_barrier *b) { return fastsync_table->barrier_is_broken(b); }

/* -- reader-writer lock --------------------------------------------------------------------- */

FS_INLINE int fs_rwlock_read_until(fs_rwlock *rw, int64_t deadline, int flags) {
    return fastsync_table->rwlock_read_until(rw, deadline, flags);
}
FS_INLINE int fs_rwlock_read(fs_rwlock *rw) {
    return fs_rwlock_read_until(rw, FS_FOREVER, FS_PLAIN);
}
FS_INLINE int fs_rwlock_try_read(fs_rwlock *rw) { return fastsync_table->rwlock_try_read(rw); }
FS_INLINE int fs_rwlock_read_recursive_until(fs_rwlock *rw, int64_t deadline, int flags) {
    return fastsync_table->rwlock_read_recursive_until(rw, deadline, flags);
}
FS_INLINE int fs_rwlock_read_recursive(fs_rwlock *rw) {
    return fs_rwlock_read_recursive_until(rw, FS_FOREVER, FS_PLAIN);
}
FS_INLINE int fs_rwlock_try_read_recursive(fs_rwlock *rw) {
    return fastsync_table->rwlock_try_read_recursive(rw);
}
FS_INLINE int fs_rwlock_unlock_read(fs_rwlock *rw) {
    return fastsync_table->rwlock_unlock_read(rw);
}
/* It is fair already. */
FS_INLINE int fs_rwlock_unlock_read_fair(fs_rwlock *rw) { return fs_rwlock_unlock_read(rw); }
FS_INLINE void fs_rwlock_bump_read(fs_rwlock *rw) { fastsync_table->rwlock_bump_read(rw); }

FS_INLINE int fs_rwlock_write_until(fs_rwlock *rw, int64_t deadline, int flags) {
    return fastsync_table->rwlock_write_until(rw, deadline, flags);
}
FS_INLINE void fs_rwlock_write(fs_rwlock *rw) { fs_rwlock_write_until(rw, FS_FOREVER, FS_PLAIN); }
FS_INLINE int fs_rwlock_try_write(fs_rwlock *rw) { return fastsync_table->rwlock_try_write(rw); }
FS_INLINE int fs_rwlock_unlock_write(fs_rwlock *rw) {
    return fastsync_table->rwlock_unlock_write(rw);
}
FS_INLINE int fs_rwlock_unlock_write_fair(fs_rwlock *rw) {
    return fastsync_table->rwlock_unlock_write_fair(rw);
}
FS_INLINE void fs_rwlock_bump_write(fs_rwlock *rw) { fastsync_table->rwlock_bump_write(rw); }

FS_INLINE int fs_rwlock_upgradable_read_until(fs_rwlock *rw, int64_t deadline, int flags) {
    return fastsync_table->rwlock_upgradable_read_until(rw, deadline, flags);
}
FS_INLINE int fs_rwlock_upgradable_read(fs_rwlock *rw) {
    return fs_rwlock_upgradable_read_until(rw, FS_FOREVER, FS_PLAIN);
}
FS_INLINE int fs_rwlock_try_upgradable_read(fs_rwlock *rw) {
    return fastsync_table->rwlock_try_upgradable_read(rw);
}
FS_INLINE int fs_rwlock_unlock_upgradable(fs_rwlock *rw) {
    return fastsync_table->rwlock_unlock_upgradable(rw);
}
FS_INLINE int fs_rwlock_unlock_upgradable_fair(fs_rwlock *rw) {
    return fastsync_table->rwlock_unlock_upgradable_fair(rw);
}
FS_INLINE void fs_rwlock_bump_upgradable(fs_rwlock *rw) {
    fastsync_table->rwlock_bump_upgradable(rw);
}

FS_INLINE int fs_rwlock_upgrade_until(fs_rwlock *rw, int64_t deadline, int flags) {
    return fastsync_table->rwlock_upgrade_until(rw, deadline, flags);
}
FS_INLINE void fs_rwlock_upgrade(fs_rwlock *rw) {
    fs_rwlock_upgrade_until(rw, FS_FOREVER, FS_PLAIN);
}
FS_INLINE int fs_rwlock_try_upgrade(fs_rwlock *rw) {
    return fastsync_table->rwlock_try_upgrade(rw);
}
FS_INLINE void fs_rwlock_downgrade(fs_rwlock *rw) { fastsync_table->rwlock_downgrade(rw); }
FS_INLINE void fs_rwlock_downgrade_to_upgradable(fs_rwlock *rw) {
    fastsync_table->rwlock_downgrade_to_upgradable(rw);
}
FS_INLINE void fs_rwlock_downgrade_upgradable(fs_rwlock *rw) {
    fastsync_table->rwlock_downgrade_upgradable(rw);
}

FS_INLINE uintptr_t fs_rwlock_readers(const fs_rwlock *rw) {
    return fastsync_table->rwlock_readers(rw);
}
FS_INLINE int fs_rwlock_is_locked(const fs_rwlock *rw) {
    return fastsync_table->rwlock_is_locked(rw);
}
FS_INLINE int fs_rwlock_is_locked_exclusive(const fs_rwlock *rw) {
    return fastsync_table->rwlock_is_locked_exclusive(rw);
}
FS_INLINE void fs_rwlock_reset(fs_rwlock *rw) { fastsync_table->rwlock_reset(rw); }

/* -- one-time initialization ----------------------------------------------------------------- */

FS_INLINE int fs_once_is_done(const fs_once *o) {
    /* acquire: pairs with the release in fs_once_end */
    return fs_u8_load_acquire(&o->state) == FS_ONCE_DONE;
}

FS_INLINE int fs_once_wait(fs_once *o, int64_t deadline, int flags) {
    return fs_likely(fs_once_is_done(o)) ? FS_ONCE_DONE
                                         : fastsync_table->once_wait_slow(o, deadline, flags);
}

FS_INLINE int fs_once_begin(fs_once *o, int force, int64_t deadline, int flags) {
    return fastsync_table->once_begin(o, force, deadline, flags);
}
FS_INLINE void fs_once_end(fs_once *o, uint8_t outcome) { fastsync_table->once_end(o, outcome); }
FS_INLINE int fs_once_retract(fs_once *o) { return fastsync_table->once_retract(o); }

FS_INLINE int fs_once_call(fs_once *o, int (*function)(void *), void *ctx) {
    int result;
    if (fs_likely(fs_once_is_done(o))) {
        return FS_ONCE_DONE;
    }
    result = fs_once_begin(o, 0, FS_FOREVER, FS_PLAIN);
    if (result == FS_ONCE_RUN) {
        result = function(ctx) == 0 ? FS_ONCE_DONE : FS_ONCE_POISON;
        fs_once_end(o, (uint8_t)result);
    }
    return result;
}

/* -- waiting for an atomic ------------------------------------------------------------------- */

/* Of a word of any type: FS_I8 and so on, see atomic_order.h. */
FS_INLINE int fs_word_wait(void *word, int kind, uint64_t expected, int order, int64_t deadline,
                           int flags) {
    return fastsync_table->word_wait(word, kind, expected, order, deadline, flags);
}
FS_INLINE int fs_word_notify_one(void *word) { return fastsync_table->word_notify_one(word); }
FS_INLINE size_t fs_word_notify_all(void *word) { return fastsync_table->word_notify_all(word); }

/* A value travels as 64 bits, signed ones sign-extended. */
#define FS_ATOMIC_WAIT(N, T, KIND, BITS)                                                      \
    FS_INLINE int fs_##N##_wait(fs_atomic_##N *a, T expected, int64_t deadline, int flags) {  \
        return fs_word_wait(a, KIND, BITS, FS_SEQ_CST, deadline, flags);                      \
    }

#define FS_UPTR (sizeof(void *) == 8 ? FS_U64 : FS_U32)

FS_ATOMIC_WAIT(i8, int8_t, FS_I8, (uint64_t)(int64_t)expected)
FS_ATOMIC_WAIT(i16, int16_t, FS_I16, (uint64_t)(int64_t)expected)
FS_ATOMIC_WAIT(i32, int32_t, FS_I32, (uint64_t)(int64_t)expected)
FS_ATOMIC_WAIT(i64, int64_t, FS_I64, (uint64_t)expected)
FS_ATOMIC_WAIT(u8, uint8_t, FS_U8, expected)
FS_ATOMIC_WAIT(u16, uint16_t, FS_U16, expected)
FS_ATOMIC_WAIT(u32, uint32_t, FS_U32, expected)
FS_ATOMIC_WAIT(u64, uint64_t, FS_U64, expected)
FS_ATOMIC_WAIT(uptr, uintptr_t, FS_UPTR, expected)
FS_ATOMIC_WAIT(ptr, void *, FS_UPTR, (uintptr_t)expected)
FS_ATOMIC_WAIT(bool, int, FS_BOOL, expected != 0)
FS_ATOMIC_WAIT(f32, float, FS_F32, fs_f32_bits(expected))
FS_ATOMIC_WAIT(f64, double, FS_F64, fs_f64_bits(expected))

/* -- the parking table ----------------------------------------------------------------------- */

FS_INLINE int fs_park(uintptr_t key, fs_validate validate, fs_before_sleep before_sleep,
                      fs_timed_out timed_out, void *ctx, uintptr_t park_token, int64_t deadline,
                      int flags, uintptr_t *token) {
    return fastsync_table->park(key, validate, before_sleep, timed_out, ctx, park_token, deadline,
                                flags, token);
}
FS_INLINE size_t fs_unpark_one(uintptr_t key, fs_unparked callback, void *ctx) {
    return fastsync_table->unpark_one(key, callback, ctx);
}
FS_INLINE size_t fs_unpark_all(uintptr_t key, uintptr_t token) {
    return fastsync_table->unpark_all(key, token);
}
FS_INLINE size_t fs_unpark_filter(uintptr_t key, fs_filter filter, fs_unparked callback,
                                  void *ctx) {
    return fastsync_table->unpark_filter(key, filter, callback, ctx);
}
FS_INLINE size_t fs_unpark_requeue(uintptr_t from, uintptr_t to, size_t limit,
                                   fs_requeue_op choose, fs_unparked callback, void *ctx) {
    return fastsync_table->unpark_requeue(from, to, limit, choose, callback, ctx);
}
FS_INLINE size_t fs_parked_count(uintptr_t key) { return fastsync_table->parked_count(key); }
FS_INLINE int fs_spin_round(int round, int64_t deadline) {
    return fastsync_table->spin_round(round, deadline);
}

/* -- the words inside Python objects --------------------------------------------------------- */

#define FS_OF_MUTEX 0
#define FS_OF_FAIR_MUTEX 1
#define FS_OF_REENTRANT_MUTEX 2
#define FS_OF_CONDVAR 3
#define FS_OF_RWLOCK 4
#define FS_OF_ONCE 5
#define FS_OF_LOCK 6 /* this and the next three: of fastsync.threading */
#define FS_OF_RLOCK 7
#define FS_OF_SEMAPHORE 8
#define FS_OF_EVENT 9
#define FS_OF_ATOMIC 64 /* and the kind of its word */

/* With a thread state: NULL with a TypeError when the object is of another type. */
#define FS_OBJECT_WORD(NAME, WORD, TYPE)                                                      \
    FS_INLINE WORD *NAME(PyObject *object) {                                                  \
        return (WORD *)fastsync_table->object_word(object, TYPE);                             \
    }

FS_OBJECT_WORD(fs_mutex_word, fs_mutex, FS_OF_MUTEX)
FS_OBJECT_WORD(fs_fair_mutex_word, fs_mutex, FS_OF_FAIR_MUTEX)
FS_OBJECT_WORD(fs_reentrant_mutex_word, fs_remutex, FS_OF_REENTRANT_MUTEX)
FS_OBJECT_WORD(fs_condvar_word, fs_condvar, FS_OF_CONDVAR)
FS_OBJECT_WORD(fs_rwlock_word, fs_rwlock, FS_OF_RWLOCK)
FS_OBJECT_WORD(fs_once_word, fs_once, FS_OF_ONCE)
FS_OBJECT_WORD(fs_lock_word, fs_mutex, FS_OF_LOCK)
FS_OBJECT_WORD(fs_rlock_word, fs_remutex, FS_OF_RLOCK)
FS_OBJECT_WORD(fs_semaphore_word, fs_semaphore, FS_OF_SEMAPHORE)
FS_OBJECT_WORD(fs_event_word, fs_event, FS_OF_EVENT)
FS_OBJECT_WORD(fs_i8_word, fs_atomic_i8, FS_OF_ATOMIC + FS_I8)
FS_OBJECT_WORD(fs_i16_word, fs_atomic_i16, FS_OF_ATOMIC + FS_I16)
FS_OBJECT_WORD(fs_i32_word, fs_atomic_i32, FS_OF_ATOMIC + FS_I32)
FS_OBJECT_WORD(fs_i64_word, fs_atomic_i64, FS_OF_ATOMIC + FS_I64)
FS_OBJECT_WORD(fs_u8_word, fs_atomic_u8, FS_OF_ATOMIC + FS_U8)
FS_OBJECT_WORD(fs_u16_word, fs_atomic_u16, FS_OF_ATOMIC + FS_U16)
FS_OBJECT_WORD(fs_u32_word, fs_atomic_u32, FS_OF_ATOMIC + FS_U32)
FS_OBJECT_WORD(fs_u64_word, fs_atomic_u64, FS_OF_ATOMIC + FS_U64)
FS_OBJECT_WORD(fs_bool_word, fs_atomic_bool, FS_OF_ATOMIC + FS_BOOL)
FS_OBJECT_WORD(fs_f32_word, fs_atomic_f32, FS_OF_ATOMIC + FS_F32)
FS_OBJECT_WORD(fs_f64_word, fs_atomic_f64, FS_OF_ATOMIC + FS_F64)

/* -- C++ --------------------------------------------------------------------------------- */

#ifdef __cplusplus
namespace fastsync {

/* One byte.  The standard's Lockable: for std::lock_guard, std::unique_lock,
 * std::scoped_lock. */
class mutex {
  public:
    constexpr mutex() noexcept : word_() {}
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
