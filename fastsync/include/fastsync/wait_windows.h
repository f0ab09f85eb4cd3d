/* Windows: WaitOnAddress and SRWLOCK.  Run under wine only (tests/c), on no machine with Windows. */
#ifndef FASTSYNC_WAIT_WINDOWS_H
#define FASTSYNC_WAIT_WINDOWS_H

#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#include <stdio.h>
#include <stdlib.h>
#if defined(_MSC_VER)
#  pragma comment(lib, "Synchronization.lib")
#endif

#define FS_WAIT_BACKEND "WaitOnAddress"
/* Ctrl-C does not end WaitOnAddress. */
#define FS_LOOK_NS 20000000

FS_INLINE int64_t fs_ticks(void) {
    LARGE_INTEGER count, frequency;
    QueryPerformanceCounter(&count);
    QueryPerformanceFrequency(&frequency);
    return (int64_t)((count.QuadPart / frequency.QuadPart) * 1000000000 +
                     (count.QuadPart % frequency.QuadPart) * 1000000000 /
                         frequency.QuadPart);
}

/* time.monotonic() counts the system's ticks before 3.13, 10 to 16 ms apart. */
FS_INLINE int64_t fs_now(void) {
#if defined(PY_VERSION_HEX) && PY_VERSION_HEX < 0x030D0000
    return (int64_t)GetTickCount64() * 1000000;
#else
    return fs_ticks();
#endif
}

FS_INLINE uintptr_t fs_thread_id(void) { return (uintptr_t)GetCurrentThreadId(); }
FS_INLINE void fs_yield(void) { SwitchToThread(); }
FS_INLINE int fs_at_fork(void (*before)(void), void (*parent)(void),
                         void (*child)(void)) {
    (void)before; (void)parent; (void)child;  /* Windows has no fork */
    return 0;
}

typedef struct {
    SRWLOCK lock;
} fs_bucket_lock;

FS_INLINE int fs_bucket_lock_acquire(fs_bucket_lock *l, uint32_t epoch) {
    (void)epoch;  /* SRWLOCK_INIT is all zeros, and there is but one epoch */
    AcquireSRWLockExclusive(&l->lock);
    return 0;
}
FS_INLINE void fs_bucket_lock_release(fs_bucket_lock *l, uint32_t epoch) {
    (void)epoch;
    ReleaseSRWLockExclusive(&l->lock);
}

/* Wait word: 1 not woken, 0 woken. */
typedef struct {
    fs_atomic_u32 word;
} fs_waitword;

FS_INLINE void fs_waitword_init(fs_waitword *w) { fs_u32_store_relaxed(&w->word, 1); }
FS_INLINE int fs_waitword_woken(const fs_waitword *w) {
    /* acquire: pairs with the release in fs_waitword_wake */
    return fs_u32_load_acquire((fs_atomic_u32 *)&w->word) == 0;
}

static inline int fs_waitword_wait(fs_waitword *w, int64_t deadline) {
    uint32_t asleep = 1;
    while (!fs_waitword_woken(w)) {
        DWORD ms = INFINITE;
        if (deadline != FS_FOREVER) {
            int64_t left = deadline - fs_now();
            if (left <= 0) {
                return FS_TIMED_OUT;
            }
            left = (left + 999999) / 1000000;
            ms = left > 0x7fffffff ? 0x7fffffff : (DWORD)left;
        }
        WaitOnAddress((volatile VOID *)&w->word, &asleep, sizeof asleep, ms);
    }
    return FS_WOKEN;
}

FS_INLINE void fs_waitword_wake(fs_waitword *w) {
    /* release: pairs with the acquire in fs_waitword_woken */
    fs_u32_store_release(&w->word, 0);
    WakeByAddressSingle((PVOID)&w->word);  /* *w may be gone: harmless */
}

FS_INLINE void fs_waitword_destroy(fs_waitword *w) { (void)w; }

#endif
