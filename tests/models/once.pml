/* The once word of once.pyx: three threads call once; an initializer may fail, which
 * poisons (here: lets the next caller try); a caller may give up at a deadline.  It
 * succeeds at most once, and whoever returns otherwise than by deadline or its own
 * failure finds it done. */
#define N 3
#define KEYS 1
#define ONCE 0

#include "table.inc"

bit done, running, has_parked;
byte inside, successes, failures, finished;

inline leave(success) {
    if
    :: success ->
        atomic { done = 1; running = 0; saw = has_parked; has_parked = 0 }  //! atomic { done = 1; running = 0; saw = 0; has_parked = 0 }
    :: else ->
        atomic { running = 0; saw = has_parked; has_parked = 0 }            //! atomic { running = 0; saw = 0; has_parked = 0 }
    fi;
    if
    :: saw ->
        lock_bucket();
        d_step {
            count = length[ONCE];
            for (slot : 0 .. N - 1) {
                if
                :: slot < count -> freed[slot] = queue[slot]; queued[queue[slot]] = 0
                :: else
                fi
            }
            length[ONCE] = 0
        };
        unlock_bucket();
        do
        :: count == 0 -> break
        :: else -> count--; woken[freed[count]] = 1    //! :: else -> count--
        od
    :: else
    fi
}

proctype caller(byte me) {
    byte count, freed[N];
    bit saw, over;
    do
    :: over -> break
    :: !over ->
        if
        :: done -> over = 1
        :: atomic { !done && !running -> running = 1 };
            inside++;
            assert(inside == 1 && !done);
            inside--;
            if
            :: leave(1); successes++; over = 1
            :: failures < 1 -> failures++; leave(0); over = 1
            fi
        :: atomic { running && !has_parked -> has_parked = 1 }
        :: atomic { running && has_parked -> skip };
            lock_bucket();
            if
            :: !(running && has_parked) -> unlock_bucket()  //! :: false -> unlock_bucket()
            :: else ->
                woken[me] = 0;
                enqueue(ONCE, me);
                unlock_bucket();
                if
                :: woken[me] -> skip
                :: me == 0 ->
                    lock_bucket();
                    if
                    :: queued[me] -> unlink(me); unlock_bucket(); over = 1  //! :: true -> unlink(me); unlock_bucket(); over = 1
                    :: else -> unlock_bucket(); woken[me] == 1
                    fi
                fi
            fi
        fi
    od;
    finished++;
    finished == N;
    assert(successes <= 1 && length[ONCE] == 0)
}

init {
    atomic { run caller(0); run caller(1); run caller(2) }
}
