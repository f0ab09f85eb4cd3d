#!/usr/bin/env python3
"""Use and misuse the types that own values, from several threads, at random.

    python tests/fuzz/fuzz_cells.py [SECONDS] [SEED] [THREADS] [words|mixed|arcs|once ...]

Threads share words (AtomicRef, AtomicCell), handles (Arc, Weak) and one-time values, and do to them
whatever is allowed and much that is not: they end a handle that another thread uses, initialize one
a second time, store objects whose finalizers and comparisons use the object they are in, build
cycles, drop, collect, and follow weak references to what is dying.

Checked, all the time: a word gives only what was stored in it; what is loaded is alive; nothing but
the documented exceptions is raised. At the end of each round: every value is freed, and every value
of an Arc was dropped once or taken out once.

Prints its seed. Status 1 and a message when something is wrong; a crash is one by itself.
"""

import contextlib
import gc
import sys
import threading
import time
import weakref
from functools import partial
from itertools import islice
from pathlib import Path

from fastsync import Arc, AtomicCell, AtomicI64, AtomicRef, LazyLock, OnceLock, lazy_property, once

sys.path.append(str(Path(__file__).resolve().parent))

import fuzzing
from fuzzing import Wrong

WORDS = 4
OPERATIONS = 400  # of a thread in a round, each a burst
BURST = 20
LENGTH = 1.5  # seconds of a round


class Count:
    """How many objects of all threads live, and how often values of Arcs ended."""

    alive = AtomicI64(0)
    made = AtomicI64(0)
    dropped = AtomicI64(0)
    taken = AtomicI64(0)


def new_class(number):
    """Objects of one word only: all the same size, so that one takes another's memory."""

    class Stored:
        __slots__ = ("__weakref__", "state")
        home = number

        def __init__(self):
            self.state = "alive"

    return Stored


CLASSES = [new_class(number) for number in range(WORDS)]


class Meddler:
    """Finalizers, comparisons and calls that use the shared objects."""

    def __init__(self, shared, rng):
        Count.alive.fetch_add(1)
        self.shared, self.number = shared, rng.randrange(WORDS)

    def __del__(self):
        Count.alive.fetch_sub(1)
        if shared := self.shared:
            check(shared.mixed[self.number].load())

    def __eq__(self, other):
        self.shared.mixed[self.number].load()
        return self is other

    __hash__ = None


class Owned:
    """A value of Arcs. Each one is dropped once, or taken out once."""

    def __init__(self):
        Count.alive.fetch_add(1)
        Count.made.fetch_add(1)
        self.link = None

    def __copy__(self):
        return Owned()

    def __del__(self):
        Count.alive.fetch_sub(1)


class Made(Owned):
    """What a function makes one time: no Arc owns it."""

    def __init__(self):
        super().__init__()
        Count.made.fetch_sub(1)


def on_drop(value):
    if type(value) is not Owned:
        raise Wrong(f"on_drop was called with {value!r}")
    Count.dropped.fetch_add(1)


def check(value):
    if isinstance(value, Meddler) and value.shared is None:
        raise Wrong("a load gave an object that was finalized")


def fail():
    raise ConnectionError("refused")


class Lazy:
    def __init__(self):
        self.runs = AtomicI64(0)

    @lazy_property
    def value(self):
        self.runs.fetch_add(1)
        return Made()


def hazards_of(word):
    """Which hazard pointers a word uses, on a free-threaded build: a hash of its address."""
    header = 32
    return ((id(word) + header) * 0x9E3779B97F4A7C15 & (1 << 64) - 1) >> 60


def words_that_share_hazards(rng):
    words = [rng.choice([AtomicRef, AtomicCell])() for _ in range(WORDS * 100)]
    return [word for word in words if hazards_of(word) == hazards_of(words[0])][:WORDS]


class Shared:
    """What the threads of one round have in common."""

    def __init__(self, rng):
        self.words = words_that_share_hazards(rng)
        self.mixed = [rng.choice([AtomicRef, AtomicCell])() for _ in range(WORDS)]
        self.arcs = [Arc(Owned(), on_drop) for _ in range(6)]
        self.weaks = [arc.downgrade() for arc in self.arcs]
        self.references = [weakref.ref(thing) for thing in [*self.arcs, *self.mixed]]
        self.locks = [OnceLock() for _ in range(4)]
        self.lazies = [LazyLock(Made), LazyLock(fail)]
        self.onces = [once(lambda *_: 5), once(lambda *_: fail())]
        self.things = [Lazy() for _ in range(4)]


# -- what threads do


NEVER = object()


def load_words(shared, rng):
    """Loads back to back in C: what is between two of them makes the window a smaller part."""
    number = rng.randrange(len(shared.words))
    for _ in range(BURST):
        loads = islice(iter(shared.words[number].load, NEVER), 1000)
        if strangers := {*map(type, loads)} - {CLASSES[number], type(None)}:
            raise Wrong(f"word {number} gave an object of word {strangers.pop().home}")


def store_words(shared, rng):
    """One object after the other in the same memory, now in this word, now in that."""
    one, two = rng.sample(range(len(shared.words)), 2)
    store_one, store_two = shared.words[one].store, shared.words[two].store
    class_one, class_two = CLASSES[one], CLASSES[two]
    for _ in range(20 * BURST):
        store_one(class_one())
        store_one(None)
        store_two(class_two())
        store_two(None)


def exchange_words(shared, rng):
    number = rng.randrange(len(shared.words))
    word, home = shared.words[number], CLASSES[number]
    for _ in range(20):
        new = home()
        for old in (word.swap(new), word.compare_exchange(new, None)[1]):
            if type(old) is not home and old is not None:
                raise Wrong(f"word {number} gave an object of word {type(old).home}")


def use_mixed(shared, rng):
    cell = rng.choice(shared.mixed)
    what = rng.randrange(7)
    if what == 0:
        cell.store(Meddler(shared, rng))
    elif what == 1:
        cell.store(rng.choice(shared.mixed))  # cycles
    elif what == 2:
        check(cell.load())
    elif what == 3:
        cell.compare_exchange(cell.load(), Meddler(shared, rng))
    elif what == 4:
        cell.__init__(rng.choice([None, 1, shared.mixed]))
    elif what == 5:
        cell.fetch_update(lambda old: None if rng.random() < 0.5 else Meddler(shared, rng))
    else:
        cell.into_inner()


def taken(value):
    if value is not None:
        if type(value) is not Owned:
            raise Wrong(f"an Arc gave {value!r}")
        Count.taken.fetch_add(1)


ARC_USES = [
    lambda arc, rng: arc.clone().drop(),
    lambda arc, rng: arc.make_mut(),
    lambda arc, rng: arc.get_mut(),
    lambda arc, rng: arc.value,
    lambda arc, rng: arc.strong_count(),
    lambda arc, rng: arc.weak_count(),
    lambda arc, rng: arc.downgrade().drop(),
    lambda arc, rng: setattr(arc.value, "link", arc.downgrade()),
    lambda arc, rng: setattr(arc.value, "link", Arc(Owned(), on_drop)),
    lambda arc, rng: arc.drop() if rng.random() < 0.1 else None,
    lambda arc, rng: arc.__init__(Owned(), on_drop) if rng.random() < 0.3 else None,
    lambda arc, rng: taken(arc.into_inner()) if rng.random() < 0.1 else None,
    lambda arc, rng: repr(arc),
]


def use_arc(shared, rng):
    arc = rng.choice(shared.arcs)
    for _ in range(10):
        with contextlib.suppress(ReferenceError):
            result = rng.choice(ARC_USES)(arc, rng)
            if type(result) is int and not 0 <= result < 1000:
                raise Wrong(f"a count of {result}")
            if type(result) is Owned and result.link is NotImplemented:
                raise Wrong("an object that is no value")


def unwrap_arc(shared, rng):
    with contextlib.suppress(ReferenceError):
        moved, value = rng.choice(shared.arcs).try_unwrap()
        if moved:
            taken(value)


def use_weak(shared, rng):
    weak = rng.choice(shared.weaks)
    for _ in range(10):
        with contextlib.suppress(ReferenceError):
            arc = weak.upgrade()
            if arc is not None:
                if type(arc.value) is not Owned:
                    raise Wrong(f"a Weak gave {arc.value!r}")
                arc.drop()
            weak.clone().drop()
            weak.strong_count()
    if rng.random() < 0.02:
        weak.drop()
        shared.weaks[shared.weaks.index(weak) if weak in shared.weaks else 0] = Arc(5).downgrade()


def follow_references(shared, rng):
    for reference in shared.references:
        thing = reference()
        if isinstance(thing, Arc):
            with contextlib.suppress(ReferenceError):
                thing.strong_count()
        elif thing is not None:
            thing.load()
    short = AtomicRef(Arc(Owned(), on_drop))
    shared.references[rng.randrange(len(shared.references))] = weakref.ref(short)


def use_once(shared, rng):
    lock = rng.choice(shared.locks)
    what = rng.randrange(6)
    if what == 0:
        lock.set(Made())
    elif what == 1:
        lock.take()
    elif what == 2:
        with contextlib.suppress(RuntimeError):
            lock.get_or_init(rng.choice([Made, lambda: lock.get_or_init(Made)]))
    elif what == 3:
        if type(shared.lazies[0].force()) is not Made:
            raise Wrong("a LazyLock gave something else")
        raises_its_own(shared.lazies[1].force)
    elif what == 4:
        if shared.onces[0](1) != 5:
            raise Wrong("a once gave something else")
        raises_its_own(shared.onces[1])
    else:
        thing = rng.choice(shared.things)
        if type(thing.value) is not Made:
            raise Wrong("a lazy_property gave something else")


def raises_its_own(call):
    try:
        call()
    except (ConnectionError, RuntimeError) as error:
        if error.__cause__ is not None:
            error = error.__cause__
        error.__traceback__ = None
        error.mark = threading.get_ident()
        time.sleep(0)
        if error.mark != threading.get_ident():
            raise Wrong("two threads were given one exception") from None
    else:
        raise Wrong("a function that fails has not")


def collect(shared, rng):
    if rng.random() < 0.05:
        gc.collect()


KINDS = {
    "words": [load_words, load_words, exchange_words],
    "mixed": [use_mixed, follow_references, collect],
    "arcs": [use_arc, use_arc, unwrap_arc, use_weak, follow_references, collect],
    "once": [use_once, use_once],
}


def wait_freed():
    """Other threads' last references are dropped a moment later, by this one."""
    fuzzing.wait_until(freed, f"{Count.alive.load()} values were not freed")
    ends = Count.dropped.load() + Count.taken.load()
    if ends != Count.made.load():
        raise Wrong(f"{Count.made.load()} values of Arcs, of which {ends} ended")


def freed():
    gc.collect()
    return Count.alive.load() == 0


def use_by_a_crowd(fuzz, kind):
    operations = KINDS[kind]
    shared = Shared(fuzz.rng)

    def work(index, rng):
        for _ in range(OPERATIONS):
            if not fuzz.going():
                break
            # Of words, most threads load and one stores, without an end.
            operation = store_words if index == 0 and kind == "words" else rng.choice(operations)
            operation(shared, rng)

    fuzz.join(fuzz.start(*[partial(work, index) for index in range(fuzz.threads)]))
    for cell in shared.mixed:
        cell.store(None)
    for arc in shared.arcs:
        arc.drop()


def one_round(fuzz, kinds):
    fuzz.end = min(fuzz.end, time.monotonic() + LENGTH)
    kind = kinds[fuzz.seed % len(kinds)]
    if kind == "words":
        gc.disable()  # what it stops is not where it would be in the way of the others
    use_by_a_crowd(fuzz, kind)
    gc.enable()
    if not fuzz.errors:
        wait_freed()


if __name__ == "__main__":
    sys.exit(fuzzing.run(KINDS, one_round))
