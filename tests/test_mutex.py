"""Mutex, FairMutex and ReentrantMutex: what a guard can do, and what a dead one cannot."""

import contextlib
import copy
import gc
import itertools
import os
import pickle
import random
import signal
import sys
import threading
import time
import weakref

import pytest
from conftest import background, run_threads, wait_until

from fastsync import (
    Condvar,
    FairMutex,
    MappedMutexGuard,
    Mutex,
    MutexGuard,
    ReentrantMutex,
    is_pinned,
    pin,
    waiters,
)

BOTH = pytest.mark.parametrize("kind", [Mutex, FairMutex])
ALL = pytest.mark.parametrize("kind", [Mutex, FairMutex, ReentrantMutex])
SIZES = ["10**400", "inf", "1e300", "2**63", "max"]
FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def waiting_for(m):
    """How many threads are parked on the mutex."""
    return waiters(m)


def in_thread(run_threads, function):
    return run_threads([function])[0]


def assert_dead(guard):
    """Every use of a guard that has ended is a RuntimeError."""
    uses = [
        lambda: guard.value,
        lambda: setattr(guard, "value", "wrong"),
        lambda: guard.mutex,
        lambda: guard.unlock(),
        lambda: guard.unlock_fair(),
        lambda: guard.bump(),
        lambda: guard.unlocked().__enter__(),
        lambda: guard.unlocked_fair().__enter__(),
        lambda: guard.leak(),
        lambda: guard.map(lambda v: v["a"]),
        lambda: guard.try_map(lambda v: v["a"]),
        lambda: guard.__enter__(),
    ]
    if isinstance(guard, MappedMutexGuard):
        uses = [u for u in uses if not set(u.__code__.co_names) & MUTEX_GUARD_ONLY]
    for use in uses:
        with pytest.raises(RuntimeError):
            use()


MUTEX_GUARD_ONLY = {"mutex", "bump", "unlocked", "unlocked_fair", "leak"}


# -- locking -----------------------------------------------------------------


@ALL
def test_smoke(kind):
    m = kind()
    for _ in range(2):
        m.lock().unlock()
        assert not m.is_locked()


@BOTH
def test_lots_and_lots(kind, run_threads):
    rounds, pairs = 1000, 3
    m = kind(0)

    def increment(_):
        for _ in range(rounds):
            with m as guard:
                guard.value += 1

    run_threads(increment, count=2 * pairs)
    assert m.into_inner() == 2 * pairs * rounds


@BOTH
def test_try_lock(kind):
    m = kind(7)
    guard = m.try_lock()
    assert guard.value == 7
    assert m.try_lock() is None
    assert m.try_lock_for(0) is None
    assert m.try_lock_for(-1) is None
    assert m.try_lock_until(time.monotonic() - 1) is None
    guard.unlock()
    assert m.try_lock_for(0).value == 7
    assert m.try_lock_until(0).value == 7


@ALL
def test_timed_lock(kind, run_threads):
    m = kind("x")
    guard = m.lock()
    before = time.monotonic()
    assert in_thread(run_threads, lambda: m.try_lock_for(0.02)) is None
    assert in_thread(run_threads, lambda: m.try_lock_until(time.monotonic() + 0.02)) is None
    assert time.monotonic() - before >= 0.04
    guard.unlock()
    assert in_thread(run_threads, lambda: m.try_lock_for(60).value) == "x"
    assert in_thread(run_threads, lambda: m.try_lock_until(time.monotonic() + 60).value) == "x"


@ALL
@pytest.mark.parametrize(
    "huge", [10**400, float("inf"), 1e300, 2**63, sys.float_info.max], ids=SIZES
)
def test_timeouts_of_any_size(kind, huge, run_threads):
    m = kind(1)
    assert m.try_lock_for(huge).value == 1
    assert m.try_lock_until(huge).value == 1
    guard = m.lock()
    assert in_thread(run_threads, lambda: m.try_lock_for(-huge)) is None
    assert in_thread(run_threads, lambda: m.try_lock_until(-huge)) is None
    guard.unlock()
    for wrong, error in [(float("nan"), ValueError), ("1", TypeError), (None, TypeError)]:
        with pytest.raises(error):
            m.try_lock_for(wrong)
        with pytest.raises(error):
            m.try_lock_until(wrong)


def test_a_huge_timeout_waits(run_threads, wait_until):
    m = Mutex()
    guard = m.lock()
    waiting = []

    def wait():
        waiting.append(1)
        return m.try_lock_for(10**400) is not None

    def release():
        wait_until(lambda: waiting)
        time.sleep(0.01)
        guard.unlock()

    assert run_threads([wait, release])[0]


@ALL
def test_is_locked_and_into_inner(kind, run_threads):
    value = object()
    m = kind(value)
    assert m.into_inner() is value
    assert m.into_inner() is value  # it stays
    guard = m.lock()
    assert m.is_locked()
    with pytest.raises(RuntimeError):
        m.into_inner()
    with pytest.raises(RuntimeError):
        in_thread(run_threads, m.into_inner)
    guard.unlock()
    assert not m.is_locked()
    assert kind().into_inner() is None


@ALL
def test_nested_values(kind, run_threads):
    inner = kind(1)
    outer = kind(inner)

    def look():
        with outer as a, a.value as b:
            return b.value

    assert in_thread(run_threads, look) == 1


@ALL
def test_repr(kind, run_threads):
    m = kind([1])
    name = kind.__name__
    assert repr(m) == f"{name}([1])"
    with m as guard:
        assert in_thread(run_threads, lambda: repr(m)) == f"{name}(<locked>)"
        assert "dead" not in repr(guard)
    assert "dead" in repr(guard)


@ALL
def test_what_a_type_is(kind):
    m = kind()
    assert weakref.ref(m)() is m
    assert kind[int].__origin__ is kind
    for refused in (m, m.lock()):
        with pytest.raises(TypeError):
            pickle.dumps(refused)
        with pytest.raises(TypeError):
            copy.copy(refused)
    with pytest.raises(TypeError):
        type(kind().lock())()
    with pytest.raises(TypeError):
        m(1)
    with pytest.raises(TypeError):
        type("Sub", (kind,), {})


@ALL
def test_contention_hands_every_hold_to_one(kind, run_threads):
    m = kind(0)
    inside = []

    def work(_):
        for _ in range(200):
            guard = m.lock()
            inside.append(1)
            assert len(inside) == 1
            guard.value += 1
            inside.pop()
            guard.unlock()

    run_threads(work, count=8)
    assert m.into_inner() == 1600


# -- guards ------------------------------------------------------------------


@ALL
def test_value_is_read_and_set(kind):
    m = kind({"a": 1})
    with m as guard:
        assert guard.value == {"a": 1}
        guard.value = 5
        assert guard.value == 5
        with pytest.raises(AttributeError):
            del guard.value
    assert m.into_inner() == 5


@ALL
def test_guard_in_a_with_statement(kind):
    m = kind()
    with m.lock() as guard:
        assert m.is_locked()
        assert guard.mutex is m
    assert not m.is_locked()
    with pytest.raises(RuntimeError), guard:
        pass
    guard = m.lock()
    with guard:
        guard.unlock()
    assert not m.is_locked()


@ALL
def test_every_use_after_release_raises(kind):
    m = kind({"a": 1})
    for end in ("unlock", "unlock_fair"):
        guard = m.lock()
        getattr(guard, end)()
        assert_dead(guard)
        with m as other:  # whatever has happened to the mutex since
            assert_dead(guard)
            assert other.value == {"a": 1}
        assert_dead(guard)
    assert m.into_inner() == {"a": 1}


@BOTH
def test_every_use_after_leak_raises(kind):
    m = kind({"a": 1})
    guard = m.lock()
    guard.leak()
    assert m.is_locked()
    assert_dead(guard)
    del guard
    assert m.is_locked()
    m.force_unlock()
    assert not m.is_locked()


FORCES = pytest.mark.parametrize("force", ["force_unlock", "force_unlock_fair"])


@ALL
@FORCES
def test_force_unlock_refuses_where_a_guard_can_end_the_hold(kind, force, run_threads):
    m = kind({"a": 1})
    with pytest.raises(RuntimeError, match="not locked"):
        getattr(m, force)()
    with m.lock() as guard:
        for attempt in (getattr(m, force), lambda: in_thread(run_threads, getattr(m, force))):
            with pytest.raises(RuntimeError):
                attempt()
        assert guard.value == {"a": 1}
        assert m.is_locked()
    with m as guard:
        for attempt in (getattr(m, force), lambda: in_thread(run_threads, getattr(m, force))):
            with pytest.raises(RuntimeError):
                attempt()
        assert guard.value == {"a": 1}
    mapped = m.lock().map(lambda v: v["a"])
    with pytest.raises(RuntimeError):
        getattr(m, force)()
    assert mapped.value == 1
    mapped.unlock()
    assert not m.is_locked()


def test_force_unlock_refuses_while_one_of_several_guards_is_left(run_threads):
    m = ReentrantMutex(1)
    guards = [m.lock(), m.lock(), m.lock()]
    while guards:
        with pytest.raises(RuntimeError):
            in_thread(run_threads, m.force_unlock)
        assert guards[0].value == 1 and m.is_locked()
        guards.pop().unlock()
    assert not m.is_locked()


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork()")
@pytest.mark.parametrize("kind", ["Mutex", "FairMutex"])
def test_a_mapped_guard_is_of_the_thread_that_mapped_it(kind, run_python):
    """In the child of a fork that thread is there, and the one that locked is not."""
    code = f"""
import os, threading
from fastsync import {kind}
mutex, box = {kind}(dict(a=1)), []
thread = threading.Thread(target=lambda: box.append(mutex.lock()))
thread.start()
thread.join()
mapped = box.pop().map(lambda value: value["a"])
if os.fork() == 0:
    assert mapped.value == 1
    mapped.unlock()
    os._exit(mutex.is_locked())
assert os.wait()[1] == 0
mapped.unlock()
"""
    run_python("-c", code)


@ALL
@FORCES
def test_force_unlock_ends_what_was_leaked_in_any_thread(kind, force, run_threads):
    m = kind(1)
    for here in (True, False):
        (m.lock().leak)()
        assert m.is_locked()
        if here:
            getattr(m, force)()
        else:
            in_thread(run_threads, getattr(m, force))
        assert not m.is_locked()
        with pytest.raises(RuntimeError):
            getattr(m, force)()
        with m as guard:
            assert guard.value == 1
    in_thread(run_threads, lambda: m.lock().leak())
    getattr(m, force)()
    assert not m.is_locked()


@BOTH
def test_of_many_force_unlocks_of_one_leak_one_succeeds(kind, run_threads):
    m = kind(0)
    for _ in range(100):
        m.lock().leak()
        ready = threading.Barrier(3)

        def force(_, ready=ready):
            ready.wait()
            try:
                m.force_unlock()
            except RuntimeError:
                return 0
            with m as guard:  # the others must not end this
                guard.value += 1
            return 1

        assert sum(run_threads(force, count=3)) == 1
    assert m.into_inner() == 100


@ALL
def test_dropping_a_guard_unlocks(kind):
    m = kind()
    guard = m.lock()
    del guard
    assert not m.is_locked()
    m.lock()
    assert not m.is_locked()
    mapped = kind({"a": 1}).lock().map(lambda v: v["a"])
    del mapped


@BOTH
def test_a_guard_works_in_every_thread(kind, run_threads):
    m = kind(1)
    guard = m.lock()

    def elsewhere():
        guard.value += 1
        guard.unlock()

    in_thread(run_threads, elsewhere)
    assert not m.is_locked()
    assert m.into_inner() == 2
    assert_dead(guard)


@BOTH
def test_one_of_many_unlocks_succeeds(kind, run_threads):
    m = kind(0)
    for _ in range(200):
        guard = m.lock()
        ready = threading.Barrier(3)

        def unlock(_, guard=guard, ready=ready):
            ready.wait()
            try:
                guard.unlock()
            except RuntimeError:
                return 0
            # The other's failed attempt must not end this hold.
            with m as mine:
                mine.value += 1
            return 1

        assert sum(run_threads(unlock, count=3)) == 1
    assert m.into_inner() == 200


def test_guards_are_fresh_objects():
    m = Mutex(0)
    guards = []
    for _ in range(10):
        with m as guard:
            guards.append(guard)
    assert len({id(guard) for guard in guards}) == 10
    for guard in guards:
        assert_dead(guard)


def test_bump(run_threads, wait_until):
    m = Mutex([])
    order = []
    guard = m.lock()
    guard.bump()  # nobody waits
    assert m.is_locked()

    def wait():
        with m as mine:
            order.append("waiter")
            mine.value.append(1)

    def give_way():
        wait_until(lambda: waiting_for(m))
        guard.bump()
        order.append("bumped")
        assert guard.value == [1]
        guard.unlock()

    run_threads([wait, give_way])
    assert order == ["waiter", "bumped"]


@BOTH
@pytest.mark.parametrize("fair", [False, True])
def test_unlocked(kind, fair, run_threads):
    m = kind(1)
    guard = m.lock()
    with guard.unlocked_fair() if fair else guard.unlocked():
        assert not m.is_locked()
        assert_dead(guard)

        def elsewhere():
            with m as other:
                other.value += 1

        in_thread(run_threads, elsewhere)
    assert m.is_locked()
    assert guard.value == 2
    with pytest.raises(ZeroDivisionError), guard.unlocked():
        1 / 0  # noqa: B018
    assert m.is_locked()
    guard.value += 1
    guard.unlock()
    assert m.into_inner() == 3


@ALL
def test_unlocked_misused(kind):
    m = kind(1)
    guard = m.lock()
    context = guard.unlocked()
    with pytest.raises(RuntimeError):
        context.__exit__(None, None, None)
    first = guard.unlocked()
    first.__enter__()
    with pytest.raises(RuntimeError):
        context.__enter__()
    first.__exit__(None, None, None)
    with context:
        pass
    assert guard.value == 1
    guard.unlock()


@ALL
def test_unlocked_that_is_never_left(kind):
    """The block has lent its hold for good: no block holds the mutex at its end."""
    m = kind(1)
    with pytest.raises(RuntimeError), m as guard:
        lent = guard.unlocked()
        lent.__enter__()
        assert not m.is_locked()
        other = m.lock()
    assert other.value == 1
    if kind is not ReentrantMutex:
        assert_dead(guard)
    other.unlock()
    assert not m.is_locked()
    guard = m.lock()
    with guard:
        lent = guard.unlocked()
        lent.__enter__()
    for _ in range(2):
        with pytest.raises(RuntimeError):
            lent.__exit__(None, None, None)
        assert not m.is_locked()


@ALL
def test_of_two_threads_that_leave_one_unlocked_block_one_succeeds(kind, run_threads):
    m = kind(0)
    for _ in range(100):
        ready = threading.Barrier(2)
        guard = m.lock()
        lent = guard.unlocked()
        lent.__enter__()

        def leave(_, ready=ready, lent=lent, guard=guard):
            ready.wait()
            try:
                lent.__exit__(None, None, None)
            except RuntimeError:
                return 0
            guard.unlock()
            return 1

        assert sum(run_threads(leave, count=2)) == 1
        assert not m.is_locked()


@BOTH
def test_with_of_a_guard_that_ends_while_another_thread_has_lent_it(kind, run_threads, wait_until):
    m = kind(0)
    guard = m.lock()
    steps = []

    def lend():
        with pytest.raises(RuntimeError, match="ended meanwhile"), guard.unlocked():
            steps.append("lent")
            wait_until(lambda: "left" in steps)

    def leave():
        wait_until(lambda: steps)
        guard.__exit__(None, None, None)
        steps.append("left")

    run_threads([lend, leave])
    assert_dead(guard)
    assert not m.is_locked()


# -- `with` on the mutex -----------------------------------------------------


ENDS = {
    "unlock": lambda guard: guard.unlock(),
    "unlock_fair": lambda guard: guard.unlock_fair(),
    "leak": lambda guard: guard.leak(),
    "map": lambda guard: guard.map(lambda value: value["part"]),
    "try_map": lambda guard: guard.try_map(lambda value: value["part"]),
    "with": lambda guard: guard.__enter__(),
    "leave": lambda guard: guard.__exit__(None, None, None),
}
if sys.version_info < (3, 14):  # what `with` calls there
    ENDS |= {
        "call": lambda guard: guard(),
        "call to leave": lambda guard: guard(None, None, None),
    }


@ALL
@pytest.mark.parametrize("end", ENDS)
def test_nothing_but_its_end_ends_the_hold_of_a_block(kind, end):
    m = kind({"part": 1})
    with m as guard:
        with pytest.raises(RuntimeError, match=r"use lock\(\)"):
            ENDS[end](guard)
        assert m.is_locked()
        assert guard.value == {"part": 1}
        assert guard.mutex is m
        guard.bump()
        with guard.unlocked():
            assert not m.is_locked()
            if kind is not ReentrantMutex:
                with pytest.raises(RuntimeError):
                    ENDS[end](guard)
        assert guard.value == {"part": 1}
    assert not m.is_locked()
    assert_dead(guard)


@ALL
def test_exit_without_a_block_changes_nothing(kind, run_threads):
    m = kind(1)

    def leave():
        calls = [lambda: m.__exit__(None, None, None)]
        if sys.version_info < (3, 14):
            calls.append(lambda: m(None, None, None))
        for call in calls:
            with pytest.raises(RuntimeError):
                call()

    leave()
    assert not m.is_locked()
    guard = m.lock()
    leave()
    in_thread(run_threads, leave)
    assert guard.value == 1
    guard.leak()
    leave()
    assert m.is_locked()
    m.force_unlock()
    with m as guard, guard.unlocked():
        leave()
        with m.lock() as other:
            leave()
            assert other.value == 1
    leave()
    assert not m.is_locked()


@BOTH
def test_of_many_ends_of_one_block_one_succeeds(kind, run_threads):
    m = kind(0)
    for _ in range(200):
        m.__enter__()
        ready = threading.Barrier(3)

        def leave(_, ready=ready):
            ready.wait()
            try:
                m.__exit__(None, None, None)
            except RuntimeError:
                return 0
            return 1

        assert sum(run_threads(leave, count=3)) == 1
        assert not m.is_locked()


@BOTH
def test_blocks_and_exits_from_everywhere_keep_exclusion(kind, run_threads):
    """Threads that leave blocks which they have not entered, and lend them."""
    m = kind(0)
    inside = []
    rounds = 300

    def enter(_):
        for i in range(rounds):
            with contextlib.suppress(RuntimeError):
                guard = m.__enter__()
                try:
                    guard.value += 1
                    if i % 3 == 0:
                        with guard.unlocked():
                            pass
                finally:
                    m.__exit__(None, None, None)

    def hold(_):
        for _ in range(rounds):
            with m.lock():
                inside.append(1)
                assert len(inside) == 1
                inside.pop()

    def leave(_):
        for _ in range(rounds):
            with contextlib.suppress(RuntimeError):
                m.__exit__(None, None, None)

    run_threads([lambda i=i, f=f: f(i) for i in range(2) for f in (enter, hold, leave)])
    assert not m.is_locked()


@ALL
def test_blocks_of_generators(kind):
    m = kind()

    def holding():
        with m as guard:
            yield guard

    held = holding()
    guard = next(held)
    assert guard.mutex is m
    held.close()
    assert not m.is_locked()
    assert_dead(guard)
    # More open blocks than any table of them could have had, one inside the other's unlocked().
    blocks = [holding() for _ in range(100)]
    lent = []
    for block in blocks:
        lent.append(next(block).unlocked())
        lent[-1].__enter__()
    with m as guard:
        assert guard.mutex is m
    for block, context in zip(blocks, lent, strict=True):
        context.__exit__(None, None, None)
        assert m.is_locked()
        block.close()
        assert not m.is_locked()


@BOTH
def test_block_moved_to_another_thread(kind, run_threads):
    m = kind()

    def holding():
        with m as guard:
            yield guard

    held = holding()
    next(held)
    in_thread(run_threads, held.close)
    assert not m.is_locked()
    stack = contextlib.ExitStack()
    stack.enter_context(m)
    in_thread(run_threads, stack.close)
    assert not m.is_locked()


@ALL
def test_exit_stack(kind):
    m = kind(3)
    with contextlib.ExitStack() as stack:
        assert stack.enter_context(m).value == 3
        assert m.is_locked()
    assert not m.is_locked()
    with contextlib.ExitStack() as stack:
        stack.enter_context(m)
        stack = stack.pop_all()
    assert m.is_locked()
    stack.close()
    assert not m.is_locked()
    with contextlib.ExitStack() as stack:
        stack.enter_context(m.lock()).unlock()
        other = m.lock()
    assert other.value == 3
    other.unlock()


@ALL
def test_wrapped_in_another_context_manager(kind):
    m = kind()

    class Wrapper:
        def __enter__(self):
            m.__enter__()
            return self

        def __exit__(self, *details):
            return m.__exit__(*details)

    for _ in range(3):
        with Wrapper():
            assert m.is_locked()
        assert not m.is_locked()


@ALL
def test_exception_in_a_block_unlocks_and_does_not_poison(kind):
    m = kind(1)
    with pytest.raises(ZeroDivisionError), m as guard:
        guard.value = 2
        1 / 0  # noqa: B018
    assert not m.is_locked()
    assert m.into_inner() == 2


def test_access_while_an_exception_unwinds(run_threads, wait_until):
    m = Mutex(1)

    class Unwinder:
        def __del__(self):
            with m as guard:
                guard.value += 1

    def fail():
        unwinder = Unwinder()
        assert unwinder
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        in_thread(run_threads, fail)
    with pytest.raises(ZeroDivisionError):
        fail()
    # The frames are in cycles with the exceptions.
    wait_until(lambda: gc.collect() is not None and m.into_inner() == 3)


def test_finalizer_that_locks_while_the_value_is_replaced():
    m, other = Mutex(), Mutex(0)

    class Counted:
        def __del__(self):
            with other as guard:
                guard.value += 1

    with m as guard:
        guard.value = Counted()
        guard.value = Counted()
        guard.value = None
    assert other.into_inner() == 2


def test_cycles_through_the_value_are_collected():
    class Node:
        pass

    node = Node()
    node.mutex = Mutex(node)
    gone = weakref.ref(node)
    del node
    gc.collect()
    assert gone() is None


# -- map ---------------------------------------------------------------------


class Thing:
    def __init__(self):
        self.x = [1, 2]
        self.y = {"k": 5}


@ALL
def test_map(kind):
    m = kind({"a": Thing()})
    guard = m.lock()
    mapped = guard.map(lambda v: v["a"].x)
    assert type(mapped) is MappedMutexGuard
    assert_dead(guard)
    assert m.is_locked()
    assert mapped.value == [1, 2]
    mapped.value = [3, 4]
    further = mapped.map(lambda v: v[1])
    assert_dead(mapped)
    assert further.value == 4
    further.value += 1
    further.unlock()
    assert_dead(further)
    assert not m.is_locked()
    assert m.into_inner()["a"].x == [3, 5]
    with m.lock().map(lambda v: v["a"].y["k"]) as mapped:
        mapped.value = 6
    assert not m.is_locked()
    assert m.into_inner()["a"].y == {"k": 6}
    mapped = m.lock().map(lambda v: v["a"])
    mapped.unlock_fair()
    assert not m.is_locked()
    with pytest.raises(TypeError):
        MappedMutexGuard()


@ALL
def test_the_whole_value_is_a_part(kind):
    m = kind(1)
    mapped = m.lock().map(lambda v: v)
    assert mapped.value == 1
    mapped.value = {"a": 2}
    further = mapped.map(lambda v: v["a"])
    assert_dead(mapped)
    assert further.value == 2
    further.unlock()
    assert m.into_inner() == {"a": 2}


@ALL
def test_map_that_fails_leaves_the_guard(kind):
    m = kind({"a": 1})
    guard = m.lock()
    with pytest.raises(ZeroDivisionError):
        guard.map(lambda v: 1 / 0)
    for missing, error in [
        (lambda v: v["b"], KeyError),
        (lambda v: v.b, AttributeError),
        (lambda v: v["a"]["b"], TypeError),
        (lambda v: None, TypeError),
        (lambda v: 5, TypeError),
    ]:
        with pytest.raises(error):
            guard.map(missing)
        assert guard.value == {"a": 1}
    assert guard.try_map(lambda v: None) is None
    assert guard.value == {"a": 1}
    mapped = guard.try_map(lambda v: v["a"])
    assert_dead(guard)
    assert mapped.value == 1
    assert mapped.try_map(lambda v: None) is None
    with pytest.raises(ZeroDivisionError):
        mapped.map(lambda v: 1 / 0)
    assert mapped.value == 1
    mapped.unlock()


# -- ReentrantMutex ----------------------------------------------------------


def test_reentrant_is_a_mutex(run_threads, wait_until):
    m = ReentrantMutex(0)
    started = []

    def look():
        started.append(1)
        guard = m.lock()
        return guard.value

    def sum_up():
        with m as outer, m as inner:
            started.append(2)
            wait_until(lambda: len(started) == 2)
            for i in range(100):
                (outer, inner)[i % 2].value += i
        return None

    def late_look():
        wait_until(lambda: 2 in started)
        return look()

    assert run_threads([sum_up, late_look])[1] == 4950


def test_reentrant_try_lock(run_threads):
    m = ReentrantMutex()
    first = m.lock()
    second = m.try_lock()
    third = m.try_lock_for(0)
    assert in_thread(run_threads, m.try_lock) is None
    first.unlock()
    second.unlock()
    assert in_thread(run_threads, m.try_lock) is None
    assert third.mutex is m
    third.unlock()
    assert in_thread(run_threads, lambda: m.try_lock() is not None)


def test_reentrant_ownership(run_threads):
    m = ReentrantMutex(1)
    assert not m.is_owned_by_current_thread()
    guard = m.lock()
    assert m.is_owned_by_current_thread()
    assert not in_thread(run_threads, m.is_owned_by_current_thread)
    in_thread(run_threads, lambda: assert_dead(guard))
    assert m.is_locked()
    assert guard.value == 1
    with pytest.raises(RuntimeError):
        in_thread(run_threads, m.force_unlock)
    with pytest.raises(RuntimeError):
        in_thread(run_threads, lambda: m.__exit__(None, None, None))
    guard.unlock()
    assert not m.is_owned_by_current_thread()
    with pytest.raises(RuntimeError):
        m.__exit__(None, None, None)


def test_reentrant_guards_end_in_any_order():
    m = ReentrantMutex(1)
    guards = [m.lock() for _ in range(5)]
    random.Random(3).shuffle(guards)
    for guard in guards:
        assert m.is_locked()
        guard.unlock()
        assert_dead(guard)
    assert not m.is_locked()


def test_reentrant_blocks_end_in_any_order():
    m = ReentrantMutex(1)
    stacks = [contextlib.ExitStack() for _ in range(4)]
    guards = [stack.enter_context(m) for stack in stacks]
    assert len(set(map(id, guards))) == 1  # one for all of a thread's blocks
    free = m.lock()
    random.Random(4).shuffle(stacks)
    for stack in stacks:
        assert guards[0].value == 1
        stack.close()
    assert_dead(guards[0])
    assert free.value == 1
    free.unlock()
    assert not m.is_locked()
    with m as guard:
        assert guard is not guards[0]


def test_reentrant_leak_and_force_unlock(run_threads):
    m = ReentrantMutex(1)
    with pytest.raises(RuntimeError):
        m.force_unlock()
    guard = m.lock()
    with pytest.raises(RuntimeError):
        m.force_unlock()  # no guard was leaked
    assert guard.value == 1
    m.lock().leak()
    with pytest.raises(RuntimeError):  # the other level has a guard
        in_thread(run_threads, m.force_unlock)
    guard.unlock()
    assert m.is_owned_by_current_thread()
    m.force_unlock()
    assert not m.is_locked()
    m.lock().leak()
    m.force_unlock_fair()
    assert not m.is_locked()
    # All levels from elsewhere, when none has a guard; a guard that comes later keeps it.
    for _ in range(3):
        m.lock().leak()
    with m as guard:
        with pytest.raises(RuntimeError):
            in_thread(run_threads, m.force_unlock)
        assert guard.value == 1
    m.force_unlock()
    assert m.is_owned_by_current_thread()
    in_thread(run_threads, m.force_unlock)
    assert not m.is_locked()
    assert not m.is_owned_by_current_thread()


def test_reentrant_lock_races_with_a_force_unlock(run_threads):
    m = ReentrantMutex(0)

    def own():
        for _ in range(2000):
            m.lock().leak()
            with m as guard:  # one deeper, or the mutex anew
                guard.value += 1
            with contextlib.suppress(RuntimeError):
                m.force_unlock()

    ended = []

    def force_on():
        while not ended:
            with contextlib.suppress(RuntimeError):
                m.force_unlock()

    def own_all():
        try:
            own()
        finally:
            ended.append(1)

    run_threads([own_all, force_on])
    assert not m.is_locked()
    assert m.into_inner() == 2000


def test_reentrant_bump(run_threads, wait_until):
    m = ReentrantMutex([])
    with m as outer:
        with m as inner:
            inner.bump()
        outer.bump()
        assert outer.value == []
    steps = []

    def wait():
        wait_until(lambda: "held" in steps)
        with m as guard:
            guard.value.append(1)

    def give_way():
        with m as outer:
            steps.append("held")
            with m as inner:
                wait_until(lambda: waiting_for(m))
                inner.bump()  # not the only hold
                outer.bump()
                assert outer.value == []
            while not outer.value:
                outer.bump()
            assert outer.value == [1]

    run_threads([wait, give_way])


def test_reentrant_unlocked(run_threads):
    m = ReentrantMutex(1)
    with m as outer:
        with m as inner, inner.unlocked():
            assert m.is_owned_by_current_thread()  # outer's
            assert outer.value == 1
        with m.lock() as inner, inner.unlocked():
            assert_dead(inner)
            assert outer.value == 1
        with outer.unlocked_fair():
            assert not m.is_locked()
            assert in_thread(run_threads, lambda: m.lock().value) == 1
        assert outer.value == 1
    assert not m.is_locked()


@pytest.mark.parametrize("dropped", [1, 2, 5])
def test_reentrant_guard_dropped_in_another_thread(dropped, run_threads):
    m = ReentrantMutex(1)
    kept = m.lock()
    box = [m.lock() for _ in range(dropped)]
    in_thread(run_threads, box.clear)
    kept.unlock()
    deadline = time.monotonic() + 30
    while m.is_owned_by_current_thread() and time.monotonic() < deadline:
        time.sleep(0.001)  # this thread hears of the drop at its next chance
    assert not m.is_locked()


# -- hand-over, signals, fork ------------------------------------------------


@BOTH
def test_fair_unlock_hands_over(kind, run_threads, wait_until):
    m = kind([])
    guard = m.lock()

    def wait():
        with m as mine:
            mine.value.append("waiter")

    def barge():
        wait_until(lambda: waiting_for(m))
        guard.unlock_fair()
        # It never was free: this comes second.
        with m as mine:
            mine.value.append("barger")

    run_threads([wait, barge])
    assert m.into_inner() == ["waiter", "barger"]


def test_fair_mutex_always_hands_over(run_threads, wait_until):
    m = FairMutex([])
    rounds = 50

    def take_turns(name):
        for _ in range(rounds):
            with m as guard:
                guard.value.append(name)
                if len(guard.value) < 2 * rounds and guard.value.count(1 - name) < rounds:
                    wait_until(lambda: waiting_for(m))

    run_threads([lambda: take_turns(0), lambda: take_turns(1)])
    names = m.into_inner()
    assert all(a != b for a, b in itertools.pairwise(names))


SIGNALLED = """
import os, signal, threading, time
from fastsync import {kind}
from fastsync import waiters
m = {kind}(5)
ready = threading.Event()
release = threading.Event()

def hold():
    guard = m.lock()
    ready.set()
    release.wait()
    guard.unlock()

def interrupt():
    while not waiters(m):
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGINT)

holder = threading.Thread(target=hold)
holder.start()
ready.wait()
killer = threading.Thread(target=interrupt)
killer.start()
try:
    {attempt}
except KeyboardInterrupt:
    print("interrupted")
killer.join()
release.set()
holder.join()
assert m.lock().value == 5
assert not m.is_locked()
print("free")
"""

ATTEMPTS = {
    "lock": "m.lock()",
    "with": "with m: pass",
    "timed": "m.try_lock_for(60)",
}


@ALL
@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_ctrl_c_ends_a_wait(kind, attempt, run_python):
    code = SIGNALLED.format(kind=kind.__name__, attempt=ATTEMPTS[attempt])
    assert run_python("-c", code).stdout.split() == ["interrupted", "free"]


INTERRUPTED_RELOCK = """
import os, signal, threading, time
from fastsync import {kind} as Kind
from fastsync import waiters
m = Kind(5)
stop = threading.Event()
held = threading.Event()
of_block = "{form}" == "block"

def handle(number, frame):
    print("handled")
    if of_block:
        stop.set()
    raise KeyboardInterrupt

signal.signal(signal.SIGINT, handle)

def steal():
    guard = m.lock()
    held.set()
    while not waiters(m):
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGINT)
    stop.wait()
    time.sleep(0.01)  # longer than a block takes that goes on without its mutex
    returned.append(guard.value)
    guard.unlock()

returned = []
thief = threading.Thread(target=steal)
try:
    with m if of_block else m.lock() as guard:
        try:
            if "{how}" == "bump":
                thief.start()
                while not waiters(m):
                    time.sleep(0.001)
                guard.bump()
            else:
                with guard.unlocked():
                    thief.start()
                    held.wait()
        except KeyboardInterrupt:
            print("interrupted")
            assert len(returned) == of_block
            try:
                assert guard.value == 5
                print("alive")
            except RuntimeError as error:  # it does not wait for its hold to come back
                print("away" if "at the moment" in str(error) else "dead")
            raise
except KeyboardInterrupt:
    print("out")
try:
    guard.value
except RuntimeError:
    print("ended")
assert m.is_locked() or of_block
stop.set()
thief.join()
assert not m.is_locked()
with m as guard:
    assert guard.value == 5
assert not m.is_locked()
"""


@ALL
@pytest.mark.parametrize("how", ["bump", "unlocked"])
@pytest.mark.parametrize("form", ["block", "guard"])
def test_ctrl_c_while_a_guard_waits_for_its_mutex(kind, how, form, run_python):
    """A block holds on until its end, so it gets the mutex first; the handler runs at once."""
    code = INTERRUPTED_RELOCK.format(how=how, form=form, kind=kind.__name__)
    lives = "alive" if form == "block" else "dead"
    assert run_python("-c", code).stdout.split() == [
        "handled",
        "interrupted",
        lives,
        "out",
        "ended",
    ]


ABANDONED = """
import gc, os, signal, threading, time, weakref
from fastsync import Mutex
from fastsync import waiters

class Value:
    pass

def abandon():
    mutex = Mutex(Value())
    held, done = threading.Event(), threading.Event()

    def steal():
        guard = mutex.lock()
        held.set()
        while not waiters(mutex):
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)
        done.wait()
        guard.unlock()

    thief = threading.Thread(target=steal)
    try:
        with mutex.lock() as guard:
            dead = weakref.ref(guard.value)
            with guard.unlocked():
                thief.start()
                held.wait()
    except KeyboardInterrupt:
        print("interrupted")
    done.set()
    thief.join()
    return dead

dead = abandon()
gc.collect()
assert dead() is None
"""


def test_a_guard_that_did_not_get_its_mutex_back_is_freed(run_python):
    assert run_python("-c", ABANDONED).stdout.split() == ["interrupted"]


def test_a_signal_handler_that_returns_does_not_end_a_wait(wait_until):
    m = Mutex()
    guard = m.lock()
    seen = []

    def handle(number, frame):
        seen.append(number)

    def disturb():
        wait_until(lambda: waiting_for(m))
        for _ in range(3):
            count = len(seen)
            os.kill(os.getpid(), signal.SIGUSR1)
            wait_until(lambda count=count: len(seen) > count)
        guard.unlock()

    old = signal.signal(signal.SIGUSR1, handle)
    try:
        thread = threading.Thread(target=disturb, daemon=True)
        thread.start()
        assert m.try_lock_for(60) is not None
        thread.join(30)
        assert not thread.is_alive()
    finally:
        signal.signal(signal.SIGUSR1, old)


FORKED = """
import os, threading, time, warnings
warnings.simplefilter("ignore")
from fastsync import {kind}
from fastsync import waiters
m = {kind}(5)
held, done = threading.Event(), threading.Event()

guards = []

def hold():
    if "{how}" == "block":
        with m:
            held.set()
            done.wait()
        return
    guard = m.lock()
    if "{how}" == "shared":
        guards.append(guard)
    elif "{how}" == "mapped":
        guard = guard.map(lambda value: value.real)
    elif "{how}" == "leaked":
        guard.leak()
    held.set()
    done.wait()
    if "{how}" == "leaked":
        m.force_unlock()
    else:
        guard.unlock()

def wait():
    m.lock()

if "{how}" == "survivor":
    guards.append(m.lock())
    held.set()
threads = [threading.Thread(target=f) for f in (hold, wait)]
if guards:
    del threads[0]
for thread in threads:
    thread.start()
held.wait()
while not waiters(m):
    time.sleep(0.001)
child = os.fork()
if not child:
    try:
        assert m.is_locked()  # it stays held
        assert waiters(m) == 0
        assert "{how}" == "survivor" or m.try_lock() is None
        try:
            m.__exit__(None, None, None)
        except RuntimeError:
            pass
        assert m.is_locked()
        if "{how}" == "survivor":
            # Its own hold goes on, however it came to it: only its guard ends it.
            for _ in range(2):
                try:
                    m.force_unlock()
                except RuntimeError:
                    pass
                else:
                    raise AssertionError
            assert guards[0].value == 5
            guards[0].unlock()
        else:
            m.force_unlock_fair()
            if guards:
                try:
                    guards[0].value
                except RuntimeError:
                    pass
                else:
                    raise AssertionError
        assert not m.is_locked()
        with m as guard:
            if guards:
                del guards[0]  # dead: it ends nobody's hold
            assert guard.value == 5
            assert m.is_locked()
        assert not m.is_locked()
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
_, status = os.waitpid(child, 0)
done.set()
if "{how}" == "survivor":
    guards[0].unlock()
for thread in threads:
    thread.join()
assert not m.is_locked()
print(os.waitstatus_to_exitcode(status))
"""


@FORK
@ALL
@pytest.mark.parametrize("how", ["guard", "shared", "mapped", "block", "leaked", "survivor"])
def test_fork_while_held_and_waited_for(kind, how, run_python):
    code = FORKED.format(kind=kind.__name__, how=how)
    assert run_python("-c", code).stdout.split() == ["0"]


GENERATIONS = """
import os, sys, warnings
import fastsync
warnings.simplefilter("ignore")
kinds = fastsync.Mutex, fastsync.FairMutex, fastsync.ReentrantMutex
guards = [kind(5).lock() for kind in kinds]
rw = fastsync.RwLock(6)

def refuses(call):
    try:
        call()
    except RuntimeError:
        return True

def look():
    for guard in guards:
        assert refuses(guard.mutex.force_unlock)
        assert guard.value == 5
    for kind in kinds:
        m = kind(7)
        m.lock().leak()
        m.force_unlock()
        with m as guard:
            assert refuses(m.force_unlock)
            assert guard.value == 7
        assert not m.is_locked()
    stale = rw.read()
    fastsync.reset_after_fork(rw)
    assert refuses(stale.unlock) and not rw.is_locked()

for depth in range(70):
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os._exit(code) if depth else sys.exit(code)
    try:
        look()
    except BaseException:
        import traceback
        traceback.print_exc()
        print("depth", depth, file=sys.stderr, flush=True)
        os._exit(1)
os._exit(0)
"""


@FORK
def test_more_forks_deep_than_there_are_marks(run_python):
    run_python("-c", GENERATIONS)


BLOCK_OF_NOBODY = """
import os, sys, threading, warnings, weakref
warnings.simplefilter("ignore")
from fastsync import {kind}
m = {kind}([])

def enter():
    m.__enter__()
    if "{kind}" == "ReentrantMutex":
        m.__enter__()

thread = threading.Thread(target=enter)
thread.start()
thread.join()
child = os.fork()
if not child:
    m.force_unlock()
    gone = weakref.ref(m)
    del m
    os._exit(0 if gone() is None else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@FORK
@ALL
def test_a_forced_block_is_not_kept(kind, run_python):
    assert run_python("-c", BLOCK_OF_NOBODY.format(kind=kind.__name__)).stdout.split() == ["0"]


HANDED_OVER = """
import os, sys, threading, time, warnings
warnings.simplefilter("ignore")
from fastsync import {kind}
from fastsync import waiters
sys.setswitchinterval(100)  # with the GIL: who is handed the mutex does not run before the fork
m = {kind}(5)

def wait():
    m.lock().unlock()

def end_block():
    with m:
        thread.start()
        wait_for(thread)

def end(guard, how):
    thread.start()
    wait_for(thread)
    how(guard)

def leak_and_force(guard):
    guard.leak()
    m.force_unlock_fair()

def end_mapped(guard):
    guard.unlock_fair()

def wait_for(thread):
    while not waiters(m):
        time.sleep(0.001)

ways = [
    end_block,
    lambda: end(m.lock(), lambda guard: guard.unlock_fair()),
    lambda: end(m.lock(), leak_and_force),
    lambda: end(m.lock().map(lambda v: v.real), end_mapped),
]
for way in ways:
    thread = threading.Thread(target=wait)
    way()
    child = os.fork()
    if not child:
        try:
            if m.is_locked():  # by a thread that was handed it and never ran
                assert m.try_lock() is None
                m.force_unlock()
            with m as guard:
                assert guard.value == 5
            assert not m.is_locked()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    thread.join()
    assert status == 0, ways.index(way)
    assert not m.is_locked()
print("done")
"""


@FORK
@ALL
def test_fork_when_another_thread_has_been_handed_it(kind, run_python):
    """It is that thread's, not its former owner's, who forks: the child can force it."""
    assert run_python("-c", HANDED_OVER.format(kind=kind.__name__)).stdout.split() == ["done"]


FORKED_AMID = """
import os, sys, threading, time, warnings
warnings.simplefilter("ignore")
from fastsync import {kind}
m = {kind}(0)
stop = []

def churn():
    while not stop:
        with m as guard:
            guard.value += 1
        with m.lock() as guard:
            guard.value += 1
        guard = m.lock()
        guard.bump()
        with guard.unlocked():
            pass
        guard.unlock()

threads = [threading.Thread(target=churn) for _ in range(3)]
for thread in threads:
    thread.start()
forced = 0
for round in range(40):
    child = os.fork()
    if not child:
        if m.is_locked():
            m.force_unlock()
        for _ in range(3):
            assert not m.is_locked()
            with m as guard:
                guard.value += 1
                try:
                    m.force_unlock()
                except RuntimeError:
                    pass
                else:
                    os._exit(2)
                with guard.unlocked():
                    assert not m.is_locked()
        grandchild = os.fork()
        if not grandchild:
            assert not m.is_locked()
            os._exit(0)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
    deadline = time.monotonic() + 30
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            status = 9
            break
        time.sleep(0.001)
    if status:
        print("round", round, "status", status)
        break
stop.append(1)
for thread in threads:
    thread.join()
print("done")
"""


@FORK
@ALL
def test_fork_amid_blocks_and_guards_of_other_threads(kind, run_python):
    """The child can always force what it finds held, and is never stuck."""
    assert run_python("-c", FORKED_AMID.format(kind=kind.__name__)).stdout.split() == ["done"]


# -- misuse from many threads ------------------------------------------------


@pytest.mark.stress
@pytest.mark.parametrize("seconds", [0.5])
def test_misuse_never_corrupts(seconds, run_threads):
    """Threads use one guard at a time in every way; nothing crashes, and it ends free."""
    seed = random.randrange(2**32)
    print("seed", seed)
    m = Mutex({"a": 0})
    shared = [None]
    end = time.monotonic() + seconds

    def use(index):
        rng = random.Random(seed + index)
        while time.monotonic() < end:
            guard = shared[0]
            action = rng.randrange(9)
            try:
                if action == 0:
                    guard = m.try_lock()
                    if guard is not None:
                        shared[0] = guard
                elif action == 1:
                    guard.value = {"a": rng.random()}
                elif action == 2:
                    assert "a" in guard.value
                elif action == 3:
                    guard.unlock()
                elif action == 4:
                    m.force_unlock()
                elif action == 5:
                    shared[0] = guard.map(lambda v: v["a"]) if rng.random() < 0.1 else guard
                elif action == 6:
                    with guard.unlocked():
                        pass
                elif action == 7:
                    guard.bump()
                else:
                    guard.leak()
            except (RuntimeError, AttributeError, TypeError):
                pass

    def unstick():
        # unlocked() and bump() wait for a leaked mutex: let them on.
        while time.monotonic() < end + 1:
            with contextlib.suppress(RuntimeError):
                m.force_unlock()
            time.sleep(0.001)

    run_threads([*(lambda i=i: use(i) for i in range(4)), unstick])
    shared.clear()
    with contextlib.suppress(RuntimeError):
        m.force_unlock()
    with m as guard:
        assert "a" in guard.value
    assert not m.is_locked()


@pytest.mark.stress
def test_value_is_replaced_and_read_through_one_guard(run_threads):
    m = Mutex([0])
    guard = m.lock()
    stop = []

    def write():
        for i in range(20000):
            guard.value = [i]
        stop.append(1)

    def read():
        last = 0
        while not stop:
            value = guard.value[0]
            assert value >= last
            last = value

    run_threads([write, read, read])
    guard.unlock()


def test_guard_type_is_shared():
    assert type(Mutex().lock()) is MutexGuard
    assert type(FairMutex().lock()) is MutexGuard


# -- ReentrantMutex, seen from other threads -----------------------------------------------------


def is_free_for_others(mutex):
    (taken,) = run_threads([lambda: mutex.try_lock() is not None])
    return taken


# -- what ends a hold, and what is left of it ---------------------------------------------------

ENDS_OF_A_GUARD = {
    "unlock": lambda guard: guard.unlock(),
    "unlock_fair": lambda guard: guard.unlock_fair(),
    "leak": lambda guard: guard.leak(),
    "map": lambda guard: guard.map(lambda value: value["part"]),
    "unlocked": lambda guard: guard.unlocked().__enter__(),
    "nothing": lambda guard: None,
    "leak and force_unlock": lambda guard: (m := guard.mutex, guard.leak(), m.force_unlock()),
}


@ALL
@pytest.mark.parametrize("ending", ENDS_OF_A_GUARD)
def test_a_mutex_is_freed_however_a_guard_has_ended(kind, ending):
    m = kind({"part": 1})
    with m.lock() as guard:
        ENDS_OF_A_GUARD[ending](guard)
    gone = weakref.ref(m)
    del m, guard
    gc.collect()
    assert gone() is None


class Node:
    pass


@ALL
@pytest.mark.parametrize("enter", ["lock", "__enter__"])
@pytest.mark.parametrize("lent", [False, True])
def test_a_hold_that_never_ends_hides_no_cycle(kind, enter, lent):
    node = Node()
    m = kind(node)
    guard = getattr(m, enter)()
    if lent:
        node.kept = guard.unlocked()
        node.kept.__enter__()
    else:
        node.kept = guard
    gone = weakref.ref(node), weakref.ref(m)
    del node, m, guard
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


@pytest.mark.parametrize("blocks", [2, 3])
def test_blocks_that_were_opened_while_one_had_lent_its_level_hide_no_cycle(blocks):
    # Then there are as many guards, each in the list of the next.
    node = Node()
    m = ReentrantMutex(node)
    node.kept = []
    for _ in range(blocks):
        node.kept.append(m.__enter__().unlocked())
        node.kept[-1].__enter__()
    for block in node.kept:
        block.__exit__(None, None, None)
    assert m.is_locked()
    node.kept = None
    gone = weakref.ref(node), weakref.ref(m)
    node.m = m
    del node, m, block
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_a_leak_of_a_reentrant_mutex_is_undone_once():
    m = ReentrantMutex(1)
    guard = m.lock()
    m.lock().leak()
    m.force_unlock()
    with pytest.raises(RuntimeError):
        m.force_unlock()
    assert guard.value == 1
    guard.unlock()
    assert is_free_for_others(m)


@pytest.mark.parametrize("kind", [Mutex, FairMutex])
def test_a_replaced_value_may_use_the_guard_as_it_dies(kind):
    class Old:
        def __del__(self):
            seen.append(guard.value)

    seen = []
    with kind(Old()) as guard:
        guard.value = 7
        assert seen == [7]


def end_and_try(end):
    """End a hold, and at once try to have the next one: what try_lock() gave."""

    def call(mutex, guard, tried):
        end(mutex, guard)
        sneaked = mutex.try_lock()
        tried.append(1)
        return sneaked

    return call


def leak_and(name):
    return end_and_try(lambda mutex, guard: (guard.leak(), getattr(mutex, name)()))


def try_while_unlocked_fair(mutex, guard, tried):
    with guard.unlocked_fair():
        sneaked = mutex.try_lock()
        tried.append(1)
        if sneaked:
            sneaked.unlock()
        return sneaked


FAIR_ENDS = {
    "unlock_fair": (Mutex, end_and_try(lambda mutex, guard: guard.unlock_fair())),
    "unlocked_fair": (Mutex, try_while_unlocked_fair),
    "force_unlock_fair": (Mutex, leak_and("force_unlock_fair")),
    "FairMutex.unlock": (FairMutex, end_and_try(lambda mutex, guard: guard.unlock())),
    "FairMutex.force_unlock": (FairMutex, leak_and("force_unlock")),
    "ReentrantMutex.unlock_fair": (
        ReentrantMutex,
        end_and_try(lambda mutex, guard: guard.unlock_fair()),
    ),
    "ReentrantMutex.unlocked_fair": (ReentrantMutex, try_while_unlocked_fair),
}


@pytest.mark.parametrize("name", FAIR_ENDS)
def test_a_fair_end_hands_over_at_once(name):
    """Also to who has not waited for so long that any end would."""
    kind, end = FAIR_ENDS[name]
    mutex = kind(0)

    for _ in range(40):
        tried = []

        def wait(tried=tried):
            with mutex:
                wait_until(lambda: tried)

        guard = mutex.lock()
        with background(wait):
            while not waiters(mutex):
                pass
            sneaked = end(mutex, guard, tried)
            guard = None
            if sneaked:
                sneaked.unlock()
        assert not sneaked


def test_unlocking_takes_off_what_another_thread_has_dropped():
    mutex = ReentrantMutex(0)
    outer = mutex.lock()
    inner = [mutex.lock()]
    held = []

    def drop_last():
        mine = inner[0]
        held.append(True)
        wait_until(lambda: not inner)
        del mine

    with background(drop_last):
        wait_until(lambda: held)
        inner.clear()
    outer.unlock()
    assert is_free_for_others(mutex)


# -- pin() ---------------------------------------------------------------------------------------


@ALL
def test_a_pinned_mutex_works_and_stays(kind, run_threads):
    m = pin(kind(0))
    if not is_pinned(m):  # not before Python 3.12
        return
    before = sys.getrefcount(m)

    def add():
        for _ in range(200):
            with m as guard:
                guard.value += 1
            with m.lock() as guard, guard.unlocked():
                pass

    run_threads([add, add])
    gc.collect()
    assert sys.getrefcount(m) == before
    assert m.into_inner() == 400
    assert is_pinned(pin(Condvar()))
