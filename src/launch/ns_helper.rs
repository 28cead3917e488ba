//! A helper process: it joins namespaces of a running container, does one thing there, and exits.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::child;
use super::fd_reply::{self, MAX_FDS};
use super::fork::{self, Side};
use crate::error::{Context, Error, Result, bail, ensure};
use crate::namespaces::user::Ids;
use crate::sys::{self, ns};

/// Does `work` in a process that joins namespaces of the container (`kinds`, of its first process `init`),
/// and gives back the descriptors that it opened there. Before it joins, it `pack`s what it needs of the host.
///
/// The pid namespace is never among the kinds: so no process of a container with its own pid namespace sees the helper, and
/// none can trace, stop or kill it. The helper finishes what it has begun even if the runtime gets a signal or dies.
///
/// # Errors
/// Those of `work`, as if it had been done here; that the process died, or could not join.
pub fn run<T>(
    init: BorrowedFd<'_>,
    kinds: ns::Flags,
    instead: Ids,
    pack: impl FnOnce() -> Result<T>,
    work: impl FnOnce(T) -> Result<Vec<OwnedFd>>,
) -> Result<Vec<OwnedFd>> {
    let (ours, theirs) = fd_reply::pair().context("create the socket to the helper process")?;
    debug_assert!(!kinds.contains(ns::Flags::PID));
    sys::process::block_signals().context("block signals")?;
    let side = fork::plain(ns::Flags::empty(), None);
    let side = match side {
        Ok(Side::Container) => {
            drop(ours);
            let done = pack().and_then(|packed| enter(init, kinds, instead).and_then(|()| work(packed)));
            let done = done.and_then(|fds| {
                ensure!(
                    fds.len() <= MAX_FDS,
                    "{} mounts of this kind are too many for one call, {MAX_FDS} is the limit",
                    fds.len()
                );
                Ok(fds)
            });
            sys::pid::exit_now(i32::from(fd_reply::send(theirs.as_fd(), &done).is_err()))
        }
        side => side,
    };
    sys::process::unblock_signals().context("unblock signals")?;
    let Side::Host(_, pidfd) = side.phase("namespaces")? else { bail!("internal error: the helper process returned") };
    drop(theirs);
    // Its work is done and cannot be undone. recvmsg(2) that fails, with ENOMEM for example, leaves the reply in the socket.
    let fd_reply = fd_reply::receive(ours.as_fd()).or_else(|_| fd_reply::receive(ours.as_fd()));
    let fate = fork::exit_of(pidfd.as_fd());
    let silent = || Err(Error::new(format!("the helper process in the container {fate}")));
    fd_reply.context("receive the reply of the helper process")?.unwrap_or_else(silent)
}

fn enter(init: BorrowedFd<'_>, kinds: ns::Flags, instead: Ids) -> Result<()> {
    // A container that shares the host's pid namespace sees this process, which still holds descriptors of the host
    // (CVE-2016-9962). A process of root is non-dumpable from the start.
    child::become_non_dumpable()?;
    child::join_container(init, kinds, instead)?;
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    Ok(())
}
