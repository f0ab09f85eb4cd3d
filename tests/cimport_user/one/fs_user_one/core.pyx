# cython: language_level=3, freethreading_compatible=True
"""A primitive of one's own on the parking table: a semaphore that wakes in order.

`value` counts free units when positive, and waiting threads when negative.
"""
from libc.stdint cimport int64_t, uintptr_t

from fastsync.words cimport (
    deadline_after, fs_atomic_i64, fs_atomic_uptr, fs_fence, FS_FIRST, FS_FOREVER, FS_I64,
    fs_i64_fetch_add, fs_i64_fetch_add_relaxed, fs_i64_load, fs_i64_load_relaxed, fs_i64_store,
    fs_i64_store_relaxed, fs_now, FS_PARK_INVALID, FS_PARK_TIMED_OUT, FS_PARK_UNPARKED, FS_PLAIN,
    FS_REQUEUE_ABORT, FS_REQUEUE_ALL, FS_REQUEUE_UNPARK_ONE_REST, FS_SEQ_CST, FS_SKIP, FS_STOP,
    FS_UNPARK, fs_unpark_result, fs_uptr_load_acquire, fs_uptr_store_release, fs_word_load,
    fs_word_store, fs_yield, park, parked_count, unpark_all, unpark_filter, unpark_one,
    unpark_requeue,
)


cdef int note_first(void* ctx, uintptr_t park_token) noexcept nogil:
    (<uintptr_t*>ctx)[0] = park_token
    return FS_STOP


cdef class Latch:
    """Threads run through down() and say so; the test lets them through with up()."""
    cdef fs_atomic_i64 value
    cdef fs_atomic_i64 awake
    cdef fs_atomic_uptr last   # the number of the thread that ran last, from 1

    cdef void down(self, uintptr_t number) noexcept nogil:
        cdef uintptr_t token
        # relaxed: park() and unpark order the rest
        if fs_i64_fetch_add_relaxed(&self.value, -1) <= 0:
            park(<uintptr_t>&self.value, NULL, NULL, NULL, NULL, number, FS_FOREVER, FS_PLAIN,
                 &token)

    cdef void up(self) noexcept nogil:
        # relaxed: as above.  A thread that has counted itself may not be parked yet.
        if fs_i64_fetch_add_relaxed(&self.value, 1) < 0:
            while unpark_one(<uintptr_t>&self.value, NULL, NULL) == 0:
                fs_yield()

    cdef void pass_through(self, uintptr_t number) noexcept nogil:
        self.down(number)
        fs_uptr_store_release(&self.last, number)  # release: pairs with the load in wake_one
        fs_i64_fetch_add_relaxed(&self.awake, 1)   # relaxed: only counted

    def run(self, uintptr_t number, bint attached):
        if attached:
            self.pass_through(number)
        else:
            with nogil:
                self.pass_through(number)

    def parked(self):
        return parked_count(<uintptr_t>&self.value)

    def wake_one(self):
        """Wake one thread: the first in the queue before, and who ran (0: nobody was queued)."""
        cdef uintptr_t first = 0
        cdef int64_t before
        cdef uintptr_t ran
        with nogil:
            unpark_filter(<uintptr_t>&self.value, note_first, NULL, &first)
            before = fs_i64_load(&self.awake)
            self.up()
            while fs_i64_load(&self.awake) != before + 1:
                fs_yield()
            # acquire: pairs with the release in pass_through
            ran = fs_uptr_load_acquire(&self.last)
        return first, ran

    def wake_all(self):
        """Wake who is parked: how many were seen before, and how many woke."""
        cdef size_t seen, woken
        cdef int64_t before
        with nogil:
            seen = parked_count(<uintptr_t>&self.value)
            before = fs_i64_load(&self.awake)
            woken = unpark_all(<uintptr_t>&self.value, 0)
            while fs_i64_load(&self.awake) != before + <int64_t>woken:
                fs_yield()
        return seen, woken

    @property
    def ran(self):
        return fs_i64_load(&self.awake)


# -- the other operations, one at a time -----------------------------------------------

cdef bint refuse(void* ctx) noexcept nogil:
    return False


cdef int odd_ones(void* ctx, uintptr_t park_token) noexcept nogil:
    return FS_UNPARK if park_token % 2 else FS_SKIP


cdef uintptr_t count_result(void* ctx, fs_unpark_result* result) noexcept nogil:
    (<fs_unpark_result*>ctx)[0] = result[0]
    return 77


cdef int move_all(void* ctx) noexcept nogil:
    return FS_REQUEUE_ALL


cdef int wake_first(void* ctx) noexcept nogil:
    return FS_REQUEUE_UNPARK_ONE_REST


cdef int move_nobody(void* ctx) noexcept nogil:
    return FS_REQUEUE_ABORT


cdef int move_all_when_it_is_late(void* ctx) noexcept nogil:
    """In a while: who gives up meanwhile waits for the locks that this holds."""
    while fs_now() < (<int64_t*>ctx)[0]:
        fs_yield()
    return FS_REQUEUE_ALL


cdef class Queue:
    """Two keys to park on."""
    cdef char keys[2]

    def park(self, int key, uintptr_t number, int64_t ns):
        """What park() answered and the token that it got; `ns` < 0 waits for ever."""
        cdef uintptr_t token = 0
        cdef int result
        with nogil:
            result = park(<uintptr_t>&self.keys[key], NULL, NULL, NULL, NULL, number,
                          FS_FOREVER if ns < 0 else deadline_after(ns), FS_PLAIN, &token)
        return result, token

    def park_refused(self):
        return park(<uintptr_t>&self.keys[0], refuse, NULL, NULL, NULL, 0, FS_FOREVER, FS_PLAIN,
                    NULL)

    def parked(self, int key):
        return parked_count(<uintptr_t>&self.keys[key])

    def wake_odd(self, int key):
        cdef fs_unpark_result result
        unpark_filter(<uintptr_t>&self.keys[key], odd_ones, count_result, &result)
        return result.unparked, result.have_more

    def wake_all(self, int key, uintptr_t token):
        return unpark_all(<uintptr_t>&self.keys[key], token)

    def move(self, size_t limit, bint wake):
        """From key 0 to key 1."""
        cdef fs_unpark_result result
        unpark_requeue(<uintptr_t>&self.keys[0], <uintptr_t>&self.keys[1], limit,
                       wake_first if wake else move_all, count_result, &result)
        return result.unparked, result.requeued, result.have_more

    def move_nobody(self):
        """How many moved, and whether anything was said of it."""
        cdef fs_unpark_result result
        result.unparked = 99
        count = unpark_requeue(<uintptr_t>&self.keys[0], <uintptr_t>&self.keys[1], 9, move_nobody,
                               count_result, &result)
        return count, result.unparked != 99

    def move_late(self, int64_t ns):
        """From key 0 to key 1, `ns` after the locks of both have been taken."""
        cdef int64_t late
        cdef size_t moved
        with nogil:
            late = fs_now() + ns
            moved = unpark_requeue(<uintptr_t>&self.keys[0], <uintptr_t>&self.keys[1], 9,
                                   move_all_when_it_is_late, NULL, &late)
        return moved


cdef class Block:
    """So many keys that some of them share a bucket."""
    cdef char keys[1 << 14]

    @property
    def address(self):
        return <uintptr_t>self.keys

    def park(self, int key, uintptr_t number, int64_t ns, bint first):
        """As Queue.park()."""
        cdef uintptr_t token = 0
        cdef int result
        with nogil:
            result = park(<uintptr_t>&self.keys[key], NULL, NULL, NULL, NULL, number,
                          FS_FOREVER if ns < 0 else deadline_after(ns),
                          FS_FIRST if first else FS_PLAIN, &token)
        return result, token

    def parked(self, int key):
        return parked_count(<uintptr_t>&self.keys[key])

    def wake_one(self, int key):
        """Whether more are parked."""
        cdef fs_unpark_result result
        unpark_one(<uintptr_t>&self.keys[key], count_result, &result)
        return result.have_more

    def wake_all(self, int key):
        return unpark_all(<uintptr_t>&self.keys[key], 77)

    def move(self, int source, int target, size_t limit, int times):
        with nogil:
            for _ in range(times):
                unpark_requeue(<uintptr_t>&self.keys[source], <uintptr_t>&self.keys[target],
                               limit, move_all, NULL, NULL)


cdef class StoreBuffer:
    """Two threads that meet, then each store to a word and load the other's: with one order
    of all seq_cst operations, one of them at least sees what the other stored."""
    cdef fs_atomic_i64 words[2][16]  # each on cache lines of its own
    cdef fs_atomic_i64 unseen[2][16]
    cdef fs_atomic_i64 arrived
    cdef fs_atomic_i64 last          # the round after which to stop; 0: not yet

    cdef void meet(self, int64_t all_here) noexcept nogil:
        cdef int looks = 0
        fs_i64_fetch_add(&self.arrived, 1)
        while fs_i64_load(&self.arrived) < all_here:
            looks += 1
            if looks % 1000 == 0:
                fs_yield()

    def run(self, int me, double seconds, str how):
        """How many rounds, and in how many of them neither saw the other's store."""
        cdef int64_t round = 0, wrong = 0, end = fs_now() + <int64_t>(seconds * 1e9)
        cdef fs_atomic_i64* mine = &self.words[me][0]
        cdef fs_atomic_i64* other = &self.words[1 - me][0]
        cdef int64_t seen
        cdef bint generic = how == "generic"
        cdef bint fenced = how == "fenced"
        with nogil:
            while fs_i64_load(&self.last) == 0:
                round += 1
                self.meet(4 * round - 2)
                if generic:
                    fs_word_store(mine, FS_I64, round, FS_SEQ_CST)
                    seen = <int64_t>fs_word_load(other, FS_I64, FS_SEQ_CST)
                elif fenced:
                    # relaxed: the fence orders them
                    fs_i64_store_relaxed(mine, round)
                    fs_fence(FS_SEQ_CST)
                    seen = fs_i64_load_relaxed(other)
                else:
                    fs_i64_store(mine, round)
                    seen = fs_i64_load(other)
                if seen < round:
                    fs_i64_store(&self.unseen[me][0], round)
                if me == 0 and fs_now() > end:
                    fs_i64_store(&self.last, round)
                self.meet(4 * round)
                wrong += (fs_i64_load(&self.unseen[0][0]) == round
                          and fs_i64_load(&self.unseen[1][0]) == round)
        return round, wrong


UNPARKED = FS_PARK_UNPARKED
INVALID = FS_PARK_INVALID
TIMED_OUT = FS_PARK_TIMED_OUT
