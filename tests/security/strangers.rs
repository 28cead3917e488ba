//! Processes and cgroups that once were a container's, or have the name of one: whoever has them now is left alone.

use std::fs;

use crate::harness::{Bundle, eventually, peers_lack_it, tracer};

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
    let point = calls.split(' ').position(|call| call == "pidfd_open").expect("a process is opened") + 1;
    let killing = traced("USR1", &point.to_string(), &format!("hold={}", held.display())).spawn();
    eventually("all are listed, and none is opened", || held.exists());
    fs::write(elsewhere.join("cgroup.procs"), gone.to_string()).expect("move it");
    fs::remove_file(&held).expect("let the runtime go on");
    killing.wait().ok();
    eventually("who is still in it has got the signal", || !lives(stays));
    container.until_output("heard");
    assert!(lives(gone), "who has left the cgroup was killed");
    container.delete_force().ok();
}
