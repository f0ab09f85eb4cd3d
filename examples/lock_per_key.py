"""A cache that computes each key once: one lock for all of it, or a lock for every key.

    python examples/lock_per_key.py [--locks 1000000] [--threads 4] [--keys 200]

With one lock, whoever wants a key that is there waits for whoever computes another. A lock for
every key is what one wants, if a lock is small and cheap to make; the first table shows that.
"""

import argparse
import hashlib
import os
import random
import threading
import time

from fastsync import Mutex
from fastsync import threading as fast


def resident():
    """Bytes of memory that this process has; 0 where we do not know how to ask."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def show_cost(name, make, count):
    """Make many locks and print what one costs. They stay alive, so that no other reuses them."""
    locks = [None] * count
    before, began = resident(), time.perf_counter()
    for i in range(count):
        locks[i] = make()
    seconds, size = time.perf_counter() - began, resident() - before
    print(f"{name:20}{size / count:10.0f}{seconds / count * 1e9:10.0f}")
    return locks


def compute(key, work):
    """Something that takes its time."""
    digest = str(key).encode()
    for _ in range(work):
        digest = hashlib.sha256(digest).digest()
    return digest


class OneLock:
    def __init__(self, compute):
        self._compute = compute
        self._values = {}
        self._lock = fast.Lock()

    def get(self, key):
        with self._lock:
            if key not in self._values:
                self._values[key] = self._compute(key)
            return self._values[key]


class LockPerKey:
    def __init__(self, compute):
        self._compute = compute
        self._entries = {}

    def get(self, key):
        # setdefault is atomic: all threads get the same Mutex, whoever made it.
        entry = self._entries.get(key) or self._entries.setdefault(key, Mutex())
        with entry as guard:
            if guard.value is None:
                guard.value = self._compute(key)
            return guard.value


def run(make, options):
    """Ask a new cache from all threads; the seconds, the number of computations and the sum."""
    computed = []

    def count_and_compute(key):
        computed.append(key)
        return compute(key, options.work)

    cache = make(count_and_compute)

    def work(seed):
        keys = random.Random(seed)
        for _ in range(options.calls):
            cache.get(keys.randrange(options.keys))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(options.threads)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    if len(computed) != len(set(computed)):
        raise SystemExit("a key was computed twice")
    return seconds, len(computed)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--locks", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--keys", type=int, default=200)
    parser.add_argument("--calls", type=int, default=2_000)
    parser.add_argument("--work", type=int, default=2_000)
    options = parser.parse_args()
    print(f"{options.locks} of each{'':8}{'bytes':>10}{'ns to make':>12}")
    alive = [
        show_cost("threading.Lock", threading.Lock, options.locks),
        show_cost("fastsync Lock", fast.Lock, options.locks),
        show_cost("fastsync Mutex", Mutex, options.locks),
    ]
    del alive
    print(f"\n{options.threads} threads, {options.calls} calls each, {options.keys} keys")
    for name, make in {"one lock for all": OneLock, "a lock per key": LockPerKey}.items():
        seconds, computed = run(make, options)
        print(f"{name:20} computed {computed:6} keys in {seconds:8.3f} s")


if __name__ == "__main__":
    main()
