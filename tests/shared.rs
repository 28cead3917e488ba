//! What a container shares with others or its caller: pid and user namespaces, groups, the out-of-memory score, signals.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::{Bundle, HOST_ID, eventually, known_difference, skip};

fn processes(container: &Bundle) -> usize {
    fs::read_to_string(container.cgroup().join("cgroup.procs")).unwrap_or_default().lines().count()
}

// B51: init is gone, others are left.

#[test]
fn b51_what_outlives_init_in_a_shared_pid_namespace_is_killed() {
    let host = || Bundle::new().without_ns("pid");
    let owner = Bundle::new().args(["sleep", "60"]);
    owner.run_detached().ok();
    let joined = || {
        let other = Bundle::inside(owner.sandbox().clone());
        other.join("pid", format!("/proc/{}/ns/pid", owner.pid()))
    };
    let left = |bundle: Bundle| {
        let container = bundle.sh("sleep 1000 & echo ready; exec sleep 0.3");
        container.run_detached().ok();
        container.until_output("ready");
        container.wait();
        assert_eq!(container.status(), "stopped");
        assert_eq!(processes(&container), 1);
        container
    };
    for bundle in [host(), joined()] {
        let container = left(bundle);
        if !known_difference("crun", "says that it is not running") {
            container.kill("KILL").ok();
            eventually("its processes are gone", || processes(&container) == 0);
        }
        if !known_difference("crun", "leaves them running") {
            container.delete().ok();
            assert!(!container.cgroup().exists());
        }
    }
    for bundle in [host(), joined()] {
        let container = left(bundle);
        container.delete_force().ok();
        eventually("its cgroup is gone", || !container.cgroup().exists());
    }
    assert_eq!(owner.status(), "running");
}

// B70: signals for the runtime in the foreground.

#[test]
fn b70_signals_of_the_runtime_itself_stay_with_it() {
    let forwarded = ["SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCONT", "SIGALRM"];
    let own = ["SIGURG", "SIGCHLD", "SIGPIPE", "SIGWINCH"];
    let words = ["probe", "signals", "SIGTERM"].into_iter().chain(forwarded).chain(own);
    let container = Bundle::new().args(words);
    let running = container.spawn();
    eventually("the program is ready", || running.stdout().contains("ready"));
    for word in own {
        running.signal(word.parse::<Signal>().expect("a signal"));
    }
    std::thread::sleep(Duration::from_millis(100));
    assert!(running.is_running());
    for word in forwarded {
        running.signal(word.parse::<Signal>().expect("a signal"));
        eventually(word, || running.stdout().contains(word));
    }
    running.signal(Signal::SIGTERM);
    let outcome = running.wait();
    outcome.ok().hides("SIGCHLD").hides("SIGWINCH");
    if !known_difference("crun", "forwards PIPE and URG") && !known_difference("runc", "forwards PIPE") {
        outcome.hides("SIGURG").hides("SIGPIPE");
    }
}

#[test]
fn b70_a_program_ended_by_a_forwarded_signal_is_128_and_the_signal() {
    // Outside of a pid namespace of its own a first process has no protection from signals without a handler.
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGHUP, 129), (Signal::SIGINT, 130)] {
        let container = Bundle::new().without_ns("pid").sh("echo ready; exec sleep 60");
        let running = container.spawn();
        eventually("the program is ready", || running.stdout().contains("ready"));
        running.signal(signal);
        running.wait().code(code);
    }
    let container = Bundle::new().args(["sleep", "60"]);
    container.run_detached().ok();
    let exec = container.exec_cmd(&[], &["sh", "-c", "echo ready; exec sleep 60"]).spawn();
    eventually("the program is ready", || exec.stdout().contains("ready"));
    exec.signal(Signal::SIGTERM);
    exec.wait().code(143);
}

// B92: sources and groups.

#[test]
fn b92_a_bind_source_that_only_a_group_of_the_caller_may_read() {
    let bundle = Bundle::new().userns().args(["cat", "/m"]);
    let source = bundle.host_file("shared/f", "reached");
    let dir = source.parent().expect("a parent");
    chown(dir, None, Some(2000)).expect("chgrp");
    fs::set_permissions(dir, fs::Permissions::from_mode(0o750)).expect("chmod");
    fs::set_permissions(&source, fs::Permissions::from_mode(0o644)).expect("chmod");
    let probe = bundle.sandbox().dir().join("bin/probe");
    let bundle = bundle.bind(source, "/m", &["rbind", "ro"]);
    let with_group =
        |bundle: &Bundle| bundle.run_cmd().started_by([probe.to_str().expect("a plain path"), "groups", "2000"]).run();
    with_group(&bundle).prints("reached");
    let keeping = bundle.set("/annotations", json!({"run.oci.keep_original_groups": "1"}));
    with_group(&keeping).prints("reached");
}

#[test]
fn b92_a_process_in_a_joined_user_namespace_is_its_root() {
    let first = Bundle::new().userns().args(["sleep", "60"]);
    first.run_detached().ok();
    let pod = |bundle: Bundle| {
        let path = |kind: &str| format!("/proc/{}/ns/{kind}", first.pid());
        bundle.join("user", path("user")).join("ipc", path("ipc")).join("network", path("net"))
    };
    let second = pod(Bundle::inside(first.sandbox().clone()).userns());
    // The queues' file system is that of the joined ipc namespace, and its root is ours.
    let seen = second.sh("id -u; stat -c %u /dev/mqueue; touch /dev/mqueue/q && echo made").run();
    seen.prints("0\n0\nmade");
}

#[test]
fn b43_clock_offsets_in_a_joined_user_namespace() {
    if !fs::exists("/proc/self/ns/time").unwrap_or_default() {
        return skip("the kernel has no time namespaces");
    }
    if known_difference("crun", "may not open its own offsets in a user namespace") {
        return;
    }
    let first = Bundle::new().userns().args(["sleep", "60"]);
    first.run_detached().ok();
    let second = Bundle::inside(first.sandbox().clone()).userns();
    let second = second.join("user", format!("/proc/{}/ns/user", first.pid())).ns("time");
    let second = second.set("/linux/timeOffsets", json!({"boottime": {"secs": 1337}}));
    second.sh("awk '/boottime/{print $2}' /proc/self/timens_offsets").run().prints("1337");
}

// B93: maps beside a path.

#[test]
fn b93_maps_beside_the_path_of_a_user_namespace_have_to_be_its_own() {
    let first = Bundle::new().userns().args(["sleep", "60"]);
    first.run_detached().ok();
    let joined = || {
        let bundle = Bundle::inside(first.sandbox().clone()).userns();
        bundle.join("user", format!("/proc/{}/ns/user", first.pid())).args(["cat", "/proc/self/uid_map"])
    };
    joined().run().ok().shows(&HOST_ID.to_string());
    let none = joined().unset("/linux/uidMappings").unset("/linux/gidMappings");
    none.run().ok().shows(&HOST_ID.to_string());
    if known_difference("crun", "does not look at them") {
        return;
    }
    if !known_difference("runc", "knows no dummy of Podman's") {
        let dummy = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
        joined().set("/linux/uidMappings", dummy.clone()).set("/linux/gidMappings", dummy).run().ok();
    }
    let other = json!([{"containerID": 0, "hostID": HOST_ID + 1, "size": 65536}]);
    joined().set("/linux/uidMappings", other.clone()).run().fails_with_one_of(&["mapping", "match"]);
    joined().set("/linux/gidMappings", other).run().fails_with_one_of(&["mapping", "match"]);
}

// B95: the out-of-memory score.

#[test]
fn b95_the_out_of_memory_score_is_exact_or_the_callers() {
    let show = ["cat", "/proc/self/oom_score_adj"];
    let with = |score: i32| Bundle::new().set("/process/oomScoreAdj", score).args(show);
    let caller =
        |bundle: Bundle, score: i32| bundle.run_cmd().after(&format!("echo {score} >/proc/self/oom_score_adj")).run();
    for score in [0, 1, 500, 1000] {
        with(score).run().prints(&score.to_string());
    }
    caller(Bundle::new().args(show), 300).prints("300");
    with(1001).run().fails();
    with(-1001).run().fails();
    // An exec gets what is on record, and none takes its caller's.
    let container = with(400).args(["sleep", "60"]);
    container.run_detached().ok();
    if !known_difference("crun", "an exec has none") {
        container.exec(&show).prints("400");
    }
    let own = fs::read_to_string("/proc/self/oom_score_adj").expect("our score");
    if own.trim() != "0" {
        return skip("the tests have a score of their own");
    }
    // A score below that of the caller needs CAP_SYS_RESOURCE: it is given, or refused with a word about it.
    let lowered = with(-998).run();
    if lowered.succeeded() {
        lowered.prints("-998");
    } else {
        lowered.fails_with_one_of(&["oom"]);
    }
}

// B48: ambient capabilities.

#[test]
fn b48_an_ambient_capability_that_is_not_inheritable_is_warned_about() {
    if known_difference("runc", "keeps quiet") {
        return;
    }
    let bundle = Bundle::new().set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let bundle = bundle.caps(&["CAP_NET_BIND_SERVICE"]);
    let bundle = bundle.set("/process/capabilities/ambient", json!(["CAP_NET_BIND_SERVICE"]));
    let outcome = bundle.sh("awk '/CapAmb/{print $2}' /proc/self/status").run();
    outcome.prints("0000000000000000");
    let said = ["can't raise ambient capability CAP_NET_BIND_SERVICE: "];
    if !outcome.says_one_of(&said) && !known_difference("crun", "keeps quiet") {
        outcome.fail("it should warn");
    }
}
