# cython: language_level=3, freethreading_compatible=True
"""A bounded ring buffer, a striped hash map, a parallel loop, and a counter to share."""
from libc.stdint cimport int64_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc

from fastsync.words cimport (
    condvar_notify_one, condvar_wait, fs_atomic_i64, fs_condvar, FS_FOREVER,
    fs_i64_fetch_add_relaxed, fs_i64_store_relaxed, fs_mutex, FS_PLAIN, fs_rwlock, mutex_lock,
    mutex_unlock, rwlock_downgrade, rwlock_read, rwlock_unlock_read, rwlock_unlock_upgradable,
    rwlock_upgradable_read, rwlock_upgrade,
)


# -- bounded ring buffer: one mutex, two condition variables -------------------

cdef struct ring:
    fs_mutex mutex
    fs_condvar not_empty
    fs_condvar not_full
    size_t capacity
    size_t first
    size_t count
    int64_t* items


cdef void ring_put(ring* r, int64_t item) noexcept nogil:
    mutex_lock(&r.mutex)
    while r.count == r.capacity:
        condvar_wait(&r.not_full, &r.mutex, FS_FOREVER, FS_PLAIN)
    r.items[(r.first + r.count) % r.capacity] = item
    r.count += 1
    condvar_notify_one(&r.not_empty)
    mutex_unlock(&r.mutex)


cdef int64_t ring_get(ring* r) noexcept nogil:
    cdef int64_t item
    mutex_lock(&r.mutex)
    while r.count == 0:
        condvar_wait(&r.not_empty, &r.mutex, FS_FOREVER, FS_PLAIN)
    item = r.items[r.first]
    r.first = (r.first + 1) % r.capacity
    r.count -= 1
    condvar_notify_one(&r.not_full)
    mutex_unlock(&r.mutex)
    return item


cdef class RingBuffer:
    cdef ring r

    def __cinit__(self, size_t capacity):
        self.r.capacity = capacity
        self.r.items = <int64_t*>malloc(capacity * sizeof(int64_t))
        if self.r.items == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.r.items)

    def __len__(self):
        return self.r.count

    def put(self, int64_t item):
        """With the thread state attached: a wait drops it."""
        ring_put(&self.r, item)

    def get(self):
        return ring_get(&self.r)

    def put_many(self, int64_t first, int64_t count):
        cdef int64_t i
        with nogil:
            for i in range(first, first + count):
                ring_put(&self.r, i)

    def get_many(self, int64_t count):
        cdef int64_t total = 0
        cdef int64_t i
        with nogil:
            for i in range(count):
                total += ring_get(&self.r)
        return total


# -- striped hash map: a one-byte lock for every bucket ---------------------------

cdef struct node:
    uint64_t key
    int64_t value
    node* next


cdef class StripedMap:
    """Counts keys.  `buckets` is a power of two; so many locks there are."""
    cdef fs_mutex* locks
    cdef node** heads
    cdef size_t buckets

    def __cinit__(self, size_t buckets):
        self.buckets = buckets
        self.locks = <fs_mutex*>calloc(buckets, sizeof(fs_mutex))
        self.heads = <node**>calloc(buckets, sizeof(node*))
        if self.locks == NULL or self.heads == NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef size_t i
        cdef node* n
        if self.heads != NULL:
            for i in range(self.buckets):
                while self.heads[i] != NULL:
                    n = self.heads[i]
                    self.heads[i] = n.next
                    free(n)
        free(self.heads)
        free(self.locks)

    @property
    def lock_bytes(self):
        return self.buckets * sizeof(fs_mutex)

    cdef int add(self, uint64_t key) noexcept nogil:
        cdef size_t i = (key * <uint64_t>0x9E3779B97F4A7C15u >> 20) & (self.buckets - 1)
        cdef node* n
        mutex_lock(&self.locks[i])
        n = self.heads[i]
        while n != NULL and n.key != key:
            n = n.next
        if n == NULL:
            n = <node*>malloc(sizeof(node))
            if n != NULL:
                n.key = key
                n.value = 0
                n.next = self.heads[i]
                self.heads[i] = n
        if n != NULL:
            n.value += 1
        mutex_unlock(&self.locks[i])
        return 0 if n != NULL else -1

    def count_random(self, uint64_t seed, int64_t times, uint64_t keys):
        """Count `times` pseudo-random keys below `keys`."""
        cdef int failed = 0
        cdef int64_t i
        with nogil:
            for i in range(times):
                seed ^= seed << 13
                seed ^= seed >> 7
                seed ^= seed << 17
                failed |= self.add(seed % keys)
        if failed:
            raise MemoryError

    def totals(self):
        """Number of keys, and sum of their counts."""
        cdef int64_t keys = 0, values = 0
        cdef size_t i
        cdef node* n
        for i in range(self.buckets):
            n = self.heads[i]
            while n != NULL:
                keys += 1
                values += n.value
                n = n.next
        return keys, values


# -- a cache: many read, few write -----------------------------------------------

cdef struct entry:
    int64_t key
    int64_t value


cdef class Cache:
    """Squares of small numbers, computed by the first who asks; direct-mapped."""
    cdef fs_rwlock lock
    cdef entry entries[256]
    cdef fs_atomic_i64 missed

    cdef int64_t square(self, int64_t key) noexcept nogil:
        cdef entry* e = &self.entries[key & 255]
        cdef int64_t value
        rwlock_read(&self.lock)
        if e.key == key and e.value != 0:
            value = e.value
            rwlock_unlock_read(&self.lock)
            return value
        rwlock_unlock_read(&self.lock)
        # Nobody else writes between the look and the upgrade.
        rwlock_upgradable_read(&self.lock)
        if e.key == key and e.value != 0:
            value = e.value
            rwlock_unlock_upgradable(&self.lock)
            return value
        rwlock_upgrade(&self.lock)
        e.key = key
        e.value = value = key * key
        fs_i64_fetch_add_relaxed(&self.missed, 1)  # relaxed: only counted
        rwlock_downgrade(&self.lock)
        if e.key != key:
            value = -1  # another writer got in: downgrade is broken
        rwlock_unlock_read(&self.lock)
        return value

    def check_squares(self, uint64_t seed, int64_t times, int64_t keys):
        """Ask for `times` squares: how many were wrong."""
        cdef int64_t wrong = 0, i, key
        with nogil:
            for i in range(times):
                seed = seed * 6364136223846793005u + 1442695040888963407u
                key = 1 + <int64_t>((seed >> 33) % <uint64_t>keys)
                wrong += self.square(key) != key * key
        return wrong

    @property
    def misses(self):
        return fs_i64_fetch_add_relaxed(&self.missed, 0)


# -- parallel for: ranges with an atomic index, stolen from when one's own is done ---

cdef struct share:
    fs_atomic_i64 next
    int64_t end
    char padding[48]  # a share for each cache line


cdef class ParallelSum:
    """Sums f(i) for i below `n`: each worker takes chunks of its share, then of others'."""
    cdef share* shares
    cdef size_t workers

    def __cinit__(self, size_t workers, int64_t n):
        cdef size_t i
        self.workers = workers
        self.shares = <share*>calloc(workers, sizeof(share))
        if self.shares == NULL:
            raise MemoryError
        for i in range(workers):
            # relaxed: no worker has started
            fs_i64_store_relaxed(&self.shares[i].next, n * i // workers)
            self.shares[i].end = n * (i + 1) // workers

    def __dealloc__(self):
        free(self.shares)

    def work(self, size_t index, int64_t chunk):
        """Returns the sum of i*i over the indices that this worker got, and their number."""
        cdef int64_t total = 0, done = 0, start, stop, i
        cdef size_t offset
        cdef share* s
        with nogil:
            for offset in range(self.workers):
                s = &self.shares[(index + offset) % self.workers]
                while True:
                    # relaxed: the index gives every chunk to one worker and orders nothing
                    start = fs_i64_fetch_add_relaxed(&s.next, chunk)
                    if start >= s.end:
                        break
                    stop = min(start + chunk, s.end)
                    for i in range(start, stop):
                        total += i * i
                    done += stop - start
        return total, done


# -- a counter whose words other packages get -------------------------------------------

cdef struct counter:
    fs_mutex mutex
    int64_t value


cdef class SharedCounter:
    cdef counter c

    @property
    def value(self):
        return self.c.value

    @property
    def addresses(self):
        """Of the lock word and of the value, as integers."""
        return <uintptr_t>&self.c.mutex, <uintptr_t>&self.c.value

    def add(self, int64_t times):
        cdef int64_t i
        with nogil:
            for i in range(times):
                mutex_lock(&self.c.mutex)
                self.c.value += 1
                mutex_unlock(&self.c.mutex)


def counter_size():
    """A lock and a number in a struct: what the lock costs is padding that was there anyway."""
    return sizeof(counter)
