"""Index every word of the standard library's sources, with plain `threading`.

    python examples/index_stdlib.py              on the standard library's own locks
    python -m fastsync examples/index_stdlib.py  on fastsync, with nothing here changed

Worker threads take files from a queue, split them into tokens, and add what they find to one
index. When all files are in, they meet, and each digests its share of the index. The digest
depends on every token of every file, so two runs that agree did the same work.
"""

import argparse
import hashlib
import os
import queue
import sys
import threading
import time
import tokenize
from collections import Counter

UNREADABLE = (SyntaxError, UnicodeDecodeError, tokenize.TokenError)


class Index:
    """How often each token occurs, and in how many files."""

    def __init__(self):
        self._lock = threading.RLock()
        self._counts = Counter()
        self._files = Counter()

    def add(self, counts):
        with self._lock:
            self._counts.update(counts)
            self._files.update(counts.keys())

    def words(self):
        with self._lock:
            return sorted(self._counts)

    def entry(self, word):
        with self._lock:
            return f"{word}\t{self._counts[word]}\t{self._files[word]}\n"

    def digest(self, words):
        """One hash over the entries of `words`; the lock is taken again for each of them."""
        with self._lock:
            text = "".join(map(self.entry, words))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Progress:
    """How many files are done; whoever wants to know when that changes can wait for it."""

    def __init__(self, total):
        self.total = total
        self.done = 0
        self.unreadable = 0
        self._changed = threading.Condition()

    def count(self, readable):
        with self._changed:
            self.done += 1
            self.unreadable += not readable
            self._changed.notify_all()

    def wait_until_done(self):
        with self._changed:
            self._changed.wait_for(lambda: self.done == self.total)

    def show(self, stop, every):
        """Print a line now and then until the event `stop` is set."""
        while not stop.wait(every):
            print(f"  {self.done:5d} of {self.total} files", flush=True)


class Indexer:
    def __init__(self, workers, total):
        self.files = queue.Queue(maxsize=4 * workers)
        self.index = Index()
        self.progress = Progress(total)
        self.shares = [""] * workers
        self.failures = []
        self._workers = workers
        self._reading = threading.Semaphore(2)  # no more than two files are being read at a time
        self._met = threading.Barrier(workers, action=self._sort_words)
        self._words = []

    def work(self, number):
        """What each worker thread does."""
        for path in iter(self.files.get, None):
            try:
                readable = self._index_file(path)
            except Exception as error:  # the other files still count
                self.failures.append(f"{path}: {error!r}")
                readable = False
            self.progress.count(readable)
        self._met.wait()
        self.shares[number] = self.index.digest(self._words[number :: self._workers])

    def _index_file(self, path):
        with self._reading:
            with open(path, "rb") as file:
                lines = file.readlines()
        counts = Counter()
        try:
            for token in tokenize.tokenize(iter(lines).__next__):
                counts[token.string] += 1
        except UNREADABLE:
            return False  # the standard library's tests hold some broken files on purpose
        self.index.add(counts)
        return True

    def _sort_words(self):
        # The barrier calls this once, while everyone waits.
        self._words = self.index.words()


def python_files(limit):
    root = os.path.dirname(os.path.abspath(os.__file__))
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - {"site-packages", "__pycache__"})
        found += [os.path.join(folder, name) for name in sorted(names) if name.endswith(".py")]
    return found[:limit]


def run(paths, workers):
    indexer = Indexer(workers, len(paths))
    stop_showing = threading.Event()
    threads = [threading.Thread(target=indexer.work, args=(number,)) for number in range(workers)]
    reporter = threading.Thread(target=indexer.progress.show, args=(stop_showing, 1.0))
    for thread in [*threads, reporter]:
        thread.start()
    for path in paths:
        indexer.files.put(path)
    for _ in threads:
        indexer.files.put(None)
    indexer.progress.wait_until_done()
    for thread in threads:
        thread.join()
    stop_showing.set()
    reporter.join()
    return indexer


def kind(thing):
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=max(4, os.cpu_count() or 1))
    parser.add_argument("--limit", type=int, default=None, help="index no more files than this")
    options = parser.parse_args()

    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    print(f"Python {sys.version.split()[0]}, GIL {'on' if gil else 'off'}")
    print(f"locks: {kind(threading.Lock())}, {kind(threading.RLock())}, {kind(threading.Event())}")
    paths = python_files(options.limit)
    print(f"indexing {len(paths)} files with {options.workers} threads", flush=True)

    start = time.perf_counter()
    indexer = run(paths, options.workers)
    seconds = time.perf_counter() - start
    if indexer.failures:
        print("\n".join(indexer.failures), file=sys.stderr)
        return 1
    words = len(indexer.index.words())
    print(f"{words} different tokens; {indexer.progress.unreadable} files are not valid Python")
    print("digest:", hashlib.sha256("".join(indexer.shares).encode()).hexdigest())
    print(f"seconds: {seconds:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
