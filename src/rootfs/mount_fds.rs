//! Trees taken on the host, on their way into the container process.
//!
//! Few are simply held open over the fork. Many would not fit below the limit on open files, which is not ours to raise:
//! they wait in a socket, where they do not count, and are taken out by and by.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::vec;

use nix::sys::socket::MsgFlags;
use nix::unistd::Pid;

use super::idmap::{ContainerUserns, Maps, UserNamespaces};
use super::mount::Mount;
use super::request::OpenIn;
use crate::error::{Context, Error, Result};
use crate::sys::socket;

/// More than engines use, and far below any limit on open files.
const HELD: usize = 128;

/// How many go in one message; the kernel takes [`socket::MOST`].
const BATCH: usize = 128;

/// The trees of the mounts that are opened on the host, in their order.
#[derive(Default)]
pub(super) struct MountFds {
    /// Those that are open.
    held: vec::IntoIter<OwnedFd>,
    /// Which mounts' owners are mapped by the container's user namespace: their index, and that of their tree.
    waiting: Vec<(usize, usize)>,
    /// The others.
    queue: Option<OwnedFd>,
}

impl MountFds {
    /// Takes the trees. `joined` is the user namespace that the container joins, `maps` are those of the one that it
    /// gets otherwise.
    pub(super) fn open(mounts: &[Mount], joined: Option<BorrowedFd<'_>>, maps: &Maps) -> Result<MountFds> {
        let on_host = || mounts.iter().enumerate().filter(|(_, mount)| mount.opened_in() == OpenIn::Host);
        let many = on_host().count() > HELD;
        let container = match joined {
            Some(fd) => ContainerUserns::Joined(fd),
            // What is under way cannot be mapped any more.
            None if many => ContainerUserns::Like(maps.clone()),
            None => ContainerUserns::NotYet,
        };
        let mut namespaces = UserNamespaces::new(container);
        let mut sources = MountFds::default();
        if many {
            sources.queue = Some(fill(on_host().map(|(_, mount)| Ok(mount.open(&mut namespaces)?.0)))?);
            return Ok(sources);
        }
        let mut held = Vec::new();
        for (index, mount) in on_host() {
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

    /// In the container process: the tree of the next mount that was opened on the host.
    pub(super) fn next(&mut self) -> Result<OwnedFd> {
        if let (Some(queue), true) = (&self.queue, self.held.as_slice().is_empty()) {
            self.held = take(queue).context("receive the sources of binds")?.into_iter();
        }
        self.held.next().ok_or_else(|| Error::new("internal error: no fd for this bind mount"))
    }
}

/// A socket with all these descriptors in it.
fn fill(mut trees: impl Iterator<Item = Result<OwnedFd>>) -> Result<OwnedFd> {
    let pair = socket::pair();
    let (sender, queue) = pair.context("make a socket for the sources of binds")?;
    loop {
        let batch = trees.by_ref().take(BATCH).collect::<Result<Vec<OwnedFd>>>()?;
        if batch.is_empty() {
            return Ok(queue);
        }
        // Nobody takes anything out yet, so a full socket would be waited for in vain.
        socket::send(sender.as_fd(), b"+", &batch, MsgFlags::MSG_DONTWAIT, None)
            .context("hand over the sources of binds")?;
    }
}

fn take(queue: &OwnedFd) -> Result<Vec<OwnedFd>> {
    Ok(socket::receive(queue.as_fd(), &mut [0], MsgFlags::empty())?.1)
}
