//! Profiles that forbid what a runtime itself calls last, when the filter may be in place already.

use serde_json::json;

use crate::harness::{Bundle, Kind, Outcome, kind, known_difference, peers_lack_it};

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

/// What the C library of a static program calls before and after its main.
const STATIC: &[&str] = &[
    "execve",
    "arch_prctl",
    "set_tid_address",
    "set_robust_list",
    "rseq",
    "prlimit64",
    "readlinkat",
    "readlink",
    "getrandom",
    "brk",
    "mprotect",
    "getuid",
    "prctl",
    "exit_group",
];

#[test]
fn n37_a_list_of_what_the_program_calls_is_enough() {
    if known_difference("runc", "needs more of them itself") {
        return;
    }
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
                         "syscalls": [{"names": STATIC, "action": "SCMP_ACT_ALLOW"}]});
    for action in ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"] {
        let container = Bundle::new().args(["true"]).set("/linux/seccomp", profile.clone());
        if action != "SCMP_ACT_ERRNO" && known_difference("crun", "needs more of them itself") {
            continue;
        }
        let container = container.set("/linux/seccomp/defaultAction", action);
        container.run().ok();
        container.create().ok();
        container.start().ok();
        container.until("stopped").delete().ok();
    }
}

#[test]
fn n37_a_failure_behind_a_filter_that_lets_nothing_be_said_is_told() {
    let mute: Vec<&str> = STATIC.iter().copied().filter(|call| *call != "exit_group").collect();
    for action in ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"] {
        for calls in [STATIC, &mute] {
            let profile = json!({"defaultAction": action, "architectures": ["SCMP_ARCH_X86_64"],
                                 "syscalls": [{"names": calls, "action": "SCMP_ACT_ALLOW"}]});
            let with = |bundle: Bundle| bundle.file("/script", "#!/no/interpreter\n", 0o755).args(["/script"]);
            let container = with(Bundle::new()).set("/linux/seccomp", profile.clone());
            let told = |outcome: Outcome| {
                outcome.fails();
                if !known_difference("crun", "says nothing") && !known_difference("runc", "says nothing") {
                    outcome.fails_with("exec /script: no such file or directory (the file exists");
                }
            };
            told(container.run());
            container.state().fails();
            if kind() == Kind::Corten {
                container.create().ok();
                told(container.start());
                container.delete_force().ok();
            }
            // Joined.
            let first = Bundle::inside(container.sandbox().clone()).args(["sleep", "100"]);
            first.run_detached().ok();
            let pid_namespace = format!("/proc/{}/ns/pid", first.pid());
            let second = with(Bundle::inside(first.sandbox().clone())).join("pid", pid_namespace);
            told(second.set("/linux/seccomp", profile.clone()).run());
            // One that enters.
            let mut filtered = with(Bundle::inside(first.sandbox().clone())).set("/linux/seccomp", profile);
            filtered = filtered.args(["sleep", "100"]);
            for call in ["nanosleep", "clock_nanosleep", "ppoll", "read", "write"] {
                filtered =
                    filtered.push("/linux/seccomp/syscalls", json!({"names": [call], "action": "SCMP_ACT_ALLOW"}));
            }
            if filtered.run_detached().succeeded() || kind() == Kind::Corten {
                told(filtered.exec(&["/script"]));
            }
            first.delete_force().ok();
            filtered.delete_force().ok();
        }
    }
}

/// What `check` says of a container, without its summary.
fn checked(container: &Bundle, options: &[&str]) -> Outcome {
    container.write();
    let bundle = container.path().to_str().expect("a plain path");
    container.cmd(["check", "--bundle", bundle].iter().chain(options)).run()
}

#[test]
fn n37_check_names_what_a_filter_leaves_a_runtime_no_way_for() {
    if peers_lack_it() {
        return;
    }
    let with = |calls: &[&str], action: &str, no_new_privs: bool| {
        with(Bundle::new().args(["true"]), calls, action, no_new_privs)
    };
    for no_new_privs in [true, false] {
        for action in ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"] {
            let container = with(&["execve"], action, no_new_privs);
            for outcome in [container.run(), container.create()] {
                outcome
                    .fails_with("/linux/seccomp: no program can be started: the filter forbids execve (allow execve)");
            }
            checked(&container, &[])
                .code(1)
                .shows("/linux/seccomp: no program can be started: the filter forbids execve");
        }
    }
    // Without no_new_privs the user is become behind it, and the container waits at the exec fifo.
    for (calls, action, words) in [
        (&["setgroups"][..], "SCMP_ACT_ERRNO", None),
        (&["setresuid"], "SCMP_ACT_ERRNO", Some("become user 0: operation not permitted")),
        (&["chdir"], "SCMP_ACT_ERRNO", Some("chdir to cwd /: operation not permitted")),
        (&["newfstatat", "fstat", "stat", "statx"], "SCMP_ACT_ERRNO", Some("exec: \"true\": operation not permitted")),
        (&["sendto", "write"], "SCMP_ACT_ERRNO", Some("write to the sync socket: operation not permitted")),
        (&["setresgid"], "SCMP_ACT_KILL_PROCESS", Some("was killed by SIGSYS during its setup")),
        (&["acct"], "SCMP_ACT_KILL_PROCESS", None),
    ] {
        let container = with(calls, action, false);
        let (run, check) = (container.run(), checked(&container, &["--foreground"]));
        match words {
            Some(words) => {
                run.fails_with(words);
                check.code(1).shows(words);
            }
            None => {
                run.ok();
                check.ok();
            }
        }
        let (run, check) = (with(calls, action, true).run(), checked(&with(calls, action, true), &["--foreground"]));
        run.ok();
        check.ok();
    }
    let killed = checked(&with(&["setresgid", "capset"], "SCMP_ACT_KILL_PROCESS", false), &[]);
    killed.code(1).shows("the filter kills it for setresgid, capset: allow them, or set noNewPrivileges");
    for calls in [&["read"][..], &["write", "ppoll"]] {
        let action = if calls.len() > 1 { "SCMP_ACT_KILL_PROCESS" } else { "SCMP_ACT_ERRNO" };
        let container = with(calls, action, false);
        checked(&container, &[]).code(1).shows("/linux/seccomp: the filter forbids read or ppoll");
        checked(&container, &["--foreground"]).ok();
        container.run().ok();
        container.create().ok();
        container.start().fails();
        container.delete_force().ok();
    }
}
