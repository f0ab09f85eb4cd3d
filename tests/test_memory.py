"""Sizes, and levels that must stay: references, blocks, file descriptors, threads."""

# ruff: noqa: B023
import contextlib
import gc
import os
import subprocess
import sys
import textwrap
import threading

import natives
import pytest
from conftest import run_python, run_threads

import fastsync.threading as fs
from fastsync.raw.parking import parked_total

FREE_THREADED = "free-threading" in sys.version

SIZES = {"Lock": 40, "RLock": 56, "Condition": 120, "Semaphore": 72, "BoundedSemaphore": 80}
SIZES |= {"Event": 72, "Barrier": 104}


@pytest.mark.parametrize("name", SIZES)
def test_object_is_small(name):
    # The header is 16 bytes larger without the GIL, and so is the collector's with it.
    thing = getattr(fs, name)(2) if name == "Barrier" else getattr(fs, name)()
    assert sys.getsizeof(thing) <= SIZES[name] + 16


def exercise():
    """Every call that can be made, and every way that it can end."""
    lock, rlock, semaphore, event = fs.Lock(), fs.RLock(), fs.Semaphore(), fs.Event()
    conditions = fs.Condition(), fs.Condition(fs.Lock()), fs.Condition(threading.Lock())
    bounded, barrier = fs.BoundedSemaphore(), fs.Barrier(1, list)
    for thing in (lock, rlock, semaphore, bounded, *conditions):
        with thing:
            thing.acquire(False) and thing.release()
        try:
            with thing:
                raise KeyError
        except KeyError:
            pass
        thing.acquire(timeout=0.5)
        thing.release()
        repr(thing), hash(thing)
        for call in (
            lambda: thing.acquire(False, 1),
            lambda: thing.acquire(timeout="x"),
            lambda: thing.acquire(timeout=float("nan")),
            lambda: thing.acquire(1, 2, 3),
            lambda: thing(1),
        ):
            try:
                call()
            except (ValueError, TypeError):
                pass
            else:
                thing.release()
        with contextlib.suppress(TypeError):  # 3.11 has an answer for some
            thing.__reduce__()
    for unowned in (lock, rlock):
        try:
            unowned.release()
        except RuntimeError:
            pass
    for condition in conditions:
        condition._lock  # noqa: B018
        condition.attribute = condition._waiters
        try:
            condition.wait()
        except RuntimeError:
            pass
        with condition:
            condition.wait(0)
            condition.wait_for(lambda: False, 0)
            condition.notify_all()
    lock.acquire()
    lock.acquire(timeout=0.00001)
    event.wait(0.00001), event.set(), event.wait(), event.clear(), event._cond
    semaphore.acquire(), semaphore.acquire(timeout=0.00001), semaphore.release(2)
    try:
        bounded.release()
    except ValueError:
        pass
    barrier.wait(), barrier.abort(), repr(barrier)
    try:
        barrier.wait()
    except threading.BrokenBarrierError:
        pass
    barrier.reset()


def settle():
    for _ in range(3):
        gc.collect()


def test_blocks_stay_level_over_every_operation():
    # The interpreter's own caches may still grow in the first rounds; a leak shows in every one.
    growth = []
    for _ in range(6):
        before = sys.getallocatedblocks()
        for _ in range(200):
            exercise()
        settle()
        growth.append(sys.getallocatedblocks() - before)
    assert min(growth) < 150, growth


@pytest.mark.parametrize("name", natives.USES)
def test_blocks_stay_level_over_every_native_operation(name):
    it = natives.USES[name]

    def blocks():
        for _ in range(20):
            thing = it.make()
            it.use(thing)
            it.in_order(thing)
        del thing
        settle()
        return sys.getallocatedblocks()

    # The interpreter's free lists fill up in the first rounds; a leak, of 20 blocks or more,
    # shows in every round.
    levels = [blocks()]
    while len(levels) < 60:
        levels.append(blocks())
        if levels[-1] - levels[-2] < 10:
            return
    pytest.fail(f"they grow: {levels}")


def test_references_stay_level_over_every_native_operation():
    kinds = {type(it.make()) for it in natives.USES.values()}
    # Not None, which counts before 3.12: fs_new_list() makes lists of it, whose items are then set.
    probes = [*kinds, natives.OLD, natives.NEW, RuntimeError, TypeError, ReferenceError]
    natives.use_all()
    settle()
    before = [sys.getrefcount(thing) for thing in probes]
    for _ in range(30):
        natives.use_all()
    settle()
    after = [sys.getrefcount(thing) for thing in probes]
    assert all(abs(a - b) < 15 for a, b in zip(after, before, strict=True))


def test_references_stay_level_with_one_native_object_used_again_and_again():
    for name in ("Mutex", "FairMutex", "ReentrantMutex", "RwLock", "ShardedLock", "Parker",
                 "WaitGroup", "AtomicI64", "AtomicF64", "AtomicBool", "AtomicRef", "AtomicCell",
                 "AtomicArray", "Counter", "Arc"):  # fmt: skip
        it = natives.USES[name]
        thing = it.make()
        it.use(thing)
        settle()
        before = sys.getrefcount(thing)
        for _ in range(20):
            it.use(thing)
        settle()
        assert sys.getrefcount(thing) - before < 5, name


def test_references_stay_level_over_every_operation():
    probes = [fs.Lock(), fs.RLock(), fs.Condition(), fs.Semaphore(), fs.Event(), fs.Barrier(1)]
    singletons = [probes, fs.Lock.acquire, threading.BrokenBarrierError]
    exercise()
    before = [sys.getrefcount(thing) for thing in (*probes, *singletons)]
    for _ in range(200):
        exercise()
        for thing in probes[:4]:
            with thing:
                pass
            thing.acquire()
            thing.release()
        probes[4].wait(0), probes[4].is_set()
        probes[5].wait()
    settle()
    after = [sys.getrefcount(thing) for thing in (*probes, *singletons)]
    assert all(abs(a - b) < 5 for a, b in zip(after, before, strict=True))


def test_exceptions_do_not_keep_the_lock():
    for make, call in (
        (fs.Lock, lambda x: x.release()),
        (fs.RLock, lambda x: x.release()),
        (fs.Condition, lambda x: x.wait()),
        (fs.Semaphore, lambda x: x.acquire(timeout="x")),
        (fs.Event, lambda x: x.wait("x")),
        (lambda: fs.Barrier(1), lambda x: x.wait("x")),
    ):
        thing = make()
        before = sys.getrefcount(thing)
        for _ in range(100):
            with pytest.raises((RuntimeError, TypeError)):
                call(thing)
        gc.collect()
        assert sys.getrefcount(thing) <= before + 1


def contended_round():
    lock, condition, event, semaphore = fs.Lock(), fs.Condition(), fs.Event(), fs.Semaphore(1)
    barrier = fs.Barrier(4)

    def work(i):
        for _ in range(5):
            with lock, semaphore:
                pass
            barrier.wait(20)
            with condition:
                condition.notify_all()
                condition.wait(0.0001)
        event.set() if i == 0 else event.wait(20)

    run_threads(work, count=4)


def test_nothing_grows_with_threads_that_come_and_go():
    for _ in range(3):
        contended_round()
    settle()
    before = sys.getallocatedblocks()
    count = threading.active_count()
    for _ in range(20):
        contended_round()
    settle()
    assert threading.active_count() == count
    assert sys.getallocatedblocks() - before < 1000


def native_round():
    """Threads that come, wait in every native type, are woken, and go."""
    waits = {name: make() for name, make in natives.WAITS.items()}
    threads = natives.start_waiters(waits)
    for wait in waits.values():
        wait.wake()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def test_nothing_grows_with_threads_that_come_and_go_over_native_types():
    for _ in range(3):
        native_round()
    settle()
    before = sys.getallocatedblocks()
    parked = parked_total()
    for _ in range(6):
        native_round()
    settle()
    assert parked_total() == parked
    assert sys.getallocatedblocks() - before < 1000


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc")
def test_no_file_descriptor_is_used():
    before = len(os.listdir("/proc/self/fd"))
    contended_round()
    native_round()
    settle()  # a mapping that a test shares has none either, once it is gone
    assert len(os.listdir("/proc/self/fd")) == before


# Every call of an atomic or an array, as it should be and as it is refused.  `big` and `x` do
# not fit one digit, so that results are allocated.
CALLS = """
    big, x = 2**40, 2**41
    Bad = ["x", None, 10**5000]
    memory, odd = array.array("q", [big] * 8), bytearray(9)

    def calls_of(a, at):
        "(name, function, its arguments); `at` is () or (index,)."
        yield "load", a.load, *at
        yield "load order", partial(a.load, ordering=Ordering.Acquire), *at
        yield "load refused", a.load, *at, Ordering.Release
        yield "timed wait", a.wait, *at, big, 1e-9
        yield "notify_one", a.notify_one, *at
        yield "notify_all", a.notify_all, *at
        for v in [x, *Bad]:
            yield "store", a.store, *at, v
            yield "store order", partial(a.store, ordering=Ordering.Release), *at, v
            yield "swap", a.swap, *at, v
            yield "wait", a.wait, *at, v, 0
            yield "timed wait", a.wait, *at, x + 1, v
            for name in ("compare_exchange", "compare_exchange_weak", "compare_and_set"):
                f = getattr(a, name)
                yield name, f, *at, v, big
                yield name, f, *at, big, v
                yield name, partial(f, failure=Ordering.Relaxed), *at, big, v, Ordering.AcqRel
            for op in ("add", "sub", "and", "or", "xor", "nand", "max", "min"):
                name = "fetch_" + op
                if hasattr(a, name):
                    yield name, getattr(a, name), *at, v
            for name in ("update", "fetch_update", "try_update"):
                yield name, getattr(a, name), *at, {0: v, big: v, x: v}.get

    def all_calls():
        for cls in (AtomicI64, AtomicU64, AtomicF64):
            a = cls(big)
            yield from calls_of(a, ())
            yield from calls_of(cls.from_buffer(memory), ())
            for v in [x, *Bad]:
                yield "new", cls, v
                yield "+=", a.__iadd__, v
                yield "-=", a.__isub__, v
            for f in (int, float, bool, repr, format):
                yield f.__name__, f, a
            yield "format", format, a, ">50"
            yield "into_inner", a.into_inner
            yield "reduce", a.__reduce_ex__, 2
            for offset in (0, 8, 4, -8, 64, 2**70):
                yield "from_buffer", cls.from_buffer, memory, offset
        flag = AtomicBool()
        yield "bool", flag.fetch_not
        yield "bool", flag.fetch_nand, True
        yield "bool", flag.fetch_and, 2
        yield "bool", flag.compare_exchange, False, True
        yield "bool", AtomicBool.from_buffer, odd, 8
        for dtype in ("int64", "uint64", "float64"):
            a = AtomicArray(dtype, 8)
            a.fill(big)
            yield from calls_of(a, (3,))
            yield from calls_of(a, (9,))
            some = array.array("d" if dtype == "float64" else "q", [x, x])
            for name in ("add_at", "max_at", "min_at", "or_at"):
                f = getattr(a, name)
                for at in ([1, 2], array.array("i", [1, 2]), [1, 8], [1, "x"], [2**70], None):
                    for values in (x, [x, x], some, [x], [x, "x"], [10**5000, 1],
                                   array.array("f", [1, 1])):
                        yield name, f, at, values
                yield name, f, array.array("q", [1]) * 100, x
                yield name, f, memoryview(array.array("q", [1] * 8))[::2], x
            for out in (None, bytearray(64), odd, 5):
                yield "load_all", a.load_all, out
            yield "fill", a.fill, x
            yield "fill", a.fill, "x"
            yield "items", list, a
            yield "view", memoryview, a
            yield "size", a.__sizeof__
            yield "repr", repr, a
            for name in ("nbytes", "dtype", "itemsize"):
                yield name, getattr, a, name
            yield "from_buffer", AtomicArray.from_buffer, a
            for n in (9, -1, 2**70, "x"):
                yield "new", AtomicArray, dtype, n
            for wrong in (5, "y"):
                yield "new", AtomicArray, wrong, 5
            for buffer in (memory, odd, bytes(8), 5, memoryview(odd)[1:], memoryview(odd)[::2]):
                yield "from_buffer", AtomicArray.from_buffer, buffer, dtype
        counter = Counter()
        for v in [x, *Bad]:
            yield "counter", counter.add, v
            yield "counter", counter.__iadd__, v
        for f in (Counter, counter.value, counter.reset, counter.increment):
            yield "counter", f
        yield "counter", repr, counter
        yield "counter", int, counter
        yield "counter", counter.__reduce_ex__, 2
        for order in Ordering.members():
            yield "fence", fence, order
            yield "fence", compiler_fence, order
            yield "ordering", repr, order
            yield "ordering", order.__reduce__
        yield "pin", pin, 5
        yield "pin", is_pinned, 5

    usual = (TypeError, ValueError, OverflowError, IndexError, BufferError)
    # Whole before the first: some versions of the interpreter crash when a call with
    # a `*` or a closure in it gets no memory.
    calls = [(name, partial(*call)) for name, *call in all_calls()]
    refused = failed = 0
    for name, call in calls:
        try:
            call()
            expected = None
        except usual as error:
            expected = type(error)
        for k in range(1, 41):
            outcome = None
            try:
                _testcapi.set_nomemory(k, k + 1)
                try:
                    call()
                finally:
                    _testcapi.remove_mem_hooks()
            except BaseException as error:
                outcome = error  # of this loop, too
            _testcapi.remove_mem_hooks()
            if type(outcome) is MemoryError:
                failed += 1
            elif outcome is not None:
                assert type(outcome) is expected, (name, k, outcome)
                refused += 1
    print(len(calls), failed, refused)
"""


def test_a_call_that_gets_no_memory_raises_memory_error():
    """The k-th allocation fails, for k from 1 to 40: MemoryError or what was to come anyway."""
    pytest.importorskip("_testcapi")
    code = (
        "import _testcapi, array\nfrom functools import partial\nfrom fastsync import *\n"
        + textwrap.dedent(CALLS)
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    calls, failed, refused = map(int, done.stdout.split())
    assert calls > 500
    assert failed > calls
    assert refused > calls


EDGES = """
import threading
import fastsync as f

def everything():
    sizes = 1, 7, 64, 1000
    arrays = [f.AtomicArray(name, size) for name in ("int8", "float64") for size in sizes]
    return [f.Counter() for _ in range(8)], arrays, [f.ShardedLock(0) for _ in range(8)]

def use(counters, arrays, locks):
    # Up to the last byte of each, and the last cell and shard: threads are numbered as they come.
    for counter in counters:
        counter.add(-1)
    for array in arrays:
        array.fill(-1)
        array.add_at(range(len(array)), 1)
        array.max_at([-1] * 10000, 5)
    for lock in locks:
        with lock.reader: pass
        lock.read().unlock()
        lock.write().unlock()

things = everything()
for _ in range(3):
    thread = threading.Thread(target=use, args=things)
    thread.start()
    thread.join(50)
held = threading.Barrier(130)
def hold():
    held.wait(50)  # all at once, so that no two have a number
    for counter in things[0]:
        counter.increment()
threads = [threading.Thread(target=hold) for _ in range(130)]
for thread in threads: thread.start()
for thread in threads: thread.join(50)
assert all(counter.value() == 130 - 3 for counter in things[0])
del things
print("good")
"""


def test_nothing_is_written_past_the_end():
    """Python's debug allocator looks at what is behind, when memory is freed."""
    environment = {**os.environ, "PYTHONMALLOC": "debug"}
    assert run_python("-c", EDGES, env=environment).stdout == "good\n"
