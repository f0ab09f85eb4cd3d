"""The raw semaphore: 64 bits.  What all raw words have in common: see words.pxd."""
from libc.stdint cimport int64_t, uint64_t

from fastsync.raw.c_atomic cimport (
    fs_atomic_u64, fs_u64_cas_acquire, fs_u64_load_relaxed, fs_u64_store_relaxed,
)
from fastsync.raw.c_wait cimport FS_FOREVER
from fastsync.raw.parking cimport deadline_after, fs_place, FS_ACQUIRED, FS_PLAIN


#   bit 0      PARKED: a thread may be parked; a release must look
#   bits 1-63  the value: how many may still acquire
#
# A waiter sets PARKED only while the value is 0, and parks only while the word
# is exactly PARKED.  PARKED is cleared under the bucket lock by the thread
# that finds no other left.

cdef enum:
    FS_SEMAPHORE_PARKED = 1
    FS_SEMAPHORE_ONE = 2

cdef extern from "fastsync/words.h":
    ctypedef struct fs_semaphore "fastsync_0_2_semaphore":
        fs_atomic_u64 state

cdef int semaphore_acquire_slow(fs_semaphore* s, int64_t deadline, int flags) noexcept nogil
# 0, or -1 when the value would exceed `limit` or semaphore_max() (nothing has
# changed then).
cdef int semaphore_release(fs_semaphore* s, uint64_t n, uint64_t limit) noexcept nogil

cdef inline uint64_t semaphore_max() noexcept nogil:
    """The largest value."""
    return (<uint64_t>1 << 63) - 1


cdef inline void semaphore_init(fs_semaphore* s, uint64_t value) noexcept nogil:
    """Before any thread uses it; more than semaphore_max() is that."""
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


# -- between the modules of this package; not for others ---------------------

# For a wait for several things: whether a unit was acquired; if not, where to park for one.
# Who was woken there owns a unit (FS_TOKEN_HANDOFF), or must try again and, if it does
# something else instead, wake the next.
cdef bint semaphore_acquired_or_place(fs_semaphore* s, fs_place* place) noexcept nogil
cdef void semaphore_wake(fs_semaphore* s, uint64_t n) noexcept nogil
