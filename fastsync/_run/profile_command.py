"""`python -m fastsync profile` and `profile-report`."""

import atexit
import glob
import os
import shutil
import signal
import sys
import tempfile

USAGE = """\
usage: python -m fastsync profile [option ...] [--] script.py|-m module|-c code|- [argument ...]
       python -m fastsync profile-report [--format FORMAT] [--output FILE] RECORDING ...
"""

HELP = """
Run a program, unchanged, with fastsync's locks, and report at its end who waited for which
lock, where, and who made them wait.

  --output FILE   write the report there; the name says the format: .html, .json (to be read by
                  profile-report), .txt, .speedscope.json, .collapsed, .pb.gz. May be given more
                  than once
  --rate US       microseconds; waits that last longer are always kept, shorter ones sampled (10)
  --signal NAME   do not record until the process gets this signal (USR1, say); the next one ends
                  the recording and writes its report, a further one begins anew
  --no-children   leave out the processes that the program forks or starts by multiprocessing
  --quiet         do not print the table on stderr at the end

profile-report reads what --output FILE.json wrote, several files as the processes of one program,
and prints the table, or writes --output FILE.
"""

_FOLDER = "FASTSYNC_PROFILE_FOLDER"  # where children put their recordings, and the rate
_RATE = "FASTSYNC_PROFILE_RATE"


class Refused(Exception):
    """The command line is wrong; its text says how."""


def parse(arguments):
    """Return (the options, the rest): what comes before the program, and the program."""
    options = {"output": [], "rate": 10.0, "signal": None, "children": True, "quiet": False}
    rest = list(arguments)
    while rest and rest[0].startswith("--") and rest[0] != "--":
        name, given, value = rest.pop(0).partition("=")
        if name in ("--no-children", "--quiet") and not given:
            options["children" if name == "--no-children" else "quiet"] = name == "--quiet"
            continue
        if name not in ("--output", "--rate", "--signal"):
            raise Refused(f"unknown option {name} of profile")
        if not given:
            if not rest:
                raise Refused(f"{name} needs a value")
            value = rest.pop(0)
        if name == "--output":
            _check_output(value)
            options["output"].append(value)
        elif name == "--rate":
            options["rate"] = _positive(value)
        else:
            options["signal"] = _signal_number(value)
    return options, rest


def _check_output(path):
    from fastsync._watch.profile_report import format_of

    try:
        format_of(path)
    except ValueError as error:
        raise Refused(str(error)) from None


def _positive(text):
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise Refused(f"--rate needs a positive number of microseconds, not {text!r}")
    return value


def _signal_number(text):
    number = getattr(signal, "SIG" + text.upper().removeprefix("SIG"), None)
    if not isinstance(number, int):
        raise Refused(f"there is no signal {text!r}")
    return number


def begin(options):
    """Record from now on, or when the signal comes; report at the end of the process."""
    run = _Run(options)
    if options["children"]:
        run.follow_children()
    if options["signal"] is not None:
        signal.signal(options["signal"], run.on_signal)
    else:
        run.start()
    atexit.register(run.finish)


class _Run:
    """The recording of one program."""

    def __init__(self, options):
        self.options = options
        self.pid = os.getpid()
        self.folder = None

    def on_signal(self, number, frame):
        from fastsync import profile

        if profile.running():
            self.report()
        else:
            self.start()

    def start(self):
        from fastsync import profile

        profile.start(self.options["rate"] * 1e-6)
        if self.folder is not None:  # children that start from now on record, too
            os.environ[_FOLDER] = self.folder
            os.environ[_RATE] = str(self.options["rate"])

    def finish(self):
        from fastsync import profile

        if os.getpid() != self.pid:
            save_child()
        elif profile.running():
            self.report()
        if os.getpid() == self.pid and self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def report(self):
        from fastsync import profile

        recordings = [profile.stop()]
        if self.folder is not None:
            os.environ.pop(_FOLDER, None)
            for path in sorted(glob.glob(os.path.join(self.folder, "*.json"))):
                recordings.append(profile.load(path))
                os.remove(path)  # the next report is of other waits
        recording = profile.merge(recordings)
        for path in self.options["output"]:
            try:
                recording.save(path)
                sys.stderr.write(f"fastsync: wrote {path}\n")
            except OSError as error:
                sys.stderr.write(f"fastsync: cannot write {path}: {error}\n")
        if not self.options["quiet"]:
            sys.stderr.write(recording.report())
        sys.stderr.flush()

    def follow_children(self):
        self.folder = tempfile.mkdtemp(prefix="fastsync-profile-")
        follow_exit()


_stock_exit = os._exit


def _exit_saving(status):
    """Save a child's recording, then end it as os._exit()."""
    try:
        save_child()
    finally:
        _stock_exit(status)


_exit_saving.__name__ = _exit_saving.__qualname__ = "_exit"
_exit_saving.__doc__ = _stock_exit.__doc__

_parent = os.getpid()


def follow_exit():
    """Let os._exit(), the end of forked children, save what they recorded."""
    global _parent
    _parent = os.getpid()
    os._exit = _exit_saving


def save_child():
    """In a child: put its recording where the parent will look for it."""
    from fastsync import profile

    folder = os.environ.get(_FOLDER)
    if folder and os.getpid() != _parent and profile.running():
        path = os.path.join(folder, f"{os.getpid()}.json")
        try:
            profile.stop().save(path + ".part", "json")
            os.replace(path + ".part", path)
        except OSError:
            pass  # the parent has ended, and its folder with it


def begin_in_child():
    """In a process that multiprocessing started anew: record if the program's profile is on."""
    global _parent
    if not os.environ.get(_FOLDER):
        return
    from fastsync import profile

    os._exit = _exit_saving
    _parent = 0  # whatever this process is, it is a child
    profile.start(float(os.environ.get(_RATE, "10")) * 1e-6)
    atexit.register(save_child)


def report(arguments):
    """Do what `profile-report` says; return the exit status."""
    from fastsync import profile
    from fastsync._watch import profile_report

    output = format = None
    paths = []
    rest = list(arguments)
    while rest:
        name, given, value = rest.pop(0).partition("=")
        if name in ("--output", "--format"):
            if not given:
                if not rest:
                    raise Refused(f"{name} needs a value")
                value = rest.pop(0)
            if name == "--output":
                output = value
            else:
                format = value
        elif name.startswith("-"):
            raise Refused(f"unknown option {name} of profile-report")
        else:
            paths.append(name + given + value)
    if not paths:
        raise Refused("profile-report needs a recording: a file that profile --output wrote")
    if format is None:
        format = "text" if output is None else profile_report.format_of(output)
    try:
        recording = profile.merge([profile.load(path) for path in paths])
        written = profile_report.render(recording.data, format)
        if output is None:
            sys.stdout.buffer.write(written)
            sys.stdout.flush()
        else:
            with open(output, "wb") as file:
                file.write(written)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"python -m fastsync profile-report: {error}\n")
        return 1
    return 0
