# cython: language_level=3, freethreading_compatible=True
"""Takes locks that live in somebody else's struct."""
from libc.stdint cimport int64_t, uintptr_t

from fastsync.objects.atomics cimport AtomicI64, i64_word
from fastsync.objects.lock cimport Lock, lock_word
from fastsync.objects.mutex cimport Mutex, mutex_word
from fastsync.objects.rwlock cimport RwLock, rwlock_word
from fastsync.words cimport (
    fs_atomic_i64, fs_i64_fetch_add, fs_mutex, fs_rwlock, mutex_is_locked, mutex_lock,
    mutex_try_lock, mutex_try_lock_for, mutex_unlock, rwlock_unlock_write, rwlock_write,
)


def add(addresses, int64_t times):
    """Add 1 to the value, `times` times, under the lock."""
    cdef fs_mutex* mutex = <fs_mutex*><uintptr_t>addresses[0]
    cdef int64_t* value = <int64_t*><uintptr_t>addresses[1]
    cdef int64_t i
    with nogil:
        for i in range(times):
            mutex_lock(mutex)
            value[0] += 1
            mutex_unlock(mutex)


def lock(addresses):
    """With the thread state attached."""
    mutex_lock(<fs_mutex*><uintptr_t>addresses[0])


def unlock(addresses):
    return mutex_unlock(<fs_mutex*><uintptr_t>addresses[0])


def is_locked(addresses):
    return mutex_is_locked(<fs_mutex*><uintptr_t>addresses[0]) != 0


def try_lock(addresses):
    return mutex_try_lock(<fs_mutex*><uintptr_t>addresses[0]) != 0


def try_lock_for(addresses, int64_t ns):
    return mutex_try_lock_for(<fs_mutex*><uintptr_t>addresses[0], ns) != 0


# -- the words inside Python's objects ---------------------------------------------

def add_with_lock(Lock lock not None, list box, int64_t times):
    """box[0] += 1 under a fastsync.threading.Lock, taken nogil."""
    cdef fs_mutex* word = lock_word(lock)
    cdef int64_t i
    for i in range(times):
        with nogil:
            mutex_lock(word)
        box[0] += 1
        mutex_unlock(word)


def add_with_mutex(Mutex mutex not None, list box, int64_t times):
    """box[0] += 1 under a fastsync.Mutex, taken nogil."""
    cdef fs_mutex* word = mutex_word(mutex)
    cdef int64_t i
    for i in range(times):
        with nogil:
            mutex_lock(word)
        box[0] += 1
        mutex_unlock(word)


def add_with_rwlock(RwLock lock not None, list box, int64_t times):
    """box[0] += 1 under a fastsync.RwLock, taken nogil."""
    cdef fs_rwlock* word = rwlock_word(lock)
    cdef int64_t i
    for i in range(times):
        with nogil:
            rwlock_write(word)
        box[0] += 1
        rwlock_unlock_write(word)


def bump_atomic(AtomicI64 number not None, int64_t times):
    """number += 1 on a fastsync.AtomicI64."""
    cdef fs_atomic_i64* word = i64_word(number)
    cdef int64_t i
    with nogil:
        for i in range(times):
            fs_i64_fetch_add(word, 1)
