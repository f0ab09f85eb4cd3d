/* fs_semaphore of raw/semaphore.pyx: MAIN takes one unit, with a deadline or without, and gets a
 * signal while it waits, whose handler takes a unit, gives it back, and may raise.  Another
 * thread takes two, one after the other.  The third gives three, in one, two or three parts,
 * so that there is one for each and no more.
 *
 * Left out: spinning, the limit of a BoundedSemaphore, setting the value.
 *
 * Asserted besides what table.inc asserts: units are neither lost nor made; nobody waits
 * for ever; a hand-off is a unit; in the end nobody is queued and PARKED is clear. */
#define N 3
#define KEYS 1
#define SEMAPHORE 0
#define SIGNALS 1
#define UNITS 3
#define LOOKING 2

#define valid(key) (has_parked && value == 0)

#include "table.inc"

bit has_parked;
byte value;
byte given, taken;        /* in truth, in the same step as the value */
byte finished;

#define conserved (given == taken + value)

inline wait_ended(key, last) {
    if
    :: last -> has_parked = 0                          /* tidy: a release would do it */
    :: else
    fi
}

/* Sets got: 1 acquired, 0 timed out or raised. */
inline acquire(timed) {
    got = LOOKING;
    do
    :: got != LOOKING -> break
    :: atomic { got == LOOKING && value > 0 -> value--; taken++; got = 1 }  //! :: got == LOOKING && value > 0 -> value--; taken++; got = 1
    :: atomic { got == LOOKING && value == 0 -> has_parked = 1 };
        park(SEMAPHORE, 0, timed, me == MAIN);
        if
        :: how == UNPARKED && answer == HANDOFF -> got = 1  //! :: false -> skip
        :: how == UNPARKED && answer == NORMAL || how == INVALID
        :: how == TIMED_OUT || how == INTERRUPTED -> got = 0
        fi;
        answer = NORMAL
    od;
    how = ASLEEP
}

inline release(n) {
    atomic { value = value + n; given = given + n; saw = has_parked };  //! atomic { value = value + n; given = given + n; saw = 0 };
    if
    :: saw -> wake_some(n)
    :: else
    fi
}

/* unpark_filter() with limited_filter() and semaphore_released() */
inline wake_some(n) {
    lock_bucket();                                     //! skip;
    pop_some(n);
    if
    :: length[SEMAPHORE] == 0 -> has_parked = 0
    :: else                                            //! :: length[SEMAPHORE] > 0 -> has_parked = 0
    fi;
    if
    :: true                                            /* be_fair: whenever it likes */
    :: atomic { count > 0 && value >= count ->         //! :: atomic { count > 0 ->
            value = value - count;
            taken = taken + count;
            assert(conserved);
            for (i : 0 .. count - 1) { token[chosen[i]] = HANDOFF }  //! skip
        }
    fi;
    unlock_bucket();
    do
    :: count > 0 -> count--; wake(chosen[count]); chosen[count] = 0  //! :: count > 0 -> count--
    :: else -> break
    od
}

inline pop_some(n) {
    do
    :: count < n && length[SEMAPHORE] > 0 -> pop(SEMAPHORE, chosen[count]); count++
    :: else -> break
    od
}

#define LOCALS byte how, answer, got, chosen[N], count, i; bit saw

inline finish() {
    finished++;
    finished == N;
    assert(conserved && given == UNITS && !has_parked && length[SEMAPHORE] == 0)
}

proctype taker(byte me) {
    LOCALS;
    acquire(me == MAIN);
    finish()
}

proctype taker_of_two(byte me) {
    LOCALS;
    acquire(0);
    acquire(0);
    finish()
}

proctype giver(byte me) {
    LOCALS;
    if
    :: release(3)
    :: release(1); release(2)
    :: release(2); release(1)
    :: release(1); release(1); release(1)
    fi;
    finish()
}

proctype handler() {
    LOCALS;
    byte me = HANDLER;
end:
    do
    :: handling ->
        acquire(0);
        release(1);
        atomic { given--; taken-- };                   /* as if it had never been here */
        if :: raised = 0 :: raised = 1 fi;
        handling = 0
    od
}

init {
    atomic { run handler(); run taker(0); run taker_of_two(1); run giver(2) }
}
