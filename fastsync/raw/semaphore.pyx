"""Slow paths of the raw semaphore: the state table stands in semaphore.pxd."""
from libc.stdint cimport int64_t, uint64_t, uintptr_t

from fastsync.raw.c_atomic cimport (
    fs_pause, fs_u64_cas_acquire, fs_u64_cas_relaxed, fs_u64_cas_release, fs_u64_fetch_and_relaxed,
    fs_u64_load_relaxed,
)
from fastsync.raw.c_python cimport PyThreadState, fs_attach, fs_detach, fs_may_spin
from fastsync.raw.c_wait cimport fs_ticks
from fastsync.raw.condvar cimport limited_call, limited_filter
from fastsync.raw.parking cimport (
    FS_ACQUIRED, FS_ERROR, FS_FIRST, FS_PARK_INTERRUPTED, FS_PARK_TIMED_OUT, FS_PARK_UNPARKED,
    FS_SPIN, FS_TIMEOUT, FS_TOKEN_HANDOFF, FS_TOKEN_NORMAL, fs_place, fs_unpark_result, is_past, park_since,
    unpark_filter,
)


# How long a thread that waits for a permit looks for it before it parks:
# WAIT_ROUNDS looks, WAIT_PAUSES pause instructions apart, some 30 us.  For a Semaphore
# that is used as a lock: without them two threads get half as far.  It is detached
# meanwhile: a collection need not wait for it.  The rest of the polling is done after
# queueing (FS_SPIN).  A mutex has spin_round().
cdef enum:
    WAIT_ROUNDS = 10
    WAIT_PAUSES = 100


# -- semaphore ---------------------------------------------------------------

cdef bint semaphore_still_empty(void* ctx) noexcept nogil:
    # relaxed: the bucket lock orders it against every clearing of PARKED
    return fs_u64_load_relaxed(&(<fs_semaphore*>ctx).state) == FS_SEMAPHORE_PARKED


cdef void semaphore_clear_parked(fs_semaphore* s) noexcept nogil:
    # relaxed: the bit only says whether to look under the bucket lock
    fs_u64_fetch_and_relaxed(&s.state, ~<uint64_t>FS_SEMAPHORE_PARKED)


cdef void semaphore_wait_ended(void* ctx, uintptr_t key, bint was_last) noexcept nogil:
    if was_last:
        semaphore_clear_parked(<fs_semaphore*>ctx)


cdef bint semaphore_spin(fs_semaphore* s, int64_t deadline) noexcept nogil:
    """Look for a while whether there is a permit; whether one is ours now."""
    cdef PyThreadState* state = fs_detach()
    cdef bint taken = False
    cdef int rounds = 0
    cdef int i
    # relaxed: the CAS in semaphore_try_acquire decides
    while (not taken and rounds < WAIT_ROUNDS and not is_past(deadline)
            and fs_u64_load_relaxed(&s.state) != FS_SEMAPHORE_PARKED):
        rounds += 1
        for i in range(WAIT_PAUSES):
            fs_pause()
        taken = semaphore_try_acquire(s)
    fs_attach(state)
    return taken


cdef int semaphore_acquire_slow(fs_semaphore* s, int64_t deadline, int flags) noexcept nogil:
    cdef bint spin = fs_may_spin()
    cdef int result
    cdef uintptr_t token
    cdef uint64_t seen
    cdef int64_t since = fs_ticks()
    while True:
        if semaphore_try_acquire(s):
            return FS_ACQUIRED
        if is_past(deadline):
            return FS_TIMEOUT
        seen = fs_u64_load_relaxed(&s.state)  # relaxed: the CAS decides
        if seen >= FS_SEMAPHORE_ONE:
            continue
        if not seen & FS_SEMAPHORE_PARKED:
            if spin:
                spin = False
                if semaphore_spin(s, deadline):
                    return FS_ACQUIRED
                continue
            # relaxed: announces us; park() validates under the bucket lock
            if not fs_u64_cas_relaxed(&s.state, &seen, seen | FS_SEMAPHORE_PARKED):
                continue
        result = park_since(<uintptr_t>s, semaphore_still_empty, NULL, semaphore_wait_ended,
                            s, 0, deadline, flags | FS_SPIN, &token, since)
        if result == FS_PARK_UNPARKED:
            if token == FS_TOKEN_HANDOFF:
                return FS_ACQUIRED
            flags |= FS_FIRST  # should it park again, it was overtaken
        elif result == FS_PARK_TIMED_OUT:
            return FS_TIMEOUT
        elif result == FS_PARK_INTERRUPTED:
            return FS_ERROR
        spin = fs_may_spin()


cdef bint semaphore_acquired_or_place(fs_semaphore* s, fs_place* place) noexcept nogil:
    cdef uint64_t seen = fs_u64_load_relaxed(&s.state)  # relaxed: the CAS decides
    # relaxed: announces us; park_on_any() validates under the bucket lock
    while seen & FS_SEMAPHORE_PARKED == 0 or seen >= FS_SEMAPHORE_ONE:
        if seen >= FS_SEMAPHORE_ONE:
            if semaphore_try_acquire(s):
                return True
            seen = fs_u64_load_relaxed(&s.state)  # relaxed: as above
        elif fs_u64_cas_relaxed(&s.state, &seen, seen | FS_SEMAPHORE_PARKED):
            break
    place.key = <uintptr_t>s
    place.validate = semaphore_still_empty
    place.timed_out = semaphore_wait_ended
    place.ctx = s
    place.park_token = 0
    return False


cdef struct release_call:
    limited_call base
    fs_semaphore* semaphore


cdef uintptr_t semaphore_released(void* ctx, fs_unpark_result* result) noexcept nogil:
    cdef fs_semaphore* s = (<release_call*>ctx).semaphore
    cdef uint64_t taken = <uint64_t>result.unparked * FS_SEMAPHORE_ONE
    cdef uint64_t seen
    if not result.have_more:
        semaphore_clear_parked(s)
    if result.be_fair:
        # Acquire for the threads that we wake, before another one passes them again.
        seen = fs_u64_load_relaxed(&s.state)  # relaxed: the CAS decides
        while seen >= taken:
            # acquire: pairs with the release in semaphore_release; the wake-up
            # carries it to the new owners
            if fs_u64_cas_acquire(&s.state, &seen, seen - taken):
                return FS_TOKEN_HANDOFF
    return FS_TOKEN_NORMAL


cdef void semaphore_wake(fs_semaphore* s, uint64_t n) noexcept nogil:
    """Wake up to `n` waiters to try again."""
    cdef release_call call
    call.base.left = n
    call.semaphore = s
    unpark_filter(<uintptr_t>s, limited_filter, semaphore_released, &call)


cdef int semaphore_release(fs_semaphore* s, uint64_t n, uint64_t limit) noexcept nogil:
    cdef uint64_t value
    cdef uint64_t seen = fs_u64_load_relaxed(&s.state)  # relaxed: the CAS decides
    limit = min(limit, semaphore_max())
    while True:
        value = seen // FS_SEMAPHORE_ONE
        if n > limit or value > limit - n:
            return -1
        # release: pairs with the acquire in semaphore_try_acquire
        if fs_u64_cas_release(&s.state, &seen, seen + n * FS_SEMAPHORE_ONE):
            break
    if seen & FS_SEMAPHORE_PARKED:
        semaphore_wake(s, n)
    return 0


cdef void semaphore_set_value(fs_semaphore* s, uint64_t value) noexcept nogil:
    cdef uint64_t seen = fs_u64_load_relaxed(&s.state)  # relaxed: the CAS decides
    value = min(value, semaphore_max())
    # release: as semaphore_release
    while not fs_u64_cas_release(&s.state, &seen, value * FS_SEMAPHORE_ONE
                                 + (seen & FS_SEMAPHORE_PARKED)):
        pass
    if seen & FS_SEMAPHORE_PARKED and value != 0:
        semaphore_wake(s, value)
