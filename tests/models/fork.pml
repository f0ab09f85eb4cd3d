/* The lock of a bucket in the child of a fork: fs_bucket_lock in posix.h, with the look of
 * lock_this() in raw/parking.pyx at what it answers.
 *
 * The fork came at any moment: the lock may have been free, held, or held and slept on, by
 * threads that do not exist here, and the queue is half changed.  Three threads of the child
 * meet that bucket at once.
 *
 * Asserted: one thread at a time is in; the parent's queue is not read; what the child has
 * queued is not thrown away.  And no thread sleeps for ever: that is a deadlock.
 *
 * Left out: a second fork, which begins with what this one may leave. */

#define N 3
#define ROUNDS 2
#define LOOKS 2           /* 40 in the code: two are enough */

/* The word: epoch * 4 + state. */
#define STATE(w) ((w) % 4)
#define EPOCH(w) ((w) / 4)
#define FREE 4            /* of the child's epoch, 1 */
#define HELD 5
#define SLEPT_ON 6

byte word;
bit asleep[N];            /* in the kernel's queue */
bit strange = 1;          /* the queue is the parent's */
byte records;             /* what the child has queued */
bit inside;

proctype thread(byte me) {
    byte round, look, seen, i;
    bit taken, taken_over;
    for (round : 1 .. ROUNDS) {
        taken = 0;
        taken_over = 0;
        if
        :: atomic { word == FREE -> word = HELD; taken = 1 }
        :: word != FREE
        fi;
        look = 0;
        do
        :: taken || look == LOOKS -> break             //! :: true -> break
        :: else ->
            look++;
            seen = word;
            if
            :: EPOCH(seen) != EPOCH(FREE) || seen == FREE ->  //! :: seen == FREE ->
                atomic {                               //! {
                    if
                    :: word == seen -> word = HELD; taken = 1; taken_over = (EPOCH(seen) != EPOCH(FREE))
                    :: else
                    fi
                }
            :: else
            fi
        od;
        do
        :: taken -> break
        :: else ->
            atomic { seen = word; word = SLEPT_ON };   //! atomic { seen = word; word = (word == FREE -> HELD : SLEPT_ON) };
            if
            :: seen == FREE -> taken = 1
            :: else ->
                if
                :: atomic { word == SLEPT_ON -> asleep[me] = 1 }
                :: word != SLEPT_ON
                fi;
                !asleep[me]
            fi
        od;
        assert(!inside);
        inside = 1;
        if
        :: taken_over -> strange = 0; records = 0      //! :: false
        :: else
        fi;
        assert(!strange);
        records++;
        inside = 0;
        atomic { seen = word; word = FREE };           //! atomic { seen = word; word = STATE(FREE) };
        atomic {
            if
            :: STATE(seen) == 2 ->                     //! :: false ->
                for (i : 0 .. N - 1) {
                    if
                    :: asleep[i] -> asleep[i] = 0; break
                    :: else
                    fi
                }
            :: else
            fi
        }
    }
}

init {
    byte i;
    atomic {
        select (i : 0 .. 2);
        word = i;
        for (i : 0 .. N - 1) { run thread(i) }
    }
    _nr_pr == 1;
    assert(records == N * ROUNDS && word == FREE)
}
