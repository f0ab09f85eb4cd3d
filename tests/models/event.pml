/* fs_event of raw/event.pyx: two waiters, MAIN with a deadline in its second wait and a signal
 * during a wait, whose handler may set the event or look whether it is set, and may raise;
 * and a thread that sets and clears it.
 *
 * Left out: event_reset().
 *
 * Asserted besides what table.inc asserts: a wait ends well only if the event was set at
 * some moment of it, so it is not ended by a set() before the clear() that it began after;
 * it ends at all if there was one since it was parked, even if the event was cleared at
 * once, or a handler ran; and in the end nobody is queued. */
#define N 3
#define KEYS 1
#define EVENT 0
#define SIGNALS 1

#define CLEAR 0
#define SET 1
#define PARKED 2          /* clear, and somebody may be parked */

#define LOOKING 2

#define valid(key) (state == PARKED)
#define entered(key) skip
#define before_sleep(key) skip

#include "table.inc"

byte state;
bit was_set[RECORDS];     /* since its wait began */
bit owed[RECORDS];        /* since it was parked: it must end well */
bit no_more;              /* set() calls */
byte finished;

/* A wait without a deadline may end unserved only so. */
#define missed_all (no_more && !owed[me])

inline wait_ended(key, last) {
    if
    :: last && state == PARKED -> state = CLEAR        /* tidy: a set would do it */
    :: else
    fi
}

inline set_now() {
    state = SET;
    for (at : 0 .. N) { was_set[at] = 1; owed[at] = parking[at] }
}

inline set() {
    if
    :: atomic { state != PARKED -> set_now() }
    :: state == PARKED -> set_slow()
    fi
}

inline set_slow() {
    atomic { !bucket;                                  //! {
        do
        :: length[EVENT] == 0 -> break
        :: else -> pop(EVENT, other); token[other] = HANDOFF; chosen[count] = other; count++
        od;
        set_now()
    };
    do
    :: count == 0 -> break
    :: else -> count--; wake(chosen[count]); chosen[count] = 0  //! :: else -> count--
    od;
    other = 0
}

/* Was it PARKED, it is clear: leave it to the next set() to look. */
inline clear() {
    if
    :: atomic { state == SET -> state = CLEAR }        //! :: state = CLEAR
    :: else
    fi
}

/* Sets got: 1 set, 0 timed out or raised. */
inline wait(timed) {
    d_step { got = LOOKING; was_set[me] = (state == SET); owed[me] = 0 };
    do
    :: got != LOOKING -> break
    :: got == LOOKING && state == SET -> got = 1
    :: got == LOOKING && state != SET ->
        if
        :: atomic { state == CLEAR -> state = PARKED }
        :: state != CLEAR
        fi;
        park_in_place(EVENT, timed, 1);
        if
        :: how == UNPARKED -> got = 1
        :: how == INVALID
        :: how >= TIMED_OUT -> got = 0
        fi;
        answer = NORMAL
    od;
    assert(got == 0 || was_set[me]);
    how = ASLEEP
}

#define LOCALS byte how, answer, got, other, chosen[RECORDS], count; bit deaf

proctype waiter(byte me) {
    LOCALS;
    wait(missed_all);
    wait(me == MAIN || missed_all);
    finished++
}

proctype setter(byte me) {
    LOCALS;
    clear();
    set();
    clear();
    set();
    clear();
    no_more = 1;
    finished++;
    finished == N;
    assert(length[EVENT] == 0 && state != PARKED)
}

proctype handler() {
    LOCALS;
    byte me = HANDLER;
end:
    do
    :: handling ->
        if
        :: set()
        :: wait(1)
        fi;
        if :: raised = 0 :: raised = 1 fi;
        handling = 0
    od
}

init {
    atomic { run handler(); run waiter(0); run waiter(1); run setter(2) }
}
