from Cython.Build import cythonize
from setuptools import Extension, setup

import fastsync

setup(
    ext_modules=cythonize(
        Extension("histogram", ["histogram.pyx"], include_dirs=[fastsync.get_include()])
    )
)
