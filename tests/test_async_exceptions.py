"""PyThreadState_SetAsyncExc, by which debuggers and test tools stop a thread, amid every wait.

As in the originals it does not end a wait: it is raised when the wait has ended. Nothing is lost by
it: the wait still takes what it was given, or the next one does.
"""

import contextlib
import ctypes
import sys
import threading

import natives
import pytest
from conftest import background, wait_asleep

import fastsync.threading as fs


class Stopped(Exception):
    pass


def stop(thread):
    set_async_exc = ctypes.pythonapi.PyThreadState_SetAsyncExc
    assert set_async_exc(ctypes.c_ulong(thread.ident), ctypes.py_object(Stopped)) == 1


def stopped_in(wait, wake):
    """How often Stopped was raised in a thread that was amid the wait when it was sent."""
    caught = []

    def call():
        try:
            try:
                wait()
            finally:
                for _ in range(100):  # it is raised between two steps of Python code
                    pass
        except Stopped:
            caught.append(1)

    with background(call) as [thread]:
        wait_asleep(thread)
        stop(thread)
        wake()
    return len(caught)


# 3.14 raises it also between __enter__ and the block, whatever lock it is: that stays locked.
WITH_LEAVES_IT = sys.version_info >= (3, 14)
# What a thread that was stopped right after its acquire() leaves locked, in the originals too; and
# what is used once.
NOT_AGAIN = ("RwLock.reader", "RwLock.writer", "WaitGroup", *["with Mutex"] * WITH_LEAVES_IT)


@pytest.mark.parametrize("name", natives.WAITS)
def test_an_exception_from_outside_leaves_a_native_wait_in_order(name):
    wait = natives.WAITS[name]()
    assert stopped_in(wait.wait, wait.wake) == 1
    if name not in NOT_AGAIN:
        with background(wait.wait), contextlib.suppress(RuntimeError):
            wait.wake()  # again, where a wake-up is for one wait; else there is nothing to wake


def waits_of(impl):
    """(wait, wake, whether it is in order afterwards) of each type."""

    def held(lock):
        lock.acquire()
        return lock

    lock, semaphore, event = held(impl.Lock()), impl.Semaphore(0), impl.Event()
    condition, barrier = impl.Condition(), impl.Barrier(2)

    def use_block():
        with condition:
            condition.wait()

    def notify():
        with condition:
            condition.notify()

    return {
        "Lock": (
            lambda: with_block(lock),
            lock.release,
            lambda: WITH_LEAVES_IT or not lock.locked(),
        ),
        "Condition": (use_block, notify, lambda: condition.acquire(False)),
        "Semaphore": (semaphore.acquire, semaphore.release, lambda: True),
        "Event": (event.wait, event.set, event.is_set),
        "Barrier": (barrier.wait, barrier.wait, lambda: not barrier.broken),
    }


def with_block(lock):
    with lock:
        pass


@pytest.mark.parametrize("name", waits_of(threading))
def test_an_exception_from_outside_leaves_a_wait_in_order(impl, name):
    wait, wake, in_order = waits_of(impl)[name]
    assert stopped_in(wait, wake) == 1
    assert in_order()


def test_an_exception_from_outside_does_not_lose_a_reentrant_lock():
    lock = fs.RLock()
    lock.acquire()
    assert stopped_in(lambda: with_block(lock), lock.release) == 1
    assert WITH_LEAVES_IT or lock.acquire(False)
