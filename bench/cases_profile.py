"""What `python -m fastsync profile` costs: programs with it and without."""

import statistics
import time

from cases_programs import counted, timed
from harness import Goal, call

PLAIN = ["-m", "fastsync"]
PROFILED = ["-m", "fastsync", "profile", "--quiet"]


def profiled(name, function, *arguments, limit, title):
    return call(
        f"profile.{name}",
        {
            "fastsync": (function, PLAIN, *arguments),
            "fastsync profiled": (function, PROFILED, *arguments),
        },
        unit="/s",
        baseline="fastsync",
        goals=[Goal(limit, who="fastsync profiled")],
        title=title,
    )


def sections(run, threads, inside, outside, shared):
    """How many times as long sections take with the profile on as with it off.

    Both in one process, by turns: two processes differ by up to 4 % in where their objects lie.
    inside, outside: iterations of a loop in and after a section, about 15 ns each.
    """
    from fastsync import profile
    from fastsync.threading import Barrier, Lock, Thread

    def work(iterations):
        total = 0
        for i in range(iterations):
            total += i
        return total

    def seconds(rounds):
        lock = Lock()
        barrier = Barrier(threads + 1)

        def turns(lock):
            barrier.wait()
            for _ in range(rounds):
                with lock:
                    work(inside)
                work(outside)

        crew = [Thread(target=turns, args=(lock if shared else Lock(),)) for _ in range(threads)]
        for thread in crew:
            thread.start()
        barrier.wait()
        began = time.perf_counter()
        for thread in crew:
            thread.join()
        return time.perf_counter() - began

    def profiled_seconds(rounds):
        profile.start()
        try:
            return seconds(rounds)
        finally:
            profile.stop()

    times = 1 if run.tiny else 12
    # On two cores `threads` take turns, or wait for one lock.
    rounds = (
        8 if run.tiny else int(run.seconds / times / ((inside + outside) * 15e-9 * threads / 2))
    )
    seconds(rounds)
    off, on = [], []
    for _ in range(times):
        off.append(seconds(rounds))
        on.append(profiled_seconds(rounds))
    return statistics.median(on) / statistics.median(off)


def price(name, *arguments, limit, title):
    return call(
        f"profile.{name}",
        {"fastsync profiled": (sections, *arguments)},
        unit="",
        goals=[Goal(limit, of=None, who="fastsync profiled")],
        title=title,
    )


CASES = [
    price(
        "uncontended",
        2,
        30,
        100,
        False,
        limit=1.01,
        title="two threads, each with its own lock, 0.5 us inside, 1.5 us outside: time, 1 without",
    ),
    price(
        "contended",
        4,
        1000,
        1000,
        True,
        limit=1.05,
        title="four threads at one lock, 15 us inside and outside: time, 1 without a profile",
    ),
    profiled(
        "logging",
        counted,
        "logs.py",
        100_000,
        8,
        limit=0.95,
        title="logging from 8 threads: records",
    ),
    profiled(
        "http",
        timed,
        "http_load.py",
        4,
        limit=0.95,
        title="http.server under 4 clients: requests",
    ),
]
