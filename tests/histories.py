"""Random histories of calls, and whether a sequential specification explains them.

Each history: a few threads make random calls; each call is noted with the times before and after
it. It is right when the calls can be put in some order that respects these times (linearizability)
and that the specification explains: spec(state, thread, call, result) is the next state, or None
when the result cannot be. Calls that time out may be taken as failed at any moment within their
time.
"""

import random
import threading
import time
from collections import deque

from conftest import run_threads

HISTORIES = 150


def exactly(model):
    """The specification by a model: model(state, call) is (result, next state)."""

    def spec(state, thread, call, result):
        expected, after = model(state, call)
        return after if (result, type(result)) == (expected, type(expected)) else None

    return spec


def is_linearizable(history, spec, state):
    """Wing and Gong's search: take any call that began before all others left have ended."""
    seen = set()
    stack = [(frozenset(range(len(history))), state)]
    while stack:
        left, state = stack.pop()
        if not left:
            return True
        if (left, state) in seen:
            continue
        seen.add((left, state))
        first_end = min(history[i][4] for i in left)
        for i in left:
            thread, call, result, begin, _ = history[i]
            if begin <= first_end:
                after = spec(state, thread, call, result)
                if after is not None:
                    stack.append((left - {i}, after))
    return False


def record(scripts, perform):
    """Run each thread's calls; return (thread, call, result, begin, end) of all."""
    gate, arrived = threading.Barrier(len(scripts)), deque()
    clock = time.perf_counter_ns

    def run(thread):
        notes = []
        gate.wait()
        arrived.append(thread)
        while len(arrived) < len(scripts):  # who comes from a wait comes late: begin together
            time.sleep(0)
        for call in scripts[thread]:
            begin = clock()
            result = perform(call)
            notes.append((thread, call, result, begin, clock()))
        return notes

    return [note for notes in run_threads(run, count=len(scripts)) for note in notes]


def refused(call, error):
    try:
        call()
    except error:
        return "refused"


def check(make, perform, calls, spec, state, threads=3, length=5, histories=HISTORIES):
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    for _ in range(histories):
        thing = make()
        scripts = [[chance.choice(calls) for _ in range(length)] for _ in range(threads)]
        history = record(scripts, lambda call, thing=thing: perform(thing, call))
        assert is_linearizable(history, spec, state), (seed, sorted(history, key=lambda n: n[3]))
