//! The file that this program runs from: a read-only view of it, and when that is closed.

use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use super::{Errno, Result};

/// `OPEN_TREE_CLONE` and `MOUNT_ATTR_RDONLY`, linux/mount.h.
const OPEN_TREE_CLONE: u32 = 1;
const MOUNT_ATTR_RDONLY: u64 = 1;

/// A detached, read-only mount whose root is our own binary, open_tree(2) and mount_setattr(2). No path leads to it, and
/// it cannot be made writable, since it is in no mount namespace. Needs CAP_SYS_ADMIN.
pub fn read_only_clone() -> Result<OwnedFd> {
    let path = c"/proc/self/exe";
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as u32;
    // SAFETY: `mount_attr` is plain integers, for which all-zero means "change nothing".
    let mut attributes: libc::mount_attr = unsafe { std::mem::zeroed() };
    attributes.attr_set = MOUNT_ATTR_RDONLY;
    // SAFETY: the kernel reads NUL-terminated strings and a structure that live for the calls; the first result is a new
    // descriptor that nobody else owns.
    unsafe {
        let fd = Errno::result(libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags))?;
        let mount = OwnedFd::from_raw_fd(fd as i32);
        let (fd, size) = (mount.as_raw_fd(), size_of::<libc::mount_attr>());
        let set =
            libc::syscall(libc::SYS_mount_setattr, fd, c"".as_ptr(), libc::AT_EMPTY_PATH, &raw mut attributes, size);
        Errno::result(set)?;
        Ok(mount)
    }
}

/// The number of the descriptor that [`hold`] keeps; -1 for none.
static HELD: AtomicI32 = AtomicI32::new(-1);

/// Keeps a mount open until [`let_go`]. To close the last descriptor of a detached mount takes 50 to 100 µs, in which the
/// kernel waits for all processors: that is for a time when nobody waits for us.
pub fn hold(mount: OwnedFd) {
    HELD.store(mount.into_raw_fd(), Ordering::Relaxed);
}

/// Closes what [`hold`] kept.
pub fn let_go() {
    let number = HELD.swap(-1, Ordering::Relaxed);
    if number >= 0 {
        // SAFETY: the descriptor was an owned one, and only the swap gives it away.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
    }
}

/// Whether this is the number of what [`hold`] keeps.
pub fn holds(number: u32) -> bool {
    HELD.load(Ordering::Relaxed) == number as i32
}
