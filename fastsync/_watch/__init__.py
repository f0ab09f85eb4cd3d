"""Who holds and who waits, when asked to watch: what `fastsync.deadlock` reads."""

import fastsync

__path__ = fastsync._with_compiled(__name__, __path__)
