# distutils: define_macros=CYTHON_USE_TYPE_SPECS=1
# A heap type, because it can be renamed as the original can.
"""SimpleQueue, as `queue.SimpleQueue`."""
cimport cython
from cpython.object cimport PyObject

from fastsync.raw.c_wait cimport FS_FOREVER
from fastsync.raw.ring cimport *
from fastsync.objects._ring cimport (
    _Ring, collect_items, get_batch, get_item, put_batch, put_item, size_in_memory, wait_limit,
)
from fastsync.objects._slots cimport finish_type, fs_method, rename_type, shorten
from fastsync.raw.c_python cimport Py_NewRef

from fastsync.objects._pin import register_pinnable

cdef extern from "Python.h":
    PyObject* Py_None


@cython.no_gc_clear
cdef class SimpleQueue(_Ring):
    """SimpleQueue()
--

An unbounded first-in first-out queue, as `queue.SimpleQueue`.

No call waits but get(), and any may be made from a finalizer or a signal handler.
Threads that wait are served in order.  put() happens before the get() that takes
its item (release / acquire ordering)."""

    def __init__(self):
        pass

    def put(self, item, block=True, timeout=None):
        """Put the item at the end.  `block` and `timeout` are ignored: this never waits."""
        put_item(self, <PyObject*>item, FS_FOREVER)

    def put_nowait(self, item):
        """put(item)."""
        put_item(self, <PyObject*>item, FS_FOREVER)

    def get(self, block=True, timeout=None):
        """Take the first item, waiting for one.

        block: False raises Empty at once when there is none.  timeout: seconds to
        wait at most, None for no limit; Empty when they have passed, ValueError below 0.
        """
        return get_item(self, wait_limit(block, timeout))

    def get_nowait(self):
        """get(block=False)."""
        return get_item(self, 0)

    def put_many(self, iterable):
        """Put all items of `iterable` at the end, side by side."""
        put_batch(self, list(iterable), FS_FOREVER)

    def get_many(self, max, timeout=None):
        """Take up to `max` items, a list; waits for the first only.

        timeout: seconds, None for no limit.  Empty when none comes in that time.
        """
        return get_batch(self, max, wait_limit(True, timeout))

    def empty(self):
        """Whether there is no item, at this moment."""
        return ring_count(&self.ring) == 0

    def qsize(self):
        """How many items there are, at this moment."""
        return ring_count(&self.ring)

    def __reduce__(self):
        raise TypeError("cannot pickle '_queue.SimpleQueue' object")

    def __sizeof__(self):
        return size_in_memory(self)

# The plain calls of put() and get(): see shorten().
cdef fs_method usual_put
cdef fs_method usual_get


cdef PyObject* short_put(
    PyObject* self, PyObject** args, Py_ssize_t nargs, PyObject* names,
) except NULL:
    if nargs != 1 or names != NULL:
        return usual_put(self, args, nargs, names)
    put_item(<_Ring>self, args[0], FS_FOREVER)
    return Py_NewRef(Py_None)


cdef PyObject* short_get(
    PyObject* self, PyObject** args, Py_ssize_t nargs, PyObject* names,
) except NULL:
    cdef object item
    if nargs != 0 or names != NULL:
        return usual_get(self, args, nargs, names)
    item = get_item(<_Ring>self, FS_FOREVER)
    return Py_NewRef(<PyObject*>item)


collect_items(SimpleQueue, _Ring)
finish_type(SimpleQueue, False)
rename_type(SimpleQueue, b"_queue.SimpleQueue")
usual_put = shorten(SimpleQueue, "put", short_put)
usual_get = shorten(SimpleQueue, "get", short_get)
register_pinnable(SimpleQueue)
