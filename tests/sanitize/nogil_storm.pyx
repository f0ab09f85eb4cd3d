# cython: language_level=3, freethreading_compatible=True, cdivision=True
"""Plain data behind raw locks, hammered by threads without a thread state.

ThreadSanitizer sees every access: what the locks do not order is a race.  Run
by tools/sanitize.py.

A *relay* hands plain data round a ring of threads, each hop by one release and
one acquire that nothing else backs up, so that a weakened one shows at once.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memset

from fastsync.words cimport *

import threading

# What C and C++ use: its fast paths are its own.
cdef extern from "fastsync/fastsync.h" nogil:
    int fastsync_import() except -1
    void fs_mutex_lock(fs_mutex* m)
    int fs_mutex_try_lock(fs_mutex* m)
    int fs_mutex_unlock(fs_mutex* m)
    int fs_mutex_unlock_fair(fs_mutex* m)
    void fs_semaphore_acquire(fs_semaphore* s)
    int fs_semaphore_try_acquire(fs_semaphore* s)
    int fs_semaphore_release(fs_semaphore* s, uint64_t count, uint64_t limit)
    int fs_event_is_set(const fs_event* e)
    int fs_once_is_done(const fs_once* o)

cdef enum:
    MOST_THREADS = 8
    CELLS = 4096
    ONCES = 4096

# What a hop of a relay goes through; every thread has one, away from the others.
cdef struct fs_stop:
    fs_atomic_u64 word
    fs_event event
    fs_semaphore semaphore
    uint64_t padding[13]

cdef struct shared_state:
    fs_mutex mutex
    fs_remutex remutex
    fs_condvar not_empty
    fs_condvar not_full
    fs_semaphore semaphore
    fs_event event
    fs_barrier barrier
    fs_rwlock rwlock
    fs_sharded sharded
    fs_atomic_u32 own        # see own_lock
    fs_once onces[ONCES]
    long made[ONCES]         # by whoever runs the once of that number
    fs_stop stops[MOST_THREADS]
    fs_atomic_i64 flags[2]
    fs_atomic_u64 ticket
    fs_atomic_u64 serving
    fs_atomic_u32 ready      # how many threads are at the start
    fs_atomic_i64 wrong      # how often something was not as it should be
    long threads
    long guarded             # by whichever lock the storm is about
    long twin                # equal to it whenever nobody writes
    long filled              # of the queue of one item
    long item
    long upgradable          # changed by writers and upgradable readers
    long board[CELLS]        # one cell a thread, or a round

cdef shared_state state


cdef void expect(bint right) noexcept nogil:
    if not right:
        fs_i64_fetch_add_order(&state.wrong, 1, FS_RELAXED)


cdef inline int64_t soon(int i) noexcept nogil:
    """A deadline in the past, near, or a little further off."""
    return fs_now() + (i % 3) * 10000


cdef void dawdle(int i) noexcept nogil:
    """Come late, now and then."""
    cdef int j
    for j in range(i % 5 * 100):
        fs_pause()


# -- locks -------------------------------------------------------------------

cdef void mutex_part(int me, int rounds) noexcept nogil:
    cdef int i
    for i in range(rounds):
        if i % 7 == 0:
            if mutex_lock_until(&state.mutex, soon(i), FS_PLAIN) != FS_ACQUIRED:
                mutex_lock(&state.mutex)
        elif i % 5 == 0:
            if not mutex_try_lock(&state.mutex):
                mutex_lock(&state.mutex)
        else:
            mutex_lock(&state.mutex)
        state.guarded += 1
        if i % 13 == 0:
            mutex_bump(&state.mutex)
            state.twin += 1
        else:
            state.twin += 1
        if i % 11 == 0:
            mutex_unlock_fair(&state.mutex)
        else:
            mutex_unlock(&state.mutex)


cdef void remutex_part(int me, int rounds) noexcept nogil:
    cdef int i
    for i in range(rounds):
        if i % 7 == 0:
            if remutex_lock_until(&state.remutex, soon(i), FS_PLAIN) != FS_ACQUIRED:
                remutex_lock(&state.remutex)
        elif i % 5 or not remutex_try_lock(&state.remutex):
            remutex_lock(&state.remutex)
        expect(remutex_try_lock(&state.remutex))
        state.guarded += 1
        state.twin += 1
        remutex_unlock(&state.remutex)
        expect(remutex_is_mine(&state.remutex))
        if i % 11 == 0:
            remutex_unlock_fair(&state.remutex)
        else:
            remutex_unlock(&state.remutex)
        expect(remutex_unlock(&state.remutex) == -1)


# A lock made of park() and unpark_one(): 0 free, 1 held, 2 held and somebody may
# be parked.
cdef bint own_still_held(void* ctx) noexcept nogil:
    return fs_u32_load_order(&state.own, FS_RELAXED) == 2


cdef void own_lock() noexcept nogil:
    cdef uint32_t free = 0
    if fs_u32_cas_order(&state.own, &free, 1, FS_ACQUIRE, FS_RELAXED):
        return
    while fs_u32_exchange_order(&state.own, 2, FS_ACQUIRE) != 0:
        park(<uintptr_t>&state.own, own_still_held, NULL, NULL, NULL, 0, FS_FOREVER, FS_PLAIN,
             NULL)


cdef uintptr_t own_freed(void* ctx, fs_unpark_result* result) noexcept nogil:
    fs_u32_store_order(&state.own, 0, FS_RELEASE)
    return 0


cdef int own_unlock(void* ctx) noexcept nogil:
    cdef uint32_t held = 1
    if not fs_u32_cas_order(&state.own, &held, 0, FS_RELEASE, FS_RELAXED):
        unpark_one(<uintptr_t>&state.own, own_freed, NULL)
    return 0


cdef void own_part(int me, int rounds) noexcept nogil:
    cdef int i
    for i in range(rounds):
        own_lock()
        state.guarded += 1
        state.twin += 1
        own_unlock(NULL)


cdef void condvar_part(int me, int rounds) noexcept nogil:
    """Even threads put, odd ones take, through one place."""
    cdef int i
    for i in range(rounds):
        mutex_lock(&state.mutex)
        if me % 2 == 0:
            while state.filled:
                condvar_wait(&state.not_full, &state.mutex, FS_FOREVER, FS_PLAIN)
            state.filled = 1
            state.item = i
            condvar_notify_one(&state.not_empty)
        else:
            while not state.filled:
                # Short deadlines: timeouts race with notifications.
                condvar_wait(&state.not_empty, &state.mutex,
                             soon(i) if i % 3 == 0 else FS_FOREVER, FS_PLAIN)
            state.filled = 0
            state.guarded += 2
            state.twin += 2
            condvar_notify_all(&state.not_full)
        mutex_unlock(&state.mutex)


cdef void foreign_part(int me, int rounds) noexcept nogil:
    """The same over a lock of one's own."""
    cdef int i
    for i in range(rounds):
        own_lock()
        if me % 2 == 0:
            while state.filled:
                condvar_wait_foreign(&state.not_full, own_unlock, NULL, FS_FOREVER, FS_PLAIN)
                own_lock()
            state.filled = 1
            condvar_notify_one(&state.not_empty)
        else:
            while not state.filled:
                condvar_wait_foreign(&state.not_empty, own_unlock, NULL,
                                     soon(i) if i % 3 == 0 else FS_FOREVER, FS_PLAIN)
                own_lock()
            state.filled = 0
            state.guarded += 2
            state.twin += 2
            condvar_notify_all(&state.not_full)
        own_unlock(NULL)


cdef void semaphore_part(int me, int rounds) noexcept nogil:
    cdef int i
    for i in range(rounds):
        if i % 4 or semaphore_acquire_until(&state.semaphore, soon(i), FS_PLAIN) != FS_ACQUIRED:
            semaphore_acquire(&state.semaphore)
        state.guarded += 1
        state.twin += 1
        semaphore_release(&state.semaphore, 1, semaphore_max())


cdef void event_part(int me, int rounds) noexcept nogil:
    """Thread 0 publishes, the others read after the event, some of them late; then a
    barrier, and again."""
    cdef int i
    for i in range(rounds // 10):
        if me == 0:
            dawdle(i)
            state.guarded += 1
            state.twin += 1
            event_set(&state.event)
        else:
            dawdle(me + i)
            while not event_wait_until(&state.event, soon(i) if i % 4 == 0 else FS_FOREVER,
                                       FS_PLAIN):
                pass
            expect(state.guarded == state.twin)
        barrier_wait(&state.barrier)
        if me == 0:
            event_clear(&state.event)
        barrier_wait(&state.barrier)


cdef void barrier_part(int me, int rounds) noexcept nogil:
    cdef int i, j
    cdef long total
    for i in range(rounds // 10):
        state.board[me] = i
        barrier_wait(&state.barrier)
        total = 0
        for j in range(state.threads):
            total += state.board[j]
        expect(total == i * state.threads)  # else a cell is from another round
        barrier_wait(&state.barrier)


# -- once --------------------------------------------------------------------

cdef int make(void* ctx) noexcept nogil:
    """Fails for good with every eighth."""
    cdef long* made = <long*>ctx
    dawdle(<int>(made - state.made))
    made[0] += 1
    return (made - state.made) % 8 == 7


cdef void once_part(int me, int rounds) noexcept nogil:
    """A new byte each round: run, found done, waited for, failed, tried again."""
    cdef int i, result
    cdef fs_once* once
    for i in range(min(rounds, ONCES)):
        once = &state.onces[i]
        dawdle(me + i // 8)
        if i % 3 == 1 and me % 2:
            result = once_wait(once, FS_FOREVER, FS_PLAIN)
        elif i % 3 == 2:
            result = once_begin(once, False, FS_FOREVER, FS_PLAIN)
            if result == FS_ONCE_RUN:
                state.made[i] += 1
                # Twice in vain: the next one sees what the last one did.
                result = FS_ONCE_NEW if state.made[i] < 3 else FS_ONCE_DONE
                once_end(once, <uint8_t>result)
                if result == FS_ONCE_NEW:
                    result = once_wait(once, soon(i), FS_PLAIN)
            if result != FS_ONCE_DONE:
                continue
            expect(state.made[i] == 3)
            continue
        else:
            result = once_call(once, make, &state.made[i])
        expect(result == (FS_ONCE_POISON if i % 8 == 7 else FS_ONCE_DONE))
        expect(once_is_done(once) == (i % 8 != 7))
        expect(state.made[i] == 1)


cdef void retract_part(int me, int rounds) noexcept nogil:
    """What is done is taken back and made anew."""
    cdef int i, result
    for i in range(rounds):
        result = once_begin(&state.onces[0], False, FS_FOREVER, FS_PLAIN)
        if result == FS_ONCE_RUN or once_retract(&state.onces[0]):
            state.guarded += 1
            state.twin += 1
            state.board[me] += 1
            once_end(&state.onces[0], FS_ONCE_DONE)


# -- reader-writer locks -----------------------------------------------------

cdef void write_both() noexcept nogil:
    state.guarded += 1
    state.upgradable += 1
    state.twin += 1


cdef void look_at_both() noexcept nogil:
    expect(state.guarded == state.twin)


cdef void unlock_writer(int i) noexcept nogil:
    if i % 2:
        rwlock_unlock_write(&state.rwlock)
    else:
        rwlock_unlock_write_fair(&state.rwlock)


cdef void unlock_upgradable_reader(int i) noexcept nogil:
    """Leave in one of the ways there are; what only upgradable readers share is theirs."""
    state.upgradable += 1
    look_at_both()
    if i % 3 == 0:
        rwlock_unlock_upgradable(&state.rwlock)
    elif i % 3 == 1:
        rwlock_unlock_upgradable_fair(&state.rwlock)
    else:
        rwlock_downgrade_upgradable(&state.rwlock)
        dawdle(i // 3)  # so that the next one often comes meanwhile
        look_at_both()
        rwlock_unlock_read(&state.rwlock)


cdef void write_once(int me, int i) noexcept nogil:
    if i % 3 == 0:
        if rwlock_write_until(&state.rwlock, soon(i // 3), FS_PLAIN) != FS_ACQUIRED:
            rwlock_write(&state.rwlock)
    elif i % 3 == 1 or not rwlock_try_write(&state.rwlock):
        rwlock_write(&state.rwlock)
    write_both()
    state.board[me] += 1
    if i % 5 == 0:
        rwlock_downgrade(&state.rwlock)
        look_at_both()
        rwlock_unlock_read_fair(&state.rwlock)
    elif i % 5 == 1:
        rwlock_downgrade_to_upgradable(&state.rwlock)
        unlock_upgradable_reader(i // 5)
    else:
        if i % 5 == 2:
            rwlock_bump_write(&state.rwlock)
        unlock_writer(i)


cdef void upgrade_once(int me, int i) noexcept nogil:
    cdef long seen
    cdef bint upgraded = True
    if i % 3 or not rwlock_try_upgradable_read(&state.rwlock):
        rwlock_upgradable_read(&state.rwlock)
    seen = state.guarded
    if i % 4 == 0:
        upgraded = rwlock_try_upgrade(&state.rwlock)
    elif i % 4 == 1:
        rwlock_upgrade(&state.rwlock)
    elif i % 4 == 2:
        upgraded = rwlock_upgrade_until(&state.rwlock, soon(i // 4), FS_PLAIN) == FS_ACQUIRED
    else:
        rwlock_bump_upgradable(&state.rwlock)
        upgraded = False
    if not upgraded:
        unlock_upgradable_reader(i)
        return
    expect(state.guarded == seen)  # else a writer slipped in
    write_both()
    state.board[me] += 1
    unlock_writer(i)


cdef void read_once(int i) noexcept nogil:
    if i % 4 == 0:
        if rwlock_read_until(&state.rwlock, soon(i), FS_PLAIN) != FS_ACQUIRED:
            rwlock_read_recursive(&state.rwlock)
    elif i % 8 == 2:
        while not rwlock_try_read_recursive(&state.rwlock):
            fs_yield()
    elif i % 4 == 1 or not rwlock_try_read(&state.rwlock):
        rwlock_read(&state.rwlock)
    look_at_both()
    if i % 5 == 0:
        rwlock_read_recursive(&state.rwlock)
        look_at_both()
        rwlock_unlock_read(&state.rwlock)
    elif i % 5 == 1:
        rwlock_bump_read(&state.rwlock)
        look_at_both()
    rwlock_unlock_read(&state.rwlock)


cdef void rwlock_part(int me, int rounds) noexcept nogil:
    """Writers keep two numbers equal; readers, of all kinds, look; upgraders do both."""
    cdef int i
    for i in range(rounds):
        if (me + i) % 4 == 0:
            write_once(me, i // 4)
        elif (me + i) % 4 == 1:
            upgrade_once(me, i // 4)
        else:
            read_once(i // 2)


cdef void sharded_part(int me, int rounds) noexcept nogil:
    cdef int i
    cdef fs_rwlock* mine
    for i in range(rounds // 2):
        if (me + i) % 4 == 0:
            if sharded_write_until(&state.sharded, soon(i), FS_PLAIN) != FS_ACQUIRED:
                sharded_write_until(&state.sharded, FS_FOREVER, FS_PLAIN)
            write_both()
            state.board[me] += 1
            sharded_unlock_write(&state.sharded, i % 2)
        else:
            mine = sharded_mine(&state.sharded)
            rwlock_read(mine)
            look_at_both()
            sharded_unlock_read(&state.sharded, mine)


# -- relays: the token is where `taken` says, and with it the right to the data ----

cdef inline fs_stop* stop_after(int me) noexcept nogil:
    return &state.stops[(me + 1) % state.threads]


cdef inline void carry() noexcept nogil:
    state.guarded += 1
    state.twin += 1


cdef void give(fs_atomic_u64* word, int kind, int how) noexcept nogil:
    """0 becomes 1, by each operation that can release."""
    cdef uint64_t none = 0
    cdef int order = FS_RELEASE if how % 3 == 0 else FS_ACQ_REL if how % 3 == 1 else FS_SEQ_CST
    how = how // 3 % 10
    if how == 0:
        fs_word_store(word, kind, 1, order if order != FS_ACQ_REL else FS_RELEASE)
    elif how == 1:
        fs_word_exchange(word, kind, 1, order)
    elif how == 2:
        fs_word_fetch_add(word, kind, 1, order)
    elif how == 3:
        fs_word_fetch_or(word, kind, 1, order)
    elif how == 4:
        fs_word_fetch_xor(word, kind, 1, order)
    elif how == 5:
        fs_word_fetch_max(word, kind, 1, order)
    elif how == 6:
        fs_word_cas(word, kind, &none, 1, order, FS_RELAXED)
    elif how == 7:
        while not fs_word_cas_weak(word, kind, &none, 1, order, FS_RELAXED):
            none = 0
    elif how == 8:
        fs_word_cas(word, kind, &none, 1, order, FS_ACQUIRE)
    elif kind == FS_U64:
        fs_f64_fetch_add_order(word, f64_from_bits(1), order)  # 0 + the least of numbers
    else:
        fs_word_fetch_sub(word, kind, <uint64_t>-1, order)


cdef bint take(fs_atomic_u64* word, int kind, int how) noexcept nogil:
    """Whether 1 was there, by each operation that can acquire."""
    cdef uint64_t one = 1
    cdef int order = FS_ACQUIRE if how % 3 == 0 else FS_ACQ_REL if how % 3 == 1 else FS_SEQ_CST
    how = how // 3 % 7
    if how == 0:
        return fs_word_load(word, kind, order if order != FS_ACQ_REL else FS_ACQUIRE)
    if how == 1:
        return fs_word_exchange(word, kind, 0, order)
    if how == 2:
        return fs_word_fetch_and(word, kind, 0, order)
    if how == 3:
        return fs_word_cas(word, kind, &one, 0, order, FS_RELAXED)
    if how == 4:
        return fs_word_cas_weak(word, kind, &one, 0, order, FS_RELAXED)
    if how == 5:
        return fs_word_fetch_min(word, kind, 0, order)
    one = 0
    # What the failed one loaded is what was given.
    return not fs_word_cas(word, kind, &one, 0, FS_RELAXED,
                           order if order != FS_ACQ_REL else FS_ACQUIRE)


cdef void orders_part(int me, int rounds) noexcept nogil:
    cdef int i, kind
    for i in range(rounds // 2):
        kind = FS_U8 + i // 210 % 4
        while not take(&state.stops[me].word, kind, i):
            fs_yield()
        fs_u64_store_order(&state.stops[me].word, 0, FS_RELAXED)
        carry()
        give(&stop_after(me).word, kind, i + me)


cdef void word_part(int me, int rounds) noexcept nogil:
    cdef int i
    cdef fs_atomic_u64* mine = &state.stops[me].word
    for i in range(rounds // 2):
        dawdle(i // 7)
        while word_wait(mine, FS_U64, 0, FS_ACQUIRE if i % 2 else FS_SEQ_CST,
                        soon(i) if i % 3 == 0 else FS_FOREVER, FS_PLAIN) != FS_ACQUIRED:
            pass
        fs_u64_store_order(mine, 0, FS_RELAXED)
        carry()
        fs_u64_store_order(&stop_after(me).word, 1, FS_RELEASE)
        if i % 5:
            word_notify_one(&stop_after(me).word)
        else:
            word_notify_all(&stop_after(me).word)


cdef void event_relay_part(int me, int rounds) noexcept nogil:
    cdef int i
    for i in range(rounds // 2):
        dawdle(i // 7)
        event_wait(&state.stops[me].event)
        event_clear(&state.stops[me].event)
        carry()
        event_set(&stop_after(me).event)


cdef void mailbox_part(int me, int rounds) noexcept nogil:
    """Even threads put a letter in when the box is clear, odd ones take it out and clear it:
    that it is clear says that the letter has been read."""
    cdef int i
    cdef fs_event* box = &state.stops[me // 2 + 1].event  # the first has a token in it
    cdef long* letter = &state.board[me // 2]
    for i in range(rounds // 2):
        dawdle(i // 7 + me)
        if me % 2 == 0:
            while event_is_set(box):
                fs_yield()
            letter[0] = i
            event_set(box)
        else:
            event_wait(box)
            expect(letter[0] == i)
            event_clear(box)


cdef void doorbell_part(int me, int rounds) noexcept nogil:
    """Thread 0 rings, writes a cell and rings again; thread 1, told of it by what orders nothing,
    clears: a bell that has been rung already, too, tells what came before."""
    cdef int i
    cdef fs_event* bell = &state.event
    if me > 1:
        return
    for i in range(1, min(rounds, CELLS)):
        if me == 0:
            event_set(bell)
            state.board[i] = i
            event_set(bell)
            fs_i64_store_order(&state.flags[0], i, FS_RELAXED)
            while fs_i64_load_order(&state.flags[1], FS_RELAXED) != i:
                fs_yield()
        else:
            while fs_i64_load_order(&state.flags[0], FS_RELAXED) != i:
                fs_yield()
            if i % 2:
                event_clear(bell)
            else:
                expect(event_is_set(bell))
            expect(state.board[i] == i)
            fs_i64_store_order(&state.flags[1], i, FS_RELAXED)


cdef void semaphore_relay_part(int me, int rounds) noexcept nogil:
    cdef int i
    for i in range(rounds // 2):
        dawdle(i // 7)
        semaphore_acquire(&state.stops[me].semaphore)
        carry()
        semaphore_release(&stop_after(me).semaphore, 1, 1)


cdef uintptr_t say_count(void* ctx, fs_unpark_result* result) noexcept nogil:
    return <uintptr_t>state.guarded


cdef void park_relay_part(int me, int rounds) noexcept nogil:
    """The wake-up alone orders; its token says what the data must be.  The last hop of
    a round waits for nobody, so thread 0 goes first."""
    cdef int i, result
    cdef uintptr_t token
    for i in range(rounds // 4):
        if me != 0 or i != 0:
            result = FS_PARK_TIMED_OUT
            while result != FS_PARK_UNPARKED:
                result = park(<uintptr_t>&state.stops[me], NULL, NULL, NULL, NULL, 0,
                              soon(i) if i % 3 == 0 else FS_FOREVER, FS_PLAIN, &token)
            expect(token == <uintptr_t>state.guarded)
        carry()
        if me == state.threads - 1 and i == rounds // 4 - 1:
            return
        while unpark_one(<uintptr_t>stop_after(me), say_count, NULL) == 0:
            fs_yield()


# -- locks of atomics ----------------------------------------------------------

cdef void ticket_part(int me, int rounds) noexcept nogil:
    cdef int i
    cdef uint64_t mine
    for i in range(rounds // 2):
        mine = fs_u64_fetch_add_order(&state.ticket, 1, FS_RELAXED)
        while fs_u64_load_order(&state.serving, FS_ACQUIRE) != mine:
            fs_yield()
        carry()
        fs_u64_store_order(&state.serving, mine + 1, FS_RELEASE)


cdef void dekker_part(int me, int rounds) noexcept nogil:
    """Only one order of all seq_cst operations keeps two threads apart here."""
    cdef int i
    if me > 1:
        return
    for i in range(rounds * 4):
        fs_i64_store(&state.flags[me], 1)
        if fs_i64_load(&state.flags[1 - me]) == 0:
            carry()
            state.board[me] += 1
        fs_i64_store(&state.flags[me], 0)


# -- the same through the C header ---------------------------------------------

cdef void header_mutex_part(int me, int rounds) noexcept nogil:
    cdef int i
    for i in range(rounds):
        if i % 3 or not fs_mutex_try_lock(&state.mutex):
            fs_mutex_lock(&state.mutex)
        carry()
        if i % 5:
            fs_mutex_unlock(&state.mutex)
        else:
            fs_mutex_unlock_fair(&state.mutex)
        dawdle(i // 3 + me)  # so that the next one often finds it free


cdef void header_semaphore_part(int me, int rounds) noexcept nogil:
    cdef int i
    for i in range(rounds):
        if i % 3 or not fs_semaphore_try_acquire(&state.semaphore):
            fs_semaphore_acquire(&state.semaphore)
        carry()
        fs_semaphore_release(&state.semaphore, 1, 1)


cdef int make_well(void* ctx) noexcept nogil:
    (<long*>ctx)[0] += 1
    return 0


cdef void header_looks_part(int me, int rounds) noexcept nogil:
    """Thread 0 makes and sets, the others only look whether it has."""
    cdef int i
    for i in range(min(rounds // 4, ONCES)):
        if me == 0:
            dawdle(i)
            once_call(&state.onces[i], make_well, &state.made[i])
            carry()
            event_set(&state.event)
        else:
            while not fs_once_is_done(&state.onces[i]):
                fs_yield()
            expect(state.made[i] == 1)
            while not fs_event_is_set(&state.event):
                fs_yield()
            expect(state.guarded == i + 1)
        barrier_wait(&state.barrier)
        if me == 0:
            event_clear(&state.event)
        barrier_wait(&state.barrier)


# -- running them --------------------------------------------------------------

ctypedef void (*storm_part)(int, int) noexcept nogil

PARTS = {
    "mutex": <size_t>mutex_part,
    "remutex": <size_t>remutex_part,
    "own lock": <size_t>own_part,
    "condvar": <size_t>condvar_part,
    "foreign": <size_t>foreign_part,
    "semaphore": <size_t>semaphore_part,
    "event": <size_t>event_part,
    "barrier": <size_t>barrier_part,
    "once": <size_t>once_part,
    "retract": <size_t>retract_part,
    "rwlock": <size_t>rwlock_part,
    "sharded": <size_t>sharded_part,
    "orders": <size_t>orders_part,
    "word": <size_t>word_part,
    "event relay": <size_t>event_relay_part,
    "mailbox": <size_t>mailbox_part,
    "doorbell": <size_t>doorbell_part,
    "semaphore relay": <size_t>semaphore_relay_part,
    "park relay": <size_t>park_relay_part,
    "ticket lock": <size_t>ticket_part,
    "dekker": <size_t>dekker_part,
    "header mutex": <size_t>header_mutex_part,
    "header semaphore": <size_t>header_semaphore_part,
    "header looks": <size_t>header_looks_part,
}

# How often a thread changes the data in a round.
COUNTS = {
    "mutex": 1, "remutex": 1, "own lock": 1, "condvar": 1, "foreign": 1, "semaphore": 1,
    "orders": 0.5, "word": 0.5, "event relay": 0.5, "semaphore relay": 0.5, "park relay": 0.25,
    "ticket lock": 0.5, "header mutex": 1, "header semaphore": 1,
}
# Those whose threads count it on the board.
COUNTED = ("retract", "rwlock", "sharded", "dekker")


def storm(str name, int threads, int rounds):
    """Run one storm: what went wrong, nothing if all is well."""
    cdef int i
    cdef long counted = 0
    if name.startswith("header"):
        fastsync_import()
    memset(&state, 0, sizeof(state))
    state.threads = threads
    semaphore_init(&state.semaphore, 1)
    barrier_init(&state.barrier, threads)
    # Thread 0 has the token of a relay.
    fs_u64_store_order(&state.stops[0].word, 1, FS_RELAXED)
    event_set(&state.stops[0].event)
    semaphore_init(&state.stops[0].semaphore, 1)
    run_part(PARTS[name], threads, rounds)
    if name in COUNTED:
        for i in range(threads):
            counted += state.board[i]
    elif name in COUNTS:
        counted = threads * int(rounds * COUNTS[name])
    else:
        counted = state.guarded
    if fs_i64_load(&state.wrong):
        return f"{fs_i64_load(&state.wrong)} times"
    if state.guarded != counted or state.twin != counted:
        return f"{state.guarded} and {state.twin} changes of {counted}"
    return ""


cdef void line_up() noexcept nogil:
    """Wait for the others, which is to order nothing."""
    fs_u32_fetch_add_order(&state.ready, 1, FS_RELAXED)
    while fs_u32_load_order(&state.ready, FS_RELAXED) < state.threads:
        fs_yield()


cdef object run_part(size_t address, int threads, int rounds):
    def body(int me):
        cdef storm_part mine = <storm_part>address
        with nogil:
            line_up()
            mine(me, rounds)

    workers = [threading.Thread(target=body, args=(i,), daemon=True) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        if worker.is_alive():
            raise SystemExit(f"a thread of the storm is stuck: {state.guarded}")


# -- for the storms of Python objects ----------------------------------------------

def touch(int cell):
    """Change plain data, which the sanitizer sees."""
    state.board[cell] += 1


def look(int cell):
    """Read it."""
    return state.board[cell]
