"""What all queues and channels share: a ring that owns its items, and how threads put and take.

raw/ring.pxd has the states, and the argument why nothing is lost.
"""
from libc.stdint cimport int64_t, uint32_t
from cpython.object cimport PyObject, visitproc

from fastsync._watch.trace cimport fs_section
from fastsync.raw.ring cimport *

cdef extern from *:
    """
    #define FS_OWNED(item) ((PyObject *)(item))
    """
    object owned "FS_OWNED"(PyObject*)  # a reference, for Cython to take over

cdef extern from "Python.h":
    void Py_INCREF_of "Py_INCREF"(PyObject*) noexcept


cdef class _Ring:
    # First, so that a put or a get touches two cache lines: the head of the object, whose
    # reference count each call changes, and the ring, wherever the allocator has placed it.
    cdef fs_ring ring
    cdef object __weakref__
    cdef object parts           # of an opened queue; written under the ring's lock
    cdef PyObject* attributes   # the instance's __dict__, NULL until needed

    # Of a ring whose order is its own (FS_RING_SORTED): ring_put() and ring_get(), which may
    # also come to COMPARE or BUSY; what then compares, called under the lock and returning
    # without it, DONE or AGAIN; and, under the lock, that this thread is about to wait.
    cdef int put_sorted(self, PyObject* item, bint serving) noexcept
    cdef int get_sorted(self, void** item, bint serving) noexcept
    cdef int put_compared(self, PyObject* item) except -1
    cdef int get_compared(self, void** item) except -1
    cdef void give_turn(self) noexcept
    # Of one that has been given up (FS_RING_AWAY): put and get elsewhere.
    cdef int put_elsewhere(self, object item, int64_t deadline) except -1
    cdef object get_elsewhere(self, int64_t deadline)
    cdef list get_more(self, list batch, Py_ssize_t most)
    # Raise what the outcome of a put or a get means; `item` is what was not put.
    cdef int refuse_put(self, PyObject* item, int outcome) except -1
    cdef int refuse_get(self, int outcome) except -1
    # A thread has left that may have been woken for another way of waiting.
    cdef void give_up_wait(self, bint puts) noexcept
    # For the collector: what else there is.
    cdef int visit_more(self, visitproc visit, void* arg) noexcept


cdef struct fs_items:
    void** at
    size_t capacity
    size_t head
    size_t count


# All of them, with their memory; under the lock.
cdef fs_items take_items(fs_ring* r) noexcept nogil
# With nothing held: finalizers run.
cdef void free_items(fs_items taken) noexcept
cdef void drop_items(fs_ring* r) noexcept
# Make room for so many more items; called under the lock, returns without it.
cdef int grow(fs_ring* r, size_t more) except -1
cdef void shrink(fs_ring* r) noexcept
cdef size_t size_in_memory(_Ring self) except 0

# A deadline; 0 for a call that may not wait.
cdef int64_t wait_limit(object block, object timeout) except? -1
# After an attempt that came to `outcome`; these take over the lock, and the reference.
cdef int put_slowly(_Ring self, PyObject* item, int64_t deadline, int outcome) except -1
cdef object get_slowly(_Ring self, int64_t deadline, int outcome)
# Go on after an attempt that came to `outcome`, FS_RING_AGAIN for none: DONE, without the
# lock, or WAIT, CLOSED or GONE, with it.
cdef int settle_put(_Ring self, PyObject* item, int outcome) except -1
cdef int settle_get(_Ring self, void** item, int outcome) except -1
# Under the lock, before those are served who may wait (`bit`: FS_RING_GETTERS and so on), for
# the profile; after it, without the lock, trace_released().
cdef void before_serving(_Ring self, uint32_t bit, fs_section* section) noexcept
# All of the batch, or Full or ShutDown with `items`, those that were not put.
cdef int put_batch(_Ring self, list batch, int64_t deadline) except -1
cdef list get_batch(_Ring self, object limit, int64_t deadline)

# Let the collector see the items of a class of rings, which are freed as those of `base` are.
cdef int collect_items(type cls, type base) except -1


cdef enum:
    FS_RING_LARGE = 64  # the memory of the smallest that gives any back, in items


cdef inline bint is_idle(const fs_ring* r) noexcept nogil:
    """Whether most of its memory is unused."""
    return r.capacity >= FS_RING_LARGE and ring_count(r) < r.capacity // 8


cdef inline int try_put(_Ring self, PyObject* item, bint serving) noexcept:
    """Under the lock; the reference goes with the item, once it is in."""
    if self.ring.order == FS_RING_SORTED:
        return self.put_sorted(item, serving)
    return ring_put(&self.ring, item, serving)


cdef inline int try_get(_Ring self, void** item, bint serving) noexcept:
    if self.ring.order == FS_RING_SORTED:
        return self.get_sorted(item, serving)
    return ring_get(&self.ring, item, serving)


cdef inline int put_item(_Ring self, PyObject* item, int64_t deadline) except -1:
    cdef int outcome
    Py_INCREF_of(item)
    ring_lock(&self.ring)
    outcome = try_put(self, item, False)
    if outcome == FS_RING_DONE:
        ring_unlock(&self.ring)
        return 0
    return put_slowly(self, item, deadline, outcome)


cdef inline object get_item(_Ring self, int64_t deadline):
    cdef void* item = NULL
    cdef int outcome
    ring_lock(&self.ring)
    outcome = try_get(self, &item, False)
    if outcome != FS_RING_DONE:
        return get_slowly(self, deadline, outcome)
    if is_idle(&self.ring):
        shrink(&self.ring)
    else:
        ring_unlock(&self.ring)
    return owned(<PyObject*>item)
