"""Atomics and arrays of them."""

from functools import partial

import fastsync as fs
from storms.crowd import TIMEOUTS, Guarded, storm
from storms.guards import shares


def spin_flag(flag, guarded, chance):
    """Touch under a flag; whether it was free."""
    if chance.random() < 0.5:
        taken = not flag.swap(True)
    else:
        taken, _ = flag.compare_exchange(False, True)
    if taken:
        guarded.touch()
        flag.store(False)
    return taken


def add(atomic, n, chance):
    """Add in one of the ways there are, each of which must succeed in the end."""
    match chance.randrange(4):
        case 0:
            atomic.fetch_add(n, chance.choice(fs.Ordering.members()))
        case 1:
            atomic.fetch_add(3 * n)
            atomic.fetch_sub(2 * n)
        case 2:
            chance.choice((atomic.update, atomic.fetch_update))(lambda value: value + n)
        case 3:
            exchange = chance.choice((atomic.compare_exchange, atomic.compare_exchange_weak))
            current = atomic.load()
            while True:
                done, current = exchange(current, current + n)
                if done:
                    return


class ArrayCell:
    """A cell of an AtomicArray with the methods of an atomic."""

    def __init__(self, array, index):
        self.array, self.index = array, index

    def __getattr__(self, name):
        return partial(getattr(self.array, name), self.index)


@storm
def sums(crowd):
    """Additions to atomics of all kinds and a Counter: sums are exact, no ticket comes twice."""
    array = fs.AtomicArray("int64", 3)
    cells = [ArrayCell(array, i) for i in range(3)]
    plain = [fs.AtomicI64(), fs.AtomicF64(), fs.AtomicU32(), *cells]
    small, ticket, most, counter = fs.AtomicU8(), fs.AtomicU64(), fs.AtomicI32(), fs.Counter()
    flag, guarded, totals = fs.AtomicBool(), Guarded(), []
    names = ("plain", "small", "reset", "tickets", "ticket sum", "flag", "most")

    def work(chance):
        added = dict.fromkeys(names, 0)
        while crowd.going():
            n = chance.randrange(1, 4)
            for atomic in plain:
                add(atomic, n, chance)
            array.add_at([0, 1, 2], n)
            added["plain"] += n
            small.fetch_add(n)
            counter.add(n)
            added["small"] += n
            if chance.random() < 0.1:
                added["reset"] += counter.reset()
            added["ticket sum"] += ticket.fetch_add(1)
            added["tickets"] += 1
            most.fetch_max(n * added["tickets"])
            added["most"] = max(added["most"], n * added["tickets"])
            assert plain[0].fetch_update(lambda _: None)[0] is False
            added["flag"] += spin_flag(flag, guarded, chance)
        totals.append(added)

    crowd.start(work, 6)
    crowd.join()
    total = {key: sum(added[key] for added in totals) for key in totals[0]}
    n = total["tickets"]
    assert [atomic.load() for atomic in plain[:3]] == [total["plain"]] * 3, "an addition was lost"
    assert array.load_all() == [2 * total["plain"]] * 3, "an addition was lost"
    assert small.load() == total["small"] % 256, "an addition was lost"
    assert counter.value() + total["reset"] == total["small"], "an addition was lost"
    assert ticket.load() == n and total["ticket sum"] == n * (n - 1) // 2, "a ticket came twice"
    assert most.load() == max(added["most"] for added in totals)
    assert guarded.total == total["flag"] and not flag.load()
    return n


def take_turns(crowd, atomic, values):
    """Two threads, each of which waits for its value and then stores the other one's."""
    rounds = [0]

    def play(me):
        def run(chance):
            mine, other = values[me], values[1 - me]
            while crowd.going():
                timeout = chance.choice((chance.choice(TIMEOUTS), 0.1, None, None))
                if not atomic.wait(other, timeout):
                    assert timeout is not None, "woken without a change"
                    continue
                if len(rounds) > 1:
                    return  # woken by the end
                assert rounds[0] % 2 == me, "woken out of turn"
                assert atomic.load() == mine
                rounds[0] += 1
                atomic.store(other)
                chance.choice((atomic.notify_one, atomic.notify_all))()
            rounds.append("over")
            atomic.store(other)
            atomic.notify_all()

        return run

    crowd.start(play(0))
    crowd.start(play(1))
    return rounds


@storm
def turns(crowd):
    """Ping-pong by wait() and notify of every kind of atomic: a lost wake-up stops it for good."""
    array, objects = fs.AtomicArray("uint8", 2), (object(), object())
    kinds = (
        [(fs.AtomicI64(), (0, 1)), (fs.AtomicU8(), (0, 255)), (fs.AtomicBool(), (False, True))],
        [(ArrayCell(array, i), (0, 1)) for i in range(2)] + [(fs.AtomicF32(), (0.0, 1.5))],
        [(fs.AtomicRef(objects[0]), objects), (fs.AtomicCell("aaa"), ("aaa", "bbb"))],
    )
    count = 0
    for part, pairs in shares(crowd, kinds):
        rounds = [take_turns(part, atomic, values) for atomic, values in pairs]
        part.join()
        count += sum(each[0] for each in rounds)
    return count
