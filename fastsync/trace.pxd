"""Hooks that tell the deadlock detector what a thread does with a lock.

A veneer calls them around its raw lock, each behind `if tracing():`, which is
all that they cost while the detector is off:

    cdef bint acquire(Lock self, int64_t deadline) except -1:
        cdef int result
        if tracing():
            trace_wait(self, FS_EXCLUSIVE, deadline)
        result = mutex_lock_until(&self.mutex, deadline, FS_SIGNALS)
        if tracing():
            trace_waited(self, FS_EXCLUSIVE, result == FS_ACQUIRED)
        return checked(result)

    cdef int release(Lock self) except -1:
        if tracing():
            trace_released(self, FS_EXCLUSIVE)
        ...

The order is what makes a report exact: a lock is noted as held after it was
taken and until just before it is let go, so what is noted is true.  `lock` is
the object whose memory holds the lock word (a thread counts as waiting for it
only while it is parked on an address inside the object).  All hooks need an attached thread state, none raises, and an
exception that is set stays set.  Re-entrant locks report every level.
"""
from libc.stdint cimport int64_t, uint32_t

from fastsync.c_atomic cimport fs_atomic_u8, fs_u8_load_relaxed

# How a lock is held, or what a thread waits for.
cdef enum:
    FS_EXCLUSIVE = 1         # a mutex, a write lock
    FS_SHARED = 2            # a read lock: waits for writers, also for pending ones
    FS_UPGRADABLE = 3        # beside readers, not beside another of its kind
    FS_SHARED_RECURSIVE = 4  # waits for a writer that holds, not for a pending one; held as FS_SHARED
    FS_UPGRADE = 5           # held as FS_UPGRADABLE, waits for the readers to leave
    FS_REENTRANT = 6         # as FS_EXCLUSIVE, but the owner may take it again

cdef fs_atomic_u8 trace_flag


cdef inline bint tracing() noexcept nogil:
    """Whether the detector is on."""
    # relaxed: a hook that comes too late or too early looks again under a lock
    return fs_u8_load_relaxed(&trace_flag) != 0


# Before an attempt that may block (`deadline` as the raw lock has it: 0, an
# attempt that cannot, is ignored), and after it.
cdef void trace_wait(object lock, int kind, int64_t deadline) noexcept
cdef void trace_waited(object lock, int kind, bint acquired) noexcept
# After a successful attempt that could not block.
cdef void trace_acquired(object lock, int kind) noexcept
# Before letting go, once it is certain that it will be; by any thread.
cdef void trace_released(object lock, int kind) noexcept
# The same for a re-entrant lock, all its levels at once.
cdef void trace_waited_all(object lock, int kind, uint32_t depth) noexcept
cdef void trace_released_all(object lock) noexcept
# The thread holds it in another way now (a downgrade: before it; an upgrade
# that did not wait: after it).  After one that waited: trace_waited(lock,
# FS_UPGRADE, True) says so already.
cdef void trace_changed(object lock, int held, int now) noexcept
# Nobody in particular holds it any more (a guard was leaked).
cdef void trace_disowned(object lock) noexcept
# In place of trace_released and trace_wait when a condition variable lets all
# levels of the lock go and takes them back by itself; `word` is where it parks
# for that.  trace_waited(lock, kind, True) follows.
cdef void trace_wait_condition(object lock, int kind, void* word) noexcept
