"""The Python types, one family a file; `fastsync` and `fastsync.threading` are their doors."""

from fastsync._compiled import Path as _Path

__path__ = _Path(__name__, __path__)
