/* fs_mutex unlocked by threads that do not hold it: two take it twice each, the two others
 * unlock it until they have succeeded twice, at the same moment if they like.
 *
 * Asserted besides what the parts assert: each time that it was taken it is unlocked once,
 * and nobody waits for ever. */
#define N 4
#define KEYS 1
#define MUTEX 0
#define SIGNALS 0
#define ANYBODY_UNLOCKS 1
#define ROUNDS 2

#define valid(key) mutex_still_held
#define wait_ended(key, last) mutex_wait_ended(last)

#include "mutex.inc"

byte let_go;

#define LOCALS byte how, answer, got, other = NOBODY; bit first, fair, unlocked

proctype taker(byte me) {
    LOCALS;
    byte round;
    for (round : 1 .. ROUNDS) {
        mutex_lock(0, 0)
    }
    let_go == 2 * ROUNDS;
    assert(!locked && length[MUTEX] == 0)
}

proctype unlocker(byte me) {
    LOCALS;
    byte round;
    for (round : 1 .. ROUNDS) {
        do
        :: unlocked -> break
        :: locked && !unlocked -> mutex_unlock()
        od;
        atomic { unlocked = 0; let_go++ }
    }
}

init {
    atomic { run taker(0); run taker(1); run unlocker(2); run unlocker(3) }
}
