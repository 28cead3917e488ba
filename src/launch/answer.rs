//! What a process of the runtime that does one thing and ends has to say: one packet with descriptors, or with the reason
//! why there are none.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};

use crate::error::{Error, Result};
use crate::sys::{self, Errno};

/// The most descriptors of an answer.
pub const MOST: usize = 64;

/// Room for an encoded error.
const LIMIT: usize = 8192;

/// The end of the runtime, and that of the other process.
pub fn pair() -> std::result::Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

/// Says it: `+` and the descriptors, [`MOST`] at most, or `-` and the error.
pub fn give(socket: BorrowedFd<'_>, done: &Result<Vec<OwnedFd>>) -> std::result::Result<(), Errno> {
    let (body, fds) = match done {
        Ok(fds) => (b"+".to_vec(), &fds[..]),
        Err(error) => ([&b"-"[..], &error.encode()].concat(), &[][..]),
    };
    let numbers: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &rights[..0] } else { &rights[..] };
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&body)], control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            done => return done.map(drop),
        }
    }
}

/// Hears it. `None`: the other process ended without a word.
pub fn take(socket: BorrowedFd<'_>) -> std::result::Result<Option<Result<Vec<OwnedFd>>>, Errno> {
    let mut body = [0; LIMIT];
    let mut space = cmsg_space!([i32; MOST]);
    let (length, fds) = {
        let mut slices = [IoSliceMut::new(&mut body)];
        let message = loop {
            match recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
                Err(Errno::EINTR) => {}
                done => break done?,
            }
        };
        let fds = message.cmsgs()?.filter_map(|part| match part {
            ControlMessageOwned::ScmRights(fds) => Some(fds),
            _ => None,
        });
        (message.bytes, fds.flatten().map(sys::fd::received).collect())
    };
    Ok(body[..length].split_first().map(|(tag, error)| if *tag == b'+' { Ok(fds) } else { Err(Error::decode(error)) }))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn descriptors_an_error_or_silence_arrive() {
        let (ours, theirs) = pair().unwrap();
        let two = vec![ours.try_clone().unwrap(), theirs.try_clone().unwrap()];
        give(theirs.as_fd(), &Ok(two)).unwrap();
        assert_eq!(take(ours.as_fd()).unwrap().unwrap().unwrap().len(), 2);
        give(theirs.as_fd(), &Err(Error::new("no").field("/f"))).unwrap();
        assert_eq!(take(ours.as_fd()).unwrap().unwrap().unwrap_err().to_string(), "/f: no");
        drop(theirs);
        assert!(take(ours.as_fd()).unwrap().is_none());
    }
}
