# distutils: define_macros=CYTHON_USE_TYPE_SPECS=1
# Heap types, because these can be patched and renamed as the originals can.
"""Queue and LifoQueue, as in `queue`: rings with a count of unfinished tasks and an end."""
cimport cython
from libc.stdint cimport int64_t
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.long cimport PyLong_Check
from cpython.number cimport PyIndex_Check
from cpython.object cimport PyObject, PyObject_GenericSetAttr, PyTypeObject

from fastsync._watch.trace cimport (
    fs_section, FS_TASKS, fs_wait, trace_released, trace_signalled, trace_work, tracing,
)
from fastsync.raw.c_wait cimport FS_FOREVER
from fastsync.raw.parking cimport FS_SIGNALS
from fastsync.raw.ring cimport *
from fastsync.objects._extensible cimport sign_constructor
from fastsync.objects._opened cimport (
    _Opening, open_join, open_shutdown, open_size, open_task_done, opened, opened_whole,
)
from fastsync.objects._ring cimport (
    _Ring, before_serving, collect_items, free_items, fs_items, get_batch, get_item, put_batch,
    put_item, size_in_memory, take_items, wait_limit,
)
from fastsync.objects._slots cimport (
    finish_type, fs_method, make_lazy_dict, rename_type, shorten, version_tag,
)
from fastsync.raw.c_python cimport Py_NewRef

from collections import deque

from fastsync.objects._pin import register_pinnable
from fastsync.objects._ring import ShutDown

cdef extern from "Python.h":
    PyObject* Py_None
    PyTypeObject* Py_TYPE(PyObject*) noexcept
    const Py_ssize_t PY_SSIZE_T_MAX
    object PyObject_GenericGetDict(object, void*)
    int PyObject_GenericSetDict(object, object, void*) except -1
    Py_ssize_t PyNumber_AsSsize_t(object, PyObject*) except? -1


@cython.no_gc_clear
cdef class Queue(_Opening):
    """Queue(maxsize=0)
--

A first-in first-out queue, as `queue.Queue`.

maxsize: how many items are held at most; 0 or less for no limit.  put() happens
before the get() that takes its item (release / acquire ordering).  Threads that
wait are served in order.  Any call may be made from a finalizer or a signal
handler that interrupts another of the same queue."""
    def __init__(self, maxsize=0):
        initialize(self, maxsize)

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

        Where taking an item runs Python code (a comparison in a PriorityQueue, a _get() of a
        subclass) the list has one item: an exception amid several would lose those taken.

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
        cdef fs_section section
        cdef int64_t left
        ring_lock(r)
        if ring_state(r) & FS_RING_AWAY:
            ring_unlock(r)
            return open_task_done(self)
        left = r.unfinished - 1
        if left >= 0:
            r.unfinished = left
        if left > 0:
            ring_unlock(r)
            return
        before_serving(self, FS_RING_JOINERS, &section)
        ring_wake_joiners(r, FS_RING_SERVED)
        ring_unlock(r)
        trace_released(&section)
        if left < 0:
            raise ValueError("task_done() called too many times")

    def join(self):
        """Wait until task_done() has been called for every item that was put."""
        cdef fs_wait wait
        cdef bint noted = tracing() and unfinished(self) > 0
        cdef int outcome
        if noted:
            trace_work(&wait, self, FS_TASKS, ring_joiners(&self.ring), FS_FOREVER)
        try:
            outcome = await_tasks(self)
        finally:
            if noted:
                trace_signalled(&wait)
        if outcome == FS_RING_ERROR:
            self.refuse_get(outcome)
        if outcome == FS_RING_GONE:
            open_join(self)

    def shutdown(self, immediate=False):
        """Let no more items in: put() raises ShutDown, and get() once the queue is empty.

        All who wait for that are woken.  immediate: drop the items that are there, and
        count them as done.
        """
        cdef fs_ring* r = &self.ring
        cdef bint drop = bool(immediate)
        cdef fs_section sections[3]
        cdef fs_items dropped
        dropped.at = NULL
        dropped.count = 0
        ring_lock(r)
        if ring_state(r) & FS_RING_AWAY:
            ring_unlock(r)
            return open_shutdown(self, drop)
        before_serving(self, FS_RING_GETTERS, &sections[0])
        before_serving(self, FS_RING_PUTTERS, &sections[1])
        before_serving(self, FS_RING_JOINERS if drop else 0, &sections[2])
        ring_mark(r, FS_RING_SHUT)
        if drop:
            dropped = take_items(r)
            self.version += 1
            r.unfinished = max(r.unfinished - <int64_t>dropped.count, <int64_t>0)
            if r.unfinished == 0:
                ring_wake_joiners(r, FS_RING_SERVED)
        ring_wake_getters(r, FS_RING_END)
        ring_wake_all_putters(r, FS_RING_END)
        ring_unlock(r)
        for section in sections:
            trace_released(&section)
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
        return unfinished(self)

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
        container = opened_whole(self).container
        if container is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute 'queue'")
        return container

    @queue.setter
    def queue(self, value):
        opened(self).container = value

    # -- what subclasses override, called with `mutex` held

    def _init(self, maxsize):
        fill_by_hooks(self, deque())

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


@cython.no_gc_clear
cdef class LifoQueue(Queue):
    """LifoQueue(maxsize=0)
--

A queue whose last item is the first to be taken, as `queue.LifoQueue`; else a Queue."""

    def __cinit__(self):
        self.ring.order = FS_RING_LIFO

    def _init(self, maxsize):
        fill_by_hooks(self, [])

    def _qsize(self):
        return len(self.queue)

    def _put(self, item):
        self.queue.append(item)

    def _get(self):
        return self.queue.pop()

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


# By FS_RING_ order: the types that are no subclass of a program's, their versions while nothing
# in them has been patched, and their hooks.
cdef PyTypeObject* plain_types[3]
cdef unsigned int plain_versions[3]
cdef dict own_hooks = {}


cdef inline bint is_ours(Queue self) noexcept:
    """Neither a subclass nor a patch, of the class or of this one, gives it a put() or a get()."""
    cdef PyTypeObject* cls = Py_TYPE(<PyObject*>self)
    cdef unsigned int version = plain_versions[self.ring.order]
    return (cls == plain_types[self.ring.order] and self.attributes == NULL
            and version != 0 and version_tag(<type><PyObject*>cls) == version)


cdef bint overrides(Queue self) except -1:
    """Whether its class has a method of HOOKS of its own."""
    cls = type(self)
    for name in HOOKS:
        if getattr(cls, name) is not own_hooks[self.ring.order, name]:
            return True
    return False


cdef int fill_by_hooks(Queue self, object container) except -1:
    """_init(): some programs call it instead of __init__()."""
    opened(self).container = container
    if overrides(self):
        self.hooked = True
    return 0


cdef int initialize(Queue self, object maxsize) except -1:
    """__init__(): also a second one, which empties the queue."""
    cdef fs_ring* r = &self.ring
    cdef fs_items dropped
    cdef object old
    ring_lock(r)
    dropped = take_items(r)
    self.version += 1
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


cdef int64_t unfinished(Queue self) noexcept:
    cdef int64_t count
    ring_lock(&self.ring)
    count = self.ring.unfinished
    ring_unlock(&self.ring)
    return count


cdef int await_tasks(Queue self) noexcept:
    """FS_RING_DONE, FS_RING_ERROR, or FS_RING_GONE."""
    cdef fs_ring* r = &self.ring
    cdef int outcome = FS_RING_AGAIN
    while outcome == FS_RING_AGAIN:
        ring_lock(r)
        if ring_state(r) & FS_RING_AWAY:
            ring_unlock(r)
            return FS_RING_GONE
        if r.unfinished <= 0:
            ring_unlock(r)
            return FS_RING_DONE
        self.give_turn()
        outcome = ring_await_done(r, FS_FOREVER, FS_SIGNALS)
    return outcome


cdef int set_limit(Queue self, object value) except -1:
    cdef fs_section section
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
    before_serving(self, FS_RING_PUTTERS, &section)
    if ring_state(r) & FS_RING_PUTTERS and ring_count(r) < limit:
        ring_wake_putters(r, limit - ring_count(r))
    ring_unlock(r)
    trace_released(&section)
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


# -- set-up: the plain calls of put() and get() take a shorter way, see shorten() ----

cdef fs_method usual_put
cdef fs_method usual_get


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


cdef int finish_queue(type cls, int order, const char* name) except -1:
    cdef Queue probe = Queue.__new__(Queue)
    collect_items(cls, _Opening)
    finish_type(cls, True)
    make_lazy_dict(cls, <char*>&probe.attributes - <char*><PyObject*>probe)
    rename_type(cls, name)
    plain_types[order] = <PyTypeObject*>cls
    for hook in HOOKS:
        own_hooks[order, hook] = getattr(cls, hook)
    register_pinnable(cls)
    sign_constructor(cls)
    remember_version(cls, order)
    return 0


cdef int remember_version(type cls, int order) except -1:
    getattr(cls, "put")  # a lookup gives it one
    plain_versions[order] = version_tag(cls)
    return 0


finish_queue(Queue, FS_RING_FIFO, b"queue.Queue")
finish_queue(LifoQueue, FS_RING_LIFO, b"queue.LifoQueue")
usual_put = shorten(Queue, "put", short_put)
usual_get = shorten(Queue, "get", short_get)
# These have changed them.
remember_version(Queue, FS_RING_FIFO)
remember_version(LifoQueue, FS_RING_LIFO)
