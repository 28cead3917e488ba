//! The reply of a short-lived helper process: one packet with descriptors, or with an error.

use std::os::fd::{BorrowedFd, OwnedFd};

use nix::sys::socket::MsgFlags;

use crate::error::{Error, Result};
use crate::sys::{Errno, socket};

/// The most descriptors of an answer.
pub const MAX_FDS: usize = 64;

/// Room for an encoded error.
const LIMIT: usize = 8192;

/// A socket pair: the runtime's end and the helper's.
pub fn pair() -> std::result::Result<(OwnedFd, OwnedFd), Errno> {
    socket::pair()
}

/// Sends the reply: `+` and the descriptors, [`MAX_FDS`] at most, or `-` and the error.
pub fn send(socket: BorrowedFd<'_>, done: &Result<Vec<OwnedFd>>) -> std::result::Result<(), Errno> {
    let (body, fds) = match done {
        Ok(fds) => (b"+".to_vec(), &fds[..]),
        Err(error) => ([&b"-"[..], &error.encode()].concat(), &[][..]),
    };
    socket::send(socket, &body, fds, MsgFlags::empty(), None).map(drop)
}

/// Receives the reply. `None`: the helper ended without one.
pub fn receive(socket: BorrowedFd<'_>) -> std::result::Result<Option<Result<Vec<OwnedFd>>>, Errno> {
    let mut body = [0; LIMIT];
    let (length, fds) = socket::receive(socket, &mut body, MsgFlags::empty())?;
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
        send(theirs.as_fd(), &Ok(two)).unwrap();
        assert_eq!(receive(ours.as_fd()).unwrap().unwrap().unwrap().len(), 2);
        send(theirs.as_fd(), &Err(Error::new("no").field("/f"))).unwrap();
        assert_eq!(receive(ours.as_fd()).unwrap().unwrap().unwrap_err().to_string(), "/f: no");
        drop(theirs);
        assert!(receive(ours.as_fd()).unwrap().is_none());
    }
}
