"""The raw barrier.  What all raw words have in common: see words.pxd."""
from libc.stdint cimport int64_t, uint32_t

from fastsync.raw.c_wait cimport FS_FOREVER
from fastsync.raw.mutex cimport fs_mutex
from fastsync.raw.parking cimport FS_PLAIN


# `lock` guards the rest and is never held across a wait.  A round: `count`
# arrivals of `parties`; the last one sets `running`, acts, and opens (it alone
# clears `running`).  `generation` counts rounds that ended.  Waiters of a round
# are parked on the barrier's address and woken with its outcome as the token,
# so they need not look at the fields again.  Those who gave up as it ended do:
# they are `draining`, and learn from `passed` how it ended.  Who arrives while
# the barrier is running or draining is parked on the address of `running`.
# `epoch` is the fork_epoch() that all this is of: the child of a fork starts over.

cdef extern from "fastsync/words.h":
    ctypedef struct fs_barrier "fastsync_0_2_barrier":
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
