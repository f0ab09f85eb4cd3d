/* The hazard pointers of objects/reference.pyx: two words that share two of them, two readers, each
 * of a word of its own, and two writers, each of which stores in either word, and drops what it
 * takes out.  There are two addresses for objects, and three objects: an address is used again when
 * what lived there has been freed.
 *
 * Left out: immortal objects, more hazard pointers than the lines have, the child of a fork.
 *
 * Asserted: no thread counts an object that does not live; a load returns an object that its
 * reader's word held during the call; in the end each object is counted once for each word that
 * holds it, which is to say that nothing is lost and nothing is freed too early. */
#define READERS 2
#define WORDS 2
#define HAZARDS 2
#define STORES 2          /* of each writer */
#define LOADS 1

#define NONE 0            /* no address; addresses are 1 and 2 */
#define GRANTED 4         /* in a hazard pointer */

byte word[WORDS];         /* an address */
byte hazard[HAZARDS];     /* an address, perhaps GRANTED */
byte count[3];            /* of the object at an address; 0: no object lives there */
byte object[3];           /* which object lives, or lived last, at an address */
byte made;                /* how many objects there have been */
byte finished;

/* In truth: the objects that the reader's word has held since its load began, as bits. */
byte held[READERS];
#define bit_of(address) (address == NONE -> 1 : 2 << object[address])

inline uncount(address) { atomic { assert(count[address] > 0); count[address]-- } }
inline recount(address) { atomic { assert(count[address] > 0); count[address]++ } }

/* Steps 1 to 6 of the reader `me`, of word[me]. */
inline load() {
    atomic { held[me] = bit_of(word[me]); p = word[me] };
    do
    :: p == NONE -> break
    :: else ->
        atomic {
            if
            :: hazard[me] == 0 -> mine = me
            :: hazard[1 - me] == 0 -> mine = 1 - me
            fi;
            hazard[mine] = p                           //! skip
        };
        again = word[me];                              //! again = p;
        if
        :: again == p ->
            /* The object at p as it is now: what the load will return. */
            d_step {
                assert(count[p] > 0);
                count[p]++;
                returned = bit_of(p)
            };
            atomic { granted = hazard[mine] >= GRANTED; hazard[mine] = 0 };
            if
            :: granted -> uncount(p)                   //! :: granted -> skip
            :: else
            fi;
            break
        :: else ->
            atomic { granted = hazard[mine] >= GRANTED; hazard[mine] = 0 };
            if
            :: granted -> uncount(p)                   //! :: granted -> returned = bit_of(p); break
            :: else
            fi;
            p = again
        fi
    od;
    if
    :: p != NONE -> assert(returned & held[me]); uncount(p)
    :: else -> assert(held[me] & 1)
    fi;
    atomic { held[me] = 0; returned = 0; p = NONE; granted = 0; mine = 0; again = NONE }
}

/* A store of an object that is made at any free address, or of nothing. */
inline store(w) {
    atomic {
        new = NONE;
        if
        :: made < 3 && count[1] == 0 -> new = 1
        :: made < 3 && count[2] == 0 -> new = 2
        :: true
        fi;
        if
        :: new != NONE -> made++; object[new] = made; count[new] = 1
        :: else
        fi
    };
    d_step { old = word[w]; word[w] = new; held[w] = held[w] | (held[w] -> bit_of(new) : 0) };
    if
    :: old != NONE ->
        for (i : 0 .. HAZARDS - 1) {                   //! for (i : 1 .. HAZARDS - 1) {
            if
            :: hazard[i] == old ->                     //! :: false ->
                recount(old);                          //! skip;
                if
                :: atomic { hazard[i] == old -> hazard[i] = old + GRANTED }
                :: else -> uncount(old)                //! :: else -> skip
                fi
            :: else
            fi
        };
        uncount(old)                                   //! skip
    :: else
    fi;
    atomic { old = NONE; new = NONE; i = 0 }
}

inline finish() {
    finished++;
    finished == READERS + 2;
    for (i : 1 .. 2) {
        assert(count[i] == (word[0] == i -> 1 : 0) + (word[1] == i -> 1 : 0))
    };
    assert(hazard[0] == 0 && hazard[1] == 0)
}

proctype reader(byte me) {
    byte p, again, mine, returned, i;
    bit granted;
    byte n;
    for (n : 1 .. LOADS) { load() };
    finish()
}

proctype writer() {
    byte old, new, i, n;
    for (n : 1 .. STORES) {
        if
        :: store(0)
        :: store(1)
        fi
    };
    finish()
}

init {
    atomic { run reader(0); run reader(1); run writer(); run writer() }
}
