"""What AtomicArray does in bulk: see _bulk.pyx."""
from libc.stdint cimport int64_t, uint64_t

from fastsync.raw cimport c_version  # so that versions are compared
from fastsync.raw.c_atomic_order cimport FS_F32

cdef enum operation:
    ADD
    SUB
    AND
    NAND
    OR
    XOR
    MAX
    MIN


cdef enum:
    BLOCK = 512  # items copied at a time: two blocks and their raw bytes stay in the L1 cache
    NO_VALUES = -1     # one value for all: bulk.scalar
    READY_VALUES = -2  # already 64 bits of the array's kind

cdef enum bulk_error:
    FINE
    BAD_INDEX
    BAD_VALUE
    NO_MEMORY

cdef struct bulk:
    char* data            # the array
    Py_ssize_t bins
    int kind
    operation op
    const char* indices
    int index_kind
    Py_ssize_t count
    const char* values
    int value_kind        # or NO_VALUES, READY_VALUES
    uint64_t scalar
    int64_t lowest        # bounds of the kind, for integers from elsewhere
    int64_t highest
    int64_t at[BLOCK]     # the present block, checked
    uint64_t value[BLOCK]
    char raw[8 * BLOCK]
    int64_t offender      # a BAD_INDEX


cdef inline bint is_float(int kind) noexcept nogil:
    return kind >= FS_F32


# One operation on one word: what it held before.
cdef uint64_t apply(void* word, int kind, operation op, uint64_t v, int order) noexcept nogil
# All of `b`.  Detached; the memory of indices and values may change meanwhile.
cdef bulk_error run(bulk* b) noexcept nogil
# The item at `p`, in 64 bits.
cdef uint64_t bits_at(const char* p, int kind) noexcept nogil
