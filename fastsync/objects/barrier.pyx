# distutils: define_macros=CYTHON_USE_TYPE_SPECS=1
# Heap types, because these can be patched and renamed as the originals can: `type` writes a new
# name where only a heap type has room for it.
"""Barrier, as `threading.Barrier`.

A call that must wait drops the thread state and runs signal handlers in the main thread; an
exception from one leaves the wait with nothing owned.  docs/migrating.md lists every
difference from the original.
"""
cimport cython
from libc.stdint cimport int64_t, uint32_t
from cpython.number cimport PyNumber_Index
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF

from fastsync._watch.trace cimport fs_wait, trace_made, trace_signal, trace_signalled, tracing
from fastsync.objects._extensible cimport (
    _Extensible, add_extensible, add_private, become_original, is_original, sign_constructor,
    stock_name, track,
)
from fastsync.objects._slots cimport finish_type, rename_type
from fastsync.objects._timeouts cimport wait_deadline
from fastsync.objects._veneer cimport address, checked, kept
from fastsync.objects.condition cimport inner_condition
from fastsync.raw.barrier cimport (
    barrier_abort, barrier_arrive, barrier_init, barrier_is_broken, barrier_open, barrier_reinit,
    barrier_reset, barrier_waiting, FS_BARRIER_BROKEN, FS_BARRIER_LAST, FS_BARRIER_PASSED,
)
from fastsync.raw.parking cimport FS_SIGNALS

import threading as stdlib

from fastsync.objects._pin import register_pinnable


# Taken once: the attribute of the module may be ours by the time it is needed.
cdef object StdlibBarrier = stdlib.Barrier


# -- Barrier -----------------------------------------------------------------

cdef int broken_barrier() except -1:
    # The standard library's own class, and not at import: `threading` itself
    # may be about to be replaced.
    from threading import BrokenBarrierError
    raise BrokenBarrierError


cdef uint32_t party_count(object parties) except 0:
    parties = PyNumber_Index(parties)
    if parties < 1:
        raise ValueError("parties must be >= 1")
    return parties


cdef int finish_round(Barrier self) except -1:
    cdef object action = kept(<PyObject*>self.action)
    if action is not None:
        try:
            if action:  # its truth decides, as in the original
                action()
        except BaseException:
            barrier_abort(&self.barrier)
            barrier_open(&self.barrier)
            raise
    return FS_BARRIER_BROKEN if barrier_open(&self.barrier) else FS_BARRIER_PASSED


cdef object read_action(object self):
    return kept(<PyObject*>(<Barrier>self).action)


cdef int write_action(object self, object value) except -1:
    return set_extras(self, value, kept(<PyObject*>(<Barrier>self).timeout))


cdef object read_timeout(object self):
    return kept(<PyObject*>(<Barrier>self).timeout)


cdef int write_timeout(object self, object value) except -1:
    return set_extras(self, kept(<PyObject*>(<Barrier>self).action), value)


cdef object read_parties(object self):
    return (<Barrier>self).barrier.parties


cdef object read_count(object self):
    return barrier_waiting(&(<Barrier>self).barrier)


cdef object read_state(object self):
    return -2 if barrier_is_broken(&(<Barrier>self).barrier) else 0


cdef int set_extras(Barrier self, object action, object timeout) except -1:
    with cython.critical_section(self):
        if self.action is not None or self.timeout is not None:
            # Other threads may be reading them: what is replaced is never let go.
            Py_INCREF(self.action)
            Py_INCREF(self.timeout)
        elif action is None and timeout is None:
            return 0
        self.action = action
        self.timeout = timeout
    track(self)
    return 0


@cython.trashcan(True)
cdef class Barrier(_Extensible):
    """Barrier(parties, action=None, timeout=None)
--

A meeting point for `parties` threads, as `threading.Barrier`.

action: called by the last to arrive, before anybody leaves; what it raises
breaks the barrier.  timeout: seconds, the default of wait().  Everything
before a wait() happens before everything after any other wait() of the round."""

    def __cinit__(self):
        barrier_init(&self.barrier, 1)
        if tracing():
            trace_made(self)

    def __init__(self, parties, action=None, timeout=None):
        if is_original(self):
            StdlibBarrier.__init__(self, parties, action, timeout)
            return
        barrier_reinit(&self.barrier, party_count(parties))
        set_extras(self, action, timeout)

    def wait(self, timeout=None):
        """Wait until `parties` threads have called this; the order of arrival, from 0.

        timeout: seconds, None for the constructor's.  BrokenBarrierError when it
        passes first (which breaks the barrier for all), or the barrier is or
        gets broken or reset.
        """
        cdef uint32_t index = 0
        cdef int64_t deadline
        cdef int outcome
        cdef fs_wait noting
        if is_original(self):
            return StdlibBarrier.wait(self, timeout)
        if timeout is None:
            timeout = kept(<PyObject*>self.timeout)
        deadline = wait_deadline(timeout)
        if deadline == 0:
            deadline = 1  # the past: arriving last still passes
        if tracing():
            trace_signal(&noting, self, deadline)
            outcome = barrier_arrive(&self.barrier, deadline, FS_SIGNALS, &index)
            trace_signalled(&noting)
        else:
            outcome = barrier_arrive(&self.barrier, deadline, FS_SIGNALS, &index)
        checked(outcome)
        if outcome == FS_BARRIER_LAST:
            outcome = finish_round(self)
        if outcome == FS_BARRIER_BROKEN:
            broken_barrier()
        return index

    def reset(self):
        """Start over; threads that wait now get BrokenBarrierError."""
        if is_original(self):
            StdlibBarrier.reset(self)
            return
        checked(barrier_reset(&self.barrier, FS_SIGNALS))

    def abort(self):
        """Break the barrier: waiting now or later raises BrokenBarrierError."""
        if is_original(self):
            StdlibBarrier.abort(self)
            return
        barrier_abort(&self.barrier)

    @property
    def parties(self):
        """How many threads make a round."""
        if is_original(self):
            return StdlibBarrier.parties.__get__(self)
        return self.barrier.parties

    @property
    def n_waiting(self):
        """How many threads wait, at this moment."""
        if is_original(self):
            return StdlibBarrier.n_waiting.__get__(self)
        return barrier_waiting(&self.barrier)

    @property
    def broken(self):
        """Whether the barrier is broken."""
        if is_original(self):
            return StdlibBarrier.broken.__get__(self)
        return barrier_is_broken(&self.barrier)

    def _at_fork_reinit(self):
        if is_original(self):
            self._cond._at_fork_reinit()
            self._state = self._count = 0
            return
        # As new, its inner lock too: another thread may have had that one.
        barrier_init(&self.barrier, self.barrier.parties)
        if self.inner is not None:
            self.inner._at_fork_reinit()

    # The steps of the original's wait(), for subclasses that override one and call another.

    def _enter(self):
        become_original(self)
        StdlibBarrier._enter(self)

    def _release(self):
        become_original(self)
        StdlibBarrier._release(self)

    def _wait(self, timeout):
        become_original(self)
        StdlibBarrier._wait(self, timeout)

    def _exit(self):
        become_original(self)
        StdlibBarrier._exit(self)

    def _break(self):
        if not is_original(self):
            barrier_abort(&self.barrier)
            return
        StdlibBarrier._break(self)

    def __repr__(self):
        if is_original(self):
            return StdlibBarrier.__repr__(self)
        if barrier_is_broken(&self.barrier):
            return f"<{stock_name(self)} at {address(self)}: broken>"
        return (f"<{stock_name(self)} at {address(self)}: "
                f"waiters={barrier_waiting(&self.barrier)}/{self.barrier.parties}>")


# -- set-up of barrier ---

cdef size_t waiting_in_barrier(object self) noexcept:
    return barrier_waiting(&(<Barrier>self).barrier)


cdef int barrier_becomes_original(object self) except -1:
    StdlibBarrier.__init__(
        self, (<Barrier>self).barrier.parties, kept(<PyObject*>(<Barrier>self).action),
        kept(<PyObject*>(<Barrier>self).timeout))
    if barrier_is_broken(&(<Barrier>self).barrier):
        self._state = -2
    return 0


cdef int set_up() except -1:
    add_extensible(Barrier, waiting_in_barrier, barrier_becomes_original)
    add_private(Barrier, "_action", read_action, write_action)
    add_private(Barrier, "_timeout", read_timeout, write_timeout)
    add_private(Barrier, "_parties", read_parties, NULL)
    add_private(Barrier, "_count", read_count, NULL)
    add_private(Barrier, "_state", read_state, NULL)
    add_private(Barrier, "_cond", inner_condition, NULL)
    finish_type(Barrier, True)  # as the original is
    rename_type(Barrier, b"threading.Barrier")
    sign_constructor(Barrier)
    register_pinnable(Barrier)
    return 0


set_up()
