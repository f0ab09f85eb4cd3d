"""Condvar: whom a notification reaches, what a wait answers, and what it refuses."""

import os
import sys
import threading
import time
from collections import deque

import pytest
from conftest import interrupted

from fastsync import Condvar, FairMutex, Mutex, ReentrantMutex, waiters

FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def count(condvar):
    """How many threads wait: a notification has not reached them yet."""
    return int(repr(condvar).split()[1])


def test_smoke():
    c = Condvar()
    assert c.notify_one() is False
    assert c.notify_all() == 0
    assert type(c.notify_all()) is int
    assert repr(c) == "<Condvar, 0 waiting>"


def test_notify_one(run_threads):
    m, c = Mutex(False), Condvar()

    def notify():
        with m as guard:
            guard.value = True
            c.notify_one()

    with m as guard:
        thread = threading.Thread(target=notify)
        thread.start()
        while not guard.value:
            c.wait(guard)
        assert m.is_locked()
    thread.join(30)
    assert not thread.is_alive()


def waiting(m, c, threads, wait_until, run_threads, notify):
    """Have `threads` threads wait, then call notify(); all must come through."""

    def wait():
        with m as guard:
            c.wait(guard)
            assert m.is_locked()
            guard.value += 1

    def act():
        wait_until(lambda: count(c) == threads)
        return notify()

    return run_threads([*[wait] * threads, act])[-1]


@pytest.mark.parametrize("held", [False, True])
def test_notify_all_returns_how_many(held, run_threads, wait_until):
    m, c = Mutex(0), Condvar()

    def notify():
        if not held:
            return c.notify_all(), c.notify_all()
        with m:
            first = c.notify_all()
            assert waiters(m) == 10  # moved, not woken
            return first, c.notify_all()

    assert waiting(m, c, 10, wait_until, run_threads, notify) == (10, 0)
    assert m.into_inner() == 10


@pytest.mark.parametrize("held", [False, True])
def test_notify_one_returns_whether(held, run_threads, wait_until):
    m, c = Mutex(0), Condvar()

    def notify():
        if held:
            with m:
                answers = [c.notify_one() for _ in range(4)]
        else:
            answers = [c.notify_one() for _ in range(4)]
        return answers

    answers = waiting(m, c, 3, wait_until, run_threads, notify)
    assert answers == [True, True, True, False]
    assert m.into_inner() == 3


def test_notifications_are_not_stored(run_threads):
    m, c = Mutex(), Condvar()
    c.notify_one()
    c.notify_all()
    with m as guard:
        assert c.wait_for(guard, 0.01) is True


def test_first_come_first_notified(run_threads, wait_until):
    m, c = Mutex([]), Condvar()

    def wait(i):
        wait_until(lambda: count(c) == i)
        with m as guard:
            c.wait(guard)
            guard.value.append(i)

    def notify():
        wait_until(lambda: count(c) == 5)
        for i in range(5):
            assert c.notify_one()
            wait_until(lambda i=i: len(m.lock().value) == i + 1)

    run_threads([*(lambda i=i: wait(i) for i in range(5)), notify])
    assert m.into_inner() == list(range(5))


def test_requeued_waiter_needs_the_mutex(run_threads, wait_until):
    """Notified while the mutex is held: nobody runs before it is free."""
    m, c = Mutex(0), Condvar()

    def wait():
        with m as guard:
            c.wait(guard)
            assert guard.value == 1
            guard.value = 2

    def notify():
        wait_until(lambda: count(c) == 1)
        with m as guard:
            assert c.notify_one()
            assert waiters(m) == 1
            guard.value = 1

    run_threads([wait, notify])
    assert m.into_inner() == 2


def test_requeued_waiter_has_not_timed_out(run_threads, wait_until):
    m, c = Mutex(0), Condvar()

    def wait():
        with m as guard:
            return c.wait_for(guard, 0.2)

    def notify():
        wait_until(lambda: count(c) == 1)
        with m:
            assert c.notify_one()
            # Its deadline passes while it waits for the mutex only.
            time.sleep(0.4)
        return True

    timed_out, _ = run_threads([wait, notify])
    if timed_out:
        pytest.fail("a notified wait said that it timed out")


def test_a_wait_after_a_timed_wait(run_threads, wait_until):
    """Four waiters and a timed wait behind them: nobody is forgotten (parking_lot's issue 129)."""
    m, c = Mutex(0), Condvar()

    def wait():
        with m as guard:
            c.wait(guard)
            guard.value += 1

    def wait_and_time_out():
        wait_until(lambda: count(c) == 4)
        with m as guard:
            assert c.wait_for(guard, 0.02) is True
        assert count(c) == 4
        for _ in range(4):
            assert c.notify_one()
        assert not c.notify_one()

    run_threads([*[wait] * 4, wait_and_time_out])
    assert m.into_inner() == 4


def test_wait_for_and_until(run_threads):
    m, c = Mutex(), Condvar()
    with m as guard:
        for past in (0, -1, -(10**400), float("-inf"), 0.01):
            assert c.wait_for(guard, past) is True
        for past in (0, -(10**400), time.monotonic() - 1, time.monotonic() + 0.01):
            assert c.wait_until(guard, past) is True
        assert m.is_locked()
        assert guard.mutex is m
        before = time.monotonic()
        assert c.wait_for(guard, 0.05)
        assert time.monotonic() - before >= 0.05
        for method in (c.wait_for, c.wait_until):
            with pytest.raises(ValueError):
                method(guard, float("nan"))
            with pytest.raises(TypeError):
                method(guard, "1")
    assert not m.is_locked()


@pytest.mark.parametrize(
    "huge",
    [10**400, 2**64 - 1, float("inf"), sys.float_info.max, 60],
    ids=["10**400", "2**64", "inf", "max", "60"],
)
@pytest.mark.parametrize("method", ["wait_for", "wait_until"])
def test_a_notified_timed_wait(huge, method, run_threads, wait_until):
    m, c = Mutex(), Condvar()
    when = time.monotonic() + huge if method == "wait_until" and huge == 60 else huge

    def wait():
        with m as guard:
            return getattr(c, method)(guard, when)

    def notify():
        wait_until(lambda: count(c) == 1)
        assert c.notify_one()

    assert run_threads([wait, notify])[0] is False


def test_wait_while(run_threads, wait_until):
    m, c = Mutex(3), Condvar()
    asked = []

    def positive(value):
        asked.append(value)
        return value > 0

    def wait():
        with m as guard:
            assert c.wait_while(guard, positive) is None
            assert guard.value == 0

    def count_down():
        for _ in range(3):
            wait_until(lambda: count(c) == 1)
            with m as guard:
                guard.value -= 1
            assert c.notify_one()

    run_threads([wait, count_down])
    assert asked == [3, 2, 1, 0]


def test_wait_while_does_not_wait_when_false():
    m, c = Mutex(0), Condvar()
    with m as guard:
        assert c.wait_while(guard, lambda value: value > 0) is None
        assert c.wait_while_for(guard, lambda value: value > 0, 0) is False
        assert c.wait_while_until(guard, lambda value: value > 0, 0) is False


@pytest.mark.parametrize("method", ["wait_while_for", "wait_while_until"])
def test_wait_while_times_out_after_the_questions_it_was_woken_for(method, run_threads, wait_until):
    m, c = Mutex(0), Condvar()
    wakeups = 3

    def ask(value):
        guards[0].value += 1
        return True

    guards = []

    def wait():
        with m as guard:
            guards.append(guard)
            now = time.monotonic() if method == "wait_while_until" else 0
            assert getattr(c, method)(guard, ask, now + 0.5) is True
            return guard.value

    def notify():
        for i in range(wakeups):
            wait_until(lambda i=i: count(c) == 1 and m.into_inner() == i + 1)
            assert c.notify_one()

    assert run_threads([wait, notify])[0] == wakeups + 1


@pytest.mark.parametrize("method", ["wait_while_for", "wait_while_until"])
def test_timed_wait_while_that_succeeds(method, run_threads, wait_until):
    m, c = Mutex(True), Condvar()

    def wait():
        with m as guard:
            return getattr(c, method)(guard, lambda value: value, 10**400)

    def notify():
        wait_until(lambda: count(c) == 1)
        with m as guard:
            guard.value = False
        c.notify_all()

    assert run_threads([wait, notify])[0] is False


def test_predicate_that_raises_keeps_the_guard():
    m, c = Mutex(1), Condvar()
    with m as guard:
        with pytest.raises(ZeroDivisionError):
            c.wait_while(guard, lambda value: 1 / 0)
        assert guard.value == 1
        with pytest.raises(RuntimeError):
            c.wait_while(guard, lambda value: guard.unlock() or True)


# -- refusals ----------------------------------------------------------------


def test_two_mutexes_at_one_time(run_threads, wait_until):
    m, other, c = Mutex(), Mutex(1), Condvar()

    def wait():
        with m as guard:
            c.wait(guard)

    def intrude():
        wait_until(lambda: count(c) == 1)
        with other as guard:
            for attempt in (lambda: c.wait(guard), lambda: c.wait_for(guard, 1)):
                with pytest.raises(RuntimeError, match="another mutex"):
                    attempt()
                assert other.is_locked()
                assert guard.value == 1
        assert not other.is_locked()
        assert c.notify_one()

    run_threads([wait, intrude])


def test_two_mutexes_one_after_the_other(run_threads):
    c = Condvar()
    for _ in range(2):
        for m in (Mutex(), Mutex()):
            with m as guard:
                assert c.wait_for(guard, 0.001)


def test_what_is_no_guard():
    c, m = Condvar(), Mutex()
    for wrong in (None, 1, m, "guard", threading.Lock(), object()):
        for method in (c.wait, lambda g: c.wait_for(g, 0), lambda g: c.wait_while(g, bool)):
            with pytest.raises(TypeError):
                method(wrong)


def test_foreign_guards():
    c = Condvar()
    m = Mutex({"a": 1})
    dead = m.lock()
    dead.unlock()
    mapped = Mutex({"a": 1}).lock().map(lambda v: v["a"])
    leaked_from = Mutex()
    leaked = leaked_from.lock()
    leaked.leak()
    outside = Mutex().lock()
    with outside.unlocked():
        for guard in (
            dead,
            mapped,
            leaked,
            outside,
            FairMutex().lock(),
            ReentrantMutex().lock(),
        ):
            for method in (c.wait, lambda g: c.wait_for(g, 0), lambda g: c.wait_while(g, bool)):
                with pytest.raises(RuntimeError):
                    method(guard)
    assert outside.value is None
    assert mapped.value == 1
    assert c.notify_all() == 0
    leaked_from.force_unlock()


def test_guard_is_dead_while_its_thread_waits(run_threads, wait_until):
    m, c = Mutex(1), Condvar()
    guards = []

    def wait():
        with m as guard:
            guards.append(guard)
            c.wait(guard)
            assert guard.value == 2
        assert not m.is_locked()

    def use():
        wait_until(lambda: count(c) == 1)
        guard = guards.pop()
        for use in (
            lambda: guard.value,
            guard.unlock,
            guard.leak,
            guard.bump,
            lambda: c.wait(guard),
            lambda: guard.map(lambda v: v.x),
        ):
            with pytest.raises(RuntimeError):
                use()
        with m as mine:
            mine.value += 1
        c.notify_one()

    run_threads([wait, use])


def test_block_is_left_rightly_after_a_wait(run_threads, wait_until):
    """While one thread waits inside its block, others enter and leave theirs."""
    m, c = Mutex(0), Condvar()

    def wait():
        with m as guard:
            c.wait(guard)
            guard.value += 1
            assert m.is_locked()
        return m

    def others():
        wait_until(lambda: count(c) == 4)
        for _ in range(10):
            with m as guard:
                guard.value += 1
            with m.lock() as guard:
                guard.unlock()
        c.notify_all()

    run_threads([*[wait] * 4, others])
    assert not m.is_locked()
    assert m.into_inner() == 14


# -- queues ------------------------------------------------------------------


class Queue:
    """A bounded queue of a mutex and two conditions, as WebKit's lock test has it."""

    def __init__(self, size, style, timeout):
        self.items = Mutex(deque())
        self.empty, self.full = Condvar(), Condvar()
        self.size = size
        self.style = style
        self.timeout = timeout

    def wait(self, condition, guard, predicate):
        if self.timeout is None:
            condition.wait_while(guard, predicate)
            return
        while condition.wait_while_for(guard, predicate, self.timeout):
            pass

    def notify(self, condition):
        if self.style == "one":
            condition.notify_one()
        else:
            condition.notify_all()

    def put(self, item):
        with self.items as guard:
            self.wait(self.full, guard, lambda items: len(items) == self.size)
            guard.value.append(item)
        self.notify(self.empty)

    def get(self):
        with self.items as guard:
            self.wait(self.empty, guard, lambda items: not items)
            item = guard.value.popleft()
        self.notify(self.full)
        return item


def run_queue(run_threads, producers, consumers, size, messages, style, timeout, limit=30):
    """Every message of every producer arrives once."""
    queue = Queue(size, style, timeout)
    received = [[] for _ in range(consumers)]

    def produce(index):
        for i in range(messages):
            queue.put((index, i))

    def consume(index):
        while (item := queue.get()) is not None:
            received[index].append(item)

    def produce_all():
        run_threads(produce, count=producers, timeout=limit)
        for _ in range(consumers):
            queue.put(None)

    run_threads(
        [produce_all, *(lambda i=i: consume(i) for i in range(consumers))], timeout=limit + 30
    )
    for stream in received:
        for index in range(producers):
            numbers = [i for producer, i in stream if producer == index]
            assert numbers == sorted(numbers)
    everything = sorted(item for stream in received for item in stream)
    assert everything == [(p, i) for p in range(producers) for i in range(messages)]


# (producers, consumers, size, messages of each producer) as parking_lot runs them.
SHAPES = [
    (1, 1, 1, 100_000),
    (1, 1, 100, 1_000_000),
    (5, 1, 1, 20_000),
    (1, 5, 1, 100_000),
    (5, 5, 100, 100_000),
    (10, 1, 1, 10_000),
    (10, 1, 100, 10_000),
    (1, 10, 1, 10_000),
    (1, 10, 100, 100_000),
    (10, 10, 1, 50_000),
    (10, 10, 100, 50_000),
]
TIMEOUTS = pytest.mark.parametrize("timeout", [1.0, None], ids=["1s", "forever"])
STYLES = pytest.mark.parametrize("style", ["one", "all"])


@STYLES
@TIMEOUTS
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_queue(shape, style, timeout, run_threads):
    producers, consumers, size, _ = shape
    total = 400 if style == "all" and consumers + producers > 10 else 1000
    run_queue(run_threads, producers, consumers, size, max(10, total // producers), style, timeout)


@pytest.mark.slow
@pytest.mark.stress
@STYLES
@TIMEOUTS
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_queue_at_full_size(shape, style, timeout, run_threads):
    run_queue(run_threads, *shape, style, timeout, limit=900)


# -- signals, fork -----------------------------------------------------------


INTERRUPTED = """
import os, signal, threading, time
from fastsync import Condvar, Mutex
from fastsync import waiters
m, c = Mutex(5), Condvar()

def interrupt():
    while "0 waiting" in repr(c):
        time.sleep(0.001)
    guard = m.lock()  # the wait has let it go
    os.kill(os.getpid(), signal.SIGINT)
    while not waiters(m):
        time.sleep(0.001)
    guard.value = 6
    guard.unlock()

thread = threading.Thread(target=interrupt)
with m as guard:
    thread.start()
    try:
        {attempt}
    except KeyboardInterrupt:
        assert m.is_locked()
        assert guard.value == 6
        print("interrupted")
assert not m.is_locked()
assert c.notify_all() == 0
thread.join()
"""


@pytest.mark.parametrize(
    "attempt", ["c.wait(guard)", "c.wait_for(guard, 60)", "c.wait_while(guard, bool)"]
)
def test_ctrl_c_takes_the_mutex_again(attempt, run_python):
    code = INTERRUPTED.format(attempt=attempt)
    assert run_python("-c", code).stdout.split() == ["interrupted"]


FORKED = """
import os, threading, time, warnings
warnings.simplefilter("ignore")
from fastsync import Condvar, Mutex
m, c = Mutex(5), Condvar()

def wait():
    with m as guard:
        c.wait(guard)

threads = [threading.Thread(target=wait) for _ in range(3)]
for thread in threads:
    thread.start()
while "3 waiting" not in repr(c):
    time.sleep(0.001)
child = os.fork()
if not child:
    try:
        other = Mutex()
        with other as guard:  # nobody waits here with the first
            assert c.wait_for(guard, 0.01) is True
        assert c.notify_one() is False
        assert c.notify_all() == 0
        assert not m.is_locked()
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), c.notify_all())
for thread in threads:
    thread.join()
"""


@FORK
def test_fork_leaves_the_waiters_behind(run_python):
    assert run_python("-c", FORKED).stdout.split() == ["0", "3"]


def test_refuses_to_be_copied():
    import copy
    import pickle

    for function in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError):
            function(Condvar())


def test_a_handler_that_ends_the_guard_and_raises_in_a_wait():
    """Its exception comes out, and the mutex is free: the guard's `with` has ended."""
    m, c = Mutex(0), Condvar()
    guard = m.lock()
    interrupted(lambda: c.wait(guard), first=lambda: guard.__exit__(None, None, None))
    assert not m.is_locked()
    with pytest.raises(RuntimeError):
        guard.value  # noqa: B018
