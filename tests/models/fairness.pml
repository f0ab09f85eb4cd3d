/* When an unlock hands over: enqueue_by_age() and is_due() in raw/parking.pyx, for a lock that
 * any thread may take that finds it free, past the queue.
 *
 * Time passes with the sections: after a hand-over for age, PACE of them at least come before
 * the next; whether a waiter is old by then is left open.  Threads go on for ever.  A thread
 * looks once before it parks and once when it was woken (the code: until it has polled
 * enough); a woken thread may run as late as it likes, while all others go on.
 *
 * Asserted: while a thread is parked, at most BOUND calls that began after its own are served
 * before it, in all of its call; it is woken in vain at most once; and there is one
 * hand-over for age in PACE sections while threads wait. */

#define N 3
#define PACE 2
#define BOUND 1 /* N - 2 */

bit locked;
byte queue[N];
byte length;
byte pace;                /* sections until an unlock may hand over again; of the head */
bit calling[N];
byte rank[N];             /* of the calls that go on: 0 began first */
bit overtaken[N];         /* it was woken in vain, in this call */
byte passed[N];           /* while it was parked, in this call */
bit parked[N];
bit woken[N];
bit handed[N];
byte i, at, head, fresh;  /* scratch, inside d_step only */
bit due, must;

inline begin_call() {
    d_step {
        rank[me] = 0;
        for (i : 0 .. N - 1) { if :: calling[i] -> rank[me]++ :: else fi };
        calling[me] = 1;
        overtaken[me] = 0;
        passed[me] = 0
    }
}

/* In the same step in which it gets the lock. */
inline served(t) {
    for (i : 0 .. N - 1) {
        if
        :: calling[i] && rank[i] < rank[t] && parked[i] ->
            passed[i]++;
            assert(passed[i] <= BOUND)
        :: else
        fi;
        if :: calling[i] && rank[i] > rank[t] -> rank[i]-- :: else fi
    };
    calling[t] = 0
}

inline try_lock() {
    d_step {
        if :: !locked -> locked = 1; served(me); got = 1 :: else fi
    }
}

/* Under the bucket lock. */
inline park() {
    d_step {
        if
        :: !locked
        :: else ->
            at = length;
            if
            :: overtaken[me] ->                        //! :: false ->
                at = 0;
                do
                :: at < length && rank[queue[at]] < rank[me] -> at++
                :: else -> break
                od
            :: else
            fi;
            for (i : 1 .. N - 1) {
                if :: N - i > at -> queue[N - i] = queue[N - i - 1] :: else fi
            };
            queue[at] = me;
            if :: length == 0 -> pace = 0 :: else fi;
            length++;
            parked[me] = 1
        fi
    }
}

inline unlock() {
    if :: old = 1 :: old = 0 fi;
    d_step {
        if :: pace > 0 -> pace-- :: else fi;
        if
        :: length == 0 -> locked = 0
        :: else ->
            head = queue[0];
            length--;
            for (i : 0 .. N - 2) { queue[i] = queue[i + 1] };
            queue[N - 1] = 0;
            parked[head] = 0;
            must = overtaken[head];                    //! must = 0;
            due = old && pace == 0;                    //! due = old;
            if
            :: due || must ->
                assert(fresh == 0 || must);
                pace = PACE;                           //! skip;
                fresh = PACE;
                handed[head] = 1;
                served(head)
            :: else -> locked = 0; woken[head] = 1
            fi;
            if :: length == 0 -> fresh = 0 :: else fi
        fi;
        if :: fresh > 0 -> fresh-- :: else fi
    }
}

active [N] proctype thread() {
    byte me = _pid;
    bit got, old;
    do
    :: begin_call();
        got = 0;
        do
        :: try_lock();
            if :: got -> break :: else fi;
            park();
            if
            :: parked[me] || woken[me] || handed[me] ->
                atomic { woken[me] || handed[me] };
                if
                :: handed[me] -> handed[me] = 0; break
                :: else ->
                    d_step {
                        woken[me] = 0;
                        assert(!overtaken[me]);
                        overtaken[me] = 1
                    }
                fi
            :: else
            fi
        od;
        unlock()
    od
}
