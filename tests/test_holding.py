"""holding(): a `with` block under any lock, that gives up after a time."""

import multiprocessing
import pickle
import threading
import traceback

import pytest

import fastsync
import fastsync.threading as ours
from fastsync import RwLock, holding

MAKERS = [
    ours.Lock,
    ours.RLock,
    ours.Condition,
    ours.Semaphore,
    threading.Lock,
    threading.RLock,
    threading.Condition,
    threading.BoundedSemaphore,
    multiprocessing.Lock,
    lambda: RwLock(0).writer,
]


@pytest.fixture(params=MAKERS)
def lock(request):
    return request.param()


def is_free(lock):
    """As another thread sees it."""
    answers = []

    def ask():
        answers.append(lock.acquire(False))
        if answers[0]:
            lock.release()

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(30)
    return answers == [True]


@pytest.mark.parametrize("timeout", [30, 1.5, 0, -1, None])
def test_holds_and_releases(lock, timeout):
    with holding(lock, timeout) as held:
        assert held is lock
        assert not is_free(lock)
    assert is_free(lock)
    with pytest.raises(KeyError), holding(lock, timeout=timeout):
        raise KeyError
    assert is_free(lock)


@pytest.mark.parametrize("timeout", [0.001, 0, -5])
def test_gives_up(lock, timeout):
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with lock:
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert entered.wait(30)
    with pytest.raises(TimeoutError, match=f"not acquired within {timeout} seconds") as caught:
        with holding(lock, timeout):
            pytest.fail("it is held")
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert {frame.filename for frame in frames} == {__file__}
    leave.set()
    thread.join(30)
    assert is_free(lock)


def test_one_object_is_used_again_and_nested(run_threads):
    lock = ours.RLock()
    patient = holding(lock, 30)
    with patient, patient:
        assert lock._recursion_count() == 2
    count = 0

    def add(_):
        nonlocal count
        for _ in range(500):
            with patient:
                count += 1

    run_threads(add, count=4)
    assert count == 2000


def test_nonsense():
    for arguments in ((), (ours.Lock(),), (ours.Lock(), 1, 2)):
        with pytest.raises(TypeError):
            holding(*arguments)
    with pytest.raises(AttributeError), holding(5, 1):
        pass
    lock = ours.Lock()
    with pytest.raises(TypeError), holding(lock, "x"):
        pass
    with pytest.raises(ValueError), holding(lock, float("nan")):
        pytest.fail("not a number")
    assert not lock.locked()
    with pytest.raises(TypeError, match="cannot pickle"):
        pickle.dumps(holding(lock, 1))
    assert repr(holding(lock, 2)) == f"holding({lock!r}, timeout=2)"


# -- the same in the locks that own a value ------------------------------------------


WAYS = [
    (kind, way)
    for kind, ways in {
        "Mutex": ["lock"],
        "FairMutex": ["lock"],
        "ReentrantMutex": ["lock"],
        "RwLock": ["read", "read_recursive", "write", "upgradable_read"],
        "ShardedLock": ["read", "read_recursive", "write"],
    }.items()
    for way in ways
]


@pytest.mark.parametrize(("kind", "way"), WAYS)
def test_block_of_an_owning_lock_gives_up_after_a_time(kind, way, run_threads):
    lock = getattr(fastsync, kind)([])
    call = getattr(lock, way)
    for timeout in (None, 0, 5, 1e30):
        with call(timeout=timeout) as guard:
            assert guard.value == []
        assert not lock.is_locked()
    holder = lock.write() if hasattr(lock, "write") else lock.lock()

    def wait():
        for timeout in (0.001, 0, -1):
            with pytest.raises(TimeoutError, match=f"within {timeout} seconds"):
                with call(timeout=timeout):
                    raise AssertionError
        for wrong, error in ((float("nan"), ValueError), ("1", TypeError)):
            with pytest.raises(error):
                call(timeout=wrong)
        with pytest.raises(TypeError):
            call(1)

    run_threads([wait])
    assert lock.is_locked() and holder.value == []
    holder.unlock()
    assert not lock.is_locked()
