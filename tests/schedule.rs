//! How a process is scheduled and where its memory lies: the same for the first one and for those that enter.

use serde_json::{Value, json};

use crate::harness::{Bundle, known_difference, skip};

/// Runs this as the first program and as one that enters; both have to print what is expected.
#[track_caller]
fn both_print(bundle: Bundle, program: &[&str], expected: &str, exec_differs: bool) {
    let container = bundle.args(["sh", "-c", &format!("{}; exec sleep 60", program.join(" "))]);
    container.run_detached().ok();
    container.until_output(expected);
    if !exec_differs {
        container.exec(program).ok().shows(expected);
    }
}

#[test]
fn the_scheduling_policy_is_that_of_the_configuration() {
    // sched(7): SCHED_IDLE has no use for a nice value, and leaves the caller's.
    let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("our record");
    let own = stat.rsplit(')').next().and_then(|fields| fields.split_whitespace().nth(16)).expect("our nice value");
    for (scheduler, expected) in [
        (json!({"policy": "SCHED_BATCH", "nice": 5}), "5 3"),
        (json!({"policy": "SCHED_OTHER", "nice": 19}), "19 0"),
        (json!({"policy": "SCHED_IDLE"}), &format!("{own} 5")),
    ] {
        let bundle = Bundle::new().set("/process/scheduler", scheduler);
        let program = ["cut", "-d\\ ", "-f19,41", "/proc/self/stat"];
        let container = bundle.args(["sh", "-c", &format!("{}; exec sleep 60", program.join(" "))]);
        container.run_detached().ok();
        container.until_output(expected);
        if !known_difference("crun", "an exec has none") {
            container.exec(&["sh", "-c", &program.join(" ")]).prints(expected);
        }
    }
    Bundle::new().set("/process/scheduler", json!({"policy": "SCHED_NOSUCH"})).args(["true"]).run().fails();
}

#[test]
fn a_nice_value_is_without_effect_where_the_policy_has_none() {
    for (policy, number, more) in [
        ("SCHED_IDLE", "5", json!({})),
        ("SCHED_FIFO", "1", json!({"priority": 3})),
        (
            "SCHED_DEADLINE",
            "6",
            json!({"flags": ["SCHED_FLAG_RESET_ON_FORK"], "runtime": 42000, "deadline": 1_000_000}),
        ),
    ] {
        let mut scheduler = more;
        scheduler["policy"] = policy.into();
        let without = Bundle::new().set("/process/scheduler", scheduler.clone());
        let program = ["cut", "-d ", "-f41", "/proc/self/stat"];
        let outcome = without.args(program).run();
        if policy != "SCHED_IDLE" && !outcome.succeeded() {
            skip(&format!("this machine grants no {policy}"));
            continue;
        }
        outcome.prints(number);
        scheduler["nice"] = 19.into();
        let outcome = Bundle::new().set("/process/scheduler", scheduler).args(program).run();
        outcome.prints(number);
        if !known_difference("runc", "says nothing") && !known_difference("crun", "says nothing") {
            let log = outcome.log();
            let warning = format!("/process/scheduler/nice: {policy} has no nice value, so 19 is without effect");
            assert!(log.contains(&warning), "{log}");
        }
    }
}

#[test]
fn the_io_priority_is_that_of_the_configuration() {
    let exec = known_difference("crun", "an exec has none");
    let with = |io: Value| Bundle::new().set("/process/ioPriority", io);
    let best = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
    both_print(with(best), &["busybox", "ionice"], "best-effort: prio 6", exec);
    both_print(with(json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0})), &["busybox", "ionice"], "idle", exec);
    with(json!({"class": "IOPRIO_CLASS_NOSUCH", "priority": 0})).args(["true"]).run().fails();
    for none in [json!({}), json!({"priority": 3}), json!({"class": null, "priority": 3})] {
        let outcome = with(none).args(["true"]).run();
        outcome.fails();
        if !known_difference("crun", "words of its own") && !known_difference("runc", "words of its own") {
            outcome.fails_with("/process/ioPriority: missing field `class`");
        }
    }
}

#[test]
fn the_personality_is_that_of_the_configuration() {
    if !cfg!(target_arch = "x86_64") {
        return skip("its name for a 32-bit machine is not known here");
    }
    let bundle = Bundle::new().set("/linux/personality", json!({"domain": "LINUX32"}));
    both_print(bundle, &["uname", "-m"], "i686", false);
    let bundle = Bundle::new().set("/linux/personality", json!({"domain": "LINUX"}));
    both_print(bundle, &["uname", "-m"], "x86_64", false);
}

#[test]
fn the_memory_policy_is_that_of_the_configuration() {
    if !std::fs::exists("/proc/self/numa_maps").unwrap_or_default() {
        return skip("the kernel has no memory policies");
    }
    if known_difference("runc", "has them from 1.4 on") {
        return;
    }
    let exec = known_difference("crun", "an exec has none");
    let bundle = Bundle::new().set("/linux/memoryPolicy", json!({"mode": "MPOL_INTERLEAVE", "nodes": "0"}));
    both_print(bundle, &["head", "-1", "/proc/self/numa_maps"], "interleave:0", exec);
    let wrong = Bundle::new().set("/linux/memoryPolicy", json!({"mode": "MPOL_NOSUCH", "nodes": "0"}));
    wrong.args(["true"]).run().fails();
}
