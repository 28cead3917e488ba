//! The life cycle on the host, one command per file, and the recorded container.

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
use crate::launch::exec_fifo::ExecFifo;
use crate::sys;

use record::Record;
use store::Directory;

/// The status of a container. It is derived each time and never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// A `create` is still at work on it.
    Creating,
    /// Init waits for `start`.
    Created,
    /// Its program runs.
    Running,
    /// Its cgroup is frozen.
    Paused,
    /// Init has ended.
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

/// A recorded container.
pub struct Container {
    /// Its state directory.
    pub directory: Directory,
    /// Its record.
    pub record: Record,
}

impl Container {
    /// Derives the status. Stopped: init, identified by pid and start time, does not live. Creating: its `create` holds the
    /// lock. Created: the exec fifo exists. Paused: the cgroup is frozen.
    pub fn status(&self) -> Result<Status> {
        if self.record.init().is_none() {
            return Ok(if self.directory.is_locked()? { Status::Creating } else { Status::Stopped });
        }
        if self.living_init()?.is_some() {
            return self.status_of_living();
        }
        // An intermediate process has ended, and its successor is not recorded yet.
        Ok(if self.directory.is_locked()? { Status::Creating } else { Status::Stopped })
    }

    /// [`Container::status`], if init is known to live.
    pub fn status_of_living(&self) -> Result<Status> {
        if self.directory.is_locked()? {
            return Ok(Status::Creating);
        }
        if self.is_frozen() {
            return Ok(Status::Paused);
        }
        Ok(if ExecFifo::is_waiting(self.directory.path())? { Status::Created } else { Status::Running })
    }

    /// Whether the container's own cgroup is frozen; a cgroup that just vanished is not.
    fn is_frozen(&self) -> bool {
        // The owner is checked only for a frozen cgroup: it costs a system call.
        self.record.cgroup.as_ref().is_some_and(|cgroup| Handle::of(cgroup).is_frozen().unwrap_or(false))
            && self.own_cgroup().is_ok_and(|cgroup| cgroup.is_some())
    }

    /// A pidfd of init; `None` if it has ended. The start time is compared after the pidfd is open, so that a reused pid is
    /// noticed; so is the identity, for processes of the same clock tick.
    pub fn living_init(&self) -> Result<Option<(Pid, OwnedFd)>> {
        let Some(pid) = self.record.init() else { return Ok(None) };
        let pidfd = sys::pid::find(pid).with_context(|| format!("open a pidfd of init, process {pid}"))?;
        let Some(pidfd) = pidfd else { return Ok(None) };
        let start_time =
            sys::pid::start_time(pid).with_context(|| format!("read the status of init, process {pid}"))?;
        let is_init = start_time == Some(self.record.start_time) && self.record.is_of(pid, pidfd.as_fd())?;
        Ok(is_init.then_some((pid, pidfd)))
    }

    /// A pidfd of the living init.
    pub fn init(&self) -> Result<(Pid, OwnedFd)> {
        self.living_init()?.ok_or_else(|| Error::new("container not running"))
    }

    /// Whether the container has its own pid namespace, so that the death of init kills all its processes.
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
