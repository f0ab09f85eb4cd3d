"""What RwLock and ShardedLock share: see readwrite.pyx."""
from libc.stdint cimport int64_t, uintptr_t

from fastsync.objects._slots cimport fs_call
from fastsync.objects.guards cimport _Direct, _Guard, _Mapped, _MappedWriting, _Owner
from fastsync.raw.c_atomic cimport (
    fs_atomic_u32, fs_atomic_uptr, fs_uptr_cas_acquire, fs_uptr_fetch_add_release, fs_uptr_load_relaxed,
)
from fastsync.raw.rwlock cimport fs_rwlock


cdef class _ReadWriteLock(_Owner):
    cdef fs_atomic_uptr views[2]  # references, 0 until needed: see view()
    cdef fs_atomic_uptr viewed[2] # how often it is held through each: see holds_through()
    cdef fs_atomic_u32 resets     # how often it was reset

    # Which word it was, NULL for all of a ShardedLock, is told in `word`.
    cdef int take(self, int way, int64_t deadline, fs_rwlock** word) noexcept
    # 0, or -1 when it is not held in this way; the word for FS_SHARED: this thread's.
    cdef int unlock(self, int way, fs_rwlock* word, bint fair) noexcept
    # Whether any thread holds it for reading, or for writing.
    cdef bint is_held(self, int way) noexcept
    # The word of an RwLock; NULL: a ShardedLock has several.
    cdef fs_rwlock* single_word(self) noexcept
    # A view counts the holds that were taken through it: see readwrite.pyx.
    cdef fs_atomic_uptr* holds_through(self, int way, fs_rwlock* word) noexcept
    # Take one off; False when there is none.  `word`: what it holds.
    cdef bint uncount(self, int way, fs_rwlock** word) noexcept
    # Whether it has any, at this moment.
    cdef bint has_holds(self, int way) noexcept
    # What was held through views and guards is held no more: the lock is being reset.
    cdef void forget_holds(self) noexcept


cdef class LockView:
    cdef fs_call call             # what `with` calls: see _slots.pyx
    cdef object __weakref__
    cdef _ReadWriteLock lock
    cdef fs_rwlock* word          # of an RwLock; NULL for a ShardedLock
    cdef unsigned char way        # FS_SHARED or FS_EXCLUSIVE


cdef class ReadGuard(_Direct):
    pass


cdef class MappedReadGuard(_Mapped):
    pass


cdef class MappedWriteGuard(_MappedWriting):
    pass


# -- between the modules of this package; not for others ---------------------

cdef inline void count_hold(fs_atomic_uptr* holds) noexcept:
    # release: pairs with the acquire in uncount_hold, which then finds the lock held
    fs_uptr_fetch_add_release(holds, 1)


cdef inline bint uncount_hold(fs_atomic_uptr* holds) noexcept:
    """False when there is none."""
    cdef uintptr_t seen = fs_uptr_load_relaxed(holds)  # relaxed: the CAS decides
    while seen != 0:
        # acquire: pairs with the release in count_hold
        if fs_uptr_cas_acquire(holds, &seen, seen - 1):
            return True
    return False



cdef int take_word(fs_rwlock* word, int way, int64_t deadline) noexcept
# Whether a thread waits for what a guard holds in this way; a hint.
cdef bint is_word_wanted(fs_rwlock* word, int way) noexcept
# Lock, for a new guard; False when the deadline has passed.
cdef bint take_for(_Guard guard, int way, int64_t deadline) except -1
# A guard of the lock, not alive yet.
cdef ReadGuard new_read_guard(_Owner lock)
# `heir` holds, in this way, what `guard` has given up.
cdef void give_to(_Guard heir, _Guard guard, int way) noexcept
# The lock of a guard that is alive.
cdef object lock_of(_Guard guard)
# A type of locks: how the collector sees it, and what is pinned with it.
cdef int finish_lock(type cls) except -1
