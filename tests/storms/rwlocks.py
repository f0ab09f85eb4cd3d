"""Readers and writers."""

import fastsync as fs
from storms.crowd import storm
from storms.guards import linger, shares, take, ways


class Shelf:
    """Two numbers that differ while they are written, which no reader sees."""

    def __init__(self):
        self.left = self.right = 0
        self.readers = fs.AtomicI64()

    def read(self):
        self.readers.fetch_add(1)
        assert self.left == self.right, "a reader saw a half-done write"
        self.readers.fetch_sub(1)
        return self.left

    def write(self):
        assert self.left == self.right, "two writers"
        self.left += 1
        linger()
        assert not self.readers.load(), "a reader beside the writer"
        self.right += 1
        return 1


def read_in_passing(lock, chance, shelf):
    """Read, now and then twice; no write."""
    recursive = ways(lock, "read_recursive")
    guard = take(chance.choice((ways(lock, "read"), recursive)), chance)
    if guard is not None:
        with guard:
            before = shelf.read()
            again = take(recursive, chance)  # never waits for a writer that waits
            if again is not None:
                with again:
                    assert shelf.read() == before, "a write between two reads"
    return 0


def read_and_upgrade(lock, chance, shelf):
    """Upgradable, then written, by one of the ways, or read; the writes."""
    guard = take(ways(lock, "upgradable_read"), chance)
    if guard is None:
        return 0
    before = shelf.read()
    assert lock.try_upgradable_read() is None, "two upgradable readers"
    if chance.random() < 0.2:
        with guard.downgrade():
            assert shelf.read() == before, "a write during a downgrade"
        return 0
    if chance.random() < 0.2:
        written = guard.with_upgraded(lambda _: shelf.write())
        guard.unlock()
        return written
    writer = take(ways(guard, "upgrade"), chance)
    with writer or guard:
        assert shelf.read() == before, "a write during an upgrade"
        return 0 if writer is None else shelf.write()


def write_and_downgrade(lock, chance, shelf):
    """Write, then perhaps read what was written, or write again; the writes."""
    guard = take(ways(lock, "write"), chance)
    if guard is None:
        return 0
    written = shelf.write()
    after = shelf.left
    if hasattr(guard, "downgrade") and chance.random() < 0.3:
        guard = guard.downgrade()
    elif hasattr(guard, "downgrade") and chance.random() < 0.3:
        guard = guard.downgrade_to_upgradable()
        assert shelf.read() == after, "a write during a downgrade"
        guard = guard.upgrade()
    assert shelf.left == shelf.right == after, "a write during a downgrade"
    chance.choice((guard.unlock, guard.unlock_fair))()
    return written


def read_and_write(crowd, lock, trials, threads=6):
    shelf, written = Shelf(), []

    def work(chance):
        count = 0
        while crowd.going():
            count += chance.choice(trials)(lock, chance, shelf)
        written.append(count)

    crowd.start(work, threads)
    crowd.join()
    assert shelf.left == shelf.right == sum(written), "a write was lost"
    assert not shelf.readers.load() and not lock.is_locked(), "the lock was left locked"
    lock.write().unlock()
    return sum(written)


@storm
def readers_and_writers(crowd):
    """Reads, writes, upgrades and downgrades: nobody sees a half-done write, none is lost."""
    simple = (read_in_passing, write_and_downgrade)
    trials = {fs.RwLock(): (*simple, read_and_upgrade), fs.ShardedLock(): simple}
    return sum(read_and_write(part, lock, trials[lock]) for part, lock in shares(crowd, trials))
