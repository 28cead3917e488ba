//! `SCMP_ACT_NOTIFY`: system calls that a seccomp agent outside of the container answers (seccomp_unotify(2)).
//!
//! Once such a filter is loaded, every call of the process may wait for the agent, which first needs the notify descriptor
//! that the load has returned. So the loading process evaluates the filter for its own calls beforehand.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxSeccomp;
use serde::{Deserialize, Serialize};

use super::interpreter::{self, Data};
use super::tables::Arch;
use super::{Program, pointer, split};
use crate::error::{Error, Result};
use crate::sys::Errno;
use crate::sys::seccomp::{self as sys, Instruction};

/// The seccomp agent: `listenerPath` and `listenerMetadata`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// The path of its stream socket; absolute.
    pub path: PathBuf,
    /// The metadata to pass to it unchanged.
    pub metadata: Option<String>,
}

impl Agent {
    /// The agent of a filter; `None` if the filter has no notified calls. A relative path starts at the bundle.
    pub fn plan(profile: &LinuxSeccomp, program: &Program, bundle: &Path) -> Result<Option<Agent>> {
        let path = profile.listener_path().as_ref().filter(|path| !path.as_os_str().is_empty());
        let metadata = profile.listener_metadata().clone().filter(|metadata| !metadata.is_empty());
        let Some(path) = path else {
            if metadata.is_some() {
                let field = pointer(format_args!("/listenerMetadata"));
                return Err(Error::new("is set without a listenerPath").field(field));
            }
            if program.notifies() {
                return Err(Error::new("is missing, and the profile has rules with SCMP_ACT_NOTIFY")
                    .field(pointer(format_args!("/listenerPath")))
                    .hint("name the socket of the seccomp agent that decides on these calls"));
            }
            return Ok(None);
        };
        Ok(program.notifies().then(|| Agent { path: bundle.join(path), metadata }))
    }
}

impl Program {
    /// [`Program::load`], which returns the notify descriptor.
    pub fn load_with_notify_fd(&self) -> Result<OwnedFd> {
        let mut listener = None;
        for part in &self.parts {
            match split::notifies(part) {
                true => listener = Some(self.load_part_with_notify_fd(part)?),
                false => self.load_part(part)?,
            }
        }
        listener.ok_or_else(|| Error::new("internal error: no call of the seccomp filter is notified"))
    }

    fn load_part_with_notify_fd(&self, part: &[Instruction]) -> Result<OwnedFd> {
        sys::set_filter_with_listener(self.flags.into(), part).map_err(|errno| {
            let what = format!("load the seccomp filter of {} instructions with a notify descriptor", part.len());
            let error = Error::from(errno).context(what);
            let waits = self.flags & libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV as u32 != 0;
            match errno {
                Errno::EBUSY => error.hint(
                    "the runtime itself runs under a filter with a notify descriptor, and the kernel allows only one",
                ),
                Errno::EINVAL if waits && !sys::knows_flags(WAIT_KILLABLE) => error
                    .field(pointer(format_args!("/flags")))
                    .hint("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs Linux 5.19"),
                _ => error,
            }
        })
    }

    /// Whether the filter allows a native call with these arguments without a notification.
    pub fn allows(&self, number: libc::c_long, args: [u64; 6]) -> bool {
        matches!(self.verdict(number, args), libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG)
    }

    /// Whether the filter kills the caller of a native call with these arguments.
    pub fn kills(&self, number: libc::c_long, args: [u64; 6]) -> bool {
        let action = self.verdict(number, args) & libc::SECCOMP_RET_ACTION_FULL;
        matches!(action, libc::SECCOMP_RET_KILL_PROCESS | libc::SECCOMP_RET_KILL_THREAD | libc::SECCOMP_RET_TRAP)
    }

    /// Whether no program can be executed with the filter: it denies execve(2), or kills its caller, for all arguments.
    pub fn forbids_programs(&self) -> bool {
        // Addresses as arguments are not known beforehand.
        [0, u64::MAX].into_iter().all(|any| {
            let action = self.verdict(libc::SYS_execve, [any; 6]) & libc::SECCOMP_RET_ACTION_FULL;
            action == libc::SECCOMP_RET_ERRNO || self.kills(libc::SYS_execve, [any; 6])
        })
    }

    fn verdict(&self, number: libc::c_long, args: [u64; 6]) -> u32 {
        let native = Arch::native();
        interpreter::run_all(&self.parts, &Data::new(native.audit, number as u32, args, native.big_endian)).verdict
    }
}

const WAIT_KILLABLE: libc::c_ulong =
    libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn profile(more: Value) -> LinuxSeccomp {
        let mut profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []});
        profile.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(profile).unwrap()
    }

    fn plan(more: Value) -> Result<Option<Agent>> {
        let profile = profile(more);
        Agent::plan(&profile, &Program::compile(&profile)?, Path::new("/bundle"))
    }

    fn rule(name: &str) -> Value {
        json!([{"names": [name], "action": "SCMP_ACT_NOTIFY"}])
    }

    #[test]
    fn an_agent_is_needed_where_one_is_asked_and_ignored_elsewhere() {
        let field = |more| plan(more).unwrap_err().field_name().map(str::to_owned).unwrap_or_default();
        assert_eq!(field(json!({"syscalls": rule("mkdir")})), "/linux/seccomp/listenerPath");
        assert_eq!(field(json!({"listenerMetadata": "x"})), "/linux/seccomp/listenerMetadata");
        assert_eq!(plan(json!({"listenerPath": "/s"})).unwrap(), None);
        assert_eq!(plan(json!({"listenerPath": "/s", "syscalls": rule("no_such_call")})).unwrap(), None);
        let seen = plan(json!({"listenerPath": "a/s", "listenerMetadata": "m", "syscalls": rule("mkdir")})).unwrap();
        assert_eq!(seen, Some(Agent { path: "/bundle/a/s".into(), metadata: Some("m".into()) }));
    }

    #[test]
    fn a_notification_carries_no_errno() {
        let rule = json!([{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY", "errnoRet": 1}]);
        let error = plan(json!({"listenerPath": "/s", "syscalls": rule})).unwrap_err();
        assert_eq!(error.field_name(), Some("/linux/seccomp/syscalls/0/errnoRet"));
    }

    #[test]
    fn it_is_known_beforehand_which_calls_pass() {
        let one = [1, 0, 0, 0, 0, 0];
        let program = |more| Program::compile(&profile(more)).unwrap();
        assert!(program(json!({})).allows(libc::SYS_sendmsg, one));
        assert!(program(json!({"defaultAction": "SCMP_ACT_LOG"})).allows(libc::SYS_sendmsg, one));
        assert!(!program(json!({"defaultAction": "SCMP_ACT_NOTIFY"})).allows(libc::SYS_sendmsg, one));
        assert!(!program(json!({"defaultAction": "SCMP_ACT_ERRNO"})).allows(libc::SYS_sendmsg, one));
        assert!(!program(json!({"syscalls": rule("sendmsg")})).allows(libc::SYS_sendmsg, one));
        let args = json!([{"index": 0, "value": 7, "op": "SCMP_CMP_GT"}]);
        let some = json!({"syscalls": [{"names": ["sendmsg"], "action": "SCMP_ACT_NOTIFY", "args": args}]});
        assert!(program(some.clone()).allows(libc::SYS_sendmsg, one));
        assert!(!program(some).allows(libc::SYS_sendmsg, [8, 0, 0, 0, 0, 0]));
    }

    #[test]
    fn calls_of_the_future_are_the_agents_when_all_is() {
        let all = Program::compile(&profile(json!({"defaultAction": "SCMP_ACT_NOTIFY"}))).unwrap();
        assert_eq!(interpreter::verdict(&all.parts[0], Arch::native(), 900, [0; 6]), libc::SECCOMP_RET_USER_NOTIF);
    }
}
