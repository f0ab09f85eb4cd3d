"""How long threads wait for a contended lock, in percentiles, beside `threading` and throughput.

    waits.py [--seconds S] [--rounds N] [--case NAME]... [--pin] [--json FILE]

Each sample is a process of its own; the contestants take turns within a round, and the medians over
the rounds are shown. With --pin the threads are bound to the cores in turn. A wait is the time from before
`acquire` to after it; only those of 20 us and more are kept, so that the list stays short and the
clock is all that a short section is disturbed by.

    hog       thread 0 holds the lock 90 us of every 100, three others do next to nothing with it
    victim-N  one thread holds the lock for N us, again and again; another comes once a millisecond
    equal-N   N threads do next to nothing with the lock, without pause
    long-N    8 threads hold it for N us, without pause
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from importlib import import_module

CONTESTANTS = {"threading": "threading", "fastsync": "fastsync.threading"}
CASES = [
    "hog",
    "victim-20",
    "victim-50",
    "victim-150",
    "equal-2",
    "equal-8",
    "equal-32",
    "long-100",
]
SHORTEST = 20_000
COLUMNS = ["p50", "p99", "p99.9", "longest", "total", "fairness"]
clock = time.perf_counter_ns


def busy(duration):
    end = clock() + duration
    while clock() < end:
        pass


def taker(lock, inside=0, outside=0, sleep=0.0, keep=True):
    """A thread's life: it returns how often it had the lock, and its waits."""

    def run(end):
        count, waits, box = 0, [], [0]
        while True:
            before = clock()
            if before >= end:
                return count, waits
            with lock:
                waited = clock() - before
                if inside:
                    busy(inside)
                else:
                    box[0] += 1
            if keep and waited >= SHORTEST:
                waits.append(waited)
            count += 1
            if outside:
                busy(outside)
            if sleep:
                time.sleep(sleep)

    return run


def threads_of(case, lock):
    kind, _, number = case.partition("-")
    number = int(number or 0)
    if kind == "hog":
        return [taker(lock, 90_000, 10_000, keep=False), *[taker(lock)] * 3]
    if kind == "victim":
        return [taker(lock, number * 1000, keep=False), taker(lock, sleep=0.001)]
    if kind == "equal":
        return [taker(lock)] * number
    return [taker(lock, number * 1000)] * 8


def sample(case, contestant, seconds, pin):
    lock = import_module(CONTESTANTS[contestant]).Lock()
    lives = threads_of(case, lock)
    results = [None] * len(lives)
    gate = threading.Barrier(len(lives))
    cores = sorted(os.sched_getaffinity(0)) if pin else []

    def body(me):
        if cores:
            os.sched_setaffinity(0, {cores[me % len(cores)]})
        gate.wait()
        results[me] = lives[me](clock() + int(seconds * 1e9))

    threads = [threading.Thread(target=body, args=(me,)) for me in range(len(lives))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Who holds the lock most of the time by design is not one of those that wait.
    waiting = results[1:] if case.startswith(("hog", "victim")) else results
    waits = sorted(wait for _, kept in waiting for wait in kept) or [0]
    counts = [count for count, _ in waiting]

    def quantile(share):
        return waits[min(int(len(waits) * share), len(waits) - 1)] / 1e6

    return {
        "p50": quantile(0.5),
        "p99": quantile(0.99),
        "p99.9": quantile(0.999),
        "longest": waits[-1] / 1e6,
        "total": sum(counts) / seconds,
        "fairness": min(counts) / max(*counts, 1) if len(counts) > 1 else 1.0,
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", action="append")
    parser.add_argument("--pin", action="store_true")
    parser.add_argument("--json")
    parser.add_argument("--sample", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.sample:
        print(json.dumps(sample(*options.sample, options.seconds, options.pin)))
        return
    cases = options.case or CASES
    taken = {case: {name: [] for name in CONTESTANTS} for case in cases}
    for _ in range(options.rounds):
        for case in cases:
            for name in CONTESTANTS:
                command = [sys.executable, __file__, "--sample", case, name]
                command += ["--seconds", str(options.seconds), *["--pin"] * options.pin]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                taken[case][name].append(json.loads(done.stdout))
    result = {
        case: {
            name: {column: statistics.median(s[column] for s in samples) for column in COLUMNS}
            for name, samples in by_name.items()
        }
        for case, by_name in taken.items()
    }
    print(f"{'waits in ms':24}" + "".join(f"{column:>11}" for column in COLUMNS))
    for case, by_name in result.items():
        for name, values in by_name.items():
            print(f"{case:12}{name:12}" + "".join(f"{values[c]:11.2f}" for c in COLUMNS))
    if options.json:
        with open(options.json, "w") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
