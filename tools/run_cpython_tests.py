"""Run CPython's own threading tests on fastsync and compare the counts with stock threading.

    python tools/run_cpython_tests.py [--quick | --all | --report] [--form FORM] [--workers N]
                                      [--limit SECONDS] [--fresh] [FILE ...]

Each file runs in two forms: `patched` (the primitives in `threading` are swapped) and `replaced`
(`fastsync.threading` takes the module's place). Stock threading's counts on the same interpreter
are kept in the cache folder. A failure, or fewer tests passed than stock, ends with status 1.

With --all it is every file of CPython's suite, some 480, those that name threads first. That takes
hours, so each result is kept in build/cpython as it comes, and a run that was ended goes on there;
--fresh begins anew. Then test by test: one with another outcome is run again up to twice on both
sides, and is reported when no outcome of stock threading was seen on fastsync. --report only
reads what is kept.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHILD = ROOT / "tools" / "cpython_child.py"
EXCLUSIONS = ROOT / "tools" / "cpython_exclusions.txt"
LOGS = ROOT / "build" / "cpython"
FORMS = ("patched", "replaced")
WORKERS = 2
# Seconds: several times what the slowest file takes on a busy machine.
TIME_LIMIT = 300
REPEATS = 3

# Whoever runs this in a script's background has Ctrl-C ignored, and children inherit that: tests
# that interrupt themselves would go on for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The slowest first, so that no worker is left alone with one of them at the end.
FILES = [
    "test_concurrent_futures.test_shutdown",
    "test_multiprocessing_spawn.test_processes",
    "test_multiprocessing_forkserver.test_processes",
    "test_multiprocessing_fork.test_processes",
    "test_threading",
    "test_concurrent_futures.test_process_pool",
    "test_concurrent_futures.test_wait",
    "test_concurrent_futures.test_as_completed",
    "test_concurrent_futures.test_deadlock",
    "test_multiprocessing_spawn.test_misc",
    "test_multiprocessing_spawn.test_manager",
    "test_multiprocessing_spawn.test_threads",
    "test_multiprocessing_forkserver.test_misc",
    "test_multiprocessing_forkserver.test_manager",
    "test_multiprocessing_forkserver.test_threads",
    "test_multiprocessing_fork.test_misc",
    "test_multiprocessing_fork.test_manager",
    "test_multiprocessing_fork.test_threads",
    "test_concurrent_futures.test_init",
    "test_concurrent_futures.test_thread_pool",
    "test_concurrent_futures.test_future",
    "lock_tests",
    "test_logging",
    "test_queue",
    "test_threadsignals",
    "test_asyncio.test_runners",
    "test_asyncio.test_locks",
    "test_asyncio.test_threads",
    "test_fork1",
    "test_socketserver",
    "test_sched",
    "test_thread",
    "test_threading_local",
    "test_importlib.test_locks",
]
QUICK = [
    "lock_tests",
    "test_thread",
    "test_threading_local",
    "test_queue",
    "test_threadsignals",
    "test_sched",
    "test_importlib.test_locks",
    "test_asyncio.test_locks",
    "test_concurrent_futures.test_thread_pool",
]


def find(name):
    try:
        return importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None


def existing(files):
    """Return those of the files that this Python ships."""
    # lock_tests.py is what Linux distributions leave out first.
    if not find("test.lock_tests"):
        return []
    found = []
    for file in files:
        if file == "lock_tests" or find(f"test.{file}"):
            found.append(file)
        elif file == "test_concurrent_futures.test_shutdown":
            found.append("test_concurrent_futures")  # one file before 3.12
    return found


def all_files():
    """Return every test file of this Python, the large folders file by file, threads first."""
    import test
    from test.libregrtest.findtests import findtests

    home = Path(test.__file__).parent

    def names_threads(file):
        path = home.joinpath(*file.split(".")).with_suffix(".py")
        source = path.read_bytes() if path.exists() else b""
        return re.search(rb"threading|multiprocessing|asyncio|concurrent", source)

    files = sorted({name.removeprefix("test.") for name in findtests()})
    return sorted(files, key=lambda file: (not names_threads(file), file))


class Kept:
    """The results of runs with --all, in a file for each form and test file."""

    def __init__(self, fresh):
        self.folder = LOGS / version() / "all"
        if fresh:
            shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, file, form):
        return self.folder / f"{form}-{file}.json"

    def runs(self, file, form):
        """Return the results so far, a list."""
        path = self.path(file, form)
        return json.loads(path.read_text()) if path.exists() else []

    def run(self, file, form, times=1):
        """Return at least so many results, running the file for those that are missing."""
        runs = self.runs(file, form)
        while len(runs) < times:
            runs.append(run_once(file, form))
            say(f"  {form:8} {file:42} {describe(runs[-1]):>10} {runs[-1]['seconds']:6.1f} s")
            path = self.path(file, form)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".new").write_text(json.dumps(runs))
            path.with_suffix(".new").replace(path)
        return runs


def differences(stock, ours):
    """Return the tests whose outcomes on fastsync were never seen on stock threading, as lines."""
    lines = []
    names = {name for counts in stock + ours for name in counts["outcomes"]}
    for name in sorted(names):
        seen, now = (
            {counts["outcomes"].get(name, "not run") for counts in runs} for runs in (stock, ours)
        )
        if not seen & now and (seen, now) != ({"not run"}, {"passed"}):  # a test of our own
            lines.append(f"{name}: stock {' or '.join(sorted(seen))}, {' or '.join(sorted(now))}")
    return lines


def run_all(files, forms, kept, workers):
    """Run every file, then those again that differ."""
    with ThreadPoolExecutor(workers) as pool:
        todo = [(file, form) for file in files for form in ("stock", *forms)]
        list(pool.map(lambda item: kept.run(*item), todo))
        for times in range(2, REPEATS + 1):
            todo = []
            for file in files:
                runs = kept.runs(file, "stock")
                worse = [form for form in forms if differences(runs, kept.runs(file, form))]
                todo += [(file, form, times) for form in (["stock", *worse] if worse else [])]
            list(pool.map(lambda item: kept.run(*item), todo))


def report_all(files, forms, kept):
    """Print what differs; return how many tests do."""
    bad = 0
    for form in forms:
        both = [file for file in files if kept.runs(file, "stock") and kept.runs(file, form)]
        stock, ours = ([kept.runs(file, name)[-1] for file in both] for name in ("stock", form))
        for file in both:
            for line in differences(kept.runs(file, "stock"), kept.runs(file, form)):
                print(f"{form} {file} {line}")
                bad += 1
        print(f"{version()} {form}: {len(both)} of {len(files)} files, {total(ours)}")
        print(f"{version()} stock: {total(stock)}")
    print(f"{version()}: {bad} tests differ")
    return bad


def total(results):
    return ", ".join(
        f"{sum(outcome == kind for counts in results for outcome in counts['outcomes'].values())} "
        f"{kind}"
        for kind in ("passed", "failed", "skipped")
    )


def exclusions():
    """Return the patterns of the tests that are left out on this Python."""
    names = []
    for line in EXCLUSIONS.read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, before = line.partition(":")[0].partition(" before ")
            if not before or sys.version_info < tuple(map(int, before.split("."))):
                names.append(name)
    return names


def run_once(file, form):
    """Run one file in one form; return its counts."""
    log = LOGS / version() / f"{form}-{file}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    # `test` writes into the current directory, and its own children need a writable home for it.
    with tempfile.TemporaryDirectory() as folder, open(log, "w") as output:
        result = Path(folder, "result.json")
        child = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", CHILD, form, file, result, *exclusions()],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = child.wait(TIME_LIMIT)
        except subprocess.TimeoutExpired:
            status = f"no end after {TIME_LIMIT} s"
            child.send_signal(signal.SIGABRT)  # faulthandler shows all stacks
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        finally:
            end_group(child.pid)
        if status == 0 and result.exists():
            counts = json.loads(result.read_text())
        else:
            name = f"{file}: status {status}"
            counts = {"run": 0, "passed": 0, "skipped": 0, "failed": [name]}
            counts["outcomes"] = {name: "failed"}
    return {**counts, "seconds": round(time.monotonic() - started, 1), "log": str(log)}


def end_group(leader):
    """End what a test file left running: its processes share the group of the child."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        pass


def run(file, form):
    """Run one file in one form, and once more when it fails: many of the tests depend on timing."""
    counts = run_once(file, form)
    if counts["failed"]:
        first = counts
        counts = run_once(file, form)
        counts["seconds"] += first["seconds"]
        counts["again"] = first["failed"]
    say(f"  {form:8} {file:42} {describe(counts):>10} {counts['seconds']:6.1f} s")
    return counts


def say(text):
    print(text, file=sys.stderr, flush=True)


def describe(counts):
    text = f"{counts['passed']}/{counts['run']}"
    if counts["failed"]:
        text += f" -{len(counts['failed'])}"
    return text + "*" * ("again" in counts)


def version():
    free = "free-threading build" in sys.version
    return "{}.{}.{}".format(*sys.version_info[:3]) + "t" * free


def baseline_path():
    cache = os.environ.get("FASTSYNC_CACHE") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "fastsync"
    )
    inputs = (CHILD.read_text(), EXCLUSIONS.read_text())
    build = (sys.version, os.path.realpath(sys.executable), *inputs)
    digest = hashlib.sha256(repr(build).encode()).hexdigest()[:12]
    return Path(cache, f"cpython-tests-{version()}-{digest}.json")


def load_baseline(fresh):
    path = baseline_path()
    return json.loads(path.read_text()) if path.exists() and not fresh else {}


def save_baseline(baseline):
    path = baseline_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(baseline, indent=1))


def worse(counts, stock):
    """Return what is worse than in the stock run, as lines."""
    reasons = [f"fails: {name}" for name in counts["failed"] if name not in stock["failed"]]
    if counts["passed"] < stock["passed"] and not reasons:
        reasons.append(f"passes {counts['passed']}, stock threading {stock['passed']}")
    return [f"{reason} (see {counts['log']})" for reason in reasons]


def print_table(files, forms, results):
    print(f"\n{version():44}{'threading':>12}" + "".join(f"{form:>12}" for form in forms))
    for file in files:
        cells = [describe(results[file, form]) for form in ("stock", *forms)]
        print(f"{file:44}" + "".join(f"{cell:>12}" for cell in cells))
    print("passed/run; -N: N failed; *: failed in a first run")
    for name in exclusions():
        print(f"left out: {name}")


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", metavar="FILE", help="as in test_threading")
    parser.add_argument("--quick", action="store_true", help="the quick files, patched only")
    parser.add_argument("--all", action="store_true", help="every file; goes on where it was ended")
    parser.add_argument("--form", choices=FORMS, help="one form only")
    parser.add_argument("--report", action="store_true", help="print what --all has found")
    parser.add_argument("--workers", type=int, default=WORKERS, help="files at one time")
    parser.add_argument("--limit", type=float, default=TIME_LIMIT, help="seconds for one file")
    parser.add_argument("--fresh", action="store_true", help="run stock threading again")
    return parser.parse_args()


def main():
    global TIME_LIMIT
    chosen = options()
    TIME_LIMIT = chosen.limit
    if chosen.all or chosen.report:
        files = chosen.files or all_files()
    else:
        files = existing(chosen.files or (QUICK if chosen.quick else FILES))
    if not files:
        print(f"{version()}: this Python comes without its test suite, so nothing was run")
        return 0
    forms = [chosen.form] if chosen.form else FORMS[:1] if chosen.quick else FORMS
    if chosen.all or chosen.report:
        kept = Kept(chosen.fresh and chosen.all)
        if chosen.all:
            run_all(files, forms, kept, chosen.workers)
        return bool(report_all(files, forms, kept))
    baseline = load_baseline(chosen.fresh)
    todo = [(file, "stock") for file in files if file not in baseline]
    todo += [(file, form) for file in files for form in forms]
    todo.sort(key=lambda item: files.index(item[0]))
    with ThreadPoolExecutor(chosen.workers) as pool:
        results = dict(zip(todo, pool.map(lambda item: run(*item), todo), strict=True))

    baseline.update({file: counts for (file, form), counts in results.items() if form == "stock"})
    save_baseline(baseline)
    results.update({(file, "stock"): baseline[file] for file in files})
    print_table(files, forms, results)

    bad = 0
    for form in forms:
        for file in files:
            for line in worse(results[file, form], baseline[file]):
                print(f"{form} {file} {line}")
                bad += 1
    ours = [results[file, form] for file in files for form in forms]
    passed, skipped = (sum(counts[key] for counts in ours) for key in ("passed", "skipped"))
    print(f"{version()}: {passed} passed, {bad} failed, {skipped} skipped")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
