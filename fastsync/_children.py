"""Swap the locks in children that multiprocessing starts by spawn and by fork server.

Both run `python -c CODE`, and we put an `install()` in front of CODE. The command line is the one
way in that leaves the environment alone and is early enough: the fork server imports the main
module before it reads anything else from us. `subprocess` does not pass here.
"""

import os
import sys

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
        from fastsync import _profile_command
        _profile_command.begin_in_child()
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


class _Finder:
    """Patches multiprocessing at the end of its import, which we do not want to cause ourselves."""

    def find_spec(self, name, path=None, target=None):
        if name != _MODULE:
            return None
        from importlib.util import find_spec

        unfollow()
        spec = find_spec(name)
        loader = spec.loader
        load = loader.exec_module

        def exec_module(module):
            del loader.exec_module
            load(module)
            _patch(module)

        loader.exec_module = exec_module
        return spec


_finder = _Finder()


def follow():
    """From now on swap the children too."""
    module = sys.modules.get(_MODULE)
    if module is not None:
        _patch(module)
    else:
        sys.meta_path.insert(0, _finder)  # an import halfway through it sees one twice at most


def unfollow():
    """Leave no trace of `follow()`."""
    if _finder in sys.meta_path:
        # Another list: an import of another thread, halfway through this one, would skip a finder.
        sys.meta_path = [finder for finder in sys.meta_path if finder is not _finder]
    current = getattr(sys.modules.get(_MODULE), _FUNCTION, None)
    if hasattr(current, "fastsync_original"):
        setattr(sys.modules[_MODULE], _FUNCTION, current.fastsync_original)
