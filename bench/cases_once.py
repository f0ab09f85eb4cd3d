"""One-time initialization after it has happened, beside a method call."""

from harness import Goal, op

METHOD = "class C:\n    def f(self): return self\nx = C()"
CACHED = "from functools import lru_cache\n@lru_cache(None)\ndef x(): return 1\nx()"
ONCE = "from fastsync import once\n@once\ndef x(): return 1\nx()"
LAZY = "from fastsync import LazyLock; x = LazyLock(object); x.value"
CELL = "from fastsync import OnceLock; x = OnceLock(); x.set(1)"
GATE = "from fastsync import Once; x = Once(); f = int; x.call_once(f)"


def properties(kind, home):
    return (
        f"from {home} import {kind}\nclass C:\n    @{kind}\n    def v(self): return 1\nx = C(); x.v"
    )


CASES = [
    op(
        "once.function",
        {
            "method call": (METHOD, "x.f()"),
            "fastsync": (ONCE, "x()"),
            "functools.lru_cache": (CACHED, "x()"),
        },
        baseline="method call",
        goals=[Goal(1.0)],
        title="A function under `@once`, later calls",
    ),
    op(
        "once.lazy",
        {
            "method call": (METHOD, "x.f()"),
            "fastsync": (LAZY, "x.value"),
            "fastsync force()": (LAZY, "x.force()"),
        },
        baseline="method call",
        goals=[Goal(1.0), Goal(1.0, who="fastsync force()")],
        title="LazyLock, once made",
    ),
    op(
        "once.lock",
        {
            "method call": (METHOD, "x.f()"),
            "fastsync": (CELL, "x.get()"),
            "fastsync get_or_init()": (CELL + "; f = int", "x.get_or_init(f)"),
            "fastsync Once": (GATE, "x.call_once(f)"),
        },
        baseline="method call",
        title="OnceLock and Once, once set",
    ),
    op(
        "once.property",
        {
            "functools.cached_property": (properties("cached_property", "functools"), "x.v"),
            "fastsync": (properties("lazy_property", "fastsync"), "x.v"),
        },
        baseline="functools.cached_property",
        title="lazy_property, once made",
    ),
]
