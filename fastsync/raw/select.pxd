"""One wait for several things, of which exactly one is then done: what select() stands on.

    look      each case is tried, in any order; the first that can be done is it
    mark      each that cannot says on its ring, event or semaphore that somebody may be parked
    park      on all of them (park_on_any); if one has changed since it was marked: look again
    leave     every queue; from now on no thread can serve the select
    settle    what it was served with is the outcome; what else it was woken for is passed on

State of a select, `chosen`:

    0        parked, perhaps, and open: whoever serves a ring that it waits for may claim it
    k        case k has been served: an item was handed to it, or taken from it

Why nothing is lost or doubled.  A ring serves a parked select under the lock of the ring and
the bucket lock of its key, and only by changing `chosen` from 0: so one ring serves it, once,
and the others pass over it to the next that waits (ring.pxd).  An item that was handed over is
in the place's token, one that was taken has left its case; `chosen` says which, and is read
after the select has left all queues, each under its bucket lock.  So a select that times out,
or must run signal handlers, was served before it left, and then is done, or never will be.

An event that was set wakes all who wait, and is one case's outcome or nobody's: nothing to
pass on.  A semaphore wakes one waiter for each unit, to try again, or with the unit in hand:
what the select does not use it gives back or wakes the next for.  So with a ring that wakes
its putters to look again (its limit was raised, or it has an order of its own).

No wake-up is lost between look and park, as in ring.pxd: the mark is made under the lock
under which the case was found not to be ready, and parking fails if it has been cleared since.

Two selects that wait for each other over a rendezvous, one to send and one to receive: each
parks only if its mark is still there, and the second to look clears the first's mark, or finds
it parked and claims it.
"""
from libc.stdint cimport int64_t

from fastsync.raw.c_atomic cimport fs_atomic_u32
from fastsync.raw.event cimport fs_event
from fastsync.raw.parking cimport fs_place
from fastsync.raw.ring cimport fs_claim, fs_ring
from fastsync.raw.semaphore cimport fs_semaphore

cdef enum:
    FS_CASE_NEVER  # cannot be done, whatever comes: nothing to park on
    FS_CASE_GET
    FS_CASE_PUT
    FS_CASE_EVENT
    FS_CASE_SEMAPHORE

cdef struct fs_case:
    int kind
    fs_ring* ring
    fs_event* event
    fs_semaphore* semaphore
    void* item       # of a put; of a get, once it is done
    size_t number    # as the caller counts: from 0
    fs_claim claim

# How a wait ended.
cdef enum:
    FS_SELECT_DONE
    FS_SELECT_AGAIN    # look again
    FS_SELECT_TIMEOUT
    FS_SELECT_SIGNALS  # likewise, after signal handlers

# Each case has been looked at and marked, those of events and semaphores by their own
# functions, which fill in their places; `done` says which was done.
cdef int select_park(
    fs_case* cases, fs_place* places, size_t n, int64_t deadline, int flags, size_t* done,
) noexcept nogil
