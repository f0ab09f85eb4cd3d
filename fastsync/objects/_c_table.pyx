"""The function table behind include/fastsync/fastsync.h, as a capsule.

Both have the words from words.h, and the header spells the callbacks of the .pxd
files as C would, so a function serves both.  Cython is told that the table's
members are plain addresses: the types are the header's.
"""
from cpython.pycapsule cimport PyCapsule_New

from fastsync cimport words
from fastsync.objects.atomics cimport _Atomic, word_address
from fastsync.objects.event cimport Event, event_word
from fastsync.objects.lock cimport Lock, lock_word
from fastsync.objects.condvar cimport Condvar, condvar_word
from fastsync.objects.mutex cimport fair_mutex_word, FairMutex, Mutex, mutex_word
from fastsync.objects.once cimport Once, once_word
from fastsync.objects.reentrant cimport reentrant_mutex_word, ReentrantMutex
from fastsync.objects.rlock cimport RLock, rlock_word
from fastsync.objects.rwlock cimport RwLock, rwlock_word
from fastsync.objects.semaphore cimport Semaphore, semaphore_word
from fastsync.raw.c_wait cimport fs_now, fs_thread_id


cdef extern from "fastsync/fastsync.h" nogil:
    const char* FASTSYNC_VERSION
    const char* FASTSYNC_CAPSULE
    enum:
        FS_OF_MUTEX
        FS_OF_FAIR_MUTEX
        FS_OF_REENTRANT_MUTEX
        FS_OF_CONDVAR
        FS_OF_RWLOCK
        FS_OF_ONCE
        FS_OF_LOCK
        FS_OF_RLOCK
        FS_OF_SEMAPHORE
        FS_OF_EVENT
        FS_OF_ATOMIC
    ctypedef struct fs_table:
        const char* version
        void* now
        void* thread_id
        void* object_word
        void* mutex_lock_slow
        void* mutex_unlock_slow
        void* mutex_reset
        void* remutex_lock_until
        void* remutex_try_lock
        void* remutex_unlock
        void* remutex_unlock_fair
        void* condvar_wait
        void* condvar_notify_some
        void* condvar_reset
        void* semaphore_acquire_slow
        void* semaphore_release
        void* semaphore_set_value
        void* event_set
        void* event_clear
        void* event_wait_slow
        void* event_reset
        void* barrier_arrive
        void* barrier_open
        void* barrier_abort
        void* barrier_reset
        void* barrier_reinit
        void* barrier_waiting
        void* barrier_is_broken
        void* rwlock_read_until
        void* rwlock_read_recursive_until
        void* rwlock_try_read
        void* rwlock_try_read_recursive
        void* rwlock_unlock_read
        void* rwlock_bump_read
        void* rwlock_write_until
        void* rwlock_try_write
        void* rwlock_unlock_write
        void* rwlock_unlock_write_fair
        void* rwlock_bump_write
        void* rwlock_upgradable_read_until
        void* rwlock_try_upgradable_read
        void* rwlock_unlock_upgradable
        void* rwlock_unlock_upgradable_fair
        void* rwlock_bump_upgradable
        void* rwlock_upgrade_until
        void* rwlock_try_upgrade
        void* rwlock_downgrade
        void* rwlock_downgrade_to_upgradable
        void* rwlock_downgrade_upgradable
        void* rwlock_readers
        void* rwlock_is_locked
        void* rwlock_is_locked_exclusive
        void* rwlock_reset
        void* once_begin
        void* once_wait_slow
        void* once_end
        void* once_retract
        void* word_wait
        void* word_notify_one
        void* word_notify_all
        void* park
        void* unpark_one
        void* unpark_all
        void* unpark_filter
        void* unpark_requeue
        void* parked_count
        void* spin_round

cdef fs_table filled


cdef void* atomic_word(object o, int kind) except NULL:
    cdef _Atomic atomic = <_Atomic?>o
    if atomic.kind != kind:
        raise TypeError(f"an atomic of another type is needed, not {type(o).__name__}")
    return word_address(atomic)


cdef void* object_word(object o, int type_) except NULL:
    """Where the word of an object is; TypeError when it is not of that type."""
    if type_ == FS_OF_MUTEX:
        return mutex_word(<Mutex?>o)
    if type_ == FS_OF_FAIR_MUTEX:
        return fair_mutex_word(<FairMutex?>o)
    if type_ == FS_OF_REENTRANT_MUTEX:
        return reentrant_mutex_word(<ReentrantMutex?>o)
    if type_ == FS_OF_CONDVAR:
        return condvar_word(<Condvar?>o)
    if type_ == FS_OF_RWLOCK:
        return rwlock_word(<RwLock?>o)
    if type_ == FS_OF_ONCE:
        return once_word(<Once?>o)
    if type_ == FS_OF_LOCK:
        return lock_word(<Lock?>o)
    if type_ == FS_OF_RLOCK:
        return rlock_word(<RLock?>o)
    if type_ == FS_OF_SEMAPHORE:
        return semaphore_word(<Semaphore?>o)
    if type_ == FS_OF_EVENT:
        return event_word(<Event?>o)
    return atomic_word(o, type_ - FS_OF_ATOMIC)


cdef void fill(fs_table* t) noexcept:
    t.version = FASTSYNC_VERSION
    t.now = <void*>fs_now
    t.thread_id = <void*>fs_thread_id
    t.object_word = <void*>object_word
    t.mutex_lock_slow = <void*>words.mutex_lock_slow
    t.mutex_unlock_slow = <void*>words.mutex_unlock_slow
    t.mutex_reset = <void*>words.mutex_reset
    t.remutex_lock_until = <void*>words.remutex_lock_until
    t.remutex_try_lock = <void*>words.remutex_try_lock
    t.remutex_unlock = <void*>words.remutex_unlock
    t.remutex_unlock_fair = <void*>words.remutex_unlock_fair
    t.condvar_wait = <void*>words.condvar_wait
    t.condvar_notify_some = <void*>words.condvar_notify_some
    t.condvar_reset = <void*>words.condvar_reset
    t.semaphore_acquire_slow = <void*>words.semaphore_acquire_slow
    t.semaphore_release = <void*>words.semaphore_release
    t.semaphore_set_value = <void*>words.semaphore_set_value
    t.event_set = <void*>words.event_set
    t.event_clear = <void*>words.event_clear
    t.event_wait_slow = <void*>words.event_wait_slow
    t.event_reset = <void*>words.event_reset
    t.barrier_arrive = <void*>words.barrier_arrive
    t.barrier_open = <void*>words.barrier_open
    t.barrier_abort = <void*>words.barrier_abort
    t.barrier_reset = <void*>words.barrier_reset
    t.barrier_reinit = <void*>words.barrier_reinit
    t.barrier_waiting = <void*>words.barrier_waiting
    t.barrier_is_broken = <void*>words.barrier_is_broken
    t.rwlock_read_until = <void*>words.rwlock_read_until
    t.rwlock_read_recursive_until = <void*>words.rwlock_read_recursive_until
    t.rwlock_try_read = <void*>words.rwlock_try_read
    t.rwlock_try_read_recursive = <void*>words.rwlock_try_read_recursive
    t.rwlock_unlock_read = <void*>words.rwlock_unlock_read
    t.rwlock_bump_read = <void*>words.rwlock_bump_read
    t.rwlock_write_until = <void*>words.rwlock_write_until
    t.rwlock_try_write = <void*>words.rwlock_try_write
    t.rwlock_unlock_write = <void*>words.rwlock_unlock_write
    t.rwlock_unlock_write_fair = <void*>words.rwlock_unlock_write_fair
    t.rwlock_bump_write = <void*>words.rwlock_bump_write
    t.rwlock_upgradable_read_until = <void*>words.rwlock_upgradable_read_until
    t.rwlock_try_upgradable_read = <void*>words.rwlock_try_upgradable_read
    t.rwlock_unlock_upgradable = <void*>words.rwlock_unlock_upgradable
    t.rwlock_unlock_upgradable_fair = <void*>words.rwlock_unlock_upgradable_fair
    t.rwlock_bump_upgradable = <void*>words.rwlock_bump_upgradable
    t.rwlock_upgrade_until = <void*>words.rwlock_upgrade_until
    t.rwlock_try_upgrade = <void*>words.rwlock_try_upgrade
    t.rwlock_downgrade = <void*>words.rwlock_downgrade
    t.rwlock_downgrade_to_upgradable = <void*>words.rwlock_downgrade_to_upgradable
    t.rwlock_downgrade_upgradable = <void*>words.rwlock_downgrade_upgradable
    t.rwlock_readers = <void*>words.rwlock_readers
    t.rwlock_is_locked = <void*>words.rwlock_is_locked
    t.rwlock_is_locked_exclusive = <void*>words.rwlock_is_locked_exclusive
    t.rwlock_reset = <void*>words.rwlock_reset
    t.once_begin = <void*>words.once_begin
    t.once_wait_slow = <void*>words.once_wait_slow
    t.once_end = <void*>words.once_end
    t.once_retract = <void*>words.once_retract
    t.word_wait = <void*>words.word_wait
    t.word_notify_one = <void*>words.word_notify_one
    t.word_notify_all = <void*>words.word_notify_all
    t.park = <void*>words.park
    t.unpark_one = <void*>words.unpark_one
    t.unpark_all = <void*>words.unpark_all
    t.unpark_filter = <void*>words.unpark_filter
    t.unpark_requeue = <void*>words.unpark_requeue
    t.parked_count = <void*>words.parked_count
    t.spin_round = <void*>words.spin_round


cdef int check_complete(void** entries) except -1:
    cdef size_t i
    for i in range(sizeof(fs_table) // sizeof(void*)):
        if entries[i] == NULL:
            raise ImportError(f"entry {i} of the C API's table is missing")
    return 0


fill(&filled)
check_complete(<void**>&filled)
table = PyCapsule_New(&filled, FASTSYNC_CAPSULE, NULL)
