"""Mutex and FairMutex: locks of one byte that own a value.  Their guards: see guards.pyx.

The raw lock is one byte (raw/mutex.pxd).  Its mark says for whom it is locked:

    0               C code, or a hold whose guard was leaked
    `here`          a thread of this process: its guard, or one about to be alive or
                    just ended
    any other       a thread of a process that this one was forked from

A thread that locks sets LOCKED and the mark in one step, and both go in one step.
So force_unlock() takes a hold over by changing its mark to `here`: of a hold of
this process it changes nothing, at whatever moment it comes, and of two that force
one hold one succeeds.  (A fair unlock of C code hands over a mark of 0, which the
new owner corrects: C code must not unlock what is forced.)

The mutex refers to the guard of its block (`block`).  That reference is there from the
moment the guard is alive until a thread takes it out, by an exchange or a
compare-and-swap: the thread that has taken it out, and no other, may change HELD|BLOCK.
So `__exit__` of the mutex, in whatever function or thread, ends the block that holds the
mutex at that moment; of two calls at once one gets nothing and raises RuntimeError; and a
call while the block's guard is AWAY ends nothing either, unless another block holds the
mutex meanwhile.  It is taken out before the mutex is unlocked and put in after it was
locked, so there is one at most.  No address is compared but by a thread that has a
reference to what is there.

Most blocks leave their guard with no reference but the mutex's.  No thread can reach such
a guard any more: it ends without a compare-and-swap, and its memory (`next_guard`) is the
next block's.  Only the thread that holds the mutex for a block that has no guard yet, or
none any more, touches `next_guard`: the mutex orders it.

Fork.  A hold of another thread is owned by no thread of the child: its guard, should it be
reachable there, is DEAD on first use, and force_unlock() unlocks.  A hold of the thread
that forked goes on; its guard and the word get the child's mark on the first use (admits).
Which of them it is says `thread`, which is 0 from before an unlock until the next owner
has run: then it is not the thread that was in fork().
"""
cimport cython
from libc.stdint cimport int64_t, uint8_t, uintptr_t
from cpython.exc cimport PyErr_Clear, PyErr_Fetch
from cpython.object cimport PyObject, visitproc
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF

from fastsync._watch.contention cimport fs_take
from fastsync._watch.trace cimport (
    detecting, FS_BLOCK, FS_EXCLUSIVE, fs_section, noting_release, trace_changed, trace_disowned,
    trace_lock, trace_release, trace_released, trace_relock, tracing,
)
from fastsync.objects._slots cimport (
    collect_by, discard, end_in, forbid_instances, fs_traverse, make_context_manager, publish,
    restore, retire, reuse,
)
from fastsync.objects._timeouts cimport deadline_for, deadline_until
from fastsync.objects._veneer cimport refuse_call
from fastsync.objects.guards cimport (
    GUARD_AWAY, GUARD_BLOCK, GUARD_BUSY, GUARD_DEAD, GUARD_HELD, _Guard, _Mapped, _Owner,
    allocate_guard, begin, end, finish_guard, granted, here, is_alive, leave_held, raise_dead,
    return_hold, step, survivor, wait_a_little,
)
from fastsync.raw.c_atomic cimport (
    fs_atomic_uptr, fs_u8_cas_acquire, fs_u8_load_acquire, fs_u8_load_relaxed,
    fs_u8_store_relaxed, fs_u8_store_release, fs_uptr_cas_acq_rel, fs_uptr_exchange_acq_rel,
    fs_uptr_load_acquire, fs_uptr_load_relaxed, fs_uptr_store_relaxed, fs_uptr_store_release,
)
from fastsync.raw.c_python cimport fs_is_unique, Py_NewRef
from fastsync.raw.c_wait cimport FS_FOREVER, fs_thread_id
from fastsync.raw.mutex cimport (
    fs_mutex, FS_MUTEX_LOCKED, FS_MUTEX_MARK, FS_MUTEX_PARKED, mutex_change_mark, mutex_is_locked,
    mutex_lock_until, mutex_marked,
)
from fastsync.raw.parking cimport FS_ACQUIRED, FS_PLAIN, FS_TIMEOUT

from fastsync.objects._pin import register_pinnable

cdef extern from "Python.h":
    PyObject* Py_None
    size_t PyVectorcall_NARGS(size_t) noexcept
    void PyErr_Restore(PyObject*, PyObject*, PyObject*) noexcept

# A size that is promised.
cdef extern from *:
    """
    #define FS_SIZE_IS(x, n) _Static_assert(sizeof(x) == (n), "its size is promised")
    """
    void FS_SIZE_IS(fs_mutex, size_t) noexcept


cdef void check_size() noexcept:
    cdef fs_mutex mutex
    FS_SIZE_IS(mutex, 1)


# -- taking and releasing ------------------------------------------------------

# `guard` is what the detector knows the hold by; `block` is FS_BLOCK for a `with`
# statement, else 0.
cdef inline int take(_Mutex m, int64_t deadline, PyObject* guard, int block) except -1:
    """FS_ACQUIRED or FS_TIMEOUT; an exception when a signal handler raised."""
    if tracing():
        return trace_lock(m, FS_EXCLUSIVE | block, deadline, guard, take_word, &m.word)
    return take_word(&m.word, deadline)


cdef int take_surely(fs_take take, void* mutex) noexcept:
    cdef PyObject* type = NULL
    cdef PyObject* value
    cdef PyObject* traceback
    while take(mutex, FS_FOREVER) != FS_ACQUIRED:
        if type == NULL:
            PyErr_Fetch(&type, &value, &traceback)
        else:
            PyErr_Clear()
    if type != NULL:
        PyErr_Restore(type, value, traceback)
    return FS_ACQUIRED


cdef int take_word_surely(void* mutex, int64_t deadline) noexcept:
    return take_surely(take_word, mutex)


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
    if not noting_release(m):
        unlock_word(&m.word, fair or m.fair)
        return
    trace_release(&section, m, FS_EXCLUSIVE, guard)
    unlock_word(&m.word, fair or m.fair)
    trace_released(&section)


cdef inline void begin_hold(_Mutex m, _Guard guard, uint8_t life) noexcept:
    # relaxed: looked at with the word's mark, or when there was a fork
    fs_uptr_store_relaxed(&m.thread, fs_thread_id())
    begin(guard, life)


cdef inline PyObject* spare_guard(_Mutex m) noexcept:
    """A guard that is not alive yet out of the spare memory, or NULL."""
    cdef PyObject* guard
    # relaxed: a hint; the exchange decides
    if fs_uptr_load_relaxed(&m.spare) == 0:
        return NULL
    # acquire: pairs with the release in guard_dealloc
    guard = <PyObject*>fs_uptr_exchange_acq_rel(&m.spare, 0)
    if guard != NULL:
        reuse_spare(m, guard)
    return guard


cdef inline void reuse_spare(_Mutex m, PyObject* guard) noexcept:
    reuse(MutexGuard, guard)  # it led to this mutex before: all fields are set
    Py_INCREF(m)


cdef inline PyObject* new_guard(_Mutex m) except NULL:
    """A guard that is not alive yet."""
    cdef PyObject* guard = spare_guard(m)
    return guard if guard != NULL else allocate_guard(MutexGuard, m)


cdef MappedMutexGuard new_mapped_guard(_Owner lock):
    cdef MappedMutexGuard guard = MappedMutexGuard.__new__(MappedMutexGuard)
    guard.lock = lock
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
    begin_hold(m, <MutexGuard>raw, GUARD_HELD)
    return guard


# -- `with` on a mutex -------------------------------------------------------

cdef inline void open_block(_Mutex m, PyObject* guard) noexcept:
    """`guard` holds the mutex for a block; takes over a reference to it."""
    begin_hold(m, <MutexGuard>guard, GUARD_HELD | GUARD_BLOCK)
    # release: pairs with the acquire of the thread that takes it out
    fs_uptr_store_release(&m.block, <uintptr_t>guard)


cdef inline bint end_block(_Mutex m, PyObject* guard) noexcept:
    """End the hold of a guard that this thread has taken out of `block`; it takes the
    reference over.  False: the guard is of a thread that did not survive a fork."""
    cdef bint ended = leave_held(<MutexGuard>guard, GUARD_HELD | GUARD_BLOCK, GUARD_DEAD)
    if ended:
        release(m, guard, False)
    Py_DECREF(<object>guard)
    return ended


cdef inline PyObject* kept_guard(_Mutex m) noexcept:
    """For the thread that has just locked the mutex for a block; or NULL."""
    cdef PyObject* guard = m.next_guard
    if guard == NULL:
        return spare_guard(m)
    m.next_guard = NULL
    if fs_is_unique(guard):  # and counts for this thread: only the collector forgot it
        restore(guard)
        Py_INCREF(m)
    else:
        reuse_spare(m, guard)
    return guard


cdef PyObject* first_guard(_Mutex m) except NULL:
    """For the same thread; it has unlocked the mutex when there is no memory."""
    try:
        return allocate_guard(MutexGuard, m)
    except:
        unlock_word(&m.word, m.fair)
        raise


cdef PyObject* enter_block(_Mutex m) except NULL:
    cdef PyObject* guard
    if tracing():
        if detecting() or take_word(&m.word, 0) != FS_ACQUIRED:
            return enter_traced(m)
    elif take_word(&m.word, FS_FOREVER) != FS_ACQUIRED:
        return NULL  # a signal handler raised
    guard = kept_guard(m)
    if guard == NULL:
        guard = first_guard(m)
    open_block(m, Py_NewRef(guard))
    return guard


cdef PyObject* enter_traced(_Mutex m) except NULL:
    """The same for the detector, which knows the hold by its guard, and for a wait."""
    cdef PyObject* guard = new_guard(m)
    try:
        take(m, FS_FOREVER, guard, FS_BLOCK)
    except:
        Py_DECREF(<object>guard)
        raise
    open_block(m, Py_NewRef(guard))
    return guard


cdef inline bint is_forgotten(_Mutex m, PyObject* guard) noexcept:
    """Whether a guard, taken out of `block`, can be the next block's."""
    # relaxed, both: no other thread can reach a unique guard
    return (fs_is_unique(guard) and m.next_guard == NULL
            and fs_u8_load_relaxed(&(<MutexGuard>guard).life) == GUARD_HELD | GUARD_BLOCK
            and fs_u8_load_relaxed(&(<MutexGuard>guard).mark) == here)


cdef inline int leave_block(_Mutex m) except -1:
    # acq_rel: pairs with the release in open_block; this thread's end of the block
    cdef PyObject* guard = <PyObject*>fs_uptr_exchange_acq_rel(&m.block, 0)
    if guard != NULL and is_forgotten(m, guard):
        fs_u8_store_relaxed(&(<MutexGuard>guard).life, GUARD_DEAD)  # relaxed: as in is_forgotten
        retire(guard)
        m.next_guard = guard
        release(m, guard, False)
        Py_DECREF(m)  # the guard's; the caller has another
    elif guard == NULL or not end_block(m, guard):
        raise RuntimeError("no `with` block holds this mutex")
    return 0


cdef PyObject* mutex_call(
    PyObject* self, PyObject** args, size_t nargsf, PyObject* names,
) except NULL:
    cdef size_t nargs = PyVectorcall_NARGS(nargsf)
    if names == NULL and nargs == 0:
        return enter_block(<_Mutex>self)
    if names == NULL and nargs == 3:
        leave_block(<_Mutex>self)
        return Py_NewRef(Py_None)
    refuse_call(nargs)


# -- holds that change hands ---------------------------------------------------

cdef bint inherit(_Mutex m, _Guard guard) noexcept:
    """Of a guard that another process made: whether it holds the mutex in this one."""
    cdef int tries = 0
    cdef uint8_t life
    while True:
        # acquire: as in is_alive
        life = fs_u8_load_acquire(&guard.life)
        if not life & GUARD_HELD:
            return False
        if not life & GUARD_BUSY:
            # relaxed: written under BUSY, which the load above acquired
            if fs_u8_load_relaxed(&guard.mark) == here:
                return True
            # acquire: pairs with the release of the thread that was BUSY before
            if fs_u8_cas_acquire(&guard.life, &life, life | GUARD_BUSY):
                break
        tries = wait_a_little(tries)
    # relaxed, all three: BUSY keeps other threads from this guard, and the hold of
    # the thread that forked is not forced
    if (fs_uptr_load_relaxed(&m.thread) == survivor
            and mutex_change_mark(&m.word, fs_u8_load_relaxed(&guard.mark), here)):
        fs_u8_store_relaxed(&guard.mark, here)
    else:
        life = GUARD_DEAD
    fs_u8_store_release(&guard.life, life)  # release: pairs with every acquire of `life`
    return life != GUARD_DEAD


cdef int take_over(fs_mutex* word, const fs_atomic_uptr* owner) except -1:
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
    # The guard of a block whose thread did not survive a fork.  acq_rel: as in leave_block
    guard = <PyObject*>fs_uptr_exchange_acq_rel(&m.block, 0)
    if tracing():
        trace_disowned(m, NULL)
    release(m, NULL, fair)
    Py_XDECREF(guard)
    return 0


cdef bint hold_again(_Mutex m, MutexGuard guard, bint block) noexcept:
    if block:
        open_block(m, Py_NewRef(<PyObject*>guard))
        return True
    # relaxed, both: as in begin_hold; return_hold releases
    fs_uptr_store_relaxed(&m.thread, fs_thread_id())
    fs_u8_store_relaxed(&guard.mark, here)
    return return_hold(guard)


# -- Mutex, FairMutex --------------------------------------------------------

cdef class _Mutex(_Owner):
    """What Mutex and FairMutex have in common."""

    def __cinit__(self):
        self.call = mutex_call

    def __dealloc__(self):
        cdef PyObject* guard = <PyObject*>fs_uptr_load_relaxed(&self.spare)  # relaxed: unshared
        if guard != NULL:
            discard(guard)
        if self.next_guard != NULL:
            discard(self.next_guard)

    cdef bint admits(self, _Guard guard) noexcept:
        return inherit(self, guard)

    cdef int release(self, _Guard guard, bint fair) noexcept:
        release(self, <PyObject*>guard, fair)
        return 0

    cdef bint is_wanted(self, _Guard guard) noexcept:
        # relaxed: a hint; a thread that comes later is promised no turn
        return fs_u8_load_relaxed(&self.word.state) & FS_MUTEX_PARKED

    cdef int take_back(self, _Guard guard, bint block) except -1:
        if block:
            if tracing():
                trace_relock(self, FS_EXCLUSIVE | FS_BLOCK, 1, <PyObject*>guard, take_word_surely,
                             &self.word)
            else:
                take_surely(take_word, &self.word)
        else:
            take(self, FS_FOREVER, <PyObject*>guard, 0)
        return hold_again(self, <MutexGuard>guard, block)

    cdef bint lend_block(self, _Guard guard) noexcept:
        cdef uintptr_t block = <uintptr_t><PyObject*>guard
        # acq_rel: as in leave_block.  The caller has a reference to the guard, so that no
        # other guard can have its address.
        if not is_alive(guard) or not fs_uptr_cas_acq_rel(&self.block, &block, 0):
            return False
        step(guard, GUARD_HELD | GUARD_BLOCK, GUARD_AWAY | GUARD_BLOCK)
        Py_DECREF(guard)  # not the last: the caller has one
        return True

    cdef _Mapped new_mapped(self, _Guard guard):
        return new_mapped_guard(self)

    cdef void pass_on(self, _Guard guard, _Mapped heir) noexcept:
        if tracing():
            trace_changed(self, <PyObject*>guard, <PyObject*>heir, FS_EXCLUSIVE)
        begin_hold(self, heir, GUARD_HELD)

    cdef bint peek(self, PyObject** value) noexcept:
        if mutex_lock_until(&self.word, 0, mutex_marked(FS_PLAIN, here)) != FS_ACQUIRED:
            return False
        value[0] = Py_NewRef(<PyObject*>self.value)
        unlock_word(&self.word, self.fair)
        return True

    def lock(self, *, timeout=None):
        """Wait for the mutex; a guard that holds it.

        timeout: seconds to wait at most, any number as for try_lock_for(); TimeoutError
        when they have passed.  For `with mutex.lock(timeout=2) as guard:`.

        A second lock() in a thread that holds it waits for ever.  Ordering: what
        was done under the lock before is visible (acquire).  Origin:
        parking_lot's Mutex::lock.
        """
        if timeout is None:
            return lock(self, FS_FOREVER)
        return granted(lock(self, deadline_for(timeout)), timeout)

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
        guard = <object>enter_block(self)
        Py_DECREF(guard)
        return guard

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        leave_block(self)

    def __repr__(self):
        cdef PyObject* raw
        if not self.peek(&raw):
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


# -- guards --------------------------------------------------------------------

cdef void guard_dealloc(PyObject* self) noexcept:
    """The memory is kept for the next guard of the mutex."""
    cdef PyObject* mutex = <PyObject*>(<MutexGuard>self).lock
    cdef uintptr_t old
    retire(self)
    # relaxed: the references that have gone order it
    if fs_u8_load_relaxed(&(<MutexGuard>self).life) == GUARD_HELD:
        if leave_held(<MutexGuard>self, GUARD_HELD, GUARD_DEAD):
            release(<_Mutex>mutex, self, False)
    fs_u8_store_relaxed(&(<MutexGuard>self).life, GUARD_DEAD)  # relaxed: as above
    # release: pairs with the acquire in new_guard; acquire: with this release
    old = fs_uptr_exchange_acq_rel(&(<_Mutex>mutex).spare, <uintptr_t>self)
    if old != 0:
        discard(<PyObject*>old)
    Py_DECREF(<object>mutex)


@cython.final
@cython.no_gc_clear
cdef class MutexGuard(_Writing):
    """What holds a Mutex or a FairMutex, and leads to its value.

    The guard of `with mutex as guard:` is alive until that block ends, and only
    the end of the block unlocks.  The guard of lock() or try_lock...() ends with
    unlock(), map(), leak(), at the end of its own `with`, or when it is dropped:
    that last at once only in the thread that made it.  Any thread may use a guard.
    RuntimeError on every use once it holds the mutex no more.  Origin: parking_lot's
    MutexGuard.
    """

    @property
    def mutex(self):
        """The mutex that it holds."""
        return self.lock if is_alive(self) else raise_dead(self)

    def leak(self):
        """Give the guard up and leave the mutex locked: see Mutex.force_unlock().

        RuntimeError for the guard of a `with` block of the mutex.
        """
        end(self)
        if tracing():
            trace_disowned(self.lock, <PyObject*>self)
        mutex_change_mark(&(<_Mutex>self.lock).word, here, 0)


@cython.final
@cython.no_gc_clear
cdef class MappedMutexGuard(_MappedWriting):
    """A guard of a part of what a mutex protects: an attribute or an item.

    As the guard that it was made of, but for what would unlock the mutex and
    lock it again: the part may be gone then, so there is no bump(), no
    unlocked(), and a Condvar does not take it.  Origin: parking_lot's
    MappedMutexGuard.
    """


# -- what the collector sees: the world stands, or has the GIL ---------------
#
# A guard refers to its mutex, and a mutex to the guard of a block that has not
# ended.  Nothing of that ends by itself when both are garbage.

cdef fs_traverse traverse_value


cdef int traverse_mutex(PyObject* self, visitproc visit, void* arg) noexcept:
    # acquire: pairs with the release in open_block
    cdef PyObject* guard = <PyObject*>fs_uptr_load_acquire(&(<_Mutex>self).block)
    cdef int result = visit(guard, arg) if guard != NULL else 0
    return result if result != 0 else traverse_value(self, visit, arg)


cdef int clear_mutex(PyObject* self) noexcept:
    # acq_rel: as in leave_block
    cdef PyObject* guard = <PyObject*>fs_uptr_exchange_acq_rel(&(<_Mutex>self).block, 0)
    if guard != NULL:
        end_block(<_Mutex>self, guard)
    (<_Mutex>self).value = None
    return 0


# -- start of the module ------------------------------------------------------------------

cdef int set_up() except -1:
    global traverse_value
    cdef Mutex probe = Mutex()
    cdef Py_ssize_t offset = <char*>&probe.call - <char*><PyObject*>probe
    traverse_value = collect_by(Mutex, traverse_mutex, clear_mutex)
    collect_by(FairMutex, traverse_mutex, clear_mutex)
    make_context_manager(Mutex, offset)
    make_context_manager(FairMutex, offset)
    finish_guard(MutexGuard)
    finish_guard(MappedMutexGuard)
    end_in(MutexGuard, guard_dealloc)
    forbid_instances(_Mutex)
    register_pinnable(Mutex, FairMutex)
    return 0


set_up()
check_size()
publish((FairMutex, MappedMutexGuard, Mutex, MutexGuard))
