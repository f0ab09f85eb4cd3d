"""Queues and channels beside `queue`'s and the peers'."""

import threading
import time

from harness import Goal, call, op

# Name of a contestant -> (import, the type; called with a limit or with nothing).
STOCK = ("import queue", "queue.{}")
OURS = ("import fastsync.queue as ours", "ours.{}")
PEERS = {
    "culsans": ("import culsans", "culsans.{}"),
    "aiologic": ("import aiologic", "aiologic.{}"),
    "ft_utils": ("from ft_utils import concurrency", "concurrency.StdConcurrentQueue"),
}
PUT_GET = "q.put(1); q.get()"
AIOLOGIC = "q.green_put(1); q.green_get()"


def contestants(kind, limit=""):
    """put() and get() of an integer in one thread."""
    made = {"queue": STOCK, "fastsync": OURS}
    if kind == "Queue":
        made["ft_utils"] = PEERS["ft_utils"]
    if kind != "SimpleQueue":
        made |= {name: PEERS[name] for name in ("culsans", "aiologic")}
    found = {}
    for name, (setup, form) in made.items():
        make = f"{setup}; q = {form.format(kind)}({limit})"
        if name == "culsans":
            make += ".sync_q"
        found[name] = (make, AIOLOGIC if name == "aiologic" else PUT_GET)
    if kind == "Queue" and not limit:
        found["janus"] = ("import janus; q = janus.Queue().sync_q", PUT_GET)
    return found


def put_get(kind, limit, goal):
    name = f"queue.put_get.{kind}{limit}"
    return op(
        name,
        contestants(kind, limit),
        baseline="queue",
        goals=[Goal(goal)],
        title=f"`{kind}({limit})`: put and get, one thread",
    )


def full_heap(setup, form):
    return (
        f"{setup}; q = {form.format('PriorityQueue')}(); [q.put(n) for n in range(1000)]",
        PUT_GET,
    )


# -- threads -------------------------------------------------------------------------
#
# What the threads use they get as arguments: 3.13t takes a lock for each use of a variable
# of an enclosing function, and threads that share one wait for that.


def made(which, kind, limit):
    """put and get of a new queue or channel."""
    if which == "channel":
        from fastsync.channel import bounded, unbounded

        sender, receiver = bounded(limit) if limit else unbounded()
        return sender.send, receiver.recv
    if which == "rendezvous":
        from fastsync.channel import bounded

        sender, receiver = bounded(0)
        return sender.send, receiver.recv
    if which == "queue":
        import queue as module
    elif which == "fastsync":
        import fastsync.queue as module
    elif which == "ft_utils":
        from ft_utils.concurrency import StdConcurrentQueue

        one = StdConcurrentQueue(limit)
        return one.put, one.get
    elif which == "aiologic":
        import aiologic

        one = getattr(aiologic, kind)(*[limit] * bool(limit))
        return one.green_put, one.green_get
    elif which == "janus":
        import janus

        one = janus.Queue(limit).sync_q
        return one.put, one.get
    else:
        import culsans

        one = getattr(culsans, kind)(limit).sync_q
        return one.put, one.get
    one = getattr(module, kind)(*[limit] * bool(limit))
    return one.put, one.get


def items(run, which, kind, limit, producers, consumers):
    """Items a second from producers to consumers."""
    put, get = made(which, kind, limit)
    end = time.perf_counter() + (0.02 if run.tiny else run.seconds)
    counts = [0] * consumers

    def produce(put, end):
        while time.perf_counter() < end:
            for _ in range(100):
                put(1)

    def consume(index, get):
        count = 0
        while get() is not None:
            count += 1
        counts[index] = count

    makers = [threading.Thread(target=produce, args=(put, end)) for _ in range(producers)]
    takers = [threading.Thread(target=consume, args=(i, get)) for i in range(consumers)]
    start = time.perf_counter()
    for thread in makers + takers:
        thread.start()
    for thread in makers:
        thread.join()
    for _ in takers:
        put(None)
    for thread in takers:
        thread.join()
    return sum(counts) / (time.perf_counter() - start)


def traffic(producers, consumers, limit, goals):
    shape = (limit, producers, consumers)
    found = {which: (items, which, "Queue", *shape) for which in ("queue", "fastsync")}
    if not limit:
        found["queue SimpleQueue"] = (items, "queue", "SimpleQueue", *shape)
        found["fastsync SimpleQueue"] = (items, "fastsync", "SimpleQueue", *shape)
    found["fastsync channel"] = (items, "channel", None, *shape)
    for which in ("culsans", "aiologic", "ft_utils", "janus"):
        found[which] = (items, which, "Queue", *shape)
    return call(
        f"queue.traffic.{producers}-{consumers}-{limit or 'free'}",
        found,
        unit="/s",
        baseline="queue",
        goals=goals,
        title=f"`Queue({limit or ''})`, {producers} to {consumers}: items",
    )


def ping_pong(run, which):
    """Seconds of a round trip over two of them."""
    there, here = (made(which, "Queue", 0) for _ in range(2))
    rounds = 50 if run.tiny else 20_000
    if which == "queue" and not run.tiny:
        rounds = 4000

    def echo(get, put):
        for _ in range(rounds):
            put(get())

    def call_and_answer(put, get):
        start = time.perf_counter()
        for _ in range(rounds):
            put(1)
            get()
        return time.perf_counter() - start

    thread = threading.Thread(target=echo, args=(there[1], here[0]))
    thread.start()
    seconds = call_and_answer(there[0], here[1])
    thread.join()
    return seconds / rounds


def hand_over(run, which):
    """Seconds of a rendezvous, or of a Condition's wait and notify each way."""
    rounds = 50 if run.tiny else 5000
    if which == "rendezvous":
        return ping_pong(run, which) / 2
    import fastsync.threading as ours

    condition, turn = ours.Condition(), [0]

    def play(mine, condition, turn):
        for _ in range(rounds):
            with condition:
                while turn[0] != mine:
                    condition.wait()
                turn[0] = 1 - mine
                condition.notify()

    thread = threading.Thread(target=play, args=(1, condition, turn))
    thread.start()
    start = time.perf_counter()
    play(0, condition, turn)
    thread.join()
    return (time.perf_counter() - start) / rounds / 2


def batches(run, size):
    """Seconds an item of put_many and get_many of so many."""
    import fastsync.queue as ours

    queue, batch = ours.Queue(), list(range(size))
    rounds = 5 if run.tiny else 20_000
    start = time.perf_counter()
    for _ in range(rounds):
        queue.put_many(batch)
        queue.get_many(size)
    return (time.perf_counter() - start) / rounds / size


def size(run, which):
    """Bytes of an empty queue: what `tracemalloc` sees of a thousand, divided."""
    import queue
    import tracemalloc

    import fastsync.queue as ours

    make = (ours if which == "fastsync" else queue).Queue
    make()
    tracemalloc.start()
    kept = [make() for _ in range(1000)]
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return used / len(kept)


CHANNEL = "from fastsync.channel import select, unbounded; tx, rx = unbounded()"

CASES = [
    put_get("Queue", "", 0.08),
    put_get("Queue", 64, 0.08),
    put_get("LifoQueue", "", 0.08),
    put_get("SimpleQueue", "", 1.0),
    put_get("PriorityQueue", "", 0.12),
    op(
        "queue.put_get.PriorityQueue.full",
        {"queue": full_heap(*STOCK), "fastsync": full_heap(*OURS)},
        baseline="queue",
        goals=[Goal(0.12)],
        title="`PriorityQueue` of 1,000 integers: put and get",
    ),
    op(
        "channel.send_recv",
        {
            "queue": ("import queue; q = queue.Queue()", PUT_GET),
            "fastsync queue": ("import fastsync.queue as ours; q = ours.Queue()", PUT_GET),
            "fastsync": (CHANNEL, "tx.send(1); rx.recv()"),
            "fastsync select": (
                CHANNEL + "; other = unbounded()[1]",
                "tx.send(1); select(rx, other)",
            ),
        },
        baseline="queue",
        goals=[Goal(0.08), Goal(3.0, of="fastsync", who="fastsync select")],
        title="channel: send and receive; the receive by a select over two",
    ),
    *[
        traffic(*shape, limit, [Goal(goal)])
        for limit, shapes in (
            (0, {(1, 1): 8, (4, 4): 8, (1, 4): 4, (4, 1): 8}),
            (64, {(1, 1): 6, (4, 4): 8, (1, 4): 8, (4, 1): 8}),
        )
        for shape, goal in shapes.items()
    ],
    call(
        "queue.ping_pong",
        {which: (ping_pong, which) for which in ("queue", "fastsync", "culsans", "aiologic")}
        | {"fastsync channel": (ping_pong, "channel")},
        unit="s",
        baseline="queue",
        goals=[Goal(2e-6, of=None)],
        title="a round trip over two queues",
    ),
    call(
        "channel.rendezvous",
        {"fastsync Condition": (hand_over, "condition"), "fastsync": (hand_over, "rendezvous")},
        unit="s",
        baseline="fastsync Condition",
        goals=[Goal(1.2)],
        title="a rendezvous beside a hand-over by a Condition",
    ),
    call(
        "queue.batches",
        {"fastsync": (batches, 64)},
        unit="s",
        baseline="fastsync",
        goals=[Goal(15e-9, of=None)],
        title="`put_many` and `get_many` of 64: an item",
    ),
    call(
        "queue.bytes",
        {"queue": (size, "queue"), "fastsync": (size, "fastsync")},
        unit="B",
        baseline="queue",
        goals=[Goal(160, of=None)],
        title="an empty `Queue`",
    ),
]
