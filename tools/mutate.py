#!/usr/bin/env python3
"""Break the locks on purpose, one way at a time, and see who notices.

Each of tools/mutants.txt is applied to a copy of the tree, which is built and given to the tests
that should see it, then to the short ThreadSanitizer form. A mutant that survives both is either
no mistake or a gap in the suite.

    python tools/mutate.py [WORD ...]     those whose description has one of the words; else all
    python tools/mutate.py --check        see that each can be applied, and no more
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import cache
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
    """(what, tests, changes) of each; a change is where it is and two texts of whole lines."""
    found = []
    for block in (ROOT / "tools" / "mutants.txt").read_text().split("\n\n"):
        lines = block.strip("\n").splitlines()
        if lines[0].startswith("= "):
            what, where, tests = (part.strip() for part in lines.pop(0)[2:].split("|"))
            found.append((what, tests, []))
        elif not lines[0].startswith(("@ ", "- ")):
            continue  # the explanation
        if lines[0].startswith("@ "):
            where = lines.pop(0)[2:]
        sides = ("".join(line[2:] + "\n" for line in lines if line[0] == sign) for sign in "-+")
        found[-1][-1].append((where, *sides))
    return found


# -- where a function is -------------------------------------------------------

# "cdef inline int f(", "    def f(", "class C(", "cdef class C:"; in C "static inline int f(".
PYTHON = re.compile(r"( *)(?:async |cdef |cpdef )?(?:(class) (\w+)|(?:def |.*?)\b(\w+)\()")
C = re.compile(r"(?! )(?:#define )?[\w* ]*?\b(\w+)\(")


@cache
def regions(text, suffix):
    """[(name, first line, line after the last)] of each function and class; "C.f" is a method."""
    return list(find_regions(text, suffix))


def find_regions(text, suffix):
    """The same, one at a time."""
    lines = text.split("\n")
    scope = []  # (indentation, name) of the classes around
    for at, line in enumerate(lines):
        if suffix == ".h":
            if (match := C.match(line)) and (end := end_in_c(lines, at)):
                yield match[1], at, end
            continue
        match = PYTHON.match(line)
        if not match or not re.match(r" *(async |def |cdef |cpdef |class )", line):
            continue
        indentation = len(match[1])
        scope = [(i, name) for i, name in scope if i < indentation]
        name = ".".join([*(n for _, n in scope), match[3] or match[4]])
        if end := end_in_python(lines, at, indentation):
            if match[2]:
                scope.append((indentation, match[3]))
            yield name, at, end


def end_in_python(lines, at, indentation):
    """Where the block that begins at line `at` ends; 0 when it is a declaration without one."""
    depth = 0
    while True:  # to the end of the signature
        code = lines[at].partition("#")[0].rstrip()
        depth += sum(code.count(c) for c in "([") - sum(code.count(c) for c in ")]")
        at += 1
        if depth == 0:
            break
    if not code.endswith(":"):
        return 0
    end = at
    for number, line in enumerate(lines[at:], at):
        if line.strip():
            if len(line) - len(line.lstrip()) <= indentation and not line.startswith(("#", ")")):
                break
            if not line.startswith("#"):
                end = number + 1
    return end


def end_in_c(lines, at):
    """As end_in_python; of a macro, its last line."""
    depth = 0
    for end in range(at, len(lines)):
        line = lines[end]
        if lines[at].startswith("#define"):
            if not line.endswith("\\"):
                return end + 1
            continue
        opened = depth > 0 or "{" in line
        depth += line.count("{") - line.count("}")
        if depth == 0 and (opened or ";" in line):
            return end + 1 if opened else 0
    return 0


class Tree:
    """The sources of the package in a folder, and what changes in them."""

    def __init__(self, folder):
        self.package = folder / "fastsync"
        self.texts = {
            path.relative_to(self.package).as_posix(): path.read_text()
            for path in sorted(self.package.rglob("*.*"))
            if path.suffix in (".pyx", ".pxd", ".py", ".h")
        }
        self.changed = {}

    def places(self, where):
        """(file, first line, line after the last): a file, or all functions of that name.

        "wait_linux.h:fs_waitword_wait" is the one of that file.
        """
        file, _, where = where.rpartition(":")
        if where in self.texts:
            return [(where, 0, self.texts[where].count("\n") + 1)]
        return [
            (name, first, last)
            for name, text in self.texts.items()
            if name.endswith(file)
            if where.rpartition(".")[2] in text
            for function, first, last in regions(text, Path(name).suffix)
            if function == where
        ]

    def change(self, where, old, new):
        """Put `new` in the place of `old`, which is there once."""
        found = []
        for name, first, last in self.places(where):
            lines = self.changed.get(name, self.texts[name]).split("\n")
            if name in self.changed:  # the first change may have moved the function
                (first, last) = self.moved(name, where, (first, last))
            inside = "\n".join(lines[first:last]) + "\n"
            found += [(name, lines, first, last, inside)] * inside.count(old)
        if len(found) != 1:
            raise SystemExit(f"{where} has {len(found)} times:\n{old}")
        name, lines, first, last, inside = found[0]
        lines[first:last] = inside.replace(old, new)[:-1].split("\n")
        self.changed[name] = with_atomics("\n".join(lines), new, self.texts)

    def moved(self, name, where, found):
        text = self.changed[name]
        if where == name:
            return 0, text.count("\n") + 1
        where = where.rpartition(":")[2]
        again = [r[1:] for r in regions(text, Path(name).suffix) if r[0] == where]
        before = [r[1:] for r in regions(self.texts[name], Path(name).suffix) if r[0] == where]
        return again[before.index(found)]

    def write(self):
        for name, text in self.changed.items():
            (self.package / name).write_text(text)


def with_atomics(text, new, texts):
    """The text with a declaration of the atomic operations that only the mutant uses."""
    known = "\n".join(declared for name, declared in texts.items() if "c_atomic" in name)
    for operation in sorted(set(re.findall(r"\bfs_[a-z]+\d*_\w+(?=\()", new))):
        if len(re.findall(rf"\b{operation}\b", text)) > len(re.findall(rf"\b{operation}\b", new)):
            continue
        # One that no .pxd has is declared as its siblings of other orders are.
        sibling = re.escape(operation.rpartition("_")[0])
        for pattern in (rf"\b{operation}", rf"\b{sibling}", rf"\b{sibling}_\w+"):
            declaration = rf"(?m)^ +((?:const )?\w+[ *]+){pattern}(\(.*\)(?: noexcept.*)?)$"
            if line := re.search(declaration, known + text):
                extern = 'cdef extern from "fastsync/atomic_order.h" nogil:\n'
                extern += (
                    f"    {line[1]}{operation}{line[2].partition(' noexcept')[0]} noexcept\n\n"
                )
                text = re.sub(r"(?m)^(?=cdef )", lambda _, extern=extern: extern, text, count=1)
                break
    return text


def mutated(folder, changes):
    """The tree with all changes of a mutant made, not written yet."""
    tree = Tree(folder)
    for where, old, new in changes:
        tree.change(where, old, new)
    return tree


# -- judging -------------------------------------------------------------------


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
    suite += ["-p", "no:cacheprovider", "--tb=no"]
    suite += ["-k", "not another_version"]  # wants fastsync installed, not in PYTHONPATH
    for name in tests.split():
        # All of test_cimport is marked slow: its packages are built.
        kept = [] if name == "cimport" else ["-m", "not slow"]
        # A mutant often hangs: the usual deadline of a test is for busy machines.  What builds
        # packages (cimport) needs it all the same.
        suite += ["-o", f"faulthandler_timeout={90 if name == 'cimport' else 30}"]
        path = tree / "tests" / f"test_{name}.py"
        status, output = run(
            [*suite, *kept, path], empty, LIMITS["tests"], PYTHONPATH=str(tree / "lib")
        )
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


def judge(base, tests, changes):
    tree = SCRATCH / f"tree-{os.getpid()}"
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(base, tree)
    mutated(tree, changes).write()
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
    for _, _, changes in chosen:
        mutated(ROOT, changes)
    print(f"{len(chosen)} mutants", flush=True)
    if options.check:
        return 0
    base = make_base()
    if problem := caught_by_tests(
        base, " ".join(dict.fromkeys(" ".join(m[1] for m in chosen).split()))
    ):
        raise SystemExit(f"without any mutant: {problem}")
    survivors = []
    for what, tests, changes in chosen:
        began = time.monotonic()
        problem = judge(base, tests, changes)
        caught = bool(problem) and not problem.startswith("nothing")
        if not caught:
            survivors.append(what)
        verdict = "CAUGHT by" if caught else "SURVIVED"
        print(
            f"{what} ({changes[0][0]}): {verdict} {problem} [{time.monotonic() - began:.0f} s]",
            flush=True,
        )
    print(f"{len(chosen)} mutants, {len(survivors)} survived", *survivors, sep="\n  ")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
