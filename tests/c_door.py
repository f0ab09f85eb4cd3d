"""The functions of the C API's table, called by name with ctypes."""

import ctypes
import re
from pathlib import Path

import fastsync
from fastsync import capi

NAMES = re.findall(
    r"\(\*(\w+)\)\(",
    re.search(
        r"typedef struct \{\n    const char \*version;(.*?)\} fs_table;",
        Path(fastsync.get_include(), "fastsync", "fastsync.h").read_text(),
        re.S,
    )[1],
)


def c_function(name, result, *arguments):
    """An entry of the C API's table; called with the thread state attached."""
    address = ctypes.pythonapi.PyCapsule_GetPointer
    address.restype, address.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = ctypes.cast(
        address(capi.table, b"fastsync.capi.table"), ctypes.POINTER(ctypes.c_void_p)
    )
    return ctypes.PYFUNCTYPE(result, *arguments)(table[1 + NAMES.index(name)])
