"""The storms of tools/stress.py in short form, and faults injected from outside."""

import importlib.util
import random
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from conftest import run_python, run_threads

import fastsync.threading as fs

TOOLS = Path(__file__).resolve().parent.parent / "tools"
SPEC = importlib.util.spec_from_file_location("fastsync_stress", TOOLS / "stress.py")
stress = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(stress)

FREE_THREADED = "free-threading" in sys.version


@pytest.mark.stress
@pytest.mark.parametrize("name", stress.STORMS)
def test_storm(name):
    stress.run(name, 0.8, random.randrange(2**32))


@pytest.mark.stress
@pytest.mark.skipif(not FREE_THREADED, reason="has the GIL anyway")
def test_storms_with_the_gil_on_in_a_free_threaded_build():
    # Not as a script: its folder would stand in sys.path for the one that fastsync is in.
    source = (
        "import runpy, sys; sys.argv = ['stress', '--seconds', '0.4', 'lock', 'condition', 'event',"
        " 'barrier', 'permits', 'signals', 'guards', 'turns', 'native_signals']; runpy.run_path("
        f"{str(TOOLS / 'stress.py')!r}, run_name='__main__')"
    )
    done = run_python("-X", "gil=1", "-c", source)
    assert "barrier" in done.stdout


def test_gil_stays_off():
    if FREE_THREADED:
        run_python("-W", "error", "-c", "import sys, fastsync.threading as t; t.Condition(); "
                   "assert not sys._is_gil_enabled()")  # fmt: skip


def test_memory_errors_at_every_allocation_leave_everything_usable():
    pytest.importorskip("_testcapi")
    done = run_python(
        "-c",
        textwrap.dedent("""
        import _testcapi, threading as stock
        import fastsync.threading as t

        def once():
            things = [t.Lock(), t.RLock(), t.Semaphore(), t.BoundedSemaphore(), t.Condition(),
                      t.Condition(t.Lock()), t.Condition(foreign)]
            for thing in things:
                with thing: pass
                thing.acquire(timeout=0.001); thing.release()
                repr(thing)
                thing.acquire(False); thing.release()
            for condition in things[4:]:
                condition._lock
                condition.attribute = 1
                with condition:
                    condition.wait(0.00001)
                    condition.wait_for(int, 0.00001)
                    condition.notify_all()
                condition._waiters
            event, barrier = t.Event(), t.Barrier(1, int, 1)
            event.wait(0.00001); event._cond; event.set(); event.wait(); repr(event)
            barrier.wait(); barrier.abort(); repr(barrier); barrier.reset()
            for thing in (shared, shared_r):
                with thing: pass
            with shared_c:
                shared_c.wait(0.00001)
                shared_c.other = 1

        shared, shared_r, shared_c, foreign = t.Lock(), t.RLock(), t.Condition(), stock.Lock()
        once()
        failures = 0
        for start in range(1, 400):
            error = None
            _testcapi.set_nomemory(start, start + 1)
            try:
                once()
            except MemoryError:
                failures += 1
            finally:
                _testcapi.remove_mem_hooks()
            if foreign.locked(): foreign.release()  # the original may be left so
            assert not shared.locked() and not shared_r.locked() and not shared_c.locked(), start
            assert not shared_c._waiters
        once()
        print(failures)
        """),
    )
    assert int(done.stdout) > 10


def test_recursion_limit_leaves_the_locks_usable(impl):
    locks = impl.Lock(), impl.RLock(), impl.Condition(), impl.Semaphore()

    def deep():
        with locks[1], locks[2]:
            deep()

    with pytest.raises(RecursionError):
        deep()
    for lock in locks:
        assert run_threads([lambda lock=lock: lock.acquire(False) and not lock.release()]) == [True]


def test_subinterpreter_imports_us_or_says_clearly_why_not():
    done = run_python(
        "-c",
        textwrap.dedent("""
        try:
            import _interpreters as sub
            ident = sub.create()
            run = lambda code: sub.run_string(ident, code)
        except ImportError:
            import _xxsubinterpreters as sub
            ident = sub.create()
            run = lambda code: sub.run_string(ident, code)
        import fastsync.threading
        code = '''
        try:
            import fastsync.threading as t
            lock = t.Lock()
            with lock: pass
            result = "works"
        except ImportError as error:
            result = f"ImportError: {error}"
        print(result)
        '''
        import textwrap
        outcome = run(textwrap.dedent(code))
        assert not outcome, outcome
        with fastsync.threading.Lock():
            pass
        """),
    )
    assert "works" in done.stdout or "ImportError: " in done.stdout
    assert len(done.stdout.strip()) > 5


def test_timeouts_of_all_sizes_at_once_on_one_word():
    lock = fs.Lock()
    lock.acquire()
    timeouts = [0, 1e-9, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 20]

    def wait(i):
        return lock.acquire(timeout=timeouts[i % len(timeouts)]) and (lock.release() or True)

    def release():
        while not released.is_set():
            pass
        lock.release()

    released = threading.Event()
    timer = threading.Timer(0.05, released.set)
    timer.start()
    results = run_threads([release, *[lambda i=i: wait(i) for i in range(27)]])
    timer.join()
    assert results.count(True) >= 3 and not lock.locked()


def test_interpreter_is_not_crashed_by_odd_calls():
    odd = [
        None,
        0,
        -1,
        1.5,
        "x",
        b"x",
        [],
        {},
        object(),
        float("nan"),
        float("inf"),
        2**70,
        fs.Lock,
    ]
    for make in (
        fs.Lock, fs.RLock, fs.Condition, fs.Semaphore, fs.BoundedSemaphore, fs.Event,
        lambda: fs.Barrier(1), lambda: fs.Condition()._lock, lambda: fs.Condition(threading.Lock()),
    ):  # fmt: skip
        for name in dir(make()):
            if name in (
                "__class__",
                "__init_subclass__",
                "__subclasshook__",
                "__new__",
                "__dict__",
            ):
                continue
            for arguments in ((), *[(x,) for x in odd], (None, None, None), (0, 0), ("a", "b")):
                thing = make()
                if name in ("acquire", "__enter__", "wait", "wait_for", "acquire_lock"):
                    arguments = (*arguments[:1], 0)
                try:
                    getattr(thing, name)(*arguments)
                except Exception as error:
                    assert not isinstance(error, SystemError), (name, arguments)


def test_types_made_without_init_work():
    for cls in (fs.Lock, fs.RLock, fs.Condition, fs.Semaphore, fs.BoundedSemaphore):
        thing = cls.__new__(cls)
        with thing:
            assert not run_threads([lambda thing=thing: thing.acquire(False)])[0]
    event = fs.Event.__new__(fs.Event)
    event.set()
    assert event.wait()
    assert fs.Barrier.__new__(fs.Barrier).wait() == 0
