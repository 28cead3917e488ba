//! What the config asks of a cgroup.

use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;

use oci_spec::runtime::Linux;

use super::controllers::Set;
use super::devices::{self, Program};
use super::limits::Limits;
use super::location::clean;
use super::{own, systemd};
use crate::error::{Context, Result, bail, ensure};

/// Who makes cgroups (`--cgroup-manager`, `--systemd-cgroup`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    /// Directories made by us.
    Cgroupfs,
    /// Scopes made by systemd.
    Systemd,
    /// Nobody: the container stays in the caller's cgroup, without limits and device rules.
    Disabled,
}

/// What the config asks of a cgroup, checked and converted.
pub struct Request {
    pub(super) id: String,
    pub(super) path: Wanted,
    /// `linux.cgroupsPath` says where it is to be.
    pub(super) named: bool,
    pub(super) limits: Limits,
    pub(super) devices: Option<Program>,
    /// What systemd is asked for, when it makes the cgroup; `path` then says nothing.
    pub(super) unit: Option<Rc<systemd::Wanted>>,
}

/// `linux.cgroupsPath`, cleaned: components without `.`, `..` and empty ones, at least one.
#[derive(Debug, PartialEq)]
pub(super) enum Wanted {
    /// Below the root of the mount.
    Absolute(String),
    /// Beside the cgroup that the runtime itself is in: below that one nothing could be limited, since it has processes.
    Sibling(String),
}

impl Request {
    /// Reads `linux.cgroupsPath` and `linux.resources`; looks at nothing of the host. Without a config (`None`) the
    /// path comes from the id, and the default device rules hold.
    ///
    /// `None` with [`Manager::Disabled`]: no cgroup is made and `linux.resources` is not looked at. Annotations are
    /// for systemd.
    pub fn plan(
        linux: Option<&Linux>,
        id: &str,
        manager: Manager,
        annotations: Option<&HashMap<String, String>>,
    ) -> Result<Option<Request>> {
        let path = linux.and_then(|linux| linux.cgroups_path().as_deref()).unwrap_or(Path::new(""));
        let resources = linux.and_then(|linux| linux.resources().as_ref());
        let rules = resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
        let limits = || resources.map(Limits::plan).transpose().map(Option::unwrap_or_default);
        let (wanted, limits, unit) = match manager {
            Manager::Disabled => return Ok(None),
            Manager::Cgroupfs => (Wanted::plan(path, id).field(|| "/linux/cgroupsPath")?, limits()?, None),
            Manager::Systemd => {
                let limits = limits()?;
                let unit = systemd::Wanted::plan(path, id, &limits, rules, annotations)?;
                (Wanted::Absolute(String::new()), limits, Some(Rc::new(unit)))
            }
        };
        let (id, named, devices) = (id.to_owned(), !path.as_os_str().is_empty(), Program::plan(rules)?);
        Ok(Some(Request { id, path: wanted, named, limits, devices, unit }))
    }

    /// The number of the device rules, by which an `update` that brings the same ones is known.
    pub fn device_rules(&self) -> u64 {
        devices::digest(&self.devices)
    }

    /// The limit on its memory, in bytes.
    pub fn memory_limit(&self) -> Option<u64> {
        let last = self.limits.writes().iter().rfind(|write| write.file == "memory.max")?;
        last.value.parse().ok()
    }

    /// The controllers without which the limits can't be kept.
    pub(super) fn controllers(&self) -> Set {
        self.limits.controllers()
    }
}

impl Wanted {
    fn plan(path: &Path, id: &str) -> Result<Wanted> {
        let Some(text) = path.to_str() else { bail!("{} is not UTF-8", path.display()) };
        ensure!(!text.contains(['\n', '\0']), "{text:?} has a character that no cgroup can have in its name");
        let clean = clean(if text.is_empty() { id } else { text });
        ensure!(!clean.is_empty(), "{text:?} names no cgroup below the root of the hierarchy");
        Ok(if text.starts_with('/') { Wanted::Absolute(clean) } else { Wanted::Sibling(clean) })
    }

    /// The path below the mount. `own` is the content of `/proc/self/cgroup`, asked for only where it matters.
    pub(super) fn resolve(&self, own: impl FnOnce() -> Result<String>) -> Result<String> {
        match self {
            Wanted::Absolute(path) => Ok(path.clone()),
            Wanted::Sibling(path) => {
                let own = own()?;
                let Some(own) = own::path_in(&own) else { bail!("the runtime itself is in no cgroup of version 2") };
                let parent = own.rsplit_once('/').map_or("", |(parent, _)| parent);
                Ok(clean(&format!("{parent}/{path}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(path: &str, own: &str) -> String {
        let wanted = Wanted::plan(Path::new(path), "web").unwrap();
        wanted.resolve(|| Ok(format!("4:memory:/x\n0::{own}\n"))).unwrap()
    }

    #[test]
    fn an_absolute_path_is_taken_as_it_is_and_cleaned() {
        assert_eq!(resolved("/a/b", "/own"), "a/b");
        assert_eq!(resolved("//a/./b/../c/", "/own"), "a/c");
        assert_eq!(resolved("/../../a", "/own"), "a");
        let never = Wanted::plan(Path::new("/a"), "web").unwrap().resolve(|| panic!("not needed"));
        assert_eq!(never.unwrap(), "a");
    }

    #[test]
    fn a_relative_path_and_none_lie_beside_our_own_cgroup() {
        assert_eq!(resolved("a/b", "/user/session"), "user/a/b");
        assert_eq!(resolved("", "/user/session"), "user/web");
        assert_eq!(resolved("", "/session"), "web");
        assert_eq!(resolved("", "/"), "web");
        assert_eq!(resolved("../../a", "/user/session"), "user/a");
        assert_eq!(resolved("a", "/../../outside"), "a");
    }

    #[test]
    fn a_path_that_names_no_cgroup_is_refused() {
        for path in ["/", "/..", ".", "a/..", "/a\nb"] {
            let error = Wanted::plan(Path::new(path), "web").unwrap_err();
            assert!(error.to_string().contains("cgroup"), "{error}");
        }
    }

    #[test]
    fn the_systemd_manager_makes_a_unit_and_none_is_no_request() {
        let request = Request::plan(None, "web", Manager::Systemd, None).unwrap().unwrap();
        assert!(request.unit.is_some());
        assert!(Request::plan(None, "web", Manager::Disabled, None).unwrap().is_none());
    }

    #[test]
    fn without_resources_the_default_device_rules_hold() {
        let request = Request::plan(None, "web", Manager::Cgroupfs, None).unwrap().unwrap();
        assert!(request.devices.is_some() && request.limits.writes().is_empty());
        assert_eq!(request.path, Wanted::Sibling("web".into()));
    }
}
