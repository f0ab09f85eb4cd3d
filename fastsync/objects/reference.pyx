"""A word that owns a reference to a Python object: what AtomicRef, AtomicCell, Arc and
Weak are made of.

The word holds a pointer; bit 0 is a tag:

    0            empty: only while the object is made, cleared or, in a handle, released
    pointer      the word owns one reference
    pointer | 1  the object was immortal when it was stored, and stays so:
                 no thread counts references to it

How a load gets a reference without a lock.  Between reading the pointer and
counting, another thread may take the object out and drop the last reference.
On a build with the GIL no other thread runs in between.  On a free-threaded one
the load announces the pointer first (in a hazard pointer, Michael 2004; `hazard` here):

    reader                                    writer
    1 p = word                                1 old = exchange(word, new)
    2 hazard: 0 -> p                          2 for each hazard that says old:
    3 again = word                                count old once more
      again is p:                                 hazard: old -> old | GRANTED
    4     count p                                 (failed: uncount)
    5     s = exchange(hazard, 0)             3 uncount the word's reference
          s was GRANTED: uncount p
          return p
      again is not p:
    6     s = exchange(hazard, 0)
          s was GRANTED: uncount p
          start again with p = again

A hazard says an address, and words share the hazards.  So a grant may come from
the writer of another word, and be a reference to another object than the one that
the reader has read in 1: that one may have been freed, and its memory given to
a new object.  What holds all the same:

A. A grant is a counted reference to the object that lives at the hazard's address.
   It lives there when the writer counts it, because the writer owns a reference;
   and from then until the reader uncounts it, because the grant is one.
B. If the reader's 3 reads p, its word owns an object at p at that moment: call
   it X.  X lives until the reader's 5.  For as long as the word owns it, it
   lives.  The writer that takes it out does its 1 after the reader's 3, so after
   the reader's 2; then it looks at the reader's hazard.  It finds p, and counts X
   for the reader while it still owns the word's reference; or it finds GRANTED,
   and that is a reference to X: given before 3, its object lives at 3 (A) at the
   address where X is; given after 3, it was given while X lived there; or it finds
   neither, and the reader has done its 5.
C. So 4 counts X while it lives, and if the hazard is GRANTED at 5, the grant is a
   second reference to X: one too many, and not the last.
D. If 3 reads anything else, the reader knows nothing of the object at p: its
   word may never have held it.  A grant is dropped (A: it is a reference to
   whatever lives there) and the load starts again.

So a load returns only what its word held at its 3, during the call.  The same
holds for a hazard that is cleared and claimed again, by a reader of any word,
between a writer's look and its 0 -> GRANTED: the writer owns the object at p
throughout, so the grant is what A says.  tests/models/hazard.pml checks these
lines, with two words, two writers and memory that is used again.

No thread waits for another: a reader that is preempted between 2 and 5 makes
writers of the same object write its hazard, no more.  A reader starts again only
when a writer has made progress.  Readers write nothing but their hazard, which
lies on a cache line that their thread has for itself unless threads outnumber
lines, and the reference count that Python demands; of an immortal object (None,
small ints, types, functions once threads run) not even these.

Tried instead: counting at once when p's memory says that it belongs to this
thread, which alone could then free it.  It spares the hazard, 3 ns of 25, and
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
from cpython.object cimport PyObject
from libc.stdint cimport uint32_t, uint64_t, uintptr_t

from fastsync.raw.c_atomic_order cimport (
    fs_atomic_ptr, fs_ptr_cas, fs_ptr_load, fs_uptr_cas, fs_uptr_exchange, fs_uptr_load,
)
from fastsync.raw.c_python cimport fs_free_object, FS_FREE_THREADED, fs_given, fs_is_immortal
from fastsync.raw.c_thread_index cimport fs_thread_index
from fastsync.raw.c_wait cimport fs_at_fork, fs_yield

from types import GenericAlias

cdef extern from "fastsync/atomic.h" nogil:
    # relaxed: for words that no other thread can see or change now
    uintptr_t fs_uptr_load_relaxed(const fs_atomic_uptr*) noexcept
    void fs_uptr_store_relaxed(fs_atomic_uptr*, uintptr_t) noexcept

cdef extern from "Python.h":
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
    PyObject* Py_None
    int Py_ReprEnter(PyObject*) except -1
    void Py_ReprLeave(PyObject*) noexcept


# -- hazard pointers -----------------------------------------------------------
#
# A word's address picks one of GROUPS groups, so that a writer looks at a few
# hazards only.  In a group each thread starts at its own line.  Two hazards to a
# line keep a writer's look short (16 loads, about 10 ns); when more readers than
# that are under way in one group, threads get preempted there, the group grows by
# a chunk and keeps it.

cdef enum:
    GROUPS = 16    # a power of two
    LINES = 8      # a power of two
    TO_A_LINE = 2
    LINE_WORDS = 8  # 64 bytes; two words of memory where pointers are 4
    CHUNK = 64

cdef struct hazard_chunk:
    fs_atomic_ptr next
    fs_atomic_uptr hazards[CHUNK]

cdef struct hazard_group:
    fs_atomic_uptr lines[LINES * LINE_WORDS]
    fs_atomic_ptr more      # hazard_chunk*
    fs_atomic_uptr unused[LINE_WORDS - 1]

cdef hazard_group* groups = NULL


cdef inline hazard_group* group_of(fs_atomic_uptr* word) noexcept:
    # Fibonacci hashing: the high bits of address * 2^64/phi.
    return &groups[(<uint64_t><uintptr_t>word * <uint64_t>0x9E3779B97F4A7C15u) >> 60]


cdef inline bint take_hazard(fs_atomic_uptr* hazard, uintptr_t target) noexcept:
    cdef uintptr_t free = 0
    return fs_uptr_load_relaxed(hazard) == 0 and fs_uptr_cas(hazard, &free, target)


cdef fs_atomic_uptr* announce(fs_atomic_uptr* word, uintptr_t target) noexcept:
    """Step 2 of a reader: the hazard that now says `target`."""
    cdef hazard_group* group = group_of(word)
    cdef fs_atomic_uptr* line
    cdef uint32_t first = fs_thread_index()
    cdef int i
    for i in range(LINES):
        line = &group.lines[((first + <uint32_t>i) & (LINES - 1)) * LINE_WORDS]
        if take_hazard(line, target):
            return line
        if take_hazard(line + 1, target):
            return line + 1
    return announce_in_chunk(group, target)


cdef fs_atomic_uptr* announce_in_chunk(hazard_group* group, uintptr_t target) noexcept:
    """All hazards of the lines are taken: by threads preempted in a load, nearly always."""
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
            if take_hazard(&chunk.hazards[i], target):
                return &chunk.hazards[i]
        link = &chunk.next


cdef inline void grant(fs_atomic_uptr* hazard, PyObject* old) noexcept:
    cdef uintptr_t target = <uintptr_t>old
    if fs_uptr_load(hazard) != target:
        return
    Py_INCREF(old)
    if not fs_uptr_cas(hazard, &target, target | GRANTED):
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
            grant(&chunk.hazards[i], old)
        chunk = <hazard_chunk*>fs_ptr_load(&chunk.next)


cdef void after_fork_in_child() noexcept nogil:
    # Hazards of threads that do not exist here: what they were granted is lost,
    # but their hazards come back.
    cdef hazard_chunk* chunk
    cdef int g, i
    for g in range(GROUPS):
        for i in range(LINES * LINE_WORDS):
            fs_uptr_store_relaxed(&groups[g].lines[i], 0)  # relaxed: one thread
        chunk = <hazard_chunk*>fs_ptr_load(&groups[g].more)
        while chunk != NULL:
            for i in range(CHUNK):
                fs_uptr_store_relaxed(&chunk.hazards[i], 0)
            chunk = <hazard_chunk*>fs_ptr_load(&chunk.next)


cdef void nothing() noexcept nogil:
    pass


# Each group, and each line in it, begins where a cache line does.
cdef extern from *:
    """
    #define FS_FILLS_CACHE_LINES(group) _Static_assert( \\
        sizeof(group) % 64 == 0 || sizeof(void *) < 8, "groups stand on cache lines")
    """
    void FS_FILLS_CACHE_LINES(hazard_group) noexcept


cdef int set_up_hazards() except -1:
    global groups
    FS_FILLS_CACHE_LINES(groups[0])
    cdef uintptr_t memory = <uintptr_t>PyMem_RawCalloc(GROUPS + 1, sizeof(hazard_group))
    if memory == 0 or fs_at_fork(nothing, nothing, after_fork_in_child) != 0:
        raise MemoryError
    # On cache lines; lives as long as the process.
    groups = <hazard_group*>((memory + 63) & ~<uintptr_t>63)
    return 0


set_up_hazards()


# -- the word ------------------------------------------------------------------

cdef inline uintptr_t owned(PyObject* target) noexcept:
    """The word that owns a new reference to `target`."""
    if target == NULL:
        return 0
    if fs_is_immortal(target):
        return <uintptr_t>target | IMMORTAL
    Py_INCREF(target)
    return <uintptr_t>target


cdef PyObject* ref_swap(fs_atomic_uptr* word, PyObject* new) noexcept:
    cdef uintptr_t old = fs_uptr_exchange(word, owned(new))
    if old != 0 and not old & IMMORTAL:
        protect(word, pointer(old))
    return pointer(old)


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
    """Be a reader preempted in a load, in every hazard of the lines and a chunk, while `new` is
    stored; in how many the writer granted a reference, and of how many: for tests, which cannot
    be preempted there."""
    cdef fs_atomic_uptr* word = &ref.word
    cdef object old = <object>pointer(fs_uptr_load(word))
    cdef fs_atomic_uptr* hazards[LINES * TO_A_LINE + CHUNK]
    cdef int granted = 0, i
    for i in range(LINES * TO_A_LINE + CHUNK):
        hazards[i] = announce(word, <uintptr_t><PyObject*>old)
    ref_store(word, <PyObject*>new)
    for i in range(LINES * TO_A_LINE + CHUNK):
        if fs_uptr_exchange(hazards[i], 0) & GRANTED:
            granted += 1
            Py_DECREF(<PyObject*>old)
    return granted, LINES * TO_A_LINE + CHUNK


def _preempted_load(_Ref ref, before, after):
    """A load, preempted after its step 1, where before() runs, and after its step 2, where
    after() runs: for tests, which cannot preempt a thread there. What settle() gave: None
    for "start again", else a tuple with the object."""
    cdef fs_atomic_uptr* word = &ref.word
    cdef uintptr_t seen = fs_uptr_load(word)
    cdef fs_atomic_uptr* hazard
    cdef PyObject* target
    before()
    hazard = announce(word, seen)
    after()
    target = settle(word, hazard, &seen)
    return (fs_given(target),) if target != NULL else None


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


# -- the base of the types ---------------------------------------------------------

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


make_collectable(_Ref, traverse_ref, clear_to_none, free_ref, NULL)
