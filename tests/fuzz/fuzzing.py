"""What the fuzzers have in common: arguments, rounds, threads, children, and how they tell.

Each fuzzer is a program:

    python tests/fuzz/fuzz_X.py [SECONDS] [SEED] [THREADS] [KIND ...]

It prints its seed. The same seed makes the same choices again, but the scheduling is the machine's.
Status 1 and a message when an invariant does not hold; a crash is one by itself, and what hangs is
ended with the stacks of all threads.
"""

import faulthandler
import os
import random
import signal
import sys
import threading
import time
import traceback
import warnings
from pathlib import Path

from fastsync.raw import parking

sys.path.append(str(Path(__file__).resolve().parents[1]))

from storms.crowd import Interrupted

PATIENCE = 60  # seconds for what should take none, on a machine with other work


class Wrong(Exception):
    """An invariant does not hold."""


class Round:
    """Threads that use what they share until the end; what one of them raises ends it."""

    def __init__(self, seed, threads, end, errors):
        self.seed, self.threads, self.end, self.errors = seed, threads, end, errors
        self.rng = random.Random(seed)

    def going(self):
        return not self.errors and time.monotonic() < self.end

    def start(self, *works):
        """Threads, not joined yet, each of which calls one of `works` with its own Random."""
        crowd = []
        for index, work in enumerate(works):
            rng = random.Random(f"{self.seed} {index}")
            crowd.append(threading.Thread(target=self.guarded, args=(work, rng), daemon=True))
        for thread in crowd:
            thread.start()
        return crowd

    def guarded(self, work, *args):
        try:
            work(*args)
        except BaseException as error:
            self.errors.append(error)

    def join(self, crowd):
        deadline = max(time.monotonic(), self.end) + PATIENCE
        for thread in crowd:
            while thread.is_alive() and time.monotonic() < deadline:
                thread.join(0.1)
                if self.errors:  # what is wrong may keep others waiting: run() ends the process
                    return
        if stuck := sum(thread.is_alive() for thread in crowd):
            faulthandler.dump_traceback(all_threads=True)
            self.errors.append(Wrong(f"{stuck} threads are stuck"))


def wait_until(condition, what):
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise Wrong(what)
        time.sleep(0.001)


def check_nobody_is_parked():
    if parked := parking.parked_total():
        raise Wrong(f"{parked} threads are parked, and no thread is there")


def in_child(check, seconds=20):
    """Call it in the child of a fork, where it must return within `seconds`."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forking with threads
        pid = os.fork()
    if pid == 0:
        message = ""
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(2 * seconds)  # should the parent end before it
            check()
        except BaseException:
            message = traceback.format_exc()
        os.write(write, message.encode()[-4000:])
        os._exit(0)
    os.close(write)
    end = time.monotonic() + seconds
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(pid, signal.SIGABRT)  # faulthandler tells where it hangs
            os.waitpid(pid, 0)
            os.close(read)
            raise Wrong("the child of a fork hangs")
        time.sleep(0.0005)
    message = os.read(read, 4000).decode()
    os.close(read)
    if message or ended[1]:
        raise Wrong(f"the child of a fork failed with status {ended[1]}: {message}")


def run(kinds, one_round, fuzz=sys.argv):
    """Rounds until the time is up: one_round(Round, chosen kinds). The status of the program."""
    seconds = float(fuzz[1]) if len(fuzz) > 1 else 10
    seed = int(fuzz[2]) if len(fuzz) > 2 else random.randrange(2**32)
    threads = int(fuzz[3]) if len(fuzz) > 3 else 4
    chosen = fuzz[4:] or list(kinds)
    print(f"seed {seed}, {threads} threads, {seconds:g} s, {' '.join(chosen)}", flush=True)
    faulthandler.enable()
    faulthandler.dump_traceback_later(seconds + 3 * PATIENCE, exit=True)
    errors = []

    def unraisable(event):
        if not isinstance(event.exc_value, Interrupted):  # a handler's, raised in a finalizer
            errors.append(event.exc_value)

    sys.unraisablehook = unraisable
    began = time.monotonic()
    rounds = 0
    while time.monotonic() < began + seconds and not errors:
        try:
            one_round(Round(seed + rounds, threads, began + seconds, errors), chosen)
        except BaseException as error:
            errors.append(error)
        rounds += 1
    took = time.monotonic() - began
    faulthandler.cancel_dump_traceback_later()
    if errors:
        traceback.print_exception(errors[0])
        print(f"after {took:.1f} s, in round {rounds}: {errors[0]!r}", flush=True)
        sys.stderr.flush()
        os._exit(1)
    print(f"{rounds} rounds, nothing found")
    return 0
