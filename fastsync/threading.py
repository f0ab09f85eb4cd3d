"""The standard library's `threading`, with fastsync's locks in it.

Use it as `import fastsync.threading as threading`, or put it into `sys.modules["threading"]`.

The seven lock types are ours. All the rest (Thread, its registries and hooks, `local`, the
exceptions, private names) is read from the standard library's module at each access, and what is
set here is set there: two registries of threads in one process would never agree.
"""

import sys
from functools import partial

from fastsync._install import REPLACEMENTS
from fastsync._install import stdlib as _stdlib

__all__ = list(_stdlib.__all__)

globals().update(REPLACEMENTS)

# A partial, not a function: it costs half as much per access.
__getattr__ = partial(getattr, _stdlib)


def __dir__():
    return dir(_stdlib)


# Name -> what settings of it from here have displaced, the newest last.
_displaced = {}


class _Module(type(sys)):
    """A module that hands changes of the standard library's names on to their owner.

    `threading.excepthook = f`, or a test's patch of `_start_joinable_thread`, must reach the
    functions that read the name. Tools that patch find no such name in our `__dict__`, and delete
    it in the end: that takes back the last setting.
    """

    def __setattr__(self, name, value):
        if _is_ours(name):
            return super().__setattr__(name, value)
        displaced = _displaced.setdefault(name, [])
        if displaced and displaced[-1] is value:
            displaced.pop()
        else:
            displaced.append(getattr(_stdlib, name, _MISSING))
        setattr(_stdlib, name, value)

    def __delattr__(self, name):
        if _is_ours(name):
            return super().__delattr__(name)
        displaced = _displaced.get(name) or [_MISSING]
        value = displaced.pop()
        if value is _MISSING:
            delattr(_stdlib, name)
        else:
            setattr(_stdlib, name, value)


_MISSING = object()


def _is_ours(name):
    return name in REPLACEMENTS or (name.startswith("__") and name != "__excepthook__")


sys.modules[__name__].__class__ = _Module
