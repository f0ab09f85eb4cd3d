"""AtomicArray: atomics over memory, one by one and in bulk.

An array's fields are written before another thread can see it and never again; the
memory stays where it is, our own until the array dies, a borrowed buffer because
it is kept exported.  So a single operation is a bounds check and the operation of
atomics.pyx.

What is done in bulk: see _bulk.pyx.
"""
cimport cython
from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_FULL_RO, PyBUF_ND, PyBUF_STRIDES, PyBuffer_IsContiguous, PyBuffer_Release,
    PyObject_CheckBuffer, PyObject_GetBuffer,
)
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree, PyMem_RawMalloc
from cpython.long cimport PyLong_FromLongLong
from cpython.number cimport PyNumber_AsSsize_t
from cpython.object cimport PyObject
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint16_t, uint64_t, uintptr_t
from libc.string cimport memcpy, strlen

from fastsync.objects._pin import register_pinnable
from fastsync.objects._bulk cimport (
    ADD, AND, BAD_INDEX, BAD_VALUE, MAX, MIN, NAND, NO_MEMORY, NO_VALUES, OR, READY_VALUES, SUB, XOR,
    apply, bits_at, bulk, bulk_error, is_float, operation, run,
)
from fastsync.objects._kinds cimport (
    _Exported, cas_word, check_shared, export_writable, get_writable, kind_size, notify_word,
    to_bits, to_python, update_word, wait_word,
)
from fastsync.objects.ordering cimport failure_order, load_order, order_code, store_order
from fastsync.raw.c_atomic_order cimport (
    FS_F32, FS_F64, FS_I64, FS_I8, FS_SEQ_CST, FS_U8, fs_word_cas, fs_word_exchange, fs_word_load,
    fs_word_store,
)
from fastsync.raw.c_python cimport fs_small_int
from fastsync.objects._slots cimport publish

cdef extern from "Python.h":
    void PyObject_GC_UnTrack(PyObject*) noexcept
    int PyBuffer_ToContiguous(void*, Py_buffer*, Py_ssize_t, char) except -1

cdef list OPERATION_NAMES = ["add", "sub", "and", "nand", "or", "xor", "max", "min"]


# -- item types ----------------------------------------------------------------

cdef dict KIND_OF_NAME = {
    name: kind for kind, name in enumerate(
        ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
}
KIND_OF_NAME["float32"] = FS_F32
KIND_OF_NAME["float64"] = FS_F64
cdef dict NAME_OF_KIND = {kind: name for name, kind in KIND_OF_NAME.items()}

# What the buffer protocol calls the kinds, in its order.
cdef const char** FORMATS = ["b", "h", "i", "q", "B", "H", "I", "Q", "?", "f", "d"]


cdef int kind_of_dtype(object dtype) except -1:
    """The kind of a numpy dtype or of a full name."""
    name = dtype
    if isinstance(dtype, type) and dtype.__module__ == "numpy":
        name = dtype.__name__
    elif hasattr(dtype, "isnative"):
        if not dtype.isnative:
            raise ValueError(f"{dtype!r} is not in native byte order")
        name = dtype.name
    if not isinstance(name, str):
        raise TypeError(f"dtype must be a numpy dtype or a name, not {type(dtype).__name__}")
    if name not in KIND_OF_NAME:
        raise ValueError(
            f"dtype {name!r} is not supported; the names are {', '.join(KIND_OF_NAME)}")
    return KIND_OF_NAME[name]


cdef bint is_little_endian() noexcept nogil:
    cdef uint16_t one = 1
    return (<uint8_t*>&one)[0] == 1


cdef int kind_of_format(const char* format, Py_ssize_t itemsize) except -1:
    """The kind of a buffer's items."""
    cdef const char* code = format
    cdef const char* plain = "B"
    cdef bint is_signed
    cdef int log2 = 0
    if code == NULL:
        code = plain
    if code[0] in b"@=" or code[0] == (c"<" if is_little_endian() else c">"):
        code += 1
    if strlen(code) == 1:
        if code[0] in b"bhilqnBHILQN":
            is_signed = code[0] >= c"a"
            while log2 < 3 and 1 << log2 < itemsize:
                log2 += 1
            if 1 << log2 == itemsize:
                return (FS_I8 if is_signed else FS_U8) + log2
        if code[0] == c"f" and itemsize == 4:
            return FS_F32
        if code[0] == c"d" and itemsize == 8:
            return FS_F64
    raise TypeError(f"buffer format {(<bytes>code).decode()!r} is not supported")


# -- arguments of bulk operations --------------------------------------------------

cdef class _Items:
    """Indices or values as contiguous memory: a buffer's own, or a copy."""

    cdef Py_buffer buffer
    cdef void* copy
    cdef const char* data
    cdef Py_ssize_t count
    cdef int kind
    cdef tuple shape

    def __dealloc__(self):
        PyMem_RawFree(self.copy)
        PyBuffer_Release(&self.buffer)

    cdef int allocate(self, Py_ssize_t nbytes) except -1:
        self.copy = PyMem_RawMalloc(nbytes or 1)
        if self.copy == NULL:
            raise MemoryError
        self.data = <const char*>self.copy
        return 0


cdef _Items items_of_buffer(object source):
    cdef _Items items = _Items()
    cdef Py_buffer* buffer = &items.buffer
    cdef int i
    PyObject_GetBuffer(source, buffer, PyBUF_FULL_RO)
    items.kind = kind_of_format(buffer.format, buffer.itemsize)
    items.count = buffer.len // buffer.itemsize
    shape = []
    for i in range(buffer.ndim):
        shape.append(buffer.shape[i])
    items.shape = tuple(shape)
    items.data = <const char*>buffer.buf
    if not PyBuffer_IsContiguous(buffer, c"C"):
        items.allocate(buffer.len)
        PyBuffer_ToContiguous(items.copy, buffer, buffer.len, c"C")
    return items


cdef _Items indices_of(object source):
    cdef _Items items
    cdef int64_t* out
    if PyObject_CheckBuffer(source):
        items = items_of_buffer(source)
        if is_float(items.kind):
            raise TypeError("indices must be integers")
        return items
    source = tuple(source)  # a list could change while the items are converted
    items = _Items()
    items.allocate(8 * len(source))
    items.kind = FS_I64
    items.count = len(source)
    items.shape = (items.count,)
    out = <int64_t*>items.copy
    for i, index in enumerate(source):
        out[i] = PyNumber_AsSsize_t(index, IndexError)
    return items


cdef bint is_scalar(object values):
    if isinstance(values, (int, float)):
        return True
    if PyObject_CheckBuffer(values):
        return memoryview(values).ndim == 0  # numpy's numbers are buffers too
    return not hasattr(values, "__iter__")


cdef _Items values_of(int kind, object source):
    cdef _Items items
    cdef uint64_t* out
    if PyObject_CheckBuffer(source):
        items = items_of_buffer(source)
        if is_float(items.kind) and not is_float(kind):
            raise TypeError(f"floats do not go into an array of {NAME_OF_KIND[kind]}")
        return items
    source = tuple(source)  # a list could change while the items are converted
    items = _Items()
    items.allocate(8 * len(source))
    items.kind = READY_VALUES
    items.count = len(source)
    items.shape = (items.count,)
    out = <uint64_t*>items.copy
    for i, value in enumerate(source):
        to_bits(kind, value, &out[i])
    return items


cdef inline int64_t lowest_of(int kind) noexcept:
    return -(<int64_t>1 << (8 * kind_size(kind) - 1)) if kind < FS_I64 else (
        INT64_MIN if kind == FS_I64 else 0)


cdef inline int64_t highest_of(int kind) noexcept:
    # Of the 64-bit floats too, whose range is not asked for: a shift by 64 means nothing.
    if kind_size(kind) == 8:
        return INT64_MAX
    return (<int64_t>1 << (8 * kind_size(kind) - (1 if kind < FS_U8 else 0))) - 1


cdef int operate_at(AtomicArray array, operation op, object indices, object values) except -1:
    """Check everything, then apply everything, detached in between."""
    cdef bulk b
    cdef bulk_error error
    cdef _Items at, items
    if op == OR and is_float(array.kind):
        raise TypeError(f"{NAME_OF_KIND[array.kind]} has no or")
    at = indices_of(indices)
    b.value_kind = NO_VALUES
    b.scalar = 0
    b.values = NULL
    if is_scalar(values):
        to_bits(array.kind, values, &b.scalar)
    else:
        items = values_of(array.kind, values)
        if items.shape != at.shape:
            raise ValueError(f"values of shape {items.shape} for indices of shape {at.shape}")
        b.values = items.data
        b.value_kind = items.kind
    b.data, b.bins, b.kind, b.op = array.data, array.count, array.kind, op
    b.indices, b.index_kind, b.count = at.data, at.kind, at.count
    b.lowest, b.highest = lowest_of(array.kind), highest_of(array.kind)
    with nogil:
        error = run(&b)
    if error == BAD_INDEX:
        raise IndexError(f"index {b.offender} is out of range for {b.bins} items")
    if error == BAD_VALUE:
        raise OverflowError(f"a value does not fit {NAME_OF_KIND[array.kind]}")
    if error == NO_MEMORY:
        raise MemoryError
    return 0


# -- the array -----------------------------------------------------------------------

cdef inline int bits_of(int kind, object value, uint64_t* bits) except -1:
    """to_bits, without a call for a small int."""
    cdef int64_t number
    if (not is_float(kind) and fs_small_int(<PyObject*>value, &number)
            and lowest_of(kind) <= number <= highest_of(kind)):
        bits[0] = <uint64_t>number
        return 0
    return to_bits(kind, value, bits)


cdef inline object value_of(int kind, uint64_t bits):
    """to_python, without a call into the other module for a signed integer."""
    return PyLong_FromLongLong(<int64_t>bits) if kind <= FS_I64 else to_python(kind, bits)


cdef void* item(AtomicArray self, object index) except NULL:
    cdef int64_t small
    cdef Py_ssize_t i
    if fs_small_int(<PyObject*>index, &small):
        i = <Py_ssize_t>small
    else:
        i = PyNumber_AsSsize_t(index, IndexError)
    if i < 0:
        i += self.count
    if i < 0 or i >= self.count:
        raise IndexError(f"the index is out of range for {self.count} items")
    return self.data + i * self.size


cdef object fetch(AtomicArray self, object index, object value, object ordering, operation op):
    cdef void* word = item(self, index)
    cdef int order = order_code(ordering)
    cdef uint64_t bits
    if is_float(self.kind) and not (op == ADD or op == SUB or op == MAX or op == MIN):
        raise TypeError(f"{NAME_OF_KIND[self.kind]} has no {OPERATION_NAMES[op]}")
    bits_of(self.kind, value, &bits)
    return value_of(self.kind, apply(word, self.kind, op, bits, order))


# In place of a dtype: the memory will be a buffer's.
cdef object BORROWED = object()


@cython.final
@cython.no_gc_clear  # see _Exported
cdef class AtomicArray:
    """AtomicArray(dtype, n)
--

    Atomic numbers in one block of memory, its own or another object's.

    `dtype` is a numpy dtype or one of the names int8 to int64, uint8 to uint64, float32 and
    float64. All items start at 0. The operations of the atomic types take an index first;
    negative ones count from the end. The array exports its memory: numpy.asarray(array) is a
    view, whose own reads and writes are not atomic. `array[i]` loads; there is no assignment to
    `array[i]`, because `array[i] += 1` would lose updates: use fetch_add, or store.
    """

    # Here and not in __init__, which could be called twice, and by two threads.
    def __cinit__(self, dtype, n):
        if dtype is BORROWED:
            return  # from_buffer goes on
        cdef int kind = kind_of_dtype(dtype)
        cdef Py_ssize_t count = PyNumber_AsSsize_t(n, OverflowError)
        if count < 0:
            raise ValueError("n must not be negative")
        if count > <Py_ssize_t>(<size_t>-1 >> 1) // 8 - 64:
            raise MemoryError
        # On a cache line of its own.
        self.memory = PyMem_RawCalloc(count * kind_size(kind) + 64, 1)
        if self.memory == NULL:
            raise MemoryError
        self.data = <char*>((<uintptr_t>self.memory + 63) & ~<uintptr_t>63)
        self.kind = kind
        self.size = kind_size(kind)
        self.count = count
        PyObject_GC_UnTrack(<PyObject*>self)  # it refers to nothing

    def __dealloc__(self):
        PyMem_RawFree(self.memory)

    @staticmethod
    def from_buffer(buffer, dtype=None, shared=False):
        """Return an array over the memory of `buffer`, any writable contiguous buffer.

        None for `dtype` takes the buffer's own format, anything else reads its bytes as that.
        The buffer stays exported as long as the array lives. `shared=True` makes `wait` and
        `notify_*` work between processes (all of them must say so); NotImplementedError where
        the platform cannot. ValueError when the length is no multiple of the item, or the
        memory is not aligned to it; BufferError when the buffer is read-only; TypeError when
        its format tells of Python objects.
        """
        cdef AtomicArray self
        cdef _Exported exported
        cdef Py_buffer* view
        cdef int kind, size
        check_shared(shared)
        exported = export_writable(buffer)
        view = &exported.buffer
        if dtype is None:
            kind = kind_of_format(view.format, view.itemsize)
        else:
            kind = kind_of_dtype(dtype)
        size = kind_size(kind)
        if view.len % size:
            raise ValueError(f"{view.len} bytes are no multiple of {size}")
        if view.len != 0 and <uintptr_t>view.buf % <uintptr_t>size:
            raise ValueError(f"the buffer is not aligned to {size} bytes")
        self = AtomicArray.__new__(AtomicArray, BORROWED, 0)
        # No other thread can have seen it yet, and what follows runs no Python.
        self.exported = exported
        self.data = <char*>view.buf
        self.kind = kind
        self.size = size
        self.shared = shared
        self.count = view.len // size
        return self

    @property
    def dtype(self):
        """The name of the item type, such as 'int64'."""
        return NAME_OF_KIND[self.kind]

    @property
    def itemsize(self):
        """Bytes of an item."""
        return self.size

    @property
    def nbytes(self):
        """Bytes of all items."""
        return self.count * self.size

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return value_of(self.kind, fs_word_load(item(self, index), self.kind, FS_SEQ_CST))

    def load(self, index, ordering=...):
        """Return the item. ValueError for Release and AcqRel."""
        return value_of(
            self.kind, fs_word_load(item(self, index), self.kind, load_order(ordering)))

    def store(self, index, value, ordering=...):
        """Set the item. ValueError for Acquire and AcqRel, OverflowError if it does not fit."""
        cdef void* word = item(self, index)
        cdef int order = store_order(ordering)
        cdef uint64_t bits
        bits_of(self.kind, value, &bits)
        fs_word_store(word, self.kind, bits, order)

    def swap(self, index, value, ordering=...):
        """Set the item and return the previous one."""
        cdef void* word = item(self, index)
        cdef int order = order_code(ordering)
        cdef uint64_t bits
        bits_of(self.kind, value, &bits)
        return value_of(self.kind, fs_word_exchange(word, self.kind, bits, order))

    def compare_exchange(self, index, current, new, success=..., failure=...):
        """Set `new` if the item is `current`; return (succeeded, previous)."""
        return cas_word(item(self, index), self.kind, current, new, success, failure, False)

    def compare_exchange_weak(self, index, current, new, success=..., failure=...):
        """As compare_exchange, but it may fail for no reason: for loops."""
        return cas_word(item(self, index), self.kind, current, new, success, failure, True)

    def compare_and_set(self, index, current, new, success=..., failure=...):
        """Set `new` if the item is `current`; return whether it was."""
        cdef void* word = item(self, index)
        cdef int ok = order_code(success)
        cdef int fail = failure_order(failure)
        cdef uint64_t seen, wanted
        bits_of(self.kind, current, &seen)
        bits_of(self.kind, new, &wanted)
        return fs_word_cas(word, self.kind, &seen, wanted, ok, fail)

    def fetch_add(self, index, value, ordering=...):
        """Add `value`, wrapping at the width; return the previous item."""
        return fetch(self, index, value, ordering, ADD)

    def fetch_sub(self, index, value, ordering=...):
        """Subtract `value`, wrapping at the width; return the previous item."""
        return fetch(self, index, value, ordering, SUB)

    def fetch_and(self, index, value, ordering=...):
        """Keep the bits that `value` has too; return the previous item."""
        return fetch(self, index, value, ordering, AND)

    def fetch_nand(self, index, value, ordering=...):
        """Set the complement of the bits in common with `value`; return the previous item."""
        return fetch(self, index, value, ordering, NAND)

    def fetch_or(self, index, value, ordering=...):
        """Set the bits of `value` too; return the previous item."""
        return fetch(self, index, value, ordering, OR)

    def fetch_xor(self, index, value, ordering=...):
        """Flip the bits of `value`; return the previous item."""
        return fetch(self, index, value, ordering, XOR)

    def fetch_max(self, index, value, ordering=...):
        """Set `value` if it is larger; return the previous item."""
        return fetch(self, index, value, ordering, MAX)

    def fetch_min(self, index, value, ordering=...):
        """Set `value` if it is smaller; return the previous item."""
        return fetch(self, index, value, ordering, MIN)

    def fetch_update(self, index, f, success=..., failure=...):
        """Set f(item), trying again while others interfere; return (succeeded, previous).

        None from `f` gives up. `f` may run several times, raise, or use this array.
        """
        return update_word(item(self, index), self.kind, f, success, failure, True)

    def try_update(self, index, f, success=..., failure=...):
        """The same as fetch_update."""
        return update_word(item(self, index), self.kind, f, success, failure, True)

    def update(self, index, f, success=..., failure=...):
        """Set f(item), trying again while others interfere; return the previous item."""
        return update_word(item(self, index), self.kind, f, success, failure, False)[1]

    def wait(self, index, expected, timeout=None, ordering=...):
        """Block while the item is `expected`; return whether it differs now. As AtomicI64.wait."""
        return wait_word(
            item(self, index), self.kind, self.shared, expected, timeout, ordering)

    def notify_one(self, index):
        """Wake one thread that waits on the item, if there is one."""
        notify_word(item(self, index), self.kind, self.shared, False)

    def notify_all(self, index):
        """Wake all threads that wait on the item."""
        notify_word(item(self, index), self.kind, self.shared, True)

    def add_at(self, indices, values):
        """Add values[k] to item indices[k], for all k: numpy.add.at, but atomic.

        `indices` is an array or sequence of integers, `values` a number or as many as indices.
        Every index and value is checked before anything is applied: IndexError, OverflowError,
        and TypeError for floats into integers. Each item is added to atomically, not all items
        at once. Runs with the thread state detached.
        """
        operate_at(self, ADD, indices, values)

    def max_at(self, indices, values):
        """Set item indices[k] to values[k] where that is larger, for all k. As add_at."""
        operate_at(self, MAX, indices, values)

    def min_at(self, indices, values):
        """Set item indices[k] to values[k] where that is smaller, for all k. As add_at."""
        operate_at(self, MIN, indices, values)

    def or_at(self, indices, values):
        """Set the bits of values[k] in item indices[k], for all k. As add_at; integers only."""
        operate_at(self, OR, indices, values)

    def load_all(self, out=None):
        """Return all items as a list, each loaded atomically; not a snapshot of one moment.

        With `out`, a writable contiguous buffer of the same number of bytes, they go there and
        `out` is returned.
        """
        cdef Py_buffer view
        cdef void* copy
        cdef Py_ssize_t i
        if out is None:
            copy = PyMem_RawMalloc(self.count * self.size + 1)
            if copy == NULL:
                raise MemoryError
            # No comprehension: Cython's drops an item twice when the list cannot grow.
            values = []
            try:
                with nogil:
                    load_into(self, <char*>copy)
                for i in range(self.count):
                    values.append(raw_item(<char*>copy, self.kind, self.size, i))
                return values
            finally:
                PyMem_RawFree(copy)
        get_writable(out, &view)
        try:
            if view.len != self.count * self.size:
                raise ValueError(f"{self.count * self.size} bytes do not fit {view.len}")
            with nogil:
                load_into(self, <char*>view.buf)
        finally:
            PyBuffer_Release(&view)
        return out

    def fill(self, value):
        """Store `value` in every item, one after the other."""
        cdef uint64_t bits
        cdef Py_ssize_t i
        bits_of(self.kind, value, &bits)
        with nogil:
            for i in range(self.count):
                fs_word_store(self.data + i * self.size, self.kind, bits, FS_SEQ_CST)

    def __getbuffer__(self, Py_buffer* view, int flags):
        if self.size == 0:
            raise BufferError("this AtomicArray was not initialized")
        view.obj = self
        view.buf = self.data
        view.len = self.count * self.size
        view.readonly = 0
        view.itemsize = self.size
        view.format = <char*>FORMATS[self.kind] if flags & PyBUF_FORMAT else NULL
        view.ndim = 1
        view.shape = &self.count if flags & PyBUF_ND else NULL
        view.strides = &view.itemsize if (flags & PyBUF_STRIDES) == PyBUF_STRIDES else NULL
        view.suboffsets = NULL
        view.internal = NULL

    def __sizeof__(self):
        own = 0 if self.memory == NULL else self.count * self.size + 64
        return object.__sizeof__(self) + own

    def __repr__(self):
        return f"AtomicArray({NAME_OF_KIND[self.kind]!r}, {self.count})"

    def __reduce_ex__(self, protocol):
        raise TypeError("cannot pickle or copy 'AtomicArray' object")


cdef void load_into(AtomicArray self, char* out) noexcept nogil:
    cdef uint64_t bits
    cdef Py_ssize_t i
    cdef bint little = is_little_endian()
    for i in range(self.count):
        bits = fs_word_load(self.data + i * self.size, self.kind, FS_SEQ_CST)
        # The low bytes are the item.
        memcpy(out + i * self.size, <char*>&bits + (0 if little else 8 - self.size), self.size)


cdef object raw_item(const char* data, int kind, int size, Py_ssize_t i):
    return to_python(kind, bits_at(data + i * size, kind))


register_pinnable(AtomicArray)
publish((AtomicArray,))
