//! The child of the runtime from which a container process comes, made by one clone3 and born in the cgroup.
//!
//! Which child that is depends on the pid namespace, since all processes of that namespace see it:
//!
//! - In a new pid namespace it is alone, and is the container's first process.
//! - In the runtime's own pid namespace the child is the container process, and non-dumpable.
//! - If a pid namespace is joined, the child is an intermediate process, which stays outside of it. As its last act it
//!   clones the container process as its sibling ([`SuccessorSlot::make_successor`]) and exits.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use super::fd_reply;
use crate::error::{Context, Error, Result};
use crate::namespaces::time::{Offsets, OwnProc};
use crate::namespaces::user::{self, Ids};
use crate::namespaces::{self, JoinedNamespace};
use crate::sys::clone::{self, By, Fork, SharedPid};
use crate::sys::{self, Errno, ns};

/// The side of the fork on which the caller is.
pub enum Side {
    /// The runtime, with its child.
    Host(Pid, OwnedFd),
    /// The child. It has to join the entries that are left.
    Container,
}

/// Shared memory in which the kernel writes the pid of the process that an intermediate process clones.
pub struct SuccessorSlot(SharedPid);

impl SuccessorSlot {
    /// Maps it, before the intermediate process is forked.
    pub fn new() -> Result<SuccessorSlot> {
        SharedPid::new().map(SuccessorSlot).context("map memory for the pid of the container process")
    }

    /// The process, once it exists. It is a child of the runtime, so its pid is not reused before it is reaped.
    pub fn taken(&self) -> Option<Pid> {
        self.0.get()
    }

    /// In the intermediate process, before a filter forbids it: keeps the mapping out of the container process.
    pub fn prepare(&self) -> Result<()> {
        self.0.keep_from_children().context("keep shared memory out of the container process (MADV_DONTFORK)")
    }

    /// In the intermediate process: clones the container process, in which alone this returns, and exits. The pid
    /// namespace for children has been set.
    ///
    /// They share no memory: whoever traces the container process must not reach a process outside of its pid
    /// namespace.
    pub fn make_successor(self, by: By) -> Result<()> {
        if clone::sibling(by, &self.0).map_err(|errno| explain(errno, ns::Flags::empty()))? {
            // This process has no such mapping to unmap.
            std::mem::forget(self);
            return Ok(());
        }
        sys::pid::exit_now(0)
    }
}

/// Forks the child that becomes init, in `new` namespaces and about to join `entries`. With a pid namespace among the
/// entries it is an intermediate process, which has both still to do.
pub fn fork(
    new: ns::Flags,
    entries: &mut Vec<JoinedNamespace>,
    offsets: Option<&Offsets>,
    instead: Ids,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Side> {
    if joins(entries, ns::Flags::PID) {
        return plain(ns::Flags::empty(), cgroup);
    }
    // New namespaces must belong to the user namespace, and those joined may need rights that only the runtime's own
    // user namespace gives.
    if !joins(entries, ns::Flags::USER) && (!new.contains(ns::Flags::USER) || entries.is_empty()) {
        return plain(new, cgroup);
    }
    let side = fork_via_intermediate(cgroup, || join_and_clone(new, entries, offsets, instead));
    if matches!(side, Ok(Side::Container)) {
        entries.clear();
    }
    side
}

/// Whether the entries have a namespace of this kind.
pub fn joins(entries: &[JoinedNamespace], kind: ns::Flags) -> bool {
    entries.iter().any(|entry| entry.kind.flag == kind)
}

/// clone3 with these namespaces, in the cgroup.
pub fn plain(new: ns::Flags, cgroup: Option<BorrowedFd<'_>>) -> Result<Side> {
    match clone::clone3(new, cgroup) {
        Ok(Fork::Child) => Ok(Side::Container),
        Ok(Fork::Parent { pid, pidfd }) => Ok(Side::Host(pid, pidfd)),
        Err(errno) => Err(explain(errno, new)),
    }
}

/// An intermediate process joins the user namespace and clones init as its sibling (CLONE_PARENT): only new namespaces
/// that are made inside belong to that user namespace.
fn fork_via_intermediate(
    cgroup: Option<BorrowedFd<'_>>,
    join_and_clone: impl FnOnce() -> Result<Fork>,
) -> Result<Side> {
    let (ours, theirs) = fd_reply::pair().context("create the socket to the intermediate process")?;
    match clone::clone3(ns::Flags::empty(), cgroup) {
        Ok(Fork::Parent { pidfd, .. }) => {
            drop(theirs);
            let arrived = receive(ours.as_fd());
            // It exits either way, and has to be reaped.
            let end = exit_of(pidfd.as_fd());
            arrived?.ok_or_else(|| Error::new(format!("the intermediate process {end} while it joined the namespaces")))
        }
        Ok(Fork::Child) => {
            drop(ours);
            let done = match join_and_clone() {
                Ok(Fork::Child) => return Ok(Side::Container),
                Ok(Fork::Parent { pidfd, .. }) => Ok(vec![pidfd]),
                Err(error) => Err(error),
            };
            // If this fails, the runtime sees the exit.
            let _ = fd_reply::send(theirs.as_fd(), &done);
            sys::pid::exit_now(done.is_err().into())
        }
        Err(errno) => Err(explain(errno, ns::Flags::empty())),
    }
}

fn join_and_clone(
    new: ns::Flags,
    entries: &[JoinedNamespace],
    offsets: Option<&Offsets>,
    instead: Ids,
) -> Result<Fork> {
    enter(entries, offsets, instead)?;
    clone::clone3_sibling(new).map_err(|errno| explain(errno, new))
}

/// Joins the entries but for a pid namespace, the user namespace as its root, or as `instead` where it has none.
///
/// `offsets` are for a new time namespace, if a user namespace is joined: after the join nobody inside may write them.
pub fn enter(entries: &[JoinedNamespace], offsets: Option<&Offsets>, instead: Ids) -> Result<()> {
    let user = joins(entries, ns::Flags::USER);
    let own = offsets.filter(|_| user).map(|_| OwnProc::open()).transpose()?;
    if user {
        // Before the join: setgroups(2) may be denied inside (user_namespaces(7)).
        user::drop_groups()?;
    }
    namespaces::enter(entries)?;
    if user {
        // Before the change of ids: afterwards this process does not own its /proc files.
        offsets.zip(own).map_or(Ok(()), |(offsets, own)| offsets.set(&own))?;
        user::become_root(instead)?;
    }
    Ok(())
}

/// How a child has ended, as the end of a sentence. `None`: unknown.
pub struct ExitReason(Option<WaitStatus>);

impl ExitReason {
    /// Whether it was SIGKILL.
    pub fn is_kill(&self) -> bool {
        matches!(self.0, Some(WaitStatus::Signaled(_, Signal::SIGKILL, _)))
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(WaitStatus::Signaled(_, signal, _)) => write!(out, "was killed by {signal}"),
            Some(WaitStatus::Exited(_, code)) => write!(out, "exited with code {code}"),
            _ => out.write_str("vanished"),
        }
    }
}

/// Reaps a child that has ended.
pub fn exit_of_dead(pidfd: BorrowedFd<'_>) -> ExitReason {
    ExitReason(sys::pid::reap_dead(pidfd))
}

/// Reaps a child that has ended, or is about to.
pub fn exit_of(pidfd: BorrowedFd<'_>) -> ExitReason {
    ExitReason(sys::pid::reap(pidfd).ok())
}

/// `None`: the intermediate process ended without a reply.
fn receive(socket: BorrowedFd<'_>) -> Result<Option<Side>> {
    let fd_reply = fd_reply::receive(socket).context("receive the pidfd of the container process")?.transpose()?;
    let Some(pidfd) = fd_reply.and_then(|fds| fds.into_iter().next()) else { return Ok(None) };
    let pid = sys::pid::of(pidfd.as_fd()).ok_or_else(|| Error::new("the container process died before its setup"))?;
    Ok(Some(Side::Host(pid, pidfd)))
}

/// Explains a failed clone3.
fn explain(errno: Errno, new: ns::Flags) -> Error {
    let error = Error::from(errno).context("create the container process (clone3)");
    match errno {
        Errno::EPERM | Errno::EACCES if new.contains(ns::Flags::USER) => error.hint(user::switched_off().unwrap_or(
            "user namespaces are forbidden here: by a security module, an outer sandbox, or because this is a chroot",
        )),
        Errno::EPERM => error.hint(
            "new namespaces need root, or a user namespace: add {\"type\": \"user\"} to linux.namespaces, and id mappings",
        ),
        Errno::ENOSPC => {
            let off = user::switched_off().filter(|_| new.contains(ns::Flags::USER));
            error.hint(off.unwrap_or("a limit in /proc/sys/user/max_*_namespaces is reached"))
        }
        Errno::EAGAIN => error.hint("the limit on processes (pids.max of a cgroup, or RLIMIT_NPROC) is reached"),
        Errno::ENOSYS => error.hint("an outer sandbox forbids clone3, which corten needs"),
        Errno::EACCES => error.hint(
            "this user may not move a process there from a cgroup of somebody else's: start with \
             systemd-run --user --scope, or in a cgroup delegated to the user",
        ),
        Errno::EBUSY => {
            error.hint("the cgroup has controllers enabled for its children and can hold no process itself")
        }
        _ => error,
    }
}
