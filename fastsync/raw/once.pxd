"""The raw one-time initialization: one byte.

What all raw words have in common: see words.pxd.  Zero means that
nothing has run.  A thread that waits for its own initialization is not noticed
here: it waits for ever.  The Python types notice it.
"""
from libc.stdint cimport int64_t, uint8_t

from fastsync.raw.c_atomic cimport fs_atomic_u8, fs_likely, fs_u8_load_acquire
from fastsync.raw.c_wait cimport FS_FOREVER
from fastsync.raw.parking cimport FS_PLAIN


#   DONE POISON RUNNING PARKED
#    0     0       0      0     nothing has run
#    0     0       0      1     and a thread may be parked until something has
#    0     0       1      0     a thread runs it
#    0     0       1      1     and a thread may be parked: the end must look
#    0     1       0      0     it failed for good, unless a caller forces it
#    1     0       0      0     it has run
#
# PARKED is set by a thread about to park.  The end of a run clears it with the
# same operation that says how the run ended, and wakes all threads; else it is
# cleared under the bucket lock, by the last waiter that gives up.

cdef enum:
    FS_ONCE_NEW = 0
    FS_ONCE_DONE = 1
    FS_ONCE_POISON = 2
    FS_ONCE_RUNNING = 4
    FS_ONCE_PARKED = 8

# What once_begin answers besides FS_TIMEOUT, FS_ERROR, FS_ONCE_DONE and
# FS_ONCE_POISON: run it, then call once_end.
cdef enum:
    FS_ONCE_RUN = 16
    FS_ONCE_RUN_POISONED = 17  # the same, after a failure

cdef extern from "fastsync/words.h":
    ctypedef struct fs_once "fastsync_0_2_once":
        fs_atomic_u8 state

cdef int once_begin(fs_once* o, bint force, int64_t deadline, int flags) noexcept nogil
cdef int once_wait_slow(fs_once* o, int64_t deadline, int flags) noexcept nogil
# `outcome`: FS_ONCE_DONE; FS_ONCE_POISON; or FS_ONCE_NEW, and the next one tries.
cdef void once_end(fs_once* o, uint8_t outcome) noexcept nogil
# From done to running: for a caller that takes back what was made.  False: not done.
cdef bint once_retract(fs_once* o) noexcept nogil


cdef inline bint once_is_done(const fs_once* o) noexcept nogil:
    # acquire: pairs with the release in once_end
    return fs_u8_load_acquire(&o.state) == FS_ONCE_DONE


cdef inline int once_wait(fs_once* o, int64_t deadline, int flags) noexcept nogil:
    """Wait until it has run: FS_ONCE_DONE, FS_ONCE_POISON when it failed,
    FS_TIMEOUT, or FS_ERROR (a signal handler raised)."""
    if fs_likely(once_is_done(o)):
        return FS_ONCE_DONE
    return once_wait_slow(o, deadline, flags)


cdef inline int once_call(
    fs_once* o, int (*function)(void*) noexcept nogil, void* ctx,
) noexcept nogil:
    """Run function(ctx) unless that has happened; wait while another thread runs it.

    FS_ONCE_DONE; or FS_ONCE_POISON when it has answered, now or before, anything
    but 0."""
    cdef int result
    if fs_likely(once_is_done(o)):
        return FS_ONCE_DONE
    result = once_begin(o, False, FS_FOREVER, FS_PLAIN)
    if result == FS_ONCE_RUN:
        result = FS_ONCE_DONE if function(ctx) == 0 else FS_ONCE_POISON
        once_end(o, <uint8_t>result)
    return result
