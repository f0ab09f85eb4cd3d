"""Build the compiled modules; everything else about the package is in pyproject.toml.

Each .pyx is a module, and all of them are in one file: see fastsync/_compiled.pyx.

Switches, all environment variables:
    FASTSYNC_DEBUG=1                  no optimization, debug symbols, assertions
    FASTSYNC_SANITIZE=thread|address  instrument the extensions; more words go to the compiler too
    FASTSYNC_WAIT=pthread             sleep on pthread conditions instead of the platform's own wait
    FASTSYNC_DEFINES="NAME=1 OTHER"   more C macros
"""

import contextlib
import os
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import LinkError
from setuptools.modified import newer_group

DEBUG = os.environ.get("FASTSYNC_DEBUG", "0") not in ("", "0")
SANITIZE = os.environ.get("FASTSYNC_SANITIZE", "").split()
WAIT = os.environ.get("FASTSYNC_WAIT", "")
DEFINES = os.environ.get("FASTSYNC_DEFINES", "").split()

# Objects built with other switches must never pass for up to date: one folder for each set.
SWITCHES = "-".join(filter(None, ["debug" * DEBUG, *SANITIZE, WAIT, *DEFINES])) or "plain"

COMPILED = "fastsync._compiled"
C_FILES = os.path.join("build", "cython")

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
# Sections: what Cython writes and no module uses is left out.
UNIX += (
    ["-g0", "-O2", "-ffunction-sections", "-fdata-sections"]
    if PLAIN
    else ["-g3", "-O0" if DEBUG else "-O1", "-UNDEBUG"]
)
# What no fast path goes through is compiled for size.
SMALL = """_compiled _watch.contention _watch.holds _watch.orders _watch.origins _watch.sums
    _watch.trace objects._c_table objects._extensible objects._kinds objects._opened objects._pin
    objects._slots objects.barrier objects.inspection objects.lazy_property objects.ordering
    objects.parker objects.select""".split()
UNIX_LINK = ["-pthread", *SANITIZER]
if PLAIN and sys.platform == "linux":
    UNIX_LINK += ["-s", "-Wl,--gc-sections"]
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


def start_of(module):
    """The function that starts a module; only _compiled has the name that Python looks for."""
    return f"PyInit_{'_compiled' if module == COMPILED else module.replace('.', '_')}"


class BuildExt(build_ext):
    """build_ext that compiles what has changed, two modules at a time, and links all into one."""

    def build_extension(self, extension):
        unix = self.compiler.compiler_type != "msvc"
        link = []
        if unix:
            self.probe(INTERNALS)
            link = UNIX_LINK + self.libatomic(ATOMICS)
        with ThreadPoolExecutor(self.parallel or 2) as pool:
            work = [pool.submit(self.compile_module, extension, source, unix)
                    for source in extension.sources]  # fmt: skip
            objects = [done.result() for done in work]
        path = self.get_ext_fullpath(extension.name)
        if self.force or newer_group(objects, path):
            self.compiler.link_shared_object(
                objects,
                path,
                libraries=self.get_libraries(extension),
                extra_postargs=link,
                export_symbols=self.get_export_symbols(extension),
                debug=self.debug,
                build_temp=self.build_temp,
                target_lang="c",
            )

    def compile_module(self, extension, source, unix):
        """Compile the C of one module, if it has changed; the object file."""
        module = os.path.splitext(os.path.relpath(source, C_FILES))[0].replace(os.sep, ".")
        (target,) = self.compiler.object_filenames([source], output_dir=self.build_temp)
        if self.force or newer_group([source, *extension.depends], target):
            usual = f"PyInit_{module.rpartition('.')[2]}"
            small = unix and PLAIN and module.removeprefix("fastsync.") in SMALL
            self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                macros=[*MACROS, *extension.own_macros[source], (usual, start_of(module))],
                include_dirs=extension.include_dirs,
                debug=self.debug,
                extra_postargs=(UNIX if unix else MSVC) + ["-Os"] * small,
            )
        return target

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


def write_table(folder):
    """_compiled.h, beside the C of _compiled.pyx: what that knows of the other modules."""
    modules = [name for name in sources() if name != COMPILED]
    text = "".join(f"PyObject *{start_of(module)}(void);\n" for module in modules)
    text += "typedef struct { const char *name; PyObject *(*definition)(void); } fs_module;\n"
    text += "static const fs_module fs_compiled[] = {\n"
    text += "".join(f'    {{"{module}", {start_of(module)}}},\n' for module in modules) + "};\n"
    path = os.path.join(folder, "fastsync", "_compiled.h")
    with contextlib.suppress(FileNotFoundError), open(path) as file:
        if file.read() == text:
            return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


def extensions():
    paths = sources()
    modules = [Extension(name, [path], include_dirs=["fastsync/include"])
               for name, path in paths.items()]  # fmt: skip
    modules = cythonize(modules, build_dir=C_FILES, nthreads=2, compiler_directives=DIRECTIVES)
    write_table(C_FILES)
    headers = glob("fastsync/include/fastsync/*.h") + glob(f"{C_FILES}/fastsync/*.h")
    # What a `# distutils:` line of a .pyx defines is for that module alone.
    own_macros = {module.sources[0]: module.define_macros for module in modules}
    whole = Extension(
        COMPILED, [*own_macros], include_dirs=["fastsync/include"], depends=[*headers, "setup.py"]
    )
    whole.own_macros = own_macros
    return [whole]


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
