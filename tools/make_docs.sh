#!/usr/bin/env bash
# Make the documentation site in build/site. A warning is an error.
#   tools/make_docs.sh ENVIRONMENT
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/common.sh
python=$PWD/$1/bin/python
root=$PWD
if ! "$python" -c "import sphinx, myst_parser, furo" 2>/dev/null; then
    # Not --group, which pip knows since 25.1.
    "$python" -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["docs"], sep="\n")' |
        "$python" -m pip install -q --disable-pip-version-check -r /dev/stdin >&2
fi
work=$(mktemp -d)
scratch+=("$work")
cd "$work" # the checkout's fastsync would hide the installed one
"$python" -P -m sphinx -q -W --keep-going -E -b html "$root/docs" "$root/build/site"
say "build/site/index.html"
