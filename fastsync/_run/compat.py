"""What build of Python is this?"""

import sys

# Known without importing sysconfig, which would cost more than all of fastsync.
FREE_THREADED = "free-threading build" in sys.version


def gil_enabled():
    """Return whether the GIL is on now: an import can turn it on in a free-threaded build."""
    return not FREE_THREADED or sys._is_gil_enabled()
