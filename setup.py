"""Build the extension modules; everything else about the package is in pyproject.toml.

Switches, all environment variables:
    FASTSYNC_DEBUG=1                  no optimization, debug symbols, assertions
    FASTSYNC_SANITIZE=thread|address  instrument the extensions; more words go to the compiler too
    FASTSYNC_WAIT=pthread             sleep on pthread conditions instead of the platform's own wait
    FASTSYNC_DEFINES="NAME=1 OTHER"   more C macros
    FASTSYNC_ONLY="slots raw.mutex"   these modules and no others, named from fastsync on
"""

import os
import sys
import sysconfig
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

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
UNIX += ["-g0", "-O3"] if PLAIN else ["-g3", "-O0" if DEBUG else "-O1", "-UNDEBUG"]
UNIX_LINK = ["-pthread", *SANITIZER] + ["-s"] * (PLAIN and sys.platform == "linux")
MSVC = ["/std:c11", "/experimental:c11atomics", "/FIfastsync/no_frames.h"]


def sources():
    """{module: its .pyx} of the package and of all folders in it."""
    paths = sorted(glob("fastsync/**/*.pyx", recursive=True))
    return {os.path.splitext(path)[0].replace(os.sep, "."): path for path in paths}


class BuildExt(build_ext):
    """build_ext with the flags of the compiler in use, two modules at a time."""

    def build_extensions(self):
        self.parallel = self.parallel or 2
        unix = self.compiler.compiler_type != "msvc"
        for extension in self.extensions:
            extension.extra_compile_args = UNIX if unix else MSVC
            extension.extra_link_args = UNIX_LINK if unix else []
        super().build_extensions()


def extensions():
    headers = glob("fastsync/include/fastsync/*.h")
    shared = {"include_dirs": ["fastsync/include"], "depends": headers, "define_macros": MACROS}
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
