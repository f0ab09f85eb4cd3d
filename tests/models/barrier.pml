/* fs_barrier of raw/barrier.pyx: three threads, as many parties, two arrivals each.  MAIN gets a
 * signal while it waits, whose handler may abort the barrier, and may raise: then MAIN leaves
 * the round.  SLACK has a deadline, and resets a barrier that broke.  The action of whoever
 * arrives last may raise.
 *
 * The barrier's own lock is one bit here (mutex.pml has the real one), as none of
 * its holders sleeps.  Left out: forks, barrier_reinit().
 *
 * Asserted besides what table.inc asserts: a round ends in the same way for all who are in
 * it, and it passes only with all parties in; nobody is woken for a round that is not
 * theirs; draining goes to zero; nobody waits for ever. */
#define N 3
#define KEYS 2
#define ROUND 0           /* the barrier's address */
#define ENTRY 1           /* that of `running` */
#define SIGNALS 1
#define PARTIES 3
#define SLACK 1

/* Outcomes, which are tokens too; and of a wait for entry. */
#define BROKEN 2
#define PASSED 3
#define LAST 4
#define RAISED 5
#define OPEN 6            /* the round has not ended */

#define MAX_ROUNDS 8

#define valid(key) true
#define entered(key) skip
#define before_sleep(key) barrier_unlock()
#define wait_ended(key, last) skip

#include "table.inc"

bit lock;
byte arrived, draining;   /* `arrived` is fs_barrier's count */
byte generation;
bit passed, running, broken;

byte round_of[RECORDS];   /* the generation in which it arrived */
byte members;             /* who are in the round in truth */
byte ended[MAX_ROUNDS] = OPEN;
bit trouble;              /* some round did not pass for all */
byte finished;

inline barrier_lock()   { atomic { !lock -> lock = 1 } }
inline barrier_unlock() { lock = 0 }

/* unpark_all(): `outcome` is the token; sets count. */
inline unlink_all(key, outcome) {
    atomic { !bucket;                                  //! {
        do
        :: length[key] > 0 ->
            pop(key, other);
            assert((key) == ENTRY || round_of[other] == generation);
            token[other] = outcome;
            chosen[count] = other;
            count++
        :: else -> break
        od;
        other = 0
    }
}

inline wake_all() {
    do
    :: count > 0 -> count--; wake(chosen[count]); chosen[count] = 0  //! :: count > 0 -> count--
    :: else -> break
    od
}

/* barrier_finish() */
inline finish_round(outcome, awake) {
    if
    :: arrived > 0 ->
        d_step {
            assert(outcome != PASSED || members == PARTIES);
            ended[generation] = outcome;
            members = 0
        };
        unlink_all(ROUND, outcome);
        draining = (arrived > count + (awake) -> arrived - count - (awake) : 0);  //! draining = 0;
        wake_all();
        passed = (outcome == PASSED);
        generation++;                                  //! skip;
        arrived = 0
    :: else
    fi
}

inline let_in() {
    if
    :: !running && draining == 0 -> unlink_all(ENTRY, NORMAL); wake_all()  //! :: !running && draining == 0 -> skip
    :: else
    fi
}

/* barrier_enter(): with the lock, or how == INTERRUPTED. */
inline enter_barrier() {
    barrier_lock();
    do
    :: running || draining > 0 ->                      //! :: draining > 0 ->
        park_in_place(ENTRY, 0, 1);
        answer = NORMAL;
        if
        :: how >= INTERRUPTED -> break
        :: else
        fi;
        barrier_lock()
    :: else -> how = ASLEEP; break
    od
}

/* barrier_arrive(): sets outcome. */
inline arrive(timed) {
    outcome = OPEN;
    enter_barrier();
    if
    :: how >= INTERRUPTED -> outcome = RAISED
    :: how < INTERRUPTED && broken -> barrier_unlock(); outcome = BROKEN
    :: else ->
        assert(draining == 0);
        d_step { arrived++; members++; round_of[me] = generation };
        if
        :: arrived == PARTIES -> running = 1; barrier_unlock(); outcome = LAST
        :: else -> wait_round(timed)
        fi
    fi
}

inline wait_round(timed) {
    patient = 0;
    do
    :: outcome != OPEN -> break
    :: outcome == OPEN ->
        park_in_place(ROUND, ((timed) && !patient), 1);
        if
        :: how == UNPARKED -> outcome = answer
        :: how == UNPARKED_INTERRUPTED -> outcome = RAISED
        :: else -> barrier_lock(); gave_up_round()
        fi;
        answer = NORMAL
    od
}

inline gave_up_round() {
    if
    :: generation == round_of[me] && running && how == TIMED_OUT -> patient = 1
    :: generation != round_of[me] ->                   //! :: false ->
        outcome = (passed -> PASSED : BROKEN);
        if
        :: draining > 0 ->
            draining--;                                //! skip;
            let_in()                                   //! skip
        :: else
        fi;
        leave_round()
    :: generation == round_of[me] && how == INTERRUPTED ->
        if
        :: arrived > 0 ->
            arrived--;                                 //! skip;
            members = (running -> members : members - 1)   /* running: all have come */
        :: else
        fi;
        leave_round()
    :: generation == round_of[me] && how == TIMED_OUT && !running ->
        broken = 1;
        finish_round(BROKEN, 1);                       //! finish_round(BROKEN, 0);
        outcome = BROKEN;
        leave_round()
    fi
}

inline leave_round() {
    if :: how == INTERRUPTED -> outcome = RAISED :: else fi;
    barrier_unlock()
}

/* barrier_open(): sets outcome. */
inline open_barrier() {
    barrier_lock();
    if
    :: broken -> outcome = BROKEN                      //! :: broken -> outcome = PASSED
    :: else -> finish_round(PASSED, 1); outcome = PASSED  //! :: else -> finish_round(PASSED, 0); outcome = PASSED
    fi;
    running = 0;                                       //! skip;
    let_in();
    barrier_unlock()
}

inline abort_barrier() {
    barrier_lock();
    broken = 1;
    finish_round(BROKEN, running);                     //! finish_round(BROKEN, 0);
    barrier_unlock()
}

inline reset_barrier() {
    enter_barrier();
    if
    :: how == ASLEEP ->
        broken = 0;
        finish_round(BROKEN, 0);
        let_in();
        barrier_unlock()
    :: else
    fi
}

/* Whoever arrives last acts, and the action may raise. */
inline act() {
    if
    :: true
    :: trouble = 1; abort_barrier()
    fi;
    open_barrier()
}

inline check_outcome() {
    if
    :: outcome == PASSED -> assert(ended[round_of[me]] == PASSED)
    :: outcome == RAISED -> trouble = 1
    :: outcome == BROKEN -> assert(round_of[me] == NOBODY || ended[round_of[me]] == BROKEN); trouble = 1
    fi
}

#define LOCALS byte how, answer, outcome, other, chosen[RECORDS], count; bit deaf, patient

proctype thread(byte me) {
    LOCALS;
    byte turn;
    for (turn : 1 .. 2) {
        round_of[me] = NOBODY;
        arrive(me == SLACK);
        if :: outcome == LAST -> act() :: else fi;
        check_outcome();
        if
        :: me == SLACK && outcome == BROKEN && turn == 1 -> reset_barrier()
        :: else
        fi
    }
    if :: trouble -> abort_barrier() :: else fi;       /* who is gone cannot be waited for */
    finished++;
    finished == N;
    assert(arrived == 0 && draining == 0 && !running && !lock)
}

proctype handler() {
    byte me = HANDLER;
    byte other, chosen[RECORDS], count;
end:
    do
    :: handling ->
        if
        :: trouble = 1; abort_barrier()
        :: true
        fi;
        if :: raised = 0 :: raised = 1 fi;
        handling = 0
    od
}

init {
    atomic { run handler(); run thread(0); run thread(1); run thread(2) }
}
