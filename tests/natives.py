"""Every native type: USES are all its operations where none has to wait, WAITS all that wait.

The fault tests share these. Children that run as `python -c` get this file's text, SOURCE, in front
of their own.
"""

import contextlib
import mmap
import time
from pathlib import Path

import fastsync as f

if "__file__" in globals():
    # Not in the child's main module, whose names are gone when the last finalizers run.
    SOURCE = f"natives = {{}}\nexec({Path(__file__).read_text()!r}, natives)\n"
    SOURCE += "globals().update(natives)\n"
for _name in f.__all__:
    getattr(f, _name)  # loaded at first use, which at the interpreter's end is too late

SHORT = 1e-5
USES, WAITS = {}, {}


def refused(errors, call, *arguments):
    """The call raises one of these errors."""
    try:
        call(*arguments)
    except errors:
        return
    raise AssertionError(f"{call} accepted {arguments}")


def fail_within(context):
    with context:
        raise KeyError


class Use:
    """`make()` one, `use(it)` in every way; then it is `in_order(it)`, also after a failure."""

    def __init__(self, make, use, in_order):
        self.make, self.use, self.in_order = make, use, in_order


class Wait:
    """Up to 8 threads `wait()` for the `wake()`, which whoever made this calls, at any time."""

    def __init__(self, wait, wake):
        self.wait, self.wake = wait, wake
        self.me = self  # only the collector ends it


def soon():
    return time.monotonic() + SHORT


# -- Mutex, FairMutex, ReentrantMutex, Condvar ---------------------------------------------------


def use_guard(guard):
    """A guard of a mutex with {"a": n}; it is dead afterwards."""
    guard.value = {"a": guard.value["a"] + 1}
    guard.bump()
    for block in (guard.unlocked(), guard.unlocked_fair()):
        with block:
            refused(RuntimeError, lambda: guard.value)
    refused(KeyError, guard.map, lambda v: v["b"])
    refused(TypeError, guard.map, None)
    assert guard.try_map(lambda v: None) is None
    part = guard.map(lambda v: v["a"])
    refused(RuntimeError, lambda: guard.value)
    part.value += 1
    repr(guard), repr(part)
    part = part.try_map(lambda v: v.real)
    part.unlock()
    refused(RuntimeError, part.unlock)


def use_mutex(mutex):
    """All of a mutex with {"a": n}."""
    use_guard(mutex.lock())
    use_guard(mutex.try_lock_for(1))
    with mutex as guard:
        assert guard.mutex is mutex and mutex.is_locked()
        refused(RuntimeError, mutex.into_inner)
        repr(mutex)
    for end in ("unlock", "unlock_fair"):
        with mutex.try_lock_until(soon()) or mutex.lock() as guard:
            getattr(guard, end)()
        refused(RuntimeError, guard.unlock)
    refused(KeyError, fail_within, mutex)
    mutex.lock().leak()
    mutex.force_unlock()
    refused(RuntimeError, mutex.force_unlock_fair)
    refused(ValueError, mutex.try_lock_for, float("nan"))
    refused(TypeError, mutex.try_lock_until, "x")
    mutex.lock()  # dropped
    assert not mutex.is_locked() and mutex.into_inner()["a"]
    assert type(mutex)().into_inner() is None and repr(mutex) and hash(mutex)


def use_plain_mutex(mutex):
    use_mutex(mutex)
    with mutex:
        assert mutex.try_lock() is None and mutex.try_lock_for(SHORT) is None
        assert mutex.try_lock_until(soon()) is None


def use_reentrant_mutex(mutex):
    use_mutex(mutex)
    with mutex, mutex:
        assert mutex.is_owned_by_current_thread() and mutex.try_lock() is not None


def mutex_in_order(mutex):
    """Free, and what it protects is from before or after some step, never half of one."""
    assert not mutex.is_locked()
    with mutex as guard:
        assert list(guard.value) == ["a"] and guard.value["a"] >= 1


for _kind in (f.Mutex, f.FairMutex, f.ReentrantMutex):
    USES[_kind.__name__] = Use(
        lambda kind=_kind: kind({"a": 1}),
        use_reentrant_mutex if _kind is f.ReentrantMutex else use_plain_mutex,
        mutex_in_order,
    )


def use_condvar(pair):
    condvar, mutex = pair
    assert condvar.notify_one() is False and condvar.notify_all() == 0
    with mutex as guard:
        assert condvar.wait_for(guard, SHORT) and condvar.wait_until(guard, soon())
        condvar.wait_while(guard, lambda value: False)
        assert not condvar.wait_while_for(guard, lambda value: False, 1)
        assert condvar.wait_while_for(guard, lambda value: True, SHORT)
        assert condvar.wait_while_until(guard, lambda value: True, soon())
        refused(ZeroDivisionError, condvar.wait_while, guard, lambda value: 1 // 0)
        refused(ValueError, condvar.wait_for, guard, float("nan"))
        guard.value = {"a": guard.value["a"] + 1}
    for wrong in (guard, None, mutex):
        refused((RuntimeError, TypeError), condvar.wait, wrong)
    repr(condvar)


def condvar_in_order(pair):
    mutex_in_order(pair[1])
    assert "0 waiting" in repr(pair[0]) and pair[0].notify_all() == 0


USES["Condvar"] = Use(lambda: (f.Condvar(), f.Mutex({"a": 1})), use_condvar, condvar_in_order)


# -- RwLock, LockView, ShardedLock ---------------------------------------------------------------


def use_view(view):
    view.acquire()
    assert view.locked() and view._is_owned()
    view.release()
    with view:
        repr(view)
    assert view.acquire(timeout=1)
    view.release()
    assert view.acquire(False)
    view.release()
    for wrong in ((False, 1), (True, float("nan")), (True, "x"), (1, 2, 3)):
        refused((ValueError, TypeError), view.acquire, *wrong)
    refused(KeyError, fail_within, view)
    refused(RuntimeError, view.release)
    assert not view.locked()


def use_readers(lock):
    """What RwLock and ShardedLock have in common, with {"a": n}."""
    for way in ("read", "read_recursive", "write"):
        guard = getattr(lock, way)()
        repr(guard), repr(lock), guard.bump(), guard.value
        for block in (guard.unlocked(), guard.unlocked_fair()):
            with block:
                refused(RuntimeError, lambda guard=guard: guard.value)
        refused(KeyError, guard.map, lambda v: v["b"])
        assert guard.try_map(lambda v: None) is None
        part = guard.map(lambda v: v["a"]).try_map(lambda v: v.real)
        assert part.value >= 1
        part.unlock()
        refused(RuntimeError, part.unlock)
        for short in (f"try_{way}_for", f"try_{way}_until"):
            refused(ValueError, getattr(lock, short), float("nan"))
            refused(TypeError, getattr(lock, short), "x")
        with getattr(lock, f"try_{way}")() as guard:
            refused(RuntimeError, lock.into_inner)
        with getattr(lock, f"try_{way}_for")(1) as guard:
            guard.unlock_fair()
        refused(RuntimeError, guard.unlock)
    with lock.write() as guard:
        guard.value = {"a": guard.value["a"] + 1}
        part = guard.map(lambda v: v["a"])
        part.value += 1
        for way in ("read", "read_recursive", "write"):
            assert getattr(lock, f"try_{way}")() is None
            assert getattr(lock, f"try_{way}_for")(SHORT) is None
            assert getattr(lock, f"try_{way}_until")(soon()) is None
        part.unlock()
    with lock.read() as guard:
        refused(AttributeError, setattr, guard, "value", 1)
        refused(KeyError, fail_within, lock.read())
    for view in (lock.reader, lock.writer):
        use_view(view)
    with lock.writer:
        assert not lock.reader.acquire(timeout=SHORT) and lock.is_locked_exclusive()
    lock.read()  # dropped
    assert not lock.is_locked() and lock.into_inner()["a"]
    repr(lock), hash(lock)


def use_rwlock(lock):
    use_readers(lock)
    with lock.upgradable_read() as guard:
        assert lock.try_upgradable_read() is None
        assert lock.try_upgradable_read_for(SHORT) is None
        with lock.read():
            assert guard.try_upgrade() is None and guard.try_upgrade_for(SHORT) is None
            assert guard.try_upgrade_until(soon()) is None
        assert guard.with_upgraded(lambda g: g.value) is guard.value
        refused(ZeroDivisionError, guard.with_upgraded, lambda g: 1 // 0)
        writing = guard.upgrade()
        writing.value = {"a": writing.value["a"] + 1}
        upgradable = writing.downgrade_to_upgradable()
        upgradable.try_upgrade().downgrade().unlock()
    lock.try_upgradable_read_until(soon()).downgrade().unlock()
    assert not lock.is_locked()


def rwlock_in_order(lock):
    assert not lock.is_locked() and not lock.is_locked_exclusive()
    with lock.write() as guard:
        assert list(guard.value) == ["a"] and guard.value["a"] >= 1


USES["RwLock"] = Use(lambda: f.RwLock({"a": 1}), use_rwlock, rwlock_in_order)
USES["ShardedLock"] = Use(lambda: f.ShardedLock({"a": 1}), use_readers, rwlock_in_order)


# -- what runs once ------------------------------------------------------------------------------


def use_once(once):
    once.call_once(int)
    once.call_once(lambda: 1 // 0)  # is not called
    once.wait()
    assert once.is_completed() and once.state().done()
    repr(once), repr(once.state()), once.state().name
    refused(TypeError, once.call_once, None)
    broken = f.Once()
    refused(ZeroDivisionError, broken.call_once, lambda: 1 // 0)
    refused(RuntimeError, broken.call_once, int)
    broken.call_once_force(lambda state: state.poisoned())
    assert broken.is_completed()


def once_in_order(once):
    assert once.state() is not f.OnceState.InProgress
    once.call_once_force(lambda state: None)
    once.wait()


def use_once_lock(lock):
    assert lock.get() is None
    refused(ZeroDivisionError, lock.get_or_init, lambda: 1 // 0)
    refused(RuntimeError, lock.get_or_init, lambda: lock.get_or_init(int))
    assert lock.get_or_init(lambda: ["a"]) == ["a"] and lock.wait() == lock.get()
    assert lock.set(["b"]) is False and lock.take() == ["a"]
    assert lock.set(["b"]) and lock.get_or_try_init(list) == ["b"]
    repr(lock)
    assert lock.into_inner() == ["b"] and lock.get_or_try_init(lambda: ["a"])


def once_lock_in_order(lock):
    assert lock.get_or_init(lambda: ["a"]) in (["a"], ["b"])


def use_lazy(lazy):
    assert lazy.value == ["a"] and lazy.force() is lazy.value
    repr(lazy)
    broken = f.LazyLock(lambda: 1 // 0)
    refused(ZeroDivisionError, broken.force)
    refused(RuntimeError, broken.force)


def lazy_in_order(lazy):
    try:
        assert lazy.value == ["a"]
    except RuntimeError:  # poisoned, for good
        assert "InProgress" not in repr(lazy)


class Lazy:  # not made anew each time: 3.13t keeps what it makes of a class for good
    @f.lazy_property
    def it(self):
        return ["a"]


def use_decorators(function):
    assert function(1) == function(2) == 1 and function.__wrapped__
    failing = f.once(lambda: 1 // 0)
    refused(ZeroDivisionError, failing)
    refused(ZeroDivisionError, failing)

    lazy = Lazy()
    assert lazy.it is lazy.it
    repr(function), repr(Lazy.it)


def decorators_in_order(function):
    with contextlib.suppress(MemoryError):  # it may have kept that one
        assert function(1) == 1


USES["Once"] = Use(f.Once, use_once, once_in_order)
USES["OnceLock"] = Use(f.OnceLock, use_once_lock, once_lock_in_order)
USES["LazyLock"] = Use(lambda: f.LazyLock(lambda: ["a"]), use_lazy, lazy_in_order)
USES["once"] = Use(lambda: f.once(lambda n: 1), use_decorators, decorators_in_order)


# -- Parker, WaitGroup ---------------------------------------------------------------------------


def use_parker(parker):
    unparker = parker.unparker()
    unparker.clone().unpark()
    unparker.unpark()
    parker.park()
    assert not parker.park_timeout(SHORT) and not parker.park_deadline(soon())
    refused(ValueError, parker.park_timeout, float("nan"))
    repr(parker), repr(unparker)


def parker_in_order(parker):
    parker.unparker().unpark()
    assert parker.park_timeout(1) and not parker.park_timeout(0)


def use_group(group):
    with group.clone() as other:
        repr(other)
    refused(RuntimeError, other.done)
    group.clone().done()
    group.clone()  # dropped
    own = f.WaitGroup()
    own.clone().done()
    own.wait()
    refused(RuntimeError, own.wait)


def group_in_order(group):
    assert "1 handles" in repr(group)


USES["Parker"] = Use(f.Parker, use_parker, parker_in_order)
USES["WaitGroup"] = Use(f.WaitGroup, use_group, group_in_order)


# -- atomics -------------------------------------------------------------------------------------


def use_exchanges(atomic, old, new, *index):
    """What all atomics have that hold `old`; they hold it again afterwards."""
    assert atomic.load(*index) == old
    atomic.store(*index, new)
    assert atomic.swap(*index, old) == new
    assert atomic.compare_exchange(*index, old, new)[0]
    assert atomic.compare_and_set(*index, new, old)
    assert not atomic.compare_and_set(*index, new, old)
    while not atomic.compare_exchange_weak(*index, old, new)[0]:
        pass
    assert atomic.fetch_update(*index, lambda value: old)[0]
    assert not atomic.try_update(*index, lambda value: None)[0]
    refused(ZeroDivisionError, atomic.update, *index, lambda value: 1 // 0)
    atomic.update(*index, lambda value: old)
    assert atomic.wait(*index, new, 1) and not atomic.wait(*index, old, SHORT)
    atomic.notify_one(*index), atomic.notify_all(*index)
    refused(TypeError, atomic.load, *index, "ordering")
    repr(atomic), hash(atomic)


INTEGER = ("fetch_and", "fetch_nand", "fetch_or", "fetch_xor")
NUMBER = ("fetch_add", "fetch_sub", "fetch_max", "fetch_min")


def use_number(atomic):
    use_exchanges(atomic, 1, 0)
    for name in (*NUMBER, *INTEGER):
        if hasattr(atomic, name):
            getattr(atomic, name)(1)
            refused(TypeError, getattr(atomic, name), "x")
            atomic.store(1)
    if hasattr(atomic, "fetch_add"):
        atomic += 1
        atomic -= 1
    int(atomic), float(atomic), bool(atomic), format(atomic, "")
    refused(TypeError, atomic.store, "x")
    assert type(atomic).from_buffer(bytearray(64)).load() == 0
    assert atomic.into_inner() == 1


def number_in_order(atomic):
    """Some step's value: a whole one, that fits."""
    atomic.load()
    atomic.store(1)
    assert atomic.load() == 1 and atomic.wait(0, 1)


NUMBERS = [name for name in f.__all__ if name.startswith(("AtomicI", "AtomicU", "AtomicF"))]
for _name in (*NUMBERS, "AtomicBool"):
    USES[_name] = Use(
        lambda name=_name: getattr(f, name)(1),
        use_number,
        number_in_order,
    )

OLD, NEW = ("old",), ("new",)


def use_ref(ref):
    use_exchanges(ref, OLD, NEW)
    assert ref.into_inner() is OLD
    for _ in range(20):  # also one that nobody else refers to
        ref.store(["mine"])
        ref.load()
    ref.store(OLD)


def ref_in_order(ref):
    assert ref.load() in (OLD, NEW, ["mine"])


def use_cell(cell):
    assert cell.load() == OLD and cell.swap(NEW) == OLD and cell.take() == NEW
    cell.store(OLD)
    assert cell.compare_exchange(("old",), NEW)[0] and not cell.compare_exchange(OLD, NEW)[0]
    assert cell.fetch_update(lambda value: OLD)[0] and not cell.fetch_update(lambda value: None)[0]
    refused(ZeroDivisionError, cell.fetch_update, lambda value: 1 // 0)
    assert cell.wait(NEW, 1) and not cell.wait(OLD, SHORT)
    cell.notify_one(), cell.notify_all(), cell.is_lock_free()
    repr(cell), hash(cell)
    assert cell.into_inner() == OLD
    cell.store(OLD)


def cell_in_order(cell):
    assert cell.load() in (OLD, NEW, None)


USES["AtomicRef"] = Use(lambda: f.AtomicRef(OLD), use_ref, ref_in_order)
USES["AtomicCell"] = Use(lambda: f.AtomicCell(OLD), use_cell, cell_in_order)


def use_array(array):
    use_exchanges(array, 1, 0, 2)
    for name in (*NUMBER, *INTEGER):
        getattr(array, name)(2, 1)
    array.fill(0)
    for name in ("add_at", "max_at", "min_at", "or_at"):
        getattr(array, name)([0, 3, 3], 1)
        getattr(array, name)([1, 2], [1, 0])
        refused(IndexError, getattr(array, name), [0, 9], 1)
        refused(TypeError, getattr(array, name), [0, "x"], 1)
    array.fill(1)
    assert array.load_all() == [1] * 4 and len(array) == 4 and array[0] == 1
    with memoryview(array) as view:
        array.load_all(bytearray(view.nbytes))
    memory = bytearray(32)
    over = f.AtomicArray.from_buffer(memory, "int64")
    over.store(0, 1)
    assert over.dtype and over.itemsize and over.nbytes == 32 and memory.count(1) == 1
    refused(BufferError, memory.clear)
    refused(IndexError, array.load, 4)
    refused((TypeError, ValueError), f.AtomicArray, "i8", 3)


def array_in_order(array):
    assert len(array.load_all()) == 4
    array.fill(1)
    assert array.load_all() == [1] * 4


def new_array():
    array = f.AtomicArray("int64", 4)
    array.fill(1)
    return array


USES["AtomicArray"] = Use(new_array, use_array, array_in_order)


def use_counter(counter):
    counter.increment()
    counter.add(2)
    counter += 3
    assert counter.value() == int(counter) == counter.reset() == 6
    refused(TypeError, counter.add, "x")
    repr(counter)


def counter_in_order(counter):
    assert counter.reset() in range(7) and counter.value() == 0


USES["Counter"] = Use(f.Counter, use_counter, counter_in_order)


# -- Arc, Weak -----------------------------------------------------------------------------------


def use_arc(arc):
    assert arc.value == ["a"]
    other, weak = arc.clone(), arc.downgrade()
    assert arc.ptr_eq(other) and arc.strong_count() == 2 and arc.weak_count() == 1
    assert arc.get_mut() is None and other.try_unwrap()[0] is False
    other.drop()
    refused(ReferenceError, lambda: other.value)
    with weak.upgrade() as other, weak.clone() as weak2:
        assert weak.ptr_eq(weak2) and weak.strong_count() == 2 and weak.weak_count() == 2
        other.make_mut().append("b")  # of a copy
        repr(other), repr(weak), repr(arc)
    weak.drop()
    assert arc.value == ["a"] and arc.get_mut() is arc.value
    assert f.Arc.new_cyclic(lambda weak: (weak, weak.upgrade())).value[1] is None
    dropped = []
    f.Arc(["c"], dropped.append).drop()
    f.Arc(["c"], on_drop=dropped.append)
    assert dropped == [["c"]] * 2
    assert f.Arc(1).into_inner() == f.Arc(1).unwrap_or_clone() == f.Arc(1).try_unwrap()[1] == 1
    assert f.Weak().upgrade() is None
    refused(ZeroDivisionError, f.Arc.new_cyclic, lambda weak: 1 // 0)


def arc_in_order(arc):
    assert arc.value == ["a"] and arc.strong_count() == 1
    assert arc.weak_count() == 0 and arc.get_mut() is arc.value


USES["Arc"] = Use(lambda: f.Arc(["a"]), use_arc, arc_in_order)


def use_all():
    for it in USES.values():
        thing = it.make()
        it.use(thing)
        it.in_order(thing)


# -- waits ---------------------------------------------------------------------------------------


WAITERS = 2


def start_waiters(waits, count=WAITERS):
    """Daemon threads in each Wait, all of them asleep or in the wait's own loop, and a list."""
    import threading

    entered, threads = [], []

    def run(wait):
        entered.append(1)
        wait.wait()

    for wait in waits.values():
        for _ in range(count):
            threads.append(threading.Thread(target=run, args=[wait], daemon=True))
            threads[-1].start()
    deadline = time.monotonic() + 20
    while len(entered) < len(threads) or not asleep(threads):
        assert time.monotonic() < deadline, "threads do not come to rest"
        time.sleep(0.001)
    return threads


def asleep(threads):
    """Whether the kernel says that these threads sleep; true where it cannot be asked."""
    for thread in threads:
        try:
            with open(f"/proc/self/task/{thread.native_id}/stat") as stat:
                if stat.read().rpartition(")")[2].split()[0] != "S":
                    return False
        except (OSError, TypeError):
            continue
    return True


def waits(name):
    """A function that makes a Wait, by name."""
    return lambda function: WAITS.setdefault(name, function)


def _lock_wait(kind, way="lock", other="lock"):
    lock = kind()
    guard = getattr(lock, other)()
    return Wait(lambda: getattr(lock, way)().unlock(), guard.unlock)


for _kind in (f.Mutex, f.FairMutex, f.ReentrantMutex):
    WAITS[_kind.__name__] = lambda kind=_kind: _lock_wait(kind)
for _way in ("read", "read_recursive", "write", "upgradable_read"):
    WAITS[f"RwLock.{_way}"] = lambda way=_way: _lock_wait(f.RwLock, way, "write")
for _way in ("read", "write"):
    WAITS[f"ShardedLock.{_way}"] = lambda way=_way: _lock_wait(f.ShardedLock, way, "write")


@waits("with Mutex")
def _():
    mutex = f.Mutex()
    guard = mutex.lock()

    def wait():
        with mutex:
            pass

    return Wait(wait, guard.unlock_fair)


@waits("upgrade")
def _():
    lock = f.RwLock()
    guard = lock.read()
    return Wait(lambda: lock.upgradable_read().upgrade().unlock(), guard.unlock)


def _view_wait(side):
    lock = f.RwLock()
    view = getattr(lock, side)
    lock.writer.acquire()

    def wait():
        view.acquire()
        view.release()

    return Wait(wait, lock.writer.release)


for _side in ("reader", "writer"):
    WAITS[f"RwLock.{_side}"] = lambda side=_side: _view_wait(side)


def _condvar_wait(call):
    condvar, mutex = f.Condvar(), f.Mutex(0)

    def wait():
        with mutex as guard:
            call(condvar, guard)

    def wake():
        with mutex as guard:
            guard.value = 1
            condvar.notify_all()

    return Wait(wait, wake)


def _until_set(condvar, guard):
    while not guard.value:
        condvar.wait(guard)


WAITS["Condvar.wait"] = lambda: _condvar_wait(_until_set)
WAITS["Condvar.wait_while"] = lambda: _condvar_wait(lambda c, g: c.wait_while(g, lambda v: v == 0))


@waits("Once.wait")
def _():
    once = f.Once()
    return Wait(once.wait, lambda: once.call_once(int))


@waits("OnceLock.wait")
def _():
    lock = f.OnceLock()
    return Wait(lock.wait, lambda: lock.set(1))


def _once_wait(make):
    """The first thread waits within the function, the others for the first."""
    gate = f.OnceLock()
    return Wait(make(gate.wait), lambda: gate.set(1))


def _once_call(fn, once):
    return lambda: once.call_once(fn)


def _get_or_init(fn, lock):
    return lambda: lock.get_or_init(fn)


WAITS["Once.call_once"] = lambda: _once_wait(lambda fn: _once_call(fn, f.Once()))
WAITS["OnceLock.get_or_init"] = lambda: _once_wait(lambda fn: _get_or_init(fn, f.OnceLock()))
WAITS["LazyLock"] = lambda: _once_wait(lambda fn: f.LazyLock(fn).force)
WAITS["once"] = lambda: _once_wait(lambda fn: f.once(fn))


@waits("lazy_property")
def _():
    gate = f.OnceLock()

    class Lazy:
        @f.lazy_property
        def it(self):
            return gate.wait()

    lazy = Lazy()
    return Wait(lambda: lazy.it, lambda: gate.set(1))


@waits("Parker")
def _():
    parker = f.Parker()

    def wait():
        parker.park()
        parker.unparker().unpark()  # the token goes on to the next

    return Wait(wait, parker.unparker().unpark)


@waits("WaitGroup")
def _():
    group = f.WaitGroup()
    # Each that waits waits for all others too, so a thread that will wait brings no live handle.
    handles = [group.clone() for _ in range(8)]

    def wait():
        handles.pop().wait()

    def wake():
        group.done()
        while handles:
            with contextlib.suppress(IndexError):
                handles.pop().done()

    return Wait(wait, wake)


def _atomic_wait(atomic, old, new, *index):
    def wake():
        atomic.store(*index, new)
        atomic.notify_all(*index)

    return Wait(lambda: atomic.wait(*index, old), wake)


for _name in (*NUMBERS, "AtomicBool"):
    WAITS[_name] = lambda name=_name: _atomic_wait(getattr(f, name)(0), 0, 1)
WAITS["AtomicRef"] = lambda: _atomic_wait(f.AtomicRef(OLD), OLD, NEW)
WAITS["AtomicCell"] = lambda: _atomic_wait(f.AtomicCell(OLD), OLD, NEW)
WAITS["AtomicArray"] = lambda: _atomic_wait(f.AtomicArray("int32", 4), 0, 1, 2)


def _shared():
    return f.AtomicI32.from_buffer(mmap.mmap(-1, 64), shared=True)


with contextlib.suppress(NotImplementedError):  # the wait backend may know nothing of processes
    _shared()
    WAITS["shared"] = lambda: _atomic_wait(_shared(), 0, 1)
