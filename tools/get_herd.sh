#!/usr/bin/env bash
# Get herd7, which tools/check_litmus.py runs, from Debian's archive into FASTSYNC_CACHE: unpacked
# with the libraries that it needs, nothing is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/common.sh
. tools/apt_archive.sh
cache=${FASTSYNC_CACHE:-$HOME/.cache/fastsync}/herdtools7
if command -v herd7 >/dev/null || [ -e "$cache/usr/bin/herd7" ]; then exit 0; fi
folder=$(mktemp -d)
scratch+=("$folder")
chmod 755 "$folder"
say "getting herd7 from Debian's archive"
apt_private_trusted "$folder" deb forky sid
apt_download "$folder" herdtools7 libc6 libgmp10
for package in "$folder"/files/*.deb; do dpkg -x "$package" "$folder/unpacked"; done
mkdir -p "$(dirname "$cache")"
mv "$folder/unpacked" "$cache"
