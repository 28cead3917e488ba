//! The line to systemd: its private socket, or a message bus.
//!
//! A client of our own, since what is asked of systemd is three calls: it is synchronous and has no thread. On the private socket the other end is systemd itself: there is no name to
//! ask for, and its signals come without being asked for.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket};
use nix::sys::time::TimeVal;
use serde::{Deserialize, Serialize};

use super::message::{self, Kind, Message, Object};
use super::value::{Reader, Writer};
use crate::error::{Context, Error, Result, bail};

/// How long systemd may take for an answer or a job.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who we are is told by the socket (EXTERNAL), so no name is given: in a user namespace ours is not the one that the
/// other end knows. All in one go, since nobody minds what comes before it asks; but no message goes with it: systemd
/// lets one that it has read together with these lines lie until something else comes.
const GREETING: &[u8] = b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n";

const BUS: Object =
    Object { destination: "org.freedesktop.DBus", path: "/org/freedesktop/DBus", interface: "org.freedesktop.DBus" };
const MANAGER: Object = Object {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};
const JOBS: &str = "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',\
                    interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

/// Where a manager listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Address {
    /// A path, or with `@` before it an abstract name.
    pub(super) socket: String,
    /// Whether it is a bus, with systemd as one of many on it.
    pub(super) bus: bool,
}

/// An answer that is an error.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) name: String,
    pub(super) text: String,
}

impl Refusal {
    /// Whether it is the error with this name, of those that systemd has.
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.strip_prefix("org.freedesktop.systemd1.") == Some(name)
    }
}

pub(super) struct Connection {
    stream: UnixStream,
    socket: String,
    /// What has been received and not looked at yet.
    received: Vec<u8>,
    /// What goes out with the next call.
    waiting: Vec<u8>,
    welcome: bool,
    serial: u32,
    deadline: Instant,
}

impl Connection {
    /// Connects and is taken in; nothing is asked yet.
    pub(super) fn open(address: &Address) -> Result<Connection> {
        let socket = &address.socket;
        let stream = dial(socket).with_context(|| format!("connect to systemd at {socket}"))?;
        let deadline = Instant::now() + PATIENCE;
        let mut connection = Connection {
            stream,
            socket: socket.clone(),
            received: Vec::new(),
            waiting: Vec::new(),
            welcome: false,
            serial: 0,
            deadline,
        };
        let greeted = connection.stream.write_all(GREETING);
        greeted.with_context(|| format!("greet systemd at {socket}"))?;
        while !connection.welcome {
            connection.fill()?;
            connection.read_welcome()?;
        }
        if address.bus {
            connection.queue(&BUS, "Hello", false, "", |_| {});
            connection.queue(&BUS, "AddMatch", false, "s", |out| out.text(JOBS));
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

    /// Calls a method of the manager; the number to wait for.
    pub(super) fn call(&mut self, member: &str, signature: &str, body: impl FnOnce(&mut Writer)) -> Result<u32> {
        self.queue(&MANAGER, member, true, signature, body);
        let sent = self.stream.write_all(&self.waiting);
        sent.with_context(|| format!("ask systemd at {} for {member}", self.socket))?;
        self.waiting.clear();
        self.deadline = Instant::now() + PATIENCE;
        Ok(self.serial)
    }

    /// A call that needs no answer and goes out with the next one.
    pub(super) fn call_ahead(&mut self, member: &str, signature: &str, body: impl FnOnce(&mut Writer)) {
        self.queue(&MANAGER, member, false, signature, body);
    }

    /// Waits for the answer to a call.
    pub(super) fn answer(&mut self, call: u32) -> Result<std::result::Result<Message, Refusal>> {
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

    /// Waits for the end of the job that an answer names; its result, `done` when all is well.
    pub(super) fn end_of(&mut self, answer: &Message) -> Result<String> {
        let Some(job) = answer.first_text() else { bail!("systemd at {} names no job", self.socket) };
        loop {
            let message = self.receive()?;
            if (message.kind, message.member.as_str(), message.signature.as_str())
                != (Kind::Signal, "JobRemoved", "uoss")
            {
                continue;
            }
            let mut body = Reader::new(&message.body);
            body.word();
            if body.text() == Some(job) {
                body.text();
                return Ok(body.text().unwrap_or("unknown").to_owned());
            }
        }
    }

    fn receive(&mut self) -> Result<Message> {
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
        let found = found.map_err(|what| Error::new(format!("systemd at {} sent {what}", self.socket)))?;
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
                return Err(Error::new(format!("systemd at {} does not accept this user", self.socket)));
            }
        }
        Ok(())
    }

    fn fill(&mut self) -> Result<()> {
        let late = || Error::new(format!("systemd at {} did not answer within {} s", self.socket, PATIENCE.as_secs()));
        let mut piece = [0; 8192];
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(late());
            }
            let read = self.stream.set_read_timeout(Some(left)).and_then(|()| self.stream.read(&mut piece));
            match read {
                Ok(0) => bail!("systemd at {} has closed the connection", self.socket),
                Ok(length) => {
                    self.received.extend_from_slice(&piece[..length]);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(late()),
                Err(error) => return Err(error).with_context(|| format!("listen to systemd at {}", self.socket)),
            }
        }
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
