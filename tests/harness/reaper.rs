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

/// What is known of the last process that ended with a pid.
#[derive(Clone, Copy)]
struct Ended {
    end: End,
    born: Ticks,
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

    /// When a process was born that is still there, be it as a zombie.
    fn of_birth(pid: Pid) -> Ticks {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the record of a process");
        let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
        Ticks(fields.split_whitespace().nth(19).and_then(|field| field.parse().ok()).expect("its start"))
    }
}

struct Reaper {
    ended: Mutex<HashMap<i32, Ended>>,
    changed: Condvar,
}

impl Reaper {
    fn lock(&self) -> MutexGuard<'_, HashMap<i32, Ended>> {
        self.ended.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn reaper() -> &'static Reaper {
    static REAPER: OnceLock<&Reaper> = OnceLock::new();
    REAPER.get_or_init(|| {
        nix::sys::prctl::set_child_subreaper(true).expect("become a subreaper");
        let reaper: &Reaper =
            Box::leak(Box::new(Reaper { ended: Mutex::new(HashMap::new()), changed: Condvar::new() }));
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
        let mut ended = reaper.lock();
        ended.insert(pid.as_raw(), Ended { end, born: Ticks::of_birth(pid) });
        // From here on the pid may be given again: under the lock, so that a spawn that gets it finds this entry.
        let _ = waitpid(pid, None);
        drop(ended);
        reaper.changed.notify_all();
    }
}

/// Starts a command whose end [`wait`] will tell.
pub fn spawn(command: &mut Command) -> std::io::Result<i32> {
    let reaper = reaper();
    // Under the lock, what is recorded for the new pid can only be an older process of the same number.
    let mut ended = reaper.lock();
    let child: Child = command.spawn()?;
    let pid = child.id() as i32;
    ended.remove(&pid);
    drop(ended);
    reaper.changed.notify_all();
    Ok(pid)
}

/// How a child that was spawned here ended; None if it has not after `limit`.
pub fn wait(pid: i32, limit: Duration) -> Option<End> {
    wait_for(pid, Ticks(0), limit)
}

/// How an orphan that came to us ended, of which is known that it was born at this time or later: what ended before with the
/// same pid was another one.
pub fn wait_for(pid: i32, born: Ticks, limit: Duration) -> Option<End> {
    let reaper = reaper();
    let deadline = Instant::now() + limit;
    let mut ended = reaper.lock();
    loop {
        if let Some(ended) = ended.get(&pid).filter(|ended| ended.born >= born) {
            return Some(ended.end);
        }
        let left = deadline.checked_duration_since(Instant::now())?;
        ended = reaper.changed.wait_timeout(ended, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
    }
}

#[test]
fn the_end_of_an_older_process_is_not_that_of_a_newer_one_with_its_pid() {
    let run = |script: &str| spawn(Command::new("/bin/busybox").args(["sh", "-c", script])).expect("start a shell");
    let old = run("exit 3");
    assert_eq!(wait(old, Duration::from_secs(20)), Some(End::Code(3)));
    let older = *reaper().lock().get(&old).expect("its entry");
    std::thread::sleep(Duration::from_millis(30));
    let before = Ticks::now();
    assert!(older.born < before, "{:?} is not before {before:?}", older.born);
    let new = run("read line </dev/zero");
    assert!(Ticks::of_birth(Pid::from_raw(new)) >= before);
    // As if it had been born with the pid of the older one, and not been spawned here.
    reaper().lock().insert(new, older);
    assert_eq!(wait_for(new, before, Duration::from_millis(50)), None);
    nix::sys::signal::kill(Pid::from_raw(new), nix::sys::signal::Signal::SIGKILL).expect("end it");
    assert_eq!(wait_for(new, before, Duration::from_secs(20)), Some(End::Signal(9)));
}
