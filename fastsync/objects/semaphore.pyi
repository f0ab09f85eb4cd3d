from types import TracebackType

__test__: dict[str, str]

class Semaphore:
    _value: int
    def __init__(self, value: int = 1) -> None: ...
    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool: ...
    def release(self, n: int = 1) -> None: ...
    def _at_fork_reinit(self) -> None: ...
    def __enter__(self, blocking: bool = True, timeout: float | None = None) -> bool: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None: ...

class BoundedSemaphore(Semaphore):
    _initial_value: int
