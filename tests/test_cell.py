"""AtomicRef and AtomicCell: identity and equality, drop counts, storms, garbage collection."""

import copy
import gc
import itertools
import math
import os
import pickle
import random
import signal
import sys
import sysconfig
import textwrap
import threading
import time
import weakref

import pytest
from conftest import collect_between_steps, run_python, run_threads, wait_until

import fastsync
from fastsync import AtomicCell, AtomicRef, Ordering
from fastsync.objects import reference

BOTH = [AtomicRef, AtomicCell]
Relaxed, Acquire, Release, AcqRel, SeqCst = Ordering.members()


class Counted:
    """Objects that count how many of them are alive, from any thread."""

    alive = fastsync.AtomicI64(0)

    def __init__(self, value=0):
        self.value = self.check = value
        Counted.alive.fetch_add(1)

    def __del__(self):
        self.check = None
        Counted.alive.fetch_sub(1)


@pytest.fixture(autouse=True)
def nothing_survives():
    def settled():
        gc.collect()
        return Counted.alive.load() == 0

    wait_until(settled)
    yield
    wait_until(settled)


# -- AtomicRef ---------------------------------------------------------------------


def test_ref_compares_by_identity():
    x, y = [1], [1]
    r = AtomicRef(x)
    assert r.load() is x
    assert r.compare_exchange(y, 0) == (False, x)
    assert r.compare_exchange(y, 0)[1] is x
    assert r.compare_exchange(x, y) == (True, x)
    assert r.load() is y
    assert r.compare_and_set(x, 1) is False
    assert r.compare_and_set(y, x) is True
    assert r.compare_exchange_weak(y, 1)[0] is False
    while not r.compare_exchange_weak(x, y)[0]:
        assert r.load() is x
    assert r.swap(None) is y
    assert r.load() is None
    r.store(x)
    assert r.into_inner() is x
    assert AtomicRef().load() is None


def test_ref_orderings():
    r = AtomicRef(5)
    for ordering in Ordering.members():
        loads, stores = (
            ordering in (Relaxed, Acquire, SeqCst),
            ordering in (Relaxed, Release, SeqCst),
        )
        r.swap(5, ordering)
        for call, legal in (
            (lambda o: r.load(o), loads),
            (lambda o: r.store(5, o), stores),
            (lambda o: r.wait(6, 0, o), loads),
            (lambda o: r.compare_exchange(5, 5, SeqCst, o), loads),
            (lambda o: r.compare_exchange_weak(5, 5, Relaxed, o), loads),
            (lambda o: r.compare_and_set(5, 5, Release, o), loads),
            (lambda o: r.update(lambda x: x, AcqRel, o), loads),
            (lambda o: r.fetch_update(lambda x: x, AcqRel, o), loads),
            (lambda o: r.try_update(lambda x: x, failure=o), loads),
        ):
            if legal:
                call(ordering)
            else:
                with pytest.raises(ValueError, match="there is no such thing as"):
                    call(ordering)
            with pytest.raises(TypeError):
                call(None)


def test_ref_update_forms():
    r = AtomicRef(())
    assert r.update(lambda t: (*t, 1)) == ()
    assert r.fetch_update(lambda t: (*t, 2)) == (True, (1,))
    assert r.try_update(lambda t: None) == (False, (1, 2))
    assert r.update(lambda t: None) == (1, 2), "None is an object like any other here"
    assert r.load() is None
    with pytest.raises(ZeroDivisionError):
        r.update(lambda t: 1 // 0)
    calls = []

    def interfering(value):
        calls.append(value)
        if len(calls) < 3:
            r.store(object())
        return "done"

    r.update(interfering)
    assert len(calls) == 3
    assert r.load() == "done"


def test_ref_push_from_many_threads():
    # a stack of linked tuples: nothing is lost
    r = AtomicRef(None)
    n, threads = 500, 8

    def push(i):
        for j in range(n):
            r.update(lambda head: ((i, j), head))  # noqa: B023

    run_threads(push, threads)
    head, found = r.load(), []
    while head:
        item, head = head
        found.append(item)
    assert sorted(found) == list(itertools.product(range(threads), range(n)))
    while (head := r.load()) is not None:  # unlink one by one: no deep destructor
        r.compare_exchange(head, head[1])


# -- AtomicCell --------------------------------------------------------------------


class Modulo3:
    """Equal when equal modulo 3, as in crossbeam's modular tests."""

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return self.value % 3 == other.value % 3

    __hash__ = None


def test_cell_basics():
    c = AtomicCell([1])
    assert c.load() == [1]
    c.store([2])
    assert c.swap([3]) == [2]
    assert c.take() == [3]
    assert c.load() is None
    c.store(7)
    assert c.fetch_update(lambda x: x + 1) == (True, 7)
    assert c.fetch_update(lambda x: None) == (False, 8)
    assert c.into_inner() == 8
    assert AtomicCell.is_lock_free() is True
    assert AtomicCell(1).is_lock_free() is True
    assert AtomicCell().load() is None


def test_cell_compares_by_equality():
    c = AtomicCell(Modulo3(1))
    new = Modulo3(2)
    done, previous = c.compare_exchange(Modulo3(4), new)
    assert done is True
    assert previous.value == 1
    assert c.load() is new
    done, previous = c.compare_exchange(Modulo3(4), Modulo3(0))
    assert (done, previous) == (False, new)


def test_cell_has_no_identity_shortcut():
    nan = math.nan
    c = AtomicCell(nan)
    assert c.compare_exchange(nan, 1.0) == (False, nan)

    class Never:
        def __eq__(self, other):
            return False

        __hash__ = None

    never = Never()
    c.store(never)
    assert c.compare_exchange(never, 1)[0] is False


def test_cell_compares_again_when_it_changed_meanwhile():
    c = AtomicCell()
    asked = []

    class Meddler:
        def __init__(self, name, meddle):
            self.name, self.meddle = name, meddle

        def __eq__(self, other):
            asked.append(self.name)
            if self.meddle:
                c.store(Meddler("second", False))
            return True

        __hash__ = None

    c.store(Meddler("first", True))
    done, previous = c.compare_exchange(object(), "new")
    assert done
    assert asked == ["first", "second"]
    assert previous.name == "second"
    assert c.load() == "new"


def test_cell_errors_of_eq_and_of_its_truth_propagate():
    class Raises:
        def __eq__(self, other):
            raise ZeroDivisionError

        __hash__ = None

    class Untrue:
        def __bool__(self):
            raise KeyError

    class Odd:
        def __eq__(self, other):
            return Untrue()

        __hash__ = None

    for bad, error in ((Raises(), ZeroDivisionError), (Odd(), KeyError)):
        c = AtomicCell(bad)
        with pytest.raises(error):
            c.compare_exchange(1, 2)
        with pytest.raises(error):
            c.wait(1)
        assert c.load() is bad


@pytest.mark.parametrize("cls", BOTH)
def test_each_old_value_is_dropped_once_outside(cls):
    dropped = []

    class Drops:
        def __init__(self, name):
            self.name = name

        def __del__(self):
            dropped.append((self.name, getattr(cell.load(), "name", None)))

    cell = cls(Drops("a"))
    cell.store(Drops("b"))
    assert dropped == [("a", "b")], "the destructor sees the new value"
    old = cell.swap(Drops("c"))
    assert len(dropped) == 1
    del old
    assert dropped[1:] == [("b", "c")]
    cell.compare_exchange(cell.load(), Drops("d"))
    assert dropped[2:] == [("c", "d")]
    cell.fetch_update(lambda x: Drops("e"))
    assert dropped[3:] == [("d", "e")]
    cell.into_inner()
    assert dropped[4:] == [("e", None)]


@pytest.mark.parametrize("cls", BOTH)
def test_destructors_may_use_the_cell(cls):
    cell = cls()

    class Restores:
        left = 50

        def __del__(self):
            if Restores.left:
                Restores.left -= 1
                cell.store(Restores())

    cell.store(Restores())
    for left in range(49, -1, -1):
        cell.store(None)
        assert Restores.left == left
        assert isinstance(cell.load(), Restores), "stored by the destructor"
    cell.store(None)
    assert cell.load() is None


# -- storms ------------------------------------------------------------------------


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize(("readers", "writers"), [(2, 2), (6, 2), (2, 6), (10, 1)])
def test_storm_of_loads_and_stores(cls, readers, writers):
    seed = random.randrange(2**32)
    print("seed", seed)
    cells = [cls(Counted(i)) for i in range(3)]
    n = 4000 // (readers + writers)
    running = fastsync.AtomicI64(writers)

    def read(i):
        rng = random.Random(seed + i)
        seen = 0
        while running.load() or seen < n:
            x = rng.choice(cells).load()
            assert type(x) is Counted
            assert x.check is x.value is not None
            seen += 1

    def write(i):
        rng = random.Random(seed + 1000 + i)
        for k in range(n):
            cell = rng.choice(cells)
            if k % 3 == 0:
                old = cell.swap(Counted(k))
                assert old.check is not None
            elif k % 3 == 1:
                cell.store(Counted(k))
            else:
                old = cell.load()
                done, previous = cell.compare_exchange(old, rng.choice(cells).load())
                assert (previous is old) == done
        running.fetch_sub(1)

    run_threads(
        [lambda i=i: read(i) for i in range(readers)]
        + [lambda i=i: write(i) for i in range(writers)]
    )

    def only_theirs():
        gc.collect()
        return Counted.alive.load() == len({id(cell.load()) for cell in cells})

    wait_until(only_theirs)


HAZARDS = pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="no hazard pointers are needed"
)


class Small:
    __slots__ = ("__weakref__", "name")

    def __init__(self, name):
        self.name = name


def make_at(address, name):
    """An object at an address where one has just been freed, or None; for as long as it lives,
    so do those that were made in the search."""
    others = []
    for _ in range(2000):
        new = Small(name)
        if id(new) == address:
            return new
        others.append(new)
    return None


@HAZARDS
def test_a_load_never_returns_what_another_word_held_at_the_same_address():
    # A reader is preempted after reading the word.  Its object is freed, another one is made at
    # the address and stored in another word, whose writer finds the reader's hazard and grants it a
    # reference: to an object that the reader's word never held.
    granted = 0
    for other in [AtomicRef() for _ in range(200)]:
        one = AtomicRef(Small("ours"))
        address = id(one.load())
        alive = []

        def reuse(one=one, other=other, address=address, alive=alive):
            one.store(None)
            if (stranger := make_at(address, "theirs")) is not None:
                alive.append(weakref.ref(stranger))
                other.store(stranger)

        def take_out(other=other, alive=alive):
            nonlocal granted
            other.store(None)
            granted += any(ref() is not None for ref in alive)

        result = reference._preempted_load(one, reuse, take_out)
        assert result is None, f"the reference gave {result[0].name}"
        assert all(ref() is None for ref in alive), "the granted reference was kept"
    assert granted > 0, "no two words shared hazard pointers: the test did not test"


@HAZARDS
def test_a_load_returns_what_came_back_to_its_word():
    # The same, but the new object at the old address is in the reader's own word when it looks.
    came_back = 0
    for _ in range(100):
        one = AtomicRef(Small("first"))
        address = id(one.load())

        def change(one=one, address=address):
            one.store(None)
            one.store(make_at(address, "second"))

        result = reference._preempted_load(one, change, lambda: None)
        if one.load() is not None:
            assert result is not None and result[0].name == "second"
            came_back += 1
        else:
            assert result is None
        gone = weakref.ref(one.load()) if one.load() is not None else lambda: None
        del result
        one.store(None)
        assert gone() is None, "counted once too often"
    assert came_back > 0


@HAZARDS
@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_load_that_was_granted_counts_once(times):
    # The object leaves the word after the reader's announcement, and comes back.
    one, value = AtomicRef(), Small("value")
    one.store(value)

    def leave_and_return():
        for _ in range(times):
            one.store(None)
            one.store(value)  # noqa: F821 (deleted later)

    (result,) = reference._preempted_load(one, lambda: None, leave_and_return)
    assert result is value
    one.store(None)
    gone = weakref.ref(value)
    del result, value
    assert gone() is None


@HAZARDS
def test_a_load_whose_word_was_emptied_starts_again():
    one = AtomicRef(Small("value"))
    gone = weakref.ref(one.load())
    assert reference._preempted_load(one, lambda: None, lambda: one.store(None)) is None
    assert gone() is None, "the granted reference was kept"


@HAZARDS
def test_a_writer_grants_every_preempted_reader_a_reference():
    r = AtomicRef(Counted(1))
    granted, hazards = reference._granted(r, Counted(2))
    assert granted == hazards > 64
    assert r.load().value == 2
    assert Counted.alive.load() == 1


@pytest.mark.parametrize(
    "replace",
    [lambda r, new: r.store(new), lambda r, new: r.compare_exchange(r.load(), new)],
    ids=["store", "compare_exchange"],
)
def test_more_readers_than_hazards(replace):
    # More threads under way in one word's loads than its group has hazard pointers: they are
    # preempted there, also between looking at the word and counting.
    readers, stores = 100, 20_000
    r = AtomicRef(Counted(1))
    gate = threading.Barrier(readers + 1)
    stop = fastsync.AtomicBool(False)

    def read(_):
        gate.wait()
        while not stop.load():
            for _ in range(50):
                assert r.load().check is not None

    def write():
        gate.wait()
        try:
            end = time.monotonic() + 1.5
            for i in range(stores):
                replace(r, Counted(i))
                if i % 10 == 0:
                    time.sleep(0)
                    if time.monotonic() > end:
                        break
        finally:
            stop.store(True)

    run_threads([write, *[lambda i=i: read(i) for i in range(readers)]])
    r.store(None)


@pytest.mark.parametrize("cls", BOTH)
def test_own_and_foreign_objects_of_every_size(cls):
    # a load looks into an object before it has a reference: into memory of every sort
    cell = cls(b"x")
    sizes = [1, 1, 100, 5000, 200_000, 20_000_000]

    def work(i):
        for k in range(60):
            cell.store(bytes([i]) * sizes[(k + i) % len(sizes)])
            for _ in range(20):
                value = cell.load()
                assert value[0] == value[-1]

    run_threads(work, 4)
    cell.store(None)


def test_immortal_and_mortal_objects_mixed():
    r = AtomicRef(None)
    values = [None, 1, "text", (), Counted, object(), [1]]

    def work(i):
        for k in range(2000):
            r.store(values[(i + k) % len(values)])
            assert r.load() in values
            r.compare_and_set(None, values[k % len(values)])

    run_threads(work, 4)


def test_reference_counts_stay_level():
    x, y = object(), object()
    r = AtomicRef(x)

    def work(_):
        for _ in range(500):
            r.load()
            r.store(y)
            r.swap(x)
            r.compare_exchange(x, y)
            r.compare_exchange(None, y)
            r.update(lambda v: x)

    before = None
    for _ in range(3):
        run_threads(work, 4)
        r.store(None)

        def counts():
            gc.collect()
            return sys.getrefcount(x), sys.getrefcount(y)

        if before is None:
            before = counts()
        assert counts() == before
    assert before == (sys.getrefcount(object()) + 1,) * 2


def test_a_compare_exchange_that_loses_a_race_keeps_nothing():
    x, y = object(), object()
    r = AtomicRef(x)
    gate = threading.Barrier(2)

    def race(i):
        mine, theirs = (x, y) if i else (y, x)
        gate.wait()
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            for _ in range(1000):
                r.compare_and_set(mine, theirs)
                r.compare_and_set(theirs, mine)

    before = sys.getrefcount(x) + sys.getrefcount(y)
    run_threads(race, 2)
    gc.collect()
    assert sys.getrefcount(x) + sys.getrefcount(y) == before


def test_swap_hands_every_object_to_one_thread():
    r = AtomicRef(-1)
    n, threads = 500, 8
    got = run_threads(lambda i: [r.swap(n * i + j) for j in range(n)], threads)
    assert sorted([*itertools.chain(*got), r.load()]) == list(range(-1, n * threads))


@pytest.mark.parametrize(
    "cls, name",
    [
        (AtomicRef, "compare_and_set"),
        (AtomicRef, "compare_exchange"),
        (AtomicRef, "compare_exchange_weak"),
        (AtomicCell, "compare_exchange"),
    ],
)
def test_who_loses_a_race_keeps_no_reference(cls, name):
    class Thing:
        pass

    a, b = Thing(), Thing()
    r = cls(a)
    exchange = getattr(r, name)
    before = sys.getrefcount(a), sys.getrefcount(b)

    def there_and_back(_, a=a, b=b, exchange=exchange):
        for _ in range(10000):
            exchange(a, b)
            exchange(b, a)

    run_threads(there_and_back, 4)
    r.store(a)
    del there_and_back
    gc.collect()
    assert (sys.getrefcount(a), sys.getrefcount(b)) == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_amid_loads():
    r = AtomicRef([1])
    stop = fastsync.AtomicBool(False)

    # No closures: CPython 3.13t locks a closure's cell to read it, and the child may find it
    # locked by a thread that it does not have.
    def read(r=r, stop=stop):
        while not stop.load():
            r.load()

    def forks(r=r, stop=stop):
        try:
            for _ in range(10):
                pid = os.fork()
                if pid == 0:
                    signal.alarm(30)  # no test's deadline ends a child
                    ok = r.load() == [1] and r.swap(2) == [1] and r.load() == 2
                    os._exit(0 if ok else 1)
                assert os.waitpid(pid, 0)[1] == 0
        finally:
            stop.store(True)

    run_threads([read, read, forks])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_loads_that_a_fork_cut_off_hold_nothing_in_the_child():
    # The interpreter's own fork seldom comes in the middle of a load; libc's does.
    run_python("-c", textwrap.dedent("""
        import ctypes, os, signal, sys, threading
        import fastsync

        target = [1]
        r = fastsync.AtomicRef(target)
        stop = fastsync.AtomicBool(False)
        fork = ctypes.PyDLL(None).fork  # with the thread state
        drop = r.store

        def read(r=r, stop=stop):
            while not stop.load():
                r.load()

        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        kept = 0
        for _ in range(60):
            pid = fork()
            if pid == 0:
                signal.alarm(30)  # no test's deadline ends a child
                before = sys.getrefcount(target)
                drop(None)
                os._exit(before - sys.getrefcount(target) != 1)
            kept += os.waitpid(pid, 0)[1] != 0
        stop.store(True)
        for reader in readers:
            reader.join()
        assert kept == 0, f"{kept} children"
    """))  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_loads_of_many_threads_that_a_fork_cut_off_hold_nothing_in_the_child():
    # More than a group has lines for: the others are in its chunk.
    run_python("-W", "ignore", "-c", textwrap.dedent("""
        import gc, os, sys, threading, weakref
        import fastsync
        from fastsync.objects.reference import _preempted_load

        class Target:
            pass

        ref = fastsync.AtomicRef(Target())
        inside, go = threading.Semaphore(0), threading.Event()

        def load(ref=ref, inside=inside, go=go):
            _preempted_load(ref, lambda: None, lambda: (inside.release(), go.wait(60)))

        threads = [threading.Thread(target=load) for _ in range(40)]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert inside.acquire(timeout=60)
        gone = weakref.ref(ref.load())
        pid = os.fork()
        if pid == 0:
            ref.store(None)
            gc.collect()
            os._exit(gone() is not None)
        kept = os.waitpid(pid, 0)[1]
        go.set()
        for thread in threads:
            thread.join(60)
        assert kept == 0
    """))  # fmt: skip


# -- waiting -----------------------------------------------------------------------


@pytest.mark.parametrize("cls", BOTH)
def test_wait_and_notify(cls):
    x, y = [1], [2]
    cell = cls(x)
    assert cell.wait(y) is True
    assert cell.wait(x, 0) is False
    assert cell.wait(x, -5) is False
    assert cell.wait(x, 0.001) is False
    with pytest.raises(ValueError):
        cell.wait(x, math.nan)

    def waker():
        for _ in range(20):
            cell.notify_all()
        cell.store(y)
        cell.notify_one()
        cell.notify_all()

    assert run_threads([lambda: cell.wait(x, 1e300), lambda: cell.wait(x), waker])[:2] == [
        True,
        True,
    ]


def test_cell_waits_while_equal():
    c = AtomicCell([1])

    def waker():
        for _ in range(20):
            c.store([1])  # another object, equal still
            c.notify_all()
        c.store([2])
        c.notify_all()

    assert run_threads([lambda: c.wait([1]), waker])[0] is True


# -- the interpreter's side --------------------------------------------------------


@pytest.mark.parametrize("cls", BOTH)
def test_cycles_are_collected(cls):
    cell = cls()
    node = Counted()
    node.cell = cell
    cell.store(node)
    seen = weakref.ref(cell)
    assert gc.is_tracked(cell)
    del cell, node
    gc.collect()
    assert seen() is None
    alone = cls()
    alone.store(alone)
    seen = weakref.ref(alone)
    del alone
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize("cls", BOTH)
def test_collections_amid_a_storm(cls):
    cell = cls()
    running, steps = fastsync.AtomicI64(3), fastsync.AtomicI64(0)

    def churn(_):
        for i in range(300):
            steps.fetch_add(1)
            node = Counted(i)
            node.back = cls(node)
            cell.store(node)
            cell.load().back.load()
        running.fetch_sub(1)

    def collect():
        collect_between_steps(running.load, steps.load)

    run_threads([*[lambda i=i: churn(i) for i in range(3)], collect])
    cell.store(None)


@pytest.mark.parametrize("cls", BOTH)
def test_long_chains_are_freed(cls):
    chain = None
    for _ in range(200_000):
        chain = cls(chain)
    del chain


@pytest.mark.parametrize("cls", BOTH)
def test_python_protocols(cls):
    cell = cls("x")
    assert repr(cell) == f"{cls.__name__}('x')"
    cell.store(cell)
    assert repr(cell) == f"{cls.__name__}({cls.__name__}(...))"
    cell.store(None)
    assert cell != cls(None)
    assert hash(cell) == hash(cell)
    assert cls[int].__origin__ is cls
    for copier in (copy.copy, copy.deepcopy, pickle.dumps, lambda x: pickle.dumps(x, 0)):
        with pytest.raises(TypeError, match="cannot pickle"):
            copier(cell)
    with pytest.raises(TypeError):
        type("Sub", (cls,), {})
    for call in (
        lambda: cls(1, 2),
        lambda: cell.store(),
        lambda: cell.load(1, 2),
        lambda: cell.swap(),
    ):
        with pytest.raises(TypeError):
            call()
    assert weakref.ref(cell)() is cell
    cls.__init__(cell, "again")
    assert cell.load() == "again"


@pytest.mark.skipif(not hasattr(sys, "_is_gil_enabled"), reason="the header is the point")
def test_sizes():
    if not sys._is_gil_enabled():
        assert sys.getsizeof(AtomicRef()) <= 48


@pytest.mark.parametrize("cls", BOTH)
def test_pinned(cls):
    cell = fastsync.pin(cls([1]))
    if fastsync.is_pinned(cell):
        assert not gc.is_tracked(cell)
    run_threads(lambda i: [cell.store([i]) or cell.load() for _ in range(500)], 4)
    gc.collect()
    assert cell.load()[0] in range(4)
    cell.store(None)


def test_thread_starts_and_ends():
    # a thread's number, which picks its hazard pointer, is never given back: that must not matter
    r = AtomicRef([1])
    for _ in range(300):
        thread = threading.Thread(target=r.load)
        thread.start()
        thread.join()
    assert r.load() == [1]
