"""The main thread, whose signal handlers lock and raise."""

import contextlib
import queue as stock_queue
import random
import threading
import time
from functools import partial

import fastsync as fs
import fastsync.threading as drop_in
from storms.atomics import ArrayCell
from storms.crowd import PATIENCE, Alarm, Guarded, storm
from storms.guards import ways


@storm
def signals(crowd):
    """The main thread waits in every call under a 1 kHz timer whose handler locks, and raises."""
    if threading.current_thread() is not threading.main_thread():
        return 0
    lock, rlock, condition, event = (
        drop_in.Lock(),
        drop_in.RLock(),
        drop_in.Condition(),
        drop_in.Event(),
    )
    permits, guarded = drop_in.Semaphore(1), Guarded()
    chance = random.Random(crowd.random.random())

    def use_lock():
        if lock.acquire(timeout=0.0005):
            lock.release()

    def work(chance):
        while crowd.going():
            with lock:
                time.sleep(0.0002)
            with rlock:
                guarded.touch()
            with condition:
                condition.notify()
            event.set()
            event.clear()
            with permits:
                pass

    crowd.start(work, 3)
    rounds = 0
    try:
        with Alarm(use_lock, chance, crowd.end + PATIENCE) as alarm:
            while crowd.going():
                # Only calls after which it is known whether the lock is held may be interrupted.
                if rlock.acquire(timeout=0.01):
                    guarded.touch()
                    rlock.release()
                if permits.acquire(timeout=0.01):
                    permits.release()
                alarm.call(event.wait, 0.005)
                with condition:
                    alarm.call(condition.wait, 0.005)
                    assert condition._is_owned(), "interrupted without its lock"
                rounds += 1
    finally:
        crowd.join()
    assert alarm.handled, "the timer never fired"
    assert not lock.locked() and not rlock.locked() and permits._value == 1
    return rounds


SHARED = (fs.RwLock, fs.ShardedLock)
VERBS = ("lock", "read", "read_recursive", "upgradable_read", "write")


def one_of_each():
    """A lock of each kind that gives guards."""
    return [kind(0) for kind in (fs.Mutex, fs.FairMutex, fs.ReentrantMutex, *SHARED)]


def verbs(lock):
    """The ways to hold it."""
    return [verb for verb in VERBS if hasattr(lock, verb)]


def hold_interrupted(alarm, lock, chance):
    """Take the lock by each verb and give way in it; the handler may raise in any of that."""
    for verb in verbs(lock):
        now, _, within, _ = ways(lock, verb)
        guard = alarm.call(chance.choice((now, partial(within, 0.01))))
        if guard is None:
            continue
        with contextlib.suppress(RuntimeError):  # of a guard that was interrupted in its last call
            if verb == "upgradable_read":
                upgrade = chance.choice((guard.upgrade, partial(guard.try_upgrade_for, 0.01)))
                guard = alarm.call(upgrade) or guard
            if chance.random() < 0.5:
                alarm.call(guard.bump)
            guard.unlock()


def wait_interrupted(alarm, errand, condvar, mutex):
    """The waits for what another thread does, which gets it as an errand."""
    with mutex as guard:
        alarm.call(condvar.wait_for, guard, 0.005)
        guard.value += 1  # interrupted or not, it holds the mutex
    parker = fs.Parker()
    unpark = parker.unparker().unpark
    for park in (parker.park, partial(parker.park_timeout, 1)):
        errand(unpark)
        alarm.call(park)
    unpark()
    assert parker.park_timeout(PATIENCE), "a token was lost"
    group = fs.WaitGroup()
    errand(group.clone().done)
    alarm.call(group.wait)
    with contextlib.suppress(RuntimeError):  # it was interrupted after its end
        group.wait()
    assert "0 handles" in repr(group)


def begin_interrupted(alarm, errand):
    """Wait for what runs once, in another thread."""
    once, cell, lazy = fs.Once(), fs.OnceLock(), fs.LazyLock(partial(time.sleep, 0.002))
    errand(lambda: once.call_once(partial(time.sleep, 0.002)))
    alarm.call(once.wait)
    once.call_once(int)
    errand(lambda: cell.get_or_init(lambda: time.sleep(0.002) or 7))
    alarm.call(cell.wait)
    assert cell.get_or_init(lambda: 7) == cell.wait() == 7
    errand(lazy.force)
    assert lazy.force() is None  # not interrupted: that would poison it if it ran here
    assert once.is_completed()


def watch_interrupted(alarm, errand):
    """Wait for an atomic of each kind to change."""
    array = ArrayCell(fs.AtomicArray("int32", 1), 0)
    for atomic in fs.AtomicI64(0), fs.AtomicBool(0), fs.AtomicRef(0), fs.AtomicCell(0), array:

        def change(atomic=atomic):
            atomic.store(1)
            atomic.notify_all()

        errand(change)
        alarm.call(atomic.wait, 0, 1)
        assert atomic.wait(0, PATIENCE) and atomic.load() == 1, "a change was lost"


@storm
def native_signals(crowd):
    """As signals: the main thread waits in each call here, is interrupted, and holds no more."""
    if threading.current_thread() is not threading.main_thread():
        return 0
    locks, condvar = one_of_each(), fs.Condvar()
    chance = random.Random(crowd.random.random())
    inbox = stock_queue.SimpleQueue()

    def work(chance):
        while crowd.going():
            lock = chance.choice(locks)
            with getattr(lock, chance.choice(verbs(lock)))():
                time.sleep(0.0002)
            condvar.notify_one()

    def run_errands(_):
        while (errand := inbox.get()) is not None:
            time.sleep(0.001)  # so that it is waited for
            errand()

    def use_one():
        lock = chance.choice(locks)
        guard = ways(lock, chance.choice(verbs(lock)))[2](0.0005)
        if guard is not None:
            guard.unlock()

    crowd.start(work, 3)
    crowd.start(run_errands)
    rounds = 0
    try:
        with Alarm(use_one, chance, crowd.end + PATIENCE) as alarm:
            while crowd.going():
                for lock in locks:
                    hold_interrupted(alarm, lock, chance)
                wait_interrupted(alarm, inbox.put, condvar, locks[0])
                begin_interrupted(alarm, inbox.put)
                watch_interrupted(alarm, inbox.put)
                rounds += 1
    finally:
        inbox.put(None)
        crowd.join()
    assert alarm.handled and alarm.interrupted, "the timer never fired"
    assert locks[0].into_inner() == rounds
    for lock in locks:
        assert not lock.is_locked(), "a lock was left locked"
        ways(lock, verbs(lock)[-1])[1]().unlock()
    return rounds
