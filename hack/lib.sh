# shellcheck shell=bash
# What the scripts of this directory share. Source it; it moves to the top of the tree.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export LC_ALL=C.UTF-8 CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-auto}"

# On standard error, so that the last line of standard output stays the answer.
say() { printf '%s\n' "$*" >&2; }
die() { say "${0##*/}: $*"; exit 1; }

as_root() { [ "$(id -u)" = 0 ] || die "needs root: containers are made here"; }

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# need PACKAGE...: installs what is missing and is silent about what is there.
need() {
    local package missing=()
    for package; do installed "$package" || missing+=("$package"); done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "install these by hand: ${missing[*]}"
    [ "$(id -u)" = 0 ] || die "needs root to install ${missing[*]}"
    say "installing ${missing[*]}"
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

# A rustc that links needs a C compiler as linker driver and libc's static half.
need_toolchain() {
    command -v cargo >/dev/null || die "cargo is missing: install Rust (https://rustup.rs) or Debian's cargo"
    need gcc libc6-dev
}

# Where cargo puts what it builds: the target is set in .cargo/config.toml (a static build names its own).
target_dir() {
    cargo metadata --format-version 1 --no-deps --offline 2>/dev/null |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p' | sed "s,\$,/$(rustc -vV | sed -n 's/^host: //p'),"
}

# rustup's minimal profile and Debian's cargo come without these two.
need_lints() {
    cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 && return 0
    if command -v rustup >/dev/null; then
        rustup component add rustfmt clippy >&2
    else
        need rustfmt rust-clippy
    fi
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
