"""Sums by key: what the contention profile adds its waits up in.  No Python objects, no locks."""
from libc.stdint cimport int64_t, uint64_t

from fastsync._watch.origins cimport fs_stack

cdef enum:
    FS_OF_LOCK = 1     # of all waits for the lock; `longest` is kept
    FS_BY_DURATION     # slot: int(8 * log2(ns))
    FS_BY_TIME         # slot: of the time line
    FS_BY_WAITER       # the thread that waited, where
    FS_BY_PAIR         # that, and the thread that released, where

# What is added up; zero where a kind does not tell it apart.
cdef struct fs_key:
    int kind
    int way
    uint64_t lock           # the number of its Origin
    int64_t slot
    uint64_t holder
    uint64_t waiter
    const fs_stack* held
    const fs_stack* waited

cdef struct fs_sum:
    fs_key key
    double count
    double ns
    int64_t longest
    fs_sum* next

# The sum of this key, made if need be; NULL when memory is short.
cdef fs_sum* sum_of(const fs_key* key) noexcept
# The one after `sum` in no order, the first one for NULL; NULL when there is none.
cdef fs_sum* sum_after(const fs_sum* sum) noexcept
# Two slots of the time line become one.
cdef void halve_slots() noexcept
cdef void forget_sums() noexcept
# In the child of a fork made while another thread was at it: its memory is lost.
cdef void abandon_sums() noexcept
