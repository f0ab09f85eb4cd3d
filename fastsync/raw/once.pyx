"""Slow paths of the raw one-time initialization: the state table stands in once.pxd."""
from libc.stdint cimport int64_t, uint8_t, uintptr_t

from fastsync.raw.c_atomic cimport (
    fs_pause, fs_u8_cas_acquire, fs_u8_cas_relaxed, fs_u8_exchange_release,
    fs_u8_fetch_and_relaxed, fs_u8_load_acquire, fs_u8_load_relaxed,
)
from fastsync.raw.c_python cimport fs_attach, fs_detach, fs_may_spin, PyThreadState
from fastsync.raw.parking cimport (
    FS_ERROR, FS_PARK_INTERRUPTED, FS_PARK_TIMED_OUT, FS_PARK_UNPARKED_INTERRUPTED, FS_TIMEOUT,
    FS_TOKEN_NORMAL, park, unpark_all,
)

cdef extern from *:
    """
    typedef char fs_once_is_one_byte[sizeof(fs_atomic_u8) == 1 ? 1 : -1];
    """


# How long a thread that finds it running looks again before it parks, detached:
# much of what is initialized once takes less than a sleep and a wake-up do.
cdef enum:
    SPIN_ROUNDS = 20
    SPIN_PAUSES = 100


# -- waiting -----------------------------------------------------------------

cdef bint still_running(void* ctx) noexcept nogil:
    # relaxed: only the bits of a run that has not ended let us sleep, and the
    # end of the run wakes who is queued by then
    return (fs_u8_load_relaxed(&(<fs_once*>ctx).state)
            == (FS_ONCE_RUNNING | FS_ONCE_PARKED))


cdef bint still_undone(void* ctx) noexcept nogil:
    # relaxed: as still_running
    cdef uint8_t seen = fs_u8_load_relaxed(&(<fs_once*>ctx).state)
    return seen & FS_ONCE_PARKED and not seen & (FS_ONCE_DONE | FS_ONCE_POISON)


cdef void wait_ended(void* ctx, uintptr_t key, bint was_last) noexcept nogil:
    if was_last:
        # relaxed: the bit only says whether to look under the bucket lock
        fs_u8_fetch_and_relaxed(&(<fs_once*>ctx).state, <uint8_t>~FS_ONCE_PARKED)


cdef void spin_running(const fs_once* o) noexcept nogil:
    """Look, detached, until it ends or a thread has parked."""
    cdef PyThreadState* state = fs_detach()
    cdef int round, i
    for round in range(SPIN_ROUNDS):
        for i in range(SPIN_PAUSES):
            fs_pause()
        # relaxed: the caller looks again
        if fs_u8_load_relaxed(&o.state) != FS_ONCE_RUNNING:
            break
    fs_attach(state)


cdef inline bint mark_parked(fs_once* o, uint8_t* seen) noexcept nogil:
    """Set PARKED; False when the byte has changed."""
    # relaxed: announces us; park() validates under the bucket lock
    return seen[0] & FS_ONCE_PARKED or fs_u8_cas_relaxed(
        &o.state, seen, seen[0] | FS_ONCE_PARKED)


cdef inline bint gives_up(int parked) noexcept nogil:
    return (parked == FS_PARK_TIMED_OUT or parked == FS_PARK_INTERRUPTED
            or parked == FS_PARK_UNPARKED_INTERRUPTED)


cdef inline int given_up(int parked) noexcept nogil:
    # A wake-up need not be passed on: the end of a run wakes all.
    return FS_TIMEOUT if parked == FS_PARK_TIMED_OUT else FS_ERROR


cdef int once_begin(fs_once* o, bint force, int64_t deadline, int flags) noexcept nogil:
    """Become the one who runs it, or wait for who does."""
    cdef bint spin = fs_may_spin()
    cdef int result
    # acquire, here and below: pairs with the release in once_end
    cdef uint8_t seen = fs_u8_load_acquire(&o.state)
    while True:
        if seen & FS_ONCE_DONE:
            return FS_ONCE_DONE
        if seen & FS_ONCE_POISON and not force:
            return FS_ONCE_POISON
        if not seen & FS_ONCE_RUNNING:
            # Who waits for an end that never began is still parked: keep PARKED.
            # acquire: sees what a run that failed has left
            if fs_u8_cas_acquire(&o.state, &seen,
                                 (seen & FS_ONCE_PARKED) | FS_ONCE_RUNNING):
                return FS_ONCE_RUN_POISONED if seen & FS_ONCE_POISON else FS_ONCE_RUN
            seen = fs_u8_load_acquire(&o.state)
            continue
        if deadline == 0:
            return FS_TIMEOUT
        if spin and not seen & FS_ONCE_PARKED:
            spin = False
            spin_running(o)
        elif mark_parked(o, &seen):
            result = park(<uintptr_t>o, still_running, NULL, wait_ended, o, 0,
                          deadline, flags, NULL)
            if gives_up(result):
                return given_up(result)
        seen = fs_u8_load_acquire(&o.state)


cdef int once_wait_slow(fs_once* o, int64_t deadline, int flags) noexcept nogil:
    cdef int result
    # acquire, here and below: pairs with the release in once_end
    cdef uint8_t seen = fs_u8_load_acquire(&o.state)
    while not seen & (FS_ONCE_DONE | FS_ONCE_POISON):
        if deadline == 0:
            return FS_TIMEOUT
        if mark_parked(o, &seen):
            result = park(<uintptr_t>o, still_undone, NULL, wait_ended, o, 0,
                          deadline, flags, NULL)
            if gives_up(result):
                return given_up(result)
        seen = fs_u8_load_acquire(&o.state)
    return FS_ONCE_DONE if seen & FS_ONCE_DONE else FS_ONCE_POISON


cdef void once_end(fs_once* o, uint8_t outcome) noexcept nogil:
    # release: pairs with the acquire of all who see the outcome
    if fs_u8_exchange_release(&o.state, outcome) & FS_ONCE_PARKED:
        unpark_all(<uintptr_t>o, FS_TOKEN_NORMAL)


cdef bint once_retract(fs_once* o) noexcept nogil:
    cdef uint8_t done = FS_ONCE_DONE
    # acquire: sees what the run has left
    return fs_u8_cas_acquire(&o.state, &done, FS_ONCE_RUNNING)
