"""ShardedLock: an RwLock whose readers of different threads do not meet."""
cimport cython
from libc.stdint cimport int64_t
from libc.string cimport memset
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF

from fastsync._watch.trace cimport FS_EXCLUSIVE, FS_SHARED
from fastsync.objects._slots cimport end_in, publish
from fastsync.objects._timeouts cimport deadline_for, deadline_until
from fastsync.objects.guards cimport (
    _Guard, _Writing, allocate_guard, dealloc_guard, finish_guard, granted,
)
from fastsync.objects.readwrite cimport (
    _ReadWriteLock, finish_lock, is_word_wanted, lock_of, take_for, take_word, uncount_hold,
)
from fastsync.raw.c_atomic cimport fs_atomic_uptr, fs_uptr_load_relaxed, fs_uptr_store_relaxed
from fastsync.raw.c_wait cimport FS_FOREVER
from fastsync.raw.parking cimport FS_SIGNALS
from fastsync.raw.rwlock cimport fs_rwlock, rwlock_reset
from fastsync.raw.sharded cimport (
    fs_shard, fs_sharded, FS_SHARDS, sharded_has_readers, sharded_is_locked, sharded_is_locked_exclusive,
    sharded_mine, sharded_unlock_read, sharded_unlock_write, sharded_write_until,
)

# What the casts of a shard's lock to its shard take for granted.
cdef extern from *:
    """
    #ifdef __GNUC__
    #define FS_LOCK_IS_FIRST(shard) _Static_assert( \\
        offsetof(__typeof__(shard), lock) == 0, "a shard begins with its lock")
    #else
    #define FS_LOCK_IS_FIRST(shard) ((void)(shard))
    #endif
    """
    void FS_LOCK_IS_FIRST(fs_shard) noexcept


cdef void check_layout() noexcept:
    cdef fs_shard shard
    FS_LOCK_IS_FIRST(shard)


@cython.final
@cython.no_gc_clear
cdef class ShardedWriteGuard(_Writing):
    """A ShardedLock held for writing: no other thread holds it in any way."""

    @property
    def rwlock(self):
        """The lock that the guard holds."""
        return lock_of(self)


cdef inline ShardedWriteGuard write_guard(ShardedLock lock, int64_t deadline):
    cdef PyObject* raw = allocate_guard(ShardedWriteGuard, lock)
    guard = <ShardedWriteGuard>raw
    Py_DECREF(guard)
    return guard if take_for(guard, FS_EXCLUSIVE, deadline) else None


@cython.final
@cython.no_gc_clear
cdef class ShardedLock(_ReadWriteLock):
    """ShardedLock(value=None)
--

An RwLock for what is read from every thread all the time and hardly ever written.

Readers of different threads touch different cache lines; a writer takes all of
their words.  A kilobyte.  Without upgrades and downgrades.  Fairness and ordering
are RwLock's.  Origin: crossbeam's ShardedLock, which exceptions poison."""

    def __cinit__(self):
        memset(&self.shards, 0, sizeof(fs_sharded))

    cdef int take(self, int way, int64_t deadline, fs_rwlock** word) noexcept:
        if way == FS_EXCLUSIVE:
            word[0] = NULL
            return sharded_write_until(&self.shards, deadline, FS_SIGNALS)
        word[0] = sharded_mine(&self.shards)
        return take_word(word[0], way, deadline)

    cdef int unlock(self, int way, fs_rwlock* word, bint fair) noexcept:
        if way == FS_SHARED:
            return sharded_unlock_read(&self.shards, word)
        return sharded_unlock_write(&self.shards, fair)

    cdef bint is_held(self, int way) noexcept:
        if way == FS_SHARED:
            return sharded_has_readers(&self.shards)
        return sharded_is_locked_exclusive(&self.shards)

    cdef fs_atomic_uptr* holds_through(self, int way, fs_rwlock* word) noexcept:
        if way == FS_EXCLUSIVE:
            return _ReadWriteLock.holds_through(self, way, word)
        return &(<fs_shard*>word).viewed

    cdef bint uncount(self, int way, fs_rwlock** word) noexcept:
        """Of a reader: of any shard, best of this thread's."""
        cdef int i
        if way == FS_EXCLUSIVE:
            return _ReadWriteLock.uncount(self, way, word)
        word[0] = sharded_mine(&self.shards)
        if uncount_hold(&(<fs_shard*>word[0]).viewed):
            return True
        # Twice: as in sharded_unlock_read
        for i in range(2 * FS_SHARDS):
            word[0] = &self.shards.shard[i % FS_SHARDS].lock
            if uncount_hold(&self.shards.shard[i % FS_SHARDS].viewed):
                return True
        return False

    cdef bint has_holds(self, int way) noexcept:
        cdef int i
        if way == FS_EXCLUSIVE:
            return _ReadWriteLock.has_holds(self, way)
        for i in range(FS_SHARDS):
            if fs_uptr_load_relaxed(&self.shards.shard[i].viewed) != 0:  # relaxed: a snapshot
                return True
        return False

    cdef bint is_wanted(self, _Guard guard) noexcept:
        cdef int i
        if guard.way == FS_SHARED:
            return is_word_wanted(<fs_rwlock*>guard.word, FS_SHARED)
        for i in range(FS_SHARDS):
            if is_word_wanted(&self.shards.shard[i].lock, FS_EXCLUSIVE):
                return True
        return False

    def write(self, *, timeout=None):
        """A ShardedWriteGuard; waits until no other thread holds the lock.

        timeout: seconds to wait at most; TimeoutError when they have passed.
        """
        if timeout is None:
            return write_guard(self, FS_FOREVER)
        return granted(write_guard(self, deadline_for(timeout)), timeout)

    def try_write(self):
        """As write(); None instead of waiting."""
        return write_guard(self, 0)

    def try_write_for(self, seconds, /):
        """As write(); None after `seconds`."""
        return write_guard(self, deadline_for(seconds))

    def try_write_until(self, deadline, /):
        """As write(); None when time.monotonic() reaches `deadline`."""
        return write_guard(self, deadline_until(deadline))

    def is_locked(self):
        """Whether a thread holds the lock, at this moment."""
        return sharded_is_locked(&self.shards)

    def is_locked_exclusive(self):
        """Whether a writer holds the lock, at this moment."""
        return sharded_is_locked_exclusive(&self.shards)

    def _at_fork_reinit(self):
        cdef int i
        self.forget_holds()
        for i in range(FS_SHARDS):
            fs_uptr_store_relaxed(&self.shards.shard[i].viewed, 0)  # relaxed: ordered by the reset
            rwlock_reset(&self.shards.shard[i].lock)


cdef int set_up() except -1:
    finish_guard(ShardedWriteGuard)
    end_in(ShardedWriteGuard, dealloc_guard)
    return finish_lock(ShardedLock)


set_up()
check_layout()
publish((ShardedLock, ShardedWriteGuard))
