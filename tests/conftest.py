"""What all tests share: threads that get joined, polling, and children with a time limit."""

import contextlib
import faulthandler
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

# Far above what anything here takes, also on a busy machine; a hang ends the test, not the suite.
DEADLINE = 30.0

# Whoever runs the suite in a script's background has Ctrl-C ignored, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def run_threads(functions, count=None, timeout=DEADLINE):
    """Run functions in threads of their own, join them, and return their results in order.

    `functions` may be one function with a `count`: it is called with 0, 1, … then. The first
    exception in a thread is raised here; threads that do not end in time are a failure, with
    everybody's stack on stderr.
    """
    if count is not None:
        functions = [lambda i=i, function=functions: function(i) for i in range(count)]
    results = [None] * len(functions)
    errors = []

    def run(index, function):
        try:
            results[index] = function()
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(target=run, args=item, daemon=True) for item in enumerate(functions)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    if errors:
        raise errors[0]
    stuck = sum(thread.is_alive() for thread in threads)
    if stuck:
        faulthandler.dump_traceback(all_threads=True)
        pytest.fail(f"{stuck} of {len(threads)} threads did not end in {timeout} s")
    return results


def wait_until(predicate, timeout=DEADLINE):
    """Poll until the predicate is true and return its value; fail when that takes too long."""
    deadline = time.monotonic() + timeout
    while not (value := predicate()):
        if time.monotonic() > deadline:
            pytest.fail(f"not true after {timeout} s: {predicate}")
        time.sleep(0.001)
    return value


def run_python(*arguments, timeout=60, check=True, **options):
    """Run this Python with arguments; return its returncode, stdout and stderr (as text).

    It dies with all its stacks shown when it takes too long. Coverage of the outer process and
    switches that would change what the child prints, Python's and our tools', are kept from it.
    """
    env = options.pop("env", None)
    if env is None:
        away = ("PYTHON", "FASTSYNC_")
        env = {name: value for name, value in os.environ.items() if not name.startswith(away)}
        if "PYTHONPATH" in os.environ:
            env["PYTHONPATH"] = os.environ["PYTHONPATH"]
    env.setdefault("PYTHONFAULTHANDLER", "1")
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout,
        **options,
    )
    if check and done.returncode:
        pytest.fail(f"status {done.returncode} of {done.args}\n{done.stdout}\n{done.stderr}")
    return SimpleNamespace(returncode=done.returncode, stdout=done.stdout, stderr=done.stderr)


# For programs that run_python() runs: what they say before their own text.
IN_CHILD = """
import os, sys, traceback

def in_child(function):
    '''Call it in the child of a fork; the exit code of the child: 0 if it returns.'''
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def run_build(*arguments, cwd=None, **environment):
    """Run this Python with arguments, for up to ten minutes; return what it printed.

    A build takes longer than a test may hang, on a busy machine.
    """
    faulthandler.cancel_dump_traceback_later()
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {name: str(value) for name, value in environment.items()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    if done.returncode:
        pytest.fail(f"status {done.returncode} of {done.args}\n{done.stdout[-6000:]}")
    return done.stdout


def wait_asleep(*threads, timeout=DEADLINE, or_ended=False):
    """Poll until the kernel says that these threads sleep: most likely in the call under test.

    Three times in a row: on a busy machine a thread may sleep for a moment for a lock of the
    interpreter.
    """

    def asleep():
        for thread in threads:
            if or_ended and not thread.is_alive():
                continue
            try:
                with open(f"/proc/self/task/{thread.native_id}/stat") as stat:
                    state = stat.read().rpartition(")")[2].split()[0]
            except (OSError, TypeError):  # not started, ended, or not Linux
                return not sys.platform.startswith("linux")
            if state != "S":
                return False
        return True

    def still_asleep():
        for _ in range(2):
            if not asleep():
                return False
            time.sleep(0.003)
        return asleep()

    wait_until(still_asleep, timeout)


@contextlib.contextmanager
def background(*functions, timeout=DEADLINE):
    """Run functions in threads during the block, and join them after it; as run_threads fails."""
    errors = []

    def run(function):
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=[f], daemon=True) for f in functions]
    for thread in threads:
        thread.start()
    yield threads
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    if errors:
        raise errors[0]
    if any(thread.is_alive() for thread in threads):
        faulthandler.dump_traceback(all_threads=True)
        pytest.fail(f"threads did not end in {timeout} s")


class Interrupted(BaseException):
    """What the signal handler of interrupted() raises."""


def interrupted(call, first=lambda: None):
    """Call something that waits for ever in the main thread, until a signal handler raises in it.

    The handler calls first() and raises, once, and not before the call has begun.
    """
    armed = False

    def handle(*_):
        nonlocal armed
        was_armed, armed = armed, False
        if was_armed:
            first()
            raise Interrupted

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    try:
        with pytest.raises(Interrupted):
            armed = True
            call()
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def collect_between_steps(going, steps, generation=2):
    """Collect garbage while `going()`, as soon as the others have changed the number `steps()`.

    Not without that: in a free-threaded interpreter those whom a collection has stopped may never
    run again, whatever lock they use, if the next one comes before they have woken up.
    """
    while going():
        gc.collect(generation)
        before = steps()
        while going() and steps() == before:
            time.sleep(0)


@pytest.fixture(params=["stock", "fastsync"])
def impl(request):
    """The original module and ours: what a test of both expects is the contract itself."""
    if request.param == "stock":
        return threading
    import fastsync.threading

    return fastsync.threading


@pytest.fixture(name="run_threads")
def _run_threads():
    return run_threads


@pytest.fixture(name="wait_until")
def _wait_until():
    return wait_until


@pytest.fixture(name="run_python")
def _run_python():
    return run_python


@pytest.fixture
def swapped():
    """Have fastsync installed in `threading` for one test."""
    import fastsync

    fastsync.install()
    yield
    fastsync.uninstall()


@pytest.fixture(autouse=True)
def _leaves_no_threads_and_no_swap():
    """Fail a test that leaves a thread behind, or `threading` changed."""
    before = set(threading.enumerate())
    native = threading.Lock
    yield
    assert threading.Lock is native, "the test left fastsync installed"
    deadline = time.monotonic() + DEADLINE
    while left := [t for t in threading.enumerate() if t not in before and t.is_alive()]:
        if time.monotonic() > deadline:
            pytest.fail(f"threads left behind: {left}")
        time.sleep(0.001)
