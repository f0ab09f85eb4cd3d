from Cython.Build import cythonize
from setuptools import Extension, setup

import fastsync

folders = [fastsync.get_include(), "."]
strict = ["-Werror=incompatible-pointer-types"]
extensions = [
    Extension(
        "fs_user_mixed_c",
        ["fs_user_mixed_c.pyx"],
        include_dirs=folders,
        extra_compile_args=strict,
    ),
    Extension(
        "fs_user_mixed_cpp",
        ["fs_user_mixed_cpp.pyx"],
        include_dirs=folders,
        language="c++",
        extra_compile_args=["-std=c++20"],
    ),
]
directives = {"freethreading_compatible": True, "language_level": 3}
setup(
    name="fs-user-mixed",
    version="1.0",
    py_modules=[],
    ext_modules=cythonize(extensions, nthreads=2, compiler_directives=directives),
)
