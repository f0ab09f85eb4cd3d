"""Parker, Unparker and WaitGroup."""

import gc
import pickle
import sys
import time

import pytest

from fastsync import Parker, Unparker, WaitGroup

SIZES = pytest.mark.parametrize("huge", [10**400, float("inf"), 2**64], ids=str)


# -- Parker ------------------------------------------------------------------


def test_a_token_that_is_there_is_taken_at_once():
    parker = Parker()
    unparker = parker.unparker()
    for park in (
        lambda: parker.park(),
        lambda: parker.park_timeout(60),
        lambda: parker.park_deadline(time.monotonic() + 60),
        lambda: parker.park_timeout(0),
        lambda: parker.park_deadline(0),
    ):
        unparker.unpark()
        assert park() in (None, True)
    unparker.unpark()
    assert parker.park() is None


def test_there_is_one_token_only():
    parker = Parker()
    for _ in range(3):
        parker.unparker().unpark()
    assert parker.park_timeout(0) is True
    assert parker.park_timeout(0.01) is False
    assert parker.park_timeout(-1) is False


def test_park_timeout_without_a_token():
    parker = Parker()
    before = time.monotonic()
    assert parker.park_timeout(0.05) is False
    assert parker.park_deadline(time.monotonic() + 0.05) is False
    assert time.monotonic() - before >= 0.1


def test_unpark_from_another_thread(run_threads):
    here, there = Parker(), Parker()
    log = []

    def ping():
        for i in range(500):
            log.append(("ping", i))
            there.unparker().unpark()
            here.park()

    def pong():
        for i in range(500):
            there.park()
            log.append(("pong", i))
            here.unparker().unpark()

    run_threads([ping, pong])
    assert log == [(name, i) for i in range(500) for name in ("ping", "pong")]


@SIZES
def test_timeouts_of_any_size(huge, run_threads):
    parker = Parker()
    for park in (parker.park_timeout, parker.park_deadline):
        assert park(-huge) is False
        assert run_threads([lambda park=park: park(huge), parker.unparker().unpark])[0] is True
        with pytest.raises(ValueError):
            park(float("nan"))
        with pytest.raises(TypeError):
            park("1")


def test_unparkers_are_many_and_keep_the_parker(run_threads):
    parker = Parker()
    unparker = parker.unparker()
    clone = unparker.clone()
    del unparker
    assert run_threads([lambda: parker.park_timeout(60), clone.unpark])[0] is True
    parker = None
    assert parker is None
    clone.unpark()
    with pytest.raises(TypeError):
        Unparker()
    for refused in (clone, Parker(), WaitGroup()):
        with pytest.raises(TypeError):
            pickle.dumps(refused)


def test_every_token_wakes_one_of_many(run_threads, wait_until):
    parker = Parker()
    taken = []

    def take():
        parker.park()
        taken.append(1)

    def give():
        for i in range(4):
            parker.unparker().unpark()
            wait_until(lambda i=i: len(taken) == i + 1)
        assert parker.park_timeout(0) is False

    run_threads([take, take, take, take, give])


INTERRUPTED = """
import os, signal, threading, time
from fastsync import Parker, WaitGroup
{setup}

def interrupt():
    time.sleep(0.05)  # Ctrl-C may come before the wait, too
    os.kill(os.getpid(), signal.SIGINT)

thread = threading.Thread(target=interrupt)
try:
    thread.start()
    {wait}
except KeyboardInterrupt:
    print("interrupted")
thread.join()
{after}
"""


@pytest.mark.parametrize("wait", ["parker.park()", "parker.park_timeout(60)"])
def test_ctrl_c_leaves_a_park(wait, run_python):
    code = INTERRUPTED.format(
        setup="parker = Parker()",
        wait=wait,
        after="parker.unparker().unpark(); print(parker.park_timeout(60))",
    )
    assert run_python("-c", code).stdout.split() == ["interrupted", "True"]


# -- WaitGroup ---------------------------------------------------------------


def test_wait_for_all(run_threads, wait_until):
    group = WaitGroup()
    handles = [group.clone() for _ in range(8)]
    finished = []

    def work(handle):
        finished.append(1)
        handle.done()

    def wait():
        group.wait()
        return len(finished)

    results = run_threads([wait, *(lambda h=h: work(h) for h in handles)])
    assert results[0] == 8
    for handle in [group, *handles]:
        for use in (handle.clone, handle.done, handle.wait, handle.__enter__):
            with pytest.raises(RuntimeError):
                use()


def test_a_repeated_wait_counts_its_handle_once(run_python):
    code = """
import os, signal, threading, time
from fastsync import WaitGroup
group = WaitGroup()
other = group.clone()

def interrupt():
    while "1 handles" not in repr(group):
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGINT)

thread = threading.Thread(target=interrupt)
try:
    thread.start()
    group.wait()
except KeyboardInterrupt:
    pass
thread.join()
assert "1 handles" in repr(group)
threading.Timer(0.2, lambda: print(repr(group)) or other.done()).start()
group.wait()
print("over")
"""
    assert run_python("-c", code).stdout.splitlines() == ["<WaitGroup, 1 handles>", "over"]


def test_all_handles_may_wait(run_threads):
    group = WaitGroup()
    arrived = []

    def meet(handle):
        arrived.append(1)
        handle.wait()
        return len(arrived)

    handles = [group.clone() for _ in range(5)]
    group.done()
    assert run_threads([lambda h=h: meet(h) for h in handles]) == [5] * 5


def test_wait_alone():
    WaitGroup().wait()
    group = WaitGroup()
    group.clone().done()
    group.wait()


def test_dropping_a_handle_ends_it(run_threads, wait_until):
    group = WaitGroup()
    handle = group.clone()
    assert repr(group) == "<WaitGroup, 2 handles>"
    del handle
    assert repr(group) == "<WaitGroup, 1 handles>"
    group.wait()
    assert repr(group) == "<WaitGroup, 0 handles>"


def test_wait_and_drop(run_threads, wait_until):
    """The waiting handle may be dropped by others, and clones may make clones."""
    group = WaitGroup()
    first = group.clone()
    steps = []

    def wait():
        group.wait()
        steps.append("waited")

    def work():
        with first, first.clone() as second:
            assert not steps
            second.clone().done()
            wait_until(lambda: repr(second) == "<WaitGroup, 2 handles>")
        wait_until(lambda: steps)

    run_threads([wait, work])


def test_with_block_ends_a_handle_once():
    group = WaitGroup()
    with group.clone() as handle:
        handle.done()
    with pytest.raises(RuntimeError), handle:
        pass
    with pytest.raises(ZeroDivisionError), group.clone():
        1 / 0  # noqa: B018
    assert repr(group) == "<WaitGroup, 1 handles>"
    group.wait()


def test_one_of_many_ends_succeeds(run_threads):
    for _ in range(100):
        group = WaitGroup()
        handle = group.clone()

        def end(_, handle=handle):
            try:
                handle.done()
            except RuntimeError:
                return 0
            return 1

        assert sum(run_threads(end, count=3)) == 1
        group.wait()


def test_ctrl_c_leaves_a_wait_that_may_be_repeated(run_python):
    code = INTERRUPTED.format(
        setup="group = WaitGroup(); handle = group.clone()",
        wait="group.wait()",
        after="handle.done(); group.wait(); print('again')",
    )
    assert run_python("-c", code).stdout.split() == ["interrupted", "again"]


def test_init_again_changes_nothing():
    group = WaitGroup()
    handle = group.clone()
    group.__init__()
    handle.__init__()
    assert repr(group) == "<WaitGroup, 2 handles>"
    handle.done()
    group.wait()


def test_not_tracked_by_the_collector():
    for thing in (Parker(), Parker().unparker(), WaitGroup()):
        assert not gc.is_tracked(thing)
        assert sys.getrefcount(thing) >= 1
