//! Many at once: no hang, no wrong exit code, no wrong limit, nothing left. A few by default; `CORTEN_STRESS=full` takes
//! minutes: 2,000 execs in one container and 5,000 runs, eight at a time; a number instead is that many of each.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Bundle, Cmd, Outcome, Sandbox, by_systemd, gives_away, known_difference};

/// How many work side by side.
const WORKERS: usize = 8;

/// How often, altogether.
fn times(full: usize) -> usize {
    match std::env::var("CORTEN_STRESS").as_deref() {
        Ok("full") => full,
        Ok(number) => number.parse().expect("CORTEN_STRESS is a number or `full`"),
        Err(_) => 80,
    }
}

/// The limit of open files that each program has to find, and where there is the controller one of its cgroup.
fn limited(bundle: Bundle) -> (Bundle, bool) {
    let huge = fs::exists("/sys/kernel/mm/hugepages/hugepages-2048kB").unwrap_or_default();
    let bundle = bundle.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 333, "hard": 444}]));
    if !huge || !gives_away("hugetlb") {
        return (bundle, false);
    }
    (bundle.set("/linux/resources/hugepageLimits", json!([{"pageSize": "2MB", "limit": 6 << 20}])), true)
}

/// What the program does: tells its limits and ends with this code.
fn script(code: usize, with_cgroup: bool) -> String {
    let cgroup = if with_cgroup { "read limit </sys/fs/cgroup/hugetlb.2MB.max; echo $limit;" } else { "" };
    format!("ulimit -Sn; ulimit -Hn; {cgroup} exit {code}")
}

#[track_caller]
fn is_right(outcome: &Outcome, code: usize, with_cgroup: bool) {
    outcome.code(code as i32);
    let expected = if with_cgroup { "333\n444\n6291456\n" } else { "333\n444\n" };
    if outcome.stdout() != expected {
        outcome.fail(&format!("it should have printed {expected:?}"));
    }
    if !outcome.stderr().is_empty() {
        outcome.fail("it should have said nothing");
    }
}

/// Calls `work` so many times, [`WORKERS`] at a time, with the number of the worker and of the turn; tells how long the
/// slowest took.
fn side_by_side(turns: usize, work: impl Fn(usize, usize) -> Duration + Sync) {
    let (next, slowest) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (next, slowest, work) = (&next, &slowest, &work);
            scope.spawn(move || {
                loop {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    if turn >= turns {
                        break;
                    }
                    slowest.fetch_max(work(worker, turn).as_millis() as usize, Ordering::Relaxed);
                }
            });
        }
    });
    let test = std::thread::current().name().unwrap_or("stress").to_owned();
    eprintln!("{test}: {turns} in {:?}, the slowest {} ms", begin.elapsed(), slowest.into_inner());
}

#[test]
fn many_execs_in_one_container() {
    if known_difference("crun", "an exec has the limits of its options alone") {
        return;
    }
    let (bundle, with_cgroup) = limited(Bundle::new());
    let container = bundle.args(["sleep", "1000"]);
    container.run_detached().ok();
    side_by_side(times(2000), |_, turn| {
        let code = turn % 256;
        let outcome = container.exec(&["sh", "-c", &script(code, with_cgroup)]);
        is_right(&outcome, code, with_cgroup);
        outcome.took()
    });
    let procs = fs::read_to_string(container.cgroup().join("cgroup.procs")).expect("its processes");
    assert_eq!(procs.lines().count(), 1, "something is left beside the first process");
    container.delete_force().ok();
}

#[test]
fn many_runs_of_a_program_that_ends_at_once() {
    let first = Bundle::new();
    let sandbox = Arc::clone(first.sandbox());
    let bundles: Vec<_> = (0..WORKERS).map(|_| limited(Bundle::inside(sandbox.clone()))).collect();
    let bundles: Vec<_> =
        bundles.into_iter().map(|(bundle, with_cgroup)| (bundle.args(["/bin/sh", "/end"]), with_cgroup)).collect();
    side_by_side(times(5000), |worker, turn| {
        let (bundle, with_cgroup) = &bundles[worker];
        let code = turn % 256;
        fs::write(bundle.rootfs().join("end"), script(code, *with_cgroup)).expect("write the program");
        let outcome = bundle.run();
        is_right(&outcome, code, *with_cgroup);
        outcome.took()
    });
    nothing_is_left(&sandbox);
}

#[test]
fn many_are_created_started_and_deleted() {
    let first = Bundle::new();
    let sandbox = Arc::clone(first.sandbox());
    let bundles: Vec<_> = (0..WORKERS).map(|_| Bundle::inside(sandbox.clone()).args(["true"])).collect();
    side_by_side(times(500), |worker, _| {
        let container = &bundles[worker];
        let begin = Instant::now();
        container.create().ok();
        container.start().ok();
        container.wait();
        container.delete().ok();
        begin.elapsed()
    });
    nothing_is_left(&sandbox);
}

/// No record, no cgroup, no unit of systemd.
fn nothing_is_left(sandbox: &Arc<Sandbox>) {
    let left = fs::read_dir(sandbox.root()).expect("the state root").flatten().map(|entry| entry.file_name());
    let left: Vec<_> = left.filter(|name| !name.as_encoded_bytes().starts_with(b".")).collect();
    assert!(left.is_empty(), "records are left: {left:?}");
    // systemd may have taken an empty slice away.
    let cgroups = fs::read_dir(sandbox.parent()).into_iter().flatten().flatten();
    let cgroups = cgroups.filter(|entry| entry.path().is_dir() && entry.file_name() != "caller").count();
    assert_eq!(cgroups, 0, "cgroups are left");
    if by_systemd() {
        let list = Cmd::bare(sandbox, ["list-units", "--all", "--plain", "--full"]).program("/usr/bin/systemctl").run();
        let stem = format!("{}-", sandbox.unit_stem());
        assert!(!list.ok().stdout().contains(&stem), "units are left:\n{}", list.stdout());
    }
}
