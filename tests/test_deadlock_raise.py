"""The deadlock detector's truth: whose a hold is; calls that raise in place of waiting for ever."""

import contextlib
import os
import queue
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import fastsync.queue as drop_in_queue
import fastsync.threading as drop_in
from fastsync import (
    FairMutex,
    LazyLock,
    Mutex,
    Once,
    OnceLock,
    ReentrantMutex,
    RwLock,
    ShardedLock,
    deadlock,
    lazy_property,
    once,
    profile,
)
from fastsync._watch import holds as tables
from fastsync._watch import orders, origins

DEADLINE = 30.0


@pytest.fixture
def detecting():
    deadlock.enable()
    yield
    deadlock.disable()


@pytest.fixture
def raising():
    deadlock.enable(action="raise")
    yield
    deadlock.disable()


def outcome_of(function):
    """Run it in a thread: what it raised, or "passed"."""
    outcomes = []

    def run():
        try:
            function()
            outcomes.append("passed")
        except RuntimeError as error:
            outcomes.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    assert not thread.is_alive(), "it waits for ever"
    return outcomes[0]


def holds():
    return tables.snapshot()[0]


# -- whose a hold is ---------------------------------------------------------------


def test_a_guard_older_than_the_detector_leaves_nothing():
    rw, m = RwLock(), Mutex()
    upgradable, guard = rw.upgradable_read(), m.lock()
    deadlock.enable()
    try:
        upgradable.upgrade().unlock()
        guard.unlock()
        assert holds() == []
    finally:
        deadlock.disable()


def test_a_guard_that_another_thread_ends_is_forgotten(detecting):
    for make in (Mutex().lock, FairMutex().lock, RwLock().read, RwLock().write):
        guard = make()
        assert len(holds()) == 1
        assert outcome_of(guard.unlock) == "passed"
        assert holds() == []


def test_each_way_of_holding_is_its_own(detecting):
    rw = RwLock()
    first, second = rw.read(), rw.upgradable_read()
    assert sorted(hold[3] for hold in holds()) == [2, 3]
    second.unlock()
    assert [hold[3] for hold in holds()] == [2]
    third = rw.upgradable_read()
    first.unlock()
    assert [hold[3] for hold in holds()] == [3]
    written = third.upgrade()
    assert [hold[3] for hold in holds()] == [1]
    read = written.downgrade()
    assert [hold[3] for hold in holds()] == [2]
    mapped = read.map(lambda value: value)
    assert [hold[3] for hold in holds()] == [2]
    mapped.unlock()
    assert holds() == []


def test_levels_are_counted(detecting):
    lock = drop_in.RLock()
    for _ in range(3):
        lock.acquire()
    for left in (1, 1, 0):
        lock.release()
        assert len(holds()) == left
    condition = drop_in.Condition()
    with condition, condition:
        condition.wait(0.001)
        assert len(holds()) == 1
    assert holds() == []


def test_leaked_and_forced(detecting):
    m = Mutex()
    m.lock().leak()
    assert holds() == []
    m.force_unlock()
    with m:
        assert len(holds()) == 1
    assert holds() == []


def test_a_lock_released_before_its_taker_could_note_it(detecting):
    """Another thread releases a Lock at once, again and again: no hold stays behind."""
    lock = drop_in.Lock()
    rounds = 300

    def take():
        for _ in range(rounds):
            lock.acquire()

    def release():
        for _ in range(rounds):
            while not lock.locked():
                time.sleep(0)
            lock.release()

    threads = [threading.Thread(target=function, daemon=True) for function in (take, release)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    assert holds() == []


# -- memory, signals -----------------------------------------------------------------


def test_memory_is_bounded_by_the_locks_that_live(detecting):
    outer = drop_in.Lock()
    before = origins.count()
    for _ in range(5000):
        with outer, drop_in.Lock():
            pass
    left = drop_in.Lock()
    left.acquire()
    held = [drop_in.Lock() for _ in range(10)]
    for lock in held:
        lock.acquire()
    del held, lock  # ended while they are held
    origins.sweep()
    assert origins.count() <= before + 2
    assert sum(map(len, orders.edges().values())) <= 1
    assert len(holds()) <= 2
    left.release()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")
def test_no_signal_is_swallowed_while_an_order_is_noted(detecting):
    raised = caught = 0

    def handler(*_):
        nonlocal raised
        raised += 1
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handler)
    outer = Mutex()
    try:
        for _ in range(100):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0005)
                while True:
                    with outer, Mutex():
                        pass
            except KeyboardInterrupt:
                caught += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert raised == caught == 100


TRY_IN_HANDLER = """
import os, signal, sys, threading, time
import fastsync.threading as drop_in
from fastsync import RwLock, deadlock
deadlock.enable()
kept = []
kinds = {
    "Lock": (drop_in.Lock, lambda l: l.acquire(), lambda l: l.acquire(False)),
    "RLock": (drop_in.RLock, lambda l: l.acquire(), lambda l: l.acquire(False)),
    "RwLock": (RwLock, lambda l: kept.append(l.write()), lambda l: l.try_write()),
}
make, take, attempt = kinds[sys.argv[1]]
a, b = make(), make()
got, handled = threading.Event(), []
signal.signal(signal.SIGUSR1, lambda *_: handled.append(attempt(b)))

def other():
    take(b)
    got.set()
    take(a)

def look():
    while not deadlock.check():
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGUSR1)
    while not handled:
        time.sleep(0.001)
    while not deadlock.check():
        time.sleep(0.001)
    print("found again", flush=True)
    os._exit(0)

take(a)
threading.Thread(target=other, daemon=True).start()
got.wait()
threading.Thread(target=look, daemon=True).start()
take(b)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no such signal here")
@pytest.mark.parametrize("kind", ["Lock", "RLock", "RwLock"])
def test_a_try_in_a_signal_handler_hides_nothing(kind, run_python):
    assert run_python("-c", TRY_IN_HANDLER, kind).stdout == "found again\n"


# -- raising ---------------------------------------------------------------------------


def opposite_orders(take_a, take_b):
    """Two threads in both orders: what they raised."""
    meet = drop_in.Barrier(2)
    errors = []

    def run(first, second):
        try:
            with first():
                meet.wait()
                with second():
                    pass
        except deadlock.DeadlockError as error:
            errors.append(error)

    threads = [
        threading.Thread(target=run, args=pair, daemon=True)
        for pair in ((take_a, take_b), (take_b, take_a))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    return errors


KINDS = [drop_in.Lock, drop_in.RLock, drop_in.Condition, Mutex, FairMutex, ReentrantMutex]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_opposite_orders(kind, raising):
    a, b = kind(), kind()
    (error,) = opposite_orders(lambda: a, lambda: b)
    assert isinstance(error, RuntimeError)
    assert error.cycle.certain
    if kind is drop_in.Condition:
        a, b = a._lock, b._lock
    assert {id(thread.holds) for thread in error.cycle} == {id(a), id(b)}
    assert all(thread.stack and thread.took for thread in error.cycle)
    text = str(error)
    assert f"{type(a).__name__} made at {__file__}:" in text
    assert "with second():" in text
    assert "taken at" in text
    assert deadlock.check() == []
    with a, b:  # as if nothing had happened
        pass


def test_opposite_orders_of_reader_writer_locks(raising):
    a, b = RwLock(), ShardedLock()
    assert len(opposite_orders(a.write, b.write)) == 1
    assert len(opposite_orders(a.upgradable_read, b.write)) == 1
    assert opposite_orders(a.read, b.read) == []


@pytest.mark.parametrize("kind", [queue.Queue, drop_in_queue.Queue])
def test_opposite_orders_of_a_queue_and_a_lock(kind, raising):
    """A queue's own lock, ours or one that the program put there."""
    waiting, lock = kind(), drop_in.Lock()
    if kind is queue.Queue:
        waiting.mutex = drop_in.Lock()
        waiting.not_empty = drop_in.Condition(waiting.mutex)
    (error,) = opposite_orders(lambda: waiting.mutex, lambda: lock)
    assert {id(thread.holds) for thread in error.cycle} == {id(waiting.mutex), id(lock)}
    (error,) = opposite_orders(lambda: waiting.not_empty, lambda: lock)
    assert error.cycle.certain


def again(first, second):
    def run():
        with first():
            with second():
                pass

    return run


def test_a_thread_in_its_own_way(raising):
    rw, lock, m = RwLock(), drop_in.Lock(), Mutex()
    condition = drop_in.Condition(drop_in.Lock())
    cases = {
        "read in write": again(rw.write, rw.read),
        "write in read": again(rw.read, rw.write),
        "second upgradable": again(rw.upgradable_read, rw.upgradable_read),
        "Lock": again(lambda: lock, lambda: lock),
        "Mutex": again(lambda: m, lambda: m),
        "Condition": again(lambda: condition, lambda: condition),
    }
    for name, function in cases.items():
        assert isinstance(outcome_of(function), deadlock.DeadlockError), name

    def upgrade_beside_its_own_read():
        with rw.read(), rw.upgradable_read() as guard:
            guard.upgrade()

    assert isinstance(outcome_of(upgrade_beside_its_own_read), deadlock.DeadlockError)
    assert not rw.is_locked()
    assert outcome_of(again(rw.read, rw.read_recursive)) == "passed"


def test_initializations_that_wait_for_each_other(raising):
    for kind in (LazyLock, OnceLock, Once):
        meet = drop_in.Barrier(2)
        made = {}

        def ask(name, kind=kind, made=made):
            if kind is LazyLock:
                return made[name].force()
            if kind is OnceLock:
                return made[name].get_or_init(lambda: make(name))
            return made[name].call_once(lambda: make(name))

        def make(name, meet=meet, ask=ask):
            if meet.n_waiting < 2 and not meet.broken:
                meet.wait()
                meet.abort()
            return ask("b" if name == "a" else "a")

        for name in "ab":
            made[name] = (
                LazyLock(lambda name=name, make=make: make(name)) if kind is LazyLock else kind()
            )
        errors = []

        def run(name, ask=ask, errors=errors):
            try:
                ask(name)
            except RuntimeError as error:
                errors.append(error)

        threads = [threading.Thread(target=run, args=(name,), daemon=True) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
            assert not thread.is_alive()
        assert errors, kind


def initialized_once(make):
    once_only = Once()
    return lambda: once_only.call_once(make)


def initialized_lock(make):
    lock = OnceLock()
    return lambda: lock.get_or_init(make)


def initialized_attribute(make):
    class Holder:
        value = lazy_property(lambda self: make())

    holder = Holder()
    return lambda: holder.value


INITIALIZATIONS = {
    "Once": initialized_once,
    "OnceLock": initialized_lock,
    "LazyLock": lambda make: LazyLock(make).force,
    "once": once,
    "lazy_property": initialized_attribute,
}


@pytest.mark.parametrize("kind", INITIALIZATIONS)
def test_an_initialization_in_a_circle_with_a_lock(kind, raising):
    lock = drop_in.Lock()
    begun, held = threading.Event(), threading.Event()
    errors = []

    def make():
        begun.set()
        held.wait(DEADLINE)
        with lock:
            return 1

    ask = INITIALIZATIONS[kind](make)

    def hold():
        begun.wait(DEADLINE)
        with lock:
            held.set()
            ask()

    def run(function):
        try:
            function()
        except RuntimeError as error:  # also what comes of an initialization that has failed
            errors.append(error)

    threads = [threading.Thread(target=run, args=[f], daemon=True) for f in (ask, hold)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    circles = [error for error in errors if isinstance(error, deadlock.DeadlockError)]
    (error, *_) = [error for error in circles if len(error.cycle) == 2]
    assert f"waits for Lock made at {__file__}" in str(error)


def test_a_queue_used_under_its_own_lock(raising):
    waiting = drop_in_queue.Queue()
    waiting.put(1)
    calls = [lambda: waiting.put(2), waiting.get, waiting.qsize, waiting.task_done, waiting.join]
    for lock in (waiting.mutex, waiting.not_empty):
        for call in calls:
            assert isinstance(
                outcome_of(again(lambda k=lock: k, call_as_block(call))), RuntimeError
            )
    assert waiting.qsize() == 1
    assert waiting.unfinished_tasks == 1


def call_as_block(function):
    def block():
        function()
        return contextlib.nullcontext()

    return block


def test_threads_that_join_each_other(raising):
    errors, threads = [], []
    both = threading.Event()

    def join(other):
        both.wait(DEADLINE)
        try:
            threads[other].join()
        except deadlock.DeadlockError as error:
            errors.append(error)

    threads += [threading.Thread(target=join, args=[other], daemon=True) for other in (1, 0)]
    for thread in threads:
        thread.start()
    both.set()
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    (error,) = errors
    assert {thread.waits_for for thread in error.cycle} == set(threads)


def test_an_executor_that_is_shut_down_under_a_lock_of_its_task(raising):
    lock = drop_in.Lock()
    errors = []

    def note(function):
        try:
            function()
        except deadlock.DeadlockError as error:
            errors.append(error)

    def take():
        with lock:
            pass

    def shut_down():
        executor = ThreadPoolExecutor(1)
        with lock:
            executor.submit(note, take)
            executor.shutdown()

    assert outcome_of(lambda: note(shut_down)) == "passed"
    (error,) = errors
    assert len(error.cycle) == 2


def test_join_in_a_circle_with_a_lock(raising):
    lock = drop_in.Lock()
    errors = []

    def work():
        try:
            with lock:
                pass
        except deadlock.DeadlockError as error:
            errors.append(error)

    def starts_and_joins():
        with lock:
            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            try:
                thread.join()
            except deadlock.DeadlockError as error:
                errors.append(error)
        thread.join()

    assert outcome_of(starts_and_joins) == "passed"
    (error,) = errors
    assert any(isinstance(thread.waits_for, threading.Thread) for thread in error.cycle)
    assert "the end of the thread" in str(error)


def test_a_lock_used_as_a_latch_raises_nothing(raising):
    """Held by acquire(), waited for by the same thread, released by another, for the first time."""

    def latch():
        lock = drop_in.Lock()
        lock.acquire()
        thread = threading.Thread(target=lambda: (time.sleep(0.02), lock.release()), daemon=True)
        thread.start()
        lock.acquire()
        thread.join()

    assert outcome_of(latch) == "passed"


def test_gate_locks_keep_orders_apart(detecting):
    gate, a, b = Mutex(), Mutex(), Mutex()
    for first, second in ((a, b), (b, a)):
        with gate, first, second:
            pass
    assert deadlock.order_violations() == []
    with b, a:  # not under the gate, but the other order is
        pass
    (violation,) = deadlock.order_violations()
    assert {id(lock) for lock in violation.locks} == {id(a), id(b)}
    assert "help: take them in one order" in deadlock.format_violation(violation)


def test_suspicions(detecting, wait_until):
    permits = [drop_in.Semaphore(1), drop_in.Semaphore(1)]
    meet = drop_in.Barrier(2)

    def take(first, second):
        with first:
            meet.wait()
            with second:
                pass

    threads = [
        threading.Thread(target=take, args=pair, daemon=True) for pair in (permits, permits[::-1])
    ]
    for thread in threads:
        thread.start()
    (cycle,) = wait_until(lambda: deadlock.check(suspicions=True))
    assert not cycle.certain
    assert len(cycle) == 2
    assert "perhaps a deadlock" in deadlock.format_cycle(cycle)
    assert deadlock.check() == []
    permits[0].release()
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()


def test_nonsense():
    with pytest.raises(ValueError):
        deadlock.enable(action="explode")
    with pytest.raises(ValueError):
        deadlock.hang_report(0)
    assert not deadlock.enabled()
    assert threading.Thread.join.__module__ == "threading"


# -- the command line ----------------------------------------------------------------------

APP = """
import threading
a, b = threading.Lock(), threading.RLock()
meet = threading.Barrier(2)
errors = []

def take(x, y):
    try:
        with x:
            meet.wait()
            with y:
                pass
    except RuntimeError as error:
        errors.append(error)

threads = [threading.Thread(target=take, args=pair) for pair in ((a, b), (b, a))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(errors), type(errors[0]).__name__)
"""

HANGS = """
import os, sys, threading

class Stderr:
    def write(self, text):
        sys.__stderr__.write(text)
        if "MainThread" in text:
            sys.__stderr__.flush()
            os._exit(0)

    def flush(self):
        pass

sys.stderr = Stderr()
never = threading.Event()
never.wait()
"""


def test_command_line_raises(run_python, tmp_path):
    app = tmp_path / "app.py"
    app.write_text(APP)
    done = run_python("-m", "fastsync", "--deadlocks=raise", app)
    assert done.stdout == "1 DeadlockError\n"
    refused = run_python("-m", "fastsync", "--deadlocks=shout", app, check=False)
    assert refused.returncode == 2


def test_command_line_reports_a_hang(run_python, tmp_path):
    app = tmp_path / "app.py"
    app.write_text(HANGS)
    done = run_python("-m", "fastsync", "--hang-report", "1", app)
    assert "nothing has moved for" in done.stderr
    assert "waits for Event made at" in done.stderr
    assert "never.wait()" in done.stderr
    for value in ("0", "soon"):
        refused = run_python("-m", "fastsync", f"--hang-report={value}", app, check=False)
        assert refused.returncode == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_the_child_of_a_fork_knows_only_itself(run_python):
    code = """
import os, threading, warnings
warnings.simplefilter("ignore")
import fastsync.threading as drop_in
from fastsync import Mutex, deadlock
from fastsync._watch import holds
deadlock.enable(action="raise")
a, b = drop_in.Lock(), Mutex()
ready, done = threading.Event(), threading.Event()
def hold():
    with b:
        ready.set()
        done.wait()
thread = threading.Thread(target=hold)
thread.start()
ready.wait()
with a:
    child = os.fork()
    if not child:
        assert [hold[0].lock for hold in holds.snapshot()[0]] == [a]
        try:
            with a:
                os._exit(2)
        except deadlock.DeadlockError:
            os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
done.set()
thread.join()
"""
    assert run_python("-c", code).stdout == "0\n"


NOBODY_LEFT = """
import sys, threading, time
import fastsync.threading as drop_in
from fastsync import channel, deadlock, queue
from fastsync._watch import holds
deadlock.enable(action="raise")
lock = drop_in.Lock()
empty, full = queue.SimpleQueue(), queue.Queue(1)
full.put(1)
sender, receiver = channel.bounded(0)
idle = {
    "get": empty.get,
    "put": lambda: full.put(2),
    "join": full.join,
    "recv": receiver.recv,
    "select": lambda: channel.select(receiver, empty),
}
for which in sys.argv[1:]:
    threading.Thread(target=idle[which], daemon=True).start()
while len(holds.snapshot()[1]) < len(sys.argv) - 1:
    time.sleep(0.001)
errors = []

def work():
    lock.acquire()
    try:
        lock.acquire()
    except deadlock.DeadlockError as error:
        errors.append(error)

thread = threading.Thread(target=work, daemon=True)
thread.start()
while len(holds.snapshot()[1]) < len(sys.argv):
    time.sleep(0.001)
time.sleep(0.1)
print(len(errors))
thread.join()  # now no thread is left that could release it
print(len(errors))
"""


@pytest.mark.parametrize("idle", [(), ("get",), ("put", "join"), ("recv",), ("select",)])
def test_it_raises_once_no_thread_is_left_that_could_release(idle, run_python):
    """As long as another thread runs, an acquire() in its own way may be a latch; not those that
    wait for a queue or a channel themselves."""
    assert run_python("-c", NOBODY_LEFT, *idle).stdout.split() == ["0", "1"]


def test_a_report_says_which_queue_a_thread_waits_for(detecting, wait_until):
    waiting = drop_in_queue.Queue()
    profile.name(waiting, "orders")
    thread = threading.Thread(target=waiting.get, name="consumer", daemon=True)
    thread.start()
    wait_until(lambda: tables.snapshot()[1])
    assert f"waits for Queue 'orders' made at {__file__}" in deadlock.format_threads()
    assert deadlock.check() == []
    waiting.put(1)
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert tables.snapshot()[1] == []
