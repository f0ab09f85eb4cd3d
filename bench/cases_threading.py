"""The drop-in types beside `threading` and its peers: calls in one thread, and under contention."""

from harness import Goal, op, threaded

CONTENDED = (2, 4, 8)
MANY = (2, 4, 8, 16, 32, 64, 200)


def stock(kind, arguments=""):
    return f"from threading import {kind}; x = {kind}({arguments})"


def ours(kind, arguments=""):
    return f"from fastsync.threading import {kind}; x = {kind}({arguments})"


def pinned(kind, arguments=""):
    return f"from fastsync import pin; {ours(kind, arguments)}; pin(x)"


def both(kind, stmt, arguments=""):
    """threading's and ours, doing the same."""
    return {"threading": (stock(kind, arguments), stmt), "fastsync": (ours(kind, arguments), stmt)}


LIBRT = "from librt.threading import Lock; x = Lock()"
INTERVAL = "from ft_utils.synchronization import IntervalLock; x = IntervalLock(0.005)"


def aiologic(kind, arguments=""):
    return f"from aiologic import {kind}; x = {kind}({arguments})"


PAIR = "x.acquire(); x.release()"
GREEN_PAIR = "x.green_acquire(); x.green_release()"

WITH = [
    op(
        "with.Lock",
        {
            **both("Lock", "with x: pass"),
            "librt": (LIBRT, "with x: pass"),
            "ft_utils IntervalLock": (INTERVAL, "with x: pass"),
            "aiologic": (aiologic("Lock"), "with x: pass"),
        },
        goals=[Goal(0.45), Goal(0.60, of="best peer"), Goal(0.35, gil=True)],
        title="`with Lock()`",
    ),
    op(
        "with.RLock",
        {
            **both("RLock", "with x: pass"),
            "librt Lock": (LIBRT, "with x: pass"),
            "aiologic": (aiologic("RLock"), "with x: pass"),
        },
        goals=[Goal(0.40), Goal(0.60, of="best peer")],
        title="`with RLock()`",
    ),
    op(
        "with.Condition",
        {
            **both("Condition", "with x: pass"),
            "aiologic": (aiologic("Condition"), "with x: pass"),
        },
        goals=[Goal(0.22)],
        title="`with Condition()`",
    ),
    op(
        "with.Semaphore",
        {
            **both("Semaphore", "with x: pass"),
            "aiologic": (aiologic("Semaphore", "1"), "with x: pass"),
        },
        title="`with Semaphore()`",
    ),
]

CALLS = [
    op(
        "pair.Lock",
        {
            **both("Lock", PAIR),
            "librt": (LIBRT, PAIR),
            "ft_utils IntervalLock": (INTERVAL, "x.lock(); x.unlock()"),
        },
        goals=[Goal(0.80)],
        title="Lock `acquire()` + `release()`",
    ),
    op(
        "pair.RLock",
        {**both("RLock", PAIR), "aiologic": (aiologic("RLock"), GREEN_PAIR)},
        goals=[Goal(0.65)],
        title="RLock `acquire()` + `release()`",
    ),
    op(
        "pair.Lock_try",
        {
            **both("Lock", "x.acquire(False); x.release()"),
            "librt": (LIBRT, "x.acquire(False); x.release()"),
        },
        title="Lock `acquire(False)` + `release()`",
    ),
    op(
        "pair.Lock_timeout",
        both("Lock", "x.acquire(timeout=1); x.release()"),
        title="Lock `acquire(timeout=1)` + `release()`",
    ),
    op(
        "pair.Semaphore",
        {**both("Semaphore", PAIR), "aiologic": (aiologic("Semaphore", "1"), GREEN_PAIR)},
        goals=[Goal(0.05)],
        title="Semaphore `acquire()` + `release()`",
    ),
    op(
        "pair.BoundedSemaphore",
        {
            **both("BoundedSemaphore", PAIR),
            "aiologic": (aiologic("BoundedSemaphore", "1"), GREEN_PAIR),
        },
        goals=[Goal(0.05)],
        title="BoundedSemaphore `acquire()` + `release()`",
    ),
    op(
        "event.set_clear",
        {
            **both("Event", "x.set(); x.clear()"),
            "aiologic": (aiologic("REvent"), "x.set(); x.clear()"),
        },
        goals=[Goal(0.06)],
        title="Event `set()` + `clear()`",
    ),
    op(
        "event.is_set",
        {
            **both("Event", "x.is_set()"),
            "cereggii": ("from cereggii import AtomicEvent; x = AtomicEvent()", "x.is_set()"),
            "aiologic": (aiologic("Event"), "x.is_set()"),
        },
        goals=[Goal(0.5)],
        title="Event `is_set()`",
    ),
    op(
        "event.wait",
        {
            "threading": (stock("Event") + "; x.set()", "x.wait()"),
            "fastsync": (ours("Event") + "; x.set()", "x.wait()"),
            "cereggii": (
                "from cereggii import AtomicEvent; x = AtomicEvent(); x.set()",
                "x.wait()",
            ),
            "aiologic": (aiologic("Event") + "; x.set()", "x.wait()"),
        },
        goals=[Goal(0.13)],
        title="Event `wait()` when set",
    ),
    op(
        "condition.notify",
        {
            "threading": (stock("Condition") + "; x.acquire()", "x.notify()"),
            "fastsync": (ours("Condition") + "; x.acquire()", "x.notify()"),
        },
        title="Condition `notify()`, nobody waiting",
    ),
]


def creation(kind, limit, arguments="", **peers):
    stmt = f"{kind}({arguments})"
    contestants = {
        "threading": (f"from threading import {kind}", stmt),
        "fastsync": (f"from fastsync.threading import {kind}", stmt),
        **peers,
    }
    return op(f"new.{kind}", contestants, goals=[Goal(limit)], title=f"`{stmt}`")


CREATE = [
    creation("Lock", 0.75, librt=("from librt.threading import Lock", "Lock()")),
    creation("RLock", 0.25),
    creation("Condition", 0.1),
    creation("Semaphore", 0.1),
    creation("BoundedSemaphore", 0.1),
    creation("Event", 0.1),
    creation("Barrier", 0.1, "2"),
]

BOX = "class Box: pass\nbox = Box(); box.v = 0\n"


def counting(kind):
    """Both types guarding one counter."""
    stmt = "with x: box.v += 1"
    return {"threading": (BOX + stock(kind), stmt), "fastsync": (BOX + ours(kind), stmt)}


def at(*limits, counts=CONTENDED, **more):
    return [Goal(limit, threads=n, **more) for n, limit in zip(counts, limits, strict=True)]


SHARED = [
    threaded(
        "shared.Lock",
        {
            **counting("Lock"),
            "fastsync pinned": (BOX + pinned("Lock"), "with x: box.v += 1"),
            "librt": (BOX + LIBRT, "with x: box.v += 1"),
        },
        threads=MANY,
        goals=[
            *at(1.2, 1.15, 1.15, 1.0, 1.0, 1.0, 1.0, counts=MANY),
            Goal(1.0, metric="fairness"),
            Goal(1.1, threads=2, of="fastsync", who="fastsync pinned"),
        ],
        title="One Lock, `with lock: box.v += 1`",
    ),
    threaded(
        "shared.RLock",
        counting("RLock"),
        goals=at(3.5, 4, 5),
        title="One RLock, `with lock: box.v += 1`",
    ),
    threaded(
        "shared.Condition",
        counting("Condition"),
        goals=at(5.5, 7, 8),
        title="One Condition as a lock",
    ),
    threaded("shared.Semaphore", counting("Semaphore"), goals=[Goal(8)], title="One Semaphore(1)"),
    threaded(
        "shared.Event",
        both("Event", "x.set(); x.clear()"),
        goals=[Goal(5)],
        title="One Event, `set()` + `clear()`",
    ),
    threaded(
        "private.Lock",
        {**both("Lock", "with x: pass"), "librt": (LIBRT, "with x: pass")},
        threads=(1, 2),
        private=True,
        title="A Lock for each thread",
    ),
    threaded(
        "private.RLock",
        both("RLock", "with x: pass"),
        threads=(1, 2),
        private=True,
        title="An RLock for each thread",
    ),
]

# Thread 0 holds the lock nine tenths of the time; what it does inside takes tens of microseconds.
HOG = "with x:\n    for _ in range(1800): pass\nfor _ in range(200): pass"
HOGGED = [
    threaded(
        "hog.Lock",
        {
            "threading": (BOX + stock("Lock"), HOG, "with x: box.v += 1"),
            "fastsync": (BOX + ours("Lock"), HOG, "with x: box.v += 1"),
            "librt": (BOX + LIBRT, HOG, "with x: box.v += 1"),
        },
        threads=(4,),
        batch=1,
        goals=[
            Goal(1.0, metric="first"),
            Goal(1.0, metric="rest"),
            Goal(1.0, metric="longest"),
        ],
        title="One thread holds the Lock 90 % of the time, three others want it",
    ),
]


# The plan of CPython's Tools/lockbench: some work inside and outside, one lock or a lock of eight
# chosen at random.
def lockbench(name, locks, inside, outside, title):
    # `me` is the thread's own number: here a generator's state.
    stmt = (
        "me = me * 69069 + 1 & 0xFFFFFFFF\n"
        f"with xs[(me >> 16) % {locks}]:\n"
        f"    for _ in repeat(None, {inside}): pass\n"
        f"for _ in repeat(None, {outside}): pass"
    )
    make = f"; xs = [{{}}() for _ in range({locks})]"
    return threaded(
        f"lockbench.{name}",
        {
            "threading": (stock("Lock") + make.format("Lock"), stmt),
            "fastsync": (ours("Lock") + make.format("Lock"), stmt),
        },
        threads=(2, 8, 32),
        goals=[Goal(1.0), Goal(1.0, metric="longest")],
        title=title,
    )


LOCKBENCH = [
    lockbench("tight", 1, 1, 0, "One Lock, work inside 1, outside 0"),
    lockbench("even", 1, 10, 10, "One Lock, work inside 10, outside 10"),
    lockbench("outside", 1, 1, 50, "One Lock, work inside 1, outside 50"),
    lockbench("random", 8, 10, 10, "Eight Locks at random, work inside 10, outside 10"),
]

CASES = [*WITH, *CALLS, *CREATE, *SHARED, *HOGGED, *LOCKBENCH]
