"""What the hooks do: see trace.pxd.  What they note, and why it is true: see holds.pyx."""
from libc.stdint cimport int64_t, uint32_t, uintptr_t
from cpython.exc cimport PyErr_Fetch, PyErr_Restore
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

from fastsync._watch.contention cimport (
    contend, contention_begin, contention_drop, contention_end, contention_release,
    contention_released, contention_unreleased, fs_release, fs_take,
)
from fastsync._watch.holds cimport (
    begin_wait, change_hold, disown_all, disown_hold, end_hold_with_block, end_wait, forget_all,
    forget_hold, fs_hold, FS_JOIN, FS_SIGNAL, fs_wait, FS_WAY, lend_hold,
    locks_before, may_close_circle, new_hold, ORDERS, records,
)
from fastsync._watch.orders cimport forget_orders, note_orders
from fastsync._watch.origins cimport (
    capture_stack, known_origin, note_made, note_part, Origin, origin_of,
)
from fastsync.raw.c_atomic cimport fs_u8_load_relaxed, fs_u8_store_relaxed
from fastsync.raw.c_wait cimport FS_FOREVER, fs_now
from fastsync.raw.parking cimport FS_ACQUIRED, FS_ERROR, FS_TIMEOUT
from fastsync.raw.remutex cimport remutex_lock_inner, remutex_unlock_inner

cdef bint raising = False
cdef object refuse = None      # refuse(serial): raises; or one of these
cdef enum:
    NO_CIRCLE = 0
    ASK_AT_ONCE = 1            # some thread may be about to wait
    ASK_LATER = 2              # there is one, which some thread that runs might open

cdef enum:
    PATIENCE_NS = 1000000000   # so long it is asked at once
    FIRST_LOOK_NS = 50000000   # after which it is asked later; the next are further apart
    LAST_LOOK_NS = 1000000000


cdef inline bint profiling() noexcept:
    return fs_u8_load_relaxed(&trace_flag) & FS_PROFILING  # relaxed: as tracing()


# -- waits -------------------------------------------------------------------

cdef Origin known_or_new(object lock):
    """Its Origin; None where memory is short: then nothing is noted."""
    cdef PyObject *kind
    cdef PyObject *value
    cdef PyObject *traceback
    found = None
    PyErr_Fetch(&kind, &value, &traceback)
    try:
        found = origin_of(lock)
    except BaseException:
        pass
    PyErr_Restore(kind, value, traceback)
    return found


cdef bint prepare(fs_wait* wait, object lock, void* by) noexcept:
    """Whether there is something to note."""
    cdef Origin origin = None
    wait.thread = NULL
    wait.origin = NULL
    wait.lock = <PyObject*>lock
    wait.guard = by
    if detecting():
        origin = known_or_new(lock)
    if origin is None:
        return False
    Py_INCREF(origin)
    wait.origin = <PyObject*>origin
    wait.where = capture_stack()
    return True


cdef void finish(fs_wait* wait, fs_hold* hold) noexcept:
    """Of what prepare() prepared."""
    cdef PyObject *kind
    cdef PyObject *value
    cdef PyObject *traceback
    PyErr_Fetch(&kind, &value, &traceback)
    end_wait(wait, hold)
    Py_DECREF(<object>wait.origin)
    PyErr_Restore(kind, value, traceback)


cdef int detect_begin(fs_wait* wait, int way, int64_t deadline) except -1:
    """Note the wait.  Raises DeadlockError for one that would never end; ASK_LATER when that
    is not certain yet, else NO_CIRCLE."""
    cdef PyObject* firsts[ORDERS]
    cdef size_t count = 0
    cdef bint close = False
    remutex_lock_inner(&records)
    if detecting():
        begin_wait(wait, way, deadline != 0, deadline == FS_FOREVER)
        if wait.thread != NULL and deadline == FS_FOREVER:
            count = locks_before(wait, firsts)
            close = raising and may_close_circle(wait.thread)
    remutex_unlock_inner(&records)
    if count != 0:
        note_orders(firsts, count, <Origin><object>wait.origin)
    return check_circle(wait) if close else NO_CIRCLE


cdef int check_circle(fs_wait* wait) except -1:
    """As detect_begin()."""
    cdef int64_t patient_until = fs_now() + PATIENCE_NS
    cdef int answer = ASK_AT_ONCE
    cdef bint close = True
    while close and answer == ASK_AT_ONCE and fs_now() < patient_until:
        remutex_lock_inner(&records)
        wait.settled = True
        remutex_unlock_inner(&records)
        try:
            answer = refuse(wait.serial)
        except MemoryError:
            answer = NO_CIRCLE  # the program need not notice the detector
        finally:
            remutex_lock_inner(&records)
            wait.settled = False
            close = wait.thread != NULL and may_close_circle(wait.thread)
            remutex_unlock_inner(&records)
    return ASK_LATER if close and answer == ASK_LATER else NO_CIRCLE


cdef int take_now_and_then(
    fs_wait* wait, object lock, int way, fs_take take, void* ctx, int* result,
) except -1:
    """Take it, looking from time to time whether the wait has become a deadlock."""
    cdef int64_t interval = FIRST_LOOK_NS
    cdef int answer = ASK_LATER
    while answer == ASK_LATER:
        result[0] = take_noted(lock, way, fs_now() + interval, take, ctx)
        if result[0] != FS_TIMEOUT:
            return 0
        interval = min(2 * interval, <int64_t>LAST_LOOK_NS)
        answer = check_circle(wait)
    result[0] = take_noted(lock, way, FS_FOREVER, take, ctx)
    return 0


cdef int take_noted(object lock, int way, int64_t deadline, fs_take take, void* ctx) noexcept:
    if profiling():
        return contend(lock, way & FS_WAY, deadline, take, ctx)
    return take(ctx, deadline)


cdef int trace_lock(
    object lock, int way, int64_t deadline, void* by, fs_take take, void* ctx,
) except -1:
    cdef fs_wait wait
    cdef fs_hold* hold = NULL
    cdef bint begun = False
    cdef int result = FS_ERROR
    if not prepare(&wait, lock, by):
        return contend(lock, way & FS_WAY, deadline, take, ctx)
    try:
        if detect_begin(&wait, way, deadline) == ASK_LATER:
            take_now_and_then(&wait, lock, way, take, ctx, &result)
        else:
            result = take_noted(lock, way, deadline, take, ctx)
        begun = True
    finally:
        # Not an `except`: Cython does not get there without memory for the traceback.
        if not begun:
            finish(&wait, NULL)
    if result == FS_ACQUIRED and way & FS_WAY != FS_SIGNAL:
        hold = new_hold(<Origin><object>wait.origin, way, by, 1, wait.where)
    finish(&wait, hold)
    return result


cdef void trace_relock(
    object lock, int way, uint32_t depth, void* by, fs_take take, void* ctx,
) noexcept:
    cdef fs_wait wait
    if not prepare(&wait, lock, by):
        contend(lock, way & FS_WAY, FS_FOREVER, take, ctx)
        return
    remutex_lock_inner(&records)
    if detecting():
        begin_wait(&wait, way, True, True)
    remutex_unlock_inner(&records)
    take_noted(lock, way, FS_FOREVER, take, ctx)
    finish(&wait, new_hold(<Origin><object>wait.origin, way, by, depth, wait.where))


# -- releases ----------------------------------------------------------------

cdef Origin noted(object lock):
    """Its Origin; None when nothing is noted of it.

    Where there is no memory to find it, all is forgotten: what cannot be forgotten alone
    must not stay.
    """
    cdef bint failed = False
    cdef Origin origin
    if not detecting():
        return None
    origin = known_origin(lock, &failed)
    if failed:
        forget_all(False)
    return origin


cdef void trace_release(fs_section* section, object lock, int way, void* by) noexcept:
    cdef Origin origin
    if way & FS_WAY != FS_SIGNAL:
        origin = noted(lock)
        if origin is not None:
            forget_hold(origin, way & FS_WAY, by, False)
    trace_give(section, <uintptr_t><PyObject*>lock)


cdef void trace_release_all(fs_section* section, object lock, int way) noexcept:
    cdef Origin origin = noted(lock)
    if origin is not None:
        forget_hold(origin, way & FS_WAY, NULL, True)
    trace_give(section, <uintptr_t><PyObject*>lock)


cdef void trace_give(fs_section* section, uintptr_t key) noexcept:
    section.release = contention_release(key) if profiling() else NULL


cdef void trace_released(fs_section* section) noexcept:
    if section.release != NULL:
        contention_released(section.release)


cdef void trace_not_given(fs_section* section) noexcept:
    if section.release != NULL:
        contention_unreleased(section.release)


cdef void trace_changed(object lock, void* by, void* heir, int way) noexcept:
    cdef Origin origin = noted(lock)
    if origin is not None:
        change_hold(origin, by, heir, way)


cdef void trace_block(object lock, void* by) noexcept:
    cdef Origin origin = noted(lock)
    if origin is not None:
        end_hold_with_block(origin, by)


cdef void trace_disowned(object lock, void* by) noexcept:
    cdef Origin origin = noted(lock)
    if origin is None:
        return
    if by == NULL:
        disown_all(origin)
    else:
        disown_hold(origin, by)


# -- conditions and signals ---------------------------------------------------

cdef void trace_condition(
    fs_wait* wait, object condition, object lock, int way, void* by, void* word, int64_t deadline,
) noexcept:
    cdef fs_hold* lent
    cdef fs_release* release
    wait.timing.key = 0
    if profiling():
        release = contention_release(<uintptr_t><PyObject*>lock)
        if release != NULL:
            contention_released(release)  # before it: the call sleeps right after releasing
        contention_begin(
            &wait.timing, condition, FS_SIGNAL, <uintptr_t><PyObject*>condition)
    wait.held = NULL
    wait.way = way
    if not prepare(wait, lock, by):
        return
    remutex_lock_inner(&records)
    if detecting():
        lent = lend_hold(wait.origin, way & FS_WAY, by)
        # For the lock that comes after the notification there is no timeout.
        begin_wait(wait, way, True, True)
        wait.patient = deadline == FS_FOREVER
        wait.word = <uintptr_t>word
        wait.held = lent
    remutex_unlock_inner(&records)


cdef void trace_notified(fs_wait* wait) noexcept:
    cdef fs_hold* hold
    contention_end(&wait.timing)
    if wait.origin == NULL:
        return
    hold = wait.held
    if hold == NULL:
        hold = new_hold(<Origin><object>wait.origin, wait.way, wait.guard, 1, wait.where)
    else:
        hold.next = NULL
    finish(wait, hold)


cdef void trace_signal(fs_wait* wait, object lock, int64_t deadline) noexcept:
    trace_work(wait, lock, FS_SIGNAL, <uintptr_t><PyObject*>lock, deadline)


cdef void trace_work(
    fs_wait* wait, object lock, int way, uintptr_t key, int64_t deadline,
) noexcept:
    wait.timing.key = 0
    if profiling():
        contention_begin(&wait.timing, lock, way, key)
    if not prepare(wait, lock, NULL):
        return
    remutex_lock_inner(&records)
    if detecting():
        begin_wait(wait, FS_SIGNAL, True, deadline == FS_FOREVER)
    remutex_unlock_inner(&records)


cdef void trace_signalled(fs_wait* wait) noexcept:
    contention_end(&wait.timing)
    if wait.origin != NULL:
        finish(wait, NULL)


cdef void trace_other(fs_wait* wait) noexcept:
    contention_drop(&wait.timing)
    if wait.origin != NULL:
        finish(wait, NULL)


cdef void trace_made(object lock) noexcept:
    note_made(lock)


cdef void trace_part(object lock, object whole, str name) noexcept:
    note_part(lock, whole, name)


# -- joining -----------------------------------------------------------------

cdef class Join:
    """That this thread waits for the end of another, from begin() to end(); `forever`: without a
    timeout."""
    cdef fs_wait wait
    cdef object target
    cdef bint forever

    def __init__(self, target, forever):
        self.target = target
        self.forever = forever

    def __dealloc__(self):
        end_join(self)  # a signal handler may have raised right after begin()

    def begin(self):
        """Note it; DeadlockError when that would never end."""
        cdef uintptr_t ident = self.target.ident
        cdef bint close = False
        if profiling():
            contention_begin(
                &self.wait.timing, self.target, FS_JOIN, <uintptr_t><PyObject*>self.target)
        if not prepare(&self.wait, self.target, NULL):
            return
        remutex_lock_inner(&records)
        if detecting():
            begin_wait(&self.wait, FS_JOIN, True, self.forever)
            self.wait.joined = ident
            close = (raising and self.forever and self.wait.thread != NULL
                     and may_close_circle(self.wait.thread))
        remutex_unlock_inner(&records)
        if close:
            check_circle(&self.wait)

    def end(self):
        """Forget it."""
        end_join(self)


cdef void end_join(Join join) noexcept:
    contention_end(&join.wait.timing)
    join.wait.timing.key = 0
    if join.wait.origin != NULL:
        finish(&join.wait, NULL)
        join.wait.origin = NULL


# -- what fastsync.deadlock and fastsync.profile need ---------------------------

def switch(on, raises=False, function=None):
    """Begin with nothing known, or forget who holds and waits.

    function(serial of the wait) is called, with `raises`, for a wait that may close a circle: it
    raises, or says what `refuse` stands beside above.
    """
    global refuse, raising
    if function is not None:
        refuse = function  # for good: a thread may be about to call it
    if on:
        forget_orders()
    remutex_lock_inner(&records)
    raising = on and raises and refuse is not None
    forget_all(False)
    set_flag(FS_DETECTING, on)
    remutex_unlock_inner(&records)


cdef void set_flag(int which, bint on) noexcept:
    """Under `records`."""
    # relaxed: see tracing()
    cdef int seen = fs_u8_load_relaxed(&trace_flag)
    fs_u8_store_relaxed(&trace_flag, <unsigned char>(seen | which if on else seen & ~which))


def is_on():
    return bool(detecting())


def profile(on):
    """Begin to note who waits for which lock and how long, or stop: see contention.pyx."""
    remutex_lock_inner(&records)
    set_flag(FS_PROFILING, on)
    remutex_unlock_inner(&records)


def is_profiling():
    return bool(profiling())


def is_raising():
    return bool(raising)
