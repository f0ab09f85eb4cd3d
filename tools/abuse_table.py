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

# Ours alone: a name of `fastsync`, and the same four. `None`: without the call.
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
    "Once": ("fastsync.Once()", None, None, None),
    "OnceLock": ("fastsync.OnceLock()", None, None, None),
    "LazyLock": ("fastsync.LazyLock(list)", None, None, None),
    "Parker": ("fastsync.Parker()", None, None, "x.park_timeout({})"),
    "WaitGroup": ("fastsync.WaitGroup()", None, None, None),
    "AtomicI64": ("fastsync.AtomicI64(0)", None, None, None),
    "AtomicBool": ("fastsync.AtomicBool(False)", None, None, None),
    "AtomicRef": ("fastsync.AtomicRef(None)", None, None, None),
    "AtomicCell": ("fastsync.AtomicCell(0)", None, None, None),
    "AtomicArray": ("fastsync.AtomicArray('int64', 4)", None, None, None),
    "Counter": ("fastsync.Counter()", None, None, None),
    "Arc": ("fastsync.Arc([])", None, None, None),
}

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
    ("wrong type for a call", "type(x).__repr__(5)", ""),
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
    hold = {"x.acquire()": "in_thread(x.acquire)"}.get(take, "pass")
    if "Condition" in make:
        hold = "pass"
    elif take and take != "x.acquire()":
        hold = f"in_thread(lambda: globals().update(g={take.partition('= ')[2]}))"
    # A guard is let go twice: before there is one, nothing can be.
    unheld = f"{take}; {release}; {release}" if take and take.startswith("g = ") else release
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


def outcome(source):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), *PATHS]))}
    for limit in LIMITS:
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
        return HANGS
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
        outcomes = list(pool.map(outcome, [job[3] for job in jobs]))
    return {
        job[:3]: WAITS if answer == HANGS and job[0] in AS_ASKED and job[1] in LATER else answer
        for job, answer in zip(jobs, outcomes, strict=True)
    }


def tables(results):
    """What stands beside `threading`, and what is ours alone."""
    groups = [{k: v for k, v in results.items() if k[1] in names} for names in (TYPES, LATER)]
    return "\n\n".join(table(group) for group in groups if group)


def table(results):
    names = list(dict.fromkeys(name for _, name, _ in results))
    lines = ["| | " + " | ".join(f"`{name}`" for name in names) + " |"]
    lines.append("|---" * (len(names) + 1) + "|")
    for abuse in dict.fromkeys(abuse for abuse, _, _ in results):
        cells = []
        for name in names:
            ours = results.get((abuse, name, "fastsync.threading"), "")
            stock = results.get((abuse, name, "threading"), ours)
            cells.append(ours if ours == stock else f"{ours} (stock: {stock})")
        lines.append(f"| {abuse} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


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
