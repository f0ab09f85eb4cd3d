"""Histories of fastsync.threading's types, and their rules in one thread; histories.py explains."""

import threading
from collections import deque

import pytest
from conftest import run_threads
from histories import check, is_linearizable, refused
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import fastsync.threading as fs

# -- specifications: (state, thread, call, result) -> the next state, None: impossible ----------


def lock_spec(state, thread, call, result):
    if call == "acquire":
        if result:
            return None if state else True
        return state  # gave up: it may have been held at any moment; see `tight`
    if call == "release":
        if result == "refused":
            return None if state else state
        return False if state else None
    return state if result == state else None


def semaphore_spec(state, thread, call, result):
    if call == "acquire":
        if result:
            return state - 1 if state else None
        return state if state == 0 else None
    if call == "release":
        return state + 1
    return state if result == state else None


def bounded_spec(state, thread, call, result):
    if call == "release":
        if result == "refused":
            return state if state == 2 else None
        return state + 1 if state < 2 else None
    return semaphore_spec(state, thread, call, result)


def event_spec(state, thread, call, result):
    if call == "set":
        return True
    if call == "clear":
        return False
    return state if result == state else None


def queue_spec(state, thread, call, result):
    if call[0] == "put":
        return (*state, call[1])
    if result is None:
        return state if not state else None
    return state[1:] if state and state[0] == result else None


def rlock_spec(state, thread, call, result):
    owner, depth = state
    if call == "acquire":
        if result:
            return (thread, depth + 1) if owner in (None, thread) else None
        return state if owner not in (None, thread) else None
    if call == "release":
        if result == "refused":
            return state if owner != thread else None
        if owner != thread:
            return None
        return (thread, depth - 1) if depth > 1 else (None, 0)
    return state if result == (depth if owner == thread else 0) else None


def strict_lock_spec(state, thread, call, result):
    if call == "acquire" and not result:
        return state if state else None
    return lock_spec(state, thread, call, result)


def test_the_checker_finds_what_is_wrong():
    right = [(0, "acquire", True, 0, 5), (1, "acquire", False, 1, 2), (0, "release", None, 6, 7)]
    assert is_linearizable(right, strict_lock_spec, False)
    twice = [(0, "acquire", True, 0, 5), (1, "acquire", True, 1, 2)]
    assert not is_linearizable(twice, strict_lock_spec, False)
    lost = [(0, ("put", 1), None, 0, 1), (0, ("get",), None, 2, 3)]
    assert not is_linearizable(lost, queue_spec, ())


def test_lock_histories(impl):
    def perform(lock, call):
        if call == "acquire":
            return lock.acquire(False)
        if call == "release":
            return refused(lock.release, RuntimeError)
        return lock.locked()

    check(impl.Lock, perform, ["acquire", "release", "locked"], strict_lock_spec, False)


def test_waiting_lock_histories():
    # With a time limit the failure may be of any moment, so only successes are constrained.
    # Not on threading: beside a waiter, two releases of one acquisition may both succeed there, for
    # 3.13t clears the word without looking at it again (mutex_unpark in Python/lock.c).
    def perform(lock, call):
        if call == "acquire":
            return lock.acquire(timeout=0.0002)
        return refused(lock.release, RuntimeError)

    calls = ["acquire", "acquire", "release"]
    check(fs.Lock, perform, calls, lock_spec, False, histories=80)


def test_rlock_histories(impl):
    def perform(lock, call):
        if call == "acquire":
            return lock.acquire(False)
        if call == "release":
            return refused(lock.release, RuntimeError)
        return lock._recursion_count()

    calls = ["acquire", "acquire", "release", "count"]
    check(impl.RLock, perform, calls, rlock_spec, (None, 0))


def test_semaphore_histories(impl):
    def perform(semaphore, call):
        if call == "acquire":
            return semaphore.acquire(False)
        if call == "release":
            return semaphore.release()
        return semaphore._value

    calls = ["acquire", "acquire", "release", "value"]
    if impl is not fs:
        calls.remove("value")
    check(lambda: impl.Semaphore(1), perform, calls, semaphore_spec, 1)


def test_bounded_semaphore_histories(impl):
    def perform(semaphore, call):
        if call == "acquire":
            return semaphore.acquire(False)
        return refused(semaphore.release, ValueError)

    check(lambda: impl.BoundedSemaphore(2), perform, ["acquire", "release"], bounded_spec, 2)


def test_event_histories(impl):
    def perform(event, call):
        if call == "wait":
            return event.wait(0)
        if call == "is_set":
            return event.is_set()
        return getattr(event, call)()

    calls = ["set", "clear", "wait", "is_set"]
    if impl is not fs:
        calls.remove("wait")  # it reads the flag, and answers later
    check(impl.Event, perform, calls, event_spec, False)


class Queue:
    def __init__(self, impl):
        self.ready, self.items = impl.Condition(impl.Lock()), deque()

    def put(self, item):
        with self.ready:
            self.items.append(item)
            self.ready.notify()

    def get(self):
        with self.ready:
            if self.ready.wait_for(lambda: self.items, 0):
                return self.items.popleft()


def test_histories_of_a_queue_on_a_condition(impl):
    def perform(queue, call):
        return queue.put(call[1]) if call[0] == "put" else queue.get()

    calls = [("put", 1), ("put", 2), ("get",), ("get",)]
    check(lambda: Queue(impl), perform, calls, queue_spec, ())


def test_barrier_histories(impl):
    # Rounds: the n-th index of each thread belongs to the n-th round, which has each index once.
    for parties in (2, 3, 5):
        barrier = impl.Barrier(parties)
        rounds = run_threads(
            lambda _, barrier=barrier: [barrier.wait(20) for _ in range(40)], count=parties
        )
        for indices in zip(*rounds, strict=True):
            assert sorted(indices) == list(range(parties))


# -- rules of one thread -----------------------------------------------------------------------

QUIET = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)


class LockMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.lock, self.held = fs.Lock(), False

    @rule(timeout=st.sampled_from([0, 0.0, 1e-9, 1e-6]))
    def acquire(self, timeout):
        assert self.lock.acquire(timeout=timeout) is not self.held
        self.held = True

    @precondition(lambda self: not self.held)
    @rule()
    def enter(self):
        with self.lock as answer:
            assert answer is True and self.lock.locked()

    @rule()
    def release(self):
        assert (refused(self.lock.release, RuntimeError) is None) is self.held
        self.held = False

    @rule()
    def reinitialize(self):
        self.lock._at_fork_reinit()
        self.held = False

    @invariant()
    def agrees(self):
        assert self.lock.locked() is self.held
        assert repr(self.lock).startswith("<locked" if self.held else "<unlocked")


class RLockMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.lock, self.depth, self.saved = fs.RLock(), 0, None

    @rule(way=st.integers(0, 2))
    def acquire(self, way):
        call = (self.lock.acquire, lambda: self.lock.acquire(False), self.lock.__enter__)[way]
        assert call() is True
        self.depth += 1

    @rule()
    def release(self):
        assert (refused(self.lock.release, RuntimeError) is None) is (self.depth > 0)
        self.depth = max(0, self.depth - 1)

    @precondition(lambda self: self.depth and not self.saved)
    @rule()
    def save(self):
        self.saved, self.depth = (self.lock._release_save(), self.depth), 0

    @precondition(lambda self: self.saved and not self.depth)
    @rule()
    def restore(self):
        state, self.depth = self.saved
        self.lock._acquire_restore(state)
        self.saved = None

    @rule()
    def wait_on_a_condition(self):
        condition = fs.Condition(self.lock)
        result = refused(lambda: condition.wait(0), RuntimeError)
        assert (result is None) is (self.depth > 0)

    @invariant()
    def agrees(self):
        assert self.lock._recursion_count() == self.depth
        assert self.lock._is_owned() is (self.depth > 0) is self.lock.locked()


class SemaphoreMachine(RuleBasedStateMachine):
    limit = None

    def __init__(self):
        super().__init__()
        self.value = 2
        self.semaphore = fs.BoundedSemaphore(2) if self.limit else fs.Semaphore(2)

    @rule(timeout=st.sampled_from([None, 0, -1, 1e-6]))
    def acquire(self, timeout):
        blocking = timeout is not None
        assert self.semaphore.acquire(blocking, timeout) is (self.value > 0)
        self.value = max(0, self.value - 1)

    @rule(n=st.integers(-1, 4))
    def release(self, n):
        right = n >= 1 and (self.limit is None or self.value + n <= self.limit)
        result = refused(lambda: self.semaphore.release(n), ValueError)
        assert (result is None) is right
        self.value += n if right else 0

    @invariant()
    def agrees(self):
        assert self.semaphore._value == self.value


class BoundedMachine(SemaphoreMachine):
    limit = 2


class EventMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.event, self.flag = fs.Event(), False

    @rule(flag=st.booleans())
    def change(self, flag):
        self.event.set() if flag else self.event.clear()
        self.flag = flag

    @rule()
    def reinitialize(self):
        self.event._at_fork_reinit()

    @rule(timeout=st.sampled_from([0, -1, 1e-6]))
    def wait(self, timeout):
        assert self.event.wait(timeout) is self.flag

    @invariant()
    def agrees(self):
        assert self.event.is_set() is self.flag is self.event._flag


class BarrierMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.barrier, self.broken = fs.Barrier(2), False

    @rule(timeout=st.sampled_from([0, -1, 1e-6]))
    def wait_alone(self, timeout):
        assert refused(lambda: self.barrier.wait(timeout), threading.BrokenBarrierError)
        self.broken = True

    @rule()
    def abort(self):
        self.barrier.abort()
        self.broken = True

    @rule()
    def reset(self):
        self.barrier.reset()
        self.broken = False

    @invariant()
    def agrees(self):
        assert self.barrier.broken is self.broken
        assert self.barrier.n_waiting == 0 and self.barrier.parties == 2


@pytest.mark.parametrize(
    "machine",
    [LockMachine, RLockMachine, SemaphoreMachine, BoundedMachine, EventMachine, BarrierMachine],
)
def test_rules_of_one_thread(machine):
    case = machine.TestCase("runTest")
    case.settings = QUIET
    case.runTest()
