"""fastsync.threading: every name of threading, as the standard library's own object or as ours."""

import dis
import importlib
import inspect
import pickle
import sys
import threading
import traceback
import types
from unittest import mock

import pytest

import fastsync
import fastsync.threading as ours
from fastsync._run import install as primitives

NATIVE = ["Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier"]
ALIASES = {"_allocate_lock": "Lock", "_CRLock": "RLock", "_LockType": "Lock"}

ITERATORS = ("serialize_iterator", "synchronized_iterator", "concurrent_tee")


def test_all_is_the_same():
    assert ours.__all__ == threading.__all__


@pytest.mark.parametrize("name", sorted(vars(threading)))
def test_name(name):
    value = getattr(ours, name)
    if name in NATIVE or name in ALIASES:
        assert value is getattr(primitives, ALIASES.get(name, name))
    elif name in ITERATORS:  # of our locks: tests/test_versions.py
        assert value is not getattr(threading, name)
    elif name.startswith("__") and name != "__excepthook__":
        assert name in vars(ours) or name in ("__builtins__",)
    else:
        assert value is getattr(threading, name)


def test_names_that_threading_rebinds_have_no_copy():
    def functions(code):
        yield code
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                yield from functions(constant)

    with open(threading.__file__, encoding="utf-8") as file:
        module = compile(file.read(), threading.__file__, "exec")
    rebound = {
        instruction.argval
        for code in functions(module)
        for instruction in dis.get_instructions(code)
        if instruction.opname == "STORE_GLOBAL"
    }
    assert rebound <= ours._LIVE
    assert not ours._LIVE & set(vars(ours))


def test_dir_is_the_same():
    assert dir(ours) == dir(threading)


def test_star_import_gives_all_names():
    namespace = {}
    exec("from fastsync.threading import *", namespace)
    assert set(threading.__all__) <= set(namespace)
    assert namespace["Lock"] is primitives.Lock
    assert namespace["Thread"] is threading.Thread


def test_unknown_name():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = ours.nothing
    assert not hasattr(ours, "nothing")
    with pytest.raises(ImportError):
        exec("from fastsync.threading import nothing")


def test_thread_error_is_runtime_error():
    assert ours.ThreadError is RuntimeError


def test_natives_stay_native_after_install_and_uninstall(swapped):
    import fastsync

    assert ours.Lock is threading.Lock is primitives.Lock
    fastsync.uninstall()
    assert ours.Lock is primitives.Lock is not threading.Lock


@pytest.mark.parametrize("name", NATIVE)
class TestNativeType:
    def test_is_called_as_in_threading(self, name):
        kind = getattr(ours, name)
        assert (kind.__module__, kind.__qualname__) == ("threading", name)
        assert kind.__doc__

    def test_can_be_in_a_union(self, name):
        assert isinstance(getattr(ours, name) | None, types.UnionType)

    def test_has_the_methods_of_the_original(self, name):
        arguments = (2,) if name == "Barrier" else ()
        original = getattr(threading, name)(*arguments)
        native = getattr(ours, name)(*arguments)
        of_python_classes = {
            "__dict__", "__firstlineno__", "__slotnames__", "__static_attributes__", "__weakref__",
        }  # fmt: skip
        internals = {"_break", "_enter", "_exit", "_release", "_state", "_wait"}
        if name == "Barrier":
            internals.add("_cond")
        assert set(dir(original)) - set(dir(native)) <= of_python_classes | internals

    def test_signatures_are_those_of_the_original(self, name):
        make = getattr(threading, name)
        if isinstance(make, types.BuiltinFunctionType):  # Lock before 3.13
            make = type(make())
        elif inspect.isfunction(make):
            make = threading._CRLock
        native = getattr(ours, name)
        for attribute in vars(make):
            original = getattr(make, attribute)
            if attribute.startswith("_") or not callable(original):
                continue
            try:
                expected = inspect.signature(original)
            except ValueError:
                continue
            got = inspect.signature(getattr(native, attribute))
            assert list(got.parameters) == list(expected.parameters), attribute
            for parameter in expected.parameters.values():
                assert got.parameters[parameter.name].default == parameter.default

    def test_can_be_mocked(self, name):
        kind = getattr(ours, name)
        double = mock.create_autospec(kind, instance=True)
        method = "wait" if name in ("Event", "Barrier", "Condition") else "acquire"
        getattr(double, method)()
        with pytest.raises(AttributeError):
            _ = double.nothing

    def test_the_class_is_pickled_by_name(self, name, swapped):
        """multiprocessing's managers send the classes to their server."""
        kind = getattr(threading, name)
        assert pickle.loads(pickle.dumps(kind)) is kind


PATCHED = """
from fastsync import threading
for name in ("RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier"):
    kind = getattr(threading, name)
    for attribute in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(kind, attribute, "Renamed")
        assert getattr(kind, attribute) == "Renamed"
    kind.__bool__ = lambda self: False
    kind.__len__ = lambda self: 7
    kind.__add__ = lambda self, other: other
    things = [kind(2) if name == "Barrier" else kind() for _ in range(100)]
    assert not any(things) and len(things[0]) == 7 and things[0] + 1 == 1
    assert "Renamed" in repr(kind)
    del kind.__bool__, kind.__len__, kind.__add__
    dead = []
    kind.__del__ = lambda self: dead.append(1)
    del things
    assert len(dead) == 100, (name, len(dead))
    del kind.__del__  # a Condition has an RLock
for kind in (threading.Lock, threading.Condition.__mro__[1]):
    for attribute in ("__name__", "anything"):
        try:
            setattr(kind, attribute, "x")
        except TypeError:
            continue
        raise AssertionError(kind)
"""


def test_classes_can_be_renamed_and_given_special_methods(run_python):
    """A static type has no room for a new name: this overwrote what lay behind it."""
    run_python("-c", PATCHED)


@pytest.mark.thread_unsafe(reason="sets what all threads share")
class TestSetting:
    """What is set here reaches the functions of the standard library that read it."""

    def test_excepthook(self):
        before = threading.excepthook
        seen = []
        with mock.patch.object(ours, "excepthook", seen.append):
            assert threading.excepthook is ours.excepthook is not before
            thread = ours.Thread(target=divmod, args=(1, 0))
            thread.start()
            thread.join()
        assert seen[0].exc_type is ZeroDivisionError
        assert threading.excepthook is ours.excepthook is before

    def test_setprofile_and_settrace_are_seen(self):
        hook = lambda *args: None  # noqa: E731
        ours.settrace(hook)
        try:
            assert ours.gettrace() is ours._trace_hook is threading._trace_hook is hook
        finally:
            ours.settrace(None)

    def test_a_patched_private_name(self):
        name = "_start_joinable_thread" if sys.version_info >= (3, 13) else "_start_new_thread"
        original = getattr(threading, name)

        def refuse(*args, **kwargs):
            raise ours.ThreadError

        with mock.patch.object(ours, name, refuse):
            with pytest.raises(RuntimeError):
                ours.Thread(target=print).start()
            assert not ours._limbo
        assert getattr(threading, name) is original

    def test_nested_patches_come_off_one_by_one(self, monkeypatch):
        before = threading.excepthook
        ours.excepthook = "program"
        with mock.patch.object(ours, "excepthook", "outer"):
            with monkeypatch.context() as patch:
                patch.setattr(ours, "excepthook", "inner")
                assert threading.excepthook == "inner"
            assert threading.excepthook == "outer"
        assert threading.excepthook == "program"
        ours.excepthook = before
        assert ours._displaced["excepthook"] == []

    def test_what_others_set_in_threading_is_seen(self, monkeypatch):
        monkeypatch.setattr(threading, "excepthook", "theirs")
        assert ours.excepthook == "theirs"

    def test_deleting(self):
        monkeypatch = pytest.MonkeyPatch()
        monkeypatch.setattr(threading, "something", 1, raising=False)
        del ours.something
        assert not hasattr(threading, "something")
        with pytest.raises(AttributeError):
            del ours.something

    def test_a_native_name_is_ours_alone(self):
        original = threading.Lock
        with mock.patch.object(ours, "Lock", "mine"):
            assert ours.Lock == "mine"
            assert threading.Lock is original
        assert ours.Lock is primitives.Lock

    def test_a_new_name(self):
        ours.something_new = 1
        try:
            assert threading.something_new == 1
        finally:
            del ours.something_new
        assert not hasattr(threading, "something_new") and not hasattr(ours, "something_new")


def test_reload_keeps_everything():
    assert importlib.reload(ours) is ours
    assert ours.Lock is primitives.Lock
    assert ours.Thread is threading.Thread


REPLACED = """
import sys
import fastsync.threading
sys.modules["threading"] = fastsync.threading
import threading
assert threading is fastsync.threading
from fastsync._run import install as primitives
"""


class TestReplacing:
    """sys.modules["threading"] = fastsync.threading"""

    def test_standard_library_works_on_it(self, run_python):
        code = """
import logging, queue, threading
from concurrent.futures import ThreadPoolExecutor
assert type(queue.Queue().mutex) is primitives.Lock
assert type(logging._lock) is primitives.RLock
with ThreadPoolExecutor(4) as pool:
    assert sum(pool.map(abs, range(100))) == 4950
import asyncio
assert asyncio.run(asyncio.to_thread(lambda: 42)) == 42
print("ok")
"""
        assert run_python("-c", REPLACED + code).stdout == "ok\n"

    def test_the_end_of_the_interpreter_waits_for_threads(self, run_python):
        code = """
import time
def work():
    time.sleep(0.05)
    print("done")
threading.Thread(target=work).start()
threading._register_atexit(print, "threading at exit")
"""
        done = run_python("-c", REPLACED + code)
        assert sorted(done.stdout.splitlines()) == ["done", "threading at exit"]
        assert done.stderr == ""

    def test_fork(self, run_python):
        code = """
import os
stop = threading.Event()
other = threading.Thread(target=stop.wait)
other.start()
pid = os.fork()
if not pid:
    ok = threading.enumerate() == [threading.main_thread()] and not other.is_alive()
    thread = threading.Thread(target=print, args=("child",), kwargs={"flush": True})
    thread.start()
    thread.join()
    os._exit(not ok)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
stop.set()
other.join()
"""
        if not hasattr(__import__("os"), "fork"):
            pytest.skip("no fork here")
        done = run_python("-W", "ignore::DeprecationWarning", "-c", REPLACED + code)
        assert done.stdout == "child\n0\n"

    def test_fork_warning_counts_the_threads(self, run_python):
        """os.fork() looks into `_active` and `_limbo` of sys.modules["threading"]."""
        if sys.version_info < (3, 12) or not hasattr(__import__("os"), "fork"):
            pytest.skip("no such warning")
        code = """
import os, warnings
stop = threading.Event()
other = threading.Thread(target=stop.wait)
other.start()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    if not (pid := os.fork()):
        os._exit(0)
    os.waitpid(pid, 0)
stop.set()
print(len(caught), caught[0].category.__name__)
"""
        assert run_python("-c", REPLACED + code).stdout == "1 DeprecationWarning\n"

    def test_foreign_thread(self, run_python):
        code = """
import _thread
seen = []
done = threading.Event()
def foreign():
    seen.append(type(threading.current_thread()) is threading._DummyThread)
    done.set()
_thread.start_new_thread(foreign, ())
assert done.wait(30)
print(seen)
"""
        assert run_python("-c", REPLACED + code).stdout == "[True]\n"


def refuse():
    raise ZeroDivisionError


def test_exceptions_without_a_traceback_are_handled():
    """Cython's `except` blocks expect the frame that is missing."""
    mutex = fastsync.Mutex(1)
    assert mutex.try_lock_for(10**400) is not None
    assert mutex.try_lock_for(-(10**400)) is not None


@pytest.mark.parametrize(
    "call",
    [
        lambda: ours.Lock().release(),
        lambda: ours.RLock().acquire(timeout=-2),
        lambda: ours.Condition().wait(),
        lambda: ours.Semaphore(-1),
        lambda: ours.BoundedSemaphore().release(),
        lambda: ours.Event().wait(float("nan")),
        lambda: ours.Barrier(1, refuse).wait(),
        lambda: fastsync.Mutex(1).force_unlock(),
        lambda: fastsync.RwLock(1).force_unlock_write(),
        lambda: fastsync.Condvar().wait(None),
        lambda: fastsync.LazyLock(refuse).force(),
        lambda: fastsync.once(refuse)(),
        lambda: fastsync.AtomicI8(300),
        lambda: fastsync.AtomicArray("int8", -1),
        lambda: fastsync.AtomicRef(1).update(lambda value: refuse()),
        lambda: fastsync.Arc(1, 2, 3, 4),
        lambda: fastsync.Parker(1, 2, 3),
        lambda: fastsync.pin(object()),
    ],
)
def test_no_frame_of_ours_is_in_a_traceback(call):
    with pytest.raises(Exception) as caught:
        call()
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert {frame.filename for frame in frames} == {__file__}
