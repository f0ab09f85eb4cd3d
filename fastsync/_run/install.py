"""Swap the types inside the standard library's modules `threading` and `queue`, and back.

Attributes of the real modules are rebound, so they keep their identity, the registry of threads and
the hooks, and every later `threading.Lock()` in anybody's code makes one of ours. What was taken
from them earlier (`from threading import Lock`, or an existing lock) stays what it was.
"""

import threading as stdlib
from _thread import allocate_lock

from fastsync._run import children, compat, imports, patchers
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

# Names in `queue`, whose types of ours are imported when `queue` is. With the GIL the original's
# SimpleQueue is faster than ours.
QUEUES = ["Queue", "LifoQueue", "PriorityQueue"] + ["SimpleQueue"] * compat.FREE_THREADED

_guard = allocate_lock()
# Each module that was swapped (a program may have imported `threading` anew), and what its
# attributes were.
_swapped = []


def install():
    """Make `threading` and `queue` hand out fastsync's types, here and in spawned children.

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
        _swap(threading, REPLACEMENTS)
    imports.after_import("queue", _swap_queue)


def _swap(module, replacements):
    """Rebind those of the names that the module has; under the guard."""
    names = [name for name in replacements if hasattr(module, name)]
    if all(known is not module for known, _ in _swapped):
        _swapped.append((module, {name: getattr(module, name) for name in names}))
    # Also the second time: another library may have replaced them since.
    for name in names:
        setattr(module, name, replacements[name])


def _swap_queue(module):
    try:
        from _queue import Empty
    except ImportError:  # a test imports `queue` without it
        return
    if getattr(module, "Empty", None) is not Empty:
        return  # a program's own module of that name
    from fastsync import queue as queues  # not under the guard: it waits for other imports

    if module.Full is not queues.Full:
        return  # imported anew: ours raise the first one's exceptions
    with _guard:
        if _swapped:  # not uninstalled meanwhile
            _swap(module, {name: getattr(queues, name) for name in QUEUES})


def uninstall():
    """Put back what the first `install()` found. Locks and queues that exist stay as they are."""
    with _guard:
        for module, originals in _swapped:
            for name, original in originals.items():
                setattr(module, name, original)
        _swapped.clear()
        children.unfollow()
        patchers.unfollow()
        imports.forget("queue")


def installed():
    """Return whether `threading` hands out fastsync's locks."""
    import threading

    return all(
        getattr(threading, name) is native
        for name, native in REPLACEMENTS.items()
        if hasattr(threading, name)
    )
