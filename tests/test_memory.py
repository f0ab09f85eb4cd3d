"""Sizes, and levels that must stay: references, blocks, file descriptors, threads."""

# ruff: noqa: B023
import gc
import os
import sys
import threading

import natives
import pytest
from conftest import run_threads

import fastsync.threading as fs
from fastsync.parking import parked_total

FREE_THREADED = "free-threading" in sys.version

SIZES = {"Lock": 40, "RLock": 56, "Condition": 120, "Semaphore": 72, "BoundedSemaphore": 80}
SIZES |= {"Event": 72, "Barrier": 104}


@pytest.mark.parametrize("name", SIZES)
def test_object_is_small(name):
    # The header is 16 bytes larger without the GIL, and so is the collector's with it.
    thing = getattr(fs, name)(2) if name == "Barrier" else getattr(fs, name)()
    assert sys.getsizeof(thing) <= SIZES[name] + 16


def exercise():
    """Every call that can be made, and every way that it can end."""
    lock, rlock, semaphore, event = fs.Lock(), fs.RLock(), fs.Semaphore(), fs.Event()
    conditions = fs.Condition(), fs.Condition(fs.Lock()), fs.Condition(threading.Lock())
    bounded, barrier = fs.BoundedSemaphore(), fs.Barrier(1, list)
    for thing in (lock, rlock, semaphore, bounded, *conditions):
        with thing:
            thing.acquire(False) and thing.release()
        try:
            with thing:
                raise KeyError
        except KeyError:
            pass
        thing.acquire(timeout=0.5)
        thing.release()
        repr(thing), hash(thing)
        for call in (
            lambda: thing.acquire(False, 1),
            lambda: thing.acquire(timeout="x"),
            lambda: thing.acquire(timeout=float("nan")),
            lambda: thing.acquire(1, 2, 3),
            lambda: thing(1),
            thing.__reduce__,
        ):
            try:
                call()
            except (ValueError, TypeError):
                pass
            else:
                thing.release()
    for unowned in (lock, rlock):
        try:
            unowned.release()
        except RuntimeError:
            pass
    for condition in conditions:
        condition._lock  # noqa: B018
        condition.attribute = condition._waiters
        try:
            condition.wait()
        except RuntimeError:
            pass
        with condition:
            condition.wait(0)
            condition.wait_for(lambda: False, 0)
            condition.notify_all()
    lock.acquire()
    lock.acquire(timeout=0.00001)
    event.wait(0.00001), event.set(), event.wait(), event.clear(), event._cond
    semaphore.acquire(), semaphore.acquire(timeout=0.00001), semaphore.release(2)
    try:
        bounded.release()
    except ValueError:
        pass
    barrier.wait(), barrier.abort(), repr(barrier)
    try:
        barrier.wait()
    except threading.BrokenBarrierError:
        pass
    barrier.reset()


def settle():
    for _ in range(3):
        gc.collect()


def test_blocks_stay_level_over_every_operation():
    for _ in range(20):
        exercise()
    settle()
    before = sys.getallocatedblocks()
    for _ in range(200):
        exercise()
    settle()
    assert sys.getallocatedblocks() - before < 150


@pytest.mark.parametrize("name", natives.USES)
def test_blocks_stay_level_over_every_native_operation(name):
    it = natives.USES[name]

    def blocks():
        for _ in range(20):
            thing = it.make()
            it.use(thing)
            it.in_order(thing)
        del thing
        settle()
        return sys.getallocatedblocks()

    # The interpreter's free lists fill up in the first rounds; a leak, of 20 blocks or more,
    # shows in every round.
    levels = [blocks()]
    while len(levels) < 60:
        levels.append(blocks())
        if levels[-1] - levels[-2] < 10:
            return
    pytest.fail(f"they grow: {levels}")


def test_references_stay_level_over_every_native_operation():
    kinds = {type(it.make()) for it in natives.USES.values()}
    probes = [*kinds, natives.OLD, natives.NEW, None, RuntimeError, TypeError, ReferenceError]
    natives.use_all()
    settle()
    before = [sys.getrefcount(thing) for thing in probes]
    for _ in range(30):
        natives.use_all()
    settle()
    after = [sys.getrefcount(thing) for thing in probes]
    assert all(abs(a - b) < 15 for a, b in zip(after, before, strict=True))


def test_references_stay_level_with_one_native_object_used_again_and_again():
    for name in ("Mutex", "FairMutex", "ReentrantMutex", "RwLock", "ShardedLock", "Parker",
                 "WaitGroup", "AtomicI64", "AtomicF64", "AtomicBool", "AtomicRef", "AtomicCell",
                 "AtomicArray", "Counter", "Arc"):  # fmt: skip
        it = natives.USES[name]
        thing = it.make()
        it.use(thing)
        settle()
        before = sys.getrefcount(thing)
        for _ in range(20):
            it.use(thing)
        settle()
        assert sys.getrefcount(thing) - before < 5, name


def test_references_stay_level_over_every_operation():
    probes = [fs.Lock(), fs.RLock(), fs.Condition(), fs.Semaphore(), fs.Event(), fs.Barrier(1)]
    singletons = [probes, fs.Lock.acquire, threading.BrokenBarrierError]
    exercise()
    before = [sys.getrefcount(thing) for thing in (*probes, *singletons)]
    for _ in range(200):
        exercise()
        for thing in probes[:4]:
            with thing:
                pass
            thing.acquire()
            thing.release()
        probes[4].wait(0), probes[4].is_set()
        probes[5].wait()
    settle()
    after = [sys.getrefcount(thing) for thing in (*probes, *singletons)]
    assert all(abs(a - b) < 5 for a, b in zip(after, before, strict=True))


def test_exceptions_do_not_keep_the_lock():
    for make, call in (
        (fs.Lock, lambda x: x.release()),
        (fs.RLock, lambda x: x.release()),
        (fs.Condition, lambda x: x.wait()),
        (fs.Semaphore, lambda x: x.acquire(timeout="x")),
        (fs.Event, lambda x: x.wait("x")),
        (lambda: fs.Barrier(1), lambda x: x.wait("x")),
    ):
        thing = make()
        before = sys.getrefcount(thing)
        for _ in range(100):
            with pytest.raises((RuntimeError, TypeError)):
                call(thing)
        gc.collect()
        assert sys.getrefcount(thing) <= before + 1


def contended_round():
    lock, condition, event, semaphore = fs.Lock(), fs.Condition(), fs.Event(), fs.Semaphore(1)
    barrier = fs.Barrier(4)

    def work(i):
        for _ in range(5):
            with lock, semaphore:
                pass
            barrier.wait(20)
            with condition:
                condition.notify_all()
                condition.wait(0.0001)
        event.set() if i == 0 else event.wait(20)

    run_threads(work, count=4)


def test_nothing_grows_with_threads_that_come_and_go():
    for _ in range(3):
        contended_round()
    settle()
    before = sys.getallocatedblocks()
    count = threading.active_count()
    for _ in range(20):
        contended_round()
    settle()
    assert threading.active_count() == count
    assert sys.getallocatedblocks() - before < 1000


def native_round():
    """Threads that come, wait in every native type, are woken, and go."""
    waits = {name: make() for name, make in natives.WAITS.items()}
    threads = natives.start_waiters(waits)
    for wait in waits.values():
        wait.wake()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def test_nothing_grows_with_threads_that_come_and_go_over_native_types():
    for _ in range(3):
        native_round()
    settle()
    before = sys.getallocatedblocks()
    parked = parked_total()
    for _ in range(6):
        native_round()
    settle()
    assert parked_total() == parked
    assert sys.getallocatedblocks() - before < 1000


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc")
def test_no_file_descriptor_is_used():
    before = len(os.listdir("/proc/self/fd"))
    contended_round()
    native_round()
    settle()  # a mapping that a test shares has none either, once it is gone
    assert len(os.listdir("/proc/self/fd")) == before
