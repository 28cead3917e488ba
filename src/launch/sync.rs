//! The handshake of the two halves of a start, on the sync socket: one SEQPACKET pair, a few small messages.
//!
//! Most messages of the container's half wait for `Go` of the host. Steps in brackets are left out if they are not needed.
//! Warnings may come at any time; a failure ends the handshake at any time.
//!
//! A container in a new pid namespace, or in the runtime's own; the child is its first process:
//!
//! ```text
//! runtime                                          init
//!   clone3 ----------------------------------------> joins namespaces
//!   [id maps written]             -- Go ->           [root of the new user namespace]
//!   [network devices moved]       -- Go ->
//!   record written                                   mounts
//!   [init is in its unit]         -- Go ->           [cgroup namespace]
//!   limits, device rules
//!   Go is sent early, if no step is left below       mounts
//!   [hooks of the host]          <- Hooks --  Go ->  [createContainer hooks]
//!                                                    new root, masks
//!   rlimits, terminal, pid file  <- Ready --  Go ->
//!                               [<- Listening]       descriptors shed, filter, user
//!                                <- Done --          [exec fifo]
//!                                <- end of the sync socket  execve
//! ```
//!
//! A container in a pid namespace that is joined; the child is an intermediate process, which stays outside of that:
//!
//! ```text
//! runtime                                          intermediate process                  init
//!   clone3 ----------------------------------------> joins and makes namespaces
//!                                <- Entered --
//!   as above, up to
//!   rlimits                       <- Ready --  Go -> descriptors shed, filter, user
//!                               [<- Listening]       clone ------------------------------> session, terminal
//!   its end, the pid of init                         exit
//!   record written again, agent of the filter, terminal, pid file               -- Go ->
//!                                                           [<- Listening, of a filter that is loaded late]
//!                                                              <- Done                     [exec fifo]
//!                                                              <- end of the sync socket          execve
//! ```
//!
//! Another process in a container (exec) comes by an intermediate process as well, unless the container is in the
//! runtime's own pid namespace:
//!
//! ```text
//! runtime                                          intermediate process                  process
//!   clone3 ----------------------------------------> joins the container
//!   [moved into its unit]
//!   [rlimits]                    [<- Ready --] Go -> descriptors shed, filter, user
//!                               [<- Listening]       clone ------------------------------> session, terminal
//!   its end, the pid of the process                  exit
//!   [agent of the filter, terminal]                                           [-- Go ->]
//!                                                           [<- Listening, of a filter that is loaded late]
//!                                                              <- end of the sync socket          execve
//! ```
//!
//! A process that may trace one of the container can send messages in its name. So the host's half accepts each message only
//! where it is expected, limits the number of warnings, and uses their content only as text of warnings and errors.

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{MsgFlags, recv, send};

use crate::error::{Context, Error, Result, bail};
use crate::sys::Errno;

/// The longest message; an error's sentence is cut to it.
const LIMIT: usize = 8 * 1024;

/// Messages up to this length fit in a buffer on the stack.
const SHORT: usize = 16;

/// Flags to get the length of a message before it is received.
const LOOK: MsgFlags = MsgFlags::MSG_PEEK.union(MsgFlags::MSG_TRUNC);

/// The flags of recvfrom(2) in [`SyncSocket::receive`], and of sendto(2) in [`SyncSocket::send`], for a filter.
pub const RECEIVES: [u64; 2] = [LOOK.bits() as u64, 0];
/// See [`RECEIVES`].
pub const SENDS: u64 = libc::MSG_NOSIGNAL as u64;

/// The first byte of [`Message::Done`].
const DONE: u8 = b'd';
/// The first byte of [`Message::Failed`].
const FAILED: u8 = b'f';

/// A message of the handshake.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// Host: go on.
    Go,
    /// Intermediate process: it has joined and made its namespaces.
    Entered,
    /// Container: the mounts are there, the host's hooks may run.
    Hooks,
    /// Container: all that may need the host is done.
    Ready,
    /// Container: only the exec fifo and execve are left.
    Done,
    /// Container: it loads a seccomp filter. The notify descriptor comes in the next packet, or is to be fetched by this number.
    Listening(Option<u32>),
    /// Container: a warning for the log. It is dropped if the socket is full: the sender must not wait for a host that receives
    /// later.
    Warning(String),
    /// Container: a step has ended, for `--debug`. Dropped like a warning.
    Step(String),
    /// Container: a line for the trace, whose file it has closed. Dropped like a warning.
    Mark(String),
    /// Container: it failed; an encoded [`Error`].
    Failed(Vec<u8>),
}

/// What the host's half waits for.
#[derive(Debug, PartialEq, Eq)]
pub enum SyncEvent {
    /// There is something to receive.
    Message,
    /// The process has ended, and nothing is left to receive but the end.
    Ended,
    /// A call of the process waits for the agent of its filter.
    Notified,
}

/// What the other half has sent last.
#[derive(Debug, PartialEq, Eq)]
pub enum LastMessage {
    /// The sync socket is still open.
    StillOpen,
    /// [`Message::Done`]. The end of the stream after that may be execve.
    Done,
    /// It has failed: an encoded [`Error`].
    Failed(Vec<u8>),
    /// The stream ended without an error.
    End,
}

/// One end of the socket. It closes on exec, so that the end of the stream with a living child is success.
#[derive(Debug)]
pub struct SyncSocket(OwnedFd, Cell<bool>);

impl SyncSocket {
    /// The host's and the container's end.
    pub fn pair() -> Result<(SyncSocket, SyncSocket)> {
        let (host, child) = crate::sys::socket::pair().context("create the sync socket")?;
        Ok((SyncSocket(host, Cell::new(false)), SyncSocket(child, Cell::new(false))))
    }

    /// The descriptor, which must stay open in the container's half.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Sends messages by write(2) from here on, since a filter forbids sendto(2). A dead other half is then SIGPIPE.
    pub fn switch_to_write(&self) {
        self.1.set(true);
    }

    /// The host lets the other half continue. It is no error here if that has died: [`SyncSocket::receive`] reports it, after the
    /// messages that are left.
    pub fn send_go(&self) -> Result<()> {
        match self.send(&Message::Go) {
            Err(error) if matches!(error.errno(), Some(Errno::EPIPE | Errno::ECONNRESET)) => Ok(()),
            done => done,
        }
    }

    /// What the other half has sent last, after a failure of the host. Never waits.
    pub fn last_message(&self) -> LastMessage {
        loop {
            if !self.has_message_within(Duration::ZERO).unwrap_or(false) {
                return LastMessage::StillOpen;
            }
            match self.receive() {
                Ok(None) => return LastMessage::End,
                Ok(Some(Message::Done)) => return LastMessage::Done,
                Ok(Some(Message::Failed(error))) => return LastMessage::Failed(error),
                Ok(Some(_)) => {}
                Err(_) => return LastMessage::StillOpen,
            }
        }
    }

    /// Sends one message. A dead other half is EPIPE, never a signal.
    pub fn send(&self, message: &Message) -> Result<()> {
        let bytes;
        let (tag, body): (u8, &[u8]) = match message {
            Message::Go => (b'g', &[]),
            Message::Entered => (b'e', &[]),
            Message::Hooks => (b'h', &[]),
            Message::Ready => (b'r', &[]),
            Message::Done => (DONE, &[]),
            Message::Listening(number) => {
                bytes = number.map(u32::to_le_bytes);
                (b'l', bytes.as_slice().as_flattened())
            }
            Message::Warning(text) => (b'w', text.as_bytes()),
            Message::Step(line) => (b's', line.as_bytes()),
            Message::Mark(line) => (b't', line.as_bytes()),
            Message::Failed(error) => (FAILED, error),
        };
        let mut packet = Vec::with_capacity(1 + body.len().min(LIMIT));
        packet.push(tag);
        packet.extend_from_slice(&body[..body.len().min(LIMIT - 1)]);
        let droppable = matches!(message, Message::Warning(_) | Message::Step(_) | Message::Mark(_));
        let flags = if droppable { MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT } else { MsgFlags::MSG_NOSIGNAL };
        loop {
            let sent = match self.1.get() {
                true => nix::unistd::write(&self.0, &packet),
                false => send(self.0.as_raw_fd(), &packet, flags),
            };
            match sent {
                Ok(_) => return Ok(()),
                Err(Errno::EAGAIN) if droppable => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).context("write to the sync socket"),
            }
        }
    }

    /// A sender for a panic hook, which outlives every borrow: the descriptor has to stay open.
    pub fn panic_sender(&self) -> impl Fn(&Error) + Send + Sync + use<> {
        let fd = self.0.as_raw_fd();
        move |error| {
            let mut packet = vec![FAILED];
            packet.extend(error.encode());
            packet.truncate(LIMIT);
            // If nobody receives it, the exit status remains.
            let _ = send(fd, &packet, MsgFlags::MSG_NOSIGNAL);
        }
    }

    /// Waits for a message; `None` at the end of the stream.
    pub fn receive(&self) -> Result<Option<Message>> {
        // Most are one byte. A buffer for the longest would cost three pages to clear.
        let mut short = [0; SHORT];
        let length = self.take(&mut short, LOOK)?.min(LIMIT);
        let mut long = vec![0; if length > SHORT { length } else { 0 }];
        let packet = if length > SHORT { &mut long[..] } else { &mut short[..length] };
        if length > 0 {
            self.take(packet, MsgFlags::empty())?;
        }
        let Some((&tag, body)) = packet.split_first() else { return Ok(None) };
        Ok(Some(match tag {
            b'g' => Message::Go,
            b'e' => Message::Entered,
            b'h' => Message::Hooks,
            b'r' => Message::Ready,
            DONE => Message::Done,
            b'l' => Message::Listening(body.first_chunk().copied().map(u32::from_le_bytes)),
            b'w' => Message::Warning(String::from_utf8_lossy(body).into_owned()),
            b's' => Message::Step(String::from_utf8_lossy(body).into_owned()),
            b't' => Message::Mark(String::from_utf8_lossy(body).into_owned()),
            FAILED => Message::Failed(body.to_vec()),
            other => bail!("unknown message {other} on the sync socket"),
        }))
    }

    fn take(&self, packet: &mut [u8], flags: MsgFlags) -> Result<usize> {
        loop {
            match recv(self.0.as_raw_fd(), packet, flags) {
                Ok(length) => return Ok(length),
                // The other half ended with a message unread. The kernel reports that once, before its own messages.
                Err(Errno::EINTR | Errno::ECONNRESET) => {}
                Err(errno) => return Err(errno).context("read from the sync socket"),
            }
        }
    }

    /// Waits for a message or the end of the stream, the end of the process behind `pidfd`, or a notification on `listener`,
    /// whichever comes first. `None`: nothing within this time.
    pub fn wait_for(
        &self,
        pidfd: BorrowedFd<'_>,
        listener: Option<BorrowedFd<'_>>,
        time: Duration,
    ) -> Result<Option<SyncEvent>> {
        let mut fds = vec![PollFd::new(self.as_fd(), PollFlags::POLLIN), PollFd::new(pidfd, PollFlags::POLLIN)];
        fds.extend(listener.map(|listener| PollFd::new(listener, PollFlags::POLLIN)));
        match ppoll(&mut fds, Some(time.into()), None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("read from the sync socket"),
        }
        let happened = |at: usize| fds.get(at).is_some_and(|fd| fd.revents().is_some_and(|events| !events.is_empty()));
        Ok(match (happened(0), happened(1), happened(2)) {
            // A message may have come between the checks of the two descriptors.
            (_, true, _) if self.is_drained()? => Some(SyncEvent::Ended),
            (true, ..) | (_, true, _) => Some(SyncEvent::Message),
            (.., true) => Some(SyncEvent::Notified),
            _ => None,
        })
    }

    /// Whether no message is left.
    fn is_drained(&self) -> Result<bool> {
        loop {
            match recv(self.0.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
                Ok(0) | Err(Errno::EAGAIN) => return Ok(true),
                Ok(_) => return Ok(false),
                // Neither is a message that could be received.
                Err(Errno::ECONNRESET | Errno::EINTR) => {}
                Err(errno) => return Err(errno).context("read from the sync socket"),
            }
        }
    }

    /// Waits until the other half has ended or executed, for this time at most. Its messages can be received after that.
    pub fn has_ended_within(&self, time: Duration) -> Result<bool> {
        // With no event asked for, a message does not wake the poll: unix(7) wakes readers by POLLIN alone.
        match ppoll(&mut [PollFd::new(self.as_fd(), PollFlags::empty())], Some(time.into()), None) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno).context("read from the sync socket"),
        }
    }

    /// Whether a message or the end comes within this time.
    pub fn has_message_within(&self, time: Duration) -> Result<bool> {
        match ppoll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], Some(time.into()), None) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno).context("read from the sync socket"),
        }
    }

    /// Fails in the container's half if the runtime has died.
    pub fn ensure_host_alive(&self) -> Result<()> {
        match recv(self.0.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
            Ok(0) => Err(gone()),
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(errno).context("read from the sync socket"),
        }
    }

    /// The container's half waits for `Go`. The end of the stream means that the runtime has died.
    pub fn wait_for_go(&self) -> Result<()> {
        match self.receive()? {
            Some(Message::Go) => Ok(()),
            Some(other) => bail!("unexpected message {other:?} on the sync socket"),
            None => Err(gone()),
        }
    }
}

fn gone() -> Error {
    Error::new("the runtime process has ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_as_they_were_sent_and_the_end_is_none() {
        let (host, child) = SyncSocket::pair().unwrap();
        for message in [
            Message::Entered,
            Message::Hooks,
            Message::Mark("12 host born".into()),
            Message::Step("container: born".into()),
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
            let (host, child) = SyncSocket::pair().unwrap();
            host.send_go().unwrap();
            child.send(&word).unwrap();
            drop(child);
            host.send_go().unwrap();
            assert_eq!(host.receive().unwrap(), Some(word));
            assert_eq!(host.receive().unwrap(), None);
        }
        for (word, last) in [
            (Message::Ready, LastMessage::End),
            (Message::Done, LastMessage::Done),
            (Message::Failed(vec![1; SHORT + 1]), LastMessage::Failed(vec![1; SHORT + 1])),
        ] {
            let (host, child) = SyncSocket::pair().unwrap();
            assert_eq!(host.last_message(), LastMessage::StillOpen);
            host.send_go().unwrap();
            child.send(&Message::Warning("before it".into())).unwrap();
            child.send(&word).unwrap();
            drop(child);
            assert_eq!(host.last_message(), last);
        }
    }

    #[test]
    fn a_panic_of_the_container_is_its_error() {
        let (host, child) = SyncSocket::pair().unwrap();
        child.panic_sender()(&Error::new("x".repeat(2 * LIMIT)));
        assert!(matches!(host.last_message(), LastMessage::Failed(error) if error.len() == LIMIT - 1));
        child.panic_sender()(&Error::new("index out of bounds"));
        let LastMessage::Failed(error) = host.last_message() else { panic!("no word") };
        assert_eq!(Error::decode(&error).to_string(), "index out of bounds");
    }

    #[test]
    fn the_end_is_waited_for_with_words_unheard_and_warnings_never_wait() {
        let (host, child) = SyncSocket::pair().unwrap();
        for _ in 0..1000 {
            child.send(&Message::Warning("x".repeat(LIMIT))).unwrap();
        }
        drop(child);
        assert!(host.has_ended_within(Duration::from_secs(10)).unwrap());
        assert!(matches!(host.receive().unwrap(), Some(Message::Warning(text)) if text.len() == LIMIT - 1));
    }

    #[test]
    fn a_huge_error_is_cut_and_still_arrives() {
        let (host, child) = SyncSocket::pair().unwrap();
        child.send(&Message::Failed(vec![b'x'; 1 << 20])).unwrap();
        assert!(matches!(host.receive().unwrap(), Some(Message::Failed(body)) if body.len() == LIMIT - 1));
    }

    #[test]
    fn the_child_learns_that_the_host_is_gone() {
        let (host, child) = SyncSocket::pair().unwrap();
        child.ensure_host_alive().unwrap();
        drop(host);
        assert!(child.ensure_host_alive().unwrap_err().to_string().contains("has ended"));
        assert!(child.wait_for_go().unwrap_err().to_string().contains("has ended"));
    }
}
