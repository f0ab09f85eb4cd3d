"""The Python types, one family a file; `fastsync` and `fastsync.threading` are their doors."""

import fastsync

__path__ = fastsync._with_compiled(__name__, __path__)
