"""What CPython changed in 3.14 and 3.15, followed."""

import contextvars
import decimal
import fractions
import itertools
import sys
import textwrap
import time

import pytest
from conftest import run_python, run_threads

import fastsync
from fastsync import threading as fs

new = pytest.mark.skipif(sys.version_info < (3, 15), reason="new in 3.15")
REALS = [fractions.Fraction(1, 100), decimal.Decimal("0.01")]
SHORT = 0.01


def reals():
    class Real:
        def __float__(self):
            return SHORT

    return [*REALS, Real()]


# -- timeouts ------------------------------------------------------------------


@new
@pytest.mark.parametrize("kind", ["Lock", "RLock"])
@pytest.mark.parametrize("timeout", reals(), ids=lambda real: type(real).__name__)
def test_locks_take_any_real_number_as_a_timeout(impl, kind, timeout):
    lock = getattr(impl, kind)()
    assert lock.acquire(True, timeout) is True
    lock.release()
    assert lock.acquire(timeout=timeout) is True
    answers = []
    start = time.monotonic()
    run_threads([lambda: answers.append(lock.acquire(True, timeout))])
    assert answers == [False] and time.monotonic() - start >= SHORT


@new
@pytest.mark.parametrize("timeout", REALS, ids=lambda real: type(real).__name__)
def test_waits_take_any_real_number_as_a_timeout(impl, timeout):
    assert impl.Event().wait(timeout) is False
    condition = impl.Condition()
    with condition:
        assert condition.wait(timeout) is False
        assert condition.wait(-timeout) is False
        assert condition.wait(-timeout * 10**30) is False


@pytest.mark.skipif(sys.version_info >= (3, 15), reason="3.15 takes any real number")
@pytest.mark.parametrize("timeout", reals(), ids=lambda real: type(real).__name__)
def test_before_that_locks_took_int_and_float_only(impl, timeout):
    for lock in (impl.Lock(), impl.RLock()):
        with pytest.raises(TypeError):
            lock.acquire(True, timeout)
        assert not lock.acquire(False) or lock.release() is None


@new
def test_an_index_comes_before_a_float(impl):
    class Both:
        def __index__(self):
            return 0

        def __float__(self):
            return 3600.0

    lock = impl.Lock()
    assert lock.acquire(True, Both()) is True
    assert lock.acquire(True, Both()) is False


@new
@pytest.mark.parametrize("timeout", [decimal.Decimal("nan"), float("nan")])
def test_a_nan_is_refused_however_it_is_spelled(impl, timeout):
    for lock in (impl.Lock(), impl.RLock()):
        with pytest.raises(ValueError, match="NaN"):
            lock.acquire(True, timeout)
        assert lock.acquire(False)


def test_a_nan_is_refused_by_every_wait_and_leaves_no_waiter():
    nan = float("nan")
    condition = fs.Condition()
    with condition:
        for wait in (condition.wait, lambda t: condition.wait_for(lambda: False, t)):
            with pytest.raises(ValueError, match="NaN"):
                wait(nan)
    assert len(condition._waiters) == 0
    for wait in (fs.Event().wait, lambda t: fs.Semaphore(0).acquire(timeout=t)):
        with pytest.raises(ValueError, match="NaN"):
            wait(nan)


@new
@pytest.mark.parametrize("timeout", ["1", 1j, None, []], ids=repr)
def test_what_is_no_real_number_is_refused(impl, timeout):
    for lock in (impl.Lock(), impl.RLock()):
        with pytest.raises(TypeError, match="must be real number"):
            lock.acquire(True, timeout)


@new
def test_a_timeout_whose_conversion_raises_lets_that_through(impl):
    class Broken:
        def __float__(self):
            raise KeyError("mine")

    lock = impl.Lock()
    with pytest.raises(KeyError, match="mine"):
        lock.acquire(True, Broken())
    assert lock.acquire(False)


# -- the plain calls, which take a way of their own -------------------------------


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_a_timeout_alone_is_checked_as_any_other(impl, kind):
    lock = getattr(impl, kind)()
    with pytest.raises(ValueError, match=r"non-negative|must be positive"):
        lock.acquire(timeout=-2)
    with pytest.raises(OverflowError):
        lock.acquire(timeout=1e30)
    with pytest.raises(TypeError):
        lock.acquire(timeout="1")
    with pytest.raises(TypeError):
        lock.acquire(timeouts=1)
    assert lock.acquire(timeout=-1) is True
    lock.release()
    assert lock.acquire(**{"".join(["time", "out"]): 1}) is True  # a name that is not interned
    lock.release()
    with pytest.raises(RuntimeError):
        lock.release()


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_enter_and_exit_by_name_refuse_what_they_do_not_know(kind):
    lock = getattr(fs, kind)()
    enter, leave = type(lock).__enter__, type(lock).__exit__
    for call in (
        lambda: enter(),
        lambda: enter(1),
        lambda: enter(lock, other=1),
        lambda: leave(),
        lambda: leave(lock, 1, 2, 3, 4),
        lambda: leave(lock, 1, 2, 3, other=4),
    ):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(RuntimeError):
        leave(lock, None, None, None)
    assert enter(lock) is True
    assert leave(lock, exc_type=None) is None
    assert not lock.locked()


def test_a_timed_acquire_takes_a_free_lock_and_goes_deeper():
    lock = fs.RLock()
    for depth in range(1, 4):
        assert lock.acquire(timeout=5) is True
        assert lock._recursion_count() == depth
    answers = []
    run_threads([lambda: answers.append(lock.acquire(timeout=0.001))])
    assert answers == [False] and lock._recursion_count() == 3


# -- the end of the interpreter -----------------------------------------------

AT_THE_END = """
    import sys, threading, time
    import fastsync
    from fastsync import threading as ours

    LOCKS = {
        "Lock": ours.Lock, "RLock": ours.RLock, "writer": lambda: fastsync.RwLock(0).writer,
    }
    GUARDED = {
        "Mutex": lambda: fastsync.Mutex(0),
        "ReentrantMutex": lambda: fastsync.ReentrantMutex(0),
    }
    kind = "KIND"
    started = threading.Event()
    held = []

    if kind in LOCKS:
        lock = LOCKS[kind]()
        def hold():
            held.append(lock.acquire())
        wait = lock.acquire
    elif kind in GUARDED:
        lock = GUARDED[kind]()
        def hold():
            held.append(lock.lock())
        wait = lock.lock
    elif kind == "Event":
        def hold(): pass
        wait = ours.Event().wait
    elif kind == "Semaphore":
        def hold(): pass
        wait = ours.Semaphore(0).acquire
    elif kind == "Barrier":
        def hold(): pass
        wait = ours.Barrier(2).wait
    else:
        def hold(): pass
        condition = ours.Condition()
        condition.acquire()
        wait = condition.wait

    def loop():
        hold()
        started.set()
        while True:
            time.sleep(1)

    class Cycle:  # ends in the collection after the other threads have been stopped
        def __init__(self):
            self.me = self
            self.thread = threading.Thread(target=loop, daemon=True)
            self.thread.start()
            started.wait()

        def __del__(self):
            try:
                wait()
            except PythonFinalizationError as error:
                print("refused", error)

    Cycle()
"""


@new
@pytest.mark.parametrize(
    "kind",
    [
        "Lock",
        "RLock",
        "Mutex",
        "ReentrantMutex",
        "writer",
        "Event",
        "Semaphore",
        "Condition",
        "Barrier",
    ],
)
def test_a_wait_that_no_thread_could_end_is_refused_at_the_end(kind):
    done = run_python("-c", textwrap.dedent(AT_THE_END).replace("KIND", kind))
    assert "refused cannot acquire lock at interpreter finalization" in done.stdout, done.stderr


# -- iterators ------------------------------------------------------------------


@new
def test_iterators_are_made_of_our_locks():
    assert type(fs.serialize_iterator([])._lock) is fs.Lock
    assert type(fs.synchronized_iterator(itertools.count)()._lock) is fs.Lock
    first, second = fs.concurrent_tee([1, 2, 3])
    assert type(first.lock) is fs.Lock and first.lock is second.lock
    assert fs.concurrent_tee([1], 0) == ()
    with pytest.raises(ValueError):
        fs.concurrent_tee([1], -1)


@new
def test_an_installed_swap_reaches_the_iterators(swapped):
    import threading

    assert type(threading.serialize_iterator([])._lock) is fs.Lock
    assert type(threading.concurrent_tee([])[0].lock) is fs.Lock


@new
def test_iterators_serve_threads_at_once():
    @fs.synchronized_iterator
    def numbers(limit):
        """Of a generator."""
        yield from range(limit)

    assert numbers.__name__ == "numbers" and numbers.__doc__ == "Of a generator."
    shared, taken = numbers(2000), []
    run_threads([lambda: taken.extend(shared)] * 4)
    assert sorted(taken) == list(range(2000))

    parts = fs.concurrent_tee(iter(range(2000)), 4)
    seen = [[] for _ in parts]
    run_threads([lambda i=i: seen[i].extend(parts[i]) for i in range(4)])
    assert seen == [list(range(2000))] * 4


# -- threads ----------------------------------------------------------------------


@pytest.mark.skipif(sys.version_info < (3, 14), reason="new in 3.14")
def test_a_thread_inherits_the_context_as_the_interpreter_says():
    variable = contextvars.ContextVar("variable", default="default")
    variable.set("mine")
    seen = []
    thread = fs.Thread(target=lambda: seen.append(variable.get()))
    thread.start()
    thread.join(60)
    given = fs.Thread(
        target=lambda: seen.append(variable.get()), context=contextvars.copy_context()
    )
    given.start()
    given.join(60)
    inherits = bool(sys.flags.thread_inherit_context)
    assert seen == ["mine" if inherits else "default", "mine"]


def test_nothing_here_asks_for_a_private_handle_of_a_thread():
    # `_handle` became `_os_thread_handle` in 3.15.
    from pathlib import Path

    root = Path(fastsync.__file__).parent
    for path in root.rglob("*.py"):
        assert "._handle" not in path.read_text(encoding="utf-8"), path
