#!/usr/bin/env bash
# Run one threaded program on the standard library's locks and then, unchanged, on fastsync.
#   tools/demo.sh ENVIRONMENT
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/common.sh

python=$PWD/$1/bin/python
program=$PWD/examples/index_stdlib.py
log=$(mktemp -d)
scratch+=("$log")
# The checkout's own fastsync folder, which has no compiled modules, must not be imported.
work=$log/work
mkdir "$work"
cd "$work"

# "value" of the last line "NAME: value" of a log
value() { sed -n "s/^$2: //p" "$log/$1" | tail -n 1; }

#   run NAME COMMAND...
run() {
    local name=$1
    shift
    printf '\n== %s: python %s\n' "$name" "${*/$program/examples/index_stdlib.py}"
    "$python" "$@" | tee "$log/$name"
}

# Neither run shall pay for reading the files from disk first.
find "$("$python" -c 'import os; print(os.path.dirname(os.__file__))')" -name '*.py' -exec cat {} + >/dev/null

run threading "$program"
run fastsync -m fastsync "$program"

printf '\n== what was replaced: python -m fastsync --info\n'
"$python" -m fastsync --info

printf '\n%-12s%10s   %s\n' "" seconds digest
for name in threading fastsync; do
    printf '%-12s%10s   %.16s\n' "$name" "$(value $name seconds)" "$(value $name digest)"
done
[ -n "$(value threading digest)" ] || die "no digest: the program did not finish"
[ "$(value threading digest)" = "$(value fastsync digest)" ] || die "the two runs differ"
[ "$(value threading locks)" != "$(value fastsync locks)" ] || die "the locks were not replaced"
printf 'The two runs gave the identical index.\n'
