"""Histories of types that own data, of atomics, cells and arrays, and their rules in one thread.

As test_histories.py does for fastsync.threading; histories.py explains.
"""

import itertools
import operator
import sys
import time
from collections import deque
from functools import partial

import pytest
from conftest import run_threads
from histories import HISTORIES, check, exactly, refused
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import fastsync
from fastsync import (
    Arc,
    AtomicArray,
    AtomicBool,
    AtomicCell,
    AtomicRef,
    Condvar,
    Counter,
    FairMutex,
    LazyLock,
    Mutex,
    Once,
    OnceLock,
    Parker,
    ReentrantMutex,
    RwLock,
    ShardedLock,
    WaitGroup,
)

FEW = HISTORIES // 3  # of each of many types that are alike


# -- locks that own a number -------------------------------------------------------------------


def add_to(guard):
    """Not atomic by itself: two that do it at once lose one."""
    before = guard.value
    guard.value = before + 1
    return before + 1


def add(lock):
    with lock as guard:
        return add_to(guard)


def add_soon(lock):
    """None when it was not to be had in time, which may be at any moment."""
    guard = lock.try_lock_for(0.0002)
    return None if guard is None else leaving(guard, add_to)


def add_twice_inside(lock):
    with lock as outer, lock as inner:
        add_to(inner)
        return add_to(outer)


def leaving(guard, function):
    result = function(guard)
    guard.unlock_fair()
    return result


def value_of(guard):
    return guard.value


def write(lock):
    with lock.write() as guard:
        return add_to(guard)


def write_soon(lock):
    guard = lock.try_write_for(0.0002)
    return None if guard is None else leaving(guard, add_to)


def read(lock):
    with lock.read() as guard:
        return guard.value


def read_recursively(lock):
    with lock.read(), lock.read_recursive() as guard:
        return guard.value


def read_at_once(lock):
    guard = lock.try_read()
    return None if guard is None else leaving(guard, value_of)


def upgrade(lock):
    """Nobody writes between what is read here and what is written."""
    with lock.upgradable_read() as guard:
        before = guard.value
        with guard.upgrade() as writing:
            assert writing.value == before
            return add_to(writing)


def downgrade(lock):
    """Nor here between what is written and what is read."""
    guard = lock.write()
    add_to(guard)
    return leaving(guard.downgrade(), value_of)


def downgrade_and_upgrade(lock):
    """Readers come in between, no writer."""
    guard = lock.write()
    add_to(guard)
    return leaving(guard.downgrade_to_upgradable().upgrade(), value_of)


ADDED = {add_twice_inside: 2}
ADDED |= dict.fromkeys(
    [add, add_soon, write, write_soon, upgrade, downgrade, downgrade_and_upgrade], 1
)

CALLS = {
    Mutex: [add, add_soon],
    FairMutex: [add, add_soon],
    ReentrantMutex: [add, add_soon, add_twice_inside],
    ShardedLock: [write, write_soon, read, read_recursively, read_at_once],
}
CALLS[RwLock] = [*CALLS[ShardedLock], upgrade, downgrade, downgrade_and_upgrade]


def number_spec(state, thread, call, result):
    if result is None:
        return state if call in (add_soon, write_soon, read_at_once) else None
    state += ADDED.get(call, 0)
    return state if result == state else None


@pytest.mark.parametrize("kind", CALLS)
def test_histories_of_a_lock_that_owns_a_number(kind):
    check(lambda: kind(0), lambda lock, call: call(lock), CALLS[kind], number_spec, 0)


class Open:
    """Looks like a Mutex, and keeps nobody out."""

    def __init__(self):
        self.value = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.mark.skipif("free-threading" not in sys.version, reason="the GIL keeps threads apart")
def test_a_lock_that_keeps_no_thread_out_is_noticed():
    with pytest.raises(AssertionError):
        for _ in range(40):
            check(Open, lambda lock, call: call(lock), [add], number_spec, 0)


# -- views of a reader-writer lock -------------------------------------------------------------


def view_spec(state, thread, call, result):
    """The state: how many read, -1 while one writes."""
    side, call = call
    mine = state > 0 if side == "reader" else state < 0
    step = 1 if side == "reader" else -1
    if call == "release":
        return (state - step if mine else state) if (result is None) == mine else None
    if call == "locked":
        return state if result == mine else None
    free = state >= 0 if side == "reader" else state == 0
    if not result:
        return state  # may be refused for a moment, also because others ask
    return state + step if free else None


@pytest.mark.parametrize("kind", [RwLock, ShardedLock])
def test_histories_of_the_views_of_a_lock(kind):
    def perform(lock, call):
        view = getattr(lock, call[0])
        if call[1] == "acquire":
            return view.acquire(False)
        return refused(view.release, RuntimeError) if call[1] == "release" else view.locked()

    calls = [(side, call) for side in ("reader", "writer") for call in ("acquire", "release")]
    check(kind, perform, [*calls, ("writer", "locked")], view_spec, 0)


# -- a queue on a condition variable -----------------------------------------------------------


class Queue:
    def __init__(self):
        self.items, self.ready = Mutex(deque()), Condvar()

    def put(self, item):
        with self.items as guard:
            guard.value.append(item)
        self.ready.notify_one()

    def get(self):
        with self.items as guard:
            if not self.ready.wait_while_for(guard, lambda items: not items, 0):
                return guard.value.popleft()


def queue_model(state, call):
    if call[0] == "put":
        return None, (*state, call[1])
    return (state[0], state[1:]) if state else (None, state)


def test_histories_of_a_queue_on_a_condvar():
    def perform(queue, call):
        return getattr(queue, call[0])(*call[1:])

    calls = [("put", 1), ("put", 2), ("get",), ("get",)]
    check(Queue, perform, calls, exactly(queue_model), ())


# -- once --------------------------------------------------------------------------------------


def fail():
    raise KeyError


def once_model(state, call):
    if call == "is_completed":
        return state == "Done", state
    if state == "Done":
        return None, state
    if state == "Poisoned" and "force" not in call:
        return "RuntimeError", state
    return ("KeyError", "Poisoned") if "fail" in call else (None, "Done")


def named(call):
    try:
        return call()
    except (KeyError, RuntimeError) as error:
        return type(error).__name__


def test_histories_of_once():
    calls = {
        "call_once": lambda once: named(lambda: once.call_once(int)),
        "call_once, fail": lambda once: named(lambda: once.call_once(fail)),
        "call_once_force": lambda once: named(lambda: once.call_once_force(lambda _: None)),
        "call_once_force, fail": lambda once: named(lambda: once.call_once_force(lambda _: fail())),
        "is_completed": lambda once: once.is_completed(),
    }
    check(Once, lambda once, call: calls[call](once), list(calls), exactly(once_model), "New")


def once_lock_model(state, call):
    """The state: () or (value,)."""
    name, *given = call
    if name == "set":
        return not state, state or (given[0],)
    if name == "get_or_init":
        return (state or given)[0], state or (given[0],)
    return (state[0] if state else None), () if name == "take" else state


def test_histories_of_a_once_lock():
    def perform(lock, call):
        if call[0] == "get_or_init":
            return lock.get_or_init(lambda: call[1])
        return getattr(lock, call[0])(*call[1:])

    calls = [("set", 1), ("get_or_init", 2), ("get_or_init", 3), ("get",), ("take",)]
    check(OnceLock, perform, calls, exactly(once_lock_model), ())


def test_histories_of_a_lazy_lock():
    def perform(lazy, call):
        return lazy.force() if call == "force" else lazy.value

    def model(state, call):
        return 0, state  # whoever comes first, the function has run once

    make = lambda: LazyLock(partial(next, itertools.count()))  # noqa: E731
    check(make, perform, ["force", "value"], exactly(model), True)


# -- the parker's token ------------------------------------------------------------------------


def test_histories_of_a_parker():
    def perform(parker, call):
        return parker.park_timeout(0) if call == "park" else parker.unparker().unpark()

    def model(token, call):
        return (None, True) if call == "unpark" else (token, False)

    check(Parker, perform, ["park", "unpark"], exactly(model), False)


# -- atomics -----------------------------------------------------------------------------------

ARITHMETIC = {
    "swap": lambda a, b: b,
    "fetch_add": operator.add,
    "fetch_sub": operator.sub,
    "fetch_max": max,
    "fetch_min": min,
}
BITWISE = {
    "fetch_and": operator.and_,
    "fetch_or": operator.or_,
    "fetch_xor": operator.xor,
    "fetch_nand": lambda a, b: ~(a & b),
}
BITS = {"8": 8, "16": 16, "32": 32, "64": 64, "size": sys.maxsize.bit_length() + 1}
INTEGERS = {f"Atomic{sign}{name}": (BITS[name], sign == "I") for sign in "IU" for name in BITS}


def wrapped(value, bits, signed):
    value %= 1 << bits
    return value - (1 << bits) if signed and value >> (bits - 1) else value


def atomic_model(operations, fit=lambda value: value):
    """The model of an atomic whose operations return what was there before."""

    def model(state, call):
        name, *given = call
        if name == "load":
            return state, state
        if name == "store":
            return None, given[0]
        if name in ("compare_exchange", "compare_and_set"):
            right = state == given[0]
            after = given[1] if right else state
            return ((right, state) if name == "compare_exchange" else right), after
        if name == "update":
            return state, fit(state + 1)
        if name == "fetch_not":
            return state, not state
        return state, fit(operations[name](state, given[0]))

    return model


def perform_on_atomic(atomic, call):
    if call[0] == "update":
        return atomic.update(lambda value: atomic_next(atomic, value))
    return getattr(atomic, call[0])(*call[1:])


def atomic_next(atomic, value):
    if isinstance(value, float):
        return value + 1
    return wrapped(value + 1, *INTEGERS[type(atomic).__name__])


def atomic_calls(operations, values):
    calls = [("load",), *[("store", v) for v in values]]
    calls += [(name, v) for name in operations for v in values]
    for name in ("compare_exchange", "compare_and_set"):
        calls += [(name, a, b) for a in values for b in values]
    return calls


@pytest.mark.parametrize("name", INTEGERS)
def test_histories_of_integers(name):
    bits, signed = INTEGERS[name]
    edges = [wrapped(v, bits, signed) for v in (0, 1, (1 << (bits - 1)) - 1, -1)]
    operations = ARITHMETIC | BITWISE
    calls = [*atomic_calls(operations, edges), *[("update",)] * 4]
    spec = exactly(atomic_model(operations, lambda value: wrapped(value, bits, signed)))
    check(getattr(fastsync, name), perform_on_atomic, calls, spec, 0, histories=FEW)


@pytest.mark.parametrize("name", ["AtomicF32", "AtomicF64"])
def test_histories_of_floats(name):
    calls = [*atomic_calls(ARITHMETIC, [0.0, 1.0, -0.5]), *[("update",)] * 4]
    spec = exactly(atomic_model(ARITHMETIC))
    check(getattr(fastsync, name), perform_on_atomic, calls, spec, 0.0, histories=FEW)


def test_histories_of_booleans():
    operations = BITWISE | {"swap": ARITHMETIC["swap"]}
    operations["fetch_nand"] = lambda a, b: not (a and b)
    calls = [*atomic_calls(operations, [False, True]), ("fetch_not",)]
    check(AtomicBool, perform_on_atomic, calls, exactly(atomic_model(operations)), False)


class Compared:
    """Equal to every other with the same number, so that identity and equality differ."""

    def __init__(self, number):
        self.number = number

    def __eq__(self, other):
        return isinstance(other, Compared) and self.number == other.number

    def __hash__(self):
        return hash(self.number)


THINGS = [Compared(1), Compared(1), Compared(2)]


def reference_model(same):
    def model(state, call):
        name, *given = call
        if name.startswith("compare"):
            right = same(state, given[0])
            after = given[1] if right else state
            return ((right, state) if name == "compare_exchange" else right), after
        after = {"load": state, "take": None}.get(name, given[0] if given else None)
        return (None if name == "store" else state), after

    return model


def reference_spec(same):
    """exactly() with identity, in pairs too."""
    model = reference_model(same)
    everything = [*THINGS, None]

    def spec(place, thread, call, result):
        # The state is a place in a list: equal objects would be one and the same state.
        expected, after = model(everything[place], call)
        pairs = zip(*(x if isinstance(x, tuple) else (x,) for x in (expected, result)), strict=True)
        if all(a is b for a, b in pairs):
            return next(i for i, thing in enumerate(everything) if thing is after)

    return spec


@pytest.mark.parametrize("kind", [AtomicRef, AtomicCell])
def test_histories_of_references(kind):
    names = ["store", "swap"]
    calls = [("load",), *[(name, thing) for name in names for thing in THINGS]]
    calls += [("compare_exchange", a, b) for a in THINGS for b in THINGS]
    if kind is AtomicRef:
        calls += [("compare_and_set", a, b) for a in THINGS for b in THINGS]
    else:
        calls += [("take",)] * 3
    same = operator.is_ if kind is AtomicRef else operator.eq
    check(lambda: kind(THINGS[0]), perform_on_atomic, calls, reference_spec(same), 0)


def array_model(operations, fit):
    one = atomic_model(operations, fit)

    def model(state, call):
        name, index, *given = call
        result, after = one(state[index], (name, *given))
        return result, (*state[:index], after, *state[index + 1 :])

    return model


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "uint64"])
def test_histories_of_an_array(dtype):
    bits, signed = int(dtype.strip("uint")), dtype[0] == "i"
    operations = ARITHMETIC | BITWISE
    values = [wrapped(v, bits, signed) for v in (0, 1, -1)]
    calls = [(call[0], i, *call[1:]) for call in atomic_calls(operations, values) for i in (0, 1)]
    spec = exactly(array_model(operations, lambda value: wrapped(value, bits, signed)))
    check(lambda: AtomicArray(dtype, 2), perform_on_atomic, calls, spec, (0, 0), histories=FEW)


def test_value_of_a_counter_lies_between_what_had_ended_and_what_had_begun():
    counter, threads, rounds = Counter(), 3, 300
    begun, ended = [[0] * threads for _ in "be"]

    def work(me):
        for i in range(rounds):
            begun[me] = i + 1
            counter.increment()
            ended[me] = i + 1
            low = sum(ended)
            value = counter.value()
            assert low <= value <= sum(begun)

    run_threads(work, count=threads)
    assert counter.value() == threads * rounds


def test_histories_of_shared_ownership():
    """The state: how many own it; 1 at the start, which stays."""

    def perform(owners, call):
        if call == "count":
            return owners[0].strong_count()
        if call == "drop":
            try:
                owners[1].pop().drop()
            except IndexError:
                return "none"
            return None
        more = owners[0].clone() if call == "clone" else owners[2].upgrade()
        value = more.value
        owners[1].append(more)
        return value

    def make():
        arc = Arc("value")
        return arc, deque(), arc.downgrade()

    def spec(state, thread, call, result):
        if call == "count":
            return state if result == state else None
        if call == "drop":
            return state if result == "none" else state - 1
        return state + 1 if result == "value" else None

    check(make, perform, ["clone", "upgrade", "drop", "count"], spec, 1)


def test_histories_of_the_handles_of_a_wait_group():
    """The state: how many live; 1 at the start, which stays."""

    def perform(group, call):
        if call == "count":
            return int(repr(group[0]).split()[1])
        if call == "clone":
            return group[1].append(group[0].clone())
        try:
            return group[1].pop().done()
        except IndexError:
            return "none"

    def spec(state, thread, call, result):
        if call == "count":
            return state if result == state else None
        if result == "none":
            return state
        return state + 1 if call == "clone" else state - 1

    check(lambda: (WaitGroup(), deque()), perform, ["clone", "done", "count"], spec, 1)


# -- rules of one thread -----------------------------------------------------------------------

QUIET = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
NOW = st.sampled_from([0, -1, 1e-9, 1e-6])


class MutexMachine(RuleBasedStateMachine):
    kind = Mutex

    def __init__(self):
        super().__init__()
        self.mutex, self.guard, self.value = self.kind(0), None, 0

    @rule(timeout=NOW)
    def lock(self, timeout):
        guard = self.mutex.try_lock_for(timeout)
        assert (guard is None) is (self.guard is not None)
        self.guard = self.guard or guard

    @precondition(lambda self: self.guard)
    @rule(way=st.sampled_from(["unlock", "unlock_fair", "leak", "with"]))
    def unlock(self, way):
        guard, self.guard = self.guard, None
        if way == "with":
            with guard:
                pass
        else:
            getattr(guard, way)()
        if way == "leak":
            assert self.mutex.is_locked()
            self.mutex.force_unlock()
        for call in (guard.unlock, guard.bump, guard.leak, lambda: guard.value):
            assert refused(call, RuntimeError)

    @precondition(lambda self: self.guard)
    @rule(value=st.integers(0, 9))
    def change(self, value):
        self.guard.value = self.value = value
        self.guard.bump()

    @precondition(lambda self: self.guard)
    @rule()
    def let_others_in(self):
        with self.guard.unlocked():
            with self.mutex as inner:
                inner.value += 1
                self.value += 1
            assert refused(lambda: self.guard.value, RuntimeError)

    @precondition(lambda self: not self.guard)
    @rule()
    def enter(self):
        with self.mutex as guard:
            assert guard.value == self.value and self.mutex.try_lock() is None

    @rule()
    def drop(self):
        self.guard = None

    @invariant()
    def agrees(self):
        assert self.mutex.is_locked() is (self.guard is not None)
        if self.guard:
            assert self.guard.value == self.value


class FairMutexMachine(MutexMachine):
    kind = FairMutex


class ReentrantMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.mutex, self.guards = ReentrantMutex([]), []

    @rule(timeout=NOW)
    def lock(self, timeout):
        self.guards.append(self.mutex.try_lock_for(timeout))
        assert self.guards[-1] is not None

    @precondition(lambda self: self.guards)
    @rule(which=st.integers(0, 9), fair=st.booleans())
    def unlock(self, which, fair):
        """In any order."""
        guard = self.guards.pop(which % len(self.guards))
        guard.unlock_fair() if fair else guard.unlock()
        assert refused(guard.unlock, RuntimeError)

    @rule(depth=st.integers(1, 3))
    def enter(self, depth):
        with self.mutex as outer:
            for _ in range(depth):
                with self.mutex as inner:
                    assert inner.value is outer.value

    @invariant()
    def agrees(self):
        held = bool(self.guards)
        assert self.mutex.is_locked() is held is self.mutex.is_owned_by_current_thread()


class RwLockMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.lock, self.readers, self.upgradable, self.writer = RwLock(0), [], None, None

    @rule(timeout=NOW, recursive=st.booleans())
    def read(self, timeout, recursive):
        call = self.lock.try_read_recursive_for if recursive else self.lock.try_read_for
        guard = call(timeout)
        assert (guard is None) is (self.writer is not None)
        if guard:
            self.readers.append(guard)

    @rule(timeout=NOW)
    def upgradable_read(self, timeout):
        guard = self.lock.try_upgradable_read_for(timeout)
        taken = self.writer is not None or self.upgradable is not None
        assert (guard is None) is taken
        self.upgradable = self.upgradable or guard

    @rule(timeout=NOW)
    def write(self, timeout):
        guard = self.lock.try_write_for(timeout)
        taken = bool(self.readers or self.upgradable or self.writer)
        assert (guard is None) is taken
        self.writer = self.writer or guard

    @precondition(lambda self: self.upgradable)
    @rule(timeout=NOW)
    def upgrade(self, timeout):
        guard = self.upgradable.try_upgrade_for(timeout)
        assert (guard is None) is bool(self.readers)
        if guard:
            self.upgradable, self.writer = None, guard

    @precondition(lambda self: self.writer)
    @rule(upgradable=st.booleans())
    def downgrade(self, upgradable):
        if upgradable:
            self.upgradable = self.writer.downgrade_to_upgradable()
        else:
            self.readers.append(self.writer.downgrade())
        self.writer = None

    @precondition(lambda self: self.upgradable)
    @rule()
    def stop_being_upgradable(self):
        self.readers.append(self.upgradable.downgrade())
        self.upgradable = None

    @rule(which=st.integers(0, 9), fair=st.booleans())
    def unlock(self, which, fair):
        guards = [*self.readers, self.upgradable, self.writer]
        guard = guards[which % len(guards)]
        assume(guard)
        guard.unlock_fair() if fair else guard.unlock()
        assert refused(guard.unlock, RuntimeError)
        self.readers = [g for g in self.readers if g is not guard]
        self.upgradable = None if guard is self.upgradable else self.upgradable
        self.writer = None if guard is self.writer else self.writer

    @invariant()
    def agrees(self):
        assert self.lock.is_locked() is bool(self.readers or self.upgradable or self.writer)
        assert self.lock.is_locked_exclusive() is (self.writer is not None)


class OnceLockMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.lock, self.state = OnceLock(), ()

    @rule(call=st.sampled_from(["set", "get_or_init", "get", "take"]), value=st.integers(0, 9))
    def step(self, call, value):
        given = {"set": (value,), "get_or_init": (lambda: value,)}.get(call, ())
        expected, self.state = once_lock_model(self.state, (call, value))
        assert getattr(self.lock, call)(*given) == expected

    @rule()
    def fail(self):
        result = named(lambda: self.lock.get_or_init(fail))
        assert result == (self.state[0] if self.state else "KeyError")


class IntegerMachine(RuleBasedStateMachine):
    name = "AtomicI8"

    def __init__(self):
        super().__init__()
        self.bits, self.signed = INTEGERS[self.name]
        self.atomic, self.value = getattr(fastsync, self.name)(0), 0
        self.model = atomic_model(ARITHMETIC | BITWISE, self.fit)

    def fit(self, value):
        return wrapped(value, self.bits, self.signed)

    @rule(name=st.sampled_from(sorted(ARITHMETIC | BITWISE)), number=st.integers())
    def step(self, name, number):
        call = name, self.fit(number)
        expected, self.value = self.model(self.value, call)
        assert perform_on_atomic(self.atomic, call) == expected

    @rule(guess=st.booleans(), number=st.integers(), other=st.integers())
    def exchange(self, guess, number, other):
        call = "compare_exchange", self.value if guess else self.fit(other), self.fit(number)
        expected, self.value = self.model(self.value, call)
        assert perform_on_atomic(self.atomic, call) == expected

    @rule(number=st.integers(), name=st.sampled_from(["store", "swap", "fetch_add", "fetch_max"]))
    def refuse(self, number, name):
        assume(self.fit(number) != number)
        assert refused(lambda: getattr(self.atomic, name)(number), OverflowError)

    @rule()
    def fail_in_an_update(self):
        assert named(lambda: self.atomic.fetch_update(lambda _: fail())) == "KeyError"
        assert self.atomic.fetch_update(lambda _: None) == (False, self.value)

    @rule(timeout=NOW)
    def wait(self, timeout):
        assert self.atomic.wait(self.value, timeout) is False
        assert self.atomic.wait(self.fit(self.value + 1)) is True

    @invariant()
    def agrees(self):
        assert self.atomic.load() == self.value == int(self.atomic)


class UnsignedMachine(IntegerMachine):
    name = "AtomicU16"


class WideMachine(IntegerMachine):
    name = "AtomicI64"


class ArcMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.dropped = []
        self.arcs, self.weaks = [Arc("value", self.dropped.append)], []

    @rule(which=st.integers(0, 9), how=st.sampled_from(["clone", "downgrade", "drop"]))
    def step(self, which, how):
        assume(self.arcs)
        arc = self.arcs[which % len(self.arcs)]
        if how == "drop":
            self.arcs = [other for other in self.arcs if other is not arc]
            arc.drop()
            with pytest.raises(ReferenceError):
                arc.clone()
        else:
            (self.arcs if how == "clone" else self.weaks).append(getattr(arc, how)())

    @precondition(lambda self: self.weaks)
    @rule(which=st.integers(0, 9), how=st.sampled_from(["clone", "upgrade", "drop"]))
    def weak_step(self, which, how):
        weak = self.weaks[which % len(self.weaks)]
        if how == "drop":
            self.weaks = [other for other in self.weaks if other is not weak]
            weak.drop()
        elif how == "clone":
            self.weaks.append(weak.clone())
        else:
            arc = weak.upgrade()
            assert (arc is None) is (not self.arcs)
            self.arcs += [arc] if arc else []

    @precondition(lambda self: self.arcs)
    @rule()
    def unwrap(self):
        alone = len(self.arcs) == 1
        arc = self.arcs[-1]
        moved, value = arc.try_unwrap()
        assert moved is alone and (value == "value" if moved else value is arc)
        if moved:
            self.arcs = []
            self.dropped.append("value")  # moved out: on_drop is not called

    @invariant()
    def agrees(self):
        assert self.dropped == ([] if self.arcs else ["value"])
        for arc in self.arcs:
            assert arc.strong_count() == len(self.arcs) and arc.weak_count() == len(self.weaks)
        for weak in self.weaks:
            assert weak.strong_count() == len(self.arcs)


class ParkerMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.parker, self.token = Parker(), False
        self.unparkers = [self.parker.unparker()]

    @rule(which=st.integers(0, 9))
    def unpark(self, which):
        unparker = self.unparkers[which % len(self.unparkers)]
        self.unparkers.append(unparker.clone())
        unparker.unpark()
        self.token = True

    @rule(timeout=NOW, absolute=st.booleans())
    def park(self, timeout, absolute):
        parker = self.parker
        took = parker.park_deadline(time.monotonic() + timeout) if absolute else None
        took = parker.park_timeout(timeout) if took is None else took
        assert took is self.token
        self.token = False

    @precondition(lambda self: self.token)
    @rule()
    def park_for_ever(self):
        self.parker.park()
        self.token = False


class GroupMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.handles = [WaitGroup()]

    @precondition(lambda self: not self.handles)
    @rule()
    def begin_anew(self):
        self.handles = [WaitGroup()]

    @precondition(lambda self: self.handles)
    @rule(which=st.integers(0, 9), how=st.sampled_from(["clone", "done", "with", "wait"]))
    def step(self, which, how):
        handle = self.handles[which % len(self.handles)]
        if how == "clone":
            self.handles.append(handle.clone())
            return
        assume(how != "wait" or len(self.handles) == 1)  # it would wait for the others
        self.handles = [other for other in self.handles if other is not handle]
        if how == "with":
            with handle:
                pass
        else:
            getattr(handle, how)()
        for call in (handle.done, handle.clone, handle.wait):
            assert refused(call, RuntimeError)


MACHINES = [
    MutexMachine,
    FairMutexMachine,
    ReentrantMachine,
    RwLockMachine,
    OnceLockMachine,
    IntegerMachine,
    UnsignedMachine,
    WideMachine,
    ArcMachine,
    ParkerMachine,
    GroupMachine,
]


@pytest.mark.parametrize("machine", MACHINES)
def test_rules_of_one_thread(machine):
    case = machine.TestCase("runTest")
    case.settings = QUIET
    case.runTest()
