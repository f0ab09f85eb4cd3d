"""Queue, for the modules of this package."""
from fastsync.objects._opened cimport _Opening


cdef class Queue(_Opening):
    pass


# An empty container for the queue, which is opened.
cdef int fill_by_hooks(Queue self, object container) except -1
# What the types of this family have in common; `order` is an FS_RING_ value.
cdef int finish_queue(type cls, int order, const char* name) except -1
