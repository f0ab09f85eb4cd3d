"""The standard library's `queue`, native: the same names, the same contract.

Use it as `import fastsync.queue as queue`. `Empty`, `Full` and `ShutDown` are the standard
library's own, so it does not matter which module's an `except` names.
"""

from fastsync.objects.queues import (
    Empty,
    Full,
    LifoQueue,
    PriorityQueue,
    Queue,
    ShutDown,
    SimpleQueue,
)

__all__ = [
    "Empty",
    "Full",
    "LifoQueue",
    "PriorityQueue",
    "Queue",
    "ShutDown",
    "SimpleQueue",
]
