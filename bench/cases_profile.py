"""What `python -m fastsync profile` costs: programs with it and without."""

from cases_programs import counted, timed
from harness import Goal, call

PLAIN = ["-m", "fastsync"]
PROFILED = ["-m", "fastsync", "profile", "--quiet"]


def profiled(name, function, *arguments, limit, title):
    return call(
        f"profile.{name}",
        {
            "fastsync": (function, PLAIN, *arguments),
            "fastsync profiled": (function, PROFILED, *arguments),
        },
        unit="/s",
        baseline="fastsync",
        goals=[Goal(limit, who="fastsync profiled")],
        title=title,
    )


CASES = [
    profiled(
        "uncontended",
        counted,
        "sections.py",
        200_000,
        2,
        30,
        100,
        "own",
        limit=0.99,
        title="two threads, each with its own lock, 1 us inside and 3 us outside: rounds",
    ),
    profiled(
        "contended",
        counted,
        "sections.py",
        20_000,
        4,
        1000,
        1000,
        "shared",
        limit=0.95,
        title="four threads at one lock, 30 us inside and outside: rounds",
    ),
    profiled(
        "logging",
        counted,
        "logs.py",
        100_000,
        8,
        limit=0.95,
        title="logging from 8 threads: records",
    ),
    profiled(
        "http",
        timed,
        "http_load.py",
        4,
        limit=0.95,
        title="http.server under 4 clients: requests",
    ),
]
