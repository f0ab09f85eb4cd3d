"""One-time initialization: Once, OnceLock, LazyLock, @once."""
cimport cython
from libc.stdint cimport int64_t, uint8_t
from cpython.object cimport PyObject, PyObject_Call, PyTypeObject
from cpython.type cimport PyType_Modified

from fastsync._watch.trace cimport (
    FS_BLOCK, FS_REENTRANT, fs_section, trace_lock, trace_made, trace_release, trace_released,
    tracing,
)
from fastsync.objects._slots cimport fs_call, make_callable, publish
from fastsync.objects._veneer cimport address
from fastsync.raw.c_atomic cimport fs_u8_load_acquire, fs_uptr_load_relaxed, fs_uptr_store_relaxed
from fastsync.raw.c_box cimport fs_box_get, fs_box_set
from fastsync.raw.c_python cimport fs_make_immortal, fs_new_list, Py_NewRef
from fastsync.raw.c_wait cimport FS_FOREVER, fs_thread_id
from fastsync.raw.once cimport (
    fs_once, FS_ONCE_DONE, FS_ONCE_NEW, FS_ONCE_POISON, FS_ONCE_RUN, FS_ONCE_RUNNING, once_begin,
    once_end, once_is_done, once_retract, once_wait,
)
from fastsync.raw.parking cimport FS_ACQUIRED, FS_SIGNALS, FS_TIMEOUT

from types import GenericAlias

from fastsync.objects._pin import register_pinnable

cdef extern from "Python.h":
    size_t PyVectorcall_NARGS(size_t) noexcept
    object PyObject_Vectorcall(object, PyObject**, size_t, PyObject*)
    void PyErr_Restore(PyObject*, PyObject*, PyObject*) noexcept
    PyTypeObject* Py_TYPE(object) noexcept
    void PyList_SET_ITEM(object, Py_ssize_t, PyObject*) noexcept
    object PyMethod_New(object, object)


# -- what the types share ----------------------------------------------------

cdef inline int refuse_recursion(_Once self) except -1:
    # relaxed: a thread reads its own id here only if it wrote it itself
    if fs_uptr_load_relaxed(&self.owner) == fs_thread_id():
        raise RuntimeError("an initialization must not wait for itself")
    return 0


cdef struct begin_call:
    fs_once* once
    bint force
    int outcome


cdef int take_run(void* ctx, int64_t deadline) noexcept:
    """FS_ACQUIRED: this thread runs it; FS_RUN_BY_ANOTHER: it has run, by another."""
    cdef begin_call* call = <begin_call*>ctx
    call.outcome = once_begin(call.once, call.force, deadline, FS_SIGNALS)
    if call.outcome >= FS_ONCE_RUN:
        return FS_ACQUIRED
    return call.outcome if call.outcome <= FS_TIMEOUT else FS_RUN_BY_ANOTHER


cdef enum:
    FS_RUN_BY_ANOTHER = 2


cdef int start_traced(_Once self, bint force) except -1:
    cdef begin_call call
    call.once = &self.once
    call.force = force
    # FS_REENTRANT: the thread that runs it ends it.
    trace_lock(self, FS_REENTRANT | FS_BLOCK, FS_FOREVER, NULL, take_run, &call)
    return call.outcome


cdef int take_end(void* once, int64_t deadline) noexcept:
    cdef int outcome = once_wait(<fs_once*>once, deadline, FS_SIGNALS)
    return outcome if outcome <= FS_TIMEOUT else FS_RUN_BY_ANOTHER


cdef int start(_Once self, bint force) except -1:
    """once_begin() for this thread; signal handlers run during the wait."""
    cdef int outcome
    refuse_recursion(self)
    if tracing():
        outcome = start_traced(self, force)
    else:
        outcome = once_begin(&self.once, force, FS_FOREVER, FS_SIGNALS)
    if outcome >= FS_ONCE_RUN:
        fs_uptr_store_relaxed(&self.owner, fs_thread_id())  # relaxed: see above
    return outcome


# Always in a `finally`: Cython does not get to an `except` when there is no memory for
# the traceback, and then the run would never end.
cdef void finish(_Once self, uint8_t outcome) noexcept:
    cdef fs_section section
    cdef bint traced = tracing()
    fs_uptr_store_relaxed(&self.owner, 0)  # relaxed: see refuse_recursion
    if traced:
        trace_release(&section, self, FS_REENTRANT, NULL)
    once_end(&self.once, outcome)
    if traced:
        trace_released(&section)


cdef int wait_done(_Once self) except -1:
    """FS_ONCE_DONE or FS_ONCE_POISON."""
    if once_is_done(&self.once):
        return FS_ONCE_DONE
    refuse_recursion(self)
    if tracing():
        # Waits for who runs it.
        trace_lock(self, FS_REENTRANT, FS_FOREVER, NULL, take_end, &self.once)
    return once_wait(&self.once, FS_FOREVER, FS_SIGNALS)


# -- exceptions that are kept
#
# Raising an exception writes its traceback, without a lock; reading it is not safe meanwhile.  So
# what is kept is a copy that is never raised, and every later caller gets a copy of that.

cdef enum:
    HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE

from types import GetSetDescriptorType, MemberDescriptorType

cdef tuple DESCRIPTORS = (GetSetDescriptorType, MemberDescriptorType)


cdef int copy_attribute(object descriptor, object error, object copy) except -1:
    try:
        value = descriptor.__get__(error, type(error))
        if value is not None:  # as it is in the copy; and what reads as None may be unset
            descriptor.__set__(copy, value)
    except (AttributeError, TypeError):
        pass  # unset, or read-only
    return 0


cdef object copy_error(object error):
    """Another exception of the same class, with the same arguments, attributes, notes, cause,
    context and traceback.  Runs no code of the class: what it would do again is not known."""
    cdef type cls = type(error)
    for base in cls.__mro__:
        if not base.__flags__ & HEAP_TYPE:
            break  # its own __new__ is what makes the object
    copy = base.__new__(cls, *BaseException.args.__get__(error))
    for c in cls.__mro__:
        for name, attribute in c.__dict__.items():
            if type(attribute) in DESCRIPTORS and name not in ("__dict__", "__weakref__"):
                copy_attribute(attribute, error, copy)
    # Once more: setting the cause has changed it.
    copy_attribute(BaseException.__suppress_context__, error, copy)
    copy.__dict__.update(error.__dict__)
    if "__notes__" in copy.__dict__:
        copy.__dict__["__notes__"] = list(copy.__dict__["__notes__"])
    return copy


cdef object kept_copy(object error):
    """What to keep of an error that was raised; None when there is no memory for it."""
    try:
        return copy_error(error)
    except MemoryError:
        return None
    except Exception:
        return RuntimeError(f"{type(error).__name__}, which cannot be raised again")


cdef bint is_lost(_Once self) noexcept:
    """In a fork's child: whether a thread runs it that does not exist there."""
    # relaxed: the child has one thread
    return (fs_u8_load_acquire(&self.once.state) & FS_ONCE_RUNNING
            and fs_uptr_load_relaxed(&self.owner) != fs_thread_id())


cdef class _Once:
    """What Once, OnceLock and LazyLock have in common."""

    def __cinit__(self):
        if tracing():
            trace_made(self)

    def __reduce__(self):
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    def _at_fork_reinit(self):
        if is_lost(self):
            finish(self, FS_ONCE_NEW)

    def __repr__(self):
        return f"<{type(self).__name__} {state_of(self).label} at {address(self)}>"


# -- Once --------------------------------------------------------------------

cdef bint making_states = True


@cython.final
cdef class OnceState:
    """How far a Once is: New, InProgress, Poisoned or Done."""
    cdef str label

    def __cinit__(self, *args, **kwargs):
        if not making_states:
            raise TypeError("cannot create 'fastsync.once.OnceState' instances")

    @property
    def name(self):
        """The state's name, as in `OnceState.Done`."""
        return self.label

    def poisoned(self):
        """Whether the last run raised."""
        return self is POISONED

    def done(self):
        """Whether a run has succeeded."""
        return self is DONE

    def __repr__(self):
        return f"OnceState.{self.label}"

    def __reduce__(self):
        return getattr, (OnceState, self.label)


cdef OnceState make_state(str name):
    cdef OnceState state = OnceState.__new__(OnceState)
    state.label = name
    (<dict>(<PyTypeObject*>OnceState).tp_dict)[name] = state
    PyType_Modified(OnceState)
    return state


cdef OnceState NEW = make_state("New")
cdef OnceState IN_PROGRESS = make_state("InProgress")
cdef OnceState POISONED = make_state("Poisoned")
cdef OnceState DONE = make_state("Done")
making_states = False


cdef OnceState state_of(_Once self):
    cdef uint8_t seen = fs_u8_load_acquire(&self.once.state)  # acquire: as once_is_done
    if seen & FS_ONCE_DONE:
        return DONE
    if seen & FS_ONCE_RUNNING:
        return IN_PROGRESS
    return POISONED if seen & FS_ONCE_POISON else NEW


cdef int refuse_poisoned() except -1:
    raise RuntimeError("this Once is poisoned: a function that it ran has raised")


cdef int run_or_poison(Once self, object function, tuple arguments) except -1:
    cdef uint8_t outcome = FS_ONCE_POISON
    try:
        function(*arguments)
        outcome = FS_ONCE_DONE
    finally:
        finish(self, outcome)
    return 0


@cython.final
cdef class Once(_Once):
    """Once()
--

Runs one function one time; other threads wait until it has run.

An exception poisons it: later calls raise RuntimeError, until a
call_once_force() succeeds.  What the function did happens before every return
of a call or a wait (release / acquire ordering).  One byte of state; as
parking_lot's and std's Once."""

    def __init__(self):
        pass

    def call_once(self, function, /):
        """Call function() if nothing has run here yet; wait while something runs.

        RuntimeError when poisoned, and when called from within the function.
        """
        cdef int outcome
        if not callable(function):
            raise TypeError("call_once needs a callable")
        if once_is_done(&self.once):
            return
        outcome = start(self, False)
        if outcome == FS_ONCE_POISON:
            refuse_poisoned()
        if outcome == FS_ONCE_RUN:
            run_or_poison(self, function, ())

    def call_once_force(self, function, /):
        """As call_once(), also when poisoned: calls function(state), the state being
        OnceState.New or OnceState.Poisoned."""
        cdef int outcome
        if not callable(function):
            raise TypeError("call_once_force needs a callable")
        if once_is_done(&self.once):
            return
        outcome = start(self, True)
        if outcome >= FS_ONCE_RUN:
            run_or_poison(self, function, (NEW if outcome == FS_ONCE_RUN else POISONED,))

    def state(self):
        """The OnceState at this moment."""
        return state_of(self)

    def is_completed(self):
        """Whether a function has run here and succeeded."""
        return once_is_done(&self.once)

    def wait(self):
        """Wait until a function has run here; RuntimeError when poisoned, and when
        called from within the function."""
        if wait_done(self) == FS_ONCE_POISON:
            refuse_poisoned()


# -- OnceLock ----------------------------------------------------------------

cdef object EMPTY = object()


cdef inline object value_or_empty(OnceLock self):
    # Between the two, a take() may have emptied it.
    return fs_box_get(self.box) if once_is_done(&self.once) else EMPTY


cdef object get_or_init(OnceLock self, object function):
    cdef object value = value_or_empty(self)
    cdef uint8_t outcome = FS_ONCE_NEW
    while value is EMPTY:
        if start(self, False) == FS_ONCE_RUN:
            try:
                value = function()
                fs_box_set(self.box, value)
                outcome = FS_ONCE_DONE
            finally:
                finish(self, outcome)
        else:
            value = value_or_empty(self)
    return value


cdef object or_none(object value):
    return None if value is EMPTY else value


@cython.final
@cython.no_gc_clear  # a cycle ends in the box
@cython.trashcan(True)
cdef class OnceLock(_Once):
    """OnceLock()
--

A value that is set one time, by the first thread that does.

None is a value like any other.  Setting it happens before every call that
returns it (release / acquire ordering).  As std's OnceLock."""

    def __cinit__(self):
        self.box = fs_new_list(1)
        PyList_SET_ITEM(self.box, 0, Py_NewRef(<PyObject*>EMPTY))

    def __init__(self):
        pass

    @classmethod
    def __class_getitem__(cls, item, /):
        return GenericAlias(cls, item)

    def get(self):
        """The value, or None while there is none."""
        return or_none(value_or_empty(self))

    def set(self, value, /):
        """Set the value if there is none; whether it was set.

        Waits while another thread initializes.  RuntimeError when called from within
        the initialization.
        """
        cdef uint8_t outcome = FS_ONCE_NEW
        if once_is_done(&self.once) or start(self, False) != FS_ONCE_RUN:
            return False
        try:
            fs_box_set(self.box, value)
            outcome = FS_ONCE_DONE
        finally:
            finish(self, outcome)
        return True

    def get_or_init(self, function, /):
        """The value; made by function() if there is none.

        Waits while another thread makes it.  What function() raises is passed on, and
        the next caller tries again.  RuntimeError when called from within the
        function.
        """
        return get_or_init(self, function)

    def get_or_try_init(self, function, /):
        """get_or_init(): in Python every function may fail."""
        return get_or_init(self, function)

    def take(self):
        """Take the value out, so that it can be set again; None if there is none."""
        cdef object value
        if not once_retract(&self.once):
            return None
        try:
            value = fs_box_get(self.box)
            fs_box_set(self.box, EMPTY)
        finally:
            once_end(&self.once, FS_ONCE_NEW)
        return value

    def into_inner(self):
        """The value, which stays in place; None if there is none."""
        return or_none(value_or_empty(self))

    def wait(self):
        """Wait until there is a value, and return it.  RuntimeError when called from
        within the initialization."""
        cdef object value = value_or_empty(self)
        while value is EMPTY:
            wait_done(self)
            value = value_or_empty(self)
        return value


# -- LazyLock ----------------------------------------------------------------

cdef object first_force(LazyLock self):
    cdef uint8_t outcome = FS_ONCE_POISON
    function = self.function
    try:
        self.result = function()
        outcome = FS_ONCE_DONE
    except BaseException as error:
        self.error = kept_copy(error)
        raise
    finally:
        self.function = None
        finish(self, outcome)
    return self.result


cdef object force_slow(LazyLock self):
    cdef int outcome = start(self, False)
    if outcome == FS_ONCE_RUN:
        return first_force(self)
    if outcome == FS_ONCE_POISON:
        raise RuntimeError("this LazyLock is poisoned: its function has raised") from (
            copy_error(self.error) if self.error is not None else None)
    return self.result


cdef inline object force(LazyLock self):
    return self.result if once_is_done(&self.once) else force_slow(self)


@cython.final
@cython.trashcan(True)  # long chains are freed without a deep stack
cdef class LazyLock(_Once):
    """LazyLock(function, /)
--

A value that function() makes when it is first asked for.

Threads that ask meanwhile wait.  An exception poisons it for good: the first
caller gets it, later ones a RuntimeError whose cause is a copy of it.  The
function is dropped when it has run.  Ordering as OnceLock's; as std's LazyLock."""

    def __cinit__(self, function, /):
        if not callable(function):
            raise TypeError("LazyLock needs a callable")
        self.function = function

    @classmethod
    def __class_getitem__(cls, item, /):
        return GenericAlias(cls, item)

    def force(self):
        """The value, made now if need be.

        RuntimeError when poisoned, and when called from within the function.
        """
        return force(self)

    @property
    def value(self):
        """force()."""
        return force(self)


# -- @once -------------------------------------------------------------------

@cython.final
@cython.trashcan(True)
cdef class once(_Once):
    """once(function, /)
--

Decorator: the function runs one time in the process.

The first call runs it, with its arguments; all other calls wait for that and
get the same result, whatever their arguments.  When it raises, each later call
raises a copy of the exception: of the same class, with the same arguments and
attributes.  An exception that is no Exception (KeyboardInterrupt, SystemExit) is
not kept: the next call tries again.  RuntimeError when called from within the
function."""
    cdef fs_call call         # what a call calls: see _slots.pyx
    cdef dict __dict__
    cdef object function
    cdef object result
    cdef object error          # None, or a copy of what it raised, which is never raised

    def __cinit__(self, function, /):
        if not callable(function):
            raise TypeError("once needs a callable")
        self.call = once_vectorcall
        self.function = function

    def __init__(self, function, /):
        from functools import WRAPPER_ASSIGNMENTS
        for name in (*WRAPPER_ASSIGNMENTS, *getattr(function, "__dict__", ())):
            if name != "__wrapped__" and hasattr(function, name):
                setattr(self, name, getattr(function, name))

    def __call__(self, *args, **kwargs):
        # For a call by this name: make_callable() has put `call` in its place.
        return PyObject_Call(self, args, kwargs)

    @classmethod
    def __class_getitem__(cls, item, /):
        return GenericAlias(cls, item)

    @property
    def __wrapped__(self):
        return self.function

    def __get__(self, instance, owner):
        return self if instance is None else PyMethod_New(self, instance)

    def __reduce__(self):
        return self.__qualname__

    def __repr__(self):
        return f"<once {self.function!r}>"


cdef int raise_copy(object kept) except -1:
    """Raise a copy as the kept exception left the function: with its traceback and context."""
    error = copy_error(kept)
    cdef PyObject* traceback = NULL
    if error.__traceback__ is not None:
        traceback = Py_NewRef(<PyObject*>error.__traceback__)
    PyErr_Restore(
        Py_NewRef(<PyObject*>Py_TYPE(error)), Py_NewRef(<PyObject*>error), traceback)
    return -1


cdef object run_once(once self, PyObject** args, size_t nargsf, PyObject* names):
    cdef uint8_t outcome = FS_ONCE_NEW
    try:
        self.result = PyObject_Vectorcall(self.function, args, nargsf, names)
        outcome = FS_ONCE_DONE
    except Exception as error:
        self.error = kept_copy(error)
        if self.error is not None:
            outcome = FS_ONCE_DONE
        raise
    finally:
        finish(self, outcome)
    return self.result


cdef object first_call(once self, PyObject** args, size_t nargsf, PyObject* names):
    if start(self, False) == FS_ONCE_RUN:
        return run_once(self, args, nargsf, names)
    if self.error is not None:
        raise_copy(self.error)
    return self.result


cdef PyObject* once_vectorcall(
    PyObject* self, PyObject** args, size_t nargsf, PyObject* names,
) except NULL:
    if once_is_done(&(<once>self).once) and (<once>self).error is None:
        return Py_NewRef(<PyObject*>(<once>self).result)
    # Without the flag that lets the callee write before the arguments.
    answer = first_call(<once>self, args, PyVectorcall_NARGS(nargsf), names)
    return Py_NewRef(<PyObject*>answer)


# -- set-up ------------------------------------------------------------------

def _nothing():
    pass


cdef int set_up() except -1:
    cdef once probe = once(_nothing)
    make_callable(once, <char*>&probe.call - <char*><PyObject*>probe)
    register_pinnable(Once, OnceLock, LazyLock, once)
    for state in (NEW, IN_PROGRESS, POISONED, DONE):
        fs_make_immortal(<PyObject*>state)
    return 0


set_up()
publish((LazyLock, Once, OnceLock, OnceState, once))
