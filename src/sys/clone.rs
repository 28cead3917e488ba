//! clone3(2) and unshare(2): the container's process with all its namespaces, born in its cgroup.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::unistd::Pid;

use super::{Errno, Result};

/// clone3(2), Linux 5.7; libc's constant is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of a fork the caller is on.
pub enum Fork {
    /// The parent, with the child's pid as the parent's pid namespace sees it, and its pidfd.
    Parent {
        /// The child's process id.
        pid: Pid,
        /// A close-on-exec handle of the child.
        pidfd: OwnedFd,
    },
    /// The child.
    Child,
}

/// Creates a child by clone3(2) with the given `CLONE_NEW*` (and `CLONE_PARENT`) flags; in `cgroup`, a directory of
/// cgroup2, when given (`CLONE_INTO_CGROUP`).
///
/// The caller must be single-threaded: the child is a copy of its memory and goes on with it.
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Fork> {
    let mut pidfd: RawFd = -1;
    // SAFETY: `clone_args` is plain integers, for which all-zero is the documented default.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    // With CLONE_PARENT the new process takes the caller's exit signal and the field must be empty.
    args.exit_signal = if flags & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 };
    if let Some(dir) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = dir.as_raw_fd() as u64;
    }
    #[cfg(not(test))]
    super::heap::HEAP.leave_freed();
    // SAFETY: without CLONE_VM the child gets its own copy of this memory, as after fork(2), and returns here on that
    // copy's stack. No other thread exists (the crate starts none), so no lock of the allocator can be held in the copy.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(Errno::last()),
        0 => Ok(Fork::Child),
        // SAFETY: CLONE_PIDFD made the kernel store a new descriptor, which nobody else owns.
        pid => Ok(Fork::Parent { pid: Pid::from_raw(pid as i32), pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
    }
}

/// Moves the caller into new namespaces, unshare(2).
pub fn unshare(flags: u64) -> Result<()> {
    // SAFETY: one integer goes in, no memory is touched.
    Errno::result(unsafe { libc::unshare(flags as i32) }).map(drop)
}

/// Moves the caller (for pid and time: its future children) into the namespace behind `fd`, setns(2). `kind` is the
/// `CLONE_NEW*` flag that the descriptor must have, or several of them for a pidfd.
pub fn setns(fd: BorrowedFd<'_>, kind: u64) -> Result<()> {
    // SAFETY: a borrowed descriptor and an integer go in, no memory is touched.
    Errno::result(unsafe { libc::setns(fd.as_raw_fd(), kind as i32) }).map(drop)
}
