/* A C extension that knows fastsync by its header only. */
#include <Python.h>

#include <fastsync/fastsync.h>

PyObject *add_in_other_file(PyObject *self, PyObject *args); /* other.c */

/* sizes() -> bytes of a mutex, remutex, condvar, semaphore, event */
static PyObject *sizes(PyObject *self, PyObject *unused) {
    return Py_BuildValue("(nnnnn)", sizeof(fs_mutex), sizeof(fs_remutex), sizeof(fs_condvar),
                         sizeof(fs_semaphore), sizeof(fs_event));
}

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

/* The rest, without contention: 0, or the number of the check that failed. */
static PyObject *check(PyObject *self, PyObject *unused) {
    fs_mutex m = {0};
    fs_remutex r = {0};
    fs_semaphore s = {0};
    fs_event e = {0};
    fs_barrier b = {0};
    int failed = 0;
    fs_mutex_lock(&m);
    if (fs_mutex_try_lock(&m) || !fs_mutex_is_locked(&m)) failed = 1;
    if (fs_mutex_try_lock_for(&m, 1000000)) failed = 2;
    if (fs_mutex_unlock(&m) != 0 || fs_mutex_unlock(&m) != -1) failed = 3;
    fs_remutex_lock(&r);
    if (!fs_remutex_try_lock(&r)) failed = 4;
    if (fs_remutex_unlock(&r) != 0 || fs_remutex_unlock(&r) != 0) failed = 5;
    if (fs_remutex_unlock(&r) != -1) failed = 6;
    fs_semaphore_init(&s, 1);
    fs_semaphore_acquire(&s);
    if (fs_semaphore_try_acquire(&s)) failed = 7;
    if (fs_semaphore_release(&s, 2) != 0 || fs_semaphore_value(&s) != 2) failed = 8;
    if (fs_event_wait_until(&e, fs_deadline_after(1000000), FS_PLAIN) != FS_TIMEOUT) failed = 9;
    fs_event_set(&e);
    fs_event_wait(&e);
    fs_event_clear(&e);
    if (fs_event_is_set(&e)) failed = 10;
    fs_barrier_init(&b, 1);
    if (fs_barrier_wait(&b) != FS_BARRIER_LAST) failed = 11;
    if (fastsync_table->unpark_one((uintptr_t)&m, NULL, NULL) != 0) failed = 12;
    return PyLong_FromLong(failed);
}

static PyMethodDef methods[] = {
    {"sizes", sizes, METH_NOARGS, NULL},
    {"add", add, METH_VARARGS, NULL},
    {"add_in_other_file", add_in_other_file, METH_VARARGS, NULL},
    {"ping_pong", ping_pong, METH_VARARGS, NULL},
    {"check", check, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module) { return fastsync_import(); }

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
