"""Build the extension modules; everything else about the package is in pyproject.toml.

Switches, all environment variables:
    FASTSYNC_DEBUG=1                  no optimization, debug symbols, assertions
    FASTSYNC_SANITIZE=thread|address  instrument the extensions; more words go to the compiler too
    FASTSYNC_WAIT=pthread             sleep on pthread conditions instead of the platform's own wait
    FASTSYNC_DEFINES="NAME=1 OTHER"   more C macros
    FASTSYNC_ONLY="slots raw.mutex"   these modules and no others, named from fastsync on
"""

import contextlib
import os
import sys
import sysconfig
import tempfile
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import LinkError

DEBUG = os.environ.get("FASTSYNC_DEBUG", "0") not in ("", "0")
SANITIZE = os.environ.get("FASTSYNC_SANITIZE", "").split()
WAIT = os.environ.get("FASTSYNC_WAIT", "")
DEFINES = os.environ.get("FASTSYNC_DEFINES", "").split()
ONLY = os.environ.get("FASTSYNC_ONLY", "").split()

# Objects built with other switches must never pass for up to date: one folder for each set.
SWITCHES = "-".join(filter(None, ["debug" * DEBUG, *SANITIZE, WAIT, *DEFINES])) or "plain"

DIRECTIVES = {
    "language_level": 3,
    "freethreading_compatible": True,  # without it the import turns the GIL back on
    "binding": False,  # plain method descriptors: immortal on 3.13t, so they scale
    "embedsignature": True,
    "embedsignature.format": "clinic",
    "auto_pickle": False,  # a lock's state must never be copied
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
}

MACROS = [(name, value or "1") for name, _, value in (word.partition("=") for word in DEFINES)]
MACROS += [(f"FS_FORCE_WAIT_{WAIT.upper()}", "1")] if WAIT else []
MACROS += [("FS_DEBUG", "1")] if DEBUG else []
if sysconfig.get_config_var("Py_DEBUG") or "--with-assertions" in str(
    sysconfig.get_config_var("CONFIG_ARGS")
):
    MACROS.append(("FS_PYTHON_ASSERTS", "1"))  # see slots.pyx
if os.name == "nt" and sysconfig.get_config_var("Py_GIL_DISABLED"):
    MACROS.append(("Py_GIL_DISABLED", "1"))  # both builds share their headers on Windows

PLAIN = not (DEBUG or SANITIZE)
SANITIZER = [f"-fsanitize={SANITIZE[0]}", *SANITIZE[1:]] if SANITIZE else []
UNIX = ["-std=c11", "-fvisibility=hidden", "-pthread", "-Wall", *SANITIZER]
UNIX += ["-include", "fastsync/no_frames.h"]
UNIX += ["-Werror=implicit-function-declaration", "-Werror=incompatible-pointer-types"]
UNIX += ["-g0", "-O2"] if PLAIN else ["-g3", "-O0" if DEBUG else "-O1", "-UNDEBUG"]
# What no fast path goes through is compiled for size.
SMALL = """_watch.contention _watch.holds _watch.orders _watch.origins _watch.sums _watch.trace capi
    objects._extensible objects._kinds objects._pin objects._slots objects.barrier
    objects.inspection objects.ordering objects.parker objects.select""".split()
UNIX_LINK = ["-pthread", *SANITIZER] + ["-s"] * (PLAIN and sys.platform == "linux")
MSVC = ["/std:c11", "/experimental:c11atomics", "/FIfastsync/no_frames.h"]

# Some processors have no instructions for these; then the compiler calls functions of libatomic.
ATOMICS = """
#include <stdatomic.h>
#include <stdint.h>
_Atomic uint8_t byte; _Atomic uint64_t word; _Atomic(void *) pointer;
int main(void) {
    uint8_t a = 0; uint64_t b = 0; void *c = 0;
    return !(atomic_compare_exchange_strong(&byte, &a, 1)
        & atomic_compare_exchange_strong(&word, &b, atomic_fetch_add(&word, 0))
        & atomic_compare_exchange_strong(&pointer, &c, &a));
}
"""

# What the package takes for granted of the interpreter and no public header says.
INTERNALS = """
#define Py_BUILD_CORE_MODULE 1
#include <Python.h>
#if PY_VERSION_HEX >= 0x030D0000 && __has_include(<internal/pycore_ceval.h>)
#include <internal/pycore_ceval.h>
#include <fastsync/python.h>
_Static_assert(_PY_SIGNALS_PENDING_BIT == FS_SIGNALS_PENDING, "the bit of pending signals");
#endif
"""


def sources():
    """{module: its .pyx} of the package and of all folders in it."""
    paths = sorted(glob("fastsync/**/*.pyx", recursive=True))
    return {os.path.splitext(path)[0].replace(os.sep, "."): path for path in paths}


class BuildExt(build_ext):
    """build_ext with the flags of the compiler in use, two modules at a time."""

    def build_extensions(self):
        self.parallel = self.parallel or 2
        unix = self.compiler.compiler_type != "msvc"
        link = UNIX_LINK if unix else []
        if unix:
            self.probe(INTERNALS)
            link = link + self.libatomic(ATOMICS)
        for extension in self.extensions:
            extension.extra_compile_args = [*UNIX] if unix else MSVC
            if unix and PLAIN and extension.name.removeprefix("fastsync.") in SMALL:
                extension.extra_compile_args.append("-Os")
            extension.extra_link_args = link
        super().build_extensions()

    def probe(self, source, words=None):
        """Compile a small source, and link it if there are words for that."""
        include = sysconfig.get_path("include")
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "probe.c")
            with open(path, "w") as file:
                file.write(source)
            objects = self.compiler.compile(
                [path],
                output_dir=folder,
                include_dirs=["fastsync/include", include, os.path.join(include, "internal")],
                extra_postargs=["-std=c11"],
            )
            if words is not None:
                program = os.path.join(folder, "probe")
                self.compiler.link_executable(objects, program, extra_postargs=words)

    def libatomic(self, source):
        """What the linker must be told for a program with such atomics."""
        for words in ([], ["-latomic"]):
            with contextlib.suppress(LinkError):
                self.probe(source, words)
                return words
        return []  # a cross compiler that links no programs, perhaps


def extensions():
    headers = glob("fastsync/include/fastsync/*.h")
    shared = {
        "include_dirs": ["fastsync/include"],
        "depends": [*headers, "setup.py"],
        "define_macros": MACROS,
    }
    paths = sources()
    names = [f"fastsync.{name}" for name in ONLY] or paths
    modules = [Extension(name, [paths[name]], **shared) for name in names]
    return cythonize(modules, build_dir="build/cython", nthreads=2, compiler_directives=DIRECTIVES)


if __name__ == "__main__":  # cythonize's worker processes may import this file
    setup(
        ext_modules=extensions(),
        cmdclass={"build_ext": BuildExt},
        options={
            "build": {"build_base": f"build/{SWITCHES}"},
            # So that Cython finds the .pxd files of an editable install: by sys.path.
            "editable_wheel": {"mode": "compat"},
        },
    )
