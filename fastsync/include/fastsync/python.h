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

/* With the GIL, a thread that spins attached keeps the owner from running. */
FS_INLINE int fs_may_spin(void) { return FS_FREE_THREADED || !fs_attached(); }

#endif
