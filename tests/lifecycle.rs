//! The life cycle: create, start, state, kill, delete, run.

use std::fs;

use serde_json::json;

use crate::harness::{Bundle, End, Kind, eventually, kind, known_difference, peers_lack_it};

#[test]
fn run_passes_on_output_and_exit_code() {
    Bundle::new().args(["echo", "hello"]).run().prints("hello");
    Bundle::new().sh("exit 7").run().code(7);
    Bundle::new().sh("kill -9 $$").run().code(0);
}

#[test]
fn a_death_by_signal_is_128_and_the_signal() {
    let container = Bundle::new().args(["sleep", "60"]);
    let running = container.spawn();
    container.until("running").kill("KILL").ok();
    running.wait().code(128 + 9);
}

#[test]
fn a_container_goes_through_created_running_stopped() {
    let container = Bundle::new().args(["sleep", "60"]);
    container.create().ok();
    assert_eq!(container.status(), "created");
    container.start().ok();
    assert_eq!(container.status(), "running");
    container.kill("KILL").ok();
    container.until("stopped").delete().ok();
    container.state().fails_with("does not exist");
}

#[test]
fn run_leaves_nothing_behind() {
    let container = Bundle::new().args(["true"]);
    container.run().ok();
    container.state().fails_with("does not exist");
    assert!(!container.cgroup().exists(), "the cgroup is left");
    assert!(!container.sandbox().root().join(container.name()).exists(), "its directory is left in the state root");
}

#[test]
fn the_process_is_in_the_cgroup_asked_for_when_create_returns() {
    let container = Bundle::new().args(["true"]);
    container.create().ok();
    let procs = fs::read_to_string(container.cgroup().join("cgroup.procs")).expect("cgroup.procs");
    assert_eq!(procs.trim(), container.pid().to_string());
    container.delete_force().ok();
    assert!(!container.cgroup().exists(), "the cgroup is left");
}

#[test]
fn the_program_does_not_run_before_start() {
    let container = Bundle::new().args(["echo", "I run"]);
    container.create().ok();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(container.output(), "");
    container.start().ok();
    container.until_output("I run");
}

#[test]
fn an_id_is_taken_until_delete() {
    let container = Bundle::new().args(["true"]);
    container.create().ok();
    container.create().fails_with_one_of(&["already exists", "given ID already exists"]);
    assert_eq!(container.status(), "created", "the failed create disturbed the first");
    container.start().ok();
    container.until("stopped").create().fails_with("already exists");
    container.delete().ok();
    container.create().ok();
}

#[test]
fn a_second_start_fails() {
    let container = Bundle::new().args(["sleep", "60"]);
    container.create().ok();
    container.start().ok();
    container.start().fails();
    container.kill("KILL").ok();
    container.until("stopped").start().fails();
}

#[test]
fn nothing_but_the_containers_process_exists_while_it_waits() {
    let container = Bundle::new().args(["sleep", "60"]);
    container.create().ok();
    for _ in 0..2 {
        let caller =
            fs::read_to_string(container.sandbox().cgroup().join("caller/cgroup.procs")).expect("cgroup.procs");
        assert_eq!(caller, "", "a process of the runtime is left");
        let procs = fs::read_to_string(container.cgroup().join("cgroup.procs")).expect("cgroup.procs");
        assert_eq!(procs, format!("{}\n", container.pid()), "there is more than the container's process");
        let threads = fs::read_dir(format!("/proc/{}/task", container.pid())).expect("its threads").count();
        if threads != 1 && !known_difference("runc", "has the threads of its language until start") {
            panic!("{threads} threads");
        }
        container.start();
    }
}

#[test]
fn a_failed_create_leaves_nothing_behind() {
    for broken in [
        Bundle::new().args(["/no/such/program"]),
        Bundle::new().bind("/no/such/source", "/m", &["bind"]),
        Bundle::new().join("network", "/no/such/namespace"),
        Bundle::new().set("/root/path", "nosuch"),
    ] {
        broken.create().fails();
        broken.state().fails_with("does not exist");
        if !known_difference("crun", "leaves the cgroup when a namespace cannot be joined") {
            assert!(!broken.cgroup().exists(), "the cgroup is left");
        }
        assert!(!broken.sandbox().root().join(broken.name()).exists(), "its directory is left in the state root");
        broken.delete_force().ok();
    }
}

#[test]
fn many_containers_live_side_by_side() {
    let first = Bundle::new().args(["sleep", "60"]);
    let others: Vec<Bundle> = (0..8).map(|_| Bundle::inside(first.sandbox().clone()).args(["sleep", "60"])).collect();
    std::thread::scope(|scope| {
        for container in &others {
            scope.spawn(|| {
                container.create().ok();
                container.start().ok();
            });
        }
    });
    let listed = first.cmd(["list", "-q"]).run().lines().len();
    assert_eq!(listed, others.len());
    std::thread::scope(|scope| {
        for container in &others {
            scope.spawn(|| container.delete_force().ok().succeeded());
        }
    });
    assert_eq!(first.cmd(["list", "-q"]).run().lines().len(), 0);
}

#[test]
fn one_id_asked_for_by_many_at_once_is_given_to_one() {
    let container = Bundle::new().args(["sleep", "60"]);
    container.write();
    let made = std::thread::scope(|scope| {
        let all: Vec<_> = (0..6).map(|_| scope.spawn(|| container.create_cmd(&[]).run().succeeded())).collect();
        all.into_iter().filter_map(|one| one.join().ok()).filter(|made| *made).count()
    });
    assert_eq!(made, 1);
    assert_eq!(container.status(), "created");
    container.start().ok();
    assert_eq!(container.status(), "running");
}

#[test]
fn a_start_while_create_is_at_work_waits_for_it() {
    let container = Bundle::new().args(["echo", "started"]).hook("createRuntime", "sleep 1");
    let creator = container.create_cmd(&[]).spawn();
    eventually("there is a state", || container.state().succeeded());
    // The peers tell of a state only after these hooks.
    assert!(creator.is_running() || kind() != Kind::Corten);
    container.start().ok();
    let created = creator.wait();
    created.ok();
    eventually("the program runs", || created.stdout() == "started\n");
}

#[test]
fn a_start_while_a_create_fails_tells_that_it_is_gone() {
    if peers_lack_it() {
        return;
    }
    let container = Bundle::new().args(["true"]).hook("createRuntime", "sleep 1; exit 3");
    let creator = container.create_cmd(&[]).spawn();
    eventually("there is a state", || container.state().succeeded());
    container.start().fails_with("does not exist");
    creator.wait().fails();
    container.state().fails_with("does not exist");
}

#[test]
fn x32_a_container_that_waits_at_its_gate_is_ended_by_the_signals_that_end_a_program() {
    if known_difference("crun", "they are lost") {
        return;
    }
    for (name, number) in [("TERM", 15), ("HUP", 1), ("INT", 2), ("QUIT", 3)] {
        let container = Bundle::new().args(["sleep", "60"]);
        container.create().ok();
        container.kill(name).ok();
        container.until("stopped");
        let end = container.wait();
        if kind() == Kind::Corten {
            assert_eq!(end, End::Code(128 + number));
        }
        container.start().fails();
        container.delete().ok();
    }
    // Others are not, and the program has the actions that are the default.
    let container = Bundle::new().sh("grep SigCgt /proc/self/status; exec sleep 60");
    container.create().ok();
    container.kill("WINCH").ok();
    container.start().ok();
    container.until_output("SigCgt:\t0000000000000000");
    container.delete_force().ok();
    let filtered = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["rt_sigaction", "rt_sigreturn"], "action": "SCMP_ACT_ERRNO"}]});
    for no_new_privs in [true, false] {
        let container = Bundle::new().args(["true"]).set("/linux/seccomp", filtered.clone());
        let container = container.set("/process/noNewPrivileges", no_new_privs);
        if !known_difference("runc", "needs them itself") {
            container.create().ok();
            container.kill("TERM").ok();
            container.until("stopped").delete().ok();
        }
    }
}
