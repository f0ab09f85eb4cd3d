# distutils: define_macros=CYTHON_USE_TYPE_SPECS=1
# Heap types, because these can be patched and renamed as the originals can: `type` writes a new
# name where only a heap type has room for it.
"""Semaphore and BoundedSemaphore, as in `threading`.

A call that must wait drops the thread state and runs signal handlers in the main thread; an
exception from one leaves the wait with nothing owned.  docs/migrating.md lists every
difference from the original.
"""
cimport cython
from libc.stdint cimport int64_t, uint64_t, uintptr_t
from cpython.number cimport PyNumber_Index
from cpython.object cimport PyObject

from fastsync._watch.trace cimport (
    FS_PERMIT, fs_section, trace_lock, trace_made, trace_release, trace_released, tracing,
)
from fastsync.objects._extensible cimport (
    _Extensible, add_extensible, add_private, is_original, sign_constructor, stock_name,
)
from fastsync.objects._slots cimport (
    finish_type, fs_method, make_context_manager, rename_type, share_layout, shorten, version_tag,
)
from fastsync.objects._timeouts cimport wait_deadline
from fastsync.objects._veneer cimport address, checked, offset, refuse_call
from fastsync.objects.condition cimport (
    Condition, enter_inner, has_inner, inner_condition, leave_inner, notify_inner, tell_inner,
    wait_inner,
)
from fastsync.raw.c_python cimport fs_small_int, Py_NewRef
from fastsync.raw.c_wait cimport FS_FOREVER, fs_now
from fastsync.raw.parking cimport FS_SIGNALS, parked_count
from fastsync.raw.semaphore cimport (
    fs_semaphore, semaphore_acquire_until, semaphore_init, semaphore_max, semaphore_release,
    semaphore_set_value, semaphore_value,
)

import threading as stdlib

from fastsync.objects._pin import register_pinnable

cdef extern from "Python.h":
    PyObject* Py_True
    PyObject* Py_None
    size_t PyVectorcall_NARGS(size_t) noexcept
    const Py_ssize_t PY_SSIZE_T_MAX  # not sys.maxsize: `sys` is None in late finalizers


# Taken once: the attribute of the module may be ours by the time it is needed.
cdef object StdlibSemaphore = stdlib.Semaphore
cdef object StdlibBoundedSemaphore = stdlib.BoundedSemaphore


# -- Semaphore, BoundedSemaphore ---------------------------------------------

cdef uint64_t permits(object n) except 0:
    cdef int64_t small
    if fs_small_int(<PyObject*>n, &small) and small > 0:
        return small
    n = PyNumber_Index(n)
    if n < 1:
        raise ValueError("n must be one or more")
    return min(n, semaphore_max() + 1)  # which is past every limit


cdef inline uint64_t semaphore_limit(Semaphore self) noexcept:
    if isinstance(self, BoundedSemaphore):
        return (<BoundedSemaphore>self).initial
    return semaphore_max()


cdef int take_permit(void* semaphore, int64_t deadline) noexcept:
    return semaphore_acquire_until(<fs_semaphore*>semaphore, deadline, FS_SIGNALS)


cdef inline bint acquire_semaphore(Semaphore self, int64_t deadline) except -1:
    if has_inner(self):
        return acquire_inside(self, deadline)
    return acquire_outside(self, deadline)


# When there is a `_cond`: the original's way, under its lock.

cdef bint acquire_inside(Semaphore self, int64_t deadline) except -1:
    cdef Condition condition = self.inner
    enter_inner(condition)
    try:
        while not acquire_outside(self, 0):
            if deadline == 0 or fs_now() >= deadline:
                return False
            wait_inner(condition, deadline)
        return True
    finally:
        leave_inner(condition)


cdef int give_inside(Semaphore self, uint64_t n) except -1:
    cdef Condition condition = self.inner
    enter_inner(condition)
    try:
        give_outside(self, n)
        return notify_inner(condition, n)
    finally:
        leave_inner(condition)


cdef inline bint acquire_outside(Semaphore self, int64_t deadline) except -1:
    if tracing():
        return trace_lock(self, FS_PERMIT, deadline, NULL, take_permit, &self.semaphore)
    return checked(semaphore_acquire_until(&self.semaphore, deadline, FS_SIGNALS))


cdef int semaphore_give(Semaphore self, uint64_t n) except -1:
    if has_inner(self):
        return give_inside(self, n)
    give_outside(self, n)
    return tell_inner(self, n)


cdef int give_outside(Semaphore self, uint64_t n) except -1:
    cdef fs_section section
    cdef bint traced = tracing()
    cdef int result
    if traced:
        trace_release(&section, self, FS_PERMIT, NULL)
    result = semaphore_release(&self.semaphore, n, semaphore_limit(self))
    if traced:
        trace_released(&section)
    if result < 0:
        if isinstance(self, BoundedSemaphore):
            raise ValueError("Semaphore released too many times")
        raise OverflowError("semaphore value is too large")
    return 0


cdef PyObject* semaphore_call(
    PyObject* self, PyObject** args, size_t nargsf, PyObject* names,
) except NULL:
    cdef size_t nargs = PyVectorcall_NARGS(nargsf)
    if names == NULL and nargs == 0:
        if is_original(<Semaphore>self):
            answer = StdlibSemaphore.acquire(<object>self)
            return Py_NewRef(<PyObject*>answer)
        acquire_semaphore(<Semaphore>self, FS_FOREVER)
        return Py_NewRef(Py_True)
    if names != NULL or nargs != 3:
        refuse_call(nargs)
    if <PyObject*>(<Semaphore>self).attributes == NULL and is_as_made(<Semaphore>self):
        semaphore_give(<Semaphore>self, 1)
    else:
        (<object>self).release()  # it may be an override, or a patch of the class
    return Py_NewRef(Py_None)


# The version of the two classes while nothing in them has been patched.
cdef unsigned int semaphore_version = 0
cdef unsigned int bounded_semaphore_version = 0


cdef inline bint is_as_made(Semaphore self) noexcept:
    """Its class has the methods that it was made with: no subclass, no patch."""
    if type(self) is Semaphore:
        return semaphore_version != 0 and version_tag(Semaphore) == semaphore_version
    return (type(self) is BoundedSemaphore and bounded_semaphore_version != 0
            and version_tag(BoundedSemaphore) == bounded_semaphore_version)


cdef object read_permits(object self):
    return semaphore_value(&(<Semaphore>self).semaphore)


cdef int write_permits(object self, object value) except -1:
    semaphore_set_value(&(<Semaphore>self).semaphore, initial_value(value))
    return 0


cdef object read_initial_value(object self):
    return (<Semaphore>self).initial


cdef int write_initial_value(object self, object value) except -1:
    (<Semaphore>self).initial = initial_value(value)
    return 0


cdef uint64_t initial_value(object value) except? 0:
    cdef int64_t small
    if fs_small_int(<PyObject*>value, &small) and small >= 0:
        return small
    value = PyNumber_Index(value)
    if value < 0:
        raise ValueError("semaphore initial value must be >= 0")
    if value > PY_SSIZE_T_MAX:
        raise OverflowError("semaphore value is too large")
    return value


@cython.no_gc_clear
cdef class Semaphore(_Extensible):
    """Semaphore(value=1)
--

A counter of permits, as `threading.Semaphore`.

value: how many may acquire before one must release; ValueError below 0.
release() happens before the acquire() that takes its permit (release / acquire
ordering)."""

    def __cinit__(self):
        self.call = semaphore_call
        semaphore_init(&self.semaphore, 1)
        self.initial = 1
        if tracing():
            trace_made(self)

    def __init__(self, value=1):
        cdef uint64_t initial
        if is_original(self):
            StdlibSemaphore.__init__(self, value)
            return
        initial = initial_value(value)
        self.initial = initial
        semaphore_set_value(&self.semaphore, initial)

    def acquire(self, blocking=True, timeout=None):
        """Take a permit, waiting for one; whether it was taken.

        blocking: False answers at once.  timeout: seconds, None for no limit, not
        positive: at once.  ValueError for a timeout in a call that does not block.
        """
        if is_original(self):
            return StdlibSemaphore.acquire(self, blocking, timeout)
        if blocking is True and timeout is None:
            return acquire_semaphore(self, FS_FOREVER)
        if not blocking and timeout is not None:
            raise ValueError("can't specify timeout for non-blocking acquire")
        return acquire_semaphore(self, wait_deadline(timeout) if blocking else 0)

    def release(self, n=1):
        """Give n permits back, waking up to n waiting threads; ValueError for n < 1."""
        if is_original(self):
            StdlibSemaphore.release(self, n)
        else:
            semaphore_give(self, permits(n))

    def __enter__(self, blocking=True, timeout=None):
        return Semaphore.acquire(self, blocking, timeout)

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        self.release()

    def _at_fork_reinit(self):
        # The threads that had the missing permits, and those that waited, are not here.
        if is_original(self):
            self._cond._at_fork_reinit()
            self._value = getattr(self, "_initial_value", self._value)  # or it is not known
            return
        semaphore_set_value(&self.semaphore, self.initial)
        if self.inner is not None:
            self.inner._at_fork_reinit()

    def __repr__(self):
        if is_original(self):
            return StdlibSemaphore.__repr__(self)
        return f"<{stock_name(self)} at {address(self)}: value={semaphore_value(&self.semaphore)}>"


@cython.no_gc_clear
cdef class BoundedSemaphore(Semaphore):
    """BoundedSemaphore(value=1)
--

A Semaphore whose value may not exceed the initial one.

release() past it raises ValueError and changes nothing."""

    def __init__(self, value=1):
        cdef uint64_t initial
        if is_original(self):
            StdlibSemaphore.__init__(self, value)
            self._initial_value = value
            return
        initial = initial_value(value)
        with cython.critical_section(self):  # not the value of one call and the bound of another
            self.initial = initial
            semaphore_set_value(&self.semaphore, initial)

    def release(self, n=1):
        """As Semaphore.release(); ValueError when the value would exceed the initial one."""
        if is_original(self):
            StdlibBoundedSemaphore.release(self, n)
        else:
            semaphore_give(self, permits(n))

    def __repr__(self):
        if is_original(self):
            return StdlibBoundedSemaphore.__repr__(self)
        return (f"<{stock_name(self)} at {address(self)}: "
                f"value={semaphore_value(&self.semaphore)}/{self.initial}>")


cdef fs_method usual_semaphore_acquire
cdef fs_method usual_semaphore_release
cdef fs_method usual_bounded_release


cdef PyObject* short_semaphore_acquire(
    PyObject* self, PyObject** args, Py_ssize_t nargs, PyObject* names,
) except NULL:
    if nargs != 0 or names != NULL or is_original(<Semaphore>self):
        return usual_semaphore_acquire(self, args, nargs, names)
    return semaphore_call(self, args, 0, NULL)


cdef PyObject* short_semaphore_release(
    PyObject* self, PyObject** args, Py_ssize_t nargs, PyObject* names,
) except NULL:
    if nargs != 0 or names != NULL or is_original(<Semaphore>self):
        return usual_semaphore_release(self, args, nargs, names)
    semaphore_give(<Semaphore>self, 1)
    return Py_NewRef(Py_None)


cdef PyObject* short_bounded_release(
    PyObject* self, PyObject** args, Py_ssize_t nargs, PyObject* names,
) except NULL:
    if nargs != 0 or names != NULL or is_original(<Semaphore>self):
        return usual_bounded_release(self, args, nargs, names)
    semaphore_give(<Semaphore>self, 1)
    return Py_NewRef(Py_None)


cdef int remember_versions() except -1:
    global semaphore_version, bounded_semaphore_version
    getattr(Semaphore, "release"), getattr(BoundedSemaphore, "release")  # a lookup gives one
    semaphore_version = version_tag(Semaphore)
    bounded_semaphore_version = version_tag(BoundedSemaphore)
    return 0


# -- set-up of semaphore ---

cdef size_t waiting_in_semaphore(object self) noexcept:
    return parked_count(<uintptr_t>&(<Semaphore>self).semaphore)


cdef int semaphore_becomes_original(object self) except -1:
    StdlibSemaphore.__init__(self, semaphore_value(&(<Semaphore>self).semaphore))
    if isinstance(self, BoundedSemaphore):
        self._initial_value = (<Semaphore>self).initial
    return 0


cdef int set_up() except -1:
    global usual_semaphore_acquire, usual_semaphore_release, usual_bounded_release
    cdef Semaphore semaphore
    for cls in (BoundedSemaphore, Semaphore):
        add_extensible(cls, waiting_in_semaphore, semaphore_becomes_original)
    semaphore = Semaphore()
    make_context_manager(Semaphore, offset(semaphore, &semaphore.call))
    make_context_manager(BoundedSemaphore, offset(semaphore, &semaphore.call))
    usual_semaphore_acquire = shorten(Semaphore, "acquire", short_semaphore_acquire)
    usual_semaphore_release = shorten(Semaphore, "release", short_semaphore_release)
    usual_bounded_release = shorten(BoundedSemaphore, "release", short_bounded_release)
    add_private(Semaphore, "_value", read_permits, write_permits)
    add_private(Semaphore, "_cond", inner_condition, NULL)
    add_private(BoundedSemaphore, "_initial_value", read_initial_value, write_initial_value)
    share_layout(BoundedSemaphore, Semaphore)
    for cls in (Semaphore, BoundedSemaphore):
        finish_type(cls, True)  # as the originals are
    rename_type(Semaphore, b"threading.Semaphore")
    rename_type(BoundedSemaphore, b"threading.BoundedSemaphore")
    sign_constructor(Semaphore)
    sign_constructor(BoundedSemaphore)
    remember_versions()
    register_pinnable(Semaphore, BoundedSemaphore)
    return 0


set_up()
