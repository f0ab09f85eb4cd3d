# A type checker may take our queues for the standard library's, which they stand in for, but for
# what these have besides.
from fastsync.objects._ring import Empty as Empty
from fastsync.objects._ring import Full as Full
from fastsync.objects._ring import ShutDown as ShutDown
from fastsync.objects.priority_queue import PriorityQueue as PriorityQueue
from fastsync.objects.queue import LifoQueue as LifoQueue
from fastsync.objects.queue import Queue as Queue
from fastsync.objects.simple_queue import SimpleQueue as SimpleQueue

__all__ = [
    "Empty",
    "Full",
    "LifoQueue",
    "PriorityQueue",
    "Queue",
    "ShutDown",
    "SimpleQueue",
]
