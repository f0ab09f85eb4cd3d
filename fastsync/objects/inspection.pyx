"""waiters(), owner() and reset_after_fork(), for the locks of this library."""
from libc.stdint cimport uint8_t, uintptr_t

from fastsync.objects._extensible cimport _Extensible, is_original, threads_waiting
from fastsync.objects.condition cimport Condition
from fastsync.objects.condvar cimport Condvar
from fastsync.objects.guards cimport here, survivor
from fastsync.objects.lock cimport Lock
from fastsync.objects.mutex cimport _Mutex
from fastsync.objects.reentrant cimport ReentrantMutex
from fastsync.objects.rlock cimport RLock
from fastsync.objects.rwlock cimport RwLock
from fastsync.objects.sharded cimport ShardedLock
from fastsync.raw.c_atomic cimport fs_u8_load_relaxed, fs_uptr_load_relaxed
from fastsync.raw.mutex cimport FS_MUTEX_LOCKED, FS_MUTEX_MARK
from fastsync.raw.parking cimport parked_count
from fastsync.raw.remutex cimport fs_remutex
from fastsync.raw.rwlock cimport fs_rwlock
from fastsync.raw.sharded cimport FS_SHARDS

from fastsync.objects.barrier import Barrier


cdef size_t waiting_at(fs_rwlock* word) noexcept:
    # The second address is that of a writer that waits for readers to leave.
    return parked_count(<uintptr_t>word) + parked_count(<uintptr_t>word + 1)


cdef object waiting_at_words(object lock):
    """For the types of one word or a few; None for others."""
    cdef size_t sum = 0
    cdef int i
    if isinstance(lock, Lock):
        return parked_count(<uintptr_t>&(<Lock>lock).mutex)
    if isinstance(lock, RLock):
        return parked_count(<uintptr_t>&(<RLock>lock).remutex.mutex)
    if isinstance(lock, _Mutex):
        return parked_count(<uintptr_t>&(<_Mutex>lock).word)
    if isinstance(lock, ReentrantMutex):
        return parked_count(<uintptr_t>&(<ReentrantMutex>lock).word.mutex)
    if isinstance(lock, Condvar):
        return parked_count(<uintptr_t>&(<Condvar>lock).word)
    if isinstance(lock, RwLock):
        return waiting_at(&(<RwLock>lock).word)
    if isinstance(lock, ShardedLock):
        for i in range(FS_SHARDS):
            sum += waiting_at(&(<ShardedLock>lock).shards.shard[i].lock)
        return sum
    return None


def waiters(lock, /):
    """How many threads wait for the lock, at this moment.

    lock: a lock of this library (a Semaphore, Event or Barrier is one here), a Condition or
    a Condvar: of these the threads in wait() that were not notified yet.  A thread that has just
    come and still looks whether it must wait is not counted.  TypeError for other objects.
    A snapshot: it orders nothing.
    """
    count = waiting_at_words(lock)
    if count is not None:
        return count
    if not isinstance(lock, _Extensible):
        raise TypeError(f"waiters() is for locks of fastsync, not for {type(lock).__name__!r}")
    if not is_original(<_Extensible>lock):
        count = threads_waiting(lock)
        inner = (<_Extensible>lock).inner
        if isinstance(inner, Condition):  # its `_cond`, for which threads wait that have come later
            count += parked_count(<uintptr_t>&(<Condition>inner).waiters)
        return count
    if isinstance(lock, Condition):
        return len(lock._waiters)
    if isinstance(lock, Barrier):
        return lock.n_waiting
    return len(lock._cond._waiters)


cdef uintptr_t owner_of_word(const fs_remutex* word) noexcept:
    return fs_uptr_load_relaxed(&word.owner)  # relaxed: a snapshot


cdef uintptr_t owner_of_mutex(_Mutex m) noexcept:
    """0 for a hold without a guard, and in a fork's child for one of a thread that is not there."""
    # relaxed, both: a snapshot
    cdef uint8_t state = fs_u8_load_relaxed(&m.word.state)
    cdef uintptr_t thread = fs_uptr_load_relaxed(&m.thread)
    cdef uint8_t mark = state & FS_MUTEX_MARK
    if not state & FS_MUTEX_LOCKED or mark == 0:
        return 0
    return thread if mark == here or thread == survivor else 0


def owner(lock, /):
    """The thread that holds the lock, as threading.get_ident() names it; None: no thread does.

    lock: an RLock of this library or a Condition over one, a Mutex, FairMutex or ReentrantMutex.
    Of a Mutex it is the thread that locked it, and None when its guard was leaked or C code
    holds it.  TypeError for other objects: a Lock does not know its owner.  A snapshot: it
    orders nothing.
    """
    if isinstance(lock, Condition):
        lock = lock._lock
    if isinstance(lock, RLock):
        return owner_of_word(&(<RLock>lock).remutex) or None
    if isinstance(lock, ReentrantMutex):
        return owner_of_word(&(<ReentrantMutex>lock).word) or None
    if isinstance(lock, _Mutex):
        return owner_of_mutex(<_Mutex>lock) or None
    raise TypeError(f"owner() is for a lock that knows its owner, not for {type(lock).__name__!r}")


def reset_after_fork(*locks):
    """Make locks usable again in the child of os.fork(), where their owners do not exist.

    For the child alone, before it starts threads.  Lock, RLock and Condition become free, a
    Semaphore gets the value that it was made with, a Barrier starts over, an Event keeps its
    flag, RwLock and ShardedLock become free (guards of before are dead, also this thread's); of Once,
    OnceLock, LazyLock, @once and lazy_property a run that another thread had begun is taken
    back; of Mutex, FairMutex and ReentrantMutex a hold ends that another thread had, and one
    of the thread that forked goes on.  TypeError for an object that is none of these, before
    any is touched.  The locks of `threading` itself that know `_at_fork_reinit()` are taken too.
    """
    for lock in locks:
        if not (hasattr(lock, "_at_fork_reinit") or hasattr(lock, "force_unlock")):
            raise TypeError(f"{type(lock).__name__!r} is nothing that reset_after_fork() can reset")
    for lock in locks:
        if hasattr(lock, "_at_fork_reinit"):
            lock._at_fork_reinit()
            continue
        try:
            while lock.is_locked():
                lock.force_unlock()
        except RuntimeError:
            pass  # a guard of the thread that forked holds it
