"""Plain data behind Python objects, hammered by Python threads.

    python object_storm.py FOLDER SECONDS [PART ...]

Run by tools/sanitize.py, with the package and nogil_storm from FOLDER. ThreadSanitizer sees what
our modules do, touch() and look() among it, and nothing of the interpreter: what threads share is
made before they start, and what one of them makes it also drops.
"""

import array
import sys
import threading
import time

sys.path.insert(0, sys.argv[1])

from nogil_storm import look, touch

import fastsync
import fastsync.queue as queues
import fastsync.threading as fs
from fastsync import Ordering
from fastsync.channel import bounded, never, select, unbounded

THREADS = 4
PARTS = {}


def part(function):
    PARTS[function.__name__] = function
    return function


def run(work, rounds, threads=THREADS):
    """work(me, i) for `rounds` rounds in each thread, all from the same moment."""
    gate = threading.Barrier(threads)
    errors = []

    def body(me):
        try:
            gate.wait()
            for i in range(rounds):
                work(me, i)
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=body, args=(me,), daemon=True) for me in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        if worker.is_alive():
            raise SystemExit("a thread of the storm is stuck")
    if errors:
        raise errors[0]


def wait_until(happened):
    """By nothing that the sanitizer sees."""
    looks = 0
    while not happened():
        looks += 1
        if looks > 100:
            time.sleep(0)


def exclusion(hold, rounds=300):
    """What only one thread at a time may touch."""
    before = look(0)

    def work(me, i):
        with hold(i):
            touch(0)

    run(work, rounds)
    assert look(0) - before == THREADS * rounds, "an update was lost"


@part
def locks():
    for kind in (fs.Lock, fs.RLock, fs.Condition, fs.Semaphore):
        lock = kind()
        exclusion(lambda i, lock=lock: lock)


@part
def re_entrant_locks_are_shown():
    lock, reentrant, condition = fs.RLock(), fastsync.ReentrantMutex(0), fs.Condition()

    def work(me, i):
        if me == 0:
            repr(lock), repr(reentrant), repr(condition)
            return
        with lock, lock, reentrant.lock(), reentrant.lock(), condition, condition:
            touch(0)

    run(work, 300)


@part
def mutexes():
    for kind in (fastsync.Mutex, fastsync.FairMutex, fastsync.ReentrantMutex):
        mutex = kind(0)
        exclusion(lambda i, mutex=mutex: mutex.lock() if i % 2 else mutex)

        def work(me, i, mutex=mutex):
            guard = mutex.try_lock_for(1e-5) if i % 3 else mutex.lock()
            if guard is None:
                return
            touch(0)
            guard.bump()
            touch(0)
            with guard.unlocked():
                pass
            touch(0)
            if i % 2:
                guard.unlock_fair()

        run(work, 150)


@part
def condition_variables():
    mutex, condvar, ring = fastsync.Mutex([0]), fastsync.Condvar(), [0]

    def work(me, i):
        with mutex.lock() as guard:
            condvar.wait_while(guard, lambda _: ring[0] % THREADS != me)
            touch(0)
            ring[0] += 1
            condvar.notify_all()

    run(work, 60)
    condition = fs.Condition()

    def with_condition(me, i):
        with condition:
            condition.wait_for(lambda: ring[0] % THREADS == me, 0.01)
            touch(0)
            ring[0] += 1
            condition.notify(2)

    run(with_condition, 60)


@part
def reader_writer_locks():
    lock, sharded = fastsync.RwLock([]), fastsync.ShardedLock([])

    def write(me, i):
        with lock.writer if i % 2 else lock.write():
            touch(0)
        guard = lock.write()
        touch(0)
        if i % 3 == 0:
            guard = guard.downgrade()
            look(0)
        elif i % 3 == 1:
            guard = guard.downgrade_to_upgradable()
            look(0)
            guard = guard.try_upgrade_for(1e-4) or guard
        guard.unlock()
        with sharded.write():
            touch(1)

    def read(me, i):
        with lock.reader if i % 2 else lock.read(), sharded.read():
            look(0)
            look(1)
        with lock.upgradable_read() as guard:
            look(0)
            if i % 4 == 0:
                with guard.upgrade():
                    touch(0)

    run(lambda me, i: (write, read)[(me + i) % 2](me, i), 200)


@part
def views():
    """The sides of a lock are made by whoever asks first, and shared."""
    locks = [fastsync.RwLock() for _ in range(100)]

    def work(me, i):
        with locks[i].reader:
            look(0)
        with locks[i].writer:
            pass

    run(work, 100)


@part
def events_and_semaphores():
    """A relay: see nogil_storm.pyx."""
    events = [fs.Event() for _ in range(THREADS)]
    permits = [fs.Semaphore(0) for _ in range(THREADS)]
    events[0].set()
    permits[0].release()

    def with_events(me, i):
        assert events[me].wait(30)
        events[me].clear()
        touch(0)
        events[(me + 1) % THREADS].set()

    def with_permits(me, i):
        assert permits[me].acquire(timeout=30)
        touch(0)
        permits[(me + 1) % THREADS].release()

    run(with_events, 100)
    run(with_permits, 100)


@part
def queues_and_channels():
    """A relay: what was written before an item was sent is seen by who receives it."""
    ways = [
        [(q.put, q.get) for q in [queues.Queue() for _ in range(THREADS)]],
        [(q.put, q.get) for q in [queues.Queue(1) for _ in range(THREADS)]],
        [(tx.send, rx.recv) for tx, rx in [bounded(1) for _ in range(THREADS)]],
        [(tx.send, rx.recv) for tx, rx in [unbounded() for _ in range(THREADS)]],
        [
            (tx.send, lambda rx=rx: select(rx, never())[1])
            for tx, rx in [bounded(1) for _ in range(THREADS)]
        ],
        [
            (lambda item, tx=tx: select((tx, item), never()), lambda rx=rx: select(rx)[1])
            for tx, rx in [bounded(1) for _ in range(THREADS)]
        ],
    ]
    for way in ways:

        def relay(me, i, way=way):
            if i == 0:
                touch(me)
                way[me][0](me)
            cell = way[(me + 1) % THREADS][1]()
            look(cell)
            touch(cell)
            way[me][0](cell)

        run(relay, 200)


@part
def barriers():
    barrier, many = fs.Barrier(THREADS), [0]

    def work(me, i):
        touch(me)
        barrier.wait()
        many[0] = sum(map(look, range(THREADS)))
        barrier.wait()

    run(work, 100)
    acted = fs.Barrier(THREADS, action=lambda: touch(0))
    run(lambda me, i: acted.wait() or look(0), 100)


@part
def parkers():
    stops = [fastsync.Parker() for _ in range(THREADS)]
    wakers = [stop.unparker() for stop in stops]
    wakers[0].unpark()

    def work(me, i):
        if i % 3:
            stops[me].park()
        while i % 3 == 0 and not stops[me].park_timeout(1e-4):
            pass
        touch(0)
        wakers[(me + 1) % THREADS].unpark()

    run(work, 100)


@part
def wait_groups():
    """One ends its handle and the other waits, both at the same moment."""
    groups = [fastsync.WaitGroup() for _ in range(4000)]
    handles = [group.clone() for group in groups]
    over = []

    def work(me, i):
        if me == 0:
            touch(i)  # a cell of its own: `over` orders nothing
            handles[i].done()
            wait_until(lambda: len(over) > i)  # as in shared_ownership
        else:
            groups[i].wait()
            touch(i)
            over.append(i)

    run(work, len(groups), threads=2)


@part
def once():
    """Everybody sees what the one initialization did."""
    rounds = 40

    def make(cell):
        touch(cell)
        return 5

    onces = [fastsync.Once() for _ in range(rounds)]
    cells = [fastsync.OnceLock() for _ in range(rounds)]
    lazy = [fastsync.LazyLock(lambda i=i: make(i)) for i in range(rounds)]
    decorated = [fastsync.once(make) for _ in range(rounds)]
    run(lambda me, i: onces[i].call_once(lambda: make(i)) or look(i), rounds)
    run(lambda me, i: cells[i].get_or_init(lambda: make(i)) and look(i), rounds)
    run(lambda me, i: lazy[i].force() and look(i), rounds)
    run(lambda me, i: decorated[i](i) and look(i), rounds)


@part
def references():
    """Loads against stores of the same word, with objects that live and objects that die."""
    reference, cell = fastsync.AtomicRef(), fastsync.AtomicCell(0)
    kept = [[i] for i in range(8)]

    def work(me, i):
        value = kept[(me + i) % 8] if i % 2 else [me]
        if me == 0:
            reference.store(value)
            cell.store(i)
        elif me == 1:
            reference.swap(value)
            reference.compare_and_set(value, kept[0])
            cell.fetch_update(lambda old: old + 1)
        else:
            got = reference.load()
            assert got is None or len(got) == 1
            assert cell.load() >= 0
            if i % 8 == 0:
                reference.wait(got, 1e-5)
        reference.notify_all()

    run(work, 1500)


@part
def shared_ownership():
    """The last owner sees what all of them did."""
    dropped = []

    def on_drop(i):
        dropped.append([touch(THREADS * i + me) for me in range(THREADS)])

    arcs = [fastsync.Arc(i, on_drop) for i in range(100)]
    weaks = [arc.downgrade() for arc in arcs]
    owners = [[arc.clone() for _ in range(THREADS)] for arc in arcs]
    for arc in arcs:
        arc.drop()

    def work(me, i):
        another = owners[i][me].clone()
        another.downgrade().drop()
        another.drop()
        again = weaks[i].upgrade()
        assert again is not None and again.strong_count() >= 1
        again.drop()
        touch(THREADS * i + me)
        owners[i][me].drop()
        # Whatever else a thread does with fastsync may order, too, what it did before.
        wait_until(lambda: len(dropped) > i)

    run(work, len(arcs))
    assert not any(weak.upgrade() for weak in weaks)
    assert len(dropped) == len(arcs)


@part
def atomics():
    """A relay through each ordering, from Python."""
    words = [fastsync.AtomicI64(0), fastsync.AtomicU8(0), fastsync.AtomicF64(0.0)]
    flag, total, counter = fastsync.AtomicBool(False), fastsync.AtomicI32(0), fastsync.Counter()
    words[0].store(0)

    def work(me, i):
        word = words[i % 3]
        while word.load(Ordering.Acquire) != me:
            word.wait(word.load(), 1e-4)
        touch(i % 3)
        if me == THREADS - 1:
            word.store(0, Ordering.Release)
        else:
            word.fetch_add(1, Ordering.Release)
        word.notify_all()
        total.fetch_add(1, Ordering.Relaxed)
        counter.increment()
        # Without an argument it is the strongest order.
        acquire, release = ((Ordering.Acquire,), (Ordering.Release,)) if i % 2 else ((), ())
        while flag.swap(True, *acquire):
            pass
        touch(3)
        flag.store(False, *release)

    run(work, 90)
    assert total.load() == counter.value() == THREADS * 90


@part
def arrays():
    numbers = fastsync.AtomicArray("int64", 64)
    where = [array.array("q", range(me, 64)) for me in range(THREADS)]

    def work(me, i):
        numbers.fetch_add(i % 64, 1)
        numbers.add_at(where[me], 1)
        numbers.max_at(where[me], 1)
        if i % 16 == 0:
            numbers.load_all()

    run(work, 300)
    assert sum(numbers.load_all()) == 300 * (THREADS + sum(map(len, where)))


def main():
    seconds = float(sys.argv[2])
    for name in sys.argv[3:] or PARTS:
        end = time.monotonic() + seconds / len(PARTS)
        times = 0
        while times == 0 or time.monotonic() < end:
            PARTS[name]()
            times += 1
        print(f"  {name}: {times} times", flush=True)
    print("objects agree")


if __name__ == "__main__":
    main()
