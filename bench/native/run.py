"""Run the native cases interleaved and print them beside Rust's and C's own primitives.

    run.py [--rust PROGRAM] [--case NAME]... [--threads N,N] [--work IN/OUT]... [--seconds S]
           [--rounds N] [--json FILE]

Throughput is per thread (as parking_lot's benchmark has it) and in all; Jain's index is 1 when
all threads got the same and 1/threads when one got everything. The longest wait comes from a
shorter run of its own, because reading the clock twice an iteration slows the loop.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time

import loops_native

CORES = os.cpu_count() or 2
# Contestants in the order in which they are shown; a ratio compares the first with another.
CASES = {
    "mutex": [
        "fastsync",
        "fastsync_fair",
        "PyMutex",
        "cython_pymutex",
        "pthread",
        "parking_lot",
        "parking_lot_fair",
        "std",
    ],
    "rwlock": ["fastsync", "pthread", "parking_lot", "std"],
    "condvar": ["fastsync", "pthread", "parking_lot", "std"],
    "condvar_one": ["fastsync", "pthread", "parking_lot", "std"],
    "once": ["fastsync", "parking_lot", "std"],
    "once_race": ["fastsync", "parking_lot", "std"],
    "load": ["fastsync", "C11", "std", "crossbeam"],
    "fetch_add": ["fastsync", "C11", "std", "crossbeam"],
    "cas": ["fastsync", "C11", "std"],
}
RINGS = {
    "condvar": "a ring of {} threads with one condition variable",
    "condvar_one": "a ring of {} threads with one condition variable each",
}
RUST = {"parking_lot", "parking_lot_fair", "std", "crossbeam"}


def native(case, contestant, threads, work, seconds, clocked, readers):
    """Run the loop of loops.pyx in Python threads; they have no thread state while they loop."""
    test = getattr(loops_native, f"{case}_{contestant}")()
    results = [None] * threads
    barrier = threading.Barrier(threads + 1)

    def body(index):
        barrier.wait()
        results[index] = test.run(index, threads, *work, clocked, readers)

    loops_native.prepare()
    workers = [threading.Thread(target=body, args=(i,)) for i in range(threads)]
    for worker in workers:
        worker.start()
    barrier.wait()
    time.sleep(seconds)
    loops_native.stop()
    for worker in workers:
        worker.join()
    return [count for count, _ in results], [wait for _, wait in results]


def rust(program, case, contestant, threads, work, seconds, clocked, readers):
    arguments = [case, contestant, threads, *work, seconds, int(clocked), readers]
    done = subprocess.run(
        [program, *map(str, arguments)], check=True, capture_output=True, text=True
    )
    answer = json.loads(done.stdout)
    return answer["counts"], answer["waits"]


def jain(counts):
    squares = sum(count * count for count in counts)
    return sum(counts) ** 2 / (len(counts) * squares) if squares else 0.0


def contestants(case, program, only):
    for name in CASES[case]:
        if only and name not in only:
            continue
        if (program if name in RUST else hasattr(loops_native, f"{case}_{name}")) is not None:
            if name in RUST or hasattr(loops_native, f"{case}_{name}"):
                yield name


def measure(options, case, threads, work, readers=0):
    """One row of the table: every contestant's medians over the rounds."""
    names = list(contestants(case, options.rust, options.only))
    seen = {name: {"rate": [], "jain": [], "wait": []} for name in names}

    def once(name, seconds, clocked):
        arguments = (case, name, threads, work, seconds, clocked, readers)
        return rust(options.rust, *arguments) if name in RUST else native(*arguments)

    for _ in range(options.rounds):
        for name in names:
            counts, _ = once(name, options.seconds, False)
            seen[name]["rate"].append(sum(counts) / options.seconds)
            # Readers and writers are not meant to get the same.
            groups = [counts[:readers], counts[readers:]]
            seen[name]["jain"].append(min(jain(group) for group in groups if group))
            if case in ("mutex", "rwlock") and threads > 1:
                _, waits = once(name, options.seconds / 4, True)
                seen[name]["wait"].append(max(waits))
    return {
        name: {what: statistics.median(values) for what, values in runs.items() if values}
        for name, runs in seen.items()
    }


def show(title, row, threads):
    """Print one table: a line for each contestant, its ratio to fastsync's throughput last."""
    print(f"\n{title}")
    print(
        f"  {'':18}{'M/s each':>10}{'M/s all':>9}{'Jain':>7}{'longest wait':>14}{'fastsync is':>13}"
    )
    ours = row.get("fastsync", {}).get("rate")
    for name, values in row.items():
        rate = values["rate"]
        wait = f"{values['wait'] / 1e6:.2f} ms" if "wait" in values else ""
        ratio = f"{ours / rate:.2f} x" if ours and name != "fastsync" else ""
        print(
            f"  {name:18}{rate / threads / 1e6:10.3f}{rate / 1e6:9.2f}{values['jain']:7.2f}"
            f"{wait:>14}{ratio:>13}",
            flush=True,
        )


def plan(options):
    """Yield (case, title, threads, work, readers) for what was asked for."""
    for case in options.case or list(CASES):
        counts = options.threads or sorted({1, 2, CORES, 2 * CORES, 4 * CORES, 32})
        if case in ("mutex", "rwlock"):
            for work in options.work or [(5, 5)]:
                for threads in counts:
                    head = f"{case}, {threads} threads, work {work[0]} inside, {work[1]} outside"
                    if case == "mutex":
                        yield case, head, threads, work, 0
                    elif threads == 1:
                        yield case, f"{head}: write", 1, work, 0
                        yield case, f"{head}: read", 1, work, 1
                    else:
                        yield case, f"{head}: all write", threads, work, 0
                        yield case, f"{head}: all read", threads, work, threads
                        half = threads // 2
                        yield case, f"{head}: {half} read", threads, work, half
        elif case in RINGS:
            for threads in [n for n in counts if 1 < n <= 8]:
                yield case, f"{case}, {RINGS[case].format(threads)}", threads, (0, 0), 0
        else:
            for threads in [n for n in counts if n <= 2 * CORES]:
                yield case, f"{case}, {threads} threads", threads, (0, 0), 0


def pair(text):
    return tuple(int(part) for part in text.split("/"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rust", help="the compiled program of rust/; without it, C only")
    parser.add_argument("--case", action="append", choices=list(CASES))
    parser.add_argument("--only", action="append", help="a contestant; may be repeated")
    parser.add_argument("--threads", type=lambda text: [int(n) for n in text.split(",")])
    parser.add_argument(
        "--work", type=pair, action="append", help="inside/outside, 5/5 if not given"
    )
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="write all numbers to this file as well")
    options = parser.parse_args()
    print(f"{sys.version.split()[0]}, {CORES} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{options.rounds} interleaved rounds of {options.seconds} s, medians")
    results = []
    for case, title, threads, work, readers in plan(options):
        row = measure(options, case, threads, work, readers)
        show(title, row, threads)
        results.append({"title": title, "case": case, "threads": threads, "row": row})
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"python": sys.version, "cores": CORES, "results": results}, file, indent=1)


if __name__ == "__main__":
    main()
