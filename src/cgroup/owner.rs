//! Whose a cgroup is: a mark on its directory that the container's record knows.
//!
//! The path alone does not tell. Another container may have taken an empty cgroup, and one that was removed may be made
//! anew: who ends what is at the path of a container that has stopped would end the other. So a container marks the
//! cgroup that it makes or takes, before the first process is in it.
//!
//! The mark is an extended attribute. Nobody but a process that is privileged on the host sets one of the kind
//! `trusted`, so that no container gets rid of it, one that was given its cgroup neither. Without that privilege it is one
//! of the kind `user` (cgroupfs has them since Linux 5.7), which who owns the directory may change.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Location;
use crate::error::{Context, Result};
use crate::sys::Errno;
use crate::sys::path::{set_xattr, xattr_at};

/// The names of the mark. The first that is there counts.
const NAMES: [&CStr; 2] = [c"trusted.corten.container", c"user.corten.container"];

/// Longer than any mark: an id has 255 bytes at most.
const LONGEST: usize = 512;

/// Whose the cgroup at a place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// That of the record; also when there is none.
    Own,
    /// Another container.
    Other,
    /// Nobody has marked it, and the container of the record would have.
    Unmarked,
    /// Nobody has marked it, nor did the container of the record: it is of an older corten, or the kernel took no mark.
    Unknown,
}

/// A mark that no other container has, nor a later one with the same id.
pub(super) fn new(id: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{id} {}", now.as_nanos())
}

impl Location {
    /// Marks the cgroup as the container's, whoever had it before. Where no mark can be set, the place is one without.
    pub(super) fn mark(&mut self, dir: BorrowedFd) -> Result<()> {
        let Some(owner) = &self.owner else { return Ok(()) };
        for name in NAMES {
            match set_xattr(dir, name, owner.as_bytes()) {
                Err(Errno::EPERM | Errno::EACCES | Errno::ENOTSUP) => {}
                done => return done.with_context(|| format!("mark cgroup {self} as the container's")),
            }
        }
        self.owner = None;
        Ok(())
    }

    /// Whose it is now.
    pub fn holder(&self) -> Result<Holder> {
        let mut buffer = [0; LONGEST];
        let directory = self.directory();
        for name in NAMES {
            match xattr_at(directory.as_str(), name, &mut buffer) {
                Ok(mark) if self.owner.as_deref().map(str::as_bytes) == Some(mark) => return Ok(Holder::Own),
                Ok(_) | Err(Errno::ERANGE) => return Ok(Holder::Other),
                Err(Errno::ENOENT | Errno::ENODEV | Errno::ENOTDIR) => return Ok(Holder::Own),
                Err(Errno::ENODATA | Errno::ENOTSUP) => {}
                Err(errno) => return Err(errno).with_context(|| format!("look whose cgroup {self} is")),
            }
        }
        Ok(if self.owner.is_some() { Holder::Unmarked } else { Holder::Unknown })
    }
}
