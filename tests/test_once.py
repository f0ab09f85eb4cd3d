"""Once, OnceLock, LazyLock, @once and lazy_property."""

import gc
import pickle
import threading
import time
import traceback
import weakref

import pytest
from conftest import interrupted

from fastsync.objects.lazy_property import lazy_property
from fastsync.objects.once import LazyLock, Once, OnceLock, OnceState, once


class Running:
    """A function that runs in another thread until it is told to end."""

    def __init__(self, start, fail=False):
        self.begun, self.gate, self.outcome = threading.Event(), threading.Event(), None
        self.fail = fail
        self.thread = threading.Thread(target=self.run, args=(start,), daemon=True)

    def run(self, start):
        try:
            self.outcome = start(self.function)
        except ZeroDivisionError as error:
            self.outcome = error

    def function(self, *_):
        self.begun.set()
        assert self.gate.wait(30)
        if self.fail:
            raise ZeroDivisionError
        return "made"

    def __enter__(self):
        self.thread.start()
        assert self.begun.wait(30)
        return self

    def end(self):
        self.gate.set()
        self.thread.join(30)
        assert not self.thread.is_alive()

    def __exit__(self, *exc):
        self.end()


def fail(*_):
    raise ZeroDivisionError


# -- Once --------------------------------------------------------------------


def test_smoke():
    gate = Once()
    calls = []
    assert gate.state() is OnceState.New
    assert gate.call_once(lambda: calls.append(1)) is None
    assert gate.call_once(lambda: calls.append(2)) is None
    assert gate.call_once_force(lambda state: calls.append(3)) is None
    gate.wait()
    assert calls == [1]
    assert gate.is_completed()
    assert gate.state() is OnceState.Done
    assert gate.state().done()
    assert not gate.state().poisoned()


def test_stampede(run_threads):
    """10 threads and this one: everybody sees what the one that ran has done."""
    for _ in range(50):
        gate = Once()
        run = []

        def rush(i=0, gate=gate, run=run):
            for _ in range(4):
                time.sleep(0)
            gate.call_once(lambda: run.append(threading.get_ident()))
            assert len(run) == 1

        run_threads(rush, count=10)
        rush()


def test_poison():
    """poison_bad, of std and parking_lot."""
    gate = Once()
    with pytest.raises(ZeroDivisionError):
        gate.call_once(fail)
    assert gate.state() is OnceState.Poisoned
    assert gate.state().poisoned()
    assert not gate.is_completed()
    for call in (lambda: gate.call_once(fail), gate.wait):
        with pytest.raises(RuntimeError):
            call()
    with pytest.raises(ZeroDivisionError):
        gate.call_once_force(fail)
    assert gate.state() is OnceState.Poisoned
    states = []
    gate.call_once_force(states.append)
    assert states == [OnceState.Poisoned]
    assert gate.state() is OnceState.Done
    gate.call_once(fail)
    gate.wait()
    states.clear()
    Once().call_once_force(states.append)
    assert states == [OnceState.New]


def test_wait_for_force_to_finish(run_threads, wait_until):
    """While it is forced, an ordinary call waits, and then finds it done."""
    gate = Once()
    with pytest.raises(ZeroDivisionError):
        gate.call_once(fail)
    seen = []
    with Running(gate.call_once_force) as running:
        assert gate.state() is OnceState.InProgress
        waiter = threading.Thread(target=lambda: seen.append(gate.call_once(fail)), daemon=True)
        waiter.start()
        running.end()
        waiter.join(30)
        assert not waiter.is_alive()
    assert seen == [None]
    assert gate.state() is OnceState.Done


def test_waiters_of_a_failing_run(run_threads):
    gate = Once()
    outcomes = []

    def other(call):
        try:
            outcomes.append(call())
        except RuntimeError:
            outcomes.append(RuntimeError)

    with Running(gate.call_once, fail=True) as running:
        threads = [
            threading.Thread(target=other, args=(call,), daemon=True)
            for call in (gate.wait, lambda: gate.call_once(fail))
        ]
        for thread in threads:
            thread.start()
        running.end()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
    assert isinstance(running.outcome, ZeroDivisionError)
    assert outcomes == [RuntimeError] * 2


def test_wait_before_anything_runs(run_threads):
    gate = Once()
    lock = OnceLock()
    done = []

    def wait():
        gate.wait()
        done.append(lock.wait())

    def run():
        lock.set(7)
        gate.call_once(lambda: done.append(0))

    run_threads([wait, wait, wait, run])
    assert done == [0, 7, 7, 7]


def test_a_wait_survives_failed_attempts(wait_until):
    lock = OnceLock()
    got = []
    thread = threading.Thread(target=lambda: got.append(lock.wait()), daemon=True)
    thread.start()
    for _ in range(100):
        with pytest.raises(ZeroDivisionError):
            lock.get_or_init(fail)
    lock.set("late")
    thread.join(30)
    assert got == ["late"]


@pytest.mark.parametrize("name", ["call_once", "call_once_force", "wait"])
def test_recursion_raises(name):
    gate = Once()

    def again(*_):
        getattr(gate, name)(*[lambda *_: None] * (name != "wait"))

    for start in (gate.call_once, gate.call_once_force):
        with pytest.raises(RuntimeError):
            start(again)
        assert gate.state() is OnceState.Poisoned
    gate.call_once_force(lambda state: None)


def test_states():
    names = ["New", "InProgress", "Poisoned", "Done"]
    for name in names:
        state = getattr(OnceState, name)
        assert state.name == name
        assert pickle.loads(pickle.dumps(state)) is state
        assert repr(state) == f"OnceState.{name}"
    with pytest.raises(TypeError):
        OnceState("New")
    with pytest.raises(TypeError):
        pickle.dumps(Once())
    assert "New" in repr(Once())


@pytest.mark.parametrize("name", ["call_once", "call_once_force", "wait"])
def test_ctrl_c_ends_a_wait(name):
    gate = Once()
    arguments = [fail] * (name != "wait")
    with Running(gate.call_once) as running:
        interrupted(lambda: getattr(gate, name)(*arguments))
        assert gate.state() is OnceState.InProgress
        running.end()
    getattr(gate, name)(*arguments)
    if name == "wait":
        interrupted(Once().wait)


# -- OnceLock ----------------------------------------------------------------


def test_once_lock():
    lock = OnceLock()
    assert lock.get() is None
    assert lock.into_inner() is None
    assert lock.take() is None
    assert lock.set(5) is True
    assert lock.set(6) is False
    assert lock.get() == lock.wait() == lock.into_inner() == 5
    assert lock.get_or_init(fail) == lock.get_or_try_init(fail) == 5
    assert lock.take() == 5
    assert lock.get() is None
    assert lock.get_or_init(lambda: 7) == 7
    assert OnceLock[int].__origin__ is OnceLock


def test_none_is_a_value():
    lock = OnceLock()
    assert lock.set(None) is True
    assert lock.set(1) is False
    assert lock.get_or_init(fail) is None
    assert lock.wait() is None


@pytest.mark.parametrize("name", ["get_or_init", "get_or_try_init"])
def test_a_failed_initialization_lets_the_next_caller_try(name, run_threads):
    lock = OnceLock()
    with pytest.raises(ZeroDivisionError):
        getattr(lock, name)(fail)
    assert lock.get() is None
    with Running(getattr(lock, name), fail=True) as running:
        got = []
        threads = [
            threading.Thread(target=lambda: got.append(lock.get_or_init(lambda: 3)), daemon=True)
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        running.end()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
    assert isinstance(running.outcome, ZeroDivisionError)
    assert got == [3, 3, 3]


def test_set_waits_for_an_initialization():
    lock = OnceLock()
    answers = []
    with Running(lock.get_or_init) as running:
        assert lock.get() is None
        thread = threading.Thread(target=lambda: answers.append(lock.set(1)), daemon=True)
        thread.start()
        running.end()
        thread.join(30)
    assert answers == [False]
    assert lock.get() == "made"


@pytest.mark.parametrize(
    "again",
    [
        lambda lock: lock.get_or_init(lambda: 1),
        lambda lock: lock.get_or_try_init(lambda: 1),
        lambda lock: lock.set(1),
        lambda lock: lock.wait(),
    ],
)
def test_recursive_initialization_raises(again):
    lock = OnceLock()
    with pytest.raises(RuntimeError):
        lock.get_or_init(lambda: again(lock))
    assert lock.get_or_init(lambda: lock.get()) is None


def test_all_callers_get_the_one_value(run_threads):
    for _ in range(50):
        lock = OnceLock()
        made = []

        def make(made=made):
            made.append(object())
            return made[-1]

        values = run_threads(lambda i, lock=lock, make=make: lock.get_or_init(make), count=8)
        assert len(made) == 1
        assert all(value is made[0] for value in values)


def test_take_and_get_at_once_are_safe(run_threads):
    lock = OnceLock()

    def work(i):
        taken = 0
        for n in range(5000):
            lock.set([n])
            value = lock.get()
            assert value is None or len(value) == 1
            taken += lock.take() is not None
        return taken

    assert sum(run_threads(work, count=4)) > 0
    assert lock.get() is None


def test_once_lock_interrupted():
    lock = OnceLock()
    interrupted(lock.wait)
    with Running(lock.get_or_init) as running:
        interrupted(lambda: lock.get_or_init(fail))
        interrupted(lambda: lock.set(1))
        running.end()
    assert lock.get() == "made"


# -- LazyLock ----------------------------------------------------------------


def test_lazy_lock(run_threads):
    made = []

    def make():
        made.append(object())
        return made[-1]

    lazy = LazyLock(make)
    assert not made
    values = run_threads(lambda i: lazy.value if i % 2 else lazy.force(), count=8)
    assert len(made) == 1
    assert all(value is made[0] for value in values)
    assert lazy.value is lazy.force() is made[0]
    with pytest.raises(TypeError):
        LazyLock(3)
    with pytest.raises(AttributeError):
        lazy.value = 3


@pytest.mark.parametrize("kind", [ZeroDivisionError, KeyboardInterrupt])
def test_a_lazy_lock_is_poisoned_for_good(kind):
    calls = []

    def broken():
        calls.append(1)
        raise kind

    lazy = LazyLock(broken)
    with pytest.raises(kind) as first:
        lazy.force()
    for _ in range(2):
        with pytest.raises(RuntimeError) as later:
            lazy.value  # noqa: B018
        assert_copied(first.value, later.value.__cause__)
    assert calls == [1]


def test_a_recursive_lazy_lock_raises():
    lazy = LazyLock(lambda: lazy.value)
    with pytest.raises(RuntimeError):
        lazy.force()


def test_waiters_of_a_failing_lazy_lock():
    running = Running(lambda function: lazy.force(), fail=True)
    lazy = LazyLock(running.function)
    causes = []

    def wait():
        try:
            lazy.force()
        except RuntimeError as error:
            causes.append(error.__cause__)

    with running:
        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        interrupted(lazy.force)
        running.end()
        thread.join(30)
    assert len(causes) == 1
    assert_copied(running.outcome, causes[0])


def test_a_lazy_lock_lets_cycles_go():
    class Value:
        pass

    def build():
        value = Value()
        value.lazy = LazyLock(lambda: value)
        value.cell = OnceLock()
        value.cell.set(value)
        assert value.lazy.value is value
        return weakref.ref(value)

    gone = build()
    gc.collect()
    assert gone() is None


# -- @once -------------------------------------------------------------------


def test_once_runs_one_time(run_threads):
    calls = []

    @once
    def load(a, b=0):
        """Load it."""
        calls.append((a, b))
        return object()

    results = run_threads(lambda i: load(i, b=i), count=8)
    [(a, b)] = calls  # the first call's arguments win
    assert a == b
    assert all(result is results[0] for result in results)
    assert load() is results[0]
    assert load("any", 1, x=3) is results[0]
    assert load.__name__ == "load"
    assert load.__doc__ == "Load it."
    assert callable(load)
    assert load.__wrapped__(1) is not results[0]
    with pytest.raises(TypeError):
        once(3)


def test_once_keeps_an_exception_and_its_traceback():
    calls = []

    @once
    def broken():
        calls.append(1)
        raise ZeroDivisionError("once")

    errors, depths = [], []
    for _ in range(20):
        with pytest.raises(ZeroDivisionError) as caught:
            broken()
        errors.append(caught.value)
        depths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    assert calls == [1]
    for error in errors[1:]:
        assert_copied(errors[0], error)
    assert len(set(map(id, errors))) == len(errors), "threads would write one traceback"
    assert len(set(depths[1:])) == 1
    assert depths[1] <= depths[0]
    for error in errors:
        assert "broken" in {frame.name for frame in traceback.extract_tb(error.__traceback__)}
    try:
        raise KeyError
    except KeyError:
        with pytest.raises(ZeroDivisionError) as caught:
            broken()
    assert errors[0].__context__ is caught.value.__context__ is None


class Odd(Exception):
    """Its __init__ takes other arguments than it passes on, and may not run again."""

    made = 0

    def __init__(self, first, second):
        super().__init__(f"{first}{second}")
        self.first = first
        Odd.made += 1

    def __setattr__(self, name, value):
        assert name == "first", "only the function's code runs"
        super().__setattr__(name, value)


class Slotted(OSError):
    __slots__ = ("slot",)


def noted():
    error = ValueError("noted")
    error.add_note("a note")
    return error


def slotted():
    error = Slotted(2, "no such thing", "name")
    error.slot = 5
    return error


ERRORS = {
    "plain": lambda: ZeroDivisionError("once", 1),
    "odd": lambda: Odd("a", "b"),
    "noted": noted,
    "slotted": slotted,
    "os": lambda: FileNotFoundError(2, "no such file", "name"),
    "unicode": lambda: UnicodeDecodeError("utf-8", b"abc", 1, 2, "because"),
    "syntax": lambda: SyntaxError("bad", ("file", 1, 2, "text")),
    "import": lambda: ImportError("bad", name="name", path="path"),
    "attribute": lambda: AttributeError("bad", name="name", obj=ERRORS),
    "stop": lambda: StopIteration(5),
    "key": lambda: KeyError("key"),
    "group": lambda: ExceptionGroup("group", [ValueError(1), TypeError(2)]),
    "memory": lambda: MemoryError(),
    "empty": lambda: Exception(),
}


def assert_copied(error, copied):
    """Another object that says the same."""
    assert copied is not error
    assert type(copied) is type(error)
    assert copied.args == error.args
    assert str(copied) == str(error)
    assert vars(copied) == vars(error)
    assert copied.__cause__ is error.__cause__
    assert copied.__context__ is error.__context__
    assert copied.__suppress_context__ == error.__suppress_context__
    for name in ("errno", "filename", "start", "reason", "lineno", "name", "path", "obj", "slot"):
        assert getattr(copied, name, None) == getattr(error, name, None)
    for name in ("value", "exceptions"):
        assert getattr(copied, name, None) == getattr(error, name, None)


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("cause", [None, False, "cause"])
def test_later_callers_get_a_copy_that_says_the_same(name, cause):
    @once
    def fail():
        error = ERRORS[name]()
        if cause is False:
            raise error from None
        if cause:
            raise error from LookupError(cause)
        raise error

    errors = []
    for _ in range(3):
        with pytest.raises(Exception) as caught:
            fail()
        errors.append(caught.value)
    Odd.made = 0
    for later in errors[1:]:
        assert_copied(errors[0], later)
    assert Odd.made == 0
    if name == "noted":
        errors[1].add_note("another")
        assert errors[2].__notes__ == errors[0].__notes__ == ["a note"]


def test_an_error_that_cannot_be_copied_is_told_all_the_same():
    class Tampered(ExceptionGroup):
        pass

    @once
    def fail():
        error = Tampered("message", [ValueError()])
        error.args = (1, 2, 3)
        raise error

    with pytest.raises(Tampered):
        fail()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="Tampered"):
            fail()


@pytest.mark.parametrize("kind", [once, LazyLock])
def test_kept_errors_raised_by_many_threads(kind, run_threads):
    # each caller's traceback is its own: one that threads share crashes a free-threaded build
    def fail():
        raise ConnectionError("refused")

    kept = kind(fail)
    call = kept if kind is once else kept.force

    def work(_):
        for _ in range(1500):
            try:
                call()
            except ConnectionError as error:
                traceback.extract_tb(error.__traceback__)
            except RuntimeError as error:
                traceback.extract_tb(error.__cause__.__traceback__)
                try:
                    raise error.__cause__
                except ConnectionError:
                    pass

    run_threads(work, 6)


def test_a_lazy_lock_drops_its_function():
    # (not one that has raised: the traceback keeps it)
    def function():
        return 1

    gone = weakref.ref(function)
    lazy = LazyLock(function)
    del function
    assert gone() is not None
    assert lazy.value == 1
    assert gone() is None


def test_a_once_called_by_the_name_of_its_method():
    calls = []
    f = once(lambda *args, **kwargs: calls.append((args, kwargs)) or 5)
    assert f.__call__(1, a=2) == f() == once.__call__(f) == 5
    assert calls == [((1,), {"a": 2})]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_once_does_not_keep_what_is_no_error(kind):
    attempts = []

    @once
    def flaky():
        attempts.append(1)
        if len(attempts) < 3:
            raise kind
        return "fine"

    for _ in range(2):
        with pytest.raises(kind):
            flaky()
    assert flaky() == flaky() == "fine"
    assert len(attempts) == 3


def test_all_callers_get_the_same_exception():
    @once
    def broken():
        return running.function()

    running = Running(lambda function: broken(), fail=True)
    errors = []

    def call():
        try:
            broken()
        except ZeroDivisionError as error:
            errors.append(error)

    with running:
        threads = [threading.Thread(target=call, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        interrupted(broken)
        running.end()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
    assert len(errors) == 4
    for error in errors:
        if error is not running.outcome:
            assert_copied(running.outcome, error)
    assert len(set(map(id, errors))) == 4


def test_a_recursive_once_raises():
    @once
    def recursive():
        return recursive()

    with pytest.raises(RuntimeError):
        recursive()


@once
def at_module_level():
    return 1


def test_once_in_a_class_and_pickled():
    class Thing:
        @once
        def first(self):
            return self

    one, two = Thing(), Thing()
    assert one.first() is one
    assert two.first() is one
    assert Thing.first is Thing.__dict__["first"]
    assert pickle.loads(pickle.dumps(at_module_level)) is at_module_level


# -- lazy_property -----------------------------------------------------------


class Lazy:
    def __init__(self, make):
        self.make = make

    @lazy_property
    def value(self):
        """What it makes."""
        return self.make()


def test_lazy_property(run_threads):
    made = []

    def make():
        made.append(object())
        return made[-1]

    instance = Lazy(make)
    values = run_threads(lambda i: instance.value, count=8)
    assert len(made) == 1
    assert all(value is made[0] for value in values)
    assert instance.__dict__["value"] is made[0]
    assert isinstance(Lazy.value, lazy_property)
    assert Lazy.value.__doc__ == "What it makes."
    del instance.value
    assert instance.value is made[1]
    instance.value = 3
    assert instance.value == 3
    with pytest.raises(TypeError):
        lazy_property(3)


def test_lazy_property_has_one_name():
    class Late:
        pass

    Late.a = lazy_property(lambda self: 1)
    with pytest.raises(TypeError, match="no name"):
        Late().a  # noqa: B018
    Late.a.__set_name__(Late, "a")
    assert Late().a == 1
    with pytest.raises(TypeError, match="two names, 'a' and 'b'"):
        Late.a.__set_name__(Late, "b")
    assert Late().a == 1


def test_lazy_property_keeps_no_exception():
    attempts = []

    def make():
        attempts.append(1)
        if len(attempts) < 3:
            raise ZeroDivisionError
        return len(attempts)

    instance = Lazy(make)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            instance.value  # noqa: B018
    assert instance.value == instance.value == 3


def test_a_recursive_lazy_property_raises():
    instance = Lazy(lambda: instance.value)
    with pytest.raises(RuntimeError):
        instance.value  # noqa: B018
    instance.make = lambda: 1
    assert instance.value == 1


def test_instances_never_wait_for_one_another():
    running = Running(lambda function: slow.value)
    slow = Lazy(running.function)
    with running:
        # While `slow` is being made, others are, also one that is made in between.
        quick = [Lazy(lambda i=i: i) for i in range(10)]
        assert [instance.value for instance in quick] == list(range(10))
        nested = Lazy(lambda: quick[3].value + 1)
        assert nested.value == 4
        interrupted(lambda: slow.value)
        running.end()
    assert slow.value == "made"


def test_waiters_of_a_failing_lazy_property_try_themselves(run_threads):
    running = Running(lambda function: instance.value, fail=True)
    instance = Lazy(running.function)
    got = []
    with running:
        threads = [
            threading.Thread(target=lambda: got.append(instance.value), daemon=True)
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        instance.make = lambda: got.append("again") or 5
        running.end()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
    assert got == ["again", 5, 5, 5, 5]


def test_lazy_property_in_a_dict_of_another_class():
    class Attributes(dict):
        pass

    class Thing:
        @lazy_property
        def value(self):
            made.append(1)
            return object()

    made, thing = [], Thing()
    thing.__dict__ = Attributes()
    assert thing.value is thing.value
    assert thing.__dict__ == {"value": thing.value}
    assert made == [1]


def test_lazy_property_and_slots():
    class Without:
        __slots__ = ()

        @lazy_property
        def value(self):
            return 1

    class With:
        __slots__ = ("__dict__",)

        @lazy_property
        def value(self):
            return 1

    with pytest.raises(TypeError, match="__dict__"):
        Without().value  # noqa: B018
    assert With().value == 1


def test_lazy_property_on_a_metaclass_says_so():
    class Meta(type):
        @lazy_property
        def value(cls):
            raise AssertionError("not called")

    class Thing(metaclass=Meta):
        pass

    with pytest.raises(
        TypeError, match=r"'value' cannot keep a value in the class 'Thing'.*metaclass"
    ):
        Thing.value  # noqa: B018


def test_once_that_is_given_no_callable_stays_new():
    once = Once()
    for call in [once.call_once, once.call_once_force]:
        with pytest.raises(TypeError, match="callable"):
            call(None)
    assert once.state() is OnceState.New


@pytest.mark.parametrize("suppress", [False, True])
@pytest.mark.parametrize("cause", [None, IndexError("cause")])
@pytest.mark.parametrize("context", [None, OSError("context")])
def test_a_copy_shows_what_the_error_showed(suppress, cause, context):
    """Cause, context, and which of them a traceback shows: setting one changes another."""
    error = KeyError("e")
    error.__cause__, error.__context__ = cause, context
    error.__suppress_context__ = suppress

    @once
    def fail():
        raise error

    for _ in range(3):
        with pytest.raises(KeyError) as raised:
            fail()
        found = raised.value
        assert found.__suppress_context__ is suppress
        for one, other in [(found.__cause__, cause), (found.__context__, context)]:
            assert type(one) is type(other)
