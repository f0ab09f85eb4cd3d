"""Storms: threads that do everything to the locks at random for a while; then all must be in order.

    python tools/stress.py [--seconds N] [--seed S] [STORM ...]

Each storm runs for N seconds, checks what it did and prints its seed: the same seed makes the same
choices again (the scheduling is the machine's). `make test` runs every storm for about a second.
"""

import argparse
import contextlib
import faulthandler
import gc
import os
import random
import sys
import threading
import time
import weakref
from pathlib import Path

import fastsync.threading as fs

# Neither -P nor a test that loads this file by its path has its folder in sys.path. The import
# of storms_native registers its storms.
sys.path.append(str(Path(__file__).resolve().parent))

import storms_native  # noqa: F401
from storms_common import PATIENCE, STORMS, Alarm, Crowd, Guarded, exclusion, in_child, queue, storm


@storm
def lock(crowd):
    return exclusion(crowd, fs.Lock())


@storm
def rlock(crowd):
    return exclusion(crowd, fs.RLock())


@storm
def condition_lock(crowd):
    return exclusion(crowd, fs.Condition())


@storm
def semaphore(crowd):
    return exclusion(crowd, fs.BoundedSemaphore(1))


@storm
def condition(crowd):
    return queue(crowd, fs.Lock())


@storm
def condition_over_rlock(crowd):
    return queue(crowd, fs.RLock())


@storm
def condition_over_a_foreign_lock(crowd):
    return queue(crowd, threading.Lock())


@storm
def permits(crowd):
    """Permits are neither made nor lost, with waiters that time out and are woken at once."""
    semaphore = fs.Semaphore(0)
    given, taken = [], []

    def give(chance):
        count = 0
        while crowd.going():
            n = chance.choice((1, 1, 2, 5))
            semaphore.release(n)
            count += n
            if chance.random() < 0.1:
                time.sleep(chance.random() * 0.001)
        given.append(count)

    def get(chance):
        count = 0
        while crowd.going():
            timeout = chance.choice((0, 1e-6, 1e-4, 1e-3, 0.01))
            count += semaphore.acquire(timeout=timeout)
        taken.append(count)

    crowd.start(give, 2)
    crowd.start(get, 4)
    crowd.join()
    assert sum(given) == sum(taken) + semaphore._value, "a permit was lost or made"
    return sum(given)


@storm
def ping_pong(crowd):
    """Two events in turn: a lost wake-up stops it for good."""
    ping, pong, rounds = fs.Event(), fs.Event(), [0]

    def play(mine, theirs):
        while crowd.going():
            assert mine.wait(PATIENCE), "a wake-up was lost"
            mine.clear()
            rounds[0] += 1
            theirs.set()
        theirs.set()

    ping.set()
    crowd.start(lambda _: play(ping, pong))
    crowd.start(lambda _: play(pong, ping))
    crowd.join()
    return rounds[0]


@storm
def event(crowd):
    """Waiters of all kinds while others set and clear."""
    event, woken = fs.Event(), [0]

    def wait(chance):
        while crowd.going():
            woken[0] += event.wait(chance.choice((0, 1e-6, 1e-4, 0.01, 1)))

    def pulse(chance):
        while crowd.going():
            event.set()
            if chance.random() < 0.5:
                event.clear()
        event.set()

    crowd.start(wait, 5)
    crowd.start(pulse, 2)
    crowd.join()
    return woken[0]


@storm
def barrier(crowd):
    """Rounds with timeouts, aborts and resets: who passes has all the others beside it."""
    parties = 3
    barrier = fs.Barrier(parties)
    passed = []

    def work(chance):
        count = 0
        while crowd.going():
            try:
                barrier.wait(chance.choice((1e-5, 1e-3, 0.1, 1)))
                count += 1
            except threading.BrokenBarrierError:
                if chance.random() < 0.5:
                    barrier.reset()
            if chance.random() < 0.01:
                chance.choice((barrier.abort, barrier.reset))()
        passed.append(count)

    crowd.start(work, 5)
    crowd.join()
    assert sum(passed) % parties == 0, "part of a round passed"
    barrier.reset()
    assert barrier.n_waiting == 0
    return sum(passed)


@storm
def crowd_of_500(crowd):
    """More threads than cores by far, on one lock, one condition and one semaphore."""
    lock, condition, permits, guarded = fs.Lock(), fs.Condition(), fs.Semaphore(3), Guarded()
    gate = fs.Barrier(500)

    def work(_):
        gate.wait(PATIENCE)
        for _ in range(3):
            with lock:
                guarded.touch()
            with condition:
                condition.notify()
                condition.wait(0.001)
            with permits:
                pass

    crowd.start(work, 500)
    crowd.join()
    assert guarded.total == 1500
    return guarded.total


@storm
def churn(crowd):
    """Threads begin and end by the hundred while others wait on the same words."""
    lock, condition, event, guarded = fs.Lock(), fs.Condition(), fs.Event(), Guarded()
    made = 0

    def steady(chance):
        while crowd.going():
            with lock:
                guarded.touch()
            with condition:
                condition.wait(0.0005)
            event.wait(0.0005)

    def short():
        with lock:
            guarded.touch()
        with condition:
            condition.notify_all()
        event.set()
        event.clear()

    crowd.start(steady, 3)
    while crowd.going():
        threads = [threading.Thread(target=short) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a thread is stuck"
        made += 50
    crowd.join()
    return made


@storm
def collector(crowd):
    """Collections without pause: stop-the-world at every moment of a wait."""
    crowd.start(lambda _: [gc.collect() for _ in iter(crowd.going, False)])

    class Finalized:
        def __init__(self, lock):
            self.me, self.lock, self.condition = self, lock, fs.Condition()
            self.condition.owner = self

        def __del__(self):
            with self.lock, self.condition:
                self.condition.notify_all()

    other = fs.RLock()

    def litter(_):
        while crowd.going():
            Finalized(other)

    crowd.start(litter)
    return queue(crowd, fs.Lock(), 2)


@storm
def weak_references(crowd):
    """Objects dropped while others reach them through weak references only."""
    shared = [None]
    reached = [0]

    def replace(chance):
        while crowd.going():
            thing = chance.choice((fs.Lock, fs.RLock, fs.Condition, fs.Semaphore))()
            shared[0] = weakref.ref(thing)
            if isinstance(thing, fs.Condition):
                thing.me = thing
            time.sleep(chance.random() * 0.0002)
            del thing

    def reach(_):
        while crowd.going():
            reference = shared[0]
            thing = reference and reference()
            if thing is not None:
                with thing:
                    reached[0] += 1

    crowd.start(replace, 2)
    crowd.start(reach, 3)
    crowd.join()
    return reached[0]


@storm
def tracing(crowd):
    """Trace and profile functions that lock, in every thread, set and unset all the time."""
    inner = fs.RLock()

    def hook(frame, kind, argument):
        with inner:
            return hook

    def switch(chance):
        while crowd.going():
            sys.settrace(chance.choice((hook, None)))
            sys.setprofile(chance.choice((hook, None)))
            time.sleep(0.001)
            with inner:
                pass

    def traced(chance):
        sys.settrace(hook)
        sys.setprofile(hook)
        try:
            while crowd.going():
                with shared:
                    guarded.touch()
        finally:
            sys.settrace(None)
            sys.setprofile(None)

    shared, guarded = fs.Lock(), Guarded()
    crowd.start(switch)
    crowd.start(traced, 3)
    crowd.join()
    return guarded.total


@storm
def signals(crowd):
    """The main thread waits in every call under a 1 kHz timer whose handler locks, and raises."""
    if threading.current_thread() is not threading.main_thread():
        return 0
    lock, rlock, condition, event = fs.Lock(), fs.RLock(), fs.Condition(), fs.Event()
    permits, guarded = fs.Semaphore(1), Guarded()
    chance = random.Random(crowd.random.random())

    def use_lock():
        if lock.acquire(timeout=0.0005):
            lock.release()

    def work(chance):
        while crowd.going():
            with lock:
                time.sleep(0.0002)
            with rlock:
                guarded.touch()
            with condition:
                condition.notify()
            event.set()
            event.clear()
            with permits:
                pass

    crowd.start(work, 3)
    rounds = 0
    try:
        with Alarm(use_lock, chance, crowd.end + PATIENCE) as alarm:
            while crowd.going():
                # Only calls after which it is known whether the lock is held may be interrupted.
                if rlock.acquire(timeout=0.01):
                    guarded.touch()
                    rlock.release()
                if permits.acquire(timeout=0.01):
                    permits.release()
                alarm.call(event.wait, 0.005)
                with condition:
                    alarm.call(condition.wait, 0.005)
                    assert condition._is_owned(), "interrupted without its lock"
                rounds += 1
    finally:
        crowd.join()
    assert alarm.handled, "the timer never fired"
    assert not lock.locked() and not rlock.locked() and permits._value == 1
    return rounds


@storm
def forks(crowd):
    """Fork with every lock contended; the child uses them after reinitializing, and new ones."""
    if not hasattr(os, "fork"):
        return 0
    locks = [fs.Lock(), fs.RLock(), fs.Condition(), fs.Condition(fs.Lock())]
    event, barrier = fs.Event(), fs.Barrier(2)

    def work(chance):
        while crowd.going():
            with chance.choice(locks):
                pass
            with locks[2]:
                locks[2].notify()
                locks[2].wait(chance.choice((1e-5, 1e-3)))
            with contextlib.suppress(threading.BrokenBarrierError):
                barrier.wait(1e-4)
            barrier.reset()
            event.wait(1e-5)
            event.set()
            event.clear()

    crowd.start(work, 4)

    def child():
        for thing in locks:
            thing._at_fork_reinit()
            with thing:
                pass
        with locks[2]:
            locks[2].notify_all()
            assert locks[2].wait(1e-5) is False
        event.set()
        assert event.wait(1)
        barrier.reset()
        fresh = fs.Lock()
        fresh.acquire()
        thread = threading.Thread(target=fresh.release)
        thread.start()
        assert fresh.acquire(timeout=20)
        thread.join()

    count = 0
    while crowd.going():
        in_child(child)
        count += 1
    crowd.join()
    return count


def run(name, seconds, seed):
    """Run one storm; say what it did. Its name is part of the seed, so that they differ."""
    print(f"{name}: seed {seed}", flush=True)
    begin = time.monotonic()
    count = STORMS[name](Crowd(seconds, f"{seed} {name}"))
    print(f"{name}: {count} in {time.monotonic() - begin:.1f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("storms", nargs="*", metavar="STORM", help=", ".join(STORMS))
    parser.add_argument("--seconds", type=float, default=10, help="of each storm")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    arguments = parser.parse_args()
    if unknown := set(arguments.storms) - set(STORMS):
        parser.error(f"no such storm: {', '.join(sorted(unknown))}")
    faulthandler.enable()
    for name in arguments.storms or STORMS:
        faulthandler.dump_traceback_later(arguments.seconds + 2 * PATIENCE, exit=True)
        run(name, arguments.seconds, arguments.seed)
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
