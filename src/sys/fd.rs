//! Descriptors as a whole.

use super::{Errno, Result};

/// `CLOSE_RANGE_CLOEXEC`, close_range(2), Linux 5.11.
const CLOSE_RANGE_CLOEXEC: u32 = 4;

/// Marks every descriptor from `first` on close-on-exec, whoever opened it: what a caller leaked into this process
/// must reach neither a hook nor a container (CVE-2024-21626).
pub fn close_on_exec_from(first: u32) -> Result<()> {
    // SAFETY: the kernel takes three integers and changes only flags; no descriptor is closed under its owner.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) };
    Errno::result(done).map(drop)
}
