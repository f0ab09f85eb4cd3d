# distutils: define_macros=CYTHON_USE_TYPE_SPECS=1
# A heap type, because it can be patched and renamed as the original can.
"""PriorityQueue, as `queue.PriorityQueue`: comparisons, which may be Python code, are made
with nothing held."""
cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.object cimport Py_LT, PyObject, PyObject_RichCompareBool
from cpython.ref cimport Py_DECREF
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_SIZE

from fastsync.raw.c_python cimport fs_small_int
from fastsync.raw.c_wait cimport fs_thread_id
from fastsync.raw.parking cimport fork_epoch
from fastsync.raw.ring cimport *
from fastsync.objects._opened cimport above, fs_path, list_get, list_put
from fastsync.objects._ring cimport Py_INCREF_of
from fastsync.objects.queue cimport fill_by_hooks, finish_queue, Queue

cdef extern from "Python.h":
    bint PyUnicode_CheckExact(PyObject*) noexcept
    bint PyUnicode_IS_COMPACT(PyObject*) noexcept
    int PyUnicode_Compare(PyObject*, PyObject*) noexcept
    PyObject* PyTuple_GET_ITEM(object, Py_ssize_t) noexcept


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

    def __cinit__(self):
        self.ring.order = FS_RING_SORTED

    cdef int put_sorted(self, PyObject* item, bint serving) noexcept:
        return heap_put(self, item, serving)

    cdef int get_sorted(self, void** item, bint serving) noexcept:
        return heap_get(self, item, serving)

    cdef int put_compared(self, PyObject* item) except -1:
        return heap_put_compared(self, item)

    cdef int get_compared(self, void** item) except -1:
        return heap_get_compared(self, item)

    cdef void give_turn(self) noexcept:
        # A wait that another thread must end: code that compares for this one makes it wait.
        if self.sorter != 0:
            end_turn(self)

    def _init(self, maxsize):
        fill_by_hooks(self, [])

    def _qsize(self):
        return len(self.queue)

    def _put(self, item):
        list_put(self.queue, item)

    def _get(self):
        return list_get(self.queue)


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


cdef int heap_put(PriorityQueue self, PyObject* item, bint serving) noexcept:
    """Under the lock."""
    cdef fs_ring* r = &self.ring
    cdef size_t place = ring_count(r)
    cdef int outcome = ring_admit(r, item, serving)
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


cdef int heap_get(PriorityQueue self, void** item, bint serving) noexcept:
    """Under the lock."""
    cdef fs_ring* r = &self.ring
    cdef fs_path path
    cdef size_t child, last
    cdef int depth = 0
    cdef int result
    if ring_count(r) == 0:
        return ring_refuse(r, item, serving)
    if ring_state(r) & FS_RING_AWAY:
        return FS_RING_GONE  # as ring_get()
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
    if not serving and ring_state(r) & FS_RING_PUTTERS:
        return FS_RING_SERVE
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
            or ring_admit(r, item, False) != FS_RING_ROOM):
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

finish_queue(PriorityQueue, FS_RING_SORTED, b"queue.PriorityQueue")
