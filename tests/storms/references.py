"""Atomic references and Arcs."""

import gc
import time
from functools import partial

import fastsync as fs
from storms.crowd import PATIENCE, storm


class Token:
    """Counts itself, and is taken by one at most."""

    def __init__(self, made, dropped):
        made.fetch_add(1)
        self.dropped, self.taken = dropped, 0

    def take(self):
        self.taken += 1
        assert self.taken == 1, "taken twice"

    def __del__(self):
        self.dropped.fetch_add(1)


def collect_until(condition, complaint):
    """Collect until it is true: an object that another thread made may wait for that thread."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, complaint
        gc.collect()


@storm
def references(crowd):
    """Objects in AtomicRef, AtomicCell, OnceLock: who takes one has it alone; all are dropped."""
    atomics, box = [fs.AtomicRef(None), fs.AtomicCell(None)], fs.OnceLock()
    made, dropped = fs.AtomicI64(), fs.AtomicI64()
    fresh = partial(Token, made, dropped)

    def take(atomic, chance):
        """What was taken out of it, by one of the ways, and by nobody else."""
        match chance.randrange(5):
            case 0:
                return atomic.swap(fresh())
            case 1 if isinstance(atomic, fs.AtomicCell):
                return atomic.take()
            case 2:
                current = atomic.load()
                done, previous = atomic.compare_exchange(current, fresh())
                assert not done or previous is current
                return current if done else None
            case 3:
                done, previous = atomic.fetch_update(lambda _: chance.choice((fresh(), None)))
                return previous if done else None
            case 4:
                atomic.store(fresh())
        return None

    def change(chance):
        while crowd.going():
            box.set(fresh())
            for token in take(chance.choice(atomics), chance), box.take():
                if isinstance(token, Token):
                    token.take()

    def look(chance):
        while crowd.going():
            token = chance.choice(atomics).load()
            assert not isinstance(token, Token) or token.taken in (0, 1)

    crowd.start(change, 4)
    crowd.start(look, 2)
    crowd.join()
    for atomic in atomics:
        atomic.store(None)
        assert atomic.load() is atomic.swap(None) is None
    box.take()
    collect_until(lambda: made.load() == dropped.load(), "an object was not dropped")
    return made.load()


class Treasure:
    def __init__(self):
        self.drops = fs.AtomicI64()


@storm
def arcs(crowd):
    """Arcs cloned, upgraded, dropped, moved out: on_drop runs once, after all of its handles."""
    shared = fs.AtomicRef(fs.Weak())
    made, dropped, moved, reached = (fs.AtomicI64() for _ in range(4))
    wrong = []  # what on_drop raises goes to a hook, not to us

    def on_drop(treasure):
        dropped.fetch_add(1)
        if treasure.drops.fetch_add(1):
            wrong.append("dropped twice")

    def end(arc, chance):
        match chance.randrange(5):
            case 0:
                arc.drop()
            case 1:
                with arc:
                    pass
            case 2:
                if arc.into_inner() is not None:
                    moved.fetch_add(1)
            case 3:
                done, rest = arc.try_unwrap()
                if done:
                    moved.fetch_add(1)
                else:
                    rest.drop()
        # or dropped as it is, at once: this thread made it

    def make(chance):
        while crowd.going():
            arc = fs.Arc(Treasure(), on_drop)
            made.fetch_add(1)
            shared.store(arc.downgrade())
            clones = [arc.clone() for _ in range(chance.randrange(3))]
            for handle in (*clones, arc):
                end(handle, chance)
            del clones, arc, handle

    def reach(chance):
        while crowd.going():
            weak = shared.load()
            if chance.random() < 0.3:
                weak = weak.clone()
            arc = weak.upgrade()
            if arc is not None:
                assert not arc.value.drops.load(), "reached after its end"
                assert arc.strong_count() >= 1
                other = arc.clone()
                end(arc, chance)
                assert not other.value.drops.load(), "dropped below a handle"
                end(other, chance)
                del arc, other
                reached.fetch_add(1)

    crowd.start(make, 3)
    crowd.start(reach, 3)
    crowd.join()
    assert not wrong, wrong
    collect_until(lambda: made.load() == dropped.load() + moved.load(), "a value was not dropped")
    assert shared.load().upgrade() is None, "upgraded after the end"
    return made.load()
