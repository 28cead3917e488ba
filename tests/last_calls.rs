//! Profiles that forbid what a runtime itself calls last, when the filter may be in place already.

use serde_json::json;

use crate::harness::{Bundle, known_difference};

/// Tells, by the shell's own means alone, whether it is filtered, leads its session and has capabilities; then ends without
/// exit_group(2).
const TELL: &str = "while read -r line; do case $line in Seccomp:*|CapEff:*) echo $line;; esac; done </proc/self/status; \
    read -r pid name state parent group session rest </proc/self/stat; \
    [ $pid = $session ] && echo leads; kill -9 $$";

/// What TELL says in a container of the harness.
const TOLD: &str = "CapEff: 0000000020000420\nSeccomp: 2\nleads";

/// Calls that are forbidden together.
const SETS: &[&[&str]] = &[
    &["clone3"],
    &["clone", "clone3", "fork", "vfork"],
    &["exit_group"],
    &["setsid"],
    &["recvfrom"],
    &["sendto", "sendmsg"],
    &["ppoll"],
    &["prlimit64", "setrlimit"],
    &["madvise"],
    &["setsid", "clone3", "recvfrom", "sendto", "ppoll", "exit_group"],
];

fn with(bundle: Bundle, calls: &[&str], action: &str, no_new_privs: bool) -> Bundle {
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
                         "syscalls": [{"names": calls, "action": action}]});
    bundle.set("/linux/seccomp", profile).set("/process/noNewPrivileges", no_new_privs)
}

fn each(mut test: impl FnMut(&dyn Fn(Bundle) -> Bundle, &str)) {
    for calls in SETS {
        for (action, no_new_privs) in [
            ("SCMP_ACT_ERRNO", true),
            ("SCMP_ACT_ERRNO", false),
            ("SCMP_ACT_KILL_PROCESS", true),
            ("SCMP_ACT_KILL_PROCESS", false),
        ] {
            // Without no_new_privs the filter comes before the last words to the runtime, which others need as well.
            let said = calls.iter().any(|call| matches!(*call, "sendto" | "prlimit64" | "ppoll" | "exit_group"));
            // The C library of the program calls it.
            let programs = calls.contains(&"prlimit64");
            if (programs || !no_new_privs && said) && action != "SCMP_ACT_ERRNO" {
                continue;
            }
            test(&|bundle| with(bundle, calls, action, no_new_privs), &format!("{calls:?} {action} {no_new_privs}"));
        }
    }
}

#[test]
fn a_program_enters_whatever_its_filter_forbids() {
    if known_difference("runc", "needs some of them itself") || known_difference("crun", "needs some of them itself") {
        return;
    }
    each(|with, what| {
        let container = with(Bundle::new().args(["sleep", "100"]));
        let made = container.run_detached();
        if !made.succeeded() {
            made.fail(what);
        }
        let outcome = container.exec(&["sh", "-c", TELL]);
        assert_eq!(outcome.stdout().trim(), TOLD, "{what}: {}", outcome.stderr());
        outcome.code(137);
        let limited = json!({"args": ["sh", "-c", TELL], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0},
                             "capabilities": {"bounding": ["CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_AUDIT_WRITE"],
                                              "effective": ["CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_AUDIT_WRITE"],
                                              "permitted": ["CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_AUDIT_WRITE"]},
                             "rlimits": [{"type": "RLIMIT_NPROC", "soft": 1000, "hard": 1000}]});
        let outcome = container.exec_process(&limited);
        assert_eq!(outcome.stdout().trim(), TOLD, "{what}, with a limit: {}", outcome.stderr());
        container.delete_force().ok();
    });
}

#[test]
fn a_container_joins_a_pid_namespace_whatever_its_filter_forbids() {
    if known_difference("runc", "needs some of them itself") || known_difference("crun", "needs some of them itself") {
        return;
    }
    let first = Bundle::new().args(["sleep", "100"]);
    first.run_detached().ok();
    each(|with, what| {
        let second = Bundle::inside(first.sandbox().clone()).join("pid", format!("/proc/{}/ns/pid", first.pid()));
        let second = with(second.args(["sh", "-c", TELL]));
        let ran = second.run();
        assert_eq!(ran.stdout().trim(), TOLD, "{what}: {}", ran.stderr());
        ran.code(137);
        second.create().ok();
        let started = second.start();
        if !started.succeeded() {
            started.fail(what);
        }
        second.until("stopped");
        assert_eq!(second.output().trim(), TOLD, "{what}, by create and start");
        second.delete().ok();
    });
}
