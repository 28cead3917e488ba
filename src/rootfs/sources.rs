//! Trees taken on the host, on their way into the container's process.
//!
//! Few are simply held open over the fork. Many would not fit below the limit on open files, which is not ours to raise:
//! they wait in a socket, where they do not count, and are taken out by and by.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::vec;

use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};
use nix::unistd::Pid;

use super::idmap::{Container, Maps, Namespaces};
use super::mounts::Mount;
use crate::error::{Context, Error, Result};
use crate::sys;

/// More than engines use, and far below any limit on open files.
const HELD: usize = 128;

/// How many go in one message; the kernel takes 253 (unix(7), `SCM_MAX_FD`).
const BATCH: usize = 128;

/// The trees of the mounts that are early, in their order.
#[derive(Default)]
pub(super) struct Sources {
    /// Those that are open.
    held: vec::IntoIter<OwnedFd>,
    /// Which mounts' owners are mapped by the container's user namespace: their index, and that of their tree.
    waiting: Vec<(usize, usize)>,
    /// The others.
    queue: Option<OwnedFd>,
}

impl Sources {
    /// Takes the trees. `joined` is the user namespace that the container joins, `maps` are those of the one that it
    /// gets otherwise.
    pub(super) fn open(mounts: &[Mount], joined: Option<BorrowedFd<'_>>, maps: &Maps) -> Result<Sources> {
        let early = || mounts.iter().enumerate().filter(|(_, mount)| mount.is_early());
        let many = early().count() > HELD;
        let container = match joined {
            Some(fd) => Container::Joined(fd),
            // What is under way cannot be mapped any more.
            None if many => Container::Like(maps.clone()),
            None => Container::Later,
        };
        let mut namespaces = Namespaces::new(container);
        let mut sources = Sources::default();
        if many {
            sources.queue = Some(fill(early().map(|(_, mount)| Ok(mount.open(&mut namespaces)?.0)))?);
            return Ok(sources);
        }
        let mut held = Vec::new();
        for (index, mount) in early() {
            let (tree, waits) = mount.open(&mut namespaces)?;
            if waits {
                sources.waiting.push((index, held.len()));
            }
            held.push(tree);
        }
        sources.held = held.into_iter();
        Ok(sources)
    }

    /// On the host: maps the owners of those that waited for the container's user namespace.
    pub(super) fn map_ids(&self, mounts: &[Mount], init: Pid) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let path = format!("/proc/{init}/ns/user");
        let namespace = File::open(&path).with_context(|| format!("open {path}"))?;
        let held = self.held.as_slice();
        self.waiting.iter().try_for_each(|&(mount, tree)| mounts[mount].map_ids(&held[tree], namespace.as_fd()))
    }

    /// In the container's process: the tree of the next early mount.
    pub(super) fn next(&mut self) -> Result<OwnedFd> {
        if let (Some(queue), true) = (&self.queue, self.held.as_slice().is_empty()) {
            self.held = take(queue).context("receive the sources of binds")?.into_iter();
        }
        self.held.next().ok_or_else(|| Error::new("the source of a bind got lost"))
    }
}

/// A socket with all these descriptors in it.
fn fill(mut trees: impl Iterator<Item = Result<OwnedFd>>) -> Result<OwnedFd> {
    let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
    let (sender, queue) = pair.context("make a socket for the sources of binds")?;
    loop {
        let batch = trees.by_ref().take(BATCH).collect::<Result<Vec<OwnedFd>>>()?;
        if batch.is_empty() {
            return Ok(queue);
        }
        let fds: Vec<i32> = batch.iter().map(AsRawFd::as_raw_fd).collect();
        // Nobody takes anything out yet, so a full socket would be waited for in vain.
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        sendmsg::<()>(sender.as_raw_fd(), &[IoSlice::new(b"+")], &[ControlMessage::ScmRights(&fds)], flags, None)
            .context("hand over the sources of binds")?;
    }
}

fn take(queue: &OwnedFd) -> Result<Vec<OwnedFd>> {
    let mut body = [0];
    let mut slices = [IoSliceMut::new(&mut body)];
    let mut space = cmsg_space!([i32; BATCH]);
    let message = recvmsg::<()>(queue.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let fds = message.cmsgs()?.filter_map(|control| match control {
        ControlMessageOwned::ScmRights(fds) => Some(fds),
        _ => None,
    });
    Ok(fds.flatten().map(sys::fd::received).collect())
}
