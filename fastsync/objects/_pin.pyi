from collections.abc import Callable, Iterable
from typing import Any, TypeVar

_T = TypeVar("_T")

__test__: dict[str, str]

def register_pinnable(
    *types: type, parts: Callable[[Any], Iterable[object]] | None = None
) -> None: ...
def pin(obj: _T, /) -> _T: ...
def is_pinned(obj: object, /) -> bool: ...
