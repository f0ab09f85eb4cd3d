"""Translate every .pyx to C and fail on any warning or performance hint.

    python tools/check_cython.py [FOLDER]        the C goes to FOLDER, or nowhere
    python tools/check_cython.py FILE.pyx ...    only these

A hint means that a call which should be `noexcept nogil` costs a lock or an exception check.
"""

import contextlib
import io
import os
import sys
import tempfile

from Cython.Build import cythonize
from Cython.Compiler.Errors import CompileError

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
import setup  # noqa: E402  (for the directives of the real build)

# What Cython prints when it has nothing to say.
SILENT = ("Compiling ", "[")


def translate(files, folder):
    """Write the C of these modules below `folder` and give back Cython's complaints."""
    output = io.StringIO()
    with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
        try:
            cythonize(files, build_dir=folder, force=True, compiler_directives=setup.DIRECTIVES)
        except CompileError as error:
            print(error)  # after what is wrong
    return [line for line in output.getvalue().splitlines() if not line.startswith(SILENT)]


def main():
    os.chdir(ROOT)
    files = [name for name in sys.argv[1:] if name.endswith(".pyx")]
    folders = [name for name in sys.argv[1:] if name not in files]
    with tempfile.TemporaryDirectory() as scratch:
        folder = (folders or [scratch])[0]
        complaints = translate(files or list(setup.sources().values()), folder)
        setup.write_table(folder)
    print("\n".join(complaints), file=sys.stderr, end="\n" if complaints else "")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
