"""The deadlock detector: what it finds, and that it finds nothing where there is nothing."""

import gc
import os
import random
import threading as stdlib
import time
import weakref
from contextlib import ExitStack

import pytest

import fastsync.threading as drop_in
from fastsync import Condvar, FairMutex, Mutex, ReentrantMutex, RwLock, deadlock

MUTEXES = [Mutex, FairMutex, ReentrantMutex]
LOCKS = [*MUTEXES, drop_in.Lock, drop_in.RLock, drop_in.Condition]
ALL = pytest.mark.parametrize("kind", LOCKS, ids=lambda kind: kind.__name__)


@pytest.fixture(autouse=True)
def detector():
    deadlock.enable()
    yield
    deadlock.disable()
    assert deadlock.check() == []


class Rescue:
    """Daemon threads that a test has deadlocked, and how it lets them go."""

    def __init__(self):
        self.threads = []
        self.errors = []
        self.guards = {}

    def start(self, function, *arguments):
        def run():
            try:
                function(*arguments)
            except Exception as error:
                self.errors.append(error)

        thread = stdlib.Thread(target=run, daemon=True)
        thread.start()
        self.threads.append(thread)
        return thread

    def hold(self, mutex):
        """A context manager that holds a mutex until it is left or unlock() is called."""
        self.guards[mutex] = guard = mutex.lock()
        return guard

    def unlock(self, mutex):
        self.guards.pop(mutex).unlock()

    def join(self):
        deadline = time.monotonic() + 30
        for thread in self.threads:
            thread.join(max(0, deadline - time.monotonic()))
            assert not thread.is_alive()
        assert not self.errors


def ring(kinds, rescue, breaker):
    """Have a thread for each lock hold it and take the next.

    `breaker`, a Mutex, is the first lock: the test can let it go, and so end the deadlock.
    """
    locks = [breaker, *[kind() for kind in kinds[1:]]]
    barrier = drop_in.Barrier(len(locks))

    def take(index):
        with rescue.hold(breaker) if index == 0 else locks[index]:
            barrier.wait()
            with locks[(index + 1) % len(locks)]:
                pass

    for index in range(len(locks)):
        rescue.start(take, index)
    return locks


def find(wait_until):
    return wait_until(deadlock.check)


def known(lock):
    """What the detector knows it by: a condition is its lock."""
    return getattr(lock, "_lock", lock)


def assert_is_ring(cycle, locks):
    assert {id(t.holds) for t in cycle} == {id(known(lock)) for lock in locks}
    for thread, following in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
        assert thread.waits_for is following.holds
        assert "take" in [frame.name for frame in thread.stack]
        assert isinstance(thread.thread_id, int)
        assert thread.name in {t.name for t in stdlib.enumerate()}
    assert len({t.thread_id for t in cycle}) == len(locks)


@ALL
@pytest.mark.parametrize("size", [2, 3])
def test_ring(kind, size, wait_until):
    rescue = Rescue()
    breaker = Mutex()
    locks = ring([kind] * size, rescue, breaker)
    (cycle,) = find(wait_until)
    assert_is_ring(cycle, locks)
    for _ in range(3):
        assert deadlock.check() == [cycle]  # asking changes nothing
    text = deadlock.format_cycle(cycle)
    assert f"deadlock of {size} threads" in text
    assert "test_deadlock.py" in text
    assert "with locks[" in text
    rescue.unlock(breaker)
    rescue.join()
    assert deadlock.check() == []


def test_ring_of_different_locks(wait_until):
    rescue = Rescue()
    breaker = Mutex()
    locks = ring(LOCKS, rescue, breaker)
    (cycle,) = find(wait_until)
    assert_is_ring(cycle, locks)
    rescue.unlock(breaker)
    rescue.join()


def test_two_rings(wait_until):
    rescue = Rescue()
    breakers = [Mutex(), Mutex()]
    for breaker in breakers:
        ring([Mutex, Mutex], rescue, breaker)
    cycles = wait_until(lambda: len(found := deadlock.check()) == 2 and found)
    assert {len(cycle) for cycle in cycles} == {2}
    rescue.unlock(breakers[0])
    wait_until(lambda: len(deadlock.check()) == 1)
    rescue.unlock(breakers[1])
    rescue.join()


@pytest.mark.parametrize("kind", [Mutex, FairMutex, drop_in.Lock])
def test_thread_that_waits_for_itself(kind, wait_until):
    rescue = Rescue()
    lock = kind()

    def lock_twice():
        with lock if kind is drop_in.Lock else rescue.hold(lock), ExitStack() as stack:
            stack.enter_context(lock)

    thread = rescue.start(lock_twice)
    ((me,),) = find(wait_until)
    assert me.thread_id == thread.ident
    assert me.name == thread.name
    assert me.holds is lock
    assert me.waits_for is lock
    if kind is drop_in.Lock:
        lock.release()  # by another thread: the detector ignores it from here on
        thread.join(30)
        assert not thread.is_alive()
        return
    rescue.unlock(lock)
    rescue.join()


def test_reentrance_is_no_deadlock(run_threads):
    for kind in (ReentrantMutex, drop_in.RLock, drop_in.Condition):
        lock = kind()
        with lock, lock, lock:
            assert deadlock.check() == []
        assert deadlock.order_violations() == []


def test_rwlock_taken_again_by_its_writer(wait_until):
    rescue = Rescue()
    lock = RwLock(1)
    guards = []

    def write_then_read():
        guards.append(lock.write())
        lock.read().unlock()

    rescue.start(write_then_read)
    ((me,),) = find(wait_until)
    assert me.holds is lock
    assert me.waits_for is lock
    guards[0].unlock()
    rescue.join()


def test_rwlock_taken_again_by_a_reader_with_a_writer_between(wait_until):
    rescue = Rescue()
    lock = RwLock(1)
    guards = []
    steps = []

    def read_twice():
        guards.append(lock.read())
        wait_until(lambda: lock.try_read() is None)  # the writer has come
        steps.append(1)
        lock.read().unlock()

    def write():
        wait_until(lambda: guards)
        lock.write().unlock()

    reader = rescue.start(read_twice)
    writer = rescue.start(write)
    (cycle,) = find(wait_until)
    assert {t.thread_id for t in cycle} == {reader.ident, writer.ident}
    assert all(t.waits_for is lock for t in cycle)
    assert [t.holds for t in cycle if t.thread_id == reader.ident] == [lock]
    guards[0].unlock()
    rescue.join()


def test_reader_behind_a_writer_that_gives_up_is_no_deadlock(wait_until):
    rescue = Rescue()
    lock = RwLock(1)
    guards = []

    def read_twice():
        guards.append(lock.read())
        wait_until(lambda: lock.try_read() is None)
        lock.read().unlock()
        guards[0].unlock()

    def write():
        wait_until(lambda: guards)
        assert lock.try_write_for(0.3) is None

    rescue.start(read_twice)
    rescue.start(write)
    while any(thread.is_alive() for thread in rescue.threads):
        assert deadlock.check() == []
        time.sleep(0.001)
    rescue.join()


def test_rwlock_ring(wait_until):
    rescue = Rescue()
    locks = [RwLock(), RwLock(), RwLock()]
    barrier = drop_in.Barrier(3)
    guards = {}

    def take(index):
        guards[index] = locks[index].read()
        barrier.wait()
        locks[(index + 1) % 3].write().unlock()

    for index in range(3):
        rescue.start(take, index)
    (cycle,) = find(wait_until)
    assert_is_ring(cycle, locks)
    for guard in guards.values():
        guard.unlock()
    rescue.join()


def test_condition_that_cannot_take_its_lock_again(wait_until):
    """A notified waiter holds what the notifier goes on to wait for."""
    rescue = Rescue()
    condition, outer = drop_in.Condition(), Mutex()
    waiting = []

    def wait():
        with rescue.hold(outer), condition:
            waiting.append(1)
            condition.wait()

    def notify():
        wait_until(lambda: waiting)
        with condition:
            condition.notify()
            with outer:
                pass

    rescue.start(wait)
    rescue.start(notify)
    (cycle,) = find(wait_until)
    assert {id(t.waits_for) for t in cycle} == {id(condition._lock), id(outer)}
    rescue.unlock(outer)
    rescue.join()


# -- no false alarms ---------------------------------------------------------


def assert_quiet_while(rescue):
    while any(thread.is_alive() for thread in rescue.threads):
        assert deadlock.check() == []
    rescue.join()


def test_waits_with_a_timeout_are_no_deadlock():
    rescue = Rescue()
    a, b = Mutex(), drop_in.Lock()
    barrier = drop_in.Barrier(2)

    def first():
        with a:
            barrier.wait()
            assert not b.acquire(timeout=0.2)
            barrier.wait()

    def second():
        with b:
            barrier.wait()
            assert a.try_lock_for(0.3) is None
            barrier.wait()

    rescue.start(first)
    rescue.start(second)
    assert_quiet_while(rescue)


@pytest.mark.stress
def test_contention_is_no_deadlock():
    """Locks taken in one order, by many; conditions, hand-overs and readers among them."""
    seed = random.randrange(2**32)
    print("seed", seed)
    rescue = Rescue()
    locks = [Mutex(0), FairMutex(0), ReentrantMutex(0), drop_in.Lock(), drop_in.RLock(), RwLock(0)]
    condition, monitor = Condvar(), Mutex(0)

    def work(index):
        rng = random.Random(seed + index)
        for _ in range(150):
            chosen = sorted(rng.sample(range(len(locks)), 3))
            with ExitStack() as stack:
                for i in chosen:
                    lock = locks[i]
                    if isinstance(lock, RwLock):
                        lock = lock.read() if rng.random() < 0.7 else lock.write()
                    stack.enter_context(lock)
            with monitor as guard:
                guard.value += 1
                condition.notify_one()
                condition.wait_for(guard, 0.001)

    for index in range(6):
        rescue.start(work, index)
    assert_quiet_while(rescue)
    assert deadlock.order_violations() == []


def test_a_lock_used_as_a_signal():
    """Taken by one thread, let go by another: once that was seen, it is no deadlock."""
    rescue = Rescue()
    signal = drop_in.Lock()
    signal.acquire()
    rescue.start(signal.release)
    rescue.join()
    done = []

    def wait():
        signal.acquire()
        signal.acquire()  # until the other thread releases it
        done.append(1)

    waiter = rescue.start(wait)
    deadline = time.monotonic() + 0.2
    while time.monotonic() < deadline:
        assert deadlock.check() == []
    signal.release()
    rescue.join()
    assert done
    assert not waiter.is_alive()


def test_a_guard_that_was_leaked_or_moved():
    rescue = Rescue()
    m = Mutex()
    m.lock().leak()
    rescue.start(m.lock)
    moved = Mutex()
    box = [moved.lock()]
    rescue.start(lambda: box.pop().unlock())
    deadline = time.monotonic() + 0.1
    while time.monotonic() < deadline:
        assert deadlock.check() == []
    m.force_unlock()
    rescue.join()
    with moved:
        assert deadlock.check() == []


def test_identifiers_of_threads_that_ended_are_not_mixed_up():
    lock = drop_in.Lock()
    for _ in range(20):
        rescue = Rescue()
        rescue.start(lock.acquire)
        rescue.join()
        rescue.start(lambda: lock.acquire(timeout=0.01))
        assert_quiet_while(rescue)
        lock.release()


def test_locks_that_end_are_forgotten(wait_until):
    ended = []
    for _ in range(5):
        a, b = Mutex(), Mutex()
        with a, b:
            pass
        ended += [weakref.ref(a), weakref.ref(b)]
        del a, b
    gc.collect()
    wait_until(lambda: all(reference() is None for reference in ended))
    # Their addresses come again, in another order.
    for _ in range(50):
        a, b = Mutex(), Mutex()
        first, second = (a, b) if id(a) < id(b) else (b, a)
        with first, second:
            pass
        del a, b, first, second
        a, b = Mutex(), Mutex()
        first, second = (a, b) if id(a) > id(b) else (b, a)
        with first, second:
            pass
        del a, b, first, second
    assert deadlock.order_violations() == []


def test_off_it_knows_nothing(wait_until):
    deadlock.disable()
    assert not deadlock.enabled()
    a, b = Mutex(), Mutex()
    with a, b:
        pass
    with b, a:
        pass
    assert deadlock.check() == []
    assert deadlock.order_violations() == []
    with a:
        deadlock.enable()
        deadlock.enable()
        assert deadlock.enabled()
    with b:
        deadlock.disable()
        deadlock.enable()
    assert deadlock.check() == []


# -- the order of locks ------------------------------------------------------


@ALL
def test_both_orders(kind, run_threads):
    a, b = kind(), Mutex()

    def one():
        with a, b:
            pass

    def other():
        with b, a:
            pass

    run_threads([one])
    assert deadlock.order_violations() == []
    run_threads([other])
    (violation,) = deadlock.order_violations()
    assert {id(lock) for lock in violation.locks} == {id(known(a)), id(b)}
    assert sorted(stack[-1].name for stack in violation.stacks) == ["one", "other"]
    text = deadlock.format_violation(violation)
    assert "with a, b:" in text
    assert "with b, a:" in text
    run_threads([one])
    run_threads([other])
    assert deadlock.order_violations() == [violation]


def test_a_circle_of_three():
    a, b, c = Mutex(), Mutex(), Mutex()
    for first, second in ((a, b), (b, c)):
        with first, second:
            pass
    assert deadlock.order_violations() == []
    with c, a:
        pass
    (violation,) = deadlock.order_violations()
    assert set(map(id, violation.locks)) == {id(a), id(b), id(c)}
    assert len(violation.stacks) == 3


def test_attempts_that_do_not_wait_make_no_order():
    a, b = Mutex(), Mutex()
    with a:
        b.lock().unlock()
    with b:
        a.try_lock().unlock()
        a.try_lock_for(1).unlock()
    assert deadlock.order_violations() == []


# -- watch, the command line, fork -------------------------------------------


def test_watch_reports_each_cycle_once(wait_until):
    rescue = Rescue()
    found = []
    violations = []

    def callback(finding):
        (violations if isinstance(finding, deadlock.OrderViolation) else found).append(finding)

    with deadlock.watch(0.005, callback):
        breakers = [Mutex(), Mutex()]
        for count, breaker in enumerate(breakers):
            ring([Mutex, Mutex], rescue, breaker)
            wait_until(lambda count=count: len(found) == count + 1)
        time.sleep(0.05)
        assert len(found) == 2
        for breaker in breakers:
            rescue.unlock(breaker)
        rescue.join()
    assert all(len(cycle) == 2 for cycle in found)
    assert all(len(violation.locks) == 2 for violation in violations)
    assert len(violations) == 2
    with pytest.raises(ValueError):
        deadlock.watch(0)


class Stderr:
    """What is written; unlike pytest's own capture it loses nothing to a race."""

    def __init__(self):
        self.lines = []

    def write(self, text):
        self.lines.append(text)

    def flush(self):
        pass


def test_watch_writes_a_report(wait_until, monkeypatch):
    stderr = Stderr()
    monkeypatch.setattr("sys.stderr", stderr)
    rescue = Rescue()
    watch = deadlock.watch(0.005)
    breaker = Mutex()
    ring([Mutex, ReentrantMutex], rescue, breaker)

    def reported():
        text = "".join(stderr.lines)
        return "deadlock of 2 threads" in text and "more than one order" in text

    wait_until(reported)
    rescue.unlock(breaker)
    rescue.join()
    watch.stop()
    watch.stop()
    assert "".join(stderr.lines).count("deadlock of 2 threads") == 1


def test_watch_outlives_a_callback_that_raises(wait_until, monkeypatch):
    stderr = Stderr()
    monkeypatch.setattr("sys.stderr", stderr)
    rescue = Rescue()
    calls = []

    def callback(finding):
        if isinstance(finding, deadlock.Cycle):
            calls.append(finding)
        raise ZeroDivisionError

    with deadlock.watch(0.005, callback):
        for count in (1, 2):
            breaker = Mutex()
            ring([Mutex, Mutex], rescue, breaker)
            wait_until(lambda count=count: len(calls) == count)
            rescue.unlock(breaker)
        rescue.join()
    assert "ZeroDivisionError" in "".join(stderr.lines)


FORKED = """
import os, threading, warnings
warnings.simplefilter("ignore")
from fastsync import Mutex, deadlock
deadlock.enable()
a, b = Mutex(), Mutex()
held, done = threading.Event(), threading.Event()

def hold():
    with a:
        held.set()
        done.wait()

thread = threading.Thread(target=hold)
thread.start()
held.wait()
with b:
    child = os.fork()
    if not child:
        assert deadlock.check() == []
        a.force_unlock()
        with a:
            assert a.try_lock() is None
        os._exit(0 if deadlock.check() == [] else 1)
_, status = os.waitpid(child, 0)
done.set()
thread.join()
print(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fork(run_python):
    assert run_python("-c", FORKED).stdout.split() == ["0"]


APP = """
import os, sys, threading
a, b = threading.Lock(), threading.RLock()
meet = threading.Barrier(2)

def take(x, y):
    with x:
        meet.wait()
        with y:
            pass

for pair in ((a, b), (b, a)):
    threading.Thread(target=take, args=pair, daemon=True).start()

class Stderr:
    def write(self, text):
        sys.__stderr__.write(text)
        if "deadlock of 2 threads" in text:
            print("found", sys.argv)
            sys.stdout.flush()
            os._exit(0)

    def flush(self):
        pass

sys.stderr = Stderr()
threading.Event().wait(60)
"""


def test_command_line(run_python, tmp_path):
    app = tmp_path / "app.py"
    app.write_text(APP)
    done = run_python("-m", "fastsync", "--deadlocks", app, "argument")
    assert done.stdout.split()[0] == "found"
    assert "argument" in done.stdout
    assert "with y:" in done.stderr
