"""The contention profile's memory: how long who waited for which lock, and for whom."""
from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t
from cpython.object cimport PyObject

from fastsync._watch.origins cimport fs_stack
from fastsync.raw.c_atomic cimport (
    fs_atomic_u32, fs_atomic_u8, fs_atomic_uptr, fs_u32_load_relaxed,
)
from fastsync.raw.c_wait cimport fs_bucket_lock

# A raw lock's *_until, with FS_SIGNALS: FS_ACQUIRED, FS_TIMEOUT, FS_ERROR with an
# exception set, or an answer of the lock's own (> FS_ACQUIRED): nothing was taken.
ctypedef int (*fs_take)(void* ctx, int64_t deadline) noexcept

cdef enum:
    SHARES = 16

# One release that others waited for.
cdef struct fs_release:
    fs_atomic_uptr users       # waits that name it, and the releaser until it is done
    fs_atomic_u8 done          # `stack` is there
    uint64_t thread
    const fs_stack* stack

cdef struct fs_share:
    fs_release* release
    int64_t ns                 # so long this release let the wait last

# One wait, in the frame of the function that waits.
cdef struct fs_waiting:
    uintptr_t key              # what it waits for: an address; 0: not noted
    PyObject* origin           # owned
    int way
    uint64_t thread
    int64_t since
    int64_t threshold          # it is kept if it lasts so long
    int64_t charged            # until then the shares below account for it
    int64_t rate
    uint32_t epoch
    const fs_stack* stack
    int share_count
    fs_share shares[SHARES]
    fs_waiting* next

cdef struct fs_waits_bucket:
    fs_bucket_lock lock
    fs_atomic_u32 count       # written under the lock
    fs_waiting* first

cdef fs_waits_bucket* waits_table  # of 512

cdef inline fs_waits_bucket* bucket_of(uintptr_t key) noexcept nogil:
    return &waits_table[(<uint64_t>key * <uint64_t>0x9E3779B97F4A7C15u) >> 55]

cdef inline bint may_be_waited_for(uintptr_t key) noexcept nogil:
    # relaxed: a thread that begins to wait only now does not wait for this section
    return fs_u32_load_relaxed(&bucket_of(key).count) != 0

# take(ctx, deadline), timed if it does not succeed at once.
cdef int contend(object lock, int way, int64_t deadline, fs_take take, void* ctx) noexcept
# The two ends of a wait that is not a take().
cdef void contention_begin(fs_waiting* waiting, object lock, int way, uintptr_t key) noexcept
cdef void contention_end(fs_waiting* waiting) noexcept
# The end of a wait that came to nothing and is not kept.
cdef void contention_drop(fs_waiting* waiting) noexcept
# Before and after a release of those who wait for `key`.  Between them nothing runs Python code.
cdef fs_release* contention_release(uintptr_t key) noexcept
cdef void contention_released(fs_release* release) noexcept
# Instead of contention_released(): nobody was there to be released.
cdef void contention_unreleased(fs_release* release) noexcept
