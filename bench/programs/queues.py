"""Items a second through one queue.Queue: ITEMS, PAIRS of a producer and a consumer, BOUND."""

import queue
import sys
import threading
import time

items, pairs, bound = map(int, sys.argv[1:])
items //= pairs
q = queue.Queue(bound)


def produce():
    for item in range(items):
        q.put(item)


def consume():
    for _ in range(items):
        q.get()


threads = [threading.Thread(target=work) for work in [produce, consume] * pairs]
started = time.perf_counter()
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(items * pairs / (time.perf_counter() - started))
