# Which fastsync an extension was compiled for.  The .pxd files of what exists at
# run time cimport this, so that it is the first thing of ours which a module
# looks up when it is imported, before the size of any type and the signature of
# any function is compared.  The name holds the version, stamped by tools/release.py;
# __getattr__ in __init__.py knows it, or raises what names both versions.


cdef extern from *:
    ctypedef class fastsync._compiled_for_0_2_0 [object PyObject, check_size ignore]:
        pass
