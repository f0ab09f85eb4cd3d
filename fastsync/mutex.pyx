"""Mutex, FairMutex, ReentrantMutex, their guards, and Condvar.

A mutex owns a value, and whoever locks it gets a guard: the only way to the
value.  The raw lock is one byte (locks.pxd); what is here says who holds it.

The owner of a Mutex or FairMutex is one word beside the lock:

    0               nobody; or somebody who has the lock, but no guard: for a
                    moment at each end of a hold, while the guard's thread
                    waits on a Condvar or is in `unlocked()`, or C code
    guard           the address of the guard that is alive
    guard | BUSY    the same, and a thread is reading or replacing the value
    LEAKED          nobody; the guard was leaked
    BUSY            nobody; into_inner() or repr() is reading the value

    0 -> guard               by who has just taken the lock
    guard -> 0               by whoever ends the hold; that thread unlocks
    guard -> another guard   map()
    guard <-> guard | BUSY   by the readers and writers of the value
    guard -> LEAKED -> 0     leak(), force_unlock()

A guard is alive while the word has its address, whatever the guard itself may
remember; all changes are compare-and-swaps.  So of two threads that unlock one
guard one succeeds, and a guard whose hold force_unlock() has ended is dead
even if the mutex is locked again.  Comparing addresses is sound because who
has a guard's address to compare has a reference to the guard.

The value is touched only under BUSY, where nothing can run Python, wait or
stop for the collector: reading it and counting the reference are one step to
every other thread, so a misused guard cannot free what another reads.  (With
the GIL that is so without BUSY.)  BUSY is over within instructions, and never
inherited by a fork: other threads are stopped for it outside of such a step.
"""
cimport cython
from libc.stdint cimport UINT32_MAX, int64_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc
from cpython.object cimport PyObject, visitproc
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF

from fastsync.c_atomic cimport (
    fs_atomic_uptr, fs_u32_exchange_acquire, fs_u32_fetch_add_relaxed,
    fs_u32_fetch_add_release, fs_u32_load_relaxed, fs_u8_load_relaxed,
    fs_uptr_cas_acq_rel, fs_uptr_cas_acquire, fs_uptr_exchange_acq_rel,
    fs_uptr_load_acquire, fs_uptr_load_relaxed, fs_uptr_store_release,
    fs_uptr_store_relaxed,
)
from fastsync.c_python cimport (
    FS_FREE_THREADED, PyThreadState, fs_attach, fs_detach, fs_running,
)
from fastsync.c_wait cimport FS_FOREVER, fs_yield
from fastsync.locks cimport *
from fastsync.parking cimport (
    FS_ERROR, FS_SIGNALS, FS_STOP, FS_TOKEN_NORMAL, fs_unpark_result,
    parked_count, unpark_filter,
)
from fastsync.slots cimport (
    allocate, collect_by, discard, forbid_instances, fs_call, fs_traverse,
    make_context_manager, make_recycled, retire, reuse,
)
from fastsync.timeouts cimport deadline_for, deadline_until
from fastsync.trace cimport (
    FS_BLOCK, FS_EXCLUSIVE, FS_REENTRANT, fs_section, fs_wait, trace_block, trace_changed,
    trace_condition, trace_disowned, trace_lock, trace_made, trace_notified, trace_release,
    trace_released, tracing,
)

from types import GenericAlias

from fastsync._mapping import Part, record

cdef extern from "Python.h":
    PyObject* Py_None
    PyObject* Py_NewRef(PyObject*) noexcept
    size_t PyVectorcall_NARGS(size_t) noexcept

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


cdef enum:
    BUSY = 1
    LEAKED = 2


# -- the owner word ----------------------------------------------------------

cdef inline bint is_guard(uintptr_t owner) noexcept nogil:
    return owner > LEAKED


cdef bint replace_owner(_Mutex m, uintptr_t holder, uintptr_t heir) noexcept:
    """End a hold; False when `holder` is not the owner any more."""
    cdef uintptr_t seen = holder
    # acq_rel: acquires what the thread that locked wrote (it stored the owner
    # with release), releases what this thread did under the lock, in case
    # that another one unlocks
    while not fs_uptr_cas_acq_rel(&m.owner, &seen, heir):
        if seen != (holder | BUSY):
            return False
        fs_yield()
        seen = holder
    return True


cdef inline bint begin_access(_Mutex m, uintptr_t holder) noexcept:
    """Whether `holder` is the owner; then the value is ours until end_access."""
    cdef uintptr_t seen = holder
    if not FS_FREE_THREADED:
        return fs_uptr_load_relaxed(&m.owner) == holder  # relaxed: the GIL orders it
    # acquire: pairs with the releases of end_access, of the store that made
    # `holder` the owner and, through the lock, of its predecessors
    while not fs_uptr_cas_acquire(&m.owner, &seen, holder | BUSY):
        if seen != (holder | BUSY):
            return False
        fs_yield()
        seen = holder
    return True


cdef inline void end_access(_Mutex m, uintptr_t holder) noexcept:
    if FS_FREE_THREADED:
        # release: pairs with the acquire in begin_access
        fs_uptr_store_release(&m.owner, holder)


cdef object read_value(_Mutex m, uintptr_t holder):
    if not begin_access(m, holder):
        raise_dead()
    value = m.value
    end_access(m, holder)
    return value


cdef int write_value(_Mutex m, uintptr_t holder, object value) except -1:
    if not begin_access(m, holder):
        raise_dead()
    old = m.value  # so that nothing is freed before end_access
    m.value = value
    end_access(m, holder)
    return 0


cdef int raise_dead() except -1:
    raise RuntimeError(
        "this guard holds no lock: it was released, mapped or leaked, or it has lent its "
        "lock to a wait or to unlocked()")


# -- taking and letting go ---------------------------------------------------

# `holder` is the guard, which the detector knows the hold by; `block` is FS_BLOCK for
# a `with` statement, else 0.
cdef inline int acquire(_Mutex m, int64_t deadline, PyObject* holder, int block) except -1:
    """FS_ACQUIRED or FS_TIMEOUT; an exception when a signal handler raised."""
    if tracing():
        return trace_lock(m, FS_EXCLUSIVE | block, deadline, holder, take_word, &m.word)
    return mutex_lock_until(&m.word, deadline, FS_SIGNALS)


cdef int take_word(void* mutex, int64_t deadline) noexcept:
    return mutex_lock_until(<fs_mutex*>mutex, deadline, FS_SIGNALS)


cdef inline void let_go(_Mutex m, PyObject* holder, bint fair) noexcept:
    """Unlock, after the owner word was given back."""
    if tracing():
        let_go_traced(m, holder, fair)
    elif fair or m.fair:
        mutex_unlock_fair(&m.word)
    else:
        mutex_unlock(&m.word)


cdef void let_go_traced(_Mutex m, PyObject* holder, bint fair) noexcept:
    cdef fs_section section
    trace_release(&section, m, FS_EXCLUSIVE, holder)
    if fair or m.fair:
        mutex_unlock_fair(&m.word)
    else:
        mutex_unlock(&m.word)
    trace_released(&section)


cdef inline void set_block(_Mutex m, uintptr_t frame, uintptr_t thread) noexcept:
    # relaxed: published by the release of the owner that follows
    fs_uptr_store_relaxed(&m.frame, frame)
    fs_uptr_store_relaxed(&m.thread, thread)


cdef inline fs_block get_block(_Mutex m) noexcept:
    cdef fs_block block
    # relaxed: ordered by the owner word, which was read before
    block.frame = fs_uptr_load_relaxed(&m.frame)
    block.thread = fs_uptr_load_relaxed(&m.thread)
    block.serial = 0
    return block


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


cdef inline void make_alive(_Mutex m, PyObject* guard) noexcept:
    # release: pairs with the acquire of whoever compares the owner
    fs_uptr_store_release(&m.owner, <uintptr_t>guard)


cdef object lock(_Mutex m, int64_t deadline):
    """A guard, or None when the deadline has passed."""
    cdef PyObject* raw
    if deadline == 0 and mutex_is_locked(&m.word):
        return None
    raw = new_guard(m)  # before locking: it may fail
    guard = <object>raw
    Py_DECREF(guard)
    if acquire(m, deadline, raw, 0) == FS_TIMEOUT:
        return None
    make_alive(m, raw)
    return guard


# -- `with` on a mutex -------------------------------------------------------
#
# `with m` gives a guard and may forget it at once (there may be no `as`), so
# the mutex has a reference to a guard that came from a block, as long as it is
# alive: `frame` is not 0 then.
#
# The end of the block sees the mutex only, not the guard.  It must end the
# hold of its own guard, and nobody else's when that has ended before.  Holds
# are told apart by the Python function and the thread that run the block; a
# block whose guard ends early is put on a list, and taken off when it ends.
# A call of __exit__ by another function than the one that called __enter__
# (a wrapper, ExitStack) is told by its thread.

cdef PyObject* enter(_Mutex m) except NULL:
    cdef uintptr_t frame, thread
    cdef PyObject* guard = new_guard(m)
    try:
        acquire(m, FS_FOREVER, guard, FS_BLOCK)
    except:
        Py_DECREF(<object>guard)
        raise
    fs_running(&thread, &frame)
    set_block(m, frame, thread)
    Py_INCREF(<object>guard)  # the block's
    make_alive(m, guard)
    return guard


cdef inline int leave(_Mutex m) except -1:
    cdef fs_block here
    # acquire: pairs with the release in make_alive, so that the block below is
    # this owner's or a later one's
    cdef uintptr_t owner = fs_uptr_load_acquire(&m.owner)
    fs_running(&here.thread, &here.frame)
    here.serial = 0
    if is_guard(owner) and fs_uptr_load_relaxed(&m.frame) == here.frame:
        if end_block(m, owner & ~<uintptr_t>BUSY):
            return 0
    return leave_elsewhere(m, here)


cdef inline bint end_block(_Mutex m, uintptr_t guard) noexcept:
    """End the hold of a guard that came from a block, with the block."""
    if not replace_owner(m, guard, 0):
        return False
    set_block(m, 0, 0)
    let_go(m, <PyObject*>guard, False)
    Py_DECREF(<object><PyObject*>guard)
    return True


cdef int leave_elsewhere(_Mutex m, fs_block here) except -1:
    """The owner is not this function's."""
    cdef uintptr_t owner
    cdef fs_block block
    if settle(&m.ended, here, True):
        return 0
    owner = fs_uptr_load_acquire(&m.owner)  # acquire: see leave
    block = get_block(m)
    if not is_guard(owner) or block.frame == 0:
        settle(&m.ended, here, False)
    elif block.thread == here.thread or not settle(&m.ended, here, False):
        end_block(m, owner & ~<uintptr_t>BUSY)
    return 0


cdef inline bint close_early(_Mutex m) noexcept:
    """A hold ends otherwise than with its block, and we have the lock: whether
    it came from one.  Leaving that will end nothing; its reference to the
    guard is the caller's now."""
    cdef fs_block block = get_block(m)
    if block.frame == 0:
        return False
    set_block(m, 0, 0)
    note_ended(&m.ended, block)
    return True


cdef void note_ended(fs_ended_list* ended, fs_block block) noexcept:
    cdef fs_ended* entry = <fs_ended*>malloc(sizeof(fs_ended))
    cdef fs_ended** last
    cdef fs_ended* oldest = NULL
    if entry == NULL:
        return
    entry.block = block
    mutex_lock(&ended.lock)
    entry.next = ended.first
    ended.first = entry
    # relaxed, here and below: under the lock, or its reader looks for its own
    if fs_u32_fetch_add_relaxed(&ended.count, 1) >= 64:
        # Blocks that nobody ever leaves: __enter__ called by hand.
        last = &ended.first
        while last[0].next != NULL:
            last = &last[0].next
        oldest = last[0]
        last[0] = NULL
        fs_u32_fetch_add_relaxed(&ended.count, UINT32_MAX)
    mutex_unlock(&ended.lock)
    free(oldest)


cdef bint settle(fs_ended_list* ended, fs_block here, bint exactly) noexcept:
    """Take a block of this function (or of this thread) off the list, the last first,
    if it was entered after `here`."""
    cdef fs_ended** link = &ended.first
    cdef fs_ended** best = NULL
    cdef fs_ended* found = NULL
    mutex_lock(&ended.lock)
    while link[0] != NULL:
        if (link[0].block.frame == here.frame if exactly
                else link[0].block.thread == here.thread):
            if best == NULL or link[0].block.serial > best[0].block.serial:
                best = link
        link = &link[0].next
    if best != NULL and best[0].block.serial >= here.serial:
        found = best[0]
        best[0] = found.next
        fs_u32_fetch_add_relaxed(&ended.count, UINT32_MAX)
    mutex_unlock(&ended.lock)
    free(found)
    return found != NULL


cdef void free_ended(fs_ended_list* ended) noexcept:
    cdef fs_ended* entry = ended.first
    while entry != NULL:
        ended.first = entry.next
        free(entry)
        entry = ended.first


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


cdef int force_unlock(_Mutex m, bint fair) except -1:
    cdef uintptr_t owner
    cdef bint from_block
    cdef int patience = 1000
    while True:
        # acquire: pairs with the release of who stored it
        owner = fs_uptr_load_acquire(&m.owner) & ~<uintptr_t>BUSY
        if owner != 0:
            if replace_owner(m, owner, 0):
                break
            continue
        if not mutex_is_locked(&m.word):
            raise RuntimeError("force_unlock of a mutex that is not locked")
        # A hold that begins or ends just now is a guard's or nobody's in a
        # moment.  If it stays so: a thread that did not survive a fork, or C code.
        patience -= 1
        if patience == 0:
            break
        pause_detached()
    from_block = close_early(m)
    if tracing():
        trace_disowned(m, NULL)
    let_go(m, NULL, fair)
    if from_block and is_guard(owner):
        Py_DECREF(<object><PyObject*>owner)
    return 0


cdef void pause_detached() noexcept:
    cdef PyThreadState* state = fs_detach()
    fs_yield()
    fs_attach(state)


cdef bint peek_value(_Mutex m, PyObject** value) noexcept:
    """A new reference to the value, if the mutex is free."""
    cdef bint taken = mutex_try_lock(&m.word)
    if taken:
        # BUSY keeps force_unlock away.  release: as make_alive
        fs_uptr_store_release(&m.owner, BUSY)
        value[0] = Py_NewRef(<PyObject*>m.value)
        fs_uptr_store_release(&m.owner, 0)  # release: as replace_owner
        mutex_unlock(&m.word)
    return taken


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
        free_ended(&self.ended)

    def lock(self):
        """Wait for the mutex; a guard that holds it.

        A second lock() in a thread that holds it waits for ever.  Ordering: what
        was done under the lock before is visible (acquire).  Origin:
        parking_lot's Mutex::lock.
        """
        return lock(self, FS_FOREVER)

    def try_lock(self):
        """A guard, or None when somebody holds the mutex; never waits.

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
        """Whether somebody holds it, at this moment; orders nothing."""
        return mutex_is_locked(&self.word)

    def into_inner(self):
        """The value, which stays in place.  RuntimeError while somebody holds the mutex."""
        cdef PyObject* raw
        if not peek_value(self, &raw):
            raise RuntimeError("into_inner of a mutex that is locked")
        value = <object>raw
        Py_DECREF(value)
        return value

    def force_unlock(self):
        """Unlock it on behalf of whoever holds it, and kill the guard if there is one.

        Meant for a guard that was leaked, and for the child of a fork.
        RuntimeError when it is not locked.
        """
        force_unlock(self, False)

    def force_unlock_fair(self):
        """As force_unlock, and hand the mutex to the first who waits for it."""
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

One byte of state; not re-entrant.  A thread that has waited for about a
millisecond gets it handed over.  An exception in the block does not poison it.
Letting it go happens before the next lock (release / acquire ordering).
Origin: parking_lot's Mutex."""


@cython.final
cdef class FairMutex(_Mutex):
    """FairMutex(value=None)
--

A Mutex that is always handed over to the thread that has waited longest.

Nobody can take it past a queue, at the price of a switch of threads for each
hold.  A Condvar does not take its guards.  Origin: parking_lot's FairMutex."""

    def __cinit__(self):
        self.fair = True


# -- MutexGuard --------------------------------------------------------------

cdef void guard_dealloc(PyObject* self) noexcept:
    cdef PyObject* mutex = (<MutexGuard>self).mutex
    cdef uintptr_t old
    retire(self)
    # relaxed: whoever made it alive has let a reference go since, which orders it
    if fs_uptr_load_relaxed(&(<_Mutex>mutex).owner) == <uintptr_t>self:
        if replace_owner(<_Mutex>mutex, <uintptr_t>self, 0):
            let_go(<_Mutex>mutex, self, False)
    # release: pairs with the acquire in new_guard; acquire: with this release
    old = fs_uptr_exchange_acq_rel(&(<_Mutex>mutex).spare, <uintptr_t>self)
    if old != 0:
        discard(<PyObject*>old)
    Py_DECREF(<object>mutex)


cdef inline bint guard_alive(PyObject* guard) noexcept:
    # acquire: pairs with the release in make_alive
    return (fs_uptr_load_acquire(&(<_Mutex>(<MutexGuard>guard).mutex).owner)
            & ~<uintptr_t>BUSY) == <uintptr_t>guard


cdef int end_hold(PyObject* guard) except -1:
    """The guard is dead, and its lock ours to let go or to pass on."""
    cdef PyObject* mutex = (<MutexGuard>guard).mutex
    if not replace_owner(<_Mutex>mutex, <uintptr_t>guard, 0):
        raise_dead()
    if close_early(<_Mutex>mutex):
        Py_DECREF(<object>guard)  # not the last: the caller has one
    return 0


cdef inline int release(PyObject* guard, bint fair) except -1:
    end_hold(guard)
    let_go(<_Mutex>(<MutexGuard>guard).mutex, guard, fair)
    return 0


cdef int suspend(PyObject* guard, fs_block* block) except -1:
    """The guard is dead until resume() or abandon(), the mutex still locked."""
    cdef PyObject* mutex = (<MutexGuard>guard).mutex
    if not replace_owner(<_Mutex>mutex, <uintptr_t>guard, 0):
        raise_dead()
    block[0] = get_block(<_Mutex>mutex)
    set_block(<_Mutex>mutex, 0, 0)
    return 0


cdef void resume(PyObject* guard, fs_block* block) noexcept:
    """The mutex is locked again."""
    cdef PyObject* mutex = (<MutexGuard>guard).mutex
    set_block(<_Mutex>mutex, block.frame, block.thread)
    make_alive(<_Mutex>mutex, guard)


cdef void abandon(PyObject* guard, fs_block* block) noexcept:
    """It was not: the guard has ended."""
    if block.frame != 0:
        note_ended(&(<_Mutex>(<MutexGuard>guard).mutex).ended, block[0])
        Py_DECREF(<object>guard)


cdef int lock_again(PyObject* guard, fs_block* block) except -1:
    """Resume, or leave the guard dead when a signal handler raised."""
    try:
        acquire(<_Mutex>(<MutexGuard>guard).mutex, FS_FOREVER, guard,
                FS_BLOCK if block.frame != 0 else 0)
    except:
        abandon(guard, block)
        raise
    resume(guard, block)
    return 0


cdef int bump(PyObject* guard) except -1:
    cdef fs_block block
    cdef PyObject* mutex = (<MutexGuard>guard).mutex
    if not guard_alive(guard):
        raise_dead()
    # relaxed: a hint; nobody is promised a turn who comes later
    if not fs_u8_load_relaxed(&(<_Mutex>mutex).word.state) & FS_MUTEX_PARKED:
        return 0
    suspend(guard, &block)
    let_go(<_Mutex>mutex, guard, True)
    lock_again(guard, &block)
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
    part = map_part(self, function, read_value(<_Mutex>self.mutex, <uintptr_t><PyObject*>self),
                    optional)
    if part is None:
        return None
    mapped = MappedMutexGuard.__new__(MappedMutexGuard)
    mapped.mutex = <object>self.mutex
    mapped.part = part
    end_hold(<PyObject*>self)
    if tracing():
        trace_changed(<object>self.mutex, <PyObject*>self, <PyObject*>mapped, FS_EXCLUSIVE)
    make_alive(<_Mutex>self.mutex, <PyObject*>mapped)
    return mapped


cdef int guard_enter(PyObject* guard) except -1:
    if not guard_alive(guard):
        raise_dead()
    if tracing():
        trace_block(<object>(<MutexGuard>guard).mutex, guard)
    return 0


cdef PyObject* guard_call(
    PyObject* self, PyObject** args, size_t nargsf, PyObject* names,
) except NULL:
    cdef size_t nargs = PyVectorcall_NARGS(nargsf)
    if names == NULL and nargs == 0:
        guard_enter(self)
        return Py_NewRef(self)
    if names == NULL and nargs == 3:
        if guard_alive(self):
            release(self, False)
        return Py_NewRef(Py_None)
    refuse_call(nargs)


@cython.final
cdef class MutexGuard:
    """What holds a Mutex or a FairMutex, and leads to its value.

    It unlocks with unlock(), at the end of its `with` block, or when it is
    dropped: that last at once only in the thread that made it.  Any thread may
    use it.  RuntimeError on every use once it holds the mutex no more.  Origin:
    parking_lot's MutexGuard.
    """

    @property
    def value(self):
        """What the mutex protects."""
        return read_value(<_Mutex>self.mutex, <uintptr_t><PyObject*>self)

    @value.setter
    def value(self, value):
        write_value(<_Mutex>self.mutex, <uintptr_t><PyObject*>self, value)

    @value.deleter
    def value(self):
        raise AttributeError("the value of a guard cannot be deleted")

    @property
    def mutex(self):
        """The mutex that it holds."""
        if not guard_alive(<PyObject*>self):
            raise_dead()
        return <object>self.mutex

    def unlock(self):
        """Let the mutex go."""
        release(<PyObject*>self, False)

    def unlock_fair(self):
        """Let it go, and hand it to the thread that has waited longest, if any waits."""
        release(<PyObject*>self, True)

    def bump(self):
        """Give way to those who wait: unlock_fair() and lock(), or next to nothing
        when nobody waits.  The guard is dead if a signal handler raises meanwhile."""
        bump(<PyObject*>self)

    def unlocked(self):
        """A context manager: in its block the mutex is unlocked and the guard dead.

        It is locked again at the end, also on an exception.  A signal handler
        that raises while it waits for that leaves the guard dead.
        """
        return make_unlocked(self, False)

    def unlocked_fair(self):
        """As unlocked(), unlocking as unlock_fair() does."""
        return make_unlocked(self, True)

    def leak(self):
        """Give the guard up and leave the mutex locked: see Mutex.force_unlock()."""
        end_hold(<PyObject*>self)
        if tracing():
            trace_disowned(<object>self.mutex, <PyObject*>self)
        # release: as make_alive
        fs_uptr_store_release(&(<_Mutex>self.mutex).owner, LEAKED)

    def map(self, function):
        """Turn it into a guard of a part of the value; this one is dead then.

        function gets a stand-in for the value and returns the part, named by
        attributes and items: `g.map(lambda v: v["a"].x)`.  An exception, also
        for a part that is not there, leaves this guard alive.
        """
        return map_guard(self, function, False)

    def try_map(self, function):
        """As map(); None, with this guard alive, when function returns None."""
        return map_guard(self, function, True)

    def __enter__(self):
        guard_enter(<PyObject*>self)
        return self

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        if guard_alive(<PyObject*>self):
            release(<PyObject*>self, False)

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
    if not guard_alive(<PyObject*>guard):
        raise_dead()
    result = _Unlocked.__new__(_Unlocked)
    result.guard = guard
    result.fair = fair
    return result


@cython.final
@cython.no_gc_clear
cdef class _Unlocked:
    """The context manager of MutexGuard.unlocked()."""
    cdef MutexGuard guard
    cdef fs_block block
    cdef bint fair
    cdef bint inside

    def __enter__(self):
        suspend(<PyObject*>self.guard, &self.block)
        self.inside = True
        let_go(<_Mutex>self.guard.mutex, <PyObject*>self.guard, self.fair)

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        if not self.inside:
            raise RuntimeError("unlocked() was not entered")
        self.inside = False
        lock_again(<PyObject*>self.guard, &self.block)

    def __dealloc__(self):
        if self.inside:
            abandon(<PyObject*>self.guard, &self.block)


# -- MappedMutexGuard --------------------------------------------------------

cdef inline bint mapped_alive(MappedMutexGuard self) noexcept:
    if type(self.mutex) is ReentrantMutex:
        return self.live and remutex_is_mine(&(<ReentrantMutex>self.mutex).word)
    # acquire: pairs with the release in make_alive
    return (fs_uptr_load_acquire(&(<_Mutex>self.mutex).owner)
            & ~<uintptr_t>BUSY) == <uintptr_t><PyObject*>self


cdef int mapped_release(MappedMutexGuard self, bint fair) except -1:
    if type(self.mutex) is ReentrantMutex:
        if not mapped_alive(self):
            raise_not_owner(<ReentrantMutex>self.mutex)
        self.live = False
        reentrant_let_go(<ReentrantMutex>self.mutex, fair)
        return 0
    if not replace_owner(<_Mutex>self.mutex, <uintptr_t><PyObject*>self, 0):
        raise_dead()
    let_go(<_Mutex>self.mutex, <PyObject*>self, fair)
    return 0


cdef object map_further(MappedMutexGuard self, object function, bint optional):
    cdef MappedMutexGuard mapped
    if not mapped_alive(self):
        raise_dead()
    part = map_part(self, function, self.part.get(), optional)
    if part is None:
        return None
    mapped = MappedMutexGuard.__new__(MappedMutexGuard)
    mapped.mutex = self.mutex
    mapped.part = part
    if type(self.mutex) is ReentrantMutex:
        if not mapped_alive(self):
            raise_dead()
        self.live = False
        mapped.live = True
    elif not replace_owner(<_Mutex>self.mutex, <uintptr_t><PyObject*>self,
                           <uintptr_t><PyObject*>mapped):
        raise_dead()
    elif tracing():
        trace_changed(self.mutex, <PyObject*>self, <PyObject*>mapped, FS_EXCLUSIVE)
    return mapped


cdef PyObject* mapped_call(
    PyObject* self, PyObject** args, size_t nargsf, PyObject* names,
) except NULL:
    cdef size_t nargs = PyVectorcall_NARGS(nargsf)
    if names == NULL and nargs == 0:
        if not mapped_alive(<MappedMutexGuard>self):
            raise_dead()
        return Py_NewRef(self)
    if names == NULL and nargs == 3:
        if mapped_alive(<MappedMutexGuard>self):
            mapped_release(<MappedMutexGuard>self, False)
        return Py_NewRef(Py_None)
    refuse_call(nargs)


@cython.final
@cython.no_gc_clear  # its end needs the mutex
cdef class MappedMutexGuard:
    """A guard of a part of what a mutex protects: an attribute or an item.

    As the guard that it was made of, but for what would unlock the mutex and
    lock it again: the part may be gone then, so there is no bump(), no
    unlocked(), and a Condvar does not take it.  Origin: parking_lot's
    MappedMutexGuard.
    """

    def __cinit__(self):
        self.call = mapped_call

    def __init__(self, *args, **kwargs):
        raise TypeError("a MappedMutexGuard is made by map()")

    def __dealloc__(self):
        if self.mutex is None:
            return
        if type(self.mutex) is ReentrantMutex:
            if self.live:
                reentrant_drop(<ReentrantMutex>self.mutex)
        elif replace_owner(<_Mutex>self.mutex, <uintptr_t><PyObject*>self, 0):
            let_go(<_Mutex>self.mutex, <PyObject*>self, False)

    @property
    def value(self):
        """The part."""
        if not mapped_alive(self):
            raise_dead()
        return self.part.get()

    @value.setter
    def value(self, value):
        if not mapped_alive(self):
            raise_dead()
        self.part.set(value)

    @value.deleter
    def value(self):
        raise AttributeError("the value of a guard cannot be deleted")

    def unlock(self):
        """Let the mutex go."""
        mapped_release(self, False)

    def unlock_fair(self):
        """Let it go, and hand it to the thread that has waited longest, if any waits."""
        mapped_release(self, True)

    def map(self, function):
        """As MutexGuard.map(), from this part."""
        return map_further(self, function, False)

    def try_map(self, function):
        """As MutexGuard.try_map(), from this part."""
        return map_further(self, function, True)

    def __enter__(self):
        if not mapped_alive(self):
            raise_dead()
        return self

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        if mapped_alive(self):
            mapped_release(self, False)

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
# The raw lock knows the owning thread and its depth: one for each live or
# leaked guard.  Everything else here is touched by the owning thread only, so
# it needs no further protection; a guard that another thread drops adds itself
# to `orphans`, which the owner takes off its depth when it comes by.

cdef int raise_not_owner(ReentrantMutex m) except -1:
    if remutex_is_mine(&m.word):
        raise_dead()
    raise RuntimeError("this thread does not hold the ReentrantMutex")


cdef void reap_orphans(ReentrantMutex m) noexcept:
    """Take off the depth what other threads dropped; at 0 the lock is free."""
    cdef uint32_t dropped
    # relaxed: a hint; the exchange decides
    if fs_u32_load_relaxed(&m.orphans) == 0:
        return
    # acquire: pairs with the release in reentrant_drop
    dropped = fs_u32_exchange_acquire(&m.orphans, 0)
    while dropped != 0:
        dropped -= 1
        reentrant_let_go_one(m, False)


cdef void reentrant_let_go_one(ReentrantMutex m, bint fair) noexcept:
    cdef uint32_t count
    cdef fs_section section
    cdef bint traced = tracing()
    if traced:
        trace_release(&section, m, FS_REENTRANT, NULL)
    count = remutex_count(&m.word)
    if count > 1:
        remutex_set_count(&m.word, count - 1)
        return
    remutex_set_count(&m.word, 0)
    fs_uptr_store_relaxed(&m.word.owner, 0)  # relaxed: see remutex_is_mine
    if fair:
        mutex_unlock_fair(&m.word.mutex)
    else:
        mutex_unlock(&m.word.mutex)
    if traced:
        trace_released(&section)


cdef void reentrant_let_go(ReentrantMutex m, bint fair) noexcept:
    reap_orphans(m)
    reentrant_let_go_one(m, fair)


cdef void reentrant_drop(ReentrantMutex m) noexcept:
    """A live guard is dropped, by any thread."""
    if remutex_is_mine(&m.word):
        reentrant_let_go(m, False)
    else:
        # release: pairs with the acquire in reap_orphans
        fs_u32_fetch_add_release(&m.orphans, 1)


cdef int reentrant_acquire(ReentrantMutex m, int64_t deadline) except -1:
    if remutex_is_mine(&m.word):
        reap_orphans(m)
        if remutex_count(&m.word) == UINT32_MAX and remutex_is_mine(&m.word):
            raise OverflowError("ReentrantMutex is locked too often")
    if tracing():
        return trace_lock(m, FS_REENTRANT, deadline, NULL, take_remutex, &m.word)
    return remutex_lock_until(&m.word, deadline, FS_SIGNALS)


cdef int take_remutex(void* remutex, int64_t deadline) noexcept:
    return remutex_lock_until(<fs_remutex*>remutex, deadline, FS_SIGNALS)


cdef object reentrant_lock(ReentrantMutex m, int64_t deadline):
    cdef PyObject* raw = allocate(ReentrantMutexGuard)
    guard = <object>raw
    Py_DECREF(guard)
    (<ReentrantMutexGuard>raw).call = reentrant_guard_call
    (<ReentrantMutexGuard>raw).mutex = <PyObject*>m
    Py_INCREF(m)
    if reentrant_acquire(m, deadline) == FS_TIMEOUT:
        return None
    (<ReentrantMutexGuard>raw).live = True
    return guard


cdef object reentrant_enter(ReentrantMutex m):
    guard = reentrant_lock(m, FS_FOREVER)
    fs_running(&(<ReentrantMutexGuard>guard).block.thread,
               &(<ReentrantMutexGuard>guard).block.frame)
    m.blocks += 1
    (<ReentrantMutexGuard>guard).block.serial = m.blocks
    push_entered(m, <PyObject*>guard)
    return guard


cdef void push_entered(ReentrantMutex m, PyObject* guard) noexcept:
    (<ReentrantMutexGuard>guard).outer = m.entered
    m.entered = Py_NewRef(guard)


cdef bint take_entered(ReentrantMutex m, PyObject* guard) noexcept:
    """Take the block's reference off the list; the caller has one too."""
    cdef PyObject** link = &m.entered
    while link[0] != NULL:
        if link[0] == guard:
            link[0] = (<ReentrantMutexGuard>guard).outer
            (<ReentrantMutexGuard>guard).outer = NULL
            Py_DECREF(<object>guard)
            return True
        link = &(<ReentrantMutexGuard>link[0]).outer
    return False


cdef int reentrant_leave(ReentrantMutex m) except -1:
    """The end of a block: see leave() above."""
    cdef fs_block here
    cdef ReentrantMutexGuard guard = None
    fs_running(&here.thread, &here.frame)
    here.serial = 0
    if remutex_is_mine(&m.word) and m.entered != NULL:
        guard = <ReentrantMutexGuard>m.entered
        if guard.block.frame == here.frame:
            # Of one function's blocks the last entered is the first that is left.
            here.serial = guard.block.serial
        if ((here.serial == 0 or fs_u32_load_relaxed(&m.ended.count) != 0)
                and settle(&m.ended, here, True)):
            return 0
        take_entered(m, <PyObject*>guard)
        guard.live = False
        reentrant_let_go(m, False)
    elif not settle(&m.ended, here, True) and not settle(&m.ended, here, False):
        raise_not_owner(m)
    return 0


cdef int reentrant_end_hold(PyObject* guard) except -1:
    """The guard is dead; its level of the lock is the caller's to let go or pass on."""
    cdef PyObject* mutex = (<ReentrantMutexGuard>guard).mutex
    reentrant_check(guard)
    (<ReentrantMutexGuard>guard).live = False
    if take_entered(<ReentrantMutex>mutex, guard):
        note_ended(&(<ReentrantMutex>mutex).ended, (<ReentrantMutexGuard>guard).block)
    return 0


cdef inline bint reentrant_alive(PyObject* guard) noexcept:
    cdef PyObject* mutex = (<ReentrantMutexGuard>guard).mutex
    return (<ReentrantMutexGuard>guard).live and remutex_is_mine(&(<ReentrantMutex>mutex).word)


cdef inline int reentrant_check(PyObject* guard) except -1:
    if not reentrant_alive(guard):
        raise_not_owner(<ReentrantMutex>(<ReentrantMutexGuard>guard).mutex)
    return 0


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
cdef class ReentrantMutex:
    """ReentrantMutex(value=None)
--

A Mutex that the thread which holds it may lock again, each time with a new guard.

It is free when all guards have ended, in any order.  Guards are of use in the
thread that holds it only, and all lead to the one value.  Origin:
parking_lot's ReentrantMutex."""

    def __cinit__(self, value=None):
        self.call = reentrant_call
        self.value = value
        if tracing():
            trace_made(self)

    def __dealloc__(self):
        free_ended(&self.ended)

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
        if not remutex_is_mine(&self.word):
            return False
        reap_orphans(self)
        return remutex_is_mine(&self.word)

    def into_inner(self):
        """The value, which stays in place.  RuntimeError while a thread holds the mutex."""
        if not mutex_try_lock(&self.word.mutex):
            raise RuntimeError("into_inner of a mutex that is locked")
        value = self.value
        mutex_unlock(&self.word.mutex)
        return value

    def force_unlock(self):
        """Undo a leak() of this thread's: go one level up without a guard.

        RuntimeError in another thread, or when there is none to undo.
        """
        reentrant_force_unlock(self, False)

    def force_unlock_fair(self):
        """As force_unlock; at the last level the first waiting thread gets it."""
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
        if remutex_is_mine(&self.word):
            value = self.value
        elif mutex_try_lock(&self.word.mutex):
            value = self.value
            mutex_unlock(&self.word.mutex)
        else:
            return "ReentrantMutex(<locked>)"
        return f"ReentrantMutex({value!r})"


cdef int reentrant_force_unlock(ReentrantMutex m, bint fair) except -1:
    if not remutex_is_mine(&m.word):
        raise RuntimeError("this thread does not hold the ReentrantMutex")
    if m.leaked == 0:
        raise RuntimeError("force_unlock of a ReentrantMutex of which no guard was leaked")
    m.leaked -= 1
    reentrant_let_go(m, fair)
    return 0


cdef void reentrant_guard_dealloc(PyObject* self) noexcept:
    cdef PyObject* mutex = (<ReentrantMutexGuard>self).mutex
    retire(self)
    if (<ReentrantMutexGuard>self).live:
        reentrant_drop(<ReentrantMutex>mutex)
    Py_DECREF(<object>mutex)
    discard(self)


cdef object reentrant_map(ReentrantMutexGuard self, object function, bint optional):
    cdef MappedMutexGuard mapped
    cdef PyObject* mutex = self.mutex
    reentrant_check(<PyObject*>self)
    part = map_part(self, function, (<ReentrantMutex>mutex).value, optional)
    if part is None:
        return None
    mapped = MappedMutexGuard.__new__(MappedMutexGuard)
    mapped.mutex = <object>mutex
    mapped.part = part
    reentrant_end_hold(<PyObject*>self)
    mapped.live = True
    return mapped


cdef PyObject* reentrant_guard_call(
    PyObject* self, PyObject** args, size_t nargsf, PyObject* names,
) except NULL:
    cdef size_t nargs = PyVectorcall_NARGS(nargsf)
    if names == NULL and nargs == 0:
        reentrant_check(self)
        return Py_NewRef(self)
    if names == NULL and nargs == 3:
        reentrant_leave_guard(self)
        return Py_NewRef(Py_None)
    refuse_call(nargs)


cdef int reentrant_leave_guard(PyObject* guard) except -1:
    if (<ReentrantMutexGuard>guard).live:
        reentrant_release(guard, False)
    return 0


cdef int reentrant_release(PyObject* guard, bint fair) except -1:
    reentrant_end_hold(guard)
    reentrant_let_go(<ReentrantMutex>(<ReentrantMutexGuard>guard).mutex, fair)
    return 0


@cython.final
cdef class ReentrantMutexGuard:
    """One of the holds of a ReentrantMutex.

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
        """End this hold."""
        reentrant_release(<PyObject*>self, False)

    def unlock_fair(self):
        """End this hold; at the last level the first waiting thread gets the mutex."""
        reentrant_release(<PyObject*>self, True)

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
        """As MutexGuard.unlocked(), for this hold: others keep the mutex locked."""
        return reentrant_unlocked(self, False)

    def unlocked_fair(self):
        """As unlocked(), unlocking as unlock_fair() does."""
        return reentrant_unlocked(self, True)

    def leak(self):
        """Give the guard up and stay one level deeper: see ReentrantMutex.force_unlock()."""
        reentrant_end_hold(<PyObject*>self)
        (<ReentrantMutex>self.mutex).leaked += 1

    def map(self, function):
        """As MutexGuard.map()."""
        return reentrant_map(self, function, False)

    def try_map(self, function):
        """As MutexGuard.try_map()."""
        return reentrant_map(self, function, True)

    def __enter__(self):
        reentrant_check(<PyObject*>self)
        return self

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        reentrant_leave_guard(<PyObject*>self)

    @classmethod
    def __class_getitem__(cls, item):
        return GenericAlias(cls, item)

    def __reduce__(self):
        refuse_pickling(self)

    def __repr__(self):
        alive = "" if self.live else ", dead"
        return f"<ReentrantMutexGuard{alive}>"


cdef object reentrant_unlocked(ReentrantMutexGuard guard, bint fair):
    cdef _UnlockedReentrant result
    reentrant_check(<PyObject*>guard)
    result = _UnlockedReentrant.__new__(_UnlockedReentrant)
    result.guard = guard
    result.fair = fair
    return result


@cython.final
@cython.no_gc_clear
cdef class _UnlockedReentrant:
    """The context manager of ReentrantMutexGuard.unlocked()."""
    cdef ReentrantMutexGuard guard
    cdef bint fair
    cdef bint inside
    cdef bint entered

    def __enter__(self):
        cdef PyObject* mutex = self.guard.mutex
        reentrant_check(<PyObject*>self.guard)
        self.inside = True
        self.guard.live = False
        self.entered = take_entered(<ReentrantMutex>mutex, <PyObject*>self.guard)
        reentrant_let_go(<ReentrantMutex>mutex, self.fair)

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        cdef PyObject* mutex = self.guard.mutex
        if not self.inside:
            raise RuntimeError("unlocked() was not entered")
        self.inside = False
        try:
            reentrant_acquire(<ReentrantMutex>mutex, FS_FOREVER)
        except:
            if self.entered:
                note_ended(&(<ReentrantMutex>mutex).ended, self.guard.block)
            raise
        self.guard.live = True
        if self.entered:
            push_entered(<ReentrantMutex>mutex, <PyObject*>self.guard)

    def __dealloc__(self):
        if self.inside and self.entered:  # the guard has ended, its block has not
            note_ended(&(<ReentrantMutex>self.guard.mutex).ended, self.guard.block)


# -- Condvar -----------------------------------------------------------------

cdef int check_guard(object guard) except -1:
    """That it is the guard of a Mutex."""
    cdef str name
    if type(guard) is MutexGuard:
        if type(<object>(<MutexGuard>guard).mutex) is Mutex:
            return 0
        raise RuntimeError("a Condvar works with the guards of a Mutex, not of a FairMutex")
    name = type(guard).__name__
    if type(guard).__module__.startswith("fastsync.") and name.endswith("Guard"):
        raise RuntimeError(f"a Condvar works with the guards of a Mutex, not with a {name}")
    raise TypeError(f"a MutexGuard is needed, not {name!r}")


cdef int stop_at_once(void* ctx, uintptr_t park_token) noexcept nogil:
    return FS_STOP


cdef uintptr_t forget_mutex(void* ctx, fs_unpark_result* result) noexcept nogil:
    if not result.have_more:
        # relaxed: the word is guarded by its bucket lock
        fs_uptr_store_relaxed(&(<fs_condvar*>ctx).mutex, 0)
    return FS_TOKEN_NORMAL


cdef int wait_with(Condvar c, _Mutex m, int64_t deadline) noexcept:
    cdef int outcome = condvar_wait(&c.word, &m.word, deadline, FS_SIGNALS)
    if outcome == FS_CONDVAR_BAD_MUTEX and parked_count(<uintptr_t>&c.word) == 0:
        # The word speaks of waiters that did not survive a fork.
        unpark_filter(<uintptr_t>&c.word, stop_at_once, forget_mutex, &c.word)
        outcome = condvar_wait(&c.word, &m.word, deadline, FS_SIGNALS)
    return outcome


cdef bint wait(Condvar c, object guard, int64_t deadline) except -1:
    """Whether the wait timed out; the guard's mutex is locked again in any case."""
    cdef fs_block block
    cdef fs_wait noting
    cdef int outcome
    cdef PyObject* mutex
    check_guard(guard)
    mutex = (<MutexGuard>guard).mutex
    if deadline == 0:
        deadline = 1  # the past: let the mutex go and take it again, at once
    suspend(<PyObject*>guard, &block)
    if not tracing():
        outcome = wait_with(c, <_Mutex>mutex, deadline)
    else:
        trace_condition(&noting, <object>mutex, FS_EXCLUSIVE, <PyObject*>guard,
                        &(<_Mutex>mutex).word, deadline)
        outcome = wait_with(c, <_Mutex>mutex, deadline)
        trace_notified(&noting)
    resume(<PyObject*>guard, &block)
    if outcome == FS_CONDVAR_BAD_MUTEX:
        raise RuntimeError("other threads wait on this Condvar with another mutex")
    if outcome == FS_ERROR:
        return -1
    return outcome == FS_CONDVAR_TIMEOUT


cdef bint wait_while(Condvar c, object guard, object predicate, int64_t deadline) except -1:
    cdef bint timed_out = False
    check_guard(guard)
    while not timed_out and predicate(
            read_value(<_Mutex>(<MutexGuard>guard).mutex, <uintptr_t><PyObject*>guard)):
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


cdef inline PyObject* block_guard(PyObject* mutex) noexcept:
    """The guard of a block, which the mutex has a reference to; or NULL."""
    # acquire: as leave
    cdef uintptr_t owner = fs_uptr_load_acquire(&(<_Mutex>mutex).owner) & ~<uintptr_t>BUSY
    if not is_guard(owner) or fs_uptr_load_relaxed(&(<_Mutex>mutex).frame) == 0:
        return NULL
    return <PyObject*>owner


cdef int traverse_mutex(PyObject* self, visitproc visit, void* arg) noexcept:
    cdef PyObject* guard = block_guard(self)
    cdef int result = visit(guard, arg) if guard != NULL else 0
    return result if result != 0 else traverse_value(self, visit, arg)


cdef int clear_mutex(PyObject* self) noexcept:
    cdef PyObject* guard = block_guard(self)
    if guard != NULL:
        end_block(<_Mutex>self, <uintptr_t>guard)
    (<_Mutex>self).value = None
    return 0


cdef int traverse_reentrant(PyObject* self, visitproc visit, void* arg) noexcept:
    cdef PyObject* guard = (<ReentrantMutex>self).entered
    cdef int result = 0
    while guard != NULL and result == 0:
        result = visit(guard, arg)
        guard = (<ReentrantMutexGuard>guard).outer
    return result if result != 0 else traverse_reentrant_value(self, visit, arg)


cdef int clear_reentrant(PyObject* self) noexcept:
    cdef PyObject* guard
    while (<ReentrantMutex>self).entered != NULL:
        guard = (<ReentrantMutex>self).entered
        take_entered(<ReentrantMutex>self, Py_NewRef(guard))
        Py_DECREF(<object>guard)
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
    forbid_instances(_Unlocked)
    forbid_instances(_UnlockedReentrant)
    return 0


set_up()
check_sizes()
