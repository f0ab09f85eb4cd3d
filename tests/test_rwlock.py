"""RwLock, its guards and its views, on their own and as Rust's suites have it."""

import ctypes
import os
import random
import signal
import struct
import sys
import threading
import time
import weakref
from contextlib import ExitStack, contextmanager

import pytest
from conftest import DEADLINE, IN_CHILD, background, interrupted, wait_until

import fastsync.threading
from fastsync.objects.readwrite import LockView, MappedReadGuard, MappedWriteGuard, ReadGuard
from fastsync.objects.rwlock import RwLock, UpgradableReadGuard, WriteGuard
from fastsync.objects.sharded import ShardedLock
from fastsync.raw.parking import parked_total

LINUX = sys.platform == "linux"


class Interrupted(BaseException):
    """What the signal handlers here raise."""


@contextmanager
def in_thread(function):
    """Run a function beside the block; join it after the block and give what it returned."""
    result, errors = [], []

    def run():
        try:
            result.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.result = result
    thread.start()
    yield thread
    thread.join(30)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


def asleep(thread):
    """Whether a thread sleeps in the kernel."""
    if not thread.native_id:
        return False
    if not LINUX:
        time.sleep(0.05)
        return True
    try:
        with open(f"/proc/self/task/{thread.native_id}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "S"
    except OSError:
        return False


def word_of(lock):
    """The state word of a free RwLock, as something that can be read and written."""
    size = type(lock).__basicsize__

    def words():
        raw = ctypes.string_at(id(lock), size)
        return [
            struct.unpack_from("P", raw, at)[0]
            for at in range(0, size, ctypes.sizeof(ctypes.c_size_t))
        ]

    free = words()
    lock.reader.acquire()
    read = words()
    lock.reader.release()
    [place] = [i for i, (a, b) in enumerate(zip(free, read, strict=True)) if (a, b) == (0, 16)]
    return ctypes.c_size_t.from_address(id(lock) + place * ctypes.sizeof(ctypes.c_size_t))


def words_of(lock, way):
    """The words of a lock that change when it is held in a way, as numbers that can be written."""
    size = ctypes.sizeof(ctypes.c_size_t)
    places = range(0, type(lock).__basicsize__, size)
    words = [ctypes.c_size_t.from_address(id(lock) + place) for place in places]
    free = [word.value for word in words]
    guard = getattr(lock, way)()
    held = [word.value for word in words]
    guard.unlock()
    found = [
        word
        for word, a, b in zip(words, free, held, strict=True)
        if (a, b) in ((0, 16), (0, 8), (0, 20))
    ]
    assert found
    return found


# How each way of holding the lock is taken and tried.
WAYS = ["read", "read_recursive", "write", "upgradable_read"]


def test_smoke():
    lock = RwLock(7)
    lock.read().unlock()
    lock.write().unlock()
    first, second = lock.read(), lock.read()
    assert (first.value, second.value) == (7, 7)
    first.unlock()
    second.unlock()
    lock.upgradable_read().unlock()
    lock.write().unlock()
    assert not lock.is_locked()


@pytest.mark.parametrize(
    ("held", "possible"),
    [
        ("read", {"read", "read_recursive", "upgradable_read"}),
        ("read_recursive", {"read", "read_recursive", "upgradable_read"}),
        ("write", set()),
        ("upgradable_read", {"read", "read_recursive"}),
    ],
)
def test_what_may_be_held_beside_what(held, possible, run_threads):
    lock = RwLock(1)
    guard = getattr(lock, held)()

    def attempts():
        for way in WAYS:
            forms = [
                getattr(lock, f"try_{way}")(),
                getattr(lock, f"try_{way}_for")(0.001),
                getattr(lock, f"try_{way}_until")(time.monotonic() + 0.001),
            ]
            if way == "upgradable_read" and way in possible:
                # The first of them is in the way of the others.
                assert [form is not None for form in forms] == [True, False, False]
            else:
                assert all((form is not None) == (way in possible) for form in forms), way
            for form in forms:
                if form is not None:
                    form.unlock()

    run_threads([attempts])
    attempts()
    assert lock.is_locked()
    assert lock.is_locked_exclusive() == (held == "write")
    guard.unlock()
    assert not lock.is_locked()
    for way in WAYS:
        getattr(lock, f"try_{way}")().unlock()


def test_guard_types():
    lock = RwLock({"a": 1})
    for way, kind in zip(
        WAYS, [ReadGuard, ReadGuard, WriteGuard, UpgradableReadGuard], strict=True
    ):
        with getattr(lock, way)() as guard:
            assert type(guard) is kind
            assert guard.rwlock is lock
            assert guard.value == {"a": 1}


def test_value_is_set_under_write_guards_only():
    lock = RwLock()
    assert lock.into_inner() is None
    with lock.write() as guard:
        guard.value = 5
        guard.value += 1
    for way in ("read", "upgradable_read"):
        with getattr(lock, way)() as guard, pytest.raises(AttributeError):
            guard.value = 7
    assert lock.into_inner() == 6


def test_into_inner():
    lock = RwLock([1])
    for way in WAYS:
        with getattr(lock, way)(), pytest.raises(RuntimeError):
            lock.into_inner()
    assert lock.into_inner() == [1]
    assert lock.into_inner() is lock.read().value


USES = {
    "value": lambda g: g.value,
    "set": lambda g: setattr(g, "value", 1),
    "unlock": lambda g: g.unlock(),
    "unlock_fair": lambda g: g.unlock_fair(),
    "enter": lambda g: g.__enter__(),
    "rwlock": lambda g: g.rwlock,
    "bump": lambda g: g.bump(),
    "unlocked": lambda g: g.unlocked().__enter__(),
    "unlocked_fair": lambda g: g.unlocked_fair().__enter__(),
    "map": lambda g: g.map(lambda v: v),
    "try_map": lambda g: g.try_map(lambda v: None),
    "downgrade": lambda g: g.downgrade(),
    "downgrade_to_upgradable": lambda g: g.downgrade_to_upgradable(),
    "upgrade": lambda g: g.upgrade(),
    "try_upgrade": lambda g: g.try_upgrade(),
    "try_upgrade_for": lambda g: g.try_upgrade_for(1),
    "try_upgrade_until": lambda g: g.try_upgrade_until(0),
    "with_upgraded": lambda g: g.with_upgraded(lambda w: 1),
}
ENDS = {
    "unlock": lambda g: g.unlock(),
    "unlock_fair": lambda g: g.unlock_fair(),
    "with": lambda g: g.__exit__(None, None, None),
}
MAKERS = {
    "read": lambda lock: lock.read(),
    "write": lambda lock: lock.write(),
    "upgradable": lambda lock: lock.upgradable_read(),
    "mapped read": lambda lock: lock.read().map(lambda v: v[0]),
    "mapped write": lambda lock: lock.write().map(lambda v: v[0]),
    "mapped whole": lambda lock: lock.write().map(lambda v: v),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("maker", MAKERS)
def test_a_dead_guard_refuses_every_use(maker, end):
    lock = RwLock([0])
    guard = MAKERS[maker](lock)
    ENDS[end](guard)
    assert not lock.is_locked()
    others = [None, lock.read(), lock.read()]
    for other in others:  # whatever has happened to the lock since
        for name, use in USES.items():
            has = hasattr(type(guard), {"set": "value", "enter": "unlock"}.get(name, name))
            if name == "set" and not maker.startswith(("write", "mapped w")):
                continue
            if has:
                with pytest.raises(RuntimeError):
                    use(guard)
        guard.__exit__(None, None, None)
        assert "dead" in repr(guard)
        assert lock.is_locked() == (other is not None or others[1] is not None)
        break
    for other in others[1:]:
        other.unlock()
    assert not lock.is_locked()


def test_guards_are_made_by_locks_only():
    for kind in (
        ReadGuard,
        WriteGuard,
        UpgradableReadGuard,
        MappedReadGuard,
        MappedWriteGuard,
        LockView,
    ):
        for make in (kind, lambda: object.__new__(kind), lambda: kind.__new__(kind)):  # noqa: B023
            with pytest.raises(TypeError):
                make()


def test_a_dropped_guard_unlocks():
    lock = RwLock(1)
    for way in WAYS:
        guard = getattr(lock, way)()
        assert lock.is_locked()
        del guard
        assert not lock.is_locked()
    lock.write().map(lambda v: v)
    assert not lock.is_locked()


def test_leaving_a_block_whose_body_unlocked_releases_no_other_hold():
    lock = RwLock(1)
    with lock.read() as guard:
        guard.unlock()
        other = lock.write()
    assert lock.is_locked_exclusive()
    other.unlock()
    with lock.write() as guard:
        reader = guard.downgrade()
    assert lock.is_locked()
    assert lock.try_write() is None
    reader.unlock()
    with lock.write() as guard:
        part = guard.map(lambda v: v)
    assert lock.is_locked_exclusive()
    part.unlock()


@pytest.mark.parametrize("maker", MAKERS)
def test_two_threads_release_a_guard_exactly_once(maker, run_threads):
    lock = RwLock([0])
    for _ in range(200):
        extra = lock.read() if "write" not in maker and "whole" not in maker else None
        guard = MAKERS[maker](lock)
        gate = threading.Barrier(2)

        def release(i, guard=guard, gate=gate):
            gate.wait()
            try:
                guard.unlock()
            except RuntimeError:
                return 0
            return 1

        assert sum(run_threads(release, count=2)) == 1
        assert lock.is_locked() == (extra is not None)
        if extra is not None:
            extra.unlock()


def test_value_of_a_misused_guard_is_safe_to_read_and_set(run_threads):
    lock = RwLock([0])
    guard = lock.write()

    def write():
        for _ in range(20_000):
            guard.value = [object()]

    def read():
        return sum(len(guard.value) for _ in range(20_000))

    assert run_threads([write, read, write, read])[1::2] == [20_000] * 2
    guard.unlock()


# -- from one way to another -------------------------------------------------


def test_downgrade_lets_readers_in_and_writers_not():
    lock = RwLock(1)
    guard = lock.write()
    guard.value = 2
    reader = guard.downgrade()
    assert type(reader) is ReadGuard
    assert reader.value == 2
    assert lock.try_write() is None
    lock.try_read().unlock()
    lock.try_upgradable_read().unlock()
    with pytest.raises(RuntimeError):
        guard.unlock()
    reader.unlock()
    assert not lock.is_locked()


@pytest.mark.thread_unsafe(reason="counts all who are parked")
def test_a_downgrade_to_upgradable_lets_readers_in_past_a_waiting_writer():
    """They waited behind the writer, which cannot come in yet; nobody else would wake them."""
    lock = RwLock(0)
    guard = lock.write()
    with in_thread(lambda: lock.write().unlock()) as writer:
        wait_until(lambda: parked_total() == 1)
        with in_thread(lambda: lock.read().unlock()) as reader:
            wait_until(lambda: parked_total() == 2)
            guard = guard.downgrade_to_upgradable()
            reader.join(20)
            inside = not reader.is_alive()
            alone = writer.is_alive()
            guard.unlock()
    assert inside and alone


def test_a_downgrade_lets_the_next_upgradable_reader_in():
    """It waited for the one that there may be; nobody else would wake it."""
    lock = RwLock(0)
    guard = lock.upgradable_read()
    with in_thread(lambda: lock.upgradable_read().unlock()) as other:
        wait_until(lambda: asleep(other))
        reader = guard.downgrade()
        other.join(20)
        inside = not other.is_alive()
        reader.unlock()
    assert inside


def test_downgrade_to_upgradable_and_on():
    lock = RwLock(1)
    guard = lock.write().downgrade_to_upgradable()
    assert type(guard) is UpgradableReadGuard
    assert lock.try_upgradable_read() is None
    lock.try_read().unlock()
    reader = guard.downgrade()
    lock.try_upgradable_read().unlock()
    assert lock.try_write() is None
    reader.unlock()
    assert not lock.is_locked()


@pytest.mark.parametrize(
    "attempt",
    [
        lambda g: g.try_upgrade(),
        lambda g: g.try_upgrade_for(0.002),
        lambda g: g.try_upgrade_for(-1),
        lambda g: g.try_upgrade_until(time.monotonic() + 0.002),
        lambda g: g.try_upgrade_until(0),
    ],
)
def test_try_upgrade(attempt):
    lock = RwLock(1)
    guard = lock.upgradable_read()
    reader = lock.read()
    assert attempt(guard) is None
    assert guard.value == 1  # still live, and others may still read
    lock.try_read().unlock()
    assert lock.try_upgradable_read() is None
    reader.unlock()
    writer = attempt(guard)
    if writer is None:  # a timed one may be late on a busy machine
        writer = guard.try_upgrade()
    assert type(writer) is WriteGuard
    assert lock.try_read() is None
    with pytest.raises(RuntimeError):
        guard.unlock()
    writer.unlock()
    assert not lock.is_locked()


def test_upgrade_waits_for_readers_and_keeps_new_ones_out(wait_until):
    lock = RwLock(1)
    guard = lock.upgradable_read()
    reader = lock.read()
    with in_thread(guard.upgrade) as thread:
        wait_until(lambda: lock.try_read() is None)
        assert not lock.is_locked_exclusive()
        with pytest.raises(RuntimeError):
            guard.value  # noqa: B018
        reader.unlock()
        wait_until(lambda: thread.result)
    writer = thread.result[0]
    assert lock.is_locked_exclusive()
    writer.unlock()


def test_with_upgraded():
    lock = RwLock(1)
    with lock.upgradable_read() as guard:

        def change(writer):
            assert type(writer) is WriteGuard
            assert lock.try_read() is None
            with pytest.raises(RuntimeError):
                guard.value  # noqa: B018
            writer.value += 1
            return writer.value * 10

        assert guard.with_upgraded(change) == 20
        assert guard.with_upgraded(change) == 30  # parking_lot's issue 392
        assert guard.value == 3
        lock.try_read().unlock()
        with pytest.raises(ZeroDivisionError):
            guard.with_upgraded(lambda writer: 1 / 0)
        assert guard.value == 3
        guard.with_upgraded(lambda writer: writer.unlock())
        assert not lock.is_locked()
        for use in (lambda: guard.value, guard.unlock, guard.upgrade):
            with pytest.raises(RuntimeError, match="holds no lock"):  # for good, not for a while
                use()
    assert not lock.is_locked()
    with lock.upgradable_read() as guard:
        reader = guard.with_upgraded(lambda writer: writer.downgrade())
    assert reader.value == 3
    reader.unlock()
    assert not lock.is_locked()


# -- unlocked, bump, fair ----------------------------------------------------


@pytest.mark.parametrize("name", ["unlocked", "unlocked_fair"])
@pytest.mark.parametrize("way", WAYS)
def test_unlocked(way, name):
    lock = RwLock(1)
    with getattr(lock, way)() as guard:
        with getattr(guard, name)():
            assert not lock.is_locked()
            with pytest.raises(RuntimeError):
                guard.value  # noqa: B018
            with pytest.raises(RuntimeError):
                guard.unlock()
            with lock.write() as writer:
                writer.value = 2
        assert guard.value == 2
        with pytest.raises(ZeroDivisionError), guard.unlocked():
            raise ZeroDivisionError
        assert guard.value == 2
        assert lock.is_locked()
        block = guard.unlocked()
        with pytest.raises(RuntimeError):
            block.__exit__(None, None, None)  # never entered
        assert guard.value == 2
    assert not lock.is_locked()


def test_a_guard_whose_block_ends_while_it_is_unlocked_stays_dead():
    lock = RwLock(1)
    with lock.write() as guard:
        block = guard.unlocked()
        block.__enter__()
    assert not lock.is_locked()
    with pytest.raises(RuntimeError, match="ended meanwhile"):
        block.__exit__(None, None, None)
    assert not lock.is_locked()
    with pytest.raises(RuntimeError):
        guard.value  # noqa: B018


def test_a_guard_whose_block_ends_during_an_upgrade_keeps_nothing():
    lock = RwLock(1)
    guard, reader = lock.upgradable_read(), lock.read()
    # By a handler in the middle of the wait, which then raises.
    interrupted(guard.upgrade, first=lambda: guard.__exit__(None, None, None))
    reader.unlock()
    assert not lock.is_locked()
    with pytest.raises(RuntimeError, match="holds no lock"):
        guard.value  # noqa: B018
    # By the function that is called with the other guard.
    guard = lock.upgradable_read()
    assert guard.with_upgraded(lambda writer: guard.__exit__(None, None, None) or writer.value) == 1
    assert not lock.is_locked()
    with pytest.raises(RuntimeError, match="holds no lock"):
        guard.value  # noqa: B018


def test_bump_gives_way_to_a_writer(wait_until):
    lock = RwLock(0)
    guard = lock.read()
    guard.bump()
    with in_thread(lambda: lock.write().unlock()) as thread:
        wait_until(lambda: lock.try_read() is None)
        while thread.is_alive():
            guard.bump()
    assert guard.value == 0
    guard.unlock()


@pytest.mark.parametrize("way", ["write", "upgradable_read"])
def test_bump_gives_way_to_parked_threads(way, wait_until):
    lock = RwLock(0)
    guard = getattr(lock, way)()
    guard.bump()
    with in_thread(lambda: getattr(lock, way)().unlock()) as thread:
        while thread.is_alive():
            guard.bump()
    guard.unlock()
    assert not lock.is_locked()


@pytest.mark.skipif(not LINUX, reason="needs to see that a thread sleeps")
def test_unlock_fair_hands_over(wait_until):
    lock = RwLock([])
    guard = lock.write()
    release = threading.Event()

    def other():
        with lock.write():
            release.wait(30)

    with in_thread(other) as thread:
        wait_until(lambda: asleep(thread))
        guard.unlock_fair()
        # It never was free.
        assert lock.try_write() is None
        assert lock.is_locked_exclusive()
        release.set()
    assert not lock.is_locked()


@pytest.mark.skipif(not LINUX, reason="needs to see that a thread sleeps")
@pytest.mark.parametrize(
    "cls, way", [(RwLock, "write"), (RwLock, "upgradable_read"), (ShardedLock, "write")]
)
def test_unlock_fair_hands_over_each_time(cls, way, wait_until):
    """An unlock hands over now and then, too: not twice within microseconds."""
    lock, waiting, stolen = cls(0), 8, []

    def hold():
        nonlocal waiting
        guard = getattr(lock, way)()
        waiting -= 1
        guard.unlock_fair()
        guard = getattr(lock, "try_" + way)()  # it is never free before the last one
        if guard is not None:
            if waiting:
                stolen.append(waiting)
            guard.unlock()

    guard = getattr(lock, way)()
    with ExitStack() as stack:
        for _ in range(waiting):
            thread = stack.enter_context(in_thread(hold))
            wait_until(lambda thread=thread: asleep(thread))
        guard.unlock_fair()
    assert not stolen and not waiting
    assert not lock.is_locked()


@pytest.mark.parametrize(
    ("cls", "way"),
    [
        *((cls, way) for cls in (RwLock, ShardedLock) for way in ("read", "write")),
        (RwLock, "upgradable_read"),
    ],
)
def test_a_guard_whose_lock_was_released_by_other_means_is_dead(cls, way):
    # By C code, or what is no guard of this lock.
    lock = cls(0)
    words = words_of(lock, way)
    for use in ("unlock", "unlocked"):
        guard = getattr(lock, way)()
        for word in words:
            word.value = 0
        with pytest.raises(RuntimeError, match="by other means"):
            guard.unlock() if use == "unlock" else guard.unlocked().__enter__()
        for again in (lambda guard=guard: guard.value, guard.unlock, guard.bump):
            with pytest.raises(RuntimeError, match="holds no lock"):
                again()
        assert not lock.is_locked()


# -- map ---------------------------------------------------------------------


class Box:
    def __init__(self, x):
        self.x = x


def test_map():
    lock = RwLock({"a": Box([1, 2])})
    guard = lock.write()
    part = guard.map(lambda v: v["a"].x)
    assert type(part) is MappedWriteGuard
    assert part.value == [1, 2]
    with pytest.raises(RuntimeError):
        guard.value  # noqa: B018
    assert lock.is_locked_exclusive()
    item = part.map(lambda v: v[0])
    item.value += 10
    with pytest.raises(RuntimeError):
        part.value  # noqa: B018
    with item:
        assert item.rwlock is lock
    assert not lock.is_locked()
    reader = lock.read().map(lambda v: v["a"])
    assert type(reader) is MappedReadGuard
    attribute = reader.map(lambda v: v.x)
    assert attribute.value == [11, 2]
    with pytest.raises(AttributeError):
        attribute.value = 1
    attribute.unlock()
    whole = lock.write().map(lambda v: v)
    whole.value = 3
    whole.unlock_fair()
    assert lock.into_inner() == 3


@pytest.mark.parametrize("way", ["read", "write"])
def test_a_failing_map_leaves_the_guard(way):
    lock = RwLock({"a": 1})
    guard = getattr(lock, way)()

    def fail(value):
        raise ZeroDivisionError

    for name in ("map", "try_map"):
        with pytest.raises(ZeroDivisionError):
            getattr(guard, name)(fail)
        with pytest.raises(KeyError):
            getattr(guard, name)(lambda v: v["b"])
        with pytest.raises(TypeError):
            getattr(guard, name)(lambda v: 3)
    assert guard.try_map(lambda v: None) is None
    with pytest.raises(TypeError):
        guard.map(lambda v: None)
    part = guard.try_map(lambda v: v["a"])
    assert part.value == 1
    assert part.try_map(lambda v: None) is None
    part.unlock()
    assert not lock.is_locked()


# -- timeouts ----------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_timeouts(way):
    lock = RwLock(1)
    try_for = getattr(lock, f"try_{way}_for")
    try_until = getattr(lock, f"try_{way}_until")
    for seconds in (10**400, float("inf"), 1e300, 5, -1, -(10**400), 0):
        try_for(seconds).unlock()
    for deadline in (10**400, time.monotonic() + 5, 0, -(10**400)):
        try_until(deadline).unlock()
    for call in (try_for, try_until):
        with pytest.raises(ValueError):
            call(float("nan"))
        with pytest.raises(TypeError):
            call("1")
    with lock.write():
        before = time.monotonic()
        assert try_for(0.05) is None
        assert try_until(time.monotonic() + 0.05) is None
        assert time.monotonic() - before >= 0.1
        for seconds in (-1, -(10**400), 0):
            assert try_for(seconds) is None
    assert not lock.is_locked()


def test_a_writer_that_gives_up_lets_readers_in_again(wait_until):
    lock = RwLock(1)
    reader = lock.read()
    with in_thread(lambda: lock.try_write_for(0.3)) as thread:
        wait_until(lambda: thread.result or lock.try_read() is None)
        with lock.read():  # waits for the writer to give up
            pass
        wait_until(lambda: thread.result)
    assert thread.result == [None]
    lock.try_read().unlock()
    reader.unlock()
    assert not lock.is_locked()
    lock.try_write().unlock()


def test_an_upgrader_that_gives_up_lets_readers_in_again(wait_until):
    lock = RwLock(1)
    reader, guard = lock.read(), lock.upgradable_read()
    with in_thread(lambda: guard.try_upgrade_for(0.3)) as thread:
        wait_until(lambda: thread.result or lock.try_read() is None)
        with lock.read():
            pass
        wait_until(lambda: thread.result)
    assert thread.result == [None]
    assert lock.try_upgradable_read() is None
    reader.unlock()
    guard.try_upgrade().unlock()
    assert not lock.is_locked()


# -- fairness ----------------------------------------------------------------


def test_a_waiting_writer_stops_readers_but_not_recursive_ones(wait_until):
    """Rust's `recursive`: a thread that reads may read again past a waiting writer."""
    lock = RwLock(1)
    outer = lock.read()
    with in_thread(lambda: lock.write().unlock()):
        wait_until(lambda: lock.try_read() is None)
        assert lock.try_upgradable_read() is None
        inner = lock.read_recursive()
        assert inner.value == 1
        lock.try_read_recursive().unlock()
        lock.try_read_recursive_for(1).unlock()
        lock.try_read_recursive_until(time.monotonic() + 1).unlock()
        inner.unlock()
        outer.unlock()
    assert not lock.is_locked()


@pytest.mark.skipif(not LINUX, reason="needs to see that a thread sleeps")
def test_phases_alternate_in_the_order_of_the_queue(wait_until):
    lock = RwLock(0)
    order = []
    guard = lock.write()
    threads = []

    def writer(name):
        with lock.write() as guard:
            order.append(name)
            with guard.unlocked_fair():
                pass

    def reader(name, gate):
        with lock.read():
            order.append(name)
            gate.wait(30)

    gates = [threading.Barrier(2), threading.Barrier(2)]
    plan = [(writer, "w1"), (reader, "r1", gates[0]), (reader, "r1", gates[0]), (writer, "w2"),
            (reader, "r2", gates[1]), (reader, "r2", gates[1])]  # fmt: skip
    for function, *arguments in plan:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        thread.start()
        threads.append(thread)
        wait_until(lambda thread=thread: asleep(thread))
    guard.unlock_fair()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert order == ["w1", "r1", "r1", "w2", "r2", "r2"]
    assert not lock.is_locked()


def test_a_writer_is_not_starved_by_readers(run_threads):
    lock = RwLock(0)
    done = threading.Event()

    def read(i):
        count = 0
        while not done.is_set():
            with lock.read() as first:
                count += 1
                with lock.read_recursive() as second:
                    assert first.value == second.value
        return count

    def write():
        for _ in range(100):
            with lock.write() as guard:
                guard.value += 1
        done.set()

    run_threads([write, lambda: read(0), lambda: read(1), lambda: read(2)])
    assert lock.into_inner() == 100


# -- parking_lot's and std's suites ------------------------------------------


@pytest.mark.stress
def test_frob(run_threads):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    lock = RwLock()

    def frob(i):
        source = random.Random(seed + i)
        for _ in range(1000):
            with lock.write() if source.random() < 0.1 else lock.read():
                pass

    run_threads(frob, count=10)
    assert not lock.is_locked()


def test_ruw_arc(run_threads):
    """A writer, five upgraders, five readers: nobody sees a value in the middle of a change."""
    lock = RwLock(0)

    def change(guard):
        before = guard.value
        guard.value = -1
        time.sleep(0)
        guard.value = before + 1

    def write():
        for _ in range(10):
            with lock.write() as guard:
                change(guard)
            time.sleep(0)

    def upgrade():
        with lock.upgradable_read() as guard:
            before = guard.value
            assert before >= 0
            time.sleep(0)
            with guard.upgrade() as writer:
                assert writer.value == before  # nobody wrote since
                change(writer)

    def read():
        with lock.read() as guard:
            assert guard.value >= 0

    run_threads([write, *[upgrade] * 5, *[read] * 5])
    assert lock.into_inner() == 15


def test_rw_arc(run_threads):
    lock = RwLock(0)

    def write():
        for _ in range(10):
            with lock.write() as guard:
                before = guard.value
                guard.value = -1
                time.sleep(0)
                guard.value = before + 1

    def read():
        with lock.read() as guard:
            assert guard.value >= 0

    run_threads([write, *[read] * 5])
    assert lock.into_inner() == 10


def test_downgrade(run_threads):
    """8 threads, 100 times: what was written is there after the downgrade."""
    lock = RwLock(0)

    def work(i):
        for _ in range(100):
            guard = lock.write()
            guard.value += 1
            mine = guard.value
            with guard.downgrade() as reader:
                for _ in range(3):
                    time.sleep(0)
                    assert reader.value == mine

    run_threads(work, count=8)
    assert lock.into_inner() == 800


def test_downgrade_observe(run_threads):
    """20 writers, 100 times each: no writer gets between writing and reading it back."""
    lock = RwLock(0)

    def work(i):
        for _ in range(100):
            guard = lock.write()
            guard.value += 1
            mine = guard.value
            with guard.downgrade() as reader:
                assert reader.value == mine

    run_threads(work, count=20)
    assert lock.into_inner() == 2000


@pytest.mark.skipif(not LINUX, reason="needs to see that a thread sleeps")
def test_downgrade_atomic(wait_until):
    """20 parked writers must not slip in, std's test."""
    lock = RwLock(-1)
    guard = lock.write()

    def write():
        with lock.write() as guard:
            guard.value += 1

    threads = [threading.Thread(target=write, daemon=True) for _ in range(20)]
    for thread in threads:
        thread.start()
    wait_until(lambda: all(map(asleep, threads)))
    guard.value = 100
    reader = guard.downgrade()
    for _ in range(50):
        assert reader.value == 100
        time.sleep(0.001)
    reader.unlock()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert lock.into_inner() == 120


def test_exceptions_do_not_poison(run_threads):
    lock = RwLock(1)
    for way in WAYS:
        with pytest.raises(ZeroDivisionError), getattr(lock, way)():
            raise ZeroDivisionError
        assert not lock.is_locked()
    for way in WAYS:
        getattr(lock, f"try_{way}")().unlock()


def test_access_while_an_exception_unwinds(run_threads):
    lock = RwLock(1)

    class Unwinder:
        def __exit__(self, *exc):
            with lock.write() as guard:
                guard.value += 1

        def __enter__(self):
            pass

    def work():
        with pytest.raises(ZeroDivisionError), Unwinder():
            raise ZeroDivisionError

    run_threads([work])
    assert lock.into_inner() == 2


def test_lock_in_a_thread_local_destructor(run_threads, wait_until):
    """parking_lot's issue 203."""
    lock = RwLock(0)
    local = threading.local()

    class Last:
        def __del__(self):
            with lock.upgradable_read() as guard:
                guard.with_upgraded(lambda writer: setattr(writer, "value", writer.value + 1))

    def work(i):
        local.last = Last()
        with lock.read():
            pass

    run_threads(work, count=8)
    wait_until(lambda: (lock.try_read() or lock.read()).value == 8)


# -- signals -----------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_ctrl_c_ends_a_wait_with_nothing_owned(way, wait_until):
    lock = RwLock(1)
    with lock.write() as guard:
        interrupted(getattr(lock, way))
        assert guard.value == 1
    assert not lock.is_locked()
    lock.try_write().unlock()


def test_ctrl_c_ends_a_writers_wait_for_readers():
    lock = RwLock(1)
    with lock.read():
        interrupted(lock.write)
        lock.try_read().unlock()
    assert not lock.is_locked()


def test_ctrl_c_leaves_an_upgrader_upgradable():
    lock = RwLock(1)
    guard, reader = lock.upgradable_read(), lock.read()
    interrupted(guard.upgrade)
    assert guard.value == 1
    lock.try_read().unlock()
    interrupted(lambda: guard.with_upgraded(lambda writer: None))
    assert guard.value == 1
    assert lock.try_upgradable_read() is None
    reader.unlock()
    guard.upgrade().unlock()
    assert not lock.is_locked()


@pytest.mark.parametrize("way", WAYS)
def test_ctrl_c_on_the_way_back_leaves_the_guard_dead(way):
    lock = RwLock(1)
    guard = getattr(lock, way)()
    block = guard.unlocked()
    block.__enter__()
    with lock.write():
        interrupted(lambda: block.__exit__(None, None, None))
    with pytest.raises(RuntimeError):
        guard.value  # noqa: B018
    assert not lock.is_locked()


@pytest.mark.stress
def test_interrupted_waiters_lose_no_wake_up(run_threads):
    """The main thread is interrupted all the time; nobody else may hang for it."""
    lock = RwLock(0)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    stop = threading.Event()
    waiting = False

    def work(i):
        source = random.Random(seed + i)
        while not stop.is_set():
            way = source.choice(["read", "write", "upgradable_read"])
            with getattr(lock, way)() as guard:
                if way == "upgradable_read":
                    guard.with_upgraded(lambda writer: None)
                elif source.random() < 0.1:
                    time.sleep(0.0005)

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(3)]
    for thread in threads:
        thread.start()
    source = random.Random(seed - 1)
    raised = 0
    end = time.monotonic() + 1.5

    def handle(signum, frame):
        if waiting:
            raise Interrupted

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
    try:
        while time.monotonic() < end:
            guard = None
            try:
                waiting = True
                guard = getattr(lock, source.choice(["read", "write", "upgradable_read"]))()
                waiting = False
            except Interrupted:
                waiting = False
                raised += 1
            if guard is not None:
                guard.unlock()
            guard = None
    finally:
        waiting = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        stop.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert raised
    assert not lock.is_locked()


# -- views -------------------------------------------------------------------


def test_views_behave_as_threading_lock():
    lock = RwLock(1)
    for side, held in ((lock.reader, "read"), (lock.writer, "write")):
        assert not side.locked()
        assert side.acquire() is True
        assert side.locked()
        assert lock.is_locked_exclusive() == (held == "write")
        side.release()
        assert side.acquire(False) is True
        side.release()
        assert side.acquire(timeout=1) is True
        side.release()
        assert side.acquire(True, -1) is True
        side.release()
        with side as value:
            assert value is True
            assert side.locked()
        assert not lock.is_locked()
        for call in (side.release, lambda side=side: side.__exit__(None, None, None)):
            with pytest.raises(RuntimeError, match=r"^release unlocked lock$"):
                call()
        with pytest.raises(ValueError, match="can't specify a timeout for a non-blocking call"):
            side.acquire(False, 1)
        with pytest.raises(ValueError, match="timeout value must be a non-negative number"):
            side.acquire(timeout=-2)
        with pytest.raises(OverflowError):
            side.acquire(timeout=1e100)
        with pytest.raises(TypeError):
            side(1)
        with ExitStack() as stack:
            stack.enter_context(side)
            assert side.locked()
        assert not lock.is_locked()
    with lock.reader:
        assert lock.writer.acquire(False) is False
        assert lock.writer.acquire(timeout=0.001) is False
        with lock.reader:
            pass
        with pytest.raises(RuntimeError):
            lock.writer.release()
        assert lock.reader.locked()
        assert not lock.writer.locked()
    with lock.writer:
        assert lock.reader.acquire(False) is False
        with pytest.raises(RuntimeError):
            lock.reader.release()
    assert lock.reader is lock.reader


HOLDS = {
    "reader": ("read", "read_recursive", "upgradable_read"),
    "writer": ("write",),
}


@pytest.mark.parametrize("cls", [RwLock, ShardedLock])
@pytest.mark.parametrize("side", HOLDS)
def test_a_view_does_not_release_what_a_guard_holds(cls, side, run_threads):
    for way in HOLDS[side]:
        if not hasattr(cls, way):
            continue
        lock = cls(1)
        view = getattr(lock, side)
        guard = run_threads([getattr(lock, way)])[0]
        for call in (view.release, lambda view=view: view.__exit__(None, None, None)):
            with pytest.raises(RuntimeError, match="not held through this view"):
                call()
        assert not view._is_owned()
        assert view.locked()
        assert guard.value == 1
        if side == "reader" and way != "upgradable_read":
            run_threads([view.acquire])
            assert view._is_owned()
            view.release()
            with pytest.raises(RuntimeError, match="not held through this view"):
                view.release()
        guard.unlock()
        assert not lock.is_locked()
        assert lock.try_write() is not None


def test_a_guard_changes_its_way_while_the_view_is_released_in_vain():
    """A downgrade counts on what the guard holds: of a free lock it would make a locked one."""
    lock = RwLock(1)
    guard = lock.write()
    with pytest.raises(RuntimeError):
        lock.writer.release()
    reader = guard.downgrade()
    with pytest.raises(RuntimeError):
        lock.reader.release()
    reader.unlock()
    assert not lock.is_locked()


def test_any_thread_may_release_a_view(run_threads):
    lock = RwLock(1)
    lock.writer.acquire()
    run_threads([lock.writer.release])
    lock.reader.acquire()
    run_threads([lock.reader.release])
    assert not lock.is_locked()


def test_views_allocate_nothing_in_use():
    lock = RwLock(1)
    for _ in range(2):
        before = sys.getallocatedblocks()
        for _ in range(1000):
            with lock.reader:
                pass
            with lock.writer:
                pass
        grown = sys.getallocatedblocks() - before
    assert grown < 100  # other threads' doing


def test_a_lock_whose_views_were_used_is_collected():
    import gc

    class Value:
        pass

    value = Value()
    lock = value.lock = RwLock(value)
    lock.reader.acquire()
    alive, gone = weakref.ref(value), weakref.ref(lock)
    del value, lock
    gc.collect()
    assert alive() is None
    assert gone() is None
    view = RwLock(1).writer
    gc.collect()
    with view:
        assert view.locked()


@pytest.mark.parametrize("module", [threading, fastsync.threading])
@pytest.mark.parametrize("side", ["reader", "writer"])
def test_views_work_in_a_condition(module, side, run_threads):
    lock = RwLock(1)
    condition = module.Condition(getattr(lock, side))
    ready = []

    def wait():
        with condition:
            assert getattr(lock, side).locked()
            assert condition.wait_for(lambda: ready, timeout=30)
            assert lock.is_locked()

    def notify():
        with condition:
            ready.append(1)
            condition.notify_all()

    run_threads([wait, wait, notify])
    assert not lock.is_locked()
    with pytest.raises(RuntimeError):
        condition.notify()
    with condition:
        condition.notify()
        assert condition.wait(0.001) is False


# -- limits and plumbing -----------------------------------------------------


def test_too_many_readers_are_refused():
    lock = RwLock(1)
    word = word_of(lock)
    word.value = 2 ** (8 * ctypes.sizeof(ctypes.c_size_t)) - 16
    try:
        for call in (lock.read, lock.read_recursive, lock.upgradable_read, lock.reader.acquire):
            with pytest.raises(OverflowError):
                call()
        assert word.value == 2 ** (8 * ctypes.sizeof(ctypes.c_size_t)) - 16
    finally:
        word.value = 0
    lock.try_write().unlock()


def test_plumbing():
    import copy
    import pickle

    lock = RwLock(1)
    assert "unlocked" in repr(lock)
    with lock.read() as guard:
        assert "read-locked" in repr(lock)
        assert "reader of" in repr(lock.reader)
        for thing in (lock, guard, lock.reader):
            with pytest.raises(TypeError):
                pickle.dumps(thing)
            with pytest.raises(TypeError):
                copy.copy(thing)
    with lock.write():
        assert "write-locked" in repr(lock)
    assert RwLock[int].__origin__ is RwLock
    assert ReadGuard[int].__args__ == (int,)
    assert RwLock(value=3).into_inner() == 3
    with pytest.raises(TypeError):
        RwLock(1, 2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork(run_python):
    """A lock that another thread held stays held in the child; waiters are gone."""
    run_python(
        "-W", "ignore", "-c",
        """
import os, threading, time
from fastsync.objects.rwlock import RwLock
mine, other = RwLock(1), RwLock(2)
guard = mine.write()
held, end = threading.Event(), threading.Event()
def hold():
    with other.write():
        held.set()
        end.wait(30)
waiter = threading.Thread(target=lambda: mine.write().unlock())
holder = threading.Thread(target=hold)
holder.start(); waiter.start(); held.wait(30)
time.sleep(0.1)
pid = os.fork()
if pid == 0:
    ok = other.try_read_for(0.05) is None and other.is_locked_exclusive()
    guard.unlock_fair()
    ok = ok and not mine.is_locked()
    mine.try_write().unlock()
    with mine.read(): pass
    os._exit(0 if ok else 1)
status = os.waitpid(pid, 0)[1]
guard.unlock(); end.set()
holder.join(30); waiter.join(30)
assert status == 0, status
""",
    )  # fmt: skip


# -- signal handlers that want the lock themselves ---------------------------------------------


ENOUGH = 3


@contextmanager
def reader_until(lock, enough):
    """Another thread that reads until enough()."""
    reading = threading.Event()

    def read():
        with lock.reader:
            reading.set()
            wait_until(enough)

    with background(read):
        assert reading.wait(DEADLINE)
        yield


@contextmanager
def reading_handler(lock):
    """A signal handler that reads, called all the time; the list of its results."""
    results = []

    def handle(signum, frame):
        if len(results) > ENOUGH:
            return  # its thread may write by now
        guard = lock.try_read_for(5)
        results.append(guard is not None)
        if guard is not None:
            guard.unlock()

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        yield results
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("cls", [RwLock, ShardedLock])
def test_handler_may_read_what_its_thread_waits_to_write(cls):
    # A writer's claim, or the shards that it has, would keep its own handler out.
    lock = cls(0)
    with reading_handler(lock) as results, reader_until(lock, lambda: len(results) > ENOUGH):
        with lock.write() as guard:
            guard.value += 1
    assert all(results) and lock.read().value == 1


def test_handler_may_read_what_its_thread_waits_to_upgrade():
    lock = RwLock(0)
    with reading_handler(lock) as results, reader_until(lock, lambda: len(results) > ENOUGH):
        guard = lock.upgradable_read().upgrade()
        guard.value += 1
        guard.unlock()
    assert all(results) and not lock.is_locked()


@pytest.mark.parametrize("cls", [RwLock, ShardedLock])
def test_handler_that_raises_while_its_thread_waits_to_write_leaves_nothing_held(cls):
    lock, stop = cls(0), threading.Event()
    with reader_until(lock, stop.is_set):
        interrupted(lock.write)
        assert lock.try_read() is not None
        stop.set()
    with lock.write():
        pass


@pytest.mark.parametrize("cls", [RwLock, ShardedLock])
def test_timeout_of_a_writer_counts_on_over_handlers(cls):
    lock, stop = cls(0), threading.Event()
    with reading_handler(lock) as results, reader_until(lock, stop.is_set):
        begin = time.monotonic()
        assert lock.try_write_for(0.2) is None
        assert time.monotonic() - begin >= 0.2
        stop.set()
    assert results and all(results)


# -- what is left of a hold --------------------------------------------------------------------


@pytest.mark.thread_unsafe(reason="counts all who are parked")
def test_a_claim_is_not_released_as_a_hold():
    """A writer that waits for readers holds nothing yet that anybody could let go."""
    lock = RwLock(0)
    reader = lock.read()
    with in_thread(lambda: lock.write().unlock()) as writer:
        wait_until(lambda: parked_total() == 1)
        assert not lock.writer.locked()
        with pytest.raises(RuntimeError, match="release unlocked lock"):
            lock.writer.release()
        assert writer.is_alive()
        assert lock.is_locked()
        reader.unlock()
    assert not lock.is_locked()


@pytest.mark.thread_unsafe(reason="counts all who are parked")
def test_a_claim_leaves_no_bit_behind():
    lock = RwLock(0)
    word = word_of(lock)
    reader = lock.read()
    assert lock.try_write_for(0.001) is None
    assert word.value == 16
    held = threading.Event()

    def write():
        with lock.write():
            held.set()
            wait_until(lambda: word.value == 8)

    with background(write):
        wait_until(lambda: parked_total() == 1)
        reader.unlock()
        assert held.wait(DEADLINE)
    assert word.value == 0


@pytest.mark.parametrize("end", ["unlock", "unlock_fair"])
def test_a_left_over_bit_of_a_claim_keeps_no_thread_out(end):
    # The readers may leave just before their writer would have slept.
    lock = RwLock(0)
    word = word_of(lock)
    guard = lock.write()
    word.value |= 2
    getattr(guard, end)()
    assert word.value == 0


@pytest.mark.thread_unsafe(reason="counts all who are parked")
def test_a_downgrade_that_wakes_all_waiters_leaves_no_bit_behind():
    lock = RwLock(0)
    word = word_of(lock)
    guard = lock.write()
    with background(lambda: lock.read().unlock()) as [reader]:
        wait_until(lambda: parked_total() == 1)
        guard = guard.downgrade()
        reader.join(DEADLINE)
        assert word.value == 16
    guard.unlock()
    assert word.value == 0


def test_the_last_reader_that_fits():
    """Room for one more is kept: for an upgrader that comes back."""
    lock = RwLock(1)
    word = word_of(lock)
    size = 2 ** (8 * ctypes.sizeof(ctypes.c_size_t))
    word.value = size - 48
    try:
        lock.read().unlock()
        guard = lock.read()
        for call in (lock.read, lock.read_recursive, lock.upgradable_read, lock.reader.acquire):
            with pytest.raises(OverflowError):
                call()
        for name in ("try_read", "try_read_recursive", "try_upgradable_read"):
            with pytest.raises(OverflowError):
                getattr(lock, name)()
        assert word.value == size - 32
        guard.unlock()
        assert word.value == size - 48
    finally:
        word.value = 0


@pytest.mark.thread_unsafe(reason="counts all who are parked")
@pytest.mark.parametrize("way", WAYS)
def test_at_fork_reinit_lets_waiters_in(way):
    lock = RwLock(0)
    guard = lock.write()
    with background(lambda: getattr(lock, way)().unlock()):
        wait_until(lambda: parked_total() == 1)
        lock._at_fork_reinit()
    assert not lock.is_locked()
    with pytest.raises(RuntimeError):
        guard.unlock()


@pytest.mark.thread_unsafe(reason="counts all who are parked")
@pytest.mark.parametrize("end", ["unlock", "unlock_fair"])
@pytest.mark.parametrize("way", ["write", "upgradable_read"])
def test_the_end_of_an_upgradable_reader_lets_the_next_one_in(way, end):
    lock = RwLock(0)
    guard = lock.upgradable_read()
    with background(lambda: getattr(lock, way)().unlock()):
        wait_until(lambda: parked_total() == 1)
        getattr(guard, end)()
    assert not lock.is_locked()


def test_a_function_that_lends_the_upgraded_guard_out_ends_it():
    lock = RwLock(0)
    blocks = []

    def lend(writer):
        blocks.append(writer.unlocked())
        blocks[0].__enter__()

    guard = lock.upgradable_read()
    guard.with_upgraded(lend)
    for _ in range(2):
        assert not lock.is_locked()
        with pytest.raises(RuntimeError, match="holds no lock"):
            guard.value  # noqa: B018
        if blocks:
            with pytest.raises(RuntimeError, match="ended meanwhile"):
                blocks.pop().__exit__(None, None, None)


@pytest.mark.parametrize("cls", [RwLock, ShardedLock])
@pytest.mark.parametrize("side", ["reader", "writer"])
def test_a_lock_of_which_one_view_was_used_is_collected(cls, side):
    import gc

    class Value:
        pass

    value = Value()
    value.lock = cls(value)
    with getattr(value.lock, side):
        pass
    gone = weakref.ref(value)
    del value
    gc.collect()
    assert gone() is None


KEPT = {
    "read": lambda lock: lock.read(),
    "read_recursive": lambda lock: lock.read_recursive(),
    "write": lambda lock: lock.write(),
    "upgradable": lambda lock: lock.upgradable_read(),
    "upgraded": lambda lock: lock.upgradable_read().upgrade(),
    "downgraded": lambda lock: lock.write().downgrade(),
    "mapped read": lambda lock: lock.read().map(lambda v: v["a"]),
    "mapped write": lambda lock: lock.write().map(lambda v: v["a"]),
    "unlocked once": lambda lock: unlocked_once(lock.read()),
}
KEPT_USES = {
    "value": lambda guard: guard.value,
    "set": lambda guard: setattr(guard, "value", 5),
    "unlock": lambda guard: guard.unlock(),
    "unlock_fair": lambda guard: guard.unlock_fair(),
    "enter": lambda guard: guard.__enter__(),
    "map": lambda guard: guard.map(lambda v: v["a"]),
    "bump": lambda guard: guard.bump(),
    "unlocked": lambda guard: guard.unlocked().__enter__(),
    "downgrade": lambda guard: guard.downgrade(),
    "downgrade_to_upgradable": lambda guard: guard.downgrade_to_upgradable(),
    "try_upgrade": lambda guard: guard.try_upgrade(),
    "with_upgraded": lambda guard: guard.with_upgraded(len),
    "rwlock": lambda guard: guard.rwlock,
}


def unlocked_once(guard):
    with guard.unlocked():
        pass
    return guard


def state_of(lock):
    return lock.is_locked(), lock.is_locked_exclusive(), repr(lock)


@pytest.mark.parametrize("cls", [RwLock, ShardedLock])
@pytest.mark.parametrize("side", ["reader", "writer"])
def test_a_view_releases_no_hold_of_before_a_reset(cls, side):
    lock = cls(0)
    view = getattr(lock, side)
    view.acquire()
    fastsync.reset_after_fork(lock)
    for again in (False, True):  # free, and held by a guard
        guard = lock.read() if again else None
        with pytest.raises(RuntimeError):
            view.release()
        assert lock.is_locked() == again
    guard.unlock()
    with view:
        assert lock.is_locked()
    assert not lock.is_locked()


OF_RWLOCK_ALONE = ("upgradable", "upgraded", "downgraded")


@pytest.mark.parametrize(
    ("cls", "hold"),
    [
        *((RwLock, hold) for hold in KEPT),
        *((ShardedLock, hold) for hold in KEPT if hold not in OF_RWLOCK_ALONE),
    ],
)
def test_a_guard_of_before_a_reset_ends_no_hold_of_after(cls, hold):
    for name in ["read", "write", *(["upgradable_read"] if cls is RwLock else [])]:
        lock = cls({"a": {"a": 1}})
        stale = KEPT[hold](lock)
        assert stale.value
        fastsync.reset_after_fork(lock)
        assert not lock.is_locked()
        with getattr(lock, name)() as guard:
            before = state_of(lock)
            for use in KEPT_USES:
                if use == "set" and "Write" not in type(stale).__name__:
                    continue  # refused at once, by any that only reads
                if hasattr(type(stale), use) or use in ("set", "enter"):
                    with pytest.raises(RuntimeError):
                        KEPT_USES[use](stale)
                    assert state_of(lock) == before, use
            assert stale.__exit__(None, None, None) is None  # as of any that has ended
            assert "dead" in repr(stale)
            del stale
            assert state_of(lock) == before
            assert guard.value == {"a": {"a": 1}}
        assert not lock.is_locked()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("cls", ["RwLock", "ShardedLock"])
def test_a_reset_in_the_child_of_a_fork_ends_the_guards_of_all_threads(cls, run_python):
    run_python(
        "-W", "ignore", "-c",
        IN_CHILD + f"""
import threading
import fastsync
locks = [fastsync.{cls}(0) for _ in range(5)]
kept, held, end = [], threading.Event(), threading.Event()
def hold():
    kept.extend([locks[0].read(), locks[1].write(), locks[2].read()])
    locks[3].writer.acquire()
    locks[4].reader.acquire()
    held.set()
    end.wait(50)
    for guard in kept[:3]:
        guard.unlock()
    locks[3].writer.release()
    locks[4].reader.release()
thread = threading.Thread(target=hold)
thread.start()
held.wait(50)
kept.append(locks[2].read())  # this thread's, beside the other's
def look():
    assert [lock.is_locked() for lock in locks] == [True] * 5
    assert kept[3].value == 0  # until the reset this thread holds what it held
    fastsync.reset_after_fork(*locks)
    guards = [lock.write() for lock in locks]
    for old in kept:
        for use in (lambda: old.value, old.unlock, old.bump):
            try:
                use()
            except RuntimeError:
                pass
            else:
                raise AssertionError(old)
    kept.clear()
    guards.pop().unlock()
    guards.append(locks[4].read())
    for view in (locks[3].writer, locks[4].reader):
        assert view.locked() and not view._is_owned()
        try:
            view.release()
        except RuntimeError:
            pass
        else:
            raise AssertionError(view)
    guards.pop().unlock()
    guards.append(locks[4].write())
    for lock, guard in zip(locks, guards):
        assert lock.try_read() is None and lock.is_locked_exclusive()
        guard.value += 1
        guard.unlock()
        assert not lock.is_locked()
    # The same in the next child: those guards are as old there.
    guard, old = locks[0].read(), locks[1].read()
    fastsync.reset_after_fork(locks[1])
    def look_again():
        guard.unlock()
        with locks[1].write():
            try:
                old.unlock()
            except RuntimeError:
                return
        raise AssertionError(old)
    assert in_child(look_again) == 0

code = in_child(look)
end.set()
thread.join(50)
kept[3].unlock()
assert not any(lock.is_locked() for lock in locks)
sys.exit(code)
""",
    )  # fmt: skip
