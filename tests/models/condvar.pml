/* fs_condvar of raw/condvar.pyx over an fs_mutex: two waiters and a notifier, who notifies
 * one or all, with the mutex held or without.  A waiter is moved to the mutex's queue when
 * the mutex is held.  MAIN has a deadline, and gets a signal while it waits, whose handler
 * takes the mutex and may raise.
 *
 * Left out: a second mutex for the same condvar, locks of others, condvar_reset().
 *
 * Asserted besides what the parts assert: nobody who must be notified waits for ever; a
 * notification is not lost to a waiter that has just timed out, and no timeout passes for
 * one; the mutex is held again whatever the outcome; in the end all words are free and
 * all queues empty.  Not promised: that one is passed on by a waiter whose handler raises. */
#define N 3
#define KEYS 2
#define MUTEX 0
#define CONDVAR 1
#define SIGNALS 1
#define ANYBODY_UNLOCKS 0

#define valid(key) ((key) == CONDVAR || mutex_still_held)
#define entered(key) used = 1                          //! #define entered(key) skip
#define before_sleep(key) mutex_unlock()

#include "mutex.inc"

bit used;                 /* the condvar's word: somebody waits */
byte permits;             /* what the waiters wait for, guarded by the mutex */
bit told[RECORDS];        /* who has been notified in truth */
byte finished;

inline wait_ended(key, last) {
    if
    :: (key) == MUTEX -> requeued = 1; mutex_wait_ended(last)
    :: (key) == CONDVAR && last -> used = 0            /* tidy: a notify would do it */
    :: else
    fi
}

/* Sets outcome and notified. */
inline condvar_wait(timed) {
    requeued = 0;
    park_in_place(CONDVAR, timed, 1);
    outcome = how;
    if
    :: answer == HANDOFF -> assert(owner == me); answer = NORMAL; how = ASLEEP
    :: else -> mutex_lock(0, 0)
    fi;
    notified = outcome == UNPARKED || (outcome == TIMED_OUT && requeued);  //! notified = outcome == UNPARKED;
    d_step { assert(notified == told[me] || outcome >= INTERRUPTED); told[me] = 0 }
}

/* unpark_requeue() with condvar_choose() and condvar_notified() */
inline condvar_notify(all) {
    if
    :: used ->
        lock_bucket();                                 //! skip;
        if
        :: used ->
            if
            :: atomic { locked -> has_parked = 1 };    //! :: locked ->
                move = 1
            :: atomic { !locked -> move = 0 }
            fi;
            move_waiters(all);
            if :: length[CONDVAR] == 0 -> used = 0 :: else fi;
            if
            :: chosen != NOBODY && requeued -> has_parked = 1  //! :: chosen != NOBODY && requeued -> skip
            :: else
            fi
        :: else                                        /* they left meanwhile */
        fi;
        unlock_bucket();
        if
        :: chosen != NOBODY -> wake(chosen)            //! :: chosen != NOBODY -> skip
        :: else
        fi;
        if
        :: skipped != NOBODY -> wake(skipped)          //! :: skipped != NOBODY -> skip
        :: else
        fi;
        chosen = NOBODY;
        skipped = NOBODY
    :: else
    fi
}

inline move_waiters(all) {
    requeued = 0;
    atomic {
        do
        :: length[CONDVAR] == 0 -> break
        :: else ->
            other = queue[CONDVAR * RECORDS];
            unlink(other);
            told[other] = 1;
            if
            :: away[other] -> skipped = other          //! :: false -> skipped = other
            :: !away[other] && !move && chosen == NOBODY -> chosen = other
            :: else -> enqueue(MUTEX, other); requeued = 1  //! :: else -> requeued = 1
            fi;
            if :: !(all) -> break :: else fi
        od;
        other = NOBODY
    }
}

#define LOCALS byte how, answer, got, outcome, other = NOBODY, chosen = NOBODY, skipped = NOBODY; \
    bit first, fair, unlocked, deaf, requeued, notified, move

proctype waiter(byte me) {
    LOCALS;
    mutex_lock(0, 0);
    do
    :: permits > 0 || outcome == TIMED_OUT && !notified || outcome >= INTERRUPTED -> break
    :: else -> condvar_wait(me == MAIN); assert(owner == me)
    od;
    if :: permits > 0 -> permits-- :: else fi;
    mutex_unlock();
    finished++
}

inline notify_once(all, amount) {
    mutex_lock(0, 0);
    permits = permits + amount;
    if
    :: condvar_notify(all);                            /* with the mutex held, */
        mutex_unlock()
    :: mutex_unlock();                                 /* or after it */
        condvar_notify(all)
    fi
}

proctype notifier(byte me) {
    LOCALS;
    if
    :: notify_once(1, 2)
    :: notify_once(0, 1);
        notify_once(0, 1)
    fi;
    finished == 2;
    assert(!locked && !has_parked && !used && length[MUTEX] == 0 && length[CONDVAR] == 0)
}

proctype handler() {
    LOCALS;
    byte me = HANDLER;
end:
    do
    :: handling ->
        mutex_lock(0, 0);
        mutex_unlock();
        if :: raised = 0 :: raised = 1 fi;
        handling = 0
    od
}

init {
    atomic { run handler(); run waiter(0); run waiter(1); run notifier(2) }
}
