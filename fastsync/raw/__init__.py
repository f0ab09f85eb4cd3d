"""Raw words: locks without a Python object, for `cimport`, usable without the GIL."""

import fastsync

__path__ = fastsync._with_compiled(__name__, __path__)
