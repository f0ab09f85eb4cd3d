"""Condition, and the condition inside a Semaphore, Event or Barrier."""
from libc.stdint cimport uint64_t
from cpython.object cimport PyObject

from fastsync.objects._extensible cimport _Extensible
from fastsync.objects._slots cimport fs_call
from fastsync.raw.c_atomic_order cimport fs_fence, FS_SEQ_CST
from fastsync.raw.condvar cimport fs_condvar


cdef extern from "Python.h":
    PyObject* Py_None


cdef class Condition(_Extensible):
    cdef fs_call call
    cdef object lock           # a Lock or an RLock; None before __init__() and when `original`
    cdef object shown          # weak reference to the object whose `_cond` this is, or None
    cdef fs_condvar waiters


# -- between the modules of this package; not for others ---------------------

# `_cond` of an object that works natively.
cdef object inner_condition(object self)
cdef int wake_inner(Condition condition, uint64_t n) except -1


cdef inline int notify_inner(_Extensible self, uint64_t n) except -1:
    """After the state has changed: wake the threads that wait for `_cond`."""
    fs_fence(FS_SEQ_CST)  # pairs with the one in inner_condition
    if <PyObject*>self.inner == Py_None:
        return 0
    return wake_inner(self.inner, n)
