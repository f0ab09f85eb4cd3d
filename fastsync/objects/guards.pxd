"""Guards, and the locks that own a value: see guards.pyx for the life of a guard."""
cimport cython
from libc.stdint cimport uint32_t, uint8_t, uintptr_t
from cpython.object cimport PyObject, PyTypeObject

from fastsync.objects._slots cimport fs_call
from fastsync.raw.c_atomic cimport (
    fs_atomic_u8, fs_u8_cas_acq_rel, fs_u8_load_acquire, fs_u8_load_relaxed, fs_u8_store_relaxed,
    fs_u8_store_release,
)
from fastsync.raw.c_python cimport Py_NewRef

cdef extern from "Python.h":
    PyObject* PyType_GenericAlloc(PyTypeObject*, Py_ssize_t) except NULL


cdef enum:
    GUARD_DEAD = 0
    GUARD_HELD = 1
    GUARD_AWAY = 2
    GUARD_BLOCK = 4
    GUARD_BUSY = 8

# The mark of this process, another one after each fork; never 0.
cdef uint8_t here
# The thread that forked this process; 0 in one that was not forked.
cdef uintptr_t survivor


# What is dropped without a deep stack (trashcan) says so here: the types of other modules that
# derive from it would not know, and their own deallocators are what counts.

@cython.trashcan(True)
cdef class _Owner:
    """A lock that owns a value.  The methods are what a guard asks of its lock."""
    cdef object __weakref__
    cdef object value

    # Whether the calling thread may use a guard whose mark is not `here`: one that was made
    # before a fork, or that is for one thread only.
    cdef bint admits(self, _Guard guard) noexcept
    # Unlock what the guard has held; -1 when it was not locked like that.
    cdef int release(self, _Guard guard, bint fair) noexcept
    # Lock again for a guard that has lent its hold; `block`: what lend() said.  False when
    # the guard is dead.  A block's comes back though signal handlers raise; what the first
    # one raised is set then.
    cdef int take_back(self, _Guard guard, bint block) except -1
    # Whether another thread waits for what the guard holds; a hint.
    cdef bint is_wanted(self, _Guard guard) noexcept
    # The guard of a `with` block of the lock lends its hold; False when it has none.
    cdef bint lend_block(self, _Guard guard) noexcept
    # The guard, of no block and HELD, is dropped by whatever thread.
    cdef void drop(self, _Guard guard) noexcept
    # A guard of a part of the value, not alive yet, and then alive in place of `guard`.
    cdef _Mapped new_mapped(self, _Guard guard)
    cdef void pass_on(self, _Guard guard, _Mapped heir) noexcept
    # A new reference to the value, if the lock is free.
    cdef bint peek(self, PyObject** value) noexcept


@cython.trashcan(True)
cdef class _Guard:
    cdef fs_call call          # what `with` calls: see _slots.pyx
    cdef _Owner lock           # directly behind `call`: see allocate_guard
    cdef fs_atomic_u8 life
    cdef fs_atomic_u8 mark     # of the process that it holds the lock in; 0: ask the lock
    # Of an RwLock or ShardedLock:
    cdef unsigned char way     # in which way it holds the lock: see trace.pxd
    cdef uint32_t resets       # how often the lock had been reset then: see readwrite.pyx
    cdef void* word            # what it holds: an fs_rwlock; NULL: all shards


cdef class _Direct(_Guard):
    pass


cdef class _Writing(_Direct):
    pass


@cython.trashcan(True)
cdef class _Mapped(_Guard):
    cdef object part           # None: the whole value


cdef class _MappedWriting(_Mapped):
    pass


# -- the steps of a guard's life -----------------------------------------------

cdef int wait_a_little(int tries) noexcept


cdef inline bint is_admitted(_Guard guard) noexcept:
    # relaxed: of another value than `here` the lock has the say
    return fs_u8_load_relaxed(&guard.mark) == here or (
        guard.lock is not None and guard.lock.admits(guard))


cdef inline bint is_alive(_Guard guard) noexcept:
    """Whether it holds its lock, at this moment."""
    # acquire: pairs with the release in begin
    return fs_u8_load_acquire(&guard.life) & GUARD_HELD and is_admitted(guard)


cdef inline void begin(_Guard guard, uint8_t life) noexcept:
    """The guard holds its lock, which this thread has just locked or holds for it."""
    fs_u8_store_relaxed(&guard.mark, here)  # relaxed: the release below publishes it
    # release: pairs with the acquire of every use of the guard
    fs_u8_store_release(&guard.life, life)


cdef inline bint step(_Guard guard, uint8_t before, uint8_t after) noexcept:
    """Whether its life was `before`; of threads that step at once, one does."""
    cdef uint8_t seen = before
    cdef int tries = 0
    # acq_rel: acquires what other threads did through the guard, and releases what this
    # one did, in case that another one unlocks
    while not fs_u8_cas_acq_rel(&guard.life, &seen, after):
        if seen != (before | GUARD_BUSY):
            return False
        tries = wait_a_little(tries)
        seen = before
    return True


cdef inline bint leave_held(_Guard guard, uint8_t before, uint8_t after) noexcept:
    """step(), for a caller that then has the guard's hold, to end or to lend it."""
    return is_admitted(guard) and step(guard, before, after)


# -- the parts of what guards offer --------------------------------------------

cdef int raise_dead(_Guard guard) except -1
cdef int raise_of_block() except -1
cdef int raise_left() except -1
cdef int end(_Guard guard) except -1
cdef int unlock(_Guard guard, bint fair) except -1
cdef bint lend(_Guard guard) except -1
cdef bint return_hold(_Guard guard) noexcept
cdef object read_value(_Guard guard)
cdef int write_value(_Guard guard, object value) except -1

cdef PyObject* guard_call(
    PyObject* self, PyObject** args, size_t nargsf, PyObject* names) except NULL
# Make a type of guards one: `with`, and no instances but those that its lock makes.
cdef int finish_guard(type cls) except -1
# The end of a guard that has no other objects than its lock; shorter than Cython's, which goes
# through all bases.
cdef void dealloc_guard(PyObject* self) noexcept


cdef inline PyObject* allocate_guard(type cls, _Owner lock) except NULL:
    """A guard that is not alive yet, of a type that ends in dealloc_guard(); a new reference."""
    cdef PyObject* guard = PyType_GenericAlloc(<PyTypeObject*>cls, 0)  # all fields are 0
    (<_Guard>guard).call = guard_call
    # An assignment to `lock` would release what it was before; here that is NULL.
    (<PyObject**>(&(<_Guard>guard).call + 1))[0] = Py_NewRef(<PyObject*>lock)
    return guard



# A guard, or TimeoutError for None.
cdef object granted(object guard, object timeout)
