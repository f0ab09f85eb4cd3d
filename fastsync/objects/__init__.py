"""The Python types, one family a file; `fastsync` and `fastsync.threading` are their doors."""
