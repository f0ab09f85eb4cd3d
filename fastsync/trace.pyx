"""The deadlock detector's memory: who holds and who waits for which lock.

One lock guards it all: the detector is for finding faults, not for speed.
Under it nothing allocates Python objects, runs Python or lets a reference go
(a finalizer could lock something, and come back here).

Why what it says is true, at the moment that the lock is held:

- A hold is noted after the thread has taken the lock and forgotten before the
  thread lets it go.  So whoever is noted holds it.
- A wait is noted before the thread tries and forgotten after.  A thread counts
  as waiting only if the parking table says that it is parked there, and not
  woken.
- A lock that is once let go by another thread than the one that holds it is a
  signal or changes hands: no cycle through it is certain.  It is ignored from
  then on.

A thread is known by the interpreter's number of its thread state, which is
never used again, unlike the system's identifier.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from cpython.exc cimport PyErr_Fetch, PyErr_Restore
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF

from fastsync.c_atomic cimport fs_u8_store_relaxed
from fastsync.c_wait cimport FS_FOREVER, fs_thread_id
from fastsync.locks cimport fs_remutex, remutex_lock, remutex_unlock
from fastsync.parking cimport visit_parked

import os
import weakref

cdef extern from "Python.h":
    ctypedef struct PyThreadState:
        pass
    ctypedef struct RawType "PyTypeObject":
        Py_ssize_t tp_basicsize
    RawType* Py_TYPE(PyObject*) noexcept nogil
    PyThreadState* PyThreadState_Get() noexcept
    uint64_t PyThreadState_GetID(PyThreadState*) noexcept

cdef enum:
    CHAINS = 256

cdef struct fs_hold:
    PyObject* lock      # owned
    uint64_t thread
    uintptr_t ident     # the system's identifier of the thread
    int kind
    uint32_t depth
    fs_hold* next

cdef struct fs_wait:
    PyObject* lock      # borrowed: the call that waits has a reference
    uint64_t thread
    uintptr_t ident
    uint64_t serial     # which wait it is
    int kind
    bint timed
    bint parked         # set by a snapshot
    uintptr_t word      # of a wait for a condition: where the lock is waited for
    uint32_t depth      # of a wait for a condition: the levels to restore
    fs_wait* next

# Two locks that a thread took in this order, or a lock that is ignored (first
# is NULL), by address: see forget().
cdef struct fs_pair:
    PyObject* first
    PyObject* second
    fs_pair* next

cdef fs_remutex guard
cdef fs_hold* holds[CHAINS]  # by thread
cdef fs_wait* waits[CHAINS]  # by thread
cdef fs_pair* pairs[CHAINS]  # by second
cdef uint64_t serial = 0
cdef dict references = {}    # address -> weak reference that calls forget()
cdef object note_order = None


# -- small parts: all under the lock -----------------------------------------

cdef inline uint64_t this_thread() noexcept:
    return PyThreadState_GetID(PyThreadState_Get())


cdef inline size_t chain_of(PyObject* lock) noexcept:
    return (<uintptr_t>lock >> 4) % CHAINS


cdef fs_hold** find_hold(PyObject* lock, uint64_t thread) noexcept:
    cdef fs_hold** link = &holds[thread % CHAINS]
    while link[0] != NULL and (link[0].lock != lock or link[0].thread != thread):
        link = &link[0].next
    return link


cdef fs_wait** find_wait(PyObject* lock, uint64_t thread) noexcept:
    # A signal handler may wait inside a wait: the last one comes first.
    cdef fs_wait** link = &waits[thread % CHAINS]
    while link[0] != NULL and (link[0].lock != lock or link[0].thread != thread):
        link = &link[0].next
    return link


cdef fs_pair** find_pair(PyObject* first, PyObject* second) noexcept:
    cdef fs_pair** link = &pairs[chain_of(second)]
    while link[0] != NULL and (link[0].first != first or link[0].second != second):
        link = &link[0].next
    return link


cdef bint add_pair(PyObject* first, PyObject* second) noexcept:
    cdef fs_pair** link = find_pair(first, second)
    cdef fs_pair* pair
    if link[0] != NULL:
        return False
    pair = <fs_pair*>malloc(sizeof(fs_pair))
    if pair == NULL:
        return False
    pair.first = first
    pair.second = second
    pair.next = NULL
    link[0] = pair
    return True


cdef inline bint is_ignored(PyObject* lock) noexcept:
    return find_pair(NULL, lock)[0] != NULL


cdef void add_hold(PyObject* lock, int kind, uint32_t depth) noexcept:
    cdef uint64_t thread = this_thread()
    cdef fs_hold** link = find_hold(lock, thread)
    cdef fs_hold* hold = link[0]
    if hold == NULL:
        hold = <fs_hold*>malloc(sizeof(fs_hold))
        if hold == NULL:
            return
        Py_INCREF(<object>lock)
        hold.lock = lock
        hold.thread = thread
        hold.ident = fs_thread_id()
        hold.depth = 0
        hold.next = holds[thread % CHAINS]
        holds[thread % CHAINS] = hold
    hold.kind = kind
    hold.depth += depth


cdef void drop_hold(fs_hold** link, fs_hold** dropped) noexcept:
    """Unlink it; whoever called lets the reference go after the lock."""
    cdef fs_hold* hold = link[0]
    link[0] = hold.next
    hold.next = dropped[0]
    dropped[0] = hold


cdef void drop_wait(fs_wait** link) noexcept:
    cdef fs_wait* wait = link[0]
    link[0] = wait.next
    free(wait)


cdef void let_references_go(fs_hold* hold) noexcept:
    """Not under the lock."""
    cdef fs_hold* next
    while hold != NULL:
        next = hold.next
        Py_DECREF(<object>hold.lock)
        free(hold)
        hold = next


cdef bint held_by_another(PyObject* lock, uint64_t thread) noexcept:
    cdef fs_hold* hold
    cdef int i
    for i in range(CHAINS):
        hold = holds[i]
        while hold != NULL:
            if hold.lock == lock and hold.thread != thread:
                return True
            hold = hold.next
    return False


cdef void forget_lock(PyObject* lock, fs_hold** dropped) noexcept:
    """Drop all holds of it."""
    cdef fs_hold** link
    cdef int i
    for i in range(CHAINS):
        link = &holds[i]
        while link[0] != NULL:
            if link[0].lock == lock:
                drop_hold(link, dropped)
            else:
                link = &link[0].next


# -- the hooks ---------------------------------------------------------------

cdef int held_kind(int kind) noexcept:
    if kind == FS_SHARED_RECURSIVE:
        return FS_SHARED
    return FS_EXCLUSIVE if kind == FS_UPGRADE else kind


cdef void add_wait(
    PyObject* lock, int kind, bint timed, void* word, uint32_t depth,
) noexcept:
    global serial
    cdef uint64_t thread = this_thread()
    cdef fs_wait* wait = <fs_wait*>malloc(sizeof(fs_wait))
    if wait == NULL:
        return
    serial += 1
    wait.lock = lock
    wait.thread = thread
    wait.ident = fs_thread_id()
    wait.serial = serial
    wait.kind = kind
    wait.timed = timed
    wait.parked = False
    wait.word = <uintptr_t>word
    wait.depth = depth
    wait.next = waits[thread % CHAINS]
    waits[thread % CHAINS] = wait


cdef size_t new_pairs(PyObject* lock, PyObject** firsts, size_t limit) noexcept:
    """The locks that this thread holds, and after which it takes `lock` for the first time."""
    cdef uint64_t thread = this_thread()
    cdef fs_hold* hold = holds[thread % CHAINS]
    cdef size_t count = 0
    if hold == NULL or find_hold(lock, thread)[0] != NULL or is_ignored(lock):
        return 0
    while hold != NULL and count < limit:
        if hold.thread == thread and add_pair(hold.lock, lock):
            Py_INCREF(<object>hold.lock)
            firsts[count] = hold.lock
            count += 1
        hold = hold.next
    return count


cdef void note_pairs(object lock, PyObject** firsts, size_t count) noexcept:
    """Tell the order checker; not under the lock."""
    cdef PyObject *kind
    cdef PyObject *value
    cdef PyObject *traceback
    cdef size_t i
    if count == 0:
        return
    PyErr_Fetch(&kind, &value, &traceback)
    try:
        watch_for_end(lock)
        for i in range(count):
            first = <object>firsts[i]
            Py_DECREF(first)
            watch_for_end(first)
            note_order(first, lock)
    except BaseException:
        pass  # the program shall not notice the detector
    PyErr_Restore(kind, value, traceback)


cdef int watch_for_end(object lock) except -1:
    cdef uintptr_t address = <uintptr_t><PyObject*>lock
    known = references.get(address)
    if known is None or known() is not lock:
        references[address] = weakref.ref(lock, _Forget(address))
    return 0


cdef class _Forget:
    """What happens when a lock ends: its address means nothing from then on."""
    cdef uintptr_t address

    def __cinit__(self, address):
        self.address = address

    def __call__(self, reference):
        cdef fs_pair** link
        cdef fs_pair* pair
        cdef int i
        if references.get(self.address) is reference:
            del references[self.address]
        remutex_lock(&guard)
        for i in range(CHAINS):
            link = &pairs[i]
            while link[0] != NULL:
                pair = link[0]
                if <uintptr_t>pair.first == self.address or <uintptr_t>pair.second == self.address:
                    link[0] = pair.next
                    free(pair)
                else:
                    link = &pair.next
        remutex_unlock(&guard)


cdef void trace_wait(object lock, int kind, int64_t deadline) noexcept:
    cdef PyObject* firsts[16]
    cdef size_t count = 0
    if deadline == 0:
        return
    remutex_lock(&guard)
    if tracing():
        add_wait(<PyObject*>lock, kind, deadline != FS_FOREVER, NULL, 0)
        if deadline == FS_FOREVER:
            count = new_pairs(<PyObject*>lock, firsts, 16)
    remutex_unlock(&guard)
    note_pairs(lock, firsts, count)


cdef void trace_waited(object lock, int kind, bint acquired) noexcept:
    end_wait(lock, kind, acquired, 1)


cdef void trace_waited_all(object lock, int kind, uint32_t depth) noexcept:
    end_wait(lock, kind, True, depth)


cdef void end_wait(object lock, int kind, bint acquired, uint32_t depth) noexcept:
    cdef fs_wait** wait
    remutex_lock(&guard)
    if tracing():
        wait = find_wait(<PyObject*>lock, this_thread())
        if wait[0] != NULL:
            if wait[0].depth != 0:
                depth = wait[0].depth
            drop_wait(wait)
        if acquired:
            note_hold(<PyObject*>lock, held_kind(kind), 0 if kind == FS_UPGRADE else depth)
    remutex_unlock(&guard)


cdef void note_hold(PyObject* lock, int kind, uint32_t depth) noexcept:
    if not is_ignored(lock):
        add_hold(lock, kind, depth)


cdef void trace_acquired(object lock, int kind) noexcept:
    remutex_lock(&guard)
    if tracing():
        note_hold(<PyObject*>lock, held_kind(kind), 1)
    remutex_unlock(&guard)


cdef void trace_released(object lock, int kind) noexcept:
    cdef fs_hold* dropped = NULL
    cdef fs_hold** hold
    cdef bint ignore = False
    remutex_lock(&guard)
    if tracing():
        hold = find_hold(<PyObject*>lock, this_thread())
        if hold[0] != NULL:
            hold[0].depth -= 1
            if hold[0].depth == 0:
                drop_hold(hold, &dropped)
        elif held_by_another(<PyObject*>lock, this_thread()):
            ignore = add_pair(NULL, <PyObject*>lock)
            forget_lock(<PyObject*>lock, &dropped)
    remutex_unlock(&guard)
    if ignore:
        watch_ignored(lock)
    let_references_go(dropped)


cdef void trace_released_all(object lock) noexcept:
    cdef fs_hold* dropped = NULL
    cdef fs_hold** hold
    remutex_lock(&guard)
    hold = find_hold(<PyObject*>lock, this_thread())
    if hold[0] != NULL:
        drop_hold(hold, &dropped)
    remutex_unlock(&guard)
    let_references_go(dropped)


cdef void watch_ignored(object lock) noexcept:
    cdef PyObject *kind
    cdef PyObject *value
    cdef PyObject *traceback
    PyErr_Fetch(&kind, &value, &traceback)
    try:
        watch_for_end(lock)
    except BaseException:
        pass  # it stays ignored, and so does who has its address next
    PyErr_Restore(kind, value, traceback)


cdef void trace_changed(object lock, int held, int now) noexcept:
    cdef fs_hold** hold
    remutex_lock(&guard)
    hold = find_hold(<PyObject*>lock, this_thread())
    if hold[0] != NULL:
        hold[0].kind = now
    remutex_unlock(&guard)


cdef void trace_disowned(object lock) noexcept:
    cdef fs_hold* dropped = NULL
    remutex_lock(&guard)
    forget_lock(<PyObject*>lock, &dropped)
    remutex_unlock(&guard)
    let_references_go(dropped)


cdef void trace_wait_condition(object lock, int kind, void* word) noexcept:
    cdef PyObject* firsts[16]
    cdef fs_hold* dropped = NULL
    cdef fs_hold** hold
    cdef uint32_t depth = 1
    cdef size_t count = 0
    remutex_lock(&guard)
    if tracing():
        hold = find_hold(<PyObject*>lock, this_thread())
        if hold[0] != NULL:
            depth = hold[0].depth
            drop_hold(hold, &dropped)
        add_wait(<PyObject*>lock, kind, False, word, depth)
        count = new_pairs(<PyObject*>lock, firsts, 16)
    remutex_unlock(&guard)
    note_pairs(lock, firsts, count)
    let_references_go(dropped)


# -- what fastsync.deadlock needs --------------------------------------------

cdef void mark_parked(void* ctx, uintptr_t key, uintptr_t thread) noexcept nogil:
    cdef fs_wait* wait
    cdef uintptr_t start
    cdef int i
    for i in range(CHAINS):
        wait = waits[i]
        while wait != NULL:
            start = <uintptr_t>wait.lock
            if wait.ident == thread and (
                    key == wait.word if wait.word != 0 else
                    start <= key < start + <uintptr_t>Py_TYPE(wait.lock).tp_basicsize):
                wait.parked = True
            wait = wait.next


cdef void count_all(size_t* held, size_t* waiting) noexcept:
    cdef fs_hold* hold
    cdef fs_wait* wait
    cdef int i
    held[0] = waiting[0] = 0
    for i in range(CHAINS):
        hold = holds[i]
        while hold != NULL:
            held[0] += 1
            hold = hold.next
        wait = waits[i]
        while wait != NULL:
            wait.parked = False
            waiting[0] += 1
            wait = wait.next


cdef void copy_all(fs_hold* held, fs_wait* waiting) noexcept:
    """With a reference to each lock."""
    cdef fs_hold* hold
    cdef fs_wait* wait
    cdef int i
    for i in range(CHAINS):
        hold = holds[i]
        while hold != NULL:
            held[0] = hold[0]
            Py_INCREF(<object>hold.lock)
            held += 1
            hold = hold.next
        wait = waits[i]
        while wait != NULL:
            waiting[0] = wait[0]
            Py_INCREF(<object>wait.lock)
            waiting += 1
            wait = wait.next


def snapshot():
    """All holds and waits at one moment.

    (lock, thread, ident, kind) of each hold, and (lock, thread, ident, kind,
    waits for ever, parked, serial) of each wait.
    """
    cdef size_t held, waiting, i
    cdef fs_hold* all_held
    cdef fs_wait* all_waiting
    cdef list of_holds = []
    cdef list of_waits = []
    remutex_lock(&guard)
    count_all(&held, &waiting)
    visit_parked(mark_parked, NULL)
    all_held = <fs_hold*>calloc(held + 1, sizeof(fs_hold))
    all_waiting = <fs_wait*>calloc(waiting + 1, sizeof(fs_wait))
    if all_held != NULL and all_waiting != NULL:
        copy_all(all_held, all_waiting)
    remutex_unlock(&guard)
    try:
        if all_held == NULL or all_waiting == NULL:
            raise MemoryError
        for i in range(held):
            lock = <object>all_held[i].lock
            Py_DECREF(lock)
            of_holds.append((lock, all_held[i].thread, all_held[i].ident, all_held[i].kind))
        for i in range(waiting):
            lock = <object>all_waiting[i].lock
            Py_DECREF(lock)
            of_waits.append((
                lock, all_waiting[i].thread, all_waiting[i].ident, all_waiting[i].kind,
                not all_waiting[i].timed, all_waiting[i].parked, all_waiting[i].serial))
    finally:
        free(all_held)
        free(all_waiting)
    return of_holds, of_waits


cdef void clear_all(fs_hold** dropped, bint keep_mine) noexcept:
    cdef uint64_t me = this_thread()
    cdef fs_hold** hold
    cdef fs_wait** wait
    cdef fs_pair* pair
    cdef int i
    for i in range(CHAINS):
        hold = &holds[i]
        while hold[0] != NULL:
            if keep_mine and hold[0].thread == me:
                hold = &hold[0].next
            else:
                drop_hold(hold, dropped)
        wait = &waits[i]
        while wait[0] != NULL:
            if keep_mine and wait[0].thread == me:
                wait = &wait[0].next
            else:
                drop_wait(wait)
        while not keep_mine and pairs[i] != NULL:
            pair = pairs[i]
            pairs[i] = pair.next
            free(pair)


def switch(on, function=None):
    """Begin with nothing known, or forget everything.

    function(first, second) is called when a thread takes `second` while it holds
    `first`, once for each such pair.
    """
    global note_order
    cdef fs_hold* dropped = NULL
    if on:
        note_order = function
    remutex_lock(&guard)
    clear_all(&dropped, False)
    fs_u8_store_relaxed(&trace_flag, 1 if on else 0)  # relaxed: see tracing()
    remutex_unlock(&guard)
    references.clear()
    let_references_go(dropped)


def is_on():
    return tracing()


# -- fork --------------------------------------------------------------------

def _before_fork():
    remutex_lock(&guard)


def _after_fork_in_parent():
    remutex_unlock(&guard)


def _after_fork_in_child():
    """The other threads, their holds and their waits do not exist here."""
    cdef fs_hold* dropped = NULL
    clear_all(&dropped, True)
    remutex_unlock(&guard)
    let_references_go(dropped)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent,
                        after_in_child=_after_fork_in_child)
