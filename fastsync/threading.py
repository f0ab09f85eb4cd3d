"""The standard library's `threading`, with fastsync's locks in it.

Use it as `import fastsync.threading as threading`, or put it into `sys.modules["threading"]`.

The seven lock types are ours. All the rest (Thread, its registries and hooks, `local`, the
exceptions, private names) are the standard library's own objects, and what is set here is set
there: two registries of threads in one process would never agree.
"""

import importlib
import sys
from functools import partial

from fastsync._run.install import REPLACEMENTS
from fastsync._run.install import stdlib as _stdlib
from fastsync._run.iterators import REPLACEMENTS as _ITERATORS

# What functions of the standard library rebind, and what every program may set there: these names
# have no copy here that could go stale.
_LIVE = frozenset(
    """excepthook _trace_hook _profile_hook _main_thread _active_limbo_lock _shutdown_locks
    _shutdown_locks_lock _SHUTTING_DOWN""".split()
)

globals().update(
    (name, value)
    for name, value in vars(_stdlib).items()
    if name not in _LIVE and (not name.startswith("__") or name == "__excepthook__")
)
globals().update(REPLACEMENTS)
globals().update(_ITERATORS)
__all__ = list(_stdlib.__all__)

__getattr__ = partial(getattr, _stdlib)

_MISSING = object()
# Name without a copy here -> what settings of it from here have displaced, the newest last.
_displaced = {}


def __dir__():
    return dir(_stdlib)  # what this file needs itself is nobody's business


class _Module(type(sys)):
    """A module that hands changes of the standard library's names on to their owner.

    `threading.excepthook = f`, or a test's patch of `_start_joinable_thread`, must reach the
    functions that read the name.
    """

    def __reduce__(self):
        return importlib.import_module, (self.__name__,)  # as cloudpickle and dill send modules

    def __setattr__(self, name, value):
        if _is_ours(name):
            return super().__setattr__(name, value)
        if name in vars(self):
            super().__setattr__(name, value)
        else:
            _remember_displaced(name, value)
        setattr(_stdlib, name, value)

    def __delattr__(self, name):
        if _is_ours(name):
            return super().__delattr__(name)
        if name in vars(self):
            super().__delattr__(name)
        # Tools that patch find no such name in our __dict__, so they delete it in the end.
        elif displaced := _displaced.get(name):
            value = displaced.pop()
            if value is not _MISSING:
                return setattr(_stdlib, name, value)
        delattr(_stdlib, name)


def _is_ours(name):
    return name in REPLACEMENTS or (name.startswith("__") and name != "__excepthook__")


def _remember_displaced(name, value):
    displaced = _displaced.setdefault(name, [])
    if displaced and displaced[-1] is value:  # put back by hand
        displaced.pop()
    else:
        displaced.append(getattr(_stdlib, name, _MISSING))


sys.modules[__name__].__class__ = _Module
