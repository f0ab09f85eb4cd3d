"""Waiting for a ring, and serving the waiters: ring.pxd has the states and the argument."""
from libc.stdint cimport int64_t, uint32_t, uintptr_t
from libc.string cimport memcpy

from fastsync.raw.c_wait cimport FS_FOREVER
from fastsync.raw.c_atomic cimport fs_u32_cas_relaxed
from fastsync.raw.parking cimport (
    FS_PARK_INTERRUPTED, FS_PARK_INVALID, FS_PARK_TIMED_OUT, fs_place, FS_SKIP, FS_SPIN,
    FS_STOP, FS_UNPARK, fs_unpark_result, fs_validate, park, parked_count, unpark_filter,
)

cdef inline uintptr_t sorters(fs_ring* r) noexcept nogil:
    return <uintptr_t>&r.capacity


# -- serving -------------------------------------------------------------------

cdef inline bint claimed(const fs_claim* claim) noexcept nogil:
    """Whether this is the first to serve that select."""
    cdef uint32_t none = 0
    # relaxed: the select looks at it after it has held the bucket lock, too
    return fs_u32_cas_relaxed(claim.chosen, &none, claim.number)


cdef struct hand_call:
    fs_ring* ring
    void* item
    bint given


cdef int choose_getter(void* ctx, uintptr_t park_token) noexcept nogil:
    cdef hand_call* call = <hand_call*>ctx
    if call.given:
        return FS_STOP
    if park_token != 0 and not claimed(<fs_claim*>park_token):
        return FS_SKIP
    call.given = True
    return FS_UNPARK


cdef uintptr_t hand_it(void* ctx, fs_unpark_result* result) noexcept nogil:
    cdef hand_call* call = <hand_call*>ctx
    if not result.have_more:
        ring_unmark(call.ring, FS_RING_GETTERS)
    return <uintptr_t>call.item


cdef bint ring_hand_over(fs_ring* r, void* item) noexcept nogil:
    cdef hand_call call
    call.ring = r
    call.item = item
    call.given = False
    unpark_filter(ring_getters(r), choose_getter, hand_it, &call)
    return call.given


cdef struct putter_call:
    fs_ring* ring
    size_t left    # how many more to wake
    void* item     # of the last that was woken
    uintptr_t token
    bint store


cdef int choose_putter(void* ctx, uintptr_t park_token) noexcept nogil:
    cdef putter_call* call = <putter_call*>ctx
    cdef fs_claim* claim
    if call.left == 0:
        return FS_STOP
    if park_token & 1:
        claim = <fs_claim*>(park_token - 1)
        # A select that is only to look again is not served: another ring may serve it, too.
        if call.token == FS_RING_SERVED and not claimed(claim):
            return FS_SKIP
        call.item = claim.item
    else:
        call.item = <void*>park_token
    call.left -= 1
    return FS_UNPARK


cdef uintptr_t serve_putter(void* ctx, fs_unpark_result* result) noexcept nogil:
    cdef putter_call* call = <putter_call*>ctx
    if not result.have_more:
        ring_unmark(call.ring, FS_RING_PUTTERS)
    if result.unparked and call.store:
        ring_store(call.ring, call.item)
    return call.token


cdef void* wake_putters(fs_ring* r, size_t limit, uintptr_t token, bint store) noexcept nogil:
    """The item of the last of them."""
    cdef putter_call call
    call.ring = r
    call.left = limit
    call.item = NULL
    call.token = token
    call.store = store
    unpark_filter(ring_putters(r), choose_putter, serve_putter, &call)
    return call.item


cdef void ring_made_room(fs_ring* r) noexcept nogil:
    if ring_count(r) >= r.limit:
        return  # it has been lowered meanwhile
    if r.order == FS_RING_SORTED:
        wake_putters(r, 1, FS_RING_LOOK, False)
    else:
        wake_putters(r, 1, FS_RING_SERVED, True)


cdef void* ring_take_parked(fs_ring* r) noexcept nogil:
    cdef void* item = wake_putters(r, 1, FS_RING_SERVED, False)
    if item != NULL:
        r.unfinished += 1
    return item


cdef void ring_wake_putters(fs_ring* r, size_t limit) noexcept nogil:
    if limit != 0 and ring_state(r) & FS_RING_PUTTERS:
        wake_putters(r, limit, FS_RING_LOOK, False)


cdef struct wake_call:
    fs_ring* ring
    uint32_t bit
    uintptr_t token


cdef uintptr_t wake_them(void* ctx, fs_unpark_result* result) noexcept nogil:
    cdef wake_call* call = <wake_call*>ctx
    ring_unmark(call.ring, call.bit)
    return call.token


cdef void wake_all(fs_ring* r, uintptr_t key, uint32_t bit, uintptr_t token) noexcept nogil:
    cdef wake_call call
    if ring_state(r) & bit:
        call.ring = r
        call.bit = bit
        call.token = token
        unpark_filter(key, NULL, wake_them, &call)


cdef void ring_waiting(
    fs_ring* r, size_t* for_items, size_t* for_room, size_t* joining,
) noexcept nogil:
    for_items[0] = parked_count(ring_getters(r))
    for_room[0] = parked_count(ring_putters(r))
    joining[0] = parked_count(ring_joiners(r))


cdef void ring_wake_getters(fs_ring* r, uintptr_t token) noexcept nogil:
    wake_all(r, ring_getters(r), FS_RING_GETTERS, token)


cdef void ring_wake_all_putters(fs_ring* r, uintptr_t token) noexcept nogil:
    wake_all(r, ring_putters(r), FS_RING_PUTTERS, token)


cdef void ring_wake_joiners(fs_ring* r, uintptr_t token) noexcept nogil:
    wake_all(r, ring_joiners(r), FS_RING_JOINERS, token)


cdef void ring_wake_sorters(fs_ring* r) noexcept nogil:
    wake_all(r, sorters(r), FS_RING_SORTERS, FS_RING_LOOK)


# -- waiting -------------------------------------------------------------------

cdef bint getters_wait(void* ctx) noexcept nogil:
    return ring_state(<fs_ring*>ctx) & FS_RING_GETTERS


cdef bint putters_wait(void* ctx) noexcept nogil:
    return ring_state(<fs_ring*>ctx) & FS_RING_PUTTERS


cdef bint joiners_wait(void* ctx) noexcept nogil:
    return ring_state(<fs_ring*>ctx) & FS_RING_JOINERS


cdef bint sorters_wait(void* ctx) noexcept nogil:
    return ring_state(<fs_ring*>ctx) & FS_RING_SORTERS


cdef void ring_getters_place(fs_ring* r, fs_claim* claim, fs_place* place) noexcept nogil:
    place.key = ring_getters(r)
    place.validate = getters_wait
    place.timed_out = NULL
    place.ctx = r
    place.park_token = <uintptr_t>claim


cdef void ring_putters_place(fs_ring* r, fs_claim* claim, fs_place* place) noexcept nogil:
    place.key = ring_putters(r)
    place.validate = putters_wait
    place.timed_out = NULL
    place.ctx = r
    place.park_token = <uintptr_t>claim | 1


cdef int wait_marked(
    fs_ring* r, uintptr_t key, uint32_t bit, fs_validate still_wait, uintptr_t park_token,
    int64_t deadline, int flags, uintptr_t* token,
) noexcept nogil:
    """Release the lock and park: DONE with a token, AGAIN, TIMEOUT or ERROR.

    Signal handlers run out of the queue, so that one which uses the ring itself is
    not served by what is meant for the wait that it interrupts.
    """
    cdef int result
    ring_mark(r, bit)
    ring_unlock(r)
    result = park(key, still_wait, NULL, NULL, r, park_token, deadline, flags | FS_SPIN, token)
    if result == FS_PARK_TIMED_OUT:
        return FS_RING_TIMEOUT
    if result == FS_PARK_INTERRUPTED:
        return FS_RING_ERROR
    if result == FS_PARK_INVALID or token[0] == FS_RING_LOOK:
        return FS_RING_AGAIN
    return FS_RING_DONE


cdef int ring_await_item(fs_ring* r, int64_t deadline, int flags, void** item) noexcept nogil:
    cdef uintptr_t token
    cdef int outcome = wait_marked(
        r, ring_getters(r), FS_RING_GETTERS, getters_wait, 0, deadline, flags, &token)
    if outcome == FS_RING_DONE:
        if token == FS_RING_END:
            return FS_RING_CLOSED
        # Its put is ordered before this get by the wake-up.
        item[0] = <void*>token
    return outcome


cdef int ring_await_room(fs_ring* r, int64_t deadline, int flags, void* item) noexcept nogil:
    cdef uintptr_t token
    cdef int outcome = wait_marked(
        r, ring_putters(r), FS_RING_PUTTERS, putters_wait, <uintptr_t>item, deadline, flags, &token)
    if outcome == FS_RING_DONE and token == FS_RING_END:
        return FS_RING_CLOSED
    return outcome


cdef int ring_await_done(fs_ring* r, int64_t deadline, int flags) noexcept nogil:
    cdef uintptr_t token
    return wait_marked(
        r, ring_joiners(r), FS_RING_JOINERS, joiners_wait, 0, deadline, flags, &token)


cdef int ring_await_turn(fs_ring* r, int flags) noexcept nogil:
    cdef uintptr_t token
    return wait_marked(
        r, sorters(r), FS_RING_SORTERS, sorters_wait, 0, FS_FOREVER, flags, &token)


# -- memory ----------------------------------------------------------------------

cdef void** ring_move(fs_ring* r, void** items, size_t capacity) noexcept nogil:
    cdef void** old = r.items
    cdef size_t count = ring_count(r)
    cdef size_t straight = min(count, r.capacity - r.head)
    if capacity < count:
        return items
    if count > 0:  # else there may be no memory yet, and NULL is nothing that memcpy() may be given
        memcpy(items, old + r.head, straight * sizeof(void*))
        memcpy(items + straight, old, (count - straight) * sizeof(void*))
    r.items = items
    r.capacity = capacity
    r.head = 0
    return old
