//! The same on a real systemd, where there is one (the lab): every limit in the file and in systemd's own words.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::harness::{Bundle, Cmd, Kind, Sandbox, by_systemd, kind, known_difference, skip};

/// Whether systemd runs this machine and all controllers are its.
fn is_here() -> bool {
    drop(Sandbox::of_this_test());
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let has = |name: &&str| controllers.split_whitespace().any(|word| word == *name);
    let here = by_systemd() && ["cpu", "memory", "pids", "io"].iter().all(has);
    if !here {
        skip("no systemd with all controllers here");
    }
    here
}

fn shown(unit: &str) -> String {
    systemctl(&["show", unit])
}

/// By the harness, which reaps every child of the tests.
fn systemctl(args: &[&str]) -> String {
    Cmd::bare(&Sandbox::of_this_test(), args).program("/usr/bin/systemctl").run().stdout()
}

#[test]
fn every_limit_is_in_its_file_and_known_to_systemd() {
    if !is_here() {
        return;
    }
    let id = format!("real{}", std::process::id());
    let resources = json!({
        "memory": {"limit": 67_108_864, "reservation": 33_554_432, "swap": 100_663_296},
        "cpu": {"shares": 512, "quota": 50_100, "period": 100_000, "cpus": "0-1", "mems": "0"},
        "pids": {"limit": 123},
        "blockIO": {"weight": 500},
        "unified": {"memory.high": "60000000", "memory.min": "1048576", "memory.oom.group": "1"}
    });
    let container = Bundle::new()
        .set("/linux/cgroupsPath", format!("corten-lab.slice:test:{id}"))
        .set("/linux/resources", resources)
        .set("/annotations/org.systemd.property.TimeoutStopUSec", "uint64 7000000")
        .args(["sleep", "60"]);
    container.create().ok();
    let unit = format!("test-{id}.scope");
    let directory = format!("/sys/fs/cgroup/corten.slice/corten-lab.slice/{unit}");
    let place = fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).expect("the cgroup of the process");
    assert!(place.contains(&format!("/corten.slice/corten-lab.slice/{unit}")), "{place}");
    for (file, value) in [
        ("memory.max", "67108864"),
        ("memory.low", "33554432"),
        ("memory.high", "59998208"),
        ("memory.min", "1048576"),
        ("memory.oom.group", "1"),
        ("cpu.weight", "59"),
        ("cpu.max", "50100 100000"),
        ("cpuset.cpus", "0-1"),
        ("cpuset.mems", "0"),
        ("pids.max", "123"),
    ] {
        let text = fs::read_to_string(format!("{directory}/{file}")).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert_eq!(text.trim(), value, "{file}");
    }
    let text = shown(&unit);
    for line in [
        "MemoryMax=67108864",
        "MemoryLow=33554432",
        "MemoryHigh=60000000",
        "MemoryMin=1048576",
        "MemorySwapMax=33554432",
        "CPUWeight=59",
        "CPUQuotaPerSecUSec=510ms",
        "CPUQuotaPeriodUSec=100ms",
        "AllowedCPUs=0-1",
        "AllowedMemoryNodes=0",
        "TasksMax=123",
        "IOWeight=4950",
        "Delegate=yes",
        "DevicePolicy=strict",
        "Slice=corten-lab.slice",
        "TimeoutStopUSec=7s",
        "CollectMode=inactive-or-failed",
        "OOMPolicy=kill",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
    }
    if kind() == Kind::Corten {
        let update = ["update", "--pids-limit", "77", "--memory", "50331648", "--cpu-share", "1024", container.name()];
        Cmd::new(container.sandbox(), update).run().ok();
        let text = shown(&unit);
        for line in ["TasksMax=77", "MemoryMax=50331648", "CPUWeight=100"] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
        }
        assert_eq!(fs::read_to_string(format!("{directory}/pids.max")).expect("pids.max").trim(), "77");
    }
    container.delete_force().ok();
    assert!(!Path::new(&directory).exists());
    assert!(shown(&unit).contains("LoadState=not-found"), "the unit is left");
}

#[test]
fn device_rules_of_an_update_hold_beside_systemds_own_and_after_a_reload() {
    if !is_here() {
        return;
    }
    if known_difference("runc", "never changes device rules") || known_difference("crun", "adds no defaults") {
        return;
    }
    let container = Bundle::new().caps(&["CAP_MKNOD", "CAP_SYSLOG", "CAP_SYS_ADMIN"]).args(["sleep", "600"]);
    container.run_detached().ok();
    let node = "[ -e /kmsg ] || probe mknod /kmsg c 1 11 >/dev/null; probe open /kmsg /dev/null";
    let kmsg = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rwm"});
    let update = ["update", "--resources", "-", container.name()];
    for (rules, word) in [
        (json!([]), "EPERM"),
        (json!([{"allow": false, "access": "rwm"}, kmsg]), "ok"),
        (json!([{"allow": false, "type": "c", "access": "rwm"}]), "EPERM"),
    ] {
        container.cmd(update).stdin(&json!({"devices": rules, "pids": {"limit": 50}}).to_string()).run().ok();
        for _ in 0..2 {
            let seen = container.exec(&["sh", "-c", node]).ok().stdout();
            assert!(seen.contains(&format!("/kmsg {word}")) && seen.contains("/dev/null ok"), "{rules}: {seen}");
            // It sets all that it knows of a unit anew.
            systemctl(&["daemon-reload"]);
        }
        assert_eq!(fs::read_to_string(container.cgroup().join("pids.max")).expect("pids.max").trim(), "50");
    }
}
