"""Ordering, fences, and what order an argument stands for."""
cimport cython
from cpython.object cimport PyObject

from fastsync.objects._slots cimport publish
from fastsync.raw cimport c_version  # so that versions are compared
from fastsync.raw.c_atomic cimport fs_pause
from fastsync.raw.c_atomic_order cimport (
    FS_ACQ_REL, FS_ACQUIRE, fs_compiler_fence, fs_fence, FS_RELAXED, FS_RELEASE, FS_SEQ_CST,
)
from fastsync.raw.c_python cimport fs_make_immortal


cdef bint making_orderings = True

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        PyObject* tp_dict
    void PyType_Modified(PyTypeObject*)


@cython.final
cdef class Ordering:
    """How a memory operation is ordered among the others: Rust's Ordering.

    Relaxed orders nothing, Acquire keeps what follows after it, Release keeps what came before
    it, AcqRel does both, and SeqCst puts all SeqCst operations into one order that every thread
    agrees on. An acquire operation that reads what a release operation wrote sees everything
    that came before the latter.
    """

    def __cinit__(self):
        if not making_orderings:
            raise TypeError("cannot create 'fastsync.Ordering' instances")

    @property
    def name(self):
        """The name in Ordering: 'Acquire' of Ordering.Acquire."""
        return self.label

    @staticmethod
    def members():
        """Return all five, weakest first."""
        return tuple(ORDERINGS)

    def __repr__(self):
        return f"Ordering.{self.label}"

    def __reduce__(self):
        return getattr, (Ordering, self.label)


cdef Ordering new_ordering(int code, str label):
    cdef Ordering ordering = Ordering.__new__(Ordering)
    cdef PyTypeObject* type_object = <PyTypeObject*>Ordering
    ordering.code = code
    ordering.label = label
    (<dict>type_object.tp_dict)[label] = ordering
    PyType_Modified(type_object)
    # An argument of every call from every thread: counting would serialize them.
    fs_make_immortal(<PyObject*>ordering)
    return ordering


cdef list ORDERINGS = [
    new_ordering(FS_RELAXED, "Relaxed"),
    new_ordering(FS_ACQUIRE, "Acquire"),
    new_ordering(FS_RELEASE, "Release"),
    new_ordering(FS_ACQ_REL, "AcqRel"),
    new_ordering(FS_SEQ_CST, "SeqCst"),
]
making_orderings = False


# What is refused, in Rust's words.

cdef int order_code(object ordering) except -1:
    # The default is spelled `...`, which a signature can show and None is not.
    if ordering is Ellipsis:
        return FS_SEQ_CST
    if type(ordering) is not Ordering:
        raise TypeError(f"expected a fastsync.Ordering, not {type(ordering).__name__}")
    return (<Ordering>ordering).code


cdef int load_order(object ordering) except -1:
    cdef int code = order_code(ordering)
    if code == FS_RELEASE:
        raise ValueError("there is no such thing as a release load")
    if code == FS_ACQ_REL:
        raise ValueError("there is no such thing as an acquire-release load")
    return code


cdef int store_order(object ordering) except -1:
    cdef int code = order_code(ordering)
    if code == FS_ACQUIRE:
        raise ValueError("there is no such thing as an acquire store")
    if code == FS_ACQ_REL:
        raise ValueError("there is no such thing as an acquire-release store")
    return code


cdef int failure_order(object ordering) except -1:
    cdef int code = order_code(ordering)
    if code == FS_RELEASE:
        raise ValueError("there is no such thing as a release failure ordering")
    if code == FS_ACQ_REL:
        raise ValueError("there is no such thing as an acquire-release failure ordering")
    return code


cdef int fence_order(object ordering) except -1:
    cdef int code = order_code(ordering)
    if code == FS_RELAXED:
        raise ValueError("there is no such thing as a relaxed fence")
    return code


def fence(ordering=...):
    """Order this thread's memory operations across this point, as std::sync::atomic::fence.

    ValueError for Relaxed.
    """
    fs_fence(fence_order(ordering))


def compiler_fence(ordering=...):
    """Keep the compiler, but not the processor, from reordering across this point.

    For a thread and its own signal handlers. ValueError for Relaxed.
    """
    fs_compiler_fence(fence_order(ordering))


def spin_loop():
    """Tell the processor that this thread is polling, as std::hint::spin_loop.

    It does not yield to another thread: with the GIL, polling for another thread never ends.
    """
    fs_pause()


publish((Ordering,))
