#!/usr/bin/env python3
"""Before a commit: style, Cython's warnings, types, and the fast tests of what has changed.

    python tools/check.py [BASE]

Changed is what differs from the commit BASE, committed or not: without it, from where this branch
left the remote's main. A minute at most, for a change of one family.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GIL, FREE = ".venv-gil", ".venv"

# Tests of a source file, by its name without suffix; one that is not here has tests of that name.
TESTS = {
    "parking": "lock condition rwlock signals parker",
    "mutex": "lock mutex condvar",
    "remutex": "rlock mutex",
    "_extensible": "condition semaphore event barrier subclasses",
    "condvar": "condition condvar",
    "word": "atomics array",
    "atomics": "atomics array",
    "cell": "cell arc",
    "trace": "deadlock detector_switches",
    "holds": "deadlock detector_switches",
    "orders": "deadlock",
    "origins": "deadlock",
    "install": "install threading_module",
    "children": "install runner",
    "_slots": "lock mutex once rwlock package",
    "_timeouts": "lock mutex rwlock",
    "_c_table": "cimport",
    "words": "cimport",
    "__init__": "package",
}
HEADERS = "lock rwlock atomics cimport"


def output(*command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()


def changed_files(base):
    base = base or output("git", "merge-base", "HEAD", "origin/main") or "HEAD"
    listed = output("git", "diff", "--name-only", base).splitlines()
    listed += output("git", "ls-files", "--others", "--exclude-standard").splitlines()
    return sorted({name for name in listed if (ROOT / name).exists()})


def tests_of(changed):
    """The test files to run."""
    names = []
    for path in map(Path, changed):
        if path.parent.name == "tests" and path.name.startswith("test_"):
            names.append(path.stem.removeprefix("test_"))
        elif path.parts[0] == "fastsync":
            names += (HEADERS if path.suffix == ".h" else TESTS.get(path.stem, path.stem)).split()
            names.append("layers")
        elif path.parts[0] == "docs":
            names.append("docs")
    files = [f"tests/test_{name}.py" for name in dict.fromkeys(names)]
    return [name for name in files if (ROOT / name).exists()]


def check(label, *command):
    """Run it; say and return whether it has failed."""
    failed = subprocess.run(command, cwd=ROOT).returncode != 0
    print(f"{label}: {'FAILED' if failed else 'ok'}", flush=True)
    return failed


def main():
    changed = changed_files(sys.argv[1] if len(sys.argv) > 1 else "")
    sources = [name for name in changed if name.startswith("fastsync/")]
    cython = [name for name in sources if name.endswith((".pyx", ".pxd"))]
    typed = [name for name in sources if name.endswith((".pyi", ".pyx", ".py"))]
    python = f"{GIL}/bin/python"
    bad = check("ruff", "tools/lint.sh", GIL, "ruff")
    bad |= check("version", python, "tools/release.py", "--check")
    if sources or "tools/mutants.txt" in changed:
        bad |= check("mutants", python, "tools/mutate.py", "--check")
    if pyx := [name[:-1] + "x" for name in cython if (ROOT / (name[:-1] + "x")).exists()]:
        bad |= check("cython", python, "tools/check_cython.py", *sorted(set(pyx)))
    if typed:
        bad |= check("build with the GIL", "tools/environment.sh", GIL, "gil")
        bad |= check("types", "tools/lint.sh", GIL, "stubtest")
    if tests := tests_of(changed):
        bad |= check("build", "tools/environment.sh", FREE, "free")
        command = ["tools/run_tests.sh", FREE, "--", "-q", "-m", "not slow and not stress", *tests]
        bad |= check("tests", *command)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
