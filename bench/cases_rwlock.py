"""RwLock and ShardedLock beside a plain Lock and the reader-writer locks of other packages."""

import os
import threading
import time

from harness import Goal, call, op, threaded

RW = "from fastsync import RwLock; x = RwLock(0)"
SHARDED = "from fastsync import ShardedLock; x = ShardedLock(0)"
LOCK = "from threading import Lock; x = Lock()"
BOX = "class Box: pass\nbox = Box(); box.v = 0\n"
FT = (
    "from ft_utils.synchronization import RWLock, RWReadContext, RWWriteContext\n"
    "x = RWLock(); r = RWReadContext(x); w = RWWriteContext(x)"
)
PURE = {
    "readerwriterlock Fair": (
        "from readerwriterlock.rwlock import RWLockFair; x = RWLockFair()\n"
        "r = x.gen_rlock(); w = x.gen_wlock()",
        "with r: pass",
        "with w: pass",
    ),
    "fasteners": (
        "from fasteners import ReaderWriterLock; x = ReaderWriterLock()",
        "with x.read_lock(): pass",
        "with x.write_lock(): pass",
    ),
    "prwlock": (
        "from prwlock import RWLock; x = RWLock()",
        "with x.reader_lock(): pass",
        "with x.writer_lock(): pass",
    ),
}


def peers(which):
    """The pure Python ones, reading (1) or writing (2)."""
    return {name: (statements[0], statements[which]) for name, statements in PURE.items()}


CALLS = [
    op(
        "rwlock.reader",
        {
            "ft_utils": (FT, "with r: pass"),
            "fastsync": (RW, "with x.reader: pass"),
            "fastsync, view kept": (RW + "; r = x.reader", "with r: pass"),
            "fastsync ShardedLock": (SHARDED, "with x.reader: pass"),
            "(threading.Lock)": (LOCK, "with x: pass"),
            **peers(1),
        },
        baseline="ft_utils",
        goals=[Goal(0.55), Goal(1.0, of="best peer")],
        title="`with rw.reader`",
    ),
    op(
        "rwlock.writer",
        {
            "ft_utils": (FT, "with w: pass"),
            "fastsync": (RW, "with x.writer: pass"),
            "fastsync ShardedLock": (SHARDED, "with x.writer: pass"),
            "(threading.Lock)": (LOCK, "with x: pass"),
            **peers(2),
        },
        baseline="ft_utils",
        goals=[Goal(1.0, of="best peer")],
        title="`with rw.writer`",
    ),
    op(
        "rwlock.read_guard",
        {
            "threading": (BOX + LOCK, "with x: box.v"),
            "fastsync": (RW, "with x.read() as g: g.value"),
            "fastsync ShardedLock": (SHARDED, "with x.read() as g: g.value"),
        },
        title="Read a value under a guard",
    ),
    op(
        "rwlock.write_guard",
        {
            "threading": (BOX + LOCK, "with x: box.v += 1"),
            "fastsync": (RW, "with x.write() as g: g.value += 1"),
            "fastsync ShardedLock": (SHARDED, "with x.write() as g: g.value += 1"),
        },
        title="Change a value under a guard",
    ),
    op(
        "new.RwLock",
        {
            "threading": ("from threading import RLock", "RLock()"),
            "fastsync": ("from fastsync import RwLock", "RwLock()"),
            "fastsync ShardedLock": ("from fastsync import ShardedLock", "ShardedLock()"),
        },
        title="`RwLock()` beside `threading.RLock()`",
    ),
]


def mixed(name, body, goals, **more):
    """One writer, and readers in all other threads; the same body under each lock."""
    return threaded(
        name,
        {
            "threading": (LOCK, f"with x: {body}"),
            "fastsync": (RW, f"with x.writer: {body}", f"with x.reader: {body}"),
            "ft_utils": (FT, f"with w: {body}", f"with r: {body}"),
        },
        threads=(2, 4, 8),
        goals=goals,
        **more,
    )


MIXED = [
    mixed(
        "rwlock.mixed",
        "pass",
        [Goal(0.6), Goal(0.2, of=None, metric="fairness")],
        title="1 writer and 1, 3, 7 readers, empty sections",
    ),
    mixed(
        "rwlock.mixed_long",
        "\n    for _ in range(200): pass",
        [Goal(1.0), Goal(0.2, of=None, metric="fairness")],
        batch=5,
        title="1 writer and 1, 3, 7 readers, sections of 200 loop turns",
    ),
    threaded(
        "rwlock.readers",
        {
            "threading": (LOCK, "with x: pass"),
            "fastsync": (RW, "with x.reader: pass"),
            "fastsync ShardedLock": (SHARDED, "with x.reader: pass"),
            "ft_utils": (FT, "with r: pass"),
        },
        threads=(1, 2, 4, 8),
        title="Readers only",
    ),
]


def reading(run, threads):
    """Reads a second of a pinned ShardedLock, by threads that each have a core."""
    from fastsync import ShardedLock, pin

    lock = pin(ShardedLock(0))
    seconds = run.seconds
    gate = threading.Barrier(threads)
    counts = [0] * threads
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []

    def work(me):
        x = lock
        count = 0
        if cores:
            os.sched_setaffinity(0, {cores[me % len(cores)]})
        gate.wait()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for _ in range(500):
                with x.reader:
                    pass
            count += 500
        counts[me] = count

    workers = [threading.Thread(target=work, args=(me,)) for me in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts) / seconds


SCALING = [
    call(
        "sharded.scaling",
        {"one thread": (reading, 1), "fastsync, two threads": (reading, 2)},
        unit="/s",
        baseline="one thread",
        goals=[Goal(1.8, who="fastsync, two threads")],
        title="Two threads read one pinned ShardedLock",
    ),
]

CASES = [*CALLS, *MIXED, *SCALING]
