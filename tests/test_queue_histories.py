"""Histories of queues, channels and select(), against a model of each; histories.py explains."""

import bisect

import pytest
from histories import check

import fastsync.queue as queues
from fastsync.channel import (
    RecvClosed,
    RecvEmpty,
    RecvTimeout,
    SendClosed,
    SendFull,
    SendTimeout,
    bounded,
    select,
)

LIMIT = 2


def put_into(name, items, item):
    if name == "PriorityQueue":
        items = list(items)
        bisect.insort(items, item)
        return tuple(items)
    return (item, *items) if name == "LifoQueue" else (*items, item)


def queue_spec(name, strict, goes_on=False):
    """Items, the next first, and whether it is shut. Not strict: a call that waited a moment may
    have found no room, or nothing, at any moment of that time. goes_on: a send that waits when
    the last sender is closed is still received."""

    def spec(state, thread, call, result):
        items, shut = state
        if call[0] == "put":
            if result == "shut":
                return state if shut else None
            if result == "full":
                return state if not strict or len(items) == LIMIT else None
            if len(items) == LIMIT or (shut and not goes_on):
                return None
            return put_into(name, items, call[1]), shut
        if call[0] == "get":
            if result == "shut":
                return state if shut and not items else None
            if result == "empty":
                return state if not strict or not (items or shut) else None
            return (items[1:], shut) if items and items[0] == result else None
        if call[0] == "shutdown":
            return items, True
        return state if result == len(items) else None

    return spec


def answer(call):
    try:
        return call()
    except (queues.Full, SendFull, SendTimeout):
        return "full"
    except (queues.Empty, RecvEmpty, RecvTimeout):
        return "empty"
    except (queues.ShutDown, SendClosed, RecvClosed):
        return "shut"


CALLS = [("put", 1), ("put", 2), ("get",), ("get",), ("qsize",), ("shutdown",)]


@pytest.mark.parametrize("name", ["Queue", "LifoQueue", "PriorityQueue"])
def test_histories_of_calls_that_do_not_wait(name):
    def perform(queue, call):
        if call[0] == "put":
            return answer(lambda: queue.put_nowait(call[1]))
        if call[0] == "get":
            return answer(queue.get_nowait)
        return getattr(queue, call[0])()

    make = getattr(queues, name)
    check(lambda: make(LIMIT), perform, CALLS, queue_spec(name, True), ((), False))


@pytest.mark.parametrize("name", ["Queue", "LifoQueue", "PriorityQueue"])
def test_histories_of_calls_that_wait(name):
    def perform(queue, call):
        if call[0] == "put":
            return answer(lambda: queue.put(call[1], timeout=0.0005))
        if call[0] == "get":
            return answer(lambda: queue.get(timeout=0.0005))
        return getattr(queue, call[0])()

    make = getattr(queues, name)
    check(lambda: make(LIMIT), perform, CALLS, queue_spec(name, False), ((), False), histories=80)


@pytest.mark.parametrize("waits", [False, True])
def test_histories_of_a_channel(waits):
    def perform(pair, call):
        tx, rx = pair
        if call[0] == "put":
            send = (lambda: tx.send_timeout(call[1], 0.0005)) if waits else (
                lambda: tx.try_send(call[1]))  # fmt: skip
            return answer(send)
        if call[0] == "get":
            return answer(lambda: rx.recv_timeout(0.0005) if waits else rx.try_recv())
        return tx.close() if call[0] == "shutdown" else len(rx)

    spec = queue_spec("Queue", not waits, goes_on=waits)
    check(lambda: bounded(LIMIT), perform, CALLS, spec, ((), False), histories=100)


def two_spec(state, thread, call, result):
    """A select over two of limit 1: what it takes or puts was possible, in one step."""
    if result is None:  # timed out, which may have been at any moment
        return state
    index, item = result
    items = state[index]
    if call[0] == "put":
        after = (*items, call[1]) if len(items) < 1 else None
    else:
        after = items[1:] if items and items[0] == item else None
    return None if after is None else tuple(after if k == index else state[k] for k in (0, 1))


@pytest.mark.parametrize("kind", ["channels", "queues", "both"])
def test_histories_of_a_select_over_two(kind):
    def make():
        one = bounded(1) if kind != "queues" else [queues.Queue(1)] * 2
        return one, bounded(1) if kind == "channels" else [queues.Queue(1)] * 2

    def perform(pairs, call):
        if call[0] == "put":
            cases = [(tx, call[1]) for tx, _ in pairs]
        else:
            cases = [rx for _, rx in pairs]
        index, item = select(*cases, timeout=call[-1])
        return None if index is None else (index, item)

    calls = [("put", n, t) for n in (1, 2) for t in (0, 0.0005)] + [("get", 0), ("get", 0.0005)] * 2
    check(make, perform, calls, two_spec, ((), ()), histories=120)


def test_histories_of_a_select_of_both_kinds_over_two():
    """Sends to the one or receives from the other: each does one of them."""

    def perform(pairs, call):
        (tx, _), (_, rx) = pairs
        back = pairs[0][1], pairs[1][0]
        if call[0] == "there":
            index, item = select((tx, call[1]), rx, timeout=0.0005)
            return None if index is None else ("put", 0) if index == 0 else ("get", 1, item)
        index, item = select(back[0], (back[1], call[1]), timeout=0.0005)
        return None if index is None else ("get", 0, item) if index == 0 else ("put", 1)

    def spec(state, thread, call, result):
        if result is None:
            return state
        kind, index, *item = result
        return two_spec(state, thread, (kind, call[1]), (index, *(item or [None])))

    calls = [("there", 1), ("there", 2), ("back", 3), ("back", 4)]
    check(lambda: (bounded(1), bounded(1)), perform, calls, spec, ((), ()), histories=120)
