"""The tool that runs other people's suites: what it compares, keeps and writes."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parent.parent / "tools" / "programs" / "run.py"

pytestmark = pytest.mark.skipif(not TOOL.exists(), reason="needs the checkout")


@pytest.fixture
def tool(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("programs_run", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setenv("FASTSYNC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tool, "PAGE", tmp_path / "compatibility.md")
    return tool


KEYS = "tests requires installed hide options plain variables builds limit pin".split()


def test_the_list_is_well_formed(tool):
    packages = tool.packages()
    assert len(packages) >= 40
    for name, package in packages.items():
        tables = [package[build] for build in tool.BUILDS if build in package]
        assert package["tests"], name
        assert {key for table in [package, *tables] for key in table} <= {*KEYS, *tool.BUILDS}, name
        assert set(package.get("builds", [])) <= set(tool.BUILDS), name


def test_a_test_differs_when_no_outcome_was_seen_on_both(tool):
    seen = {
        "threading": {"a": ["passed"], "b": ["passed", "failure"], "c": ["passed"]},
        "fastsync": {"a": ["failure"], "b": ["failure"], "d": ["passed"]},
    }
    assert tool.differences(seen) == ["a", "c", "d"]
    assert tool.describe(seen, "c") == "c: threading passed, fastsync not run"


def test_what_differs_runs_three_times(tool, monkeypatch, tmp_path):
    ran = []

    def run(environment, form, package, place, files=()):
        ran.append((form, list(files)))
        late = len(ran) > 4
        found = {"m::a": ("passed", "t.py")} if not files else {}
        outcome = "passed" if form == "threading" or late else "failure"
        return {**found, "m::b": (outcome, "t.py")}, False

    monkeypatch.setattr(tool, "run", run)
    first, seen, cut = tool.compare(None, {}, tmp_path)
    assert not cut
    assert first["fastsync"]["m::b"] == "failure"
    assert seen["fastsync"]["m::b"] == ["failure", "failure", "passed"]
    assert ran == [
        ("threading", []),
        ("fastsync", []),
        *[("threading", ["t.py"]), ("fastsync", ["t.py"])] * 2,
    ]
    assert tool.differences(seen) == []


def test_a_run_that_was_cut_is_compared_as_far_as_both_came(tool, monkeypatch, tmp_path):
    reached = {"threading": "abcd", "fastsync": "abc"}

    def run(environment, form, package, place, files=()):
        found = {f"m::{name}": ("passed", "t.py") for name in reached[form]}
        if form == "fastsync":
            found["m::a"] = ("failure", "t.py")
        return found, not files

    monkeypatch.setattr(tool, "run", run)
    first, seen, cut = tool.compare(None, {}, tmp_path)
    assert cut
    assert list(first["threading"]) == list(first["fastsync"]) == ["m::a", "m::b", "m::c"]
    assert tool.differences(seen) == ["m::a"]


def test_the_report_of_a_run_that_was_ended_is_read_as_far_as_it_goes(tool, tmp_path):
    def report(name, when, outcome="passed"):
        line = {"$report_type": "TestReport", "nodeid": name, "when": when, "outcome": outcome}
        return json.dumps({**line, "location": ["t.py", 1, name]})

    path = tmp_path / "report.jsonl"
    lines = [json.dumps({"$report_type": "SessionStart"})]
    for name, outcomes in {
        "good": ("passed", "passed", "passed"),
        "bad": ("passed", "failed", "passed"),
        "worse": ("passed", "failed", "failed"),
        "away": ("skipped", None, "passed"),
    }.items():
        for when, outcome in zip(("setup", "call", "teardown"), outcomes, strict=True):
            if outcome:
                lines.append(report(name, when, outcome))
    lines += [report("last", "setup"), report("last", "call")[:20]]
    path.write_text("\n".join(lines), encoding="utf-8")
    assert tool.read_report(path) == {
        "good": ("passed", "t.py"),
        "bad": ("failure", "t.py"),
        "worse": ("error+failure", "t.py"),
        "away": ("skipped", "t.py"),
    }


def test_a_result_is_kept_and_goes_into_the_page(tool, monkeypatch, tmp_path):
    made = []

    def examine(name, package, build, base, work):
        made.append(name)
        work.parent.mkdir(parents=True, exist_ok=True)
        return {
            "version": "1.2",
            "build": build,
            "python": "3.13.0 (main)",
            "tests": ["tests"],
            "counts": {"threading": {"passed": 3}, "fastsync": {"passed": 2, "failure": 1}},
            "differ": ["m::a: threading passed, fastsync failure"],
            "flaky": [],
            "seconds": 1,
        }

    monkeypatch.setattr(tool, "examine", examine)
    for _ in range(2):
        assert not tool.run_one("janus", {}, "gil", tmp_path)
    assert made == ["janus"]
    assert json.loads(tool.kept("janus", "gil").read_text())["version"] == "1.2"
    tool.write_page()
    page = tool.PAGE.read_text(encoding="utf-8")
    assert "1 packages, 1 pairs of runs, 3 tests" in page
    row = "| janus 1.2 | `tests` | 3 passed | 2 passed, 1 failed |  | 3.13.0, with the GIL |"
    assert row in page
    assert not re.search(r"\(the first \d", page)
    assert "- janus 1.2, 3.13.0, with the GIL: m::a: threading passed, fastsync failure" in page
