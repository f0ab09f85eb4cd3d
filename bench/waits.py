"""How long threads wait for a contended lock, in percentiles, beside `threading` and throughput.

    waits.py [--seconds S] [--rounds N] [--case NAME]... [--sweep] [--kind KIND] [--pin]
             [--json FILE] [--plot FILE]

Each sample is a process of its own; the contestants take turns within a round, and the medians over
the rounds are shown. A wait is the time from before `acquire` to after it; only those of 20 us and
more are kept, so that the list stays short and the clock is all that a short section is disturbed
by. With --pin the threads are bound to the cores in turn. KIND is what is contended: Lock, RLock,
Condition or Semaphore.

    hog       thread 0 holds the lock 90 us of every 100, three others do next to nothing with it
    victim-N  one thread holds the lock for N us, again and again; another comes once a millisecond
    equal-N   N threads do next to nothing with the lock, without pause
    long-N    8 threads hold it for N us, without pause
    grid-T-N  T threads hold it for N us, without pause

--sweep takes grid-T-N for many T and N, prints fastsync's numbers divided by those of `threading`,
and with --plot draws them as a heat map.
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
SWEEP_THREADS = [2, 4, 8, 32, 100, 200]
SWEEP_SECTIONS = [0, 10, 100, 1000, 10000]  # us
SWEEP_COLUMNS = ["p99", "longest", "total"]
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
    kind, *numbers = case.split("-")
    number = int(numbers[0]) if numbers else 0
    if kind == "hog":
        return [taker(lock, 90_000, 10_000, keep=False), *[taker(lock)] * 3]
    if kind == "victim":
        return [taker(lock, number * 1000, keep=False), taker(lock, sleep=0.001)]
    if kind == "equal":
        return [taker(lock)] * number
    if kind == "grid":
        return [taker(lock, int(numbers[1]) * 1000)] * number
    return [taker(lock, number * 1000)] * 8


def sample(case, contestant, seconds, kind, pin):
    lock = getattr(import_module(CONTESTANTS[contestant]), kind)()
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


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", action="append")
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--kind", default="Lock")
    parser.add_argument("--pin", action="store_true")
    parser.add_argument("--json")
    parser.add_argument("--plot")
    parser.add_argument("--sample", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(cases, options):
    """{case: {contestant: {column: median}}}."""
    taken = {case: {name: [] for name in CONTESTANTS} for case in cases}
    for _ in range(options.rounds):
        for case in cases:
            for name in CONTESTANTS:
                command = [sys.executable, __file__, "--sample", case, name]
                command += ["--seconds", str(options.seconds), "--kind", options.kind]
                command += ["--pin"] * options.pin
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                taken[case][name].append(json.loads(done.stdout))
    return {
        case: {
            name: {column: statistics.median(s[column] for s in samples) for column in COLUMNS}
            for name, samples in by_name.items()
        }
        for case, by_name in taken.items()
    }


def show(result):
    print(f"{'waits in ms':24}" + "".join(f"{column:>11}" for column in COLUMNS))
    for case, by_name in result.items():
        for name, values in by_name.items():
            print(f"{case:12}{name:12}" + "".join(f"{values[c]:11.2f}" for c in COLUMNS))


def ratio(result, column, threads, section):
    by_name = result[f"grid-{threads}-{section}"]
    # A wait that was too short to be kept counts as the shortest that is.
    least = 0 if column == "total" else SHORTEST / 1e6
    ours, stock = (max(by_name[name][column], least) for name in ("fastsync", "threading"))
    return ours / stock if stock else float("nan")


def show_sweep(result):
    for column in SWEEP_COLUMNS:
        print(f"\n{column}, fastsync / threading; threads down, section in us across")
        print(f"{'':8}" + "".join(f"{section:>9}" for section in SWEEP_SECTIONS))
        for threads in SWEEP_THREADS:
            row = [ratio(result, column, threads, section) for section in SWEEP_SECTIONS]
            print(f"{threads:<8}" + "".join(f"{value:9.2f}" for value in row))


def draw_sweep(result, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(SWEEP_COLUMNS), figsize=(11, 3.4), layout="constrained")
    for column, axis in zip(SWEEP_COLUMNS, axes, strict=True):
        values = [[ratio(result, column, t, n) for n in SWEEP_SECTIONS] for t in SWEEP_THREADS]
        # Green is better than threading: a shorter wait, a larger total.
        colors = "RdYlGn" if column == "total" else "RdYlGn_r"
        norm = matplotlib.colors.LogNorm(0.1, 10)
        axis.imshow(values, cmap=colors, norm=norm, aspect="auto")
        for y, row in enumerate(values):
            for x, value in enumerate(row):
                axis.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=8)
        axis.set_title(f"{column}, fastsync / threading")
        axis.set_xticks(range(len(SWEEP_SECTIONS)), SWEEP_SECTIONS)
        axis.set_yticks(range(len(SWEEP_THREADS)), SWEEP_THREADS)
        axis.set_xlabel("section, us")
        axis.set_ylabel("threads")
    figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None)


def main():
    options = parse_arguments()
    if options.sample:
        print(json.dumps(sample(*options.sample, options.seconds, options.kind, options.pin)))
        return
    cases = options.case or CASES
    if options.sweep:
        cases = [f"grid-{t}-{n}" for t in SWEEP_THREADS for n in SWEEP_SECTIONS]
    result = measure(cases, options)
    if options.sweep:
        show_sweep(result)
    else:
        show(result)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(result, file, indent=1)
    if options.plot:
        draw_sweep(result, options.plot)


if __name__ == "__main__":
    main()
