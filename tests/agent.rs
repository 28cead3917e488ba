//! `SCMP_ACT_NOTIFY`: what the seccomp agent is told, whose answers hold, and that nothing waits for ever.

use serde_json::{Value, json};

use crate::harness::{Agent, Answer, Bundle, Kind, eventually, kind, known_difference};

const MKDIR: u32 = libc::SYS_mkdir as u32;

fn notifying(bundle: Bundle, names: &[&str], agent: &Agent) -> Bundle {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "listenerPath": agent.path(),
        "syscalls": [{"names": names, "action": "SCMP_ACT_NOTIFY"}],
    });
    bundle.set("/linux/seccomp", profile)
}

fn continues(_: u32) -> Answer {
    Answer::Continue
}

/// mkdir fails with an error that it never has by itself.
fn refuses_mkdir(number: u32) -> Answer {
    if number == MKDIR { Answer::Fails(libc::EADDRNOTAVAIL) } else { Answer::Continue }
}

fn asking_for_mkdir(bundle: Bundle) -> Bundle {
    bundle.probe(["syscall", &format!("{MKDIR},s:/made,0")])
}

#[test]
fn the_agent_is_told_of_the_container_and_decides() {
    if known_difference("crun", "loads the filter after start, and says created") {
        return;
    }
    for no_new_privs in [true, false] {
        let bundle = Bundle::new();
        let agent = Agent::listen(bundle.host("agent.sock"), refuses_mkdir);
        let bundle = notifying(asking_for_mkdir(bundle), &["mkdir"], &agent)
            .set("/process/noNewPrivileges", no_new_privs)
            .set("/linux/seccomp/listenerMetadata", "a \"word\" for the agent")
            .set("/annotations", json!({"org.example.a": "b"}));
        bundle.create().ok();
        let pid = bundle.pid();
        eventually("the agent is told", || agent.documents().len() == 1);
        let (document, fds, _) = agent.documents().remove(0);
        assert_eq!(fds, 1);
        assert_eq!(document["fds"], json!(["seccompFd"]));
        assert!(document["ociVersion"].is_string());
        assert_eq!(document["pid"], pid);
        assert_eq!(document["metadata"], "a \"word\" for the agent");
        assert_eq!(document["state"]["id"], bundle.name());
        assert_eq!(document["state"]["pid"], pid);
        assert_eq!(document["state"]["bundle"], bundle.path().to_str().expect("a plain path"));
        assert_eq!(document["state"]["annotations"]["org.example.a"], "b");
        assert_eq!(document["state"]["status"], "creating");
        bundle.start().ok();
        bundle.wait();
        assert_eq!(bundle.output().trim(), format!("{MKDIR} EADDRNOTAVAIL"));
        assert!(agent.calls().contains(&(pid, MKDIR)), "{:?}", agent.calls());
        assert_eq!(agent.documents().len(), 1);
        assert!(agent.documents()[0].2, "the connection is closed after the document");
    }
}

#[test]
fn a_program_run_at_once_has_its_agent() {
    for no_new_privs in [true, false] {
        let bundle = Bundle::new();
        let agent = Agent::listen(bundle.host("agent.sock"), refuses_mkdir);
        let bundle =
            notifying(asking_for_mkdir(bundle), &["mkdir"], &agent).set("/process/noNewPrivileges", no_new_privs);
        bundle.run().ok().prints(&format!("{MKDIR} EADDRNOTAVAIL\n"));
    }
}

#[test]
fn an_exec_has_a_listener_of_its_own() {
    for no_new_privs in [true, false] {
        let bundle = Bundle::new();
        let agent = Agent::listen(bundle.host("agent.sock"), refuses_mkdir);
        let bundle = notifying(bundle.args(["sleep", "60"]), &["mkdir"], &agent)
            .set("/process/noNewPrivileges", no_new_privs)
            .set("/linux/seccomp/listenerMetadata", "m");
        bundle.run_detached().ok();
        let outcome = bundle.exec(&["mkdir", "/made"]);
        outcome.fails();
        eventually("the agent is told of both", || agent.documents().len() == 2);
        let documents = agent.documents();
        let document = &documents[1].0;
        if known_difference("crun", "says 0 for the pid") {
            return;
        }
        let (init, program) = (bundle.pid(), document["pid"].as_i64().expect("a pid") as i32);
        assert_ne!(program, init);
        assert_eq!(document["state"]["pid"], init);
        assert_eq!(document["state"]["status"], "running");
        assert_eq!(document["metadata"], "m");
        assert!(agent.calls().contains(&(program, MKDIR)), "{:?}", agent.calls());
        bundle.delete_force().ok();
    }
}

/// What a runtime may call between the load of the filter and the program, and what every program does.
const OURS: &[&str] = &[
    "sendmsg",
    "sendto",
    "write",
    "writev",
    "close",
    "close_range",
    "execve",
    "execveat",
    "recvfrom",
    "recvmsg",
    "read",
    "poll",
    "ppoll",
    "prctl",
    "setresuid",
    "setresgid",
    "setuid",
    "setgid",
    "setgroups",
    "capset",
    "capget",
    "chdir",
    "fchdir",
    "getcwd",
    "dup",
    "fcntl",
    "mmap",
    "munmap",
    "mprotect",
    "brk",
    "rt_sigaction",
    "rt_sigprocmask",
    "exit_group",
    "umask",
    "openat",
    "open",
    "newfstatat",
    "fstat",
    "futex",
    "getpid",
    "getuid",
    "access",
    "faccessat2",
    "ioctl",
    "fchown",
    "fcntl",
    "seccomp",
    "wait4",
    "restart_syscall",
    "statx",
];

#[test]
fn no_call_that_is_notified_makes_the_runtime_wait_for_itself() {
    for name in OURS {
        if kind() == Kind::Runc && *name == "write" {
            continue; // it refuses that by name
        }
        let bundle = Bundle::new();
        let agent = Agent::listen(bundle.host("agent.sock"), continues);
        let no_new_privs = name.len() % 2 == 0;
        let bundle = notifying(bundle.args(["true"]), &[name], &agent).set("/process/noNewPrivileges", no_new_privs);
        bundle.run().ok();
    }
}

#[test]
fn a_profile_that_notifies_of_everything_works_in_every_way() {
    if known_difference("runc", "refuses it") || known_difference("crun", "is not asked") {
        return;
    }
    for no_new_privs in [true, false] {
        let bundle = Bundle::new();
        let agent = Agent::listen(bundle.host("agent.sock"), continues);
        let bundle = notifying(bundle.args(["sleep", "60"]), &[], &agent)
            .set("/linux/seccomp/defaultAction", "SCMP_ACT_NOTIFY")
            .set("/process/noNewPrivileges", no_new_privs)
            .set("/process/user", json!({"uid": 5, "gid": 6, "additionalGids": [7]}));
        bundle.create().ok();
        bundle.start().ok();
        bundle.exec(&["sh", "-c", "exit 3"]).code(3);
        let pid = bundle.pid();
        assert!(agent.calls().contains(&(pid, libc::SYS_execve as u32)));
        assert!(agent.calls().contains(&(pid, libc::SYS_sendto as u32)));
        bundle.kill("KILL").ok();
        bundle.until("stopped").delete().ok();
        bundle.args(["sh", "-c", "exit 5"]).run().code(5);
    }
}

#[test]
fn the_agent_is_told_of_a_container_that_joins_a_pid_namespace_whatever_is_notified() {
    let pod = Bundle::new().args(["sleep", "1000"]);
    pod.run_detached().ok();
    for names in
        [&["mkdir"][..], &["clone", "clone3"], &["setsid"], &["exit_group"], &["recvfrom"], &["ppoll"], &["sendto"]]
    {
        for no_new_privs in [true, false] {
            let bundle = Bundle::new().args(["sleep", "1000"]).join("pid", format!("/proc/{}/ns/pid", pod.pid()));
            let agent = Agent::listen(bundle.host(&format!("agent-{}.sock", bundle.name())), continues);
            let bundle = notifying(bundle, names, &agent).set("/process/noNewPrivileges", no_new_privs);
            bundle.create().ok();
            eventually(&format!("the agent is told of {names:?}"), || agent.documents().len() == 1);
            bundle.start().ok();
            assert_eq!(bundle.status(), "running", "{names:?}, no_new_privs {no_new_privs}");
            bundle.delete_force().ok();
        }
    }
}

#[test]
fn hooks_in_the_container_are_notified_of_as_well() {
    let bundle = Bundle::new();
    let agent = Agent::listen(bundle.host("agent.sock"), continues);
    let bundle = notifying(bundle.args(["true"]), &["write", "clone", "vfork", "clone3", "pipe2", "wait4"], &agent)
        .hook("startContainer", "echo x > /dev/null");
    if kind() != Kind::Runc {
        bundle.run().ok();
    }
}

#[test]
fn a_program_that_is_not_there_is_told_as_ever() {
    for names in [&["execve"][..], &["sendmsg", "sendto", "write", "exit_group"]] {
        let bundle = Bundle::new();
        let agent = Agent::listen(bundle.host("agent.sock"), continues);
        let bundle = notifying(bundle.args(["/nowhere"]), names, &agent);
        if kind() != Kind::Runc {
            bundle.run().fails_with("no such file or directory");
        }
    }
}

#[test]
fn an_agent_that_leaves_stops_nobody_for_ever() {
    if known_difference("crun", "is not asked") {
        return;
    }
    for names in [&["execve"][..], &["sendmsg", "execve"]] {
        let bundle = Bundle::new();
        let agent = Agent::listen(bundle.host("agent.sock"), |_| Answer::Leave);
        let bundle = notifying(bundle.args(["true"]), names, &agent).set("/process/noNewPrivileges", true);
        // The call does not exist once nobody listens any more.
        bundle.run().fails_with("function not implemented");
    }
}

#[test]
fn an_agent_that_leaves_when_something_is_closed_stops_nobody_for_ever() {
    if known_difference("crun", "is not asked") || known_difference("runc", "is not asked") {
        return;
    }
    for names in [&["close"][..], &["sendmsg", "close"]] {
        let bundle = Bundle::new();
        let agent = Agent::listen(bundle.host("agent.sock"), |_| Answer::Leave);
        let bundle = notifying(bundle.args(["true"]), names, &agent).set("/process/noNewPrivileges", true);
        bundle.run().ok();
        assert!(!agent.calls().is_empty());
    }
}

#[test]
fn without_an_agent_nothing_is_left() {
    let bundle = Bundle::new().args(["true"]);
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": bundle.host("nobody.sock"),
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
    });
    let bundle = bundle.set("/linux/seccomp", profile);
    let outcome = bundle.create();
    outcome.fails();
    if kind() == Kind::Corten {
        outcome.fails_with("/linux/seccomp/listenerPath").fails_with("failed to connect with seccomp agent at");
    }
    bundle.state().fails();
    if known_difference("crun", "connects to an agent whom nothing is asked") {
        return;
    }
    bundle.set("/linux/seccomp/syscalls", json!([])).run().ok();
}

#[test]
fn an_agent_without_an_address_is_an_error() {
    let rules = json!([{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]);
    let profile = |more: Value| {
        let mut profile = json!({"defaultAction": "SCMP_ACT_ALLOW"});
        profile.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        Bundle::new().args(["true"]).set("/linux/seccomp", profile).run()
    };
    if known_difference("crun", "loads such a filter") {
        return;
    }
    let outcome = profile(json!({"syscalls": rules}));
    outcome.fails();
    if kind() == Kind::Corten {
        outcome.fails_with("/linux/seccomp/listenerPath").fails_with("SCMP_ACT_NOTIFY");
        profile(json!({"listenerMetadata": "x"})).fails_with("/linux/seccomp/listenerMetadata");
    }
}

#[test]
fn a_long_document_arrives_whole() {
    let bundle = Bundle::new();
    let agent = Agent::listen(bundle.host("agent.sock"), continues);
    let metadata = "m".repeat(1 << 20);
    let bundle =
        notifying(bundle.args(["true"]), &["mkdir"], &agent).set("/linux/seccomp/listenerMetadata", &*metadata);
    bundle.run().ok();
    eventually("the document is there", || agent.documents().len() == 1);
    assert_eq!(agent.documents()[0].0["metadata"], metadata);
}

#[test]
fn waiting_killable_goes_with_a_listener() {
    let bundle = Bundle::new();
    let agent = Agent::listen(bundle.host("agent.sock"), refuses_mkdir);
    let bundle = notifying(asking_for_mkdir(bundle), &["mkdir"], &agent)
        .set("/linux/seccomp/flags", json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]));
    if !known_difference("runc", "since 1.5") {
        bundle.run().ok().prints(&format!("{MKDIR} EADDRNOTAVAIL\n"));
    }
}

#[test]
fn a_filter_in_parts_has_one_listener() {
    if known_difference("runc", "the filter is too long") || known_difference("crun", "the filter is too long") {
        return;
    }
    let condition = |value: u64| json!([{"index": 0, "value": value << 31, "op": "SCMP_CMP_EQ"}]);
    let often = |name: &str, values: std::ops::Range<u64>| {
        let rule =
            |value| json!({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": 98, "args": condition(value)});
        values.map(rule).collect::<Vec<Value>>()
    };
    // The listener's part is now the first and now the last, and may be asked for the load of the others.
    for loading in [json!([]), json!([{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}])] {
        for names in [&["mkdir"][..], &["mkdir", "sendmsg"], &["seccomp"]] {
            let bundle = Bundle::new();
            let agent = Agent::listen(bundle.host("agent.sock"), refuses_mkdir);
            let mut rules = often("getppid", 1..1500);
            rules.extend(often("personality", 2..1500));
            rules.extend(names.iter().map(|name| {
                let args = if *name == "seccomp" { loading.clone() } else { json!([]) };
                json!({"names": [name], "action": "SCMP_ACT_NOTIFY", "args": args})
            }));
            let hit = "135,0x2ed80000000";
            let bundle = notifying(bundle.probe(["syscall", &format!("{MKDIR},s:/made,0"), hit]), &[], &agent)
                .set("/linux/seccomp/syscalls", json!(rules));
            let made = if names.contains(&"mkdir") { "EADDRNOTAVAIL" } else { "ok" };
            bundle.run().prints(&format!("{MKDIR} {made}\n135 EADDRINUSE"));
        }
    }
}
