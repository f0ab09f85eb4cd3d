#!/usr/bin/env python3
"""Use and misuse AtomicArray and the atomics over buffers, from several threads, at random.

    python tests/fuzz/fuzz_arrays.py [SECONDS] [SEED] [THREADS] [shared|buffers|init]

Threads share arrays, and the buffers below them, and give them indices and values that are wrong,
or whose conversion uses the array; they initialize one array a second time, resize what it is over,
and read and write all of it at once.

Checked, all the time: nothing is written outside of the memory of an array (there are marks around
it); only the documented exceptions are raised. At the end of each round: what was added is there,
no more and no less, and buffers can be resized again.
"""

import array
import contextlib
import gc
import sys
import sysconfig
import time
from pathlib import Path

import fastsync
from fastsync import AtomicArray, AtomicI64

sys.path.append(str(Path(__file__).resolve().parent))

import fuzzing
from fuzzing import Wrong

KINDS = ("shared", "buffers", "init")
LENGTH = 0.7  # seconds of a round
MISUSE = (IndexError, ValueError, TypeError, OverflowError, BufferError, ZeroDivisionError)
TYPES = (
    *("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    *("float32", "float64"),
)
MARK = bytes(range(64))


class Hostile:
    """A number whose conversion does something else meanwhile."""

    def __init__(self, shared, rng):
        self.shared, self.rng = shared, rng

    def __index__(self):
        what = self.rng.randrange(5)
        if what == 0:
            raise ZeroDivisionError
        if what == 1:
            self.shared.misuse(self.rng, hostile=False)
        if what == 2:
            gc.collect(0)
        return self.rng.choice([0, 1, -1, 2**70, 3])

    def __float__(self):
        return float(self.__index__())


class Shared:
    def __init__(self, rng):
        self.counts = AtomicArray(rng.choice(["int64", "uint64", "int32"]), 4)
        self.added = [AtomicI64(0) for _ in range(4)]
        self.memory = bytearray(MARK + bytes(8 * rng.randrange(1, 40)) + MARK)
        self.buffers = [bytearray(80), array.array("q", range(10)), memoryview(bytearray(64))]
        self.arrays = [AtomicArray(rng.choice(TYPES), rng.randrange(1, 50)) for _ in range(4)]
        with memoryview(self.memory) as whole:
            inner = whole[len(MARK) : -len(MARK)]
        for name in rng.sample(TYPES, 4):
            self.arrays.append(AtomicArray.from_buffer(inner, name))
        self.word = AtomicI64.from_buffer(inner[:8])

    def count(self, rng):
        index = rng.randrange(4)
        for _ in range(20):
            self.counts.fetch_add(index - 4 * (rng.random() < 0.5), 1)
        self.added[index].fetch_add(20)
        chosen = [rng.randrange(4) for _ in range(rng.randrange(30))]
        self.counts.add_at(chosen, 1)
        for index in chosen:
            self.added[index].fetch_add(1)

    def check(self):
        if self.memory[: len(MARK)] != MARK or self.memory[-len(MARK) :] != MARK:
            raise Wrong("something was written outside of the array")

    def number(self, rng, hostile):
        numbers = [0, 1, -1, 7, 300, -129, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 1.5, True]
        numbers += [float("nan"), float("inf"), -0.0, None, "1", b"1"]
        if hostile and rng.random() < 0.3:
            return Hostile(self, rng)
        return rng.choice(numbers)

    def index(self, rng, hostile):
        if rng.random() < 0.6:
            return rng.randrange(5)
        return self.number(rng, hostile)

    def misuse(self, rng, hostile=True):
        self.use(rng.choice(self.arrays), rng, hostile)

    def use(self, a, rng, hostile=True):
        i, x, y = self.index(rng, hostile), self.number(rng, hostile), self.number(rng, hostile)
        what = rng.randrange(16)
        if what == 0:
            a.store(i, x)
        elif what == 1:
            a.swap(i, x)
        elif what == 2:
            a.compare_exchange(i, x, y)
        elif what == 3:
            name = "add sub and nand or xor max min".split()[rng.randrange(8)]
            getattr(a, f"fetch_{name}")(i, x)
        elif what == 4:
            a.fetch_update(i, lambda old: self.number(rng, hostile))
        elif what == 5:
            a.wait(i, x, timeout=rng.choice([0, 1e-4, -1]))
        elif what == 6:
            rng.choice([a.notify_one, a.notify_all])(i)
        elif what == 7:
            name = rng.choice(["add_at", "max_at", "min_at", "or_at"])
            indices = [self.index(rng, hostile) for _ in range(rng.randrange(6))]
            values = rng.choice([x, [self.number(rng, hostile) for _ in indices], a])
            getattr(a, name)(rng.choice([indices, array.array("q", [0, 1, -1]), a]), values)
        elif what == 8:
            out = rng.choice([None, bytearray(a.nbytes), bytearray(3), rng.choice(self.arrays), a])
            a.load_all(out) if out is not None else a.load_all()
        elif what == 9:
            a.fill(x)
        elif what == 10:
            list(a)
            repr(a)
        elif what == 11:
            with memoryview(a) as view:
                view.tobytes()
        elif what == 12:
            self.word.fetch_add(1)
            self.word.swap(x)
        else:
            a.load(i)


# 3.13t itself does not bear it: a bytearray counts its buffers without a lock, so one that is in
# use may be moved, or seem to be in use for ever.
RESIZES = not sysconfig.get_config_var("Py_GIL_DISABLED")


class Overlaid:
    """Arrays over buffers that others resize."""

    def __init__(self, shared):
        self.shared = shared

    def use(self, rng):
        buffer = rng.choice(self.shared.buffers)
        dtype = rng.choice([None, *TYPES, int, float, "bool", "int7"])
        what = rng.randrange(5)
        if what == 0 and isinstance(buffer, bytearray) and RESIZES:
            buffer.extend(bytes(8)) if len(buffer) < 200 else buffer.clear()
        elif what == 1:
            size = rng.randrange(9)
            with memoryview(buffer) as view:
                AtomicArray.from_buffer(view.cast("B")[size:], dtype)
        elif what == 2:
            name = rng.choice(["AtomicI8", "AtomicU16", "AtomicF32", "AtomicI64", "AtomicBool"])
            word = getattr(fastsync, name).from_buffer(buffer)
            word.store(rng.choice([0, 1, True, 100]))
            word.load()
        else:
            made = AtomicArray.from_buffer(buffer, dtype, rng.random() < 0.2)
            self.shared.use(made, rng)


def initialize(arrays, rng):
    """A second caller of what makes an array must change nothing, or be refused."""
    made = rng.choice(arrays)
    dtype, count = rng.choice(TYPES), rng.choice([1, 8, 1000])
    what = rng.randrange(6)
    if what == 0:
        arrays[rng.randrange(len(arrays))] = AtomicArray(dtype, count)
    elif what == 1:
        made.__init__(dtype, count)
    elif what == 2:
        AtomicArray.__init__(made, dtype)
    elif what == 3:
        arguments = rng.choice([(), (dtype, count)])
        arrays[rng.randrange(len(arrays))] = AtomicArray.__new__(AtomicArray, *arguments)
    elif what == 4:
        made.fill(1)
    else:
        size, length, kind = made.nbytes, len(made), made.dtype
        bits = str(8 * made.itemsize)
        if size != length * made.itemsize or (length and not kind.endswith(bits)):
            raise Wrong(f"{length} items of {kind} in {size} bytes")


def one_round(fuzz, kinds):
    fuzz.end = min(fuzz.end, time.monotonic() + LENGTH)
    kind = kinds[fuzz.seed % len(kinds)]
    shared = Shared(fuzz.rng)
    arrays = [AtomicArray("int8", 8) for _ in range(3)]
    overlaid = Overlaid(shared)
    uses = {
        "shared": [shared.count, shared.misuse, shared.misuse],
        "buffers": [overlaid.use, overlaid.use, shared.misuse],
        "init": [lambda rng: initialize(arrays, rng)],
    }[kind]

    def work(rng):
        while fuzz.going():
            for _ in range(20):
                with contextlib.suppress(*MISUSE):
                    rng.choice(uses)(rng)
            shared.check()

    fuzz.join(fuzz.start(*[work] * fuzz.threads))
    if not fuzz.errors:
        settle(shared)


def settle(shared):
    shared.check()
    there = [int(count) for count in shared.counts.load_all()]
    added = [count.load() for count in shared.added]
    if there != added:
        raise Wrong(f"{added} was added, {there} is there")
    gc.collect()
    if RESIZES:
        fuzzing.wait_until(lambda: can_be_resized(shared.buffers[0]), "a buffer is kept exported")


def can_be_resized(buffer):
    with contextlib.suppress(BufferError):
        buffer.extend(bytes(8))
        return True
    return False


if __name__ == "__main__":
    sys.exit(fuzzing.run(KINDS, one_round))
