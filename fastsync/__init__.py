"""Rust-grade synchronization for Python threads.

Everything is imported when it is first used, so `import fastsync` costs next to nothing and
changes nothing: `install()` is what swaps the locks inside `threading`.
"""

import _thread

# At once, and not from the first of our modules: Cython's own check lets the first interpreter in,
# whichever that is, and no other. So one that fails in another interpreter would lock the main one
# out.
if hasattr(_thread, "_is_main_interpreter"):  # 3.13
    _is_main = _thread._is_main_interpreter()
else:
    import _xxsubinterpreters

    _is_main = _xxsubinterpreters.get_current() == _xxsubinterpreters.get_main()
if not _is_main:
    raise ImportError("fastsync works in the main interpreter only")

__version__ = "0.2.0"
_NUMBERS = (0, 2, 0)

# Public name -> the submodule that holds it.
_HOME = {
    "install": "_run.install",
    "installed": "_run.install",
    "uninstall": "_run.install",
}
_HOME |= dict.fromkeys(
    """AtomicBool AtomicI8 AtomicI16 AtomicI32 AtomicI64 AtomicIsize AtomicU8 AtomicU16 AtomicU32
    AtomicU64 AtomicUsize AtomicF32 AtomicF64""".split(),
    "objects.atomics",
)
_HOME |= dict.fromkeys(["Ordering", "compiler_fence", "fence", "spin_loop"], "objects.ordering")
_HOME |= dict.fromkeys(["AtomicCell", "AtomicRef"], "objects.cell")
_HOME |= dict.fromkeys(["Arc", "Weak"], "objects.arc")
_HOME |= {"AtomicArray": "objects.array", "Counter": "objects.counter"}
_HOME |= dict.fromkeys(["is_pinned", "pin"], "objects._pin")
_HOME |= dict.fromkeys(
    ["LockView", "MappedReadGuard", "MappedWriteGuard", "ReadGuard"], "objects.readwrite"
)
_HOME |= dict.fromkeys(["RwLock", "UpgradableReadGuard", "WriteGuard"], "objects.rwlock")
_HOME |= dict.fromkeys(["ShardedLock", "ShardedWriteGuard"], "objects.sharded")
_HOME |= dict.fromkeys(["FairMutex", "MappedMutexGuard", "Mutex", "MutexGuard"], "objects.mutex")
_HOME |= dict.fromkeys(["ReentrantMutex", "ReentrantMutexGuard"], "objects.reentrant")
_HOME["Condvar"] = "objects.condvar"
_HOME |= dict.fromkeys(["LazyLock", "Once", "OnceLock", "OnceState", "once"], "objects.once")
_HOME["lazy_property"] = "objects.lazy_property"
_HOME |= dict.fromkeys(["Parker", "Unparker", "WaitGroup"], "objects.parker")
_HOME["holding"] = "objects.lock"
_HOME |= dict.fromkeys(["owner", "reset_after_fork", "waiters"], "objects.inspection")
_HOME["unpickled_fresh"] = "objects.pickling"
_SUBMODULES = frozenset({"channel", "deadlock", "queue", "threading"})

__all__ = sorted(["__version__", "get_include", *_HOME])


def get_include():
    """Return the folder of the C headers, for `include_dirs` of an extension that cimports us."""
    import os

    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "include")


def _compiled_for(name):
    """Let an extension in that was compiled for this version, or for an earlier one of its series.

    What is cimported from us asks the package for `_compiled_for_0_2_0` before anything else, see
    c_version.pxd. The answer must be a type, and is not used.
    """
    try:
        wanted = tuple(map(int, name.removeprefix("_compiled_for_").split("_")))
    except ValueError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    if wanted[:2] == _NUMBERS[:2] and wanted <= _NUMBERS:
        return object
    raise ImportError(
        f"this extension was compiled for fastsync {'.'.join(map(str, wanted))}, "
        f"but fastsync {__version__} is installed"
    )


def _with_compiled(package, folders):
    """The `__path__` of a package of ours whose modules are in the compiled file."""
    try:
        from fastsync._compiled import Path
    except ModuleNotFoundError as error:
        import sys

        raise ModuleNotFoundError(
            f"fastsync's compiled modules for {sys.implementation.cache_tag} are not in "
            f"{', '.join(__path__)}: install fastsync with the pip of this Python "
            f"(they cannot be imported from a zip archive)",
            name=error.name,
        ) from error
    return Path(package, folders)


def _imports_for_freezers():
    """Never called. Tools that pack a program into one file go by its `import` statements."""
    import copy, copyreg, functools, heapq, os, queue, threading, weakref  # noqa: E401, F401, I001

    # What is in the compiled file they cannot see, nor what that imports.
    from fastsync import _watch, capi, channel, deadlock, objects, profile, queue, raw, threading  # noqa
    from fastsync._run import install, runner  # noqa: F401
    from fastsync.objects import _mapping  # noqa: F401


def __getattr__(name):
    if name.startswith("_compiled_for_"):
        return _compiled_for(name)
    if name in _SUBMODULES:
        return __import__(f"{__name__}.{name}", fromlist=["_"])
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = __import__(f"{__name__}.{_HOME[name]}", fromlist=["_"])
    value = globals()[name] = getattr(module, name)
    return value


def __dir__():
    return sorted({*globals(), *_HOME, *_SUBMODULES})
