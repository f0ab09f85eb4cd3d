"""ShardedLock, for Cython code that is handed one."""
from fastsync.objects.guards cimport _Writing
from fastsync.objects.readwrite cimport _ReadWriteLock
from fastsync.raw.sharded cimport fs_sharded


cdef class ShardedLock(_ReadWriteLock):
    cdef fs_sharded shards


cdef class ShardedWriteGuard(_Writing):
    pass


# The words of the object, for nogil code.  The object must stay alive.
cdef inline fs_sharded* sharded_words(ShardedLock s) noexcept nogil:
    if s is None:
        return NULL
    return &s.shards
