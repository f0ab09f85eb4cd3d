# cython: language_level=3, freethreading_compatible=True
"""Words that pass between Cython and a C library, and odd arguments."""
from libc.stdint cimport int64_t, uint64_t, uintptr_t

from fastsync.objects.array cimport item_word  # these three only to be compiled, as C++ too
from fastsync.objects.atomics cimport AtomicI64, i64_word
from fastsync.objects.lock cimport lock_word
from fastsync.objects.mutex cimport Mutex, mutex_word
from fastsync.objects.once cimport once_word
from fastsync.objects.rwlock cimport RwLock, rwlock_word
from fastsync.words cimport (
    condvar_wait, deadline_after, fs_atomic_u32, fs_condvar, FS_FOREVER, fs_i64_fetch_add,
    fs_mutex, FS_PLAIN, fs_semaphore, FS_SIGNALS, FS_TOKEN_NORMAL, fs_u32_fetch_sub, fs_u32_load,
    fs_u32_store, fs_u32_wait, fs_unpark_result, mutex_lock, mutex_lock_until, mutex_try_lock,
    mutex_unlock, park, parked_count, semaphore_init, semaphore_max, semaphore_release,
    semaphore_set_value, semaphore_value, unpark_all, unpark_one, word_notify_all,
)

cdef extern from "clib.h" nogil:
    ctypedef struct clib_box:
        fs_mutex lock
        long value
    int fastsync_import() except -1
    void clib_add(clib_box*, long)
    bint clib_try_lock(fs_mutex*)
    void clib_noted(fs_unpark_result*, size_t*)

fastsync_import()

cdef clib_box box
cdef fs_mutex lock
cdef fs_condvar changed


def add(long amount, int times):
    """To the library's box, in turn by its function and under its lock, taken here."""
    cdef int i
    with nogil:
        for i in range(times):
            if i % 2:
                clib_add(&box, amount)
            else:
                mutex_lock(&box.lock)
                box.value += amount
                mutex_unlock(&box.lock)
    return box.value


def lock_there_unlock_here():
    return clib_try_lock(&lock), clib_try_lock(&lock), mutex_unlock(&lock), mutex_unlock(&lock)


cdef uintptr_t noted(void* woken, fs_unpark_result* result) noexcept nogil:
    clib_noted(result, <size_t*>woken)
    return FS_TOKEN_NORMAL


def wake_nobody():
    cdef size_t woken = 9
    unpark_one(<uintptr_t>&lock, noted, &woken)
    return woken


def wait_without_a_thread_state(int64_t ns):
    """FS_SIGNALS where no handler can run: as FS_PLAIN."""
    cdef int locked, notified
    mutex_lock(&lock)
    with nogil:
        locked = mutex_lock_until(&lock, deadline_after(ns), FS_SIGNALS)
        notified = condvar_wait(&changed, &lock, deadline_after(ns), FS_SIGNALS)
    return locked, notified, mutex_unlock(&lock)


def words_of_none():
    cdef Mutex mutex = None
    cdef RwLock rwlock = None
    cdef AtomicI64 atomic = None
    return (mutex_word(mutex) == NULL, rwlock_word(rwlock) == NULL, i64_word(atomic) == NULL)


def semaphore_edges():
    """No value beyond semaphore_max()."""
    cdef fs_semaphore s
    cdef uint64_t most = <uint64_t>-1
    semaphore_init(&s, most)
    seen = [semaphore_value(&s) == semaphore_max(), semaphore_release(&s, 1, most)]
    semaphore_set_value(&s, 5)
    seen += [semaphore_release(&s, <uint64_t>1 << 63, most), semaphore_value(&s)]
    semaphore_set_value(&s, most)
    return [*seen, semaphore_value(&s) == semaphore_max()]


# The latch of docs/cython-api.md.
cdef fs_atomic_u32 count


cdef bint still_shut(void* latch) noexcept nogil:   # validate: under the bucket lock
    return fs_u32_load(<fs_atomic_u32*>latch) != 0

cdef void latch_wait(fs_atomic_u32* latch) noexcept nogil:
    while still_shut(latch):
        park(<uintptr_t>latch, still_shut, NULL, NULL, latch, 0, FS_FOREVER, FS_PLAIN, NULL)

cdef void latch_count_down(fs_atomic_u32* latch) noexcept nogil:
    if fs_u32_fetch_sub(latch, 1) == 1:             # the word first, then the waiters
        unpark_all(<uintptr_t>latch, FS_TOKEN_NORMAL)


def begin(int parties):
    fs_u32_store(&count, parties)


def meet():
    with nogil:
        latch_count_down(&count)
        latch_wait(&count)
    return fs_u32_load(&count)


def wait_while(uint64_t expected):
    cdef int outcome
    with nogil:
        outcome = fs_u32_wait(&count, <unsigned int>expected, FS_FOREVER, FS_PLAIN)
    return outcome


def waiting():
    return parked_count(<uintptr_t>&count)


def change(uint64_t value):
    """How many that woke."""
    cdef size_t woken
    with nogil:
        fs_u32_store(&count, <unsigned int>value)
        woken = word_notify_all(&count)
    return woken
