"""ReentrantMutex: a mutex that owns a value, and that its thread may lock again.

Its guards: see guards.pyx.  They are for the thread that holds the mutex, which is asked
for at each use: their mark is 0.

The raw lock knows the owning thread and its depth: one for each level.  `guarded` of them
belong to live guards, the others were leaked or are C code's.  Everything here is touched
by the owning thread only, so it needs no further protection; but for two things.  A guard
that another thread drops adds itself to `orphans`, which the owner takes off when it next
uses the mutex.  And while `guarded` is 0 the mark of the word is 0 (mutex.pyx), so that any
thread may take the hold over, all its levels, by changing the mark to `here`; the owner
does the same before it adds a level with a guard or takes one off.

`block` is the guard of the `with` blocks of the owner: one for all that are open, so that
it does not matter in which order they end; it is HELD|BLOCK until the last one has, and
`levels.count` says how many there are.  (There are more guards only when blocks were opened
while one had lent its only level: a list by `outer`.)
"""
cimport cython
from libc.stdint cimport UINT32_MAX, int64_t, uint32_t
from cpython.exc cimport PyErr_SetString
from cpython.object cimport PyObject, visitproc
from cpython.ref cimport Py_DECREF

from fastsync._watch.trace cimport (
    FS_REENTRANT, fs_section, trace_disowned, trace_lock, trace_release, trace_released,
    trace_relock, tracing,
)
from fastsync.objects._slots cimport collect_by, end_in, fs_traverse, make_context_manager, publish
from fastsync.objects._timeouts cimport deadline_for, deadline_until
from fastsync.objects._veneer cimport refuse_call
from fastsync.objects.guards cimport (
    GUARD_AWAY, GUARD_BLOCK, GUARD_DEAD, GUARD_HELD, _Guard, _Mapped, allocate_guard, dealloc_guard,
    end, finish_guard, granted, here, is_alive, raise_dead, return_hold, step, survivor,
    wait_a_little,
)
from fastsync.objects.mutex cimport (
    MappedMutexGuard, fs_levels, new_mapped_guard, take_over, take_surely, take_word, unlock_word,
)
from fastsync.raw.c_atomic cimport (
    fs_u32_exchange_acquire, fs_u32_fetch_add_release, fs_u32_load_relaxed, fs_u8_load_relaxed,
    fs_u8_store_release, fs_uptr_store_relaxed,
)
from fastsync.raw.c_python cimport Py_NewRef
from fastsync.raw.c_wait cimport FS_FOREVER, fs_thread_id
from fastsync.raw.mutex cimport (
    FS_MUTEX_MARK, FS_MUTEX_PARKED, mutex_change_mark, mutex_is_locked, mutex_lock_until,
    mutex_marked,
)
from fastsync.raw.parking cimport (
    FS_ACQUIRED, FS_ERROR, FS_PLAIN, FS_TIMEOUT,
)
from fastsync.raw.remutex cimport remutex_count, remutex_is_mine, remutex_own, remutex_set_count

from fastsync.objects._pin import register_pinnable

cdef extern from "Python.h":
    PyObject* Py_None
    size_t PyVectorcall_NARGS(size_t) noexcept


# -- whose the levels are --------------------------------------------------------

cdef inline bint is_mine(ReentrantMutex m) noexcept:
    cdef unsigned char mark
    if not remutex_is_mine(&m.word):
        return False
    # relaxed: of the owner
    mark = fs_u8_load_relaxed(&m.word.mutex.state) & FS_MUTEX_MARK
    if mark == here or mark == 0:
        return True
    # Older than this process.  Thread ids are used again; the survivor's was not.
    return fs_thread_id() == survivor and mutex_change_mark(&m.word.mutex, mark, here)


cdef inline fs_levels* levels_of(_Guard guard) noexcept:
    if type(guard) is ReentrantMutexGuard:
        return &(<ReentrantMutexGuard>guard).levels
    return &(<MappedMutexGuard>guard).levels


cdef inline void note_level(_Guard guard) noexcept:
    """The guard has one level, of this thread's."""
    cdef fs_levels* levels = levels_of(guard)
    levels.count = 1
    levels.process = here
    levels.thread = fs_thread_id()


cdef inline void begin_level(_Guard guard, unsigned char life) noexcept:
    note_level(guard)
    # release: pairs with the acquire of every use of the guard
    fs_u8_store_release(&guard.life, life)


# -- taking and releasing levels --------------------------------------------------

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
    # acquire: pairs with the release in ReentrantMutex.drop
    dropped = fs_u32_exchange_acquire(&m.orphans, 0)
    while dropped != 0:
        dropped -= 1
        release_one(m, True, False)


cdef void release_level(ReentrantMutex m, bint fair) noexcept:
    """A guard has given up a level."""
    reap_orphans(m)
    release_one(m, True, fair)


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
    """FS_ACQUIRED or FS_TIMEOUT; an exception when a signal handler raised."""
    if tracing():
        return trace_lock(m, FS_REENTRANT, deadline, NULL, take_level_word, <void*>m)
    return take_level_word(<void*>m, deadline)


cdef int take_level_surely(void* mutex, int64_t deadline) noexcept:
    return take_surely(take_level_word, mutex)


cdef ReentrantMutexGuard new_guard(ReentrantMutex m):
    """A guard that is not alive yet."""
    cdef PyObject* raw = allocate_guard(ReentrantMutexGuard, m)
    guard = <ReentrantMutexGuard>raw
    Py_DECREF(guard)
    return guard


cdef object lock(ReentrantMutex m, int64_t deadline):
    cdef ReentrantMutexGuard guard = new_guard(m)  # before locking: it may fail
    if take_level(m, deadline) == FS_TIMEOUT:
        return None
    begin_level(guard, GUARD_HELD)
    return guard


# -- `with` on the mutex -----------------------------------------------------------

cdef object enter_block(ReentrantMutex m):
    cdef ReentrantMutexGuard guard
    if is_mine(m) and m.block != NULL:
        guard = <ReentrantMutexGuard>m.block
        take_level(m, FS_FOREVER)
        guard.levels.count += 1
        return guard
    guard = new_guard(m)
    take_level(m, FS_FOREVER)
    open_block(m, guard)
    return guard


cdef void open_block(ReentrantMutex m, ReentrantMutexGuard guard) noexcept:
    """The guard has the first level of this thread's blocks."""
    begin_level(guard, GUARD_HELD | GUARD_BLOCK)
    guard.outer = m.block
    m.block = Py_NewRef(<PyObject*>guard)


cdef void close_block(ReentrantMutex m, ReentrantMutexGuard guard, unsigned char life) noexcept:
    """It has given up the last one; the caller has a reference, too."""
    cdef PyObject** link = &m.block
    step(guard, GUARD_HELD | GUARD_BLOCK, life)
    while link[0] != <PyObject*>guard:
        link = &(<ReentrantMutexGuard>link[0]).outer
    link[0] = guard.outer
    guard.outer = NULL
    Py_DECREF(guard)


cdef int leave_block(ReentrantMutex m) except -1:
    cdef ReentrantMutexGuard guard
    if not is_mine(m):
        raise RuntimeError("this thread does not hold the ReentrantMutex")
    if m.block == NULL:
        raise RuntimeError("no `with` block of this thread holds this mutex")
    guard = <ReentrantMutexGuard>m.block
    guard.levels.count -= 1
    if guard.levels.count == 0:
        close_block(m, guard, GUARD_DEAD)
    release_level(m, False)
    return 0


cdef PyObject* reentrant_call(
    PyObject* self, PyObject** args, size_t nargsf, PyObject* names,
) except NULL:
    cdef size_t nargs = PyVectorcall_NARGS(nargsf)
    if names == NULL and nargs == 0:
        guard = enter_block(<ReentrantMutex>self)
        return Py_NewRef(<PyObject*>guard)
    if names == NULL and nargs == 3:
        leave_block(<ReentrantMutex>self)
        return Py_NewRef(Py_None)
    refuse_call(nargs)


# -- holds without a guard -----------------------------------------------------------

cdef int force_own(ReentrantMutex m, bint fair) except -1:
    """force_unlock() in the thread that holds it."""
    if remutex_count(&m.word) == m.guarded or (
            m.guarded == 0 and not mutex_change_mark(&m.word.mutex, 0, here)):
        raise RuntimeError("force_unlock of a ReentrantMutex all of whose levels have guards")
    release_one(m, False, fair)
    return 0


cdef int force_unlock(ReentrantMutex m, bint fair) except -1:
    cdef PyObject* blocks = NULL
    if is_mine(m):
        reap_orphans(m)
    if is_mine(m):
        return force_own(m, fair)
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
        step(<ReentrantMutexGuard>guard, GUARD_HELD | GUARD_BLOCK, GUARD_DEAD)
        Py_DECREF(<object>guard)
        guard = outer


cdef inline bint try_word(ReentrantMutex m) noexcept:
    """Lock it for a look at the value, without becoming the owner."""
    return mutex_lock_until(&m.word.mutex, 0, mutex_marked(FS_PLAIN, here)) == FS_ACQUIRED


# -- the types -----------------------------------------------------------------------

@cython.final
cdef class ReentrantMutex(_Owner):
    """ReentrantMutex(value=None)
--

A Mutex that the thread which holds it may lock again.

Each lock() gives a new guard; the `with` blocks of a thread share one, which is alive
until the last of them ends.  The mutex is free when all guards have ended, in any
order.  Guards are of use in the thread that holds it only, and all lead to the one
value.  Origin: parking_lot's ReentrantMutex."""

    def __cinit__(self):
        self.call = reentrant_call

    cdef bint admits(self, _Guard guard) noexcept:
        cdef fs_levels* levels
        if not is_mine(self):
            return False
        levels = levels_of(guard)
        if levels.process != here:
            if levels.thread != survivor:
                return False
            levels.process = here
        return True

    cdef int release(self, _Guard guard, bint fair) noexcept:
        release_level(self, fair)
        return 0

    cdef void drop(self, _Guard guard) noexcept:
        cdef fs_levels* levels = levels_of(guard)
        if not step(guard, GUARD_HELD, GUARD_DEAD):
            return
        if levels.process != here and levels.thread != survivor:
            return  # of a thread that did not survive a fork
        if is_mine(self):
            release_level(self, False)
        else:
            # release: pairs with the acquire in reap_orphans
            fs_u32_fetch_add_release(&self.orphans, 1)

    cdef bint is_wanted(self, _Guard guard) noexcept:
        """Other levels would keep it locked."""
        reap_orphans(self)
        # relaxed: a hint; a thread that comes later is promised no turn
        return remutex_count(&self.word) == 1 and (
            fs_u8_load_relaxed(&self.word.mutex.state) & FS_MUTEX_PARKED) != 0

    cdef bint lend_block(self, _Guard guard) noexcept:
        """One level: the guard is AWAY when it was the last one."""
        if not is_alive(guard):
            return False
        (<ReentrantMutexGuard>guard).levels.count -= 1
        if (<ReentrantMutexGuard>guard).levels.count == 0:
            close_block(self, <ReentrantMutexGuard>guard, GUARD_AWAY | GUARD_BLOCK)
        return True

    cdef int take_back(self, _Guard guard, bint block) except -1:
        if not block:
            take_level(self, FS_FOREVER)
            note_level(guard)
            return return_hold(guard)
        if tracing():
            trace_relock(self, FS_REENTRANT, 1, NULL, take_level_surely, <void*>self)
        else:
            take_surely(take_level_word, <void*>self)
        if (<ReentrantMutexGuard>guard).levels.count == 0:
            open_block(self, <ReentrantMutexGuard>guard)
        else:
            (<ReentrantMutexGuard>guard).levels.count += 1
        return True

    cdef _Mapped new_mapped(self, _Guard guard):
        return new_mapped_guard(self)

    cdef void pass_on(self, _Guard guard, _Mapped heir) noexcept:
        begin_level(heir, GUARD_HELD)

    cdef bint peek(self, PyObject** value) noexcept:
        if not try_word(self):
            return False
        value[0] = Py_NewRef(<PyObject*>self.value)
        unlock_word(&self.word.mutex, False)
        return True

    def lock(self, *, timeout=None):
        """Wait for the mutex, or go one deeper; a guard.  OverflowError past 2**32-1 levels.

        timeout: seconds to wait at most; TimeoutError when they have passed.
        """
        if timeout is None:
            return lock(self, FS_FOREVER)
        return granted(lock(self, deadline_for(timeout)), timeout)

    def try_lock(self):
        """A guard, or None when another thread holds the mutex; never waits."""
        return lock(self, 0)

    def try_lock_for(self, seconds):
        """As Mutex.try_lock_for()."""
        return lock(self, deadline_for(seconds))

    def try_lock_until(self, deadline):
        """As Mutex.try_lock_until()."""
        return lock(self, deadline_until(deadline))

    def is_locked(self):
        """Whether some thread holds it, at this moment; orders nothing."""
        return mutex_is_locked(&self.word.mutex)

    def is_owned_by_current_thread(self):
        """Whether this thread holds it."""
        if not is_mine(self):
            return False
        reap_orphans(self)
        return is_mine(self)

    def force_unlock(self):
        """Unlock what no guard will: after leak(), for C code, or in the child of a fork.

        In the thread that holds it: one level, which was leaked or is C code's.  In
        another thread: all levels, if no guard has one.  In the child of a fork: all
        that another thread of the parent held; its guards are dead there.
        RuntimeError, and nothing changed, when there is no such level.
        """
        force_unlock(self, False)

    def force_unlock_fair(self):
        """As force_unlock(); at the last level the first waiting thread gets it."""
        force_unlock(self, True)

    def __enter__(self):
        return enter_block(self)

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        leave_block(self)

    def __repr__(self):
        cdef PyObject* raw
        if is_mine(self) and self.guarded != 0:
            value = self.value
        elif is_mine(self) and mutex_change_mark(&self.word.mutex, 0, here):
            # Nor can another thread force it meanwhile, and then replace the value.
            value = self.value
            mutex_change_mark(&self.word.mutex, here, 0)
        elif self.peek(&raw):
            value = <object>raw
            Py_DECREF(value)
        else:
            return "ReentrantMutex(<locked>)"
        return f"ReentrantMutex({value!r})"


@cython.final
@cython.no_gc_clear
cdef class ReentrantMutexGuard(_Writing):
    """What holds a level of a ReentrantMutex, and leads to its value.

    As MutexGuard, but RuntimeError in any other thread than the one that holds
    the mutex, and what unlocks releases one level: others keep the mutex locked, also
    through unlocked(), and bump() does nothing then.  Dropped in another thread, it counts
    until the holder next uses the mutex.  Origin: parking_lot's ReentrantMutexGuard, which
    does not let the value be replaced.
    """

    @property
    def mutex(self):
        """The mutex that it holds."""
        return self.lock if is_alive(self) else raise_dead(self)

    def leak(self):
        """Give the guard up and leave its level locked: see ReentrantMutex.force_unlock().

        RuntimeError for the guard of a `with` block of the mutex.
        """
        cdef ReentrantMutex m = <ReentrantMutex>self.lock
        end(self)
        reap_orphans(m)
        m.guarded -= 1
        if m.guarded == 0:
            mutex_change_mark(&m.word.mutex, here, 0)


# -- what the collector sees: the world stands, or has the GIL ---------------
#
# A mutex refers to the guard of blocks that have not ended: see mutex.pyx.

cdef fs_traverse traverse_value


cdef int traverse_reentrant(PyObject* self, visitproc visit, void* arg) noexcept:
    cdef PyObject* guard = (<ReentrantMutex>self).block
    cdef int result = 0
    while guard != NULL and result == 0:
        result = visit(guard, arg)
        guard = (<ReentrantMutexGuard>guard).outer
    return result if result != 0 else traverse_value(self, visit, arg)


cdef int clear_reentrant(PyObject* self) noexcept:
    cdef PyObject* blocks = (<ReentrantMutex>self).block
    (<ReentrantMutex>self).block = NULL
    forget_blocks(blocks)
    (<ReentrantMutex>self).value = None
    return 0


# -- start of the module -----------------------------------------------------------------

cdef int set_up() except -1:
    global traverse_value
    cdef ReentrantMutex probe = ReentrantMutex()
    traverse_value = collect_by(ReentrantMutex, traverse_reentrant, clear_reentrant)
    make_context_manager(ReentrantMutex, <char*>&probe.call - <char*><PyObject*>probe)
    finish_guard(ReentrantMutexGuard)
    end_in(ReentrantMutexGuard, dealloc_guard)
    register_pinnable(ReentrantMutex)
    return 0


set_up()
publish((ReentrantMutex, ReentrantMutexGuard))
