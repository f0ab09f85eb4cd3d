"""Every method when memory runs out: on its way to success, and on its way to an error."""

import pytest

import fastsync.threading as ours

capi = pytest.importorskip("_testcapi")

NAN = float("nan")
HUGE = 10**30


class Duck:
    """A lock of another kind."""

    def __init__(self):
        self.lock = ours.Lock()
        self.acquire, self.release = self.lock.acquire, self.lock.release
        self.locked = self.lock.locked  # a Condition has it, too, from 3.14 on

    def __enter__(self):
        self.acquire()

    def __exit__(self, *exception):
        self.release()


class Sub(ours.Semaphore):
    pass


class SubEvent(ours.Event):
    pass


def held(make):
    lock = make()
    lock.acquire()
    return lock


LOCKS = [ours.Lock, ours.RLock]
CONDITIONS = [ours.Condition, lambda: ours.Condition(ours.Lock()), lambda: ours.Condition(Duck())]
SEMAPHORES = [lambda: ours.Semaphore(1), lambda: ours.BoundedSemaphore(1), lambda: Sub(1)]
EVENTS = [ours.Event, SubEvent]
BARRIERS = [
    lambda: ours.Barrier(1),
    lambda: ours.Barrier(1, lambda: 1 / 0),
    lambda: ours.Barrier(2, None, 0.0001),
]
ANY = [
    repr,
    lambda x: x.__reduce_ex__(2),
    lambda x: x.nothing,
    lambda x: setattr(x, "x", 1),
    lambda x: type(x) is not ours.RLock and type(x)("x"),  # the interpreter cannot warn then
    lambda x: type(x) is not ours.RLock and type(x)(-1),
    lambda x: type(x) is not ours.RLock and type(x)(HUGE),
    lambda x: x.__class__,
]
ACQUIRE = [
    lambda x: x.acquire(),
    lambda x: x.acquire(False),
    lambda x: x.acquire(True, 0.0001),
    lambda x: x.acquire(timeout=-2),
    lambda x: x.acquire(timeout=NAN),
    lambda x: x.acquire(timeout=HUGE),
    lambda x: x.acquire(False, 1),
    lambda x: x.acquire(timeout="x"),
    lambda x: x.acquire(1, 2, 3),
    lambda x: x.acquire(nonsense=1),
    lambda x: x.release(),
    lambda x: x.__enter__(),
    lambda x: x.__exit__(),
]
RLOCK = [
    lambda x: x._release_save(),
    lambda x: x._acquire_restore((0, 0)),
    lambda x: x._acquire_restore((-1, 0)),
    lambda x: x._recursion_count(),
    lambda x: x.release(),
]
CONDITION = [
    lambda x: x.wait(0),
    lambda x: x.wait(0.0001),
    lambda x: x.wait(NAN),
    lambda x: x.wait("x"),
    lambda x: x.wait_for(lambda: 0, 0.0001),
    lambda x: x.wait_for(1),
    lambda x: x.notify(),
    lambda x: x.notify("x"),
    lambda x: x.notify_all(),
    lambda x: x._waiters,
    lambda x: x._lock,
    lambda x: x._release_save(),
    lambda x: x._at_fork_reinit(),
    lambda x: x.__init__(),
    lambda x: setattr(x, "_lock", ours.Lock()),
]
SEMAPHORE = [
    lambda x: x.release(0),
    lambda x: x.release(HUGE),
    lambda x: x.release("x"),
    lambda x: x._value,
    lambda x: setattr(x, "_value", -1),
    lambda x: setattr(x, "_value", 5),
    lambda x: (x._cond, x.release()),
    lambda x: setattr(x, "_cond", 1),
    lambda x: x.__init__(-1),
    lambda x: x.__init__(7),
    lambda x: x.__init__(1.5),
    lambda x: x._initial_value,
]
EVENT = [
    lambda x: x.set(),
    lambda x: x.clear(),
    lambda x: x.wait(0.0001),
    lambda x: x.wait(NAN),
    lambda x: x.wait("x"),
    lambda x: x.is_set(),
    lambda x: (x._cond, x.set()),
    lambda x: setattr(x, "_flag", 1),
    lambda x: setattr(x, "_cond", 1),
    lambda x: x._at_fork_reinit(),
    lambda x: x.__init__(),
]
BARRIER = [
    lambda x: x.wait(),
    lambda x: x.wait(0.0001),
    lambda x: x.wait(NAN),
    lambda x: x.wait("x"),
    lambda x: (x.abort(), x.wait()),
    lambda x: x.reset(),
    lambda x: x.__init__(2, print),
    lambda x: x.__init__(0),
    lambda x: ours.Barrier(3, print, 5),
    lambda x: x._action,
    lambda x: x._state,
    lambda x: setattr(x, "_parties", 3),
    lambda x: setattr(x, "_action", None),
    lambda x: x._cond,
]
TABLE = [(make, use) for make in LOCKS for use in [*ANY, *ACQUIRE]]
TABLE += [(lambda: held(ours.RLock), use) for use in RLOCK]
TABLE += [(make, use) for make in CONDITIONS for use in [*ANY, *ACQUIRE, *CONDITION]]
TABLE += [(lambda make=make: held(make), use) for make in CONDITIONS for use in CONDITION]
TABLE += [(make, use) for make in SEMAPHORES for use in [*ANY, *ACQUIRE, *SEMAPHORE]]
TABLE += [(make, use) for make in EVENTS for use in [*ANY, *EVENT]]
TABLE += [(make, use) for make in BARRIERS for use in [*ANY, *BARRIER]]


def check(index):
    """It succeeds, or raises something: SystemError would say that it failed without a reason."""
    make, use = TABLE[index]
    for first in range(1, 41):
        thing = make()
        capi.set_nomemory(first, first + 400)
        try:
            use(thing)
        except SystemError as error:
            capi.remove_mem_hooks()
            raise AssertionError(f"call {index}, allocation {first}: {error!r}") from None
        except Exception:
            pass
        finally:
            capi.remove_mem_hooks()


def test_calls_without_memory(run_python):
    """In a process of its own: the memory of all its threads is gone."""
    run_python("-W", "ignore", __file__)


if __name__ == "__main__":
    for index in range(len(TABLE)):
        check(index)
