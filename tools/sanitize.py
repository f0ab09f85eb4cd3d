#!/usr/bin/env python3
"""Run the storms of tests/sanitize, and the suite, under a sanitizer.

    python tools/sanitize.py thread    ThreadSanitizer; then once more with a planted race,
                                       which must be reported, so that silence means something
    python tools/sanitize.py address   AddressSanitizer with leak detection, and UBSan

The interpreter is an ordinary one: only our extensions are instrumented, the compiler's
runtime is preloaded, and address randomization is off.
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUPPRESSIONS = ROOT / "tests" / "sanitize"

STORMS = """
import sys, time
sys.path[:0] = sys.argv[1:2]
import nogil_storm
rounds = int(sys.argv[2])
for name in nogil_storm.NAMES:
    for threads in (2, 4):
        began = time.monotonic()
        got, expected = nogil_storm.storm(name, threads, rounds)
        print(f"  {name} x {threads}: {time.monotonic() - began:.1f} s", flush=True)
        assert got == expected, (name, got, expected)
print("storms agree")
"""


# Tests of other builds than the one at hand: they compile, or look at what is installed.
BUILDERS = ["test_cimport.py", "test_package.py", "test_trials.py"]

# What the storms import.
STORMED = "parking locks slots trace rwlock _pin"


def build(kind, folder, defines="", only=STORMED):
    """The package and the storm module, instrumented, importable from `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    environment = dict(
        os.environ, FASTSYNC_SANITIZE=kind, FASTSYNC_DEFINES=defines, FASTSYNC_ONLY=only
    )
    quiet = {"cwd": ROOT, "env": environment, "stdout": subprocess.DEVNULL, "check": True}
    subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--build-lib", folder], **quiet)
    for path in (ROOT / "fastsync").rglob("*"):
        if path.suffix in (".py", ".pxd", ".h"):
            target = folder / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    compile_storm(kind, folder, defines)


def compile_storm(kind, folder, defines):
    source = ROOT / "tests" / "sanitize" / "nogil_storm.pyx"
    generated = folder / "nogil_storm.c"
    subprocess.run(
        [sys.executable, "-m", "cython", "-3", "-I", folder, source, "-o", generated], check=True
    )
    output = folder / f"nogil_storm{sysconfig.get_config_var('EXT_SUFFIX')}"
    flags = f"-shared -fPIC -O1 -g -pthread -fsanitize={kind}".split()
    flags += [f"-D{name}" for name in defines.split()]
    flags += [f"-I{folder}/fastsync/include", f"-I{sysconfig.get_path('include')}"]
    subprocess.run(["cc", *flags, generated, "-o", output], check=True)


def runtime(name):
    found = subprocess.run(["cc", f"-print-file-name={name}"], capture_output=True, text=True)
    return os.path.realpath(found.stdout.strip())


def run(kind, folder, code_arguments):
    """One instrumented interpreter: its exit status and what it printed.

    It runs in an empty folder: the checkout's package would hide the instrumented one.
    """
    libraries = {"thread": "libtsan.so", "address": "libasan.so"}
    options = {
        "TSAN_OPTIONS": f"exitcode=66:suppressions={SUPPRESSIONS / 'tsan.supp'}:history_size=7",
        "ASAN_OPTIONS": "detect_leaks=1:exitcode=66",
        "LSAN_OPTIONS": f"suppressions={SUPPRESSIONS / 'lsan.supp'}:print_suppressions=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }
    environment = dict(
        os.environ, LD_PRELOAD=runtime(libraries[kind]), PYTHONPATH=str(folder), **options
    )
    command = ["setarch", "-R", sys.executable, *map(str, code_arguments)]
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(
            command,
            env=environment,
            text=True,
            cwd=empty,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    return done.returncode, done.stdout


def storms(kind, folder, rounds):
    return run(kind, folder, ["-c", STORMS, folder, rounds])


def check_thread(rounds, repeats):
    clean, planted = ROOT / "build" / "tsan", ROOT / "build" / "tsan-planted"
    build("thread", clean)
    for _ in range(repeats):
        status, output = storms("thread", clean, rounds)
        print(output, flush=True)
        if status:
            return f"ThreadSanitizer or a storm complained (status {status})"
    build("thread", planted, "FS_PLANT_RACE=1")
    for _ in range(repeats + 3):
        status, output = storms("thread", planted, rounds)
        if status == 66:
            print("the planted race (an unlock that does not release) was reported")
            return ""
    return "the planted race was not reported: the job proves nothing"


def check_address(rounds):
    folder = ROOT / "build" / "asan"
    build("address,undefined", folder, only="")
    status, output = storms("address", folder, rounds)
    print(output, flush=True)
    if status:
        return f"AddressSanitizer or a storm complained (status {status})"
    suite = ["-P", "-m", "pytest", "-q", "-c", ROOT / "pyproject.toml", "--rootdir", ROOT]
    suite += ["-n", "auto", "--dist", "loadgroup", ROOT / "tests"]
    suite += [f"--ignore={ROOT / 'tests' / name}" for name in BUILDERS]
    status, output = run("address", folder, suite)
    print(output[-8000:], flush=True)
    return f"the suite failed under AddressSanitizer (status {status})" if status else ""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=["thread", "address"])
    parser.add_argument("--rounds", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    if options.kind == "thread":
        problem = check_thread(options.rounds, options.repeats)
    else:
        problem = check_address(options.rounds)
    print(problem or f"{options.kind} sanitizer: clean")
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
