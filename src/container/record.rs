//! What is kept on disk about a container: only what cannot be found out again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use nix::unistd::Pid;
use oci_spec::runtime as spec;
use serde::{Deserialize, Serialize};

use crate::cgroup::{Location, rdt};
use crate::hooks::Hooks;
use crate::namespaces::KINDS;
use crate::seccomp::Listener;

/// The form of the record; a higher number is refused.
pub const VERSION: u32 = 1;

/// A container's record. Its first version is an intent, written before anything exists outside the state directory,
/// so that whatever a killed `create` leaves can be found and removed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// [`VERSION`].
    pub version: u32,
    /// The container's id.
    pub id: String,
    /// `ociVersion` of the config.
    pub oci_version: String,
    /// Absolute.
    pub bundle: PathBuf,
    /// Absolute, on the host.
    pub rootfs: PathBuf,
    /// RFC 3339, with nanoseconds.
    pub created: String,
    /// 0 in an intent.
    pub pid: i32,
    /// Clock ticks since boot, field 22 of proc_pid_stat(5).
    pub start_time: u64,
    /// `None` when the container has no cgroup of its own.
    pub cgroup: Option<Location>,
    /// The number of its device rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_rules: Option<u64>,
    /// Its share of caches and memory bandwidth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resctrl: Option<rdt::Group>,
    /// Names below `/proc/PID/ns` that an exec must enter.
    pub namespaces: Vec<String>,
    /// Whether init takes all its processes with it.
    pub own_pid_namespace: bool,
    /// Whether a seccomp filter lies beside the record, for execs.
    pub seccomp: bool,
    /// Who decides on the calls of which that filter notifies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp_agent: Option<Listener>,
    /// The config's `process`, the base of an exec; `None` in an intent.
    pub process: Option<spec::Process>,
    /// The config's `linux.personality`, for execs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub personality: Option<spec::LinuxPersonality>,
    /// The config's `linux.memoryPolicy`, for execs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<spec::LinuxMemoryPolicy>,
    /// Hooks still to run.
    pub poststart: Hooks,
    /// Hooks still to run.
    pub poststop: Hooks,
    /// Labels of the config.
    pub annotations: BTreeMap<String, String>,
}

impl Record {
    /// The pid of the first process; `None` in an intent.
    pub fn init(&self) -> Option<Pid> {
        (self.pid > 0).then(|| Pid::from_raw(self.pid))
    }

    /// `CLONE_NEW*` of the namespaces that are not the host's.
    pub fn kinds(&self) -> u64 {
        let own = KINDS.iter().filter(|kind| self.namespaces.iter().any(|file| file == kind.file));
        own.fold(0, |flags, kind| flags | kind.flag)
    }
}
