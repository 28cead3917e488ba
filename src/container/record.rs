//! The record of a container on disk: only what cannot be derived again.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use nix::unistd::Pid;
use oci_spec::runtime as spec;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cgroup::Location;
use crate::error::{Context, Result};
use crate::hooks::Hooks;
use crate::namespaces::KINDS;
use crate::resctrl;
use crate::rootfs::Guest;
use crate::seccomp::Agent;
use crate::sys::{self, ns};

fn identity(pid: Pid, pidfd: BorrowedFd<'_>) -> Result<Option<u64>> {
    sys::pid::identity(pidfd).with_context(|| format!("read the status of init, process {pid}"))
}

/// The id of this boot, random(4).
fn boot() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|text| text.trim().to_owned())
}

/// The version of the record; a higher one is refused.
pub const VERSION: u32 = 1;

/// The record of a container. It is first written as an intent, before anything exists outside the state directory, so
/// that `delete` can find and remove what a killed `create` leaves.
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
    /// [`sys::pid::identity`], if the kernel has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<u64>,
    /// Otherwise the boot to which the start time belongs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// `None` when the container has no cgroup of its own.
    pub cgroup: Option<Location>,
    /// The number of its device rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_rules: Option<u64>,
    /// Its resctrl group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resctrl: Option<resctrl::Group>,
    /// Mounts on the rootfs in the caller's mount namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<Guest>,
    /// Names below `/proc/PID/ns` that an exec must enter.
    pub namespaces: Vec<String>,
    /// Those of them that were joined, for a checkpoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joined: Vec<String>,
    /// Whether the death of init kills all processes (its own pid namespace).
    pub own_pid_namespace: bool,
    /// Whether a seccomp filter is stored beside the record, for execs.
    pub seccomp: bool,
    /// The agent that answers the calls that the filter notifies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp_agent: Option<Agent>,
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
    /// Reads what it can of a record that is truncated, of a newer version, or none at all: every member that parses by
    /// itself. Missing members are those of an intent.
    pub fn salvage(bytes: &[u8], id: &str) -> Record {
        let blank = Record {
            version: VERSION,
            id: id.to_owned(),
            oci_version: String::new(),
            bundle: PathBuf::from("/"),
            rootfs: PathBuf::new(),
            created: String::new(),
            pid: 0,
            start_time: 0,
            identity: None,
            guest: None,
            boot: None,
            cgroup: None,
            device_rules: None,
            resctrl: None,
            namespaces: Vec::new(),
            joined: Vec::new(),
            own_pid_namespace: true,
            seccomp: false,
            seccomp_agent: None,
            process: None,
            personality: None,
            memory_policy: None,
            poststart: Hooks::default(),
            poststop: Hooks::default(),
            annotations: BTreeMap::new(),
        };
        let members = members(bytes);
        // A record with another id says nothing about this container.
        if members.get("id").is_some_and(|other| other != id) {
            return blank;
        }
        members.into_iter().filter(|(name, _)| name != "version").fold(blank, |record, (name, value)| {
            let with_it = serde_json::to_value(&record).and_then(|mut all| {
                all[&name] = value;
                serde_json::from_value(all)
            });
            with_it.unwrap_or(record)
        })
    }

    /// The pid of init; `None` in an intent.
    pub fn init(&self) -> Option<Pid> {
        (self.pid > 0).then(|| Pid::from_raw(self.pid))
    }

    /// Records init by its pid and pidfd; it may be dead already.
    pub fn take_init(&mut self, pid: Pid, pidfd: BorrowedFd<'_>) -> Result<()> {
        self.pid = pid.as_raw();
        let start_time =
            sys::pid::start_time(pid).with_context(|| format!("read the status of init, process {pid}"))?;
        self.start_time = start_time.unwrap_or_default();
        self.identity = identity(pid, pidfd)?;
        self.boot = if self.identity.is_none() { boot() } else { None };
        Ok(())
    }

    /// Whether the process behind a pidfd, with the recorded pid and start time, is the recorded one, and not another in the
    /// same clock tick.
    pub fn is_of(&self, pid: Pid, pidfd: BorrowedFd<'_>) -> Result<bool> {
        Ok(match (self.identity, &self.boot) {
            // An identity that cannot be read proves nothing.
            (Some(known), _) => identity(pid, pidfd)? == Some(known),
            (None, Some(boot)) => self::boot().is_none_or(|now| now == *boot),
            // A record of an older corten.
            (None, None) => true,
        })
    }

    /// The namespaces that are not the host's.
    pub fn kinds(&self) -> ns::Flags {
        let own = KINDS.iter().filter(|kind| self.namespaces.iter().any(|file| file == kind.proc_name));
        own.fold(ns::Flags::empty(), |flags, kind| flags | kind.flag)
    }
}

/// The members of a JSON object that may be truncated.
fn members(bytes: &[u8]) -> Map<String, Value> {
    let whole = |bytes: &[u8]| serde_json::from_slice(bytes).ok();
    whole(bytes).or_else(|| whole(&up_to_last_member(bytes)?)).unwrap_or_default()
}

/// A broken object up to the last comma between two members of its own, and an end.
fn up_to_last_member(bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut depth, mut last, mut quoted, mut escaped) = (0_usize, None, false, false);
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b',' if depth == 1 => last = Some(at),
            _ => {}
        }
    }
    Some([&bytes[..last?], b"}"].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_broken_off_tells_what_comes_before() {
        let mut whole = Record::salvage(b"", "web");
        (whole.pid, whole.start_time, whole.bundle) = (7, 42, "/b,\"{[\\".into());
        whole.annotations.insert("a".into(), "}".into());
        let bytes = serde_json::to_vec(&whole).unwrap();
        for length in 0..=bytes.len() {
            let found = Record::salvage(&bytes[..length], "web");
            let with = |text: &str| bytes[..length].windows(text.len()).any(|part| part == text.as_bytes());
            assert_eq!(found.pid, if with("\"pid\":7,") { 7 } else { 0 }, "{length}");
            assert_eq!(found.start_time, if with("\"start_time\":42,") { 42 } else { 0 }, "{length}");
        }
        assert_eq!(serde_json::to_vec(&Record::salvage(&bytes, "web")).unwrap(), bytes);
    }

    #[test]
    fn of_other_forms_and_of_no_record_only_what_is_understood_is_taken() {
        let text = br#"{"version":2,"id":"web","pid":7,"start_time":"soon","cgroup":{"driver":"x"},"new":[1]}"#;
        let found = Record::salvage(text, "web");
        assert_eq!((found.version, found.pid, found.start_time, found.cgroup), (VERSION, 7, 0, None));
        for text in [&b"\xff\x00{,}"[..], b"[1,2", b"}", b"{\"id\":\"other\",\"pid\":7}"] {
            assert_eq!(Record::salvage(text, "web").pid, 0, "{text:?}");
        }
    }
}
