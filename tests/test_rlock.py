"""RLock: what `threading.RLock` guarantees, asserted of both."""

import contextlib
import copy
import gc
import pickle
import sys
import threading
import time
import weakref

import pytest
from conftest import background, run_threads, wait_asleep

import fastsync.threading as fs

NOT_OWNED = "^cannot release un-acquired lock$"


@pytest.fixture
def lock(impl):
    return impl.RLock()


def is_locked(lock):
    """Stock has no locked() before 3.14."""
    return repr(lock).startswith("<locked")


def in_a_thread(function):
    return run_threads([function])[0]


def test_owner_may_take_it_again(lock):
    for _ in range(3):
        assert lock.acquire() is True
    assert lock._recursion_count() == 3
    assert lock.acquire(False) is True
    for left in (3, 2, 1, 0):
        assert lock.release() is None
        assert lock._recursion_count() == left
    assert not is_locked(lock)


def test_owner_may_take_it_thousands_of_times(lock):
    for _ in range(20000):
        lock.acquire()
    assert lock._recursion_count() == 20000
    assert in_a_thread(lambda: lock.acquire(False)) is False
    for _ in range(20000):
        lock.release()
    assert in_a_thread(lambda: lock.acquire(False)) is True


def test_other_threads_are_kept_out_until_the_last_release(lock):
    lock.acquire()
    lock.acquire()
    assert in_a_thread(lambda: lock.acquire(timeout=0.001)) is False
    lock.release()
    assert in_a_thread(lambda: lock.acquire(False)) is False
    lock.release()
    assert in_a_thread(lambda: lock.acquire(False)) is True


def test_with_nests(lock):
    with lock as answer, lock, lock:
        assert answer is True
        assert lock._recursion_count() == 3
    assert not is_locked(lock)


def test_with_releases_after_an_exception(lock):
    with pytest.raises(KeyError), lock, lock:
        raise KeyError
    assert not is_locked(lock)


def test_exitstack_and_direct_calls(lock):
    with contextlib.ExitStack() as stack:
        assert stack.enter_context(lock) is True
        assert lock.__enter__() is True
        assert lock._recursion_count() == 2
        lock.__exit__(None, None, None)
    assert not is_locked(lock)


def test_release_by_another_thread_is_refused_and_changes_nothing(lock):
    def steal():
        with pytest.raises(RuntimeError, match=NOT_OWNED):
            lock.release()
        with pytest.raises(RuntimeError, match=NOT_OWNED):
            lock.__exit__(None, None, None)
        assert not lock._is_owned()
        assert lock._recursion_count() == 0

    with lock:
        run_threads([steal])
        assert lock._is_owned() and lock._recursion_count() == 1


def test_release_of_an_unlocked_lock_is_refused(lock):
    for release in (lock.release, lock._release_save):
        with pytest.raises(RuntimeError, match=NOT_OWNED):
            release()
    assert lock.acquire(False)
    lock.release()
    with pytest.raises(RuntimeError, match=NOT_OWNED):
        lock.release()
    assert lock._recursion_count() == 0


@pytest.mark.parametrize("owned", [False, True])
def test_bad_timeouts_are_refused_also_for_the_owner(lock, owned):
    if owned:
        lock.acquire()
    for error, arguments in (
        (ValueError, (True, -2)),
        (ValueError, (True, -0.5)),
        (ValueError, (False, 1)),
        (ValueError, (False, 0)),
        (ValueError, (True, float("nan"))),
        (OverflowError, (True, float("inf"))),
        (OverflowError, (True, 1e100)),
        (OverflowError, (True, -1e100)),
        (OverflowError, (True, 2**70)),
        (TypeError, (True, "1")),
        (TypeError, (True, None)),
        (TypeError, (1, 2, 3)),
    ):
        with pytest.raises(error):
            lock.acquire(*arguments)
    assert lock._recursion_count() == owned
    assert is_locked(lock) == owned


def test_unset_timeout_without_blocking_is_allowed(lock):
    assert lock.acquire(False, -1) is True
    assert lock.acquire(blocking=0) is True
    assert lock.acquire(timeout=threading.TIMEOUT_MAX) is True
    assert lock._recursion_count() == 3


def test_release_save_and_acquire_restore_keep_the_depth(lock):
    for _ in range(4):
        lock.acquire()
    state = lock._release_save()
    assert state == (4, threading.get_ident())
    assert in_a_thread(lambda: lock.acquire(False) and not lock.release())
    assert lock._acquire_restore(state) is None
    assert lock._recursion_count() == 4 and lock._is_owned()


def test_bad_state_is_refused_and_changes_nothing(lock):
    for state in ((), (1,), (1, 2, 3), 5, None, ("a", "b")):
        with pytest.raises((TypeError, ValueError, OverflowError)):
            lock._acquire_restore(state)
    assert not is_locked(lock)


def test_repr_shows_owner_and_depth(lock):
    assert repr(lock) == f"<unlocked _thread.RLock object owner=0 count=0 at {id(lock):#x}>"
    with lock, lock:
        me = threading.get_ident()
        assert repr(lock) == f"<locked _thread.RLock object owner={me} count=2 at {id(lock):#x}>"


def test_at_fork_reinit_unlocks(lock):
    lock.acquire()
    lock.acquire()
    lock._at_fork_reinit()
    assert not lock._is_owned() and lock._recursion_count() == 0
    assert in_a_thread(lambda: lock.acquire(False) and not lock.release())


def test_lock_is_not_copied_or_pickled(lock):
    for refuse in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            refuse(lock)


def test_lock_takes_no_attributes(lock):
    with pytest.raises(AttributeError):
        lock.name = 1
    with pytest.raises(AttributeError):
        lock.acquire = None


@pytest.mark.skipif(sys.version_info < (3, 15), reason="deprecated before")
def test_arguments_are_refused(impl):
    for arguments, keywords in (((1,), {}), ((), {"x": 1})):
        with pytest.raises(TypeError, match="RLock"):
            impl.RLock(*arguments, **keywords)

        class Sub(type(impl.RLock())):
            pass

        with pytest.raises(TypeError):
            Sub(*arguments, **keywords)


before_3_15 = pytest.mark.skipif(sys.version_info >= (3, 15), reason="a TypeError from 3.15 on")


def skip_if_silent(impl):
    if impl is not fs and sys.version_info < (3, 13):
        pytest.skip("takes them without a word before 3.13")


@before_3_15
def test_arguments_are_deprecated(impl):
    skip_if_silent(impl)
    for arguments, keywords in (((1,), {}), ((), {"x": 1})):
        with pytest.warns(DeprecationWarning, match=r"^Passing arguments to RLock is deprecated"):
            lock = impl.RLock(*arguments, **keywords)
        assert lock.acquire(False)


@before_3_15
def test_arguments_warning_points_at_the_caller(impl):
    skip_if_silent(impl)
    with pytest.warns(DeprecationWarning) as seen:
        impl.RLock(1)
    if impl is fs or sys.version_info < (3, 14):
        assert seen[0].filename == __file__ or impl is not fs


def test_subclass_is_a_lock_of_its_own(impl):
    base = type(impl.RLock())

    class Sub(base):
        def __init__(self, name, *, extra=None):
            self.name = name

    lock = Sub("a", extra=1)
    with lock, lock:
        assert lock.name == "a" and lock._recursion_count() == 2
        assert " Sub object owner=" in repr(lock)
    assert weakref.ref(lock)() is lock
    with pytest.raises(TypeError):
        copy.copy(lock)


def test_subclass_override_of_acquire_is_not_called_by_with(impl):
    class Sub(type(impl.RLock())):
        def acquire(self, *_):
            raise AssertionError

    with Sub() as answer:
        assert answer is True


def test_subclass_override_of_enter_and_exit_is_called_by_with(impl):
    calls = []

    class Sub(type(impl.RLock())):
        def __enter__(self):
            calls.append("enter")
            return super().__enter__()

        def __exit__(self, *error):
            calls.append("exit")
            return super().__exit__(*error)

    lock = Sub()
    with lock:
        assert lock._is_owned()
    assert calls == ["enter", "exit"] and not lock._is_owned()


def test_subclass_with_a_call_method_is_still_locked_by_with(impl):
    class Sub(type(impl.RLock())):
        def __call__(self, *arguments):
            return arguments

    lock = Sub()
    with lock as answer:
        assert answer is True and lock._is_owned()
    assert not lock._is_owned()
    assert lock(1, 2) == (1, 2) and lock() == ()


def test_call_method_given_to_a_subclass_later_does_not_replace_with(impl):
    class Sub(type(impl.RLock())):
        pass

    lock = Sub()
    Sub.__call__ = lambda *_: None
    with lock:
        assert lock._is_owned()
    del Sub.__call__
    with lock:
        assert lock._is_owned()
    assert not lock._is_owned()


def test_self_deadlock_does_not_exist_but_others_time_out(lock):
    with lock:
        begin = time.monotonic()
        assert in_a_thread(lambda: lock.acquire(timeout=0.05)) is False
        assert time.monotonic() - begin >= 0.05
        assert lock.acquire(timeout=0.05)
        lock.release()


def test_blocked_acquire_ends_with_the_last_release(lock):
    lock.acquire()
    lock.acquire()
    with background(lambda: lock.acquire() and lock.release()) as threads:
        wait_asleep(*threads)
        lock.release()
        assert threads[0].is_alive()
        lock.release()
    assert not is_locked(lock)


def test_one_thread_at_a_time(lock):
    inside = total = 0

    def work(_):
        nonlocal inside, total
        for _ in range(2000):
            with lock, lock:
                inside += 1
                assert inside == 1
                total += 1
                inside -= 1

    run_threads(work, count=4)
    assert total == 8000


def test_lock_held_by_a_thread_that_ended_stays_locked(lock):
    run_threads([lock.acquire])
    assert is_locked(lock)


def test_weak_reference_dies_with_the_lock(impl):
    lock = impl.RLock()
    reference = weakref.ref(lock)
    lock.acquire()
    del lock
    gc.collect()
    assert reference() is None


# -- ours alone ---------------------------------------------------------------


def test_only_the_owner_may_release_save():
    lock = fs.RLock()

    def steal():
        with pytest.raises(RuntimeError, match=NOT_OWNED):
            lock._release_save()

    with lock:
        run_threads([steal])
        assert lock._is_owned()


def test_restoring_a_depth_of_zero_is_refused():
    # It would own the lock with nothing to release.
    lock = fs.RLock()
    with pytest.raises(ValueError, match="depth"):
        lock._acquire_restore((0, 0))
    with pytest.raises(TypeError):
        lock._acquire_restore((1.9, 0))
    assert not lock.locked()


def test_depth_past_32_bits_overflows():
    lock = fs.RLock()
    lock._acquire_restore((2**32 - 1, 0))
    for acquire in (lock.acquire, lock.__enter__, lambda: lock.acquire(False)):
        with pytest.raises(OverflowError, match=r"^Internal lock count overflowed$"):
            acquire()
    assert lock._recursion_count() == 2**32 - 1
    lock.release()
    assert lock.acquire()


def test_rlock_is_a_type_with_locked():
    assert isinstance(fs.RLock(), fs.RLock)
    lock = fs.RLock()
    assert lock.locked() is False
    with lock:
        assert lock.locked() is True


def test_rlock_takes_no_more_memory_than_the_original():
    assert not gc.is_tracked(fs.RLock())
    assert sys.getsizeof(fs.RLock()) <= sys.getsizeof(threading.RLock()) + 16


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="`with` calls methods there")
def test_calling_a_lock_with_anything_but_none_or_three_arguments_changes_nothing():
    lock = fs.RLock()
    for arguments in ((1,), (1, 2), (1, 2, 3, 4)):
        with pytest.raises(TypeError, match="by `with` only"):
            lock(*arguments)
    with pytest.raises(RuntimeError, match=NOT_OWNED):
        lock(None, None, None)
    assert not lock.locked()
