"""Threads that really wait for one another: hand-overs, rounds, and a crowd of sleepers."""

import importlib
import os
import threading
import time
from functools import partial

from harness import Goal, call


def pin(index):
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if cores:
        os.sched_setaffinity(0, {cores[index % len(cores)]})


def run_pinned(functions):
    """Seconds from the moment that all threads are ready until the last is done."""
    gate = threading.Barrier(len(functions) + 1)

    def body(index, function):
        pin(index)
        gate.wait()
        function()

    threads = [threading.Thread(target=body, args=item) for item in enumerate(functions)]
    for thread in threads:
        thread.start()
    gate.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started


def repeated(run, trial):
    """Seconds a turn: trial(turns) with as many turns as fill run.seconds."""
    turns = 10
    while True:
        elapsed = trial(turns)
        if run.tiny or elapsed >= run.seconds / 2:
            return elapsed / turns
        turns = max(2 * turns, int(turns * run.seconds / max(elapsed, 1e-6)))


def condition_pingpong(run, module):
    """Two threads pass a turn to and fro under one Condition: a round trip."""
    types = importlib.import_module(module)

    def trial(turns):
        def play(me, condition, state):
            for _ in range(turns):
                with condition:
                    while state[0] != me:
                        condition.wait()
                    state[0] = 1 - me
                    condition.notify()

        condition, state = types.Condition(), [0]
        return run_pinned([partial(play, me, condition, state) for me in (0, 1)])

    return repeated(run, trial)


def signal_pingpong(run, make, give, take):
    """Two threads wake each other in turn, each through an object of its own: a round trip."""

    def trial(turns):
        def serve(one, two, give, take):
            for _ in range(turns):
                give(two)
                take(one)

        def answer(one, two, give, take):
            for _ in range(turns):
                take(two)
                give(one)

        one, two = make(), make()
        return run_pinned([partial(play, one, two, give, take) for play in (serve, answer)])

    return repeated(run, trial)


def lock_pingpong(run, module):
    types = importlib.import_module(module)

    def make():
        lock = types.Lock()
        lock.acquire()
        return lock

    return signal_pingpong(run, make, types.Lock.release, types.Lock.acquire)


def semaphore_pingpong(run, module):
    types = importlib.import_module(module)
    give, take = types.Semaphore.release, types.Semaphore.acquire
    return signal_pingpong(run, lambda: types.Semaphore(0), give, take)


def event_pingpong(run, module):
    types = importlib.import_module(module)

    def take(event):
        event.wait()
        event.clear()

    return signal_pingpong(run, types.Event, types.Event.set, take)


def barrier_rounds(run, module, parties):
    """A round of a Barrier whose threads do nothing else."""
    types = importlib.import_module(module)

    def trial(turns):
        def meet(barrier):
            for _ in range(turns):
                barrier.wait()

        return run_pinned([partial(meet, types.Barrier(parties))] * parties)

    return repeated(run, trial)


def wake_up(run, module, parked):
    """A round trip of two threads while `parked` others sleep, each on a lock of its own."""
    types = importlib.import_module(module)
    if run.tiny:
        parked = min(parked, 10)
    old_size = threading.stack_size(128 * 1024)
    locks = [types.Lock() for _ in range(parked)]
    sleepers = [threading.Thread(target=lock.acquire) for lock in locks]
    for lock, sleeper in zip(locks, sleepers, strict=True):
        lock.acquire()
        sleeper.start()
    threading.stack_size(old_size)
    time.sleep(0.1)  # not for correctness: let the last of them fall asleep
    elapsed = lock_pingpong(run, module)
    for lock in locks:
        lock.release()
    for sleeper in sleepers:
        sleeper.join()
    return elapsed


def both(function, *arguments):
    return {
        "threading": (function, "threading", *arguments),
        "fastsync": (function, "fastsync.threading", *arguments),
    }


CASES = [
    call(
        "pingpong.Condition",
        both(condition_pingpong),
        unit="s",
        goals=[Goal(0.7), Goal(0.4)],
        title="Condition, two threads: wait/notify round trip",
    ),
    call("pingpong.Lock", both(lock_pingpong), unit="s", title="Two Locks as signals: round trip"),
    call(
        "pingpong.Semaphore",
        both(semaphore_pingpong),
        unit="s",
        title="Two Semaphores as signals: round trip",
    ),
    call(
        "pingpong.Event", both(event_pingpong), unit="s", title="Two Events as signals: round trip"
    ),
    call("barrier.2", both(barrier_rounds, 2), unit="s", title="Barrier of 2: a round"),
    call(
        "barrier.4",
        both(barrier_rounds, 4),
        unit="s",
        goals=[Goal(0.4)],
        title="Barrier of 4: a round",
    ),
    *(
        call(
            f"wakeup.{parked}",
            both(wake_up, parked),
            unit="s",
            rounds=3,
            title=f"Two Locks as signals while {parked:,} other threads are parked",
        )
        for parked in (1, 100, 1000, 10000)
    ),
]
