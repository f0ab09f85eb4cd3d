"""The fuzzers of tests/fuzz in short form: `make fuzz` runs them for longer."""

import os
import random
import re
import sys
from pathlib import Path

import pytest
from conftest import run_python

FUZZERS = Path(__file__).resolve().parent / "fuzz"
SECONDS = 2


@pytest.mark.stress
@pytest.mark.skipif(sys.platform == "win32", reason="forks, and needs a timer signal")
@pytest.mark.parametrize("malloc", ["default", "debug"])
@pytest.mark.parametrize("fuzzer", sorted(path.stem for path in FUZZERS.glob("fuzz_*.py")))
def test_fuzzer(fuzzer, malloc):
    env = dict(os.environ, PYTHONMALLOC=malloc)
    seed = random.randrange(2**32)
    done = run_python("-P", FUZZERS / f"{fuzzer}.py", SECONDS, seed, timeout=300, env=env)
    assert re.search(r"[1-9]\d* rounds, nothing found", done.stdout), done.stdout
