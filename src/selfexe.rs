//! The runtime executes from a file that no container can write.
//!
//! While a process of the runtime is in the container's namespaces, the container's root can open `/proc/PID/exe` for
//! writing and replace the binary on the host (CVE-2019-5736). So commands that enter a container run from a read-only
//! detached mount of the binary, which has no path and cannot be remounted; or, without the right to mount, from a sealed
//! memfd. A privileged process switches its own exe link to the mount (PR_SET_MM_MAP); otherwise it re-executes from there.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::statvfs::{FsFlags, statvfs};

use crate::error::{Context, Result, bail};
use crate::sys;

/// When a command needs its binary protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needed {
    /// No process of it is ever in a namespace of a container.
    Never,
    /// Before it begins: a re-exec starts it over.
    AtOnce,
    /// When its request is complete: of the pages that are mapped anew, those that led there are not needed again.
    Later,
}

/// That the binary is protected. What enters a container asks for it, and only [`Protection::ensure`] gives it.
#[derive(Debug)]
pub struct Protected(());

/// The protection of the binary for one command.
#[derive(Debug)]
pub enum Protection {
    /// There is none to be had.
    Refused,
    /// There is, or it has failed.
    Attempted(Result<Protected>),
    /// There will be when it is asked for.
    Pending,
}

impl Protection {
    /// Protects the binary if that is needed at once.
    pub fn begin(needed: Needed) -> Protection {
        match needed {
            Needed::Never => Protection::Refused,
            Needed::AtOnce => Protection::Attempted(protect()),
            Needed::Later => Protection::Pending,
        }
    }

    /// That the binary is protected, from here on at the latest.
    ///
    /// # Errors
    /// It cannot be; or the command said that it never enters a container.
    pub fn ensure(self) -> Result<Protected> {
        match self {
            Protection::Refused => bail!("internal error: a command that enters no container is about to enter one"),
            Protection::Attempted(done) => done,
            Protection::Pending => protect(),
        }
    }
}

/// Switches to a protected view of the binary, or re-executes from one, unless it already runs from one.
fn protect() -> Result<Protected> {
    try_to_protect().context("protect the runtime's binary").map(|()| Protected(()))
}

fn try_to_protect() -> Result<()> {
    let own = "/proc/self/exe";
    if statvfs(own).context("statvfs /proc/self/exe")?.flags().contains(FsFlags::ST_RDONLY) {
        return Ok(());
    }
    if let Ok(mount) = sys::exe::read_only_clone() {
        if changes_over_to(&mount) {
            sys::exe::park_fd(mount);
            return Ok(());
        }
        return reexec(mount.as_fd());
    }
    let binary = File::open(own).context("open the runtime's binary")?;
    let seals = SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    if fcntl(&binary, FcntlArg::F_GET_SEALS).is_ok_and(|set| set & seals.bits() == seals.bits()) {
        return Ok(());
    }
    let copy =
        memfd_create(c"corten", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).context("create a memfd")?;
    std::io::copy(&mut &binary, &mut File::from(copy.try_clone()?)).context("copy the runtime's binary into memory")?;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals)).context("seal the copy of the runtime's binary")?;
    reexec(copy.as_fd())
}

/// Goes on from the root of a mount without an execve, where that is possible.
#[cfg(feature = "fast-start")]
fn changes_over_to(mount: &OwnedFd) -> bool {
    let through = format!("/proc/self/fd/{}", mount.as_raw_fd());
    File::open(through).is_ok_and(|file| sys::fast::remap::run_from(file.as_fd()).is_ok())
}

#[cfg(not(feature = "fast-start"))]
fn changes_over_to(_: &OwnedFd) -> bool {
    false
}

fn reexec(binary: BorrowedFd<'_>) -> Result<()> {
    let Err(errno) = sys::start::reexec(binary);
    Err(errno).with_context(|| format!("re-exec the runtime through descriptor {}", binary.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_enters_no_container_gets_no_leave_to() {
        let error = Protection::begin(Needed::Never).ensure().unwrap_err();
        assert_eq!(error.to_string(), "internal error: a command that enters no container is about to enter one");
    }
}
