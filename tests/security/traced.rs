//! A process before its execve cannot be traced (ptrace(2)) by anybody who has not CAP_SYS_PTRACE over the host itself; and
//! who has it in a container gets hold of nothing that the container does not have.

use serde_json::json;

use crate::attack::{alone, starts};
use crate::attacker::{
    Attacker, Host, PidHost, USUAL, Verdict, come_and_go, enter, has_seen, has_traced, peers_finish_later,
    with_new_user_namespace,
};
use crate::harness::{Bundle, Outcome};

/// Docker's default rights and these.
fn usual(more: &[&'static str]) -> Bundle {
    Bundle::new().caps(&[&USUAL[..], more].concat())
}

/// A filter that forbids what a driven process tries.
fn filtered(bundle: Bundle) -> Bundle {
    let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]);
    bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))
}

const WAYS: [&str; 2] = ["look", "stop"];

/// S1: CAP_SYS_PTRACE in a container without a user namespace is enough to trace what enters. It is no way to the host's
/// files, nor around the filter.
#[test]
fn a_process_that_enters_and_is_traced_does_nothing_that_the_container_may_not() {
    if peers_finish_later() {
        return;
    }
    let host = Host::of(&Bundle::new());
    let mut verdict = Verdict::default();
    let _alone = alone();
    for catch in WAYS {
        for on_terminal in [false, true] {
            let attacker = Attacker::new(filtered(usual(&["CAP_SYS_PTRACE"])), &host.drive(catch));
            attacker.provoke(starts() / 4, has_traced, |_| enter(&attacker.bundle, on_terminal));
            let told = attacker.ends();
            assert!(has_traced(&told), "nothing was traced: {told}");
            verdict.clean(&format!("{catch}, terminal {on_terminal}"), &told);
        }
    }
    verdict.holds();
    host.is_untouched();
}

/// A tracer that never lets go holds up neither the runtime, nor those that enter later, nor the end of the container.
#[test]
fn a_process_that_enters_and_is_held_by_a_tracer_is_given_up() {
    if peers_finish_later() {
        return;
    }
    let _alone = alone();
    let attacker = Attacker::new(usual(&["CAP_SYS_PTRACE"]), &["probe", "hold", "look", "600"].map(str::to_owned));
    let held = (0..2000).map(|_| enter(&attacker.bundle, false)).find(|entered| !entered.succeeded());
    let held = held.expect("one of so many is caught");
    assert!(has_traced(&attacker.told()), "{}", held.stderr());
    held.fails_with("was stopped during its setup");
    enter(&attacker.bundle, false).ok();
    assert!(attacker.ends().contains("done: Some("));
}

/// S2: root of a user namespace, who has all capabilities there and none outside, waits for a container that joins the user
/// and pid namespace, or for a process that enters, to have it write a file as the host's root.
#[test]
fn root_of_a_user_namespace_traces_nobody_who_joins_it() {
    if peers_finish_later() {
        return;
    }
    let host = Host::of(&Bundle::new());
    let mut verdict = Verdict::default();
    let _alone = alone();
    for catch in WAYS {
        for kinds in [&["user", "pid"][..], &["user", "pid", "ipc", "network", "uts"], &[]] {
            let attacker = Attacker::new(filtered(usual(&["CAP_SYS_PTRACE"]).userns()), &host.drive(catch));
            let beside = filtered(usual(&[])).userns().args(["usleep", "2000"]);
            let beside = attacker.joined_by(beside, kinds);
            attacker.provoke(starts() / 3, has_seen, |round| match kinds {
                [] => enter(&attacker.bundle, round % 4 == 0),
                _ => come_and_go(&[], &beside, round % 2 == 0),
            });
            verdict.untraced(&format!("{catch}, joined {kinds:?}"), &attacker.ends());
        }
    }
    verdict.holds();
    host.is_untouched();
}

/// S3: a new user namespace belongs to the uid that made it, root's; so every process of that uid has all capabilities over
/// what is in it, and may trace there what is dumpable: from a container without a user namespace that sees it.
fn makes_a_user_namespace(shares_with_host: bool) {
    if peers_finish_later() {
        return;
    }
    let host = Host::of(&Bundle::new());
    let mut verdict = Verdict::default();
    let _alone = alone();
    // A runtime that is stopped would not be continued by what started it in there.
    let ways = if shares_with_host { &WAYS[..1] } else { &WAYS };
    let joined: &[&[&str]] = if shares_with_host { &[&[]] } else { &[&["pid"], &["pid", "uts"]] };
    for catch in ways {
        for kinds in joined {
            let first = usual(&[]);
            let pids = shares_with_host.then(|| PidHost::of(&first));
            let starter = pids.as_ref().map(PidHost::words).unwrap_or_default();
            let seeing = |bundle: Bundle| if shares_with_host { bundle.without_ns("pid") } else { bundle };
            let attacker = Attacker::on(&starter, seeing(first), &host.drive(catch));
            let beside = seeing(with_new_user_namespace(usual(&[])).args(["usleep", "2000"]));
            let beside = attacker.joined_by(beside, kinds);
            let number = starts() / if shares_with_host { 1 } else { 4 };
            attacker.provoke(number, has_seen, |round| come_and_go(&starter, &beside, round % 2 == 0));
            verdict.untraced(&format!("{catch}, joined {kinds:?}"), &attacker.ends());
        }
    }
    verdict.holds();
    host.is_untouched();
}

#[test]
fn a_process_of_roots_uid_traces_nobody_who_makes_a_user_namespace_in_its_pid_namespace() {
    makes_a_user_namespace(false);
}

#[test]
fn a_process_of_roots_uid_traces_nobody_who_makes_a_user_namespace_among_the_hosts_processes() {
    makes_a_user_namespace(true);
}

/// S4: who has the rights that a new process ends up with needs no more to trace it from then on, if it is dumpable: its
/// filter may still be missing, and the runtime's memory is behind it.
#[test]
fn a_sibling_of_equal_rights_traces_nobody_before_its_execve() {
    if peers_finish_later() {
        return;
    }
    let host = Host::of(&Bundle::new());
    let mut verdict = Verdict::default();
    let _alone = alone();
    for catch in WAYS {
        for kinds in [&["pid"][..], &["pid", "ipc", "network", "uts"], &[]] {
            let attacker = Attacker::new(filtered(usual(&[])), &host.drive(catch));
            let beside = attacker.joined_by(filtered(usual(&[])).args(["usleep", "2000"]), kinds);
            attacker.provoke(starts() / 6, has_seen, |round| match kinds {
                [] => enter(&attacker.bundle, round % 4 == 0),
                _ => come_and_go(&[], &beside, round % 2 == 0),
            });
            verdict.untraced(&format!("{catch}, joined {kinds:?}"), &attacker.ends());
        }
    }
    verdict.holds();
    host.is_untouched();
}

/// The number of a container's first process as its own pid namespace, the innermost, has it.
fn innermost_pid(bundle: &Bundle) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", bundle.pid())).expect("the status of init");
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).expect("its pids");
    line.split_whitespace().last().and_then(|pid| pid.parse().ok()).expect("a pid")
}

/// What the sibling, or one that sees the host's processes, makes of a container that waits for `start`.
fn at_its_gate(shares_with_host: bool, more: &[&'static str], no_new_privs: bool) -> Vec<(String, Outcome)> {
    let host = Host::of(&Bundle::new());
    let first = usual(more);
    let pids = shares_with_host.then(|| PidHost::of(&first));
    let starter = pids.as_ref().map(PidHost::words).unwrap_or_default();
    let seeing = |bundle: Bundle| if shares_with_host { bundle.without_ns("pid") } else { bundle };
    let sibling = seeing(first).args(["sleep", "100"]);
    sibling.run_detached_cmd().started_by(&starter).run().ok();
    let mut told = Vec::new();
    for _ in 0..(starts() / 16).max(1) {
        let waiting = seeing(filtered(usual(more)).set("/process/noNewPrivileges", no_new_privs)).args(["true"]);
        let waiting = match shares_with_host {
            true => waiting,
            false => waiting.join("pid", format!("/proc/{}/ns/pid", sibling.pid())),
        };
        waiting.create_cmd(&[]).started_by(&starter).run().ok();
        let pid = if shares_with_host { waiting.pid() } else { innermost_pid(&waiting) };
        let words = host.drive_one(pid);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let seen = sibling.exec_cmd(&[], &words).started_by(&starter).run();
        let status = sibling.exec_cmd(&[], &["cat", &format!("/proc/{pid}/status")]).started_by(&starter).run();
        told.push((status.ok().stdout(), seen));
        waiting.cmd(["start", waiting.name()]).started_by(&starter).run().ok();
        waiting.cmd(["delete", "--force", waiting.name()]).started_by(&starter).run().ok();
    }
    sibling.cmd(["delete", "--force", sibling.name()]).started_by(&starter).run().ok();
    host.is_untouched();
    told
}

/// S4: a container with noNewPrivileges has its filter loaded late, and one that waits for `start` is traced by a sibling
/// of the same uid and capabilities, who has it do what the filter forbids.
fn waits_at_its_gate(shares_with_host: bool) {
    if peers_finish_later() {
        return;
    }
    for no_new_privs in [true, false] {
        for (status, seen) in at_its_gate(shares_with_host, &[], no_new_privs) {
            seen.ok().hides("breach");
            if !status.contains("Seccomp:\t2") {
                seen.fail("what waits at the exec fifo has no filter");
            }
            seen.prints("refused EPERM");
        }
    }
}

#[test]
fn a_sibling_does_not_trace_a_container_at_its_gate() {
    waits_at_its_gate(false);
}

#[test]
fn a_container_among_the_hosts_processes_does_not_trace_one_at_its_gate() {
    waits_at_its_gate(true);
}

/// With CAP_SYS_PTRACE a sibling may; and finds the container's own filter there, and nothing of the host.
#[test]
fn a_sibling_that_may_trace_finds_the_filter_in_place_at_the_gate() {
    if peers_finish_later() {
        return;
    }
    for no_new_privs in [true, false] {
        for (_, seen) in at_its_gate(false, &["CAP_SYS_PTRACE"], no_new_privs) {
            seen.ok().shows("traced ").shows("Seccomp: 2").hides("breach");
        }
    }
}
