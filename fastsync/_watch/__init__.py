"""Who holds and who waits, when asked to watch: what `fastsync.deadlock` reads."""

from fastsync import _compiled

_compiled.add_to(__name__, __path__)
