"""Queues: what the module `queue` guarantees, asserted of both, and what only ours do."""

import contextlib
import faulthandler
import functools
import gc
import heapq
import itertools
import os
import queue as stock
import random
import signal
import subprocess
import sys
import threading
import time
import types
import weakref

import pytest
from conftest import background, run_threads, wait_asleep, wait_until

import fastsync.queue as fs
from fastsync.raw.parking import parked_total

NAMES = ["Queue", "LifoQueue", "PriorityQueue"]
SHUTS = hasattr(stock, "ShutDown")
IMPLS = [pytest.param(stock, id="stock"), pytest.param(fs, id="fastsync")]


@pytest.fixture(params=IMPLS)
def module(request):
    return request.param


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def make(module, name):
    return getattr(module, name)


@pytest.fixture(params=[*NAMES, "SimpleQueue"])
def ours(request):
    """Each of our types."""
    return getattr(fs, request.param)


def drain(queue):
    items = []
    while not queue.empty():
        items.append(queue.get())
    return items


def order(name, items):
    if name == "PriorityQueue":
        return sorted(items)
    return items[::-1] if name == "LifoQueue" else list(items)


# -- the contract: the original and ours ---------------------------------------


def test_public_names():
    assert set(fs.__all__) >= set(stock.__all__)
    for shared in ("Empty", "Full", *(["ShutDown"] if SHUTS else [])):
        assert getattr(fs, shared) is getattr(stock, shared)


def test_items_come_out_in_order(make, name):
    queue = make()
    items = random.Random(1).sample(range(1000), 300)
    for item in items:
        assert queue.put(item) is None
    assert queue.qsize() == 300
    assert drain(queue) == order(name, items)


def test_priority_queue_orders_equal_items_as_heapq_does():
    class Item:
        def __init__(self, key, serial):
            self.key, self.serial = key, serial

        def __lt__(self, other):
            return self.key < other.key

    def serials(queue, wrap):
        rng, got = random.Random(5), []
        for serial in range(600):
            if rng.random() < 0.6:
                queue.put(wrap(rng.randrange(6), serial))
            elif not queue.empty():
                got.append(queue.get())
        return got + drain(queue)

    keys = [item.serial for item in serials(stock.PriorityQueue(), Item)]
    assert [item.serial for item in serials(fs.PriorityQueue(), Item)] == keys
    # Natively compared: floats that are equal to ints, told apart by their type.
    for wrap in (
        lambda key, serial: float(key) if serial % 2 else key,
        lambda key, serial: (key, str(serial % 3)),
        lambda key, serial: (key, serial % 2 == 0, float("nan")),
    ):
        theirs, mine = serials(stock.PriorityQueue(), wrap), serials(fs.PriorityQueue(), wrap)
        assert [repr(item) for item in mine] == [repr(item) for item in theirs]


@pytest.mark.parametrize("locked", [True, False])
def test_waiters_of_the_conditions_are_those_that_waited_before(make, locked):
    """A program that looks at them for the first time while threads wait already.

    Without the mutex it may look while a thread is on its way from one wait to the other.
    """

    def check(condition, count):
        if locked:
            assert len(condition._waiters) == count
        else:
            wait_until(lambda: len(condition._waiters) == count)

    empty, full, got = make(), make(1), []
    full.put(1)
    held = contextlib.nullcontext
    waits = [lambda: got.append(empty.get())] * 3 + [lambda: full.put(2)] * 2 + [full.join]
    with background(*waits) as threads:
        wait_asleep(*threads)
        with empty.mutex if locked else held(), full.mutex if locked else held():
            check(empty.not_empty, 3)
            check(full.not_full, 2)
            check(full.all_tasks_done, 1)
        for _ in range(3):
            empty.put(1)
            full.get()
            full.task_done()
    assert got == [1, 1, 1]
    for condition in (empty.not_empty, full.not_full, full.all_tasks_done):
        assert not condition._waiters


def test_queue_over_the_parts_of_another(module):
    class Both(module.Queue):
        """Gives items of two queues, and is told of those of the other."""

        def __init__(self, other):
            self.other = other
            self.maxsize = self.unfinished_tasks = 0
            self.is_shutdown = False
            self._init(0)
            self.mutex = other.mutex
            self.not_empty, self.not_full = other.not_empty, other.not_full
            self.all_tasks_done = threading.Condition(self.mutex)

        def _qsize(self):
            return len(self.queue) + self.other._qsize()

        def _get(self):
            return self.queue.popleft() if self.queue else self.other._get()

    other = module.Queue()
    both = Both(other)
    other.put("theirs")
    both.put("own")
    assert both.qsize() == 2
    assert [both.get(), both.get()] == ["own", "theirs"] and other.empty()
    got = []
    with background(lambda: got.append(both.get())) as threads:
        wait_asleep(*threads)
        other.put("late")
    assert got == ["late"]


def test_nowait_calls_the_put_and_get_of_a_patch(make, monkeypatch):
    queue = make()
    queue.put(1)
    with monkeypatch.context() as patch:
        calls = []
        patch.setattr(queue, "put", lambda *args, **named: calls.append((args, named)))
        patch.setattr(queue, "get", lambda *args, **named: (args, named))
        queue.put_nowait(2)
        assert calls == [((2,), {"block": False})]
        assert queue.get_nowait() == ((), {"block": False})
    assert queue.get_nowait() == 1
    queue.put_nowait(3)
    assert queue.get_nowait() == 3


PATCHED = """
import sys
from unittest import mock
if sys.argv[2] == "fastsync":
    import fastsync.queue as module
else:
    import queue as module
kind = getattr(module, sys.argv[1])
queue = kind()
for base in kind.__mro__[:-1][:2]:
    if "put" not in vars(base):
        continue
    with mock.patch.object(base, "put") as put, mock.patch.object(base, "get") as get:
        queue.put_nowait(1)
        assert put.call_args == mock.call(1, block=False)
        assert queue.get_nowait() is get.return_value
    queue.put_nowait(2)
    assert queue.get_nowait() == 2
"""


@pytest.mark.parametrize("side", ["stock", "fastsync"])
def test_nowait_calls_the_put_and_get_of_a_patched_class(name, side, run_python):
    run_python("-c", PATCHED, name, side)


def test_limit_is_kept_and_can_change(make):
    queue = make(2)
    assert queue.maxsize == 2
    queue.put(1)
    assert not queue.full() and not queue.empty()
    queue.put(2)
    assert queue.full()
    for call in (lambda: queue.put(3, False), lambda: queue.put_nowait(3),
                 lambda: queue.put(3, timeout=0), lambda: queue.put(3, timeout=0.001)):  # fmt: skip
        with pytest.raises(stock.Full):
            call()
    queue.maxsize = 3
    queue.put_nowait(3)
    queue.maxsize = 1
    for _ in range(2):
        queue.get()
        with pytest.raises(stock.Full):
            queue.put_nowait(4)
    queue.get()
    queue.put_nowait(5)
    assert queue.qsize() == 1 and queue.full()


@pytest.mark.parametrize("limit", [0, -1, -(2**70), 2**70, 1e300, float("inf"), False, -0.5])
def test_no_limit(make, limit):
    queue = make(limit)
    for i in range(100):
        queue.put_nowait(i)
    assert queue.maxsize == limit and not queue.full()


@pytest.mark.parametrize(("limit", "room"), [(1, 1), (True, 1), (2.5, 3), (2.0, 2)])
def test_odd_limits(make, limit, room):
    queue = make(limit)
    for i in range(room):
        assert not queue.full()
        queue.put_nowait(i)
    assert queue.full()
    with pytest.raises(stock.Full):
        queue.put_nowait(0)


@pytest.mark.parametrize("limit", ["5", None, [], object()])
def test_limit_that_is_no_number_fails_where_it_is_used(make, limit):
    queue = make(limit)
    for call in (lambda: queue.put(1), queue.full):
        with pytest.raises(TypeError):
            call()
    assert queue.qsize() == 0


def test_limit_that_compares_itself(make):
    class Two:
        def __gt__(self, other):
            return 2 > other

        def __le__(self, other):
            return 2 <= other

    queue = make(Two())
    queue.put(1)
    queue.put(1)
    assert queue.full()
    with pytest.raises(stock.Full):
        queue.put_nowait(1)


def test_empty_queue_raises_empty(make):
    queue = make()
    for call in (lambda: queue.get(False), queue.get_nowait,
                 lambda: queue.get(timeout=0), lambda: queue.get(timeout=0.001)):  # fmt: skip
        with pytest.raises(stock.Empty):
            call()


def test_bad_timeouts(make):
    message = "'timeout' must be a non-negative number"
    queue = make(1)
    queue.put(1)
    for bad, error in ((-1, ValueError), (-0.5, ValueError), ("1", TypeError)):
        for call in (lambda: queue.put(1, timeout=bad), lambda: queue.get(timeout=bad)):  # noqa: B023
            with pytest.raises(error) as caught:
                call()
            if error is ValueError:
                assert str(caught.value) == message
        assert queue.qsize() == 1
        # Not looked at.
        with pytest.raises(stock.Full):
            queue.put(1, False, bad)
        make().put(1, timeout=bad)
        assert queue.get(False, bad) == 1
        queue.put(1)


def test_wrong_calls(make):
    queue = make()
    for call in (
        queue.put,
        lambda: queue.get(1, 2, 3),
        lambda: queue.put(1, wait=2),
        lambda: make(1, 2),
        lambda: queue.task_done(1),
        lambda: queue.qsize(1),
    ):
        with pytest.raises(TypeError):
            call()


def test_tasks_are_counted(make):
    queue = make()
    with pytest.raises(ValueError, match=r"task_done\(\) called too many times"):
        queue.task_done()
    queue.join()
    queue.put(1)
    queue.put(2)
    queue.get()
    assert queue.unfinished_tasks == 2
    with background(queue.join) as threads:
        wait_asleep(*threads)
        queue.task_done()
        assert threads[0].is_alive()
        queue.task_done()
    with pytest.raises(ValueError, match=r"task_done\(\) called too many times"):
        queue.task_done()
    assert queue.unfinished_tasks == 0


def test_get_waits_for_a_put_and_put_for_a_get(make):
    queue = make(1)
    got = []
    with background(lambda: got.append(queue.get())) as threads:
        wait_asleep(*threads)
        queue.put("a")
    assert got == ["a"]
    queue.put("b")
    with background(lambda: queue.put("c")) as threads:
        wait_asleep(*threads)
        assert queue.get() == "b"
    assert queue.get() == "c" and queue.unfinished_tasks == 3


@pytest.mark.skipif(not SHUTS, reason="the original has it from 3.13 on")
def test_shutdown_of_the_original():
    for impl in (stock, fs):
        check_shutdown(impl)


def test_shutdown():
    check_shutdown(fs)


def check_shutdown(impl):
    for name in NAMES:
        queue = getattr(impl, name)(2)
        assert queue.is_shutdown is False
        queue.put(1)
        queue.put(2)
        results = []

        def put(queue=queue, results=results):
            with pytest.raises(impl.ShutDown):
                queue.put(3)
            results.append("put")

        with background(put, put) as threads:
            wait_asleep(*threads)
            queue.shutdown()
        assert results == ["put"] * 2 and queue.is_shutdown is True
        for call in (lambda q=queue: q.put(3), lambda q=queue: q.put_nowait(3),
                     lambda q=queue: q.put(3, timeout=-1)):  # fmt: skip
            with pytest.raises(impl.ShutDown):
                call()
        assert sorted(drain(queue)) == [1, 2]
        for call in (queue.get, queue.get_nowait, lambda q=queue: q.get(timeout=5),
                     lambda q=queue: q.get(timeout=-1)):  # fmt: skip
            with pytest.raises(impl.ShutDown):
                call()
        queue.task_done()
        queue.task_done()
        queue.join()
        empty = getattr(impl, name)()

        def get(queue=empty, results=results):
            with pytest.raises(impl.ShutDown):
                queue.get()
            results.append("get")

        with background(get, get) as threads:
            wait_asleep(*threads)
            empty.shutdown()
        assert results[2:] == ["get"] * 2


@pytest.mark.skipif(not SHUTS, reason="the original has it from 3.13 on")
def test_immediate_shutdown_drops_items_and_counts_them_as_done(make):
    queue = make()
    for i in range(3):
        queue.put(i)
    queue.get()
    with background(queue.join) as threads:
        wait_asleep(*threads)
        queue.shutdown(immediate=True)
        assert queue.qsize() == 0 and queue.unfinished_tasks == 1
        queue.task_done()
    with pytest.raises(fs.ShutDown):
        queue.get()
    queue.shutdown()
    queue.shutdown(True)


def test_objects_are_as_those_of_the_original(make, name):
    queue = make()
    queue.attribute = 5
    assert queue.attribute == 5 and vars(queue)["attribute"] == 5
    del queue.attribute
    assert weakref.ref(queue)() is queue
    assert repr(queue).startswith(f"<queue.{name} object at 0x")
    assert (make.__module__, make.__qualname__) == ("queue", name)
    assert make[int] == types.GenericAlias(make, int) and make[int](3).maxsize == 3
    assert len({queue, make()}) == 2
    with pytest.raises(TypeError, match="cannot pickle"):
        __import__("pickle").dumps(queue)
    make.added = 1
    assert queue.added == 1
    del make.added


def test_class_hierarchy(module):
    assert issubclass(module.PriorityQueue, module.Queue)
    assert issubclass(module.LifoQueue, module.Queue)
    assert not issubclass(module.SimpleQueue, module.Queue)


def test_simple_queue(module):
    queue = module.SimpleQueue()
    queue.put(1)
    queue.put(2, False, -1)
    queue.put_nowait(3)
    assert (queue.qsize(), queue.empty()) == (3, False)
    assert [queue.get(), queue.get(True, 5), queue.get_nowait()] == [1, 2, 3]
    for call in (lambda: queue.get(False), queue.get_nowait, lambda: queue.get(timeout=0.001)):
        with pytest.raises(stock.Empty):
            call()
    queue.put(1)
    with pytest.raises(ValueError, match="'timeout' must be a non-negative number"):
        queue.get(timeout=-1)
    with pytest.raises(ValueError, match="NaN"):
        queue.get(timeout=float("nan"))
    with pytest.raises(TypeError):
        queue.get(timeout="1")
    with pytest.raises(TypeError):
        module.SimpleQueue(1)
    with pytest.raises(TypeError, match=r"cannot pickle '_queue.SimpleQueue' object"):
        __import__("pickle").dumps(queue)
    assert weakref.ref(queue)() is queue
    assert repr(queue).startswith("<_queue.SimpleQueue object at 0x")
    assert module.SimpleQueue[int] == types.GenericAlias(module.SimpleQueue, int)
    with pytest.raises(AttributeError):
        queue.attribute = 1
    with pytest.raises(TypeError):
        module.SimpleQueue.attribute = 1


# -- reaching into a queue --------------------------------------------------------


def test_items_can_be_changed_under_the_mutex(make, name):
    queue = make()
    for i in (3, 1, 2):
        queue.put(i)
    with queue.mutex:
        assert sorted(queue.queue) == [1, 2, 3] and len(queue.queue) == 3
        queue.queue.clear()
        queue.unfinished_tasks = 0
        queue.all_tasks_done.notify_all()
        queue.not_full.notify_all()
    assert queue.empty()
    queue.join()
    queue.put(4)
    assert queue.get() == 4


def test_item_put_by_hand_reaches_a_getter(make):
    queue = make()
    got = []
    with background(lambda: got.append(queue.get())) as threads:
        wait_asleep(*threads)
        with queue.not_empty:
            queue.queue.append(7)
            queue.not_empty.notify()
    assert got == [7]


def test_mutex_keeps_all_calls_out(make):
    queue = make(5)
    queue.put(1)
    calls = [lambda: queue.put(2), queue.get, queue.qsize, queue.empty, queue.full,
             queue.task_done, lambda: queue.put_nowait(3)]  # fmt: skip
    with queue.mutex, background(*calls) as threads:
        wait_asleep(*threads)
        assert list(queue.queue) == [1]
        queue.mutex.release()
        for thread in threads:
            thread.join(20)
        queue.mutex.acquire()


def test_join_with_a_timeout_by_hand(make):
    queue = make()
    queue.put(1)
    with queue.all_tasks_done:
        assert not queue.all_tasks_done.wait_for(lambda: not queue.unfinished_tasks, 0.01)
    done = []

    def join():
        with queue.all_tasks_done:
            done.append(queue.all_tasks_done.wait_for(lambda: not queue.unfinished_tasks, 20))

    with background(join) as threads:
        wait_asleep(*threads)
        queue.task_done()
    assert done == [True]


def test_opening_forgets_no_waiter(name):
    for block in ("get", "put", "join"):
        queue = getattr(fs, name)(1)
        if block != "get":
            queue.put(1)
        call = {"get": queue.get, "put": lambda q=queue: q.put(2), "join": queue.join}[block]
        with background(call, call) as threads:
            wait_asleep(*threads)
            assert queue.mutex is queue.mutex
            if block == "get":
                queue.put(1)
                queue.put(2)
            elif block == "put":
                queue.get()
                queue.get()
            else:
                queue.task_done()


def test_opened_while_others_use_it(name):
    for _ in range(10):
        queue = getattr(fs, name)(8)
        got = []

        def put(queue=queue):
            for i in range(500):
                queue.put(i)

        def get(queue=queue, got=got):
            for _ in range(500):
                got.append(queue.get())
                queue.task_done()

        run_threads([put, put, get, get, lambda queue=queue: queue.mutex,
                     lambda queue=queue: len(queue.queue)])  # fmt: skip
        assert sorted(got) == sorted([*range(500)] * 2)
        queue.join()


@pytest.mark.parametrize("when", [0, 8, 100])
@pytest.mark.parametrize("open_it", ["mutex", "queue"])
def test_opened_among_puts_and_gets(name, open_it, when):
    """Each item comes once, whether the ring gives it or the container."""
    queue = getattr(fs, name)(8)
    got, opened = [], []

    def put(first):
        for i in range(first, first + 500):
            queue.put(i)

    def get():
        got.extend([queue.get() for _ in range(500)])

    def open_it_then():
        while queue.unfinished_tasks < when:
            pass
        opened.append(getattr(queue, open_it))

    run_threads([lambda: put(0), lambda: put(500), get, get, open_it_then])
    assert sorted(got) == list(range(1000))
    assert opened[0] is getattr(queue, open_it) and not queue.queue and not queue.mutex.locked()
    assert queue.unfinished_tasks == 1000


def test_who_looks_while_it_is_opened_sees_all_items(name):
    for _ in range(30):
        queues = [getattr(fs, name)() for _ in range(20)]
        for queue in queues:
            queue.put_many(range(100))
        barrier = threading.Barrier(3)

        def look(queues=queues, barrier=barrier):
            barrier.wait(30)
            for queue in queues:
                assert len(queue.queue) == 100

        run_threads([look] * 3)


def test_reading_the_counts_does_not_open():
    queue = fs.Queue(3)
    before = sys.getsizeof(queue)
    assert (queue.maxsize, queue.unfinished_tasks, queue.is_shutdown) == (3, 0, False)
    queue.put(1)
    assert sys.getsizeof(queue) == before + 64  # its ring


# -- subclasses ---------------------------------------------------------------------


def test_hooks_are_called_under_the_mutex(module):
    calls = []

    class Set(module.Queue):
        def _init(self, maxsize):
            calls.append(("init", maxsize, hasattr(self, "queue")))
            self.queue = set()

        def _qsize(self):
            assert self.mutex.locked()
            return len(self.queue)

        def _put(self, item):
            assert self.mutex.locked()
            self.queue.add(item)

        def _get(self):
            assert self.mutex.locked()
            return self.queue.pop()

    queue = Set(3)
    assert calls == [("init", 3, False)]
    for item in (1, 1, 2, 3):
        queue.put(item)
    assert queue.full() and queue.unfinished_tasks == 4 and queue.qsize() == 3
    assert sorted(drain(queue)) == [1, 2, 3]
    assert not queue.mutex.locked()


def test_hook_that_raises_leaves_the_queue_as_it_was(module):
    class Failing(module.Queue):
        fail = False

        def _put(self, item):
            if self.fail:
                raise KeyError
            super()._put(item)

        def _get(self):
            if self.fail:
                raise KeyError
            return super()._get()

    queue = Failing(2)
    queue.put(1)
    queue.fail = True
    for call in (lambda: queue.put(2), queue.get, lambda: queue.put_nowait(2)):
        with pytest.raises(KeyError):
            call()
    queue.fail = False
    assert queue.unfinished_tasks == 1 and queue.get() == 1 and not queue.mutex.locked()


def test_subclass_with_a_put_of_its_own(module):
    class Loud(module.Queue):
        def __init__(self):
            super().__init__(2)
            self.heard = []

        def put(self, item, block=True, timeout=None):
            self.heard.append((item, block))
            super().put(item, block, timeout)

        def get(self, block=True, timeout=None):
            self.heard.append(("get", block))
            return super().get(block, timeout)

    queue = Loud()
    queue.put_nowait(1)
    assert queue.get_nowait() == 1
    assert queue.heard == [(1, False), ("get", False)]
    assert queue.__dict__["heard"] and queue.maxsize == 2


def test_hook_set_on_the_instance(module):
    queue = module.Queue()
    queue.put(1)
    queue._get = lambda: 5
    assert queue.get() == 5 and queue.qsize() == 1


def test_method_of_a_base_called_by_hand(make, name):
    queue = make()
    queue.put(2)
    with queue.mutex:
        queue._put(1)
        assert queue._qsize() == 2
        assert queue._get() == order(name, [2, 1])[0]
    assert queue.qsize() == 1


# -- what only ours do: batches, iteration, order ---------------------------------


def test_batches(ours):
    queue = ours()
    items = random.Random(3).sample(range(1000), 200)
    assert queue.put_many(iter(items)) is None
    assert queue.qsize() == 200
    got = queue.get_many(50)
    got += queue.get_many(1000)
    assert got == order(ours.__name__, items)
    with pytest.raises(stock.Empty):
        queue.get_many(5, 0)
    with pytest.raises(stock.Empty):
        queue.get_many(5, timeout=0.001)
    for bad, error in ((0, ValueError), (-1, ValueError), ("1", TypeError), (2**70, OverflowError)):
        with pytest.raises(error):
            queue.get_many(bad)
    queue.put_many([])
    with pytest.raises(TypeError):
        queue.put_many(5)
    got = []
    with background(lambda: got.extend(queue.get_many(10))) as threads:
        wait_asleep(*threads)
        queue.put_many([1])
    assert got == [1]


def test_batch_waits_for_room_and_hands_back_what_found_none(name):
    queue = getattr(fs, name)(4)
    got = []
    with background(lambda: queue.put_many(range(20))):
        while len(got) < 20:
            got += queue.get_many(3)
    assert sorted(got) == [*range(20)]
    with pytest.raises(stock.Full) as caught:
        queue.put_many(range(6), timeout=0.001)
    assert caught.value.items == [4, 5] and queue.qsize() == 4
    queue.shutdown()
    with pytest.raises(fs.ShutDown) as caught:
        queue.put_many([7, 8])
    assert caught.value.items == [7, 8]
    assert len(queue.get_many(10)) == 4
    with pytest.raises(fs.ShutDown):
        queue.get_many(1)


def test_batches_of_an_opened_queue(name):
    queue = getattr(fs, name)(3)
    assert queue.mutex
    queue.put_many([1, 2, 3])
    at_once = 1 if name == "PriorityQueue" else 2
    got = queue.get_many(2)
    assert got == order(name, [1, 2, 3])[:at_once]
    with background(lambda: queue.put_many([4, 5, 6])) as threads:
        wait_asleep(*threads)
        while len(got) < 6:
            got += queue.get_many(9)
    assert sorted(got) == [*range(1, 7)]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("call", ["get", "get_many"])
def test_exception_in_a_comparison_loses_no_item_and_is_not_lost(call, opened, error):
    """As a signal handler's does, which may run in any comparison."""
    countdown = 0

    @functools.total_ordering
    class Item:
        def __init__(self, value):
            self.value = value

        def __eq__(self, other):
            return self.value == other.value

        def __lt__(self, other):
            nonlocal countdown
            countdown -= 1
            if countdown == 0:
                raise error("handler")
            return self.value < other.value

    for at in range(1, 40):
        countdown = 0
        queue = fs.PriorityQueue()
        for value in random.Random(at).sample(range(9), 9):
            queue.put(Item(value))
        if opened:
            assert queue.mutex
        got, raised = [], 0
        countdown = at
        while queue.qsize():
            try:
                got += queue.get_many(9) if call == "get_many" else [queue.get()]
            except error:
                raised += 1
        assert raised == (countdown <= 0)
        assert [item.value for item in got] == [*range(9)]


@pytest.mark.parametrize("at", range(1, 7))
def test_exception_in_a_subclass_loses_no_item_of_a_batch(at):
    calls = 0

    class Fails(fs.Queue):
        def _get(self):
            nonlocal calls
            calls += 1
            if calls == at:
                raise KeyboardInterrupt
            return super()._get()

    queue = Fails()
    queue.put_many(range(6))
    got = []
    while queue.qsize():
        try:
            got += queue.get_many(4)
        except KeyboardInterrupt:
            assert calls == at
    assert got == [*range(6)] and calls == 7


def test_iteration_ends_with_the_queue(name):
    queue = getattr(fs, name)()
    got = []
    with background(lambda: got.extend(queue)) as threads:
        for i in range(10):
            queue.put(i)
        wait_asleep(*threads)
        queue.shutdown()
    assert sorted(got) == [*range(10)]


def test_getters_are_served_in_order(ours):
    queue, got, lock = ours(), {}, threading.Lock()

    def get(i):
        item = queue.get()
        with lock:
            got[i] = item

    threads = []
    for i in range(8):
        threads.append(threading.Thread(target=get, args=[i], daemon=True))
        threads[-1].start()
        wait_asleep(threads[-1])
    for i in range(8):
        queue.put(i)
    for thread in threads:
        thread.join(30)
    assert got == {i: i for i in range(8)}


def test_putters_are_served_in_order():
    queue = fs.Queue(1)
    queue.put("first")
    threads = []
    for i in range(8):
        threads.append(threading.Thread(target=queue.put, args=[i], daemon=True))
        threads[-1].start()
        wait_asleep(threads[-1])
    assert [queue.get() for _ in range(9)] == ["first", *range(8)]
    for thread in threads:
        thread.join(30)


def test_raised_limit_lets_putters_in(name):
    queue = getattr(fs, name)(1)
    queue.put(0)
    with background(*[lambda i=i: queue.put(i) for i in (1, 2, 3)]) as threads:
        wait_asleep(*threads)
        queue.maxsize = 4
    assert sorted(drain(queue)) == [0, 1, 2, 3]


def test_newcomer_does_not_overtake():
    queue, got = fs.Queue(), []
    with background(lambda: got.append(queue.get())) as threads:
        wait_asleep(*threads)
        queue.put(1)
        with pytest.raises(stock.Empty):
            queue.get_nowait()
    assert got == [1]


# -- memory ---------------------------------------------------------------------------


def test_empty_queue_is_small(ours):
    assert sys.getsizeof(ours()) <= 160


def test_memory_is_given_back(ours):
    queue = ours()
    for i in range(100_000):
        queue.put(i)
    full = sys.getsizeof(queue)
    assert full >= 800_000
    while queue.qsize() > 10:
        queue.get()
    assert sys.getsizeof(queue) < full // 500


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("answer", [False, True])
def test_comparison_may_take_items_amid_a_put_or_get(opened, answer):
    class Item:
        takes = 0  # items that the next comparison takes

        def __init__(self, key):
            self.key = key

        def __lt__(self, other):
            takes, Item.takes = Item.takes, 0
            for _ in range(takes):
                got.append(queue.get_nowait().key)
            return answer if takes else self.key < other.key

    for takes in 1, 2, 5:
        queue, got = fs.PriorityQueue(), []
        if opened:
            queue.queue  # noqa: B018
        for key in range(6):
            queue.put(Item(key))
        Item.takes = takes
        queue.put(Item(9))
        Item.takes = min(takes, queue.qsize() - 1)
        got += [item.key for item in iter_items(queue)]
        assert sorted(got) == [0, 1, 2, 3, 4, 5, 9]


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("size", range(2, 8))
def test_comparison_of_a_get_may_leave_any_number_of_items(opened, size):
    class Item:
        takes = 0  # items that the next comparison takes

        def __init__(self, key):
            self.key = key

        def __lt__(self, other):
            takes, Item.takes = Item.takes, 0
            for _ in range(takes):
                got.append(queue.get_nowait().key)
            return self.key < other.key

    for takes in range(1, size + 1):
        queue, got = fs.PriorityQueue(), []
        if opened:
            queue.queue  # noqa: B018
        for key in range(size):
            queue.put(Item(key))
        Item.takes = takes
        try:
            got += [item.key for item in iter_items(queue)]
        except stock.Empty:
            pass  # of the get() in the comparison
        got += [item.key for item in iter_items(queue)]
        assert sorted(got) == [*range(size)]


def iter_items(queue):
    while queue.qsize():
        try:
            yield queue.get_nowait()
        except stock.Empty:
            return


def test_comparison_that_raises_amid_a_batch_loses_nothing():
    class Item:
        left = 10**9  # comparisons before one raises

        def __init__(self, key):
            self.key = key

        def __lt__(self, other):
            Item.left -= 1
            if Item.left < 0:
                raise ZeroDivisionError
            return self.key < other.key

    queue, got = fs.PriorityQueue(), []
    for key in range(40):
        queue.put(Item(key))
    while len(got) < 40:
        Item.left = 30
        got += queue.get_many(1000)
    assert [item.key for item in got] == list(range(40))


def test_items_die_when_they_are_gone(ours):
    class Item:
        def __lt__(self, other):
            return False

    queue = ours()
    for _ in range(20):
        queue.put(Item())
    for _ in range(20):
        reference = weakref.ref(queue.get())
        gc.collect()
        assert reference() is None


def test_references_stay_level(ours):
    item = ours

    def use():
        queue = ours()
        queue.put((1, item)), queue.put((2, item)), queue.get(), queue.put_many([(3, item)])
        queue.get_many(1)
        for call in (
            lambda: queue.get_many("x"),
            lambda: queue.get(timeout="x"),
            lambda: queue.put_many(4),
            lambda: queue.get(False) and queue.get(False),
        ):
            with pytest.raises((TypeError, stock.Empty)):
                call()
        queue.put((4, item))

    use()
    gc.collect()
    before = sys.getrefcount(item)
    for _ in range(100):
        use()
    gc.collect()
    assert abs(sys.getrefcount(item) - before) < 10


@pytest.mark.parametrize("opened", [False, True])
def test_collector_sees_the_items(ours, opened):
    class Item:
        def __init__(self, queue):
            self.queue = queue

        def __lt__(self, other):
            return False

    for count in (1, 5, 100):
        queue = ours()
        if opened and ours is not fs.SimpleQueue:
            assert queue.mutex
        for _ in range(count):
            queue.put(Item(queue))
        queue.get()
        queue.put(Item(queue))
        reference = weakref.ref(queue)
        del queue
        gc.collect()
        assert reference() is None


def test_collector_sees_the_attributes():
    class Mine(fs.Queue):
        pass

    for kind in (fs.Queue, Mine):
        queue = kind()
        queue.itself = queue
        reference = weakref.ref(queue)
        del queue
        gc.collect()
        assert reference() is None


def test_items_of_a_collected_queue_may_use_it_again(ours):
    calls = []

    class Item:
        def __init__(self, queue):
            self.queue = queue

        def __lt__(self, other):
            return False

        def __del__(self):
            self.queue.put(Late())
            calls.append(self.queue.qsize() >= 1)

    class Late:
        def __lt__(self, other):
            return True

    queue = ours()
    for _ in range(3):
        queue.put(Item(queue))
    del queue
    gc.collect()
    assert calls == [True] * 3


def test_long_chains_are_freed(run_python):
    run = """
import sys, fastsync.queue as queue
class Mine(queue.Queue): pass
for kind in (queue.SimpleQueue, queue.Queue, queue.LifoQueue, queue.PriorityQueue, Mine):
    outer = None
    for _ in range(300_000):
        inner, outer = outer, kind()
        outer.put(inner)
    inner = None
    outer = None
print("freed")
"""
    assert run_python("-P", "-c", run, timeout=120).stdout == "freed\n"


# -- calls from within calls --------------------------------------------------------------


def test_put_from_a_finalizer_that_a_collection_runs(ours):
    queue, serial, results = ours(), itertools.count(), []

    class Circular:
        def __init__(self):
            self.circular = self

        def __del__(self):
            queue.put(next(serial))

    while not results or len(results) < 3000:
        circular = Circular()
        queue.put(next(serial))
        del circular
        results.append(queue.get())
    while not queue.empty():
        results.append(queue.get())
    gc.collect()
    results += drain(queue)
    assert sorted(results) == [*range(len(results))]


def test_put_from_the_finalizer_of_a_dropped_item(name):
    queue = getattr(fs, name)()

    class Item:
        def __lt__(self, other):
            return False

        def __del__(self):
            try:
                queue.put(0)
            except fs.ShutDown:
                seen.append(queue.qsize())

    seen = []
    for _ in range(3):
        queue.put(Item())
    queue.shutdown(immediate=True)
    assert seen == [0] * 3


def test_put_from_a_weak_references_callback(ours):
    class Item:
        def __lt__(self, other):
            return True

    queue = ours()
    item = Item()
    watch = weakref.ref(item, lambda _: queue.put(1))
    queue.put(item)
    del item
    queue.get()
    assert queue.get(timeout=20) == 1 and watch() is None


def test_handler_uses_the_queue_that_is_waited_for(ours):
    """It puts and gets; then what the interrupted get waits for comes."""
    queue, log = ours(), []

    def handler(*_):
        queue.put("handler")
        log.append(queue.get(timeout=20))

    old = signal.signal(signal.SIGUSR1, handler)
    main = threading.main_thread()

    def other():
        for i in range(5):
            wait_asleep(main)
            signal.pthread_kill(main.ident, signal.SIGUSR1)
            wait_until(lambda i=i: len(log) > i)
        wait_asleep(main)
        queue.put("other")

    try:
        with background(other):
            assert queue.get() == "other"
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert log == ["handler"] * 5 and queue.empty()


def test_handler_makes_room_for_the_put_that_it_interrupts(name):
    queue, log = getattr(fs, name)(1), []
    queue.put(1)
    old = signal.signal(signal.SIGUSR1, lambda *_: log.append(queue.get()))
    main = threading.main_thread()

    def other():
        wait_asleep(main)
        signal.pthread_kill(main.ident, signal.SIGUSR1)

    try:
        with background(other):
            queue.put(2)
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert log == [1] and queue.get() == 2 and queue.unfinished_tasks == 2


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("call", ["get", "put", "join", "get_many", "put_many"])
def test_handler_that_raises_leaves_nothing_behind(name, call, opened):
    class Stop(Exception):
        pass

    def handler(*_):
        raise Stop

    queue = getattr(fs, name)(1)
    if opened:
        assert queue.mutex
    item = object()
    references = sys.getrefcount(item)
    if call.startswith(("put", "join")):
        queue.put(1)
    act = {"get": queue.get, "put": lambda: queue.put(item), "join": queue.join,
           "get_many": lambda: queue.get_many(3),
           "put_many": lambda: queue.put_many([item])}[call]  # fmt: skip
    before = parked_total()
    old = signal.signal(signal.SIGUSR1, handler)
    main = threading.main_thread()

    def other():
        wait_asleep(main)
        signal.pthread_kill(main.ident, signal.SIGUSR1)

    try:
        with background(other):
            with pytest.raises(Stop):
                act()
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert parked_total() == before
    assert sys.getrefcount(item) <= references + 1
    if not queue.empty():
        assert queue.get() == 1
        queue.task_done()
    queue.put(2)
    assert queue.get() == 2 and queue.qsize() == 0
    if opened:
        assert not queue.mutex.locked()


def test_storm_of_raising_handlers_loses_no_item(name):
    class Stop(Exception):
        pass

    def handler(_, frame):
        if frame.f_code is get.__code__:  # nowhere else: there is no `except` around the rest
            raise Stop

    queue, got = getattr(fs, name)(2), []
    main = threading.main_thread()
    old = signal.signal(signal.SIGUSR1, handler)
    done = threading.Event()

    def put():
        for i in range(400):
            queue.put(i)
        done.set()

    def shoot():
        while not done.is_set():
            signal.pthread_kill(main.ident, signal.SIGUSR1)
            time.sleep(0.0005)

    def get():
        while not done.is_set() or not queue.empty():
            got.append(queue.get(timeout=0.05))

    def keep_getting():
        while True:
            try:
                get()
                return
            except (Stop, stock.Empty):
                pass

    threads = [threading.Thread(target=f, daemon=True) for f in (put, shoot)]
    for thread in threads:
        thread.start()
    keep_getting()
    for thread in threads:
        thread.join(30)
    signal.signal(signal.SIGUSR1, old)
    while not queue.empty():
        got.append(queue.get())
    # A handler that raises between the return of get() and append() loses the item: that is
    # Python's doing.  Nothing comes twice, nothing is made up, and nothing is left behind.
    assert len(got) == len(set(got)) and set(got) <= set(range(400))
    assert queue.unfinished_tasks == 400


# -- items whose comparison is Python code -----------------------------------------------


class Key:
    """Compares as its number, and does something else before."""

    def __init__(self, number, act=None):
        self.number, self.act = number, act

    def __lt__(self, other):
        for act in (self.act, other.act):
            if act:
                act()
        return self.number < other.number


def numbers(queue):
    return [queue.get().number for _ in range(queue.qsize())]


@pytest.mark.parametrize("opened", [False, True])
def test_comparison_that_raises_changes_nothing(opened):
    queue, fail = fs.PriorityQueue(), []

    def act():
        if fail:
            raise KeyError

    rng = random.Random(7)
    keys = [rng.randrange(50) for _ in range(60)]
    for key in keys:
        queue.put(Key(key, act))
    if opened:
        assert queue.mutex
    fail.append(1)
    with pytest.raises(KeyError):
        queue.put(Key(-1))
    if not opened:  # the original's heappop() loses the item
        with pytest.raises(KeyError):
            queue.get()
    fail.clear()
    assert queue.unfinished_tasks == 60
    assert numbers(queue) == sorted(keys)


def test_comparison_that_uses_the_queue():
    queue, calls = fs.PriorityQueue(), []

    def act():
        if len(calls) < 40:
            calls.append(1)
            queue.put(Key(100 + len(calls)))
            if len(calls) % 3 == 0:
                got.append(queue.get().number)
            queue.qsize(), queue.unfinished_tasks

    got = []
    for i in range(30):
        queue.put(Key(i, act if i % 4 == 0 else None))
    got += numbers(queue)
    assert len(calls) == 40
    assert sorted(got) == sorted([*range(30), *range(101, 141)])


def test_comparison_that_waits_for_another_threads_call():
    """The others wait for their turn, and the heap is good when they have had it."""
    queue, gate, inside = fs.PriorityQueue(), threading.Event(), threading.Event()

    def act():
        inside.set()
        assert gate.wait(20)

    queue.put(Key(5))
    with background(lambda: queue.put(Key(1, act))) as first:
        assert inside.wait(20)
        with background(lambda: queue.put(Key(3)), lambda: queue.put(Key(2))) as others:
            wait_asleep(*others, *first)
            assert queue.qsize() == 1
            gate.set()
    gate.set()
    assert numbers(queue) == [1, 2, 3, 5]


def test_comparison_that_gets_from_the_emptied_queue_gives_its_turn_up():
    """Another thread's put must end that wait: it may not wait for the comparison."""
    queue, got = fs.PriorityQueue(), []
    once = []

    def act():
        if not once:
            once.append(1)
            got.append(queue.get().number)  # the one it is compared with
            got.append(queue.get().number)  # comes from the other thread

    queue.put(Key(5))
    with background(lambda: queue.put(Key(1, act))) as threads:
        wait_until(lambda: got == [5])
        wait_asleep(*threads)
        queue.put(Key(7))
    assert got == [5, 7] and numbers(queue) == [1]


def test_storm_of_compared_items():
    queue, got = fs.PriorityQueue(20), []

    def put(i):
        rng = random.Random(i)
        for _ in range(300):
            queue.put(Key(rng.randrange(1000)))

    def get(_):
        for _ in range(300):
            got.append(queue.get().number)

    run_threads([lambda i=i: put(i) for i in range(3)] + [lambda i=i: get(i) for i in range(3)])
    expected = []
    for i in range(3):
        rng = random.Random(i)
        expected += [rng.randrange(1000) for _ in range(300)]
    assert sorted(got) == sorted(expected) and queue.empty()


def test_heap_stays_a_heap_under_random_use():
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    for wrap in (int, float, str, lambda n: (n, "x"), Key, lambda n: (n % 5, Key(n))):
        queue, model = fs.PriorityQueue(), []
        for _ in range(400):
            if rng.random() < 0.55 or not model:
                number = rng.randrange(100)
                if wrap is not Key:
                    heapq.heappush(model, wrap(number) if wrap is not None else number)
                else:
                    heapq.heappush(model, Key(number))
                queue.put(wrap(number))
            else:
                theirs, mine = heapq.heappop(model), queue.get()
                assert not mine < theirs and not theirs < mine


# -- a queue that is opened, called from within itself -----------------------------------


def test_put_within_a_hook_is_deferred():
    class Nested(fs.Queue):
        nested = ()

        def _put(self, item):
            nested, self.nested = self.nested, ()
            for other in nested:
                self.put(other)
            super()._put(item)

        def _get(self):
            item = super()._get()
            if item == "get":
                self.put("within a get")
                item = ("get", self.qsize())
            return item

    queue = Nested()
    queue.nested = ["a", "b"]
    queue.put("c")
    assert drain(queue) == ["c", "a", "b"] and queue.unfinished_tasks == 3
    queue.put("get")
    assert queue.get() == ("get", 1) and queue.get() == "within a get"
    assert not queue.mutex.locked()


def test_calls_within_a_hook_that_would_wait_for_it_fail():
    errors = []

    class Nested(fs.Queue):
        def _put(self, item):
            if item == "outer":
                for call in (lambda: self.put(1), self.get, self.join):
                    try:
                        call()
                    except (stock.Full, stock.Empty, RuntimeError) as error:
                        errors.append(type(error))
            super()._put(item)

    queue = Nested(1)
    queue.unfinished_tasks = 1
    queue.put("outer")
    assert errors == [stock.Empty, RuntimeError] or errors == [RuntimeError]
    assert not queue.mutex.locked()


# -- forks, exits, odd calls ----------------------------------------------------------------

fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")

FORKS = """
import faulthandler, os, sys, threading, warnings
import fastsync.queue as fs
warnings.simplefilter("ignore")
ours, opened = getattr(fs, sys.argv[1]), sys.argv[2] == "True"
queue = ours() if ours is fs.SimpleQueue else ours(100)
waited = ours()
if opened and ours is not fs.SimpleQueue:
    queue.mutex
going = True

def use():
    while going:
        queue.put((1, 1))
        queue.get()

def check():
    count = queue.qsize()
    assert 1 <= count <= 3, count
    for _ in range(count):
        queue.get_nowait()
    waited.put((1, 2))
    assert waited.get_nowait() == (1, 2)
    got = []
    thread = threading.Thread(target=lambda: got.append(queue.get()))
    thread.start()
    queue.put((3, 3))
    thread.join()
    assert got == [(3, 3)]

queue.put((0, 0))
threads = [threading.Thread(target=use) for _ in range(2)]
threads += [threading.Thread(target=waited.get) for _ in range(2)]
for thread in threads:
    thread.start()
statuses = []
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            faulthandler.dump_traceback_later(20, exit=True)
            check()
            status = 0
        finally:
            os._exit(status)
    statuses.append(os.waitpid(pid, 0)[1])
going = False
waited.put_many([(1, 1)] * 2)
print(set(statuses))
"""


@fork
@pytest.mark.parametrize("opened", [False, True])
def test_childs_queue_works_and_has_the_items(ours, opened, run_python):
    assert run_python("-P", "-c", FORKS, ours.__name__, opened).stdout == "{0}\n"


@fork
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_handler_that_forks_within_a_get():
    queue, results = fs.Queue(), []
    main = threading.main_thread()

    def handler(*_):
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            queue.put("child")
            child.append(1)
        else:
            results.append(pid)

    child = []
    old = signal.signal(signal.SIGUSR1, handler)

    def other():
        wait_asleep(main)
        signal.pthread_kill(main.ident, signal.SIGUSR1)
        wait_until(lambda: results)
        queue.put("parent")

    try:
        thread = threading.Thread(target=other, daemon=True)
        thread.start()
        item = queue.get()
        if child:
            os._exit(0 if item == "child" else 3)
        thread.join(30)
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert item == "parent"
    assert os.waitpid(results[0], 0)[1] == 0


def test_daemon_threads_at_exit_do_no_harm(run_python):
    code = """
import threading, fastsync.queue as queue
for kind in (queue.Queue, queue.SimpleQueue, queue.PriorityQueue):
    q = kind()
    threading.Thread(target=q.get, daemon=True).start()
full = queue.Queue(1)
full.put(1)
threading.Thread(target=full.put, args=[2], daemon=True).start()
class Late:
    def __del__(self):
        q.put(5); print(q.qsize(), flush=True)
late = Late()
del late
print("end")
"""
    assert run_python("-P", "-c", code).stdout.splitlines()[-1] == "end"


def test_two_threads_in_init(name):
    queue = getattr(fs, name)()
    stop = threading.Event()

    def start(i):
        for n in range(300):
            queue.__init__(n % 3)

    def use(i):
        while not stop.is_set():
            try:
                queue.put_nowait(i)
                queue.get_nowait()
            except (stock.Full, stock.Empty):
                pass

    with background(lambda: use(1), lambda: use(2)):
        run_threads(start, 3)
        stop.set()
    queue.__init__(1)
    queue.put(5)
    assert queue.full() and queue.get() == 5


def test_second_init_empties(make):
    queue = make(1)
    queue.put(1)
    queue.__init__(3)
    assert (queue.qsize(), queue.unfinished_tasks, queue.maxsize) == (0, 0, 3)


def test_second_init_of_an_opened_queue(make):
    queue = make(1)
    queue.put(1)
    assert queue.mutex
    queue.__init__(3)
    assert queue.qsize() == 0 and list(queue.queue) == []
    queue.put(3)
    assert queue.get() == 3


NO_MEMORY = """
import sys
import _testcapi
import queue as stock
import fastsync.queue as fs

ours = getattr(fs, sys.argv[1])
simple = ours is fs.SimpleQueue


def calls(queue):
    yield lambda: queue.put(5)
    yield lambda: queue.get_nowait()
    yield lambda: queue.put_many([1, 2, 3])
    yield lambda: queue.get_many(5, 0)
    yield lambda: queue.put_many(range(100))
    yield lambda: [queue.get_nowait() for _ in range(20)]
    yield queue.qsize
    if not simple:
        yield lambda: queue.task_done()
        yield lambda: queue.mutex
        yield lambda: queue.put(7)
        yield lambda: queue.get_nowait()
        yield lambda: queue.shutdown(True)


for k in range(1, 41):
    queue = ours()
    for i in range(8):
        queue.put(i)
    for call in calls(queue):
        _testcapi.set_nomemory(k, k + 1)
        try:
            call()
        except (MemoryError, stock.Empty):
            pass
        finally:
            _testcapi.remove_mem_hooks()
    if not simple:
        queue.__init__()
    while not queue.empty():
        queue.get()
    queue.put(1)
    assert queue.get() == 1 and queue.empty()
print("good")
"""


def test_no_memory(ours, run_python):
    """In a process of its own: what else runs there may not stand it."""
    pytest.importorskip("_testcapi")
    assert run_python("-P", "-c", NO_MEMORY, ours.__name__).stdout == "good\n"


# -- storms -----------------------------------------------------------------------------------


def test_nothing_is_lost_or_doubled(ours):
    seed = random.randrange(2**32)
    print("seed", seed)
    each = 400
    for limit in (0, 1, 3):
        if ours is fs.SimpleQueue and limit:
            continue
        queue = ours(limit) if limit else ours()
        got = []

        def put(i, queue=queue, each=each):
            rng = random.Random(seed + i)
            serial = iter(range(each))
            for n in serial:
                how = rng.random()
                if how < 0.7:
                    queue.put((n, i))
                elif how < 0.8:
                    batch = [(n, i), *((m, i) for m in itertools.islice(serial, 5))]
                    queue.put_many(batch)
                else:
                    while True:
                        try:
                            queue.put((n, i), True, rng.random() * 0.001)
                            break
                        except stock.Full:
                            pass

        def get(i, queue=queue, got=got):
            rng = random.Random(seed - i)
            while True:
                how = rng.random()
                try:
                    if how < 0.6:
                        items = [queue.get()]
                    elif how < 0.8:
                        items = queue.get_many(4)
                    else:
                        items = [queue.get(True, rng.random() * 0.001)]
                except stock.Empty:
                    continue
                got.extend(item for item in items if item[1] >= 0)
                ends = [item for item in items if item[1] < 0]
                if ends:
                    queue.put_many(ends[1:])
                    return

        with background(*[lambda i=i: get(i) for i in range(3)]):
            run_threads(put, 3)
            wait_until(lambda: len(got) == 3 * each)  # noqa: B023
            queue.put_many([(0, -1)] * 3)
        assert sorted(got) == sorted((n, i) for i in range(3) for n in range(each))
        assert queue.empty()


def test_each_producers_items_stay_in_order():
    for queue in (fs.Queue(), fs.Queue(3), fs.SimpleQueue()):
        got = []

        def put(i, queue=queue):
            for n in range(2000):
                queue.put((i, n))

        def get(queue=queue, got=got):
            for _ in range(6000):
                got.append(queue.get())

        run_threads([get, *[lambda i=i: put(i) for i in range(3)]])
        for i in range(3):
            assert [n for who, n in got if who == i] == [*range(2000)]


def test_shutdown_amid_traffic_loses_nothing(name):
    for immediate in (False, True):
        for _ in range(20):
            queue = getattr(fs, name)(3)
            put, got = [], []

            def producer(i, queue=queue, put=put):
                for n in itertools.count():
                    try:
                        queue.put((n, i))
                    except fs.ShutDown:
                        return
                    put.append((n, i))

            def consumer(queue=queue, got=got):
                for item in queue:
                    got.append(item)
                    queue.task_done()

            with background(lambda: producer(1), lambda: producer(2), consumer, consumer):
                wait_until(lambda: len(got) > 20)  # noqa: B023
                queue.shutdown(immediate)
                queue.join()
            if immediate:
                assert set(got) <= set(put)
            else:
                assert sorted(got) == sorted(put)
            assert len(got) == len(set(got)) and queue.empty()


# -- CPython's own tests ------------------------------------------------------------------------


def test_cpythons_tests_pass_on_our_classes(run_python):
    if subprocess.run([sys.executable, "-c", "import test.test_queue"],
                      capture_output=True).returncode:  # fmt: skip
        pytest.skip("this Python comes without its tests")
    code = """
import unittest
import test.test_queue as tests
import fastsync.queue as ours
for module in (tests.py_queue, tests.c_queue):
    for name in ours.__all__:
        setattr(module, name, getattr(ours, name))
tests.py_queue._PySimpleQueue = ours.SimpleQueue
# Of the layout of the original's SimpleQueue.
hasattr(tests.CSimpleQueueTest, "test_simplequeue_sizeof") and delattr(
    tests.CSimpleQueueTest, "test_simplequeue_sizeof")
program = unittest.main(tests, argv=["test_queue"], exit=False)
assert program.result.testsRun > 50, program.result
raise SystemExit(not program.result.wasSuccessful())
"""
    faulthandler.cancel_dump_traceback_later()  # on a busy machine it takes longer than others
    run_python("-P", "-c", code, timeout=300)
