"""AtomicRef and AtomicCell: words that own a Python object.  The word: see reference.pyx."""
cimport cython
from cpython.object cimport Py_EQ, PyObject, PyObject_RichCompare
from libc.stdint cimport int64_t, uintptr_t

from fastsync.objects._kinds cimport word_deadline
from fastsync.objects._slots cimport fs_method, publish, shorten
from fastsync.objects._veneer cimport checked
from fastsync.objects.ordering cimport failure_order, load_order, order_code, store_order
from fastsync.objects.reference cimport (
    _Ref, clear_to_none, free_ref, load, make_collectable, pointer, ref_load, ref_store, replace,
    swap, traverse_ref, value_repr,
)
from fastsync.raw.c_atomic cimport fs_atomic_uptr
from fastsync.raw.c_atomic_order cimport fs_uptr_load
from fastsync.raw.c_python cimport Py_NewRef
from fastsync.raw.c_wait cimport FS_FOREVER, fs_now
from fastsync.raw.parking cimport (
    FS_ACQUIRED, FS_ERROR, FS_PARK_INTERRUPTED, FS_SIGNALS, FS_SPIN, FS_TIMEOUT, FS_TOKEN_NORMAL,
    park, unpark_all, unpark_one,
)

from fastsync.objects._pin import register_pinnable

cdef extern from "Python.h":
    PyObject* Py_None


cdef struct ref_wait_call:
    fs_atomic_uptr* word
    PyObject* expected


cdef bint still_refers(void* ctx) noexcept nogil:
    cdef ref_wait_call* call = <ref_wait_call*>ctx
    return pointer(fs_uptr_load(call.word)) == call.expected


cdef int ref_wait(fs_atomic_uptr* word, PyObject* expected, int64_t deadline) noexcept:
    """Wait while the word refers to `expected`, to which the caller has a reference."""
    cdef ref_wait_call call
    cdef int result
    call.word = word
    call.expected = expected
    while True:
        if pointer(fs_uptr_load(word)) != expected:
            return FS_ACQUIRED
        if deadline == 0:
            return FS_TIMEOUT
        result = park(<uintptr_t>word, still_refers, NULL, NULL, &call, 0,
                      deadline, FS_SIGNALS | FS_SPIN, NULL)
        if result == FS_PARK_INTERRUPTED:
            return FS_ERROR
        if deadline != FS_FOREVER and fs_now() >= deadline:
            deadline = 0  # look once more


cdef tuple update_ref(_Ref self, object f, bint may_give_up):
    """(succeeded, previous).  `f` runs with nothing held and may do anything."""
    while True:
        previous = load(self)
        new = f(previous)
        if new is None and may_give_up:
            return False, previous
        if replace(self, previous, new):
            return True, previous


# -- AtomicRef -------------------------------------------------------------------

@cython.final
cdef class AtomicRef(_Ref):
    """An atomic reference to an object: what AtomicPtr is to Rust.

    Compares by identity: two equal ints or strings may be different objects. An object that a
    load returns is never one that was freed; no operation waits for another thread. Orderings
    are checked; all operations are sequentially consistent.
    """

    def __cinit__(self):
        ref_store(&self.word, Py_None)

    def __init__(self, obj=None):
        ref_store(&self.word, <PyObject*>obj)

    def load(self, ordering=...):
        """Return the object. ValueError for Release and AcqRel."""
        load_order(ordering)
        return load(self)

    def store(self, obj, ordering=...):
        """Refer to `obj` from now on. ValueError for Acquire and AcqRel."""
        store_order(ordering)
        ref_store(&self.word, <PyObject*>obj)

    def swap(self, obj, ordering=...):
        """Refer to `obj` from now on; return the previous object."""
        order_code(ordering)
        return swap(self, obj)

    def compare_exchange(self, current, new, success=..., failure=...):
        """Refer to `new` if it is `current` that is referred to; return (succeeded, previous)."""
        order_code(success)
        failure_order(failure)
        while True:
            previous = load(self)
            if previous is not current:
                return False, previous
            if replace(self, current, new):
                return True, previous

    def compare_exchange_weak(self, current, new, success=..., failure=...):
        """As compare_exchange, but it may fail for no reason: for loops."""
        order_code(success)
        failure_order(failure)
        if replace(self, current, new):
            return True, current
        return False, load(self)

    def compare_and_set(self, current, new, success=..., failure=...):
        """Refer to `new` if it is `current` that is referred to; return whether it was."""
        order_code(success)
        failure_order(failure)
        return replace(self, current, new)

    def fetch_update(self, f, success=..., failure=...):
        """Refer to f(object), trying again while others interfere; return (succeeded, previous).

        None from `f` gives up. `f` may run several times, raise, or use this reference.
        """
        order_code(success)
        failure_order(failure)
        return update_ref(self, f, True)

    def try_update(self, f, success=..., failure=...):
        """The same as fetch_update."""
        order_code(success)
        failure_order(failure)
        return update_ref(self, f, True)

    def update(self, f, success=..., failure=...):
        """Refer to f(object), which may be None here; return the previous object."""
        order_code(success)
        failure_order(failure)
        return update_ref(self, f, False)[1]

    def into_inner(self):
        """Return the object and refer to None."""
        return swap(self, None)

    def wait(self, expected, timeout=None, ordering=...):
        """Block while `expected` is referred to; return whether it is another now.

        `timeout` is in seconds; None and what is too large wait for ever, zero and less do not
        wait, NaN is a ValueError. A change must be followed by notify_one or notify_all.
        """
        load_order(ordering)
        return checked(ref_wait(
            &self.word, <PyObject*>expected, word_deadline(timeout)))

    def notify_one(self):
        """Wake one thread that waits on this reference, if there is one."""
        unpark_one(<uintptr_t>&self.word, NULL, NULL)

    def notify_all(self):
        """Wake all threads that wait on this reference."""
        unpark_all(<uintptr_t>&self.word, FS_TOKEN_NORMAL)

    def __repr__(self):
        return value_repr(self, load(self))


# -- AtomicCell --------------------------------------------------------------------

@cython.final
cdef class AtomicCell(_Ref):
    """A value that threads load, store and exchange whole: crossbeam's AtomicCell.

    Compares by `==`. What a call replaces is dropped after the cell no longer refers to it, so a
    destructor may use the cell. Stores release and loads acquire, at least.
    """

    def __cinit__(self):
        ref_store(&self.word, Py_None)

    def __init__(self, value=None):
        ref_store(&self.word, <PyObject*>value)

    def load(self):
        """Return the value."""
        return load(self)

    def store(self, value):
        """Set the value."""
        ref_store(&self.word, <PyObject*>value)

    def swap(self, value):
        """Set the value and return the previous one."""
        return swap(self, value)

    def take(self):
        """Return the value and leave None."""
        return swap(self, None)

    def into_inner(self):
        """Return the value and leave None: the cell is used no more."""
        return swap(self, None)

    def compare_exchange(self, current, new):
        """Set `new` if the value == `current`; return (succeeded, previous).

        `==` is always asked, also of an object and itself, with nothing held: it may use the
        cell, and its errors propagate. If the cell changed meanwhile it is asked again.
        """
        while True:
            previous = load(self)
            if not PyObject_RichCompare(previous, current, Py_EQ):
                return False, previous
            if replace(self, previous, new):
                return True, previous

    def fetch_update(self, f):
        """Set f(value), trying again while others interfere; return (succeeded, previous).

        None from `f` gives up. `f` may run several times, raise, or use this cell.
        """
        return update_ref(self, f, True)

    @staticmethod
    def is_lock_free():
        """Return True: no operation holds a lock, and none waits for another thread."""
        return True

    def wait(self, expected, timeout=None):
        """Block while the value == `expected`; return whether it differs now.

        As AtomicRef.wait; `==` is asked again whenever the cell holds another object.
        """
        cdef int64_t deadline = word_deadline(timeout)
        while True:
            value = load(self)
            if not PyObject_RichCompare(value, expected, Py_EQ):
                return True
            if not checked(ref_wait(
                    &self.word, <PyObject*>value, deadline)):
                return False

    def notify_one(self):
        """Wake one thread that waits on this cell, if there is one."""
        unpark_one(<uintptr_t>&self.word, NULL, NULL)

    def notify_all(self):
        """Wake all threads that wait on this cell."""
        unpark_all(<uintptr_t>&self.word, FS_TOKEN_NORMAL)

    def __repr__(self):
        return value_repr(self, load(self))


for cls in (AtomicRef, AtomicCell):
    make_collectable(cls, traverse_ref, clear_to_none, free_ref, NULL)
del cls


# -- the shortest way into the hot methods: see atomics.pyx -----------------------------

ctypedef PyObject* (*entry_point)(
    _Ref self, PyObject** args, Py_ssize_t count, PyObject* keywords) noexcept

cdef entry_point general_ref_load, general_ref_store, general_cell_load, general_cell_store


cdef inline PyObject* loaded(_Ref self) noexcept:
    cdef PyObject* target = ref_load(&self.word)
    return target if target != NULL else Py_NewRef(Py_None)


cdef inline PyObject* stored(_Ref self, PyObject* target) noexcept:
    ref_store(&self.word, target)
    return Py_NewRef(Py_None)


cdef PyObject* enter_ref_load(
    _Ref self, PyObject** args, Py_ssize_t count, PyObject* keywords,
) noexcept:
    if count or keywords != NULL:
        return general_ref_load(self, args, count, keywords)
    return loaded(self)


cdef PyObject* enter_cell_load(
    _Ref self, PyObject** args, Py_ssize_t count, PyObject* keywords,
) noexcept:
    if count or keywords != NULL:
        return general_cell_load(self, args, count, keywords)
    return loaded(self)


cdef PyObject* enter_ref_store(
    _Ref self, PyObject** args, Py_ssize_t count, PyObject* keywords,
) noexcept:
    if count != 1 or keywords != NULL:
        return general_ref_store(self, args, count, keywords)
    return stored(self, args[0])


cdef PyObject* enter_cell_store(
    _Ref self, PyObject** args, Py_ssize_t count, PyObject* keywords,
) noexcept:
    if count != 1 or keywords != NULL:
        return general_cell_store(self, args, count, keywords)
    return stored(self, args[0])


general_ref_load = <entry_point>shorten(AtomicRef, "load", <fs_method>enter_ref_load)
general_ref_store = <entry_point>shorten(AtomicRef, "store", <fs_method>enter_ref_store)
general_cell_load = <entry_point>shorten(AtomicCell, "load", <fs_method>enter_cell_load)
general_cell_store = <entry_point>shorten(AtomicCell, "store", <fs_method>enter_cell_store)


register_pinnable(AtomicRef, AtomicCell)
publish((AtomicCell, AtomicRef))
