"""lazy_property: an attribute that is made on first use, once for each instance."""
cimport cython
from libc.stdint cimport uintptr_t
from cpython.object cimport PyObject

from fastsync.objects._slots cimport publish
from fastsync.objects.once cimport _Once, finish, is_lost, start
from fastsync.raw.once cimport FS_ONCE_DONE, FS_ONCE_RUN

from types import GenericAlias

# What an instance has no value of.
cdef object EMPTY = object()


@cython.final
cdef class _Pending(_Once):
    """The run that makes one instance's value."""


cdef object attributes_of(object instance, str name):
    if isinstance(instance, type):
        raise TypeError(
            f"lazy_property {name!r} cannot keep a value in the class {instance.__name__!r}, "
            "whose __dict__ is read-only: it is for instances, not for a metaclass")
    try:
        return instance.__dict__
    except AttributeError:
        raise TypeError(
            f"lazy_property {name!r} needs a __dict__ in {type(instance).__name__!r} "
            "instances: add '__dict__' to their __slots__") from None


cdef object make_value(lazy_property self, object instance, object attributes):
    """The value, made by the first thread; `attributes` had none."""
    cdef _Pending pending
    # The instance is alive throughout, so its address is its own.  Made once: it is
    # needed at the end, where there may be no memory for it.
    cdef object key = <uintptr_t><PyObject*>instance
    while True:
        pending = self.pending.setdefault(key, _Pending.__new__(_Pending))
        if start(pending, False) == FS_ONCE_RUN:
            try:
                # Another thread may have been through since we looked.
                value = attributes.get(self.name, EMPTY)
                if value is EMPTY:
                    value = self.function(instance)
                    attributes[self.name] = value
            finally:
                # First out of the table, then the end: later threads start anew.
                self.pending.pop(key, None)
                finish(pending, FS_ONCE_DONE)
            return value
        value = attributes.get(self.name, EMPTY)
        if value is not EMPTY:
            return value
        # The other thread failed, and raised to its own caller.  Try in its place.


@cython.final
@cython.trashcan(True)
cdef class lazy_property:
    """lazy_property(function, /)
--

Decorator: a property whose function runs one time for each instance.

The value is kept in the instance's `__dict__`, which it must have; there it is
found like any attribute, can be set, and is made anew after `del`.  Threads
that ask one instance meanwhile wait for the first; different instances never
wait for one another.  An exception is passed on and not kept: the next access
tries again.  RuntimeError when the function asks for its own value."""
    cdef object __weakref__
    cdef object function
    cdef str name
    cdef dict pending          # the instances whose value is being made
    cdef public object __doc__

    def __cinit__(self, function, /):
        if not callable(function):
            raise TypeError("lazy_property needs a callable")
        self.function = function
        self.pending = {}
        self.__doc__ = getattr(function, "__doc__", None)

    def __set_name__(self, owner, name):
        if self.name is not None and self.name != name:
            raise TypeError(
                f"one lazy_property cannot have two names, {self.name!r} and {name!r}")
        self.name = name

    @classmethod
    def __class_getitem__(cls, item, /):
        return GenericAlias(cls, item)

    @property
    def __wrapped__(self):
        return self.function

    def __get__(self, instance, owner):
        if instance is None:
            return self
        if self.name is None:
            raise TypeError("this lazy_property has no name: __set_name__() was not called")
        attributes = attributes_of(instance, self.name)
        value = attributes.get(self.name, EMPTY)
        return make_value(self, instance, attributes) if value is EMPTY else value

    def _at_fork_reinit(self):
        for key, pending in list(self.pending.items()):
            if is_lost(pending):
                self.pending.pop(key, None)

    def __repr__(self):
        return f"<lazy_property {self.name or self.function!r}>"


publish((lazy_property,))
