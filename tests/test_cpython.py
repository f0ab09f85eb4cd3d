"""CPython's own tests on our locks: the quick files; `make test-cpython` runs all of them."""

import importlib.util
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parent.parent / "tools" / "run_cpython_tests.py"


def load_tool():
    spec = importlib.util.spec_from_file_location("run_cpython_tests", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


tool = load_tool()


@pytest.mark.slow
@pytest.mark.parametrize("file", tool.QUICK)
def test_passes(file):
    if not tool.existing([file]):
        pytest.skip("this Python comes without its test suite")
    counts = tool.run(file, "patched")
    assert counts["failed"] == [], f"see {counts['log']}"
    assert counts["passed"] > 0


def test_exclusions_are_few_and_reasoned():
    lines = [line for line in tool.EXCLUSIONS.read_text().splitlines() if line[:1] not in "#"]
    assert len(tool.exclusions()) <= len(lines) < 10
    assert all(len(line.partition(":")[2]) > 20 for line in lines)


def test_a_run_of_everything_goes_on_where_it_was_ended(tmp_path, monkeypatch):
    files = pytest.importorskip("test.libregrtest.findtests") and tool.all_files()
    assert len(files) > 300 and "test_threading" in files
    ran = []
    monkeypatch.setattr(tool, "LOGS", tmp_path)

    def run_once(*item):
        ran.append(item)
        return {"passed": 1, "run": 1, "failed": [], "seconds": 0, "outcomes": {"a": "passed"}}

    monkeypatch.setattr(tool, "run_once", run_once)
    for _ in range(2):
        tool.run_all(["test_a", "test_b"], ["patched"], tool.Kept(False), 1)
        assert len(ran) == 4
        assert tool.report_all(["test_a", "test_b"], ["patched"], tool.Kept(False)) == 0
    assert len(tool.Kept(False).run("test_a", "stock", 3)) == 3
    assert len(ran) == 6
    assert tool.Kept(True).runs("test_a", "stock") == []


def test_a_test_differs_when_no_outcome_was_seen_on_both():
    def runs(*outcomes):
        return [{"outcomes": {"a": outcome, "b": "passed"}} for outcome in outcomes]

    assert tool.differences(runs("passed"), runs("failed")) == ["a: stock passed, failed"]
    assert tool.differences(runs("passed", "failed"), runs("failed")) == []
    assert tool.differences(runs("skipped"), [{"outcomes": {"b": "passed"}}]) == [
        "a: stock skipped, not run"
    ]
