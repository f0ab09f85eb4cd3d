"""Short forms of the jobs that `make models`, `make levels`, `make tsan` and `make mutants` run at
length."""

import shutil
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import run_build

TOOLS = Path(__file__).resolve().parent.parent / "tools"


@pytest.mark.skipif(not shutil.which("spin"), reason="spin is not installed")
@pytest.mark.slow
@pytest.mark.xdist_group("trials")
def test_the_small_models_hold_and_each_of_their_mutants_fails():
    output = run_build(TOOLS / "check_models.py", "semaphore.pml", "event.pml", "unlock.pml")
    assert output.count("holds in all of") == 3 and ", 0 wrong" in output
    assert output.count("fails, as it must") > 10


@pytest.mark.slow
def test_the_orders_are_enough_on_weak_memory_and_needed():
    output = run_build(TOOLS / "check_litmus.py", "unlock", "wake", "hazard", "--if-there")
    if "herd7 is not there" in output:
        pytest.skip("herd7 is not there: tools/get_herd.sh gets it")
    assert "3 protocols never fail; 8 weaker orders were tried" in output


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="the GIL hides races from the tool"
)
@pytest.mark.slow
@pytest.mark.xdist_group("trials")
def test_thread_sanitizer_is_silent_and_sees_planted_races():
    output = run_build(TOOLS / "sanitize.py", "thread", "--rounds", "6000", "--seconds", "6")
    assert output.count("the planted race was reported") == 3 and "clean" in output


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.slow
@pytest.mark.xdist_group("trials")
def test_nothing_grows_with_operations_or_threads():
    output = run_build("-P", TOOLS / "levels.py", "--operations", "50000", "--threads", "2000")
    assert output.count("level") == len(output.splitlines()) > 15


def test_every_mutant_can_be_applied():
    output = run_build(TOOLS / "mutate.py", "--check")
    assert int(output.split()[0]) > 100
