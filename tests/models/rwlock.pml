/* fs_rwlock of raw/rwlock.pyx: both queues, timeouts and signals in both steps of writing,
 * hand-over, upgrade, and downgrade in all three ways.  MAIN writes, with a deadline, and
 * gets a signal while it waits, whose handler reads and may raise; the second
 * thread reads upgradably and upgrades, with a deadline; the third reads, once or twice
 * (recursively), and then writes.
 *
 * Left out: spinning, the limit of readers, unlocking what is not held.
 *
 * Asserted besides what table.inc asserts: a writer is alone; nobody waits for ever; who
 * lets writing go for upgradable reading leaves no reader asleep; in the end the word
 * is free and both queues are empty. */
#define N 3
#define KEYS 2
#define TURN 0            /* the address: who waits to enter */
#define LEAVE 1           /* the address plus one: the claimant, for readers to leave */
#define SIGNALS 1

#define READ 0
#define UPGRADABLE 1
#define WRITE 2

#define LOOKING 2
#define DUE 3             /* handlers have run: claim again */

#define valid(key) ((key) == TURN -> parked && blocked(want[me]) : readers > 0 && writer_parked)
#define blocked(w) (writer || ((w) != READ && upgradable))

#include "table.inc"

/* The word. */
bit parked, writer_parked, upgradable, writer;
byte readers;

byte want[RECORDS];             /* park tokens */
byte reading, writing;    /* who is really inside */
byte finished;

inline wait_ended(key, last) {
    if
    :: (key) == TURN && last -> parked = 0             /* tidy: an unlock would do it */
    :: (key) == LEAVE -> writer_parked = 0             /* tidy: it means nothing now */
    :: else
    fi
}

inline add(w) {
    if
    :: (w) == READ -> readers++
    :: (w) == UPGRADABLE -> readers++; upgradable = 1
    :: (w) == WRITE -> writer = 1
    fi
}

inline wake_chosen() {
    do
    :: chosen_count == 0 -> break
    :: else ->
        chosen_count--;
        other = chosen[chosen_count];
        chosen[chosen_count] = 0;
        wake(other)                                    //! skip
    od;
    other = 0
}

/* choose_woken(): readers and one other, nobody behind a writer; under the bucket lock. */
inline choose(held) {
    atomic {
        chosen_count = 0; sum_reads = 0;
        sum_upgradable = ((held) == UPGRADABLE); sum_writer = 0;
        index = 0;
        do
        :: index < length[TURN] && !sum_writer ->
            other = queue[TURN * RECORDS + index];
            if
            :: want[other] != READ && sum_upgradable -> index++
            :: else ->
                if
                :: want[other] == READ -> sum_reads++
                :: want[other] == UPGRADABLE -> sum_reads++; sum_upgradable = 1
                :: want[other] == WRITE -> sum_writer = 1
                fi;
                chosen[chosen_count] = other;
                chosen_count++;
                unlink(other)
            fi
        :: else -> break
        od;
        other = 0;
        index = 0
    }
}

/* rwlock_wake_parked() */
inline wake_parked(held) {
    atomic { !bucket;                                  //! {
        choose(held);
        if :: length[TURN] == 0 -> parked = 0 :: else fi
    };
    wake_chosen()
}

/* let_go_and_wake(); `drop` is WRITE or UPGRADABLE */
inline let_go_and_wake(drop) {
    atomic { !bucket;                                  //! {
        choose(READ);
        if :: fair = 0 :: fair = (chosen_count > 0) fi;
        atomic {
            if
            :: drop == WRITE -> writer = 0; writer_parked = 0; readers = 0
            :: drop == UPGRADABLE -> upgradable = 0; readers--
            fi;
            if
            :: fair ->
                readers = readers + sum_reads;         //! skip;
                upgradable = (sum_upgradable -> 1 : upgradable);  //! skip;
                writer = (sum_writer -> 1 : writer);   //! skip;
                for (at : 0 .. chosen_count - 1) { token[chosen[at]] = HANDOFF }
            :: else
            fi;
            parked = (length[TURN] > 0)                //! parked = 0
        }
    };
    sum_reads = 0; sum_upgradable = 0; sum_writer = 0; fair = 0;
    wake_chosen()
}

/* wait_turn(): sets got, 1 entered, 0 timed out or raised. */
inline wait_turn(w, timed) {
    got = LOOKING;
    want[me] = w;
    do
    :: got != LOOKING -> break
    :: atomic { got == LOOKING && !blocked(w) -> add(w); got = 1 }  //! :: got == LOOKING && !blocked(w) -> add(w); got = 1
    :: atomic { got == LOOKING && blocked(w) -> parked = 1 };
        park(TURN, first, timed, RUN);
        if
        :: how == UNPARKED && answer == HANDOFF -> got = 1  //! :: false -> skip
        :: how == UNPARKED && answer == NORMAL -> first = 1
        :: how == INVALID
        :: how == TIMED_OUT || how == INTERRUPTED -> got = 0
        fi;
        answer = NORMAL
    od;
    how = ASLEEP;
    first = 0
}

/* wait_for_readers(): got 1, or 0 after giving WRITER back for what was held before. */
inline wait_for_readers(restore, timed) {
    got = LOOKING;
    do
    :: got != LOOKING -> break
    :: got == LOOKING && readers == 0 -> got = 1       //! :: got == LOOKING -> got = 1
    :: atomic { got == LOOKING && readers > 0 -> writer_parked = 1 };
        park(LEAVE, 0, timed, ASK);
        if
        :: how == TIMED_OUT -> withdraw(restore)
        :: how == SIGNALLED -> run_outside(restore)    //! :: how == SIGNALLED -> run_handlers(); raised = 0
        :: else
        fi;
        answer = NORMAL
    od;
    how = ASLEEP
}

/* The handlers, if we cannot write by now: then they may want in. */
inline run_outside(restore) {
    withdraw(restore);
    if
    :: got == 0 -> run_handlers(); d_step { got = (raised -> 0 : DUE); raised = 0 }
    :: else
    fi
}

inline withdraw(restore) {
    atomic {
        if
        :: readers == 0 -> got = 1
        :: else ->
            writer = 0;
            if :: restore == UPGRADABLE -> readers++; upgradable = 1 :: else fi;
            saw = parked;
            got = 0
        fi
    };
    if
    :: got == 0 && saw -> wake_parked(restore)         //! :: got == 0 && saw -> skip
    :: else
    fi
}

inline enter_write() { writing++; assert(writing == 1 && reading == 0) }
inline leave_write() { writing-- }
inline enter_read() { reading++; assert(writing == 0) }
inline leave_read() { reading-- }

inline unlock_read() {
    atomic { readers--; saw = (readers == 0 && writer_parked) };  //! atomic { readers--; saw = 0 };
    if
    :: saw ->
        atomic { !bucket;                              //! {
            pop(LEAVE, other);
            writer_parked = 0
        };
        if
        :: other != NOBODY -> wake(other)              //! :: other != NOBODY -> skip
        :: else
        fi;
        other = 0
    :: else
    fi
}

inline unlock_write() {
    if
    :: atomic { writer && !parked -> writer = 0; writer_parked = 0 }
    :: parked -> let_go_and_wake(WRITE)
    fi
}

inline unlock_upgradable() {
    if
    :: atomic { upgradable && !parked -> upgradable = 0; readers-- }
    :: parked -> let_go_and_wake(UPGRADABLE)
    fi
}

inline downgrade() {
    atomic { writer = 0; readers++; saw = parked };    //! atomic { writer = 0; saw = parked };
    if
    :: saw -> wake_parked(READ)                        //! :: saw -> skip
    :: else
    fi
}

#define sleeps_to_read(t) (queued[t] && parked_on[t] == TURN && want[t] == READ)

inline downgrade_to_upgradable() {
    atomic { writer = 0; readers++; upgradable = 1; saw = parked };  //! atomic { writer = 0; upgradable = 1; saw = parked };
    if
    :: saw -> wake_parked(UPGRADABLE)                  //! :: saw -> skip
    :: else
    fi;
    assert(!sleeps_to_read(2) && !sleeps_to_read(HANDLER))
}

inline downgrade_upgradable() {
    atomic { upgradable = 0; saw = parked };
    if
    :: saw -> wake_parked(READ)                        //! :: saw -> skip
    :: else
    fi
}

inline read_and_leave() { enter_read(); leave_read(); unlock_read() }

/* rwlock_read_recursive() of one who reads already */
inline read_again() { atomic { readers > 0; readers++ } }

#define LOCALS byte how, answer, got, other, index, chosen_count, sum_reads, chosen[N]; \
    bit first, fair, saw, sum_upgradable, sum_writer

proctype timed_writer(byte me) {
    LOCALS;
    got = DUE;
    do
    :: got == DUE ->
        wait_turn(WRITE, 1);
        if :: got == 1 -> wait_for_readers(WRITE, 1) :: else fi
    :: got == 1 -> enter_write(); leave_write(); unlock_write(); break
    :: got == 0 -> break
    od;
    finished++
}

proctype upgrader(byte me) {
    LOCALS;
    wait_turn(UPGRADABLE, 0);
    enter_read();
    leave_read();
    atomic { upgradable = 0; readers--; writer = 1 };  //! atomic { upgradable = 0; readers-- };
    wait_for_readers(UPGRADABLE, 1);
    if
    :: got == 1 ->
        enter_write();
        leave_write();
        if
        :: unlock_write()
        :: downgrade(); read_and_leave()
        :: downgrade_to_upgradable(); enter_read(); leave_read(); unlock_upgradable()
        fi
    :: else -> enter_read(); leave_read();
        if
        :: unlock_upgradable()
        :: downgrade_upgradable(); read_and_leave()
        fi
    fi;
    finished++
}

proctype reader_then_writer(byte me) {
    LOCALS;
    wait_turn(READ, 0);
    enter_read();
    if
    :: true
    :: read_again(); unlock_read()
    fi;
    leave_read();
    unlock_read();
    wait_turn(WRITE, 0);
    wait_for_readers(WRITE, 0);
    enter_write();
    leave_write();
    unlock_write();
    finished++;
    finished == N;
    assert(!parked && !writer && !upgradable && readers == 0 && length[TURN] == 0 && length[LEAVE] == 0)
}

proctype handler() {
    LOCALS;
    byte me = HANDLER;
end:
    do
    :: handling ->
        if
        :: wait_turn(READ, 0); read_and_leave()
        :: true
        fi;
        if :: raised = 0 :: raised = 1 fi;
        handling = 0
    od
}

init {
    atomic { run handler(); run timed_writer(0); run upgrader(1); run reader_then_writer(2) }
}
