"""Thread.join(), while the detector or the profile is on: a wait for the end of a thread."""

import _thread
import threading as _stdlib

from fastsync._watch import trace

_stock_join = _stdlib.Thread.join


def _join(self, timeout=None):
    if self.ident == _thread.get_ident() or not self.is_alive():
        return _stock_join(self, timeout)
    wait = trace.Join(self, timeout is None)
    try:
        wait.begin()
        return _stock_join(self, timeout)
    finally:
        wait.end()


_join.__name__ = _join.__qualname__ = "join"
_join.__module__ = "threading"
_join.__doc__ = _stock_join.__doc__


def follow():
    """Stand in for Thread.join() while the detector or the profile is on, and no longer."""
    watched = trace.is_on() or trace.is_profiling()
    old, new = (_stock_join, _join) if watched else (_join, _stock_join)
    if _stdlib.Thread.join is old:  # and not what another library has put there
        _stdlib.Thread.join = new
