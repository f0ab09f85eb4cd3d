"""Threads and objects that come and go, collections, trace functions."""

import gc
import sys
import threading
import time
import weakref

import fastsync.threading as drop_in
from storms.crowd import PATIENCE, Guarded, queue, storm


@storm
def churn(crowd):
    """Threads begin and end by the hundred while others wait on the same words."""
    lock, condition, event, guarded = (
        drop_in.Lock(),
        drop_in.Condition(),
        drop_in.Event(),
        Guarded(),
    )
    made = 0

    def steady(chance):
        while crowd.going():
            with lock:
                guarded.touch()
            with condition:
                condition.wait(0.0005)
            event.wait(0.0005)

    def short():
        with lock:
            guarded.touch()
        with condition:
            condition.notify_all()
        event.set()
        event.clear()

    crowd.start(steady, 3)
    while crowd.going():
        threads = [threading.Thread(target=short) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a thread is stuck"
        made += 50
    crowd.join()
    return made


@storm
def collector(crowd):
    """Collections without pause: stop-the-world at every moment of a wait."""
    crowd.start(lambda _: [gc.collect() for _ in iter(crowd.going, False)])

    class Finalized:
        def __init__(self, lock):
            self.me, self.lock, self.condition = self, lock, drop_in.Condition()
            self.condition.owner = self

        def __del__(self):
            with self.lock, self.condition:
                self.condition.notify_all()

    other = drop_in.RLock()

    def litter(_):
        while crowd.going():
            Finalized(other)

    crowd.start(litter)
    return queue(crowd, drop_in.Lock(), 2)


@storm
def weak_references(crowd):
    """Objects dropped while others reach them through weak references only."""
    shared = [None]
    reached = [0]

    def replace(chance):
        while crowd.going():
            thing = chance.choice(
                (drop_in.Lock, drop_in.RLock, drop_in.Condition, drop_in.Semaphore)
            )()
            shared[0] = weakref.ref(thing)
            if isinstance(thing, drop_in.Condition):
                thing.me = thing
            time.sleep(chance.random() * 0.0002)
            del thing

    def reach(_):
        while crowd.going():
            reference = shared[0]
            thing = reference and reference()
            if thing is not None:
                with thing:
                    reached[0] += 1

    crowd.start(replace, 2)
    crowd.start(reach, 3)
    crowd.join()
    return reached[0]


@storm
def tracing(crowd):
    """Trace and profile functions that lock, in every thread, set and unset all the time."""
    inner = drop_in.RLock()

    def hook(frame, kind, argument):
        with inner:
            return hook

    def switch(chance):
        while crowd.going():
            sys.settrace(chance.choice((hook, None)))
            sys.setprofile(chance.choice((hook, None)))
            time.sleep(0.001)
            with inner:
                pass

    def traced(chance):
        sys.settrace(hook)
        sys.setprofile(hook)
        try:
            while crowd.going():
                with shared:
                    guarded.touch()
        finally:
            sys.settrace(None)
            sys.setprofile(None)

    shared, guarded = drop_in.Lock(), Guarded()
    crowd.start(switch)
    crowd.start(traced, 3)
    crowd.join()
    return guarded.total
