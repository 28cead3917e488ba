//! Sessions of `exec`: its processes that still run in a container.
//!
//! They are not recorded, so that an exec costs nothing more. In a pid namespace all orphans are re-parented to its init (or
//! to a subreaper in it), so a process with a parent outside was put there by an exec. In a shared pid namespace that does
//! not hold: there a session is a session leader (setsid(2)) without a parent in the container's cgroup, which may also be
//! a daemon of the container.

use std::collections::BTreeSet;
use std::os::fd::AsFd;

use nix::unistd::Pid;
use serde::Serialize;

use crate::error::{Context, Error, Result, bail};
use crate::sys::pid::Stat;
use crate::sys::{self, Errno};

use super::Container;
use super::members::{everybody, pid_namespace};

/// A running process of an exec.
#[derive(Debug, Serialize)]
pub struct Session {
    /// [`id`].
    pub id: String,
    /// As this process sees it.
    pub pid: i32,
    /// RFC 3339, to the second.
    pub since: String,
    /// Its command line now, which a program may change.
    pub args: Vec<String>,
}

/// The sessions of a container, by pid. A container that has ended has none.
pub fn list(container: &Container) -> Result<Vec<Session>> {
    let found = find(container)?;
    let (uptime, ticks) = (if found.is_empty() { 0 } else { uptime()? }, sys::pid::ticks_per_second());
    let session = |(pid, stat): (Pid, Stat)| Session {
        id: id(pid, stat.start_time),
        pid: pid.as_raw(),
        since: crate::time::seconds_ago(uptime.saturating_sub(stat.start_time / ticks)),
        args: arguments(pid),
    };
    Ok(found.into_iter().map(session).collect())
}

/// Sends a signal by number to the process of a session, given by its id or its pid. A container that has ended is another
/// error than a session that has.
pub fn kill(container: &Container, session: &str, number: i32) -> Result<()> {
    container.init()?;
    let none = || Error::new(format!("the container has no session {session}")).hint("see ps --sessions");
    let digits = session.split_once('-').map_or(session, |(pid, _)| pid);
    let pid = digits.parse().ok().filter(|&pid: &i32| pid > 0).map(Pid::from_raw).ok_or_else(none)?;
    let what = || format!("signal session {session}");
    // The pidfd first: then the check that follows is about this process, or it has ended.
    let pidfd = sys::pid::find(pid).with_context(what)?.ok_or_else(none)?;
    let named =
        |&(found, stat): &(Pid, Stat)| found == pid && (session == digits || session == id(pid, stat.start_time));
    find(container)?.iter().find(|found| named(found)).ok_or_else(none)?;
    match sys::pid::signal(pidfd.as_fd(), number) {
        Err(Errno::ESRCH) => Err(none()),
        done => done.with_context(what),
    }
}

/// The id of a session: pid and start time, which no later process shares.
fn id(pid: Pid, start_time: u64) -> String {
    format!("{pid}-{}", base36(start_time))
}

/// A number in few characters.
fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(char::from_digit((number % 36) as u32, 36).unwrap_or_default());
        number /= 36;
        if number == 0 {
            return digits.iter().rev().collect();
        }
    }
}

fn find(container: &Container) -> Result<Vec<(Pid, Stat)>> {
    let Some((init, _)) = container.living_init()? else { return Ok(Vec::new()) };
    let Some(inside) = pid_namespace(init) else {
        bail!("cannot read the pid namespace of init, process {init}");
    };
    let shared = pid_namespace(Pid::this()) == Some(inside);
    let members: BTreeSet<Pid> = match container.own_cgroup()? {
        Some(cgroup) => cgroup.pids()?.into_iter().collect(),
        // In a pid namespace shared by containers, other inits have parents outside, too.
        None if !container.owns_pid_namespace() => {
            bail!(
                "the container has neither a cgroup nor a pid namespace of its own, so its sessions cannot be told from other processes"
            )
        }
        None => everybody()?,
    };
    let from_outside = |pid: Pid, stat: &Stat| match shared {
        true => stat.session == pid.as_raw() && !members.contains(&Pid::from_raw(stat.parent)),
        // A process of a nested container belongs to the runtime of that one.
        false => pid_namespace(pid) == Some(inside) && pid_namespace(Pid::from_raw(stat.parent)) != Some(inside),
    };
    let mut found = Vec::new();
    for &pid in members.iter().filter(|&&pid| pid != init) {
        let what = || format!("read the status of process {pid}");
        let Some(stat) = sys::pid::stat(pid).with_context(what)? else { continue };
        // Twice: if the parent ends during the check, it is not found, and the process has a new one.
        if from_outside(pid, &stat)
            && sys::pid::stat(pid).with_context(what)?.is_some_and(|now| from_outside(pid, &now))
        {
            found.push((pid, stat));
        }
    }
    Ok(found)
}

fn arguments(pid: Pid) -> Vec<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    bytes.split(|&byte| byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Seconds since boot, by the clock of start times.
fn uptime() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/uptime").context("read /proc/uptime")?;
    let seconds = text.split('.').next().and_then(|seconds| seconds.parse().ok());
    seconds.ok_or_else(|| Error::new("/proc/uptime holds no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_short_and_tells_processes_with_one_pid_apart() {
        assert_eq!(id(Pid::from_raw(4711), 0), "4711-0");
        assert_eq!(id(Pid::from_raw(4711), 36 * 36 + 35), "4711-10z");
        assert_ne!(id(Pid::from_raw(4711), 8_640_000), id(Pid::from_raw(4711), 8_640_001));
    }
}
