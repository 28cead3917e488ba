//! The parent of everything a test starts, as an engine's shim is: a subreaper that collects every exit status.
//!
//! One thread waits for all children, so that a command can be waited for with a time-out and a container's
//! process, orphaned by `create`, leaves its status here.

use std::collections::HashMap;
use std::process::{Child, Command};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Code(i32),
    Signal(i32),
}

/// How processes ended, by pid and birth, since a pid may be given again before someone has asked.
#[derive(Default)]
struct Record {
    ended: HashMap<i32, Vec<(Ticks, End)>>,
    /// When the last process was born that was spawned here with a pid.
    spawned: HashMap<i32, Ticks>,
}

impl Record {
    fn end_of(&self, pid: i32, is_it: impl Fn(Ticks) -> bool) -> Option<End> {
        self.ended.get(&pid)?.iter().find(|(born, _)| is_it(*born)).map(|(_, end)| *end)
    }
}

/// A point in time since boot as `/proc/PID/stat` tells it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ticks(u64);

impl Ticks {
    /// What is born from here on is born at this time or later.
    pub fn now() -> Ticks {
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("the time since boot");
        let a_second =
            nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().expect("ticks a second") as u64;
        Ticks(now.tv_sec() as u64 * a_second + now.tv_nsec() as u64 * a_second / 1_000_000_000)
    }

    /// When a process was born, if it is still there, be it as a zombie.
    pub fn of_birth(pid: i32) -> Option<Ticks> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        fields.split_whitespace().nth(19)?.parse().ok().map(Ticks)
    }
}

struct Reaper {
    record: Mutex<Record>,
    changed: Condvar,
}

impl Reaper {
    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn reaper() -> &'static Reaper {
    static REAPER: OnceLock<&Reaper> = OnceLock::new();
    REAPER.get_or_init(|| {
        nix::sys::prctl::set_child_subreaper(true).expect("become a subreaper");
        let reaper: &Reaper = Box::leak(Box::new(Reaper { record: Mutex::default(), changed: Condvar::new() }));
        std::thread::Builder::new().name("reaper".into()).spawn(move || reap(reaper)).expect("spawn the reaper");
        reaper
    })
}

fn reap(reaper: &Reaper) {
    loop {
        // Only a look: as long as it is a zombie nobody else has its pid, and its birth can be read.
        let (pid, end) = match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, End::Code(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, End::Signal(signal as i32)),
            Err(Errno::ECHILD) => {
                // Nothing to wait for until someone spawns; a short nap covers a spawn in between.
                let _ = reaper.changed.wait_timeout(reaper.lock(), Duration::from_millis(20));
                continue;
            }
            _ => continue,
        };
        let mut record = reaper.lock();
        let born = Ticks::of_birth(pid.as_raw()).expect("the birth of a zombie");
        record.ended.entry(pid.as_raw()).or_default().push((born, end));
        let _ = waitpid(pid, None);
        drop(record);
        reaper.changed.notify_all();
    }
}

/// Starts a command whose end [`wait`] will tell.
pub fn spawn(command: &mut Command) -> std::io::Result<i32> {
    let reaper = reaper();
    // Under the lock it is there until its birth is read, be it as a zombie.
    let mut record = reaper.lock();
    let child: Child = command.spawn()?;
    let pid = child.id() as i32;
    let born = Ticks::of_birth(pid).expect("the birth of a child");
    record.spawned.insert(pid, born);
    // An older process with its pid may have come and gone within the same tick.
    record.ended.entry(pid).or_default().retain(|(birth, _)| *birth != born);
    drop(record);
    reaper.changed.notify_all();
    Ok(pid)
}

/// How a child that was spawned here ended; None if it has not after `limit`.
pub fn wait(pid: i32, limit: Duration) -> Option<End> {
    let born = *reaper().lock().spawned.get(&pid).expect("a process that was spawned here");
    wait_until(limit, |record| record.end_of(pid, |birth| birth == born))
}

/// How an orphan that came to us ended, of which is known that it was born at this time or later: what ended before with the
/// same pid was another one.
pub fn wait_for(pid: i32, since: Ticks, limit: Duration) -> Option<End> {
    wait_until(limit, |record| record.end_of(pid, |birth| birth >= since))
}

fn wait_until(limit: Duration, end: impl Fn(&Record) -> Option<End>) -> Option<End> {
    let reaper = reaper();
    let deadline = Instant::now() + limit;
    let mut record = reaper.lock();
    loop {
        if let Some(end) = end(&record) {
            return Some(end);
        }
        let left = deadline.checked_duration_since(Instant::now())?;
        record = reaper.changed.wait_timeout(record, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
    }
}

#[test]
fn the_end_of_another_process_with_its_pid_is_not_that_of_a_process() {
    let run = |script: &str| spawn(Command::new("/bin/busybox").args(["sh", "-c", script])).expect("start a shell");
    let limit = Duration::from_secs(20);
    let tick = || std::thread::sleep(Duration::from_millis(30));
    let old = Ticks::now();
    tick();
    let before = Ticks::now();
    assert!(old < before, "{old:?} is not before {before:?}");
    let pid = run("read line </dev/zero");
    let born = Ticks::of_birth(pid).expect("its birth");
    assert!(born >= before);
    // As if an older process had ended with its pid.
    let ended = |born, end| reaper().lock().ended.entry(pid).or_default().push((born, end));
    ended(old, End::Code(3));
    assert_eq!(wait(pid, Duration::from_millis(50)), None);
    assert_eq!(wait_for(pid, before, Duration::from_millis(50)), None);
    nix::sys::signal::kill(Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).expect("end it");
    assert_eq!(wait(pid, limit), Some(End::Signal(9)));
    // And a younger one.
    tick();
    ended(Ticks::now(), End::Code(4));
    assert_eq!(wait(pid, limit), Some(End::Signal(9)));
    assert_eq!(wait_for(pid, before, limit), Some(End::Signal(9)));
}
