"""Whole programs, on plain Python and unchanged through `python -m fastsync`; import and size."""

import io
import statistics
import subprocess
import sys
import time
import zipfile
from importlib.metadata import files
from pathlib import Path

from harness import Goal, call

PROGRAMS = Path(__file__).resolve().parent / "programs"
SWAPPED = ["-m", "fastsync"]


def rate(options, program, arguments):
    """What a program of programs/ prints last: so many a second."""
    command = [sys.executable, *options, str(PROGRAMS / program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def better_half(run, *arguments):
    """The mean rate of the better two of four runs.

    By chance some runs on 3.13t take three times as long, on any lock: a PyMutex inside the
    interpreter is then tried with 40 yields again and again.  Such runs say nothing of the lock.
    """
    rates = sorted(rate(*arguments) for _ in range(1 if run.tiny else 4))
    return statistics.mean(rates[-2:])


def counted(run, options, program, per_second, *arguments):
    """A program whose first argument is how much to do: what `per_second` allows for."""
    amount = 8 if run.tiny else int(per_second * run.seconds / 2)
    return better_half(run, options, program, [amount, *arguments])


def timed(run, options, program, *arguments):
    return better_half(run, options, program, [max(run.seconds / 2, 0.1), *arguments])


def program(name, function, *arguments, limit, title):
    return call(
        f"program.{name}",
        {
            "threading": (function, [], *arguments),
            "fastsync": (function, SWAPPED, *arguments),
        },
        unit="/s",
        goals=[Goal(limit)],
        title=title,
    )


def start_seconds(*arguments):
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True)
    return time.perf_counter() - started


def start_beyond(run, *arguments):
    """How much longer a start takes than a bare one; the two alternate."""
    bare, full = [], []
    for _ in range(1 if run.tiny else 15):
        bare.append(start_seconds("-c", "pass"))
        full.append(start_seconds(*arguments))
    return max(0, statistics.median(full) - statistics.median(bare))


def wheel_size(run):
    """The installed package, packed as a wheel packs it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files("fastsync-threading") or ():
            if "__pycache__" not in str(path) and path.locate().exists():
                archive.write(path.locate(), str(path))
    return len(buffer.getvalue())


QUEUES = [
    program(
        f"queue_{pairs}x{pairs}_{'bounded' if bound else 'free'}",
        counted,
        "queues.py",
        200_000 if not bound else 100_000,
        pairs,
        bound,
        limit=4,
        title=f"queue.Queue({bound or ''}), {pairs} producer{'s' * (pairs > 1)}"
        f" and {pairs} consumer{'s' * (pairs > 1)}: items",
    )
    for pairs in (1, 4)
    for bound in (0, 64)
]

CASES = [
    *QUEUES,
    program(
        "pool",
        counted,
        "pool.py",
        40_000,
        limit=3,
        title="ThreadPoolExecutor(4): tasks",
    ),
    program(
        "logging_1",
        counted,
        "logs.py",
        100_000,
        1,
        limit=0.97,
        title="logging from 1 thread: records",
    ),
    program(
        "logging_8",
        counted,
        "logs.py",
        100_000,
        8,
        limit=0.97,
        title="logging from 8 threads: records",
    ),
    program(
        "logging_queue",
        counted,
        "logs.py",
        50_000,
        4,
        "queue",
        limit=1.5,
        title="logging from 4 threads through a QueueHandler, until all are written: records",
    ),
    program(
        "http",
        timed,
        "http_load.py",
        4,
        limit=0.97,
        title="http.server under 4 clients: requests",
    ),
    call(
        "start.import",
        {
            "fastsync": (start_beyond, "-c", "import fastsync"),
            "(import threading)": (start_beyond, "-c", "import threading"),
        },
        unit="s",
        goals=[Goal(0.015, of=None)],
        rounds=3,
        title="`import fastsync` beyond a bare start",
    ),
    call(
        "start.run",
        {"fastsync": (start_beyond, "-m", "fastsync", "-c", "pass")},
        unit="s",
        goals=[Goal(0.030, of=None)],
        rounds=3,
        title="`python -m fastsync` beyond `python`",
    ),
    call(
        "size.wheel",
        {"fastsync": (wheel_size,)},
        unit="B",
        goals=[Goal(1.5e6, of=None)],
        rounds=1,
        title="The wheel",
    ),
]
