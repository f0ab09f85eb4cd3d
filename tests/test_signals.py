"""Signals while the main thread waits: handlers run, and nothing is lost or kept by them."""

import contextlib
import gc
import os
import signal
import sys
import threading
import time

import natives
import pytest
from conftest import background, run_python, wait_asleep, wait_until

import fastsync.threading as fs
from fastsync.raw.parking import parked_total

main = threading.main_thread()


class Interrupted(Exception):
    pass


handled = 0


@contextlib.contextmanager
def handling(handler, signum=signal.SIGUSR1):
    def handle(*_):
        global handled
        handled += 1
        handler()

    # An exception of a handler that runs amid a finalizer is printed, and the wait goes on.
    collects = gc.isenabled()
    gc.disable()
    before = signal.signal(signum, handle)
    try:
        yield
    finally:
        signal.signal(signum, before)
        if collects:
            gc.enable()


@contextlib.contextmanager
def timer(interval, handler):
    with handling(handler, signal.SIGALRM):
        signal.setitimer(signal.ITIMER_REAL, interval, interval)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


def raise_interrupted():
    raise Interrupted


def kill_main_once():
    os.kill(os.getpid(), signal.SIGUSR1)


def kill_main():
    """Signal until the handler runs: stock waits see what comes just before the sleep only then."""
    before = handled
    while handled == before:
        kill_main_once()
        patience = time.monotonic() + 0.5
        while handled == before and time.monotonic() < patience:
            time.sleep(0.001)


def held(lock):
    lock.acquire()
    return lock


def owned_by_another(impl):
    lock = impl.RLock()
    thread = threading.Thread(target=lock.acquire)
    thread.start()
    thread.join()
    return lock


def with_lock(condition, call):
    with condition:
        return call()


# Every call that can block, made so that it does: a name, and what makes (call, timed call).
def blocking_calls(impl):
    lock, rlock, event = held(impl.Lock()), owned_by_another(impl), impl.Event()
    condition, plain = impl.Condition(), impl.Condition(impl.Lock())
    foreign = impl.Condition(threading.Lock())
    semaphore = impl.Semaphore(0)
    inner = impl.Condition(held(impl.Lock()))
    return {
        "Lock.acquire": (lock.acquire, lambda t: lock.acquire(timeout=t)),
        "with Lock": (lambda: lock.__enter__(), None),
        "RLock.acquire": (rlock.acquire, lambda t: rlock.acquire(timeout=t)),
        "Condition.acquire": (inner.acquire, lambda t: inner.acquire(timeout=t)),
        "Condition.wait": (
            lambda: with_lock(condition, condition.wait),
            lambda t: with_lock(condition, lambda: condition.wait(t)),
        ),
        "Condition.wait_for": (
            lambda: with_lock(condition, lambda: condition.wait_for(int)),
            lambda t: with_lock(condition, lambda: condition.wait_for(int, t)),
        ),
        "Condition(Lock).wait": (
            lambda: with_lock(plain, plain.wait),
            lambda t: with_lock(plain, lambda: plain.wait(t)),
        ),
        "Condition(foreign).wait": (
            lambda: with_lock(foreign, foreign.wait),
            lambda t: with_lock(foreign, lambda: foreign.wait(t)),
        ),
        "Semaphore.acquire": (semaphore.acquire, lambda t: semaphore.acquire(timeout=t)),
        "Event.wait": (event.wait, lambda t: event.wait(t)),
        "Barrier.wait": (impl.Barrier(2).wait, None),
    }


NAMES = list(blocking_calls(threading))
TIMED = [name for name, (_, timed) in blocking_calls(threading).items() if timed]


@pytest.mark.parametrize("name", NAMES)
def test_handler_exception_ends_the_wait(impl, name):
    call, _ = blocking_calls(impl)[name]
    with (
        handling(raise_interrupted),
        background(lambda: (wait_asleep(main), kill_main())),
        pytest.raises(Interrupted),
    ):
        call()


@contextlib.contextmanager
def signals_elsewhere():
    """The main thread blocks SIGUSR1, so another one gets it: no sleep is ended by it.

    The same as a signal in the instant before the sleep.  Threads that are to get it must have
    been started before."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# A condition over a foreign lock runs the standard library's code, which sleeps on there too.
@pytest.mark.parametrize("name", [name for name in NAMES if "foreign" not in name])
def test_signal_that_does_not_end_the_sleep_is_seen(name):
    call, _ = blocking_calls(fs)[name]
    with (
        handling(raise_interrupted),
        background(lambda: (wait_asleep(main), kill_main_once())),
        signals_elsewhere(),
        pytest.raises(Interrupted),
    ):
        call()


@pytest.mark.parametrize("name", natives.WAITS)
def test_signal_that_does_not_end_the_sleep_is_seen_in_a_native_wait(name):
    made, blocked, seen = [], threading.Event(), []

    def keeper():
        made.append(natives.WAITS[name]())
        assert blocked.wait(20)
        try:
            wait_asleep(main)
            for count in range(3):
                kill_main_once()
                wait_until(lambda count=count: len(seen) > count)
        finally:
            made[0].wake()

    def other():
        wait_until(lambda: made)
        made[0].wait()

    with handling(lambda: seen.append(1)), background(keeper, other) as threads:
        wait_until(lambda: made)
        wait_asleep(threads[1])
        with signals_elsewhere():
            blocked.set()
            made[0].wait()
    assert len(seen) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="counts context switches")
def test_a_handler_that_is_no_python_code_is_not_looked_for_again_and_again():
    """The interpreter marks a signal until it runs Python code; a wait does not."""
    code = """
import os, resource, signal, threading, time
import fastsync.threading as fs
signal.signal(signal.SIGUSR1, print)
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
fs.Event().wait(1.5)
switches = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
assert switches < 500, switches
"""
    assert str(int(signal.SIGUSR1)) in run_python("-c", code).stdout


@pytest.mark.parametrize("name", TIMED)
def test_wait_goes_on_with_the_remaining_time_under_a_1_khz_timer(impl, name):
    _, timed = blocking_calls(impl)[name]
    calls = []
    with timer(0.001, lambda: calls.append(1)):
        begin = time.monotonic()
        assert not timed(0.15)
        took = time.monotonic() - begin
    assert took >= 0.15
    assert calls


@pytest.mark.parametrize("name", sorted({*TIMED} - {"Condition.acquire", "RLock.acquire"}))
def test_wait_under_a_1_khz_timer_ends_when_it_should(impl, name):
    # What is waited for comes while the timer fires: nothing is lost between two handlers.
    lock, event, semaphore = held(impl.Lock()), impl.Event(), impl.Semaphore(0)
    condition, plain = impl.Condition(), impl.Condition(impl.Lock())
    foreign = impl.Condition(threading.Lock())
    flag = []

    def notify(c):
        with c:
            flag.append(1)
            c.notify()

    call, end = {
        "Lock.acquire": (lambda: lock.acquire(timeout=20), lock.release),
        "Event.wait": (lambda: event.wait(20), event.set),
        "Semaphore.acquire": (lambda: semaphore.acquire(timeout=20), semaphore.release),
        "Condition.wait": (lambda: condition.wait(20), lambda: notify(condition)),
        "Condition.wait_for": (
            lambda: condition.wait_for(lambda: flag, 20),
            lambda: notify(condition),
        ),
        "Condition(Lock).wait": (lambda: plain.wait(20), lambda: notify(plain)),
        "Condition(foreign).wait": (lambda: foreign.wait(20), lambda: notify(foreign)),
    }[name]
    owned = {"Condition.wait": condition, "Condition.wait_for": condition}
    owned |= {"Condition(Lock).wait": plain, "Condition(foreign).wait": foreign}
    for _ in range(10):
        flag.clear()
        event.clear()
        with timer(0.001, int), owned.get(name, contextlib.nullcontext()):
            with background(lambda: (wait_asleep(main), end())):
                assert call()


def test_interrupted_acquire_leaves_the_lock_to_its_owner(impl):
    lock = held(impl.Lock())
    with handling(raise_interrupted):
        for _ in range(20):
            with background(lambda: (wait_asleep(main), kill_main())):
                with pytest.raises(Interrupted):
                    lock.acquire()
            assert lock.locked()
    lock.release()
    assert not lock.locked()
    assert lock.acquire(False)


def test_wake_up_that_meets_an_exception_is_passed_on(impl):
    # A release and a raising handler at once, another thread waiting: it must get the lock.
    with handling(raise_interrupted):
        for _ in range(50):
            lock = held(impl.Lock())
            other = threading.Thread(target=lock.acquire, daemon=True)
            with background(
                lambda lock=lock, other=other: (
                    wait_asleep(main),
                    other.start(),
                    wait_asleep(other),
                    kill_main_once(),
                    lock.release(),
                )
            ):
                try:
                    lock.acquire()
                    lock.release()
                    time.sleep(20)  # the signal may come only now
                except Interrupted:
                    pass
            other.join(0.1)
            if other.is_alive():
                lock.release()  # interrupted between acquire() and release(): it must be ours
            other.join(20)
            assert not other.is_alive()


@pytest.mark.parametrize("kind", ["default", "Lock", "RLock", "foreign"])
def test_exception_from_condition_wait_comes_with_the_lock_re_taken(impl, kind):
    lock = {
        "default": lambda: None,
        "Lock": impl.Lock,
        "RLock": impl.RLock,
        "foreign": threading.RLock,
    }[kind]()
    condition = impl.Condition(lock)
    with handling(raise_interrupted), condition:
        with background(lambda: (wait_asleep(main), kill_main())):
            with pytest.raises(Interrupted):
                condition.wait()
        assert condition._is_owned()
        assert not condition._waiters
        condition.notify_all()
    assert condition.acquire(False)
    condition.release()


def test_depth_is_restored_after_an_exception(impl):
    condition = impl.Condition()
    with handling(raise_interrupted), condition, condition, condition:
        with background(lambda: (wait_asleep(main), kill_main())):
            with pytest.raises(Interrupted):
                condition.wait()
        assert condition._lock._recursion_count() == 3


@pytest.mark.parametrize("kind", ["default", "Lock", "foreign"])
def test_notify_during_a_handler_is_not_lost(impl, kind):
    lock = {"default": lambda: None, "Lock": impl.Lock, "foreign": threading.Lock}[kind]()
    condition = impl.Condition(lock)
    in_handler, notified = threading.Event(), threading.Event()

    def handler():
        in_handler.set()
        assert notified.wait(20)

    def notify():
        wait_asleep(main)
        kill_main()
        assert in_handler.wait(20)
        with condition:
            condition.notify()
        notified.set()

    with handling(handler), condition, background(notify):
        assert condition.wait(20) is True


def test_set_and_clear_during_a_handler_is_not_lost(impl):
    event = impl.Event()
    in_handler, pulsed = threading.Event(), threading.Event()

    def pulse():
        wait_asleep(main)
        kill_main()
        assert in_handler.wait(20)
        event.set()
        event.clear()
        pulsed.set()

    with handling(lambda: (in_handler.set(), pulsed.wait(20))), background(pulse):
        assert event.wait(20) is True


KINDS_TAKEN = ("Lock", "RLock", "Semaphore")


@pytest.mark.parametrize(
    ("impl", "kind"),
    # Not a Semaphore of stock: the code that is interrupted may hold its inner lock.
    [("stock", "Lock"), ("stock", "RLock"), *(("fastsync", kind) for kind in KINDS_TAKEN)],
    indirect=["impl"],
)
def test_handler_may_take_the_lock_that_is_waited_for(impl, kind):
    # The wake-up must not go to the wait that the handler interrupted.
    for _ in range(10):
        lock = getattr(impl, kind)()
        taken, go, got = threading.Event(), threading.Event(), []

        def owner(lock=lock, taken=taken, go=go):
            with lock:
                taken.set()
                assert go.wait(20)

        def handler(lock=lock, go=go, got=got):
            go.set()
            got.append(lock.acquire(timeout=20))
            lock.release()

        def interrupt(taken=taken):
            assert taken.wait(20)
            wait_asleep(main)
            kill_main()

        with handling(handler), background(owner, interrupt):
            assert taken.wait(20)
            assert lock.acquire(timeout=20)
            lock.release()
            wait_until(lambda got=got: got)
        assert got == [True]


def test_handler_may_take_the_lock_after_others_in_the_queue(impl):
    lock = held(impl.Lock())
    done = []

    def other():
        with lock:
            done.append(1)

    def handler():
        lock.release()
        with lock:
            done.append(2)

    def interrupt():
        wait_asleep(main)
        kill_main()

    with handling(handler), background(other, other, interrupt):
        assert lock.acquire(timeout=20)
        lock.release()
        wait_until(lambda: 2 in done)
    assert sorted(done) == [1, 1, 2]


@pytest.mark.parametrize("kind", ["default", "Lock", "foreign"])
def test_handler_may_take_the_lock_of_the_condition_that_is_waited_on(impl, kind):
    lock = {"default": lambda: None, "Lock": impl.Lock, "foreign": threading.Lock}[kind]()
    condition = impl.Condition(lock)
    in_handler, notifying, got = threading.Event(), threading.Event(), []

    def handler():
        # notified while this runs, and asleep for the lock when the notifier lets it go
        in_handler.set()
        assert notifying.wait(20)
        got.append(condition.acquire(timeout=20))
        condition.release()

    def notify():
        wait_asleep(main)
        kill_main()
        assert in_handler.wait(20)
        with condition:
            condition.notify_all()
            notifying.set()
            wait_asleep(main)

    for _ in range(5):
        in_handler.clear()
        notifying.clear()
        with handling(handler), condition, background(notify):
            assert condition.wait(20) is True
    assert got == [True] * 5


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_handler_waits_for_a_notified_wait_to_have_its_lock_back(kind):
    # The wait sleeps in the queue of the lock by then, and may be handed it at any moment.
    condition = fs.Condition(getattr(fs, kind)())
    early = []

    def notify():
        wait_asleep(main)
        with condition:
            before = handled
            condition.notify()
            kill_main_once()
            patience = time.monotonic() + 0.2
            while handled == before and time.monotonic() < patience:
                time.sleep(0.001)
            early.append(handled - before)

    before = handled
    with handling(lambda: None):
        with condition, background(notify):
            assert condition.wait(20) is True
        wait_until(lambda: handled == before + 1)
    assert early == [0]


def test_handler_may_notify_the_wait_that_it_interrupts(impl):
    condition = impl.Condition()

    def handler():
        with condition:
            condition.notify()

    with handling(handler), condition:
        with background(lambda: (wait_asleep(main), kill_main())):
            assert condition.wait(20) is True


def test_handler_may_set_the_event_or_release_the_semaphore_that_is_waited_for(impl):
    for make, wait, end in (
        (impl.Event, "wait", "set"),
        (lambda: impl.Semaphore(0), "acquire", "release"),
        (lambda: held(impl.Lock()), "acquire", "release"),
    ):
        thing = make()
        with handling(getattr(thing, end)):
            with background(lambda: (wait_asleep(main), kill_main())):
                assert getattr(thing, wait)(timeout=20) is True


@pytest.mark.parametrize("kind", ["Event", "Condition", "Condition(foreign)", "Barrier"])
def test_exception_of_a_handler_that_ends_the_wait_passes(kind):
    # Woken and interrupted at once: the exception comes out, and the wake-up is used up.
    event, barrier = fs.Event(), fs.Barrier(3)
    condition = fs.Condition(threading.RLock() if "foreign" in kind else None)
    others = [barrier.wait] * 2 if kind == "Barrier" else []

    def notify():
        with condition:
            condition.notify()

    def come():
        with background(barrier.wait):
            wait_until(lambda: barrier.n_waiting in (0, 3))

    def wait():
        with condition:
            try:
                condition.wait()
            finally:
                assert condition._is_owned()

    call, end = {"Event": (event.wait, event.set), "Barrier": (barrier.wait, come)}.get(
        kind, (wait, notify)
    )

    def handler():
        end()
        raise Interrupted

    def interrupt():
        wait_asleep(main)
        with background(*others[1:]):
            wait_until(lambda: not others or barrier.n_waiting == 2)
            kill_main()

    with handling(handler), background(interrupt), pytest.raises(Interrupted):
        call()
    assert parked_total() == 0
    assert not condition._waiters
    if kind == "Barrier":
        with background(*others):
            assert barrier.wait(20) in range(3)


def test_interrupted_thread_does_not_join_a_round_that_has_not_begun():
    acting, go = threading.Event(), threading.Event()

    def act():
        acting.set()
        assert go.wait(20)

    barrier = fs.Barrier(2, act)
    with handling(raise_interrupted), background(*[lambda: barrier.wait(20)] * 2):
        assert acting.wait(20)
        with background(lambda: (wait_asleep(main), kill_main())), pytest.raises(Interrupted):
            barrier.wait()
        go.set()
    assert barrier.n_waiting == 0
    with background(barrier.wait):
        assert barrier.wait(20) in range(2)


@pytest.mark.parametrize("kind", ["Lock", "Semaphore"])
def test_handler_does_not_cost_the_first_place_in_the_queue(kind):
    lock = held(getattr(fs, kind)())
    order, calls = [], []

    def take(name):
        assert lock.acquire(timeout=20)
        order.append(name)
        lock.release()

    def interrupt():
        wait_until(lambda: parked_total() == 1)
        with background(lambda: take("other")):
            wait_until(lambda: parked_total() == 2)
            kill_main_once()
            wait_until(lambda: calls and parked_total() == 2)
            began = time.monotonic()
            # Until who is first would be handed it.
            wait_until(lambda: time.monotonic() > began + 0.002)
            lock.release()

    with handling(lambda: calls.append(1)), background(interrupt):
        take("main")
    assert order == ["main", "other"]


@pytest.mark.parametrize("name", ["Event.wait", "Condition.wait"])
def test_thread_that_waits_is_counted_but_while_its_handler_runs(name):
    # So the deadlock detector sees it, before the first signal and after it.
    call, _ = blocking_calls(fs)[name]
    during, ended, before = [], [], handled

    def handler():
        if ended:
            raise Interrupted
        during.append(parked_total())

    def interrupt():
        try:
            wait_until(lambda: parked_total() == 1)
            kill_main_once()
            wait_until(lambda: handled == before + 1)
            wait_until(lambda: parked_total() == 1)
        finally:
            ended.append(True)
            kill_main_once()

    with handling(handler), background(interrupt), pytest.raises(Interrupted):
        call()
    assert during == [0]


def test_handler_may_wait_in_its_turn(impl):
    outer, inner = impl.Event(), impl.Event()
    waited = []

    with handling(lambda: waited.append(inner.wait(20))):

        def interrupt():
            wait_asleep(main)
            kill_main()
            wait_asleep(main)
            outer.set()
            inner.set()

        with background(interrupt):
            assert outer.wait(20)
            wait_until(lambda: waited)
    assert waited == [True]


def test_interrupted_barrier_wait_leaves_the_barrier_usable(impl):
    barrier = impl.Barrier(2)
    with handling(raise_interrupted):
        with background(lambda: (wait_asleep(main), kill_main())):
            with pytest.raises(Interrupted):
                barrier.wait()
    assert not barrier.broken and barrier.n_waiting == 0
    with background(barrier.wait):
        barrier.wait()


def test_other_threads_are_not_interrupted(impl):
    event, calls = impl.Event(), []
    with timer(0.001, lambda: calls.append(threading.current_thread())):
        with background(lambda: event.wait(20)):
            wait_until(lambda: len(calls) > 20)
            event.set()
    assert set(calls) == {main}


def test_handler_that_forks(impl):
    # The child goes on with the wait that was interrupted, and is woken in its own process.
    if not sys.platform.startswith("linux"):
        pytest.skip("needs fork and /proc")
    module = "fastsync.threading" if impl is fs else "threading"
    source = f"""
import os, signal, sys, time, warnings
import {module} as threading
import threading as stock
warnings.simplefilter("ignore")
thing = threading.{{make}}
parent = os.getpid()

def handler(*_):
    global pid
    pid = os.fork()
    if pid == 0:
        stock.Thread(target=lambda: (time.sleep(0.05), end())).start()

def end():
    {{end}}

signal.signal(signal.SIGUSR1, handler)

def interrupt():
    time.sleep(0.05)
    os.kill(parent, signal.SIGUSR1)
    time.sleep(0.1)
    end()

thread = stock.Thread(target=interrupt)
thread.start()
{{wait}}
if os.getpid() != parent:
    os._exit(7)
thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    for make, wait, end in (
        ("Lock()", "thing.acquire(); assert thing.acquire(timeout=20)", "thing.release()"),
        ("Event()", "assert thing.wait(20)", "thing.set()"),
        ("Semaphore(0)", "assert thing.acquire(timeout=20)", "thing.release()"),
        (
            "Condition()",
            "thing.acquire(); assert thing.wait(20); thing.release()",
            "thing.acquire(); thing.notify(); thing.release()",
        ),
    ):
        done = run_python("-c", source.format(make=make, wait=wait, end=end))
        assert done.stdout.strip() == "7", (make, done.stderr)


def test_wait_that_times_out_in_the_child_of_its_handler_leaves_the_queue():
    # A record that is queued twice stays there.
    for make, wait in (
        ("Lock()", "thing.acquire(); assert not thing.acquire(timeout=1)"),
        ("Semaphore(0)", "assert not thing.acquire(timeout=1)"),
        ("Event()", "assert not thing.wait(1)"),
        ("Condition()", "with thing: assert not thing.wait(1)"),
    ):
        source = f"""
import os, signal, warnings
import fastsync.threading as threading
from fastsync.raw.parking import parked_total
warnings.simplefilter("ignore")
thing, parent = threading.{make}, os.getpid()

def handler(*_):
    global pid
    pid = os.fork()

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.1)
{wait}
assert parked_total() == 0
if os.getpid() != parent:
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
        assert run_python("-c", source).stdout.strip() == "7", make


def test_waits_within_waits_go_on_in_the_child_of_the_innermost_handler():
    # Each is queued again before that handler goes on, as it may wake them.
    source = """
import os, signal, threading as stock, warnings
import fastsync.threading as threading
warnings.simplefilter("ignore")
outer, inner, parent = threading.Event(), threading.Event(), os.getpid()

def end():
    for event in outer, inner:
        event.set()
        event.clear()

def wait(*_):
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    assert inner.wait(10)

def fork(*_):
    global pid
    pid = os.fork()
    thread = stock.Thread(target=end)
    thread.start()
    thread.join()

def alarm(*_):
    signal.signal(signal.SIGALRM, fork)
    wait()

signal.signal(signal.SIGALRM, alarm)
signal.setitimer(signal.ITIMER_REAL, 0.1)
assert outer.wait(10)
if os.getpid() != parent:
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert run_python("-c", source).stdout.strip() == "7"


def test_thread_that_waits_in_a_handler_does_not_exist_in_the_child_of_another_thread():
    source = """
import os, signal, threading as stock, time, warnings
import fastsync.threading as threading
warnings.simplefilter("ignore")
condition, in_handler, forked = threading.Condition(), stock.Event(), stock.Event()

def child():
    def wait():
        with condition:
            done.append(condition.wait(10))
    done = []
    thread = stock.Thread(target=wait)
    thread.start()
    while not condition._waiters:
        time.sleep(0.001)
    with condition:
        condition.notify()
    thread.join()
    os._exit(7 if done == [True] else 1)

def fork():
    global pid
    in_handler.wait(10)
    pid = os.fork()
    if pid == 0:
        child()
    forked.set()

def handler(*_):
    in_handler.set()
    forked.wait(10)

signal.signal(signal.SIGALRM, handler)
thread = stock.Thread(target=fork)
thread.start()
signal.setitimer(signal.ITIMER_REAL, 0.1)
with condition:
    assert not condition.wait(1)
thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert run_python("-c", source).stdout.strip() == "7"


def test_signal_that_ends_no_sleep_is_seen_in_the_child_of_a_thread():
    # There the interpreter may mark a thread that is gone.
    source = """
import os, signal, threading as stock, time, warnings
import fastsync.threading as threading
warnings.simplefilter("ignore")

def child():
    lock = threading.Lock()
    lock.acquire()
    signal.signal(signal.SIGUSR1, lambda *_: lock.release())
    other = stock.Thread(target=lambda: (time.sleep(0.2), os.kill(os.getpid(), signal.SIGUSR1),
                                         time.sleep(0.2)))
    other.start()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    os._exit(7 if lock.acquire(timeout=8) else 1)

def fork():
    global pid
    pid = os.fork()
    if pid == 0:
        child()

thread = stock.Thread(target=fork)
thread.start()
thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert run_python("-c", source).stdout.strip() == "7"


def test_wake_up_in_the_child_while_the_handler_that_forked_still_runs_is_not_lost():
    # The child queued its waiter again only after the handler.
    for make, wait, end in (
        ("Event()", "assert thing.wait(10)", "thing.set(); thing.clear()"),
        ("Condition()", "with thing: assert thing.wait(10)", "with thing: thing.notify()"),
    ):
        source = f"""
import os, signal, threading as stock, time, warnings
import fastsync.threading as threading
warnings.simplefilter("ignore")
thing, parent = threading.{make}, os.getpid()

def end():
    {end}

def handler(*_):
    global pid
    pid = os.fork()
    if pid == 0:
        thread = stock.Thread(target=end)
        thread.start()
        thread.join()

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.1)
timer = stock.Timer(1, end)
timer.start()
{wait}
if os.getpid() != parent:
    os._exit(7)
timer.join()
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
        assert run_python("-c", source).stdout.strip() == "7", make


@pytest.mark.parametrize("name", ["Lock", "RLock", "Condition", "Semaphore", "Event", "Barrier"])
def test_ctrl_c_ends_the_process(name):
    wait = {
        "Lock": "x = t.Lock(); x.acquire(); x.acquire()",
        "RLock": "x = t.RLock(); s = stock.Thread(target=x.acquire); s.start(); s.join(); x.acquire()",  # noqa: E501
        "Condition": "x = t.Condition(); x.acquire(); x.wait()",
        "Semaphore": "t.Semaphore(0).acquire()",
        "Event": "t.Event().wait()",
        "Barrier": "t.Barrier(2).wait()",
    }[name]
    done = run_python(
        "-c",
        f"""
import os, signal, threading as stock
import fastsync.threading as t
def interrupt():
    import time; time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGINT)
stock.Thread(target=interrupt, daemon=True).start()
{wait}
""",
        check=False,
    )
    assert done.returncode == -signal.SIGINT
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
