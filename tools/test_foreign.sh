#!/usr/bin/env bash
# Build fastsync for another processor and run tests on it: with Debian's CPython (with the GIL) for
# that processor, unpacked into the cache, under qemu-user where the machine cannot run it itself.
# What it shows is that the code works there; orders of memory are what `make litmus` is for.
#   tools/test_foreign.sh arm64|i386 [PYTEST ARGUMENTS]
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/common.sh
. tools/apt_archive.sh
. tools/debian_python.sh

VERSION=3.13
SUITE=trixie
# What is run without arguments: every primitive, waits, signals, forks and the end of the interpreter.
TESTS="test_lock test_rlock test_condition test_semaphore test_event test_barrier test_mutex test_condvar
test_rwlock test_sharded test_once test_atomics test_array test_cell test_arc test_parker test_queue
test_fork test_exit test_signals test_deadlines test_memory"

arch=$1
shift
case $arch in
    arm64) target=aarch64-linux-gnu triplet=aarch64-linux-gnu loader= emulator=qemu-aarch64-static ;;
    i386) target=x86-linux-gnu triplet=i386-linux-gnu loader=usr/lib/ld-linux.so.2 emulator= ;;
    *) die "usage: $0 arm64|i386 [PYTEST ARGUMENTS]" ;;
esac
root=$(cache_dir)/debian-python-$arch
work=$PWD/build/foreign-$arch
site=$work/site
mkdir -p "$work" "$site"

get_root() {
    local temporary package
    [ ! -d "$root" ] || return 0
    temporary=$(mktemp -d)
    chmod 755 "$temporary" # apt downloads as a user of its own
    scratch+=("$temporary")
    say "downloading python$VERSION for $arch"
    APT_ARCHITECTURE=$arch apt_private_trusted "$temporary/apt" deb $SUITE
    apt_download "$temporary/apt" $(debian_python_packages $VERSION)
    for package in $DEBIAN_PYTHON_LIBRARIES; do
        apt_download "$temporary/apt" "$package" || say "note: no package $package"
    done
    mkdir "$temporary/root"
    for package in "$temporary"/apt/files/*.deb; do dpkg -x "$package" "$temporary/root"; done
    # Programs name their loader in /lib, which newer packages leave to the link that a system has.
    (cd "$temporary/root" && { [ -e lib ] || ln -s usr/lib lib; })
    mv "$temporary/root" "$root"
}

# A command that runs the foreign Python, and is what sys.executable says.
make_python() {
    local libraries=$root/usr/lib/$triplet:$root/lib/$triplet
    {
        printf '#!/bin/sh\nexport PYTHONHOME="%s"\n' "$root/usr"
        if [ -n "$emulator" ]; then
            printf 'exec %s -L "%s" -0 "$0" "%s" "$@"\n' "$emulator" "$root" "$root/usr/bin/python$VERSION"
        else
            printf 'exec "%s" --argv0 "$0" --library-path "%s" "%s" "$@"\n' \
                "$root/$loader" "$libraries" "$root/usr/bin/python$VERSION"
        fi
    } >"$work/python"
    chmod +x "$work/python"
    "$work/python" -c 'import platform, sys; print(platform.machine(), sys.version)' >&2
}

# All modules, in one file: those that are older than what they are made from are compiled.
build() {
    local source name objects=$work/objects suffix=.cpython-${VERSION/./}-$triplet.so
    say "building for $target"
    "$PWD/.venv-gil/bin/python" -c 'import setup; setup.extensions()' >&2
    find fastsync -type f \( -name '*.py' -o -name '*.pyi' -o -name '*.pxd' -o -name '*.h' \) -print0 |
        tar -cf - --null -T - | tar -xf - -C "$site"
    mkdir -p "$objects"
    "$PWD/.venv-gil/bin/python" -c 'import setup
for path, macros in setup.extensions()[0].own_macros.items():
    module = path[len("build/cython/"):-len(".c")].replace("/", ".")
    names = [*setup.MACROS, *macros, (f"PyInit_{module.split(chr(46))[-1]}", setup.start_of(module))]
    print(path, module, *(f"-D{name}={value}" for name, value in names))' |
        while read -r source name macros; do
            name=$objects/$name.o
            [ "$name" -nt "$source" ] && [ "$name" -nt fastsync/include/fastsync/python.h ] ||
                printf '%s %s %s\n' "$source" "$name" "$macros"
        done | xargs -r -P 2 -L 1 sh -c 'zig=$1 target=$2 usr=$3/usr/include version=$4 triplet=$5 source=$6 object=$7
            shift 7
            "$zig" -m ziglang cc -target "$target" -c -fPIC -O1 -g0 -std=c11 -pthread -fvisibility=hidden -Wall -Werror \
                -Wno-unused-function -include fastsync/no_frames.h -Ifastsync/include -I"$usr/python$version" -I"$usr" \
                -I"$usr/$triplet/python$version" "$@" "$source" -o "$object"' \
            cross "$zig/bin/python" "$target.2.36" "$root" "$VERSION" "$triplet"
    "$zig/bin/python" -m ziglang cc -target "$target.2.36" -shared -s -pthread \
        -o "$site/fastsync/_compiled$suffix" "$objects"/*.o
}

get_root
if [ -n "$emulator" ] && ! command -v "$emulator" >/dev/null; then
    if can_apt_install; then apt_install qemu-user-static; fi
    command -v "$emulator" >/dev/null || die "no $emulator: install qemu-user-static"
fi
make_python
get_zig
build
if [ ! -d "$work/packages/pytest" ]; then
    python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --target "$work/packages" \
        --python-version $VERSION --implementation py --abi none --platform any --only-binary=:all: \
        pytest pytest-timeout pytest-xdist "hypothesis<6.150" >&2
fi
export PYTHONPATH=$site:$work/packages PYTHONDONTWRITEBYTECODE=1
"$work/python" -P tools/smoke_test.py
arguments=("$@")
[ $# -gt 0 ] || arguments=($(for test in $TESTS; do printf '%s ' "$PWD/tests/$test.py"; done))
checkout=$PWD
cd "$(mktemp -d)"
scratch+=("$PWD")
"$work/python" -P -m pytest -c "$checkout/pyproject.toml" --rootdir "$checkout" -p no:cacheprovider -q \
    -o faulthandler_timeout=900 "${arguments[@]}"
