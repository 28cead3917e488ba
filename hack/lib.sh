# shellcheck shell=bash
# What the scripts of this directory share. Source it; it moves to the top of the tree.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export LC_ALL=C.UTF-8 CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-auto}"

# On standard error, so that the last line of standard output stays the answer.
say() { printf '%s\n' "$*" >&2; }
die() { say "${0##*/}: $*"; exit 1; }

as_root() { [ "$(id -u)" = 0 ] || die "needs root: containers are made here"; }

# Whether all of these programs are there.
have() {
    local program
    for program; do command -v "$program" >/dev/null || return 1; done
}

# Whether what a Debian package is needed for is there, whoever has put it there.
installed() {
    case $1 in
    # A program for a root file system without libraries.
    busybox-static) have busybox && ! ldd "$(command -v busybox)" >/dev/null 2>&1 ;;
    binutils) have objcopy strip ;;
    dpkg-dev) have dpkg dpkg-deb ;;
    file | gcc | hyperfine | jq | mmdebstrap | mount | patchelf | strace) have "$1" ;;
    iproute2) have ip ;;
    libc6-dev) [[ $(gcc -print-file-name=libc.a 2>/dev/null) == /* ]] ;;
    libseccomp-dev) echo '#include <seccomp.h>' | gcc -E - >/dev/null 2>&1 ;;
    perl-base) have perl ;;
    procps) have ps ;;
    time) [ -x /usr/bin/time ] ;;
    uidmap) have newuidmap newgidmap ;;
    util-linux) have unshare setpriv nsenter ;;
    xz-utils) have xz ;;
    *) [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ] ;;
    esac
}

# need PACKAGE...: installs what is missing, by apt and with a word, and is silent about what is there. Where there is no apt,
# or CORTEN_INSTALL=no, it names what is missing and ends.
need() {
    local package missing=()
    for package; do installed "$package" || missing+=("$package"); done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "${CORTEN_INSTALL:-yes}" != no ] || die "missing, by the names of Debian's packages: ${missing[*]} (CORTEN_INSTALL=no)"
    command -v apt-get >/dev/null || die "missing, by the names of Debian's packages, and there is no apt-get: ${missing[*]}"
    [ "$(id -u)" = 0 ] || die "needs root to install ${missing[*]}"
    say "installing the packages ${missing[*]} (CORTEN_INSTALL=no forbids it)"
    apt_get "${missing[@]}" || die "cannot install ${missing[*]}"
}

# The lists may be absent or old (then a second try with fresh ones), and someone else may hold apt's locks.
apt_get() {
    local options=(-qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)
    local log
    log=$(mktemp)
    (
        exec 9>/run/lock/corten-apt.lock
        flock 9
        export DEBIAN_FRONTEND=noninteractive
        apt-get install "${options[@]}" "$@" || {
            apt-get update -qq && apt-get install "${options[@]}" "$@"
        }
    ) </dev/null >"$log" 2>&1 || { cat "$log" >&2; rm -f "$log"; return 1; }
    rm -f "$log"
}

# at_least WANTED FOUND: whether a version is one or a later one.
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

# Whether the toolchain is Debian's copy of a new one, which is kept for web browsers.
debian_web() { command -v dpkg-query >/dev/null && installed rustc-web && [ "$(command -v rustc)" = /usr/bin/rustc ]; }

# An old cargo fails for .cargo/config.toml, with words that do not name the version. A rustc that links needs a C compiler
# as linker driver and libc's static half.
need_toolchain() {
    local wanted tool found
    local remedy="install Rust by rustup (https://rustup.rs), or on Debian 12 and 13: apt-get install cargo-web rustc-web"
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    for tool in cargo rustc; do
        command -v $tool >/dev/null || die "$tool is missing, $wanted or newer is needed: $remedy"
        # rustup's own cargo fails where rustup has no toolchain, and says so.
        found=$($tool --version) || die "$tool does not run, $wanted or newer is needed: $remedy"
        found=$(cut -d ' ' -f 2 <<<"$found")
        at_least "$wanted" "$found" || die "$(command -v $tool) is $found, $wanted or newer is needed: $remedy"
    done
    need gcc libc6-dev
}

# Where cargo puts what it builds: the target is set in .cargo/config.toml (a static build names its own).
target_dir() {
    cargo metadata --format-version 1 --no-deps --offline 2>/dev/null |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p' | sed "s,\$,/$(rustc -vV | sed -n 's/^host: //p'),"
}

# rustup's minimal profile and Debian's cargo come without these two.
need_lints() {
    cargo fmt --version >/dev/null 2>&1 && { has_clippy || debian_web; } && return 0
    if command -v rustup >/dev/null; then
        [ "${CORTEN_INSTALL:-yes}" != no ] || die "missing: the components rustfmt and clippy of rustup (CORTEN_INSTALL=no)"
        say "adding rustup's components rustfmt and clippy (CORTEN_INSTALL=no forbids it)"
        rustup component add rustfmt clippy >&2
    elif debian_web; then
        need rustfmt-web
    else
        need rustfmt rust-clippy
    fi
}

# Whether there is a clippy, and of this rustc: 0.1.95 is that of 1.95.
has_clippy() { cargo clippy --version 2>/dev/null | grep -q "^clippy 0\.1\.$(rustc --version | cut -d . -f 2)"; }

# Debian has no clippy for its rustc-web. Anywhere else one that is missing is an error.
no_clippy() {
    debian_web && ! has_clippy && say "without clippy, which Debian does not have for its rustc-web: the lints are skipped"
}

# runtime NAME|PATH: the absolute path of a runtime: a peer by its name, ours for the empty name.
runtime() {
    case $1 in
    '') hack/build ;;
    crun | runc) hack/peers | sed -n "s/^$1=//p" ;;
    *) readlink -e -- "$1" || die "$1 is no runtime" ;;
    esac
}

# small NAME: builds hack/NAME.rs, which needs nothing but std, as a static program; prints its path.
small() {
    local out=$PWD/target/hack/$1
    mkdir -p target/hack
    [ "$out" -nt "hack/$1.rs" ] && [ "$out" -nt hack/floors/mod.rs ] || rustc --edition 2024 -C opt-level=3 -C panic=abort -C strip=symbols \
        -C target-feature=+crt-static -C relocation-model=static -o "$out" "hack/$1.rs" >&2 || die "$1 does not build"
    echo "$out"
}

# busybox_root DIR: a root filesystem with a few applets.
busybox_root() {
    mkdir -p "$1"/{bin,dev,etc,proc,sys,tmp}
    cp "$(command -v busybox)" "$1/bin/busybox"
    ln -s busybox "$1/bin/true"
    ln -s busybox "$1/bin/sleep"
}

# docker_bundle DIR ROOTFS CGROUP COMMAND...: a Docker container as captured, on a root of our own, without the engine's
# own bind mounts, and without limits, since a machine may lack the controllers that Docker names without need. Docker
# adds the cgroup namespace itself on cgroup v2; the capture is from v1.
docker_bundle() {
    mkdir -p "$1"
    jq --arg root "$2" --arg place "$3" --args '
        .process.args = $ARGS.positional | .root.path = $root | .hostname = "bench"
        | .linux.cgroupsPath = $place
        | .mounts |= map(select(.type != "bind"))
        | .linux.resources |= {devices}
        | .linux.namespaces += [{type: "cgroup"}]
    ' "${@:4}" <tests/captures/docker-28.5/native/run-rm.config.json >"$1/config.json"
}

# What the scripts leave on the machine: the build, and trees of Debian that take minutes to make.
left_behind() {
    local place
    for place in "$PWD/target" "${CORTEN_PEERS:-/var/cache/corten-peers}" "${CORTEN_LAB_CACHE:-/var/cache/corten-lab}" \
        "${CORTEN_ENGINES:-/var/cache/corten-engines}" "${CORTEN_SUITES:-/var/cache/corten-suites}"; do
        [ ! -e "$place" ] || echo "$place"
    done
}

# Tells what is left, and how large it is.
tell_left() {
    local places
    mapfile -t places < <(left_behind)
    [ ${#places[@]} -gt 0 ] || return 0
    say "left on this machine, until hack/clean:"
    du -shx -- "${places[@]}" >&2 2>/dev/null || true
}
