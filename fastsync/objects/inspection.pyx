"""waiters(), owner() and reset_after_fork(), for the locks of this library."""
from libc.stdint cimport uintptr_t

from fastsync.objects._extensible cimport _Extensible, is_original, threads_waiting
from fastsync.objects.condition cimport Condition
from fastsync.objects.lock cimport Lock
from fastsync.objects.rlock cimport RLock
from fastsync.raw.c_atomic cimport fs_uptr_load_relaxed
from fastsync.raw.parking cimport parked_count

from fastsync.objects.barrier import Barrier


def waiters(lock, /):
    """How many threads wait for the lock, at this moment.

    lock: a Lock, RLock, Condition (the threads in wait() that were not notified yet),
    Semaphore, BoundedSemaphore, Event or Barrier of this library.  A thread that has just
    come and still looks whether it must wait is not counted.  TypeError for other objects.
    A snapshot: it orders nothing.
    """
    if isinstance(lock, Lock):
        return parked_count(<uintptr_t>&(<Lock>lock).mutex)
    if isinstance(lock, RLock):
        return parked_count(<uintptr_t>&(<RLock>lock).remutex.mutex)
    if not isinstance(lock, _Extensible):
        raise TypeError(f"waiters() is for locks of fastsync, not for {type(lock).__name__!r}")
    if not is_original(<_Extensible>lock):
        return threads_waiting(lock)
    if isinstance(lock, Condition):
        return len(lock._waiters)
    if isinstance(lock, Barrier):
        return lock.n_waiting
    return len(lock._cond._waiters)


def owner(lock, /):
    """The thread that holds the lock, as threading.get_ident() names it; None: no thread does.

    lock: an RLock of this library, or a Condition over one.  TypeError for other objects: a
    Lock does not know its owner.  A snapshot: it orders nothing.
    """
    cdef uintptr_t thread
    if isinstance(lock, Condition):
        lock = lock._lock
    if not isinstance(lock, RLock):
        raise TypeError(f"owner() is for an RLock of fastsync, not for {type(lock).__name__!r}")
    thread = fs_uptr_load_relaxed(&(<RLock>lock).remutex.owner)  # relaxed: a snapshot
    return thread or None


def reset_after_fork(*locks):
    """Make locks usable again in the child of os.fork(), where their owners do not exist.

    For the child alone, before it starts threads.  Lock, RLock and Condition become free, a
    Semaphore gets the value that it was made with, a Barrier starts over, an Event keeps its
    flag, RwLock and ShardedLock become free (guards of before must not be used); of Once,
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
