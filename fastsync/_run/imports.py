"""Call a function at the end of the import of a module that we do not want to import ourselves."""

import sys

_waiting = {}  # name of a module -> function to call with it


class _Finder:
    """Finds no module itself: has the others find one that is waited for, and follows its load."""

    def find_spec(self, name, path=None, target=None):
        function = _waiting.pop(name, None)
        if function is None:
            return None
        from importlib.util import find_spec

        try:
            spec = find_spec(name)
        finally:
            _waiting[name] = function
        if spec is None or not hasattr(spec.loader, "exec_module"):
            return None
        spec.loader = _Loader(spec.loader)
        return spec


class _Loader:
    """Stands before the loader of a module until it loads.

    That one's exec_module cannot be replaced: the loader of frozen modules is a class that loads
    others too, and Nuitka's is immutable.
    """

    def __init__(self, loader):
        self._loader = loader

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def exec_module(self, module):
        name = module.__spec__.name
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        function = _waiting.pop(name, None)  # none any more: forget() was called meanwhile
        if not _waiting:
            _remove_finder()
        if function is not None:
            function(module)


_finder = _Finder()


def _remove_finder():
    if _finder in sys.meta_path:
        # Another list: an import of another thread, halfway through this one, would skip a finder.
        sys.meta_path = [finder for finder in sys.meta_path if finder is not _finder]


def after_import(name, function):
    """Call the function with the module of that name: now, or at the end of its import."""
    module = sys.modules.get(name)
    # One that is halfway through its own import has its spec say so.
    if module is not None and not getattr(module.__spec__, "_initializing", False):
        function(module)
        return
    _waiting[name] = function
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)  # an import halfway through it sees one twice at most


def forget(name):
    """Leave no trace of `after_import(name, …)`, if the module has not been imported."""
    _waiting.pop(name, None)
    if not _waiting:
        _remove_finder()
