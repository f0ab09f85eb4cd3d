"""Raw words: locks without a Python object, for `cimport`, usable without the GIL."""

from fastsync import _compiled

_compiled.add_to(__name__, __path__)
