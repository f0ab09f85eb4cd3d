"""What runs once."""

import contextlib
from functools import partial

import fastsync as fs
from storms.crowd import storm


class Fails(Exception):
    pass


class Beginning:
    """Things that are done once, fresh, with what their functions did and whether they fail."""

    def __init__(self, chance):
        self.fails = chance.random() < 0.3
        self.runs = dict.fromkeys(("once", "forced", "lazy", "function", "set", "property"), 0)
        self.once, self.set = fs.Once(), fs.OnceLock()
        self.lazy = fs.LazyLock(partial(self.run, "lazy"))
        self.function = fs.once(partial(self.run, "function"))

    def run(self, name):
        """What may run once, and fail if all here do."""
        self.runs[name] += 1
        if self.fails:
            raise Fails
        return self.runs, name

    def succeed(self, name, *_):
        """What may run once, and does not fail."""
        self.runs[name] += 1
        return self.runs, name

    def call(self, function, *arguments):
        """Call it: it fails if all here do, and only then."""
        try:
            result = function(*arguments)
        except (Fails, RuntimeError):
            assert self.fails, "failed without reason"
            return None
        assert not self.fails, "did not fail"
        return result

    def begin_once(self, _):
        with contextlib.suppress(Fails, RuntimeError):  # poisoned, until somebody below succeeds
            self.once.call_once(partial(self.run, "once"))
        self.once.call_once_force(partial(self.succeed, "forced"))
        assert self.once.is_completed() and self.once.state() is fs.OnceState.Done
        self.once.wait()
        assert self.runs["forced"] == self.fails and self.runs["once"] == 1

    def begin_lazy(self, chance):
        value = self.call(self.lazy.force) if chance.random() < 0.5 else self.call(self.value)
        assert self.fails or value[0] is self.runs
        assert self.runs["lazy"] == 1, "not run once"

    def value(self):
        return self.lazy.value

    def begin_function(self, _):
        value = self.call(self.function)
        assert self.fails or value[0] is self.runs
        assert self.runs["function"] == 1, "not run once"

    @fs.lazy_property
    def total(self):
        if self.runs["property"]:
            return self.succeed("property")  # an exception is passed on: the next one tries again
        return self.run("property")

    def begin_property(self, _):
        with contextlib.suppress(Fails):
            assert self.total is self.total, "two values"
        assert self.total[0] is self.runs
        assert self.runs["property"] == 1 + self.fails, "not run once"

    def fail(self):
        raise Fails

    def begin_set(self, chance):
        with contextlib.suppress(Fails):
            if self.fails:
                self.set.get_or_try_init(self.fail)  # passed on: the next one tries again
        if chance.random() < 0.3:
            mine = self.runs, "set by value"
            assert self.set.set(mine) == (self.set.get() is mine)
        value = self.set.get_or_init(partial(self.succeed, "set"))
        assert value is self.set.get() is self.set.wait(), "two values"
        assert self.runs["set"] == (value[1] == "set"), "not run once"


PARTS = ("once", "lazy", "function", "property", "set")


@storm
def beginnings(crowd):
    """Fresh Once, OnceLock, LazyLock, lazy_property, once: they run once, also if that fails."""
    shared = fs.AtomicRef(Beginning(crowd.random))
    begun = fs.Counter()

    def work(chance):
        while crowd.going():
            current = shared.load()
            for name in chance.sample(PARTS, len(PARTS)):
                getattr(current, f"begin_{name}")(chance)
            if shared.compare_and_set(current, Beginning(chance)):
                begun.increment()

    crowd.start(work, 5)
    crowd.join()
    return begun.value()
