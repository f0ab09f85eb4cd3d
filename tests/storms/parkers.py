"""Parkers and WaitGroups."""

import queue as stock_queue

import fastsync as fs
from storms.crowd import TIMEOUTS, storm


@storm
def parkers(crowd):
    """Three pairs play ping-pong with Parkers: a lost token stops them, a spare one shows."""
    rounds = []

    def play(table, me, mine, theirs):
        def run(chance):
            while crowd.going():
                if chance.random() < 0.5:
                    mine.park()
                elif not mine.park_timeout(chance.choice(TIMEOUTS)):
                    continue
                if len(table) > 1:
                    return  # woken by the end
                assert table[0] % 2 == me, "woken out of turn"
                table[0] += 1
                theirs.unpark()
            table.append("over")
            theirs.unpark()

        return run

    for _ in range(3):
        table, parkers = [0], (fs.Parker(), fs.Parker())
        rounds.append(table)
        parkers[0].unparker().unpark()
        for me in range(2):
            crowd.start(play(table, me, parkers[me], parkers[1 - me].unparker()))
    crowd.join()
    return sum(table[0] for table in rounds)


@storm
def wait_groups(crowd):
    """Handles ended in every way by threads: whoever waits for all sees what all have done."""
    inbox = stock_queue.SimpleQueue()
    rounds = fs.Counter()

    def end(handle, me, chance):
        match chance.randrange(4):
            case 0:
                handle.done()
            case 1:
                with handle:
                    pass
            case 2 if me == 0:  # or all might wait, and nobody be left to work
                handle.wait()
        # or dropped, at once: this thread made it

    def work(chance):
        while (job := inbox.get()) is not None:
            given, results, me = job
            handle = given.clone()
            given.done()
            results[me] = True
            end(handle, me, chance)
            del handle

    def lead(chance):
        while crowd.going():
            group = fs.WaitGroup()
            results = [False] * chance.randrange(5)
            for me in range(len(results)):
                inbox.put((group.clone(), results, me))
            group.wait()
            assert all(results), "did not wait for all"
            assert "0 handles" in repr(group)
            rounds.increment()
        for _ in range(2):
            inbox.put(None)

    crowd.start(work, 4)
    crowd.start(lead, 2)
    crowd.join()
    return rounds.value()
