"""Arc and Weak: counts, release, moving out, and their races."""

import copy
import ctypes
import gc
import pickle
import random
import sys
import threading
import time
import weakref

import pytest
from conftest import run_threads, wait_until

import fastsync
from fastsync import Arc, Weak


def test_counts():
    a = Arc("v")
    assert (a.strong_count(), a.weak_count()) == (1, 0)
    b, w = a.clone(), a.downgrade()
    assert (b.strong_count(), b.weak_count()) == (2, 1)
    assert (w.strong_count(), w.weak_count()) == (2, 1)
    v = w.clone()
    assert a.weak_count() == 2
    v.drop()
    assert a.weak_count() == 1
    a.drop()
    assert b.strong_count() == 1
    c = w.upgrade()
    assert b.strong_count() == 2
    assert c.value == "v"
    b.drop()
    c.drop()
    assert w.upgrade() is None
    assert (w.strong_count(), w.weak_count()) == (0, 0)
    w.drop()


def counts_of(arc):
    """Both counts of its value, as a word that can be written: no test makes 2**32 handles."""
    [shared] = [thing for thing in gc.get_referents(arc) if type(thing).__name__ == "_Shared"]
    wanted = (arc.strong_count() << 32) + arc.weak_count()
    words = [
        ctypes.c_int64.from_address(at)
        for at in range(id(shared), id(shared) + type(shared).__basicsize__, 8)
    ]
    [word] = [word for word in words if word.value == wanted]
    return word


def test_one_handle_more_than_can_be_counted():
    arcs, weaks = [Arc("v")], []
    arcs += [arcs[0].clone() for _ in range(12344)]
    weaks += [arcs[0].downgrade() for _ in range(4567)]  # numbers that no other field has
    word = counts_of(arcs[0])
    before = word.value
    most_strong, most_weak = (2**31 - 2) << 32, 2**32 - 1
    refused = [
        (most_strong + 4567, [arcs[0].clone, weaks[0].upgrade]),
        ((12345 << 32) + most_weak, [arcs[0].downgrade, weaks[0].clone]),
    ]
    try:
        for value, calls in refused:
            for call in calls:
                word.value = value
                with pytest.raises(OverflowError):
                    call()
                assert word.value == value
        word.value = (12345 << 32) + most_weak - 1
        last = weaks[0].clone()
        assert word.value == (12345 << 32) + most_weak
        assert (last.strong_count(), last.weak_count()) == (12345, most_weak)
        last.drop()
    finally:
        word.value = before
    assert (arcs[0].strong_count(), arcs[0].weak_count()) == (12345, 4567)


def test_garbage_handles_are_released():
    a = Arc([])
    b = a.clone()
    w = a.downgrade()
    del b, w
    gc.collect()
    assert (a.strong_count(), a.weak_count()) == (1, 0)


def test_on_drop_runs_once_when_the_last_goes():
    dropped = []
    a = Arc("value", on_drop=dropped.append)
    b = a.clone()
    a.drop()
    a.drop()
    assert dropped == []
    with b as c:
        assert c is b
        assert c.value == "value"
    assert dropped == ["value"]
    b.drop()
    with pytest.raises(ReferenceError), b:
        pass
    assert dropped == ["value"]


def test_release_in_an_exception():
    dropped = []
    with pytest.raises(ZeroDivisionError), Arc(1, dropped.append) as a:
        a.drop()  # the end of the block then does nothing
        assert dropped == [1]
        raise ZeroDivisionError
    assert dropped == [1]


def test_value_is_released_at_once():
    class Value:
        pass

    value = Value()
    seen = weakref.ref(value)
    a = Arc(value)
    del value
    assert seen() is not None
    a.drop()
    assert seen() is None


def test_a_released_handle_refuses_everything_else():
    a, w = Arc(1), Weak()
    other, weak = Arc(2), Weak()
    a.drop()
    w.drop()
    for name in (
        "clone",
        "strong_count",
        "weak_count",
        "downgrade",
        "try_unwrap",
        "into_inner",
        "unwrap_or_clone",
        "get_mut",
        "make_mut",
        "__enter__",
    ):
        with pytest.raises(ReferenceError, match="has been released"):
            getattr(a, name)()
    with pytest.raises(ReferenceError):
        _ = a.value
    with pytest.raises(ReferenceError):
        a.ptr_eq(other)
    with pytest.raises(ReferenceError):
        other.ptr_eq(a)
    for name in ("upgrade", "clone", "strong_count", "weak_count", "__enter__"):
        with pytest.raises(ReferenceError, match="has been released"):
            getattr(w, name)()
    with pytest.raises(ReferenceError):
        weak.ptr_eq(w)
    a.drop()
    w.drop()
    a.__exit__(None, None, None)
    assert repr(a) == "<released Arc>"
    assert repr(w) == "<released Weak>"


def test_moving_out():
    dropped = []
    a = Arc([1], dropped.append)
    b = a.clone()
    assert a.try_unwrap() == (False, a)
    b.drop()
    w = a.downgrade()
    assert a.try_unwrap() == (True, [1])
    with pytest.raises(ReferenceError):
        _ = a.value
    assert w.upgrade() is None

    a = Arc([2], dropped.append)
    b = a.clone()
    assert a.into_inner() is None
    assert b.into_inner() == [2]

    a = Arc([3], dropped.append)
    value = a.value
    assert a.unwrap_or_clone() is value
    assert dropped == [], "moved out is not dropped"

    a = Arc([4], dropped.append)
    b = a.clone()
    copied = a.unwrap_or_clone()
    assert copied == b.value
    assert copied is not b.value
    assert dropped == []
    b.drop()
    assert dropped == [[4]]


@pytest.mark.parametrize("method", ["try_unwrap", "into_inner", "unwrap_or_clone"])
@pytest.mark.parametrize("others", [False, True])
def test_moving_out_releases_the_handle(method, others):
    a = Arc([1])
    b = a.clone() if others else None
    getattr(a, method)()
    released = not (others and method == "try_unwrap")
    assert (repr(a) == "<released Arc>") == released
    if released:
        with pytest.raises(ReferenceError):
            a.strong_count()
    if others:
        assert b.strong_count() == 2 - released


def test_what_on_drop_returns_is_not_kept():
    class Result:
        pass

    seen = []

    def on_drop(value):
        result = Result()
        seen.append(weakref.ref(result))
        return result

    Arc(1, on_drop).drop()
    assert seen[0]() is None


def test_get_mut():
    a = Arc([1])
    assert a.get_mut() is a.value
    b = a.clone()
    assert a.get_mut() is None
    b.drop()
    w = a.downgrade()
    assert a.get_mut() is None
    w.drop()
    assert a.get_mut() is a.value


def test_make_mut():
    dropped = []
    a = Arc([1], dropped.append)
    assert a.make_mut() is a.value  # alone: in place

    b = a.clone()
    mine = a.make_mut()  # shared: a copy
    assert mine == [1]
    assert mine is a.value
    assert mine is not b.value
    assert not a.ptr_eq(b)
    assert a.strong_count() == b.strong_count() == 1
    mine.append(2)
    assert b.value == [1]
    b.drop()
    assert dropped == [[1]]

    w = a.downgrade()
    value = a.value
    assert a.make_mut() is value  # only Weaks left: they are cut off
    assert w.upgrade() is None
    assert a.weak_count() == 0
    a.drop()
    assert dropped == [[1], [1, 2]]


def test_make_mut_releases_what_the_others_dropped_while_it_copied():
    class Value:
        def __copy__(self):
            others.drop()
            return Value()

    dropped = []
    value = Value()
    a = Arc(value, dropped.append)
    others = a.clone()
    w = a.downgrade()
    mine = a.make_mut()
    assert mine is a.value and mine is not value
    assert dropped == [value]
    assert w.upgrade() is None
    assert w.strong_count() == 0


def test_make_mut_of_a_handle_that_is_released_while_it_copies():
    class Value:
        def __copy__(self):
            a.drop()
            copies.append(Value())
            return copies[0]

    dropped, copies = [], []
    value = Value()
    a = Arc(value, dropped.append)
    b = a.clone()
    with pytest.raises(ReferenceError):
        a.make_mut()
    assert repr(a) == "<released Arc>"
    assert dropped == copies
    assert b.strong_count() == 1
    b.drop()
    assert dropped == [*copies, value]


def test_copying_may_fail():
    class Stubborn:
        def __copy__(self):
            raise ZeroDivisionError

    a = Arc(Stubborn())
    b = a.clone()
    for name in ("make_mut", "unwrap_or_clone"):
        with pytest.raises(ZeroDivisionError):
            getattr(a, name)()
        assert a.ptr_eq(b)
        assert a.strong_count() == 2


def test_ptr_eq():
    x = []
    a, b = Arc(x), Arc(x)
    assert a.ptr_eq(a.clone())
    assert not a.ptr_eq(b)
    assert a.downgrade().ptr_eq(a.downgrade())
    assert not a.downgrade().ptr_eq(b.downgrade())
    assert Weak().ptr_eq(Weak())
    assert a != a.clone(), "comparison is by identity"
    for bad in (None, x, a.downgrade()):
        with pytest.raises(TypeError):
            a.ptr_eq(bad)


def test_new_cyclic():
    def make(w):
        assert w.upgrade() is None
        assert w.strong_count() == 0
        return {"me": w, "upgrade": w.upgrade()}

    a = Arc.new_cyclic(make)
    assert a.weak_count() == 1
    assert a.value["upgrade"] is None
    with a.value["me"].upgrade() as b:
        assert b.ptr_eq(a)
    w = a.downgrade()
    a.drop()
    assert w.upgrade() is None

    a = Arc.new_cyclic(lambda w: 5)
    assert (a.strong_count(), a.weak_count(), a.value) == (1, 0, 5)
    kept = []
    a = Arc.new_cyclic(lambda w: kept.extend([w.clone(), w]))
    assert a.weak_count() == 2
    dropped = []
    with pytest.raises(ZeroDivisionError):
        Arc.new_cyclic(lambda w: kept.append(w) or 1 // 0, dropped.append)
    assert kept[-1].upgrade() is None
    assert dropped == []


def test_weak_of_nothing():
    w = Weak()
    assert w.upgrade() is None
    assert (w.strong_count(), w.weak_count()) == (0, 0)
    assert w.clone().upgrade() is None
    with w as same:
        assert same is w
    assert repr(w) == "<released Weak>"
    assert repr(Weak()) == "(Weak)"
    a = Arc(1)
    with a.downgrade():
        assert a.weak_count() == 1
    assert a.weak_count() == 0


def test_errors_of_on_drop_are_unraisable(monkeypatch):
    caught = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: caught.append(args.exc_type))

    def bad(value):
        raise ZeroDivisionError

    Arc(1, bad).drop()
    assert caught == [ZeroDivisionError]
    with Arc(1, bad):
        pass
    assert caught == [ZeroDivisionError] * 2


def test_on_drop_may_use_handles():
    log = []

    def on_drop(value):
        log.append((value, w.upgrade(), w.strong_count()))

    a = Arc("v", on_drop)
    w = a.downgrade()
    a.drop()
    assert log == [("v", None, 0)]


def test_cycles_are_collected_and_on_drop_runs():
    dropped = []
    value = {}
    value["self"] = Arc(value, dropped.append)
    del value

    def collected():
        gc.collect()
        return dropped

    wait_until(collected)
    assert len(dropped) == 1
    with pytest.raises(ReferenceError):
        _ = dropped[0]["self"].value


def test_cycle_through_on_drop_is_collected():
    dropped = []

    class OnDrop:
        def __call__(self, value):
            dropped.append(value)

    on_drop = OnDrop()
    on_drop.arc = Arc("v", on_drop)
    gone = weakref.ref(on_drop)
    del on_drop

    def collected():
        gc.collect()
        return gone() is None

    wait_until(collected)
    assert dropped == ["v"]


def test_attributes_reach_the_value_only_through_value():
    a = Arc([1, 2])
    with pytest.raises(AttributeError):
        a.append(3)
    with pytest.raises(AttributeError):
        a.value = 5
    assert repr(a) == "Arc([1, 2])"
    assert Arc[int].__origin__ is Arc
    assert Weak[int].__origin__ is Weak
    for x in (a, a.downgrade()):
        for copier in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="cannot pickle"):
                copier(x)
        with pytest.raises(TypeError):
            type("Sub", (type(x),), {})
    with pytest.raises(TypeError):
        Arc()


def test_init_again_releases_first():
    dropped = []
    a = Arc(1, dropped.append)
    a.__init__(2, dropped.append)
    assert dropped == [1]
    assert a.value == 2
    a.drop()
    assert dropped == [1, 2]


# -- races -------------------------------------------------------------------------


def test_clones_and_drops_from_many_threads():
    dropped = []
    for _ in range(20):
        a = Arc(object(), dropped.append)
        handles = [a.clone() for _ in range(6)]
        a.drop()

        def work(i, handles=handles):
            with handles[i] as mine:
                for _ in range(50):
                    with mine.clone() as other:
                        assert other.ptr_eq(mine)
                        w = other.downgrade()
                        with w.upgrade() as third:
                            assert third.value is mine.value
                        w.drop()

        dropped.clear()
        run_threads(work, 6)
        assert len(dropped) == 1


@pytest.mark.parametrize("name", ["into_inner", "try_unwrap", "drop"])
def test_one_handle_raced_for_is_taken_once(name):
    for _ in range(100):
        dropped = []
        a = Arc("v", dropped.append)

        def race(_, a=a):
            try:
                return getattr(a, name)()
            except ReferenceError:
                return "late"

        results = run_threads(race, 4)
        if name == "drop":
            assert dropped == ["v"]
        else:
            won = [r for r in results if r in ("v", (True, "v"))]
            assert len(won) == 1
            assert dropped == []


def test_into_inner_gives_the_value_to_exactly_one():
    for _ in range(100):
        a = Arc("v")
        handles = [a, *[a.clone() for _ in range(4)]]
        results = run_threads([handle.into_inner for handle in handles])
        assert sorted(results, key=str) == [None] * 4 + ["v"]


def test_upgrade_never_revives():
    for _ in range(100):
        dropped = []
        a = Arc("v", dropped.append)
        w = a.downgrade()

        def upgrade(w=w, dropped=dropped):
            seen = []
            while (b := w.upgrade()) is not None:
                seen.append(b.value)
                assert dropped == []
                b.drop()
            return seen

        results = run_threads([a.drop, upgrade, upgrade])
        assert dropped == ["v"]
        assert set(results[1] + results[2]) <= {"v"}
        assert w.upgrade() is None


def test_get_mut_against_downgrade():
    # Rust's test_weak_count_locked: the lock of get_mut is never seen as a count
    a = Arc([1])
    stop = fastsync.AtomicBool(False)

    def look():
        for _ in range(3000):
            a.get_mut()
        stop.store(True)

    def count():
        while not stop.load():
            assert a.weak_count() in (0, 1)
            w = a.downgrade()
            assert w.upgrade().value == [1]
            w.drop()

    run_threads([look, count])
    gc.collect()
    assert a.weak_count() == 0
    assert a.get_mut() is a.value, "the count is 0 indeed, and not locked"


def test_a_handle_that_is_released_while_others_use_it():
    # a use that finds the handle released, whenever it looks, says so
    rounds = 300
    handles = [Arc(i) for i in range(rounds)]
    using = fastsync.AtomicI64(-1)

    def use():
        late = 0
        for i, handle in enumerate(handles):
            using.store(i)
            try:
                while True:
                    handle.strong_count()
            except ReferenceError:
                late += 1
        return late

    def release():
        for i, handle in enumerate(handles):
            while using.load() != i:
                time.sleep(0)
            for _ in range(i % 7):
                using.load()
            handle.drop()

    assert run_threads([use, release])[0] == rounds


def test_on_drop_must_be_callable():
    arc = Arc(1)
    for call in [lambda: Arc(1, on_drop=5), lambda: arc.__init__(2, 5)]:
        with pytest.raises(TypeError, match="on_drop"):
            call()
    assert arc.value == 1


# -- threads that share a handle: not as told, but no count may be lost ------------------


class Value:
    """Tells on_drop's calls apart, and how many values live."""

    alive = fastsync.AtomicI64(0)

    def __init__(self):
        Value.alive.fetch_add(1)

    def __copy__(self):
        return Value()

    def __del__(self):
        Value.alive.fetch_sub(1)


def shared_uses(arc, rng):
    """Something that any thread may do with a handle that others use."""
    choice = rng.randrange(9)
    if choice == 0:
        arc.make_mut()
    elif choice == 1:
        arc.clone().drop()
    elif choice == 2:
        arc.downgrade().upgrade().drop()
    elif choice == 3:
        assert isinstance(arc.value, Value)
    elif choice == 4:
        assert arc.strong_count() >= 1
    elif choice == 5:
        assert arc.weak_count() >= 0
    elif choice == 6:
        arc.downgrade().drop()
    elif choice == 7:
        arc.get_mut()
    else:
        repr(arc)


@pytest.mark.parametrize("end", ["drop", "into_inner", "try_unwrap", "unwrap_or_clone", "init"])
def test_a_handle_that_threads_share_and_end(end):
    # on_drop is called exactly once for each value that no caller got, whatever they do at once
    seed = random.randrange(2**32)
    print("seed", seed)
    rounds, threads = 150, 3
    made = [Arc(Value(), None) for _ in range(rounds)]
    dropped = fastsync.AtomicI64(0)
    got = fastsync.AtomicI64(0)
    copies = fastsync.AtomicI64(0)

    class Noted(Value):
        def __copy__(self):
            copies.fetch_add(1)
            return Noted()

    def on_drop(value):
        assert type(value) is Noted
        dropped.fetch_add(1)

    made = [Arc(Noted(), on_drop) for _ in range(rounds)]
    total = fastsync.AtomicI64(rounds)
    gate = threading.Barrier(threads)

    def work(i):
        rng = random.Random(seed + i)
        for arc in made:
            gate.wait()
            try:
                for _ in range(rng.randrange(4)):
                    try:
                        shared_uses(arc, rng)
                    except AttributeError as error:  # upgrade() gave None: the value has moved
                        assert "'NoneType'" in str(error)
                if end == "drop":
                    arc.drop()
                elif end == "into_inner":
                    if arc.into_inner() is not None:
                        got.fetch_add(1)
                elif end == "try_unwrap":
                    moved, _ = arc.try_unwrap()
                    got.fetch_add(moved)
                elif end == "unwrap_or_clone":
                    arc.unwrap_or_clone()
                    got.fetch_add(1)
                else:
                    total.fetch_add(1)
                    arc.__init__(Noted(), on_drop)
            except ReferenceError:
                pass

    run_threads(work, threads)
    for arc in made:
        arc.drop()
    made.clear()
    wait_until(lambda: (gc.collect(), Value.alive.load() == 0)[1])
    assert dropped.load() + got.load() == total.load() + copies.load()


def test_make_mut_beside_upgrades():
    # the value that make_mut gives is in no other Arc, whatever Weaks do meanwhile
    rounds = 2000
    state = {}
    gate = threading.Barrier(2)
    upgraded = fastsync.AtomicI64(0)

    def own():
        for i in range(rounds):
            arc = Arc([i])
            state["weak"] = arc.downgrade()
            gate.wait()
            value = arc.make_mut()
            state["mine"] = value
            gate.wait()
            gate.wait()
            arc.drop()

    def upgrade():
        for i in range(rounds):
            gate.wait()
            for _ in range(i % 5):
                pass
            other = state["weak"].upgrade()
            gate.wait()
            if other is not None:
                upgraded.fetch_add(1)
                assert other.value is not state["mine"]
                assert other.value == [i]
                other.drop()
            gate.wait()

    run_threads([own, upgrade])


def test_one_handle_made_mut_by_two_threads():
    rounds = 1500
    gate = threading.Barrier(2)
    dropped = fastsync.AtomicI64(0)
    arcs = [Arc([i], lambda value: dropped.fetch_add(1)) for i in range(rounds)]
    weaks = [arc.downgrade() for arc in arcs]

    def work(_):
        for arc in arcs:
            gate.wait()
            arc.make_mut()  # and never "released"
            gate.wait()  # beside a clone make_mut() copies
            arc.clone().drop()
            assert arc.strong_count() >= 1

    run_threads(work, 2)
    assert dropped.load() == 0
    for arc, weak in zip(arcs, weaks, strict=True):
        assert arc.strong_count() == 1
        assert weak.upgrade() is None
        arc.drop()
    assert dropped.load() == rounds


def test_try_unwrap_has_what_it_needs_before_it_changes_anything():
    testcapi = pytest.importorskip("_testcapi")
    for start in range(1, 41):
        dropped = []
        arc = Arc(["value"], dropped.append)
        try:
            testcapi.set_nomemory(start, 0)
            try:
                moved = arc.try_unwrap()
            finally:
                testcapi.remove_mem_hooks()
        except MemoryError:
            assert arc.strong_count() == 1
            assert arc.value == ["value"]
            arc.drop()
            assert dropped == [["value"]]
        else:
            assert moved == (True, ["value"])
            assert repr(arc) == "<released Arc>"
            assert not dropped


def test_pinned_handles():
    dropped = []
    a = Arc([1], dropped.append)
    w = a.downgrade()
    for handle in (a, w):
        assert fastsync.pin(handle) is handle
    gc.collect()
    b = w.upgrade()
    assert a.strong_count() == 2
    a.drop()
    b.drop()
    assert dropped == [[1]]
    assert w.upgrade() is None


def test_on_drop_goes_with_the_value():
    for end in ("drop", "into_inner", "try_unwrap", "unwrap_or_clone"):

        def on_drop(value):
            pass

        gone = weakref.ref(on_drop)
        arc = Arc(1, on_drop)
        weak = arc.downgrade()
        del on_drop
        getattr(arc, end)()
        assert gone() is None, f"a Weak keeps on_drop after {end}()"
        assert weak.upgrade() is None


def test_weak_references_to_a_handle_that_dies():
    # on_drop must not find the handle that is being freed
    found = []

    def on_drop(value):
        found.append(reference())

    arc = Arc(1, on_drop)
    reference = weakref.ref(arc)
    del arc
    assert found == [None]


def test_an_exception_that_is_being_raised_survives_a_drop():
    def fail():
        raise KeyError("from on_drop")

    def work():
        arc = Arc(1, lambda value: [][0:1])
        assert arc
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
