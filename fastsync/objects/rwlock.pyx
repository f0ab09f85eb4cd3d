"""RwLock: one machine word that owns a value, held by many readers or one writer.

The life of a guard: see guards.pyx.  What ShardedLock shares is in readwrite.pyx.
"""
cimport cython
from libc.stdint cimport int64_t
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF

from fastsync._watch.trace cimport (
    FS_EXCLUSIVE, FS_SHARED, FS_UPGRADABLE, FS_UPGRADE, trace_changed, trace_disowned, trace_lock,
    tracing,
)
from fastsync.objects._slots cimport end_in, publish
from fastsync.objects._timeouts cimport deadline_for, deadline_until
from fastsync.objects.guards cimport (
    GUARD_AWAY, GUARD_DEAD, GUARD_HELD, _Direct, _Guard, _Owner, _Writing, allocate_guard,
    dealloc_guard, end, finish_guard, granted, leave_held, lend, return_hold, step,
)
from fastsync.objects.readwrite cimport (
    ReadGuard, _ReadWriteLock, finish_lock, give_to, is_word_wanted, lock_of, new_read_guard,
    take_for, take_word,
)
from fastsync.raw.c_wait cimport FS_FOREVER
from fastsync.raw.parking cimport FS_ACQUIRED, FS_SIGNALS
from fastsync.raw.rwlock cimport (
    fs_rwlock, rwlock_downgrade, rwlock_downgrade_to_upgradable, rwlock_downgrade_upgradable,
    rwlock_is_locked, rwlock_is_locked_exclusive, rwlock_readers, rwlock_reset, rwlock_unlock_read,
    rwlock_unlock_upgradable, rwlock_unlock_upgradable_fair, rwlock_unlock_write,
    rwlock_unlock_write_fair, rwlock_upgrade_until,
)


cdef inline int unlock_word(fs_rwlock* word, int way, bint fair) noexcept:
    """0, or -1 when it is not held in this way."""
    if way == FS_SHARED:
        return rwlock_unlock_read(word)
    if way == FS_UPGRADABLE:
        return rwlock_unlock_upgradable_fair(word) if fair else rwlock_unlock_upgradable(word)
    return rwlock_unlock_write_fair(word) if fair else rwlock_unlock_write(word)


# -- guards ------------------------------------------------------------------

cdef WriteGuard new_write_guard(_Owner lock):
    cdef PyObject* raw = allocate_guard(WriteGuard, lock)
    guard = <WriteGuard>raw
    Py_DECREF(guard)
    return guard


cdef UpgradableReadGuard new_upgradable_guard(_Owner lock):
    cdef PyObject* raw = allocate_guard(UpgradableReadGuard, lock)
    guard = <UpgradableReadGuard>raw
    Py_DECREF(guard)
    return guard


@cython.final
@cython.no_gc_clear
cdef class WriteGuard(_Writing):
    """An RwLock held for writing: no other thread holds it in any way.

    Made by RwLock.write() or an upgrade; ended by unlock(), map(), a `with` block, being
    dropped, or a downgrade.  Origin: parking_lot's RwLockWriteGuard."""

    @property
    def rwlock(self):
        """The lock that the guard holds."""
        return lock_of(self)

    def downgrade(self):
        """A ReadGuard in place of this guard; no thread writes in between."""
        cdef ReadGuard result = new_read_guard(self.lock)
        end(self)
        if tracing():
            trace_changed(self.lock, <PyObject*>self, <PyObject*>result, FS_SHARED)
        rwlock_downgrade(<fs_rwlock*>self.word)
        give_to(result, self, FS_SHARED)
        return result

    def downgrade_to_upgradable(self):
        """An UpgradableReadGuard in place of this guard; no thread writes in between."""
        cdef UpgradableReadGuard result = new_upgradable_guard(self.lock)
        end(self)
        if tracing():
            trace_changed(self.lock, <PyObject*>self, <PyObject*>result, FS_UPGRADABLE)
        rwlock_downgrade_to_upgradable(<fs_rwlock*>self.word)
        give_to(result, self, FS_UPGRADABLE)
        return result


cdef int take_upgrade(void* word, int64_t deadline) noexcept:
    return rwlock_upgrade_until(<fs_rwlock*>word, deadline, FS_SIGNALS)


cdef void return_or_release(_Guard guard) noexcept:
    """AWAY no longer, what it holds being held again."""
    if not return_hold(guard):
        guard.lock.release(guard, False)  # its `with` block was left meanwhile


cdef WriteGuard upgraded(UpgradableReadGuard self, int64_t deadline):
    """The guard that writes, `self` being AWAY; or None, and `self` as it was."""
    cdef WriteGuard result = new_write_guard(self.lock)
    cdef int outcome
    lend(self)
    try:
        if tracing():
            outcome = trace_lock(self.lock, FS_UPGRADE, deadline, <PyObject*>result, take_upgrade,
                                 self.word)
            if outcome == FS_ACQUIRED:
                trace_disowned(self.lock, <PyObject*>self)  # `result` holds it
        else:
            outcome = failed_as_raised(take_upgrade(self.word, deadline))
    except:
        return_or_release(self)
        raise
    if outcome == FS_ACQUIRED:
        give_to(result, self, FS_EXCLUSIVE)
        return result
    return_or_release(self)
    return None


cdef int failed_as_raised(int outcome) except -1:
    """FS_ERROR is -1, and its exception is set."""
    return outcome


cdef object try_upgrade(UpgradableReadGuard self, int64_t deadline):
    cdef WriteGuard result = upgraded(self, deadline)
    if result is not None:
        step(self, GUARD_AWAY, GUARD_DEAD)
    return result


@cython.final
@cython.no_gc_clear
cdef class UpgradableReadGuard(_Direct):
    """An RwLock held for reading, beside other readers, by the one that may upgrade.

    What it has read is still true after an upgrade.  Made by
    RwLock.upgradable_read(); ended by unlock(), map(), a `with` block, being dropped, a
    downgrade, or an upgrade.  Origin: parking_lot's RwLockUpgradableReadGuard."""

    @property
    def rwlock(self):
        """The lock that the guard holds."""
        return lock_of(self)

    def upgrade(self):
        """A WriteGuard in place of this guard, once the other readers have left;
        no thread writes before.

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
            if leave_held(guard, GUARD_HELD, GUARD_DEAD):
                if tracing():
                    trace_changed(self.lock, <PyObject*>guard, <PyObject*>self, FS_UPGRADABLE)
                rwlock_downgrade_to_upgradable(<fs_rwlock*>self.word)
                return_or_release(self)
            else:
                step(guard, GUARD_AWAY, GUARD_DEAD)
                step(self, GUARD_AWAY, GUARD_DEAD)

    def downgrade(self):
        """A ReadGuard in place of this guard; no thread writes in between."""
        cdef ReadGuard result = new_read_guard(self.lock)
        end(self)
        if tracing():
            trace_changed(self.lock, <PyObject*>self, <PyObject*>result, FS_SHARED)
        rwlock_downgrade_upgradable(<fs_rwlock*>self.word)
        give_to(result, self, FS_SHARED)
        return result


# -- the lock ------------------------------------------------------------------

cdef inline WriteGuard write_guard(RwLock lock, int64_t deadline):
    cdef WriteGuard guard = new_write_guard(lock)
    return guard if take_for(guard, FS_EXCLUSIVE, deadline) else None


cdef inline UpgradableReadGuard upgradable_guard(RwLock lock, int64_t deadline):
    cdef UpgradableReadGuard guard = new_upgradable_guard(lock)
    return guard if take_for(guard, FS_UPGRADABLE, deadline) else None


@cython.final
@cython.no_gc_clear
cdef class RwLock(_ReadWriteLock):
    """RwLock(value=None)
--

A lock that many threads hold for reading or one for writing, and its value.

read(), write() and upgradable_read() give guards, through which the value is
reached.  Task-fair: a writer that waits stops new readers, and threads that wait
are served in order.  An exception in a guard's block does not poison the lock.
A release happens before the next acquisition that it makes possible (release /
acquire ordering).  One machine word of state.  Origin: parking_lot's RwLock."""

    cdef int take(self, int way, int64_t deadline, fs_rwlock** word) noexcept:
        word[0] = &self.word
        return take_word(&self.word, way, deadline)

    cdef int unlock(self, int way, fs_rwlock* word, bint fair) noexcept:
        return unlock_word(&self.word, way, fair)

    cdef bint is_held(self, int way) noexcept:
        if way == FS_SHARED:
            return rwlock_readers(&self.word) != 0
        return rwlock_is_locked_exclusive(&self.word)

    cdef fs_rwlock* single_word(self) noexcept:
        return &self.word

    cdef bint is_wanted(self, _Guard guard) noexcept:
        return is_word_wanted(&self.word, guard.way)

    def write(self, *, timeout=None):
        """A WriteGuard; waits until no other thread holds the lock.

        timeout: seconds to wait at most; TimeoutError when they have passed.
        """
        if timeout is None:
            return write_guard(self, FS_FOREVER)
        return granted(write_guard(self, deadline_for(timeout)), timeout)

    def try_write(self):
        """As write(); None instead of waiting."""
        return write_guard(self, 0)

    def try_write_for(self, seconds, /):
        """As write(); None after `seconds`."""
        return write_guard(self, deadline_for(seconds))

    def try_write_until(self, deadline, /):
        """As write(); None when time.monotonic() reaches `deadline`."""
        return write_guard(self, deadline_until(deadline))

    def upgradable_read(self, *, timeout=None):
        """An UpgradableReadGuard; waits for writers and for another one of its kind.

        timeout: seconds to wait at most; TimeoutError when they have passed.
        """
        if timeout is None:
            return upgradable_guard(self, FS_FOREVER)
        return granted(upgradable_guard(self, deadline_for(timeout)), timeout)

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
        """Whether a thread holds the lock, at this moment."""
        return rwlock_is_locked(&self.word)

    def is_locked_exclusive(self):
        """Whether a writer holds the lock, at this moment."""
        return rwlock_is_locked_exclusive(&self.word)

    def _at_fork_reinit(self):
        self.forget_holds()
        rwlock_reset(&self.word)


cdef int set_up() except -1:
    for cls in (WriteGuard, UpgradableReadGuard):
        finish_guard(cls)
        end_in(cls, dealloc_guard)
    return finish_lock(RwLock)


set_up()
publish((RwLock, UpgradableReadGuard, WriteGuard))
