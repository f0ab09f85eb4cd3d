"""The collector and the locks: tracked only when it matters, collected when in a cycle."""

import gc
import sys
import sysconfig
import threading
import weakref

import natives
import pytest
from conftest import background, collect_between_steps, run_threads, wait_asleep, wait_until

import fastsync
import fastsync.queue
import fastsync.threading as fs

EXTENSIBLE = {
    "Condition": fs.Condition,
    "Semaphore": fs.Semaphore,
    "BoundedSemaphore": fs.BoundedSemaphore,
    "Event": fs.Event,
    "Barrier": lambda: fs.Barrier(2),
}
ALL = {"Lock": fs.Lock, "RLock": fs.RLock, **EXTENSIBLE}


class Witness:
    """Something to die with a cycle; `dead` counts, as weak references are cleared too early."""

    dead = 0

    def __del__(self):
        Witness.dead += 1


def collected(make_cycle, count=10):
    """How many of `count` cycles that hold a Witness the collector frees."""
    gc.collect()
    before, objects = Witness.dead, len(gc.get_objects())
    for _ in range(count):
        make_cycle(Witness())
    for _ in range(3):
        gc.collect()
    assert len(gc.get_objects()) - objects < count, "cycles are still alive"
    return Witness.dead - before == count


@pytest.mark.parametrize("name", ALL)
def test_new_object_is_not_tracked(name):
    thing = ALL[name]()
    assert not gc.is_tracked(thing)


@pytest.mark.parametrize("name", EXTENSIBLE)
def test_object_is_tracked_once_it_has_attributes(name):
    for touch in (lambda x: setattr(x, "a", 1), vars, lambda x: setattr(x, "__dict__", {})):
        thing = EXTENSIBLE[name]()
        touch(thing)
        assert gc.is_tracked(thing)
        gc.collect()


def test_condition_is_tracked_once_it_may_be_part_of_a_cycle():
    for lock in (None, fs.Lock(), fs.RLock()):  # these refer to nothing
        assert not gc.is_tracked(fs.Condition(lock))
    assert gc.is_tracked(fs.Condition(type("Sub", (fs.RLock,), {})()))
    assert gc.is_tracked(fs.Barrier(1, print))


@pytest.mark.parametrize("name", EXTENSIBLE)
def test_cycle_through_the_attributes_is_collected(name):
    def make_cycle(witness):
        thing = EXTENSIBLE[name]()
        thing.me, thing.witness = thing, witness

    assert collected(make_cycle)


@pytest.mark.parametrize("base", ["RLock", *EXTENSIBLE])
def test_cycle_through_a_subclass_is_collected(base):
    kind = type(ALL[base]())

    class Sub(kind):
        def __init__(self, *arguments):
            if kind is not fs.RLock:
                super().__init__(*arguments)

    class Slots(kind):
        __slots__ = ("me", "witness")

    arguments = (2,) if base == "Barrier" else ()
    for cls in (Sub, Slots):

        def make_cycle(witness, cls=cls):
            thing = cls(*arguments)
            thing.me, thing.witness = thing, witness

        assert collected(make_cycle)


def test_condition_and_its_lock_object_are_collected():
    def make_cycle(witness):
        condition = fs.Condition()
        repr(condition)
        weakref.finalize(condition, lambda witness: None, witness)

    assert collected(make_cycle)

    def with_view_outside(witness):
        view = fs.Condition()._lock
        with view:
            pass

    for _ in range(100):
        with_view_outside(None)
    gc.collect()


def test_lock_object_of_a_condition_keeps_it_alive():
    view = fs.Condition()._lock
    gc.collect()
    with view:
        assert view._is_owned()


def test_cycle_through_the_lock_of_a_condition_is_collected():
    class Sub(fs.RLock):
        pass

    class Duck:
        def __init__(self):
            self.lock = threading.Lock()
            self.acquire, self.release = self.lock.acquire, self.lock.release
            self.locked = self.lock.locked

    for make in (Sub, Duck):

        def make_cycle(witness, make=make):
            lock = make()
            lock.condition, lock.witness = fs.Condition(lock), witness

        assert collected(make_cycle)


def test_cycle_through_the_action_of_a_barrier_is_collected():
    class Sub(fs.Barrier):
        def __init__(self, witness):
            super().__init__(2, self.act)
            self.witness = witness

        def act(self):
            pass

    assert collected(Sub)

    def built_in(witness):
        barrier = fs.Barrier(2)
        barrier.witness = witness
        barrier.__init__(2, barrier.abort)

    assert collected(built_in)

    def closure(witness):
        barrier = fs.Barrier(2, lambda: (barrier, witness))

    assert collected(closure)


def test_cycle_between_event_and_its_condition_is_collected():
    def make_cycle(witness):
        event = fs.Event()
        event._cond.event = event
        event.witness = witness

    assert collected(make_cycle)


@pytest.mark.parametrize("name", ALL)
def test_object_survives_collections_while_a_thread_waits_on_it(name):
    thing = ALL[name]()
    if name not in ("Lock", "RLock"):
        thing.me = thing

    def wait():
        if name in ("Event", "Barrier"):
            thing.wait(20)
        elif name == "Condition":
            with thing:
                assert thing.wait(20)
        else:
            assert thing.acquire(timeout=20)
            thing.release()

    def end():
        if name == "Event":
            thing.set()
        elif name == "Barrier":
            thing.wait(20)
        elif name == "Condition":
            with thing:
                thing.notify()
        else:
            thing.release()

    if name not in ("Event", "Barrier", "Condition"):
        thing.acquire()
    with background(wait) as threads:
        wait_asleep(*threads)
        for _ in range(3):
            gc.collect()
        end()


def test_waiter_alone_keeps_the_object_alive():
    results, started = [], []

    def wait():
        condition = fs.Condition()
        condition.me = condition
        started.append(weakref.ref(condition))
        with condition:
            results.append(condition.wait(20))

    with background(wait):
        wait_until(lambda: started and len(started[0]()._waiters) == 1)
        for _ in range(3):
            gc.collect()
        condition = started[0]()
        with condition:
            condition.notify()
        del condition
    assert results == [True]


def test_native_waiters_alone_keep_their_objects_and_hold_up_no_collection():
    # Every Wait is in a cycle, and only the threads that wait in it refer to it.
    waits = {name: make() for name, make in natives.WAITS.items()}
    references = {name: weakref.ref(wait) for name, wait in waits.items()}
    threads = natives.start_waiters(waits)
    waits.clear()
    for _ in range(5):
        gc.collect()
    for name, reference in references.items():
        assert reference() is not None, name
        reference().wake()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    threads.clear()
    gc.collect()
    wait_until(lambda: gc.collect() is not None and not any(r() for r in references.values()))


@pytest.mark.parametrize("name", natives.USES)
def test_finalizer_in_a_cycle_may_use_every_native_type(name):
    it, done, errors = natives.USES[name], [], []

    class Finalized:
        def __init__(self):
            self.me = self
            self.thing = it.make()

        def __del__(self):
            try:
                it.use(self.thing)
                it.in_order(self.thing)
            except BaseException as error:
                errors.append(error)
            done.append(1)

    def work(_):
        for _ in range(3):
            Finalized()
            gc.collect()

    run_threads(work, count=2)
    gc.collect()
    assert len(done) == 6 and not errors


def test_finalizer_in_a_cycle_may_use_every_primitive():
    things = [make() for name, make in ALL.items() if name not in ("Event", "Barrier")]
    event, done = fs.Event(), []

    class Finalized:
        def __init__(self):
            self.me = self
            self.condition = fs.Condition()
            self.condition.owner = self

        def __del__(self):
            for thing in things:
                if thing.acquire(timeout=10):
                    thing.release()
            event.set()
            with self.condition:
                self.condition.wait(0)
                self.condition.notify_all()
            repr(self.condition)
            done.append(1)

    def work(_):
        for _ in range(5):
            Finalized()
            gc.collect()

    run_threads(work, count=3)
    gc.collect()
    assert len(done) == 15 and event.is_set()


def test_finalizer_may_resurrect_a_condition():
    kept = []

    class Sub(fs.Condition):
        def __del__(self):
            kept.append(self)

    condition = Sub()
    condition.me = condition
    repr(condition)
    del condition
    gc.collect()
    assert len(kept) == 1
    with kept[0], kept[0]._lock:
        assert kept[0].wait(0) is False
        assert kept[0].me is kept[0]


def test_weak_reference_callback_may_lock():
    lock, condition, calls = fs.Lock(), fs.Condition(), []

    def callback(_):
        with lock, condition:
            condition.notify_all()
            calls.append(1)

    for make in ALL.values():
        thing = make()
        reference = weakref.ref(thing, callback)
        del thing
        gc.collect()
        assert reference() is None
    assert len(calls) == len(ALL)


def test_collection_is_not_held_up_by_waiters():
    # A thread that waits attached would stop every collection until it is woken.
    lock, event, condition = fs.Lock(), fs.Event(), fs.Condition()
    lock.acquire()

    def with_condition():
        with condition:
            condition.wait(20)

    with background(
        lambda: lock.acquire(timeout=20), lambda: event.wait(20), with_condition
    ) as threads:
        wait_asleep(*threads)
        for _ in range(20):
            gc.collect()
        event.set()
        lock.release()
        with condition:
            condition.notify()


def test_collections_at_every_step_do_not_disturb_contended_locks():
    lock, condition, stop, total = fs.Lock(), fs.Condition(), threading.Event(), 0

    def collect():
        generation = 0 if sys.version_info >= (3, 14) else 2
        collect_between_steps(lambda: not stop.is_set(), lambda: total, generation)

    def work(_):
        nonlocal total
        for i in range(100):
            with lock:
                total += 1
            with condition:
                condition.notify()
                if i % 50 == 0:
                    condition.wait(0.001)

    with background(collect):
        try:
            run_threads(work, count=3)
        finally:
            stop.set()
    assert total == 300


@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="3.13t itself crashes, with a class written in Python, too",
)
def test_dictionary_may_be_replaced_and_read_at_once():
    for make in EXTENSIBLE.values():
        thing = make()

        def work(i, thing=thing):
            for n in range(200):
                if i == 0:
                    thing.__dict__ = {"name": n}
                elif i == 1:
                    vars(thing).get("name")
                else:
                    getattr(thing, "name", None)

        run_threads(work, count=3)


def test_dictionary_must_be_one():
    condition = fs.Condition()
    for value in (1, None, "x"):
        with pytest.raises(TypeError):
            condition.__dict__ = value
    assert vars(condition) == {}


MUTEXES = [fastsync.Mutex, fastsync.FairMutex, fastsync.ReentrantMutex]


@pytest.mark.parametrize("kind", MUTEXES)
def test_a_dead_guard_in_the_traceback_of_an_error_that_the_mutex_protects(kind):
    def make_cycle(witness):
        errors = [witness]
        mutex = kind(errors)
        try:
            with mutex as guard:
                guard.value  # noqa: B018
                raise KeyError
        except KeyError as error:
            errors.append(error)

    assert collected(make_cycle)


@pytest.mark.parametrize("kind", MUTEXES)
def test_a_live_guard_that_its_own_mutex_protects(kind):
    def kept(witness):
        mutex = kind([witness])
        guard = mutex.lock()
        guard.value.append(guard)

    def by_hand(witness):
        mutex = kind([witness])
        mutex.__enter__()
        mutex.__enter__() if kind is fastsync.ReentrantMutex else None

    def by_hand_and_kept(witness):
        mutex = kind([witness])
        guard = mutex.__enter__()
        guard.value.extend((guard, mutex))

    def suspended(witness):
        mutex = kind([witness])

        def hold():
            with mutex as guard:
                yield guard

        generator = hold()
        next(generator).value.append(generator)

    for make_cycle in (kept, by_hand, by_hand_and_kept, suspended):
        assert collected(make_cycle), make_cycle


@pytest.mark.parametrize("kind", MUTEXES)
def test_collections_leave_live_guards_alone(kind):
    mutex = kind([0])
    stop = threading.Event()
    steps = 0

    def collect():
        collect_between_steps(lambda: not stop.is_set(), lambda: steps)

    def work():
        nonlocal steps
        try:
            for _ in range(300):
                with mutex as guard:
                    steps += 1
                    guard.value[0] += 1
                guard = mutex.lock()
                guard.value[0] += 1
                guard.unlock()
        finally:
            workers.pop()
            if not workers:
                stop.set()

    workers = [1, 1, 1]
    run_threads([collect, work, work, work])
    assert mutex.into_inner() == [1800]


def set_value(guard, value):
    guard.value = value
    guard.unlock()


HOLDERS = {
    "Mutex": lambda it: (x := fastsync.Mutex(), set_value(x.lock(), (x, it))),
    "FairMutex": lambda it: (x := fastsync.FairMutex(), set_value(x.lock(), (x, it))),
    "ReentrantMutex": lambda it: (x := fastsync.ReentrantMutex(), set_value(x.lock(), (x, it))),
    "RwLock": lambda it: (x := fastsync.RwLock(), set_value(x.write(), (x, it))),
    "ShardedLock": lambda it: (x := fastsync.ShardedLock(), set_value(x.write(), (x, it))),
    "RwLock.reader": lambda it: (x := fastsync.RwLock(), set_value(x.write(), (x.reader, it))),
    "ShardedLock.writer": lambda it: (
        x := fastsync.ShardedLock(),
        set_value(x.write(), (x.writer, it)),
    ),
    "MutexGuard": lambda it: (x := fastsync.Mutex().lock(), setattr(x, "value", (x, it))),
    "ReadGuard": lambda it: (x := fastsync.RwLock([]).read(), x.value.append((x, it))),
    "AtomicRef": lambda it: (x := fastsync.AtomicRef(), x.store((x, it))),
    "AtomicCell": lambda it: (x := fastsync.AtomicCell(), x.store((x, it))),
    "Arc": lambda it: fastsync.Arc.new_cyclic(lambda weak: (weak, it)),
    "Arc.on_drop": lambda it: (box := [it], box.append(fastsync.Arc(box, box.append))),
    "OnceLock": lambda it: (x := fastsync.OnceLock(), x.set((x, it))),
    "LazyLock": lambda it: (x := fastsync.LazyLock(lambda: (x, it)), x.force()),
    "once": lambda it: (x := fastsync.once(lambda: (x, it)), x()),
    "Queue": lambda it: (x := fastsync.queue.Queue(), x.put((x, it))),
    "SimpleQueue": lambda it: (x := fastsync.queue.SimpleQueue(), x.put((x, it))),
    "PriorityQueue": lambda it: (x := fastsync.queue.PriorityQueue(), x.put((x, it))),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_a_cycle_that_only_its_holder_can_break_is_collected(name):
    # A tuple breaks none.
    assert collected(HOLDERS[name])
