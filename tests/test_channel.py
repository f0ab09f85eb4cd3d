"""Channels and select(): the meaning of crossbeam's and Go's tests, and what Python adds to it."""

import collections
import functools
import gc
import itertools
import os
import pickle
import random
import signal
import threading
import time
import weakref

import pytest
from conftest import DEADLINE, background, run_threads, wait_asleep, wait_until

import fastsync.queue as queues
import fastsync.threading as fst
from fastsync.channel import (
    Receiver,
    RecvClosed,
    RecvEmpty,
    RecvError,
    RecvTimeout,
    SendClosed,
    Sender,
    SendError,
    SendFull,
    SendTimeout,
    after,
    bounded,
    never,
    select,
    tick,
    unbounded,
)
from fastsync.raw.parking import parked_total

# Name -> a channel of a capacity that is enough for `n` items in one thread, or None.
MAKERS = {"unbounded": unbounded, "100": lambda: bounded(100), "1": lambda: bounded(1)}
ALL = MAKERS | {"0": lambda: bounded(0)}


@pytest.fixture(params=list(ALL))
def pair(request):
    return ALL[request.param]()


@pytest.fixture(params=[0, 1, 3, None])
def capacity(request):
    return request.param


def make(capacity):
    return unbounded() if capacity is None else bounded(capacity)


# -- one thread: array.rs, list.rs, zero.rs ------------------------------------------------------


@pytest.mark.parametrize("capacity", [1, 2, 7, None])
def test_items_come_in_order(capacity):
    tx, rx = make(capacity)
    n = capacity or 50
    for i in range(n):
        tx.send(i)
    assert (len(tx), len(rx)) == (n, n)
    assert tx.is_full() == rx.is_full() == (capacity is not None)
    assert [rx.recv() for _ in range(n)] == list(range(n))
    assert tx.is_empty() and rx.is_empty() and not rx.is_full()


def test_capacity(capacity):
    tx, rx = make(capacity)
    assert tx.capacity == rx.capacity == capacity
    assert tx and rx and len(rx) == 0


def test_a_rendezvous_is_empty_and_full():
    tx, rx = bounded(0)
    assert tx.is_empty() and rx.is_empty() and tx.is_full() and rx.is_full() and len(tx) == 0


def test_try_forms(capacity):
    tx, rx = make(capacity)
    with pytest.raises(RecvEmpty):
        rx.try_recv()
    for i in range(capacity if capacity is not None else 10):
        tx.try_send(i)
    if capacity is not None:
        item = object()
        with pytest.raises(SendFull) as caught:
            tx.try_send(item)
        assert caught.value.item is item and str(caught.value) == "sending on a full channel"
    if capacity:
        assert rx.try_recv() == 0
        tx.try_send("last")


@pytest.mark.parametrize("limit", [0, 0.01, -1, 1])
@pytest.mark.parametrize("form", ["timeout", "deadline"])
def test_timed_forms(limit, form):
    tx, rx = bounded(1)
    when = limit if form == "timeout" else time.monotonic() + limit
    recv, send = getattr(rx, f"recv_{form}"), getattr(tx, f"send_{form}")
    if limit == 1:
        send(1, when)
        assert recv(when) == 1
        return
    with pytest.raises(RecvTimeout) as caught:
        recv(when)
    assert isinstance(caught.value, TimeoutError) and isinstance(caught.value, RecvError)
    send("there is room", when)
    with pytest.raises(SendTimeout) as caught:
        send("item", when)
    assert caught.value.item == "item" and isinstance(caught.value, (SendError, TimeoutError))


def test_what_is_left_still_comes_after_the_last_sender(capacity):
    tx, rx = make(capacity)
    other = tx.clone()
    n = 5 if capacity is None else capacity
    for i in range(n):
        tx.send(i)
    tx.close()
    tx.close()
    with pytest.raises(RecvEmpty if n == 0 else SendError):
        rx.try_recv() if n == 0 else tx.send(1)
    other.close()
    assert list(rx) == list(range(n))
    with pytest.raises(RecvClosed):
        rx.recv()
    with pytest.raises(RecvClosed):
        rx.try_recv()
    with pytest.raises(RecvClosed):
        rx.recv_timeout(5)
    assert list(rx) == []


def test_sends_fail_after_the_last_receiver(capacity):
    tx, rx = make(capacity)
    other = rx.clone()
    rx.close()
    with pytest.raises(RecvClosed):
        rx.recv()
    if capacity != 0:
        tx.try_send("kept")
    other.close()
    item = object()
    for call in (tx.send, tx.try_send, lambda x: tx.send_timeout(x, 5)):
        with pytest.raises(SendClosed) as caught:
            call(item)
        assert caught.value.item is item
    assert len(tx) == 0


def test_the_last_receiver_drops_what_is_left():
    class Item:
        pass

    tx, rx = unbounded()
    item = Item()
    ref = weakref.ref(item)
    tx.send(item)
    del item
    rx.close()
    gc.collect()
    assert ref() is None


def test_the_end_of_the_last_reference_closes():
    tx, rx = bounded(1)
    del rx
    gc.collect()
    with pytest.raises(SendClosed):
        tx.send(1)
    tx, rx = bounded(1)
    clone = tx.clone()
    del tx
    gc.collect()
    clone.send(1)
    del clone
    gc.collect()
    assert list(rx) == [1]


def test_with_closes():
    tx, rx = unbounded()
    with tx as same, tx.clone() as other:
        assert same is tx and not tx.closed
        same.send(1)
        other.send(2)
    assert tx.closed and other.closed
    with rx:
        assert list(rx) == [1, 2]
    assert rx.closed


def test_a_closed_handle_is_closed_for_itself():
    tx, rx = unbounded()
    more = tx.clone(), rx.clone()
    tx.close()
    rx.close()
    with pytest.raises(SendClosed):
        tx.clone()
    with pytest.raises(RecvClosed):
        rx.clone()
    more[0].send(1)
    assert more[1].recv() == 1


def test_same_channel():
    tx, rx = bounded(1)
    assert tx.same_channel(tx.clone()) and tx.same_channel(rx) and rx.same_channel(tx)
    assert not tx.same_channel(unbounded()[0])
    timer = after(1)
    assert timer.same_channel(timer) and not timer.same_channel(rx)
    with pytest.raises(TypeError):
        tx.same_channel(1)


def test_wrong_calls():
    for wrong in (-1, -(10**30)):
        with pytest.raises((ValueError, OverflowError)):
            bounded(wrong)
    with pytest.raises(OverflowError):
        bounded(10**30)
    for wrong in (1.5, "1", None):
        with pytest.raises(TypeError):
            bounded(wrong)
    for kind in (Sender, Receiver):
        with pytest.raises(TypeError):
            kind()
        with pytest.raises(TypeError):
            kind.__new__(kind)
    tx, rx = bounded(1)
    for call in (rx.recv_timeout, rx.recv_deadline):
        with pytest.raises(TypeError):
            call(None)
        with pytest.raises(ValueError):
            call(float("nan"))
    with pytest.raises(TypeError):
        tx.send()
    with pytest.raises(TypeError):
        pickle.dumps(tx)
    assert repr(Sender[int]) == "fastsync.channel.Sender[int]"
    assert weakref.ref(tx)() is tx and tx.__sizeof__() > 0


def test_errors_can_be_caught_by_kind():
    assert issubclass(SendTimeout, SendError) and not issubclass(SendTimeout, RecvError)
    copy = pickle.loads(pickle.dumps(SendClosed("item")))
    assert copy.item == "item" and str(copy) == "sending on a closed channel"
    assert (
        str(pickle.loads(pickle.dumps(RecvTimeout()))) == "timed out waiting on receive operation"
    )


# -- threads ------------------------------------------------------------------------------------


def test_recv_waits_for_a_send_and_a_send_for_room(capacity):
    tx, rx = make(capacity)
    got = []
    with background(lambda: got.append(rx.recv())) as (thread,):
        wait_asleep(thread)
        tx.send("item")
    assert got == ["item"]
    if capacity is not None:
        for _ in range(capacity):
            tx.send(0)
        with background(lambda: tx.send("more")) as (thread,):
            wait_asleep(thread)
            items = [rx.recv() for _ in range(capacity + 1)]
        assert items == [0] * capacity + ["more"]


def test_a_rendezvous_takes_place():
    """A send returns only after its item has been taken."""
    tx, rx = bounded(0)
    steps = []
    with background(lambda: (tx.send(1), steps.append("sent"))) as (thread,):
        wait_asleep(thread)
        assert steps == [] and tx.is_full()
        assert rx.try_recv() == 1
    with background(lambda: steps.append(rx.recv())) as (thread,):
        wait_asleep(thread)
        tx.try_send(2)
    assert steps == ["sent", 2]


def test_close_wakes_waiters(capacity):
    tx, rx = make(capacity)
    ends = []

    def receive():
        with pytest.raises(RecvClosed):
            rx.recv()
        ends.append("recv")

    with background(receive, receive) as threads:
        wait_asleep(*threads)
        tx.close()
    assert ends == ["recv", "recv"]
    if capacity is None:
        return
    tx, rx = make(capacity)
    for _ in range(capacity):
        tx.send(0)

    def send(item):
        with pytest.raises(SendClosed) as caught:
            tx.send(item)
        ends.append(caught.value.item)

    with background(lambda: send("a"), lambda: send("b")) as threads:
        wait_asleep(*threads)
        rx.close()
    assert sorted(ends[2:]) == ["a", "b"]


def test_a_send_that_waits_when_the_sender_is_closed_goes_on():
    tx, rx = bounded(1)
    tx.send(1)
    with background(lambda: tx.send(2)) as (thread,):
        wait_asleep(thread)
        tx.close()
        assert list(rx) == [1, 2]


def test_receiver_closed_by_another_thread_ends_the_wait():
    tx, rx = bounded(1)

    def receive():
        with pytest.raises(RecvClosed):
            rx.recv()

    with background(receive) as (thread,):
        wait_asleep(thread)
        rx.close()
    tx.close()


def test_receivers_are_served_in_order():
    tx, rx = unbounded()
    got = []
    with background(*[lambda i=i: got.append((i, rx.recv())) for i in range(1)]) as first:
        wait_asleep(*first)
        with background(lambda: got.append((1, select(rx)[1]))) as second:
            wait_asleep(*second)
            tx.send("first")
            wait_until(lambda: got == [(0, "first")])
            tx.send("second")
    assert got == [(0, "first"), (1, "second")]


@pytest.mark.parametrize("shape", [(1, 1), (4, 1), (1, 4), (4, 4)])
def test_nothing_is_lost_or_doubled(capacity, shape):
    """spsc, mpsc, mpmc of crossbeam's tests, at once."""
    senders, receivers = shape
    tx, rx = make(capacity)
    each = 1000
    got = [[] for _ in range(receivers)]

    def send(i, mine):
        with mine:
            for n in range(each):
                mine.send((i, n))

    def receive(i):
        got[i].extend(rx)

    clones = [tx.clone() for _ in range(senders)]
    tx.close()
    run_threads(
        [lambda i=i: send(i, clones[i]) for i in range(senders)]
        + [lambda i=i: receive(i) for i in range(receivers)]
    )
    assert sorted(itertools.chain(*got)) == [(i, n) for i in range(senders) for n in range(each)]
    for items in got:  # each sender's items in order
        for i in range(senders):
            mine = [n for sender, n in items if sender == i]
            assert mine == sorted(mine)
    assert parked_total() == 0


# -- golang: the tests of Go's channels -----------------------------------------------------------


def test_go_prime_sieve():
    def generate(out):
        try:
            for n in itertools.count(2):
                out.send(n)
        except SendClosed:
            pass

    def sieve(inn, out, prime):
        try:
            with inn:
                for n in inn:
                    if n % prime:
                        out.send(n)
        except SendClosed:
            pass

    primes, ends = [], []
    tx, rx = bounded(1)
    threads = [threading.Thread(target=generate, args=(tx,))]
    threads[0].start()
    for _ in range(15):
        prime = rx.recv()
        primes.append(prime)
        out, following = bounded(1)
        threads.append(threading.Thread(target=sieve, args=(rx, out, prime)))
        threads[-1].start()
        ends.append(rx)
        rx = following
    rx.close()
    for thread in threads:
        thread.join(DEADLINE)
    assert primes == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47]
    assert not any(thread.is_alive() for thread in threads)


def test_go_fan_in():
    """Two to one, by a select over both, each switched off at its end."""
    (tx1, rx1), (tx2, rx2), (out, merged) = unbounded(), bounded(0), bounded(3)

    def merge():
        sources = [rx1, rx2]
        left = 2
        with out:
            while left:
                try:
                    _, item = select(*sources)
                    out.send(item)
                except RecvClosed as end:
                    sources[end.index] = never()
                    left -= 1

    def feed(tx, items):
        with tx:
            for item in items:
                tx.send(item)

    with background(merge, lambda: feed(tx1, range(100)), lambda: feed(tx2, range(100, 200))):
        assert sorted(merged) == list(range(200))


def test_go_select_with_default():
    tx, rx = bounded(1)
    assert select(rx, timeout=0) == (None, None)
    assert select((tx, 1), timeout=0) == (0, None)
    assert select((tx, 2), timeout=0) == (None, None)
    assert select((tx, 2), rx, timeout=0) == (1, 1)


def test_go_nonblocking_select_race():
    """A try that comes while the other side waits in a select is served (golang issue 8047)."""
    for _ in range(200):
        (tx, rx), (done, finished) = bounded(0), bounded(0)

        def wait(rx=rx, done=done):
            select(rx, never())
            done.send(None)

        with background(wait):
            wait_until(lambda tx=tx: select((tx, 1), timeout=0)[0] == 0)
            finished.recv()


# -- select ---------------------------------------------------------------------------------------


def test_select_takes_what_is_ready():
    (tx1, rx1), (tx2, rx2) = unbounded(), unbounded()
    tx2.send("two")
    assert select(rx1, rx2) == (1, "two")
    tx1.send("one")
    assert select(rx1, rx2, timeout=5) == (0, "one")
    assert select(rx1, rx2, timeout=0.01) == (None, None)
    assert select(rx1, rx2, deadline=time.monotonic() + 0.01) == (None, None)
    assert select((tx1, "a"), (tx2, "b"), biased=True) == (0, None)
    assert select(rx2, rx1, biased=True) == (1, "a")
    assert select(timeout=0.001) == (None, None)


def test_select_of_the_same_twice():
    tx, rx = unbounded()
    tx.send(1)
    index, item = select(rx, rx)
    assert item == 1 and index in (0, 1)
    with background(lambda: tx.send(2)):
        assert select(rx, rx, rx)[1] == 2


def test_select_wakes_for_each_case():
    (tx1, rx1), (tx2, rx2) = bounded(0), bounded(1)
    tx2.send("in the way")
    event, semaphore, queue = fst.Event(), fst.Semaphore(0), queues.Queue(1)
    queue.put("in the way")
    steps = [
        (lambda: tx1.send("item"), 0, "item"),
        (lambda: rx2.recv(), 1, None),
        (lambda: event.set(), 2, None),
        (lambda: semaphore.release(), 3, None),
        (lambda: queue.get(), 4, None),
    ]
    for step, index, item in steps:
        got = []
        with background(
            lambda: got.append(select(rx1, (tx2, "x"), event, semaphore, (queue, "y")))  # noqa: B023
        ) as (thread,):
            wait_asleep(thread)
            step()
        assert got == [(index, item)]
        event.clear()
    assert rx2.recv() == "x" and queue.get() == "y"
    assert parked_total() == 0


@pytest.mark.parametrize("name", ["Queue", "LifoQueue", "PriorityQueue", "SimpleQueue"])
def test_select_over_queues(name):
    one, two = getattr(queues, name)(), getattr(queues, name)()
    two.put(2)
    assert select(one, two) == (1, 2)
    got = []
    with background(lambda: got.append(select(one, two))) as (thread,):
        wait_asleep(thread)
        one.put(1)
    assert got == [(0, 1)]
    assert select((one, 5), two) == (0, None) and one.get() == 5
    if name != "SimpleQueue":
        assert two.unfinished_tasks == 1
        two.shutdown()
        with pytest.raises(queues.ShutDown) as caught:
            select(one, two)
        assert caught.value.index == 1


def test_select_over_a_full_priority_queue():
    """Its room is announced, not filled: who does not use it announces it again."""
    queue = queues.PriorityQueue(1)
    tx, rx = bounded(0)
    queue.put(5)
    got = []
    with background(
        lambda: got.append(select((queue, 3), rx)), lambda: queue.put(4), lambda: queue.put(2)
    ) as threads:
        wait_asleep(*threads)
        tx.try_send("other")
        assert sorted(queue.get() for _ in range(3)) == [2, 4, 5] or got
    assert got == [(1, "other")] or got == [(0, None)]


def test_select_of_comparisons_in_python():
    class Item:
        def __init__(self, n):
            self.n = n

        def __lt__(self, other):
            if self.n < 0 or other.n < 0:
                raise ArithmeticError
            return self.n < other.n

    queue = queues.PriorityQueue()
    for n in (3, 1, 2):
        assert select((queue, Item(n))) == (0, None)
    assert [select(queue)[1].n for _ in range(3)] == [1, 2, 3]
    queue.put(Item(1))
    with pytest.raises(ArithmeticError):
        select((queue, Item(-1)), timeout=0)
    assert select(queue)[1].n == 1 and queue.empty()


def test_select_that_cannot_be():
    opened = queues.Queue()
    assert opened.mutex

    class Mine(fst.Event):
        pass

    with pytest.raises(ValueError):
        select()
    tx, rx = bounded(1)
    for case in (1, None, tx, opened.mutex, (tx,), (rx, 1), (tx, 1, 2), (1, 2), Mine(),
                 threading.Event() if threading.Event is not fst.Event else 1):  # fmt: skip
        with pytest.raises(TypeError):
            select(case, timeout=0)
    with pytest.raises(RuntimeError):
        select(opened, timeout=0)
    with pytest.raises(TypeError):
        select(rx, timeout=1, deadline=1)
    with pytest.raises(TypeError):
        select(rx, timeout="x")


def test_select_says_which_is_closed():
    (tx1, rx1), (tx2, rx2) = unbounded(), bounded(1)
    tx1.close()
    with pytest.raises(RecvClosed) as caught:
        select(never(), rx1)
    assert caught.value.index == 1
    rx2.close()
    with pytest.raises(SendClosed) as caught:
        select((tx2, "item"), never())
    assert caught.value.index == 0 and caught.value.item == "item"
    for case in (rx2, (tx1, "item")):  # closed handles
        with pytest.raises((RecvClosed, SendClosed)) as caught:
            select(never(), never(), case)
        assert caught.value.index == 2


def test_close_wakes_a_select():
    for case in ("recv", "send"):
        tx, rx = bounded(1)
        tx.send(0)
        spare, empty = bounded(1)
        caught = []

        def wait(cases=(empty,) if case == "recv" else ((tx, 1),), caught=caught):
            with pytest.raises((RecvClosed, SendClosed)) as error:
                select(never(), *cases)
            caught.append(error.value.index)

        with background(wait) as (thread,):
            wait_asleep(thread)
            spare.close() if case == "recv" else rx.close()
        assert caught == [1]


def test_select_is_fair_among_what_is_ready():
    """Each of three that are ready is chosen a third of the times: 1,000 of 3,000, give or take."""
    pairs = [unbounded() for _ in range(3)]
    idle = [unbounded() for _ in range(3)]
    for tx, _ in pairs:
        for _ in range(3000):
            tx.send(0)
    rx = [r for p in zip(pairs, idle, strict=True) for _, r in p]
    counts = collections.Counter(select(*rx)[0] for _ in range(3000))
    # 800 is seven standard deviations away.
    assert len(counts) == 3 and min(counts.values()) > 800, counts


def test_two_selects_meet_over_a_rendezvous():
    (tx1, rx1), (tx2, rx2) = bounded(0), bounded(0)
    rounds = 2000
    sent, received = [], []

    def send():
        for n in range(rounds):
            index, _ = select((tx1, n), (tx2, n))
            sent.append((index, n))

    def receive():
        for _ in range(rounds):
            received.append(select(rx1, rx2))

    run_threads([send, receive])
    assert sent == received


def test_select_does_not_meet_itself():
    tx, rx = bounded(0)
    assert select((tx, 1), rx, timeout=0.01) == (None, None)
    with background(lambda: rx.recv()):
        assert select((tx, 1), rx)[0] == 0


def test_an_item_goes_to_one_of_many_selects():
    pairs = [bounded(capacity) for capacity in (0, 1, 5)]
    queue = queues.Queue(2)
    each, got = 1500, [[] for _ in range(4)]
    stop, stopped = unbounded()

    def receive(i):
        while True:
            index, item = select(*(rx for _, rx in pairs), queue, stopped)
            if index == 4:
                return
            got[i].append(item)

    def send(i):
        mine = pairs[i][0] if i < 3 else None
        for n in range(each):
            if mine is not None and n % 3 == 0:
                mine.send((i, n))
            elif mine is not None:
                select((mine, (i, n)), never())
            elif n % 2:
                queue.put((i, n))
            else:
                select(never(), (queue, (i, n)))

    with background(*[lambda i=i: receive(i) for i in range(4)]):
        run_threads(send, count=4)
        wait_until(lambda: sum(map(len, got)) >= 4 * each)
        for _ in range(4):
            stop.send(None)
    assert sorted(itertools.chain(*got)) == [(i, n) for i in range(4) for n in range(each)]
    assert parked_total() == 0


def test_select_hands_units_of_a_semaphore_on():
    """Whoever was woken for a unit and did something else wakes the next."""
    semaphore = fst.Semaphore(0)
    tx, rx = bounded(0)
    taken = itertools.count()
    others = []

    def wait():
        while True:
            index, _ = select(semaphore, rx)
            if index == 1:
                others.append(1)
                return
            next(taken)

    def acquire():
        for _ in range(500):
            semaphore.acquire()

    with background(wait, wait, acquire) as threads:
        for _ in range(1000):
            semaphore.release()
            time.sleep(0) if random.random() < 0.1 else None
        wait_until(lambda: semaphore._value == 0 or not threads[2].is_alive())
        wait_until(lambda: (semaphore.release(), not threads[2].is_alive())[1])
        tx.send(1)
        tx.send(1)
    assert len(others) == 2 and parked_total() == 0


# -- after, tick, never ----------------------------------------------------------------------------


def test_after_comes_once():
    start = time.monotonic()
    rx = after(0.05)
    assert rx.capacity == 1 and rx.is_empty() and len(rx) == 0 and not rx.is_full()
    with pytest.raises(RecvEmpty):
        rx.try_recv()
    came = rx.recv()
    assert start + 0.05 <= came <= time.monotonic()
    with pytest.raises(RecvTimeout):
        rx.recv_timeout(0.02)
    assert rx.is_empty()
    late = after(0)
    assert late.is_full() and len(late) == 1
    assert late.try_recv() <= time.monotonic()


def test_after_for_one_of_many():
    rx = after(0.05)
    clone = rx.clone()
    got = []

    def receive(rx):
        try:
            got.append(rx.recv_timeout(0.5))
        except RecvTimeout:
            pass

    run_threads([lambda: receive(rx), lambda: receive(clone), lambda: receive(rx)])
    assert len(got) == 1


def test_tick_does_not_pile_up():
    start = time.monotonic()
    rx = tick(0.02)
    first = rx.recv()
    wait_until(lambda: time.monotonic() > first + 0.1)
    second, now = rx.try_recv(), time.monotonic()
    assert start + 0.02 <= first and second >= first + 0.02 - 1e-6
    with pytest.raises(RecvEmpty):
        # The third is due `seconds` after the second was received, if this thread was that quick.
        while time.monotonic() < now + 0.01:
            rx.try_recv()
        raise RecvEmpty
    assert rx.recv() > second
    for wrong in (0, -1):
        with pytest.raises(ValueError):
            tick(wrong)


def test_never():
    rx = never()
    assert rx.capacity == 0 and rx.is_empty() and rx.is_full()
    with pytest.raises(RecvTimeout):
        rx.recv_timeout(0.01)
    assert select(rx, timeout=0.01) == (None, None)
    rx.close()
    with pytest.raises(RecvClosed):
        rx.recv()
    far = after(float("inf"))
    with pytest.raises(RecvEmpty):
        far.try_recv()


def test_timers_in_a_select():
    tx, rx = unbounded()
    index, came = select(rx, after(0.02))
    assert index == 1 and came <= time.monotonic()
    ticker, ticks = tick(0.005), 0
    end = after(0.1)
    while True:
        index, _ = select(rx, ticker, end)
        if index == 2:
            break
        ticks += 1
    assert ticks >= 1
    with background(lambda: tx.send("item")):
        assert select(rx, after(60), timeout=60) == (0, "item")


# -- signals, fork, exit, the collector, memory ----------------------------------------------------


class Raised(Exception):
    pass


@pytest.fixture
def alarm():
    """alarm(handler, seconds): call the handler, once, in the main thread."""
    before = signal.getsignal(signal.SIGALRM)

    def start(handler, seconds=0.05):
        signal.signal(signal.SIGALRM, lambda *_: handler())
        signal.setitimer(signal.ITIMER_REAL, seconds)

    yield start
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def raise_it():
    raise Raised


@pytest.mark.parametrize("call", ["recv", "send", "select", "timer"])
def test_handler_that_raises_leaves_nothing_behind(call, alarm):
    tx, rx = bounded(1)
    full, other = bounded(0)
    item = object()
    calls = {
        "recv": rx.recv,
        "send": lambda: full.send(item),
        "select": lambda: select(rx, (full, item), fst.Event(), fst.Semaphore(0)),
        "timer": never().recv,
    }
    alarm(raise_it)
    with pytest.raises(Raised):
        calls[call]()
    assert parked_total() == 0
    with pytest.raises(RecvEmpty):
        other.try_recv()
    tx.send(1)
    assert rx.recv() == 1


def test_handler_serves_the_wait_that_it_interrupts(alarm):
    tx, rx = bounded(1)
    for wait in (rx.recv, lambda: select(never(), rx)[1], lambda: next(rx)):
        alarm(lambda: tx.send("from the handler"))
        assert wait() == "from the handler"


def test_storm_of_raising_handlers_loses_no_item():
    """The main thread receives by select; what a handler interrupts is done, or is not."""
    tx, rx = bounded(2)
    tx2, rx2 = bounded(0)
    total, got = 4000, []
    before = signal.signal(signal.SIGALRM, lambda *_: raise_it())
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)

    def send(tx, first):
        for n in range(first, total, 2):
            tx.send(n)

    # In C from end to end, so that handlers run nowhere but in the waits of select().
    receive = functools.partial(select, rx, rx2)
    with background(lambda: send(tx, 0), lambda: send(tx2, 1)):
        try:
            while len(got) < total:
                try:
                    signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-5, 2e-3))
                    got.extend(itertools.starmap(receive, itertools.repeat(())))
                except Raised:
                    pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    assert sorted(item for _, item in got) == list(range(total))
    assert all(index == item % 2 for index, item in got)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_childs_channel_works_and_has_the_items(run_python):
    code = """
import os, threading, warnings
from fastsync.channel import bounded, select, unbounded, never
tx, rx = bounded(2)
tx.send("kept")
threads = [threading.Thread(target=lambda: select(never(), never(), timeout=5)),
           threading.Thread(target=lambda: rx2.recv())]
tx2, rx2 = bounded(0)
for thread in threads: thread.start()
warnings.simplefilter("ignore")
pid = os.fork()
if pid == 0:
    ok = rx.recv() == "kept"
    t = threading.Thread(target=lambda: tx.send("child"))
    t.start()
    ok = ok and select(rx, rx2) == (0, "child")
    t.join()
    t = threading.Thread(target=lambda: tx2.send("again"))
    t.start()
    ok = ok and select(rx, rx2) == (1, "again")
    t.join()
    os._exit(not ok)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
tx2.send(1)
for thread in threads: thread.join()
print("good")
"""
    assert run_python("-c", code).stdout == "good\n"


def test_daemon_threads_at_exit_do_no_harm(run_python):
    code = """
import threading, time
from fastsync.channel import bounded, select, tick
tx, rx = bounded(1)
def use():
    while True:
        select(rx, (tx, 1), tick(0.001))
for _ in range(4): threading.Thread(target=use, daemon=True).start()
kept, other = bounded(0)
threading.Thread(target=other.recv, daemon=True).start()
time.sleep(0.2)
print("end")
"""
    assert run_python("-c", code).stdout == "end\n"


def test_collector_sees_what_is_in_a_channel():
    class Item:
        pass

    tx, rx = bounded(3)
    item = Item()
    item.tx, item.rx = tx, rx
    tx.send(item)
    ref = weakref.ref(item)
    del tx, rx, item
    gc.collect()
    assert ref() is None


def test_send_from_a_finalizer_that_a_collection_runs():
    tx, rx = unbounded()
    serial, got = itertools.count(), []

    class Circular:
        def __init__(self):
            self.circular = self

        def __del__(self):
            tx.send(next(serial))

    for _ in range(2000):
        Circular()
        tx.send(next(serial))
        got.append(select(rx, never())[1])
    gc.collect()
    while not rx.is_empty():
        got.append(rx.recv())
    assert sorted(got) == list(range(4000))


def test_long_chains_are_freed(run_python):
    code = """
from fastsync.channel import unbounded
outer = None
for _ in range(200_000):
    tx, rx = unbounded()
    tx.send(outer)
    outer = rx
    del tx, rx
outer = None
outer = None
for _ in range(200_000):
    tx, rx = unbounded()
    tx.send(outer)
    outer = (tx, rx)
    del tx, rx
outer = None
print("freed")
"""
    assert run_python("-c", code, timeout=120).stdout == "freed\n"


NO_MEMORY = """
import _testcapi, sys
import fastsync.threading as fst
import fastsync.queue as queues
from fastsync.channel import *
from fastsync.channel import SendError, RecvError

def calls(tx, rx, queue):
    yield lambda: tx.send_timeout(5, 0)
    yield lambda: rx.try_recv()
    yield lambda: [tx.try_send(n) for n in range(40)]
    yield lambda: select(rx, (tx, 1), timeout=0)
    yield lambda: select(rx, queue, (tx, 1), (queue, 2), fst.Event(), never(), timeout=0.0001)
    yield lambda: select(queue, timeout=0.0001)
    yield lambda: tx.clone().close()
    yield lambda: after(0).recv()
    yield lambda: bounded(3)
    yield lambda: rx.recv_timeout(0.0001)
    yield lambda: rx.close()
    yield lambda: tx.send(1)

FAILURES = MemoryError, SendError, RecvError
if sys.version_info < (3, 12):
    FAILURES += SystemError,  # that loses the exception when a comprehension calls what raises
for k in range(1, 30):
    for capacity in (0, 3, None):
        tx, rx = unbounded() if capacity is None else bounded(capacity)
        queue = queues.PriorityQueue()
        for call in calls(tx, rx, queue):
            _testcapi.set_nomemory(k, k + 1)
            try:
                call()
            except FAILURES:
                pass
            finally:
                _testcapi.remove_mem_hooks()
        other = unbounded()
        other[0].send(1)
        assert select(other[1]) == (0, 1)
print("good")
"""


def test_no_memory(run_python):
    """In a process of its own: what else runs there may not stand it."""
    pytest.importorskip("_testcapi")
    assert run_python("-P", "-c", NO_MEMORY).stdout == "good\n"


# -- storms ------------------------------------------------------------------------------------


def test_storm_of_everything():
    """Sends, receives and selects of all kinds, timed and not, with handles that come and go:
    each item that a send delivered comes out once."""
    seed = random.randrange(2**32)
    print("seed", seed)
    ends = [bounded(0), bounded(2), unbounded()]
    queue = queues.Queue(3)
    delivered = [[] for _ in range(4)]
    received = [[] for _ in range(4)]
    senders_left = threading.Semaphore(0)

    def send(i):
        chance = random.Random(seed + i)
        mine = [tx.clone() for tx, _ in ends]
        for n in range(800):
            item = (i, n)
            tx = chance.choice(mine)
            try:
                kind = chance.randrange(5)
                if kind == 0:
                    tx.send_timeout(item, chance.choice([0, 1e-4, 5]))
                elif kind == 1:
                    tx.try_send(item)
                elif kind == 2:
                    if (
                        select((tx, item), (queue, item), timeout=chance.choice([0, 1e-4, 5]))[0]
                        is None
                    ):
                        continue
                elif kind == 3:
                    select(*((tx, item) for tx in mine), (queue, item))
                else:
                    queue.put(item, timeout=5)
            except SendError as error:
                assert error.item == item
                continue
            delivered[i].append(item)
            if chance.random() < 0.05:
                k = chance.randrange(3)
                mine[k].close()
                mine[k] = ends[k][0].clone()
        for tx in mine:
            tx.close()
        senders_left.release()

    over, end = bounded(0)

    def receive(i):
        chance = random.Random(seed - i)
        mine = [rx.clone() for _, rx in ends]
        while True:
            if chance.random() < 0.3:
                try:
                    received[i].append(chance.choice(mine).recv_timeout(chance.choice([0, 1e-4])))
                except RecvTimeout:
                    pass
                continue
            try:
                index, item = select(*mine, queue, end, timeout=chance.choice([None, 1e-3]))
            except RecvClosed as error:
                assert error.index == 4
                return
            if index is not None:
                received[i].append(item)

    with background(*[lambda i=i: receive(i) for i in range(4)], timeout=90):
        run_threads(send, count=4, timeout=90)
        wait_until(lambda: sum(map(len, received)) >= sum(map(len, delivered)))
        over.close()
    assert sorted(itertools.chain(*received)) == sorted(itertools.chain(*delivered))
    assert parked_total() == 0 and queue.empty()
