"""Mutex, FairMutex, ReentrantMutex, their guards, and Condvar.

A mutex owns a value, and the thread that locks it gets a guard: the only way to the
value.  The raw lock is one byte (raw/mutex.pxd).  Its mark says for whom it is locked:

    0               C code, or a hold whose guard was leaked
    `here`          a thread of this process: its guard, or one about to be alive or
                    just ended
    any other       a thread of a process that this one was forked from

A thread that locks sets LOCKED and the mark in one step, and both go in one step.
So force_unlock() takes a hold over by changing its mark to `here`: of a hold of
this process it changes nothing, at whatever moment it comes, and of two that force
one hold one succeeds.  (A fair unlock of C code hands over a mark of 0, which the
new owner corrects: C code must not unlock what is forced.)

The life of a guard of a Mutex or FairMutex is one byte:

    HELD            it holds the mutex; a guard of lock(), try_lock...() or map()
    HELD | BLOCK    the same; the guard of a `with` block of the mutex
    ... | BUSY      the same, and a thread is reading or replacing the value
    AWAY            it has lent its hold to a wait on a Condvar, to unlocked() or
    AWAY | BLOCK      to bump(), which will take the mutex again
    DEAD            it holds nothing and never will

    HELD -> DEAD            unlock(), map(), leak(), its own `with`, being dropped
    HELD -> AWAY            lending; AWAY -> HELD when the mutex was taken again
    AWAY -> DEAD            its own `with` ends; or a signal handler raised while the
                            mutex was taken again
    HELD|BLOCK -> DEAD      the end of the `with` block of the mutex
    HELD|BLOCK <-> AWAY|BLOCK   as without BLOCK
    HELD, HELD|BLOCK <-> ...|BUSY

Every step out of HELD or AWAY is a compare-and-swap: of two threads that end or
lend one guard one succeeds, and it alone unlocks.  No step leads out of BUSY but that
of the thread that is in it.

The mutex refers to the guard of its block (`block`), as there may be no `as`.  That
reference is there from the moment the guard is alive until a thread takes it out,
by an exchange or a compare-and-swap: whoever has taken it out, and no other thread,
may change HELD|BLOCK.  So `__exit__` of the mutex, in whatever function or thread,
ends the block that holds the mutex at that moment; of two calls at once one
gets nothing and raises RuntimeError; and a call while the block's guard is AWAY ends
nothing either, unless another block holds the mutex meanwhile.  It is taken out before
the mutex is unlocked and put in after it was locked, so there is one at most.
No address is compared but by a thread that has a reference to what is there.

A guard of a block must come back from AWAY: its block will end.  An exception of a
signal handler therefore leaves unlocked(), bump() or a wait when the mutex is locked
again.  Of another guard it leaves unlocked() and bump() at once, and the guard is dead.

Fork.  Another thread's hold is nobody's in the child: its guard, should it be
reachable there, is DEAD on first use, and force_unlock() unlocks.  A hold of the
thread that forked goes on; its guard and the word get the child's mark on the
first use (inherit).  Which of them it is says `thread`, which is 0 from before an unlock
until the next owner has run: then it is not the thread that was in fork().

The value is touched only under BUSY, where nothing can run Python, wait or
stop for the collector: reading it and counting the reference are one step to
every other thread, so a misused guard cannot free what another reads, nor read or
write after its hold has ended.  (With the GIL that is so without BUSY.)  BUSY is over
within instructions, and never inherited by a fork: other threads are stopped for it
outside of such a step.
"""
cimport cython
from libc.stdint cimport UINT32_MAX, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from cpython.exc cimport PyErr_Clear, PyErr_Fetch, PyErr_Occurred, PyErr_SetString
from cpython.object cimport PyObject, visitproc
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF

from fastsync._watch.trace cimport (
    FS_BLOCK, FS_EXCLUSIVE, FS_REENTRANT, fs_section, fs_wait, trace_block, trace_changed,
    trace_condition, trace_disowned, trace_lock, trace_made, trace_notified, trace_release,
    trace_released, trace_relock, tracing,
)
from fastsync.objects._slots cimport (
    allocate, collect_by, discard, forbid_instances, fs_call, fs_traverse, make_context_manager,
    make_recycled, publish, retire, reuse,
)
from fastsync.objects._timeouts cimport deadline_for, deadline_until
from fastsync.raw.c_atomic cimport (
    fs_atomic_u8, fs_atomic_uptr, fs_pause, fs_u32_exchange_acquire, fs_u32_fetch_add_release,
    fs_u32_load_relaxed, fs_u8_cas_acq_rel, fs_u8_cas_acquire, fs_u8_cas_release,
    fs_u8_exchange_acq_rel, fs_u8_load_acquire, fs_u8_load_relaxed, fs_u8_store_relaxed,
    fs_u8_store_release, fs_uptr_cas_acq_rel, fs_uptr_exchange_acq_rel, fs_uptr_load_acquire,
    fs_uptr_load_relaxed, fs_uptr_store_relaxed, fs_uptr_store_release,
)
from fastsync.raw.c_python cimport FS_FREE_THREADED
from fastsync.raw.c_wait cimport fs_at_fork, FS_FOREVER, fs_thread_id
from fastsync.raw.condvar cimport (
    condvar_notify_all, condvar_notify_one, condvar_wait, fs_condvar, FS_CONDVAR_BAD_MUTEX,
    FS_CONDVAR_TIMEOUT,
)
from fastsync.raw.mutex cimport (
    fs_mutex, FS_MUTEX_LOCKED, FS_MUTEX_MARK, FS_MUTEX_PARKED, mutex_change_mark, mutex_is_locked,
    mutex_lock_until, mutex_marked, mutex_unlock_slow,
)
from fastsync.raw.parking cimport (
    deadline_after, FS_ACQUIRED, FS_ERROR, FS_PLAIN, FS_SIGNALS, FS_TIMEOUT, park, parked_count,
)
from fastsync.raw.remutex cimport remutex_count, remutex_is_mine, remutex_own, remutex_set_count

from types import GenericAlias

from fastsync.objects._mapping import Part, record
from fastsync.objects._pin import register_pinnable

cdef extern from "Python.h":
    PyObject* Py_None
    PyObject* Py_NewRef(PyObject*) noexcept
    size_t PyVectorcall_NARGS(size_t) noexcept
    void PyErr_Restore(PyObject*, PyObject*, PyObject*) noexcept

# Sizes that are promised.
cdef extern from *:
    """
    #define FS_SIZE_IS(x, n) _Static_assert(sizeof(x) == (n), "its size is promised")
    """
    void FS_SIZE_IS_mutex "FS_SIZE_IS"(fs_mutex, size_t) noexcept
    void FS_SIZE_IS_condvar "FS_SIZE_IS"(fs_condvar, size_t) noexcept


cdef void check_sizes() noexcept:
    cdef fs_mutex mutex
    cdef fs_condvar condvar
    FS_SIZE_IS_mutex(mutex, 1)
    FS_SIZE_IS_condvar(condvar, sizeof(void*))


# -- this process -------------------------------------------------------------

# The mark of what this process locks.  63 forks deep the marks begin again: then
# force_unlock() refuses what was held 63 processes ago.
cdef uint8_t here = 4
# The thread that forked this process; 0 in one that was not.
cdef uintptr_t survivor = 0


cdef void nothing() noexcept nogil:
    pass


cdef void after_fork_in_child() noexcept nogil:
    global here, survivor
    here = 4 if here == FS_MUTEX_MARK else here + 4
    survivor = fs_thread_id()


# -- the life of a guard -----------------------------------------------------

cdef enum:
    DEAD = 0
    HELD = 1
    AWAY = 2
    BLOCK = 4
    BUSY = 8


cdef int wait_a_little(int tries) noexcept:
    """For another thread to leave BUSY; that takes it instructions, if it runs."""
    if tries < 100:
        fs_pause()
    else:
        # It was preempted.  Detached and asleep we are in the way of neither the
        # collector nor a thread of a lower priority.
        park(<uintptr_t>&tries, NULL, NULL, NULL, NULL, 0, deadline_after(50_000), FS_PLAIN, NULL)
    return tries + 1


cdef bint inherit(fs_life* hold, _Mutex m) noexcept:
    """Of a guard that another process made: whether it holds the mutex in this one."""
    cdef int tries = 0
    cdef uint8_t life
    while True:
        # acquire: as in holds()
        life = fs_u8_load_acquire(&hold.life)
        if not life & HELD:
            return False
        if not life & BUSY:
            # relaxed: written under BUSY, which the load above acquired
            if fs_u8_load_relaxed(&hold.mark) == here:
                return True
            # acquire: pairs with the release of whoever was BUSY before
            if fs_u8_cas_acquire(&hold.life, &life, life | BUSY):
                break
        tries = wait_a_little(tries)
    # relaxed, all three: BUSY keeps other threads from this guard, and the hold of
    # the thread that forked is not forced
    if (fs_uptr_load_relaxed(&m.thread) == survivor
            and mutex_change_mark(&m.word, fs_u8_load_relaxed(&hold.mark), here)):
        fs_u8_store_relaxed(&hold.mark, here)
    else:
        life = DEAD
    fs_u8_store_release(&hold.life, life)  # release: pairs with every acquire of `life`
    return life != DEAD


cdef inline bint is_of_here(fs_life* hold, _Mutex m) noexcept:
    # relaxed: another value than `here` is looked at again under BUSY
    return fs_u8_load_relaxed(&hold.mark) == here or inherit(hold, m)


cdef inline bint holds(fs_life* hold, _Mutex m) noexcept:
    """Whether the guard is alive, at this moment."""
    # acquire: pairs with the release in begin_hold
    return fs_u8_load_acquire(&hold.life) & HELD and is_of_here(hold, m)


cdef inline bint change_life(fs_life* hold, _Mutex m, uint8_t before, uint8_t after) noexcept:
    """Whether it was `before`; then the guard's hold is the caller's to end or to lend."""
    cdef int tries = 0
    cdef uint8_t seen = before
    if not is_of_here(hold, m):
        return False
    # acq_rel: acquires what was done through the guard by others, and releases what
    # this thread did, in case that another one unlocks
    while not fs_u8_cas_acq_rel(&hold.life, &seen, after):
        if seen != (before | BUSY):
            return False
        tries = wait_a_little(tries)
        seen = before
    return True


cdef inline uint8_t begin_access(fs_life* hold, _Mutex m) noexcept:
    """DEAD, or what to give end_access(); the value is ours until then."""
    cdef int tries = 0
    cdef uint8_t seen
    if not is_of_here(hold, m):
        return DEAD
    seen = fs_u8_load_relaxed(&hold.life)  # relaxed: the CAS decides; with the GIL it orders
    if not FS_FREE_THREADED:
        return seen if seen & HELD else DEAD
    while seen & HELD:
        if seen & BUSY:
            tries = wait_a_little(tries)
            seen = fs_u8_load_relaxed(&hold.life)  # relaxed: as above
        # acquire: pairs with the releases in end_access and begin_hold
        elif fs_u8_cas_acquire(&hold.life, &seen, seen | BUSY):
            return seen
    return DEAD


cdef inline void end_access(fs_life* hold, uint8_t life) noexcept:
    if FS_FREE_THREADED:
        # release: pairs with the acquires in begin_access and change_life
        fs_u8_store_release(&hold.life, life)


cdef object read_value(fs_life* hold, _Mutex m):
    cdef uint8_t life = begin_access(hold, m)
    if life == DEAD:
        raise_dead()
    value = m.value
    end_access(hold, life)
    return value


cdef int write_value(fs_life* hold, _Mutex m, object value) except -1:
    cdef uint8_t life = begin_access(hold, m)
    if life == DEAD:
        raise_dead()
    old = m.value  # so that nothing is freed before end_access
    m.value = value
    end_access(hold, life)
    return 0


cdef int raise_dead() except -1:
    raise RuntimeError(
        "this guard holds no lock: it was released, mapped or leaked, or it has lent its "
        "lock to a wait or to unlocked()")


cdef int raise_of_block() except -1:
    raise RuntimeError(
        "the hold of a `with` block ends with the block: "
        "use lock() for a guard that ends earlier, or that can be mapped or leaked")


cdef int raise_left() except -1:
    raise RuntimeError("the `with` of this guard has ended meanwhile: it is dead")


# -- taking and releasing a Mutex ----------------------------------------------

# `guard` is what the detector knows the hold by; `block` is FS_BLOCK for a `with`
# statement, else 0.
cdef inline int take(_Mutex m, int64_t deadline, PyObject* guard, int block) except -1:
    """FS_ACQUIRED or FS_TIMEOUT; an exception when a signal handler raised."""
    if tracing():
        return trace_lock(m, FS_EXCLUSIVE | block, deadline, guard, take_word, &m.word)
    return take_word(&m.word, deadline)


cdef inline int take_word(void* mutex, int64_t deadline) noexcept:
    return mutex_lock_until(<fs_mutex*>mutex, deadline, mutex_marked(FS_SIGNALS, here))


cdef int take_surely(void* mutex, int64_t deadline) noexcept:
    """Lock it, though signal handlers raise: they run meanwhile, and what the first of them
    raised is set in the end."""
    cdef PyObject* type = NULL
    cdef PyObject* value
    cdef PyObject* traceback
    while take_word(mutex, FS_FOREVER) != FS_ACQUIRED:
        if type == NULL:
            PyErr_Fetch(&type, &value, &traceback)
        else:
            PyErr_Clear()
    if type != NULL:
        PyErr_Restore(type, value, traceback)
    return FS_ACQUIRED


cdef inline void unlock_word(fs_mutex* word, bint fair) noexcept:
    cdef uint8_t held = FS_MUTEX_LOCKED | here
    # release: pairs with the acquire of the next owner
    if not fs_u8_cas_release(&word.state, &held, 0):
        mutex_unlock_slow(word, fair)


cdef inline void release(_Mutex m, PyObject* guard, bint fair) noexcept:
    """Unlock, the guard having given its hold up."""
    # relaxed: ordered by the unlock
    fs_uptr_store_relaxed(&m.thread, 0)
    if tracing():
        release_traced(m, guard, fair)
    else:
        unlock_word(&m.word, fair or m.fair)


cdef void release_traced(_Mutex m, PyObject* guard, bint fair) noexcept:
    cdef fs_section section
    trace_release(&section, m, FS_EXCLUSIVE, guard)
    unlock_word(&m.word, fair or m.fair)
    trace_released(&section)


cdef inline void begin_hold(fs_life* hold, _Mutex m, uint8_t life) noexcept:
    """The guard holds the mutex, which this thread has just locked or holds for it."""
    # relaxed, both: nobody looks before the release below, or the world stands
    fs_uptr_store_relaxed(&m.thread, fs_thread_id())
    fs_u8_store_relaxed(&hold.mark, here)
    # release: pairs with the acquire of every use of the guard
    fs_u8_store_release(&hold.life, life)


cdef inline PyObject* new_guard(_Mutex m) except NULL:
    """A guard that is not alive yet: out of the spare memory, if there is some."""
    cdef PyObject* guard = NULL
    # relaxed: a hint; the exchange decides
    if fs_uptr_load_relaxed(&m.spare) != 0:
        # acquire: pairs with the release in guard_dealloc
        guard = <PyObject*>fs_uptr_exchange_acq_rel(&m.spare, 0)
    if guard != NULL:
        reuse(MutexGuard, guard)
    else:
        guard = allocate(MutexGuard)
        (<MutexGuard>guard).call = guard_call
    (<MutexGuard>guard).mutex = <PyObject*>m
    Py_INCREF(m)
    return guard


cdef object lock(_Mutex m, int64_t deadline):
    """A guard, or None when the deadline has passed."""
    cdef PyObject* raw
    if deadline == 0 and mutex_is_locked(&m.word):
        return None
    raw = new_guard(m)  # before locking: it may fail
    guard = <object>raw
    Py_DECREF(guard)
    if take(m, deadline, raw, 0) == FS_TIMEOUT:
        return None
    begin_hold(&(<MutexGuard>raw).hold, m, HELD)
    return guard


# -- `with` on a mutex -------------------------------------------------------

cdef inline void open_block(_Mutex m, PyObject* guard) noexcept:
    """`guard` holds the mutex for a block; takes over a reference to it."""
    begin_hold(&(<MutexGuard>guard).hold, m, HELD | BLOCK)
    # release: pairs with the acquire of whoever takes it out
    fs_uptr_store_release(&m.block, <uintptr_t>guard)


cdef inline bint end_block(_Mutex m, PyObject* guard) noexcept:
    """End the hold of a guard that this thread has taken out of `block`; it takes the
    reference over.  False: the guard is of a thread that did not survive a fork."""
    cdef bint ended = change_life(&(<MutexGuard>guard).hold, m, HELD | BLOCK, DEAD)
    if ended:
        release(m, guard, False)
    Py_DECREF(<object>guard)
    return ended


cdef PyObject* enter(_Mutex m) except NULL:
    cdef PyObject* guard = new_guard(m)
    try:
        take(m, FS_FOREVER, guard, FS_BLOCK)
    except:
        Py_DECREF(<object>guard)
        raise
    open_block(m, Py_NewRef(guard))
    return guard


cdef inline int leave(_Mutex m) except -1:
    # acq_rel: pairs with the release in open_block; this thread's end of the block
    cdef PyObject* guard = <PyObject*>fs_uptr_exchange_acq_rel(&m.block, 0)
    if guard == NULL or not end_block(m, guard):
        raise RuntimeError("no `with` block holds this mutex")
    return 0


# -- Mutex, FairMutex --------------------------------------------------------

cdef PyObject* mutex_call(
    PyObject* self, PyObject** args, size_t nargsf, PyObject* names,
) except NULL:
    cdef size_t nargs = PyVectorcall_NARGS(nargsf)
    if names == NULL and nargs == 0:
        return enter(<_Mutex>self)
    if names == NULL and nargs == 3:
        leave(<_Mutex>self)
        return Py_NewRef(Py_None)
    refuse_call(nargs)


cdef int refuse_call(size_t nargs) except -1:
    raise TypeError(
        "it is called by `with` only: with no arguments to enter, with three to leave, "
        f"not with {nargs} or with keywords")


cdef int refuse_pickling(object self) except -1:
    raise TypeError(f"cannot pickle {type(self).__name__!r} object")


cdef int take_over(fs_mutex* word, const fs_atomic_uptr* owner) except -1:
    """Make this thread the owner of a hold that no guard of this process has; the mark
    that it had.  `owner` says which thread has it, where that can be the one that forked."""
    cdef uint8_t seen
    while True:
        seen = fs_u8_load_relaxed(&word.state)  # relaxed: mutex_change_mark decides
        if not seen & FS_MUTEX_LOCKED:
            raise RuntimeError("force_unlock of a mutex that is not locked")
        seen &= FS_MUTEX_MARK
        # relaxed: of a hold that is older than this process
        if seen == here or (seen != 0 and fs_uptr_load_relaxed(owner) == survivor):
            raise RuntimeError("a guard holds this mutex: force_unlock is for a hold without one")
        if mutex_change_mark(word, seen, here):
            return seen


cdef int force_unlock(_Mutex m, bint fair) except -1:
    cdef PyObject* guard
    take_over(&m.word, &m.thread)
    # The guard of a block whose thread did not survive a fork.  acq_rel: as leave
    guard = <PyObject*>fs_uptr_exchange_acq_rel(&m.block, 0)
    if tracing():
        trace_disowned(m, NULL)
    release(m, NULL, fair)
    Py_XDECREF(guard)
    return 0


cdef bint peek_value(_Mutex m, PyObject** value) noexcept:
    """A new reference to the value, if the mutex is free."""
    if mutex_lock_until(&m.word, 0, mutex_marked(FS_PLAIN, here)) != FS_ACQUIRED:
        return False
    value[0] = Py_NewRef(<PyObject*>m.value)
    unlock_word(&m.word, m.fair)
    return True


@cython.trashcan(True)  # a chain of them is dropped without a deep stack
cdef class _Mutex:
    """What Mutex and FairMutex have in common."""

    def __cinit__(self, value=None):
        self.call = mutex_call
        self.value = value
        if tracing():
            trace_made(self)

    def __dealloc__(self):
        cdef PyObject* guard = <PyObject*>fs_uptr_load_relaxed(&self.spare)  # relaxed: unshared
        if guard != NULL:
            discard(guard)

    def lock(self):
        """Wait for the mutex; a guard that holds it.

        A second lock() in a thread that holds it waits for ever.  Ordering: what
        was done under the lock before is visible (acquire).  Origin:
        parking_lot's Mutex::lock.
        """
        return lock(self, FS_FOREVER)

    def try_lock(self):
        """A guard, or None when the mutex is held; never waits.

        It takes a free mutex even past threads that wait for it.
        """
        return lock(self, 0)

    def try_lock_for(self, seconds):
        """A guard, or None when the mutex was not free within `seconds`.

        Any number will do: negative is "do not wait", too large "for ever".
        ValueError for NaN.
        """
        return lock(self, deadline_for(seconds))

    def try_lock_until(self, deadline):
        """As try_lock_for, with a time.monotonic() value for the end."""
        return lock(self, deadline_until(deadline))

    def is_locked(self):
        """Whether it is held, at this moment; orders nothing."""
        return mutex_is_locked(&self.word)

    def into_inner(self):
        """The value, which stays in place.  RuntimeError while the mutex is held."""
        cdef PyObject* raw
        if not peek_value(self, &raw):
            raise RuntimeError("into_inner of a mutex that is locked")
        value = <object>raw
        Py_DECREF(value)
        return value

    def force_unlock(self):
        """Unlock it when no guard will: after leak(), for C code, or in the child of a fork.

        In the child: what another thread of the parent held; guards of that thread
        are dead there.  RuntimeError, and nothing changed, when it is not locked or a
        guard holds it.  Ordering: as the unlock of a guard.  Origin: parking_lot's
        Mutex::force_unlock, which does not look.
        """
        force_unlock(self, False)

    def force_unlock_fair(self):
        """As force_unlock(), and hand the mutex to the first thread that waits for it."""
        force_unlock(self, True)

    def __enter__(self):
        guard = <object>enter(self)
        Py_DECREF(guard)
        return guard

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        leave(self)

    @classmethod
    def __class_getitem__(cls, item):
        return GenericAlias(cls, item)

    def __reduce__(self):
        refuse_pickling(self)

    def __repr__(self):
        cdef PyObject* raw
        if not peek_value(self, &raw):
            return f"{type(self).__name__}(<locked>)"
        value = <object>raw
        Py_DECREF(value)
        return f"{type(self).__name__}({value!r})"


@cython.final
cdef class Mutex(_Mutex):
    """Mutex(value=None)
--

A lock that owns what it protects: the way to the value is a guard.

    m = Mutex(0)
    with m as guard:
        guard.value += 1

One byte of state; not re-entrant.  A thread that waits is handed it in its turn,
however often others lock it.  An exception in the block does not poison it.
Unlocking happens before the next lock (release / acquire ordering).
Origin: parking_lot's Mutex."""


@cython.final
cdef class FairMutex(_Mutex):
    """FairMutex(value=None)
--

A Mutex that is always handed over to the thread that has waited longest.

No thread can take it past a queue, at the price of a switch of threads for each
hold.  A Condvar does not take its guards.  Origin: parking_lot's FairMutex."""

    def __cinit__(self):
        self.fair = True


# -- MutexGuard --------------------------------------------------------------

cdef void guard_dealloc(PyObject* self) noexcept:
    cdef PyObject* mutex = (<MutexGuard>self).mutex
    cdef uintptr_t old
    retire(self)
    # relaxed: the references that have gone order it
    if fs_u8_load_relaxed(&(<MutexGuard>self).hold.life) == HELD:
        if change_life(&(<MutexGuard>self).hold, <_Mutex>mutex, HELD, DEAD):
            release(<_Mutex>mutex, self, False)
    fs_u8_store_relaxed(&(<MutexGuard>self).hold.life, DEAD)  # relaxed: as above
    # release: pairs with the acquire in new_guard; acquire: with this release
    old = fs_uptr_exchange_acq_rel(&(<_Mutex>mutex).spare, <uintptr_t>self)
    if old != 0:
        discard(<PyObject*>old)
    Py_DECREF(<object>mutex)


cdef inline bint guard_alive(PyObject* guard) noexcept:
    return holds(&(<MutexGuard>guard).hold, <_Mutex>(<MutexGuard>guard).mutex)


cdef inline int check_alive(PyObject* guard) except -1:
    return 0 if guard_alive(guard) else raise_dead()


cdef int refuse_to_end(PyObject* guard) except -1:
    # acquire: as in holds()
    if fs_u8_load_acquire(&(<MutexGuard>guard).hold.life) & BLOCK:
        raise_of_block()
    raise_dead()


cdef int end_hold(PyObject* guard) except -1:
    """The guard is dead, and its lock the caller's to release or to pass on."""
    if not change_life(&(<MutexGuard>guard).hold, <_Mutex>(<MutexGuard>guard).mutex, HELD, DEAD):
        refuse_to_end(guard)
    return 0


cdef inline int unlock_guard(PyObject* guard, bint fair) except -1:
    end_hold(guard)
    release(<_Mutex>(<MutexGuard>guard).mutex, guard, fair)
    return 0


cdef int check_free(PyObject* guard) except -1:
    """Alive, and not the guard of a block."""
    check_alive(guard)
    if fs_u8_load_acquire(&(<MutexGuard>guard).hold.life) & BLOCK:  # acquire: as in holds()
        raise_of_block()
    return 0


cdef int enter_guard(PyObject* guard) except -1:
    """The beginning of a guard's own `with`, which will end it."""
    check_free(guard)
    if tracing():
        trace_block(<object>(<MutexGuard>guard).mutex, guard)
    return 0


cdef int leave_guard(PyObject* guard) except -1:
    cdef uint8_t away = AWAY
    if change_life(&(<MutexGuard>guard).hold, <_Mutex>(<MutexGuard>guard).mutex, HELD, DEAD):
        release(<_Mutex>(<MutexGuard>guard).mutex, guard, False)
    # acq_rel: as in change_life.  It has lent its hold: whoever has that finds it dead.
    elif not fs_u8_cas_acq_rel(&(<MutexGuard>guard).hold.life, &away, DEAD) and away & BLOCK:
        raise_of_block()
    return 0


# Lending: unlocked(), bump(), Condvar.

cdef int lend(PyObject* guard) except -1:
    """The guard is AWAY, the mutex still locked, the hold the caller's: BLOCK or 0."""
    cdef PyObject* mutex = (<MutexGuard>guard).mutex
    cdef fs_life* hold = &(<MutexGuard>guard).hold
    cdef uintptr_t block = <uintptr_t>guard
    if change_life(hold, <_Mutex>mutex, HELD, AWAY):
        return 0
    # acq_rel: as leave.  The caller has a reference to the guard, so that no other
    # guard can have its address.
    if not holds(hold, <_Mutex>mutex) or not fs_uptr_cas_acq_rel(
            &(<_Mutex>mutex).block, &block, 0):
        raise_dead()
    change_life(hold, <_Mutex>mutex, HELD | BLOCK, AWAY | BLOCK)
    Py_DECREF(<object>guard)  # not the last: the caller has one
    return BLOCK


cdef bint give_back(PyObject* guard, int block) noexcept:
    """The mutex is locked again.  False when the guard is dead: its `with` has ended."""
    cdef PyObject* mutex = (<MutexGuard>guard).mutex
    cdef uint8_t away = AWAY
    if block:
        open_block(<_Mutex>mutex, Py_NewRef(guard))
        return True
    # relaxed, both: as in begin_hold
    fs_uptr_store_relaxed(&(<_Mutex>mutex).thread, fs_thread_id())
    fs_u8_store_relaxed(&(<MutexGuard>guard).hold.mark, here)
    # acq_rel: pairs with leave_guard, and as the release in begin_hold
    return fs_u8_cas_acq_rel(&(<MutexGuard>guard).hold.life, &away, HELD)


cdef int take_back(PyObject* guard, int block) except -1:
    """Lock the mutex again and give it back to the guard."""
    cdef PyObject* mutex = (<MutexGuard>guard).mutex
    cdef uint8_t away = AWAY
    if block:
        if tracing():
            trace_relock(<_Mutex>mutex, FS_EXCLUSIVE | FS_BLOCK, 1, guard, take_surely,
                         &(<_Mutex>mutex).word)
        else:
            take_surely(&(<_Mutex>mutex).word, FS_FOREVER)
        give_back(guard, block)
        return -1 if PyErr_Occurred() else 0
    try:
        take(<_Mutex>mutex, FS_FOREVER, guard, 0)
    except:
        # acq_rel: as in change_life
        fs_u8_cas_acq_rel(&(<MutexGuard>guard).hold.life, &away, DEAD)
        raise
    if not give_back(guard, block):
        release(<_Mutex>mutex, guard, False)
        raise_left()
    return 0


cdef int bump(PyObject* guard) except -1:
    cdef PyObject* mutex = (<MutexGuard>guard).mutex
    cdef int block
    check_alive(guard)
    # relaxed: a hint; a thread that comes later is promised no turn
    if not fs_u8_load_relaxed(&(<_Mutex>mutex).word.state) & FS_MUTEX_PARKED:
        return 0
    block = lend(guard)
    release(<_Mutex>mutex, guard, True)
    take_back(guard, block)
    return 0


cdef object map_part(object guard, object function, object value, bint optional):
    """The part of the value that `function` names; None when it may return None and does."""
    steps = record(function)
    if steps is None:
        if optional:
            return None
        raise TypeError("the function must return a part of its argument: an attribute or an item")
    if not steps:
        raise TypeError("the function must return a part of its argument, not all of it")
    return Part(value, steps)


cdef object map_guard(MutexGuard self, object function, bint optional):
    cdef MappedMutexGuard mapped
    check_free(<PyObject*>self)
    part = map_part(self, function, read_value(&self.hold, <_Mutex>self.mutex), optional)
    if part is None:
        return None
    mapped = MappedMutexGuard.__new__(MappedMutexGuard)
    mapped.mutex = <object>self.mutex
    mapped.part = part
    end_hold(<PyObject*>self)
    if tracing():
        trace_changed(<object>self.mutex, <PyObject*>self, <PyObject*>mapped, FS_EXCLUSIVE)
    begin_hold(&mapped.hold, <_Mutex>self.mutex, HELD)
    return mapped


cdef PyObject* guard_call(
    PyObject* self, PyObject** args, size_t nargsf, PyObject* names,
) except NULL:
    cdef size_t nargs = PyVectorcall_NARGS(nargsf)
    if names == NULL and nargs == 0:
        enter_guard(self)
        return Py_NewRef(self)
    if names == NULL and nargs == 3:
        leave_guard(self)
        return Py_NewRef(Py_None)
    refuse_call(nargs)


@cython.final
cdef class MutexGuard:
    """What holds a Mutex or a FairMutex, and leads to its value.

    The guard of `with mutex as guard:` is alive until that block ends, and only
    the end of the block unlocks.  The guard of lock() or try_lock...() ends with
    unlock(), map(), leak(), at the end of its own `with`, or when it is dropped:
    that last at once only in the thread that made it.  Any thread may use a guard.
    RuntimeError on every use once it holds the mutex no more.  Origin: parking_lot's
    MutexGuard.
    """

    @property
    def value(self):
        """What the mutex protects."""
        return read_value(&self.hold, <_Mutex>self.mutex)

    @value.setter
    def value(self, value):
        write_value(&self.hold, <_Mutex>self.mutex, value)

    @value.deleter
    def value(self):
        raise AttributeError("the value of a guard cannot be deleted")

    @property
    def mutex(self):
        """The mutex that it holds."""
        check_alive(<PyObject*>self)
        return <object>self.mutex

    def unlock(self):
        """Release the mutex.  RuntimeError for the guard of a `with` block of the mutex."""
        unlock_guard(<PyObject*>self, False)

    def unlock_fair(self):
        """As unlock(), and hand it to the thread that has waited longest, if any waits."""
        unlock_guard(<PyObject*>self, True)

    def bump(self):
        """Give way to threads that wait: unlock_fair() and lock(), or next to nothing
        when none does.

        An exception of a signal handler leaves the guard dead, but not that of a
        `with` block: there it comes when the mutex is locked again.
        """
        bump(<PyObject*>self)

    def unlocked(self):
        """A context manager: in its block the mutex is unlocked and the guard dead.

        It is locked again at the end, also on an exception.  A signal handler
        that raises meanwhile: as for bump().
        """
        return make_unlocked(self, False)

    def unlocked_fair(self):
        """As unlocked(), unlocking as unlock_fair() does."""
        return make_unlocked(self, True)

    def leak(self):
        """Give the guard up and leave the mutex locked: see Mutex.force_unlock().

        RuntimeError for the guard of a `with` block of the mutex.
        """
        end_hold(<PyObject*>self)
        if tracing():
            trace_disowned(<object>self.mutex, <PyObject*>self)
        mutex_change_mark(&(<_Mutex>self.mutex).word, here, 0)

    def map(self, function):
        """Turn it into a guard of a part of the value; this one is dead then.

        function gets a stand-in for the value and returns the part, named by
        attributes and items: `g.map(lambda v: v["a"].x)`.  An exception, also
        for a part that is not there, leaves this guard alive.  RuntimeError for the
        guard of a `with` block of the mutex.
        """
        return map_guard(self, function, False)

    def try_map(self, function):
        """As map(); None, with this guard alive, when function returns None."""
        return map_guard(self, function, True)

    def __enter__(self):
        enter_guard(<PyObject*>self)
        return self

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        leave_guard(<PyObject*>self)

    @classmethod
    def __class_getitem__(cls, item):
        return GenericAlias(cls, item)

    def __reduce__(self):
        refuse_pickling(self)

    def __repr__(self):
        alive = "" if guard_alive(<PyObject*>self) else ", dead"
        return f"<MutexGuard of {type(<object>self.mutex).__name__}{alive}>"


cdef object make_unlocked(MutexGuard guard, bint fair):
    cdef _Unlocked result
    check_alive(<PyObject*>guard)
    result = _Unlocked.__new__(_Unlocked)
    result.guard = guard
    result.fair = fair
    return result


@cython.final
@cython.no_gc_clear
@cython.trashcan(True)
cdef class _Unlocked:
    """The context manager of MutexGuard.unlocked()."""
    cdef MutexGuard guard
    cdef int block           # what lend() said
    cdef bint fair
    cdef fs_atomic_u8 inside

    def __enter__(self):
        cdef int block = lend(<PyObject*>self.guard)
        self.block = block
        fs_u8_store_release(&self.inside, True)  # release: pairs with __exit__
        release(<_Mutex>self.guard.mutex, <PyObject*>self.guard, self.fair)

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        # acq_rel: pairs with __enter__; of two threads that leave it one gets past this
        if not fs_u8_exchange_acq_rel(&self.inside, False):
            raise RuntimeError("unlocked() was not entered")
        # acquire: as in holds()
        if fs_u8_load_acquire(&self.guard.hold.life) == DEAD:
            raise_left()
        take_back(<PyObject*>self.guard, self.block)


# -- MappedMutexGuard --------------------------------------------------------

cdef inline bint mapped_alive(MappedMutexGuard self) noexcept:
    if type(self.mutex) is ReentrantMutex:
        return has_levels(&self.levels, <ReentrantMutex>self.mutex)
    return holds(&self.hold, <_Mutex>self.mutex)


cdef inline int mapped_check(MappedMutexGuard self) except -1:
    if mapped_alive(self):
        return 0
    if type(self.mutex) is ReentrantMutex:
        raise_not_owner(<ReentrantMutex>self.mutex)
    raise_dead()


cdef bint mapped_end(MappedMutexGuard self) noexcept:
    """Whether it was alive; then its lock is the caller's to release or to pass on."""
    if type(self.mutex) is ReentrantMutex:
        if not has_levels(&self.levels, <ReentrantMutex>self.mutex):
            return False
        self.levels.count = 0
        return True
    return change_life(&self.hold, <_Mutex>self.mutex, HELD, DEAD)


cdef void mapped_release(MappedMutexGuard self, bint fair) noexcept:
    """After mapped_end."""
    if type(self.mutex) is ReentrantMutex:
        release_level(<ReentrantMutex>self.mutex, fair)
    else:
        release(<_Mutex>self.mutex, <PyObject*>self, fair)


cdef int mapped_unlock(MappedMutexGuard self, bint fair) except -1:
    if not mapped_end(self):
        mapped_check(self)
        raise_dead()
    mapped_release(self, fair)
    return 0


cdef object map_further(MappedMutexGuard self, object function, bint optional):
    cdef MappedMutexGuard mapped
    mapped_check(self)
    part = map_part(self, function, self.part.get(), optional)
    if part is None:
        return None
    mapped = MappedMutexGuard.__new__(MappedMutexGuard)
    mapped.mutex = self.mutex
    mapped.part = part
    if not mapped_end(self):
        raise_dead()
    if type(self.mutex) is ReentrantMutex:
        begin_levels(&mapped.levels, 1)
    else:
        if tracing():
            trace_changed(self.mutex, <PyObject*>self, <PyObject*>mapped, FS_EXCLUSIVE)
        begin_hold(&mapped.hold, <_Mutex>self.mutex, HELD)
    return mapped


cdef void mapped_leave(MappedMutexGuard self) noexcept:
    if mapped_end(self):
        mapped_release(self, False)


cdef PyObject* mapped_call(
    PyObject* self, PyObject** args, size_t nargsf, PyObject* names,
) except NULL:
    cdef size_t nargs = PyVectorcall_NARGS(nargsf)
    if names == NULL and nargs == 0:
        mapped_check(<MappedMutexGuard>self)
        return Py_NewRef(self)
    if names == NULL and nargs == 3:
        mapped_leave(<MappedMutexGuard>self)
        return Py_NewRef(Py_None)
    refuse_call(nargs)


@cython.final
@cython.no_gc_clear  # its end needs the mutex
@cython.trashcan(True)
cdef class MappedMutexGuard:
    """A guard of a part of what a mutex protects: an attribute or an item.

    As the guard that it was made of, but for what would unlock the mutex and
    lock it again: the part may be gone then, so there is no bump(), no
    unlocked(), and a Condvar does not take it.  Origin: parking_lot's
    MappedMutexGuard.
    """

    def __cinit__(self):
        self.call = mapped_call

    def __dealloc__(self):
        if self.mutex is None:
            return
        if type(self.mutex) is ReentrantMutex:
            drop_level(&self.levels, <ReentrantMutex>self.mutex)
        elif change_life(&self.hold, <_Mutex>self.mutex, HELD, DEAD):
            release(<_Mutex>self.mutex, <PyObject*>self, False)

    @property
    def value(self):
        """The part."""
        mapped_check(self)
        return self.part.get()

    @value.setter
    def value(self, value):
        mapped_check(self)
        self.part.set(value)

    @value.deleter
    def value(self):
        raise AttributeError("the value of a guard cannot be deleted")

    def unlock(self):
        """Release the mutex."""
        mapped_unlock(self, False)

    def unlock_fair(self):
        """Release it, and hand it to the thread that has waited longest, if any waits."""
        mapped_unlock(self, True)

    def map(self, function):
        """As MutexGuard.map(), from this part."""
        return map_further(self, function, False)

    def try_map(self, function):
        """As MutexGuard.try_map(), from this part."""
        return map_further(self, function, True)

    def __enter__(self):
        mapped_check(self)
        return self

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        mapped_leave(self)

    @classmethod
    def __class_getitem__(cls, item):
        return GenericAlias(cls, item)

    def __reduce__(self):
        refuse_pickling(self)

    def __repr__(self):
        alive = "" if mapped_alive(self) else ", dead"
        return f"<MappedMutexGuard of {type(self.mutex).__name__}{alive}>"


# -- ReentrantMutex ----------------------------------------------------------
#
# The raw lock knows the owning thread and its depth: one for each level.  `guarded`
# of them belong to live guards, the others were leaked or are C code's.  Everything
# here is touched by the owning thread only, so it needs no further protection; but
# for two things.  A guard that another thread drops adds itself to `orphans`, which
# the owner takes off when it comes by.  And while `guarded` is 0 the mark is 0, so that
# any thread may take the hold over, all its levels, by changing the mark to `here`;
# the owner does the same before it adds a level with a guard or takes one off.
#
# `block` is the guard of the `with` blocks of the owner: one for all that are open,
# so that it does not matter in which order they are left; it is alive until the last
# one is.  (There are more only when blocks were opened while it had lent its
# only level: a list by `outer`.)

cdef inline bint is_mine(ReentrantMutex m) noexcept:
    cdef uint8_t mark
    if not remutex_is_mine(&m.word):
        return False
    # relaxed: of the owner
    mark = fs_u8_load_relaxed(&m.word.mutex.state) & FS_MUTEX_MARK
    if mark == here or mark == 0:
        return True
    # Older than this process.  Thread ids are used again; the survivor's was not.
    return fs_thread_id() == survivor and mutex_change_mark(&m.word.mutex, mark, here)


cdef inline void begin_levels(fs_levels* levels, uint32_t count) noexcept:
    levels.count = count
    levels.mark = here
    levels.thread = fs_thread_id()


cdef inline bint has_levels(fs_levels* levels, ReentrantMutex m) noexcept:
    """Whether it is the guard of a level of this thread's."""
    if not is_mine(m) or levels.count == 0:
        return False
    if levels.mark != here:
        if levels.thread != survivor:
            return False
        levels.mark = here
    return True


cdef int raise_not_owner(ReentrantMutex m) except -1:
    if is_mine(m):
        raise_dead()
    raise RuntimeError("this thread does not hold the ReentrantMutex")


cdef void free_word(ReentrantMutex m, bint fair) noexcept:
    remutex_set_count(&m.word, 0)
    fs_uptr_store_relaxed(&m.word.owner, 0)  # relaxed: see remutex_is_mine
    unlock_word(&m.word.mutex, fair)


cdef void release_one(ReentrantMutex m, bint guarded, bint fair) noexcept:
    cdef uint32_t count = remutex_count(&m.word)
    cdef fs_section section
    cdef bint traced = tracing()
    if traced:
        trace_release(&section, m, FS_REENTRANT, NULL)
    m.guarded -= guarded
    if count == 1:
        free_word(m, fair)
        if traced:
            trace_released(&section)
        return
    remutex_set_count(&m.word, count - 1)
    if m.guarded == 0:
        mutex_change_mark(&m.word.mutex, here, 0)


cdef void reap_orphans(ReentrantMutex m) noexcept:
    """Take off the depth what other threads dropped; at 0 the lock is free."""
    cdef uint32_t dropped
    # relaxed: a hint; the exchange decides
    if fs_u32_load_relaxed(&m.orphans) == 0:
        return
    # acquire: pairs with the release in drop_level
    dropped = fs_u32_exchange_acquire(&m.orphans, 0)
    while dropped != 0:
        dropped -= 1
        release_one(m, True, False)


cdef void release_level(ReentrantMutex m, bint fair) noexcept:
    """A guard has given up a level."""
    reap_orphans(m)
    release_one(m, True, fair)


cdef void drop_level(fs_levels* levels, ReentrantMutex m) noexcept:
    """A guard is dropped, by any thread."""
    if levels.count == 0:
        return
    if levels.mark != here and levels.thread != survivor:
        return  # of a thread that did not survive a fork
    if is_mine(m):
        release_level(m, False)
    else:
        # release: pairs with the acquire in reap_orphans
        fs_u32_fetch_add_release(&m.orphans, 1)


cdef int add_level(ReentrantMutex m) noexcept:
    """FS_ACQUIRED when this thread holds it already, FS_TIMEOUT when not, FS_ERROR with an
    OverflowError set."""
    cdef int tries = 0
    if not is_mine(m):
        return FS_TIMEOUT
    reap_orphans(m)
    if not is_mine(m):
        return FS_TIMEOUT
    if remutex_count(&m.word) == UINT32_MAX:
        PyErr_SetString(OverflowError, "ReentrantMutex is locked too often")
        return FS_ERROR
    if m.guarded == 0 and not mutex_change_mark(&m.word.mutex, 0, here):
        # Another thread's force_unlock() is ending it.
        while remutex_is_mine(&m.word):
            tries = wait_a_little(tries)
        return FS_TIMEOUT
    remutex_set_count(&m.word, remutex_count(&m.word) + 1)
    m.guarded += 1
    return FS_ACQUIRED


cdef int take_level_word(void* mutex, int64_t deadline) noexcept:
    cdef ReentrantMutex m = <ReentrantMutex><PyObject*>mutex
    cdef int result = add_level(m)
    if result != FS_TIMEOUT:
        return result
    result = take_word(&m.word.mutex, deadline)
    if result == FS_ACQUIRED:
        remutex_own(&m.word, 1)
        m.guarded = 1
    return result


cdef int take_level(ReentrantMutex m, int64_t deadline) except -1:
    """As take()."""
    if tracing():
        return trace_lock(m, FS_REENTRANT, deadline, NULL, take_level_word, <void*>m)
    return take_level_word(<void*>m, deadline)


cdef int take_level_surely(void* mutex, int64_t deadline) noexcept:
    """As take_surely()."""
    cdef PyObject* type = NULL
    cdef PyObject* value
    cdef PyObject* traceback
    while take_level_word(mutex, FS_FOREVER) != FS_ACQUIRED:
        if type == NULL:
            PyErr_Fetch(&type, &value, &traceback)
        else:
            PyErr_Clear()
    if type != NULL:
        PyErr_Restore(type, value, traceback)
    return FS_ACQUIRED


cdef PyObject* new_reentrant_guard(ReentrantMutex m, bint of_block) except NULL:
    cdef PyObject* guard = allocate(ReentrantMutexGuard)
    (<ReentrantMutexGuard>guard).call = reentrant_guard_call
    (<ReentrantMutexGuard>guard).mutex = Py_NewRef(<PyObject*>m)
    (<ReentrantMutexGuard>guard).of_block = of_block
    return guard


cdef object reentrant_lock(ReentrantMutex m, int64_t deadline):
    cdef PyObject* raw = new_reentrant_guard(m, False)
    guard = <object>raw
    Py_DECREF(guard)
    if take_level(m, deadline) == FS_TIMEOUT:
        return None
    begin_levels(&(<ReentrantMutexGuard>raw).levels, 1)
    return guard


cdef object reentrant_enter(ReentrantMutex m):
    cdef PyObject* raw
    if is_mine(m) and m.block != NULL:
        guard = <object>m.block
        take_level(m, FS_FOREVER)
        (<ReentrantMutexGuard>guard).levels.count += 1
        return guard
    raw = new_reentrant_guard(m, True)
    guard = <object>raw
    Py_DECREF(guard)
    take_level(m, FS_FOREVER)
    begin_levels(&(<ReentrantMutexGuard>raw).levels, 1)
    push_block(m, raw)
    return guard


cdef void push_block(ReentrantMutex m, PyObject* guard) noexcept:
    (<ReentrantMutexGuard>guard).outer = m.block
    m.block = Py_NewRef(guard)


cdef void take_block(ReentrantMutex m, PyObject* guard) noexcept:
    """Take it off the list; the caller has a reference, too."""
    cdef PyObject** link = &m.block
    while link[0] != guard:
        link = &(<ReentrantMutexGuard>link[0]).outer
    link[0] = (<ReentrantMutexGuard>guard).outer
    (<ReentrantMutexGuard>guard).outer = NULL
    Py_DECREF(<object>guard)


cdef int reentrant_leave(ReentrantMutex m) except -1:
    """The end of a block."""
    if not is_mine(m):
        raise_not_owner(m)
    if m.block == NULL:
        raise RuntimeError("no `with` block of this thread holds this mutex")
    guard = <ReentrantMutexGuard>m.block
    guard.levels.count -= 1
    if guard.levels.count == 0:
        take_block(m, <PyObject*>guard)
    release_level(m, False)
    return 0


cdef inline bint reentrant_alive(PyObject* guard) noexcept:
    return has_levels(&(<ReentrantMutexGuard>guard).levels,
                      <ReentrantMutex>(<ReentrantMutexGuard>guard).mutex)


cdef inline int reentrant_check(PyObject* guard) except -1:
    if not reentrant_alive(guard):
        raise_not_owner(<ReentrantMutex>(<ReentrantMutexGuard>guard).mutex)
    return 0


cdef inline int reentrant_check_free(PyObject* guard) except -1:
    """Alive, and not the guard of a block."""
    reentrant_check(guard)
    return raise_of_block() if (<ReentrantMutexGuard>guard).of_block else 0


cdef PyObject* reentrant_call(
    PyObject* self, PyObject** args, size_t nargsf, PyObject* names,
) except NULL:
    cdef size_t nargs = PyVectorcall_NARGS(nargsf)
    if names == NULL and nargs == 0:
        guard = reentrant_enter(<ReentrantMutex>self)
        return Py_NewRef(<PyObject*>guard)
    if names == NULL and nargs == 3:
        reentrant_leave(<ReentrantMutex>self)
        return Py_NewRef(Py_None)
    refuse_call(nargs)


@cython.final
@cython.trashcan(True)
cdef class ReentrantMutex:
    """ReentrantMutex(value=None)
--

A Mutex that the thread which holds it may lock again.

Each lock() gives a new guard; the `with` blocks of a thread share one, which is alive
until the last of them ends.  The mutex is free when all guards have ended, in any
order.  Guards are of use in the thread that holds it only, and all lead to the one
value.  Origin: parking_lot's ReentrantMutex."""

    def __cinit__(self, value=None):
        self.call = reentrant_call
        self.value = value
        if tracing():
            trace_made(self)

    def lock(self):
        """Wait for the mutex, or go one deeper; a guard.  OverflowError past 2**32-1 levels."""
        return reentrant_lock(self, FS_FOREVER)

    def try_lock(self):
        """A guard, or None when another thread holds the mutex; never waits."""
        return reentrant_lock(self, 0)

    def try_lock_for(self, seconds):
        """As Mutex.try_lock_for()."""
        return reentrant_lock(self, deadline_for(seconds))

    def try_lock_until(self, deadline):
        """As Mutex.try_lock_until()."""
        return reentrant_lock(self, deadline_until(deadline))

    def is_locked(self):
        """Whether some thread holds it, at this moment; orders nothing."""
        return mutex_is_locked(&self.word.mutex)

    def is_owned_by_current_thread(self):
        """Whether this thread holds it."""
        if not is_mine(self):
            return False
        reap_orphans(self)
        return is_mine(self)

    def into_inner(self):
        """The value, which stays in place.  RuntimeError while a thread holds the mutex."""
        if not reentrant_try_word(self):
            raise RuntimeError("into_inner of a mutex that is locked")
        value = self.value
        unlock_word(&self.word.mutex, False)
        return value

    def force_unlock(self):
        """Unlock what no guard will: after leak(), for C code, or in the child of a fork.

        In the thread that holds it: one level, which was leaked or is C code's.  In
        another thread: all levels, if no guard has one.  In the child of a fork: all
        that another thread of the parent held; its guards are dead there.
        RuntimeError, and nothing changed, when there is no such level.
        """
        reentrant_force_unlock(self, False)

    def force_unlock_fair(self):
        """As force_unlock(); at the last level the first waiting thread gets it."""
        reentrant_force_unlock(self, True)

    def __enter__(self):
        return reentrant_enter(self)

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        reentrant_leave(self)

    @classmethod
    def __class_getitem__(cls, item):
        return GenericAlias(cls, item)

    def __reduce__(self):
        refuse_pickling(self)

    def __repr__(self):
        cdef fs_mutex* word = &self.word.mutex
        if is_mine(self) and self.guarded != 0:
            value = self.value
        elif is_mine(self) and mutex_change_mark(word, 0, here):
            # Nor can another thread force it meanwhile, and then replace the value.
            value = self.value
            mutex_change_mark(word, here, 0)
        elif reentrant_try_word(self):
            value = self.value
            unlock_word(word, False)
        else:
            return "ReentrantMutex(<locked>)"
        return f"ReentrantMutex({value!r})"


cdef inline bint reentrant_try_word(ReentrantMutex m) noexcept:
    """Lock it for a look at the value, without becoming the owner."""
    return mutex_lock_until(&m.word.mutex, 0, mutex_marked(FS_PLAIN, here)) == FS_ACQUIRED


cdef int reentrant_force_own(ReentrantMutex m, bint fair) except -1:
    """force_unlock() in the thread that holds it."""
    if remutex_count(&m.word) == m.guarded or (
            m.guarded == 0 and not mutex_change_mark(&m.word.mutex, 0, here)):
        raise RuntimeError("force_unlock of a ReentrantMutex all of whose levels have guards")
    release_one(m, False, fair)
    return 0


cdef int reentrant_force_unlock(ReentrantMutex m, bint fair) except -1:
    cdef PyObject* blocks = NULL
    if is_mine(m):
        reap_orphans(m)
    if is_mine(m):
        return reentrant_force_own(m, fair)
    if take_over(&m.word.mutex, &m.word.owner) != 0:
        # Guards had levels: those of a thread that did not survive a fork.
        blocks = m.block
        m.block = NULL
        m.guarded = 0
        fs_u32_exchange_acquire(&m.orphans, 0)  # acquire: as in reap_orphans
    if tracing():
        trace_disowned(m, NULL)
    free_word(m, fair)
    forget_blocks(blocks)
    return 0


cdef void forget_blocks(PyObject* guard) noexcept:
    """Drop a list of guards that hold nothing any more."""
    cdef PyObject* outer
    while guard != NULL:
        outer = (<ReentrantMutexGuard>guard).outer
        (<ReentrantMutexGuard>guard).outer = NULL
        (<ReentrantMutexGuard>guard).levels.count = 0
        Py_DECREF(<object>guard)
        guard = outer


# -- ReentrantMutexGuard -----------------------------------------------------

cdef void reentrant_guard_dealloc(PyObject* self) noexcept:
    cdef PyObject* mutex = (<ReentrantMutexGuard>self).mutex
    retire(self)
    drop_level(&(<ReentrantMutexGuard>self).levels, <ReentrantMutex>mutex)
    Py_DECREF(<object>mutex)
    discard(self)


cdef int reentrant_end_hold(PyObject* guard) except -1:
    """The guard is dead; its level is the caller's to release or to pass on."""
    reentrant_check_free(guard)
    (<ReentrantMutexGuard>guard).levels.count = 0
    return 0


cdef int reentrant_unlock(PyObject* guard, bint fair) except -1:
    reentrant_end_hold(guard)
    release_level(<ReentrantMutex>(<ReentrantMutexGuard>guard).mutex, fair)
    return 0


cdef int reentrant_leak(PyObject* guard) except -1:
    cdef PyObject* mutex = (<ReentrantMutexGuard>guard).mutex
    reentrant_end_hold(guard)
    reap_orphans(<ReentrantMutex>mutex)
    (<ReentrantMutex>mutex).guarded -= 1
    if (<ReentrantMutex>mutex).guarded == 0:
        mutex_change_mark(&(<ReentrantMutex>mutex).word.mutex, here, 0)
    return 0


cdef object reentrant_map(ReentrantMutexGuard self, object function, bint optional):
    cdef MappedMutexGuard mapped
    cdef PyObject* mutex = self.mutex
    reentrant_check_free(<PyObject*>self)
    part = map_part(self, function, (<ReentrantMutex>mutex).value, optional)
    if part is None:
        return None
    mapped = MappedMutexGuard.__new__(MappedMutexGuard)
    mapped.mutex = <object>mutex
    mapped.part = part
    reentrant_end_hold(<PyObject*>self)
    begin_levels(&mapped.levels, 1)
    return mapped


cdef PyObject* reentrant_guard_call(
    PyObject* self, PyObject** args, size_t nargsf, PyObject* names,
) except NULL:
    cdef size_t nargs = PyVectorcall_NARGS(nargsf)
    if names == NULL and nargs == 0:
        reentrant_check_free(self)
        return Py_NewRef(self)
    if names == NULL and nargs == 3:
        reentrant_leave_guard(self)
        return Py_NewRef(Py_None)
    refuse_call(nargs)


cdef int reentrant_leave_guard(PyObject* guard) except -1:
    if (<ReentrantMutexGuard>guard).of_block:
        raise_of_block()
    if reentrant_alive(guard):
        return reentrant_unlock(guard, False)
    # release: pairs with the acquire in _UnlockedReentrant
    fs_u8_store_release(&(<ReentrantMutexGuard>guard).left, True)
    return 0


@cython.final
cdef class ReentrantMutexGuard:
    """What holds a level of a ReentrantMutex, and leads to its value.

    As MutexGuard, but RuntimeError in any other thread than the one that holds
    the mutex, and what unlocks goes up one level.  Dropped in another thread,
    it counts until the holder next uses the mutex.  Origin: parking_lot's
    ReentrantMutexGuard, which does not let the value be replaced.
    """

    @property
    def value(self):
        """What the mutex protects."""
        reentrant_check(<PyObject*>self)
        return (<ReentrantMutex>self.mutex).value

    @value.setter
    def value(self, value):
        reentrant_check(<PyObject*>self)
        old = (<ReentrantMutex>self.mutex).value
        (<ReentrantMutex>self.mutex).value = value

    @value.deleter
    def value(self):
        raise AttributeError("the value of a guard cannot be deleted")

    @property
    def mutex(self):
        """The mutex that it holds."""
        reentrant_check(<PyObject*>self)
        return <object>self.mutex

    def unlock(self):
        """End this hold.  RuntimeError for the guard of a `with` block of the mutex."""
        reentrant_unlock(<PyObject*>self, False)

    def unlock_fair(self):
        """As unlock(); at the last level the first waiting thread gets the mutex."""
        reentrant_unlock(<PyObject*>self, True)

    def bump(self):
        """As MutexGuard.bump(); nothing unless this is the only hold."""
        reentrant_check(<PyObject*>self)
        reap_orphans(<ReentrantMutex>self.mutex)
        # relaxed: as in bump() above
        if (remutex_count(&(<ReentrantMutex>self.mutex).word) == 1 and FS_MUTEX_PARKED
                & fs_u8_load_relaxed(&(<ReentrantMutex>self.mutex).word.mutex.state)):
            with reentrant_unlocked(self, True):
                pass

    def unlocked(self):
        """As MutexGuard.unlocked(), for one level: others keep the mutex locked."""
        return reentrant_unlocked(self, False)

    def unlocked_fair(self):
        """As unlocked(), unlocking as unlock_fair() does."""
        return reentrant_unlocked(self, True)

    def leak(self):
        """Give the guard up and stay one level deeper: see ReentrantMutex.force_unlock().

        RuntimeError for the guard of a `with` block of the mutex.
        """
        reentrant_leak(<PyObject*>self)

    def map(self, function):
        """As MutexGuard.map()."""
        return reentrant_map(self, function, False)

    def try_map(self, function):
        """As MutexGuard.try_map()."""
        return reentrant_map(self, function, True)

    def __enter__(self):
        reentrant_check_free(<PyObject*>self)
        return self

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        reentrant_leave_guard(<PyObject*>self)

    @classmethod
    def __class_getitem__(cls, item):
        return GenericAlias(cls, item)

    def __reduce__(self):
        refuse_pickling(self)

    def __repr__(self):
        # As seen from this thread.
        alive = "" if reentrant_alive(<PyObject*>self) else ", dead"
        return f"<ReentrantMutexGuard{alive}>"


cdef object reentrant_unlocked(ReentrantMutexGuard guard, bint fair):
    cdef _UnlockedReentrant result
    reentrant_check(<PyObject*>guard)
    result = _UnlockedReentrant.__new__(_UnlockedReentrant)
    result.guard = guard
    result.fair = fair
    return result


cdef int take_level_back(ReentrantMutexGuard guard) except -1:
    """As take_back()."""
    cdef PyObject* mutex = guard.mutex
    if not guard.of_block:
        take_level(<ReentrantMutex>mutex, FS_FOREVER)
        begin_levels(&guard.levels, guard.levels.count + 1)
        return 0
    if tracing():
        trace_relock(<ReentrantMutex>mutex, FS_REENTRANT, 1, NULL, take_level_surely, mutex)
    else:
        take_level_surely(mutex, FS_FOREVER)
    begin_levels(&guard.levels, guard.levels.count + 1)
    if guard.levels.count == 1:
        push_block(<ReentrantMutex>mutex, <PyObject*>guard)
    return -1 if PyErr_Occurred() else 0


@cython.final
@cython.no_gc_clear
@cython.trashcan(True)
cdef class _UnlockedReentrant:
    """The context manager of ReentrantMutexGuard.unlocked()."""
    cdef ReentrantMutexGuard guard
    cdef bint fair
    cdef fs_atomic_u8 inside

    def __enter__(self):
        cdef PyObject* mutex = self.guard.mutex
        reentrant_check(<PyObject*>self.guard)
        # acq_rel: pairs with __exit__
        if fs_u8_exchange_acq_rel(&self.inside, True):
            raise RuntimeError("unlocked() was entered before")
        self.guard.levels.count -= 1
        if self.guard.of_block and self.guard.levels.count == 0:
            take_block(<ReentrantMutex>mutex, <PyObject*>self.guard)
        release_level(<ReentrantMutex>mutex, self.fair)

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        # acq_rel: pairs with __enter__; of two threads that leave it one gets past this
        if not fs_u8_exchange_acq_rel(&self.inside, False):
            raise RuntimeError("unlocked() was not entered")
        # acquire: pairs with the release in reentrant_leave_guard
        if fs_u8_load_acquire(&self.guard.left):
            raise_left()
        take_level_back(self.guard)


# -- Condvar -----------------------------------------------------------------

cdef int check_guard(object guard) except -1:
    """That it is the guard of a Mutex."""
    cdef str name
    if type(guard) is MutexGuard:
        if type(<object>(<MutexGuard>guard).mutex) is Mutex:
            return 0
        raise RuntimeError("a Condvar works with the guards of a Mutex, not of a FairMutex")
    name = type(guard).__name__
    if type(guard).__module__ == "fastsync" and name.endswith("Guard"):
        raise RuntimeError(f"a Condvar works with the guards of a Mutex, not with a {name}")
    raise TypeError(f"a MutexGuard is needed, not {name!r}")


cdef bint wait(Condvar c, object guard, int64_t deadline) except -1:
    """Whether the wait timed out; the guard's mutex is locked again in any case."""
    cdef int block, outcome
    cdef int flags = mutex_marked(FS_SIGNALS, here)
    cdef fs_wait noting
    cdef PyObject* mutex
    check_guard(guard)
    mutex = (<MutexGuard>guard).mutex
    if deadline == 0:
        deadline = 1  # the past: unlock the mutex and take it again, at once
    block = lend(<PyObject*>guard)
    # relaxed: ordered by the unlock in condvar_wait
    fs_uptr_store_relaxed(&(<_Mutex>mutex).thread, 0)
    if not tracing():
        outcome = condvar_wait(&c.word, &(<_Mutex>mutex).word, deadline, flags)
    else:
        trace_condition(&noting, c, <object>mutex, FS_EXCLUSIVE, <PyObject*>guard,
                        &(<_Mutex>mutex).word, deadline)
        outcome = condvar_wait(&c.word, &(<_Mutex>mutex).word, deadline, flags)
        trace_notified(&noting)
    if not give_back(<PyObject*>guard, block):
        release(<_Mutex>mutex, <PyObject*>guard, False)
        if outcome != FS_ERROR:
            raise_left()
    if outcome == FS_CONDVAR_BAD_MUTEX:
        raise RuntimeError("other threads wait on this Condvar with another mutex")
    if outcome == FS_ERROR:
        return -1
    return outcome == FS_CONDVAR_TIMEOUT


cdef bint wait_while(Condvar c, object guard, object predicate, int64_t deadline) except -1:
    cdef bint timed_out = False
    check_guard(guard)
    while not timed_out and predicate(
            read_value(&(<MutexGuard>guard).hold, <_Mutex>(<MutexGuard>guard).mutex)):
        timed_out = wait(c, guard, deadline)
    return timed_out


@cython.final
cdef class Condvar:
    """Condvar()
--

A condition variable over the guard of a Mutex.

A wait lets the mutex go, sleeps until it is notified, and locks the mutex
again; meanwhile the guard is dead to everybody.  No spurious wake-ups; first
come, first notified.  RuntimeError for a guard that is dead, mapped or of
another type of lock, and for a wait with a second mutex while threads wait
with a first; TypeError for what is no guard.  A signal handler's exception
leaves a wait when the mutex is locked again.

The timed waits return True when they TIMED OUT, unlike those of
threading.Condition.  Origin: parking_lot's Condvar."""

    def __init__(self):
        pass

    def wait(self, guard):
        """Wait until notified."""
        wait(self, guard, FS_FOREVER)

    def wait_for(self, guard, seconds):
        """Wait until notified or for `seconds`: True when it TIMED OUT.

        Who was notified in time and got the mutex late has not timed out.
        `seconds` as in Mutex.try_lock_for().
        """
        return wait(self, guard, deadline_for(seconds))

    def wait_until(self, guard, deadline):
        """As wait_for(), with a time.monotonic() value for the end."""
        return wait(self, guard, deadline_until(deadline))

    def wait_while(self, guard, predicate):
        """Wait as long as predicate(value) is true, asked first and after each notification."""
        wait_while(self, guard, predicate, FS_FOREVER)

    def wait_while_for(self, guard, predicate, seconds):
        """As wait_while(), for at most `seconds`: True when it TIMED OUT.

        The predicate is not asked again after that.
        """
        return wait_while(self, guard, predicate, deadline_for(seconds))

    def wait_while_until(self, guard, predicate, deadline):
        """As wait_while_for(), with a time.monotonic() value for the end."""
        return wait_while(self, guard, predicate, deadline_until(deadline))

    def notify_one(self):
        """Wake the thread that has waited longest; whether there was one.

        If the mutex is held, the thread is moved to the mutex's queue and
        counts all the same.  The caller need not hold the mutex.
        """
        return condvar_notify_one(&self.word)

    def notify_all(self):
        """Wake everybody, one after the other as the mutex gets free; how many they were."""
        return condvar_notify_all(&self.word)

    def __reduce__(self):
        refuse_pickling(self)

    def __repr__(self):
        return f"<Condvar, {parked_count(<uintptr_t>&self.word)} waiting>"


def _waiters(mutex):
    """How many threads are parked on a mutex: for tests, which must not sleep and hope."""
    if type(mutex) is ReentrantMutex:
        return parked_count(<uintptr_t>&(<ReentrantMutex>mutex).word.mutex)
    return parked_count(<uintptr_t>&(<_Mutex?>mutex).word)


# -- what the collector sees: the world stands, or has the GIL ---------------
#
# A guard refers to its mutex, and a mutex to the guard of a block that has not
# ended.  Nothing of that ends by itself when both are garbage.

cdef fs_traverse traverse_value, traverse_reentrant_value


cdef int traverse_guard(PyObject* self, visitproc visit, void* arg) noexcept:
    cdef PyObject* mutex = (<MutexGuard>self).mutex
    return visit(mutex, arg) if mutex != NULL else 0


cdef int traverse_reentrant_guard(PyObject* self, visitproc visit, void* arg) noexcept:
    cdef PyObject* mutex = (<ReentrantMutexGuard>self).mutex
    return visit(mutex, arg) if mutex != NULL else 0


cdef int traverse_mutex(PyObject* self, visitproc visit, void* arg) noexcept:
    # acquire: pairs with the release in open_block
    cdef PyObject* guard = <PyObject*>fs_uptr_load_acquire(&(<_Mutex>self).block)
    cdef int result = visit(guard, arg) if guard != NULL else 0
    return result if result != 0 else traverse_value(self, visit, arg)


cdef int clear_mutex(PyObject* self) noexcept:
    # acq_rel: as leave
    cdef PyObject* guard = <PyObject*>fs_uptr_exchange_acq_rel(&(<_Mutex>self).block, 0)
    if guard != NULL:
        end_block(<_Mutex>self, guard)
    (<_Mutex>self).value = None
    return 0


cdef int traverse_reentrant(PyObject* self, visitproc visit, void* arg) noexcept:
    cdef PyObject* guard = (<ReentrantMutex>self).block
    cdef int result = 0
    while guard != NULL and result == 0:
        result = visit(guard, arg)
        guard = (<ReentrantMutexGuard>guard).outer
    return result if result != 0 else traverse_reentrant_value(self, visit, arg)


cdef int clear_reentrant(PyObject* self) noexcept:
    cdef PyObject* blocks = (<ReentrantMutex>self).block
    (<ReentrantMutex>self).block = NULL
    forget_blocks(blocks)
    (<ReentrantMutex>self).value = None
    return 0


# -- set-up ------------------------------------------------------------------

cdef int set_up() except -1:
    global traverse_value, traverse_reentrant_value
    # Where an instance could be: the address of a field in it is its offset.
    cdef uint64_t[64] room
    cdef PyObject* probe = <PyObject*>room
    cdef Py_ssize_t mutex = <char*>&(<_Mutex>probe).call - <char*>probe
    cdef Py_ssize_t guard = <char*>&(<MutexGuard>probe).call - <char*>probe
    cdef Py_ssize_t mapped = <char*>&(<MappedMutexGuard>probe).call - <char*>probe
    cdef Py_ssize_t reentrant = <char*>&(<ReentrantMutex>probe).call - <char*>probe
    cdef Py_ssize_t reentrant_guard = <char*>&(<ReentrantMutexGuard>probe).call - <char*>probe
    make_recycled(MutexGuard, traverse_guard, guard_dealloc)
    make_recycled(ReentrantMutexGuard, traverse_reentrant_guard, reentrant_guard_dealloc)
    traverse_value = collect_by(Mutex, traverse_mutex, clear_mutex)
    collect_by(FairMutex, traverse_mutex, clear_mutex)
    traverse_reentrant_value = collect_by(ReentrantMutex, traverse_reentrant, clear_reentrant)
    make_context_manager(Mutex, mutex)
    make_context_manager(FairMutex, mutex)
    make_context_manager(MutexGuard, guard)
    make_context_manager(MappedMutexGuard, mapped)
    make_context_manager(ReentrantMutex, reentrant)
    make_context_manager(ReentrantMutexGuard, reentrant_guard)
    for cls in (_Mutex, MappedMutexGuard, _Unlocked, _UnlockedReentrant):
        forbid_instances(cls)
    if fs_at_fork(nothing, nothing, after_fork_in_child) != 0:
        raise MemoryError("pthread_atfork failed")
    register_pinnable(Mutex, FairMutex, ReentrantMutex, Condvar)
    return 0


set_up()
check_sizes()
publish((
    Condvar, FairMutex, MappedMutexGuard, Mutex, MutexGuard, ReentrantMutex,
    ReentrantMutexGuard,
))
