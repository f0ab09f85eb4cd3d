#!/usr/bin/env python3
"""What must stay level does: bytes, blocks, references, file descriptors, parked threads.

    python tools/levels.py [--operations N] [--threads N] [NAME ...]

Every kind of operation is done N times, then N threads are started and ended that wait on shared
locks. The first tenth of each run may grow: caches fill. After it nothing may.
"""

import argparse
import gc
import itertools
import os
import sys
import threading

import fastsync
import fastsync.queue as queues
import fastsync.threading as fs
from fastsync.channel import after, bounded, never, select, unbounded
from fastsync.raw.parking import parked_total

PAGE = os.sysconf("SC_PAGESIZE")
# What the interpreter itself may take in the meantime: some arenas, not a byte an operation.
SLACK = {"bytes": 3 << 20, "blocks": 400, "references": 4, "descriptors": 0, "parked": 0}

NUMBERS = [
    n for n in fastsync.__all__ if n.startswith(("AtomicI", "AtomicU", "AtomicF", "AtomicB"))
]
# What the lines call.
CALLED = {
    "get_a": lambda value: value["a"],
    "no_value": lambda value: None,
    "list_of": lambda value: [value],
    "fail": lambda value: 1 // 0,
}

# name: what is made once as `x`, and the lines that are repeated.
KINDS = {
    "Lock": (
        fs.Lock,
        ["with x: pass", "x.acquire(); x.release()", "x.acquire(timeout=1); x.release()"],
    ),
    "Lock refused": (fs.Lock, ["x.acquire(); x.acquire(False); x.acquire(True, 0); x.release()"]),
    "RLock": (fs.RLock, ["with x, x: pass", "x.acquire(False); x.release()"]),
    "Condition": (fs.Condition, ["with x: x.notify_all()", "with x: x.wait(0)"]),
    "Semaphore": (
        fs.Semaphore,
        ["with x: pass", "x.acquire(); x.release()", "x.release(2); x.acquire()", "x.acquire()"],
    ),
    "Event": (fs.Event, ["x.set(); x.wait(); x.is_set(); x.clear(); x.wait(0)"]),
    "Barrier": (lambda: fs.Barrier(1), ["x.wait(); x.reset()"]),
    "new": (
        list,
        ["fs.Lock(); fs.RLock(); fs.Condition(); fs.Semaphore(); fs.Event(); fs.Barrier(2)"],
    ),
    "errors": (
        fs.Lock,
        [
            "try: x.release()",
            "except RuntimeError: pass",
            "try: x.acquire(timeout='')",
            "except TypeError: pass",
        ],
    ),
    "Queue": (
        queues.Queue,
        [
            "x.put(1); x.get(); x.task_done()",
            "x.put_many(range(70)); x.get_many(70)",
            "try: x.get_nowait()",
            "except queues.Empty: pass",
        ],
    ),
    "PriorityQueue": (
        queues.PriorityQueue,
        ["x.put((1, [])); x.put((0, {})); x.get(); x.get()", "x.put(2.5); x.get()"],
    ),
    "SimpleQueue": (queues.SimpleQueue, ["x.put([]); x.get()", "x.put(1); x.get_many(3)"]),
    "channel": (
        lambda: bounded(2),
        [
            "x[0].send([]); x[1].recv()",
            "x[0].clone().close(); x[1].clone()",
            "try: x[1].recv_timeout(0)",
            "except TimeoutError: pass",
            "t, r = unbounded(); t.send(t); r.close()",
        ],
    ),
    "select": (
        lambda: (*bounded(2), queues.Queue(), fs.Event(), fs.Semaphore(1)),
        [
            "select((x[0], [])); select(x[1], x[2])",
            "select(x[1], x[2], x[3], timeout=0)",
            "select(x[1], x[2], x[3], never(), (x[0], [])); x[1].recv()",
            "select(x[1], x[2], x[3], after(0)); select(x[1], x[4]); x[4].release()",
            "select(x[1], x[2], timeout=1e-6)",
        ],
    ),
    "Mutex": (
        lambda: fastsync.Mutex([]),
        ["with x as g: g.value", "g = x.lock(); g.unlock()", "x.try_lock().unlock()"],
    ),
    "Mutex refused": (
        lambda: fastsync.Mutex([]),
        ["with x: x.try_lock(); x.try_lock_for(0)"],
    ),
    "FairMutex": (
        lambda: fastsync.FairMutex([]),
        ["with x as g: g.value = g.value", "x.lock().unlock_fair()", "x.try_lock_for(1).unlock()"],
    ),
    "ReentrantMutex": (
        lambda: fastsync.ReentrantMutex(0),
        ["with x, x as g: g.value", "x.lock().unlock()"],
    ),
    "guards": (
        lambda: fastsync.Mutex({"a": 1}),
        [
            "g = x.lock().map(get_a); g.value = 2; g.unlock()",
            "with x.lock() as g:",
            "    with g.unlocked(): pass",
            "    g.bump()",
            "x.lock()",
            "x.lock().leak(); x.force_unlock()",
        ],
    ),
    "Condvar": (
        lambda: (fastsync.Mutex(0), fastsync.Condvar()),
        ["with x[0] as g: x[1].wait_for(g, 0)", "x[1].notify_one(); x[1].notify_all()"],
    ),
    "RwLock": (
        lambda: fastsync.RwLock(0),
        [
            "with x.reader: pass",
            "with x.writer: pass",
            "with x.read() as g: g.value",
            "with x.write() as g: g.value = 1",
        ],
    ),
    "RwLock upgrades": (
        lambda: fastsync.RwLock({"a": 1}),
        [
            "x.upgradable_read().upgrade().downgrade().unlock()",
            "with x.read_recursive(): x.try_write(); x.upgradable_read().try_upgrade()",
            "x.read().map(get_a).unlock(); x.write().map(get_a).unlock_fair()",
        ],
    ),
    "ShardedLock": (
        lambda: fastsync.ShardedLock(0),
        [
            "with x.reader: pass",
            "with x.read() as g: g.value",
            "with x.write() as g: g.value = 1",
        ],
    ),
    "Once": (
        list,
        [
            "o = fastsync.Once(); o.call_once(int); o.call_once(int); o.wait(); o.state()",
            "o = fastsync.OnceLock(); o.get_or_init(list); o.get(); o.take(); o.set(1)",
            "fastsync.LazyLock(list).force()",
            "fastsync.once(list)()",
        ],
    ),
    "Parker": (
        fastsync.Parker,
        ["u = x.unparker(); u.clone().unpark(); x.park()", "x.park_timeout(0)"],
    ),
    "WaitGroup": (
        fastsync.WaitGroup,
        ["x.clone().done(); x.clone()", "g = fastsync.WaitGroup(); g.clone().done(); g.wait()"],
    ),
    "integers": (
        lambda: fastsync.AtomicI64(0),
        [
            "x += 1",
            "x.fetch_add(2); x.load(); x.compare_exchange(5, 6); x.store(2 ** 40); x.swap(3)",
            "x.fetch_update(no_value); x.update(int); x.wait(0, 0); x.notify_all()",
        ],
    ),
    "all numbers": (
        lambda: [getattr(fastsync, name)(1) for name in NUMBERS],
        ["for a in x: a.store(1); a.swap(a.load()); a.compare_exchange(1, 0)"],
    ),
    "AtomicRef": (
        lambda: fastsync.AtomicRef(None),
        [
            "x.store([]); x.load(); x.swap({}); x.compare_and_set(None, 1)",
            "x.wait(None, 0); x.update(list_of); x.notify_all()",
        ],
    ),
    "AtomicCell": (
        lambda: fastsync.AtomicCell(None),
        [
            "x.store([1]); x.load(); x.swap((2,)); x.compare_exchange((2,), [3]); x.take()",
            "x.store(3); x.fetch_update(list_of); x.wait(None, 0)",
        ],
    ),
    "Arc": (
        lambda: fastsync.Arc([]),
        [
            "c = x.clone(); w = c.downgrade(); w.upgrade().drop(); w.clone(); w.drop(); c.drop()",
            "fastsync.Arc([]).into_inner(); fastsync.Arc([], on_drop=list_of)",
        ],
    ),
    "AtomicArray": (
        lambda: fastsync.AtomicArray("int64", 8),
        ["x.fetch_add(1, 2); x.load(1); x.store(1, 7); x.load_all(); x.add_at([1, 2], 1)"],
    ),
    "Counter": (fastsync.Counter, ["x.add(1); x.value()", "fastsync.Counter().add(1)"]),
    "native errors": (
        lambda: (fastsync.Mutex(0), fastsync.AtomicI64(0)),
        [
            "try: x[0].try_lock_for('')",
            "except TypeError: pass",
            "try: x[0].force_unlock()",
            "except RuntimeError: pass",
            "try: x[1].update(fail)",
            "except ZeroDivisionError: pass",
        ],
    ),
}


def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * PAGE


def levels(thing):
    """What must not grow, now that all garbage is gone."""
    for _ in range(3):
        gc.collect()
    return {
        "bytes": resident(),
        "blocks": sys.getallocatedblocks(),
        "references": sys.getrefcount(thing),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "parked": parked_total(),
    }


def repeat(lines, x, count):
    body = "\n".join("        " + line for line in lines)
    names = {"fs": fs, "fastsync": fastsync, "repeat": itertools.repeat, **CALLED}
    names |= {"queues": queues, "select": select, "never": never, "after": after}
    names["unbounded"] = unbounded
    exec(f"def run(x, n):\n    for _ in repeat(None, n):\n{body}", names)
    names["run"](x, count)


def compare(name, count, before, after):
    grown = {key: after[key] - before[key] for key in before}
    bad = [f"{key} grew by {grown[key]}" for key in grown if grown[key] > SLACK[key]]
    print(f"{name}: {count:,} times, {'; '.join(bad) or 'level'}", flush=True)
    return bool(bad)


def operations(name, count):
    make, lines = KINDS[name]
    x = make()
    repeat(lines, x, count // 10)
    before = levels(x)
    repeat(lines, x, count)
    return compare(name, count, before, levels(x))


def wave(locks, size):
    """Threads that meet on every lock, and end."""
    lock, rlock, condition, semaphore, event, mutex, rwlock, sharded, ref, counter = locks

    def work(i):
        with lock, rlock, semaphore, mutex, rwlock.reader, sharded.reader:
            ref.load(), ref.store([])
            counter.increment()
        with condition:
            condition.notify_all()
            condition.wait(0.0005)
        event.set() if i == 0 else event.wait(10)

    event.clear()
    threads = [threading.Thread(target=work, args=(i,)) for i in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def threads(count, size=50):
    locks = (
        *(fs.Lock(), fs.RLock(), fs.Condition(), fs.Semaphore(2), fs.Event()),
        *(fastsync.Mutex(), fastsync.RwLock(), fastsync.ShardedLock()),
        *(fastsync.AtomicRef(None), fastsync.Counter()),
    )
    for _ in range(count // size // 10 + 1):
        wave(locks, size)
    before = levels(locks)
    for _ in range(count // size):
        wave(locks, size)
    return compare("threads", count, before, levels(locks))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join([*KINDS, "threads"]))
    parser.add_argument("--operations", type=int, default=10_000_000)
    parser.add_argument("--threads", type=int, default=100_000)
    arguments = parser.parse_args()
    bad = 0
    for name in arguments.names or [*KINDS, "threads"]:
        if name == "threads":
            bad += threads(arguments.threads)
        else:
            bad += operations(name, arguments.operations)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
