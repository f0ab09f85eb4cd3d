"""The parking table.

Layers: a lock's slow path calls park() or unpark_*() here; this module calls
include/fastsync/wait.h to put one thread to sleep or wake it.  There is one
table in a process: every lock word, of this package or of another that
cimports it, queues here.

The table is a fixed array of buckets.  A key (an address) hashes to a bucket;
a bucket holds one FIFO queue for each key that has waiters now:

    bucket.first -> head(key A) -sibling-> head(key B) -sibling-> NULL
                      | next                 | next
                    waiter                 waiter
                      | next
                    waiter   <- head.tail

so that "more waiters on this key" is exact, and a crowd on one key costs a
neighbour in the same bucket one step, not a walk.  A waiter is a record in its
own thread's frame: parking allocates nothing.

Why no wake-up is lost.  A lock says in its word that a thread may be parked.
park() takes the bucket lock, asks validate() whether the word still says so,
and queues before it releases the bucket lock.  A thread that changes the word to
"not to be waited for" while it says "a thread may be parked" takes the same
bucket lock to look at the queue.  So either validate() sees the change and
refuses, or the thread that changed the word sees the waiter.

Who frees a waiter record.  Under the bucket lock a waiter is queued or not.
Only the thread that unlinked it may still touch it: the waker, until it has
woken it (fs_waitword_wake is its last touch), or the waiter itself, when it gave
up.  A waiter that gives up and finds itself unlinked already waits for the
wake-up that is on its way.

Fork.  The child has one thread and must find an empty table, because the other
waiters do not exist there.  A fork only counts (`epoch`).  The word of a bucket
lock holds the epoch of its last use: the first thread of the child that meets an
older one takes the lock, free or not (its owner does not exist), and empties the
bucket.  So a fork costs the table nothing, however many buckets are in use, and it
may come at any moment, amid a change of any queue:

- A queue that the fork left half changed is never read, only emptied.
- A lock word was changed by one atomic operation or was not.  Held, or handed to a
  thread that does not exist, is what a lock is that another thread held at the fork.
  A "may be parked" bit that the child inherits finds an empty queue, and the next
  unlock clears it; what else a word says of waiters its module treats so, too.
- The forking thread itself is inside no bucket lock: nothing under one forks.
- It may have records in queues: those of waits in which it runs signal handlers or
  before_sleep(), which forked.  They are `away`, so their keys do not change.  The
  fork holds the locks of their buckets, so each is whole, queued or unlinked with its
  token, and the child queues it again or completes its wake-up (revive()).
- An extension that forks in C while it holds a lock of its own: that lock is held.
"""
import sys

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t

from fastsync.raw.c_atomic cimport (
    fs_atomic_uptr, fs_uptr_load_relaxed, fs_uptr_store_relaxed,
    fs_atomic_u32, fs_u32_load_relaxed,
    fs_u32_fetch_add_relaxed, fs_pause,
)
from fastsync.raw.c_wait cimport (
    FS_FOREVER, FS_WOKEN, FS_TIMED_OUT, FS_SIGNALLED, FS_WAIT_BACKEND,
    fs_bucket_lock, fs_bucket_lock_acquire, fs_bucket_lock_release, fs_waitword, fs_waitword_init, fs_waitword_woken,
    fs_waitword_wait, fs_waitword_wake, fs_waitword_destroy,
    FS_FIRST_LOOK_NS, FS_LOOK_NS, fs_now, fs_ticks, fs_thread_id, fs_at_fork, fs_yield,
)
from fastsync.raw.c_python cimport (
    FS_TELLS_OF_SIGNALS, PyThreadState, fs_attach, fs_attached, fs_check_interpreter,
    fs_check_signals, fs_detach, fs_signal_due,
)

cdef extern from *:
    """
    /* The records of this thread that may be queued while it runs code of others. */
    static FS_THREAD_LOCAL void *fs_mine;
    """
    void* fs_mine


# 4096 buckets are 256 KiB; a thousand threads parked on a thousand words meet in
# pairs at most.  All zeros are an empty table, so nothing is written before a bucket
# is used, and the kernel hands out the pages then.
cdef enum:
    BUCKET_BITS = 12
    BUCKETS = 4096

# Eventual fairness: when an unlock hands over to the first waiter.  See is_due().
#
# FAIR_NS: not before its call has gone on for so long.  A hand-over is a context switch,
# 10 us or more: shorter would cost sections that are long themselves.
# PACE_NS: on average not sooner after the last one of this key, from 0 to twice that.
# When many wait, all have waited long, and an unlock that always handed over would make
# each section cost a context switch.  Not always the same time, lest it fall into step
# with the sections.
#
# So of n threads that wait, the last one has the lock after FAIR_NS, and n times PACE_NS
# with a section and a wake-up, on average.  docs/spin-policy.md has the numbers.
cdef enum:
    FAIR_NS = 200000
    PACE_NS = 250000

# How long a parked thread polls before it sleeps, when its caller expects a
# quick answer (FS_SPIN): some 20 us, longer than a sleeper takes to run again,
# or two threads that take turns would sleep before each turn.  The yields make it
# cheap: other threads run if there are any, so that those that feed a bounded queue
# still work in batches.  docs/performance.md compares.
cdef enum:
    SPIN_YIELDS = 20
    SPIN_LOOKS = 20

cdef extern from *:
    """
    /* A cache line, all of which the lock guards. */
    typedef struct {
        FS_LINE_ALIGNED fs_bucket_lock lock;
        struct fs_waiter *first;  /* the head of the first key's queue */
    } fs_bucket;
    """
    ctypedef struct fs_bucket:
        fs_bucket_lock lock
        fs_waiter* first

cdef fs_bucket table[BUCKETS]
cdef uintptr_t main_thread = 0
cdef fs_atomic_u32 epoch  # counts forks on the child's side


# -- buckets and queues: all under the bucket lock ---------------------------

cdef inline fs_bucket* bucket_of(uintptr_t key) noexcept nogil:
    # Fibonacci hashing: the high bits of key * 2^64/phi.
    return &table[(<uint64_t>key * <uint64_t>0x9E3779B97F4A7C15u) >> (64 - BUCKET_BITS)]


cdef inline void lock_this(fs_bucket* bucket) noexcept nogil:
    if fs_bucket_lock_acquire(&bucket.lock, fork_epoch()):
        bucket.first = NULL  # of the process that this one was forked from


cdef inline fs_bucket* lock_bucket(uintptr_t key) noexcept nogil:
    cdef fs_bucket* bucket = bucket_of(key)
    lock_this(bucket)
    return bucket


cdef inline void unlock_bucket(fs_bucket* bucket) noexcept nogil:
    fs_bucket_lock_release(&bucket.lock, fork_epoch())


cdef void lock_pair(fs_bucket* a, fs_bucket* b) noexcept nogil:
    # Lower address first, so that two requeues cannot wait for each other.
    lock_this(min(a, b))
    if a != b:
        lock_this(max(a, b))


cdef void unlock_pair(fs_bucket* a, fs_bucket* b) noexcept nogil:
    unlock_bucket(a)
    if a != b:
        unlock_bucket(b)


cdef inline uintptr_t key_of(const fs_waiter* w) noexcept nogil:
    # relaxed: the bucket lock orders it; a waiter that reads its own key
    # without the lock checks again with it (lock_own_bucket)
    return fs_uptr_load_relaxed(&w.key)


cdef fs_waiter** find(fs_bucket* bucket, uintptr_t key) noexcept nogil:
    """The link that points to the key's head, or to NULL."""
    cdef fs_waiter** link = &bucket.first
    while link[0] != NULL and key_of(link[0]) != key:
        link = &link[0].sibling
    return link


cdef void enqueue(fs_bucket* bucket, uintptr_t key, fs_waiter* w) noexcept nogil:
    cdef fs_waiter** link = find(bucket, key)
    cdef fs_waiter* head = link[0]
    fs_uptr_store_relaxed(&w.key, key)  # relaxed: see key_of
    w.queued = True
    w.next = NULL
    w.sibling = NULL
    if head == NULL:
        w.prev = NULL
        w.tail = w
        w.fair_from = 0
        link[0] = w
    else:
        w.prev = head.tail
        head.tail.next = w
        head.tail = w


cdef void enqueue_first(fs_bucket* bucket, uintptr_t key, fs_waiter* w) noexcept nogil:
    cdef fs_waiter** link = find(bucket, key)
    cdef fs_waiter* head = link[0]
    if head == NULL:
        enqueue(bucket, key, w)
        return
    fs_uptr_store_relaxed(&w.key, key)  # relaxed: see key_of
    w.queued = True
    w.prev = NULL
    w.next = head
    w.tail = head.tail
    w.sibling = head.sibling
    w.fair_from = head.fair_from
    head.prev = w
    link[0] = w


cdef void enqueue_by_age(fs_bucket* bucket, uintptr_t key, fs_waiter* w) noexcept nogil:
    """Before all whose calls began no earlier: of a waiter that was woken and overtaken."""
    cdef fs_waiter* before = find(bucket, key)[0]
    if before == NULL or before.since >= w.since:
        enqueue_first(bucket, key, w)
        return
    while before.next != NULL and before.next.since < w.since:
        before = before.next
    if before.next == NULL:
        enqueue(bucket, key, w)
        return
    fs_uptr_store_relaxed(&w.key, key)  # relaxed: see key_of
    w.queued = True
    w.prev = before
    w.next = before.next
    before.next.prev = w
    before.next = w


cdef void unlink(fs_bucket* bucket, fs_waiter* w) noexcept nogil:
    cdef fs_waiter** link
    cdef fs_waiter* heir
    w.queued = False
    if w.prev != NULL:
        w.prev.next = w.next
        if w.next != NULL:
            w.next.prev = w.prev
        else:
            find(bucket, key_of(w))[0].tail = w.prev
        return
    # A head: its successor, if any, becomes the head.
    link = find(bucket, key_of(w))
    heir = w.next
    if heir == NULL:
        link[0] = w.sibling
        return
    heir.prev = NULL
    heir.tail = w.tail
    heir.sibling = w.sibling
    heir.fair_from = w.fair_from
    link[0] = heir


cdef bint is_due(fs_bucket* bucket, uintptr_t key, const fs_waiter* w) noexcept nogil:
    """Whether `w`, the first of the key until now, shall be handed what it waits for.

    One that was overtaken is: it cannot be so again, however late the system lets it run.
    Else one that has waited long is, in turn with the others of its key.  So no waiter is
    passed for ever (tests/models/fairness.pml): ahead of it are only calls that began before
    its own, and each unlock either wakes the first of them, once, or hands over to it.
    """
    cdef int64_t now = fs_ticks()
    cdef fs_waiter* heir
    if not w.overtaken and (now - w.since < FAIR_NS or now < w.fair_from):
        return False
    heir = find(bucket, key)[0]
    if heir != NULL:
        # The clock's last digits are random enough.
        heir.fair_from = now + <int64_t>(
            (<uint64_t>now * <uint64_t>0x9E3779B97F4A7C15u >> 32) % (2 * PACE_NS))
    return True


cdef void wake_list(fs_waiter* w) noexcept nogil:
    """Wake unlinked waiters, chained by `next`; no lock held."""
    cdef fs_waiter* next
    while w != NULL:
        next = w.next  # before the wake: the record is gone after it
        if w.shared != NULL:
            fs_waitword_wake(w.shared)  # stays until all records of its thread are woken
        fs_waitword_wake(&w.word)
        w = next


# -- park --------------------------------------------------------------------

cdef int park(
    fs_key key, fs_validate validate, fs_before_sleep before_sleep,
    fs_timed_out timed_out, void* ctx, uintptr_t park_token,
    int64_t deadline, int flags, uintptr_t* token,
) noexcept nogil:
    """park_since() now, or with FS_FIRST before all others."""
    return park_since(key, validate, before_sleep, timed_out, ctx, park_token,
                      deadline, flags, token, 0 if flags & FS_FIRST else fs_ticks())


cdef int park_since(
    fs_key key, fs_validate validate, fs_before_sleep before_sleep,
    fs_timed_out timed_out, void* ctx, uintptr_t park_token,
    int64_t deadline, int flags, uintptr_t* token, int64_t since,
) noexcept nogil:
    """Sleep on `key` until woken, or until `deadline`.

    `token` (may be NULL) receives what the waker sent.  With a deadline that has
    passed it queues, calls before_sleep() and leaves: it neither polls nor sleeps.

    With FS_SIGNALS the main thread runs signal handlers meanwhile, and what
    else PyErr_CheckSignals() runs: a collection, with its finalizers.  They may
    need the very lock that it waits for, and a wake-up sent to it would be lost
    on them.  So it leaves the queue first, and afterwards takes its place at the
    front if validate() still agrees; else FS_PARK_INVALID.  With FS_KEEP_PLACE,
    with before_sleep(), and without validate() it stays queued instead: for
    wake-ups that no other thread could use, or that come once; unpark_requeue()
    wakes it instead of moving it.  It also stays queued, in every thread, while
    before_sleep() runs, unless FS_NO_FORK promises that this runs nothing that could
    fork or wait.  With FS_ASK it does not run the handlers: it leaves the queue and
    answers FS_PARK_SIGNALLED, for a caller that must release more before they run.
    """
    cdef fs_waiter self
    cdef park_call call
    cdef fs_bucket* bucket
    cdef int result
    call.state = NULL
    call.signals = runs_handlers(flags)
    call.asks = flags & FS_ASK
    call.stays = (flags & FS_KEEP_PLACE) or before_sleep != NULL or validate == NULL
    call.key = key
    call.validate = validate
    call.timed_out = timed_out
    call.ctx = ctx
    # Before the sleep: a signal that came while the caller spun does not end a sleep
    # that begins later.
    if call.signals and not (call.stays or call.asks) and fs_check_signals() < 0:
        return FS_PARK_INTERRUPTED
    bucket = lock_bucket(key)
    if validate != NULL and not validate(ctx):
        unlock_bucket(bucket)
        return FS_PARK_INVALID
    fs_waitword_init(&self.word)
    self.shared = NULL
    self.thread = fs_thread_id()
    self.park_token = park_token
    self.since = since
    self.overtaken = flags & FS_FIRST
    self.unpark_token = FS_TOKEN_NORMAL
    self.away = (call.signals and call.stays) or (
        before_sleep != NULL and not flags & FS_NO_FORK)
    if flags & FS_FIRST:
        enqueue_by_age(bucket, key, &self)
    else:
        enqueue(bucket, key, &self)
    unlock_bucket(bucket)

    if self.away and run_away(&self, &call, before_sleep, flags) < 0:
        result = FS_PARK_INTERRUPTED
    elif not self.away and before_sleep != NULL and before_sleep(ctx) != 0:
        result = FS_PARK_INTERRUPTED
    else:
        if self.away:
            come_back(&self)
        result = sleep(&self, &call, deadline, flags)
    if result == LEFT_INTERRUPTED:
        result = FS_PARK_INTERRUPTED
    elif (result != FS_PARK_UNPARKED and result != FS_PARK_INVALID
            and not give_up(&self, timed_out, ctx)):
        # The wake-up won the race against the deadline, the signal or the exception.
        result = (FS_PARK_UNPARKED_INTERRUPTED if result == FS_PARK_INTERRUPTED
                  else FS_PARK_UNPARKED)
    fs_waitword_destroy(&self.word)
    # Last, when no other thread can reach the record: at interpreter exit this may
    # never return.
    fs_attach(call.state)
    if token != NULL:
        token[0] = self.unpark_token
    return result


cdef bint queue_at(fs_place* place, fs_waitword* shared, int64_t since) noexcept nogil:
    """Whether validate() agrees; if so the place's record is in the queue of its key."""
    cdef fs_waiter* w = &place.record
    cdef fs_bucket* bucket = lock_bucket(place.key)
    if not place.validate(place.ctx):
        unlock_bucket(bucket)
        return False
    fs_waitword_init(&w.word)
    w.shared = shared
    w.thread = fs_thread_id()
    w.park_token = place.park_token
    w.since = since
    w.overtaken = w.away = False
    w.unpark_token = FS_TOKEN_NORMAL
    enqueue(bucket, place.key, w)
    unlock_bucket(bucket)
    return True


cdef int park_on_any(fs_place* places, size_t n, int64_t deadline, int flags) noexcept nogil:
    # Each place has a record of its own, and the handshake with its waker that every record
    # has; what the thread sleeps on is shared.  So a waker on each key may come, in any
    # order and at any moment, and none touches what is gone.
    cdef fs_waiter self  # queued nowhere: the word alone is used
    cdef PyThreadState* state = NULL
    cdef bint signals = runs_handlers(flags)
    cdef int64_t since = fs_ticks()
    cdef int result = FS_PARK_UNPARKED
    cdef size_t i, queued = 0
    fs_waitword_init(&self.word)
    while queued < n and result == FS_PARK_UNPARKED:
        if queue_at(&places[queued], &self.word, since):
            queued += 1
        else:
            result = FS_PARK_INVALID
    if result == FS_PARK_UNPARKED:
        state = fs_detach()
        if flags & FS_SPIN:
            spin(&self, deadline)
        result = sleep_and_look(&self, deadline, state) if signals else sleep_on(&self, deadline)
        result = (FS_PARK_UNPARKED if result == FS_WOKEN
                  else FS_PARK_TIMED_OUT if result == FS_TIMED_OUT else FS_PARK_SIGNALLED)
    for i in range(queued):
        places[i].woken = not give_up(&places[i].record, places[i].timed_out, places[i].ctx)
        places[i].token = places[i].record.unpark_token
        fs_waitword_destroy(&places[i].record.word)
    for i in range(queued, n):
        places[i].woken = False
    fs_waitword_destroy(&self.word)
    fs_attach(state)
    return result


# What a parked thread keeps for itself.
cdef struct park_call:
    PyThreadState* state  # to attach again; NULL: attached
    bint signals          # this thread runs signal handlers
    bint stays            # queued, while they run
    bint asks             # FS_ASK
    uintptr_t key
    fs_validate validate
    fs_timed_out timed_out
    void* ctx

# Besides the FS_PARK_ values: an exception is set, and the queue has been left.
cdef enum:
    LEFT_INTERRUPTED = -1


cdef int sleep(fs_waiter* self, park_call* call, int64_t deadline, int flags) noexcept nogil:
    """UNPARKED or TIMED_OUT, still detached; SIGNALLED, or INTERRUPTED with an
    exception set, attached; or how the queue was left already."""
    cdef int result
    cdef bint poll = flags & FS_SPIN
    if is_past(deadline):
        return FS_PARK_TIMED_OUT
    while True:
        call.state = fs_detach()
        if poll:
            spin(self, deadline)
        poll = False
        if call.signals:
            result = sleep_and_look(self, deadline, call.state)
        else:
            result = sleep_on(self, deadline)
        if result == FS_WOKEN:
            return FS_PARK_UNPARKED
        if result == FS_TIMED_OUT:
            return FS_PARK_TIMED_OUT
        # The main thread, and only it, may attach while its record is queued.
        fs_attach(call.state)
        call.state = NULL
        if call.asks:
            return FS_PARK_SIGNALLED
        result = handlers_in_place(self, call) if call.stays else handlers_outside(self, call)
        if result != FS_SIGNALLED:
            return result


cdef int sleep_on(fs_waiter* self, int64_t deadline) noexcept nogil:
    """FS_WOKEN or FS_TIMED_OUT, whatever signals come."""
    cdef int result = FS_SIGNALLED
    while result == FS_SIGNALLED:
        result = fs_waitword_wait(&self.word, deadline)
    return result


cdef int sleep_and_look(
    fs_waiter* self, int64_t deadline, PyThreadState* state,
) noexcept nogil:
    """As fs_waitword_wait(), but FS_SIGNALLED also for a signal that did not end it.

    It may come before the sleep has begun (as soon as the record is queued others act
    on it, so that is not rare), or to another thread.  So the first sleeps are short.
    """
    # In a fork's child the interpreter may mark the state of a thread that is gone.
    cdef bint told = FS_TELLS_OF_SIGNALS and fork_epoch() == 0
    cdef int64_t longest = FS_FIRST_LOOK_NS if told else FS_LOOK_NS
    cdef int64_t look
    cdef int result
    while True:
        look = fs_now() + longest
        result = fs_waitword_wait(&self.word, min(look, deadline))
        if result != FS_TIMED_OUT or deadline <= look:
            return result
        if not told or fs_signal_due(state):
            return FS_SIGNALLED
        longest = min(2 * longest, FS_LOOK_NS)


cdef int handlers_in_place(fs_waiter* self, park_call* call) noexcept nogil:
    """Run signal handlers, queued: INTERRUPTED, or FS_SIGNALLED to sleep again."""
    cdef fs_bucket* bucket = lock_own_bucket(self)
    self.away = self.queued and key_of(self) == call.key
    unlock_bucket(bucket)
    if not self.away:
        # Woken, or moved to the queue of a mutex, where we may be handed it:
        # what we waited for has come, so the handlers can wait for us.
        call.signals = False
        return FS_SIGNALLED
    if run_away(self, call, NULL, FS_SIGNALS) < 0:
        return FS_PARK_INTERRUPTED
    come_back(self)
    return FS_SIGNALLED


cdef int run_away(
    fs_waiter* self, park_call* call, fs_before_sleep before_sleep, int flags,
) noexcept nogil:
    """before_sleep() and signal handlers, with the record queued and `away`; -1 with an
    exception set.  If they fork, the child's record is queued, too."""
    global fs_mine
    cdef int result = 0
    self.outer = <fs_waiter*>fs_mine
    fs_mine = self
    if before_sleep != NULL:
        result = before_sleep(call.ctx)
        # The child of a fork has another main thread.
        call.signals = call.stays and runs_handlers(flags)
    if result == 0 and call.signals:
        result = fs_check_signals()
    fs_mine = self.outer
    return -1 if result != 0 else 0


cdef void come_back(fs_waiter* self) noexcept nogil:
    cdef fs_bucket* bucket = lock_own_bucket(self)
    self.away = False
    unlock_bucket(bucket)


cdef int handlers_outside(fs_waiter* self, park_call* call) noexcept nogil:
    """Leave the queue, run signal handlers, take the first place in it:
    LEFT_INTERRUPTED, UNPARKED, INVALID, or FS_SIGNALLED to sleep again."""
    cdef fs_bucket* bucket = lock_own_bucket(self)
    cdef int result
    if not self.queued:
        unlock_bucket(bucket)
        await_waker(self)
        return FS_PARK_UNPARKED
    unlink(bucket, self)
    unlock_bucket(bucket)
    # The word may say "a thread may be parked" meanwhile; an unlock clears that.
    result = LEFT_INTERRUPTED if fs_check_signals() < 0 else FS_SIGNALLED
    bucket = lock_bucket(call.key)
    if result == LEFT_INTERRUPTED:
        if call.timed_out != NULL:
            call.timed_out(call.ctx, call.key, find(bucket, call.key)[0] == NULL)
    elif call.validate(call.ctx):
        enqueue_first(bucket, call.key, self)
    else:
        result = FS_PARK_INVALID
    unlock_bucket(bucket)
    return result


cdef void spin(fs_waiter* self, int64_t deadline) noexcept nogil:
    """Wait a little, detached, for a wake-up that is likely to come at once."""
    cdef int i, look
    for i in range(SPIN_YIELDS):
        for look in range(SPIN_LOOKS):
            if fs_waitword_woken(&self.word):
                return
            fs_pause()
        if is_past(deadline):
            return
        fs_yield()


cdef void await_waker(fs_waiter* self) noexcept nogil:
    """The waker still uses the record, which must stay until the wake-up."""
    sleep_on(self, FS_FOREVER)


cdef bint give_up(fs_waiter* self, fs_timed_out timed_out, void* ctx) noexcept nogil:
    """Leave the queue; False when a waker has unlinked us already."""
    cdef uintptr_t key
    cdef fs_bucket* bucket = lock_own_bucket(self)
    if not self.queued:
        unlock_bucket(bucket)
        await_waker(self)
        return False
    key = key_of(self)
    unlink(bucket, self)
    if timed_out != NULL:
        timed_out(ctx, key, find(bucket, key)[0] == NULL)
    unlock_bucket(bucket)
    return True


cdef fs_bucket* lock_own_bucket(fs_waiter* self) noexcept nogil:
    """Lock the bucket we are in, wherever a requeue may have moved us."""
    cdef uintptr_t key
    cdef fs_bucket* bucket
    while True:
        key = key_of(self)
        bucket = lock_bucket(key)
        if key_of(self) == key:
            return bucket
        unlock_bucket(bucket)


# -- unpark ------------------------------------------------------------------

cdef size_t unpark_one(fs_key key, fs_unparked callback, void* ctx) noexcept nogil:
    """Wake the first waiter.  `callback` runs also when there is none."""
    cdef fs_unpark_result result
    cdef uintptr_t token = FS_TOKEN_NORMAL
    cdef fs_bucket* bucket = lock_bucket(key)
    cdef fs_waiter* w = find(bucket, key)[0]
    result.unparked = result.requeued = 0
    result.have_more = result.be_fair = False
    if w != NULL:
        unlink(bucket, w)
        result.unparked = 1
        result.have_more = w.next != NULL
        result.be_fair = is_due(bucket, key, w)
        w.next = NULL
    if callback != NULL:
        token = callback(ctx, &result)
    if w != NULL:
        w.unpark_token = token
    unlock_bucket(bucket)
    wake_list(w)
    return result.unparked


cdef size_t unpark_all(fs_key key, uintptr_t token) noexcept nogil:
    """Wake all threads on `key`; how many they were."""
    cdef size_t count = 0
    cdef fs_bucket* bucket = lock_bucket(key)
    cdef fs_waiter** link = find(bucket, key)
    cdef fs_waiter* head = link[0]
    cdef fs_waiter* w = head
    if head != NULL:
        link[0] = head.sibling
    while w != NULL:
        w.queued = False
        w.unpark_token = token
        count += 1
        w = w.next
    unlock_bucket(bucket)
    wake_list(head)
    return count


cdef size_t unpark_filter(
    fs_key key, fs_filter filter, fs_unparked callback, void* ctx,
) noexcept nogil:
    """Wake the waiters that `filter` (NULL: all) chooses, in queue order."""
    cdef fs_unpark_result result
    cdef fs_bucket* bucket = lock_bucket(key)
    cdef fs_waiter* w = find(bucket, key)[0]
    cdef fs_waiter* next
    cdef fs_waiter* woken = NULL
    cdef fs_waiter** end = &woken
    cdef uintptr_t token = FS_TOKEN_NORMAL
    cdef int verdict = FS_UNPARK
    result.unparked = result.requeued = 0
    while w != NULL:
        next = w.next
        if filter != NULL:
            verdict = filter(ctx, w.park_token)
        if verdict == FS_STOP:
            break
        if verdict == FS_UNPARK:
            unlink(bucket, w)
            w.next = NULL
            end[0] = w
            end = &w.next
            result.unparked += 1
        w = next
    result.have_more = find(bucket, key)[0] != NULL
    result.be_fair = woken != NULL and is_due(bucket, key, woken)
    if callback != NULL:
        token = callback(ctx, &result)
    w = woken
    while w != NULL:
        w.unpark_token = token
        w = w.next
    unlock_bucket(bucket)
    wake_list(woken)
    return result.unparked


cdef size_t unpark_requeue(
    fs_key from_key, fs_key to_key, size_t limit, fs_requeue_op choose,
    fs_unparked callback, void* ctx,
) noexcept nogil:
    """Move up to `limit` waiters to another key, waking none or the first.

    How many were woken or moved: none, and no callback runs, from a key to itself.
    """
    cdef fs_unpark_result result
    cdef fs_bucket* source = bucket_of(from_key)
    cdef fs_bucket* target = bucket_of(to_key)
    cdef fs_waiter* woken = NULL
    cdef fs_waiter* away = NULL
    cdef fs_waiter* w
    cdef uintptr_t token = FS_TOKEN_NORMAL
    cdef size_t count = 0
    cdef int op
    if from_key == to_key:
        return 0  # a waiter moved to the end of its queue comes to the front again, for ever
    lock_pair(source, target)
    op = choose(ctx)
    if op == FS_REQUEUE_ABORT:
        unlock_pair(source, target)
        return 0
    result.unparked = result.requeued = 0
    while count < limit:
        w = find(source, from_key)[0]
        if w == NULL:
            break
        unlink(source, w)
        count += 1
        if w.away:
            # It runs code of others and could make no use of what it would be handed:
            # it queues itself after that.
            w.next = away
            away = w
        elif op == FS_REQUEUE_UNPARK_ONE_REST and woken == NULL:
            w.next = NULL
            woken = w
            result.unparked = 1
        else:
            enqueue(target, to_key, w)
            result.requeued += 1
    result.have_more = find(source, from_key)[0] != NULL
    result.be_fair = woken != NULL and is_due(source, from_key, woken)
    if callback != NULL:
        token = callback(ctx, &result)
    if woken != NULL:
        woken.unpark_token = token
    unlock_pair(source, target)
    wake_list(woken)
    wake_list(away)
    return count


cdef size_t parked_count(fs_key key) noexcept nogil:
    """How many threads are parked on `key` at this moment."""
    cdef size_t count = 0
    cdef fs_bucket* bucket = lock_bucket(key)
    cdef fs_waiter* w = find(bucket, key)[0]
    while w != NULL:
        count += 1
        w = w.next
    unlock_bucket(bucket)
    return count


cdef void visit_parked(
    void (*visit)(void* ctx, uintptr_t key, uintptr_t thread) noexcept nogil, void* ctx,
) noexcept nogil:
    cdef fs_waiter* head
    cdef fs_waiter* w
    cdef int i
    for i in range(BUCKETS):
        lock_this(&table[i])
        head = table[i].first
        while head != NULL:
            w = head
            while w != NULL:
                if not w.away:
                    visit(ctx, key_of(w), w.thread)
                w = w.next
            head = head.sibling
        unlock_bucket(&table[i])


# -- words shared with other processes -----------------------------------------

cdef extern from "fastsync/wait.h" nogil:
    int fs_shared_wait(void* word, int size, uint64_t expected, int64_t deadline) noexcept
    int fs_shared_wake(void* word, int size, int count) noexcept


cdef int park_shared(
    void* word, int size, uint64_t expected, int64_t deadline, int flags,
) noexcept nogil:
    """Sleep while the `size` bytes at `word` are `expected`.

    FS_PARK_UNPARKED, also for no reason: look at the word again; FS_PARK_TIMED_OUT; with
    FS_SIGNALS, FS_PARK_INTERRUPTED with an exception set when a signal handler raised.
    """
    cdef bint signals = runs_handlers(flags)
    # As sleep_and_look: a signal may come before the sleep has begun.
    cdef int64_t longest = FS_FIRST_LOOK_NS
    cdef int64_t until = deadline
    cdef PyThreadState* state
    cdef int result
    while True:
        if signals:
            if fs_check_signals() < 0:
                return FS_PARK_INTERRUPTED
            until = min(fs_now() + longest, deadline)
            longest = min(2 * longest, FS_LOOK_NS)
        state = fs_detach()
        result = fs_shared_wait(word, size, expected, until)
        fs_attach(state)
        if result == FS_WOKEN:
            return FS_PARK_UNPARKED
        if result == FS_TIMED_OUT and until == deadline:
            return FS_PARK_TIMED_OUT


cdef void unpark_shared(void* word, int size, int count) noexcept nogil:
    """Wake up to `count` threads, of any process, that sleep in park_shared on `word`."""
    fs_shared_wake(word, size, count)


# -- fork, set-up ------------------------------------------------------

cdef bint runs_handlers(int flags) noexcept nogil:
    return (flags & FS_SIGNALS) and fs_thread_id() == main_thread and fs_attached()


cdef uint32_t fork_epoch() noexcept nogil:
    return fs_u32_load_relaxed(&epoch)  # relaxed: changes while there is one thread


cdef fs_bucket* next_of_mine(const fs_bucket* last) noexcept nogil:
    """The first bucket after `last` that has a record of fs_mine, or had when the record
    was unlinked; NULL after all of them."""
    cdef fs_bucket* nearest = NULL
    cdef fs_bucket* bucket
    cdef fs_waiter* w = <fs_waiter*>fs_mine
    while w != NULL:
        bucket = bucket_of(key_of(w))
        if bucket > last and (nearest == NULL or bucket < nearest):
            nearest = bucket
        w = w.outer
    return nearest


cdef void before_fork() noexcept nogil:
    # By address, as lock_pair().  The keys stay as they are: the records are `away`.
    cdef fs_bucket* bucket = next_of_mine(NULL)
    while bucket != NULL:
        lock_this(bucket)
        bucket = next_of_mine(bucket)


cdef void after_fork_in_parent() noexcept nogil:
    cdef fs_bucket* bucket = next_of_mine(NULL)
    while bucket != NULL:
        unlock_bucket(bucket)
        bucket = next_of_mine(bucket)


cdef void after_fork_in_child() noexcept nogil:
    global main_thread
    cdef fs_waiter* w = <fs_waiter*>fs_mine
    fs_u32_fetch_add_relaxed(&epoch, 1)  # relaxed: there is one thread
    main_thread = fs_thread_id()
    # At once, because what the handler does next may wake them.
    while w != NULL:
        revive(w)
        w = w.outer


cdef void revive(fs_waiter* w) noexcept nogil:
    """In the child of a fork made amid this wait: queue its record again."""
    cdef fs_bucket* bucket = lock_bucket(key_of(w))
    # A thread that does not exist here may have been inside it, about to wake us.
    fs_waitword_init(&w.word)
    if w.queued:
        # From the innermost wait to the outermost, which has queued first.
        enqueue_first(bucket, key_of(w), w)
    else:
        fs_waitword_wake(&w.word)  # it has its token already
    unlock_bucket(bucket)


cdef void count_one(void* ctx, uintptr_t key, uintptr_t thread) noexcept nogil:
    (<size_t*>ctx)[0] += 1


def parked_total():
    """How many threads are parked at this moment, on any word: for tests of what is left behind."""
    cdef size_t count = 0
    visit_parked(count_one, &count)
    return count


def wait_backend():
    """The name of the platform wait that this build sleeps on."""
    return (<bytes>FS_WAIT_BACKEND).decode()


cdef int set_up() except -1:
    global main_thread
    cdef object fresh = object()
    cdef const char* wrong = fs_check_interpreter(<PyObject*>fresh)
    if wrong != NULL:
        raise ImportError(
            f"fastsync does not know this interpreter ({sys.version}): {wrong.decode()}")
    try:
        from _thread import _get_main_thread_ident
        main_thread = _get_main_thread_ident()
    except ImportError:  # before 3.13
        import threading
        main_thread = threading.main_thread().ident
    if fs_at_fork(before_fork, after_fork_in_parent, after_fork_in_child) != 0:
        raise MemoryError("pthread_atfork failed")
    return 0


set_up()
