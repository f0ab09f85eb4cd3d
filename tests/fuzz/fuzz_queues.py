#!/usr/bin/env python3
"""Use and misuse the queues from several threads, at random.

    python tests/fuzz/fuzz_queues.py [SECONDS] [SEED] [THREADS] [Queue|LifoQueue|PriorityQueue|...]

Threads put and get, one by one and many at once, with timeouts and without waiting, change the
size, shut down, initialize a queue that is in use, and put things whose comparison raises, or whose
finalizer uses the queue.

Checked: what is got was put, by the thread that it says, and comes once; of each thread in the
order in which it was put (the queues whose order it is); only the documented exceptions are raised.
At the end of each round: whatever was put was got or is still there, and every item is freed.
"""

import contextlib
import gc
import random
import sys
import threading
import time
from pathlib import Path

from fastsync import AtomicI64
from fastsync import queue as queues

sys.path.append(str(Path(__file__).resolve().parent))

import fuzzing
from fuzzing import Wrong

KINDS = ("Queue", "LifoQueue", "PriorityQueue", "SimpleQueue")
LENGTH = 0.7  # seconds of a round
MISUSE = (queues.Empty, queues.Full, queues.ShutDown, ValueError, TypeError, ZeroDivisionError)
alive = AtomicI64(0)
own = threading.local()


class Item:
    def __init__(self, shared, owner, number):
        alive.fetch_add(1)
        self.shared, self.owner, self.number, self.got = shared, owner, number, AtomicI64(0)

    def __lt__(self, other):
        if random.random() < self.shared.bad_order:
            raise ZeroDivisionError
        return (self.owner, self.number) < (other.owner, other.number)

    def __del__(self):
        alive.fetch_sub(1)
        shared = self.shared
        if getattr(own, "holds_mutex", False):
            return  # as of any Lock, what this thread holds it must not wait for
        if random.random() < 0.02 and shared.queue is not None:
            shared.queue.qsize()
            with contextlib.suppress(*MISUSE):
                shared.taken(shared.queue.get(False), None)


class Shared:
    """One queue, and what has become of the items."""

    def __init__(self, cls, rng):
        self.cls = cls
        simple = cls is queues.SimpleQueue
        self.queue = cls() if simple else cls(rng.choice([0, 0, 1, 5]))
        # Of an item whose comparison raises nobody knows whether it was put.
        self.bad_order = 0.05 if cls is queues.PriorityQueue and rng.random() < 0.3 else 0
        self.put_count, self.got_count = AtomicI64(0), AtomicI64(0)
        self.maybe = AtomicI64(0)
        self.numbers = {}
        self.uses = [self.put, self.put, self.get, self.get, self.get, self.put_many]
        self.uses += [self.get_many, self.look, self.wrong]
        if not simple:
            self.uses += [self.task_done, self.join]

    def new(self):
        me = threading.get_ident()
        number = self.numbers[me] = self.numbers.get(me, 0) + 1
        return Item(self, me, number)

    def taken(self, item, last):
        """`last` is the number that this thread got last of each one that puts, or None."""
        if type(item) is not Item or item.shared is not self:
            raise Wrong(f"the queue gave {item!r}")
        if item.got.fetch_add(1):
            raise Wrong("an item came twice")
        self.got_count.fetch_add(1)
        if last is not None and self.cls in (queues.Queue, queues.SimpleQueue):
            if last.get(item.owner, 0) >= item.number:
                raise Wrong("items of one thread came in another order")
            last[item.owner] = item.number

    def put(self, rng, last):
        item = self.new()
        timeout = rng.choice([None, 0, 1e-5, 1e-3])
        try:
            if timeout is None:
                self.queue.put_nowait(item)
            else:
                self.queue.put(item, True, timeout)
            self.put_count.fetch_add(1)
        except ZeroDivisionError:
            self.maybe.fetch_add(1)

    def put_many(self, rng, last):
        items = [self.new() for _ in range(rng.randrange(6))]
        if self.cls is queues.SimpleQueue:
            self.queue.put_many(iter(items))
            self.put_count.fetch_add(len(items))
        else:
            # How many were put is not told when the time is up.
            with contextlib.suppress(*MISUSE):
                self.queue.put_many(items, timeout=1e-4)
                self.put_count.fetch_add(len(items))
                return
            self.maybe.fetch_add(len(items))

    def get(self, rng, last):
        timeout = rng.choice([None, 0, 1e-5, 1e-3])
        self.taken(
            self.queue.get(False) if timeout is None else self.queue.get(True, timeout), last
        )

    def get_many(self, rng, last):
        for item in self.queue.get_many(rng.choice([1, 3, 1000]), timeout=rng.choice([0, 1e-4])):
            self.taken(item, last)

    def look(self, rng, last):
        queue = self.queue
        (queue.qsize(), queue.empty(), repr(queue), sys.getsizeof(queue))
        if self.cls is not queues.SimpleQueue:
            (queue.full(), queue.unfinished_tasks, queue.is_shutdown, queue.maxsize)
            if rng.random() < 0.1:
                queue.maxsize = rng.choice([0, 1, 5, 100])
            own.holds_mutex = True
            with queue.mutex:
                (len(queue.queue), queue.not_empty, queue.not_full)
            own.holds_mutex = False
        if rng.random() < 0.02:
            gc.collect()

    def wrong(self, rng, last):
        queue = self.queue
        calls = [
            lambda: queue.get(True, -1),
            lambda: queue.get(timeout="1"),
            lambda: queue.get_many(0),
            lambda: queue.get_many(-1),
            lambda: queue.put_many(5),
            lambda: queue.put_many(1 // 0 for _ in "x"),
            lambda: queue.put(),
            lambda: queue.__reduce__(),
        ]
        result = rng.choice(calls)()
        for item in result if isinstance(result, list) else []:
            self.taken(item, last)

    def task_done(self, rng, last):
        self.queue.task_done()

    def join(self, rng, last):
        if self.queue.unfinished_tasks == 0 and rng.random() < 0.01:
            self.queue.all_tasks_done.acquire(timeout=0.001) and self.queue.all_tasks_done.release()


def use_by_a_crowd(fuzz, kind):
    fuzz.end = min(fuzz.end, time.monotonic() + LENGTH)
    shared = Shared(getattr(queues, kind), fuzz.rng)

    def work(rng):
        last = {}
        while fuzz.going():
            with contextlib.suppress(*MISUSE):
                rng.choice(shared.uses)(rng, last)

    fuzz.join(fuzz.start(*[work] * fuzz.threads))
    shared.bad_order = 0
    if not fuzz.errors:
        drain(shared)
    shared.queue = None


def drain(shared):
    if shared.cls is not queues.SimpleQueue:
        with contextlib.suppress(queues.ShutDown):
            shared.queue.shutdown()
    last = None
    while True:
        try:
            shared.taken(shared.queue.get(False), last)
        except (queues.Empty, queues.ShutDown):
            break
    least, got = shared.put_count.load(), shared.got_count.load()
    if not least <= got <= least + shared.maybe.load():
        raise Wrong(f"{least} were put (perhaps {shared.maybe.load()} more), {got} were got")


def freed():
    gc.collect()
    return alive.load() == 0


def one_round(fuzz, kinds):
    use_by_a_crowd(fuzz, kinds[fuzz.seed % len(kinds)])
    if not fuzz.errors:
        fuzzing.wait_until(freed, f"{alive.load()} items were not freed")


if __name__ == "__main__":
    sys.exit(fuzzing.run(KINDS, one_round))
