#!/usr/bin/env python3
"""Break the locks on purpose, one way at a time, and see who notices.

Each of tools/mutants.txt is applied to a copy of the tree, which is built and given to the tests
that should see it, then to the short ThreadSanitizer form. A mutant that survives both is either
no mistake or a gap in the suite.

    python tools/mutate.py [WORD ...]     those whose description has one of the words; else all
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRATCH = ROOT / "build" / "mutants"
TREE = "fastsync tests tools examples docs setup.py pyproject.toml README.md MANIFEST.in".split()
BUILD = (
    "import sys; from pathlib import Path; sys.path.append('tools'); import sanitize;"
    "sanitize.build_package('', Path('lib').resolve())"
)
SANITIZE = "tools/sanitize.py thread --quick --rounds 6000 --seconds 6".split()
LIMITS = {"tests": 420, "sanitizer": 240}  # seconds; a hang that no deadline of the tests ends


def mutants():
    """(what, where, who, changes) of each; a change is two texts of whole lines."""
    found = []
    for block in (ROOT / "tools" / "mutants.txt").read_text().split("\n\n"):
        head, *lines = block.strip("\n").splitlines()
        if head.startswith("= "):
            found.append((*(part.strip() for part in head[2:].split("|")), []))
        elif head.startswith("-"):
            lines.insert(0, head)
        else:
            continue  # the explanation
        sides = ("".join(line[2:] + "\n" for line in lines if line[0] == sign) for sign in "-+")
        found[-1][-1].append(tuple(sides))
    return found


def run(command, folder, limit, **environment):
    """The status, None when it took too long, and the output."""
    process = subprocess.Popen(
        [sys.executable, "-P", *map(str, command)],
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        return None, output
    return process.returncode, output


def must(command, folder):
    status, output = run(command, folder, 600)
    if status:
        raise SystemExit(f"{folder}: {' '.join(map(str, command))}\n{output}")


def make_base():
    """A built copy of the tree: what a mutant does not touch is not compiled again."""
    base = SCRATCH / "base"
    for name in TREE:
        source, target = ROOT / name, base / name
        if source.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            junk = shutil.ignore_patterns("__pycache__", "*.so")
            shutil.copytree(source, target, ignore=junk)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    must(["-c", BUILD], base)
    must(SANITIZE, base)
    return base


def changed(tree, where, changes):
    """The file as the mutant has it."""
    text = (tree / "fastsync" / where).read_text()
    for old, new in changes:
        if text.count(old) != 1:
            raise SystemExit(f"{where} has {text.count(old)} times:\n{old}")
        text = text.replace(old, new)
    return text


def first_failure(output):
    lines = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if not lines and "Timeout" in output:
        return "a deadline: " + output.partition("Timeout")[2].splitlines()[0]
    return lines[0][:150] if lines else output.strip().splitlines()[-1][:150]


def caught_by_tests(tree, tests):
    """By the first of the files that fails."""
    empty = tree / "empty"
    empty.mkdir(exist_ok=True)
    suite = ["-m", "pytest", "-c", tree / "pyproject.toml", "--rootdir", tree, "-x", "-q", "-n", 2]
    suite += ["--dist", "loadgroup", "--max-worker-restart", 0]  # see run_tests.sh
    suite += ["-p", "no:cacheprovider", "--tb=no", "-m", "not slow"]
    suite += ["-k", "not another_version"]  # wants fastsync installed, not in PYTHONPATH
    for name in tests.split():
        # A mutant often hangs: the usual deadline of a test is for busy machines.  What builds
        # packages (cimport) needs it all the same.
        suite += ["-o", f"faulthandler_timeout={90 if name == 'cimport' else 30}"]
        path = tree / "tests" / f"test_{name}.py"
        status, output = run([*suite, path], empty, LIMITS["tests"], PYTHONPATH=str(tree / "lib"))
        if status is None:
            return f"nothing: test_{name} hangs"
        if status:
            return first_failure(output)
    return ""


def caught_by_sanitizer(tree):
    status, output = run(SANITIZE, tree, LIMITS["sanitizer"])
    if status is None:
        return "nothing: the sanitizer's storms hang"
    if not status:
        return ""
    lines = [line for line in output.splitlines() if line.startswith("SUMMARY")]
    return lines[0] if lines else "a storm: " + output.strip().splitlines()[-2][:120]


def judge(base, where, tests, changes):
    tree = SCRATCH / f"tree-{os.getpid()}"
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(base, tree)
    (tree / "fastsync" / where).write_text(changed(tree, where, changes))
    must(["-c", BUILD], tree)  # also for the sanitizer, which builds its own: that it can be built
    return caught_by_tests(tree, tests) or caught_by_sanitizer(tree)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*")
    parser.add_argument("--check", action="store_true", help="see that all can be applied, no more")
    options = parser.parse_args()
    chosen = [m for m in mutants() if not options.words or any(w in m[0] for w in options.words)]
    for _, where, _, changes in chosen:
        changed(ROOT, where, changes)
    print(f"{len(chosen)} mutants", flush=True)
    if options.check:
        return 0
    base = make_base()
    if problem := caught_by_tests(
        base, " ".join(dict.fromkeys(" ".join(m[2] for m in chosen).split()))
    ):
        raise SystemExit(f"without any mutant: {problem}")
    survivors = []
    for what, where, tests, changes in chosen:
        began = time.monotonic()
        problem = judge(base, where, tests, changes)
        caught = bool(problem) and not problem.startswith("nothing")
        if not caught:
            survivors.append(what)
        verdict = "CAUGHT by" if caught else "SURVIVED"
        print(
            f"{what} ({where}): {verdict} {problem} [{time.monotonic() - began:.0f} s]", flush=True
        )
    print(f"{len(chosen)} mutants, {len(survivors)} survived", *survivors, sep="\n  ")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
