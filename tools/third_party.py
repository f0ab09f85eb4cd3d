#!/usr/bin/env python3
"""Run the test suites of third-party packages on `threading`, then on fastsync, and compare.

    tools/third_party.py --python python3.13t --work FOLDER NAME...

The packages are unchanged: each one's source distribution is unpacked and its own suite runs twice
in one virtual environment, with `python -m pytest` and with `python -m fastsync -m pytest`. A test
with another outcome is named. Without names, all of SUITES are run. docs/compatibility.md has what
this gave.
"""

import argparse
import collections
import pathlib
import subprocess
import sys
import tarfile
import xml.etree.ElementTree

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
TOOLS = ["Cython>=3.3,<3.4", "setuptools>=77", "pytest", "pytest-timeout"]
PYTEST = ["pytest", "-q", "-p", "no:cacheprovider", "--timeout=120", "-o", "addopts="]

# Name and version: what the tests need beyond the package, and what pytest is told to run.
SUITES = {
    "cachetools==8.0.2": ([], ["tests"]),
    "janus==2.0.0": (["pytest-asyncio"], ["tests"]),
    "pykka==4.5.0": (["pytest-mock"], ["tests"]),
    "waitress==3.0.2": ([], ["tests"]),
}


def run(command, **options):
    print("+", *command, flush=True)
    return subprocess.run(list(map(str, command)), **options)


def environment(work, python):
    """Return the Python of an environment with this checkout and pytest in it."""
    own = work / "venv" / "bin" / "python"
    if not own.exists():
        run([python, "-m", "venv", work / "venv"], check=True)
        run([own, "-m", "pip", "install", "-q", *TOOLS], check=True)
        run([own, "-m", "pip", "install", "-q", "--no-build-isolation", CHECKOUT], check=True)
    return own


def unpack(work, python, requirement):
    """Return the folder of the package's source distribution."""
    folder = work / requirement.replace("==", "-")
    if not any(folder.glob("*.tar.gz")):
        name = requirement.split("==")[0]
        get = ["download", "-q", "--no-deps", "--no-binary", name, "-d", folder, requirement]
        run([python, "-m", "pip", *get], check=True)
        (archive,) = folder.glob("*.tar.gz")
        with tarfile.open(archive) as file:
            file.extractall(folder, filter="data")
    (source,) = (path for path in folder.iterdir() if path.is_dir())
    return source


def outcomes(python, prefix, tests, source, report):
    """Run the suite; return the outcome of each test."""
    report.unlink(missing_ok=True)
    command = [python, "-W", "ignore", *prefix, "-m", *PYTEST, f"--junitxml={report}", *tests]
    with report.with_suffix(".log").open("w") as log:
        try:
            run(command, cwd=source, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=540)
        except subprocess.TimeoutExpired:
            print("  took too long")
    if not report.exists():
        return {}
    found = {}
    for case in xml.etree.ElementTree.parse(report).iter("testcase"):
        names = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        key = f"{case.get('classname')}::{case.get('name')}"
        found[key] = "+".join(names) or "passed"
    return found


def counts(found):
    tally = collections.Counter(found.values())
    return ", ".join(f"{tally[outcome]} {outcome}" for outcome in sorted(tally)) or "no report"


def compare(work, python, requirement):
    """Run both; return whether they have the same outcomes."""
    needs, tests = SUITES[requirement]
    source = unpack(work, python, requirement)
    run([python, "-m", "pip", "install", "-q", requirement, *needs], check=True)
    reports = work / "reports"
    reports.mkdir(exist_ok=True)
    name = requirement.split("==")[0]
    stock = outcomes(python, [], tests, source, reports / f"{name}-stock.xml")
    ours = outcomes(python, ["-m", "fastsync"], tests, source, reports / f"{name}-fastsync.xml")
    print(f"{requirement}: stock {counts(stock)}; fastsync {counts(ours)}")
    for test in sorted(stock.keys() | ours.keys()):
        if stock.get(test) != ours.get(test):
            print(f"  {test}: stock {stock.get(test)}, fastsync {ours.get(test)}")
    return bool(stock) and stock == ours


def main():
    parser = argparse.ArgumentParser(description="Compare suites on threading and on fastsync.")
    parser.add_argument("--python", default=sys.executable, help="the interpreter to use")
    parser.add_argument("--work", required=True, type=pathlib.Path, help="a folder to work in")
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    versions = {requirement.split("==")[0]: requirement for requirement in SUITES}
    unknown = [name for name in options.names if name not in versions]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(versions)}")
    python = environment(work, options.python)
    same = [compare(work, python, versions[name]) for name in options.names or versions]
    sys.exit(not all(same))


if __name__ == "__main__":
    main()
