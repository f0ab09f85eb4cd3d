"""Sums by key: one hash table for all kinds, which grows and is emptied as a whole.

It belongs to the one thread that adds up: see contention.pyx.
"""
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

cdef enum:
    FEWEST = 1024

cdef fs_sum** chains = NULL
cdef size_t chain_count = 0     # a power of two
cdef size_t sum_count = 0


cdef inline uint64_t hash_of(const fs_key* key) noexcept:
    # All bytes of a key are set: there is no padding between its members, see sum_of().
    cdef const uint64_t* words = <const uint64_t*>key
    cdef uint64_t hash = 0
    cdef size_t i
    for i in range(sizeof(fs_key) // 8):
        hash = (hash ^ words[i]) * <uint64_t>0x9E3779B97F4A7C15u
        hash ^= hash >> 29
    return hash


cdef void grow() noexcept:
    global chains, chain_count
    cdef size_t wanted = max(<size_t>FEWEST, 2 * chain_count)
    cdef fs_sum** wider = <fs_sum**>calloc(wanted, sizeof(fs_sum*))
    cdef fs_sum* sum
    cdef fs_sum* next
    cdef size_t i
    if wider == NULL:
        return
    for i in range(chain_count):
        sum = chains[i]
        while sum != NULL:
            next = sum.next
            push(wider, wanted, sum)
            sum = next
    free(chains)
    chains = wider
    chain_count = wanted


cdef inline void push(fs_sum** to, size_t count, fs_sum* sum) noexcept:
    cdef fs_sum** chain = &to[hash_of(&sum.key) & (count - 1)]
    sum.next = chain[0]
    chain[0] = sum


cdef fs_sum* sum_of(const fs_key* key) noexcept:
    global sum_count
    cdef fs_sum* sum
    if sum_count >= chain_count:
        grow()
        if chain_count == 0:
            return NULL
    sum = chains[hash_of(key) & (chain_count - 1)]
    while sum != NULL and memcmp(&sum.key, key, sizeof(fs_key)) != 0:
        sum = sum.next
    if sum == NULL:
        sum = <fs_sum*>calloc(1, sizeof(fs_sum))
        if sum != NULL:
            sum.key = key[0]
            push(chains, chain_count, sum)
            sum_count += 1
    return sum


cdef fs_sum* sum_after(const fs_sum* sum) noexcept:
    cdef size_t i = 0
    if sum != NULL:
        if sum.next != NULL:
            return sum.next
        i = (hash_of(&sum.key) & (chain_count - 1)) + 1
    while i < chain_count and chains[i] == NULL:
        i += 1
    return chains[i] if i < chain_count else NULL


cdef void halve_slots() noexcept:
    global sum_count
    cdef fs_sum* moved = NULL
    cdef fs_sum* sum
    cdef fs_sum* into
    cdef fs_sum** link
    cdef size_t i
    for i in range(chain_count):
        link = &chains[i]
        while link[0] != NULL:
            sum = link[0]
            if sum.key.kind == FS_BY_TIME:
                link[0] = sum.next
                sum.next = moved
                moved = sum
                sum_count -= 1
            else:
                link = &sum.next
    while moved != NULL:
        sum = moved
        moved = sum.next
        sum.key.slot //= 2
        into = sum_of(&sum.key)
        if into != NULL:
            into.ns += sum.ns
        free(sum)


cdef void forget_sums() noexcept:
    global chains, chain_count, sum_count
    cdef fs_sum* sum
    cdef fs_sum* next
    cdef size_t i
    for i in range(chain_count):
        sum = chains[i]
        while sum != NULL:
            next = sum.next
            free(sum)
            sum = next
    free(chains)
    chains = NULL
    chain_count = sum_count = 0


cdef void abandon_sums() noexcept:
    global chains, chain_count, sum_count
    chains = NULL
    chain_count = sum_count = 0
