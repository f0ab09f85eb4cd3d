"""Hooks around what threads do with locks: for the deadlock detector and the profile.

A veneer calls them around its raw lock, each behind `if tracing():`, which is
all that they cost while nobody looks:

    cdef int take_word(void* mutex, int64_t deadline) noexcept:
        return mutex_lock_until(<fs_mutex*>mutex, deadline, FS_SIGNALS)

    cdef bint acquire(Lock self, int64_t deadline) except -1:
        if tracing() and (detecting() or not mutex_try_lock(&self.mutex)):
            return trace_lock(self, FS_EXCLUSIVE, deadline, NULL, take_word, &self.mutex)
        ...

    cdef int release(Lock self) except -1:
        cdef fs_section section
        if tracing() and noting_release(self):
            trace_release(&section, self, FS_EXCLUSIVE, NULL)
            result = mutex_unlock(&self.mutex)
            trace_released(&section)
        ...

The profile notes only what has to wait, so a call that gets its lock at once, or a release
that no thread waits for, may pass by the hooks when the detector is off.

What is noted is true.  A hold is noted after the lock was taken, and forgotten
before it is released.  A hold belongs to a guard, where there is one (its address
says which, and any thread may end it); otherwise to the thread that took the lock,
in this way, so many times.

`lock` is the object whose memory contains the lock's word.  All hooks need an
attached thread state, and outside of trace_lock, none raises; an exception that is
set stays set.
"""
from libc.stdint cimport int64_t, uint32_t, uintptr_t
from cpython.object cimport PyObject

from fastsync.raw.c_atomic cimport fs_atomic_u8, fs_u8_load_relaxed
from fastsync._watch.contention cimport fs_release, fs_take, may_be_waited_for
# How a lock is held, or what a thread waits for; one call that waits.
from fastsync._watch.holds cimport (
    FS_BLOCK, FS_EXCLUSIVE, FS_ITEM, FS_JOIN, FS_PERMIT, FS_REENTRANT, FS_ROOM, FS_SHARED,
    FS_SHARED_RECURSIVE, FS_SIGNAL, FS_TASKS, FS_UPGRADABLE, FS_UPGRADE, fs_wait, FS_WAY,
)

cdef fs_atomic_u8 trace_flag
cdef enum:
    FS_DETECTING = 1
    FS_PROFILING = 2


cdef inline bint tracing() noexcept nogil:
    """Whether the detector or the profile is on."""
    # relaxed: a hook that comes too late or too early looks again under a lock
    return fs_u8_load_relaxed(&trace_flag) != 0


cdef inline bint detecting() noexcept nogil:
    return fs_u8_load_relaxed(&trace_flag) & FS_DETECTING  # relaxed: as tracing()


cdef inline bint noting_release(object lock) noexcept:
    """Whether a release must be noted: a profile notes only those that others wait for."""
    return detecting() or may_be_waited_for(<uintptr_t><PyObject*>lock)


# One release.
cdef struct fs_section:
    fs_release* release  # others waited for it; or NULL


# Call take(ctx, deadline), and note the wait and the hold.  `guard`: what holds the
# lock then, or NULL for the thread.  Raises what a signal handler raises (FS_ERROR),
# and DeadlockError when that was asked for and this call would close a circle.
cdef int trace_lock(
    object lock, int way, int64_t deadline, void* guard, fs_take take, void* ctx,
) except -1
# The same for a lock that must be taken again, whatever happens: take() never fails.
# `depth`: the levels of a re-entrant lock.
cdef void trace_relock(
    object lock, int way, uint32_t depth, void* guard, fs_take take, void* ctx,
) noexcept
# Before and after releasing, once it is certain that it will be; by any thread.
cdef void trace_release(fs_section* section, object lock, int way, void* guard) noexcept
cdef void trace_released(fs_section* section) noexcept
# The same for a re-entrant lock, all levels at once.
cdef void trace_release_all(fs_section* section, object lock, int way) noexcept
# The guard holds it in another way now, or another guard does (map, upgrade, downgrade:
# before a change that lets others in, after one that keeps them out).
cdef void trace_changed(object lock, void* guard, void* heir, int way) noexcept
# The guard is used in a `with` statement, whose end releases it.
cdef void trace_block(object lock, void* guard) noexcept
# Nobody in particular holds it any more: this guard was leaked, or (NULL) all holds of
# the lock have ended together.
cdef void trace_disowned(object lock, void* guard) noexcept
# A wait for a condition, which releases the lock and takes it again by itself; `word` is
# where it parks for that.  Between them `guard`, or the thread, does not hold it.
cdef void trace_condition(
    fs_wait* wait, object condition, object lock, int way, void* guard, void* word,
    int64_t deadline) noexcept
cdef void trace_notified(fs_wait* wait) noexcept
# A wait for a signal that is no take(): a round of a barrier.
cdef void trace_signal(fs_wait* wait, object lock, int64_t deadline) noexcept
cdef void trace_signalled(fs_wait* wait) noexcept
# A wait for something that any thread may give: an item, room (`way`).  `key` is an address
# that says which of the waits for this object it is.  It ends with trace_signalled(), or with
# trace_other(): then another of several things was given, see select().
cdef void trace_work(
    fs_wait* wait, object lock, int way, uintptr_t key, int64_t deadline) noexcept
cdef void trace_other(fs_wait* wait) noexcept
# Before something is given to those who wait so.  After it trace_released(), outside of all
# internal locks; or trace_not_given(), anywhere: nobody was there.
cdef void trace_give(fs_section* section, uintptr_t key) noexcept
cdef void trace_not_given(fs_section* section) noexcept
# A lock was made, by the caller of the running C function.
cdef void trace_made(object lock) noexcept
# It is a part of another object, and known by that.
cdef void trace_part(object lock, object whole, str name) noexcept
