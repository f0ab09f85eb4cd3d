"""What no program may be able to do, and once could: each a fault that was found by reading."""

import os
import struct

import pytest
from conftest import IN_CHILD, run_python, run_threads, wait_until

import fastsync as f
import fastsync.threading as fs
from fastsync.raw.parking import parked_total

HUGE = 10**5000  # more digits than int-to-str converts


def hidden_types():
    """What is reachable from our types and has no name of its own."""
    for name in f.__all__:
        for attribute in (
            vars(getattr(f, name)).values() if isinstance(getattr(f, name), type) else ()
        ):
            if not type(attribute).__module__.startswith("builtins"):
                yield type(attribute)


@pytest.mark.parametrize("arguments", [(), (5,), (5, None), (None, None, None)])
def test_what_our_types_are_made_of_can_be_called_and_used(arguments):
    types = {*hidden_types(), *map(type, vars(f.Mutex).values()), type(vars(fs.Lock)["__enter__"])}
    for cls in types:
        try:
            made = cls(*arguments)
        except Exception:
            continue
        holder = type("Holder", (), {"attribute": made})
        for use in (
            lambda h=holder: h().attribute,
            lambda h=holder: h.attribute,
            lambda m=made: repr(m),
        ):
            try:
                use()
            except Exception as error:
                assert type(error) in (TypeError, AttributeError)


def test_a_signalling_nan_is_what_was_loaded():
    memory = bytearray(struct.pack("I", 0x7FA00000))
    word = f.AtomicF32.from_buffer(memory)
    array = f.AtomicArray.from_buffer(memory, "float32")
    assert word.wait(word.load(), 0.001) is False
    assert word.compare_and_set(word.load(), 1.0)
    memory[:] = struct.pack("I", 0x7FA00000)
    assert array.compare_and_set(0, array.load(0), 1.0)


@pytest.mark.parametrize("times", [1, 4, 5000])
def test_minus_zero_and_zero_are_zero(times):
    array = f.AtomicArray("float64", 1)
    array.store(0, -0.0)
    array.add_at([0] * times, [0.0] * times)
    assert str(array.load(0)) == "0.0"


class Unprintable(int):
    def __repr__(self):
        raise ZeroDivisionError

    __str__ = __repr__


@pytest.mark.parametrize(
    "number", [HUGE, -HUGE, Unprintable(2**70)], ids=["huge", "-huge", "bad repr"]
)
@pytest.mark.parametrize(
    "call",
    [
        f.AtomicI64,
        lambda x: f.AtomicU64().store(x),
        lambda x: f.AtomicI8().__iadd__(x),
        lambda x: f.AtomicI64().compare_exchange(0, x),
        lambda x: f.AtomicBool().store(x),
        lambda x: f.AtomicArray("int8", 3).fill(x),
        lambda x: f.AtomicArray("int8", 3).add_at([0], x),
        lambda x: f.Counter().add(x),
    ],
    ids=["new", "store", "+=", "compare_exchange", "bool", "fill", "add_at", "Counter"],
)
def test_a_number_that_is_too_large_is_an_overflow_whatever_its_repr(call, number):
    with pytest.raises(OverflowError):
        call(number)


class Index:
    def __init__(self):
        self.asked = 0

    def __index__(self):
        self.asked += 1
        return 3

    def __int__(self):
        return 7


@pytest.mark.parametrize("name", ["Semaphore", "BoundedSemaphore", "Barrier"])
def test_an_argument_is_converted_once(name):
    index = Index()
    made = getattr(fs, name)(index)
    assert index.asked == 1
    assert getattr(made, "parties" if name == "Barrier" else "_value") == 3
    assert getattr(made, "_initial_value", 3) == 3


@pytest.mark.parametrize("wrong", [-1, "1", None, HUGE], ids=["-1", "str", "None", "huge"])
def test_a_constructor_that_raises_has_changed_nothing(wrong):
    semaphore = fs.BoundedSemaphore(2)
    with pytest.raises((TypeError, ValueError, OverflowError)):
        semaphore.__init__(wrong)
    assert (semaphore._value, semaphore._initial_value) == (2, 2)


TAKEN_BACK = {
    "Mutex": lambda v=0: (lock := f.Mutex(v), lock.lock, lock.lock),
    "FairMutex": lambda v=0: (lock := f.FairMutex(v), lock.lock, lock.lock),
    "ReentrantMutex": lambda v=0: (lock := f.ReentrantMutex(v), lock.lock, lock.lock),
    "RwLock.read": lambda v=0: (lock := f.RwLock(v), lock.read, lock.write),
    "RwLock.write": lambda v=0: (lock := f.RwLock(v), lock.write, lock.write),
    "RwLock.upgradable": lambda v=0: (lock := f.RwLock(v), lock.upgradable_read, lock.write),
    "ShardedLock.read": lambda v=0: (lock := f.ShardedLock(v), lock.read, lock.write),
    "ShardedLock.write": lambda v=0: (lock := f.ShardedLock(v), lock.write, lock.write),
}


@pytest.mark.thread_unsafe(reason="counts all who are parked")
@pytest.mark.parametrize("lending", ["unlocked", "bump"])
@pytest.mark.parametrize("name", TAKEN_BACK)
def test_the_with_of_a_guard_ends_while_it_waits_to_have_its_lock_back(name, lending):
    lock, take, take_all = TAKEN_BACK[name]()
    guards, steps = [], []

    def lend():
        guards.append(take())
        with pytest.raises(RuntimeError, match="ended meanwhile"):
            if lending == "unlocked":
                with guards[0].unlocked():
                    steps.append("lent")
                    wait_until(lambda: "held" in steps)
            else:
                steps.append("lent")
                wait_until(lambda: parked_total() == 1)
                guards[0].bump()

    def hold():
        wait_until(lambda: "lent" in steps)
        other = take_all()
        steps.append("held")
        wait_until(lambda: parked_total() == 1)
        guards[0].__exit__(None, None, None)
        other.unlock()

    run_threads([lend, hold])
    assert not lock.is_locked()
    with pytest.raises(RuntimeError):
        guards[0].value  # noqa: B018


LENT_AND_FORKED = """
import threading, warnings
import fastsync as f
warnings.simplefilter("ignore")
name, way = sys.argv[1:3]
lock = getattr(f, name)([5])
guard = getattr(lock, way)()

def fork_and_look(leave):
    def look():
        leave()
        assert guard.value == [5] and lock.is_locked()
        with guard.unlocked():
            assert not lock.is_locked()
        assert guard.value == [5]
        assert name == "ReentrantMutex" or lock.is_locked()
        guard.unlock()
        assert not lock.is_locked()
    assert in_child(look) == 0

# Forked while it has lent its hold: the child takes that back, or a thread of the child.
block = guard.unlocked()
block.__enter__()
fork_and_look(lambda: block.__exit__(None, None, None))
block.__exit__(None, None, None)
fork_and_look(lambda: None)
# Forked by another thread, which has taken it back.
block = guard.unlocked()
block.__enter__()
failed = []

def other():
    try:
        block.__exit__(None, None, None)
        assert guard.value == [5]
        fork_and_look(lambda: None)
        guard.unlock()
    except BaseException as error:
        failed.append(error)

thread = threading.Thread(target=other)
thread.start()
thread.join(50)
assert not failed and not lock.is_locked(), failed
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize(
    "name, way",
    [
        ("Mutex", "lock"),
        ("FairMutex", "lock"),
        ("ReentrantMutex", "lock"),
        ("RwLock", "read"),
        ("RwLock", "write"),
        ("RwLock", "upgradable_read"),
        ("ShardedLock", "read"),
        ("ShardedLock", "write"),
    ],
)
def test_a_hold_that_was_lent_is_had_back_by_the_thread_that_forks(name, way):
    run_python("-c", IN_CHILD + LENT_AND_FORKED, name, way)


ENDED_BY = {
    "unlock": lambda guard: guard.unlock(),
    "map": lambda guard: guard.map(lambda whole: whole.other).unlock(),
    "the end of its with": lambda guard: guard.__exit__(None, None, None),
}


@pytest.mark.parametrize("where", ["the function", "the part", "the part of a part"])
@pytest.mark.parametrize("how", ENDED_BY)
@pytest.mark.parametrize("name", TAKEN_BACK)
def test_a_guard_that_ends_while_it_is_mapped(name, how, where):
    """Its hold is not passed on: another guard may have the lock by then."""
    lock, take, take_all = TAKEN_BACK[name](Hostile())
    value = lock.into_inner()
    guard = take()
    others = []

    def end():
        if not others:
            others.append(None)
            ENDED_BY[how](guard)
            others.append(take_all())

    def function(stand_in):
        if where == "the function":
            end()
        return stand_in.other if where == "the function" else stand_in.part

    if where == "the part of a part":
        guard = guard.map(lambda stand_in: stand_in.me)
    if where != "the function":
        value.end = end
    with pytest.raises(RuntimeError):
        guard.map(function)
    assert lock.is_locked()
    assert others[1].value is value
    others[1].unlock()
    assert not lock.is_locked()


class Hostile:
    other = 1
    end = None

    @property
    def me(self):
        return self

    @property
    def part(self):
        if self.end:
            self.end()
        return 2
