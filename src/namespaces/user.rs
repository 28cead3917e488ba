//! Id maps of a user namespace, user_namespaces(7).

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;

use nix::unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid};
use oci_spec::runtime::{Linux, LinuxIdMapping};

use crate::error::{Context, Error, Result};
use crate::sys::Errno;

use super::{Origin, delegated};

/// The maps of users and groups between a user namespace and its parent.
#[derive(Debug, Default, Clone)]
pub struct IdMaps {
    users: Vec<Range>,
    groups: Vec<Range>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub(super) inside: u32,
    pub(super) outside: u32,
    pub(super) size: u32,
}

impl IdMaps {
    /// Compiles `linux.uidMappings` and `linux.gidMappings`.
    pub fn plan(linux: &Linux, user: Origin) -> Result<Option<IdMaps>> {
        let users = ranges(linux.uid_mappings().as_deref(), "/linux/uidMappings")?;
        let groups = ranges(linux.gid_mappings().as_deref(), "/linux/gidMappings")?;
        let given = !users.is_empty() || !groups.is_empty();
        match user {
            Origin::Host if given => Err(Error::new("id mappings need a user namespace")
                .field(if users.is_empty() { "/linux/gidMappings" } else { "/linux/uidMappings" })
                .hint("add {\"type\": \"user\"} to linux.namespaces")),
            Origin::Host => Ok(None),
            Origin::Joined => Ok(given.then_some(IdMaps { users, groups })),
            Origin::New if users.is_empty() => {
                Err(Error::new("a new user namespace needs a map of users").field("/linux/uidMappings"))
            }
            Origin::New if groups.is_empty() => {
                Err(Error::new("a new user namespace needs a map of groups").field("/linux/gidMappings"))
            }
            Origin::New => Ok(Some(IdMaps { users, groups })),
        }
    }

    /// The outer id of an inner user.
    pub fn host_user(&self, inside: u32) -> Option<u32> {
        let holds = |range: &&Range| inside.checked_sub(range.inside).is_some_and(|offset| offset < range.size);
        self.users.iter().find(holds).map(|range| range.outside + (inside - range.inside))
    }

    /// Writes both maps for a process in the new namespace. Each file takes a single write(2), once. What the kernel does
    /// not let us write, the helpers of shadow may.
    pub fn write(&self, pid: Pid) -> Result<()> {
        let groups = match write(pid, "gid_map", &self.groups) {
            Err(error) if is_denied(&error) => delegated::write_groups(pid, &self.groups, error),
            done => done,
        };
        groups.field(|| "/linux/gidMappings")?;
        let users = match write(pid, "uid_map", &self.users) {
            Err(error) if is_denied(&error) => delegated::write(&delegated::USERS, pid, &self.users),
            done => done,
        };
        users.field(|| "/linux/uidMappings")
    }
}

/// The setting of the host that switches user namespaces off, as a remedy.
pub fn switched_off() -> Option<&'static str> {
    let is_zero = |path: &str| fs::read_to_string(path).is_ok_and(|value| value.trim() == "0");
    if is_zero("/proc/sys/user/max_user_namespaces") {
        return Some("user namespaces are switched off: sysctl user.max_user_namespaces=15000");
    }
    // Of Debian's kernels.
    is_zero("/proc/sys/kernel/unprivileged_userns_clone")
        .then_some("user namespaces are switched off for all but root: sysctl kernel.unprivileged_userns_clone=1")
}

/// Becomes root inside a user namespace just entered: groups, then gid, then uid, since each needs the one before.
pub fn become_root() -> Result<()> {
    match setgroups(&[]) {
        // EPERM: setgroups(2) is denied in this namespace (a single-id map); nothing can be gained by keeping groups.
        Ok(()) | Err(Errno::EPERM) => {}
        Err(errno) => return Err(errno).context("drop the groups of the host"),
    }
    let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
    setresgid(group, group, group).context("become group root of the user namespace")?;
    setresuid(user, user, user).context("become root of the user namespace")
}

fn ranges(list: Option<&[LinuxIdMapping]>, field: &'static str) -> Result<Vec<Range>> {
    let mut ranges = Vec::new();
    for (index, map) in list.unwrap_or_default().iter().enumerate() {
        let range = Range { inside: map.container_id(), outside: map.host_id(), size: map.size() };
        if range.size == 0 {
            return Err(Error::new("a mapping must cover at least one id").field(format!("{field}/{index}/size")));
        }
        ranges.push(range);
    }
    Ok(ranges)
}

fn is_denied(error: &Error) -> bool {
    error.errno() == Some(Errno::EPERM)
}

pub(super) fn write(pid: Pid, name: &str, ranges: &[Range]) -> Result<()> {
    let mut text = String::new();
    for Range { inside, outside, size } in ranges {
        let _ = writeln!(text, "{inside} {outside} {size}");
    }
    let path = format!("/proc/{pid}/{name}");
    let mut file = fs::OpenOptions::new().write(true).open(&path).with_context(|| format!("open {path}"))?;
    file.write_all(text.as_bytes())
        .with_context(|| format!("write the map {} to {path}", text.trim().replace('\n', ", ")))
}
