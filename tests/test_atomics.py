"""Atomic numbers and bools: values at every width, orders, updates, waiting, buffers."""

import copy
import gc
import itertools
import math
import mmap
import operator
import pickle
import random
import struct
import sys
import threading
import time
import weakref

import pytest
from conftest import background, interrupted, run_threads, wait_asleep, wait_until

import fastsync
from fastsync import Ordering
from fastsync.objects.counter import Counter
from fastsync.raw.parking import parked_total

WIDTHS = {
    "AtomicI8": (-(2**7), 2**7 - 1),
    "AtomicI16": (-(2**15), 2**15 - 1),
    "AtomicI32": (-(2**31), 2**31 - 1),
    "AtomicI64": (-(2**63), 2**63 - 1),
    "AtomicIsize": (-sys.maxsize - 1, sys.maxsize),
    "AtomicU8": (0, 2**8 - 1),
    "AtomicU16": (0, 2**16 - 1),
    "AtomicU32": (0, 2**32 - 1),
    "AtomicU64": (0, 2**64 - 1),
    "AtomicUsize": (0, 2 * sys.maxsize + 1),
}
INTS = [pytest.param(getattr(fastsync, name), *edges, id=name) for name, edges in WIDTHS.items()]
FLOATS = [fastsync.AtomicF32, fastsync.AtomicF64]
BITS = {"b": "AtomicI8", "B": "AtomicU8", "h": "AtomicI16", "H": "AtomicU16", "i": "AtomicI32"}
BITS |= {"I": "AtomicU32", "q": "AtomicI64", "Q": "AtomicU64", "f": "AtomicF32", "d": "AtomicF64"}
BITS |= {"?": "AtomicBool"}
ALL = [getattr(fastsync, name) for name in BITS.values()]
ALL += [fastsync.AtomicIsize, fastsync.AtomicUsize]
ORDERINGS = Ordering.members()
Relaxed, Acquire, Release, AcqRel, SeqCst = ORDERINGS


def wrap(value, low, high):
    return (value - low) % (high - low + 1) + low


# -- Ordering ------------------------------------------------------------------


def test_ordering_is_five_singletons():
    names = [o.name for o in ORDERINGS]
    assert names == ["Relaxed", "Acquire", "Release", "AcqRel", "SeqCst"]
    for ordering in ORDERINGS:
        assert getattr(Ordering, ordering.name) is ordering
        assert repr(ordering) == f"Ordering.{ordering.name}"
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            assert pickle.loads(pickle.dumps(ordering, protocol)) is ordering
        assert copy.deepcopy(ordering) is ordering
    assert len(set(ORDERINGS)) == 5
    with pytest.raises(TypeError):
        Ordering()
    with pytest.raises(TypeError):
        Ordering.__new__(Ordering)


LOAD = {Relaxed, Acquire, SeqCst}
STORE = {Relaxed, Release, SeqCst}
FENCE = {Acquire, Release, AcqRel, SeqCst}


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("ordering", ORDERINGS, ids=repr)
def test_ordering_table(cls, ordering):
    a = cls(1)

    def allowed(legal, call):
        if legal:
            call()
        else:
            with pytest.raises(ValueError, match="there is no such thing as"):
                call()

    allowed(ordering in LOAD, lambda: a.load(ordering))
    allowed(ordering in LOAD, lambda: a.load(ordering=ordering))
    allowed(ordering in STORE, lambda: a.store(1, ordering))
    allowed(ordering in STORE, lambda: a.store(value=1, ordering=ordering))
    allowed(ordering in LOAD, lambda: a.wait(0, 0, ordering))
    a.swap(1, ordering)
    for name in ("add", "sub", "and", "nand", "or", "xor", "max", "min"):
        if hasattr(a, f"fetch_{name}"):
            getattr(a, f"fetch_{name}")(1, ordering)
    a.store(0)
    for success, new in itertools.product(ORDERINGS, (1, 0)):
        check_failure_ordering(a, success, ordering, new, allowed)


def check_failure_ordering(a, success, failure, new, allowed):
    legal = failure in LOAD
    allowed(legal, lambda: a.compare_exchange(a.load(), new, success, failure))
    allowed(legal, lambda: a.compare_exchange_weak(a.load(), new, success, failure))
    allowed(legal, lambda: a.compare_and_set(a.load(), new, success, failure))
    ran = []
    for update in (a.fetch_update, a.try_update, a.update):
        allowed(legal, lambda: update(lambda x: ran.append(x) or x, success, failure))  # noqa: B023
    assert len(ran) == (3 if legal else 0), "checked before f runs"


@pytest.mark.parametrize("ordering", ORDERINGS, ids=repr)
def test_fences(ordering):
    for fence in (fastsync.fence, fastsync.compiler_fence):
        if ordering in FENCE:
            assert fence(ordering) is None
        else:
            with pytest.raises(ValueError, match="there is no such thing as a relaxed fence"):
                fence(ordering)
        assert fence() is None
    assert fastsync.spin_loop() is None


@pytest.mark.parametrize("bad", [None, 0, 4, "SeqCst", Ordering, object()])
def test_what_is_no_ordering(bad):
    a = fastsync.AtomicI64(5)
    calls = [
        lambda: a.load(bad),
        lambda: a.store(1, bad),
        lambda: a.swap(1, bad),
        lambda: a.fetch_add(1, bad),
        lambda: a.compare_exchange(5, 1, bad),
        lambda: a.compare_exchange(5, 1, SeqCst, bad),
        lambda: a.compare_and_set(5, 1, bad),
        lambda: a.fetch_update(lambda x: 1, bad),
        lambda: a.update(lambda x: 1, SeqCst, bad),
        lambda: a.wait(0, 0, bad),
        lambda: fastsync.AtomicBool(True).fetch_not(bad),
        lambda: fastsync.AtomicF64(5).fetch_add(1, bad),
        lambda: fastsync.fence(bad),
    ]
    for call in calls:
        with pytest.raises(TypeError):
            call()
    assert a.load() == 5


def test_rust_messages():
    a = fastsync.AtomicU8()
    with pytest.raises(ValueError, match=r"^there is no such thing as a release load$"):
        a.load(Release)
    with pytest.raises(ValueError, match=r"^there is no such thing as an acquire-release store$"):
        a.store(1, AcqRel)
    with pytest.raises(ValueError, match=r"^there is no such thing as a release failure ordering$"):
        a.compare_exchange(0, 1, SeqCst, Release)


# -- integers --------------------------------------------------------------------


@pytest.mark.parametrize(("cls", "low", "high"), INTS)
def test_wraps_at_every_edge(cls, low, high):
    edges = sorted(
        {low, low + 1, -1, 0, 1, high // 2, high - 1, high} & set(range(low, low + 2))
        | {v for v in (low, low + 1, -1, 0, 1, high // 2, high - 1, high) if low <= v <= high}
    )
    operations = {
        "fetch_add": operator.add,
        "fetch_sub": operator.sub,
        "fetch_and": operator.and_,
        "fetch_nand": lambda x, y: ~(x & y),
        "fetch_or": operator.or_,
        "fetch_xor": operator.xor,
        "fetch_max": max,
        "fetch_min": min,
    }
    for name, model in operations.items():
        for x, y in itertools.product(edges, edges):
            for arguments in ((y,), (y, SeqCst), (y, Relaxed), (y, AcqRel)):
                a = cls(x)
                assert getattr(a, name)(*arguments) == x
                assert a.load() == wrap(model(x, y), low, high), (name, x, y)


@pytest.mark.parametrize(("cls", "low", "high"), INTS)
def test_in_place_operators_keep_the_object(cls, low, high):
    models = {
        operator.iadd: operator.add,
        operator.isub: operator.sub,
        operator.iand: operator.and_,
        operator.ior: operator.or_,
        operator.ixor: operator.xor,
    }
    for inplace, model in models.items():
        for x, y in itertools.product((low, 1, high), repeat=2):
            a = b = cls(x)
            a = inplace(a, y)
            assert a is b
            assert a.load() == wrap(model(x, y), low, high)


FETCHES = [f"fetch_{name}" for name in ("add", "sub", "and", "nand", "or", "xor", "max", "min")]
INPLACE = (operator.iadd, operator.isub, operator.iand, operator.ior, operator.ixor)


def refuses(a, bad, error):
    """Every way in raises `error` for `bad`; `a`, which holds 1, is left alone."""
    calls = [
        lambda: type(a)(bad),
        lambda: a.store(bad),
        lambda: a.swap(bad),
        lambda: a.compare_exchange(bad, 2),
        lambda: a.compare_exchange(1, bad),
        lambda: a.compare_exchange_weak(1, bad),
        lambda: a.compare_and_set(1, bad),
        lambda: a.compare_and_set(bad, 2),
        lambda: a.update(lambda x: bad),
        lambda: a.wait(bad, 0),
        *[lambda inplace=inplace: inplace(a, bad) for inplace in INPLACE],
        *[lambda name=name: getattr(a, name)(bad) for name in FETCHES],
    ]
    if bad is not None:
        calls += [lambda: a.fetch_update(lambda x: bad), lambda: a.try_update(lambda x: bad)]
    for call in calls:
        with pytest.raises(error):
            call()
        assert a.load() == 1


class NoRepr(int):
    def __repr__(self):
        raise ZeroDivisionError


@pytest.mark.parametrize(("cls", "low", "high"), INTS)
def test_what_does_not_fit_changes_nothing(cls, low, high):
    for bad in (low - 1, high + 1, 2**200, -(2**200), 10**5000, -(10**5000), NoRepr(high + 1)):
        refuses(cls(1), bad, OverflowError)
    for bad in (1.0, "1", None):
        refuses(cls(1), bad, TypeError)


@pytest.mark.parametrize(("cls", "low", "high"), INTS)
def test_load_store_swap_and_compare(cls, low, high):
    a = cls()
    assert a.load() == 0
    for value in (low, high, 1):
        a.store(value)
        assert a.load() == a.load(Relaxed) == a.load(Acquire) == int(a) == a.into_inner() == value
    assert a.swap(high) == 1
    assert a.compare_exchange(low if low else 1, 1) == (False, high)
    assert a.compare_exchange(high, low) == (True, high)
    assert a.compare_exchange(current=low, new=high, success=AcqRel, failure=Relaxed) == (True, low)
    for value in (0, 1, 255, 256):  # pairs of the small ones are kept
        if value <= high:
            a.store(value)
            assert a.compare_exchange(value, high) == (True, value)
            assert a.compare_exchange(value - 1 if value else 1, 0) == (False, high)
    assert a.compare_and_set(high, 3) is True
    assert a.compare_and_set(high, 4) is False
    assert a.load() == 3
    while not a.compare_exchange_weak(3, 5)[0]:
        assert a.load() == 3
    assert a.compare_exchange_weak(3, 6) == (False, 5)


class Index:
    def __index__(self):
        return 7


def test_operands_with_an_index():
    a = fastsync.AtomicU64(1)
    assert a.fetch_add(Index()) == 1
    assert a.compare_exchange(Index(), 8) == (False, 8)
    assert a.fetch_add(True) == 8
    assert type(a.load()) is int


def test_atomic_bool():
    for x, y in itertools.product((False, True), repeat=2):
        for name, model in {
            "fetch_and": x & y,
            "fetch_or": x | y,
            "fetch_xor": x ^ y,
            "fetch_nand": not (x and y),
        }.items():
            for ordering in ORDERINGS:
                a = fastsync.AtomicBool(x)
                assert getattr(a, name)(y, ordering) is x
                assert a.load() is model
        for inplace, model in (
            (operator.iand, x & y),
            (operator.ior, x | y),
            (operator.ixor, x ^ y),
        ):
            a = b = fastsync.AtomicBool(x)
            a = inplace(a, y)
            assert a is b
            assert a.load() is model
    a = fastsync.AtomicBool()
    assert a.fetch_not() is False
    assert a.load() is True
    assert a.swap(0) is True
    assert a.compare_exchange(0, 1) == (True, False)
    for done, previous in (
        a.compare_exchange(False, True),
        a.compare_exchange(True, False),
        a.compare_exchange(True, True),
        a.compare_exchange(False, False),
    ):
        assert type(done) is type(previous) is bool
    assert a.compare_exchange(False, True) == (True, False)
    assert a.compare_exchange(False, True) == (False, True)
    assert repr(a) == "AtomicBool(True)"
    for bad, error in (
        (2, OverflowError),
        (-1, OverflowError),
        (10**5000, OverflowError),
        (1.0, TypeError),
        (None, TypeError),
        ("", TypeError),
    ):
        for call in (
            a.store,
            a.swap,
            a.fetch_and,
            a.fetch_nand,
            fastsync.AtomicBool,
            lambda v: a.compare_and_set(v, True),
            lambda v: a.compare_and_set(True, v),
        ):
            with pytest.raises(error):
                call(bad)
        assert a.load() is True
    for name in ("fetch_add", "fetch_sub", "fetch_max", "fetch_min", "__iadd__"):
        assert not hasattr(a, name)


# -- floats ----------------------------------------------------------------------


@pytest.mark.parametrize("cls", FLOATS)
def test_float_arithmetic(cls):
    a = cls(1.5)
    assert a.fetch_add(2) == 1.5
    assert a.fetch_sub(0.5) == 3.5
    a += 1
    a -= 0.25
    assert a.load() == float(a) == 3.75
    assert int(a) == 3
    assert a.fetch_max(2.0) == 3.75
    assert a.fetch_max(8.0) == 3.75
    assert a.fetch_min(9.0) == 8.0
    assert a.fetch_min(-1.0) == 8.0
    assert a.swap(0.0) == -1.0
    assert not a
    a.store(-0.0)
    assert not a
    for bad in ("1", None, [], 1j):
        for call in (a.store, a.fetch_add, a.fetch_max, cls):
            with pytest.raises(TypeError):
                call(bad)
    for big in (10**400, 10**5000, -(10**5000)):
        for call in (a.store, a.swap, a.fetch_add, cls, lambda v: a.compare_and_set(v, 0.0)):
            with pytest.raises(OverflowError):
                call(big)
    for name in ("fetch_and", "fetch_or", "fetch_xor", "fetch_nand", "__iand__"):
        assert not hasattr(a, name)


@pytest.mark.parametrize("cls", FLOATS)
def test_a_number_wins_over_nan(cls):
    for name in ("fetch_max", "fetch_min"):
        a = cls(math.nan)
        assert math.isnan(getattr(a, name)(3.0))
        assert a.load() == 3.0
        assert getattr(a, name)(math.nan) == 3.0
        assert a.load() == 3.0
        a.store(math.nan)
        getattr(a, name)(math.nan)
        assert math.isnan(a.load())


@pytest.mark.parametrize("cls", FLOATS)
def test_floats_compare_by_their_bits(cls):
    a = cls(math.nan)
    assert a.compare_and_set(math.nan, 1.0)
    a.store(0.0)
    assert not a.compare_and_set(-0.0, 1.0)
    assert a.compare_exchange(0.0, -0.0) == (True, 0.0)
    assert math.copysign(1, a.load()) == -1


def test_f32_is_rounded_and_bounded():
    a = fastsync.AtomicF32(0.1)
    third = struct.unpack("f", struct.pack("f", 0.1))[0]
    assert a.load() == third != 0.1
    assert a.compare_exchange(0.1, 16777217) == (True, third), "operands are rounded first"
    assert a.load() == 16777216.0
    largest = 3.4028234663852886e38
    a.store(largest)
    for bad in (3.5e38, -1e300, 10**39):
        for call in (
            a.store,
            a.swap,
            a.fetch_add,
            fastsync.AtomicF32,
            lambda v: a.compare_and_set(v, 0),
            lambda v: a.compare_and_set(largest, v),
        ):
            with pytest.raises(OverflowError):
                call(bad)
        assert a.load() == largest
    a.fetch_add(largest)
    assert a.load() == math.inf
    a.store(-math.inf)
    assert a.load() == -math.inf


# -- Python's dress ---------------------------------------------------------------


@pytest.mark.parametrize("cls", ALL)
def test_python_protocols(cls):
    a = cls(1)
    value = a.load()
    assert repr(a) == f"{cls.__name__}({value!r})"
    assert f"{a}" == str(value)
    assert f"{a:>8}" == f"{value:>8}"
    assert format(a, "") == format(value, "")
    assert int(a) == 1
    assert float(a) == 1.0
    assert bool(a)
    a.store(0)
    assert not bool(a)
    other = cls(0)
    assert a != other
    assert a == a
    assert len({a, other}) == 2
    assert hash(a) == hash(a)
    assert cls.__module__ == "fastsync"
    for copier in (
        copy.copy,
        copy.deepcopy,
        *(lambda x, p=p: pickle.dumps(x, p) for p in range(pickle.HIGHEST_PROTOCOL + 1)),
    ):
        with pytest.raises(TypeError, match="cannot pickle"):
            copier(a)
    with pytest.raises(TypeError):
        type("Sub", (cls,), {})


@pytest.mark.skipif(not hasattr(sys, "_is_gil_enabled"), reason="the header is the point")
def test_sizes():
    for cls in ALL:
        assert sys.getsizeof(cls()) <= 56  # with the GIL, 16 of them are the collector's
    assert fastsync.AtomicI64.load.__objclass__ is fastsync.AtomicI64


def test_bad_calls():
    a = fastsync.AtomicI64(5)
    for call in (
        lambda: a.load(SeqCst, SeqCst),
        lambda: a.store(),
        lambda: a.fetch_add(),
        lambda: a.fetch_add(1, SeqCst, 2),
        lambda: a.compare_and_set(5),
        lambda: a.swap(),
        lambda: a.load(order=SeqCst),
        lambda: a.fetch_add(1, value=2),
        lambda: a.compare_exchange(1, 2, SeqCst, SeqCst, SeqCst),
    ):
        with pytest.raises(TypeError):
            call()
    assert a.fetch_add(value=1, ordering=Relaxed) == 5
    assert a.fetch_sub(value=1) == 6
    assert a.swap(value=1) == 5


# -- updates ----------------------------------------------------------------------


def test_update_forms():
    a = fastsync.AtomicU8(10)
    assert a.update(lambda x: x + 1) == 10
    for name in ("fetch_update", "try_update"):
        a.store(11)
        assert getattr(a, name)(lambda x: x * 2) == (True, 11)
        assert getattr(a, name)(lambda x: None) == (False, 22)
        with pytest.raises(ZeroDivisionError):
            getattr(a, name)(lambda x: x // 0)
    assert a.load() == 22
    with pytest.raises(TypeError):
        a.update(lambda x: None)
    assert a.load() == 22


@pytest.mark.parametrize("name", ["fetch_update", "try_update", "update"])
def test_update_function_may_touch_the_same_atomic(name):
    a = fastsync.AtomicI32(0)
    seen = []

    def f(x):
        seen.append(x)
        if len(seen) < 4:
            a.fetch_add(10)
        return x + 1

    result = getattr(a, name)(f)
    assert result == (30 if name == "update" else (True, 30))
    assert seen == [0, 10, 20, 30]
    assert a.load() == 31


# -- threads ----------------------------------------------------------------------


@pytest.mark.parametrize("cls", [*[p.values[0] for p in INTS], *FLOATS])
def test_operations_from_many_threads_add_up(cls):
    n, threads = 400, 8
    a = cls(0)
    low, high = WIDTHS.get(cls.__name__, (-(2**24), 2**24 - 1))

    def work():
        nonlocal a
        for _ in range(n):
            a.fetch_add(3)
            a += 1
            a.fetch_sub(1)
            while True:
                old = a.load()
                new = wrap(int(old) + 1, low, high)
                if a.compare_exchange_weak(old, new)[0]:
                    break
            a.update(lambda x: wrap(int(x) + 1, low, high))

    run_threads([work] * threads)
    assert a.load() == wrap(5 * n * threads, low, high)


def test_bits_from_many_threads():
    a = fastsync.AtomicU64(0)
    run_threads(lambda i: [a.fetch_or(1 << (8 * i + j)) for j in range(8)], 8)
    assert a.load() == 2**64 - 1
    run_threads(lambda i: [a.fetch_xor(1 << (8 * i + j)) for j in range(8)], 8)
    assert a.load() == 0


def test_swap_hands_every_value_to_one_thread():
    a = fastsync.AtomicI64(-1)
    n, threads = 500, 8
    got = run_threads(lambda i: [a.swap(n * i + j) for j in range(n)], threads)
    assert sorted([*itertools.chain(*got), a.load()]) == list(range(-1, n * threads))


def test_message_passing():
    # release/acquire publish: a reader that sees the flag sees the data
    for _ in range(200):
        data, flag = fastsync.AtomicI64(0), fastsync.AtomicBool(False)

        def writer(data=data, flag=flag):
            data.store(42, Relaxed)
            flag.store(True, Release)

        def reader(data=data, flag=flag):
            while not flag.load(Acquire):
                time.sleep(0)
            return data.load(Relaxed)

        assert run_threads([writer, reader])[1] == 42


# -- wait and notify --------------------------------------------------------------


@pytest.mark.parametrize("cls", ALL)
def test_wait_returns_at_once_when_different(cls):
    a = cls(0)
    assert a.wait(1) is True
    assert a.wait(0, 0) is False
    assert a.wait(0, timeout=-1) is False
    assert a.wait(0, -1e400) is False
    assert a.wait(0, -(10**400)) is False
    assert a.wait(0, 0.001) is False
    with pytest.raises(ValueError):
        a.wait(0, math.nan)
    with pytest.raises(TypeError):
        a.wait(0, "1")
    assert a.notify_one() is None
    assert a.notify_all() is None


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize(
    "timeout", [None, 1e300, 10**400, pytest.param(10**5000, id="huge"), math.inf, 60]
)
def test_wait_and_notify(cls, timeout):
    a = cls(0)
    waiting = []

    def waiter():
        waiting.append(1)
        return a.wait(0, timeout)

    def waker():
        wait_until(lambda: waiting)
        a.store(1)
        a.notify_one()

    assert run_threads([waiter, waker])[0] is True


def test_a_notify_without_a_change_ends_nothing():
    a = fastsync.AtomicI32(0)
    done = []

    def waiter():
        assert a.wait(0)
        done.append(a.load())

    def waker():
        for _ in range(50):
            a.notify_all()
            assert not done
        a.store(9)
        a.notify_all()

    run_threads([*[waiter] * 3, waker])
    assert done == [9] * 3


def test_notify_all_wakes_all_and_notify_one_passes_on():
    a = fastsync.AtomicU32(0)

    def waiter():
        a.wait(0)
        a.notify_one()  # a chain: each wakes the next

    def waker():
        time.sleep(0)
        a.store(1)
        a.notify_one()

    for _ in range(20):
        a.store(0)
        run_threads([*[waiter] * 6, waker])


def test_waits_as_a_ping_pong():
    a = fastsync.AtomicI64(0)
    n = 300

    def player(me):
        for i in range(n):
            turn = 2 * i + me
            while (seen := a.load()) != turn:
                a.wait(seen)
            a.fetch_add(1, Release)
            a.notify_all()

    run_threads(player, 2)
    assert a.load() == 2 * n


@pytest.mark.skipif(sys.platform == "win32", reason="needs a timer signal")
def test_a_signal_handler_ends_a_wait():
    a = fastsync.AtomicI64(0)
    interrupted(lambda: a.wait(0))
    assert a.wait(0, 0) is False
    assert a.load() == 0


def test_a_wait_leaves_the_collector_alone():
    import gc

    a = fastsync.AtomicI64(0)

    def collector():
        gc.collect()
        a.store(1)
        a.notify_all()

    run_threads([lambda: a.wait(0), collector])


# -- buffers ----------------------------------------------------------------------


@pytest.mark.parametrize(("code", "name"), BITS.items())
def test_from_buffer(code, name):
    cls = getattr(fastsync, name)
    size = struct.calcsize(code)
    memory = bytearray(64)
    a, b = cls.from_buffer(memory, 16), cls.from_buffer(memory, 16)
    assert isinstance(a, cls)
    a.store(1)
    assert b.load() == 1
    assert struct.unpack_from(code, memory, 16)[0] == 1
    assert b.swap(0) == 1
    assert a.compare_exchange(0, 1) == (True, 0)
    assert struct.unpack_from(code, memory, 16)[0] == 1
    with pytest.raises(BufferError):
        memory.append(1)
    for offset in (-1, -size, 65 - size, 64, 2**40, *([17] if size > 1 else [])):
        with pytest.raises(ValueError):
            cls.from_buffer(memory, offset)
    with pytest.raises((BufferError, TypeError)):
        cls.from_buffer(bytes(64))
    with pytest.raises(TypeError):
        cls.from_buffer(object())
    with pytest.raises((BufferError, ValueError)):
        cls.from_buffer(memoryview(memory)[::2])
    a.wait(0)
    del a, b
    memory.append(1)


def test_views_of_the_same_bytes_wait_for_each_other():
    memory = bytearray(8)
    a, b = (fastsync.AtomicI32.from_buffer(memory, offset=4) for _ in range(2))
    woken = []

    def waker():
        b.store(1)
        b.notify_all()

    run_threads([lambda: woken.append(a.wait(0)), waker])
    assert woken == [True]


def test_closed_buffers_are_refused():
    m = mmap.mmap(-1, 64)
    a = fastsync.AtomicI64.from_buffer(m)
    with pytest.raises(BufferError):
        m.close()
    del a
    m.close()
    with pytest.raises(ValueError):
        fastsync.AtomicI64.from_buffer(m)
    view = memoryview(bytearray(8))
    view.release()
    with pytest.raises(ValueError):
        fastsync.AtomicI64.from_buffer(view)


def test_a_bool_in_a_buffer_may_hold_any_byte():
    memory = bytearray([7])
    a = fastsync.AtomicBool.from_buffer(memory)
    assert a.load() is True
    assert bool(a)
    assert a.compare_exchange(True, False) == (False, True)
    a.store(True)
    assert a.compare_exchange(True, False) == (True, True)


# -- pin and Counter ----------------------------------------------------------------


def test_pin():
    for cls in [*ALL, Counter]:
        a = cls()
        assert not fastsync.is_pinned(a)
        assert fastsync.pin(a) is a
        assert fastsync.is_pinned(a) == (sys.version_info >= (3, 12))
        assert fastsync.pin(a) is a
    count = sys.getrefcount(a)
    others = [a] * 100
    if fastsync.is_pinned(a):
        assert sys.getrefcount(a) == count
    del others
    for foreign in (1, object(), [], None, "x", threading.Lock(), fastsync.AtomicI64):
        with pytest.raises(TypeError):
            fastsync.pin(foreign)
        assert fastsync.is_pinned(foreign) is False


def test_pin_is_not_undone_by_what_another_thread_has_dropped():
    # The other thread's reference is queued for the owner: before pin(), or in the middle of it.
    if not hasattr(sys, "_is_gil_enabled"):
        pytest.skip("no thread queues anything")
    handed, state = [], fastsync.AtomicI64(0)
    rounds = 300

    def other():
        for i in range(rounds):
            while state.load() != 2 * i + 1:
                time.sleep(0)
            taken = handed.pop()
            state.store(2 * i + 2)
            del taken

    def own():
        pinned = 0
        for i in range(rounds):
            a = fastsync.AtomicI64(i)
            handed.append(a)
            state.store(2 * i + 1)
            while state.load() != 2 * i + 2:
                time.sleep(0)
            fastsync.pin(a)
            if fastsync.is_pinned(a):
                pinned += 1
                kept.append(a)
        return pinned

    kept = []
    assert run_threads([other, own])[1] > 0
    gc.collect()
    assert all(map(fastsync.is_pinned, kept))


def test_pin_by_another_thread_does_no_harm():
    a = fastsync.AtomicI64(0)
    run_threads([lambda: fastsync.pin(a)] * 4)
    run_threads([lambda: [a.fetch_add(1) for _ in range(1000)]] * 4)
    assert a.load() == 4000


def test_counter():
    c = Counter()
    assert c.value() == int(c) == 0
    c.add(5)
    c.increment()
    c.add(-2)
    c += 10
    assert c.value() == 14
    assert repr(c) == "Counter(14)"
    assert c.reset() == 14
    assert c.value() == 0
    for bad, error in ((2**63, OverflowError), (1.5, TypeError), (None, TypeError)):
        with pytest.raises(error):
            c.add(bad)
    assert c.value() == 0
    with pytest.raises(TypeError):
        copy.copy(c)


def test_counter_from_many_threads():
    c = Counter()
    n, threads = 2000, 20

    def work(i):
        for _ in range(n):
            c.increment()
            c.add(2)
        return None

    taken = []
    run_threads(
        [
            *[lambda i=i: work(i) for i in range(threads)],
            lambda: taken.extend(c.reset() for _ in range(100)),
        ]
    )
    assert sum(taken) + c.value() == 3 * n * threads


def test_random_histories_match_a_model():
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    for name, (low, high) in WIDTHS.items():
        a, value = getattr(fastsync, name)(0), 0
        for _ in range(400):
            x = rng.choice([rng.randint(low, high), low, high, 0, 1])
            op = rng.choice(["fetch_add", "fetch_sub", "fetch_max", "fetch_min", "swap", "cas"])
            if op == "cas":
                expected = rng.choice([value, x])
                assert a.compare_exchange(expected, x) == (expected == value, value)
                value = x if expected == value else value
                continue
            assert getattr(a, op)(x) == value
            value = {
                "fetch_add": value + x,
                "fetch_sub": value - x,
                "swap": x,
                "fetch_max": max(value, x),
                "fetch_min": min(value, x),
            }[op]
            value = wrap(value, low, high)
        assert a.load() == value


def test_the_bases_have_no_instances():
    bases = fastsync.AtomicI64.__mro__[1:-1] + fastsync.AtomicF32.__mro__[1:-2]
    assert len(bases) == 3
    existing = fastsync.AtomicI64(5)
    for base in bases:
        for make in (base, base.from_buffer):
            with pytest.raises(TypeError):
                make(bytearray(8))
        with pytest.raises(TypeError):
            base.__new__(base)
        sub = type("Sub", (base,), {"__new__": lambda cls: existing})
        for make in (sub.from_buffer, lambda _: object.__new__(sub)):  # noqa: B023
            with pytest.raises(TypeError):
                make(bytearray(8))
    assert existing.load() == 5
    for cls in ALL:
        with pytest.raises(TypeError):
            type("Sub", (cls,), {"__new__": lambda cls: existing})
        assert cls.__new__(cls).load() == 0


def test_an_atomic_is_made_once():
    for cls in ALL:
        a = cls(1)
        value = a.load()
        a.__init__(0)
        assert a.load() == value
    counter = Counter()
    counter.add(3)
    counter.__init__()
    assert counter.value() == 3
    for bad in (10**5000, 2**63, -(2**63) - 1):
        with pytest.raises(OverflowError):
            counter.add(bad)
        with pytest.raises(OverflowError):
            counter += bad
    assert counter.value() == 3


def test_no_weak_references():
    with pytest.raises(TypeError):
        weakref.ref(fastsync.AtomicI64())


@pytest.mark.parametrize("kind", ["AtomicI64", "AtomicBool", "AtomicF32"])
def test_format_spec_of_the_wrong_type(kind):
    for spec in [5, None]:
        with pytest.raises(TypeError):
            getattr(fastsync, kind)(1).__format__(spec)


def shared_atomic():
    """One that processes share."""
    try:
        return fastsync.AtomicI32.from_buffer(mmap.mmap(-1, 64), shared=True)
    except NotImplementedError:
        pytest.skip("this build has no shared waits")


WORDS = {
    "number": (lambda: fastsync.AtomicI64(0), ()),
    "bool": (lambda: fastsync.AtomicBool(False), ()),
    "item": (lambda: fastsync.AtomicArray("int64", 4), (2,)),
    "cell": (lambda: fastsync.AtomicCell(0), ()),
    "reference": (lambda: fastsync.AtomicRef(0), ()),
    "shared": (shared_atomic, ()),
}


@pytest.mark.parametrize(("make", "where"), WORDS.values(), ids=WORDS)
def test_one_notify_all_wakes_all(make, where):
    word = make()
    done = []
    with background(*[lambda: done.append(word.wait(*where, 0))] * 3) as threads:
        wait_asleep(*threads)
        word.store(*where, 1)
        word.notify_all(*where)
        for thread in threads:
            thread.join(10)
        woken = len(done)
        word.notify_all(*where)
    assert woken == 3


@pytest.mark.thread_unsafe(reason="counts all who are parked")
@pytest.mark.parametrize("name", [name for name in WORDS if name != "shared"])
def test_notify_one_wakes_one(name):
    make, where = WORDS[name]
    word = make()
    done = []
    with background(*[lambda: done.append(word.wait(*where, 0))] * 3):
        for left in (3, 2, 1):
            wait_until(lambda left=left: parked_total() == left)
            word.store(*where, 1)
            word.notify_one(*where)
            assert parked_total() == left - 1
            wait_until(lambda left=left: len(done) == 4 - left)
    assert done == [True] * 3


@pytest.mark.parametrize("name", WORDS)
def test_a_change_without_a_notify_counts_when_the_time_is_over(name):
    make, where = WORDS[name]
    for seconds in (0.2, 1, 5, 25):  # a busy machine may be late with the change
        word, outcome = make(), []
        end = time.monotonic() + seconds
        with background(lambda: outcome.append(word.wait(*where, 0, seconds))) as [thread]:  # noqa: B023
            wait_asleep(thread, or_ended=True)  # the time may be over before we look
            word.store(*where, 1)
            in_time = time.monotonic() < end
        if in_time:
            assert outcome == [True]
            return
    pytest.fail("the change came too late each time")


def test_a_reset_of_a_counter_loses_no_addition():
    c = Counter()
    stop = fastsync.AtomicBool(False)

    def add():
        added = 0
        while not stop.load():
            for _ in range(100):
                c.increment()
            added += 100
        return added

    def reset():
        taken = 0
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            for _ in range(100):
                taken += c.reset()
        stop.store(True)
        return taken

    added, taken = run_threads([add, reset])
    assert added > 0
    assert taken + c.value() == added


def test_threads_that_share_a_cell_of_a_counter_lose_no_addition():
    c = Counter()
    cells = (c.__sizeof__() - object.__sizeof__(c)) // 64 - 1
    turn = [0]
    gate = threading.Barrier(2)

    def add(i):
        wait_until(lambda: turn[0] == i)
        c.add(0)  # takes the thread's number: they are numbered one after the other
        turn[0] += 1
        added = 0
        if i in (0, cells):  # the first and the last have the same cell
            gate.wait()
            end = time.monotonic() + 0.5
            while time.monotonic() < end:
                for _ in range(1000):
                    c.increment()
                    c.add(2)
                added += 3000
        return added

    assert sum(run_threads(add, cells + 1)) == c.value() > 0
