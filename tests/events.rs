//! `events`: statistics in the types that callers parse, out of memory, and the end of the stream.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{Bundle, eventually, gives_away, known_difference, skip, systemd_makes_them};

/// A running container, unless the runtime under test tells no events.
fn running() -> Option<Bundle> {
    if known_difference("crun", "has no events") {
        return None;
    }
    let container = Bundle::new().args(["sleep", "60"]);
    container.run_detached().ok();
    Some(container)
}

/// A document with each value replaced by the name of its kind.
fn kinds(value: &Value) -> Value {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::Number(number) if number.is_u64() || number.is_i64() => "integer".into(),
        Value::Number(_) => "number".into(),
        Value::String(_) => "string".into(),
        Value::Array(list) => list.iter().map(kinds).collect(),
        Value::Object(object) => object.iter().map(|(key, value)| (key.clone(), kinds(value))).collect(),
    }
}

#[test]
fn statistics_have_the_keys_and_types_that_callers_parse() {
    let Some(container) = running() else { return };
    let event = container.cmd(["events", "--stats", container.name()]).run().json();
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(container.name())));
    let data = &event["data"];
    let mut keys: Vec<&str> = data.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    let all = ["blkio", "cpu", "cpuset", "hugetlb", "intel_rdt", "memory", "network_interfaces", "pids"];
    assert_eq!(keys, all);
    let seen = kinds(data);
    for (pointer, kind) in [
        ("/cpu/usage/total", "integer"),
        ("/cpu/usage/kernel", "integer"),
        ("/cpu/usage/user", "integer"),
        ("/cpuset/cpu_exclusive", "integer"),
        ("/cpuset/mem_hardwall", "integer"),
        ("/cpuset/mem_exclusive", "integer"),
        ("/cpuset/memory_migrate", "integer"),
        ("/cpuset/memory_spread_page", "integer"),
        ("/cpuset/memory_spread_slab", "integer"),
        ("/cpuset/memory_pressure", "integer"),
        ("/cpuset/sched_load_balance", "integer"),
        ("/cpuset/sched_relax_domain_level", "integer"),
        ("/memory/usage/limit", "integer"),
        ("/memory/usage/failcnt", "integer"),
        ("/memory/swap/limit", "integer"),
        ("/memory/kernel/limit", "integer"),
        ("/memory/kernelTCP/failcnt", "integer"),
        ("/network_interfaces", "null"),
    ] {
        assert_eq!(seen.pointer(pointer), Some(&kind.into()), "{pointer} in {event}");
    }
    for pointer in ["/cpu/throttling", "/hugetlb", "/intel_rdt", "/blkio", "/pids"] {
        assert!(data.pointer(pointer).is_some_and(Value::is_object), "{pointer} in {event}");
    }
    for pointer in ["/cpu/psi", "/memory/psi", "/blkio/psi"] {
        // Where the kernel has it.
        let Some(psi) = data.pointer(pointer) else { continue };
        assert!(psi["some"]["total"].is_u64() && psi["full"]["avg300"].is_number(), "{pointer} in {event}");
    }
    for (size, pages) in data["hugetlb"].as_object().expect("an object") {
        assert!(pages["failcnt"].is_u64(), "{size} in {event}");
    }
    let there = |controller: &str| container.cgroup().join(controller).exists();
    assert_eq!(data["memory"]["raw"]["anon"].is_u64(), there("memory.stat"), "{event}");
    assert_eq!(data["pids"]["current"], json!(1), "{event}");
}

#[test]
fn statistics_follow_what_the_container_does() {
    let Some(container) = running() else { return };
    let total = || {
        let event = container.cmd(["events", "--stats", container.name()]).run().json();
        event["data"]["cpu"]["usage"]["total"].as_u64().expect("a number")
    };
    let before = total();
    container.exec(&["sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"]).ok();
    let after = total();
    assert!(after > before + 1_000_000, "{before} then {after}: nanoseconds they should be");
    container.cmd(["pause", container.name()]).run().ok();
    assert!(total() >= after);
}

#[test]
fn the_stream_ends_with_the_container() {
    let Some(container) = running() else { return };
    let blind = !container.cgroup().join("memory.events").exists();
    if blind && known_difference("runc", "has no stream without the memory controller") {
        return;
    }
    let stream = container.cmd(["events", "--interval", "100ms", container.name()]).spawn();
    eventually("statistics come again and again", || stream.stdout().lines().count() >= 3);
    assert!(stream.is_running());
    container.kill("KILL").ok();
    container.wait();
    let outcome = stream.wait();
    outcome.ok();
    for line in outcome.lines() {
        let event: Value = serde_json::from_str(&line).expect("a line of JSON");
        assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(container.name())));
    }
    assert_eq!(outcome.stderr().lines().filter(|line| !line.contains("memory.events")).count(), 0);
}

#[test]
fn statistics_that_were_missed_are_not_made_up_for() {
    if known_difference("runc", "has no stream without the memory controller") {
        return;
    }
    let Some(container) = running() else { return };
    let interval = Duration::from_millis(100);
    let stream = container.cmd(["events", "--interval", "100ms", container.name()]).spawn();
    eventually("the stream has begun", || stream.stdout().lines().count() >= 1);
    stream.signal(Signal::SIGSTOP);
    std::thread::sleep(20 * interval);
    let (before, since) = (stream.stdout().lines().count(), Instant::now());
    stream.signal(Signal::SIGCONT);
    eventually("the stream goes on", || stream.stdout().lines().count() > before + 1);
    let due = since.elapsed().as_millis() / interval.as_millis();
    let came = (stream.stdout().lines().count() - before) as u128;
    assert!(came <= due + 2, "{came} lines instead of {due}");
    container.kill("KILL").ok();
    stream.wait().ok();
}

#[test]
fn a_container_that_does_not_run_has_no_events() {
    let Some(container) = running() else { return };
    container.kill("KILL").ok();
    container.wait();
    for options in [&["events", "--stats"][..], &["events"]] {
        let mut words = options.to_vec();
        words.push(container.name());
        container.cmd(words).run().fails_with("is not running");
    }
    container.cmd(["events", "--stats", "nosuch"]).run().fails_with("does not exist");
    let other = running().expect("the same runtime");
    other.cmd(["events", "--interval", "0s", other.name()]).run().fails_with("greater than 0");
}

#[test]
fn lack_of_memory_is_told_when_it_happens() {
    let Some(idle) = running() else { return };
    if !gives_away("memory") {
        return skip("cgroup2 has no memory controller here");
    }
    let container = Bundle::inside(idle.sandbox().clone())
        .set("/linux/resources/memory", json!({"limit": 16_777_216, "swap": 16_777_216}))
        .sh("echo ready; until [ -e /go ]; do usleep 10000; done; (busybox tail /dev/zero); echo killed; sleep 60");
    container.run_detached().ok();
    container.until_output("ready");
    let stream = container.cmd(["events", "--interval", "10s", container.name()]).spawn();
    std::thread::sleep(Duration::from_millis(500));
    fs::write(container.rootfs().join("go"), "").expect("let it begin");
    container.until_output("killed");
    eventually("it is told", || stream.stdout().contains(r#"{"type":"oom","id":"#));
    if !known_difference("runc", "tells it again with each change of the file") {
        let told = stream.stdout().lines().filter(|line| line.contains("oom\"")).count();
        assert_eq!(told, 1, "once");
    }
    container.delete_force().ok();
    stream.wait().ok();
}

#[test]
fn the_state_of_an_ended_container_tells_that_memory_was_short() {
    let container = Bundle::new().args(["true"]);
    container.run_detached().ok();
    container.wait();
    let state = container.until("stopped").state().json();
    assert_eq!((&state["outOfMemory"], &state["exitCode"]), (&Value::Null, &Value::Null));
    if !gives_away("memory") {
        return skip("cgroup2 has no memory controller here");
    }
    if known_difference("crun", "does not tell") || known_difference("runc", "does not tell") {
        return;
    }
    // A unit is gone with its last process, and what it knew.
    if systemd_makes_them() {
        return;
    }
    let container = Bundle::inside(container.sandbox().clone())
        .set("/linux/resources/memory", json!({"limit": 16_777_216, "swap": 16_777_216}))
        .args(["busybox", "tail", "/dev/zero"]);
    container.run_detached().ok();
    container.wait();
    container.until("stopped").state().shows("\"outOfMemory\": true");
}
