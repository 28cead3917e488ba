//! The namespaces of a container: new or joined ones, and the order in which they are entered.

pub mod delegated;
pub mod netdev;
pub mod sysctl;
pub mod time;
pub mod user;
pub mod uts;

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nix::unistd::Pid;
use oci_spec::runtime::{Linux, LinuxNamespaceType};

use crate::error::{Context, Error, Result};
use crate::input;
use crate::sys::{self, Errno, ns};

use netdev::Devices;
use time::Offsets;
use user::IdMaps;

/// The kinds with their name in config.json, in `/proc/PID/ns`, and their `CLONE_NEW*` flag.
///
/// In the order of joining: the user namespace last, since the capabilities to join the others may be those in the present
/// one; the mount namespace before it, since paths change their meaning afterwards.
pub const KINDS: [NamespaceKind; 8] = [
    NamespaceKind { spec_name: "ipc", proc_name: "ipc", flag: ns::Flags::IPC },
    NamespaceKind { spec_name: "uts", proc_name: "uts", flag: ns::Flags::UTS },
    NamespaceKind { spec_name: "network", proc_name: "net", flag: ns::Flags::NETWORK },
    NamespaceKind { spec_name: "pid", proc_name: "pid", flag: ns::Flags::PID },
    NamespaceKind { spec_name: "cgroup", proc_name: "cgroup", flag: ns::Flags::CGROUP },
    NamespaceKind { spec_name: "time", proc_name: "time", flag: ns::Flags::TIME },
    NamespaceKind { spec_name: "mount", proc_name: "mnt", flag: ns::Flags::MOUNT },
    NamespaceKind { spec_name: "user", proc_name: "user", flag: ns::Flags::USER },
];

/// One kind of namespace.
#[derive(Debug, PartialEq, Eq)]
pub struct NamespaceKind {
    /// The type in the runtime-spec.
    pub spec_name: &'static str,
    /// The name below `/proc/PID/ns`.
    pub proc_name: &'static str,
    /// The flag of clone3(2) and setns(2).
    pub flag: ns::Flags,
}

/// The origin of a namespace of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The runtime's own.
    Host,
    /// A new one.
    New,
    /// One that exists, entered by its path.
    Joined,
}

/// The namespaces of a container, checked.
#[derive(Debug, Default)]
pub struct Namespaces {
    /// The new ones.
    new: ns::Flags,
    joins: Vec<NamespacePath>,
    maps: Option<IdMaps>,
    offsets: Option<Offsets>,
    devices: Devices,
}

#[derive(Debug)]
struct NamespacePath {
    kind: &'static NamespaceKind,
    path: PathBuf,
    field: String,
}

/// An open namespace to join.
#[derive(Debug)]
pub struct JoinedNamespace {
    /// Its kind.
    pub kind: &'static NamespaceKind,
    /// The descriptor.
    pub fd: OwnedFd,
}

impl Namespaces {
    /// Compiles `linux.namespaces`, the id maps and the time offsets (runtime-spec, "Linux Namespaces").
    pub fn plan(linux: Option<&Linux>) -> Result<Namespaces> {
        let Some(linux) = linux else { return Ok(Namespaces::default()) };
        let mut planned = Namespaces::default();
        for (index, namespace) in linux.namespaces().iter().flatten().enumerate() {
            let field = format!("/linux/namespaces/{index}");
            let kind = kind_of(namespace.typ());
            if planned.origin(kind.flag) != Origin::Host {
                return Err(Error::new(format!("there is a second {} namespace", kind.spec_name)).field(field));
            }
            match namespace.path() {
                Some(path) if !path.as_os_str().is_empty() => {
                    planned.joins.push(NamespacePath { kind, path: path.clone(), field });
                }
                _ => planned.new |= kind.flag,
            }
        }
        planned.joins.sort_by_key(|join| KINDS.iter().position(|kind| kind == join.kind));
        planned.maps = IdMaps::plan(linux, planned.origin(ns::Flags::USER))?;
        planned.devices = Devices::plan(linux, planned.origin(ns::Flags::NETWORK))?;
        planned.offsets = Offsets::plan(linux, planned.origin(ns::Flags::TIME))?;
        Ok(planned)
    }

    /// The origin of the namespace with this flag.
    pub fn origin(&self, flag: ns::Flags) -> Origin {
        if self.new.contains(flag) {
            Origin::New
        } else if self.joins.iter().any(|join| join.kind.flag == flag) {
            Origin::Joined
        } else {
            Origin::Host
        }
    }

    /// The flags for clone3(2), without that of a time namespace with offsets: the child unshares it and sets the offsets before
    /// it joins (time_namespaces(7): they are fixed once a process is inside).
    pub fn clone_flags(&self) -> ns::Flags {
        let now = self.new & !self.late_flags();
        match self.offsets {
            Some(_) => now & !ns::Flags::TIME,
            None => now,
        }
    }

    /// The id maps of a new user namespace.
    pub fn maps(&self) -> Option<&IdMaps> {
        self.maps.as_ref().filter(|_| self.origin(ns::Flags::USER) == Origin::New)
    }

    /// Network devices to move from the host.
    pub fn devices(&self) -> &Devices {
        &self.devices
    }

    /// Checks that the joined user namespace of this process has the id maps of the configuration, on which its author relies,
    /// for example for owners of files.
    pub fn ensure_joined_maps(&self, pid: Pid) -> Result<()> {
        let joined = self.origin(ns::Flags::USER) == Origin::Joined;
        self.maps.as_ref().filter(|_| joined).map_or(Ok(()), |maps| maps.ensure_those_of(pid))
    }

    /// New namespaces that [`Namespaces::clone_flags`] leaves to the child, as root of its new user namespace: the root of the
    /// mqueue file system belongs to the maker of an ipc namespace, and in clone3(2) that is the host's root, which is not
    /// mapped in the container.
    pub fn late_flags(&self) -> ns::Flags {
        let late = ns::Flags::IPC;
        if self.new.contains(ns::Flags::USER) { self.new & late } else { ns::Flags::empty() }
    }

    /// The offsets of a new time namespace. If a user namespace is joined ([`Namespaces::joins_user`]) they are written before
    /// the change of ids, since its root may not.
    pub fn offsets(&self) -> Option<&Offsets> {
        self.offsets.as_ref()
    }

    /// The same, for the container's half, which needs nothing else.
    pub fn into_offsets(self) -> Option<Offsets> {
        self.offsets
    }

    /// Whether the user namespace is joined.
    pub fn joins_user(&self) -> bool {
        self.origin(ns::Flags::USER) == Origin::Joined
    }

    /// The names below `/proc/PID/ns` in which the container differs from the host: what an exec must enter.
    pub fn unshared(&self) -> Vec<&'static str> {
        KINDS.iter().filter(|kind| self.origin(kind.flag) != Origin::Host).map(|kind| kind.proc_name).collect()
    }

    /// The names below `/proc/PID/ns` of those that are joined.
    pub fn joined_files(&self) -> impl Iterator<Item = &'static str> {
        self.joins.iter().map(|join| join.kind.proc_name)
    }

    /// The path of a joined one.
    pub fn joined_path(&self, kind: &NamespaceKind) -> Option<&std::path::Path> {
        self.joins.iter().find(|join| join.kind == kind).map(|join| join.path.as_path())
    }

    /// Opens the namespaces to join, in their order, and checks their types.
    pub fn open(&self) -> Result<Vec<JoinedNamespace>> {
        self.joins.iter().map(NamespacePath::open).collect()
    }

    /// [`Namespaces::open`] for a dry run: passes all errors to `tell`; `None` if there are any.
    pub fn preflight(&self, tell: &mut dyn FnMut(Error)) -> Option<Vec<JoinedNamespace>> {
        let entries: Vec<JoinedNamespace> =
            self.joins.iter().filter_map(|join| join.open().map_err(&mut *tell).ok()).collect();
        (entries.len() == self.joins.len()).then_some(entries)
    }

    /// Refuses settings that would change the host because the joined namespace is the runtime's.
    pub fn is_hosts_own(&self, flag: ns::Flags) -> Result<bool> {
        let Some(join) = self.joins.iter().find(|join| join.kind.flag == flag) else {
            return Ok(self.origin(flag) == Origin::Host);
        };
        let own = fs::metadata(format!("/proc/self/ns/{}", join.kind.proc_name))
            .context("stat the runtime's own namespace")?;
        let other = fs::metadata(&join.path)
            .with_context(|| format!("open the {} namespace {}", join.kind.spec_name, join.path.display()))
            .field(|| format!("{}/path", join.field))?;
        Ok(own.ino() == other.ino() && own.dev() == other.dev())
    }
}

impl NamespacePath {
    fn open(&self) -> Result<JoinedNamespace> {
        let what = || format!("open the {} namespace {}", self.kind.spec_name, self.path.display());
        let field = || format!("{}/path", self.field);
        let file = input::open_namespace(&self.path).with_context(what).field(field)?;
        match sys::ns::kind(file.as_fd()) {
            Ok(kind) if kind == self.kind.flag => Ok(JoinedNamespace { kind: self.kind, fd: file.into() }),
            Ok(kind) => {
                let real = KINDS.iter().find(|known| known.flag == kind).map_or("unknown", |known| known.spec_name);
                Err(Error::new(format!("is a {real} namespace, not a {} namespace", self.kind.spec_name)))
                    .with_context(what)
                    .field(field)
            }
            Err(errno) => Err(errno).with_context(what).field(field),
        }
    }
}

/// Joins open namespaces in their order, setns(2), except the pid namespace, which setns(2) only sets for children.
///
/// One that is refused is tried again after the user namespace, which may give the capability.
pub fn enter(entries: &[JoinedNamespace]) -> Result<()> {
    let mut refused = Vec::new();
    let mut user_to_come = entries.iter().any(|entry| entry.kind.flag == ns::Flags::USER);
    for entry in entries.iter().filter(|entry| entry.kind.flag != ns::Flags::PID) {
        user_to_come &= entry.kind.flag != ns::Flags::USER;
        match entry.enter() {
            Err(Errno::EPERM) if user_to_come => refused.push(entry),
            done => done.with_context(|| format!("join the {} namespace", entry.kind.spec_name))?,
        }
    }
    for entry in refused {
        entry.enter().with_context(|| format!("join the {} namespace", entry.kind.spec_name))?;
    }
    Ok(())
}

/// Makes the pid namespace among the entries that of future children, setns(2).
pub fn set_pid_namespace_of_children(entries: &[JoinedNamespace]) -> Result<()> {
    let entry = entries.iter().find(|entry| entry.kind.flag == ns::Flags::PID);
    entry.map_or(Ok(()), JoinedNamespace::enter).context("join the pid namespace")
}

impl JoinedNamespace {
    fn enter(&self) -> Result<(), Errno> {
        sys::clone::setns(self.fd.as_fd(), self.kind.flag)
    }
}

/// The table row of a type of the spec.
fn kind_of(word: LinuxNamespaceType) -> &'static NamespaceKind {
    let flag = match word {
        LinuxNamespaceType::Mount => ns::Flags::MOUNT,
        LinuxNamespaceType::Cgroup => ns::Flags::CGROUP,
        LinuxNamespaceType::Uts => ns::Flags::UTS,
        LinuxNamespaceType::Ipc => ns::Flags::IPC,
        LinuxNamespaceType::User => ns::Flags::USER,
        LinuxNamespaceType::Pid => ns::Flags::PID,
        LinuxNamespaceType::Network => ns::Flags::NETWORK,
        LinuxNamespaceType::Time => ns::Flags::TIME,
    };
    KINDS.iter().find(|kind| kind.flag == flag).expect("the table has every kind")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linux(json: &str) -> Linux {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn new_and_joined_namespaces_are_told_apart() {
        let linux =
            linux(r#"{"namespaces":[{"type":"pid"},{"type":"network","path":"/run/n"},{"type":"uts","path":""}]}"#);
        let planned = Namespaces::plan(Some(&linux)).unwrap();
        assert_eq!(planned.clone_flags(), ns::Flags::PID | ns::Flags::UTS);
        assert_eq!(planned.origin(ns::Flags::NETWORK), Origin::Joined);
        assert_eq!(planned.origin(ns::Flags::MOUNT), Origin::Host);
        assert_eq!(planned.unshared(), ["uts", "net", "pid"]);
    }

    #[test]
    fn a_second_namespace_of_a_kind_is_refused_with_its_field() {
        let linux = linux(r#"{"namespaces":[{"type":"pid"},{"type":"pid"}]}"#);
        let error = Namespaces::plan(Some(&linux)).unwrap_err();
        assert_eq!(error.field_name(), Some("/linux/namespaces/1"));
    }

    #[test]
    fn the_user_namespace_is_joined_last() {
        let linux = linux(
            r#"{"namespaces":[{"type":"user","path":"/u"},{"type":"mount","path":"/m"},{"type":"ipc","path":"/i"}]}"#,
        );
        let planned = Namespaces::plan(Some(&linux)).unwrap();
        let words: Vec<_> = planned.joins.iter().map(|join| join.kind.spec_name).collect();
        assert_eq!(words, ["ipc", "mount", "user"]);
    }

    #[test]
    fn a_file_of_another_kind_is_refused_by_name() {
        let linux = linux(r#"{"namespaces":[{"type":"network","path":"/proc/self/ns/uts"}]}"#);
        let error = Namespaces::plan(Some(&linux)).unwrap().open().unwrap_err();
        assert!(error.to_string().contains("is a uts namespace, not a network namespace"), "{error}");
    }
}
