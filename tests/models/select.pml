/* fs_ring of raw/ring.pyx and select_park() of raw/select.pyx: a select that receives from two
 * rings, one of limit 1 and a rendezvous; a thread that puts twice into the first; one that
 * puts into the rendezvous, with a deadline; and one that shuts both.  The select has a
 * deadline and gets a signal, whose handler takes from the first ring if there is something,
 * and may raise.
 *
 * What happens under the lock of a ring is one step but for the look at its queue, which the
 * bucket lock guards, too.  Left out are growth, an order of one's own, spinning, forks.
 *
 * Asserted: a record is queued, woken and served only while its thread is parked; an item that
 * was put comes out once or is still there, one whose put failed never does; a select has one
 * outcome; whoever waits is woken (no state without a way on). */

#define N 4               /* records: two of the select, then one for each thread */
#define S0 0
#define S1 1
#define A 2
#define B 3
#define KEYS 4
#define getters(r) (2 * (r))
#define putters(r) (2 * (r) + 1)
#define NOBODY 255

/* Tokens: an item, or one of these. */
#define LOOK 0
#define SERVED 8
#define END 9

#define WAIT 0
#define DONE 1
#define CLOSED 2
#define TIMEOUT 3
#define RAISED 4

bit ring[2];              /* the lock */
byte stored;              /* the item in the first ring */
bit shut[2];
bit marked[KEYS];         /* GETTERS, PUTTERS */
byte queue[KEYS * N], length[KEYS];
bit queued[N], woken[N], parked[N];
byte token[N];
byte carried[N];          /* the item of a record that puts */
byte chosen;              /* of the select: 0, or the number of a case */
bit signal = 1;

byte came[4];             /* how often each item came out */
byte went[4];             /* 1: its put has succeeded */
byte finished;
byte at, found;           /* scratch, inside d_step only */
bit hit;

inline lock_ring(r)   { atomic { !ring[r] -> ring[r] = 1 } }
inline unlock_ring(r) { ring[r] = 0 }

inline enqueue(key, t) {
    d_step {
        assert(!queued[t] && parked[t]);
        queue[(key) * N + length[key]] = t;
        length[key]++;
        queued[t] = 1
    }
}

inline unlink(key, t) {
    d_step {
        hit = 0;
        for (at : 0 .. N - 1) {
            if
            :: hit -> queue[(key) * N + at - 1] = queue[(key) * N + at]
            :: else -> hit = at < length[key] && queue[(key) * N + at] == t
            fi
        }
        assert(hit);
        length[key]--;
        queue[(key) * N + length[key]] = 0;
        queued[t] = 0
    }
}

#define claims(t) ((t) == S0 || (t) == S1)

/* unpark_filter(): the first of the key that can be served, `found`; claims it, unlinks it, and
 * clears the mark when nobody is left.  One step: it is under the bucket lock. */
inline choose(key) {
    d_step {
        found = NOBODY;
        at = 0;
        do
        :: at < length[key] && found == NOBODY ->
            if
            :: claims(queue[(key) * N + at]) && chosen != 0 -> at++  //! :: false -> skip
            :: else -> found = queue[(key) * N + at]
            fi
        :: else -> break
        od;
        if
        :: found != NOBODY && claims(found) -> chosen = found + 1  //! :: false -> skip
        :: else
        fi;
        if
        :: found != NOBODY ->
            hit = 0;
            for (at : 0 .. N - 1) {
                if
                :: hit -> queue[(key) * N + at - 1] = queue[(key) * N + at]
                :: else -> hit = queue[(key) * N + at] == found && at < length[key]
                fi
            }
            length[key]--;
            queue[(key) * N + length[key]] = 0;
            queued[found] = 0
        :: else
        fi;
        if
        :: length[key] == 0 -> marked[key] = 0
        :: else                                        //! :: else -> marked[key] = 0
        fi
    }
}

inline wake(t, what) {
    atomic {
        assert(parked[t] && !queued[t] && !woken[t]);
        token[t] = what;
        woken[t] = 1
    }
}

/* wake_all(): each is told to look, or that this is the end. */
inline wake_all(key) {
    do
    :: atomic { length[key] > 0 -> first = queue[(key) * N]; unlink(key, first) }; wake(first, END)
    :: atomic { length[key] == 0 -> marked[key] = 0; break }
    od
}

/* -- attempts, under the lock: outcome */

inline try_put(r, item) {
    outcome = WAIT;
    if
    :: shut[r] -> outcome = CLOSED
    :: else ->
        if
        :: marked[getters(r)] ->
            atomic { choose(getters(r)); other = found };
            if
            :: other != NOBODY ->
                atomic { went[item] = 1; wake(other, item) };
                outcome = DONE
            :: else
            fi
        :: else
        fi;
        if
        :: outcome == WAIT && (r) == 0 && stored == 0 ->
            d_step { stored = item; went[item] = 1; outcome = DONE }
        :: else
        fi
    fi
}

/* Takes the item of a parked put: into the ring, or into `got`. */
inline serve_putter(r) {
    if
    :: marked[putters(r)] ->
        atomic { choose(putters(r)); other = found };
        if
        :: other != NOBODY ->
            d_step {
                went[carried[other]] = 1;
                if
                :: (r) == 0 -> assert(stored == 0); stored = carried[other]
                :: else -> got = carried[other]
                fi
            };
            wake(other, SERVED)
        :: else
        fi
    :: else
    fi
}

inline try_get(r) {
    got = 0;
    if
    :: (r) == 0 && stored != 0 -> d_step { got = stored; stored = 0 }; serve_putter(r)
    :: (r) == 0 && stored == 0
    :: (r) == 1 -> serve_putter(r)
    fi;
    outcome = (got != 0 -> DONE : (shut[r] -> CLOSED : WAIT))
}

/* -- waiting */

/* validate() and enqueue(): one step, under the bucket lock. */
inline park(key, t) {
    atomic {
        if
        :: marked[key] -> parked[t] = 1; enqueue(key, t)   //! :: true -> parked[t] = 1; enqueue(key, t)
        :: else
        fi
    }
}

/* give_up(): leaves, or waits for the wake-up that is on its way. */
inline leave(key, t) {
    atomic {
        if
        :: queued[t] -> unlink(key, t); parked[t] = 0
        :: else
        fi
    };
    if
    :: parked[t] -> atomic { woken[t]; woken[t] = 0; parked[t] = 0 }  //! :: parked[t] -> parked[t] = 0
    :: else
    fi
}

inline take_out(item) { d_step { came[item]++; assert(came[item] == 1) } }

#define LOCALS byte outcome, got, other, first

proctype putter(byte me; byte r; byte from; byte to; bit timed) {
    LOCALS;
    byte item = from;
    do
    :: item > to -> break
    :: else ->
        outcome = WAIT;
        do
        :: outcome != WAIT -> break
        :: outcome == WAIT ->
            lock_ring(r);
            try_put(r, item);
            if :: outcome == WAIT -> marked[putters(r)] = 1 :: else fi;  //! skip;
            unlock_ring(r);
            if
            :: outcome == WAIT ->
                carried[me] = item;
                token[me] = LOOK;
                park(putters(r), me);
                if
                :: parked[me] ->
                    if
                    :: woken[me]
                    :: timed -> outcome = TIMEOUT
                    fi;
                    leave(putters(r), me);
                    if
                    :: token[me] == SERVED -> outcome = DONE    //! :: false -> skip
                    :: token[me] == END -> outcome = CLOSED
                    :: else
                    fi
                :: else
                fi
            :: else
            fi
        od;
        assert((outcome == DONE) == went[item]);
        outcome = WAIT;
        item++
    od;
    finished++
}

/* Looks at one case; marks it when it cannot be done. */
inline look(r) {
    if
    :: outcome == WAIT ->
        lock_ring(r);
        try_get(r);
        if :: outcome == WAIT -> marked[getters(r)] = 1 :: else fi;  //! skip;
        unlock_ring(r)
    :: else
    fi
}

/* It takes an item, if there is one, and may raise. */
inline handler() {
    signal = 0;
    lock_ring(0);
    try_get(0);
    unlock_ring(0);
    if :: outcome == DONE -> take_out(got) :: else fi;
    if :: outcome = WAIT :: outcome = RAISED fi
}

proctype selecter() {
    LOCALS;
    bit late, signalled;
    outcome = WAIT;
    do
    :: outcome != WAIT -> break
    :: outcome == WAIT ->
        if
        :: true -> look(0); look(1)
        :: true -> look(1); look(0)
        fi;
        late = 0;
        signalled = 0;
        if
        :: outcome == WAIT ->
            chosen = 0;
            token[S0] = LOOK;
            token[S1] = LOOK;
            park(getters(0), S0);
            if :: parked[S0] -> park(getters(1), S1) :: else fi;
            if
            :: parked[S0] && parked[S1] ->
                if
                :: woken[S0] || woken[S1]
                :: late = 1
                :: signal -> signalled = 1
                fi
            :: else
            fi;
            leave(getters(0), S0);
            leave(getters(1), S1);
            if
            :: chosen == S0 + 1 -> got = token[S0]; outcome = DONE  //! :: chosen == S0 + 1 && !late && !signalled -> got = token[S0]; outcome = DONE
            :: chosen == S1 + 1 -> got = token[S1]; outcome = DONE
            :: chosen == 0 && late -> outcome = TIMEOUT
            :: else
            fi;
            if
            :: outcome == WAIT && signalled -> handler()
            :: else
            fi
        :: else
        fi
    od;
    if :: outcome == DONE -> assert(got != LOOK && got != END); take_out(got) :: else fi;
    finished++
}

inline close(r) {
    lock_ring(r);
    shut[r] = 1;
    wake_all(getters(r));
    wake_all(putters(r));
    unlock_ring(r)
}

proctype closer() {
    LOCALS;
    close(0);
    close(1);
    finished == 3;
    /* Each item is out, is in the ring, or was never put. */
    for (got : 1 .. 3) {
        assert(went[got] == came[got] + (stored == got))
    };
    for (got : 0 .. KEYS - 1) { assert(length[got] == 0) }
}

init {
    atomic {
        run selecter(); run putter(A, 0, 1, 2, 0); run putter(B, 1, 3, 3, 1);
        run closer()
    }
}
