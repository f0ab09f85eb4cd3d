"""The raw mutex: one byte.  What all raw words have in common: see words.pxd."""
from libc.stdint cimport int64_t, uint8_t, uintptr_t

from fastsync.raw.c_atomic cimport (
    fs_atomic_u8, fs_u8_cas_acq_rel, fs_u8_cas_acquire, fs_u8_cas_release, fs_u8_load_relaxed,
)
from fastsync.raw.c_wait cimport FS_FOREVER
from fastsync.raw.parking cimport deadline_after, FS_ACQUIRED, FS_PLAIN


#   LOCKED PARKED
#     0      0     free
#     1      0     held, no thread parked
#     0      1     free, but a thread is parked: on the way to being woken, or
#                  overtaken by a thread that took the lock first
#     1      1     held, a thread may be parked: unlock must look
#
# PARKED is set by a thread about to park, and cleared only under the bucket lock
# by the thread that finds no other left.
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
    ctypedef struct fs_mutex "fastsync_0_2_mutex":
        fs_atomic_u8 state

cdef int mutex_lock_slow(fs_mutex* m, int64_t deadline, int flags) noexcept nogil
cdef int mutex_unlock_slow(fs_mutex* m, bint fair) noexcept nogil
cdef void mutex_reset(fs_mutex* m) noexcept nogil


cdef inline bint mutex_is_locked(const fs_mutex* m) noexcept nogil:
    # relaxed: a snapshot that orders nothing
    return fs_u8_load_relaxed(&m.state) & FS_MUTEX_LOCKED


cdef inline bint mutex_try_lock(fs_mutex* m) noexcept nogil:
    """Take it if it is free, past threads that are parked."""
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
    """Unlock; if threads are parked, the first of them owns it now."""
    cdef uint8_t held = FS_MUTEX_LOCKED
    # release: pairs with the acquire of the next owner
    if fs_u8_cas_release(&m.state, &held, 0):
        return 0
    return mutex_unlock_slow(m, True)


cdef inline void mutex_bump(fs_mutex* m) noexcept nogil:
    """Give way to threads that wait; nearly free when none does."""
    # relaxed: advisory; mutex_unlock_slow looks again under the bucket lock
    if fs_u8_load_relaxed(&m.state) & FS_MUTEX_PARKED:
        mutex_unlock_slow(m, True)
        mutex_lock(m)


# For the parking of others: condition variables move waiters onto a mutex.
cdef bint mutex_mark_parked_if_locked(fs_mutex* m) noexcept nogil


# -- between the modules of this package; not for others ---------------------

cdef inline int mutex_marked(int flags, uint8_t mark) noexcept nogil:
    """`flags` of a lock whose owner's mark is `mark`, bits of FS_MUTEX_MARK."""
    return flags | <int>mark << FS_MUTEX_MARK_SHIFT


cdef inline uint8_t mutex_held_state(int flags) noexcept nogil:
    """The word of a mutex that was locked with `flags`."""
    return FS_MUTEX_LOCKED | <uint8_t>(flags >> FS_MUTEX_MARK_SHIFT)


cdef inline bint mutex_change_mark(fs_mutex* m, uint8_t before, uint8_t after) noexcept nogil:
    """Of a locked mutex; False, and nothing changed, when its mark is not `before`."""
    cdef uint8_t seen = fs_u8_load_relaxed(&m.state)  # relaxed: the CAS decides
    while seen & ~FS_MUTEX_PARKED == FS_MUTEX_LOCKED | before:
        # acq_rel: who gives a hold up so and who takes it over are each other's partners
        if fs_u8_cas_acq_rel(&m.state, &seen, seen & ~FS_MUTEX_MARK | after):
            return True
    return False


# A flag of mutex_lock_slow besides those of park(): see mutex_lock_inner.
cdef enum:
    TAKE_ATTACHED = 1024


cdef void mutex_wait_ended(void* ctx, uintptr_t key, bint was_last) noexcept nogil


cdef inline void mutex_lock_inner(fs_mutex* m) noexcept nogil:
    """mutex_lock for a lock of our own: never taken while detached.

    A fork of free-threaded Python stops the others where they are attached, so
    that the child finds such a lock free."""
    if not mutex_try_lock(m):
        mutex_lock_slow(m, FS_FOREVER, TAKE_ATTACHED)


cdef void mutex_set_mark(fs_mutex* m, uint8_t held) noexcept nogil


cdef void mutex_unlock_inner(fs_mutex* m) noexcept nogil
