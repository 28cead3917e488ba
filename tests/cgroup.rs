//! cgroup v2: where a container goes, what is written, what is missing.

use std::fs;

use serde_json::json;

use crate::harness::{Bundle, Sandbox, gives_away, known_difference, skip};

/// True if this cgroup2 has the controller to give away.
fn has(controller: &str) -> bool {
    drop(Sandbox::of_this_test());
    gives_away(controller)
}

#[test]
fn b79_values_that_mean_unset_need_no_controller() {
    for (field, value) in [
        ("cpu", json!({"shares": 0})),
        ("cpu", json!({"quota": 0})),
        ("cpu", json!({"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": ""})),
        ("memory", json!({"limit": 0})),
        ("memory", json!({})),
        ("blockIO", json!({"weight": 0})),
        ("pids", json!({"limit": 0})),
    ] {
        if field == "pids" && !has("pids") {
            continue;
        }
        if field == "blockIO" && known_difference("crun", "writes a weight of 0") {
            continue;
        }
        if value.get("limit").is_some() && known_difference("crun", "writes a memory limit of 0") {
            continue;
        }
        if value.get("cpus").is_some() && known_difference("crun", "wants a controller for an empty list") {
            continue;
        }
        let container = Bundle::new().set(&format!("/linux/resources/{field}"), value).args(["true"]);
        container.run().ok();
    }
}

#[test]
fn b79_cpu_shares_become_weights() {
    if !has("cpu") {
        return skip("cgroup2 has no cpu controller here");
    }
    for (shares, weight) in [(2, "1"), (512, "59"), (1024, "100"), (262_144, "10000")] {
        let container = Bundle::new().set("/linux/resources/cpu", json!({"shares": shares})).args(["sleep", "60"]);
        container.create().ok();
        let written = fs::read_to_string(container.cgroup().join("cpu.weight")).expect("cpu.weight");
        assert_eq!(written.trim(), weight, "shares {shares}");
        container.delete_force().ok();
    }
    for (cpu, max) in [
        (json!({"quota": -1}), "max 100000"),
        (json!({"quota": 50_000}), "50000 100000"),
        (json!({"quota": 20_000, "period": 50_000}), "20000 50000"),
        (json!({"period": 50_000}), "max 50000"),
    ] {
        let container = Bundle::new().set("/linux/resources/cpu", cpu).args(["sleep", "60"]);
        container.create().ok();
        let written = fs::read_to_string(container.cgroup().join("cpu.max"));
        // What is so without the controller need not be written.
        if max != "max 100000" || written.is_ok() {
            assert_eq!(written.expect("cpu.max").trim(), max);
        }
        container.delete_force().ok();
    }
}

#[test]
fn a_limit_whose_controller_is_missing_is_a_named_error() {
    for (controller, field, value) in [
        ("cpu", "cpu", json!({"shares": 1024})),
        ("cpu", "cpu", json!({"quota": 50_000, "period": 100_000})),
        ("memory", "memory", json!({"limit": 67_108_864})),
        ("pids", "pids", json!({"limit": 100})),
    ] {
        if has(controller) {
            continue;
        }
        let container = Bundle::new().set(&format!("/linux/resources/{field}"), value).args(["true"]);
        if known_difference("crun", "names neither field nor controller") || known_difference("runc", "the same") {
            container.run();
            continue;
        }
        let outcome = container.run();
        outcome.fails_with(controller).fails_with("controller").fails_with(&format!("/linux/resources/{field}"));
        assert!(!container.cgroup().exists(), "the cgroup is left");
    }
}

#[test]
fn a_unified_file_that_is_not_there_or_not_in_the_cgroup_is_refused() {
    for name in ["nosuch.x", "../cgroup.procs", "a/b"] {
        let unified = json!({name: "1"});
        Bundle::new()
            .set("/linux/resources/unified", unified)
            .args(["true"])
            .run()
            .fails_with_one_of(&[name, "controller `nosuch`"]);
    }
    if known_difference("runc", "words of its own") {
        return;
    }
    for (name, said) in [
        ("nosuch.x", "the requested cgroup controller `nosuch` is not available"),
        ("nosuch", "the specified key has not the form CONTROLLER.VALUE `nosuch`"),
    ] {
        let bundle = Bundle::new().set("/linux/resources/unified", json!({name: "1"})).args(["true"]);
        bundle.run().fails_with_one_of(&[said, "controller `nosuch` is not available under"]);
    }
}

#[test]
fn b80_unified_values_are_written() {
    let container =
        Bundle::new().set("/linux/resources/unified", json!({"cgroup.max.depth": "3"})).args(["sleep", "60"]);
    container.create().ok();
    assert_eq!(fs::read_to_string(container.cgroup().join("cgroup.max.depth")).expect("the file").trim(), "3");
}

#[test]
fn b82_a_cgroup_with_processes_in_it_is_refused() {
    let first = Bundle::new().args(["sleep", "60"]);
    first.run_detached().ok();
    let path = first.config()["linux"]["cgroupsPath"].clone();
    let second = Bundle::inside(first.sandbox().clone()).set("/linux/cgroupsPath", path).args(["true"]);
    if known_difference("crun", "shares it") {
        return;
    }
    second.create().fails_with("not empty");
    assert_eq!(first.status(), "running", "the failed create disturbed the first");
    assert!(first.cgroup().exists());
}

#[test]
fn an_empty_cgroup_that_is_there_already_is_used() {
    let container = Bundle::new().args(["true"]);
    fs::create_dir(container.cgroup()).expect("make the cgroup");
    container.create().ok();
    let procs = fs::read_to_string(container.cgroup().join("cgroup.procs")).expect("cgroup.procs");
    assert_eq!(procs.trim(), container.pid().to_string());
    container.start().ok();
    container.until("stopped").delete().ok();
}

#[test]
fn a_deep_cgroup_path_is_made_and_its_leaf_removed() {
    let container = Bundle::new().args(["true"]);
    let deep = format!("{}/a/b/c", container.sandbox().cgroup_name());
    let container = container.set("/linux/cgroupsPath", deep);
    container.create().ok();
    let procs = fs::read_to_string(container.sandbox().cgroup().join("a/b/c/cgroup.procs")).expect("cgroup.procs");
    assert_eq!(procs.trim(), container.pid().to_string());
    container.delete_force().ok();
    assert!(!container.sandbox().cgroup().join("a/b/c").exists());
}

#[test]
fn without_a_path_every_container_has_a_cgroup_of_its_own() {
    // Below the cgroup of this test whatever the default is, since a cgroup namespace would hide the rest.
    let make = || Bundle::new().unset("/linux/cgroupsPath").args(["sleep", "60"]);
    let first = make();
    let second = Bundle::inside(first.sandbox().clone()).unset("/linux/cgroupsPath").args(["sleep", "60"]);
    first.create().ok();
    second.create().ok();
    let of = |bundle: &Bundle| {
        let text = fs::read_to_string(format!("/proc/{}/cgroup", bundle.pid())).expect("its cgroup");
        text.lines().find_map(|line| line.strip_prefix("0::")).expect("cgroup2").to_owned()
    };
    let places = [of(&first), of(&second)];
    assert_ne!(places[0], places[1]);
    for (container, place) in [(&first, &places[0]), (&second, &places[1])] {
        assert!(place.contains(container.name()), "{place} does not tell whose it is");
        container.delete_force().ok();
        assert!(!fs::exists(format!("/sys/fs/cgroup{place}")).expect("look"), "{place} is left");
    }
}

#[test]
fn the_cgroup_mount_is_the_containers_own() {
    let container = Bundle::new().sh("cat /sys/fs/cgroup/cgroup.procs; mkdir /sys/fs/cgroup/x 2>&1");
    let seen = container.run();
    seen.shows("1\n").shows("Read-only");
    // Without a cgroup namespace the host's tree is in sight (docker --cgroupns=host), and never to be written.
    let container = Bundle::new().without_ns("cgroup").sh("ls /sys/fs/cgroup; mkdir /sys/fs/cgroup/x 2>&1");
    container.run().shows("cgroup.controllers").shows("Read-only");
}

/// A bundle on the hybrid layout, or nothing where there is none. The peers use the version 1 half of it, which is the
/// machine's own.
fn hybrid() -> Option<Bundle> {
    let sandbox = Sandbox::hybrid()?;
    let version_1 = |peer| known_difference(peer, "uses the version 1 half of a hybrid layout");
    if version_1("crun") || version_1("runc") {
        return None;
    }
    Some(Bundle::inside(sandbox))
}

#[test]
fn on_a_hybrid_host_the_half_of_version_2_is_used() {
    let Some(container) = hybrid() else { return };
    let container = container.args(["sleep", "60"]);
    container.create().ok();
    let procs = fs::read_to_string(container.cgroup().join("cgroup.procs")).expect("cgroup.procs");
    assert_eq!(procs.trim(), container.pid().to_string());
    container.start().ok();
    container.exec(&["true"]).ok();
    assert_eq!(container.status(), "running");
    container.kill("KILL").ok();
    container.until("stopped").delete().ok();
    assert!(!container.cgroup().exists(), "the cgroup is left");
}

#[test]
fn on_a_hybrid_host_the_container_sees_version_2_and_its_devices_are_ruled() {
    let Some(container) = hybrid() else { return };
    let container = container.caps(&["CAP_MKNOD", "CAP_SYSLOG"]);
    let script = "grep ' /sys/fs/cgroup ' /proc/self/mountinfo | grep -c ' - cgroup2 '; cat /sys/fs/cgroup/cgroup.procs | head -1; \
                  probe mknod /kmsg c 1 11; probe open /kmsg /dev/null";
    container.sh(script).run().prints("1\n1\nok\n/kmsg EPERM EPERM\n/dev/null ok ok");
}

#[test]
fn on_a_hybrid_host_a_limit_of_a_version_1_controller_is_a_named_error() {
    let Some(container) = hybrid() else { return };
    let there = fs::read_to_string("/sys/fs/cgroup/unified/cgroup.controllers").unwrap_or_default();
    if there.split_whitespace().any(|word| word == "memory") {
        return skip("the memory controller is in cgroup2");
    }
    let outcome = container.set("/linux/resources/memory", json!({"limit": 67_108_864})).args(["true"]).run();
    outcome.fails_with("/linux/resources/memory").fails_with("memory.max").fails_with("controller");
}
