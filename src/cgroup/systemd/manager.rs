//! The manager of units that a caller has: where it listens, and what it is told.

use nix::unistd::{AccessFlags, access, geteuid};

use crate::dbus::{Address, Connection, Kind, Message, Object, Refusal, Value, Writer};
use crate::error::{Error, Result, bail};
use crate::host;

const MANAGER: Object = Object {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};

/// The signals that are waited for; on the private socket they come anyhow.
const JOBS: &str = "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',\
                    interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

/// A connection to it.
pub(super) struct Manager(Connection);

impl Manager {
    pub(super) fn open(address: &Address) -> Result<Manager> {
        Connection::open(address, "systemd", &[JOBS]).map(Manager)
    }

    /// Calls a method; the number to wait for.
    pub(super) fn call(&mut self, member: &str, signature: &str, body: impl FnOnce(&mut Writer)) -> Result<u32> {
        self.0.call(&MANAGER, member, signature, body)
    }

    /// A call that needs no answer and goes out with the next one.
    pub(super) fn call_ahead(&mut self, member: &str, signature: &str, body: impl FnOnce(&mut Writer)) {
        self.0.call_ahead(&MANAGER, member, signature, body);
    }

    /// Waits for the answer to a call.
    pub(super) fn answer(&mut self, call: u32) -> Result<std::result::Result<Message, Refusal>> {
        self.0.answer(call)
    }

    /// Waits for the end of the job that an answer names; its result, `done` when all is well.
    pub(super) fn end_of(&mut self, answer: &Message) -> Result<String> {
        let Some(job) = answer.first_text() else { bail!("{} names no job", self.0) };
        loop {
            if let Some(result) = result_of(&self.0.receive()?, job) {
                return Ok(result);
            }
        }
    }
}

/// The result of a job, if a message tells its end: number, path, unit, result.
fn result_of(message: &Message, job: &str) -> Option<String> {
    if (message.kind, message.member.as_str()) != (Kind::Signal, "JobRemoved") {
        return None;
    }
    match &message.arguments()?[..] {
        [Value::Uint32(_), Value::Path(path), Value::Text(_), Value::Text(result)] if path == job => {
            Some(result.clone().into_owned())
        }
        _ => None,
    }
}

/// Whether it is the error with this name, of those that systemd has.
pub(super) fn is(refusal: &Refusal, name: &str) -> bool {
    refusal.name.strip_prefix("org.freedesktop.systemd1.") == Some(name)
}

/// Whether an older systemd has met what it does not know: a property, or a value.
pub(super) fn is_of_property(refusal: &Refusal) -> bool {
    let names = ["PropertyReadOnly", "UnknownProperty", "InvalidArgs"];
    refusal.name.strip_prefix("org.freedesktop.DBus.Error.").is_some_and(|name| names.contains(&name))
}

/// Where the machine's manager listens: itself, for root, or on the bus.
const SYSTEM: &[(&str, bool)] = &[("/run/systemd/private", false), ("/run/dbus/system_bus_socket", true)];

/// Whether somebody listens there for the whole machine.
pub(super) fn is_of_system(address: &Address) -> bool {
    SYSTEM.iter().any(|(socket, _)| *socket == address.socket)
}

/// The manager that a caller like us has, and whether it is a user's. Nothing is sent.
///
/// Engines call without `DBUS_SESSION_BUS_ADDRESS`, some without any environment: then the user's id tells the place.
pub(super) fn find() -> Result<(Address, bool)> {
    let mut tried: Vec<String> = Vec::new();
    let mut reachable = |socket: String, bus: bool| {
        if socket.starts_with('@') || access(socket.as_str(), AccessFlags::W_OK).is_ok() {
            return Some(Address { socket, bus });
        }
        tried.push(socket);
        None
    };
    let user = host::is_unprivileged();
    if user {
        let directory = std::env::var("XDG_RUNTIME_DIR").ok().filter(|path| !path.is_empty());
        let directory = directory.unwrap_or_else(|| format!("/run/user/{}", outer_user()));
        let bus = std::env::var("DBUS_SESSION_BUS_ADDRESS").ok().and_then(|list| socket_of(&list));
        let places = [
            Some((format!("{directory}/systemd/private"), false)),
            bus.map(|socket| (socket, true)),
            Some((format!("{directory}/bus"), true)),
        ];
        if let Some(found) = places.into_iter().flatten().find_map(|(socket, bus)| reachable(socket, bus)) {
            return Ok((found, true));
        }
    }
    // Also root of a user namespace that is a machine of its own.
    if geteuid().is_root() {
        let mut places = SYSTEM.iter();
        if let Some(found) = places.find_map(|(socket, bus)| reachable((*socket).to_owned(), *bus)) {
            return Ok((found, false));
        }
    }
    let error = Error::new(format!("no systemd to ask for a cgroup: none listens at {}", tried.join(" or ")));
    Err(match user {
        true => error.hint(
            "log in by systemd-logind or `loginctl enable-linger`, set XDG_RUNTIME_DIR, or use --cgroup-manager=cgroupfs",
        ),
        false => error.hint("this host runs without systemd; use --cgroup-manager=cgroupfs"),
    })
}

/// Where the manager listens that a caller like us has.
pub(in crate::cgroup) fn find_socket() -> Result<String> {
    find().map(|(manager, _)| manager.socket)
}

/// The socket in a list of D-Bus addresses, of the forms that are sockets of this machine.
fn socket_of(list: &str) -> Option<String> {
    list.split(';').filter_map(|address| address.strip_prefix("unix:")).find_map(|keys| {
        keys.split(',').find_map(|pair| match pair.split_once('=')? {
            ("path", path) => Some(path.to_owned()),
            ("abstract", name) => Some(format!("@{name}")),
            _ => None,
        })
    })
}

/// The user that we are outside of the user namespace we may be in.
pub(super) fn outer_user() -> u32 {
    let own = geteuid().as_raw();
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    crate::sys::procfs::idmap::outer(crate::sys::procfs::idmap::parse(&map), own).unwrap_or(own)
}
