#!/usr/bin/env bash
# Measure everything on an optimized 3.13t (PGO and LTO, what users have) and on a build with the
# GIL, and write docs/performance.md and its plots from that.
#   tools/bench_report.sh [ARGUMENTS OF bench/run.py]
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/common.sh

mkdir -p build docs/performance
for kind in optimized gil; do
    tools/environment.sh .venv-$kind $kind
    tools/bench_peers.sh .venv-$kind
    cases=()
    if [ $kind = gil ]; then cases=(--case with --case pair --case event --case new); fi
    .venv-$kind/bin/python bench/run.py --patience 20 --json build/bench-$kind.json "${cases[@]}" "$@"
done
.venv-optimized/bin/python -m pip install -q --only-binary=:all: matplotlib
.venv-optimized/bin/python bench/report.py build/bench-optimized.json build/bench-gil.json docs
