/* Mutual exclusion, no lost wake-up, hand-off reaches its thread, timeouts leave
 * no ghost: three threads, two rounds each, one of them with a deadline. */
#define N 3
#define KEYS 1
#define MUTEX 0
#define ROUNDS 2

#include "table.inc"
#include "mutex.inc"

byte inside;
byte finished;

proctype thread(byte me) {
    byte other = NOBODY;
    byte got, round;
    bit fair;
    for (round : 1 .. ROUNDS) {
        mutex_lock(me == 0);
        if
        :: got == 1 ->
            inside++;
            assert(inside == 1);
            inside--;
            mutex_unlock()
        :: else
        fi;
        gave_up: skip
    }
    finished++;
    finished == N;
    assert(!locked && !has_parked && length[MUTEX] == 0)
}

init {
    atomic { run thread(0); run thread(1); run thread(2) }
}
