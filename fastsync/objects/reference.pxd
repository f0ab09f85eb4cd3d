"""A word that owns a reference to a Python object.

It belongs to threads with an attached thread state: counting references, and
whatever a dropped object runs, needs one.  For pointers that are not Python
objects there is fs_atomic_ptr in raw/c_atomic_order.pxd.
"""
from libc.stdint cimport uintptr_t
from cpython.object cimport PyObject

from fastsync.raw.c_atomic cimport fs_atomic_uptr
from fastsync.raw.c_atomic_order cimport fs_uptr_exchange, fs_uptr_load
from fastsync.raw.c_python cimport FS_FREE_THREADED, fs_given, Py_NewRef

cdef extern from "Python.h":
    void Py_INCREF(PyObject*) noexcept
    void Py_DECREF(PyObject*) noexcept
    void Py_XDECREF(PyObject*) noexcept

ctypedef int (*visit_function)(PyObject*, void*) noexcept
ctypedef int (*traverse_function)(PyObject*, visit_function, void*) noexcept
ctypedef int (*clear_function)(PyObject*) noexcept
ctypedef void (*free_function)(PyObject*) noexcept

cdef enum:
    IMMORTAL = 1   # in a word
    GRANTED = 1    # in a hazard pointer


cdef class _Ref:
    cdef fs_atomic_uptr word
    cdef object __weakref__


# -- the word: see reference.pyx -------------------------------------------------

# Step 2 of a reader: the hazard pointer that now says `target`.
cdef fs_atomic_uptr* announce(fs_atomic_uptr* word, uintptr_t target) noexcept
# Sets a new reference to `new` (NULL: empty); gives the word's reference to the caller.
cdef PyObject* ref_swap(fs_atomic_uptr* word, PyObject* new) noexcept
# If the word refers to `expected`, sets `new` and drops the word's reference.
cdef bint ref_cas(fs_atomic_uptr* word, PyObject* expected, PyObject* new) noexcept


cdef inline PyObject* pointer(uintptr_t value) noexcept nogil:
    return <PyObject*>(value & ~<uintptr_t>IMMORTAL)


cdef inline PyObject* settle(
    fs_atomic_uptr* word, fs_atomic_uptr* hazard, uintptr_t* seen,
) noexcept:
    """Steps 3 to 6 of a reader that has announced seen[0]: the object, counted; or NULL,
    and seen[0] is what to start again with."""
    cdef PyObject* target = pointer(seen[0])
    cdef uintptr_t again = fs_uptr_load(word)
    if again == seen[0]:
        Py_INCREF(target)
        if fs_uptr_exchange(hazard, 0) & GRANTED:
            Py_DECREF(target)  # not the last reference: this thread has two
        return target
    if fs_uptr_exchange(hazard, 0) & GRANTED:
        Py_DECREF(target)  # perhaps an object that this word never held
    seen[0] = again
    return NULL


cdef inline PyObject* ref_load(fs_atomic_uptr* word) noexcept:
    """A new reference, or NULL when the word is empty."""
    cdef uintptr_t seen = fs_uptr_load(word)
    cdef PyObject* target
    while seen != 0 and not seen & IMMORTAL:
        if not FS_FREE_THREADED:
            return Py_NewRef(pointer(seen))
        target = settle(word, announce(word, seen), &seen)
        if target != NULL:
            return target
    return pointer(seen)  # immortal, which needs no counting, or empty


cdef inline void ref_store(fs_atomic_uptr* word, PyObject* new) noexcept:
    Py_XDECREF(ref_swap(word, new))


cdef inline object load(_Ref self):
    return fs_given(ref_load(&self.word))


cdef inline object swap(_Ref self, object new):
    return fs_given(ref_swap(&self.word, <PyObject*>new))


cdef inline bint replace(_Ref self, object expected, object new):
    return ref_cas(&self.word, <PyObject*>expected, <PyObject*>new)


# -- between the modules of this package; not for others ---------------------

# How the collector sees a word.
cdef int visit_word(fs_atomic_uptr* word, visit_function visit, void* arg) noexcept
cdef int traverse_ref(PyObject* self, visit_function visit, void* arg) noexcept
cdef int clear_to_none(PyObject* self) noexcept
cdef void free_ref(PyObject* self) noexcept
# Make a type that has words one that the collector sees, before its first instance.
cdef int make_collectable(
    type cls, traverse_function traverse, clear_function clear, free_function dealloc,
    free_function finalize) except -1
cdef str value_repr(object self, object value)
