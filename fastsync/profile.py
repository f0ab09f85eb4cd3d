"""See where threads wait, for which lock, and who makes them wait.

    with fastsync.profile.record() as recording:
        ...
    print(recording.report())
    recording.save("report.html")

or, for a whole program that is not changed:

    python -m fastsync profile --output report.html app.py

It times every call that does not get its lock at once: the locks of fastsync.threading (and of
`threading`, after install()), Mutex and its kin, RwLock, Once, LazyLock; and, apart from those,
waits for work: conditions, events, the items of queues and channels and room in them, the end of
a thread. Each wait is charged to the sections whose end it waited for; one for work to the calls
that ended it, such as a put() or a notify().

A wait is kept always when it lasts longer than the rate, else with the probability
duration / rate and a weight that makes up for it: so totals are right whatever the rate, and
short waits cost little. `contention.pyx` says how.
"""

import json
import os
import sys
import time

from fastsync._watch import contention, joins, origins, trace

__all__ = ["Recording", "load", "merge", "name", "record", "running", "start", "stop"]

RATE = 10e-6  # seconds
VERSION = 1
_PERMIT, _SIGNAL, _JOIN = 7, 8, 9  # as in holds.pxd
_FOR = {10: "an item", 11: "room", 12: "its tasks"}


def name(lock, text):
    """Give a lock, queue or the like a name, which reports show; return it.

    A sender or a receiver stands for its channel.
    """
    channels = sys.modules.get("fastsync.objects.channel")
    named = lock if channels is None else channels.whole(lock)
    origins.origin(named).name = str(text)
    return lock


def start(rate=RATE):
    """Begin to record, with nothing recorded.

    rate: seconds; waits that last longer are always kept. ValueError unless it is positive.
    """
    ns = round(rate * 1e9)
    if ns <= 0:
        raise ValueError("the rate must be positive")
    contention.start(ns)
    trace.profile(True)
    joins.follow()
    _state["rate"] = ns


def stop():
    """Stop recording; return the Recording. RuntimeError when nothing is recorded."""
    if not trace.is_profiling():
        raise RuntimeError("no profile is being recorded")
    trace.profile(False)
    joins.follow()
    return now()


def now():
    """Return the Recording so far; recording goes on."""
    return Recording(_gather(contention.recorded()))


def running():
    """Return whether a profile is being recorded."""
    return trace.is_profiling()


class record:
    """Context manager: record in its block. Afterwards, what Recording has can be asked of it."""

    def __init__(self, rate=RATE):
        self._rate = rate
        self.recording = None

    def __enter__(self):
        if running():
            raise RuntimeError("a profile is being recorded already")
        start(self._rate)
        return self

    def __exit__(self, exc_type, exc_value, traceback):
        self.recording = stop()

    def _current(self):
        return self.recording if self.recording is not None else now()

    def report(self):
        """Return the Recording's report; inside the block, of what there is so far."""
        return self._current().report()

    def save(self, path, format=None):
        """Save the Recording: see Recording.save()."""
        self._current().save(path, format)


_state = {"rate": round(RATE * 1e9)}


# -- from memory to data -------------------------------------------------------


class _Numbered:
    """Gives equal things the same index in a list."""

    def __init__(self):
        self.items = []
        self.index = {}

    def add(self, key, item):
        if key not in self.index:
            self.index[key] = len(self.items)
            self.items.append(item)
        return self.index[key]


def _gather(raw):
    """Return the data of a Recording: plain lists and dicts."""
    pid = os.getpid()
    locks, threads, stacks = _Numbered(), _Numbered(), _Numbered()

    def thread(number):
        label, ident = raw["threads"].get(number, (None, number))
        return threads.add(number, {"name": label or f"Thread-{ident}", "pid": pid})

    def stack(number):
        lines = raw["stacks"].get(number, [])
        return stacks.add(tuple(lines), [list(line) for line in lines])

    signals = _signal_semaphores(raw)

    def lock(number, way):
        origin = raw["origins"][number]
        work = way >= _SIGNAL or (way == _PERMIT and number in signals)
        made = origin.made_at
        kind = "Thread.join" if way == _JOIN else origin.kind
        site = tuple(site_of(made) or (() if way == _JOIN else (number,)))
        key = (kind, origin.name, site, work, way if way in _FOR else None)
        index = locks.add(
            key,
            {
                "kind": kind,
                "name": origin.name,
                "made": [list(line) for line in made],
                "work": work,
                "for": _FOR.get(way, ""),
                "instances": 0,
                "count": 0.0,
                "ns": 0.0,
                "longest_ns": 0,
                "histogram": {},
                "threads": 0,
                "going_on": 0,
            },
        )
        members.setdefault(index, set()).add(number)
        return index

    members = {}
    waits = _Sums(2)
    for (number, way), (count, ns, longest, histogram) in raw["locks"].items():
        row = locks.items[lock(number, way)]
        row["count"] += count
        row["ns"] += ns
        row["longest_ns"] = max(row["longest_ns"], longest)
        for bin, weight in histogram.items():
            row["histogram"][str(bin)] = row["histogram"].get(str(bin), 0.0) + weight
    for (number, way, who, where), values in raw["waits"].items():
        waits.add((lock(number, way), thread(who), stack(where)), values)
    going_on = []
    for number, way, who, where, ns in raw["going_on"]:
        index = lock(number, way)
        row = locks.items[index]
        row["count"] += 1
        row["ns"] += ns
        row["longest_ns"] = max(row["longest_ns"], ns)
        row["going_on"] += 1
        going_on.append([index, thread(who), stack(where), ns])
        waits.add((index, thread(who), stack(where)), (1, ns))
    holders, pairs, slots = _Sums(2), _Sums(1), _Sums(1)
    for (number, way, who, where), values in raw["holders"].items():
        holders.add((lock(number, way), thread(who), stack(where)), values)
    for (number, way, holder, held, waiter, waited), ns in raw["pairs"].items():
        key = lock(number, way), thread(holder), stack(held), thread(waiter), stack(waited)
        pairs.add(key, (ns,))
    for (number, way, slot), ns in raw["slots"].items():
        slots.add((lock(number, way), slot), (ns,))
    for index, row in enumerate(locks.items):
        row["instances"] = len(members[index])
        row["threads"] = len({who for (which, who, _), _ in waits.items() if which == index})
    return {
        "format": "fastsync-profile",
        "version": VERSION,
        "program": " ".join(sys.argv) or sys.executable,
        "directory": os.getcwd(),
        "started": time.time() - raw["elapsed"] / 1e9,
        "elapsed_ns": raw["elapsed"],
        "rate_ns": _state["rate"],
        "kept": raw["kept"],
        "pids": [pid],
        "locks": locks.items,
        "threads": threads.items,
        "stacks": stacks.items,
        "waits": waits.rows(),
        "holders": holders.rows(),
        "pairs": pairs.rows(),
        "slot_ns": raw["slot"],
        "slots": slots.rows(),
        "going_on": going_on,
    }


def _signal_semaphores(raw):
    """Return the semaphores whose permits come from threads that never wait for one."""
    waiting, giving = {}, {}
    for number, way, who, _ in raw["waits"]:
        if way == _PERMIT:
            waiting.setdefault(number, set()).add(who)
    for number, way, who, _ in raw["holders"]:
        if way == _PERMIT:
            giving.setdefault(number, set()).add(who)
    return {number for number in giving if not giving[number] & waiting.get(number, set())}


class _Sums:
    """{key: sums}, and as rows."""

    def __init__(self, width):
        self.width = width
        self.sums = {}

    def add(self, key, values):
        sums = self.sums.setdefault(key, [0.0] * self.width)
        for index in range(self.width):
            sums[index] += values[index]

    def items(self):
        return self.sums.items()

    def rows(self):
        return [[*key, *values] for key, values in self.sums.items()]


_INNER = os.path.dirname(os.path.abspath(__file__)) + os.sep
_STDLIB = tuple(
    os.path.join(os.path.dirname(os.__file__), module)
    for module in ("threading.py", "queue.py", "contextlib.py")
)


def _is_inner(file):
    """Return whether a call there is not what a reader of a report looks for."""
    return file.startswith((_INNER, "<frozen ")) or file in _STDLIB


def site_of(stack):
    """Return (file, line, function) of the innermost call that is the program's own, or None."""
    for line in stack:
        if not _is_inner(line[0]):
            return tuple(line)
    return tuple(stack[0]) if stack else None


# -- recordings ----------------------------------------------------------------


class Recording:
    """What was recorded: `data` is plain lists and dicts, as saved in JSON."""

    def __init__(self, data):
        if data.get("format") != "fastsync-profile" or data.get("version") != VERSION:
            raise ValueError("this is not a recording of fastsync.profile of this version")
        self.data = data

    def report(self):
        """Return a table as text, whose first line names the worst lock and its holder."""
        from fastsync._watch import profile_report

        return profile_report.text(self.data)

    def save(self, path, format=None):
        """Write it to a file.

        format: "json" (which load() reads), "html", "text", "speedscope", "collapsed" or
        "pprof"; None: what the name ends in says (.json, .html, .txt, .speedscope.json,
        .collapsed, .pb.gz). ValueError for anything else.
        """
        from fastsync._watch import profile_report

        written = profile_report.render(self.data, format or profile_report.format_of(path))
        with open(path, "wb") as file:
            file.write(written)

    def locks(self):
        """Return a list of dicts, one a lock, the one that was waited for longest first."""
        from fastsync._watch import profile_report

        return profile_report.rows(self.data)


def load(path):
    """Return the Recording that was saved as "json". ValueError if it is none."""
    with open(path, "rb") as file:
        try:
            data = json.load(file)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path!r} is not a recording: {error}") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path!r} is not a recording")
    return Recording(data)


def merge(recordings):
    """Return one Recording of several, of the processes of one program; the first leads."""
    first, *others = [recording.data for recording in recordings]
    if not others:
        return Recording(first)
    data = {**first, "pids": [], "kept": 0.0, "going_on": []}
    slot = max(one["slot_ns"] for one in (first, *others))
    locks, threads, stacks = _Numbered(), _Numbered(), _Numbered()
    waits, holders, pairs, slots = _Sums(2), _Sums(2), _Sums(1), _Sums(1)
    for one in (first, *others):
        data["pids"] += one["pids"]
        data["kept"] += one["kept"]
        t = [threads.add((who["pid"], i, who["name"]), who) for i, who in enumerate(one["threads"])]
        s = [stacks.add(tuple(map(tuple, stack)), stack) for stack in one["stacks"]]
        w = [_merge_lock(locks, row) for row in one["locks"]]
        for a, b, c, *values in one["waits"]:
            waits.add((w[a], t[b], s[c]), values)
        for a, b, c, *values in one["holders"]:
            holders.add((w[a], t[b], s[c]), values)
        for a, b, c, d, e, *values in one["pairs"]:
            pairs.add((w[a], t[b], s[c], t[d], s[e]), values)
        shift = round((one["started"] - first["started"]) * 1e9)
        for a, b, *values in one["slots"]:
            slots.add((w[a], max(0, int((b * one["slot_ns"] + shift) // slot))), values)
        data["going_on"] += [[w[a], t[b], s[c], ns] for a, b, c, ns in one["going_on"]]
    for index, row in enumerate(locks.items):
        row["threads"] = len({who for (which, who, _), _ in waits.items() if which == index})
    data.update(
        locks=locks.items,
        threads=threads.items,
        stacks=stacks.items,
        waits=waits.rows(),
        holders=holders.rows(),
        pairs=pairs.rows(),
        slots=slots.rows(),
        slot_ns=slot,
    )
    return Recording(data)


def _merge_lock(locks, row):
    site = tuple(site_of(row["made"]) or ())
    key = (row["kind"], row["name"], site, row["work"], row.get("for"))
    known = key in locks.index
    index = locks.add(key, {**row, "histogram": dict(row["histogram"])})
    if known:
        total = locks.items[index]
        for field in ("instances", "count", "ns", "going_on"):
            total[field] += row[field]
        total["longest_ns"] = max(total["longest_ns"], row["longest_ns"])
        for bin, weight in row["histogram"].items():
            total["histogram"][bin] = total["histogram"].get(bin, 0.0) + weight
    return index
