#!/usr/bin/env python3
"""Run the storms of tests/sanitize, and the suite, under a sanitizer.

    python tools/sanitize.py thread    ThreadSanitizer; then with a planted race, each of several,
                                       which must be reported, so that silence means something
    python tools/sanitize.py address   AddressSanitizer with leak detection, and UBSan; of clang 18
                                       or later, see need_clang()

The interpreter is an ordinary one: only our extensions are instrumented, the compiler's
runtime is preloaded, and address randomization is off.
"""

import argparse
import os
import platform
import re
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
for name in sys.argv[3:] or nogil_storm.PARTS:
    for threads in (2, 4):
        began = time.monotonic()
        # In pieces: much of what can go wrong does so while they begin or end.
        for _ in range(int(sys.argv[2]) // 500):
            problem = nogil_storm.storm(name, threads, 500)
            assert not problem, f"{name}: {problem}"
        print(f"  {name} x {threads}: {time.monotonic() - began:.1f} s", flush=True)
print("storms agree")
"""


# Tests of other builds than the one at hand: they compile, or look at what is installed.
BUILDERS = ["test_cimport.py", "test_package.py", "test_trials.py"]

# Storms of tools/stress.py whose threads share nothing but what was made before they began, and
# what is locked or read once more before it goes: the sanitizer does not see how the interpreter
# passes anything else from thread to thread, nor how it counts references.
SHARING = (
    "lock rlock condition_lock semaphore condition condition_over_rlock permits ping_pong event"
    " condition_over_a_foreign_lock barrier crowd_of_500 tracing signals guards lock_views"
    " readers_and_writers condvar sums"
).split()

# What FS_PLANT_RACE weakens (see atomic.h), and a storm that notices.
RACES = {
    "UNLOCK": ("an unlock does not release", "mutex"),
    "LOCK": ("a lock does not acquire", "mutex"),
    "LOOK": ("a look at a flag does not acquire", "once"),
}


class Toolchain:
    """A compiler with the flags and the runtime of its sanitizer."""

    def __init__(self, kind):
        self.flags, self.environment = [], {}
        if "address" in kind:
            self.use_clang(need_clang())
        else:
            self.compiler = "cc"
            self.runtime = self.find("libtsan.so")

    def use_clang(self, compiler):
        self.compiler = compiler
        self.runtime = self.find(f"libclang_rt.asan-{platform.machine()}.so")
        # Two checks that gcc has not fail in what Cython writes: casts of methods, and NULL plus
        # a count of zero.
        self.flags = ["-shared-libsan", "-fno-sanitize=function,pointer-overflow"]
        if symbolizer := shutil.which(compiler.replace("clang", "llvm-symbolizer")):
            self.environment = {"ASAN_SYMBOLIZER_PATH": symbolizer}

    def find(self, library):
        command = [self.compiler, f"-print-file-name={library}"]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        return os.path.realpath(found.stdout.strip())


def need_clang():
    """The oldest clang from 18 on, with its runtime; root may install one of Debian's.

    The suite forks beside running threads. Up to clang 17, and gcc 14, the sanitizer's allocator
    has no fork handler: what another thread has locked of it stays so in the child, whose next
    thread then hangs before it runs any code of ours.
    """
    names = [f"clang-{version}" for version in range(18, 31)]
    if not any(map(shutil.which, names)) and os.geteuid() == 0 and shutil.which("apt-cache"):
        install_clang(names)
    for name in filter(shutil.which, names):
        return name
    raise SystemExit("clang 18 or later is not installed (Debian: clang-19 libclang-rt-19-dev)")


def install_clang(names):
    quiet = {"stdout": subprocess.DEVNULL, "check": False}
    subprocess.run(["apt-get", "-qq", "update"], **quiet)
    known = subprocess.run(["apt-cache", "pkgnames", "clang-"], capture_output=True, text=True)
    for name in filter(known.stdout.split().__contains__, names):
        print(f"installing {name}", flush=True)
        runtime = re.sub("clang", "libclang-rt", name) + "-dev"
        subprocess.run(["apt-get", "-qq", "install", "-y", name, runtime], **quiet)
        return


def build(kind, folder, defines=""):
    """The package and the storm module, instrumented, importable from `folder`."""
    build_package(kind, folder, defines)
    compile_storm(kind, folder, defines)


def build_package(kind, folder, defines=""):
    """The package alone; of what is there already, only what has changed."""
    environment = dict(os.environ, FASTSYNC_DEFINES=defines)
    if kind:
        tools = Toolchain(kind)
        environment["FASTSYNC_SANITIZE"] = " ".join([kind, *tools.flags])
        environment.update(CC=tools.compiler, LDSHARED=f"{tools.compiler} -shared")
    quiet = {"cwd": ROOT, "env": environment, "stdout": subprocess.DEVNULL, "check": True}
    subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--build-lib", folder], **quiet)
    for path in (ROOT / "fastsync").rglob("*"):
        if path.suffix in (".py", ".pxd", ".h"):
            target = folder / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def compile_storm(kind, folder, defines, package=None):
    """The storm module into `folder`, against the package there or in another one."""
    package = package or folder
    folder.mkdir(parents=True, exist_ok=True)
    source = ROOT / "tests" / "sanitize" / "nogil_storm.pyx"
    generated = folder / "nogil_storm.c"
    subprocess.run(
        [sys.executable, "-m", "cython", "-3", "-I", package, source, "-o", generated], check=True
    )
    output = folder / f"nogil_storm{sysconfig.get_config_var('EXT_SUFFIX')}"
    tools = Toolchain(kind)
    flags = f"-shared -fPIC -O1 -g -pthread -fsanitize={kind}".split() + tools.flags
    flags += [f"-D{name}" for name in defines.split()]
    flags += [f"-I{package}/fastsync/include", f"-I{sysconfig.get_path('include')}"]
    subprocess.run([tools.compiler, *flags, generated, "-o", output], check=True)


def run(kind, folder, code_arguments):
    """One instrumented interpreter: its exit status and what it printed.

    It runs in an empty folder: the checkout's package would hide the instrumented one.
    """
    tools = Toolchain(kind)
    options = {
        "TSAN_OPTIONS": f"exitcode=66:suppressions={SUPPRESSIONS / 'tsan.supp'}:history_size=7",
        "ASAN_OPTIONS": "detect_leaks=1:exitcode=66",
        "LSAN_OPTIONS": f"suppressions={SUPPRESSIONS / 'lsan.supp'}:print_suppressions=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }
    environment = dict(os.environ, LD_PRELOAD=tools.runtime, PYTHONPATH=str(folder), **options)
    environment.update(tools.environment)
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


def storms(kind, folder, rounds, *names):
    return run(kind, folder, ["-P", "-c", STORMS, folder, rounds, *names])


def thread_jobs(folder, rounds, seconds):
    """What is to be silent. `seconds`: of each half of the Python-level storms."""
    yield ["-P", "-c", STORMS, folder, rounds]
    yield [SUPPRESSIONS / "object_storm.py", folder, seconds]
    each = seconds / len(SHARING)
    if each >= 0.5:  # the short form does without
        yield [ROOT / "tools" / "stress.py", "--seconds", each, *SHARING]


def check_thread(rounds, seconds, quick):
    folder = ROOT / "build" / "tsan"
    build("thread", folder)
    for job in thread_jobs(folder, rounds, seconds):
        status, output = run("thread", folder, job)
        print(output, flush=True)
        if status:
            return f"ThreadSanitizer or a storm complained (status {status})"
    return "" if quick else check_races(folder)


def check_races(folder):
    for race, (what, storm) in RACES.items():
        if not race_is_reported(race, storm, folder):
            return f"a planted race ({what}) was not reported: the job proves nothing"
        print(f"the planted race was reported: {what}")
    return ""


def race_is_reported(race, storm, package):
    """The race is in the inlined halves of the locks: the storm module alone is built anew."""
    folder = package.with_name(f"{package.name}-{race.lower()}")
    compile_storm("thread", folder, f"FS_PLANT_RACE=FS_RACE_{race}", package)
    for _ in range(5):
        # `folder` is put before `package` in sys.path.
        status, _ = run("thread", package, ["-P", "-c", STORMS, folder, 4000, storm])
        if status == 66:
            return True
    return False


def check_address(rounds):
    folder = ROOT / "build" / "asan"
    build("address,undefined", folder)
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
    parser.add_argument("--rounds", type=int, help="of each storm in C")
    parser.add_argument("--seconds", type=float, default=60, help="of the storms in Python")
    parser.add_argument("--quick", action="store_true", help="without the planted races")
    options = parser.parse_args()
    if options.kind == "thread":
        problem = check_thread(options.rounds or 40000, options.seconds, options.quick)
    else:
        problem = check_address(options.rounds or 3000)
    print(problem or f"{options.kind} sanitizer: clean")
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
