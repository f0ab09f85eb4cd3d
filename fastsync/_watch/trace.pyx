"""Who holds and who waits for which lock.

One lock, `guard`, protects it all: the detector is for finding faults, not for speed.
Under it nothing allocates, runs Python or changes a reference count (a finalizer could
lock something, and come back here).

Why what it says is true, at the moment that `guard` is held:

- A hold is noted after the lock was taken and forgotten before it is released.  So
  whatever is noted is held.
- Whose it is.  A guard's hold is known by the guard: whichever thread ends it, the right
  one is forgotten, and a guard that was not noted (it is older than enable()) changes
  nothing.  A re-entrant lock and an initialization end in the thread that began them.
  A Lock, and a view of an RwLock, may be released by any thread: a hold is the thread's
  that took it, counted for each way of holding; when another thread releases it, the
  lock changes hands and is ignored from then on.
- A thread may release a Lock that another has just taken and not yet noted.  It finds
  nothing to forget; so it spoils all calls that are under way: what they take they do
  not note.
- A wait is noted before the thread tries and forgotten after, in a record of that call
  alone: a signal handler that waits, or tries, inside a wait has its own.
- A wait without a timeout for a lock that another thread holds is blocked for as long as
  it does: it need not be parked.  Where that is not enough (the main thread may be
  running a signal handler; a wait for a condition begins with something else; a reader
  waits for writers that come before it) the parking table must say that the thread
  sleeps there.

A thread is known by the interpreter's number of its thread state, which is never used
again, unlike the system's identifier.

Memory: a hold and a lock's Origin go with the lock (origins.pyx), a thread's record with
its last hold and wait.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from cpython.exc cimport PyErr_Clear, PyErr_Fetch, PyErr_Restore
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF, Py_XINCREF

from fastsync._watch.contention cimport (
    contend, contention_begin, contention_end, contention_release, contention_released, fs_release,
    fs_take, fs_waiting,
)
from fastsync._watch.origins cimport (
    capture_stack, fs_stack, known_origin, note_made, Origin, origin_of, stack_lines,
)
from fastsync.raw.c_atomic cimport fs_u8_load_relaxed, fs_u8_store_relaxed
from fastsync.raw.c_wait cimport FS_FOREVER, fs_thread_id
from fastsync.raw.parking cimport FS_ACQUIRED, FS_ERROR, FS_TIMEOUT, visit_parked
from fastsync.raw.remutex cimport fs_remutex, remutex_lock, remutex_unlock

import os

from fastsync._watch import origins as _origins

cdef extern from "Python.h":
    ctypedef struct PyThreadState:
        pass
    ctypedef struct RawType "PyTypeObject":
        Py_ssize_t tp_basicsize
    RawType* Py_TYPE(PyObject*) noexcept nogil
    PyThreadState* PyThreadState_Get() noexcept
    uint64_t PyThreadState_GetID(PyThreadState*) noexcept

cdef enum:
    FS_PARKED = 1
    FS_CLAIMED = 2  # of an RwLock: keeps new readers out, and waits for the present ones
    CHAINS = 256
    ORDERS = 16   # of the locks that a thread holds, so many make an order with the next

cdef fs_remutex guard
cdef fs_thread* threads[CHAINS]
cdef fs_hold* holds[CHAINS]    # by lock
cdef uint64_t serial = 0
cdef bint raising = False
cdef object refuse = None      # refuse(serial): raises; or whether to ask again
cdef object report_order = None


# -- small parts: all under `guard` ------------------------------------------

cdef inline uint64_t this_number() noexcept:
    return PyThreadState_GetID(PyThreadState_Get())


cdef fs_thread* find_thread(uint64_t number) noexcept:
    cdef fs_thread* thread = threads[number % CHAINS]
    while thread != NULL and thread.number != number:
        thread = thread.next
    return thread


cdef fs_thread* this_thread() noexcept:
    """Its record, made if need be; NULL when memory is short."""
    cdef uint64_t number = this_number()
    cdef fs_thread* thread = find_thread(number)
    if thread == NULL:
        thread = <fs_thread*>calloc(1, sizeof(fs_thread))
        if thread != NULL:
            thread.number = number
            thread.ident = fs_thread_id()
            thread.next = threads[number % CHAINS]
            threads[number % CHAINS] = thread
    return thread


cdef void drop_thread_if_idle(fs_thread* thread) noexcept:
    cdef fs_thread** link
    if thread.holds != NULL or thread.waits != NULL:
        return
    link = &threads[thread.number % CHAINS]
    while link[0] != thread:
        link = &link[0].next
    link[0] = thread.next
    free(thread)


cdef inline fs_hold** chain_of(PyObject* origin) noexcept:
    return &holds[(<uintptr_t>origin >> 4) % CHAINS]


cdef fs_hold* find_hold(PyObject* origin, uint64_t number, int way, void* by) noexcept:
    """A guard's hold; or, without one, this thread's in this way."""
    cdef fs_hold* hold = chain_of(origin)[0]
    while hold != NULL:
        if hold.origin == origin and hold.guard == by and (
                by != NULL or (hold.thread.number == number and hold.way & FS_WAY == way)):
            return hold
        hold = hold.other
    return NULL


cdef void unlink_hold(fs_hold* hold, fs_hold** dropped) noexcept:
    """Off both lists, onto `dropped`: the caller frees those after `guard`."""
    cdef fs_hold** link = chain_of(hold.origin)
    while link[0] != hold:
        link = &link[0].other
    link[0] = hold.other
    link = &hold.thread.holds
    while link[0] != hold:
        link = &link[0].next
    link[0] = hold.next
    drop_thread_if_idle(hold.thread)
    hold.thread = NULL
    hold.next = dropped[0]
    dropped[0] = hold


cdef void link_hold(fs_hold* hold, fs_thread* thread) noexcept:
    cdef fs_hold** chain = chain_of(hold.origin)
    hold.thread = thread
    hold.next = thread.holds
    thread.holds = hold
    hold.other = chain[0]
    chain[0] = hold


cdef void free_holds(fs_hold* hold) noexcept:
    """Not under `guard`."""
    cdef fs_hold* next
    while hold != NULL:
        next = hold.next
        Py_DECREF(<object>hold.origin)
        free(hold)
        hold = next


cdef void unlink_wait(fs_wait* wait) noexcept:
    cdef fs_wait** link = &wait.thread.waits
    while link[0] != wait:
        link = &link[0].outer
    link[0] = wait.outer
    drop_thread_if_idle(wait.thread)
    wait.thread = NULL


cdef void drop_holds_of(PyObject* origin, bint of_threads_only, fs_hold** dropped) noexcept:
    cdef fs_hold* hold = chain_of(origin)[0]
    cdef fs_hold* next
    while hold != NULL:
        next = hold.other
        if hold.origin == origin and not (of_threads_only and hold.guard != NULL):
            unlink_hold(hold, dropped)
        hold = next


cdef void spoil_waits(PyObject* origin) noexcept:
    cdef fs_thread* thread
    cdef fs_wait* wait
    cdef int i
    for i in range(CHAINS):
        thread = threads[i]
        while thread != NULL:
            wait = thread.waits
            while wait != NULL:
                if wait.origin == origin:
                    wait.spoiled = True
                wait = wait.outer
            thread = thread.next


# -- the search for a circle: under `guard` ------------------------------------

cdef bint keeps_out(int held, int wanted, bint same_thread) noexcept:
    """Whether a hold keeps a wait from ending."""
    if wanted == FS_EXCLUSIVE:
        return True
    if wanted == FS_REENTRANT:
        return not same_thread
    if wanted == FS_UPGRADE:
        return held == FS_SHARED
    if wanted == FS_UPGRADABLE:
        return held == FS_EXCLUSIVE or held == FS_UPGRADABLE
    return held == FS_EXCLUSIVE


cdef void reach(fs_thread* thread, fs_thread** todo) noexcept:
    if not thread.seen:
        thread.seen = True
        thread.todo = todo[0]
        todo[0] = thread


cdef void reach_blockers(fs_wait* wait, fs_thread** todo) noexcept:
    cdef fs_hold* hold = chain_of(wait.origin)[0]
    cdef fs_thread* thread
    cdef fs_wait* other
    cdef int i
    while hold != NULL:
        if hold.origin == wait.origin and keeps_out(
                hold.way & FS_WAY, wait.way & FS_WAY, hold.thread == wait.thread):
            reach(hold.thread, todo)
        hold = hold.other
    if wait.way & FS_WAY not in (FS_JOIN, FS_SHARED, FS_UPGRADABLE):
        return
    # Rare: a thread that is joined, and writers that a reader lets pass.
    for i in range(CHAINS):
        thread = threads[i]
        while thread != NULL:
            other = thread.waits
            if wait.way == FS_JOIN:
                if thread.ident == wait.joined:
                    reach(thread, todo)
            elif other != NULL and other.origin == wait.origin and (
                    other.way & FS_WAY == FS_EXCLUSIVE or other.way & FS_WAY == FS_UPGRADE):
                reach(thread, todo)
            thread = thread.next


cdef bint may_close_circle(fs_thread* me) noexcept:
    """Whether this thread, which has just noted a wait, may wait for itself."""
    cdef fs_thread* todo = NULL
    cdef fs_thread* thread
    cdef int i
    for i in range(CHAINS):
        thread = threads[i]
        while thread != NULL:
            thread.seen = False
            thread = thread.next
    thread = me
    while True:
        # Only the innermost wait is where it is.
        if thread.waits != NULL and thread.waits.blocks and thread.waits.forever:
            reach_blockers(thread.waits, &todo)
        if me.seen:
            return True
        if todo == NULL:
            return False
        thread = todo
        todo = thread.todo


# -- waits -------------------------------------------------------------------

cdef void begin_wait(fs_wait* wait, Origin origin, int way, bint blocks, bint forever) noexcept:
    """Under `guard`."""
    global serial
    wait.thread = this_thread()
    if wait.thread == NULL:
        return
    serial += 1
    wait.serial = serial
    wait.origin = <PyObject*>origin
    wait.way = way
    wait.blocks = blocks
    wait.forever = wait.patient = forever
    wait.settled = wait.spoiled = wait.asleep = False
    wait.parked = 0
    wait.word = wait.joined = 0
    wait.held = NULL
    wait.outer = wait.thread.waits
    wait.thread.waits = wait


cdef void end_wait(fs_wait* wait, fs_hold* hold) noexcept:
    """Forget the wait; note the hold, if it is not NULL."""
    cdef fs_hold* mine
    cdef fs_hold* dropped = NULL
    cdef bint spoiled
    cdef fs_thread* thread
    remutex_lock(&guard)
    spoiled = wait.spoiled
    if hold != NULL:
        thread = NULL
        if not spoiled and detecting() and not (<Origin><object>hold.origin).ignored:
            thread = this_thread()
        if thread == NULL:
            hold.next = dropped
            dropped = hold
        else:
            mine = find_hold(hold.origin, thread.number, hold.way & FS_WAY, hold.guard)
            if mine != NULL and hold.guard == NULL:
                mine.depth += hold.depth
                hold.next = dropped
                dropped = hold
            else:
                if mine != NULL:
                    unlink_hold(mine, &dropped)
                    thread = this_thread()
                if thread != NULL:
                    link_hold(hold, thread)
    if wait.thread != NULL:
        unlink_wait(wait)
    remutex_unlock(&guard)
    free_holds(dropped)


cdef inline bint detecting() noexcept:
    return fs_u8_load_relaxed(&trace_flag) & FS_DETECTING  # relaxed: as tracing()


cdef inline bint profiling() noexcept:
    return fs_u8_load_relaxed(&trace_flag) & FS_PROFILING  # relaxed: as tracing()


cdef inline int held_way(int way) noexcept:
    cdef int block = way & FS_BLOCK
    way &= FS_WAY
    if way == FS_SHARED_RECURSIVE:
        return FS_SHARED | block
    return (FS_EXCLUSIVE if way == FS_UPGRADE else way) | block


cdef fs_hold* new_hold(Origin origin, int way, void* by, uint32_t depth) noexcept:
    cdef fs_hold* hold = <fs_hold*>malloc(sizeof(fs_hold))
    if hold != NULL:
        Py_INCREF(origin)
        hold.origin = <PyObject*>origin
        hold.guard = by
        hold.way = held_way(way)
        hold.depth = depth
        hold.where = capture_stack()
        hold.thread = NULL
        hold.next = hold.other = NULL
    return hold


cdef int detect_begin(fs_wait* wait, object lock, int way, int64_t deadline, void* by) except -1:
    """Note the wait; raises DeadlockError for one that would never end."""
    cdef PyObject* firsts[ORDERS]
    cdef size_t count = 0
    cdef bint close = False
    cdef Origin origin = origin_of(lock)
    wait.lock = <PyObject*>lock
    wait.guard = by
    wait.thread = NULL
    Py_INCREF(origin)
    remutex_lock(&guard)
    wait.origin = <PyObject*>origin
    if detecting():
        begin_wait(wait, origin, way, deadline != 0, deadline == FS_FOREVER)
        if wait.thread != NULL and deadline == FS_FOREVER:
            count = locks_before(wait, firsts)
            close = raising and may_close_circle(wait.thread)
    remutex_unlock(&guard)
    try:
        note_orders(firsts, count, origin)
        if close:
            check_circle(wait, lock)
    except:
        detect_end(wait, False)
        raise
    return 0


cdef int check_circle(fs_wait* wait, object lock) except -1:
    cdef bint close = True
    while close and refuse is not None:
        # Nothing is sure yet: some other thread may be about to do something else.
        remutex_lock(&guard)
        wait.settled = True
        remutex_unlock(&guard)
        try:
            close = refuse(wait.serial)
        finally:
            remutex_lock(&guard)
            wait.settled = False
            close = close and wait.thread != NULL and may_close_circle(wait.thread)
            remutex_unlock(&guard)
    return 0


cdef void detect_end(fs_wait* wait, bint acquired) noexcept:
    cdef Origin origin = <Origin><object>wait.origin
    cdef fs_hold* hold = NULL
    cdef PyObject *kind
    cdef PyObject *value
    cdef PyObject *traceback
    PyErr_Fetch(&kind, &value, &traceback)
    if acquired and wait.way & FS_WAY != FS_SIGNAL:
        hold = new_hold(origin, wait.way, wait.guard, 1)
    end_wait(wait, hold)
    Py_DECREF(origin)
    PyErr_Restore(kind, value, traceback)


cdef int trace_lock(
    object lock, int way, int64_t deadline, void* by, fs_take take, void* ctx,
) except -1:
    cdef fs_wait wait
    cdef int result
    if not detecting():
        return contend(lock, way & FS_WAY, deadline, take, ctx)
    detect_begin(&wait, lock, way, deadline, by)
    if profiling():
        result = contend(lock, way & FS_WAY, deadline, take, ctx)
    else:
        result = take(ctx, deadline)
    detect_end(&wait, result == FS_ACQUIRED)
    return result


cdef void trace_relock(
    object lock, int way, uint32_t depth, void* by, fs_take take, void* ctx,
) noexcept:
    cdef fs_wait wait
    cdef fs_hold* hold = NULL
    cdef Origin origin = None
    if detecting():
        origin = known_or_new(lock)
    if origin is None:
        contend(lock, way & FS_WAY, FS_FOREVER, take, ctx)
        return
    wait.lock = <PyObject*>lock
    wait.thread = NULL
    wait.guard = by
    remutex_lock(&guard)
    wait.origin = <PyObject*>origin
    wait.spoiled = False
    if detecting():
        begin_wait(&wait, origin, way, True, True)
    remutex_unlock(&guard)
    if profiling():
        contend(lock, way & FS_WAY, FS_FOREVER, take, ctx)
    else:
        take(ctx, FS_FOREVER)
    hold = new_hold(origin, way, by, depth)
    end_wait(&wait, hold)


cdef Origin known_or_new(object lock):
    cdef PyObject *kind
    cdef PyObject *value
    cdef PyObject *traceback
    found = None
    PyErr_Fetch(&kind, &value, &traceback)
    try:
        found = origin_of(lock)
    except BaseException:
        pass  # memory is short: then it is not noted
    PyErr_Restore(kind, value, traceback)
    return found


cdef void trace_taken(object lock, int way, void* by) noexcept:
    cdef fs_wait wait
    cdef Origin origin
    if not detecting():
        return
    origin = known_or_new(lock)
    if origin is None:
        return
    wait.thread = NULL
    wait.spoiled = False
    end_wait(&wait, new_hold(origin, way, by, 1))


# -- releases ----------------------------------------------------------------

cdef void trace_release(fs_section* section, object lock, int way, void* by) noexcept:
    if detecting() and way & FS_WAY != FS_SIGNAL:
        forget_hold(lock, way & FS_WAY, by, False)
    section.release = contention_release(<PyObject*>lock) if profiling() else NULL


cdef void trace_release_all(fs_section* section, object lock, int way) noexcept:
    if detecting():
        forget_hold(lock, way & FS_WAY, NULL, True)
    section.release = contention_release(<PyObject*>lock) if profiling() else NULL


cdef void trace_released(fs_section* section) noexcept:
    if section.release != NULL:
        contention_released(section.release)


cdef void forget_hold(object lock, int way, void* by, bint whole) noexcept:
    cdef Origin origin = known_origin(lock)
    cdef fs_hold* dropped = NULL
    cdef fs_hold* hold
    cdef uint64_t number = this_number()
    if origin is None:
        return
    remutex_lock(&guard)
    hold = find_hold(<PyObject*>origin, number, way, by)
    if hold != NULL:
        if hold.thread.number != number:
            # A guard that another thread took: this lock changes hands.
            origin.ignored = True
        hold.depth -= 1
        if hold.depth == 0 or whole:
            unlink_hold(hold, &dropped)
    elif by == NULL and way != FS_REENTRANT:
        if held_by_thread(<PyObject*>origin, way):
            origin.ignored = way != FS_PERMIT
            forget_one_or_all(<PyObject*>origin, way, &dropped)
        else:
            spoil_waits(<PyObject*>origin)
    remutex_unlock(&guard)
    free_holds(dropped)


cdef bint held_by_thread(PyObject* origin, int way) noexcept:
    """Under `guard`: whether any thread holds it so, without a guard."""
    cdef fs_hold* hold = chain_of(origin)[0]
    while hold != NULL:
        if hold.origin == origin and hold.guard == NULL and hold.way & FS_WAY == way:
            return True
        hold = hold.other
    return False


cdef void forget_one_or_all(PyObject* origin, int way, fs_hold** dropped) noexcept:
    """Under `guard`: a thread that holds nothing releases.  Of a lock nothing is certain any
    more; a permit less is held."""
    cdef fs_hold* hold
    if way != FS_PERMIT:
        drop_holds_of(origin, True, dropped)
        spoil_waits(origin)
        return
    hold = chain_of(origin)[0]
    while hold.origin != origin or hold.way & FS_WAY != FS_PERMIT:
        hold = hold.other
    hold.depth -= 1
    if hold.depth == 0:
        unlink_hold(hold, dropped)


cdef void trace_changed(object lock, void* by, void* heir, int way) noexcept:
    cdef Origin origin
    cdef fs_hold* hold
    if not detecting():
        return
    origin = known_origin(lock)
    if origin is None:
        return
    remutex_lock(&guard)
    hold = find_hold(<PyObject*>origin, this_number(), way, by)
    if hold != NULL:
        hold.guard = heir
        hold.way = way  # a new guard, of which it is not known that a block ends it
    remutex_unlock(&guard)


cdef void trace_block(object lock, void* by) noexcept:
    cdef Origin origin
    cdef fs_hold* hold
    if not detecting():
        return
    origin = known_origin(lock)
    if origin is None:
        return
    remutex_lock(&guard)
    hold = find_hold(<PyObject*>origin, this_number(), 0, by)
    if hold != NULL:
        hold.way |= FS_BLOCK
    remutex_unlock(&guard)


cdef void trace_disowned(object lock, void* by) noexcept:
    cdef Origin origin
    cdef fs_hold* dropped = NULL
    cdef fs_hold* hold
    if not detecting():
        return
    origin = known_origin(lock)
    if origin is None:
        return
    remutex_lock(&guard)
    if by == NULL:
        drop_holds_of(<PyObject*>origin, False, &dropped)
        spoil_waits(<PyObject*>origin)
    else:
        hold = find_hold(<PyObject*>origin, this_number(), 0, by)
        if hold != NULL:
            unlink_hold(hold, &dropped)
    remutex_unlock(&guard)
    free_holds(dropped)


# -- conditions --------------------------------------------------------------

cdef void trace_condition(
    fs_wait* wait, object condition, object lock, int way, void* by, void* word, int64_t deadline,
) noexcept:
    cdef Origin origin = None
    cdef fs_hold* hold
    cdef fs_hold* dropped = NULL
    cdef fs_release* release
    wait.thread = NULL
    wait.origin = NULL
    wait.held = NULL
    wait.timing.key = 0
    if profiling():
        release = contention_release(<PyObject*>lock)
        if release != NULL:
            contention_released(release)  # before it: the call sleeps right after releasing
        contention_begin(&wait.timing, condition, FS_SIGNAL, <uintptr_t>wait)
    if detecting():
        origin = known_or_new(lock)
    if origin is None:
        return
    wait.lock = <PyObject*>lock
    wait.guard = by
    Py_INCREF(origin)
    remutex_lock(&guard)
    wait.origin = <PyObject*>origin
    if detecting():
        hold = find_hold(<PyObject*>origin, this_number(), way & FS_WAY, by)
        if hold != NULL:
            unlink_hold(hold, &dropped)
        elif by == NULL and way & FS_WAY != FS_REENTRANT:
            spoil_waits(<PyObject*>origin)
        # For the lock that comes after the notification there is no timeout.
        begin_wait(wait, origin, way, True, True)
        wait.patient = deadline == FS_FOREVER
        wait.word = <uintptr_t>word
        wait.held = dropped
    remutex_unlock(&guard)


cdef void trace_notified(fs_wait* wait) noexcept:
    cdef PyObject *kind
    cdef PyObject *value
    cdef PyObject *traceback
    cdef PyObject* origin = wait.origin
    cdef fs_hold* hold = wait.held
    contention_end(&wait.timing)
    if origin == NULL:
        return
    PyErr_Fetch(&kind, &value, &traceback)
    if hold == NULL:
        hold = new_hold(<Origin><object>origin, wait.way, wait.guard, 1)
    else:
        hold.next = NULL
    end_wait(wait, hold)
    Py_DECREF(<object>origin)
    PyErr_Restore(kind, value, traceback)


cdef void trace_signal(fs_wait* wait, object lock, int64_t deadline) noexcept:
    cdef Origin origin = None
    wait.thread = NULL
    wait.origin = NULL
    wait.timing.key = 0
    if profiling():
        contention_begin(&wait.timing, lock, FS_SIGNAL, <uintptr_t><PyObject*>lock)
    if detecting():
        origin = known_or_new(lock)
    if origin is None:
        return
    wait.lock = <PyObject*>lock
    wait.guard = NULL
    Py_INCREF(origin)
    remutex_lock(&guard)
    wait.origin = <PyObject*>origin
    if detecting():
        begin_wait(wait, origin, FS_SIGNAL, True, deadline == FS_FOREVER)
    remutex_unlock(&guard)


cdef void trace_signalled(fs_wait* wait) noexcept:
    cdef PyObject* origin = wait.origin
    contention_end(&wait.timing)
    if origin != NULL:
        end_wait(wait, NULL)
        Py_DECREF(<object>origin)


cdef void trace_made(object lock) noexcept:
    note_made(lock)


# -- joining -----------------------------------------------------------------

cdef class Join:
    """That this thread waits for the end of another, from begin() to end()."""
    cdef fs_wait wait
    cdef object target

    def __init__(self, target):
        self.target = target

    def begin(self):
        """Note it; DeadlockError when that would never end."""
        cdef Origin origin = origin_of(self.target)
        cdef bint close = False
        self.wait.thread = NULL
        self.wait.lock = <PyObject*>self.target
        self.wait.guard = NULL
        self.wait.spoiled = True
        Py_INCREF(origin)
        ident = self.target.ident
        remutex_lock(&guard)
        self.wait.origin = <PyObject*>origin
        if detecting():
            begin_wait(&self.wait, origin, FS_JOIN, True, True)
            self.wait.joined = ident
            close = raising and self.wait.thread != NULL and may_close_circle(self.wait.thread)
        remutex_unlock(&guard)
        if close:
            try:
                check_circle(&self.wait, self.target)
            except:
                self.end()
                raise

    def end(self):
        """Forget it."""
        cdef PyObject* origin = self.wait.origin
        if origin != NULL:
            end_wait(&self.wait, NULL)
            self.wait.origin = NULL
            Py_DECREF(<object>origin)


# -- the order of locks ------------------------------------------------------
#
# Origin.after: {Origin of a lock taken under it: _Edge}.  No lock protects it, and it runs no
# Python code, so no signal handler either: each operation on a dict is one step, an edge is
# there before its thread looks for a circle, so of two threads one finds it.

cdef class _Edge:
    """That one lock was held when another was taken: each time with other locks around."""
    cdef list times       # of _Time

    def __cinit__(self):
        self.times = []


cdef class _Time:
    cdef frozenset gates  # numbers of the other locks that were held
    cdef const fs_stack* where
    cdef uint64_t thread
    cdef uintptr_t ident


cdef size_t locks_before(fs_wait* wait, PyObject** firsts) noexcept:
    """Under `guard`: with a reference to each, the locks that this thread holds."""
    cdef fs_hold* hold = wait.thread.holds
    cdef size_t count = 0
    if (<Origin><object>wait.origin).ignored:
        return 0
    while hold != NULL and count < ORDERS:
        if hold.origin == wait.origin:
            return 0  # it has the lock already
        firsts[count] = hold.origin
        count += 1
        hold = hold.next
    for i in range(<int>count):
        Py_INCREF(<object>firsts[i])
    return count


cdef int note_orders(PyObject** firsts, size_t count, Origin second) except -1:
    cdef list before = []
    cdef size_t i
    for i in range(count):
        before.append(<object>firsts[i])
        Py_DECREF(<object>firsts[i])
    if not before or report_order is None:
        return 0
    try:
        for first in before:
            note_order(<Origin>first, second, before)
    except MemoryError:
        pass  # the program need not notice the detector
    return 0


cdef int note_order(Origin first, Origin second, list before) except -1:
    cdef _Edge edge
    cdef _Time time
    cdef frozenset gates = frozenset([(<Origin>o).number for o in before if o is not first])
    found = first.after.get(second)
    if found is None:
        found = first.after.setdefault(second, _Edge())
    edge = found
    for each in list(edge.times):
        if (<_Time>each).gates <= gates:
            return 0  # nothing new
    time = _Time.__new__(_Time)
    time.gates = gates
    time.where = capture_stack()
    time.thread = this_number()
    time.ident = fs_thread_id()
    if len(edge.times) >= 8:
        return 0
    edge.times.append(time)
    find_violations(first, second, time)
    return 0


cdef int find_violations(Origin first, Origin second, _Time time) except -1:
    """Look for ways from `second` back to `first` on which no lock is held all along."""
    cdef list ways = [([first, second], [time], time.gates)]
    cdef set seen = set()
    cdef list path, times
    cdef size_t looked = 0
    for path, times, gates in ways:
        looked += 1
        if looked > 2000:
            return 0  # bounded: a longer circle may be missed
        last = path[len(path) - 1]
        for following, edge in list((<Origin>last).after.items()):
            if following is not first and following in path:
                continue
            for each in list((<_Edge>edge).times):
                common = gates & (<_Time>each).gates
                if following is first:
                    if not common:  # else a lock that is held all along keeps them apart
                        add_violation(path, [*times, each])
                        return 0
                    continue
                state = (following, common)
                if state not in seen:
                    seen.add(state)
                    ways.append(([*path, following], [*times, each], common))
    return 0


cdef list violations = []
cdef set known_violations = set()


cdef int add_violation(list path, list times) except -1:
    key = frozenset([(<Origin>o).number for o in path])
    if key in known_violations:
        return 0
    known_violations.add(key)
    steps = [(stack_lines((<_Time>t).where), (<_Time>t).thread, (<_Time>t).ident) for t in times]
    violations.append((list(path), steps))
    return 0


# -- what fastsync.deadlock needs --------------------------------------------

cdef void mark_parked(void* ctx, uintptr_t key, uintptr_t ident) noexcept nogil:
    cdef fs_thread* thread
    cdef fs_wait* wait
    cdef uintptr_t start
    cdef int i
    for i in range(CHAINS):
        thread = threads[i]
        while thread != NULL:
            wait = thread.waits
            if wait != NULL and thread.ident == ident:
                wait.asleep = True
                start = <uintptr_t>wait.lock
                if (key == wait.word if wait.word != 0 else
                        start <= key < start + <uintptr_t>Py_TYPE(wait.lock).tp_basicsize):
                    wait.parked = FS_CLAIMED if key & 1 else FS_PARKED
            thread = thread.next


# What a snapshot copies: of each hold, and of each thread's innermost wait.
cdef struct copied:
    PyObject* origin
    uint64_t number
    uintptr_t ident
    int way
    bint by_guard
    const fs_stack* where
    bint forever
    int parked
    bint settled
    bint conditional
    bint asleep
    uintptr_t joined
    uint64_t serial


cdef void count_all(size_t* held, size_t* waiting) noexcept:
    cdef fs_thread* thread
    cdef fs_hold* hold
    cdef int i
    held[0] = waiting[0] = 0
    for i in range(CHAINS):
        thread = threads[i]
        while thread != NULL:
            hold = thread.holds
            while hold != NULL:
                held[0] += 1
                hold = hold.next
            if thread.waits != NULL:
                thread.waits.parked = 0
                thread.waits.asleep = False
                waiting[0] += 1
            thread = thread.next


cdef void copy_all(copied* held, copied* waiting) noexcept:
    cdef fs_thread* thread
    cdef fs_hold* hold
    cdef fs_wait* wait
    cdef int i
    for i in range(CHAINS):
        thread = threads[i]
        while thread != NULL:
            hold = thread.holds
            while hold != NULL:
                held.origin = hold.origin
                held.number = thread.number
                held.ident = thread.ident
                held.way = hold.way
                held.by_guard = hold.guard != NULL
                held.where = hold.where
                held += 1
                hold = hold.next
            wait = thread.waits
            if wait != NULL:
                waiting.origin = wait.origin
                waiting.number = thread.number
                waiting.ident = thread.ident
                waiting.way = wait.way
                waiting.forever = wait.blocks and wait.forever
                waiting.parked = wait.parked
                waiting.settled = wait.settled
                waiting.conditional = wait.word != 0
                waiting.asleep = wait.asleep and wait.patient
                waiting.joined = wait.joined
                waiting.serial = wait.serial
                waiting += 1
            thread = thread.next


cdef void keep_origins(copied* each, size_t count) noexcept:
    cdef size_t i
    for i in range(count):
        Py_INCREF(<object>each[i].origin)


def snapshot():
    """All holds, and each thread's innermost wait, at one moment.

    (Origin, thread, ident, way, of a guard, stack) of each hold, and (Origin, thread, ident,
    way, waits for ever, parked, settled, for a condition, joined ident, serial,
    asleep without a timeout) of each wait.
    """
    cdef size_t held, waiting, i
    cdef copied* all_held
    cdef copied* all_waiting
    cdef list of_holds = []
    cdef list of_waits = []
    remutex_lock(&guard)
    count_all(&held, &waiting)
    visit_parked(mark_parked, NULL)
    all_held = <copied*>calloc(held + 1, sizeof(copied))
    all_waiting = <copied*>calloc(waiting + 1, sizeof(copied))
    if all_held != NULL and all_waiting != NULL:
        copy_all(all_held, all_waiting)
        keep_origins(all_held, held)  # more references harm nobody here
        keep_origins(all_waiting, waiting)
    remutex_unlock(&guard)
    try:
        if all_held == NULL or all_waiting == NULL:
            raise MemoryError
        for i in range(held):
            origin = <object>all_held[i].origin
            Py_DECREF(origin)
            of_holds.append((
                origin, all_held[i].number, all_held[i].ident, all_held[i].way,
                bool(all_held[i].by_guard), stack_lines(all_held[i].where)))
        for i in range(waiting):
            origin = <object>all_waiting[i].origin
            Py_DECREF(origin)
            of_waits.append((
                origin, all_waiting[i].number, all_waiting[i].ident, all_waiting[i].way,
                bool(all_waiting[i].forever), all_waiting[i].parked,
                bool(all_waiting[i].settled), bool(all_waiting[i].conditional),
                all_waiting[i].joined, all_waiting[i].serial, bool(all_waiting[i].asleep)))
    finally:
        free(all_held)
        free(all_waiting)
    return of_holds, of_waits


def order_violations():
    """[([Origin, ...], [(stack, thread, ident), ...]), ...]: see deadlock.OrderViolation."""
    return list(violations)


def edges():
    """{number of a lock: the numbers of those taken under it}: for tests of what is kept."""
    return {(<Origin>o).number: [(<Origin>p).number for p in list((<Origin>o).after)]
            for o in _origins.all_origins()}


cdef void forget_all(bint keep_mine, fs_hold** dropped) noexcept:
    """Under `guard`: the holds and waits of all threads, or of all others."""
    cdef uint64_t me = this_number()
    cdef fs_thread* thread
    cdef fs_thread* next
    cdef int i
    for i in range(CHAINS):
        thread = threads[i]
        while thread != NULL:
            next = thread.next
            if not (keep_mine and thread.number == me):
                while thread.waits != NULL and not keep_mine:
                    # Its call goes on, and finds out when it ends.
                    thread.waits.thread = NULL
                    thread.waits = thread.waits.outer
                thread.waits = NULL
                if thread.holds == NULL:
                    drop_thread_if_idle(thread)
                else:
                    while thread.holds.next != NULL:
                        unlink_hold(thread.holds, dropped)
                    unlink_hold(thread.holds, dropped)  # and the thread's record with it
            thread = next


def switch(on, raises=False, function=None):
    """Begin with nothing known, or forget who holds and waits.

    function(serial of the wait) is called, with `raises`, for a wait that may close a circle: it
    raises, or says whether it shall be called again.
    """
    global refuse, raising, report_order
    cdef fs_hold* dropped = NULL
    cdef Origin origin
    refuse = function
    report_order = True
    if on:
        for each in _origins.all_origins():
            origin = each
            origin.after.clear()
            origin.ignored = False
        violations.clear()
        known_violations.clear()
    remutex_lock(&guard)
    raising = on and raises
    forget_all(False, &dropped)
    set_flag(FS_DETECTING, on)
    remutex_unlock(&guard)
    free_holds(dropped)


cdef void set_flag(int which, bint on) noexcept:
    """Under `guard`."""
    # relaxed: see tracing()
    cdef int seen = fs_u8_load_relaxed(&trace_flag)
    fs_u8_store_relaxed(&trace_flag, <unsigned char>(seen | which if on else seen & ~which))


def is_on():
    return bool(detecting())


def profile(on):
    """Begin to note who waits for which lock and how long, or stop: see contention.pyx."""
    remutex_lock(&guard)
    set_flag(FS_PROFILING, on)
    remutex_unlock(&guard)


def is_profiling():
    return bool(profiling())


def is_raising():
    return bool(raising)


def _forget_holds_of_dead_locks():
    cdef fs_hold* dropped = NULL
    cdef fs_hold* hold
    cdef fs_hold* next
    cdef int i
    remutex_lock(&guard)
    for i in range(CHAINS):
        hold = holds[i]
        while hold != NULL:
            next = hold.other
            if (<Origin><object>hold.origin).dead:
                unlink_hold(hold, &dropped)
            hold = next
    remutex_unlock(&guard)
    free_holds(dropped)


_origins.on_sweep(_forget_holds_of_dead_locks)


# -- fork --------------------------------------------------------------------

def _before_fork():
    remutex_lock(&guard)


def _after_fork_in_parent():
    remutex_unlock(&guard)


def _after_fork_in_child():
    """The other threads, their holds and their waits do not exist here."""
    cdef fs_hold* dropped = NULL
    forget_all(True, &dropped)
    remutex_unlock(&guard)
    free_holds(dropped)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent,
                        after_in_child=_after_fork_in_child)
