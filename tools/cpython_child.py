"""Run one of CPython's test files, with or without fastsync in it; write the counts as JSON.

    python tools/cpython_child.py FORM FILE RESULT [EXCLUDED_TEST ...]

FORM is `stock`, `patched` (fastsync.install()) or `replaced` (fastsync.threading is the module
`threading`, and fastsync.queue the module `queue`). A process of its own for each file, so that the
swap comes before every import. test_queue makes modules anew: with fastsync it runs on those, and
then on our queues.
"""

import sys

FORM, FILE, RESULT, *EXCLUDED = sys.argv[1:]

if FORM == "patched":
    import fastsync

    fastsync.install()
    import queue  # noqa: F401  # before a test imports it in a way of its own
elif FORM == "replaced":
    import fastsync.queue
    import fastsync.threading

    sys.modules["threading"] = fastsync.threading
    sys.modules["queue"] = fastsync.queue

import json  # noqa: E402
import threading  # noqa: E402
import unittest  # noqa: E402
from fnmatch import fnmatchcase  # noqa: E402

import test.support  # noqa: E402

RESOURCES = ["cpu", "walltime", "network"]


def lock_tests():
    """Make test classes of `lock_tests` for what `threading` holds, and for subclasses of it."""
    from test import lock_tests

    def subclass(base):
        return type(base.__name__, (base,), {"__module__": "threading"})

    rlock = threading.RLock if isinstance(threading.RLock, type) else threading._CRLock
    kinds = [
        ("LockTests", "locktype", threading.Lock, False),
        ("RLockTests", "locktype", threading.RLock, False),
        ("RLockTests", "locktype", rlock, True),
        ("RLockTests", "locktype", threading.Condition, False),
        ("EventTests", "eventtype", threading.Event, True),
        ("ConditionTests", "condtype", threading.Condition, True),
        ("SemaphoreTests", "semtype", threading.Semaphore, True),
        ("BoundedSemaphoreTests", "semtype", threading.BoundedSemaphore, True),
        ("BarrierTests", "barriertype", threading.Barrier, True),
    ]
    suite = unittest.TestSuite()
    for name, attribute, kind, subclassed in kinds:
        label = f"{name}_{kind.__name__}{'_subclass' if subclassed else ''}"
        body = {attribute: staticmethod(subclass(kind) if subclassed else kind)}
        if (name, kind) == ("RLockTests", threading.Condition):
            body["test_recursion_count"] = None  # not a Condition's: test_threading skips it
        bases = (getattr(lock_tests, name), unittest.TestCase)
        cases = unittest.defaultTestLoader.loadTestsFromTestCase(type(label, bases, body))
        suite.addTests(cases)
    return suite


def own_queue_tests():
    """Make the test classes of `test_queue` anew, for our queues."""
    from test import test_queue

    import fastsync.queue

    suite = unittest.TestSuite()
    for name, kind in vars(test_queue).items():
        # Those of the C module; what they differ in from the others is the SimpleQueue.
        if name.startswith("C") and isinstance(kind, type) and issubclass(kind, unittest.TestCase):
            body = {"queue": fastsync.queue, "__module__": "test.test_queue.fastsync"}
            if hasattr(kind, "test_simplequeue_sizeof"):
                body["test_simplequeue_sizeof"] = None  # of the layout of the original's
            loader = unittest.defaultTestLoader
            suite.addTests(loader.loadTestsFromTestCase(type(name, (kind,), body)))
    return suite


def load(file):
    if file == "lock_tests":
        return lock_tests()
    try:
        suite = unittest.defaultTestLoader.loadTestsFromName(f"test.{file}")
    except unittest.SkipTest as reason:  # the whole file, at its import
        body = {file: unittest.skip(str(reason))(lambda self: None)}
        case = type("Skipped", (unittest.TestCase,), body)
        return unittest.TestSuite([case(file)])
    if file == "test_queue" and FORM != "stock":
        suite.addTests(own_queue_tests())
    return suite


def tests_of(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from tests_of(item)
        else:
            yield item


def without_excluded(suite):
    """Return the suite less the tests that are left out."""
    kept = [
        item
        for item in tests_of(suite)
        if not any(fnmatchcase(item.id().removeprefix("test."), name) for name in EXCLUDED)
    ]
    return unittest.TestSuite(kept)


class Counts(unittest.TextTestResult):
    """Keeps the outcome of each test, where the original keeps the failures of each subtest."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.outcomes = {}

    def note(self, test, outcome):
        name = getattr(test, "test_case", test).id()
        if self.outcomes.get(name) != "failed":
            self.outcomes[name] = outcome

    def addSuccess(self, test):
        super().addSuccess(test)
        self.note(test, "passed")

    def addExpectedFailure(self, test, error):
        super().addExpectedFailure(test, error)
        self.note(test, "passed")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.note(test, "failed")

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.note(test, "failed")

    def addError(self, test, error):
        super().addError(test, error)
        self.note(test, "failed")

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error is not None:
            self.note(test, "failed")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.note(test, "skipped")


def check_swap():
    """Fail when the tests did not run on what they were meant to run on."""
    if FORM == "stock":
        assert "fastsync" not in sys.modules
    else:
        from fastsync._run import install as primitives

        assert threading.Lock is primitives.Lock, f"{FORM}, but the lock is {threading.Lock}"
    if "free-threading build" in sys.version:
        assert not sys._is_gil_enabled(), "something has turned the GIL on"


def main():
    test.support.use_resources = RESOURCES
    suite = without_excluded(load(FILE))
    runner = unittest.TextTestRunner(sys.stderr, verbosity=2, resultclass=Counts)
    result = runner.run(suite)
    check_swap()
    names = sorted(result.outcomes)
    counts = {
        "run": result.testsRun,
        "passed": sum(outcome == "passed" for outcome in result.outcomes.values()),
        "failed": [name for name in names if result.outcomes[name] == "failed"],
        "skipped": sum(outcome == "skipped" for outcome in result.outcomes.values()),
        "outcomes": result.outcomes,
    }
    with open(RESULT, "w") as file:
        json.dump(counts, file)


if __name__ == "__main__":
    main()
