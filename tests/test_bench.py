"""Every benchmark case runs: once, with tiny counts. Nothing here looks at a time."""

import json
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"


def load_cases():
    sys.path.insert(0, str(BENCH))
    try:
        import run

        return run.load_cases()
    finally:
        sys.path.remove(str(BENCH))


CASES = [case.name for case in load_cases()]


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, len(CASES), 6))
def test_cases_run(first, tmp_path, run_python):
    cases = CASES[first : first + 6]
    file = tmp_path / "results.json"
    named = [word for case in cases for word in ("--case", case)]
    run_python(BENCH / "run.py", "--tiny", *named, "--json", file, timeout=85)
    results = json.loads(file.read_text())["results"]
    assert {result["case"] for result in results} == {*cases}
    for result in results:
        assert "fastsync" not in result["skipped"], result["skipped"]
        for contestant, rounds in result["rounds"].items():
            assert contestant in result["skipped"] or rounds[0]["value"] >= 0


def test_list_names_the_cases(run_python):
    listed = run_python(BENCH / "run.py", "--list").stdout
    assert [line.split()[0] for line in listed.splitlines()] == CASES


def test_an_unknown_case_is_refused(run_python):
    done = run_python(BENCH / "run.py", "--case", "no.such", check=False)
    assert done.returncode == 2
    assert "no such case" in done.stdout


def test_the_report_is_written(tmp_path, run_python):
    pytest.importorskip("matplotlib")
    file = tmp_path / "results.json"
    run_python(BENCH / "run.py", "--tiny", "--case", "with", "--json", file, timeout=80)
    run_python(BENCH / "report.py", file, tmp_path, timeout=80)
    page = (tmp_path / "performance.md").read_text()
    assert "`with Lock()`" in page and sys.version.split()[0] in page
    assert (tmp_path / "performance" / "time-with.svg").exists()
