"""Who holds and who waits, when asked to watch: what `fastsync.deadlock` reads."""

from fastsync._compiled import Path as _Path

__path__ = _Path(__name__, __path__)
