"""Channels between threads: bounded, unbounded and rendezvous, with an end, and select().

    sender, receiver = channel.bounded(64)

`docs/queues.md` says when to take a channel and when a queue.
"""

from fastsync.objects.channel import (
    Receiver,
    RecvClosed,
    RecvEmpty,
    RecvError,
    RecvTimeout,
    SendClosed,
    Sender,
    SendError,
    SendFull,
    SendTimeout,
    after,
    bounded,
    never,
    tick,
    unbounded,
)
from fastsync.objects.select import select

__all__ = [
    "Receiver",
    "RecvClosed",
    "RecvEmpty",
    "RecvError",
    "RecvTimeout",
    "SendClosed",
    "SendError",
    "SendFull",
    "SendTimeout",
    "Sender",
    "after",
    "bounded",
    "never",
    "select",
    "tick",
    "unbounded",
]
