"""The storms of storms/ in short form, and faults injected from outside."""

import contextlib
import importlib
import pkgutil
import random
import sys
import textwrap
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import natives
import pytest
import storms
from conftest import DEADLINE, run_python, run_threads, wait_until
from storms.crowd import Alarm

import fastsync as f
import fastsync.threading as fs

TOOLS = Path(__file__).resolve().parent.parent / "tools"

FREE_THREADED = "free-threading" in sys.version
NOT_CALLED = {"__class__", "__init_subclass__", "__subclasshook__", "__new__", "__dict__"}


@pytest.mark.stress
@pytest.mark.parametrize("name", storms.STORMS)
def test_storm(name):
    storms.run(name, 0.8, random.randrange(2**32))


@pytest.mark.skipif(sys.platform == "win32", reason="needs a timer signal")
def test_a_storm_is_interrupted_only_in_the_call_that_allows_it():
    """Whatever that call does: what follows it is the storm's own bookkeeping."""

    def fail():
        raise RuntimeError

    def next_ticks(alarm):
        end = alarm.handled + 10
        wait_until(lambda: alarm.handled >= end)

    always = SimpleNamespace(random=lambda: 0.0)
    with Alarm(int, always, time.monotonic() + DEADLINE) as alarm:
        for call in (fail, int, partial(next_ticks, alarm)):
            with contextlib.suppress(RuntimeError):
                alarm.call(call)
            next_ticks(alarm)
    assert alarm.interrupted


@pytest.mark.stress
@pytest.mark.skipif(not FREE_THREADED, reason="has the GIL anyway")
def test_storms_with_the_gil_on_in_a_free_threaded_build():
    # Not as a script: its folder would stand in sys.path for the one that fastsync is in.
    source = (
        "import runpy, sys; sys.argv = ['stress', '--seconds', '0.4', 'lock', 'condition', 'event',"
        " 'barrier', 'permits', 'signals', 'guards', 'turns', 'native_signals']; runpy.run_path("
        f"{str(TOOLS / 'stress.py')!r}, run_name='__main__')"
    )
    done = run_python("-X", "gil=1", "-c", source)
    assert "barrier" in done.stdout


def test_gil_stays_off():
    if FREE_THREADED:
        run_python("-W", "error", "-c", "import sys, fastsync.threading as t; t.Condition(); "
                   "assert not sys._is_gil_enabled()")  # fmt: skip


def test_memory_errors_at_every_allocation_leave_everything_usable():
    pytest.importorskip("_testcapi")
    done = run_python(
        "-c",
        textwrap.dedent("""
        import _testcapi, threading as stock
        import fastsync.threading as t

        def once():
            # No list: see NOMEMORY.
            things = (t.Lock(), t.RLock(), t.Semaphore(), t.BoundedSemaphore(), t.Condition(),
                      t.Condition(t.Lock()), t.Condition(foreign))
            for thing in things:
                with thing: pass
                thing.acquire(timeout=0.001); thing.release()
                repr(thing)
                thing.acquire(False); thing.release()
            for condition in things[4:]:
                condition._lock
                condition.attribute = 1
                with condition:
                    condition.wait(0.00001)
                    condition.wait_for(int, 0.00001)
                    condition.notify_all()
                condition._waiters
            event, barrier = t.Event(), t.Barrier(1, int, 1)
            event.wait(0.00001); event._cond; event.set(); event.wait(); repr(event)
            barrier.wait(); barrier.abort(); repr(barrier); barrier.reset()
            for thing in (shared, shared_r):
                with thing: pass
            with shared_c:
                shared_c.wait(0.00001)
                shared_c.other = 1

        shared, shared_r, shared_c, foreign = t.Lock(), t.RLock(), t.Condition(), stock.Lock()
        once()
        failures = 0
        for start in range(1, 400):
            error = None
            _testcapi.set_nomemory(start, start + 1)
            try:
                once()
            except MemoryError:
                failures += 1
            except RuntimeError as error:  # what stock's condition over a foreign lock raises
                if str(error) != "can't allocate lock": raise
                failures += 1
            finally:
                _testcapi.remove_mem_hooks()
            if foreign.locked(): foreign.release()  # the original may be left so
            assert not shared.locked() and not shared_r.locked() and not shared_c.locked(), start
            assert not shared_c._waiters
        once()
        print(failures)
        """),
    )
    assert int(done.stdout) > 10


NOMEMORY = """
import _testcapi, sys
import fastsync as f

# A list whose items find no memory is freed with a stale pointer on 3.13t: stock [1] crashes, too.
LISTS = "free-threading" not in sys.version
OLD, NEW, WRAPPED = ("old",), ("new",), {"a": 1}
def same(value): return value
def old(*_): return OLD
def part(v): return v["a"]
def no(*_): return None
mutexes = f.Mutex(WRAPPED), f.FairMutex(WRAPPED), f.ReentrantMutex(WRAPPED)
rw, sharded, condvar, parker = f.RwLock(WRAPPED), f.ShardedLock(WRAPPED), f.Condvar(), f.Parker()
numbers = f.AtomicI64(1), f.AtomicU8(1), f.AtomicF64(1), f.AtomicBool(True)
array, ref, cell = f.AtomicArray("int64", 2), f.AtomicRef(OLD), f.AtomicCell(OLD)
counter, arc, group, lock = f.Counter(), f.Arc(OLD), f.WaitGroup(), f.OnceLock()
rw.reader, rw.writer, sharded.reader, sharded.writer

# Without closures: stock Python does not survive an allocation that fails in making one.
def fails(call, *arguments):
    try: call(*arguments)
    except (RuntimeError, TypeError, ValueError, KeyError): return
    raise AssertionError(call)

def use_mutexes():
    for mutex in mutexes:
        fails(mutex.__exit__, None, None, None)
        fails(mutex.force_unlock)
        fails(mutex.force_unlock_fair)
        fails(mutex.try_lock_for, "x")
        fails(mutex.try_lock_until, None)
        with mutex as guard:
            guard.value = WRAPPED
            guard.bump()
            with guard.unlocked(): pass
            for call in (guard.unlock, guard.leak, guard.__enter__, guard.__exit__,
                         mutex.force_unlock, guard.unlocked().__exit__): fails(call)
            fails(guard.map, part)
        for call in (guard.unlock, guard.bump, guard.unlocked, guard.leak): fails(call)
        fails(guard.map, part)
        fails(getattr, guard, "value")
        fails(setattr, guard, "value", 1)
        with mutex.lock().map(part) as mapped:
            mapped.value = 1
            for wrong in (no, part): fails(mapped.map, wrong)
            repr(mapped), mapped.try_map(no)
        fails(mapped.unlock)
        fails(mapped.map, part)
        fails(getattr, mapped, "value")
        leaked = mutex.lock()
        leaked.leak()
        while mutex.is_locked():
            try: mutex.force_unlock()
            except MemoryError: pass
        repr(mutex), repr(leaked), mutex.into_inner(), mutex.lock().unlock_fair()
        with mutex.lock() as guard, guard.unlocked_fair(): pass
        mutex.try_lock_for(0).unlock_fair()
    with mutexes[0] as guard:
        condvar.wait_for(guard, 0)
        condvar.wait_while_for(guard, same, 0)
        condvar.notify_all()

def use_rwlocks():
    for each in (rw, sharded):
        with each.read(), each.read_recursive(): pass
        with each.write() as guard:
            guard.value = WRAPPED
            with guard.unlocked(): pass
            with guard.map(part) as mapped: mapped.value = 1
        with each.reader: pass
        with each.writer: pass
    with rw.upgradable_read() as guard:
        guard.with_upgraded(no)
        with guard.upgrade() as writing: writing.downgrade().unlock()

def use_atomics():
    for number in numbers:
        number.load(), number.store(1), number.swap(1), number.fetch_update(same)
        number.compare_exchange(1, 1), number.wait(1, 0), number.notify_all()
    for each in (ref, cell):
        each.store(NEW), each.load(), each.swap(OLD), each.fetch_update(old)
        each.compare_exchange(OLD, NEW), each.wait(NEW, 0), each.notify_all()
    array.fetch_add(0, 1), array.store(0, 0), array.wait(1, 0, 0)
    if LISTS: array.add_at((0, 1), 0)
    array.fetch_update(0, same), array.fill(0)
    counter.add(1), counter.value()

def use_others():
    once = f.Once()
    once.call_once(no), once.wait(), once.state()
    lock.take(), lock.get_or_init(old), lock.get(), lock.wait()
    if LISTS: f.LazyLock(old).value
    parker.unparker().unpark(), parker.park(), parker.park_timeout(0)
    with group.clone(): pass
    with arc.clone() as other, arc.downgrade() as weak, weak.upgrade(), weak.clone(): other.value
    f.Arc(OLD, no).drop()
    for make in (f.Mutex, f.AtomicI64, f.AtomicRef, f.AtomicCell, f.Counter): make()
    if LISTS: f.RwLock(), f.ShardedLock(), f.OnceLock()

def in_order():
    for mutex in mutexes: assert not mutex.is_locked() and mutex.into_inner() is WRAPPED
    for each in (rw, sharded): assert not each.is_locked() and each.into_inner() is WRAPPED
    assert WRAPPED == {"a": 1} and condvar.notify_all() == 0
    for number in numbers: assert number.load() == 1
    assert ref.load() in (OLD, NEW) and cell.load() in (OLD, NEW) and lock.get() in (OLD, None)
    assert array.load(0) in (0, 1) and array.load(1) == 0
    assert arc.strong_count() == 1 and arc.weak_count() == 0 and "1 handles" in repr(group)

failures = 0
for use in (use_mutexes, use_rwlocks, use_atomics, use_others):
    use()
    whole = 0
    for start in range(1, 300):
        _testcapi.set_nomemory(start, start + 1)
        try:
            use()
            whole += 1
        except MemoryError:
            failures += 1
        except SystemError as error:
            # Stock Python's, when there is no memory for the frame of a function in Python.
            end = error.__traceback__
            while end.tb_next: end = end.tb_next
            if end.tb_frame.f_code is fails.__code__ and "<function " not in str(error): raise
            failures += 1
        finally:
            _testcapi.remove_mem_hooks()
        in_order()
        parker.park_timeout(0)
        if whole == 3: break  # fewer allocations than that
    use()
print(failures)
"""


def test_memory_errors_at_every_allocation_leave_every_native_type_usable():
    pytest.importorskip("_testcapi")
    done = run_python("-c", NOMEMORY)
    assert int(done.stdout) > 50 and done.stderr == ""


def test_recursion_limit_leaves_the_locks_usable(impl):
    locks = impl.Lock(), impl.RLock(), impl.Condition(), impl.Semaphore()

    def deep():
        with locks[1], locks[2]:
            deep()

    with pytest.raises(RecursionError):
        deep()
    for lock in locks:
        assert run_threads([lambda lock=lock: lock.acquire(False) and not lock.release()]) == [True]


def test_subinterpreter_imports_us_or_says_clearly_why_not():
    done = run_python(
        "-c",
        textwrap.dedent("""
        try:
            import _interpreters as sub
            ident = sub.create()
            run = lambda code: sub.run_string(ident, code)
        except ImportError:
            import _xxsubinterpreters as sub
            ident = sub.create()
            run = lambda code: sub.run_string(ident, code)
        import fastsync.threading
        code = '''
        try:
            import fastsync.threading as t
            lock = t.Lock()
            with lock: pass
            result = "works"
        except ImportError as error:
            result = f"ImportError: {error}"
        print(result)
        '''
        import textwrap
        outcome = run(textwrap.dedent(code))
        assert not outcome, outcome
        with fastsync.threading.Lock():
            pass
        """),
    )
    assert "works" in done.stdout or "ImportError: " in done.stdout
    assert len(done.stdout.strip()) > 5


def test_timeouts_of_all_sizes_at_once_on_one_word():
    lock = fs.Lock()
    lock.acquire()
    timeouts = [0, 1e-9, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 20]

    def wait(i):
        return lock.acquire(timeout=timeouts[i % len(timeouts)]) and (lock.release() or True)

    def release():
        while not released.is_set():
            pass
        lock.release()

    released = threading.Event()
    timer = threading.Timer(0.05, released.set)
    timer.start()
    results = run_threads([release, *[lambda i=i: wait(i) for i in range(27)]])
    timer.join()
    assert results.count(True) >= 3 and not lock.locked()


def test_recursion_limit_leaves_the_native_locks_usable():
    mutex, rwlock, sharded = f.ReentrantMutex(), f.RwLock(), f.ShardedLock()

    def deep():
        with mutex, rwlock.read_recursive(), sharded.read_recursive():
            deep()

    def take_all():
        with mutex.try_lock(), rwlock.try_write(), sharded.try_write():
            return True

    with pytest.raises(RecursionError):
        deep()
    assert run_threads([take_all]) == [True]


def test_recursion_limit_within_what_runs_once():
    lock, cell, number = f.OnceLock(), f.AtomicCell(0), f.AtomicI64(5)

    def deep(_=None):
        return number.fetch_update(lambda _: cell.fetch_update(deep))

    with pytest.raises(RecursionError):
        lock.get_or_init(deep)
    assert lock.get() is None and cell.load() == 0 and number.load() == 5
    assert run_threads([lambda: lock.get_or_init(lambda: 1)]) == [1]


def dead_guard():
    guard = f.Mutex().lock()
    guard.unlock()
    return guard


ODD = [None, 0, -1, 1.5, "x", b"x", [], {}, object(), float("nan"), float("inf"), 2**70, fs.Lock,
       f.AtomicI64, f.Mutex(), dead_guard()]  # fmt: skip


def finished(once):
    """One that nobody has to wait for."""
    once.call_once(int) if isinstance(once, f.Once) else once.set(1)
    return once


def ready(parker):
    parker.unparker().unpark()
    return parker


def full_array():
    array = f.AtomicArray("int64", 4)
    array.fill(7)
    return array


# In a state in which no call has to wait, whatever it is given.
NATIVE = {
    **{k: lambda k=k: getattr(f, k)(7) for k in natives.NUMBERS},
    **{k: lambda k=k: getattr(f, k)([1]) for k in ("AtomicRef", "AtomicCell", "Arc")},
    **{k: getattr(f, k) for k in ("Condvar", "WaitGroup", "Counter", "Weak")},
    **{
        k: lambda k=k: getattr(f, k)({"a": 1})
        for k in ("Mutex", "FairMutex", "ReentrantMutex", "RwLock", "ShardedLock")
    },
    "AtomicBool": lambda: f.AtomicBool(True),
    "AtomicArray": full_array,
    "Once": lambda: finished(f.Once()),
    "OnceLock": lambda: finished(f.OnceLock()),
    "LazyLock": lambda: f.LazyLock(int),
    "once": lambda: f.once(int),
    "lazy_property": lambda: f.lazy_property(int),
    "Parker": lambda: ready(f.Parker()),
    "Unparker": lambda: f.Parker().unparker(),
    "Ordering": lambda: f.Ordering.SeqCst,
    "OnceState": lambda: f.OnceState.Done,
    "MutexGuard": lambda: f.Mutex({"a": 1}).lock(),
    "ReentrantMutexGuard": lambda: f.ReentrantMutex({"a": 1}).lock(),
    "MappedMutexGuard": lambda: f.Mutex({"a": 1}).lock().map(lambda v: v["a"]),
    "dead guard": dead_guard,
    "unlocked": lambda: f.Mutex().lock().unlocked(),
    "ReadGuard": lambda: f.RwLock({"a": 1}).read(),
    "WriteGuard": lambda: f.RwLock({"a": 1}).write(),
    "UpgradableReadGuard": lambda: f.RwLock({"a": 1}).upgradable_read(),
    "MappedReadGuard": lambda: f.RwLock({"a": 1}).read().map(lambda v: v["a"]),
    "MappedWriteGuard": lambda: f.RwLock({"a": 1}).write().map(lambda v: v["a"]),
    "ShardedWriteGuard": lambda: f.ShardedLock({"a": 1}).write(),
    "unlocked RwLock": lambda: f.RwLock().write().unlocked(),
    "reader": lambda: f.RwLock().reader,
    "writer": lambda: f.ShardedLock().writer,
    "holding": lambda: f.holding(threading.Lock(), 1),
}


def test_every_native_type_is_called_oddly():
    kinds = {name for name in f.__all__ if isinstance(getattr(f, name), type)}
    assert kinds - {"LockView"} == kinds & set(NATIVE)


@pytest.mark.parametrize("kind", NATIVE)
def test_interpreter_is_not_crashed_by_odd_calls_of_native_types(kind):
    make = NATIVE[kind]
    ways = ((), *[(x,) for x in ODD], (None, None, None), (0, 0), ("a", "b"))
    ways += ((0, 2**70), (0, 1, 2, 3, 4, 5))
    for name in dir(make()):
        if name in NOT_CALLED:
            continue
        if name == "mutex":  # a call of a Mutex locks it, and the guard has it locked
            continue
        for arguments in ways:
            thing = make()
            try:
                getattr(thing, name)(*arguments)
            except Exception as error:
                assert not isinstance(error, SystemError), (name, arguments)
    for name in set(dir(make())) - set(dir(object)):
        for value in ODD:
            with contextlib.suppress(AttributeError, TypeError, RuntimeError):
                setattr(make(), name, value)
            with contextlib.suppress(AttributeError, TypeError, RuntimeError):
                delattr(make(), name)


def made_without_init():
    """All types of our modules, also those without a public name, that __new__() alone makes."""
    for found in pkgutil.walk_packages(f.__path__, "fastsync."):
        if found.name == "fastsync.__main__":
            continue
        module = importlib.import_module(found.name)
        if module.__file__.endswith(".py"):
            continue
        for kind in vars(module).values():
            if isinstance(kind, type) and kind.__module__.startswith("fastsync"):
                with contextlib.suppress(TypeError):
                    kind.__new__(kind)
                    yield kind


def test_types_made_without_init_do_not_crash():
    """Unparker wrote, and WaitGroup and the blocks of unlocked() read, behind None."""
    kinds = set(made_without_init())
    assert f.WaitGroup in kinds and f.Unparker not in kinds
    for kind in kinds:
        for name in set(dir(kind)) - NOT_CALLED - {"wait", "park"}:  # these wait, rightly
            for arguments in ((), (None,), (0, 0), (None,) * 3):
                thing = kind.__new__(kind)
                try:
                    getattr(thing, name)(*arguments)
                except Exception as error:
                    assert not isinstance(error, SystemError), (kind, name, arguments)


def test_native_types_made_without_init_work():
    for name in ("Mutex", "FairMutex", "ReentrantMutex"):
        cls = getattr(f, name)
        mutex = cls.__new__(cls)
        with mutex as guard:
            guard.value = {"a": 1}
        natives.USES[name].use(mutex)
    for name in ("Once", "OnceLock", "Parker", "Counter"):
        cls = getattr(f, name)
        natives.USES[name].use(cls.__new__(cls))


def test_interpreter_is_not_crashed_by_odd_calls():
    for make in (
        fs.Lock, fs.RLock, fs.Condition, fs.Semaphore, fs.BoundedSemaphore, fs.Event,
        lambda: fs.Barrier(1), lambda: fs.Condition()._lock, lambda: fs.Condition(threading.Lock()),
    ):  # fmt: skip
        for name in dir(make()):
            if name in NOT_CALLED:
                continue
            for arguments in (
                (),
                *[(x,) for x in ODD[:13]],
                (None, None, None),
                (0, 0),
                ("a", "b"),
            ):
                thing = make()
                if name in ("acquire", "__enter__", "wait", "wait_for", "acquire_lock"):
                    arguments = (*arguments[:1], 0)
                try:
                    getattr(thing, name)(*arguments)
                except Exception as error:
                    assert not isinstance(error, SystemError), (name, arguments)


def test_types_made_without_init_work():
    for kind in (fs.Condition, threading.Condition):
        with pytest.raises(AttributeError, match="_lock"), kind.__new__(kind):
            pass
    for cls in (fs.Lock, fs.RLock, fs.Semaphore, fs.BoundedSemaphore):
        thing = cls.__new__(cls)
        with thing:
            assert not run_threads([lambda thing=thing: thing.acquire(False)])[0]
    event = fs.Event.__new__(fs.Event)
    event.set()
    assert event.wait()
    assert fs.Barrier.__new__(fs.Barrier).wait() == 0
