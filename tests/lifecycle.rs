//! The life cycle: create, start, state, kill, delete, run.

use std::fs;

use crate::harness::Bundle;

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
