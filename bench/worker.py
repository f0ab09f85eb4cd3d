"""Measure one case once, in a process of its own: the runner starts this and reads its stdout.

The last line is JSON: {"values": {contestant: measurement}, "skipped": {contestant: reason}}.
"""

import importlib
import json
import os
import statistics
import sys
import threading
import time
from itertools import repeat
from types import SimpleNamespace

# A sample lasts about this long: far above the clock's grain and a switch to another process,
# shorter than a turn on a busy core, so that most are undisturbed.
SAMPLE_SECONDS = 0.002
# Statements in a turn of the timed loop, so that the loop itself costs little.
UNROLL = 10

OP = """
def run(turns):
{setup}
    it = repeat(None, turns)
    start = clock()
    for _ in it:
{stmt}
    return clock() - start
"""

# Only whole batches that end before the deadline count: a thread that got the lock late must not
# look as if it had run all the time.
THREAD = """
def run(me, turns, begin, deadline, {names}):
{setup}
    count = longest = 0
    begin()
    end = deadline[0]
    before = clock()
    while True:
        for _ in repeat(None, turns):
{stmt}
        now = clock()
        if now >= end:
            return count, max(longest, end - before)
        count += turns
        if now - before > longest:
            longest = now - before
        before = now
"""


def indent(text, depth):
    return "\n".join("    " * depth + line for line in text.splitlines())


def build(template, setup, stmt, depth, **more):
    source = template.format(
        setup=indent(setup or "pass", 1), stmt=indent(stmt or "pass", depth), **more
    )
    names = {"repeat": repeat, "clock": time.perf_counter_ns}
    exec(source, names)
    return names["run"]


def calibrate(run):
    """How many turns last a sample; warms up besides."""
    turns = 1
    while (elapsed := run(turns)) < SAMPLE_SECONDS * 1e9 / 4:
        turns *= 2
    return max(1, round(turns * SAMPLE_SECONDS * 1e9 / elapsed))


def reason(error):
    text = str(error).partition(" (/")[0]  # without the path of an import error
    return text if isinstance(error, ImportError) else f"{type(error).__name__}: {text}"


def measure_ops(case, contestants, options):
    """Alternating samples of everybody; of each contestant its median, in seconds."""
    values, skipped, runs = {}, {}, {}
    for name in contestants:
        setup, stmt = case.contestants[name]
        try:
            run = build(OP, setup, "\n".join([stmt] * UNROLL), 2)
            run(1)  # a missing peer shows here
            runs[name] = run, 1 if options.tiny else calibrate(run)
        except Exception as error:  # a peer's trouble must not keep the others from running
            skipped[name] = reason(error)
    samples = {name: [] for name in runs}
    for _ in range(1 if options.tiny else options.samples):
        for name, (run, turns) in runs.items():
            samples[name].append(run(turns) / (turns * UNROLL) / 1e9)
    for name, taken in samples.items():
        values[name] = {"value": statistics.median(taken), "best": min(taken)}
    return values, skipped


def local_names(setup):
    """What a setup binds, by running it."""
    names = {}
    exec(setup, names)
    names.pop("__builtins__", None)
    return names


def pin_thread(index):
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if cores:
        os.sched_setaffinity(0, {cores[index % len(cores)]})  # 0: the calling thread


def measure_threads(case, contestant, options):
    setup, *stmts = case.contestants[contestant]
    shared = {} if case.private else local_names(setup)
    private = setup if case.private else ""
    runs = [build(THREAD, private, stmt, 3, names=", ".join(shared)) for stmt in stmts]
    count = options.threads
    results = [None] * count
    deadline = [None]

    def go():
        deadline[0] = time.perf_counter_ns() + int(options.seconds * 1e9)

    gate = threading.Barrier(count, go)

    def body(me):
        pin_thread(me)
        run = runs[min(me, len(runs) - 1)]
        results[me] = run(me, case.batch, gate.wait, deadline, **shared)

    threads = [threading.Thread(target=body, args=(me,), daemon=True) for me in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = [result[0] for result in results]
    return {
        "value": sum(counts) / options.seconds,
        "counts": counts,
        "fairness": min(counts) / max(max(counts), 1),
        "jain": sum(counts) ** 2 / max(count * sum(n * n for n in counts), 1),
        "longest": max(result[1] for result in results) / 1e9,
        "first": counts[0] / options.seconds,
        "rest": sum(counts[1:]) / options.seconds,
    }


def measure_call(case, contestant, options):
    function, *arguments = case.contestants[contestant]
    return {"value": function(options, *arguments)}


def measure(case, contestants, options):
    if case.kind == "op":
        return measure_ops(case, contestants, options)
    function = measure_threads if case.kind == "threads" else measure_call
    values, skipped = {}, {}
    for name in contestants:
        try:
            values[name] = function(case, name, options)
        except Exception as error:
            skipped[name] = reason(error)
    return values, skipped


def main():
    request = json.loads(sys.argv[1])
    cases = importlib.import_module(request["module"]).CASES
    case = next(case for case in cases if case.name == request["case"])
    # A process that has had a second thread is what locks are for; 3.13t behaves differently
    # from then on.
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    options = SimpleNamespace(**request["options"])
    values, skipped = measure(case, request["contestants"], options)
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    print(json.dumps({"values": values, "skipped": skipped, "gil": gil}), flush=True)
    os._exit(0)  # whatever a contestant left running


if __name__ == "__main__":
    main()
