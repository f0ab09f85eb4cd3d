"""Slow paths of the raw mutex: the state table stands in mutex.pxd."""
from libc.stdint cimport int64_t, uint8_t, uintptr_t

from fastsync.raw.c_atomic cimport (
    fs_pause, fs_u8_cas_acquire, fs_u8_cas_relaxed, fs_u8_cas_release, fs_u8_fetch_and_relaxed,
    fs_u8_load_relaxed, fs_u8_store_release,
)
from fastsync.raw.c_python cimport fs_attach, fs_detach, fs_may_spin, PyThreadState
from fastsync.raw.c_wait cimport fs_ticks
from fastsync.raw.parking cimport (
    FS_ACQUIRED, FS_ERROR, FS_FIRST, FS_PARK_INTERRUPTED, FS_PARK_TIMED_OUT, FS_PARK_UNPARKED,
    FS_TIMEOUT, FS_TOKEN_HANDOFF, FS_TOKEN_NORMAL, fs_unpark_result, is_past, park_since, spin_end,
    spin_round, unpark_all, unpark_one,
)


cdef bint mutex_still_held(void* ctx) noexcept nogil:
    # relaxed: the bucket lock orders it against every clearing of PARKED
    return (fs_u8_load_relaxed(&(<fs_mutex*>ctx).state) & ~FS_MUTEX_MARK
            == (FS_MUTEX_LOCKED | FS_MUTEX_PARKED))


cdef void mutex_wait_ended(void* ctx, uintptr_t key, bint was_last) noexcept nogil:
    # The last waiter leaves unserved: nobody is parked any more.
    if was_last:
        # relaxed: the bit only says whether to look under the bucket lock
        fs_u8_fetch_and_relaxed(&(<fs_mutex*>ctx).state, <uint8_t>~FS_MUTEX_PARKED)


cdef bint mutex_take(fs_mutex* m, uint8_t held) noexcept nogil:
    """mutex_try_lock that leaves `held`, with a mark."""
    cdef uint8_t seen = 0
    # acquire: pairs with the release in mutex_unlock and mutex_unlock_slow
    while not fs_u8_cas_acquire(&m.state, &seen, seen | held):
        if seen & FS_MUTEX_LOCKED:
            return False
    return True


cdef void mutex_set_mark(fs_mutex* m, uint8_t held) noexcept nogil:
    """Of the owner: the word gets the mark of `held`.

    Unless it is free: another thread may have released what was handed over to this one
    before it ran."""
    cdef uint8_t seen = fs_u8_load_relaxed(&m.state)  # relaxed: the CAS decides
    # relaxed: the mark says nothing of what was written under the lock
    while (seen & FS_MUTEX_LOCKED and seen & ~FS_MUTEX_PARKED != held
            and not fs_u8_cas_relaxed(&m.state, &seen, seen & FS_MUTEX_PARKED | held)):
        pass


# How often to look, attached, for a lock that is held for some instructions.  A microsecond
# between two looks lets its owner use it ten or twenty times, in its own cache.  To detach,
# yield and look again after 8 us, as mutex_spin does, would cost two threads that use one
# queue most of their time.  docs/spin-policy.md has the numbers.
cdef enum:
    INNER_LOOKS = 5
    INNER_PAUSES = 40


cdef bint mutex_spin_attached(fs_mutex* m) noexcept nogil:
    """mutex_spin for an inner lock: see mutex_lock_inner."""
    cdef int look, i
    for look in range(INNER_LOOKS):
        for i in range(INNER_PAUSES):
            fs_pause()
        if not mutex_is_locked(m) and mutex_take(m, FS_MUTEX_LOCKED):
            return True
    return False


cdef bint mutex_spin(fs_mutex* m, int64_t deadline, int flags) noexcept nogil:
    """Look for a while whether it gets free; whether it is ours now."""
    cdef PyThreadState* state = fs_detach()
    cdef bint taken = False
    cdef int64_t until = spin_end(deadline)
    cdef int round = 0
    while not taken and spin_round(round, until):
        round += 1
        # Look first: a failed CAS would take the line away from the owner.
        if not mutex_is_locked(m):
            if flags & TAKE_ATTACHED:
                break
            taken = mutex_take(m, mutex_held_state(flags))
    fs_attach(state)
    return taken


cdef int mutex_lock_slow(fs_mutex* m, int64_t deadline, int flags) noexcept nogil:
    cdef bint spin = fs_may_spin()
    cdef int result
    cdef uintptr_t token
    cdef uint8_t held = mutex_held_state(flags)
    cdef uint8_t seen
    cdef int64_t since
    if flags & TAKE_ATTACHED and mutex_spin_attached(m):
        return FS_ACQUIRED
    seen = fs_u8_load_relaxed(&m.state)  # relaxed: the CAS decides
    since = fs_ticks()
    while True:
        if not seen & FS_MUTEX_LOCKED:
            # Free: take it, even past a queue.
            # acquire: pairs with the release in unlock
            if fs_u8_cas_acquire(&m.state, &seen, seen | held):
                return FS_ACQUIRED
            continue
        if is_past(deadline):
            return FS_TIMEOUT
        if spin:
            # Held.  Also when others are parked: they are out of the way, and
            # eventual fairness sees to them.
            spin = False
            if mutex_spin(m, deadline, flags):
                return FS_ACQUIRED
            seen = fs_u8_load_relaxed(&m.state)
            continue
        if not seen & FS_MUTEX_PARKED:
            # relaxed: announces us; park() validates under the bucket lock
            if not fs_u8_cas_relaxed(&m.state, &seen, seen | FS_MUTEX_PARKED):
                continue
        result = park_since(<uintptr_t>m, mutex_still_held, NULL, mutex_wait_ended,
                            m, 0, deadline, flags, &token, since)
        if result == FS_PARK_UNPARKED:
            if token == FS_TOKEN_HANDOFF:
                # It never became free: the unlocker left LOCKED set for us, and
                # waking us ordered its section before ours.
                mutex_set_mark(m, held)
                return FS_ACQUIRED
            flags |= FS_FIRST  # should it park again, it was overtaken
        elif result == FS_PARK_TIMED_OUT:
            return FS_TIMEOUT
        elif result == FS_PARK_INTERRUPTED:
            return FS_ERROR
        spin = fs_may_spin()
        seen = fs_u8_load_relaxed(&m.state)


cdef enum:
    NEVER_HAND_OVER = -1
    HAND_OVER_WHEN_DUE = 0
    HAND_OVER = 1

cdef struct unlock_call:
    fs_mutex* mutex
    int fair         # one of the above
    bint was_locked  # answer


cdef uintptr_t mutex_unlocked(void* ctx, fs_unpark_result* result) noexcept nogil:
    cdef unlock_call* call = <unlock_call*>ctx
    cdef fs_mutex* m = call.mutex
    cdef uint8_t parked = FS_MUTEX_PARKED if result.have_more else 0
    cdef bint hand_over = result.unparked and (
        call.fair == HAND_OVER or (result.be_fair and call.fair == HAND_OVER_WHEN_DUE))
    cdef uint8_t seen = fs_u8_load_relaxed(&m.state)  # relaxed: the CAS decides
    # Not locked: somebody else released it since we looked.  Whom we wake looks again.
    call.was_locked = False
    while seen & FS_MUTEX_LOCKED:
        # release: pairs with the acquire of whoever takes it next.  Handed over,
        # LOCKED stays set on behalf of the thread we wake, and the wake-up
        # carries what we wrote; a barging try_lock sees LOCKED either way
        if fs_u8_cas_release(&m.state, &seen, (
                parked | seen & ~FS_MUTEX_PARKED if hand_over else parked)):
            call.was_locked = True
            return FS_TOKEN_HANDOFF if hand_over else FS_TOKEN_NORMAL
    return FS_TOKEN_NORMAL


cdef int mutex_unlock_slow(fs_mutex* m, bint fair) noexcept nogil:
    """The word was not simply LOCKED: marked, or a thread is parked, or it is not held."""
    cdef unlock_call call
    cdef uint8_t seen = fs_u8_load_relaxed(&m.state)  # relaxed: the CAS decides
    while not seen & FS_MUTEX_PARKED:
        if not seen & FS_MUTEX_LOCKED:
            return -1
        # Marked.  release: pairs with the acquire of the next owner
        if fs_u8_cas_release(&m.state, &seen, 0):
            return 0
    if not seen & FS_MUTEX_LOCKED:
        return -1
    call.mutex = m
    call.fair = HAND_OVER if fair else HAND_OVER_WHEN_DUE
    unpark_one(<uintptr_t>m, mutex_unlocked, &call)
    return 0 if call.was_locked else -1


cdef void mutex_unlock_inner(fs_mutex* m) noexcept nogil:
    """Unlock what guards a few instructions, and never hand it over: a thread that
    owns it before it runs again would own it during a fork."""
    cdef uint8_t held = FS_MUTEX_LOCKED
    cdef unlock_call call
    # release: pairs with the acquire of the next owner
    if not fs_u8_cas_release(&m.state, &held, 0):
        call.mutex = m
        call.fair = NEVER_HAND_OVER
        unpark_one(<uintptr_t>m, mutex_unlocked, &call)


cdef bint mutex_mark_parked_if_locked(fs_mutex* m) noexcept nogil:
    """Under the bucket lock of `m`, for somebody about to be queued there."""
    cdef uint8_t seen = fs_u8_load_relaxed(&m.state)  # relaxed: the CAS decides
    while seen & FS_MUTEX_LOCKED:
        # relaxed: the bit only says whether to look under the bucket lock
        if fs_u8_cas_relaxed(&m.state, &seen, seen | FS_MUTEX_PARKED):
            return True
    return False


cdef void mutex_reset(fs_mutex* m) noexcept nogil:
    """Free, whoever held it.  Those who are parked look again."""
    fs_u8_store_release(&m.state, 0)  # release: as an unlock
    unpark_all(<uintptr_t>m, FS_TOKEN_NORMAL)
