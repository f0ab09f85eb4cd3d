from pybind11.setup_helpers import Pybind11Extension
from setuptools import setup

import fastsync

extension = Pybind11Extension(
    "fs_user_pybind", ["tally.cpp"], include_dirs=[fastsync.get_include()]
)
setup(name="fs-user-pybind", version="1.0", py_modules=[], ext_modules=[extension])
