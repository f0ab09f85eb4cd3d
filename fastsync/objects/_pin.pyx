"""pin(): locks and atomics that live as long as the process, without reference counts.

On a free-threaded build every use of an object by a thread that did not make it is
two locked instructions on the object's reference count, all threads on one cache
line.  An immortal object has no count.  The interpreter makes an object immortal
by its count alone (Py_SET_REFCNT to the immortal value), and the object must be
out of the garbage collector's sight, which would otherwise count for itself.
"""
from time import sleep

from cpython.object cimport PyObject

from fastsync.raw.c_python cimport fs_is_immortal, fs_make_immortal

cdef extern from "Python.h":
    int PyObject_GC_IsTracked(PyObject*)
    void PyObject_GC_UnTrack(PyObject*)

# Exact types, and for each None or a function that gives what else its instances
# are used through; filled when their modules are imported.
cdef dict pinnable = {}


def register_pinnable(*types, parts=None):
    """Let pin() accept instances of `types`: for the modules of this package.

    parts: called with the instance, gives the objects to pin with it.
    """
    pinnable.update(dict.fromkeys(types, parts))


# A call of it lets the interpreter look into this thread's queue of objects that other threads
# have dropped references to; it does so only where Python code runs.
cdef object look_into_queue = eval("lambda: None")


cdef bint pin_one(obj) except -1:
    """Whether it took effect."""
    cdef int done = fs_make_immortal(<PyObject*>obj)
    cdef int looks = 0
    while done < 0 and looks < 1000:
        # Another thread has just dropped a reference: it may not be in the queue yet.
        look_into_queue()
        if looks > 1:
            sleep(0.0001)
        looks += 1
        done = fs_make_immortal(<PyObject*>obj)
    if done > 0 and PyObject_GC_IsTracked(<PyObject*>obj):
        PyObject_GC_UnTrack(<PyObject*>obj)
    return done > 0


def pin(obj, /):
    """Free `obj`, a lock or atomic of fastsync, from reference counting; return it.

    It is never freed, and neither is what it refers to: for objects that live as long as the
    process. Threads that share it then no longer slow each other down by counting. Call it in
    the thread that made the object: elsewhere, and before Python 3.12, it does nothing.
    TypeError for other objects, and for those that are meant to end, such as guards.
    """
    if type(obj) not in pinnable:
        raise TypeError(f"cannot pin {type(obj).__name__!r} object: it is none of those that can be pinned")
    parts = pinnable[type(obj)]
    if pin_one(obj) and parts is not None:
        for part in parts(obj):
            pin_one(part)
    return obj


def is_pinned(obj, /):
    """Return whether pin() has taken effect on `obj`."""
    return type(obj) in pinnable and bool(fs_is_immortal(<PyObject*>obj))
