//! procfs: what its files say, one parser for each, and a mount of our own, which no container can have mounted anything
//! over.

pub mod idmap;
pub mod list;
pub mod mountinfo;
pub mod process;

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};

use super::mount::{Attr, Filesystem};
use super::{Errno, Result};

/// Whether `/proc` is a procfs at all.
pub fn is_mounted() -> bool {
    statfs("/proc").is_ok_and(|fs| fs.filesystem_type() == PROC_SUPER_MAGIC)
}

/// A detached procfs mount of the caller's pid namespace.
///
/// Every write to `/proc` on a container's behalf goes through it: it has no mounts on top and is reachable by no
/// path (CVE-2025-52881).
pub struct Procfs(OwnedFd);

impl Procfs {
    /// fsopen("proc") and fsmount; needs CAP_SYS_ADMIN over the mount and pid namespaces.
    pub fn open() -> Result<Procfs> {
        Filesystem::open(c"proc")?.mount(Attr::NODEV | Attr::NOEXEC | Attr::NOSUID).map(Procfs)
    }

    /// The root directory of the mount.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Opens a file below the root; no link, no mount crossing.
    pub fn file(&self, path: &str, flags: OFlag) -> Result<File> {
        open_below(self.0.as_fd(), path, flags)
    }

    /// Writes a value with a single write(2), as most files here demand.
    pub fn write(&self, path: &str, value: &[u8]) -> Result<()> {
        let mut file = self.file(path, OFlag::O_WRONLY)?;
        match file.write(value) {
            Ok(written) if written == value.len() => Ok(()),
            Ok(_) => Err(Errno::EIO),
            Err(error) => Err(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))),
        }
    }
}

/// Opens a file below `root`, a procfs, without following any link or crossing any mount.
fn open_below(root: BorrowedFd<'_>, path: &str, flags: OFlag) -> Result<File> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV);
    openat2(root, path, how).map(File::from)
}
