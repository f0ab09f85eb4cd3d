"""install() swaps the module `queue`: whoever uses it, here and in children, and back."""

import queue
import sys
import threading

import pytest

import fastsync
import fastsync.queue as fs
from fastsync._run.install import QUEUES

FREE = "free-threading build" in sys.version
ALL = ["Queue", "LifoQueue", "PriorityQueue", "SimpleQueue"]
STOCK = {name: getattr(queue, name) for name in ALL}


@pytest.fixture(autouse=True)
def uninstalled():
    yield
    fastsync.uninstall()


def test_install_and_uninstall_rebind_what_the_module_has():
    before = dict(vars(queue))
    fastsync.install()
    fastsync.install()
    for name in ALL:
        swapped = name in QUEUES
        assert getattr(queue, name) is (getattr(fs, name) if swapped else STOCK[name])
    assert queue.Empty is fs.Empty and queue.Full is fs.Full
    fastsync.uninstall()
    assert dict(vars(queue)) == before


def test_simple_queue_is_swapped_where_ours_is_not_slower():
    """With the GIL the original's, in C, takes 66 ns for a put and a get, ours 72."""
    assert ("SimpleQueue" in QUEUES) == FREE


def test_another_librarys_queue_is_put_back(monkeypatch):
    theirs = type("Queue", (), {})
    monkeypatch.setattr(queue, "Queue", theirs)
    fastsync.install()
    assert queue.Queue is fs.Queue
    fastsync.uninstall()
    assert queue.Queue is theirs


def test_a_module_that_is_imported_later(run_python):
    """install() alone imports no queue; the first import of one, by whomever, is swapped."""
    code = """
import sys, fastsync
fastsync.install()
assert "queue" not in sys.modules and "fastsync.objects._ring" not in sys.modules
import concurrent.futures.thread as pool
import queue
import fastsync.queue as ours
assert queue.Queue is ours.Queue and pool.queue is queue
fastsync.uninstall()
assert queue.Queue is not ours.Queue and queue.Queue.__module__ == "queue"
assert not any("fastsync" in type(finder).__module__ for finder in sys.meta_path)
"""
    run_python("-S", "-c", f"import sys; sys.path[:] = {sys.path}; {code}")


def test_uninstalled_before_the_import(run_python):
    code = """
import sys, fastsync
fastsync.install()
fastsync.uninstall()
import queue
assert "fastsync.objects._ring" not in sys.modules and hasattr(queue.Queue, "_put")
"""
    run_python("-S", "-c", f"import sys; sys.path[:] = {sys.path}; {code}")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_module_of_the_programs_own_is_left_alone(when, run_python, tmp_path):
    (tmp_path / "queue.py").write_text("class Queue: own = True\n")
    steps = ["import queue", "fastsync.install()"]
    code = "; ".join(["import fastsync", *(steps if when == "before" else steps[::-1])])
    run_python("-c", f"{code}; import queue; assert queue.Queue.own", cwd=tmp_path)


def test_a_module_that_is_imported_anew_keeps_its_own(run_python):
    """Its exceptions are others, which ours would not raise."""
    code = """
import sys, queue, fastsync
fastsync.install()
ours = sys.modules.pop("queue").Queue
import queue
fastsync.install()
assert queue.Queue is not ours
try:
    queue.Queue(1).get(timeout=0.001)
except queue.Empty:
    pass
"""
    run_python("-c", code)


def test_subclasses_and_objects_made_before():
    class Earlier(queue.Queue):
        def _put(self, item):
            super()._put((item,))

    made = STOCK["Queue"](1)
    fastsync.install()

    class Later(queue.Queue):
        def _put(self, item):
            super()._put((item,))

    for cls in (Earlier, Later):
        one = cls(2)
        one.put(1)
        one.put_nowait(2)
        with pytest.raises(queue.Full):
            one.put(3, timeout=0.001)
        assert one.get() == (1,) and one.get() == (2,)
        with pytest.raises(queue.Empty):
            one.get_nowait()
    assert isinstance(Earlier(), STOCK["Queue"]) and isinstance(Later(), fs.Queue)
    made.put("item")
    assert made.get() == "item"


def test_executors(run_python):
    code = """
import time
from concurrent.futures import ThreadPoolExecutor
import queue, threading
with ThreadPoolExecutor(4) as pool:
    assert type(pool._work_queue) is queue.SimpleQueue
    assert sum(pool.map(lambda n: n * n, range(1000))) == 332833500
    gate = threading.Event()
    first = [pool.submit(gate.wait) for _ in range(4)]
    while not all(f.running() for f in first): time.sleep(0.001)
    later = [pool.submit(int) for _ in range(10)]
    threading.Timer(0.05, gate.set).start()
    pool.shutdown(wait=True, cancel_futures=True)
assert all(f.cancelled() for f in later) and all(f.result() for f in first)
import gc
kept = ThreadPoolExecutor(2)
kept.submit(int).result()
worker = next(iter(kept._threads))
del kept  # its weak reference's callback wakes the threads by the queue
gc.collect()
worker.join(20)
assert not worker.is_alive()
idle = ThreadPoolExecutor(2)  # and the exit of the interpreter those of this one
idle.submit(int).result()
"""
    run_python("-m", "fastsync", "-c", code)


def test_logging_through_a_queue(run_python):
    code = """
import logging, logging.config, logging.handlers, queue, threading
import fastsync.queue as ours
seen = []
class Keep(logging.Handler):
    def emit(self, record): seen.append(record.getMessage())
for cls in (queue.Queue, queue.SimpleQueue):
    way = cls()
    handler, listener = logging.handlers.QueueHandler(way), None
    listener = logging.handlers.QueueListener(way, Keep())
    logger = logging.getLogger(cls.__name__)
    logger.setLevel("INFO"); logger.addHandler(handler); logger.propagate = False
    listener.start()
    threads = [threading.Thread(target=lambda: [logger.info("%s", n) for n in range(100)])
               for _ in range(4)]
    for t in threads: t.start()
    for t in threads: t.join(30)
    listener.stop()
    assert sorted(seen) == sorted(str(n) for n in range(100) for _ in range(4)), len(seen)
    seen.clear()
if hasattr(logging, "getHandlerByName"):  # 3.12
    logging.config.dictConfig({
        "version": 1,
        "handlers": {"end": {"class": "logging.NullHandler"},
                     "way": {"class": "logging.handlers.QueueHandler", "handlers": ["end"]}},
        "root": {"handlers": ["way"]}})
    assert type(logging.getHandlerByName("way").queue) is ours.Queue
"""
    run_python("-m", "fastsync", "-c", code)


CHILD = """
import queue, sys

def whose(connection=None):
    import fastsync.queue as ours
    return queue.Queue is ours.Queue

if __name__ == "__main__":
    import multiprocessing
    context = multiprocessing.get_context(sys.argv[1])
    with context.Pool(1) as pool:
        print(pool.apply(whose))
    with context.Manager() as manager:
        way = manager.Queue(2)
        way.put("a")
        way.put("b")
        try:
            way.put("c", timeout=0.01)
        except queue.Full:
            print(way.get(), way.get(), way.empty())
        pool = context.Pool(2)
        pool.map(way.put, ["x", "y"])
        pool.close()
        pool.join()
        print(sorted([way.get(), way.get()]))
        way.task_done()
"""


@pytest.mark.parametrize("way", ["fork", "spawn", "forkserver"])
def test_children_and_managers(way, run_python, tmp_path):
    if sys.platform == "win32" and way != "spawn":
        pytest.skip("POSIX only")
    script = tmp_path / "script.py"
    script.write_text(CHILD)
    done = run_python("-W", "ignore", "-m", "fastsync", script, way)
    assert done.stdout == "True\na b True\n['x', 'y']\n"


def test_multiprocessing_dummy(run_python):
    code = """
import multiprocessing.dummy as dummy
import fastsync.queue as ours
assert type(dummy.Queue()) is ours.Queue
with dummy.Pool(3) as pool:
    assert pool.map(abs, range(-50, 50)) == [abs(n) for n in range(-50, 50)]
    assert sorted(pool.imap_unordered(abs, range(50))) == list(range(50))
here, there = dummy.Pipe()
here.send("message")
assert there.poll(5) and there.recv() == "message" and not there.poll(0.01)
"""
    run_python("-m", "fastsync", "-c", code)


def test_a_program_that_is_busy_meanwhile(run_threads):
    """Queues of both kinds are made and used while install() and uninstall() run."""
    left = [4]
    guard = threading.Lock()

    def use(index):
        if index == 0:
            while left[0]:
                fastsync.install()
                fastsync.uninstall()
            return
        for n in range(300):
            for name in ALL:
                one = getattr(queue, name)()
                one.put(n)
                assert one.get(timeout=30) == n and one.empty()
        with guard:
            left[0] -= 1

    run_threads(use, count=5)
    assert {name: getattr(queue, name) for name in ALL} == STOCK
