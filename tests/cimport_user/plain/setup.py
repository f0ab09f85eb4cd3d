from setuptools import Extension, setup

import fastsync

shared = {"include_dirs": [fastsync.get_include()]}
setup(
    name="fs-user-plain",
    version="1.0",
    py_modules=[],
    ext_modules=[
        Extension("fs_user_c", ["counter.c", "other.c"], **shared),
        Extension("fs_user_cpp", ["counter.cpp"], language="c++", **shared),
    ],
)
