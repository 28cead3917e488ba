//! `kill`: a signal to init, or to every process of the container.

use crate::error::{Error, Result};
use crate::sys;

use super::{Container, Status, members};

/// Sends a signal by number. In a shared pid namespace SIGKILL reaches the whole container, since init's death takes
/// nobody with it there. `all` also reaches what a dead init has left behind, if that can be told by a cgroup.
pub fn kill(container: &Container, number: i32, all: bool) -> Result<()> {
    let whole = all || (number == libc::SIGKILL && !container.owns_pid_namespace());
    let cgroup = if whole { container.own_cgroup()? } else { None };
    match (container.status()?, cgroup) {
        // The kernel's own way, which no fork escapes.
        (_, Some(cgroup)) if number == libc::SIGKILL => cgroup.kill_all(),
        (_, Some(_)) => signal_each(container, number),
        (Status::Stopped | Status::Creating, _) if all => Ok(()),
        (Status::Stopped | Status::Creating, _) => Err(Error::new("container not running")),
        // Without a cgroup of its own. The death of init takes its pid namespace along.
        _ if whole && !(number == libc::SIGKILL && container.owns_pid_namespace()) => signal_each(container, number),
        _ => container.signal_init(number),
    }
}

/// Nobody but members is signalled, who may be others at every look.
fn signal_each(container: &Container, number: i32) -> Result<()> {
    let refused = |pid, errno| Error::from(errno).context(format!("signal process {pid}"));
    sys::pid::signal_listed(number, || members::pids(container), refused)
}
