"""`python -m fastsync`: run a program with fastsync's locks, otherwise as `python` would run it.

What `python` does is in CPython's Modules/main.c and Python/pythonrun.c; the names of the
functions there are given where we do the same.
"""

import builtins
import os
import runpy
import sys
from importlib.machinery import BuiltinImporter, SourceFileLoader, SourcelessFileLoader
from importlib.util import MAGIC_NUMBER

USAGE = """\
usage: python [interpreter options] -m fastsync [option ...] [--] script.py [argument ...]
       python [interpreter options] -m fastsync [option ...] -m module [argument ...]
       python [interpreter options] -m fastsync [option ...] -c code [argument ...]
       python [interpreter options] -m fastsync [option ...] - [argument ...]
       python [interpreter options] -m fastsync profile [option ...] PROGRAM AS ABOVE
       python -m fastsync profile-report RECORDING ...
       python -m fastsync --info | --help | --version
"""

HELP = """
Run a Python program, unchanged, with fastsync's locks and queues in place of the originals.

  script.py   a file with source or byte code, or a directory or zip file with a __main__.py
  -m module   a module or package, by name
  -c code     the program as a string
  -           the program is read from standard input
  --deadlocks report deadlocks and locks taken in both orders, on stderr, as they come up
  --deadlocks=raise
              let a call that would wait for ever raise DeadlockError
  --hang-report SECONDS
              write what every thread waits for to stderr when nothing has moved for so long
  profile     report who waited for which lock, and who made them wait: profile --help
  --info      print what would be replaced, and on what Python, one fact a line
  --version   print the version of fastsync
  --help      print this text
"""


def main():
    """Do what the command line says."""
    arguments = sys.argv[1:]
    begin = []  # what is switched on before the program runs
    if arguments[:1] == ["profile-report"] or arguments[:1] == ["profile"]:
        arguments = _profile(arguments[0], arguments[1:], begin)
    else:
        while arguments and _deadlock_option(arguments, begin):
            pass
    if not arguments:
        _refuse("a program to run is missing")
    first, rest = arguments[0], arguments[1:]
    if first in _ANSWERS:
        print(_ANSWERS[first]())
        return
    if first == "--":
        if not rest:
            _refuse("a program to run is missing")
        run = _run_script, rest
    elif first == "-":
        run = _run_stdin, arguments
    elif first[:2] in _WITH_VALUE:
        # "-c code" or "-ccode", like python.
        values = [first[2:], *rest] if first[2:] else rest
        if not values:
            _refuse(f"Argument expected for the {first} option")
        run = _WITH_VALUE[first[:2]], values
    elif first.startswith("-"):
        _refuse(f"unknown option {first}; options of the interpreter go before -m fastsync")
    else:
        run = _run_script, arguments

    from fastsync._run import install as _install

    _install.install()
    for switch_on in begin:
        switch_on()
    function, values = run
    function(values[0], values[1:])


def _deadlock_option(arguments, begin):
    """Take an option of the detector off the arguments; return whether there was one."""
    name, given, value = arguments[0].partition("=")
    if name not in ("--deadlocks", "--hang-report"):
        return False
    del arguments[0]
    from fastsync import deadlock

    if name == "--deadlocks":
        if given and value != "raise":
            _refuse(f"--deadlocks takes no value but raise, not {value!r}")
        begin.append((lambda: deadlock.watch(action="raise")) if given else deadlock.watch)
        return True
    if not given:
        if not arguments:
            _refuse("Argument expected for the --hang-report option")
        value = arguments.pop(0)
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        _refuse(f"--hang-report needs a positive number of seconds, not {value!r}")
    begin.append(lambda: deadlock.hang_report(seconds))
    return True


def _profile(command, arguments, begin):
    """Do `profile-report`, or return the program that `profile` is to run."""
    from fastsync._run import profile_command

    if arguments[:1] in (["--help"], ["-h"]):
        print(profile_command.USAGE + profile_command.HELP)
        sys.exit(0)
    try:
        if command == "profile-report":
            sys.exit(profile_command.report(arguments))
        options, arguments = profile_command.parse(arguments)
    except profile_command.Refused as error:
        _refuse(str(error))
    begin.append(lambda: profile_command.begin(options))
    return arguments


def _refuse(message):
    sys.stderr.write(f"python -m fastsync: {message}\n{USAGE}")
    sys.exit(2)


def _version():
    from fastsync import __version__

    return f"fastsync {__version__}"


def _info():
    from fastsync._run import compat
    from fastsync._run import install as _install
    from fastsync.raw import parking

    build = "free-threaded build" if compat.FREE_THREADED else "build with the GIL"
    names = ", ".join(name for name in _install.REPLACEMENTS if not name.startswith("_"))
    return "\n".join(
        [
            _version(),
            f"python {sys.version.split()[0]}, {build}",
            f"GIL {'on' if compat.gil_enabled() else 'off'}",
            f"wait backend {parking.wait_backend()}",
            f"replaces threading.{{{names}}}",
            f"replaces queue.{{{', '.join(_install.QUEUES)}}}",
        ]
    )


def _run_script(path, arguments):
    # config_run_filename_abspath: __file__ and messages have the whole path, sys.argv[0] has not.
    full = os.path.join(os.getcwd(), path)
    sys.argv = [path, *arguments]
    if _has_importer(full):
        if sys.flags.safe_path:
            sys.path.insert(0, full)
        else:
            sys.path[0] = full
        _fresh_main(BuiltinImporter)
        _run(runpy._run_module_as_main, "__main__", False)
        return
    try:
        with open(full, "rb") as file:
            source = file.read()
    except OSError as error:
        reason = f"[Errno {error.errno}] {error.strerror}"
        sys.stderr.write(f"{sys.orig_argv[0]}: can't open file {full!r}: {reason}\n")
        sys.exit(2)
    _set_path0(os.path.dirname(os.path.realpath(full)))
    if full.endswith(".pyc") or source.startswith(MAGIC_NUMBER[:2]):
        loader, load = SourcelessFileLoader, _load_pyc
    else:
        loader, load = SourceFileLoader, _compile
    namespace = _fresh_main(loader("__main__", full), __file__=full)
    _run_and_forget_file(load, source, full, namespace)


def _run_module(name, arguments):
    # sys.path[0] is right already: it was made for our own -m.
    sys.argv = ["-m", *arguments]
    _fresh_main(BuiltinImporter)
    _run(runpy._run_module_as_main, name)


def _run_code(code, arguments):
    sys.argv = ["-c", *arguments]
    _set_path0("")
    namespace = _fresh_main(BuiltinImporter)
    if sys.version_info >= (3, 14) and code[:1].isspace():
        from textwrap import dedent

        code = dedent(code)
    program = _run(_compile, code, "<string>")
    if sys.version_info >= (3, 13):  # run_mod: tracebacks show the code since then
        import linecache

        key = program if hasattr(linecache, "_interactive_cache") else "<string>"
        linecache._register_code(key, code, "<string>")
    _run(exec, program, namespace)


def _run_stdin(dash, arguments):
    sys.argv = [dash, *arguments]
    _set_path0("")
    source = sys.stdin.buffer.read()
    namespace = _fresh_main(BuiltinImporter, __file__="<stdin>")
    _run_and_forget_file(_compile, source, "<stdin>", namespace)


def _run_and_forget_file(load, source, filename, namespace):
    # _PyRun_SimpleFile
    try:
        _run(exec, _run(load, source, filename), namespace)
    finally:
        for stream in (sys.stderr, sys.stdout):
            try:
                stream.flush()
            except Exception:
                pass
        namespace.pop("__file__", None)
        namespace.pop("__cached__", None)


def _compile(source, filename):
    return compile(source, filename, "exec", dont_inherit=True)


def _load_pyc(data, filename):
    # run_pyc_file
    import marshal

    if not data.startswith(MAGIC_NUMBER):
        raise RuntimeError("Bad magic number in .pyc file")
    code = marshal.loads(data[16:])
    if not isinstance(code, type(_load_pyc.__code__)):
        raise RuntimeError("Bad code object in .pyc file")
    return code


def _has_importer(path):
    """Return whether the path is a directory or a zip file (pymain_get_importer)."""
    for hook in sys.path_hooks:
        try:
            hook(path)
        except ImportError:
            continue
        return True
    return False


def _set_path0(folder):
    if not sys.flags.safe_path:  # else there is no such entry
        sys.path[0] = folder


def _fresh_main(loader, **names):
    """Make the namespace of `__main__`, which was ours until now, what a program finds there."""
    namespace = sys.modules["__main__"].__dict__
    annotations = {"__annotations__": {}} if "__annotations__" in namespace else {}
    namespace.clear()
    namespace.update(
        __name__="__main__",
        __doc__=None,
        __package__=None,
        __loader__=loader,
        __spec__=None,
        **annotations,
        __builtins__=builtins,
        **names,
    )
    if names and sys.version_info < (3, 15):
        namespace["__cached__"] = None
    return namespace


def _run(function, *arguments):
    """Call the function; its exception will be shown without our frames and those below them."""
    try:
        return function(*arguments)
    except BaseException as error:
        # An exit shows nothing, unless -i keeps the interpreter alive.
        if not isinstance(error, SystemExit) or sys.flags.inspect:
            traceback = error.__traceback__
            while traceback and traceback.tb_frame.f_globals is globals():
                traceback = traceback.tb_next
            _hide_runner(traceback)
        raise


def _hide_runner(traceback):
    """Let the interpreter, at the end, show the exception with this traceback.

    Only there it is known how the process ends (by a status, by SIGINT, or not at all after -i),
    so we take the place of `sys.excepthook` for that one call.
    """
    hook = getattr(sys, "excepthook", None)

    def show(kind, error, _):
        error.__traceback__ = sys.last_traceback = traceback
        if hook is None:
            del sys.excepthook
            sys.stderr.write("sys.excepthook is missing\n")
            sys.__excepthook__(kind, error, traceback)
            return
        sys.excepthook = hook
        try:
            hook(kind, error, traceback)
        except SystemExit:
            raise
        except BaseException as failure:  # _PyErr_PrintEx, less our own frame
            sys.stderr.write("Error in sys.excepthook:\n")
            trace = failure.__traceback__.tb_next
            sys.__excepthook__(type(failure), failure.with_traceback(trace), trace)
            sys.stderr.write("\nOriginal exception was:\n")
            sys.__excepthook__(kind, error, traceback)

    sys.excepthook = show


_WITH_VALUE = {"-m": _run_module, "-c": _run_code}
_ANSWERS = {
    "--help": lambda: USAGE + HELP,
    "-h": lambda: USAGE + HELP,
    "--info": _info,
    "--version": _version,
}
