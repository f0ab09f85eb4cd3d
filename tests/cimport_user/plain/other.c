/* A second file of the same extension: fastsync_import() in the first serves both. */
#include <Python.h>

#include <fastsync/fastsync.h>

PyObject *add_in_other_file(PyObject *self, PyObject *args) {
    unsigned long long lock, value;
    long long times;
    if (!PyArg_ParseTuple(args, "(KK)L", &lock, &value, &times)) {
        return NULL;
    }
    while (times-- > 0) { /* attached: a wait detaches */
        fs_mutex_lock((fs_mutex *)lock);
        ++*(int64_t *)value;
        fs_mutex_unlock_fair((fs_mutex *)lock);
    }
    Py_RETURN_NONE;
}
