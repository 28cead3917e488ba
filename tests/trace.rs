//! `--trace FILE`. No peer has this.

use std::fs;
use std::path::PathBuf;

use crate::harness::{Bundle, peers_lack_it};

/// The steps of one side, in order, each of whose times fit together.
fn steps(file: &PathBuf, wanted: &str) -> Vec<String> {
    let text = fs::read_to_string(file).expect("the trace");
    let (mut last, mut steps) = (0, Vec::new());
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(at), Some(took), Some(side)) = (words.next(), words.next(), words.next()) else { panic!("{text}") };
        let Ok(at) = at.parse::<u64>() else { continue };
        if side == wanted {
            let took: u64 = took.parse().expect("a number");
            // The container's half goes on from where the host was when it was born.
            assert!(at >= last && (steps.is_empty() || at - took == last), "{line}\n{text}");
            last = at;
            steps.push(words.collect::<Vec<_>>().join(" "));
        }
    }
    steps
}

fn holds_in_order(steps: &[String], wanted: &[&str]) {
    let mut rest = steps.iter();
    for step in wanted {
        assert!(rest.any(|there| there == step), "{step} is not in its place in {steps:#?}");
    }
}

#[test]
fn each_step_of_both_sides_is_there_and_the_program_sees_nothing_of_it() {
    if peers_lack_it() {
        return;
    }
    let container = Bundle::new().args(["probe", "fds"]);
    let file = container.path().join("trace");
    let seen = container.run_cmd().global(["--trace", file.to_str().expect("a plain path")]).run();
    assert_eq!(seen.ok().lines().len(), 3, "{}", seen.stdout());
    let host = ["configuration read", "plan made", "container process created", "program runs", "state removed"];
    holds_in_order(&steps(&file, "host"), &host);
    let inside = ["born", "namespaces entered", "mounts and devices created", "root pivoted", "execve is next"];
    holds_in_order(&steps(&file, "container"), &inside);
}

#[test]
fn create_start_exec_and_delete_tell_their_steps_too() {
    if peers_lack_it() {
        return;
    }
    let container = Bundle::new().sh("exec sleep 60");
    let traced = |command: &[&str]| {
        let file = container.path().join(command[0]);
        container.cmd(command).global([format!("--trace={}", file.display())]).run().ok();
        file
    };
    let path = container.path().to_str().expect("a plain path").to_owned();
    container.write();
    let file = traced(&["create", "--bundle", &path, container.name()]);
    holds_in_order(&steps(&file, "host"), &["record written", "container waits at the exec fifo"]);
    traced(&["start", container.name()]);
    // The container's half of a create goes on when it is let go.
    holds_in_order(&steps(&file, "container"), &["waits at the exec fifo", "execve is next"]);
    let file = traced(&["exec", container.name(), "true"]);
    holds_in_order(&steps(&file, "container"), &["born", "namespaces joined", "execve is next"]);
    let file = traced(&["delete", "--force", container.name()]);
    holds_in_order(&steps(&file, "host"), &["init ended", "cgroup removed", "state removed"]);
}

#[test]
fn a_failure_is_the_last_step() {
    if peers_lack_it() {
        return;
    }
    let container = Bundle::new().args(["/nowhere"]);
    let file = container.path().join("trace");
    container.run_cmd().global(["--trace", file.to_str().expect("a plain path")]).run().fails();
    for side in ["host", "container"] {
        let last = steps(&file, side).pop().expect("a step");
        assert!(last.starts_with("failed: ") && last.contains("/nowhere"), "{last}");
    }
}

#[test]
fn what_was_reached_is_there_after_a_crash() {
    if peers_lack_it() {
        return;
    }
    let container = Bundle::new().sh("true").hook("createRuntime", "kill -KILL $PPID; sleep 60");
    let file = container.path().join("trace");
    let outcome = container.run_cmd().global(["--trace", file.to_str().expect("a plain path")]).run();
    assert!(!outcome.succeeded());
    holds_in_order(&steps(&file, "host"), &["record written"]);
    holds_in_order(&steps(&file, "container"), &["born", "mounts and devices created"]);
    container.delete_force().ok();
}

#[test]
fn a_trace_that_cannot_be_opened_is_an_error() {
    if peers_lack_it() {
        return;
    }
    let container = Bundle::new().sh("true");
    container.run_cmd().global(["--trace", "/nowhere/trace"]).run().fails_with("open the trace /nowhere/trace");
}
