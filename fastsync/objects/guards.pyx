"""The guards of Mutex, FairMutex, ReentrantMutex, RwLock and ShardedLock: one protocol.

A lock owns a value, and who locks it gets a guard: the only way to the value.
The life of a guard is one byte:

    HELD            it holds its lock and may be used
    HELD | BLOCK    the same; the guard of a `with` block of the lock itself
    ... | BUSY      the same, and a thread is reading or replacing the value
    AWAY            it has lent its hold: to a wait on a Condvar, to unlocked() or
    AWAY | BLOCK    to bump(), which will lock again; or to an upgrade
    DEAD            it holds nothing and never will

    step                         what makes it                     who may
    -> HELD                      lock(), read(), map(), ...        its maker        begin
    -> HELD|BLOCK                `with lock`                       its maker        begin
    HELD -> DEAD                 unlock(), map(), leak(), the end  any thread (1)   end
                                 of its own `with`, being dropped,
                                 a downgrade
    HELD -> AWAY                 lending                           any thread (1)   lend
    AWAY -> HELD                 the lock was taken again          the borrower     return_hold
    AWAY -> DEAD                 its own `with` ends meanwhile;    any thread       leave_guard
                                 or a signal handler raised while  the borrower     take_back
                                 the lock was taken again
    HELD|BLOCK -> DEAD           the end of the `with` block       see below
    HELD|BLOCK <-> AWAY|BLOCK    lending                           see below
    HELD.. <-> HELD..|BUSY       access to the value               any thread (1)

    (1) that the lock admits: of a ReentrantMutex the one that holds it.

Every step out of HELD or AWAY is a compare-and-swap: of two threads that end or lend
one guard one succeeds, and it alone unlocks.  No step leads out of BUSY but that of the
thread that is in it.

A guard of a block ends with its block, and only there.  The lock refers to it, as there
may be no `as`; the thread that has taken that reference out of the lock, and no other,
may change HELD|BLOCK (mutex.pyx; reentrant.pyx).  It must come back from AWAY: its block
will end.  An exception of a signal handler therefore leaves unlocked(), bump() or a wait
when the lock is locked again.  Of another guard it leaves unlocked() and bump() at once,
and the guard is dead.

Fork.  A guard that was made before a fork has another mark than `here`; its lock says
what it still holds in this process (admits).

The value is touched only under BUSY, where nothing can run Python, wait or stop for the
collector: reading it and counting the reference are one step to every other thread, so a
misused guard cannot free what another reads, nor read or write after its hold has ended.
(With the GIL that is so without BUSY.)  BUSY is over within instructions, and never
inherited by a fork: other threads are stopped for it outside of such a step.
"""
cimport cython
from libc.stdint cimport uint8_t, uintptr_t
from cpython.exc cimport PyErr_Occurred
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF

from fastsync._watch.trace cimport trace_block, trace_made, tracing
from fastsync.objects._slots cimport discard, forbid_instances, make_context_manager, retire
from fastsync.objects._veneer cimport refuse_call, refuse_pickling
from fastsync.raw.c_atomic cimport (
    fs_atomic_u8, fs_pause, fs_u8_cas_acq_rel, fs_u8_cas_acquire, fs_u8_load_acquire,
    fs_u8_load_relaxed, fs_u8_store_release,
)
from fastsync.raw.c_python cimport FS_FREE_THREADED
from fastsync.raw.c_wait cimport fs_at_fork, fs_thread_id
from fastsync.raw.mutex cimport FS_MUTEX_MARK
from fastsync.raw.parking cimport deadline_after, FS_PLAIN, park

from types import GenericAlias

from fastsync.objects._mapping import Part, record

cdef extern from "Python.h":
    PyObject* Py_None
    size_t PyVectorcall_NARGS(size_t) noexcept

# What allocate_guard takes for granted.
cdef extern from *:
    """
    #ifdef __GNUC__
    #define FS_LOCK_IS_BEHIND_CALL(guard) _Static_assert( \\
        offsetof(__typeof__(*(guard)), lock) \\
            == offsetof(__typeof__(*(guard)), call) + sizeof((guard)->call), \\
        "allocate_guard writes `lock` directly behind `call`")
    #else
    #define FS_LOCK_IS_BEHIND_CALL(guard) ((void)(guard))
    #endif
    """
    void FS_LOCK_IS_BEHIND_CALL(_Guard) noexcept


# -- this process -------------------------------------------------------------

# Marks are bits of FS_MUTEX_MARK, as a mutex has one in its word.  63 forks deep they begin
# again: then force_unlock() refuses what was held 63 processes ago.
here = 4


cdef void nothing() noexcept nogil:
    pass


cdef void after_fork_in_child() noexcept nogil:
    global here, survivor
    here = 4 if here == FS_MUTEX_MARK else here + 4
    survivor = fs_thread_id()


# -- refusals -----------------------------------------------------------------

cdef int raise_dead(_Guard guard) except -1:
    # acquire: as in is_alive
    cdef uint8_t life = fs_u8_load_acquire(&guard.life)
    if life & GUARD_HELD:
        raise RuntimeError("this thread does not hold the lock of this guard")
    if life & GUARD_AWAY:
        raise RuntimeError(
            "this guard does not hold its lock at the moment: a wait, unlocked() or an upgrade does")
    raise RuntimeError("this guard holds no lock: it was released, mapped, leaked or changed")


cdef int raise_of_block() except -1:
    raise RuntimeError(
        "the hold of a `with` block ends with the block: "
        "use lock() for a guard that ends earlier, or that can be mapped or leaked")


cdef int raise_left() except -1:
    raise RuntimeError("the `with` of this guard has ended meanwhile: it is dead")


cdef object granted(object guard, object timeout):
    if guard is None:
        raise TimeoutError(f"the lock was not free within {timeout} seconds")
    return guard


cdef inline int check_alive(_Guard guard) except -1:
    return 0 if is_alive(guard) else raise_dead(guard)


cdef inline bint is_of_block(_Guard guard) noexcept:
    return fs_u8_load_acquire(&guard.life) & GUARD_BLOCK  # acquire: as in is_alive


cdef int check_free(_Guard guard) except -1:
    """Alive, and not the guard of a block."""
    check_alive(guard)
    return raise_of_block() if is_of_block(guard) else 0


# -- access to the value --------------------------------------------------------

cdef int wait_a_little(int tries) noexcept:
    """For another thread to leave BUSY; that takes it instructions, if it runs."""
    if tries < 100:
        fs_pause()
    else:
        # It was preempted.  Detached and asleep we are in the way of neither the
        # collector nor a thread of a lower priority.
        park(<uintptr_t>&tries, NULL, NULL, NULL, NULL, 0, deadline_after(50_000), FS_PLAIN, NULL)
    return tries + 1


cdef inline uint8_t begin_access(_Guard guard) noexcept:
    """DEAD, or what to give end_access(); the value is ours until then."""
    cdef int tries = 0
    cdef uint8_t seen
    if not is_admitted(guard):
        return GUARD_DEAD
    seen = fs_u8_load_relaxed(&guard.life)  # relaxed: the CAS decides; with the GIL it orders
    if not FS_FREE_THREADED:
        return seen if seen & GUARD_HELD else GUARD_DEAD
    while seen & GUARD_HELD:
        if seen & GUARD_BUSY:
            tries = wait_a_little(tries)
            seen = fs_u8_load_relaxed(&guard.life)  # relaxed: as above
        # acquire: pairs with the releases in end_access and begin
        elif fs_u8_cas_acquire(&guard.life, &seen, seen | GUARD_BUSY):
            return seen
    return GUARD_DEAD


cdef inline void end_access(_Guard guard, uint8_t life) noexcept:
    if FS_FREE_THREADED:
        # release: pairs with the acquires in begin_access and step
        fs_u8_store_release(&guard.life, life)


cdef object read_value(_Guard guard):
    cdef uint8_t life = begin_access(guard)
    if life == GUARD_DEAD:
        raise_dead(guard)
    value = guard.lock.value
    end_access(guard, life)
    return value


cdef int write_value(_Guard guard, object value) except -1:
    cdef uint8_t life = begin_access(guard)
    if life == GUARD_DEAD:
        raise_dead(guard)
    old = guard.lock.value  # so that nothing is freed before end_access
    guard.lock.value = value
    end_access(guard, life)
    return 0


# -- ending ---------------------------------------------------------------------

cdef int release(_Guard guard, bint fair) except -1:
    """Unlock; the guard has ended, or lent its hold to the caller."""
    if guard.lock.release(guard, fair) < 0:
        step(guard, GUARD_AWAY, GUARD_DEAD)
        raise RuntimeError("the lock of this guard was released by other means")
    return 0


cdef int end(_Guard guard) except -1:
    """The guard is dead, and its lock the caller's to release or to pass on."""
    if leave_held(guard, GUARD_HELD, GUARD_DEAD):
        return 0
    return raise_of_block() if is_of_block(guard) else raise_dead(guard)


cdef int unlock(_Guard guard, bint fair) except -1:
    end(guard)
    return release(guard, fair)


cdef int enter_guard(_Guard guard) except -1:
    """The beginning of a guard's own `with`, which will end it."""
    check_free(guard)
    if tracing():
        trace_block(guard.lock, <PyObject*>guard)
    return 0


cdef int leave_guard(_Guard guard) except -1:
    if leave_held(guard, GUARD_HELD, GUARD_DEAD):
        return release(guard, False)
    # Ended in the block: nothing more to do.  Or AWAY: the borrower finds it dead.
    if not step(guard, GUARD_AWAY, GUARD_DEAD) and is_of_block(guard):
        raise_of_block()
    return 0


cdef PyObject* guard_call(
    PyObject* self, PyObject** args, size_t nargsf, PyObject* names,
) except NULL:
    cdef size_t nargs = PyVectorcall_NARGS(nargsf)
    if names == NULL and nargs == 0:
        enter_guard(<_Guard>self)
        return Py_NewRef(self)
    if names == NULL and nargs == 3:
        leave_guard(<_Guard>self)
        return Py_NewRef(Py_None)
    refuse_call(nargs)


# -- lending: unlocked(), bump(), Condvar ---------------------------------------

cdef bint lend(_Guard guard) except -1:
    """The guard is AWAY, its lock still locked, the hold the caller's; whether it is a block's."""
    if leave_held(guard, GUARD_HELD, GUARD_AWAY):
        return False
    if not guard.lock.lend_block(guard):
        raise_dead(guard)
    return True


cdef bint return_hold(_Guard guard) noexcept:
    """The lock is locked again.  False when the guard is dead: its `with` has ended."""
    return step(guard, GUARD_AWAY, GUARD_HELD)


cdef int take_back(_Guard guard, bint block) except -1:
    """Lock again, for the guard; `block` is what lend() said."""
    cdef bint alive
    try:
        alive = guard.lock.take_back(guard, block)
    except:
        step(guard, GUARD_AWAY, GUARD_DEAD)
        raise
    if not alive:
        guard.lock.release(guard, False)
        raise_left()
    return -1 if block and PyErr_Occurred() else 0


cdef int bump(_Guard guard) except -1:
    cdef bint block
    check_alive(guard)
    if not guard.lock.is_wanted(guard):
        return 0
    block = lend(guard)
    release(guard, True)
    return take_back(guard, block)


cdef enum:
    OUTSIDE = 0
    ENTERING = 1
    INSIDE = 2


@cython.final
@cython.no_gc_clear
@cython.trashcan(True)
cdef class _Unlocked:
    """The context manager of unlocked()."""
    cdef _Guard guard
    cdef bint block           # what lend() said
    cdef bint fair
    cdef fs_atomic_u8 state

    def __enter__(self):
        cdef uint8_t state = OUTSIDE
        # acquire: pairs with __exit__
        if not fs_u8_cas_acquire(&self.state, &state, ENTERING):
            raise RuntimeError("unlocked() was entered before")
        try:
            self.block = lend(self.guard)
        except:
            fs_u8_store_release(&self.state, OUTSIDE)  # release: pairs with the CAS above
            raise
        fs_u8_store_release(&self.state, INSIDE)  # release: pairs with __exit__
        release(self.guard, self.fair)

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        cdef uint8_t state = INSIDE
        # acq_rel: pairs with __enter__; of two threads that leave it one gets past this
        if not fs_u8_cas_acq_rel(&self.state, &state, OUTSIDE):
            raise RuntimeError("unlocked() was not entered")
        # acquire: as in is_alive.  Only to raise at once: take_back looks again.
        if not self.block and fs_u8_load_acquire(&self.guard.life) == GUARD_DEAD:
            raise_left()
        take_back(self.guard, self.block)


cdef object make_unlocked(_Guard guard, bint fair):
    cdef _Unlocked result
    check_alive(guard)
    result = _Unlocked.__new__(_Unlocked)
    result.guard = guard
    result.fair = fair
    return result


# -- parts of the value -----------------------------------------------------------

cdef object map_guard(_Guard guard, object function, bint optional):
    """A guard of the part that `function` names, in place of this one."""
    cdef _Mapped heir
    check_free(guard)
    steps = record(function)
    if steps is None:
        if optional:
            return None
        raise TypeError("the function must return a part of its argument, not None")
    part = (<_Mapped>guard).part if isinstance(guard, _Mapped) else None
    if steps:
        part = Part(read_value(guard) if part is None else part.get(), steps)
    heir = guard.lock.new_mapped(guard)
    heir.part = part
    end(guard)
    guard.lock.pass_on(guard, heir)
    return heir


cdef object read_part(_Mapped guard):
    if guard.part is None:
        return read_value(guard)
    check_alive(guard)
    return guard.part.get()


cdef int write_part(_Mapped guard, object value) except -1:
    if guard.part is None:
        return write_value(guard, value)
    check_alive(guard)
    guard.part.set(value)
    return 0


# -- the types ----------------------------------------------------------------------

@cython.trashcan(True)  # a chain of them is dropped without a deep stack
cdef class _Owner:
    """What all locks that own a value have in common."""

    def __cinit__(self, value=None):
        self.value = value
        if tracing():
            trace_made(self)

    cdef bint admits(self, _Guard guard) noexcept:
        return True

    cdef int release(self, _Guard guard, bint fair) noexcept:
        return -1

    cdef int take_back(self, _Guard guard, bint block) except -1:
        return return_hold(guard)

    cdef bint is_wanted(self, _Guard guard) noexcept:
        return False

    cdef bint lend_block(self, _Guard guard) noexcept:
        return False

    cdef void drop(self, _Guard guard) noexcept:
        if leave_held(guard, GUARD_HELD, GUARD_DEAD):
            self.release(guard, False)

    cdef _Mapped new_mapped(self, _Guard guard):
        return None

    cdef void pass_on(self, _Guard guard, _Mapped heir) noexcept:
        begin(heir, GUARD_HELD)

    cdef bint peek(self, PyObject** value) noexcept:
        return False

    def into_inner(self):
        """The value, which stays in place.  RuntimeError while a thread holds the lock."""
        cdef PyObject* raw
        if not self.peek(&raw):
            raise RuntimeError("into_inner of a lock that is held")
        value = <object>raw
        Py_DECREF(value)
        return value

    @classmethod
    def __class_getitem__(cls, item, /):
        return GenericAlias(cls, item)

    def __reduce__(self):
        refuse_pickling(type(self).__name__)


@cython.no_gc_clear  # its end needs the lock
@cython.trashcan(True)  # as _Owner
cdef class _Guard:
    """What all guards have in common."""

    def __cinit__(self):
        self.call = guard_call

    def __dealloc__(self):
        # relaxed: the references that have gone order it
        if fs_u8_load_relaxed(&self.life) == GUARD_HELD:
            self.lock.drop(self)

    def unlock(self):
        """Release the lock; the guard is dead.

        RuntimeError for the guard of a `with` block of the lock.  Ordering: what was
        done under the lock is visible to the next that locks it (release).
        """
        unlock(self, False)

    def unlock_fair(self):
        """As unlock(), and hand the lock to the thread that has waited longest, if any waits."""
        unlock(self, True)

    def map(self, function, /):
        """Turn it into a guard of a part of the value; this one is dead then.

        function: gets a stand-in for the value and returns the part, named by
        attributes and items, any number of steps deep: `g.map(lambda v: v["a"].x)`.
        An exception, also for a part that is not there, leaves this guard alive.
        RuntimeError for the guard of a `with` block of the lock.
        """
        return map_guard(self, function, False)

    def try_map(self, function, /):
        """As map(); None, with this guard alive, when function returns None."""
        return map_guard(self, function, True)

    def __enter__(self):
        enter_guard(self)
        return self

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        leave_guard(self)

    @classmethod
    def __class_getitem__(cls, item, /):
        return GenericAlias(cls, item)

    def __reduce__(self):
        refuse_pickling(type(self).__name__)

    def __repr__(self):
        # Of a ReentrantMutex: as seen from this thread.
        alive = "" if is_alive(self) else ", dead"
        return f"<{type(self).__name__} of {type(self.lock).__name__}{alive}>"


@cython.no_gc_clear
cdef class _Direct(_Guard):
    """A guard of the whole value."""

    @property
    def value(self):
        """What the lock protects."""
        return read_value(self)

    def bump(self):
        """Give way to threads that wait: unlock_fair() and lock again, or next to nothing
        when none does.

        An exception of a signal handler leaves the guard dead, but not that of a
        `with` block: there it comes when the lock is locked again.
        """
        bump(self)

    def unlocked(self):
        """A context manager: in its block the lock is released and the guard dead.

        It is locked again at the end, also on an exception.  A signal handler
        that raises meanwhile: as for bump().
        """
        return make_unlocked(self, False)

    def unlocked_fair(self):
        """As unlocked(), unlocking as unlock_fair() does."""
        return make_unlocked(self, True)


@cython.no_gc_clear
cdef class _Writing(_Direct):
    """The same, and the value may be replaced."""

    @property
    def value(self):
        """What the lock protects; may be set."""
        return read_value(self)

    @value.setter
    def value(self, value):
        write_value(self, value)

    @value.deleter
    def value(self):
        raise AttributeError("the value of a guard cannot be deleted")


@cython.no_gc_clear
@cython.trashcan(True)
cdef class _Mapped(_Guard):
    """A guard of a part of the value.  The part may be gone once the lock was unlocked, so
    there is no unlocked() and no bump()."""

    @property
    def value(self):
        """The part."""
        return read_part(self)


@cython.no_gc_clear
cdef class _MappedWriting(_Mapped):
    """The same, and the part may be replaced."""

    @property
    def value(self):
        """The part; may be set."""
        return read_part(self)

    @value.setter
    def value(self, value):
        write_part(self, value)

    @value.deleter
    def value(self):
        raise AttributeError("the value of a guard cannot be deleted")


cdef void dealloc_guard(PyObject* self) noexcept:
    cdef PyObject* lock = <PyObject*>(<_Guard>self).lock
    retire(self)
    # relaxed: as in __dealloc__.  No step from here on may count a reference to the guard.
    if fs_u8_load_relaxed(&(<_Guard>self).life) == GUARD_HELD:
        (<_Owner>lock).drop(<_Guard>self)
    discard(self)
    Py_DECREF(<object>lock)


cdef int finish_guard(type cls) except -1:
    cdef _Guard probe = _Guard.__new__(_Guard)
    FS_LOCK_IS_BEHIND_CALL(probe)
    make_context_manager(cls, <char*>&probe.call - <char*><PyObject*>probe)
    return forbid_instances(cls)


cdef int set_up() except -1:
    if fs_at_fork(nothing, nothing, after_fork_in_child) != 0:
        raise MemoryError("pthread_atfork failed")
    forbid_instances(_Unlocked)  # of the others instances are of no use, and do no harm
    return 0


set_up()
