"""Swap the lock types inside the standard library's `threading` module, and back.

Attributes of the real module are rebound, so it keeps its identity, its thread registry and its
hooks, and every later `threading.Lock()` in anybody's code makes one of ours. What was taken from
it earlier (`from threading import Lock`, or an existing lock) stays what it was.
"""

import threading as stdlib
from _thread import allocate_lock

from fastsync import _children, primitives

NATIVE = (
    primitives.Lock,
    primitives.RLock,
    primitives.Condition,
    primitives.Semaphore,
    primitives.BoundedSemaphore,
    primitives.Event,
    primitives.Barrier,
)

# Name in `threading` -> our type; the private names are other names of Lock and RLock there.
REPLACEMENTS = {native.__name__: native for native in NATIVE}
REPLACEMENTS["_allocate_lock"] = primitives.Lock
REPLACEMENTS["_CRLock"] = primitives.RLock
if hasattr(stdlib, "_LockType"):  # 3.13
    REPLACEMENTS["_LockType"] = primitives.Lock

_guard = allocate_lock()
_originals = {}


def install():
    """Make `threading` hand out fastsync's locks from now on, here and in spawned children.

    Changes nothing when they are installed already.
    """
    with _guard:
        if not _originals:
            _children.follow()
            _originals.update({name: getattr(stdlib, name) for name in REPLACEMENTS})
        # Also the second time: somebody else may have replaced them since.
        for name, native in REPLACEMENTS.items():
            setattr(stdlib, name, native)


def uninstall():
    """Put back what the first `install()` found. Locks that exist stay as they are."""
    with _guard:
        for name, original in _originals.items():
            setattr(stdlib, name, original)
        _originals.clear()
        _children.unfollow()


def installed():
    """Return whether `threading` hands out fastsync's locks."""
    return all(getattr(stdlib, name, None) is native for name, native in REPLACEMENTS.items())
