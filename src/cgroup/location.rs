//! Where a container's cgroup is: a value, as the record keeps it. Nothing of the host is looked at here.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::mount::Mount;
use crate::dbus::Address;

/// Who made a cgroup and takes it away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// Directories made by us.
    Cgroupfs,
    /// A unit of systemd.
    Systemd(SystemdUnit),
}

/// The unit of systemd that a cgroup belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemdUnit {
    #[serde(rename = "unit")]
    pub(super) name: String,
    pub(super) manager: Address,
}

/// Where a container's cgroup is and which of its directories this container made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Location {
    driver: Driver,
    mount: String,
    path: String,
    made: usize,
    /// The mark by which the cgroup is known to be the container's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<String>,
}

/// The form on disk, before it is checked.
#[derive(Deserialize)]
struct Stored {
    driver: Driver,
    mount: String,
    path: String,
    made: usize,
    #[serde(default)]
    owner: Option<String>,
}

impl TryFrom<Stored> for Location {
    type Error = String;

    fn try_from(stored: Stored) -> std::result::Result<Location, String> {
        let Stored { driver, mount, path, made, owner } = stored;
        let depth = path.split('/').count();
        if path.is_empty() || clean(&path) != path || !mount.starts_with('/') || made > depth {
            return Err(format!("{mount}/{path} is not the place of a cgroup"));
        }
        Ok(Location { driver, mount, path, made, owner })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "/{}", self.path)
    }
}

impl Location {
    /// A cgroup below the mount, whose last `made` components are not there yet. The path is a cleaned one.
    pub(super) fn new(mount: Mount, path: String, made: usize) -> Location {
        Location { driver: Driver::Cgroupfs, mount: mount.path().to_owned(), path, made, owner: None }
    }

    /// The cgroup of a unit that systemd is to make.
    pub(super) fn of_unit(mount: Mount, path: String, unit: SystemdUnit) -> Location {
        Location { driver: Driver::Systemd(unit), mount: mount.path().to_owned(), path, made: 1, owner: None }
    }

    /// The same one at another path below the mount, a cleaned one.
    pub(super) fn moved_to(&self, path: String) -> Location {
        Location { path, ..self.clone() }
    }

    /// A cgroup below this one, by a cleaned path.
    pub(super) fn below(&self, path: &str) -> Location {
        Location { made: 0, ..self.moved_to(format!("{}/{path}", self.path)) }
    }

    /// The unit of systemd that it belongs to.
    pub fn unit(&self) -> Option<&SystemdUnit> {
        match &self.driver {
            Driver::Systemd(unit) => Some(unit),
            Driver::Cgroupfs => None,
        }
    }

    /// Where cgroup v2 is mounted.
    pub fn mount(&self) -> &str {
        &self.mount
    }

    /// The path below the mount, without a leading slash.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The absolute path of the directory.
    pub fn directory(&self) -> String {
        format!("{}/{}", self.mount, self.path)
    }

    /// The absolute path of a file in it.
    pub(super) fn file(&self, name: &str) -> String {
        format!("{}/{}/{name}", self.mount, self.path)
    }

    /// How many of its directories the container made, from the leaf up.
    pub fn made(&self) -> usize {
        self.made
    }

    pub(super) fn set_made(&mut self, made: usize) {
        self.made = made;
    }

    /// The directories above it from the mount's root down.
    pub(super) fn ancestors(&self) -> impl Iterator<Item = String> {
        let slashes = self.path.match_indices('/').map(|(at, _)| format!("{}/{}", self.mount, &self.path[..at]));
        std::iter::once(self.mount.clone()).chain(slashes)
    }

    /// Itself and the directories above it, from the leaf up, without the mount's root.
    pub(super) fn upwards(&self) -> impl Iterator<Item = String> {
        let slashes = self.path.rmatch_indices('/').map(|(at, _)| format!("{}/{}", self.mount, &self.path[..at]));
        std::iter::once(self.directory()).chain(slashes)
    }
}

/// Resolves `.`, `..` and double slashes by the text alone; never above the start. No slash at either end.
pub(super) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(text: &str) -> serde_json::Result<Location> {
        serde_json::from_str(text)
    }

    #[test]
    fn a_location_survives_the_record() {
        let text = r#"{"driver":"cgroupfs","mount":"/sys/fs/cgroup","path":"a/b","made":1}"#;
        let location = location(text).unwrap();
        assert_eq!(serde_json::to_string(&location).unwrap(), text);
        assert_eq!((location.directory().as_str(), location.to_string().as_str()), ("/sys/fs/cgroup/a/b", "/a/b"));
        assert_eq!(location.ancestors().collect::<Vec<_>>(), ["/sys/fs/cgroup", "/sys/fs/cgroup/a"]);
        assert_eq!(location.upwards().collect::<Vec<_>>(), ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a"]);
    }

    #[test]
    fn a_unit_survives_the_record() {
        let unit = r#"{"systemd":{"unit":"a.scope","manager":{"socket":"/run/systemd/private","bus":false}}}"#;
        let text = format!(r#"{{"driver":{unit},"mount":"/sys/fs/cgroup","path":"system.slice/a.scope","made":1}}"#);
        let location = location(&text).unwrap();
        assert_eq!(location.unit().unwrap().name, "a.scope");
        assert_eq!(serde_json::to_string(&location).unwrap(), text);
    }

    #[test]
    fn a_mark_survives_the_record() {
        let text = r#"{"driver":"cgroupfs","mount":"/sys/fs/cgroup","path":"a","made":1,"owner":"web 7"}"#;
        let location = location(text).unwrap();
        assert_eq!(location.owner.as_deref(), Some("web 7"));
        assert_eq!(serde_json::to_string(&location).unwrap(), text);
    }

    #[test]
    fn a_record_cannot_point_outside_the_mount() {
        for path in ["", "..", "../etc", "a/../../etc", "/etc", "a//b", "a/"] {
            let text = format!(r#"{{"driver":"cgroupfs","mount":"/sys/fs/cgroup","path":"{path}","made":0}}"#);
            assert!(location(&text).is_err(), "{path}");
        }
        assert!(location(r#"{"driver":"cgroupfs","mount":"/sys/fs/cgroup","path":"a","made":2}"#).is_err());
    }

    #[test]
    fn a_cgroup_below_another_is_nobodys_directory() {
        let location = location(r#"{"driver":"cgroupfs","mount":"/m","path":"a/b","made":2}"#).unwrap();
        let (below, moved) = (location.below("c/d"), location.moved_to("e".to_owned()));
        assert_eq!((below.directory().as_str(), below.made()), ("/m/a/b/c/d", 0));
        assert_eq!((moved.directory().as_str(), moved.made()), ("/m/e", 2));
    }
}
