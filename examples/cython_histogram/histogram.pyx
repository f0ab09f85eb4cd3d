# cython: language_level=3, freethreading_compatible=True, boundscheck=False, auto_pickle=False
"""A histogram that any number of threads fill at once, without the GIL.

Each bin has a lock of its own: one byte beside the bin's count and sum.
"""
from fastsync.words cimport fs_mutex, mutex_lock, mutex_unlock

cdef struct bin:
    fs_mutex lock  # zeros are a free lock
    long count
    double sum

cdef class Histogram:
    cdef bin bins[64]

    def add(self, const double[::1] values):
        """Count values from 0 to 1."""
        cdef bin* b
        cdef Py_ssize_t i
        with nogil:
            for i in range(values.shape[0]):
                b = &self.bins[min(63, max(0, <int>(values[i] * 64)))]
                mutex_lock(&b.lock)
                b.count += 1
                b.sum += values[i]
                mutex_unlock(&b.lock)

    def totals(self):
        return sum(b.count for b in self.bins), sum(b.sum for b in self.bins)
