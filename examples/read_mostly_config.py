"""Settings that all threads read all the time and somebody changes now and then: four ways.

    python examples/read_mostly_config.py [--threads 4] [--reads 100000]

A reader takes two settings that belong together; it must never see one old and one new.
"""

import argparse
import threading
import time
from types import MappingProxyType

from fastsync import AtomicRef, RwLock, ShardedLock
from fastsync import threading as fast


class WithLock:
    """One at a time, readers too."""

    def __init__(self, settings):
        self._settings = settings
        self._lock = fast.Lock()

    def read(self):
        with self._lock:
            return self._settings["host"], self._settings["port"]

    def change(self, host, port):
        with self._lock:
            self._settings["host"] = host
            self._settings["port"] = port


class WithRwLock:
    """Readers together, a writer alone; the settings are changed in place."""

    kind = RwLock

    def __init__(self, settings):
        self._lock = self.kind(settings)

    def read(self):
        with self._lock.read() as guard:
            return guard.value["host"], guard.value["port"]

    def change(self, host, port):
        with self._lock.write() as guard:
            guard.value["host"] = host
            guard.value["port"] = port


class WithShardedLock(WithRwLock):
    """The same; readers of different threads touch different memory, a writer takes longer."""

    kind = ShardedLock


class WithAtomicRef:
    """Nobody waits: a change makes new settings and swaps them in whole.

    A reader must load once and read from what it got: two loads may give two versions.
    """

    def __init__(self, settings):
        self._current = AtomicRef(MappingProxyType(dict(settings)))

    def read(self):
        settings = self._current.load()
        return settings["host"], settings["port"]

    def change(self, host, port):
        self._current.update(lambda old: MappingProxyType({**old, "host": host, "port": port}))


WAYS = {
    "Lock": WithLock,
    "RwLock": WithRwLock,
    "ShardedLock": WithShardedLock,
    "AtomicRef": WithAtomicRef,
}


def measure(config, threads, reads):
    """Million reads a second of all threads together, while one more thread makes changes."""
    start = threading.Barrier(threads + 1)
    done = threading.Event()
    mixed = []

    def read():
        start.wait()
        for _ in range(reads):
            host, port = config.read()
            if host != f"host-{port}":
                mixed.append((host, port))

    def change():
        port = 1
        while not done.wait(0.001):
            port += 1
            config.change(f"host-{port}", port)

    readers = [threading.Thread(target=read) for _ in range(threads)]
    writer = threading.Thread(target=change)
    for thread in [*readers, writer]:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in readers:
        thread.join()
    seconds = time.perf_counter() - began
    done.set()
    writer.join()
    if mixed:
        raise SystemExit(f"a reader saw {mixed[0]}")
    return threads * reads / seconds / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--reads", type=int, default=100_000)
    options = parser.parse_args()
    counts = [count for count in (1, 2, 4, 8, 16, 32, 64) if count <= options.threads]
    print("million reads a second, all threads together\n")
    print(f"{'threads':14}" + "".join(f"{count:>9}" for count in counts))
    for name, way in WAYS.items():
        rates = [
            measure(way({"host": "host-1", "port": 1}), count, options.reads) for count in counts
        ]
        print(f"{name:14}" + "".join(f"{rate:9.2f}" for rate in rates))
    print("\nno reader saw a mixed configuration")


if __name__ == "__main__":
    main()
