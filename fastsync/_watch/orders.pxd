"""In which order locks are taken."""
from cpython.object cimport PyObject

from fastsync._watch.origins cimport Origin

# `second` is about to be taken under `count` locks; drops the references to those.
cdef void note_orders(PyObject** firsts, size_t count, Origin second) noexcept
# Begin anew.
cdef int forget_orders() except -1
