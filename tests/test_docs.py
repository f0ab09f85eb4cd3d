"""The documents: their Python runs, their links lead somewhere. The examples: they print what
they should.

A block marked `python` is run, all blocks of a page in their order and in one namespace. A block
marked `text` right below it is what it prints. Nothing here looks at a time.
"""

import enum
import importlib
import re
from itertools import pairwise
from pathlib import Path

import pytest

from fastsync.raw.parking import wait_backend

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")])
EXAMPLES = ROOT / "examples"

FENCE = re.compile(r"^ {0,3}(```+|~~~+) *([\w+-]*)[^`]*$")
END = "\x1eend of block {}"


def name(page):
    return str(page.relative_to(ROOT))


def blocks(page):
    """The fenced blocks of a page: (language, number of the first line, lines)."""
    opened = None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = FENCE.match(line)
        if opened is None:
            if fence:
                opened, language, first, lines = fence[1], fence[2], number + 1, []
        elif line.strip() == opened:
            yield language, first, lines
            opened = None
        else:
            lines.append(line)
    assert opened is None, f"{name(page)}: a block is not closed"


def program(page):
    """The Python of a page, each line where it is in the page."""
    lines = []
    for language, first, block in blocks(page):
        if language == "python":
            lines += [""] * (first - 1 - len(lines))
            lines += block
            lines.append(f"print({END.format(first)!r}, flush=True)")
    return "\n".join(lines)


def promised(page):
    """What blocks print, where the page says it: first line of the block -> text."""
    return {
        first: "\n".join(text)
        for (language, first, code), (other, below, text) in pairwise(blocks(page))
        # The two fences and at most one empty line are between them.
        if (language, other) == ("python", "text") and below - first - len(code) <= 3
    }


@pytest.mark.parametrize("page", [page for page in PAGES if program(page)], ids=name)
def test_python_of(page, run_python, tmp_path):
    if "shared=True" in program(page) and wait_backend() != "futex":
        pytest.skip("this wait backend does not reach other processes")
    script = tmp_path / (page.stem + ".py")
    script.write_text(program(page), encoding="utf-8")
    printed = run_python(script, cwd=tmp_path).stdout
    expected = promised(page)
    for language, first, _ in blocks(page):
        if language == "python":
            block, _, printed = printed.partition(END.format(first) + "\n")
            if first in expected:
                assert block.strip() == expected[first].strip(), f"line {first}"


def without_code(page):
    text = page.read_text(encoding="utf-8")
    for _language, _first, lines in blocks(page):
        text = text.replace("\n".join(lines), "", 1)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(page):
    """The anchors that the headings of a page have on the usual hosts."""
    text = page.read_text(encoding="utf-8")
    for _language, _first, lines in blocks(page):
        text = text.replace("\n".join(lines), "", 1)
    headings = re.findall(r"^#+ +(.*?) *#*$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_of(page):
    broken = []
    for target in re.findall(r"\]\(([^()\s]+)\)", without_code(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert not broken


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", index))
    assert pages == linked


# -- docstrings ---------------------------------------------------------------

DROP_INS = ["Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier"]


def undocumented(module_name, names):
    """Public names, and public members of public types, that have no docstring."""
    module = importlib.import_module(module_name)
    for name in names or getattr(module, "__all__", ()):
        value = getattr(module, name)
        if name.startswith("__"):
            continue
        if callable(value) and not value.__doc__:
            yield name
        if isinstance(value, type):
            for member, found in vars(value).items():
                if member.startswith("_") or isinstance(found, enum.property):
                    continue
                if not getattr(found, "__doc__", None):
                    yield f"{name}.{member}"


@pytest.mark.parametrize(
    ("module", "names"),
    [("fastsync", None), ("fastsync.threading", DROP_INS), ("fastsync.deadlock", None)],
)
def test_everything_public_is_documented(module, names):
    assert list(undocumented(module, names)) == []


# -- examples ----------------------------------------------------------------

# Name -> arguments that make it small, and what must be found in its output.
RUNS = {
    "lost_updates.py": (
        ["--threads", "4", "--turns", "500"],
        [r"threading\.Lock +2000 +0 ", r"fastsync Mutex +2000 +0 ", r"AtomicI64 +2000 +0 "],
    ),
    "contended_cache.py": (["--fixed"], [r"1600 requests in "]),
    "lock_per_key.py": (
        ["--locks", "2000", "--threads", "4", "--keys", "6", "--calls", "40", "--work", "2000"],
        [r"one lock for all .*computed +6 ", r"a lock per key .*computed +6 "],
    ),
    "read_mostly_config.py": (
        ["--threads", "2", "--reads", "300"],
        [r"Lock ", r"RwLock ", r"AtomicRef ", r"no reader saw a mixed configuration"],
    ),
    "bounded_queue.py": (
        ["--producers", "2", "--consumers", "3", "--items", "150", "--size", "4"],
        [r"300 items in, 300 out, none lost, none twice", r"Jain"],
    ),
    "pipeline.py": ([], [r"\d+ files, \d{4,} words; the most frequent:"]),
}


@pytest.mark.parametrize("example", RUNS)
def test_example(example, run_python, tmp_path):
    arguments, patterns = RUNS[example]
    printed = run_python(EXAMPLES / example, *arguments, cwd=tmp_path).stdout
    for pattern in patterns:
        assert re.search(pattern, printed), f"no {pattern!r} in:\n{printed}"


DEMO = {"index_stdlib.py", "pipeline_stdlib.py"}


def test_every_example_is_run():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(RUNS) | DEMO


@pytest.mark.parametrize("example", sorted(DEMO))
def test_a_program_of_the_demo_does_the_same_on_both(example, run_python, tmp_path):
    digests = set()
    for runner in ([], ["-m", "fastsync"]):
        command = [*runner, EXAMPLES / example, "--limit", "5", "--workers", "3"]
        printed = run_python(*command, cwd=tmp_path).stdout
        digests.add(re.search("^digest: ([0-9a-f]{64})$", printed, re.M)[1])
    assert len(digests) == 1


def test_the_front_page_shows_measured_numbers():
    picture = (ROOT / "docs" / "performance" / "front.svg").read_text(encoding="utf-8")
    measured = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    shown = re.findall(r'data-case="([^"]+)">([\d.]+)<', picture)
    assert shown
    for case, number in shown:
        rows = [line for line in measured.splitlines() if line.startswith(f"| {case} | ≤")]
        assert any(f"of threading | {number} |" in row for row in rows), (case, number, rows)
