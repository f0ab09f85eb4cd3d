# distutils: define_macros=CYTHON_USE_TYPE_SPECS=1
# Heap types, because those of queues can be patched and renamed as the originals can.
"""A ring that owns its items: what queues and channels are made of.

Its calls run no Python code while they hold anything, so whatever a finalizer, a callback or
a signal handler does to the ring it does before or after.
"""
cimport cython
from libc.stdint cimport int64_t, uint32_t
from cpython.exc cimport PyErr_NoMemory
from cpython.list cimport PyList_GET_SIZE
from cpython.object cimport PyObject, visitproc
from cpython.ref cimport Py_DECREF, Py_XDECREF

from fastsync._watch.trace cimport (
    fs_section, FS_ITEM, FS_ROOM, fs_wait, trace_give, trace_made, trace_not_given, trace_released,
    trace_signalled, trace_work, tracing,
)
from fastsync.raw.c_python cimport fs_new_list, Py_NewRef
from fastsync.raw.c_wait cimport FS_FOREVER
from fastsync.raw.parking cimport FS_FIRST, FS_SIGNALS
from fastsync.raw.ring cimport *
from fastsync.objects._slots cimport collect_by, finish_type, free_as
from fastsync.objects._timeouts cimport deadline_for

import queue as stock
from queue import Empty, Full
from types import GenericAlias

cdef extern from "Python.h":
    PyObject* Py_None
    const Py_ssize_t PY_SSIZE_T_MAX
    PyObject* PyList_GET_ITEM(object, Py_ssize_t) noexcept
    void PyList_SET_ITEM(object, Py_ssize_t, PyObject*) noexcept
    void Py_SET_SIZE(object, Py_ssize_t) noexcept
    void* PyMem_RawMalloc(size_t) noexcept
    void PyMem_RawFree(void*) noexcept
    Py_ssize_t PyNumber_AsSsize_t(object, PyObject*) except? -1
    PyObject* PyExc_OverflowError

if hasattr(stock, "ShutDown"):
    ShutDown = stock.ShutDown
else:  # before 3.13
    ShutDown = type("ShutDown", (Exception,), {
        "__module__": "queue", "__doc__": "Raised when put/get with shut-down queue."})

@cython.trashcan(True)  # long chains of them are freed without a deep stack
cdef class _Ring:
    """A ring that owns its items."""
    def __cinit__(self):
        self.ring.limit = ring_no_limit()
        if tracing():
            trace_made(self)

    def __dealloc__(self):
        drop_items(&self.ring)
        Py_XDECREF(self.attributes)

    @classmethod
    def __class_getitem__(cls, item, /):
        return GenericAlias(cls, item)

    # What only some have: ring.pxd says when these are called, of others never.

    cdef int put_sorted(self, PyObject* item, bint serving) noexcept:
        return FS_RING_GONE

    cdef int get_sorted(self, void** item, bint serving) noexcept:
        return FS_RING_GONE

    cdef int put_compared(self, PyObject* item) except -1:
        raise SystemError("not a sorted ring")

    cdef int get_compared(self, void** item) except -1:
        raise SystemError("not a sorted ring")

    cdef void give_turn(self) noexcept:
        pass

    cdef int put_elsewhere(self, object item, int64_t deadline) except -1:
        raise SystemError("not an opened queue")

    cdef object get_elsewhere(self, int64_t deadline):
        raise SystemError("not an opened queue")

    cdef list get_more(self, list batch, Py_ssize_t most):
        raise SystemError("not an opened queue")

    cdef int refuse_put(self, PyObject* item, int outcome) except -1:
        if outcome == FS_RING_CLOSED:
            raise ShutDown
        if outcome != FS_RING_ERROR:
            raise Full
        return -1

    cdef int refuse_get(self, int outcome) except -1:
        if outcome == FS_RING_CLOSED:
            raise ShutDown
        if outcome != FS_RING_ERROR:
            raise Empty
        return -1

    cdef void give_up_wait(self, bint puts) noexcept:
        pass

    cdef int visit_more(self, visitproc visit, void* arg) noexcept:
        return 0


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


cdef enum:
    SMALLEST = 8  # the memory of the smallest ring, in items


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


cdef void before_serving(_Ring self, uint32_t bit, fs_section* section) noexcept:
    cdef fs_ring* r = &self.ring
    section.release = NULL
    if ring_state(r) & bit and tracing():
        trace_give(section, (
            ring_getters(r) if bit == FS_RING_GETTERS else
            ring_putters(r) if bit == FS_RING_PUTTERS else ring_joiners(r)))


cdef int after_serving(_Ring self, int outcome, fs_section* section) noexcept:
    """The outcome: FS_RING_DONE without the lock, any other with it."""
    if outcome == FS_RING_DONE:
        ring_unlock(&self.ring)
        trace_released(section)
    else:
        trace_not_given(section)
    return outcome


cdef int put_serving(_Ring self, PyObject* item) noexcept:
    """Under the lock: put it, also to a thread that waits.  As after_serving()."""
    cdef fs_section section
    before_serving(self, FS_RING_GETTERS, &section)
    return after_serving(self, try_put(self, item, True), &section)


cdef int get_serving(_Ring self, void** item) noexcept:
    """Under the lock: get one, also from a thread that waits.  As after_serving()."""
    cdef fs_section section
    before_serving(self, FS_RING_PUTTERS, &section)
    return after_serving(self, try_get(self, item, True), &section)


cdef int get_comparing(_Ring self, void** item) except -1:
    """get_compared(), which makes room for one that waits."""
    cdef fs_section section
    before_serving(self, FS_RING_PUTTERS, &section)
    try:
        return self.get_compared(item)
    finally:
        trace_released(&section)


cdef int settle_put(_Ring self, PyObject* item, int outcome) except -1:
    """Go on after an attempt that came to `outcome`, AGAIN for none: DONE, without the lock,
    or WAIT, CLOSED or GONE, with it."""
    cdef fs_ring* r = &self.ring
    while True:
        if outcome == FS_RING_GROW:
            grow(r, 1)
        elif outcome == FS_RING_BUSY:
            if ring_await_turn(r, FS_SIGNALS) == FS_RING_ERROR:
                return FS_RING_ERROR
        elif outcome == FS_RING_COMPARE:
            if self.put_compared(item) == FS_RING_DONE:
                return FS_RING_DONE
        elif outcome == FS_RING_SERVE:
            outcome = put_serving(self, item)
            continue
        elif outcome != FS_RING_AGAIN:
            return outcome
        ring_lock(r)
        outcome = try_put(self, item, False)
        if outcome == FS_RING_DONE:
            ring_unlock(r)


cdef int put_slowly(_Ring self, PyObject* item, int64_t deadline, int outcome) except -1:
    """After an attempt that came to `outcome`; takes over the lock and the reference."""
    cdef fs_ring* r = &self.ring
    cdef fs_wait wait
    cdef bint noted = False
    cdef int flags = FS_SIGNALS
    try:
        while True:
            outcome = settle_put(self, item, outcome)
            if outcome == FS_RING_DONE:
                break
            if outcome != FS_RING_WAIT or deadline == 0:
                ring_unlock(r)
                if outcome == FS_RING_GONE:
                    if noted:
                        noted = False
                        trace_signalled(&wait)
                    return self.put_elsewhere(<object>item, deadline)
                return self.refuse_put(item, outcome)
            if tracing() and not noted:
                ring_unlock(r)
                trace_work(&wait, self, FS_ROOM, ring_putters(r), deadline)
                noted = True
                outcome = FS_RING_AGAIN
                continue
            self.give_turn()
            outcome = ring_await_room(r, deadline, flags, item)
            if outcome == FS_RING_DONE:
                break
            if outcome != FS_RING_AGAIN:
                self.give_up_wait(True)
                return self.refuse_put(item, outcome)
            flags |= FS_FIRST  # overtaken, perhaps
        item = NULL
    finally:
        if noted:
            trace_signalled(&wait)
        if item != NULL:
            pass_room_on(r)
            Py_XDECREF(item)
    return 0


cdef void pass_room_on(fs_ring* r) noexcept:
    """A put has failed that may have been woken for the room that there is."""
    if r.order == FS_RING_SORTED:
        ring_lock(r)
        if ring_state(r) & FS_RING_PUTTERS:
            ring_made_room(r)
        ring_unlock(r)


cdef int settle_get(_Ring self, void** item, int outcome) except -1:
    """As settle_put()."""
    cdef fs_ring* r = &self.ring
    while True:
        if outcome == FS_RING_BUSY:
            if ring_await_turn(r, FS_SIGNALS) == FS_RING_ERROR:
                return FS_RING_ERROR
        elif outcome == FS_RING_COMPARE:
            if get_comparing(self, item) == FS_RING_DONE:
                return FS_RING_DONE
        elif outcome == FS_RING_SERVE:
            outcome = get_serving(self, item)
            continue
        elif outcome != FS_RING_AGAIN:
            return outcome
        ring_lock(r)
        outcome = try_get(self, item, False)
        if outcome == FS_RING_DONE:
            ring_unlock(r)


cdef object get_slowly(_Ring self, int64_t deadline, int outcome):
    """After an attempt that came to `outcome`; takes over the lock."""
    cdef fs_ring* r = &self.ring
    cdef fs_wait wait
    cdef bint noted = False
    cdef void* item = NULL
    cdef int flags = FS_SIGNALS
    try:
        while True:
            outcome = settle_get(self, &item, outcome)
            if outcome == FS_RING_DONE:
                break
            if outcome != FS_RING_WAIT or deadline == 0:
                ring_unlock(r)
                if outcome == FS_RING_GONE:
                    if noted:
                        noted = False
                        trace_signalled(&wait)
                    return self.get_elsewhere(deadline)
                self.refuse_get(outcome)
            if tracing() and not noted:
                ring_unlock(r)
                trace_work(&wait, self, FS_ITEM, ring_getters(r), deadline)
                noted = True
                outcome = FS_RING_AGAIN
                continue
            self.give_turn()
            outcome = ring_await_item(r, deadline, flags, &item)
            if outcome == FS_RING_DONE:
                break
            if outcome != FS_RING_AGAIN:
                self.give_up_wait(False)
                self.refuse_get(outcome)
            flags |= FS_FIRST  # overtaken, perhaps
    finally:
        if noted:
            trace_signalled(&wait)
    return owned(<PyObject*>item)


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
    cdef fs_section section
    cdef int outcome = FS_RING_DONE
    ring_lock(r)
    before_serving(self, FS_RING_GETTERS, &section)
    while done[0] < n and outcome == FS_RING_DONE:
        item = PyList_GET_ITEM(batch, done[0])
        Py_INCREF_of(item)
        outcome = try_put(self, item, True)
        if outcome == FS_RING_DONE:
            done[0] += 1
        else:
            Py_DECREF(<object>item)  # `batch` has another
    try:
        if outcome == FS_RING_GROW:
            grow(r, min(<size_t>(n - done[0]), r.limit - ring_count(r)))
            return FS_RING_DONE
        ring_unlock(r)
    finally:
        trace_released(&section)
    return outcome


cdef list get_batch(_Ring self, object limit, int64_t deadline):
    cdef fs_ring* r = &self.ring
    cdef Py_ssize_t most = PyNumber_AsSsize_t(limit, PyExc_OverflowError)
    cdef Py_ssize_t here, done = 0
    cdef list batch
    cdef fs_section section
    cdef void* item
    if most < 1:
        raise ValueError("max must be at least 1")
    here = min(<size_t>most, ring_count(r))
    batch = fs_new_list(max(here, 1))
    ring_lock(r)
    before_serving(self, FS_RING_PUTTERS, &section)
    while done < here and try_get(self, &item, True) == FS_RING_DONE:
        PyList_SET_ITEM(batch, done, <PyObject*>item)
        done += 1
    if is_idle(r):
        shrink(r)
    else:
        ring_unlock(r)
    trace_released(&section)
    if done == 0:
        PyList_SET_ITEM(batch, 0, Py_NewRef(Py_None))
        batch[0] = get_item(self, deadline)
        done = 1
    Py_SET_SIZE(batch, done)  # needs no memory, which `del` does
    if ring_state(r) & FS_RING_AWAY:
        return self.get_more(batch, most)
    return batch


cdef size_t size_in_memory(_Ring self) except 0:
    cdef size_t capacity
    ring_lock(&self.ring)
    capacity = self.ring.capacity
    ring_unlock(&self.ring)
    return <size_t>object.__sizeof__(self) + capacity * sizeof(void*)


# -- set-up ------------------------------------------------------------------------

cdef int traverse(PyObject* self, visitproc visit, void* arg) noexcept:
    """The world stands, or has the GIL, and nothing is half done: see ring.pxd."""
    cdef fs_ring* r = &(<_Ring>self).ring
    cdef PyObject* attributes = (<_Ring>self).attributes
    cdef int result = visit(<PyObject*>(<_Ring>self).parts, arg)
    cdef size_t i
    if result == 0:
        result = (<_Ring>self).visit_more(visit, arg)
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

cdef int collect_items(type cls, type base) except -1:
    collect_by(cls, traverse, clear)
    free_as(cls, base)  # Cython's own would call it, past the trashcan
    return 0


collect_items(_Ring, _Ring)
finish_type(_Ring, False)
