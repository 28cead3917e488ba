//! What came back is compared with the configuration, while all of it is stopped.

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::unistd::Pid;

use crate::cgroup::Location;
use crate::error::{Context, Error, Result, bail, ensure};
use crate::host;
use crate::namespaces::{JoinedNamespace, KINDS, Origin};
use crate::plan::Plan;
use crate::process::Thread;
use crate::sys::{self, procfs};

use super::super::members::everybody;

/// What the processes have to be.
pub(super) struct Expected<'a> {
    pub(super) plan: &'a Plan,
    /// The namespaces that were joined.
    pub(super) entries: &'a [JoinedNamespace],
    pub(super) cgroup: Option<&'a Location>,
}

impl Expected<'_> {
    /// Compares the first process and all its descendants; a difference is an error that names it.
    pub(super) fn verify(&self, init: Pid) -> Result<()> {
        let tasks = tree(init)?;
        for &task in &tasks {
            self.verify_process(task, init).with_context(|| format!("the restored process {task}"))?;
        }
        self.verify_namespaces(init, &tasks)
    }

    fn verify_process(&self, pid: Pid, init: Pid) -> Result<()> {
        let plan = self.plan;
        let maps = plan.namespaces.maps();
        let user = |id| maps.map_or(Some(id), |maps| maps.host_user(id));
        let group = |id| maps.map_or(Some(id), |maps| maps.host_group(id));
        let threads = fs::read_dir(format!("/proc/{pid}/task")).context("list its threads")?;
        for thread in threads.flatten().map(|entry| entry.path()) {
            let status = fs::read_to_string(thread.join("status")).context("read its status")?;
            let state = procfs::process::status(&status, "State").unwrap_or_default();
            if state.starts_with('Z') {
                continue;
            }
            ensure!(state.starts_with('t'), "is not stopped but {state:?}");
            let label = match host::has_apparmor() || host::has_selinux() {
                true => Some(fs::read_to_string(thread.join("attr/current")).context("read its label")?),
                false => None,
            };
            plan.process.ensure_restored(&Thread {
                status: &status,
                label: label.as_deref(),
                is_init: pid == init,
                filtered: plan.seccomp.is_some(),
                users: &user,
                groups: &group,
            })?;
        }
        self.verify_cgroup(pid)
    }

    fn verify_cgroup(&self, pid: Pid) -> Result<()> {
        let Some(cgroup) = self.cgroup else { return Ok(()) };
        let file = format!("/proc/{pid}/cgroup");
        let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
        let place = procfs::process::cgroup(&text).unwrap_or_default();
        if is_within(place, &cgroup.to_string()) {
            return Ok(());
        }
        Err(Error::new(format!("is in cgroup {place}, not {}", cgroup)).field("/linux/cgroupsPath"))
    }

    /// The first process has those that the configuration says; no other has one of the host's where it does not.
    fn verify_namespaces(&self, init: Pid, tasks: &[Pid]) -> Result<()> {
        let namespaces = &self.plan.namespaces;
        for kind in &KINDS {
            let ours = namespace("self", kind.proc_name)?;
            // CRIU always makes one.
            if kind.proc_name == "time" && namespaces.origin(kind.flag) == Origin::Host {
                continue;
            }
            let real = namespace(&init.to_string(), kind.proc_name)?;
            let right = match namespaces.origin(kind.flag) {
                Origin::Host => real == ours,
                Origin::New => real != ours,
                Origin::Joined => {
                    let entry = self.entries.iter().find(|entry| entry.kind.flag == kind.flag);
                    let stat = entry.map(|entry| nix::sys::stat::fstat(&entry.fd)).transpose();
                    let stat = stat.context("stat a namespace")?;
                    stat.is_some_and(|stat| (stat.st_dev, stat.st_ino) == real)
                }
            };
            if !right {
                return Err(Error::new(format!("the restored process is in another {} namespace", kind.spec_name))
                    .field("/linux/namespaces"));
            }
            for task in tasks {
                if namespaces.origin(kind.flag) != Origin::Host && namespace(&task.to_string(), kind.proc_name)? == ours
                {
                    bail!("the restored process {task} is in the host's {} namespace", kind.spec_name);
                }
            }
        }
        Ok(())
    }
}

/// Whether a cgroup is another one, or lies below it.
fn is_within(place: &str, top: &str) -> bool {
    let rest = place.strip_prefix(top.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) && !place.split('/').any(|part| part == "..")
}

/// A process with all its descendants.
pub(super) fn tree(init: Pid) -> Result<Vec<Pid>> {
    if init.as_raw() == 0 {
        return Ok(Vec::new());
    }
    let mut all = vec![init];
    let everybody: Vec<(Pid, i32)> =
        everybody()?.into_iter().filter_map(|pid| Some((pid, sys::pid::stat(pid).ok()??.parent))).collect();
    let mut next = 0;
    while let Some(parent) = all.get(next).copied() {
        all.extend(everybody.iter().filter(|(_, of)| *of == parent.as_raw()).map(|(pid, _)| *pid));
        next += 1;
    }
    Ok(all)
}

/// What tells a namespace from others.
fn namespace(process: &str, file: &str) -> Result<(u64, u64)> {
    let path = format!("/proc/{process}/ns/{file}");
    let meta = fs::metadata(&path).with_context(|| format!("stat {path}"))?;
    Ok((meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_within_another_is_told_by_whole_names() {
        for place in ["/a/b", "/a/b/c"] {
            assert!(is_within(place, "/a/b"), "{place}");
        }
        for place in ["/a", "/a/bc", "/", "/../a/b", "/a/b/../../c"] {
            assert!(!is_within(place, "/a/b"), "{place}");
        }
    }
}
