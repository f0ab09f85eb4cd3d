"""What gets installed, and what importing it does: the wheel, the sdist, the GIL, `threading`."""

import copy
import importlib
import io
import pickle
import pkgutil
import re
import shutil
import sys
import sysconfig
import tarfile
import textwrap
import types
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from conftest import run_build

import fastsync
import fastsync._run.install

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(fastsync.__file__).parent
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(fastsync.__path__, "fastsync.")
    if module.name != "fastsync.__main__"
)  # fmt: skip
IMPORT_ALL = f"import sys, {', '.join(MODULES)}; "
# "mutex.pyx", "include/fastsync/atomic.h": what is below the package's folder.
SOURCES = sorted(
    path.relative_to(ROOT / "fastsync").as_posix()
    for path in (ROOT / "fastsync").rglob("*.*")
    if path.suffix in (".py", ".pyi", ".pyx", ".pxd", ".h", ".typed")
)
HEADERS = sorted(path.name for path in (ROOT / "fastsync/include/fastsync").glob("*.h"))


# -- contents ----------------------------------------------------------------


def files_of_wheel():
    """Name and contents of what the wheel has put into site-packages."""
    try:
        distribution = metadata.distribution("fastsync-threading")
    except metadata.PackageNotFoundError:
        pytest.skip("fastsync was not installed from a wheel")
    names = [str(file) for file in distribution.files if "__pycache__" not in str(file)]
    if "fastsync/__init__.py" not in names:
        pytest.skip("fastsync is installed as editable")
    return {name: Path(distribution.locate_file(name)).read_bytes() for name in names}


def check_contents(names):
    """Check the names of a wheel's files."""
    names = {name.removeprefix("fastsync/") for name in names if name.startswith("fastsync/")}
    wanted = [name for name in SOURCES if not name.endswith(".pyx")]
    assert [name for name in wanted if name not in names] == []
    # One binary, and nothing else: no C, no .pyx, no tests.
    binary = "_compiled" + sysconfig.get_config_var("EXT_SUFFIX")
    assert names - set(wanted) == {binary}


def test_every_source_is_a_module_of_the_one_binary():
    names = {f"fastsync.{n[:-4].replace('/', '.')}" for n in SOURCES if n.endswith(".pyx")}
    assert names <= set(MODULES)
    binary = importlib.import_module("fastsync._compiled")
    for name in names - {binary.__name__}:
        module = importlib.import_module(name)
        parent = importlib.import_module(name.rpartition(".")[0])
        assert module.__name__ == module.__spec__.name == name
        assert module.__package__ == parent.__name__
        assert module.__file__ == binary.__file__
        assert getattr(parent, name.rpartition(".")[2]) is module
        assert name.rpartition(".")[2] in [
            found.name for found in pkgutil.iter_modules(parent.__path__)
        ]
    for name in ("fastsync.raw.nothing", "fastsync.raw.lock", "fastsync.mutex"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(name)


def test_modules_are_found_though_the_caches_of_imports_are_cleared(run_python):
    code = """
    import importlib, sys
    import fastsync.raw.mutex
    sys.path_importer_cache.clear()
    import fastsync.objects.lock, fastsync.raw.rwlock
    sys.path_importer_cache.clear()
    importlib.invalidate_caches()
    from fastsync import Arc, RwLock, channel, deadlock
    found = importlib.util.find_spec("fastsync.objects.counter")
    assert found.origin == fastsync._compiled.__file__
    for name in [name for name in sys.modules if name.startswith("fastsync")]:
        del sys.modules[name]
    import fastsync.objects.lock, fastsync.objects.barrier
    assert fastsync.objects.lock.Lock().acquire()
    """
    run_python("-c", textwrap.dedent(code))


def test_wheel_contents():
    files = files_of_wheel()
    check_contents(files)
    tops = {name.split("/")[0] for name in files}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"fastsync"}


def test_wheel_metadata():
    files_of_wheel()
    facts = metadata.metadata("fastsync-threading")
    assert facts["Version"] == fastsync.__version__
    assert facts["License-Expression"] == "MIT"
    assert facts["Requires-Python"] == ">=3.11"
    assert facts.get_all("Requires-Dist") is None
    assert not [line for line in facts.get_all("Classifier") if line.startswith("License")]


def test_wheel_is_small():
    files = files_of_wheel()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, contents in files.items():
            wheel.writestr(name, contents)
    size = len(archive.getvalue())
    print(f"the wheel has {size / 1e6:.2f} MB")
    assert size < 1.1e6


@pytest.mark.skipif(sys.platform != "linux", reason="looks at ELF files")
def test_wheel_is_stripped():
    for name, contents in files_of_wheel().items():
        if name.endswith(".so"):
            assert b".symtab" not in contents, name
            assert b".debug_info" not in contents, name


@pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="needs the checkout")
@pytest.mark.slow
def test_sdist_and_its_wheel(tmp_path):
    source = tmp_path / "source"
    # With the C that is there already, times and all: what is up to date is not made again.
    shutil.copytree(
        ROOT, source, ignore=shutil.ignore_patterns(".*", "[!c]*-*", "plain", "*.egg-info", "dist")
    )
    build = "from setuptools import build_meta as b; print(b.build_sdist(sys.argv[1]))"
    run_build("-c", f"import sys; {build}", tmp_path, cwd=source)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
        sdist.extractall(tmp_path, filter="data")
    assert {f"fastsync/{name}" for name in SOURCES} <= names
    for name in ["setup.py", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "Makefile",
                 "tests/test_package.py", "docs/index.md", "tools/run_tests.sh"]:  # fmt: skip
        assert name in names
    assert not [
        name for name in names
        if name.startswith("build") or name.endswith((".so", ".pyd", ".pyc"))
        or (name.endswith(".c") and name.startswith("fastsync"))
    ]  # fmt: skip

    folder = tmp_path / archive.name.removesuffix(".tar.gz")
    # Without optimization, as only the names are looked at: it takes half as long.
    run_build(
        *"-m pip wheel -q --no-deps --no-build-isolation --no-index -w".split(), tmp_path, folder,
        cwd=tmp_path, FASTSYNC_DEBUG=1,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        check_contents(archive.namelist())


@pytest.mark.skipif(not (ROOT / "tools").exists(), reason="needs the checkout")
def test_every_copy_of_the_version_agrees(tmp_path):
    """And the tool that sees to it finds one that does not."""
    for name in ("fastsync", "pyproject.toml", "tools/release.py"):
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, target)
    tool = tmp_path / "tools/release.py"
    assert run_build(tool, "--check") == ""
    run_build(tool, "9.7.3")
    assert run_build(tool, "--check") == ""
    for name in filter(re.compile(r".*\.(pxd|h)").fullmatch, SOURCES):
        text = (tmp_path / "fastsync" / name).read_text(encoding="utf-8")
        assert set(re.findall(r"\bfastsync_\d+_\d+_", text)) <= {"fastsync_9_7_"}, name
        assert set(re.findall(r"compiled_for_\d[\d_]*", text)) <= {"compiled_for_9_7_3"}, name
    assert "_NUMBERS = (9, 7, 3)" in (tmp_path / "fastsync/__init__.py").read_text()
    header = tmp_path / "fastsync/include/fastsync/version.h"
    header.write_text(header.read_text().replace("9.7.3", "9.7.2"))
    with pytest.raises(pytest.fail.Exception, match=r"version\.h does not have version 9\.7\.3"):
        run_build(tool, "--check")


ATOMIC_PAIR = """
typedef struct { long a, b; } pair;
_Atomic pair shared;
int main(void) { pair seen = shared; seen.a++; shared = seen; return 0; }
"""


@pytest.mark.skipif(not shutil.which("gcc"), reason="asks gcc")
def test_the_build_finds_out_whether_atomics_need_a_library():
    script = f"""
    import importlib.util, os
    from setuptools import Distribution
    from distutils.ccompiler import new_compiler
    from distutils.sysconfig import customize_compiler
    os.chdir({str(ROOT)!r})
    spec = importlib.util.spec_from_file_location("fastsync_setup", "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    build = module.BuildExt(Distribution())
    build.compiler = new_compiler()
    customize_compiler(build.compiler)
    assert build.libatomic(module.ATOMICS) == []
    assert build.libatomic({ATOMIC_PAIR!r}) == ["-latomic"]
    build.probe(module.INTERNALS)
    try:
        build.probe(module.INTERNALS.replace("== FS_SIGNALS_PENDING", "!= FS_SIGNALS_PENDING"))
    except Exception:
        pass
    else:
        assert module.sys.version_info < (3, 13), "a bit of the interpreter was not compared"
    """
    run_build("-c", textwrap.dedent(script))


def test_get_include():
    folder = Path(fastsync.get_include())
    assert sorted(path.name for path in (folder / "fastsync").glob("*.h")) == HEADERS


def test_typed():
    assert (PACKAGE / "py.typed").exists()


# -- import ------------------------------------------------------------------


def test_the_gil_stays_off(run_python):
    """Without a warning, too: one missing directive turns the GIL back on for the process."""
    code = IMPORT_ALL + "print(getattr(sys, '_is_gil_enabled', lambda: True)())"
    printed = run_python("-W", "error", "-c", code)
    assert printed.stdout.strip() == str(not sysconfig.get_config_var("Py_GIL_DISABLED"))
    assert printed.stderr == ""


def test_import_changes_nothing(run_python):
    run_python("-c", f"""if 1:
        import threading
        from threading import Lock
        modules = {{"threading", "_thread", "queue", "builtins", "sys", "signal"}}
        for name in modules:
            __import__(name)
        import sys
        before = {{name: dict(vars(sys.modules[name])) for name in modules}}
        hooks = list(sys.meta_path), list(sys.path), list(sys.path_hooks)
        {IMPORT_ALL}
        for name, old in before.items():
            new = vars(sys.modules[name])
            assert new.keys() == old.keys(), (name, new.keys() ^ old.keys())
            changed = [key for key in old if new[key] is not old[key]]
            # The maps of modules and the last values are the interpreter's own business.
            assert changed in ([], ["path_importer_cache"]), (name, changed)
        assert hooks == (list(sys.meta_path), list(sys.path), list(sys.path_hooks))
        """)  # fmt: skip


def test_import_is_lazy(run_python):
    code = "import sys, fastsync; print([name for name in sys.modules if 'fastsync.' in name])"
    assert run_python("-c", code).stdout.strip() == "[]"


def test_import_time_is_shown(run_python):
    for what in ("fastsync", "fastsync.threading", *MODULES):
        code = f"import time; a = time.perf_counter(); import {what}; b = time.perf_counter()"
        seconds = run_python("-c", f"{code}; print(b - a)").stdout
        print(f"import {what}: {float(seconds) * 1000:.1f} ms")


@pytest.mark.parametrize("name", sorted(fastsync.__all__))
def test_every_public_name_is_there(name):
    assert name in dir(fastsync)
    assert getattr(fastsync, name) is getattr(fastsync, name)


def test_unknown_name():
    with pytest.raises(AttributeError, match="module 'fastsync' has no attribute 'Mutexx'"):
        _ = fastsync.Mutexx


def test_subinterpreter(run_python):
    """An interpreter with a GIL of its own cannot share our parking table: it is told so."""
    run_python("-c", """if 1:
        import sys
        code = "import fastsync.objects.lock as p; l = p.Lock(); l.acquire(); l.release()"
        if sys.version_info >= (3, 13):
            import _interpreters
            error = _interpreters.exec(_interpreters.create("isolated"), code)
            error = error and error.msg
        else:
            import _xxsubinterpreters as interpreters
            error = ""
            try:
                interpreters.run_string(interpreters.create(), code)
            except interpreters.RunFailedError as failure:
                error = str(failure)
        assert not error or "interpreter" in error, error
        from fastsync.objects.lock import Lock  # it still works here
        with Lock():
            pass
        """)  # fmt: skip


def test_subinterpreter_that_shares_the_gil_does_not_take_us_away(run_python):
    """Cython lets the first interpreter in that asks, and no other after it."""
    if sys.version_info < (3, 13):
        pytest.skip("no interpreter can be asked whether it is the main one")
    done = run_python("-c", """if 1:
        import _interpreters
        code = "import fastsync.threading"
        print(_interpreters.exec(_interpreters.create("legacy"), code).msg)
        import fastsync.threading
        """)  # fmt: skip
    assert done.stdout == "fastsync works in the main interpreter only\n"


# -- types -------------------------------------------------------------------


# What is no object with a state of its own, or is not made by calling it; guards besides.
NOT_MADE = {
    "DeadlockedThread", "LockView", "OnceState", "Ordering", "Unparker", "Weak", "lazy_property",
    "once",
}  # fmt: skip
ARGUMENTS = {
    "Barrier": (1,),
    "holding": (None, 1),
    "AtomicArray": ("int64", 4),
    "AtomicRef": (None,),
    "AtomicCell": (1,),
    "Arc": (1,),
    "LazyLock": (int,),
}
OURS = {name: getattr(fastsync, name) for name in fastsync.__all__}
OURS |= {kind.__name__: kind for kind in fastsync._run.install.NATIVE}
TYPES = {
    name: kind
    for name, kind in OURS.items()
    if isinstance(kind, type)
    and not issubclass(kind, BaseException)
    and name not in NOT_MADE
    and not name.endswith("Guard")
}


# RLock and exceptions take any arguments, as their originals do.
@pytest.mark.parametrize("name", sorted({*TYPES, *NOT_MADE} - {"DeadlockedThread", "RLock"}))
def test_refuses_arguments_that_it_does_not_know(name):
    with pytest.raises(TypeError):
        OURS[name](1, 2, 3, 4, 5)
    with pytest.raises(TypeError):
        OURS[name](*ARGUMENTS.get(name, ()), nonsense=1)


@pytest.mark.parametrize("name", TYPES)
class TestType:
    def test_is_not_copied(self, name):
        one = TYPES[name](*ARGUMENTS.get(name, ()))
        for make in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError):
                make(one)
        with pytest.raises(TypeError):
            pickle.dumps(one, protocol=0)

    def test_methods_are_plain_descriptors(self, name):
        """Cython's own function objects are mortal on 3.13t: all threads would count on them."""
        plain = (types.MethodDescriptorType, types.ClassMethodDescriptorType, staticmethod)
        for attribute, value in vars(TYPES[name]).items():
            if callable(getattr(TYPES[name], attribute, None)) and not attribute.startswith("__"):
                assert isinstance(value, plain), attribute

    def test_has_a_docstring(self, name):
        assert TYPES[name].__doc__
