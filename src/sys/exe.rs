//! The file thatthat this program runs from: a read-only view of it, and when that is closed.

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use super::Result;
use super::mount::{self, Attr, Change};

/// A detached, read-only mount whose root is the runtime's binary, by open_tree(2) and mount_setattr(2). It has no path, and
/// cannot be remounted, since it is in no mount namespace. Needs CAP_SYS_ADMIN.
pub fn read_only_clone() -> Result<OwnedFd> {
    let mount = mount::clone_path(c"/proc/self/exe", false)?;
    mount::change(&mount, false, Change::set(Attr::RDONLY))?;
    Ok(mount)
}

/// The number of the descriptor that [`park_fd`] keeps; -1 for none.
static PARKED: AtomicI32 = AtomicI32::new(-1);

/// Keeps a mount open until [`close_parked`]. Closing the last descriptor of a detached mount takes 50 to 100 µs, while the kernel
/// waits for all processors (RCU), so it is deferred until nobody waits for the runtime.
pub fn park_fd(mount: OwnedFd) {
    PARKED.store(mount.into_raw_fd(), Ordering::Relaxed);
}

/// Closes what [`park_fd`] kept.
pub fn close_parked() {
    let number = PARKED.swap(-1, Ordering::Relaxed);
    if number >= 0 {
        // SAFETY: the descriptor was an owned one, and only the swap gives it away.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
    }
}

/// Whether this is the number of what [`park_fd`] keeps.
pub fn is_parked(number: u32) -> bool {
    PARKED.load(Ordering::Relaxed) == number as i32
}
