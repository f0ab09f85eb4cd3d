# Extern declarations of include/fastsync/thread_index.h; no logic.
from libc.stdint cimport uint32_t


cdef extern from "fastsync/thread_index.h" nogil:
    uint32_t fs_thread_index() noexcept
