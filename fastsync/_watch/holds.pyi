from typing import TypeAlias

from fastsync._watch.origins import Origin

__pyx_capi__: dict[str, object]
__test__: dict[str, str]

_Stack: TypeAlias = list[tuple[str, int, str]]
_Wait: TypeAlias = tuple[Origin, int, int, int, bool, int, bool, bool, int, int, bool, _Stack]

def snapshot() -> tuple[
    list[tuple[Origin, int, int, int, bool, _Stack]],
    list[_Wait],
]: ...
def _forget_holds_of_dead_locks() -> None: ...
def _before_fork() -> None: ...
def _after_fork_in_parent() -> None: ...
def _after_fork_in_child() -> None: ...
