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
    # a thread's number, which picks its slot, is never given back: that must not matter
    r = AtomicRef([1])
    for _ in range(300):
        thread = threading.Thread(target=r.load)
        thread.start()
        thread.join()
    assert r.load() == [1]
