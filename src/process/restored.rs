//! Compares a restored process with the configuration, while it is stopped.
//!
//! A checkpoint is not trusted: it may be forged, or of a container with more rights (CVE-2026-92574, CVE-2026-18107).
//! Changes that a process could have made itself are allowed: it may have dropped rights, and with CAP_SETUID and
//! CAP_SETGID have changed its user.

use super::capabilities::CapabilitySet;
use super::user::User;
use super::{Process, labels::Labels};
use crate::error::{Context, Error, Result};
use crate::sys::procfs::process as procfs;

/// The numbers of two capabilities.
const SETGID: u32 = 6;
const SETUID: u32 = 7;

/// The host's id of an id in the container; `None`: it has none.
pub type Map<'a> = &'a dyn Fn(u32) -> Option<u32>;

/// What is known of a thread, beside its `/proc/PID/status`.
pub struct Thread<'a> {
    /// The text of that.
    pub status: &'a str,
    /// `/proc/PID/attr/current`, where there is a security module.
    pub label: Option<&'a str>,
    /// It is one of the container's first process.
    pub is_init: bool,
    /// It must have a seccomp filter.
    pub filtered: bool,
    /// How users are mapped.
    pub users: Map<'a>,
    /// How groups are mapped.
    pub groups: Map<'a>,
}

impl Process {
    /// Whether the process may make mounts (CAP_SYS_ADMIN).
    pub fn may_mount(&self) -> bool {
        const SYS_ADMIN: u32 = 21;
        (self.capabilities.bounding | self.capabilities.permitted).has(SYS_ADMIN)
    }

    /// The first difference that the configuration does not allow.
    pub fn ensure_restored(&self, thread: &Thread<'_>) -> Result<()> {
        let status = ProcStatus(thread.status);
        let (capabilities, user) = (&self.capabilities, &self.user);
        if self.no_new_privs && status.number("NoNewPrivs")? != 1 {
            return Err(Error::new("no_new_privs is not set").field("/process/noNewPrivileges"));
        }
        if thread.filtered && status.number("Seccomp")? != 2 {
            return Err(Error::new("it has no seccomp filter").field("/linux/seccomp"));
        }
        self.ensure_capabilities(&status)?;
        // A program with a set-user-id bit may have been executed where that is not forbidden.
        let gained = |number| !thread.is_init && !self.no_new_privs && capabilities.bounding.has(number);
        let changes = |number| capabilities.permitted.has(number) || gained(number);
        if !changes(SETUID) {
            ensure_ids(&status, "Uid", &[user.uid], thread.users).field(|| "/process/user/uid")?;
        }
        if !changes(SETGID) {
            ensure_ids(&status, "Gid", &[user.gid], thread.groups).field(|| "/process/user/gid")?;
            ensure_groups(&status, user, thread.groups)?;
        }
        thread.label.map_or(Ok(()), |label| ensure_label(&self.labels, label))
    }

    fn ensure_capabilities(&self, status: &ProcStatus<'_>) -> Result<()> {
        let own = &self.capabilities;
        let all = own.bounding | own.permitted | own.inheritable;
        // The programs of root get what is in the bounding set, and so do those that have capabilities of their own.
        let may = if self.user.uid == 0 || !self.no_new_privs { all } else { own.permitted | own.ambient };
        let sets = [
            ("CapBnd", own.bounding, "bounding"),
            ("CapPrm", may, "permitted"),
            ("CapEff", may, "effective"),
            ("CapInh", all, "inheritable"),
            ("CapAmb", all, "ambient"),
        ];
        for (name, allowed, word) in sets {
            let more = CapabilitySet::of_bits(status.hexadecimal(name)?) & !allowed;
            if !more.is_empty() {
                return Err(Error::new(format!("its {word} set has {}", more.words()))
                    .field(format!("/process/capabilities/{word}")));
            }
        }
        Ok(())
    }
}

/// proc_pid_status(5).
struct ProcStatus<'a>(&'a str);

impl<'a> ProcStatus<'a> {
    fn value(&self, name: &str) -> Result<&'a str> {
        procfs::status(self.0, name).ok_or_else(|| Error::new(format!("its status has no {name}")))
    }

    fn number(&self, name: &str) -> Result<u64> {
        self.value(name)?.parse().map_err(|_| Error::new(format!("its {name} is no number")))
    }

    fn hexadecimal(&self, name: &str) -> Result<u64> {
        u64::from_str_radix(self.value(name)?, 16).map_err(|_| Error::new(format!("its {name} is no set")))
    }

    fn ids(&self, name: &str) -> Result<Vec<u32>> {
        let ids = self.value(name)?.split_whitespace().map(str::parse).collect::<Result<_, _>>();
        ids.map_err(|_| Error::new(format!("its {name} are no ids")))
    }
}

/// Real, effective, saved and that for file systems: each one of those allowed.
fn ensure_ids(status: &ProcStatus<'_>, name: &str, allowed: &[u32], map: Map<'_>) -> Result<()> {
    let allowed: Vec<u32> = allowed.iter().filter_map(|&id| map(id)).collect();
    match status.ids(name)?.into_iter().find(|id| !allowed.contains(id)) {
        None => Ok(()),
        Some(id) => {
            Err(Error::new(format!("its {name} is {id}, not {}", allowed.first().map_or(-1, |&id| i64::from(id)))))
        }
    }
}

fn ensure_groups(status: &ProcStatus<'_>, user: &User, map: Map<'_>) -> Result<()> {
    // Those of a caller are not in the configuration.
    let (_, Some(groups)) = user.as_numbers() else { return Ok(()) };
    ensure_ids(status, "Groups", &groups, map).field(|| "/process/user/additionalGids")
}

fn ensure_label(labels: &Labels, label: &str) -> Result<()> {
    let label = label.trim_end_matches(['\0', '\n']);
    let Some((wanted, field)) = labels.wanted() else { return Ok(()) };
    // AppArmor has the mode after the name.
    let real = label.split(" (").next().unwrap_or_default();
    if real == wanted {
        return Ok(());
    }
    Err(Error::new(format!("its label is {real}, not {wanted}")).field(field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::ProcessFacts;

    const STATUS: &str = "Name:\tsh\nUid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\nGroups:\t5 1000 \n\
        CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000020\n\
        CapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n";

    fn process(json: serde_json::Value) -> Process {
        let mut base = serde_json::json!({
            "user": {"uid": 1000, "gid": 1000, "additionalGids": [5]}, "args": ["sh"], "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": {"bounding": ["CAP_KILL"], "permitted": [], "effective": []},
        });
        base.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
        Process::plan(&serde_json::from_value(base).unwrap(), &ProcessFacts::default()).unwrap()
    }

    fn verdict(process: &Process, status: &str, is_init: bool) -> Result<()> {
        let same: Map<'_> = &Some;
        let thread = Thread { status, label: None, is_init, filtered: true, users: same, groups: same };
        process.ensure_restored(&thread)
    }

    #[track_caller]
    fn refused(process: &Process, old: &str, new: &str, field: &str) {
        let status = STATUS.replace(old, new);
        assert_ne!(status, STATUS);
        let error = verdict(process, &status, true).unwrap_err();
        assert_eq!(error.field_name(), Some(field), "{error}");
    }

    #[test]
    fn what_the_configuration_says_is_allowed_and_less_is_too() {
        let process = process(serde_json::json!({}));
        verdict(&process, STATUS, true).unwrap();
        let less = STATUS.replace("Groups:\t5 1000", "Groups:\t").replace("0020", "0000");
        verdict(&process, &less, true).unwrap();
    }

    #[test]
    fn each_thing_that_is_more_is_refused_by_its_field() {
        let process = process(serde_json::json!({}));
        refused(&process, "Uid:\t1000", "Uid:\t0", "/process/user/uid");
        refused(&process, "1000\nGid", "0\nGid", "/process/user/uid");
        refused(&process, "Gid:\t1000\t1000", "Gid:\t1000\t0", "/process/user/gid");
        refused(&process, "Groups:\t5", "Groups:\t6", "/process/user/additionalGids");
        refused(&process, "CapBnd:\t0000000000000020", "CapBnd:\t0000000000200020", "/process/capabilities/bounding");
        refused(&process, "CapPrm:\t0000000000000000", "CapPrm:\t0000000000000020", "/process/capabilities/permitted");
        refused(&process, "CapEff:\t0000000000000000", "CapEff:\t0000000000000001", "/process/capabilities/effective");
        refused(&process, "CapAmb:\t0000000000000000", "CapAmb:\t0000000000000001", "/process/capabilities/ambient");
        refused(
            &process,
            "CapInh:\t0000000000000000",
            "CapInh:\t0000000000000001",
            "/process/capabilities/inheritable",
        );
        refused(&process, "NoNewPrivs:\t1", "NoNewPrivs:\t0", "/process/noNewPrivileges");
        refused(&process, "Seccomp:\t2", "Seccomp:\t0", "/linux/seccomp");
    }

    #[test]
    fn who_may_change_ids_may_have_changed_them() {
        let root = process(serde_json::json!({
            "user": {"uid": 0, "gid": 0},
            "capabilities": {"bounding": ["CAP_KILL", "CAP_SETUID", "CAP_SETGID"], "permitted": ["CAP_SETUID", "CAP_SETGID"]},
        }));
        verdict(&root, STATUS, true).unwrap();
        // A program with a set-user-id bit: not as the first process, and not with no_new_privs.
        let capabilities = serde_json::json!({"bounding": ["CAP_KILL", "CAP_SETUID"]});
        let user = process(serde_json::json!({"noNewPrivileges": false, "capabilities": capabilities}));
        let as_root = STATUS.replace("Uid:\t1000\t1000\t1000\t1000", "Uid:\t1000\t0\t0\t0");
        assert!(verdict(&user, &as_root, true).is_err());
        verdict(&user, &as_root, false).unwrap();
    }

    #[test]
    fn ids_are_those_of_the_host() {
        let process = process(serde_json::json!({}));
        let status = STATUS.replace("1000", "101000").replace("Groups:\t5", "Groups:\t100005");
        let map: Map<'_> = &|id| Some(100_000 + id);
        let thread = Thread { status: &status, label: None, is_init: true, filtered: true, users: map, groups: map };
        process.ensure_restored(&thread).unwrap();
        assert!(verdict(&process, &status, true).is_err());
    }
}
