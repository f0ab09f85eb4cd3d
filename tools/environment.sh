#!/usr/bin/env bash
# Bring a virtual environment up to date: its interpreter, its packages, fastsync itself.
#
#   tools/environment.sh FOLDER free|gil|optimized|VERSION [editable]
#
# VERSION is 3.14 or 3.14t, for example. `editable` builds the extensions in the checkout, for editors
# and for a quick loop of edit, build and test.
#
# Each step leaves a stamp that says what it was made from, so a second run has nothing to do.
# The build switches of setup.py (FASTSYNC_WAIT and so on) are taken from the environment.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/common.sh

folder=$1
kind=$2
python=$folder/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

#   is_current STAMP TEXT
is_current() { [ -f "$folder/.$1" ] && [ "$(<"$folder/.$1")" = "$2" ]; }

# Pip's wheel, which any Python can download, installs pip.
install_pip() {
    local wheel
    wheel=$(mktemp -d)
    scratch+=("$wheel")
    python3 -m pip download -q --no-deps -d "$wheel" pip >&2
    PYTHONPATH=$(echo "$wheel"/pip-*.whl) "$python" -m pip install -q pip >&2
}

make_venv() {
    local base wanted
    case $kind in
        free) base=$(tools/get_python.sh | tail -n 1) ;;
        3.*) base=$(tools/get_python.sh "$kind" | tail -n 1) ;;
        *) base=$(tools/get_python.sh "--$kind" | tail -n 1) ;;
    esac
    wanted="$base $("$base" -VV | tr -d '\n')"
    if is_current python "$wanted" && "$python" -c "" 2>/dev/null; then return; fi
    say "making $folder with $base"
    rm -rf "$folder"
    if "$base" -c "import ensurepip" 2>/dev/null; then
        "$base" -m venv "$folder"
    else # Debian packs it apart
        "$base" -m venv --without-pip "$folder"
        install_pip
    fi
    printf '%s\n' "$wanted" >"$folder/.python"
}

# What to install, one requirement a line: what builds need, and dependency groups.
#   requirements GROUP...
requirements() {
    "$python" - "$@" <<'PY'
import sys, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))
lines = list(project["build-system"]["requires"])
for group in sys.argv[1:]:
    lines += project["dependency-groups"][group]
print(*lines, sep="\n")
PY
}

install_requirements() {
    local wanted
    if [ "$kind" = gil ]; then wanted=$(requirements test lint); else wanted=$(requirements test bench); fi
    if is_current requirements "$wanted"; then return; fi
    say "installing into $folder:" $wanted
    # Wheels only: the newest release of a package may have none for 3.13t any more, while an older
    # one does, and building it may need other languages' compilers.
    "$python" -m pip install -q --only-binary=:all: -r <(printf '%s\n' "$wanted") >&2
    printf '%s\n' "$wanted" >"$folder/.requirements"
}

# One number for everything that the built package depends on.
source_state() {
    {
        env | grep -E '^(FASTSYNC_(DEBUG|SANITIZE|WAIT|DEFINES)|CC|CFLAGS|LDFLAGS)=' | sort || true
        find fastsync setup.py pyproject.toml MANIFEST.in README.md -type f \
            ! -name '*.so' ! -name '*.c' ! -name '*.pyc' ! -name '*.html' | LC_ALL=C sort | xargs cksum
    } | cksum
}

# The tests run on what users get: the package as installed from its wheel.
install_package() {
    local wanted wheels log=build/$(basename "$folder").log so
    wanted=$(source_state)
    if is_current package "$wanted"; then return; fi
    exclusive build/lock
    # build/*/lib is kept for speed; what has left the sources must not get into the wheel from it.
    find build/*/lib* -type f ! -name '*.so' -delete 2>/dev/null || true
    # Each module once had a file of its own there.
    find build/*/lib*/fastsync -name '*.so' ! -name '_compiled.*' -delete 2>/dev/null || true
    wheels=$(mktemp -d)
    scratch+=("$wheels")
    : >"$log"
    logged "$log" "building fastsync for $folder" \
        "$python" -m pip wheel -v --no-deps --no-build-isolation -w "$wheels" . || {
        say "compiler messages:"
        grep -E '^ *[^ ]+\.(pyx|pxd|h|c):[0-9]+:' "$log" | sort -u | tail -n 20 >&2
        exit 1
    }
    "$python" -m pip install -q --no-deps --force-reinstall "$wheels"/*.whl >&2
    printf '%s\n' "$wanted" >"$folder/.package"
}

# The checkout itself is what gets imported; only what has changed is compiled.
install_editable() {
    local wanted log=build/$(basename "$folder").log packages
    wanted=$(source_state)
    if is_current package "$wanted"; then return; fi
    exclusive build/lock
    : >"$log"
    logged "$log" "building in the checkout" "$python" setup.py build_ext --inplace || exit 1
    packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    printf '%s\n' "$PWD" >"$packages/fastsync-checkout.pth"
    printf '%s\n' "$wanted" >"$folder/.package"
}

make_venv
install_requirements
if [ "${3:-}" = editable ]; then install_editable; else install_package; fi
