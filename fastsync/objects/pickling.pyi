from typing import TypeVar

_C = TypeVar("_C", bound=type)

def unpickled_fresh(cls: _C) -> _C: ...
