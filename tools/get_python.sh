#!/usr/bin/env bash
# Print the path of a Python to build and test with; get one where there is none.
#
#   tools/get_python.sh               free-threaded CPython 3.13
#   tools/get_python.sh --optimized   the same, built with PGO and LTO: for benchmarks
#   tools/get_python.sh --gil         the newest CPython >= 3.11 of the machine that has a GIL
#   tools/get_python.sh 3.14          this version, with the GIL
#   tools/get_python.sh 3.14t         this version, free-threaded
#
# The last line on stdout is the path; everything else goes to stderr. FASTSYNC_PYTHON and
# FASTSYNC_GIL_PYTHON name an interpreter to use; what is built is kept in FASTSYNC_CACHE.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/common.sh"
. "$here/apt_archive.sh"
. "$here/debian_python.sh"

SUITES="trixie trixie-updates trixie-security forky sid"

mode=free     # free, optimized: free-threaded; gil: any version; version: `series` with the GIL
series=3.13
for argument in "$@"; do
    case $argument in
        --gil) mode=gil ;;
        --optimized) mode=optimized ;;
        3.[0-9]*t) series=${argument%t} ;;
        3.[0-9]*) mode=version series=$argument ;;
        *) die "usage: $0 [--gil | --optimized | VERSION | VERSIONt]" ;;
    esac
done

# "RANK PATH" of an interpreter that will do, nothing otherwise. A path inside a virtual
# environment becomes that of the interpreter behind it. The best rank has CPython's own tests,
# is a final release, and is the newest.
#   inspect PYTHON
inspect() {
    "$1" -I - "$mode" "$series" 2>/dev/null <<'PY' || true
import importlib.util, os, ssl, sys, sysconfig, venv, zlib
mode, series, version = sys.argv[1], sys.argv[2], sys.version_info
free = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
if mode == "gil":
    fits = version >= (3, 11) and not free and importlib.util.find_spec("ensurepip")
elif mode == "version":
    fits = "%d.%d" % version[:2] == series and not free
else:
    fits = "%d.%d" % version[:2] == series and free and not sys._is_gil_enabled()
if mode == "optimized":
    fits = fits and "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
headers = os.path.join(sysconfig.get_path("include"), "Python.h")
if fits and sys.implementation.name == "cpython" and os.path.exists(headers):
    tests = bool(importlib.util.find_spec("test.lock_tests"))
    final = version.releaselevel == "final"
    print(f"{tests:d}.{final:d}.%d.%d.%d" % version[:3], sys._base_executable)
PY
}

# Print the path if the interpreter will do, and end.
#   answer_if_usable PYTHON
answer_if_usable() {
    local found
    found=$(inspect "$1")
    [ -n "$found" ] || return 0
    case $found in 0.*) say "note: $1 has no 'test' package: CPython's own tests cannot run on it" ;; esac
    printf '%s\n' "${found#* }"
    exit 0
}

# The interpreter that the user named comes first, but a wrong one must not go unnoticed.
#   answer_if_named VARIABLE
answer_if_named() {
    [ -n "${!1:-}" ] || return 0
    answer_if_usable "${!1}"
    say "warning: $1=${!1} is no Python of the kind wanted here ($mode); looking for another"
}

pyenv_pythons() { # NAME
    local python
    for python in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/"$1"; do
        if [ -x "$python" ]; then printf '%s\n' "$python"; fi
    done
}

# ---- a Python with the GIL --------------------------------------------------------------------

best_gil_python() {
    local name python
    {
        for name in python3 python3.11 python3.12 python3.13 python3.14 python3.15 python3.16; do
            type -aP "$name" || true
        done
        pyenv_pythons python3
    } | sort -u | while read -r python; do inspect "$python"; done | sort -rV | head -n 1
}

get_gil() {
    local best version
    answer_if_named FASTSYNC_GIL_PYTHON
    best=$(best_gil_python)
    if [ -z "$best" ] && can_apt_install; then
        apt_install python3 python3-dev python3-venv || true
        best=$(best_gil_python)
    fi
    # Debian packs CPython's tests apart.
    if [[ $best == 0.*" /usr/bin/"* ]] && can_apt_install; then
        version=$(cut -d. -f3,4 <<<"${best% *}")
        apt_install "libpython$version-testsuite" || true
    fi
    [ -n "$best" ] || die "no CPython >= 3.11 with venv and headers found. Install one" \
        "(on Debian: apt install python3 python3-dev python3-venv) or set FASTSYNC_GIL_PYTHON."
    answer_if_usable "${best#* }"
}

# ---- a free-threaded Python -------------------------------------------------------------------

cached_python() {
    local suffix= python
    if [ "$mode" = optimized ]; then suffix=-opt; fi
    for python in "$(cache_dir)"/python-$series.*[0-9]t$suffix/bin/python${series}t; do
        if [ -x "$python" ]; then printf '%s\n' "$python"; fi
    done | sort -V | tail -n 1
}

#   try_uv VERSION
try_uv() {
    command -v uv >/dev/null || return 0
    say "trying: uv python install $1"
    uv python install "$1" >&2 || return 0
    answer_if_usable "$(uv python find "$1")"
}

has_header() { printf '#include <stddef.h>\n#include <%s>\n' "$1" | cc -E - >/dev/null 2>&1; }

# Debian packages that building CPython still lacks here.
missing_packages() {
    command -v cc >/dev/null || printf '%s\n' gcc libc6-dev
    command -v make >/dev/null || printf '%s\n' make
    command -v xz >/dev/null || printf '%s\n' xz-utils
    command -v pkg-config >/dev/null || printf '%s\n' pkg-config
    has_header zlib.h || printf '%s\n' zlib1g-dev
    has_header openssl/ssl.h || printf '%s\n' libssl-dev
    has_header ffi.h || printf '%s\n' libffi-dev
    has_header sqlite3.h || printf '%s\n' libsqlite3-dev
    has_header bzlib.h || printf '%s\n' libbz2-dev
    has_header lzma.h || printf '%s\n' liblzma-dev
    has_header uuid/uuid.h || printf '%s\n' uuid-dev
}

need_build_tools() {
    local missing
    missing=$(missing_packages | xargs)
    [ -n "$missing" ] || return 0
    if can_apt_install; then apt_install $missing || true; fi
    missing=$(missing_packages | xargs)
    # venv and pip want these; the others only cost an optional module.
    if ! command -v cc >/dev/null || ! command -v make >/dev/null || ! command -v xz >/dev/null ||
        ! has_header zlib.h || ! has_header openssl/ssl.h || ! has_header ffi.h; then
        die "building CPython $series needs more Debian packages: apt install $missing"
    fi
}

# Download the newest of the series that the archive really has: a listed file can be missing.
#   download_source FOLDER -> path of the tarball
download_source() {
    local version tried=
    apt_private_trusted "$1" deb-src $SUITES || return 1
    for version in $(apt_source_versions "$1" "python$series" | grep -v '~'); do
        say "downloading the source of python$series $version"
        if apt_source_tarball "$1" "python$series=$version"; then
            ls "$1/files/python${series}"_*.orig.tar.*
            return 0
        fi
        tried+=" $version"
    done
    say "no source of python$series could be downloaded; listed and tried:${tried:- none}"
    grep -E '^(E|W):' "$1/update.log" >&2 || true
    return 1
}

configure_python() { # SOURCE PREFIX
    local options=(--disable-gil --without-ensurepip)
    if [ "$mode" = optimized ]; then options+=(--enable-optimizations --with-lto); fi
    (cd "$1" && ./configure --prefix="$2" "${options[@]}")
}

# Every step says `|| return`: set -e does not hold in a function whose status is looked at.
# Build in a folder of its own and rename at the end, so that no half-made Python is ever seen.
build_from_source() {
    local cache work apt tarball version name log
    cache=$(cache_dir)
    work=$(mktemp -d "$cache/build.XXXXXX") || return 1
    apt=$(mktemp -d) || return 1
    scratch+=("$work" "$apt")
    need_build_tools
    tarball=$(download_source "$apt") || return 1
    version=$(basename "$tarball" | sed -E 's/^python[0-9.]+_(.*)\.orig.*/\1/')
    name=python-${version}t
    if [ "$mode" = optimized ]; then name=$name-opt; fi
    log=$cache/$name.log
    : >"$log"
    say "building $name into $cache (log: $log)"
    tar -xf "$tarball" -C "$work" --strip-components=1 || return 1
    logged "$log" "configure" configure_python "$work" "$cache/$name" || return 1
    logged "$log" "compile" make -C "$work" -j"$(nproc)" || return 1
    logged "$log" "install" make -C "$work" install DESTDIR="$work/dest" || return 1
    [ -n "$(inspect "$work/dest$cache/$name/bin/python${series}t")" ] || {
        say "the interpreter that was built does not work; see $log"
        return 1
    }
    rm -rf "${cache:?}/$name"
    mv "$work/dest$cache/$name" "$cache/$name" || return 1
    answer_if_usable "$cache/$name/bin/python${series}t"
}

get_free() {
    local python
    if [ $series = 3.13 ]; then answer_if_named FASTSYNC_PYTHON; fi
    for python in $(type -aP "python${series}t") $(pyenv_pythons "python${series}t"); do answer_if_usable "$python"; done
    python=$(cached_python)
    if [ -n "$python" ]; then answer_if_usable "$python"; fi
    if [ "$mode" = free ]; then try_uv "${series}t"; fi

    if command -v apt-get >/dev/null; then
        exclusive "$(cache_dir)/lock"
        python=$(cached_python) # another run may just have made it
        if [ -n "$python" ]; then answer_if_usable "$python"; fi
        build_from_source || true
    fi
    die "no free-threaded CPython $series found, and none could be made. Install one, for example with" \
        "'uv python install ${series}t' or 'pyenv install ${series}t', or set FASTSYNC_PYTHON to its path (3.13t)."
}

# ---- one version with the GIL -----------------------------------------------------------------

get_version() {
    local python
    for python in $(type -aP "python$series") $(pyenv_pythons "python$series"); do answer_if_usable "$python"; done
    python=$(cached_debian_python "$series")
    if [ -n "$python" ]; then answer_if_usable "$python"; fi
    try_uv "$series"
    if command -v apt-get >/dev/null; then
        exclusive "$(cache_dir)/lock"
        python=$(get_debian_python "$series" | tail -n 1) || true
        if [ -n "$python" ]; then answer_if_usable "$python"; fi
    fi
    die "no CPython $series with the GIL found, and none could be downloaded. Install one, for example with" \
        "'uv python install $series' or 'pyenv install $series'."
}

case $mode in
    gil) get_gil ;;
    version) get_version ;;
    *) get_free ;;
esac
