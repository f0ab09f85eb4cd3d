/* fs_condvar of locks.pyx over an fs_mutex: two waiters, one with a deadline, and a
 * notifier that notifies one or all, with the mutex held or without.  A waiter is
 * moved to the mutex's queue when the mutex is held.  Nobody who must be notified
 * sleeps for ever, a notification is not lost to a waiter that has just timed
 * out, and the mutex is held again whatever the outcome. */
#define N 3
#define KEYS 2
#define MUTEX 0
#define CONDVAR 1

#include "table.inc"
#include "mutex.inc"

/* One bucket lock stands for both: requeueing holds both anyway. */
bit used;                 /* the condvar's word: somebody waits */
byte inside;
byte finished;
byte permits;             /* what the waiters wait for, guarded by the mutex */

/* Sets notified. */
inline condvar_wait(timed) {
    lock_bucket();
    used = 1;                                          //! skip;
    d_step { woken[me] = 0; token[me] = NORMAL };
    enqueue(CONDVAR, me);
    unlock_bucket();
    inside--;
    mutex_unlock();                                    /* before_sleep */
    notified = 1;
    if
    :: woken[me] -> skip
    :: timed ->
        lock_bucket();
        if
        :: queued[me] ->
            if
            :: parked_on[me] == CONDVAR -> notified = 0
            :: else                                    /* moved: it was notified */
            fi;
            unlink(me);
            if
            :: parked_on[me] == CONDVAR && length[CONDVAR] == 0 -> used = 0
            :: parked_on[me] == MUTEX && length[MUTEX] == 0 -> has_parked = 0
            :: else
            fi;
            unlock_bucket()
        :: else ->
            unlock_bucket();
            woken[me] == 1                             //! skip
        fi
    fi;
    if
    :: token[me] == HANDOFF -> skip                    //! :: false -> skip
    :: else -> mutex_lock(0)
    fi;
    inside++;
    assert(inside == 1)
}

inline condvar_notify(all) {
    if
    :: used ->
        lock_bucket();
        if
        :: !used                                       /* they left meanwhile */
        :: atomic { used && locked -> has_parked = 1 }; //! :: atomic { used && locked -> skip };
            move_waiters(all)
        :: used && !locked ->
            pop(CONDVAR, first);
            if
            :: all && length[CONDVAR] > 0 ->
                move_waiters(all);
                has_parked = 1                         //! skip
            :: else
            fi
        fi;
        if :: length[CONDVAR] == 0 -> used = 0 :: else fi;
        if :: first != NOBODY -> token[first] = NORMAL :: else fi;
        unlock_bucket();
        if :: first != NOBODY -> woken[first] = 1 :: else fi;  //! skip;
        first = NOBODY
    :: else
    fi
}

inline move_waiters(all) {
    do
    :: length[CONDVAR] == 0 -> break
    :: else ->
        pop(CONDVAR, other);
        enqueue(MUTEX, other);                         //! skip;
        other = NOBODY;
        if :: !(all) -> break :: else fi
    od
}

proctype waiter(byte me) {
    byte other = NOBODY;
    byte got;
    bit fair, notified;
    mutex_lock(0);
    inside++;
    assert(inside == 1);
    notified = 1;
    do
    :: permits > 0 || !notified -> break
    :: else -> condvar_wait(me == 0)
    od;
    if :: permits > 0 -> permits-- :: else fi;
    inside--;
    mutex_unlock();
    gave_up: finished++
}

inline notify_once(all, amount) {
    mutex_lock(0);
    inside++;
    assert(inside == 1);
    permits = permits + amount;
    if
    :: condvar_notify(all);                            /* with the mutex held, */
        inside--;
        mutex_unlock()
    :: inside--;                                       /* or after it */
        mutex_unlock();
        condvar_notify(all)
    fi
}

proctype notifier(byte me) {
    byte other = NOBODY;
    byte first = NOBODY;
    byte got;
    bit fair;
    if
    :: notify_once(1, 2)
    :: notify_once(0, 1);
        notify_once(0, 1)
    fi;
    finished == 2;
    gave_up: assert(!locked && !has_parked && !used && length[MUTEX] == 0 && length[CONDVAR] == 0)
}

init {
    atomic { run waiter(0); run waiter(1); run notifier(2) }
}
