"""Type slots that Cython has no syntax for."""
from cpython.object cimport PyObject, visitproc

ctypedef PyObject* (*fs_call)(PyObject*, PyObject**, size_t, PyObject*) except NULL

ctypedef int (*fs_traverse)(PyObject*, visitproc, void*) noexcept
ctypedef int (*fs_clear)(PyObject*) noexcept
ctypedef void (*fs_dealloc)(PyObject*) noexcept
ctypedef PyObject* (*fs_method)(PyObject*, PyObject**, Py_ssize_t, PyObject*) except NULL

# `with x:` without a bound method for each end: see _slots.pyx.
cdef int make_context_manager(type cls, Py_ssize_t vectorcall_offset) except -1
# A call of an instance is a call of the fs_call in it.
cdef int make_callable(type cls, Py_ssize_t vectorcall_offset) except -1
# Set an attribute; the type slot of that name stays as it is.
cdef int put_unslotted(type cls, str name, object value) except -1
# No instances but those that this package makes.
cdef int forbid_instances(type cls) except -1
# How the collector sees an instance; returns tp_traverse as it was.
cdef fs_traverse collect_by(type cls, fs_traverse traverse, fs_clear clear) noexcept
# Instances are freed as those of `base` are: no references of its own.
cdef void free_as(type cls, type base) noexcept
# From now on `metaclass`, a subclass of `type` that adds no fields, is the class of `cls`.
cdef int set_metaclass(type cls, type metaclass) except -1
# So that the `__class__` of an instance can be changed to `base`: no fields of its own.
cdef int share_layout(type cls, type base) except -1
# tp_version_tag: another one, or 0, after each change of the class or of one above it.
cdef unsigned int version_tag(type cls) noexcept
# A `__dict__` that is made when the first attribute is set.
cdef int make_lazy_dict(type cls, Py_ssize_t dict_offset) except -1
# What `cls(...)` calls, instead of its `__new__` and `__init__`; no subclass inherits it.
cdef int make_constructor(type cls, fs_call make) except -1
# A heap type that is never freed; patchable: its attributes can be set, as of a
# class written in Python.
cdef int finish_type(type cls, bint patchable) except -1
# Let a method's plainest call take a shorter way; gives the way that it had, for the others.
cdef fs_method shorten(type cls, str name, fs_method short) except NULL
# Give a type the methods of its bases as its own: a call of an inherited one looks through the
# bases each time.
cdef int own_methods(type cls) except -1
# What the type calls itself: the standard library's name.
cdef int rename_type(type cls, const char* name) except -1
# Name types after the public door, `fastsync.Mutex`, whatever file they are in.
cdef int publish(tuple types) except -1
# tp_weaklistoffset.
cdef Py_ssize_t weakrefs_offset(type cls) noexcept
# Instances end in `dealloc`.  That begins with retire(), and then may keep the memory for
# reuse() or give it to discard().
cdef int end_in(type cls, fs_dealloc dealloc) except -1
cdef void reuse(type cls, PyObject* retired) noexcept
cdef void retire(PyObject* dead) noexcept
# Undo retire(), where the reference count was kept.
cdef void restore(PyObject* retired) noexcept
cdef void discard(PyObject* retired) noexcept
