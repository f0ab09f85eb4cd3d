#!/usr/bin/env python3
"""Run other people's test suites on `threading` and on fastsync, and compare test by test.

    tools/programs/run.py [--build gil|free=ENVIRONMENT] [--fresh] [--report] [NAME ...]

packages.toml names the packages: each one's own suite runs unchanged in an environment of its own,
with `python -m pytest` and with `python -m fastsync -m pytest`. Where an outcome differs, its file
runs again on both sides, three times in all. A test differs when none of its outcomes on fastsync
was seen on threading; it is flaky when both sides have an outcome in common and another one.

Results are kept in the cache folder (FASTSYNC_CACHE, or ~/.cache/fastsync), so a run that was ended
goes on there; --fresh begins anew. A run of all packages ends by writing docs/compatibility.md from
them; --report does only that. The status is 1 when a test differs.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import tomllib
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
PAGE = CHECKOUT / "docs" / "compatibility.md"
REPEATS = 3
LIMIT = 1800  # seconds for one run of a suite, then it is interrupted
GRACE = 10  # seconds for a suite that was interrupted to end by itself
TOOLS = ["pytest", "pytest-timeout", "pytest-reportlog"]
PYTEST = ["-q", "-p", "no:cacheprovider", "--timeout=60", "--continue-on-collection-errors"]
BUILDS = {"free": ".venv", "gil": ".venv-gil"}

# Whoever runs this in a script's background has Ctrl-C ignored, and children inherit that: tests
# that interrupt themselves would go on for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Failed(Exception):
    """A suite could not be run at all; says nothing about fastsync."""


def cache():
    folder = os.environ.get("FASTSYNC_CACHE") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "fastsync"
    )
    return Path(folder).resolve() / "programs"


def say(text):
    print(text, file=sys.stderr, flush=True)


def packages():
    """Return what packages.toml says of each package."""
    with open(HERE / "packages.toml", "rb") as file:
        return tomllib.load(file)


class Environment:
    """A virtual environment for one package, with the fastsync of another one in it."""

    def __init__(self, folder, base):
        self.folder = folder
        self.base = base / "bin" / "python"
        self.python = folder / "venv" / "bin" / "python"
        self.log = folder / "install.log"

    def make(self, requirements):
        shutil.rmtree(self.folder / "venv", ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log.write_text("")
        # Not `base` itself, which is an environment: a venv made by one refers to its interpreter.
        self.call([self.base, "-m", "venv", "--without-pip", self.folder / "venv"])
        self.pip("install", *TOOLS, *requirements)
        # The very build that the other environment tests, without compiling it anew.
        link = self.answer(self.python, "import sysconfig; print(sysconfig.get_path('purelib'))")
        built = self.answer(self.base, "import fastsync; print(*fastsync.__path__)")
        Path(link, "fastsync").symlink_to(built)

    def pip(self, *arguments):
        quiet = ["-q", "--disable-pip-version-check", "--prefer-binary"]
        pip = [self.base, "-m", "pip", "--python", self.python]
        self.call([*pip, arguments[0], *quiet, *arguments[1:]])

    def call(self, command):
        with open(self.log, "a") as log:
            done = subprocess.run(
                list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        if done.returncode:
            raise Failed(f"{command[-1]} could not be installed (see {self.log})")

    def answer(self, python, code):
        done = subprocess.run(
            [str(python), "-P", "-c", code], cwd="/", capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def version(self, name):
        code = f"from importlib.metadata import version; print(version({name!r}))"
        return self.answer(self.python, code)

    def source(self, name, version):
        """Return the unpacked source distribution of what is installed."""
        place = self.folder / "source"
        shutil.rmtree(place, ignore_errors=True)
        self.pip("download", "--no-deps", "--no-binary=" + name, "-d", place, f"{name}=={version}")
        archives = [*place.glob("*.tar.gz"), *place.glob("*.zip")]
        if not archives:
            raise Failed("no source distribution")
        if archives[0].suffix == ".zip":
            shutil.unpack_archive(archives[0], place)
        else:
            with tarfile.open(archives[0]) as file:
                file.extractall(place, filter="data")
        return next(path for path in place.iterdir() if path.is_dir())


def command(environment, form, package, place, report, files):
    runner = ["-m", "fastsync"] if form == "fastsync" else []
    options = ["-o", "addopts="] if package.get("plain", True) else []
    return [
        environment.python,
        *("-P", "-W", "ignore"),
        *runner,
        *("-m", "pytest", *PYTEST, *options),
        f"--report-log={report}",
        f"--rootdir={place}",  # what tests are named after, also those of an installed package
        *(files or package["tests"]),
        *package.get("options", []),
    ]


def run(environment, form, package, place, files=()):
    """Run the suite, or some of its files; return outcome and file of each test, and whether the
    time was over before its end."""
    report = environment.folder / f"{form}.jsonl"
    report.unlink(missing_ok=True)
    home = environment.folder / "home"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    variables = {
        **os.environ,
        "HOME": str(home),
        "PATH": f"{environment.python.parent}{os.pathsep}{os.environ['PATH']}",
        **package.get("variables", {}),
    }
    with open(environment.folder / f"{form}.log", "a") as log:
        child = subprocess.Popen(
            list(map(str, command(environment, form, package, place, report, files))),
            cwd=place,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        cut = False
        try:
            child.wait(package["limit"])
        except subprocess.TimeoutExpired:
            cut = True
            child.send_signal(signal.SIGINT)
            try:
                child.wait(GRACE)
            except subprocess.TimeoutExpired:
                pass
        finally:
            end_group(child)
    return read_report(report) if report.exists() else {}, cut


def read_report(path):
    """Return outcome and file of each test that came to its end."""
    kinds = {}
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            report = json.loads(line)
        except ValueError:  # the last line, of a run that was ended
            break
        if report.get("$report_type") == "CollectReport" and report["outcome"] == "failed":
            found[report["nodeid"]] = "error", None
        if report.get("$report_type") != "TestReport":
            continue
        name, when = report["nodeid"], report["when"]
        seen = kinds.setdefault(name, set())
        if report["outcome"] == "failed":
            seen.add("failure" if when == "call" else "error")
        elif report["outcome"] == "skipped":
            seen.add("skipped")
        if when == "teardown":
            found[name] = "+".join(sorted(kinds.pop(name))) or "passed", report["location"][0]
    return found


def end_group(leader):
    """End what a suite left running: its processes share the group of the child."""
    try:
        os.killpg(leader.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    leader.wait()


def compare(environment, package, place):
    """Run both sides, what differs up to three times; return the outcomes of the first runs, those
    seen of each test, and whether a run was cut: then only what both reached is compared."""
    both = {form: run(environment, form, package, place) for form in ("threading", "fastsync")}
    runs = {form: found for form, (found, _) in both.items()}
    if not runs["threading"]:
        raise Failed(f"the suite did not start on threading (see {environment.folder})")
    cut = any(was_cut for _, was_cut in both.values())
    if cut and runs["fastsync"]:
        common = runs["threading"].keys() & runs["fastsync"].keys()
        runs = {
            form: {name: runs[form][name] for name in runs[form] if name in common} for form in runs
        }
    first = {form: {name: seen for name, (seen, _) in runs[form].items()} for form in runs}
    seen = {form: {name: [outcome] for name, outcome in first[form].items()} for form in first}
    for _ in range(REPEATS - 1):
        differ = differences(seen)
        files = {runs[form][name][1] for name in differ for form in runs if name in runs[form]}
        if not differ or None in files:
            break
        for form in runs:
            again, _ = run(environment, form, package, place, sorted(files))
            for name, (outcome, _) in again.items():
                if name in seen[form] or not cut:
                    seen[form].setdefault(name, []).append(outcome)
    return first, seen, cut


def outcomes(seen, form, name):
    return set(seen[form].get(name, ["not run"]))


def differences(seen):
    """Return the tests that have no outcome in common."""
    names = sorted({*seen["threading"], *seen["fastsync"]})
    return [
        name
        for name in names
        if not outcomes(seen, "threading", name) & outcomes(seen, "fastsync", name)
    ]


def describe(seen, name):
    sides = [f"{form} {' or '.join(sorted(outcomes(seen, form, name)))}" for form in seen]
    return f"{name}: {', '.join(sides)}"


def examine(name, package, build, base, work):
    """Run one package on one build; return its result."""
    environment = Environment(work, base)
    started = time.monotonic()
    environment.make([package.get("pin", name), *package.get("requires", [])])
    version = environment.version(name)
    if package.get("installed"):  # the tests come with the package
        place = work / "empty"
        place.mkdir(exist_ok=True)
    else:
        place = environment.source(name, version)
        for path in package.get("hide", []):  # so that the tests import what is installed
            shutil.rmtree(place / path)
    for form in ("threading", "fastsync"):
        (work / f"{form}.log").write_text("")
    first, seen, cut = compare(environment, package, place)
    differ = differences(seen)
    mixed = [
        test
        for test in seen["threading"]
        if test not in differ
        and outcomes(seen, "threading", test) != outcomes(seen, "fastsync", test)
    ]
    for folder in ("venv", "source", "home"):
        shutil.rmtree(work / folder, ignore_errors=True)
    return {
        "version": version,
        "build": build,
        "python": environment.answer(base / "bin" / "python", "import sys; print(sys.version)"),
        "tests": package["tests"],
        "counts": {form: Counter(first[form].values()) for form in first},
        "differ": [describe(seen, test) for test in differ],
        "flaky": [describe(seen, test) for test in mixed],
        "cut": cut,
        "limit": package["limit"],
        "seconds": round(time.monotonic() - started),
    }


def kept(name, build):
    return cache() / build / f"{name}.json"


def run_one(name, package, build, base):
    """Run one package on one build, unless its result is kept; return whether nothing differs."""
    path = kept(name, build)
    if path.exists():
        result = json.loads(path.read_text())
    else:
        say(f"{build} {name} ...")
        try:
            result = examine(name, package, build, base, cache() / build / name)
        except Failed as reason:
            say(f"{build} {name}: {reason}")
            return True
        path.write_text(json.dumps(result, indent=1))
    counts = "; ".join(f"{form} {tally(result, form)}" for form in result["counts"])
    say(f"{build} {name} {result['version']}: {counts} ({result['seconds']} s)")
    for line in result["differ"]:
        say(f"  DIFFERS {line}")
    for line in result["flaky"]:
        say(f"  flaky {line}")
    return not result["differ"]


def tally(result, form):
    counts = result["counts"][form]
    words = {"failure": "failed", "error": "errors", "error+failure": "failed"}
    return ", ".join(f"{counts[key]} {words.get(key, key)}" for key in sorted(counts, key=order))


def order(outcome):
    return (outcome != "passed", outcome)


def interpreter(text):
    version = text.split()[0]
    return f"{version}t" if "free-threading" in text else f"{version}, with the GIL"


def write_page():
    """Write docs/compatibility.md from the results that are kept."""
    rows = []
    differ = []
    seen = set()
    tests = 0
    for name in sorted(packages(), key=str.lower):
        for build in BUILDS:
            path = kept(name, build)
            if not path.exists():
                continue
            result = json.loads(path.read_text())
            stock, ours = (tally(result, form) for form in ("threading", "fastsync"))
            until = f" (the first {result['limit']} s)" if result.get("cut") else ""
            title = f"{name} {result['version']}"
            what = " ".join(f"`{test}`" for test in result["tests"] if test != "--pyargs")
            label = f"| {title} | {what} |" if title not in seen else "| | |"
            same = "the same" if ours == stock else ours
            flaky = len(result["flaky"]) or ""
            python = interpreter(result["python"])
            rows.append(f"{label} {stock}{until} | {same} | {flaky} | {python} |")
            differ += [f"- {title}, {python}: {line}" for line in result["differ"]]
            seen.add(title)
            tests += sum(result["counts"]["threading"].values())
    head = PAGE_HEAD.format(packages=len(seen), runs=len(rows), tests=tests)
    tail = "\n".join(["", "## What differs", "", *(differ or ["Nothing."]), PAGE_TAIL])
    PAGE.write_text(head + "\n".join(rows) + "\n" + tail)


PAGE_HEAD = """\
# Third-party programs on fastsync

<!-- Written by tools/programs/run.py: do not edit. -->

Packages that use threads, unchanged, whose own test suites ran twice in one environment: with
`python -m pytest` and with `python -m fastsync -m pytest`. The outcomes are compared test by test.
{packages} packages, {runs} pairs of runs, {tests} tests.

A test that had another outcome ran again on both sides, three times in all. It *differs* when none
of its outcomes on fastsync was seen on `threading`, and is *flaky* when some were. Failures on both
sides are the suite's own: for want of a network, a service or an optional package. The machine was
busy; the counts are those of the first run of each side. *(the first N s)*: the run took longer and
was interrupted, and the tests that both sides had reached are compared and counted.

| package | what was run | on `threading` | on fastsync | flaky | build |
|---|---|---|---|---|---|
"""
PAGE_TAIL = """
## To repeat it

```sh
make test-programs
make test-programs ARGS="trio pebble"
make test-programs ARGS=--report
```

Results are kept outside the checkout, in `~/.cache/fastsync/programs`, so that a run that was ended
goes on; `ARGS=--fresh` begins anew, and `--report` writes this page.
`tools/programs/packages.toml` has what each suite needs.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--build", action="append", metavar="free|gil=ENVIRONMENT")
    parser.add_argument(
        "--limit",
        type=int,
        default=LIMIT,
        metavar="SECONDS",
        help="for a run of a suite, if packages.toml sets no other (%(default)s); then it is "
        "interrupted, and the tests that both sides reached are compared",
    )
    parser.add_argument("--fresh", action="store_true", help="run again what has a result")
    parser.add_argument("--report", action="store_true", help="only write docs/compatibility.md")
    chosen = parser.parse_args()
    known = packages()
    unknown = [name for name in chosen.names if name not in known]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    given = chosen.build or [f"{build}={folder}" for build, folder in BUILDS.items()]
    builds = {build: Path(folder) for build, _, folder in (text.partition("=") for text in given)}
    same = True
    for name in [] if chosen.report else chosen.names or known:
        for build in known[name].get("builds", list(BUILDS)):
            if build in builds:
                if chosen.fresh:
                    kept(name, build).unlink(missing_ok=True)
                package = {"limit": chosen.limit} | known[name] | known[name].get(build, {})
                same &= run_one(name, package, build, builds[build].absolute())
    if chosen.report or not chosen.names:
        write_page()
    sys.exit(not same)


if __name__ == "__main__":
    main()
