//! One clone3 with all new namespaces, born in the cgroup; a hop where a user namespace and joined ones meet.

use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use super::answer;
use crate::error::{Context, Error, Result};
use crate::namespaces::time::Offsets;
use crate::namespaces::{self, Entry, user};
use crate::sys::clone::{self, Fork};
use crate::sys::{self, Errno};

const PID: u64 = libc::CLONE_NEWPID as u64;
const USER: u64 = libc::CLONE_NEWUSER as u64;

/// Which side the caller is on.
pub enum Side {
    /// The runtime, with the container's first process.
    Host(Pid, OwnedFd),
    /// The container's first process, which has still to join the entries that are left.
    Container,
}

/// Makes the container's first process with `new` namespaces, about to join `entries`. On the container's side those
/// are left that it has not joined by being made.
pub fn fork(
    new: u64,
    entries: &mut Vec<Entry>,
    offsets: Option<&Offsets>,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Side> {
    // A process enters a pid namespace only by being born there: the runtime is its parent's stand-in for one clone.
    let pid_entry = entries.iter().find(|entry| entry.kind.flag == PID);
    let joins_user = entries.iter().any(|entry| entry.kind.flag == USER);
    let (home, denied) = match pid_entry.map(|entry| adopt_pid_namespace(entry.fd.as_fd())).transpose() {
        Err(error) if error.errno() == Some(Errno::EPERM) => (None, true),
        adopted => (adopted?, false),
    };
    let hops = denied || joins_user || (new & USER != 0 && entries.iter().any(|entry| entry.kind.flag != PID));
    let side = if hops { hop(cgroup, || land(new, entries, offsets, denied)) } else { plain(new, cgroup) };
    match side {
        Ok(Side::Container) => entries.retain(|entry| !hops && entry.kind.flag != PID),
        _ => go_home(home)?,
    }
    side
}

/// Makes a process beside the first one of a container, born in its pid namespace when it has one of its own; `kinds` are
/// then those that it has still to join. `last`: the runtime makes no other after it, and may stay in that pid namespace
/// for its children. `adopt` is called for the process that makes it, where that is not the runtime.
pub fn fork_beside(
    init: BorrowedFd<'_>,
    own_pid_namespace: bool,
    kinds: &mut u64,
    last: bool,
    cgroup: Option<BorrowedFd<'_>>,
    adopt: impl FnOnce(Pid) -> Result<()>,
) -> Result<Side> {
    let adopted = match own_pid_namespace {
        false => true,
        // There is no way back to the runtime's own.
        true if last => match clone::setns(init, PID) {
            // The right to be born there comes with the user namespace.
            Err(Errno::EPERM) if *kinds & USER != 0 => false,
            done => done.context("join the pid namespace").map(|()| true)?,
        },
        true => false,
    };
    if adopted {
        return plain(0, cgroup);
    }
    let join = PID | (*kinds & USER);
    *kinds &= !USER;
    hop(cgroup, || {
        adopt(nix::unistd::getpid())?;
        land_beside(init, join)
    })
}

/// Undoes [`adopt_pid_namespace`].
fn go_home(home: Option<OwnedFd>) -> Result<()> {
    home.map_or(Ok(()), |home| clone::setns(home.as_fd(), PID)).context("go back to our own pid namespace")
}

/// Makes the next children be born in another pid namespace; the handle leads back.
fn adopt_pid_namespace(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    let home = File::open("/proc/self/ns/pid").context("open our own pid namespace")?;
    // Whether a way leads back: not where a user namespace further out owns it. Hooks are to be born at home.
    clone::setns(home.as_fd(), PID).context("join our own pid namespace")?;
    clone::setns(fd, PID).context("join the pid namespace")?;
    Ok(home.into())
}

fn plain(new: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Side> {
    match clone::clone3(new, cgroup) {
        Ok(Fork::Child) => Ok(Side::Container),
        Ok(Fork::Parent { pid, pidfd }) => Ok(Side::Host(pid, pidfd)),
        Err(errno) => Err(explain(errno, new)),
    }
}

/// A first child joins, and from inside makes the container's process as its own sibling (CLONE_PARENT): new namespaces
/// must belong to the user namespace, which only a process inside it can bring about, and those joined may need rights
/// that only the runtime's own user namespace gives.
fn hop(cgroup: Option<BorrowedFd<'_>>, land: impl FnOnce() -> Result<Fork>) -> Result<Side> {
    let (ours, theirs) = answer::pair().context("make a socket to the hop")?;
    match clone::clone3(0, cgroup) {
        Ok(Fork::Parent { pidfd, .. }) => {
            drop(theirs);
            let arrived = receive(ours.as_fd());
            // The hop ends by itself, either way; as our child it has to be reaped.
            let end = fate(pidfd.as_fd());
            arrived?.ok_or_else(|| Error::new(format!("the process that joins the namespaces {end}")))
        }
        Ok(Fork::Child) => {
            drop(ours);
            let done = match land() {
                Ok(Fork::Child) => return Ok(Side::Container),
                Ok(Fork::Parent { pidfd, .. }) => Ok(vec![pidfd]),
                Err(error) => Err(error),
            };
            // Nobody is left to hear of a failure here but the runtime, which sees the end.
            let _ = answer::give(theirs.as_fd(), &done);
            sys::pid::exit_now(done.is_err().into())
        }
        Err(errno) => Err(explain(errno, 0)),
    }
}

/// `denied`: the runtime had no right to adopt the pid namespace, or would have had none to return from it.
fn land(new: u64, entries: &[Entry], offsets: Option<&Offsets>, denied: bool) -> Result<Fork> {
    namespaces::enter(entries)?;
    if entries.iter().any(|entry| entry.kind.flag == USER) {
        // Before the ids change, which makes our own files in /proc belong to the host's root.
        offsets.map_or(Ok(()), Offsets::set)?;
        user::become_root()?;
    }
    for entry in entries.iter().filter(|entry| denied && entry.kind.flag == PID) {
        clone::setns(entry.fd.as_fd(), PID).context("join the pid namespace")?;
    }
    clone::clone3(new | libc::CLONE_PARENT as u64, None).map_err(|errno| explain(errno, new))
}

fn land_beside(init: BorrowedFd<'_>, join: u64) -> Result<Fork> {
    // What is born must not be looked into by the container's processes before it has shut itself (CVE-2016-9962).
    nix::sys::prctl::set_dumpable(false).context("become non-dumpable")?;
    clone::setns(init, join).context("join the container's user and pid namespaces")?;
    if join & USER != 0 {
        user::become_root()?;
    }
    clone::clone3(libc::CLONE_PARENT as u64, None).map_err(|errno| explain(errno, 0))
}

/// How a child has ended, which is shown as the end of a sentence. `None`: nobody knows.
pub struct Fate(Option<WaitStatus>);

impl Fate {
    /// Whether it was SIGKILL.
    pub fn is_kill(&self) -> bool {
        matches!(self.0, Some(WaitStatus::Signaled(_, Signal::SIGKILL, _)))
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(WaitStatus::Signaled(_, signal, _)) => write!(out, "was killed by {signal}"),
            Some(WaitStatus::Exited(_, code)) => write!(out, "exited with code {code}"),
            _ => out.write_str("vanished"),
        }
    }
}

/// Reaps a child that has ended, or is about to.
pub fn fate(pidfd: BorrowedFd<'_>) -> Fate {
    Fate(sys::pid::reap(pidfd).ok())
}

/// `None`: the hop died without a word.
fn receive(socket: BorrowedFd<'_>) -> Result<Option<Side>> {
    let answer = answer::take(socket).context("hear from the hop")?.transpose()?;
    let Some(pidfd) = answer.and_then(|fds| fds.into_iter().next()) else { return Ok(None) };
    let pid = sys::pid::of(pidfd.as_fd()).ok_or_else(|| Error::new("the container's first process died at once"))?;
    Ok(Some(Side::Host(pid, pidfd)))
}

/// What a refused clone3 means.
fn explain(errno: Errno, new: u64) -> Error {
    let error = Error::from(errno).context("make the container's process (clone3)");
    match errno {
        Errno::EPERM | Errno::EACCES if new & USER != 0 => error.hint(user::switched_off().unwrap_or(
            "user namespaces are forbidden here: by a security module, an outer sandbox, or because this is a chroot",
        )),
        Errno::EPERM => error.hint(
            "new namespaces need root, or a user namespace: add {\"type\": \"user\"} to linux.namespaces, and id mappings",
        ),
        Errno::ENOSPC => {
            let off = user::switched_off().filter(|_| new & USER != 0);
            error.hint(off.unwrap_or("a limit below /proc/sys/user/max_*_namespaces is reached"))
        }
        Errno::EAGAIN => error.hint("the limit of processes (pids.max of a cgroup, or RLIMIT_NPROC) is reached"),
        Errno::ENOSYS => error.hint("an outer sandbox forbids clone3, which corten cannot do without"),
        Errno::EACCES => error.hint(
            "this user may not put a process there from a cgroup that is not the user's own: start with \
             systemd-run --user --scope, or in a cgroup delegated to the user",
        ),
        Errno::EBUSY => {
            error.hint("the cgroup has controllers enabled for its children and can hold no process itself")
        }
        _ => error,
    }
}
