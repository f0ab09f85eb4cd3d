"""The raw sharded reader-writer lock: what is not a fast path of its words."""
from libc.stdint cimport int64_t

from fastsync.raw.c_python cimport fs_check_signals
from fastsync.raw.c_thread_index cimport fs_thread_index
from fastsync.raw.parking cimport FS_ACQUIRED, FS_ASK, FS_ERROR, runs_handlers
from fastsync.raw.rwlock cimport (
    DUE, fs_rwlock, rwlock_is_locked_exclusive, rwlock_readers, rwlock_unlock_read,
    rwlock_unlock_write, rwlock_unlock_write_fair, rwlock_write_until,
)


# -- sharded -----------------------------------------------------------------

cdef fs_rwlock* sharded_mine(fs_sharded* s) noexcept nogil:
    """The word that this thread reads under."""
    return &s.shard[fs_thread_index() % FS_SHARDS].lock


cdef int sharded_write_until(fs_sharded* s, int64_t deadline, int flags) noexcept nogil:
    """As rwlock_write_until."""
    cdef bint asks = runs_handlers(flags)
    cdef int result
    while True:
        result = write_shards(s, deadline, flags | FS_ASK if asks else flags)
        if result != DUE:
            return result
        if fs_check_signals() < 0:
            return FS_ERROR


cdef int write_shards(fs_sharded* s, int64_t deadline, int flags) noexcept nogil:
    """All of them, in order; nothing is held unless FS_ACQUIRED."""
    cdef int result, i
    for i in range(FS_SHARDS):
        result = rwlock_write_until(&s.shard[i].lock, deadline, flags)
        if result != FS_ACQUIRED:
            release_shards(s, i, False)
            return result
    return FS_ACQUIRED


cdef void release_shards(fs_sharded* s, int count, bint fair) noexcept nogil:
    """The last one first: a thread that waits for the first then finds the others free."""
    while count > 0:
        count -= 1
        if fair:
            rwlock_unlock_write_fair(&s.shard[count].lock)
        else:
            rwlock_unlock_write(&s.shard[count].lock)


cdef int sharded_unlock_write(fs_sharded* s, bint fair) noexcept nogil:
    """As rwlock_unlock_write."""
    cdef int last = FS_SHARDS - 1
    # The last shard decides: it is taken last, so who holds it holds all.
    if (rwlock_unlock_write_fair(&s.shard[last].lock) if fair
            else rwlock_unlock_write(&s.shard[last].lock)) < 0:
        return -1
    release_shards(s, last, fair)
    return 0


cdef int sharded_unlock_read(fs_sharded* s, fs_rwlock* first) noexcept nogil:
    """Release one reader, of `first` if that counts any: 0, or -1 when no thread reads."""
    cdef int i
    if rwlock_unlock_read(first) == 0:
        return 0
    # Taken by another thread, or another thread's reader was released here.  Twice,
    # because a reader may come and go behind our back during the first look.
    for i in range(2 * FS_SHARDS):
        if rwlock_unlock_read(&s.shard[i % FS_SHARDS].lock) == 0:
            return 0
    return -1


cdef bint sharded_has_readers(fs_sharded* s) noexcept nogil:
    cdef int i
    for i in range(FS_SHARDS):
        if rwlock_readers(&s.shard[i].lock) != 0:
            return True
    return False


cdef bint sharded_is_locked(fs_sharded* s) noexcept nogil:
    return sharded_has_readers(s) or sharded_is_locked_exclusive(s)


cdef bint sharded_is_locked_exclusive(fs_sharded* s) noexcept nogil:
    return rwlock_is_locked_exclusive(&s.shard[FS_SHARDS - 1].lock)
