/* Included before everything else in each module of this package (setup.py), and in no other.

   Cython adds a frame to the traceback of every exception that passes one of its functions: files
   and lines that no user has, and most of the cost of raising.  The standard library's locks are
   written in C and add none.  So no frame can be made here; __Pyx_AddTraceback ends when it has
   none. */
#ifndef FASTSYNC_NO_FRAMES_H
#define FASTSYNC_NO_FRAMES_H

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>
#include <frameobject.h> /* declares what is a macro from here on */

/* Never looked at, but it must be an object, and making it must not fail. */
#define PyCode_NewEmpty(file, function, line) ((PyCodeObject *)Py_NewRef(Py_None))
#define PyFrame_New(state, code, globals, locals) ((PyFrameObject *)NULL)

/* An `except` block drops a reference to the traceback, which Cython takes for present: it thinks
   that its own frame is in it. */
#undef Py_DECREF
#define Py_DECREF(op) Py_XDECREF(_PyObject_CAST(op))

#endif
