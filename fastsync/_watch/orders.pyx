"""In which order locks are taken, and whether two threads may do so against each other.

Origin.after: {Origin of a lock taken under it: _Edge}.  No lock protects it, and it runs no
Python code, so no signal handler either: each operation on a dict is one step, an edge is
there before its thread looks for a circle, so of two threads one finds it.

All runs inside a program's calls, also where memory is short: loops, not comprehensions,
whose clean-up in Cython is not to be trusted then.
"""
from libc.stdint cimport uint64_t, uintptr_t
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF

from fastsync._watch.holds cimport this_number
from fastsync._watch.origins cimport capture_stack, fs_stack, Origin, stack_lines
from fastsync.raw.c_wait cimport fs_thread_id

from fastsync._watch import origins as _origins

cdef enum:
    TIMES = 8      # of an edge
    LOOKS = 2000   # at ways, for one violation: a longer circle may be missed


cdef class _Edge:
    """That one lock was held when another was taken: each time with other locks around."""
    cdef list times       # of _Time

    def __cinit__(self):
        self.times = []


cdef class _Time:
    cdef frozenset gates  # numbers of the other locks that were held
    cdef const fs_stack* where
    cdef uint64_t thread
    cdef uintptr_t ident


cdef void note_orders(PyObject** firsts, size_t count, Origin second) noexcept:
    cdef size_t i
    try:
        note_all(firsts, count, second)
    except BaseException:
        pass  # memory is short: the program need not notice the detector
    for i in range(count):
        Py_DECREF(<object>firsts[i])


cdef int note_all(PyObject** firsts, size_t count, Origin second) except -1:
    cdef size_t i
    for i in range(count):
        note_order(<Origin><object>firsts[i], second, gates_of(firsts, count, i))
    return 0


cdef frozenset gates_of(PyObject** firsts, size_t count, size_t but):
    """The numbers of all but one."""
    cdef set gates = set()
    cdef size_t i
    for i in range(count):
        if i != but:
            gates.add((<Origin><object>firsts[i]).number)
    return frozenset(gates)


cdef int note_order(Origin first, Origin second, frozenset gates) except -1:
    cdef _Edge edge
    cdef _Time time
    found = first.after.get(second)
    if found is None:
        found = first.after.setdefault(second, _Edge())
    edge = found
    for each in list(edge.times):
        if (<_Time>each).gates <= gates:
            return 0  # nothing new
    if len(edge.times) >= TIMES:
        return 0
    time = _Time.__new__(_Time)
    time.gates = gates
    time.where = capture_stack()
    time.thread = this_number()
    time.ident = fs_thread_id()
    edge.times.append(time)
    find_violations(first, second, time)
    return 0


cdef int find_violations(Origin first, Origin second, _Time time) except -1:
    """Look for ways from `second` back to `first` on which no lock is held all along."""
    cdef list ways = [([first, second], [time], time.gates)]
    cdef set seen = set()
    cdef list path, times
    cdef size_t looked = 0
    for path, times, gates in ways:
        looked += 1
        if looked > LOOKS:
            return 0
        last = path[len(path) - 1]
        for following, edge in list((<Origin>last).after.items()):
            if following is not first and following in path:
                continue
            for each in list((<_Edge>edge).times):
                common = gates & (<_Time>each).gates
                if following is first:
                    if not common:  # else a lock that is held all along keeps them apart
                        add_violation(path, [*times, each])
                        return 0
                    continue
                state = (following, common)
                if state not in seen:
                    seen.add(state)
                    ways.append(([*path, following], [*times, each], common))
    return 0


cdef list violations = []
cdef dict known_violations = {}  # numbers of the locks -> what tells their first finder


cdef int add_violation(list path, list times) except -1:
    cdef _Time time
    cdef set numbers = set()
    cdef list steps = []
    for each in path:
        numbers.add((<Origin>each).number)
    key = frozenset(numbers)
    for each in times:
        time = <_Time>each
        steps.append((stack_lines(time.where), time.thread, time.ident))
    # Both threads of a violation may find it at once; the one that is first in the dict adds it.
    if known_violations.setdefault(key, steps) is steps:
        violations.append((list(path), steps))
    return 0


cdef int forget_orders() except -1:
    for each in _origins.all_origins():
        (<Origin>each).after.clear()
    violations.clear()
    known_violations.clear()
    return 0


def order_violations():
    """[([Origin, ...], [(stack, thread, ident), ...]), ...]: see deadlock.OrderViolation."""
    return list(violations)


def edges():
    """{number of a lock: the numbers of those taken under it}: for tests of what is kept."""
    return {(<Origin>o).number: [(<Origin>p).number for p in list((<Origin>o).after)]
            for o in _origins.all_origins()}
