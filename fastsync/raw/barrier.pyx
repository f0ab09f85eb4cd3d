"""Slow paths of the raw barrier: the state table stands in barrier.pxd."""
from libc.stdint cimport int64_t, uint32_t, uintptr_t

from fastsync.raw.c_wait cimport FS_FOREVER
from fastsync.raw.mutex cimport mutex_lock_inner, mutex_unlock_inner
from fastsync.raw.parking cimport (
    fork_epoch, FS_ERROR, FS_NO_FORK, FS_PARK_INTERRUPTED, FS_PARK_TIMED_OUT, FS_PARK_UNPARKED,
    FS_PARK_UNPARKED_INTERRUPTED, FS_SPIN, FS_TOKEN_NORMAL, park, unpark_all,
)


cdef int barrier_unlock(void* ctx) noexcept nogil:
    mutex_unlock_inner(&(<fs_barrier*>ctx).lock)
    return 0


cdef int barrier_enter(fs_barrier* b, int flags) noexcept nogil:
    """Take the lock when no action runs: 0, or -1 with an exception set."""
    cdef int result
    mutex_lock_inner(&b.lock)
    if b.epoch != fork_epoch():
        # The child of a fork: a thread that was on the way does not exist here.
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

    Under the lock, because a thread that parks after it belongs to another round.
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
            # All threads are here; only the action keeps us.  Not our timeout.
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
    """Break it.  While an action runs, no thread gets in before it has ended."""
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
