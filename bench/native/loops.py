"""Write loops.pyx: every case's loop, once for each contestant, so that each lock is inlined.

What differs between two contestants of a case is one entry of a table here; the loop around it
is the same text. rust/src/main.rs has the same loops for Rust's own primitives.
"""

import sys

HEAD = '''# Written by loops.py; do not edit.
cimport cython
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset
from fastsync.words cimport *

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_rwlock_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    int pthread_mutex_lock(pthread_mutex_t*)
    int pthread_mutex_unlock(pthread_mutex_t*)
    int pthread_rwlock_rdlock(pthread_rwlock_t*)
    int pthread_rwlock_wrlock(pthread_rwlock_t*)
    int pthread_rwlock_unlock(pthread_rwlock_t*)
    int pthread_cond_wait(pthread_cond_t*, pthread_mutex_t*)
    int pthread_cond_signal(pthread_cond_t*)
    int pthread_cond_broadcast(pthread_cond_t*)

cdef extern from "<stdlib.h>" nogil:
    void* aligned_alloc(size_t, size_t)

cdef extern from *:
    """
    #include <stdatomic.h>
    #include <fastsync/atomic.h>
    /* On lines of its own, as a test's words are. */
    static struct {{ _Alignas(128) fs_atomic_u8 value; char rest[127]; }} stopping;
    typedef struct {{ atomic_llong value; }} c11_i64;
    #if PY_VERSION_HEX < 0x030D0000
    typedef struct {{ char bits; }} PyMutex;
    #define PyMutex_Lock(m) abort()
    #define PyMutex_Unlock(m) abort()
    #endif
    """
    ctypedef struct PyMutex:
        pass
    void PyMutex_Lock(PyMutex*) nogil
    void PyMutex_Unlock(PyMutex*) nogil
    ctypedef struct c11_i64:
        long long value
    long long c11_load "atomic_load_explicit"(long long*, int) nogil
    long long c11_add "atomic_fetch_add_explicit"(long long*, long long, int) nogil
    bint c11_cas "atomic_compare_exchange_strong_explicit"(
        long long*, long long*, long long, int, int) nogil
    struct padded_flag:
        fs_atomic_u8 value
    padded_flag stopping
    int c11_relaxed "memory_order_relaxed"
    int c11_acquire "memory_order_acquire"
    int c11_acq_rel "memory_order_acq_rel"

# A test's words begin a pair of cache lines and share it with nobody, here and in Rust.
cdef enum:
    LINES = 128

cdef void* padded(size_t size) except NULL:
    cdef void* words = aligned_alloc(LINES, (size + LINES - 1) // LINES * LINES)
    if words == NULL:
        raise MemoryError
    return memset(words, 0, size)

def stop():
    fs_u8_store_relaxed(&stopping.value, 1)  # relaxed: read by loops that only count

def prepare():
    fs_u8_store_relaxed(&stopping.value, 0)

cdef inline bint stopped() noexcept nogil:
    return fs_u8_load_relaxed(&stopping.value)

# In registers on purpose, here and in Rust: one compiler would do it anyway, the other not.
cdef inline void multiply(int times, double* shared, double* carried) noexcept nogil:
    cdef double s = shared[0], c = carried[0]
    cdef int i
    for i in range(times):
        s += c
        s *= 1.01
        c = s
    shared[0] = s
    carried[0] = c

cdef class Cell:
    cdef double sink

'''

# A case's class: `{name}`, its word's type, and what enters and leaves.
LOCK_LOOP = """
cdef struct {name}_words:
    {type} lock
    double value

cdef class {name}(Cell):
    cdef {name}_words* s
    def __cinit__(self):
        self.s = <{name}_words*>padded(sizeof({name}_words))
    def __dealloc__(self):
        free(self.s)
    @cython.cdivision(True)
    def run(self, int index, int threads, int inside, int outside, bint clocked, int readers):
        cdef uint64_t count = 0
        cdef int64_t began, waited, longest = 0
        cdef double local = 0.0, carried = 1.0, seen = 0.0
        cdef bint reads = index < readers
        cdef int i
        cdef {name}_words* s = self.s
        with nogil:
            while not stopped():
                if clocked:
                    began = fs_now()
                if reads:
                    {read}
                    if clocked:
                        waited = fs_now() - began
                        longest = waited if waited > longest else longest
                    seen = 0.0
                    for i in range(inside):
                        seen += carried
                        seen *= s.value
                        carried = seen
                    {unread}
                else:
                    {lock}
                    if clocked:
                        waited = fs_now() - began
                        longest = waited if waited > longest else longest
                    multiply(inside, &s.value, &carried)
                    {unlock}
                multiply(outside, &local, &carried)
                count += 1
        self.sink = local + carried
        return count, longest
"""

# cython.pymutex cannot be a member of a struct.
PYMUTEX_LOOP = """
cdef class mutex_cython_pymutex(Cell):
    cdef char before[300]
    cdef cython.pymutex lock
    cdef double value
    cdef char after[300]
    def run(self, int index, int threads, int inside, int outside, bint clocked, int readers):
        cdef uint64_t count = 0
        cdef int64_t began, waited, longest = 0
        cdef double local = 0.0, carried = 1.0
        with nogil:
            while not stopped():
                if clocked:
                    began = fs_now()
                with self.lock:
                    if clocked:
                        waited = fs_now() - began
                        longest = waited if waited > longest else longest
                    multiply(inside, &self.value, &carried)
                multiply(outside, &local, &carried)
                count += 1
        self.sink = local + carried
        return count, longest
"""

# Threads in a ring: each waits for its turn, then gives it to the next.
CONDVAR_LOOP = """
cdef struct {name}_words:
    {type} lock
    size_t turn
    {condvar} changed[8]

cdef class {name}(Cell):
    cdef {name}_words* s
    def __cinit__(self):
        self.s = <{name}_words*>padded(sizeof({name}_words))
    def __dealloc__(self):
        free(self.s)
    @cython.cdivision(True)
    def run(self, size_t index, size_t threads, int inside, int outside, bint clocked, int readers):
        cdef uint64_t count = 0
        cdef {name}_words* s = self.s
        with nogil:
            {lock}
            while not stopped():
                while s.turn != index and not stopped():
                    {wait}
                s.turn = (index + 1) % threads
                {notify}
                count += 1
            {notify}
            {unlock}
        return count, 0
"""

# What does not block: one step until the time is up.
STEP_LOOP = """
cdef struct {name}_words:
    {type} word
    int64_t runs

cdef int {name}_first(void* ctx) noexcept nogil:
    (<{name}_words*>ctx).runs += 1
    return 0

cdef class {name}(Cell):
    cdef {name}_words* s
    def __cinit__(self):
        self.s = <{name}_words*>padded(sizeof({name}_words))
    def __dealloc__(self):
        free(self.s)
    def run(self, int index, int threads, int inside, int outside, bint clocked, int readers):
        cdef uint64_t count = 0
        cdef int64_t seen = 0
        cdef long long seen_ll = 0
        cdef {name}_words* s = self.s
        with nogil:
            while not stopped():
                {step}
                count += 1
        self.sink = seen + seen_ll
        return count, 0
"""

# All threads call each once of a block; the last one there makes the block new.
ONCE_LOOP = """
cdef struct {name}_words:
    fs_atomic_i64 arrived
    fs_atomic_i64 round
    bint over
    double value
    {type} block[4096]

cdef int {name}_first(void* ctx) noexcept nogil:
    cdef double carried = 1.0
    multiply(20, <double*>ctx, &carried)
    return 0

cdef class {name}(Cell):
    cdef {name}_words* s
    def __cinit__(self):
        self.s = <{name}_words*>padded(sizeof({name}_words))
    def __dealloc__(self):
        free(self.s)
    def run(self, int index, int threads, int inside, int outside, bint clocked, int readers):
        cdef uint64_t count = 0
        cdef int64_t round = 0
        cdef int i
        cdef {name}_words* s = self.s
        with nogil:
            while not s.over:
                for i in range(4096):
                    {call}
                count += 4096
                round += 1
                if fs_i64_fetch_add(&s.arrived, 1) == threads - 1:
                    memset(s.block, 0, sizeof(s.block))
                    s.over = stopped()
                    fs_i64_store_relaxed(&s.arrived, 0)
                    fs_i64_fetch_add(&s.round, 1)
                while fs_i64_load(&s.round) != round:
                    fs_yield()
        return count, 0
"""

MUTEXES = {
    "fastsync": ("fs_mutex", "mutex_lock(&s.lock)", "mutex_unlock(&s.lock)"),
    "fastsync_fair": ("fs_mutex", "mutex_lock(&s.lock)", "mutex_unlock_fair(&s.lock)"),
    "pthread": ("pthread_mutex_t", "pthread_mutex_lock(&s.lock)", "pthread_mutex_unlock(&s.lock)"),
}
if sys.version_info >= (3, 13):
    MUTEXES["PyMutex"] = ("PyMutex", "PyMutex_Lock(&s.lock)", "PyMutex_Unlock(&s.lock)")

RWLOCKS = {
    "fastsync": (
        "fs_rwlock",
        "rwlock_write(&s.lock)",
        "rwlock_unlock_write(&s.lock)",
        "rwlock_read(&s.lock)",
        "rwlock_unlock_read(&s.lock)",
    ),
    "pthread": (
        "pthread_rwlock_t",
        "pthread_rwlock_wrlock(&s.lock)",
        "pthread_rwlock_unlock(&s.lock)",
        "pthread_rwlock_rdlock(&s.lock)",
        "pthread_rwlock_unlock(&s.lock)",
    ),
}

CONDVARS = {
    "fastsync": (
        "fs_mutex",
        "fs_condvar",
        "mutex_lock(&s.lock)",
        "mutex_unlock(&s.lock)",
        "condvar_wait(&s.changed[{mine}], &s.lock, FS_FOREVER, FS_PLAIN)",
        "condvar_notify_{how}(&s.changed[{next}])",
    ),
    "pthread": (
        "pthread_mutex_t",
        "pthread_cond_t",
        "pthread_mutex_lock(&s.lock)",
        "pthread_mutex_unlock(&s.lock)",
        "pthread_cond_wait(&s.changed[{mine}], &s.lock)",
        "pthread_cond_{signal}(&s.changed[{next}])",
    ),
}

# One condition variable for all threads, or one for each.
RINGS = {
    "condvar": {"mine": "0", "next": "0", "how": "all", "signal": "broadcast"},
    "condvar_one": {
        "mine": "index",
        "next": "(index + 1) % threads",
        "how": "one",
        "signal": "signal",
    },
}

STEPS = {
    "once_fastsync": ("fs_once", "once_call(&s.word, once_fastsync_first, s)"),
    "load_fastsync": ("fs_atomic_i64", "seen = fs_i64_load_acquire(&s.word)"),
    "load_C11": ("c11_i64", "seen_ll = c11_load(&s.word.value, c11_acquire)"),
    "fetch_add_fastsync": ("fs_atomic_i64", "seen = fs_i64_fetch_add_relaxed(&s.word, 1)"),
    "fetch_add_C11": ("c11_i64", "seen_ll = c11_add(&s.word.value, 1, c11_relaxed)"),
    "cas_fastsync": (
        "fs_atomic_i64",
        """seen = fs_i64_load_relaxed(&s.word)
                while not fs_i64_cas_acquire(&s.word, &seen, seen + 1):
                    pass""",
    ),
    "cas_C11": (
        "c11_i64",
        """seen_ll = c11_load(&s.word.value, c11_relaxed)
                while not c11_cas(&s.word.value, &seen_ll, seen_ll + 1, c11_acq_rel, c11_relaxed):
                    pass""",
    ),
}


def source():
    """Give the text of loops.pyx."""
    parts = [HEAD.format()]
    for name, (type_, lock, unlock) in MUTEXES.items():
        words = {"type": type_, "lock": lock, "unlock": unlock, "read": "pass", "unread": "pass"}
        parts.append(LOCK_LOOP.format(name=f"mutex_{name}", **words))
    parts.append(PYMUTEX_LOOP)
    for name, (type_, lock, unlock, read, unread) in RWLOCKS.items():
        words = {"type": type_, "lock": lock, "unlock": unlock, "read": read, "unread": unread}
        parts.append(LOCK_LOOP.format(name=f"rwlock_{name}", **words))
    for name, (type_, condvar, lock, unlock, wait, notify) in CONDVARS.items():
        words = {"type": type_, "condvar": condvar, "lock": lock, "unlock": unlock}
        for ring, uses in RINGS.items():
            words |= {"wait": wait.format(**uses), "notify": notify.format(**uses)}
            parts.append(CONDVAR_LOOP.format(name=f"{ring}_{name}", **words))
    for name, (type_, step) in STEPS.items():
        parts.append(STEP_LOOP.format(name=name, type=type_, step=step))
    call = "once_call(&s.block[i], once_race_fastsync_first, &s.value)"
    parts.append(ONCE_LOOP.format(name="once_race_fastsync", type="fs_once", call=call))
    return "".join(parts)
