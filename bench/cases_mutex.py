"""Mutex, its guard, and Condvar beside `threading`'s Lock and Condition."""

import time
from collections import deque

from harness import Goal, call, op, threaded

LOCK = "from threading import Lock; x = Lock()"
BOX = LOCK + "; box = type('Box', (), {})(); box.v = 0"


def ours(kind, arguments=""):
    return f"from fastsync import {kind}; x = {kind}({arguments})"


# The functions get what they use as arguments: 3.13t takes a lock for each use of a variable of
# an enclosing function, and threads that share one wait for that.


def queue_of_threading(slots):
    """put(item) and get() of a bounded queue on threading.Condition."""
    import threading

    lock = threading.Lock()
    empty, full = threading.Condition(lock), threading.Condition(lock)
    items = deque()

    def put(item, empty=empty, full=full, items=items, slots=slots):
        with full:
            while len(items) == slots:
                full.wait()
            items.append(item)
            empty.notify()

    def get(empty=empty, full=full, items=items):
        with empty:
            while not items:
                empty.wait()
            item = items.popleft()
            full.notify()
            return item

    return put, get


def queue_of_fastsync(slots):
    """The same on Mutex and Condvar."""
    from fastsync import Condvar, Mutex

    mutex, empty, full = Mutex(deque()), Condvar(), Condvar()

    def put(item, mutex=mutex, empty=empty, full=full, slots=slots):
        with mutex as guard:
            items = guard.value
            while len(items) == slots:
                full.wait(guard)
            items.append(item)
            empty.notify_one()

    def get(mutex=mutex, empty=empty, full=full):
        with mutex as guard:
            items = guard.value
            while not items:
                empty.wait(guard)
            item = items.popleft()
            full.notify_one()
            return item

    return put, get


def messages(run, make, producers, consumers, slots):
    """Messages a second through one bounded queue."""
    import threading

    put, get = make(slots)
    counts = [0] * consumers

    def produce(put, end):
        while time.perf_counter() < end:
            put(1)

    def consume(index, get):
        count = 0
        while get() is not None:
            count += 1
        counts[index] = count

    end = time.perf_counter() + (0.02 if run.tiny else run.seconds)
    makers = [threading.Thread(target=produce, args=(put, end)) for _ in range(producers)]
    takers = [threading.Thread(target=consume, args=(i, get)) for i in range(consumers)]
    start = time.perf_counter()
    for thread in makers + takers:
        thread.start()
    for thread in makers:
        thread.join()
    for _ in takers:
        put(None)
    for thread in takers:
        thread.join()
    return sum(counts) / (time.perf_counter() - start)


def queue_case(producers, consumers, slots, goal):
    shape = (producers, consumers, slots)
    return call(
        f"condvar.queue.{producers}-{consumers}-{slots}",
        {
            "threading": (messages, queue_of_threading, *shape),
            "fastsync": (messages, queue_of_fastsync, *shape),
        },
        unit="/s",
        goals=[Goal(goal)],
        title=f"{producers} producers, {consumers} consumers, {slots} slots",
    )


CASES = [
    op(
        "mutex.with",
        {
            "threading": (LOCK, "with x: pass"),
            "fastsync": (ours("Mutex"), "with x: pass"),
            "fastsync FairMutex": (ours("FairMutex"), "with x: pass"),
            "fastsync ReentrantMutex": (ours("ReentrantMutex"), "with x: pass"),
        },
        goals=[Goal(0.70)],
        title="`with Mutex():`, a guard each time",
    ),
    op(
        "mutex.value",
        {
            "threading": (BOX, "with x: box.v += 1"),
            "fastsync": (ours("Mutex", "0"), "with x as g: g.value += 1"),
        },
        goals=[Goal(0.85)],
        title="`with m as g: g.value += 1` beside `with lock: box.v += 1`",
    ),
    op(
        "mutex.lock",
        {
            "threading": (LOCK, "x.acquire(); x.release()"),
            "fastsync": (ours("Mutex"), "x.lock().unlock()"),
        },
        title="`lock()`, `unlock()`",
    ),
    op(
        "mutex.traced",
        {
            "threading": (LOCK, "with x: pass"),
            "fastsync": (
                "from fastsync import deadlock; deadlock.enable(); " + ours("Mutex"),
                "with x: pass",
            ),
        },
        title="`with Mutex():` while the deadlock detector is on",
    ),
    threaded(
        "mutex.contended",
        {
            "threading": (BOX, "with x: box.v += 1"),
            "fastsync": (ours("Mutex", "0"), "with x as g: g.value += 1"),
            "fastsync FairMutex": (ours("FairMutex", "0"), "with x as g: g.value += 1"),
        },
        threads=(2, 4, 8),
        title="one Mutex, several threads",
    ),
    *[
        queue_case(
            producers, consumers, slots, 1.5 if (producers, consumers, slots) == (1, 1, 1) else 3
        )
        for producers, consumers in ((1, 1), (5, 5), (10, 10), (10, 1), (1, 10))
        for slots in (1, 100)
    ],
]
