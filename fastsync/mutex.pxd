"""Mutexes that own what they protect, for Cython code that is handed one."""
from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from cpython.object cimport PyObject

from fastsync.c_atomic cimport fs_atomic_u32, fs_atomic_uptr
from fastsync.locks cimport fs_condvar, fs_mutex, fs_remutex
from fastsync.slots cimport fs_call


# Which `with` statement a guard came from, to tell at its end whose it is: two
# numbers from fs_running; `frame` 0 for none.  Of a ReentrantMutex also which of
# its blocks it was: one function may be in several.
cdef struct fs_block:
    uintptr_t frame
    uintptr_t thread
    uint64_t serial

# Blocks that are still open, but whose guards have ended: leaving them must
# let nobody else's hold go.
cdef struct fs_ended:
    fs_block block
    fs_ended* next

cdef struct fs_ended_list:
    fs_mutex lock
    fs_atomic_u32 count        # written under the lock
    fs_ended* first


cdef class _Mutex:
    cdef fs_call call          # what `with` calls: see slots.pyx
    cdef object __weakref__
    cdef fs_mutex word
    cdef bint fair
    cdef fs_atomic_uptr owner  # the live guard: see mutex.pyx
    cdef fs_atomic_uptr frame  # the block that its guard came from
    cdef fs_atomic_uptr thread
    cdef fs_atomic_uptr spare  # a dead guard's memory
    cdef fs_ended_list ended
    cdef object value


cdef class Mutex(_Mutex):
    pass


cdef class FairMutex(_Mutex):
    pass


cdef class MutexGuard:
    cdef fs_call call
    cdef PyObject* mutex       # a _Mutex, owned


cdef class ReentrantMutex:
    cdef fs_call call
    cdef object __weakref__
    cdef fs_remutex word
    cdef uint32_t leaked         # levels whose guards were leaked
    cdef fs_atomic_u32 orphans   # levels whose guards other threads dropped
    cdef PyObject* entered       # the innermost guard that a `with` holds, owned
    cdef uint64_t blocks         # how many have been entered
    cdef fs_ended_list ended
    cdef object value


cdef class ReentrantMutexGuard:
    cdef fs_call call
    cdef PyObject* mutex         # a ReentrantMutex, owned
    cdef bint live               # of the owning thread's
    cdef fs_block block
    cdef PyObject* outer         # the next `entered` of the mutex


cdef class MappedMutexGuard:
    cdef fs_call call
    cdef object mutex            # a _Mutex or a ReentrantMutex
    cdef object part
    cdef bint live               # on a ReentrantMutex: of the owning thread's


cdef class Condvar:
    cdef object __weakref__
    cdef fs_condvar word


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


cdef inline fs_remutex* reentrant_mutex_word(ReentrantMutex m) noexcept nogil:
    if m is None:
        return NULL
    return &m.word


cdef inline fs_condvar* condvar_word(Condvar c) noexcept nogil:
    if c is None:
        return NULL
    return &c.word
