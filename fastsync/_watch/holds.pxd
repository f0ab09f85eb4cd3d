"""Which thread holds and which waits for which lock: the tables of the deadlock detector."""
from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t
from cpython.object cimport PyObject

from fastsync._watch.contention cimport fs_waiting
from fastsync._watch.origins cimport fs_stack, Origin
from fastsync.raw.remutex cimport fs_remutex

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
    # Of a queue or a channel, in the profile alone; to the detector they are FS_SIGNAL.
    FS_ITEM = 10
    FS_ROOM = 11
    FS_TASKS = 12            # the end of all its tasks
    FS_WAY = 15
    # Besides: taken by a `with` statement, whose end releases it.
    FS_BLOCK = 16

cdef enum:
    ORDERS = 16   # of the locks that a thread holds, so many make an order with the next


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
    PyObject* origin     # owned by the wait; NULL: nothing was noted
    PyObject* lock       # borrowed: the call has a reference
    fs_thread* thread    # NULL: the tables do not have this wait, or no longer
    uint64_t serial      # which wait it is
    const fs_stack* where
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


# Guards the tables, and what functions below say.
cdef fs_remutex records

cdef uint64_t this_number() noexcept

# -- waits.  `wait.origin`, lock and guard are the caller's to set.
# Under `records`, and only while the detector is on.
cdef void begin_wait(fs_wait* wait, int way, bint blocks, bint forever) noexcept
# Forget the wait; note the hold, if it is not NULL and may be noted: see holds.pyx.
cdef void end_wait(fs_wait* wait, fs_hold* hold) noexcept

# -- holds.  NULL when memory is short.
cdef fs_hold* new_hold(
    Origin origin, int way, void* by, uint32_t depth, const fs_stack* where) noexcept
# This thread is about to release; `whole`: all levels.
cdef void forget_hold(Origin origin, int way, void* by, bint whole) noexcept
# Under `records`: the same for a wait that releases, which gets the hold back, or NULL.
cdef fs_hold* lend_hold(PyObject* origin, int way, void* by) noexcept
# A guard's hold is another guard's now, in this way; or ends with a block; or is nobody's.
cdef void change_hold(Origin origin, void* by, void* heir, int way) noexcept
cdef void end_hold_with_block(Origin origin, void* by) noexcept
cdef void disown_hold(Origin origin, void* by) noexcept
# All holds of the lock have ended together.
cdef void disown_all(Origin origin) noexcept
cdef void forget_all(bint keep_mine) noexcept

# -- under `records`
# Whether the thread of this wait may wait for itself.
cdef bint may_close_circle(fs_thread* me) noexcept
# With a reference to each, the locks that the thread of this wait holds.
cdef size_t locks_before(fs_wait* wait, PyObject** firsts) noexcept
