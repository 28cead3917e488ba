//! What attacks have in common: something outside that must stay as it is, a racer, and starts that are counted.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Bundle, Outcome, Sandbox, reaper};

/// The name of the file that only the host has.
pub const CANARY: &str = "corten-canary";

/// A tree of the host beside the bundle, with names that runtimes like to make or remove, and the host's mount table:
/// both have to stay as they are.
pub struct Outside {
    _sandbox: Arc<Sandbox>,
    dir: PathBuf,
    files: String,
    mounts: String,
}

impl Outside {
    pub fn of(bundle: &Bundle) -> Outside {
        let dir = bundle.host_dir("outside");
        for name in [CANARY, "ptmx", "file", "sub/file"] {
            bundle.host_file(&format!("outside/{name}"), "of the host");
        }
        // For attackers of any user.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).expect("open the canary's directory");
        let files = listing(&dir);
        Outside { _sandbox: bundle.sandbox().clone(), dir, files, mounts: mount_table() }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// As a link's target, from any place in the container that is less than sixteen levels deep.
    pub fn relative(&self) -> String {
        "../".repeat(16) + self.dir.to_str().expect("a plain path").trim_start_matches('/')
    }

    /// As an absolute link's target.
    pub fn absolute(&self) -> String {
        self.dir.to_str().expect("a plain path").to_owned()
    }

    /// Everything is as it was.
    #[track_caller]
    pub fn is_untouched(&self) {
        let (files, mounts) = (listing(&self.dir), mount_table());
        assert!(files == self.files, "the host's files were changed; before:\n{}\nafter:\n{files}", self.files);
        assert!(mounts == self.mounts, "the host's mounts were changed; before:\n{}\nafter:\n{mounts}", self.mounts);
    }
}

/// Names, kinds, modes, owners, contents, and when each was changed: an entry that came and went shows in its directory.
fn listing(dir: &Path) -> String {
    let mut text = String::new();
    let mut open = vec![dir.to_owned()];
    while let Some(path) = open.pop() {
        let Ok(stat) = fs::symlink_metadata(&path) else {
            let _ = writeln!(text, "{} is gone", path.display());
            continue;
        };
        let content = if stat.is_file() { fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
        let changed = (stat.mtime(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec());
        let (mode, uid, gid) = (stat.mode(), stat.uid(), stat.gid());
        let _ = writeln!(text, "{} {mode:o} {uid}:{gid} {:x} {changed:?} {content:?}", path.display(), stat.rdev());
        if stat.is_dir() {
            let mut below: Vec<_> = fs::read_dir(&path).into_iter().flatten().flatten().map(|e| e.path()).collect();
            below.sort();
            open.extend(below);
        }
    }
    text
}

/// Mounts a file system on the host as this test sees it. Takes a bundle, since the mount namespace of the test's own
/// comes with the first one; before it, the machine's mounts would be changed.
pub fn mount_on_host(bundle: &Bundle, fstype: &str, place: &Path) {
    let namespace = |path: &str| fs::read_link(path).expect("a mount namespace");
    let process = namespace(&format!("/proc/{}/ns/mnt", std::process::id()));
    assert_ne!(namespace("/proc/thread-self/ns/mnt"), process, "not in the sandbox of {}", bundle.name());
    mount(Some(fstype), place, Some(fstype), MsFlags::empty(), None::<&str>).expect("mount on the test's host");
}

fn mount_table() -> String {
    fs::read_to_string("/proc/thread-self/mountinfo").expect("read the mount table")
}

/// How many containers a race is tried on.
pub fn starts() -> usize {
    match std::env::var("CORTEN_SECURITY").as_deref() {
        Err(_) | Ok("") => 64,
        Ok("full") => 2000,
        Ok(number) => number.parse().expect("CORTEN_SECURITY is `full` or a number"),
    }
}

/// A process that exchanges pairs of paths until it is dropped.
pub struct Racer(i32);

impl Racer {
    pub fn on<'a>(bundle: &Bundle, pairs: impl IntoIterator<Item = (&'a Path, &'a Path)>) -> Racer {
        let mut command = Command::new(bundle.sandbox().dir().join("bin/probe"));
        command.arg("swap");
        for (one, other) in pairs {
            command.arg(one).arg(other);
        }
        let pid = reaper::spawn(&mut command).expect("start the racer");
        // So that it ends with the sandbox, whatever becomes of this test.
        fs::write(bundle.sandbox().cgroup().join("caller/cgroup.procs"), pid.to_string()).expect("move the racer");
        Racer(pid)
    }

    fn is_running(&self) -> bool {
        reaper::wait(self.0, Duration::ZERO).is_none()
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = kill(Pid::from_raw(self.0), Signal::SIGKILL);
            reaper::wait(self.0, Duration::from_secs(5));
        }
    }
}

/// One race at a time: the racer and the runtime need a processor each.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Starts the containers in turn while the pairs are exchanged. A start may fail, but not hang; of each that does not,
/// `judge` says what is wrong. Nothing outside may change. Some have to succeed, or nothing was tried.
#[track_caller]
pub fn race(
    bundles: &[Bundle],
    pairs: &[(PathBuf, PathBuf)],
    outside: &Outside,
    start: impl Fn(&Bundle) -> Outcome,
    judge: impl Fn(&Bundle, &Outcome),
) {
    let _alone = alone();
    let racer = Racer::on(&bundles[0], pairs.iter().map(|(one, other)| (one.as_path(), other.as_path())));
    let (began, number) = (Instant::now(), starts());
    let mut succeeded = vec![0; bundles.len()];
    let mut reasons: Vec<String> = Vec::new();
    for round in 0..number {
        let which = round % bundles.len();
        let outcome = start(&bundles[which]);
        if outcome.succeeded() {
            succeeded[which] += 1;
            judge(&bundles[which], &outcome);
        } else {
            outcome.fails();
            let said = outcome.stderr();
            let last = said.lines().last().unwrap_or("without a word").to_owned();
            if reasons.len() < 8 && !reasons.contains(&last) {
                reasons.push(last);
            }
        }
        if round % 8 == 0 {
            outside.is_untouched();
        }
    }
    outside.is_untouched();
    assert!(racer.is_running(), "the racer has ended before the race");
    let test = std::thread::current().name().unwrap_or("race").to_owned();
    let took = began.elapsed().as_secs_f64();
    // Past the capture of `println!`, so that it is seen when the test passes.
    let _ = writeln!(std::io::stderr(), "{test}: {number} starts, {succeeded:?} succeeded, {took:.1} s");
    // With few starts of each, chance may be against one of them.
    let enough = if number / bundles.len() < 20 { 1 } else { bundles.len() };
    let victims = succeeded.iter().filter(|&&number| number > 0).count();
    assert!(victims >= enough, "{succeeded:?} succeeded: {reasons:#?}");
}

/// The lines of the container's mount table in what `probe hunt` has printed.
pub fn mounts(outcome: &Outcome) -> Vec<String> {
    outcome.lines().into_iter().filter(|line| line.contains(" - ")).collect()
}

/// The mount point, the fifth field of such a line.
pub fn point(line: &str) -> &str {
    line.split(' ').nth(4).unwrap_or_default()
}

/// Nothing of the host was found in the container by `probe hunt`.
#[track_caller]
pub fn finds_nothing(outcome: &Outcome) {
    if outcome.stdout().contains("found ") {
        outcome.fail("something of the host is in the container");
    }
}
