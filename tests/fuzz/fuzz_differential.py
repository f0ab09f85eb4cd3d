#!/usr/bin/env python3
"""Run the same random programs on threading and queue, and on fastsync's types: the same outcomes.

    python tests/fuzz/fuzz_differential.py [SECONDS] [SEED] [THREADS] [Lock|RLock|Condition|...]

A program makes one object, often of a subclass that overrides methods, and calls its methods with
arguments that are right, wrong, or hostile: numbers of all sizes, NaN, strings, None, objects whose
conversion raises or uses the object. Half of the programs are of one thread, and every outcome is
compared: what was returned or the type of what was raised, and which of the overridden methods
were called from within. In the others several threads run a program in which each call, whenever it
comes, has one outcome only.

What differs on purpose stands in docs/migrating.md, and is not in these programs.
"""

import contextlib
import queue
import random
import sys
import threading
import time
from pathlib import Path

import fastsync.queue
import fastsync.threading

sys.path.append(str(Path(__file__).resolve().parent))

import fuzzing
from fuzzing import Wrong

LOCKS = ("Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier")
QUEUES = ("Queue", "LifoQueue", "PriorityQueue", "SimpleQueue")
KINDS = LOCKS + QUEUES
MODULES = {
    "stock": lambda name: getattr(threading if name in LOCKS else queue, name),
    "ours": lambda name: getattr(fastsync.threading if name in LOCKS else fastsync.queue, name),
}
FINAL = ("Lock", "RLock")  # those of stock that are C types; RLock may be subclassed all the same

# For constructors, which take any number in the originals, and integers here.
NUMBERS = ("zero", "one", "two", "true", "false", "minus one", "minus two")
WRONG_NUMBERS = ("none", "string", "list")
# Ours look at all arguments, and first; the originals at those that they come to need. So with one
# of these ours may raise where stock does not, or something else; "uses" is a number for ours.
WRONG = ("raises", "string", "list", "object", "none", "false float", "short")
WRONG += ("minus one", "minus two", "minus half")


class Raising(Exception):
    """What a hostile argument raises."""


class Number:
    """Hostile: a number whose conversion uses the object, or raises."""

    def __init__(self, thing, what):
        self.thing, self.what = thing, what

    def convert(self):
        if self.what == 0:
            raise Raising
        if self.what == 1:
            repr(self.thing)
        return 0

    __index__ = __float__ = __bool__ = convert


# Arguments by name, made anew for each implementation.
ARGUMENTS = {
    "none": lambda thing: None,
    "true": lambda thing: True,
    "false": lambda thing: False,
    "zero": lambda thing: 0,
    "one": lambda thing: 1,
    "two": lambda thing: 2,
    "minus one": lambda thing: -1,
    "minus two": lambda thing: -2,
    "short": lambda thing: 0.0005,
    "minus half": lambda thing: -0.5,
    "string": lambda thing: "1",
    "list": lambda thing: [],
    "object": lambda thing: object(),
    "raises": lambda thing: Number(thing, 0),
    "uses": lambda thing: Number(thing, 1),
    "false float": lambda thing: 0.0,
}
LARGE = {
    "2**31": lambda thing: 2**31,
    "2**63": lambda thing: 2**63,
    "2**200": lambda thing: 2**200,
    "1e300": lambda thing: 1e300,
    "inf": lambda thing: float("inf"),
}

METHODS = {
    "Lock": "acquire release locked __enter__ __exit__ acquire_lock release_lock locked_lock",
    "RLock": "acquire release __enter__ __exit__ _is_owned _recursion_count",
    "Condition": "acquire release __enter__ __exit__ wait wait_for notify notify_all _is_owned",
    "Semaphore": "acquire release __enter__ __exit__",
    "BoundedSemaphore": "acquire release __enter__ __exit__",
    "Event": "is_set set clear wait",
    "Barrier": "wait reset abort parties n_waiting broken",
    "Queue": "put get put_nowait get_nowait qsize empty full task_done shutdown unfinished_tasks",
    "LifoQueue": "put get put_nowait get_nowait qsize empty full task_done shutdown",
    "PriorityQueue": "put get put_nowait get_nowait qsize empty full task_done shutdown",
    "SimpleQueue": "put get put_nowait get_nowait qsize empty",
}
OVERRIDDEN = {
    "Condition": "wait wait_for notify notify_all acquire release",
    "Semaphore": "acquire release",
    "BoundedSemaphore": "acquire release",
    "Event": "is_set set wait",
    "Barrier": "wait reset abort",
    "Queue": "_init _put _get _qsize put get",
    "LifoQueue": "_put _get put get",
    "PriorityQueue": "_put _get put get",
}


def new_program(name, rng):
    """(arguments of the constructor, overridden methods, calls): names only."""
    arguments = []
    if name in ("Semaphore", "BoundedSemaphore", "Barrier") or name.endswith("Queue"):
        if rng.random() < 0.7:
            wrong = () if name.endswith("Queue") else WRONG_NUMBERS
            arguments = [rng.choice(["one", "one", "two", *NUMBERS, *wrong])]
    elif rng.random() < 0.1:
        arguments = [rng.choice([*ARGUMENTS])]
    overridden = [m for m in OVERRIDDEN.get(name, "").split() if rng.random() < 0.2]
    calls = [new_call(name, rng) for _ in range(rng.randrange(2, 14))]
    return arguments, overridden, calls


def new_call(name, rng):
    method = rng.choice(METHODS[name].split())
    some = [rng.choice([*ARGUMENTS]) for _ in range(rng.choice([0, 0, 0, 0, 1, 2, 3]))]
    keywords = {}
    if method == "__exit__":
        some = ["none"] * 3
    elif method in ("acquire", "acquire_lock"):
        some = rng.choice([["false"], ["true", "short"], ["true", "zero"], some])
        if not may_wait(name, some):
            keywords = {"timeout": rng.choice(["short", "zero", "minus half", "string"])}
    elif method == "wait" or method == "wait_for":
        some = [
            *(["two"] if method == "wait_for" else []),
            rng.choice(["short", "zero", *ARGUMENTS]),
        ]
        if some[-1] in ("none", "one", "two", "true"):
            some[-1] = "short"
    elif method in ("get", "put"):
        item = [rng.choice(["one", "two", "short", "zero"])] if method == "put" else []
        block = rng.choice([["false"], ["true", "short"], ["true", "zero"], ["true", "minus one"]])
        some = item + block
    elif method == "put_nowait" and name == "PriorityQueue":
        # What cannot be compared leaves another queue behind: see migrating.md.
        some = [rng.choice(["one", "two", "short", "zero"])] * rng.choice([0, 1, 1, 1, 2])
    if rng.random() < 0.05:
        keywords["surprise"] = "one"
    return method, some, keywords


def may_wait(name, arguments):
    """Whether an acquire with these ends by itself in any case."""
    if not arguments:
        return False
    if arguments[0] in ("false", "zero", "false float", "raises"):
        return True
    return len(arguments) > 1 and arguments[1] in ("short", "zero", "minus half", "string", "list")


def subclass(cls, overridden, called):
    """One that notes which of its methods are called."""

    def noting(name):
        def method(self, *args, **keywords):
            called.append(name)
            return getattr(super(made, self), name)(*args, **keywords)

        return method

    made = type("Sub", (cls,), {name: noting(name) for name in overridden})
    return made


def outcome_of(thing, call):
    try:
        result = call()
    except Wrong:
        raise
    except BaseException as error:
        return f"raises {type(error).__name__}"
    if result is thing:
        return "itself"
    if result is None or isinstance(result, (bool, int, float, str)):
        return "gives", result  # True is as good as 1
    return f"gives a {type(result).__name__}"


def run(program, cls):
    """What comes of it: an outcome for each call."""
    arguments, overridden, calls = program
    called, things, outcomes = [], [None], []
    values = {**ARGUMENTS, **LARGE}
    if overridden:
        cls = subclass(cls, overridden, called)

    def make():
        things[0] = cls(*[values[name](None) for name in arguments])

    outcomes.append(outcome_of(None, make))
    thing = things[0]
    if thing is None:
        return outcomes

    def one_call(method, some, keywords):
        if method == "__enter__":
            return thing.__enter__()
        if method == "__exit__":
            return thing.__exit__(*[values[name](thing) for name in some])
        member = getattr(thing, method)
        if not callable(member):
            return member
        return member(
            *[values[name](thing) for name in some],
            **{key: values[name](thing) for key, name in keywords.items()},
        )

    for method, some, keywords in calls:
        del called[:]
        outcome = outcome_of(thing, lambda m=method, s=some, k=keywords: one_call(m, s, k))
        outcomes.append((outcome, frozenset(called)))
        if "raises" in some or "uses" in some:
            break  # stock may have done something before it looked at that
    return outcomes


def would_wait(program, name):
    """A call that waits for ever on stock, which no comparison of outcomes can show."""
    _, _, calls = program
    for method, some, keywords in calls:
        if method == "__enter__" and name != "Event":
            return True
        if method in ("acquire", "acquire_lock") and not may_wait(name, some):
            if keywords.get("timeout") not in ("short", "zero", "minus half", "string"):
                return True
    return False


def may_differ(call, ours):
    _, some, keywords = call
    arguments = [*some, *keywords.values()]
    return "uses" in arguments or (
        isinstance(ours, str) and ours.startswith("raises") and any(a in WRONG for a in arguments)
    )


def compare(name, rng):
    program = new_program(name, rng)
    if would_wait(program, name):
        return
    stock = run(program, MODULES["stock"](name))
    ours = run(program, MODULES["ours"](name))
    if stock == ours:
        return
    at = next(i for i, pair in enumerate(zip(stock, ours, strict=False)) if pair[0] != pair[1])
    call = "its constructor" if at == 0 else program[2][at - 1]
    if at and may_differ(call, ours[at][0]):
        return
    raise Wrong(
        f"{name}{tuple(program[0])} with {program[1]} overridden, after {program[2][: at - 1]}: "
        f"{call} {stock[at]} on stock, {ours[at]} on ours"
    )


# -- several threads: each call has one outcome only, whenever it comes


def counting(module, rng, threads, end):
    """Items, permits and rounds, counted: the counts are the same on both."""
    permits, rounds = rng.randrange(1, 4), 40
    semaphore = module("BoundedSemaphore")(permits)
    lock, inside, most = module("Lock")(), [0], [0]
    barrier = module("Barrier")(threads)
    condition, tickets = module("Condition")(), []
    things = module(rng.choice(QUEUES))()
    sums, leaders = [], []

    def work(index):
        total = 0
        for number in range(rounds):
            with semaphore:
                with lock:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                with lock:
                    inside[0] -= 1
            things.put(index * rounds + number)
            if barrier.wait(fuzzing.PATIENCE) == 0:
                leaders.append(number)
            total += things.get(timeout=fuzzing.PATIENCE)
            with condition:
                tickets.append(index)
                condition.notify_all()
                condition.wait_for(
                    lambda number=number: len(tickets) >= (number + 1) * threads, fuzzing.PATIENCE
                )
        sums.append(total)

    crowd = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(threads)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join(2 * fuzzing.PATIENCE)
    if any(thread.is_alive() for thread in crowd):
        raise Wrong("threads are stuck")
    with contextlib.suppress(ValueError):
        semaphore.release()
        raise Wrong("a permit is missing")
    if most[0] > permits:
        raise Wrong(f"{most[0]} threads had one of {permits} permits")
    return sum(sums), sorted(leaders), len(tickets), things.qsize()


def one_round(fuzz, kinds):
    name = kinds[fuzz.seed % len(kinds)]
    end = min(fuzz.end, time.monotonic() + 0.3)
    while time.monotonic() < end:
        compare(name, fuzz.rng)
    if fuzz.rng.random() < 0.2 and fuzz.going():
        seed = fuzz.rng.random()
        results = [
            counting(module, random.Random(seed), fuzz.threads, fuzz.end)
            for module in MODULES.values()
        ]
        if results[0] != results[1]:
            raise Wrong(f"stock counts {results[0]}, ours {results[1]}")


if __name__ == "__main__":
    sys.exit(fuzzing.run(KINDS, one_round))
