//! What an exec finds: a container that has moved its processes, is frozen, counts another time; and which limits,
//! groups, processors and capabilities it gets.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Bundle, Outcome, eventually, gives_away, known_difference, skip};

/// A running container.
fn running(bundle: Bundle) -> Bundle {
    let container = bundle.args(["sleep", "60"]);
    container.run_detached().ok();
    container
}

/// A process for `exec --process`, changed.
fn process(args: &[&str], changes: Value) -> Value {
    let mut process = json!({"args": args, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}});
    for (key, value) in changes.as_object().expect("an object") {
        process[key] = value.clone();
    }
    process
}

/// What `/proc/self/status` says under this name.
fn status(outcome: &Outcome, name: &str) -> String {
    let lines = outcome.ok().lines();
    let line = lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| outcome.fail(&format!("it should tell {name}")))
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

// B32: the container has given its controllers away.

#[test]
fn b32_exec_goes_where_init_is_when_the_containers_cgroup_takes_no_processes() {
    let root = Path::new("/sys/fs/cgroup");
    drop(Bundle::new());
    let Some(controller) = ["pids", "hugetlb"].into_iter().find(|name| gives_away(name)) else {
        return skip("cgroup2 has no controller to delegate here");
    };
    for own_view in [true, false] {
        let bundle = Bundle::new().mount_options("/sys/fs/cgroup", |options| options.retain(|option| option != "ro"));
        let bundle = if own_view { bundle } else { bundle.without_ns("cgroup") };
        for dir in [root, bundle.sandbox().cgroup()] {
            fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}")).expect("give the controller away");
        }
        let name = bundle.config()["linux"]["cgroupsPath"].as_str().expect("a path").to_owned();
        let inside = if own_view { String::new() } else { name };
        // At once, before the runtime can know of it; and without a name space the whole tree is in sight.
        let script = format!(
            "cd /sys/fs/cgroup{inside}; mkdir i; echo 1 >i/cgroup.procs; echo +{controller} >cgroup.subtree_control \
             && echo given; exec sleep 60"
        );
        let container = bundle.sh(&script);
        container.run_detached().ok();
        container.until_output("given");
        container.exec(&["grep", "^0:", "/proc/self/cgroup"]).prints(&format!("0::{inside}/i"));
    }
}

/// A process that has gone to a smaller cgroup has gone alone.
#[test]
fn exec_is_in_the_containers_own_cgroup_as_long_as_that_takes_processes() {
    let bundle = Bundle::new().mount_options("/sys/fs/cgroup", |options| options.retain(|option| option != "ro"));
    let container = bundle.sh("cd /sys/fs/cgroup; mkdir i; echo 1 >i/cgroup.procs; echo gone; exec sleep 60");
    container.run_detached().ok();
    container.until_output("gone");
    container.exec(&["grep", "^0:", "/proc/self/cgroup"]).prints("0::/");
}

// B38: the directory.

#[test]
fn b38_exec_into_a_directory_that_is_not_there_says_so() {
    let container = running(Bundle::new());
    container.exec_cmd(&["--cwd", "/tmp"], &["pwd"]).run().prints("/tmp");
    container.exec_cmd(&["--cwd", "/made/up"], &["pwd"]).run().fails_with("/made/up");
}

// B39: the limit of open files.

#[test]
fn b39_the_limit_of_open_files_is_right_each_time() {
    if known_difference("crun", "takes the limits of a process file alone") {
        return;
    }
    let limits = json!([{"type": "RLIMIT_NOFILE", "soft": 333, "hard": 444}]);
    let container = running(Bundle::new().set("/process/rlimits", limits));
    for _ in 0..50 {
        container.exec(&["sh", "-c", "ulimit -Sn; ulimit -Hn"]).prints("333\n444");
    }
    let container = running(Bundle::new().unset("/process/rlimits"));
    let exec = || container.exec_cmd(&[], &["sh", "-c", "ulimit -Sn; ulimit -Hn"]);
    for _ in 0..20 {
        exec().after("ulimit -Sn 700; ulimit -Hn 800").run().prints("700\n800");
    }
}

// B40: groups.

#[test]
fn b40_more_groups_for_exec_and_none_of_the_callers() {
    let groups = |outcome: Outcome| status(&outcome, "Groups");
    let bundle = || Bundle::new().set("/process/user", json!({"uid": 0, "gid": 0, "additionalGids": [10, 20]}));
    let container = running(bundle());
    let show = ["cat", "/proc/self/status"];
    assert_eq!(groups(container.exec(&show)), "10 20");
    if !known_difference("crun", "takes no groups by option") {
        let seen = groups(container.exec_cmd(&["-g", "30"], &show).run());
        // runc 1.5 tells its last one twice.
        assert!(matches!(seen.as_str(), "10 20 30" | "10 20 30 30"), "{seen}");
    }
    let probe = container.sandbox().dir().join("bin/probe");
    let words = [probe.to_str().expect("a plain path"), "groups", "4242,4243"];
    let callers = |command: crate::harness::Cmd| command.started_by(words).run();
    assert_eq!(groups(callers(container.exec_cmd(&[], &show))), "10 20");
    let container = running(Bundle::new());
    assert_eq!(groups(callers(container.exec_cmd(&[], &show))), "");
    let bundle = Bundle::new().args(show);
    assert_eq!(groups(callers(bundle.run_cmd())), "");
    let kept = Bundle::new().set("/annotations", json!({"run.oci.keep_original_groups": "1"})).args(show);
    if !known_difference("runc", "knows no such annotation") {
        assert_eq!(groups(callers(kept.run_cmd())), "4242 4243");
    }
}

// B42: a frozen container.

#[test]
fn b42_exec_into_a_paused_container_fails_at_once_or_waits_if_told_to() {
    let container = running(Bundle::new());
    container.cmd(["pause", container.name()]).run().ok();
    let refused = container.exec(&["true"]);
    refused.fails_with("paused");
    assert!(refused.took() < Duration::from_secs(3), "{:?}", refused.took());
    if !known_difference("crun", "knows no --ignore-paused") {
        let waits = container.exec_cmd(&["--ignore-paused"], &["echo", "thawed"]).spawn();
        std::thread::sleep(Duration::from_millis(200));
        assert!(waits.is_running() && waits.stdout().is_empty());
        container.cmd(["resume", container.name()]).run().ok();
        waits.wait().prints("thawed");
        container.exec(&["true"]).ok();
    }
}

#[test]
fn b42_exec_into_a_container_below_a_frozen_cgroup_does_not_hang() {
    let bundle = Bundle::new();
    let path = format!("{}/above/c", bundle.sandbox().cgroup_name());
    let container = running(bundle.set("/linux/cgroupsPath", path));
    let above = container.cgroup().parent().expect("a parent").to_owned();
    assert!(above.ends_with("above"), "{}", above.display());
    fs::write(above.join("cgroup.freeze"), "1").expect("freeze");
    eventually("it is frozen", || {
        fs::read_to_string(container.cgroup().join("cgroup.events")).is_ok_and(|events| events.contains("frozen 1"))
    });
    if !known_difference("runc", "looks at the container's own cgroup alone")
        && !known_difference("crun", "looks at the container's own cgroup alone")
    {
        let refused = container.exec_cmd(&[], &["true"]).run();
        refused.fails_with("paused");
        assert!(refused.took() < Duration::from_secs(3), "{:?}", refused.took());
    }
    fs::write(above.join("cgroup.freeze"), "0").expect("thaw");
    container.exec(&["true"]).ok();
    container.delete_force().ok();
}

// B43: another time.

#[test]
fn b43_exec_counts_the_time_of_the_container() {
    if !fs::exists("/proc/self/ns/time").unwrap_or_default() {
        return skip("the kernel has no time namespaces");
    }
    let offsets = json!({"boottime": {"secs": 1337}});
    for userns in [false, true] {
        if userns && known_difference("crun", "may not open its own offsets in a user namespace") {
            continue;
        }
        let bundle = if userns { Bundle::new().userns() } else { Bundle::new() };
        let container = running(bundle.ns("time").set("/linux/timeOffsets", offsets.clone()));
        let show = ["sh", "-c", "readlink /proc/self/ns/time; awk '/boottime/{print $2}' /proc/self/timens_offsets"];
        let init = fs::read_link(format!("/proc/{}/ns/time", container.pid())).expect("its time namespace");
        container.exec(&show).prints(&format!("{}\n1337", init.display()));
        if userns {
            continue;
        }
        // Joined by path, by a second container.
        if known_difference("crun", "cannot join one") {
            continue;
        }
        let path = format!("/proc/{}/ns/time", container.pid());
        let other = || Bundle::inside(container.sandbox().clone()).join("time", &path);
        other().args(show).run().prints(&format!("{}\n1337", init.display()));
        other().set("/linux/timeOffsets", offsets.clone()).args(["true"]).run().fails();
    }
}

// B84: processors.

#[test]
fn b84_the_processors_of_the_caller_are_not_the_containers() {
    let all = fs::read_to_string("/proc/self/status").expect("our own status");
    let all = all.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("our processors").trim();
    if all == "0" {
        return skip("there is one processor");
    }
    let show = ["cat", "/proc/self/status"];
    let on_one = |command: crate::harness::Cmd| command.started_by(["taskset", "-c", "0"]).run();
    let container = Bundle::new().args(show);
    assert_eq!(status(&on_one(container.run_cmd()), "Cpus_allowed_list"), all);
    let container = running(Bundle::new());
    assert_eq!(status(&on_one(container.exec_cmd(&[], &show)), "Cpus_allowed_list"), all);
}

#[test]
fn b84_the_processors_of_an_exec_are_those_asked_for() {
    let show = ["cat", "/proc/self/status"];
    let container = running(Bundle::new());
    let with = |affinity: Value| container.exec_process(&process(&show, json!({"execCPUAffinity": affinity})));
    if fs::read_to_string("/proc/self/status").is_ok_and(|own| own.contains("Cpus_allowed_list:\t0\n")) {
        return skip("there is one processor");
    }
    if known_difference("crun", "has them from 1.21 on, and checks less") {
        return;
    }
    assert_eq!(status(&with(json!({"final": "1"})), "Cpus_allowed_list"), "1");
    assert_eq!(status(&with(json!({"initial": "0", "final": "1"})), "Cpus_allowed_list"), "1");
    assert_eq!(status(&with(json!({"initial": "0", "final": "0-1"})), "Cpus_allowed_list"), "0-1");
    for wrong in ["x", "1-", "0-1-2", "-1"] {
        with(json!({"final": wrong})).fails();
        with(json!({"initial": wrong})).fails();
    }
    // Of the configuration, too.
    let container = running(Bundle::new().set("/process/execCPUAffinity", json!({"final": "1"})));
    assert_eq!(status(&container.exec(&show), "Cpus_allowed_list"), "1");
}
