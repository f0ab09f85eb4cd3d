"""Find deadlocks: threads that wait for one another, and will for ever.

    fastsync.deadlock.enable()
    ...
    for cycle in fastsync.deadlock.check():
        print(fastsync.deadlock.format_cycle(cycle))

It knows the locks of fastsync.threading (and of `threading`, after install()), Mutex, FairMutex,
ReentrantMutex and RwLock, from enable() on. A report is certain: every thread of a cycle is asleep
in a wait without a timeout for what the next one holds. The one thing that it cannot know is
whether a lock is meant to be let go by another thread than the one that took it; a lock that once
was let go so is left out from then on.

It also reports lock-order violations: two or more locks that have been taken in both orders, which
is a deadlock that has only been lucky so far.

`trace.pyx` says what is noted, and why it is true.
"""

import _thread
import os
import sys
import threading as _stdlib
import traceback
import weakref
from dataclasses import dataclass, field

from fastsync import trace

__all__ = [
    "DeadlockedThread",
    "OrderViolation",
    "Watch",
    "check",
    "disable",
    "enable",
    "enabled",
    "format_cycle",
    "format_violation",
    "order_violations",
    "watch",
]

# How a lock is held or waited for: as in trace.pxd.
_EXCLUSIVE, _SHARED, _UPGRADABLE, _SHARED_RECURSIVE, _UPGRADE, _REENTRANT = range(1, 7)


@dataclass(frozen=True)
class DeadlockedThread:
    """One thread of a cycle: the one before it in the list waits for what it holds.

    `holds` is that lock (None for a writer that holds nothing, but whom a reader has to let pass);
    `waits_for` the lock that keeps this thread; `stack` a traceback.StackSummary, innermost call
    last.
    """

    thread_id: int
    name: str
    holds: object
    waits_for: object
    stack: traceback.StackSummary
    _wait: int = field(repr=False, default=0)  # which wait of the program it is


@dataclass(frozen=True)
class OrderViolation:
    """Locks that were taken in a circle: `locks[i]` was held when `locks[i + 1]` was taken.

    `stacks[i]` says where (a traceback.StackSummary, innermost call last), `threads[i]` by which
    thread. The circle closes: the last stack is where `locks[0]` was taken under `locks[-1]`.
    """

    locks: tuple
    stacks: tuple
    threads: tuple


def enable():
    """Begin to watch the locks; what is held already is not known. No effect when it is on."""
    if not trace.is_on():
        _order.clear()
        trace.switch(True, _order.note)


def disable():
    """Stop, and forget who holds what; findings about the order of locks stay. Ends watch()."""
    for running in list(_watches):
        running.stop()
    trace.switch(False)


def enabled():
    """Return whether the detector is on."""
    return trace.is_on()


# -- cycles ------------------------------------------------------------------


class _Moment:
    """Who waits for whom, at one moment."""

    def __init__(self, holds, waits):
        self.holders = {}  # id of a lock -> [(thread, kind)]
        self.all_waits = {}  # id of a lock -> its waits
        for lock, thread, _, kind in holds:
            self.holders.setdefault(id(lock), []).append((thread, kind))
        for wait in waits:
            self.all_waits.setdefault(id(wait[0]), []).append(wait)
        # A thread may wait in a signal handler inside a wait: its last one is where it is.
        self.waits = {}
        for wait in sorted(waits, key=lambda wait: wait[6]):
            self.waits[wait[1]] = wait
        self.waits = {thread: w for thread, w in self.waits.items() if w[4] and w[5]}
        self.blockers = {thread: self._blockers(wait) for thread, wait in self.waits.items()}

    def _blockers(self, wait):
        """Return the threads each of which alone keeps this one waiting."""
        lock, thread, _, kind, *_ = wait
        held = self.holders.get(id(lock), ())
        if kind == _EXCLUSIVE:
            return {holder for holder, _ in held}
        if kind == _REENTRANT:
            return {holder for holder, _ in held if holder != thread}
        if kind == _UPGRADE:
            return {holder for holder, how in held if how == _SHARED}
        if kind == _UPGRADABLE:
            return {holder for holder, how in held if how in (_EXCLUSIVE, _UPGRADABLE)}
        writers = {holder for holder, how in held if how == _EXCLUSIVE}
        if writers or kind == _SHARED_RECURSIVE:
            return writers
        return self._pending_writers(wait)

    def _pending_writers(self, reader):
        """Return the writers that a reader has to let pass, if it is certain that they stay."""
        lock, thread, *_, serial = reader
        pending = [
            wait
            for wait in self.all_waits[id(lock)]
            if wait[3] in (_EXCLUSIVE, _UPGRADE) and wait[1] != thread
        ]
        if not all(forever for _, _, _, _, forever, _, _ in pending):
            return set()  # one of them gives up, and may let the reader in then
        return {wait[1] for wait in pending if wait[5] and wait[6] < serial}

    def cycles(self):
        """Return each cycle once, as a list of threads, the smallest number first."""
        found = {}
        for start in sorted(self.waits):
            path = self._path(start, start)
            if path is not None:
                found.setdefault(frozenset(path), path)
        return [self._turn(path) for path in found.values()]

    def _path(self, start, goal):
        """Return a shortest way along blockers from start to goal, start included."""
        ways = [[start]]
        seen = set()
        for way in ways:
            for blocker in sorted(self.blockers.get(way[-1], ())):
                if blocker == goal:
                    return way
                if blocker not in seen:
                    seen.add(blocker)
                    ways.append([*way, blocker])
        return None

    @staticmethod
    def _turn(path):
        first = path.index(min(path))
        return path[first:] + path[:first]


def check():
    """Return the deadlocks there are now: list[list[DeadlockedThread]], empty when there are none.

    Each thread of a cycle waits for what the next one holds, the last for what the first one
    holds. Asking changes nothing: the same deadlock is there the next time.
    """
    moment = _Moment(*trace.snapshot())
    cycles = moment.cycles()
    if not cycles:
        return []
    frames = sys._current_frames()
    names = _thread_names()
    return [_describe(moment, cycle, frames, names) for cycle in cycles]


def _describe(moment, cycle, frames, names):
    result = []
    for before, thread in zip([cycle[-1], *cycle[:-1]], cycle, strict=True):
        lock, _, ident, *_, serial = moment.waits[thread]
        wanted = moment.waits[before][0]
        holds = any(holder == thread for holder, _ in moment.holders.get(id(wanted), ()))
        frame = frames.get(ident)
        stack = traceback.extract_stack(frame) if frame is not None else []
        result.append(
            DeadlockedThread(
                thread_id=ident,
                name=names.get(ident, f"Thread-{ident}"),
                holds=wanted if holds else None,
                waits_for=lock,
                stack=traceback.StackSummary.from_list(stack),
                _wait=serial,
            )
        )
    return result


def _thread_names():
    # Not enumerate(): that takes a lock, and this thread may hold it.
    return {ident: thread.name for ident, thread in _stdlib._active.copy().items()}


# -- the order of locks ------------------------------------------------------


class _Order:
    """Which lock was held when which was taken, and the circles in that."""

    def __init__(self):
        self.lock = _thread.allocate_lock()  # of the interpreter: the detector never sees it
        self.busy = set()  # threads inside note()
        self.violations = []
        self.clear()

    def clear(self):
        self.nodes = {}  # id of a lock -> (weak reference, number)
        self.after = {}  # number -> {number of a lock taken under it: where}
        self.count = 0
        self.violations = []

    def note(self, first, second):
        """Learn that a thread takes `second` while it holds `first`."""
        me = _thread.get_ident()
        if me in self.busy:
            return
        self.busy.add(me)
        try:
            where = (_call_stack(), _thread_names().get(me, f"Thread-{me}"), first, second)
            with self.lock:
                self._add(first, second, where)
        finally:
            self.busy.discard(me)

    def _add(self, first, second, where):
        a, b = self._number(first), self._number(second)
        if b in self.after.setdefault(a, {}):
            return
        self.after[a][b] = _Where(*where[:2])
        way = self._way(b, a)
        if way is None:
            return
        # From `first` over `second` and on, back to `first`.
        numbers = [a, *way[:-1]]
        steps = [self.after[x][y] for x, y in zip(numbers, [*numbers[1:], a], strict=True)]
        locks = tuple(self._lock_of(number) for number in numbers)
        self.violations.append(
            OrderViolation(
                locks=locks,
                stacks=tuple(step.stack() for step in steps),
                threads=tuple(step.thread for step in steps),
            )
        )

    def _number(self, lock):
        known = self.nodes.get(id(lock))
        if known is None or known[0]() is not lock:
            self.count += 1
            known = self.nodes[id(lock)] = weakref.ref(lock), self.count
        return known[1]

    def _lock_of(self, number):
        for reference, its_number in self.nodes.values():
            if its_number == number:
                return reference()
        return None  # it is gone, and another one has its address

    def _way(self, start, goal):
        """Return a shortest way from start to goal, both included."""
        ways = [[start]]
        seen = {start}
        for way in ways:
            for number in self.after.get(way[-1], ()):
                if number == goal:
                    return [*way, goal]
                if number not in seen:
                    seen.add(number)
                    ways.append([*way, number])
        return None


class _Where:
    """A call stack, kept as it can be kept at once: lines of source are looked up later."""

    def __init__(self, calls, thread):
        self.calls = calls
        self.thread = thread

    def stack(self):
        return traceback.StackSummary.from_list(self.calls)


def _call_stack():
    frame = sys._getframe(2)
    calls = []
    while frame is not None:
        code = frame.f_code
        calls.append((code.co_filename, frame.f_lineno, code.co_name, None))
        frame = frame.f_back
    return calls[::-1]


_order = _Order()


def _after_fork_in_child():
    _order.lock = _thread.allocate_lock()
    _order.busy = set()
    _watches.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def order_violations():
    """Return the locks that were taken in both orders since enable(), each case once."""
    return list(_order.violations)


# -- reports -----------------------------------------------------------------


def format_cycle(cycle):
    """Return a deadlock as text."""
    lines = [f"fastsync: deadlock of {len(cycle)} thread{'s' * (len(cycle) > 1)}\n"]
    for thread in cycle:
        lines.append(f"  {thread.name} (id {thread.thread_id})\n")
        lines.append(f"    holds     {_lock_name(thread.holds)}\n")
        lines.append(f"    waits for {_lock_name(thread.waits_for)}\n")
        lines += _indented(thread.stack)
    return "".join(lines)


def format_violation(violation):
    """Return a lock-order violation as text."""
    lines = [f"fastsync: {len(violation.locks)} locks are taken in more than one order\n"]
    following = (*violation.locks[1:], violation.locks[0])
    for first, second, stack, thread in zip(
        violation.locks, following, violation.stacks, violation.threads, strict=True
    ):
        lines.append(f"  {thread} held {_lock_name(first)}\n")
        lines.append(f"    and took {_lock_name(second)}\n")
        lines += _indented(stack)
    return "".join(lines)


def _lock_name(lock):
    # Not its repr(): that may show the value, or take the lock to read it.
    if lock is None:
        return "nothing"
    return f"{type(lock).__name__} at 0x{id(lock):x}"


def _indented(stack):
    return ["    " + line.replace("\n", "\n    ").rstrip() + "\n" for line in stack.format()]


# -- watch -------------------------------------------------------------------

_watches: "set[Watch]" = set()


class Watch:
    """A background thread that looks for deadlocks; stop() ends it, as does the end of a `with`."""

    def __init__(self, interval, callback):
        from fastsync.primitives import Event

        self._interval = interval
        self._callback = callback
        self._ended = Event()
        self._seen = set()
        self._reported = 0
        self._thread = _stdlib.Thread(target=self._run, name="fastsync deadlock watch", daemon=True)
        _watches.add(self)
        self._thread.start()

    def stop(self):
        """End the thread and wait for that."""
        _watches.discard(self)
        self._ended.set()
        if self._thread.ident != _thread.get_ident():
            self._thread.join()

    def __enter__(self):
        return self

    def __exit__(self, exc_type, exc_value, traceback):
        self.stop()

    def _run(self):
        while not self._ended.wait(self._interval):
            self._look()

    def _look(self):
        for cycle in check():
            key = frozenset(thread._wait for thread in cycle)
            if key not in self._seen:
                self._seen.add(key)
                self._report(cycle)
        violations = order_violations()
        for violation in violations[self._reported :]:
            sys.stderr.write(format_violation(violation))
        self._reported = len(violations)

    def _report(self, cycle):
        if self._callback is None:
            sys.stderr.write(format_cycle(cycle))
            sys.stderr.flush()
            return
        try:
            self._callback(cycle)
        except Exception:
            traceback.print_exc()


def watch(interval=1.0, callback=None):
    """Look for deadlocks every `interval` seconds in the background; enables the detector.

    Each cycle is reported once: to callback(cycle), a list[DeadlockedThread], or as text on stderr.
    Lock-order violations are written to stderr. Returns a Watch, whose stop() ends it.
    """
    if not interval > 0:
        raise ValueError("the interval must be positive")
    enable()
    return Watch(interval, callback)
