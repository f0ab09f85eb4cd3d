# cython: language_level=3, freethreading_compatible=True
"""Counts under a raw lock."""
import threading

from fastsync.words cimport fs_mutex, mutex_lock, mutex_unlock

cdef fs_mutex mutex
cdef long long total = 0


def add(long long times):
    global total
    cdef long long i
    with nogil:
        for i in range(times):
            mutex_lock(&mutex)
            total += 1
            mutex_unlock(&mutex)


def count(int threads, long long times):
    workers = [threading.Thread(target=add, args=(times,)) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return total
