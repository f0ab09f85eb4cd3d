/* A C library that a Cython module wraps: both have fastsync's words. */
#ifndef CLIB_H
#define CLIB_H

#include <Python.h>
#include <fastsync/fastsync.h>

typedef struct {
    fs_mutex lock;
    long value;
} clib_box;

static inline void clib_add(clib_box *box, long amount) {
    fs_mutex_lock(&box->lock);
    box->value += amount;
    fs_mutex_unlock(&box->lock);
}

static inline int clib_try_lock(fs_mutex *m) { return fs_mutex_try_lock(m); }

static inline void clib_noted(fs_unpark_result *result, size_t *woken) {
    *woken = result->unparked;
}

#if defined(__cpp_constinit)
/* Ready before anything runs. */
constinit static fastsync::mutex ready;
#endif

#endif
