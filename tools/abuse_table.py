"""Misuse every primitive, beside `threading`, and write what happens into docs/guarantees.md.

    python tools/abuse_table.py [--check] [--only NAME]

Every abuse runs in a process of its own, with a time limit; a crash or a hang is an answer too.
The table stands between two marker lines, and the rest of the page is left alone. --check writes
nothing: it fails when one of ours crashes, or hangs where the original does not. Types that are
not built are left out.
"""

import argparse
import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "guarantees.md"
BEGIN, END = "<!-- abuse table: begin -->", "<!-- abuse table: end -->"
LIMITS = 10, 30  # seconds; what is too slow at first, on a busy machine, gets a second try
WAITS_ON = (5,)  # of what is asked to wait for ever

# How a type is made, taken, let go and waited for; `None` where it has no such call.
TYPES = {
    "Lock": ("t.Lock()", "x.acquire()", "x.release()", "x.acquire(timeout={})"),
    "RLock": ("t.RLock()", "x.acquire()", "x.release()", "x.acquire(timeout={})"),
    "Condition": ("t.Condition()", "x.acquire()", "x.release()", "wait_held(x, {})"),
    "Semaphore": ("t.Semaphore()", "x.acquire()", "x.release()", "x.acquire(timeout={})"),
    "BoundedSemaphore": (
        "t.BoundedSemaphore()",
        "x.acquire()",
        "x.release()",
        "x.acquire(timeout={})",
    ),
    "Event": ("t.Event()", None, None, "x.wait({})"),
    "Barrier": ("t.Barrier(2)", None, None, "x.wait({})"),
}

# Ours alone: the same four.
LATER = {
    "Mutex": ("fastsync.Mutex(0)", "g = x.lock()", "g.unlock()", "x.try_lock_for({})"),
    "FairMutex": ("fastsync.FairMutex(0)", "g = x.lock()", "g.unlock()", "x.try_lock_for({})"),
    "ReentrantMutex": (
        "fastsync.ReentrantMutex(0)",
        "g = x.lock()",
        "g.unlock()",
        "x.try_lock_for({})",
    ),
    "Condvar": ("fastsync.Condvar()", None, None, "x.wait_for(fastsync.Mutex(0).lock(), {})"),
    "RwLock": ("fastsync.RwLock(0)", "g = x.write()", "g.unlock()", "x.try_write_for({})"),
    "ShardedLock": (
        "fastsync.ShardedLock(0)",
        "g = x.write()",
        "g.unlock()",
        "x.try_write_for({})",
    ),
    "LockView": ("fastsync.RwLock(0).writer", "x.acquire()", "x.release()", "x.acquire(True, {})"),
    "Queue": ("fastsync.queue.Queue()", None, None, "x.get(timeout={})"),
    "SimpleQueue": ("fastsync.queue.SimpleQueue()", None, None, "x.get(timeout={})"),
    "Sender": ("(ends := fastsync.channel.bounded(0))[0]", None, None, "x.send_timeout(1, {})"),
    "Receiver": ("(ends := fastsync.channel.bounded(0))[1]", None, None, "x.recv_timeout({})"),
    "Once": ("fastsync.Once()", None, None, None),
    "OnceLock": ("fastsync.OnceLock()", None, None, None),
    "LazyLock": ("fastsync.LazyLock(list)", None, None, None),
    "lazy_property": ("fastsync.lazy_property(len)", None, None, None),
    "once": ("fastsync.once(list)", None, None, None),
    "Parker": ("fastsync.Parker()", None, None, "x.park_timeout({})"),
    "Unparker": ("fastsync.Parker().unparker()", None, None, None),
    "WaitGroup": ("fastsync.WaitGroup()", None, None, None),
    "AtomicRef": ("fastsync.AtomicRef(None)", None, None, "x.wait(x.load(), {})"),
    "AtomicCell": ("fastsync.AtomicCell(None)", None, None, "x.wait(x.load(), {})"),
    "AtomicArray": ("fastsync.AtomicArray('int64', 4)", None, None, "x.wait(0, 0, {})"),
    "Counter": ("fastsync.Counter()", None, None, None),
    "Arc": ("fastsync.Arc([])", None, None, None),
    "Weak": ("fastsync.Weak()", None, None, None),
}
for name in "I8 U8 I16 U16 I32 U32 I64 U64 Isize Usize F32 F64 Bool".split():
    LATER[f"Atomic{name}"] = (f"fastsync.Atomic{name}()", None, None, "x.wait(x.load(), {})")
for name, made in {
    "MutexGuard": "Mutex(0).lock()",
    "MappedMutexGuard": "Mutex({'a': 0}).lock().map(lambda v: v['a'])",
    "ReentrantMutexGuard": "ReentrantMutex(0).lock()",
    "ReadGuard": "RwLock(0).read()",
    "MappedReadGuard": "RwLock({'a': 0}).read().map(lambda v: v['a'])",
    "UpgradableReadGuard": "RwLock(0).upgradable_read()",
    "WriteGuard": "RwLock(0).write()",
    "MappedWriteGuard": "RwLock({'a': 0}).write().map(lambda v: v['a'])",
    "ShardedWriteGuard": "ShardedLock(0).write()",
}.items():
    LATER[name] = (f"fastsync.{made}", "x.value", "x.unlock()", None)

PRELUDE = """
import copy, gc, os, pickle, signal, sys, threading as stock, time, warnings, weakref
import {module} as t
import fastsync
warnings.simplefilter("ignore")

def wait_held(x, timeout):
    with x:
        return x.wait(timeout)

def in_thread(call):
    outcome = []
    def run():
        try:
            outcome.append(("answers", call()))
        except BaseException as error:
            outcome.append(("raises", error))
    thread = stock.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    kind, value = outcome[0]
    if kind == "raises":
        raise value
    return value

# What every method says of an object that is not one of the type.
def refused(cls):
    said = {{call_wrongly(getattr(cls, name)) for name in vars(cls) if is_method(cls, name)}}
    return " or ".join(sorted(said))

def is_method(cls, name):
    method = getattr(cls, name)
    of_class = getattr(method, "__self__", None) is not None
    return callable(method) and not of_class and not isinstance(method, type)

def call_wrongly(method):
    try:
        method(5)
    except Exception as error:
        return type(error).__name__
    return method.__name__ + " accepts"

def block(x):
    {block}

x = {make}
"""

# Name, what is done, what it needs of the type: t(ake), r(elease), w(ait).
ABUSES = [
    ("release unheld", "{unheld}", "r"),
    ("foreign release", "{take}; in_thread(lambda: {release})", "tr"),
    ("negative timeout", "{hold}; result = {wait:-1.5}", "w"),
    ("NaN timeout", "{hold}; result = {wait:float('nan')}", "w"),
    ("infinite timeout", "{hold}; result = {wait:float('inf')}", "w"),
    ("huge timeout", "{hold}; result = {wait:1e100}", "w"),
    ("str as timeout", "{hold}; result = {wait:'1'}", "w"),
    ("wrong type for a call", "result = refused(type(x))", ""),
    ("wrong arguments", "type(x)(1, 2, 3, 4, 5)", ""),
    ("self-deadlock, timed", "{hold}; result = {wait:0.05}", "w"),
    ("Ctrl-C while blocked", "{ctrl_c}; block(x)", "w"),
    (
        "collection while waited on",
        "stock.Thread(target=block, args=[x], daemon=True).start(); time.sleep(0.1); gc.collect()",
        "w",
    ),
    ("weak reference", "r = weakref.ref(x); del x; gc.collect(); result = r() is None", ""),
    ("fork while held", "{take}; {fork}", "t"),
    ("fork while another waits", "{waiter}; {fork}", "w"),
    ("pickle", "pickle.dumps(x)", ""),
    ("copy", "copy.copy(x)", ""),
    ("subclass", "type('Sub', (type(x),), {{}})", ""),
    ("attribute", "x.attribute = 1", ""),
    ("subinterpreter", "{subinterpreter}", ""),
    ("use in __del__ at shutdown", "{shutdown}", ""),
    ("daemon thread blocked at exit", "{waiter}", "w"),
]

SNIPPETS = {
    "ctrl_c": "stock.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()",
    "fork": (
        "pid = os.fork()\nif pid == 0:\n    signal.alarm(3)\n    repr(x); gc.collect()\n"
        "    os._exit(0)\nresult = 'child goes on' if os.waitpid(pid, 0)[1] == 0 else 'child fails'"
    ),
    "waiter": "stock.Thread(target=block, args=[x], daemon=True).start(); time.sleep(0.1)",
    "subinterpreter": (
        "try:\n    import _interpreters as sub\nexcept ImportError:\n"
        "    import _xxsubinterpreters as sub\n"
        "out = sub.run_string(sub.create(), 'import ' + t.__name__)\n"
        "result = 'works' if not out else 'ImportError' if 'ImportError' in repr(out) else 'fails'"
    ),
    "shutdown": (
        "class Late:\n    def __del__(self, x=x): repr(x)\nlate = Late(); sys.late = Late()"
    ),
}


# Of our own types a timeout that never comes is one that may be given.
AS_ASKED = ("infinite timeout", "huge timeout")
HANGS, WAITS = "**hangs**", "waits on"


class Wait(str):
    """`{wait:VALUE}` in an abuse is the type's timed call with that timeout."""

    def __format__(self, value):
        return self.replace("{}", value)


def source_of(abuse, module, make, take, release, wait):
    # A wait that blocks for ever: of a lock, once it is held by another thread.
    hold = "pass"
    if take == "x.acquire()":
        hold = "pass" if "Condition" in make else "in_thread(x.acquire)"
    elif wait and take:
        hold = f"in_thread(lambda: globals().update(g={take.partition('= ')[2]}))"
    # A guard is let go twice: before there is one, nothing can be.
    unheld = release if take == "x.acquire()" else f"{take}; {release}; {release}"
    block = f"{hold}; {Wait(wait or 'None'):20}"
    body = abuse.format(
        take=take, release=release, unheld=unheld, wait=Wait(wait or ""), hold=hold, **SNIPPETS
    ) if "{" in abuse else abuse  # fmt: skip
    return (
        PRELUDE.format(module=module, make=make, block=block)
        + "result = ...\ntry:\n"
        + textwrap.indent(body.replace("; try:", "\ntry:").replace("; pid", "\npid"), "    ")
        + "\nexcept BaseException as error:\n"
        + "    print('raises', type(error).__name__, flush=True)\n"
        + "else:\n    print('accepted' if result is ... else result, flush=True)\n"
    )


def outcome(job):
    abuse, name, _, source = job
    asked = abuse in AS_ASKED and name in LATER
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), *PATHS]))}
    for limit in WAITS_ON if asked else LIMITS:
        try:
            done = subprocess.run(
                [sys.executable, "-c", source],
                capture_output=True,
                text=True,
                timeout=limit,
                env=environment,
            )
            break
        except subprocess.TimeoutExpired:
            pass
    else:
        return WAITS if asked else HANGS
    if done.returncode < 0:
        return f"**{signal.Signals(-done.returncode).name}**"
    lines = done.stdout.split("\n")
    return (lines[0] or f"status {done.returncode}").replace("raises ", "")


PATHS = []


def measure(only):
    sys.path.insert(0, os.getcwd())
    import fastsync

    PATHS.append(str(Path(fastsync.__file__).resolve().parent.parent))
    jobs = []
    for name, spec in {**TYPES, **LATER}.items():
        if only and name not in only:
            continue
        if name in LATER and not hasattr(fastsync, name):
            continue
        modules = ["threading", "fastsync.threading"] if name in TYPES else ["fastsync.threading"]
        for abuse, text, needs in ABUSES:
            have = {"t": spec[1], "r": spec[2], "w": spec[3]}
            if all(have[letter] for letter in needs):
                for module in modules:
                    jobs.append((abuse, name, module, source_of(text, module, *spec)))
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(outcome, jobs))
    return {job[:3]: answer for job, answer in zip(jobs, outcomes, strict=True)}


def tables(results):
    """What stands beside `threading`, and what is ours alone."""
    groups = [{k: v for k, v in results.items() if k[1] in names} for names in (TYPES, LATER)]
    return "\n\n".join(table(group) for group in groups if group)


def table(results):
    """A row for each abuse, a column for each type; types with the same answers share one."""
    abuses = list(dict.fromkeys(abuse for abuse, _, _ in results))
    columns = {}
    for name in dict.fromkeys(name for _, name, _ in results):
        answers = tuple(cell(results, abuse, name) for abuse in abuses)
        columns.setdefault(answers, []).append(f"`{name}`")
    lines = ["| | " + " | ".join(map(", ".join, columns.values())) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for abuse, *answers in zip(abuses, *columns, strict=True):
        lines.append(f"| {abuse} | " + " | ".join(answers) + " |")
    return "\n".join(lines)


def cell(results, abuse, name):
    ours = results.get((abuse, name, "fastsync.threading"), "")
    stock = results.get((abuse, name, "threading"), ours)
    return ours if ours == stock else f"{ours} (stock: {stock})"


def wrong(results):
    """Ours crashed, or hung where the original did not."""
    for (abuse, name, module), answer in results.items():
        if module != "threading" and answer.startswith("**"):
            if results.get((abuse, name, "threading")) != answer:
                yield f"{name}, {abuse}: {answer}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--only", action="append", metavar="TYPE")
    arguments = parser.parse_args()
    results = measure(arguments.only)
    text = tables(results)
    print(text)
    if not arguments.check:
        page = PAGE.read_text() if PAGE.exists() else f"# Guarantees\n\n{BEGIN}\n{END}\n"
        if BEGIN not in page:
            page += f"\n## Misuse\n\n{BEGIN}\n{END}\n"
        head, _, rest = page.partition(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")
    sys.exit("\n".join(wrong(results)) or None)


if __name__ == "__main__":
    main()
