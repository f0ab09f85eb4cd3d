"""Slow paths of the raw locks in locks.pxd: the state tables stand there."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t

from fastsync.raw.c_atomic cimport (
    fs_pause, fs_u8_cas_acquire, fs_u8_cas_relaxed, fs_u8_fetch_and_relaxed,
    fs_u8_load_relaxed, fs_u8_store_release, fs_u64_cas_acquire,
    fs_u64_cas_relaxed, fs_u64_cas_release, fs_u64_fetch_and_relaxed,
    fs_u64_load_relaxed, fs_uptr_load_relaxed, fs_uptr_store_relaxed,
)
from fastsync.raw.c_wait cimport FS_FOREVER, fs_now
from fastsync.raw.c_python cimport PyThreadState, fs_attach, fs_detach, fs_may_spin
from fastsync.raw.parking cimport (
    FS_ACQUIRED, FS_ERROR, FS_FIRST, FS_KEEP_PLACE, FS_NO_FORK, FS_PARK_INTERRUPTED, FS_PARK_INVALID,
    FS_PARK_TIMED_OUT, FS_PARK_UNPARKED, FS_PARK_UNPARKED_INTERRUPTED,
    FS_PLAIN, FS_REQUEUE_ABORT, FS_REQUEUE_ALL, FS_REQUEUE_UNPARK_ONE_REST,
    FS_SPIN, FS_STOP, FS_TIMEOUT, FS_TOKEN_HANDOFF, FS_TOKEN_NORMAL, FS_UNPARK,
    fs_unpark_result, fork_epoch, is_past, park, spin_end, spin_round, unpark_all, unpark_filter,
    unpark_one, unpark_requeue,
)


# How long a thread that waits for a permit looks for it before it parks:
# WAIT_ROUNDS looks, WAIT_PAUSES pause instructions apart.  For a Semaphore that is
# used as a lock: without them two threads get half as far.  The rest of the
# polling is done detached, after queueing (FS_SPIN).  A mutex has spin_round().
cdef enum:
    WAIT_ROUNDS = 10
    WAIT_PAUSES = 100


# -- mutex -------------------------------------------------------------------

cdef bint mutex_still_held(void* ctx) noexcept nogil:
    # relaxed: the bucket lock orders it against every clearing of PARKED
    return (fs_u8_load_relaxed(&(<fs_mutex*>ctx).state) & ~FS_MUTEX_MARK
            == (FS_MUTEX_LOCKED | FS_MUTEX_PARKED))


cdef void mutex_wait_ended(void* ctx, uintptr_t key, bint was_last) noexcept nogil:
    # The last waiter leaves unserved: nobody is parked any more.
    if was_last:
        # relaxed: the bit only says whether to look under the bucket lock
        fs_u8_fetch_and_relaxed(&(<fs_mutex*>ctx).state, <uint8_t>~FS_MUTEX_PARKED)


# A flag of mutex_lock_slow besides those of park(): see mutex_lock_inner.
cdef enum:
    TAKE_ATTACHED = 1024


cdef inline void mutex_lock_inner(fs_mutex* m) noexcept nogil:
    """mutex_lock for a lock of our own: never taken while detached.

    A fork of free-threaded Python stops the others where they are attached, so
    that the child finds such a lock free."""
    if not mutex_try_lock(m):
        mutex_lock_slow(m, FS_FOREVER, TAKE_ATTACHED)


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
    cdef uint8_t seen = fs_u8_load_relaxed(&m.state)  # relaxed: the CAS decides
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
        result = park(<uintptr_t>m, mutex_still_held, NULL, mutex_wait_ended,
                      m, 0, deadline, flags, &token)
        if result == FS_PARK_UNPARKED:
            if token == FS_TOKEN_HANDOFF:
                # It never became free: the unlocker left LOCKED set for us, and
                # waking us ordered its section before ours.
                mutex_set_mark(m, held)
                return FS_ACQUIRED
            flags |= FS_FIRST  # overtaken, perhaps; our place is at the head
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


# -- condition variable ------------------------------------------------------

cdef struct wait_call:
    fs_condvar* condvar
    fs_mutex* mutex
    bint bad_mutex
    bint requeued


cdef bint condvar_enter(void* ctx) noexcept nogil:
    cdef wait_call* call = <wait_call*>ctx
    cdef uintptr_t mutex = <uintptr_t>call.mutex
    # relaxed: the word is guarded by this bucket lock
    cdef uintptr_t used = fs_uptr_load_relaxed(&call.condvar.mutex)
    if used != 0 and used != mutex:
        call.bad_mutex = True
        return False
    fs_uptr_store_relaxed(&call.condvar.mutex, mutex)  # relaxed: as above
    return True


cdef int condvar_release(void* ctx) noexcept nogil:
    mutex_unlock((<wait_call*>ctx).mutex)
    return 0


cdef void condvar_wait_ended(void* ctx, uintptr_t key, bint was_last) noexcept nogil:
    cdef wait_call* call = <wait_call*>ctx
    if key != <uintptr_t>call.condvar:
        # Notified and moved to the mutex: not a timeout, we only stop queueing.
        call.requeued = True
        mutex_wait_ended(call.mutex, key, was_last)
    elif was_last:
        fs_uptr_store_relaxed(&call.condvar.mutex, 0)  # relaxed: under the bucket lock


cdef struct limited_call:
    fs_condvar* condvar
    uint64_t left


cdef int limited_filter(void* ctx, uintptr_t park_token) noexcept nogil:
    cdef limited_call* call = <limited_call*>ctx
    if call.left == 0:
        return FS_STOP
    call.left -= 1
    return FS_UNPARK


cdef uintptr_t condvar_counted(void* ctx, fs_unpark_result* result) noexcept nogil:
    if not result.have_more:
        # relaxed: under the bucket lock
        fs_uptr_store_relaxed(&(<limited_call*>ctx).condvar.mutex, 0)
    return FS_TOKEN_NORMAL


cdef bint condvar_forget_ghosts(fs_condvar* c) noexcept nogil:
    """Clear the word when nobody waits: a fork's child inherits it without the waiters."""
    cdef limited_call call
    call.condvar = c
    call.left = 0
    unpark_filter(<uintptr_t>c, limited_filter, condvar_counted, &call)
    return fs_uptr_load_relaxed(&c.mutex) == 0  # relaxed: a hint; condvar_enter decides


cdef void condvar_reset(fs_condvar* c) noexcept nogil:
    """Nobody waits any more; who does all the same is woken."""
    cdef limited_call call
    call.condvar = c
    call.left = <uint64_t>-1
    unpark_filter(<uintptr_t>c, limited_filter, condvar_counted, &call)


cdef int condvar_wait(fs_condvar* c, fs_mutex* m, int64_t deadline, int flags) noexcept nogil:
    """Let `m` go and wait; whatever the answer, `m` is held again.

    FS_CONDVAR_NOTIFIED, FS_CONDVAR_TIMEOUT, FS_ERROR (a signal handler raised),
    or FS_CONDVAR_BAD_MUTEX when the present waiters use another mutex: then
    `m` was never let go.
    """
    cdef wait_call call
    cdef uintptr_t token = FS_TOKEN_NORMAL
    cdef int result
    call.condvar = c
    call.mutex = m
    call.bad_mutex = call.requeued = False
    result = park(<uintptr_t>c, condvar_enter, condvar_release, condvar_wait_ended,
                  &call, 0, deadline, flags | FS_SPIN | FS_NO_FORK, &token)
    if result == FS_PARK_INVALID:
        if condvar_forget_ghosts(c):
            return condvar_wait(c, m, deadline, flags)
        return FS_CONDVAR_BAD_MUTEX
    # The mutex comes back first, whatever happened, and no signal ends that.
    if token == FS_TOKEN_HANDOFF:
        mutex_set_mark(m, mutex_held_state(flags))
    else:
        mutex_lock_until(m, FS_FOREVER, flags & ~FS_SIGNALS)
    if result == FS_PARK_INTERRUPTED or result == FS_PARK_UNPARKED_INTERRUPTED:
        return FS_ERROR
    if result == FS_PARK_TIMED_OUT and not call.requeued:
        return FS_CONDVAR_TIMEOUT
    return FS_CONDVAR_NOTIFIED


cdef struct foreign_wait_call:
    wait_call base
    int (*release)(void*) noexcept nogil
    void* ctx


cdef int foreign_release(void* ctx) noexcept nogil:
    cdef foreign_wait_call* call = <foreign_wait_call*>ctx
    return call.release(call.ctx)


cdef int condvar_wait_foreign(
    fs_condvar* c, int (*release)(void*) noexcept nogil, void* ctx,
    int64_t deadline, int flags,
) noexcept nogil:
    """As condvar_wait, for a lock that only `release` knows; it is not re-taken.

    `release` runs after queueing; non-zero from it means an exception is set.
    """
    cdef foreign_wait_call call
    cdef int result
    call.base.condvar = c
    call.base.mutex = <fs_mutex*><uintptr_t>FS_CONDVAR_FOREIGN
    call.base.bad_mutex = call.base.requeued = False
    call.release = release
    call.ctx = ctx
    result = park(<uintptr_t>c, condvar_enter, foreign_release, condvar_wait_ended,
                  &call, 0, deadline, flags, NULL)
    if result == FS_PARK_INVALID:
        if condvar_forget_ghosts(c):
            return condvar_wait_foreign(c, release, ctx, deadline, flags)
        return FS_CONDVAR_BAD_MUTEX
    if result == FS_PARK_INTERRUPTED or result == FS_PARK_UNPARKED_INTERRUPTED:
        return FS_ERROR
    return FS_CONDVAR_TIMEOUT if result == FS_PARK_TIMED_OUT else FS_CONDVAR_NOTIFIED


cdef struct notify_call:
    fs_condvar* condvar
    uintptr_t mutex


cdef int condvar_choose(void* ctx) noexcept nogil:
    cdef notify_call* call = <notify_call*>ctx
    # relaxed: guarded by the condvar's bucket lock, which we hold
    cdef uintptr_t used = fs_uptr_load_relaxed(&call.condvar.mutex)
    if used != call.mutex:
        # All waiters left and others came, between our look and the locks.
        call.mutex = used
        return FS_REQUEUE_ABORT
    if mutex_mark_parked_if_locked(<fs_mutex*>used):
        # Held, most likely by us: nobody needs to wake before it is free.
        return FS_REQUEUE_ALL
    return FS_REQUEUE_UNPARK_ONE_REST


cdef uintptr_t condvar_notified(void* ctx, fs_unpark_result* result) noexcept nogil:
    cdef notify_call* call = <notify_call*>ctx
    if not result.have_more:
        fs_uptr_store_relaxed(&call.condvar.mutex, 0)  # relaxed: under the bucket lock
    if result.requeued and result.unparked:
        # The mutex was free; those we moved must be seen by its next unlock.
        mutex_mark_parked(<fs_mutex*>call.mutex)
    return FS_TOKEN_NORMAL


cdef void mutex_mark_parked(fs_mutex* m) noexcept nogil:
    cdef uint8_t seen = fs_u8_load_relaxed(&m.state)  # relaxed: the CAS decides
    while not fs_u8_cas_relaxed(&m.state, &seen, seen | FS_MUTEX_PARKED):
        pass


cdef size_t condvar_notify_some(fs_condvar* c, size_t limit) noexcept nogil:
    """Wake or move up to `limit` waiters, first come first; how many they were."""
    cdef notify_call call
    cdef limited_call foreign
    cdef size_t count
    call.condvar = c
    call.mutex = fs_uptr_load_relaxed(&c.mutex)  # relaxed: condvar_choose checks
    while call.mutex != 0:
        if call.mutex == FS_CONDVAR_FOREIGN:
            foreign.condvar = c
            foreign.left = limit
            return unpark_filter(<uintptr_t>c, limited_filter, condvar_counted, &foreign)
        count = unpark_requeue(<uintptr_t>c, call.mutex, limit, condvar_choose,
                               condvar_notified, &call)
        if count != 0:
            return count
    return 0


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


cdef int semaphore_acquire_slow(fs_semaphore* s, int64_t deadline, int flags) noexcept nogil:
    cdef int rounds = WAIT_ROUNDS if fs_may_spin() else 0
    cdef int spun = 0
    cdef int result, i
    cdef uintptr_t token
    cdef uint64_t seen
    while True:
        if semaphore_try_acquire(s):
            return FS_ACQUIRED
        if is_past(deadline):
            return FS_TIMEOUT
        seen = fs_u64_load_relaxed(&s.state)  # relaxed: the CAS decides
        if seen >= FS_SEMAPHORE_ONE:
            continue
        if not seen & FS_SEMAPHORE_PARKED:
            if spun < rounds:
                spun += 1
                for i in range(WAIT_PAUSES):
                    fs_pause()
                continue
            # relaxed: announces us; park() validates under the bucket lock
            if not fs_u64_cas_relaxed(&s.state, &seen, seen | FS_SEMAPHORE_PARKED):
                continue
        result = park(<uintptr_t>s, semaphore_still_empty, NULL, semaphore_wait_ended,
                      s, 0, deadline, flags | FS_SPIN, &token)
        if result == FS_PARK_UNPARKED:
            if token == FS_TOKEN_HANDOFF:
                return FS_ACQUIRED
        elif result == FS_PARK_TIMED_OUT:
            return FS_TIMEOUT
        elif result == FS_PARK_INTERRUPTED:
            return FS_ERROR
        spun = 0


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
        # Acquire for those we wake, before anybody passes them again.
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


# -- event -------------------------------------------------------------------

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


cdef uintptr_t event_becomes_set(void* ctx, fs_unpark_result* result) noexcept nogil:
    # release: pairs with the acquire in event_is_set
    fs_u8_store_release(&(<fs_event*>ctx).state, FS_EVENT_SET)
    return FS_TOKEN_HANDOFF


cdef void event_set_slow(fs_event* e) noexcept nogil:
    unpark_filter(<uintptr_t>e, NULL, event_becomes_set, e)


cdef void event_reset(fs_event* e, bint set) noexcept nogil:
    """Set or clear, with nobody waiting: those who are parked look again."""
    fs_u8_store_release(&e.state, FS_EVENT_SET if set else 0)  # release: as event_set
    unpark_all(<uintptr_t>e, FS_TOKEN_NORMAL)


# -- barrier -----------------------------------------------------------------

cdef int barrier_unlock(void* ctx) noexcept nogil:
    mutex_unlock_inner(&(<fs_barrier*>ctx).lock)
    return 0


cdef int barrier_enter(fs_barrier* b, int flags) noexcept nogil:
    """Take the lock when no action runs: 0, or -1 with an exception set."""
    cdef int result
    mutex_lock_inner(&b.lock)
    if b.epoch != fork_epoch():
        # The child of a fork: whoever was on the way does not exist here.
        b.epoch = fork_epoch()
        b.running = False
        b.count = b.draining = 0
    while b.running or b.draining:
        result = park(<uintptr_t>&b.running, NULL, barrier_unlock, NULL, b, 0,
                      FS_FOREVER, flags | FS_NO_FORK, NULL)
        if result == FS_PARK_INTERRUPTED or result == FS_PARK_UNPARKED_INTERRUPTED:
            return -1
        mutex_lock_inner(&b.lock)
    return 0


cdef void barrier_finish(fs_barrier* b, uintptr_t outcome, uint32_t awake) noexcept nogil:
    """End the round, under the lock: wake its waiters.

    Under the lock, because whoever is parked after it belongs to another round.
    `awake`: how many of the round were not going to sleep (who runs the action,
    or has timed out and calls this).  Those who are neither woken nor awake gave
    up in this moment, and wait for the lock.
    """
    cdef size_t known
    if b.count == 0:
        return
    known = unpark_all(<uintptr_t>b, outcome) + awake
    b.draining = b.count - <uint32_t>known if b.count > known else 0
    b.passed = outcome == FS_BARRIER_PASSED
    b.generation += 1
    b.count = 0


cdef void barrier_stop_running(fs_barrier* b) noexcept nogil:
    """Under the lock: the action has ended."""
    b.running = False
    barrier_let_in(b)


cdef void barrier_let_in(fs_barrier* b) noexcept nogil:
    """Under the lock: wake those who wait for the next round, if it may begin."""
    if not b.running and not b.draining:
        unpark_all(<uintptr_t>&b.running, FS_TOKEN_NORMAL)


cdef int barrier_arrive(
    fs_barrier* b, int64_t deadline, int flags, uint32_t* index,
) noexcept nogil:
    cdef uint32_t generation
    cdef uintptr_t outcome
    cdef bint raised
    cdef int result
    if barrier_enter(b, flags) < 0:
        return FS_ERROR
    if b.broken:
        mutex_unlock_inner(&b.lock)
        return FS_BARRIER_BROKEN
    index[0] = b.count
    b.count += 1
    if b.count == b.parties:
        b.running = True
        mutex_unlock_inner(&b.lock)
        return FS_BARRIER_LAST
    generation = b.generation
    while True:
        result = park(<uintptr_t>b, NULL, barrier_unlock, NULL, b, 0, deadline,
                      flags | FS_SPIN | FS_NO_FORK, &outcome)
        if result == FS_PARK_UNPARKED:
            return <int>outcome
        if result == FS_PARK_UNPARKED_INTERRUPTED:
            return FS_ERROR
        mutex_lock_inner(&b.lock)
        if b.generation == generation and b.running and result == FS_PARK_TIMED_OUT:
            # Everybody is here; only the action keeps us.  Not our timeout.
            deadline = FS_FOREVER
            continue
        break
    # A signal handler raised: this thread leaves, the others wait on.
    raised = result != FS_PARK_TIMED_OUT
    if b.generation != generation:
        # The round has ended between our giving up and the lock.
        result = FS_BARRIER_PASSED if b.passed else FS_BARRIER_BROKEN
        if b.draining != 0:
            b.draining -= 1
            barrier_let_in(b)
    elif raised:
        if b.count != 0:
            b.count -= 1
    else:
        b.broken = True
        barrier_finish(b, FS_BARRIER_BROKEN, 1)
        result = FS_BARRIER_BROKEN
    if raised:
        result = FS_ERROR
    mutex_unlock_inner(&b.lock)
    return result


cdef int barrier_open(fs_barrier* b) noexcept nogil:
    """Let the round through, after FS_BARRIER_LAST: 0, or -1 if aborted meanwhile."""
    cdef bint broken
    mutex_lock_inner(&b.lock)
    broken = b.broken
    if not broken:
        barrier_finish(b, FS_BARRIER_PASSED, 1)
    barrier_stop_running(b)
    mutex_unlock_inner(&b.lock)
    return -1 if broken else 0


cdef void barrier_abort(fs_barrier* b) noexcept nogil:
    """Break it.  While an action runs, nobody gets in before it has ended."""
    mutex_lock_inner(&b.lock)
    b.broken = True
    barrier_finish(b, FS_BARRIER_BROKEN, b.running)
    mutex_unlock_inner(&b.lock)


cdef int barrier_reset(fs_barrier* b, int flags) noexcept nogil:
    """Start over; who waits sees a broken barrier.  -1: a signal handler raised."""
    if barrier_enter(b, flags) < 0:
        return -1
    b.broken = False
    barrier_finish(b, FS_BARRIER_BROKEN, 0)
    barrier_let_in(b)
    mutex_unlock_inner(&b.lock)
    return 0


cdef uint32_t barrier_waiting(fs_barrier* b) noexcept nogil:
    cdef uint32_t count
    mutex_lock_inner(&b.lock)
    count = 0 if b.running and b.broken else b.count
    mutex_unlock_inner(&b.lock)
    return count


cdef bint barrier_is_broken(fs_barrier* b) noexcept nogil:
    cdef bint broken
    mutex_lock_inner(&b.lock)
    broken = b.broken
    mutex_unlock_inner(&b.lock)
    return broken


cdef void barrier_reinit(fs_barrier* b, uint32_t parties) noexcept nogil:
    """As new; who waits sees a broken barrier."""
    mutex_lock_inner(&b.lock)
    barrier_finish(b, FS_BARRIER_BROKEN, b.running)
    b.parties = parties
    b.broken = b.running  # then the round that is about to end does not pass
    mutex_unlock_inner(&b.lock)
