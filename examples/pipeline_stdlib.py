"""Count the words of the standard library's sources in a pipeline of threads.

    python examples/pipeline_stdlib.py              on the standard library's own locks and queues
    python -m fastsync examples/pipeline_stdlib.py  on fastsync, with nothing here changed

A pool of threads reads files and puts each line into a bounded queue; splitters take lines and put
what words they have into a second queue; counters add them to shared tables, each under a lock. The
work on one line is small, so threads meet all the time. The digest depends on every word of every
file, so two runs that agree did the same work.
"""

import argparse
import hashlib
import os
import queue
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from index_stdlib import kind, python_files

SHARDS = 8


class Tables:
    """How often each word occurs; a word's table follows from its length."""

    def __init__(self):
        self._locks = [threading.Lock() for _ in range(SHARDS)]
        self._counts = [Counter() for _ in range(SHARDS)]

    def add(self, words):
        for word in words:
            shard = len(word) % SHARDS
            with self._locks[shard]:
                self._counts[shard][word] += 1

    def digest(self):
        total = sum(self._counts, Counter())
        text = "".join(f"{word}\t{total[word]}\n" for word in sorted(total))
        return hashlib.sha256(text.encode()).hexdigest()


class Pipeline:
    def __init__(self, workers):
        self._workers = workers
        self._lines = queue.Queue(maxsize=256)
        self._words = queue.Queue(maxsize=256)
        self.tables = Tables()
        self.lines = 0
        self._lock = threading.Lock()

    def run(self, paths):
        splitters = self._start(self._split)
        counters = self._start(self._count)
        with ThreadPoolExecutor(self._workers) as pool:
            for _ in pool.map(self._read, paths):
                pass
        self._end(self._lines, splitters)
        self._end(self._words, counters)

    def _start(self, function):
        threads = [threading.Thread(target=function) for _ in range(self._workers)]
        for thread in threads:
            thread.start()
        return threads

    def _end(self, work, threads):
        for _ in threads:
            work.put(None)
        for thread in threads:
            thread.join()

    def _read(self, path):
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
        for line in lines:
            self._lines.put(line)
        with self._lock:
            self.lines += len(lines)

    def _split(self):
        for line in iter(self._lines.get, None):
            self._words.put(line.split())

    def _count(self):
        for words in iter(self._words.get, None):
            self.tables.add(words)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=max(2, (os.cpu_count() or 1) // 2))
    parser.add_argument("--limit", type=int, default=1000, help="read no more files than this")
    options = parser.parse_args()

    print(f"locks: {kind(threading.Lock())}, {kind(threading.Condition())}")
    paths = python_files(options.limit)
    pipeline = Pipeline(options.workers)
    print(f"{len(paths)} files through 3 stages of {options.workers} threads", flush=True)

    start = time.perf_counter()
    pipeline.run(paths)
    seconds = time.perf_counter() - start
    print(f"{pipeline.lines} lines")
    print("digest:", pipeline.tables.digest())
    print(f"seconds: {seconds:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
