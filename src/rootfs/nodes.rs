//! Device nodes for a container in a user namespace, where the kernel lets nobody make any (mknod(2), user_namespaces(7)).
//!
//! A runtime that may makes them on the host, in a tmpfs that is on no path and gone with its last mount: the nodes have
//! the owner and the mode of the configuration, and the host needs none of that name. The container process binds them
//! one by one; it never sees the tmpfs in its own root.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{AtFlags, OFlag};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, mknodat};
use nix::unistd::{Gid, Uid, fchdir, fchownat};

use super::filesystem::{finish, set, start};
use super::path::Root;
use crate::error::{Context, Result};
use crate::sys::Errno;
use crate::sys::mount::{Attr, attach, clone_fd};
use crate::sys::path::{Links, open_in};

/// A file system of device nodes, each with a number for a name.
pub(super) struct Nodes {
    tree: OwnedFd,
    names: Vec<CString>,
}

/// A node to make. Users and groups are those of the host; none stay the runtime's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    pub(super) kind: SFlag,
    pub(super) mode: Mode,
    pub(super) number: u64,
    pub(super) user: Option<u32>,
    pub(super) group: Option<u32>,
}

impl Nodes {
    /// On the host: a detached file system without nodes. None where this process may not make one.
    pub(super) fn new(label: Option<&str>) -> Result<Option<Nodes>> {
        let make = || {
            let filesystem = start(c"tmpfs")?;
            // To be passed by the root of a user namespace, who is not its owner, but not to be listed.
            set(&filesystem, c"mode", Some(c"0711"))?;
            if let Some(label) = label {
                set(&filesystem, c"context", Some(&CString::new(label).unwrap_or_default()))?;
            }
            finish(&filesystem, Attr::NOSUID | Attr::NOEXEC)
        };
        match make() {
            Ok(tree) => Ok(Some(Nodes { tree, names: Vec::new() })),
            Err(error) if error.errno() == Some(Errno::EPERM) => Ok(None),
            Err(error) => Err(error.context("make a file system for the devices")),
        }
    }

    /// On the host: makes a node. False where this process may not (CAP_MKNOD, CAP_CHOWN, the device rules it is under).
    pub(super) fn add(&mut self, node: Node) -> Result<bool> {
        let name = CString::new(self.names.len().to_string()).unwrap_or_default();
        let make = || {
            match mknodat(&self.tree, name.as_c_str(), node.kind, Mode::empty(), node.number) {
                // Of one that was begun before.
                Err(Errno::EEXIST) | Ok(()) => {}
                Err(errno) => return Err(errno),
            }
            let (user, group) = (node.user.map(Uid::from_raw), node.group.map(Gid::from_raw));
            if user.is_some() || group.is_some() {
                fchownat(&self.tree, name.as_c_str(), user, group, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            }
            // Whatever the umask.
            fchmodat(&self.tree, name.as_c_str(), node.mode, FchmodatFlags::FollowSymlink)
        };
        match make() {
            Ok(()) => {
                self.names.push(name);
                Ok(true)
            }
            Err(Errno::EPERM) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// In the container process, in a mount namespace of the container's: a detached mount of each node, in order.
    pub(super) fn bind(self, root: &Root, place: &OwnedFd) -> Result<Vec<OwnedFd>> {
        let one = |name: &CString| clone_fd(open_in(&self.tree, name.as_c_str(), OFlag::O_PATH, Links::Refuse)?, false);
        // Until Linux 6.15 only what is attached can be cloned.
        attach(&self.tree, place).context("mount the file system of the devices")?;
        let nodes = self.names.iter().map(one).collect::<crate::sys::Result<Vec<OwnedFd>>>();
        // By its directory, since its path has links on it that somebody may exchange.
        fchdir(&self.tree).and_then(|()| umount2(".", MntFlags::MNT_DETACH)).context("unmount it")?;
        fchdir(root.fd().as_fd()).context("enter the container's root")?;
        nodes.context("bind what is in the file system of the devices")
    }
}
