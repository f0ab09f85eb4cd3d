"""Channels: a ring with two ends, each held by any number of handles.

The contract is that of Rust's crossbeam-channel; docs/queues.md has the differences.  A
channel closes when all handles of one end are closed: `senders` and `receivers` count those
that are not, and SHUT of the ring says that one of the two is 0.

              senders     receivers    a send          a receive
    open      1 or more   1 or more    waits for room  waits for an item
    no sender 0           1 or more    -               takes what is left, then RecvClosed
    no receiver  1 or more  0          SendClosed      -
    closed    0           0            -               -

The last receiver drops what is left, since no thread could receive it.  A send that waits
when the last sender is closed (by another thread) goes on: its item is received, or is
raised with SendClosed when the last receiver is closed.  The counts and SHUT change under the
ring's lock, together with the wake-ups: a send or a receive sees all of it, or is seen.
"""
cimport cython
from libc.stdint cimport int64_t
from cpython.object cimport PyObject
from cpython.number cimport PyIndex_Check

from fastsync._watch.trace cimport fs_section, trace_released
from fastsync.raw.c_atomic cimport fs_atomic_u8, fs_u8_exchange, fs_u8_load_relaxed
from fastsync.raw.c_wait cimport FS_FOREVER, fs_now
from fastsync.raw.mutex cimport mutex_lock_inner, mutex_unlock_inner
from fastsync.raw.parking cimport FS_SIGNALS, is_past
from fastsync.raw.ring cimport *
from fastsync.raw.select cimport FS_SELECT_SIGNALS, select_park
from fastsync.objects._ring cimport (
    _Ring, before_serving, collect_items, free_items, fs_items, get_item, put_item, size_in_memory,
    take_items,
)
from fastsync.objects._slots cimport finish_type, forbid_instances, rename_type
from fastsync.objects._timeouts cimport deadline_for, deadline_until, saturating_ns

from types import GenericAlias

from fastsync.objects._pin import register_pinnable

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1
    Py_ssize_t PyNumber_AsSsize_t(object, PyObject*) except? -1
    PyObject* PyExc_OverflowError


# -- what is raised ----------------------------------------------------------------

class SendError(Exception):
    """An item was not sent; `item` is it.  Raised as one of the three below.

    From select(), `index` is the case's.
    """

    def __init__(self, item=None):
        super().__init__(item)
        self.item = item
        self.index = None

    def __str__(self):
        return self.reason


class SendClosed(SendError):
    """The channel has no receiver any more, or this sender has been closed."""

    reason = "sending on a closed channel"


class SendFull(SendError):
    """There is no room at this moment, and try_send() does not wait."""

    reason = "sending on a full channel"


class SendTimeout(SendError, TimeoutError):
    """There was no room in that time."""

    reason = "timed out waiting on send operation"


class RecvError(Exception):
    """Nothing was received.  Raised as one of the three below.

    From select(), `index` is the case's.
    """

    reason = None

    def __init__(self):
        super().__init__()
        self.index = None

    def __str__(self):
        return self.reason


class RecvClosed(RecvError):
    """The channel is empty and has no sender any more, or this receiver has been closed."""

    reason = "receiving on a closed channel"


class RecvEmpty(RecvError):
    """There is no item at this moment, and try_recv() does not wait."""

    reason = "receiving on an empty channel"


class RecvTimeout(RecvError, TimeoutError):
    """There was no item in that time."""

    reason = "timed out waiting on receive operation"


SendError.reason = "sending failed"
RecvError.reason = "receiving failed"
for _kind in (SendError, SendClosed, SendFull, SendTimeout,
              RecvError, RecvClosed, RecvEmpty, RecvTimeout):  # fmt: skip
    _kind.__module__ = "fastsync.channel"
del _kind


# -- the channel ---------------------------------------------------------------------

@cython.no_gc_clear
cdef class _Channel(_Ring):
    """What the handles share."""

    cdef int refuse_put(self, PyObject* item, int outcome) except -1:
        if outcome == FS_RING_CLOSED:
            raise SendClosed(<object>item)
        if outcome == FS_RING_TIMEOUT:
            raise SendTimeout(<object>item)
        if outcome != FS_RING_ERROR:
            raise SendFull(<object>item)
        return -1

    cdef int refuse_get(self, int outcome) except -1:
        if outcome == FS_RING_CLOSED:
            raise RecvClosed
        if outcome == FS_RING_TIMEOUT:
            raise RecvTimeout
        if outcome != FS_RING_ERROR:
            raise RecvEmpty
        return -1


cdef bint is_closed(fs_atomic_u8* flag) noexcept nogil:
    return fs_u8_load_relaxed(flag)  # relaxed: a close() at the same time may come before or after


cdef void close_sender(Sender self) noexcept:
    cdef fs_section section
    cdef fs_ring* r
    if self.channel is None or fs_u8_exchange(&self.is_closed, 1):
        return
    r = &self.channel.ring
    section.release = NULL
    ring_lock(r)
    self.channel.senders -= 1
    if self.channel.senders == 0:
        before_serving(self.channel, FS_RING_GETTERS, &section)
        ring_mark(r, FS_RING_SHUT)
        ring_wake_getters(r, FS_RING_END)
    ring_unlock(r)
    trace_released(&section)


cdef void close_receiver(Receiver self) noexcept:
    cdef fs_section section
    cdef fs_ring* r
    cdef fs_items dropped
    if self.channel is None or fs_u8_exchange(&self.is_closed, 1):
        return
    dropped.at = NULL
    dropped.count = 0
    section.release = NULL
    r = &self.channel.ring
    ring_lock(r)
    self.channel.receivers -= 1
    if self.channel.receivers == 0:
        before_serving(self.channel, FS_RING_PUTTERS, &section)
        ring_mark(r, FS_RING_SHUT)
        ring_wake_all_putters(r, FS_RING_END)
        ring_wake_getters(r, FS_RING_END)  # of other threads, by the handle that is closed
        dropped = take_items(r)
    ring_unlock(r)
    trace_released(&section)
    free_items(dropped)


cdef object capacity_of(_Channel channel):
    cdef size_t limit = channel.ring.limit
    return None if limit == ring_no_limit() else limit


cdef bint has_no_room(_Channel channel) noexcept:
    return ring_count(&channel.ring) >= channel.ring.limit


cdef inline int64_t timed(int64_t deadline) noexcept:
    """Of a call with a time, which has not come in vain without waiting: 0 would say so."""
    return deadline if deadline != 0 else 1


@cython.trashcan(True)
@cython.no_gc_clear  # what is in the channel makes the circles, and is cleared there
cdef class Sender:
    """The end of a channel that items are sent on; made by bounded(), unbounded() and clone().

    Any thread may use it, several at once.  A send happens before the receive of its item
    (release / acquire ordering).  `with sender:` closes it at the end of the block; so does
    the end of the last reference to it, whenever that comes."""

    def __dealloc__(self):
        close_sender(self)

    def send(self, item, /):
        """Send the item, waiting for room; SendClosed, with it, when no receiver is left."""
        self.put(item, FS_FOREVER)

    def try_send(self, item, /):
        """Send the item if that needs no wait; else SendFull, or SendClosed, with the item."""
        self.put(item, 0)

    def send_timeout(self, item, seconds, /):
        """As send(), for so many seconds at most: SendTimeout, with the item, after that."""
        self.put(item, timed(deadline_for(seconds)))

    def send_deadline(self, item, when, /):
        """As send(), until time.monotonic() is `when`: SendTimeout, with the item, after that."""
        self.put(item, timed(deadline_until(when)))

    cdef int put(self, object item, int64_t deadline) except -1:
        if is_closed(&self.is_closed):
            raise SendClosed(item)
        return put_item(self.channel, <PyObject*>item, deadline)

    def clone(self):
        """Another sender of this channel, to be closed on its own; SendClosed if this one is."""
        cdef fs_ring* r = &self.channel.ring
        cdef Sender other = Sender.__new__(Sender)
        ring_lock(r)
        # Under the lock, so that the count does not go from 0 to 1.
        if is_closed(&self.is_closed) or self.channel.senders == 0:
            ring_unlock(r)
            raise SendClosed
        self.channel.senders += 1
        ring_unlock(r)
        other.channel = self.channel
        return other

    def close(self):
        """Send nothing more by this sender; after the last one, receivers come to the end."""
        close_sender(self)

    @property
    def closed(self):
        """Whether this sender has been closed."""
        return is_closed(&self.is_closed)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        close_sender(self)

    @property
    def capacity(self):
        """How many items the channel holds at most; None for no limit, 0 for a rendezvous."""
        return capacity_of(self.channel)

    def __len__(self):
        return ring_count(&self.channel.ring)

    def __bool__(self):
        return True

    def is_empty(self):
        """Whether no item is there, at this moment."""
        return ring_count(&self.channel.ring) == 0

    def is_full(self):
        """Whether there is no room, at this moment; a rendezvous never has any."""
        return has_no_room(self.channel)

    def same_channel(self, other, /):
        """Whether `other`, a sender or a receiver, is of this channel."""
        return channel_of(other) is self.channel

    def __reduce__(self):
        raise TypeError("cannot pickle 'fastsync.channel.Sender' object")

    def __sizeof__(self):
        return <size_t>object.__sizeof__(self) + size_in_memory(self.channel)

    @classmethod
    def __class_getitem__(cls, item, /):
        return GenericAlias(cls, item)


cdef object channel_of(object handle):
    if isinstance(handle, Sender):
        return (<Sender>handle).channel
    if isinstance(handle, _Timer):
        return handle
    if isinstance(handle, Receiver):
        return (<Receiver>handle).channel
    raise TypeError(f"a Sender or a Receiver, not {type(handle).__name__}")


@cython.trashcan(True)
@cython.no_gc_clear
cdef class Receiver:
    """The end of a channel that items are received from; made by bounded(), unbounded() and
    clone(), and by after(), tick() and never().

    Any thread may use it, several at once; each item goes to one of them, and those who wait
    are served in order.  `for item in receiver:` receives until the channel is empty and has no
    sender any more.  `with receiver:` closes it at the end of the block; so does the end of the
    last reference to it, whenever that comes."""

    def __dealloc__(self):
        close_receiver(self)

    def recv(self):
        """The next item, waiting for it; RecvClosed when none is left and no sender either."""
        return self.take(FS_FOREVER)

    def try_recv(self):
        """The next item if there is one; else RecvEmpty, or RecvClosed."""
        return self.take(0)

    def recv_timeout(self, seconds, /):
        """As recv(), for so many seconds at most: RecvTimeout after that."""
        return self.take(timed(deadline_for(seconds)))

    def recv_deadline(self, when, /):
        """As recv(), until time.monotonic() is `when`: RecvTimeout after that."""
        return self.take(timed(deadline_until(when)))

    cdef object take(self, int64_t deadline):
        if is_closed(&self.is_closed):
            raise RecvClosed
        return get_item(self.channel, deadline)

    def __iter__(self):
        return self

    def __next__(self):
        try:
            return self.take(FS_FOREVER)
        except RecvClosed:
            raise StopIteration from None

    def clone(self):
        """Another receiver of this channel, to be closed on its own; RecvClosed if this one is."""
        cdef fs_ring* r = &self.channel.ring
        cdef Receiver other = Receiver.__new__(Receiver)
        ring_lock(r)
        # Under the lock, so that the count does not go from 0 to 1.
        if is_closed(&self.is_closed) or self.channel.receivers == 0:
            ring_unlock(r)
            raise RecvClosed
        self.channel.receivers += 1
        ring_unlock(r)
        other.channel = self.channel
        return other

    def close(self):
        """Receive nothing more by this receiver; after the last one, sends raise SendClosed,
        and items that are left are dropped."""
        close_receiver(self)

    @property
    def closed(self):
        """Whether this receiver has been closed."""
        return is_closed(&self.is_closed)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.close()

    @property
    def capacity(self):
        """How many items the channel holds at most; None for no limit, 0 for a rendezvous."""
        return capacity_of(self.channel)

    def __len__(self):
        return ring_count(&self.channel.ring)

    def __bool__(self):
        return True

    def is_empty(self):
        """Whether no item is there, at this moment."""
        return ring_count(&self.channel.ring) == 0

    def is_full(self):
        """Whether there is no room, at this moment; a rendezvous never has any."""
        return has_no_room(self.channel)

    def same_channel(self, other, /):
        """Whether `other`, a sender or a receiver, is of this channel."""
        return channel_of(other) is self.channel

    def __reduce__(self):
        raise TypeError("cannot pickle 'fastsync.channel.Receiver' object")

    def __sizeof__(self):
        return <size_t>object.__sizeof__(self) + (
            size_in_memory(self.channel) if self.channel is not None else 0)

    @classmethod
    def __class_getitem__(cls, item, /):
        return GenericAlias(cls, item)


# -- timers: receivers whose messages are made when they are received ------------------------

cdef object take_tick(_Timer self, int64_t* due):
    """What time.monotonic() was to be then, or None; `due` is when it comes, or the next."""
    cdef int64_t now = fs_now()
    cdef int64_t then
    mutex_lock_inner(&self.lock)
    then = self.due
    if then <= now:
        # A tick that comes late counts from now, so that ticks never pile up.
        self.due = now + self.period if self.period > 0 else FS_FOREVER
    due[0] = self.due
    mutex_unlock_inner(&self.lock)
    return then * 1e-9 if then <= now else None


@cython.final
cdef class _Timer(Receiver):
    """A receiver of after(), tick() or never(): it has no senders and does not come to an end."""

    cdef object take(self, int64_t deadline):
        cdef int64_t due
        cdef size_t none
        while True:
            if is_closed(&self.is_closed):
                raise RecvClosed
            message = take_tick(self, &due)
            if message is not None:
                return message
            if deadline == 0:
                raise RecvEmpty
            if is_past(deadline):
                raise RecvTimeout
            if select_park(NULL, NULL, 0, min(due, deadline), FS_SIGNALS, &none) == (
                    FS_SELECT_SIGNALS):
                PyErr_CheckSignals()

    cdef bint has_come(self) noexcept:
        cdef bint come
        mutex_lock_inner(&self.lock)
        come = self.due <= fs_now()
        mutex_unlock_inner(&self.lock)
        return come

    def clone(self):
        """This same receiver: what it gives it gives once."""
        return self

    def close(self):
        """Receive nothing more by it."""
        fs_u8_exchange(&self.is_closed, 1)

    @property
    def capacity(self):
        """How many messages may wait to be received."""
        return 0 if self.period < 0 else 1

    def __len__(self):
        return self.has_come()

    def is_empty(self):
        """Whether no message is there, at this moment."""
        return not self.has_come()

    def is_full(self):
        """Whether no further message has room until one is received."""
        return self.period < 0 or self.has_come()

    def same_channel(self, other, /):
        """Whether `other` is this same receiver."""
        return channel_of(other) is self


# -- making them ------------------------------------------------------------------------------

cdef tuple new_pair(size_t limit):
    cdef _Channel channel = _Channel.__new__(_Channel)
    cdef Sender sender = Sender.__new__(Sender)
    cdef Receiver receiver = Receiver.__new__(Receiver)
    channel.ring.limit = limit
    channel.senders = channel.receivers = 1
    sender.channel = receiver.channel = channel
    return sender, receiver


def bounded(capacity, /):
    """A channel that holds at most `capacity` items: (Sender, Receiver).

    With 0 each send waits until its item is received: a rendezvous.  ValueError below 0.
    """
    cdef Py_ssize_t limit
    if not PyIndex_Check(capacity):
        raise TypeError(f"the capacity must be an integer, not {type(capacity).__name__}")
    limit = PyNumber_AsSsize_t(capacity, PyExc_OverflowError)
    if limit < 0:
        raise ValueError("the capacity must not be negative")
    return new_pair(<size_t>limit)


def unbounded():
    """A channel without a limit, on which no send waits: (Sender, Receiver)."""
    return new_pair(ring_no_limit())


cdef _Timer new_timer(int64_t due, int64_t period):
    cdef _Timer timer = _Timer.__new__(_Timer)
    timer.due = due
    timer.period = period
    return timer


def after(seconds, /):
    """A receiver of one message, which comes in so many seconds: what time.monotonic() was then.

    After that it stays empty, and open.
    """
    cdef int64_t ns = saturating_ns(seconds)
    cdef int64_t now = fs_now()
    return new_timer(FS_FOREVER if ns >= FS_FOREVER - now else now + ns, 0)


def tick(seconds, /):
    """A receiver of a message every so many seconds, what time.monotonic() was then.

    One that has not been received when the next is due is the only one: that next one
    comes `seconds` after it is received.  ValueError unless `seconds` is positive.
    """
    cdef int64_t ns = saturating_ns(seconds)
    cdef int64_t now = fs_now()
    if ns <= 0:
        raise ValueError("seconds must be positive")
    if ns >= FS_FOREVER - now:
        return new_timer(FS_FOREVER, 0)
    return new_timer(now + ns, min(ns, <int64_t>1 << 60))


def never():
    """A receiver of nothing, ever: for a case of select() that is to be switched off."""
    return new_timer(FS_FOREVER, -1)


def whole(handle, /):
    """What profile.name() names for a sender or a receiver: the channel; else itself."""
    return handle if type(handle) not in (Sender, Receiver) else channel_of(handle)


collect_items(_Channel, _Ring)
finish_type(_Channel, False)
rename_type(_Channel, b"fastsync.channel.Channel")
rename_type(Sender, b"fastsync.channel.Sender")
rename_type(Receiver, b"fastsync.channel.Receiver")
rename_type(_Timer, b"fastsync.channel.Receiver")
for _type in (Sender, Receiver, _Timer):
    forbid_instances(_type)
    finish_type(_type, False)
    register_pinnable(_type)
del _type
