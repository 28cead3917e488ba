//! Cgroups made by systemd: a container is a transient scope around its first process, `StartTransientUnit`.
//!
//! systemd is asked once for a container's start and at most once for its end. `state`, `kill`, `exec` and the rest go
//! by the cgroup alone. The unit is made with the properties that match the limits, so that systemd's idea of them is
//! ours; then the same files are written as by the cgroupfs driver, which says more, and the device program is attached.

mod annotations;
mod manager;
mod properties;
mod unit;

use std::collections::HashMap;
use std::time::Duration;

use nix::unistd::Pid;
use oci_spec::runtime::LinuxDeviceCgroup;

use super::devices::{self, Allowed};
use super::limits::Limits;
use super::location::{Location, SystemdUnit};
use super::mount::Mount;
use super::own;
use crate::dbus::{Value, Writer};
use crate::error::{Context, Error, Result, ensure};
use manager::Manager;
use properties::{Properties, Property};
use unit::Unit;

pub(crate) use annotations::{ANNOTATION, reaching};
pub(super) use manager::find_socket;

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
        Ok(Wanted { unit, id: id.to_owned(), limits: properties, wishes: annotations::wishes(annotations)? })
    }

    /// Finds the manager, and where the unit will be; it is asked for nothing yet.
    pub(super) fn place(&self, mount: Mount) -> Result<Location> {
        let (manager, user) = manager::find()?;
        let below = self.unit.cgroup(user)?;
        let path = match user {
            true => {
                let own = own::path_in(&own::read_own()?).unwrap_or_default();
                format!("{}/{below}", unit::of_user_manager(&own, manager::outer_user()))
            }
            false => below,
        };
        let unit = SystemdUnit { name: self.unit.name.clone(), manager };
        Ok(Location::of_unit(mount, path, unit))
    }

    /// Asks for the unit, with a process in it.
    pub(super) fn begin(&self, location: &Location, pid: Pid) -> Result<Job> {
        let unit = location.unit().unwrap_or_else(|| unreachable!("a place of systemd's has a unit"));
        let properties = self.properties(pid, !manager::is_of_system(&unit.manager));
        let mut connection = Manager::open(&unit.manager)?;
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
    connection: Manager,
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
            if manager::is(&refusal, "UnitExists") {
                if attempt >= TRIES {
                    let error = Error::new("there is a unit of that name already").field("/linux/cgroupsPath");
                    return Err(refused(error.hint("delete the container that has it, or give another cgroupsPath")));
                }
                if attempt > 0 {
                    std::thread::sleep(BETWEEN);
                }
                // One that has failed stays until somebody has taken notice.
                self.connection.call_ahead("ResetFailedUnit", "s", |out| out.text(&self.unit));
            } else if self.properties.has_newer() && manager::is_of_property(&refusal) {
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

fn done(result: String) -> Result<()> {
    ensure!(matches!(result.as_str(), "done" | "skipped"), "its job ended with {result:?}");
    Ok(())
}

fn start(connection: &mut Manager, unit: &str, properties: &Properties) -> Result<u32> {
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

/// Ends the unit and waits for it. One that is gone is fine.
pub(super) fn stop(unit: &SystemdUnit) -> Result<()> {
    let what = || format!("stop the systemd unit {}", unit.name);
    let mut connection = Manager::open(&unit.manager).with_context(what)?;
    let call = connection.call("StopUnit", "ss", |out| {
        out.text(&unit.name);
        out.text("replace");
    });
    match call.and_then(|call| connection.answer(call)).with_context(what)? {
        // A stop that another one has taken the place of is one that will be done.
        Ok(answer) => connection.end_of(&answer).map(drop).with_context(what),
        Err(refusal) if manager::is(&refusal, "NoSuchUnit") => Ok(()),
        Err(refusal) => Err(Error::new(refusal.text)).with_context(what),
    }
}

/// Has a process moved into the unit's cgroup, or one below it. A user's manager, which may not do that to a process from
/// outside of what is its own, asks the system's, AttachProcessesToUnit of org.freedesktop.systemd1(5).
pub(super) fn attach(unit: &SystemdUnit, process: Pid, below: &str) -> Result<()> {
    let what = || format!("have process {process} moved to the systemd unit {}", unit.name);
    let mut connection = Manager::open(&unit.manager).with_context(what)?;
    let call = connection.call("AttachProcessesToUnit", "ssau", |out| {
        out.text(&unit.name);
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
pub(super) fn set(unit: &SystemdUnit, limits: &Limits, devices: Option<&Allowed>) -> Result<()> {
    let mut properties = Properties::of(limits.writes())?;
    devices.into_iter().for_each(|allowed| allow_devices(&mut properties, allowed));
    let what = || format!("set properties of the systemd unit {}", unit.name);
    // systemd takes it at a unit's start only.
    properties.0.retain(|property| property.name != "OOMPolicy");
    if properties.0.is_empty() {
        return Ok(());
    }
    let mut connection = Manager::open(&unit.manager).with_context(what)?;
    loop {
        let call = connection.call("SetUnitProperties", "sba(sv)", |out| {
            out.text(&unit.name);
            out.value(&Value::Bool(true));
            write_properties(out, &properties);
        });
        match call.and_then(|call| connection.answer(call)).with_context(what)? {
            Ok(_) => return Ok(()),
            Err(refusal) if properties.has_newer() && manager::is_of_property(&refusal) => {
                properties.0.retain(|property| !property.newer);
            }
            Err(refusal) => return Err(Error::new(refusal.text)).with_context(what),
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
