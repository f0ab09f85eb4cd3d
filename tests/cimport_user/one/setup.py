from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

import fastsync

extensions = [
    Extension(
        path[:-4].replace("/", "."),
        [path],
        include_dirs=[fastsync.get_include()],
    )
    for path in sorted(glob("fs_user_one/*.pyx"))
]
setup(ext_modules=cythonize(extensions, nthreads=2))
