#!/usr/bin/env bash
# Install the packages that fastsync is measured beside, each on its own: one that cannot be
# installed is skipped by name.
#   tools/bench_peers.sh ENVIRONMENT
set -uo pipefail
cd "$(dirname "$0")/.."
. tools/common.sh

folder=$PWD/$1
peers=(librt cereggii ft-utils atomicx atomicshm aiologic culsans readerwriterlock rwlocker
    fasteners rwlock)
# Some build with CMake, which takes the first `python` of PATH.
export PATH=$folder/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
log=$folder/peers.log
: >"$log"
for peer in "${peers[@]}"; do
    version=$("$folder/bin/python" - "$peer" 2>/dev/null <<'PY'
import importlib.metadata, sys
print(importlib.metadata.version(sys.argv[1]))
PY
    ) || version=
    if [ -z "$version" ]; then
        say "installing $peer"
        if ! timeout 900 "$folder/bin/python" -m pip install -q "$peer" >>"$log" 2>&1; then
            say "  skipped: $peer cannot be installed ($(grep -E '^ *(error|ERROR)' "$log" | tail -n 1)); see $log"
        fi
    fi
done
