/* A box for one object, which threads may read and replace at the same time.
 *
 * It is a list with one item: the interpreter already knows how to read a list
 * without a lock while another thread replaces the item, on every build. */
#ifndef FASTSYNC_BOX_H
#define FASTSYNC_BOX_H

#include <Python.h>
#include "atomic.h"

/* A new reference to what is there; NULL with an exception set, if another program has found
 * the list (gc.get_referents) and emptied it. */
FS_INLINE PyObject *fs_box_get(PyObject *box) {
#if PY_VERSION_HEX >= 0x030D0000
    return PyList_GetItemRef(box, 0);
#else
    return Py_XNewRef(PyList_GetItem(box, 0));
#endif
}

/* 0, or -1 with an exception set. */
FS_INLINE int fs_box_set(PyObject *box, PyObject *value) {
    return PyList_SetItem(box, 0, Py_NewRef(value));
}

#endif
