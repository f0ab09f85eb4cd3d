# cython: language_level=3, freethreading_compatible=True, cdivision=True
"""Plain data behind raw locks, hammered by threads without a thread state.

ThreadSanitizer sees every access: what the locks do not order is a race.  Run
by tools/sanitize.py.
"""
from libc.stdint cimport uint32_t, uint64_t

from fastsync.c_wait cimport FS_FOREVER, fs_now
from fastsync.locks cimport *
from fastsync.parking cimport FS_ACQUIRED, FS_PLAIN
from fastsync.rwlock cimport *

import threading

cdef struct shared_state:
    fs_mutex mutex
    fs_remutex remutex
    fs_condvar not_empty
    fs_condvar not_full
    fs_semaphore semaphore
    fs_event event
    fs_barrier barrier
    fs_rwlock rwlock
    long guarded       # by whichever lock the storm is about
    long filled        # of the one-slot queue
    long slot
    long taken
    long board[8]      # one cell a thread, read by all after a barrier

cdef shared_state state


cdef void mutex_part(int me, int rounds) noexcept nogil:
    cdef int i
    for i in range(rounds):
        if i % 7 == 0:
            # Deadlines in the past, near and far, mixed with plain locking.
            if mutex_lock_until(&state.mutex, fs_now() + (i % 3) * 1000, FS_PLAIN) != FS_ACQUIRED:
                mutex_lock(&state.mutex)
        elif i % 5 == 0:
            if not mutex_try_lock(&state.mutex):
                mutex_lock(&state.mutex)
        else:
            mutex_lock(&state.mutex)
        state.guarded += 1
        if i % 11 == 0:
            mutex_unlock_fair(&state.mutex)
        else:
            mutex_unlock(&state.mutex)


cdef void remutex_part(int me, int rounds) noexcept nogil:
    cdef int i
    for i in range(rounds):
        remutex_lock(&state.remutex)
        remutex_lock(&state.remutex)
        state.guarded += 1
        remutex_unlock(&state.remutex)
        remutex_unlock(&state.remutex)


cdef void condvar_part(int me, int rounds) noexcept nogil:
    """Even threads put, odd ones take, through one slot."""
    cdef int i
    for i in range(rounds):
        mutex_lock(&state.mutex)
        if me % 2 == 0:
            while state.filled:
                condvar_wait(&state.not_full, &state.mutex, FS_FOREVER, FS_PLAIN)
            state.filled = 1
            state.slot = i
            condvar_notify_one(&state.not_empty)
        else:
            while not state.filled:
                # Short deadlines: timeouts race with notifications.
                condvar_wait(&state.not_empty, &state.mutex,
                             fs_now() + 20000 if i % 3 == 0 else FS_FOREVER, FS_PLAIN)
            state.filled = 0
            state.guarded += 1
            condvar_notify_all(&state.not_full)
        mutex_unlock(&state.mutex)


cdef void semaphore_part(int me, int rounds) noexcept nogil:
    cdef int i
    for i in range(rounds):
        if (i % 4 or semaphore_acquire_until(&state.semaphore, fs_now() + 5000, FS_PLAIN)
                != FS_ACQUIRED):
            semaphore_acquire_until(&state.semaphore, FS_FOREVER, FS_PLAIN)
        state.guarded += 1
        semaphore_release(&state.semaphore, 1, semaphore_max())


cdef void event_part(int me, int rounds) noexcept nogil:
    """Thread 0 publishes, the others read after the event; then a barrier, and again."""
    cdef int i
    for i in range(rounds // 10):
        if me == 0:
            state.guarded += 1
            event_set(&state.event)
        else:
            event_wait_until(&state.event, FS_FOREVER, FS_PLAIN)
            state.board[me] += state.guarded
        if barrier_wait(&state.barrier) == FS_BARRIER_LAST:
            pass
        if me == 0:
            event_clear(&state.event)
        barrier_wait(&state.barrier)


cdef void barrier_part(int me, int rounds) noexcept nogil:
    cdef int i, j
    cdef long total
    for i in range(rounds // 10):
        state.board[me] = i
        barrier_wait(&state.barrier)
        total = 0
        for j in range(<int>state.barrier.parties):
            total += state.board[j]
        if total != i * <long>state.barrier.parties:
            mutex_lock(&state.mutex)
            state.taken += 1  # a cell from another round
            mutex_unlock(&state.mutex)
        barrier_wait(&state.barrier)


cdef void rwlock_part(int me, int rounds) noexcept nogil:
    """Writers keep two numbers equal; readers, of all kinds, look; upgraders do both."""
    cdef int i
    cdef long seen
    for i in range(rounds):
        if (me + i) % 4 == 0:
            if i % 3 or rwlock_write_until(&state.rwlock, fs_now() + 5000, FS_PLAIN) != FS_ACQUIRED:
                rwlock_write(&state.rwlock)
            state.guarded += 1
            state.slot += 1
            if i % 2:
                rwlock_downgrade(&state.rwlock)
                look_at_both()
                rwlock_unlock_read(&state.rwlock)
            else:
                rwlock_unlock_write(&state.rwlock)
        elif (me + i) % 4 == 1:
            rwlock_upgradable_read(&state.rwlock)
            seen = state.guarded
            if rwlock_upgrade_until(&state.rwlock, fs_now() + 20000, FS_PLAIN) == FS_ACQUIRED:
                if state.guarded != seen:
                    state.taken += 1  # a writer slipped in
                state.guarded += 1
                state.slot += 1
                rwlock_unlock_write(&state.rwlock)
            else:
                rwlock_unlock_upgradable(&state.rwlock)
        else:
            rwlock_read(&state.rwlock)
            look_at_both()
            rwlock_unlock_read(&state.rwlock)


cdef void look_at_both() noexcept nogil:
    if state.guarded != state.slot:
        mutex_lock(&state.mutex)
        state.taken += 1
        mutex_unlock(&state.mutex)


ctypedef void (*storm_part)(int, int) noexcept nogil


def storm(str name, int threads, int rounds):
    """Run one storm; what it counted, and what it should have."""
    cdef storm_part part
    parts = {"mutex": 0, "remutex": 1, "condvar": 2, "semaphore": 3, "event": 4, "barrier": 5,
             "rwlock": 6}
    cdef int chosen = parts[name]
    if chosen == 0:
        part = mutex_part
    elif chosen == 1:
        part = remutex_part
    elif chosen == 2:
        part = condvar_part
    elif chosen == 3:
        part = semaphore_part
    elif chosen == 4:
        part = event_part
    elif chosen == 5:
        part = barrier_part
    else:
        part = rwlock_part
    state.guarded = state.filled = state.taken = state.slot = 0
    semaphore_init(&state.semaphore, 1)
    barrier_init(&state.barrier, threads)
    event_clear(&state.event)
    run_part(part, threads, rounds)
    expected = {"mutex": threads * rounds, "remutex": threads * rounds,
                "condvar": threads // 2 * rounds, "semaphore": threads * rounds,
                "event": rounds // 10, "barrier": 0, "rwlock": 0}[name]
    # Of a barrier and a rwlock: how often something was wrong.
    return (state.taken if name in ("barrier", "rwlock") else state.guarded), expected


cdef object run_part(storm_part part, int threads, int rounds):
    cdef size_t address = <size_t>part

    def body(int me):
        cdef storm_part mine = <storm_part>address
        with nogil:
            mine(me, rounds)

    workers = [threading.Thread(target=body, args=(i,), daemon=True) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(300)
        if worker.is_alive():
            raise SystemExit(f"a thread of the storm is stuck: {state.guarded}")


NAMES = ("mutex", "remutex", "condvar", "semaphore", "event", "barrier", "rwlock")
