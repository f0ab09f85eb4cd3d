"""Parker, Unparker and WaitGroup: veneers over the raw event."""
cimport cython
from libc.stdint cimport int64_t, uint8_t, uintptr_t

from fastsync.objects._slots cimport forbid_instances, publish
from fastsync.objects._timeouts cimport deadline_for, deadline_until
from fastsync.objects._veneer cimport checked, refuse_pickling
from fastsync.raw.c_atomic cimport (
    fs_u8_cas_acq_rel, fs_u8_cas_acquire, fs_u8_load_relaxed, fs_u8_store_relaxed,
    fs_uptr_cas_relaxed, fs_uptr_fetch_sub_acq_rel, fs_uptr_load_relaxed, fs_uptr_store_relaxed,
)
from fastsync.raw.c_wait cimport FS_FOREVER
from fastsync.raw.event cimport event_set, event_wait_until, FS_EVENT_SET
from fastsync.raw.parking cimport FS_ERROR, FS_SIGNALS, FS_TIMEOUT


# -- Parker ------------------------------------------------------------------

cdef inline bint take_token(Parker self) noexcept:
    cdef uint8_t seen = FS_EVENT_SET
    # acquire: pairs with the release in event_set, of every unpark() that set
    # this token, the first and those that found it set
    return fs_u8_cas_acquire(&self.token.state, &seen, 0)


cdef bint park(Parker self, int64_t deadline) except -1:
    """Whether there was a token in time."""
    cdef int result
    while not take_token(self):
        # Another thread may take what this one was woken for: look again.
        result = event_wait_until(&self.token, deadline, FS_SIGNALS)
        if result == FS_ERROR:
            return -1
        if result == FS_TIMEOUT:
            return take_token(self)
    return True


@cython.final
cdef class Parker:
    """Parker()
--

A thread's place to wait in, with one token.

park() takes the token, and waits for it if it is not there; unpark() puts it
there, once however often it is called.  What was done before unpark() is
visible after the park() that took its token (release / acquire).  No spurious
wake-ups.  An exception from a signal handler leaves the token alone.  Origin:
crossbeam's Parker."""

    def __init__(self):
        pass

    def park(self):
        """Wait for the token and take it."""
        park(self, FS_FOREVER)

    def park_timeout(self, seconds):
        """As park(), for at most `seconds`: whether the token was there in time.

        Any number will do: negative is "do not wait", too large "for ever".
        ValueError for NaN.
        """
        return park(self, deadline_for(seconds))

    def park_deadline(self, deadline):
        """As park_timeout(), with a time.monotonic() value for the end."""
        return park(self, deadline_until(deadline))

    def unparker(self):
        """What other threads call unpark() on."""
        return new_unparker(self)

    def __reduce__(self):
        refuse_pickling(type(self).__name__)


cdef object new_unparker(Parker parker):
    cdef Unparker result = Unparker.__new__(Unparker)
    result.parker = parker
    return result


@cython.final
@cython.no_gc  # a Parker refers to nothing
cdef class Unparker:
    """The other end of a Parker, for any number of threads.  Origin: crossbeam's Unparker."""

    def unpark(self):
        """Give the parker its token: its present or next park() returns at once."""
        event_set(&self.parker.token)

    def clone(self):
        """Another one of the same Parker."""
        return new_unparker(self.parker)

    def __reduce__(self):
        refuse_pickling(type(self).__name__)


# -- WaitGroup ---------------------------------------------------------------
#
# A handle is LIVE (it counts), then WAITING or DONE; WAITING goes on to DONE,
# or to BROKEN_OFF when a signal handler raised: then wait() may be called
# again.  Whoever takes it out of LIVE takes it out of the count.

cdef enum:
    LIVE = 0
    WAITING = 1
    BROKEN_OFF = 2
    DONE = 3


cdef inline bint change_state(WaitGroup self, uint8_t before, uint8_t after) noexcept:
    cdef uint8_t seen = before
    # acq_rel: what the threads that used the handle did comes before its end
    return fs_u8_cas_acq_rel(&self.state, &seen, after)


cdef inline void leave_group(_Group group) noexcept:
    # acq_rel: the last one out has seen all that the others did, and event_set
    # passes it on to those who wait
    if fs_uptr_fetch_sub_acq_rel(&group.handles, 1) == 1:
        event_set(&group.empty)


cdef bint join_group(_Group group) noexcept:
    """Count one more, unless the group has ended."""
    cdef uintptr_t seen = fs_uptr_load_relaxed(&group.handles)  # relaxed: the CAS decides
    # relaxed: the new handle is given to others by means that order it
    while seen != 0:
        if fs_uptr_cas_relaxed(&group.handles, &seen, seen + 1):
            return True
    return False


cdef int raise_done() except -1:
    raise RuntimeError("this handle of the WaitGroup is done")


@cython.final
cdef class _Group:
    """What the handles of one WaitGroup share."""

    def __cinit__(self):
        fs_uptr_store_relaxed(&self.handles, 1)  # relaxed: not shared yet


@cython.final
@cython.no_gc  # a group refers to nothing
cdef class WaitGroup:
    """WaitGroup()
--

A handle of a group of threads that wait for one another.

Each part of the work has a handle, made by clone(), and ends it with done(),
with the end of `with wg.clone():`, or by dropping it (which takes effect at once
only in the thread that made it).  wait() ends its own handle and returns when
all have ended; what they did before is visible then.  RuntimeError on every
use of a handle that has ended.  Origin: crossbeam's WaitGroup."""

    def __cinit__(self):
        self.group = None

    def __init__(self):
        if self.group is None:
            self.group = _Group()

    def __dealloc__(self):
        # relaxed: nobody else has the handle
        if self.group is not None and fs_u8_load_relaxed(&self.state) == LIVE:
            leave_group(self.group)

    def clone(self):
        """Another handle of the group."""
        cdef WaitGroup other
        # relaxed: join_group refuses when it is too late
        if self.group is None or fs_u8_load_relaxed(&self.state) != LIVE:
            raise_done()
        other = WaitGroup.__new__(WaitGroup)
        if not join_group(self.group):
            raise_done()
        other.group = self.group
        return other

    def done(self):
        """End this handle."""
        if self.group is None or not change_state(self, LIVE, DONE):
            raise_done()
        leave_group(self.group)

    def wait(self):
        """End this handle and wait until all handles of the group have ended.

        When a signal handler raises, the handle has ended, and wait() may be
        called again.
        """
        if self.group is None:
            raise_done()
        if change_state(self, LIVE, WAITING):
            leave_group(self.group)
        elif not change_state(self, BROKEN_OFF, WAITING):
            raise_done()
        if event_wait_until(&self.group.empty, FS_FOREVER, FS_SIGNALS) == FS_ERROR:
            fs_u8_store_relaxed(&self.state, BROKEN_OFF)  # relaxed: orders nothing
            checked(FS_ERROR)
        fs_u8_store_relaxed(&self.state, DONE)  # relaxed: as above

    def __enter__(self):
        if self.group is None or fs_u8_load_relaxed(&self.state) != LIVE:  # relaxed: a look
            raise_done()
        return self

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        if self.group is not None and change_state(self, LIVE, DONE):
            leave_group(self.group)

    def __reduce__(self):
        refuse_pickling(type(self).__name__)

    def __repr__(self):
        handles = 0 if self.group is None else fs_uptr_load_relaxed(&self.group.handles)
        return f"<WaitGroup, {handles} handles>"


forbid_instances(Unparker)  # only a Parker makes one
publish((Parker, Unparker, WaitGroup))
