//! What is left of a container whose record is lost, broken, or of a newer version: found by the mark of its cgroup, and by
//! the exec fifo at which init waits.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::unistd::Pid;

use crate::cgroup::{self, Handle, Location};
use crate::error::Result;
use crate::launch::exec_fifo::ExecFifo;
use crate::sys;

use super::Container;
use super::id::Id;
use super::store::Directory;

/// How long killed processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was found of a container.
pub struct Remains {
    /// The container, with what could be read of its record.
    pub container: Container,
    /// Further cgroups with its mark.
    others: Vec<Location>,
}

impl Remains {
    /// Looks for them.
    pub fn find(directory: Directory, id: &Id) -> Result<Remains> {
        let mut record = directory.salvage(id);
        let home = directory.home();
        let mut others = home.map_or_else(|| Ok(Vec::new()), |home| cgroup::find_marked(id.as_str(), home))?;
        let recorded = record.cgroup.as_ref().map(Location::directory);
        match others.iter().position(|found| Some(found.directory()) == recorded) {
            Some(known) => drop(others.swap_remove(known)),
            None if others.is_empty() => {}
            // The mark is more reliable than a broken record.
            None => record.cgroup = Some(others.swap_remove(0)),
        }
        let mut container = Container { directory, record };
        if container.living_init()?.is_none()
            && let Some((pid, start_time)) = waiting_at(container.directory.path())
        {
            (container.record.pid, container.record.start_time) = (pid.as_raw(), start_time);
        }
        Ok(Remains { container, others })
    }

    /// Whether there is nothing but the directory.
    pub fn are_none(&self) -> Result<bool> {
        Ok(self.container.record.cgroup.is_none() && self.container.living_init()?.is_none())
    }

    /// Kills and removes the further cgroups, which leaves an ordinary container to delete.
    pub fn reduce(self) -> Result<Container> {
        for location in self.others {
            let cgroup = Handle::of(&location);
            cgroup.kill_all()?;
            cgroup.remove(PATIENCE)?;
        }
        Ok(self.container)
    }
}

/// The process that waits at the exec fifo of a container, and its start time: the only trace without a cgroup.
fn waiting_at(directory: &Path) -> Option<(Pid, u64)> {
    let exec_fifo = fs::metadata(ExecFifo::path(directory)).ok().map(|meta| (meta.dev(), meta.ino()))?;
    let holds = |pid: &Pid| {
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        fds.map(|fd| fd.path()).any(|fd| {
            // A process that has it open for writing is a `start`, proc_pid_fd(5).
            let reads = fs::symlink_metadata(&fd).is_ok_and(|link| link.mode() & 0o200 == 0);
            reads && fs::metadata(&fd).is_ok_and(|meta| (meta.dev(), meta.ino()) == exec_fifo)
        })
    };
    super::members::everybody().ok()?.into_iter().find_map(|pid| {
        // Compared before and after: the pid may have been reused.
        let start_time = sys::pid::start_time(pid).ok()??;
        (holds(&pid) && sys::pid::start_time(pid) == Ok(Some(start_time))).then_some((pid, start_time))
    })
}
