"""The deadlock detector's memory: who holds and who waits for which lock.

Nothing can switch it on yet: the hooks are here for the locks to call.
"""
from libc.stdint cimport int64_t


cdef void trace_wait(object lock, int kind, int64_t deadline) noexcept:
    pass


cdef void trace_waited(object lock, int kind, bint acquired) noexcept:
    pass


cdef void trace_acquired(object lock, int kind) noexcept:
    pass


cdef void trace_released(object lock, int kind) noexcept:
    pass


cdef void trace_changed(object lock, int held, int now) noexcept:
    pass


cdef void trace_disowned(object lock) noexcept:
    pass


cdef void trace_wait_condition(object lock, int kind) noexcept:
    pass
