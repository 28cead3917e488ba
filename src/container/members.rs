//! The processes of a container: those of its cgroup, or without one those of its pid namespace, or the descendants of init.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;

use nix::unistd::Pid;

use crate::error::{Context, Result};
use crate::sys;

use super::Container;

/// The processes of a container, by pid in the caller's namespace, sorted. Without a cgroup they are those of its own pid
/// namespace, and their descendants (in nested ones); in a shared pid namespace, init and its descendants.
pub fn pids(container: &Container) -> Result<Vec<Pid>> {
    if let Some(cgroup) = container.own_cgroup()? {
        return cgroup.pids();
    }
    let Some((init, _)) = container.living_init()? else { return Ok(Vec::new()) };
    let inside = pid_namespace(init).filter(|_| container.owns_pid_namespace());
    let mut parents = BTreeMap::new();
    let mut members = BTreeSet::from([init]);
    for pid in everybody()? {
        let Some(stat) = sys::pid::stat(pid).with_context(|| format!("read the status of process {pid}"))? else {
            continue;
        };
        parents.insert(pid, Pid::from_raw(stat.parent));
        if inside.is_some() && pid_namespace(pid) == inside {
            members.insert(pid);
        }
    }
    while let more @ [_, ..] = &*children(&parents, &members) {
        members.extend(more);
    }
    Ok(members.into_iter().collect())
}

/// Those that are not members but have a parent that is.
fn children(parents: &BTreeMap<Pid, Pid>, members: &BTreeSet<Pid>) -> Vec<Pid> {
    let child = |&(pid, parent): &(&Pid, &Pid)| members.contains(parent) && !members.contains(pid);
    parents.iter().filter(child).map(|(pid, _)| *pid).collect()
}

/// The identity of a pid namespace; `None` if the process has ended, or may not be read.
pub(super) fn pid_namespace(pid: Pid) -> Option<(u64, u64)> {
    let file = std::fs::metadata(format!("/proc/{pid}/ns/pid")).ok()?;
    Some((file.dev(), file.ino()))
}

/// All processes of /proc.
pub(super) fn everybody() -> Result<BTreeSet<Pid>> {
    let entries = std::fs::read_dir("/proc").context("list /proc")?;
    let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    Ok(entries.flatten().filter_map(number).map(Pid::from_raw).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_found_generation_by_generation() {
        let pid = Pid::from_raw;
        let parents = BTreeMap::from([(pid(2), pid(1)), (pid(3), pid(2)), (pid(4), pid(3)), (pid(5), pid(1))]);
        let members = BTreeSet::from([pid(2)]);
        assert_eq!(children(&parents, &members), [pid(3)]);
        assert_eq!(children(&parents, &BTreeSet::from([pid(2), pid(3)])), [pid(4)]);
    }
}
