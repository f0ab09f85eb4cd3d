"""The function table behind include/fastsync/fastsync.h, as a capsule.

The header spells the words and callbacks of the .pxd files as C would; they are
laid out alike, which is checked here, so a function serves both.  Cython is
told that the table's members are plain addresses: the types are the header's.
"""
from cpython.pycapsule cimport PyCapsule_New

from fastsync cimport locks, parking, rwlock
from fastsync.c_wait cimport fs_now

cdef extern from "fastsync/fastsync.h" nogil:
    const char* FASTSYNC_VERSION
    const char* FASTSYNC_CAPSULE
    ctypedef struct fs_mutex:
        pass
    ctypedef struct fs_remutex:
        pass
    ctypedef struct fs_condvar:
        pass
    ctypedef struct fs_semaphore:
        pass
    ctypedef struct fs_event:
        pass
    ctypedef struct fs_barrier:
        pass
    ctypedef struct fs_rwlock:
        pass
    ctypedef struct fs_unpark_result:
        pass
    ctypedef struct fs_table:
        const char* version
        size_t size
        void* now
        void* mutex_lock_slow
        void* mutex_unlock_slow
        void* remutex_lock_until
        void* remutex_try_lock
        void* remutex_unlock
        void* condvar_wait
        void* condvar_notify_some
        void* semaphore_acquire_slow
        void* semaphore_release
        void* event_set
        void* event_clear
        void* event_wait_slow
        void* barrier_arrive
        void* barrier_open
        void* barrier_abort
        void* barrier_reset
        void* park
        void* unpark_one
        void* unpark_all
        void* unpark_filter
        void* unpark_requeue
        void* parked_count
        void* rwlock_read_until
        void* rwlock_try_read
        void* rwlock_unlock_read
        void* rwlock_write_until
        void* rwlock_try_write
        void* rwlock_unlock_write
        void* rwlock_downgrade
        void* rwlock_upgradable_read_until
        void* rwlock_unlock_upgradable
        void* rwlock_upgrade_until

cdef fs_table filled

cdef void fill(fs_table* t) noexcept:
    t.version = FASTSYNC_VERSION
    t.size = sizeof(fs_table)
    t.now = <void*>fs_now
    t.mutex_lock_slow = <void*>locks.mutex_lock_slow
    t.mutex_unlock_slow = <void*>locks.mutex_unlock_slow
    t.remutex_lock_until = <void*>locks.remutex_lock_until
    t.remutex_try_lock = <void*>locks.remutex_try_lock
    t.remutex_unlock = <void*>locks.remutex_unlock
    t.condvar_wait = <void*>locks.condvar_wait
    t.condvar_notify_some = <void*>locks.condvar_notify_some
    t.semaphore_acquire_slow = <void*>locks.semaphore_acquire_slow
    t.semaphore_release = <void*>locks.semaphore_release
    t.event_set = <void*>locks.event_set
    t.event_clear = <void*>locks.event_clear
    t.event_wait_slow = <void*>locks.event_wait_slow
    t.barrier_arrive = <void*>locks.barrier_arrive
    t.barrier_open = <void*>locks.barrier_open
    t.barrier_abort = <void*>locks.barrier_abort
    t.barrier_reset = <void*>locks.barrier_reset
    t.park = <void*>parking.park
    t.unpark_one = <void*>parking.unpark_one
    t.unpark_all = <void*>parking.unpark_all
    t.unpark_filter = <void*>parking.unpark_filter
    t.unpark_requeue = <void*>parking.unpark_requeue
    t.parked_count = <void*>parking.parked_count
    t.rwlock_read_until = <void*>rwlock.rwlock_read_until
    t.rwlock_try_read = <void*>rwlock.rwlock_try_read
    t.rwlock_unlock_read = <void*>rwlock.rwlock_unlock_read
    t.rwlock_write_until = <void*>rwlock.rwlock_write_until
    t.rwlock_try_write = <void*>rwlock.rwlock_try_write
    t.rwlock_unlock_write = <void*>rwlock.rwlock_unlock_write
    t.rwlock_downgrade = <void*>rwlock.rwlock_downgrade
    t.rwlock_upgradable_read_until = <void*>rwlock.rwlock_upgradable_read_until
    t.rwlock_unlock_upgradable = <void*>rwlock.rwlock_unlock_upgradable
    t.rwlock_upgrade_until = <void*>rwlock.rwlock_upgrade_until


cdef int check_layout() except -1:
    if (sizeof(fs_mutex) != sizeof(locks.fs_mutex)
            or sizeof(fs_remutex) != sizeof(locks.fs_remutex)
            or sizeof(fs_condvar) != sizeof(locks.fs_condvar)
            or sizeof(fs_semaphore) != sizeof(locks.fs_semaphore)
            or sizeof(fs_event) != sizeof(locks.fs_event)
            or sizeof(fs_barrier) != sizeof(locks.fs_barrier)
            or sizeof(fs_rwlock) != sizeof(rwlock.fs_rwlock)
            or sizeof(fs_unpark_result) != sizeof(parking.fs_unpark_result)):
        raise ImportError("fastsync.h and the .pxd files disagree about a word's size")
    return 0


check_layout()
fill(&filled)
table = PyCapsule_New(&filled, FASTSYNC_CAPSULE, NULL)
