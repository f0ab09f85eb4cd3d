# distutils: define_macros=CYTHON_USE_TYPE_SPECS=1
# Heap types, because these can be patched and renamed as the originals can: `type` writes a new
# name where only a heap type has room for it.
"""Event, as `threading.Event`.

A call that must wait drops the thread state and runs signal handlers in the main thread; an
exception from one leaves the wait with nothing owned.  docs/migrating.md lists every
difference from the original.
"""
cimport cython
from libc.stdint cimport int64_t, uintptr_t
from cpython.exc cimport PyErr_WarnEx

from fastsync._watch.trace cimport (
    fs_section, FS_SIGNAL, trace_lock, trace_made, trace_release, trace_released, tracing,
)
from fastsync.objects._extensible cimport (
    _Extensible, add_extensible, add_private, is_original, sign_constructor, stock_name,
)
from fastsync.objects._slots cimport finish_type, rename_type
from fastsync.objects._timeouts cimport wait_deadline
from fastsync.objects._veneer cimport address, checked
from fastsync.objects.condition cimport (
    Condition, enter_inner, has_inner, inner_condition, leave_inner, notify_inner, tell_inner,
    wait_inner,
)
from fastsync.raw.event cimport (
    event_clear, event_is_set, event_reset, event_set, event_wait_until, fs_event,
)
from fastsync.raw.parking cimport FS_SIGNALS, parked_count

import threading as stdlib

from fastsync.objects._pin import register_pinnable

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX  # not sys.maxsize: `sys` is None in late finalizers


# Taken once: the attribute of the module may be ours by the time it is needed.
cdef object StdlibEvent = stdlib.Event


# -- Event -------------------------------------------------------------------

cdef int take_event(void* event, int64_t deadline) noexcept:
    return event_wait_until(<fs_event*>event, deadline, FS_SIGNALS)


cdef inline bint wait_for_event(Event self, int64_t deadline) except -1:
    if tracing():
        return trace_lock(self, FS_SIGNAL, deadline, NULL, take_event, &self.event)
    return checked(event_wait_until(&self.event, deadline, FS_SIGNALS))


# When there is a `_cond`: the original's way, under its lock.

cdef bint wait_inside(Event self, object timeout) except -1:
    cdef Condition condition = self.inner
    enter_inner(condition)
    try:
        return event_is_set(&self.event) or wait_inner(condition, wait_deadline(timeout))
    finally:
        leave_inner(condition)


cdef int set_inside(Event self) except -1:
    cdef Condition condition = self.inner
    enter_inner(condition)
    try:
        set_event(self)
        return notify_inner(condition, PY_SSIZE_T_MAX)
    finally:
        leave_inner(condition)


cdef int clear_inside(Event self) except -1:
    cdef Condition condition = self.inner
    enter_inner(condition)
    event_clear(&self.event)
    return leave_inner(condition)


cdef int set_event(Event self) except -1:
    cdef fs_section section
    if tracing():
        trace_release(&section, self, FS_SIGNAL, NULL)
        event_set(&self.event)
        trace_released(&section)
    else:
        event_set(&self.event)
    return 0


cdef object read_flag(object self):
    return event_is_set(&(<Event>self).event)


cdef int write_flag(object self, object value) except -1:
    if value:
        event_set(&(<Event>self).event)
    else:
        event_clear(&(<Event>self).event)
    return 0


@cython.no_gc_clear
cdef class Event(_Extensible):
    """Event()
--

A flag that threads wait for, as `threading.Event`.

set() happens before every wait() and is_set() that sees it (release / acquire
ordering)."""

    def __cinit__(self):
        if tracing():
            trace_made(self)

    def __init__(self):
        if is_original(self):
            StdlibEvent.__init__(self)
            return
        event_clear(&self.event)

    def is_set(self):
        """Whether the flag is set."""
        if is_original(self):
            return StdlibEvent.is_set(self)
        return event_is_set(&self.event)

    def isSet(self):
        """Deprecated alias of is_set()."""
        PyErr_WarnEx(DeprecationWarning, b"isSet() is deprecated, use is_set() instead", 1)
        return self.is_set()

    def set(self):
        """Set the flag and wake every waiting thread."""
        if is_original(self):
            StdlibEvent.set(self)
        elif has_inner(self):
            set_inside(self)
        else:
            set_event(self)
            tell_inner(self, PY_SSIZE_T_MAX)

    def clear(self):
        """Clear the flag; threads that a set() has woken are not held back."""
        if is_original(self):
            StdlibEvent.clear(self)
        elif has_inner(self):
            clear_inside(self)
        else:
            event_clear(&self.event)

    def wait(self, timeout=None):
        """Wait until the flag is set; False when `timeout` seconds passed first."""
        if is_original(self):
            return StdlibEvent.wait(self, timeout)
        if has_inner(self):
            return wait_inside(self, timeout)
        if event_is_set(&self.event):
            return True
        return wait_for_event(self, wait_deadline(timeout))

    def _at_fork_reinit(self):
        # The flag stays; threads that were parked did not survive the fork.
        cdef bint was_set
        if is_original(self):
            StdlibEvent._at_fork_reinit(self)
            return
        was_set = event_is_set(&self.event)
        event_reset(&self.event, was_set)
        if self.inner is not None:
            self.inner._at_fork_reinit()

    def __repr__(self):
        if is_original(self):
            return StdlibEvent.__repr__(self)
        status = "set" if event_is_set(&self.event) else "unset"
        return f"<{stock_name(self)} at {address(self)}: {status}>"


# -- set-up of event ---

cdef size_t waiting_in_event(object self) noexcept:
    return parked_count(<uintptr_t>&(<Event>self).event)


cdef int event_becomes_original(object self) except -1:
    StdlibEvent.__init__(self)
    self._flag = event_is_set(&(<Event>self).event)
    return 0


cdef int set_up() except -1:
    add_extensible(Event, waiting_in_event, event_becomes_original)
    add_private(Event, "_flag", read_flag, write_flag)
    add_private(Event, "_cond", inner_condition, NULL)
    finish_type(Event, True)  # as the original is
    rename_type(Event, b"threading.Event")
    sign_constructor(Event)
    register_pinnable(Event)
    return 0


set_up()
