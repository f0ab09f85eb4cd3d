#!/usr/bin/env bash
# Run the checks and the whole suite on each environment; end with one line for each.
#   tools/run_tests.sh ENVIRONMENT... [-- PYTEST ARGUMENTS]
# LABEL, "test" without it, begins the names of the logs in build/.
set -uo pipefail
cd "$(dirname "$0")/.."
. tools/common.sh

root=$PWD
suite=${LABEL:-test}
environments=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    environments+=("$1")
    shift
done
[ $# -eq 0 ] || shift

# A test that hangs ends its worker (faulthandler_exit_on_timeout); pytest-xdist would start another
# one, and with loadgroup wait for it for ever: hence no restarts.
# pytest runs in an empty folder, as the checkout's fastsync would hide the installed one from
# subprocesses; what names a file of the checkout is made absolute.
arguments=()
targets=0
for argument in "$@"; do
    if [ -e "${argument%%::*}" ]; then
        argument=$root/$argument
        targets=1
    fi
    arguments+=("$argument")
done
if [ $targets = 0 ]; then arguments+=("$root/tests"); fi

# "3.13.15t (GIL off)"
describe() {
    "$1/bin/python" - <<'PY'
import sys, sysconfig
free = sysconfig.get_config_var("Py_GIL_DISABLED")
on = getattr(sys, "_is_gil_enabled", lambda: True)()
print("%d.%d.%d" % sys.version_info[:3] + "t" * bool(free), f"(GIL {'on' if on else 'off'})")
PY
}

# The suite in one environment; the closing line is added to `summary`.
run_suite() {
    local name=$1 label log=$root/build/$suite-$1.log folder status=0 start=$SECONDS closing
    label="$(describe "$name")"
    case $name in .venv | .venv-gil) ;; *) label="$label ${name#.venv-}" ;; esac
    say "== $label"
    folder=$(mktemp -d)
    scratch+=("$folder")
    (cd "$folder" && "$root/$name/bin/python" -P -m pytest -c "$root/pyproject.toml" --rootdir "$root" \
        -n auto --dist loadgroup --max-worker-restart 0 "${arguments[@]}") 2>&1 | tee "$log" || status=1
    # pytest's own last line, without its frame: "812 passed, 3 skipped in 70.12s (0:01:10)".
    closing=$(grep -E '^=+ .* in [0-9.]+s' "$log" | tail -n 1 | sed -E 's/^=+ //; s/ in [0-9.].*//')
    summary+=("$label: ${closing:-no result} in $((SECONDS - start)) s")
    return $status
}

mkdir -p build
summary=()
failed=0
for name in "${environments[@]}"; do
    run_suite "$name" || failed=1
done
printf '\n'
printf '%s\n' "${summary[@]}" | tee "build/$suite-summary.txt"
exit $failed
