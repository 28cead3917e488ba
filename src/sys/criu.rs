//! What stands around CRIU: its mount namespace, and what happens between fork and its execve.

use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;

use super::{Errno, Result, process};

/// This process in a mount namespace of its own, in which a directory is mounted once more, with all that is mounted below
/// it. The mount appears nowhere else, and ends with the last process that is in the namespace. Dropped, the process is
/// back where it was, in the directory `/`.
///
/// CRIU needs such a mount, and opens what we have open: so what it is given has to be opened in there.
pub struct PrivateMounts(OwnedFd);

impl PrivateMounts {
    /// Enters it. Both directories have to be there.
    pub fn enter(from: &Path, to: &Path) -> Result<PrivateMounts> {
        let none = None::<&str>;
        let host = open("/proc/self/ns/mnt", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        unshare(CloneFlags::CLONE_NEWNS)?;
        let inside = PrivateMounts(host);
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(Some(from), to, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
        Ok(inside)
    }

    /// Goes back.
    pub fn leave(self) -> Result<()> {
        setns(&self.0, CloneFlags::CLONE_NEWNS)
    }
}

impl Drop for PrivateMounts {
    fn drop(&mut self) {
        // After `leave` once more, to the same end. What fails here has failed there.
        let _ = setns(&self.0, CloneFlags::CLONE_NEWNS);
    }
}

/// Has the program of a command find these descriptors under the numbers that they have here, in the cgroup whose
/// `cgroup.procs` that is.
pub fn prepare(command: &mut Command, descriptors: Vec<RawFd>, procs: Option<OwnedFd>) {
    let before_exec = move || {
        for &number in &descriptors {
            process::clear_close_on_exec(number as u32)?;
        }
        // 0 is who writes.
        procs.as_ref().map_or(Ok(0), |procs| nix::unistd::write(procs, b"0")).map(drop).map_err(std::io::Error::from)
    };
    // SAFETY: between fork and exec only system calls are made, with memory that was allocated before the fork; an
    // io::Error made from an errno holds just the number.
    unsafe { command.pre_exec(before_exec) };
}

/// Writes a NUL to a descriptor of the caller's, given by its number.
pub fn tell(number: u32) -> Result<()> {
    // SAFETY: the kernel reads one byte of a constant; the number need not be open.
    Errno::result(unsafe { libc::write(number as RawFd, c"".as_ptr().cast(), 1) }).map(drop)
}
