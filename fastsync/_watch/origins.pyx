"""Which lock it is, and where a thread is: what reports about locks are made of.

An Origin stands for one lock, alive or not: its kind, the line that made it, its
name.  It is found by the lock's weak reference, which the Origin owns: so no other
object can be taken for the lock, whatever address it has.  Origins of locks that are
gone are removed whenever their number has doubled.

A stack is captured by its own thread, without running Python code.  Lines of source
are looked up when somebody reads it.
"""
from libc.stdint cimport int64_t, uint64_t, uintptr_t
from libc.stdlib cimport malloc
from libc.string cimport memcmp, memcpy
from cpython.exc cimport PyErr_Fetch, PyErr_Restore
from cpython.object cimport PyObject
from cpython.weakref cimport PyWeakref_NewRef

from fastsync.raw.remutex cimport fs_remutex, remutex_lock_inner, remutex_unlock_inner

import os

cdef extern from "Python.h":
    ctypedef struct PyThreadState:
        pass
    ctypedef struct PyFrameObject:
        pass
    ctypedef struct PyCodeObject:
        int co_flags
    PyThreadState* PyThreadState_Get() noexcept
    PyFrameObject* PyThreadState_GetFrame(PyThreadState*) noexcept
    PyFrameObject* PyFrame_GetBack(PyFrameObject*) noexcept
    PyCodeObject* PyFrame_GetCode(PyFrameObject*) noexcept
    int PyFrame_GetLasti(PyFrameObject*) noexcept
    int PyCode_Addr2Line(PyCodeObject*, int) noexcept
    enum:
        SUSPENDABLE "(CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR)"

cdef extern from *:
    """
    static void fs_release_frame(PyFrameObject *frame) { Py_DECREF((PyObject *)frame); }
    static void fs_release_code(PyCodeObject *code) { Py_DECREF((PyObject *)code); }
    """
    void fs_release_frame(PyFrameObject*) noexcept
    void fs_release_code(PyCodeObject*) noexcept


# -- stacks ------------------------------------------------------------------

cdef enum:
    DEEPEST = 100       # calls; the outermost of a deeper stack are left out
    MOST = 200000       # different stacks; who makes more gets none
    CHAINS = 4096

cdef fs_stack* stacks[CHAINS]
cdef size_t stack_count = 0
cdef fs_remutex stacks_guard


cdef fs_stack* find_stack(uint64_t hash, const uintptr_t* calls, size_t depth) noexcept:
    cdef fs_stack* stack = stacks[hash % CHAINS]
    while stack != NULL and (
            stack.hash != hash or stack.depth != depth
            or memcmp(stack.calls, calls, 2 * depth * sizeof(uintptr_t)) != 0):
        stack = stack.next
    return stack


cdef fs_stack* add_stack(uint64_t hash, const uintptr_t* calls, size_t depth) noexcept:
    """Under the lock.  The caller has a reference to each code object, which the stack keeps."""
    global stack_count
    cdef fs_stack* stack
    if stack_count >= MOST:
        return NULL
    stack = <fs_stack*>malloc(sizeof(fs_stack) + 2 * depth * sizeof(uintptr_t))
    if stack == NULL:
        return NULL
    stack_count += 1
    stack.hash = hash
    stack.depth = depth
    stack.number = stack_count
    memcpy(stack.calls, calls, 2 * depth * sizeof(uintptr_t))
    stack.next = stacks[hash % CHAINS]
    stacks[hash % CHAINS] = stack
    return stack


cdef fs_stack* capture_stack() noexcept:
    cdef uintptr_t calls[2 * DEEPEST]
    cdef size_t depth = 0
    cdef size_t i
    cdef uint64_t hash = <uint64_t>0xcbf29ce484222325u
    cdef fs_stack* stack
    cdef bint added = False
    cdef PyFrameObject* back
    cdef PyObject *kind
    cdef PyObject *value
    cdef PyObject *traceback
    PyErr_Fetch(&kind, &value, &traceback)
    cdef PyFrameObject* frame = PyThreadState_GetFrame(PyThreadState_Get())
    while frame != NULL:
        if depth < DEEPEST:
            calls[2 * depth] = <uintptr_t>PyFrame_GetCode(frame)
            calls[2 * depth + 1] = <uintptr_t><int64_t>PyFrame_GetLasti(frame)
            hash = (hash ^ calls[2 * depth]) * <uint64_t>0x100000001b3u
            hash = (hash ^ calls[2 * depth + 1]) * <uint64_t>0x100000001b3u
            hash ^= hash >> 29
            depth += 1
        back = PyFrame_GetBack(frame) if depth < DEEPEST else NULL
        fs_release_frame(frame)
        frame = back
    remutex_lock_inner(&stacks_guard)
    stack = find_stack(hash, calls, depth)
    if stack == NULL:
        stack = add_stack(hash, calls, depth)
        added = stack != NULL
    remutex_unlock_inner(&stacks_guard)
    if not added:
        for i in range(depth):
            fs_release_code(<PyCodeObject*>calls[2 * i])
    PyErr_Restore(kind, value, traceback)
    return stack


cdef bint is_suspendable(const fs_stack* stack) noexcept:
    if stack == NULL or stack.depth == 0:
        return False
    return (<PyCodeObject*>stack.calls[0]).co_flags & SUSPENDABLE


cdef list stack_lines(const fs_stack* stack):
    cdef list lines = []
    cdef size_t i
    if stack == NULL:
        return lines
    for i in range(stack.depth):
        code = <object><PyObject*>stack.calls[2 * i]
        line = PyCode_Addr2Line(
            <PyCodeObject*>stack.calls[2 * i], <int><int64_t>stack.calls[2 * i + 1])
        lines.append((code.co_filename, line, code.co_name))
    return lines


# -- origins -----------------------------------------------------------------

cdef dict origins = {}         # address of the weak reference -> Origin
cdef Py_ssize_t sweep_at = 256
cdef size_t origin_count = 0


cdef class Origin:
    """What is known of one lock: kind, name, the line that made it."""

    @property
    def lock(self):
        """The lock, or None when it is gone."""
        return self.reference()

    @property
    def made_at(self):
        """[(file, line, function), ...] of the call that made it, innermost first; [] if unknown."""
        return stack_lines(self.made)


cdef Origin origin_of(object lock):
    global origin_count
    cdef Origin origin
    reference = PyWeakref_NewRef(lock, None)
    key = <uintptr_t><PyObject*>reference
    found = origins.get(key)
    if found is not None:
        return found
    if len(origins) >= sweep_at:
        forget_dead()
    origin = Origin.__new__(Origin)
    origin.reference = reference
    origin.kind = type(lock).__name__
    origin.after = {}
    origin_count += 1
    origin.number = origin_count
    return origins.setdefault(key, origin)


cdef Origin known_origin(object lock, bint* failed):
    cdef PyObject *kind
    cdef PyObject *value
    cdef PyObject *traceback
    found = None
    PyErr_Fetch(&kind, &value, &traceback)
    try:
        reference = PyWeakref_NewRef(lock, None)
        found = origins.get(<uintptr_t><PyObject*>reference)
    except BaseException:
        failed[0] = True
    PyErr_Restore(kind, value, traceback)
    return found


cdef void note_made(object lock) noexcept:
    cdef PyObject *kind
    cdef PyObject *value
    cdef PyObject *traceback
    PyErr_Fetch(&kind, &value, &traceback)
    try:
        origin_of(lock).made = capture_stack()
    except BaseException:
        pass  # memory is short: then it is not known where it was made
    PyErr_Restore(kind, value, traceback)


cdef void note_part(object lock, object whole, str name) noexcept:
    cdef PyObject *kind
    cdef PyObject *value
    cdef PyObject *traceback
    cdef Origin part, origin
    PyErr_Fetch(&kind, &value, &traceback)
    try:
        part, origin = origin_of(lock), origin_of(whole)
        part.kind = f"{origin.kind}.{name}"
        part.name = origin.name
        if origin.made != NULL:
            part.made = origin.made
    except BaseException:
        pass  # memory is short: then it is known by itself
    PyErr_Restore(kind, value, traceback)


cdef list listeners = []  # called with nothing after Origins were found dead


cdef int forget_dead() except -1:
    """Drop the Origins of locks that are gone, and what was learned of their order."""
    global sweep_at
    cdef Origin origin
    for key, each in list(origins.items()):
        origin = each
        if origin.reference() is None:
            origin.dead = True
            origin.after.clear()  # not another dict: a thread may be looking at this one
            origins.pop(key, None)
    for each in list(origins.values()):
        origin = each
        for other in list(origin.after):
            if (<Origin>other).dead:
                origin.after.pop(other, None)
    sweep_at = 2 * len(origins) + 256
    for listener in listeners:
        listener()
    return 0


# -- for fastsync.deadlock and fastsync.profile -------------------------------

def origin(lock):
    """The Origin of a lock: any object that can have weak references."""
    return origin_of(lock)


def all_origins():
    """The Origins of all locks that are known."""
    return list(origins.values())


def count():
    """How many locks are known: for tests of what is kept."""
    return len(origins)


def sweep():
    """Forget what is known of locks that are gone, now: for tests."""
    forget_dead()


def on_sweep(function):
    """Call function() whenever locks that are gone have been forgotten.

    It may run inside a call that takes a lock: no Python code but in tests, since a signal
    handler could run there, and what it raises would be lost.
    """
    listeners.append(function)


def off_sweep(function):
    """Call it no more."""
    listeners.remove(function)


def here():
    """This thread's stack, as Origin.made_at has it: for tests."""
    return stack_lines(capture_stack())


def _before_fork():
    remutex_lock_inner(&stacks_guard)


def _after_fork():
    remutex_unlock_inner(&stacks_guard)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
