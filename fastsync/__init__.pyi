from fastsync import threading as threading
from fastsync._install import install, installed, uninstall
from fastsync._pin import is_pinned, pin
from fastsync.array import AtomicArray
from fastsync.atomics import (
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
    Counter,
    Ordering,
    compiler_fence,
    fence,
    spin_loop,
)
from fastsync.cell import Arc, AtomicCell, AtomicRef, Weak
from fastsync.rwlock import (
    LockView,
    MappedReadGuard,
    MappedWriteGuard,
    ReadGuard,
    RwLock,
    ShardedLock,
    ShardedWriteGuard,
    UpgradableReadGuard,
    WriteGuard,
)

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
    "Counter",
    "LockView",
    "MappedReadGuard",
    "MappedWriteGuard",
    "Ordering",
    "ReadGuard",
    "RwLock",
    "ShardedLock",
    "ShardedWriteGuard",
    "UpgradableReadGuard",
    "Weak",
    "WriteGuard",
    "__version__",
    "compiler_fence",
    "fence",
    "get_include",
    "install",
    "installed",
    "is_pinned",
    "pin",
    "spin_loop",
    "uninstall",
]

__version__: str

def get_include() -> str: ...
