"""Which thread holds and which waits for which lock: the tables of the deadlock detector.

One lock, `records`, protects them: the detector is for finding faults, not for speed.
Under it nothing allocates, runs Python or changes a reference count (a finalizer could
lock something, and come back here); but for a thread's record, which is plain memory.

Why what the tables say is true, at the moment that `records` is held:

- A hold is noted after the lock was taken and forgotten before it is released.  So
  whatever is noted is held.
- The detector may be switched on and off at any time; a switch empties the tables.  A call
  that takes notes its hold only if the tables still have its wait, that is, if there was no
  switch since it began: so all that happened to the lock meanwhile is known.  A call that
  releases looks whether the detector is on, first of all.  If it is not, the hold is not in
  the tables, and does not get there: no later call can note it.
- Whose it is.  A guard's hold is known by the guard: whichever thread ends it, the right
  one is forgotten, and a guard that was not noted (it is older than enable()) changes
  nothing.  A re-entrant lock and an initialization end in the thread that began them.
  A Lock, and a view of an RwLock, may be released by any thread: a hold is the thread's
  that took it, counted for each way of holding.
- When another thread than the one that took it releases a lock, or changes a guard, the
  lock changes hands: nobody can say which thread will release it, so it is ignored from
  then on, whatever is switched.
- A thread may release a Lock that another has just taken and not yet noted.  It finds
  nothing to forget; so it spoils all calls that are under way: what they take they do
  not note.
- Where there is no memory to find out what is to be forgotten, everything is.
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
from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

from fastsync._watch.origins cimport capture_stack, fs_stack, is_suspendable, Origin, stack_lines
from fastsync.raw.c_wait cimport fs_thread_id
from fastsync.raw.parking cimport visit_parked
from fastsync.raw.remutex cimport remutex_lock_inner, remutex_unlock_inner

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

cdef fs_thread* threads[CHAINS]
cdef fs_hold* holds[CHAINS]    # by lock
cdef uint64_t serial = 0


# -- small parts: all under `records` ----------------------------------------

cdef uint64_t this_number() noexcept:
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
    """Off both lists, onto `dropped`: the caller frees those after `records`."""
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
    """Not under `records`."""
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


cdef void drop_holds_of(PyObject* origin, fs_hold** dropped) noexcept:
    cdef fs_hold* hold = chain_of(origin)[0]
    cdef fs_hold* next
    while hold != NULL:
        next = hold.other
        if hold.origin == origin:
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


# -- the search for a circle: under `records` ------------------------------------

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

cdef void begin_wait(fs_wait* wait, int way, bint blocks, bint forever) noexcept:
    global serial
    wait.thread = this_thread()
    serial += 1
    wait.serial = serial
    wait.way = way
    wait.blocks = blocks
    wait.forever = wait.patient = forever
    wait.settled = wait.spoiled = wait.asleep = False
    wait.parked = 0
    wait.word = wait.joined = 0
    wait.held = NULL
    if wait.thread != NULL:
        wait.outer = wait.thread.waits
        wait.thread.waits = wait


cdef void end_wait(fs_wait* wait, fs_hold* hold) noexcept:
    cdef fs_hold* dropped = NULL
    remutex_lock_inner(&records)
    if hold != NULL:
        if wait.thread != NULL and not (
                wait.spoiled or (<Origin><object>hold.origin).ignored):
            note_hold(hold, wait.thread, &dropped)
        else:
            hold.next = dropped
            dropped = hold
    if wait.thread != NULL:
        unlink_wait(wait)
    remutex_unlock_inner(&records)
    free_holds(dropped)


cdef void note_hold(fs_hold* hold, fs_thread* thread, fs_hold** dropped) noexcept:
    """Under `records`; the thread has a wait, which keeps its record."""
    cdef int way = hold.way & FS_WAY
    cdef fs_hold* mine = find_hold(hold.origin, thread.number, way, hold.guard)
    if mine == NULL:
        link_hold(hold, thread)
    elif hold.guard == NULL and way != FS_EXCLUSIVE:
        mine.depth += hold.depth
        if not hold.way & FS_BLOCK:
            mine.way = way  # it is not known which of them a block ends
        hold.next = dropped[0]
        dropped[0] = hold
    else:
        # It cannot be held so twice: it was released in a way that has no hook (by C code).
        unlink_hold(mine, dropped)
        link_hold(hold, thread)


# -- holds -------------------------------------------------------------------

cdef inline int held_way(int way) noexcept:
    if way == FS_SHARED_RECURSIVE:
        return FS_SHARED
    return FS_EXCLUSIVE if way == FS_UPGRADE else way


cdef fs_hold* new_hold(
    Origin origin, int way, void* by, uint32_t depth, const fs_stack* where,
) noexcept:
    cdef fs_hold* hold = <fs_hold*>malloc(sizeof(fs_hold))
    if hold != NULL:
        Py_INCREF(origin)
        hold.origin = <PyObject*>origin
        hold.guard = by
        hold.where = where
        hold.way = held_way(way & FS_WAY)
        # The block of a generator may end in another thread.
        if way & FS_BLOCK and not is_suspendable(hold.where):
            hold.way |= FS_BLOCK
        hold.depth = depth
        hold.thread = NULL
        hold.next = hold.other = NULL
    return hold


cdef void change_hands(PyObject* origin, fs_hold** dropped) noexcept:
    """Under `records`: from now on nothing is noted of the lock."""
    (<Origin><object>origin).ignored = True
    drop_holds_of(origin, dropped)
    spoil_waits(origin)


cdef void forget_hold(Origin origin, int way, void* by, bint whole) noexcept:
    cdef fs_hold* dropped = NULL
    cdef fs_hold* hold
    cdef uint64_t number = this_number()
    remutex_lock_inner(&records)
    hold = find_hold(<PyObject*>origin, number, way, by)
    if hold != NULL:
        if hold.thread.number != number:
            change_hands(<PyObject*>origin, &dropped)  # a guard that another thread took
        else:
            hold.depth -= 1
            if hold.depth == 0 or whole:
                unlink_hold(hold, &dropped)
    elif by == NULL and way == FS_PERMIT:
        take_permit_away(<PyObject*>origin, &dropped)
    elif by == NULL and way != FS_REENTRANT:
        if held_by_thread(<PyObject*>origin, way):
            change_hands(<PyObject*>origin, &dropped)
        else:
            spoil_waits(<PyObject*>origin)
    remutex_unlock_inner(&records)
    free_holds(dropped)


cdef bint held_by_thread(PyObject* origin, int way) noexcept:
    """Under `records`: whether any thread holds it so, without a guard."""
    cdef fs_hold* hold = chain_of(origin)[0]
    while hold != NULL:
        if hold.origin == origin and hold.guard == NULL and hold.way & FS_WAY == way:
            return True
        hold = hold.other
    return False


cdef void take_permit_away(PyObject* origin, fs_hold** dropped) noexcept:
    """Under `records`: a thread without a permit gives one, so another has one less."""
    cdef fs_hold* hold = chain_of(origin)[0]
    while hold != NULL and (hold.origin != origin or hold.way & FS_WAY != FS_PERMIT):
        hold = hold.other
    if hold == NULL:
        spoil_waits(origin)
        return
    hold.depth -= 1
    if hold.depth == 0:
        unlink_hold(hold, dropped)


cdef fs_hold* lend_hold(PyObject* origin, int way, void* by) noexcept:
    cdef fs_hold* lent = NULL
    cdef fs_hold* hold = find_hold(origin, this_number(), way, by)
    if hold != NULL:
        unlink_hold(hold, &lent)
    elif by == NULL and way != FS_REENTRANT:
        spoil_waits(origin)
    return lent


cdef fs_hold* own_hold(Origin origin, void* by, fs_hold** dropped) noexcept:
    """Under `records`: the guard's hold; NULL, too, if it is another thread's."""
    cdef fs_hold* hold = find_hold(<PyObject*>origin, 0, 0, by)
    if hold != NULL and hold.thread.number != this_number():
        change_hands(<PyObject*>origin, dropped)
        return NULL
    return hold


cdef void change_hold(Origin origin, void* by, void* heir, int way) noexcept:
    cdef fs_hold* dropped = NULL
    cdef fs_hold* hold
    remutex_lock_inner(&records)
    hold = own_hold(origin, by, &dropped)
    if hold != NULL:
        hold.guard = heir
        hold.way = way  # a new guard, of which it is not known that a block ends it
    remutex_unlock_inner(&records)
    free_holds(dropped)


cdef void end_hold_with_block(Origin origin, void* by) noexcept:
    cdef fs_hold* dropped = NULL
    cdef fs_hold* hold
    cdef bint suspendable = is_suspendable(capture_stack())
    remutex_lock_inner(&records)
    hold = own_hold(origin, by, &dropped)
    if hold != NULL and not suspendable:
        hold.way |= FS_BLOCK
    remutex_unlock_inner(&records)
    free_holds(dropped)


cdef void disown_hold(Origin origin, void* by) noexcept:
    cdef fs_hold* dropped = NULL
    cdef fs_hold* hold
    remutex_lock_inner(&records)
    hold = find_hold(<PyObject*>origin, 0, 0, by)
    if hold != NULL:
        unlink_hold(hold, &dropped)
    remutex_unlock_inner(&records)
    free_holds(dropped)


cdef void disown_all(Origin origin) noexcept:
    cdef fs_hold* dropped = NULL
    remutex_lock_inner(&records)
    drop_holds_of(<PyObject*>origin, &dropped)
    spoil_waits(<PyObject*>origin)
    remutex_unlock_inner(&records)
    free_holds(dropped)


cdef size_t locks_before(fs_wait* wait, PyObject** firsts) noexcept:
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


# -- snapshots ---------------------------------------------------------------

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
                waiting.where = wait.where
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
    asleep without a timeout, stack) of each wait.  The stacks are what the threads themselves
    have noted: to walk that of another thread, which may go on meanwhile, crashes 3.13t.
    """
    cdef size_t held, waiting, i
    cdef copied* all_held
    cdef copied* all_waiting
    cdef list of_holds = []
    cdef list of_waits = []
    remutex_lock_inner(&records)
    count_all(&held, &waiting)
    visit_parked(mark_parked, NULL)
    all_held = <copied*>calloc(held + 1, sizeof(copied))
    all_waiting = <copied*>calloc(waiting + 1, sizeof(copied))
    if all_held != NULL and all_waiting != NULL:
        copy_all(all_held, all_waiting)
        keep_origins(all_held, held)  # more references harm nobody here
        keep_origins(all_waiting, waiting)
    remutex_unlock_inner(&records)
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
                all_waiting[i].joined, all_waiting[i].serial, bool(all_waiting[i].asleep),
                stack_lines(all_waiting[i].where)))
    finally:
        free(all_held)
        free(all_waiting)
    return of_holds, of_waits


cdef void forget_all(bint keep_mine) noexcept:
    """The holds and waits of all threads, or of all others."""
    cdef fs_hold* dropped = NULL
    cdef fs_thread* thread
    cdef fs_thread* next
    cdef int i
    remutex_lock_inner(&records)
    for i in range(CHAINS):
        thread = threads[i]
        while thread != NULL:
            next = thread.next
            if not (keep_mine and thread.number == this_number()):
                forget_thread(thread, keep_mine, &dropped)
            thread = next
    remutex_unlock_inner(&records)
    free_holds(dropped)


cdef void forget_thread(fs_thread* thread, bint is_gone, fs_hold** dropped) noexcept:
    """Under `records`."""
    while thread.waits != NULL and not is_gone:
        # Its call goes on, and finds out when it ends.
        thread.waits.thread = NULL
        thread.waits = thread.waits.outer
    thread.waits = NULL
    if thread.holds == NULL:
        drop_thread_if_idle(thread)
        return
    while thread.holds.next != NULL:
        unlink_hold(thread.holds, dropped)
    unlink_hold(thread.holds, dropped)  # and the thread's record with it


def _forget_holds_of_dead_locks():
    cdef fs_hold* dropped = NULL
    cdef fs_hold* hold
    cdef fs_hold* next
    cdef int i
    remutex_lock_inner(&records)
    for i in range(CHAINS):
        hold = holds[i]
        while hold != NULL:
            next = hold.other
            if (<Origin><object>hold.origin).dead:
                unlink_hold(hold, &dropped)
            hold = next
    remutex_unlock_inner(&records)
    free_holds(dropped)


_origins.on_sweep(_forget_holds_of_dead_locks)


# -- fork --------------------------------------------------------------------

def _before_fork():
    remutex_lock_inner(&records)


def _after_fork_in_parent():
    remutex_unlock_inner(&records)


def _after_fork_in_child():
    """The other threads, their holds and their waits do not exist here."""
    forget_all(True)
    remutex_unlock_inner(&records)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent,
                        after_in_child=_after_fork_in_child)
