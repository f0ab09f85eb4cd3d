#!/usr/bin/env python3
"""Check the Promela models of tests/models with spin, exhaustively, and their mutants.

A line that ends in `//! other` is safety-relevant.  Each is replaced by `other` in turn, and
the model that includes it must then fail: otherwise the model would not notice its absence.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

MODELS = Path(__file__).resolve().parent.parent / "tests" / "models"
MUTABLE = re.compile(r"^(?P<code>.*?)\s*//!\s*(?P<other>.*)$")


def run(model, folder, effort):
    """What the verifier found, "" for nothing, else its first complaint; and in how many states."""
    compiler = f"cc {effort} -DSAFETY -DMEMLIM=4096 -DVECTORSZ=2048 -DCOLLAPSE -o pan pan.c"
    make = [["spin", "-a", model], compiler.split()]
    for command in make:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    out = subprocess.run(
        ["./pan", "-m2000000", "-n"], cwd=folder, capture_output=True, text=True
    ).stdout
    if "max search depth too small" in out or "out of memory" in out:
        raise SystemExit(f"{model}: not exhaustive\n{out}")
    failed = re.search(r"^pan:\d+: (.*)$", out, re.M)
    states = re.search(r"^\s*(\S+) states, stored", out, re.M)
    return (failed[1] if failed else ""), (states[1] if states else "no")


def check(model, name=None, number=None):
    """Check a model, or its mutant that differs in one line of one file."""
    with tempfile.TemporaryDirectory() as folder:
        for source in MODELS.iterdir():
            lines = source.read_text().splitlines()
            if source.name == name:
                lines[number] = MUTABLE.match(lines[number])["other"]
            kept = [MUTABLE.sub(r"\g<code>", line) for line in lines]
            Path(folder, source.name).write_text("\n".join(kept) + "\n")
        # A mutant fails soon: compiling it well would take longer than running it.
        return run(model, folder, "-O1" if name is None else "-O0")


def need_spin():
    """spin is a Debian package; root may install it, everybody else is told."""
    if not shutil.which("spin") and os.geteuid() == 0 and shutil.which("apt-get"):
        print("installing spin", flush=True)
        for words in (["update"], ["install", "-y", "spin"]):
            subprocess.run(["apt-get", "-qq", *words], stdout=subprocess.DEVNULL, check=False)
    if not shutil.which("spin"):
        raise SystemExit("spin is not installed (Debian: apt-get install spin)")


def includes(name):
    """The files that make a model: it, and what it and these include."""
    names = re.findall(r'^#include "(\S+)"', (MODELS / name).read_text(), re.M)
    return {name}.union(*map(includes, names))


def mutants(models):
    """Each mutable line once, with the models that include it, its own first.

    Of a file that several models include only when all of them are there to notice."""
    everything = len(models) == len(list(MODELS.glob("*.pml")))
    for path in sorted(MODELS.glob("*" if everything else "*.pml")):
        users = [model for model in models if path.name in includes(model)]
        users.sort(key=lambda model: not model.startswith(path.stem + "."))
        for number, line in enumerate(path.read_text().splitlines()):
            if users and MUTABLE.match(line):
                yield path.name, number, users


def check_mutant(name, number, models):
    for model in models:
        failed, _ = check(model, name, number)
        if failed:
            return f"{model} fails, as it must: {failed}"
    return "NOT NOTICED"


def check_all(models, pool):
    """Print what each model says; the models that hold, the smallest first."""
    holds = []
    for model, (failed, states) in zip(models, pool.map(check, models), strict=True):
        print(f"{model}: {failed or f'holds in all of {states} states'}", flush=True)
        if not failed:
            holds.append((float(states), model))
    return [model for _, model in sorted(holds)]


def check_mutants(models, pool):
    """Print what notices each mutant; how many there are, and how many nothing notices."""
    parts = [
        (name, number, pool.submit(check_mutant, name, number, users))
        for name, number, users in mutants(models)
    ]
    missed = 0
    for name, number, job in parts:
        print(f"  without {name}:{number + 1}: {job.result()}", flush=True)
        missed += job.result() == "NOT NOTICED"
    return len(parts), missed


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help="file names; all when none")
    options = parser.parse_args()
    need_spin()
    models = options.models or sorted(path.name for path in MODELS.glob("*.pml"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        good = check_all(models, pool)
        count, missed = check_mutants(good, pool)
    wrong = len(models) - len(good) + missed
    print(f"{len(models)} models, {count} mutants, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
