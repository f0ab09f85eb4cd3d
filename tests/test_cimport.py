"""Other people's packages on the C API: built against the installed fastsync, used from threads."""

import ctypes
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from c_door import c_function
from conftest import background, run_build, run_threads, wait_asleep, wait_until

import fastsync
from fastsync.raw.parking import wait_backend

Cython = pytest.importorskip("Cython")
pytest.importorskip("setuptools")

# One worker builds and uses all of it.
pytestmark = [pytest.mark.xdist_group("cimport"), pytest.mark.slow]

SOURCES = Path(__file__).parent / "cimport_user"
INSTALLED = Path(fastsync.__file__).parent
SERIES = "_".join(fastsync.__version__.split(".")[:2])
# The raw modules with functions for others.
PUBLIC = "barrier condvar event mutex once parking rwlock semaphore word".split()
ROOT = SOURCES.parents[1]
DOCUMENT = ROOT / "docs" / "cython-api.md"


def install(source, target, work, *options, **environment):
    """Build a copy of a package with pip and put it into a folder of its own."""
    copy = work / Path(source).name
    shutil.copytree(source, copy)
    run_build(
        *("-m", "pip", "install", "-q", "--no-build-isolation", "--no-deps", "--no-index"),
        *("--disable-pip-version-check", "--target", target, *options, copy),
        cwd=work,
        **environment,
    )


@pytest.fixture(scope="session")
def user(tmp_path_factory):
    """Called with a consumer's folder and a module: builds the one, once, imports the other."""
    work = tmp_path_factory.mktemp("cimport")
    site = work / "site"
    build = cache(lambda name: install(SOURCES / name, site, work))

    def built(name, module):
        build(name)
        return import_module(module)

    sys.path.insert(0, str(site))
    yield built
    sys.path.remove(str(site))


@pytest.fixture
def structures(user):
    return user("one", "fs_user_one.structures")


@pytest.fixture
def core(user):
    return user("one", "fs_user_one.core")


@pytest.fixture
def words(user):
    return user("one", "fs_user_one.words")


@pytest.fixture
def borrower(user):
    return user("two", "fs_user_two.borrower")


@pytest.fixture
def plain_c(user):
    return user("plain", "fs_user_c")


@pytest.fixture
def plain_cpp(user):
    return user("plain", "fs_user_cpp")


# One build for each test: on a busy machine all of them take longer than a test may.
@pytest.mark.parametrize("consumer", ["structures", "borrower", "plain_c", "plain_cpp"])
def test_consumers_leave_the_gil_off(consumer, request):
    request.getfixturevalue(consumer)
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        assert not sys._is_gil_enabled()


def test_what_a_consumer_compiles_with_is_installed():
    include = Path(fastsync.get_include())
    assert (include / "fastsync" / "fastsync.h").is_file()
    assert (include / "fastsync" / "atomic.h").is_file()
    for name in ["words.pxd", "raw/mutex.pxd", "raw/c_atomic.pxd", "raw/__init__.pxd"]:
        assert (INSTALLED / name).is_file()


# -- sizes, inlining, signatures -----------------------------------------------------


def documented_sizes():
    """The table of cython-api.md: {word: (bytes, alignment)}."""
    rows = re.findall(r"^\| (`fs_.*`) \| (\d+) \| (\d+) \|$", DOCUMENT.read_text(), re.MULTILINE)
    return {
        name: (int(size), int(alignment))
        for names, size, alignment in rows
        for name in re.findall(r"`(\w+)`", names)
    }


@pytest.mark.skipif(sysconfig.get_config_var("SIZEOF_VOID_P") != 8, reason="documents 64 bits")
def test_sizes_are_the_documented_ones(plain_c, plain_cpp, structures):
    """Of every word, and of a struct with a char behind it."""
    embedded = {
        name: (size, size + alignment) for name, (size, alignment) in documented_sizes().items()
    }
    assert len(embedded) == 21
    assert plain_c.sizes() == embedded
    assert plain_cpp.sizes() == embedded
    assert structures.counter_size() == 16  # a lock's byte and an int64_t, aligned


@pytest.mark.skipif(not shutil.which("objdump"), reason="needs objdump")
def test_fast_paths_are_inlined(structures):
    """SharedCounter.add locks with an instruction; it calls for the slow paths only."""
    listing = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", structures.__file__],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert not re.search(r"<\w*mutex_(un)?lock>:", listing), "a fast path is a function"
    if os.uname().machine == "x86_64":
        assert "lock cmpxchg" in listing


@pytest.mark.parametrize("name", PUBLIC)
def test_every_exported_signature_carries_the_series(name):
    """That is what makes an extension of another series fail at import."""
    module = import_module(f"fastsync.raw.{name}")
    pxd = (INSTALLED / "raw" / f"{name}.pxd").read_text()
    # What only our own modules use is built together with them.
    public = pxd.split("\n# -- between the modules of this package")[0]
    for function, capsule in module.__pyx_capi__.items():
        if re.search(rf"\b{function}\b", public):
            assert f"fastsync_{SERIES}_" in repr(capsule), (function, capsule)


# What is exported for inline functions, and for the modules of this package.
NOT_FOR_C = r"""
    mutex_mark_parked_if_locked remutex_own remutex_set_count condvar_wait_foreign rwlock_last_entry
    rwlock_plain_readers rwlock_wake_claimant rwlock_wake_parked word_address
    sharded_\w+ \w+_slow \w+_some
""".split()


def offered_in_c():
    """The functions of fastsync.h, those that its macros make included."""
    folder = Path(fastsync.get_include()) / "fastsync"
    header = (folder / "atomic_float.h").read_text() + (folder / "fastsync.h").read_text()
    waits = re.findall(r"FS_ATOMIC_WAIT\((\w+),", header)
    words = re.findall(r"FS_OBJECT_WORD\((\w+),", header)
    return {*re.findall(r"\b(fs_\w+)\(", header), *(f"fs_{kind}_wait" for kind in waits), *words}


@pytest.mark.parametrize("name", [*PUBLIC, "remutex"])
def test_the_header_has_all_functions(name):
    """C is offered what Cython is, with fs_ in front of names that do not have it."""
    pxd = (INSTALLED / "raw" / f"{name}.pxd").read_text()
    public = pxd.split("\n# -- between the modules of this package")[0]
    declared = r"^cdef (?:inline )?[\w* ]*?\b(\w+)\((?:$|.*\) noexcept)"
    functions = set(re.findall(declared, public, re.MULTILINE))
    assert len(functions) > 2
    for_c = {f for f in functions if not any(re.fullmatch(p, f) for p in NOT_FOR_C)}
    assert {f"fs_{f.removeprefix('fs_')}" for f in for_c} <= offered_in_c()


def test_versions_agree():
    header = (Path(fastsync.get_include()) / "fastsync" / "version.h").read_text()
    assert f'FASTSYNC_VERSION "{fastsync.__version__}"' in header
    assert f'"_compiled_for_{fastsync.__version__.replace(".", "_")}"' in header


# -- built for another version ---------------------------------------------------------


@pytest.fixture(scope="session")
def other_version(tmp_path_factory):
    """A copy of the installed files that a consumer compiles against, of series 9.7."""
    folder = tmp_path_factory.mktemp("other")
    copy = folder / "fastsync"
    shutil.copytree(INSTALLED, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for path in [*copy.rglob("*.pxd"), *copy.rglob("*.h"), copy / "__init__.py"]:
        text = path.read_text()
        text = text.replace(f"fastsync_{SERIES}_", "fastsync_9_7_")
        text = re.sub(r"_compiled_for_[\d_]+", "_compiled_for_9_7_3", text)
        if path.name == "mutex.pxd":  # a type that has grown: Cython alone would complain of that
            text = text.replace("cdef class _Mutex:", "cdef class _Mutex:\n    cdef object more")
        path.write_text(text.replace(f'"{fastsync.__version__}"', '"9.7.3"'))
    return folder


def test_cimport_of_another_version_fails_at_import(other_version, tmp_path):
    install(SOURCES / "two", tmp_path / "site", tmp_path, PYTHONPATH=other_version)
    done = subprocess.run(
        [sys.executable, "-c", "import fs_user_two.borrower"],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 1, done
    assert done.stderr.splitlines()[-1] == (
        "ImportError: this extension was compiled for fastsync 9.7.3, "
        f"but fastsync {fastsync.__version__} is installed"
    )


def test_which_versions_fit():
    """Those of the same series that are not newer."""
    major, minor, patch = fastsync._NUMBERS
    assert ".".join(map(str, fastsync._NUMBERS)) == fastsync.__version__
    for fits in range(patch + 1):
        assert isinstance(getattr(fastsync, f"_compiled_for_{major}_{minor}_{fits}"), type)
    for other in [(major, minor, patch + 1), (major, minor + 1, 0), (major + 1, minor, patch)]:
        with pytest.raises(
            ImportError, match=rf"for fastsync {other[0]}\.{other[1]}\.{other[2]}, "
        ):
            getattr(fastsync, "_compiled_for_{}_{}_{}".format(*other))


def test_header_of_another_version_fails_at_import(other_version, tmp_path):
    install(SOURCES / "plain", tmp_path / "site", tmp_path, PYTHONPATH=other_version)
    done = subprocess.run(
        [sys.executable, "-c", "import fs_user_c"],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 1, done
    assert "compiled for fastsync 9.7.3" in done.stderr
    assert f"fastsync {fastsync.__version__} is installed" in done.stderr


# -- one word, several packages ------------------------------------------------------------


@pytest.fixture(params=["c", "cpp"])
def mixed(request, user):
    return user("mixed", f"fs_user_mixed_{request.param}")


def test_a_word_passes_between_cython_and_c_in_one_module(mixed):
    run_threads([lambda: mixed.add(1, 20_000)] * 4)
    assert mixed.add(0, 1) == 80_000
    assert mixed.lock_there_unlock_here() == (True, False, 0, -1)
    assert mixed.wake_nobody() == 0


def test_signals_are_left_alone_without_a_thread_state(mixed):
    """In the main thread, where handlers would run, this crashed."""
    assert mixed.wait_without_a_thread_state(2_000_000) == (0, 0, 0)


def test_none_has_no_word(mixed):
    assert mixed.words_of_none() == (True, True, True)


def test_the_documented_latch(mixed):
    page = DOCUMENT.read_text()
    latch = page[page.index("cdef bint still_shut") : page.index("`park` queues unless")]
    assert latch.split("```")[0] in (SOURCES / "mixed" / "mixed.pxi").read_text()
    for _ in range(100):
        mixed.begin(4)
        assert run_threads([mixed.meet] * 4) == [0] * 4


def test_all_that_wait_for_a_word_are_woken_at_once(mixed):
    mixed.begin(7)
    outcomes = []
    with background(*[lambda: outcomes.append(mixed.wait_while(7))] * 3):
        wait_until(lambda: mixed.waiting() == 3)
        woken = mixed.change(8)
        while mixed.waiting():
            mixed.change(8)
    assert (woken, outcomes) == (3, [1, 1, 1])


def test_a_semaphore_has_a_largest_value(mixed):
    assert mixed.semaphore_edges() == [True, -1, -1, 5, True]


def test_packages_share_a_lock(structures, borrower, plain_c, plain_cpp):
    counter = structures.SharedCounter()
    where = counter.addresses
    times = 20_000
    run_threads(
        2
        * [
            lambda: counter.add(times),
            lambda: borrower.add(where, times),
            lambda: plain_c.add(where, times),
            lambda: plain_c.add_in_other_file(where, times // 10),
            lambda: plain_cpp.add(where, times),
        ]
    )
    assert counter.value == 2 * (4 * times + times // 10)
    assert not borrower.is_locked(where)


def test_a_package_waits_for_another(structures, borrower):
    counter = structures.SharedCounter()
    where = counter.addresses
    borrower.lock(where)
    assert not borrower.try_lock(where)
    assert not borrower.try_lock_for(where, 1_000_000)
    done = threading.Event()

    def wait():
        counter.add(1)
        done.set()

    def wait_attached():
        borrower.lock(where)
        borrower.unlock(where)

    threads = [threading.Thread(target=wait), threading.Thread(target=wait_attached)]
    for thread in threads:
        thread.start()
    # A waiter that kept its thread state would stop this thread on a build with the GIL.
    time.sleep(0.02)
    assert not done.is_set()
    assert counter.value == 0
    assert borrower.unlock(where) == 0
    for thread in threads:
        thread.join(30)
    assert counter.value == 1
    assert borrower.unlock(where) == -1


def test_words_of_python_objects(borrower):
    """Cython code locks the word of an object nogil, Python threads use `with` on it."""
    from fastsync import AtomicI64, Mutex, RwLock
    from fastsync.threading import Lock

    times = 2000
    lock, rwlock, mutex, number = Lock(), RwLock(None), Mutex([0]), AtomicI64(0)
    boxes = ([0], [0], [0])

    def with_lock():
        for _ in range(times):
            with lock:
                boxes[0][0] += 1

    def with_rwlock():
        for _ in range(times):
            with rwlock.write():
                boxes[1][0] += 1

    def with_mutex():
        for _ in range(times):
            with mutex:
                boxes[2][0] += 1

    run_threads(
        2
        * [
            with_mutex,
            lambda: borrower.add_with_mutex(mutex, boxes[2], times),
            with_lock,
            with_rwlock,
            lambda: borrower.add_with_lock(lock, boxes[0], times),
            lambda: borrower.add_with_rwlock(rwlock, boxes[1], times),
            lambda: borrower.bump_atomic(number, times),
            lambda: [number.fetch_add(1) for _ in range(times)],
        ]
    )
    assert boxes == ([4 * times], [4 * times], [4 * times])
    assert number.load() == 4 * times
    with pytest.raises(TypeError):
        borrower.add_with_lock(threading.Lock(), boxes[0], 1)


# -- data structures -----------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [1, 7, 1000])
@pytest.mark.parametrize("producers, consumers", [(1, 1), (4, 4)])
def test_ring_buffer(structures, capacity, producers, consumers):
    ring = structures.RingBuffer(capacity)
    each = 4000 if capacity == 1 else 20_000
    work = [lambda i=i: ring.put_many(i * each, each) for i in range(producers)]
    work += [lambda: ring.get_many(producers * each // consumers)] * consumers
    got = [total for total in run_threads(work) if total is not None]
    n = producers * each
    assert sum(got) == n * (n - 1) // 2
    assert len(ring) == 0


def test_ring_buffer_with_the_thread_state_attached(structures):
    ring = structures.RingBuffer(2)
    n = 2000

    def produce():
        for i in range(n):
            ring.put(i)

    def consume():
        return [ring.get() for _ in range(n)]

    assert run_threads([produce, consume])[1] == list(range(n))


def test_a_million_locks(structures):
    table = structures.StripedMap(1 << 20)
    assert table.lock_bytes == 1 << 20
    each, keys = 200_000, 300_000
    run_threads(lambda i: table.count_random(i + 1, each, keys), 8)
    found, total = table.totals()
    assert total == 8 * each
    assert found <= keys


def test_few_locks_many_threads(structures):
    table = structures.StripedMap(2)
    run_threads(lambda i: table.count_random(i + 1, 5000, 16), 8)
    assert table.totals() == (16, 8 * 5000)


def test_reader_writer_cache(structures):
    cache = structures.Cache()
    assert run_threads(lambda i: cache.check_squares(i, 20_000, 400), 8) == [0] * 8
    assert cache.misses > 256
    calm = structures.Cache()
    assert run_threads(lambda i: calm.check_squares(i, 20_000, 200), 8) == [0] * 8
    assert calm.misses == 200


@pytest.mark.parametrize("workers", [1, 8])
def test_parallel_for(structures, workers):
    n = 300_000
    loop = structures.ParallelSum(workers, n)
    results = run_threads(lambda i: loop.work(i, 64), workers)
    assert sum(done for _, done in results) == n
    assert sum(total for total, _ in results) == (n - 1) * n * (2 * n - 1) // 6


def test_idle_workers_take_over(structures):
    """One worker alone does everybody's share."""
    n = 10_000
    loop = structures.ParallelSum(4, n)
    assert loop.work(2, 64)[1] == n
    assert loop.work(0, 64) == (0, 0)


# -- the parking table ---------------------------------------------------------------------

# name: keys, threads on each, woken one by one, pause before each wake-up (s)
PARKING = {
    "all_one_fast": (1, 1, 0, 0),
    "all_hundred_fast": (1, 100, 0, 0),
    "one_one_fast": (1, 1, 1, 0),
    "one_hundred_fast": (1, 100, 100, 0),
    "one_fifty_then_fifty_all_fast": (1, 100, 50, 0),
    "all_one": (1, 1, 0, 0.01),
    "all_hundred": (1, 100, 0, 0.01),
    "one_one": (1, 1, 1, 0.01),
    "one_fifty": (1, 50, 50, 0.01),
    "one_fifty_then_fifty_all": (1, 100, 50, 0.01),
    "hundred_keys_all_one": (100, 1, 0, 0.01),
    "hundred_keys_all_one_fast": (100, 1, 0, 0),
}


@pytest.mark.parametrize("attached", [False, True], ids=["nogil", "attached"])
@pytest.mark.parametrize("case", PARKING)
def test_parking(core, case, attached):
    keys, threads, singly, pause = PARKING[case]
    latches = [core.Latch() for _ in range(keys)]
    runners = [
        threading.Thread(target=latch.run, args=(number, attached), daemon=True)
        for latch in latches
        for number in range(1, threads + 1)
    ]
    for runner in runners:
        runner.start()
    for latch in latches:
        for woken in range(singly):
            time.sleep(pause)
            assert latch.parked() <= threads - woken
            first, ran = latch.wake_one()
            assert first in (0, ran), "not the first in the queue"
        left = threads - singly
        if keys == 1:
            time.sleep(pause)
        while left:
            seen, woken = latch.wake_all()
            assert seen <= woken <= left
            left -= woken
    for runner in runners:
        runner.join(30)
    assert [latch.ran for latch in latches] == [threads] * keys
    assert [latch.parked() for latch in latches] == [0] * keys


def park_all(queue, numbers, results):
    """Park threads with these numbers on key 0, in this order."""
    threads = []
    for number in numbers:

        def body(number=number):
            results[number] = queue.park(0, number, -1)

        threads.append(threading.Thread(target=body, daemon=True))
        threads[-1].start()
        wait_until(lambda: queue.parked(0) == len(threads))
    return threads


def test_park_can_be_refused_and_can_time_out(core):
    queue = core.Queue()
    assert queue.park_refused() == core.INVALID
    assert queue.park(0, 1, 2_000_000) == (core.TIMED_OUT, 0)
    assert queue.park(0, 1, 0)[0] == core.TIMED_OUT
    assert queue.parked(0) == 0


def test_filter_and_tokens(core):
    queue, results = core.Queue(), {}
    threads = park_all(queue, [1, 2, 3, 4], results)
    assert queue.wake_odd(0) == (2, True)
    wait_until(lambda: len(results) == 2)
    assert results == {1: (core.UNPARKED, 77), 3: (core.UNPARKED, 77)}
    assert queue.wake_odd(0) == (0, True)
    assert queue.wake_all(0, 5) == 2
    for thread in threads:
        thread.join(30)
    assert results[2] == results[4] == (core.UNPARKED, 5)


def test_requeue(core):
    queue, results = core.Queue(), {}
    threads = park_all(queue, [1, 2, 3, 4, 5], results)
    assert queue.move(2, False) == (0, 2, True)
    assert (queue.parked(0), queue.parked(1)) == (3, 2)
    assert queue.move(2, True) == (1, 1, True)
    wait_until(lambda: 3 in results)
    assert queue.move(9, False) == (0, 1, False)
    assert (queue.parked(0), queue.parked(1)) == (0, 4)
    assert queue.wake_all(1, 9) == 4
    for thread in threads:
        thread.join(30)
    assert results == {3: (core.UNPARKED, 77)} | dict.fromkeys((1, 2, 4, 5), (core.UNPARKED, 9))


def test_requeue_that_is_called_off(core):
    queue, results = core.Queue(), {}
    threads = park_all(queue, [1, 2], results)
    assert queue.move_nobody() == (0, False)
    assert (queue.parked(0), queue.parked(1)) == (2, 0)
    assert queue.wake_all(0, 5) == 2
    for thread in threads:
        thread.join(30)


class UnparkResult(ctypes.Structure):
    _fields_ = [
        ("unparked", ctypes.c_size_t),
        ("requeued", ctypes.c_size_t),
        ("have_more", ctypes.c_int),
        ("be_fair", ctypes.c_int),
    ]


def test_who_parks_again_is_first_and_is_handed_what_it_waits_for():
    size, address = ctypes.c_size_t, ctypes.c_void_p
    park = c_function(
        "park", ctypes.c_int, size, *[address] * 4, size, ctypes.c_int64, ctypes.c_int, address
    )
    parked = c_function("parked_count", size, size)
    callback = ctypes.PYFUNCTYPE(size, address, ctypes.POINTER(UnparkResult))
    unpark_one = c_function("unpark_one", size, size, callback, address)
    woken, fair = [], []
    key = id(woken)

    def wait(number, flags):
        park(key, None, None, None, None, 0, 2**63 - 1, flags, None)
        woken.append(number)

    @callback
    def unparked(context, result):
        fair.append(result.contents.be_fair)
        return 0

    again = 8  # FS_FIRST
    waits = [lambda n=n: wait(n, again if n else 0) for n in range(3)]
    with background(waits[0]):
        wait_until(lambda: parked(key) == 1)
        with background(waits[1]):
            wait_until(lambda: parked(key) == 2)
            with background(waits[2]):
                wait_until(lambda: parked(key) == 3)
                for count in (1, 2):
                    assert unpark_one(key, unparked, None) == 1
                    wait_until(lambda count=count: len(woken) == count)
        assert unpark_one(key, unparked, None) == 1
    assert woken[2] == 0 and fair[:2] == [1, 1]


def test_requeue_to_the_same_key_moves_no_waiter():
    size, address = ctypes.c_size_t, ctypes.c_void_p
    choose = ctypes.PYFUNCTYPE(ctypes.c_int, address)(lambda context: 2)
    requeue = c_function("unpark_requeue", size, size, size, size, type(choose), address, address)
    park = c_function(
        "park", ctypes.c_int, size, *[address] * 4, size, ctypes.c_int64, ctypes.c_int, address
    )
    key = id(choose)
    with background(lambda: park(key, None, None, None, None, 0, 2**63 - 1, 0, None)):
        wait_until(lambda: c_function("parked_count", size, size)(key) == 1)
        assert requeue(key, key, 2**31, choose, None, None) == 0
        assert c_function("unpark_all", size, size, size)(key, 0) == 1


def test_who_gives_up_as_it_is_moved_leaves_the_queue_that_it_is_in(core):
    queue, results = core.Queue(), {}
    with background(lambda: results.update({1: queue.park(1, 1, -1)})):
        wait_until(lambda: queue.parked(1) == 1)
        with background(lambda: results.update({2: queue.park(0, 2, 200_000_000)})):
            wait_until(lambda: queue.parked(0) == 1)
            assert queue.move_late(500_000_000) == 1
        assert (queue.parked(0), queue.parked(1)) == (0, 1)
        assert queue.wake_all(1, 5) == 1
    assert results == {1: (core.UNPARKED, 5), 2: (core.TIMED_OUT, 0)}


def test_a_signal_does_not_end_a_wait_without_a_thread_state(core):
    queue, results, handled = core.Queue(), [], []
    old = signal.signal(signal.SIGUSR1, lambda *_: handled.append(1))
    try:
        with background(lambda: results.append(queue.park(0, 1, -1))) as (thread,):
            wait_until(lambda: queue.parked(0) == 1)
            for count in range(1, 4):
                wait_asleep(thread)
                signal.pthread_kill(thread.ident, signal.SIGUSR1)
                wait_until(lambda count=count: len(handled) == count)
            assert queue.parked(0) == 1 and not results
            queue.wake_all(0, 5)
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert results == [(core.UNPARKED, 5)]


# -- keys that share a bucket --------------------------------------------------------------


def bucket_of(address):
    return ((address * 0x9E3779B97F4A7C15) % 2**64) >> 52


def neighbours(block, count, bucket=None):
    """Keys of one bucket; of another one than `bucket`."""
    table = {}
    for key in range(1 << 14):
        table.setdefault(bucket_of(block.address + key), []).append(key)
    keys = next(keys for at, keys in table.items() if len(keys) >= count and at != bucket)
    return keys[:count]


class Crowd:
    """Threads parked on keys of one bucket, and what their queues should be."""

    def __init__(self, core):
        self.core, self.block, self.threads, self.results = core, core.Block(), [], {}
        self.keys = neighbours(self.block, 3)
        self.queues = {key: [] for key in self.keys}

    def park(self, key, ns=-1, first=False):
        number = len(self.threads)
        before = self.block.parked(key)

        def body():
            self.results[number] = self.block.park(key, number, ns, first)

        self.threads.append(threading.Thread(target=body, daemon=True))
        self.threads[number].start()
        wait_until(lambda: self.block.parked(key) == before + 1)
        self.queues[key].insert(0 if first else len(self.queues[key]), number)
        return number

    def wake(self, key):
        number = self.queues[key].pop(0)
        assert self.block.wake_one(key) == bool(self.queues[key])
        self.threads[number].join(30)
        assert self.results[number] == (self.core.UNPARKED, 77), "another one was woken"
        self.check()

    def wait_for_timeout(self, key, number):
        self.threads[number].join(30)
        assert self.results[number][0] == self.core.TIMED_OUT
        self.queues[key].remove(number)
        self.check()

    def check(self):
        for key in self.keys:
            assert self.block.parked(key) == len(self.queues[key])

    def go_home(self):
        for key in self.keys:
            assert self.block.wake_all(key) == len(self.queues[key])
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()


@pytest.mark.parametrize("leaving", range(9))
def test_queues_of_one_bucket_when_anyone_leaves(core, leaving):
    """Three keys with three threads each; the one that gives up is each of them in turn."""
    crowd = Crowd(core)
    short = None
    for i in range(9):
        number = crowd.park(crowd.keys[i % 3], 300_000_000 if i == leaving else -1)
        short = number if i == leaving else short
    crowd.wait_for_timeout(crowd.keys[leaving % 3], short)
    for key in crowd.keys:
        crowd.park(key)
    for key in [*crowd.keys, *reversed(crowd.keys)]:
        crowd.wake(key)
    crowd.go_home()


def test_queues_of_one_bucket_in_any_order(core):
    chance = random.Random(seed := random.randrange(2**32))
    print(f"seed {seed}")
    crowd = Crowd(core)
    for _ in range(150):
        key = chance.choice(crowd.keys)
        if chance.random() < 0.5 and sum(map(len, crowd.queues.values())) < 12:
            crowd.park(key, first=chance.random() < 0.3)
        elif crowd.queues[key]:
            crowd.wake(key)
    crowd.go_home()


def test_who_parks_first_is_woken_first(core):
    crowd = Crowd(core)
    key = crowd.keys[0]
    crowd.park(key)
    crowd.park(key)
    crowd.park(key, first=True)
    for _ in range(3):
        crowd.wake(key)
    crowd.go_home()


def test_waiters_that_move_both_ways_between_two_buckets(core):
    """Both requeues hold both buckets' locks: one order for all, or they wait for each other."""
    block = core.Block()
    a, b = neighbours(block, 2)
    c, d = neighbours(block, 2, bucket_of(block.address + a))
    times = 200_000
    run_threads(2 * [lambda: block.move(a, c, 1, times), lambda: block.move(d, b, 1, times)])


def test_waiters_that_move_both_ways_within_a_bucket(core):
    """There both requeues hold one lock, once."""
    crowd = Crowd(core)
    a, b, c = crowd.keys
    for _ in range(2):
        crowd.park(a)
        crowd.park(b)
    times = 100_000
    moves = [lambda: crowd.block.move(a, b, 1, times), lambda: crowd.block.move(b, a, 1, times)]
    run_threads(2 * moves)
    assert crowd.block.parked(a) + crowd.block.parked(b) == 4
    assert crowd.block.parked(c) == 0
    assert crowd.block.wake_all(a) + crowd.block.wake_all(b) == 4
    for thread in crowd.threads:
        thread.join(30)
        assert not thread.is_alive()


@pytest.mark.parametrize("how", ["typed", "generic", "fenced"])
def test_a_seq_cst_store_is_seen_by_a_later_load(core, how):
    buffers = core.StoreBuffer()
    first, second = run_threads(lambda i: buffers.run(i, 1.5, how), 2)
    assert first[0] == second[0] > 100
    assert first[1] == second[1] == 0


# -- what a word says when nobody waits any more ---------------------------------------------

KINDS = "mutex reader writer semaphore event once condvar call".split()


def waiters(word, count, ns=-1):
    """Threads that wait for it, each parked before the next one comes, and their outcomes."""
    threads, outcomes = [], []
    for _ in range(count):
        before = word.parked
        thread = threading.Thread(target=lambda: outcomes.append(word.wait(ns)), daemon=True)
        thread.start()
        wait_until(lambda before=before: word.parked == before + 1)
        threads.append(thread)
    return threads, outcomes


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_waiter_that_gives_up_leaves_the_word_as_it_was(words, kind):
    word = words.Word(kind)
    before = word.state
    assert word.wait(2_000_000) is False
    assert word.state == before
    threads, outcomes = waiters(word, 2, 1_000_000_000)
    for thread in threads:
        thread.join(30)
    assert outcomes == [False, False]
    assert (word.state, word.parked) == (before, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_waiter_whose_handler_raises_leaves_the_word_as_it_was(words, kind):
    word = words.Word(kind)
    before = word.state

    def interrupt():
        wait_until(lambda: word.parked == 1)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    def handler(*_):
        raise KeyError

    old = signal.signal(signal.SIGUSR1, handler)
    try:
        with background(interrupt), pytest.raises(KeyError):
            word.wait_with_handlers()
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert (word.state, word.parked) == (before, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_waiter_that_gives_up_does_not_take_the_others_along(words, kind):
    word = words.Word(kind)
    threads, outcomes = waiters(word, 1)
    assert word.wait(2_000_000) is False
    assert word.parked == 1
    word.let_go()
    threads[0].join(30)
    assert outcomes == [True]


@pytest.mark.parametrize("kind", KINDS)
def test_a_word_is_clean_when_all_have_been_served(words, kind):
    word = words.Word(kind)
    threads, outcomes = waiters(word, 3)
    for served in range(3):
        if kind != "reader" or served == 0:
            word.let_go()  # one, or all of them at once
        wait_until(lambda served=served: len(outcomes) > served)
    for thread in threads:
        thread.join(30)
    assert outcomes == [True] * 3
    for _ in range(3 if kind == "reader" else 1):
        if kind in ("mutex", "reader", "writer"):
            word.let_go(kind == "reader")
    assert word.state == (1 if kind in ("event", "once", "call") else 0)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "condvar"])
def test_a_waiter_does_not_sleep_on_a_word_that_knows_nothing_of_it(words, kind):
    """Others may come and go between its look at the word and its place in the queue."""
    word = words.Word(kind)
    before = word.state
    outcomes = []
    with background(word.keep_queue, lambda: outcomes.append(word.wait(-1))):
        try:
            wait_until(lambda: word.queue_is_kept and word.state != before)
            announced = word.state
            word.state = before
        finally:
            word.let_queue_go()
        wait_until(lambda: word.parked == 1)
        assert word.state == announced
        word.let_go()
    assert outcomes == [True]


@pytest.mark.parametrize("kind", "mutex reader writer semaphore event condvar".split())
def test_who_is_parked_looks_again_after_a_reset(words, kind):
    word = words.Word(kind)
    threads, outcomes = waiters(word, 1 if kind in ("mutex", "writer") else 2)
    word.reset()
    for thread in threads:
        thread.join(30)
    assert outcomes == [True] * len(threads)
    assert word.parked == 0


@pytest.mark.parametrize("kind", ["semaphore", "event"])
def test_a_reset_that_frees_nothing_forgets_no_waiter(words, kind):
    word = words.Word(kind)
    threads, outcomes = waiters(word, 1)
    word.reset(free=False)
    wait_until(lambda: word.parked == 1 and word.state)
    assert not outcomes
    word.let_go()
    threads[0].join(30)
    assert outcomes == [True]


def test_a_word_without_waiters_is_not_handed_over(words):
    """It may say that somebody is parked, as while a signal handler runs in a wait."""
    parked = {"mutex": 2, "semaphore": 1, "event": 2, "once": 8, "call": 8}
    after = {"mutex": 0, "semaphore": 2, "event": 1, "once": 1, "call": 1}
    for kind, bit in parked.items():
        word = words.Word(kind)
        word.state |= bit
        word.let_go()
        assert word.state == after[kind], kind
    word = words.Word("mutex")
    word.state |= 2
    assert word.unlock_fair() == 0
    assert word.state == 0


def test_a_free_word_that_others_are_parked_on_is_taken(words):
    """And still says that they are."""
    for take in (lambda word: word.try_to_take(), lambda word: word.wait(0)):
        word = words.Word("mutex")
        word.state = 2
        assert take(word)
        assert word.state == 3
        word = words.Word("semaphore")
        word.state = 1
        assert not take(word)
        word.state = 3
        assert take(word)
        assert word.state == 1


# -- C and C++ -------------------------------------------------------------------------------


def test_header_from_c(plain_c):
    assert plain_c.check() == 0
    assert run_threads(lambda i: plain_c.ping_pong(i, 2000), 2) == [2000, 2000]


def test_fair_unlock_and_bump_from_c_hand_over(plain_c):
    assert run_threads(lambda i: plain_c.hand_over(i, 200), 2) == [0, 0]


def test_notifications_from_c_reach_one_or_all(plain_c):
    outcomes = []
    with background(*[lambda: outcomes.append(plain_c.await_notification())] * 4):
        wait_until(lambda: plain_c.waiting_for_notification() == 4)
        first, rest, none = (plain_c.notify(everybody) for everybody in (False, True, True))
    assert (first, rest, none) == ((1, 3), (3, 0), (0, 0))
    assert outcomes == [True] * 4


def test_handler_that_raises_in_a_wait_leaves_the_next_one_due(plain_c):
    seen = []

    def handler(*_):
        raise KeyError

    old = [
        signal.signal(signal.SIGUSR1, handler),
        signal.signal(signal.SIGUSR2, lambda *_: seen.append(1)),
    ]
    try:
        with pytest.raises(KeyError):
            plain_c.wait_after_two_signals(signal.SIGUSR1, signal.SIGUSR2)
        wait_until(lambda: seen)
    finally:
        signal.signal(signal.SIGUSR1, old[0])
        signal.signal(signal.SIGUSR2, old[1])


def test_all_threads_that_sleep_on_a_bucket_lock_get_it(plain_c):
    plain_c.use_bucket_lock("acquire")
    with background(*[lambda: plain_c.use_bucket_lock("both")] * 3) as threads:
        wait_asleep(*threads)
        plain_c.use_bucket_lock("release")


def test_a_bucket_lock_of_another_epoch_is_free(plain_c):
    assert plain_c.take_over_bucket_lock() == 0


def test_once_from_c(plain_c):
    assert run_threads(lambda i: plain_c.call_once(), 8) == [(1, 1)] * 8


def test_waiting_for_an_atomic_from_c(plain_c):
    plain_c.change(0)
    assert plain_c.await_change(1_000_000) == 0
    waiting = [
        threading.Thread(target=plain_c.await_change, args=(30 * 10**9,), daemon=True)
        for _ in range(3)
    ]
    for thread in waiting:
        thread.start()
    time.sleep(0.02)
    plain_c.change(0)  # a notification without a change
    time.sleep(0.02)
    assert all(thread.is_alive() for thread in waiting)
    plain_c.change(7)
    for thread in waiting:
        thread.join(30)
    assert not any(thread.is_alive() for thread in waiting)


def test_a_wait_between_processes_compares_before_it_sleeps(plain_c):
    assert plain_c.sleep_on_another_number() == 0


@pytest.mark.skipif(wait_backend() != "futex", reason="wakes a sleeper of the system's")
def test_a_sleeper_that_is_woken_for_nothing_sleeps_on(plain_c):
    woken = []
    with background(lambda: woken.append(plain_c.sleep_on_word())):
        plain_c.wake("falsely")
        plain_c.wake("truly")
    assert woken == [True]


def test_objects_from_c(plain_c):
    from fastsync import AtomicI64, AtomicU64, FairMutex, Mutex

    mutex, number = Mutex(None), AtomicI64(0)
    run_threads(4 * [lambda: plain_c.add_with(mutex, number, 20_000)])
    assert number.load() == 80_000
    with mutex:
        pass
    for wrong in [(FairMutex(None), number), (mutex, AtomicU64(0)), (None, number), (mutex, 1)]:
        with pytest.raises(TypeError):
            plain_c.add_with(*wrong, 1)


def test_header_from_cpp(plain_cpp):
    assert plain_cpp.check() == 0
    assert max(run_threads(lambda i: plain_cpp.push(i * 5000, 5000), 4)) == 20_000


def test_header_with_pybind11(user):
    pytest.importorskip("pybind11")
    tally = user("pybind", "fs_user_pybind").Tally()
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        assert not sys._is_gil_enabled()
    assert not tally.wait_for(1, 0.001)
    each = 20_000
    work = [lambda: tally.wait_for(4 * each, 30.0)]
    work += [lambda i=i: tally.add(i % 2, each) for i in range(4)]
    assert run_threads(work)[0]
    assert (tally.count(0), tally.count(1)) == (2 * each, 2 * each)


# -- the example -----------------------------------------------------------------------------


def test_the_example(tmp_path):
    shutil.copytree(SOURCES.parents[1] / "examples" / "cython_histogram", tmp_path / "example")
    run_build("setup.py", "-q", "build_ext", "--inplace", cwd=tmp_path / "example")
    assert (
        run_build("demo.py", cwd=tmp_path / "example")
        == "800000 values in 8 threads, mean 0.5003\n"
    )


# -- other ways to build ---------------------------------------------------------------------


@pytest.mark.slow
def test_meson_python(tmp_path):
    pytest.importorskip("mesonpy")
    scripts = Path(sys.executable).parent
    install(
        SOURCES / "meson",
        tmp_path / "site",
        tmp_path,
        PATH=f"{scripts}{os.pathsep}{os.environ['PATH']}",
    )
    out = run_build(
        "-c", "import fs_user_meson; print(fs_user_meson.count(4, 1000))", cwd=tmp_path / "site"
    )
    assert out.strip() == "4000"


@pytest.mark.slow
def test_cimport_from_an_editable_install(tmp_path):
    """A checkout with the modules built in place, as an editable install has it."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "fastsync", checkout / "fastsync")
    if (ROOT / "build").exists():  # with what is compiled already, times and all
        ignored = shutil.ignore_patterns("site", "lib*", "bdist*", "*.log", "*-summary*")
        shutil.copytree(ROOT / "build", checkout / "build", ignore=ignored)
    for name in ["setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"]:
        if (ROOT / name).exists():
            shutil.copy2(ROOT / name, checkout)
    environment = tmp_path / "venv"
    run_build("-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    if not python.exists():
        pytest.skip("no POSIX layout")
    own = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('platlib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    tools = Path(Cython.__file__).parent.parent
    # The tools come from this environment, fastsync from the editable install, found first.
    run_build(
        *("-m", "pip", "--python", python, "install", "-q", "--no-build-isolation", "--no-deps"),
        *("--no-index", "--disable-pip-version-check", "-e", checkout),
        PYTHONPATH=tools,
    )
    assert list(Path(own).glob("*editable*"))
    shutil.copytree(SOURCES / "two", tmp_path / "two")
    done = subprocess.run(
        [python, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=tmp_path / "two",
        env=os.environ | {"PYTHONPATH": tool_path(tools, tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    check = "import fastsync, fs_user_two.borrower; print(fastsync.__file__)"
    out = subprocess.run(
        [python, "-c", check], cwd=tmp_path / "two", capture_output=True, text=True
    )
    assert out.returncode == 0, out.stderr
    assert out.stdout.strip() == str(checkout / "fastsync" / "__init__.py")


def tool_path(tools, folder):
    """A folder with Cython and setuptools, and without this environment's fastsync."""
    path = folder / "tools"
    path.mkdir()
    for entry in tools.iterdir():
        if not entry.name.startswith("fastsync"):
            (path / entry.name).symlink_to(entry)
    return str(path)
