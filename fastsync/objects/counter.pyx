"""Counter: a sum that many threads add to without meeting."""
cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t
from cpython.long cimport PyLong_FromLongLong
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from cpython.object cimport PyObject

from fastsync.objects._kinds cimport quick_bits, to_bits
from fastsync.objects._slots cimport publish
from fastsync.raw cimport c_version  # so that versions are compared
from fastsync.raw.c_atomic cimport fs_atomic_i64
from fastsync.raw.c_atomic_order cimport (
    FS_I64, fs_i64_exchange_order, fs_i64_fetch_add_order, fs_i64_load_order, FS_RELAXED,
)
from fastsync.raw.c_thread_index cimport fs_thread_index

from fastsync.objects._pin import register_pinnable


# A power of two of cells, each on a cache line of its own; a thread adds to the
# cell of its number.  The value is the sum, modulo 2^64.  No cell orders
# anything: every access is relaxed, because a counter publishes no other data.

cdef enum:
    CACHE_LINE = 64
    # Threads numbered one after the other get different cells up to this many.
    # Fewer would make two busy threads of a small pool meet, more cost memory.
    FEWEST_CELLS = 8
    MOST_CELLS = 128


cdef uint32_t cell_count() except 0:
    """Twice the processors, as a power of two, within the bounds above."""
    import os
    cdef uint32_t wanted = 2 * (os.cpu_count() or 1)
    cdef uint32_t count = FEWEST_CELLS
    while count < wanted and count < MOST_CELLS:
        count *= 2
    return count


cdef uint32_t CELLS = cell_count()


@cython.final
cdef class Counter:
    """Counter()
--

    A sum that many threads add to at full speed, as Java's LongAdder.

    Each thread adds to a cell of its own, so that threads do not slow each other down, and
    `value()` adds the cells up: for statistics, where writing is frequent and reading rare.
    The sum wraps at 64 bits, signed. Additions order nothing (relaxed).
    """

    def __cinit__(self):
        cdef uintptr_t start
        self.memory = PyMem_RawCalloc(CELLS + 1, CACHE_LINE)
        if self.memory == NULL:
            raise MemoryError
        start = (<uintptr_t>self.memory + CACHE_LINE - 1) & ~<uintptr_t>(CACHE_LINE - 1)
        self.cells = <char*>start

    def __init__(self):
        pass

    def __dealloc__(self):
        PyMem_RawFree(self.memory)

    def add(self, n, /):
        """Add the integer `n`. OverflowError when it does not fit 64 bits, signed."""
        counter_add(self, n)

    def increment(self):
        """Add 1."""
        fs_i64_fetch_add_order(counter_cell(self), 1, FS_RELAXED)

    def value(self):
        """Return the sum. Additions under way may be in it or not."""
        cdef uint64_t total = 0
        cdef uint32_t i
        for i in range(CELLS):
            total += <uint64_t>fs_i64_load_order(cell_at(self, i), FS_RELAXED)
        return PyLong_FromLongLong(<int64_t>total)

    def reset(self):
        """Set the sum to 0 and return what it was; no addition is lost between the two."""
        cdef uint64_t total = 0
        cdef uint32_t i
        for i in range(CELLS):
            total += <uint64_t>fs_i64_exchange_order(cell_at(self, i), 0, FS_RELAXED)
        return PyLong_FromLongLong(<int64_t>total)

    def __iadd__(self, n):
        counter_add(self, n)
        return self

    def __int__(self):
        return self.value()

    def __sizeof__(self):
        return object.__sizeof__(self) + (CELLS + 1) * CACHE_LINE

    def __repr__(self):
        return f"Counter({self.value()})"

    def __reduce_ex__(self, protocol):
        raise TypeError("cannot pickle or copy 'Counter' object")


cdef inline fs_atomic_i64* cell_at(Counter self, uint32_t i) noexcept nogil:
    return <fs_atomic_i64*>(self.cells + i * CACHE_LINE)


cdef inline fs_atomic_i64* counter_cell(Counter self) noexcept nogil:
    return cell_at(self, fs_thread_index() & (CELLS - 1))


cdef inline int counter_add(Counter self, object n) except -1:
    cdef uint64_t bits = 0
    if not quick_bits(FS_I64, <PyObject*>n, &bits):
        to_bits(FS_I64, n, &bits)
    fs_i64_fetch_add_order(counter_cell(self), <int64_t>bits, FS_RELAXED)
    return 0


register_pinnable(Counter)
publish((Counter,))
