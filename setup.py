"""Build the extension modules; everything else about the package is in pyproject.toml.

Switches, all environment variables:
    FASTSYNC_DEBUG=1                  no optimization, debug symbols, assertions
    FASTSYNC_SANITIZE=thread|address  instrument the extensions; more words go to the compiler too
    FASTSYNC_WAIT=pthread             sleep on pthread conditions instead of the platform's own wait
    FASTSYNC_DEFINES="NAME=1 OTHER"   more C macros
    FASTSYNC_ONLY="parking locks"     these modules and no others
"""

import os
import re
import sys
import sysconfig
import tomllib
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
if os.name == "nt" and sysconfig.get_config_var("Py_GIL_DISABLED"):
    MACROS.append(("Py_GIL_DISABLED", "1"))  # both builds share their headers on Windows

PXD = sorted(glob("fastsync/*.pxd"))

PLAIN = not (DEBUG or SANITIZE)
SANITIZER = [f"-fsanitize={SANITIZE[0]}", *SANITIZE[1:]] if SANITIZE else []
UNIX = ["-std=c11", "-fvisibility=hidden", "-pthread", "-Wall", *SANITIZER]
UNIX += ["-Werror=implicit-function-declaration", "-Werror=incompatible-pointer-types"]
UNIX += ["-g0", "-O3"] if PLAIN else ["-g3", "-O0" if DEBUG else "-O1", "-UNDEBUG"]
UNIX_LINK = ["-pthread", *SANITIZER] + ["-s"] * (PLAIN and sys.platform == "linux")
MSVC = ["/std:c11", "/experimental:c11atomics"]


def stamp():
    """Copy pyproject's version to where compilers and programs look for it.

    The series, "0.1", is in the C names of what other packages compile against: extensions made
    for another series cannot be imported (c_version.pxd and, for functions, fs_key in parking.pxd
    say how).
    """
    with open("pyproject.toml", "rb") as file:
        version = tomllib.load(file)["project"]["version"]
    numbers = re.findall(r"\d+", version)[:3]
    series = numbers[:2]
    header = "fastsync/include/fastsync/version.h"
    named = [*PXD, "fastsync/include/fastsync/words.h"]
    copies = [(path, r"fastsync_\d+_\d+_", "fastsync_{}_{}_".format(*series)) for path in named]
    copies += [
        ("fastsync/c_version.pxd", r"compiled_for_[\d_]+", "compiled_for_" + "_".join(numbers)),
        ("fastsync/__init__.py", r'__version__ = ".*"', f'__version__ = "{version}"'),
        ("fastsync/__init__.py", r"_NUMBERS = .*", "_NUMBERS = ({}, {}, {})".format(*numbers)),
        (header, r"compiled_for_[\d_]+", "compiled_for_" + "_".join(numbers)),
        (header, r'FASTSYNC_VERSION ".*"', f'FASTSYNC_VERSION "{version}"'),
    ]
    for path, pattern, text in copies:
        with open(path, encoding="utf-8") as file:
            old = file.read()
        new = re.sub(pattern, text, old)
        if new != old:
            with open(path, "w", encoding="utf-8") as file:
                file.write(new)


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
    stamp()
    headers = glob("fastsync/include/fastsync/*.h")
    shared = {"include_dirs": ["fastsync/include"], "depends": headers, "define_macros": MACROS}
    names = ONLY or sorted(os.path.basename(path)[:-4] for path in glob("fastsync/*.pyx"))
    modules = [Extension(f"fastsync.{name}", [f"fastsync/{name}.pyx"], **shared) for name in names]
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
