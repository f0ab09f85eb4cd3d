/* A place for one object, which threads may read and replace at the same time.
 *
 * It is a list with one item: the interpreter already knows how to read a list
 * without a lock while another thread replaces the item, on every build. */
#ifndef FASTSYNC_SLOT_H
#define FASTSYNC_SLOT_H

#include <Python.h>
#include "atomic.h"

/* A new reference to what is there; NULL with an exception set, if another program has found
 * the list (gc.get_referents) and emptied it. */
FS_INLINE PyObject *fs_slot_get(PyObject *cell) {
#if PY_VERSION_HEX >= 0x030D0000
    return PyList_GetItemRef(cell, 0);
#else
    return Py_XNewRef(PyList_GetItem(cell, 0));
#endif
}

/* 0, or -1 with an exception set. */
FS_INLINE int fs_slot_set(PyObject *cell, PyObject *value) {
    return PyList_SetItem(cell, 0, Py_NewRef(value));
}

#endif
