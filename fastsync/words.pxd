"""The door for Cython: all raw words, by one `cimport`.

    from fastsync.words cimport fs_mutex, mutex_lock, mutex_unlock

A zero-filled word is valid: a free lock, a clear event, nothing run.  A word must
not move while a thread waits on it.  Every function may be called with or without
an attached thread state, and without the GIL.  Deadlines are absolute nanoseconds
of time.monotonic()'s clock, FS_FOREVER for none; `flags` is FS_PLAIN, or
FS_SIGNALS for a caller that has a thread state and can raise.

The words' C names carry the series of the C API: see fs_key in parking.pxd.
"""
from fastsync.raw.barrier cimport *
from fastsync.raw.c_atomic cimport *
from fastsync.raw.c_atomic_float cimport *
from fastsync.raw.c_atomic_order cimport *
from fastsync.raw.c_wait cimport *
from fastsync.raw.condvar cimport *
from fastsync.raw.event cimport *
from fastsync.raw.mutex cimport *
from fastsync.raw.once cimport *
from fastsync.raw.parking cimport *
from fastsync.raw.remutex cimport *
from fastsync.raw.rwlock cimport *
from fastsync.raw.semaphore cimport *
from fastsync.raw.sharded cimport *
from fastsync.raw.word cimport *
