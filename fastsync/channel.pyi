from fastsync.objects.channel import Receiver as Receiver
from fastsync.objects.channel import RecvClosed as RecvClosed
from fastsync.objects.channel import RecvEmpty as RecvEmpty
from fastsync.objects.channel import RecvError as RecvError
from fastsync.objects.channel import RecvTimeout as RecvTimeout
from fastsync.objects.channel import SendClosed as SendClosed
from fastsync.objects.channel import Sender as Sender
from fastsync.objects.channel import SendError as SendError
from fastsync.objects.channel import SendFull as SendFull
from fastsync.objects.channel import SendTimeout as SendTimeout
from fastsync.objects.channel import after as after
from fastsync.objects.channel import bounded as bounded
from fastsync.objects.channel import never as never
from fastsync.objects.channel import tick as tick
from fastsync.objects.channel import unbounded as unbounded
from fastsync.objects.select import select as select

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
