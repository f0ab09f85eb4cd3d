"""The detector switched on and off at any time, locks that change hands: never a false report.

What the tables say is true: when no thread holds or waits, they are empty, whatever was switched
in between; and no program that ends is told that it deadlocks.
"""

import _thread
import contextlib
import random
import threading
import time

import pytest
from conftest import wait_asleep

import fastsync.threading as drop_in
from fastsync import (
    Condvar,
    FairMutex,
    LazyLock,
    Mutex,
    ReentrantMutex,
    RwLock,
    ShardedLock,
    deadlock,
    profile,
)
from fastsync._watch import holds as tables
from fastsync._watch import origins

DEADLINE = 30.0


@pytest.fixture(autouse=True)
def switched_off():
    yield
    deadlock.disable()
    if profile.running():
        profile.stop()


@pytest.fixture
def raising():
    deadlock.enable(action="raise")


def holds():
    return [(hold[0].kind, *hold[1:]) for hold in tables.snapshot()[0]]


def run(function):
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def join(*threads):
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()


def off_and_on():
    deadlock.disable()
    deadlock.enable()


# -- a call that is under way while it is switched -----------------------------------


def plainly(lock):
    release = lock.release
    lock.acquire()
    return release


# Kind, and what takes it and returns what releases it.
TAKERS = {
    "Lock": (drop_in.Lock, plainly),
    "RLock": (drop_in.RLock, plainly),
    "Condition": (drop_in.Condition, plainly),
    "Mutex": (Mutex, lambda lock: lock.lock().unlock),
    "FairMutex": (FairMutex, lambda lock: lock.lock().unlock),
    "ReentrantMutex": (ReentrantMutex, lambda lock: lock.lock().unlock),
    "read": (RwLock, lambda lock: lock.read().unlock),
    "write": (RwLock, lambda lock: lock.write().unlock),
    "upgradable": (RwLock, lambda lock: lock.upgradable_read().unlock),
    "reader": (RwLock, lambda lock: plainly(lock.reader)),
    "writer": (RwLock, lambda lock: plainly(lock.writer)),
    "sharded": (ShardedLock, lambda lock: lock.write().unlock),
}


@pytest.mark.parametrize("name", TAKERS)
@pytest.mark.parametrize("when", ["blocked", "begins"])
def test_switched_off_and_on_within_a_call(name, when):
    """While it is blocked; and after it saw the detector on, before it noted its wait."""
    kind, take = TAKERS[name]
    lock = kind()
    holding, go_on = threading.Event(), threading.Event()

    def taker():
        release = take(lock)
        holding.set()
        assert go_on.wait(DEADLINE)
        release()

    with lock.write() if kind in (RwLock, ShardedLock) else lock:
        deadlock.enable()
        begins = next_new_lock_calls(deadlock.disable)
        with begins if when == "begins" else contextlib.nullcontext():
            thread = run(taker)
            wait_asleep(thread)
        assert deadlock.enabled() == (when == "blocked")
        off_and_on()
    assert holding.wait(DEADLINE)
    assert holds() == []  # it may not be noted: what happened meanwhile is not known
    go_on.set()
    join(thread)
    assert tables.snapshot() == ([], [])


@contextlib.contextmanager
def next_new_lock_calls(function):
    """The call that first takes a lock which the detector has not seen calls function()."""
    calls = [function]

    def call_once():
        if calls:
            calls.pop()()

    origins.sweep()
    # Records are swept when there are twice as many as were left, and 256.
    known = [drop_in.Lock() for _ in range(origins.count() + 256)]
    for lock in known:
        origins.origin(lock)
    origins.on_sweep(call_once)
    try:
        yield
    finally:
        origins.off_sweep(call_once)
    assert not calls


@pytest.mark.parametrize("kind", [drop_in.Lock, drop_in.RLock])
def test_switched_within_the_wait_of_a_condition(kind):
    deadlock.enable()
    condition = drop_in.Condition(kind())

    def waiter():
        with condition:
            condition.wait()

    thread = run(waiter)
    wait_asleep(thread)
    off_and_on()
    with condition:
        condition.notify_all()
    join(thread)
    assert tables.snapshot() == ([], [])


def test_another_thread_releases_what_was_taken_across_a_switch():
    deadlock.enable()
    lock = drop_in.Lock()
    lock.acquire()
    thread = run(lock.acquire)
    wait_asleep(thread)
    off_and_on()
    lock.release()
    join(thread)
    lock.release()  # what the other thread took
    assert holds() == []


# -- a storm --------------------------------------------------------------------------


class Storm:
    """Threads that take and release in every way, and hold nothing when a round ends."""

    def __init__(self, rng):
        self.rng = rng
        self.monitor, self.condvar = Mutex(0), Condvar()
        self.rlock = drop_in.RLock()
        self.conditions = [
            drop_in.Condition(),
            drop_in.Condition(drop_in.Lock()),
            drop_in.Condition(self.rlock),
        ]
        self.locks = [drop_in.Lock(), self.rlock, self.conditions[0], Mutex(0), FairMutex(0)]
        self.locks += [ReentrantMutex(0), RwLock(0), ShardedLock(0)]

    def step(self, rng):
        lock = rng.choice(self.locks)
        if isinstance(lock, RwLock):
            rng.choice(RW_WAYS)(lock)
        elif isinstance(lock, ShardedLock):
            with lock.read() if rng.random() < 0.7 else lock.write():
                pass
        elif isinstance(lock, (Mutex, FairMutex, ReentrantMutex)):
            rng.choice(MUTEX_WAYS)(lock)
        elif rng.random() < 0.6:
            with lock:
                pass
        elif lock.acquire(timeout=0.0003):
            lock.release()
        rng.choice([self.wait, self.native_wait, self.nested_wait, self.force] + [int] * 12)()

    def wait(self):
        for condition in self.conditions:
            with condition:
                condition.notify_all()
                condition.wait(0.0001)

    def nested_wait(self):
        with self.rlock, self.conditions[2]:
            self.conditions[2].wait(0.0001)

    def native_wait(self):
        with self.monitor as guard:
            self.condvar.notify_one()
            self.condvar.wait_for(guard, 0.0001)

    def force(self):
        LazyLock(int).force()


def dropped_guard(lock):
    guard = lock.lock()
    del guard


def blocks(lock):
    with lock as guard:
        guard.value += 1


def unlocked(lock):
    with lock.lock() as guard, guard.unlocked():
        pass


def mapped(lock):
    lock.read().map(lambda value: value).unlock()


def upgraded(lock):
    guard = lock.upgradable_read()
    writing = guard.try_upgrade_for(0.0003)
    (guard if writing is None else writing.downgrade()).unlock()


def view(which):
    def run(lock):
        with getattr(lock, which):
            pass

    return run


MUTEX_WAYS = [dropped_guard, blocks, unlocked, lambda lock: lock.lock().unlock()]
RW_WAYS = [
    mapped,
    upgraded,
    view("reader"),
    view("writer"),
    lambda lock: lock.upgradable_read().downgrade().unlock(),
    lambda lock: lock.write().downgrade_to_upgradable().unlock(),
    lambda lock: lock.upgradable_read().with_upgraded(lambda guard: None),
]


JOIN = 9  # FS_JOIN of _watch/holds.pxd: the way of a wait for a thread's end


@pytest.mark.stress
def test_a_storm_that_switches_leaves_nothing(run_threads):
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    storm = Storm(rng)
    workers = 3
    gate = threading.Barrier(workers + 1, timeout=DEADLINE)
    ends = time.monotonic() + 4.0
    going = [True]

    def work(number):
        own = random.Random(f"{seed} {number}")
        while gate.wait() >= 0 and going[0]:
            for _ in range(6):
                storm.step(own)
            gate.wait()

    def switch():
        while going[0]:
            deadlock.enable(rng.choice([None, "raise"]))
            gate.wait()
            for _ in range(rng.randrange(1, 8)):
                rng.choice([deadlock.disable, off_and_on, start_profile, stop_profile])()
            deadlock.disable()
            deadlock.enable(rng.choice([None, "raise"]))
            gate.wait()
            held, waiting = tables.snapshot()
            assert held == []
            # The thread that runs the test joins those of the storm.
            assert [wait for wait in waiting if wait[3] != JOIN] == []
            going[0] = time.monotonic() < ends
            deadlock.disable()
        gate.wait()

    run_threads([switch] + [lambda number=number: work(number) for number in range(workers)])


def start_profile():
    if not profile.running():
        profile.start()


def stop_profile():
    if profile.running():
        profile.stop()


# -- locks that change hands ------------------------------------------------------------


def test_a_lock_that_changes_hands_is_remembered_across_switches(raising):
    lock = drop_in.Lock()
    lock.acquire()
    join(run(lock.release))
    off_and_on()
    with lock:
        assert holds() == []


def in_another_thread(function):
    results = []
    join(run(lambda: results.append(function())))
    return results[0]


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (lambda: Mutex([1]).lock(), lambda guard: guard.map(lambda value: value[0])),
        (lambda: RwLock().write(), lambda guard: guard.downgrade()),
        (lambda: RwLock().upgradable_read(), lambda guard: guard.upgrade()),
        (lambda: RwLock().read(), lambda guard: guard.__enter__()),
        (lambda: Mutex().lock(), lambda guard: guard.__enter__()),
    ],
)
def test_a_guard_that_another_thread_changes(make, change, raising):
    guard = make()
    in_another_thread(lambda: change(guard)).unlock()
    assert holds() == []
    guard = make()
    in_another_thread(change(guard).unlock)
    assert holds() == []


def test_a_block_that_another_thread_leaves_is_no_deadlock(raising):
    """As the generators that a web framework enters in one thread and leaves in another."""
    lock = drop_in.Lock()
    passed = []

    @contextlib.contextmanager
    def locked():
        with lock:
            yield

    manager = locked()

    def enters_and_waits():
        manager.__enter__()
        entered.set()
        with lock:
            passed.append(True)

    entered = threading.Event()
    thread = run(enters_and_waits)
    assert entered.wait(DEADLINE)
    wait_asleep(thread)
    manager.__exit__(None, None, None)
    join(thread)
    assert passed == [True]


def test_a_thread_that_has_not_begun_yet_may_release(raising):
    """The handshake of old: acquired twice, released by a thread that is just being started."""
    for _ in range(300):
        lock = _thread.allocate_lock() if _thread.allocate_lock is drop_in.Lock else drop_in.Lock()
        lock.acquire()
        _thread.start_new_thread(lock.release, ())
        lock.acquire()
        lock.release()


def test_a_signal_handler_may_release(run_python):
    code = """
import signal
import fastsync.threading as drop_in
from fastsync import deadlock
deadlock.enable(action="raise")
lock = drop_in.Lock()
lock.acquire()
signal.signal(signal.SIGALRM, lambda *_: lock.release())
signal.setitimer(signal.ITIMER_REAL, 0.2)
lock.acquire()
print("passed")
"""
    if not hasattr(__import__("signal"), "setitimer"):
        pytest.skip("no timers here")
    assert run_python("-c", code).stdout == "passed\n"


# -- ways of holding ----------------------------------------------------------------------


def test_what_is_noted_follows_downgrades_and_upgrades():
    exclusive, shared, upgradable = 1, 2, 3
    deadlock.enable()
    rw = RwLock()

    def ways():
        return [hold[3] for hold in holds()]

    guard = rw.write()
    assert ways() == [exclusive]
    guard = guard.downgrade_to_upgradable()
    assert ways() == [upgradable]
    guard = guard.upgrade()
    assert ways() == [exclusive]
    guard = guard.downgrade()
    assert ways() == [shared]
    guard.unlock()
    assert ways() == []
    guard = rw.upgradable_read()
    guard.with_upgraded(lambda _: ways() == [exclusive] or pytest.fail(str(ways())))
    assert ways() == [upgradable]
    guard.downgrade().unlock()
    assert ways() == []


def test_levels_of_views_and_blocks():
    deadlock.enable()
    rw = RwLock()
    with rw.reader:
        assert [hold[3] for hold in holds()] == [2 | 16]
        rw.reader.acquire()
        # One of the two is not ended by a block, so it is not said of either.
        assert [hold[3] for hold in holds()] == [2]
        rw.reader.release()
        assert len(holds()) == 1
    assert holds() == []


# -- without memory ---------------------------------------------------------------------


@pytest.mark.parametrize("name", TAKERS)
def test_without_memory_nothing_stays_behind(name):
    testcapi = pytest.importorskip("_testcapi")
    kind, take = TAKERS[name]
    lock = kind()
    for step in ("take", "release"):
        for start in range(1, 12):
            release = None
            deadlock.enable(action="raise")
            with drop_in.RLock():  # so that there is an order to note
                try:
                    if step == "take":
                        testcapi.set_nomemory(start, 0)
                    release = take(lock)
                    if step == "release":
                        testcapi.set_nomemory(start, 0)
                    release()
                except MemoryError:
                    testcapi.remove_mem_hooks()
                    with contextlib.suppress(RuntimeError):
                        if release is not None:
                            release()
                finally:
                    testcapi.remove_mem_hooks()
            assert holds() == []
            deadlock.disable()
