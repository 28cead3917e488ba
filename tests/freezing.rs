//! Pause and resume, and what else is done to a container that stands still or has cgroups of its own making.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Bundle, End, Outcome, eventually, known_difference, slowness, systemd_makes_them};

fn running() -> Bundle {
    let container = Bundle::new().sh("while :; do echo tick; usleep 10000; done");
    container.run_detached().ok();
    container.until_output("tick");
    container
}

fn act(container: &Bundle, verb: &str) -> Outcome {
    container.cmd([verb, container.name()]).run()
}

/// A container that may make cgroups below its own.
fn nesting(script: &str) -> Bundle {
    Bundle::new().mount_options("/sys/fs/cgroup", |options| options.retain(|option| option != "ro")).sh(script)
}

#[test]
fn a_paused_container_stands_still_and_goes_on_when_it_is_resumed() {
    let container = running();
    act(&container, "pause").prints("");
    assert_eq!(container.status(), "paused");
    std::thread::sleep(Duration::from_millis(30));
    let before = container.output();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(container.output(), before);
    act(&container, "resume").prints("");
    assert_eq!(container.status(), "running");
    eventually("it goes on", || container.output() != before);
}

#[test]
fn pause_and_resume_say_what_state_they_want() {
    let container = running();
    if !known_difference("crun", "resumes anything") {
        act(&container, "resume").fails_with("container not paused");
    }
    act(&container, "pause").ok();
    if !known_difference("crun", "pauses again") {
        act(&container, "pause").fails_with("container not running");
    }
    container.kill("KILL").ok();
    container.wait();
    for (verb, word) in [("pause", "not running"), ("resume", "not paused")] {
        if !known_difference("crun", "looks at no state") {
            act(&container, verb).fails_with(word);
        }
    }
    let none = container.cmd(["pause", "nosuch"]).run();
    none.fails_with("does not exist");
}

#[test]
fn a_created_container_can_be_paused_and_started_later() {
    let container = Bundle::new().args(["true"]);
    container.create().ok();
    act(&container, "pause").ok();
    if !known_difference("crun", "says that it is created") {
        assert_eq!(container.status(), "paused");
    }
    act(&container, "resume").ok();
    assert_eq!(container.status(), "created");
    container.start().ok();
    assert_eq!(container.wait(), End::Code(0));
}

#[test]
fn a_paused_container_is_killed_and_deleted_at_once() {
    for pid_namespace in [true, false] {
        let bundle = Bundle::new().args(["sleep", "60"]);
        let container = if pid_namespace { bundle } else { bundle.without_ns("pid") };
        container.run_detached().ok();
        act(&container, "pause").ok();
        let killed = container.kill("KILL");
        assert!(killed.ok().took() < slowness() * Duration::from_secs(2), "{:?}", killed.took());
        container.wait();
        if known_difference("runc", "says of a dead one that it is paused") {
            container.delete_force().ok();
            continue;
        }
        eventually("it is stopped", || container.status() == "stopped");
        container.delete().ok();
        assert!(!container.cgroup().exists(), "the cgroup is left");
    }
    let container = running();
    act(&container, "pause").ok();
    let deleted = container.delete_force();
    assert!(deleted.ok().took() < slowness() * Duration::from_secs(2), "{:?}", deleted.took());
    assert!(!container.cgroup().exists(), "the cgroup is left");
}

#[test]
fn a_signal_to_a_paused_container_arrives_when_it_is_resumed() {
    let container = Bundle::new().sh("trap 'echo got; exit 7' TERM; echo ready; while :; do usleep 10000; done");
    container.run_detached().ok();
    container.until_output("ready");
    act(&container, "pause").ok();
    container.kill("TERM").ok();
    if container.status() == "paused" {
        assert!(!container.output().contains("got"));
        act(&container, "resume").ok();
    }
    assert_eq!(container.wait(), End::Code(7));
}

#[test]
fn a_container_below_a_frozen_cgroup_is_not_resumed_and_that_is_said_at_once() {
    if known_difference("crun", "waits for nothing") || known_difference("runc", "looks at its own switch alone") {
        return;
    }
    if systemd_makes_them() {
        return;
    }
    let container = Bundle::new();
    let path = format!("{}/above/own", container.sandbox().cgroup_name());
    let above = container.sandbox().cgroup().join("above");
    let container = container.set("/linux/cgroupsPath", path).args(["sleep", "60"]);
    container.run_detached().ok();
    fs::write(above.join("cgroup.freeze"), "1").expect("freeze");
    eventually("it is frozen", || container.status() == "paused");
    let refused = act(&container, "resume");
    refused.fails_with("above");
    assert!(refused.took() < slowness() * Duration::from_secs(2), "{:?}", refused.took());
    fs::write(above.join("cgroup.freeze"), "0").expect("thaw");
    eventually("it runs", || container.status() == "running");
    act(&container, "pause").ok();
    act(&container, "resume").ok();
}

#[test]
fn processes_are_listed_wherever_below_the_containers_cgroup_they_are() {
    let script = "cd /sys/fs/cgroup; mkdir -p a/b c; sleep 60 & echo $! >a/b/cgroup.procs; sleep 60 & \
                  echo $! >c/cgroup.procs; echo 1 >a/cgroup.procs; echo moved; wait";
    let container = nesting(script);
    container.run_detached().ok();
    container.until_output("moved");
    let listed = container.cmd(["ps", "--format", "json", container.name()]).run().json();
    assert_eq!(listed.as_array().map(Vec::len), Some(3), "{listed}");
    assert!(listed.as_array().is_some_and(|pids| pids.contains(&Value::from(container.pid()))), "{listed}");
    if !known_difference("crun", "shows pids alone") {
        let table = container.cmd(["ps", container.name()]).run();
        table.shows("PID").shows("sleep 60");
    }
    act(&container, "pause").ok();
    let paused = container.cmd(["ps", "--format", "json", container.name()]).run().json();
    assert_eq!(paused, listed);
    act(&container, "resume").ok();
    container.kill("KILL").ok();
    container.wait();
    container.delete().ok();
    assert!(!container.cgroup().exists(), "the cgroup is left");
}

#[test]
fn b53_a_frozen_cgroup_of_the_containers_own_making_stops_neither_kill_nor_delete() {
    let freeze = "cd /sys/fs/cgroup; mkdir z; sleep 60 & echo $! >z/cgroup.procs; echo 1 >z/cgroup.freeze; \
                  until grep -q 'frozen 1' z/cgroup.events; do :; done; echo frozen; wait";
    let container = nesting(freeze);
    container.run_detached().ok();
    container.until_output("frozen");
    assert_eq!(container.status(), "running");
    act(&container, "pause").ok();
    act(&container, "resume").ok();
    let below = fs::read_to_string(container.cgroup().join("z/cgroup.freeze")).expect("its own switch");
    assert_eq!(below.trim(), "1", "what the container froze stays frozen");
    let deleted = container.delete_force();
    assert!(deleted.ok().took() < Duration::from_secs(5), "{:?}", deleted.took());
    assert!(!container.cgroup().exists(), "the cgroup is left");
}

#[test]
fn b53_a_process_of_the_host_in_the_containers_cgroup_keeps_nothing_alive() {
    // A unit is gone with its last process.
    if systemd_makes_them() {
        return;
    }
    let container = Bundle::new().args(["true"]);
    container.run_detached().ok();
    container.wait();
    let mut stranger = std::process::Command::new("sleep").arg("60").spawn().expect("spawn sleep");
    fs::write(container.cgroup().join("cgroup.procs"), stranger.id().to_string()).expect("move it");
    let deleted = container.cmd(["delete", "--force", container.name()]).run();
    assert!(deleted.took() < Duration::from_secs(15), "{:?}", deleted.took());
    if deleted.succeeded() {
        assert!(!container.cgroup().exists(), "the cgroup is left");
    } else if !known_difference("runc", "names no process") {
        deleted.fails_with(&stranger.id().to_string());
    }
    let _ = stranger.kill();
    let _ = stranger.wait();
}

#[test]
fn b82_cgroups_that_the_container_has_left_go_with_it() {
    let container = nesting("for a in $(seq 50); do mkdir -p /sys/fs/cgroup/$a/b/c; done; echo made");
    container.run_detached().ok();
    assert_eq!(container.wait(), End::Code(0));
    assert!(container.cgroup().join("50/b/c").exists());
    container.delete().ok();
    assert!(!container.cgroup().exists(), "the cgroup is left");
}

#[test]
fn b82_a_frozen_cgroup_is_refused() {
    let container = Bundle::new().args(["true"]);
    fs::create_dir_all(container.cgroup()).expect("make the cgroup");
    fs::write(container.cgroup().join("cgroup.freeze"), "1").expect("freeze it");
    if !known_difference("crun", "hangs in it") {
        container.create().fails_with("frozen");
    }
    fs::write(container.cgroup().join("cgroup.freeze"), "0").expect("thaw it");
    container.create().ok();
}
