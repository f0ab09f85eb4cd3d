"""Hooks around what threads do with locks: for the deadlock detector and the profile.

A veneer calls them around its raw lock, each behind `if tracing():`, which is
all that they cost while nobody looks:

    cdef int take_word(void* mutex, int64_t deadline) noexcept:
        return mutex_lock_until(<fs_mutex*>mutex, deadline, FS_SIGNALS)

    cdef bint acquire(Lock self, int64_t deadline) except -1:
        if tracing():
            return trace_lock(self, FS_EXCLUSIVE, deadline, NULL, take_word, &self.mutex)
        return mutex_lock_until(&self.mutex, deadline, FS_SIGNALS)

    cdef int release(Lock self) except -1:
        cdef fs_section section
        if tracing():
            trace_release(&section, self, FS_EXCLUSIVE, NULL)
            result = mutex_unlock(&self.mutex)
            trace_released(&section)
        ...

What is noted is true.  A hold is noted after the lock was taken, and forgotten
before it is released.  A hold belongs to a guard, where there is one (its address
says which, and any thread may end it); otherwise to the thread that took the lock,
in this way, so many times.

`lock` is the object whose memory contains the lock's word.  All hooks need an
attached thread state, and outside of trace_lock, none raises; an exception that is
set stays set.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t
from cpython.object cimport PyObject

from fastsync.raw.c_atomic cimport fs_atomic_u8, fs_u8_load_relaxed
from fastsync._watch.contention cimport fs_release, fs_take, fs_waiting
from fastsync._watch.origins cimport fs_stack

# How a lock is held, or what a thread waits for.
cdef enum:
    FS_EXCLUSIVE = 1         # a mutex, a write lock
    FS_SHARED = 2            # a read lock: waits for writers, also for pending ones
    FS_UPGRADABLE = 3        # as a read lock, but not beside another of its kind
    FS_SHARED_RECURSIVE = 4  # waits for a writer that holds, not for a pending one; held as FS_SHARED
    FS_UPGRADE = 5           # held as FS_UPGRADABLE, waits for the readers to leave
    FS_REENTRANT = 6         # as FS_EXCLUSIVE, but the owner may take it again; only it releases
    FS_PERMIT = 7            # of a semaphore: any thread may give one
    FS_SIGNAL = 8            # an event, a notification, a round of a barrier: held by no thread
    FS_JOIN = 9              # the end of a thread
    FS_WAY = 15
    # Besides: taken by a `with` statement, whose end releases it.
    FS_BLOCK = 16

cdef fs_atomic_u8 trace_flag
cdef enum:
    FS_DETECTING = 1
    FS_PROFILING = 2


cdef inline bint tracing() noexcept nogil:
    """Whether anybody looks."""
    # relaxed: a hook that comes too late or too early looks again under a lock
    return fs_u8_load_relaxed(&trace_flag) != 0


cdef struct fs_thread:
    uint64_t number
    uintptr_t ident      # the system's identifier
    fs_hold* holds
    fs_wait* waits       # innermost first
    bint seen            # by a search
    fs_thread* todo      # of a search
    fs_thread* next

cdef struct fs_hold:
    PyObject* origin     # owned
    void* guard          # or NULL: the thread's
    fs_thread* thread
    const fs_stack* where
    int way              # with FS_BLOCK
    uint32_t depth
    fs_hold* next        # of the thread
    fs_hold* other       # in the chain of the lock

# One call that takes or waits; in the frame of the function that does.
cdef struct fs_wait:
    PyObject* origin     # owned by the wait
    PyObject* lock       # borrowed: the call has a reference
    fs_thread* thread    # NULL: the detector does not know of this wait
    uint64_t serial      # which wait it is
    int way
    void* guard          # what will hold, or NULL
    bint blocks          # not just an attempt
    bint forever
    bint patient         # of a wait for a condition: without a timeout
    bint settled         # blocked for certain, though it is not parked yet
    bint spoiled         # another thread may have released what this one is taking
    int parked           # set by a snapshot: 0, or how it is parked for the lock
    bint asleep          # set by a snapshot: parked for anything
    uintptr_t word       # of a wait for a condition: where the lock is waited for
    uintptr_t joined     # FS_JOIN: the system's identifier of the thread
    fs_hold* held        # of a wait for a condition: what to hold again
    fs_waiting timing    # of a wait for a condition, in the profile
    fs_wait* outer

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
# Something is initialized by this thread (FS_REENTRANT, no attempt), from now on.
cdef void trace_taken(object lock, int way, void* guard) noexcept
# A lock was made, by the caller of the running C function.
cdef void trace_made(object lock) noexcept
