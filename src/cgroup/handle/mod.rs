//! What is done with a cgroup that is there: looking into it, freezing, killing, counting, removing.

mod freeze;
mod members;
pub(super) mod memory;
mod remove;
mod stats;

use std::ffi::CString;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::unistd::Pid;

use super::files::{self, Events};
use super::location::Location;
use super::{own, systemd};
use crate::error::{Context, Result, bail, ensure};
use crate::sys::Errno;

pub use stats::Stats;

/// The cgroup at a location. Nothing is held open: each call looks anew, and the cgroup may be gone by then.
#[derive(Clone, Copy, Debug)]
pub struct Handle<'a>(&'a Location);

impl fmt::Display for Handle<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl<'a> Handle<'a> {
    /// Of the cgroup that is at a place.
    pub fn of(location: &'a Location) -> Handle<'a> {
        Handle(location)
    }

    /// Where it is.
    pub fn location(self) -> &'a Location {
        self.0
    }

    fn file(&self, name: &str) -> String {
        self.0.file(name)
    }

    /// Opens the directory, for `CLONE_INTO_CGROUP` and the like.
    pub fn open(&self) -> Result<OwnedFd> {
        self.open_quietly().with_context(|| format!("open cgroup {self}"))
    }

    fn open_quietly(&self) -> std::result::Result<OwnedFd, Errno> {
        let path = CString::new(self.0.directory()).map_err(|_| Errno::EINVAL)?;
        files::open_dir(AT_FDCWD, &path)
    }

    fn is_gone(&self) -> bool {
        matches!(self.open_quietly(), Err(Errno::ENOENT))
    }

    /// Opens it for another process beside `init`. Where somebody has moved that and taken the cgroup away, its new one.
    pub fn open_for(&self, init: Pid) -> Result<OwnedFd> {
        match self.open_quietly() {
            Err(Errno::ENOENT) => self.open_that_of(init),
            dir => dir.with_context(|| format!("open cgroup {self}")),
        }
    }

    /// Opens the cgroup in which a process of the container is now: it may have moved itself below its own (which
    /// then may take no processes: `exec` gets EBUSY there).
    pub fn open_that_of(&self, pid: Pid) -> Result<OwnedFd> {
        Handle::of(&own::of_process(self.0, pid)?).open()
    }

    /// Has systemd move a process to where `init` is now, or to a cgroup below that is there.
    pub fn attach(&self, process: Pid, init: Pid, below: Option<&Path>) -> Result<()> {
        let Some(unit) = self.0.unit() else { bail!("cgroup {self} is none of systemd's") };
        let place = match below {
            Some(below) => below.to_string_lossy().into_owned(),
            None => {
                let place = own::of_process(self.0, init)?;
                place.path().strip_prefix(self.0.path()).unwrap_or_default().to_owned()
            }
        };
        systemd::attach(unit, process, &format!("/{}", place.trim_matches('/')))
    }

    /// Opens a cgroup below it, which has to be there. Never one beside or above it, however it is spelt.
    pub fn open_below(&self, path: &Path) -> Result<OwnedFd> {
        let what = || format!("open cgroup {} below cgroup {self}", path.display());
        let upwards = path.components().any(|part| part == Component::ParentDir);
        ensure!(!upwards, "bad sub cgroup path: {} is not a sub cgroup path of the container's", path.display());
        let below = path.strip_prefix("/").unwrap_or(path);
        if below.as_os_str().is_empty() {
            return self.open();
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        openat2(self.open()?, below, how).with_context(what)
    }

    /// Waits until no live process is in it or below it; `false` when that didn't happen in time.
    pub fn is_empty_within(&self, patience: Duration) -> Result<bool> {
        let wait = || Events::open(&self.file("cgroup.events"))?.wait("populated", "0", Instant::now() + patience);
        match wait() {
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(true),
            done => done.with_context(|| format!("read cgroup.events of cgroup {self}")),
        }
    }

    /// Whether a live process is in it or below it. A cgroup that is gone has none.
    pub fn is_populated(&self) -> Result<bool> {
        self.event("populated")
    }

    fn event(&self, key: &str) -> Result<bool> {
        match files::read(&self.file("cgroup.events")) {
            Ok(text) => Ok(files::value_of(&text, key) == Some("1")),
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(false),
            Err(errno) => Err(errno).with_context(|| format!("read cgroup.events of cgroup {self}")),
        }
    }
}
