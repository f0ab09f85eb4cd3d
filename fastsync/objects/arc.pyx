"""Arc and Weak: the owners of a value, and references that do not own it.

The handles of a value refer to one _Shared; a handle's word is emptied when it is
released, by the first thread that does so (an exchange).  The _Shared counts them in
one word, the live Arcs (strong) in its high half, the live Weaks in its low half:

    strong  n > 0   that many Arcs; the value is there
            0       no Arc: the value is gone, or is being taken out by the thread
                    that counted down.  Never rises again (only new_cyclic starts here)
            MOVING  make_mut, whose handle is the only Arc, moves the value away from the
                    Weaks: for a few instructions, in which no Python code runs

One word, so that "one Arc and no Weak" is one load, and no thread waits for another
one's look.  Users are told to give each thread an Arc of its own.  Threads that share
a handle all the same may see it change or be released under them: what they do then
happens before or after that, or raises ReferenceError; no count is lost by it, and
on_drop is called once.

The counts are seq_cst: what was done through a handle happens before the drop.
"""
cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uintptr_t

from fastsync.objects._pin import register_pinnable
from fastsync.objects.reference cimport (
    _Ref, make_collectable, ref_cas, ref_load, ref_store, ref_swap, traverse_ref, value_repr,
    visit_function, visit_word,
)
from fastsync.raw.c_atomic_order cimport fs_i64_cas, fs_i64_fetch_add, fs_i64_load, fs_uptr_load
from fastsync.raw.c_python cimport fs_free_object, fs_given, fs_keep_exception, Py_NewRef
from fastsync.objects._slots cimport publish

cdef extern from "fastsync/atomic.h" nogil:
    # relaxed: for a word that no other thread can see now
    void fs_i64_store_relaxed(fs_atomic_i64*, int64_t) noexcept

cdef extern from "Python.h":
    void Py_DECREF(PyObject*) noexcept
    void Py_XDECREF(PyObject*) noexcept
    void PyErr_WriteUnraisable(PyObject*) noexcept
    PyObject* PyObject_CallOneArg(PyObject*, PyObject*) noexcept


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


make_collectable(_Shared, traverse_shared, clear_shared, free_shared, NULL)
make_collectable(Arc, traverse_ref, drop_arc, free_arc, finalize_arc)
make_collectable(Weak, traverse_ref, drop_weak, free_weak, NULL)

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


register_pinnable(Arc, Weak)
publish((Arc, Weak))
