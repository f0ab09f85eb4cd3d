from types import GenericAlias
from typing import Any, Generic, TypeVar

__pyx_capi__: dict[str, object]
__test__: dict[str, str]

_T = TypeVar("_T")

class _Ref(Generic[_T]):
    @classmethod
    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...
