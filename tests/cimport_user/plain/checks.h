/* Every function of the header, alone with its word: compiled as C and as C++.
 *
 * A check answers 0, or the line that failed. */
#ifndef CHECKS_H
#define CHECKS_H

#define CHECK(condition)                                                                      \
    if (!(condition)) {                                                                       \
        return __LINE__;                                                                      \
    }
#define MILLISECOND 1000000

static int check_mutex(void) {
    fs_mutex m;
    memset((void *)&m, 0, sizeof(m));
    fs_mutex_lock(&m);
    CHECK(!fs_mutex_try_lock(&m) && fs_mutex_is_locked(&m));
    CHECK(!fs_mutex_try_lock_for(&m, MILLISECOND));
    CHECK(fs_mutex_lock_until(&m, 0, FS_PLAIN) == FS_TIMEOUT);
    fs_mutex_bump(&m);
    CHECK(fs_mutex_unlock(&m) == 0 && fs_mutex_unlock(&m) == -1);
    CHECK(fs_mutex_try_lock(&m) && fs_mutex_unlock_fair(&m) == 0);
    fs_mutex_lock(&m);
    fs_mutex_reset(&m);
    CHECK(!fs_mutex_is_locked(&m));
    /* Free, and it says that somebody is parked: it goes on saying so until an unlock has looked. */
    fs_u8_store(&m.state, FS_MUTEX_PARKED);
    CHECK(fs_mutex_try_lock(&m) && fs_u8_load(&m.state) == (FS_MUTEX_LOCKED | FS_MUTEX_PARKED));
    CHECK(fs_mutex_unlock(&m) == 0 && fs_u8_load(&m.state) == 0);
    return 0;
}

static int check_remutex(void) {
    fs_remutex r;
    memset((void *)&r, 0, sizeof(r));
    CHECK(!fs_remutex_is_mine(&r));
    fs_remutex_lock(&r);
    CHECK(fs_remutex_try_lock(&r) && fs_remutex_try_lock_for(&r, 0));
    CHECK(fs_remutex_lock_until(&r, 0, FS_PLAIN) == FS_ACQUIRED && fs_remutex_count(&r) == 4);
    CHECK(fs_remutex_is_mine(&r) && fs_remutex_is_locked(&r));
    CHECK(fs_remutex_unlock(&r) == 0 && fs_remutex_unlock(&r) == 0);
    CHECK(fs_remutex_unlock_fair(&r) == 0 && fs_remutex_unlock_fair(&r) == 0);
    CHECK(fs_remutex_unlock(&r) == -1 && !fs_remutex_is_locked(&r));
    return 0;
}

static int check_condvar(void) {
    fs_mutex m;
    fs_condvar c;
    memset((void *)&m, 0, sizeof(m));
    memset((void *)&c, 0, sizeof(c));
    fs_mutex_lock(&m);
    CHECK(fs_condvar_wait(&c, &m, fs_deadline_after(MILLISECOND), FS_PLAIN) == FS_CONDVAR_TIMEOUT);
    CHECK(!fs_condvar_wait_for(&c, &m, MILLISECOND) && fs_mutex_is_locked(&m));
    CHECK(!fs_condvar_has_waiters(&c));
    CHECK(!fs_condvar_notify_one(&c) && fs_condvar_notify_all(&c) == 0);
    fs_condvar_reset(&c);
    return 0;
}

static int check_semaphore(void) {
    fs_semaphore s;
    fs_semaphore_init(&s, 1);
    fs_semaphore_acquire(&s);
    CHECK(!fs_semaphore_try_acquire(&s) && !fs_semaphore_try_acquire_for(&s, MILLISECOND));
    CHECK(fs_semaphore_acquire_until(&s, 0, FS_PLAIN) == FS_TIMEOUT);
    CHECK(fs_semaphore_release(&s, 2, fs_semaphore_max()) == 0 && fs_semaphore_value(&s) == 2);
    CHECK(fs_semaphore_release(&s, 1, 2) == -1 && fs_semaphore_value(&s) == 2);
    fs_semaphore_set_value(&s, 5);
    CHECK(fs_semaphore_value(&s) == 5);
    fs_u64_store(&s.state, 1); /* somebody is parked */
    CHECK(!fs_semaphore_try_acquire(&s) && fs_semaphore_value(&s) == 0);
    fs_semaphore_init(&s, UINT64_MAX);
    CHECK(fs_semaphore_value(&s) == fs_semaphore_max());
    return 0;
}

static int check_event(void) {
    fs_event e;
    memset((void *)&e, 0, sizeof(e));
    CHECK(fs_event_wait_until(&e, fs_deadline_after(MILLISECOND), FS_PLAIN) == FS_TIMEOUT);
    CHECK(!fs_event_wait_for(&e, MILLISECOND));
    fs_event_set(&e);
    fs_event_wait(&e);
    CHECK(fs_event_wait_for(&e, 0));
    fs_event_clear(&e);
    CHECK(!fs_event_is_set(&e));
    fs_event_reset(&e, 1);
    CHECK(fs_event_is_set(&e));
    return 0;
}

static int check_barrier(void) {
    fs_barrier b;
    uint32_t index = 9;
    fs_barrier_init(&b, 1);
    CHECK(fs_barrier_wait(&b) == FS_BARRIER_LAST);
    CHECK(fs_barrier_arrive(&b, FS_FOREVER, FS_PLAIN, &index) == FS_BARRIER_LAST && index == 0);
    CHECK(fs_barrier_open(&b) == 0 && fs_barrier_waiting(&b) == 0);
    fs_barrier_abort(&b);
    CHECK(fs_barrier_is_broken(&b) && fs_barrier_wait(&b) == FS_BARRIER_BROKEN);
    CHECK(fs_barrier_reset(&b, FS_PLAIN) >= 0 && !fs_barrier_is_broken(&b));
    fs_barrier_reinit(&b, 2);
    CHECK(fs_barrier_arrive(&b, fs_deadline_after(MILLISECOND), FS_PLAIN, &index) ==
          FS_BARRIER_BROKEN);
    return 0;
}

static int check_reading(void) {
    fs_rwlock rw;
    memset((void *)&rw, 0, sizeof(rw));
    CHECK(fs_rwlock_read(&rw) == FS_ACQUIRED && fs_rwlock_try_read(&rw));
    CHECK(fs_rwlock_read_until(&rw, 0, FS_PLAIN) == FS_ACQUIRED);
    CHECK(fs_rwlock_read_recursive(&rw) == FS_ACQUIRED && fs_rwlock_try_read_recursive(&rw));
    CHECK(fs_rwlock_read_recursive_until(&rw, 0, FS_PLAIN) == FS_ACQUIRED);
    CHECK(fs_rwlock_readers(&rw) == 6 && fs_rwlock_is_locked(&rw));
    CHECK(!fs_rwlock_try_write(&rw) && !fs_rwlock_is_locked_exclusive(&rw));
    CHECK(fs_rwlock_write_until(&rw, fs_deadline_after(MILLISECOND), FS_PLAIN) == FS_TIMEOUT);
    fs_rwlock_bump_read(&rw);
    CHECK(fs_rwlock_unlock_read(&rw) == 0 && fs_rwlock_unlock_read_fair(&rw) == 0);
    fs_rwlock_reset(&rw);
    CHECK(fs_rwlock_unlock_read(&rw) == -1);
    return 0;
}

static int check_writing(void) {
    fs_rwlock rw;
    memset((void *)&rw, 0, sizeof(rw));
    fs_rwlock_write(&rw);
    CHECK(!fs_rwlock_try_read(&rw) && !fs_rwlock_try_upgradable_read(&rw));
    CHECK(fs_rwlock_is_locked_exclusive(&rw));
    fs_rwlock_bump_write(&rw);
    CHECK(fs_rwlock_unlock_write(&rw) == 0 && fs_rwlock_unlock_write(&rw) == -1);
    CHECK(fs_rwlock_try_write(&rw) && fs_rwlock_unlock_write_fair(&rw) == 0);
    CHECK(fs_rwlock_write_until(&rw, 0, FS_PLAIN) == FS_ACQUIRED);
    fs_rwlock_downgrade(&rw);
    CHECK(fs_rwlock_readers(&rw) == 1 && fs_rwlock_unlock_read(&rw) == 0);
    return 0;
}

static int check_upgrading(void) {
    fs_rwlock rw;
    memset((void *)&rw, 0, sizeof(rw));
    CHECK(fs_rwlock_upgradable_read(&rw) == FS_ACQUIRED && !fs_rwlock_try_upgradable_read(&rw));
    CHECK(fs_rwlock_upgradable_read_until(&rw, 0, FS_PLAIN) == FS_TIMEOUT);
    CHECK(fs_rwlock_try_read(&rw) && !fs_rwlock_try_upgrade(&rw));
    CHECK(fs_rwlock_upgrade_until(&rw, fs_deadline_after(MILLISECOND), FS_PLAIN) == FS_TIMEOUT);
    CHECK(fs_rwlock_unlock_read(&rw) == 0 && fs_rwlock_try_upgrade(&rw));
    fs_rwlock_downgrade_to_upgradable(&rw);
    fs_rwlock_bump_upgradable(&rw);
    fs_rwlock_upgrade(&rw);
    CHECK(fs_rwlock_is_locked_exclusive(&rw));
    fs_rwlock_downgrade_to_upgradable(&rw);
    CHECK(fs_rwlock_unlock_upgradable(&rw) == 0 && fs_rwlock_unlock_upgradable(&rw) == -1);
    CHECK(fs_rwlock_try_upgradable_read(&rw));
    fs_rwlock_downgrade_upgradable(&rw);
    CHECK(fs_rwlock_try_upgradable_read(&rw) && fs_rwlock_unlock_upgradable_fair(&rw) == 0);
    CHECK(fs_rwlock_unlock_read(&rw) == 0 && !fs_rwlock_is_locked(&rw));
    return 0;
}

static int answer(void *result) { return *(int *)result; }

static int check_once(void) {
    fs_once o;
    int good = 0, bad = 1;
    memset((void *)&o, 0, sizeof(o));
    CHECK(fs_once_wait(&o, 0, FS_PLAIN) == FS_TIMEOUT && !fs_once_is_done(&o));
    CHECK(fs_once_call(&o, answer, &bad) == FS_ONCE_POISON);
    CHECK(fs_once_call(&o, answer, &good) == FS_ONCE_POISON);
    CHECK(fs_once_begin(&o, 1, FS_FOREVER, FS_PLAIN) == FS_ONCE_RUN_POISONED);
    CHECK(fs_once_begin(&o, 1, 0, FS_PLAIN) == FS_TIMEOUT);
    fs_once_end(&o, FS_ONCE_NEW);
    CHECK(fs_once_call(&o, answer, &good) == FS_ONCE_DONE && fs_once_is_done(&o));
    CHECK(fs_once_wait(&o, FS_FOREVER, FS_PLAIN) == FS_ONCE_DONE);
    CHECK(fs_once_retract(&o) && !fs_once_retract(&o) && !fs_once_is_done(&o));
    CHECK(fs_once_begin(&o, 0, 0, FS_PLAIN) == FS_TIMEOUT); /* it runs */
    fs_once_end(&o, FS_ONCE_DONE);
    return 0;
}

/* Every type: a value that is there does not let a wait go, another one does. */
#define CHECK_ATOMIC(N, T, ONE, TWO)                                                          \
    {                                                                                         \
        fs_atomic_##N a;                                                                      \
        T expected = ONE;                                                                     \
        fs_##N##_store(&a, ONE);                                                              \
        CHECK(fs_##N##_wait(&a, ONE, fs_deadline_after(1000), FS_PLAIN) == FS_TIMEOUT);       \
        CHECK(fs_##N##_wait(&a, TWO, FS_FOREVER, FS_PLAIN) == FS_ACQUIRED);                   \
        CHECK(fs_##N##_exchange(&a, TWO) == ONE && !fs_##N##_cas(&a, &expected, ONE));        \
        CHECK(expected == TWO && fs_##N##_cas_order(&a, &expected, ONE, FS_ACQ_REL, FS_RELAXED)); \
        CHECK(fs_##N##_load_order(&a, FS_ACQUIRE) == ONE && fs_##N##_load(&a) == ONE);        \
        CHECK(!fs_word_notify_one(&a) && fs_word_notify_all(&a) == 0);                        \
    }

static int check_atomics(void) {
    fs_atomic_f64 sum;
    CHECK_ATOMIC(i8, int8_t, -1, 2)
    CHECK_ATOMIC(i16, int16_t, -1, 2)
    CHECK_ATOMIC(i32, int32_t, -1, 2)
    CHECK_ATOMIC(i64, int64_t, -1, 2)
    CHECK_ATOMIC(u8, uint8_t, 255, 2)
    CHECK_ATOMIC(u16, uint16_t, 65535, 2)
    CHECK_ATOMIC(u32, uint32_t, UINT32_MAX, 2)
    CHECK_ATOMIC(u64, uint64_t, UINT64_MAX, 2)
    CHECK_ATOMIC(uptr, uintptr_t, UINTPTR_MAX, 2)
    CHECK_ATOMIC(ptr, void *, (void *)&sum, NULL)
    CHECK_ATOMIC(bool, int, 1, 0)
    CHECK_ATOMIC(f32, float, -0.5f, 2.25f)
    CHECK_ATOMIC(f64, double, -0.5, 2.25)
    fs_f64_store(&sum, 1.5);
    CHECK(fs_f64_fetch_add(&sum, 0.25) == 1.5 && fs_f64_fetch_sub(&sum, 1.0) == 1.75);
    CHECK(fs_f64_fetch_max(&sum, Py_NAN) == 0.75 && fs_f64_fetch_min(&sum, 0.5) == 0.75);
    CHECK(fs_f64_load(&sum) == 0.5);
    return 0;
}

static int refuse(void *ctx) { return ctx == NULL; }
static int stop(void *ctx, uintptr_t token) { return (void)ctx, (void)token, FS_STOP; }
static int move_all(void *ctx) { return (void)ctx, FS_REQUEUE_ALL; }

static int check_parking(void) {
    int word, other;
    uintptr_t key = (uintptr_t)&word, token = 0;
    CHECK(fs_park(key, refuse, NULL, NULL, &word, 0, FS_FOREVER, FS_PLAIN, &token) ==
          FS_PARK_INVALID);
    CHECK(fs_park(key, NULL, NULL, NULL, NULL, 0, fs_deadline_after(1000), FS_SPIN, &token) ==
          FS_PARK_TIMED_OUT);
    CHECK(fs_parked_count(key) == 0);
    CHECK(fs_unpark_one(key, NULL, NULL) == 0 && fs_unpark_all(key, 0) == 0);
    CHECK(fs_unpark_filter(key, stop, NULL, NULL) == 0);
    CHECK(fs_unpark_requeue(key, (uintptr_t)&other, SIZE_MAX, move_all, NULL, NULL) == 0);
    CHECK(fs_spin_round(0, FS_FOREVER) && !fs_spin_round(1 << 20, FS_FOREVER));
    return 0;
}

static int check_deadlines(void) {
    CHECK(fs_deadline_after(0) == 0 && fs_deadline_after(INT64_MIN) == 0);
    CHECK(fs_deadline_after(FS_FOREVER) == FS_FOREVER);
    CHECK(fs_deadline_after(FS_FOREVER - 1) == FS_FOREVER);
    CHECK(fs_deadline_after(MILLISECOND) > fs_deadline_after(1));
    CHECK(fs_deadline_after(MILLISECOND) < FS_FOREVER);
    return 0;
}

static int (*const checks[])(void) = {
    check_mutex,   check_remutex, check_condvar,   check_semaphore, check_event,   check_barrier,
    check_reading, check_writing, check_upgrading, check_once,      check_atomics, check_parking,
    check_deadlines,
};

/* check() -> 0, or the line of the check that failed */
static PyObject *check(PyObject *self, PyObject *unused) {
    int failed = 0;
    (void)self;
    (void)unused;
    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]) && !failed; i++) {
        failed = checks[i]();
    }
    return PyLong_FromLong(failed);
}

#define WORDS(X)                                                                              \
    X(fs_mutex) X(fs_remutex) X(fs_condvar) X(fs_semaphore) X(fs_event) X(fs_barrier)         \
    X(fs_rwlock) X(fs_once) X(fs_atomic_i8) X(fs_atomic_i16) X(fs_atomic_i32)                 \
    X(fs_atomic_i64) X(fs_atomic_u8) X(fs_atomic_u16) X(fs_atomic_u32) X(fs_atomic_u64)       \
    X(fs_atomic_uptr) X(fs_atomic_ptr) X(fs_atomic_bool) X(fs_atomic_f32) X(fs_atomic_f64)

#define EMBED(WORD) struct with_##WORD { WORD word; char more; };
WORDS(EMBED)

/* sizes() -> {name: (bytes of the word, bytes of a struct of it and a char)} */
static PyObject *sizes(PyObject *self, PyObject *unused) {
    PyObject *all = PyDict_New();
    (void)self;
    (void)unused;
#define ADD(WORD)                                                                             \
    {                                                                                         \
        PyObject *pair = Py_BuildValue("(nn)", sizeof(WORD), sizeof(struct with_##WORD));     \
        PyDict_SetItemString(all, #WORD, pair);                                               \
        Py_DECREF(pair);                                                                      \
    }
    WORDS(ADD)
    return all;
}

#endif
