"""The raw event: one byte.  What all raw words have in common: see words.pxd."""
from libc.stdint cimport int64_t, uint8_t

from fastsync.raw.c_atomic cimport (
    fs_atomic_u8, fs_u8_cas_acq_rel, fs_u8_cas_release, fs_u8_load_acquire,
)
from fastsync.raw.c_wait cimport FS_FOREVER
from fastsync.raw.parking cimport deadline_after, fs_place, FS_ACQUIRED, FS_PLAIN


#   0        clear, no thread parked
#   SET      set; no thread waits
#   PARKED   clear, a thread may be parked: set must look
#
# PARKED gives way to SET only under the bucket lock, so that a wait that
# begins after a clear() is never ended by a set() before it.

cdef enum:
    FS_EVENT_SET = 1
    FS_EVENT_PARKED = 2

cdef extern from "fastsync/words.h":
    ctypedef struct fs_event "fastsync_0_2_event":
        fs_atomic_u8 state

cdef void event_set_slow(fs_event* e) noexcept nogil
cdef void event_reset(fs_event* e, bint set) noexcept nogil
cdef int event_wait_slow(fs_event* e, int64_t deadline, int flags) noexcept nogil


cdef inline bint event_is_set(const fs_event* e) noexcept nogil:
    # acquire: pairs with the release in event_set
    return fs_u8_load_acquire(&e.state) == FS_EVENT_SET


cdef inline void event_set(fs_event* e) noexcept nogil:
    cdef uint8_t seen = 0
    # release: pairs with the acquire in event_is_set
    while not fs_u8_cas_release(&e.state, &seen, FS_EVENT_SET):
        if seen == FS_EVENT_PARKED:
            event_set_slow(e)
            return


cdef inline void event_clear(fs_event* e) noexcept nogil:
    cdef uint8_t seen = FS_EVENT_SET
    # acq_rel: what happened before the set() that it undoes is visible after
    # it, and what precedes it is visible to who sees the event clear and sets it
    fs_u8_cas_acq_rel(&e.state, &seen, 0)


cdef inline int event_wait_until(fs_event* e, int64_t deadline, int flags) noexcept nogil:
    """FS_ACQUIRED once set, FS_TIMEOUT, or FS_ERROR (a signal handler raised)."""
    if event_is_set(e):
        return FS_ACQUIRED
    return event_wait_slow(e, deadline, flags)


cdef inline void event_wait(fs_event* e) noexcept nogil:
    """Wait until it is set."""
    event_wait_until(e, FS_FOREVER, FS_PLAIN)


cdef inline bint event_wait_for(fs_event* e, int64_t ns) noexcept nogil:
    """Wait for `ns` nanoseconds at most: whether it was set."""
    return event_wait_until(e, deadline_after(ns), FS_PLAIN) == FS_ACQUIRED


# -- between the modules of this package; not for others ---------------------

# For a wait for several things: whether it is set; if not, where to park for that.  Who was
# woken there with FS_TOKEN_HANDOFF has seen it set, else looks again.
cdef bint event_is_set_or_place(fs_event* e, fs_place* place) noexcept nogil
