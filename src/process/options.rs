//! What the command line of `exec` changes about the process: from the container's own defaults to the new one.

use oci_spec::runtime as spec;

use super::{capabilities, user};
use crate::error::{Context, Result, bail, ensure};

/// The options of `exec` that shape the process, as they were typed, already checked.
#[derive(Clone, Debug, Default)]
pub struct ExecOptions {
    /// The command and its arguments; must not be empty.
    pub args: Vec<String>,
    /// `--user UID[:GID]`.
    pub user: Option<(u32, Option<u32>)>,
    /// `--additional-gids`, beside those of the container.
    pub additional_gids: Vec<u32>,
    /// `--cwd`.
    pub cwd: Option<String>,
    /// `--env`, each replacing the container's variable of that name.
    pub env: Vec<String>,
    /// `--cap`: names, with or without `CAP_`.
    pub caps: Vec<String>,
    /// `--no-new-privs`; without it the container's own choice stands.
    pub no_new_privs: bool,
    /// `--tty`; the container's own choice does not count.
    pub terminal: bool,
    /// `--apparmor`.
    pub apparmor: Option<String>,
    /// `--process-label`.
    pub label: Option<String>,
}

/// Reads `UID[:GID]`. Both are plain numbers; anything else is refused as a whole (CVE-2026-30892, CVE-2016-3697).
pub fn parse_user(text: &str) -> Result<(u32, Option<u32>)> {
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (uid, Some(gid)),
        None => (text, None),
    };
    let sentence = || format!("--user {text:?} is not UID[:GID]");
    let uid = user::parse_id(uid).with_context(sentence)?;
    let gid = gid.map(user::parse_id).transpose().with_context(sentence)?;
    Ok((uid, gid))
}

impl ExecOptions {
    /// The process that results from these options on top of the container's own process.
    pub fn apply(&self, mut process: spec::Process) -> Result<spec::Process> {
        ensure!(!self.args.is_empty(), "exec args cannot be empty");
        process.set_args(Some(self.args.clone()));
        process.set_terminal(Some(self.terminal));
        if let Some(cwd) = &self.cwd {
            process.set_cwd(cwd.into());
        }
        if !self.env.is_empty() {
            process.env_mut().get_or_insert_default().extend_from_slice(&self.env);
        }
        self.apply_user(process.user_mut());
        self.apply_caps(&mut process)?;
        if self.no_new_privs {
            process.set_no_new_privileges(Some(true));
        }
        if let Some(profile) = &self.apparmor {
            process.set_apparmor_profile(Some(profile.clone()));
        }
        if let Some(label) = &self.label {
            process.set_selinux_label(Some(label.clone()));
        }
        Ok(process)
    }

    fn apply_user(&self, user: &mut spec::User) {
        if let Some((uid, gid)) = self.user {
            user.set_uid(uid);
            user.set_gid(gid.unwrap_or(user.gid()));
        }
        if !self.additional_gids.is_empty() {
            user.additional_gids_mut().get_or_insert_default().extend_from_slice(&self.additional_gids);
        }
    }

    /// Adds to bounding, effective and permitted; to ambient only where the container uses inheritable at all; to
    /// inheritable never (CVE-2022-29162).
    fn apply_caps(&self, process: &mut spec::Process) -> Result<()> {
        if self.caps.is_empty() {
            return Ok(());
        }
        let mut sets = process.capabilities().clone().unwrap_or_else(no_capabilities);
        for name in &self.caps {
            let Some(cap) = capabilities::by_name(name) else { bail!("--cap {name:?}: unknown capability") };
            let add = |set: &Option<spec::Capabilities>| {
                let mut set = set.clone().unwrap_or_default();
                set.insert(cap);
                Some(set)
            };
            sets.set_bounding(add(sets.bounding()));
            sets.set_effective(add(sets.effective()));
            sets.set_permitted(add(sets.permitted()));
            if sets.inheritable().is_some() {
                sets.set_ambient(add(sets.ambient()));
            }
        }
        process.set_capabilities(Some(sets));
        Ok(())
    }
}

/// oci-spec's own default is a set of three.
fn no_capabilities() -> spec::LinuxCapabilities {
    let mut none = spec::LinuxCapabilities::default();
    none.set_bounding(None).set_effective(None).set_permitted(None).set_inheritable(None).set_ambient(None);
    none
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Capability as Cap;

    fn base() -> spec::Process {
        let mut base = spec::Process::default();
        base.set_env(Some(vec!["PATH=/bin".into(), "A=1".into(), "B=2".into()]));
        base.set_capabilities(Some(no_capabilities()));
        base
    }

    fn options() -> ExecOptions {
        ExecOptions { args: vec!["true".into()], ..ExecOptions::default() }
    }

    #[test]
    fn a_user_is_one_or_two_whole_numbers() {
        assert_eq!(parse_user("1000").unwrap(), (1000, None));
        assert_eq!(parse_user("1000:5").unwrap(), (1000, Some(5)));
        for wrong in ["1000:", ":5", "1x", "-1", "4294967296", "", "bob", "1:2:3", "1:-1", ":"] {
            assert!(parse_user(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn variables_are_added_to_those_of_the_container() {
        let process = ExecOptions { env: vec!["B=3".into(), "C=4".into()], ..options() }.apply(base()).unwrap();
        let merged = super::super::environment::Environment::plan(process.env().as_ref().unwrap(), &[]).unwrap();
        let seen: Vec<&str> = merged.entries().iter().map(|entry| entry.to_str().unwrap()).collect();
        assert_eq!(seen, ["PATH=/bin", "A=1", "B=3", "C=4"]);
    }

    #[test]
    fn an_added_capability_never_becomes_inheritable() {
        let add = ExecOptions { caps: vec!["CAP_NET_ADMIN".into(), "sys_time".into()], ..options() };
        let sets = add.apply(base()).unwrap().capabilities().clone().unwrap();
        let both: spec::Capabilities = [Cap::NetAdmin, Cap::SysTime].into();
        for set in [sets.bounding(), sets.effective(), sets.permitted()] {
            assert_eq!(set.as_ref(), Some(&both));
        }
        assert_eq!((sets.inheritable(), sets.ambient()), (&None, &None));

        let mut with_inheritable = base();
        let mut sets = no_capabilities();
        sets.set_inheritable(Some([Cap::Kill].into()));
        with_inheritable.set_capabilities(Some(sets));
        let sets = add.apply(with_inheritable).unwrap().capabilities().clone().unwrap();
        assert_eq!(sets.inheritable(), &Some([Cap::Kill].into()));
        assert_eq!(sets.ambient().as_ref(), Some(&both));
    }

    #[test]
    fn added_to_no_capabilities_at_all_there_is_just_the_one() {
        let mut none = base();
        none.set_capabilities(None);
        let process = ExecOptions { caps: vec!["CAP_KILL".into()], ..options() }.apply(none).unwrap();
        assert_eq!(process.capabilities().as_ref().unwrap().effective(), &Some([Cap::Kill].into()));
        let error = ExecOptions { caps: vec!["CAP_FUTURE".into()], ..options() }.apply(base()).unwrap_err();
        assert_eq!(error.to_string(), "--cap \"CAP_FUTURE\": unknown capability");
    }

    #[test]
    fn the_rest_of_the_options_replaces_or_adds() {
        let wanted = ExecOptions {
            user: Some((7, None)),
            additional_gids: vec![30],
            cwd: Some("/w".into()),
            no_new_privs: true,
            terminal: true,
            ..options()
        };
        let mut from = base();
        from.user_mut().set_gid(3).set_additional_gids(Some(vec![10]));
        let process = wanted.apply(from).unwrap();
        assert_eq!((process.user().uid(), process.user().gid()), (7, 3));
        assert_eq!(process.user().additional_gids(), &Some(vec![10, 30]));
        assert_eq!(process.cwd().to_str(), Some("/w"));
        assert_eq!((process.terminal(), process.no_new_privileges()), (Some(true), Some(true)));
        assert_eq!(ExecOptions::default().apply(base()).unwrap_err().to_string(), "exec args cannot be empty");
    }
}
