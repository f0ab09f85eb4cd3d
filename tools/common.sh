# Shared by the scripts of this folder; sourced, not run.

# Progress goes to stderr: stdout is for the one answer that a script gives.
say() { printf '%s\n' "$*" >&2; }

die() {
    say "error: $*"
    exit 1
}

# What is expensive to make and does not depend on the checkout lives here.
cache_dir() {
    local folder=${FASTSYNC_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fastsync}
    case $folder in /*) ;; *) folder=$PWD/$folder ;; esac
    printf '%s\n' "$folder"
}

# Folders to remove at the end, however the script ends, and the command that `logged` runs.
scratch=()
running=
finish() {
    if [ -n "$running" ]; then kill -- "-$running" 2>/dev/null || true; fi
    rm -rf ${scratch[@]+"${scratch[@]}"} # the long form: bash 3 and set -u
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

# Run a long command with its output in a file and a line every ten seconds.
#   logged LOG LABEL COMMAND...
logged() {
    local log=$1 label=$2 pid start=$SECONDS
    shift 2
    say "$label ..."
    set -m # a process group of its own, so that `finish` can end it with its children
    "$@" >>"$log" 2>&1 </dev/null &
    pid=$!
    set +m
    running=$pid
    while kill -0 "$pid" 2>/dev/null; do
        sleep 1
        if (((SECONDS - start) % 10 == 9)); then say "  $label: $((SECONDS - start)) s"; fi
    done
    running=
    if ! wait "$pid"; then
        tail -n 40 "$log" >&2
        say "$label failed; the whole log is in $log"
        return 1
    fi
}

# Two runs at the same time would make the same thing twice, in the same place: the second waits.
# Without flock (it comes with util-linux) they only waste time, as results are renamed into place.
#   exclusive LOCKFILE
exclusive() {
    mkdir -p "$(dirname "$1")"
    exec 9>"$1"
    command -v flock >/dev/null || return 0
    flock -n 9 || { say "waiting for another run ($1)"; flock 9; }
}

# zig, a C compiler for any target, from the package index: `"$zig/bin/python" -m ziglang cc`.
get_zig() {
    zig=$(cache_dir)/zig
    "$zig/bin/python" -c "import ziglang" 2>/dev/null && return
    say "installing zig into $zig"
    python3 -m venv "$zig" && "$zig/bin/python" -m pip install -q --disable-pip-version-check ziglang >&2
}

# True where packages can be installed: root on a Debian-like system.
can_apt_install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null
}

#   apt_install PACKAGE...
apt_install() {
    local log
    log=$(cache_dir)/apt.log
    mkdir -p "$(cache_dir)"
    : >"$log"
    logged "$log" "apt-get update" apt-get update -q &&
        logged "$log" "apt-get install $*" env DEBIAN_FRONTEND=noninteractive \
            apt-get install -q -y --no-install-recommends "$@"
}
