"""install(), uninstall(), installed(): what they change, and that they change it back."""

import importlib
import queue
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata

import pytest

import fastsync
from fastsync._run import children, imports
from fastsync._run import install as _install
from fastsync._run import install as primitives

NATIVE = ["Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier"]


@pytest.fixture(autouse=True)
def uninstalled():
    yield
    fastsync.uninstall()


def test_importing_changes_nothing(run_python):
    code = """
import sys, threading
before = dict(vars(threading)), list(sys.meta_path), list(sys.path_hooks)
import fastsync, fastsync.threading, fastsync._run.install, fastsync.objects.lock
assert before == (dict(vars(threading)), list(sys.meta_path), list(sys.path_hooks))
assert not fastsync.installed()
"""
    run_python("-W", "error", "-c", code)


def test_importing_leaves_the_gil_off(run_python):
    code = "import sys, fastsync, fastsync.threading; print(sys._is_gil_enabled())"
    if not hasattr(sys, "_is_gil_enabled"):
        pytest.skip("no such function before 3.13")
    done = run_python("-W", "error", "-c", code)
    assert done.stdout == f"{'free-threading' not in sys.version}\n"
    assert done.stderr == ""


def test_importing_the_package_alone_imports_nothing_else(run_python):
    code = """
import sys
before = set(sys.modules) | {"_xxsubinterpreters"}  # says on 3.11 whether this is the main one
import fastsync
print(sorted(set(sys.modules) - before))
"""
    assert run_python("-S", "-c", f"import sys; sys.path[:] = {sys.path}; {code}").stdout == (
        "['fastsync']\n"
    )


@pytest.mark.parametrize("name", NATIVE)
def test_install_rebinds(name):
    original = getattr(threading, name)
    fastsync.install()
    assert getattr(threading, name) is getattr(primitives, name) is not original
    fastsync.uninstall()
    assert getattr(threading, name) is original


def test_private_names_follow():
    fastsync.install()
    assert threading._allocate_lock is primitives.Lock
    assert threading._CRLock is primitives.RLock
    if sys.version_info >= (3, 13):
        assert threading._LockType is primitives.Lock


def test_uninstall_restores_every_attribute_by_identity():
    before = dict(vars(threading))
    meta_path = list(sys.meta_path)
    fastsync.install()
    fastsync.install()
    assert fastsync.installed()
    fastsync.uninstall()
    assert not fastsync.installed()
    after = dict(vars(threading))
    assert before.keys() == after.keys()
    assert [name for name in before if before[name] is not after[name]] == []
    assert sys.meta_path == meta_path


def test_uninstall_alone_does_nothing():
    before = dict(vars(threading))
    fastsync.uninstall()
    assert before == dict(vars(threading))


def test_restores_what_it_found(monkeypatch):
    """Another library's replacement survives a swap of ours."""
    theirs = lambda: None  # noqa: E731
    monkeypatch.setattr(threading, "Event", theirs)
    fastsync.install()
    assert threading.Event is primitives.Event
    fastsync.uninstall()
    assert threading.Event is theirs


def test_install_from_many_threads_keeps_the_originals(run_threads):
    before = dict(vars(threading))
    run_threads(lambda _: fastsync.install(), count=8)
    fastsync.uninstall()
    assert before == dict(vars(threading))


def test_install_again_after_another_library_replaced_a_lock():
    original = threading.Lock
    fastsync.install()
    threading.Lock = object
    assert not fastsync.installed()
    fastsync.install()
    assert fastsync.installed() and threading.Lock is primitives.Lock
    fastsync.uninstall()
    assert threading.Lock is original


def test_a_running_import_skips_no_finder(run_python):
    """It goes through a list that install() and uninstall() must leave as it is."""
    code = """
import sys, fastsync
assert "multiprocessing.util" not in sys.modules
fastsync.install()
seen, before = sys.meta_path, list(sys.meta_path)
fastsync.uninstall()
assert seen == before != sys.meta_path
fastsync.install()
seen, before = sys.meta_path, list(sys.meta_path)
import multiprocessing.util
fastsync.uninstall()
assert seen == before != sys.meta_path
"""
    run_python("-c", code)


def test_a_threading_that_is_imported_anew(run_python):
    code = """
import sys, threading, fastsync
first, event = threading, threading.Event
fastsync.install()
del sys.modules["threading"]
import threading
assert not fastsync.installed()
fastsync.install()
assert fastsync.installed() and threading.Lock is first.Lock
import fastsync.threading
assert type(threading.Lock()) is fastsync.threading.Lock
fastsync.uninstall()
assert first.Event is event and threading.Event is not event
assert not fastsync.installed() and threading.Event.__init__
"""
    run_python("-c", code)


PATCHERS = {
    "gevent": """
import sys, types
package, events, monkey = map(types.ModuleType, ("gevent", "gevent.events", "gevent.monkey"))
events.subscribers = []
monkey.patched = False
monkey.is_module_patched = lambda name: monkey.patched
def patch():
    for name in ("os", "thread", "threading"):
        for subscriber in events.subscribers:
            subscriber(types.SimpleNamespace(module_name=name))
    monkey.patched = True
modules = {"gevent": package, "gevent.events": events, "gevent.monkey": monkey}
""",
    "eventlet": """
import sys, types
package, patcher = map(types.ModuleType, ("eventlet", "eventlet.patcher"))
patched = []
def monkey_patch(**on):
    patched.append(on)
patcher.monkey_patch = package.monkey_patch = monkey_patch
patcher.is_monkey_patched = lambda name: bool(patched)
def patch():
    sys.modules["eventlet"].monkey_patch()
modules = {"eventlet": package, "eventlet.patcher": patcher}
""",
}


@pytest.mark.parametrize("name", PATCHERS)
def test_steps_aside_for_what_patches_threads(name, run_python):
    """A stand-in with the same doors; the real ones are in `make test-programs`."""
    code = (
        PATCHERS[name]
        + """
for module in modules.values():
    module.__spec__ = types.SimpleNamespace(_initializing=False)
sys.modules.update(modules)
import threading, warnings, fastsync
original = threading.Lock
fastsync.install()
fastsync.uninstall()
fastsync.install()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    patch()
(warning,) = caught
assert warning.category is RuntimeWarning and "has been uninstalled" in str(warning.message)
assert threading.Lock is original and not fastsync.installed()
try:
    fastsync.install()
except RuntimeError as error:
    assert "has replaced threads" in str(error)
else:
    raise AssertionError("installed")
"""
    )
    run_python("-c", code)


def test_refuses_a_thread_module_that_was_replaced(monkeypatch):
    import _thread

    monkeypatch.setattr(_thread, "allocate_lock", lambda: None)
    with pytest.raises(RuntimeError, match="test_install has replaced threads"):
        fastsync.install()
    assert not fastsync.installed()


def test_dill_is_told_of_the_types(run_python):
    code = """
import _thread, sys, types
dill = types.ModuleType("dill._dill")
class Pickler: dispatch = {_thread.LockType: 1, _thread.RLock: 2}
dill.Pickler = Pickler
dill.__spec__ = types.SimpleNamespace(_initializing=False)
sys.modules["dill._dill"] = dill
import threading, fastsync
fastsync.install()
assert Pickler.dispatch[type(threading.Lock())] == 1
assert Pickler.dispatch[type(threading.RLock())] == 2
"""
    run_python("-c", code)


def test_the_module_itself_is_pickled_by_name():
    import pickle

    assert pickle.loads(pickle.dumps(fastsync.threading)) is fastsync.threading


def test_locks_live_on_after_uninstall():
    fastsync.install()
    lock = threading.Lock()
    fastsync.uninstall()
    with lock:
        assert lock.locked()


def test_the_standard_library_uses_them():
    fastsync.install()
    work = queue.Queue()
    assert type(work.mutex) is primitives.Lock
    assert type(work.not_empty) is primitives.Condition
    assert type(threading.Timer(0, print).finished) is primitives.Event
    thread = threading.Thread(target=work.get)
    assert type(thread._started) is primitives.Event
    thread.start()
    work.put(1)
    thread.join()
    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(abs, range(-50, 0))) == list(range(1, 51))


def test_threads_started_before_and_after_share_one_registry():
    stop = threading.Event()
    early = threading.Thread(target=stop.wait)
    early.start()
    fastsync.install()
    late = threading.Thread(target=stop.wait)
    late.start()
    assert {early, late} <= set(threading.enumerate())
    stop.set()
    early.join()
    late.join()
    assert not {early, late} & set(threading.enumerate())


def test_mixed_kinds_work_together():
    """The standard library's Condition on our lock, and ours on its lock."""
    fastsync.uninstall()
    for make_condition, lock in [
        (threading.Condition, primitives.Lock()),
        (threading.Condition, primitives.RLock()),
        (primitives.Condition, threading.Lock()),
        (primitives.Condition, threading.RLock()),
    ]:
        condition = make_condition(lock)
        ready = []

        def consume(condition=condition, ready=ready):
            with condition:
                assert condition.wait_for(lambda: ready, timeout=30)

        thread = threading.Thread(target=consume)
        thread.start()
        with condition:
            ready.append(True)
            condition.notify_all()
        thread.join(30)
        assert not thread.is_alive()


def test_a_busy_program_survives_install_and_uninstall():
    """Threads that make and use locks all the time, while the attributes change under them."""
    stop = time.monotonic() + 0.3
    errors = []

    def work():
        try:
            while time.monotonic() < stop:
                with threading.Lock(), threading.RLock(), threading.Condition():
                    threading.Event().set()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while time.monotonic() < stop:
        fastsync.install()
        fastsync.uninstall()
    for thread in threads:
        thread.join()
    assert errors == []


class TestChildren:
    """The hook into multiprocessing, without starting any child: test_runner.py does that."""

    def test_only_children_get_the_install(self):
        spawn = ["python", "-c", "from multiprocessing.spawn import spawn_main; spawn_main()"]
        assert "fastsync.install()" in children._with_install(spawn)[2]
        assert children._with_install(spawn)[2].endswith(spawn[2])
        tracker = ["python", "-c", "from multiprocessing.resource_tracker import main;main(3)"]
        assert children._with_install(tracker) == tracker
        assert children._with_install(["app", "--multiprocessing-fork"]) == [
            "app",
            "--multiprocessing-fork",
        ]

    def test_a_child_without_fastsync_runs_all_the_same(self, run_python):
        code = """
import sys
sys.modules["fastsync.objects.lock"] = None
before = list(sys.path)
from fastsync._run.children import _PRELUDE
exec(_PRELUDE + "print(sys.path == before)")
"""
        assert run_python("-c", code).stdout == "True\n"

    def test_follow_patches_what_is_imported_and_unfollow_restores_it(self):
        importlib.import_module(children._MODULE)
        module = sys.modules[children._MODULE]
        original = getattr(module, children._FUNCTION)
        fastsync.install()
        assert getattr(module, children._FUNCTION) is not original
        fastsync.uninstall()
        assert imports._finder not in sys.meta_path
        assert getattr(module, children._FUNCTION) is original

    def test_follow_before_the_import(self, run_python):
        code = """
import sys, fastsync
meta_path = list(sys.meta_path)
fastsync.install()
assert "multiprocessing" not in sys.modules
import multiprocessing.util as util, multiprocessing.spawn as spawn
patched = spawn.get_command_line if sys.platform == "win32" else util.spawnv_passfds
assert patched.fastsync_original.__module__.startswith("multiprocessing.")
assert "exec_module" not in vars(util.__spec__.loader)
fastsync.uninstall()
assert sys.meta_path == meta_path
assert not hasattr(util.spawnv_passfds, "fastsync_original")
"""
        run_python("-W", "error", "-c", code)

    def test_a_loader_that_is_a_class_loads_other_modules_too(self, run_python, tmp_path):
        """As importlib's for frozen modules, and Nuitka's, whose methods cannot be replaced."""
        for name in ("waited_for", "other"):
            (tmp_path / f"{name}.py").write_text(f"import sys\ncontents = {name!r}\n")
        code = f"""
import sys, importlib.util
class Slots(type):
    def __setattr__(cls, name, value):
        raise TypeError(f"cannot set {{name!r}} of an immutable type")
class Loader(metaclass=Slots):
    @staticmethod
    def create_module(spec): return None
    @staticmethod
    def exec_module(module):
        assert module.__loader__ is module.__spec__.loader is Loader
        exec(open({str(tmp_path)!r} + f"/{{module.__name__}}.py").read(), vars(module))
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in ("waited_for", "other"):
            return importlib.util.spec_from_loader(name, Loader)
sys.meta_path.insert(0, Loader)
from fastsync._run import imports
got = []
imports.after_import("waited_for", got.append)
assert importlib.util.find_spec("waited_for").loader.find_spec is Loader.find_spec
import other
assert got == []
import waited_for
assert got == [waited_for] and waited_for.contents == "waited_for"
assert imports._finder not in sys.meta_path
"""
        run_python("-c", code)

    def test_uninstall_before_the_import(self, run_python):
        code = """
import sys, fastsync
fastsync.install()
fastsync.uninstall()
import multiprocessing.util
assert not hasattr(multiprocessing.util.spawnv_passfds, "fastsync_original")
"""
        run_python("-c", code)


def test_the_package_has_what_it_says():
    assert all(hasattr(fastsync, name) for name in fastsync.__all__)
    assert set(fastsync.__all__) <= set(dir(fastsync))
    assert fastsync.install is _install.install
    assert fastsync.threading.Lock is primitives.Lock
    with pytest.raises(AttributeError, match="'fastsync' has no attribute 'nothing'"):
        _ = fastsync.nothing


def test_get_include_holds_the_headers():
    import os

    assert os.path.isfile(os.path.join(fastsync.get_include(), "fastsync", "atomic.h"))


def test_the_version_is_the_one_installed():
    try:
        installed = metadata.version("fastsync-threading")
    except metadata.PackageNotFoundError:
        pytest.skip("run from a checkout")
    assert fastsync.__version__ == installed


def test_mock_checks_the_calls_of_an_autospec(run_python):
    code = """
        from unittest import mock
        import queue, threading

        assert threading.Event.__module__ == "threading"
        calls = [
            ("Event", "wait", (1, 2)),
            ("Event", "set", (1,)),
            ("Condition", "wait", (1, 2)),
            ("Condition", "notify", (1, 2)),
            ("Semaphore", "release", (1, 2)),
            ("BoundedSemaphore", "acquire", (1, 2, 3)),
            ("Barrier", "wait", (1, 2)),
        ]
        def refused(function, *arguments):
            try:
                function(*arguments)
            except TypeError:
                return
            raise AssertionError((function, arguments))

        for name, method, arguments in calls:
            kind = getattr(threading, name)
            thing = mock.create_autospec(kind(1) if name == "Barrier" else kind())
            refused(getattr(thing, method), *arguments)
            getattr(thing, method)(*arguments[1:])
            with mock.patch("threading." + name, autospec=True):
                made = getattr(threading, name)
                refused(made, 1, 2, 3, 4)
                thing = made(1) if name == "Barrier" else made()
                refused(getattr(thing, method), *arguments)
                getattr(thing, method)(*arguments[1:])
            with mock.patch.object(kind, method, autospec=True) as replaced:
                thing = kind(1) if name == "Barrier" else kind()
                refused(getattr(thing, method), *arguments)
                getattr(thing, method)(*arguments[1:])
                assert replaced.called
        with mock.patch("queue.Queue", autospec=True):
            refused(queue.Queue, 1, 2)
            refused(queue.Queue(1).put)
            queue.Queue(1).put(1)
        kinds = mock.FunctionTypes
        import fastsync
        if fastsync.installed():
            fastsync.uninstall()
            assert len(mock.FunctionTypes) == len(kinds) - 1
    """
    code = textwrap.dedent(code)
    for before in ("", "import fastsync", "import fastsync, unittest.mock"):
        run_python("-c", f"{before}\n{'fastsync.install()' if before else ''}\n{code}")


def test_cloudpickle_sends_a_once_of_main_with_its_body(run_python, tmp_path):
    """With a stand-in for cloudpickle: what it looks into is its table by type."""
    folder = tmp_path / "cloudpickle"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "cloudpickle.py").write_text("class CloudPickler:\n    dispatch_table = {}\n")
    code = """
        import sys
        sys.path.insert(0, sys.argv[1])
        import fastsync
        from fastsync import once
        fastsync.install()
        from cloudpickle.cloudpickle import CloudPickler

        @once
        def main(): return 3

        make, arguments = CloudPickler.dispatch_table[once](main)
        assert make(*arguments)() == 3
        main.__module__ = "elsewhere"
        assert CloudPickler.dispatch_table[once](main) == "main"
    """
    run_python("-c", textwrap.dedent(code), tmp_path)
