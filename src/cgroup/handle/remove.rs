//! Removing a cgroup.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::fcntl::AT_FDCWD;
use nix::unistd::Pid;

use super::Handle;
use crate::cgroup::files::{self, Events};
use crate::cgroup::location::SystemdUnit;
use crate::cgroup::systemd;
use crate::error::{Context, Result, bail};
use crate::sys::Errno;

impl Handle<'_> {
    /// Removes it, all below it, and those directories above it that this container made and nobody else uses.
    ///
    /// Processes that are about to end are waited for, at most for `patience`; then the error lists those that are
    /// left. Kills nobody. A cgroup that is gone is fine. One system call where nothing is below.
    pub fn remove(&self, patience: Duration) -> Result<()> {
        if let Some(unit) = self.location().unit() {
            self.end_unit(unit, patience)?;
        }
        self.remove_leaf(patience)?;
        // A parent that another container has moved into stays, without complaint.
        for ancestor in self.location().upwards().take(self.location().made()).skip(1) {
            if !matches!(files::rmdir(AT_FDCWD, ancestor.as_str()), Ok(true)) {
                break;
            }
        }
        Ok(())
    }

    /// Has systemd take its unit away once no process is in it. Where systemd was first, there is nothing to say: it
    /// forgets a unit before it listens to anybody who could ask for another one of that name.
    fn end_unit(&self, unit: &SystemdUnit, patience: Duration) -> Result<()> {
        let events = match Events::open(&self.file("cgroup.events")) {
            Err(Errno::ENOENT) => return Ok(()),
            events => events.with_context(|| format!("open cgroup.events of cgroup {self}"))?,
        };
        match events.wait("populated", "0", Instant::now() + patience) {
            Ok(true) | Err(Errno::ENODEV) => systemd::stop(unit),
            Ok(false) => Ok(()),
            Err(errno) => Err(errno).with_context(|| format!("read cgroup.events of cgroup {self}")),
        }
    }

    fn remove_leaf(&self, patience: Duration) -> Result<()> {
        let directory = self.location().directory();
        let gone = || files::rmdir(AT_FDCWD, directory.as_str()).with_context(|| format!("remove cgroup {self}"));
        if gone()? {
            return Ok(());
        }
        let deadline = Instant::now() + patience;
        loop {
            // Opened before the attempt, so that a change during it is not missed.
            let events = match Events::open(&self.file("cgroup.events")) {
                Err(Errno::ENOENT) => return Ok(()),
                events => events.with_context(|| format!("open cgroup.events of cgroup {self}"))?,
            };
            let _ = events.is("populated", "0");
            self.remove_below()?;
            if gone()? {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            // Below the top a change of "populated" may not reach it: look again soon anyhow.
            events.changed(left.min(Duration::from_millis(50)));
        }
        let pids = self.pids()?;
        let names: Vec<String> = pids.iter().take(10).map(Pid::to_string).collect();
        let more = if pids.len() > names.len() { " and more" } else { "" };
        if names.is_empty() {
            bail!("remove cgroup {self}: the kernel still holds it");
        }
        bail!("remove cgroup {self}: {} process(es) still in it: {}{more}", pids.len(), names.join(", "));
    }

    /// One attempt at every directory below it, deepest first.
    fn remove_below(&self) -> Result<()> {
        let top = match self.open_quietly() {
            Err(Errno::ENOENT) => return Ok(()),
            top => top.with_context(|| format!("open cgroup {self}"))?,
        };
        match files::walk(top, |_| Ok(()), |parent, name| files::rmdir(parent.as_fd(), name).map(drop)) {
            // The tree changed under our feet: the next attempt sees it as it is then.
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(()),
            done => done.with_context(|| format!("remove the cgroups below {self}")),
        }
    }
}
