//! What a process of the runtime that does one thing and ends has to say: one packet with descriptors, or with the reason
//! why there are none.

use std::os::fd::{BorrowedFd, OwnedFd};

use nix::sys::socket::MsgFlags;

use crate::error::{Error, Result};
use crate::sys::{Errno, socket};

/// The most descriptors of an answer.
pub const MOST: usize = 64;

/// Room for an encoded error.
const LIMIT: usize = 8192;

/// The end of the runtime, and that of the other process.
pub fn pair() -> std::result::Result<(OwnedFd, OwnedFd), Errno> {
    socket::pair()
}

/// Says it: `+` and the descriptors, [`MOST`] at most, or `-` and the error.
pub fn give(socket: BorrowedFd<'_>, done: &Result<Vec<OwnedFd>>) -> std::result::Result<(), Errno> {
    let (body, fds) = match done {
        Ok(fds) => (b"+".to_vec(), &fds[..]),
        Err(error) => ([&b"-"[..], &error.encode()].concat(), &[][..]),
    };
    socket::send(socket, &body, fds, MsgFlags::empty(), None).map(drop)
}

/// Hears it. `None`: the other process ended without a word.
pub fn take(socket: BorrowedFd<'_>) -> std::result::Result<Option<Result<Vec<OwnedFd>>>, Errno> {
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
        give(theirs.as_fd(), &Ok(two)).unwrap();
        assert_eq!(take(ours.as_fd()).unwrap().unwrap().unwrap().len(), 2);
        give(theirs.as_fd(), &Err(Error::new("no").field("/f"))).unwrap();
        assert_eq!(take(ours.as_fd()).unwrap().unwrap().unwrap_err().to_string(), "/f: no");
        drop(theirs);
        assert!(take(ours.as_fd()).unwrap().is_none());
    }
}
