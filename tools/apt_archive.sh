# Packages of newer Debian suites, without installing anything or changing the machine's apt.
# Sourced after common.sh. The archive's address and keys are those of the machine's own apt.

# "address release keyring" of each archive that the machine's apt lists, by whichever file style;
# keyring is "-" where apt's default keys apply.
apt_machine_archives() {
    local uri release entry keyring
    # SOURCESENTRY is the file and number of the entry, which alone tells of its Signed-By.
    apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE) $(SOURCESENTRY)' |
        sort -u | while read -r uri release entry; do
        keyring=$(grep -ioE '(signed-by: *|signed-by=)/[^], ]+' "${entry%:*}" 2>/dev/null |
            head -n 1 | grep -oE '/.*') || keyring=-
        printf '%s %s %s\n' "$uri" "$release" "$keyring"
    done
}

# Make a private apt in FOLDER that sees SUITEs of the machine's Debian archive.
#   apt_private FOLDER deb|deb-src KEYRING|- SUITE...
# A suite called NAME-security is looked for in the security archive, every other in the main one.
apt_private() {
    local folder=$1 type=$2 forced=$3 suite codename uri release keyring wanted
    shift 3
    # _apt, which downloads on root's behalf, must be able to enter and write here.
    mkdir -p "$folder"/{parts,lists/partial,cache/archives/partial,files}
    chmod 755 "$folder"
    if [ "$(id -u)" = 0 ]; then chown _apt "$folder/files" 2>/dev/null || true; fi
    cat >"$folder/apt.conf" <<CONF
Dir::Etc::sourcelist "$folder/sources.list";
Dir::Etc::sourceparts "$folder/parts";
Dir::State::lists "$folder/lists";
Dir::Cache "$folder/cache";
Acquire::Languages "none";
Acquire::Retries "2";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
CONF
    # Packages of another processor.
    if [ -n "${APT_ARCHITECTURE:-}" ]; then
        printf 'APT::Architecture "%s";\n#clear APT::Architectures;\nAPT::Architectures "%s";\n' \
            "$APT_ARCHITECTURE" "$APT_ARCHITECTURE" >>"$folder/apt.conf"
    fi
    codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
    apt_machine_archives | while read -r uri release keyring; do
        [ "$forced" = - ] || keyring=$forced
        for suite in "$@"; do
            case $suite in *-security) wanted=-security ;; *) wanted= ;; esac
            case $release in
                "$codename$wanted" | stable"$wanted" | testing"$wanted" | unstable"$wanted" | sid) ;;
                *) continue ;;
            esac
            case $keyring in
                -) printf '%s %s %s main\n' "$type" "$uri" "$suite" ;;
                *) printf '%s [signed-by=%s] %s %s main\n' "$type" "$keyring" "$uri" "$suite" ;;
            esac
        done
    done | sort -u >"$folder/sources.list"
    [ -s "$folder/sources.list" ] || return 1
    # A suite that the archive lacks makes this fail, but the others are there all the same.
    apt-get -c "$folder/apt.conf" -q update >"$folder/update.log" 2>&1 || true
}

# Like apt_private, but copes with a machine whose keys are older than the suites: the machine's
# own suite, checked with the keys that it has, carries a newer keyring in its updates.
#   apt_private_trusted FOLDER deb|deb-src SUITE...
apt_private_trusted() {
    local folder=$1 type=$2 codename keyring
    shift 2
    apt_private "$folder" "$type" - "$@" || return 1
    grep -q NO_PUBKEY "$folder/update.log" || return 0
    say "the machine's archive keys are too old for: $*; looking for newer ones"
    codename=$(. /etc/os-release && printf '%s' "$VERSION_CODENAME")
    apt_private "$folder/keys" deb - "$codename" "$codename-updates" "$codename-security"
    apt_download "$folder/keys" debian-archive-keyring || {
        say "no newer archive keys found: nothing that apt cannot verify is used"
        return 1
    }
    dpkg -x "$folder"/keys/files/debian-archive-keyring_*.deb "$folder/keys/unpacked"
    keyring=$folder/keys/unpacked/usr/share/keyrings/debian-archive-keyring.gpg
    apt_private "$folder" "$type" "$keyring" "$@"
}

# apt-get that shows only its errors.
#   apt_quietly FOLDER ARGUMENT...
apt_quietly() {
    local folder=$1
    shift
    apt-get -c "$folder/apt.conf" -q -y "$@" >"$folder/output.log" 2>&1 </dev/null && return
    grep '^E:' "$folder/output.log" >&2
    return 1
}

# Binary packages into FOLDER/files.
#   apt_download FOLDER PACKAGE[=VERSION]...
apt_download() {
    local folder=$1
    shift
    (cd "$folder/files" && apt_quietly "$folder" download "$@")
}

# The upstream tarball of a source package into FOLDER/files; apt checks it against signed lists.
#   apt_source_tarball FOLDER PACKAGE=VERSION
apt_source_tarball() {
    (cd "$1/files" && apt_quietly "$1" source --download-only --tar-only "$2")
}

# Versions of a source package, newest first.
#   apt_source_versions FOLDER PACKAGE
apt_source_versions() {
    apt-cache -c "$1/apt.conf" showsrc --only-source "$2" 2>/dev/null |
        sed -n 's/^Version: //p' | sort -rVu
}
