"""The raw reader-writer lock: one machine word.

What all raw words have in common: see words.pxd.  The word must outlive
every call on it: the last reader touches it once more while the writer that it
wakes may be running.

The lock is task-fair: a writer that waits stops new readers (not recursive
ones), and a queue is served in its order, readers that stand together
together.  Changing the way it is held (downgrade, upgrade) is atomic: no other
thread writes in between.
"""
from libc.stdint cimport int64_t, uintptr_t

from fastsync.raw.c_atomic cimport (
    fs_atomic_uptr, fs_uptr_cas_acquire, fs_uptr_cas_release, fs_uptr_cas_weak_acquire,
    fs_uptr_fetch_add_release, fs_uptr_load_relaxed,
)
from fastsync.raw.c_wait cimport FS_FOREVER
from fastsync.raw.parking cimport FS_ACQUIRED, FS_PLAIN


# -- the word ----------------------------------------------------------------
#
#   bit 0      PARKED         a thread may be parked on the word's address
#   bit 1      WRITER_PARKED  the claimant may be parked on the address plus one
#   bit 2      UPGRADABLE     one of the readers counted is the upgradable one
#   bit 3      WRITER         no readers: held for writing
#                             readers: claimed by a writer (or an upgrader) that
#                             waits for them to leave; no new ones enter, but
#                             recursive ones
#   bits 4..   how many read, the upgradable one included
#
#   WRITER UPGRADABLE readers
#     0        0        0     free
#     0        0        n     held by n readers
#     0        1        n     held by n-1 readers and the upgradable one
#     1        0        0     held by the writer
#     1        0        n     claimed, n readers still in
#     1        1        -     never: each excludes the other
#
# On the address park readers while WRITER is set, and writers and upgradable
# readers while WRITER or UPGRADABLE is; on the address plus one the claimant
# alone.  PARKED is set by a thread about to park and cleared under the bucket
# lock by the thread that finds no other left; the thread that clears WRITER or UPGRADABLE
# while it is set looks.  WRITER_PARKED is set by the claimant and cleared under
# its bucket lock; set without a claimant it means nothing.
#
# A waiter's park token is what it adds to the word when it gets the lock.

cdef enum:
    FS_RWLOCK_PARKED = 1
    FS_RWLOCK_WRITER_PARKED = 2
    FS_RWLOCK_UPGRADABLE = 4
    FS_RWLOCK_WRITER = 8
    FS_RWLOCK_READER = 16
    FS_RWLOCK_UPGRADABLE_READER = 20   # UPGRADABLE and a reader

# What a blocking read answers, besides what parking.pxd lists, when the count
# of readers is at its end; a try_ form is simply refused.
cdef enum:
    FS_RWLOCK_FULL = 2

cdef extern from "fastsync/words.h":
    ctypedef struct fs_rwlock "fastsync_0_2_rwlock":
        fs_atomic_uptr state

cdef int rwlock_read_slow(
    fs_rwlock* rw, uintptr_t want, bint recursive, int64_t deadline, int flags,
) noexcept nogil
cdef int rwlock_write_slow(fs_rwlock* rw, int64_t deadline, int flags) noexcept nogil
cdef int rwlock_upgrade_slow(fs_rwlock* rw, int64_t deadline, int flags) noexcept nogil
cdef int rwlock_unlock_write_slow(fs_rwlock* rw, bint fair) noexcept nogil
cdef int rwlock_unlock_upgradable_slow(fs_rwlock* rw, bint fair) noexcept nogil
cdef void rwlock_wake_claimant(fs_rwlock* rw) noexcept nogil
cdef void rwlock_wake_parked(fs_rwlock* rw, uintptr_t held) noexcept nogil
cdef void rwlock_reset(fs_rwlock* rw) noexcept nogil


cdef inline uintptr_t rwlock_last_entry() noexcept nogil:
    """The largest word to which a reader may be added.  One more always fits:
    it is that of an upgrader who comes back."""
    return ~<uintptr_t>0 - 2 * FS_RWLOCK_READER


cdef inline uintptr_t rwlock_readers(const fs_rwlock* rw) noexcept nogil:
    """How many read, the upgradable one included."""
    # relaxed: a snapshot that orders nothing
    return fs_uptr_load_relaxed(&rw.state) // FS_RWLOCK_READER


cdef inline uintptr_t rwlock_plain_readers(uintptr_t seen) noexcept nogil:
    """How many a word counts besides the upgradable reader."""
    return (seen // FS_RWLOCK_READER
            - (seen & FS_RWLOCK_UPGRADABLE) // FS_RWLOCK_UPGRADABLE)


cdef inline bint rwlock_is_locked(const fs_rwlock* rw) noexcept nogil:
    """Held in any way, or claimed."""
    # relaxed: a snapshot that orders nothing
    return fs_uptr_load_relaxed(&rw.state) >= FS_RWLOCK_WRITER


cdef inline bint rwlock_is_locked_exclusive(const fs_rwlock* rw) noexcept nogil:
    """Held by a writer; a writer that still waits for readers does not count."""
    # relaxed: a snapshot that orders nothing
    cdef uintptr_t seen = fs_uptr_load_relaxed(&rw.state)
    return seen & FS_RWLOCK_WRITER and seen < FS_RWLOCK_READER


# -- reading -----------------------------------------------------------------

cdef inline bint rwlock_try_read(fs_rwlock* rw) noexcept nogil:
    """Enter as a reader unless a writer holds the lock or waits for readers."""
    cdef uintptr_t seen = fs_uptr_load_relaxed(&rw.state)  # relaxed: the CAS decides
    while not seen & FS_RWLOCK_WRITER and seen <= rwlock_last_entry():
        # acquire: pairs with the release of a writer that released or downgraded
        if fs_uptr_cas_weak_acquire(&rw.state, &seen, seen + FS_RWLOCK_READER):
            return True
    return False


cdef inline bint rwlock_try_read_recursive(fs_rwlock* rw) noexcept nogil:
    """Enter beside other readers even if a writer waits for them."""
    cdef uintptr_t seen = fs_uptr_load_relaxed(&rw.state)  # relaxed: the CAS decides
    while ((not seen & FS_RWLOCK_WRITER or seen >= FS_RWLOCK_READER)
           and seen <= rwlock_last_entry()):
        # acquire: as rwlock_try_read
        if fs_uptr_cas_weak_acquire(&rw.state, &seen, seen + FS_RWLOCK_READER):
            return True
    return False


cdef inline int rwlock_read_until(fs_rwlock* rw, int64_t deadline, int flags) noexcept nogil:
    """FS_ACQUIRED, FS_TIMEOUT, FS_RWLOCK_FULL, or FS_ERROR (a signal handler raised)."""
    if rwlock_try_read(rw):
        return FS_ACQUIRED
    return rwlock_read_slow(rw, FS_RWLOCK_READER, False, deadline, flags)


cdef inline int rwlock_read_recursive_until(
    fs_rwlock* rw, int64_t deadline, int flags,
) noexcept nogil:
    """As rwlock_read_until, past a waiting writer when others read: never waits
    when the caller reads already."""
    if rwlock_try_read_recursive(rw):
        return FS_ACQUIRED
    return rwlock_read_slow(rw, FS_RWLOCK_READER, True, deadline, flags)


cdef inline int rwlock_read(fs_rwlock* rw) noexcept nogil:
    """FS_ACQUIRED, or FS_RWLOCK_FULL."""
    return rwlock_read_until(rw, FS_FOREVER, FS_PLAIN)


cdef inline int rwlock_read_recursive(fs_rwlock* rw) noexcept nogil:
    """FS_ACQUIRED, or FS_RWLOCK_FULL."""
    return rwlock_read_recursive_until(rw, FS_FOREVER, FS_PLAIN)


cdef inline int rwlock_unlock_read(fs_rwlock* rw) noexcept nogil:
    """0, or -1 when no thread reads (nothing has changed then).

    Always fair: a claimant is the next to hold the lock."""
    cdef uintptr_t seen = fs_uptr_load_relaxed(&rw.state)  # relaxed: the CAS decides
    while rwlock_plain_readers(seen) != 0:
        # release: pairs with the acquire of the next writer, who must find the
        # lock without readers
        if fs_uptr_cas_release(&rw.state, &seen, seen - FS_RWLOCK_READER):
            if seen < 2 * FS_RWLOCK_READER and seen & FS_RWLOCK_WRITER_PARKED:
                rwlock_wake_claimant(rw)
            return 0
    return -1


cdef inline int rwlock_unlock_read_fair(fs_rwlock* rw) noexcept nogil:
    """rwlock_unlock_read: it is fair already."""
    return rwlock_unlock_read(rw)


cdef inline void rwlock_bump_read(fs_rwlock* rw) noexcept nogil:
    """Give way to a writer that waits; nearly free when none does."""
    # relaxed: advisory; leaving and entering look again
    if fs_uptr_load_relaxed(&rw.state) & FS_RWLOCK_WRITER:
        rwlock_unlock_read(rw)
        rwlock_read(rw)


# -- writing -----------------------------------------------------------------

cdef inline bint rwlock_try_write(fs_rwlock* rw) noexcept nogil:
    """Take it for writing if no thread holds it, past threads that are parked."""
    cdef uintptr_t seen = 0
    # acquire: pairs with the release of the writer or of the last reader
    while not fs_uptr_cas_acquire(&rw.state, &seen, seen | FS_RWLOCK_WRITER):
        if seen >= FS_RWLOCK_UPGRADABLE:
            return False
    return True


cdef inline int rwlock_write_until(fs_rwlock* rw, int64_t deadline, int flags) noexcept nogil:
    """FS_ACQUIRED, FS_TIMEOUT, or FS_ERROR (a signal handler raised)."""
    cdef uintptr_t free = 0
    # acquire: as rwlock_try_write
    if fs_uptr_cas_acquire(&rw.state, &free, FS_RWLOCK_WRITER):
        return FS_ACQUIRED
    return rwlock_write_slow(rw, deadline, flags)


cdef inline void rwlock_write(fs_rwlock* rw) noexcept nogil:
    rwlock_write_until(rw, FS_FOREVER, FS_PLAIN)


cdef inline int rwlock_unlock_write(fs_rwlock* rw) noexcept nogil:
    """0, or -1 when no writer holds it (nothing has changed then)."""
    cdef uintptr_t held = FS_RWLOCK_WRITER
    # release: pairs with the acquire of the next reader or writer
    if fs_uptr_cas_release(&rw.state, &held, 0):
        return 0
    return rwlock_unlock_write_slow(rw, False)


cdef inline int rwlock_unlock_write_fair(fs_rwlock* rw) noexcept nogil:
    """Unlock; the first of those parked, and who reads with them, own it now."""
    cdef uintptr_t held = FS_RWLOCK_WRITER
    # release: pairs with the acquire of the next reader or writer
    if fs_uptr_cas_release(&rw.state, &held, 0):
        return 0
    return rwlock_unlock_write_slow(rw, True)


cdef inline void rwlock_bump_write(fs_rwlock* rw) noexcept nogil:
    """Give way to threads that wait; nearly free when none does."""
    # relaxed: advisory; the slow path looks again under the bucket lock
    if fs_uptr_load_relaxed(&rw.state) & FS_RWLOCK_PARKED:
        rwlock_unlock_write_slow(rw, True)
        rwlock_write(rw)


# -- upgradable reading ------------------------------------------------------

cdef inline bint rwlock_try_upgradable_read(fs_rwlock* rw) noexcept nogil:
    """Enter as the one reader that may become the writer."""
    cdef uintptr_t seen = fs_uptr_load_relaxed(&rw.state)  # relaxed: the CAS decides
    while (not seen & (FS_RWLOCK_WRITER | FS_RWLOCK_UPGRADABLE)
           and seen <= rwlock_last_entry()):
        # acquire: as rwlock_try_read
        if fs_uptr_cas_weak_acquire(&rw.state, &seen, seen + FS_RWLOCK_UPGRADABLE_READER):
            return True
    return False


cdef inline int rwlock_upgradable_read_until(
    fs_rwlock* rw, int64_t deadline, int flags,
) noexcept nogil:
    """As rwlock_read_until, beside plain readers, not beside another of its kind."""
    if rwlock_try_upgradable_read(rw):
        return FS_ACQUIRED
    return rwlock_read_slow(rw, FS_RWLOCK_UPGRADABLE_READER, False, deadline, flags)


cdef inline int rwlock_upgradable_read(fs_rwlock* rw) noexcept nogil:
    """FS_ACQUIRED, or FS_RWLOCK_FULL."""
    return rwlock_upgradable_read_until(rw, FS_FOREVER, FS_PLAIN)


cdef inline int rwlock_unlock_upgradable(fs_rwlock* rw) noexcept nogil:
    """0, or -1 when there is no upgradable reader (nothing has changed then)."""
    cdef uintptr_t seen = fs_uptr_load_relaxed(&rw.state)  # relaxed: the CAS decides
    while seen & FS_RWLOCK_UPGRADABLE and not seen & FS_RWLOCK_PARKED:
        # release: as rwlock_unlock_read
        if fs_uptr_cas_release(&rw.state, &seen, seen - FS_RWLOCK_UPGRADABLE_READER):
            return 0
    return rwlock_unlock_upgradable_slow(rw, False)


cdef inline int rwlock_unlock_upgradable_fair(fs_rwlock* rw) noexcept nogil:
    """Unlock; those parked threads that can hold it next do so now."""
    cdef uintptr_t seen = fs_uptr_load_relaxed(&rw.state)  # relaxed: the CAS decides
    while seen & FS_RWLOCK_UPGRADABLE and not seen & FS_RWLOCK_PARKED:
        # release: as rwlock_unlock_read
        if fs_uptr_cas_release(&rw.state, &seen, seen - FS_RWLOCK_UPGRADABLE_READER):
            return 0
    return rwlock_unlock_upgradable_slow(rw, True)


cdef inline void rwlock_bump_upgradable(fs_rwlock* rw) noexcept nogil:
    """Give way to threads that wait; nearly free when none does."""
    # relaxed: advisory; the slow path looks again under the bucket lock
    if fs_uptr_load_relaxed(&rw.state) & FS_RWLOCK_PARKED:
        rwlock_unlock_upgradable_slow(rw, True)
        rwlock_upgradable_read(rw)


# -- from one way of holding it to another -----------------------------------

cdef inline void rwlock_downgrade(fs_rwlock* rw) noexcept nogil:
    """From writing to reading."""
    # release: pairs with the acquire of the readers that enter beside us
    cdef uintptr_t seen = fs_uptr_fetch_add_release(
        &rw.state, <uintptr_t>(FS_RWLOCK_READER - FS_RWLOCK_WRITER))
    if seen & FS_RWLOCK_PARKED:
        rwlock_wake_parked(rw, FS_RWLOCK_READER)


cdef inline void rwlock_downgrade_to_upgradable(fs_rwlock* rw) noexcept nogil:
    """From writing to upgradable reading."""
    # release: pairs with the acquire of the readers that enter beside us
    cdef uintptr_t seen = fs_uptr_fetch_add_release(
        &rw.state, <uintptr_t>(FS_RWLOCK_UPGRADABLE_READER - FS_RWLOCK_WRITER))
    if seen & FS_RWLOCK_PARKED:
        rwlock_wake_parked(rw, FS_RWLOCK_UPGRADABLE_READER)


cdef inline void rwlock_downgrade_upgradable(fs_rwlock* rw) noexcept nogil:
    """From upgradable to plain reading."""
    # release: as every change that lets others in
    cdef uintptr_t seen = fs_uptr_fetch_add_release(
        &rw.state, <uintptr_t>0 - FS_RWLOCK_UPGRADABLE)
    if seen & FS_RWLOCK_PARKED:
        rwlock_wake_parked(rw, FS_RWLOCK_READER)


cdef inline bint rwlock_try_upgrade(fs_rwlock* rw) noexcept nogil:
    """From upgradable reading to writing, if no other thread reads."""
    cdef uintptr_t seen = FS_RWLOCK_UPGRADABLE_READER
    # acquire: pairs with the release in rwlock_unlock_read of those who read
    while not fs_uptr_cas_acquire(
            &rw.state, &seen, seen - FS_RWLOCK_UPGRADABLE_READER + FS_RWLOCK_WRITER):
        if seen >= 2 * FS_RWLOCK_READER:
            return False
    return True


cdef inline int rwlock_upgrade_until(fs_rwlock* rw, int64_t deadline, int flags) noexcept nogil:
    """Wait for the other readers to leave; no other thread writes before.

    FS_ACQUIRED; FS_TIMEOUT or FS_ERROR leave the caller the upgradable reader."""
    if rwlock_try_upgrade(rw):
        return FS_ACQUIRED
    return rwlock_upgrade_slow(rw, deadline, flags)


cdef inline void rwlock_upgrade(fs_rwlock* rw) noexcept nogil:
    rwlock_upgrade_until(rw, FS_FOREVER, FS_PLAIN)


# -- between the modules of this package; not for others ---------------------


# What a writer has while it waits keeps others out: its claim new readers, and the
# shards of a sharded lock everybody.  A signal handler of its own thread would wait
# for it in vain.  So these waits do not run handlers (FS_ASK) but answer DUE; who
# asked lets all go, runs them, and starts over.
cdef enum:
    DUE = -2
