"""Atomics beside a lock and the peers: one thread, two pinned threads, bulk operations, bytes."""

import os
import threading
import time
from functools import partial

from harness import Goal, call, op, threaded

LOCKED = "from threading import Lock; l = Lock(); v = 0"
OURS = "from fastsync import AtomicI64; a = AtomicI64(0)"
PINNED = "from fastsync import AtomicI64, pin; a = pin(AtomicI64(0))"
CEREGGII = "from cereggii import AtomicInt64; a = AtomicInt64(0)"
FT_UTILS = "from ft_utils.concurrency import AtomicInt64; a = AtomicInt64(0)"
ATOMICX = "from atomicx import AtomicInt; a = AtomicInt(0)"
ATOMICSHM = "import atomicshm; a = atomicshm.AtomicView(bytearray(8)).cell_u64(0)"
OBJECT = "class Thing: pass\nx = Thing(); "

ORDERED = "from fastsync import AtomicI64, Ordering; a = AtomicI64(0); o = Ordering.{}"

ONE_THREAD = [
    op(
        "atomic.load",
        {
            "lock and x += 1": (LOCKED, "with l: v += 1"),
            "fastsync": (OURS, "a.load()"),
            "fastsync with an Ordering": (ORDERED.format("Acquire"), "a.load(o)"),
            "cereggii": (CEREGGII, "a.get()"),
            "ft_utils": (FT_UTILS, "a.get()"),
            "atomicx": (ATOMICX, "a.load()"),
            "atomicshm": (ATOMICSHM, "a.load()"),
        },
        baseline="lock and x += 1",
        goals=[Goal(0.35), Goal(1.10, of="cereggii"), Goal(1.10, of="atomicshm")],
        title="`AtomicI64.load()`",
    ),
    op(
        "atomic.store",
        {
            "lock and x += 1": (LOCKED, "with l: v += 1"),
            "fastsync": (OURS, "a.store(1)"),
            "cereggii": (CEREGGII, "a.set(1)"),
            "ft_utils": (FT_UTILS, "a.set(1)"),
            "atomicx": (ATOMICX, "a.store(1)"),
            "atomicshm": (ATOMICSHM, "a.store(1)"),
        },
        baseline="lock and x += 1",
        goals=[Goal(0.35), Goal(1.0, of="best peer")],
        title="`AtomicI64.store(1)`",
    ),
    op(
        "atomic.fetch_add",
        {
            "lock and x += 1": (LOCKED, "with l: v += 1"),
            "fastsync": (OURS, "a.fetch_add(1)"),
            "fastsync with an Ordering": (ORDERED.format("Relaxed"), "a.fetch_add(1, o)"),
            "atomicx": (ATOMICX, "a.add(1)"),
            "atomicshm": (ATOMICSHM, "a.fetch_add(1)"),
        },
        baseline="lock and x += 1",
        goals=[Goal(0.35), Goal(1.0, of="atomicshm")],
        title="`AtomicI64.fetch_add(1)`",
    ),
    op(
        "atomic.iadd",
        {
            "lock and x += 1": (LOCKED, "with l: v += 1"),
            "fastsync": (OURS, "a += 1"),
            "cereggii": (CEREGGII, "a += 1"),
            "ft_utils": (FT_UTILS, "a += 1"),
        },
        baseline="lock and x += 1",
        goals=[Goal(0.35), Goal(1.0, of="ft_utils")],
        title="`AtomicI64 += 1`",
    ),
    op(
        "atomic.compare_and_set",
        {
            "lock and x += 1": (LOCKED, "with l: v += 1"),
            "fastsync": (OURS, "a.compare_and_set(0, 0)"),
            "cereggii": (CEREGGII, "a.compare_and_set(0, 0)"),
            "atomicshm": (ATOMICSHM, "a.cas(0, 0)"),
        },
        baseline="lock and x += 1",
        goals=[Goal(0.35), Goal(0.55, of="cereggii")],
        title="`AtomicI64.compare_and_set(0, 0)`",
    ),
    op(
        "atomic.compare_exchange",
        {
            "lock and x += 1": (LOCKED, "with l: v += 1"),
            "fastsync": (OURS, "a.compare_exchange(0, 0)"),
            "atomicx": (ATOMICX, "a.compare_exchange(0, 0)"),
        },
        baseline="lock and x += 1",
        goals=[Goal(0.35)],
        title="`AtomicI64.compare_exchange(0, 0)`, which returns a pair",
    ),
    op(
        "atomic.float.fetch_add",
        {
            "lock and x += 1": (LOCKED, "with l: v += 1"),
            "fastsync": ("from fastsync import AtomicF64; a = AtomicF64(0)", "a.fetch_add(1.0)"),
            "atomicx": ("from atomicx import AtomicFloat; a = AtomicFloat(0)", "a.add(1.0)"),
        },
        baseline="lock and x += 1",
        goals=[Goal(0.35)],
        title="`AtomicF64.fetch_add(1.0)`",
    ),
    op(
        "atomic.ref.load",
        {
            "lock and x += 1": (LOCKED, "with l: v += 1"),
            "fastsync": (OBJECT + "from fastsync import AtomicRef; a = AtomicRef(x)", "a.load()"),
            "cereggii": (OBJECT + "from cereggii import AtomicRef; a = AtomicRef(x)", "a.get()"),
            "ft_utils": (
                OBJECT + "from ft_utils.concurrency import AtomicReference as R; a = R(x)",
                "a.get()",
            ),
        },
        baseline="lock and x += 1",
        goals=[Goal(0.35), Goal(1.10, of="cereggii")],
        title="`AtomicRef.load()`",
    ),
    op(
        "atomic.ref.store",
        {
            "lock and x += 1": (LOCKED, "with l: v += 1"),
            "fastsync": (OBJECT + "from fastsync import AtomicRef; a = AtomicRef(x)", "a.store(x)"),
            "cereggii": (OBJECT + "from cereggii import AtomicRef; a = AtomicRef(x)", "a.set(x)"),
            "ft_utils": (
                OBJECT + "from ft_utils.concurrency import AtomicReference as R; a = R(x)",
                "a.set(x)",
            ),
        },
        baseline="lock and x += 1",
        goals=[Goal(0.35)],
        title="`AtomicRef.store(x)`",
    ),
]

TWO_THREADS = [
    threaded(
        "atomic.pinned.load",
        {
            "unpinned": (OURS, "a.load()"),
            "fastsync": (PINNED, "a.load()"),
            "cereggii": (CEREGGII, "a.get()"),
            "atomicshm": (ATOMICSHM, "a.load()"),
        },
        threads=(2,),
        baseline="unpinned",
        goals=[Goal(2.0)],
        title="Threads loading one atomic, pinned and not",
    ),
    threaded(
        "atomic.pinned.fetch_add",
        {
            "unpinned": (OURS, "a.fetch_add(1)"),
            "fastsync": (PINNED, "a.fetch_add(1)"),
            "atomicshm": (ATOMICSHM, "a.fetch_add(1)"),
        },
        threads=(2,),
        baseline="unpinned",
        goals=[Goal(1.2)],
        title="Threads adding to one atomic, pinned and not",
    ),
    threaded(
        "atomic.contended.iadd",
        {
            "lock and x += 1": (
                "from threading import Lock\nclass Box: v = 0\nl = Lock(); b = Box()",
                "with l: b.v += 1",
            ),
            "fastsync": (OURS, "a += 1"),
            "cereggii": (CEREGGII, "a += 1"),
            "ft_utils": (FT_UTILS, "a += 1"),
        },
        baseline="lock and x += 1",
        title="Threads doing `+= 1` on one atomic",
    ),
    threaded(
        "atomic.ref.readers",
        {
            "cereggii": (OBJECT + "from cereggii import AtomicRef; a = AtomicRef(x)", "a.get()"),
            "fastsync": (OBJECT + "from fastsync import AtomicRef; a = AtomicRef(x)", "a.load()"),
            "fastsync, an immortal object": (
                "from fastsync import AtomicRef, pin; a = pin(AtomicRef(None))",
                "a.load()",
            ),
        },
        baseline="cereggii",
        title="Threads loading one AtomicRef",
    ),
]


def spread(run, work, threads):
    """Calls of work(index) a second, all threads together, each on a core of its own."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    gate = threading.Barrier(threads + 1)
    counts = [0] * threads

    def body(index):
        if cores:
            os.sched_setaffinity(0, {cores[index % len(cores)]})
        gate.wait()
        end = time.perf_counter() + run.seconds
        count = 0
        while time.perf_counter() < end:
            work(index)
            count += 1
        counts[index] = count

    crowd = [threading.Thread(target=body, args=(index,)) for index in range(threads)]
    for thread in crowd:
        thread.start()
    gate.wait()
    start = time.perf_counter()
    for thread in crowd:
        thread.join()
    return sum(counts) / (time.perf_counter() - start)


def counter(run, threads):
    from fastsync import Counter, pin

    shared = pin(Counter())

    def work(index, shared=shared):
        for _ in range(1000):
            shared.increment()

    return 1000 * spread(run, work, threads)


BINS = 1000
INDICES = 10_000_000


def bulk(run, who, threads, disjoint):
    """Indices a second of `threads` threads that add 1 to bins of one shared array."""
    import numpy

    count = (10_000 if run.tiny else INDICES) // 2
    rng = numpy.random.default_rng(1)
    wide = BINS // 2 if disjoint else BINS
    parts = [rng.integers(0, wide, count) + (i * wide if disjoint else 0) for i in range(threads)]
    if who == "numpy":
        bins, lock = numpy.zeros(BINS, numpy.int64), threading.Lock()

        def work(index):
            with lock:
                numpy.add.at(bins, parts[index], 1)
    else:
        from fastsync import AtomicArray

        work = partial(
            lambda array, index: array.add_at(parts[index], 1), AtomicArray("int64", BINS)
        )

    return count * spread(run, work, threads)


OTHERS = [
    call(
        "counter.scaling",
        {"one thread": (counter, 1), "fastsync": (counter, 2)},
        unit="/s",
        baseline="one thread",
        goals=[Goal(1.8)],
        title="Two threads on one pinned Counter beside one",
    ),
    call(
        "array.add_at",
        {
            "numpy.add.at, one lock": (bulk, "numpy", 2, False),
            "fastsync": (bulk, "fastsync", 2, False),
        },
        unit="/s",
        baseline="numpy.add.at, one lock",
        goals=[Goal(2.0)],
        title="Two threads adding ten million indices into a thousand shared bins",
    ),
    call(
        "array.add_at.disjoint",
        {
            "one thread": (bulk, "fastsync", 1, True),
            "fastsync": (bulk, "fastsync", 2, True),
        },
        unit="/s",
        baseline="one thread",
        goals=[Goal(1.7)],
        title="Two threads adding into bins of their own beside one",
    ),
]

CASES = ONE_THREAD + TWO_THREADS + OTHERS
