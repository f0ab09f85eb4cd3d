"""repr() of every lock in every state it can be in: what it says, and that it changes nothing.

A Mutex shows the value that it owns, which other threads may replace at that moment.
"""

import contextlib
import os
import textwrap

import pytest
from conftest import IN_CHILD, run_python, run_threads

import fastsync
from fastsync import FairMutex, Mutex, ReentrantMutex, RwLock, ShardedLock
from fastsync import threading as t

KINDS = pytest.mark.parametrize("kind", [Mutex, FairMutex, ReentrantMutex])
SHARED = pytest.mark.parametrize("kind", [RwLock, ShardedLock])
FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


class Value:
    part = 0

    def __repr__(self):
        return "v"


def elsewhere(lock):
    """What another thread sees."""
    return run_threads([lambda: repr(lock)])[0]


def shows(lock, here, there):
    """More than once: asking changes nothing."""
    name = type(lock).__name__
    for _ in range(2):
        assert repr(lock) == f"{name}({here})"
        assert elsewhere(lock) == f"{name}({there})"


def held_shows(lock, value="v"):
    """Held by this thread: only a ReentrantMutex can know that it is this one."""
    shows(lock, value if type(lock) is ReentrantMutex else "<locked>", "<locked>")


# -- locks that own a value ------------------------------------------------------

HOLDS = {
    "lock": lambda m: m.lock(),
    "block": lambda m: m.__enter__(),
    "mapped": lambda m: m.lock().map(lambda v: v.part),
    "lock of lock": lambda m: m.try_lock().__enter__(),
}


@KINDS
@pytest.mark.parametrize("hold", HOLDS)
def test_a_mutex_that_is_held(kind, hold):
    m = kind(Value())
    shows(m, "v", "v")
    guard = HOLDS[hold](m)
    held_shows(m)
    assert m.is_locked()
    assert "dead" not in repr(guard)
    if hold == "block":
        m.__exit__(None, None, None)
    else:
        guard.unlock()
    assert "dead" in repr(guard)
    shows(m, "v", "v")
    assert not m.is_locked()


@KINDS
@pytest.mark.parametrize("hold", ["lock", "block"])
def test_a_mutex_whose_guard_has_lent_its_hold(kind, hold):
    m = kind(Value())
    guard = HOLDS[hold](m)
    with guard.unlocked():
        shows(m, "v", "v")
        assert "dead" in repr(guard)
    held_shows(m)


def test_a_reentrant_mutex_whose_guard_has_lent_one_level_of_two():
    m = ReentrantMutex(Value())
    with m.lock(), m.lock() as inner, inner.unlocked():
        held_shows(m)
    shows(m, "v", "v")


@KINDS
@pytest.mark.parametrize("force", ["force_unlock", "force_unlock_fair"])
def test_a_mutex_that_was_leaked_and_forced(kind, force):
    m = kind(Value())
    m.lock().leak()
    held_shows(m)
    assert m.is_locked()
    run_threads([getattr(m, force)])  # a repr() of its owner has not taken the hold over
    shows(m, "v", "v")
    assert not m.is_locked()
    m.lock().leak()
    getattr(m, force)()
    shows(m, "v", "v")


@KINDS
def test_a_mutex_that_a_thread_leaked_which_has_ended(kind):
    m = kind(Value())
    run_threads([lambda: m.lock().leak()])
    # A later thread may have the number of the one that has ended, and see the value.
    assert repr(m) == f"{kind.__name__}(<locked>)"
    m.force_unlock()
    shows(m, "v", "v")


def test_a_reentrant_mutex_with_a_leaked_level_below_a_guard():
    m = ReentrantMutex(Value())
    m.lock().leak()
    with m as guard:
        held_shows(m)
        assert guard.value
        with pytest.raises(RuntimeError):
            run_threads([m.force_unlock])
    held_shows(m)
    run_threads([m.force_unlock])
    shows(m, "v", "v")


@KINDS
def test_a_repr_that_ends_the_hold_and_replaces_the_value(kind):
    # The value's own __repr__ runs with nothing held and may do anything.
    class Hostile:
        def __init__(self, m):
            self.m = m

        def __repr__(self):
            with contextlib.suppress(RuntimeError):
                self.m.force_unlock()
            if (guard := self.m.try_lock()) is not None:
                guard.value = Value()
                guard.leak()
            return f"hostile {self.m.is_locked()}"

    m = kind()
    with m as guard:
        guard.value = Hostile(m)
    assert repr(m) == f"{kind.__name__}(hostile True)"
    held_shows(m)


@SHARED
def test_a_lock_for_readers_and_writers(kind):
    lock = kind(Value())

    def says(state):
        for text in (repr(lock), elsewhere(lock)):
            assert text == f"<{state} {kind.__name__} at {id(lock):#x}>"
        for side in ("reader", "writer"):
            assert repr(getattr(lock, side)) == f"<{side} of {lock!r}>"

    says("unlocked")
    for hold in (lock.read, lock.read_recursive):
        with hold() as guard:
            says("read-locked")
            assert repr(guard) == f"<{type(guard).__name__} of {kind.__name__}>"
            with guard.unlocked():
                says("unlocked")
        assert repr(guard) == f"<{type(guard).__name__} of {kind.__name__}, dead>"
    with lock.write():
        says("write-locked")
    with lock.reader:
        says("read-locked")
    with lock.writer:
        says("write-locked")
    if kind is RwLock:
        with lock.upgradable_read() as guard:
            says("read-locked")
            with guard.upgrade() as writer:
                says("write-locked")
                assert "dead" in repr(guard)
                with writer.downgrade():
                    says("read-locked")
    says("unlocked")


# -- the drop-ins ------------------------------------------------------------------


def test_a_lock_and_an_rlock():
    lock, rlock = t.Lock(), t.RLock()
    condition = t.Condition(rlock)
    for _ in range(2):
        assert repr(lock).startswith("<unlocked ") and elsewhere(lock) == repr(lock)
        assert "owner=0 count=0" in repr(rlock) and elsewhere(rlock) == repr(rlock)
        with lock, condition, rlock:
            assert repr(lock).startswith("<locked ") and elsewhere(lock) == repr(lock)
            mine = f"owner={t.get_ident()} count=2"
            assert mine in repr(rlock) and mine in elsewhere(rlock) and mine in repr(condition)
    run_threads([rlock.acquire])  # for ever: its owner ends
    assert repr(rlock).startswith("<locked ") and "count=1" in repr(rlock)
    assert f"owner={t.get_ident()} " not in repr(rlock)


# -- in the child of a fork ----------------------------------------------------------

CHILD = """
import threading, warnings
from fastsync import *
warnings.simplefilter("ignore")

def shows(lock, text):
    for _ in range(2):
        assert repr(lock) == f"{type(lock).__name__}({text})", (repr(lock), text)

def held_shows(lock):
    shows(lock, "'v'" if type(lock) is ReentrantMutex else "<locked>")

kinds = Mutex, FairMutex, ReentrantMutex
lost, leaked, mine, mine_leaked = ([kind("v") for kind in kinds] for _ in range(4))
shared = [RwLock("v"), ShardedLock("v")]
kept = []
held, end = threading.Event(), threading.Event()

def hold():
    guards = [m.lock() for m in lost] + [rw.write() for rw in shared]
    for m in leaked:
        m.lock().leak()
    kept.extend(guards)
    held.set()
    end.wait(50)
    for guard in guards:
        guard.unlock()

thread = threading.Thread(target=hold)
thread.start()
held.wait(50)
guards = [m.lock() for m in mine]
for m in mine_leaked:
    m.lock().leak()
def look():
    for m in lost + leaked:
        shows(m, "<locked>")
        m.force_unlock()
        shows(m, "'v'")
        with m:
            held_shows(m)
        shows(m, "'v'")
    for guard, m in zip(guards, mine):
        held_shows(m)
        guard.unlock()
        shows(m, "'v'")
    for m in mine_leaked:
        held_shows(m)
        m.force_unlock()
        shows(m, "'v'")
    for rw in shared:
        assert repr(rw).startswith("<write-locked "), rw
        assert repr(rw.writer).startswith("<writer of <write-locked "), rw.writer
    for guard in kept[:3]:
        assert repr(guard).endswith(", dead>"), guard

code = in_child(look)
end.set()
thread.join(50)
for m in mine + leaked:
    repr(m)
sys.exit(code)
"""


@FORK
def test_in_the_child_of_a_fork():
    run_python("-c", IN_CHILD + CHILD)


# -- while other threads replace the value -------------------------------------------

STORM = """
import contextlib, sys, threading, time
from fastsync import *

kind = globals()[sys.argv[1]]
m = kind([0])
end = time.monotonic() + float(sys.argv[2])
bad = []

def show():
    while time.monotonic() < end:
        text = repr(m)
        if text != f"{kind.__name__}(<locked>)" and not text.startswith(f"{kind.__name__}([["):
            bad.append(text)

def change(n):
    # What another thread leaked, this one may force; so a hold ends at any moment.
    while time.monotonic() < end:
        with contextlib.suppress(RuntimeError):
            if (guard := m.try_lock_for(0.001)) is not None:
                guard.value = [[n] * 50]
                repr(m)
                guard.leak()
                for _ in range(3):
                    repr(m)
        with contextlib.suppress(RuntimeError):
            m.force_unlock()

with m.lock() as guard:
    guard.value = [[0] * 50]
threads = [threading.Thread(target=show) for _ in range(2)]
threads += [threading.Thread(target=change, args=(n,)) for n in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not bad, bad[:3]
print("done")
"""


@pytest.mark.stress
@KINDS
def test_while_others_leak_force_and_replace(kind):
    # With Python's debug allocator freed memory is overwritten, and is no list any more.
    environment = {**os.environ, "PYTHONMALLOC": "debug"}
    done = run_python(
        "-X", "faulthandler", "-c", textwrap.dedent(STORM), kind.__name__, 1.0, env=environment
    )
    assert done.stdout == "done\n"


# -- none is forgotten ---------------------------------------------------------------


def test_every_type_that_owns_a_value_is_here():
    owners = {
        name
        for name in fastsync.__all__
        if isinstance(thing := getattr(fastsync, name), type)
        and hasattr(thing, "into_inner")
        and hasattr(thing, "is_locked")
    }
    assert owners == {"Mutex", "FairMutex", "ReentrantMutex", "RwLock", "ShardedLock"}
