"""Slow paths of the raw reader-writer lock: the state table stands in rwlock.pxd.

Reading is one CAS each way.  A writer gets the lock in two steps: it claims it
(WRITER), which stops new readers, then waits for the present ones to leave.
So a stream of readers cannot starve it.  Waiters of all kinds share one queue,
and a thread that releases the lock wakes, in the queue's order, readers and at
most one writer or upgradable reader, and no waiter behind a writer.
"""
from libc.stdint cimport int64_t, uintptr_t

from fastsync.raw.c_atomic cimport (
    fs_pause, fs_uptr_cas_acq_rel, fs_uptr_cas_acquire, fs_uptr_cas_relaxed, fs_uptr_cas_release,
    fs_uptr_fetch_add_acquire, fs_uptr_fetch_and_relaxed, fs_uptr_load_acquire,
    fs_uptr_load_relaxed, fs_uptr_store_release,
)
from fastsync.raw.c_python cimport (
    fs_attach, fs_check_signals, fs_detach, fs_may_spin, PyThreadState,
)
from fastsync.raw.c_wait cimport fs_ticks, fs_yield
from fastsync.raw.parking cimport (
    FS_ACQUIRED, FS_ASK, FS_ERROR, FS_FIRST, FS_PARK_INTERRUPTED, FS_PARK_SIGNALLED,
    FS_PARK_TIMED_OUT, FS_PARK_UNPARKED, FS_SKIP, FS_STOP, FS_TIMEOUT,
    FS_TOKEN_HANDOFF, FS_TOKEN_NORMAL, FS_UNPARK, fs_unpark_result, is_past, park, park_since,
    runs_handlers, spin_end, unpark_all, unpark_filter, unpark_one,
)


cdef extern from *:
    """
    typedef char fs_rwlock_is_one_word[sizeof(fs_atomic_uptr) == sizeof(void *) ? 1 : -1];
    """


# How a thread that finds the lock held looks again before it parks.  The looks are closer
# together than a mutex's (whose own gave three quarters of the throughput in
# rwlock.mixed_long with one reader), because no thread uses the lock from a writer's claim
# until the writer notices that the readers have left.  After them it yields before each look.
cdef enum:
    CLOSE_LOOKS = 30
    CLOSE_PAUSES = 20
    YIELDS = 40


cdef inline bint look_round(int round, int64_t until) noexcept nogil:
    """Wait a little; False when it is time to park.  Only detached."""
    cdef int i
    if round >= CLOSE_LOOKS + YIELDS or is_past(until):
        return False
    if round >= CLOSE_LOOKS:
        fs_yield()
        return True
    for i in range(CLOSE_PAUSES):
        fs_pause()
    return True


# -- waiting -----------------------------------------------------------------

cdef struct turn_call:
    fs_rwlock* rw
    uintptr_t blockers  # bits that keep us out
    bint recursive      # not while others read


cdef inline bint is_blocked(const turn_call* call, uintptr_t seen) noexcept nogil:
    return (seen & call.blockers
            and not (call.recursive and seen >= FS_RWLOCK_READER))


cdef bint still_blocked(void* ctx) noexcept nogil:
    # relaxed: the bucket lock orders it against every clearing of PARKED
    cdef uintptr_t seen = fs_uptr_load_relaxed(&(<turn_call*>ctx).rw.state)
    return seen & FS_RWLOCK_PARKED and is_blocked(<turn_call*>ctx, seen)


cdef void turn_ended(void* ctx, uintptr_t key, bint was_last) noexcept nogil:
    # The last waiter leaves unserved: no thread is parked any more.
    if was_last:
        clear_parked((<turn_call*>ctx).rw)


cdef inline void clear_parked(fs_rwlock* rw) noexcept nogil:
    # relaxed: the bit only says whether to look under the bucket lock
    fs_uptr_fetch_and_relaxed(&rw.state, ~<uintptr_t>FS_RWLOCK_PARKED)


cdef void spin_blocked(const turn_call* call, int64_t deadline) noexcept nogil:
    """Look, detached, for a while, until the lock can be had."""
    cdef PyThreadState* state = fs_detach()
    cdef int64_t until = spin_end(deadline)
    cdef uintptr_t seen
    cdef int round = 0
    while look_round(round, until):
        round += 1
        seen = fs_uptr_load_relaxed(&call.rw.state)  # relaxed: the CAS decides
        if not is_blocked(call, seen):
            break
    fs_attach(state)


cdef inline int enter(const turn_call* call, uintptr_t want, uintptr_t* seen) noexcept nogil:
    """FS_ACQUIRED, FS_RWLOCK_FULL, or FS_TIMEOUT while blocked."""
    while not is_blocked(call, seen[0]):
        if want != FS_RWLOCK_WRITER and seen[0] > rwlock_last_entry():
            return FS_RWLOCK_FULL
        # acquire: pairs with the release of the thread that unlocked it
        if fs_uptr_cas_acquire(&call.rw.state, seen, seen[0] + want):
            return FS_ACQUIRED
    return FS_TIMEOUT


cdef int wait_turn(
    fs_rwlock* rw, uintptr_t want, bint recursive, int64_t deadline, int flags,
) noexcept nogil:
    """Add `want` to the word: a reader, an upgradable reader, or a writer's claim."""
    cdef turn_call call
    cdef bint spin = fs_may_spin()
    cdef int result
    cdef uintptr_t token
    cdef uintptr_t seen = fs_uptr_load_relaxed(&rw.state)  # relaxed: the CAS decides
    cdef int64_t since = fs_ticks()
    call.rw = rw
    call.recursive = recursive
    call.blockers = FS_RWLOCK_WRITER
    if want != FS_RWLOCK_READER:
        call.blockers |= FS_RWLOCK_UPGRADABLE
    while True:
        # Free for us: in, even past a queue.
        result = enter(&call, want, &seen)
        if result != FS_TIMEOUT or is_past(deadline):
            return result
        if spin:
            # Blocked.  Also when others are parked, as for a mutex.
            spin = False
            spin_blocked(&call, deadline)
            seen = fs_uptr_load_relaxed(&rw.state)
            continue
        if not seen & FS_RWLOCK_PARKED:
            # relaxed: announces us; park() validates under the bucket lock
            if not fs_uptr_cas_relaxed(&rw.state, &seen, seen | FS_RWLOCK_PARKED):
                continue
        result = park_since(<uintptr_t>rw, still_blocked, NULL, turn_ended, &call, want,
                            deadline, flags, &token, since)
        if result == FS_PARK_UNPARKED:
            if token == FS_TOKEN_HANDOFF:
                # The waker added `want` for us, and the wake-up orders its
                # section before ours.
                return FS_ACQUIRED
            flags |= FS_FIRST  # should it park again, it was overtaken
        elif result == FS_PARK_TIMED_OUT:
            return FS_TIMEOUT
        elif result == FS_PARK_INTERRUPTED:
            return FS_ERROR
        elif result == FS_PARK_SIGNALLED:
            return DUE
        spin = fs_may_spin()
        seen = fs_uptr_load_relaxed(&rw.state)


cdef int rwlock_read_slow(
    fs_rwlock* rw, uintptr_t want, bint recursive, int64_t deadline, int flags,
) noexcept nogil:
    return wait_turn(rw, want, recursive, deadline, flags)


cdef int rwlock_write_slow(fs_rwlock* rw, int64_t deadline, int flags) noexcept nogil:
    if is_past(deadline):
        return FS_ACQUIRED if rwlock_try_write(rw) else FS_TIMEOUT
    return write_after_readers(rw, 0, deadline, flags)


cdef int rwlock_upgrade_slow(fs_rwlock* rw, int64_t deadline, int flags) noexcept nogil:
    if is_past(deadline):
        return FS_TIMEOUT
    return write_after_readers(rw, FS_RWLOCK_UPGRADABLE_READER, deadline, flags)


cdef int write_after_readers(
    fs_rwlock* rw, uintptr_t held, int64_t deadline, int flags,
) noexcept nogil:
    """Both steps of writing, and signal handlers outside of the second.

    `held` is what the claim is made from: nothing, or the upgradable reader's part.
    """
    cdef bint asked = flags & FS_ASK
    cdef bint asks = asked or runs_handlers(flags)
    cdef int result
    while True:
        result = claim(rw, held, deadline, flags)
        if result == FS_ACQUIRED:
            result = wait_for_readers(rw, held, deadline, flags | FS_ASK if asks else flags)
        if asked or result != DUE:
            return result
        if fs_check_signals() < 0:
            return FS_ERROR


cdef int claim(fs_rwlock* rw, uintptr_t held, int64_t deadline, int flags) noexcept nogil:
    """The first step: WRITER.  An upgradable reader need not wait for that."""
    if not held:
        return wait_turn(rw, FS_RWLOCK_WRITER, False, deadline, flags)
    # acquire: as wait_for_readers, should they all have left by now
    fs_uptr_fetch_add_acquire(&rw.state, <uintptr_t>FS_RWLOCK_WRITER - held)
    return FS_ACQUIRED


# -- the claimant waits for readers ------------------------------------------

cdef bint still_readers(void* ctx) noexcept nogil:
    # relaxed: the bucket lock orders it against every clearing of WRITER_PARKED
    cdef uintptr_t seen = fs_uptr_load_relaxed(&(<fs_rwlock*>ctx).state)
    return seen >= FS_RWLOCK_READER and seen & FS_RWLOCK_WRITER_PARKED


cdef inline void clear_writer_parked(fs_rwlock* rw) noexcept nogil:
    # relaxed: the bit only says whether to look under the bucket lock
    fs_uptr_fetch_and_relaxed(&rw.state, ~<uintptr_t>FS_RWLOCK_WRITER_PARKED)


cdef void readers_wait_ended(void* ctx, uintptr_t key, bint was_last) noexcept nogil:
    clear_writer_parked(<fs_rwlock*>ctx)


cdef void spin_readers(fs_rwlock* rw, int64_t deadline) noexcept nogil:
    """Look, detached, for a while, until the readers have left."""
    cdef PyThreadState* state = fs_detach()
    cdef int64_t until = spin_end(deadline)
    cdef int round = 0
    while look_round(round, until):
        round += 1
        # relaxed: wait_for_readers loads it again
        if fs_uptr_load_relaxed(&rw.state) < FS_RWLOCK_READER:
            break
    fs_attach(state)


cdef int wait_for_readers(
    fs_rwlock* rw, uintptr_t restore, int64_t deadline, int flags,
) noexcept nogil:
    """The second step of writing, WRITER being ours.

    `restore` is what we hold again when it fails: nothing, or the upgradable
    reader's part.  DUE: that too, see there.
    """
    cdef bint spin = fs_may_spin()
    cdef int result
    # acquire, here and below: pairs with the release in rwlock_unlock_read
    cdef uintptr_t seen = fs_uptr_load_acquire(&rw.state)
    while seen >= FS_RWLOCK_READER:
        if spin:
            spin = False
            spin_readers(rw, deadline)
        # relaxed: announces us; park() validates under the bucket lock
        elif seen & FS_RWLOCK_WRITER_PARKED or fs_uptr_cas_relaxed(
                &rw.state, &seen, seen | FS_RWLOCK_WRITER_PARKED):
            result = park(<uintptr_t>rw + 1, still_readers, NULL, readers_wait_ended,
                          rw, FS_RWLOCK_WRITER, deadline, flags, NULL)
            if result == FS_PARK_TIMED_OUT:
                return FS_TIMEOUT if withdraw(rw, restore) else FS_ACQUIRED
            if result == FS_PARK_SIGNALLED:
                return DUE if withdraw(rw, restore) else FS_ACQUIRED
            # Woken or refused.  Look again: a reader that was the last before
            # another claim was given up may have woken us.
        seen = fs_uptr_load_acquire(&rw.state)
    return FS_ACQUIRED


cdef bint withdraw(fs_rwlock* rw, uintptr_t restore) noexcept nogil:
    """Give WRITER up and wake whom it kept out; False: the readers have left after
    all, WRITER is kept."""
    cdef uintptr_t seen = fs_uptr_load_acquire(&rw.state)  # acquire: as wait_for_readers
    while True:
        if seen < FS_RWLOCK_READER:
            return False
        # acq_rel: as wait_for_readers when it fails and comes round, and as an unlock
        if fs_uptr_cas_acq_rel(&rw.state, &seen, seen - FS_RWLOCK_WRITER + restore):
            break
        seen = fs_uptr_load_acquire(&rw.state)
    if seen & FS_RWLOCK_PARKED:
        rwlock_wake_parked(rw, restore)
    return True


cdef uintptr_t claimant_woken(void* ctx, fs_unpark_result* result) noexcept nogil:
    clear_writer_parked(<fs_rwlock*>ctx)
    return FS_TOKEN_NORMAL


cdef void rwlock_wake_claimant(fs_rwlock* rw) noexcept nogil:
    """The last reader has left."""
    unpark_one(<uintptr_t>rw + 1, claimant_woken, rw)


# -- waking ------------------------------------------------------------------

cdef struct wake_call:
    fs_rwlock* rw
    uintptr_t sum    # what the caller keeps, and what the woken want, in all
    uintptr_t drop   # what the caller releases: WRITER, UPGRADABLE_READER or nothing
    bint fair
    bint refused     # there was nothing to release


cdef int choose_woken(void* ctx, uintptr_t want) noexcept nogil:
    """All readers and one writer or upgradable reader, but none behind a writer."""
    cdef wake_call* call = <wake_call*>ctx
    if call.sum & FS_RWLOCK_WRITER:
        return FS_STOP
    if want != FS_RWLOCK_READER and call.sum & FS_RWLOCK_UPGRADABLE:
        return FS_SKIP
    if call.sum > rwlock_last_entry():
        return FS_SKIP
    call.sum += want
    return FS_UNPARK


cdef uintptr_t woken_while_held(void* ctx, fs_unpark_result* result) noexcept nogil:
    if not result.have_more:
        clear_parked((<wake_call*>ctx).rw)
    return FS_TOKEN_NORMAL


cdef void rwlock_wake_parked(fs_rwlock* rw, uintptr_t held) noexcept nogil:
    """Wake those who can enter beside `held`, which the caller keeps."""
    cdef wake_call call
    call.rw = rw
    call.sum = held
    unpark_filter(<uintptr_t>rw, choose_woken, woken_while_held, &call)


cdef inline bint holds(uintptr_t seen, uintptr_t part) noexcept nogil:
    if part == FS_RWLOCK_WRITER:
        return seen & FS_RWLOCK_WRITER and seen < FS_RWLOCK_READER
    return seen & FS_RWLOCK_UPGRADABLE


cdef uintptr_t woken_by_unlock(void* ctx, fs_unpark_result* result) noexcept nogil:
    cdef wake_call* call = <wake_call*>ctx
    cdef bint hand_over = result.unparked and (call.fair or result.be_fair)
    cdef uintptr_t seen = fs_uptr_load_relaxed(&call.rw.state)  # relaxed: the CAS decides
    cdef uintptr_t after
    while True:
        call.refused = not holds(seen, call.drop)
        if call.refused:
            # Two threads unlocked at once, and the other one did it.
            return woken_while_held(ctx, result)
        after = seen - call.drop
        if call.drop == FS_RWLOCK_WRITER:
            after = 0  # no reader, so no claimant on the other queue either
        if hand_over and call.sum > rwlock_last_entry() - after:
            hand_over = False  # too many readers: let each try for itself
        if hand_over:
            # Held on behalf of those we wake, readers and at most one other.
            after += call.sum
        after &= ~<uintptr_t>FS_RWLOCK_PARKED
        if result.have_more:
            after |= FS_RWLOCK_PARKED
        # release: pairs with the acquire of the thread that enters next; to those who
        # are handed the lock the wake-up carries it
        if fs_uptr_cas_release(&call.rw.state, &seen, after):
            return FS_TOKEN_HANDOFF if hand_over else FS_TOKEN_NORMAL


cdef int let_go_and_wake(fs_rwlock* rw, uintptr_t drop, bint fair) noexcept nogil:
    cdef wake_call call
    call.rw = rw
    call.sum = 0
    call.drop = drop
    call.fair = fair
    call.refused = False
    unpark_filter(<uintptr_t>rw, choose_woken, woken_by_unlock, &call)
    return -1 if call.refused else 0


cdef int rwlock_unlock_write_slow(fs_rwlock* rw, bint fair) noexcept nogil:
    """The word was not simply WRITER: a thread is parked, or it is not held."""
    cdef uintptr_t seen = fs_uptr_load_relaxed(&rw.state)  # relaxed: the CAS decides
    while holds(seen, FS_RWLOCK_WRITER):
        if seen & FS_RWLOCK_PARKED:
            return let_go_and_wake(rw, FS_RWLOCK_WRITER, fair)
        # WRITER_PARKED is left over.
        # release: as rwlock_unlock_write
        if fs_uptr_cas_release(&rw.state, &seen, 0):
            return 0
    return -1


cdef int rwlock_unlock_upgradable_slow(fs_rwlock* rw, bint fair) noexcept nogil:
    """A thread is parked, or there is no upgradable reader."""
    # relaxed: woken_by_unlock looks again
    if not holds(fs_uptr_load_relaxed(&rw.state), FS_RWLOCK_UPGRADABLE_READER):
        return -1
    return let_go_and_wake(rw, FS_RWLOCK_UPGRADABLE_READER, fair)


cdef void rwlock_reset(fs_rwlock* rw) noexcept nogil:
    """Free, whichever thread held it.  Parked threads look again."""
    fs_uptr_store_release(&rw.state, 0)  # release: as an unlock
    unpark_all(<uintptr_t>rw, FS_TOKEN_NORMAL)
    unpark_all(<uintptr_t>rw + 1, FS_TOKEN_NORMAL)
