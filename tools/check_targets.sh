#!/usr/bin/env bash
# Compile all headers for each target with zig, without a warning, and the C test of wait.h
# (tests/c); run that where something on this machine can: the machine itself (also 32 bits and
# musl), qemu-user, wine.
#   tools/check_targets.sh [TARGET...]
set -uo pipefail
cd "$(dirname "$0")/.."
. tools/common.sh

targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(x86_64-linux-gnu x86_64-linux-musl x86-linux-musl aarch64-linux-musl
    arm-linux-musleabihf riscv64-linux-musl x86_64-windows-gnu aarch64-windows-gnu x86_64-macos aarch64-macos)
work=$(mktemp -d)
scratch+=("$work")
get_zig || die "ziglang cannot be installed"

# What runs a program made for TARGET, "no" if nothing does.
#   runner TARGET
runner() {
    case $1 in
        "$(uname -m)"-linux-*) printf 'env' ;;
        x86-linux-*) [ "$(uname -m)" = x86_64 ] && printf 'env' || printf 'no' ;;
        arm-linux-*) command -v qemu-arm-static || printf 'no' ;;
        *-linux-*) command -v "qemu-${1%%-*}-static" || printf 'no' ;;
        x86_64-windows-*) command -v wine64 || command -v wine || ls /usr/lib/wine/wine64 2>/dev/null || printf 'no' ;;
        *) printf 'no' ;;
    esac
}

#   check TARGET [MORE FLAGS]
check() {
    local target=$1 program=$work/wait_test-$1.exe libraries= static= run
    shift
    case $target in
        *windows*) libraries=-lapi-ms-win-core-synch-l1-2-0 ;;
        *musl*) static=-static ;;
    esac
    "$zig/bin/python" -m ziglang cc -target "$target" -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror \
        -pthread -Ifastsync/include "$@" tests/c/wait_test.c -o "$program" $static $libraries ||
        return 1
    run=$(runner "$target")
    if [ "$run" = no ]; then
        printf '%s %s: compiled and linked, not run\n' "$target" "$*"
        return 0
    fi
    printf '%s %s: ' "$target" "$*"
    WINEDEBUG=-all WINEDLLOVERRIDES="mscoree,mshtml=" WINEPREFIX=${WINEPREFIX:-$work/wine} \
        timeout 300 "$run" "$program" || {
        printf 'FAILED\n'
        return 1
    }
}

status=0
for target in "${targets[@]}"; do
    check "$target" || status=1
    case $target in *linux*) check "$target" -DFS_FORCE_WAIT_PTHREAD || status=1 ;; esac
done
exit $status
