"""Forks with every lock contended."""

import contextlib
import os
import threading

import fastsync as fs
import fastsync.threading as drop_in
from storms.atomics import ArrayCell
from storms.crowd import in_child, storm
from storms.guards import take, ways
from storms.signals import SHARED, one_of_each, verbs


@storm
def forks(crowd):
    """Fork with every lock contended; the child uses them after reinitializing, and new ones."""
    if not hasattr(os, "fork"):
        return 0
    locks = [
        drop_in.Lock(),
        drop_in.RLock(),
        drop_in.Condition(),
        drop_in.Condition(drop_in.Lock()),
    ]
    event, barrier = drop_in.Event(), drop_in.Barrier(2)

    def work(chance):
        while crowd.going():
            with chance.choice(locks):
                pass
            with locks[2]:
                locks[2].notify()
                locks[2].wait(chance.choice((1e-5, 1e-3)))
            with contextlib.suppress(threading.BrokenBarrierError):
                barrier.wait(1e-4)
            barrier.reset()
            event.wait(1e-5)
            event.set()
            event.clear()

    crowd.start(work, 4)

    def child():
        for thing in locks:
            thing._at_fork_reinit()
            with thing:
                pass
        with locks[2]:
            locks[2].notify_all()
            assert locks[2].wait(1e-5) is False
        event.set()
        assert event.wait(1)
        barrier.reset()
        fresh = drop_in.Lock()
        fresh.acquire()
        thread = threading.Thread(target=fresh.release)
        thread.start()
        assert fresh.acquire(timeout=20)
        thread.join()

    count = 0
    while crowd.going():
        in_child(child)
        count += 1
    crowd.join()
    return count


def use_inherited(locks, condvar, atomics):
    """What a child may do with what threads of its parent used; what they held stays held."""
    for lock in locks:
        attempt = ways(lock, verbs(lock)[-1])[1]
        guard = attempt()
        if guard is None:
            if isinstance(lock, fs.ReentrantMutex):
                continue  # for ever
            free = lock._at_fork_reinit if isinstance(lock, SHARED) else lock.force_unlock
            free()
            guard = attempt()
        guard.unlock()
        attempt().unlock()
    assert condvar.notify_one() is False and condvar.notify_all() == 0, "a waiter came along"
    with fs.Mutex() as guard:
        assert condvar.wait_for(guard, 1e-5) is True
    for atomic in atomics:
        atomic.store(1)
        atomic.notify_all()
        assert atomic.wait(2, 0) and not atomic.wait(1, 1e-5) and atomic.swap(2) == 1


def use_fresh():
    """One of everything, between the child's first thread and a second one."""
    locks, condvar, parker, group = one_of_each(), fs.Condvar(), fs.Parker(), fs.WaitGroup()
    once, cell, lazy, seen = fs.Once(), fs.OnceLock(), fs.LazyLock(int), fs.AtomicRef(None)
    number, drops, counter = fs.AtomicI64(), [], fs.Counter()
    unparker, handle = parker.unparker(), group.clone()
    arc = fs.Arc("treasure", drops.append)

    def other():
        for lock in locks:
            for verb in verbs(lock):
                ways(lock, verb)[0]().unlock()
        with locks[0] as guard:
            guard.value = 1
            condvar.notify_all()
        once.call_once(lambda: cell.set(lazy.force()))
        counter.increment()
        number.store(1)
        number.notify_all()
        with arc.clone() as mine:
            seen.store(mine.value)
        unparker.unpark()
        handle.done()

    thread = threading.Thread(target=other)
    with locks[0] as guard:
        thread.start()
        assert condvar.wait_while_for(guard, lambda value: not value, 20) is False
    assert number.wait(0, 20) and parker.park_timeout(20)
    group.wait()
    thread.join(20)
    assert not thread.is_alive() and once.is_completed() and cell.get() == 0
    assert seen.load() == "treasure" and counter.value() == 1
    arc.drop()
    assert drops == ["treasure"]


@storm
def native_forks(crowd):
    """Fork with all of it contended: the child uses what it may of that, and new ones."""
    if not hasattr(os, "fork"):
        return 0
    locks, condvar, parker = one_of_each(), fs.Condvar(), fs.Parker()
    array = ArrayCell(fs.AtomicArray("int64", 1), 0)
    atomics = [fs.AtomicI64(0), fs.AtomicF64(0), fs.AtomicRef(0), fs.AtomicCell(0), array]
    unparker, counter, arc = parker.unparker(), fs.Counter(), fs.Arc("treasure")
    shared = fs.AtomicRef(fs.Once())

    def work(chance):
        while crowd.going():
            lock = chance.choice(locks)
            guard = take(ways(lock, chance.choice(verbs(lock))), chance)
            if guard is not None:
                guard.unlock()
            with locks[0] as guard:
                condvar.notify_one()
                condvar.wait_for(guard, chance.choice((1e-5, 1e-3)))
            atomic = chance.choice(atomics)
            atomic.wait(atomic.load(), 1e-5)
            atomic.store(chance.randrange(2))
            atomic.notify_all()
            shared.load().call_once(int)
            shared.store(fs.Once())
            unparker.unpark()
            counter.increment()
            arc.clone().drop()

    def park(_):
        while crowd.going():
            parker.park_timeout(1e-3)

    def child():
        use_inherited(locks, condvar, atomics)
        counter.increment()
        assert counter.value() and arc.clone().value == "treasure"
        unparker.unpark()
        assert parker.park_timeout(20)
        once = shared.load()
        if once.state() is not fs.OnceState.InProgress:
            once.call_once(int)
        use_fresh()

    crowd.start(work, 4)
    crowd.start(park)
    count = 0
    while crowd.going():
        in_child(child)
        count += 1
    crowd.join()
    for lock in locks:
        assert not lock.is_locked(), "a lock was left locked"
    return count
