"""Mutex and FairMutex, which own what they protect, for Cython code that is handed one."""
from libc.stdint cimport int64_t, uint32_t, uint8_t, uintptr_t
from cpython.object cimport PyObject

from fastsync._watch.contention cimport fs_take
from fastsync.objects._slots cimport fs_call
from fastsync.objects.guards cimport _MappedWriting, _Owner, _Writing, here
from fastsync.raw.c_atomic cimport fs_atomic_uptr, fs_u8_cas_release
from fastsync.raw.mutex cimport (
    fs_mutex, FS_MUTEX_LOCKED, mutex_lock_until, mutex_marked, mutex_unlock_slow,
)
from fastsync.raw.parking cimport FS_SIGNALS


# What the guards of a ReentrantMutex, mapped or not, know of their hold: see reentrant.pyx.
# Written by the thread that holds the mutex.
cdef struct fs_levels:
    uint32_t count             # how many levels of the mutex are this guard's
    unsigned char process      # the mark of the process
    uintptr_t thread           # which thread's levels


cdef class _Mutex(_Owner):
    cdef fs_call call          # what `with` calls: see _slots.pyx
    cdef fs_mutex word
    cdef bint fair
    cdef fs_atomic_uptr thread # which thread made the hold; 0 where no guard has it yet
    cdef fs_atomic_uptr block  # the guard of the `with` block that holds it, owned
    cdef fs_atomic_uptr spare  # a dead guard's memory
    cdef PyObject* next_guard  # the same, for the next block: the thread's that holds the mutex


cdef class Mutex(_Mutex):
    pass


cdef class FairMutex(_Mutex):
    pass


cdef class MutexGuard(_Writing):
    pass


cdef class MappedMutexGuard(_MappedWriting):
    cdef fs_levels levels      # on a ReentrantMutex


# The words inside, to be locked in nogil code against Python threads.  A hold
# taken there has no guard; it ends there.
cdef inline fs_mutex* mutex_word(Mutex m) noexcept nogil:
    if m is None:
        return NULL
    return &m.word


cdef inline fs_mutex* fair_mutex_word(FairMutex m) noexcept nogil:
    if m is None:
        return NULL
    return &m.word


# -- between the modules of this package; not for others ---------------------

cdef inline int take_word(void* mutex, int64_t deadline) noexcept:
    """Lock an fs_mutex for a guard."""
    return mutex_lock_until(<fs_mutex*>mutex, deadline, mutex_marked(FS_SIGNALS, here))


cdef inline void unlock_word(fs_mutex* word, bint fair) noexcept:
    """Unlock what was locked for a guard."""
    cdef uint8_t held = FS_MUTEX_LOCKED | here
    # release: pairs with the acquire of the next owner
    if not fs_u8_cas_release(&word.state, &held, 0):
        mutex_unlock_slow(word, fair)


# take(mutex), though signal handlers raise: they run meanwhile, and what the first of them
# raised is set in the end.
cdef int take_surely(fs_take take, void* mutex) noexcept
# Make this thread the owner of a hold that no guard of this process has; the mark that it
# had.  `owner` says which thread has it, where that can be the one that forked.
cdef int take_over(fs_mutex* word, const fs_atomic_uptr* owner) except -1
# The mutex, which `guard` had lent, is locked again.  False when the guard is dead.
cdef bint hold_again(_Mutex m, MutexGuard guard, bint block) noexcept
cdef MappedMutexGuard new_mapped_guard(_Owner lock)
