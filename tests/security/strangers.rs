//! Processes and cgroups that once were a container's, or have the name of one: whoever has them now is left alone.

use std::ffi::{CStr, CString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{Bundle, End, eventually, peers_lack_it, reaper, systemd_makes_them, tracer};

/// The processes of a container with this command line.
fn processes(container: &Bundle, line: &str) -> Vec<i32> {
    let procs = fs::read_to_string(container.cgroup().join("cgroup.procs")).unwrap_or_default();
    let is_it = |pid: &i32| {
        let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&text).trim_end_matches('\0').replace('\0', " ") == line
    };
    procs.lines().filter_map(|pid| pid.parse().ok()).filter(is_it).collect()
}

/// Whether there is a process with this pid that has not ended.
fn lives(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
}

/// Between the list of a cgroup's processes and the signal a process may end, and its pid be that of another. Here it is
/// one that has left the cgroup by then: for who goes by the number alone it is the same.
#[test]
#[cfg(target_arch = "x86_64")]
fn kill_all_signals_nobody_who_is_not_in_the_cgroup_any_more() {
    if peers_lack_it() {
        return;
    }
    let script = "sleep 1000 & sleep 1001 & trap 'echo heard' USR1; echo up; while :; do wait; done";
    let container = Bundle::new().sh(script);
    let elsewhere = container.sandbox().cgroup().join("elsewhere");
    fs::create_dir_all(&elsewhere).expect("make a cgroup");
    container.run_detached().ok();
    container.until_output("up");
    let both = || ["sleep 1000", "sleep 1001"].map(|line| processes(&container, line));
    eventually("both are there", || both().iter().all(|found| found.len() == 1));
    let [gone, stays] = both().map(|found| found[0]);
    let (report, held) = (container.host("report"), container.host("held"));
    let traced = |signal: &str, point: &str, action: &str| {
        let words = [tracer().as_os_str(), report.as_os_str(), "host".as_ref(), point.as_ref(), action.as_ref()];
        container.cmd(["kill", "--all", container.name(), signal]).started_by(words)
    };
    traced("0", "1", "count").run().ok();
    let calls = fs::read_to_string(&report).expect("what the tracer has seen");
    let calls = calls.lines().find_map(|line| line.strip_prefix("host ")).expect("the calls of the runtime");
    // Init alone was opened before they were listed.
    let calls: Vec<&str> = calls.split(' ').collect();
    let point = calls.windows(3).position(|calls| calls == ["pidfd_open"; 3]).expect("three processes are opened") + 1;
    let killing = traced("USR1", &point.to_string(), &format!("hold={}", held.display())).spawn();
    eventually("all are listed, and none is opened", || held.exists());
    fs::write(elsewhere.join("cgroup.procs"), gone.to_string()).expect("move it");
    fs::remove_file(&held).expect("let the runtime go on");
    killing.wait().ok();
    eventually("who is still in it has got the signal", || !lives(stays));
    container.until_output("heard");
    // A signal that it had got would have ended it by then.
    std::thread::sleep(Duration::from_millis(200));
    assert!(lives(gone), "who has left the cgroup was killed");
    container.delete_force().ok();
}

// Cgroups.

/// One that has ended, in a cgroup that is still there.
fn ended(bundle: Bundle) -> Bundle {
    let container = bundle.args(["true"]);
    container.run_detached().ok();
    container.wait();
    container.until("stopped");
    assert!(container.cgroup().exists());
    container
}

/// Another one that asks for the same cgroup.
fn heir(container: &Bundle) -> Bundle {
    let path = container.config()["linux"]["cgroupsPath"].clone();
    Bundle::inside(container.sandbox().clone()).set("/linux/cgroupsPath", path).args(["sleep", "60"])
}

/// What may be done to the first, which has ended, and must not disturb the other.
#[track_caller]
fn leaves_alone(first: &Bundle, other: &Bundle) {
    let is_well = || {
        assert!(lives(other.pid()), "the other container was killed");
        assert_eq!(processes(other, "sleep 60"), [other.pid()]);
    };
    for signal in ["KILL", "TERM"] {
        first.cmd(["kill", "--all", first.name(), signal]).run().ok();
        is_well();
    }
    first.cmd(["ps", "--format", "json", first.name()]).run().prints("null");
    assert_eq!(first.status(), "stopped");
    first.delete().ok().never_says("cannot");
    first.state().fails_with("does not exist");
    is_well();
    other.exec(&["true"]).ok();
    for verb in ["pause", "resume"] {
        other.cmd([verb, other.name()]).run().ok();
    }
    other.delete_force().ok();
    assert!(!lives(other.pid()));
    assert!(!other.cgroup().exists(), "the cgroup is left");
}

fn with_and_without_pid_namespace() -> [Bundle; 2] {
    [Bundle::new(), Bundle::new().without_ns("pid")]
}

#[test]
fn a_container_that_has_taken_the_cgroup_of_a_stopped_one_is_left_alone() {
    if peers_lack_it() || systemd_makes_them() {
        return;
    }
    for bundle in with_and_without_pid_namespace() {
        let first = ended(bundle);
        // As engines do before they delete.
        first.cmd(["kill", "--all", first.name(), "KILL"]).run().ok();
        let other = heir(&first);
        other.run_detached().ok();
        eventually("it runs", || processes(&other, "sleep 60") == [other.pid()]);
        leaves_alone(&first, &other);
    }
}

#[test]
fn a_container_that_waits_in_the_cgroup_of_a_stopped_one_is_left_alone() {
    if peers_lack_it() || systemd_makes_them() {
        return;
    }
    let first = ended(Bundle::new().without_ns("pid"));
    let other = heir(&first).sh("echo started; exec sleep 60");
    other.create().ok();
    first.delete().ok();
    assert_eq!(other.status(), "created");
    other.start().ok();
    other.until_output("started");
    other.delete_force().ok();
    assert!(!other.cgroup().exists(), "the cgroup is left");
}

#[test]
fn a_cgroup_that_was_made_anew_is_not_that_of_the_stopped_container() {
    if peers_lack_it() || systemd_makes_them() {
        return;
    }
    for bundle in with_and_without_pid_namespace() {
        let first = ended(bundle);
        fs::remove_dir(first.cgroup()).expect("remove the cgroup");
        let other = heir(&first);
        other.run_detached().ok();
        eventually("it runs", || processes(&other, "sleep 60") == [other.pid()]);
        leaves_alone(&first, &other);
    }
    // Nor is one that nobody has marked, an empty one neither.
    let first = ended(Bundle::new());
    fs::remove_dir(first.cgroup()).expect("remove the cgroup");
    fs::create_dir(first.cgroup()).expect("make it anew");
    first.delete().ok();
    assert!(first.cgroup().exists(), "it was removed");
}

/// What a killed `create` has planned is no right to what others have made since.
#[test]
fn the_intent_of_a_killed_create_takes_no_cgroup_from_another_container() {
    if peers_lack_it() || systemd_makes_them() {
        return;
    }
    let first = Bundle::new().args(["true"]).hook("createRuntime", "echo >hook-runs; sleep 30");
    let creator = first.create_cmd(&[]).spawn();
    eventually("the hook runs", || first.path().join("hook-runs").exists());
    creator.signal(Signal::SIGKILL);
    creator.wait();
    let file = first.sandbox().root().join(first.name()).join("record.json");
    change_json(&file, |record| {
        record["pid"] = 0.into();
        record["start_time"] = 0.into();
    });
    eventually("nobody is left in it", || fs::remove_dir(first.cgroup()).is_ok());
    let other = heir(&first);
    other.run_detached().ok();
    eventually("it runs", || processes(&other, "sleep 60") == [other.pid()]);
    leaves_alone(&first, &other);
}

#[test]
fn the_intent_of_a_killed_create_is_enough_to_remove_an_empty_cgroup_that_has_no_mark_yet() {
    if peers_lack_it() || systemd_makes_them() {
        return;
    }
    let container = ended(Bundle::new());
    let file = container.sandbox().root().join(container.name()).join("record.json");
    change_json(&file, |record| record["pid"] = 0.into());
    unmark(&container.cgroup());
    let mut stranger = Stranger::in_cgroup(&container.cgroup());
    container.cmd(["kill", "--all", container.name(), "KILL"]).run().ok();
    assert!(stranger.lives());
    // As the container process does, whose creator was killed.
    let deleting = container.cmd(["delete", container.name()]).spawn();
    std::thread::sleep(Duration::from_millis(200));
    stranger.end();
    deleting.wait().ok();
    assert!(!container.cgroup().exists(), "the cgroup is left");
}

/// A record without a mark: whose a process is that is left can be told only if the container's could not have outlived
/// its first process.
#[test]
fn the_cgroup_of_a_container_of_an_older_corten_is_emptied_only_of_what_can_be_its_own() {
    if peers_lack_it() || systemd_makes_them() {
        return;
    }
    let age = |container: &Bundle| {
        let file = container.sandbox().root().join(container.name()).join("record.json");
        change_json(&file, |record| drop(record["cgroup"].as_object_mut().expect("a cgroup").remove("owner")));
        unmark(&container.cgroup());
    };
    // Nobody is in it.
    let container = ended(Bundle::new());
    age(&container);
    container.delete().ok();
    assert!(!container.cgroup().exists(), "the cgroup is left");
    // Somebody is.
    for (bundle, may_be_its_own) in with_and_without_pid_namespace().into_iter().zip([false, true]) {
        let container = ended(bundle);
        age(&container);
        let mut stranger = Stranger::in_cgroup(&container.cgroup());
        container.delete().ok();
        assert_eq!((stranger.lives(), container.cgroup().exists()), (!may_be_its_own, !may_be_its_own));
        stranger.end();
    }
    // It runs.
    let container = Bundle::new().without_ns("pid").sh("sleep 1000 & echo up; exec sleep 1001");
    container.run_detached().ok();
    container.until_output("up");
    age(&container);
    for verb in ["pause", "resume"] {
        container.cmd([verb, container.name()]).run().ok();
    }
    container.delete_force().ok();
    assert!(!container.cgroup().exists(), "the cgroup is left");
}

/// Where a record is lost, the cgroup is found by its mark: never that of another container, the same id or not.
#[test]
fn a_container_whose_record_is_lost_takes_no_other_along() {
    if peers_lack_it() || systemd_makes_them() {
        return;
    }
    let break_it = |container: &Bundle| {
        fs::write(container.sandbox().root().join(container.name()).join("record.json"), "").expect("empty it");
    };
    // The same id in another state root.
    let lost = Bundle::new().args(["sleep", "1000"]);
    let root = lost.host_dir("other-root");
    let other = Bundle::inside(lost.sandbox().clone()).args(["sleep", "60"]).id(lost.name());
    let other = other.global("--root").global(root.to_str().expect("a plain path"));
    lost.run_detached().ok();
    other.run_detached().ok();
    break_it(&lost);
    lost.delete_force().ok();
    assert!(!lost.cgroup().exists(), "the cgroup is left");
    eventually("the other runs", || processes(&other, "sleep 60") == [other.pid()]);
    assert_eq!(other.status(), "running");
    other.delete_force().ok();
    // One that has taken the cgroup.
    let first = ended(Bundle::new());
    let other = heir(&first);
    other.run_detached().ok();
    eventually("it runs", || processes(&other, "sleep 60") == [other.pid()]);
    break_it(&first);
    first.delete_force().ok();
    assert!(lives(other.pid()), "the other container was killed");
    other.delete_force().ok();
    // One whose record lies there.
    let lost = Bundle::new().args(["sleep", "1000"]);
    let other = Bundle::inside(lost.sandbox().clone()).args(["sleep", "60"]);
    lost.run_detached().ok();
    other.run_detached().ok();
    let record = |container: &Bundle| lost.sandbox().root().join(container.name()).join("record.json");
    fs::copy(record(&other), record(&lost)).expect("copy the record");
    lost.state().fails_with(&format!("is that of container {:?}", other.name()));
    lost.delete_force().ok();
    assert!(!lives(lost.pid()) && lives(other.pid()));
    assert_eq!(other.status(), "running");
    other.delete_force().ok();
}

/// One that lives elsewhere by now does nothing to who has its cgroup.
#[test]
fn a_container_that_was_moved_out_of_its_cgroup_has_none_to_act_on() {
    if peers_lack_it() || systemd_makes_them() {
        return;
    }
    for bundle in with_and_without_pid_namespace() {
        let container = bundle.args(["sleep", "1000"]);
        container.run_detached().ok();
        let elsewhere = container.sandbox().cgroup().join(format!("elsewhere-{}", container.name()));
        fs::create_dir_all(&elsewhere).expect("make a cgroup");
        fs::write(elsewhere.join("cgroup.procs"), container.pid().to_string()).expect("move it");
        let other = heir(&container);
        other.run_detached().ok();
        eventually("it runs", || processes(&other, "sleep 60") == [other.pid()]);
        let lost =
            format!("cgroup {} is not the container's any more", container.sandbox().cgroups_path(container.name()));
        for command in [&["pause"][..], &["resume"], &["update", "--pids-limit", "7"], &["events", "--stats"]] {
            container.cmd(command.iter().copied().chain([container.name()])).run().fails_with(&lost);
        }
        // Its own state is not that of the other either.
        other.cmd(["pause", other.name()]).run().ok();
        assert_eq!((container.status(), other.status()), ("running".into(), "paused".into()));
        other.cmd(["resume", other.name()]).run().ok();
        let pids = container.cmd(["ps", "--format", "json", container.name()]).run().json();
        assert_eq!(pids, serde_json::json!([container.pid()]));
        container.exec_cmd(&["--detach"], &["sleep", "1002"]).run().ok();
        let procs = fs::read_to_string(elsewhere.join("cgroup.procs")).expect("its processes");
        assert_eq!(procs.lines().count(), 2, "{procs}");
        container.cmd(["kill", "--all", container.name(), "KILL"]).run().ok();
        assert_eq!(container.wait(), End::Signal(9));
        leaves_alone(&container, &other);
    }
}

/// A container that was given its cgroup sets what attributes it may; it is ended all the same.
#[test]
fn a_container_does_not_disown_its_cgroup() {
    if peers_lack_it() || systemd_makes_them() {
        return;
    }
    let container = Bundle::new().without_ns("pid").sh("sleep 1000 & echo up; exec sleep 1001");
    container.run_detached().ok();
    container.until_output("up");
    eventually("it is there", || processes(&container, "sleep 1000").len() == 1);
    let left = processes(&container, "sleep 1000")[0];
    set_xattr(&container.cgroup(), c"user.corten.container", "somebody 1");
    container.signal(Signal::SIGKILL);
    container.wait();
    container.until("stopped");
    assert!(lives(left));
    container.delete().ok();
    assert!(!lives(left), "what it has left lives");
    assert!(!container.cgroup().exists(), "the cgroup is left");
}

/// A process of the host.
struct Stranger(i32);

impl Stranger {
    fn in_cgroup(cgroup: &Path) -> Stranger {
        let pid = reaper::spawn(std::process::Command::new("/bin/sleep").arg("1000")).expect("spawn sleep");
        fs::write(cgroup.join("cgroup.procs"), pid.to_string()).expect("move it");
        Stranger(pid)
    }

    fn lives(&self) -> bool {
        lives(self.0)
    }

    fn end(&mut self) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.0), Signal::SIGKILL);
        eventually("it is gone", || !lives(self.0));
    }
}

fn change_json(file: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(file).expect("read it")).expect("JSON");
    change(&mut value);
    fs::write(file, value.to_string()).expect("write it");
}

fn set_xattr(path: &Path, name: &CStr, value: &str) {
    let path = CString::new(path.as_os_str().as_bytes()).expect("a path");
    // SAFETY: both names end in NUL, and the value is readable for the length given.
    let set = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// As a corten has made it that marked none.
fn unmark(cgroup: &Path) {
    let path = CString::new(cgroup.as_os_str().as_bytes()).expect("a path");
    // SAFETY: both names end in NUL.
    let removed = unsafe { libc::removexattr(path.as_ptr(), c"trusted.corten.container".as_ptr()) };
    assert_eq!(removed, 0, "{}", std::io::Error::last_os_error());
}

/// What a process looks like that has got the pid in the clock tick in which the container's was made.
#[test]
fn a_process_with_the_pid_and_the_start_time_of_the_containers_is_left_alone() {
    if peers_lack_it() {
        return;
    }
    let container = Bundle::new().args(["sleep", "60"]);
    container.run_detached().ok();
    let (pid, file) = (container.pid(), container.sandbox().root().join(container.name()).join("record.json"));
    change_json(&file, |record| match record["identity"].as_u64() {
        Some(identity) => record["identity"] = (identity - 1).into(),
        // Before Linux 6.9.
        None => record["boot"] = "of another boot".into(),
    });
    assert_eq!(container.status(), "stopped");
    container.kill("KILL").fails();
    container.exec(&["true"]).fails();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    assert!(!stat.contains(") Z "), "it was killed");
}
