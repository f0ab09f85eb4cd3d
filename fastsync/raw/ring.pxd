"""A ring of pointers that threads put into and take from: what queues and channels are.

Its memory is its user's, and so is the meaning of the pointers, which are neither
0 nor 1.  `lock` guards all of it, for a few instructions: nothing is allocated or freed
under it, and no Python runs.  It is held only by attached threads: see mutex_lock_inner.

              ring            parked on `items`        parked on `head`
              (what is in it) (for an item)            (for room)
    empty     0               any number               none, unless limit is 0
    between   1 .. limit-1    none                     none *
    full      limit           none                     any number

So a ring with parked threads is empty or full.  A put or a get that finds a thread parked
for what it brings serves the first of them in the same step: a put hands its item to that
thread, past the ring; a get moves the item of the first thread that waits for room into the
ring.  An attempt does so only if it is told to (`serving`), else it comes to SERVE: so the
quick attempt is short, and the detector and the profile are told of a wait before it ends.
No thread overtakes one that is parked, and none is woken for nothing.  `limit` 0 is a
rendezvous: the ring stays empty, and items go from thread to thread.

A select waits for several rings at once, so another ring may have served it while it is still
parked on this one.  Its waits are *claims*: a thread serves one by being the first that
claims it, under the bucket lock, and passes over one that has been claimed.  So a select is
served once, in the order of all waiters, and what is said above of parked threads is true of
those that are not claimed.

* where the order is the user's (FS_RING_SORTED), room is not filled but announced: the first
  thread that waits for it is woken and puts its item itself.  There is then as much room as
  there are threads woken for it, or no thread waits for it; so a thread that is woken and
  does not use the room announces it again.

State bits, all written under `lock`:

    SHUT     nothing more is put; what is in it is still taken
    AWAY     the ring has been given up: its users look elsewhere
    GETTERS  threads may be parked for an item
    PUTTERS  threads may be parked for room
    JOINERS  threads may be parked until nothing is unfinished
    SORTERS  threads may be parked until another has compared items

Why nothing is lost.  A thread that must wait sets its bit under the lock, where it has seen
that it must, releases the lock, and parks if the bit is still set.  A bit is cleared under
the lock and the bucket lock of the threads that it speaks of, by a thread that finds none
parked.  So a thread that changes the ring sees the bit, and then either finds the waiter in
the queue or makes its parking fail, upon which the waiter looks again.  A waiter that gives
up (its time has passed, a signal handler raised) leaves the queue under the bucket lock: it
has been served before that, or never will be.  Its bit stays set: the next thread that looks
finds the queue empty and clears it.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uintptr_t

from fastsync.raw.c_atomic cimport (
    fs_atomic_u32, fs_atomic_uptr, fs_u32_load_relaxed, fs_u32_store_relaxed,
    fs_uptr_load_relaxed, fs_uptr_store_relaxed,
)
from fastsync.raw.mutex cimport fs_mutex, mutex_lock_inner, mutex_unlock_inner
from fastsync.raw.parking cimport fs_place

cdef enum:
    FS_RING_SHUT = 1
    FS_RING_AWAY = 2
    FS_RING_GETTERS = 4
    FS_RING_PUTTERS = 8
    FS_RING_JOINERS = 16
    FS_RING_SORTERS = 32

# In what order items come out.
cdef enum:
    FS_RING_FIFO = 0
    FS_RING_LIFO = 1
    FS_RING_SORTED = 2  # the user's: it stores and takes the items itself

# What an attempt came to.
cdef enum:
    FS_RING_ERROR = -1      # an exception is set
    FS_RING_DONE = 0
    FS_RING_WAIT = 1        # full, or empty
    FS_RING_CLOSED = 2      # shut (and, for a get, empty)
    FS_RING_GONE = 3        # AWAY
    FS_RING_GROW = 4        # there is room, but no memory for it: see ring_grow
    FS_RING_AGAIN = 5       # a wait has ended: look again
    FS_RING_TIMEOUT = 6
    FS_RING_ROOM = 7        # of ring_admit: store it
    FS_RING_COMPARE = 8     # of a sorted one's user: its items must be compared first
    FS_RING_BUSY = 9        # likewise: another thread compares
    FS_RING_SERVE = 10      # a thread may wait for it: try again, serving

# What a parked thread is sent, besides items.
cdef enum:
    FS_RING_LOOK = 0
    FS_RING_SERVED = 1
    FS_RING_END = 2

cdef struct fs_ring:
    void** items
    size_t capacity       # of `items`: a power of two, or 0
    size_t head
    fs_atomic_uptr count  # written under the lock
    size_t limit
    int64_t unfinished    # items put less those that were reported done
    fs_atomic_u32 state
    fs_mutex lock
    uint8_t order


# One of the waits of a select, what its park token points to; that of a put has bit 0 set,
# which a pointer to an item has not.
cdef struct fs_claim:
    fs_atomic_u32* chosen  # the number of the wait that was served; 0: none
    uint32_t number
    void* item             # of a put


cdef inline size_t ring_no_limit() noexcept nogil:
    return <size_t>-1


# Where threads are parked that wait for an item, for room, or until nothing is unfinished.
cdef inline uintptr_t ring_getters(const fs_ring* r) noexcept nogil:
    return <uintptr_t>&r.items


cdef inline uintptr_t ring_putters(const fs_ring* r) noexcept nogil:
    return <uintptr_t>&r.head


cdef inline uintptr_t ring_joiners(const fs_ring* r) noexcept nogil:
    return <uintptr_t>&r.unfinished


cdef inline void ring_lock(fs_ring* r) noexcept nogil:
    mutex_lock_inner(&r.lock)


cdef inline void ring_unlock(fs_ring* r) noexcept nogil:
    mutex_unlock_inner(&r.lock)


cdef inline size_t ring_count(const fs_ring* r) noexcept nogil:
    return fs_uptr_load_relaxed(&r.count)  # relaxed: exact under the lock


cdef inline void ring_set_count(fs_ring* r, size_t count) noexcept nogil:
    fs_uptr_store_relaxed(&r.count, count)  # relaxed: the lock orders it


cdef inline uint32_t ring_state(const fs_ring* r) noexcept nogil:
    return fs_u32_load_relaxed(&r.state)  # relaxed: exact under the lock


cdef inline void ring_mark(fs_ring* r, uint32_t bits) noexcept nogil:
    fs_u32_store_relaxed(&r.state, ring_state(r) | bits)  # relaxed: the lock orders it


cdef inline void ring_unmark(fs_ring* r, uint32_t bits) noexcept nogil:
    # relaxed: the lock orders it, and the bucket lock does for a thread that is about to park
    fs_u32_store_relaxed(&r.state, ring_state(r) & ~bits)


# -- all of these with the lock held -----------------------------------------

# Hand the item to the first thread that waits for one: whether there was any.
cdef bint ring_hand_over(fs_ring* r, void* item) noexcept nogil
# There is room again, for one: serve the first thread that waits for it.
cdef void ring_made_room(fs_ring* r) noexcept nogil
# The item of the first thread that waits for room, which is served by that; NULL: none does.
cdef void* ring_take_parked(fs_ring* r) noexcept nogil
# Let up to `limit` of the threads that wait for room look again.
cdef void ring_wake_putters(fs_ring* r, size_t limit) noexcept nogil
# How many threads are parked for an item, for room, and until nothing is unfinished.
cdef void ring_waiting(
    fs_ring* r, size_t* for_items, size_t* for_room, size_t* joining,
) noexcept nogil
# Wake all that are parked there: with FS_RING_END or FS_RING_LOOK, joiners also with
# FS_RING_SERVED.
cdef void ring_wake_getters(fs_ring* r, uintptr_t token) noexcept nogil
cdef void ring_wake_all_putters(fs_ring* r, uintptr_t token) noexcept nogil
cdef void ring_wake_joiners(fs_ring* r, uintptr_t token) noexcept nogil
cdef void ring_wake_sorters(fs_ring* r) noexcept nogil
# Use the larger or smaller memory, if the items still fit; returns what is to be freed.
cdef void** ring_move(fs_ring* r, void** items, size_t capacity) noexcept nogil

# Fill in where a select parks that found nothing to take, or no room, and has marked the ring.
cdef void ring_getters_place(fs_ring* r, fs_claim* claim, fs_place* place) noexcept nogil
cdef void ring_putters_place(fs_ring* r, fs_claim* claim, fs_place* place) noexcept nogil

# These release the lock.  With FS_FIRST in `flags` the thread, which has been overtaken, parks
# ahead of the others.
# FS_RING_DONE, FS_RING_AGAIN, FS_RING_CLOSED, FS_RING_TIMEOUT or FS_RING_ERROR.
cdef int ring_await_item(fs_ring* r, int64_t deadline, int flags, void** item) noexcept nogil
cdef int ring_await_room(fs_ring* r, int64_t deadline, int flags, void* item) noexcept nogil
cdef int ring_await_done(fs_ring* r, int64_t deadline, int flags) noexcept nogil
cdef int ring_await_turn(fs_ring* r, int flags) noexcept nogil


cdef inline int ring_admit(fs_ring* r, void* item, bint serving) noexcept nogil:
    """Whether the item may be put, FS_RING_ROOM; or what else, see above."""
    cdef uint32_t state = ring_state(r)
    if state & (FS_RING_SHUT | FS_RING_AWAY | FS_RING_GETTERS):
        if state & FS_RING_AWAY:
            return FS_RING_GONE
        if state & FS_RING_SHUT:
            return FS_RING_CLOSED
        if not serving:
            return FS_RING_SERVE
        if ring_hand_over(r, item):
            r.unfinished += 1
            if r.order == FS_RING_SORTED and state & FS_RING_PUTTERS:
                ring_made_room(r)  # that was announced to us, perhaps, and not used
            return FS_RING_DONE
    if ring_count(r) >= r.limit:
        return FS_RING_WAIT
    if ring_count(r) == r.capacity:
        return FS_RING_GROW
    return FS_RING_ROOM


cdef inline void ring_store(fs_ring* r, void* item) noexcept nogil:
    """At the end; there is room."""
    cdef size_t count = ring_count(r)
    r.items[(r.head + count) & (r.capacity - 1)] = item
    ring_set_count(r, count + 1)
    r.unfinished += 1


cdef inline int ring_put(fs_ring* r, void* item, bint serving) noexcept nogil:
    cdef int outcome = ring_admit(r, item, serving)
    if outcome == FS_RING_ROOM:
        ring_store(r, item)
        return FS_RING_DONE
    return outcome


cdef inline int ring_refuse(fs_ring* r, void** item, bint serving) noexcept nogil:
    """Why there is nothing to take from an empty ring; or the item of a rendezvous."""
    cdef uint32_t state = ring_state(r)
    if state & FS_RING_AWAY:
        return FS_RING_GONE
    if r.limit == 0 and state & FS_RING_PUTTERS:
        if not serving:
            return FS_RING_SERVE
        item[0] = ring_take_parked(r)
        if item[0] != NULL:
            return FS_RING_DONE
    return FS_RING_CLOSED if state & FS_RING_SHUT else FS_RING_WAIT


cdef inline int ring_get(fs_ring* r, void** item, bint serving) noexcept nogil:
    cdef size_t count = ring_count(r)
    if count == 0:
        return ring_refuse(r, item, serving)
    if ring_state(r) & FS_RING_AWAY:
        return FS_RING_GONE  # the items have been copied, and not been dropped here yet
    if not serving and ring_state(r) & FS_RING_PUTTERS:
        return FS_RING_SERVE
    count -= 1
    if r.order == FS_RING_FIFO:
        item[0] = r.items[r.head]
        r.head = (r.head + 1) & (r.capacity - 1)
    else:
        item[0] = r.items[(r.head + count) & (r.capacity - 1)]
    ring_set_count(r, count)
    if serving and ring_state(r) & FS_RING_PUTTERS:
        ring_made_room(r)
    return FS_RING_DONE
