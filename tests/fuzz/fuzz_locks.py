#!/usr/bin/env python3
"""Use and misuse the seven types of fastsync.threading from several threads, at random.

    python tests/fuzz/fuzz_locks.py [SECONDS] [SEED] [THREADS] [Lock|RLock|...]

Threads share one object, or a Condition and its lock, half of the time of a subclass. They acquire
and release in all ways there are, pass what they hold to one another, wait, notify, set, abort and
reset, and make the calls that must be refused and change nothing: by who is no owner, with numbers
that are wrong, whose conversion raises, or uses the object. Finalizers, weak references' callbacks
and the handlers of the main thread use the object too, handlers raise in its waits, and it forks.

Checked, all the time: never two holders; a call that is refused raises what is documented and
changes nothing; no permit, wake-up or passing of a barrier that nobody gave; the child of a fork
can use all after _at_fork_reinit(). At the end of each round: nothing is left locked, every permit
is there, nobody is parked, and every object is freed.
"""

import contextlib
import gc
import random
import sys
import threading
import time
import weakref
from pathlib import Path

import fastsync.threading as fs
from fastsync import AtomicI64, AtomicRef

sys.path.append(str(Path(__file__).resolve().parent))

import fuzzing
from fuzzing import Wrong
from storms.crowd import Alarm

LENGTH = 0.5  # seconds of a round
TIMES = (0, 1e-6, 1e-4, 1e-3)
REFUSALS = (ValueError, TypeError, OverflowError, AttributeError)
alive = AtomicI64(0)


class Raising(Exception):
    """What a hostile number raises."""


class Number:
    """Hostile: the conversion uses the object, and raises half of the time."""

    def __init__(self, use, rng):
        self.use, self.raises = use, rng.random() < 0.5

    def converted(self):
        self.use()
        if self.raises:
            raise Raising
        return 1

    def __index__(self):
        return self.converted() - 1

    def __float__(self):
        return 1e-4 * self.converted()

    def __bool__(self):
        return bool(self.converted())


class Noise:
    """Its finalizer uses the object."""

    def __init__(self, use, cycle):
        alive.fetch_add(1)
        self.use = use
        self.itself = self if cycle else None

    def __del__(self):
        alive.fetch_sub(1)
        self.use()


def subclass(cls, rng):
    """The type itself, or a subclass, which works in the way of the standard library."""
    if cls is fs.Lock or rng.random() < 0.5:
        return cls

    class Sub(cls):
        pass

    class Slotted(cls):
        __slots__ = ("note",)

    def passed_on(name):
        return lambda self, *args, **named: getattr(cls, name)(self, *args, **named)

    names = ("acquire", "release", "wait", "notify", "set", "is_set", "abort")
    methods = {name: passed_on(name) for name in names if hasattr(cls, name)}
    return rng.choice([Sub, Slotted, type("Overriding", (cls,), methods)])


class Shared:
    """One object. Each kind has `takes`, and what is particular to it."""

    arguments = ()
    waits = ""  # the method that takes a timeout

    def __init__(self, name, rng):
        self.type = getattr(fs, name)
        self.cls = subclass(self.type, rng)
        # Stock's methods hold the lock of a Condition while they run: what comes between them, a
        # handler or a finalizer, must not use the object, there as here.
        self.native = self.cls is self.type or name == "RLock"
        self.thing = self.make()
        self.inside = []
        self.references = [None] * 8
        self.reference = weakref.ref(self.thing)

    def make(self):
        return self.cls(*self.arguments)

    # -- what must not disturb anybody

    def look(self):
        thing = self.thing
        (repr(thing), hash(thing), thing == thing, sys.getsizeof(thing), weakref.ref(thing)())

    def between(self):
        """What a handler, a finalizer and a hostile number do."""
        self.look()
        if self.native:
            self.brief()

    def brief(self):
        """Use the object without waiting."""

    def refused(self, rng):
        """A call that raises and changes nothing."""
        thing = self.thing
        calls = [
            lambda: thing(1),
            lambda: thing(a=1),
            lambda: thing.__reduce_ex__(2) if self.copied_by_none() else thing(1, 2),
            lambda: thing.no_such_thing,
            lambda: type(thing).__init__(object(), 1),
            lambda: type(thing).__repr__(None),
            lambda: object.__new__(type(thing)),
        ]
        if self.waits:
            wait = getattr(thing, self.waits)
            calls += [lambda: wait(1, 2, 3, 4), lambda: wait(no_such_argument=1)]
        call = rng.choice(calls + self.refusals(rng))
        try:
            call()
        except (*REFUSALS, Raising, RuntimeError):
            return
        raise Wrong(f"the call in line {call.__code__.co_firstlineno} was not refused")

    def refusals(self, rng):
        return []

    def copied_by_none(self):
        return self.native and self.cls is self.type

    def noise(self, rng):
        noise = Noise(self.between, rng.random() < 0.5)
        # The callback is called if the reference is there by then.
        self.references[rng.randrange(8)] = weakref.ref(noise, lambda _: self.between())
        if rng.random() < 0.05:
            gc.collect()

    def attributes(self, rng):
        thing = self.thing
        # Of one that works in stock's way a fork's child needs the dict, and who has its lock in
        # 3.13t may not be there.
        if self.native and hasattr(thing, "__dict__") and rng.random() < 0.5:
            thing.note = rng.random()
            thing.__dict__.pop("note", None)
        else:
            weakref.finalize(thing, int).detach()

    def misuse(self, rng):
        rng.choice([self.refused, self.refused, self.noise, self.attributes])(rng)

    # -- order again

    def sweep(self):
        """Again and again: what nobody else does for threads that wait."""

    def check_end(self):
        """No thread uses the object any more."""

    def check_child(self):
        # New ones: in 3.13t the lock of a list or dict may stay locked in the child of a fork.
        self.inside, self.references = [], [None] * 8
        self.thing._at_fork_reinit()
        self.forget()
        rng = random.Random(1)
        for _ in range(20):
            self.use_alone(rng)
            self.refused(rng)
        self.look()

    def forget(self):
        """What the threads of the parent had is free here."""

    def use_alone(self, rng):
        self.use(rng)


class Locks(Shared):
    """Lock, RLock, and a Condition over one of them or over a lock of Python code."""

    waits = "acquire"
    reentrant = False

    def __init__(self, name, rng):
        super().__init__(name, rng)
        self.handed = []  # a Lock may be released by another thread

    def take(self, rng):
        thing = self.thing
        time = rng.choice(TIMES)
        ways = [
            lambda: thing.acquire(),
            lambda: thing.acquire(False),
            lambda: thing.acquire(True, time),
            lambda: thing.acquire(timeout=time),
            lambda: thing.__enter__(),
            lambda: thing.acquire(blocking=Number(self.look, rng), timeout=time),
            lambda: thing.acquire(timeout=Number(self.between, rng)),
        ]
        try:
            return rng.choice(ways)() is not False
        except (Raising, TypeError):
            return False

    def leave(self, rng):
        thing = self.thing
        rng.choice([thing.release, lambda: thing.__exit__(None, None, None)])()

    def alone(self, rng, deep=3):
        me = threading.get_ident()
        self.inside.append(me)
        for _ in range(rng.randrange(20)):
            if self.inside[0] != me or self.inside[-1] != me:
                raise Wrong("two threads hold the lock")
        if self.reentrant and deep and rng.random() < 0.4 and self.take(rng):
            self.alone(rng, deep - 1)
            self.leave(rng)
        self.held(rng)
        self.inside.remove(me)

    def held(self, rng):
        if rng.random() < 0.1:
            self.refused(rng)

    def use(self, rng):
        if rng.random() < 0.3:
            with self.thing:
                self.alone(rng)
        elif self.take(rng):
            self.alone(rng)
            if not self.reentrant and rng.random() < 0.1:
                self.handed.append(1)
            else:
                self.leave(rng)

    def brief(self):
        # It may come between any two lines of what this thread does with the lock.
        if self.thing.acquire(False):
            me = threading.get_ident()
            self.inside.append(me)
            if self.inside[0] != me or self.inside[-1] != me:
                raise Wrong("two threads hold the lock")
            self.inside.remove(me)
            self.thing.release()

    def refusals(self, rng):
        acquire = self.thing.acquire
        return [
            lambda: acquire(True, float("nan")),
            lambda: acquire(True, -2),
            lambda: acquire(True, 1e300),
            lambda: acquire(True, 10**5000),
            lambda: acquire(timeout="1"),
            lambda: acquire(True, []),
            lambda: acquire(False, 1),
            lambda: self.thing.release(1, 2),
            lambda: self.unheld(rng),
        ]

    def unheld(self, rng):
        """Released by who does not hold it: of a Lock only where nobody does."""
        fresh = self.make()
        for release in (fresh.release, lambda: fresh.__exit__(None, None, None)):
            with contextlib.suppress(RuntimeError):
                release()
                raise Wrong("what nobody holds was released")
        if not fresh.acquire(False):
            raise Wrong("a refused release locked it")
        fresh.release()
        raise RuntimeError

    def sweep(self):
        with contextlib.suppress(IndexError):
            self.handed.pop()
            self.thing.release()

    def forget(self):
        self.handed = []

    def use_alone(self, rng):
        self.use(rng)
        self.sweep()

    def check_end(self):
        while self.handed:
            self.sweep()
        if self.inside or not self.thing.acquire(False):
            raise Wrong(f"{self.thing!r} is left locked")
        self.thing.release()


class RLocks(Locks):
    reentrant = True

    def refusals(self, rng):
        return [*super().refusals(rng)[:-1], *[lambda: self.of_another(rng)] * 3]

    def of_another(self, rng):
        lock = self.thing
        before = lock._recursion_count()
        if before:
            lock._acquire_restore((0, 0))
            raise Wrong("a depth of zero was restored")
        for call in (
            lambda: lock.release(),
            lambda: lock.__exit__(None, None, None),
            lambda: lock._release_save(),
            lambda: lock._acquire_restore("no"),
            lambda: lock._acquire_restore((2**40, 0)),
            lambda: lock(None, None, None),
        ):
            with contextlib.suppress(RuntimeError, *REFUSALS):
                call()
                raise Wrong("a thread released what another one holds")
        if lock._is_owned() or lock._recursion_count():
            raise Wrong("who was refused owns the lock")
        raise RuntimeError

    def held(self, rng):
        super().held(rng)
        lock, depth = self.thing, self.inside.count(threading.get_ident())
        if lock._recursion_count() != depth or not lock._is_owned():
            raise Wrong(f"the depth is {lock._recursion_count()}, not {depth}")
        if rng.random() < 0.1:
            mine, self.inside[:] = self.inside[:], []
            saved = lock._release_save()
            lock._acquire_restore(saved)
            self.inside[:] = mine


class Foreign:
    """A lock in Python code."""

    def __init__(self):
        self.lock = fs.Lock()
        self.acquire, self.release = self.lock.acquire, self.lock.release
        self._at_fork_reinit, self.locked = self.lock._at_fork_reinit, self.lock.locked

    def __enter__(self):
        return self.acquire()

    def __exit__(self, *_):
        self.release()


class Conditions(Locks):
    """Who waits gives the lock up meanwhile, and is woken only by who notifies."""

    def __init__(self, name, rng):
        lock = rng.choice([fs.Lock, fs.RLock, fs.RLock, Foreign])
        self.arguments = (lock(),)
        super().__init__(name, rng)
        self.native = self.native and lock is not Foreign
        self.reentrant = lock is fs.RLock
        self.waiting = self.allowed = self.woken = 0  # under the lock

    def make(self):
        return self.cls(type(self.arguments[0])() if hasattr(self, "thing") else self.arguments[0])

    def held(self, rng):
        super().held(rng)
        what = rng.random()
        if what < 0.5:
            self.wait(rng)
        elif what < 0.9:
            number = rng.choice([1, 1, 2, True])
            self.allowed += min(number, self.waiting)
            self.thing.notify(number)
        else:
            self.allowed += self.waiting
            self.thing.notify_all()
        if self.woken > self.allowed:
            raise Wrong(f"{self.woken} were woken, {self.allowed} notified")

    def wait(self, rng):
        mine = self.inside[:]
        self.inside.clear()
        self.waiting += 1
        woken = None
        try:
            woken = self.thing.wait(rng.choice(TIMES))
        finally:
            if self.inside:
                raise Wrong("a wait ended while another thread holds the lock")
            self.inside[:] = mine
            self.waiting -= 1
            self.woken += woken is True

    def refusals(self, rng):
        calls = super().refusals(rng)
        if not isinstance(self.arguments[0], fs.RLock):
            return calls
        if not self.thing._is_owned():
            calls += [self.thing.notify, self.thing.notify_all, lambda: self.thing.wait(0)]
        return calls

    def unheld(self, rng):
        fresh = self.make()
        for call in (fresh.notify, fresh.notify_all, fresh.wait, lambda: fresh.wait_for(int)):
            with contextlib.suppress(RuntimeError):
                call()
                raise Wrong("a Condition was used without its lock")
        super().unheld(rng)

    def forget(self):
        super().forget()
        self.waiting = self.allowed = self.woken = 0

    def check_end(self):
        super().check_end()
        if len(self.thing._waiters):
            raise Wrong("a Condition counts waiters that are gone")


class Semaphores(Shared):
    """Permits are taken, given back, and given besides; none comes from nothing."""

    waits = "acquire"

    def __init__(self, name, rng):
        self.first = rng.choice([0, 1, 1, 3, 100])
        self.arguments = (self.first,)
        self.bounded = name == "BoundedSemaphore"
        super().__init__(name, rng)
        self.taken, self.given = AtomicI64(0), AtomicI64(0)
        if rng.random() < 0.3:
            self.thing._cond  # noqa: B018  from then on under its lock
            self.native = False

    def take(self, rng):
        thing = self.thing
        time = rng.choice(TIMES)
        ways = [
            lambda: thing.acquire(False),
            lambda: thing.acquire(True, time),
            lambda: thing.acquire(timeout=time),
            lambda: thing.acquire(blocking=Number(self.look, rng), timeout=time),
            lambda: thing.acquire(timeout=Number(self.look, rng)),
            lambda: bool(thing.__enter__()) if self.first else False,
        ]
        try:
            return rng.choice(ways)()
        except (Raising, TypeError):
            return False

    def took(self):
        # Counted after it was taken, and counted as given before it is: never too early.
        if self.taken.fetch_add(1) + 1 > self.first + self.given.load():
            raise Wrong("a permit came from nothing")

    def use(self, rng):
        if self.take(rng):
            self.took()
            self.inside.append(1)
            if self.bounded and len(self.inside) > self.first:
                raise Wrong("more hold a permit than there are")
            self.inside.pop()
            self.give(1, rng)
        elif self.first and rng.random() < 0.2:
            with self.thing:
                self.took()
                self.given.fetch_add(1)
        elif rng.random() < 0.05:
            self.add(rng)

    def give(self, number, rng):
        self.given.fetch_add(number)
        if number == 1 and rng.random() < 0.3:
            self.thing.__exit__(None, None, None)
        else:
            self.thing.release(number)

    def add(self, rng):
        """More than were taken, which a bounded one would refuse, or take from who has one."""
        if not self.bounded:
            self.give(rng.choice([1, 2, 5]), rng)

    def brief(self):
        if self.thing.acquire(False):
            self.took()
            self.give(1, random.Random(1))

    def refusals(self, rng):
        thing = self.thing
        calls = [
            lambda: thing.release(0),
            lambda: thing.release(-1),
            lambda: thing.release("1"),
            lambda: thing.release(1, 2),
            lambda: thing.acquire(False, 1),
            lambda: type(thing)(-1),
            lambda: type(thing)("one"),
        ]
        if self.native:
            calls.append(lambda: thing.release(2**64))
        if self.bounded:
            calls.append(lambda: thing.release(self.first + 1 + rng.randrange(1000)))
        return calls

    def sweep(self):
        if self.first == 0:
            self.add(random.Random(1))

    def forget(self):
        self.taken.store(0)
        if self.thing._value != self.first and self.native:
            raise Wrong("_at_fork_reinit() did not give the permits back")
        self.given.store(self.thing._value - self.first)

    def check_end(self):
        value = self.first + self.given.load() - self.taken.load()
        if self.thing._value != value:
            raise Wrong(f"{self.thing._value} permits are there, not {value}")
        if self.bounded and value > self.first:
            raise Wrong("more permits than there were at first")


class Events(Shared):
    """Who waits for a message finds it; who waited for what was never set did not see it."""

    waits = "wait"

    def __init__(self, name, rng):
        super().__init__(name, rng)
        self.never = self.cls()
        self.message = AtomicRef([self.cls(), None])
        if rng.random() < 0.3:
            self.thing._cond  # noqa: B018  from then on under its lock
            self.native = False

    def use(self, rng):
        thing, time = self.thing, rng.choice(TIMES)
        event, _ = message = self.message.load()
        what = rng.randrange(7)
        if what == 0:
            message[1] = "sent"
            event.set()
            self.message.store([self.cls(), None])
        elif what == 1:
            if event.wait(0.002) and message[1] != "sent":
                raise Wrong("an Event was set, but not what was written before")
        elif what == 2 and (self.never.wait(time) or self.never.is_set()):
            raise Wrong("an Event is set that nobody sets")
        elif what == 3:
            thing.set()
        elif what == 4:
            thing.clear()
        elif what == 5 and thing.wait(time) not in (True, False):
            raise Wrong("wait() is neither True nor False")
        else:
            with contextlib.suppress(Raising, TypeError):
                thing.wait(Number(self.between, rng))

    def brief(self):
        self.thing.set()
        self.thing.clear()

    def refusals(self, rng):
        return [
            lambda: self.thing.set(1),
            lambda: self.thing.is_set(1),
            lambda: type(self.thing)(1),
        ]

    def check_child(self):
        for event in (self.never, self.message.load()[0]):
            event._at_fork_reinit()
        super().check_child()

    def check_end(self):
        self.thing.set()
        if not self.thing.wait() or not self.thing.is_set() or self.never.is_set():
            raise Wrong("a flag is not what was set")


class Barriers(Shared):
    """A round lets as many pass as it has parties, after its action."""

    waits = "wait"

    def __init__(self, name, rng):
        self.parties = rng.choice([1, 2, 2, 3])
        self.rounds, self.passed = AtomicI64(0), AtomicI64(0)
        self.acting = []
        self.arguments = (self.parties, self.act)
        super().__init__(name, rng)

    def act(self):
        self.acting.append(1)
        try:
            self.look()
            if len(self.acting) != 1:
                raise Wrong("two threads run the action")
            if random.random() < 0.05:
                raise Raising
            self.rounds.fetch_add(1)
        finally:
            self.acting.pop()

    def use(self, rng):
        thing = self.thing
        try:
            if rng.random() < 0.9:
                index = thing.wait(rng.choice([0, 1e-4, 1e-3, 1e-2, Number(self.look, rng)]))
                if not 0 <= index < self.parties:
                    raise Wrong(f"the {index}th of {self.parties} parties")
                if self.passed.fetch_add(1) + 1 > self.parties * self.rounds.load():
                    raise Wrong("a thread passed that had no round")
            else:
                rng.choice([thing.abort, thing.reset, thing.reset])()
        except fs.BrokenBarrierError:
            thing.reset()
        except (Raising, TypeError):
            pass

    def look(self):
        super().look()
        if self.thing.n_waiting > 64 or self.thing.parties != self.parties:
            raise Wrong("a barrier counts threads that are not there")

    def refusals(self, rng):
        return [
            lambda: type(self.thing)(0),
            lambda: type(self.thing)("2"),
            lambda: type(self.thing)(),
        ]

    def forget(self):
        self.acting = []

    def use_alone(self, rng):
        with contextlib.suppress(fs.BrokenBarrierError, Raising):
            self.thing.wait(0)

    def sweep(self):
        if random.random() < 0.1:
            self.thing.abort()
            self.thing.reset()

    def check_end(self):
        self.thing.reset()
        if self.thing.n_waiting or self.thing.broken:
            raise Wrong(f"{self.thing!r} is left in use")


SHARED = {
    "Lock": Locks,
    "RLock": RLocks,
    "Condition": Conditions,
    "Semaphore": Semaphores,
    "BoundedSemaphore": Semaphores,
    "Event": Events,
    "Barrier": Barriers,
}


def interrupted(shared, alarm, rng):
    """A wait of the main thread in which a handler may raise; nothing is taken then."""
    thing = shared.thing
    if not shared.native:
        return
    if shared.waits == "wait":
        with contextlib.suppress(fs.BrokenBarrierError, Raising):
            alarm.call(thing.wait, rng.choice(TIMES))
        return

    def use():
        with thing:
            pass

    if isinstance(shared, Locks) or shared.first:
        alarm.call(use)


def use_by_a_crowd(fuzz, kind):
    fuzz.end = min(fuzz.end, time.monotonic() + LENGTH)
    shared = SHARED[kind](kind, fuzz.rng)
    finished = threading.Event()

    def work(rng):
        while fuzz.going():
            rng.choice([shared.use, shared.use, shared.misuse])(rng)

    def sweep(rng):
        while not finished.wait(0.001):
            shared.sweep()

    crowd = fuzz.start(*[work] * (fuzz.threads - 1))
    sweeper = fuzz.start(sweep)
    with Alarm(shared.between, fuzz.rng, time.monotonic() + 2 * fuzzing.PATIENCE) as alarm:
        try:
            while fuzz.going():
                interrupted(shared, alarm, fuzz.rng)
                shared.misuse(fuzz.rng)
                if fuzz.rng.random() < 0.03:
                    fuzzing.in_child(shared.check_child)
        except BaseException as error:
            fuzz.errors.append(error)
    fuzz.join(crowd)
    finished.set()
    fuzz.join(sweeper)
    if not fuzz.errors:
        shared.check_end()
    return shared.reference


def one_round(fuzz, kinds):
    kind = kinds[fuzz.seed % len(kinds)]
    reference = use_by_a_crowd(fuzz, kind)

    def freed():
        gc.collect()
        return alive.load() == 0 and reference() is None

    if not fuzz.errors:
        fuzzing.check_nobody_is_parked()
        fuzzing.wait_until(freed, f"{reference()!r} is not freed, or {alive.load()} others")


if __name__ == "__main__":
    sys.exit(fuzzing.run(SHARED, one_round))
