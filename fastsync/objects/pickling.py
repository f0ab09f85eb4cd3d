"""unpickled_fresh: objects that have locks in them are pickled, and get new, free ones."""

_KINDS = "Lock RLock Condition Semaphore BoundedSemaphore Event Barrier".split()
# (module, name) of a type -> the name in `threading`. By name, because that is how the standard
# library's types are known after they were swapped, too.
_NAMES = {("threading", kind): kind for kind in _KINDS}
_NAMES["_thread", "lock"] = "Lock"
_NAMES["_thread", "RLock"] = "RLock"


def unpickled_fresh(cls):
    """Class decorator: instances are pickled though they have locks, and get new, free ones.

    An attribute that is a Lock, RLock, Condition, Semaphore, BoundedSemaphore, Event or Barrier,
    of this library or the standard library's, is made anew by unpickling, with `threading` as it
    is in that process: never held, never waited for, of no relation to the original. A Condition's
    lock and an attribute that is the same lock are the same again. A Semaphore has the value of
    the moment (a BoundedSemaphore its first one), an Event its flag. copy.deepcopy() does the
    same; copy.copy() shares the locks, as it does for other classes.

    The state is whatever `__reduce_ex__()` or `__getstate__()` of the class gives, read without any
    lock: hold yours if other threads may be changing it. Only attributes are looked at, no locks
    in lists or dicts, and no instances of subclasses of the seven types. The other side needs
    fastsync.
    """
    original = cls.__reduce_ex__

    def __reduce_ex__(self, protocol):
        reduced = original(self, protocol)
        if not isinstance(reduced, tuple) or len(reduced) < 3:
            return reduced
        state = reduced[2]
        if isinstance(state, tuple) and len(state) == 2:  # of the dict, of the slots
            state = tuple(map(_with_fresh, state))
        return (*reduced[:2], _with_fresh(state), *reduced[3:])

    __reduce_ex__.__qualname__ = f"{cls.__qualname__}.__reduce_ex__"
    cls.__reduce_ex__ = __reduce_ex__
    return cls


def _with_fresh(state):
    return _State(state) if type(state) is dict and any(map(_name, state.values())) else state


class _State(dict):
    """A state that copy.copy() sees as it is, and that is pickled with fresh locks."""

    def __reduce_ex__(self, protocol):
        fresh = {}
        return dict, ({name: _fresh(value, fresh) for name, value in self.items()},)


class _Fresh:
    """Stands for a lock in a pickle, and is a new one when it is unpickled."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __reduce__(self):
        return _make, self.arguments


def _fresh(value, fresh):
    """Return what to pickle for the value; one and the same for one lock."""
    name = _name(value)
    if name is None:
        return value
    if id(value) not in fresh:
        fresh[id(value)] = _Fresh(name, *_arguments(name, value, fresh))
    return fresh[id(value)]


def _name(value):
    return _NAMES.get((type(value).__module__, type(value).__name__))


def _arguments(name, lock, fresh):
    if name == "Condition":
        return [_fresh(lock._lock, fresh)]
    if name in ("Semaphore", "BoundedSemaphore"):
        return [getattr(lock, "_initial_value", lock._value)]
    if name == "Event":
        return [lock.is_set()]
    if name == "Barrier":
        return [lock.parties, lock._action, lock._timeout]
    return []


def _make(name, *arguments):
    import threading

    if name != "Event":
        return getattr(threading, name)(*arguments)
    event = threading.Event()
    if arguments[0]:
        event.set()
    return event


def copy_of(lock):
    """How to make a copy of a lock with the state that it has: a function and its arguments."""
    name = _name(lock)
    if name == "Condition":
        return _make, (name, lock._lock)
    if name in ("Semaphore", "BoundedSemaphore"):
        return _make_semaphore, (name, lock._value, getattr(lock, "_initial_value", lock._value))
    return _make, (name, *_arguments(name, lock, {}))


def _make_semaphore(name, value, initial):
    semaphore = _make(name, initial)
    semaphore._value = value
    return semaphore
