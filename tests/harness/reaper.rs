//! The parent of everything a test starts, as an engine's shim is: a subreaper that collects every exit status.
//!
//! One thread waits for all children, so that a command can be waited for with a time-out and a container's
//! process, orphaned by `create`, leaves its status here.

use std::collections::HashMap;
use std::process::{Child, Command};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Code(i32),
    Signal(i32),
}

struct Reaper {
    ended: Mutex<HashMap<i32, End>>,
    changed: Condvar,
}

impl Reaper {
    fn lock(&self) -> MutexGuard<'_, HashMap<i32, End>> {
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
        let (pid, end) = match waitpid(None::<Pid>, None) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, End::Code(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, End::Signal(signal as i32)),
            Err(Errno::ECHILD) => {
                // Nothing to wait for until someone spawns; a short nap covers a spawn in between.
                let _ = reaper.changed.wait_timeout(reaper.lock(), Duration::from_millis(20));
                continue;
            }
            _ => continue,
        };
        reaper.lock().insert(pid.as_raw(), end);
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

/// How a child, or an orphan that came to us, ended; None if it has not after `limit`.
pub fn wait(pid: i32, limit: Duration) -> Option<End> {
    let reaper = reaper();
    let deadline = Instant::now() + limit;
    let mut ended = reaper.lock();
    loop {
        if let Some(end) = ended.get(&pid) {
            return Some(*end);
        }
        let left = deadline.checked_duration_since(Instant::now())?;
        ended = reaper.changed.wait_timeout(ended, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
    }
}
