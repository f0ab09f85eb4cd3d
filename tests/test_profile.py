"""The contention profile: programs whose waits are known, its formats, its command line."""

import gzip
import json
import multiprocessing
import os
import random
import sys
import threading
import time

import pytest
from profiles import JOIN, named, run_all, stopped  # noqa: F401

import fastsync.threading as drop_in
from fastsync import FairMutex, LazyLock, Mutex, ReentrantMutex, RwLock, profile, waiters


def wait_until_waited_for(kind):
    """Poll until the profile says that a thread waits for a lock of this kind."""
    deadline = time.monotonic() + JOIN
    while not any(row["going_on"] and row["kind"] == kind for row in profile.now().locks()):
        assert time.monotonic() < deadline
        time.sleep(0.001)


class Contest:
    """`keep` holds the lock until a thread waits for it, and then for `seconds` more; what the
    waiter waited it measures itself."""

    def __init__(self, lock, seconds, rounds):
        self.lock, self.seconds, self.rounds = lock, seconds, rounds
        self.known_as = "RLock" if isinstance(lock, drop_in.Condition) else type(lock).__name__
        self.measured = 0.0
        self.held = drop_in.Semaphore(0)
        self.taken = drop_in.Semaphore(0)

    def keep(self):
        for _ in range(self.rounds):
            with self.lock:
                self.held.release()
                wait_until_waited_for(self.known_as)
                time.sleep(self.seconds)
            self.taken.acquire()

    def wait(self):
        for _ in range(self.rounds):
            self.held.acquire()
            begin = time.perf_counter()
            with self.lock:
                self.measured += time.perf_counter() - begin
            self.taken.release()


LOCKS = [drop_in.Lock, drop_in.RLock, drop_in.Condition, Mutex, FairMutex, ReentrantMutex]


@pytest.mark.parametrize("kind", LOCKS, ids=lambda kind: kind.__name__)
def test_lock_holder_waiter_and_time(kind):
    with profile.record() as recording:
        contest = Contest(kind(), 0.02, 4)
        run_all(named(contest.keep, "keeper"), named(contest.wait, "waiter"))
    known_as = "RLock" if kind is drop_in.Condition else kind.__name__
    (row,) = [row for row in recording.recording.locks() if row["kind"] == known_as]
    assert not row["work"]
    assert row["waits"] in (4, 5)  # a fifth when the lock is contended on the way out
    assert contest.rounds * contest.seconds <= row["total"]
    assert row["longest"] >= row["p50"] > 0
    assert row["made"][0] == __file__
    site, threads, _, share = row["waiting"][0]
    assert (site[2], threads) == ("wait", ["waiter"])
    assert share > 0.9
    site, threads, _, share = row["holding"][0]
    assert (site[2], threads) == ("keep", ["keeper"])
    assert share > 0.9
    assert row["pairs"][0][:2] == ("keeper", "waiter")
    # Each wait is charged to those who made it last, and to nobody else.
    assert sum(place[2] for place in row["holding"]) == pytest.approx(row["total"], rel=0.01)


def test_readers_and_writers():
    held = threading.Event()

    def write():
        with rw.write():
            held.set()
            wait_until_waited_for("RwLock")
            time.sleep(0.02)

    def read():
        held.wait()
        with rw.read():
            pass

    with profile.record() as recording:
        rw = RwLock()
        run_all(named(write, "writer"), named(read, "reader"))
    (row,) = [row for row in recording.recording.locks() if row["kind"] == "RwLock"]
    assert row["waiting"][0][1] == ["reader"]
    assert row["holding"][0][1] == ["writer"]
    assert row["total"] >= 0.02


def test_initialization_is_waited_for():
    begun = threading.Event()

    def make():
        begun.set()
        wait_until_waited_for("LazyLock")
        return 1

    with profile.record() as recording:
        lazy = LazyLock(make)

        def second():
            begun.wait()
            assert lazy.force() == 1

        run_all(named(lazy.force, "maker"), named(second, "second"))
    rows = [row for row in recording.recording.locks() if row["kind"] == "LazyLock"]
    assert [row["waiting"][0][1] for row in rows] == [["second"]]
    assert rows[0]["holding"][0][1] == ["maker"]


def test_work_is_told_apart(wait_until):
    with profile.record() as recording:
        event, condition, permits = drop_in.Event(), drop_in.Condition(), drop_in.Semaphore(0)

        def consume():
            event.wait()
            permits.acquire()
            with condition:
                condition.wait()

        def produce():
            wait_until(lambda: waiters(event))
            event.set()
            wait_until(lambda: waiters(permits))
            permits.release()
            wait_until(lambda: waiters(condition))
            with condition:
                condition.notify()

        run_all(named(consume, "consumer"), named(produce, "producer"))
    rows = {
        row["kind"]: row
        for row in recording.recording.locks()
        if row["waiting"] and row["waiting"][0][1] == ["consumer"] and row["work"]
    }
    assert {"Event", "Semaphore", "Condition"} <= set(rows)
    assert rows["Event"]["holding"][0][1] == ["producer"]


def test_waits_that_have_not_ended_are_reported(wait_until):
    with profile.record() as recording:
        lock = profile.name(drop_in.Lock(), "cache")
        lock.acquire()
        thread = named(lock.acquire, "stuck")
        thread.start()

        def found():
            return [row for row in recording._current().locks() if row["going_on"]]

        (row,) = wait_until(found)
        assert row["name"] == "cache"
        assert row["waiting"][0][1] == ["stuck"]
        assert "still waiting" in recording.report()
        lock.release()
        thread.join(JOIN)
    assert "Lock 'cache'" in recording.report().splitlines()[0]


def test_totals_do_not_depend_on_the_rate():
    """The weights make up for what is not kept: by drawing, not by timing."""
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    durations = [rng.uniform(0.0005, 0.003) for _ in range(300)]
    totals = {}
    for rate in (1e-6, 10e-3):
        with profile.record(rate=rate) as recording:
            contest = Contest(drop_in.Lock(), 0, len(durations))
            times = iter(durations)

            def keep(contest=contest, times=times):
                for _ in range(contest.rounds):
                    with contest.lock:
                        contest.held.release()
                        time.sleep(next(times))
                    contest.taken.acquire()

            run_all(named(keep, "keeper"), named(contest.wait, "waiter"))
        (row,) = [row for row in recording.recording.locks() if row["kind"] == "Lock"]
        totals[rate] = row["total"] / contest.measured
    assert 0.5 < totals[1e-6]
    assert 0.4 < totals[10e-3] / totals[1e-6] < 2.0  # some fifty of the waits were kept


def test_many_releases_share_one_wait():
    lock = drop_in.Lock()
    with profile.record() as recording:
        lock = drop_in.Lock()

        gate = threading.Barrier(6)

        def work():
            gate.wait(JOIN)
            for _ in range(60):
                with lock:
                    time.sleep(0.0005)

        run_all(*[named(work, f"t{index}") for index in range(6)])
    (row,) = [row for row in recording.recording.locks() if row["kind"] == "Lock"]
    assert sum(place[2] for place in row["holding"]) == pytest.approx(row["total"], rel=0.02)
    assert row["holding"][0][3] > 0.95
    assert set(row["holding"][0][1]) == {f"t{index}" for index in range(6)}


def test_nothing_waited():
    with profile.record() as recording:
        lock = drop_in.Lock()
        for _ in range(1000):
            with lock:
                pass
    assert recording.report().startswith("No thread waited for a lock in ")
    assert recording.recording.data["waits"] == []


def test_start_stop_and_nonsense():
    with pytest.raises(RuntimeError):
        profile.stop()
    for rate in (0, -1, 1e-12):
        with pytest.raises(ValueError):
            profile.start(rate)
    profile.start()
    assert profile.running()
    with pytest.raises(RuntimeError), profile.record():
        pass
    recording = profile.stop()
    assert not profile.running()
    assert recording.data["pids"] == [os.getpid()]
    with pytest.raises(ValueError):
        recording.save("x.unknown")
    with pytest.raises(ValueError):
        recording.save("x.json", "unknown")
    with pytest.raises(ValueError):
        profile.Recording({})


# -- formats ---------------------------------------------------------------------


@pytest.fixture
def recorded():
    with profile.record() as recording:
        contest = Contest(profile.name(drop_in.Lock(), "a;b</script>"), 0.005, 3)
        run_all(named(contest.keep, "keeper"), named(contest.wait, "waiter"))
    return recording.recording


def test_json_is_read_again(recorded, tmp_path):
    recorded.save(tmp_path / "r.json")
    again = profile.load(tmp_path / "r.json")
    assert again.report() == recorded.report()
    (tmp_path / "other.json").write_text('{"format": "x"}')
    with pytest.raises(ValueError):
        profile.load(tmp_path / "other.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError):
        profile.load(tmp_path / "list.json")


def test_collapsed(recorded, tmp_path):
    recorded.save(tmp_path / "r.collapsed")
    total = 0
    for line in (tmp_path / "r.collapsed").read_text().splitlines():
        stack, value = line.rsplit(" ", 1)
        assert ";" in stack
        total += int(value)
    assert total == pytest.approx(sum(row["total"] for row in recorded.locks()) * 1e6, rel=0.01)


def test_speedscope(recorded, tmp_path):
    recorded.save(tmp_path / "r.speedscope.json")
    document = json.loads((tmp_path / "r.speedscope.json").read_text())
    frames = document["shared"]["frames"]
    assert document["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    assert all(isinstance(frame["name"], str) for frame in frames)
    for one in document["profiles"]:
        assert one["type"] == "sampled"
        assert len(one["samples"]) == len(one["weights"]) > 0
        assert all(0 <= index < len(frames) for sample in one["samples"] for index in sample)
        assert one["endValue"] == sum(one["weights"])


def fields(data):
    """Decode a protobuf message: [(field, value), ...]."""
    result = []
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            result.append((key >> 3, varint()))
        else:
            assert key & 7 == 2
            length = varint()
            result.append((key >> 3, data[at : at + length]))
            at += length
    return result


def test_pprof(recorded, tmp_path):
    recorded.save(tmp_path / "r.pb.gz")
    message = fields(gzip.decompress((tmp_path / "r.pb.gz").read_bytes()))
    strings = [value.decode() for field, value in message if field == 6]
    assert strings[0] == ""
    assert {"contentions", "delay", "nanoseconds", "waiter"} <= set(strings)
    locations = {dict(fields(value))[1] for field, value in message if field == 4}
    functions = {dict(fields(value))[1] for field, value in message if field == 5}
    assert functions
    samples = [fields(value) for field, value in message if field == 2]
    assert len(samples) == len(recorded.data["waits"])
    delays = 0
    for sample in samples:
        (stack,) = [value for field, value in sample if field == 1]
        assert {value for _, value in fields_packed(stack)} <= locations
        (values,) = [value for field, value in sample if field == 2]
        delays += list(fields_packed(values))[1][1]
    assert delays == pytest.approx(sum(row["total"] for row in recorded.locks()) * 1e9, rel=0.01)


def fields_packed(data):
    value = shift = count = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield count, value
            value = shift = 0
            count += 1


# -- the command line --------------------------------------------------------------

APP = """
import multiprocessing, sys, threading, time
lock = threading.Lock()

def work():
    for _ in range(5):
        with lock:
            time.sleep(0.005)

def crowd():
    threads = [threading.Thread(target=work, name=f"worker{i}") for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

if __name__ == "__main__":
    crowd()
    for method in sys.argv[1:]:
        process = multiprocessing.get_context(method).Process(target=crowd)
        process.start()
        process.join()
    print("done", sys.argv[1:])
"""


def test_command_line(run_python, tmp_path):
    app = tmp_path / "app.py"
    app.write_text(APP)
    out = tmp_path / "r.json"
    methods = ["spawn"] if sys.platform == "win32" else ["spawn", "fork"]
    methods = [method for method in methods if method in multiprocessing.get_all_start_methods()]
    done = run_python("-m", "fastsync", "profile", "--output", out, app, *methods)
    assert done.stdout.split()[0] == "done"
    first = done.stderr.split("fastsync: wrote")[1].splitlines()[1]
    assert "Lock made at" in first
    assert "app.py:3" in first
    assert "app.py:7 in work" in first
    recording = profile.load(out)
    assert len(recording.data["pids"]) == 1 + len(methods)
    (row,) = [row for row in recording.locks() if row["kind"] == "Lock"]
    assert row["instances"] == 1 + len(methods)
    text = run_python("-m", "fastsync", "profile-report", out).stdout
    assert text == recording.report()
    run_python("-m", "fastsync", "profile-report", "--output", tmp_path / "r.pb.gz", out)
    assert gzip.decompress((tmp_path / "r.pb.gz").read_bytes())


def test_no_children(run_python, tmp_path):
    app, out = tmp_path / "app.py", tmp_path / "r.json"
    app.write_text(APP)
    run_python("-m", "fastsync", "profile", "--no-children", "--output", out, app, "spawn")
    recording = profile.load(out)
    assert len(recording.data["pids"]) == 1
    (row,) = [row for row in recording.locks() if row["kind"] == "Lock"]
    assert row["instances"] == 1


SIGNALLED = """
import multiprocessing, os, signal, sys, threading, time
import fastsync

def contend(name):
    lock = threading.Lock()
    def other():
        with lock:
            pass
    with lock:
        thread = threading.Thread(target=other, name=name)
        thread.start()
        while not fastsync.waiters(lock):
            time.sleep(0.001)
        time.sleep(0.001)
    thread.join()

if __name__ == "__main__":
    contend("before")
    for turn in ("first", "second"):
        os.kill(os.getpid(), signal.SIGUSR1)
        contend(turn)
        spawn = multiprocessing.get_context("spawn")
        process = spawn.Process(target=contend, args=["child of " + turn])
        process.start()
        process.join()
        os.kill(os.getpid(), signal.SIGUSR1)
        os.rename(sys.argv[1], turn + ".json")
        contend("after " + turn)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals here")
def test_a_signal_begins_and_ends_a_recording(run_python, tmp_path):
    """Nothing outside of it is in its report, nor what an earlier one had."""
    app = tmp_path / "app.py"
    app.write_text(SIGNALLED)
    options = ["--signal", "USR1", "--output", "r.json"]
    done = run_python("-m", "fastsync", "profile", *options, app, "r.json", cwd=tmp_path)
    assert done.stderr.count("fastsync: wrote r.json") == 2
    for turn in ("first", "second"):
        recording = profile.load(tmp_path / f"{turn}.json")
        waiters = {
            who
            for row in recording.locks()
            if row["kind"] == "Lock"
            for _, threads, *_ in row["waiting"]
            for who in threads
        }
        assert waiters <= {turn, "child of " + turn}
        assert turn in waiters or "child of " + turn in waiters
        assert len(recording.data["pids"]) == 2


def test_joins_are_waits_for_work():
    with profile.record() as recording:
        thread = threading.Thread(target=wait_until_waited_for, args=["Thread.join"])
        thread.start()
        thread.join()
        thread.join(1.0)  # it has ended: no wait
    (row,) = [row for row in recording.recording.locks() if row["kind"] == "Thread.join"]
    assert row["work"]
    assert row["waits"] == 1
    assert row["total"] > 0
    assert row["waiting"][0][0][2] == "test_joins_are_waits_for_work"
    assert recording.report().startswith("No thread waited for a lock in ")
    assert threading.Thread.join.__code__.co_filename == threading.__file__
