"""waiters(), owner(), reset_after_fork() and unpickled_fresh."""

import copy
import os
import pickle
import textwrap
import threading
import time

import pytest
from conftest import IN_CHILD

import fastsync
import fastsync.threading as ours

DEADLINE = 60


def until(condition):
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


class SubCondition(ours.Condition):
    pass


class SubSemaphore(ours.Semaphore):
    pass


class SubBarrier(ours.Barrier):
    pass


def under(condition):
    with condition:
        condition.wait(DEADLINE)


def wake(condition):
    with condition:
        condition.notify_all()


def leave_locked(mutex):
    mutex.lock().leak()


def force(mutex):
    mutex.force_unlock()


MUTEX, GUARDS = fastsync.Mutex(), []


def wait_on(condvar):
    with MUTEX as guard:
        condvar.wait(guard)


def hold(lock):
    GUARDS.append(lock.write())


def drop(lock):
    GUARDS.pop().unlock()


def read_and_write(lock):
    lock.read(timeout=DEADLINE).unlock()
    lock.write(timeout=DEADLINE).unlock()


LOCK, RLOCK = ours.Lock, ours.RLock
WAITS = {
    "Lock": (LOCK, LOCK.acquire, lambda x: (x.acquire(DEADLINE), x.release()), LOCK.release),
    "RLock": (RLOCK, RLOCK.acquire, lambda x: (x.acquire(), x.release()), RLOCK.release),
    "Condition": (ours.Condition, None, under, wake),
    "SubCondition": (SubCondition, None, under, wake),
    "Semaphore": (lambda: ours.Semaphore(0), None, lambda x: x.acquire(), lambda x: x.release(2)),
    "SubSemaphore": (lambda: SubSemaphore(0), None, lambda x: x.acquire(), lambda x: x.release(2)),
    "Event": (ours.Event, None, lambda x: x.wait(DEADLINE), lambda x: x.set()),
    "Barrier": (lambda: ours.Barrier(3), None, lambda x: x.wait(DEADLINE), lambda x: x.wait()),
    "Mutex": (fastsync.Mutex, leave_locked, lambda x: x.lock(timeout=DEADLINE), force),
    "FairMutex": (fastsync.FairMutex, leave_locked, lambda x: x.lock(timeout=DEADLINE), force),
    "ReentrantMutex": (
        fastsync.ReentrantMutex,
        leave_locked,
        lambda x: x.lock(timeout=DEADLINE),
        force,
    ),
    "Condvar": (fastsync.Condvar, None, wait_on, lambda x: x.notify_all()),
    "RwLock": (fastsync.RwLock, hold, read_and_write, drop),
    "ShardedLock": (fastsync.ShardedLock, hold, lambda x: x.write(timeout=DEADLINE), drop),
    "SubBarrier": (lambda: SubBarrier(3), None, lambda x: x.wait(DEADLINE), lambda x: x.wait()),
}


@pytest.mark.parametrize("name", WAITS)
def test_waiters(name):
    make, before, wait, end = WAITS[name]
    lock = make()
    if before is not None:
        before(lock)
    assert fastsync.waiters(lock) == 0
    threads = [threading.Thread(target=wait, args=(lock,)) for _ in range(2)]
    for number, thread in enumerate(threads, 1):
        thread.start()
        until(lambda number=number: fastsync.waiters(lock) == number)
    end(lock)
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    assert fastsync.waiters(lock) == 0


def test_owner():
    lock = ours.RLock()
    condition = ours.Condition(lock)
    assert fastsync.owner(lock) is None
    with condition, lock:
        assert fastsync.owner(lock) == fastsync.owner(condition) == threading.get_ident()
        seen = []
        thread = threading.Thread(target=lambda: seen.append(fastsync.owner(lock)))
        thread.start()
        thread.join(DEADLINE)
        assert seen == [threading.get_ident()]
    assert fastsync.owner(condition) is None


@pytest.mark.parametrize("kind", ["Mutex", "FairMutex", "ReentrantMutex"])
def test_owner_of_a_mutex(kind):
    mutex = getattr(fastsync, kind)()
    me = threading.get_ident()
    assert fastsync.owner(mutex) is None
    with mutex:
        assert fastsync.owner(mutex) == me
        seen = []
        thread = threading.Thread(target=lambda: seen.append(fastsync.owner(mutex)))
        thread.start()
        thread.join(DEADLINE)
        assert seen == [me]
    assert fastsync.owner(mutex) is None
    guard = mutex.lock()
    assert fastsync.owner(mutex) == me
    guard.leak()
    assert fastsync.owner(mutex) == (me if kind == "ReentrantMutex" else None)
    mutex.force_unlock()
    assert fastsync.owner(mutex) is None


def test_what_is_no_lock_of_ours_is_refused():
    for function in (fastsync.waiters, fastsync.owner, fastsync.reset_after_fork):
        for thing in (None, 1, object(), lambda: None):
            with pytest.raises(TypeError, match=r"NoneType|int|object|function"):
                function(thing)
    for lock in (ours.Lock(), ours.Event(), ours.Condition(ours.Lock()), fastsync.RwLock()):
        with pytest.raises(TypeError):
            fastsync.owner(lock)


# -- fork ----------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_all_is_whole_again_after_a_fork(run_python):
    """Another thread holds, or is in the middle of, everything when the process forks."""
    code = """
    import threading, time, warnings
    import fastsync, fastsync.threading as t
    warnings.simplefilter("ignore")

    class SubSemaphore(t.BoundedSemaphore):
        pass

    lock, rlock, condition = t.Lock(), t.RLock(), t.Condition()
    semaphore, bounded, derived = t.Semaphore(1), t.BoundedSemaphore(2), SubSemaphore(1)
    barrier, event = t.Barrier(2), t.Event()
    mutex, fair = fastsync.Mutex(1), fastsync.FairMutex(2)
    reentrant = fastsync.ReentrantMutex(3)
    rwlock, sharded = fastsync.RwLock(4), fastsync.ShardedLock(5)
    once, onces = fastsync.Once(), fastsync.OnceLock()
    held, end = threading.Event(), threading.Event()

    @fastsync.once
    def decorated():
        return 6

    class Thing:
        runs = 0

        @fastsync.lazy_property
        def lazy(self):
            Thing.runs += 1
            if Thing.runs == 1:
                running.release()
                end.wait()
            return 7

    thing = Thing()
    running = threading.Semaphore(0)

    def hold():
        for one in (lock, rlock, condition, semaphore, bounded, bounded, derived):
            one.acquire()
        guards = [mutex.lock(), fair.lock(), reentrant.lock(), rwlock.write(), sharded.write()]
        held.set()
        end.wait()

    def run(call):
        def slow():
            running.release()
            end.wait()
        return threading.Thread(target=call, args=(slow,), daemon=True)

    threads = [
        threading.Thread(target=hold, daemon=True),
        threading.Thread(target=barrier.wait, daemon=True),
        threading.Thread(target=lambda: thing.lazy, daemon=True),
        run(once.call_once),
        run(onces.get_or_init),
    ]
    for thread in threads:
        thread.start()
    held.wait()
    for _ in range(3):
        running.acquire()
    while barrier.n_waiting != 1:
        time.sleep(0.001)

    everything = [lock, rlock, condition, semaphore, bounded, derived, barrier, event, mutex, fair,
                  reentrant, rwlock, sharded, once, onces, decorated, Thing.lazy]
    def look():
        fastsync.reset_after_fork(*everything)
        for one in (lock, rlock, condition, semaphore, bounded, bounded, derived):
            assert one.acquire(timeout=0), one
        assert not semaphore.acquire(timeout=0) and not bounded.acquire(timeout=0)
        assert barrier.n_waiting == 0 and not barrier.broken
        other = threading.Thread(target=barrier.wait)
        other.start()
        barrier.wait(60)
        other.join()
        for one, way, value in [(mutex, "lock", 1), (fair, "lock", 2), (reentrant, "lock", 3),
                                (rwlock, "write", 4), (sharded, "write", 5)]:
            with getattr(one, way)() as guard:
                assert guard.value == value
        once.call_once(lambda: None)
        assert once.is_completed() and onces.get_or_init(lambda: 8) == 8
        assert decorated() == 6 and thing.lazy == 7

    code = in_child(look)
    end.set()
    os._exit(code)
    """
    run_python("-c", IN_CHILD + textwrap.dedent(code))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_hold_of_the_thread_that_forked_goes_on():
    mutex = fastsync.Mutex([])
    with mutex as guard:
        fastsync.reset_after_fork(mutex)
        assert mutex.is_locked()
        guard.value.append(1)
    assert not mutex.is_locked()


# -- pickling ------------------------------------------------------------------

KINDS = ["Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier"]


@fastsync.unpickled_fresh
class Account:
    def __init__(self, module):
        self.balance = 5
        self.lock = module.Lock()
        self.again = self.lock
        self.condition = module.Condition(self.lock)
        self.rlock = module.RLock()
        self.semaphore = module.Semaphore(3)
        self.bounded = module.BoundedSemaphore(2)
        self.event = module.Event()
        self.barrier = module.Barrier(2, timeout=4)


@fastsync.unpickled_fresh
class Slotted:
    __slots__ = ("lock", "value")

    def __init__(self, lock, value):
        self.lock = lock
        self.value = value


class Derived(Account):
    pass


@pytest.mark.parametrize("module", [threading, ours])
@pytest.mark.parametrize("make", [Account, Derived])
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_locks_arrive_fresh(module, make, protocol):
    old = make(module)
    old.lock.acquire()
    old.rlock.acquire()
    old.bounded.acquire()
    old.event.set()
    for new in (pickle.loads(pickle.dumps(old, protocol)), copy.deepcopy(old)):
        assert type(new) is make
        assert new.balance == 5
        assert new.lock is new.again is new.condition._lock is not old.lock
        assert new.lock.acquire(blocking=False)
        new.lock.release()
        with new.condition, new.rlock:
            new.condition.notify_all()
        assert new.semaphore._value == 3
        assert new.bounded._value == 2
        assert new.event.is_set()
        assert new.barrier.parties == 2
        assert new.barrier._timeout == 4
        assert new.__dict__.keys() == old.__dict__.keys()
    assert copy.copy(old).lock is old.lock
    assert copy.copy(old).__dict__ == old.__dict__


def test_locks_in_slots_arrive_fresh():
    old = Slotted(ours.Lock(), 4)
    new = pickle.loads(pickle.dumps(old))
    assert new.value == 4
    assert not new.lock.locked()
    assert copy.copy(old).lock is old.lock


def test_other_classes_are_pickled_as_ever():
    with pytest.raises(TypeError, match="cannot pickle"):
        pickle.dumps(ours.Lock())

    @fastsync.unpickled_fresh
    class Local:
        def __reduce__(self):
            return int, (3,)

    assert pickle.loads(pickle.dumps(Local())) == 3
