#!/usr/bin/env bash
# Install fastsync with its test requirements into the Python that is named, and run the suite.
# For machines that have their Python already, as those of a CI service.
#   tools/test_here.sh PYTHON [PYTEST ARGUMENTS]
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1
shift
"$python" -m pip install -q --upgrade "pip>=25.1" # which knows dependency groups
"$python" -m pip install -q --group test .
root=$PWD
cd "$(mktemp -d)" # the checkout's fastsync would hide the installed one
"$python" -P -m pytest -c "$root/pyproject.toml" --rootdir "$root" -n auto --dist loadgroup \
    --max-worker-restart 0 "$root/tests" "$@"
