//! How the listener of a seccomp filter gets from the process that loads the filter to the host, who has the agent's
//! socket.
//!
//! From the load on, each call of that process may wait for the agent, and the agent knows nothing yet. So either the one
//! call by which a descriptor is sent passes the filter, which is asked of the filter beforehand, or the process makes no
//! call at all: the host takes the descriptor away, under a number told before. Which other calls are notified is then
//! of no account, the agent being there to answer. An agent that leaves before this process has let go of its own copy of
//! the listener leaves it waiting only in that call, and only if every call that can let go of it is notified.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::socket::MsgFlags;

use super::wire::{Message, Wire};
use crate::error::{Context, Error, Result};
use crate::seccomp::Program;
use crate::sys::{self, Errno, seccomp, socket};

/// The container's half: loads the filter, and returns when the host has its listener or soon will.
pub fn load(filter: &Program, wire: &Wire) -> Result<()> {
    let wire_end = wire.as_fd();
    if filter.passes(libc::SYS_sendmsg, [wire_end.as_raw_fd() as u64, 0, socket::SEND.bits() as u64, 0, 0, 0]) {
        wire.send(&Message::Listening(None))?;
        let listener = filter.load_with_listener()?;
        send(wire_end, listener.as_fd())?;
        return let_go(listener, filter, wire_end);
    }
    wire.send(&Message::Listening(Some(next_number(wire_end)?)))?;
    let listener = filter.load_with_listener()?;
    // Without this the agent's end would not be known as long as our own copy of the listener is open.
    wire.wait_go()?;
    let_go(listener, filter, wire_end)
}

/// Closes a listener by a call that nobody is asked about, if there is one: an agent that has left answers none, and the
/// kernel knows that it has left only when this copy is gone.
fn let_go(mut listener: OwnedFd, filter: &Program, any: BorrowedFd<'_>) -> Result<()> {
    let number = listener.as_raw_fd() as u64;
    let flags = OFlag::O_CLOEXEC;
    let passes_dup3 = || filter.passes(libc::SYS_dup3, [any.as_raw_fd() as u64, number, flags.bits() as u64, 0, 0, 0]);
    if !filter.passes(libc::SYS_close, [number, 0, 0, 0, 0, 0]) && passes_dup3() {
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

fn send(wire_end: BorrowedFd<'_>, listener: BorrowedFd<'_>) -> Result<()> {
    socket::send(wire_end, b"-", &[listener], MsgFlags::empty(), None)
        .context("send the seccomp notify descriptor")
        .map(drop)
}

/// The host's half: the listener that the other half has announced, or `None` when that speaks of something else or ends
/// before.
pub fn take(wire: &Wire, number: Option<u32>, pidfd: BorrowedFd<'_>) -> Result<Option<OwnedFd>> {
    let Some(number) = number else { return receive(wire) };
    // No call of the other half may tell that the filter is loaded, so it is looked at. The load comes next there.
    const PAUSE: Duration = Duration::from_micros(100);
    let began = Instant::now();
    while !wire.has_word_within(PAUSE)? {
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

/// Looks at the next packet first: without a descriptor it is a message like any other.
fn receive(wire: &Wire) -> Result<Option<OwnedFd>> {
    let receive = |flags| -> Result<Option<OwnedFd>> {
        let (_, fds) = loop {
            match socket::receive(wire.as_fd(), &mut [0], flags) {
                Err(Errno::ECONNRESET) => {}
                done => break done.context("receive the seccomp notify descriptor")?,
            }
        };
        Ok(fds.into_iter().next())
    };
    // It comes when the filter is loaded. Whoever has only announced it is not waited for.
    if !wire.has_word_within(LIMIT)? {
        return Err(missing());
    }
    match receive(MsgFlags::MSG_PEEK)? {
        Some(_) => receive(MsgFlags::empty()),
        None => Ok(None),
    }
}
