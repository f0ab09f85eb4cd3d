"""Who holds and who waits, when asked to watch: what `fastsync.deadlock` reads."""
