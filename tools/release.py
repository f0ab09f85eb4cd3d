#!/usr/bin/env python3
"""Write the version of pyproject.toml wherever compilers and programs look for it.

    python tools/release.py 0.2.0      make 0.2.0 the version, there and everywhere else
    python tools/release.py --check    name the files whose copy differs; the status is 1 then

The series, "0.1", is in the C names of what other packages compile against: an extension made for
another series cannot be imported (c_version.pxd and, for functions, fs_key in parking.pxd say how).
"""

import argparse
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def copies(version):
    """(file, pattern, text) of each copy; the pattern finds every older version."""
    package = ROOT / "fastsync"
    numbers = re.findall(r"\d+", version)[:3]
    marker = "compiled_for_" + "_".join(numbers)
    for path in sorted([*package.rglob("*.pxd"), *package.rglob("*.h")]):
        yield path, r"fastsync_\d+_\d+_", "fastsync_{}_{}_".format(*numbers)
        yield path, r"compiled_for_[\d_]+", marker
    yield package / "include/fastsync/version.h", r'VERSION ".*"', f'VERSION "{version}"'
    yield package / "__init__.py", r'__version__ = ".*"', f'__version__ = "{version}"'
    yield package / "__init__.py", r"_NUMBERS = .*", "_NUMBERS = ({}, {}, {})".format(*numbers)


def stamped(version):
    """{file: its text with that version} of the files that have another one now."""
    texts = {}
    for path, pattern, copy in copies(version):
        text = texts.get(path) or path.read_text(encoding="utf-8")
        texts[path] = re.sub(pattern, copy, text)
    return {path: text for path, text in texts.items() if text != path.read_text(encoding="utf-8")}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("version", nargs="?", help="three numbers")
    what.add_argument("--check", action="store_true")
    options = parser.parse_args()
    project = ROOT / "pyproject.toml"
    text = project.read_text(encoding="utf-8")
    if options.check:
        version = tomllib.loads(text)["project"]["version"]
        differ = stamped(version)
        for path in differ:
            print(f"{path.relative_to(ROOT)} does not have version {version}")
        return 1 if differ else 0
    if not re.fullmatch(r"\d+\.\d+\.\d+", options.version):
        parser.error("a version is three numbers, as in 0.2.0")
    project.write_text(
        re.sub(r'(?m)^version = ".*"$', f'version = "{options.version}"', text), encoding="utf-8"
    )
    for path, new in stamped(options.version).items():
        path.write_text(new, encoding="utf-8")
        print(f"{path.relative_to(ROOT)} has version {options.version} now")
    return 0


if __name__ == "__main__":
    sys.exit(main())
