"""Compiled modules, all in one file, are imported as those with files of their own are."""

import importlib
import importlib.abc
import importlib.machinery
import importlib.resources
import importlib.util
import inspect
import linecache
import shutil
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

import fastsync
import fastsync.objects.lock
import fastsync.raw.mutex

PACKAGE = Path(fastsync.__file__).parent
COMPILED = ["fastsync.raw.mutex", "fastsync.objects.lock", "fastsync._watch.trace"]


# -- what tools ask of a module and of its loader ----------------------------------


@pytest.mark.parametrize("name", COMPILED)
def test_spec_and_loader(name):
    spec = importlib.util.find_spec(name)
    assert spec.has_location and spec.origin == fastsync._compiled.__file__
    assert spec.submodule_search_locations is None
    loader = spec.loader
    assert isinstance(loader, importlib.machinery.ExtensionFileLoader)
    assert isinstance(loader, importlib.abc.Loader)
    assert not loader.is_package(name)
    assert loader.get_code(name) is loader.get_source(name) is None
    assert loader.get_filename(name) == spec.origin
    module = importlib.import_module(name)
    assert module.__loader__ == loader
    assert repr(module) == f"<module {name!r} from {spec.origin!r}>"
    with pytest.raises(ImportError):
        loader.get_filename("fastsync.raw.another")


def test_inspect_knows_the_file_and_no_source():
    module = fastsync.raw.mutex
    assert inspect.getfile(module) == fastsync._compiled.__file__
    assert inspect.getsourcefile(module) is None
    with pytest.raises(OSError):
        inspect.getsource(module)
    assert linecache.getlines(module.__file__, vars(module)) == []


def test_resources():
    header = importlib.resources.files("fastsync") / "include/fastsync/fastsync.h"
    assert header.is_file()
    assert (importlib.resources.files("fastsync.raw") / "mutex.pxd").is_file()


# -- ways to start -----------------------------------------------------------------


def test_a_compiled_module_is_no_program(run_python):
    for name in COMPILED:
        done = run_python("-m", name, check=False)
        assert done.returncode == 1
        assert done.stderr.endswith(f"No code object available for {name}\n")
    code = "import runpy; runpy.run_module('fastsync.objects.lock')"
    done = run_python("-c", code, check=False)
    assert done.stderr.endswith("ImportError: No code object available for fastsync.objects.lock\n")


@pytest.mark.parametrize("switches", ["-S", "-I", "-E", "-sB", "-OO", "-v", "-P"])
def test_switches_of_the_interpreter(run_python, tmp_path, switches):
    program = tmp_path / "program.py"
    program.write_text("import threading; print(threading.Lock.__new__, end='')")
    for start in (
        ("-c", f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); "
         "import runpy; sys.argv[1:] = sys.argv[2:]; from fastsync._run.runner import main; main()",
         "fastsync", program),
        ("-m", "fastsync", program),
    ):  # fmt: skip
        if switches == "-S" and start[0] == "-m":
            continue  # it finds no installed package
        done = run_python(switches, *start)
        assert "Lock" in done.stdout
        if switches != "-v":
            assert done.stderr == ""


def test_reload(run_python):
    run_python("-c", textwrap.dedent("""
        import importlib
        import fastsync.objects.lock, fastsync.raw.mutex
        lock = fastsync.objects.lock.Lock
        for module in (fastsync, fastsync.raw, fastsync.objects, fastsync._compiled,
                       fastsync.raw.mutex, fastsync.objects.lock):
            assert importlib.reload(module) is module
        importlib.invalidate_caches()
        from fastsync import Once, Mutex
        assert fastsync.objects.lock.Lock is lock and lock().acquire()
        assert len(fastsync.raw.__path__) == 2, fastsync.raw.__path__
        """))  # fmt: skip


CHILDREN = """
import multiprocessing
import sys

def use(number):
    import fastsync
    with fastsync.Mutex(number) as guard:
        guard.value += 1
        return guard.value, "fastsync.objects.lock" in sys.modules

if __name__ == "__main__":
    for way in ("spawn", "forkserver"):
        context = multiprocessing.get_context(way)
        if way == "forkserver":
            context.set_forkserver_preload(["fastsync.threading"])
        with context.Pool(1) as pool:
            print(*pool.map(use, [1]), end=" ")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no forkserver")
def test_processes_that_are_started(run_python, tmp_path):
    program = tmp_path / "children.py"
    program.write_text(CHILDREN)
    assert run_python(program).stdout == "(2, False) (2, True) "
    assert run_python("-m", "fastsync", program).stdout.count("(2, ") == 2


# -- without the file ----------------------------------------------------------------


def copied(folder, *, binary):
    """The folder that a copy of the package is in."""
    shutil.copytree(PACKAGE, folder / "fastsync", ignore=shutil.ignore_patterns(
        "__pycache__", *[] if binary else ["_compiled.*"]))  # fmt: skip
    return folder


def refused(run_python, path):
    """What is said in place of importing it from there."""
    for what in ("threading", "objects.lock", "queue", "raw", "deadlock"):
        code = f"import sys; sys.path.insert(0, {str(path)!r}); import fastsync.{what}"
        done = run_python("-S", "-c", code, check=False)
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert last.startswith(
            f"ModuleNotFoundError: fastsync's compiled modules for {sys.implementation.cache_tag} "
            f"are not in {path}"), done.stderr  # fmt: skip
        assert "zip archive" in last


def test_zip_archive(run_python, tmp_path):
    folder = copied(tmp_path / "folder", binary=True)
    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.rglob("*.*"):
            file.write(path, path.relative_to(folder))
    refused(run_python, archive)


def test_other_python(run_python, tmp_path):
    refused(run_python, copied(tmp_path, binary=False))


# -- tools that pack programs ----------------------------------------------------------

# modulefinder reads import statements, as PyInstaller, Nuitka and cx_Freeze do.
FIND = """
import modulefinder, sys
finder = modulefinder.ModuleFinder(sys.argv[2:] + sys.path[1:])
finder.run_script(sys.argv[1])
print(*finder.modules)
"""
# What importing each module of the package needs, but for what is in the compiled file, and for
# what is part of a module of the standard library.
NEED = """
import importlib, sys
before = {*sys.modules}
import fastsync
from pkgutil import walk_packages
for module in walk_packages(fastsync.__path__, "fastsync."):
    if module.name != "fastsync.__main__":
        importlib.import_module(module.name)
for name in {*sys.modules} - before:
    if name.startswith("fastsync"):
        if not isinstance(sys.modules[name].__spec__.loader, fastsync._compiled.Loader):
            print(name)
    elif name in sys.stdlib_module_names and not name.startswith("_"):
        print(name)
"""


def test_tools_that_pack_programs_find_what_is_needed(run_python, tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import fastsync\n")
    # Alone with the standard library: modulefinder fails where a package has no __init__.py.
    folder = copied(tmp_path / "folder", binary=True)
    found = {*run_python("-S", "-c", FIND, program, folder).stdout.split()}
    needed = {*run_python("-c", NEED).stdout.split()}
    assert {"fastsync._compiled", "fastsync.raw", "fastsync.queue"} <= needed
    assert needed - found == set()
