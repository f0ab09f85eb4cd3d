# distutils: define_macros=CYTHON_USE_TYPE_SPECS=1
# Heap types, because these can be patched and renamed as the originals can.
"""The native types behind fastsync.queue.

A queue is a ring (ring.pxd: the states, and why nothing is lost) and what `queue` has
besides: a count of unfinished tasks, an end, an order.  Its calls run no Python code
while they hold anything, so whatever a finalizer, a callback or a signal handler does to
the queue it does before or after.  Comparisons of a PriorityQueue's items, which may be
Python code, are made with nothing held: see "the heap".

An opened queue.  Programs reach into `queue.Queue`: they hold its `mutex`, wait for its
conditions, change its `queue`, and override `_put` and the like.  A queue of which any of
this is asked is opened for good: its items move to a deque or a list, it gets a mutex and
three conditions, and its calls do from then on, step by step, what the original's do.
So everything that is true of the original's parts is true of these.
"""
cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t
from cpython.exc cimport PyErr_NoMemory
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.list cimport PyList_GET_SIZE, PyList_New
from cpython.long cimport PyLong_Check
from cpython.number cimport PyIndex_Check
from cpython.object cimport (
    Py_LT, PyObject, PyObject_GenericSetAttr, PyObject_RichCompareBool, PyTypeObject, visitproc,
)
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_SIZE

from fastsync.raw.c_atomic cimport fs_atomic_uptr, fs_uptr_load_relaxed, fs_uptr_store_relaxed
from fastsync.raw.c_python cimport fs_small_int
from fastsync.raw.c_wait cimport FS_FOREVER, fs_now, fs_thread_id
from fastsync.raw.parking cimport FS_FIRST, FS_SIGNALS, fork_epoch
from fastsync.raw.condvar cimport condvar_reset
from fastsync.raw.mutex cimport mutex_reset
from fastsync.raw.ring cimport *
from fastsync.objects._slots cimport (
    collect_by, finish_type, fs_clear, fs_method, fs_traverse, make_lazy_dict, rename_type,
    shorten,
)
from fastsync.objects._timeouts cimport deadline_for
from fastsync.objects.condition cimport Condition
from fastsync.objects.lock cimport Lock, lock_word

import queue as stock
from collections import deque
from heapq import heappop, heappush
from queue import Empty, Full
from types import GenericAlias

from fastsync.objects._pin import register_pinnable

cdef extern from *:
    """
    #define FS_OWNED(item) ((PyObject *)(item))
    """
    object owned "FS_OWNED"(PyObject*)  # a reference, for Cython to take over

cdef extern from "Python.h":
    PyObject* Py_None
    PyObject* Py_NewRef(PyObject*) noexcept
    PyTypeObject* Py_TYPE(PyObject*) noexcept
    const Py_ssize_t PY_SSIZE_T_MAX
    bint PyUnicode_CheckExact(PyObject*) noexcept
    bint PyUnicode_IS_COMPACT(PyObject*) noexcept
    int PyUnicode_Compare(PyObject*, PyObject*) noexcept
    PyObject* PyTuple_GET_ITEM(object, Py_ssize_t) noexcept
    PyObject* PyList_GET_ITEM(object, Py_ssize_t) noexcept
    void PyList_SET_ITEM(object, Py_ssize_t, PyObject*) noexcept
    void Py_SET_SIZE(object, Py_ssize_t) noexcept
    void Py_INCREF_of "Py_INCREF"(PyObject*) noexcept
    void* PyMem_RawMalloc(size_t) noexcept
    void PyMem_RawFree(void*) noexcept
    object PyObject_GenericGetDict(object, void*)
    int PyObject_GenericSetDict(object, object, void*) except -1
    void PyErr_WriteUnraisable(PyObject*) noexcept
    Py_ssize_t PyNumber_AsSsize_t(object, PyObject*) except? -1
    PyObject* PyExc_OverflowError

if hasattr(stock, "ShutDown"):
    ShutDown = stock.ShutDown
else:  # before 3.13
    ShutDown = type("ShutDown", (Exception,), {
        "__module__": "queue", "__doc__": "Raised when put/get with shut-down queue."})


# -- what all queues share -------------------------------------------------------

@cython.trashcan(True)  # long chains of them are freed without a deep stack
cdef class _Ring:
    """A ring that owns its items."""
    cdef object __weakref__
    cdef object parts           # of an opened queue; written under the ring's lock
    cdef PyObject* attributes   # the instance's __dict__, NULL until needed
    cdef fs_ring ring

    def __cinit__(self):
        self.ring.limit = ring_no_limit()

    def __dealloc__(self):
        drop_items(&self.ring)
        Py_XDECREF(self.attributes)

    @classmethod
    def __class_getitem__(cls, item, /):
        return GenericAlias(cls, item)


cdef struct fs_items:
    void** at
    size_t capacity
    size_t head
    size_t count


cdef fs_items take_items(fs_ring* r) noexcept nogil:
    """All of them, with their memory; under the lock."""
    cdef fs_items taken
    taken.at = r.items
    taken.capacity = r.capacity
    taken.head = r.head
    taken.count = ring_count(r)
    r.items = NULL
    r.capacity = r.head = 0
    ring_set_count(r, 0)
    return taken


cdef void free_items(fs_items taken) noexcept:
    """With nothing held: finalizers run."""
    cdef size_t i
    for i in range(taken.count):
        Py_XDECREF(<PyObject*>taken.at[(taken.head + i) & (taken.capacity - 1)])
    PyMem_RawFree(taken.at)


cdef void drop_items(fs_ring* r) noexcept:
    cdef fs_items taken
    ring_lock(r)
    taken = take_items(r)
    ring_unlock(r)
    free_items(taken)


# The memory of the smallest ring, in items; and of the smallest that gives any back.
cdef enum:
    SMALLEST = 8
    LARGE = 64


cdef void** new_memory(size_t capacity) except NULL:
    cdef void** memory = NULL
    if capacity <= <size_t>PY_SSIZE_T_MAX // sizeof(void*):
        memory = <void**>PyMem_RawMalloc(capacity * sizeof(void*))
    if memory == NULL:
        PyErr_NoMemory()
    return memory


cdef int grow(fs_ring* r, size_t more) except -1:
    """Make room for so many more items; called under the lock, returns without it."""
    cdef size_t wanted = ring_count(r) + more
    cdef size_t capacity = max(r.capacity, <size_t>SMALLEST)
    cdef void** memory
    ring_unlock(r)
    while capacity < wanted and capacity <= <size_t>PY_SSIZE_T_MAX:
        capacity *= 2
    memory = new_memory(capacity)
    ring_lock(r)
    if r.capacity < capacity and not ring_state(r) & FS_RING_AWAY:
        memory = ring_move(r, memory, capacity)
    ring_unlock(r)
    PyMem_RawFree(memory)
    return 0


cdef inline bint is_idle(const fs_ring* r) noexcept nogil:
    """Whether most of its memory is unused."""
    return r.capacity >= LARGE and ring_count(r) < r.capacity // 8


cdef void shrink(fs_ring* r) noexcept:
    """Called under the lock, returns without it."""
    cdef size_t capacity = r.capacity // 2
    cdef void** memory
    ring_unlock(r)
    memory = <void**>PyMem_RawMalloc(capacity * sizeof(void*))
    if memory == NULL:
        return  # then not now
    ring_lock(r)
    if is_idle(r) and r.capacity == 2 * capacity:
        memory = ring_move(r, memory, capacity)
    ring_unlock(r)
    PyMem_RawFree(memory)


# -- put and get -------------------------------------------------------------------

cdef int64_t wait_limit(object block, object timeout) except? -1:
    """A deadline; 0 for a call that may not wait."""
    if not block:
        return 0
    if timeout is None:
        return FS_FOREVER
    if timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")
    return deadline_for(timeout)


cdef inline int try_put(_Ring self, PyObject* item) noexcept:
    """Under the lock; the reference goes with the item, once it is in."""
    if self.ring.order == FS_RING_SORTED:
        return heap_put(<PriorityQueue>self, item)
    return ring_put(&self.ring, item)


cdef inline int try_get(_Ring self, void** item) noexcept:
    if self.ring.order == FS_RING_SORTED:
        return heap_get(<PriorityQueue>self, item)
    return ring_get(&self.ring, item)


cdef int put_item(_Ring self, PyObject* item, int64_t deadline) except -1:
    cdef fs_ring* r = &self.ring
    cdef int outcome
    Py_INCREF_of(item)
    ring_lock(r)
    outcome = try_put(self, item)
    if outcome == FS_RING_DONE:
        ring_unlock(r)
        return 0
    return put_slowly(self, item, deadline, outcome)


cdef int put_slowly(_Ring self, PyObject* item, int64_t deadline, int outcome) except -1:
    """After an attempt that came to `outcome`; takes over the lock and the reference."""
    cdef fs_ring* r = &self.ring
    cdef int flags = FS_SIGNALS
    try:
        while outcome != FS_RING_DONE:
            if outcome == FS_RING_GROW:
                grow(r, 1)
            elif outcome == FS_RING_WAIT and deadline != 0:
                give_turn(self)
                outcome = ring_await_room(r, deadline, flags, item)
                if outcome == FS_RING_DONE:
                    break
                if outcome != FS_RING_AGAIN:
                    refuse_put(outcome)
                flags |= FS_FIRST  # overtaken, perhaps
            elif outcome == FS_RING_BUSY:
                if ring_await_turn(r, flags) == FS_RING_ERROR:
                    refuse_put(FS_RING_ERROR)
            elif outcome == FS_RING_COMPARE:
                if heap_put_compared(<PriorityQueue>self, item) == FS_RING_DONE:
                    break
            else:
                ring_unlock(r)
                if outcome == FS_RING_GONE:
                    return open_put(<Queue>self, <object>item, deadline)
                refuse_put(outcome)
            ring_lock(r)
            outcome = try_put(self, item)
            if outcome == FS_RING_DONE:
                ring_unlock(r)
        item = NULL
    finally:
        if item != NULL:
            pass_room_on(r)
            Py_XDECREF(item)
    return 0


cdef int refuse_put(int outcome) except -1:
    if outcome == FS_RING_CLOSED:
        raise ShutDown
    if outcome != FS_RING_ERROR:
        raise Full
    return -1


cdef void pass_room_on(fs_ring* r) noexcept:
    """A put has failed that may have been woken for the room that there is."""
    if r.order == FS_RING_SORTED:
        ring_lock(r)
        if ring_state(r) & FS_RING_PUTTERS:
            ring_made_room(r)
        ring_unlock(r)


cdef object get_item(_Ring self, int64_t deadline):
    cdef fs_ring* r = &self.ring
    cdef void* item = NULL
    cdef int outcome
    ring_lock(r)
    outcome = try_get(self, &item)
    if outcome != FS_RING_DONE:
        return get_slowly(self, deadline, outcome)
    if is_idle(r):
        shrink(r)
    else:
        ring_unlock(r)
    return owned(<PyObject*>item)


cdef object get_slowly(_Ring self, int64_t deadline, int outcome):
    """After an attempt that came to `outcome`; takes over the lock."""
    cdef fs_ring* r = &self.ring
    cdef void* item = NULL
    cdef int flags = FS_SIGNALS
    while True:
        if outcome == FS_RING_WAIT and deadline != 0:
            give_turn(self)
            outcome = ring_await_item(r, deadline, flags, &item)
            if outcome == FS_RING_DONE:
                break
            if outcome != FS_RING_AGAIN:
                refuse_get(outcome)
            flags |= FS_FIRST  # overtaken, perhaps
        elif outcome == FS_RING_BUSY:
            if ring_await_turn(r, flags) == FS_RING_ERROR:
                refuse_get(FS_RING_ERROR)
        elif outcome == FS_RING_COMPARE:
            if heap_get_compared(<PriorityQueue>self, &item) == FS_RING_DONE:
                break
        else:
            ring_unlock(r)
            if outcome == FS_RING_GONE:
                return open_get(<Queue>self, deadline)
            refuse_get(outcome)
        ring_lock(r)
        outcome = try_get(self, &item)
        if outcome == FS_RING_DONE:
            ring_unlock(r)
            break
    return owned(<PyObject*>item)


cdef int refuse_get(int outcome) except -1:
    if outcome == FS_RING_CLOSED:
        raise ShutDown
    if outcome != FS_RING_ERROR:
        raise Empty
    return -1


# -- batches -------------------------------------------------------------------------

cdef int put_batch(_Ring self, list batch, int64_t deadline) except -1:
    """All of it, or Full or ShutDown with `items`, those that were not put."""
    cdef Py_ssize_t done = 0
    try:
        while done < PyList_GET_SIZE(batch):
            if put_some(self, batch, &done) != FS_RING_DONE:
                put_item(self, PyList_GET_ITEM(batch, done), deadline)
                done += 1
    except (Full, ShutDown) as error:
        error.items = batch[done:]
        raise
    return 0


cdef int put_some(_Ring self, list batch, Py_ssize_t* done) except -1:
    """Those that go in without waiting, under one lock."""
    cdef fs_ring* r = &self.ring
    cdef Py_ssize_t n = PyList_GET_SIZE(batch)
    cdef PyObject* item
    cdef int outcome = FS_RING_DONE
    ring_lock(r)
    while done[0] < n and outcome == FS_RING_DONE:
        item = PyList_GET_ITEM(batch, done[0])
        Py_INCREF_of(item)
        outcome = try_put(self, item)
        if outcome == FS_RING_DONE:
            done[0] += 1
        else:
            Py_DECREF(<object>item)  # `batch` has another
    if outcome == FS_RING_GROW:
        grow(r, min(<size_t>(n - done[0]), r.limit - ring_count(r)))
        return FS_RING_DONE
    ring_unlock(r)
    return outcome


cdef list get_batch(_Ring self, object limit, int64_t deadline):
    cdef fs_ring* r = &self.ring
    cdef Py_ssize_t most = PyNumber_AsSsize_t(limit, PyExc_OverflowError)
    cdef Py_ssize_t here, done = 0
    cdef list batch
    cdef void* item
    if most < 1:
        raise ValueError("max must be at least 1")
    here = min(<size_t>most, ring_count(r))
    batch = PyList_New(max(here, 1))
    ring_lock(r)
    while done < here and try_get(self, &item) == FS_RING_DONE:
        PyList_SET_ITEM(batch, done, <PyObject*>item)
        done += 1
    if is_idle(r):
        shrink(r)
    else:
        ring_unlock(r)
    if done == 0:
        PyList_SET_ITEM(batch, 0, Py_NewRef(Py_None))
        batch[0] = get_item(self, deadline)
        done = 1
    Py_SET_SIZE(batch, done)  # needs no memory, which `del` does
    if ring_state(r) & FS_RING_AWAY:
        take_the_rest(self, batch, most)
    return batch


cdef int take_the_rest(_Ring self, list batch, Py_ssize_t most) except -1:
    """Of an opened queue, what it has at this moment."""
    while PyList_GET_SIZE(batch) < most:
        try:
            batch.append(open_get(<Queue>self, 0))
        except (Empty, ShutDown):
            break
    return 0


# -- SimpleQueue -----------------------------------------------------------------------

@cython.no_gc_clear
cdef class SimpleQueue(_Ring):
    """SimpleQueue()
--

An unbounded first-in first-out queue, as `queue.SimpleQueue`.

No call waits but get(), and any may be made from a finalizer or a signal handler.
Threads that wait are served in order.  put() happens before the get() that takes
its item (release / acquire ordering)."""

    def __init__(self):
        pass

    def put(self, item, block=True, timeout=None):
        """Put the item at the end.  `block` and `timeout` are ignored: this never waits."""
        put_item(self, <PyObject*>item, FS_FOREVER)

    def put_nowait(self, item):
        """put(item)."""
        put_item(self, <PyObject*>item, FS_FOREVER)

    def get(self, block=True, timeout=None):
        """Take the first item, waiting for one.

        block: False raises Empty at once when there is none.  timeout: seconds to
        wait at most, None for no limit; Empty when they have passed, ValueError below 0.
        """
        return get_item(self, wait_limit(block, timeout))

    def get_nowait(self):
        """get(block=False)."""
        return get_item(self, 0)

    def put_many(self, iterable):
        """Put all items of `iterable` at the end, side by side."""
        put_batch(self, list(iterable), FS_FOREVER)

    def get_many(self, max, timeout=None):
        """Take up to `max` items, a list; waits for the first only.

        timeout: seconds, None for no limit.  Empty when none comes in that time.
        """
        return get_batch(self, max, wait_limit(True, timeout))

    def empty(self):
        """Whether there is no item, at this moment."""
        return ring_count(&self.ring) == 0

    def qsize(self):
        """How many items there are, at this moment."""
        return ring_count(&self.ring)

    def __reduce__(self):
        raise TypeError("cannot pickle '_queue.SimpleQueue' object")

    def __sizeof__(self):
        return size_in_memory(self)


cdef size_t size_in_memory(_Ring self) except 0:
    cdef size_t capacity
    ring_lock(&self.ring)
    capacity = self.ring.capacity
    ring_unlock(&self.ring)
    return <size_t>object.__sizeof__(self) + capacity * sizeof(void*)


# -- Queue -------------------------------------------------------------------------------

@cython.trashcan(True)
@cython.no_gc_clear
cdef class Queue(_Ring):
    """Queue(maxsize=0)
--

A first-in first-out queue, as `queue.Queue`.

maxsize: how many items are held at most; 0 or less for no limit.  put() happens
before the get() that takes its item (release / acquire ordering).  Threads that
wait are served in order.  Any call may be made from a finalizer or a signal
handler that interrupts another of the same queue."""
    cdef object limit_given   # maxsize
    cdef bint hooked          # opened, and calls its own _put() and so on

    def __init__(self, maxsize=0):
        start(self, maxsize)

    # -- adding and taking

    def put(self, item, block=True, timeout=None):
        """Put the item into the queue, waiting for room.

        block: False raises Full at once when there is none.  timeout: seconds to wait
        at most, None for no limit; Full when they have passed, ValueError below 0.
        ShutDown when the queue has been shut down.
        """
        if block is True and timeout is None:
            put_item(self, <PyObject*>item, FS_FOREVER)
        else:
            put_item(self, <PyObject*>item, put_limit(self, block, timeout))

    def get(self, block=True, timeout=None):
        """Take the next item, waiting for one.

        block: False raises Empty at once when there is none.  timeout: seconds to
        wait at most, None for no limit; Empty when they have passed, ValueError below 0.
        ShutDown when the queue has been shut down and is empty.
        """
        if block is True and timeout is None:
            return get_item(self, FS_FOREVER)
        return get_item(self, get_limit(self, block, timeout))

    def put_nowait(self, item):
        """put(item, block=False)."""
        if not is_ours(self):
            return self.put(item, block=False)
        put_item(self, <PyObject*>item, 0)

    def get_nowait(self):
        """get(block=False)."""
        if not is_ours(self):
            return self.get(block=False)
        return get_item(self, 0)

    def put_many(self, iterable, timeout=None):
        """Put all items of `iterable`, waiting for room.

        As many as fit go in side by side.  timeout: seconds for all of them, None for
        no limit.  Full when they have passed, ShutDown when the queue is shut down:
        its attribute `items` has those that were not put.
        """
        put_batch(self, list(iterable), put_limit(self, True, timeout))

    def get_many(self, max, timeout=None):
        """Take up to `max` items, a list; waits for the first only.

        timeout: seconds, None for no limit.  Empty when none comes in that time;
        ShutDown when the queue has been shut down and is empty.
        """
        return get_batch(self, max, get_limit(self, True, timeout))

    def __iter__(self):
        """Take items, waiting for them, until the queue is shut down and empty."""
        return _Items(self)

    # -- looking

    def qsize(self):
        """How many items there are, at this moment."""
        return queue_size(self)

    def empty(self):
        """Whether there is no item, at this moment."""
        return not queue_size(self)

    def full(self):
        """Whether there are `maxsize` items, at this moment."""
        return 0 < self.limit_given <= queue_size(self)

    # -- unfinished tasks, and the end

    def task_done(self):
        """Say that an item that was taken is done with; ValueError when none is left to be."""
        cdef fs_ring* r = &self.ring
        cdef _Parts parts
        cdef int64_t left
        ring_lock(r)
        if ring_state(r) & FS_RING_AWAY:
            ring_unlock(r)
            return open_task_done(self)
        left = r.unfinished - 1
        if left >= 0:
            r.unfinished = left
        if left <= 0:
            ring_wake_joiners(r, FS_RING_SERVED)
        ring_unlock(r)
        if left < 0:
            raise ValueError("task_done() called too many times")

    def join(self):
        """Wait until task_done() has been called for every item that was put."""
        cdef fs_ring* r = &self.ring
        cdef int outcome = FS_RING_AGAIN
        while outcome == FS_RING_AGAIN:
            ring_lock(r)
            if ring_state(r) & FS_RING_AWAY:
                ring_unlock(r)
                return open_join(self)
            if r.unfinished <= 0:
                ring_unlock(r)
                return
            give_turn(self)
            outcome = ring_await_done(r, FS_FOREVER, FS_SIGNALS)
        if outcome == FS_RING_ERROR:
            refuse_get(outcome)

    def shutdown(self, immediate=False):
        """Let no more items in: put() raises ShutDown, and get() once the queue is empty.

        All who wait for that are woken.  immediate: drop the items that are there, and
        count them as done.
        """
        cdef fs_ring* r = &self.ring
        cdef bint drop = bool(immediate)
        cdef fs_items dropped
        dropped.at = NULL
        dropped.count = 0
        ring_lock(r)
        if ring_state(r) & FS_RING_AWAY:
            ring_unlock(r)
            return open_shutdown(self, drop)
        ring_mark(r, FS_RING_SHUT)
        if drop:
            dropped = take_items(r)
            changed(self)
            r.unfinished = max(r.unfinished - <int64_t>dropped.count, <int64_t>0)
            if r.unfinished == 0:
                ring_wake_joiners(r, FS_RING_SERVED)
        ring_wake_getters(r, FS_RING_END)
        ring_wake_all_putters(r, FS_RING_END)
        ring_unlock(r)
        free_items(dropped)

    # -- attributes that the original has

    @property
    def maxsize(self):
        """How many items are held at most; 0 or less for no limit.  Can be set."""
        return self.limit_given

    @maxsize.setter
    def maxsize(self, value):
        set_limit(self, value)

    @property
    def unfinished_tasks(self):
        """How many items were put that task_done() has not been called for."""
        cdef int64_t unfinished
        ring_lock(&self.ring)
        unfinished = self.ring.unfinished
        ring_unlock(&self.ring)
        return unfinished

    @unfinished_tasks.setter
    def unfinished_tasks(self, int64_t value):
        ring_lock(&self.ring)
        self.ring.unfinished = value
        if value == 0:
            ring_wake_joiners(&self.ring, FS_RING_SERVED)
        ring_unlock(&self.ring)

    @property
    def is_shutdown(self):
        """Whether shutdown() has been called."""
        return bool(ring_state(&self.ring) & FS_RING_SHUT)

    @is_shutdown.setter
    def is_shutdown(self, value):
        cdef bint shut = bool(value)
        ring_lock(&self.ring)
        if shut:
            ring_mark(&self.ring, FS_RING_SHUT)
        else:
            ring_unmark(&self.ring, FS_RING_SHUT)
        ring_unlock(&self.ring)

    @property
    def mutex(self):
        """The lock that all calls take.  Opens the queue, as do the others below."""
        return opened(self).mutex

    @mutex.setter
    def mutex(self, value):
        opened(self).mutex = value

    @property
    def not_empty(self):
        """The condition over `mutex` that a put notifies."""
        return opened(self).not_empty

    @not_empty.setter
    def not_empty(self, value):
        opened(self).not_empty = value

    @property
    def not_full(self):
        """The condition over `mutex` that a get notifies."""
        return opened(self).not_full

    @not_full.setter
    def not_full(self, value):
        opened(self).not_full = value

    @property
    def all_tasks_done(self):
        """The condition over `mutex` that the last task_done() notifies."""
        return opened(self).all_tasks_done

    @all_tasks_done.setter
    def all_tasks_done(self, value):
        opened(self).all_tasks_done = value

    @property
    def queue(self):
        """The items: a deque, of the other types a list.  Change it with `mutex` held."""
        container = opened(self).container
        if container is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute 'queue'")
        return container

    @queue.setter
    def queue(self, value):
        opened(self).container = value

    # -- what subclasses override, called with `mutex` held

    def _init(self, maxsize):
        opened(self).container = deque()

    def _qsize(self):
        return len(self.queue)

    def _put(self, item):
        self.queue.append(item)

    def _get(self):
        return self.queue.popleft()

    # -- an object like those of classes written in Python

    @property
    def __dict__(self):
        return PyObject_GenericGetDict(self, NULL)

    @__dict__.setter
    def __dict__(self, value):
        PyObject_GenericSetDict(self, value, NULL)

    def __setattr__(self, name, value):
        PyObject_GenericSetAttr(self, name, value)
        if name in HOOKS:
            opened(self)
            self.hooked = True

    def __reduce__(self):
        raise TypeError("cannot pickle '_thread.lock' object")

    def __sizeof__(self):
        return size_in_memory(self)


@cython.trashcan(True)
@cython.no_gc_clear
cdef class LifoQueue(Queue):
    """LifoQueue(maxsize=0)
--

A queue whose last item is the first to be taken, as `queue.LifoQueue`; else a Queue."""

    def __cinit__(self):
        self.ring.order = FS_RING_LIFO

    def _init(self, maxsize):
        opened(self).container = []

    def _qsize(self):
        return len(self.queue)

    def _put(self, item):
        self.queue.append(item)

    def _get(self):
        return self.queue.pop()


@cython.trashcan(True)
@cython.no_gc_clear
cdef class PriorityQueue(Queue):
    """PriorityQueue(maxsize=0)
--

A queue whose smallest item is the first to be taken, as `queue.PriorityQueue`; else a
Queue.

Items are compared by `<`.  A comparison that raises makes the call raise, and leaves
the queue as it was; while Python code compares, other calls wait, but those that this
code itself makes."""
    cdef uintptr_t sorter      # the thread that compares items; 0: none
    cdef uint32_t sorter_born  # the fork epoch when it began
    cdef uint64_t version      # counts the changes of the heap

    def __cinit__(self):
        self.ring.order = FS_RING_SORTED

    def _init(self, maxsize):
        opened(self).container = []

    def _qsize(self):
        return len(self.queue)

    def _put(self, item):
        list_put(self.queue, item)

    def _get(self):
        return list_get(self.queue)


@cython.final
cdef class _Items:
    """What iterates over a queue."""
    cdef Queue queue

    def __cinit__(self, Queue queue not None):
        self.queue = queue

    def __iter__(self):
        return self

    def __next__(self):
        try:
            return self.queue.get()
        except ShutDown:
            raise StopIteration from None


cdef tuple HOOKS = ("_init", "_qsize", "_put", "_get")


cdef inline bint is_ours(Queue self) noexcept:
    """No subclass, which may have a put() or a get() of its own."""
    cdef PyTypeObject* cls = Py_TYPE(<PyObject*>self)
    return (cls == <PyTypeObject*>Queue or cls == <PyTypeObject*>LifoQueue
            or cls == <PyTypeObject*>PriorityQueue)


cdef bint overrides(Queue self) except -1:
    """Whether its class has a method of HOOKS of its own."""
    base = (Queue, LifoQueue, PriorityQueue)[self.ring.order]
    cls = type(self)
    for name in HOOKS:
        if getattr(cls, name) is not own_hooks[base, name]:
            return True
    return False


cdef int start(Queue self, object maxsize) except -1:
    """__init__(): also a second one, which empties the queue."""
    cdef fs_ring* r = &self.ring
    cdef fs_items dropped
    cdef object old
    ring_lock(r)
    dropped = take_items(r)
    changed(self)
    old = self.parts
    self.parts = None
    self.hooked = False
    ring_unmark(r, FS_RING_SHUT | FS_RING_AWAY)
    r.unfinished = 0
    ring_wake_joiners(r, FS_RING_SERVED)
    ring_wake_all_putters(r, FS_RING_LOOK)
    ring_unlock(r)
    free_items(dropped)
    set_limit(self, maxsize)
    if overrides(self):
        opened(self).container = None
        self.hooked = True
        self._init(maxsize)
    return 0


cdef int set_limit(Queue self, object value) except -1:
    cdef fs_ring* r = &self.ring
    cdef Py_ssize_t whole = 0
    cdef double number
    cdef size_t limit
    cdef object old
    cdef bint known = True
    if PyLong_Check(value) or PyIndex_Check(value):
        whole = PyNumber_AsSsize_t(value, NULL)  # far away is far enough
    elif PyFloat_CheckExact(value):
        number = PyFloat_AS_DOUBLE(value)
        if 0 < number < <double>(PY_SSIZE_T_MAX // 2):
            whole = <Py_ssize_t>number
            whole += whole < number
    else:
        known = False
    limit = whole if whole > 0 else ring_no_limit()
    old = self.limit_given
    ring_lock(r)
    self.limit_given = value
    r.limit = limit
    if ring_state(r) & FS_RING_PUTTERS and ring_count(r) < limit:
        ring_wake_putters(r, limit - ring_count(r))
    ring_unlock(r)
    if not known:
        opened(self)  # there it is compared as the original does
    return 0


cdef int64_t put_limit(Queue self, object block, object timeout) except? -1:
    # The original looks at the time only when there is a limit, and after the end.
    if self.ring.limit == ring_no_limit() and not ring_state(&self.ring) & FS_RING_AWAY:
        return FS_FOREVER
    try:
        return wait_limit(block, timeout)
    except (TypeError, ValueError):
        if ring_state(&self.ring) & FS_RING_SHUT:
            raise ShutDown from None
        raise


cdef int64_t get_limit(Queue self, object block, object timeout) except? -1:
    try:
        return wait_limit(block, timeout)
    except (TypeError, ValueError):
        if ring_state(&self.ring) & FS_RING_SHUT and not self.qsize():
            raise ShutDown from None
        raise


cdef object queue_size(Queue self):
    cdef fs_ring* r = &self.ring
    cdef size_t count
    ring_lock(r)
    if ring_state(r) & FS_RING_AWAY:
        ring_unlock(r)
        return open_size(self)
    count = ring_count(r)
    ring_unlock(r)
    return count


# -- the heap ------------------------------------------------------------------------
#
# What heapq does, in its order, but a change is made only after all comparisons that it
# needs, in one step and under the lock.  Numbers, strings and tuples of them are compared
# right there.  For others Python code may have to run: with nothing held, by one thread at
# a time, the sorter, while the others wait for their turn.  The sorter's own calls, from
# such code, do not wait, and may change the heap: then it begins anew.  An exception leaves
# the heap as it was.
#
# `sorter` and `version` are guarded by the ring's lock.

cdef enum:
    UNKNOWN = 2
    DEEPEST = 3


cdef int compared(PyObject* a, PyObject* b, int depth) noexcept:
    """-1 for less, 0 for equal, 1 for neither; UNKNOWN: Python must be asked."""
    cdef int64_t i, j
    cdef double x, y
    cdef int sign
    cdef Py_ssize_t k, n, m
    if fs_small_int(a, &i):
        if fs_small_int(b, &j):
            return (i > j) - (i < j)
        if not PyFloat_CheckExact(<object>b):
            return UNKNOWN
        x = <double>i
        y = PyFloat_AS_DOUBLE(<object>b)
    elif PyFloat_CheckExact(<object>a):
        x = PyFloat_AS_DOUBLE(<object>a)
        if PyFloat_CheckExact(<object>b):
            y = PyFloat_AS_DOUBLE(<object>b)
        elif fs_small_int(b, &j):
            y = <double>j
        else:
            return UNKNOWN
    elif PyTuple_CheckExact(<object>a) and PyTuple_CheckExact(<object>b) and depth < DEEPEST:
        n = PyTuple_GET_SIZE(<object>a)
        m = PyTuple_GET_SIZE(<object>b)
        for k in range(min(n, m)):
            if PyTuple_GET_ITEM(<object>a, k) == PyTuple_GET_ITEM(<object>b, k):
                continue  # the same object counts as equal
            sign = compared(PyTuple_GET_ITEM(<object>a, k), PyTuple_GET_ITEM(<object>b, k),
                            depth + 1)
            if sign != 0:
                return sign
        return (n > m) - (n < m)
    elif PyUnicode_CheckExact(a) and PyUnicode_CheckExact(b) and (
            PyUnicode_IS_COMPACT(a) and PyUnicode_IS_COMPACT(b)):
        return PyUnicode_Compare(a, b)
    else:
        return UNKNOWN
    return -1 if x < y else 0 if x == y else 1


cdef inline int less(void* a, void* b) noexcept:
    """1, 0 or UNKNOWN."""
    cdef int sign = compared(<PyObject*>a, <PyObject*>b, 0)
    return UNKNOWN if sign == UNKNOWN else sign == -1


# Where an item is to be stored, or which way the hole goes that the first item leaves: the
# positions from the top down.
cdef struct fs_path:
    size_t[64] at
    int length


cdef inline size_t above(size_t i) noexcept nogil:
    return (i - 1) // 2


cdef void heap_insert(fs_ring* r, size_t place, void* item) noexcept nogil:
    """Under the lock: store it there, those above on the way down."""
    cdef size_t i = ring_count(r)
    ring_set_count(r, i + 1)
    while i > place:
        r.items[i] = r.items[above(i)]
        i = above(i)
    r.items[place] = item
    r.unfinished += 1


cdef void* heap_remove(fs_ring* r, fs_path* path, int depth) noexcept nogil:
    """Under the lock: take the first; the last goes to the path's place `depth`."""
    cdef void* first = r.items[0]
    cdef size_t last = ring_count(r) - 1
    cdef int k
    ring_set_count(r, last)
    if last != 0:
        for k in range(depth):
            r.items[path.at[k]] = r.items[path.at[k + 1]]
        r.items[path.at[depth]] = r.items[last]
    if ring_state(r) & FS_RING_PUTTERS:
        ring_made_room(r)
    return first


cdef inline void changed(Queue self) noexcept:
    if self.ring.order == FS_RING_SORTED:
        (<PriorityQueue>self).version += 1


cdef int heap_put(PriorityQueue self, PyObject* item) noexcept:
    """Under the lock."""
    cdef fs_ring* r = &self.ring
    cdef size_t place = ring_count(r)
    cdef int outcome = ring_admit(r, item)
    cdef int result
    if outcome != FS_RING_ROOM:
        return outcome
    if is_busy(self):
        return FS_RING_BUSY
    while place > 0:
        result = less(item, r.items[above(place)])
        if result == UNKNOWN:
            return FS_RING_COMPARE
        if result == 0:
            break
        place = above(place)
    heap_insert(r, place, item)
    self.version += 1
    return FS_RING_DONE


cdef int heap_get(PriorityQueue self, void** item) noexcept:
    """Under the lock."""
    cdef fs_ring* r = &self.ring
    cdef fs_path path
    cdef size_t child, last
    cdef int depth = 0
    cdef int result
    if ring_count(r) == 0:
        return ring_refuse(r, item)
    if is_busy(self):
        return FS_RING_BUSY
    last = ring_count(r) - 1
    path.at[0] = 0
    child = 1
    while child < last:
        if child + 1 < last:
            result = less(r.items[child], r.items[child + 1])
            if result == UNKNOWN:
                return FS_RING_COMPARE
            child += not result
        depth += 1
        path.at[depth] = child
        child = 2 * child + 1
    while depth > 0:
        result = less(r.items[last], r.items[path.at[depth]])
        if result == UNKNOWN:
            return FS_RING_COMPARE
        if not result:
            break
        depth -= 1
    item[0] = heap_remove(r, &path, depth)
    self.version += 1
    return FS_RING_DONE


cdef inline bint is_busy(PriorityQueue self) noexcept:
    """Whether another thread compares items; not one that a fork has left behind."""
    return (self.sorter != 0 and self.sorter != fs_thread_id()
            and self.sorter_born == fork_epoch())


cdef bint take_turn(PriorityQueue self) noexcept:
    """Under the lock, when not busy: be the sorter; whether this thread is it already."""
    cdef uintptr_t me = fs_thread_id()
    cdef bint nested = self.sorter == me and self.sorter_born == fork_epoch()
    self.sorter = me
    self.sorter_born = fork_epoch()
    return nested


cdef void end_turn(PriorityQueue self) noexcept:
    """Under the lock."""
    if self.sorter == fs_thread_id():
        self.sorter = 0
        ring_wake_sorters(&self.ring)


cdef inline void give_turn(_Ring self) noexcept:
    """Under the lock, before a wait that another thread must end: code that compares for
    this thread makes it wait."""
    if self.ring.order == FS_RING_SORTED and (<PriorityQueue>self).sorter != 0:
        end_turn(<PriorityQueue>self)


cdef inline bint is_as_it_was(PriorityQueue self, uint64_t version) noexcept:
    return self.version == version and self.sorter == fs_thread_id()


# Answers of ask() besides 0 and 1.
cdef enum:
    OUTDATED = 2


cdef int ask(
    PriorityQueue self, uint64_t version, PyObject* a, size_t i, PyObject* b, size_t j,
) except -1:
    """Whether a < b, by Python; a NULL stands for the item at i, or at j."""
    cdef fs_ring* r = &self.ring
    cdef int result
    ring_lock(r)
    if not is_as_it_was(self, version):
        ring_unlock(r)
        return OUTDATED
    if a == NULL:
        a = <PyObject*>r.items[i]
    if b == NULL:
        b = <PyObject*>r.items[j]
    Py_INCREF_of(a)
    Py_INCREF_of(b)
    ring_unlock(r)
    try:
        return PyObject_RichCompareBool(<object>a, <object>b, Py_LT)
    finally:
        Py_DECREF(<object>a)
        Py_DECREF(<object>b)


cdef int heap_put_compared(PriorityQueue self, PyObject* item) except -1:
    """Called under the lock, when not busy; returns without it: DONE or AGAIN."""
    cdef fs_ring* r = &self.ring
    cdef bint nested = take_turn(self)
    cdef uint64_t version = self.version
    cdef size_t place = ring_count(r)
    cdef int result = 1
    ring_unlock(r)
    try:
        while place > 0:
            result = ask(self, version, item, 0, NULL, above(place))
            if result != 1:
                break
            place = above(place)
    except:
        finish_turn(self, nested)
        raise
    ring_lock(r)
    if (result == OUTDATED or not is_as_it_was(self, version)
            or ring_admit(r, item) != FS_RING_ROOM):
        result = FS_RING_AGAIN
    else:
        heap_insert(r, place, item)
        self.version += 1
        result = FS_RING_DONE
    if not nested:
        end_turn(self)
    ring_unlock(r)
    return result


cdef int finish_turn(PriorityQueue self, bint nested) except -1:
    ring_lock(&self.ring)
    if not nested:
        end_turn(self)
    ring_unlock(&self.ring)
    return 0


cdef int find_path(
    PriorityQueue self, uint64_t version, size_t last, fs_path* path,
) except -1:
    """As heap_get(): 0, or OUTDATED."""
    cdef size_t child = 1
    cdef int result
    path.length = 0
    path.at[0] = 0
    while child < last:
        if child + 1 < last:
            result = ask(self, version, NULL, child, NULL, child + 1)
            if result == OUTDATED:
                return OUTDATED
            child += not result
        path.length += 1
        path.at[path.length] = child
        child = 2 * child + 1
    while path.length > 0:
        result = ask(self, version, NULL, last, NULL, path.at[path.length])
        if result == OUTDATED:
            return OUTDATED
        if not result:
            break
        path.length -= 1
    return 0


cdef int heap_get_compared(PriorityQueue self, void** item) except -1:
    """Called under the lock, when not busy; returns without it: DONE or AGAIN."""
    cdef fs_ring* r = &self.ring
    cdef bint nested = take_turn(self)
    cdef uint64_t version = self.version
    cdef size_t last = ring_count(r) - 1
    cdef fs_path path
    cdef int result
    ring_unlock(r)
    try:
        result = find_path(self, version, last, &path)
    except:
        finish_turn(self, nested)
        raise
    ring_lock(r)
    if result == OUTDATED or not is_as_it_was(self, version):
        result = FS_RING_AGAIN
    else:
        item[0] = heap_remove(r, &path, path.length)
        self.version += 1
        result = FS_RING_DONE
    if not nested:
        end_turn(self)
    ring_unlock(r)
    return result


# The same for the list of an opened queue, whose mutex keeps other threads out.

cdef int list_put(object heap, object item) except -1:
    cdef Py_ssize_t i, place, n
    if type(heap) is not list:
        heappush(heap, item)
        return 0
    n = place = len(heap)
    while place > 0 and item < heap[above(place)]:
        place = above(place)
        if len(heap) != n:  # changed by the comparison
            n = place = len(heap)
    heap.append(item)
    i = n
    while i > place:
        heap[i] = heap[above(i)]
        i = above(i)
    heap[place] = item
    return 0


cdef object list_get(object heap):
    cdef fs_path path
    cdef Py_ssize_t child, last
    cdef int k
    if type(heap) is not list or len(heap) < 2:
        return heappop(heap)
    while True:
        last = len(heap) - 1
        path.length = 0
        path.at[0] = 0
        child = 1
        while child < last == len(heap) - 1:
            if child + 1 < last:
                child += not heap[child] < heap[child + 1]
            path.length += 1
            path.at[path.length] = child
            child = 2 * child + 1
        while path.length > 0 and last == len(heap) - 1:
            if not heap[last] < heap[path.at[path.length]]:
                break
            path.length -= 1
        if last == len(heap) - 1:
            break  # else changed by a comparison
        if last < 2:
            return heappop(heap)
    first = heap[0]
    moved = heap.pop()
    for k in range(path.length):
        heap[path.at[k]] = heap[path.at[k + 1]]
    heap[path.at[path.length]] = moved
    return first


# -- an opened queue -----------------------------------------------------------------
#
# `owner` is the thread that holds the mutex in one of the queue's own calls, as it may when
# Python code runs in it: a _put() of a subclass, a finalizer.  That code may call the queue.
# Its puts are deferred until the outer call is at its end: nothing changes under its hands.
# What would have to wait for the outer call to end fails instead.

cdef class _Parts:
    cdef object mutex
    cdef object not_empty
    cdef object not_full
    cdef object all_tasks_done
    cdef object container
    cdef list deferred
    cdef fs_atomic_uptr owner
    cdef uint32_t born  # the fork epoch

    def __cinit__(self):
        self.mutex = Lock()
        self.not_empty = Condition(self.mutex)
        self.not_full = Condition(self.mutex)
        self.all_tasks_done = Condition(self.mutex)
        self.deferred = []
        self.born = fork_epoch()


cdef inline bint is_inside(_Parts parts) noexcept:
    # relaxed: only this thread writes its own id here
    return fs_uptr_load_relaxed(&parts.owner) == fs_thread_id()


cdef inline void set_owner(_Parts parts, uintptr_t owner) noexcept:
    fs_uptr_store_relaxed(&parts.owner, owner)  # relaxed: see is_inside


cdef _Parts current_parts(Queue self):
    cdef object parts
    ring_lock(&self.ring)
    parts = self.parts
    if parts is not None and (<_Parts>parts).born != fork_epoch():
        forget_others(<_Parts>parts)
    ring_unlock(&self.ring)
    return parts


cdef void forget_others(_Parts parts) noexcept:
    """The child of a fork, under the ring's lock: who had the mutex does not exist here."""
    parts.born = fork_epoch()
    if is_inside(parts):
        return
    fs_uptr_store_relaxed(&parts.owner, 0)  # relaxed: see is_inside
    if type(parts.mutex) is Lock:
        mutex_reset(lock_word(parts.mutex))
    for condition in (parts.not_empty, parts.not_full, parts.all_tasks_done):
        if type(condition) is Condition:
            condvar_reset(&(<Condition>condition).waiters)


cdef _Parts opened(Queue self):
    """The parts of the queue, which is opened if it was not."""
    cdef _Parts parts = current_parts(self)
    cdef list items
    if parts is not None:
        return parts
    parts = _Parts()
    parts.mutex.acquire()
    set_owner(parts, fs_thread_id())
    try:
        items = copy_items(self, parts)
        if items is None:
            return current_parts(self)
        if self.ring.order == FS_RING_FIFO:
            try:
                parts.container = deque(items)
            except:
                close(self, parts)
                raise
        else:
            parts.container = items
        drop_items(&self.ring)
    finally:
        leave(self, parts, parts.mutex)
    return parts


cdef list copy_items(Queue self, _Parts parts):
    """Give up the ring, and let all who are parked look again; None: it is done already."""
    cdef fs_ring* r = &self.ring
    cdef list items = []
    cdef size_t i
    cdef PyObject* item
    while True:
        ring_lock(r)
        if ring_state(r) & FS_RING_AWAY:
            ring_unlock(r)
            return None
        if ring_count(r) == <size_t>PyList_GET_SIZE(items):
            break
        i = ring_count(r)
        ring_unlock(r)
        items = [None] * i
    for i in range(ring_count(r)):
        item = <PyObject*>r.items[(r.head + i) & (r.capacity - 1)]
        Py_INCREF_of(item)
        PyList_SET_ITEM(items, i, item)
    self.parts = parts
    ring_mark(r, FS_RING_AWAY)
    changed(self)
    ring_wake_getters(r, FS_RING_LOOK)
    ring_wake_all_putters(r, FS_RING_LOOK)
    ring_wake_joiners(r, FS_RING_LOOK)
    ring_unlock(r)
    return items


cdef int close(Queue self, _Parts parts) except -1:
    """Undo copy_items(): there was no memory."""
    ring_lock(&self.ring)
    if self.parts is parts:
        self.parts = None
        ring_unmark(&self.ring, FS_RING_AWAY)
    ring_unlock(&self.ring)
    return 0


# Which of the locks a call takes: all are the one mutex, unless they were exchanged.
cdef enum:
    MUTEX
    NOT_EMPTY
    NOT_FULL
    ALL_TASKS_DONE


cdef object lock_of(_Parts parts, int which):
    if which == NOT_EMPTY:
        return parts.not_empty
    if which == NOT_FULL:
        return parts.not_full
    return parts.all_tasks_done if which == ALL_TASKS_DONE else parts.mutex


cdef _Parts enter(Queue self, int which):
    """The parts, with the mutex taken for one of the queue's own calls."""
    cdef _Parts parts
    while True:
        parts = opened(self)
        lock = lock_of(parts, which)
        lock.__enter__()
        if current_parts(self) is parts:
            set_owner(parts, fs_thread_id())
            return parts
        lock.__exit__(None, None, None)


cdef int leave(Queue self, _Parts parts, object lock) except -1:
    try:
        put_deferred(self, parts)
    finally:
        set_owner(parts, 0)
        lock.__exit__(None, None, None)
    return 0


cdef int put_deferred(Queue self, _Parts parts) except -1:
    while parts.deferred:
        item = parts.deferred.pop(0)
        try:
            store(self, parts, item)
        except BaseException:
            PyErr_WriteUnraisable(<PyObject*>self)  # its put() has returned long since
    return 0


cdef object size(Queue self, _Parts parts):
    return self._qsize() if self.hooked else len(parts.container)


cdef int store(Queue self, _Parts parts, object item) except -1:
    if self.hooked:
        self._put(item)
    elif self.ring.order == FS_RING_SORTED:
        list_put(parts.container, item)
    else:
        parts.container.append(item)
    add_unfinished(self, 1)
    parts.not_empty.notify()
    return 0


cdef object take(Queue self, _Parts parts):
    if self.hooked:
        return self._get()
    if self.ring.order == FS_RING_SORTED:
        return list_get(parts.container)
    if self.ring.order == FS_RING_LIFO:
        return parts.container.pop()
    return parts.container.popleft()


cdef int64_t add_unfinished(Queue self, int64_t n) except? -1:
    cdef int64_t sum
    ring_lock(&self.ring)
    sum = self.ring.unfinished = self.ring.unfinished + n
    ring_unlock(&self.ring)
    return sum


cdef inline bint is_shut(Queue self) noexcept:
    return ring_state(&self.ring) & FS_RING_SHUT


cdef bint wait(Queue self, _Parts parts, object condition, int64_t deadline) except -1:
    """False when the time has passed."""
    cdef int64_t now = fs_now()
    if deadline == 0 or (deadline != FS_FOREVER and now >= deadline):
        return False
    put_deferred(self, parts)
    set_owner(parts, 0)
    try:
        condition.wait(None if deadline == FS_FOREVER else (deadline - now) * 1e-9)
    except:
        condition.notify()  # it may have been notified as well: that was for another then
        raise
    finally:
        set_owner(parts, fs_thread_id())
    return True


cdef int open_put(Queue self, object item, int64_t deadline) except -1:
    cdef _Parts parts = opened(self)
    cdef object condition
    if is_inside(parts):
        return put_inside(self, parts, item)
    parts = enter(self, NOT_FULL)
    condition = parts.not_full
    try:
        if is_shut(self):
            raise ShutDown
        if self.limit_given > 0:
            while size(self, parts) >= self.limit_given:
                if not wait(self, parts, condition, deadline):
                    raise Full
                if is_shut(self):
                    raise ShutDown
        store(self, parts, item)
    finally:
        leave(self, parts, condition)
    return 0


cdef int put_inside(Queue self, _Parts parts, object item) except -1:
    if is_shut(self):
        raise ShutDown
    if 0 < self.limit_given <= size(self, parts) + len(parts.deferred):
        raise Full
    parts.deferred.append(item)
    return 0


cdef object open_get(Queue self, int64_t deadline):
    cdef _Parts parts = opened(self)
    cdef object condition
    if is_inside(parts):
        return get_inside(self, parts)
    parts = enter(self, NOT_EMPTY)
    condition = parts.not_empty
    try:
        while not size(self, parts):
            if is_shut(self):
                raise ShutDown
            if not wait(self, parts, condition, deadline):
                raise Empty
        item = take(self, parts)
        parts.not_full.notify()
    finally:
        leave(self, parts, condition)
    return item


cdef object get_inside(Queue self, _Parts parts):
    if size(self, parts):
        return take(self, parts)
    if parts.deferred:
        add_unfinished(self, 1)
        return parts.deferred.pop(0)
    if is_shut(self):
        raise ShutDown
    raise Empty


cdef object open_size(Queue self):
    cdef _Parts parts = opened(self)
    if is_inside(parts):
        return size(self, parts) + len(parts.deferred)
    parts = enter(self, MUTEX)
    lock = parts.mutex
    try:
        return size(self, parts)
    finally:
        leave(self, parts, lock)


cdef object open_task_done(Queue self):
    cdef _Parts parts = opened(self)
    cdef bint inside = is_inside(parts)
    if not inside:
        parts = enter(self, ALL_TASKS_DONE)
    lock = parts.all_tasks_done
    try:
        if self.ring.unfinished <= 1:
            if self.ring.unfinished < 1:
                raise ValueError("task_done() called too many times")
            lock.notify_all()
        add_unfinished(self, -1)
    finally:
        if not inside:
            leave(self, parts, lock)


cdef object open_join(Queue self):
    cdef _Parts parts = opened(self)
    if is_inside(parts):
        if self.ring.unfinished > 0:
            raise RuntimeError("join() within another call of the same queue would never end")
        return
    parts = enter(self, ALL_TASKS_DONE)
    condition = parts.all_tasks_done
    try:
        while self.ring.unfinished > 0:
            wait(self, parts, condition, FS_FOREVER)
    finally:
        leave(self, parts, condition)


cdef object open_shutdown(Queue self, bint immediate):
    cdef _Parts parts = opened(self)
    cdef bint inside = is_inside(parts)
    cdef list dropped = []  # let go when nothing is held
    if not inside:
        parts = enter(self, MUTEX)
    lock = parts.mutex
    try:
        ring_lock(&self.ring)
        ring_mark(&self.ring, FS_RING_SHUT)
        ring_unlock(&self.ring)
        if immediate:
            put_deferred(self, parts)
            while size(self, parts):
                dropped.append(take(self, parts))
                if self.ring.unfinished > 0:
                    add_unfinished(self, -1)
            parts.all_tasks_done.notify_all()
        parts.not_empty.notify_all()
        parts.not_full.notify_all()
    finally:
        if not inside:
            leave(self, parts, lock)


# -- short ways: the plain calls of the most used methods, see shorten() -----------

cdef fs_method usual_put
cdef fs_method usual_get
cdef fs_method usual_simple_put
cdef fs_method usual_simple_get


cdef PyObject* short_put(
    PyObject* self, PyObject** args, Py_ssize_t nargs, PyObject* names,
) except NULL:
    if nargs != 1 or names != NULL:
        return usual_put(self, args, nargs, names)
    put_item(<_Ring>self, args[0], FS_FOREVER)
    return Py_NewRef(Py_None)


cdef PyObject* short_get(
    PyObject* self, PyObject** args, Py_ssize_t nargs, PyObject* names,
) except NULL:
    cdef object item
    if nargs != 0 or names != NULL:
        return usual_get(self, args, nargs, names)
    item = get_item(<_Ring>self, FS_FOREVER)
    return Py_NewRef(<PyObject*>item)


cdef PyObject* short_simple_put(
    PyObject* self, PyObject** args, Py_ssize_t nargs, PyObject* names,
) except NULL:
    if nargs != 1 or names != NULL:
        return usual_simple_put(self, args, nargs, names)
    put_item(<_Ring>self, args[0], FS_FOREVER)
    return Py_NewRef(Py_None)


cdef PyObject* short_simple_get(
    PyObject* self, PyObject** args, Py_ssize_t nargs, PyObject* names,
) except NULL:
    cdef object item
    if nargs != 0 or names != NULL:
        return usual_simple_get(self, args, nargs, names)
    item = get_item(<_Ring>self, FS_FOREVER)
    return Py_NewRef(<PyObject*>item)


# -- set-up ------------------------------------------------------------------------

cdef fs_traverse traverse_the_rest = NULL  # Cython's own tp_traverse of a _Ring


cdef int traverse(PyObject* self, visitproc visit, void* arg) noexcept:
    """The world stands, or has the GIL, and nothing is half done: see ring.pxd."""
    cdef fs_ring* r = &(<_Ring>self).ring
    cdef PyObject* attributes = (<_Ring>self).attributes
    cdef int result = traverse_the_rest(self, visit, arg)
    cdef size_t i
    if result == 0 and attributes != NULL:
        result = visit(attributes, arg)
    for i in range(ring_count(r)):
        if result != 0:
            break
        result = visit(<PyObject*>r.items[(r.head + i) & (r.capacity - 1)], arg)
    return result


cdef int clear(PyObject* self) noexcept:
    drop_items(&(<_Ring>self).ring)
    return 0


cdef dict own_hooks = {
    (cls, name): getattr(cls, name)
    for cls in (Queue, LifoQueue, PriorityQueue)
    for name in HOOKS
}


cdef int set_up() except -1:
    global traverse_the_rest, usual_put, usual_get, usual_simple_put, usual_simple_get
    cdef Queue probe = Queue()
    cdef Py_ssize_t attributes_at = <char*>&probe.attributes - <char*><PyObject*>probe
    traverse_the_rest = collect_by(_Ring, traverse, clear)
    for cls in (SimpleQueue, Queue, LifoQueue, PriorityQueue):
        collect_by(cls, traverse, clear)
        finish_type(cls, cls is not SimpleQueue)
    for cls in (Queue, LifoQueue, PriorityQueue):
        make_lazy_dict(cls, attributes_at)
    finish_type(_Ring, False)
    rename_type(SimpleQueue, b"_queue.SimpleQueue")
    rename_type(Queue, b"queue.Queue")
    rename_type(LifoQueue, b"queue.LifoQueue")
    rename_type(PriorityQueue, b"queue.PriorityQueue")
    usual_put = shorten(Queue, "put", short_put)
    usual_get = shorten(Queue, "get", short_get)
    usual_simple_put = shorten(SimpleQueue, "put", short_simple_put)
    usual_simple_get = shorten(SimpleQueue, "get", short_simple_get)
    register_pinnable(SimpleQueue, Queue, LifoQueue, PriorityQueue)
    return 0


set_up()
