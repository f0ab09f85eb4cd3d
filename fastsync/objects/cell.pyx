"""AtomicRef, AtomicCell, Arc and Weak: words that own a Python object.

The word holds a pointer; bit 0 is a tag:

    0            empty: only while the object is made, cleared or, in a handle, released
    pointer      the word owns one reference
    pointer | 1  the object was immortal when it was stored, and stays so:
                 no thread counts references to it

How a load gets a reference without a lock.  Between reading the pointer and
counting, another thread may take the object out and drop the last reference.
On a build with the GIL no other thread runs in between.  On a free-threaded one
the load announces the pointer first (a hazard pointer, Michael 2004):

    reader                                    writer
    1 p = word                                1 old = exchange(word, new)
    2 slot: 0 -> p                            2 for each slot that says old:
    3 again = word                                count old once more
      again is p:                                 slot: old -> old | GRANTED
    4     count p                                 (failed: uncount)
    5     s = exchange(slot, 0)               3 uncount the word's reference
          s was GRANTED: uncount p
          return p
      again is not p:
    6     s = exchange(slot, 0)
          s was GRANTED: uncount p
          start again with p = again

A slot says an address, and words share the slots.  So a grant may come from the
writer of another word, and be a reference to another object than the one that
the reader has read in 1: that one may have been freed, and its memory given to
a new object.  What holds all the same:

A. A grant is a counted reference to the object that lives at the slot's address.
   It lives there when the writer counts it, because the writer owns a reference;
   and from then until the reader uncounts it, because the grant is one.
B. If the reader's 3 reads p, its word owns an object at p at that moment: call
   it X.  X lives until the reader's 5.  For as long as the word owns it, it
   lives.  The writer that takes it out does its 1 after the reader's 3, so after
   the reader's 2; then it looks at the reader's slot.  It finds p, and counts X
   for the reader while it still owns the word's reference; or it finds GRANTED,
   and that is a reference to X: given before 3, its object lives at 3 (A) at the
   address where X is; given after 3, it was given while X lived there; or it finds
   neither, and the reader has done its 5.
C. So 4 counts X while it lives, and if the slot is GRANTED at 5, the grant is a
   second reference to X: one too many, and not the last.
D. If 3 reads anything else, the reader knows nothing of the object at p: its
   word may never have held it.  A grant is dropped (A: it is a reference to
   whatever lives there) and the load starts again.

So a load returns only what its word held at its 3, during the call.  The same
holds for a slot that is cleared and claimed again, by a reader of any word,
between a writer's look and its 0 -> GRANTED: the writer owns the object at p
throughout, so the grant is what A says.  tests/models/hazard.pml checks these
lines, with two words, two writers and memory that is used again.

No thread waits for another: a reader that is preempted between 2 and 5 makes
writers of the same object write its slot, no more.  A reader starts again only
when a writer has made progress.  Readers write nothing but their slot, which
lies on a cache line that their thread has for itself unless threads outnumber
lines, and the reference count that Python demands; of an immortal object (None,
small ints, types, functions once threads run) not even these.

Tried instead: counting at once when p's memory says that it belongs to this
thread, which alone could then free it.  It spares the slot, 3 ns of 25, and
reads memory that may have been freed: right only as long as the interpreter's
allocator keeps such memory readable.  Returning what was granted in 6, as "the
word has held p": another object at the same address.  A reference count in the
pointer's spare bits (a split count) makes every load two read-modify-writes of the
word that all readers share; a lock bit in the word makes a preempted reader
stop all others.

Garbage collection stops the world, on both builds: never a thread between 1 and
6, where no thread can be stopped.  A word's traverse reports its reference, its
clear takes the object out as any writer does.

Orders.  Everything is seq_cst, which is as strong as any order that a caller may
ask for, and B needs it: the reader's 2 and 3, and the writer's 1 and 2, are each a
write and a read of two different words.  The argument is checked and otherwise ignored.
"""
cimport cython
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from cpython.object cimport Py_EQ, PyObject, PyObject_RichCompare
from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t

from fastsync.objects._pin import register_pinnable
from fastsync.objects.atomics cimport (
    failure_order, load_order, order_code, raise_or_bool, store_order, wait_deadline,
)
from fastsync.raw.c_atomic_order cimport (
    fs_atomic_ptr, fs_i64_cas, fs_i64_fetch_add, fs_i64_load, fs_ptr_cas, fs_ptr_load, FS_SEQ_CST,
    fs_uptr_cas, fs_uptr_exchange, fs_uptr_load,
)
from fastsync.raw.c_python cimport (
    fs_free_object, FS_FREE_THREADED, fs_given, fs_is_immortal, fs_keep_exception,
)
from fastsync.raw.c_wait cimport fs_at_fork, FS_FOREVER, fs_now, fs_yield
from fastsync.raw.parking cimport (
    FS_ACQUIRED, FS_ERROR, FS_PARK_INTERRUPTED, FS_SIGNALS, FS_SPIN, FS_TIMEOUT, FS_TOKEN_NORMAL,
    park, unpark_all, unpark_one,
)
from fastsync.objects._slots cimport publish

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
ctypedef void (*free_function)(PyObject*) noexcept

cdef extern from "Python.h":
    enum:
        METH_FASTCALL
        METH_KEYWORDS
    ctypedef struct PyMethodDef:
        void* ml_meth
        int ml_flags
    ctypedef struct PyMethodDescrObject:
        PyMethodDef* d_method
    unsigned long Py_TPFLAGS_HAVE_GC
    void PyObject_GC_Del(void*) noexcept
    ctypedef struct PyTypeObject:
        unsigned long tp_flags
        traverse_function tp_traverse
        clear_function tp_clear
        free_function tp_dealloc
        free_function tp_finalize
        void (*tp_free)(void*) noexcept
    void PyType_Modified(PyTypeObject*) noexcept
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
                fs_yield()  # no memory: another thread's load will end
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


cdef inline PyObject* settle(
    fs_atomic_uptr* word, fs_atomic_uptr* slot, uintptr_t* seen,
) noexcept:
    """Steps 3 to 6 of a reader that has announced seen[0]: the object, counted; or NULL,
    and seen[0] is what to start again with."""
    cdef PyObject* target = pointer(seen[0])
    cdef uintptr_t again = fs_uptr_load(word)
    if again == seen[0]:
        Py_INCREF(target)
        if fs_uptr_exchange(slot, 0) & GRANTED:
            Py_DECREF(target)  # not the last reference: this thread has two
        return target
    if fs_uptr_exchange(slot, 0) & GRANTED:
        Py_DECREF(target)  # perhaps an object that this word never held
    seen[0] = again
    return NULL


cdef PyObject* ref_load(fs_atomic_uptr* word) noexcept:
    cdef uintptr_t seen = fs_uptr_load(word)
    cdef PyObject* target
    while seen != 0 and not seen & IMMORTAL:
        if not FS_FREE_THREADED:
            return Py_NewRef(pointer(seen))
        target = settle(word, announce(word, seen), &seen)
        if target != NULL:
            return target
    return pointer(seen)  # immortal, which needs no counting, or empty


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
    cdef fs_atomic_uptr* word = &ref.word
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


def _preempted_load(_Ref ref, before, after):
    """A load, preempted after its step 1, where before() runs, and after its step 2, where
    after() runs: for tests, which cannot preempt a thread there. What settle() gave: None
    for "start again", else a tuple with the object."""
    cdef fs_atomic_uptr* word = &ref.word
    cdef uintptr_t seen = fs_uptr_load(word)
    cdef fs_atomic_uptr* slot
    cdef PyObject* target
    before()
    slot = announce(word, seen)
    after()
    target = settle(word, slot, &seen)
    return (fs_given(target),) if target != NULL else None


cdef inline object load(_Ref self):
    return fs_given(ref_load(&self.word))


cdef inline object swap(_Ref self, object new):
    return fs_given(ref_swap(&self.word, <PyObject*>new))


cdef inline bint replace(_Ref self, object expected, object new):
    return ref_cas(&self.word, <PyObject*>expected, <PyObject*>new)


# -- type slots: a word is nothing that Cython could traverse, clear or free

cdef int visit_word(fs_atomic_uptr* word, visit_function visit, void* arg) noexcept:
    # relaxed: the world is stopped
    cdef PyObject* target = pointer(fs_uptr_load_relaxed(word))
    return visit(target, arg) if target != NULL else 0


cdef int traverse_ref(PyObject* self, visit_function visit, void* arg) noexcept:
    return visit_word(&(<_Ref>self).word, visit, arg)


cdef int clear_to_none(PyObject* self) noexcept:
    # A finalizer may still use it: what a load says, a compare-exchange must find.
    ref_store(&(<_Ref>self).word, Py_None)
    return 0


cdef int clear_ref(PyObject* self) noexcept:
    ref_store(&(<_Ref>self).word, NULL)
    return 0


cdef void free_ref(PyObject* self) noexcept:
    fs_free_object(self, free_ref, clear_ref)


cdef int make_collectable(
    type cls, traverse_function traverse, clear_function clear, free_function dealloc,
    free_function finalize,
) except -1:
    """Before the first instance of `cls` is made."""
    cdef PyTypeObject* raw = <PyTypeObject*>cls
    raw.tp_flags |= Py_TPFLAGS_HAVE_GC
    raw.tp_traverse = traverse
    raw.tp_clear = clear
    raw.tp_dealloc = dealloc
    raw.tp_finalize = finalize
    raw.tp_free = PyObject_GC_Del
    PyType_Modified(raw)
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


cdef class _Ref:
    """What owns one object through its word."""

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
        return raise_or_bool(ref_wait(
            &self.word, <PyObject*>expected, wait_deadline(timeout)))

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
        cdef int64_t deadline = wait_deadline(timeout)
        while True:
            value = load(self)
            if not PyObject_RichCompare(value, expected, Py_EQ):
                return True
            if not raise_or_bool(ref_wait(
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


# -- Arc and Weak --------------------------------------------------------------------
#
# The handles of a value refer to one _Shared; a handle's word is emptied when it is
# released, by the first thread that does so (an exchange).  The _Shared counts them in
# one word, the live Arcs (strong) in its high half, the live Weaks in its low half:
#
#     strong  n > 0   that many Arcs; the value is there
#             0       no Arc: the value is gone, or is being taken out by the thread
#                     that counted down.  Never rises again (only new_cyclic starts here)
#             MOVING  make_mut, whose handle is the only Arc, moves the value away from the
#                     Weaks: for a few instructions, in which no Python code runs
#
# One word, so that "one Arc and no Weak" is one load, and no thread waits for another
# one's look.  Users are told to give each thread an Arc of its own.  Threads that share
# a handle all the same may see it change or be released under them: what they do then
# happens before or after that, or raises ReferenceError; no count is lost by it, and
# on_drop is called once.
#
# The counts are seq_cst: what was done through a handle happens before the drop.

cdef enum:
    MOVING = 0x7FFFFFFF

cdef int64_t STRONG = <int64_t>1 << 32


cdef inline int64_t strong_of(int64_t counts) noexcept:
    return counts >> 32


cdef inline int64_t weak_of(int64_t counts) noexcept:
    return counts & (STRONG - 1)


cdef inline bint has_arcs(int64_t counts) noexcept:
    return 0 < strong_of(counts) < MOVING


cdef inline int64_t counts_of(_Shared shared) noexcept:
    return fs_i64_load(&shared.counts)


cdef int refuse_more() except -1:
    raise OverflowError("too many handles of one value")


cdef bint gain_strong(_Shared shared) except -1:
    """One more Arc, unless there is none left."""
    cdef int64_t counts = counts_of(shared)
    while has_arcs(counts):
        if strong_of(counts) == MOVING - 1:
            refuse_more()
        if fs_i64_cas(&shared.counts, &counts, counts + STRONG):
            return True
    return False


cdef bint lose_strong(_Shared shared) noexcept:
    """One Arc less; whether it was the last."""
    cdef int64_t counts = counts_of(shared)
    while has_arcs(counts):
        if fs_i64_cas(&shared.counts, &counts, counts - STRONG):
            return strong_of(counts) == 1
    return False  # threads share a handle, and another one has the value


cdef bint replace_last(_Shared shared, int64_t strong) noexcept:
    """Change the count from 1 to `strong`: then the value is the caller's to take."""
    cdef int64_t counts = counts_of(shared)
    while strong_of(counts) == 1:
        if fs_i64_cas(&shared.counts, &counts, counts + (strong - 1) * STRONG):
            return True
    return False


cdef int gain_weak(_Shared shared) except -1:
    cdef int64_t counts = counts_of(shared)
    while weak_of(counts) < STRONG - 1:
        if fs_i64_cas(&shared.counts, &counts, counts + 1):
            return 0
    refuse_more()


cdef int64_t live_arcs(_Shared shared) noexcept:
    cdef int64_t counts = counts_of(shared)
    return strong_of(counts) if has_arcs(counts) else 0


cdef int64_t live_weaks(_Shared shared) noexcept:
    cdef int64_t counts = counts_of(shared)
    return weak_of(counts) if has_arcs(counts) else 0


@cython.final
cdef class _Shared:
    pass


cdef int traverse_shared(PyObject* self, visit_function visit, void* arg) noexcept:
    cdef int result = visit_word(&(<_Shared>self).value, visit, arg)
    return result if result != 0 else visit_word(&(<_Shared>self).on_drop, visit, arg)


cdef int clear_shared(PyObject* self) noexcept:
    ref_store(&(<_Shared>self).value, NULL)
    ref_store(&(<_Shared>self).on_drop, NULL)
    return 0


cdef void free_shared(PyObject* self) noexcept:
    fs_free_object(self, free_shared, clear_shared)


cdef _Shared new_shared(PyObject* value, object on_drop, int64_t strong):
    cdef _Shared shared
    if on_drop is not None and not callable(on_drop):
        raise TypeError("on_drop must be a callable or None")
    shared = _Shared.__new__(_Shared)
    ref_store(&shared.value, value)
    ref_store(&shared.on_drop, NULL if on_drop is None else <PyObject*>on_drop)
    fs_i64_store_relaxed(&shared.counts, strong * STRONG)  # relaxed: not shared yet
    return shared


cdef object take_value(_Shared shared):
    """The value, for the thread that has made the count 0.  on_drop will not be called."""
    value = fs_given(ref_swap(&shared.value, NULL))
    ref_store(&shared.on_drop, NULL)
    return value


# -- the end of a value
#
# A value may own the last Arc of another value, and so on for millions, also by way of
# on_drop.  So what is to be dropped DEEP inside other drops of its thread is left to
# them: they drop it afterwards, one value after the other.

cdef enum:
    DEEP = 50  # as deep as the interpreter lets its own deallocators go

cdef extern from *:
    """
    static FS_THREAD_LOCAL struct {
        int depth;
        PyObject *later; /* _Shareds whose values are to be dropped, linked by `later` */
    } fs_drops;
    """
    struct drops_of_a_thread:
        int depth
        PyObject* later
    drops_of_a_thread fs_drops


cdef void drop_now(_Shared shared) noexcept:
    cdef PyObject* result
    value = fs_given(ref_swap(&shared.value, NULL))
    on_drop = fs_given(ref_swap(&shared.on_drop, NULL))
    if on_drop is None:
        return
    result = PyObject_CallOneArg(<PyObject*>on_drop, <PyObject*>value)
    if result == NULL:
        PyErr_WriteUnraisable(<PyObject*>on_drop)
    Py_XDECREF(result)


cdef void drop_value(_Shared shared) noexcept:
    """Drop the value, for the thread that has made the count 0."""
    cdef PyObject* next
    if fs_drops.depth >= DEEP:
        shared.later = fs_drops.later
        fs_drops.later = Py_NewRef(<PyObject*>shared)
        return
    fs_drops.depth += 1
    drop_now(shared)
    while fs_drops.later != NULL:
        next = fs_drops.later
        fs_drops.later = (<_Shared>next).later
        drop_now(<_Shared>next)
        Py_DECREF(next)
    fs_drops.depth -= 1


# -- the handles

cdef object released(_Ref handle):
    raise ReferenceError(f"this {type(handle).__name__} has been released")


cdef _Shared shared_of(_Ref handle):
    """What a live handle refers to."""
    cdef PyObject* shared = ref_load(&handle.word)
    if shared == NULL:
        released(handle)
    return <_Shared>fs_given(shared)


cdef int look_again(_Ref handle, _Shared shared) except -1:
    """The handle referred to `shared`, which has no value to give.  Return when it refers
    to another one, after a make_mut in another thread; ReferenceError when it was released."""
    while fs_uptr_load(&handle.word) == <uintptr_t><PyObject*>shared:
        if strong_of(counts_of(shared)) != MOVING:
            released(handle)
        from time import sleep
        sleep(0.00005)  # the other thread was preempted in the middle: let it run
    return 0


cdef object value_of(Arc handle):
    cdef _Shared shared
    cdef PyObject* value
    while True:
        shared = shared_of(handle)
        value = ref_load(&shared.value)
        if value != NULL:
            return fs_given(value)
        look_again(handle, shared)


cdef Arc another_arc(_Shared shared):
    """One more Arc of the value, or None when it is gone."""
    cdef Arc handle = Arc.__new__(Arc)  # first: this may fail, and the count would stay
    if not gain_strong(shared):
        return None
    ref_store(&handle.word, <PyObject*>shared)
    return handle


cdef Weak new_weak(_Shared shared):
    cdef Weak handle = Weak.__new__(Weak)  # first: as above
    gain_weak(shared)
    ref_store(&handle.word, <PyObject*>shared)
    return handle


cdef void end_arc(PyObject* shared) noexcept:
    """An Arc referred to `shared`, a new reference or NULL, and does so no more."""
    if shared != NULL:
        if lose_strong(<_Shared>shared):
            drop_value(<_Shared>shared)
        Py_DECREF(shared)


cdef int drop_arc(PyObject* handle) noexcept:
    end_arc(ref_swap(&(<_Ref>handle).word, NULL))
    return 0


cdef int drop_weak(PyObject* handle) noexcept:
    cdef PyObject* shared = ref_swap(&(<_Ref>handle).word, NULL)
    if shared != NULL:
        if shared != <PyObject*>DANGLING:
            fs_i64_fetch_add(&(<_Shared>shared).counts, -1)
        Py_DECREF(shared)
    return 0


cdef void finalize_arc(PyObject* handle) noexcept:
    # The collector calls it before it clears anything: on_drop sees the value whole.
    fs_keep_exception(handle, drop_arc)


cdef void free_arc(PyObject* handle) noexcept:
    fs_free_object(handle, free_arc, drop_arc)


cdef void free_weak(PyObject* handle) noexcept:
    fs_free_object(handle, free_weak, drop_weak)


for cls in (AtomicRef, AtomicCell, _Ref):
    make_collectable(cls, traverse_ref, clear_to_none, free_ref, NULL)
make_collectable(_Shared, traverse_shared, clear_shared, free_shared, NULL)
make_collectable(Arc, traverse_ref, drop_arc, free_arc, finalize_arc)
make_collectable(Weak, traverse_ref, drop_weak, free_weak, NULL)
del cls

cdef _Shared DANGLING = new_shared(NULL, None, 0)  # what Weak() refers to


cdef object copy_of(object value):
    from copy import copy
    return copy(value)


cdef int refer_instead(Arc handle, _Shared old, _Shared new) except -1:
    """Let the handle refer to `new`, whose only Arc it shall be."""
    if not ref_cas(&handle.word, <PyObject*>old, <PyObject*>new):
        drop_value(new)  # another thread has released this very handle
        released(handle)
    return 0


cdef bint move_value(Arc handle, _Shared old, _Shared new) except -1:
    """make_mut beside Weaks: `new`, which has the value too, for the handle, and none for
    the Weaks.  False when the handle is not the only Arc."""
    cdef bint moved
    if not replace_last(old, MOVING):
        return False
    moved = ref_cas(&handle.word, <PyObject*>old, <PyObject*>new)
    fs_i64_fetch_add(&old.counts, -MOVING * STRONG)
    take_value(old)
    if not moved:
        drop_value(new)  # another thread has released this very handle
        released(handle)
    return True


cdef object copy_value(Arc handle, _Shared old, _Shared new, object value):
    """make_mut beside other Arcs: `new`, with a copy of the value, for the handle."""
    value = copy_of(value)
    ref_store(&new.value, <PyObject*>value)
    refer_instead(handle, old, new)
    if lose_strong(old):
        drop_value(old)
    return value


cdef object make_mut(Arc handle):
    cdef _Shared shared, mine
    cdef PyObject* found
    cdef int64_t counts
    while True:
        shared = shared_of(handle)
        # on_drop first: of a value that is there afterwards it was not taken out yet
        on_drop = fs_given(ref_load(&shared.on_drop))
        found = ref_load(&shared.value)
        value = fs_given(found)
        counts = counts_of(shared)
        if found == NULL or not has_arcs(counts):
            look_again(handle, shared)
            continue
        if counts == STRONG:
            return value
        mine = new_shared(NULL, on_drop, 1)
        if strong_of(counts) > 1:
            return copy_value(handle, shared, mine, value)
        ref_store(&mine.value, <PyObject*>value)
        if move_value(handle, shared, mine):
            return value


@cython.final
cdef class Arc(_Ref):
    """One of the owners of a value, which is dropped when the last owner goes: Rust's Arc.

    `clone()` makes another owner. `drop()`, or the end of a `with` block, releases this one at
    once, in the calling thread; an Arc that becomes garbage is released when the interpreter
    frees it, which on a free-threaded build may be later. `on_drop(value)` is called when the
    last Arc drops the value, not when the value is moved out; its exceptions go to
    sys.unraisablehook. A released Arc raises ReferenceError.

    Give each thread an Arc of its own.
    """

    def __init__(self, value, on_drop=None):
        shared = new_shared(<PyObject*>value, on_drop, 1)
        end_arc(ref_swap(&self.word, <PyObject*>shared))

    @staticmethod
    def new_cyclic(f, on_drop=None):
        """Return an Arc of f(weak), where `weak` is a Weak of the Arc to be.

        Its upgrade() gives None until `f` has returned.
        """
        cdef _Shared shared = new_shared(NULL, on_drop, 0)
        cdef Arc handle = Arc.__new__(Arc)
        value = f(new_weak(shared))
        ref_store(&shared.value, <PyObject*>value)
        fs_i64_fetch_add(&shared.counts, STRONG)
        ref_store(&handle.word, <PyObject*>shared)
        return handle

    @property
    def value(self):
        """The value."""
        return value_of(self)

    def clone(self):
        """Return another owner of the same value."""
        cdef _Shared shared
        cdef Arc handle
        while True:
            shared = shared_of(self)
            handle = another_arc(shared)
            if handle is not None:
                return handle
            look_again(self, shared)

    def drop(self):
        """Release this owner; nothing if that was done before."""
        drop_arc(<PyObject*>self)

    def __enter__(self):
        shared_of(self)
        return self

    def __exit__(self, exc_type, exc_value, traceback):
        drop_arc(<PyObject*>self)

    def strong_count(self):
        """Return how many Arcs own the value now."""
        cdef _Shared shared
        cdef int64_t count
        while True:
            shared = shared_of(self)
            count = live_arcs(shared)
            if count > 0:
                return count
            look_again(self, shared)

    def weak_count(self):
        """Return how many Weaks refer to the value now."""
        return live_weaks(shared_of(self))

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
        # First what may fail.
        moved, kept = (True, value_of(self)), (False, self)
        if not replace_last(shared, 0):
            return kept
        ref_cas(&self.word, <PyObject*>shared, NULL)
        take_value(shared)
        return moved

    def into_inner(self):
        """Release this Arc; return the value if it was the last, else None.

        Of many threads that do so at once, one gets the value.
        """
        cdef PyObject* found = ref_swap(&self.word, NULL)
        if found == NULL:
            released(self)
        shared = <_Shared>fs_given(found)
        return take_value(shared) if lose_strong(shared) else None

    def unwrap_or_clone(self):
        """Release this Arc; return the value if it was the last, else a copy.copy of it."""
        cdef _Shared shared = shared_of(self)
        if replace_last(shared, 0):
            ref_cas(&self.word, <PyObject*>shared, NULL)
            return take_value(shared)
        value = copy_of(value_of(self))
        drop_arc(<PyObject*>self)
        return value

    def get_mut(self):
        """Return the value if this is its only Arc and there is no Weak, else None."""
        cdef _Shared shared = shared_of(self)
        value = value_of(self)
        return value if counts_of(shared) == STRONG else None

    def make_mut(self):
        """Make this the value's only handle, and return the value.

        Beside other Arcs, this one goes on with a copy.copy of the value; beside Weaks alone,
        the value moves away from them.
        """
        return make_mut(self)

    def __repr__(self):
        cdef PyObject* shared = ref_load(&self.word)
        if shared == NULL:
            return "<released Arc>"
        return value_repr(self, fs_given(ref_load(&(<_Shared>fs_given(shared)).value)))


@cython.final
cdef class Weak(_Ref):
    """Weak()
--

    A reference to the value of an Arc that does not keep it: Rust's Weak.

    `Weak()` refers to nothing. Releasing works as for Arc.
    """

    def __cinit__(self):
        ref_store(&self.word, <PyObject*>DANGLING)

    def __init__(self):
        pass

    def upgrade(self):
        """Return an Arc of the value, or None when it is gone."""
        return another_arc(shared_of(self))

    def clone(self):
        """Return another Weak of the same value."""
        cdef _Shared shared = shared_of(self)
        return Weak() if shared is DANGLING else new_weak(shared)

    def drop(self):
        """Release this Weak; nothing if that was done before."""
        drop_weak(<PyObject*>self)

    def __enter__(self):
        shared_of(self)
        return self

    def __exit__(self, exc_type, exc_value, traceback):
        drop_weak(<PyObject*>self)

    def strong_count(self):
        """Return how many Arcs own the value now."""
        return live_arcs(shared_of(self))

    def weak_count(self):
        """Return how many Weaks refer to the value now; 0 when no Arc is left."""
        return live_weaks(shared_of(self))

    def ptr_eq(self, Weak other not None):
        """Return whether both refer to the same value, or both to nothing."""
        return shared_of(self) is shared_of(other)

    def __repr__(self):
        return "(Weak)" if fs_uptr_load(&self.word) else "<released Weak>"


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


GenericAlias = type(list[int])
register_pinnable(AtomicRef, AtomicCell, Arc, Weak)
publish((Arc, AtomicCell, AtomicRef, Weak))
