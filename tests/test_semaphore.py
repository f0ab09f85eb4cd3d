"""Semaphore and BoundedSemaphore: what the originals guarantee, asserted of both."""

import contextlib
import copy
import gc
import pickle
import sys
import threading
import time

import pytest
from conftest import background, run_threads, wait_asleep, wait_until

import fastsync.threading as fs


@pytest.fixture(params=["Semaphore", "BoundedSemaphore"])
def kind(impl, request):
    return getattr(impl, request.param)


def test_value_counts_permits(kind):
    semaphore = kind(2)
    assert semaphore._value == 2
    assert semaphore.acquire() is True
    assert semaphore.acquire(False) is True
    assert semaphore.acquire(False) is False
    assert semaphore.acquire(blocking=False) is False
    assert semaphore.acquire(timeout=0.001) is False
    assert semaphore._value == 0
    assert semaphore.release() is None
    semaphore.release(1)
    assert semaphore._value == 2
    assert kind()._value == 1


def test_negative_value_is_refused(kind):
    with pytest.raises(ValueError, match=r"^semaphore initial value must be >= 0$"):
        kind(-1)
    for value in ("1", None, [], kind):
        with pytest.raises(TypeError):
            kind(value)


def test_with_takes_and_releases(kind):
    semaphore = kind(1)
    with semaphore as answer:
        assert answer is True and semaphore._value == 0
    assert semaphore._value == 1
    with pytest.raises(KeyError), semaphore:
        raise KeyError
    assert semaphore._value == 1
    with contextlib.ExitStack() as stack:
        stack.enter_context(semaphore)
        assert semaphore._value == 0
    assert semaphore._value == 1


def test_timeout_that_is_not_positive_answers_at_once(kind):
    semaphore = kind(1)
    for timeout in (0, -1, -0.5, -float("inf"), -1e100, 0.0):
        assert semaphore.acquire(timeout=timeout) is True
        assert semaphore.acquire(timeout=timeout) is False
        semaphore.release()


def test_timeout_without_blocking_is_refused(kind):
    semaphore = kind(1)
    message = r"^can't specify timeout for non-blocking acquire$"
    for timeout in (1, 0, -1, 0.5):
        with pytest.raises(ValueError, match=message):
            semaphore.acquire(False, timeout)
    assert semaphore._value == 1
    assert semaphore.acquire(False, None) is True


def test_bad_timeout_is_refused_and_takes_nothing(kind):
    semaphore = kind(0)
    for timeout, error in (
        ("1", TypeError),
        ([], TypeError),
        (float("inf"), OverflowError),
        (1e100, OverflowError),
        (2**70, OverflowError),
    ):
        with pytest.raises(error):
            semaphore.acquire(timeout=timeout)
    assert semaphore._value == 0
    semaphore2 = kind(1)
    semaphore2.acquire()
    semaphore2.release()


def test_release_of_less_than_one_is_refused(kind):
    semaphore = kind(1)
    for n in (0, -1):
        with pytest.raises(ValueError, match=r"^n must be one or more$"):
            semaphore.release(n)
    with pytest.raises(TypeError):
        semaphore.release("1")
    assert semaphore._value == 1


def test_release_wakes_as_many_as_it_gives(kind):
    semaphore = kind(5)
    for _ in range(5):
        semaphore.acquire()
    taken = []

    def take():
        semaphore.acquire()
        taken.append(1)

    with background(*[take] * 5) as threads:
        wait_asleep(*threads)
        for n, total in ((2, 2), (1, 3), (2, 5)):
            semaphore.release(n)
            wait_until(lambda total=total: len(taken) == total)
    assert semaphore._value == 0


def test_never_more_inside_than_permits(kind):
    semaphore = kind(3)
    inside, lock, most = 0, threading.Lock(), 0

    def work(_):
        nonlocal inside, most
        for _ in range(300):
            with semaphore:
                with lock:
                    inside += 1
                    most = max(most, inside)
                with lock:
                    inside -= 1

    run_threads(work, count=6)
    assert most <= 3 and semaphore._value == 3


def test_timed_out_waiters_leave_nothing_behind(kind):
    semaphore = kind(1)
    semaphore.acquire()
    results = run_threads(lambda i: semaphore.acquire(timeout=0.001 * (i % 4)), count=8)
    assert results == [False] * 8
    semaphore.release()
    assert semaphore.acquire(False) and not semaphore.acquire(False)


def test_self_deadlock_ends_at_its_timeout(kind):
    semaphore = kind(1)
    with semaphore:
        begin = time.monotonic()
        assert semaphore.acquire(True, 0.05) is False
        assert time.monotonic() - begin >= 0.05


def test_any_thread_may_release(kind):
    semaphore = kind(1)
    semaphore.acquire()
    run_threads([semaphore.release])
    assert semaphore._value == 1


def test_release_past_the_initial_value_is_refused_as_a_whole(impl):
    message = r"^Semaphore released too many times$"
    semaphore = impl.BoundedSemaphore(3)
    for n in (1, 2, 100, sys.maxsize, 10**30):
        with pytest.raises(ValueError, match=message):
            semaphore.release(n)
    semaphore.acquire()
    with pytest.raises(ValueError, match=message):
        semaphore.release(2)
    assert semaphore._value == 2
    semaphore.release()
    assert semaphore._value == semaphore._initial_value == 3


def test_bounded_release_by_many_threads_is_exact(impl):
    semaphore = impl.BoundedSemaphore(50)
    for _ in range(50):
        semaphore.acquire()

    def give(_):
        given = 0
        for _ in range(40):
            with contextlib.suppress(ValueError):
                semaphore.release()
                given += 1
        return given

    assert sum(run_threads(give, count=4)) == 50 == semaphore._value


def test_unbounded_value_may_grow(impl):
    many = 10**9
    if impl is not fs and sys.version_info < (3, 12):
        many = 1000  # the original's release() is a loop there
    semaphore = impl.Semaphore(0)
    semaphore.release(many)
    assert semaphore._value == many


def test_exit_calls_an_overridden_release(impl):
    calls = []

    class Sub(impl.Semaphore):
        def release(self, n=1):
            calls.append(n)
            super().release(n)

    with Sub(1):
        pass
    assert calls == [1]


def test_exit_calls_a_release_set_on_the_instance(impl):
    semaphore, calls = impl.Semaphore(1), []
    semaphore.release = lambda: calls.append(1)
    with semaphore:
        pass
    assert calls == [1] and semaphore._value == 0


def test_subclass_with_a_call_method_is_still_counted_by_with(impl):
    class Sub(impl.Semaphore):
        def __call__(self, *_):
            raise AssertionError

    semaphore = Sub(1)
    with semaphore:
        assert semaphore._value == 0
    assert semaphore._value == 1


def test_repr_shows_the_value(impl):
    semaphore, bounded = impl.Semaphore(3), impl.BoundedSemaphore(4)
    semaphore.acquire(), bounded.acquire()
    assert repr(semaphore) == f"<threading.Semaphore at {id(semaphore):#x}: value=2>"
    assert repr(bounded) == f"<threading.BoundedSemaphore at {id(bounded):#x}: value=3/4>"


def test_attributes_weak_references_and_pickle(kind):
    semaphore = kind(1)
    semaphore.name = "x"
    assert vars(semaphore)["name"] == "x"
    with pytest.raises(TypeError):
        pickle.dumps(semaphore)
    with semaphore._cond:
        pass


def test_wrong_arguments_are_refused(kind):
    semaphore = kind(1)
    for call in (
        lambda: kind(1, 2),
        lambda: kind(count=1),
        lambda: semaphore.acquire(1, 2, 3),
        lambda: semaphore.acquire(n=1),
        lambda: semaphore.release(1, 2),
    ):
        with pytest.raises(TypeError):
            call()
    assert semaphore._value == 1


def test_second_init_sets_the_value(kind):
    semaphore = kind(1)
    semaphore.acquire()
    semaphore.__init__(2)
    assert semaphore._value == 2


# -- ours alone ---------------------------------------------------------------


def test_nan_timeout_is_refused():
    for value in (0, 1):
        semaphore = fs.Semaphore(value)
        with pytest.raises(ValueError, match="NaN"):
            semaphore.acquire(timeout=float("nan"))
        assert semaphore._value == value


def test_second_init_with_waiters_serves_them():
    semaphore = fs.Semaphore(0)
    with background(semaphore.acquire) as threads:
        wait_asleep(*threads)
        semaphore.__init__(1)
    assert semaphore._value == 0


def test_second_init_with_waiters_serves_as_many_as_it_can():
    semaphore = fs.Semaphore(0)
    with background(*[semaphore.acquire] * 3) as threads:
        wait_asleep(*threads)
        semaphore.__init__(0)
        semaphore.__init__(2)
        wait_until(lambda: sum(thread.is_alive() for thread in threads) == 1)
        semaphore.release()
    assert semaphore._value == 0


def test_value_past_the_largest_is_refused():
    semaphore = fs.Semaphore(1)
    for n in (2**63 - 1, 2**63, 10**30):
        with pytest.raises(OverflowError):
            semaphore.release(n)
    with pytest.raises(OverflowError):
        fs.Semaphore(10**30)
    assert semaphore._value == 1
    empty = fs.Semaphore(0)
    for n in (2**63, 2**64, 10**30):
        with pytest.raises(OverflowError):
            empty.release(n)
    assert empty._value == 0
    empty.release(2**63 - 1)
    assert empty._value == 2**63 - 1


def test_semaphore_is_not_copied():
    for refuse in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            refuse(fs.Semaphore())


def test_subclass_without_super_init(impl):
    class Sub(impl.BoundedSemaphore):
        def __init__(self):
            pass

    semaphore = Sub()
    for use in (semaphore.acquire, semaphore.release, lambda: semaphore._value):
        with pytest.raises(AttributeError, match="has no attribute '_"):
            use()


def test_semaphore_is_small_and_not_tracked():
    stock = threading.Semaphore()
    parts = [stock, vars(stock), stock._cond, vars(stock._cond), stock._cond._waiters]
    assert sys.getsizeof(fs.Semaphore()) <= sum(map(sys.getsizeof, parts)) * 0.2
    assert not gc.is_tracked(fs.Semaphore())
