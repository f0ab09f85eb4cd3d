// A C++ extension: fastsync::mutex with the standard library's guards.
#include <Python.h>

#include <fastsync/fastsync.h>

#include "checks.h"

#include <mutex>
#include <vector>

static_assert(sizeof(fastsync::mutex) == 1, "one byte");

static fastsync::mutex guard;
static std::vector<long long> items;

// push(first, count) -> items so far
static PyObject *push(PyObject *, PyObject *args) {
    long long first, count;
    if (!PyArg_ParseTuple(args, "LL", &first, &count)) {
        return nullptr;
    }
    Py_BEGIN_ALLOW_THREADS
    for (long long i = first; i < first + count; i++) {
        std::lock_guard<fastsync::mutex> held(guard);
        items.push_back(i);
    }
    Py_END_ALLOW_THREADS
    std::unique_lock<fastsync::mutex> held(guard, std::defer_lock);
    held.lock();
    return PyLong_FromSize_t(items.size());
}

// add((lock, value), times)
static PyObject *add(PyObject *, PyObject *args) {
    unsigned long long lock, value;
    long long times;
    if (!PyArg_ParseTuple(args, "(KK)L", &lock, &value, &times)) {
        return nullptr;
    }
    Py_BEGIN_ALLOW_THREADS
    while (times-- > 0) {
        fs_mutex_lock(reinterpret_cast<fs_mutex *>(lock));
        ++*reinterpret_cast<int64_t *>(value);
        fs_mutex_unlock(reinterpret_cast<fs_mutex *>(lock));
    }
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"push", push, METH_VARARGS, nullptr},
    {"add", add, METH_VARARGS, nullptr},
    {"sizes", sizes, METH_NOARGS, nullptr},
    {"check", check, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

static int execute(PyObject *) { return fastsync_import(); }

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, reinterpret_cast<void *>(execute)},
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, nullptr},
};

static PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "fs_user_cpp", nullptr, 0, methods, slots, nullptr, nullptr, nullptr,
};

PyMODINIT_FUNC PyInit_fs_user_cpp() { return PyModuleDef_Init(&module); }
