"""Long chains: what owns the next one, and so on, is freed without a deep stack.

Each chain is dropped in a child process, by a thread with a stack of five megabytes: a deallocator
that calls the next one's needs some of it for each link, some thirty bytes, and would run out.
Ten thousand levels, as many as the interpreter lets its own deallocators go, fit.
"""

import pytest
from conftest import run_python

LINKS = 250_000

PROGRAM = """
import gc, sys, threading
import fastsync.queue, fastsync.threading
from fastsync import *
from fastsync.channel import bounded

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
def mutex(x): return Mutex(x)
def fair_mutex(x): return FairMutex(x)
def reentrant(x): return ReentrantMutex(x)
def rwlock(x): return RwLock(x)
def sharded(x): return ShardedLock(x)
def guard(x): return Mutex(x).lock()
def block(x): return FairMutex(x).__enter__()
def mapped(x): return Mutex([x]).lock().map(part)
def unlocked(x): return lent(Mutex(x).lock())
def reentrant_guard(x): return ReentrantMutex(x).lock()
def reentrant_block(x): return ReentrantMutex(x).__enter__()
def reentrant_mapped(x): return ReentrantMutex([x]).lock().map(part)
def reentrant_unlocked(x): return lent(ReentrantMutex(x).lock())
def read_guard(x): return RwLock(x).read()
def write_guard(x): return RwLock(x).write()
def upgradable_guard(x): return RwLock(x).upgradable_read()
def sharded_guard(x): return ShardedLock(x).write()
def mapped_read(x): return ShardedLock([x]).read().map(part)
def mapped_write(x): return RwLock([x]).write().map(part)
def rwlock_unlocked(x): return lent(RwLock(x).write())
def view(x): return RwLock(x).reader
def queue(x): return filled(fastsync.queue.Queue(), x)
def lifo_queue(x): return filled(fastsync.queue.LifoQueue(), x)
def priority_queue(x): return filled(fastsync.queue.PriorityQueue(), x)
def simple_queue(x): return filled(fastsync.queue.SimpleQueue(), x)
def opened_queue(x): new = fastsync.queue.Queue(); new.mutex; return filled(new, x)
def channel(x): sender, new = bounded(1); sender.send(x); return new
def sender(x): new, receiver = bounded(1); new.send(x); return new, receiver
def event(x): return named(fastsync.threading.Event(), x)
def semaphore(x): return named(fastsync.threading.Semaphore(), x)
def condition(x): return named(fastsync.threading.Condition(), x)
def condition_over(x): return fastsync.threading.Condition(x or fastsync.threading.Lock())
def barrier(x): return named(fastsync.threading.Barrier(1), x)
def barrier_action(x): return fastsync.threading.Barrier(1, Owner(x))
def array(x): return AtomicArray.from_buffer(bytearray(8) if x is None else x)

def part(value): return value[0]
def filled(queue, x): queue.put(x); return queue
def named(thing, x): thing.x = x; return thing
def lent(guard): block = guard.unlocked(); block.__enter__(); return block

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
    gc.collect()  # of what is in cycles with its mutex: the guard of a block, a view
    print("freed", flush=True)

threading.stack_size(5 << 20)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""

ONE_KIND = """
arc arc_on_drop arc_calls_drop arc_drops_in_python weak_on_drop ref cell once_lock lazy
lazy_pending lazy_failed once_of once_pending once_failed once_attribute lazy_prop mutex
fair_mutex reentrant rwlock sharded guard block mapped unlocked reentrant_guard reentrant_block
reentrant_mapped reentrant_unlocked read_guard write_guard upgradable_guard sharded_guard
mapped_read mapped_write rwlock_unlocked view queue lifo_queue priority_queue simple_queue
opened_queue channel sender event semaphore condition condition_over barrier barrier_action array
""".split()
MIXED = [
    "arc ref once_lock",
    "arc lazy once_of cell",
    "weak_on_drop once_lock lazy_pending arc_calls_drop arc",
    "once_failed lazy_failed lazy_prop once_attribute arc_on_drop",
    "mutex guard unlocked mapped reentrant_guard reentrant_mapped",
    "fair_mutex block reentrant_unlocked",
    "rwlock read_guard mapped_write sharded mapped_read rwlock_unlocked view arc guard ref",
    "arc mutex",
    "guard arc once_lock",
    "queue mutex channel sharded event once_lock barrier_action rwlock condition",
]


@pytest.mark.parametrize("names", ONE_KIND + MIXED)
def test_a_long_chain_is_freed(names):
    assert run_python("-c", PROGRAM, names, LINKS, timeout=200).stdout == "made\nfreed\n"


@pytest.mark.parametrize("names", ["arc", "arc_calls_drop", "arc_drops_in_python", "ref arc"])
def test_a_long_chain_is_dropped(names):
    assert run_python("-c", PROGRAM, names, LINKS, "drop", timeout=200).stdout == "made\nfreed\n"
