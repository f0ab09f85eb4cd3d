"""Slow paths of the raw event: the state table stands in event.pxd."""
from libc.stdint cimport int64_t, uint8_t, uintptr_t

from fastsync.raw.c_atomic cimport fs_u8_cas_relaxed, fs_u8_load_relaxed, fs_u8_store_release
from fastsync.raw.parking cimport (
    FS_ACQUIRED, FS_ERROR, FS_KEEP_PLACE, FS_PARK_INVALID, FS_PARK_TIMED_OUT, FS_PARK_UNPARKED,
    FS_SPIN, FS_TIMEOUT, FS_TOKEN_HANDOFF, FS_TOKEN_NORMAL, fs_place, fs_unpark_result, is_past, park,
    unpark_all, unpark_filter,
)


cdef bint event_still_clear(void* ctx) noexcept nogil:
    # relaxed: PARKED gives way to SET only under this bucket lock
    return fs_u8_load_relaxed(&(<fs_event*>ctx).state) == FS_EVENT_PARKED


cdef void event_wait_ended(void* ctx, uintptr_t key, bint was_last) noexcept nogil:
    cdef uint8_t seen = FS_EVENT_PARKED
    if was_last:
        # relaxed: the bit only says whether to look under the bucket lock
        fs_u8_cas_relaxed(&(<fs_event*>ctx).state, &seen, 0)


cdef int event_wait_slow(fs_event* e, int64_t deadline, int flags) noexcept nogil:
    cdef int result
    cdef uintptr_t token
    cdef uint8_t seen
    while True:
        if event_is_set(e):
            return FS_ACQUIRED
        if is_past(deadline):
            return FS_TIMEOUT
        seen = fs_u8_load_relaxed(&e.state)  # relaxed: the CAS decides
        if seen == 0:
            # relaxed: announces us; park() validates under the bucket lock
            fs_u8_cas_relaxed(&e.state, &seen, FS_EVENT_PARKED)
            continue
        if seen == FS_EVENT_SET:
            continue
        result = park(<uintptr_t>e, event_still_clear, NULL, event_wait_ended,
                      e, 0, deadline, flags | FS_KEEP_PLACE | FS_SPIN, &token)
        if result == FS_PARK_UNPARKED:
            if token == FS_TOKEN_NORMAL:
                continue  # event_reset()
            return FS_ACQUIRED  # even if it has been cleared since
        if result == FS_PARK_TIMED_OUT:
            return FS_TIMEOUT
        if result != FS_PARK_INVALID:
            return FS_ERROR


cdef bint event_is_set_or_place(fs_event* e, fs_place* place) noexcept nogil:
    cdef uint8_t seen = 0
    # relaxed: announces us; park_on_any() validates under the bucket lock
    if not fs_u8_cas_relaxed(&e.state, &seen, FS_EVENT_PARKED) and seen == FS_EVENT_SET:
        if event_is_set(e):
            return True
        # Cleared since: park_on_any() refuses, and the caller looks again.
    place.key = <uintptr_t>e
    place.validate = event_still_clear
    place.timed_out = event_wait_ended
    place.ctx = e
    place.park_token = 0
    return False


cdef uintptr_t event_becomes_set(void* ctx, fs_unpark_result* result) noexcept nogil:
    # release: pairs with the acquire in event_is_set
    fs_u8_store_release(&(<fs_event*>ctx).state, FS_EVENT_SET)
    return FS_TOKEN_HANDOFF


cdef void event_set_slow(fs_event* e) noexcept nogil:
    unpark_filter(<uintptr_t>e, NULL, event_becomes_set, e)


cdef void event_reset(fs_event* e, bint set) noexcept nogil:
    """Set or clear, with no thread waiting: parked threads look again."""
    fs_u8_store_release(&e.state, FS_EVENT_SET if set else 0)  # release: as event_set
    unpark_all(<uintptr_t>e, FS_TOKEN_NORMAL)
