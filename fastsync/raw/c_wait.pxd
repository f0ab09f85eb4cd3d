# Extern declarations of include/fastsync/wait.h; no logic.  Only the parking
# table may put a thread to sleep.
from libc.stdint cimport int64_t, uint32_t, uintptr_t


cdef extern from "fastsync/wait.h" nogil:
    int64_t FS_FOREVER
    int FS_WOKEN
    int FS_TIMED_OUT
    int FS_SIGNALLED
    const char* FS_WAIT_BACKEND
    int64_t FS_FIRST_LOOK_NS
    int64_t FS_LOOK_NS

    ctypedef struct fs_bucket_lock:
        pass
    bint fs_bucket_lock_acquire(fs_bucket_lock*, uint32_t epoch) noexcept
    void fs_bucket_lock_release(fs_bucket_lock*, uint32_t epoch) noexcept

    ctypedef struct fs_waitword:
        pass
    void fs_waitword_init(fs_waitword*) noexcept
    bint fs_waitword_woken(const fs_waitword*) noexcept
    int fs_waitword_wait(fs_waitword*, int64_t deadline) noexcept
    void fs_waitword_wake(fs_waitword*) noexcept
    void fs_waitword_destroy(fs_waitword*) noexcept

    int64_t fs_now() noexcept
    int64_t fs_ticks() noexcept
    uintptr_t fs_thread_id() noexcept
    void fs_yield() noexcept
    int fs_at_fork(void (*before)() noexcept, void (*parent)() noexcept,
                   void (*child)() noexcept) noexcept
