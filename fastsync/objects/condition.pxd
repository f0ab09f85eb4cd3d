"""Condition, and the condition inside a Semaphore, Event or Barrier."""
from libc.stdint cimport int64_t, uint64_t
from cpython.object cimport PyObject

from fastsync.objects._extensible cimport _Extensible
from fastsync.objects._slots cimport fs_call
from fastsync.raw.c_atomic_order cimport fs_fence, FS_SEQ_CST
from fastsync.raw.condvar cimport fs_condvar


cdef extern from "Python.h":
    PyObject* Py_None


# How many threads wait for what a condition stands for that are not parked on it.
ctypedef size_t (*fs_more_waiting)(object owner, object condition) noexcept


cdef class Condition(_Extensible):
    cdef fs_call call
    cdef object lock           # a Lock or an RLock; None before __init__() and when `original`
    cdef object shown          # weak reference to the object whose `_cond` this is, or None
    cdef fs_more_waiting more  # of that object; NULL: those who wait in it natively
    cdef fs_condvar waiters


# -- between the modules of this package; not for others ---------------------

# `_cond` of an object that works natively: made when a program asks for it.  From then on
# all calls hold its lock and wait for it where the original's do.
cdef object inner_condition(object self)
cdef int enter_inner(Condition condition) except -1
cdef int leave_inner(Condition condition) except -1
cdef int notify_inner(Condition condition, uint64_t n) except -1
cdef bint wait_inner(Condition condition, int64_t deadline) except -1
cdef int wake_inner(Condition condition, uint64_t n) except -1


cdef inline bint has_inner(_Extensible self) noexcept:
    """Whether it has a `_cond`; of an object that is not `original`."""
    return <PyObject*>self.inner != Py_None


cdef inline int tell_inner(_Extensible self, uint64_t n) except -1:
    """After a change that began when there was no `_cond`: notify it, if there is one now."""
    fs_fence(FS_SEQ_CST)  # pairs with those in inner_condition and enter_inner
    if has_inner(self):
        return wake_inner(self.inner, n)
    return 0
