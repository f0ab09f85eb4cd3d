"""Which words are in the files below a folder, and how often? A pipeline of three stages.

    python examples/pipeline.py [FOLDER]

One thread finds files, four read them, the main thread adds up. Each stage closes what it sends on
when its input has ended, so the end comes after the last file. Ctrl-C closes the far end: each
stage hears of it at its next send, and the counts so far are printed.
"""

import collections
import os
import re
import sys
import threading

from fastsync.channel import RecvClosed, SendClosed, bounded, select, tick

READERS = 4
WORD = re.compile(rb"[A-Za-z]{3,}")


def find(folder, paths):
    """Send the path of each text file."""
    with paths:
        for parent, _, names in os.walk(folder):
            for name in names:
                if name.endswith((".py", ".md", ".txt", ".c", ".h")):
                    paths.send(os.path.join(parent, name))


def count(paths, counts):
    """Send the words of each file, counted."""
    with paths, counts:
        for path in paths:
            try:
                with open(path, "rb") as file:
                    words = WORD.findall(file.read())
            except OSError as error:
                print(f"left out: {error}", file=sys.stderr)
                continue
            counts.send(collections.Counter(word.lower() for word in words))


def quietly(stage, *ends):
    """Run a stage; that the next one has closed is not a failure."""
    try:
        stage(*ends)
    except SendClosed:
        pass


def main():
    """Start the stages, add up what comes, and print the most frequent words."""
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    paths, to_read = bounded(100)
    counts, to_add = bounded(10)
    threads = [threading.Thread(target=quietly, args=(find, folder, paths))]
    threads += [
        threading.Thread(target=quietly, args=(count, to_read.clone(), counts.clone()))
        for _ in range(READERS)
    ]
    to_read.close()
    counts.close()
    for thread in threads:
        thread.start()

    total, files, beat = collections.Counter(), 0, tick(1)
    try:
        with to_add:
            while True:
                index, found = select(to_add, beat)
                if index == 0:
                    total += found
                    files += 1
                else:
                    print(f"{files} files so far", file=sys.stderr)
    except RecvClosed:
        pass
    except KeyboardInterrupt:
        print("interrupted: the counts so far", file=sys.stderr)
    for thread in threads:
        thread.join()
    print(f"{files} files, {total.total()} words; the most frequent:")
    for word, times in total.most_common(5):
        print(f"{times:8} {word.decode()}")


if __name__ == "__main__":
    main()
