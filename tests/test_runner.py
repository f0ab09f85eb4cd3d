"""`python -m fastsync`: like `python`, but with our locks.

Most tests run the same program both ways and compare everything that can be seen from outside.
"""

import os
import py_compile
import re
import signal
import subprocess
import sys
import textwrap
import time
import zipfile

import pytest
from conftest import run_python

import fastsync

NATIVE = ["Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier"]
SHOW = "import sys, threading; print(threading.Lock.__qualname__, sys.argv, sys.path[:2])"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, code):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(code))
    return path


def plain(text):
    """Return output without what differs from process to process.

    Our frames below the program's count towards the recursion limit.
    """
    return re.sub(r"0x[0-9a-f]+|(?<=repeated )9\d\d", "N", text)


def same(*arguments, interpreter=(), **options):
    """Run a program both ways, expect the same outcome, and return it."""
    options.setdefault("check", False)
    python = run_python(*interpreter, *arguments, **options)
    ours = run_python(*interpreter, "-m", "fastsync", *arguments, **options)
    assert plain(ours.stderr) == plain(python.stderr)
    assert plain(ours.stdout) == plain(python.stdout)
    assert ours.returncode == python.returncode
    return ours


class TestSwap:
    """The program's threading has our types."""

    CHECK = f"""
        import threading
        from fastsync._run import install as primitives
        for name in {NATIVE}:
            assert getattr(threading, name) is getattr(primitives, name), name
        import queue, logging
        assert type(queue.Queue().mutex) is primitives.Lock
        assert type(logging._lock) is primitives.RLock
        print("swapped", __name__)
    """

    @pytest.mark.parametrize(
        "arguments",
        [["app.py"], ["--", "app.py"], ["-m", "app"], ["-mapp"], ["folder"]],
        ids=" ".join,
    )
    def test_script(self, folder, arguments):
        write(folder / "app.py", self.CHECK)
        write(folder / "folder" / "__main__.py", self.CHECK)
        assert run_python("-m", "fastsync", *arguments).stdout == "swapped __main__\n"

    def test_code(self):
        done = run_python("-m", "fastsync", "-c", textwrap.dedent(self.CHECK))
        assert done.stdout == "swapped __main__\n"

    def test_stdin(self):
        done = run_python("-m", "fastsync", "-", input=textwrap.dedent(self.CHECK))
        assert done.stdout == "swapped __main__\n"

    def test_a_threaded_program_gives_the_same_result(self, folder):
        write(
            folder / "app.py",
            """
            import queue, threading
            work, results, lock = queue.Queue(), [], threading.Lock()
            def worker():
                while (item := work.get()) is not None:
                    with lock:
                        results.append(item * item)
            threads = [threading.Thread(target=worker) for _ in range(4)]
            for thread in threads: thread.start()
            for item in range(500): work.put(item)
            for thread in threads: work.put(None)
            for thread in threads: thread.join()
            print(sum(results), len(results))
            """,
        )
        assert same("app.py").stdout == "41541750 500\n"

    def test_the_gil_stays_off(self):
        if "free-threading" not in sys.version:
            pytest.skip("a build with the GIL")
        code = "import sys; print(sys._is_gil_enabled())"
        assert run_python("-m", "fastsync", "-c", code).stdout == "False\n"


GLOBALS = """
import sys
names = {name: value for name, value in globals().items() if name != "sys"}
print(list(names))
for name, value in names.items():
    print(name, type(value) if name in ("__loader__", "__spec__") else value)
print(getattr(__spec__, "name", None), getattr(__loader__, "name", None))
print(sys.argv, sys.path[0], sys.modules["__main__"].__dict__ is globals())
"""


class TestNamespace:
    """__main__, sys.argv and sys.path are what python makes them."""

    @pytest.mark.parametrize(
        "arguments",
        [
            ["app.py"],
            ["app.py", "a", "-b", "--", "-m", "c"],
            ["./app.py"],
            ["sub/app.py", "x"],
            ["sub/../app.py"],
            ["link.py"],
            ["-m", "app"],
            ["-m", "app", "-c", "--help"],
            ["-mapp", "a"],
            ["-m", "sub"],
            ["-m", "sub.app", "a"],
            ["sub", "a"],
            ["sub/"],
            ["app.zip", "a"],
            ["app.pyc", "a"],
            ["renamed", "a"],
            ["-c", GLOBALS, "a", "-m", "b"],
            ["-c" + GLOBALS, "a"],
        ],
        ids=lambda arguments: " ".join(arguments).replace(GLOBALS, "GLOBALS"),
    )
    def test_program(self, folder, arguments):
        write(folder / "app.py", GLOBALS)
        write(folder / "sub" / "app.py", GLOBALS)
        write(folder / "sub" / "__main__.py", GLOBALS)
        write(folder / "sub" / "__init__.py", "")
        write(folder / "elsewhere" / "real.py", GLOBALS)
        os.symlink("elsewhere/real.py", "link.py")
        with zipfile.ZipFile("app.zip", "w") as archive:
            archive.writestr("__main__.py", GLOBALS)
        py_compile.compile("app.py", "app.pyc")
        py_compile.compile("app.py", "renamed")
        done = same(*arguments)
        assert done.returncode == 0 and "__name__ __main__" in done.stdout

    def test_stdin(self):
        assert "<stdin>" in same("-", "a", "-b", input=GLOBALS).stdout

    @pytest.mark.parametrize("switch", ["-P", "-I", "-B", "-O", "-OO", "-bb", "-E", "-s"])
    def test_interpreter_switches(self, folder, switch):
        write(folder / "app.py", GLOBALS + "print(sys.flags, sys.path, __debug__)\n")
        if switch in "-I-E" and "PYTHONPATH" in os.environ:
            pytest.skip("fastsync is found by PYTHONPATH only")
        same("app.py", interpreter=[switch])
        same("-c", GLOBALS + "print(sys.flags, sys.path)", interpreter=[switch])

    def test_x_options(self):
        code = "import sys; print(sys._xoptions, sys.flags.dev_mode, sys.flags.utf8_mode)"
        same("-c", code, interpreter=["-X", "dev", "-X", "utf8=1", "-X", "mine=3"])

    def test_no_argument_after_ours_is_taken_for_ours(self):
        done = same("-c", "import sys; print(sys.argv)", "--info", "--help", "--version", "--")
        assert done.stdout == "['-c', '--info', '--help', '--version', '--']\n"

    def test_script_named_like_an_option(self, folder):
        write(folder / "-odd.py", "import sys; print(sys.argv)")
        assert run_python("-m", "fastsync", "--", "-odd.py", "x").stdout == "['-odd.py', 'x']\n"

    def test_file_is_gone_at_exit(self, folder):
        """As with python: the names belong to the run of the file."""
        write(
            folder / "app.py",
            """
            import atexit, sys
            atexit.register(lambda: print(sorted(vars(sys.modules["__main__"]))))
            """,
        )
        same("app.py")

    def test_classes_of_the_program_can_be_pickled(self, folder):
        write(
            folder / "app.py",
            """
            import pickle
            class Thing: pass
            print(type(pickle.loads(pickle.dumps(Thing()))) is Thing)
            """,
        )
        assert same("app.py").stdout == "True\n"


class TestFailures:
    """Exit codes, tracebacks and messages."""

    ENDS = (
        "1 / 0",
        "raise SystemExit(7)",
        "raise SystemExit('message')",
        "import json; json.loads('{')",
        "x = '",
    )
    MORE_ENDS = (
        "raise SystemExit",
        "raise SystemExit(None)",
        "import sys; sys.exit(300)",
        "import sys; sys.exit(-1)",
        "import sys; sys.exit((1, 2))",
        "def f(): f()\nf()",
        "try: 1 / 0\nexcept Exception as e: raise KeyError('x') from e",
        "try: 1 / 0\nfinally: undefined",
        "raise ExceptionGroup('several', [ValueError(1), TypeError(2)])",
        "raise Exception().with_traceback(None)",
        "this is no python",
        "if True:\nx",
        "raise GeneratorExit",
        "class E(BaseException): pass\nraise E('mine')",
    )

    @pytest.mark.parametrize("end", ENDS + MORE_ENDS)
    def test_end_of_a_script(self, folder, end):
        write(folder / "app.py", end)
        same("app.py")

    @pytest.mark.parametrize("end", ENDS)
    @pytest.mark.parametrize("how", ["module", "code", "stdin", "folder"])
    def test_end(self, folder, end, how):
        write(folder / "app.py", end)
        write(folder / "app" / "__main__.py", end)
        arguments = {"module": ["-m", "app"], "code": ["-c", end], "stdin": ["-"]}
        same(*arguments.get(how, ["app"]), **({"input": end} if how == "stdin" else {}))

    def test_output_comes_before_the_traceback(self, folder):
        write(folder / "app.py", "print('out'); 1 / 0")
        for arguments in (["app.py"], ["-c", "print('out'); 1 / 0"]):
            for runner in ([], ["-m", "fastsync"]):
                done = subprocess.run(
                    [sys.executable, *runner, *arguments],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    timeout=60,
                )
                if not runner:
                    expected = done.stdout
            assert done.stdout == expected

    def test_threads_end_before_the_process(self, folder):
        write(
            folder / "app.py",
            """
            import atexit, threading, time
            def work():
                time.sleep(0.1)
                print("thread done")
            atexit.register(print, "at exit")
            threading.Thread(target=work).start()
            1 / 0
            """,
        )
        assert same("app.py").stdout == "thread done\nat exit\n"

    def test_exception_in_a_thread(self, folder):
        write(
            folder / "app.py",
            """
            import threading
            def work(): 1 / 0
            thread = threading.Thread(target=work, name="mine")
            thread.start()
            thread.join()
            """,
        )
        same("app.py")

    HOOK = """
        import sys, traceback, types
        def hook(kind, value, tb):
            print("hook", kind, value, value.__traceback__ is tb, sys.excepthook is hook)
            print(*traceback.format_exception(kind, value, tb), sep="")
            while tb:
                print(tb.tb_frame.f_code.co_filename, tb.tb_lineno)
                tb = tb.tb_next
            print(sys.last_type, sys.last_value is value, sys.last_traceback is value.__traceback__)
            print(getattr(sys, "last_exc", value) is value)
        sys.excepthook = hook
        def f(): raise KeyError("x")
        f()
    """

    @pytest.mark.parametrize("how", ["script", "module", "code"])
    def test_excepthook_of_the_program(self, folder, how):
        write(folder / "app.py", self.HOOK)
        code = textwrap.dedent(self.HOOK)
        arguments = {"script": ["app.py"], "module": ["-m", "app"], "code": ["-c", code]}[how]
        done = same(*arguments)
        assert "_runner" not in done.stdout
        assert done.returncode == 1 and "hook <class 'KeyError'>" in done.stdout

    @pytest.mark.parametrize(
        "hook",
        [
            "def hook(*args): raise ValueError('in the hook')",
            "def hook(*args): sys.exit(9)",
            "hook = 3",
            "hook = print",
        ],
    )
    def test_odd_excepthooks(self, hook):
        same("-c", f"import sys\n{hook}\nsys.excepthook = hook\n1 / 0")

    def test_missing_excepthook(self):
        same("-c", "import sys\ndel sys.excepthook\n1 / 0")

    def test_atexit_sees_the_excepthook_of_the_program(self):
        code = (
            "import atexit, sys\n"
            "atexit.register(lambda: print(sys.excepthook is sys.__excepthook__))\n"
        )
        assert same("-c", code + "1 / 0").stdout == "True\n"
        assert same("-c", code + "sys.exit(3)").stdout == "True\n"

    def test_missing_file(self):
        done = same("nothing.py")
        assert done.returncode == 2 and "can't open file" in done.stderr
        same("no/where/nothing.py")

    def test_unreadable_file(self, folder):
        write(folder / "app.py", "pass").chmod(0)
        if os.access("app.py", os.R_OK):
            pytest.skip("this user may read everything")
        assert same("app.py").returncode == 2

    def test_missing_module(self):
        assert same("-m", "nothing").returncode == 1
        same("-m", "json.nothing")
        same("-m", "nothing.at.all")

    def test_package_without_main(self, folder):
        write(folder / "package" / "__init__.py", "")
        same("-m", "package")
        (folder / "empty").mkdir()
        same("empty")

    def test_broken_pyc(self, folder):
        (folder / "bad.pyc").write_bytes(b"nonsense" * 4)
        done = run_python("-m", "fastsync", "bad.pyc", check=False)
        assert done.returncode == 1
        assert "Bad magic number in .pyc file" in done.stderr
        assert "_runner" not in done.stderr

    def test_warnings(self, folder):
        code = """
            import warnings
            warnings.warn("shown: it is __main__", DeprecationWarning)
            def f(): warnings.warn("again", stacklevel=2)
            f()
            import helper
        """
        write(folder / "app.py", code)
        write(folder / "helper.py", "import warnings; warnings.warn('hidden', DeprecationWarning)")
        same("app.py")
        same("-c", textwrap.dedent(code))
        same("app.py", interpreter=["-W", "error"])
        same("app.py", interpreter=["-W", "ignore"])
        same("app.py", interpreter=["-X", "dev"])


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
class TestInterrupt:
    """An uncaught KeyboardInterrupt ends the process by SIGINT, after all clean-up."""

    CODE = "import atexit; atexit.register(print, 'at exit'); raise KeyboardInterrupt"

    @pytest.mark.parametrize("how", ["script", "module", "code", "stdin"])
    def test_raised(self, folder, how):
        write(folder / "app.py", self.CODE)
        arguments = {"script": ["app.py"], "module": ["-m", "app"], "code": ["-c", self.CODE]}
        done = same(*arguments.get(how, ["-"]), **({"input": self.CODE} if how == "stdin" else {}))
        assert done.returncode == -signal.SIGINT
        assert done.stdout == "at exit\n"
        assert done.stderr.endswith("KeyboardInterrupt\n")

    @pytest.mark.parametrize(
        "wait",
        [
            "threading.Event().wait()",
            "threading.Condition().__enter__() and None or lock.acquire()",
            "lock.acquire()",
            "threading.Semaphore(0).acquire()",
            "queue.Queue().get()",
        ],
    )
    def test_ctrl_c_in_a_wait(self, folder, wait):
        write(
            folder / "app.py",
            f"""
            import queue, threading
            lock = threading.Lock()
            lock.acquire()
            print("ready", flush=True)
            {wait}
            """,
        )
        child = subprocess.Popen(
            [sys.executable, "-m", "fastsync", "app.py"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert child.stdout.readline() == "ready\n"
            # A signal in the instant before the sleep is seen with the next one only.
            deadline = time.monotonic() + 30
            while child.poll() is None and time.monotonic() < deadline:
                child.send_signal(signal.SIGINT)
                try:
                    child.wait(0.2)
                except subprocess.TimeoutExpired:
                    pass
            _, errors = child.communicate(timeout=30)
        finally:
            child.kill()
            child.wait()
        assert child.returncode == -signal.SIGINT, errors
        assert "KeyboardInterrupt" in errors and "_runner" not in errors


class TestInspect:
    def test_prompt_after_the_program(self, folder):
        write(folder / "app.py", "x = 41")
        done = run_python("-i", "-m", "fastsync", "app.py", input="print(x + 1)\n")
        assert done.stdout == "42\n"

    def test_prompt_after_an_exception(self, folder):
        write(folder / "app.py", "x = 41\n1 / 0")
        done = run_python("-i", "-m", "fastsync", "app.py", input="print(x + 1)\n", check=False)
        assert done.stdout == "42\n"
        assert "ZeroDivisionError" in done.stderr and "_runner" not in done.stderr


# Prints whether the process is swapped; works in a parent and in any child.
CHILD = """
    import multiprocessing, os, sys, threading

    lock = threading.Lock()  # made when the main module is imported

    def report():
        names = [type(lock).__name__, threading.Lock.__name__, threading.Event.__module__]
        ours = "fastsync._run.install" in sys.modules and (
            threading.Lock is sys.modules["fastsync.objects.lock"].Lock
            and type(lock) is threading.Lock
        )
        mine = sorted(name for name in os.environ if "FASTSYNC" in name.upper())
        return ours, mine, sys.argv[1:]
"""


def child_program(method, body):
    start = f"if __name__ == '__main__':\n    context = multiprocessing.get_context({method!r})\n"
    return textwrap.dedent(CHILD) + start + textwrap.indent(textwrap.dedent(body), "    ")


@pytest.mark.skipif(os.name == "nt", reason="the start methods of POSIX")
@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
class TestChildren:
    """Children of multiprocessing are swapped, before the main module is imported there."""

    def run(self, folder, method, body, *arguments):
        (folder / "app.py").write_text(child_program(method, body))
        options = ["-W", "ignore::DeprecationWarning"]  # of fork in a threaded process
        return run_python(*options, "-m", "fastsync", *(arguments or ["app.py"]), "x")

    POOL = """
        with context.Pool(2) as pool:
            for result in {pool.apply(report).__repr__() for _ in range(4)}:
                print(result)
    """

    def test_pool(self, folder, method):
        assert self.run(folder, method, self.POOL).stdout == "(True, [], ['x'])\n"

    def test_module(self, folder, method):
        done = self.run(folder, method, self.POOL, "-m", "app")
        assert done.stdout == "(True, [], ['x'])\n"

    def test_executor(self, folder, method):
        body = """
            from concurrent.futures import ProcessPoolExecutor
            with ProcessPoolExecutor(2, mp_context=context) as pool:
                print(pool.submit(report).result())
        """
        assert self.run(folder, method, body).stdout == "(True, [], ['x'])\n"

    def test_grandchild(self, folder, method):
        body = "grandchild = None\n"
        code = child_program(method, "").replace(
            "if __name__",
            textwrap.dedent(
                f"""
                def child(queue):
                    inner = multiprocessing.get_context({method!r})
                    process = inner.Process(target=grandchild, args=(queue,))
                    process.start()
                    process.join()

                def grandchild(queue):
                    queue.put(report())

                if __name__"""
            ),
        )
        body = """
            queue = context.Queue()
            process = context.Process(target=child, args=(queue,))
            process.start()
            print(queue.get(timeout=30))
            process.join()
        """
        code += textwrap.indent(textwrap.dedent(body), "    ")
        (folder / "app.py").write_text(code)
        options = ["-W", "ignore::DeprecationWarning"]
        done = run_python(*options, "-m", "fastsync", "app.py", "x")
        assert done.stdout == "(True, [], ['x'])\n"

    def test_manager(self, folder, method):
        """Its server is a child that gets the lock classes by name."""
        body = """
            with context.Manager() as manager:
                lock, event, semaphore = manager.Lock(), manager.Event(), manager.Semaphore(2)
                with lock:
                    event.set()
                print(event.is_set(), semaphore.acquire(), manager.Barrier(1).wait())
        """
        assert self.run(folder, method, body).stdout == "True True 0\n"

    def test_exception_in_a_child_shows_no_frame_of_ours(self, folder, method):
        body = """
            process = context.Process(target=divmod, args=(1, 0))
            process.start()
            process.join()
            print(process.exitcode)
        """
        done = self.run(folder, method, body)
        assert done.stdout == "1\n"
        assert "ZeroDivisionError" in done.stderr
        assert os.path.dirname(fastsync.__file__) not in done.stderr

    def test_install_in_the_program_swaps_children_too(self, folder, method):
        code = child_program(method, self.POOL).replace(
            "import multiprocessing, ",
            "import fastsync\n"
            "if __name__ == '__main__': fastsync.install()\n"
            "import multiprocessing, ",
        )
        (folder / "app.py").write_text(code)
        done = run_python("-W", "ignore::DeprecationWarning", "app.py", "x")
        assert done.stdout == "(True, [], ['x'])\n"


class TestOtherProcesses:
    def test_subprocess_runs_plain_python(self, folder):
        code = """
            import os, subprocess, sys
            before = dict(os.environ)
            code = "import sys, threading; print(type(threading.Lock()).__module__)"
            code += "; print('fastsync' in sys.modules)"
            print(subprocess.run([sys.executable, "-c", code], capture_output=True).stdout.decode())
            print([name for name in os.environ if "fastsync" in name.lower()])
        """
        write(folder / "app.py", code)
        assert run_python("-m", "fastsync", "app.py").stdout == "_thread\nFalse\n\n[]\n"

    def test_environment_is_untouched(self):
        code = "import os; print(sorted(os.environ.items()))"
        same("-c", code)

    def test_fork(self):
        if not hasattr(os, "fork"):
            pytest.skip("no fork here")
        code = """
import os, threading
lock = threading.Lock()
lock.acquire()
pid = os.fork()
if not pid:
    lock.release()
    with lock, threading.Condition():
        os._exit(threading.Lock is not type(lock))
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
        assert run_python("-m", "fastsync", "-c", code).stdout == "0\n"


class TestAnswers:
    def test_info(self):
        done = run_python("-m", "fastsync", "--info")
        lines = done.stdout.splitlines()
        assert lines[0] == f"fastsync {fastsync.__version__}"
        assert lines[1].startswith(f"python {sys.version.split()[0]}, ")
        free = "free-threading" in sys.version
        assert lines[1].endswith("free-threaded build" if free else "build with the GIL")
        assert lines[2] == f"GIL {'off' if free else 'on'}"
        assert re.fullmatch(r"wait backend \w+", lines[3])
        assert all(name in lines[4] for name in NATIVE)
        assert lines[5].startswith("replaces queue.{Queue, ")
        assert len(lines) == 6

    def test_version_and_help(self):
        done = run_python("-m", "fastsync", "--version")
        assert done.stdout == f"fastsync {fastsync.__version__}\n"
        usage = run_python("-m", "fastsync", "--help").stdout
        assert "script.py" in usage and "-m module" in usage

    @pytest.mark.parametrize("arguments", [[], ["--"], ["-m"], ["-c"], ["--what"], ["-W", "error"]])
    def test_misuse(self, arguments):
        done = run_python("-m", "fastsync", *arguments, check=False, input="")
        assert done.returncode == 2
        assert done.stdout == ""
        assert "python -m fastsync: " in done.stderr and "usage: " in done.stderr
        assert "Traceback" not in done.stderr
