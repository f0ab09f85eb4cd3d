from typing import Self, TypeVar

from fastsync.objects.queue import Queue

_T = TypeVar("_T")

__test__: dict[str, str]

class PriorityQueue(Queue[_T]):
    def __new__(cls, maxsize: int = 0) -> Self: ...
