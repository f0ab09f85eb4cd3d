# A type checker may take our queues for the standard library's, which they stand in for, but for
# what these have besides.
from fastsync.objects.queues import Empty as Empty
from fastsync.objects.queues import Full as Full
from fastsync.objects.queues import LifoQueue as LifoQueue
from fastsync.objects.queues import PriorityQueue as PriorityQueue
from fastsync.objects.queues import Queue as Queue
from fastsync.objects.queues import ShutDown as ShutDown
from fastsync.objects.queues import SimpleQueue as SimpleQueue

__all__ = [
    "Empty",
    "Full",
    "LifoQueue",
    "PriorityQueue",
    "Queue",
    "ShutDown",
    "SimpleQueue",
]
