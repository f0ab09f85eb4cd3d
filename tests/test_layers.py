"""The rules of the sources, held: who may cimport what, who may sleep, how long a file may be."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "fastsync"
DESIGN = ROOT / "docs" / "design.md"

pytestmark = pytest.mark.skipif(not DESIGN.exists(), reason="needs the checkout")

SOURCES = {
    path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted(PACKAGE.rglob("*.*"))
    if path.suffix in (".pyx", ".pxd", ".py", ".h")
}
IMPORT = re.compile(
    r"^ *from (fastsync[\w.]*) (?:c?import) (\([^)]*\)|[^#\n]*)|^ *c?import (fastsync[\w.]*)", re.M
)


def imports(name):
    """{module below fastsync: the names taken from it} of a source file."""
    found = {}
    for module, names, bare in IMPORT.findall(SOURCES[name]):
        names = set(re.findall(r"[A-Za-z_*]\w*", re.sub(r"#.*| as \w+", "", names)))
        module = (module or bare).removeprefix("fastsync").lstrip(".")
        folder = PACKAGE / module.replace(".", "/")
        for part in sorted(names) if folder.is_dir() else [""]:  # from fastsync.raw cimport parking
            whole = ".".join(filter(None, [module, part]))
            found.setdefault(whole, set()).update(names)
    return found


def layer(module):
    """ "raw" of "raw.mutex"; "" is the package's own folder: the doors."""
    return module.rpartition(".")[0] if "." in module else ""


def table(heading):
    """The rows of the table below a heading of design.md, each a list of its cells."""
    part = DESIGN.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2]
    rows = re.findall(r"^\|(.*)\|$", part.partition("\n## ")[0], re.M)
    return [[cell.strip() for cell in row.split("|")] for row in rows[2:]]


def code(cell):
    return re.findall(r"`([^`]+)`", cell)


# -- layers --------------------------------------------------------------------

# What reaches for a layer above, and why.
ABOVE = {
    "_watch/profile_formats.py": {""},  # asks the door `profile` how a place is written
    "_watch/profile_report.py": {""},  # likewise
    "objects/_c_table.pyx": {""},  # the door for C has what that for Cython, words.pxd, has
    # Where the modules of a folder are.
    **{f"{folder}/__init__.py": {""} for folder in ("raw", "objects", "_watch")},
}

# "| `raw/` | what it is | `raw/` |" -> {"raw": {"raw"}}
LAYERS = {
    folder.rstrip("/").replace("fastsync", ""): {
        other.rstrip("/").replace("fastsync", "") for other in code(may)
    }
    for row in table("Layers")
    for folder, may in [(code(row[0])[0], row[2])]
}


def test_the_document_names_every_folder():
    folders = {Path(name).parent.as_posix().replace(".", "") for name in SOURCES}
    assert folders - {"include/fastsync"} == set(LAYERS)


def test_the_diagram_shows_every_word_and_every_door():
    diagram = DESIGN.read_text(encoding="utf-8").split("```")[1]
    names = set(re.findall(r"\w+", diagram))
    words = {Path(n).stem for n in SOURCES if n.startswith("raw/") and not n.startswith("raw/c_")}
    doors = {Path(n).stem for n in SOURCES if "/" not in n}
    assert (words | doors) - {"__main__"} - names == set()


@pytest.mark.parametrize("name", [n for n in SOURCES if not n.endswith(".h")])
def test_a_file_reaches_for_its_own_layer_and_those_below(name):
    folder = Path(name).parent.as_posix().replace(".", "")
    reached = {layer(module) for module in imports(name) if module}
    assert reached <= LAYERS[folder] | {folder} | ABOVE.get(name, set())


def test_headers_are_reached_through_their_declarations_alone():
    """`cdef extern from "fastsync/..."` stands in raw/c_*.pxd, but for the words themselves."""
    for name, text in SOURCES.items():
        headers = set(re.findall(r'extern from "fastsync/([\w.]+)"', text)) - {"words.h"}
        if headers and not name.startswith("raw/c_"):
            assert headers <= EXTERN.get(name, set()), name


# What needs a header for itself alone.
EXTERN = {
    "objects/_c_table.pyx": {"fastsync.h"},  # the table that C users import
    "objects/_bulk.pyx": {"atomic.h"},  # relaxed loads, which raw/c_atomic.pxd leaves out
    "objects/arc.pyx": {"atomic.h"},  # a relaxed store, likewise
    "objects/reference.pyx": {"atomic.h"},  # relaxed loads and stores, likewise
    "raw/parking.pxd": {"wait.h"},  # whether words can be shared with other processes
    "raw/parking.pyx": {"wait.h"},
}


# What objects may take from the parking table: flags and answers, and how many wait.
ANSWERS = r"FS_(PLAIN|SIGNALS|FOREVER|ACQUIRED|TIMEOUT|ERROR)|deadline_after|parked_count"
# Those that park themselves, and why.
PARKING_OBJECTS = {
    # Waits between processes: the table is of one process.
    "objects/_kinds.pyx": {
        "FS_PARKS_SHARED", "FS_PARK_INTERRUPTED", "park_shared", "unpark_shared"},
    # A wait for another reference: the word is looked at through a hazard pointer.
    "objects/cell.pyx": {
        "FS_PARK_INTERRUPTED", "FS_SPIN", "FS_TOKEN_NORMAL", "park", "unpark_all", "unpark_one"},
    # Sleeps on a word of its own, for a moment, while another thread changes a guard.
    "objects/guards.pyx": {"park"},
    # A queue's own lock, and what a fork left of a queue.
    "objects/_opened.pyx": {"fork_epoch"},
    "objects/_ring.pyx": {"FS_FIRST"},
    "objects/priority_queue.pyx": {"fork_epoch"},
    # The places of a select, which raw/select.pyx parks on; whether a time has passed.
    "objects/channel.pyx": {"is_past"},
    "objects/select.pyx": {"fs_place", "is_past"},
}  # fmt: skip


@pytest.mark.parametrize("name", [n for n in SOURCES if n.startswith("objects/")])
def test_python_types_leave_the_parking_table_alone(name):
    taken = imports(name).get("raw.parking", set())
    reached = {n for n in taken if not re.fullmatch(ANSWERS, n)}
    assert reached <= PARKING_OBJECTS.get(name, set())


def test_raw_words_know_no_python_object():
    for name, text in SOURCES.items():
        if name.startswith("raw/") and not name.startswith("raw/c_"):
            taken = re.findall(r"from cpython[\w.]* cimport (.*)", text)
            assert taken in ([], ["PyObject"]), name  # as an address
            assert not re.search(r"^cdef class |^class ", text, re.M), name


# -- two doors, one list -----------------------------------------------------------

HEADER = "include/fastsync/fastsync.h"


def entries_of_the_table():
    """The functions that fastsync.h gives to C, in their order."""
    table = SOURCES[HEADER].partition("typedef struct {\n")[2].partition("} fs_table;")[0]
    return re.findall(r"\(\*(\w+)\)\(", table)


def test_the_table_for_c_is_one_list():
    """_c_table.pyx declares and fills what the header has, and the header has a use for each."""
    entries = entries_of_the_table()
    capi = SOURCES["objects/_c_table.pyx"]
    declared = capi.partition("ctypedef struct fs_table:")[2].partition("cdef fs_table filled")[0]
    assert re.findall(r"void\* (\w+)$", declared, re.M) == entries
    filled = re.findall(r"^    t\.(\w+) = <void\*>(?:words\.)?(\w+)$", capi, re.M)
    assert [name for name, _ in filled] == entries
    assert {name: function.removeprefix("fs_") for name, function in filled} == {
        name: name for name in entries
    }
    unused = [n for n in entries if f"fastsync_table->{n}(" not in SOURCES[HEADER]]
    assert unused == []


ATOMIC = r"\b(fs_(?:u8|u32|u64|uptr|i64)_(?!t\b)\w+)\("


def atomic_operations(name):
    """{function: its atomic operations, in their order} of a source file."""
    lines = SOURCES[name].split("\n")
    return {
        function: re.findall(ATOMIC, "\n".join(lines[first:last]))
        for function, first, last in functions_of(name)
    }


def test_a_fast_path_is_the_same_for_both_doors():
    """What stands inline in fastsync.h and in a raw .pxd does the same atomic operations."""
    for_cython = {}
    for name in SOURCES:
        if name.startswith("raw/") and name.endswith(".pxd") and not name.startswith("raw/c_"):
            for_cython |= atomic_operations(name)
    for_c = {f: ops for f, ops in atomic_operations(HEADER).items() if ops}
    assert len(for_c) >= 14
    assert {f: for_cython[f.removeprefix("fs_")] for f in for_c} == for_c


# -- platforms and sleeping ------------------------------------------------------

SLEEPS = r"\b(fs_waitword_wait|fs_shared_wait)\b"
SLEEPERS = {"raw/parking.pyx", "raw/c_wait.pxd"}


def test_only_the_parking_table_sleeps():
    found = {
        name for name, text in SOURCES.items()
        if re.search(SLEEPS, text) and not name.startswith("include/")
    }  # fmt: skip
    assert found == SLEEPERS


# The one place of each; compilers are atomic.h's business.
PLATFORM = r"_WIN32|__APPLE__|__linux__|__FreeBSD__|__OpenBSD__|__EMSCRIPTEN__"
PLATFORM_HEADERS = r"include/fastsync/(wait|posix|clock)\w*\.h"


def test_a_platform_is_asked_for_in_its_header_only():
    found = {name for name, text in SOURCES.items() if re.search(PLATFORM, text)}
    assert {name for name in found if not re.fullmatch(PLATFORM_HEADERS, name)} == set()


# -- sizes -----------------------------------------------------------------------

LINES_OF_A_FILE = 700
LINES_OF_A_FUNCTION = 60
# name: why it is longer.
LONGER_FILES = {
    "raw/parking.pyx": "one protocol, argued in one place",
}
LONGER_FUNCTIONS = {
    "objects/_c_table.pyx:fill": "one line for each function",
    "profile.py:_gather": "one pass over what was recorded",
    "raw/parking.pyx:park_since": "the whole of a wait, and each way out of it",
}


def functions_of(name):
    """(function, its first line, the line after its last)."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import mutate
    finally:
        sys.path.remove(str(ROOT / "tools"))
    lines = SOURCES[name].split("\n")
    for function, first, last in mutate.regions(SOURCES[name], Path(name).suffix):
        if "class " not in lines[first] and not lines[first].startswith("#define"):
            yield function, first, last


def test_files_are_short():
    long = {name for name, text in SOURCES.items() if text.count("\n") > LINES_OF_A_FILE}
    assert long == set(LONGER_FILES)


def test_functions_are_short():
    long = {
        f"{name}:{function}"
        for name in SOURCES
        for function, first, last in functions_of(name)
        if last - first > LINES_OF_A_FUNCTION
    }
    assert long == set(LONGER_FUNCTIONS)


# -- "Read one lock" -------------------------------------------------------------


def test_one_lock_is_read_in_an_hour():
    """What design.md lists is there, and it is at most 1,200 lines in ten files."""
    lines = 0
    rows = table("Read one lock")
    for row in rows:
        (name,) = code(row[0])
        parts = code(row[1])
        if not parts:  # the whole file
            lines += SOURCES[name].count("\n")
            continue
        found = list(functions_of(name))
        sizes = {function: last - first for function, first, last in found}
        sizes["top"] = found[0][1]  # what stands above the first function
        assert set(parts) <= set(sizes), (name, set(parts) - set(sizes))
        lines += sum(sizes[part] for part in parts)
    print(f"{lines} lines in {len(rows)} files")
    assert len(rows) <= 10
    assert 500 < lines <= 1200
