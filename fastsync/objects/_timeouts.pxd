"""Seconds of the Python API to deadlines of the raw locks; inline only."""
from libc.math cimport ceil, floor
from libc.stdint cimport INT64_MAX, int64_t
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_Check
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_Check
from cpython.number cimport PyIndex_Check
from cpython.object cimport PyObject

from fastsync.raw.c_wait cimport FS_FOREVER, fs_now
from fastsync.raw.parking cimport deadline_after

cdef extern from "Python.h":
    # By hand, because Cython's `except` crashes when no memory is left for the traceback.
    double as_double "PyFloat_AsDouble"(object) noexcept
    void* PyErr_Occurred() noexcept
    bint PyErr_ExceptionMatches(object) noexcept
    void PyErr_Clear() noexcept
    PyObject* Py_False
    Py_ssize_t PyTuple_GET_SIZE(PyObject*) noexcept
    PyObject* PyTuple_GET_ITEM(PyObject*, Py_ssize_t) noexcept

cdef extern from *:
    """
    #define FS_ANY_REAL (PY_VERSION_HEX >= 0x030F0000)
    """
    bint ANY_REAL "FS_ANY_REAL"  # is a timeout: see seconds_to_ns

cdef enum:
    # What time.monotonic() counts in.
    NS_PER_S = 1000000000

# threading.TIMEOUT_MAX in nanoseconds.
cdef inline int64_t timeout_max() noexcept:
    return <int64_t>9223372036 * NS_PER_S


cdef inline int64_t float_to_ns(double seconds) except? -1:
    cdef double ns
    if seconds != seconds:
        raise ValueError("Invalid value NaN (not a number)")
    ns = seconds * 1e9
    ns = ceil(ns) if ns > 0 else floor(ns)
    if ns > <double>timeout_max() or ns < -<double>timeout_max():
        raise OverflowError("timeout value is too large")
    return <int64_t>ns


cdef inline int64_t seconds_to_ns(object seconds) except? -1:
    """Nanoseconds, rounded away from 0.  As the standard library's locks convert: int
    or float only before 3.15, any real number since, ValueError for NaN, OverflowError
    past TIMEOUT_MAX either way."""
    cdef double value
    cdef long long whole
    cdef int overflow = 0
    if PyFloat_Check(seconds):
        return float_to_ns(PyFloat_AS_DOUBLE(seconds))
    if ANY_REAL and not PyIndex_Check(seconds):
        value = as_double(seconds)
        if value == -1 and PyErr_Occurred() != NULL:
            return -1
        return float_to_ns(value)
    whole = PyLong_AsLongLongAndOverflow(seconds, &overflow)
    if overflow or whole > 9223372036 or whole < -9223372036:
        raise OverflowError("timeout value is too large")
    return whole * NS_PER_S


cdef inline int64_t lock_timeout(object blocking, object timeout) except? -1:
    """The rules of threading.Lock.acquire, in nanoseconds: 0 for a call that may not wait."""
    cdef int64_t ns = seconds_to_ns(timeout)
    cdef bint unset = ns == -NS_PER_S
    if not blocking:
        if not unset:
            raise ValueError("can't specify a timeout for a non-blocking call")
        return 0
    if unset:
        return FS_FOREVER
    if ns < 0:
        raise ValueError("timeout value must be a non-negative number")
    return ns


cdef inline int64_t lock_deadline(object blocking, object timeout) except? -1:
    """The deadline of a call that looks at the clock first."""
    cdef int64_t ns = lock_timeout(blocking, timeout)
    return ns if ns == 0 or ns == FS_FOREVER else deadline_after(ns)


cdef inline bint is_false_alone(PyObject** args, Py_ssize_t nargs, PyObject* names) noexcept:
    """Of a vectorcall: whether it is f(False)."""
    return nargs == 1 and names == NULL and args[0] == Py_False


cdef inline bint is_timeout_alone(Py_ssize_t nargs, PyObject* names) noexcept:
    """Of a vectorcall: whether it is f(timeout=...), spelled in a program's text."""
    return (nargs == 0 and names != NULL and PyTuple_GET_SIZE(names) == 1
            and PyTuple_GET_ITEM(names, 0) == <PyObject*>"timeout")


cdef inline int64_t wait_deadline(object timeout) except? -1:
    """The rules of Condition, Semaphore and Event: None waits for ever, and what
    is not positive does not wait (0)."""
    cdef int64_t ns
    if timeout is None:
        return FS_FOREVER
    if (PyFloat_Check(timeout) or PyLong_Check(timeout)
            or ANY_REAL and not PyIndex_Check(timeout)) and timeout < 0:
        return 0  # however far in the past
    ns = seconds_to_ns(timeout)
    return 0 if ns <= 0 else deadline_after(ns)


cdef inline int64_t saturating_ns(object seconds) except? -1:
    """Any number: past INT64_MAX is FS_FOREVER, below 0 is 0; ValueError for NaN."""
    cdef double value = as_double(seconds)  # not float(): a string is no number
    if value == -1 and PyErr_Occurred() != NULL:
        if not PyErr_ExceptionMatches(OverflowError):
            return -1
        PyErr_Clear()
        return 0 if seconds < 0 else FS_FOREVER
    if value != value:
        raise ValueError("Invalid value NaN (not a number)")
    value = ceil(value * 1e9)
    if value <= 0:
        return 0
    return FS_FOREVER if value >= 9.2e18 else <int64_t>value


cdef inline int64_t deadline_for(object seconds) except? -1:
    """The deadline of a `_for` method: 0 when the call may not wait."""
    cdef int64_t ns = saturating_ns(seconds)
    return ns if ns == 0 or ns == FS_FOREVER else deadline_after(ns)


cdef inline int64_t deadline_until(object when) except? -1:
    """The deadline of an `_until` method, a time.monotonic() value: 0 when past."""
    cdef int64_t ns = saturating_ns(when)
    return 0 if ns <= fs_now() else ns
