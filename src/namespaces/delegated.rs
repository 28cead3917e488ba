//! Id maps of unprivileged callers. The set-uid helpers newuidmap(1) and newgidmap(1) of shadow (package `uidmap`) write
//! ranges of `/etc/subuid` and `/etc/subgid`; without them a caller can only map its own id.
//!
//! The rules of the kernel are those of user_namespaces(7), "Defining user and group ID mappings".

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::unistd::{Pid, getegid, getuid};

use crate::error::{Context, Error, Result};
use crate::host;
use crate::passwd::Users;
use crate::sys::procfs::idmap::IdRange;

use super::user;

/// A helper and the file that grants what it gives.
pub(super) struct Helper {
    program: &'static str,
    grants: &'static str,
    ids: &'static str,
}

pub(super) const USERS: Helper = Helper { program: "newuidmap", grants: "/etc/subuid", ids: "user ids" };
const GROUPS: Helper = Helper { program: "newgidmap", grants: "/etc/subgid", ids: "group ids" };

/// Writes the group map of an unprivileged caller. Without help it may only map its own group, and only once setgroups(2)
/// is denied: otherwise a process could drop groups that deny it access to files.
pub(super) fn write_groups(pid: Pid, ranges: &[IdRange], refusal: Error) -> Result<()> {
    let own = matches!(ranges, [IdRange { outside, size: 1, .. }] if *outside == getegid().as_raw());
    if !own {
        return write(&GROUPS, pid, ranges);
    }
    let path = format!("/proc/{pid}/setgroups");
    match fs::write(&path, "deny") {
        // It is denied already, or this process may not write it: then the first error says more.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Err(refusal),
        done => done.with_context(|| format!("write \"deny\" to {path}"))?,
    }
    user::write(pid, "gid_map", ranges)
}

/// Has a helper write a map.
pub(super) fn write(helper: &Helper, pid: Pid, ranges: &[IdRange]) -> Result<()> {
    let Helper { program, ids, .. } = helper;
    let what = || format!("map {ids} through {program}");
    let path = find(program).with_context(what)?;
    let mut command = host::command(&path);
    command.arg(pid.to_string());
    for IdRange { inside, outside, size } in ranges {
        command.args([inside, outside, size].map(u32::to_string));
    }
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {}", path.display()));
    let output = output.with_context(what)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().replace('\n', ", ");
    let said = said.strip_prefix(program).map_or(&*said, |rest| rest.trim_start_matches(':').trim_start());
    Err(helper.explain(&path, said)).with_context(what)
}

impl Helper {
    /// Explains why a helper refuses.
    fn explain(&self, path: &Path, said: &str) -> Error {
        let Helper { program, grants, .. } = self;
        let error = Error::new(format!("it printed {said:?}"));
        // File capabilities suffice as well, but cannot be seen from here: only the refusal hints at them.
        let set_uid = is_set_uid(path);
        let user = caller();
        if !set_uid && !said.contains("not allowed") {
            return error.hint(format!("{program} must be set-uid root: chmod u+s {}", path.display()));
        }
        let text = fs::read_to_string(grants).unwrap_or_default();
        if ranges_of(&text, &user, getuid().as_raw()).is_empty() {
            return error
                .hint(format!("{user} has no range in {grants}: usermod --add-sub{}s 100000-165535 {user}", {
                    if *program == "newuidmap" { "uid" } else { "gid" }
                }));
        }
        error.hint(format!(
            "the map must lie in the ranges that {grants} grants {user}, and name no other ids but its own"
        ))
    }
}

/// What a user other than root may map besides its own id.
pub struct Grant {
    /// The helper's name.
    pub program: &'static str,
    /// Its path, if it is installed.
    pub path: Option<PathBuf>,
    /// It is set-uid root, or has a capability instead.
    pub has_power: bool,
    /// The file of the ranges.
    pub file: &'static str,
    /// The ranges of the caller: first id and length.
    pub ranges: Vec<(u32, u32)>,
}

/// Finds both helpers and the ranges of the caller.
pub fn grants() -> [Grant; 2] {
    let user = caller();
    [USERS, GROUPS].map(|Helper { program, grants, .. }| {
        let path = find(program).ok();
        let has_power = path.as_ref().is_some_and(|path| is_set_uid(path) || has_capability(path));
        let text = fs::read_to_string(grants).unwrap_or_default();
        Grant { program, path, has_power, file: grants, ranges: ranges_of(&text, &user, getuid().as_raw()) }
    })
}

fn is_set_uid(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.uid() == 0 && meta.mode() & libc::S_ISUID != 0)
}

fn has_capability(path: &Path) -> bool {
    fs::File::open(path).is_ok_and(|file| crate::sys::path::xattr(&file, c"security.capability").is_ok())
}

/// The caller by name, or by number where there is none.
fn caller() -> String {
    let user = getuid();
    Users::of_host().name(user.as_raw()).unwrap_or_else(|| user.to_string())
}

/// The ids that a user is granted, by name or by number, subuid(5).
fn ranges_of(grants: &str, name: &str, number: u32) -> Vec<(u32, u32)> {
    let range = |line: &str| {
        let mut parts = line.split(':');
        let user = parts.next().filter(|user| *user == name || user.parse() == Ok(number));
        user.and_then(|_| Some((parts.next()?.parse().ok()?, parts.next()?.trim().parse().ok()?)))
    };
    grants.lines().filter_map(range).collect()
}

/// A helper in PATH.
fn find(program: &str) -> Result<PathBuf> {
    host::program(program).ok_or_else(|| {
        Error::new(format!("there is no {program} in PATH"))
            .hint("install the package uidmap (shadow-utils on Fedora), or map only the caller's own user and group")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_granted_by_name_or_number() {
        assert_eq!(ranges_of("root:1:1\njo:100000:65536\n", "jo", 1000), [(100000, 65536)]);
        assert_eq!(ranges_of("1000:100000:65536\n", "jo", 1000), [(100000, 65536)]);
        assert_eq!(ranges_of("joan:100000:65536\njo:x:1\n", "jo", 1000), []);
    }
}
