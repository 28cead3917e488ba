//! `kill`: a signal to init, or to every process of the container.

use std::os::fd::AsFd;

use nix::unistd::Pid;

use crate::error::{Context, Error, Result};
use crate::sys::{self, Errno};

use super::{Container, Status, members};

/// Sends a signal by number. In a shared pid namespace SIGKILL reaches the whole container, since init's death takes
/// nobody with it there. `all` also reaches what a dead init has left behind, if that can be told by a cgroup.
pub fn kill(container: &Container, number: i32, all: bool) -> Result<()> {
    let whole = all || (number == libc::SIGKILL && !container.owns_pid_namespace());
    match (container.status()?, &container.record.cgroup) {
        // The kernel's own way, which no fork escapes.
        (_, Some(cgroup)) if whole && number == libc::SIGKILL => cgroup.kill_all(),
        (_, Some(_)) if whole => signal_each(container, number),
        (Status::Stopped | Status::Creating, _) if all => Ok(()),
        (Status::Stopped | Status::Creating, _) => Err(Error::new("container not running")),
        // Without a cgroup. The death of init takes its pid namespace along.
        _ if whole && !(number == libc::SIGKILL && container.owns_pid_namespace()) => signal_each(container, number),
        _ => container.signal_init(number),
    }
}

fn signal_each(container: &Container, number: i32) -> Result<()> {
    members::pids(container)?.into_iter().try_for_each(|pid| signal(pid, number))
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
