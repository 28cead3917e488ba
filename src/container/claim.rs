//! Whether the cgroup at the recorded path is still the container's.

use super::Container;
use crate::cgroup::{Handle, Holder, Location};
use crate::error::{Error, Result};
use crate::host;

/// What a container may do to the cgroup at its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is the container's, with all processes in it.
    Own,
    /// Unknown, but no process in it can be the container's: it may be removed if it is empty.
    Empty,
    /// It belongs to another container.
    None,
}

impl Container {
    /// Finds the owner of the cgroup. To be called before init is killed: a living init in it proves ownership.
    pub fn claim(&self, cgroup: &Location) -> Result<Claim> {
        let holder = Handle::of(cgroup).holder()?;
        // No container takes over a cgroup with a process in it. The mark proves less: in a delegated cgroup its owner can
        // change it.
        if holder == Holder::Own || self.lives_in(cgroup)? {
            return Ok(Claim::Own);
        }
        Ok(match holder {
            // With its own pid namespace no process outlives init. With a shared one, what is left has to be killed.
            Holder::Unknown if self.owns_pid_namespace() => Claim::Empty,
            Holder::Unknown => Claim::Own,
            // Its creator was killed between making the directory and marking it, when nobody was in it yet.
            Holder::Unmarked if self.record.init().is_none() && cgroup.made() > 0 => Claim::Empty,
            _ => Claim::None,
        })
    }

    fn lives_in(&self, cgroup: &Location) -> Result<bool> {
        let Some((pid, _handle)) = self.living_init()? else { return Ok(false) };
        Ok(Handle::of(cgroup).pids()?.contains(&pid))
    }

    /// The container's cgroup, if it has one of its own and nobody else has it by now.
    pub fn own_cgroup(&self) -> Result<Option<Handle<'_>>> {
        let Some(cgroup) = &self.record.cgroup else { return Ok(None) };
        Ok((self.claim(cgroup)? == Claim::Own).then_some(Handle::of(cgroup)))
    }

    /// Its own cgroup; without one the error says what it would be needed for.
    pub(super) fn cgroup(&self, purpose: &str) -> Result<Handle<'_>> {
        let cgroup = self.record.cgroup.as_ref().ok_or_else(|| {
            let remedy = if host::is_unprivileged() {
                "create it without --cgroup-manager=disabled, where a cgroup is delegated to this user: in a systemd user \
                 session, or with linux.cgroupsPath below a cgroup of this user's"
            } else {
                "create it without --cgroup-manager=disabled"
            };
            Error::new(format!("the container has no cgroup of its own to {purpose}")).hint(remedy)
        })?;
        match self.claim(cgroup)? {
            Claim::Own => Ok(Handle::of(cgroup)),
            Claim::Empty | Claim::None => Err(Error::new(format!(
                "the container has no cgroup of its own to {purpose}: cgroup {cgroup} is not the container's any more"
            ))
            .hint(
                "another container has the same linux.cgroupsPath; delete this one, and give every container its own",
            )),
        }
    }
}
