"""An opened queue: see _opened.pyx."""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from cpython.object cimport visitproc

from fastsync.raw.c_atomic cimport fs_atomic_uptr
from fastsync.objects._ring cimport _Ring


cdef class _Opening(_Ring):
    cdef object limit_given  # maxsize
    cdef bint hooked         # opened, and calls its own _put() and so on
    cdef uint64_t version    # counts the changes of a heap; guarded by the ring's lock


cdef class _Parts:
    cdef object mutex
    cdef object not_empty
    cdef object not_full
    cdef object all_tasks_done
    cdef object container
    cdef list deferred
    cdef fs_atomic_uptr owner
    cdef uint32_t born  # the fork epoch
    cdef bint whole     # all items are in the container; guarded by the ring's lock
    # Threads that waited when the queue was opened and have not come back yet, by FS_PART_;
    # guarded by the ring's lock.
    cdef size_t[4] moving


# Which of the locks a call takes: all are the one mutex, unless they were exchanged.
cdef enum:
    FS_PART_MUTEX
    FS_PART_NOT_EMPTY
    FS_PART_NOT_FULL
    FS_PART_ALL_TASKS_DONE


# The parts of the queue, which is opened if it was not.
cdef _Parts opened(_Opening self)
# The same, when all its items have been moved.
cdef _Parts opened_whole(_Opening self)
# What the calls of a queue do once it is.
cdef object open_size(_Opening self)
cdef object open_task_done(_Opening self)
cdef object open_join(_Opening self)
cdef object open_shutdown(_Opening self, bint immediate)

# heappush() and heappop(), for a list that a comparison may change, or end by an exception.
cdef int list_put(object heap, object item) except -1
cdef object list_get(object heap)


cdef inline size_t above(size_t i) noexcept nogil:
    return (i - 1) // 2


# Where an item is to be stored, or which way the hole goes that the first item leaves: the
# positions from the top down.
cdef struct fs_path:
    size_t[64] at
    int length
