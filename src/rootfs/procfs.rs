//! A procfs that shows the processes of a pid namespace which its maker is not in.
//!
//! A process of the runtime that entered the pid namespace of others, just to mount a procfs there, would be seen by them
//! with all that it has. From Linux 6.18 on the mount option `pidns=` names the namespace instead. Before that a procfs
//! which a member of the namespace has mounted is cloned, after a look whether it is the root of one and of that
//! namespace.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::MsgFlags;
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::error::{Context, Error, Result, ensure};
use crate::sys::clone::{self, Fork};
use crate::sys::mount::{Attr, Change, Filesystem, change, clone_fd};
use crate::sys::{self, Errno, ns, socket};

/// How long a member of the namespace may keep us waiting, who could have mounted anything on its `/proc`.
const LIMIT: Duration = Duration::from_secs(5);

/// How long a helper that was killed may take to end; one that hangs in a call stays behind.
const REAP_MS: u16 = 1000;

/// How many members are tried.
const MEMBERS: usize = 100;

/// A pid namespace whose processes are to be shown.
pub struct Shown(OwnedFd);

impl Shown {
    /// The namespace behind a descriptor, which is duplicated.
    pub fn new(namespace: BorrowedFd<'_>) -> Result<Shown> {
        namespace.try_clone_to_owned().map(Shown).context("keep the pid namespace")
    }

    /// Tells a procfs in the making; false where this kernel cannot be told.
    pub(super) fn tell(&self, filesystem: &Filesystem) -> Result<bool, Errno> {
        match filesystem.set_fd(c"pidns", self.0.as_fd()) {
            Ok(()) => Ok(true),
            Err(Errno::EINVAL) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// A clone, with these attributes, of a procfs of this namespace: of our own `/proc`, or of a member's.
    pub(super) fn clone_existing(&self, attributes: Attr) -> Result<OwnedFd> {
        let own = fstat(&self.0).context("look at the pid namespace")?;
        let identity = (own.st_dev, own.st_ino);
        let found = clone_own(identity).or_else(|_| clone_of_member(identity)).map_err(|error| {
            error.context("find a procfs of the pid namespace that is joined").hint(
                "before Linux 6.18 (mount option pidns) one of its processes must have one at /proc that is the \
                 runtime's to clone",
            )
        });
        let tree = found?;
        change(&tree, false, Change { set: attributes, clear: !attributes & CLEARED, propagation: None })
            .context("set its attributes")?;
        Ok(tree)
    }
}

/// Whether a mount shows a procfs from its root on.
pub(super) fn is_proc_root(tree: &OwnedFd) -> Result<bool> {
    /// `PROC_ROOT_INO`, `<linux/proc_fs.h>`.
    const ROOT: u64 = 1;
    Ok(fstatfs(tree)?.filesystem_type() == PROC_SUPER_MAGIC && fstat(tree)?.st_ino == ROOT)
}

/// Attributes that a clone does not keep.
const CLEARED: Attr = Attr::RDONLY.union(Attr::NOSUID).union(Attr::NODEV).union(Attr::NOEXEC);

/// Clones what is mounted on `/proc` of our root.
fn clone_own(namespace: (u64, u64)) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let tree = clone_fd(&open("/proc", flags, Mode::empty()).context("open /proc")?, false).context("clone /proc")?;
    ensure!(is_proc_root(&tree)?, "/proc is no procfs");
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_NO_XDEV);
    // Its first process is in the namespace that a procfs shows. The link itself leads out of the procfs.
    let first = openat2(&tree, "1/ns", how).context("look at the processes of /proc")?;
    let shown = nix::sys::stat::fstatat(&first, c"pid", nix::fcntl::AtFlags::empty());
    let shown = shown.context("look at the pid namespace of /proc")?;
    ensure!((shown.st_dev, shown.st_ino) == namespace, "/proc shows another pid namespace");
    Ok(tree)
}

/// Does it in the mount namespace of a process that is in the pid namespace.
fn clone_of_member(namespace: (u64, u64)) -> Result<OwnedFd> {
    let is_member = |pid: &u32| {
        fs::metadata(format!("/proc/{pid}/ns/pid")).is_ok_and(|there| (there.dev(), there.ino()) == namespace)
    };
    let processes = fs::read_dir("/proc").context("list the host's processes")?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let began = Instant::now();
    let mut outcome = Err(Error::new("none of its processes is to be seen"));
    for pid in pids.filter(is_member).take(MEMBERS) {
        outcome = clone_there(pid, namespace);
        if outcome.is_ok() || began.elapsed() > LIMIT {
            break;
        }
    }
    outcome
}

/// By a process that ends at once, since the way back into our own mount namespace may be shut. It is outside of the pid
/// namespace.
fn clone_there(pid: u32, namespace: (u64, u64)) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/mnt");
    let place = fs::File::open(&path).with_context(|| format!("open {path}"))?;
    let (ours, theirs) = socket::pair()?;
    match clone::clone3(ns::Flags::empty(), None)? {
        Fork::Child => {
            drop(ours);
            let entered = clone::setns(place.as_fd(), ns::Flags::MOUNT).context("join its mount namespace");
            if let Ok(tree) = entered.and_then(|()| clone_own(namespace)) {
                let _ = socket::send(theirs.as_fd(), b"+", &[tree], MsgFlags::empty(), None);
            }
            sys::pid::exit_now(0)
        }
        Fork::Parent { pidfd, .. } => {
            drop(theirs);
            let said = loop {
                match ppoll(&mut [PollFd::new(ours.as_fd(), PollFlags::POLLIN)], Some(LIMIT.into()), None) {
                    Err(Errno::EINTR) => {}
                    said => break said,
                }
            };
            let received = if said == Ok(1) { receive(&ours) } else { None };
            // It may hang on what is mounted there.
            let _ = sys::pid::signal(pidfd.as_fd(), libc::SIGKILL);
            if sys::pid::ended_within(pidfd.as_fd(), REAP_MS).unwrap_or(false) {
                let _ = sys::pid::reap(pidfd.as_fd());
            }
            received.ok_or_else(|| Error::new(format!("process {pid} has no procfs of its pid namespace at /proc")))
        }
    }
}

fn receive(socket: &OwnedFd) -> Option<OwnedFd> {
    socket::receive(socket.as_fd(), &mut [0], MsgFlags::empty()).ok()?.1.into_iter().next()
}
