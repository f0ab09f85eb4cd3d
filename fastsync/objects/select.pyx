"""select(): one wait for several channels, queues, events and semaphores.

raw/select.pxd has the states and the argument; here the cases are looked at, which may run the
comparisons of a PriorityQueue, and told apart.
"""
from libc.stdint cimport int64_t, uint64_t, uintptr_t
from cpython.exc cimport PyErr_NoMemory
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_SIZE

from fastsync._watch.trace cimport (
    FS_ITEM, FS_PERMIT, FS_ROOM, FS_SIGNAL, fs_wait, trace_other, trace_signalled, trace_work,
    tracing,
)
from fastsync.raw.c_python cimport Py_NewRef
from fastsync.raw.c_wait cimport FS_FOREVER, fs_ticks
from fastsync.raw.event cimport event_is_set, event_is_set_or_place
from fastsync.raw.parking cimport FS_SIGNALS, fs_place, is_past
from fastsync.raw.ring cimport *
from fastsync.raw.select cimport *
from fastsync.raw.semaphore cimport semaphore_acquired_or_place, semaphore_try_acquire
from fastsync.objects._extensible cimport is_original
from fastsync.objects._ring cimport _Ring, owned, settle_get, settle_put
from fastsync.objects._timeouts cimport deadline_for, deadline_until
from fastsync.objects.channel cimport Receiver, Sender, _Timer, is_closed, take_tick
from fastsync.objects.event cimport Event
from fastsync.objects.semaphore cimport Semaphore

from fastsync.objects._ring import ShutDown
from fastsync.objects.channel import RecvClosed, SendClosed

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1
    void* PyMem_RawMalloc(size_t) noexcept
    void PyMem_RawFree(void*) noexcept
    PyObject* PyTuple_GET_ITEM(object, Py_ssize_t) noexcept

# How many cases need no allocation.
cdef enum:
    FEW = 4

# Cases besides those of raw/select.pxd, which are not parked on.
cdef enum:
    CASE_TIMER = 16
    CASE_CLOSED = 17  # by a handle that has been closed

cdef struct fs_looked_at:
    fs_case raw
    PyObject* owner   # what is waited for
    bint open         # a reference to raw.item is ours to give

cdef struct fs_select:
    fs_looked_at* cases   # those that are parked on, and then the others
    size_t parked         # how many are
    size_t n
    fs_case* raw          # the first `parked`, for select_park()
    fs_place* places
    size_t* order
    int64_t due           # of the timers, the next
    size_t at             # the case that is looked at, or was done
    fs_wait* waits        # of the first `parked`, for the profile; NULL: not noted


def select(*cases, timeout=None, deadline=None, biased=False):
    """Wait until one of the cases can be done, do it, and no other: (its index, its item).

    A case is one of these; the item is None but for the first two.

        receiver           receive from a channel, after(), tick() or never()
        queue              get() from a fastsync.queue
        (sender, item)     send to a channel
        (queue, item)      put() into a fastsync.queue
        event              wait() for an Event
        semaphore          acquire() a Semaphore

    timeout: seconds; when none could be done in that time, (None, None).  0 does not wait.
    deadline: instead of it, a value of time.monotonic().  Of several cases that can be done
    any is chosen, each as likely as the others; biased: the first.

    A channel that is closed, or a queue that has been shut down, can be done too: it raises
    RecvClosed, SendClosed or ShutDown, whose `index` is the case's.
    """
    cdef int64_t until = FS_FOREVER
    cdef fs_looked_at few[FEW]
    cdef fs_case few_raw[FEW]
    cdef fs_place few_places[FEW]
    cdef size_t few_order[FEW]
    cdef fs_select s
    if deadline is not None:
        if timeout is not None:
            raise TypeError("select() takes a timeout or a deadline, not both")
        until = deadline_until(deadline)
    elif timeout is not None:
        until = deadline_for(timeout)
    s.n = PyTuple_GET_SIZE(cases)
    s.parked = 0
    if s.n == 0 and until == FS_FOREVER:
        raise ValueError("select() without a case or a time would never end")
    s.cases = few
    s.raw = few_raw
    s.places = few_places
    s.order = few_order
    s.waits = NULL
    if s.n > FEW:
        allocate(&s)
    try:
        arrange(&s, cases)
        return wait(&s, until, biased)
    finally:
        drop_unsent(&s)
        note_end(&s)
        if s.cases != few:
            PyMem_RawFree(s.cases)


# The arrays stand one behind the other in one block, and each must be aligned there.
cdef extern from *:
    """
    #ifdef __GNUC__
    #define FS_IS_ALIGNED_BEHIND(second, first) _Static_assert( \\
        sizeof(first) % _Alignof(__typeof__(second)) == 0, "it stands behind an array of the other")
    #else
    #define FS_IS_ALIGNED_BEHIND(second, first) ((void)0)
    #endif
    """
    void FS_IS_ALIGNED_BEHIND(fs_place, fs_looked_at) noexcept
    void FS_RAW_IS_ALIGNED_BEHIND "FS_IS_ALIGNED_BEHIND" (fs_case, fs_place) noexcept
    void FS_ORDER_IS_ALIGNED_BEHIND "FS_IS_ALIGNED_BEHIND" (size_t, fs_case) noexcept


cdef int allocate(fs_select* s) except -1:
    FS_IS_ALIGNED_BEHIND(s.places[0], s.cases[0])
    FS_RAW_IS_ALIGNED_BEHIND(s.raw[0], s.places[0])
    FS_ORDER_IS_ALIGNED_BEHIND(s.order[0], s.raw[0])
    cdef size_t one = sizeof(fs_looked_at) + sizeof(fs_case) + sizeof(fs_place) + sizeof(size_t)
    cdef char* memory = <char*>PyMem_RawMalloc(s.n * one)
    if memory == NULL:
        PyErr_NoMemory()
    s.cases = <fs_looked_at*>memory
    memory += s.n * sizeof(fs_looked_at)
    s.places = <fs_place*>memory
    memory += s.n * sizeof(fs_place)
    s.raw = <fs_case*>memory
    memory += s.n * sizeof(fs_case)
    s.order = <size_t*>memory
    return 0


# -- what the cases are ------------------------------------------------------------------------

cdef int arrange(fs_select* s, tuple cases) except -1:
    """Tell the cases apart, those that are parked on first."""
    cdef fs_looked_at case
    cdef size_t i, last = s.n
    for i in range(s.n):
        s.order[i] = i
        s.cases[i].open = False
    for i in range(<size_t>PyTuple_GET_SIZE(cases)):
        case.raw.number = i
        case.raw.item = NULL
        case.open = False
        describe(&case, <object>PyTuple_GET_ITEM(cases, i))
        if case.raw.kind in (CASE_TIMER, CASE_CLOSED):
            last -= 1
            s.cases[last] = case
        else:
            s.cases[s.parked] = case
            s.parked += 1
        if case.raw.kind == FS_CASE_PUT:
            Py_INCREF(<object>case.raw.item)
            s.cases[s.parked - 1].open = True
    return 0


cdef int describe(fs_looked_at* case, object what) except -1:
    cdef object target = what
    if PyTuple_CheckExact(what):
        if PyTuple_GET_SIZE(what) != 2:
            raise TypeError("a case that sends is a tuple of two: a sender or queue, and an item")
        target = <object>PyTuple_GET_ITEM(what, 0)
        case.raw.item = PyTuple_GET_ITEM(what, 1)
        case.raw.kind = FS_CASE_PUT
        if isinstance(target, Sender):
            describe_channel(case, (<Sender>target).channel, is_closed(&(<Sender>target).is_closed))
            return 0
    elif isinstance(what, _Timer):
        case.owner = <PyObject*>what
        case.raw.kind = CASE_CLOSED if is_closed(&(<Receiver>what).is_closed) else CASE_TIMER
        return 0
    elif isinstance(what, Receiver):
        case.raw.kind = FS_CASE_GET
        describe_channel(case, (<Receiver>what).channel, is_closed(&(<Receiver>what).is_closed))
        return 0
    elif isinstance(what, Event) and not is_original(what):
        case.owner = <PyObject*>what
        case.raw.kind = FS_CASE_EVENT
        case.raw.event = &(<Event>what).event
        return 0
    elif isinstance(what, Semaphore) and not is_original(what):
        case.owner = <PyObject*>what
        case.raw.kind = FS_CASE_SEMAPHORE
        case.raw.semaphore = &(<Semaphore>what).semaphore
        return 0
    else:
        case.raw.kind = FS_CASE_GET
    if not isinstance(target, _Ring):
        refuse_case(what, target)
    describe_channel(case, <_Ring>target, False)
    return 0


cdef int describe_channel(fs_looked_at* case, _Ring ring, bint closed) except -1:
    case.owner = <PyObject*>ring
    case.raw.ring = &ring.ring
    if closed:
        case.raw.kind = CASE_CLOSED
    return 0


cdef int refuse_case(object what, object target) except -1:
    if isinstance(what, (Event, Semaphore)):
        raise TypeError(f"select() takes no subclass of {type(what).__base__.__name__}, "
                        "whose methods could do anything")
    kind = type(target).__name__
    if target is what:
        raise TypeError(f"select() cannot wait for {kind!r}: a case is a receiver, a queue of "
                        "fastsync.queue, an Event, a Semaphore, or a tuple that sends")
    raise TypeError(f"select() cannot send to {kind!r}: only to a sender, or a queue of "
                    "fastsync.queue")


cdef void drop_unsent(fs_select* s) noexcept:
    """Let the items go that were not sent."""
    cdef size_t i
    for i in range(s.parked):
        if s.cases[i].open:
            s.cases[i].open = False
            Py_XDECREF(<PyObject*>s.cases[i].raw.item)


# -- waiting ---------------------------------------------------------------------------------

cdef object wait(fs_select* s, int64_t until, bint biased):
    cdef bint mark = False  # not before all have been looked at once
    cdef bint past
    cdef size_t k, done
    cdef int outcome
    cdef PyObject* item = NULL
    while True:
        past = is_past(until)
        s.due = FS_FOREVER
        if not biased:
            shuffle(s.order, s.n)
        for k in range(s.n):
            s.at = s.order[k]
            if look(s, s.at, mark, &item):
                return s.cases[s.at].raw.number, None if item == NULL else owned(item)
        s.at = s.n
        if past:
            return None, None
        if not mark:
            mark = True
            if tracing():
                note_waits(s, min(until, s.due))
            continue
        for k in range(s.parked):
            s.raw[k] = s.cases[k].raw
        outcome = select_park(s.raw, s.places, s.parked, min(until, s.due), FS_SIGNALS, &done)
        if outcome == FS_SELECT_DONE:
            s.at = done
            s.cases[done].open = False
            if s.raw[done].kind == FS_CASE_GET:
                return s.raw[done].number, owned(<PyObject*>s.raw[done].item)
            return s.raw[done].number, None
        if outcome == FS_SELECT_SIGNALS:
            PyErr_CheckSignals()


cdef void note_waits(fs_select* s, int64_t deadline) noexcept:
    """For the profile it waits for each of them."""
    cdef fs_looked_at* case
    cdef size_t k
    s.waits = <fs_wait*>PyMem_RawMalloc(s.parked * sizeof(fs_wait))
    if s.waits == NULL:
        return  # memory is short: it is not noted
    for k in range(s.parked):
        case = &s.cases[k]
        if case.raw.kind == FS_CASE_GET:
            trace_work(&s.waits[k], <object>case.owner, FS_ITEM, ring_getters(case.raw.ring), deadline)
        elif case.raw.kind == FS_CASE_PUT:
            trace_work(&s.waits[k], <object>case.owner, FS_ROOM, ring_putters(case.raw.ring), deadline)
        else:
            trace_work(
                &s.waits[k], <object>case.owner,
                FS_SIGNAL if case.raw.kind == FS_CASE_EVENT else FS_PERMIT,
                <uintptr_t>case.owner, deadline)


cdef void note_end(fs_select* s) noexcept:
    """It waited for the one that was done: of the others nobody made it wait."""
    cdef size_t k
    if s.waits == NULL:
        return
    for k in range(s.parked, 0, -1):
        if s.at == k - 1:
            trace_signalled(&s.waits[k - 1])
        else:
            trace_other(&s.waits[k - 1])
    PyMem_RawFree(s.waits)


cdef void shuffle(size_t* order, size_t n) noexcept:
    """Put them into any order, all as likely."""
    cdef size_t i, j
    # Mixed as splitmix64 does; two threads that mix the same draw the same, and no harm.
    cdef uint64_t x = <uint64_t>fs_ticks() * <uint64_t>0x9E3779B97F4A7C15u
    for i in range(1, n):
        x += <uint64_t>0x9E3779B97F4A7C15u
        x ^= x >> 30
        x *= <uint64_t>0xBF58476D1CE4E5B9u
        x ^= x >> 27
        j = (x >> 32) % (i + 1)
        order[i], order[j] = order[j], order[i]


cdef bint look(fs_select* s, size_t k, bint mark, PyObject** item) except -1:
    """Whether the case could be done, and was; mark: else say that somebody may be parked."""
    cdef fs_looked_at* case = &s.cases[k]
    cdef int64_t due
    if case.raw.kind == FS_CASE_GET or case.raw.kind == FS_CASE_PUT:
        return look_at_ring(case, mark, item)
    if case.raw.kind == FS_CASE_EVENT:
        if mark:
            return event_is_set_or_place(case.raw.event, &s.places[k])
        return event_is_set(case.raw.event)
    if case.raw.kind == FS_CASE_SEMAPHORE:
        if mark:
            return semaphore_acquired_or_place(case.raw.semaphore, &s.places[k])
        return semaphore_try_acquire(case.raw.semaphore)
    if case.raw.kind == CASE_CLOSED:
        raise_closed(case)
    message = take_tick(<_Timer>case.owner, &due)
    s.due = min(s.due, due)
    if message is not None:
        item[0] = Py_NewRef(<PyObject*>message)
        return True
    return False


cdef bint look_at_ring(fs_looked_at* case, bint mark, PyObject** item) except -1:
    cdef _Ring ring = <_Ring>case.owner
    cdef bint puts = case.raw.kind == FS_CASE_PUT
    cdef void* got = NULL
    cdef int outcome
    if puts:
        outcome = settle_put(ring, <PyObject*>case.raw.item, FS_RING_AGAIN)
    else:
        outcome = settle_get(ring, &got, FS_RING_AGAIN)
    if outcome == FS_RING_DONE:
        if puts:
            case.open = False
        else:
            item[0] = <PyObject*>got
        return True
    if outcome == FS_RING_WAIT and mark:
        ring.give_turn()
        ring_mark(&ring.ring, FS_RING_PUTTERS if puts else FS_RING_GETTERS)
    ring_unlock(&ring.ring)
    if outcome == FS_RING_GONE:
        ring.give_up_wait(puts)
        raise RuntimeError(
            "select() cannot wait for a queue that is used by its mutex, conditions or hooks")
    if outcome == FS_RING_CLOSED:
        try:
            if puts:
                ring.refuse_put(<PyObject*>case.raw.item, outcome)
            else:
                ring.refuse_get(outcome)
        except (RecvClosed, SendClosed, ShutDown) as error:
            error.index = case.raw.number
            raise
    return False


cdef int raise_closed(fs_looked_at* case) except -1:
    error = RecvClosed() if case.raw.item == NULL else SendClosed(<object>case.raw.item)
    error.index = case.raw.number
    raise error
