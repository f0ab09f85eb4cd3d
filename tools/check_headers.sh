#!/usr/bin/env bash
# Compile every extension, without linking, against the headers of later free-threaded Pythons.
#   tools/check_headers.sh ENVIRONMENT
#
# The headers are those of Debian's development packages, unpacked into the cache and not
# installed; Py_GIL_DISABLED makes them those of the free-threaded build. Any warning fails.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/common.sh
. tools/apt_archive.sh

VERSIONS="3.14 3.15"
SUITES="forky sid"
python=${1:-.venv}/bin/python
headers=$(cache_dir)/headers
work=$(mktemp -d)
chmod 755 "$work" # apt downloads as a user of its own
scratch+=("$work")

# Unpack the headers of VERSION unless the cache has them.
get_headers() {
    local version=$1 versions found
    [ ! -d "$headers/$version" ] || return 0
    if [ ! -e "$work/apt/sources.list" ]; then
        say "looking for headers"
        apt_private_trusted "$work/apt" deb $SUITES || die "apt lists no Debian archive to get headers from"
    fi
    # A version that is listed may be missing from the archive: take the newest that is there.
    versions=$(apt-cache -c "$work/apt/apt.conf" madison "libpython$version-dev" | cut -d'|' -f2 | tr -d ' ' | sort -rVu)
    for found in $versions; do
        apt_download "$work/apt" "libpython$version-dev=$found" || continue
        dpkg -x "$work/apt/files/libpython$version-dev_"*.deb "$work/$version"
        mkdir -p "$headers"
        rm -rf "${headers:?}/$version"
        mv "$work/$version" "$headers/$version"
        return 0
    done
    die "libpython$version-dev cannot be downloaded"
}

# The folders with Python.h and with the architecture's pyconfig.h.
include_flags() {
    local usr=$headers/$1/usr/include folder
    printf -- '-isystem%s ' "$usr/python$1" "$usr"
    # Debian's pyconfig.h includes the one of the architecture, found from /usr/include's place.
    for folder in "$usr"/*-linux-*; do printf -- '-isystem%s ' "$folder" "$folder/python$1"; done
}

# Compile all modules against VERSION; the number of failures is the status.
check_version() {
    local version=$1 source failures=0
    for source in $(find "$work/c/fastsync" -name '*.c' | LC_ALL=C sort); do
        "${CC:-cc}" -std=c11 -O2 -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers \
            -Wno-cast-function-type -Werror -DPy_GIL_DISABLED=1 -c -o /dev/null -Ifastsync/include \
            $(include_flags "$version") "$source" || failures=$((failures + 1))
    done
    if [ $failures = 0 ]; then say "$version headers, free-threaded: ok"; else say "$version headers: FAILED"; fi
    return $failures
}

exclusive "$(cache_dir)/headers.lock"
for version in $VERSIONS; do get_headers "$version"; done
"$python" tools/check_cython.py "$work/c"
status=0
for version in $VERSIONS; do check_version "$version" || status=1; done
exit $status
