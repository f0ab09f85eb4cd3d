/* The once byte of raw/once.pyx: MAIN waits until it has run, with a deadline, or runs it, and
 * gets a signal meanwhile, whose handler runs it or waits for the run of another, and may
 * raise; a second thread runs it, or waits for a run; the third runs it and again if
 * that failed, and takes back what it made once.  Runs may fail: for good, which poisons, or
 * so that the next one tries; who forces it runs it though poisoned.
 *
 * Left out: spinning, once_is_done().
 *
 * Asserted besides what table.inc asserts: one runs it at a time, and never when done;
 * DONE and POISON are told only if it was so during the call; nobody waits for ever; in the
 * end nobody is queued. */
#define N 3
#define KEYS 1
#define ONCE 0
#define SIGNALS 1

#define NEW 0
#define DONE 1
#define POISON 2
#define RUNNING 4

#define LOOKING 9
#define NEITHER 10        /* timed out, or raised */

/* still_running(), still_undone() */
#define valid(key) (has_parked && (waits[me] -> !(state == DONE || state == POISON) : state == RUNNING))

#include "table.inc"

byte state;               /* the byte but PARKED */
bit has_parked;
bit waits[RECORDS];       /* in once_wait(), not once_begin() */
bit was_done[RECORDS], was_poisoned[RECORDS];   /* at some moment of the call */
byte running, failures;
bit given_up;             /* the last to run it for certain has gone */
byte finished;

inline wait_ended(key, last) {
    if
    :: last -> has_parked = 0                          /* tidy: the end of a run would do it */
    :: else
    fi
}

inline call_begins(waiting) {
    d_step {
        got = LOOKING;
        waits[me] = waiting;
        was_done[me] = (state == DONE);
        was_poisoned[me] = (state == POISON)
    }
}

inline call_ends() {
    d_step {
        assert(got != DONE || was_done[me]);
        assert(got != POISON || was_poisoned[me]);
        waits[me] = 0
    }
}

inline park_once(timed) {
    park(ONCE, 0, timed, 1);
    if
    :: how == TIMED_OUT || how == INTERRUPTED -> got = NEITHER
    :: else
    fi;
    answer = NORMAL;
    how = ASLEEP
}

#define may_run(force) (got == LOOKING && (state == NEW || state == POISON && force))

/* Sets got: DONE, POISON, NEITHER, or RUNNING: it is ours to run. */
inline once_begin(force, timed) {
    call_begins(0);
    do
    :: got != LOOKING -> break
    :: got == LOOKING && state == DONE -> got = DONE
    :: got == LOOKING && state == POISON && !(force) -> got = POISON
    :: atomic { may_run(force) ->                      //! :: may_run(force) -> {
            state = RUNNING;
            got = RUNNING
        }
    :: atomic { got == LOOKING && state == RUNNING -> has_parked = 1 };
        park_once(timed)
    od;
    call_ends()
}

inline once_wait(timed) {
    call_begins(1);
    do
    :: got != LOOKING -> break
    :: got == LOOKING && state == DONE -> got = DONE
    :: got == LOOKING && state == POISON -> got = POISON
    :: atomic { got == LOOKING && (state == NEW || state == RUNNING) -> has_parked = 1 };
        park_once(timed)
    od;
    call_ends()
}

inline once_end(outcome) {
    atomic {
        state = outcome;
        for (at : 0 .. N) {
            was_done[at] = was_done[at] | (outcome == DONE);
            was_poisoned[at] = was_poisoned[at] | (outcome == POISON)
        }
        saw = has_parked;                              //! saw = 0;
        has_parked = 0
    };
    if
    :: saw -> wake_all()
    :: else
    fi;
    saw = 0
}

inline wake_all() {
    atomic { !bucket;
        do
        :: length[ONCE] > 0 -> pop(ONCE, chosen[count]); count++
        :: else -> break
        od
    };
    do
    :: count > 0 -> count--; wake(chosen[count]); chosen[count] = 0  //! :: count > 0 -> count--
    :: else -> break
    od
}

inline run_it() {
    running++;
    assert(running == 1 && state == RUNNING);
    running--;
    if
    :: once_end(DONE)
    :: atomic { failures < 1 -> failures++ };
        if
        :: once_end(POISON)
        :: once_end(NEW)
        fi
    fi
}

inline begin_and_run(force, timed) {
    once_begin(force, timed);
    if
    :: got == RUNNING -> run_it()
    :: else
    fi
}

#define LOCALS byte how, answer, got, other, chosen[RECORDS], count; bit saw

proctype main_thread(byte me) {
    LOCALS;
    if
    :: once_wait(1)
    :: begin_and_run(0, 0)
    fi;
    finished++
}

proctype second(byte me) {
    LOCALS;
    if
    :: begin_and_run(0, 0)
    :: once_wait(given_up && state == NEW)             /* nobody will run it */
    fi;
    finished++
}

proctype third(byte me) {
    LOCALS;
    begin_and_run(1, 0);
    if
    :: atomic { got == RUNNING && state == DONE -> state = RUNNING };   /* once_retract() */
        once_end(NEW);
        begin_and_run(1, 0)
    :: true
    fi;
    given_up = 1;
    finished++;
    finished == N;
    assert(state != RUNNING && length[ONCE] == 0)
}

proctype handler() {
    LOCALS;
    byte me = HANDLER;
end:
    do
    :: handling ->
        if
        :: begin_and_run(0, 0)
        :: once_wait(1)
        fi;
        if :: raised = 0 :: raised = 1 fi;
        handling = 0
    od
}

init {
    atomic { run handler(); run main_thread(0); run second(1); run third(2) }
}
