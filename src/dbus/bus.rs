//! The line to who answers: a message bus, or a private socket of the peer.
//!
//! A client of our own, since little is asked (of systemd a handful of calls): it is synchronous and has no thread. On a
//! private socket the other end is the peer itself: there is no name to ask for, and its signals come without being asked
//! for.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket};
use nix::sys::time::TimeVal;
use serde::{Deserialize, Serialize};

use super::message::{self, Kind, Message, Object};
use super::writer::Writer;
use crate::error::{Context, Error, Result, bail, ensure};

/// How long the peer may take for an answer, or for what a call has begun.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest line before the messages; that of a server has 37 letters.
const LONGEST_LINE: usize = 4096;

/// Who we are is told by the socket (EXTERNAL), so no name is given: in a user namespace ours is not the one that the
/// other end knows. All in one go, since nobody minds what comes before it asks; but no message goes with it: systemd
/// lets one that it has read together with these lines lie until something else comes.
const GREETING: &[u8] = b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n";

const BUS: Object =
    Object { destination: "org.freedesktop.DBus", path: "/org/freedesktop/DBus", interface: "org.freedesktop.DBus" };

/// Where somebody listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// A path, or with `@` before it an abstract name.
    pub socket: String,
    /// Whether it is a bus, with the peer as one of many on it.
    pub bus: bool,
}

/// An answer that is an error.
#[derive(Debug)]
pub struct Refusal {
    /// Which one, as a name with dots.
    pub name: String,
    /// The sentence.
    pub text: String,
}

/// A connection to one peer.
pub struct Connection {
    stream: UnixStream,
    socket: String,
    /// What messages call the peer.
    peer: &'static str,
    /// What has been received and not looked at yet.
    received: Vec<u8>,
    /// What goes out with the next call.
    waiting: Vec<u8>,
    welcome: bool,
    serial: u32,
    deadline: Instant,
}

impl Connection {
    /// Connects and is taken in; nothing is asked yet. On a bus the signals that the `rules` match are asked for, with the
    /// first call.
    pub fn open(address: &Address, peer: &'static str, rules: &[&str]) -> Result<Connection> {
        let socket = &address.socket;
        let stream = dial(socket).with_context(|| format!("connect to {peer} at {socket}"))?;
        Connection::over(stream, address, peer, rules)
    }

    fn over(stream: UnixStream, address: &Address, peer: &'static str, rules: &[&str]) -> Result<Connection> {
        let deadline = Instant::now() + PATIENCE;
        let mut connection = Connection {
            stream,
            socket: address.socket.clone(),
            peer,
            received: Vec::new(),
            waiting: Vec::new(),
            welcome: false,
            serial: 0,
            deadline,
        };
        let greeted = connection.stream.write_all(GREETING);
        greeted.with_context(|| format!("greet {connection}"))?;
        while !connection.welcome {
            connection.fill()?;
            connection.read_welcome()?;
        }
        if address.bus {
            connection.queue(&BUS, "Hello", false, "", |_| {});
            for rule in rules {
                connection.queue(&BUS, "AddMatch", false, "s", |out| out.text(rule));
            }
        }
        Ok(connection)
    }

    fn queue(
        &mut self,
        object: &Object,
        member: &str,
        answered: bool,
        signature: &str,
        body: impl FnOnce(&mut Writer),
    ) {
        self.serial += 1;
        let bytes = message::call(object, member, self.serial, answered, signature, body);
        self.waiting.extend_from_slice(&bytes);
    }

    /// Calls a method; the number to wait for.
    pub fn call(
        &mut self,
        object: &Object,
        member: &str,
        signature: &str,
        body: impl FnOnce(&mut Writer),
    ) -> Result<u32> {
        self.queue(object, member, true, signature, body);
        let sent = self.stream.write_all(&self.waiting);
        sent.with_context(|| format!("ask {self} for {member}"))?;
        self.waiting.clear();
        self.deadline = Instant::now() + PATIENCE;
        Ok(self.serial)
    }

    /// A call that needs no answer and goes out with the next one.
    pub fn call_ahead(&mut self, object: &Object, member: &str, signature: &str, body: impl FnOnce(&mut Writer)) {
        self.queue(object, member, false, signature, body);
    }

    /// Waits for the answer to a call.
    pub fn answer(&mut self, call: u32) -> Result<std::result::Result<Message, Refusal>> {
        loop {
            let message = self.receive()?;
            match message.kind {
                Kind::Return if message.answers == call => return Ok(Ok(message)),
                Kind::Error if message.answers == call => {
                    let text = message.first_text().unwrap_or_default().to_owned();
                    return Ok(Err(Refusal { name: message.error, text }));
                }
                // The bus itself, refusing what we wanted no answer for: without a name there is no other answer.
                Kind::Error if message.answers < call && message.answers != 0 => {
                    bail!("{} refuses us: {}", self.socket, message.first_text().unwrap_or(&message.error));
                }
                _ => {}
            }
        }
    }

    /// Waits for the next message, whatever it is.
    pub fn receive(&mut self) -> Result<Message> {
        loop {
            if let Some(message) = self.next()? {
                return Ok(message);
            }
            self.fill()?;
        }
    }

    /// The next message of those received.
    fn next(&mut self) -> Result<Option<Message>> {
        let found = Message::parse(&self.received);
        let found = found.map_err(|what| Error::new(format!("{self} sent {what}")))?;
        Ok(found.map(|(message, length)| {
            self.received.drain(..length);
            message
        }))
    }

    /// The lines of the other end before the messages.
    fn read_welcome(&mut self) -> Result<()> {
        while let Some(end) = self.received.windows(2).position(|pair| pair == b"\r\n") {
            let line: Vec<u8> = self.received.drain(..end + 2).collect();
            if line.starts_with(b"OK ") {
                self.welcome = true;
                return Ok(());
            }
            if line.starts_with(b"REJECTED") || line.starts_with(b"ERROR") {
                return Err(Error::new(format!("{self} does not accept this user")));
            }
        }
        ensure!(self.received.len() <= LONGEST_LINE, "{self} does not speak D-Bus");
        Ok(())
    }

    fn fill(&mut self) -> Result<()> {
        let (peer, socket) = (self.peer, self.socket.clone());
        let late = || Error::new(format!("{peer} at {socket} did not answer within {} s", PATIENCE.as_secs()));
        let mut piece = [0; 8192];
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(late());
            }
            let read = self.stream.set_read_timeout(Some(left)).and_then(|()| self.stream.read(&mut piece));
            match read {
                Ok(0) => bail!("{self} has closed the connection"),
                Ok(length) => {
                    self.received.extend_from_slice(&piece[..length]);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(late()),
                Err(error) => return Err(error).with_context(|| format!("listen to {self}")),
            }
        }
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} at {}", self.peer, self.socket)
    }
}

fn dial(path: &str) -> nix::Result<UnixStream> {
    let address = match path.strip_prefix('@') {
        Some(name) => UnixAddr::new_abstract(name.as_bytes())?,
        None => UnixAddr::new(path)?,
    };
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // It bounds the wait in connect(2), too, when the other end is busy with many others.
    setsockopt(&socket, SendTimeout, &TimeVal::new(PATIENCE.as_secs() as i64, 0))?;
    connect(socket.as_raw_fd(), &address)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::super::value::Value;
    use super::*;

    const PEER: Object = Object { destination: "d.e", path: "/p", interface: "i.f" };

    /// A connection to somebody who has already said all this, and the other end.
    fn connection(said: &[u8], bus: bool) -> (Result<Connection>, UnixStream) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(said).unwrap();
        let address = Address { socket: "/s".into(), bus };
        (Connection::over(ours, &address, "somebody", &["type='signal'"]), theirs)
    }

    /// A message with one field, the number of the call that it answers, and no arguments.
    fn answer(order: u8, kind: u8, serial: u32) -> Vec<u8> {
        let number = |number: u32| if order == b'B' { number.to_be_bytes() } else { number.to_le_bytes() };
        [&[order, kind, 0, 1][..], &number(0), &number(1), &number(8), b"\x05\x01u\0", &number(serial)].concat()
    }

    #[test]
    fn an_answer_is_found_among_other_messages_in_either_byte_order() {
        for (order, other) in [(b'l', b'B'), (b'B', b'l')] {
            let said =
                [b"OK 0123\r\n".to_vec(), answer(other, 4, 0), answer(order, 2, 2), answer(order, 3, 1)].concat();
            let (connection, _theirs) = connection(&said, false);
            let mut connection = connection.unwrap();
            for (serial, member) in [(1, "M"), (2, "N")] {
                assert_eq!(connection.call(&PEER, member, "", |_| {}).unwrap(), serial);
            }
            let answer = connection.answer(2).unwrap().unwrap();
            assert_eq!((answer.kind, answer.arguments()), (Kind::Return, Some(vec![])));
            assert_eq!(connection.answer(1).unwrap().unwrap_err().name, "");
        }
    }

    #[test]
    fn on_a_bus_we_say_hello_and_ask_for_signals_before_the_first_call() {
        let (connection, mut theirs) = connection(b"OK 0123\r\n", true);
        let mut connection = connection.unwrap();
        connection.call_ahead(&PEER, "First", "", |_| {});
        assert_eq!(connection.call(&PEER, "Second", "u", |out| out.value(&Value::Uint32(7))).unwrap(), 4);
        drop(connection);
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).unwrap();
        let mut rest = heard.strip_prefix(GREETING).unwrap();
        let mut calls = Vec::new();
        while let Some((message, length)) = Message::parse(rest).unwrap() {
            calls.push((message.member.clone(), message.arguments().unwrap()));
            rest = &rest[length..];
        }
        let call = |member: &str, arguments: &[Value]| (member.to_owned(), arguments.to_vec());
        let expected = [
            call("Hello", &[]),
            call("AddMatch", &[Value::text("type='signal'")]),
            call("First", &[]),
            call("Second", &[Value::Uint32(7)]),
        ];
        assert_eq!(calls, expected);
    }

    #[test]
    fn who_refuses_us_or_speaks_something_else_is_told() {
        let refusal = |said: &[u8]| connection(said, false).0.err().unwrap().to_string();
        assert_eq!(refusal(b"REJECTED EXTERNAL\r\n"), "somebody at /s does not accept this user");
        assert_eq!(refusal(&[b'x'; 8000]), "somebody at /s does not speak D-Bus");
        let said = [b"OK 0123\r\n".to_vec(), b"HTTP/1.1 400 Bad".to_vec()].concat();
        let error = connection(&said, false).0.unwrap().receive().unwrap_err().to_string();
        assert_eq!(error, "somebody at /s sent a message of no byte order");
    }
}
