"""Condition: what `threading.Condition` guarantees, asserted of both."""

import contextlib
import copy
import gc
import pickle
import sys
import threading
import time
import weakref
from unittest import mock

import pytest
from conftest import background, run_threads, wait_until

import fastsync.threading as fs

CANNOT_WAIT = r"^cannot wait on un-acquired lock$"
CANNOT_NOTIFY = r"^cannot notify on un-acquired lock$"


class DuckLock:
    """Nothing but what a Condition needs."""

    def __init__(self):
        self.inner = threading.Lock()

    def acquire(self, *arguments):
        return self.inner.acquire(*arguments)

    def release(self):
        self.inner.release()

    def locked(self):  # a Condition asks for it from 3.14 on
        return self.inner.locked()

    def __enter__(self):
        return self.inner.__enter__()

    def __exit__(self, *error):
        return self.inner.__exit__(*error)


LOCKS = {
    "default": lambda impl: None,
    "Lock": lambda impl: impl.Lock(),
    "RLock": lambda impl: impl.RLock(),
    "RLock subclass": lambda impl: type("Sub", (type(impl.RLock()),), {})(),
    "stock Lock": lambda impl: threading.Lock(),
    "stock RLock": lambda impl: threading.RLock(),
    "python RLock": lambda impl: threading._PyRLock(),
    "our Lock": lambda impl: fs.Lock(),
    "our RLock": lambda impl: fs.RLock(),
    "duck": lambda impl: DuckLock(),
    "semaphore": lambda impl: impl.Semaphore(),
    "condition": lambda impl: impl.Condition(),
    "another's lock": lambda impl: impl.Condition()._lock,
}
if sys.version_info >= (3, 14):
    del LOCKS["semaphore"]  # it has no locked()


@pytest.fixture(params=LOCKS)
def condition(impl, request):
    return impl.Condition(LOCKS[request.param](impl))


def waiting(condition, count):
    wait_until(lambda: len(condition._waiters) == count)


def test_with_takes_and_releases(condition):
    with condition:
        assert condition._is_owned()
        assert run_threads([lambda: condition.acquire(False)]) == [False]
    assert condition.acquire(False)
    condition.release()


def test_wait_and_notify_need_the_lock(condition):
    for call in (condition.wait, lambda: condition.wait(0), lambda: condition.wait_for(int)):
        with pytest.raises(RuntimeError, match=CANNOT_WAIT):
            call()
    for call in (condition.notify, condition.notify_all, lambda: condition.notify(0)):
        with pytest.raises(RuntimeError, match=CANNOT_NOTIFY):
            call()
    assert not condition._waiters


def test_wait_that_times_out_has_the_lock_again(condition):
    for timeout in (0, -1, 0.001, -float("inf"), 1e-9):
        with condition:
            assert condition.wait(timeout) is False
            assert condition._is_owned()
            assert not condition._waiters


def test_notify_wakes_as_many_as_it_says(condition):
    woken = []

    def wait(i):
        with condition:
            assert condition.wait(20) is True
            woken.append(i)

    with background(*[lambda i=i: wait(i) for i in range(6)]):
        waiting(condition, 6)
        for n, left in ((1, 5), (2, 3), (0, 3), (-1, 3)):
            with condition:
                condition.notify(n)
            waiting(condition, left)
            wait_until(lambda left=left: len(woken) == 6 - left)
        with condition:
            condition.notify_all()
    assert sorted(woken) == list(range(6))
    with condition:
        condition.notify(10**30)
        condition.notify_all()


def test_notify_counts_a_fraction_up_as_the_original(condition):
    woken = []

    def wait():
        with condition:
            woken.append(condition.wait(20))

    with background(*[wait] * 3):
        waiting(condition, 3)
        with condition:
            condition.notify(-0.5)
            condition.notify(0.5)
        waiting(condition, 2)
        with condition:
            condition.notify(1.5)
    assert woken == [True] * 3


@pytest.mark.parametrize("lock", [type(None), fs.RLock])
def test_a_timeout_that_releases_the_lock(lock):
    """Its __index__() may do anything; nobody else's lock may be given up by the wait."""
    condition = fs.Condition(lock())
    inside, done = threading.Event(), threading.Event()

    def other():
        with condition:
            inside.set()
            assert done.wait(20)

    thread = threading.Thread(target=other, daemon=True)

    class Timeout:
        def __index__(self):
            condition.release()
            thread.start()
            assert inside.wait(20)
            return 0

    condition.acquire()
    with pytest.raises(RuntimeError, match="cannot wait on un-acquired lock"):
        condition.wait(Timeout())
    assert not condition.acquire(False)
    done.set()
    thread.join(20)
    assert condition.acquire(False)
    condition.release()


def test_first_come_first_notified(condition):
    order = []

    def wait(i):
        with condition:
            condition.wait(20)
            order.append(i)

    with contextlib.ExitStack() as stack:
        for i in range(5):
            stack.enter_context(background(lambda i=i: wait(i)))
            waiting(condition, i + 1)
        for i in range(5):
            with condition:
                condition.notify()
            wait_until(lambda i=i: len(order) == i + 1)
    assert order == list(range(5))


def test_notified_waiters_run_one_at_a_time(condition):
    inside = []

    def wait():
        with condition:
            condition.wait(20)
            inside.append(1)
            assert len(inside) == 1
            inside.pop()

    with background(*[wait] * 8):
        waiting(condition, 8)
        with condition:
            condition.notify_all()


def test_notification_before_the_wait_is_not_kept(condition):
    with condition:
        condition.notify_all()
        assert condition.wait(0.001) is False


def test_wait_for_returns_what_the_predicate_says(condition):
    with condition:
        assert condition.wait_for(lambda: "yes") == "yes"
        assert condition.wait_for(list, 0.001) == []
        assert condition.wait_for(lambda: None, 0) is None
        answers = iter([0, "late"])
        assert condition.wait_for(lambda: next(answers), 0) == "late"
        answers = iter([0, "late"])
        assert condition.wait_for(lambda: next(answers), -5) == "late"


def test_wait_for_waits_until_the_predicate_is_true(condition):
    state = 0

    def advance():
        nonlocal state
        for i in range(1, 5):
            waiting(condition, 1)
            with condition:
                state = i
                condition.notify()

    with background(advance), condition:
        assert condition.wait_for(lambda: state == 4, 20) is True
        assert condition._is_owned()


def test_wait_for_ends_at_its_timeout_however_often_it_is_notified(impl):
    condition = impl.Condition()
    done = threading.Event()

    def disturb():
        while not done.is_set():
            with condition:
                condition.notify_all()
            time.sleep(0.001)

    with background(disturb):
        begin = time.monotonic()
        with condition:
            assert condition.wait_for(lambda: False, 0.05) is False
        assert time.monotonic() - begin >= 0.05
        done.set()


def test_exception_of_the_predicate_passes_with_the_lock_held(condition):
    with condition:
        with pytest.raises(ZeroDivisionError):
            condition.wait_for(lambda: 1 / 0)
        assert condition._is_owned()


def test_bad_timeouts_are_refused_with_the_lock_held(condition):
    for timeout, error in (
        ("1", TypeError),
        ([], TypeError),
        (float("inf"), OverflowError),
        (1e100, OverflowError),
    ):
        with condition:
            with pytest.raises(error):
                condition.wait(timeout)
            with pytest.raises(error):
                condition.wait_for(lambda: False, timeout)
            assert condition._is_owned()


def test_true_predicate_never_looks_at_the_timeout(condition):
    with condition:
        assert condition.wait_for(lambda: 1, 1e100) == 1


def test_depth_is_released_and_restored(impl):
    condition = impl.Condition()

    def notify():
        waiting(condition, 1)
        with condition:
            condition.notify()

    with condition, condition, condition:
        with background(notify):
            assert condition.wait(20) is True
        assert condition._lock._recursion_count() == 3
        assert condition.wait(0.001) is False
        assert condition._lock._recursion_count() == 3


def test_lock_is_shared_with_the_caller_that_made_the_condition(impl):
    lock = impl.RLock()
    first, second = impl.Condition(lock), impl.Condition(lock)
    assert first._lock is lock
    with first:
        assert run_threads([lambda: second.acquire(False)]) == [False]
        with second:
            second.notify()
            first.notify()


def test_two_conditions_of_one_lock_do_not_mix(impl):
    lock = impl.Lock()
    first, second = impl.Condition(lock), impl.Condition(lock)
    woken = []

    def wait(condition, name):
        with condition:
            condition.wait(20)
            woken.append(name)

    with background(lambda: wait(first, 1), lambda: wait(second, 2)):
        waiting(first, 1)
        waiting(second, 1)
        with second:
            second.notify_all()
        wait_until(lambda: woken)
        assert woken == [2] and len(first._waiters) == 1
        with lock:
            first.notify()
    assert woken == [2, 1]


def test_notify_all_reaches_waiters_and_no_later_thread(impl):
    condition = impl.Condition()
    results = []

    def wait(timeout):
        with condition:
            results.append(condition.wait(timeout))

    with background(lambda: wait(20)):
        waiting(condition, 1)
        with condition:
            condition.notify_all()
    run_threads([lambda: wait(0.001)])
    assert results == [True, False]


def test_timed_out_waiters_leave_nothing_behind(condition):
    def wait(i):
        with condition:
            return condition.wait(0.001 * (i % 3))

    assert run_threads(wait, count=9) == [False] * 9
    assert not condition._waiters
    with condition:
        condition.notify_all()


def test_acquire_passes_its_arguments_to_the_lock(impl):
    condition = impl.Condition(impl.Lock())
    assert condition.acquire() is True
    assert condition.acquire(False) is False
    assert condition.acquire(timeout=0.001) is False
    with pytest.raises(ValueError):
        condition.acquire(timeout=-2)
    condition.release()
    with pytest.raises(RuntimeError, match=r"^release unlocked lock$"):
        condition.release()


def test_methods_can_be_replaced_on_the_instance(impl):
    condition = impl.Condition()
    for name in ("acquire", "release", "wait", "notify", "notify_all", "_is_owned"):
        with mock.patch.object(condition, name, return_value=name) as patched:
            assert getattr(condition, name)() == name
            patched.assert_called_once_with()
    with condition:
        assert condition.wait(0) is False


def test_replaced_wait_is_what_wait_for_calls(impl):
    condition = impl.Condition()
    calls = []
    condition.wait = lambda timeout=None: calls.append(timeout) or True
    assert condition.wait_for(lambda: len(calls) == 2)
    assert calls == [None, None]


def test_subclass_overrides_are_called(impl):
    calls = []

    class Sub(impl.Condition):
        def wait(self, timeout=None):
            calls.append("wait")
            return super().wait(timeout)

        def notify(self, n=1):
            calls.append(n)
            return super().notify(n)

    condition = Sub()
    with condition:
        condition.wait_for(lambda: calls, 0)
        condition.notify_all()
    assert calls[0] == "wait" and isinstance(calls[1], int)


def test_subclass_without_super_init_and_with_attributes(impl):
    class Sub(impl.Condition):
        def __init__(self, name):
            super().__init__()
            self.name = name

    condition = Sub("a")
    condition.other = 1
    assert vars(condition)["name"] == "a" and condition.other == 1
    with condition:
        assert condition.wait(0) is False
    del condition.other
    assert not hasattr(condition, "other")


@pytest.mark.parametrize("make", [threading.Lock, DuckLock, fs.Lock, threading.RLock, fs.RLock])
def test_subclass_reaches_acquire_and_release_through_super(make):
    # Condition.acquire, called on the class over a foreign lock, once crashed. Ours only: the
    # original has them on the instance alone.
    class Sub(fs.Condition):
        def take(self):
            return super().acquire()

        def give(self):
            super().release()

    condition = Sub(make())
    assert condition.take() is True
    assert condition._is_owned()
    condition.give()
    assert not condition._is_owned()
    assert fs.Condition.acquire(condition, False) is True
    fs.Condition.release(condition)


def test_condition_with_itself_as_its_lock_only_raises():
    condition = fs.Condition()
    condition.__init__(condition)
    with pytest.raises(RecursionError):
        condition.acquire()


def test_second_init_gives_a_new_lock(impl):
    for make in (lambda: None, impl.Lock, impl.RLock, DuckLock):
        for again in (lambda: None, impl.Lock, DuckLock):
            condition = impl.Condition(make())
            condition.acquire()
            condition.__init__(again())
            assert condition.acquire(False), (make, again)
            assert condition.wait(0) is False
            condition.release()


def test_second_init_while_a_thread_waits_restores_that_thread_s_lock():
    # It once noted the owner in the lock that it was given meanwhile.
    condition = fs.Condition()
    owned = []

    def wait():
        lock = condition._lock
        with lock, lock:
            owned.append(condition.wait(1))
            owned.append(lock._recursion_count())

    with background(wait):
        waiting(condition, 1)
        condition.__init__(fs.Lock())
    assert owned == [False, 2]
    assert condition.acquire(False)


def test_different_locks_at_a_time_are_refused():
    condition = fs.Condition(fs.Lock())

    def wait():
        with first:
            condition.wait(0.5)

    first = condition._lock
    with background(wait):
        waiting(condition, 1)
        condition.__init__(fs.Lock())
        with condition, pytest.raises(RuntimeError, match="exchanged"):
            condition.wait(1)


def test_lock_without_the_methods_is_refused(impl):
    for lock in (object(), 5, "x", []):
        with pytest.raises(AttributeError):
            impl.Condition(lock)
    with pytest.raises(TypeError):
        impl.Condition(None, None)
    with pytest.raises(TypeError):
        impl.Condition(key=1)


def test_exception_of_the_lock_s_own_methods_passes(impl):
    class Broken(DuckLock):
        def _is_owned(self):
            return True

        def _release_save(self):
            raise KeyError("save")

    condition = impl.Condition(Broken())
    with condition:
        with pytest.raises(KeyError, match="save"):
            condition.wait(1)
        with pytest.raises(KeyError, match="save"):
            condition.wait(1)


def test_what_release_save_returned_is_kept(impl):
    class Saved:
        pass

    class Keeper(DuckLock):
        def _is_owned(self):
            return True

        def _release_save(self):
            saved = Saved()
            references.append(weakref.ref(saved))
            self.release()
            return saved

        def _acquire_restore(self, saved):
            self.acquire()
            restored.append(saved is references[0]())

    references, restored = [], []
    condition = impl.Condition(Keeper())
    with condition:
        assert not condition.wait(0.01)
    assert restored == [True]
    gc.collect()
    assert references[0]() is None


def test_exception_of_acquire_restore_passes():
    class Broken(DuckLock):
        def _is_owned(self):
            return True

        def _release_save(self):
            self.release()

        def _acquire_restore(self, state):
            self.acquire()
            raise KeyError("restore")

    condition = fs.Condition(Broken())
    with condition:
        with pytest.raises(KeyError, match="restore"):
            condition.wait(0.001)


def test_repr_shows_the_lock_and_the_waiters(impl):
    lock = impl.Lock()
    condition = impl.Condition(lock)
    assert repr(condition) == f"<Condition({lock!r}, 0)>"
    assert repr(impl.Condition()).startswith("<Condition(<unlocked _thread.RLock object owner=0 ")

    def wait():
        with condition:
            condition.wait(20)

    with background(wait):
        waiting(condition, 1)
        assert repr(condition) == f"<Condition({lock!r}, 1)>"
        with condition:
            condition.notify()


def test_deprecated_name_warns_and_works(impl):
    condition = impl.Condition()
    with condition, pytest.warns(DeprecationWarning, match="notify_all"):
        condition.notifyAll()


def test_condition_is_not_copied_or_pickled(impl):
    condition = impl.Condition()
    condition.name = 1
    refusing = (copy.copy, copy.deepcopy, pickle.dumps) if impl is fs else (pickle.dumps,)
    for refuse in refusing:
        with pytest.raises(TypeError):
            refuse(condition)


def test_weak_reference_dies_with_the_condition(condition):
    reference = weakref.ref(condition)
    assert reference() is condition


def test_two_threads_may_ask_for_the_lock_at_once(impl):
    for _ in range(50):
        condition = impl.Condition()
        gate = threading.Barrier(3)

        def look(_, condition=condition, gate=gate):
            gate.wait()
            return condition._lock

        first, second, third = run_threads(look, count=3)
        assert first is second is third


def test_two_threads_may_set_the_first_attribute_at_once():
    # Tracking an object twice is fatal to the interpreter.
    for _ in range(100):
        things = [fs.Condition(), fs.Event(), fs.Semaphore(), fs.Barrier(1)]
        gate = threading.Barrier(3)

        def touch(i, things=things, gate=gate):
            gate.wait()
            for thing in things:
                setattr(thing, f"name{i}", i)

        run_threads(touch, count=3)
        assert all(len(vars(thing)) == 3 for thing in things)


def test_at_fork_reinit_unlocks(impl):
    for lock in (None, impl.Lock(), impl.RLock()):
        condition = impl.Condition(lock)
        condition.acquire()
        condition._at_fork_reinit()
        assert run_threads([lambda c=condition: c.acquire(False) and not c.release()]) == [True]


def test_stock_condition_works_with_our_locks():
    for lock in (fs.Lock(), fs.RLock()):
        condition = threading.Condition(lock)

        def wait(condition=condition):
            with condition:
                return condition.wait(20)

        with background(wait):
            waiting(condition, 1)
            with condition:
                condition.notify()


def test_stock_condition_restores_the_depth_of_our_rlock():
    condition = threading.Condition(fs.RLock())
    with condition, condition:
        assert condition.wait(0.001) is False
        assert condition._lock._recursion_count() == 2


@pytest.mark.parametrize("kind", ["default", "Lock", "stock Lock"])
def test_bounded_queue_keeps_every_item(impl, kind):
    lock = LOCKS[kind](impl) or impl.RLock()
    not_empty, not_full = impl.Condition(lock), impl.Condition(lock)
    items, got = [], []

    def put(first):
        for i in range(first, first + 150):
            with not_full:
                while len(items) >= 3:
                    not_full.wait()
                items.append(i)
                not_empty.notify()

    def get():
        for _ in range(150):
            with not_empty:
                while not items:
                    not_empty.wait()
                got.append(items.pop())
                not_full.notify()

    run_threads([lambda: put(0), lambda: put(150), get, get])
    assert sorted(got) == list(range(300))


# -- ours alone ---------------------------------------------------------------


def test_nan_timeout_is_refused():
    condition = fs.Condition()
    with condition:
        for call in (condition.wait, lambda t: condition.wait_for(int, t)):
            with pytest.raises(ValueError, match="NaN"):
                call(float("nan"))
        assert condition._is_owned()


def test_condition_takes_a_twelfth_of_the_memory():
    stock = threading.Condition()
    whole = sum(map(sys.getsizeof, [stock, vars(stock), stock._waiters, stock._lock]))
    assert sys.getsizeof(fs.Condition()) <= whole * 0.2
    assert not gc.is_tracked(fs.Condition())


def test_at_fork_reinit_with_waiters_wakes_them():
    condition = fs.Condition(fs.Lock())

    def wait():
        condition.acquire()
        condition.wait(20)
        with contextlib.suppress(RuntimeError):
            condition.release()

    with background(wait):
        waiting(condition, 1)
        condition._at_fork_reinit()


def initialize_and_use(initialize, *uses):
    """Over and over again at once: whatever is raised, nothing is read that is gone."""
    stop = threading.Event()

    def use(function):
        while not stop.is_set():
            with contextlib.suppress(RuntimeError):
                function()

    def run():
        for _ in range(3000):
            initialize()
        stop.set()

    run_threads([run, *(lambda u=u: use(u) for u in uses)])


@pytest.mark.parametrize("make", [fs.Lock, fs.RLock, threading.Lock])
def test_another_init_while_threads_use_it(make):
    condition = fs.Condition(fs.Lock())

    def take():
        if condition.acquire(timeout=0.001):
            condition.release()

    initialize_and_use(
        lambda: condition.__init__(make()), lambda: condition._lock, lambda: repr(condition), take
    )
