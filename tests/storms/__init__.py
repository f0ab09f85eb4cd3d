"""Storms: threads that do everything at random for a while; then all must be in order.

One file a family. tools/stress.py runs them, test_stress.py for a second each.
"""

import time

from storms import (  # noqa: F401
    atomics,
    condvars,
    forks,
    guards,
    life,
    once,
    parkers,
    references,
    rwlocks,
    signals,
    threading_types,
)
from storms.crowd import STORMS, Crowd


def run(name, seconds, seed):
    """Run one storm; say what it did. Its name is part of the seed, so that they differ."""
    print(f"{name}: seed {seed}", flush=True)
    begin = time.monotonic()
    count = STORMS[name](Crowd(seconds, f"{seed} {name}"))
    print(f"{name}: {count} in {time.monotonic() - begin:.1f} s", flush=True)
