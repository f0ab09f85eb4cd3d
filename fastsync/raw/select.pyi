# Python sees nothing of it: it is for `cimport`.
__pyx_capi__: dict[str, object]
__test__: dict[str, str]
