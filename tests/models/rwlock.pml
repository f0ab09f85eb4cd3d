/* fs_rwlock of rwlock.pyx: both queues, timeouts in both steps of writing, hand-over,
 * upgrade and downgrade.  A writer that may time out, an upgrader that may, and
 * a thread that reads and then writes. */
#define N 3
#define KEYS 2
#define TURN 0            /* the address: who waits to enter */
#define LEAVE 1           /* the address plus one: the claimant, for readers to leave */

#define READ 0
#define UPGRADABLE 1
#define WRITE 2

#include "table.inc"

/* The word. */
bit parked, writer_parked, upgradable, writer;
byte readers;

byte want[N];             /* park tokens */
byte reading, writing;    /* who is really inside */
byte finished;

#define blocked(w) (writer || ((w) != READ && upgradable))

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
        woken[other] = 1                               //! skip
    od;
    other = NOBODY
}

/* choose_woken(): readers and one other, nobody behind a writer; under the bucket lock. */
inline choose(held) {
    d_step {
        chosen_count = 0; sum_reads = 0;
        sum_upgradable = ((held) == UPGRADABLE); sum_writer = 0;
        index = 0;
        do
        :: index >= length[TURN] || sum_writer -> break
        :: else ->
            other = queue[TURN * N + index];
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
                for (slot : index .. N - 2) { queue[TURN * N + slot] = queue[TURN * N + slot + 1] }
                length[TURN]--;
                queued[other] = 0;
                token[other] = NORMAL
            fi
        od;
        other = NOBODY
    }
}

/* rwlock_wake_parked() */
inline wake_parked(held) {
    lock_bucket();
    choose(held);
    if :: length[TURN] == 0 -> parked = 0 :: else fi;
    unlock_bucket();
    wake_chosen()
}

/* let_go_and_wake(); `drop` is WRITE or UPGRADABLE */
inline let_go_and_wake(drop) {
    lock_bucket();
    choose(READ);
    if :: fair = 0 :: fair = 1 fi;
    d_step {
        if
        :: drop == WRITE -> writer = 0; writer_parked = 0; readers = 0
        :: drop == UPGRADABLE -> upgradable = 0; readers--
        fi;
        if
        :: fair && chosen_count > 0 ->
            readers = readers + sum_reads;
            upgradable = (sum_upgradable -> 1 : upgradable);
            writer = (sum_writer -> 1 : writer);
            for (slot : 0 .. chosen_count - 1) { token[chosen[slot]] = HANDOFF }
        :: else
        fi;
        parked = (length[TURN] > 0)                    //! parked = 0
    };
    unlock_bucket();
    wake_chosen()
}

/* wait_turn(): sets got, 1 entered, 0 timed out. */
inline wait_turn(w, timed) {
    got = 2;
    do
    :: got != 2 -> break
    :: got == 2 ->
        if
        :: atomic { !blocked(w) -> add(w); got = 1 }
        :: atomic { blocked(w) && !parked -> parked = 1 }
        :: atomic { blocked(w) && parked -> skip };
            lock_bucket();
            if
            :: !(parked && blocked(w)) -> unlock_bucket()  //! :: false -> unlock_bucket()
            :: else ->
                d_step { woken[me] = 0; token[me] = NORMAL; want[me] = w };
                enqueue(TURN, me);
                unlock_bucket();
                if
                :: woken[me] -> got = (token[me] == HANDOFF -> 1 : 2)
                :: timed ->
                    lock_bucket();
                    if
                    :: queued[me] ->
                        unlink(me);
                        if :: length[TURN] == 0 -> parked = 0 :: else fi;
                        unlock_bucket();
                        got = 0
                    :: else ->
                        unlock_bucket();
                        woken[me] == 1;
                        got = (token[me] == HANDOFF -> 1 : 2)
                    fi
                fi
            fi
        fi
    od
}

/* wait_for_readers(): got 1, or 0 after giving WRITER back for what was held before. */
inline wait_for_readers(restore, timed) {
    got = 2;
    do
    :: got != 2 -> break
    :: got == 2 ->
        if
        :: readers == 0 -> got = 1                     //! :: true -> got = 1
        :: atomic { readers > 0 && !writer_parked -> writer_parked = 1 }
        :: atomic { readers > 0 && writer_parked -> skip };
            lock_bucket();
            if
            :: !(readers > 0 && writer_parked) -> unlock_bucket()  //! :: false -> unlock_bucket()
            :: else ->
                d_step { woken[me] = 0; token[me] = NORMAL; want[me] = WRITE };
                enqueue(LEAVE, me);
                unlock_bucket();
                if
                :: woken[me] -> skip
                :: timed ->
                    lock_bucket();
                    if
                    :: queued[me] ->
                        unlink(me);
                        writer_parked = 0;
                        unlock_bucket();
                        withdraw(restore)
                    :: else ->
                        unlock_bucket();
                        woken[me] == 1
                    fi
                fi
            fi
        fi
    od
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
        lock_bucket();
        pop(LEAVE, other);
        writer_parked = 0;
        unlock_bucket();
        if :: other != NOBODY -> woken[other] = 1; other = NOBODY :: else fi
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

#define LOCALS byte other = NOBODY; byte got, index, chosen_count, sum_reads; \
    byte chosen[N]; bit fair, saw, sum_upgradable, sum_writer

proctype timed_writer(byte me) {
    LOCALS;
    wait_turn(WRITE, 1);
    if
    :: got == 1 ->
        wait_for_readers(WRITE, 1);
        if
        :: got == 1 -> enter_write(); leave_write(); unlock_write()
        :: else
        fi
    :: else
    fi;
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
        :: downgrade(); enter_read(); leave_read(); unlock_read()
        fi
    :: else -> enter_read(); leave_read(); unlock_upgradable()
    fi;
    finished++
}

proctype reader_then_writer(byte me) {
    LOCALS;
    wait_turn(READ, 0);
    enter_read();
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

init {
    atomic { run timed_writer(0); run upgrader(1); run reader_then_writer(2) }
}
