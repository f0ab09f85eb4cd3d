"""Which lock it is, and where a thread is: what reports about locks are made of."""
from libc.stdint cimport uint64_t, uintptr_t


# A call stack, innermost call first: pairs of a code object and the offset of the
# instruction in it.  Each different stack is kept once, and never freed.
cdef struct fs_stack:
    uint64_t hash
    size_t depth
    size_t number       # 1, 2, 3 ... in the order of first capture
    fs_stack* next
    uintptr_t calls[1]  # 2 * depth

# This thread's stack now, or NULL.  Needs an attached thread state; runs no Python
# code; an exception that is set stays set.
cdef fs_stack* capture_stack() noexcept
# Whether its innermost call is of a generator or a coroutine, which another thread may continue.
cdef bint is_suspendable(const fs_stack* stack) noexcept
# [(file, line, function), ...], innermost call first.
cdef list stack_lines(const fs_stack* stack)


cdef class Origin:
    cdef object reference      # a weak reference, which is what it is known by
    cdef readonly str kind     # the name of the lock's type
    cdef public object name    # given by the program, or None
    cdef readonly size_t number
    cdef fs_stack* made        # where the lock was made; NULL: before anybody looked
    cdef bint ignored          # by the deadlock detector: it changes hands
    cdef bint dead             # the lock is gone
    cdef dict after            # locks that were taken while this one was held; never rebound


# Its Origin, made if need be; it may only be called outside of all internal locks.
cdef Origin origin_of(object lock)
# The same, or None when nothing is known of the lock.  Never raises; `failed` is set when there was
# no memory to look.
cdef Origin known_origin(object lock, bint* failed)
# A lock is being made: remember where.  Never raises.
cdef void note_made(object lock) noexcept
# It is a part of another object, `name` in it, and known by that.  Never raises.
cdef void note_part(object lock, object whole, str name) noexcept
