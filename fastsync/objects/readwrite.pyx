"""What RwLock and ShardedLock share: guards that read, guards of parts, the views.

The life of a guard: see guards.pyx.  Their mark is 0, as any thread may use them, also in
the child of a fork.  But a reset of the lock (for such a child) ends all holds at once, and
`resets` tells the guards of before: they are dead, and end no later hold.
"""
cimport cython
from libc.stdint cimport int64_t, uint32_t, uintptr_t
from cpython.object cimport PyObject, visitproc
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF

from fastsync._watch.trace cimport (
    FS_BLOCK, FS_EXCLUSIVE, fs_section, FS_SHARED, FS_SHARED_RECURSIVE, trace_changed, trace_lock,
    trace_release, trace_released, tracing,
)
from fastsync.objects._slots cimport (
    collect_by, end_in, forbid_instances, fs_traverse, make_context_manager, publish,
)
from fastsync.objects._timeouts cimport deadline_for, deadline_until, lock_deadline
from fastsync.objects._veneer cimport refuse_call, refuse_pickling
from fastsync.objects.guards cimport (
    GUARD_DEAD, GUARD_HELD, _Direct, _Guard, _Mapped, _MappedWriting, _Owner, _Writing,
    allocate_guard, dealloc_guard, finish_guard, granted, is_alive, raise_dead, return_hold,
)
from fastsync.raw.c_atomic cimport (
    fs_atomic_uptr, fs_u32_load_relaxed, fs_u32_store_relaxed, fs_u8_load_relaxed,
    fs_u8_store_release, fs_uptr_cas_acq_rel, fs_uptr_exchange_acq_rel, fs_uptr_load_acquire,
    fs_uptr_load_relaxed, fs_uptr_store_relaxed,
)
from fastsync.raw.c_python cimport Py_NewRef
from fastsync.raw.c_wait cimport FS_FOREVER
from fastsync.raw.parking cimport FS_ACQUIRED, FS_SIGNALS
from fastsync.raw.rwlock cimport (
    fs_rwlock, FS_RWLOCK_FULL, FS_RWLOCK_PARKED, FS_RWLOCK_WRITER, rwlock_read_recursive_until,
    rwlock_read_until, rwlock_try_read, rwlock_try_write, rwlock_unlock_read, rwlock_unlock_write,
    rwlock_upgradable_read_until, rwlock_write_until,
)

from fastsync.objects._pin import register_pinnable


cdef extern from "Python.h":
    PyObject* Py_True
    PyObject* Py_None
    size_t PyVectorcall_NARGS(size_t) noexcept


# -- one word: taking and releasing --------------------------------------------

cdef int take_word(fs_rwlock* word, int way, int64_t deadline) noexcept:
    if way == FS_SHARED:
        return rwlock_read_until(word, deadline, FS_SIGNALS)
    if way == FS_EXCLUSIVE:
        return rwlock_write_until(word, deadline, FS_SIGNALS)
    if way == FS_SHARED_RECURSIVE:
        return rwlock_read_recursive_until(word, deadline, FS_SIGNALS)
    return rwlock_upgradable_read_until(word, deadline, FS_SIGNALS)


cdef bint is_word_wanted(fs_rwlock* word, int way) noexcept:
    # relaxed: a hint; the release looks again
    return (fs_uptr_load_relaxed(&word.state)
            & (FS_RWLOCK_WRITER if way == FS_SHARED else FS_RWLOCK_PARKED)) != 0


# -- one lock, noted for the detector --------------------------------------------

cdef struct take_call:
    PyObject* lock
    int way
    fs_rwlock** word


cdef int take_noted(void* ctx, int64_t deadline) noexcept:
    cdef take_call* call = <take_call*>ctx
    return (<_ReadWriteLock>call.lock).take(call.way, deadline, call.word)


cdef bint take(
    _ReadWriteLock lock, int way, int64_t deadline, fs_rwlock** word, void* holder, int block,
) except -1:
    cdef int result
    cdef take_call call
    if tracing():
        call.lock = <PyObject*>lock
        call.way = way
        call.word = word
        result = trace_lock(lock, way | block, deadline, holder, take_noted, &call)
    else:
        result = lock.take(way, deadline, word)
    if result == FS_RWLOCK_FULL:
        raise OverflowError("too many readers")
    return result


cdef inline uint32_t resets_of(_Guard guard) noexcept:
    # relaxed: a reset is for a process with one thread
    return fs_u32_load_relaxed(&(<_ReadWriteLock>guard.lock).resets)


cdef inline void begin_hold(_Guard guard) noexcept:
    guard.resets = resets_of(guard)
    # release: pairs with the acquire of every use of the guard
    fs_u8_store_release(&guard.life, GUARD_HELD)


cdef bint take_for(_Guard guard, int way, int64_t deadline) except -1:
    """Lock, for a new guard; False when the deadline has passed."""
    guard.way = FS_SHARED if way == FS_SHARED_RECURSIVE else way
    if not take(<_ReadWriteLock>guard.lock, way, deadline, <fs_rwlock**>&guard.word,
                <PyObject*>guard, 0):
        return False
    begin_hold(guard)
    return True


cdef int release_noted(_ReadWriteLock lock, int way, fs_rwlock* word, void* guard, bint fair) noexcept:
    cdef fs_section section
    cdef int result
    trace_release(&section, lock, way, guard)
    result = lock.unlock(way, word, fair)
    trace_released(&section)
    return result


# -- guards ------------------------------------------------------------------

cdef ReadGuard new_read_guard(_Owner lock):
    cdef PyObject* raw = allocate_guard(ReadGuard, lock)
    guard = <ReadGuard>raw
    Py_DECREF(guard)
    return guard


cdef void give_to(_Guard heir, _Guard guard, int way) noexcept:
    """`heir` holds, in this way, what `guard` has given up."""
    heir.way = way
    heir.word = guard.word
    begin_hold(heir)


cdef _Mapped new_mapped(_Guard guard):
    cdef _Mapped heir
    if isinstance(guard, (_Writing, _MappedWriting)):
        heir = MappedWriteGuard.__new__(MappedWriteGuard)
    else:
        heir = MappedReadGuard.__new__(MappedReadGuard)
    heir.lock = guard.lock
    return heir


@cython.final
@cython.no_gc_clear
cdef class ReadGuard(_Direct):
    """A lock held for reading: others may read too, no thread writes.

    Made by RwLock.read() and ShardedLock.read(); ended by unlock(), map(), a `with`
    block, or being dropped.  `value` cannot be set.  Origin: parking_lot's
    RwLockReadGuard."""

    @property
    def rwlock(self):
        """The lock that the guard holds."""
        return lock_of(self)


cdef object lock_of(_Guard guard):
    return guard.lock if is_alive(guard) else raise_dead(guard)


@cython.final
@cython.no_gc_clear
cdef class MappedReadGuard(_Mapped):
    """A lock held for reading, and a part of its value.  Made by map() of a guard that reads."""

    @property
    def rwlock(self):
        """The lock that the guard holds."""
        return lock_of(self)


@cython.final
@cython.no_gc_clear
cdef class MappedWriteGuard(_MappedWriting):
    """A lock held for writing, and a part of its value.  Made by map() of a guard that writes."""

    @property
    def rwlock(self):
        """The lock that the guard holds."""
        return lock_of(self)


# -- views -------------------------------------------------------------------

# Which view.
cdef enum:
    READER = 0
    WRITER = 1

# The default of `timeout`: told from a caller's -1 only to save the conversion.
cdef object UNSET = -1


# A view counts the holds that were taken through it, and ends no others: a guard
# holds its lock until the guard ends.  The readers of a ShardedLock are counted
# beside their words, so that they share no cache line here either.

cdef inline int which_view(int way) noexcept:
    return WRITER if way == FS_EXCLUSIVE else READER


cdef inline bint view_acquire(LockView self, int64_t deadline, int block) except -1:
    cdef fs_rwlock* word
    if not take(self.lock, self.way, deadline, &word, NULL, block):
        return False
    count_hold(self.lock.holds_through(self.way, word))
    return True


cdef inline int view_release(LockView self) except -1:
    cdef fs_rwlock* word
    if not self.lock.uncount(self.way, &word):
        raise RuntimeError(
            "release of a lock that is not held through this view: what a guard holds, the "
            "guard releases" if self.lock.is_held(self.way) else "release unlocked lock")
    if tracing():
        release_noted(self.lock, self.way, word, NULL, False)
    else:
        self.lock.unlock(self.way, word, False)
    return 0


cdef PyObject* view_call(
    PyObject* self, PyObject** args, size_t nargsf, PyObject* names,
) except NULL:
    cdef size_t nargs = PyVectorcall_NARGS(nargsf)
    if names == NULL and nargs == 0:
        view_acquire(<LockView>self, FS_FOREVER, FS_BLOCK)
        return Py_NewRef(Py_True)
    if names == NULL and nargs == 3:
        view_release(<LockView>self)
        return Py_NewRef(Py_None)
    refuse_call(nargs)


# The same for the two sides of an RwLock: what a `with` need not wait for is done at once,
# the rest by view_call.
cdef PyObject* reader_call(
    PyObject* self, PyObject** args, size_t nargsf, PyObject* names,
) except NULL:
    cdef fs_rwlock* word = (<LockView>self).word
    cdef size_t nargs = PyVectorcall_NARGS(nargsf)
    if names == NULL and not tracing():
        if nargs == 0 and rwlock_try_read(word):
            count_hold(&(<LockView>self).lock.viewed[READER])
            return Py_NewRef(Py_True)
        if nargs == 3 and uncount_hold(&(<LockView>self).lock.viewed[READER]):
            rwlock_unlock_read(word)
            return Py_NewRef(Py_None)
    return view_call(self, args, nargsf, names)


cdef PyObject* writer_call(
    PyObject* self, PyObject** args, size_t nargsf, PyObject* names,
) except NULL:
    cdef fs_rwlock* word = (<LockView>self).word
    cdef size_t nargs = PyVectorcall_NARGS(nargsf)
    if names == NULL and not tracing():
        if nargs == 0 and rwlock_try_write(word):
            count_hold(&(<LockView>self).lock.viewed[WRITER])
            return Py_NewRef(Py_True)
        if nargs == 3 and uncount_hold(&(<LockView>self).lock.viewed[WRITER]):
            rwlock_unlock_write(word)
            return Py_NewRef(Py_None)
    return view_call(self, args, nargsf, names)


# A view is made on first use and kept by its lock, so that `with lock.reader:`
# allocates nothing.  It refers to the lock in turn: a lock whose views were used
# is freed by the cycle collector, which drops the views (clear_views).
cdef inline object view(_ReadWriteLock lock, int which):
    # acquire: pairs with the release in make_view
    cdef uintptr_t found = fs_uptr_load_acquire(&lock.views[which])
    return <object><PyObject*>found if found != 0 else make_view(lock, which)


cdef object make_view(_ReadWriteLock lock, int which):
    cdef LockView made = LockView.__new__(LockView)
    cdef uintptr_t found = 0
    made.lock = lock
    made.way = FS_SHARED if which == READER else FS_EXCLUSIVE
    made.call = view_call
    made.word = lock.single_word()
    if made.word != NULL:
        made.call = reader_call if which == READER else writer_call
    # acq_rel: publishes `made`
    if fs_uptr_cas_acq_rel(&lock.views[which], &found, <uintptr_t><PyObject*>made):
        Py_INCREF(made)
        return made
    # acquire: pairs with the acq_rel of the thread that was first, as the failed CAS does not
    found = fs_uptr_load_acquire(&lock.views[which])
    return <object><PyObject*>found


@cython.final
@cython.no_gc_clear
@cython.trashcan(True)
cdef class LockView:
    """The reading or the writing side of a lock, used as a `threading.Lock` is.

    Got from `reader` and `writer` of RwLock and ShardedLock.  It does not know its
    holder: any thread may release it, and it may be what a Condition waits with.  It
    releases only what was taken through it: what a guard holds, the guard releases."""

    def acquire(self, blocking=True, timeout=UNSET):
        """Take the lock in this way; whether it was taken.

        Arguments and errors as `threading.Lock.acquire()`.
        """
        if timeout is UNSET and blocking is True:
            return view_acquire(self, FS_FOREVER, 0)
        return view_acquire(self, lock_deadline(blocking, timeout), 0)

    def release(self):
        """Release the lock; RuntimeError when it is not held through this view."""
        view_release(self)

    def locked(self):
        """Whether a thread holds the lock in this way, at this moment."""
        return self.lock.is_held(self.way)

    def __enter__(self):
        return view_acquire(self, FS_FOREVER, FS_BLOCK)

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        view_release(self)

    def _is_owned(self):
        # What a Condition asks.  Its own probe, a try to acquire, would be wrong:
        # the reading side can be taken while it is held.
        return self.lock.has_holds(self.way)

    def _at_fork_reinit(self):
        self.lock._at_fork_reinit()

    def __reduce__(self):
        refuse_pickling(type(self).__name__)

    def __repr__(self):
        side = "reader" if self.way == FS_SHARED else "writer"
        return f"<{side} of {self.lock!r}>"


# -- the lock ------------------------------------------------------------------

cdef inline ReadGuard read_guard(_ReadWriteLock lock, int way, int64_t deadline):
    cdef ReadGuard guard = new_read_guard(lock)
    return guard if take_for(guard, way, deadline) else None


@cython.no_gc_clear  # see clear_lock
cdef class _ReadWriteLock(_Owner):
    """What RwLock and ShardedLock have in common."""

    def __dealloc__(self):
        clear_views(<PyObject*>self)

    cdef int take(self, int way, int64_t deadline, fs_rwlock** word) noexcept:
        return FS_RWLOCK_FULL

    cdef int unlock(self, int way, fs_rwlock* word, bint fair) noexcept:
        return -1

    cdef bint is_held(self, int way) noexcept:
        return False

    cdef fs_rwlock* single_word(self) noexcept:
        return NULL

    cdef fs_atomic_uptr* holds_through(self, int way, fs_rwlock* word) noexcept:
        return &self.viewed[which_view(way)]

    cdef bint uncount(self, int way, fs_rwlock** word) noexcept:
        word[0] = self.single_word()
        return uncount_hold(&self.viewed[which_view(way)])

    cdef bint has_holds(self, int way) noexcept:
        return fs_uptr_load_relaxed(&self.viewed[which_view(way)]) != 0  # relaxed: a snapshot

    cdef void forget_holds(self) noexcept:
        # relaxed, all: ordered by the reset
        fs_u32_store_relaxed(&self.resets, fs_u32_load_relaxed(&self.resets) + 1)
        fs_uptr_store_relaxed(&self.viewed[READER], 0)
        fs_uptr_store_relaxed(&self.viewed[WRITER], 0)

    cdef bint admits(self, _Guard guard) noexcept:
        """Any thread may use it, and a fork changes nothing; a reset ends it."""
        # relaxed: of a guard that is not alive yet (one that the collector lists) nothing is true
        return fs_u8_load_relaxed(&guard.life) != GUARD_DEAD and guard.resets == resets_of(guard)

    cdef int release(self, _Guard guard, bint fair) noexcept:
        if tracing():
            return release_noted(self, guard.way, <fs_rwlock*>guard.word, <PyObject*>guard, fair)
        return self.unlock(guard.way, <fs_rwlock*>guard.word, fair)

    cdef int take_back(self, _Guard guard, bint block) except -1:
        take(self, guard.way, FS_FOREVER, <fs_rwlock**>&guard.word, <PyObject*>guard, 0)
        guard.resets = resets_of(guard)
        return return_hold(guard)

    cdef _Mapped new_mapped(self, _Guard guard):
        return new_mapped(guard)

    cdef void pass_on(self, _Guard guard, _Mapped heir) noexcept:
        if tracing():
            trace_changed(self, <PyObject*>guard, <PyObject*>heir, guard.way)
        give_to(heir, guard, guard.way)

    cdef bint peek(self, PyObject** value) noexcept:
        cdef fs_rwlock* word
        if self.take(FS_EXCLUSIVE, 0, &word) != FS_ACQUIRED:
            return False
        value[0] = Py_NewRef(<PyObject*>self.value)
        self.unlock(FS_EXCLUSIVE, word, False)
        return True

    def read(self, *, timeout=None):
        """A ReadGuard; waits while a writer holds the lock or waits for it.

        So a thread that reads already may wait for itself here: see read_recursive().

        timeout: seconds to wait at most; TimeoutError when they have passed.
        """
        if timeout is None:
            return read_guard(self, FS_SHARED, FS_FOREVER)
        return granted(read_guard(self, FS_SHARED, deadline_for(timeout)), timeout)

    def try_read(self):
        """As read(); None instead of waiting."""
        return read_guard(self, FS_SHARED, 0)

    def try_read_for(self, seconds, /):
        """As read(); None after `seconds`."""
        return read_guard(self, FS_SHARED, deadline_for(seconds))

    def try_read_until(self, deadline, /):
        """As read(); None when time.monotonic() reaches `deadline`."""
        return read_guard(self, FS_SHARED, deadline_until(deadline))

    def read_recursive(self, *, timeout=None):
        """A ReadGuard; a thread that reads already never waits for it.

        Past writers that wait: many threads that read like this can keep them waiting.

        timeout: seconds to wait at most; TimeoutError when they have passed.
        """
        if timeout is None:
            return read_guard(self, FS_SHARED_RECURSIVE, FS_FOREVER)
        return granted(read_guard(self, FS_SHARED_RECURSIVE, deadline_for(timeout)), timeout)

    def try_read_recursive(self):
        """As read_recursive(); None instead of waiting."""
        return read_guard(self, FS_SHARED_RECURSIVE, 0)

    def try_read_recursive_for(self, seconds, /):
        """As read_recursive(); None after `seconds`."""
        return read_guard(self, FS_SHARED_RECURSIVE, deadline_for(seconds))

    def try_read_recursive_until(self, deadline, /):
        """As read_recursive(); None when time.monotonic() reaches `deadline`."""
        return read_guard(self, FS_SHARED_RECURSIVE, deadline_until(deadline))

    @property
    def reader(self):
        """The reading side, used as a `threading.Lock`: `with lock.reader:`."""
        return view(self, READER)

    @property
    def writer(self):
        """The writing side, used as a `threading.Lock`: `with lock.writer:`."""
        return view(self, WRITER)

    def __repr__(self):
        if self.is_locked_exclusive():
            state = "write-locked"
        else:
            state = "read-locked" if self.is_locked() else "unlocked"
        return f"<{state} {type(self).__name__} at 0x{<uintptr_t><PyObject*>self:x}>"


cdef fs_traverse traverse_the_rest = NULL  # Cython's own tp_traverse


cdef int traverse_lock(PyObject* self, visitproc visit, void* arg) noexcept:
    cdef int which, result
    cdef uintptr_t view
    for which in range(2):
        view = fs_uptr_load_relaxed(&(<_ReadWriteLock>self).views[which])  # relaxed: the world stands
        if view != 0:
            result = visit(<PyObject*>view, arg)
            if result != 0:
                return result
    return traverse_the_rest(self, visit, arg)


cdef int clear_views(PyObject* self) noexcept:
    cdef int which
    cdef uintptr_t view
    for which in range(2):
        view = fs_uptr_exchange_acq_rel(&(<_ReadWriteLock>self).views[which], 0)
        Py_XDECREF(<PyObject*>view)
    return 0


cdef int clear_lock(PyObject* self) noexcept:
    clear_views(self)
    (<_ReadWriteLock>self).value = None
    return 0


def _pinned_with_lock(_ReadWriteLock lock):
    """What pin() makes immortal with a lock."""
    return lock.reader, lock.writer


def _pinned_with_view(LockView view):
    """What pin() makes immortal with one side of a lock."""
    return view.lock, view.lock.reader, view.lock.writer


# -- start of the module ------------------------------------------------------------------

cdef int set_up() except -1:
    cdef LockView probe = LockView.__new__(LockView)
    for cls in (ReadGuard, MappedReadGuard, MappedWriteGuard):
        finish_guard(cls)
    end_in(ReadGuard, dealloc_guard)
    make_context_manager(LockView, <char*>&probe.call - <char*><PyObject*>probe)
    forbid_instances(LockView)
    register_pinnable(LockView, parts=_pinned_with_view)
    return 0


cdef int finish_lock(type cls) except -1:
    global traverse_the_rest
    traverse_the_rest = collect_by(cls, traverse_lock, clear_lock)
    register_pinnable(cls, parts=_pinned_with_lock)
    return 0


set_up()
publish((LockView, MappedReadGuard, MappedWriteGuard, ReadGuard))
