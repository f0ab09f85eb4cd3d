"""The end of the interpreter, with threads blocked and locks held: no crash, no hang."""

import textwrap

import natives
import pytest
from conftest import run_python

# Blocks for ever in each primitive.
BLOCK = {
    "Lock": "x = t.Lock(); x.acquire(); x.acquire()",
    "with Lock": "x = t.Lock(); x.acquire()\nwith x: pass",
    "RLock": "others.acquire()",
    "Condition": "x = t.Condition(); x.acquire(); x.wait()",
    "Condition(Lock)": "x = t.Condition(t.Lock()); x.acquire(); x.wait()",
    "Condition(foreign)": "x = t.Condition(stock.Lock()); x.acquire(); x.wait()",
    "Semaphore": "t.Semaphore(0).acquire()",
    "Event": "t.Event().wait()",
    "Barrier": "t.Barrier(2).wait()",
    "timed": "x = t.Lock(); x.acquire()\nwhile True: x.acquire(timeout=0.0001)",
    "timed event": "x = t.Event()\nwhile True: x.wait(0.0001)",
    "busy": "while True:\n with shared: pass",
    "ping": "while True:\n with shared_condition: shared_condition.notify(); shared_condition.wait(0.001)",  # noqa: E501
}

PRELUDE = """
import faulthandler, os, sys, threading as stock, time
import fastsync.threading as t
faulthandler.dump_traceback_later(40, exit=True)
shared, shared_condition, others = t.Lock(), t.Condition(), t.RLock()
others.acquire()
# What 3.15 raises, as the originals there, in place of a wait that no thread can end any more.
Refused = PythonFinalizationError if sys.version_info >= (3, 15) else ()
"""

ENDS = {
    "end of the script": ("", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "os._exit": ("os._exit(4)", 4),
    "exception": ("raise KeyError", 1),
    "with locks held": ("shared.acquire(); shared_condition.acquire()", 0),
}


def threads_blocked(names, number=2):
    source = PRELUDE
    for i, name in enumerate(names):
        source += f"def block{i}():\n" + textwrap.indent(BLOCK[name], "    ") + "\n"
        source += f"for _ in range({number}):\n"
        source += f"    stock.Thread(target=block{i}, daemon=True).start()\n"
    return source + "time.sleep(0.1)\n"


@pytest.mark.parametrize("end", ENDS)
def test_daemon_threads_blocked_in_each_primitive_do_not_disturb(end):
    code, status = ENDS[end]
    done = run_python("-c", threads_blocked(BLOCK) + code, check=False)
    assert done.returncode == status, done.stderr
    if end != "exception":
        assert done.stderr == ""


@pytest.mark.parametrize("end", ENDS)
def test_daemon_threads_blocked_in_each_native_type_do_not_disturb(end):
    code, status = ENDS[end]
    done = run_python(
        "-c",
        natives.SOURCE
        + PRELUDE
        + textwrap.dedent("""
        waits = {name: make() for name, make in WAITS.items()}
        start_waiters(waits)
        def busy(it):
            while True: it.use(it.make())
        for name in ("Mutex", "ReentrantMutex", "Condvar", "RwLock", "ShardedLock", "AtomicRef",
                     "AtomicI64", "AtomicArray", "Parker", "Arc"):
            stock.Thread(target=busy, args=[USES[name]], daemon=True).start()
        """)
        + code,
        check=False,
    )
    assert done.returncode == status, done.stderr
    if end != "exception":
        assert done.stderr == ""


@pytest.mark.parametrize("when", ["atexit", "module", "cycle"])
def test_native_waiters_woken_during_the_exit_do_not_crash_it(when):
    done = run_python(
        "-c",
        natives.SOURCE
        + PRELUDE
        + textwrap.dedent("""
        import atexit, gc, types
        gc.disable()
        other = types.ModuleType("other")
        waits = {name: make() for name, make in WAITS.items()}
        start_waiters(waits)
        class Waker:
            def __del__(self, waits=waits, write=os.write):
                try:
                    while waits: waits.popitem()[1].wake()
                    write(1, b"woken")
                except BaseException as error:  # sys.stderr may be gone
                    write(2, repr(error).encode())
        """)
        + {
            "atexit": "atexit.register(Waker().__del__)",
            "module": "sys.modules['other'] = other; other.waker = Waker()",
            "cycle": "waker = Waker(); waker.me = waker; del waker",
        }[when],
    )
    assert "woken" in done.stdout and done.stderr == "", done.stderr


def test_finalizers_at_shutdown_use_every_native_type():
    done = run_python(
        "-c",
        natives.SOURCE
        + PRELUDE
        + textwrap.dedent("""
        class Late:
            def __init__(self, name): self.name = name
            def __del__(self, write=os.write, Refused=Refused):
                for name, it, thing in self.made:
                    try:
                        if name not in ("once", "Arc"):  # which import something
                            it.use(thing)
                    except Refused:
                        pass
                    it.in_order(thing)
                for wait in self.waits:
                    wait.wake()
                    wait.wait()
                write(1, f"done {self.name} ".encode())
        def late(name):
            it = Late(name)
            it.made = [(name, use, use.make()) for name, use in USES.items()]
            it.waits = [make() for name, make in WAITS.items() if name != "WaitGroup"]
            return it
        import atexit, gc, types
        gc.disable()
        sys.modules["other"] = types.ModuleType("other")
        sys.modules["other"].late = late("module")
        cycle = late("cycle"); cycle.me = cycle
        del cycle
        atexit.register(lambda last: None, late("atexit"))
        """),
    )
    assert sorted(done.stdout.split()[1::2]) == ["atexit", "cycle", "module"], done.stderr


def test_daemon_threads_that_wake_up_during_the_exit_do_not_crash_it():
    # atexit and module teardown wake them: they must not come back to a dead interpreter.
    for i in range(3):
        done = run_python(
            "-c",
            PRELUDE
            + textwrap.dedent(f"""
            import atexit
            lock, event, condition = t.Lock(), t.Event(), t.Condition()
            semaphore, barrier = t.Semaphore(0), t.Barrier(9)
            lock.acquire()
            def wait_condition():
                with condition: condition.wait()
            waits = [lock.acquire, event.wait, wait_condition, semaphore.acquire, barrier.wait]
            for wait in waits * 3:
                stock.Thread(target=wait, daemon=True).start()
            class Waker:
                def __del__(self, lock=lock, event=event, condition=condition,
                            semaphore=semaphore, barrier=barrier):
                    lock.release()
                    event.set()
                    semaphore.release(2)
                    barrier.abort()
                    with condition: condition.notify_all()
            waker = Waker()
            atexit.register(semaphore.release)
            time.sleep(0.02 * {i})
            """),
            check=False,
        )
        assert done.returncode == 0 and done.stderr == "", done.stderr


def test_finalizers_at_shutdown_use_every_primitive():
    done = run_python(
        "-c",
        PRELUDE
        + textwrap.dedent("""
        things = [t.Lock(), t.RLock(), t.Condition(), t.Condition(t.Lock()), t.Semaphore(),
                  t.BoundedSemaphore()]
        event, barrier = t.Event(), t.Barrier(1)
        class Late:
            def __init__(self, name): self.name = name
            def __del__(self, repr=repr, write=os.write, Refused=Refused,
                        things=things, event=event, barrier=barrier):
                for thing in things:
                    with thing: repr(thing)
                event.set(); event.wait(); event.clear(); barrier.wait()
                try: event.wait(0.001)
                except Refused: pass
                try:
                    with things[2]: things[2].wait(0.001)
                except Refused: pass
                with things[2]: pass
                write(1, f"done {self.name}\\n".encode())
        late = Late("module")
        sys.late = Late("sys")
        import builtins
        builtins.late = Late("builtins")
        cycle = Late("cycle"); cycle.me = cycle
        """),
    )
    assert sorted(done.stdout.split()[1::2]) == ["builtins", "cycle", "module", "sys"], done.stderr


def test_locks_of_the_module_may_die_at_shutdown_with_waiters_and_attributes():
    done = run_python(
        "-c",
        PRELUDE
        + textwrap.dedent("""
        for _ in range(100):
            for thing in (t.Condition(), t.Event(), t.Semaphore(0), t.Barrier(2)):
                thing.me = thing
                globals()[f"thing{id(thing)}"] = thing
        event = t.Event()
        event._cond
        stock.Thread(target=event.wait, daemon=True).start()
        """),
    )
    assert done.stderr == ""


def test_main_thread_joins_threads_that_still_use_locks():
    done = run_python(
        "-c",
        PRELUDE
        + textwrap.dedent("""
        def work(i):
            time.sleep(0.05)
            with shared_condition: shared_condition.notify_all(); shared_condition.wait(0.01)
            with shared: print("worked")
        for i in range(5): stock.Thread(target=work, args=[i]).start()
        """),
    )
    assert done.stdout.count("worked") == 5


def test_exception_in_a_thread_releases_what_with_holds():
    done = run_python(
        "-c",
        PRELUDE
        + textwrap.dedent("""
        def work():
            with shared, shared_condition:
                raise KeyError("in thread")
        thread = stock.Thread(target=work)
        thread.start(); thread.join()
        assert not shared.locked() and shared_condition.acquire(False)
        """),
    )
    assert "in thread" in done.stderr


@pytest.mark.parametrize("attempt", range(3))
def test_end_amid_the_notes_of_the_detector(run_python, attempt):
    """Daemon threads are stopped where they are detached: none may own the lock of the records."""
    code = """
    import sys, threading, time
    import fastsync.threading as drop_in
    from fastsync import Mutex, deadlock

    deadlock.enable()
    mutexes = [Mutex([1]) for _ in range(2)]
    own = drop_in.Lock()

    class AtTheEnd:
        def __del__(self, mutexes=mutexes, own=own):
            with own:
                for mutex in mutexes:
                    mutex.try_lock_for(0.001)

    def block(mutex):
        while True:
            with mutex:
                pass

    def attempt(mutex):
        while True:
            mutex.try_lock_for(0.001)

    for i in range(14):
        work = (block, attempt)[i % 2]
        threading.Thread(target=work, args=(mutexes[i // 2 % 2],), daemon=True).start()
    keep = [AtTheEnd() for _ in range(5)]
    sys.modules[__name__].other = AtTheEnd()
    time.sleep(0.05)
    """
    run_python("-c", textwrap.dedent(code))
