//! A process of the runtime that does one thing in the namespaces of a container that exists, and ends.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};

use super::fork::{self, Side};
use crate::error::{Context, Error, Result, bail, ensure};
use crate::namespaces::user;
use crate::sys;

const USER: u64 = libc::CLONE_NEWUSER as u64;
const PID: u64 = libc::CLONE_NEWPID as u64;

/// The most descriptors that come back.
const MOST: usize = 64;

/// Does `work` in a process that joins namespaces of the container (`kinds`, as `CLONE_NEW*`, of its first process `init`),
/// and gives back the descriptors that it opened there. Before it joins, it `pack`s what it needs of the host.
///
/// Without the pid namespace among the kinds, nobody in a container that has one sees the process, so nobody there can stop
/// or kill it: what it has begun it brings to an end. It does so, too, when the runtime gets a signal, or dies.
///
/// # Errors
/// Those of `work`, as if it had been done here; that the process died, or could not join.
pub fn inside<T>(
    init: BorrowedFd<'_>,
    mut kinds: u64,
    pack: impl FnOnce() -> Result<T>,
    work: impl FnOnce(T) -> Result<Vec<OwnedFd>>,
) -> Result<Vec<OwnedFd>> {
    let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
    let (ours, theirs) = pair.context("make the socket to the process in the container")?;
    let born = kinds & PID != 0;
    kinds &= !PID;
    sys::process::block_signals().context("block signals")?;
    let side = fork::fork_beside(init, born, &mut kinds, false, None, |_| Ok(()));
    let side = match side {
        Ok(Side::Container) => {
            drop(ours);
            let done = pack().and_then(|packed| enter(init, kinds).and_then(|()| work(packed)));
            sys::pid::exit_now(i32::from(tell(theirs.as_fd(), done).is_err()))
        }
        side => side,
    };
    sys::process::unblock_signals().context("unblock signals")?;
    let Side::Host(_, pidfd) = side.phase("namespaces")? else { bail!("one process became two") };
    drop(theirs);
    let answer = hear(ours.as_fd());
    let fate = fork::fate(pidfd.as_fd());
    match answer {
        Ok(Some(fds)) => Ok(fds),
        Ok(None) => Err(Error::new(format!("the runtime's process in the container {fate}"))),
        Err(error) => Err(error),
    }
}

fn enter(init: BorrowedFd<'_>, kinds: u64) -> Result<()> {
    // Processes of the container must not look into this one, whose descriptors are still the host's (CVE-2016-9962).
    nix::sys::prctl::set_dumpable(false).context("become non-dumpable")?;
    if kinds != 0 {
        sys::clone::setns(init, kinds).context("join the container's namespaces").phase("namespaces")?;
    }
    if kinds & USER != 0 {
        user::become_root().phase("namespaces")?;
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    Ok(())
}

/// One packet: `+` and the descriptors, or `-` and an encoded error.
fn tell(socket: BorrowedFd<'_>, done: Result<Vec<OwnedFd>>) -> Result<()> {
    let done = done.and_then(|fds| {
        ensure!(fds.len() <= MOST, "{} mounts of this kind are too many at a time", fds.len());
        Ok(fds)
    });
    let (body, fds) = match &done {
        Ok(fds) => (b"+".to_vec(), &fds[..]),
        Err(error) => ([&b"-"[..], &error.encode()].concat(), &[][..]),
    };
    let numbers: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &rights[..0] } else { &rights[..] };
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&body)], control, MsgFlags::MSG_NOSIGNAL, None)
        .map(drop)
        .context("talk to the runtime")
}

/// `None`: it ended without a word.
fn hear(socket: BorrowedFd<'_>) -> Result<Option<Vec<OwnedFd>>> {
    let mut body = vec![0; 8192];
    let mut space = cmsg_space!([i32; MOST]);
    let (length, fds) = {
        let mut slices = [IoSliceMut::new(&mut body)];
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)
            .context("hear from the process in the container")?;
        let fds = message.cmsgs().context("hear from the process in the container")?.filter_map(|part| match part {
            ControlMessageOwned::ScmRights(fds) => Some(fds),
            _ => None,
        });
        (message.bytes, fds.flatten().map(sys::fd::received).collect())
    };
    match body[..length].split_first() {
        None => Ok(None),
        Some((b'+', _)) => Ok(Some(fds)),
        Some((_, error)) => Err(Error::decode(error)),
    }
}
