"""Slow paths of the raw condvar: the state table stands in condvar.pxd."""
from libc.stdint cimport int64_t, uint64_t, uint8_t, uintptr_t

from fastsync.raw.c_atomic cimport (
    fs_u8_cas_relaxed, fs_u8_load_relaxed, fs_uptr_load_relaxed, fs_uptr_store_relaxed,
)
from fastsync.raw.c_wait cimport FS_FOREVER
from fastsync.raw.mutex cimport (
    fs_mutex, FS_MUTEX_PARKED, mutex_held_state, mutex_lock_until, mutex_mark_parked_if_locked,
    mutex_set_mark, mutex_unlock, mutex_wait_ended,
)
from fastsync.raw.parking cimport (
    FS_ERROR, FS_NO_FORK, FS_PARK_INTERRUPTED, FS_PARK_INVALID, FS_PARK_TIMED_OUT,
    FS_PARK_UNPARKED_INTERRUPTED, FS_REQUEUE_ABORT, FS_REQUEUE_ALL, FS_REQUEUE_UNPARK_ONE_REST,
    FS_SIGNALS, FS_SPIN, FS_STOP, FS_TOKEN_HANDOFF, FS_TOKEN_NORMAL, FS_UNPARK, fs_unpark_result,
    park, unpark_filter, unpark_requeue,
)


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
    """Clear the word when no thread waits: a fork's child inherits it without the waiters."""
    cdef limited_call call
    call.condvar = c
    call.left = 0
    unpark_filter(<uintptr_t>c, limited_filter, condvar_counted, &call)
    return fs_uptr_load_relaxed(&c.mutex) == 0  # relaxed: a hint; condvar_enter decides


cdef void condvar_reset(fs_condvar* c) noexcept nogil:
    """No thread is to wait any more; one that still does is woken."""
    cdef limited_call call
    call.condvar = c
    call.left = <uint64_t>-1
    unpark_filter(<uintptr_t>c, limited_filter, condvar_counted, &call)


cdef int condvar_wait(fs_condvar* c, fs_mutex* m, int64_t deadline, int flags) noexcept nogil:
    """Let `m` go and wait; whatever the answer, `m` is held again.

    FS_CONDVAR_NOTIFIED, FS_CONDVAR_TIMEOUT, FS_ERROR (a signal handler raised),
    or FS_CONDVAR_BAD_MUTEX when the present waiters use another mutex: then
    `m` was never unlocked.
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
        # Held, most likely by us: no thread needs to wake before it is free.
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
