"""Long chains: what owns the next one, and so on, is freed without a deep stack.

Each chain is dropped in a child process, by a thread with a small stack: a deallocator that calls
the next one's needs a hundred bytes of it for each link at the least, and would run out.
"""

import pytest
from conftest import run_python

LINKS = 100_000

PROGRAM = """
import sys, threading
from fastsync import *

def arc(x): return Arc(x)
def arc_on_drop(x): return Arc(None, Owner(x))
def arc_calls_drop(x): return Arc(x, Arc.drop if type(x) is Arc else None)
def arc_drops_in_python(x): return Arc(x, lambda value: type(value) is Arc and value.drop())
def weak_on_drop(x): return Arc(None, Owner(x)).downgrade()
def ref(x): return AtomicRef(x)
def cell(x): return AtomicCell(x)
def once_lock(x): new = OnceLock(); new.set(x); return new
def lazy(x): new = LazyLock(lambda: x); new.force(); return new
def lazy_pending(x): return LazyLock(Owner(x))
def lazy_failed(x): new = LazyLock(Owner(x, ValueError(x))); swallow(new.force); return new
def once_of(x): new = once(Owner(x)); new(); return new
def once_pending(x): return once(Owner(x))
def once_failed(x): new = once(Owner(x, ValueError(x))); swallow(new); return new
def once_attribute(x): new = once(len); new.x = x; return new
def lazy_prop(x): return lazy_property(Owner(x))
def unparker(x): return Parker().unparker()

class Owner:
    __slots__ = ("owned", "error")
    def __init__(self, owned, error=None): self.owned, self.error = owned, error
    def __call__(self, *_):
        if self.error is not None: raise self.error
        return self.owned

def swallow(function):
    try: function()
    except ValueError as error: error.__traceback__ = None

MAKERS = dict(globals())
names, links = sys.argv[1].split(), int(sys.argv[2])

def work():
    x = None
    for i in range(links):
        x = MAKERS[names[i % len(names)]](x)
    print("made", flush=True)
    if len(sys.argv) > 3:
        x.drop()
    del x
    print("freed", flush=True)

threading.stack_size(1 << 20)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""

ONE_KIND = """arc arc_on_drop arc_calls_drop arc_drops_in_python weak_on_drop ref cell
once_lock lazy_pending""".split()
MIXED = [
    "arc ref once_lock",
    "weak_on_drop once_lock arc_calls_drop arc",
]


@pytest.mark.parametrize("names", ONE_KIND + MIXED)
def test_a_long_chain_is_freed(names):
    assert run_python("-c", PROGRAM, names, LINKS).stdout == "made\nfreed\n"


@pytest.mark.parametrize("names", ["arc", "arc_calls_drop", "arc_drops_in_python", "ref arc"])
def test_a_long_chain_is_dropped(names):
    assert run_python("-c", PROGRAM, names, LINKS, "drop").stdout == "made\nfreed\n"
