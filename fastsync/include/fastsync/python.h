/* What the interpreter's versions spell differently, and nothing else. */
#ifndef FASTSYNC_PYTHON_H
#define FASTSYNC_PYTHON_H

#include <Python.h>
#include "atomic.h"

#ifdef Py_GIL_DISABLED
#  define FS_FREE_THREADED 1
#else
#  define FS_FREE_THREADED 0
#endif

/* Whether this thread has an attached thread state. */
FS_INLINE int fs_attached(void) {
#if PY_VERSION_HEX >= 0x030D0000
    return PyThreadState_GetUnchecked() != NULL;
#elif PY_VERSION_HEX >= 0x030C0000
    return _PyThreadState_UncheckedGet() != NULL;
#else
    /* Before 3.12 the current thread state is a global, not this thread's. */
    return PyGILState_Check();
#endif
}

/* Detach before a sleep; NULL when there was nothing to detach. */
FS_INLINE PyThreadState *fs_detach(void) {
    return fs_attached() ? PyEval_SaveThread() : NULL;
}

/* Undo fs_detach.  May wait, and at interpreter exit may never return. */
FS_INLINE void fs_attach(PyThreadState *state) {
    if (state != NULL) {
        PyEval_RestoreThread(state);
    }
}

/* A field of the interpreter's that other threads change, as one of our atomics. */
#define FS_FIELD(FIELD)                                                        \
    ((void)sizeof(char[sizeof(FIELD) == sizeof(fs_atomic_uptr) ? 1 : -1]),     \
     (fs_atomic_uptr *)(void *)&(FIELD))

/* Whether the interpreter ends, and from 3.15 on refuses to wait: no other thread of Python
 * runs any more, so none could end a wait. */
FS_INLINE int fs_finalizing(void) {
#if PY_VERSION_HEX >= 0x030F0000
    return Py_IsFinalizing();
#else
    return 0;
#endif
}

/* Whether a signal waits for its Python handler.  For the main thread, which runs
 * them, of its own detached state.  Before 3.13 nothing tells: "perhaps"; nor is a later
 * version asked whose bits have not been looked at.  setup.py compares the bit with the
 * interpreter's own header. */
#define FS_SIGNALS_PENDING 2  /* _PY_SIGNALS_PENDING_BIT */
#if PY_VERSION_HEX >= 0x030D0000 && PY_VERSION_HEX < 0x03100000
#  define FS_TELLS_OF_SIGNALS 1
#else
#  define FS_TELLS_OF_SIGNALS 0
#endif
FS_INLINE int fs_signal_due(PyThreadState *state) {
    if (fs_finalizing()) {
        return 1; /* so that fs_check_signals says so */
    }
#if FS_TELLS_OF_SIGNALS
    /* relaxed: a hint; the handlers' own flags are read by PyErr_CheckSignals */
    return (fs_uptr_load_relaxed(FS_FIELD(state->eval_breaker)) & FS_SIGNALS_PENDING) != 0;
#else
    (void)state;
    return 1;
#endif
}

/* PyErr_CheckSignals, of the main thread that is about to sleep; nothing is due afterwards
 * unless a handler raised.  The interpreter's own leaves the mark when no handler was Python
 * code. */
FS_INLINE int fs_check_signals(void) {
#if PY_VERSION_HEX >= 0x030F0000
    if (fs_finalizing()) {
        PyErr_SetString(PyExc_PythonFinalizationError,
                        "cannot acquire lock at interpreter finalization");
        return -1;
    }
#endif
#if FS_TELLS_OF_SIGNALS
    PyThreadState *state = PyThreadState_GetUnchecked();
    fs_uptr_fetch_and(FS_FIELD(state->eval_breaker), ~(uintptr_t)FS_SIGNALS_PENDING);
    if (PyErr_CheckSignals() < 0) {
        /* Others may be due still, as after the interpreter's own check. */
        fs_uptr_fetch_or(FS_FIELD(state->eval_breaker), FS_SIGNALS_PENDING);
        return -1;
    }
    return 0;
#else
    return PyErr_CheckSignals();
#endif
}

/* Free of reference counting, for good: what _Py_IsImmortal says. */
FS_INLINE int fs_is_immortal(PyObject *op) {
#if PY_VERSION_HEX >= 0x030E0000
    return PyUnstable_IsImmortal(op);
#elif PY_VERSION_HEX >= 0x030C0000
    return _Py_IsImmortal(op);
#else
    (void)op;
    return 0;
#endif
}

/* Make it immortal for good: 1.  0, and nothing done, where the interpreter has no immortal
 * objects, and on a free-threaded one when another thread owns the object: the owner counts
 * with plain instructions and would undo it.  -1, for now: another thread has dropped a
 * reference and queued the object for its owner, this thread, which will give it up the next
 * time that it looks into the queue, and would undo it then. */
FS_INLINE int fs_make_immortal(PyObject *op) {
#if defined(Py_GIL_DISABLED)
    /* References from nowhere, far more than there are threads: without them a thread that
     * drops one, and has not seen yet that it need not, could find none left and queue it. */
    const Py_ssize_t many = (Py_ssize_t)1 << (sizeof(Py_ssize_t) > 4 ? 40 : 24);
    Py_ssize_t before;
    /* Owner 0 is no thread: then none counts with plain instructions. */
    if (op->ob_tid != 0 && !_Py_IsOwnedByCurrentThread(op)) {
        return 0;
    }
    before = (Py_ssize_t)fs_uptr_fetch_add(FS_FIELD(op->ob_ref_shared), (uintptr_t)many);
    if ((before & _Py_REF_SHARED_FLAG_MASK) == _Py_REF_QUEUED) {
        fs_uptr_fetch_sub(FS_FIELD(op->ob_ref_shared), (uintptr_t)many);
        return -1;
    }
    op->ob_ref_local = UINT32_MAX;  /* as Py_SET_REFCNT does for an owner */
    return 1;
#elif PY_VERSION_HEX >= 0x030E0000
    Py_SET_REFCNT(op, _Py_IMMORTAL_INITIAL_REFCNT);
    return 1;
#elif PY_VERSION_HEX >= 0x030C0000
    Py_SET_REFCNT(op, _Py_IMMORTAL_REFCNT);
    return 1;
#else
    (void)op;
    return 0;
#endif
}

/* Whether the caller's reference is the only one there is. */
FS_INLINE int fs_is_unique(PyObject *op) {
#ifdef Py_GIL_DISABLED
    /* The owner counts its references with plain instructions.  relaxed: a reference that
     * another thread has was given by one of those that are counted here. */
    return _Py_IsOwnedByCurrentThread(op) && op->ob_ref_local == 1 &&
           fs_uptr_load_relaxed(FS_FIELD(op->ob_ref_shared)) == 0;
#else
    return Py_REFCNT(op) == 1;
#endif
}

/* A reference to None, True or False, which count none where objects can be immortal. */
FS_INLINE PyObject *fs_constant(PyObject *op) {
#if PY_VERSION_HEX >= 0x030C0000
    return op;
#else
    return Py_NewRef(op);
#endif
}

/* Call drop(self), and keep the exception that may be set now. */
FS_INLINE void fs_keep_exception(PyObject *self, inquiry drop) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    (void)drop(self);
    PyErr_Restore(type, value, traceback);
}

/* A tp_dealloc, `whole`, of a collected type: drop(self) drops all that it refers to.  Long
 * chains of such objects, and of others in between, are freed without a deep stack. */
FS_INLINE void fs_free_object(PyObject *self, destructor whole, inquiry drop) {
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, whole)
    if (Py_TYPE(self)->tp_weaklistoffset > 0) {
        PyObject_ClearWeakRefs(self);
    }
    fs_keep_exception(self, drop);
    Py_TYPE(self)->tp_free(self);
    Py_TRASHCAN_END
}

/* NULL, or what about this interpreter is not as the functions above take it to be: asked
 * once, at import, with the thread state attached, of an object that only the caller knows
 * and whose memory is never freed afterwards. */
FS_INLINE const char *fs_check_interpreter(PyObject *fresh) {
    Py_ssize_t count = Py_REFCNT(fresh);
    Py_INCREF(fresh);
    if (Py_REFCNT(fresh) != count + 1) {
        return "a new object does not count its references";
    }
    Py_DECREF(fresh);
#ifdef Py_GIL_DISABLED
    if (fresh->ob_tid != _Py_ThreadId()) {
        return "a new object is not its thread's own";
    }
#endif
    if (fs_is_immortal(fresh)) {
        return "a new object is immortal";
    }
#if PY_VERSION_HEX >= 0x030C0000
    if (fs_make_immortal(fresh) != 1 || !fs_is_immortal(fresh)) {
        return "a new object cannot be made immortal";
    }
    count = Py_REFCNT(fresh);
    Py_INCREF(fresh);
    if (Py_REFCNT(fresh) != count) {
        return "an immortal object counts its references";
    }
#endif
    return NULL;
}

/* A reference that the caller owns, for Cython to take over; None for NULL. */
FS_INLINE PyObject *fs_given(PyObject *op) {
    return op != NULL ? op : Py_NewRef(Py_None);
}

/* A list of so many times None, for items to be set by PyList_SET_ITEM.  PyList_New() of
 * 3.13t, when there is no memory for the items, frees the memory of those that the list had in an
 * earlier life, once more; repeating a list does not. */
FS_INLINE PyObject *fs_new_list(Py_ssize_t size) {
    PyObject *one = PyList_New(0), *list;
    if (one == NULL || PyList_Append(one, Py_None) < 0) {
        Py_XDECREF(one);
        return NULL;
    }
    if (size == 1) {
        return one;
    }
    list = PySequence_Repeat(one, size);
    Py_DECREF(one);
    return list;
}

/* The value of an int that fits one digit, without a call; 0 for any other object. */
FS_INLINE int fs_small_int(PyObject *op, int64_t *value) {
    if (!PyLong_CheckExact(op)) {
        return 0;
    }
#if PY_VERSION_HEX >= 0x030C0000
    if (!PyUnstable_Long_IsCompact((PyLongObject *)op)) {
        return 0;
    }
    *value = PyUnstable_Long_CompactValue((PyLongObject *)op);
#else
    Py_ssize_t size = Py_SIZE(op);
    if (size < -1 || size > 1) {
        return 0;
    }
    *value = size == 0 ? 0 : size * (int64_t)((PyLongObject *)op)->ob_digit[0];
#endif
    return 1;
}

/* With the GIL, a thread that spins attached keeps the owner from running. */
FS_INLINE int fs_may_spin(void) { return FS_FREE_THREADED || !fs_attached(); }

#endif
