//! The life cycle on the host, one verb per file, and what a container on record is.

mod agent;
pub mod check;
pub mod checkpoint;
mod claim;
pub mod create;
pub mod delete;
pub mod events;
pub mod exec;
pub mod foreground;
pub mod freeze;
pub mod id;
pub mod kill;
pub mod members;
pub mod mounts;
pub mod notify;
pub mod processes;
pub mod record;
pub mod restore;
pub mod roots;
mod salvage;
pub mod sessions;
pub mod start;
pub mod state;
pub mod store;
pub mod update;

use std::os::fd::{AsFd, OwnedFd};

use nix::unistd::Pid;

use crate::cgroup::Handle;
use crate::error::{Context, Error, Result};
use crate::launch::gate::Gate;
use crate::sys;

use record::Record;
use store::Directory;

/// Where a container stands. It is worked out anew each time and never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Another process is making it.
    Creating,
    /// Its first process waits to be started.
    Created,
    /// Its program runs.
    Running,
    /// Its cgroup is frozen.
    Paused,
    /// Its first process is gone.
    Stopped,
}

impl Status {
    /// The word of the runtime spec ("State"), and `paused`.
    pub fn word(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// A container on record, opened.
pub struct Container {
    /// Its state directory.
    pub directory: Directory,
    /// What was written down about it.
    pub record: Record,
}

impl Container {
    /// Works out the status: no live init that is the one on record is stopped (a later process may have the same
    /// pid); one whose creator is still at work is creating; a gate still there is created; a frozen cgroup is paused.
    pub fn status(&self) -> Result<Status> {
        if self.record.init().is_none() {
            return Ok(if self.directory.is_locked()? { Status::Creating } else { Status::Stopped });
        }
        if self.living_init()?.is_some() {
            return self.status_of_living();
        }
        // An intermediate process has ended, and the one that it has made is not on record yet.
        Ok(if self.directory.is_locked()? { Status::Creating } else { Status::Stopped })
    }

    /// [`Container::status`] of one whose init was just seen to live.
    pub fn status_of_living(&self) -> Result<Status> {
        if self.directory.is_locked()? {
            return Ok(Status::Creating);
        }
        if self.is_frozen() {
            return Ok(Status::Paused);
        }
        Ok(if Gate::is_shut(self.directory.path())? { Status::Created } else { Status::Running })
    }

    /// Whether the container's own cgroup is frozen; a cgroup that just vanished is not.
    fn is_frozen(&self) -> bool {
        // Whose it is is asked only then: it would be a call more for every look at a container.
        self.record.cgroup.as_ref().is_some_and(|cgroup| Handle::of(cgroup).is_frozen().unwrap_or(false))
            && self.own_cgroup().is_ok_and(|cgroup| cgroup.is_some())
    }

    /// A handle of init; `None` when it has ended. The start time is compared after the handle is open, so that it cannot
    /// be another process that has got the pid meanwhile; and what the kernel has to tell processes of one clock tick apart.
    pub fn living_init(&self) -> Result<Option<(Pid, OwnedFd)>> {
        let Some(pid) = self.record.init() else { return Ok(None) };
        let pidfd = sys::pid::find(pid).with_context(|| format!("open a pidfd of init, process {pid}"))?;
        let Some(pidfd) = pidfd else { return Ok(None) };
        let start_time =
            sys::pid::start_time(pid).with_context(|| format!("read the status of init, process {pid}"))?;
        let is_init = start_time == Some(self.record.start_time) && self.record.is_of(pid, pidfd.as_fd())?;
        Ok(is_init.then_some((pid, pidfd)))
    }

    /// A handle of the living init.
    pub fn init(&self) -> Result<(Pid, OwnedFd)> {
        self.living_init()?.ok_or_else(|| Error::new("container not running"))
    }

    /// Whether the container has a pid namespace of its own, so that its init takes all others with it.
    pub fn owns_pid_namespace(&self) -> bool {
        self.record.own_pid_namespace
    }

    /// Sends a signal to init.
    pub fn signal_init(&self, number: i32) -> Result<()> {
        let (_, pidfd) = self.init()?;
        match sys::pid::signal(pidfd.as_fd(), number) {
            Err(sys::Errno::ESRCH) => Err(Error::new("container not running")),
            done => done.context("unable to signal init"),
        }
    }
}
