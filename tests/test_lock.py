"""Lock: what `threading.Lock` guarantees, asserted of both."""

import contextlib
import copy
import ctypes
import gc
import pickle
import sys
import threading
import time
import weakref

import pytest
from c_door import c_function
from conftest import DEADLINE, background, run_threads, wait_asleep, wait_until

import fastsync.threading as fs
from fastsync import RwLock, ShardedLock

HUGE = [float("inf"), 1e100, threading.TIMEOUT_MAX * 2, 2**70, 2**62, 9223372037, 9223372037.0]


@pytest.fixture
def lock(impl):
    return impl.Lock()


def test_acquire_says_whether_it_was_taken(lock):
    assert lock.acquire() is True
    assert lock.acquire(False) is False
    assert lock.acquire(blocking=False) is False
    assert lock.acquire(True, 0) is False
    assert lock.acquire(timeout=0.001) is False
    assert lock.locked() is True
    assert lock.release() is None
    assert lock.locked() is False
    truth = "yes" if sys.version_info >= (3, 12) else 2  # the original took numbers alone before
    assert lock.acquire(blocking=truth, timeout=-1) is True
    lock.release()


def test_with_takes_and_releases(lock):
    with lock as answer:
        assert answer is True
        assert lock.locked()
    assert not lock.locked()


def test_with_releases_after_an_exception_and_lets_it_through(lock):
    with pytest.raises(KeyError), lock:
        raise KeyError
    assert not lock.locked()


def test_exitstack_takes_and_releases(lock):
    with contextlib.ExitStack() as stack:
        assert stack.enter_context(lock) is True
        assert lock.locked()
    assert not lock.locked()


def test_enter_and_exit_can_be_called(lock):
    assert lock.__enter__() is True
    assert lock.__exit__(None, None, None) is None
    assert type(lock).__enter__(lock) is True
    assert type(lock).__exit__(lock, None, None, None) is None
    assert not lock.locked()
    if type(lock) is fs.Lock or sys.version_info < (3, 15):
        assert type(lock).__enter__(lock, False) is True
        assert type(lock).__enter__(lock, False) is False
        assert type(lock).__exit__(lock) is None
        assert not lock.locked()


# The originals' words: the second from 3.13 on.
NEGATIVE = r"^timeout value must be (positive|a non-negative number)$"


@pytest.mark.parametrize("timeout", [-2, -0.5, -1.5])
def test_negative_timeout_is_refused(lock, timeout):
    with pytest.raises(ValueError, match=NEGATIVE):
        lock.acquire(timeout=timeout)
    assert not lock.locked()


@pytest.mark.parametrize("timeout", [0, 1, 0.5])
def test_timeout_without_blocking_is_refused(lock, timeout):
    message = "^can't specify a timeout for a non-blocking call$"
    with pytest.raises(ValueError, match=message):
        lock.acquire(False, timeout)
    assert not lock.locked()


def test_unset_timeout_without_blocking_is_allowed(lock):
    assert lock.acquire(False, -1) is True
    assert lock.acquire(False, timeout=-1.0) is False


def test_nan_timeout_is_refused(lock):
    with pytest.raises(ValueError, match=r"Invalid value NaN \(not a number\)"):
        lock.acquire(timeout=float("nan"))
    assert not lock.locked()


@pytest.mark.parametrize("timeout", [*HUGE, *(-timeout for timeout in HUGE)])
def test_huge_timeout_overflows(lock, timeout):
    with pytest.raises(OverflowError):
        lock.acquire(timeout=timeout)
    assert not lock.locked()


@pytest.mark.parametrize("timeout", ["1", None, [], 1j, object()])
def test_timeout_of_a_wrong_type_is_refused(lock, timeout):
    with pytest.raises(TypeError):
        lock.acquire(timeout=timeout)
    with pytest.raises(TypeError):
        lock.acquire(True, timeout)
    assert not lock.locked()


@pytest.mark.parametrize("longest", [threading.TIMEOUT_MAX, int(threading.TIMEOUT_MAX)])
def test_timeout_max_is_allowed_and_long(lock, longest):
    assert lock.acquire(timeout=longest)
    taken = []
    with background(lambda: taken.append(lock.acquire(timeout=longest))) as threads:
        wait_asleep(*threads)
        lock.release()
    assert taken == [True]


def test_wrong_arguments_are_refused(lock):
    for call in (
        lambda: lock.acquire(1, 2, 3),
        lambda: lock.acquire(foo=1),
        lambda: lock.release(1),
        lambda: lock.locked(1),
        lambda: type(lock)(1),
        lambda: type(lock)(x=1),
        lambda: type(lock).acquire(),
        lambda: type(lock).acquire(object()),
        lambda: type(lock).release(5),
        lambda: type(lock).__enter__(None),
    ):
        with pytest.raises(TypeError):
            call()
    assert not lock.locked()


def test_release_of_an_unlocked_lock_raises(lock):
    for release in (lock.release, lock.release_lock):
        with pytest.raises(RuntimeError, match=r"^release unlocked lock$"):
            release()
    with pytest.raises(RuntimeError, match=r"^release unlocked lock$"):
        lock.__exit__(None, None, None)
    assert lock.acquire(False)


def test_lock_released_in_its_with_block_raises_at_the_end(lock):
    with pytest.raises(RuntimeError, match=r"^release unlocked lock$"), lock:
        lock.release()


def test_any_thread_may_release(lock):
    lock.acquire()
    run_threads([lock.release])
    assert not lock.locked()


def test_obsolete_names_work(lock):
    assert lock.acquire_lock() is True
    assert lock.acquire_lock(False) is False
    assert lock.acquire_lock(True, 0.001) is False
    assert lock.locked_lock() is True
    lock.release_lock()
    assert lock.locked_lock() is False


def test_repr_shows_the_state(lock):
    assert repr(lock) == f"<unlocked _thread.lock object at {id(lock):#x}>"
    lock.acquire()
    assert repr(lock) == f"<locked _thread.lock object at {id(lock):#x}>"


def test_lock_is_hashed_and_compared_by_identity(impl):
    first, second = impl.Lock(), impl.Lock()
    assert first == first and first != second and bool(first)
    assert {first: 1}[first] == 1 and second not in {first}


def test_lock_takes_no_attributes(lock):
    with pytest.raises(AttributeError):
        lock.name = 1
    with pytest.raises(AttributeError):
        lock.acquire = None
    with pytest.raises(AttributeError):
        del lock.release
    with pytest.raises(AttributeError):
        lock.__dict__  # noqa: B018


def test_lock_type_cannot_be_subclassed_or_changed(impl):
    kind = type(impl.Lock())
    with pytest.raises(TypeError):
        type("Sub", (kind,), {})
    with pytest.raises(TypeError):
        kind.acquire = None


def test_lock_is_not_copied_or_pickled(lock):
    for refuse in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            refuse(lock)


def test_weak_reference_dies_with_the_lock(impl):
    lock = impl.Lock()
    seen = []
    reference = weakref.ref(lock, seen.append)
    assert reference() is lock
    del lock
    gc.collect()
    assert reference() is None and seen == [reference]


def test_held_lock_can_be_dropped(impl):
    lock = impl.Lock()
    lock.acquire()
    del lock
    gc.collect()


def test_lock_as_a_class_attribute_is_itself(impl):
    class Holder:
        lock = impl.Lock()

    assert Holder().lock is Holder.lock is Holder.__dict__["lock"]
    with Holder().lock:
        assert Holder.lock.locked()


def test_at_fork_reinit_unlocks(lock):
    lock.acquire()
    lock._at_fork_reinit()
    assert lock.acquire(False)


def test_at_fork_reinit_with_waiters_lets_them_have_it():
    for lock in (fs.Lock(), fs.RLock()):
        lock.acquire()
        taken = []
        with background(lambda lock=lock, taken=taken: taken.append(lock.acquire())) as threads:
            wait_asleep(*threads)
            lock._at_fork_reinit()
        assert taken == [True]


def test_self_deadlock_ends_at_its_timeout(lock):
    lock.acquire()
    begin = time.monotonic()
    assert lock.acquire(timeout=0.05) is False
    assert time.monotonic() - begin >= 0.05
    lock.release()
    assert not lock.locked()


def test_blocked_acquire_ends_with_the_release(lock):
    lock.acquire()
    with background(lock.acquire) as threads:
        wait_asleep(*threads)
        lock.release()
    assert lock.locked()


def test_timed_acquire_gets_a_lock_released_in_time(lock):
    lock.acquire()
    taken = []
    with background(lambda: taken.append(lock.acquire(timeout=20))) as threads:
        wait_asleep(*threads)
        lock.release()
    assert taken == [True]


def test_timed_out_waiters_leave_nothing_behind(lock):
    lock.acquire()
    assert run_threads(lambda i: lock.acquire(timeout=0.001 * i), count=8) == [False] * 8
    lock.release()
    assert lock.acquire(False)


def test_every_waiter_is_served(lock):
    lock.acquire()
    served = []

    def wait():
        with lock:
            served.append(1)

    with background(*[wait] * 20) as threads:
        wait_asleep(*threads)
        lock.release()
    assert len(served) == 20 and not lock.locked()


def test_one_thread_at_a_time(lock):
    inside = total = 0

    def work(_):
        nonlocal inside, total
        for _ in range(3000):
            with lock:
                inside += 1
                assert inside == 1
                total += 1
                inside -= 1

    run_threads(work, count=4)
    assert total == 12000


def test_contended_release_succeeds_once_per_acquire(impl):
    # With waiters parked, two releases of one acquire: the second one says so.
    for _ in range(100):
        lock = impl.Lock()
        lock.acquire()
        refused = []

        def release(lock=lock, refused=refused):
            try:
                lock.release()
            except RuntimeError:
                refused.append(1)

        taken = run_threads([release, release, lambda lock=lock: lock.acquire(timeout=20)])[2]
        assert taken
        # acquire; release; [acquire; release]: both succeed, or one is refused.
        assert len(refused) == lock.locked()


# -- ours alone ---------------------------------------------------------------


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="`with` calls methods there")
def test_calling_a_lock_with_anything_but_none_or_three_arguments_changes_nothing():
    lock = fs.Lock()
    for arguments, keywords in (((1,), {}), ((1, 2), {}), ((1, 2, 3, 4), {}), ((), {"a": 1})):
        with pytest.raises(TypeError, match="by `with` only"):
            lock(*arguments, **keywords)
        assert not lock.locked()
    assert lock() is True
    assert lock(None, None, None) is None
    assert not lock.locked()


def test_lock_is_not_tracked_by_the_collector():
    assert not gc.is_tracked(fs.Lock())


def test_lock_is_no_larger_than_the_original():
    # Ours has no collector header, which getsizeof counts where there is one.
    assert sys.getsizeof(fs.Lock()) <= sys.getsizeof(threading.Lock()) + 16


def test_lock_calls_itself_threading_lock():
    assert fs.Lock.__module__ == "threading" and fs.Lock.__qualname__ == "Lock"


def test_methods_are_plain_descriptors_that_scale():
    assert type(fs.Lock.acquire).__name__ == "method_descriptor"
    assert type(fs.Lock.__enter__).__name__ == "method_descriptor"


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_the_smallest_negative_timeout_is_negative(impl, kind):
    lock = getattr(impl, kind)()
    for timeout in [-1e-12, -5e-324]:
        with pytest.raises(ValueError, match=NEGATIVE):
            lock.acquire(timeout=timeout)


@pytest.mark.parametrize(
    "make",
    [fs.Lock, fs.RLock, fs.Semaphore, lambda: RwLock().writer, lambda: ShardedLock().writer],
)
def test_who_has_waited_long_is_handed_the_lock(make):
    for _ in range(10):
        lock, done = make(), threading.Event()
        lock.acquire()

        def take(lock=lock, done=done):
            with lock:
                assert done.wait(20)

        with background(take) as (thread,):
            wait_asleep(thread)
            begin = time.monotonic()
            wait_until(lambda begin=begin: time.monotonic() - begin > 0.002)
            lock.release()
            overtaken = lock.acquire(False)
            if overtaken:
                lock.release()
            done.set()
        assert not overtaken


def test_what_is_handed_over_and_released_before_its_owner_runs():
    """Any thread may release a Lock: also one that was handed to a waiter which still sleeps."""
    lock = fs.Lock()
    rounds = 3000

    def take():
        for _ in range(rounds):
            lock.acquire()

    def release():
        for _ in range(rounds):
            while not lock.locked():
                time.sleep(0)
            lock.release()

    run_threads([take, release])
    assert not lock.locked()


def test_who_was_overtaken_is_handed_the_lock_next():
    # However short its wait was: a thread that was woken for nothing once is not so twice.
    size = ctypes.c_size_t
    parked_count = c_function("parked_count", size, size)
    lock, done = fs.Lock(), threading.Event()
    key = c_function("object_word", size, ctypes.py_object, ctypes.c_int)(lock, 6)

    def parks():
        end = time.monotonic() + DEADLINE
        while parked_count(key) == 0:  # without a sleep: whose wait was long is handed it anyway
            assert time.monotonic() < end

    served = 0

    def take():
        nonlocal served
        while not done.is_set():
            with lock:
                served += 1

    lock.acquire()
    with background(take):
        try:
            for _ in range(100):
                parks()
                before = served
                lock.release()
                lock.acquire()
                if served == before:
                    parks()
                    lock.release()
                    lock.acquire()
                    assert served > before, "overtaken twice"
        finally:
            done.set()
            lock.release()
