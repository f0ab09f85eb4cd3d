# distutils: define_macros=CYTHON_USE_TYPE_SPECS=1
"""An opened queue.

Programs reach into `queue.Queue`: they hold its `mutex`, wait for its conditions, change its
`queue`, and override `_put` and the like.  A queue of which any of this is asked is opened for
good: its items move to a deque or a list, it gets a mutex and three conditions, and its calls
do from then on, step by step, what the original's do.  So everything that is true of the
original's parts is true of these.

`owner` is the thread that holds the mutex in one of the queue's own calls, as it may when
Python code runs in it: a _put() of a subclass, a finalizer.  That code may call the queue.
Its puts are deferred until the outer call is at its end: nothing changes under its hands.
What would have to wait for the outer call to end fails instead.
"""
cimport cython
from libc.stdint cimport int64_t, uintptr_t
from libc.string cimport memset
from cpython.list cimport PyList_GET_SIZE
from cpython.object cimport PyObject, visitproc

from fastsync._watch.trace cimport trace_part, tracing
from fastsync.raw.c_atomic cimport fs_uptr_load_relaxed, fs_uptr_store_relaxed
from fastsync.raw.c_python cimport fs_new_list
from fastsync.raw.c_wait cimport FS_FOREVER, fs_now, fs_thread_id
from fastsync.raw.condvar cimport condvar_reset
from fastsync.raw.mutex cimport mutex_reset
from fastsync.raw.parking cimport fork_epoch
from fastsync.raw.ring cimport *
from fastsync.objects._ring cimport Py_INCREF_of, _Ring, collect_items, drop_items
from fastsync.objects._slots cimport finish_type
from fastsync.objects.condition cimport Condition
from fastsync.objects.lock cimport Lock, lock_word

from collections import deque
from heapq import heappop, heappush
from weakref import ref

from fastsync.objects._ring import Empty, Full, ShutDown

cdef extern from "Python.h":
    void PyList_SET_ITEM(object, Py_ssize_t, PyObject*) noexcept
    void Py_SET_SIZE(object, Py_ssize_t) noexcept
    void PyErr_WriteUnraisable(PyObject*) noexcept


@cython.trashcan(True)
@cython.no_gc_clear
cdef class _Opening(_Ring):
    """A ring that can be opened."""

    cdef int put_elsewhere(self, object item, int64_t deadline) except -1:
        return open_put(self, item, deadline)

    cdef object get_elsewhere(self, int64_t deadline):
        return open_get(self, deadline)

    cdef list get_more(self, list batch, Py_ssize_t most):
        return open_get_more(self, batch, most)

    cdef void give_up_wait(self, bint puts) noexcept:
        arrived(self, FS_PART_NOT_FULL if puts else FS_PART_NOT_EMPTY)

    cdef int visit_more(self, visitproc visit, void* arg) noexcept:
        return visit(<PyObject*>self.limit_given, arg)


cdef class _Parts:
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


cdef _Parts current_parts(_Opening self):
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
    parts.whole = True  # should its opening thread have been in between
    memset(parts.moving, 0, sizeof(parts.moving))
    if is_inside(parts):
        return
    fs_uptr_store_relaxed(&parts.owner, 0)  # relaxed: see is_inside
    if type(parts.mutex) is Lock:
        mutex_reset(lock_word(parts.mutex))
    for condition in (parts.not_empty, parts.not_full, parts.all_tasks_done):
        if type(condition) is Condition:
            condvar_reset(&(<Condition>condition).waiters)


cdef _Parts opened(_Opening self):
    """The parts of the queue, which is opened if it was not.

    Other threads find the parts from copy_items() on, when they can no longer use the ring: what
    they do then begins with the mutex, which this thread holds until all items have been moved.
    Who looks without the mutex calls opened_whole()."""
    cdef _Parts parts = current_parts(self)
    cdef list items
    cdef object container = None
    if parts is not None:
        return parts
    parts = _Parts()
    if self.ring.order == FS_RING_FIFO:
        parts.container = container = deque()
    if tracing():
        trace_part(parts.mutex, self, "mutex")
        trace_part(parts.not_empty, self, "not_empty")
        trace_part(parts.not_full, self, "not_full")
        trace_part(parts.all_tasks_done, self, "all_tasks_done")
    show(self, parts)
    parts.mutex.acquire()
    set_owner(parts, fs_thread_id())
    try:
        items = copy_items(self, parts)
        if items is None:
            return current_parts(self)
        if container is not None:
            try:
                container.extend(items)
            except:
                close(self, parts)
                raise
        become_whole(self, parts)
        drop_items(&self.ring)
    finally:
        unlock_parts(self, parts, parts.mutex)
    return parts


cdef void become_whole(_Opening self, _Parts parts) noexcept:
    ring_lock(&self.ring)
    parts.whole = True
    ring_unlock(&self.ring)


cdef bint is_whole(_Opening self, _Parts parts) noexcept:
    cdef bint whole
    ring_lock(&self.ring)
    whole = parts.whole
    ring_unlock(&self.ring)
    return whole


cdef _Parts opened_whole(_Opening self):
    """The parts of the queue with all its items, to be looked at without the mutex.

    No deadlock: while they are not whole it is the opening thread that holds the mutex, so this
    one does not; and in a finalizer that runs in the opening thread it does not wait."""
    cdef _Parts parts = opened(self)
    if not is_whole(self, parts) and not is_inside(parts):
        parts = lock_parts(self, FS_PART_MUTEX)
        unlock_parts(self, parts, parts.mutex)
    return parts


# Who waited is woken to wait for a condition, and counts as one of its waiters meanwhile.

cdef size_t count_moving(object owner, object condition) noexcept:
    cdef object parts = (<_Opening>owner).parts
    if parts is None:
        return 0
    if (<_Parts>parts).not_empty is condition:
        return (<_Parts>parts).moving[FS_PART_NOT_EMPTY]
    if (<_Parts>parts).not_full is condition:
        return (<_Parts>parts).moving[FS_PART_NOT_FULL]
    return (<_Parts>parts).moving[FS_PART_ALL_TASKS_DONE]


cdef int show(_Opening self, _Parts parts) except -1:
    cdef Condition condition
    cdef object owner = ref(self)
    for condition in (parts.not_empty, parts.not_full, parts.all_tasks_done):
        condition.shown = owner
        condition.more = count_moving
    return 0


cdef void arrived(_Opening self, int which) noexcept:
    cdef object parts
    ring_lock(&self.ring)
    parts = self.parts
    if parts is not None and (<_Parts>parts).moving[which] > 0:
        (<_Parts>parts).moving[which] -= 1
    ring_unlock(&self.ring)


cdef list copy_items(_Opening self, _Parts parts):
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
        items = fs_new_list(i)
    for i in range(ring_count(r)):
        item = <PyObject*>r.items[(r.head + i) & (r.capacity - 1)]
        Py_INCREF_of(item)
        PyList_SET_ITEM(items, i, item)
    if r.order != FS_RING_FIFO:
        parts.container = items  # whole already; of a Queue it is a deque, which is filled later
    self.parts = parts
    ring_mark(r, FS_RING_AWAY)
    self.version += 1
    ring_waiting(r, &parts.moving[FS_PART_NOT_EMPTY], &parts.moving[FS_PART_NOT_FULL],
                 &parts.moving[FS_PART_ALL_TASKS_DONE])
    ring_wake_getters(r, FS_RING_LOOK)
    ring_wake_all_putters(r, FS_RING_LOOK)
    ring_wake_joiners(r, FS_RING_LOOK)
    ring_unlock(r)
    return items


cdef int close(_Opening self, _Parts parts) except -1:
    """Undo copy_items(): there was no memory."""
    ring_lock(&self.ring)
    if self.parts is parts:
        self.parts = None
        ring_unmark(&self.ring, FS_RING_AWAY)
    ring_unlock(&self.ring)
    return 0


cdef object lock_of_part(_Parts parts, int which):
    if which == FS_PART_NOT_EMPTY:
        return parts.not_empty
    if which == FS_PART_NOT_FULL:
        return parts.not_full
    return parts.all_tasks_done if which == FS_PART_ALL_TASKS_DONE else parts.mutex


cdef _Parts lock_parts(_Opening self, int which):
    """The parts, with the mutex taken for one of the queue's own calls."""
    cdef _Parts parts
    while True:
        parts = opened(self)
        lock = lock_of_part(parts, which)
        lock.__enter__()
        if current_parts(self) is parts:
            set_owner(parts, fs_thread_id())
            return parts
        lock.__exit__(None, None, None)


cdef int unlock_parts(_Opening self, _Parts parts, object lock) except -1:
    try:
        put_deferred(self, parts)
    finally:
        set_owner(parts, 0)
        lock.__exit__(None, None, None)
    return 0


cdef int put_deferred(_Opening self, _Parts parts) except -1:
    while parts.deferred:
        item = parts.deferred.pop(0)
        try:
            store(self, parts, item)
        except BaseException:
            PyErr_WriteUnraisable(<PyObject*>self)  # its put() has returned long since
    return 0


cdef object size(_Opening self, _Parts parts):
    return self._qsize() if self.hooked else len(parts.container)


cdef int store(_Opening self, _Parts parts, object item) except -1:
    if self.hooked:
        self._put(item)
    elif self.ring.order == FS_RING_SORTED:
        list_put(parts.container, item)
    else:
        parts.container.append(item)
    add_unfinished(self, 1)
    parts.not_empty.notify()
    return 0


cdef object take_item(_Opening self, _Parts parts):
    if self.hooked:
        return self._get()
    if self.ring.order == FS_RING_SORTED:
        return list_get(parts.container)
    if self.ring.order == FS_RING_LIFO:
        return parts.container.pop()
    return parts.container.popleft()


cdef int64_t add_unfinished(_Opening self, int64_t n) except? -1:
    cdef int64_t sum
    ring_lock(&self.ring)
    sum = self.ring.unfinished = self.ring.unfinished + n
    ring_unlock(&self.ring)
    return sum


cdef inline bint is_shut(_Opening self) noexcept:
    return ring_state(&self.ring) & FS_RING_SHUT


cdef bint wait(_Opening self, _Parts parts, object condition, int64_t deadline) except -1:
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


cdef int open_put(_Opening self, object item, int64_t deadline) except -1:
    cdef _Parts parts = opened(self)
    cdef object condition
    if is_inside(parts):
        return put_inside(self, parts, item)
    try:
        parts = lock_parts(self, FS_PART_NOT_FULL)
    finally:
        arrived(self, FS_PART_NOT_FULL)
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
        unlock_parts(self, parts, condition)
    return 0


cdef int put_inside(_Opening self, _Parts parts, object item) except -1:
    if is_shut(self):
        raise ShutDown
    if 0 < self.limit_given <= size(self, parts) + len(parts.deferred):
        raise Full
    parts.deferred.append(item)
    return 0


cdef object open_get(_Opening self, int64_t deadline):
    cdef _Parts parts = opened(self)
    cdef object condition
    if is_inside(parts):
        return get_inside(self, parts)
    try:
        parts = lock_parts(self, FS_PART_NOT_EMPTY)
    finally:
        arrived(self, FS_PART_NOT_EMPTY)
    condition = parts.not_empty
    try:
        while not size(self, parts):
            if is_shut(self):
                raise ShutDown
            if not wait(self, parts, condition, deadline):
                raise Empty
        item = take_item(self, parts)
        parts.not_full.notify()
    finally:
        unlock_parts(self, parts, condition)
    return item


cdef list open_get_more(_Opening self, list batch, Py_ssize_t most):
    """Add to a batch what the queue has at this moment, if that runs no Python code.

    An exception amid the batch, from a comparison, a _get() or a signal handler in them, would
    lose what has been taken: where one is possible a batch has one item."""
    cdef _Parts parts = opened(self)
    cdef Py_ssize_t n, done = 1
    if is_inside(parts):
        return batch
    parts = lock_parts(self, FS_PART_NOT_EMPTY)
    condition = parts.not_empty
    try:
        if self.hooked or type(parts.not_full) is not Condition:
            return batch
        if type(parts.container) is not (deque if self.ring.order == FS_RING_FIFO else list):
            return batch
        if self.ring.order == FS_RING_SORTED:
            return batch
        n = min(most, 1 + <Py_ssize_t>len(parts.container))
        if n > 1:
            batch = batch + fs_new_list(n - 1)
        try:
            while done < n:
                batch[done] = take_item(self, parts)
                done += 1
        except IndexError:  # code that does not take the mutex was quicker
            Py_SET_SIZE(batch, done)  # needs no memory, which `del` does
        parts.not_full.notify_all()
    finally:
        unlock_parts(self, parts, condition)
    return batch


cdef object get_inside(_Opening self, _Parts parts):
    if size(self, parts):
        return take_item(self, parts)
    if parts.deferred:
        add_unfinished(self, 1)
        return parts.deferred.pop(0)
    if is_shut(self):
        raise ShutDown
    raise Empty


cdef object open_size(_Opening self):
    cdef _Parts parts = opened(self)
    if is_inside(parts):
        return size(self, parts) + len(parts.deferred)
    parts = lock_parts(self, FS_PART_MUTEX)
    lock = parts.mutex
    try:
        return size(self, parts)
    finally:
        unlock_parts(self, parts, lock)


cdef object open_task_done(_Opening self):
    cdef _Parts parts = opened(self)
    cdef bint inside = is_inside(parts)
    if not inside:
        parts = lock_parts(self, FS_PART_ALL_TASKS_DONE)
    lock = parts.all_tasks_done
    try:
        if self.ring.unfinished <= 1:
            if self.ring.unfinished < 1:
                raise ValueError("task_done() called too many times")
            lock.notify_all()
        add_unfinished(self, -1)
    finally:
        if not inside:
            unlock_parts(self, parts, lock)


cdef object open_join(_Opening self):
    cdef _Parts parts = opened(self)
    if is_inside(parts):
        if self.ring.unfinished > 0:
            raise RuntimeError("join() within another call of the same queue would never end")
        return
    try:
        parts = lock_parts(self, FS_PART_ALL_TASKS_DONE)
    finally:
        arrived(self, FS_PART_ALL_TASKS_DONE)
    condition = parts.all_tasks_done
    try:
        while self.ring.unfinished > 0:
            wait(self, parts, condition, FS_FOREVER)
    finally:
        unlock_parts(self, parts, condition)


cdef object open_shutdown(_Opening self, bint immediate):
    cdef _Parts parts = opened(self)
    cdef bint inside = is_inside(parts)
    cdef list dropped = []  # let go when nothing is held
    if not inside:
        parts = lock_parts(self, FS_PART_MUTEX)
    lock = parts.mutex
    try:
        ring_lock(&self.ring)
        ring_mark(&self.ring, FS_RING_SHUT)
        ring_unlock(&self.ring)
        if immediate:
            put_deferred(self, parts)
            while size(self, parts):
                dropped.append(take_item(self, parts))
                if self.ring.unfinished > 0:
                    add_unfinished(self, -1)
            parts.all_tasks_done.notify_all()
        parts.not_empty.notify_all()
        parts.not_full.notify_all()
    finally:
        if not inside:
            unlock_parts(self, parts, lock)


# -- the list of an opened PriorityQueue, whose mutex keeps other threads out ----------

cdef int list_put(object heap, object item) except -1:
    cdef Py_ssize_t i, place, n
    if type(heap) is not list:
        heappush(heap, item)
        return 0
    while True:
        n = place = len(heap)
        # A comparison, whatever its answer, may take items away: then it begins anew.
        while place > 0 and item < heap[above(place)] and len(heap) == n:
            place = above(place)
        if len(heap) == n:
            break
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
    if type(heap) is not list:
        return heappop(heap)
    while True:
        last = len(heap) - 1
        if last < 0:
            raise Empty  # the comparisons took them all
        if last == 0:
            return heap.pop()
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
    first = heap[0]
    moved = heap.pop()
    for k in range(path.length):
        heap[path.at[k]] = heap[path.at[k + 1]]
    heap[path.at[path.length]] = moved
    return first

collect_items(_Opening, _Opening)
finish_type(_Opening, False)
