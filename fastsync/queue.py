"""The standard library's `queue`, native: the same names, the same contract.

Use it as `import fastsync.queue as queue`. `Empty`, `Full` and `ShutDown` are the standard
library's own, so it does not matter which module's an `except` names.
"""

from fastsync.objects._ring import Empty, Full, ShutDown
from fastsync.objects.priority_queue import PriorityQueue
from fastsync.objects.queue import LifoQueue, Queue
from fastsync.objects.simple_queue import SimpleQueue

__all__ = [
    "Empty",
    "Full",
    "LifoQueue",
    "PriorityQueue",
    "Queue",
    "ShutDown",
    "SimpleQueue",
]
