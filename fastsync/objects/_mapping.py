"""What `guard.map(f)` needs: f names a part of a value, and the part is read and set later.

f is not given the value but a stand-in that writes down which attributes and items are asked of
it: `lambda v: v["a"].x` gives the steps `item "a"`, `attribute "x"`.
"""


class _Recorder:
    """Stand for a value; every attribute and every item of it is a stand-in too."""

    __slots__ = ("steps",)
    steps: tuple  # (is an item?, its name or key), from the value to the part

    def __init__(self, steps=()):
        _steps.__set__(self, steps)

    def __getattribute__(self, name):
        if name.startswith("__") and name.endswith("__"):
            return object.__getattribute__(self, name)
        return _Recorder((*_steps.__get__(self), (False, name)))

    def __getitem__(self, key):
        return _Recorder((*_steps.__get__(self), (True, key)))

    def __iter__(self):
        raise TypeError("a part is named by attributes and items only")

    __call__ = __iter__


_steps = _Recorder.__dict__["steps"]


def record(function):
    """Return the steps that `function` takes from its argument to the part it names.

    None when it returns None. TypeError when it returns anything but a part of its argument.
    """
    part = function(_Recorder())
    if part is None:
        return None
    if type(part) is not _Recorder:
        raise TypeError("the function must return a part of its argument: an attribute or an item")
    return _steps.__get__(part)


class Part:
    """An attribute or an item of an object, some steps (at least one) into a value."""

    __slots__ = ("_is_item", "_key", "_owner")

    def __init__(self, value, steps):
        *way, (self._is_item, self._key) = steps
        for is_item, key in way:
            value = value[key] if is_item else getattr(value, key)
        self._owner = value
        self.get()  # a part that is not there is an error now, not later

    def get(self):
        """Return what the part is now."""
        return self._owner[self._key] if self._is_item else getattr(self._owner, self._key)

    def set(self, value):
        """Replace the part."""
        if self._is_item:
            self._owner[self._key] = value
        else:
            setattr(self._owner, self._key, value)
