"""What a benchmark case is, and how the files cases_*.py write one.

A file `cases_NAME.py` holds a list `CASES`.  Each case pits contestants against one another; the
runner measures all of them in one interleaved run and skips, by name, whoever cannot be imported.

    from harness import Goal, call, op, threaded

    CASES = [
        # Nanoseconds of one statement in one thread.  A contestant is (setup, stmt): both are
        # source text, what setup binds is a local variable of stmt.
        op("lock.with", {
            "threading": ("from threading import Lock; l = Lock()", "with l: pass"),
            "fastsync": ("from fastsync.threading import Lock; l = Lock()", "with l: pass"),
            "librt": ("from librt.threading import Lock; l = Lock()", "with l: pass"),
        }, goals=[Goal(0.45), Goal(0.60, of="best peer")]),

        # Operations a second of pinned threads that all run stmt on what one setup made (each on
        # its own with private=True).  `me` is the number of the thread.  With several statements
        # thread 0 runs the first, thread 1 the second, ..., all others the last.
        threaded("lock.contended", {
            "threading": ("from threading import Lock; l = Lock()", "with l: pass"),
            "fastsync": ("from fastsync.threading import Lock; l = Lock()", "with l: pass"),
        }, threads=(2, 4, 8), goals=[Goal(1.2, threads=2), Goal(1.0, metric="fairness")]),

        # Anything else: a function of the file, called as function(run, *arguments) in a process
        # of its own; returns one number in `unit`.  run.seconds is how long to measure, run.tiny
        # is true when only the code is tried.
        call("condition.pingpong", {
            "threading": (pingpong, "threading"),
            "fastsync": (pingpong, "fastsync.threading"),
        }, unit="s", goals=[Goal(0.7)]),
    ]

Names.  A contestant that starts with "fastsync" is ours; `baseline` (default "threading") is the
neighbour that ratios are taken to; one in parentheses is shown for reference and takes no part in
"best peer"; all others are peers.

Units.  "s" (time an operation, shown as ns, us or ms) and "B" (bytes): less is better;
"/s" (operations a second): more is better.

Goals.  Goal(limit, of=..., metric=..., threads=..., who=..., gil=...): the ratio of `who`
(default "fastsync") to `of` (default the baseline; "best peer"; None: the number itself) is at
most the limit where less is better, at least the limit where more is.  metric: "value" (time,
throughput or bytes), or of threads "fairness" (slowest thread / fastest), "longest" (the longest
wait), "first" (operations a second of thread 0), "rest" (of all others).  Goals are for 3.13t
unless they say gil=True; those are for a build with the GIL.
"""

from dataclasses import dataclass, field

LESS_IS_BETTER = {"s": True, "B": True, "/s": False, "": True}


@dataclass(frozen=True)
class Goal:
    limit: float
    of: str | None = "baseline"
    metric: str = "value"
    threads: int | None = None
    who: str = "fastsync"
    gil: bool = False


@dataclass
class Case:
    name: str
    kind: str  # "op", "threads", "call"
    contestants: dict[str, tuple]
    unit: str
    baseline: str = "threading"
    goals: list[Goal] = field(default_factory=list)
    title: str = ""
    threads: tuple[int | None, ...] = (None,)
    private: bool = False
    batch: int = 50
    rounds: int | None = None  # no more than this
    module: str = ""  # of which file; the runner fills it in

    def rank(self, contestant):
        """Whose it is: "ours", "baseline", "reference" or "peer"."""
        if contestant == self.baseline:
            return "baseline"
        if contestant.startswith("fastsync"):
            return "ours"
        return "reference" if contestant.startswith("(") else "peer"


def op(name, contestants, *, goals=(), title="", baseline="threading"):
    """One statement in one thread: seconds an execution."""
    return Case(name, "op", contestants, "s", baseline, list(goals), title)


def threaded(
    name,
    contestants,
    *,
    threads=(2, 4, 8),
    private=False,
    batch=50,
    goals=(),
    title="",
    baseline="threading",
):
    """Statements in pinned threads: operations a second of all, and how evenly.

    A thread looks at the clock after each `batch` statements: one that takes more than some
    microseconds wants a smaller batch.
    """
    return Case(
        name,
        "threads",
        contestants,
        "/s",
        baseline,
        list(goals),
        title,
        tuple(threads),
        private,
        batch,
    )


def call(name, contestants, *, unit, goals=(), title="", baseline="threading", rounds=None):
    """A function that measures for itself and returns one number."""
    return Case(name, "call", contestants, unit, baseline, list(goals), title, rounds=rounds)
