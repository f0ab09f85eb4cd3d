"""A queue with a limit that can be closed: producers wait when it is full, consumers when empty.

    python examples/bounded_queue.py [--producers 2] [--consumers 3] [--items 20000] [--size 16]

Ctrl-C works while it waits: it closes the queue, and everybody goes home.
"""

import argparse
from collections import deque

import fastsync.threading as threading


class Closed(Exception):
    """The queue is closed, and what was in it is gone."""


class BoundedQueue:
    def __init__(self, size):
        self._items = deque()
        self._size = size
        self._closed = False
        # Two conditions on one lock: a put wakes a consumer only, a get a producer only.
        lock = threading.Lock()
        self._not_empty = threading.Condition(lock)
        self._not_full = threading.Condition(lock)

    def put(self, item):
        with self._not_full:
            self._not_full.wait_for(lambda: self._closed or len(self._items) < self._size)
            if self._closed:
                raise Closed
            self._items.append(item)
            self._not_empty.notify()

    def get(self):
        with self._not_empty:
            self._not_empty.wait_for(lambda: self._closed or self._items)
            if not self._items:
                raise Closed
            item = self._items.popleft()
            self._not_full.notify()
            return item

    def close(self):
        """No more puts; gets go on until the queue is empty."""
        with self._not_full:
            self._closed = True
            self._not_full.notify_all()
            self._not_empty.notify_all()


def produce(queue, number, count):
    try:
        for i in range(count):
            queue.put((number, i))
    except Closed:
        pass


def consume(queue, got):
    try:
        while True:
            got.append(queue.get())
    except Closed:
        pass


def jain(counts):
    """1.0 when all got the same, 1/n when one got everything."""
    return sum(counts) ** 2 / (len(counts) * sum(count**2 for count in counts))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--producers", type=int, default=2)
    parser.add_argument("--consumers", type=int, default=3)
    parser.add_argument("--items", type=int, default=20_000, help="of each producer")
    parser.add_argument("--size", type=int, default=16)
    options = parser.parse_args()

    queue = BoundedQueue(options.size)
    taken = [[] for _ in range(options.consumers)]
    consumers = [threading.Thread(target=consume, args=(queue, got)) for got in taken]
    producers = [
        threading.Thread(target=produce, args=(queue, number, options.items))
        for number in range(options.producers)
    ]
    for thread in consumers + producers:
        thread.start()
    interrupted = False
    try:
        for thread in producers:
            thread.join()
    except KeyboardInterrupt:
        interrupted = True
    queue.close()
    for thread in producers + consumers:
        thread.join()

    for number, got in enumerate(taken):
        print(f"consumer {number}: {len(got)} items")
    counts = [len(got) for got in taken]
    print(f"Jain's index of fairness: {jain(counts):.3f}")
    if interrupted:
        print("interrupted: closed, emptied, everybody is home")
        return
    put = options.producers * options.items
    items = sorted(item for got in taken for item in got)
    if items != [(p, i) for p in range(options.producers) for i in range(options.items)]:
        raise SystemExit("items were lost, or came twice")
    print(f"{put} items in, {len(items)} out, none lost, none twice")


if __name__ == "__main__":
    main()
