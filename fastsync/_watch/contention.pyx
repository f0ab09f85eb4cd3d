"""The contention profile's memory: how long who waited for which lock, and for whom.

A call that does not get its lock at once is timed.  It draws a threshold between 0 and
the rate (10 us, say), and is kept if it lasts that long: so always when it lasts longer
than the rate, else with the probability duration / rate, and a weight of rate / duration
makes up for those that were not kept.

While it waits it is on a list, found by the lock's address.  A release looks for waits
of its lock (a counter says whether there can be any), and becomes a share of each one
that is going to be kept: for the time since the release before it, or since the wait
began.  What is left at the end, the way from the release to the waiter, belongs to the
last release.  So the shares of a wait add up to its duration, and each is charged to
the section whose end let it go on.

Stacks are captured outside of sections: by the waiter before it waits, by the releaser
after it has released.  Nothing here runs Python code.
"""
from libc.math cimport log2
from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset
from cpython.exc cimport PyErr_Fetch, PyErr_Restore
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

from fastsync.raw.c_atomic cimport (
    fs_u32_fetch_add_relaxed, fs_u32_load_relaxed, fs_u32_store_relaxed, fs_u8_load_acquire,
    fs_u8_store_relaxed, fs_u8_store_release, fs_uptr_fetch_add_relaxed, fs_uptr_fetch_sub_acq_rel,
    fs_uptr_store_relaxed,
)
from fastsync.raw.c_python cimport PyThreadState, fs_attach, fs_detach
from fastsync.raw.c_wait cimport (
    fs_bucket_lock, fs_bucket_lock_acquire, fs_bucket_lock_release,
    fs_now, fs_thread_id, fs_yield,
)
from fastsync._watch.origins cimport Origin, capture_stack, fs_stack, origin_of, stack_lines
from fastsync._watch.sums cimport (
    abandon_sums, forget_sums, FS_BY_DURATION, FS_BY_PAIR, FS_BY_TIME, FS_BY_WAITER,
    fs_key, FS_OF_LOCK, fs_sum, halve_slots, sum_after, sum_of,
)
from fastsync.raw.parking cimport FS_TIMEOUT, fork_epoch

import os
import threading as _threading

cdef extern from "Python.h":
    PyThreadState* PyThreadState_Get() noexcept
    uint64_t PyThreadState_GetID(PyThreadState*) noexcept

cdef enum:
    BUCKETS = 512
    DRAIN_AT = 256     # kept waits that have not been added up yet
    SLOTS = 1000       # of the time line: more, and two become one
    FIRST_SLOT_NS = 10000000

# A wait that was kept and has ended.
cdef struct fs_waited:
    fs_waiting wait
    int64_t duration
    fs_waited* next

cdef fs_waits_bucket table[BUCKETS]
waits_table = table
cdef fs_bucket_lock books     # guards what follows
cdef fs_waited* ended = NULL
cdef size_t ended_count = 0
cdef bint draining = False
cdef int64_t rate_ns = 10000


# -- waits -------------------------------------------------------------------

cdef inline void lock_bucket(fs_waits_bucket* bucket) noexcept:
    if fs_bucket_lock_acquire(&bucket.lock, fork_epoch()):
        # Of the process that this one was forked from: those threads are not here.
        bucket.first = NULL
        fs_u32_store_relaxed(&bucket.count, 0)  # relaxed: under the lock


cdef inline double random_share(uint64_t seed) noexcept:
    """In [0, 1): splitmix64."""
    seed += <uint64_t>0x9E3779B97F4A7C15u
    seed = (seed ^ (seed >> 30)) * <uint64_t>0xBF58476D1CE4E5B9u
    seed = (seed ^ (seed >> 27)) * <uint64_t>0x94D049BB133111EBu
    seed ^= seed >> 31
    return <double>(seed >> 11) / 9007199254740992.0


cdef void contention_begin(fs_waiting* waiting, object lock, int way, uintptr_t key) noexcept:
    cdef fs_waits_bucket* bucket
    cdef Origin origin
    cdef PyObject *kind
    cdef PyObject *value
    cdef PyObject *traceback
    waiting.key = 0
    PyErr_Fetch(&kind, &value, &traceback)
    try:
        origin = origin_of(lock)
        note_thread()
    except BaseException:
        PyErr_Restore(kind, value, traceback)
        return  # memory is short: this wait is not noted
    PyErr_Restore(kind, value, traceback)
    Py_INCREF(origin)
    waiting.origin = <PyObject*>origin
    waiting.way = way
    waiting.thread = PyThreadState_GetID(PyThreadState_Get())
    waiting.since = waiting.charged = fs_now()
    waiting.rate = rate_ns
    waiting.threshold = <int64_t>(
        random_share(<uint64_t>waiting.since ^ (<uint64_t>fs_thread_id() << 20)) * rate_ns)
    waiting.epoch = fork_epoch()
    waiting.share_count = 0
    waiting.key = key
    bucket = bucket_of(key)
    lock_bucket(bucket)
    waiting.stack = NULL
    waiting.next = bucket.first
    bucket.first = waiting
    fs_u32_fetch_add_relaxed(&bucket.count, 1)  # relaxed: a release that misses it comes first
    fs_bucket_lock_release(&bucket.lock, fork_epoch())
    waiting.stack = capture_stack()


cdef void contention_end(fs_waiting* waiting) noexcept:
    cdef int64_t duration
    if waiting.key == 0:
        return
    duration = fs_now() - waiting.since
    unlist(waiting)
    if duration >= waiting.threshold:
        keep(waiting, duration)
    else:
        forget_wait(waiting)


cdef void contention_drop(fs_waiting* waiting) noexcept:
    if waiting.key != 0:
        unlist(waiting)
        forget_wait(waiting)


cdef void unlist(fs_waiting* waiting) noexcept:
    cdef fs_waits_bucket* bucket
    cdef fs_waiting** link
    if waiting.epoch == fork_epoch():  # else this is the child of a fork made meanwhile
        bucket = bucket_of(waiting.key)
        lock_bucket(bucket)
        link = &bucket.first
        while link[0] != NULL and link[0] != waiting:
            link = &link[0].next
        if link[0] != NULL:
            link[0] = waiting.next
            fs_u32_fetch_add_relaxed(&bucket.count, <uint32_t>-1)  # relaxed: as above
        fs_bucket_lock_release(&bucket.lock, fork_epoch())


cdef void forget_wait(fs_waiting* waiting) noexcept:
    forget_shares(waiting)
    Py_DECREF(<object>waiting.origin)


cdef void keep(fs_waiting* waiting, int64_t duration) noexcept:
    global ended, ended_count
    cdef fs_waited* kept = <fs_waited*>malloc(sizeof(fs_waited))
    if kept == NULL:
        forget_wait(waiting)
        return
    kept.wait = waiting[0]
    kept.duration = duration
    fs_bucket_lock_acquire(&books, fork_epoch())
    kept.next = ended
    ended = kept
    ended_count += 1
    fs_bucket_lock_release(&books, fork_epoch())


cdef void forget_shares(fs_waiting* waiting) noexcept:
    cdef int i
    for i in range(waiting.share_count):
        drop_user(waiting.shares[i].release)
    waiting.share_count = 0


cdef void drop_user(fs_release* release) noexcept:
    # acq_rel: what each user did with it comes before the last one frees it
    if fs_uptr_fetch_sub_acq_rel(&release.users, 1) == 1:
        free(release)


cdef inline void add_user(fs_release* release) noexcept:
    # relaxed: the caller is a user
    fs_uptr_fetch_add_relaxed(&release.users, 1)


cdef int contend(object lock, int way, int64_t deadline, fs_take take, void* ctx) noexcept:
    cdef fs_waiting waiting
    cdef int result = take(ctx, 0)
    if result != FS_TIMEOUT or deadline == 0:
        return result
    contention_begin(&waiting, lock, way, <uintptr_t><PyObject*>lock)
    result = take(ctx, deadline)
    contention_end(&waiting)
    return result


# -- releases ----------------------------------------------------------------

cdef fs_release* contention_release(uintptr_t key) noexcept:
    cdef fs_waits_bucket* bucket = bucket_of(key)
    cdef fs_release* release = NULL
    cdef fs_waiting* waiting
    cdef int64_t now
    if not may_be_waited_for(key):
        return NULL
    lock_bucket(bucket)
    now = fs_now()
    waiting = bucket.first
    while waiting != NULL:
        if waiting.key == key and now - waiting.since >= waiting.threshold:
            if release == NULL:
                release = <fs_release*>malloc(sizeof(fs_release))
                if release == NULL:
                    break
                # relaxed, both: the bucket lock shows it to others
                fs_uptr_store_relaxed(&release.users, 1)
                fs_u8_store_relaxed(&release.done, False)
                release.thread = PyThreadState_GetID(PyThreadState_Get())
                release.stack = NULL
            add_share(waiting, release, now)
        waiting = waiting.next
    fs_bucket_lock_release(&bucket.lock, fork_epoch())
    return release


cdef void add_share(fs_waiting* waiting, fs_release* release, int64_t now) noexcept:
    """Under the bucket's lock."""
    cdef int64_t ns = now - waiting.charged
    cdef fs_share* last = &waiting.shares[SHARES - 1]
    waiting.charged = now
    if waiting.share_count < SHARES:
        waiting.shares[waiting.share_count].release = release
        waiting.shares[waiting.share_count].ns = ns
        waiting.share_count += 1
        add_user(release)
    else:
        # No room: one of the last two stands for both, in proportion to their time.
        if random_share(<uint64_t>now ^ <uintptr_t>waiting) * (last.ns + ns) < ns:
            drop_user(last.release)
            last.release = release
            add_user(release)
        last.ns += ns


cdef void contention_released(fs_release* release) noexcept:
    cdef PyObject *kind
    cdef PyObject *value
    cdef PyObject *traceback
    cdef bint full
    release.stack = capture_stack()
    fs_u8_store_release(&release.done, True)  # release: pairs with the acquire in is_done
    drop_user(release)
    fs_bucket_lock_acquire(&books, fork_epoch())
    full = ended_count >= DRAIN_AT
    fs_bucket_lock_release(&books, fork_epoch())
    PyErr_Fetch(&kind, &value, &traceback)
    try:
        note_thread()
        if full:
            drain()
    except BaseException:
        pass  # memory is short: some waits are not in the report, or a thread has no name
    PyErr_Restore(kind, value, traceback)


cdef void contention_unreleased(fs_release* release) noexcept:
    fs_u8_store_release(&release.done, True)  # release: as in contention_released
    drop_user(release)


# -- adding up ---------------------------------------------------------------
#
# The sums, and the names that the dicts have here, are for the one thread that has set
# `draining`: a name that is bound anew while another thread reads it would give it a dict that
# is freed.

cdef dict known_origins = {}   # number -> Origin
cdef dict known_threads = {}   # number -> (name, identifier)
cdef int64_t slot_ns = FIRST_SLOT_NS
cdef int64_t started = 0
cdef double kept_count = 0


cdef int note_thread() except -1:
    """Remember this thread's name.  Runs no Python code: no property, no lock."""
    cdef uint64_t number = PyThreadState_GetID(PyThreadState_Get())
    known = known_threads.get(number)
    if known is not None and known[0] is not None:
        return 0
    # A thread that is just starting is not there yet, nor is one of C code ever.
    ident = fs_thread_id()
    known_threads[number] = getattr(_threading._active.get(ident), "_name", None), ident
    return 0


cdef inline bint is_done(fs_release* release) noexcept:
    # acquire: pairs with the release in contention_released and contention_unreleased
    return fs_u8_load_acquire(&release.done)


cdef inline void add(const fs_key* key, double weight, double ns) noexcept:
    cdef fs_sum* sum = sum_of(key)
    if sum != NULL:
        sum.count += weight
        sum.ns += ns


cdef int add_up(fs_waiting* wait, int64_t duration) except -1:
    """One wait, of which all releases are known."""
    global kept_count
    cdef double weight = 1.0
    cdef double ns
    cdef int64_t longest = max(duration, <int64_t>1)
    cdef fs_key key
    if duration < wait.rate:
        weight = <double>wait.rate / <double>longest
    ns = weight * duration
    kept_count += 1
    memset(&key, 0, sizeof(key))
    key.way = wait.way
    key.lock = (<Origin><object>wait.origin).number
    add_to_lock(&key, wait, duration, weight)
    key.kind = FS_BY_DURATION
    key.slot = <int64_t>(8 * log2(<double>longest))
    add(&key, weight, ns)
    add_to_slots(&key, wait.since, duration, weight)
    key.slot = 0
    key.kind = FS_BY_WAITER
    key.waiter = wait.thread
    key.waited = wait.stack
    add(&key, weight, ns)
    add_shares(&key, wait, duration, weight)
    return 0


cdef int add_to_lock(fs_key* key, fs_waiting* wait, int64_t duration, double weight) except -1:
    cdef fs_sum* sum
    key.kind = FS_OF_LOCK
    sum = sum_of(key)
    if sum == NULL:
        return 0
    if sum.count == 0:
        known_origins[key.lock] = <object>wait.origin
    sum.count += weight
    sum.ns += weight * duration
    sum.longest = max(sum.longest, duration)
    return 0


cdef void add_shares(fs_key* key, fs_waiting* wait, int64_t duration, double weight) noexcept:
    cdef fs_release* release
    cdef int64_t ns
    cdef int i
    key.kind = FS_BY_PAIR
    for i in range(wait.share_count):
        release = wait.shares[i].release
        ns = wait.shares[i].ns
        if i == wait.share_count - 1:
            ns += wait.since + duration - wait.charged
        key.holder = release.thread
        key.held = release.stack if is_done(release) else NULL
        add(key, weight, weight * ns)


cdef void add_to_slots(fs_key* key, int64_t since, int64_t duration, double weight) noexcept:
    global slot_ns
    cdef int64_t begin = max(since - started, <int64_t>0)
    cdef int64_t end = max(since + duration - started, begin + 1)
    cdef int64_t until
    key.kind = FS_BY_TIME
    while end // slot_ns >= SLOTS:
        slot_ns *= 2
        halve_slots()
    while begin < end:
        key.slot = begin // slot_ns
        until = min((key.slot + 1) * slot_ns, end)
        add(key, weight, weight * (until - begin))
        begin = until


cdef int drain() except -1:
    """Add up what has ended, unless another thread is at it."""
    if begin_draining():
        try:
            drain_all()
        finally:
            draining_ended()
    return 0


cdef bint begin_draining() noexcept:
    """Whether this thread is the one now."""
    global draining
    cdef bint mine
    fs_bucket_lock_acquire(&books, fork_epoch())
    mine = not draining
    draining = True
    fs_bucket_lock_release(&books, fork_epoch())
    return mine


cdef void draining_ended() noexcept:
    global draining
    fs_bucket_lock_acquire(&books, fork_epoch())
    draining = False
    fs_bucket_lock_release(&books, fork_epoch())


cdef void await_draining() noexcept:
    """Become the one, whoever it is now."""
    cdef PyThreadState* state
    while not begin_draining():
        state = fs_detach()
        fs_yield()
        fs_attach(state)


cdef int drain_all() except -1:
    global ended, ended_count
    cdef fs_waited* kept
    cdef fs_waited* next
    fs_bucket_lock_acquire(&books, fork_epoch())
    kept = ended
    ended = NULL
    ended_count = 0
    fs_bucket_lock_release(&books, fork_epoch())
    while kept != NULL:
        next = kept.next
        try:
            await_releasers(&kept.wait)
            add_up(&kept.wait, kept.duration)
        finally:
            forget_shares(&kept.wait)
            Py_DECREF(<object>kept.wait.origin)
            free(kept)
        kept = next
    return 0


cdef void await_releasers(fs_waiting* wait) noexcept:
    """They may still be capturing their stacks; not for ever: then it stays unknown."""
    cdef bint done = False
    cdef int i, patience
    for patience in range(100):
        done = True
        for i in range(wait.share_count):
            done = done and is_done(wait.shares[i].release)
        if done:
            return
        fs_yield()


# -- for fastsync.profile -----------------------------------------------------

def start(rate):
    """Forget what was recorded.  rate: in nanoseconds; waits that last longer are always kept."""
    global rate_ns
    rate_ns = rate
    clear()


cdef int clear() except -1:
    global slot_ns, started, kept_count
    await_draining()
    try:
        drain_all()
        known_origins.clear()
        forget_sums()
        slot_ns = FIRST_SLOT_NS
        started = fs_now()
        kept_count = 0
    finally:
        draining_ended()
    return 0


cdef struct fs_going_on:
    PyObject* origin
    int way
    uint64_t thread
    int64_t since
    const fs_stack* stack


cdef list going_on(dict stacks):
    """[(lock, way, thread, stack, ns so far), ...] of the waits that have not ended."""
    cdef list result = []
    cdef fs_waiting* waiting
    cdef fs_going_on copies[64]
    cdef int count, i, j
    cdef int64_t now = fs_now()
    for i in range(BUCKETS):
        if fs_u32_load_relaxed(&table[i].count) == 0:  # relaxed: a wait that begins now
            continue
        count = 0
        lock_bucket(&table[i])
        waiting = table[i].first
        while waiting != NULL and count < 64:
            if now - waiting.since >= waiting.rate:
                Py_INCREF(<object>waiting.origin)
                copies[count].origin = waiting.origin
                copies[count].way = waiting.way
                copies[count].thread = waiting.thread
                copies[count].since = waiting.since
                copies[count].stack = waiting.stack
                count += 1
            waiting = waiting.next
        fs_bucket_lock_release(&table[i].lock, fork_epoch())
        for j in range(count):
            origin = <Origin><object>copies[j].origin
            Py_DECREF(origin)
            known_origins.setdefault((<Origin>origin).number, origin)
            result.append((
                (<Origin>origin).number, copies[j].way, copies[j].thread,
                number_of(copies[j].stack, stacks), now - max(copies[j].since, started)))
    return result


def recorded():
    """All there is, as plain objects: see fastsync.profile."""
    await_draining()
    try:
        drain_all()
        return copy_recorded()
    finally:
        draining_ended()


cdef object number_of(const fs_stack* stack, dict stacks):
    """The number of a stack, which is then in `stacks`; 0: it is not known."""
    if stack == NULL:
        return 0
    number = stack.number
    if number not in stacks:
        stacks[number] = stack_lines(stack)
    return number


cdef dict copy_recorded():
    cdef dict result = {"locks": {}, "waits": {}, "holders": {}, "pairs": {}, "slots": {}}
    cdef dict stacks = {}
    cdef const fs_sum* sum = sum_after(NULL)
    while sum != NULL:
        if sum.key.lock in known_origins:
            copy_sum(sum, result, stacks)
        sum = sum_after(sum)
    result.update(
        elapsed=fs_now() - started, kept=kept_count, slot=slot_ns, going_on=going_on(stacks),
        origins=dict(known_origins), threads=dict(known_threads), stacks=stacks)
    return result


cdef int copy_sum(const fs_sum* sum, dict result, dict stacks) except -1:
    cdef const fs_key* key = &sum.key
    cdef object number = key.lock
    cdef object way = key.way
    cdef object held = number_of(key.held, stacks)
    cdef object waited = number_of(key.waited, stacks)
    cdef dict into
    cdef list row
    if key.kind == FS_OF_LOCK or key.kind == FS_BY_DURATION:
        into = result["locks"]
        row = into.setdefault((number, way), [0, 0, 0, {}])
        if key.kind == FS_OF_LOCK:
            row[0] = sum.count
            row[1] = sum.ns
            row[2] = sum.longest
        else:
            row[3][key.slot] = sum.count
    elif key.kind == FS_BY_TIME:
        into = result["slots"]
        into[number, way, key.slot] = sum.ns
    elif key.kind == FS_BY_WAITER:
        into = result["waits"]
        into[number, way, key.waiter, waited] = sum.count, sum.ns
    else:
        into = result["pairs"]
        into[number, way, key.holder, held, key.waiter, waited] = sum.ns
        into = result["holders"]  # of all waiters together
        row = into.setdefault((number, way, key.holder, held), [0, 0])
        row[0] += sum.count
        row[1] += sum.ns
    return 0


# -- fork, set-up --------------------------------------------------------------

def _after_fork_in_child():
    """Nobody waits here, and nothing has been recorded."""
    global ended, ended_count, draining, known_origins, known_threads
    ended = NULL  # their memory is lost: it is not known who was at it
    ended_count = 0
    if draining:
        abandon_sums()
    draining = False
    known_origins, known_threads = {}, {}
    clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
