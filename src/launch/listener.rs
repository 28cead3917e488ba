//! How the notify descriptor ("listener") of a seccomp filter gets from the process that loads the filter to the host, which
//! has the agent's socket.
//!
//! Once the filter is loaded, every call of that process may wait for an agent that does not have the descriptor yet. So
//! there are two ways. If the filter, evaluated beforehand, allows sendmsg(2), the process sends the descriptor. Otherwise it
//! makes no call: the host fetches the descriptor with pidfd_getfd(2), by a number that the process has sent before. After
//! that the agent can answer. If the agent exits before the process has closed its own copy, the process can hang in that
//! close alone, and only if the filter notifies every call that could close it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::socket::MsgFlags;

use super::sync::{Message, SyncSocket};
use crate::error::{Context, Error, Result};
use crate::seccomp::Program;
use crate::sys::{self, Errno, seccomp, socket};

/// The container's half: loads the filter, and returns when the host has the descriptor or can receive it.
pub fn load(filter: &Program, sync: &SyncSocket) -> Result<()> {
    let sync_end = sync.as_fd();
    if filter.allows(libc::SYS_sendmsg, [sync_end.as_raw_fd() as u64, 0, socket::SEND.bits() as u64, 0, 0, 0]) {
        sync.send(&Message::Listening(None))?;
        let listener = filter.load_with_notify_fd()?;
        send(sync_end, listener.as_fd())?;
        return close_listener(listener, filter, sync_end);
    }
    sync.send(&Message::Listening(Some(next_number(sync_end)?)))?;
    let listener = filter.load_with_notify_fd()?;
    // The copy is closed: while it is open, the kernel does not notice that the agent has gone.
    sync.wait_for_go()?;
    close_listener(listener, filter, sync_end)
}

/// Closes the copy with a call that is not notified, if there is one: an agent that has exited answers none, and the kernel
/// notices its exit only when this copy is closed.
fn close_listener(mut listener: OwnedFd, filter: &Program, any: BorrowedFd<'_>) -> Result<()> {
    let number = listener.as_raw_fd() as u64;
    let flags = OFlag::O_CLOEXEC;
    let allows_dup3 = || filter.allows(libc::SYS_dup3, [any.as_raw_fd() as u64, number, flags.bits() as u64, 0, 0, 0]);
    if !filter.allows(libc::SYS_close, [number, 0, 0, 0, 0, 0]) && allows_dup3() {
        nix::unistd::dup3(any, &mut listener, flags).context("close the seccomp notify descriptor")?;
    }
    Ok(())
}

/// How long the listener may take to come.
const LIMIT: Duration = Duration::from_secs(10);

/// The number of the next descriptor that this process, which has one thread, will open: the lowest that is free.
fn next_number(any: BorrowedFd<'_>) -> Result<u32> {
    let probe = nix::unistd::dup(any).context("find a free descriptor number")?;
    Ok(probe.as_raw_fd() as u32)
}

fn send(sync_end: BorrowedFd<'_>, listener: BorrowedFd<'_>) -> Result<()> {
    socket::send(sync_end, b"-", &[listener], MsgFlags::empty(), None)
        .context("send the seccomp notify descriptor")
        .map(drop)
}

/// The host's half: the descriptor that the other half has announced, or `None` if another message or its end comes first.
pub fn fetch(sync: &SyncSocket, number: Option<u32>, pidfd: BorrowedFd<'_>) -> Result<Option<OwnedFd>> {
    let Some(number) = number else { return receive(sync) };
    // The other half can make no call that tells of the load, which is its next step. So the host polls.
    const PAUSE: Duration = Duration::from_micros(100);
    let began = Instant::now();
    while !sync.has_message_within(PAUSE)? {
        if began.elapsed() > LIMIT {
            return Err(missing());
        }
        match sys::pid::descriptor_of(pidfd, number) {
            Ok(fd) if seccomp::is_listener(fd.as_fd()) => return Ok(Some(fd)),
            Ok(_) | Err(Errno::EBADF | Errno::ESRCH) => {}
            Err(errno) => {
                return Err(Error::from(errno)
                    .context("fetch the seccomp notify descriptor with pidfd_getfd, as the filter blocks sendmsg")
                    .field("/linux/seccomp/syscalls")
                    .hint("allow sendmsg: a runtime that may not trace the container (rootless) needs it"));
            }
        }
    }
    Ok(None)
}

fn missing() -> Error {
    Error::new("the seccomp notify descriptor did not arrive").field("/linux/seccomp")
}

/// Peeks at the next packet: without a descriptor it is an ordinary message.
fn receive(sync: &SyncSocket) -> Result<Option<OwnedFd>> {
    let receive = |flags| -> Result<Option<OwnedFd>> {
        let (_, fds) = loop {
            match socket::receive(sync.as_fd(), &mut [0], flags) {
                Err(Errno::ECONNRESET) => {}
                done => break done.context("receive the seccomp notify descriptor")?,
            }
        };
        Ok(fds.into_iter().next())
    };
    // It comes right after the load. A process that only announces it must not block the host.
    if !sync.has_message_within(LIMIT)? {
        return Err(missing());
    }
    match receive(MsgFlags::MSG_PEEK)? {
        Some(_) => receive(MsgFlags::empty()),
        None => Ok(None),
    }
}
