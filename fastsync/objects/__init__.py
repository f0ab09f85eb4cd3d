"""The Python types, one family a file; `fastsync` and `fastsync.threading` are their doors."""

from fastsync import _compiled

_compiled.add_to(__name__, __path__)
