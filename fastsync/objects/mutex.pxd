"""Mutexes that own what they protect, for Cython code that is handed one."""
from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from cpython.object cimport PyObject

from fastsync.objects._slots cimport fs_call
from fastsync.raw.c_atomic cimport fs_atomic_u32, fs_atomic_u8, fs_atomic_uptr
from fastsync.raw.condvar cimport fs_condvar
from fastsync.raw.mutex cimport fs_mutex
from fastsync.raw.remutex cimport fs_remutex


# What a guard of a Mutex or FairMutex knows of its hold: see mutex.pyx.
cdef struct fs_life:
    fs_atomic_u8 life
    fs_atomic_u8 mark          # of the process that it holds the mutex in


# The same of a ReentrantMutex.  Written by the thread that holds the mutex.
cdef struct fs_levels:
    uint32_t count             # how many levels of the mutex are this guard's
    unsigned char mark
    uintptr_t thread           # which thread's levels


cdef class _Mutex:
    cdef fs_call call          # what `with` calls: see _slots.pyx
    cdef object __weakref__
    cdef fs_mutex word
    cdef bint fair
    cdef fs_atomic_uptr thread # which thread made the hold; 0 where no guard has it yet
    cdef fs_atomic_uptr block  # the guard of the `with` block that holds it, owned
    cdef fs_atomic_uptr spare  # a dead guard's memory
    cdef object value


cdef class Mutex(_Mutex):
    pass


cdef class FairMutex(_Mutex):
    pass


cdef class MutexGuard:
    cdef fs_call call
    cdef PyObject* mutex       # a _Mutex, owned
    cdef fs_life hold


cdef class ReentrantMutex:
    cdef fs_call call
    cdef object __weakref__
    cdef fs_remutex word
    cdef uint32_t guarded        # levels that guards have; the others are leaked or C code's
    cdef fs_atomic_u32 orphans   # those of them whose guards other threads dropped
    cdef PyObject* block         # the guard of the `with` blocks, owned
    cdef object value


cdef class ReentrantMutexGuard:
    cdef fs_call call
    cdef PyObject* mutex         # a ReentrantMutex, owned
    cdef fs_levels levels
    cdef bint of_block           # of `with` blocks, however many are open
    cdef fs_atomic_u8 left       # its own `with` ended while it had lent its level
    cdef PyObject* outer         # the next `block` of the mutex


cdef class MappedMutexGuard:
    cdef fs_call call
    cdef object mutex            # a _Mutex or a ReentrantMutex
    cdef object part
    cdef fs_life hold            # on a _Mutex
    cdef fs_levels levels        # on a ReentrantMutex


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
