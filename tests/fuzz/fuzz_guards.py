#!/usr/bin/env python3
"""Use and misuse the locks that own a value, and their guards, from several threads, at random.

    python tests/fuzz/fuzz_guards.py [SECONDS] [SEED] [THREADS] [Mutex|FairMutex|ReentrantMutex|...]

Threads share a lock and a box of its guards, mapped guards, `unlocked()` managers and weak
references, and do with them whatever is allowed and much that is not: end a guard that another
thread uses, leave a block twice or in another thread, map, leak, force, wait on a Condvar, release
views, upgrade, drop, follow weak references, build cycles, collect; the handlers of the main thread
raise in the middle of it, and it forks. Finalizers of values use the lock.

Beside them each thread takes guards that it shares with nobody.

Checked, all the time: such a private guard lives until its thread ends it, and no other thread
holds the lock meanwhile; a value that is read is one that was stored in this lock, and alive; only
the documented exceptions are raised; the child of a fork can end or force all and use the lock. At
the end of each round: nothing is left locked, and every value is freed.
"""

import contextlib
import gc
import random
import sys
import threading
import time
import weakref
from collections import deque
from pathlib import Path

import fastsync
from fastsync import AtomicI64, Condvar

sys.path.append(str(Path(__file__).resolve().parent))

import fuzzing
from fuzzing import Wrong
from storms.crowd import Alarm

KINDS = (
    *("Mutex", "FairMutex", "ReentrantMutex", "RwLock", "ShardedLock"),
    *("forced_blocks", "forked_blocks"),
)
LENGTH = 0.7  # seconds of a round
PLACES = 12
MISUSE = (RuntimeError, OverflowError)
alive = AtomicI64(0)


class Part:
    def __init__(self, home):
        self.home = home


class Value:
    """What a lock owns. Its finalizer uses the lock."""

    def __init__(self, home):
        alive.fetch_add(1)
        self.home, self.state, self.link = home, "alive", None
        self.part = Part(home)

    def __del__(self):
        self.state = "dead"
        alive.fetch_sub(1)
        if (shared := self.home.shared()) and random.random() < 0.2:
            repr(shared.lock)
            guard = random.choice(shared.tries)()
            if guard is not None:
                shared.read(guard)


class Home:
    """Says which lock a value belongs to."""

    def __init__(self, shared):
        self.shared = weakref.ref(shared)


class Shared:
    """What the threads of one round have in common."""

    def __init__(self, name):
        self.home = Home(self)
        self.cls = getattr(fastsync, name)
        self.lock = lock = self.cls(Value(self.home))
        self.mutex = hasattr(lock, "lock")
        self.reentrant = name == "ReentrantMutex"
        self.condvar = Condvar() if name == "Mutex" else None
        self.tries = [lock.try_lock] if self.mutex else [lock.try_read, lock.try_write]
        self.box = [None] * PLACES
        self.lent = [None] * PLACES
        self.used = {}  # by each thread at the moment
        self.references = [None] * PLACES
        self.shared = deque(maxlen=60)  # guards that others may end
        self.writers, self.readers = [], []
        self.kind = self.mutex_uses if self.mutex else self.rwlock_uses
        self.uses = self.kind() + self.guard_uses()

    # -- what others may not disturb

    def read(self, guard):
        value = guard.value
        if value.home is not self.home:
            raise Wrong(f"a guard gave {value!r}, which was never stored there")
        if type(value) is Value and value.state != "alive":
            raise Wrong("a guard gave a value that was finalized")
        return value

    def private(self, rng):
        lock = self.lock
        write = self.mutex or rng.random() < 0.5
        if self.mutex:
            ways = [lock.lock, lock.try_lock, lambda: lock.try_lock_for(0.001)]
        elif write:
            ways = [lock.write, lock.try_write, lambda: lock.try_write_for(0.001)]
            if hasattr(lock, "upgradable_read"):
                ways.append(lambda: self.upgraded(rng))
        else:
            ways = [lock.try_read, lock.try_read_recursive, lambda: lock.try_read_for(0.001)]
        guard = rng.choice(ways)()
        if guard is None:
            return
        if write:
            self.alone(guard, rng)
            if rng.random() < 0.3 and hasattr(guard, "downgrade"):
                guard = guard.downgrade()
                self.beside_readers(guard, rng)
            elif rng.random() < 0.2 and not self.reentrant:
                self.lend(guard, rng)
                self.alone(guard, rng)
        else:
            self.beside_readers(guard, rng)
        guard.unlock()

    def upgraded(self, rng):
        guard = self.lock.try_upgradable_read()
        if guard is None:
            return None
        self.beside_readers(guard, rng)
        return guard.try_upgrade_for(0.001)

    def lend(self, guard, rng):
        if self.condvar is not None and rng.random() < 0.5:
            self.condvar.wait_for(guard, 0.0001)
        elif hasattr(guard, "bump") and rng.random() < 0.5:
            guard.bump()
        else:
            with guard.unlocked():
                pass

    def alone(self, guard, rng):
        me = threading.get_ident()
        mark = Value(self.home)
        try:
            guard.value = mark
            self.writers.append(me)
            for _ in range(rng.randrange(40)):
                if guard.value is not mark:
                    raise Wrong("a value changed under a hold for writing")
                if self.readers or self.writers[0] != me or self.writers[-1] != me:
                    raise Wrong("somebody else holds what is held for writing")
            self.writers.remove(me)
        except RuntimeError as error:
            raise Wrong(f"a guard that nobody else has is dead: {error}") from error

    def beside_readers(self, guard, rng):
        self.readers.append(me := object())
        try:
            first = guard.value
            for _ in range(rng.randrange(40)):
                if guard.value is not first:
                    raise Wrong("a value changed under a hold for reading")
                if self.writers:
                    raise Wrong("somebody writes what is held for reading")
            self.read(guard)
        except RuntimeError as error:
            raise Wrong(f"a guard that nobody else has is dead: {error}") from error
        finally:
            self.readers.remove(me)

    # -- what others disturb

    def put(self, guard, rng):
        if guard is not None:
            self.shared.append(guard)
            self.box[rng.randrange(PLACES)] = guard
            with contextlib.suppress(TypeError):  # guards of a mutex have none
                self.references[rng.randrange(PLACES)] = weakref.ref(guard)

    def misuse(self, rng):
        guard = self.box[rng.randrange(PLACES)]
        if guard is None or rng.random() < 0.1:
            self.put(rng.choice(self.takes())(), rng)
            return
        use = rng.choice(self.uses)
        self.used[threading.get_ident()] = guard
        try:
            use(guard, rng)
        except AttributeError as error:
            if error.name is not None and hasattr(guard, error.name):
                raise Wrong("a guard has lost a method") from error
        finally:
            self.used.pop(threading.get_ident(), None)

    def takes(self):
        lock = self.lock
        if self.mutex:
            return [lock.try_lock, lambda: lock.try_lock_for(0.0005)]
        takes = [lock.try_read, lock.try_read_recursive, lock.try_write]
        takes += [lambda: lock.try_read_for(0.0005), lambda: lock.try_write_for(0.0005)]
        if hasattr(lock, "upgradable_read"):
            takes.append(lock.try_upgradable_read)
        return takes

    def guard_uses(self):
        return [
            lambda g, rng: g.unlock(),
            lambda g, rng: g.unlock_fair(),
            lambda g, rng: self.read(g),
            lambda g, rng: self.read(g),
            lambda g, rng: self.put(g.map(lambda value: value.part), rng),
            lambda g, rng: self.put(g.try_map(lambda value: None), rng),
            self.drop,
            lambda g, rng: g.bump(),
            self.unlocked,
            self.lend_for_long,
            self.take_back,
            self.take_back,
            lambda g, rng: (g.__enter__(), g.__exit__(None, None, None)),
            self.own_block,
            lambda g, rng: (repr(g), repr(self.lock)),
            self.follow,
            self.cycle,
            lambda g, rng: gc.collect() if rng.random() < 0.05 else None,
        ]

    def mutex_uses(self):
        uses = [
            lambda g, rng: setattr(g, "value", (Value if hasattr(g, "leak") else Part)(self.home)),
            lambda g, rng: g.leak(),
            lambda g, rng: self.lock.force_unlock(),
            lambda g, rng: self.lock.force_unlock_fair(),
            lambda g, rng: self.lock.__exit__(None, None, None),
            self.block,
            self.block,
            self.half_a_block,
        ]
        if self.condvar is not None:
            uses.append(lambda g, rng: self.condvar.wait_for(g, 1e-4))
            uses.append(
                lambda g, rng: rng.choice([self.condvar.notify_one, self.condvar.notify_all])()
            )
        return uses

    def rwlock_uses(self):
        uses = [
            lambda g, rng: setattr(g, "value", (Value if hasattr(g, "bump") else Part)(self.home)),
            lambda g, rng: self.lock.reader.acquire(timeout=0.0005),
            lambda g, rng: self.lock.writer.acquire(timeout=0.0005),
            lambda g, rng: self.lock.reader.release(),
            lambda g, rng: self.lock.writer.release(),
            self.view_block,
        ]
        if hasattr(self.lock, "upgradable_read"):
            uses += [
                lambda g, rng: self.put(g.downgrade(), rng),
                lambda g, rng: self.put(g.try_upgrade_for(0.0005), rng),
                lambda g, rng: self.put(g.downgrade_to_upgradable(), rng),
                lambda g, rng: g.with_upgraded(lambda w: self.in_upgraded(w, rng)),
            ]
        return uses

    def in_upgraded(self, guard, rng):
        self.put(guard, rng) if rng.random() < 0.5 else guard.unlock()

    def drop(self, guard, rng):
        self.box[rng.randrange(PLACES)] = None
        if guard in self.shared and rng.random() < 0.5:
            self.shared.clear()

    def unlocked(self, guard, rng):
        with guard.unlocked() if rng.random() < 0.5 else guard.unlocked_fair():
            pass

    def lend_for_long(self, guard, rng):
        block = guard.unlocked()
        self.lent[rng.randrange(PLACES)] = guard, block
        block.__enter__()

    def take_back(self, guard, rng):
        if lent := self.lent[rng.randrange(PLACES)]:
            self.put(lent[0], rng)
            lent[1].__exit__(None, None, None)

    def own_block(self, guard, rng):
        with guard:
            self.read(guard)

    def block(self, guard, rng):
        with self.lock as guard:
            if rng.random() < 0.3:
                self.put(guard, rng)
            with contextlib.suppress(RuntimeError):
                rng.choice(self.uses[:1] + self.guard_uses()[:9])(guard, rng)

    def half_a_block(self, guard, rng):
        guard = self.lock.__enter__()
        if rng.random() < 0.5:
            self.put(guard, rng)
        if rng.random() < 0.7:
            self.lock.__exit__(None, None, None)

    def view_block(self, guard, rng):
        view = self.lock.reader if rng.random() < 0.5 else self.lock.writer
        if view.acquire(timeout=0.0005):
            view.release()

    def follow(self, guard, rng):
        reference = self.references[rng.randrange(PLACES)]
        if reference is not None and (guard := reference()) is not None:
            self.read(guard)

    def cycle(self, guard, rng):
        """A lock whose value refers to its guard: both are garbage at once."""
        other = self.cls(Value(self.home))
        guard = other.lock() if self.mutex else other.write()
        guard.value.link = [guard, other, guard.unlocked()]
        if rng.random() < 0.3:
            guard.value.link[2].__enter__()

    # -- order again

    def handle(self):
        """What a signal handler does, a thousand times a second."""
        for things in (self.box, self.references):
            repr(things[random.randrange(PLACES)])
        with contextlib.suppress(*MISUSE, IndexError):
            self.shared[-1].unlock()
        with contextlib.suppress(*MISUSE):
            self.lock.__exit__() if self.mutex else self.lock.writer.release()

    def clean(self):
        """End what is shared; of a ReentrantMutex, what this thread has."""
        lent = [pair[0] for pair in self.lent if pair]
        used = list_of(self.used.values())
        for guard in [*list_of(self.shared), *filter(None, self.box), *lent, *used]:
            with contextlib.suppress(*MISUSE):
                guard.unlock()
        if self.mutex:
            with contextlib.suppress(*MISUSE):
                self.lock.__exit__(None, None, None)
            with contextlib.suppress(*MISUSE):
                self.lock.force_unlock()
        else:
            for view in (self.lock.reader, self.lock.writer):
                with contextlib.suppress(RuntimeError):
                    view.release()
        if self.reentrant:
            self.lock.is_owned_by_current_thread()

    def empty(self):
        self.shared.clear()
        for things in (self.box, self.lent, self.references):
            things[:] = [None] * PLACES

    def check_child(self):
        """What a fork's child must be able to do, whatever other threads did."""
        for _ in range(3):
            self.clean()
        self.empty()
        self.used.clear()
        self.clean()
        if not self.mutex:
            self.lock._at_fork_reinit()
        if self.lock.is_locked():
            raise Wrong("the lock is locked for ever in the child of a fork")
        rng = random.Random(1)
        self.writers.clear()
        self.readers.clear()
        for _ in range(30):
            self.private(rng)
            with contextlib.suppress(*MISUSE):
                self.misuse(rng)
            self.clean()


def list_of(things):
    while True:
        try:
            return list(things)
        except RuntimeError:  # another thread changed it meanwhile
            pass


def interrupted(shared, alarm, rng):
    """Blocking calls of the main thread in which a handler may raise."""
    lock = shared.lock

    def hold(take):
        guard = take()
        if not shared.reentrant and rng.random() < 0.3:
            shared.lend(guard, rng)
        guard.unlock()

    def block(lock):
        with lock:
            pass

    with contextlib.suppress(*MISUSE):
        if shared.mutex:
            if rng.random() < 0.6:
                alarm.call(hold, lock.lock)
            else:
                alarm.call(block, lock)
        else:
            alarm.call(hold, rng.choice([lock.read_recursive, lock.write]))
            alarm.call(block, rng.choice([lock.reader, lock.writer]))


# -- nothing but blocks, forced or forked: the shortest windows are found so


def loop(fuzz, function):
    def work(_):
        while fuzz.going():
            with contextlib.suppress(RuntimeError):
                function()

    return work


def forced_blocks(fuzz):
    mutex = fastsync.Mutex([0])

    def block():
        with mutex:
            pass

    def hold():
        guard = mutex.lock()
        with contextlib.suppress(RuntimeError):
            guard.value  # noqa: B018
        guard.unlock()

    works = [loop(fuzz, function) for function in (block, block, mutex.force_unlock, hold, hold)]
    fuzz.join(fuzz.start(*works))
    if mutex.is_locked():
        raise Wrong("the mutex is left locked")


def forked_blocks(fuzz):
    mutex = random.choice((fastsync.Mutex, fastsync.FairMutex, fastsync.ReentrantMutex))(0)

    def block():
        with mutex as guard:
            guard.unlock()

    def check():
        for _ in range(3):
            if mutex.is_locked():
                mutex.force_unlock()
            guard = mutex.lock()
            guard.unlock()
            with contextlib.suppress(RuntimeError):
                block()
            with mutex:
                pass

    crowd = fuzz.start(*[loop(fuzz, block)] * fuzz.threads)
    while fuzz.going():
        fuzzing.in_child(check, 5)
    fuzz.join(crowd)


BLOCKS = {"forced_blocks": forced_blocks, "forked_blocks": forked_blocks}


def one_round(fuzz, kinds):
    kind = kinds[fuzz.seed % len(kinds)]
    if kind in BLOCKS:
        fuzz.end = min(fuzz.end, time.monotonic() + 3 * LENGTH)
        BLOCKS[kind](fuzz)
    else:
        use_and_misuse(fuzz, kind)


def use_and_misuse(fuzz, kind):
    use_by_a_crowd(fuzz, kind)
    if not fuzz.errors:
        fuzzing.wait_until(freed, f"{alive.load()} values were not freed")


def use_by_a_crowd(fuzz, kind):
    fuzz.end = min(fuzz.end, time.monotonic() + LENGTH)
    shared = Shared(kind)
    finished = threading.Event()

    def work(rng):
        while fuzz.going():
            try:
                rng.choice([shared.private, shared.misuse, shared.misuse])(rng)
            except MISUSE:
                pass
            if shared.reentrant and rng.random() < 0.3:
                shared.clean()
        while not finished.wait(0.002):
            shared.clean()

    def sweep(rng):
        # On 3.13t an object ends in the thread that made it: a guard that another thread has
        # dropped is queued for it.  If its thread waits, the collector does that.
        waits = 0
        while not finished.wait(0.001):
            shared.clean()
            waits = waits + 1 if shared.lock.is_locked() else 0
            if waits > 50:
                waits = 0
                gc.collect()

    crowd = fuzz.start(*[work] * (fuzz.threads - 1), sweep)
    with Alarm(shared.handle, fuzz.rng, time.monotonic() + 2 * fuzzing.PATIENCE) as alarm:
        try:
            while fuzz.going():
                interrupted(shared, alarm, fuzz.rng)
                with contextlib.suppress(*MISUSE):
                    shared.misuse(fuzz.rng)
                if fuzz.rng.random() < 0.05:
                    fuzzing.in_child(shared.check_child)
                if shared.reentrant or fuzz.rng.random() < 0.1:
                    shared.clean()
        except BaseException as error:
            fuzz.errors.append(error)
    if not fuzz.errors:
        fuzz.guarded(settle, shared)
    finished.set()
    fuzz.join(crowd)


def settle(shared):
    """All threads go on ending what is shared, until nothing is locked and stays so."""

    def is_free():
        shared.empty()
        shared.clean()
        gc.collect()
        return not shared.lock.is_locked()

    fuzzing.wait_until(is_free, f"{shared.lock!r} is left locked")


def freed():
    gc.collect()
    return alive.load() == 0


if __name__ == "__main__":
    sys.exit(fuzzing.run(KINDS, one_round))
