//! Cgroups made by systemd: a container is a transient scope around its first process, `StartTransientUnit`.
//!
//! systemd is asked once for a container's start and at most once for its end. `state`, `kill`, `exec` and the rest go
//! by the cgroup alone. The unit is made with the properties that match the limits, so that systemd's idea of them is
//! ours; then the same files are written as by the cgroupfs driver, which says more, and the device program is attached.

mod bus;
mod gvariant;
mod message;
mod properties;
mod unit;
mod value;

use std::collections::HashMap;
use std::time::Duration;

use nix::unistd::{AccessFlags, Pid, access, geteuid};
use oci_spec::runtime::LinuxDeviceCgroup;
use serde::{Deserialize, Serialize};

use super::devices::{self, Allowed};
use super::limits::Limits;
use super::{Location, Mount, clean, own_of};
use crate::error::{Context, Error, Result, bail, ensure};
use crate::host;
use bus::{Address, Connection, Refusal};
use properties::{Properties, Property};
use unit::Unit;
use value::{Value, Writer};

/// What an annotation that is a property of the unit starts with.
pub(crate) const ANNOTATION: &str = "org.systemd.property.";

/// Properties that an annotation may not set: they are what the runtime itself says of a container.
const OURS: &[&str] = &["Delegate", "PIDFDs", "PIDs", "Slice"];

/// Properties with which systemd does nothing but to the container itself: what engines set (KillSignal and TimeoutStopUSec
/// Podman; After, CollectMode and DefaultDependencies CRI-O), and one that only ends it early. Of the others some start
/// and stop units of the host or the host itself, and some lift a limit or open a device.
const HARMLESS: &[&str] =
    &["After", "CollectMode", "DefaultDependencies", "KillSignal", "RuntimeMaxUSec", "TimeoutStopUSec"];

/// How often a name that is taken is tried again, and how long to wait in between: what had it may be about to vanish.
const TRIES: u32 = 10;
const BETWEEN: Duration = Duration::from_millis(50);

/// What is asked of systemd.
pub(super) struct Wanted {
    unit: Unit,
    id: String,
    limits: Properties,
    /// From annotations; they replace what we would say.
    wishes: Properties,
}

/// The unit of a container, as the record has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recorded {
    unit: String,
    manager: Address,
}

impl Wanted {
    /// Compiles the unit and its properties; looks at nothing of the host.
    pub(super) fn plan(
        path: &std::path::Path,
        id: &str,
        limits: &Limits,
        rules: &[LinuxDeviceCgroup],
        annotations: Option<&HashMap<String, String>>,
    ) -> Result<Wanted> {
        let unit = Unit::plan(path, id).field(|| "/linux/cgroupsPath")?;
        let mut properties = Properties::of(limits.writes())?;
        allow_devices(&mut properties, &devices::allowed(rules)?);
        Ok(Wanted { unit, id: id.to_owned(), limits: properties, wishes: wishes(annotations)? })
    }

    /// Finds the manager, and where the unit will be; it is asked for nothing yet.
    pub(super) fn place(&self, mount: Mount) -> Result<Location> {
        let (manager, user) = find_manager()?;
        let below = self.unit.cgroup(user)?;
        let path = match user {
            true => {
                let own = std::fs::read_to_string("/proc/self/cgroup").context("look up the runtime's own cgroup")?;
                let own = own_of(&own).map(clean).unwrap_or_default();
                format!("{}/{below}", unit::of_user_manager(&own, outer_user()))
            }
            false => below,
        };
        let unit = Recorded { unit: self.unit.name.clone(), manager };
        Ok(Location::of_unit(mount, path, unit))
    }

    /// Asks for the unit, with a process in it.
    pub(super) fn begin(&self, location: &Location, pid: Pid) -> Result<Job> {
        let recorded = location.unit().unwrap_or_else(|| unreachable!("a place of systemd's has a unit"));
        let properties = self.properties(pid, recorded.is_of_user());
        let mut connection = Connection::open(&recorded.manager)?;
        let call = start(&mut connection, &self.unit.name, &properties)?;
        Ok(Job { connection, call, unit: self.unit.name.clone(), properties })
    }

    fn properties(&self, pid: Pid, user: bool) -> Properties {
        let mut all = Properties::default();
        let parent = self.unit.parent(user);
        all.set("Description", Value::text(format!("corten container {}", self.id)));
        if self.unit.is_slice() {
            all.set("Wants", Value::Array("s".into(), vec![Value::text(parent)]));
        } else {
            all.set("Slice", Value::text(parent));
            all.set("Delegate", Value::Bool(true));
            all.set("PIDs", Value::Array("u".into(), vec![Value::Uint32(pid.as_raw() as u32)]));
        }
        for accounting in ["MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting"] {
            all.set(accounting, Value::Bool(true));
        }
        all.set("DefaultDependencies", Value::Bool(false));
        // A unit that has failed goes like any other: nobody has to be asked to forget it.
        all.set("CollectMode", Value::text("inactive-or-failed"));
        all.extend(self.limits.clone());
        all.extend(self.wishes.clone());
        all
    }

    /// A slice has processes only because we put them there.
    pub(super) fn is_slice(&self) -> bool {
        self.unit.is_slice()
    }
}

/// A unit that was asked for.
pub(super) struct Job {
    connection: Connection,
    call: u32,
    unit: String,
    properties: Properties,
}

impl Job {
    /// Waits until the unit is there. With an error comes whether there may be one all the same.
    pub(super) fn finish(mut self) -> std::result::Result<(), (Error, bool)> {
        let outcome = self.wait();
        outcome.map_err(|(error, made)| (error.context(format!("make the systemd unit {}", self.unit)), made))
    }

    fn wait(&mut self) -> std::result::Result<(), (Error, bool)> {
        let refused = |error: Error| (error, false);
        for attempt in 0.. {
            let refusal = match self.connection.answer(self.call) {
                Ok(Ok(answer)) => return self.connection.end_of(&answer).and_then(done).map_err(|error| (error, true)),
                Ok(Err(refusal)) => refusal,
                Err(error) => return Err((error, true)),
            };
            if refusal.is("UnitExists") {
                if attempt >= TRIES {
                    let error = Error::new("there is a unit of that name already").field("/linux/cgroupsPath");
                    return Err(refused(error.hint("delete the container that has it, or give another cgroupsPath")));
                }
                if attempt > 0 {
                    std::thread::sleep(BETWEEN);
                }
                // One that has failed stays until somebody has taken notice.
                self.connection.call_ahead("ResetFailedUnit", "s", |out| out.text(&self.unit));
            } else if self.properties.has_newer() && is_of_property(&refusal) {
                log::debug!("systemd does not know all properties: {}", refusal.text);
                self.properties.0.retain(|property| !property.newer);
            } else {
                return Err(refused(Error::new(refusal.text)));
            }
            self.call = start(&mut self.connection, &self.unit, &self.properties).map_err(refused)?;
        }
        Ok(())
    }
}

/// Whether an older systemd has met what it does not know: a property, or a value.
fn is_of_property(refusal: &Refusal) -> bool {
    let names = ["PropertyReadOnly", "UnknownProperty", "InvalidArgs"];
    refusal.name.strip_prefix("org.freedesktop.DBus.Error.").is_some_and(|name| names.contains(&name))
}

fn done(result: String) -> Result<()> {
    ensure!(matches!(result.as_str(), "done" | "skipped"), "its job ended with {result:?}");
    Ok(())
}

fn start(connection: &mut Connection, unit: &str, properties: &Properties) -> Result<u32> {
    connection.call("StartTransientUnit", "ssa(sv)a(sa(sv))", |out| {
        out.text(unit);
        out.text("replace");
        write_properties(out, properties);
        out.array(b'(', |_| {});
    })
}

fn write_properties(out: &mut Writer, properties: &Properties) {
    out.array(b'(', |out| {
        for Property { name, value, .. } in &properties.0 {
            out.align(8);
            out.text(name);
            out.variant(value);
        }
    });
}

impl Recorded {
    fn is_of_user(&self) -> bool {
        !SYSTEM.iter().any(|(socket, _)| *socket == self.manager.socket)
    }

    /// Ends the unit and waits for it. One that is gone is fine.
    pub(super) fn stop(&self) -> Result<()> {
        let what = || format!("stop the systemd unit {}", self.unit);
        let mut connection = Connection::open(&self.manager).with_context(what)?;
        let call = connection.call("StopUnit", "ss", |out| {
            out.text(&self.unit);
            out.text("replace");
        });
        match call.and_then(|call| connection.answer(call)).with_context(what)? {
            // A stop that another one has taken the place of is one that will be done.
            Ok(answer) => connection.end_of(&answer).map(drop).with_context(what),
            Err(refusal) if refusal.is("NoSuchUnit") => Ok(()),
            Err(refusal) => Err(Error::new(refusal.text)).with_context(what),
        }
    }

    /// Has a process moved into the unit's cgroup, or one below it. A user's manager, which may not do that to a process from
    /// outside of what is its own, asks the system's, AttachProcessesToUnit of org.freedesktop.systemd1(5).
    pub(super) fn attach(&self, process: Pid, below: &str) -> Result<()> {
        let what = || format!("have process {process} moved to the systemd unit {}", self.unit);
        let mut connection = Connection::open(&self.manager).with_context(what)?;
        let call = connection.call("AttachProcessesToUnit", "ssau", |out| {
            out.text(&self.unit);
            out.text(below);
            out.value(&Value::Array("u".into(), vec![Value::Uint32(process.as_raw() as u32)]));
        });
        match call.and_then(|call| connection.answer(call)).with_context(what)? {
            Ok(_) => Ok(()),
            Err(refusal) => Err(Error::new(refusal.text)).with_context(what),
        }
    }

    /// Tells of other limits, as far as there are properties for them, so that they are not undone by those before them
    /// (the files are the caller's), and of other device rules. One message, of which systemd takes all or nothing.
    pub(super) fn set(&self, limits: &Limits, devices: Option<&Allowed>) -> Result<()> {
        let mut properties = Properties::of(limits.writes())?;
        devices.into_iter().for_each(|allowed| allow_devices(&mut properties, allowed));
        let what = || format!("set properties of the systemd unit {}", self.unit);
        // systemd takes it at a unit's start only.
        properties.0.retain(|property| property.name != "OOMPolicy");
        if properties.0.is_empty() {
            return Ok(());
        }
        let mut connection = Connection::open(&self.manager).with_context(what)?;
        loop {
            let call = connection.call("SetUnitProperties", "sba(sv)", |out| {
                out.text(&self.unit);
                out.value(&Value::Bool(true));
                write_properties(out, &properties);
            });
            match call.and_then(|call| connection.answer(call)).with_context(what)? {
                Ok(_) => return Ok(()),
                Err(refusal) if properties.has_newer() && is_of_property(&refusal) => {
                    properties.0.retain(|property| !property.newer);
                }
                Err(refusal) => return Err(Error::new(refusal.text)).with_context(what),
            }
        }
    }
}

/// systemd's own device program must let through whatever ours does: of two programs both have to allow a request.
fn allow_devices(properties: &mut Properties, allowed: &Allowed) {
    let row =
        |(node, access): &(String, String)| Value::Struct(vec![Value::text(node.clone()), Value::text(access.clone())]);
    let policy = if allowed.is_some() { "strict" } else { "auto" };
    properties.set("DevicePolicy", Value::text(policy));
    // An empty list clears what was there; another one only adds to it.
    properties.0.push(Property {
        name: "DeviceAllow".to_owned(),
        value: Value::Array("(ss)".into(), Vec::new()),
        newer: false,
    });
    if let Some(allowed) = allowed {
        properties.0.push(Property {
            name: "DeviceAllow".to_owned(),
            value: Value::Array("(ss)".into(), allowed.iter().map(row).collect()),
            newer: false,
        });
    }
}

/// Reads the annotations that are properties.
fn wishes(annotations: Option<&HashMap<String, String>>) -> Result<Properties> {
    let mut wishes = Properties::default();
    let mut list: Vec<_> = annotations.into_iter().flatten().collect();
    list.sort_unstable();
    for (key, text) in list {
        let Some(name) = key.strip_prefix(ANNOTATION) else { continue };
        let pointer = || format!("/annotations/{}", key.replace('~', "~0").replace('/', "~1"));
        let (name, value) = wish(name, text).field(pointer)?;
        wishes.set(&name, value);
    }
    Ok(wishes)
}

/// The property that an annotation names, where systemd may go beyond the container with it. Not one that is an error
/// whoever says it.
pub(crate) fn reaching(name: &str, text: &str) -> Option<String> {
    let (property, value) = wish(name, text).ok()?;
    // systemd looks up each of the units that a list names.
    let long = matches!(&value, Value::Array(_, list) if list.len() > 1);
    (long || !HARMLESS.contains(&property.as_str())).then_some(property)
}

fn wish(name: &str, text: &str) -> Result<(String, Value)> {
    let letters = name.bytes().all(|byte| byte.is_ascii_alphabetic());
    ensure!(letters && name.len() >= 3, "{name:?} is not the name of a property");
    ensure!(!OURS.contains(&name), "{name} is for the runtime to set");
    let value = gvariant::parse(text).with_context(|| format!("read {text:?}"))?;
    // What a unit file has in seconds is a property in microseconds.
    match name.strip_suffix("Sec").filter(|stem| stem.ends_with(|letter: char| letter.is_ascii_lowercase())) {
        Some(stem) => Ok((format!("{stem}USec"), microseconds(&value)?)),
        None => Ok((name.to_owned(), value)),
    }
}

fn microseconds(value: &Value) -> Result<Value> {
    let whole = |seconds: i128| u64::try_from(seconds).ok().and_then(|seconds| seconds.checked_mul(1_000_000));
    let number = match *value {
        Value::Byte(seconds) => whole(seconds.into()),
        Value::Int16(seconds) => whole(seconds.into()),
        Value::Uint16(seconds) => whole(seconds.into()),
        Value::Int32(seconds) => whole(seconds.into()),
        Value::Uint32(seconds) => whole(seconds.into()),
        Value::Int64(seconds) => whole(seconds.into()),
        Value::Uint64(seconds) => whole(seconds.into()),
        Value::Double(seconds) if (0.0..1e12).contains(&seconds) => Some((seconds * 1e6) as u64),
        _ => None,
    };
    let Some(number) = number else { bail!("it is not a number of seconds") };
    Ok(Value::Uint64(number))
}

/// Where the machine's manager listens: itself, for root, or on the bus.
const SYSTEM: &[(&str, bool)] = &[("/run/systemd/private", false), ("/run/dbus/system_bus_socket", true)];

/// The manager that a caller like us has, and whether it is a user's. Nothing is sent.
///
/// Engines call without `DBUS_SESSION_BUS_ADDRESS`, some without any environment: then the user's id tells the place.
fn find_manager() -> Result<(Address, bool)> {
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
pub(super) fn find_socket() -> Result<String> {
    find_manager().map(|(manager, _)| manager.socket)
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
fn outer_user() -> u32 {
    let own = geteuid().as_raw();
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    outside(&map, own).unwrap_or(own)
}

/// Looks a user up in a `uid_map`, whose lines are inside, outside, length.
fn outside(map: &str, inside: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(|word| word.parse::<u32>().ok());
        let (first, outer, length) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let place = inside.checked_sub(first).filter(|place| *place < length)?;
        outer.checked_add(place)
    })
}

#[cfg(test)]
mod tests;
