"""The drop-in types beside `threading` and its peers."""

from harness import Goal, op, threaded


def ours(kind, arguments=""):
    return f"from fastsync.threading import {kind}; x = {kind}({arguments})"


def stock(kind, arguments=""):
    return f"from threading import {kind}; x = {kind}({arguments})"


CASES = [
    op(
        "lock.with",
        {
            "threading": (stock("Lock"), "with x: pass"),
            "fastsync": (ours("Lock"), "with x: pass"),
            "librt": ("from librt.threading import Lock; x = Lock()", "with x: pass"),
        },
        goals=[Goal(0.45), Goal(0.60, of="best peer")],
        title="`with Lock():`",
    ),
    threaded(
        "lock.contended",
        {
            "threading": ("from threading import Lock; x = Lock()", "with x: pass"),
            "fastsync": (ours("Lock"), "with x: pass"),
        },
        threads=(2, 4, 8),
        goals=[Goal(1.2, threads=2)],
    ),
]
