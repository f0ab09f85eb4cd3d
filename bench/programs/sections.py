"""Rounds a second of threads that work inside and outside of a lock.

sections.py COUNT THREADS INSIDE OUTSIDE shared|own: iterations of a small loop in and after the
section (about 30 ns each); one lock for all, or one for each thread.
"""

import sys
import threading
import time

count, threads, inside, outside = map(int, sys.argv[1:5])
shared = threading.Lock()
rounds = max(1, count // threads)


def work(iterations):
    total = 0
    for i in range(iterations):
        total += i
    return total


def run(lock):
    barrier.wait()
    for _ in range(rounds):
        with lock:
            work(inside)
        work(outside)


barrier = threading.Barrier(threads + 1)
crew = [
    threading.Thread(target=run, args=(shared if sys.argv[5] == "shared" else threading.Lock(),))
    for _ in range(threads)
]
for thread in crew:
    thread.start()
barrier.wait()
began = time.perf_counter()
for thread in crew:
    thread.join()
print(rounds * threads / (time.perf_counter() - began))
