"""Bytes an object: the growth of resident memory over a million of them, in a fresh process."""

import importlib
import os

from harness import Goal, call

COUNT = 1_000_000


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def bytes_each(run, module, name, arguments=()):
    make = getattr(importlib.import_module(module), name)
    count = 1000 if run.tiny else COUNT
    kept = [None] * count  # written to, so it is resident before the first reading
    make(*arguments)
    before = resident()
    for index in range(count):
        kept[index] = make(*arguments)
    return max(0, resident() - before) / count


def case(name, limit=None, arguments=(), **peers):
    contestants = {
        "threading": (bytes_each, "threading", name, arguments),
        "fastsync": (bytes_each, "fastsync.threading", name, arguments),
    }
    contestants.update({peer: (bytes_each, *where) for peer, where in peers.items()})
    goals = [Goal(limit)] if limit else []
    return call(
        f"memory.{name}",
        contestants,
        unit="B",
        goals=goals,
        rounds=1,
        title=f"Bytes: {name}",
    )


CASES = [
    case("Lock", 1.0, librt=("librt.threading", "Lock"), aiologic=("aiologic", "Lock")),
    case("RLock", 0.6, aiologic=("aiologic", "RLock")),
    case("Condition", 0.08),
    case("Semaphore", 0.08, aiologic=("aiologic", "Semaphore")),
    case("BoundedSemaphore", 0.08),
    case("Event", 0.08, aiologic=("aiologic", "Event"), cereggii=("cereggii", "AtomicEvent")),
    case("Barrier", arguments=(2,)),
]
