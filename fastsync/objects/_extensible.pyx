# distutils: define_macros=CYTHON_USE_TYPE_SPECS=1
# Heap types, because these can be patched and renamed as the originals can: `type` writes a new
# name where only a heap type has room for it.
"""What the types of `threading` share, and how an instance becomes `original`."""
cimport cython
from cpython.object cimport PyObject, PyObject_GenericSetAttr, PyTypeObject
from cpython.ref cimport Py_INCREF, Py_XDECREF

from fastsync.objects._slots cimport (
    finish_type, forbid_instances, make_lazy_dict, put_unslotted, weakrefs_offset,
)
from fastsync.objects._veneer cimport refuse_pickling

import copyreg

cdef extern from "Python.h":
    object PyObject_GenericGetDict(object, void*)
    int PyObject_GenericSetDict(object, object, void*) except -1
    void PyObject_GC_Track(void*) noexcept
    void PyObject_GC_UnTrack(void*) noexcept
    bint PyObject_GC_IsTracked(PyObject*) noexcept
    PyTypeObject* Py_TYPE(object) noexcept


cdef void track(object self) noexcept:
    # Two threads may come at once, and tracking twice is a fatal error.
    with cython.critical_section(self):
        if not PyObject_GC_IsTracked(<PyObject*>self):
            PyObject_GC_Track(<void*>self)


# Where the `__dict__` of an _Extensible is: right after its weak references.
cdef extern from *:
    """
    #ifdef __GNUC__
    #define FS_DICT_IS_BEHIND_WEAKREFS(self) _Static_assert( \\
        offsetof(__typeof__(*(self)), attributes) \\
            == offsetof(__typeof__(*(self)), __weakref__) + sizeof(PyObject *), \\
        "attributes_at is directly behind the weak references")
    #else
    #define FS_DICT_IS_BEHIND_WEAKREFS(self) ((void)(self))
    #endif
    """
    void FS_DICT_IS_BEHIND_WEAKREFS(_Extensible) noexcept

cdef Py_ssize_t attributes_at = weakrefs_offset(_Extensible) + sizeof(PyObject*)


cdef inline PyObject** attributes_field(_Extensible self) noexcept:
    FS_DICT_IS_BEHIND_WEAKREFS(self)
    return <PyObject**>(<char*><PyObject*>self + attributes_at)


cdef enum:
    KINDS = 8

cdef struct fs_extensible:
    # What _Extensible knows of each of its subclasses, the most derived first.
    PyTypeObject* cls
    fs_threads_waiting waiting
    fs_become become


cdef fs_extensible kinds[KINDS]
cdef int kind_count = 0


cdef int add_extensible(type cls, fs_threads_waiting waiting, fs_become become) except -1:
    """Tell of a class: how many threads wait in an instance, and how it becomes `original`."""
    global kind_count
    if kind_count == KINDS:
        raise ImportError("too many extensible types")
    kinds[kind_count] = fs_extensible(<PyTypeObject*>cls, waiting, become)
    kind_count += 1
    make_lazy_dict(cls, attributes_at)
    return 0


cdef inline bint is_plain_type(PyTypeObject* cls) noexcept:
    """No subclass, whose instances refer to anything."""
    cdef int i
    for i in range(kind_count):
        if kinds[i].cls == cls:
            return True
    return False


cdef const fs_extensible* kind_of(object self) noexcept:
    cdef int i = 0
    for i in range(kind_count):
        if isinstance(self, <type><PyObject*>kinds[i].cls):
            break
    return &kinds[i]


cdef size_t threads_waiting(object self) noexcept:
    """How many threads wait in it natively."""
    return kind_of(self).waiting(self)


cdef int become_original(_Extensible self) except -1:
    """From now on the standard library's methods do its work, from the state that it has.
    No other thread may use it meanwhile, as for `__init__()`."""
    cdef size_t waiting
    cdef object inner
    with cython.critical_section(self):
        if is_original(self):
            return 0
        waiting = threads_waiting(self)
        if waiting == 0:
            inner = self.inner
            self.inner = True
    if waiting != 0:
        raise RuntimeError("a private attribute cannot be set while threads wait")
    kind_of(self).become(self)
    if inner is not None:  # a program has it
        Py_INCREF(inner)  # never let go: another thread may be about to count what it has read
        (<object>self)._cond = inner
    return 0


@cython.no_gc_clear  # what it refers to must outlive a waiter; cycles end in the __dict__
cdef class _Extensible:
    """A type whose instances take attributes, in a `__dict__` made on first use.

    Until then the collector need not know the instance.

    An instance is `original` when the standard library's own methods do its work, on
    attributes of its own (`_cond`, `_value` and so on).  That is so for every instance of
    a subclass: subclasses override these attributes, set them, and rely on the way in
    which the inherited methods use them.  It is also so for a Condition over a lock that
    is not one of ours, and for an instance one of whose private attributes has been set.
    """

    def __cinit__(self):
        # Cython fills the field with None, which tp_dictoffset would take for a dict.
        cdef PyObject** field = attributes_field(self)
        cdef PyObject* none = field[0]
        field[0] = NULL
        Py_XDECREF(none)
        if is_plain_type(Py_TYPE(self)):
            PyObject_GC_UnTrack(<void*>self)
        else:
            self.inner = True

    @property
    def __dict__(self):
        attributes = PyObject_GenericGetDict(self, NULL)
        track(self)
        return attributes

    @__dict__.setter
    def __dict__(self, value):
        PyObject_GenericSetDict(self, value, NULL)
        track(self)

    @__dict__.deleter
    def __dict__(self):
        PyObject_GenericSetDict(self, {}, NULL)

    def __setattr__(self, name, value):
        PyObject_GenericSetAttr(self, name, value)
        track(self)

    def __reduce_ex__(self, protocol):
        if is_original(self):
            # As for any other object: the subclass may have `__getstate__` and the like.
            return object.__reduce_ex__(self, protocol)
        refuse_pickling("_thread.lock")

    def __getstate__(self):
        # Of an `original`.  The one of `object` refuses: it does not know that what a type in C
        # has beside the attributes says nothing here.
        slots = {name: getattr(self, name) for name in copyreg._slotnames(type(self))
                 if hasattr(self, name)}
        attributes = PyObject_GenericGetDict(self, NULL)
        return (attributes, slots) if slots else attributes


@cython.final
cdef class _Private:
    """One of the original's private attributes: what the word says, for an instance that is
    not `original`; an entry of the `__dict__`, for one that is."""
    cdef type owner
    cdef str name
    cdef fs_private_read read
    cdef fs_private_write write  # NULL: who sets it has the instance become `original`

    cdef int check(self, instance) except -1:
        if not isinstance(instance, self.owner):
            raise TypeError(f"descriptor {self.name!r} for {self.owner.__name__!r} objects "
                            f"doesn't apply to a {type(instance).__name__!r} object")
        return 0

    def __get__(self, instance, owner):
        if instance is None:
            return self
        self.check(instance)
        if not is_original(instance):
            return self.read(instance)
        try:
            return PyObject_GenericGetDict(instance, NULL)[self.name]
        except KeyError:
            pass
        raise AttributeError(
            f"{type(instance).__name__!r} object has no attribute {self.name!r}")

    def __set__(self, instance, value):
        self.check(instance)
        if not is_original(instance):
            if self.write != NULL:
                self.write(instance, value)
                return
            become_original(instance)
        instance.__dict__[self.name] = value

    def __delete__(self, instance):
        self.check(instance)
        become_original(instance)
        try:
            del instance.__dict__[self.name]
            return
        except KeyError:
            pass
        raise AttributeError(
            f"{type(instance).__name__!r} object has no attribute {self.name!r}")


cdef int add_private(
    type owner, str name, fs_private_read read, fs_private_write write,
) except -1:
    cdef _Private descriptor = _Private.__new__(_Private)
    descriptor.owner = owner
    descriptor.name = name
    descriptor.read = read
    descriptor.write = write
    setattr(owner, name, descriptor)
    return 0


cdef int sign_constructor(type cls) except -1:
    cdef str parameters = cls.__text_signature__.strip("()")  # "lock=None"
    cdef list words = [word.partition("=")[0].strip() for word in parameters.split(",") if word]
    cdef dict names = {"__name__": cls.__module__, "native": cls.__init__}
    cdef str header = ", ".join(["self", parameters]) if words else "self"
    exec(f"def __init__({header}): native({', '.join(['self', *words])})", names)
    function = names.pop("__init__")
    function.__qualname__ = f"{cls.__name__}.__init__"
    function.__objclass__ = cls  # as the slot's own has it: tools tell by it where it is defined
    return put_unslotted(cls, "__init__", function)


cdef str stock_name(object self):
    """Module and name of the runtime class, as the originals' reprs have it."""
    return f"{type(self).__module__}.{type(self).__qualname__}"


# -- set-up of _extensible ---

cdef int set_up() except -1:
    forbid_instances(_Private)
    for cls in (_Extensible, _Private):
        finish_type(cls, False)
    return 0


set_up()
