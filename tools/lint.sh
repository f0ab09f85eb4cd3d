#!/usr/bin/env bash
# Style, Cython's own warnings, and the type stubs against the compiled modules.
#   tools/lint.sh ENVIRONMENT [CHECK...]     ruff, cython, stubtest; else all
set -uo pipefail
cd "$(dirname "$0")/.."
. tools/common.sh

bin=$PWD/${1:-.venv-gil}/bin
failed=0
shift
wanted=${*:-ruff cython stubtest}
#   check LABEL COMMAND...
check() {
    local label=$1
    shift
    if "$@"; then say "$label: ok"; else say "$label: FAILED"; failed=1; fi
}

# Away from the checkout, whose fastsync folder has no compiled modules, so that the installed
# package is what gets imported.
stubtest() {
    local config=$PWD/pyproject.toml folder status=0
    folder=$(mktemp -d)
    scratch+=("$folder")
    (cd "$folder" && "$bin/python" -m mypy.stubtest fastsync --ignore-disjoint-bases \
        --mypy-config-file "$config") || status=1
    return $status
}

for name in $wanted; do
    case $name in
        ruff)
            check "ruff" "$bin/ruff" check -q .
            check "ruff format" "$bin/ruff" format -q --check .
            ;;
        cython) check "cython" "$bin/python" tools/check_cython.py ;;
        stubtest) check "stubtest" stubtest ;;
        *) die "no such check: $name" ;;
    esac
done
exit $failed
