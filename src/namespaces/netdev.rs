//! Network devices of the host that become the container's, `linux.netDevices` (runtime-spec 1.3, "Network Devices").
//!
//! A device keeps its permanent addresses of global scope and is brought up. Only physical devices come back: the kernel
//! moves them to the host when the namespace ends.

use std::os::fd::BorrowedFd;

use oci_spec::runtime::Linux;

use crate::error::{Context, Error, Result, bail, ensure, escape};
use crate::sys::Errno;
use crate::sys::netlink::Route;

use super::Origin;

/// `IFNAMSIZ` without the NUL at the end.
const LONGEST: usize = 15;

/// The devices to move, by their names on the host.
#[derive(Debug, Default)]
pub struct Devices(Vec<Device>);

#[derive(Debug, PartialEq, Eq)]
struct Device {
    host: String,
    inside: String,
}

impl Devices {
    /// Compiles `linux.netDevices`; they need a network namespace of the container's own.
    pub fn plan(linux: &Linux, network: Origin) -> Result<Devices> {
        let mut devices = Vec::new();
        for (host, device) in linux.net_devices().iter().flatten() {
            let inside = device.name().clone().filter(|name| !name.is_empty()).unwrap_or_else(|| host.clone());
            devices.push(Device { host: host.clone(), inside });
        }
        if network == Origin::Host && !devices.is_empty() {
            return Err(Error::new("needs a network namespace")
                .field("/linux/netDevices")
                .hint("add {\"type\": \"network\"} to linux.namespaces"));
        }
        devices.sort_by(|one, other| one.host.cmp(&other.host));
        for (index, device) in devices.iter().enumerate() {
            device.check().field(|| device.field())?;
            let twice = devices[..index].iter().any(|other| other.inside == device.inside) && !device.is_template();
            if twice {
                return Err(Error::new(format!("a second device is named {}", device.inside)).field(device.field()));
            }
        }
        Ok(Devices(devices))
    }

    /// True if there is nothing to move.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The dry run: whether the host has them.
    pub fn preflight(&self, tell: &mut dyn FnMut(Error)) {
        if self.is_empty() {
            return;
        }
        let Ok(here) = Route::open().context("open a netlink socket").map_err(&mut *tell) else { return };
        for device in &self.0 {
            device.find(&here).map(drop).field(|| device.field()).unwrap_or_else(&mut *tell);
        }
    }

    /// Moves all of them. All are looked up and their new names checked before the first is moved: a virtual device does not
    /// come back if the container cannot be created.
    pub fn move_to(&self, namespace: BorrowedFd<'_>) -> Result<()> {
        let here = Route::open().context("open a netlink socket")?;
        let there = Route::open_in(namespace).context("open a netlink socket in the container's network namespace")?;
        let mut found = Vec::new();
        for device in &self.0 {
            found.push(device.look_up(&here, &there).field(|| device.field())?);
        }
        for (device, index) in self.0.iter().zip(found) {
            let what = || format!("move the network device {} into the container", device.host);
            device.move_to(index, namespace, &here, &there).with_context(what).field(|| device.field())?;
        }
        Ok(())
    }
}

impl Device {
    fn field(&self) -> String {
        format!("/linux/netDevices/{}", escape(&self.host))
    }

    /// `%d` in a name stands for the first number that is free.
    fn is_template(&self) -> bool {
        self.inside.contains("%d")
    }

    fn check(&self) -> Result<()> {
        for (name, plain) in [(&self.host, self.host.clone()), (&self.inside, self.inside.replacen("%d", "", 1))] {
            // dev_valid_name() of the kernel.
            let sound = !name.is_empty()
                && name.len() <= LONGEST
                && name != "."
                && name != ".."
                && !plain.contains(|c: char| c == '/' || c == ':' || c == '%' || c.is_whitespace() || c == '\0');
            ensure!(sound, "{name:?} is not a valid name of a network device");
        }
        Ok(())
    }

    fn find(&self, here: &Route) -> Result<u32> {
        here.index_of(&self.host).with_context(|| format!("find the network device {}", self.host))
    }

    fn look_up(&self, here: &Route, there: &Route) -> Result<u32> {
        let index = self.find(here)?;
        if self.is_template() {
            return Ok(index);
        }
        match there.index_of(&self.inside) {
            Err(Errno::ENODEV) => Ok(index),
            Ok(_) => bail!("the container already has a network device {}", self.inside),
            Err(errno) => {
                Err(errno).with_context(|| format!("look up the network device {} in the container", self.inside))
            }
        }
    }

    fn move_to(&self, index: u32, namespace: BorrowedFd<'_>, here: &Route, there: &Route) -> Result<()> {
        let mut addresses = here.addresses(index).context("list its addresses")?;
        addresses.retain(|address| address.is_permanent_and_global());
        // A chosen index finds the device again, whatever name `%d` gave it.
        let mut new = index;
        while there.has(new).context("find a free interface index")? {
            new += 1;
        }
        here.move_link(index, namespace, new, &self.inside)?;
        for address in &addresses {
            there.add(new, address).context("restore an address")?;
        }
        there.bring_up(new).context("bring it up")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(devices: &str) -> Result<Devices> {
        let linux: Linux = serde_json::from_str(&format!(r#"{{"netDevices":{devices}}}"#)).unwrap();
        Devices::plan(&linux, Origin::New)
    }

    #[test]
    fn a_device_keeps_its_name_or_gets_the_one_asked_for() {
        let planned = plan(r#"{"eth1":{"name":"in"},"eth0":{},"eth2":{"name":"d%d"},"eth3":{"name":"d%d"}}"#).unwrap();
        let names: Vec<_> = planned.0.iter().map(|device| (&*device.host, &*device.inside)).collect();
        assert_eq!(names, [("eth0", "eth0"), ("eth1", "in"), ("eth2", "d%d"), ("eth3", "d%d")]);
    }

    #[test]
    fn names_that_no_device_can_have_are_refused_with_their_field() {
        for name in ["a/b", "a b", "a:b", "..", "0123456789abcdef", "a%s", "%d%d", "a\\n"] {
            let error = plan(&format!(r#"{{"eth0":{{"name":"{name}"}}}}"#)).unwrap_err();
            assert_eq!(error.field_name(), Some("/linux/netDevices/eth0"), "{name}");
        }
        assert!(plan(r#"{"":{}}"#).is_err() && plan(r#"{"e%d":{}}"#).is_err());
        let error = plan(r#"{"eth0":{"name":"x"},"eth1":{"name":"x"}}"#).unwrap_err();
        assert_eq!(error.field_name(), Some("/linux/netDevices/eth1"));
    }
}
