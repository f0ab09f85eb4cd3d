from typing import Any, SupportsFloat

__test__: dict[str, str]

# A case is a receiver, a queue of fastsync.queue, an Event, a Semaphore, or a tuple of a sender or
# such a queue and an item.
def select(
    *cases: Any,
    timeout: SupportsFloat | None = None,
    deadline: SupportsFloat | None = None,
    biased: bool = False,
) -> tuple[int | None, Any]: ...
