"""Random programs against an oracle: a call raises DeadlockError exactly when it would never end.

A program runs in lock step: one thread at a time gets one thing to do, and the model below says
whether it ends, waits, or would close a circle. What the model calls a deadlock it finds by
reduction, not by looking for cycles: threads that do not wait may release all they hold; whoever
can go on then does the same; those who are left never end.
"""

import queue
import random
import threading
import time

import pytest

import fastsync.threading as drop_in
from fastsync import FairMutex, Mutex, ReentrantMutex, RwLock, deadlock
from fastsync._watch import holds

THREADS = 3
DEADLINE = 30.0
ENOUGH = 45.0  # seconds in the long tests; a busy machine does fewer than all programs

# Kind of lock -> ways to take it.
KINDS = {
    drop_in.Lock: ["block"],
    drop_in.RLock: ["block", "acquire"],
    drop_in.Condition: ["block", "acquire"],
    Mutex: ["block", "lock"],
    FairMutex: ["block", "lock"],
    ReentrantMutex: ["block"],
    RwLock: ["read", "write", "upgradable_read", "read_recursive"],
}
REENTRANT = (drop_in.RLock, drop_in.Condition, ReentrantMutex)
SHARED = ("read", "read_recursive")


class Worker:
    """A thread that does one thing at a time."""

    def __init__(self, index):
        self.index = index
        self.orders = queue.SimpleQueue()
        self.done = queue.SimpleQueue()
        self.thread = threading.Thread(target=self.run, name=f"worker {index}", daemon=True)
        self.thread.start()

    def run(self):
        while (order := self.orders.get()) is not None:
            try:
                self.done.put((True, order()))
            except BaseException as error:
                self.done.put((False, error))

    def stop(self):
        self.orders.put(None)
        self.thread.join(DEADLINE)
        assert not self.thread.is_alive()


def take(lock, way):
    """Take it and return the function that releases it."""
    if way == "acquire":
        lock.acquire()
        return lock.release
    if way == "block":
        lock.__enter__()
        return lambda: lock.__exit__(None, None, None)
    return getattr(lock, way)().unlock


class Program:
    """The model: who holds what how, and who waits for what."""

    def __init__(self, rng, workers):
        self.rng = rng
        self.workers = workers
        kinds = list(KINDS)
        self.locks = [rng.choice(kinds)() for _ in range(rng.choice([2, 3]))]
        self.holds = {worker: [] for worker in workers}  # [(lock, way, release)]
        self.waits = {}  # worker -> (lock, way)
        self.claimed = set()  # threads, as they are seen: of several writers, one claims
        self.raised = self.made_by_release = 0
        self.steps = []

    # What keeps a taking of `lock` from ending, among the threads in `living`.
    def keepers(self, me, lock, way, living):
        found = set()
        for worker in living:
            for held, how, _ in self.holds[worker]:
                if held is not lock or (worker is me and isinstance(lock, REENTRANT)):
                    continue
                if way in SHARED:
                    keeps = how == "write"
                elif way == "upgradable_read":
                    keeps = how in ("write", "upgradable_read")
                else:
                    keeps = True
                if keeps:
                    found.add(worker)
        if way in ("read", "upgradable_read"):
            found |= {w for w in living if w is not me and self.claims(w, lock)}
        elif way == "read_recursive" and not self.is_read(lock):
            found |= {w for w in living if w is not me and self.claims(w, lock)}
        return found

    def is_read(self, lock):
        return any(
            h is lock and how != "write" for held in self.holds.values() for h, how, _ in held
        )

    def claims(self, worker, lock):
        """Whether this thread waits to write, and for readers only: it keeps new ones out."""
        return worker in self.claimed and self.waits.get(worker) == (lock, "write")

    def may_claim(self, lock):
        hows = {how for held in self.holds.values() for h, how, _ in held if h is lock}
        return bool(hows) and not hows & {"write", "upgradable_read"}

    def stuck(self):
        living = set(self.workers)
        while True:
            free = {
                w
                for w in living
                if w not in self.waits or not self.keepers(w, *self.waits[w], living)
            }
            if not free:
                return living
            living -= free

    def grantable(self):
        everyone = set(self.workers)
        return {w for w, wait in self.waits.items() if not self.keepers(w, *wait, everyone)}

    # What happens.

    def step(self):
        idle = [worker for worker in self.workers if worker not in self.waits]
        worker = self.rng.choice(idle)
        held = self.holds[worker]
        if held and (len(held) >= 3 or self.rng.random() < 0.35):
            self.release(worker, self.rng.randrange(len(held)))
        else:
            self.take(worker)

    def take(self, worker):
        lock = self.rng.choice(self.locks)
        way = self.rng.choice(KINDS[type(lock)])
        self.steps.append((worker.index, way, self.locks.index(lock)))
        self.waits[worker] = lock, way
        stuck = self.stuck()
        worker.orders.put(lambda: take(lock, way))
        if stuck:
            fine, error = worker.done.get(timeout=DEADLINE)
            assert not fine, f"{self.steps}: it would have waited for ever"
            assert isinstance(error, deadlock.DeadlockError), error
            assert {t.thread_id for t in error.cycle} <= {w.thread.ident for w in stuck}
            assert worker.thread.ident in {t.thread_id for t in error.cycle}
            del self.waits[worker]
            self.raised += 1
        self.settle()

    def release(self, worker, index):
        lock, way, release = self.holds[worker].pop(index)
        self.steps.append((worker.index, "release", way, self.locks.index(lock)))
        worker.orders.put(release)
        fine, error = worker.done.get(timeout=DEADLINE)
        assert fine, f"{self.steps}: {error!r}"
        self.settle()

    def settle(self):
        """Let all that can go on do so, and everybody else be seen waiting."""
        deadline = time.monotonic() + DEADLINE
        while not self.all_are_seen() or self.grantable():
            assert time.monotonic() < deadline, f"{self.steps}: {self.waits}"
            for worker in list(self.waits):
                try:
                    fine, result = worker.done.get(timeout=0.0002)
                except queue.Empty:
                    continue
                lock, way = self.waits.pop(worker)
                assert fine, f"{self.steps}: {result!r}, but it is no deadlock"
                self.holds[worker].append((lock, way, result))

        if stuck := self.stuck():
            # A release made it, of waits that were there: nothing raises, but it is found.
            cycle = deadlock.check()[0]
            assert {t.thread_id for t in cycle} <= {w.thread.ident for w in stuck}
            self.made_by_release += 1
            # Any thread may end a guard, so this one lets them go on.
            for worker in stuck:
                for held in [held for held in self.holds[worker] if isinstance(held[0], RwLock)]:
                    held[2]()
                    self.holds[worker].remove(held)
            self.settle()

    def all_are_seen(self):
        """Whether all who wait are parked: so that each next step finds the same state."""
        _, waits = holds.snapshot()
        parked = {wait[2]: wait[5] for wait in waits}
        self.claimed = {w for w in self.waits if parked.get(w.thread.ident) == 2}
        writing = {id(lock): lock for lock, way in self.waits.values() if way == "write"}
        return all(parked.get(w.thread.ident) for w in self.waits) and all(
            sum(self.claims(w, lock) for w in self.waits) == self.may_claim(lock)
            for lock in writing.values()
        )

    def finish(self):
        while self.waits or any(self.holds.values()):
            for worker in self.workers:
                if worker not in self.waits:
                    while self.holds[worker]:
                        self.release(worker, self.rng.randrange(len(self.holds[worker])))


@pytest.fixture
def raising():
    deadlock.enable(action="raise")
    yield
    deadlock.disable()


@pytest.mark.stress
@pytest.mark.parametrize("enough", [6.0, pytest.param(ENOUGH, marks=pytest.mark.slow)])
def test_a_thousand_random_programs(raising, enough):
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    workers = [Worker(index) for index in range(THREADS)]
    began = time.monotonic()
    raised = quiet = 0
    try:
        for number in range(1000):
            program = Program(random.Random(rng.getrandbits(64)), workers)
            for _ in range(14):
                if not program.made_by_release:
                    program.step()
            program.finish()
            assert deadlock.check(suspicions=True) == []
            raised += program.raised > 0
            quiet += not program.raised
            if time.monotonic() - began > enough and number >= 50:
                break
    finally:
        for worker in workers:
            worker.stop()
    print("programs that deadlock:", raised, "others:", quiet)
    assert raised > 5
    assert quiet > 5


# -- correct programs, at full speed ---------------------------------------------


def correct_program(rng):
    """Threads that take locks in one order, move guards, use locks as signals, and wait; start
    and join them all."""
    locks = [rng.choice(list(KINDS))() for _ in range(4)]
    locks.sort(key=id)
    condition = drop_in.Condition()
    moved, signal = Mutex(), drop_in.Lock()
    box = queue.SimpleQueue()
    errors = []

    def nested(chosen):
        if not chosen:
            return
        way = rng.choice(KINDS[type(chosen[0])])
        release = take(chosen[0], way)
        try:
            nested(chosen[1:])
        finally:
            release()

    def ordered():
        for _ in range(3):
            nested([lock for lock in locks if rng.random() < 0.6])

    def tries():
        for lock in reversed(locks):
            if isinstance(lock, RwLock):
                guard = lock.try_write()
                if guard is not None:
                    guard.unlock()
            elif hasattr(lock, "try_lock"):
                guard = lock.try_lock_for(0.0005)
                if guard is not None:
                    guard.unlock()
            elif lock.acquire(timeout=0.0005):
                lock.release()

    def gives():
        box.put(moved.lock())  # another thread ends it
        with condition:
            condition.notify_all()
        signal.acquire()
        signal.acquire()  # until the other thread has released it
        signal.release()

    def ends():
        guard = box.get()
        with condition:
            condition.wait(0.001)
        guard.unlock()
        while not signal.locked():
            time.sleep(0)
        signal.release()

    def guarded(function):
        def run():
            try:
                function()
            except BaseException as error:
                errors.append(error)

        return run

    functions = [ordered, ordered, tries, gives, ends]
    rng.shuffle(functions)
    threads = [threading.Thread(target=guarded(f), daemon=True) for f in functions]
    for thread in threads:
        thread.start()
    return threads, errors


@pytest.mark.stress
def test_correct_programs_raise_nothing(raising):
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    began = time.monotonic()
    for _ in range(1000):
        threads, errors = correct_program(random.Random(rng.getrandbits(64)))
        for thread in threads:
            thread.join()
        assert errors == []
        if time.monotonic() - began > ENOUGH:
            break
    assert deadlock.check() == []
