/* fs_mutex between three threads, two rounds each.  MAIN has a deadline in the first and
 * gets a signal while it waits, whose handler takes the same mutex, and may raise.
 *
 * Asserted besides what the parts assert: nobody waits for ever, the handler included;
 * in the end the word is free and says so, and nobody is queued. */
#define N 3
#define KEYS 1
#define MUTEX 0
#define SIGNALS 1
#define ANYBODY_UNLOCKS 0
#define ROUNDS 2

#define valid(key) mutex_still_held
#define wait_ended(key, last) mutex_wait_ended(last)

#include "mutex.inc"

byte finished;

#define LOCALS byte how, answer, got, other = NOBODY; bit first, fair, unlocked

proctype thread(byte me) {
    LOCALS;
    byte round;
    for (round : 1 .. ROUNDS) {
        mutex_lock(me == MAIN && round == 1, 1);
        if
        :: got == ACQUIRED ->
            assert(owner == me);
            mutex_unlock();
            assert(unlocked)
        :: else
        fi
    }
    finished++;
    finished == N;
    assert(!locked && !has_parked && length[MUTEX] == 0)
}

proctype handler() {
    LOCALS;
    byte me = HANDLER;
end:
    do
    :: handling ->
        mutex_lock(0, 0);
        assert(owner == me);
        mutex_unlock();
        if :: raised = 0 :: raised = 1 fi;
        handling = 0
    od
}

init {
    atomic { run handler(); run thread(0); run thread(1); run thread(2) }
}
