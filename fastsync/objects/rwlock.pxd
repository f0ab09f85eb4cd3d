"""RwLock, for Cython code that is handed one."""
from fastsync.objects.guards cimport _Direct, _Writing
from fastsync.objects.readwrite cimport _ReadWriteLock
from fastsync.raw.rwlock cimport fs_rwlock


cdef class RwLock(_ReadWriteLock):
    cdef fs_rwlock word


cdef class WriteGuard(_Writing):
    pass


cdef class UpgradableReadGuard(_Direct):
    pass


# The word of the object, for nogil code.  The object must stay alive.
cdef inline fs_rwlock* rwlock_word(RwLock rw) noexcept nogil:
    if rw is None:
        return NULL
    return &rw.word
