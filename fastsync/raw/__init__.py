"""Raw words: locks without a Python object, for `cimport`, usable without the GIL."""

from fastsync._compiled import Path as _Path

__path__ = _Path(__name__, __path__)
