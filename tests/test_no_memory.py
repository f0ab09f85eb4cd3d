"""Types that own values, when the n-th allocation of a call fails: MemoryError, and nothing lost.

Each call is made with the first, the second, … and the fortieth allocation failing, and all after
it; and so is its error path. It ends as always, or with a MemoryError; the object can be used
afterwards, and no count of its value is wrong.
"""

import gc
import weakref

import pytest
from conftest import run_python

import fastsync
from fastsync import (
    Arc,
    AtomicCell,
    AtomicRef,
    FairMutex,
    LazyLock,
    Mutex,
    Once,
    OnceLock,
    ReentrantMutex,
    RwLock,
    ShardedLock,
    Weak,
    once,
)
from fastsync.objects.lazy_property import lazy_property

testcapi = pytest.importorskip("_testcapi")


class Value:
    def __copy__(self):
        return Value()


class Holder:
    lazy = lazy_property(lambda self: VALUE)


VALUE = Value()


def fail(*_):
    raise KeyError


def make_arc():
    return Arc(VALUE)


def arc_with_weak():
    arc = Arc(VALUE)
    return arc, arc.downgrade()


def arc_with_other():
    arc = Arc(VALUE)
    return arc, arc.clone()


def released():
    arc = Arc(VALUE)
    arc.drop()
    return arc


def run_once():
    run = once(lambda: VALUE)
    run()
    return run


def failed_once():
    run = once(fail)
    with pytest.raises(KeyError):
        run()
    return run


def failed_lazy():
    lazy = LazyLock(fail)
    with pytest.raises(KeyError):
        lazy.force()
    return lazy


def full_lock():
    lock = OnceLock()
    lock.set(VALUE)
    return lock


CALLS = {
    "Arc": (lambda: None, lambda _: Arc(VALUE, fail)),
    "Arc, not callable": (lambda: None, lambda _: Arc(VALUE, 5)),
    "Arc.__init__": (make_arc, lambda arc: arc.__init__(VALUE)),
    "Arc.clone": (make_arc, Arc.clone),
    "Arc.clone, released": (released, Arc.clone),
    "Arc.value": (make_arc, lambda arc: arc.value),
    "Arc.value, released": (released, lambda arc: arc.value),
    "Arc.downgrade": (make_arc, Arc.downgrade),
    "Arc.downgrade, released": (released, Arc.downgrade),
    "Arc.drop": (make_arc, Arc.drop),
    "Arc.drop, on_drop fails": (lambda: Arc(VALUE, len), Arc.drop),
    "Arc.into_inner": (make_arc, Arc.into_inner),
    "Arc.into_inner, other": (arc_with_other, lambda pair: pair[0].into_inner()),
    "Arc.try_unwrap": (make_arc, Arc.try_unwrap),
    "Arc.try_unwrap, other": (arc_with_other, lambda pair: pair[0].try_unwrap()),
    "Arc.unwrap_or_clone": (make_arc, Arc.unwrap_or_clone),
    "Arc.unwrap_or_clone, other": (arc_with_other, lambda pair: pair[0].unwrap_or_clone()),
    "Arc.make_mut": (make_arc, Arc.make_mut),
    "Arc.make_mut, Weak": (arc_with_weak, lambda pair: pair[0].make_mut()),
    "Arc.make_mut, other": (arc_with_other, lambda pair: pair[0].make_mut()),
    "Arc.make_mut, released": (released, Arc.make_mut),
    "Arc.get_mut": (make_arc, Arc.get_mut),
    "Arc.new_cyclic": (lambda: None, lambda _: Arc.new_cyclic(lambda weak: [VALUE, weak])),
    "Arc.new_cyclic, fails": (lambda: None, lambda _: Arc.new_cyclic(fail)),
    "Arc.ptr_eq": (arc_with_other, lambda pair: pair[0].ptr_eq(pair[1])),
    "repr(Arc)": (make_arc, repr),
    "Weak": (lambda: None, lambda _: Weak()),
    "Weak.upgrade": (arc_with_weak, lambda pair: pair[1].upgrade()),
    "Weak.clone": (arc_with_weak, lambda pair: pair[1].clone()),
    "Weak.drop": (arc_with_weak, lambda pair: pair[1].drop()),
    "AtomicRef": (lambda: None, lambda _: AtomicRef(VALUE)),
    "AtomicRef.load": (lambda: AtomicRef(VALUE), AtomicRef.load),
    "AtomicRef.store": (AtomicRef, lambda ref: ref.store(VALUE)),
    "AtomicRef.swap": (AtomicRef, lambda ref: ref.swap(VALUE)),
    "AtomicRef.compare_exchange": (AtomicRef, lambda ref: ref.compare_exchange(None, VALUE)),
    "AtomicRef.compare_exchange, fails": (AtomicRef, lambda ref: ref.compare_exchange(1, VALUE)),
    "AtomicRef.update": (AtomicRef, lambda ref: ref.update(lambda _: VALUE)),
    "AtomicRef.fetch_update": (AtomicRef, lambda ref: ref.fetch_update(lambda _: None)),
    "AtomicRef.wait": (AtomicRef, lambda ref: ref.wait(VALUE, 0)),
    "AtomicRef.wait, times out": (lambda: AtomicRef(VALUE), lambda ref: ref.wait(VALUE, 0.0001)),
    "AtomicRef.load, order": (AtomicRef, lambda ref: ref.load(fastsync.Ordering.Release)),
    "AtomicCell": (lambda: None, lambda _: AtomicCell(VALUE)),
    "AtomicCell.swap": (AtomicCell, lambda cell: cell.swap(VALUE)),
    "AtomicCell.compare_exchange": (AtomicCell, lambda cell: cell.compare_exchange(None, VALUE)),
    "AtomicCell.wait": (AtomicCell, lambda cell: cell.wait(None, 0.0001)),
    "OnceLock": (lambda: None, lambda _: OnceLock()),
    "OnceLock.set": (OnceLock, lambda lock: lock.set(VALUE)),
    "OnceLock.get": (full_lock, OnceLock.get),
    "OnceLock.take": (full_lock, OnceLock.take),
    "OnceLock.get_or_init": (OnceLock, lambda lock: lock.get_or_init(lambda: VALUE)),
    "OnceLock.get_or_init, fails": (OnceLock, lambda lock: lock.get_or_init(fail)),
    "LazyLock": (lambda: None, lambda _: LazyLock(lambda: VALUE)),
    "LazyLock.force": (lambda: LazyLock(lambda: VALUE), LazyLock.force),
    "LazyLock.force, fails": (lambda: LazyLock(fail), LazyLock.force),
    "LazyLock.force, failed": (failed_lazy, LazyLock.force),
    "Once.call_once": (Once, lambda gate: gate.call_once(lambda: None)),
    "Once.call_once, fails": (Once, lambda gate: gate.call_once(fail)),
    "Once.call_once_force": (Once, lambda gate: gate.call_once_force(lambda state: None)),
    "once": (lambda: None, lambda _: once(fail)),
    "once, called": (lambda: once(lambda: VALUE), lambda run: run()),
    "once, called again": (run_once, lambda run: run()),
    "once, fails": (lambda: once(fail), lambda run: run()),
    "once, failed": (failed_once, lambda run: run()),
    "lazy_property": (Holder, lambda holder: holder.lazy),
    "repr(Once)": (Once, repr),
}
EXPECTED = (MemoryError, KeyError, TypeError, ValueError, ReferenceError, RuntimeError)


def call_without_memory(call, argument, number):
    """The result, or the exception if it is one of those that are expected."""
    testcapi.set_nomemory(number, 0)
    try:
        return call(argument)
    except EXPECTED as error:
        return error
    finally:
        testcapi.remove_mem_hooks()


def still_usable(argument):
    """Whatever happened: no count is wrong, and no thread would wait for ever."""
    for thing in argument if isinstance(argument, tuple) else (argument,):
        if isinstance(thing, (Arc, Weak)):
            thing.drop()
        elif isinstance(thing, (AtomicRef, AtomicCell)):
            thing.store(None)
        elif isinstance(thing, OnceLock):
            assert thing.get_or_init(lambda: VALUE) is VALUE
        elif isinstance(thing, Once):
            thing.call_once_force(lambda state: None)
        elif isinstance(thing, (LazyLock, once)):
            try:
                assert (thing.force if isinstance(thing, LazyLock) else thing)() is VALUE
            except (KeyError, RuntimeError, MemoryError):
                pass
        elif isinstance(thing, Holder):
            assert thing.lazy is VALUE


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", CALLS)
def test_a_call_without_memory(name, monkeypatch):
    global VALUE
    monkeypatch.setattr("sys.unraisablehook", lambda _: None)
    make, call = CALLS[name]
    outcomes = set()
    number = 0
    while number < 40 or (outcomes == {MemoryError} and number < 400):
        number += 1
        VALUE = Value()
        gone = weakref.ref(VALUE)
        argument = make()
        result = call_without_memory(call, argument, number)
        outcomes.add(type(result))
        still_usable(argument)
        del argument, result
        VALUE = None
        if gone() is not None:
            gc.collect()
        assert gone() is None, f"the value is kept after allocation {number} failed"
    assert len(outcomes - {MemoryError}) == 1, outcomes


def block(lock):
    with lock:
        pass


def unlocked(guard):
    with guard.unlocked():
        pass
    guard.unlock()


def whole(value):
    return value


def nothing(value):
    return None


# No function is made in them: CPython 3.13 drops what it does not own when it cannot make one.
HOLDS = {
    "with": block,
    "lock": lambda lock: lock.lock().unlock(),
    "lock, dropped": lambda lock: lock.lock(),
    "map": lambda lock: lock.lock().map(whole).unlock(),
    "try_map": lambda lock: lock.lock().try_map(nothing),
    "unlocked": lambda lock: unlocked(lock.lock()),
    "with lock()": lambda lock: block(lock.lock()),
    "write": lambda lock: lock.write().unlock(),
    "read": lambda lock: lock.read().map(whole).unlock(),
    "downgrade": lambda lock: lock.write().downgrade().unlock(),
    "upgrade": lambda lock: lock.upgradable_read().upgrade().unlock(),
    "with_upgraded": lambda lock: lock.upgradable_read().with_upgraded(nothing),
    "writer": lambda lock: block(lock.writer),
}


@pytest.mark.parametrize("cls", [Mutex, FairMutex, ReentrantMutex, RwLock, ShardedLock])
def test_a_hold_without_memory_leaves_the_lock_free(cls):
    for name, call in HOLDS.items():
        try:
            call(cls([]))
        except (AttributeError, TypeError):
            continue  # not a way of this type
        for number in range(25):
            lock = cls([])  # a new one each time: it keeps the guard of its last block
            result = call_without_memory(call, lock, number)
            del result
            if lock.is_locked():
                gc.collect()
            assert not lock.is_locked(), f"{name}, allocation {number}"


NO_LIST = """
import sys
import _testcapi
from fastsync import OnceLock
from fastsync.queue import LifoQueue, Queue

def filled(make):
    queue = make()
    for number in range(8):
        queue.put(number)
    return queue

def look():
    for _ in range(100):
        things = []
        for number in range(6):
            things.append([number])
        assert all(type(thing) is list and len(thing) == 1 for thing in reversed(things))

CALLS = {
    "OnceLock": (lambda: None, lambda _: OnceLock()),
    "Queue.mutex": (lambda: filled(Queue), lambda queue: queue.mutex),
    "LifoQueue.mutex": (lambda: filled(LifoQueue), lambda queue: queue.mutex),
    "Queue.get_many": (lambda: filled(Queue), lambda queue: queue.get_many(5, 0)),
}
make, call = CALLS[sys.argv[1]]
for _ in range(15):
    for number in range(20):
        argument = make()
        _testcapi.set_nomemory(number, number + 1)
        try:
            call(argument)
        except MemoryError:
            pass
        finally:
            _testcapi.remove_mem_hooks()
        look()
print("good")
"""


@pytest.mark.parametrize("name", ["OnceLock", "Queue.mutex", "LifoQueue.mutex", "Queue.get_many"])
def test_a_list_for_which_there_is_no_memory(name):
    """3.13t's own way of making one frees the memory of another list then, here or later."""
    assert run_python("-P", "-c", NO_LIST, name).stdout == "good\n"
