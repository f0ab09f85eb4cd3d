"""Condvars: queues and turns."""

import threading
import time

import fastsync as fs
from storms.crowd import TIMEOUTS, storm
from storms.guards import shares


def wait_while(condvar, guard, predicate, chance):
    """Wait in one of the ways as long as the predicate is true; whether it no longer is."""
    timeout = chance.choice((*TIMEOUTS, 0.1))
    match chance.randrange(5):
        case 0:
            condvar.wait_while(guard, predicate)
        case 1:
            timed_out = condvar.wait_while_for(guard, predicate, timeout)
            assert timed_out or not predicate(guard.value)
        case 2:
            timed_out = condvar.wait_while_until(guard, predicate, time.monotonic() + timeout)
            assert timed_out or not predicate(guard.value)
        case 3 if predicate(guard.value):
            condvar.wait_for(guard, timeout)
        case 4 if predicate(guard.value):
            condvar.wait(guard)
    return not predicate(guard.value)


def condvar_queue(crowd):
    """Every item arrives once, however its receiver waits."""
    threads = 3
    box, not_empty, not_full = fs.Mutex([]), fs.Condvar(), fs.Condvar()
    sent, received, done = [], [], []

    def produce(chance):
        count = 0
        while crowd.going():
            with box as guard:
                if wait_while(not_full, guard, lambda items: len(items) >= 4, chance):
                    guard.value.append((threading.get_ident(), count))
                    count += 1
                    not_empty.notify_one()
        with box:
            sent.append(count)
            done.append(1)
            not_empty.notify_all()

    def nothing_yet(items):
        return not items and len(done) < threads

    def consume(chance):
        while True:
            with box as guard:
                if not wait_while(not_empty, guard, nothing_yet, chance):
                    continue
                if not guard.value:
                    return
                received.append(guard.value.pop(0))
                chance.choice((not_full.notify_one, not_full.notify_all))()

    crowd.start(produce, threads)
    crowd.start(consume, threads)
    crowd.join()
    assert len(received) == len(set(received)) == sum(sent), "an item was lost or came twice"
    assert not box.is_locked() and not_empty.notify_all() == not_full.notify_all() == 0
    return len(received)


def condvar_turns(crowd):
    """Three threads in turn, each of which wakes the next: a lost wake-up stops them for good."""
    table, changed = fs.Mutex(0), [fs.Condvar() for _ in range(3)]

    def play(me):
        def run(chance):
            last = False
            while not last:
                with table as guard:
                    if wait_while(changed[me], guard, lambda turn: turn % 3 != me, chance):
                        last = not crowd.going()  # so it is for those after this one
                        guard.value += 1
                        following = changed[guard.value % 3]
                        chance.choice((following.notify_one, following.notify_all))()

        return run

    for me in range(3):
        crowd.start(play(me))
    crowd.join()
    return table.into_inner()


@storm
def condvar(crowd):
    """Waits on Condvars in every way, for the items of a queue and for one's turn."""
    trials = (condvar_queue, condvar_turns)
    return sum(trial(part) for part, trial in shares(crowd, trials))
