//! Leaving the host's tree: pivot_root(2), or the move for hosts that run from an initramfs.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{chroot, fchdir, pivot_root};

use super::filesystem::empty_directory;
use super::path::Root;
use crate::error::{Context, Result};
use crate::sys::Errno;
use crate::sys::mount::attach;
use crate::sys::procfs::mountinfo::{self, Mount};

/// Makes the container's root the root of the mount namespace and lets go of everything else.
pub(super) fn pivot(root: &Root) -> Result<()> {
    fchdir(root.fd()).context("enter the container's root")?;
    // Old and new root are the same directory: the old one ends up on top of the new one, and `.` finds it there.
    // No directory is needed for it, so it works on a read-only root (pivot_root(2), NOTES).
    match pivot_root(".", ".") {
        Err(Errno::EINVAL) => {
            return Err(Errno::EINVAL).context("pivot_root").hint(
                "a root that cannot be put away, as that of a host which runs from an initramfs, needs --no-pivot",
            );
        }
        done => done.context("pivot_root")?,
    }
    // Nothing of this reaches the host: `/` and all below it stopped sending before the first mount.
    umount2(".", MntFlags::MNT_DETACH).context("unmount the old root")
}

/// Moves the container's root over `/`. The old mounts stay behind it, so a full procfs or sysfs there has to go: as
/// long as one exists, the kernel lets a user namespace in the container mount fresh ones, without the masks.
pub(super) fn shift(root: &Root, rootfs: &Path) -> Result<()> {
    for mount in full_mounts(rootfs).context("read /proc/self/mountinfo")?.into_iter().rev() {
        hide(&mount).with_context(|| format!("unmount {}", mount.display()))?;
    }
    fchdir(root.fd()).context("enter the container's root")?;
    let top: OwnedFd = open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    attach(root.fd(), top).context("move the container's root to /")?;
    enter()
}

/// Without a mount namespace there is nothing to move: the root of this process alone changes.
pub(super) fn change_root(root: &Root) -> Result<()> {
    fchdir(root.fd()).context("enter the container's root")?;
    enter()
}

fn enter() -> Result<()> {
    chroot(".").context("change the root directory")
}

/// Unmounts, or covers what may not be unmounted (in a user namespace).
fn hide(mount: &Path) -> Result<()> {
    match umount2(mount, MntFlags::MNT_DETACH) {
        Ok(()) => return Ok(()),
        Err(Errno::EINVAL | Errno::EPERM) => {}
        Err(error) => return Err(error.into()),
    }
    let place: OwnedFd = open(mount, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    Ok(attach(empty_directory()?, place)?)
}

/// Mount points outside the rootfs of whole procfs and sysfs trees. They are the host's, which it named itself.
fn full_mounts(rootfs: &Path) -> Result<Vec<PathBuf>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(mountinfo::parse(&table).filter_map(full_mount).filter(|point| !point.starts_with(rootfs)).collect())
}

fn full_mount(mount: Mount<'_>) -> Option<PathBuf> {
    let full = mount.is_whole() && matches!(mount.fstype, b"proc" | b"sysfs");
    full.then(|| mount.point())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_procfs_and_sysfs_trees_count() {
        let point =
            |line: &str| mountinfo::parse(line.as_bytes()).find_map(full_mount).map(|path| path.display().to_string());
        assert_eq!(
            point("36 35 0:4 / /pr\\040oc rw,nosuid shared:1 master:2 - proc proc rw").as_deref(),
            Some("/pr oc")
        );
        assert_eq!(point("36 35 0:4 / /sys rw - sysfs sysfs rw").as_deref(), Some("/sys"));
        assert_eq!(point("36 35 0:4 /sys /x rw - proc proc rw"), None);
        assert_eq!(point("36 35 0:4 / /x rw - tmpfs proc rw"), None);
        assert_eq!(point(""), None);
    }
}
