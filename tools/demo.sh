#!/usr/bin/env bash
# Run two threaded programs on the standard library's locks and queues and then, unchanged, on fastsync.
#   tools/demo.sh ENVIRONMENT
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/common.sh

python=$PWD/$1/bin/python
examples=$PWD/examples
log=$(mktemp -d)
scratch+=("$log")
# The checkout's own fastsync folder, which has no compiled modules, must not be imported.
work=$log/work
mkdir "$work"
cd "$work"

# "value" of the last line "NAME: value" of a log
value() { sed -n "s/^$2: //p" "$log/$1" | tail -n 1; }

#   run LOG COMMAND...
run() {
    local name=$1
    shift
    printf '\n== python %s\n' "${*//$examples/examples}"
    "$python" "$@" | tee "$log/$name"
}

#   compare PROGRAM: the two runs must have done the same work, on different locks
compare() {
    local program=$1
    [ -n "$(value "$program-threading" digest)" ] || die "no digest: $program did not finish"
    [ "$(value "$program-threading" digest)" = "$(value "$program-fastsync" digest)" ] ||
        die "the two runs of $program differ"
    [ "$(value "$program-threading" locks)" != "$(value "$program-fastsync" locks)" ] ||
        die "the locks were not replaced"
    awk -v stock="$(value "$program-threading" seconds)" -v ours="$(value "$program-fastsync" seconds)" \
        -v program="$program" -v digest="$(value "$program-threading" digest)" \
        'BEGIN { printf "%-18s%10s%10s%9.2f   %.16s\n", program, stock, ours, stock / ours, digest }'
}

# Neither run shall pay for reading the files from disk first.
find "$("$python" -c 'import os; print(os.path.dirname(os.__file__))')" -name '*.py' -exec cat {} + >/dev/null

for program in index_stdlib pipeline_stdlib; do
    run "$program-threading" "$examples/$program.py"
    run "$program-fastsync" -m fastsync "$examples/$program.py"
done

printf '\n== what was replaced: python -m fastsync --info\n'
"$python" -m fastsync --info

printf '\n%-18s%10s%10s%9s   %s\n' seconds threading fastsync speed-up digest
compare index_stdlib
compare pipeline_stdlib
printf 'The two runs of each program gave the identical result.\n'
