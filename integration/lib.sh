# shellcheck shell=bash
# What the scripts that run real engines share: source it, set `tree` and `packages`, call `engines STEPS "$@"`.
#
# No virtual machine and no registry: the engines live in a Debian tree (made once, in $CORTEN_ENGINES) that is entered
# by pivot_root in new mount, pid, network, host-name, IPC and cgroup namespaces. All they write is in memory, and
# what they start dies with the pid namespace; of the machine they touch one cgroup, which is removed. With VIEW=systemd
# it is a virtual machine that ends with them (in_lab): there they use its systemd and its pid namespace.
. "$(dirname "${BASH_SOURCE[0]}")/../hack/lib.sh"

cache=${CORTEN_ENGINES:-/var/cache/corten-engines}
# What the tree of most scripts has.
large=containerd,docker.io,docker-cli,docker-buildx,docker-compose,runc,crun,podman,conmon,netavark,aardvark-dns,buildah,passt,uidmap,passwd,catatonit,tini,nodejs,python3-minimal,python3-pexpect,python3-h2,containernetworking-plugins,iptables,nftables,iproute2,curl,busybox-static,util-linux,bsdutils,mount,procps,kmod,apparmor,ca-certificates

suite=sid
# Without what nobody reads here.
variant=(--variant=essential --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*')

make_tree() {
    need mmdebstrap
    say "making a Debian tree in $cache; this takes a few minutes"
    rm -rf "$tree.new"
    mmdebstrap --quiet "${variant[@]}" --include="$packages" --aptopt='Acquire::Check-Valid-Until "false"' \
        --aptopt='Acquire::Languages "none"' "$suite" "$tree.new" >"$cache/log" 2>&1 </dev/null ||
        { tail -n 30 "$cache/log" >&2; die "mmdebstrap failed"; }
    echo "$packages" >"$tree.new/.packages"
    rm -rf "$tree"
    mv "$tree.new" "$tree"
}

need_tree() {
    mkdir -p "$cache"
    exec 9>"$cache/.lock"
    flock 9
    [ "$(cat "$tree/.packages" 2>/dev/null)" = "$packages" ] || make_tree
    exec 9>&-
}

# In the new namespaces, still on the old root: builds the new one and goes there.
enter() {
    local root=$1 runtime=$2 view=$3 steps=$4
    shift 4
    mount -t tmpfs -o mode=755 tmpfs "$root"
    mkdir "$root"/{upper,work,root}
    mount -t overlay -o "lowerdir=$tree,upperdir=$root/upper,workdir=$root/work" overlay "$root/root"
    cd "$root/root"
    mount -t proc proc proc
    mount -t sysfs sysfs sys
    mount -t securityfs securityfs sys/kernel/security 2>/dev/null || true
    mount --rbind /dev dev
    case $view in
    v2)
        mount -t cgroup2 cgroup2 sys/fs/cgroup
        # Only the machine's real root cgroup may have both processes and limits; the caller takes out unshare.
        mkdir sys/fs/cgroup/init
        echo 0 >sys/fs/cgroup/init/cgroup.procs
        while [ -n "$(cat sys/fs/cgroup/cgroup.procs)" ]; do sleep 0.05; done
        for controller in $(cat sys/fs/cgroup/cgroup.controllers); do
            echo "+$controller" >sys/fs/cgroup/cgroup.subtree_control
        done
        ;;
    hybrid | systemd) mount --rbind /sys/fs/cgroup sys/fs/cgroup ;;
    v1)
        mount --rbind /sys/fs/cgroup sys/fs/cgroup
        # This mount namespace's alone: its mounts are private.
        umount sys/fs/cgroup/unified
        ;;
    esac
    # Docker's and containerd's own overlays need an upper directory that is not an overlay itself.
    for place in run tmp var/lib/docker var/lib/containerd var/lib/containers; do
        mkdir -p "$place"
        mount -t tmpfs -o mode=755 tmpfs "$place"
    done
    mkdir -p run/lock old usr/local/bin engines
    if [ "$view" = systemd ]; then
        # Its sockets, those of the bus and of users; and a Debian that has systemd, to be a container's root.
        mkdir -p run/{systemd,dbus,user} engines/debian
        for place in run/{systemd,dbus,user}; do mount --rbind "/$place" "$place"; done
        mount --bind / engines/debian
    fi
    case $runtime in
    /*)
        touch usr/local/bin/corten
        mount --bind "$runtime" usr/local/bin/corten
        runtime=/usr/local/bin/corten
        ;;
    *) runtime=/usr/bin/$runtime ;;
    esac
    cp "$top"/{README.md,docs/engines.md,integration/steps.sh,"integration/$steps.steps"} "$top"/integration/*.{py,proto} engines/
    if [ -d "${bring:-}" ]; then
        mkdir "engines/${bring##*/}"
        mount --bind -o ro "$bring" "engines/${bring##*/}"
    elif [ -n "${bring:-}" ]; then
        cp "$bring" engines/
    fi
    hostname engines
    pivot_root . old
    cd /
    umount -l /old
    mount --make-rshared /
    ip link set lo up
    exec env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
        RUNTIME="$runtime" GROUP="$group" VIEW="$view" VERBOSE="${VERBOSE:-}" PATIENCE="${PATIENCE:-}" bash "/engines/$steps.steps" "$@"
}

end() {
    # There the virtual machine ends.
    [ "$view" != systemd ] || return 0
    # unshare ignores polite signals; with it goes its child, the namespace's first process, and so everything.
    if [ -n "$inside" ]; then
        { kill -KILL "$inside" && wait; } 2>/dev/null || true
    fi
    rmdir "$root" 2>/dev/null || true
    # Every process is gone with the namespaces; the kernel may need a moment to see it.
    for _ in $(seq 50); do
        find "$hierarchy$group" /sys/fs/cgroup/*"$group" -depth -type d -exec rmdir {} \; 2>/dev/null || true
        compgen -G "/sys/fs/cgroup/*$group" >/dev/null || [ -e "$hierarchy$group" ] || return 0
        sleep 0.1
    done
    say "left behind: cgroups named $group"
}

# under_test: the runtime as `engines` takes it, from RUNTIME: a peer's name, else a path (of corten, freshly built).
under_test() {
    case ${RUNTIME:-} in
    runc | crun) echo "$RUNTIME" ;;
    *) runtime "${RUNTIME:-}" ;;
    esac
}

# in_lab STEPS [STEP-REGEX]: does not return. The steps for which a machine may lack controllers, AppArmor or systemd
# ($in_the_lab), in the virtual machine, with its systemd; with VIEW=v2 without.
in_lab() {
    local view=systemd boot=(--systemd) first=${in_the_lab_first:-:}
    if [ "${VIEW:-}" = v2 ]; then
        view=v2 boot=()
        first='for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
            echo +$controller >/sys/fs/cgroup/cgroup.subtree_control
        done'
    fi
    need_tree
    # An emulated machine takes a minute for a pod, on a busy host more.
    export CORTEN_LAB_TIMEOUT=${CORTEN_LAB_TIMEOUT:-3600}
    exec integration/lab run "${boot[@]}" --share "$cache" --cached "$tree" --share "$(dirname "$(readlink -m "$runtime")")" "
        $first
        export CORTEN_ENGINES='$cache' RUNTIME='$runtime' VIEW=$view PATIENCE=400 VERBOSE='${VERBOSE:-}'
        integration/$1 '${2:-$in_the_lab}'"
}

# engines STEPS [--lab] [STEP-REGEX]: runs integration/STEPS.steps in the tree, with README, docs/engines.md and $bring, if set, beside it
# (a directory to read only).
engines() {
    local steps=$1 runtime rc=0 run
    if [ "${2:-}" = --enter ]; then
        shift 2
        enter "$@"
    fi
    shift
    as_root
    runtime=$(under_test)
    view=${VIEW:-v2}
    if [ "${1:-}" = --lab ]; then
        in_lab "$steps" "${2:-}"
    fi
    [ "$view" != systemd ] || [ -e /lab/job ] || die "VIEW=systemd is for the lab: integration/$steps --lab"
    need_tree

    root=$(mktemp -d)
    inside=
    group=/corten-engines-$$
    [ "$view" != systemd ] || group=engines.slice
    export group top=$PWD
    # The cgroup v2 hierarchy, wherever it is mounted.
    hierarchy=$(findmnt --noheadings --output TARGET --types cgroup2 | head -n 1)
    [ -n "$hierarchy" ] || die "no cgroup2 mount on this machine"
    [ "$view" != v2 ] || mkdir "$hierarchy$group"
    trap end EXIT
    trap 'exit 130' INT TERM HUP

    run=(unshare --mount --propagation private --net --uts --ipc)
    # systemd knows processes by their numbers in its own pid namespace.
    [ "$view" = systemd ] || run+=(--pid --fork --kill-child)
    [ "$view" != v2 ] || run+=(--cgroup)
    # In a shell of its own, which steps into the cgroup first: that becomes the root of the cgroup namespace.
    (
        [ "$view" != v2 ] || echo "$BASHPID" >"$hierarchy$group/cgroup.procs"
        exec "${run[@]}" "$0" --enter "$root" "$runtime" "$view" "$steps" "$@"
    ) </dev/null &
    inside=$!
    if [ "$view" = v2 ]; then
        while [ ! -e "$hierarchy$group/init" ] && kill -0 "$inside" 2>/dev/null; do sleep 0.05; done
        mkdir "$hierarchy$group/outside"
        echo "$inside" >"$hierarchy$group/outside/cgroup.procs"
    fi
    wait "$inside" || rc=$?
    inside=
    return $rc
}
