//! The processes of a cgroup: listing and killing them.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::unistd::Pid;

use super::Handle;
use crate::cgroup::files;
use crate::error::{Context, Error, Result};
use crate::sys::{self, Errno};

impl Handle<'_> {
    /// Kills every process in it and below it, also those that are being forked and those that are frozen.
    /// Doesn't wait for their end; a cgroup that is gone is fine.
    pub fn kill_all(&self) -> Result<()> {
        // A process that is born in a cgroup from outside (CLONE_INTO_CGROUP) is killed by newer kernels (seen: 6.18) if the
        // cgroup has ever been killed: an empty one would be of no use to the next container any more.
        if !self.is_populated()? {
            return Ok(());
        }
        match files::write(&self.file("cgroup.kill"), "1") {
            Ok(()) | Err(Errno::ENOENT | Errno::ENODEV) => Ok(()),
            // A threaded cgroup has parts of processes, and this file kills whole ones.
            Err(Errno::EOPNOTSUPP) => self.kill_one_by_one(),
            Err(errno) => Err(errno).with_context(|| format!("kill the processes of cgroup {self}")),
        }
    }

    fn kill_one_by_one(&self) -> Result<()> {
        // The ids are those of threads, which have no handles; their processes may have begun in other cgroups.
        let processes = || {
            let processes: BTreeSet<Pid> = self.pids()?.into_iter().filter_map(sys::pid::process_of).collect();
            Ok(processes.into_iter().collect())
        };
        let refused = |pid, errno| Error::from(errno).context(format!("kill process {pid}"));
        // Newcomers are caught by the next round; who forks faster than this is told by `remove`.
        for _ in 0..100 {
            if self.pids()?.is_empty() {
                break;
            }
            sys::pid::signal_listed(libc::SIGKILL, processes, refused)?;
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// The processes in it and below it, as this process sees them, in order; zombies are not among them. A cgroup that
    /// is gone has none. In threaded cgroups the ids are those of threads.
    pub fn pids(&self) -> Result<Vec<Pid>> {
        let top = match self.open_quietly() {
            Err(Errno::ENOENT) => return Ok(Vec::new()),
            top => top.with_context(|| format!("open cgroup {self}"))?,
        };
        let mut pids = BTreeSet::new();
        let read = |dir: BorrowedFd| {
            let text = match files::read_at(dir, "cgroup.procs") {
                Err(Errno::EOPNOTSUPP) => files::read_at(dir, "cgroup.threads")?,
                Err(Errno::ENOENT | Errno::ENODEV) => return Ok(()),
                text => text?,
            };
            // 0 stands for a process of another pid namespace, which nobody here can name.
            pids.extend(text.lines().filter_map(|line| line.parse().ok()).filter(|&pid: &i32| pid != 0));
            Ok(())
        };
        files::walk(top, read, |_, _| Ok(())).with_context(|| format!("list the processes of cgroup {self}"))?;
        Ok(pids.into_iter().map(Pid::from_raw).collect())
    }
}
