/* What wait.h promises, without Python: for targets where nothing else can be run.
 * tools/check_targets.sh compiles it for each of them, and runs it where it can. */
#include <stdio.h>
#include <stdlib.h>

#include <fastsync/wait.h>
#include <fastsync/thread_index.h>

#define CHECK(condition)                                                    \
    do {                                                                    \
        if (!(condition)) {                                                 \
            fprintf(stderr, "line %d: %s\n", __LINE__, #condition);         \
            exit(1);                                                        \
        }                                                                   \
    } while (0)

#if defined(_WIN32)
typedef HANDLE thread;
typedef DWORD answer;
#  define THREAD_CALL WINAPI
static thread start(answer (THREAD_CALL *run)(void *), void *argument) {
    thread t = CreateThread(NULL, 0, run, argument, 0, NULL);
    CHECK(t != NULL);
    return t;
}
static void join(thread t) {
    CHECK(WaitForSingleObject(t, INFINITE) == WAIT_OBJECT_0);
    CloseHandle(t);
}
#else
#  include <pthread.h>
typedef pthread_t thread;
typedef void *answer;
#  define THREAD_CALL
static thread start(answer (*run)(void *), void *argument) {
    thread t;
    CHECK(pthread_create(&t, NULL, run, argument) == 0);
    return t;
}
static void join(thread t) { CHECK(pthread_join(t, NULL) == 0); }
#endif

enum { THREADS = 4, TURNS = 20000, ROUNDS = 5000 };
static const int64_t MS = 1000000;

/* A word that was woken, a deadline that has passed, and one that comes. */
static void one_thread(void) {
    fs_waitword w;
    int64_t before = fs_now();
    CHECK(fs_now() >= before && fs_ticks() <= fs_ticks());
    CHECK(fs_thread_id() != 0 && fs_thread_id() == fs_thread_id());

    fs_waitword_init(&w);
    CHECK(!fs_waitword_woken(&w));
    CHECK(fs_waitword_wait(&w, before) == FS_TIMED_OUT);
    CHECK(fs_waitword_wait(&w, fs_now() + 20 * MS) == FS_TIMED_OUT);
    CHECK(fs_now() - before >= 20 * MS);
    CHECK(!fs_waitword_woken(&w));
    fs_waitword_wake(&w);
    CHECK(fs_waitword_woken(&w));
    CHECK(fs_waitword_wait(&w, FS_FOREVER) == FS_WOKEN);
    CHECK(fs_waitword_wait(&w, before) == FS_WOKEN);
    fs_waitword_destroy(&w);
}

/* Bucket locks exclude, and say when they were left in another epoch. */
static fs_bucket_lock lock;
static long long shared;
static uint32_t indices[THREADS];

static answer THREAD_CALL count(void *argument) {
    indices[(size_t)argument] = fs_thread_index();
    for (int i = 0; i < TURNS; i++) {
        CHECK(fs_bucket_lock_acquire(&lock, 0) == 0);
        long long seen = shared;
        if (i % 64 == 0) {
            fs_yield();
        }
        shared = seen + 1;
        fs_bucket_lock_release(&lock, 0);
    }
    return 0;
}

static void bucket_locks(void) {
    thread threads[THREADS];
    for (size_t i = 0; i < THREADS; i++) {
        threads[i] = start(count, (void *)i);
    }
    for (int i = 0; i < THREADS; i++) {
        join(threads[i]);
    }
    CHECK(shared == (long long)THREADS * TURNS);
    for (int i = 0; i < THREADS; i++) {
        for (int j = 0; j < i; j++) {
            CHECK(indices[i] != indices[j]);
        }
    }
#if !defined(_WIN32)
    CHECK(fs_bucket_lock_acquire(&lock, 0) == 0);
    CHECK(fs_bucket_lock_acquire(&lock, 1) != 0); /* held, but by a thread of another epoch */
    fs_bucket_lock_release(&lock, 1);
#endif
}

/* Two threads take turns: each hands the other the word that the other sleeps on, in a frame that
 * ends at once.  What was written before a wake-up is there after it. */
static fs_atomic_uptr places[2];
static uint64_t written[2];

static fs_waitword *await(fs_atomic_uptr *place) {
    uintptr_t found;
    while ((found = fs_uptr_load_acquire(place)) == 0) {
        fs_yield();
    }
    fs_uptr_store_relaxed(place, 0);
    return (fs_waitword *)found;
}

static void sleep_once(int me, uint64_t expected, int64_t deadline) {
    fs_waitword w;
    int result;
    fs_waitword_init(&w);
    fs_uptr_store_release(&places[me], (uintptr_t)&w);
    do {
        result = fs_waitword_wait(&w, deadline);
    } while (result == FS_SIGNALLED);
    CHECK(result == FS_WOKEN);
    CHECK(written[me] == expected);
    fs_waitword_destroy(&w);
}

static void wake_once(int other, uint64_t value) {
    fs_waitword *w = await(&places[other]);
    written[other] = value;
    fs_waitword_wake(w);
}

static answer THREAD_CALL partner(void *unused) {
    (void)unused;
    for (uint64_t i = 1; i <= ROUNDS; i++) {
        sleep_once(1, i, FS_FOREVER);
        wake_once(0, i);
    }
    return 0;
}

static void turns(void) {
    thread t = start(partner, NULL);
    for (uint64_t i = 1; i <= ROUNDS; i++) {
        wake_once(1, i);
        sleep_once(0, i, fs_now() + 600000 * MS);
    }
    join(t);
}

int main(void) {
    one_thread();
    bucket_locks();
    turns();
    printf("%s, %d bits: ok\n", FS_WAIT_BACKEND, (int)(8 * sizeof(void *)));
    return 0;
}
