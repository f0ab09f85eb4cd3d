# cython: language_level=3, freethreading_compatible=True
"""One of each raw lock, held against those who want it, and what its word says."""
from libc.stdint cimport int64_t, uint8_t, uintptr_t

from fastsync.words cimport *

KINDS = ("mutex", "reader", "writer", "semaphore", "event", "once", "condvar", "call")


cdef int wake_nobody(void* ctx, uintptr_t park_token) noexcept nogil:
    return FS_STOP


cdef uintptr_t stay(void* ctx, fs_unpark_result* result) noexcept nogil:
    """Until it is let go, with the lock of the queue held."""
    cdef fs_atomic_i32* stage = <fs_atomic_i32*>ctx
    fs_i32_store(stage, 1)
    while fs_i32_load(stage) == 1:
        fs_yield()
    return 0


cdef int checked(int answer) except -1:
    return answer


cdef class Word:
    cdef str kind
    cdef int which
    cdef fs_mutex mutex
    cdef fs_mutex outer      # of the condition variable
    cdef fs_rwlock rwlock
    cdef fs_semaphore semaphore
    cdef fs_event event
    cdef fs_once once
    cdef fs_condvar condvar
    cdef fs_atomic_i32 stage  # of keep_queue()

    def __init__(self, kind):
        """Held: who waits, waits."""
        self.kind = kind
        self.which = KINDS.index(kind)
        mutex_lock(&self.mutex)
        rwlock_write(&self.rwlock)
        once_begin(&self.once, False, FS_FOREVER, FS_PLAIN)

    cdef int take(self, int64_t deadline, int flags) noexcept nogil:
        """1: it came; 0: not in time; -1: a signal handler raised."""
        cdef int result
        if self.which == 0:
            return mutex_lock_until(&self.mutex, deadline, flags)
        if self.which == 1:
            return rwlock_read_until(&self.rwlock, deadline, flags)
        if self.which == 2:
            return rwlock_write_until(&self.rwlock, deadline, flags)
        if self.which == 3:
            return semaphore_acquire_until(&self.semaphore, deadline, flags)
        if self.which == 4:
            return event_wait_until(&self.event, deadline, flags)
        if self.which == 5:
            return once_wait(&self.once, deadline, flags)
        if self.which == 7:
            return once_begin(&self.once, False, deadline, flags)
        mutex_lock(&self.outer)
        result = condvar_wait(&self.condvar, &self.outer, deadline, flags)
        mutex_unlock(&self.outer)
        return result

    def wait(self, int64_t ns):
        """Whether it came in time; `ns` < 0 waits for ever."""
        cdef int came
        with nogil:
            came = self.take(FS_FOREVER if ns < 0 else deadline_after(ns), FS_PLAIN)
        return came == 1

    def wait_with_handlers(self):
        """Until it comes, or a signal handler raises."""
        return checked(self.take(FS_FOREVER, FS_SIGNALS)) == 1

    def let_go(self, bint reading=False):
        """Let one through, or all if it comes for all."""
        with nogil:
            if self.which == 0:
                mutex_unlock(&self.mutex)
            elif self.which == 3:
                semaphore_release(&self.semaphore, 1, semaphore_max())
            elif self.which == 4:
                event_set(&self.event)
            elif self.which in (5, 7):
                once_end(&self.once, <uint8_t>FS_ONCE_DONE)
            elif self.which == 6:
                condvar_notify_one(&self.condvar)
            elif reading:
                rwlock_unlock_read(&self.rwlock)
            else:
                rwlock_unlock_write(&self.rwlock)

    cdef void* address(self) noexcept nogil:
        if self.which == 0:
            return &self.mutex
        if self.which <= 2:
            return &self.rwlock
        if self.which == 3:
            return &self.semaphore
        if self.which == 4:
            return &self.event
        return <void*>&self.condvar if self.which == 6 else <void*>&self.once

    @property
    def parked(self):
        return parked_count(<size_t>self.address())

    @property
    def state(self):
        """The word, as a number."""
        cdef void* address = self.address()
        if self.which in (0, 4, 5, 7):
            return (<uint8_t*>address)[0]
        return (<size_t*>address)[0]

    @state.setter
    def state(self, size_t value):
        cdef void* address = self.address()
        if self.which in (0, 4, 5, 7):
            (<uint8_t*>address)[0] = <uint8_t>value
        else:
            (<size_t*>address)[0] = value

    def reset(self, bint free=True):
        """By the function for those who must, as free (or as it was at first)."""
        with nogil:
            if self.which == 0:
                mutex_reset(&self.mutex)
            elif self.which <= 2:
                rwlock_reset(&self.rwlock)
            elif self.which == 3:
                semaphore_set_value(&self.semaphore, 2 if free else 0)
            elif self.which == 4:
                event_reset(&self.event, free)
            else:
                condvar_reset(&self.condvar)

    def unlock_fair(self):
        return mutex_unlock_fair(&self.mutex)

    def try_to_take(self):
        return mutex_try_lock(&self.mutex) if self.which == 0 else semaphore_try_acquire(
            &self.semaphore)

    def keep_queue(self):
        """Hold the lock of the word's queue until let_queue_go()."""
        with nogil:
            unpark_filter(<uintptr_t>self.address(), wake_nobody, stay, &self.stage)

    @property
    def queue_is_kept(self):
        return fs_i32_load(&self.stage) == 1

    def let_queue_go(self):
        fs_i32_store(&self.stage, 2)
