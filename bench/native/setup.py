"""Build loops.pyx, the C side of `make bench-native`, against the installed fastsync."""

import loops
from Cython.Build import cythonize
from setuptools import Extension, setup

import fastsync

# A loop of a few instructions takes twice as long where it crosses a cache line.
ALIGNED = ["-falign-loops=64", "-falign-jumps=64"]

with open("loops.pyx", "w") as file:
    file.write(loops.source())

setup(
    name="fastsync-bench-native",
    ext_modules=cythonize(
        [
            Extension(
                "loops_native",
                ["loops.pyx"],
                include_dirs=[fastsync.get_include()],
                extra_compile_args=["-O3", "-pthread", *ALIGNED],
            )
        ],
        compiler_directives={"language_level": 3, "freethreading_compatible": True},
    ),
)
