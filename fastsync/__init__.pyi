from fastsync import deadlock as deadlock
from fastsync import threading as threading
from fastsync._run.install import install, installed, uninstall
from fastsync.objects._pin import is_pinned, pin
from fastsync.objects.arc import Arc, Weak
from fastsync.objects.array import AtomicArray
from fastsync.objects.atomics import (
    AtomicBool,
    AtomicF32,
    AtomicF64,
    AtomicI8,
    AtomicI16,
    AtomicI32,
    AtomicI64,
    AtomicIsize,
    AtomicU8,
    AtomicU16,
    AtomicU32,
    AtomicU64,
    AtomicUsize,
)
from fastsync.objects.cell import AtomicCell, AtomicRef
from fastsync.objects.condvar import Condvar
from fastsync.objects.counter import Counter
from fastsync.objects.inspection import owner, reset_after_fork, waiters
from fastsync.objects.lazy_property import lazy_property
from fastsync.objects.lock import holding
from fastsync.objects.mutex import FairMutex, MappedMutexGuard, Mutex, MutexGuard
from fastsync.objects.once import LazyLock, Once, OnceLock, OnceState, once
from fastsync.objects.ordering import Ordering, compiler_fence, fence, spin_loop
from fastsync.objects.parker import Parker, Unparker, WaitGroup
from fastsync.objects.pickling import unpickled_fresh
from fastsync.objects.readwrite import LockView, MappedReadGuard, MappedWriteGuard, ReadGuard
from fastsync.objects.reentrant import ReentrantMutex, ReentrantMutexGuard
from fastsync.objects.rwlock import RwLock, UpgradableReadGuard, WriteGuard
from fastsync.objects.sharded import ShardedLock, ShardedWriteGuard

__all__ = [
    "Arc",
    "AtomicArray",
    "AtomicBool",
    "AtomicCell",
    "AtomicF32",
    "AtomicF64",
    "AtomicI8",
    "AtomicI16",
    "AtomicI32",
    "AtomicI64",
    "AtomicIsize",
    "AtomicRef",
    "AtomicU8",
    "AtomicU16",
    "AtomicU32",
    "AtomicU64",
    "AtomicUsize",
    "Condvar",
    "Counter",
    "FairMutex",
    "LazyLock",
    "LockView",
    "MappedMutexGuard",
    "MappedReadGuard",
    "MappedWriteGuard",
    "Mutex",
    "MutexGuard",
    "Once",
    "OnceLock",
    "OnceState",
    "Ordering",
    "Parker",
    "ReadGuard",
    "ReentrantMutex",
    "ReentrantMutexGuard",
    "RwLock",
    "ShardedLock",
    "ShardedWriteGuard",
    "Unparker",
    "UpgradableReadGuard",
    "WaitGroup",
    "Weak",
    "WriteGuard",
    "__version__",
    "compiler_fence",
    "fence",
    "get_include",
    "holding",
    "install",
    "installed",
    "is_pinned",
    "lazy_property",
    "once",
    "owner",
    "pin",
    "reset_after_fork",
    "spin_loop",
    "uninstall",
    "unpickled_fresh",
    "waiters",
]

__version__: str

def get_include() -> str: ...
