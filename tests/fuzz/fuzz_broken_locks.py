#!/usr/bin/env python3
"""Use the seven types of fastsync.threading as none may, from several threads, at random.

    python tests/fuzz/fuzz_broken_locks.py [SECONDS] [SEED] [THREADS] [used|reset]

Objects of all seven types are released by who does not hold them, initialized while others use
them, called with whatever there is, and lose their private attributes. `reset`: with
_at_fork_reinit(), which forgets those who wait; so nobody waits without a limit there, and none
works in stock's way, and it forks. (In 3.13t the lock of a dict that several threads write may
stay locked in the child of a fork, and stock's way needs the dict.)

Checked: nothing crashes, hangs or raises SystemError; nobody is left parked; each object works
again once it is initialized, and is freed. For what must hold in programs that keep the rules see
fuzz_locks.py.
"""

import contextlib
import gc
import sys
import threading
import time
import warnings
import weakref
from pathlib import Path

import fastsync.threading as fs

sys.path.append(str(Path(__file__).resolve().parent))

import fuzzing
from fuzz_locks import LENGTH, SHARED, TIMES, Number, Raising, subclass
from fuzzing import Wrong
from storms.crowd import Alarm

# What may wait without a limit is called with one, below, or not at all.
LEFT_OUT = {
    "acquire",
    "acquire_lock",
    "wait",
    "wait_for",
    "_wait",
    "_enter",
    "__enter__",
    "__exit__",
}
LEFT_OUT |= {"_acquire_restore", "_release_save", "__init__", "_at_fork_reinit", "__new__"}
LEFT_OUT |= {"__class__", "__del__", "__getattribute__", "__setattr__", "__delattr__", "_release"}
PRIVATE = {
    "Condition": ("_lock", "_waiters"),
    "Semaphore": ("_value", "_cond"),
    "BoundedSemaphore": ("_value", "_initial_value", "_cond"),
    "Event": ("_flag", "_cond"),
    "Barrier": ("_state", "_count", "_parties"),
}


class Broken:
    """Objects of all types that several threads use as none may."""

    def __init__(self, reset, rng):
        self.reset = reset
        self.locks = [fs.Lock(), fs.Lock(), fs.RLock(), fs.RLock()]
        self.conditions = [fs.Condition(lock) for lock in self.locks]
        self.box = []
        for name in (*SHARED, *SHARED):
            cls = getattr(fs, name) if self.reset else subclass(getattr(fs, name), rng)
            self.box.append((name, cls(*self.arguments(name, rng))))
        self.references = [weakref.ref(thing) for _, thing in self.box]

    def arguments(self, name, rng):
        if name == "Condition":
            return [rng.choice(self.locks)]  # known, to be released
        if name == "Barrier":
            return [rng.choice([1, 2, 3]), rng.choice([None, int, Raising]), None]
        return [rng.choice([0, 1, 3])] if name.endswith("Semaphore") else []

    def any_argument(self, rng):
        values = [None, 0, 1, -1, 2, 1e-4, "x", (), int, 2**63, 10**30, float("nan")]
        values += [self.box[0][1], rng.choice(self.locks), Number(lambda: None, rng)]
        return rng.choice(values)

    def call(self, rng):
        name, thing = rng.choice(self.box)
        uses = [self.any_method] * 4 + [self.timed] * 6 + [self.initialize]
        uses += [self.forget] if self.reset else [self.private, self.inner, self.note]
        try:
            rng.choice(uses)(name, thing, rng)
        except (SystemError, MemoryError) as error:
            raise Wrong(f"{name}: {error!r}") from error
        except Exception:
            pass
        self.let_go()

    def let_go(self):
        """What this thread has: nobody else can release it."""
        for lock in self.locks[2:] + [thing for name, thing in self.box if name == "RLock"]:
            with contextlib.suppress(RuntimeError):
                while True:
                    lock.release()

    def any_method(self, name, thing, rng):
        left_out = LEFT_OUT
        if name == "Barrier":  # see inner(); and after _exit() it works in stock's way
            left_out = LEFT_OUT | {"_cond", "_exit"}
        names = [each for each in dir(thing) if each not in left_out]
        method = getattr(thing, rng.choice(names))
        if callable(method):
            method(*[self.any_argument(rng) for _ in range(rng.choice([0, 0, 1, 2, 3]))])

    def timed(self, name, thing, rng):
        time = rng.choice(TIMES)
        if name in ("Event", "Barrier"):
            thing.wait(time)
        elif name == "Condition" and rng.random() < 0.7 and not self.reset:
            if thing.acquire(timeout=time):
                rng.choice([thing.wait, lambda t: thing.wait_for(rng.random, t)])(time)
        elif thing.acquire(True, time) and rng.random() < 0.8:
            thing.__exit__(None, None, None)

    def initialize(self, name, thing, rng):
        if name != "Barrier" or self.reset:  # in stock's way its waiters would wait for ever
            thing.__init__(*self.arguments(name, rng))

    def private(self, name, thing, rng):
        for attribute in PRIVATE.get(name, ()):
            if rng.random() < 0.1:
                value = rng.choice(self.conditions if attribute == "_cond" else [0, 1, 2, True])
                value = rng.choice(self.locks) if attribute == "_lock" else value
                setattr(thing, attribute, [] if attribute == "_waiters" else value)
            elif rng.random() < 0.02 and name != "Barrier":
                delattr(thing, attribute)

    def inner(self, name, thing, rng):
        # When it comes to work in stock's way, `_cond` is exchanged, and a Barrier's waiters, which
        # have no limit there, would wait at the former one.
        if name != "Barrier":
            with (condition := thing._cond):
                condition.wait(1e-4) if rng.random() < 0.5 else condition.notify_all()

    def note(self, name, thing, rng):
        # Not `thing.__dict__ = ...`: 3.13t crashes, with objects of any class.
        thing.note = [thing]
        del thing.note

    def forget(self, name, thing, rng):
        thing._at_fork_reinit()

    def rescue(self):
        """End what threads left locked that were refused their release."""
        for lock in self.locks[:2] + [thing for name, thing in self.box if name == "Lock"]:
            with contextlib.suppress(RuntimeError):
                lock.release()

    def wake(self):
        for name, thing in self.box:
            with contextlib.suppress(Exception):
                if name == "Barrier":
                    thing.abort()
                elif name.endswith("Semaphore"):
                    thing.release()

    def look(self):
        for _, thing in self.box:
            with contextlib.suppress(Exception):
                repr(thing)

    def use_anew(self):
        """No thread uses them any more, or the others are not in this process."""
        for lock in self.locks:
            lock._at_fork_reinit()
        for name, thing in self.box:
            with contextlib.suppress(Exception):  # a private attribute is missing
                thing._at_fork_reinit()
            thing.__init__(*[2] * name.endswith("Semaphore"), *[1] * (name == "Barrier"))
            if name == "Event":
                thing.set()
                usable = thing.wait()
            elif name == "Barrier":
                usable = thing.wait() == 0
            else:
                if usable := thing.acquire(True, 5):
                    thing.release()
            if not usable:
                raise Wrong(f"{thing!r} cannot be used after it was initialized")


def break_by_a_crowd(fuzz, reset):
    fuzz.end = min(fuzz.end, time.monotonic() + LENGTH)
    broken = Broken(reset, fuzz.rng)
    finished, woken = threading.Event(), threading.Event()

    def work(rng):
        while fuzz.going():
            broken.call(rng)

    def wake(rng):
        while not finished.wait(0.001):
            broken.wake()

    def rescue(rng):
        while not woken.wait(0.0005):
            broken.rescue()

    crowd = fuzz.start(*[work] * (fuzz.threads - 1))
    waker, rescuer = fuzz.start(wake), fuzz.start(rescue)
    with Alarm(broken.look, fuzz.rng, time.monotonic() + 2 * fuzzing.PATIENCE):
        try:
            while fuzz.going():
                time.sleep(0.02)
                if reset:
                    fuzzing.in_child(broken.use_anew)
        except BaseException as error:
            fuzz.errors.append(error)
    fuzz.join(crowd)
    finished.set()
    fuzz.join(waker)  # which may have to be rescued, too
    woken.set()
    fuzz.join(rescuer)
    if not fuzz.errors:
        broken.use_anew()
    return broken.references


def one_round(fuzz, kinds):
    references = break_by_a_crowd(fuzz, kinds[fuzz.seed % len(kinds)] == "reset")

    def freed():
        gc.collect()
        return not any(reference() for reference in references)

    if not fuzz.errors:
        fuzzing.check_nobody_is_parked()
        fuzzing.wait_until(freed, f"not freed: {[each() for each in references if each()]}")


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)  # of the deprecated names
    sys.exit(fuzzing.run(("used", "used", "reset"), one_round))
