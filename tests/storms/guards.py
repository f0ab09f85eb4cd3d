"""Locks that own a value: one thread at a time."""

import time

import fastsync as fs
from storms.crowd import TIMEOUTS, Crowd, Guarded, exclusion, queue, storm


def shares(crowd, things):
    """Each of them with a crowd for its share of the time, one after the other."""
    for i, thing in enumerate(things):
        rest = max(0, crowd.end - time.monotonic())
        yield Crowd(rest / (len(things) - i), crowd.random.random()), thing


def ways(lock, verb):
    """The four ways to take a lock by that verb: they give a guard, or None."""
    names = verb, f"try_{verb}", f"try_{verb}_for", f"try_{verb}_until"
    return [getattr(lock, name) for name in names]


def linger():
    """Let others run, now and then, while something is half done."""
    if time.monotonic_ns() & 0x3F00 == 0:  # as good as at random
        time.sleep(0)


def take(four, chance):
    """Take in one of four ways; the guard, or None."""
    now, at_once, within, until = four
    match chance.randrange(4):
        case 0:
            return now()
        case 1:
            return at_once()
        case 2:
            return within(chance.choice(TIMEOUTS))
    return until(time.monotonic() + chance.choice(TIMEOUTS))


def let_go(guard, lock, chance, touch):
    """End a hold in one of the ways there are; how often it was touched on that occasion."""
    match chance.choice(("unlock", "fair", "with", "bump", "unlocked", "map", "leak", "drop")):
        case "unlock":
            guard.unlock()
        case "fair":
            guard.unlock_fair()
        case "with":
            with guard:
                touch(guard)
            return 1
        case "bump":
            guard.bump()
            touch(guard)
            guard.unlock()
            return 1
        case "unlocked":
            with chance.choice((guard.unlocked, guard.unlocked_fair))():
                pass
            touch(guard)
            guard.unlock()
            return 1
        case "map":
            part = guard.map(lambda value: value["count"])
            part.value += 1
            chance.choice((part.unlock, part.unlock_fair))()
            return 1
        case "leak" if hasattr(guard, "leak"):
            guard.leak()
            chance.choice((lock.force_unlock, lock.force_unlock_fair))()
    return 0  # if not let go by now, the guard is dropped, at once: this thread made it


def guarded_exclusion(crowd, lock, threads=6):
    """As exclusion(), for a lock with guards around {"count": 0}."""
    four = ways(lock, "write" if hasattr(lock, "write") else "lock")
    reentrant = isinstance(lock, fs.ReentrantMutex)
    guarded, touched = Guarded(), []

    def touch(guard):
        guarded.touch()
        count = guard.value["count"]
        linger()
        guard.value["count"] = count + 1

    def once(chance):
        if not reentrant and hasattr(lock, "__enter__") and chance.random() < 0.2:
            with lock as guard:
                touch(guard)
            return 1
        guard = take(four, chance)
        if guard is None:
            return 0
        touch(guard)
        if chance.random() < 0.1:
            again = four[1]()
            assert (again is not None) == reentrant, "granted twice, or not to its owner"
            if again is not None:
                again.unlock()
        return 1 + let_go(guard, lock, chance, touch)

    def work(chance):
        count = 0
        while crowd.going():
            count += once(chance)
        touched.append(count)

    crowd.start(work, threads)
    crowd.join()
    assert not lock.is_locked(), "the lock was left locked"
    assert lock.into_inner()["count"] == sum(touched), "an update was lost"
    return sum(touched)


@storm
def guards(crowd):
    """Mutex, FairMutex, ReentrantMutex and writers, taken and let go in every way by guards."""
    kinds = (fs.Mutex, fs.FairMutex, fs.ReentrantMutex, fs.RwLock, fs.ShardedLock)
    return sum(guarded_exclusion(part, kind({"count": 0})) for part, kind in shares(crowd, kinds))


@storm
def lock_views(crowd):
    """The writers of RwLock and ShardedLock as threading.Lock, alone and below a Condition."""
    trials = (
        lambda part: exclusion(part, fs.RwLock().writer),
        lambda part: exclusion(part, fs.ShardedLock().writer),
        lambda part: queue(part, fs.RwLock().writer),
    )
    return sum(trial(part) for part, trial in shares(crowd, trials))
