"""Condvar: a condition variable over the guards of a Mutex."""
cimport cython
from libc.stdint cimport int64_t, uintptr_t
from cpython.object cimport PyObject

from fastsync._watch.trace cimport (
    FS_EXCLUSIVE, fs_section, fs_wait, trace_condition, trace_give, trace_made, trace_notified,
    trace_released, tracing,
)
from fastsync.objects._slots cimport publish
from fastsync.objects._timeouts cimport deadline_for, deadline_until
from fastsync.objects._veneer cimport refuse_pickling
from fastsync.objects.guards cimport here, lend, raise_left, read_value
from fastsync.objects.mutex cimport Mutex, MutexGuard, hold_again
from fastsync.raw.c_atomic cimport fs_uptr_store_relaxed
from fastsync.raw.c_wait cimport FS_FOREVER
from fastsync.raw.condvar cimport (
    condvar_notify_all, condvar_notify_one, condvar_wait, fs_condvar, FS_CONDVAR_BAD_MUTEX,
    FS_CONDVAR_TIMEOUT,
)
from fastsync.raw.mutex cimport mutex_marked
from fastsync.raw.parking cimport FS_ERROR, FS_SIGNALS, parked_count

from fastsync.objects._pin import register_pinnable

# A size that is promised.
cdef extern from *:
    """
    #define FS_SIZE_IS(x, n) _Static_assert(sizeof(x) == (n), "its size is promised")
    """
    void FS_SIZE_IS(fs_condvar, size_t) noexcept


cdef void check_size() noexcept:
    cdef fs_condvar condvar
    FS_SIZE_IS(condvar, sizeof(void*))


cdef int check_guard(object guard) except -1:
    """That it is the guard of a Mutex."""
    cdef str name
    if type(guard) is MutexGuard:
        if type((<MutexGuard>guard).lock) is Mutex:
            return 0
        raise RuntimeError("a Condvar works with the guards of a Mutex, not of a FairMutex")
    name = type(guard).__name__
    if type(guard).__module__ == "fastsync" and name.endswith("Guard"):
        raise RuntimeError(f"a Condvar works with the guards of a Mutex, not with a {name}")
    raise TypeError(f"a MutexGuard is needed, not {name!r}")


cdef bint wait(Condvar c, object guard, int64_t deadline) except -1:
    """Whether the wait timed out; the guard's mutex is locked again in any case."""
    cdef bint block
    cdef int outcome
    cdef int flags = mutex_marked(FS_SIGNALS, here)
    cdef fs_wait noting
    cdef MutexGuard g
    cdef Mutex m
    check_guard(guard)
    g = <MutexGuard>guard
    m = <Mutex>g.lock
    if deadline == 0:
        deadline = 1  # the past: unlock the mutex and take it again, at once
    block = lend(g)
    # relaxed: ordered by the unlock in condvar_wait
    fs_uptr_store_relaxed(&m.thread, 0)
    if not tracing():
        outcome = condvar_wait(&c.word, &m.word, deadline, flags)
    else:
        trace_condition(&noting, c, m, FS_EXCLUSIVE, <PyObject*>g, &m.word, deadline)
        outcome = condvar_wait(&c.word, &m.word, deadline, flags)
        trace_notified(&noting)
    if not hold_again(m, g, block):
        m.release(g, False)
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
    while not timed_out and predicate(read_value(<MutexGuard>guard)):
        timed_out = wait(c, guard, deadline)
    return timed_out


@cython.final
cdef class Condvar:
    """Condvar()
--

A condition variable over the guard of a Mutex.

A wait releases the mutex, sleeps until it is notified, and locks the mutex
again; meanwhile the guard is dead for every thread.  No spurious wake-ups; first
come, first notified.  RuntimeError for a guard that is dead, mapped or of
another type of lock, and for a wait with a second mutex while threads wait
with a first; TypeError for what is no guard.  A signal handler's exception
leaves a wait when the mutex is locked again.

The timed waits return True when they TIMED OUT, unlike those of
threading.Condition.  Origin: parking_lot's Condvar."""

    def __cinit__(self):
        if tracing():
            trace_made(self)

    def __init__(self):
        pass

    def wait(self, guard):
        """Wait until notified."""
        wait(self, guard, FS_FOREVER)

    def wait_for(self, guard, seconds):
        """Wait until notified or for `seconds`: True when it TIMED OUT.

        A thread that was notified in time and got the mutex late has not timed out.
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
        cdef fs_section section
        if not tracing():
            return condvar_notify_one(&self.word)
        trace_give(&section, <uintptr_t><PyObject*>self)
        notified = condvar_notify_one(&self.word)
        trace_released(&section)
        return notified

    def notify_all(self):
        """Wake all, one after the other as the mutex gets free; how many they were."""
        cdef fs_section section
        if not tracing():
            return condvar_notify_all(&self.word)
        trace_give(&section, <uintptr_t><PyObject*>self)
        notified = condvar_notify_all(&self.word)
        trace_released(&section)
        return notified

    def __reduce__(self):
        refuse_pickling(type(self).__name__)

    def __repr__(self):
        return f"<Condvar, {parked_count(<uintptr_t>&self.word)} waiting>"


register_pinnable(Condvar)
check_size()
publish((Condvar,))
