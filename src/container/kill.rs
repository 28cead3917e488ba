//! `kill`: a signal to init, or to every process of the container.

use std::os::fd::AsFd;

use nix::unistd::Pid;

use crate::cgroup::Location;
use crate::error::{Context, Error, Result};
use crate::sys::{self, Errno};

use super::{Container, Status};

/// Sends a signal by number. In a shared pid namespace SIGKILL reaches the whole container, since init's death takes
/// nobody with it there. `all` also reaches what a dead init has left behind.
pub fn kill(container: &Container, number: i32, all: bool) -> Result<()> {
    let whole = all || (number == libc::SIGKILL && !container.owns_pid_namespace());
    match (container.status()?, &container.record.cgroup) {
        (_, Some(cgroup)) if whole => signal_all(cgroup, number),
        (Status::Stopped | Status::Creating, _) if all => Ok(()),
        (Status::Stopped | Status::Creating, _) => Err(Error::new("container not running")),
        _ => container.signal_init(number),
    }
}

/// Signals every process in the container's cgroup. SIGKILL goes by the kernel's own way, which no fork escapes.
fn signal_all(cgroup: &Location, number: i32) -> Result<()> {
    if number == libc::SIGKILL {
        return cgroup.kill_all();
    }
    cgroup.pids()?.into_iter().try_for_each(|pid| signal(pid, number))
}

fn signal(pid: Pid, number: i32) -> Result<()> {
    let what = || format!("signal process {pid}");
    let Some(pidfd) = sys::pid::find(pid).with_context(what)? else { return Ok(()) };
    match sys::pid::signal(pidfd.as_fd(), number) {
        // It ended between the list and the signal.
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno).with_context(what),
    }
}
