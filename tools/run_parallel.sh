#!/usr/bin/env bash
# Run the suite under pytest-run-parallel: each test body in four threads at once.
#   tools/run_parallel.sh ENVIRONMENT [PYTEST ARGUMENTS]
# Not the tests whose work is done in other processes, or that look at the whole of this one; and once
# only those that change what all threads share: an object that a fixture made, signal handlers, the
# trace function, the swap.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/common.sh

root=$PWD
python=$root/$1/bin/python
shift
others=(bench cimport cpython deadlock docs exit fork install memory package runner trials)
ignored=()
for name in "${others[@]}"; do ignored+=("--ignore=$root/tests/test_$name.py"); done
fixtures="lock event condition swapped"
functions="signal.* sys.settrace sys.setprofile threading.settrace os.fork gc.* fastsync.install
deadlock.* sys.getallocatedblocks tracemalloc.* warnings.* sys.setrecursionlimit conftest.run_python
conftest.collect_between_steps"

"$python" -m pip install -q --disable-pip-version-check 'pytest-run-parallel>=0.5'
folder=$(mktemp -d)
scratch+=("$folder")
cd "$folder"
"$python" -P -m pytest -c "$root/pyproject.toml" --rootdir "$root" -p no:cacheprovider -q \
    --parallel-threads=4 -m "not slow and not stress" \
    -o thread_unsafe_fixtures="${fixtures// /$'\n'}" \
    -o thread_unsafe_functions="$(tr ' ' '\n' <<<"$functions")" \
    "${ignored[@]}" "${@:-$root/tests}"
