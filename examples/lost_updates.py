"""Threads add to one number: what gets lost without a lock, and what each remedy costs.

    python examples/lost_updates.py [--threads 8] [--turns 100000]

On a Python without the GIL the first line shows lost updates; with the GIL there may be none,
which is luck: `box.n += 1` is three steps there too.
"""

import argparse
import threading
import time

from fastsync import AtomicI64, Counter, Mutex
from fastsync import threading as fast


class Box:
    def __init__(self):
        self.n = 0


def unprotected():
    box = Box()

    def add():
        box.n += 1

    return add, lambda: box.n


def under(lock):
    box = Box()

    def add():
        with lock:
            box.n += 1

    return add, lambda: box.n


def mutex():
    """A lock that holds what it protects: no way to the number but through the lock."""
    number = Mutex(0)

    def add():
        with number as guard:
            guard.value += 1

    return add, lambda: number.into_inner()


def atomic():
    number = AtomicI64(0)

    def add():
        number.fetch_add(1)

    return add, number.load


def counter():
    """For what is counted all the time and read now and then."""
    hits = Counter()
    return hits.increment, hits.value


REMEDIES = {
    "no lock": unprotected,
    "threading.Lock": lambda: under(threading.Lock()),
    "fastsync Lock": lambda: under(fast.Lock()),
    "fastsync Mutex": mutex,
    "AtomicI64": atomic,
    "Counter": counter,
}


def run(add, threads, turns):
    """Call `add` so many times in each thread; the seconds that it took."""
    start = threading.Barrier(threads + 1)

    def work():
        start.wait()
        for _ in range(turns):
            add()

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    began = time.perf_counter()
    for worker in workers:
        worker.join()
    return time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--turns", type=int, default=100_000)
    options = parser.parse_args()
    expected = options.threads * options.turns
    print(f"{options.threads} threads add 1, {options.turns} times each: {expected} in all\n")
    print(f"{'':16}{'total':>10}{'lost':>10}{'ns each':>10}")
    for name, make in REMEDIES.items():
        add, total = make()
        seconds = run(add, options.threads, options.turns)
        lost = expected - total()
        print(f"{name:16}{total():10}{lost:10}{seconds / expected * 1e9:10.0f}")
        if lost and name != "no lock":
            raise SystemExit(f"{name} has lost updates")


if __name__ == "__main__":
    main()
