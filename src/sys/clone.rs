//! clone3(2), clone(2), setns(2) and unshare(2): a child with all its namespaces, born in its cgroup, and a sibling that
//! takes the caller's place.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::unistd::Pid;

use super::ns::Flags;
use super::{Errno, Result};

/// clone3(2), Linux 5.7; libc's constant is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The argument of clone3(2), `struct clone_args` of linux/sched.h; libc does not have it for every architecture.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Which side of a fork the caller is on.
pub enum Fork {
    /// The parent, with the child's pid as the parent's pid namespace sees it, and its pidfd.
    Parent {
        /// The child's process id.
        pid: Pid,
        /// A close-on-exec pidfd of the child.
        pidfd: OwnedFd,
    },
    /// The child.
    Child,
}

/// Creates a child in `new` namespaces by clone3(2); in `cgroup`, a directory of cgroup2, when given
/// (`CLONE_INTO_CGROUP`).
///
/// The caller must be single-threaded: the child is a copy of its memory and goes on with it.
pub fn clone3(new: Flags, cgroup: Option<BorrowedFd<'_>>) -> Result<Fork> {
    create(new.bits() as u64, cgroup)
}

/// [`clone3`], but the parent of the new process is the caller's parent (`CLONE_PARENT`).
pub fn clone3_sibling(new: Flags) -> Result<Fork> {
    create(new.bits() as u64 | libc::CLONE_PARENT as u64, None)
}

fn create(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Fork> {
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: flags | libc::CLONE_PIDFD as u64,
        pidfd: &raw mut pidfd as u64,
        // With CLONE_PARENT the new process takes the caller's exit signal and the field must be empty.
        exit_signal: if flags & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 },
        ..CloneArgs::default()
    };
    if let Some(dir) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = dir.as_raw_fd() as u64;
    }
    debug_assert!(cfg!(test) || is_single_threaded(), "a fork of one thread among others");
    spare_shared_pages();
    // SAFETY: without CLONE_VM the child gets its own copy of this memory, as after fork(2), and returns here on that
    // copy's stack. No other thread exists (the crate starts none), so no lock of the allocator can be held in the copy.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match pid {
        -1 => Err(Errno::last()),
        0 => Ok(Fork::Child),
        // SAFETY: CLONE_PIDFD made the kernel store a new descriptor, which nobody else owns.
        pid => Ok(Fork::Parent { pid: Pid::from_raw(pid as i32), pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
    }
}

/// Whether this process has one thread: CLONE_THREAD changes nothing then, and is EINVAL otherwise (unshare(2)).
fn is_single_threaded() -> bool {
    // SAFETY: nothing is changed.
    unsafe { libc::unshare(libc::CLONE_THREAD) == 0 || Errno::last() != Errno::EINVAL }
}

/// The allocator leaves what both sides of a fork share as it is.
fn spare_shared_pages() {
    #[cfg(all(feature = "fast-start", not(test)))]
    super::fast::heap::HEAP.leave_freed();
}

/// A pid in memory that a process shares with the children that it has from then on. The kernel writes it on behalf of a
/// child that makes a process, so that nothing need be said, by a call that a filter may forbid.
pub struct SharedPid(NonNull<AtomicI32>);

impl SharedPid {
    /// Maps the memory, mmap(2).
    pub fn new() -> Result<SharedPid> {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, filled with zeros, where the kernel finds room.
        let place = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<AtomicI32>(), access, kind, -1, 0) };
        match NonNull::new(place.cast::<AtomicI32>()) {
            Some(place) if place.as_ptr().cast::<libc::c_void>() != libc::MAP_FAILED => Ok(SharedPid(place)),
            _ => Err(Errno::last()),
        }
    }

    /// The pid, once a process was made.
    pub fn get(&self) -> Option<Pid> {
        // SAFETY: the mapping lives as long as this value, and all who share it write whole numbers.
        let pid = unsafe { self.0.as_ref() }.load(Ordering::Acquire);
        (pid > 0).then(|| Pid::from_raw(pid))
    }

    /// Keeps the memory from the processes that the caller makes from here on, madvise(2): they must not touch it.
    pub fn keep_from_children(&self) -> Result<()> {
        // SAFETY: as in `get`. The page is there then: the kernel does not say that it could not write the pid.
        unsafe { self.0.as_ref() }.store(0, Ordering::Release);
        // SAFETY: the mapping is ours; what changes is whether a child gets it, and one that does not has no use for it.
        Errno::result(unsafe { libc::madvise(self.0.as_ptr().cast(), size_of::<AtomicI32>(), libc::MADV_DONTFORK) })
            .map(drop)
    }
}

impl Drop for SharedPid {
    fn drop(&mut self) {
        // SAFETY: nobody else has a reference into the mapping, which `new` made.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<AtomicI32>()) };
    }
}

/// Which system call makes a sibling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// clone3(2), whose flags no filter can look at.
    Clone3,
    /// clone(2), which filters of engines let pass where they refuse clone3 with ENOSYS.
    Clone,
}

/// The flags of [`sibling`].
const SIBLING: u64 = (libc::CLONE_PARENT | libc::CLONE_PARENT_SETTID) as u64;

impl By {
    /// Number and arguments of the call, as a filter sees them; addresses are zero.
    pub fn call(self) -> (libc::c_long, [u64; 6]) {
        match self {
            By::Clone3 => (libc::SYS_clone3, [0, size_of::<CloneArgs>() as u64, 0, 0, 0, 0]),
            By::Clone if cfg!(target_arch = "s390x") => (libc::SYS_clone, [0, SIBLING, 0, 0, 0, 0]),
            By::Clone => (libc::SYS_clone, [SIBLING, 0, 0, 0, 0, 0]),
        }
    }
}

/// Makes a process whose parent is the caller's parent (`CLONE_PARENT`), in the namespaces that the caller's children are
/// in. The kernel puts its pid, as the caller's pid namespace has it, where `pid` is before it runs. True in the new
/// process, which has to do without `pid` ([`SharedPid::keep_from_children`]).
///
/// The caller must be single-threaded: the new process is a copy of its memory and goes on with it.
pub fn sibling(by: By, pid: &SharedPid) -> Result<bool> {
    let place = pid.0.as_ptr();
    spare_shared_pages();
    // SAFETY: without CLONE_VM the new process gets its own copy of this memory, as after fork(2), and returns here on that
    // copy's stack; no other thread exists. The kernel writes one integer to live memory of ours.
    let made = unsafe {
        match by {
            By::Clone3 => {
                let mut args = CloneArgs { flags: SIBLING, parent_tid: place as u64, ..CloneArgs::default() };
                libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>())
            }
            // There the stack comes first, clone(2), "C library/kernel differences".
            By::Clone if cfg!(target_arch = "s390x") => libc::syscall(libc::SYS_clone, 0, SIBLING, place, 0, 0),
            By::Clone => libc::syscall(libc::SYS_clone, SIBLING, 0, place, 0, 0),
        }
    };
    Errno::result(made).map(|made| made == 0)
}

/// Moves the caller into new namespaces, unshare(2).
pub fn unshare(new: Flags) -> Result<()> {
    // SAFETY: one integer goes in, no memory is touched.
    Errno::result(unsafe { libc::unshare(new.bits()) }).map(drop)
}

/// Moves the caller (for pid and time: its future children) into the namespace behind `fd`, setns(2). `kinds` is the
/// flag that the descriptor must have, or several of them for a pidfd.
pub fn setns(fd: BorrowedFd<'_>, kinds: Flags) -> Result<()> {
    // SAFETY: a borrowed descriptor and an integer go in, no memory is touched.
    Errno::result(unsafe { libc::setns(fd.as_raw_fd(), kinds.bits()) }).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::{pid, process};

    #[test]
    fn a_sibling_is_a_child_of_our_own_and_known_by_its_pid() {
        for by in [By::Clone3, By::Clone] {
            let shared = SharedPid::new().unwrap();
            assert_eq!(shared.get(), None);
            let child = process::in_child(|| {
                shared.keep_from_children().unwrap();
                if sibling(by, &shared).unwrap() { 7 } else { 0 }
            });
            assert!(matches!(nix::sys::wait::waitpid(child, None), Ok(nix::sys::wait::WaitStatus::Exited(_, 0))));
            let sibling = shared.get().unwrap();
            assert_ne!(sibling, child);
            let end = pid::reap(pid::open(sibling).unwrap().as_fd()).unwrap();
            assert!(matches!(end, nix::sys::wait::WaitStatus::Exited(_, 7)), "{end:?}");
        }
    }
}
