#!/usr/bin/env bash
# Measure everything on an optimized 3.13t (PGO and LTO, what users have) and, in one thread, on a
# build with the GIL, and write docs/performance.md and its plots from that.
#   tools/bench_report.sh [ARGUMENTS OF bench/run.py]
# FASTSYNC_BENCH=free takes the 3.13t of the tests instead: the page says how it was built.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/common.sh

# The environment of a kind of interpreter, with the peers in it.
#   prepare FOLDER KIND
prepare() {
    tools/environment.sh "$1" "$2"
    tools/bench_peers.sh "$1"
}

kind=${FASTSYNC_BENCH:-optimized}
venv=.venv-optimized
if [ "$kind" = free ]; then venv=.venv; fi
mkdir -p build docs
prepare $venv "$kind"
prepare .venv-gil gil
# A page of a busy machine is of little use: each measurement waits for a quiet moment.
$venv/bin/python bench/run.py --patience 20 --json build/bench-free.json "$@"
.venv-gil/bin/python bench/run.py --patience 20 --json build/bench-gil.json \
    --case with --case pair --case event --case new "$@"
$venv/bin/python bench/report.py build/bench-free.json build/bench-gil.json docs
