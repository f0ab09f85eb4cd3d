# A type checker may take our locks for the standard library's, which they stand in for.
import sys
from threading import (
    TIMEOUT_MAX,
    Barrier,
    BoundedSemaphore,
    BrokenBarrierError,
    Condition,
    Event,
    ExceptHookArgs,
    Lock,
    RLock,
    Semaphore,
    Thread,
    ThreadError,
    Timer,
    active_count,
    current_thread,
    enumerate,
    excepthook,
    get_ident,
    get_native_id,
    getprofile,
    gettrace,
    local,
    main_thread,
    setprofile,
    settrace,
    stack_size,
)
from threading import activeCount as activeCount
from threading import currentThread as currentThread

if sys.version_info >= (3, 12):
    from threading import setprofile_all_threads, settrace_all_threads
if sys.version_info >= (3, 15):
    from threading import concurrent_tee, serialize_iterator, synchronized_iterator

__all__ = [
    "TIMEOUT_MAX",
    "Barrier",
    "BoundedSemaphore",
    "BrokenBarrierError",
    "Condition",
    "Event",
    "ExceptHookArgs",
    "Lock",
    "RLock",
    "Semaphore",
    "Thread",
    "ThreadError",
    "Timer",
    "active_count",
    "current_thread",
    "enumerate",
    "excepthook",
    "get_ident",
    "get_native_id",
    "getprofile",
    "gettrace",
    "local",
    "main_thread",
    "setprofile",
    "settrace",
    "stack_size",
]
if sys.version_info >= (3, 12):
    __all__ += ["setprofile_all_threads", "settrace_all_threads"]
if sys.version_info >= (3, 15):
    __all__ += ["concurrent_tee", "serialize_iterator", "synchronized_iterator"]
