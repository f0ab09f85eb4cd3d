"""AtomicArray: items, bulk operations, buffers of numpy and others, a second process."""

import array
import copy
import ctypes
import gc
import itertools
import math
import mmap
import pickle
import random
import struct
import subprocess
import sys
import textwrap
import time
import weakref
from multiprocessing import shared_memory

import pytest
from conftest import interrupted, run_threads, wait_until

import fastsync
from fastsync import AtomicArray, Ordering

Relaxed, Acquire, Release, AcqRel, SeqCst = Ordering.members()
INTS = {f"{sign}int{bits}": bits for bits in (8, 16, 32, 64) for sign in ("", "u")}
FLOATS = ["float32", "float64"]
CODES = dict(zip([*INTS, *FLOATS], "bBhHiIqQfd", strict=True))
NAMES = list(CODES)


def bounds(name):
    bits = INTS[name]
    return (0, 2**bits - 1) if name[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def wrap(value, name):
    low, high = bounds(name)
    return (value - low) % (high - low + 1) + low


# -- making them -----------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_new(name):
    a = AtomicArray(name, 5)
    assert len(a) == 5
    assert a.dtype == name
    assert a.itemsize == struct.calcsize(CODES[name])
    assert a.nbytes == 5 * a.itemsize
    assert a.load_all() == [0] * 5
    assert repr(a) == f"AtomicArray({name!r}, 5)"
    assert list(a) == [0] * 5
    assert len(AtomicArray(dtype=name, n=0)) == 0


@pytest.mark.parametrize("bad", ["i8", "u4", "q", "d", "f8", "int", "int128", "<i8", "", "INT64"])
def test_other_names_are_refused(bad):
    with pytest.raises(ValueError, match="not supported"):
        AtomicArray(bad, 3)
    with pytest.raises(ValueError, match="not supported"):
        AtomicArray.from_buffer(bytearray(8), bad)


def test_bad_arguments():
    for bad in (None, 5, int, float, object()):
        with pytest.raises(TypeError):
            AtomicArray(bad, 3)
    for bad in ("3", 1.5, None):
        with pytest.raises(TypeError):
            AtomicArray("int64", bad)
    with pytest.raises(ValueError):
        AtomicArray("int64", -1)
    with pytest.raises((MemoryError, OverflowError)):
        AtomicArray("int64", 2**62)
    with pytest.raises(OverflowError):
        AtomicArray("int64", 2**70)
    a = AtomicArray("int8", 1)
    with pytest.raises(TypeError):
        AtomicArray.__new__(AtomicArray)
    a.__init__("int64", 5)
    assert (a.dtype, len(a)) == ("int8", 1)


# -- items -----------------------------------------------------------------------


@pytest.mark.parametrize("name", INTS)
def test_operations_by_index(name):
    low, high = bounds(name)
    a = AtomicArray(name, 3)
    a.store(1, high)
    assert a.load(1) == a[1] == a.load(-2) == high
    assert a.fetch_add(1, 1) == high
    assert a.load(1) == low
    assert a.fetch_sub(1, 1, Relaxed) == low
    assert a.load(1, Acquire) == high
    assert a.fetch_and(1, 12) == high
    assert a.fetch_or(1, 3) == 12
    assert a.fetch_xor(1, 5, ordering=AcqRel) == 15
    assert a.fetch_nand(1, 2) == 10
    assert a.swap(1, 20) == wrap(~2, name)
    assert a.fetch_max(1, 30) == 20
    assert a.fetch_min(1, 25) == 30
    assert a.compare_exchange(1, 25, 26) == (True, 25)
    assert a.compare_exchange(1, 25, 27) == (False, 26)
    assert a.compare_and_set(1, 26, 27) is True
    while not a.compare_exchange_weak(1, 27, 28)[0]:
        assert a.load(1) == 27
    assert a.update(1, lambda x: x + 1) == 28
    assert a.fetch_update(1, lambda x: None) == (False, 29)
    assert a.try_update(1, lambda x: x - 1) == (True, 29)
    assert a.load_all() == [0, 28, 0]
    for bad in (low - 1, high + 1):
        for call in (a.store, a.swap, a.fetch_add, a.fetch_max):
            with pytest.raises(OverflowError):
                call(1, bad)
        with pytest.raises(OverflowError):
            a.add_at([1], bad)
        with pytest.raises(OverflowError):
            a.fill(bad)
    assert a.load_all() == [0, 28, 0]


@pytest.mark.parametrize("name", FLOATS)
def test_float_items(name):
    a = AtomicArray(name, 2)
    assert a.fetch_add(0, 1.5) == 0.0
    assert a.fetch_sub(0, 0.5) == 1.5
    assert a.fetch_max(0, math.nan) == 1.0
    assert a.fetch_min(0, 0.25) == 1.0
    assert a.compare_exchange(0, 0.25, 2) == (True, 0.25)
    assert a.load_all() == [2.0, 0.0]
    for call in (a.fetch_and, a.fetch_or, a.fetch_xor, a.fetch_nand):
        with pytest.raises(TypeError):
            call(0, 1)
    with pytest.raises(TypeError):
        a.or_at([0], 1)
    if name == "float32":
        with pytest.raises(OverflowError):
            a.store(0, 1e39)
        with pytest.raises(OverflowError):
            a.add_at([0, 0], [1.0, 1e39])
        with pytest.raises(OverflowError):
            a.add_at([0], array.array("d", [1e39]))
    assert a.load(0) == 2.0


def test_indices():
    a = AtomicArray("int64", 4)
    for i in (4, -5, 2**62, 2**70, -(2**70)):
        for call in (
            a.load,
            a.__getitem__,
            a.notify_one,
            lambda i: a.store(i, 1),
            lambda i: a.fetch_add(i, 1),
            lambda i: a.wait(i, 0, 0),
            lambda i: a.compare_exchange(i, 0, 1),
            lambda i: a.update(i, abs),
        ):
            with pytest.raises(IndexError):
                call(i)
    for i in (None, 1.0, "1", slice(None)):
        with pytest.raises(TypeError):
            a.load(i)
        with pytest.raises(TypeError):
            a[i]
    with pytest.raises(TypeError):
        a[0] = 5
    with pytest.raises(TypeError):
        a[0] += 5
    assert a.load_all() == [0] * 4


def test_orderings():
    a = AtomicArray("uint8", 1)
    for ordering in Ordering.members():
        a.fetch_add(0, 1, ordering)
        a.swap(0, 1, ordering)
    for call in (
        lambda: a.load(0, Release),
        lambda: a.load(0, AcqRel),
        lambda: a.store(0, 1, Acquire),
        lambda: a.store(0, 1, AcqRel),
        lambda: a.wait(0, 9, 0, Release),
        lambda: a.compare_exchange(0, 1, 1, SeqCst, AcqRel),
    ):
        with pytest.raises(ValueError, match="there is no such thing as"):
            call()
    for call in (
        lambda: a.load(0, None),
        lambda: a.store(0, 1, 4),
        lambda: a.fetch_add(0, 1, "SeqCst"),
    ):
        with pytest.raises(TypeError):
            call()


def test_wait_by_index():
    a = AtomicArray("int16", 4)
    assert a.wait(1, 5) is True
    assert a.wait(1, 0, 0) is False

    def waker():
        for i in range(4):
            a.store(i, i + 1)
            a.notify_all(i)

    assert run_threads([*[lambda i=i: a.wait(i, 0) for i in range(4)], waker])[:4] == [True] * 4


def test_python_protocols():
    a = AtomicArray("int32", 3)
    for copier in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot pickle"):
            copier(a)
    with pytest.raises(TypeError):
        type("Sub", (AtomicArray,), {})
    assert weakref.ref(a)() is a
    assert a != AtomicArray("int32", 3)
    assert hash(a) == hash(a)
    assert fastsync.pin(a) is a
    assert sys.getsizeof(AtomicArray("int64", 1000)) >= 8000


# -- buffers ----------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_exports_its_memory(name):
    a = AtomicArray(name, 4)
    a.store(2, 7)
    view = memoryview(a)
    assert view.format == CODES[name]
    assert view.shape == (4,)
    assert view.strides == (a.itemsize,)
    assert not view.readonly
    assert view.tolist() == [0, 0, 7, 0]
    view[0] = 9
    assert a.load(0) == 9
    del a
    gc.collect()
    assert view.tolist() == [9, 0, 7, 0], "the view keeps the memory"
    assert bytes(AtomicArray("uint8", 2)) == b"\0\0"


@pytest.mark.parametrize("name", NAMES)
def test_from_array_array(name):
    source = array.array(CODES[name], [1, 2, 3])
    a = AtomicArray.from_buffer(source)
    assert a.dtype == name
    a.fetch_add(1, 5)
    assert source.tolist() == [1, 7, 3]
    with pytest.raises(BufferError):
        source.append(1)
    del a
    source.append(1)


def test_from_other_buffers():
    memory = bytearray(32)
    a = AtomicArray.from_buffer(memory)
    assert (a.dtype, len(a)) == ("uint8", 32)
    b = AtomicArray.from_buffer(memory, "uint32")
    assert len(b) == 8
    b.store(1, 0x01010101)
    assert a.load_all()[4:8] == [1, 1, 1, 1]
    part = AtomicArray.from_buffer(memoryview(memory)[8:24], dtype="int64")
    part.fill(-1)
    assert memory == b"\0\0\0\0\1\1\1\1" + b"\xff" * 16 + b"\0" * 8

    with pytest.raises(ValueError, match="no multiple"):
        AtomicArray.from_buffer(bytearray(9), "int64")
    with pytest.raises(ValueError, match="not aligned"):
        AtomicArray.from_buffer(memoryview(memory)[1:9], "int64")
    with pytest.raises((BufferError, TypeError)):
        AtomicArray.from_buffer(bytes(8))
    with pytest.raises((BufferError, ValueError)):
        AtomicArray.from_buffer(memoryview(memory)[::2])
    with pytest.raises(TypeError):
        AtomicArray.from_buffer([1, 2])
    with pytest.raises(TypeError, match="format"):
        AtomicArray.from_buffer(memoryview(memory).cast("c"))
    m = mmap.mmap(-1, 64)
    c = AtomicArray.from_buffer(m, "float64")
    with pytest.raises(BufferError):
        m.close()
    del c
    m.close()
    with pytest.raises(ValueError):
        AtomicArray.from_buffer(m)


def test_load_all_into_a_buffer():
    a = AtomicArray("float64", 3)
    a.store(1, 2.5)
    out = array.array("d", [9] * 3)
    assert a.load_all(out) is out
    assert out.tolist() == [0, 2.5, 0]
    for bad, error in ((bytearray(23), ValueError), (bytes(24), BufferError), ([], TypeError)):
        with pytest.raises(error):
            a.load_all(bad)


# -- bulk --------------------------------------------------------------------------

MODELS = {"add_at": lambda x, y: x + y, "max_at": max, "min_at": min, "or_at": lambda x, y: x | y}


@pytest.mark.parametrize("name", INTS)
@pytest.mark.parametrize("call", MODELS)
@pytest.mark.parametrize("bins", [3, 5000])  # collected in a table; applied one by one
def test_bulk_against_a_model(name, call, bins):
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    low, high = bounds(name)
    start = [rng.randint(low, high) for _ in range(bins)]
    at = [rng.randrange(-bins, bins) for _ in range(1300)]
    values = [rng.choice([low, high, rng.randint(low, high)]) for _ in at]
    wanted = list(start)
    for i, v in zip(at, values, strict=True):
        wanted[i] = wrap(MODELS[call](wanted[i], v), name)
    for indices in (at, tuple(at), array.array("h", at), array.array("q", at)):
        for given in (values, array.array(CODES[name], values)):
            a = AtomicArray(name, bins)
            for i, v in enumerate(start):
                a.store(i, v)
            assert getattr(a, call)(indices, given) is None
            assert a.load_all() == wanted
    scalar = list(start)
    for i in at:
        scalar[i] = wrap(MODELS[call](scalar[i], 3), name)
    for i, v in enumerate(start):
        a.store(i, v)
    getattr(a, call)(array.array("i", at), 3)
    assert a.load_all() == scalar


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("bins", [3, 5000])
def test_float_bulk(name, bins):
    at = [0, 1, 2, 2, -1, 1] * 250
    values = [0.5, 2.0, -1.0, 4.0, math.nan, 8.0] * 250
    for call in ("max_at", "min_at"):
        a = AtomicArray(name, bins)
        a.fill(math.nan)
        getattr(a, call)(at, values)
        best = max if call == "max_at" else min
        last = a.load(bins - 1)
        assert a.load(0) == 0.5
        assert a.load(1) == best(2.0, 8.0)
        assert a.load(2) == best(-1.0, 4.0)
        assert math.isnan(last) or bins == 3
    a = AtomicArray(name, bins)
    a.add_at(array.array("H", [i % 3 for i in range(1500)]), 0.5)
    a.add_at([0, 1], array.array("f", [1.0, 2.0]))
    a.add_at([0, 1], array.array("b", [1, -2]))
    assert a.load_all()[:3] == [252.0, 250.0, 250.0]


@pytest.mark.parametrize("bins", [2, 4000])
def test_bulk_applies_nothing_when_something_is_wrong(bins):
    a = AtomicArray("int8", bins)
    at = [0, 1] * 1000
    for bad in (bins, -bins - 1, 2**40, -(2**40)):
        for indices in ([*at, bad], array.array("q", [*at, bad])):
            with pytest.raises(IndexError):
                a.add_at(indices, 1)
    with pytest.raises(IndexError):
        a.add_at(array.array("Q", [*at, 2**64 - 1]), 1)
    with pytest.raises(IndexError):
        a.add_at([2**70], 1)
    for values in (
        array.array("q", [1] * 1999 + [128]),
        [1] * 1999 + [-129],
        array.array("Q", [2**64 - 1] * 2000),
    ):
        with pytest.raises(OverflowError):
            a.add_at(at, values)
    for indices, values in (
        (at, 1.0),
        (at, [1.0] * 2000),
        (at, array.array("d", [1] * 2000)),
        (array.array("d", at), 1),
        (at, None),
        (at, "x"),
        (5, 1),
        (None, 1),
        ([0.5], 1),
        (memoryview(b"ab").cast("c"), 1),
    ):
        with pytest.raises(TypeError):
            a.add_at(indices, values)
    for values in ([1], [1] * 2001, array.array("b", [1])):
        with pytest.raises(ValueError):
            a.add_at(at, values)
    assert not any(a.load_all())
    a.add_at([], [])
    a.add_at(array.array("q"), 5)
    with pytest.raises(IndexError):
        AtomicArray("int8", 0).add_at([0], 1)


def test_unsigned_values_that_no_int64_holds():
    a = AtomicArray("uint64", 2)
    a.max_at([0, 1, 0], array.array("Q", [2**64 - 1, 2**63, 1]))
    assert a.load_all() == [2**64 - 1, 2**63]
    a.min_at([0, 0, 0, 0], [2**64 - 2, 2**63 + 5, 2**64 - 1, 2**63 + 9])
    assert a.load(0) == 2**63 + 5
    b = AtomicArray("int64", 1)
    for values in (array.array("Q", [2**63 - 1]), array.array("Q", [2**63])):
        if values[0] < 2**63:
            b.max_at([0], values)
        else:
            with pytest.raises(OverflowError):
                b.max_at([0], values)
    assert b.load(0) == 2**63 - 1
    with pytest.raises(OverflowError):
        a.add_at([0], array.array("b", [-1]))


@pytest.mark.parametrize("name", ["int8", "uint32", "int64", "float32", "float64"])
@pytest.mark.parametrize("bins", [10, 3000])
def test_bulk_from_many_threads_adds_up(name, bins):
    a = AtomicArray(name, bins)
    at = array.array("i", [i % 10 for i in range(4000)])

    def work():
        for _ in range(5):
            a.add_at(at, 1)
            for i in range(10):
                a.fetch_add(i, 1)

    run_threads([work] * 4)
    wanted = 4 * 5 * 401
    if name in INTS:
        wanted = wrap(wanted, name)
    assert a.load_all() == [wanted] * 10 + [0] * (bins - 10)


@pytest.mark.parametrize("bins", [50, 20000])
def test_index_memory_that_changes_meanwhile(bins):
    # the guard bytes around the array stay as they are, whatever the indices become
    memory = bytearray(8 * (bins + 2000))
    a = AtomicArray.from_buffer(memoryview(memory)[8000 : 8000 + 8 * bins], "int64")
    at = array.array("q", [0] * 5000)
    stop = fastsync.AtomicBool(False)

    def scribble():
        rng = random.Random(1)
        while not stop.load():
            for _ in range(100):
                at[rng.randrange(5000)] = rng.choice(
                    [0, -1, bins - 1, bins, bins + 500, -bins - 500, 2**62]
                )
            for i in range(5000):
                at[i] = 0

    def bulk():
        errors = 0
        for _ in range(200):
            try:
                a.add_at(at, 1)
            except IndexError:
                errors += 1
        stop.store(True)
        return errors

    run_threads([scribble, bulk])
    assert memory[:8000] == bytes(8000)
    assert memory[-8000:] == bytes(8000)


def test_bulk_leaves_other_threads_running():
    a = AtomicArray("int64", 1000)
    at = array.array("q", range(1000)) * 500
    ticks = []

    def tick():
        while len(ticks) < 20:
            gc.collect()
            ticks.append(time.perf_counter())

    run_threads([tick, lambda: [a.add_at(at, 1) for _ in range(5)]])
    assert a.load_all() == [2500] * 1000


# -- numpy --------------------------------------------------------------------------


@pytest.fixture(name="np")
def _np():
    return pytest.importorskip("numpy")


@pytest.mark.parametrize("name", NAMES)
def test_numpy_views(np, name):
    dtype = np.dtype(name)
    for given in (dtype, dtype.type, name):
        assert AtomicArray(given, 3).dtype == name
    a = AtomicArray(dtype, 4)
    view = np.asarray(a)
    assert view.dtype == dtype
    view[2] = 5
    assert a.load(2) == 5
    source = np.arange(6, dtype=dtype)
    b = AtomicArray.from_buffer(source)
    assert b.dtype == name
    assert b.fetch_add(5, 1) == 5
    assert source[5] == 6
    assert type(b.load(0)) in (int, float)
    b.store(0, source[3])  # numpy's numbers are numbers
    assert source[0] == 3
    assert np.array_equal(b.load_all(np.zeros(6, dtype)), source)
    for other in (">i8", "complex128", "float16", "bool", "S3", [("a", "i4")]):
        with pytest.raises((TypeError, ValueError)):
            AtomicArray(np.dtype(other), 3)
    source.flags.writeable = False
    with pytest.raises((BufferError, ValueError)):
        AtomicArray.from_buffer(source)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bins", [7, 9000])
def test_numpy_bulk(np, name, bins):
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = np.random.default_rng(seed)
    at = rng.integers(-bins, bins, 3000)
    values = rng.integers(0, 100, 3000).astype(name)
    wanted = np.zeros(bins, name)
    np.add.at(wanted, at, values)
    for index_type in (np.int64, np.int32, np.int16):
        a = AtomicArray(name, bins)
        a.add_at(at.astype(index_type), values)
        assert np.array_equal(np.asarray(a), wanted)
    a = AtomicArray(name, bins)
    a.add_at(at.reshape(30, 100), values.reshape(30, 100))
    assert np.array_equal(np.asarray(a), wanted)
    doubled = np.repeat(at, 2)
    a.fill(0)
    a.add_at(doubled[::2], np.repeat(values, 3)[::3])
    assert np.array_equal(np.asarray(a), wanted), "strided arrays too"
    with pytest.raises(ValueError):
        a.add_at(at, values.reshape(30, 100))
    for call, ufunc in (("max_at", np.maximum), ("min_at", np.minimum)):
        a.fill(50)
        getattr(a, call)(at, values)
        wanted = np.full(bins, 50, name)
        ufunc.at(wanted, at, values)
        assert np.array_equal(np.asarray(a), wanted)
    a.fill(0)
    a.add_at(at, np.int64(2))
    assert a.load_all() == np.bincount(at % bins, minlength=bins).__mul__(2).astype(name).tolist()


# -- two processes -------------------------------------------------------------------


def test_a_buffer_of_objects_is_refused(np):
    objects = np.array([object()] * 4, dtype=object)
    records = np.zeros(4, dtype=[("Offset", "i8"), ("thing", object)])
    for source in (objects, records):
        with pytest.raises(TypeError, match="references to Python objects"):
            AtomicArray.from_buffer(source, "int64")
        with pytest.raises(TypeError, match="references to Python objects"):
            fastsync.AtomicI64.from_buffer(source)
    with pytest.raises(TypeError, match="references to Python objects"):
        AtomicArray("int64", 4).load_all(objects)
    named = np.zeros(4, dtype=[("Offset", "i8")])
    assert len(AtomicArray.from_buffer(named, "int64")) == 4


CHILD = """
import sys
from multiprocessing import resource_tracker, shared_memory
from fastsync import AtomicArray, AtomicI64
block = shared_memory.SharedMemory(name=sys.argv[1])
resource_tracker.unregister(block._name, "shared_memory")
a = AtomicArray.from_buffer(block.buf, sys.argv[2], shared=True)
n = int(sys.argv[3])
for i in range(n):
    a.fetch_add(0, 1)
# a ping-pong with the parent: it sets odd values, we even ones
turn = 1
for _ in range(50):
    assert a.wait(1, turn - 1, 30) and a.load(1) == turn, a.load_all()
    a.store(1, turn + 1)
    a.notify_one(1)
    turn += 2
del a
block.close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="shared waiting is Linux's")
@pytest.mark.parametrize(
    "name", ["int8", "uint16", "int32", "int64", "uint64", "float32", "float64"]
)
def test_two_processes(name):
    n = 100 if name == "int8" else 1000
    block = shared_memory.SharedMemory(create=True, size=64)
    try:
        try:
            a = AtomicArray.from_buffer(block.buf, name, shared=True)
        except NotImplementedError:
            pytest.skip("this build has no shared waits")
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CHILD), block.name, name, str(n)]
        )
        try:
            for _ in range(20):
                a.fetch_add(0, 1)
            turn = 1
            for _ in range(50):
                a.store(1, turn)
                a.notify_one(1)
                assert a.wait(1, turn, 30)
                turn += 2
                assert a.load(1) == turn - 1
            assert child.wait(30) == 0
        finally:
            child.kill()
            child.wait()
        assert a.load(0) == n + 20
        del a
    finally:
        gc.collect()
        block.close()
        block.unlink()


@pytest.mark.skipif(sys.platform != "linux", reason="shared waiting is Linux's")
def test_shared_waits_within_one_process():
    memory = mmap.mmap(-1, 64)
    try:
        cells = [
            fastsync.AtomicU8.from_buffer(memory, 0, shared=True),
            fastsync.AtomicU8.from_buffer(memory, 3, shared=True),
            fastsync.AtomicI16.from_buffer(memory, 6, shared=True),
            fastsync.AtomicI64.from_buffer(memory, 8, shared=True),
            fastsync.AtomicF64.from_buffer(memory, 16, shared=True),
        ]
    except NotImplementedError:
        pytest.skip("this build has no shared waits")
    for cell in cells:
        run_threads([lambda cell=cell: cell.wait(0, 0.01)])  # not only in the main thread
        assert cell.wait(1) is True
        assert cell.wait(0, 0) is False
        begin = time.monotonic()
        assert cell.wait(0, 0.02) is False
        assert time.monotonic() - begin >= 0.02
        assert cell.wait(0, -1) is False
    new = 1
    done = fastsync.AtomicI64(0)

    def waiter(i):
        assert cells[i].wait(0, 30)
        done.fetch_add(1)

    def waker():
        for cell in cells:
            cell.notify_all()
        cells[3].store(1 << 40)  # a change of the upper half alone
        cells[3].notify_one()
        for cell in (cells[0], cells[1], cells[2], cells[4]):
            cell.store(new)
            cell.notify_one()
        wait_until(lambda: done.load() == 5)

    run_threads([*[lambda i=i: waiter(i) for i in range(5)], waker])


@pytest.mark.skipif(sys.platform != "linux", reason="shared waiting is Linux's")
def test_a_signal_handler_ends_a_shared_wait():

    try:
        a = AtomicArray.from_buffer(mmap.mmap(-1, 64), "int64", shared=True)
    except NotImplementedError:
        pytest.skip("this build has no shared waits")
    interrupted(lambda: a.wait(0, 0))
    assert a.load(0) == 0


def test_all_names_are_covered():
    assert list(itertools.chain(INTS, FLOATS)) == NAMES


def test_an_array_that_is_still_being_made_is_empty():
    """While the arguments are looked at, Python code can find the array with the collector."""
    found = []

    class Dtype:
        name = "int64"

        @property
        def isnative(self):
            new = [thing for thing in gc.get_objects() if type(thing) is AtomicArray]
            found.extend(thing for thing in new if not any(thing is other for other in old))
            for thing in found:
                self.use(thing)
            return True

        def use(self, thing):
            assert len(thing) == 0
            assert thing.load_all() == []
            assert "0" in repr(thing)
            thing.fill(7)
            with pytest.raises(IndexError):
                thing.load(0)
            with pytest.raises(IndexError):
                thing.add_at([0], 1)
            with pytest.raises(BufferError):
                memoryview(thing)

    old = [thing for thing in gc.get_objects() if type(thing) is AtomicArray]
    made = AtomicArray(Dtype(), 5)
    assert found
    assert all(thing is made for thing in found)
    assert made.load_all() == [0] * 5


# -- memory of others, and its life ----------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_buffer_is_an_empty_array(name):
    for memory in (bytearray(), memoryview(bytearray(1))[1:], array.array(CODES[name])):
        for a in (AtomicArray.from_buffer(memory, name), AtomicArray(name, 0)):
            assert len(a) == a.nbytes == 0
            assert a.load_all() == list(a) == []
            assert memoryview(a).tolist() == []
            a.fill(1)
            a.add_at([], [])
            a.add_at(array.array("i"), 5)
            assert a.load_all(bytearray()) == b""
            with pytest.raises(IndexError):
                a.load(0)
            with pytest.raises(IndexError):
                a.max_at([-1], 5)


class Memory(bytearray):
    """One that can have attributes, and so be in a cycle."""


@pytest.mark.parametrize(
    "borrow",
    [
        lambda memory: AtomicArray.from_buffer(memory, "int32"),
        lambda memory: AtomicArray.from_buffer(AtomicArray.from_buffer(memory)),
        lambda memory: AtomicArray.from_buffer(memoryview(memory)[4:], "int32"),
        lambda memory: memoryview(AtomicArray.from_buffer(memory)),
        lambda memory: fastsync.AtomicI32.from_buffer(memory),
        lambda memory: fastsync.AtomicBool.from_buffer(memoryview(memory), 3),
        lambda memory: fastsync.AtomicF64.from_buffer(AtomicArray.from_buffer(memory)),
    ],
)
def test_a_cycle_with_the_memory_is_collected(borrow):
    memory = Memory(8)
    memory.borrowed = borrow(memory)
    gone = weakref.ref(memory)
    gc.collect()
    assert gone() is memory
    del memory
    wait_until(lambda: gc.collect() is not None and gone() is None)


def test_only_what_refers_to_a_buffer_is_tracked():
    assert not gc.is_tracked(AtomicArray("int8", 1))
    assert not gc.is_tracked(fastsync.AtomicI64())
    assert not gc.is_tracked(fastsync.AtomicF32(1.0))
    assert gc.is_tracked(AtomicArray.from_buffer(bytearray(8)))
    assert gc.is_tracked(fastsync.AtomicI64.from_buffer(bytearray(8)))


def test_long_chains_are_freed_without_a_deep_stack():
    code = """
        import array, gc
        from fastsync import AtomicArray, AtomicI8

        def chain(n, link):
            first = last = AtomicArray("int8", 8)
            for _ in range(n):
                last = link(last)
            return first, last

        for link in (
            AtomicArray.from_buffer,
            lambda a: AtomicArray.from_buffer(memoryview(a)),
        ):
            first, last = chain(300_000, link)
            last.fetch_add(3, 5)
            assert first.load(3) == 5
            leaf = AtomicI8.from_buffer(last, 3)
            del last
            gc.collect()
            leaf += 1
            assert first.load(3) == 6
            del leaf
            gc.collect()
    """
    subprocess.run([sys.executable, "-P", "-c", textwrap.dedent(code)], check=True, timeout=120)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no __buffer__ from Python")
def test_a_refused_buffer_is_released_once():
    class Exporter:
        def __init__(self, size):
            self.view = memoryview(bytearray(size))
            self.exports = 0

        def __buffer__(self, flags):
            self.exports += 1
            return self.view

        def __release_buffer__(self, view):
            self.exports -= 1
            view.release()

    for make, error in (
        (lambda e: AtomicArray.from_buffer(e, "int64"), ValueError),
        (lambda e: AtomicArray.from_buffer(e, "int9"), ValueError),
        (lambda e: AtomicArray.from_buffer(e, 9), TypeError),
        (lambda e: fastsync.AtomicI64.from_buffer(e, 7), ValueError),
        (lambda e: fastsync.AtomicI64.from_buffer(e, -1), ValueError),
        (lambda e: fastsync.AtomicI16.from_buffer(e, 1), ValueError),
        (lambda e: AtomicArray("int8", 3).load_all(e), ValueError),
        (lambda e: AtomicArray("int8", 3).add_at(e, [1]), ValueError),
    ):
        exporter = Exporter(9)
        with pytest.raises(error):
            make(exporter)
        assert exporter.exports == 0
    exporter = Exporter(8)
    a = AtomicArray.from_buffer(exporter)
    assert exporter.exports == 1
    del a
    gc.collect()
    assert exporter.exports == 0


def test_a_format_that_lies_about_its_width():
    """As from ctypes, whose formats are of a standard size, not of this platform's."""
    assert AtomicArray.from_buffer((ctypes.c_long * 3)()).itemsize == ctypes.sizeof(ctypes.c_long)
    assert AtomicArray.from_buffer((ctypes.c_uint16 * 3)()).dtype == "uint16"
    for odd in ((ctypes.c_char * 4)(), (ctypes.c_longdouble * 2)(), (ctypes.c_int * 2 * 2)()):
        try:
            a = AtomicArray.from_buffer(odd)
        except TypeError:
            continue
        assert a.nbytes == ctypes.sizeof(odd)


def test_a_list_of_indices_that_changes_while_they_are_read():
    a = AtomicArray("int64", 4)

    class Index:
        def __index__(self):
            for thing in gc.get_referrers(self):
                if type(thing) is list:
                    thing.extend([self] * 100_000)
            return 1

    for _ in range(3):
        a.add_at([Index()], [1])
        a.add_at([2], [Index()])
    assert a.load_all() == [0, 3, 3, 0]


# -- float32, bit by bit ---------------------------------------------------------------

# Signalling and quiet NaNs with payloads, both zeros, the smallest and the largest numbers.
PATTERNS = [0x7FA00000, 0xFFA00001, 0x7F800001, 0x7FC00000, 0xFFFFFFFF, 0x7FC12345]
PATTERNS += [0x00000000, 0x80000000, 0x00000001, 0x807FFFFF, 0x7F7FFFFF, 0x7F800000, 0xFF800000]


@pytest.mark.parametrize("bits", PATTERNS, ids=hex)
def test_a_float32_is_what_was_loaded(bits):
    memory = bytearray(struct.pack("=II", bits, 0))
    words = AtomicArray.from_buffer(memory, "uint32")
    a = AtomicArray.from_buffer(memory, "float32")
    f = fastsync.AtomicF32.from_buffer(memory)
    value = a.load(0)
    assert value != value or struct.pack("=f", value) == struct.pack("=I", bits)
    for loaded in (value, a[0], a.load_all()[0], f.load(), f.into_inner(), f.swap(value)):
        assert not a.wait(0, loaded, 0)
        assert not f.wait(loaded, 0)
        assert f.compare_and_set(loaded, 1.0)
        assert f.compare_exchange(1.0, loaded)[0]
        assert a.compare_and_set(0, loaded, 1.0)
        assert a.compare_exchange(0, 1.0, loaded) == (True, 1.0)
        assert words.load(0) == bits
        f.store(loaded)
        assert words.load(0) == bits
        a.store(1, loaded)
        assert words.load(1) == bits
        assert words.swap(1, 0) == bits
        a.swap(1, loaded)
        assert words.swap(1, 0) == bits
        assert f.update(lambda x: x) is not None
        assert words.load(0) == bits
        assert fastsync.AtomicF32(loaded).compare_and_set(loaded, 0.0)
        wide = fastsync.AtomicF64(loaded)
        f.store(wide.load())
        assert words.load(0) == bits
    b = AtomicArray("float32", 2)
    b.fill(value)
    assert memoryview(b).cast("B").tobytes() == struct.pack("=II", bits, bits)
    a.store(1, 2.5)
    for call in (f.fetch_max, f.fetch_min):
        words.store(0, bits)
        call(math.nan)
        assert words.load(0) == (bits if value == value else 0x7FC00000)
    f.store(0.5)
    f.fetch_max(a.load_all()[0])
    words.store(0, bits)
    for op in ("max_at", "min_at"):
        for count in (1, 6):  # one by one, and collected in a table
            words.store(1, 0x7FC00000)
            getattr(a, op)([1] * count, [value] * count)
            assert words.load(1) == bits
            words.store(1, 0x7FC00000)
            getattr(a, op)([1] * count, array.array("f", memory[:4] * count))
            assert words.load(1) == bits


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("start", [0.0, -0.0])
@pytest.mark.parametrize("value", [0.0, -0.0])
def test_zeros_are_added_alike_in_every_way(name, start, value):
    wanted = math.copysign(1, start + value)
    for count in (1, 2, 8):
        for given in (value, [value] * count, array.array(CODES[name], [value] * count)):
            for indices in ([0] * count, array.array("q", [0] * count)):
                a = AtomicArray(name, 2)
                a.fill(start)
                a.add_at(indices, given)
                assert math.copysign(1, a[0]) == wanted
                assert math.copysign(1, a[1]) == math.copysign(1, start)


def test_buffers_are_released():
    """Of operations that have ended, also in an error; a buffer in use cannot grow."""
    a = AtomicArray("int64", 3)
    at, values, out = array.array("q", [0, 1]), array.array("q", [5, 6]), array.array("q", [0] * 3)
    a.add_at(at, values)
    a.load_all(out)
    for buffer in (at, values, out):
        buffer.append(9)
    for call, error in (
        (lambda: a.add_at(at, values), IndexError),
        (lambda: a.add_at(at, array.array("d", [1])), TypeError),
        (lambda: a.add_at(at, values[:1]), ValueError),
        (lambda: a.load_all(out), ValueError),
    ):
        with pytest.raises(error):
            call()
        for buffer in (at, values, out):
            buffer.append(9)
    memory = bytearray(9)
    for refused in (
        lambda: AtomicArray.from_buffer(memory, "int64"),
        lambda: AtomicArray.from_buffer(memoryview(memory)[1:9], "int64"),
        lambda: fastsync.AtomicI64.from_buffer(memory, 1),
        lambda: fastsync.AtomicI64.from_buffer(memory, 8),
    ):
        with pytest.raises(ValueError):
            refused()
        memory.append(0)
        del memory[-1]
    assert a.load_all() == [5, 6, 0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bins", [5, 4000])  # collected in a table; applied one by one
@pytest.mark.parametrize("typecode", ["q", "i", None])
def test_what_is_wrong_in_a_later_block_is_found_before_anything_is_applied(name, bins, typecode):
    # 512 are copied at a time.
    indices = [i % 5 for i in range(2000)]
    values = [1] * 2000
    too_large = 10**400 if name.startswith("float") else 2**64
    for place in (0, 511, 512, 1999):
        a = AtomicArray(name, bins)
        bad_indices, bad_values = indices.copy(), values.copy()
        bad_indices[place] = bins
        bad_values[place] = too_large
        at = array.array(typecode, bad_indices) if typecode else bad_indices
        for call in (a.add_at, a.max_at, a.min_at, a.or_at)[: 3 if name.startswith("float") else 4]:
            for wrong in (values, 1):
                with pytest.raises(IndexError):
                    call(at, wrong)
            with pytest.raises(OverflowError):
                call(indices, bad_values)
            assert not any(a.load_all())
        a.add_at(indices, values)
        assert a.load_all()[:5] == [v % 256 - 256 * (name == "int8" and v % 256 > 127)
                                    if name.endswith("int8") else v for v in [400] * 5]  # fmt: skip
    # The same for values in a buffer that are too large for the array.
    if name in ("int8", "uint8", "int16", "uint16", "int32", "uint32"):
        a = AtomicArray(name, bins)
        buffer = array.array("q", values)
        buffer[1999] = 2**40
        with pytest.raises(OverflowError):
            a.add_at(indices, buffer)
        assert not any(a.load_all())


class View(ctypes.Structure):
    """Py_buffer."""

    _fields_ = [
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.POINTER(ctypes.c_ssize_t)),
        ("strides", ctypes.POINTER(ctypes.c_ssize_t)),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    ]


WRITABLE, FORMAT, ND, STRIDES, INDIRECT = 1, 4, 8, 24, 280
CONTIGUOUS = [0x38, 0x58, 0x98]  # in C's, Fortran's and any order


@pytest.mark.parametrize("name", NAMES)
def test_a_buffer_has_what_was_asked_for_and_no_more(name):
    get = ctypes.pythonapi.PyObject_GetBuffer
    get.argtypes = [ctypes.py_object, ctypes.POINTER(View), ctypes.c_int]
    release = ctypes.pythonapi.PyBuffer_Release
    release.argtypes = [ctypes.POINTER(View)]
    release.restype = None
    a = AtomicArray(name, 5)
    for how in [0, ND, STRIDES, INDIRECT, *CONTIGUOUS]:
        for flags in (how, how | WRITABLE, how | FORMAT, how | FORMAT | WRITABLE):
            view = View()
            assert get(a, view, flags) == 0
            assert (view.len, view.itemsize) == (a.nbytes, a.itemsize)
            assert (view.ndim, view.readonly) == (1, 0)
            assert bool(view.format) == bool(flags & FORMAT)
            assert bool(view.shape) == bool(flags & ND)
            assert bool(view.strides) == ((flags & STRIDES) == STRIDES)
            assert not view.suboffsets
            if view.shape:
                assert view.shape[0] == 5
            if view.strides:
                assert view.strides[0] == a.itemsize
            release(view)
