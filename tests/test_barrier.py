"""Barrier: what `threading.Barrier` guarantees, asserted of both."""

import contextlib
import copy
import pickle
import random
import sys
import textwrap
import threading
import time

import pytest
from conftest import background, run_python, run_threads, wait_asleep, wait_until

import fastsync.threading as fs

Broken = threading.BrokenBarrierError


def ended_broken(call):
    with pytest.raises(Broken):
        call()


def test_round_gives_each_thread_an_index(impl):
    barrier = impl.Barrier(4)
    for _ in range(10):
        assert sorted(run_threads(lambda _: barrier.wait(20), count=4)) == [0, 1, 2, 3]
    assert barrier.n_waiting == 0 and not barrier.broken and barrier.parties == 4


def test_one_party_never_waits(impl):
    barrier = impl.Barrier(1)
    assert [barrier.wait() for _ in range(3)] == [0, 0, 0]
    assert barrier.wait(0) == 0 and barrier.wait(-5) == 0


def test_no_thread_passes_before_all_have_come(impl):
    barrier, counts = impl.Barrier(4), [0] * 4

    def work(i):
        for round in range(1, 101):
            counts[i] = round
            barrier.wait(20)
            assert min(counts) >= round
            barrier.wait(20)

    run_threads(work, count=4)


def test_n_waiting_counts(impl):
    barrier = impl.Barrier(3)
    assert barrier.n_waiting == 0
    with background(barrier.wait, barrier.wait):
        wait_until(lambda: barrier.n_waiting == 2)
        assert barrier.wait() == 2
    assert barrier.n_waiting == 0


def test_action_runs_once_a_round_before_any_thread_leaves(impl):
    calls = []
    barrier = impl.Barrier(3, lambda: calls.append(threading.current_thread()))

    def work(_):
        for round in range(1, 31):
            barrier.wait(20)
            assert len(calls) >= round

    run_threads(work, count=3)
    assert len(calls) == 30


@pytest.mark.parametrize("action", [0, False, [], ""])
def test_an_action_that_is_false_is_none(impl, action):
    barrier = impl.Barrier(1, action)
    assert barrier.wait() == 0 and not barrier.broken


def test_a_timeout_that_passes_during_the_action_is_none(impl):
    def action():
        # Until it is over for the other, and a little longer.
        wait_until(lambda: time.monotonic() > began + 1.7)

    barrier = impl.Barrier(2, action)
    results = []
    began = time.monotonic()
    with background(lambda: results.append(barrier.wait(1.5))):
        wait_until(lambda: barrier.n_waiting == 1)
        results.append(barrier.wait())
    assert sorted(results) == [0, 1]
    assert not barrier.broken


def test_exception_of_the_action_breaks_the_barrier(impl):
    def action():
        raise KeyError("action")

    barrier = impl.Barrier(2, action=action)
    results = []

    def wait():
        try:
            barrier.wait(20)
        except (KeyError, Broken) as error:
            results.append(type(error))

    run_threads([wait, wait])
    assert sorted(results, key=str) == sorted([KeyError, Broken], key=str)
    assert barrier.broken
    ended_broken(barrier.wait)
    barrier.reset()
    assert not barrier.broken


def test_timeout_breaks_it_for_all_threads(impl):
    barrier = impl.Barrier(3)
    with background(lambda: ended_broken(lambda: barrier.wait(20))):
        wait_until(lambda: barrier.n_waiting == 1)
        ended_broken(lambda: barrier.wait(0.01))
    assert barrier.broken
    ended_broken(barrier.wait)


def test_reset_after_a_timeout_mends_it(impl):
    barrier = impl.Barrier(3)
    with background(*[lambda: ended_broken(lambda: barrier.wait(20))]):
        wait_until(lambda: barrier.n_waiting == 1)
        ended_broken(lambda: barrier.wait(0.01))
    with background(barrier.reset):
        pass
    assert sorted(run_threads(lambda _: barrier.wait(20), count=3)) == [0, 1, 2]


@pytest.mark.parametrize("timeout", [0, -1, -0.5, -float("inf")])
def test_timeout_that_is_not_positive_breaks_it(impl, timeout):
    barrier = impl.Barrier(2)
    ended_broken(lambda: barrier.wait(timeout))
    assert barrier.broken


def test_last_to_come_passes_whatever_its_timeout(impl):
    barrier = impl.Barrier(2)
    with background(barrier.wait):
        wait_until(lambda: barrier.n_waiting == 1)
        assert barrier.wait(0) == 1


def test_default_timeout_is_the_constructor_s(impl):
    barrier = impl.Barrier(2, timeout=0.01)
    ended_broken(barrier.wait)
    barrier = impl.Barrier(2, None, 0.01)
    ended_broken(lambda: barrier.wait(timeout=None))


def test_bad_timeout_is_refused_and_counts_no_thread(impl):
    barrier = impl.Barrier(2)
    for timeout, error in (("1", TypeError), (1e100, OverflowError), (float("inf"), OverflowError)):
        with pytest.raises(error):
            barrier.wait(timeout)
        assert barrier.n_waiting == 0
        if impl is not fs:
            barrier.reset()
    assert not barrier.broken


def test_abort_breaks_it_for_all_threads(impl):
    barrier = impl.Barrier(3)
    with background(*[lambda: ended_broken(barrier.wait)] * 2):
        wait_until(lambda: barrier.n_waiting == 2)
        barrier.abort()
    assert barrier.broken and barrier.n_waiting == 0
    barrier.abort()
    ended_broken(barrier.wait)


def test_reset_breaks_it_for_waiters_only(impl):
    barrier = impl.Barrier(3)
    with background(*[lambda: ended_broken(barrier.wait)] * 2):
        wait_until(lambda: barrier.n_waiting == 2)
        barrier.reset()
    assert not barrier.broken
    assert sorted(run_threads(lambda _: barrier.wait(20), count=3)) == [0, 1, 2]


def test_reset_of_a_broken_barrier_mends_it(impl):
    barrier = impl.Barrier(2)
    barrier.abort()
    barrier.reset()
    assert sorted(run_threads(lambda _: barrier.wait(20), count=2)) == [0, 1]


def test_wrong_arguments_are_refused(impl):
    of_a_wrong_type = [lambda: impl.Barrier("2"), lambda: impl.Barrier(None)]
    too_small = [0, -1]
    if impl is not fs and sys.version_info < (3, 13):
        of_a_wrong_type = too_small = []  # the original does not look at `parties` there
    for call in (
        impl.Barrier,
        *of_a_wrong_type,
        lambda: impl.Barrier(1, None, None, None),
        lambda: impl.Barrier(1).wait(1, 2),
        lambda: impl.Barrier(1).reset(1),
    ):
        with pytest.raises(TypeError):
            call()
    for parties in too_small:
        with pytest.raises(ValueError, match=r"^parties must be (>= 1|> 0)$"):
            impl.Barrier(parties)


def test_repr_shows_the_state(impl):
    barrier = impl.Barrier(2)
    assert repr(barrier) == f"<threading.Barrier at {id(barrier):#x}: waiters=0/2>"
    barrier.abort()
    assert repr(barrier) == f"<threading.Barrier at {id(barrier):#x}: broken>"


def test_subclass_and_attributes(impl):
    class Sub(impl.Barrier):
        def __init__(self):
            super().__init__(1, self.act)
            self.calls = 0

        def act(self):
            self.calls += 1

    barrier = Sub()
    barrier.wait()
    assert barrier.calls == 1
    with pytest.raises(TypeError):
        pickle.dumps(impl.Barrier(2))


def test_reset_while_threads_come_and_go_leaves_no_thread_behind(impl):
    barrier, seed = impl.Barrier(3), random.randrange(2**32)
    print("seed", seed)
    chance, stop = random.Random(seed), threading.Event()

    def work(_):
        while not stop.is_set():
            with contextlib.suppress(Broken):
                barrier.wait(20)

    def disturb():
        for _ in range(60):
            time.sleep(chance.random() * 0.002)
            chance.choice([barrier.reset, barrier.abort])()
        stop.set()
        barrier.abort()

    run_threads([disturb, *[lambda i=i: work(i) for i in range(4)]])


# -- ours alone ---------------------------------------------------------------


def test_who_times_out_as_the_round_completes_passes_or_breaks_it():
    # One thread once got BrokenBarrierError from a round that the other passed.
    for i in range(100):
        barrier = fs.Barrier(2)

        def wait(timeout, barrier=barrier):
            try:
                return barrier.wait(timeout)
            except Broken:
                return None

        delay = 0.0005 + (i % 20) * 0.00002
        results = run_threads([lambda: wait(0.0005), lambda d=delay: time.sleep(d) or wait(5)])
        passed = [result for result in results if result is not None]
        assert sorted(passed) in ([], [0, 1])
        assert barrier.broken == (not passed)


def barrier_for_two_with_an_action():
    """The barrier, an event that says that the action runs, and one that ends it."""
    acting, go = threading.Event(), threading.Event()

    def act():
        acting.set()
        assert go.wait(20)

    return fs.Barrier(2, act), acting, go


def test_end_of_an_aborted_action_does_not_open_the_next_round():
    # abort() and reset() while the action ran: its end once let half a round pass.
    barrier, acting, go = barrier_for_two_with_an_action()
    passed = []

    def newcomer():
        with contextlib.suppress(Broken):
            passed.append(barrier.wait(0.2))

    with background(*[lambda: ended_broken(lambda: barrier.wait(20))] * 2):
        assert acting.wait(20)
        barrier.abort()
        with background(barrier.reset, newcomer) as threads:
            wait_asleep(*threads)
            go.set()
    assert passed == []


def test_round_that_drains_lets_the_next_one_in_when_it_has():
    # A thread's time is up, and it waits for the GIL, which we keep, to say so.  So its round
    # passes; and whoever is here for the next one waits until it has left.
    options = ["-X", "gil=1"] if "free-threading" in sys.version else []
    run_python(*options, "-c", textwrap.dedent("""
        import faulthandler, sys, threading, time
        import fastsync.threading as fs

        faulthandler.dump_traceback_later(30, exit=True)
        barrier = fs.Barrier(2)
        indices = []
        late = threading.Thread(target=lambda: indices.append(barrier.wait(0.2)))
        late.start()
        while not barrier.n_waiting:
            time.sleep(0.001)
        sys.setswitchinterval(100)
        end = time.monotonic() + 0.6
        while time.monotonic() < end:
            pass
        assert barrier.wait(5) == 1
        try:
            barrier.wait(0.05)
        except fs.BrokenBarrierError:
            late.join()
            assert indices == [0]
        else:
            raise AssertionError("passed alone")
    """))  # fmt: skip


@pytest.mark.parametrize("end", ["abort", "reset", "__init__"])
def test_who_gives_up_as_its_round_is_broken_learns_of_it(end):
    # As above: its time is up, and it says so after the round has ended.
    options = ["-X", "gil=1"] if "free-threading" in sys.version else []
    run_python(*options, "-c", textwrap.dedent(f"""
        import faulthandler, sys, threading, time
        import fastsync.threading as fs

        faulthandler.dump_traceback_later(30, exit=True)
        barrier = fs.Barrier(2)
        outcomes = []

        def wait():
            try:
                outcomes.append(barrier.wait(0.2))
            except fs.BrokenBarrierError:
                outcomes.append("broken")

        late = threading.Thread(target=wait)
        late.start()
        while not barrier.n_waiting:
            time.sleep(0.001)
        sys.setswitchinterval(100)
        end = time.monotonic() + 0.6
        while time.monotonic() < end:
            pass
        barrier.{end}(*{(1,) if end == "__init__" else ()})
        late.join()
        assert outcomes == ["broken"], outcomes
    """))  # fmt: skip


def test_second_init_while_the_action_runs_breaks_the_round():
    barrier, acting, go = barrier_for_two_with_an_action()
    with background(*[lambda: ended_broken(lambda: barrier.wait(20))] * 2):
        assert acting.wait(20)
        barrier.__init__(2)
        go.set()
    barrier.__init__(2)
    assert not barrier.broken
    assert sorted(run_threads(lambda _: barrier.wait(20), count=2)) == [0, 1]


def test_nan_timeout_is_refused():
    barrier = fs.Barrier(2)
    with pytest.raises(ValueError, match="NaN"):
        barrier.wait(float("nan"))
    assert not barrier.broken and barrier.n_waiting == 0


def test_second_init_breaks_it_for_waiters():
    barrier = fs.Barrier(3)
    with background(lambda: ended_broken(lambda: barrier.wait(20))):
        wait_until(lambda: barrier.n_waiting == 1)
        barrier.__init__(1)
    assert barrier.wait() == 0 and barrier.parties == 1


def test_barrier_is_not_copied():
    for refuse in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            refuse(fs.Barrier(2))


def test_another_init_while_threads_use_it():
    barrier, stop = fs.Barrier(1, print), threading.Event()

    def use():
        while not stop.is_set():
            assert callable(barrier._action)
            assert barrier._timeout == 5
            with contextlib.suppress(threading.BrokenBarrierError):
                barrier.wait()

    def initialize():
        for _ in range(3000):
            barrier.__init__(1, lambda: None, 2 + 3)
        stop.set()

    barrier.__init__(1, lambda: None, 5)
    run_threads([initialize, use, use])


def test_all_are_counted_while_the_action_runs(impl):
    seen = []
    barrier = impl.Barrier(3, lambda: seen.append(barrier.n_waiting))
    run_threads([barrier.wait] * 3)
    assert seen == [3]
    wait_until(lambda: barrier.n_waiting == 0)
