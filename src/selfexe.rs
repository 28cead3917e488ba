//! The binary that runs is one that no container can write.
//!
//! While a process of ours is in a container's namespaces, `/proc/PID/exe` shows it to the container's root, who could
//! open it for writing and replace the runtime of the host (CVE-2019-5736). So the commands that enter a container run
//! from a read-only, detached mount of the binary, which is on no path and cannot be remounted; where that is not
//! allowed, from a sealed copy in memory. The kernel lets a privileged program change over to the mount as it runs;
//! any other executes itself anew from there.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::statvfs::{FsFlags, statvfs};

use crate::error::{Context, Result};
use crate::sys;

/// Goes on from a protected view of the binary, or runs the program anew from there, unless it already does.
pub fn protect() -> Result<()> {
    try_to_protect().context("protect the runtime's binary")
}

fn try_to_protect() -> Result<()> {
    let own = "/proc/self/exe";
    if statvfs(own).context("statvfs /proc/self/exe")?.flags().contains(FsFlags::ST_RDONLY) {
        return Ok(());
    }
    if let Ok(mount) = sys::exe::read_only_clone() {
        if changes_over_to(&mount) {
            sys::exe::hold(mount);
            return Ok(());
        }
        return run_anew(mount.as_fd());
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
    run_anew(copy.as_fd())
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

fn run_anew(binary: BorrowedFd<'_>) -> Result<()> {
    let Err(errno) = sys::start::run_anew(binary);
    Err(errno).with_context(|| format!("re-exec the runtime through descriptor {}", binary.as_raw_fd()))
}
