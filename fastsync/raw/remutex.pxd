"""The raw re-entrant mutex: a mutex with an owner and a depth.  What all raw words have in common: see words.pxd."""
from libc.stdint cimport int64_t, uint32_t, uintptr_t

from fastsync.raw.c_atomic cimport (
    fs_atomic_u32, fs_atomic_uptr, fs_u32_load_relaxed, fs_u32_store_relaxed, fs_uptr_load_relaxed,
    fs_uptr_store_relaxed,
)
from fastsync.raw.c_wait cimport FS_FOREVER, fs_thread_id
from fastsync.raw.mutex cimport (
    fs_mutex, mutex_is_locked, mutex_lock_until, mutex_try_lock, mutex_unlock, mutex_unlock_fair,
    mutex_unlock_inner, TAKE_ATTACHED,
)
from fastsync.raw.parking cimport deadline_after, FS_ACQUIRED, FS_PLAIN


# `owner` is the thread that holds `mutex`, 0 when none does; `count` its
# depth.  Both are written by the owner only, with `mutex` held, and may be read by
# all.  A thread that reads `owner` sees its own id only if it wrote it itself.

cdef extern from "fastsync/words.h":
    ctypedef struct fs_remutex "fastsync_0_2_remutex":
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


# -- between the modules of this package; not for others ---------------------

cdef inline void remutex_lock_inner(fs_remutex* m) noexcept nogil:
    """As mutex_lock_inner: a thread that the end of the interpreter, or a fork, stops where it
    is detached never owns it."""
    remutex_lock_until(m, FS_FOREVER, TAKE_ATTACHED)


cdef inline void remutex_unlock_inner(fs_remutex* m) noexcept nogil:
    cdef uint32_t left = remutex_count(m) - 1
    remutex_set_count(m, left)
    if left == 0:
        fs_uptr_store_relaxed(&m.owner, 0)  # relaxed: see remutex_is_mine
        mutex_unlock_inner(&m.mutex)
