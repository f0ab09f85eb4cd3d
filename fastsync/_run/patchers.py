"""Other libraries that replace what `threading` is made of, and how to live with them.

gevent and eventlet make threads into greenlets: a lock that blocks the thread blocks them all, and
an RLock takes two greenlets of one thread for one owner. So their locks must be theirs. dill copies
locks by their exact type, and has to be told of ours; so has `unittest.mock`, which looks for
functions.
"""

import _thread
import sys
import warnings
from types import BuiltinMethodType, MethodDescriptorType

from fastsync._run.imports import after_import, forget
from fastsync.objects.barrier import Barrier
from fastsync.objects.condition import Condition
from fastsync.objects.event import Event
from fastsync.objects.lock import Lock
from fastsync.objects.pickling import copy_of
from fastsync.objects.rlock import RLock
from fastsync.objects.semaphore import BoundedSemaphore, Semaphore

_BUILTIN = type(len)
# Those whose originals are written in Python.
_SIGNED: tuple[type, ...] = (Condition, Semaphore, BoundedSemaphore, Event, Barrier)
_TWINS = [(Lock, type(_thread.allocate_lock())), (RLock, _thread.RLock)]

_uninstall = None  # what to call before threads are patched


def name_of_patcher():
    """Return who has replaced the threads of this process by something else, or None."""
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None and any(
        map(gevent.is_module_patched, ("thread", "_thread", "threading"))
    ):
        return "gevent"
    eventlet = sys.modules.get("eventlet.patcher")
    if eventlet is not None and eventlet.is_monkey_patched("thread"):
        return "eventlet"
    for function in (_thread.start_new_thread, _thread.allocate_lock):
        if type(function) is not _BUILTIN:
            return getattr(function, "__module__", None) or "another library"
    return None


def step_aside(name):
    """Uninstall, since that library is about to replace the locks."""
    if _uninstall is None:
        return
    _uninstall()
    warnings.warn(
        f"{name} replaces the locks of `threading` by its own: fastsync has been uninstalled. "
        "Locks that exist stay as they are.",
        RuntimeWarning,
        stacklevel=2,
    )


def _gevent_patches(event):
    if getattr(event, "module_name", None) in ("thread", "_thread", "threading"):
        step_aside("gevent")


def _follow_gevent(events):
    if _gevent_patches not in events.subscribers:
        events.subscribers.append(_gevent_patches)


def _follow_eventlet(patcher):
    original = patcher.monkey_patch
    if hasattr(original, "fastsync_original"):
        return

    def monkey_patch(**on):
        if on.get("thread", on["all"] if on.get("all") is not None else not on):
            step_aside("eventlet")
        return original(**on)

    monkey_patch.fastsync_original = original
    for name in ("eventlet.patcher", "eventlet"):
        if getattr(sys.modules.get(name), "monkey_patch", None) is original:
            sys.modules[name].monkey_patch = monkey_patch


def _follow_dill(dill):
    dispatch = dill.Pickler.dispatch
    for ours, stock in _TWINS:
        if stock in dispatch:
            dispatch.setdefault(ours, dispatch[stock])

    # The originals of these are copied attribute by attribute, as any object is.
    def save(pickler, lock):
        pickler.save_reduce(*copy_of(lock), obj=lock)

    for ours in _SIGNED:
        dispatch.setdefault(ours, save)


def _is_signed(cls):
    # By its name: our queues are imported when `queue` is.
    return cls in _SIGNED or (cls.__module__ == "queue" and cls.__name__ != "SimpleQueue")


class _Methods(type):
    """What `unittest.mock` is to take for functions: methods of ours and such ones bound."""

    def __instancecheck__(cls, instance):
        if type(instance) is MethodDescriptorType:
            return _is_signed(instance.__objclass__)
        return type(instance) is BuiltinMethodType and any(
            map(_is_signed, type(instance.__self__).__mro__)
        )


class _Method(metaclass=_Methods):
    pass


def _follow_mock(mock):
    # The original's methods are Python functions; an autospec checks the calls of no others.
    if _Method not in mock.FunctionTypes:
        mock.FunctionTypes += (_Method,)


def _reduce_once(function):
    from fastsync.objects.once import once

    if function.__module__ == "__main__" or "<locals>" in function.__qualname__:
        return once, (function.__wrapped__,)
    return function.__reduce__()  # by name, so that it runs one time there


def _follow_cloudpickle(cloudpickle):
    # It sends functions of __main__ by value, and so has to send those under @once.
    from fastsync.objects.once import once

    table = cloudpickle.CloudPickler.dispatch_table
    if once not in table:
        table[once] = _reduce_once


_FOLLOWED = {
    "cloudpickle.cloudpickle": _follow_cloudpickle,
    "joblib.externals.cloudpickle.cloudpickle": _follow_cloudpickle,
    "unittest.mock": _follow_mock,
    "gevent.events": _follow_gevent,
    "eventlet.patcher": _follow_eventlet,
    "dill._dill": _follow_dill,
}


def follow(uninstall):
    """Look out for those that are imported, now or later."""
    global _uninstall
    _uninstall = uninstall
    for name, function in _FOLLOWED.items():
        after_import(name, function)


def unfollow():
    """Leave no trace of `follow()`."""
    global _uninstall
    _uninstall = None
    for name in _FOLLOWED:
        forget(name)
    mock = sys.modules.get("unittest.mock")
    if mock is not None:
        mock.FunctionTypes = tuple(kind for kind in mock.FunctionTypes if kind is not _Method)
    events = sys.modules.get("gevent.events")
    if events is not None and _gevent_patches in events.subscribers:
        events.subscribers.remove(_gevent_patches)
    for name in ("eventlet.patcher", "eventlet"):
        current = getattr(sys.modules.get(name), "monkey_patch", None)
        if hasattr(current, "fastsync_original"):
            sys.modules[name].monkey_patch = current.fastsync_original
