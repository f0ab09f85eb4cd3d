import sys
from collections.abc import Callable, Iterable
from typing import Any, Protocol, Self, SupportsFloat, SupportsIndex, TypeVar, final, overload

from fastsync.objects.ordering import Ordering

if sys.version_info >= (3, 12):
    from collections.abc import Buffer
else:
    from typing_extensions import Buffer

__test__: dict[str, str]

_B = TypeVar("_B", bound=Buffer)

class _DType(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def isnative(self) -> bool: ...

# What an item takes and gives depends on the dtype, which is a run-time value.
_Value = SupportsIndex | SupportsFloat
_Item = Any

@final
class AtomicArray:
    def __new__(cls, dtype: str | type[Any] | _DType, n: SupportsIndex) -> Self: ...
    @staticmethod
    def from_buffer(
        buffer: Buffer, dtype: str | type[Any] | _DType | None = None, shared: bool = False
    ) -> AtomicArray: ...
    @property
    def dtype(self) -> str: ...
    @property
    def itemsize(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: SupportsIndex, /) -> _Item: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def load(self, index: SupportsIndex, ordering: Ordering = ...) -> _Item: ...
    def store(self, index: SupportsIndex, value: _Value, ordering: Ordering = ...) -> None: ...
    def swap(self, index: SupportsIndex, value: _Value, ordering: Ordering = ...) -> _Item: ...
    def compare_exchange(
        self,
        index: SupportsIndex,
        current: _Value,
        new: _Value,
        success: Ordering = ...,
        failure: Ordering = ...,
    ) -> tuple[bool, _Item]: ...
    def compare_exchange_weak(
        self,
        index: SupportsIndex,
        current: _Value,
        new: _Value,
        success: Ordering = ...,
        failure: Ordering = ...,
    ) -> tuple[bool, _Item]: ...
    def compare_and_set(
        self,
        index: SupportsIndex,
        current: _Value,
        new: _Value,
        success: Ordering = ...,
        failure: Ordering = ...,
    ) -> bool: ...
    def fetch_add(self, index: SupportsIndex, value: _Value, ordering: Ordering = ...) -> _Item: ...
    def fetch_sub(self, index: SupportsIndex, value: _Value, ordering: Ordering = ...) -> _Item: ...
    def fetch_and(self, index: SupportsIndex, value: _Value, ordering: Ordering = ...) -> int: ...
    def fetch_nand(self, index: SupportsIndex, value: _Value, ordering: Ordering = ...) -> int: ...
    def fetch_or(self, index: SupportsIndex, value: _Value, ordering: Ordering = ...) -> int: ...
    def fetch_xor(self, index: SupportsIndex, value: _Value, ordering: Ordering = ...) -> int: ...
    def fetch_max(self, index: SupportsIndex, value: _Value, ordering: Ordering = ...) -> _Item: ...
    def fetch_min(self, index: SupportsIndex, value: _Value, ordering: Ordering = ...) -> _Item: ...
    def fetch_update(
        self,
        index: SupportsIndex,
        f: Callable[[_Item], _Value | None],
        success: Ordering = ...,
        failure: Ordering = ...,
    ) -> tuple[bool, _Item]: ...
    def try_update(
        self,
        index: SupportsIndex,
        f: Callable[[_Item], _Value | None],
        success: Ordering = ...,
        failure: Ordering = ...,
    ) -> tuple[bool, _Item]: ...
    def update(
        self,
        index: SupportsIndex,
        f: Callable[[_Item], _Value],
        success: Ordering = ...,
        failure: Ordering = ...,
    ) -> _Item: ...
    def wait(
        self,
        index: SupportsIndex,
        expected: _Value,
        timeout: float | None = None,
        ordering: Ordering = ...,
    ) -> bool: ...
    def notify_one(self, index: SupportsIndex) -> None: ...
    def notify_all(self, index: SupportsIndex) -> None: ...
    def add_at(
        self,
        indices: Buffer | Iterable[SupportsIndex],
        values: _Value | Buffer | Iterable[_Value],
    ) -> None: ...
    def max_at(
        self,
        indices: Buffer | Iterable[SupportsIndex],
        values: _Value | Buffer | Iterable[_Value],
    ) -> None: ...
    def min_at(
        self,
        indices: Buffer | Iterable[SupportsIndex],
        values: _Value | Buffer | Iterable[_Value],
    ) -> None: ...
    def or_at(
        self,
        indices: Buffer | Iterable[SupportsIndex],
        values: _Value | Buffer | Iterable[_Value],
    ) -> None: ...
    @overload
    def load_all(self, out: None = None) -> list[_Item]: ...
    @overload
    def load_all(self, out: _B) -> _B: ...
    def fill(self, value: _Value) -> None: ...
