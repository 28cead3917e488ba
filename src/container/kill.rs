//! `kill`: a signal to init, or to every process of the container.

use crate::error::{Error, Result};
use crate::sys;

use super::{Container, Status, members};

/// Sends a signal by number. In a shared pid namespace SIGKILL goes to the whole container, since the death of init kills
/// nobody else there. `all` also signals processes that a dead init has left in the cgroup.
pub fn kill(container: &Container, number: i32, all: bool) -> Result<()> {
    let whole = all || (number == libc::SIGKILL && !container.owns_pid_namespace());
    let cgroup = if whole { container.own_cgroup()? } else { None };
    match (container.status()?, cgroup) {
        // cgroup.kill: no fork escapes it.
        (_, Some(cgroup)) if number == libc::SIGKILL => cgroup.kill_all(),
        (_, Some(_)) => signal_each(container, number),
        (Status::Stopped | Status::Creating, _) if all => Ok(()),
        (Status::Stopped | Status::Creating, _) => Err(Error::new("container not running")),
        // Without a cgroup. The death of init kills its pid namespace.
        _ if whole && !(number == libc::SIGKILL && container.owns_pid_namespace()) => signal_each(container, number),
        _ => container.signal_init(number),
    }
}

/// Signals the members one by one; new ones may appear meanwhile.
fn signal_each(container: &Container, number: i32) -> Result<()> {
    let refused = |pid, errno| Error::from(errno).context(format!("signal process {pid}"));
    sys::pid::signal_listed(number, || members::pids(container), refused)
}
