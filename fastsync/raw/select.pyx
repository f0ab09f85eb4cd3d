"""Waiting for one of several: select.pxd has the states and the argument."""
from libc.stdint cimport int64_t, uint32_t

from fastsync.raw.c_atomic cimport fs_atomic_u32, fs_u32_load_relaxed, fs_u32_store_relaxed
from fastsync.raw.parking cimport (
    FS_PARK_SIGNALLED, FS_PARK_TIMED_OUT, FS_SPIN, FS_TOKEN_HANDOFF, fs_place, park_on_any,
)
from fastsync.raw.ring cimport *
from fastsync.raw.semaphore cimport (
    semaphore_max, semaphore_release, semaphore_try_acquire, semaphore_wake,
)


cdef int select_park(
    fs_case* cases, fs_place* places, size_t n, int64_t deadline, int flags, size_t* done,
) noexcept nogil:
    cdef fs_atomic_u32 chosen
    cdef uint32_t number
    cdef int result
    cdef size_t i
    fs_u32_store_relaxed(&chosen, 0)  # relaxed: published by the bucket locks
    for i in range(n):
        cases[i].claim.chosen = &chosen
        cases[i].claim.number = <uint32_t>i + 1
        cases[i].claim.item = cases[i].item
        if cases[i].kind == FS_CASE_GET:
            ring_getters_place(cases[i].ring, &cases[i].claim, &places[i])
        elif cases[i].kind == FS_CASE_PUT:
            ring_putters_place(cases[i].ring, &cases[i].claim, &places[i])
    result = park_on_any(places, n, deadline, flags | FS_SPIN)
    number = fs_u32_load_relaxed(&chosen)  # relaxed: see claimed()
    if number == 0:
        number = first_that_needs_no_claim(cases, places, n)
    pass_on(cases, places, n, number)
    if number != 0:
        done[0] = number - 1
        if cases[number - 1].kind == FS_CASE_GET:
            # Its put is ordered before this get by the wake-up.
            cases[number - 1].item = <void*>places[number - 1].token
        return FS_SELECT_DONE
    if result == FS_PARK_TIMED_OUT:
        return FS_SELECT_TIMEOUT
    return FS_SELECT_SIGNALS if result == FS_PARK_SIGNALLED else FS_SELECT_AGAIN


cdef uint32_t first_that_needs_no_claim(
    fs_case* cases, const fs_place* places, size_t n,
) noexcept nogil:
    """The number of a case whose event was set, or whose semaphore gives a unit; or 0."""
    cdef size_t i
    for i in range(n):
        if not places[i].woken:
            continue
        if cases[i].kind == FS_CASE_EVENT:
            if places[i].token == FS_TOKEN_HANDOFF:
                return <uint32_t>i + 1  # even if it has been cleared since
        elif cases[i].kind == FS_CASE_SEMAPHORE:
            if places[i].token == FS_TOKEN_HANDOFF or semaphore_try_acquire(cases[i].semaphore):
                return <uint32_t>i + 1
    return 0


cdef void pass_on(
    fs_case* cases, const fs_place* places, size_t n, uint32_t number,
) noexcept nogil:
    """What the select was woken for, and has no use of, is another waiter's."""
    cdef size_t i
    for i in range(n):
        if not places[i].woken or number == i + 1:
            continue
        if cases[i].kind == FS_CASE_SEMAPHORE:
            if places[i].token == FS_TOKEN_HANDOFF:
                semaphore_release(cases[i].semaphore, 1, semaphore_max())
            else:
                semaphore_wake(cases[i].semaphore, 1)
        elif cases[i].kind == FS_CASE_PUT:
            ring_lock(cases[i].ring)
            if ring_count(cases[i].ring) < cases[i].ring.limit:
                ring_wake_putters(cases[i].ring, 1)
            ring_unlock(cases[i].ring)
