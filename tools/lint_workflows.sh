#!/usr/bin/env bash
# Check the workflow files with zizmor, from the package index, kept in the cache.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/common.sh
linter=$(cache_dir)/workflow-lint
if [ ! -x "$linter/bin/zizmor" ]; then
    rm -rf "$linter"
    python3 -m venv "$linter"
    "$linter/bin/python" -m pip install -q --disable-pip-version-check zizmor >&2
fi
"$linter/bin/zizmor" --offline --quiet .github/workflows
