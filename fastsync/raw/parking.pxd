"""The parking table: queues of sleeping threads, keyed by address.

A lock is a word; a thread that must wait for it parks on the word's address, and
a thread that changes the word unparks.  All functions may be called with or without
an attached thread state; a thread that has one is detached while it sleeps.

Callbacks run under a bucket lock (``fs_before_sleep`` excepted): they may only
look at and change lock words.  No Python, no allocation, no call back into
this module, no blocking.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t

from fastsync.raw.c_atomic cimport fs_atomic_uptr, fs_pause
from fastsync.raw cimport c_version  # so that versions are compared
from fastsync.raw.c_wait cimport FS_FOREVER, fs_now, fs_waitword, fs_yield

# The address that threads park on: of a lock word, or of anything else that is
# the caller's own.  Its C name, like those of the lock words, carries the API's
# series: an extension that was compiled for another series fails at import,
# with both named, because the signatures of what it imports differ.
ctypedef uintptr_t fs_key "fastsync_0_2_key"

# How park() ended.
cdef enum:
    FS_PARK_UNPARKED = 0     # a waker took it off the queue; the token says what it got
    FS_PARK_INVALID = 1      # validate() refused: look at the word again
    FS_PARK_TIMED_OUT = 2    # the deadline passed before a waker came
    FS_PARK_INTERRUPTED = 3  # a signal handler or before_sleep() raised before a waker came
    FS_PARK_UNPARKED_INTERRUPTED = 4  # both: woken, and an exception is set
    FS_PARK_SIGNALLED = 5    # with FS_ASK: signal handlers are due; no waker had come

# Flags of park() and of the blocking operations built on it.
cdef enum:
    FS_PLAIN = 0
    FS_SIGNALS = 1  # run Python signal handlers while waiting (needs a thread state)
    FS_SPIN = 2     # poll a little, detached, before sleeping
    FS_KEEP_PLACE = 4  # stay queued while signal handlers run: see park()
    FS_FIRST = 8    # this waiter was woken and overtaken: it parks before all that came
                    # later, and the next unlock that meets it hands over
    FS_ASK = 16     # do not run signal handlers: leave, and let the caller do it
    FS_NO_FORK = 32  # before_sleep() runs no code that could fork or park

# What a blocking operation answers.
cdef enum:
    FS_ERROR = -1     # an exception is set, nothing is owned (only with FS_SIGNALS)
    FS_TIMEOUT = 0
    FS_ACQUIRED = 1

# Tokens that every lock here understands.
cdef enum:
    FS_TOKEN_NORMAL = 0   # look again
    FS_TOKEN_HANDOFF = 1  # you own it

# What a filter says of one waiter.
cdef enum:
    FS_UNPARK = 0
    FS_SKIP = 1
    FS_STOP = 2

# What unpark_requeue() shall do.
cdef enum:
    FS_REQUEUE_ABORT = 0
    FS_REQUEUE_UNPARK_ONE_REST = 1  # wake the first, move the others
    FS_REQUEUE_ALL = 2              # move all, wake none

cdef extern from "fastsync/words.h":
    ctypedef struct fs_unpark_result:
        size_t unparked
        size_t requeued
        bint have_more   # exact: whether a thread is still parked on this key
        bint be_fair     # eventual fairness asks for a hand-over now: see is_due

# Under the bucket lock, before queueing: False refuses to park.
ctypedef bint (*fs_validate)(void* ctx) noexcept nogil
# After queueing, no lock held, thread state as the caller had it.  May run anything,
# Python, waits and forks, too.  Non-zero means an exception is set: the wait is given up.
ctypedef int (*fs_before_sleep)(void* ctx) noexcept nogil
# Under the bucket lock, after a waiter that was not woken has been unlinked.  `key` is
# where it was parked last (another one after a requeue).
ctypedef void (*fs_timed_out)(void* ctx, uintptr_t key, bint was_last) noexcept nogil
# Under the bucket lock, after the queue was changed: returns the woken thread's token.
ctypedef uintptr_t (*fs_unparked)(void* ctx, fs_unpark_result* result) noexcept nogil
# Under the bucket lock, for each waiter in queue order.
ctypedef int (*fs_filter)(void* ctx, uintptr_t park_token) noexcept nogil
# Under both bucket locks, before anything moves: an FS_REQUEUE_ value.
ctypedef int (*fs_requeue_op)(void* ctx) noexcept nogil

cdef int park(
    fs_key key, fs_validate validate, fs_before_sleep before_sleep,
    fs_timed_out timed_out, void* ctx, uintptr_t park_token,
    int64_t deadline, int flags, uintptr_t* token,
) noexcept nogil
cdef size_t unpark_one(fs_key key, fs_unparked callback, void* ctx) noexcept nogil
cdef size_t unpark_all(fs_key key, uintptr_t token) noexcept nogil
cdef size_t unpark_filter(
    fs_key key, fs_filter filter, fs_unparked callback, void* ctx,
) noexcept nogil
cdef size_t unpark_requeue(
    fs_key from_key, fs_key to_key, size_t limit, fs_requeue_op choose,
    fs_unparked callback, void* ctx,
) noexcept nogil
cdef size_t parked_count(fs_key key) noexcept nogil

# Time.  A deadline is absolute, in nanoseconds of time.monotonic()'s clock;
# FS_FOREVER never comes, 0 says not to wait at all.
cdef inline int64_t deadline_after(int64_t ns) noexcept nogil:
    """`ns` from now; FS_FOREVER when that is past all clocks, 0 when it is over."""
    cdef int64_t now = fs_now()
    if ns <= 0:
        return 0
    return FS_FOREVER if ns >= FS_FOREVER - now else now + ns


# How long to look at a word before parking on it: five looks, each after a yield and a pause
# of 8 us.  The yield comes first: where threads share a processor, the owner may be among
# those that wait for it, and those that wait long get their turn.  The pause lets the owner
# work undisturbed, where each look takes the word's cache line away from it.  A yield may
# last as long as the others' time slices: after a millisecond the queue is the better place,
# because the thread at its head is handed the lock.
# docs/spin-policy.md has the numbers, and what was tried instead.
cdef enum:
    FS_SPIN_NS = 1000000
    FS_SPIN_PAUSES = 300
    FS_SPIN_ROUNDS = 5


cdef inline bint spin_round(int round, int64_t deadline) noexcept nogil:
    """Wait a little; False when it is time to park.

    Only detached: a thread that spins attached keeps the collector waiting.
    """
    cdef int i
    if round >= FS_SPIN_ROUNDS or is_past(deadline):
        return False
    fs_yield()
    for i in range(FS_SPIN_PAUSES):
        fs_pause()
    return True


# -- between the modules of this package; not for others ---------------------

# Words that other processes wait for, too, in memory shared with them.  The table is
# this process's, so they sleep on the platform's wait by address; callers look at
# FS_PARKS_SHARED first.
cdef extern from "fastsync/wait.h" nogil:
    bint FS_PARKS_SHARED "FS_SHARED_WAIT"
cdef int park_shared(
    void* word, int size, uint64_t expected, int64_t deadline, int flags,
) noexcept nogil
cdef void unpark_shared(void* word, int size, int count) noexcept nogil

cdef inline bint is_past(int64_t deadline) noexcept nogil:
    """Whether there is no time left to wait."""
    return deadline == 0 or (deadline != FS_FOREVER and fs_now() >= deadline)


cdef inline int64_t spin_end(int64_t deadline) noexcept nogil:
    """When spinning must end that begins now."""
    return min(deadline, fs_now() + FS_SPIN_NS)


# park() of a call that began at `since`, a value of fs_ticks(), and may have parked before.
cdef int park_since(
    fs_key key, fs_validate validate, fs_before_sleep before_sleep,
    fs_timed_out timed_out, void* ctx, uintptr_t park_token,
    int64_t deadline, int flags, uintptr_t* token, int64_t since,
) noexcept nogil
# One of several keys that a thread parks on at once: see park_on_any().  The caller sets
# what stands above `woken`, and says nothing of the rest.
cdef struct fs_waiter "fs_waiter":
    fs_waitword word
    fs_waitword* shared  # of an fs_place: what its thread sleeps on; else NULL
    fs_atomic_uptr key   # changed by a requeue, under both bucket locks
    uintptr_t thread     # whose it is
    bint queued          # guarded by the bucket lock of `key`
    bint away            # its thread runs code of others: not to be moved; likewise
    fs_waiter* outer     # the next of those that are away
    fs_waiter* next
    fs_waiter* prev
    fs_waiter* sibling   # of a head: the next key's head
    fs_waiter* tail      # of a head: the end of its queue
    uintptr_t park_token
    uintptr_t unpark_token
    int64_t since        # when its call began
    bint overtaken       # it was woken in this call, and another thread was faster
    int64_t fair_from    # of a head: not before then is it handed over to for its age

cdef struct fs_place:
    uintptr_t key
    fs_validate validate
    fs_timed_out timed_out  # or NULL
    void* ctx
    uintptr_t park_token
    bint woken           # afterwards: on this key, with `token`
    uintptr_t token
    fs_waiter record

# Park on all of them until woken on one, or perhaps on several: queued nowhere afterwards.
# FS_PARK_UNPARKED, TIMED_OUT, INVALID (a validate() refused), or SIGNALLED: handlers are due;
# whatever it is, some may have been woken.
cdef int park_on_any(fs_place* places, size_t n, int64_t deadline, int flags) noexcept nogil
# Whether a wait with these flags runs signal handlers: in the main thread, with its
# thread state attached.
cdef bint runs_handlers(int flags) noexcept nogil
# How many forks made this process, on the child's side, since the table exists.
cdef uint32_t fork_epoch() noexcept nogil
# Show every thread that is parked and sleeps, under its bucket lock: for
# callbacks as above.
cdef void visit_parked(
    void (*visit)(void* ctx, uintptr_t key, uintptr_t thread) noexcept nogil, void* ctx,
) noexcept nogil
