"""Raw words: locks without a Python object, for `cimport`, usable without the GIL."""
