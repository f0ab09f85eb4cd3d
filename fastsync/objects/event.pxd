"""Event, for Cython code that is handed one."""
from fastsync.objects._extensible cimport _Extensible
from fastsync.raw.event cimport fs_event


cdef class Event(_Extensible):
    cdef fs_event event


cdef inline fs_event* event_word(Event event) noexcept nogil:
    if event is None:
        return NULL
    return &event.event
