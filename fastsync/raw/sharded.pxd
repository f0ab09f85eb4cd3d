"""The raw sharded reader-writer lock: eight words, one for each group of threads."""
from libc.stdint cimport int64_t, uintptr_t

from fastsync.raw.c_atomic cimport fs_atomic_uptr
from fastsync.raw.rwlock cimport fs_rwlock


# SHARDS words, each on a cache line of its own.  A reader holds the word of its
# thread, a writer holds all of them, taken in order.  A reader counted on a
# word may be released on another that has one too: only the sum matters.

cdef enum:
    FS_SHARDS = 8            # as crossbeam's; more only makes writing slower
    FS_SHARD_PADDING = 14    # 128 bytes in all: the hardware fetches lines in pairs

ctypedef struct fs_shard "fastsync_0_2_shard":
    fs_rwlock lock
    fs_atomic_uptr viewed    # for a LockView, which counts its readers here
    uintptr_t padding[FS_SHARD_PADDING]

ctypedef struct fs_sharded "fastsync_0_2_sharded":
    uintptr_t padding[FS_SHARD_PADDING + 1]   # away from what stands before it
    fs_shard shard[FS_SHARDS]

cdef fs_rwlock* sharded_mine(fs_sharded* s) noexcept nogil
cdef int sharded_write_until(fs_sharded* s, int64_t deadline, int flags) noexcept nogil
cdef int sharded_unlock_write(fs_sharded* s, bint fair) noexcept nogil
cdef int sharded_unlock_read(fs_sharded* s, fs_rwlock* first) noexcept nogil
cdef bint sharded_has_readers(fs_sharded* s) noexcept nogil
cdef bint sharded_is_locked(fs_sharded* s) noexcept nogil
cdef bint sharded_is_locked_exclusive(fs_sharded* s) noexcept nogil
