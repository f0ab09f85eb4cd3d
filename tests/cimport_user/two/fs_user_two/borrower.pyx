# cython: language_level=3, freethreading_compatible=True
"""Takes locks that live in somebody else's struct."""
from libc.stdint cimport int64_t, uintptr_t

from fastsync.locks cimport (
    fs_mutex, mutex_is_locked, mutex_lock, mutex_try_lock, mutex_try_lock_for, mutex_unlock,
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
