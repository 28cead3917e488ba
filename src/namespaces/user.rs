//! Id maps of a user namespace, user_namespaces(7).

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;

use nix::unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid};
use oci_spec::runtime::{Linux, LinuxIdMapping};

use crate::error::{Context, Error, Result, ensure};
use crate::sys::procfs::idmap::{self, IdRange};
use crate::sys::{self, Errno};

use super::{Origin, delegated};

/// The maps of users and groups between a user namespace and its parent.
#[derive(Debug, Default, Clone)]
pub struct IdMaps {
    users: Vec<IdRange>,
    groups: Vec<IdRange>,
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
        idmap::outer(self.users.iter().copied(), inside)
    }

    /// The outer id of an inner group.
    pub fn host_group(&self, inside: u32) -> Option<u32> {
        idmap::outer(self.groups.iter().copied(), inside)
    }

    /// Writes both maps of a process in the new namespace. Each file accepts one write(2), once. If the kernel refuses it, the
    /// helpers of shadow may do it.
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

    /// Checks that the joined namespace, in which `pid` is, has these maps. Maps that are not given are not compared.
    pub fn ensure_those_of(&self, pid: Pid) -> Result<()> {
        ensure_same(pid, "uid_map", &self.users).field(|| "/linux/uidMappings")?;
        ensure_same(pid, "gid_map", &self.groups).field(|| "/linux/gidMappings")
    }
}

fn ensure_same(pid: Pid, name: &str, wanted: &[IdRange]) -> Result<()> {
    // What Podman writes when it joins one, since runc once wanted some map.
    const DUMMY: [IdRange; 1] = [IdRange { inside: 0, outside: 0, size: 1 }];
    if wanted.is_empty() || wanted == DUMMY {
        return Ok(());
    }
    let path = format!("/proc/{pid}/{name}");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    ensure!(
        joined_up(wanted.to_vec()) == joined_up(idmap::parse(&text).collect()),
        "the mappings differ from those of the user namespace that is joined: {}",
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    );
    Ok(())
}

/// The outer id of an inner user in the user namespace of a process.
pub fn host_user_of(pid: Pid, inside: u32) -> Option<u32> {
    fs::read_to_string(format!("/proc/{pid}/uid_map")).ok().and_then(|text| idmap::outer(idmap::parse(&text), inside))
}

/// The same map in as few ranges as possible, in order.
fn joined_up(mut ranges: Vec<IdRange>) -> Vec<IdRange> {
    ranges.sort_by_key(|range| range.inside);
    let mut joined: Vec<IdRange> = Vec::new();
    for next in ranges {
        match joined.last_mut() {
            Some(last) if last.goes_on_as(&next) => last.size += next.size,
            _ => joined.push(next),
        }
    }
    joined
}

/// The sysctl that disables user namespaces, as a hint.
pub fn switched_off() -> Option<&'static str> {
    off_for_users().or_else(restricted)
}

/// The same for settings that disable them for users other than root.
pub fn off_for_users() -> Option<&'static str> {
    let is_zero = |path: &str| fs::read_to_string(path).is_ok_and(|value| value.trim() == "0");
    if is_zero("/proc/sys/user/max_user_namespaces") {
        return Some("user namespaces are switched off: sysctl user.max_user_namespaces=15000");
    }
    // Of Debian's kernels.
    if is_zero("/proc/sys/kernel/unprivileged_userns_clone") {
        return Some("user namespaces are switched off for all but root: sysctl kernel.unprivileged_userns_clone=1");
    }
    None
}

/// Of Ubuntu's kernels, from 23.10 on: the namespace is made, with no capability in it.
fn restricted() -> Option<&'static str> {
    let restricted = fs::read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
    restricted.is_ok_and(|value| value.starts_with(b"1")).then_some(
        "AppArmor forbids user namespaces to all but root: give this program a profile that has `userns,`, \
        or sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    )
}

/// Drops the supplementary groups before a user namespace is joined. An unprivileged runtime keeps them: they are its
/// user's.
pub fn drop_groups() -> Result<()> {
    match setgroups(&[]) {
        Ok(()) | Err(Errno::EPERM) => Ok(()),
        Err(errno) => Err(errno).context("drop the groups of the host"),
    }
}

/// The user and the group of a process, as its user namespace counts them.
pub type Ids = (u32, u32);

/// Becomes root of a user namespace after the join: groups, then gid, then uid, since the later change takes the right to the
/// earlier. Without a mapped id 0 it takes the ids of the container process `instead`; the capabilities stay
/// (capabilities(7): only a change from root drops them).
pub fn become_root(instead: Ids) -> Result<()> {
    // Denied in a namespace with a single-id map. Before a join, the groups were dropped already.
    drop_groups()?;
    let (user, group) = instead;
    let set_group = |id| setresgid(Gid::from_raw(id), Gid::from_raw(id), Gid::from_raw(id));
    first_mapped("group", group, set_group).field(|| "/process/user/gid")?;
    let set_user = |id| setresuid(Uid::from_raw(id), Uid::from_raw(id), Uid::from_raw(id));
    first_mapped("user", user, set_user).field(|| "/process/user/uid")?;
    // A change of ids resets it to fs.suid_dumpable (PR_SET_DUMPABLE(2const)).
    sys::start::stay_non_dumpable().context("stay non-dumpable")
}

fn first_mapped(kind: &str, instead: u32, set: impl Fn(u32) -> Result<(), Errno>) -> Result<()> {
    match set(0) {
        Err(Errno::EINVAL) => set(instead).map_err(|errno| {
            let error = Error::from(errno).context(format!("become {kind} {instead} of the user namespace"));
            let hint = || format!("{kind} {instead} has no mapping there: take another, or map it");
            if errno == Errno::EINVAL { error.hint(hint()) } else { error }
        }),
        done => done.with_context(|| format!("become {kind} root of the user namespace")),
    }
}

fn ranges(list: Option<&[LinuxIdMapping]>, field: &'static str) -> Result<Vec<IdRange>> {
    let mut ranges = Vec::new();
    for (index, map) in list.unwrap_or_default().iter().enumerate() {
        let range = IdRange { inside: map.container_id(), outside: map.host_id(), size: map.size() };
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

pub(super) fn write(pid: Pid, name: &str, ranges: &[IdRange]) -> Result<()> {
    let mut text = String::new();
    for range in ranges {
        let _ = write!(text, "{range}");
    }
    let path = format!("/proc/{pid}/{name}");
    let mut file = fs::OpenOptions::new().write(true).open(&path).with_context(|| format!("open {path}"))?;
    file.write_all(text.as_bytes())
        .with_context(|| format!("write the map {} to {path}", text.trim().replace('\n', ", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<IdRange> {
        idmap::parse(text).collect()
    }

    #[test]
    fn maps_are_the_same_however_they_are_cut() {
        let whole = joined_up(read("         0     100000      65536\n"));
        assert_eq!(joined_up(read("1 100001 65535\n0 100000 1\n")), whole);
        assert_ne!(joined_up(read("0 100000 65535\n")), whole);
        assert_ne!(joined_up(read("0 100001 65536\n")), whole);
        assert_eq!(joined_up(read("0 0 4294967295\n")).len(), 1);
    }
}
