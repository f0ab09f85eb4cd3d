from typing import ClassVar, NoReturn, final

__pyx_capi__: dict[str, object]
__test__: dict[str, str]

@final
class Ordering:
    Relaxed: ClassVar[Ordering]
    Acquire: ClassVar[Ordering]
    Release: ClassVar[Ordering]
    AcqRel: ClassVar[Ordering]
    SeqCst: ClassVar[Ordering]
    @property
    def name(self) -> str: ...
    @staticmethod
    def members() -> tuple[Ordering, ...]: ...
    def __new__(cls, *args: object, **kwargs: object) -> NoReturn: ...

def fence(ordering: Ordering = ...) -> None: ...
def compiler_fence(ordering: Ordering = ...) -> None: ...
def spin_loop() -> None: ...
