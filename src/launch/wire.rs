//! The conversation of the two halves while a container is made: one SEQPACKET socket, a few small messages.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};

use crate::error::{Context, Error, Result, bail};
use crate::sys::Errno;

/// The longest message; an error's sentence is cut to it.
const LIMIT: usize = 8 * 1024;

/// Messages up to this length are received without further ado.
const SHORT: usize = 16;

/// The first byte of [`Message::Done`].
const DONE: u8 = b'd';
/// The first byte of [`Message::Failed`].
const FAILED: u8 = b'f';

/// What one half tells the other.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// Host: go on.
    Go,
    /// Container: the mounts are there, the host's hooks may run.
    Hooks,
    /// Container: all that may need the host is done.
    Ready,
    /// Container: nothing but the gate and the program are left.
    Done,
    /// Container: it loads a seccomp filter whose listener comes in the next packet, or is to be taken under this number.
    Listening(Option<u32>),
    /// Container: a warning for the log. One that finds the socket full is lost: it must not wait for a host's half that
    /// listens later.
    Warning(String),
    /// Container: it failed; an encoded [`Error`].
    Failed(Vec<u8>),
}

/// One end of the socket. It closes on exec, so that the end of the stream with a living child is success.
#[derive(Debug)]
pub struct Wire(OwnedFd);

impl Wire {
    /// The host's and the container's end.
    pub fn pair() -> Result<(Wire, Wire)> {
        let (host, child) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .context("make the socket to the container's half")?;
        Ok((Wire(host), Wire(child)))
    }

    /// The descriptor, which must stay open in the container's half.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The host's half lets the other one go on. That it is dead is no error here: [`Wire::receive`] tells, after what it
    /// may have said before its end.
    pub fn let_go(&self) -> Result<()> {
        match self.send(&Message::Go) {
            Err(error) if matches!(error.errno(), Some(Errno::EPIPE | Errno::ECONNRESET)) => Ok(()),
            done => done,
        }
    }

    /// What the host's half can still hear of one that has ended: whether it died without saying why. False while it
    /// lives, and when it had done its part, after which the end may be that of its execve.
    pub fn ended_silently(&self) -> bool {
        let mut packet = [0; 1];
        loop {
            match recv(self.0.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return true,
                Ok(_) if matches!(packet[0], DONE | FAILED) => return false,
                Ok(_) | Err(Errno::EINTR | Errno::ECONNRESET) => {}
                Err(_) => return false,
            }
        }
    }

    /// Sends one message. A dead other half is EPIPE, never a signal.
    pub fn send(&self, message: &Message) -> Result<()> {
        let bytes;
        let (tag, body): (u8, &[u8]) = match message {
            Message::Go => (b'g', &[]),
            Message::Hooks => (b'h', &[]),
            Message::Ready => (b'r', &[]),
            Message::Done => (DONE, &[]),
            Message::Listening(number) => {
                bytes = number.map(u32::to_le_bytes);
                (b'l', bytes.as_slice().as_flattened())
            }
            Message::Warning(text) => (b'w', text.as_bytes()),
            Message::Failed(error) => (FAILED, error),
        };
        let mut packet = Vec::with_capacity(1 + body.len().min(LIMIT));
        packet.push(tag);
        packet.extend_from_slice(&body[..body.len().min(LIMIT - 1)]);
        let droppable = matches!(message, Message::Warning(_));
        let flags = if droppable { MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT } else { MsgFlags::MSG_NOSIGNAL };
        loop {
            match send(self.0.as_raw_fd(), &packet, flags) {
                Ok(_) => return Ok(()),
                Err(Errno::EAGAIN) if droppable => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).context("talk to the other half"),
            }
        }
    }

    /// Waits for a message; `None` at the end of the stream.
    pub fn receive(&self) -> Result<Option<Message>> {
        // Most are one byte. Room for the longest costs three pages, which are copied or cleared.
        let mut short = [0; SHORT];
        let length = self.take(&mut short, MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC)?;
        let mut long = vec![0; if length > SHORT { length } else { 0 }];
        let packet = if length > SHORT { &mut long[..] } else { &mut short[..length] };
        if length > 0 {
            self.take(packet, MsgFlags::empty())?;
        }
        let Some((&tag, body)) = packet.split_first() else { return Ok(None) };
        Ok(Some(match tag {
            b'g' => Message::Go,
            b'h' => Message::Hooks,
            b'r' => Message::Ready,
            DONE => Message::Done,
            b'l' => Message::Listening(body.first_chunk().copied().map(u32::from_le_bytes)),
            b'w' => Message::Warning(String::from_utf8_lossy(body).into_owned()),
            FAILED => Message::Failed(body.to_vec()),
            other => bail!("the other half sent the unknown message {other}"),
        }))
    }

    fn take(&self, packet: &mut [u8], flags: MsgFlags) -> Result<usize> {
        loop {
            match recv(self.0.as_raw_fd(), packet, flags) {
                Ok(length) => return Ok(length),
                // The other half has ended with a message of ours unread. That is told once, before what it may have said.
                Err(Errno::EINTR | Errno::ECONNRESET) => {}
                Err(errno) => return Err(errno).context("listen to the other half"),
            }
        }
    }

    /// Waits until the other half has ended or executed; its words can be heard after that.
    pub fn wait_for_end(&self) -> Result<()> {
        loop {
            // With no event asked for, a message does not wake the poll: unix(7) wakes readers by POLLIN alone.
            match ppoll(&mut [PollFd::new(self.as_fd(), PollFlags::empty())], None, None) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).context("listen to the other half"),
            }
        }
    }

    /// Whether the other half says something, or ends, within this time.
    pub fn has_word_within(&self, time: Duration) -> Result<bool> {
        match ppoll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], Some(time.into()), None) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno).context("listen to the other half"),
        }
    }

    /// The container's half makes sure that the host's half is still there.
    pub fn ensure_heard(&self) -> Result<()> {
        match recv(self.0.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
            Ok(0) => Err(gone()),
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(errno).context("listen to the other half"),
        }
    }

    /// The container's half waits to be told to go on; the end of the stream means that the host's half is dead.
    pub fn wait_go(&self) -> Result<()> {
        match self.receive()? {
            Some(Message::Go) => Ok(()),
            Some(other) => bail!("the host's half sent {other:?} out of turn"),
            None => Err(gone()),
        }
    }
}

fn gone() -> Error {
    Error::new("the host's half is gone")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_as_they_were_sent_and_the_end_is_none() {
        let (host, child) = Wire::pair().unwrap();
        for message in [
            Message::Hooks,
            Message::Listening(Some(7)),
            Message::Listening(None),
            Message::Warning("x y".into()),
            Message::Failed(vec![0, 1, 2]),
            Message::Done,
        ] {
            child.send(&message).unwrap();
            assert_eq!(host.receive().unwrap(), Some(message));
        }
        drop(child);
        assert_eq!(host.receive().unwrap(), None);
    }

    #[test]
    fn what_the_child_said_before_its_end_is_heard_whatever_it_left_unread() {
        for word in [Message::Ready, Message::Failed(vec![1])] {
            let (host, child) = Wire::pair().unwrap();
            host.let_go().unwrap();
            child.send(&word).unwrap();
            drop(child);
            host.let_go().unwrap();
            assert_eq!(host.receive().unwrap(), Some(word));
            assert_eq!(host.receive().unwrap(), None);
        }
        for (word, silently) in [(Message::Ready, true), (Message::Done, false), (Message::Failed(vec![1]), false)] {
            let (host, child) = Wire::pair().unwrap();
            assert!(!host.ended_silently());
            host.let_go().unwrap();
            child.send(&word).unwrap();
            drop(child);
            assert_eq!(host.ended_silently(), silently);
        }
    }

    #[test]
    fn the_end_is_waited_for_with_words_unheard_and_warnings_never_wait() {
        let (host, child) = Wire::pair().unwrap();
        for _ in 0..1000 {
            child.send(&Message::Warning("x".repeat(LIMIT))).unwrap();
        }
        drop(child);
        host.wait_for_end().unwrap();
        assert!(matches!(host.receive().unwrap(), Some(Message::Warning(text)) if text.len() == LIMIT - 1));
    }

    #[test]
    fn a_huge_error_is_cut_and_still_arrives() {
        let (host, child) = Wire::pair().unwrap();
        child.send(&Message::Failed(vec![b'x'; 1 << 20])).unwrap();
        assert!(matches!(host.receive().unwrap(), Some(Message::Failed(body)) if body.len() == LIMIT - 1));
    }

    #[test]
    fn the_child_learns_that_the_host_is_gone() {
        let (host, child) = Wire::pair().unwrap();
        child.ensure_heard().unwrap();
        drop(host);
        assert!(child.ensure_heard().unwrap_err().to_string().contains("is gone"));
        assert!(child.wait_go().unwrap_err().to_string().contains("is gone"));
    }
}
