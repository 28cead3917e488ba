# shellcheck shell=bash
# What the step files share: sourced inside the tree. Each step prints PASS, FAIL or SKIP with a reason; the last line
# is `N passed, N failed, N skipped`.

set -u
only=${1:-.}
passed=0 failed=0 skipped=0

say() { printf '%s\n' "$*" >&2; }

# step NAME REGEX COMMAND: the command's exit code and output, as one line, must match. It has a minute, or PATIENCE
# seconds, and what it leaves running holds nobody up: the output is a file, not a pipe that would have to be closed by
# all who have it.
step() {
    local name=$1 expect=$2 rc seen
    [[ $name =~ $only ]] || return 0
    rm -f /engines/said
    timeout --kill-after 5 "${PATIENCE:-60}" bash -c "$3" >>/engines/said 2>&1
    rc=$?
    seen="rc=$rc $(tr '\n\r\t\0' '    ' </engines/said)"
    if grep -Eq "$expect" <<<"$seen"; then
        passed=$((passed + 1))
        echo "PASS $name"
        [ -z "${VERBOSE:-}" ] || echo "  saw: $seen"
    else
        failed=$((failed + 1))
        printf 'FAIL %s\n  wanted: %s\n  saw:    %s\n' "$name" "$expect" "$(cut -c1-600 <<<"$seen")"
    fi
}

# skip NAME REASON: a step that cannot be here, with what it lacks.
skip() {
    [[ $1 =~ $only ]] || return 0
    skipped=$((skipped + 1))
    echo "SKIP $1: $2"
}

# wanted NAME...: whether one of these steps is to run.
wanted() {
    local name
    for name; do [[ ! $name =~ $only ]] || return 0; done
    false
}

# with CONTROLLER NAME REGEX COMMAND: a step that needs a cgroup controller.
with() {
    if grep -qw "$1" /sys/fs/cgroup/cgroup.controllers 2>/dev/null || [ -d "/sys/fs/cgroup/$1" ]; then
        step "${@:2}"
    else
        skip "$2" "no $1 controller in this cgroup hierarchy"
    fi
}

# group_below NAME: a cgroup below that of these steps, as engines are told of it: a slice, where systemd makes it.
group_below() {
    if [ "$VIEW" = systemd ]; then
        echo "${GROUP%.slice}-$1.slice"
    else
        echo "$GROUP/$1"
    fi
}

# below_systemd NAME REGEX COMMAND: a step that needs systemd. There `unit UNIT` prints what systemd knows of a unit.
below_systemd() {
    if [ "$VIEW" = systemd ]; then
        step "$@"
    else
        skip "$1" "there is no systemd here; the lab has"
    fi
}
# In the mount namespace of systemd: the tree has no systemctl.
unit() { nsenter --target 1 --mount systemctl show --property MemoryMax,TasksMax,Slice,ActiveState "$1"; }
export -f unit

# snippet HEADING N: the N-th block of code below that heading of docs/engines.md, for an image that is here.
snippet() {
    awk -v heading="$1" -v n="$2" '
        /^```/ { inside = !inside; block += inside; next }
        inside { if (here && block == n) print; next }
        /^#/ { here = $0 ~ "^#+ " heading "$"; block = 0 }' /engines/engines.md | sed "s,IMAGE,$image,"
}

# daemon NAME LOG READY COMMAND...: starts it and waits until READY succeeds, for as long as a step may take.
daemon() {
    local name=$1 log=$2 ready=$3 end=$((SECONDS + ${PATIENCE:-60}))
    shift 3
    setsid "$@" >"$log" 2>&1 </dev/null &
    while [ $SECONDS -lt $end ]; do
        ! $ready >/dev/null 2>&1 || return 0
        sleep 0.1
    done
    tail -n 20 "$log"
    echo "FAIL start of $name"
    echo "$passed passed, $((failed + 1)) failed, $skipped skipped"
    exit 1
}

# busybox_root: /tmp/bb, a root file system of busybox with users root and web.
busybox_root() {
    mkdir -p /tmp/bb/{bin,dev,etc,proc,sys,tmp}
    cp "$(command -v busybox)" /tmp/bb/bin/busybox
    for applet in $(busybox --list); do ln -s busybox "/tmp/bb/bin/$applet" 2>/dev/null; done
    printf 'root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/tmp:/bin/sh\n' >/tmp/bb/etc/passwd
    printf 'root:x:0:\nweb:x:1000:\n' >/tmp/bb/etc/group
}

# finish LOG...: the last line, and what the engines said if a step failed.
finish() {
    local log
    [ "$failed" = 0 ] || for log; do
        say "--- the last errors of $log"
        grep -E 'level=(error|fatal)' "$log" | tail -n 5 | cut -c1-500 >&2
    done
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ]
}

image=localhost/bb:latest
# A program that ends with code 9 on SIGTERM.
loop='trap "exit 9" TERM; echo up; while :; do sleep 0.05; done'
export image loop
