#!/usr/bin/env bash
# Run the suite, and each version's own tests of locks, threads, queues and executors, on other
# versions of CPython. A free-threaded version that cannot be had here is named and left out.
#   tools/test_versions.sh [VERSION...] [-- PYTEST ARGUMENTS]
set -uo pipefail
cd "$(dirname "$0")/.."
. tools/common.sh

versions=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    versions+=("$1")
    shift
done
[ $# -eq 0 ] || shift
[ ${#versions[@]} -gt 0 ] || versions=(3.11 3.12 3.13 3.14 3.15 3.14t 3.15t)

mkdir -p build
results=()
failed=0
for version in "${versions[@]}"; do
    if ! tools/environment.sh ".venv-$version" "$version"; then
        results+=("$version: no interpreter or no build")
        # Only the free-threaded ones may be missing: there are no binaries of them to download.
        case $version in *t) ;; *) failed=1 ;; esac
        continue
    fi
    tools/run_tests.sh ".venv-$version" -- "$@" || failed=1
    results+=("$(tail -n 1 build/test-summary.txt)")
    ".venv-$version/bin/python" tools/run_cpython_tests.py | tee "build/cpython-$version.log" || failed=1
    results+=("$(tail -n 1 "build/cpython-$version.log")")
done
printf '\n'
printf '%s\n' "${results[@]}" | tee build/versions-summary.txt
exit $failed
