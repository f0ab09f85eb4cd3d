"""Waits without time left: they look, and neither poll nor sleep, whichever door they came by."""

import ctypes
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from c_door import c_function
from conftest import run_python

import fastsync


def test_the_clock_of_deadlines_is_that_of_time_monotonic():
    now = c_function("now", ctypes.c_int64)
    for _ in range(1000):
        before, between, after = time.monotonic_ns(), now(), time.monotonic_ns()
        assert before <= between <= after


# Counts what the process does to wait: sched_yield() in a poll, syscall() for a futex.
COUNTER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>
long polls;
int sched_yield(void) { __atomic_add_fetch(&polls, 1, __ATOMIC_RELAXED); return 0; }
int pthread_cond_timedwait(void *c, void *m, const void *t) {
    static int (*real)(void *, void *, const void *);
    if (!real) real = (int (*)(void *, void *, const void *))dlsym(RTLD_NEXT, __func__);
    __atomic_add_fetch(&polls, 1, __ATOMIC_RELAXED);
    return real(c, m, t);
}
long syscall(long number, ...) {
    static long (*real)(long, ...);
    long a[6];
    va_list list;
    if (!real) real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    va_start(list, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_futex) __atomic_add_fetch(&polls, 1, __ATOMIC_RELAXED);
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
"""

PYTHON_DOOR = """
    lock, event, semaphore, condition = t.Lock(), t.Event(), t.Semaphore(0), t.Condition()
    lock.acquire(); condition.acquire()
    def at_barrier():
        try: t.Barrier(2).wait(0)
        except t.BrokenBarrierError: return False
    mutex, fair, rw, sharded = f.Mutex(), f.FairMutex(), f.RwLock(), f.ShardedLock()
    held = mutex.lock(), fair.lock(), rw.write(), sharded.write()
    reading, upgradable = f.RwLock(), f.RwLock()
    reader, upgrader, other = reading.read(), upgradable.upgradable_read(), upgradable.read()
    condvar, free, parker, number = f.Condvar(), f.Mutex(), f.Parker(), f.AtomicI64()
    guard = free.lock()
    past = time.monotonic() - 1
    calls = {
        "Lock": lambda: lock.acquire(timeout=0),
        "Condition": lambda: condition.wait(0),
        "Condition.wait_for": lambda: condition.wait_for(lambda: False, -1),
        "Event": lambda: event.wait(0),
        "Semaphore": lambda: semaphore.acquire(timeout=0),
        "Barrier": at_barrier,
        "Condvar": lambda: not condvar.wait_for(guard, 0),
        "Condvar.until": lambda: not condvar.wait_until(guard, past),
        "Parker": lambda: parker.park_timeout(0),
        "atomic": lambda: number.wait(0, 0),
        "cell": lambda: f.AtomicCell(None).wait(None, 0),
    }
    for each in mutex, fair:
        calls[f"{each}"] = lambda each=each: each.try_lock_for(0)
        calls[f"{each}.until"] = lambda each=each: each.try_lock_until(past)
    for each in rw, sharded, reading:
        calls[f"{each}.write"] = lambda each=each: each.try_write_for(0)
        calls[f"{each}.write.until"] = lambda each=each: each.try_write_until(past)
        if each is not reading:
            calls[f"{each}.read"] = lambda each=each: each.try_read_for(0)
            calls[f"{each}.read.until"] = lambda each=each: each.try_read_until(past)
    calls["upgradable"] = lambda: rw.try_upgradable_read_for(0)
"""

# Every entry that takes a deadline, on a word that it would have to wait for.
C_DOOR = """
    from ctypes import c_int, c_int64, c_uint64, c_size_t, c_void_p, byref
    from c_door import c_function
    now = c_function("now", c_int64)
    def word(value, size=8):
        return (ctypes.c_char * 64)(*value.to_bytes(size, "little"))
    READER = 16
    def waits(name, value, *between):
        function = c_function(name, c_int, c_void_p, *[kind for kind, _ in between], c_int64, c_int)
        place = word(value)
        return lambda: function(place, *[v for _, v in between], now() - 1, 0) == 1
    calls = {
        "mutex": waits("mutex_lock_slow", 1),
        "semaphore": waits("semaphore_acquire_slow", 0),
        "event": waits("event_wait_slow", 0),
        "read": waits("rwlock_read_until", 8),
        "recursive": waits("rwlock_read_recursive_until", 8),
        "write": waits("rwlock_write_until", 8),
        "write after readers": waits("rwlock_write_until", READER),
        "upgradable": waits("rwlock_upgradable_read_until", 8),
        "upgrade": waits("rwlock_upgrade_until", 4 + 2 * READER),
        "word": waits("word_wait", 5, (c_int, 3), (c_uint64, 5), (c_int, 4)),
    }
    condvar_wait = c_function("condvar_wait", c_int, c_void_p, c_void_p, c_int64, c_int)
    mutex, condvar = word(1), word(0)
    calls["condvar"] = lambda: condvar_wait(condvar, mutex, now() - 1, 0) == 1
    remutex = c_function("remutex_lock_until", c_int, c_void_p, c_int64, c_int)
    foreign = (ctypes.c_char * 64)(1, *[0] * 11, 1)
    calls["remutex"] = lambda: remutex(foreign, now() - 1, 0) == 1
    once = c_function("once_wait_slow", c_int, c_void_p, c_int64, c_int)
    begin = c_function("once_begin", c_int, c_void_p, c_int, c_int64, c_int)
    running = word(0)
    assert begin(running, 0, 0, 0) == 16
    calls["once"] = lambda: once(running, now() - 1, 0) == 1
    calls["once_begin"] = lambda: begin(running, 0, now() - 1, 0) == 1
    park = c_function("park", c_int, *[c_void_p] * 5, c_size_t, c_int64, c_int, c_void_p)
    calls["park"] = lambda: park(id(calls), None, None, None, None, 0, now() - 1, 2, None) != 2
"""


@pytest.fixture(scope="module")
def counter(tmp_path_factory):
    if not sys.platform.startswith("linux") or not shutil.which("cc"):
        pytest.skip("needs Linux and a C compiler")
    folder = tmp_path_factory.mktemp("counter")
    source, library = folder / "counter.c", folder / "counter.so"
    source.write_text(COUNTER)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    try:
        ctypes.CDLL(library)
    except OSError:
        pytest.skip("cc makes nothing that this interpreter can load")
    return library


@pytest.mark.parametrize("door", [PYTHON_DOOR, C_DOOR], ids=["python", "c"])
def test_a_wait_without_time_left_neither_polls_nor_sleeps(counter, door):
    body = """
    import ctypes, os, sys, time
    sys.path.insert(0, os.environ["TESTS"])
    import fastsync as f, fastsync.threading as t
    polls = ctypes.c_long.in_dll(ctypes.CDLL(os.environ["LD_PRELOAD"]), "polls")
    """
    end = """
    bad = {}
    for name, call in calls.items():
        before = polls.value
        for _ in range(100):
            assert not call(), name
        if polls.value - before > 50:  # the interpreter has waits of its own
            bad[name] = polls.value - before
    assert not bad, bad
    """
    env = {**os.environ, "LD_PRELOAD": str(counter), "TESTS": str(Path(__file__).parent)}
    run_python("-c", "".join(map(textwrap.dedent, (body, door, end))), env=env)


# The same with all that is 32 bits wide on 64-bit systems, too, as the C library may have it.
SLEEP = r"""
#include <fastsync/wait.h>
int main(void) {
    for (int i = 0; i < 5; i++) {
        fs_waitword word;
        int64_t deadline = fs_now() + 30000000;
        fs_waitword_init(&word);
        if (fs_waitword_wait(&word, deadline) != FS_TIMED_OUT) return 1;
        if (fs_now() < deadline) return 2;
        fs_waitword_destroy(&word);
        deadline += 30000000;
        for (int size = 1; FS_SHARED_WAIT && size <= 8; size *= 2) {
            static uint64_t shared;
            int result = FS_SIGNALLED;
            while (fs_now() < deadline) {
                result = fs_shared_wait(&shared, size, 0, deadline);
                if (result == FS_TIMED_OUT && fs_now() < deadline) return 3;
            }
        }
    }
    return 0;
}
"""


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
@pytest.mark.parametrize("options", [[], ["-m32"], ["-m32", "-D_TIME_BITS=64"]], ids="".join)
@pytest.mark.parametrize("backend", [[], ["-DFS_FORCE_WAIT_PTHREAD"]], ids=["default", "pthread"])
def test_a_sleep_does_not_end_before_its_deadline(tmp_path, options, backend):
    (tmp_path / "sleep.c").write_text(SLEEP)
    words = ["-std=gnu11", "-Wall", "-Werror", "-pthread", "-D_FILE_OFFSET_BITS=64", *options]
    command = ["cc", *words, *backend, "-I", fastsync.get_include(), "sleep.c", "-o", "sleep"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    if options and "bits/" in done.stderr:
        pytest.skip("no C library for 32 bits")
    assert done.returncode == 0, done.stderr
    assert subprocess.run(["./sleep"], cwd=tmp_path).returncode == 0
