"""Use every public type of an installed fastsync once: what is run on a wheel."""

import sys
import sysconfig
import threading
from pathlib import Path

import fastsync
import fastsync.channel
import fastsync.deadlock
import fastsync.profile
import fastsync.queue
import fastsync.threading as drop_in

FREE = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def in_threads(function, count=4):
    """Run `function` in some threads at once and wait for them."""
    threads = [threading.Thread(target=function) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def drop_ins():
    total = 0
    for lock in (drop_in.Lock(), drop_in.RLock(), drop_in.Semaphore(), drop_in.BoundedSemaphore()):

        def add(lock=lock):
            nonlocal total
            for _ in range(100):
                with lock:
                    total += 1

        in_threads(add)
    assert total == 1600
    event, condition, barrier = drop_in.Event(), drop_in.Condition(), drop_in.Barrier(2)
    in_threads(barrier.wait, 2)
    event.set()
    assert event.wait(1)
    with condition:
        assert condition.wait_for(lambda: True, 1)
        condition.notify_all()


def owners():
    mutex = fastsync.Mutex(0)

    def add():
        for _ in range(100):
            with mutex as guard:
                guard.value += 1

    in_threads(add)
    assert mutex.into_inner() == 400
    for kind in (fastsync.FairMutex, fastsync.ReentrantMutex):
        with kind([1]) as guard:
            assert guard.value == [1]
    for kind in (fastsync.RwLock, fastsync.ShardedLock):
        lock = kind({"a": 1})
        with lock.read() as guard:
            assert guard.value == {"a": 1}
        with lock.write() as guard:
            guard.value = {"b": 2}
    mutex, condvar = fastsync.Mutex(0), fastsync.Condvar()
    with mutex as guard:
        condvar.wait_for(guard, 0.001)
        condvar.notify_all()


def once():
    calls = []
    cell, lazy = fastsync.OnceLock(), fastsync.LazyLock(lambda: calls.append(1) or 7)
    cell.set(5)
    assert cell.get() == 5 and lazy.force() == 7 and calls == [1]
    fastsync.Once().call_once(lambda: calls.append(2))
    assert calls == [1, 2]


def atomics():
    number, array = fastsync.AtomicI64(0), fastsync.AtomicArray("int64", 4)
    in_threads(lambda: [number.fetch_add(1) for _ in range(100)])
    assert number.load() == 400
    array.fill(3)
    assert list(array) == [3, 3, 3, 3]
    reference = fastsync.AtomicRef("a")
    assert reference.swap("b") == "a" and reference.load() == "b"
    cell = fastsync.AtomicCell(1)
    assert cell.swap(2) == 1
    arc = fastsync.Arc("value")
    weak = arc.downgrade()
    assert weak.upgrade() is not None
    fastsync.fence()


def queues():
    for _ in range(100):  # enough to free a type whose references are miscounted
        for kind in (fastsync.queue.Queue, fastsync.queue.LifoQueue, fastsync.queue.PriorityQueue,
                     fastsync.queue.SimpleQueue):  # fmt: skip
            queue = kind()
            queue.put(1)
            assert queue.get() == 1
        sender, receiver = fastsync.channel.bounded(1)
        sender.send(2)
        assert fastsync.channel.select(receiver) == (0, 2)
    fastsync.deadlock.enable()
    fastsync.deadlock.disable()


def the_rest():
    counter, parker = fastsync.Counter(), fastsync.Parker()
    in_threads(lambda: counter.add(1))
    assert counter.value() == 4
    parker.unparker().unpark()
    parker.park()
    with fastsync.holding(drop_in.Lock(), 1):
        pass


def for_compilers():
    include = Path(fastsync.get_include())
    assert (include / "fastsync" / "fastsync.h").exists()
    assert list(Path(fastsync.__file__).parent.rglob("*.pxd"))


def main():
    for part in (drop_ins, owners, once, atomics, queues, the_rest, for_compilers):
        part()
    if FREE:
        assert not sys._is_gil_enabled(), "importing fastsync turned the GIL on"
    print(f"fastsync {fastsync.__version__} on {sys.version.split()[0]}{'t' * FREE}: ok")


if __name__ == "__main__":
    main()
