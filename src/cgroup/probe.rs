//! What this host has for cgroups.

use super::controllers::Controller;
use super::location::Location;
use super::mount::Mount;
use super::{cgroupfs, controllers, devices, own, systemd};
use crate::error::{Error, Result};

/// See the module's head.
pub struct Probe {
    /// Where cgroup v2 is mounted, or why it is nowhere.
    pub mount: Result<&'static str>,
    /// Hierarchies of version 1 lie beside it.
    pub hybrid: bool,
    /// The controllers asked for; why one is not to be had.
    pub controllers: Vec<(&'static str, Option<Error>)>,
    /// Whether cgroups can be made beside the runtime's own.
    pub delegated: Result<()>,
    /// The controllers that are handed down there.
    pub handed_down: Vec<&'static str>,
    /// Whether the kernel takes device rules.
    pub devices: Result<()>,
    /// The socket of the manager that makes cgroups, or why there is none.
    pub systemd: Result<String>,
}

impl Probe {
    /// Looks, also for these controllers; changes nothing.
    pub fn run(names: impl Iterator<Item = &'static str> + Clone) -> Probe {
        let mount = Mount::find();
        let own = own::own().map(|(_, directory)| directory).unwrap_or_default();
        let parent = own.rsplit_once('/').map_or("", |(parent, _)| parent);
        let had = |name: &'static str| {
            let location = Location::new(mount.as_ref().ok().copied()?, "container".to_owned(), 0);
            let controller = Controller::of(name)?;
            Some((name, controllers::not_had(name, controller, &location)))
        };
        let down = super::files::read(&format!("{parent}/cgroup.subtree_control")).unwrap_or_default();
        let down = |name: &&'static str| down.split_whitespace().any(|word| word == *name);
        Probe {
            hybrid: mount.as_ref().is_ok_and(|mount| mount.path() != "/sys/fs/cgroup"),
            controllers: names.clone().filter_map(had).collect(),
            delegated: cgroupfs::writable(parent),
            handed_down: names.filter(down).collect(),
            devices: devices::probe(),
            systemd: systemd::find_socket(),
            mount: mount.map(Mount::path),
        }
    }
}
