"""What `threading` has for iterators since 3.15, made of our locks."""

from types import FunctionType

from fastsync._run.install import REPLACEMENTS as LOCKS
from fastsync._run.install import stdlib

REPLACEMENTS = {}


def of_ours(function, **names):
    """A copy of `function` that finds `names` instead of its module's."""
    copy = FunctionType(function.__code__, {**vars(stdlib), **names}, argdefs=function.__defaults__)
    copy.__doc__ = function.__doc__
    return copy


if hasattr(stdlib, "serialize_iterator"):
    Lock = LOCKS["Lock"]

    class serialize_iterator(stdlib.serialize_iterator):
        __slots__ = ()
        __doc__ = stdlib.serialize_iterator.__doc__

        def __init__(self, iterable):
            super().__init__(iterable)
            self._lock = Lock()

    class _concurrent_tee(stdlib._concurrent_tee):
        __slots__ = ()

        def __init__(self, iterable):
            super().__init__(iterable)
            if not isinstance(iterable, _concurrent_tee):
                self.lock = Lock()

    # `inner`, made by synchronized_iterator(), finds names where that function does.
    REPLACEMENTS = {
        "serialize_iterator": serialize_iterator,
        "synchronized_iterator": of_ours(
            stdlib.synchronized_iterator, serialize_iterator=serialize_iterator
        ),
        "concurrent_tee": of_ours(stdlib.concurrent_tee, _concurrent_tee=_concurrent_tee),
    }
