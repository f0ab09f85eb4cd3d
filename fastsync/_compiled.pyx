"""The compiled modules of the package, all in one file, and their import.

One file where there could be sixty: a fork copies the mappings of each, what Cython writes
into every module is there once, and importing opens one file.  The file is to `fastsync.raw`
and the like what a zip archive is to sys.path: a place with modules in it, in `__path__`.
setup.py writes the table of them, _compiled.h.
"""
from cpython.object cimport PyObject

import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import spec_from_file_location

cdef extern from "Python.h":
    ctypedef struct PyModuleDef:
        pass
    object PyModule_FromDefAndSpec(PyModuleDef*, object)
    PyModuleDef* PyModule_GetDef(object) except NULL
    int PyModule_ExecDef(object, PyModuleDef*) except -1

cdef extern from "_compiled.h":
    """
    #define FS_COMPILED (sizeof(fs_compiled) / sizeof(fs_compiled[0]))
    """
    ctypedef struct fs_module:
        const char* name
        PyObject* (*definition)() except NULL  # what PyInit_... of a module in a file answers
    const fs_module* fs_compiled
    size_t FS_COMPILED

cdef dict places = {fs_compiled[i].name.decode(): i for i in range(FS_COMPILED)}


class Loader(ExtensionFileLoader):
    """Loads a module of the file. What else tools ask of a loader, that of such files answers."""

    def create_module(self, spec):
        cdef size_t place = places[spec.name]
        return PyModule_FromDefAndSpec(<PyModuleDef*>fs_compiled[place].definition(), spec)

    def exec_module(self, module):
        PyModule_ExecDef(module, PyModule_GetDef(module))


class Path(list):
    """The `__path__` of a package: its folder, and its part of the file.

    Programs clear sys.path_importer_cache, which says who imports from a place; so that is
    said again whenever an import looks through the places.
    """

    def __init__(self, package, folders):
        super().__init__([*folders, f"{__file__}/{package}"])
        self.package = package

    def __iter__(self):
        sys.path_importer_cache[f"{__file__}/{self.package}"] = self
        return super().__iter__()

    def find_spec(self, name, target=None):
        if name not in places:
            return None
        return spec_from_file_location(name, __file__, loader=Loader(name, __file__))

    def iter_modules(self, prefix=""):  # for pkgutil
        names = (name.rpartition(".") for name in places)
        return sorted((prefix + name, False) for parent, _, name in names if parent == self.package)
