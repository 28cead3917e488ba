//! The mounts of a container without a mount namespace, which are its caller's as well.
//!
//! All of them lie below one mount of the rootfs on itself, so that they neither change what was there nor reach other
//! mount namespaces, a read-only root is one, and a single call takes everything off again. It is made on the host, and
//! is on record before and after: whatever a killed `create` leaves can be found.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, fstat};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};
use crate::sys::Errno;
use crate::sys::mount::{Change, Propagation, attach, change, clone_fd, mount_of};

/// A mount of a rootfs on itself, as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// The kernel's number of the mount that the rootfs was on before.
    below: u64,
    /// The rootfs: its device and inode.
    directory: (u64, u64),
    /// The kernel's number of the mount; none before it is made.
    own: Option<u64>,
}

fn look(rootfs: &Path) -> crate::sys::Result<OwnedFd> {
    open(rootfs, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

fn identity(place: &OwnedFd) -> crate::sys::Result<(u64, u64)> {
    fstat(place).map(|stat| (stat.st_dev, stat.st_ino))
}

impl Guest {
    /// What is known before the mount is made.
    pub(super) fn plan(rootfs: &Path) -> Result<Guest> {
        let plan = || -> Result<Guest> {
            let place = look(rootfs)?;
            let (below, _) = mount_of(&place)?;
            Ok(Guest { below, directory: identity(&place)?, own: None })
        };
        plan().with_context(|| format!("open the rootfs {}", rootfs.display())).field(|| "/root/path")
    }

    /// Makes the mount.
    pub fn mount(&mut self, rootfs: &Path) -> Result<()> {
        let make = || -> Result<u64> {
            let place = look(rootfs)?;
            let tree = clone_fd(&place, true)?;
            // What is mounted below it must not reach the mounts it is a copy of; and by being attached to a shared
            // one it becomes shared itself.
            change(&tree, true, Change::propagation(Propagation::Private))?;
            attach(&tree, &place)?;
            let own = mount_of(&tree)?.0;
            change(&tree, true, Change::propagation(Propagation::Private))?;
            Ok(own)
        };
        let own = make().with_context(|| format!("mount the rootfs {}", rootfs.display()));
        self.own = Some(own.map_err(|error| match error.errno() {
            Some(Errno::EPERM) => error.hint("add {\"type\": \"mount\"} to /linux/namespaces"),
            _ => error,
        })?);
        Ok(())
    }

    /// Takes the mount off, with all that is below it. One that is not there any more, or never was, is fine; what
    /// somebody else has mounted above it is left, and so is it then.
    pub fn take_off(&self, rootfs: &Path) -> Result<()> {
        let what = || format!("unmount the rootfs {}", rootfs.display());
        let place = match look(rootfs) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            place => place.with_context(what)?,
        };
        let (top, is_root) = mount_of(&place).with_context(what)?;
        if !is_root || top == self.below {
            return Ok(());
        }
        let known = self.own.is_none_or(|own| own == top);
        if !known || identity(&place).with_context(what)? != self.directory {
            log::warn!("{} stays mounted as it is: something else lies on top of it", rootfs.display());
            return Ok(());
        }
        // Or the unmounting would reach the sources of shared binds.
        change(&place, true, Change::propagation(Propagation::Private)).with_context(what)?;
        let path = format!("/proc/self/fd/{}", place.as_raw_fd());
        umount2(path.as_str(), MntFlags::MNT_DETACH).with_context(what)
    }
}
