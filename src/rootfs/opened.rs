//! The way from the plan to a container's file system: what is opened on the host, and the steps of the container process.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{Pid, fchdir};

use super::devices::{self, Taken};
use super::idmap::{self, ContainerUserns, UserNamespaces};
use super::mount::{Mount, MountContext};
use super::mount_fds::MountFds;
use super::path::{Root, RootRelPath};
use super::pivot;
use super::plan::{RootSource, Rootfs};
use super::procfs::Shown;
use super::propagation::SetPropagation;
use super::request::{CgroupPaths, Isolation, OpenIn, mount_namespace};
use crate::error::{Context, Error, Result, ensure};
use crate::sys::Errno;
use crate::sys::mount::{Attr, Change, Propagation, attach, change, change_all, clone_fd};

impl Rootfs {
    /// Takes what only the host can reach: the rootfs, sources of binds, device nodes. Call it in the host's mount
    /// namespace, before the fork. `cgroup` is where the host has its cgroup2, if it has one; `user_namespace` the one
    /// that the container joins, if it does. A runtime that has no power over the host's mounts opens nothing but the rootfs,
    /// and [`Opened::open_in_child`] the rest, in the `Child`.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR` and the like for the rootfs and for sources.
    pub fn open(
        self,
        cgroup: Option<CgroupPaths>,
        user_namespace: Option<BorrowedFd<'_>>,
        opens: OpenIn,
    ) -> Result<Opened> {
        let root = self.open_root()?;
        let stat = fstat(&root).with_context(|| self.opening()).field(|| "/root/path")?;
        let host_namespace = match self.isolation {
            Isolation::Joined => mount_namespace(),
            _ => None,
        };
        let mut opened = Opened {
            identity: (stat.st_dev, stat.st_ino),
            root: Root::new(root),
            overlay: None,
            plan: self,
            mount_fds: MountFds::default(),
            nodes: Taken::default(),
            mounting: MountContext { cgroup, shared: false, shown: None },
            dev: None,
            read_only_last: Vec::new(),
            anchors: Vec::new(),
            host_namespace,
        };
        if opens == OpenIn::Host {
            opened.overlay = opened.plan.mount_image_overlay(opened.root.fd(), user_namespace)?;
            opened.take(user_namespace, OpenIn::Host)?;
        }
        Ok(opened)
    }

    /// The overlay above the image, when there is to be one.
    fn mount_image_overlay(
        &self,
        image: BorrowedFd<'_>,
        user_namespace: Option<BorrowedFd<'_>>,
    ) -> Result<Option<OwnedFd>> {
        let RootSource::ImageOverlay(overlay) = &self.source else { return Ok(None) };
        // Its own is made later, from below the overlay.
        let container =
            user_namespace.map_or_else(|| ContainerUserns::Like(self.container_maps.clone()), ContainerUserns::Joined);
        overlay.mount(image, &self.path, &mut UserNamespaces::new(container)).map(Some)
    }
}

/// The plan with its descriptors. The verbs are called in the container process, with umask 0, in this order:
/// [`set_propagation`](Opened::set_propagation), [`mount`](Opened::mount), [`pivot`](Opened::pivot), [`make_dir`](Opened::make_dir)
/// and [`console`](Opened::console) where needed, [`finalize`](Opened::finalize).
pub struct Opened {
    plan: Rootfs,
    /// The host's directory until [`Opened::mount`], the container's root from then on.
    root: Root,
    identity: (u64, u64),
    /// The detached overlay that becomes the root.
    overlay: Option<OwnedFd>,
    /// Trees opened on the host.
    mount_fds: MountFds,
    /// Device nodes taken on the host.
    nodes: Taken,
    /// What attaching a mount needs to know of the others.
    mounting: MountContext,
    /// The container's `/dev`.
    dev: Option<OwnedFd>,
    read_only_last: Vec<OwnedFd>,
    /// The mounts of `/proc` and `/sys`.
    anchors: Vec<(RootRelPath, Root)>,
    /// The namespace that must not be the one that was joined.
    host_namespace: Option<(u64, u64)>,
}

impl Opened {
    /// What `open` left to be taken: in the container process, in its user and new mount namespace, before it changes its
    /// ids. There it still reaches what its creator reaches by user and groups, and has power over the mounts. The id maps
    /// have to be there: an overlay's work directory can only be passed by power over its owner.
    pub fn open_in_child(&mut self) -> Result<()> {
        self.plan.refuse_mapped()?;
        self.take(None, OpenIn::Child)
    }

    fn take(&mut self, user_namespace: Option<BorrowedFd<'_>>, opens: OpenIn) -> Result<()> {
        if let RootSource::OverlayMount(mount) = &self.plan.source {
            self.overlay = Some(mount.open(&mut UserNamespaces::new(ContainerUserns::NotYet))?.0);
        }
        self.mount_fds = MountFds::open(&self.plan.mounts, user_namespace, &self.plan.container_maps)?;
        if let Some(devices) = &self.plan.devices {
            let maps = || user_namespace.map_or_else(|| Ok(self.plan.container_maps.clone()), idmap::maps_of);
            self.nodes = devices.open((opens == OpenIn::Host).then_some(maps))?;
        }
        Ok(())
    }

    /// On the host, right before the fork: makes the rootfs the working directory. A new mount namespace carries the
    /// working directory over to its own copy of the mount, so the child finds the rootfs as `.` with no lookup, also
    /// below directories that the container's root may not pass.
    pub fn chdir_to_rootfs(&self) -> Result<()> {
        match self.plan.isolation {
            Isolation::New => fchdir(self.root.fd()).context("enter the rootfs"),
            _ => Ok(()),
        }
    }

    /// On the host, once the maps of a new user namespace are written and before its first process goes on: maps the
    /// owners of mounts that are to have the container's own map.
    pub fn map_ids(&self, init: Pid) -> Result<()> {
        self.mount_fds.map_ids(&self.plan.mounts, init)
    }

    /// In a process that is outside of the container's pid namespace: that is the one which a procfs is to show.
    pub fn show_processes_of(&mut self, pid_namespace: Option<BorrowedFd<'_>>) -> Result<()> {
        self.mounting.shown = pid_namespace.map(Shown::new).transpose()?;
        Ok(())
    }

    /// First of all in the new mount namespace: from here on nothing that is mounted reaches the host.
    pub fn set_propagation(&self) -> Result<()> {
        let joined = self.host_namespace;
        ensure!(
            joined.is_none() || joined != mount_namespace(),
            "the mount namespace that was joined is the host's own"
        );
        match self.plan.isolation {
            Isolation::None => Ok(()),
            _ => match change_all(Change::propagation(self.plan.propagation_before))
                .context("set mount propagation of /")
            {
                Err(error) if error.errno() == Some(Errno::EINVAL) => {
                    Err(error.hint("the runtime's own root must be a mount, and in a plain chroot it is none"))
                }
                done => done,
            },
        }
    }

    /// The rootfs becomes a mount of its own, at its place on the host, where hooks look for it; then the mounts in
    /// order, then devices and links. `settle` is called when all that is left may depend on the cgroup of this process.
    pub fn mount(&mut self, mut settle: Option<impl FnOnce() -> Result<()>>) -> Result<()> {
        if self.plan.isolation != Isolation::None {
            self.root = self.own_mount().with_context(|| format!("mount the rootfs {}", self.plan.path.display()))?;
        }
        let mut mount_fds = std::mem::take(&mut self.mount_fds);
        for mount in &self.plan.mounts {
            let source = if mount.opened_in() == OpenIn::Host { Some(mount_fds.next()?) } else { None };
            if mount.is_cgroup() {
                settle.take().map_or(Ok(()), |settle| settle())?;
            }
            let tree = mount.attach(&self.root, source, &self.mounting)?;
            if let Some(tree) = &tree {
                mount.set_propagation_again(tree, &self.mounting)?;
            }
            if mount.is_read_only_last() {
                self.read_only_last.extend(tree);
            } else if mount.is_anchor() {
                self.anchors.extend(tree.map(|tree| (mount.target().clone(), Root::new(tree))));
            }
            self.mounting.shared |= mount.is_shared();
        }
        if let Some(devices) = &self.plan.devices {
            self.dev = Some(devices.make(
                &self.root,
                std::mem::take(&mut self.nodes),
                self.plan.isolation != Isolation::None,
            )?);
        }
        settle.map_or(Ok(()), |settle| settle())
    }

    fn own_mount(&mut self) -> Result<Root> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        // In a namespace that is joined the path is what counts, and may lead to a mount that only exists there.
        let joined = self.plan.isolation == Isolation::Joined;
        let here = if joined { open(&self.plan.path, flags, Mode::empty())? } else { open(".", flags, Mode::empty())? };
        let stat = fstat(&here)?;
        let same = joined || (stat.st_dev, stat.st_ino) == self.identity;
        ensure!(same, "the directory that the process stands in is not the one that was opened");
        let tree = match self.overlay.take() {
            Some(tree) => tree,
            // An overlay was left to us, who are root of a user namespace: its layers have to be mounts of our own.
            None => match self.plan.mount_image_overlay(here.as_fd(), None)? {
                Some(overlay) => overlay,
                None => clone_fd(&here, true)?,
            },
        };
        attach(&tree, &here)?;
        Ok(Root::new(tree))
    }

    /// The container's root: where hooks of `createContainer` are to stand.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.root.fd()
    }

    /// The container's root becomes `/`, and what was `/` is gone.
    pub fn pivot(&mut self) -> Result<()> {
        match self.plan.isolation {
            Isolation::None => pivot::change_root(&self.root)?,
            _ if self.plan.no_pivot => pivot::shift(&self.root, &self.plan.path)?,
            _ => pivot::pivot(&self.root)?,
        }
        Ok(())
    }

    /// After the pivot: makes a directory and those above it with mode 0755, unless it is there.
    pub fn make_dir(&self, path: &Path) -> Result<()> {
        let make = |path: &RootRelPath| self.root.directory(path).map(drop).map_err(Error::from);
        RootRelPath::new(path)
            .and_then(|path| make(&path))
            .with_context(|| format!("make the directory {}", path.display()))
    }

    /// After the pivot: puts a terminal of the container's own devpts on `/dev/console`.
    pub fn console(&self, terminal: BorrowedFd<'_>) -> Result<()> {
        // It would be the host's console.
        if self.plan.isolation == Isolation::None && self.plan.mounts.is_empty() {
            return Ok(());
        }
        devices::console(&self.root, self.dev.as_ref(), terminal).context("mount the terminal on /dev/console")
    }

    /// After the pivot: the container's `/dev/null`, verified to be it, open for reading and writing.
    pub fn null(&self) -> Result<OwnedFd> {
        devices::open_null(&self.root)
    }

    /// The propagation that was asked for, once nothing is left to be cloned and attached.
    fn set_root_propagation(&self) -> Result<()> {
        let Some(propagation) = self.plan.propagation_after else { return Ok(()) };
        let mounts = &self.plan.mounts;
        // One call for all would overrule the words of single mounts, and what they were cannot be brought back.
        let one_by_one = propagation.recursive && mounts.iter().any(Mount::has_propagation);
        if propagation.kind == Propagation::Shared {
            // Not the slave of the host's mount besides, whose group it was cloned from.
            change(self.root.fd(), false, Change::propagation(Propagation::Private))
                .context("set the propagation of the root")?;
        }
        change(self.root.fd(), propagation.recursive && !one_by_one, propagation.change())
            .context("set the propagation of the root")
            .field(|| "/linux/rootfsPropagation")?;
        for mount in mounts.iter().filter(|mount| one_by_one && !mount.has_propagation()) {
            let covers =
                |other: &Mount| other.target() != mount.target() && other.target().is_below(mount.target().bytes());
            let recursive = !mounts.iter().any(covers);
            mount.set_propagation_of_root(&self.root, SetPropagation { recursive, ..propagation })?;
        }
        Ok(())
    }

    /// Last: what is to be read-only becomes so, read-only and masked paths, the root. No descriptor remains.
    pub fn finalize(self) -> Result<()> {
        for mount in &self.read_only_last {
            change(mount.as_fd(), false, Change::set(Attr::RDONLY)).context("make a tmpfs read-only")?;
        }
        self.plan.masks.apply(&self.root, &self.anchors)?;
        self.set_root_propagation()?;
        if self.plan.read_only {
            change(self.root.fd(), false, Change::set(Attr::RDONLY))
                .context("make the root read-only")
                .field(|| "/root/readonly")?;
        }
        Ok(())
    }
}
