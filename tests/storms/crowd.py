"""What all storms have in common."""

import faulthandler
import os
import random
import signal
import threading
import time
import traceback
import warnings

import fastsync.threading as drop_in

STORMS = {}
PATIENCE = 60.0  # after the storm has ended, until everybody must have come home


def storm(function):
    STORMS[function.__name__] = function
    return function


class Crowd:
    """Threads that run until the time is up; an exception in one is an exception of the storm."""

    def __init__(self, seconds, seed):
        self.random = random.Random(seed)
        self.end = time.monotonic() + seconds
        self.stopped = False
        self.errors = []
        self.threads = []

    def going(self):
        return not self.stopped and time.monotonic() < self.end

    def start(self, function, count=1):
        for _ in range(count):
            chance = random.Random(self.random.random())
            thread = threading.Thread(target=self._run, args=(function, chance), daemon=True)
            self.threads.append(thread)
            thread.start()

    def _run(self, function, chance):
        try:
            function(chance)
        except BaseException as error:
            self.errors.append(error)
            self.stopped = True

    def join(self):
        deadline = max(time.monotonic(), self.end) + PATIENCE
        for thread in self.threads:
            thread.join(max(0, deadline - time.monotonic()))
        if self.errors:
            raise self.errors[0]
        stuck = [thread for thread in self.threads if thread.is_alive()]
        if stuck:
            faulthandler.dump_traceback(all_threads=True)
            raise AssertionError(f"{len(stuck)} of {len(self.threads)} threads are stuck")


class Guarded:
    """What only one thread may touch at a time, and how often it was touched."""

    def __init__(self):
        self.inside = 0
        self.total = 0

    def touch(self):
        self.inside += 1
        assert self.inside == 1, "two threads at a time"
        self.total += 1
        self.inside -= 1


TIMEOUTS = (0, 0, 1e-6, 1e-5, 1e-4, 1e-3, -1)


def take(lock, chance):
    """Acquire in one of the ways there are; whether it was taken."""
    timeout = chance.choice(TIMEOUTS)
    return lock.acquire(False) if timeout == 0 else lock.acquire(timeout=timeout)


def exclusion(crowd, lock, threads=6):
    guarded = Guarded()
    taken = []

    def work(chance):
        count = 0
        while crowd.going():
            if chance.random() < 0.3:
                with lock:
                    guarded.touch()
            elif take(lock, chance):
                guarded.touch()
                lock.release()
            else:
                continue
            count += 1
        taken.append(count)

    crowd.start(work, threads)
    crowd.join()
    assert guarded.total == sum(taken), "an update was lost"
    assert lock.acquire(False), "the lock was left locked"
    lock.release()
    return guarded.total


def queue(crowd, lock, threads=3):
    """Producers and consumers: every item arrives once."""
    not_empty, not_full = drop_in.Condition(lock), drop_in.Condition(lock)
    items, sent, received, done = [], [], [], []

    def produce(chance):
        count = 0
        while crowd.going():
            with not_full:
                if not_full.wait_for(lambda: len(items) < 4, chance.choice((None, 0.001, 0.1))):
                    items.append((threading.get_ident(), count))
                    count += 1
                    not_empty.notify()
        sent.append(count)
        with lock:
            done.append(1)
            not_empty.notify_all()

    def consume(chance):
        while True:
            with not_empty:
                timeout = chance.choice((None, 0.001, 0.1))
                if not not_empty.wait_for(lambda: items or len(done) == threads, timeout):
                    continue
                if not items:
                    not_full.notify_all()
                    return
                received.append(items.pop(0))
                not_full.notify()

    crowd.start(produce, threads)
    crowd.start(consume, threads)
    crowd.join()
    assert len(received) == len(set(received)) == sum(sent), "an item was lost or came twice"
    return len(received)


def in_child(function):
    """Call it in the child of a fork, where it must return."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forking with threads
        pid = os.fork()
    if pid == 0:
        signal.alarm(30)  # faulthandler's own timer did not survive the fork
        status = 1
        try:
            function()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "a child failed"


class Interrupted(Exception):
    """What the handler of an Alarm raises."""


class Alarm:
    """A timer in the main thread, 1 kHz, whose handler calls `work` and sometimes raises.

    It raises only in what is called through call(). It may never raise in a storm's own
    bookkeeping, nor twice in one call: so it is armed by a call, and disarmed by the end of that,
    whichever it is, or by the handler itself.
    """

    def __init__(self, work, chance, deadline):
        self.work, self.chance, self.deadline = work, chance, deadline
        self.armed, self.handled, self.interrupted = False, 0, 0

    def __enter__(self):
        self.before = signal.signal(signal.SIGALRM, self.handle)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        return self

    def __exit__(self, *_):
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.before)

    def handle(self, *_):
        was_armed, self.armed = self.armed, False  # a handler in this one may not raise
        self.handled += 1
        assert time.monotonic() < self.deadline, "the main thread is stuck"
        self.work()
        if was_armed and self.chance.random() < 0.2:
            self.interrupted += 1
            raise Interrupted
        self.armed = was_armed

    def call(self, function, *arguments):
        """What it gives or raises; None if it was interrupted, perhaps after it had returned."""
        try:
            try:
                self.armed = True
                return function(*arguments)
            finally:
                self.armed = False
        except Interrupted:
            return None  # and a guard that had just come is dropped, at once: this thread made it
