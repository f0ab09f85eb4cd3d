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
    assert len(tool.exclusions()) <= len(lines) < 5
    assert all(len(line.partition(":")[2]) > 20 for line in lines)


def test_a_run_of_everything_goes_on_where_it_was_ended(tmp_path, monkeypatch):
    files = pytest.importorskip("test.libregrtest.findtests") and tool.all_files()
    assert len(files) > 300 and "test_threading" in files
    ran = []
    monkeypatch.setattr(tool, "LOGS", tmp_path)
    monkeypatch.setattr(tool, "run", lambda *item: ran.append(item) or {"passed": len(ran)})
    assert tool.Kept(False).run("test_a", "stock") == {"passed": 1}
    assert tool.Kept(False).run("test_a", "patched") == {"passed": 2}
    assert tool.Kept(False).run("test_a", "stock") == {"passed": 1}
    assert tool.Kept(True).run("test_a", "stock") == {"passed": 3}
