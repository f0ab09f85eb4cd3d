"""The storms of stress.py for the types of fastsync itself."""

import contextlib
import gc
import os
import queue as stock_queue
import random
import threading
import time
from functools import partial

from storms_common import (
    PATIENCE,
    TIMEOUTS,
    Alarm,
    Crowd,
    Guarded,
    exclusion,
    in_child,
    queue,
    storm,
)

import fastsync as fs


def shares(crowd, things):
    """Each of them with a crowd for its share of the time, one after the other."""
    for i, thing in enumerate(things):
        rest = max(0, crowd.end - time.monotonic())
        yield Crowd(rest / (len(things) - i), crowd.random.random()), thing


def ways(lock, verb):
    """The four ways to take a lock by that verb: they give a guard, or None."""
    names = verb, f"try_{verb}", f"try_{verb}_for", f"try_{verb}_until"
    return [getattr(lock, name) for name in names]


def linger():
    """Let others run, now and then, while something is half done."""
    if time.monotonic_ns() & 0x3F00 == 0:  # as good as at random
        time.sleep(0)


def take(four, chance):
    """Take in one of four ways; the guard, or None."""
    now, at_once, within, until = four
    match chance.randrange(4):
        case 0:
            return now()
        case 1:
            return at_once()
        case 2:
            return within(chance.choice(TIMEOUTS))
    return until(time.monotonic() + chance.choice(TIMEOUTS))


def let_go(guard, lock, chance, touch):
    """End a hold in one of the ways there are; how often it was touched on that occasion."""
    match chance.choice(("unlock", "fair", "with", "bump", "unlocked", "map", "leak", "drop")):
        case "unlock":
            guard.unlock()
        case "fair":
            guard.unlock_fair()
        case "with":
            with guard:
                touch(guard)
            return 1
        case "bump":
            guard.bump()
            touch(guard)
            guard.unlock()
            return 1
        case "unlocked":
            with chance.choice((guard.unlocked, guard.unlocked_fair))():
                pass
            touch(guard)
            guard.unlock()
            return 1
        case "map":
            part = guard.map(lambda value: value["count"])
            part.value += 1
            chance.choice((part.unlock, part.unlock_fair))()
            return 1
        case "leak" if hasattr(guard, "leak"):
            guard.leak()
            chance.choice((lock.force_unlock, lock.force_unlock_fair))()
    return 0  # if not let go by now, the guard is dropped, at once: this thread made it


def guarded_exclusion(crowd, lock, threads=6):
    """As exclusion(), for a lock with guards around {"count": 0}."""
    four = ways(lock, "write" if hasattr(lock, "write") else "lock")
    reentrant = isinstance(lock, fs.ReentrantMutex)
    guarded, touched = Guarded(), []

    def touch(guard):
        guarded.touch()
        count = guard.value["count"]
        linger()
        guard.value["count"] = count + 1

    def once(chance):
        if not reentrant and hasattr(lock, "__enter__") and chance.random() < 0.2:
            with lock as guard:
                touch(guard)
            return 1
        guard = take(four, chance)
        if guard is None:
            return 0
        touch(guard)
        if chance.random() < 0.1:
            again = four[1]()
            assert (again is not None) == reentrant, "granted twice, or not to its owner"
            if again is not None:
                again.unlock()
        return 1 + let_go(guard, lock, chance, touch)

    def work(chance):
        count = 0
        while crowd.going():
            count += once(chance)
        touched.append(count)

    crowd.start(work, threads)
    crowd.join()
    assert not lock.is_locked(), "the lock was left locked"
    assert lock.into_inner()["count"] == sum(touched), "an update was lost"
    return sum(touched)


@storm
def guards(crowd):
    """Mutex, FairMutex, ReentrantMutex and writers, taken and let go in every way by guards."""
    kinds = (fs.Mutex, fs.FairMutex, fs.ReentrantMutex, fs.RwLock, fs.ShardedLock)
    return sum(guarded_exclusion(part, kind({"count": 0})) for part, kind in shares(crowd, kinds))


@storm
def lock_views(crowd):
    """The writers of RwLock and ShardedLock as threading.Lock, alone and below a Condition."""
    trials = (
        lambda part: exclusion(part, fs.RwLock().writer),
        lambda part: exclusion(part, fs.ShardedLock().writer),
        lambda part: queue(part, fs.RwLock().writer),
    )
    return sum(trial(part) for part, trial in shares(crowd, trials))


class Shelf:
    """Two numbers that differ while they are written, which no reader sees."""

    def __init__(self):
        self.left = self.right = 0
        self.readers = fs.AtomicI64()

    def read(self):
        self.readers.fetch_add(1)
        assert self.left == self.right, "a reader saw a half-done write"
        self.readers.fetch_sub(1)
        return self.left

    def write(self):
        assert self.left == self.right, "two writers"
        self.left += 1
        linger()
        assert not self.readers.load(), "a reader beside the writer"
        self.right += 1
        return 1


def read_in_passing(lock, chance, shelf):
    """Read, now and then twice; no write."""
    recursive = ways(lock, "read_recursive")
    guard = take(chance.choice((ways(lock, "read"), recursive)), chance)
    if guard is not None:
        with guard:
            before = shelf.read()
            again = take(recursive, chance)  # never waits for a writer that waits
            if again is not None:
                with again:
                    assert shelf.read() == before, "a write between two reads"
    return 0


def read_and_upgrade(lock, chance, shelf):
    """Upgradable, then written, by one of the ways, or read; the writes."""
    guard = take(ways(lock, "upgradable_read"), chance)
    if guard is None:
        return 0
    before = shelf.read()
    assert lock.try_upgradable_read() is None, "two upgradable readers"
    if chance.random() < 0.2:
        with guard.downgrade():
            assert shelf.read() == before, "a write during a downgrade"
        return 0
    if chance.random() < 0.2:
        written = guard.with_upgraded(lambda _: shelf.write())
        guard.unlock()
        return written
    writer = take(ways(guard, "upgrade"), chance)
    with writer or guard:
        assert shelf.read() == before, "a write during an upgrade"
        return 0 if writer is None else shelf.write()


def write_and_downgrade(lock, chance, shelf):
    """Write, then perhaps read what was written, or write again; the writes."""
    guard = take(ways(lock, "write"), chance)
    if guard is None:
        return 0
    written = shelf.write()
    after = shelf.left
    if hasattr(guard, "downgrade") and chance.random() < 0.3:
        guard = guard.downgrade()
    elif hasattr(guard, "downgrade") and chance.random() < 0.3:
        guard = guard.downgrade_to_upgradable()
        assert shelf.read() == after, "a write during a downgrade"
        guard = guard.upgrade()
    assert shelf.left == shelf.right == after, "a write during a downgrade"
    chance.choice((guard.unlock, guard.unlock_fair))()
    return written


def read_and_write(crowd, lock, trials, threads=6):
    shelf, written = Shelf(), []

    def work(chance):
        count = 0
        while crowd.going():
            count += chance.choice(trials)(lock, chance, shelf)
        written.append(count)

    crowd.start(work, threads)
    crowd.join()
    assert shelf.left == shelf.right == sum(written), "a write was lost"
    assert not shelf.readers.load() and not lock.is_locked(), "the lock was left locked"
    lock.write().unlock()
    return sum(written)


@storm
def readers_and_writers(crowd):
    """Reads, writes, upgrades and downgrades: nobody sees a half-done write, none is lost."""
    simple = (read_in_passing, write_and_downgrade)
    trials = {fs.RwLock(): (*simple, read_and_upgrade), fs.ShardedLock(): simple}
    return sum(read_and_write(part, lock, trials[lock]) for part, lock in shares(crowd, trials))


def wait_while(condvar, guard, predicate, chance):
    """Wait in one of the ways as long as the predicate is true; whether it no longer is."""
    timeout = chance.choice((*TIMEOUTS, 0.1))
    match chance.randrange(5):
        case 0:
            condvar.wait_while(guard, predicate)
        case 1:
            timed_out = condvar.wait_while_for(guard, predicate, timeout)
            assert timed_out or not predicate(guard.value)
        case 2:
            timed_out = condvar.wait_while_until(guard, predicate, time.monotonic() + timeout)
            assert timed_out or not predicate(guard.value)
        case 3 if predicate(guard.value):
            condvar.wait_for(guard, timeout)
        case 4 if predicate(guard.value):
            condvar.wait(guard)
    return not predicate(guard.value)


def condvar_queue(crowd):
    """Every item arrives once, however its receiver waits."""
    threads = 3
    box, not_empty, not_full = fs.Mutex([]), fs.Condvar(), fs.Condvar()
    sent, received, done = [], [], []

    def produce(chance):
        count = 0
        while crowd.going():
            with box as guard:
                if wait_while(not_full, guard, lambda items: len(items) >= 4, chance):
                    guard.value.append((threading.get_ident(), count))
                    count += 1
                    not_empty.notify_one()
        with box:
            sent.append(count)
            done.append(1)
            not_empty.notify_all()

    def nothing_yet(items):
        return not items and len(done) < threads

    def consume(chance):
        while True:
            with box as guard:
                if not wait_while(not_empty, guard, nothing_yet, chance):
                    continue
                if not guard.value:
                    return
                received.append(guard.value.pop(0))
                chance.choice((not_full.notify_one, not_full.notify_all))()

    crowd.start(produce, threads)
    crowd.start(consume, threads)
    crowd.join()
    assert len(received) == len(set(received)) == sum(sent), "an item was lost or came twice"
    assert not box.is_locked() and not_empty.notify_all() == not_full.notify_all() == 0
    return len(received)


def condvar_turns(crowd):
    """Three threads in turn, each of which wakes the next: a lost wake-up stops them for good."""
    table, changed = fs.Mutex(0), [fs.Condvar() for _ in range(3)]

    def play(me):
        def run(chance):
            last = False
            while not last:
                with table as guard:
                    if wait_while(changed[me], guard, lambda turn: turn % 3 != me, chance):
                        last = not crowd.going()  # so it is for those after this one
                        guard.value += 1
                        following = changed[guard.value % 3]
                        chance.choice((following.notify_one, following.notify_all))()

        return run

    for me in range(3):
        crowd.start(play(me))
    crowd.join()
    return table.into_inner()


@storm
def condvar(crowd):
    """Waits on Condvars in every way, for the items of a queue and for one's turn."""
    trials = (condvar_queue, condvar_turns)
    return sum(trial(part) for part, trial in shares(crowd, trials))


class Fails(Exception):
    pass


class Beginning:
    """Things that are done once, fresh, with what their functions did and whether they fail."""

    def __init__(self, chance):
        self.fails = chance.random() < 0.3
        self.runs = dict.fromkeys(("once", "forced", "lazy", "function", "set", "property"), 0)
        self.once, self.set = fs.Once(), fs.OnceLock()
        self.lazy = fs.LazyLock(partial(self.run, "lazy"))
        self.function = fs.once(partial(self.run, "function"))

    def run(self, name):
        """What may run once, and fail if all here do."""
        self.runs[name] += 1
        if self.fails:
            raise Fails
        return self.runs, name

    def succeed(self, name, *_):
        """What may run once, and does not fail."""
        self.runs[name] += 1
        return self.runs, name

    def call(self, function, *arguments):
        """Call it: it fails if all here do, and only then."""
        try:
            result = function(*arguments)
        except (Fails, RuntimeError):
            assert self.fails, "failed without reason"
            return None
        assert not self.fails, "did not fail"
        return result

    def begin_once(self, _):
        with contextlib.suppress(Fails, RuntimeError):  # poisoned, until somebody below succeeds
            self.once.call_once(partial(self.run, "once"))
        self.once.call_once_force(partial(self.succeed, "forced"))
        assert self.once.is_completed() and self.once.state() is fs.OnceState.Done
        self.once.wait()
        assert self.runs["forced"] == self.fails and self.runs["once"] == 1

    def begin_lazy(self, chance):
        value = self.call(self.lazy.force) if chance.random() < 0.5 else self.call(self.value)
        assert self.fails or value[0] is self.runs
        assert self.runs["lazy"] == 1, "not run once"

    def value(self):
        return self.lazy.value

    def begin_function(self, _):
        value = self.call(self.function)
        assert self.fails or value[0] is self.runs
        assert self.runs["function"] == 1, "not run once"

    @fs.lazy_property
    def total(self):
        if self.runs["property"]:
            return self.succeed("property")  # an exception is passed on: the next one tries again
        return self.run("property")

    def begin_property(self, _):
        with contextlib.suppress(Fails):
            assert self.total is self.total, "two values"
        assert self.total[0] is self.runs
        assert self.runs["property"] == 1 + self.fails, "not run once"

    def fail(self):
        raise Fails

    def begin_set(self, chance):
        with contextlib.suppress(Fails):
            if self.fails:
                self.set.get_or_try_init(self.fail)  # passed on: the next one tries again
        if chance.random() < 0.3:
            mine = self.runs, "set by value"
            assert self.set.set(mine) == (self.set.get() is mine)
        value = self.set.get_or_init(partial(self.succeed, "set"))
        assert value is self.set.get() is self.set.wait(), "two values"
        assert self.runs["set"] == (value[1] == "set"), "not run once"


PARTS = ("once", "lazy", "function", "property", "set")


@storm
def beginnings(crowd):
    """Fresh Once, OnceLock, LazyLock, lazy_property, once: they run once, also if that fails."""
    shared = fs.AtomicRef(Beginning(crowd.random))
    begun = fs.Counter()

    def work(chance):
        while crowd.going():
            current = shared.load()
            for name in chance.sample(PARTS, len(PARTS)):
                getattr(current, f"begin_{name}")(chance)
            if shared.compare_and_set(current, Beginning(chance)):
                begun.increment()

    crowd.start(work, 5)
    crowd.join()
    return begun.value()


@storm
def parkers(crowd):
    """Three pairs play ping-pong with Parkers: a lost token stops them, a spare one shows."""
    rounds = []

    def play(table, me, mine, theirs):
        def run(chance):
            while crowd.going():
                if chance.random() < 0.5:
                    mine.park()
                elif not mine.park_timeout(chance.choice(TIMEOUTS)):
                    continue
                if len(table) > 1:
                    return  # woken by the end
                assert table[0] % 2 == me, "woken out of turn"
                table[0] += 1
                theirs.unpark()
            table.append("over")
            theirs.unpark()

        return run

    for _ in range(3):
        table, parkers = [0], (fs.Parker(), fs.Parker())
        rounds.append(table)
        parkers[0].unparker().unpark()
        for me in range(2):
            crowd.start(play(table, me, parkers[me], parkers[1 - me].unparker()))
    crowd.join()
    return sum(table[0] for table in rounds)


@storm
def wait_groups(crowd):
    """Handles ended in every way by threads: whoever waits for all sees what all have done."""
    inbox = stock_queue.SimpleQueue()
    rounds = fs.Counter()

    def end(handle, me, chance):
        match chance.randrange(4):
            case 0:
                handle.done()
            case 1:
                with handle:
                    pass
            case 2 if me == 0:  # or all might wait, and nobody be left to work
                handle.wait()
        # or dropped, at once: this thread made it

    def work(chance):
        while (job := inbox.get()) is not None:
            given, results, me = job
            handle = given.clone()
            given.done()
            results[me] = True
            end(handle, me, chance)
            del handle

    def lead(chance):
        while crowd.going():
            group = fs.WaitGroup()
            results = [False] * chance.randrange(5)
            for me in range(len(results)):
                inbox.put((group.clone(), results, me))
            group.wait()
            assert all(results), "did not wait for all"
            assert "0 handles" in repr(group)
            rounds.increment()
        for _ in range(2):
            inbox.put(None)

    crowd.start(work, 4)
    crowd.start(lead, 2)
    crowd.join()
    return rounds.value()


def spin_flag(flag, guarded, chance):
    """Touch under a flag; whether it was free."""
    if chance.random() < 0.5:
        taken = not flag.swap(True)
    else:
        taken, _ = flag.compare_exchange(False, True)
    if taken:
        guarded.touch()
        flag.store(False)
    return taken


def add(atomic, n, chance):
    """Add in one of the ways there are, each of which must succeed in the end."""
    match chance.randrange(4):
        case 0:
            atomic.fetch_add(n, chance.choice(fs.Ordering.members()))
        case 1:
            atomic.fetch_add(3 * n)
            atomic.fetch_sub(2 * n)
        case 2:
            chance.choice((atomic.update, atomic.fetch_update))(lambda value: value + n)
        case 3:
            exchange = chance.choice((atomic.compare_exchange, atomic.compare_exchange_weak))
            current = atomic.load()
            while True:
                done, current = exchange(current, current + n)
                if done:
                    return


class ArrayCell:
    """A cell of an AtomicArray with the methods of an atomic."""

    def __init__(self, array, index):
        self.array, self.index = array, index

    def __getattr__(self, name):
        return partial(getattr(self.array, name), self.index)


@storm
def sums(crowd):
    """Additions to atomics of all kinds and a Counter: sums are exact, no ticket comes twice."""
    array = fs.AtomicArray("int64", 3)
    cells = [ArrayCell(array, i) for i in range(3)]
    plain = [fs.AtomicI64(), fs.AtomicF64(), fs.AtomicU32(), *cells]
    small, ticket, most, counter = fs.AtomicU8(), fs.AtomicU64(), fs.AtomicI32(), fs.Counter()
    flag, guarded, totals = fs.AtomicBool(), Guarded(), []
    names = ("plain", "small", "reset", "tickets", "ticket sum", "flag", "most")

    def work(chance):
        added = dict.fromkeys(names, 0)
        while crowd.going():
            n = chance.randrange(1, 4)
            for atomic in plain:
                add(atomic, n, chance)
            array.add_at([0, 1, 2], n)
            added["plain"] += n
            small.fetch_add(n)
            counter.add(n)
            added["small"] += n
            if chance.random() < 0.1:
                added["reset"] += counter.reset()
            added["ticket sum"] += ticket.fetch_add(1)
            added["tickets"] += 1
            most.fetch_max(n * added["tickets"])
            added["most"] = max(added["most"], n * added["tickets"])
            assert plain[0].fetch_update(lambda _: None)[0] is False
            added["flag"] += spin_flag(flag, guarded, chance)
        totals.append(added)

    crowd.start(work, 6)
    crowd.join()
    total = {key: sum(added[key] for added in totals) for key in totals[0]}
    n = total["tickets"]
    assert [atomic.load() for atomic in plain[:3]] == [total["plain"]] * 3, "an addition was lost"
    assert array.load_all() == [2 * total["plain"]] * 3, "an addition was lost"
    assert small.load() == total["small"] % 256, "an addition was lost"
    assert counter.value() + total["reset"] == total["small"], "an addition was lost"
    assert ticket.load() == n and total["ticket sum"] == n * (n - 1) // 2, "a ticket came twice"
    assert most.load() == max(added["most"] for added in totals)
    assert guarded.total == total["flag"] and not flag.load()
    return n


def take_turns(crowd, atomic, values):
    """Two threads, each of which waits for its value and then stores the other one's."""
    rounds = [0]

    def play(me):
        def run(chance):
            mine, other = values[me], values[1 - me]
            while crowd.going():
                timeout = chance.choice((chance.choice(TIMEOUTS), 0.1, None, None))
                if not atomic.wait(other, timeout):
                    assert timeout is not None, "woken without a change"
                    continue
                if len(rounds) > 1:
                    return  # woken by the end
                assert rounds[0] % 2 == me, "woken out of turn"
                assert atomic.load() == mine
                rounds[0] += 1
                atomic.store(other)
                chance.choice((atomic.notify_one, atomic.notify_all))()
            rounds.append("over")
            atomic.store(other)
            atomic.notify_all()

        return run

    crowd.start(play(0))
    crowd.start(play(1))
    return rounds


@storm
def turns(crowd):
    """Ping-pong by wait() and notify of every kind of atomic: a lost wake-up stops it for good."""
    array, objects = fs.AtomicArray("uint8", 2), (object(), object())
    kinds = (
        [(fs.AtomicI64(), (0, 1)), (fs.AtomicU8(), (0, 255)), (fs.AtomicBool(), (False, True))],
        [(ArrayCell(array, i), (0, 1)) for i in range(2)] + [(fs.AtomicF32(), (0.0, 1.5))],
        [(fs.AtomicRef(objects[0]), objects), (fs.AtomicCell("aaa"), ("aaa", "bbb"))],
    )
    count = 0
    for part, pairs in shares(crowd, kinds):
        rounds = [take_turns(part, atomic, values) for atomic, values in pairs]
        part.join()
        count += sum(each[0] for each in rounds)
    return count


class Token:
    """Counts itself, and is taken by one at most."""

    def __init__(self, made, dropped):
        made.fetch_add(1)
        self.dropped, self.taken = dropped, 0

    def take(self):
        self.taken += 1
        assert self.taken == 1, "taken twice"

    def __del__(self):
        self.dropped.fetch_add(1)


def collect_until(condition, complaint):
    """Collect until it is true: an object that another thread made may wait for that thread."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, complaint
        gc.collect()


@storm
def references(crowd):
    """Objects in AtomicRef, AtomicCell, OnceLock: who takes one has it alone; all are dropped."""
    atomics, box = [fs.AtomicRef(None), fs.AtomicCell(None)], fs.OnceLock()
    made, dropped = fs.AtomicI64(), fs.AtomicI64()
    fresh = partial(Token, made, dropped)

    def take(atomic, chance):
        """What was taken out of it, by one of the ways, and by nobody else."""
        match chance.randrange(5):
            case 0:
                return atomic.swap(fresh())
            case 1 if isinstance(atomic, fs.AtomicCell):
                return atomic.take()
            case 2:
                current = atomic.load()
                done, previous = atomic.compare_exchange(current, fresh())
                assert not done or previous is current
                return current if done else None
            case 3:
                done, previous = atomic.fetch_update(lambda _: chance.choice((fresh(), None)))
                return previous if done else None
            case 4:
                atomic.store(fresh())
        return None

    def change(chance):
        while crowd.going():
            box.set(fresh())
            for token in take(chance.choice(atomics), chance), box.take():
                if isinstance(token, Token):
                    token.take()

    def look(chance):
        while crowd.going():
            token = chance.choice(atomics).load()
            assert not isinstance(token, Token) or token.taken in (0, 1)

    crowd.start(change, 4)
    crowd.start(look, 2)
    crowd.join()
    for atomic in atomics:
        atomic.store(None)
        assert atomic.load() is atomic.swap(None) is None
    box.take()
    collect_until(lambda: made.load() == dropped.load(), "an object was not dropped")
    return made.load()


class Treasure:
    def __init__(self):
        self.drops = fs.AtomicI64()


@storm
def arcs(crowd):
    """Arcs cloned, upgraded, dropped, moved out: on_drop runs once, after all of its handles."""
    shared = fs.AtomicRef(fs.Weak())
    made, dropped, moved, reached = (fs.AtomicI64() for _ in range(4))
    wrong = []  # what on_drop raises goes to a hook, not to us

    def on_drop(treasure):
        dropped.fetch_add(1)
        if treasure.drops.fetch_add(1):
            wrong.append("dropped twice")

    def end(arc, chance):
        match chance.randrange(5):
            case 0:
                arc.drop()
            case 1:
                with arc:
                    pass
            case 2:
                if arc.into_inner() is not None:
                    moved.fetch_add(1)
            case 3:
                done, rest = arc.try_unwrap()
                if done:
                    moved.fetch_add(1)
                else:
                    rest.drop()
        # or dropped as it is, at once: this thread made it

    def make(chance):
        while crowd.going():
            arc = fs.Arc(Treasure(), on_drop)
            made.fetch_add(1)
            shared.store(arc.downgrade())
            clones = [arc.clone() for _ in range(chance.randrange(3))]
            for handle in (*clones, arc):
                end(handle, chance)
            del clones, arc, handle

    def reach(chance):
        while crowd.going():
            weak = shared.load()
            if chance.random() < 0.3:
                weak = weak.clone()
            arc = weak.upgrade()
            if arc is not None:
                assert not arc.value.drops.load(), "reached after its end"
                assert arc.strong_count() >= 1
                other = arc.clone()
                end(arc, chance)
                assert not other.value.drops.load(), "dropped below a handle"
                end(other, chance)
                del arc, other
                reached.fetch_add(1)

    crowd.start(make, 3)
    crowd.start(reach, 3)
    crowd.join()
    assert not wrong, wrong
    collect_until(lambda: made.load() == dropped.load() + moved.load(), "a value was not dropped")
    assert shared.load().upgrade() is None, "upgraded after the end"
    return made.load()


SHARED = (fs.RwLock, fs.ShardedLock)
VERBS = ("lock", "read", "read_recursive", "upgradable_read", "write")


def one_of_each():
    """A lock of each kind that gives guards."""
    return [kind(0) for kind in (fs.Mutex, fs.FairMutex, fs.ReentrantMutex, *SHARED)]


def verbs(lock):
    """The ways to hold it."""
    return [verb for verb in VERBS if hasattr(lock, verb)]


def hold_interrupted(alarm, lock, chance):
    """Take the lock by each verb and give way in it; the handler may raise in any of that."""
    for verb in verbs(lock):
        now, _, within, _ = ways(lock, verb)
        guard = alarm.call(chance.choice((now, partial(within, 0.01))))
        if guard is None:
            continue
        with contextlib.suppress(RuntimeError):  # of a guard that was interrupted in its last call
            if verb == "upgradable_read":
                upgrade = chance.choice((guard.upgrade, partial(guard.try_upgrade_for, 0.01)))
                guard = alarm.call(upgrade) or guard
            if chance.random() < 0.5:
                alarm.call(guard.bump)
            guard.unlock()


def wait_interrupted(alarm, errand, condvar, mutex):
    """The waits for what another thread does, which gets it as an errand."""
    with mutex as guard:
        alarm.call(condvar.wait_for, guard, 0.005)
        guard.value += 1  # interrupted or not, it holds the mutex
    parker = fs.Parker()
    unpark = parker.unparker().unpark
    for park in (parker.park, partial(parker.park_timeout, 1)):
        errand(unpark)
        alarm.call(park)
    unpark()
    assert parker.park_timeout(PATIENCE), "a token was lost"
    group = fs.WaitGroup()
    errand(group.clone().done)
    alarm.call(group.wait)
    with contextlib.suppress(RuntimeError):  # it was interrupted after its end
        group.wait()
    assert "0 handles" in repr(group)


def begin_interrupted(alarm, errand):
    """Wait for what runs once, in another thread."""
    once, cell, lazy = fs.Once(), fs.OnceLock(), fs.LazyLock(partial(time.sleep, 0.002))
    errand(lambda: once.call_once(partial(time.sleep, 0.002)))
    alarm.call(once.wait)
    once.call_once(int)
    errand(lambda: cell.get_or_init(lambda: time.sleep(0.002) or 7))
    alarm.call(cell.wait)
    assert cell.get_or_init(lambda: 7) == cell.wait() == 7
    errand(lazy.force)
    assert lazy.force() is None  # not interrupted: that would poison it if it ran here
    assert once.is_completed()


def watch_interrupted(alarm, errand):
    """Wait for an atomic of each kind to change."""
    array = ArrayCell(fs.AtomicArray("int32", 1), 0)
    for atomic in fs.AtomicI64(0), fs.AtomicBool(0), fs.AtomicRef(0), fs.AtomicCell(0), array:

        def change(atomic=atomic):
            atomic.store(1)
            atomic.notify_all()

        errand(change)
        alarm.call(atomic.wait, 0, 1)
        assert atomic.wait(0, PATIENCE) and atomic.load() == 1, "a change was lost"


@storm
def native_signals(crowd):
    """As signals: the main thread waits in each call here, is interrupted, and holds no more."""
    if threading.current_thread() is not threading.main_thread():
        return 0
    locks, condvar = one_of_each(), fs.Condvar()
    chance = random.Random(crowd.random.random())
    inbox = stock_queue.SimpleQueue()

    def work(chance):
        while crowd.going():
            lock = chance.choice(locks)
            with getattr(lock, chance.choice(verbs(lock)))():
                time.sleep(0.0002)
            condvar.notify_one()

    def run_errands(_):
        while (errand := inbox.get()) is not None:
            time.sleep(0.001)  # so that it is waited for
            errand()

    def use_one():
        lock = chance.choice(locks)
        guard = ways(lock, chance.choice(verbs(lock)))[2](0.0005)
        if guard is not None:
            guard.unlock()

    crowd.start(work, 3)
    crowd.start(run_errands)
    rounds = 0
    try:
        with Alarm(use_one, chance, crowd.end + PATIENCE) as alarm:
            while crowd.going():
                for lock in locks:
                    hold_interrupted(alarm, lock, chance)
                wait_interrupted(alarm, inbox.put, condvar, locks[0])
                begin_interrupted(alarm, inbox.put)
                watch_interrupted(alarm, inbox.put)
                rounds += 1
    finally:
        inbox.put(None)
        crowd.join()
    assert alarm.handled and alarm.interrupted, "the timer never fired"
    assert locks[0].into_inner() == rounds
    for lock in locks:
        assert not lock.is_locked(), "a lock was left locked"
        ways(lock, verbs(lock)[-1])[1]().unlock()
    return rounds


def use_inherited(locks, condvar, atomics):
    """What a child may do with what threads of its parent used; what they held stays held."""
    for lock in locks:
        attempt = ways(lock, verbs(lock)[-1])[1]
        guard = attempt()
        if guard is None:
            if isinstance(lock, fs.ReentrantMutex):
                continue  # for ever
            free = lock._at_fork_reinit if isinstance(lock, SHARED) else lock.force_unlock
            free()
            guard = attempt()
        guard.unlock()
        attempt().unlock()
    assert condvar.notify_one() is False and condvar.notify_all() == 0, "a waiter came along"
    with fs.Mutex() as guard:
        assert condvar.wait_for(guard, 1e-5) is True
    for atomic in atomics:
        atomic.store(1)
        atomic.notify_all()
        assert atomic.wait(2, 0) and not atomic.wait(1, 1e-5) and atomic.swap(2) == 1


def use_fresh():
    """One of everything, between the child's first thread and a second one."""
    locks, condvar, parker, group = one_of_each(), fs.Condvar(), fs.Parker(), fs.WaitGroup()
    once, cell, lazy, seen = fs.Once(), fs.OnceLock(), fs.LazyLock(int), fs.AtomicRef(None)
    number, drops, counter = fs.AtomicI64(), [], fs.Counter()
    unparker, handle = parker.unparker(), group.clone()
    arc = fs.Arc("treasure", drops.append)

    def other():
        for lock in locks:
            for verb in verbs(lock):
                ways(lock, verb)[0]().unlock()
        with locks[0] as guard:
            guard.value = 1
            condvar.notify_all()
        once.call_once(lambda: cell.set(lazy.force()))
        counter.increment()
        number.store(1)
        number.notify_all()
        with arc.clone() as mine:
            seen.store(mine.value)
        unparker.unpark()
        handle.done()

    thread = threading.Thread(target=other)
    with locks[0] as guard:
        thread.start()
        assert condvar.wait_while_for(guard, lambda value: not value, 20) is False
    assert number.wait(0, 20) and parker.park_timeout(20)
    group.wait()
    thread.join(20)
    assert not thread.is_alive() and once.is_completed() and cell.get() == 0
    assert seen.load() == "treasure" and counter.value() == 1
    arc.drop()
    assert drops == ["treasure"]


@storm
def native_forks(crowd):
    """Fork with all of it contended: the child uses what it may of that, and new ones."""
    if not hasattr(os, "fork"):
        return 0
    locks, condvar, parker = one_of_each(), fs.Condvar(), fs.Parker()
    array = ArrayCell(fs.AtomicArray("int64", 1), 0)
    atomics = [fs.AtomicI64(0), fs.AtomicF64(0), fs.AtomicRef(0), fs.AtomicCell(0), array]
    unparker, counter, arc = parker.unparker(), fs.Counter(), fs.Arc("treasure")
    shared = fs.AtomicRef(fs.Once())

    def work(chance):
        while crowd.going():
            lock = chance.choice(locks)
            guard = take(ways(lock, chance.choice(verbs(lock))), chance)
            if guard is not None:
                guard.unlock()
            with locks[0] as guard:
                condvar.notify_one()
                condvar.wait_for(guard, chance.choice((1e-5, 1e-3)))
            atomic = chance.choice(atomics)
            atomic.wait(atomic.load(), 1e-5)
            atomic.store(chance.randrange(2))
            atomic.notify_all()
            shared.load().call_once(int)
            shared.store(fs.Once())
            unparker.unpark()
            counter.increment()
            arc.clone().drop()

    def park(_):
        while crowd.going():
            parker.park_timeout(1e-3)

    def child():
        use_inherited(locks, condvar, atomics)
        counter.increment()
        assert counter.value() and arc.clone().value == "treasure"
        unparker.unpark()
        assert parker.park_timeout(20)
        once = shared.load()
        if once.state() is not fs.OnceState.InProgress:
            once.call_once(int)
        use_fresh()

    crowd.start(work, 4)
    crowd.start(park)
    count = 0
    while crowd.going():
        in_child(child)
        count += 1
    crowd.join()
    for lock in locks:
        assert not lock.is_locked(), "a lock was left locked"
    return count
