"""Swap the locks in children that multiprocessing starts by spawn and by fork server.

Both run `python -c CODE`, and we put an `install()` in front of CODE. The command line is the one
way in that leaves the environment alone and is early enough: the fork server imports the main
module before it reads anything else from us. `subprocess` does not pass here.
"""

import os
import sys

from fastsync._run.imports import after_import, forget

_POSIX = os.name == "posix"
# Every child starts through this function; its callers look it up at each call.
_MODULE = "multiprocessing.util" if _POSIX else "multiprocessing.spawn"
_FUNCTION = "spawnv_passfds" if _POSIX else "get_command_line"

_HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_STARTS = ("from multiprocessing.spawn import", "from multiprocessing.forkserver import")
# A child does not yet have its parent's sys.path when this runs. It may run on another Python
# (multiprocessing.set_executable), which need not have fastsync.
_PRELUDE = f"""\
import os, sys
sys.path.append({_HOME!r})
try:
    import fastsync
    fastsync.install()
    if os.environ.get("FASTSYNC_PROFILE_FOLDER"):
        from fastsync._run import profile_command
        profile_command.begin_in_child()
except ImportError:
    pass
finally:
    sys.path.pop()
"""


def _with_install(command):
    """Return the command line with an install in front of its code, if it starts a child."""
    if "-c" not in command:  # a frozen program: its own start-up code has to install
        return command
    index = command.index("-c") + 1
    if not any(start in command[index] for start in _STARTS):
        return command
    return [*command[:index], _PRELUDE + command[index], *command[index + 1 :]]


def _patch(module):
    original = getattr(module, _FUNCTION)

    if _POSIX:

        def wrapper(path, args, passfds):
            return original(path, _with_install(args), passfds)
    else:

        def wrapper(**kwds):
            return _with_install(original(**kwds))

    wrapper.fastsync_original = original
    setattr(module, _FUNCTION, wrapper)


def follow():
    """From now on swap the children too."""
    after_import(_MODULE, _patch)


def unfollow():
    """Leave no trace of `follow()`."""
    forget(_MODULE)
    current = getattr(sys.modules.get(_MODULE), _FUNCTION, None)
    if hasattr(current, "fastsync_original"):
        setattr(sys.modules[_MODULE], _FUNCTION, current.fastsync_original)
