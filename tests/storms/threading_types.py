"""The types of fastsync.threading."""

import threading
import time

import fastsync.threading as drop_in
from storms.crowd import PATIENCE, Guarded, exclusion, queue, storm


@storm
def lock(crowd):
    return exclusion(crowd, drop_in.Lock())


@storm
def rlock(crowd):
    return exclusion(crowd, drop_in.RLock())


@storm
def condition_lock(crowd):
    return exclusion(crowd, drop_in.Condition())


@storm
def semaphore(crowd):
    return exclusion(crowd, drop_in.BoundedSemaphore(1))


@storm
def condition(crowd):
    return queue(crowd, drop_in.Lock())


@storm
def condition_over_rlock(crowd):
    return queue(crowd, drop_in.RLock())


@storm
def condition_over_a_foreign_lock(crowd):
    return queue(crowd, threading.Lock())


@storm
def permits(crowd):
    """Permits are neither made nor lost, with waiters that time out and are woken at once."""
    semaphore = drop_in.Semaphore(0)
    given, taken = [], []

    def give(chance):
        count = 0
        while crowd.going():
            n = chance.choice((1, 1, 2, 5))
            semaphore.release(n)
            count += n
            if chance.random() < 0.1:
                time.sleep(chance.random() * 0.001)
        given.append(count)

    def get(chance):
        count = 0
        while crowd.going():
            timeout = chance.choice((0, 1e-6, 1e-4, 1e-3, 0.01))
            count += semaphore.acquire(timeout=timeout)
        taken.append(count)

    crowd.start(give, 2)
    crowd.start(get, 4)
    crowd.join()
    assert sum(given) == sum(taken) + semaphore._value, "a permit was lost or made"
    return sum(given)


@storm
def ping_pong(crowd):
    """Two events in turn: a lost wake-up stops it for good."""
    ping, pong, rounds = drop_in.Event(), drop_in.Event(), [0]

    def play(mine, theirs):
        while crowd.going():
            assert mine.wait(PATIENCE), "a wake-up was lost"
            mine.clear()
            rounds[0] += 1
            theirs.set()
        theirs.set()

    ping.set()
    crowd.start(lambda _: play(ping, pong))
    crowd.start(lambda _: play(pong, ping))
    crowd.join()
    return rounds[0]


@storm
def event(crowd):
    """Waiters of all kinds while others set and clear."""
    event, woken = drop_in.Event(), [0]

    def wait(chance):
        while crowd.going():
            woken[0] += event.wait(chance.choice((0, 1e-6, 1e-4, 0.01, 1)))

    def pulse(chance):
        while crowd.going():
            event.set()
            if chance.random() < 0.5:
                event.clear()
        event.set()

    crowd.start(wait, 5)
    crowd.start(pulse, 2)
    crowd.join()
    return woken[0]


@storm
def barrier(crowd):
    """Rounds with timeouts, aborts and resets: who passes has all the others beside it."""
    parties = 3
    barrier = drop_in.Barrier(parties)
    passed = []

    def work(chance):
        count = 0
        while crowd.going():
            try:
                barrier.wait(chance.choice((1e-5, 1e-3, 0.1, 1)))
                count += 1
            except threading.BrokenBarrierError:
                if chance.random() < 0.5:
                    barrier.reset()
            if chance.random() < 0.01:
                chance.choice((barrier.abort, barrier.reset))()
        passed.append(count)

    crowd.start(work, 5)
    crowd.join()
    assert sum(passed) % parties == 0, "part of a round passed"
    barrier.reset()
    assert barrier.n_waiting == 0
    return sum(passed)


@storm
def crowd_of_500(crowd):
    """More threads than cores by far, on one lock, one condition and one semaphore."""
    lock, condition, permits, guarded = (
        drop_in.Lock(),
        drop_in.Condition(),
        drop_in.Semaphore(3),
        Guarded(),
    )
    gate = drop_in.Barrier(500)

    def work(_):
        gate.wait(PATIENCE)
        for _ in range(3):
            with lock:
                guarded.touch()
            with condition:
                condition.notify()
                condition.wait(0.001)
            with permits:
                pass

    crowd.start(work, 500)
    crowd.join()
    assert guarded.total == 1500
    return guarded.total
