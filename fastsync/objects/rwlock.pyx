"""RwLock, ShardedLock, their guards and views: veneers over raw/rwlock and raw/sharded."""
cimport cython
from libc.stdint cimport int64_t, uintptr_t
from libc.string cimport memset
from cpython.object cimport PyObject, visitproc
from cpython.ref cimport Py_INCREF, Py_XDECREF

from fastsync._watch.trace cimport (
    FS_BLOCK, FS_EXCLUSIVE, fs_section, FS_SHARED, FS_SHARED_RECURSIVE, FS_UPGRADABLE, FS_UPGRADE,
    trace_block, trace_changed, trace_disowned, trace_lock, trace_made, trace_release,
    trace_released, tracing,
)
from fastsync.objects._slots cimport (
    collect_by, forbid_instances, fs_traverse, make_context_manager, publish,
)
from fastsync.objects._timeouts cimport deadline_for, deadline_until, lock_deadline
from fastsync.raw.c_atomic cimport (
    fs_atomic_u8, fs_pause, fs_u8_cas_acq_rel, fs_u8_cas_acquire, fs_u8_exchange_acq_rel,
    fs_u8_load_acquire,
    fs_u8_store_release, fs_uptr_cas_acq_rel, fs_uptr_cas_acquire, fs_uptr_exchange_acq_rel,
    fs_uptr_fetch_add_release, fs_uptr_load_acquire, fs_uptr_load_relaxed, fs_uptr_store_relaxed,
)
from fastsync.raw.c_python cimport FS_FREE_THREADED
from fastsync.raw.c_wait cimport FS_FOREVER
from fastsync.raw.parking cimport FS_ACQUIRED, FS_PLAIN, FS_SIGNALS, deadline_after, park
from fastsync.raw.rwlock cimport (
    fs_rwlock, FS_RWLOCK_FULL, FS_RWLOCK_PARKED, FS_RWLOCK_WRITER, rwlock_downgrade,
    rwlock_downgrade_to_upgradable, rwlock_downgrade_upgradable, rwlock_is_locked,
    rwlock_is_locked_exclusive, rwlock_read_recursive_until, rwlock_read_until, rwlock_readers,
    rwlock_reset, rwlock_try_read, rwlock_try_write, rwlock_unlock_read, rwlock_unlock_upgradable,
    rwlock_unlock_upgradable_fair, rwlock_unlock_write, rwlock_unlock_write_fair,
    rwlock_upgradable_read_until, rwlock_upgrade_until, rwlock_write_until,
)
from fastsync.raw.sharded cimport (
    fs_shard, fs_sharded, FS_SHARDS, sharded_has_readers, sharded_is_locked, sharded_is_locked_exclusive,
    sharded_mine, sharded_unlock_read, sharded_unlock_write, sharded_write_until,
)

from fastsync.objects._mapping import Part, record
from fastsync.objects._pin import register_pinnable


cdef extern from "Python.h":
    PyObject* Py_True
    PyObject* Py_None
    PyObject* Py_NewRef(PyObject*) noexcept
    size_t PyVectorcall_NARGS(size_t) noexcept


# -- taking and letting go, seen from Python ---------------------------------

cdef int refuse_call(size_t nargs) except -1:
    raise TypeError(
        "a lock is called by `with` only: with no arguments to acquire it, with "
        f"three to release it, not with {nargs} or with keywords")


cdef int refuse_pickling(object self) except -1:
    raise TypeError(f"cannot pickle {type(self).__name__!r} object")


cdef str address(object self):
    return f"0x{<uintptr_t><PyObject*>self:x}"


cdef inline int checked(int outcome) except -1:
    """FS_ERROR: its exception is set."""
    return outcome


cdef inline int take_word(fs_rwlock* word, int way, int64_t deadline) noexcept:
    if way == FS_SHARED:
        return rwlock_read_until(word, deadline, FS_SIGNALS)
    if way == FS_EXCLUSIVE:
        return rwlock_write_until(word, deadline, FS_SIGNALS)
    if way == FS_SHARED_RECURSIVE:
        return rwlock_read_recursive_until(word, deadline, FS_SIGNALS)
    return rwlock_upgradable_read_until(word, deadline, FS_SIGNALS)


# Which word it was, NULL for all of a ShardedLock, is told in `word`.
cdef inline int take_untraced(
    _Valued lock, int way, int64_t deadline, fs_rwlock** word,
) noexcept:
    if type(lock) is RwLock:
        word[0] = &(<RwLock>lock).word
    elif way == FS_EXCLUSIVE:
        word[0] = NULL
        return sharded_write_until(&(<ShardedLock>lock).shards, deadline, FS_SIGNALS)
    else:
        word[0] = sharded_mine(&(<ShardedLock>lock).shards)
    return take_word(word[0], way, deadline)


cdef struct take_call:
    PyObject* lock
    int way
    fs_rwlock** word


cdef int take_noted(void* ctx, int64_t deadline) noexcept:
    cdef take_call* call = <take_call*>ctx
    return take_untraced(<_Valued>call.lock, call.way, deadline, call.word)


# `holder`: the guard that will hold it, NULL for a view; `block`: FS_BLOCK for a `with`
# statement, else 0.
cdef inline bint take(
    _Valued lock, int way, int64_t deadline, fs_rwlock** word, PyObject* holder, int block,
) except -1:
    cdef int result
    cdef take_call call
    if tracing():
        call.lock = <PyObject*>lock
        call.way = way
        call.word = word
        result = trace_lock(lock, way | block, deadline, holder, take_noted, &call)
    else:
        result = take_untraced(lock, way, deadline, word)
    if result == FS_RWLOCK_FULL:
        raise OverflowError("too many readers")
    return result


cdef inline int let_go_untraced(
    _Valued lock, int way, fs_rwlock* word, bint fair,
) noexcept:
    """0, or -1 when it is not held in this way."""
    if way == FS_SHARED:
        if type(lock) is RwLock:
            return rwlock_unlock_read(word)
        return sharded_unlock_read(&(<ShardedLock>lock).shards, word)
    if way == FS_UPGRADABLE:
        return (rwlock_unlock_upgradable_fair(word) if fair
                else rwlock_unlock_upgradable(word))
    if word == NULL:
        return sharded_unlock_write(&(<ShardedLock>lock).shards, fair)
    return rwlock_unlock_write_fair(word) if fair else rwlock_unlock_write(word)


cdef bint is_held(_Valued lock, int way) noexcept:
    """Whether anybody holds `lock` for reading, or for writing."""
    if type(lock) is RwLock:
        if way == FS_SHARED:
            return rwlock_readers(&(<RwLock>lock).word) != 0
        return rwlock_is_locked_exclusive(&(<RwLock>lock).word)
    if way == FS_SHARED:
        return sharded_has_readers(&(<ShardedLock>lock).shards)
    return sharded_is_locked_exclusive(&(<ShardedLock>lock).shards)


# -- guards ------------------------------------------------------------------

cdef int wait_a_little(int tries) noexcept:
    """For another thread to leave BUSY; that takes it instructions, if it runs."""
    if tries < 100:
        fs_pause()
    else:
        # It was preempted.  Detached and asleep we are in the way of neither the
        # collector nor a thread of a lower priority.
        park(<uintptr_t>&tries, NULL, NULL, NULL, NULL, 0, deadline_after(50_000), FS_PLAIN, NULL)
    return tries + 1


cdef inline bint become(_Guard guard, unsigned char before, unsigned char after) noexcept:
    cdef unsigned char seen = before
    cdef int tries = 0
    # acq_rel: what the guard's user did before happens before what the next does
    while not fs_u8_cas_acq_rel(&guard.life, &seen, after):
        if seen != (before | FS_GUARD_BUSY):
            return False
        tries = wait_a_little(tries)
        seen = before
    return True


cdef inline bint is_live(_Guard guard) noexcept:
    # acquire: pairs with the release in hold()
    return fs_u8_load_acquire(&guard.life) & FS_GUARD_HELD


cdef inline int begin_access(_Guard guard) except -1:
    """The guard holds the lock until end_access(), and nothing runs Python before that."""
    cdef unsigned char seen = FS_GUARD_HELD
    cdef int tries = 0
    if not FS_FREE_THREADED:
        return check(guard)
    # acquire: pairs with the releases in end_access and hold
    while not fs_u8_cas_acquire(&guard.life, &seen, FS_GUARD_HELD | FS_GUARD_BUSY):
        if seen != FS_GUARD_HELD | FS_GUARD_BUSY:
            return refuse_dead(guard)
        tries = wait_a_little(tries)
        seen = FS_GUARD_HELD
    return 0


cdef inline void end_access(_Guard guard) noexcept:
    if FS_FREE_THREADED:
        # release: pairs with the acquires in begin_access and become
        fs_u8_store_release(&guard.life, FS_GUARD_HELD)


cdef int refuse_dead(_Guard guard) except -1:
    # acquire: as is_live
    if fs_u8_load_acquire(&guard.life) == FS_GUARD_AWAY:
        raise RuntimeError("this guard does not hold its lock at the moment")
    raise RuntimeError("this guard no longer holds its lock")


cdef inline int check(_Guard guard) except -1:
    return 0 if is_live(guard) else refuse_dead(guard)


cdef inline int begin(_Guard guard, unsigned char after) except -1:
    """Of all who end or change a guard at the same time, one gets past this."""
    return 0 if become(guard, FS_GUARD_HELD, after) else refuse_dead(guard)


cdef inline void hold(_Guard guard, _Valued lock, int way, fs_rwlock* word) noexcept:
    guard.lock = lock
    guard.way = way
    guard.word = word
    # release: pairs with the acquire in is_live
    fs_u8_store_release(&guard.life, FS_GUARD_HELD)


cdef inline int let_go(_Guard guard, bint fair) except -1:
    """Release what the guard held; it is DEAD or AWAY already."""
    cdef int result
    if tracing():
        result = let_go_traced(guard, fair)
    else:
        result = let_go_untraced(guard.lock, guard.way, guard.word, fair)
    if result < 0:
        raise RuntimeError("the lock of this guard was released by somebody else")
    return 0


cdef int let_go_traced(_Guard guard, bint fair) noexcept:
    cdef fs_section section
    cdef int result
    trace_release(&section, guard.lock, guard.way, <PyObject*>guard)
    result = let_go_untraced(guard.lock, guard.way, guard.word, fair)
    trace_released(&section)
    return result


cdef void drop(_Guard guard) noexcept:
    """let_go(), where nobody could be told of an error."""
    if tracing():
        let_go_traced(guard, False)
    else:
        let_go_untraced(guard.lock, guard.way, guard.word, False)


cdef int end(_Guard guard, bint fair) except -1:
    begin(guard, FS_GUARD_DEAD)
    return let_go(guard, fair)


cdef void come_back(_Guard guard) noexcept:
    """AWAY no longer, what it holds being held again."""
    if not become(guard, FS_GUARD_AWAY, FS_GUARD_HELD):
        drop(guard)  # its `with` block was left meanwhile


cdef int take_back(_Guard guard) except -1:
    """End AWAY by taking the lock again; the guard is dead when that fails."""
    cdef fs_rwlock* word = NULL
    try:
        take(guard.lock, guard.way, FS_FOREVER, &word, <PyObject*>guard, 0)
    except BaseException:
        become(guard, FS_GUARD_AWAY, FS_GUARD_DEAD)
        raise
    guard.word = word
    come_back(guard)
    return 0


cdef int leave(_Guard guard) except -1:
    """The end of a guard's `with` block."""
    if become(guard, FS_GUARD_HELD, FS_GUARD_DEAD):
        return let_go(guard, False)
    # Ended in the block: nothing more to do.  Or AWAY: whoever took it there
    # finds it dead on the way back.
    become(guard, FS_GUARD_AWAY, FS_GUARD_DEAD)
    return 0


cdef int enter_block(_Guard guard) except -1:
    check(guard)
    if tracing():
        trace_block(guard.lock, <PyObject*>guard)
    return 0


cdef PyObject* guard_call(
    PyObject* self, PyObject** args, size_t nargsf, PyObject* names,
) except NULL:
    cdef size_t nargs = PyVectorcall_NARGS(nargsf)
    if names == NULL and nargs == 0:
        enter_block(<_Guard>self)
        return Py_NewRef(self)
    if names == NULL and nargs == 3:
        leave(<_Guard>self)
        return Py_NewRef(Py_None)
    refuse_call(nargs)


cdef bint has_waiters(_Guard guard) noexcept:
    cdef uintptr_t wanted = (FS_RWLOCK_WRITER if guard.way == FS_SHARED
                             else FS_RWLOCK_PARKED)
    cdef int i
    if guard.word != NULL:
        # relaxed: advisory; letting go looks again
        return fs_uptr_load_relaxed(&guard.word.state) & wanted
    for i in range(FS_SHARDS):
        # relaxed: as above
        if fs_uptr_load_relaxed(
                &(<ShardedLock>guard.lock).shards.shard[i].lock.state) & wanted:
            return True
    return False


@cython.no_gc_clear  # what a guard holds must outlive it
@cython.trashcan(True)  # as _Valued
cdef class _Guard:
    """What guards of RwLock and ShardedLock have in common."""

    def __cinit__(self):
        self.call = guard_call

    def __dealloc__(self):
        if become(self, FS_GUARD_HELD, FS_GUARD_DEAD):
            drop(self)

    @classmethod
    def __class_getitem__(cls, item, /):
        return alias(cls, item)

    @property
    def rwlock(self):
        """The lock that the guard holds."""
        check(self)
        return self.lock

    def unlock(self):
        """Release the lock; the guard is dead."""
        end(self, False)

    def unlock_fair(self):
        """Release the lock and, if threads wait for it, hand it to the first of them;
        the guard is dead."""
        end(self, True)

    def __enter__(self):
        enter_block(self)
        return self

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        leave(self)

    def __reduce__(self):
        refuse_pickling(self)

    def __repr__(self):
        state = "" if is_live(self) else "dead "
        return f"<{state}{type(self).__name__} at {address(self)}>"


cdef object alias(object cls, object item):
    from types import GenericAlias
    return GenericAlias(cls, item)


@cython.final
@cython.no_gc_clear
@cython.trashcan(True)
cdef class _Unlocked:
    """What unlocked() gives: its block runs with the lock released."""
    cdef _Guard guard
    cdef bint fair
    cdef fs_atomic_u8 inside

    def __enter__(self):
        begin(self.guard, FS_GUARD_AWAY)
        fs_u8_store_release(&self.inside, True)  # release: pairs with __exit__
        let_go(self.guard, self.fair)

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        # acq_rel: pairs with __enter__
        if not fs_u8_exchange_acq_rel(&self.inside, False):
            raise RuntimeError("this block was not entered")
        take_back(self.guard)


cdef object unlocked(_Guard guard, bint fair):
    cdef _Unlocked block = _Unlocked.__new__(_Unlocked)
    check(guard)
    block.guard = guard
    block.fair = fair
    return block


cdef object whole_value(_Guard guard):
    begin_access(guard)
    value = guard.lock.value
    end_access(guard)
    return value


cdef object mapped(_Guard guard, _Mapped result, object function, bint required):
    """`result` as the guard of the part that `function` names, in place of `guard`;
    None when it names none."""
    cdef object part = (<_Mapped>guard).part if isinstance(guard, _Mapped) else None
    check(guard)
    steps = record(function)
    if steps is None:
        if required:
            raise TypeError("the function must return a part of its argument, not None")
        return None
    if steps:
        whole = whole_value(guard) if part is None else part.get()
        part = Part(whole, steps)
    result.part = part
    begin(guard, FS_GUARD_DEAD)
    if tracing():
        trace_changed(guard.lock, <PyObject*>guard, <PyObject*>result, guard.way)
    hold(result, guard.lock, guard.way, guard.word)
    return result


@cython.no_gc_clear
cdef class _Direct(_Guard):
    """A guard of the whole value."""

    @property
    def value(self):
        """The value that the lock protects."""
        return whole_value(self)

    def bump(self):
        """Release the lock to whoever waits for it and take it again; nearly free when
        nobody does.

        An exception of a signal handler leaves the guard dead.
        """
        check(self)
        if has_waiters(self):
            begin(self, FS_GUARD_AWAY)
            let_go(self, True)
            take_back(self)

    def unlocked(self):
        """A context manager: its block runs with the lock released.

        The lock is taken again at the end of the block, also after an exception;
        an exception of a signal handler during that leaves the guard dead.
        """
        return unlocked(self, False)

    def unlocked_fair(self):
        """As unlocked(), handing the lock to the first of those who wait."""
        return unlocked(self, True)


@cython.final
@cython.no_gc_clear
cdef class ReadGuard(_Direct):
    """A lock held for reading: others may read too, nobody writes.

    Made by RwLock.read() and ShardedLock.read(); ended by unlock(), a `with`
    block, or being dropped.  `value` cannot be set."""

    def map(self, function, /):
        """A MappedReadGuard of the part that `function` names, in place of this guard.

        function: gets a stand-in for the value and returns an attribute or an item
        of it, any number of steps deep: `lambda v: v["a"].x`.  An exception leaves
        this guard as it is.
        """
        return mapped(self, MappedReadGuard.__new__(MappedReadGuard), function, True)

    def try_map(self, function, /):
        """As map(); None, and this guard stays as it is, when `function` returns None."""
        return mapped(self, MappedReadGuard.__new__(MappedReadGuard), function, False)


cdef inline int change_value(_Guard guard, object value) except -1:
    begin_access(guard)
    old = guard.lock.value  # so that nothing is freed before end_access
    guard.lock.value = value
    end_access(guard)
    return 0


@cython.no_gc_clear
cdef class _Writing(_Direct):
    """A guard that holds a lock for writing."""

    @property
    def value(self):
        """The value that the lock protects; may be set."""
        return whole_value(self)

    @value.setter
    def value(self, value):
        change_value(self, value)

    def map(self, function, /):
        """A MappedWriteGuard of the part that `function` names, in place of this guard;
        see ReadGuard.map()."""
        return mapped(self, MappedWriteGuard.__new__(MappedWriteGuard), function, True)

    def try_map(self, function, /):
        """As map(); None, and this guard stays as it is, when `function` returns None."""
        return mapped(self, MappedWriteGuard.__new__(MappedWriteGuard), function, False)


@cython.final
@cython.no_gc_clear
cdef class ShardedWriteGuard(_Writing):
    """A ShardedLock held for writing: nobody else holds it in any way."""


@cython.final
@cython.no_gc_clear
cdef class WriteGuard(_Writing):
    """An RwLock held for writing: nobody else holds it in any way.

    Made by RwLock.write() or an upgrade; ended by unlock(), a `with` block, being
    dropped, or a downgrade."""

    def downgrade(self):
        """A ReadGuard in place of this guard; nobody writes in between."""
        cdef ReadGuard result = ReadGuard.__new__(ReadGuard)
        begin(self, FS_GUARD_DEAD)
        if tracing():
            trace_changed(self.lock, <PyObject*>self, <PyObject*>result, FS_SHARED)
        rwlock_downgrade(self.word)
        hold(result, self.lock, FS_SHARED, self.word)
        return result

    def downgrade_to_upgradable(self):
        """An UpgradableReadGuard in place of this guard; nobody writes in between."""
        cdef UpgradableReadGuard result = UpgradableReadGuard.__new__(UpgradableReadGuard)
        begin(self, FS_GUARD_DEAD)
        if tracing():
            trace_changed(self.lock, <PyObject*>self, <PyObject*>result, FS_UPGRADABLE)
        rwlock_downgrade_to_upgradable(self.word)
        hold(result, self.lock, FS_UPGRADABLE, self.word)
        return result


cdef int take_upgrade(void* word, int64_t deadline) noexcept:
    return rwlock_upgrade_until(<fs_rwlock*>word, deadline, FS_SIGNALS)


cdef WriteGuard upgraded(UpgradableReadGuard self, int64_t deadline):
    """The guard that writes, `self` being AWAY; or None, and `self` as it was."""
    cdef WriteGuard result = WriteGuard.__new__(WriteGuard)
    cdef int outcome
    begin(self, FS_GUARD_AWAY)
    if tracing():
        try:
            outcome = trace_lock(self.lock, FS_UPGRADE, deadline, <PyObject*>result,
                                 take_upgrade, self.word)
        except:
            come_back(self)
            raise
        if outcome == FS_ACQUIRED:
            trace_disowned(self.lock, <PyObject*>self)  # `result` holds it
    else:
        outcome = rwlock_upgrade_until(self.word, deadline, FS_SIGNALS)
    if outcome == FS_ACQUIRED:
        hold(result, self.lock, FS_EXCLUSIVE, self.word)
        return result
    come_back(self)
    checked(outcome)
    return None


cdef object try_upgrade(UpgradableReadGuard self, int64_t deadline):
    cdef WriteGuard result = upgraded(self, deadline)
    if result is not None:
        become(self, FS_GUARD_AWAY, FS_GUARD_DEAD)
    return result


@cython.final
@cython.no_gc_clear
cdef class UpgradableReadGuard(_Direct):
    """An RwLock held for reading, beside other readers, by the one that may upgrade.

    What it has read is still true after an upgrade.  Made by
    RwLock.upgradable_read(); ended by unlock(), a `with` block, being dropped, a
    downgrade, or an upgrade."""

    def upgrade(self):
        """A WriteGuard in place of this guard, once the other readers have left;
        nobody else writes before.

        An exception of a signal handler leaves this guard as it is.
        """
        return try_upgrade(self, FS_FOREVER)

    def try_upgrade(self):
        """As upgrade(); None, and this guard stays as it is, when others read."""
        return try_upgrade(self, 0)

    def try_upgrade_for(self, seconds, /):
        """As try_upgrade(), giving up after `seconds`."""
        return try_upgrade(self, deadline_for(seconds))

    def try_upgrade_until(self, deadline, /):
        """As try_upgrade(), giving up when time.monotonic() reaches `deadline`."""
        return try_upgrade(self, deadline_until(deadline))

    def with_upgraded(self, function, /):
        """Upgrade, call function(write_guard), return to upgradable reading: what the
        function returned.

        If the function ends the WriteGuard (unlocks, maps, downgrades it), this
        guard is dead too.
        """
        cdef WriteGuard guard = upgraded(self, FS_FOREVER)
        try:
            return function(guard)
        finally:
            if become(guard, FS_GUARD_HELD, FS_GUARD_DEAD):
                if tracing():
                    trace_changed(self.lock, <PyObject*>guard, <PyObject*>self, FS_UPGRADABLE)
                rwlock_downgrade_to_upgradable(self.word)
                come_back(self)
            else:
                become(guard, FS_GUARD_AWAY, FS_GUARD_DEAD)
                become(self, FS_GUARD_AWAY, FS_GUARD_DEAD)

    def downgrade(self):
        """A ReadGuard in place of this guard; nobody writes in between."""
        cdef ReadGuard result = ReadGuard.__new__(ReadGuard)
        begin(self, FS_GUARD_DEAD)
        if tracing():
            trace_changed(self.lock, <PyObject*>self, <PyObject*>result, FS_SHARED)
        rwlock_downgrade_upgradable(self.word)
        hold(result, self.lock, FS_SHARED, self.word)
        return result


cdef inline object mapped_value(_Mapped self):
    if self.part is None:  # the whole value
        return whole_value(self)
    check(self)
    return self.part.get()


@cython.no_gc_clear
@cython.trashcan(True)
cdef class _Mapped(_Guard):
    """A guard of a part of the value."""


@cython.final
@cython.no_gc_clear
cdef class MappedReadGuard(_Mapped):
    """A lock held for reading, and a part of its value.  Made by ReadGuard.map()."""

    @property
    def value(self):
        """The part."""
        return mapped_value(self)

    def map(self, function, /):
        """A guard of a part of this part, in place of this guard; see ReadGuard.map()."""
        return mapped(self, MappedReadGuard.__new__(MappedReadGuard), function, True)

    def try_map(self, function, /):
        """As map(); None, and this guard stays as it is, when `function` returns None."""
        return mapped(self, MappedReadGuard.__new__(MappedReadGuard), function, False)


@cython.final
@cython.no_gc_clear
cdef class MappedWriteGuard(_Mapped):
    """A lock held for writing, and a part of its value.  Made by WriteGuard.map()."""

    @property
    def value(self):
        """The part; may be set."""
        return mapped_value(self)

    @value.setter
    def value(self, value):
        if self.part is None:
            change_value(self, value)
        else:
            check(self)
            self.part.set(value)

    def map(self, function, /):
        """A guard of a part of this part, in place of this guard; see ReadGuard.map()."""
        return mapped(self, MappedWriteGuard.__new__(MappedWriteGuard), function, True)

    def try_map(self, function, /):
        """As map(); None, and this guard stays as it is, when `function` returns None."""
        return mapped(self, MappedWriteGuard.__new__(MappedWriteGuard), function, False)


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

cdef inline fs_atomic_uptr* holds_through(LockView self, fs_rwlock* word) noexcept:
    if self.way == FS_EXCLUSIVE:
        return &self.lock.viewed[WRITER]
    if self.word != NULL:
        return &self.lock.viewed[READER]
    return &(<fs_shard*>word).viewed


cdef inline void count_hold(fs_atomic_uptr* holds) noexcept:
    # release: pairs with the acquire in uncount_hold, which then finds the lock held
    fs_uptr_fetch_add_release(holds, 1)


cdef inline bint uncount_hold(fs_atomic_uptr* holds) noexcept:
    """False when there is none."""
    cdef uintptr_t seen = fs_uptr_load_relaxed(holds)  # relaxed: the CAS decides
    while seen != 0:
        # acquire: pairs with the release in count_hold
        if fs_uptr_cas_acquire(holds, &seen, seen - 1):
            return True
    return False


cdef bint uncount_shard(fs_sharded* shards, fs_rwlock** word) noexcept:
    """Uncount a reader of any shard, best of this thread's, and tell its word."""
    cdef int i
    word[0] = sharded_mine(shards)
    if uncount_hold(&(<fs_shard*>word[0]).viewed):
        return True
    # Twice: as in sharded_unlock_read
    for i in range(2 * FS_SHARDS):
        word[0] = &shards.shard[i % FS_SHARDS].lock
        if uncount_hold(&shards.shard[i % FS_SHARDS].viewed):
            return True
    return False


cdef bint has_holds(LockView self) noexcept:
    """Whether the lock is held through this view."""
    cdef int i
    if self.word != NULL or self.way == FS_EXCLUSIVE:
        return fs_uptr_load_relaxed(holds_through(self, self.word)) != 0  # relaxed: a snapshot
    for i in range(FS_SHARDS):
        # relaxed: as above
        if fs_uptr_load_relaxed(&(<ShardedLock>self.lock).shards.shard[i].viewed) != 0:
            return True
    return False


cdef inline bint view_acquire(LockView self, int64_t deadline, int block) except -1:
    cdef fs_rwlock* word
    if not take(self.lock, self.way, deadline, &word, NULL, block):
        return False
    count_hold(holds_through(self, word))
    return True


cdef inline int view_release(LockView self) except -1:
    cdef fs_rwlock* word = self.word
    cdef fs_section section
    if not (uncount_shard(&(<ShardedLock>self.lock).shards, &word)
            if word == NULL and self.way == FS_SHARED
            else uncount_hold(holds_through(self, word))):
        raise RuntimeError(
            "release of a lock that is not held through this view: what a guard holds, the "
            "guard releases" if is_held(self.lock, self.way) else "release unlocked lock")
    if not tracing():
        let_go_untraced(self.lock, self.way, word, False)
    else:
        trace_release(&section, self.lock, self.way, NULL)
        let_go_untraced(self.lock, self.way, word, False)
        trace_released(&section)
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


# The sides of an RwLock once more, for the two calls of a `with` that need not
# wait; the rest is view_call's.
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
cdef inline object view(_Valued lock, int which):
    # acquire: pairs with the release in make_view
    cdef uintptr_t found = fs_uptr_load_acquire(&lock.views[which])
    return <object><PyObject*>found if found != 0 else make_view(lock, which)


cdef object make_view(_Valued lock, int which):
    cdef LockView made = LockView.__new__(LockView)
    cdef uintptr_t found = 0
    made.call = view_call
    made.lock = lock
    made.way = FS_SHARED if which == READER else FS_EXCLUSIVE
    if type(lock) is RwLock:
        made.word = &(<RwLock>lock).word
        made.call = reader_call if which == READER else writer_call
    # acq_rel: publishes `made`
    if fs_uptr_cas_acq_rel(&lock.views[which], &found, <uintptr_t><PyObject*>made):
        Py_INCREF(made)
        return made
    # acquire: pairs with who was faster; the CAS that failed has not
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
        """Whether anybody holds the lock in this way, at this moment."""
        return is_held(self.lock, self.way)

    def __enter__(self):
        return view_acquire(self, FS_FOREVER, FS_BLOCK)

    def __exit__(self, exc_type=None, exc_value=None, traceback=None):
        view_release(self)

    def _is_owned(self):
        # What a Condition asks.  Its own probe, a try to acquire, would be wrong:
        # the reading side can be taken while it is held.
        return has_holds(self)

    def _at_fork_reinit(self):
        self.lock._at_fork_reinit()

    def __reduce__(self):
        refuse_pickling(self)

    def __repr__(self):
        side = "reader" if self.way == FS_SHARED else "writer"
        return f"<{side} of {self.lock!r}>"


# -- the locks ---------------------------------------------------------------

cdef inline ReadGuard read_guard(_Valued lock, int way, int64_t deadline):
    cdef ReadGuard guard = ReadGuard.__new__(ReadGuard)
    cdef fs_rwlock* word
    if not take(lock, way, deadline, &word, <PyObject*>guard, 0):
        return None
    hold(guard, lock, FS_SHARED, word)
    return guard


cdef inline WriteGuard write_guard(RwLock lock, int64_t deadline):
    cdef WriteGuard guard = WriteGuard.__new__(WriteGuard)
    cdef fs_rwlock* word
    if not take(lock, FS_EXCLUSIVE, deadline, &word, <PyObject*>guard, 0):
        return None
    hold(guard, lock, FS_EXCLUSIVE, word)
    return guard


cdef inline UpgradableReadGuard upgradable_guard(RwLock lock, int64_t deadline):
    cdef UpgradableReadGuard guard = UpgradableReadGuard.__new__(UpgradableReadGuard)
    cdef fs_rwlock* word
    if not take(lock, FS_UPGRADABLE, deadline, &word, <PyObject*>guard, 0):
        return None
    hold(guard, lock, FS_UPGRADABLE, word)
    return guard


cdef inline ShardedWriteGuard sharded_guard(ShardedLock lock, int64_t deadline):
    cdef ShardedWriteGuard guard = ShardedWriteGuard.__new__(ShardedWriteGuard)
    cdef fs_rwlock* word
    if not take(lock, FS_EXCLUSIVE, deadline, &word, <PyObject*>guard, 0):
        return None
    hold(guard, lock, FS_EXCLUSIVE, word)
    return guard


cdef object value_of_free(_Valued lock):
    cdef fs_rwlock* word
    if not take_untraced(lock, FS_EXCLUSIVE, 0, &word):
        raise RuntimeError("the lock is held")
    try:
        return lock.value
    finally:
        let_go_untraced(lock, FS_EXCLUSIVE, word, False)


cdef void forget_holds(_Valued lock) noexcept:
    """What was held through views is held no more: the lock is being reset."""
    # relaxed, both: ordered by the reset
    fs_uptr_store_relaxed(&lock.viewed[READER], 0)
    fs_uptr_store_relaxed(&lock.viewed[WRITER], 0)


@cython.no_gc_clear  # see clear_lock
@cython.trashcan(True)  # a chain of them is dropped without a deep stack
cdef class _Valued:
    """What RwLock and ShardedLock have in common."""

    def __cinit__(self, value=None):
        self.value = value
        if tracing():
            trace_made(self)

    def __dealloc__(self):
        clear_views(<PyObject*>self)

    @classmethod
    def __class_getitem__(cls, item, /):
        return alias(cls, item)

    def read(self):
        """A ReadGuard; waits while a writer holds the lock or waits for it.

        So a thread that reads already may wait for itself here: see read_recursive().
        """
        return read_guard(self, FS_SHARED, FS_FOREVER)

    def try_read(self):
        """As read(); None instead of waiting."""
        return read_guard(self, FS_SHARED, 0)

    def try_read_for(self, seconds, /):
        """As read(); None after `seconds`."""
        return read_guard(self, FS_SHARED, deadline_for(seconds))

    def try_read_until(self, deadline, /):
        """As read(); None when time.monotonic() reaches `deadline`."""
        return read_guard(self, FS_SHARED, deadline_until(deadline))

    def read_recursive(self):
        """A ReadGuard; a thread that reads already never waits for it.

        Past writers that wait: many who read like this can keep them waiting.
        """
        return read_guard(self, FS_SHARED_RECURSIVE, FS_FOREVER)

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

    def into_inner(self):
        """The value, which stays in place; RuntimeError while anybody holds the lock."""
        return value_of_free(self)

    def __reduce__(self):
        refuse_pickling(self)

    def __repr__(self):
        if self.is_locked_exclusive():
            state = "write-locked"
        else:
            state = "read-locked" if self.is_locked() else "unlocked"
        return f"<{state} {type(self).__name__} at {address(self)}>"


@cython.final
@cython.no_gc_clear
cdef class RwLock(_Valued):
    """RwLock(value=None)
--

A lock that many threads hold for reading or one for writing, and its value.

read(), write() and upgradable_read() give guards, through which the value is
reached.  Task-fair: a writer that waits stops new readers, and those who wait
are served in order.  An exception in a guard's block does not poison the lock.
Letting go happens before the taking that it makes possible (release / acquire
ordering).  One machine word of state; as parking_lot's RwLock."""

    def write(self):
        """A WriteGuard; waits until nobody else holds the lock."""
        return write_guard(self, FS_FOREVER)

    def try_write(self):
        """As write(); None instead of waiting."""
        return write_guard(self, 0)

    def try_write_for(self, seconds, /):
        """As write(); None after `seconds`."""
        return write_guard(self, deadline_for(seconds))

    def try_write_until(self, deadline, /):
        """As write(); None when time.monotonic() reaches `deadline`."""
        return write_guard(self, deadline_until(deadline))

    def upgradable_read(self):
        """An UpgradableReadGuard; waits for writers and for another one of its kind."""
        return upgradable_guard(self, FS_FOREVER)

    def try_upgradable_read(self):
        """As upgradable_read(); None instead of waiting."""
        return upgradable_guard(self, 0)

    def try_upgradable_read_for(self, seconds, /):
        """As upgradable_read(); None after `seconds`."""
        return upgradable_guard(self, deadline_for(seconds))

    def try_upgradable_read_until(self, deadline, /):
        """As upgradable_read(); None when time.monotonic() reaches `deadline`."""
        return upgradable_guard(self, deadline_until(deadline))

    def is_locked(self):
        """Whether anybody holds the lock, at this moment."""
        return rwlock_is_locked(&self.word)

    def is_locked_exclusive(self):
        """Whether a writer holds the lock, at this moment."""
        return rwlock_is_locked_exclusive(&self.word)

    def _at_fork_reinit(self):
        forget_holds(self)
        rwlock_reset(&self.word)


@cython.final
@cython.no_gc_clear
cdef class ShardedLock(_Valued):
    """ShardedLock(value=None)
--

An RwLock for what is read from every thread all the time and hardly ever written.

Readers of different threads touch different cache lines; a writer takes all of
their words.  A kilobyte.  Without upgrades and downgrades.  As
crossbeam's ShardedLock, but not poisoned by exceptions; fairness and ordering
are RwLock's."""

    def __cinit__(self, value=None):
        memset(&self.shards, 0, sizeof(fs_sharded))

    def write(self):
        """A ShardedWriteGuard; waits until nobody else holds the lock."""
        return sharded_guard(self, FS_FOREVER)

    def try_write(self):
        """As write(); None instead of waiting."""
        return sharded_guard(self, 0)

    def try_write_for(self, seconds, /):
        """As write(); None after `seconds`."""
        return sharded_guard(self, deadline_for(seconds))

    def try_write_until(self, deadline, /):
        """As write(); None when time.monotonic() reaches `deadline`."""
        return sharded_guard(self, deadline_until(deadline))

    def is_locked(self):
        """Whether anybody holds the lock, at this moment."""
        return sharded_is_locked(&self.shards)

    def is_locked_exclusive(self):
        """Whether a writer holds the lock, at this moment."""
        return sharded_is_locked_exclusive(&self.shards)

    def _at_fork_reinit(self):
        cdef int i
        forget_holds(self)
        for i in range(FS_SHARDS):
            fs_uptr_store_relaxed(&self.shards.shard[i].viewed, 0)  # relaxed: as there
            rwlock_reset(&self.shards.shard[i].lock)


cdef fs_traverse traverse_the_rest = NULL  # Cython's own tp_traverse


cdef int traverse_lock(PyObject* self, visitproc visit, void* arg) noexcept:
    cdef int which, result
    cdef uintptr_t view
    for which in range(2):
        view = fs_uptr_load_relaxed(&(<_Valued>self).views[which])  # relaxed: the world stands
        if view != 0:
            result = visit(<PyObject*>view, arg)
            if result != 0:
                return result
    return traverse_the_rest(self, visit, arg)


cdef int clear_views(PyObject* self) noexcept:
    cdef int which
    cdef uintptr_t view
    for which in range(2):
        view = fs_uptr_exchange_acq_rel(&(<_Valued>self).views[which], 0)
        Py_XDECREF(<PyObject*>view)
    return 0


cdef int clear_lock(PyObject* self) noexcept:
    clear_views(self)
    (<_Valued>self).value = None
    return 0


def _pinned_with_lock(_Valued lock):
    """What pin() makes immortal with a lock."""
    return lock.reader, lock.writer


def _pinned_with_view(LockView view):
    """What pin() makes immortal with one side of a lock."""
    return view.lock, view.lock.reader, view.lock.writer


# -- set-up ------------------------------------------------------------------

cdef int set_up() except -1:
    global traverse_the_rest
    cdef RwLock rw = RwLock()
    cdef LockView reader = rw.reader
    cdef ReadGuard guard = rw.read()
    cdef Py_ssize_t offset = <char*>&guard.call - <char*><PyObject*>guard
    for cls in (ReadGuard, WriteGuard, UpgradableReadGuard, ShardedWriteGuard,
                MappedReadGuard, MappedWriteGuard):
        make_context_manager(cls, offset)
        forbid_instances(cls)
    make_context_manager(LockView, <char*>&reader.call - <char*><PyObject*>reader)
    traverse_the_rest = collect_by(RwLock, traverse_lock, clear_lock)
    collect_by(ShardedLock, traverse_lock, clear_lock)
    register_pinnable(RwLock, ShardedLock, parts=_pinned_with_lock)
    register_pinnable(LockView, parts=_pinned_with_view)
    for cls in (LockView, _Unlocked, _Valued, _Guard, _Direct, _Writing, _Mapped):
        forbid_instances(cls)
    return 0


set_up()
publish((
    LockView, MappedReadGuard, MappedWriteGuard, ReadGuard, RwLock, ShardedLock,
    ShardedWriteGuard, UpgradableReadGuard, WriteGuard,
))
