"""AtomicRef, AtomicCell, Arc and Weak: words that own a Python object.

The word holds a pointer; bit 0 is a tag:

    0            empty: only while the object is made, cleared or, in a handle, released
    pointer      the word owns one reference
    pointer | 1  the object was immortal when it was stored, and so it is for ever:
                 nobody counts

How a load gets a reference without a lock.  Between reading the pointer and
counting, another thread may take the object out and drop the last reference.
On a build with the GIL no other thread runs in between.  On a free-threaded one
the object may be the loading thread's own (below), or else the load announces the
pointer first (a hazard pointer, Michael 2004):

    reader                                    writer
    1 p = word                                1 old = exchange(word, new)
    2 slot: 0 -> p                            2 for each slot that says old:
    3 word still p?  no: undo, start again          count old once more
    4 count p                                       slot: old -> old | GRANTED
    5 s = exchange(slot, 0)                         (failed: uncount)
      s was GRANTED: one count too many       3 uncount the word's reference

All six accesses of word and slot are seq_cst, so they have one order.  If the
reader's 3 comes before the writer's 1, its 2 does too: the writer finds the slot
and counts for the reader, while it still owns the word's reference.  Otherwise
the reader's 3 sees that the word has changed.  A word that has gone from p to
something else and back to p owns p again, and the same argument holds for the
writer that takes it out next.  So whoever reaches 4 counts an object that
somebody owns a reference to: the word, a writer, or the grant.  And a reader
that finds its slot GRANTED at 3 has been given a reference: it returns p,
which the word did hold during the call.

Nobody waits for anybody: a reader that is preempted between 2 and 5 holds up no
one, it only makes writers of the same object write its slot.  A reader starts
again only when a writer has made progress.  Readers write nothing but
their slot, which lies on a cache line that their thread has for itself unless
threads outnumber lines, and the reference count that Python demands; of an
immortal object (None, small ints, types, functions once threads run) not even these.

One's own object.  On a free-threaded build an object names the thread that made
it, its owner.  While it does, that thread alone frees it, or the collector with the
world stopped; others that drop what seems the last reference hand it to the owner.
So a load that reads p, and then in p's memory that this thread is the owner, just
counts.  Only this thread ever writes its own name, and it did nothing in between:
p named it when the word owned p, p was not freed since, and will not be until
this thread goes on.

If the owner is another thread, what is read there may have been freed.  It can still
be read, and says something else: the old owner, a new one, nobody, or where the
allocator's next free block is.  For a free-threaded interpreter has all
objects come from its own allocator (it demands this of extensions, and starts with no
other one), which gives memory of objects to objects only until each thread has
passed a point where it holds no such pointer.  Its lists and dicts rest on the
same (_Py_TryIncrefFast).

Tried instead: a reference count in the pointer's spare bits (a split count) makes
every load two read-modify-writes of the word that all readers share; a
lock bit in the word makes a preempted reader stop everybody; counting first and
looking again later, for other threads' objects too, writes to freed memory, and
works only for objects that are marked by private means when they are stored.

Garbage collection stops the world, on both builds: never a thread between 1 and
5, where no thread can be stopped.  A word's traverse reports its reference, its
clear takes the object out as any writer does.

Orders.  Everything is seq_cst, which is as strong as any order that a caller may
ask for; the argument is checked and otherwise ignored.
"""
cimport cython
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from cpython.object cimport Py_EQ, PyObject, PyObject_RichCompare
from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t

from fastsync._pin import register_pinnable
from fastsync.atomics cimport (
    FS_SEQ_CST, failure_order, fs_i64_cas, fs_i64_fetch_add, fs_i64_load, fs_i64_store,
    fs_pause, fs_ptr_cas, fs_ptr_load, fs_atomic_ptr, fs_uptr_cas, fs_uptr_exchange,
    fs_uptr_load, load_order, order_code, raise_or_bool, store_order, wait_deadline,
)
from fastsync.c_python cimport FS_FREE_THREADED, fs_given, fs_is_immortal, fs_is_owner
from fastsync.c_wait cimport FS_FOREVER, fs_at_fork, fs_now, fs_yield
from fastsync.parking cimport (
    FS_ACQUIRED, FS_ERROR, FS_PARK_INTERRUPTED, FS_SIGNALS,
    FS_SPIN, FS_TIMEOUT, FS_TOKEN_NORMAL, park, unpark_all, unpark_one,
)

cdef extern from "fastsync/thread_index.h" nogil:
    uint32_t fs_thread_index() noexcept

cdef extern from "fastsync/atomic.h" nogil:
    # relaxed: for words that no other thread can see or change now
    uintptr_t fs_uptr_load_relaxed(const fs_atomic_uptr*) noexcept
    void fs_uptr_store_relaxed(fs_atomic_uptr*, uintptr_t) noexcept
    void fs_i64_store_relaxed(fs_atomic_i64*, int64_t) noexcept

ctypedef int (*visit_function)(PyObject*, void*) noexcept
ctypedef int (*traverse_function)(PyObject*, visit_function, void*) noexcept
ctypedef int (*clear_function)(PyObject*) noexcept

cdef extern from "Python.h":
    enum:
        METH_FASTCALL
        METH_KEYWORDS
    ctypedef struct PyMethodDef:
        void* ml_meth
        int ml_flags
    ctypedef struct PyMethodDescrObject:
        PyMethodDef* d_method
    ctypedef struct PyTypeObject:
        traverse_function tp_traverse
        clear_function tp_clear
    void Py_INCREF(PyObject*) noexcept
    void Py_DECREF(PyObject*) noexcept
    void Py_XDECREF(PyObject*) noexcept
    PyObject* Py_NewRef(PyObject*) noexcept
    PyObject* Py_None
    void PyErr_WriteUnraisable(PyObject*) noexcept
    PyObject* PyObject_CallOneArg(PyObject*, PyObject*) noexcept
    int Py_ReprEnter(PyObject*) except -1
    void Py_ReprLeave(PyObject*) noexcept


# -- hazard slots --------------------------------------------------------------
#
# A word's address picks one of GROUPS groups, so that a writer looks at a few
# slots only.  In a group each thread starts at its own line.  Two slots to a
# line keep a writer's look short (16 loads, about 10 ns); when more readers than
# that are under way in one group, threads get preempted there, the group grows by
# a chunk and keeps it.

cdef enum:
    IMMORTAL = 1   # in a word
    GRANTED = 1    # in a slot
    GROUPS = 16    # a power of two
    LINES = 8      # a power of two
    TO_A_LINE = 2
    LINE_WORDS = 8  # 64 bytes; two words of memory where pointers are 4
    CHUNK = 64

cdef struct hazard_chunk:
    fs_atomic_ptr next
    fs_atomic_uptr slots[CHUNK]

cdef struct hazard_group:
    fs_atomic_uptr lines[LINES * LINE_WORDS]
    fs_atomic_ptr more      # hazard_chunk*
    fs_atomic_uptr unused[LINE_WORDS - 1]

cdef hazard_group* groups = NULL


cdef inline hazard_group* group_of(fs_atomic_uptr* word) noexcept:
    # Fibonacci hashing: the high bits of address * 2^64/phi.
    return &groups[(<uint64_t><uintptr_t>word * <uint64_t>0x9E3779B97F4A7C15u) >> 60]


cdef inline bint claim(fs_atomic_uptr* slot, uintptr_t target) noexcept:
    cdef uintptr_t free = 0
    return fs_uptr_load_relaxed(slot) == 0 and fs_uptr_cas(slot, &free, target)


cdef fs_atomic_uptr* announce(fs_atomic_uptr* word, uintptr_t target) noexcept:
    """Step 2 of a reader: the slot that now says `target`."""
    cdef hazard_group* group = group_of(word)
    cdef fs_atomic_uptr* line
    cdef uint32_t first = fs_thread_index()
    cdef int i
    for i in range(LINES):
        line = &group.lines[((first + <uint32_t>i) & (LINES - 1)) * LINE_WORDS]
        if claim(line, target):
            return line
        if claim(line + 1, target):
            return line + 1
    return announce_in_chunk(group, target)


cdef fs_atomic_uptr* announce_in_chunk(hazard_group* group, uintptr_t target) noexcept:
    """All slots of the lines are taken: by threads preempted in a load, nearly always."""
    cdef fs_atomic_ptr* link = &group.more
    cdef hazard_chunk* chunk
    cdef void* none
    cdef int i
    while True:
        chunk = <hazard_chunk*>fs_ptr_load(link)
        if chunk == NULL:
            chunk = <hazard_chunk*>PyMem_RawCalloc(1, sizeof(hazard_chunk))
            none = NULL
            if chunk == NULL:
                fs_yield()  # no memory: somebody's load will end
                link = &group.more
                continue
            if not fs_ptr_cas(link, &none, chunk):
                PyMem_RawFree(chunk)
                chunk = <hazard_chunk*>none  # another reader was first
        for i in range(CHUNK):
            if claim(&chunk.slots[i], target):
                return &chunk.slots[i]
        link = &chunk.next


cdef inline void grant(fs_atomic_uptr* slot, PyObject* old) noexcept:
    cdef uintptr_t target = <uintptr_t>old
    if fs_uptr_load(slot) != target:
        return
    Py_INCREF(old)
    if not fs_uptr_cas(slot, &target, target | GRANTED):
        Py_DECREF(old)  # the reader has counted; and we own one more


cdef void protect(fs_atomic_uptr* word, PyObject* old) noexcept:
    """Step 2 of a writer, which has taken `old` out of the word and still owns it."""
    cdef hazard_group* group
    cdef hazard_chunk* chunk
    cdef int i, j
    if not FS_FREE_THREADED:
        return
    group = group_of(word)
    for i in range(LINES):
        for j in range(TO_A_LINE):
            grant(&group.lines[i * LINE_WORDS + j], old)
    chunk = <hazard_chunk*>fs_ptr_load(&group.more)
    while chunk != NULL:
        for i in range(CHUNK):
            grant(&chunk.slots[i], old)
        chunk = <hazard_chunk*>fs_ptr_load(&chunk.next)


cdef void after_fork_in_child() noexcept nogil:
    # Slots of threads that do not exist here: what they were granted is lost,
    # but their slots come back.
    cdef hazard_chunk* chunk
    cdef int g, i
    for g in range(GROUPS):
        for i in range(LINES * LINE_WORDS):
            fs_uptr_store_relaxed(&groups[g].lines[i], 0)  # relaxed: one thread
        chunk = <hazard_chunk*>fs_ptr_load(&groups[g].more)
        while chunk != NULL:
            for i in range(CHUNK):
                fs_uptr_store_relaxed(&chunk.slots[i], 0)
            chunk = <hazard_chunk*>fs_ptr_load(&chunk.next)


cdef void nothing() noexcept nogil:
    pass


cdef int set_up_slots() except -1:
    global groups
    cdef uintptr_t memory = <uintptr_t>PyMem_RawCalloc(GROUPS + 1, sizeof(hazard_group))
    if memory == 0 or fs_at_fork(nothing, nothing, after_fork_in_child) != 0:
        raise MemoryError
    # On cache lines; lives as long as the process.
    groups = <hazard_group*>((memory + 63) & ~<uintptr_t>63)
    return 0


set_up_slots()


# -- the word ------------------------------------------------------------------

cdef inline PyObject* pointer(uintptr_t value) noexcept nogil:
    return <PyObject*>(value & ~<uintptr_t>IMMORTAL)


cdef inline uintptr_t owned(PyObject* target) noexcept:
    """The word that owns a new reference to `target`."""
    if target == NULL:
        return 0
    if fs_is_immortal(target):
        return <uintptr_t>target | IMMORTAL
    Py_INCREF(target)
    return <uintptr_t>target


cdef PyObject* ref_load(fs_atomic_uptr* word) noexcept:
    cdef uintptr_t seen = fs_uptr_load(word)
    if seen & IMMORTAL or seen == 0:
        return pointer(seen)  # an immortal one needs no counting
    if fs_is_owner(pointer(seen)):
        return Py_NewRef(pointer(seen))  # only this thread could free it: see above
    return load_counted(word, seen)


cdef PyObject* load_counted(fs_atomic_uptr* word, uintptr_t seen) noexcept:
    cdef fs_atomic_uptr* slot
    cdef uintptr_t again
    while True:
        slot = announce(word, seen)
        again = fs_uptr_load(word)
        if again == seen:
            Py_INCREF(pointer(seen))
            if fs_uptr_exchange(slot, 0) & GRANTED:
                Py_DECREF(pointer(seen))  # not the last: we own two
            return pointer(seen)
        if fs_uptr_exchange(slot, 0) & GRANTED:
            return pointer(seen)
        seen = again
        if seen & IMMORTAL or seen == 0:
            return pointer(seen)


cdef PyObject* ref_swap(fs_atomic_uptr* word, PyObject* new) noexcept:
    cdef uintptr_t old = fs_uptr_exchange(word, owned(new))
    if old != 0 and not old & IMMORTAL:
        protect(word, pointer(old))
    return pointer(old)


cdef inline void ref_store(fs_atomic_uptr* word, PyObject* new) noexcept:
    Py_XDECREF(ref_swap(word, new))


cdef bint ref_cas(fs_atomic_uptr* word, PyObject* expected, PyObject* new) noexcept:
    cdef uintptr_t seen = fs_uptr_load(word)
    cdef uintptr_t wanted
    if pointer(seen) != expected:
        return False
    wanted = owned(new)
    while pointer(seen) == expected:
        if fs_uptr_cas(word, &seen, wanted):
            if seen != 0 and not seen & IMMORTAL:
                protect(word, expected)
                Py_DECREF(expected)
            return True
        # else another value, or the same object stored anew after it became immortal
    if new != NULL:
        Py_DECREF(new)
    return False


def _granted(_Ref ref, new):
    """Be a reader preempted in a load, in every slot and a chunk's, while `new` is stored; in how
    many the writer granted a reference, and of how many: for tests, which cannot be preempted there."""
    cdef fs_atomic_uptr* word = word_of(<PyObject*>ref)
    cdef object old = <object>pointer(fs_uptr_load(word))
    cdef fs_atomic_uptr* slots[LINES * TO_A_LINE + CHUNK]
    cdef int granted = 0, i
    for i in range(LINES * TO_A_LINE + CHUNK):
        slots[i] = announce(word, <uintptr_t><PyObject*>old)
    ref_store(word, <PyObject*>new)
    for i in range(LINES * TO_A_LINE + CHUNK):
        if fs_uptr_exchange(slots[i], 0) & GRANTED:
            granted += 1
            Py_DECREF(<PyObject*>old)
    return granted, LINES * TO_A_LINE + CHUNK


cdef struct ref_layout:  # how Cython lays out the classes here, up to the word
    PyObject header
    fs_atomic_uptr word


cdef inline fs_atomic_uptr* word_of(PyObject* self) noexcept:
    return &(<ref_layout*>self).word


cdef inline object load(_Ref self):
    return fs_given(ref_load(word_of(<PyObject*>self)))


cdef inline object swap(_Ref self, object new):
    return fs_given(ref_swap(word_of(<PyObject*>self), <PyObject*>new))


cdef inline bint replace(_Ref self, object expected, object new):
    return ref_cas(word_of(<PyObject*>self), <PyObject*>expected, <PyObject*>new)


cdef int traverse(PyObject* self, visit_function visit, void* arg) noexcept:
    # relaxed: the world is stopped
    cdef PyObject* target = pointer(fs_uptr_load_relaxed(word_of(self)))
    return visit(target, arg) if target != NULL else 0


cdef int clear(PyObject* self) noexcept:
    ref_store(word_of(self), NULL)
    return 0


cdef int clear_to_none(PyObject* self) noexcept:
    # A finalizer may still use it: what a load says, a compare-exchange must find.
    ref_store(word_of(self), Py_None)
    return 0


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


@cython.trashcan(True)  # long chains of them are freed without a deep stack
cdef class _Ref:
    """What owns one object through its word."""

    def __cinit__(self):
        self.word = None
        # What Cython put there is a counted reference; None may be immortal.
        fs_uptr_store_relaxed(word_of(<PyObject*>self), owned(Py_None))
        Py_DECREF(Py_None)

    def __dealloc__(self):
        clear(<PyObject*>self)

    @classmethod
    def __class_getitem__(cls, item, /):
        return GenericAlias(cls, item)

    def __reduce_ex__(self, protocol):
        raise TypeError(f"cannot pickle or copy {type(self).__name__!r} object")


cdef str value_repr(object self, object value):
    """As a list shows itself: a value that leads back here is dots."""
    if Py_ReprEnter(<PyObject*>self) != 0:
        return f"{type(self).__name__}(...)"
    try:
        return f"{type(self).__name__}({value!r})"
    finally:
        Py_ReprLeave(<PyObject*>self)


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

    def __init__(self, obj=None):
        ref_store(word_of(<PyObject*>self), <PyObject*>obj)

    def load(self, ordering=...):
        """Return the object. ValueError for Release and AcqRel."""
        load_order(ordering)
        return load(self)

    def store(self, obj, ordering=...):
        """Refer to `obj` from now on. ValueError for Acquire and AcqRel."""
        store_order(ordering)
        ref_store(word_of(<PyObject*>self), <PyObject*>obj)

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
        return raise_or_bool(ref_wait(
            word_of(<PyObject*>self), <PyObject*>expected, wait_deadline(timeout)))

    def notify_one(self):
        """Wake one thread that waits on this reference, if there is one."""
        unpark_one(<uintptr_t>word_of(<PyObject*>self), NULL, NULL)

    def notify_all(self):
        """Wake all threads that wait on this reference."""
        unpark_all(<uintptr_t>word_of(<PyObject*>self), FS_TOKEN_NORMAL)

    def __repr__(self):
        return value_repr(self, load(self))


# -- AtomicCell --------------------------------------------------------------------

@cython.final
cdef class AtomicCell(_Ref):
    """A value that threads load, store and exchange whole: crossbeam's AtomicCell.

    Compares by `==`. What a call replaces is dropped after the cell has let go of it, so a
    destructor may use the cell. Stores release and loads acquire, at least.
    """

    def __init__(self, value=None):
        ref_store(word_of(<PyObject*>self), <PyObject*>value)

    def load(self):
        """Return the value."""
        return load(self)

    def store(self, value):
        """Set the value."""
        ref_store(word_of(<PyObject*>self), <PyObject*>value)

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
        cdef int64_t deadline = wait_deadline(timeout)
        while True:
            value = load(self)
            if not PyObject_RichCompare(value, expected, Py_EQ):
                return True
            if not raise_or_bool(ref_wait(
                    word_of(<PyObject*>self), <PyObject*>value, deadline)):
                return False

    def notify_one(self):
        """Wake one thread that waits on this cell, if there is one."""
        unpark_one(<uintptr_t>word_of(<PyObject*>self), NULL, NULL)

    def notify_all(self):
        """Wake all threads that wait on this cell."""
        unpark_all(<uintptr_t>word_of(<PyObject*>self), FS_TOKEN_NORMAL)

    def __repr__(self):
        return value_repr(self, load(self))


# -- Arc and Weak --------------------------------------------------------------------
#
# The handles of a value refer to one _Shared; a handle's word is cleared when it is
# released, by whoever comes first (an exchange).  In the _Shared:
#
#     strong  > 0  that many live Arcs; the value is there
#               0  no Arc: the value is gone or being taken by the one who made it 0.
#                  Never rises again (upgrade counts up from 1 or more only), but for
#                  new_cyclic, which starts at 0, and make_mut, which looks and puts 1 back
#     weak    >= 0 that many live Weaks
#              -1  get_mut looks whether the value is its caller's alone; downgrade
#                  waits these few instructions out
#
# The counts are seq_cst: a handle's release happens before the drop of the value.

cdef enum:
    LOCKED = -1


cdef inline fs_atomic_uptr* value_word(_Shared shared) noexcept:
    return word_of(<PyObject*>shared)


cdef int traverse_shared(PyObject* self, visit_function visit, void* arg) noexcept:
    cdef int result = traverse(self, visit, arg)
    if result == 0 and (<_Shared>self).on_drop is not None:
        result = visit(<PyObject*>(<_Shared>self).on_drop, arg)
    return result


cdef int clear_shared(PyObject* self) noexcept:
    clear(self)
    (<_Shared>self).on_drop = None
    return 0


@cython.final
@cython.trashcan(True)
cdef class _Shared:
    def __cinit__(self, on_drop):
        if on_drop is not None and not callable(on_drop):
            raise TypeError("on_drop must be a callable or None")
        self.word = None
        Py_DECREF(Py_None)
        fs_uptr_store_relaxed(value_word(self), 0)  # relaxed: not shared yet
        self.on_drop = on_drop

    def __dealloc__(self):
        clear(<PyObject*>self)


cdef _Shared new_shared(PyObject* value, object on_drop, int64_t strong):
    cdef _Shared shared = _Shared.__new__(_Shared, on_drop)
    ref_store(value_word(shared), value)
    fs_i64_store_relaxed(&shared.strong, strong)  # relaxed: not shared yet
    fs_i64_store_relaxed(&shared.weak, 0)
    return shared


cdef _Shared DANGLING = new_shared(NULL, None, 0)  # what Weak() refers to


cdef bint gain_strong(_Shared shared) noexcept:
    """One more Arc, unless there is none left."""
    cdef int64_t count = fs_i64_load(&shared.strong)
    while count > 0:
        if fs_i64_cas(&shared.strong, &count, count + 1):
            return True
    return False


cdef bint lose_strong(_Shared shared) noexcept:
    """One Arc less; whether it was the last."""
    cdef int64_t count = fs_i64_load(&shared.strong)
    while count > 0:
        if fs_i64_cas(&shared.strong, &count, count - 1):
            return count == 1
    return False  # two threads released one handle, and the other one unwrapped it


cdef bint is_last(_Shared shared) noexcept:
    """Take the count from 1 to 0: the value is the caller's alone, but for Weaks."""
    cdef int64_t one = 1
    return fs_i64_cas(&shared.strong, &one, 0)


cdef object take_value(_Shared shared):
    return fs_given(ref_swap(value_word(shared), NULL))


cdef int let_go(_Shared shared) except -1:
    """Drop the value, for the last Arc."""
    cdef PyObject* result
    value = take_value(shared)
    if shared.on_drop is None:
        return 0
    result = PyObject_CallOneArg(<PyObject*>shared.on_drop, <PyObject*>value)
    if result == NULL:
        PyErr_WriteUnraisable(<PyObject*>shared.on_drop)
    Py_XDECREF(result)
    return 0


cdef object released(_Ref handle):
    raise ReferenceError(f"this {type(handle).__name__} has been released")


cdef _Shared shared_of(_Ref handle):
    """What a live handle refers to."""
    cdef PyObject* shared = ref_load(word_of(<PyObject*>handle))
    if shared == NULL:
        released(handle)
    return <_Shared>fs_given(shared)


cdef _Shared release(_Ref handle):
    """Release the handle: what it referred to, or None if it had been released."""
    shared = fs_given(ref_swap(word_of(<PyObject*>handle), NULL))
    return <_Shared>shared if shared is not None else None


cdef Arc another_arc(_Shared shared):
    """One more Arc of the value, or None when it has been let go."""
    cdef Arc handle = Arc.__new__(Arc)  # first: this may fail, and the count would stay
    if not gain_strong(shared):
        return None
    ref_store(word_of(<PyObject*>handle), <PyObject*>shared)
    return handle


cdef Weak new_weak(_Shared shared):
    cdef Weak handle = Weak.__new__(Weak)
    cdef int64_t count = fs_i64_load(&shared.weak)
    while True:
        if count == LOCKED:
            fs_pause()
            fs_yield()
            count = fs_i64_load(&shared.weak)
        elif fs_i64_cas(&shared.weak, &count, count + 1):
            ref_store(word_of(<PyObject*>handle), <PyObject*>shared)
            return handle


cdef int drop_arc(Arc handle) except -1:
    cdef _Shared shared = release(handle)
    if shared is not None and lose_strong(shared):
        let_go(shared)
    return 0


cdef int drop_weak(Weak handle) except -1:
    cdef _Shared shared = release(handle)
    if shared is not None and shared is not DANGLING:
        # Not LOCKED: that needs a count of 0, and this handle is in it.
        fs_i64_fetch_add(&shared.weak, -1)
    return 0


cdef bint is_unique(_Shared shared) noexcept:
    """One Arc and no Weak.  While it looks at the Arcs no Weak can be made."""
    cdef int64_t none = 0
    cdef bint unique
    if not fs_i64_cas(&shared.weak, &none, LOCKED):
        return False
    unique = fs_i64_load(&shared.strong) == 1
    fs_i64_store(&shared.weak, 0)
    return unique


cdef int64_t weak_count(_Shared shared) noexcept:
    cdef int64_t count = fs_i64_load(&shared.weak)
    return 0 if count == LOCKED or fs_i64_load(&shared.strong) == 0 else count


cdef object copy_of(object value):
    from copy import copy
    return copy(value)


@cython.final
cdef class Arc(_Ref):
    """One of the owners of a value, which is let go when the last owner goes: Rust's Arc.

    `clone()` makes another owner. `drop()`, or the end of a `with` block, releases this one at
    once, in the calling thread; an Arc that becomes garbage is released when the interpreter
    finalizes it, which on a free-threaded build may be later. `on_drop(value)` is called when
    the last Arc lets the value go, not when the value is moved out; its exceptions go to
    sys.unraisablehook. A released Arc raises ReferenceError.

    Give each thread an Arc of its own.
    """

    def __init__(self, value, on_drop=None):
        shared = new_shared(<PyObject*>value, on_drop, 1)
        drop_arc(self)
        ref_store(word_of(<PyObject*>self), <PyObject*>shared)

    def __cinit__(self):
        ref_store(word_of(<PyObject*>self), NULL)

    def __del__(self):
        drop_arc(self)

    @staticmethod
    def new_cyclic(f, on_drop=None):
        """Return an Arc of f(weak), where `weak` is a Weak of the Arc to be.

        Its upgrade() gives None until `f` has returned.
        """
        cdef _Shared shared = new_shared(NULL, on_drop, 0)
        cdef Arc handle = Arc.__new__(Arc)
        value = f(new_weak(shared))
        ref_store(value_word(shared), <PyObject*>value)
        fs_i64_store(&shared.strong, 1)
        ref_store(word_of(<PyObject*>handle), <PyObject*>shared)
        return handle

    @property
    def value(self):
        """The value."""
        cdef PyObject* value = ref_load(value_word(shared_of(self)))
        if value == NULL:
            released(self)
        return fs_given(value)

    def clone(self):
        """Return another owner of the same value."""
        cdef Arc handle = another_arc(shared_of(self))
        if handle is None:
            released(self)
        return handle

    def drop(self):
        """Release this owner; nothing if that was done before."""
        drop_arc(self)

    def __enter__(self):
        shared_of(self)
        return self

    def __exit__(self, exc_type, exc_value, traceback):
        drop_arc(self)

    def strong_count(self):
        """Return how many Arcs own the value now."""
        return fs_i64_load(&shared_of(self).strong)

    def weak_count(self):
        """Return how many Weaks refer to the value now."""
        return weak_count(shared_of(self))

    def downgrade(self):
        """Return a Weak of the value, which does not keep it."""
        return new_weak(shared_of(self))

    def ptr_eq(self, Arc other not None):
        """Return whether both own the same value: not equal values, one."""
        return shared_of(self) is shared_of(other)

    def try_unwrap(self):
        """Move the value out if this is its only Arc: (True, value), else (False, self).

        Moving out releases this Arc, and Weaks can no longer be upgraded.
        """
        cdef _Shared shared = shared_of(self)
        if not is_last(shared):
            return False, self
        release(self)
        return True, take_value(shared)

    def into_inner(self):
        """Release this Arc; return the value if it was the last, else None.

        Of many threads that do so at once, one gets the value.
        """
        cdef _Shared shared = release(self)
        if shared is None:
            released(self)
        return take_value(shared) if lose_strong(shared) else None

    def unwrap_or_clone(self):
        """Release this Arc; return the value if it was the last, else a copy.copy of it."""
        cdef _Shared shared = shared_of(self)
        if is_last(shared):
            release(self)
            return take_value(shared)
        value = copy_of(self.value)
        drop_arc(self)
        return value

    def get_mut(self):
        """Return the value if this is its only Arc and there is no Weak, else None."""
        return self.value if is_unique(shared_of(self)) else None

    def make_mut(self):
        """Make this the value's only handle, and return the value.

        Beside other Arcs, this one goes on with a copy.copy of the value; beside Weaks alone,
        the value moves away from them.
        """
        cdef _Shared shared = shared_of(self)
        cdef _Shared mine
        if not is_last(shared):
            mine = new_shared(NULL, shared.on_drop, 1)
            value = copy_of(self.value)
            ref_store(value_word(mine), <PyObject*>value)
            swap_shared(self, shared, mine)
            if lose_strong(shared):
                let_go(shared)
        elif fs_i64_load(&shared.weak) != 0:
            try:
                mine = new_shared(NULL, shared.on_drop, 1)
            except BaseException:
                fs_i64_store(&shared.strong, 1)  # as it was
                raise
            value = take_value(shared)
            ref_store(value_word(mine), <PyObject*>value)
            swap_shared(self, shared, mine)
        else:
            fs_i64_store(&shared.strong, 1)
            value = self.value
        return value

    def __repr__(self):
        cdef PyObject* shared = ref_load(word_of(<PyObject*>self))
        if shared == NULL:
            return "<released Arc>"
        return value_repr(self, fs_given(ref_load(value_word(<_Shared>fs_given(shared)))))


cdef int swap_shared(Arc handle, _Shared old, _Shared new) except -1:
    if not ref_cas(word_of(<PyObject*>handle), <PyObject*>old, <PyObject*>new):
        # Another thread released the very handle meanwhile.
        let_go(new)
        released(handle)
    return 0


@cython.final
cdef class Weak(_Ref):
    """Weak()
--

    A reference to the value of an Arc that does not keep it: Rust's Weak.

    `Weak()` refers to nothing. Releasing works as for Arc.
    """

    def __cinit__(self):
        ref_store(word_of(<PyObject*>self), <PyObject*>DANGLING)

    def __init__(self):
        pass

    def __del__(self):
        drop_weak(self)

    def upgrade(self):
        """Return an Arc of the value, or None when it has been let go."""
        return another_arc(shared_of(self))

    def clone(self):
        """Return another Weak of the same value."""
        cdef _Shared shared = shared_of(self)
        return Weak() if shared is DANGLING else new_weak(shared)

    def drop(self):
        """Release this Weak; nothing if that was done before."""
        drop_weak(self)

    def __enter__(self):
        shared_of(self)
        return self

    def __exit__(self, exc_type, exc_value, traceback):
        drop_weak(self)

    def strong_count(self):
        """Return how many Arcs own the value now."""
        return fs_i64_load(&shared_of(self).strong)

    def weak_count(self):
        """Return how many Weaks refer to the value now; 0 when no Arc is left."""
        return weak_count(shared_of(self))

    def ptr_eq(self, Weak other not None):
        """Return whether both refer to the same value, or both to nothing."""
        return shared_of(self) is shared_of(other)

    def __repr__(self):
        return "(Weak)" if fs_uptr_load(word_of(<PyObject*>self)) else "<released Weak>"


# -- the shortest way into the hot methods: see atomics.pyx -----------------------------

ctypedef PyObject* (*entry_point)(
    _Ref self, PyObject** args, Py_ssize_t count, PyObject* keywords) noexcept

cdef entry_point general_ref_load, general_ref_store, general_cell_load, general_cell_store


cdef inline PyObject* loaded(_Ref self) noexcept:
    cdef PyObject* target = ref_load(word_of(<PyObject*>self))
    return target if target != NULL else Py_NewRef(Py_None)


cdef inline PyObject* stored(_Ref self, PyObject* target) noexcept:
    ref_store(word_of(<PyObject*>self), target)
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


cdef entry_point enter(object method, entry_point way_in) except NULL:
    """Put `way_in` before the method; what it was before."""
    cdef PyMethodDef* definition = (<PyMethodDescrObject*>method).d_method
    cdef entry_point general = <entry_point>definition.ml_meth
    if definition.ml_flags != METH_FASTCALL | METH_KEYWORDS:
        raise SystemError("Cython has changed its calling convention")
    definition.ml_meth = <void*>way_in
    return general


general_ref_load = enter(AtomicRef.load, enter_ref_load)
general_ref_store = enter(AtomicRef.store, enter_ref_store)
general_cell_load = enter(AtomicCell.load, enter_cell_load)
general_cell_store = enter(AtomicCell.store, enter_cell_store)


# -- slots that Cython cannot be told about ------------------------------------------
#
# It takes a word for an ordinary attribute, which gives the types their place in
# garbage collection; how to look into it is above.

cdef void collect_with(type cls, traverse_function visits, clear_function clears) noexcept:
    (<PyTypeObject*>cls).tp_traverse = visits
    (<PyTypeObject*>cls).tp_clear = clears


for cls in (AtomicRef, AtomicCell):
    collect_with(cls, traverse, clear_to_none)
for cls in (_Ref, Arc, Weak):
    collect_with(cls, traverse, clear)
collect_with(_Shared, traverse_shared, clear_shared)
del cls
GenericAlias = type(list[int])
register_pinnable(AtomicRef, AtomicCell)
