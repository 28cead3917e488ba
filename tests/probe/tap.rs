//! Taking part in the conversation of a runtime with the process that it makes.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, SockType, getsockopt, send, sockopt};
use nix::unistd::Pid;

use super::chase::{Catch, Programs, Then, chase};

/// Looks at a process before it is given up: the moment before its execve is short.
const LOOKS: u32 = 2000;

/// Descriptors that are tried.
const NUMBERS: std::ops::Range<i32> = 3..20;

/// A warning of more than one line, with a sequence for a terminal.
const WORD: &[u8] = b"w\x1b[31mforged\nlevel=error msg=\"forged\"\n";

/// `tap end|say SECONDS`: takes a copy of the socket by which each process that appears talks with its runtime
/// (pidfd_getfd(2)), says `tapped PID`, and keeps the copy. Then it ends the process, or says a warning in its place.
pub fn tap(way: &str, seconds: u64) {
    let programs = Programs::new();
    let mut kept = Vec::new();
    chase(Catch::Look, seconds, |pid| {
        // SAFETY: integers go in, and what comes back is a new descriptor of ours.
        let process = opened(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) });
        let Some(process) = process else { return Then::Enough };
        for _ in 0..LOOKS {
            if !programs.run_by(pid).is_before() {
                break;
            }
            // SAFETY: integers go in, and what comes back is a new descriptor of ours.
            let copy =
                |number: i32| opened(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) });
            let is_wire = |fd: &OwnedFd| getsockopt(fd, sockopt::SockType) == Ok(SockType::SeqPacket);
            let Some(wire) = NUMBERS.filter_map(copy).find(is_wire) else { continue };
            match way {
                "end" => drop(kill(Pid::from_raw(pid), Signal::SIGKILL)),
                "say" => drop(send(wire.as_raw_fd(), WORD, MsgFlags::MSG_DONTWAIT)),
                other => panic!("probe: a conversation is not tapped to {other}"),
            }
            if way == "end" {
                kept.push(wire);
            }
            println!("tapped {pid}");
            break;
        }
        Then::Enough
    });
    println!("done: {} kept", kept.len());
}

fn opened(fd: libc::c_long) -> Option<OwnedFd> {
    // SAFETY: it is new, and nobody else's.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
