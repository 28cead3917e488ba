//! A procfs of our own, which no container can have mounted anything over.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};

use super::{Errno, Result};

// linux/mount.h; libc has no names for these.
const FSOPEN_CLOEXEC: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSMOUNT_CLOEXEC: u32 = 1;
const MOUNT_ATTR_NOSUID: u32 = 2;
const MOUNT_ATTR_NODEV: u32 = 4;
const MOUNT_ATTR_NOEXEC: u32 = 8;

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
        // SAFETY: the kernel reads the two NUL-terminated strings and integers; each result is a new descriptor that
        // nobody else owns.
        unsafe {
            let context = owned(libc::syscall(libc::SYS_fsopen, c"proc".as_ptr(), FSOPEN_CLOEXEC))?;
            let create = FSCONFIG_CMD_CREATE;
            let null = std::ptr::null::<libc::c_char>();
            Errno::result(libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), create, null, null, 0))?;
            let flags = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOSUID;
            let mount = libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, flags);
            Ok(Procfs(owned(mount)?))
        }
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
pub fn open_below(root: BorrowedFd<'_>, path: &str, flags: OFlag) -> Result<File> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV);
    openat2(root, path, how).map(File::from)
}

/// Takes the descriptor that a raw call returned.
///
/// # Safety
/// `result` is what a call that makes a new descriptor returned.
unsafe fn owned(result: libc::c_long) -> Result<OwnedFd> {
    let fd = Errno::result(result)?;
    // SAFETY: the caller says that the descriptor is new, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
