"""A cache that looks fine and is slow: see docs/slow.md, which profiles it.

    python -m fastsync profile examples/contended_cache.py
    python -m fastsync profile examples/contended_cache.py --fixed

Eight threads ask for prices. A price that is not there is fetched, which takes a while; the first
version does that with the cache's lock held, so that nobody gets the prices that are there.
"""

import random
import sys
import threading
import time

KEYS = 40


def fetch(key):
    """Ask a slow service."""
    time.sleep(0.005)
    return key * 3


class Prices:
    """One lock for everything."""

    def __init__(self):
        self._lock = threading.Lock()
        self._known = {}

    def get(self, key):
        with self._lock:
            if key not in self._known:
                self._known[key] = fetch(key)
            return self._known[key]

    def expire(self, key):
        with self._lock:
            self._known.pop(key, None)


class FixedPrices:
    """The lock is held for the dict only; each key has something that is initialized once."""

    def __init__(self):
        from fastsync import OnceLock

        self._lock = threading.Lock()
        self._known = {}
        self._make = OnceLock

    def get(self, key):
        with self._lock:
            price = self._known.get(key)
            if price is None:
                price = self._known[key] = self._make()
        return price.get_or_init(lambda: fetch(key))

    def expire(self, key):
        with self._lock:
            self._known.pop(key, None)


def serve(prices, seed):
    rng = random.Random(seed)
    for _ in range(200):
        key = rng.randrange(KEYS)
        assert prices.get(key) == key * 3
        if rng.random() < 0.05:
            prices.expire(key)


def main():
    prices = FixedPrices() if "--fixed" in sys.argv[1:] else Prices()
    threads = [
        threading.Thread(target=serve, args=(prices, seed), name=f"server-{seed}")
        for seed in range(8)
    ]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{8 * 200} requests in {time.perf_counter() - began:.2f} s")


if __name__ == "__main__":
    main()
