"""Type slots that Cython has no syntax for.

`with x:` looks up `__enter__` and `__exit__` on the type, binds each to x (an
allocation), and calls them.  A type treated by make_context_manager() has
descriptors there whose binding is x itself, and x, called with nothing,
acquires, called with three arguments, releases.  So `with` allocates nothing.
On the class the descriptors give the ordinary methods, for ExitStack and the
like; and so they do for an instance of a subclass with a `__call__` of its own.
`x.__exit__()`, with whatever arguments, is the ordinary method too: a call by
name asks a "method descriptor" unbound.

The call goes through the type's vectorcall slot alone.  `callable()` and whatever
else asks for tp_call find none, as in the standard library's locks.  An
interpreter with assertions insists on a tp_call, so there the ordinary methods
stay.

From 3.14 on `with` itself does not bind methods, and nothing of this is needed: there
shorten() spares `__enter__` and `__exit__` the look for keywords.
"""
from libc.string cimport strcpy
from cpython.mem cimport PyMem_RawMalloc
from cpython.object cimport PyObject, PyTypeObject, visitproc

from fastsync.raw.c_python cimport fs_make_immortal


cdef extern from "Python.h":
    ctypedef void* vectorcallfunc  # a function's, with more `const` than Cython knows
    ctypedef struct RawType "PyTypeObject":
        const char* tp_name
        unsigned int tp_version_tag
        unsigned long tp_flags
        Py_ssize_t tp_basicsize
        Py_ssize_t tp_vectorcall_offset
        Py_ssize_t tp_dictoffset
        Py_ssize_t tp_weaklistoffset
        PyObject* (*tp_call)(PyObject*, PyObject*, PyObject*)
        PyObject* (*tp_descr_get)(PyObject*, PyObject*, PyObject*) except NULL
        PyObject* tp_dict
        vectorcallfunc tp_vectorcall
        int (*tp_traverse)(PyObject*, visitproc, void*) noexcept
        int (*tp_clear)(PyObject*) noexcept
        void* tp_new
        void (*tp_dealloc)(PyObject*) noexcept
        PyObject* (*tp_alloc)(PyTypeObject*, Py_ssize_t) except NULL
    RawType* Py_TYPE(PyObject*) noexcept
    Py_ssize_t PY_SSIZE_T_MAX
    void Py_SET_REFCNT(PyObject*, Py_ssize_t) noexcept
    ctypedef void* PyCFunction
    ctypedef struct PyMethodDef:
        PyCFunction ml_meth
        int ml_flags
    ctypedef struct PyMethodDescrObject:
        PyMethodDef* d_method
    int METH_FASTCALL
    int METH_KEYWORDS
    unsigned long Py_TPFLAGS_HAVE_GC
    unsigned long Py_TPFLAGS_HEAPTYPE
    unsigned long Py_TPFLAGS_HAVE_VECTORCALL
    unsigned long Py_TPFLAGS_IMMUTABLETYPE
    unsigned long Py_TPFLAGS_METHOD_DESCRIPTOR
    unsigned long PY_VERSION_HEX
    PyObject* PyVectorcall_Call(PyObject*, PyObject*, PyObject*)
    void Py_SET_TYPE(object, type)
    void PyType_Modified(PyTypeObject*)
    object PyDescr_NewMethod(type, PyMethodDef*)
    void Py_XINCREF(PyObject*)
    void PyObject_GC_Track(void*) noexcept
    void PyObject_GC_UnTrack(void*) noexcept
    void PyObject_GC_Del(void*) noexcept
    PyObject* PyObject_Init(PyObject*, PyTypeObject*) noexcept


cdef extern from *:
    """
    #ifdef Py_DEBUG
    #define FS_PYTHON_ASSERTS 1
    #endif
    #ifndef FS_PYTHON_ASSERTS
    #define FS_PYTHON_ASSERTS 0
    #endif
    """
    bint FS_PYTHON_ASSERTS  # setup.py knows of interpreters with assertions that are no debug builds


cdef class _Itself:
    """A descriptor that gives its instance back.  Only this module makes them."""
    cdef object method

    def __get__(self, instance, owner):
        return self.method if instance is None else instance

    def __call__(self, *args, **kwargs):
        return self.method(*args, **kwargs)

    def __repr__(self):
        return repr(self.method)


cdef PyObject* give_itself(PyObject* self, PyObject* instance, PyObject* owner) except NULL:
    cdef PyObject* method = <PyObject*>(<_Itself>self).method
    cdef PyObject* result = instance
    if result == NULL or result == <PyObject*>None:
        result = method
    elif (Py_TYPE(instance).tp_call != NULL
            or not Py_TYPE(instance).tp_flags & Py_TPFLAGS_HAVE_VECTORCALL):
        # A `__call__` of its own, or a stranger whose class has borrowed the descriptor.
        return Py_TYPE(method).tp_descr_get(method, instance, owner)
    Py_XINCREF(result)
    return result


cdef object immortal(_Itself descriptor):
    # Every `with` of every thread takes a reference to it: counting them would
    # make threads with nothing in common share a cache line.
    PyObject_GC_UnTrack(<void*>descriptor)
    fs_make_immortal(<PyObject*>descriptor)
    return descriptor


cdef int make_context_manager(type cls, Py_ssize_t vectorcall_offset) except -1:
    cdef RawType* raw = <RawType*><PyObject*>cls
    cdef dict names = <dict>raw.tp_dict
    cdef _Itself descriptor
    if PY_VERSION_HEX >= 0x030E0000 or FS_PYTHON_ASSERTS:
        return 0
    for name in ("__enter__", "__exit__"):
        descriptor = _Itself.__new__(_Itself)
        descriptor.method = getattr(cls, name)
        names[name] = immortal(descriptor)
    raw.tp_vectorcall_offset = vectorcall_offset
    raw.tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL
    PyType_Modified(<PyTypeObject*>raw)
    return 0


cdef int make_callable(type cls, Py_ssize_t vectorcall_offset) except -1:
    cdef RawType* raw = <RawType*><PyObject*>cls
    raw.tp_vectorcall_offset = vectorcall_offset
    raw.tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL
    raw.tp_call = PyVectorcall_Call
    PyType_Modified(<PyTypeObject*>raw)
    return 0


cdef int put_unslotted(type cls, str name, object value) except -1:
    (<dict>(<RawType*><PyObject*>cls).tp_dict)[name] = value
    PyType_Modified(<PyTypeObject*><PyObject*>cls)
    return 0


cdef int forbid_instances(type cls) except -1:
    cdef RawType* raw = <RawType*><PyObject*>cls
    raw.tp_new = NULL
    raw.tp_vectorcall = NULL  # what Cython gives a type to call tp_new with
    (<dict>raw.tp_dict).pop("__new__", None)
    PyType_Modified(<PyTypeObject*>raw)
    return 0


cdef fs_traverse collect_by(type cls, fs_traverse traverse, fs_clear clear) noexcept:
    cdef RawType* raw = <RawType*><PyObject*>cls
    cdef fs_traverse before = raw.tp_traverse
    raw.tp_traverse = traverse
    raw.tp_clear = clear
    return before


cdef void free_as(type cls, type base) noexcept:
    cdef RawType* raw = <RawType*><PyObject*>cls
    raw.tp_dealloc = (<RawType*><PyObject*>base).tp_dealloc
    # That of a heap type drops a reference to the type for each instance. Instances of a static one
    # have none; from 3.12 on it is immortal, before it gets more than can be dropped.
    if PY_VERSION_HEX < 0x030C0000 and not raw.tp_flags & Py_TPFLAGS_HEAPTYPE:
        Py_SET_REFCNT(<PyObject*>cls, PY_SSIZE_T_MAX // 2)


cdef int make_lazy_dict(type cls, Py_ssize_t dict_offset) except -1:
    cdef RawType* raw = <RawType*><PyObject*>cls
    raw.tp_dictoffset = dict_offset
    PyType_Modified(<PyTypeObject*>raw)
    return 0


cdef int set_metaclass(type cls, type metaclass) except -1:
    # Assigning `cls.__class__` is refused: `type`, which it has been, cannot be changed.
    Py_XINCREF(<PyObject*>metaclass)  # Py_SET_TYPE counts nothing
    Py_SET_TYPE(cls, metaclass)
    PyType_Modified(<PyTypeObject*><PyObject*>cls)
    return 0


cdef int share_layout(type cls, type base) except -1:
    cdef RawType* raw = <RawType*><PyObject*>cls
    cdef RawType* other = <RawType*><PyObject*>base
    if raw.tp_basicsize != other.tp_basicsize:
        raise SystemError(f"{cls} has other fields than {base}")
    raw.tp_dealloc = other.tp_dealloc
    raw.tp_traverse = other.tp_traverse
    raw.tp_clear = other.tp_clear
    return 0


cdef unsigned int version_tag(type cls) noexcept:
    return (<RawType*><PyObject*>cls).tp_version_tag


cdef int make_constructor(type cls, fs_call make) except -1:
    (<RawType*><PyObject*>cls).tp_vectorcall = <vectorcallfunc>make
    return 0


cdef fs_method shorten(type cls, str name, fs_method short) except NULL:
    # The usual way unpacks arguments that are hardly ever given.  The method
    # descriptor and its signature stay.
    cdef PyMethodDef* method = (<PyMethodDescrObject*><PyObject*>cls.__dict__[name]).d_method
    cdef fs_method usual = <fs_method>method.ml_meth
    if method.ml_flags == METH_FASTCALL | METH_KEYWORDS:
        method.ml_meth = <PyCFunction>short
    return usual


cdef int own_methods(type cls) except -1:
    cdef RawType* raw = <RawType*><PyObject*>cls
    cdef dict own = <dict>raw.tp_dict
    cdef type method_descriptor = type(str.join)
    for base in cls.__mro__:
        if base is cls or base is object:
            continue
        for name, method in base.__dict__.items():
            if type(method) is method_descriptor and name not in own:
                own[name] = PyDescr_NewMethod(cls, (<PyMethodDescrObject*><PyObject*>method).d_method)
    PyType_Modified(<PyTypeObject*>raw)
    return 0


cdef int rename_type(type cls, const char* name) except -1:
    cdef RawType* raw = <RawType*><PyObject*>cls
    raw.tp_name = name
    # For instances; the type itself takes it from tp_name.
    (<dict>raw.tp_dict)["__module__"] = name.decode().rpartition(".")[0]
    PyType_Modified(<PyTypeObject*>raw)
    return 0


cdef int publish(tuple types) except -1:
    cdef bytes name
    cdef char* copy
    for cls in types:
        name = f"fastsync.{cls.__name__}".encode()
        copy = <char*>PyMem_RawMalloc(len(name) + 1)  # for as long as the process lives
        if copy == NULL:
            raise MemoryError
        strcpy(copy, name)
        rename_type(cls, copy)
    return 0


cdef int finish_type(type cls, bint patchable) except -1:
    cdef RawType* raw = <RawType*><PyObject*>cls
    # Each instance refers to it: counting that would make threads share a cache line.
    fs_make_immortal(<PyObject*>cls)
    if not patchable:
        raw.tp_flags |= Py_TPFLAGS_IMMUTABLETYPE
    PyType_Modified(<PyTypeObject*>raw)
    return 0


cdef int end_in(type cls, fs_dealloc dealloc) except -1:
    (<RawType*><PyObject*>cls).tp_dealloc = dealloc
    return 0


cdef void reuse(type cls, PyObject* retired) noexcept:
    """Make an instance of retired memory, all fields as they were then."""
    PyObject_Init(retired, <PyTypeObject*>cls)
    PyObject_GC_Track(retired)


cdef void retire(PyObject* dead) noexcept:
    PyObject_GC_UnTrack(dead)


cdef void restore(PyObject* retired) noexcept:
    PyObject_GC_Track(retired)


cdef void discard(PyObject* retired) noexcept:
    PyObject_GC_Del(retired)


cdef Py_ssize_t weakrefs_offset(type cls) noexcept:
    return (<RawType*><PyObject*>cls).tp_weaklistoffset


# Without the wrapper that Cython puts around a `__get__` method.
(<RawType*><PyObject*>_Itself).tp_descr_get = give_itself
(<RawType*><PyObject*>_Itself).tp_flags |= Py_TPFLAGS_METHOD_DESCRIPTOR
forbid_instances(_Itself)
