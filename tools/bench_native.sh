#!/usr/bin/env bash
# Build and run the native benchmark: fastsync's raw locks and atomics from Cython beside C's own,
# and beside Rust's where there is cargo with Debian's packages of the crates.
#   tools/bench_native.sh ENVIRONMENT [ARGUMENTS OF bench/native/run.py]
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/common.sh

python=$PWD/${1:-.venv}/bin/python
shift || true
sources=$PWD/bench/native
work=$PWD/build/bench-native
crates=/usr/share/cargo/registry # where Debian's librust-*-dev packages put their sources
mkdir -p "$work"

# The program of bench/native/rust, built offline from the system's crates; its path on stdout.
build_rust() {
    local config=$work/cargo.toml
    if ! command -v cargo >/dev/null; then
        say "no cargo: only C's own primitives are shown"
        return
    fi
    if ! compgen -G "$crates/parking_lot-0.12*" >/dev/null; then
        { can_apt_install && apt_install librust-parking-lot-dev librust-crossbeam-dev; } || {
            say "no parking_lot crate (Debian: librust-parking-lot-dev librust-crossbeam-dev):" \
                "only C's own primitives are shown"
            return
        }
    fi
    printf '[source.crates-io]\nreplace-with = "system"\n[source.system]\ndirectory = "%s"\n' \
        "$crates" >"$config"
    rm -rf "$work/rust"
    cp -r "$sources/rust" "$work/rust" # cargo writes a lock file that depends on the system
    : >"$work/cargo.log"
    # Aligned as the loops of setup.py are.
    RUSTFLAGS="-C llvm-args=-align-loops=64" logged "$work/cargo.log" "building the Rust programs" \
        cargo build --release --offline --config "$config" --target-dir "$work/target" \
        --manifest-path "$work/rust/Cargo.toml" || return 0
    printf '%s\n' "$work/target/release/fastsync-bench-native"
}

rust=$(build_rust)
mkdir -p "$work/loops"
cp "$sources"/*.py "$work/loops"
: >"$work/loops.log"
(cd "$work/loops" && logged "$work/loops.log" "building the loops" \
    "$python" setup.py -q build_ext --inplace --force)
cd "$work/loops"
exec "$python" run.py ${rust:+--rust "$rust"} "$@"
