"""The contention profile of waiting for work (an item, room, a notification), with known answers.

As in test_profile_answers.py the programs measure themselves what they wait.
"""

import threading
import time

import pytest
from profiles import JOIN, named, run_all, stopped  # noqa: F401

import fastsync.channel
import fastsync.queue
import fastsync.threading as drop_in
from fastsync import Condvar, Mutex, profile

PATIENCE = 2.0


# -- what is waited for -----------------------------------------------------------


class Items:
    """An empty queue."""

    def __init__(self, kind):
        self.watched = getattr(fastsync.queue, kind)()
        self.kind, self.what = kind, "an item"

    def wait(self):
        self.watched.get()

    def give(self):
        self.watched.put(1)


class Batches(Items):
    def wait(self):
        assert self.watched.get_many(5) == [1]

    def give(self):
        self.watched.put_many([1])


class Room:
    """A full queue."""

    def __init__(self, kind):
        self.watched = getattr(fastsync.queue, kind)(2)
        self.watched.put(1)
        self.watched.put(2)
        self.kind, self.what = kind, "room"

    def wait(self):
        self.watched.put(3)

    def give(self):
        self.watched.get()


class RoomForBatches(Room):
    def wait(self):
        self.watched.put_many([3])

    def give(self):
        assert len(self.watched.get_many(1)) == 1


class Compared:
    def __init__(self, number):
        self.number = number

    def __lt__(self, other):
        return self.number < other.number


class RoomAmongCompared(Room):
    """A get from it makes Python compare."""

    def __init__(self, kind):
        self.watched = getattr(fastsync.queue, kind)(3)
        for number in range(3):
            self.watched.put(Compared(number))
        self.kind, self.what = kind, "room"

    def wait(self):
        self.watched.put(Compared(3))


class Raised(Room):
    """Its limit is raised instead, and is the same again afterwards."""

    def give(self):
        self.watched.maxsize = 3
        while self.watched.qsize() < 3:
            time.sleep(0.0005)
        self.watched.get()
        self.watched.maxsize = 2


class Tasks:
    def __init__(self, kind):
        self.watched = getattr(fastsync.queue, kind)()
        self.kind, self.what = kind, "its tasks"

    def wait(self):
        self.watched.put(1)
        self.watched.get()
        self.watched.join()

    def give(self):
        self.watched.task_done()


class Channel:
    """The item of a channel, or room in it."""

    kind = "Channel"

    def __init__(self, capacity, what):
        self.sender, self.receiver = fastsync.channel.bounded(capacity)
        self.watched, self.what = self.receiver, what
        if what == "room":
            for _ in range(capacity):
                self.sender.send(1)

    def wait(self):
        if self.what == "room":
            self.sender.send(2)
        else:
            self.receiver.recv()

    def give(self):
        if self.what == "room":
            self.receiver.recv()
        else:
            self.sender.send(2)


class Selected(Channel):
    """The same, as one case of several; the others are waited for in vain."""

    def select(self, *cases):
        _open, other = fastsync.channel.bounded(1)
        timer = fastsync.channel.after(3600)
        event, permits = drop_in.Event(), drop_in.Semaphore(0)
        index, _ = fastsync.channel.select(other, timer, *cases, event, permits)
        assert index == 2

    def wait(self):
        self.select((self.sender, 2) if self.what == "room" else self.receiver)


class SelectedEvent(Selected):
    kind, what = "Event", ""

    def __init__(self):
        self.watched = drop_in.Event()

    def wait(self):
        self.select(self.watched)
        self.watched.clear()

    def give(self):
        self.watched.set()


class Notified:
    kind, what = "Condition", ""

    def __init__(self):
        self.watched = drop_in.Condition()

    def wait(self):
        with self.watched:
            self.watched.wait()

    def give(self):
        with self.watched:
            self.watched.notify()


class NotifiedVar:
    kind, what = "Condvar", ""

    def __init__(self):
        self.watched = Condvar()
        self.mutex = Mutex()

    def wait(self):
        with self.mutex.lock() as guard:
            self.watched.wait(guard)

    def give(self):
        self.watched.notify_one()


WORK = {
    "queue": lambda: Items("Queue"),
    "lifo": lambda: Items("LifoQueue"),
    "priority": lambda: Items("PriorityQueue"),
    "simple": lambda: Items("SimpleQueue"),
    "batch": lambda: Batches("Queue"),
    "room": lambda: Room("Queue"),
    "room-priority": lambda: Room("PriorityQueue"),
    "room-compared": lambda: RoomAmongCompared("PriorityQueue"),
    "room-batch": lambda: RoomForBatches("Queue"),
    "room-raised": lambda: Raised("Queue"),
    "tasks": lambda: Tasks("Queue"),
    "recv": lambda: Channel(1, "an item"),
    "send": lambda: Channel(2, "room"),
    "rendezvous-recv": lambda: Channel(0, "an item"),
    "rendezvous-send": lambda: Channel(0, "room"),
    "select-recv": lambda: Selected(1, "an item"),
    "select-send": lambda: Selected(1, "room"),
    "select-rendezvous": lambda: Selected(0, "room"),
    "select-event": SelectedEvent,
    "condition": Notified,
    "condvar": NotifiedVar,
}


class Planned:
    """A giver and a waiter.  The giver gives `seconds` after it has seen that the other waits.  Of
    what the waiter waited there are two bounds: it began before it was seen, and after the call;
    it ended after the call that gave had begun, and before the waiter's had returned."""

    def __init__(self, work, seconds):
        self.work, self.seconds = work, seconds
        self.at_least = self.at_most = 0.0
        self.rounds = 0
        self.turns = [threading.Semaphore(0), threading.Semaphore(0)]

    def is_waited_for(self):
        return any(
            row["going_on"] and row["name"] == "planned" and row["for"] == self.work.what
            for row in profile.now().locks()
        )

    def give(self):
        until = time.monotonic() + PATIENCE
        while self.rounds < 3 or (self.at_least < 0.95 * self.at_most and time.monotonic() < until):
            self.turns[0].release()
            while not self.is_waited_for():
                time.sleep(0.0005)
            seen = time.perf_counter()
            time.sleep(self.seconds)
            self.at_least += time.perf_counter() - seen
            self.work.give()
            self.turns[1].acquire()
            self.rounds += 1
        self.seconds = None
        self.turns[0].release()

    def wait(self):
        while self.turns[0].acquire() and self.seconds is not None:
            begin = time.perf_counter()
            self.work.wait()
            self.at_most += time.perf_counter() - begin
            self.turns[1].release()


@pytest.mark.parametrize("make", WORK.values(), ids=WORK)
def test_who_waited_for_whom_and_how_long(make):
    with profile.record() as recording:
        work = make()
        profile.name(work.watched, "planned")
        planned = Planned(work, 0.03)
        run_all(named(planned.give, "giver"), named(planned.wait, "waiter"))
    rows = [row for row in recording.recording.locks() if row["kind"] != "Thread.join"]
    row = max(rows, key=lambda row: row["total"])
    print(planned.rounds, planned.at_least, row["total"], planned.at_most)
    assert (row["kind"], row["name"], row["for"]) == (work.kind, "planned", work.what)
    assert row["work"]
    assert row["made"][0] == __file__
    assert row["made"][2] == "__init__"
    # Also when the bounds are far apart; when they are not, this is "within 5 %".
    assert planned.at_least <= row["total"] <= planned.at_most
    assert row["waits"] == planned.rounds
    assert row["going_on"] == 0
    site, threads, seconds, share = row["waiting"][0]
    assert site[2] in ("wait", "select")
    assert (threads, share) == (["waiter"], 1.0)
    site, threads, seconds, share = row["holding"][0]
    assert (site[2], threads) == ("give", ["giver"])
    assert share >= 0.95
    holder, waiter, seconds = row["pairs"][0]
    assert (holder, waiter) == ("giver", "waiter")
    assert seconds >= 0.95 * row["total"]
    # Nothing is counted of what was waited for in vain, beside it.
    others = sum(other["total"] for other in rows if other is not row)
    assert others <= planned.at_most - planned.at_least
    first = recording.report().splitlines()[0]
    assert f"{work.kind} 'planned'" in first
    assert work.what in first
    assert "in give (" in first


# -- waits that end otherwise ------------------------------------------------------


def test_the_end_of_a_queue_or_channel_is_given():
    with profile.record() as recording:
        queue = profile.name(fastsync.queue.Queue(1), "queue")
        sender, receiver = fastsync.channel.unbounded()
        profile.name(sender, "channel")
        full, unread = fastsync.channel.bounded(1)
        profile.name(unread, "unread")
        full.send(1)

        def take():
            with pytest.raises(fastsync.queue.ShutDown):
                queue.get()

        def receive():
            with pytest.raises(fastsync.channel.RecvClosed):
                receiver.recv()

        def send():
            with pytest.raises(fastsync.channel.SendClosed):
                full.send(2)

        def end():
            while len([row for row in profile.now().locks() if row["going_on"]]) < 3:
                time.sleep(0.001)
            time.sleep(0.01)
            queue.shutdown()
            sender.close()
            unread.close()

        run_all(*[named(f, f.__name__) for f in (take, receive, send, end)])
    rows = {row["name"]: row for row in recording.recording.locks()}
    for name in ("queue", "channel", "unread"):
        site, threads, _, share = rows[name]["holding"][0]
        assert (site[2], threads) == ("end", ["end"])
        assert share > 0.95
        assert rows[name]["total"] >= 0.01


def test_a_wait_without_an_outcome_is_charged_to_no_thread():
    with profile.record() as recording:
        queue = fastsync.queue.Queue()
        _open, receiver = fastsync.channel.bounded(1)
        with pytest.raises(fastsync.queue.Empty):
            queue.get(timeout=0.01)
        assert fastsync.channel.select(receiver, timeout=0.01) == (None, None)
        with pytest.raises(fastsync.queue.Empty):
            queue.get_nowait()  # no wait at all
    (row,) = recording.recording.locks()
    assert (row["kind"], row["waits"], row["holding"]) == ("Queue", 1, [])
    assert row["total"] >= 0.01


def test_a_queue_that_is_opened_meanwhile(wait_until):
    with profile.record() as recording:
        queue = profile.name(fastsync.queue.Queue(), "opened")
        thread = named(queue.get, "waiter")
        thread.start()
        wait_until(lambda: any(row["going_on"] for row in profile.now().locks()))
        assert len(queue.queue) == 0
        queue.put(1)
        thread.join(JOIN)
        assert not thread.is_alive()
    rows = recording.recording.locks()
    assert not any(row["going_on"] for row in rows)
    assert [row["waits"] for row in rows if row["name"] == "opened"] == [1]


# -- programs -----------------------------------------------------------------------


def sent(queue, count, seconds=0.0):
    for number in range(count):
        if seconds:
            time.sleep(seconds)
        queue.put(number)
    queue.put(None)


def received(queue, seconds=0.0):
    while queue.get() is not None:
        if seconds:
            time.sleep(seconds)


def passed_on(source, target):
    while (item := source.get()) is not None:
        target.put(item)
    target.put(None)


def recorded_together(*threads):
    """Record from when all of them run, until they have ended: (name, function, arguments...)."""
    gate = threading.Barrier(len(threads) + 1)

    def run(function, *arguments):
        gate.wait(JOIN)
        function(*arguments)

    running = [named(run, name, *call) for name, *call in threads]
    for thread in running:
        thread.daemon = True
        thread.start()
    while gate.n_waiting < len(threads):
        time.sleep(0.001)
    with profile.record() as recording:
        gate.wait(JOIN)
        for thread in running:
            thread.join(JOIN)
            assert not thread.is_alive()
    return recording


@pytest.mark.parametrize("size", [0, 2])
def test_the_first_line_names_a_slow_producer(size):
    queue = profile.name(fastsync.queue.Queue(size), "orders")
    recording = recorded_together(
        ("slow", sent, queue, 20, 0.005),
        ("idle", received, queue),
    )
    first = recording.report().splitlines()[0]
    assert first.startswith("No thread waited for a lock in ")
    assert "Queue 'orders', for an item: given at " in first
    assert " in sent (" in first
    assert " in received: " in first
    (row,) = [row for row in recording.recording.locks() if row["for"] == "an item"]
    assert row["pairs"][0][:2] == ("slow", "idle")


def recorded_pipeline(queues):
    """Three stages, of which the last is the slowest."""
    return recorded_together(
        ("source", sent, queues[0], 60),
        ("first", passed_on, queues[0], queues[1]),
        ("second", passed_on, queues[1], queues[2]),
        ("sink", received, queues[2], 0.005),
    )


def test_the_first_line_names_the_slowest_of_a_pipeline():
    """Those before it are full as well, but make nobody wait of their own."""
    queues = [profile.name(fastsync.queue.Queue(2), f"stage {i}") for i in range(3)]
    first = recorded_pipeline(queues).report().splitlines()[0]
    assert "Queue 'stage 2', for room: given at " in first
    assert " in received (" in first
    assert " in passed_on: " in first


def test_the_slowest_among_queues_that_one_line_made():
    with profile.record():  # so that it is known where they are made
        queues = [fastsync.queue.Queue(2) for i in range(3)]
    first = recorded_pipeline(queues).report().splitlines()[0]
    assert "(3 of them), for room: given at " in first
    assert " in received (" in first
    assert " in passed_on: " in first


class Hooked(fastsync.queue.Queue):
    """One whose calls go by its conditions."""

    def _put(self, item):
        super()._put(item)


def test_a_queue_with_hooks_is_known_by_its_conditions():
    with profile.record() as recording:
        queue = Hooked()

        def put():
            while not any(row["going_on"] for row in profile.now().locks()):
                time.sleep(0.001)
            time.sleep(0.01)
            queue.put(1)

        run_all(named(queue.get, "getter"), named(put, "putter"))
    (row,) = [row for row in recording.recording.locks() if row["kind"] == "Hooked.not_empty"]
    assert row["made"][2] == "test_a_queue_with_hooks_is_known_by_its_conditions"
    assert row["pairs"][0][:2] == ("putter", "getter")
    assert row["total"] >= 0.01


def test_a_lock_comes_before_idle_consumers():
    queue = fastsync.queue.Queue()
    lock = profile.name(drop_in.Lock(), "contended")

    def hold():
        begin = time.monotonic()
        with lock:
            while not any(r["going_on"] and r["kind"] == "Lock" for r in profile.now().locks()):
                time.sleep(0.001)
            time.sleep(max(0.02, 0.2 * (time.monotonic() - begin)))
        queue.shutdown()

    def take():
        while not lock.locked():
            time.sleep(0.001)
        with lock:
            pass

    idle = [(f"idle {i}", lambda: list(queue)) for i in range(4)]
    recording = recorded_together(("one", hold), ("other", take), *idle)
    first = recording.report().splitlines()[0]
    assert first.startswith("Lock 'contended': held at ")
    assert " in hold (" in first
    assert " in take: " in first
