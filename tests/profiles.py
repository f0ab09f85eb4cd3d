"""What the tests of the contention profile share."""

import threading

import pytest

from fastsync import profile

JOIN = 60.0


@pytest.fixture(autouse=True)
def stopped():
    """The profile is stopped after each test of a module that imports this."""
    yield
    if profile.running():
        profile.stop()


def run_all(*threads):
    """Start them and join them, with a deadline."""
    for thread in threads:
        thread.daemon = True
        thread.start()
    for thread in threads:
        thread.join(JOIN)
        assert not thread.is_alive()


def named(target, name, *args):
    return threading.Thread(target=target, name=name, args=args)
