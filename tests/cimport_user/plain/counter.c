/* A C extension that knows fastsync by its header only. */
#include <Python.h>
#include <signal.h>

#include <fastsync/fastsync.h>
#include <fastsync/wait.h>

#include "checks.h"

PyObject *add_in_other_file(PyObject *self, PyObject *args); /* other.c */

/* add((lock, value), times): add 1 to the value, under the lock */
static PyObject *add(PyObject *self, PyObject *args) {
    unsigned long long lock, value;
    long long times;
    if (!PyArg_ParseTuple(args, "(KK)L", &lock, &value, &times)) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    while (times-- > 0) {
        fs_mutex_lock((fs_mutex *)lock);
        ++*(int64_t *)value;
        fs_mutex_unlock((fs_mutex *)lock);
    }
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

/* Two threads take turns: ping_pong(me, rounds) -> how often it was my turn */
static fs_mutex turn_lock;
static fs_condvar turn_changed;
static int turn;

static PyObject *ping_pong(PyObject *self, PyObject *args) {
    int me, rounds, i;
    if (!PyArg_ParseTuple(args, "ii", &me, &rounds)) {
        return NULL;
    }
    for (i = 0; i < rounds; i++) { /* attached: the waits detach */
        fs_mutex_lock(&turn_lock);
        while (turn != me) {
            fs_condvar_wait(&turn_changed, &turn_lock, FS_FOREVER, FS_PLAIN);
        }
        turn = 1 - me;
        fs_condvar_notify_one(&turn_changed);
        fs_mutex_unlock(&turn_lock);
    }
    return PyLong_FromLong(i);
}

/* Thread 0 unlocks, or bumps, what thread 1 has just parked on, and tries to have it again at
 * once: hand_over(me, rounds) -> how often it had it before the other.  At once, because who is
 * parked for long is handed a mutex by any unlock. */
static fs_mutex handed;
static fs_atomic_i32 offered, tried;
static int received; /* under the mutex */

static int offer(int i) {
    int sneaked;
    fs_mutex_lock(&handed);
    fs_i32_store(&offered, i);
    while (fs_parked_count((uintptr_t)&handed) == 0) {
    }
    if (i % 2) {
        fs_mutex_unlock_fair(&handed);
        sneaked = fs_mutex_try_lock(&handed);
        fs_i32_store(&tried, i);
        if (!sneaked) {
            return 0;
        }
    } else {
        fs_i32_store(&tried, i);
        fs_mutex_bump(&handed);
        sneaked = received != i;
    }
    fs_mutex_unlock(&handed);
    return sneaked;
}

static void receive(int i) {
    while (fs_i32_load(&offered) < i) {
    }
    fs_mutex_lock(&handed);
    received = i;
    while (fs_i32_load(&tried) < i) {
    }
    fs_mutex_unlock(&handed);
}

static PyObject *hand_over(PyObject *self, PyObject *args) {
    int me, rounds, i, sneaked = 0;
    if (!PyArg_ParseTuple(args, "ii", &me, &rounds)) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    for (i = 1; i <= rounds; i++) {
        if (me == 0) {
            sneaked += offer(i);
        } else {
            receive(i);
        }
    }
    Py_END_ALLOW_THREADS
    return PyLong_FromLong(sneaked);
}

/* Threads wait in await_notification(); notify(all) says how many it reached. */
static fs_mutex notified_lock;
static fs_condvar notified;

static PyObject *await_notification(PyObject *self, PyObject *unused) {
    int result;
    fs_mutex_lock(&notified_lock);
    result = fs_condvar_wait(&notified, &notified_lock, FS_FOREVER, FS_PLAIN);
    fs_mutex_unlock(&notified_lock);
    return PyBool_FromLong(result == FS_CONDVAR_NOTIFIED);
}

static PyObject *notify(PyObject *self, PyObject *all) {
    size_t count = PyObject_IsTrue(all) ? fs_condvar_notify_all(&notified)
                                        : (size_t)fs_condvar_notify_one(&notified);
    return Py_BuildValue("nn", count, fs_parked_count((uintptr_t)&notified));
}

static PyObject *waiting_for_notification(PyObject *self, PyObject *unused) {
    return PyLong_FromSize_t(fs_parked_count((uintptr_t)&notified));
}

/* Two signals at once, then a wait that runs their handlers. */
static PyObject *wait_after_two_signals(PyObject *self, PyObject *args) {
    fs_event never = {{0}};
    int first, second;
    if (!PyArg_ParseTuple(args, "ii", &first, &second)) {
        return NULL;
    }
    raise(first);
    raise(second);
    if (fs_event_wait_until(&never, FS_FOREVER, FS_SIGNALS) == FS_ERROR) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* use_bucket_lock("acquire"), "release" or "both" */
static fs_bucket_lock bucket_lock;

static PyObject *use_bucket_lock(PyObject *self, PyObject *what) {
    const char *name = PyUnicode_AsUTF8(what);
    if (name == NULL) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    if (name[0] != 'r') {
        fs_bucket_lock_acquire(&bucket_lock, 1);
    }
    if (name[0] != 'a') {
        fs_bucket_lock_release(&bucket_lock, 1);
    }
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

/* However it was left: held, and slept on.  0, or the line that failed. */
static PyObject *take_over_bucket_lock(PyObject *self, PyObject *unused) {
    static fs_bucket_lock lock;
    int failed = 0;
#define TRY(condition) failed = failed || (condition) ? failed : __LINE__
    TRY(fs_bucket_lock_acquire(&lock, 0) == 0);
#if !defined(_WIN32)
    TRY(fs_bucket_lock_acquire(&lock, 1) == 1);
    fs_bucket_lock_release(&lock, 1);
    TRY(fs_bucket_lock_acquire(&lock, 1) == 0);
    fs_u32_store(&lock.word, fs_u32_load(&lock.word) + 1);
    TRY(fs_bucket_lock_acquire(&lock, 0x40000000) == 1); /* counts modulo 2^30: 0 */
    TRY(fs_u32_load(&lock.word) == 1);
    fs_bucket_lock_release(&lock, 0);
    TRY(fs_u32_load(&lock.word) == 0);
#endif
#undef TRY
    return PyLong_FromLong(failed);
}

/* Many threads call it: how often it ran, and whether it was over for this one. */
static fs_once once;
static int ran;

static int run_slowly(void *ctx) {
    fs_event never = {{0}};
    fs_event_wait_for(&never, 10000000);
    ++*(int *)ctx;
    return 0;
}

static PyObject *call_once(PyObject *self, PyObject *unused) {
    int result;
    Py_BEGIN_ALLOW_THREADS
    result = fs_once_call(&once, run_slowly, &ran);
    Py_END_ALLOW_THREADS
    return Py_BuildValue("ii", ran, result == FS_ONCE_DONE);
}

/* await_change(ns) waits while the number is 0; change(n) sets it: how many it woke. */
static fs_atomic_i32 number;

static PyObject *await_change(PyObject *self, PyObject *args) {
    long long ns;
    if (!PyArg_ParseTuple(args, "L", &ns)) {
        return NULL;
    }
    return PyLong_FromLong(fs_i32_wait(&number, 0, fs_deadline_after(ns), FS_PLAIN));
}

static PyObject *change(PyObject *self, PyObject *args) {
    int n;
    if (!PyArg_ParseTuple(args, "i", &n)) {
        return NULL;
    }
    fs_i32_store(&number, n);
    return PyLong_FromSize_t(fs_word_notify_all(&number));
}

/* How often a wait between processes went to sleep, where its number was another already. */
static PyObject *sleep_on_another_number(PyObject *self, PyObject *unused) {
    static uint64_t words[2];
    static const int sizes[] = {1, 2, 4, 8};
    int i, at, bit, slept = 0;
    Py_BEGIN_ALLOW_THREADS
    for (i = 0; i < (FS_SHARED_WAIT ? 4 : 0); i++) {
        for (at = 0; at < 8; at += sizes[i]) {
            char *word = (char *)words + at;
            for (bit = 0; bit < 8 * sizes[i]; bit += 7) {
                memset(words, 0, sizeof words);
                slept += fs_shared_wait(word, sizes[i], 1ull << bit, fs_deadline_after(50000000))
                         != FS_WOKEN;
            }
        }
    }
    Py_END_ALLOW_THREADS
    return PyLong_FromLong(slept);
}

/* A thread sleeps in sleep_on_word() until wake("truly"); wake("falsely") returns when the system
 * has woken it for nothing, which everybody who sleeps must bear. */
static fs_waitword sleeper;

static PyObject *sleep_on_word(PyObject *self, PyObject *unused) {
    int woken;
    Py_BEGIN_ALLOW_THREADS
    fs_waitword_init(&sleeper);
    woken = fs_waitword_wait(&sleeper, fs_deadline_after(60000000000)) == FS_WOKEN &&
            fs_waitword_woken(&sleeper);
    fs_waitword_destroy(&sleeper);
    Py_END_ALLOW_THREADS
    return PyBool_FromLong(woken);
}

static PyObject *wake(PyObject *self, PyObject *how) {
    const char *name = PyUnicode_AsUTF8(how);
    if (name == NULL) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    if (name[0] == 't') {
        fs_waitword_wake(&sleeper);
    }
#if FS_SHARED_WAIT /* that is, with futexes */
    else {
        int op = FUTEX_WAKE | FUTEX_PRIVATE_FLAG;
        while (fs_futex(&sleeper.word, op, 1, FS_FOREVER, 0) != 1) {
            fs_yield();
        }
    }
#endif
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

/* add_with(mutex, number, times): add 1 to a fastsync.AtomicI64 under a fastsync.Mutex,
 * with two operations that are one only under the lock. */
static PyObject *add_with(PyObject *self, PyObject *args) {
    PyObject *mutex, *number;
    long long times;
    fs_mutex *lock;
    fs_atomic_i64 *word;
    if (!PyArg_ParseTuple(args, "OOL", &mutex, &number, &times)) {
        return NULL;
    }
    if ((lock = fs_mutex_word(mutex)) == NULL || (word = fs_i64_word(number)) == NULL) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    while (times-- > 0) {
        fs_mutex_lock(lock);
        fs_i64_store_relaxed(word, fs_i64_load_relaxed(word) + 1); /* relaxed: under the lock */
        fs_mutex_unlock(lock);
    }
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"sizes", sizes, METH_NOARGS, NULL},
    {"add", add, METH_VARARGS, NULL},
    {"add_in_other_file", add_in_other_file, METH_VARARGS, NULL},
    {"ping_pong", ping_pong, METH_VARARGS, NULL},
    {"hand_over", hand_over, METH_VARARGS, NULL},
    {"await_notification", await_notification, METH_NOARGS, NULL},
    {"notify", notify, METH_O, NULL},
    {"waiting_for_notification", waiting_for_notification, METH_NOARGS, NULL},
    {"wait_after_two_signals", wait_after_two_signals, METH_VARARGS, NULL},
    {"use_bucket_lock", use_bucket_lock, METH_O, NULL},
    {"call_once", call_once, METH_NOARGS, NULL},
    {"await_change", await_change, METH_VARARGS, NULL},
    {"change", change, METH_VARARGS, NULL},
    {"sleep_on_another_number", sleep_on_another_number, METH_NOARGS, NULL},
    {"take_over_bucket_lock", take_over_bucket_lock, METH_NOARGS, NULL},
    {"sleep_on_word", sleep_on_word, METH_NOARGS, NULL},
    {"wake", wake, METH_O, NULL},
    {"add_with", add_with, METH_VARARGS, NULL},
    {"check", check, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module) {
    return fastsync_import();
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)execute},
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "fs_user_c", NULL, 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_fs_user_c(void) { return PyModuleDef_Init(&module); }
