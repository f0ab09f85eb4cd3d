"""Raw locks: words that live in anybody's struct, usable without the GIL.

A zero-filled word is a valid, free lock.  A word must not move while anybody
waits on it.  Everything here may be called with or without an attached thread
state.  Deadlines are absolute nanoseconds of time.monotonic()'s clock,
FS_FOREVER for none; `flags` is FS_PLAIN, or FS_SIGNALS for a caller that holds
a thread state and can raise.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t

from fastsync.raw.c_atomic cimport (
    fs_atomic_u8, fs_u8_load_acquire, fs_u8_load_relaxed, fs_u8_cas_acq_rel,
    fs_u8_cas_acquire, fs_u8_cas_release,
    fs_atomic_u32, fs_u32_load_relaxed, fs_u32_store_relaxed,
    fs_atomic_u64, fs_u64_load_relaxed, fs_u64_store_relaxed, fs_u64_cas_acquire,
    fs_atomic_uptr, fs_uptr_load_relaxed, fs_uptr_store_relaxed,
)
from fastsync.raw.c_wait cimport FS_FOREVER, fs_thread_id
from fastsync.raw.parking cimport (
    FS_ACQUIRED, FS_ERROR, FS_PLAIN, FS_SIGNALS, FS_TIMEOUT, deadline_after,
)

# The words' C names carry the series of the C API, see fs_key in parking.pxd.


# -- mutex: one byte ---------------------------------------------------------
#
#   LOCKED PARKED
#     0      0     free
#     1      0     held, nobody parked
#     0      1     free, but somebody is parked: on the way to being woken, or
#                  overtaken by a thread that took the lock first
#     1      1     held, somebody may be parked: unlock must look
#
# PARKED is set by a thread about to park, and cleared only under the bucket lock
# by whoever finds that nobody is left.
#
# Bits 2 to 7, the mark, are zero unless LOCKED is set and its owner has asked for
# something else (mutex_marked).  A mark comes with LOCKED in one step and goes with
# it; only a hand-over leaves the mark of the last owner for a moment.

cdef enum:
    FS_MUTEX_LOCKED = 1
    FS_MUTEX_PARKED = 2
    FS_MUTEX_MARK = 252
    FS_MUTEX_MARK_SHIFT = 16

cdef extern from "fastsync/words.h":
    ctypedef struct fs_mutex "fastsync_0_1_mutex":
        fs_atomic_u8 state

cdef int mutex_lock_slow(fs_mutex* m, int64_t deadline, int flags) noexcept nogil
cdef int mutex_unlock_slow(fs_mutex* m, bint fair) noexcept nogil
cdef void mutex_reset(fs_mutex* m) noexcept nogil


cdef inline int mutex_marked(int flags, uint8_t mark) noexcept nogil:
    """`flags` of a lock whose owner's mark is `mark`, bits of FS_MUTEX_MARK."""
    return flags | <int>mark << FS_MUTEX_MARK_SHIFT


cdef inline uint8_t mutex_held_state(int flags) noexcept nogil:
    """The word of a mutex that was locked with `flags`."""
    return FS_MUTEX_LOCKED | <uint8_t>(flags >> FS_MUTEX_MARK_SHIFT)


cdef inline bint mutex_is_locked(const fs_mutex* m) noexcept nogil:
    # relaxed: a snapshot that orders nothing
    return fs_u8_load_relaxed(&m.state) & FS_MUTEX_LOCKED


cdef inline bint mutex_try_lock(fs_mutex* m) noexcept nogil:
    """Take it if it is free, past anybody who is parked."""
    cdef uint8_t seen = 0
    # acquire: pairs with the release in mutex_unlock and mutex_unlock_slow
    while not fs_u8_cas_acquire(&m.state, &seen, seen | FS_MUTEX_LOCKED):
        if seen & FS_MUTEX_LOCKED:
            return False
    return True


cdef inline void mutex_lock(fs_mutex* m) noexcept nogil:
    """Wait for it for as long as it takes."""
    cdef uint8_t free = 0
    # acquire: pairs with the release in mutex_unlock and mutex_unlock_slow
    if not fs_u8_cas_acquire(&m.state, &free, FS_MUTEX_LOCKED):
        mutex_lock_slow(m, FS_FOREVER, FS_PLAIN)


cdef inline int mutex_lock_until(fs_mutex* m, int64_t deadline, int flags) noexcept nogil:
    """FS_ACQUIRED, FS_TIMEOUT, or FS_ERROR (a signal handler raised)."""
    cdef uint8_t free = 0
    # acquire: pairs with the release in mutex_unlock and mutex_unlock_slow
    if fs_u8_cas_acquire(&m.state, &free, mutex_held_state(flags)):
        return FS_ACQUIRED
    return mutex_lock_slow(m, deadline, flags)


cdef inline bint mutex_try_lock_for(fs_mutex* m, int64_t ns) noexcept nogil:
    """Wait for it for `ns` nanoseconds at most."""
    return mutex_try_lock(m) or mutex_lock_until(m, deadline_after(ns), FS_PLAIN) == FS_ACQUIRED


cdef inline int mutex_unlock(fs_mutex* m) noexcept nogil:
    """0, or -1 when it was not locked (nothing has changed then)."""
    cdef uint8_t held = FS_MUTEX_LOCKED
    # release: pairs with the acquire of the next owner
    if fs_u8_cas_release(&m.state, &held, 0):
        return 0
    return mutex_unlock_slow(m, False)


cdef inline int mutex_unlock_fair(fs_mutex* m) noexcept nogil:
    """Unlock; if somebody is parked, the first of them owns it now."""
    cdef uint8_t held = FS_MUTEX_LOCKED
    # release: pairs with the acquire of the next owner
    if fs_u8_cas_release(&m.state, &held, 0):
        return 0
    return mutex_unlock_slow(m, True)


cdef inline void mutex_bump(fs_mutex* m) noexcept nogil:
    """Give way to whoever waits; nearly free when nobody does."""
    # relaxed: advisory; mutex_unlock_slow looks again under the bucket lock
    if fs_u8_load_relaxed(&m.state) & FS_MUTEX_PARKED:
        mutex_unlock_slow(m, True)
        mutex_lock(m)


cdef inline bint mutex_change_mark(fs_mutex* m, uint8_t before, uint8_t after) noexcept nogil:
    """Of a locked mutex; False, and nothing changed, when its mark is not `before`."""
    cdef uint8_t seen = fs_u8_load_relaxed(&m.state)  # relaxed: the CAS decides
    while seen & ~FS_MUTEX_PARKED == FS_MUTEX_LOCKED | before:
        # acq_rel: who gives a hold up so and who takes it over are each other's partners
        if fs_u8_cas_acq_rel(&m.state, &seen, seen & ~FS_MUTEX_MARK | after):
            return True
    return False


# For the parking of others: condition variables move waiters onto a mutex.
cdef bint mutex_mark_parked_if_locked(fs_mutex* m) noexcept nogil


# -- re-entrant mutex --------------------------------------------------------
#
# `owner` is the thread that holds `mutex`, 0 when nobody does; `count` its
# depth.  Both are written by the owner only, with `mutex` held, and may be read by
# all.  A thread that reads `owner` sees its own id only if it wrote it itself.

cdef extern from "fastsync/words.h":
    ctypedef struct fs_remutex "fastsync_0_1_remutex":
        fs_atomic_uptr owner
        fs_atomic_u32 count
        fs_mutex mutex


cdef inline bint remutex_is_mine(const fs_remutex* m) noexcept nogil:
    # relaxed: only this thread writes its own id here
    return fs_uptr_load_relaxed(&m.owner) == fs_thread_id()


cdef inline uint32_t remutex_count(const fs_remutex* m) noexcept nogil:
    # relaxed: exact for the owner, a snapshot that orders nothing for others
    return fs_u32_load_relaxed(&m.count)


cdef inline void remutex_set_count(fs_remutex* m, uint32_t count) noexcept nogil:
    fs_u32_store_relaxed(&m.count, count)  # relaxed: see remutex_count


cdef inline void remutex_own(fs_remutex* m, uint32_t count) noexcept nogil:
    """Note this thread as the owner; it has just taken m.mutex."""
    fs_uptr_store_relaxed(&m.owner, fs_thread_id())  # relaxed: see remutex_is_mine
    remutex_set_count(m, count)


cdef inline int remutex_lock_until(fs_remutex* m, int64_t deadline, int flags) noexcept nogil:
    """As mutex_lock_until; the owner's depth grows (a caller checks for overflow)."""
    cdef int result
    cdef uintptr_t me = fs_thread_id()
    if fs_uptr_load_relaxed(&m.owner) == me:  # relaxed: see remutex_is_mine
        remutex_set_count(m, remutex_count(m) + 1)
        return FS_ACQUIRED
    result = mutex_lock_until(&m.mutex, deadline, flags)
    if result == FS_ACQUIRED:
        fs_uptr_store_relaxed(&m.owner, me)  # relaxed: see remutex_is_mine
        remutex_set_count(m, 1)
    return result


cdef inline void remutex_lock(fs_remutex* m) noexcept nogil:
    remutex_lock_until(m, FS_FOREVER, FS_PLAIN)


cdef inline bint remutex_try_lock_for(fs_remutex* m, int64_t ns) noexcept nogil:
    """Wait for it for `ns` nanoseconds at most."""
    return remutex_lock_until(m, deadline_after(ns), FS_PLAIN) == FS_ACQUIRED


cdef inline bint remutex_is_locked(const fs_remutex* m) noexcept nogil:
    return mutex_is_locked(&m.mutex)


cdef inline bint remutex_try_lock(fs_remutex* m) noexcept nogil:
    if remutex_is_mine(m):
        remutex_set_count(m, remutex_count(m) + 1)
        return True
    if mutex_try_lock(&m.mutex):
        remutex_own(m, 1)
        return True
    return False


cdef inline int remutex_unlock(fs_remutex* m) noexcept nogil:
    """0, or -1 when this thread does not own it (nothing has changed then)."""
    cdef uint32_t left
    if not remutex_is_mine(m):
        return -1
    left = remutex_count(m) - 1
    remutex_set_count(m, left)
    if left == 0:
        fs_uptr_store_relaxed(&m.owner, 0)  # relaxed: see remutex_is_mine
        mutex_unlock(&m.mutex)
    return 0


cdef inline int remutex_unlock_fair(fs_remutex* m) noexcept nogil:
    """As remutex_unlock; the outermost one hands over to the first who is parked."""
    cdef uint32_t left
    if not remutex_is_mine(m):
        return -1
    left = remutex_count(m) - 1
    remutex_set_count(m, left)
    if left == 0:
        fs_uptr_store_relaxed(&m.owner, 0)  # relaxed: see remutex_is_mine
        mutex_unlock_fair(&m.mutex)
    return 0


# -- condition variable: one word --------------------------------------------
#
#   0          nobody waits
#   address    of the mutex that the waiters will take (all of them the same)
#   FS_CONDVAR_FOREIGN   the waiters will take a lock that is not one of ours
#
# Written under the bucket lock of the condvar's own address.

cdef enum:
    FS_CONDVAR_FOREIGN = 1

cdef extern from "fastsync/words.h":
    ctypedef struct fs_condvar "fastsync_0_1_condvar":
        fs_atomic_uptr mutex

# What a wait answers besides FS_ERROR (see condvar_wait).
cdef enum:
    FS_CONDVAR_TIMEOUT = 0
    FS_CONDVAR_NOTIFIED = 1
    FS_CONDVAR_BAD_MUTEX = 2

cdef int condvar_wait(fs_condvar* c, fs_mutex* m, int64_t deadline, int flags) noexcept nogil
cdef int condvar_wait_foreign(
    fs_condvar* c, int (*release)(void*) noexcept nogil, void* ctx,
    int64_t deadline, int flags,
) noexcept nogil
cdef void condvar_reset(fs_condvar* c) noexcept nogil
cdef size_t condvar_notify_some(fs_condvar* c, size_t limit) noexcept nogil


cdef inline bint condvar_wait_for(fs_condvar* c, fs_mutex* m, int64_t ns) noexcept nogil:
    """condvar_wait for `ns` nanoseconds at most: whether it was notified."""
    return condvar_wait(c, m, deadline_after(ns), FS_PLAIN) == FS_CONDVAR_NOTIFIED


cdef inline bint condvar_has_waiters(const fs_condvar* c) noexcept nogil:
    # relaxed: whoever changes what a waiter waits for holds the waiter's lock,
    # and that lock orders this load after the waiter's queueing
    return fs_uptr_load_relaxed(&c.mutex) != 0


cdef inline bint condvar_notify_one(fs_condvar* c) noexcept nogil:
    """Wake one waiter, or move it to the mutex's queue; whether there was one."""
    return condvar_has_waiters(c) and condvar_notify_some(c, 1) != 0


cdef inline size_t condvar_notify_all(fs_condvar* c) noexcept nogil:
    """Wake or move everybody; how many they were."""
    return condvar_notify_some(c, <size_t>-1) if condvar_has_waiters(c) else 0


# -- semaphore: 64 bits ------------------------------------------------------
#
#   bit 0      PARKED: somebody may be parked; a release must look
#   bits 1-63  the value: how many may still acquire
#
# A waiter sets PARKED only while the value is 0, and parks only while the word
# is exactly PARKED.  PARKED is cleared under the bucket lock by whoever finds
# that nobody is left.

cdef enum:
    FS_SEMAPHORE_PARKED = 1
    FS_SEMAPHORE_ONE = 2

cdef extern from "fastsync/words.h":
    ctypedef struct fs_semaphore "fastsync_0_1_semaphore":
        fs_atomic_u64 state

cdef int semaphore_acquire_slow(fs_semaphore* s, int64_t deadline, int flags) noexcept nogil
# 0, or -1 when the value would exceed `limit` or semaphore_max() (nothing has
# changed then).
cdef int semaphore_release(fs_semaphore* s, uint64_t n, uint64_t limit) noexcept nogil

cdef inline uint64_t semaphore_max() noexcept nogil:
    """The largest value."""
    return (<uint64_t>1 << 63) - 1


cdef inline void semaphore_init(fs_semaphore* s, uint64_t value) noexcept nogil:
    """Before anybody uses it; more than semaphore_max() is that."""
    # relaxed: not shared yet
    fs_u64_store_relaxed(&s.state, min(value, semaphore_max()) * FS_SEMAPHORE_ONE)


cdef inline uint64_t semaphore_value(const fs_semaphore* s) noexcept nogil:
    # relaxed: a snapshot that orders nothing
    return fs_u64_load_relaxed(&s.state) // FS_SEMAPHORE_ONE


cdef inline bint semaphore_try_acquire(fs_semaphore* s) noexcept nogil:
    cdef uint64_t seen = fs_u64_load_relaxed(&s.state)  # relaxed: the CAS decides
    while seen >= FS_SEMAPHORE_ONE:
        # acquire: pairs with the release in semaphore_release
        if fs_u64_cas_acquire(&s.state, &seen, seen - FS_SEMAPHORE_ONE):
            return True
    return False


# For those who must: the value becomes `value`, whatever it was; at most semaphore_max().
cdef void semaphore_set_value(fs_semaphore* s, uint64_t value) noexcept nogil


cdef inline int semaphore_acquire_until(
    fs_semaphore* s, int64_t deadline, int flags,
) noexcept nogil:
    """FS_ACQUIRED, FS_TIMEOUT, or FS_ERROR (a signal handler raised)."""
    if semaphore_try_acquire(s):
        return FS_ACQUIRED
    return semaphore_acquire_slow(s, deadline, flags)


cdef inline void semaphore_acquire(fs_semaphore* s) noexcept nogil:
    """Wait for a unit for as long as it takes."""
    semaphore_acquire_until(s, FS_FOREVER, FS_PLAIN)


cdef inline bint semaphore_try_acquire_for(fs_semaphore* s, int64_t ns) noexcept nogil:
    """Wait for a unit for `ns` nanoseconds at most."""
    return semaphore_acquire_until(s, deadline_after(ns), FS_PLAIN) == FS_ACQUIRED


# -- event: one byte ---------------------------------------------------------
#
#   0        clear, nobody parked
#   SET      set; nobody waits
#   PARKED   clear, somebody may be parked: set must look
#
# PARKED gives way to SET only under the bucket lock, so that a wait that
# begins after a clear() is never ended by a set() before it.

cdef enum:
    FS_EVENT_SET = 1
    FS_EVENT_PARKED = 2

cdef extern from "fastsync/words.h":
    ctypedef struct fs_event "fastsync_0_1_event":
        fs_atomic_u8 state

cdef void event_set_slow(fs_event* e) noexcept nogil
cdef void event_reset(fs_event* e, bint set) noexcept nogil
cdef int event_wait_slow(fs_event* e, int64_t deadline, int flags) noexcept nogil


cdef inline bint event_is_set(const fs_event* e) noexcept nogil:
    # acquire: pairs with the release in event_set
    return fs_u8_load_acquire(&e.state) == FS_EVENT_SET


cdef inline void event_set(fs_event* e) noexcept nogil:
    cdef uint8_t seen = 0
    # release: pairs with the acquire in event_is_set
    while not fs_u8_cas_release(&e.state, &seen, FS_EVENT_SET):
        if seen == FS_EVENT_PARKED:
            event_set_slow(e)
            return


cdef inline void event_clear(fs_event* e) noexcept nogil:
    cdef uint8_t seen = FS_EVENT_SET
    # acq_rel: what happened before the set() that it undoes is visible after
    # it, and what precedes it is visible to who sees the event clear and sets it
    fs_u8_cas_acq_rel(&e.state, &seen, 0)


cdef inline int event_wait_until(fs_event* e, int64_t deadline, int flags) noexcept nogil:
    """FS_ACQUIRED once set, FS_TIMEOUT, or FS_ERROR (a signal handler raised)."""
    if event_is_set(e):
        return FS_ACQUIRED
    return event_wait_slow(e, deadline, flags)


cdef inline void event_wait(fs_event* e) noexcept nogil:
    """Wait until it is set."""
    event_wait_until(e, FS_FOREVER, FS_PLAIN)


cdef inline bint event_wait_for(fs_event* e, int64_t ns) noexcept nogil:
    """Wait for `ns` nanoseconds at most: whether it was set."""
    return event_wait_until(e, deadline_after(ns), FS_PLAIN) == FS_ACQUIRED


# -- barrier -----------------------------------------------------------------
#
# `lock` guards the rest and is never held across a wait.  A round: `count`
# arrivals of `parties`; the last one sets `running`, acts, and opens (it alone
# clears `running`).  `generation` counts rounds that ended.  Waiters of a round
# are parked on the barrier's address and woken with its outcome as the token,
# so they need not look at the fields again.  Those who gave up as it ended do:
# they are `draining`, and learn from `passed` how it ended.  Who arrives while
# the barrier is running or draining is parked on the address of `running`.
# `epoch` is the fork_epoch() that all this is of: the child of a fork starts over.

cdef extern from "fastsync/words.h":
    ctypedef struct fs_barrier "fastsync_0_1_barrier":
        uint32_t parties
        uint32_t count
        uint32_t generation
        uint32_t draining
        uint32_t epoch
        bint passed
        bint running
        bint broken
        fs_mutex lock

# What barrier_arrive answers besides FS_ERROR.
cdef enum:
    FS_BARRIER_BROKEN = 0
    FS_BARRIER_PASSED = 1
    FS_BARRIER_LAST = 2  # act, then call barrier_open (after barrier_abort if that failed)

cdef int barrier_arrive(
    fs_barrier* b, int64_t deadline, int flags, uint32_t* index,
) noexcept nogil
cdef int barrier_open(fs_barrier* b) noexcept nogil
cdef void barrier_abort(fs_barrier* b) noexcept nogil
cdef int barrier_reset(fs_barrier* b, int flags) noexcept nogil
cdef void barrier_reinit(fs_barrier* b, uint32_t parties) noexcept nogil
cdef uint32_t barrier_waiting(fs_barrier* b) noexcept nogil
cdef bint barrier_is_broken(fs_barrier* b) noexcept nogil


cdef inline void barrier_init(fs_barrier* b, uint32_t parties) noexcept nogil:
    b.parties = parties
    b.count = 0
    b.generation = b.draining = 0
    b.epoch = 0  # set by the first who comes
    b.passed = False
    b.running = b.broken = False


cdef inline int barrier_wait(fs_barrier* b) noexcept nogil:
    """A round without an action: FS_BARRIER_LAST for one of the threads,
    FS_BARRIER_PASSED for the others, FS_BARRIER_BROKEN after barrier_abort."""
    cdef uint32_t index
    cdef int result = barrier_arrive(b, FS_FOREVER, FS_PLAIN, &index)
    if result == FS_BARRIER_LAST and barrier_open(b) != 0:
        return FS_BARRIER_BROKEN
    return result
