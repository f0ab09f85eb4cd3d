"""Swap the lock types inside the standard library's `threading` module, and back.

Attributes of the real module are rebound, so it keeps its identity, its thread registry and its
hooks, and every later `threading.Lock()` in anybody's code makes one of ours. What was taken from
it earlier (`from threading import Lock`, or an existing lock) stays what it was.
"""

import threading as stdlib
from _thread import allocate_lock

from fastsync._run import children, patchers
from fastsync.objects.barrier import Barrier
from fastsync.objects.condition import Condition
from fastsync.objects.event import Event
from fastsync.objects.lock import Lock
from fastsync.objects.rlock import RLock
from fastsync.objects.semaphore import BoundedSemaphore, Semaphore

NATIVE = (Lock, RLock, Condition, Semaphore, BoundedSemaphore, Event, Barrier)

# Name in `threading` -> our type; the private names are other names of Lock and RLock there.
REPLACEMENTS = {native.__name__: native for native in NATIVE}
REPLACEMENTS["_allocate_lock"] = Lock
REPLACEMENTS["_CRLock"] = RLock
if hasattr(stdlib, "_LockType"):  # 3.13
    REPLACEMENTS["_LockType"] = Lock

_guard = allocate_lock()
# Each module called `threading` that was swapped (a program may have imported it anew), and what
# its attributes were.
_swapped = []


def install():
    """Make `threading` hand out fastsync's locks from now on, here and in spawned children.

    Changes nothing when they are installed already. RuntimeError after gevent, eventlet or the
    like have replaced threads by something else; when they do so later, fastsync is uninstalled.
    """
    patcher = patchers.name_of_patcher()
    if patcher is not None:
        raise RuntimeError(
            f"{patcher} has replaced threads, and its locks must stay: those of fastsync "
            "block threads"
        )
    import threading  # not `stdlib`: see _swapped

    with _guard:
        if not _swapped:
            children.follow()
            patchers.follow(uninstall)
        names = [name for name in REPLACEMENTS if hasattr(threading, name)]
        if all(module is not threading for module, _ in _swapped):
            _swapped.append((threading, {name: getattr(threading, name) for name in names}))
        # Also the second time: another library may have replaced them since.
        for name in names:
            setattr(threading, name, REPLACEMENTS[name])


def uninstall():
    """Put back what the first `install()` found. Locks that exist stay as they are."""
    with _guard:
        for module, originals in _swapped:
            for name, original in originals.items():
                setattr(module, name, original)
        _swapped.clear()
        children.unfollow()
        patchers.unfollow()


def installed():
    """Return whether `threading` hands out fastsync's locks."""
    import threading

    return all(
        getattr(threading, name) is native
        for name, native in REPLACEMENTS.items()
        if hasattr(threading, name)
    )
