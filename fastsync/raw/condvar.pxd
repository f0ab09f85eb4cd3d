"""The raw condition variable: one word.  What all raw words have in common: see words.pxd."""
from libc.stdint cimport int64_t, uint64_t, uintptr_t

from fastsync.raw.c_atomic cimport fs_atomic_uptr, fs_uptr_load_relaxed
from fastsync.raw.mutex cimport fs_mutex
from fastsync.raw.parking cimport deadline_after, FS_PLAIN


#   0          no thread waits
#   address    of the mutex that the waiters will take (all of them the same)
#   FS_CONDVAR_FOREIGN   the waiters will take a lock that is not one of ours
#
# Written under the bucket lock of the condvar's own address.

cdef enum:
    FS_CONDVAR_FOREIGN = 1

cdef extern from "fastsync/words.h":
    ctypedef struct fs_condvar "fastsync_0_2_condvar":
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
    # relaxed: a thread that changes what a waiter waits for holds the waiter's lock,
    # and that lock orders this load after the waiter's queueing
    return fs_uptr_load_relaxed(&c.mutex) != 0


cdef inline bint condvar_notify_one(fs_condvar* c) noexcept nogil:
    """Wake one waiter, or move it to the mutex's queue; whether there was one."""
    return condvar_has_waiters(c) and condvar_notify_some(c, 1) != 0


cdef inline size_t condvar_notify_all(fs_condvar* c) noexcept nogil:
    """Wake or move all; how many they were."""
    return condvar_notify_some(c, <size_t>-1) if condvar_has_waiters(c) else 0


# -- between the modules of this package; not for others ---------------------


cdef struct limited_call:
    fs_condvar* condvar
    uint64_t left


cdef int limited_filter(void* ctx, uintptr_t park_token) noexcept nogil
