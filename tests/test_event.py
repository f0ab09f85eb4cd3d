"""Event: what `threading.Event` guarantees, asserted of both."""

import copy
import gc
import pickle
import sys
import threading
import time

import pytest
from conftest import background, run_threads, wait_asleep

import fastsync.threading as fs


@pytest.fixture
def event(impl):
    return impl.Event()


def test_flag_is_set_and_cleared(event):
    assert event.is_set() is False
    assert event.set() is None
    event.set()
    assert event.is_set() is True and event.wait() is True and event.wait(0) is True
    assert event.clear() is None
    event.clear()
    assert event.is_set() is False and event.wait(0) is False and event.wait(0.001) is False


def test_negative_timeout_answers_at_once(event):
    for timeout in (-1, -0.5, -float("inf"), -1e100):
        assert event.wait(timeout) is False


def test_bad_timeout_is_refused_while_clear(event):
    for timeout, error in (
        ("1", TypeError),
        ([], TypeError),
        (float("inf"), OverflowError),
        (1e100, OverflowError),
        (2**70, OverflowError),
    ):
        with pytest.raises(error):
            event.wait(timeout)
        with pytest.raises(error):
            event.wait(timeout=timeout)
    event.set()
    assert event.wait(1e100) is True


def test_set_wakes_all_waiters(event):
    results = []
    with background(*[lambda: results.append(event.wait(20))] * 10) as threads:
        wait_asleep(*threads)
        event.set()
    assert results == [True] * 10


def test_waiter_woken_by_set_is_not_held_back_by_clear(event):
    for _ in range(20):
        results = []
        with background(*[lambda r=results: r.append(event.wait(20))] * 3) as threads:
            wait_asleep(*threads)
            event.set()
            event.clear()
        assert results == [True] * 3
        assert not event.is_set()


def test_clear_forgets_no_waiter(event):
    results = []
    with background(*[lambda: results.append(event.wait(20))] * 2) as threads:
        wait_asleep(*threads)
        event.clear()
        event.set()
    assert results == [True] * 2


def test_wait_after_clear_is_not_ended_by_an_earlier_set(event):
    event.set()
    event.clear()
    assert event.wait(0.01) is False


def test_two_threads_take_turns(impl):
    ping, pong, log = impl.Event(), impl.Event(), []

    def play(mine, theirs, name):
        for _ in range(100):
            assert mine.wait(20)
            mine.clear()
            log.append(name)
            theirs.set()

    ping.set()
    run_threads([lambda: play(ping, pong, 1), lambda: play(pong, ping, 2)])
    assert log == [1, 2] * 100


def test_setting_and_clearing_while_others_time_out_loses_nothing(event):
    stop = threading.Event()

    def wait(i):
        while not stop.is_set():
            event.wait(0.0001 * (i + 1))

    def pulse():
        for _ in range(300):
            event.set()
            event.clear()
        stop.set()
        event.set()

    run_threads([pulse, *[lambda i=i: wait(i) for i in range(4)]])
    assert event.is_set()


def test_timeout_lasts_at_least_as_long_as_asked(event):
    begin = time.monotonic()
    assert event.wait(0.05) is False
    assert time.monotonic() - begin >= 0.05


def test_repr_shows_the_flag(event):
    assert repr(event) == f"<threading.Event at {id(event):#x}: unset>"
    event.set()
    assert repr(event) == f"<threading.Event at {id(event):#x}: set>"


def test_deprecated_name_warns_and_works(event):
    with pytest.warns(DeprecationWarning, match="is_set"):
        assert event.isSet() is False


def test_wrong_arguments_are_refused(impl, event):
    for call in (
        lambda: impl.Event(1),
        lambda: event.set(1),
        lambda: event.clear(1),
        lambda: event.wait(1, 2),
        lambda: event.wait(seconds=1),
    ):
        with pytest.raises(TypeError):
            call()


def test_private_attributes_that_are_read_by_others(event):
    assert event._flag is False
    event.set()
    assert event._flag is True
    with event._cond:
        assert event._cond is event._cond
    assert event._cond.acquire(False)
    event._cond._at_fork_reinit()
    event._at_fork_reinit()
    assert event.is_set()


def test_subclass_may_override(impl):
    class Sub(impl.Event):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def set(self):
            self.calls += 1
            super().set()

    event = Sub()
    event.set()
    assert event.calls == 1 and event.is_set()
    assert "Sub" in repr(event)


def test_second_init_clears_the_flag(event):
    event.set()
    event.__init__()
    assert not event.is_set()


def test_event_is_not_pickled(event):
    with pytest.raises(TypeError):
        pickle.dumps(event)


# -- ours alone ---------------------------------------------------------------


def test_nan_timeout_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        fs.Event().wait(float("nan"))


def test_at_fork_reinit_does_not_end_a_wait_as_set():
    event, results = fs.Event(), []
    with background(lambda: results.append(event.wait(0.3))) as threads:
        wait_asleep(*threads, or_ended=True)
        event._at_fork_reinit()
    assert results == [False]


def test_at_fork_reinit_forgets_no_waiter():
    event, results = fs.Event(), []
    with background(lambda: results.append(event.wait(20))) as threads:
        wait_asleep(*threads)
        event._at_fork_reinit()
        wait_asleep(*threads)
        event.set()
    assert results == [True]


def test_two_threads_may_ask_for_the_condition_at_once():
    for _ in range(50):
        event, gate = fs.Event(), threading.Barrier(3)

        def look(_, event=event, gate=gate):
            gate.wait()
            return event._cond

        first, second, third = run_threads(look, count=3)
        assert first is second is third


def test_event_is_not_copied():
    for refuse in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            refuse(fs.Event())


def test_subclass_without_super_init(impl):
    class Sub(impl.Event):
        def __init__(self):
            pass

    event = Sub()
    for use in (event.set, event.wait, event.is_set):
        with pytest.raises(AttributeError, match="has no attribute '_"):
            use()


def test_event_is_small_and_not_tracked():
    assert sys.getsizeof(fs.Event()) <= 64
    assert not gc.is_tracked(fs.Event())
