"""Find deadlocks: threads that wait for one another, and will for ever.

    fastsync.deadlock.enable(action="raise")

or, to look from time to time:

    fastsync.deadlock.enable()
    ...
    for cycle in fastsync.deadlock.check():
        print(fastsync.deadlock.format_cycle(cycle))

It knows the locks of fastsync.threading (and of `threading`, after install()), Mutex, FairMutex,
ReentrantMutex, RwLock, ShardedLock, Once, OnceLock, LazyLock and the decorators, and Thread.join(),
from enable() on. A report is certain: every thread of a cycle waits, without a timeout, for what
the next one holds. One thing cannot be known: whether a lock is meant to be released by another
thread than the one that took it. A lock that once was released so is left out from then on; and
a Lock that acquire() took, not a `with` statement, makes no cycle with its own thread or a join()
as long as some other thread runs, or a signal handler may. The same is true of a Lock that the
`with` of a generator took, which any thread may continue.

It also reports lock-order violations: two or more locks that have been taken in both orders, which
is a deadlock that has only been lucky so far. Locks that are taken so under a common outer lock,
which keeps the threads apart, are no violation.

`_watch/holds.pyx` says what is noted, and why it is true.
"""

import _thread
import os
import signal
import sys
import threading as _stdlib
import time
import traceback
from dataclasses import dataclass, field

from fastsync._watch import holds, joins, orders, origins, trace

__all__ = [
    "Cycle",
    "DeadlockError",
    "DeadlockedThread",
    "OrderViolation",
    "Watch",
    "check",
    "disable",
    "enable",
    "enabled",
    "format_cycle",
    "format_threads",
    "format_violation",
    "hang_report",
    "order_violations",
    "watch",
]

# How a lock is held or waited for: as in holds.pxd.
_EXCLUSIVE, _SHARED, _UPGRADABLE, _SHARED_RECURSIVE, _UPGRADE = range(1, 6)
_REENTRANT, _PERMIT, _SIGNAL, _JOIN = range(6, 10)
_WAY, _BLOCK = 15, 16
_CLAIMED = 2  # how a writer is parked that keeps new readers out


@dataclass(frozen=True)
class DeadlockedThread:
    """One thread of a cycle: the one before it in the list waits for what it holds.

    `holds` is that lock (None for a writer that holds nothing, but whom a reader has to let pass;
    the Thread itself for one that is joined); `waits_for` the lock, or the Thread, that keeps this
    thread; `stack` where it waits, and `took` where it took `holds` (each a traceback.StackSummary,
    innermost call last; `took` is empty when that is not known).
    """

    thread_id: int
    name: str
    holds: object
    waits_for: object
    stack: traceback.StackSummary
    took: traceback.StackSummary = field(default_factory=traceback.StackSummary)
    _wait: int = field(repr=False, default=0)  # which wait of the program it is


class Cycle(list):
    """The threads of a deadlock: a list of DeadlockedThread.

    Each waits for what the next one holds, the last for what the first one holds. `certain` is
    False for a suspicion: see check().
    """

    certain = True


class DeadlockError(RuntimeError):
    """A call would have waited for ever; it was not begun. `cycle` is the Cycle it would close."""

    def __init__(self, message, cycle):
        super().__init__(message)
        self.cycle = cycle


@dataclass(frozen=True)
class OrderViolation:
    """Locks that were taken in a circle: `locks[i]` was held when `locks[i + 1]` was taken.

    `stacks[i]` says where (a traceback.StackSummary, innermost call last), `threads[i]` by which
    thread. The circle closes: the last stack is where `locks[0]` was taken under `locks[-1]`.
    A lock that is gone is None.
    """

    locks: tuple
    stacks: tuple
    threads: tuple
    _names: tuple = field(repr=False, default=())


def enable(action=None):
    """Begin to watch the locks; what is held already is not known.

    action: "raise" lets a call that would close a circle raise DeadlockError, at once and without
    having waited; None leaves it to check() and watch(). ValueError for anything else. Without
    effect when it is on in the same way; in the other way, it begins anew.
    """
    if action not in (None, "raise"):
        raise ValueError(f'action must be None or "raise", not {action!r}')
    raises = action == "raise"
    if not trace.is_on() or trace.is_raising() != raises:
        trace.switch(True, raises, _refuse)
        joins.follow()


def disable():
    """Stop, and forget who holds what; findings about the order of locks stay. Ends watch()."""
    for running in list(_watches):
        running.stop()
    trace.switch(False)
    joins.follow()


def enabled():
    """Return whether the detector is on."""
    return trace.is_on()


# -- cycles ------------------------------------------------------------------


class _Moment:
    """Who waits for whom, at one moment."""

    def __init__(self, held, waits, hopeful=False):
        """`hopeful`: as if those who may be about to park were parked."""
        self.hopeful = hopeful
        self.main = _stdlib.main_thread().ident
        self.holders = {}  # Origin -> its holds
        self.all_waits = {}  # Origin -> its waits
        for hold in held:
            self.holders.setdefault(hold[0], []).append(hold)
        for wait in waits:
            self.all_waits.setdefault(wait[0], []).append(wait)
        self.by_ident = {wait[2]: wait for wait in waits}
        self.waits = {wait[1]: wait for wait in waits if self._is_blocked(wait)}
        self.blockers = {thread: self._blockers(wait) for thread, wait in self.waits.items()}

    def _is_blocked(self, wait):
        _, _, ident, way, forever, parked, settled, conditional, *_ = wait
        if not forever or way & _WAY == _SIGNAL:
            return False
        if way == _JOIN or parked or settled:
            return True
        return not conditional and (self.hopeful or ident != self.main)

    def _blockers(self, wait):
        """Return {thread: its hold, or None} for those each of which keeps this one waiting."""
        origin, thread, _, way, *_ = wait
        way &= _WAY
        if way == _JOIN:
            target = self.by_ident.get(wait[8])
            joined = origin.lock
            alive = target is not None and joined is not None and joined.is_alive()
            return {target[1]: None} if alive else {}
        if way == _PERMIT:
            return {}
        found = {}
        for hold in self.holders.get(origin, ()):
            how = hold[3] & _WAY
            if way == _EXCLUSIVE:
                keeps = True
            elif way == _REENTRANT:
                keeps = hold[1] != thread
            elif way == _UPGRADE:
                keeps = how == _SHARED
            elif way == _UPGRADABLE:
                keeps = how in (_EXCLUSIVE, _UPGRADABLE)
            else:
                keeps = how == _EXCLUSIVE
            if keeps and (hold[1] not in found or _is_strong(hold)):
                found[hold[1]] = hold
        if way in (_SHARED, _UPGRADABLE):
            for other in self.all_waits[origin]:
                waiting = other[3] & _WAY in (_EXCLUSIVE, _UPGRADE) and other[4]
                if waiting and (other[5] == _CLAIMED or self.hopeful) and other[1] != thread:
                    found.setdefault(other[1], None)
        return found

    def cycles(self):
        """Return each cycle once, as a list of threads, the smallest number first."""
        found = {}
        for start in sorted(self.waits):
            path = self._path(start, start)
            if path is not None and self.is_certain(path):
                found.setdefault(frozenset(path), path)
        return [self._turn(path) for path in found.values()]

    def cycle_of(self, thread):
        """Return a cycle with this thread in it, or None."""
        path = self.path_of(thread)
        return path if path is not None and self.is_certain(path) else None

    def path_of(self, thread):
        """Return what may be a cycle with this thread in it, or None."""
        return self._path(thread, thread)

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

    def is_certain(self, path):
        """Return whether none but the threads of the cycle could end it."""
        holds = [self.blockers[a][b] for a, b in _steps(path)]
        if all(hold is None or _is_strong(hold) for hold in holds):
            return True
        joins = any(self.waits[thread][3] == _JOIN for thread in path)
        return (len(path) > 1 and not joins) or self.all_stuck()

    def all_stuck(self):
        """Return whether no thread of the process runs, but those of the detector."""
        stuck = {
            wait[2]
            for wait in self.by_ident.values()
            if self.blockers.get(wait[1]) or (wait[10] and wait[1] not in self.waits)
        }
        # Of all threads that the interpreter knows, also those that have not begun or run C code;
        # unlike sys._current_frames().
        running = set(sys._current_exceptions()) - stuck
        return running <= {watch._ident for watch in _watches} and not _handles_signals()

    @staticmethod
    def _turn(path):
        first = path.index(min(path))
        return path[first:] + path[:first]


def _handles_signals():
    """Return whether a signal handler could run in the main thread and release something."""
    handlers = {signal.getsignal(number) for number in signal.valid_signals()}
    return any(callable(h) and h is not signal.default_int_handler for h in handlers)


def _steps(path):
    return zip(path, [*path[1:], path[0]], strict=True)


def _is_strong(hold):
    """Return whether only this thread can be meant to end the hold."""
    _, _, _, way, by_guard, _ = hold
    return by_guard or way & _BLOCK or way & _WAY in (_REENTRANT, _UPGRADABLE)


def check(suspicions=False):
    """Return the deadlocks there are now: a list of Cycle, empty when there are none.

    suspicions: also what looks like one, but need not be, each a Cycle whose `certain` is False:
    circles through semaphores and through locks that any thread may release, and threads that
    wait for an event, a notification, a permit, an item or room while no thread runs that could
    give it. Asking changes nothing: the same deadlock is there the next time.
    """
    held, waits = holds.snapshot()
    moment = _Moment(held, waits)
    paths = moment.cycles()
    result = [_describe(moment, path) for path in paths]
    if suspicions:
        known = {frozenset(path) for path in paths}
        suspected = _Suspected(held, waits)
        for path in suspected.cycles():
            if frozenset(path) not in known:
                cycle = _describe(suspected, path)
                cycle.certain = False
                result.append(cycle)
        if not result:
            result += suspected.stand_still()
    return result


class _Suspected(_Moment):
    """As _Moment, but whoever has taken a permit is taken for its holder."""

    def _blockers(self, wait):
        if wait[3] & _WAY != _PERMIT:
            return super()._blockers(wait)
        return {hold[1]: hold for hold in self.holders.get(wait[0], ())}

    def is_certain(self, path):
        return True

    def stand_still(self):
        waiting = [wait for wait in self.by_ident.values() if wait[10]]
        if not waiting or not self.all_stuck():
            return []
        cycle = Cycle(_describe_thread(self, wait, None, None, _Names()) for wait in waiting)
        cycle.certain = False
        return [cycle]


class _Names:
    """What is known of threads, at one moment."""

    def __init__(self):
        # Not enumerate(): that takes a lock, and this thread may hold it.
        self.threads = {ident: thread.name for ident, thread in _stdlib._active.copy().items()}

    def name(self, ident):
        return self.threads.get(ident, f"Thread-{ident}")


def _describe(moment, path):
    names = _Names()
    cycle = Cycle()
    for before, thread in zip([path[-1], *path[:-1]], path, strict=True):
        hold = moment.blockers[before][thread]
        wanted = moment.waits[before][0]
        joined = moment.waits[before][3] == _JOIN
        held = wanted.lock if hold is not None or joined else None
        cycle.append(_describe_thread(moment, moment.waits[thread], held, hold, names))
    return cycle


def _describe_thread(moment, wait, held, hold, names):
    ident = wait[2]
    return DeadlockedThread(
        thread_id=ident,
        name=names.name(ident),
        holds=held,
        waits_for=wait[0].lock,
        stack=_waiting_at(wait[11]),
        took=_summary(hold[5]) if hold is not None else traceback.StackSummary(),
        _wait=wait[9],
    )


def _waiting_at(lines):
    return _summary([line for line in lines if line[0] not in (__file__, joins.__file__)])


def _summary(lines):
    """Return a StackSummary, innermost call last, of what origins.pyx gives."""
    return traceback.StackSummary.from_list([(*line, None) for line in reversed(lines)])


_NAP = 0.001  # seconds
_NO_CIRCLE, _ASK_AT_ONCE, _ASK_LATER = range(3)  # as in trace.pyx


def _refuse(serial):
    """Called for a wait that may close a circle: raise if it does, else say when to ask again."""
    held, waits = holds.snapshot()
    (me,) = [wait for wait in waits if wait[9] == serial] or [None]
    if me is None:
        return _NO_CIRCLE
    moment = _Moment(held, waits)
    path = moment.cycle_of(me[1])
    if path is not None:
        cycle = _describe(moment, path)
        raise DeadlockError(_explain(cycle), cycle) from None
    hopeful = _Moment(held, waits, hopeful=True)
    if hopeful.cycle_of(me[1]) is not None:
        time.sleep(_NAP)
        return _ASK_AT_ONCE
    return _ASK_LATER if hopeful.path_of(me[1]) is not None else _NO_CIRCLE


# -- the order of locks ------------------------------------------------------


def order_violations():
    """Return the locks that were taken in both orders since enable(), each case once."""
    names = _Names()
    result = []
    for path, steps in orders.order_violations():
        result.append(
            OrderViolation(
                locks=tuple(origin.lock for origin in path),
                stacks=tuple(_summary(stack) for stack, _, _ in steps),
                threads=tuple(names.name(ident) for _, _, ident in steps),
                _names=tuple(_origin_name(origin) for origin in path),
            )
        )
    return result


class _Order:
    """What is kept of the order of locks: for tests of its size."""

    busy: "frozenset[int]" = frozenset()  # threads inside it: none ever waits there

    @property
    def nodes(self):
        return {origin.number: origin for origin in origins.all_origins()}

    @property
    def after(self):
        return orders.edges()


_order = _Order()


# -- reports -----------------------------------------------------------------


def format_cycle(cycle):
    """Return a deadlock as text."""
    return "fastsync: " + _explain(cycle)


def _explain(cycle):
    count = f"{len(cycle)} thread{'s' * (len(cycle) > 1)}"
    if getattr(cycle, "certain", True):
        lines = [f"deadlock of {count}\n"]
    else:
        lines = [f"perhaps a deadlock of {count}\n"]
    for thread in cycle:
        lines.append(f"  {thread.name} (id {thread.thread_id})\n")
        if thread.holds is not None:
            lines.append(f"    holds     {_lock_name(thread.holds)}\n")
            if thread.took:
                lines.append(f"              taken at {_line(thread.took)}\n")
        lines.append(f"    waits for {_lock_name(thread.waits_for)}\n")
        lines += _indented(thread.stack)
    lines.append(_advice(cycle))
    return "".join(lines)


def _advice(cycle):
    places = sorted({_line(thread.stack) for thread in cycle if thread.stack})
    if not places:
        return ""
    where = " and ".join(places) if len(places) < 3 else ", ".join(places)
    if len(cycle) == 1:
        return f"  help: the thread has it already; do not take it again at {where}\n"
    if any(isinstance(thread.waits_for, _stdlib.Thread) for thread in cycle):
        return f"  help: do not hold a lock over join() that the thread needs to end: {where}\n"
    return f"  help: take the locks in one order everywhere; look at {where}\n"


def _line(stack):
    frame = stack[-1]
    return f"{frame.filename}:{frame.lineno}, in {frame.name}"


def format_violation(violation):
    """Return a lock-order violation as text."""
    lines = [f"fastsync: {len(violation.locks)} locks are taken in more than one order\n"]
    names = violation._names or tuple(_lock_name(lock) for lock in violation.locks)
    for first, second, stack, thread in zip(
        names, (*names[1:], names[0]), violation.stacks, violation.threads, strict=True
    ):
        lines.append(f"  {thread} held {first}\n")
        lines.append(f"    and took {second}\n")
        lines += _indented(stack)
    places = sorted({_line(stack) for stack in violation.stacks if stack})
    lines.append(f"  help: take them in one order everywhere; look at {' and '.join(places)}\n")
    return "".join(lines)


def _lock_name(lock):
    # Not its repr(): that may show the value, or take the lock to read it.
    if lock is None:
        return "a lock that is gone"
    if isinstance(lock, _stdlib.Thread):
        return f"the end of the thread {lock.name}"
    return f"{_origin_name(origins.origin(lock))} (0x{id(lock):x})"


def _origin_name(origin):
    name = origin.kind if origin.name is None else f"{origin.kind} {origin.name!r}"
    made = _user_line(origin.made_at)
    return name if made is None else f"{name} made at {made[0]}:{made[1]}"


def _user_line(lines):
    """Return the innermost line that is not of the standard library's or our own modules."""
    for line in lines:
        if line[0] not in _INNER_FILES:
            return line
    return lines[0] if lines else None


_INNER_FILES = {_stdlib.__file__, joins.__file__, __file__}


def _indented(stack):
    return ["    " + line.replace("\n", "\n    ").rstrip() + "\n" for line in stack.format()]


# -- watch -------------------------------------------------------------------

_watches: "set[Watch]" = set()


class Watch:
    """A background thread that looks for deadlocks; stop() ends it, as does the end of a `with`."""

    def __init__(self, interval, callback):
        from fastsync.objects.event import Event

        self._interval = interval
        self._callback = callback
        self._ended = Event()
        self._ident = None
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
        self._ident = _thread.get_ident()
        while not self._ended.wait(self._interval):
            self._look()

    def _look(self):
        for cycle in check():
            key = frozenset(thread._wait for thread in cycle)
            if key not in self._seen:
                self._seen.add(key)
                self._report(cycle, format_cycle)
        violations = order_violations()
        for violation in violations[self._reported :]:
            self._report(violation, format_violation)
        self._reported = len(violations)

    def _report(self, finding, form):
        if self._callback is None:
            sys.stderr.write(form(finding))
            sys.stderr.flush()
            return
        try:
            self._callback(finding)
        except Exception:
            traceback.print_exc()


def watch(interval=1.0, callback=None, action=None):
    """Look for deadlocks every `interval` seconds in the background; enables the detector.

    action: as in enable(), if that is not on yet.

    Each finding is reported once: to callback(finding), a Cycle or an OrderViolation, or as text
    on stderr. Returns a Watch, whose stop() ends it.
    """
    if not interval > 0:
        raise ValueError("the interval must be positive")
    if not enabled() or action is not None:
        enable(action)
    return Watch(interval, callback)


# -- hangs -------------------------------------------------------------------


class _HangReport(Watch):
    """Writes what every thread waits for when nothing has moved for some time."""

    def __init__(self, seconds):
        self._patience = seconds
        self._places = None
        self._since = time.monotonic()
        self._used = time.process_time()
        self._written = False
        super().__init__(min(1.0, seconds / 5), None)

    def _look(self):
        now = time.monotonic()
        used = time.process_time()
        # Without the GIL a frame of another thread is not looked into: it may be gone.
        look = getattr(sys, "_is_gil_enabled", bool)() or sys.version_info < (3, 13)
        places = {
            ident: (id(frame), frame.f_lasti if look else 0)
            for ident, frame in sys._current_frames().items()
            if ident != self._ident
        }
        idle = used - self._used < 0.1 * (now - self._since) + 0.05
        if places != self._places or not idle:
            self._places, self._since, self._used, self._written = places, now, used, False
        elif now - self._since >= self._patience and not self._written:
            self._written = True
            sys.stderr.write(format_threads(now - self._since))
            sys.stderr.flush()


def hang_report(seconds=30.0):
    """Write what every thread waits for to stderr when nothing has moved for `seconds`.

    Enables the detector. Nothing has moved: no thread is at another instruction than before
    (without the GIL: in another call), and the process has used no processor time to speak of.
    Returns a Watch, whose stop() ends it.
    """
    if not seconds > 0:
        raise ValueError("the time must be positive")
    if not enabled():
        enable()
    return _HangReport(seconds)


def format_threads(seconds=None):
    """Return as text: deadlocks there are, for certain or perhaps, and where every thread is."""
    lines = []
    if seconds is not None:
        lines.append(f"fastsync: nothing has moved for {seconds:.0f} s\n")
    lines += [format_cycle(cycle) for cycle in check(suspicions=True)]
    held, waits = holds.snapshot()
    names = _Names()
    own = {watch._ident for watch in _watches}
    frames = sys._current_frames()
    noted = {wait[2]: wait[11] for wait in waits}
    for ident in sorted(frames, key=names.name):
        if ident in own:
            continue
        lines.append(f"  {names.name(ident)} (id {ident})\n")
        for wait in waits:
            if wait[2] == ident and wait[0].lock is not None:
                lines.append(f"    waits for {_lock_name(wait[0].lock)}\n")
                for hold in held:
                    if hold[0] is wait[0]:
                        lines.append(f"              held by {names.name(hold[2])}")
                        lines.append(
                            f", taken at {_line(_summary(hold[5]))}\n" if hold[5] else "\n"
                        )
        for hold in held:
            if hold[2] == ident and hold[0].lock is not None:
                lines.append(f"    holds     {_lock_name(hold[0].lock)}\n")
        # Of a thread that is in no wait of ours: it stands still, as all have for some time.
        stack = (
            _waiting_at(noted[ident]) if ident in noted else traceback.extract_stack(frames[ident])
        )
        lines += _indented(stack)
    return "".join(lines)


def _after_fork_in_child():
    _watches.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
