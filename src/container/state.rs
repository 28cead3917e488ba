//! The state of a container as others read it: `state`, `list`, hooks.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;

use nix::unistd::geteuid;
use serde::Serialize;

use crate::cgroup::Handle;
use crate::error::Result;
use crate::sys;

use super::claim::Claim;
use super::record::Record;
use super::{Container, Status};

/// The spec's "State".
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StateDocument<'a> {
    oci_version: &'a str,
    id: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    bundle: &'a Path,
    annotations: &'a BTreeMap<String, String>,
}

impl<'a> StateDocument<'a> {
    /// The recorded members, and the derived ones.
    pub fn of(record: &'a Record, status: &'a str, pid: Option<i32>) -> StateDocument<'a> {
        StateDocument {
            oci_version: &record.oci_version,
            id: &record.id,
            status,
            pid,
            bundle: &record.bundle,
            annotations: &record.annotations,
        }
    }
}

/// The [`StateDocument`] for hooks: one line of JSON.
pub fn for_hooks(record: &Record, status: &str, pid: Option<i32>) -> Vec<u8> {
    serde_json::to_vec(&StateDocument::of(record, status, pid)).expect("strings and numbers always serialize")
}

/// What `state` and `list` print, with the keys and their order as runc has them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown<'a> {
    oci_version: &'a str,
    id: &'a str,
    pid: i32,
    status: &'static str,
    bundle: &'a Path,
    rootfs: &'a Path,
    created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    owner: String,
    // How it has ended, if the kernel still knows: keys that runc does not have.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_signal: Option<i32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    out_of_memory: bool,
}

/// How a stopped container has ended.
#[derive(Default)]
struct End {
    /// The wait status of init, until its parent reaps it.
    status: Option<i32>,
    /// Whether the kernel has killed a process because the container was out of memory.
    out_of_memory: bool,
}

impl End {
    fn of(container: &Container) -> End {
        let record = &container.record;
        let cgroup =
            record.cgroup.as_ref().filter(|cgroup| Handle::of(cgroup).oom_kills().is_some_and(|kills| kills > 0));
        let zombie = |pid| {
            let pidfd = sys::pid::find(pid).ok().flatten()?;
            let status = sys::pid::status_of_zombie(pid, record.start_time)?;
            record.is_of(pid, pidfd.as_fd()).is_ok_and(|is_it| is_it).then_some(status)
        };
        let status = record.init().and_then(zombie);
        // 0 for those who may not read it.
        End {
            status: status.filter(|&status| status != 0 || geteuid().is_root()),
            out_of_memory: cgroup.is_some_and(|cgroup| container.claim(cgroup).is_ok_and(|claim| claim != Claim::None)),
        }
    }
}

impl<'a> Shown<'a> {
    /// The present state of a container. The pid of a stopped one is 0.
    pub fn of(container: &'a Container, owner: String) -> Result<Shown<'a>> {
        let status = container.status()?;
        let record = &container.record;
        let end = if status == Status::Stopped { End::of(container) } else { End::default() };
        Ok(Shown {
            oci_version: &record.oci_version,
            id: &record.id,
            pid: if status == Status::Stopped { 0 } else { record.pid },
            status: status.word(),
            bundle: &record.bundle,
            rootfs: &record.rootfs,
            created: &record.created,
            annotations: &record.annotations,
            owner,
            exit_code: end.status.filter(|status| libc::WIFEXITED(*status)).map(|status| libc::WEXITSTATUS(status)),
            exit_signal: end.status.filter(|status| libc::WIFSIGNALED(*status)).map(|status| libc::WTERMSIG(status)),
            out_of_memory: end.out_of_memory,
        })
    }

    /// The columns of `list`.
    pub fn row(&self) -> [String; 6] {
        [
            self.id.to_owned(),
            self.pid.to_string(),
            self.status.to_owned(),
            self.bundle.display().to_string(),
            self.created.to_owned(),
            self.owner.clone(),
        ]
    }
}
