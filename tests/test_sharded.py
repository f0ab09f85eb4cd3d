"""ShardedLock: RwLock's reading and writing, spread over several words."""

import gc
import random
import threading
import time
import weakref

import pytest
from conftest import background, interrupted, wait_until

import fastsync.threading
from fastsync.objects._pin import is_pinned, pin
from fastsync.objects.readwrite import MappedReadGuard, MappedWriteGuard, ReadGuard
from fastsync.objects.rwlock import RwLock
from fastsync.objects.sharded import ShardedLock, ShardedWriteGuard
from fastsync.raw.parking import parked_total

READS = ["read", "read_recursive"]


def test_smoke(run_threads):
    lock = ShardedLock(1)
    for way in READS:
        with getattr(lock, way)() as guard:
            assert type(guard) is ReadGuard
            assert guard.value == 1
            assert guard.rwlock is lock
            assert lock.is_locked()
            assert not lock.is_locked_exclusive()
            with pytest.raises(AttributeError):
                guard.value = 2
            with pytest.raises(RuntimeError):
                lock.into_inner()
    with lock.write() as guard:
        assert type(guard) is ShardedWriteGuard
        assert lock.is_locked_exclusive()
        guard.value += 1
    assert lock.into_inner() == 2
    assert not lock.is_locked()
    for name in ("upgradable_read", "upgrade", "downgrade"):
        assert not hasattr(lock, name)
        assert not hasattr(lock.write(), name)


def test_what_may_be_held_beside_what(run_threads):
    """From every shard: ten threads try, more than there are shards, one after the other (an
    attempt to write keeps readers out for a moment)."""
    lock = ShardedLock(1)

    def attempts(read_possible):
        for way in (*READS, "write"):
            possible = read_possible and way != "write"
            for guard in (
                getattr(lock, f"try_{way}")(),
                getattr(lock, f"try_{way}_for")(0.001),
                getattr(lock, f"try_{way}_until")(time.monotonic() + 0.001),
                getattr(lock, f"try_{way}_for")(-1),
            ):
                assert (guard is not None) == possible
                if guard is not None:
                    guard.unlock()

    with lock.read():
        for _ in range(10):
            run_threads([lambda: attempts(True)])
    with lock.write():
        for _ in range(10):
            run_threads([lambda: attempts(False)])
    assert not lock.is_locked()
    lock.try_write().unlock()
    lock.try_write_for(10**400).unlock()
    with pytest.raises(ValueError):
        lock.try_write_for(float("nan"))


def test_a_failed_write_leaves_nothing_behind(run_threads):
    lock = ShardedLock(1)
    guard = run_threads([lock.read])[0]  # in some thread's shard
    for _ in range(3):
        assert lock.try_write() is None
        assert lock.try_write_for(0.002) is None
        run_threads(lambda i: lock.try_read().unlock(), count=10)
    guard.unlock()
    lock.try_write().unlock()
    assert not lock.is_locked()


def test_map_unlocked_and_bump():
    lock = ShardedLock({"a": 1})
    part = lock.write().map(lambda v: v["a"])
    assert type(part) is MappedWriteGuard
    part.value = 2
    part.unlock()
    part = lock.read().map(lambda v: v["a"])
    assert type(part) is MappedReadGuard
    assert part.value == 2
    part.unlock()
    for way in (*READS, "write"):
        with getattr(lock, way)() as guard:
            guard.bump()
            with guard.unlocked():
                assert not lock.is_locked()
            with guard.unlocked_fair():
                lock.try_write().unlock()
            assert lock.is_locked()
            guard.unlock_fair()
            with pytest.raises(RuntimeError):
                guard.value  # noqa: B018
        assert not lock.is_locked()


@pytest.mark.stress
def test_frob(run_threads):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    lock = ShardedLock([0, 0])

    def frob(i):
        source = random.Random(seed + i)
        written = 0
        for _ in range(1000):
            if source.random() < 0.1:
                with lock.write() as guard:
                    guard.value[0] += 1
                    guard.value[1] += 1
                written += 1
            else:
                with lock.reader:
                    with lock.read_recursive() as guard:
                        assert guard.value[0] == guard.value[1]
        return written

    total = sum(run_threads(frob, count=10))
    assert lock.into_inner() == [total, total]


def test_rw_arc(run_threads):
    lock = ShardedLock(0)

    def write():
        for _ in range(10):
            with lock.write() as guard:
                before = guard.value
                guard.value = -1
                time.sleep(0)
                guard.value = before + 1

    def read():
        with lock.read() as guard:
            assert guard.value >= 0

    run_threads([write, *[read] * 5])
    assert lock.into_inner() == 10


def test_guards_and_views_may_end_in_another_thread(run_threads):
    lock = ShardedLock(0)
    guards = run_threads(lambda i: lock.read(), count=10)
    run_threads(lambda i: lock.reader.acquire(), count=10)
    for guard in guards:
        assert lock.try_write() is None
        guard.unlock()
    for left in range(10, 0, -1):
        assert lock.reader.locked()
        assert lock.try_write() is None, left
        run_threads([lock.reader.release])
    assert not lock.is_locked()
    with pytest.raises(RuntimeError, match="release unlocked lock"):
        lock.reader.release()
    lock.writer.acquire()
    run_threads([lock.writer.release])
    with pytest.raises(RuntimeError, match="release unlocked lock"):
        lock.writer.release()
    lock.try_write().unlock()


def test_a_view_releases_on_the_shard_that_counts_it(run_threads):
    lock = ShardedLock(0)
    guard = run_threads([lock.read])[0]
    run_threads([lock.reader.acquire])
    lock.reader.release()
    assert lock.is_locked()
    with pytest.raises(RuntimeError, match="not held through this view"):
        lock.reader.release()
    guard.unlock()
    assert not lock.is_locked()


def test_views():
    lock = ShardedLock(0)
    for side in (lock.reader, lock.writer):
        assert side.acquire(timeout=1)
        assert side.locked()
        side.release()
        with side:
            assert side.locked()
        assert not side.locked()
    with lock.reader:
        assert lock.writer.acquire(False) is False
        assert lock.writer.acquire(timeout=0.001) is False
    with lock.writer:
        assert lock.reader.acquire(False) is False
    assert not lock.is_locked()


@pytest.mark.parametrize("module", [threading, fastsync.threading])
@pytest.mark.parametrize("side", ["reader", "writer"])
def test_views_work_in_a_condition(module, side, run_threads):
    lock = ShardedLock(1)
    condition = module.Condition(getattr(lock, side))
    ready = []

    def wait():
        with condition:
            assert condition.wait_for(lambda: ready, timeout=30)
            assert lock.is_locked()

    def notify():
        with condition:
            ready.append(1)
            condition.notify_all()

    run_threads([wait, wait, notify])
    assert not lock.is_locked()
    with pytest.raises(RuntimeError):
        condition.notify()


def test_ctrl_c_ends_a_wait_with_nothing_owned(run_threads):
    lock = ShardedLock(1)
    for held, way in (("write", "read"), ("write", "write"), ("read", "write")):
        guard = run_threads([getattr(lock, held)])[0]
        interrupted(getattr(lock, way))
        guard.unlock()
        assert not lock.is_locked()


def test_pin_reaches_the_views():
    lock = pin(ShardedLock(1))
    if is_pinned(lock):  # not before Python 3.12
        import sys

        count = sys.getrefcount(lock.reader)
        views = [lock.reader for _ in range(100)]
        assert sys.getrefcount(views[0]) == count
    with lock.reader, lock.read() as guard:
        assert guard.value == 1
    with lock.writer:
        assert lock.is_locked_exclusive()


@pytest.mark.parametrize("kind", [RwLock, ShardedLock])
@pytest.mark.parametrize("name", ["reader", "writer"])
def test_pinning_a_side_pins_the_lock(kind, name):
    lock = kind(1)
    side = pin(getattr(lock, name))
    if is_pinned(side):  # not before Python 3.12
        assert is_pinned(lock) and is_pinned(lock.reader) and is_pinned(lock.writer)
    with side:
        assert lock.is_locked()
    assert not lock.is_locked()


def test_collection():
    class Value:
        pass

    value = Value()
    lock = value.lock = ShardedLock(value)
    lock.reader.acquire()
    gone = weakref.ref(value)
    del value, lock
    gc.collect()
    assert gone() is None


SHARDS = 8


@pytest.mark.thread_unsafe(reason="counts all who are parked")
def test_a_writer_that_waits_for_any_shard_holds_nothing_yet(run_threads):
    lock = ShardedLock(0)
    for guard in [run_threads([lock.read])[0] for _ in range(2)]:  # of two shards
        guard.unlock()
    for _ in range(2):
        guard = run_threads([lock.read])[0]
        with background(lambda: lock.write().unlock()) as [writer]:
            wait_until(lambda: parked_total() == 1)
            assert not lock.is_locked_exclusive()
            assert not lock.writer.locked()
            with pytest.raises(RuntimeError, match="release unlocked lock"):
                lock.writer.release()
            assert writer.is_alive()
            guard.unlock()
        assert not lock.is_locked()


def test_bump_gives_way_to_a_reader_of_any_shard():
    lock = ShardedLock(0)
    guard = lock.write()
    for _ in range(SHARDS):
        with background(lambda: lock.read().unlock()) as [reader]:
            end = time.monotonic() + 20
            while reader.is_alive() and time.monotonic() < end:
                guard.bump()
            stuck = reader.is_alive()
            if stuck:
                guard.unlock()
        assert not stuck
    guard.unlock()
    assert not lock.is_locked()


@pytest.mark.thread_unsafe(reason="counts all who are parked")
def test_at_fork_reinit_lets_the_readers_of_all_shards_in():
    lock = ShardedLock(0)
    guard = lock.write()
    with background(*[lambda: lock.read().unlock()] * SHARDS):
        wait_until(lambda: parked_total() == SHARDS)
        lock._at_fork_reinit()
    assert not lock.is_locked()
    with pytest.raises(RuntimeError):
        guard.unlock()
