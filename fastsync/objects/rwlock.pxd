"""RwLock, ShardedLock, their views and guards, for Cython code that is handed one."""
from fastsync.objects._slots cimport fs_call
from fastsync.raw.c_atomic cimport fs_atomic_u8, fs_atomic_uptr
from fastsync.raw.rwlock cimport fs_rwlock
from fastsync.raw.sharded cimport fs_sharded


cdef class _Valued:
    cdef object __weakref__
    cdef object value
    cdef fs_atomic_uptr views[2]  # references, 0 until needed: see view()
    cdef fs_atomic_uptr viewed[2] # how often it is held through each: see holds_through()


cdef class RwLock(_Valued):
    cdef fs_rwlock word


cdef class ShardedLock(_Valued):
    cdef fs_sharded shards


cdef class LockView:
    cdef fs_call call          # what `with` calls: see _slots.pyx
    cdef object __weakref__
    cdef _Valued lock
    cdef fs_rwlock* word       # of an RwLock; NULL for a ShardedLock
    cdef unsigned char way     # FS_SHARED or FS_EXCLUSIVE


# A guard's life:
#   HELD   it holds the lock in its own way and may be used
#   AWAY   it holds nothing for the moment, or its holding is being changed
#   DEAD   it holds nothing and never will
# With HELD, BUSY: a thread is reading or replacing the value, and the guard cannot
# end meanwhile.  Only steps out of HELD may race, and one thread wins.
cdef enum:
    FS_GUARD_DEAD = 0
    FS_GUARD_HELD = 1
    FS_GUARD_AWAY = 2
    FS_GUARD_BUSY = 4


cdef class _Guard:
    cdef fs_call call
    cdef object __weakref__
    cdef _Valued lock
    cdef fs_rwlock* word       # what is held; NULL: all shards of `lock`
    cdef fs_atomic_u8 life
    cdef unsigned char way     # FS_SHARED, FS_EXCLUSIVE or FS_UPGRADABLE


cdef class _Mapped(_Guard):
    cdef object part


# The words of the objects, for nogil code.  The object must stay alive.
cdef inline fs_rwlock* rwlock_word(RwLock rw) noexcept nogil:
    if rw is None:
        return NULL
    return &rw.word


cdef inline fs_sharded* sharded_words(ShardedLock s) noexcept nogil:
    return &s.shards
