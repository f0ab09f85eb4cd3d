"""A fork at any moment: the child has a fresh table, whatever other threads were doing."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import natives
import pytest
from conftest import run_python

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")

PRELUDE = """
import faulthandler, os, sys, threading as stock, time, warnings
import fastsync.threading as t
warnings.simplefilter("ignore")
faulthandler.dump_traceback_later(40, exit=True)

def join(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def use_everything():
    for make in (t.Lock, t.RLock, t.Condition, t.Semaphore, t.BoundedSemaphore):
        thing = make()
        with thing:
            pass
        assert thing.acquire(False)
        thing.release()
    # contended, with a thread of the child
    lock, event, condition, barrier = t.Lock(), t.Event(), t.Condition(), t.Barrier(2)
    semaphore = t.Semaphore(0)
    lock.acquire()
    def other():
        event.wait()
        with condition:
            condition.notify()
        semaphore.release()
        barrier.wait()
        lock.release()
    thread = stock.Thread(target=other)
    thread.start()
    with condition:
        event.set()
        assert condition.wait(20)
    assert semaphore.acquire(timeout=20)
    barrier.wait(20)
    assert lock.acquire(timeout=20)
    thread.join()

def child(function):
    pid = os.fork()
    if pid == 0:
        try:
            function()
        except BaseException:
            import traceback
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    return pid
"""


def run(body, before="", **options):
    return run_python("-c", before + PRELUDE + textwrap.dedent(body), **options)


def test_child_of_a_storm_uses_every_primitive():
    # Every bucket lock and every word may be in any state when the fork comes.
    run("""
    stop = False
    lock, rlock, condition, event = t.Lock(), t.RLock(), t.Condition(), t.Event()
    semaphore, barrier = t.Semaphore(2), t.Barrier(2)

    def storm(i):
        n = i
        while not stop:
            n += 1
            with lock: pass
            with rlock, rlock: pass
            with condition:
                condition.notify() if n & 1 else condition.wait(0.0001)
            with semaphore: pass
            event.wait(0.0001)
            event.set(); event.clear()
            try:
                barrier.wait(0.0001)
            except t.BrokenBarrierError:
                barrier.reset()

    threads = [stock.Thread(target=storm, args=[i]) for i in range(4)]
    for thread in threads: thread.start()
    end = time.monotonic() + 1
    forks = 0
    while time.monotonic() < end:
        pid = child(use_everything)
        assert join(pid) == 0
        forks += 1
    stop = True
    for thread in threads: thread.join()
    assert forks
    use_everything()
    """)


# Every native type that waits, in a thread of the child; and all that do not.
NATIVE = """
def use_natives():
    use_all()
    for name, make in WAITS.items():
        wait = make()
        threads = start_waiters({name: wait})
        wait.wake()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive(), name
"""


def run_native(body, **options):
    return run(NATIVE + textwrap.dedent(body), natives.SOURCE, **options)


def test_child_of_a_native_storm_uses_every_native_type():
    run_native("""
    stop = False
    mutexes = f.Mutex(0), f.FairMutex(0), f.ReentrantMutex(0)
    condvar, rw, sharded = f.Condvar(), f.RwLock(0), f.ShardedLock(0)
    number, array, counter = f.AtomicI64(), f.AtomicArray("int64", 2), f.Counter()
    ref, cell, arc, lock = f.AtomicRef(OLD), f.AtomicCell(OLD), f.Arc(1), f.OnceLock()

    def storm(i):
        n = i
        parker = f.Parker()
        while not stop:
            n += 1
            for mutex in mutexes:
                with mutex as guard: guard.value += 1
            with mutexes[0] as guard:
                condvar.notify_one() if n & 1 else condvar.wait_for(guard, 0.0001)
            with rw.upgradable_read() as guard, guard.upgrade() as writing: writing.value += 1
            for each in (rw, sharded):
                with each.read(): pass
                with each.write() as writing: writing.value += 1
                with each.writer: pass
            number.fetch_add(1); number.wait(number.load(), 0.0001); number.notify_all()
            array.fetch_add(0, 1); array.wait(1, 0, 0.0001); array.notify_all(1)
            ref.store([n]); ref.load(); cell.store(n); cell.load()
            counter.increment()
            arc.clone().downgrade().upgrade()
            lock.get_or_init(list); lock.take()
            parker.park_timeout(0.0001)

    threads = [stock.Thread(target=storm, args=[i]) for i in range(4)]
    for thread in threads: thread.start()
    forks = 0
    end = time.monotonic() + 1
    while time.monotonic() < end:
        assert join(child(use_natives)) == 0
        forks += 1
    stop = True
    for thread in threads: thread.join()
    assert forks and counter.value() == number.load() == array.load(0)
    assert len({mutex.into_inner() for mutex in mutexes}) == 1
    use_natives()
    """)


def test_native_words_that_others_were_parked_on_are_usable_in_the_child():
    # What needs a thread that does not exist in the child is left out: a function that runs once
    # and was running, handles of a WaitGroup, and a writer's claim while a reader was inside.
    run_native("""
    from fastsync.raw.parking import parked_total
    lost = "upgrade", "Once.call_once", "OnceLock.get_or_init", "LazyLock", "once", \
        "lazy_property", "WaitGroup"
    waits = {name: make() for name, make in WAITS.items()}
    threads = start_waiters(waits)
    def use():
        assert parked_total() == 0
        for name, wait in waits.items():
            if name not in lost:
                wait.wake()
                for _ in range(2): wait.wait()
        assert parked_total() == 0
        use_natives()
    assert join(child(use)) == 0
    for wait in waits.values(): wait.wake()
    for thread in threads: thread.join()
    """)


def test_lock_held_by_another_thread_stays_locked_until_it_is_reinitialized():
    run("""
    lock, rlock, condition = t.Lock(), t.RLock(), t.Condition()
    taken, end = stock.Event(), stock.Event()
    def hold():
        with lock, rlock, condition:
            taken.set()
            end.wait()
    thread = stock.Thread(target=hold)
    thread.start()
    taken.wait()
    def look():
        for thing in (lock, rlock, condition):
            assert thing.locked()
            assert not thing.acquire(timeout=0.01)
            thing._at_fork_reinit()
            with thing:
                assert thing.locked()
    pid = child(look)
    assert join(pid) == 0
    end.set()
    thread.join()
    """)


def test_words_that_others_were_parked_on_are_usable_in_the_child():
    run("""
    lock, condition, event, semaphore = t.Lock(), t.Condition(), t.Event(), t.Semaphore(0)
    barrier = t.Barrier(2)
    lock.acquire()
    def with_condition():
        with condition: condition.wait()
    waits = [lock.acquire, with_condition, event.wait, semaphore.acquire, barrier.wait]
    threads = [stock.Thread(target=wait) for wait in waits]
    for thread in threads: thread.start()
    while not (condition._waiters and barrier.n_waiting): time.sleep(0.001)
    time.sleep(0.05)
    def use():
        lock.release()
        assert lock.acquire(timeout=1)
        assert not condition._waiters
        with condition:
            condition.notify_all()
            assert condition.wait(0.01) is False
        other = stock.Thread(target=lambda: (event.wait(20), semaphore.acquire(), with_condition()))
        other.start()
        event.set()
        semaphore.release()
        while not condition._waiters: time.sleep(0.001)
        with condition: condition.notify()
        other.join()
        barrier.reset()
        assert barrier.n_waiting == 0
    assert join(child(use)) == 0
    lock.release(); event.set(); semaphore.release(); barrier.wait()
    with condition: condition.notify_all()
    for thread in threads: thread.join()
    """)


def test_condition_whose_waiters_are_gone_takes_another_lock():
    # The word kept the old lock's address in the child, without waiters.
    run("""
    condition = t.Condition(t.Lock())
    def wait():
        with condition: condition.wait()
    thread = stock.Thread(target=wait)
    thread.start()
    while not condition._waiters: time.sleep(0.001)
    def use():
        condition.__init__(t.Lock())
        with condition:
            assert condition.wait(0.01) is False
    assert join(child(use)) == 0
    with condition: condition.notify()
    thread.join()
    """)


def test_barrier_is_usable_in_the_child_of_a_barrier_storm():
    # Its inner lock must never be owned by a thread that does not run.
    run("""
    barrier = t.Barrier(3)
    stop = False
    def storm():
        while not stop:
            try:
                barrier.wait(20)
            except t.BrokenBarrierError:
                pass
    threads = [stock.Thread(target=storm) for _ in range(6)]
    for thread in threads: thread.start()
    def look():
        barrier.reset()
        assert barrier.n_waiting == 0 and not barrier.broken
        barrier.abort()
    end = time.monotonic() + 0.7
    while time.monotonic() < end:
        assert join(child(look)) == 0
    stop = True
    barrier.abort()
    for thread in threads: thread.join()
    """)


def test_barrier_that_others_wait_at_begins_anew_in_the_child():
    run("""
    barrier = t.Barrier(2)
    waiting = stock.Thread(target=barrier.wait)
    waiting.start()
    while barrier.n_waiting == 0:
        time.sleep(0.001)
    def use():
        arrivals = []
        threads = [stock.Thread(target=lambda: arrivals.append(barrier.wait(20))) for _ in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(arrivals) == [0, 1], arrivals
    assert join(child(use)) == 0
    barrier.wait(20)
    waiting.join()
    """)


def test_barrier_whose_action_another_thread_runs_begins_anew_in_the_child():
    run("""
    acting, go, parent = stock.Event(), stock.Event(), os.getpid()
    def act():
        if os.getpid() == parent:
            acting.set()
            go.wait()
    barrier = t.Barrier(2, act)
    threads = [stock.Thread(target=barrier.wait) for _ in "ab"]
    for thread in threads: thread.start()
    acting.wait()
    def use():
        arrivals = []
        threads = [stock.Thread(target=lambda: arrivals.append(barrier.wait(20))) for _ in "ab"]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert sorted(arrivals) == [0, 1], arrivals
    pid = child(use)
    end = time.monotonic() + 15
    while not (done := os.waitpid(pid, os.WNOHANG))[0] and time.monotonic() < end:
        time.sleep(0.001)
    if not done[0]:
        os.kill(pid, 9)
    go.set()
    for thread in threads: thread.join()
    assert done == (pid, 0), done
    """)


def test_fork_in_a_thread_makes_that_thread_the_main_one():
    run("""
    import signal
    result = []
    def in_thread():
        def interrupted():
            lock = t.Lock()
            lock.acquire()
            signal.signal(signal.SIGALRM, lambda *_: lock.release())
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            assert lock.acquire(timeout=20)
        result.append(join(child(interrupted)))
    thread = stock.Thread(target=in_thread)
    thread.start(); thread.join()
    assert result == [0]
    """)


def test_grandchildren_work_too():
    run("""
    def generation(n):
        use_everything()
        if n:
            assert join(child(lambda: generation(n - 1))) == 0
    assert join(child(lambda: generation(3))) == 0
    """)


def test_parent_goes_on_after_many_forks():
    run("""
    event, woken = t.Event(), []
    threads = [stock.Thread(target=lambda: woken.append(event.wait())) for _ in range(5)]
    for thread in threads: thread.start()
    for pid in [child(lambda: None) for _ in range(30)]:
        assert join(pid) == 0
    event.set()
    for thread in threads: thread.join()
    assert woken == [True] * 5
    """)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_children_use_every_primitive(method, tmp_path):
    script = tmp_path / "program.py"
    script.write_text(
        PRELUDE
        + textwrap.dedent(f"""
    import multiprocessing
    if __name__ == "__main__":
        context = multiprocessing.get_context({method!r})
        process = context.Process(target=use_everything)
        process.start()
        process.join()
        sys.exit(process.exitcode)
    """)
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, script], env=environment, timeout=60)
    assert done.returncode == 0


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps"), reason="needs Linux's /proc")
def test_neither_an_import_nor_a_fork_touches_the_table():
    # The kernel gives a page of it only when that is first written.
    run("""
    import re
    def written():
        blocks = re.split("(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", open("/proc/self/smaps").read())
        ours = [i for i, block in enumerate(blocks) if "/_compiled." in block.split("\\n")[0]]
        after = max(ours) + 1
        size, dirty = (int(re.search(f"^{name}: *([0-9]+) kB", blocks[after], re.M)[1])
                       for name in ("Size", "Private_Dirty"))
        assert size >= 256, blocks[after]
        return dirty - (size - 256)  # what else the modules keep is there too
    page = os.sysconf("SC_PAGE_SIZE") // 1024
    assert written() <= page
    def look():
        assert written() <= page
    assert join(child(look)) == 0
    assert written() <= page
    """)


def test_a_fork_amid_the_change_of_a_queue_leaves_the_child_an_empty_one():
    # Another thread holds a bucket lock, and goes on holding it: its callback waits.
    run(
        f"""
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    """
        """
    import ctypes
    from c_door import c_function
    from ctypes import c_int, c_int64, c_size_t, c_void_p
    inside, leave = stock.Event(), stock.Event()
    unparked = ctypes.PYFUNCTYPE(c_size_t, c_void_p, c_void_p)
    unpark_one = c_function("unpark_one", c_size_t, c_size_t, unparked, c_void_p)
    unpark_all = c_function("unpark_all", c_size_t, c_size_t, c_size_t)
    parked_count = c_function("parked_count", c_size_t, c_size_t)
    park = c_function("park", c_int, c_size_t, *[c_void_p] * 4, c_size_t, c_int64, c_int, c_void_p)
    FOREVER, KEY = 2**63 - 1, 4096
    def wait():
        return park(KEY, None, None, None, None, 0, FOREVER, 0, None)

    @unparked
    def change(context, result):
        inside.set()
        leave.wait()
        return 0
    waiting = [stock.Thread(target=wait) for _ in "ab"]
    for thread in waiting: thread.start()
    while parked_count(KEY) < 2: time.sleep(0.001)
    changing = stock.Thread(target=unpark_one, args=[KEY, change, None])
    changing.start()
    inside.wait()

    def use():
        assert parked_count(KEY) == 0
        ended = []
        threads = [stock.Thread(target=lambda: ended.append(wait())) for _ in "abc"]
        for thread in threads: thread.start()
        while parked_count(KEY) < 3: time.sleep(0.001)
        assert unpark_all(KEY, 0) == 3
        for thread in threads: thread.join()
        assert ended == [0, 0, 0]
        use_everything()
    pid = child(use)
    assert join(pid) == 0
    leave.set()
    changing.join()
    assert unpark_all(KEY, 0) == 1
    for thread in waiting: thread.join()
    """
    )


# A lock that only Python knows, whose release forks.
FORKING_LOCK = """
class ForkingLock:
    def __init__(self, fork):
        self.fork, self.lock = fork, stock.Lock()
        self.acquire, self.locked = self.lock.acquire, self.lock.locked
    def __enter__(self): return self.lock.__enter__()
    def __exit__(self, *error): return self.lock.__exit__(*error)
    def release(self):
        self.lock.release()
        if fork := self.fork:
            self.fork = None
            fork()
"""


@pytest.mark.parametrize("where", ["main", "other"])
def test_wait_whose_lock_forks_as_it_is_released_goes_on_in_the_child(where):
    # The waiter is queued by then, in a table of which the child has nothing.
    run(
        FORKING_LOCK
        + textwrap.dedent(f"""
    results = []
    def fork():
        global pid
        pid = os.fork()
        if pid == 0:
            stock.Thread(target=notify).start()
    def notify():
        with condition:
            condition.notify()
    def wait():
        with condition:
            notified = condition.wait(20)
        if pid == 0:
            os._exit(0 if notified else 1)
        results.append(notified)
    condition = t.Condition(ForkingLock(fork))
    if {where!r} == "main":
        helper = stock.Thread(target=lambda: (forked.wait(), notify()))
        forked = stock.Event()
        inner, fork = fork, None
        def fork():
            inner()
            if pid: forked.set()
        condition._lock.fork = fork
        helper.start()
        wait()
        helper.join()
    else:
        thread = stock.Thread(target=wait)
        thread.start()
        while "pid" not in globals(): time.sleep(0.001)
        notify()
        thread.join()
    assert results == [True]
    assert join(pid) == 0
    """)
    )
