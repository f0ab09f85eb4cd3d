#!/usr/bin/env bash
# Run the fuzzers of tests/fuzz, each for SECONDS, on both builds: with Python's own allocator, and
# with its debug hooks, which fill what was freed.
#   tools/fuzz.sh SECONDS [NAME...]     "guards" is tests/fuzz/fuzz_guards.py
# All of them run, whatever one finds. Under AddressSanitizer their short form runs in `make asan`.
set -uo pipefail
cd "$(dirname "$0")/.."
. tools/common.sh

root=$PWD
seconds=$1
shift
names=("$@")
if [ $# -eq 0 ]; then
    for path in tests/fuzz/fuzz_*.py; do
        name=${path##*/fuzz_}
        names+=("${name%.py}")
    done
fi
# Not in the checkout, whose package would hide the installed one.
empty=$(mktemp -d)
scratch+=("$empty")
status=0
for environment in .venv .venv-gil; do
    for allocator in default debug; do
        for name in "${names[@]}"; do
            say "== $environment, PYTHONMALLOC=$allocator: $name"
            (cd "$empty" && PYTHONMALLOC=$allocator "$root/$environment/bin/python" -P \
                "$root/tests/fuzz/fuzz_$name.py" "$seconds") || { status=1; say "   FAILED"; }
        done
    done
done
exit $status
