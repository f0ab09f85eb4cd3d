"""Waiting for an atomic of any type to change: see word.pxd."""
from libc.stdint cimport int64_t, uint64_t, uintptr_t

from fastsync.raw.c_atomic_order cimport FS_SEQ_CST, fs_word_load
from fastsync.raw.c_wait cimport FS_FOREVER, fs_now
from fastsync.raw.parking cimport (
    FS_ACQUIRED, FS_ERROR, FS_PARK_INTERRUPTED, FS_SPIN, FS_TIMEOUT, FS_TOKEN_NORMAL, park,
    unpark_all, unpark_one,
)


cdef struct wait_call:
    void* word
    int kind
    uint64_t expected


cdef bint still_expected(void* ctx) noexcept nogil:
    cdef wait_call* call = <wait_call*>ctx
    return fs_word_load(call.word, call.kind, FS_SEQ_CST) == call.expected


cdef int word_wait(
    fs_word word, int kind, uint64_t expected, int order, int64_t deadline, int flags,
) noexcept nogil:
    """As described in word.pxd."""
    cdef wait_call call
    cdef int result
    call.word = word
    call.kind = kind
    call.expected = expected
    while True:
        if fs_word_load(word, kind, order) != expected:
            return FS_ACQUIRED
        if deadline == 0:
            return FS_TIMEOUT
        result = park(<uintptr_t>word, still_expected, NULL, NULL, &call, 0,
                      deadline, flags | FS_SPIN, NULL)
        if result == FS_PARK_INTERRUPTED:
            return FS_ERROR
        if deadline != FS_FOREVER and fs_now() >= deadline:
            deadline = 0  # look once more


cdef bint word_notify_one(fs_word word) noexcept nogil:
    return unpark_one(<uintptr_t>word, NULL, NULL) != 0


cdef size_t word_notify_all(fs_word word) noexcept nogil:
    return unpark_all(<uintptr_t>word, FS_TOKEN_NORMAL)
