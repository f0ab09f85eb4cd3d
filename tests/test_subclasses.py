"""Subclasses that use, set or override what the original's methods stand on.

They rely on the standard library's own algorithm, so each test runs on it too.
"""

import copy
import functools
import inspect
import pickle
import sys
import threading
import types
import typing
from unittest import mock

import pytest
from conftest import wait_asleep

import fastsync
import fastsync.threading as ours
from fastsync._run import install as primitives

DEADLINE = 30.0


def in_thread(function, *arguments):
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


def join(*threads):
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()


# -- semaphores --------------------------------------------------------------


def test_semaphore_whose_acquire_waits_for_the_condition(impl, wait_until):
    class Fancy(impl.Semaphore):
        def acquire(self, timeout=DEADLINE):
            with self._cond:
                if not self._cond.wait_for(lambda: self._value > 0, timeout):
                    return False
                self._value -= 1
                return True

    semaphore = Fancy(0)
    taken = []
    thread = in_thread(lambda: taken.append(semaphore.acquire()))
    wait_until(lambda: len(semaphore._cond._waiters) == 1)
    semaphore.release()
    join(thread)
    assert taken == [True] and semaphore._value == 0


def test_semaphore_with_a_value_of_its_own(impl):
    class Counted(impl.BoundedSemaphore):
        changes: typing.ClassVar[list] = []

        @property
        def _value(self):
            return self.__dict__["stored"]

        @_value.setter
        def _value(self, value):
            self.changes.append(value)
            self.__dict__["stored"] = value

    semaphore = Counted(2)
    with semaphore:
        assert semaphore.acquire(timeout=1)
        assert not semaphore.acquire(False)
        semaphore.release()
    with pytest.raises(ValueError, match="released too many times"):
        semaphore.release(2)
    assert Counted.changes == [2, 1, 0, 1, 2]
    assert repr(semaphore).endswith(": value=2/2>")


def test_semaphore_over_another_condition(impl):
    """As programs do that make their semaphores observable."""

    class Observed(impl.Condition):
        notified: typing.ClassVar[list] = []

        def notify(self, n=1):
            self.notified.append(n)
            super().notify(n)

    class Sub(impl.Semaphore):
        def __init__(self, value=1):
            super().__init__(value)
            self._cond = Observed(impl.Lock())

    semaphore = Sub()
    with semaphore:
        pass
    impl.Semaphore.release(semaphore, 3)  # by the class
    # The original, which a semaphore over a foreign condition is, notified one by one before 3.12.
    singly = sys.version_info < (3, 12)
    assert Observed.notified == ([1] * 4 if singly else [1, 3]) and semaphore._value == 4


# -- events ------------------------------------------------------------------


def test_event_whose_subclass_waits_for_the_condition(impl, wait_until):
    class Sub(impl.Event):
        def wait_set(self):
            with self._cond:
                return self._cond.wait_for(lambda: self._flag, DEADLINE)

    event = Sub()
    thread = in_thread(event.wait_set)
    wait_until(lambda: len(event._cond._waiters) == 1)
    event.set()
    join(thread)


def test_event_that_overrides_the_flag(impl):
    class Always(impl.Event):
        _flag = property(lambda self: True, lambda self, value: None)

    event = Always()
    assert event.is_set() and event.wait(0)
    assert repr(event).endswith(": set>")


# -- conditions --------------------------------------------------------------


def test_condition_asks_an_overridden_is_owned(impl):
    class Sub(impl.Condition):
        def _is_owned(self):
            return True

    Sub(impl.Lock()).notify()


def test_condition_that_overrides_release_save(impl, wait_until):
    class Sub(impl.Condition):
        calls: typing.ClassVar[list] = []

        def _release_save(self):
            self.calls.append("release")
            return super()._release_save()

        def _acquire_restore(self, state):
            self.calls.append("acquire")
            super()._acquire_restore(state)

    condition = Sub(impl.Lock())
    with condition:
        assert not condition.wait(0.001)
    assert Sub.calls == ["release", "acquire"]


def test_condition_whose_waiters_are_taken_by_a_subclass(impl, wait_until):
    class Sub(impl.Condition):
        def notify_last(self):
            self._waiters.pop().release()

    condition = Sub()
    woken = []

    def wait(name):
        with condition:
            condition.wait(DEADLINE)
            woken.append(name)

    threads = []
    for name in "ab":
        threads.append(in_thread(wait, name))
        wait_until(lambda: len(condition._waiters) == len(threads))
    with condition:
        condition.notify_last()
    wait_until(lambda: woken == ["b"])
    with condition:
        condition.notify_all()
    join(*threads)


def test_condition_over_a_foreign_lock_is_the_original(impl):
    class Duck:
        def __init__(self):
            self.lock = threading.Lock()
            self.acquire, self.release = self.lock.acquire, self.lock.release
            self.locked = self.lock.locked

        def __enter__(self):
            return self.lock.__enter__()

        def __exit__(self, *exception):
            self.lock.__exit__(*exception)

    condition = impl.Condition(Duck())
    assert set(vars(condition)) >= {"_lock", "acquire", "release", "_waiters"}
    with condition:
        assert condition._is_owned()
        assert not condition.wait(0.001)
        condition.notify_all()
    assert not condition._is_owned()


# -- barriers ----------------------------------------------------------------


def test_barrier_over_a_condition_and_a_state_of_its_own(impl):
    class Remote(impl.Barrier):
        def __init__(self, parties, action=None, timeout=None):
            self._cond = impl.Condition()
            self._action = action
            self._timeout = timeout
            self._parties = parties
            self._state = 0
            self._count = 0

    barrier = Remote(2)
    order = []
    thread = in_thread(lambda: order.append(barrier.wait(DEADLINE)))
    order.append(barrier.wait(DEADLINE))
    join(thread)
    assert sorted(order) == [0, 1]
    barrier.abort()
    assert barrier.broken
    barrier.reset()
    assert not barrier.broken and barrier.parties == 2 and barrier.n_waiting == 0


def test_barrier_that_overrides_a_step(impl):
    class Sub(impl.Barrier):
        steps: typing.ClassVar[list] = []

        def _release(self):
            self.steps.append("release")
            super()._release()

    assert Sub(1).wait() == 0
    assert Sub.steps == ["release"]


def test_barrier_of_multiprocessing(run_python):
    code = """
import multiprocessing
assert multiprocessing.Barrier(2).parties == 2
barrier = multiprocessing.Barrier(1)
assert barrier.wait(30) == 0 and not barrier.broken
"""
    run_python("-m", "fastsync", "-c", code)


# -- plain instances ---------------------------------------------------------


def test_waiters_counts_waiting_threads(impl, wait_until):
    event, semaphore = impl.Event(), impl.Semaphore(0)
    threads = [in_thread(event.wait, DEADLINE), in_thread(semaphore.acquire)]
    wait_until(lambda: len(event._cond._waiters) == len(semaphore._cond._waiters) == 1)
    event.set()
    semaphore.release()
    join(*threads)
    assert not event._cond._waiters and not semaphore._cond._waiters


CALLS = {
    "set": lambda event, semaphore: event.set(),
    "clear": lambda event, semaphore: event.clear(),
    "wait": lambda event, semaphore: event.wait(0),
    "acquire": lambda event, semaphore: semaphore.acquire(False),
    "acquire in time": lambda event, semaphore: semaphore.acquire(timeout=DEADLINE),
    "with": lambda event, semaphore: semaphore.__enter__(),
    "release": lambda event, semaphore: semaphore.release(),
}


@pytest.mark.parametrize("call", CALLS)
def test_calls_wait_for_the_lock_of_the_condition(impl, call):
    """So a program that has it may read and write `_value`."""
    event, semaphore = impl.Event(), impl.BoundedSemaphore(2)
    event.set()
    semaphore.acquire()
    done = []
    with event._cond, semaphore._cond:
        before = event._flag, semaphore._value
        thread = in_thread(lambda: (CALLS[call](event, semaphore), done.append(True)))
        wait_asleep(thread)
        assert not done and before == (event._flag, semaphore._value)
    join(thread)
    assert done


class Noting:
    """A lock that notes its uses."""

    def __init__(self, lock):
        self.lock = lock
        self.uses = 0

    def acquire(self, *args, **named):
        self.uses += 1
        return self.lock.acquire(*args, **named)

    def release(self):
        self.lock.release()

    def __enter__(self):
        return self.acquire()

    def __exit__(self, *exc):
        self.release()


@pytest.mark.parametrize("call", CALLS)
def test_a_lock_that_is_put_into_the_condition_is_used(impl, call):
    event, semaphore = impl.Event(), impl.Semaphore(1)
    event.set()
    for thing in (event, semaphore):
        thing._cond._lock = lock = Noting(thing._cond._lock)
        assert thing._cond._lock is lock
    CALLS[call](event, semaphore)
    uses = event._cond._lock.uses + semaphore._cond._lock.uses
    assert uses
    assert event._flag is (call != "clear")
    assert semaphore._value == {"acquire": 0, "acquire in time": 0, "with": 0, "release": 2}.get(
        call, 1
    )


def test_a_lock_that_is_put_into_the_condition_of_a_barrier_is_used(impl):
    barrier = impl.Barrier(1)
    barrier._cond._lock = lock = Noting(barrier._cond._lock)
    assert barrier.wait(DEADLINE) == 0
    assert lock.uses


def test_a_patched_method_of_the_condition_is_called(impl):
    event, semaphore = impl.Event(), impl.Semaphore(1)
    with (
        mock.patch.object(event._cond, "notify_all") as notify_all,
        mock.patch.object(event._cond, "wait", return_value="waited") as wait,
        mock.patch.object(semaphore._cond, "notify") as notify,
    ):
        assert event.wait(7) == "waited"
        event.set()
        semaphore.release()
    wait.assert_called_once_with(7)
    notify_all.assert_called_once_with()
    assert notify.called
    assert event.wait(DEADLINE) and semaphore._value == 2


def test_threads_that_wait_for_the_condition_are_waiters(wait_until):
    event, semaphore = ours.Event(), ours.Semaphore(0)
    event._cond, semaphore._cond  # noqa: B018 -- from now on threads wait for these
    threads = [in_thread(event.wait, DEADLINE), in_thread(semaphore.acquire)]
    wait_until(lambda: fastsync.waiters(event) == fastsync.waiters(semaphore) == 1)
    assert len(event._cond._waiters) == len(semaphore._cond._waiters) == 1
    event.set()
    semaphore.release()
    join(*threads)
    assert fastsync.waiters(event) == fastsync.waiters(semaphore) == 0


def test_a_lock_is_not_exchanged_while_threads_wait_natively(wait_until):
    event = ours.Event()
    thread = in_thread(event.wait, DEADLINE)
    wait_until(lambda: len(event._cond._waiters) == 1)
    with pytest.raises(RuntimeError, match="threads wait"):
        event._cond._lock = ours.Lock()
    event.set()
    join(thread)


def test_value_is_changed_under_the_lock_amid_other_calls(impl):
    """A semaphore that grows and shrinks, as programs do it from outside."""
    semaphore = impl.Semaphore(2)

    def use():
        for _ in range(300):
            with semaphore:
                pass

    def resize():
        for _ in range(300):
            with semaphore._cond:
                semaphore._value += 1
                semaphore._cond.notify()
            with semaphore._cond:
                while semaphore._value == 0:
                    semaphore._cond.wait()
                semaphore._value -= 1

    semaphore._cond  # noqa: B018 -- a program that has it, before the threads
    join(*[in_thread(call) for call in (use, use, resize, resize)])
    assert semaphore._value == 2


def test_set_and_release_notify_the_condition(impl, wait_until):
    event, semaphore = impl.Event(), impl.BoundedSemaphore(2)
    assert semaphore.acquire() and semaphore.acquire()

    def wait(thing, predicate):
        with thing._cond:
            assert thing._cond.wait_for(predicate, DEADLINE)

    threads = [
        in_thread(wait, event, lambda: event._flag),
        in_thread(wait, semaphore, lambda: semaphore._value == 1),
    ]
    wait_until(lambda: len(event._cond._waiters) == len(semaphore._cond._waiters) == 1)
    event.set()
    semaphore.release()
    join(*threads)
    assert event._cond is event._cond


@pytest.mark.parametrize("seed", range(20))
def test_the_condition_is_made_while_the_event_is_set(impl, run_threads, seed):
    event = impl.Event()

    def look(_):
        condition = event._cond
        with condition:
            assert condition.wait_for(lambda: event._flag, DEADLINE)

    run_threads([lambda: look(0), lambda: look(1), event.set])


def test_private_attributes_of_a_plain_instance_can_be_set(impl):
    semaphore = impl.BoundedSemaphore(3)
    semaphore._cond = condition = impl.Condition(impl.Lock())
    with semaphore:
        assert semaphore._cond is condition and semaphore._value == 2
    assert semaphore._initial_value == 3

    event = impl.Event()
    event.set()
    event._cond = condition
    assert event.wait() and event._cond is condition

    barrier = impl.Barrier(2)
    barrier._parties -= 1
    assert barrier.wait() == 0 and barrier.parties == 1

    condition = impl.Condition()
    condition._lock = lock = impl.RLock()
    with condition:
        assert lock._is_owned()


def test_a_patched_method_is_used_where_the_original_uses_it(impl, monkeypatch):
    calls = []

    def patch(kind, name):
        method = getattr(kind, name)

        def patched(self, *arguments):
            calls.append(name)
            return method(self, *arguments)

        monkeypatch.setattr(kind, name, patched)

    patch(impl.Semaphore, "release")
    patch(impl.BoundedSemaphore, "release")
    patch(impl.Event, "is_set")
    patch(impl.Condition, "wait")
    patch(impl.Condition, "notify")
    patch(impl.Condition, "notify_all")
    with impl.Semaphore():
        pass
    assert calls.count("release") == 1
    with impl.BoundedSemaphore():
        pass
    assert calls.count("release") == 2
    calls.clear()
    condition = impl.Condition()
    with pytest.warns(DeprecationWarning):
        assert not impl.Event().isSet()
    with condition, pytest.warns(DeprecationWarning):
        condition.notifyAll()
        answers = iter((False, True))
        condition.wait_for(lambda: next(answers), 0.001)
    assert [name for name in calls if name != "wait"] == ["is_set", "notify_all", "notify"]
    assert "wait" in calls
    monkeypatch.undo()
    calls.clear()
    with impl.Semaphore():
        pass
    assert calls == []


def test_dict_and_class(impl):
    event = impl.Event()
    event.name = "x"
    del event.__dict__
    assert not hasattr(event, "name")
    semaphore = impl.BoundedSemaphore()
    semaphore.__class__ = impl.Semaphore
    assert type(semaphore) is impl.Semaphore


def test_a_subclass_may_say_how_it_is_pickled(impl):
    class Sub(impl.Event):
        def __reduce__(self):
            return (complex, (1, 2))

    assert pickle.loads(pickle.dumps(Sub())) == 1 + 2j


# -- locks, and the types of `_thread` ---------------------------------------


LOCKS = [
    (primitives.Lock, type(threading._allocate_lock())),
    (primitives.RLock, threading._CRLock),
]


@pytest.mark.parametrize("native, stock", LOCKS)
def test_each_kind_of_lock_counts_as_the_other(native, stock):
    make = ours._stdlib._allocate_lock if native is primitives.Lock else stock
    for lock in (native(), make()):
        assert isinstance(lock, native)
        assert isinstance(lock, stock)
        assert isinstance(lock, native | None) and isinstance(lock, stock | int)
        assert isinstance(lock, typing.Union[native, None])  # noqa: UP007
        match lock:
            case native():
                pass
            case _:
                pytest.fail("no match")
        assert lock.__class__.__module__ == "_thread"
        for registered in (native, stock):
            show = functools.singledispatch(lambda lock: "other")
            show.register(registered, lambda lock: "lock")
            assert show(lock) == "lock"
    assert issubclass(stock, native) and issubclass(native, native)
    assert type(native()) is native
    assert not isinstance(1, native) and not issubclass(int, native)
    other = primitives.RLock if native is primitives.Lock else primitives.Lock
    assert not isinstance(native(), other) and not issubclass(other, native)
    assert isinstance(native | None, types.UnionType) and inspect.isclass(native)


def test_a_subclass_of_rlock_is_only_itself():
    class Sub(ours.RLock):
        pass

    assert Sub().__class__ is Sub
    assert isinstance(Sub(), Sub) and isinstance(Sub(), ours.RLock)
    assert not isinstance(ours.RLock(), Sub)
    assert not isinstance(LOCKS[1][1](), Sub)


def test_what_is_registered_for_the_originals_pickles_ours(monkeypatch):
    import copyreg

    for native, stock in LOCKS:
        with pytest.raises(TypeError, match="cannot pickle"):
            pickle.dumps(native())
        monkeypatch.setitem(copyreg.dispatch_table, stock, lambda lock: (int, (7,)))
        assert pickle.loads(pickle.dumps(native())) == 7


@pytest.mark.parametrize("name", ["Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore"])
def test_a_lock_is_not_callable(impl, name):
    lock = getattr(impl, name)()
    assert not callable(lock)
    for _ in range(3):
        with lock:
            pass
    entered = lock.__enter__()
    assert entered is True
    lock.__exit__(None, None, None)


def test_a_subclass_with_a_call_of_its_own_is_callable(impl):
    class Sub(impl.Semaphore):
        def __call__(self):
            return "called"

    semaphore = Sub()
    with semaphore:
        assert semaphore() == "called" and semaphore._value == 0
    assert callable(semaphore)


def test_the_descriptors_of_with_are_shared_with_no_other_type():
    kind = type(vars(ours.RLock)["__enter__"])
    for make in (kind, lambda: kind(5), lambda: kind.__new__(kind), lambda: object.__new__(kind)):
        with pytest.raises(TypeError):
            make()

    class Stranger:
        __enter__ = vars(ours.RLock)["__enter__"]
        _value = vars(ours.Semaphore)["_value"]

    with pytest.raises(TypeError):
        _ = Stranger().__enter__
    with pytest.raises(TypeError):
        _ = Stranger()._value
    with pytest.raises(TypeError):
        Stranger()._value = 1


# -- second calls of __init__() ----------------------------------------------


def two_values(kind):
    if kind is ours.Barrier:
        return [(2, print, 1), (3, len, None)]
    if kind is ours.Condition:
        return [(ours.Lock(),), (ours.RLock(),)]
    if kind in (ours.Semaphore, ours.BoundedSemaphore):
        return [(3,), (7,)]
    return [(), ()]


@pytest.mark.parametrize(
    "name", ["Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier"]
)
def test_two_threads_initialize_one_object(name, run_threads):
    kind = getattr(ours, name)
    values = two_values(kind)
    for _ in range(300):
        thing = kind(*values[0])
        run_threads([lambda v=v, t=thing: t.__init__(*v) for v in values])
        repr(thing)
        if name == "BoundedSemaphore":
            assert thing._value == thing._initial_value in (3, 7)
        elif name == "Semaphore":
            assert thing._value in (3, 7)
        elif name == "Condition":
            assert thing._lock in (values[0][0], values[1][0])
            with thing:
                thing.notify_all()
        elif name == "Barrier":
            assert (thing._action, thing._timeout) in ((print, 1), (len, None))
            assert thing.parties in (2, 3)


def test_an_init_that_raises_changes_nothing():
    class Index:
        calls = 0

        def __index__(self):
            self.calls += 1
            return 3

        def __int__(self):
            raise AssertionError("converted by __int__()")

    index = Index()
    semaphore = ours.BoundedSemaphore(index)
    assert (semaphore._value, semaphore._initial_value, index.calls) == (3, 3, 1)
    for wrong in (1.5, -1, 10**30, "x"):
        for thing in (semaphore, ours.Barrier(3)):
            before = repr(thing).partition(":")[2]
            with pytest.raises((TypeError, ValueError, OverflowError)):
                thing.__init__(wrong)
            assert repr(thing).partition(":")[2] == before


def nested_barrier_timeouts(inner):
    return ours.Barrier(1, None, inner)


def nested_barrier_actions(inner):
    return ours.Barrier(1, inner and inner.wait)


def nested_attributes(inner):
    event = ours.Event()
    event.inner = inner
    return event


def nested_conditions(inner):
    return ours.Condition(inner)


@pytest.mark.parametrize(
    "makers",
    [
        [nested_barrier_timeouts],
        [nested_barrier_actions],
        [nested_attributes],
        [nested_conditions],
        [nested_barrier_timeouts, nested_attributes],
    ],
)
def test_a_long_chain_is_dropped(makers):
    chain = None
    for index in range(300_000):
        chain = makers[index % len(makers)](chain)
    del chain


@pytest.mark.parametrize("kind", ["Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier"])
def test_an_instance_is_copied_as_the_originals(kind):
    for module in (threading, ours):

        class Derived(getattr(module, kind)):
            __slots__ = ("extra",)

        class Plain(Derived):
            pass

        for make in (Derived, Plain):
            thing = make(2) if kind == "Barrier" else make()
            thing.extra = 1
            thing.more = [2]
            twin = copy.copy(thing)
            assert type(twin) is make
            assert twin.extra == 1
            assert twin.__dict__ == thing.__dict__
            assert twin.more is thing.more
            with pytest.raises(TypeError, match=r"cannot pickle '_thread\.R?[Ll]ock' object"):
                copy.deepcopy(thing)
