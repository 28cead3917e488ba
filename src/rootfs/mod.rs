//! The container's file system: propagation, mounts, devices, pivot, masks, read-only root.
//!
//! An image is hostile: whatever it names may be a link to anywhere, and what it shares with others may be renamed
//! between two calls. So the rootfs is opened once, everything below it is reached from that descriptor by
//! `path::Root`, and mounts go from descriptor to descriptor. No path below the rootfs reaches mount(2), mkdir(2),
//! mknod(2), chown(2), symlink(2) or unlink(2) as text.
//!
//! Three steps: [`Rootfs::plan`] is pure, [`Rootfs::open`] takes what only the host can reach, and [`Opened`] is
//! carried into the container's process, where its verbs are called in the order in which they stand.

mod copyup;
mod devices;
mod filesystem;
mod guest;
mod idmap;
mod image;
mod kept;
mod live;
mod masks;
mod mountinfo;
mod mounts;
#[cfg(test)]
mod native_tests;
mod nodes;
mod options;
mod overlay;
mod path;
mod pivot;
mod procfs;
mod restore;
mod sources;
mod spreading;
mod view;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{Pid, fchdir};
use oci_spec::runtime::{LinuxDevice, Spec};

use crate::error::{Context, Error, Result, ensure};
use crate::sys::Errno;
use crate::sys::mount::{Change, Propagation, attach, attr, change, change_all, clone_fd, spread};
use devices::{Devices, Taken};
use idmap::{Container, Namespaces};
use image::Cover;
use masks::Masks;
use mounts::{Mount, World};
use path::{Inside, Root};
use sources::Sources;
use view::{Tree, What};

pub(crate) use guest::Guest;
pub(crate) use image::{ANNOTATION as OVERLAY, FORMS as OVERLAY_FORMS, outside as overlay_outside, sweep};
pub(crate) use live::{Additions, Outside, Removals};
#[allow(unused_imports, reason = "for the command features")]
pub(crate) use options::words as mount_options;
pub(crate) use procfs::Shown;
pub(crate) use restore::Restored;
pub(crate) use view::{Sight, View};

/// How the container's process comes to its mount namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// It stays in the caller's. What is mounted then lies below a mount of its own ([`Guest`]).
    None,
    /// A new one is made.
    New,
    /// It joins one by its path.
    Joined,
}

/// What the plan is made from.
pub(crate) struct Request<'a> {
    /// The configuration; `root`, `mounts` and parts of `linux` are read.
    pub(crate) spec: &'a Spec,
    /// The bundle, absolute: relative paths of the configuration start there.
    pub(crate) bundle: &'a Path,
    /// The container's id.
    pub(crate) id: &'a str,
    /// How the mount namespace is entered.
    pub(crate) mount_namespace: Isolation,
    /// The container runs in a user namespace, a new one or one that is joined.
    pub(crate) user_namespace: bool,
    /// The user namespace is one that is joined.
    pub(crate) user_namespace_joined: bool,
    /// The container has a cgroup namespace that is not the host's.
    pub(crate) cgroup_namespace: bool,
    /// The network namespace is a new one, made together with the user namespace or owned by it.
    pub(crate) network_namespace_owned: bool,
    /// `--no-pivot`.
    pub(crate) no_pivot: bool,
    /// The kernel has SELinux enabled.
    pub(crate) selinux: bool,
}

/// Where the host has its cgroup2.
#[derive(Debug, Clone)]
pub(crate) struct CgroupPaths {
    /// Where it is mounted, `/sys/fs/cgroup` or on a hybrid host `/sys/fs/cgroup/unified`.
    pub(crate) mount: PathBuf,
    /// The container's own directory below it.
    pub(crate) cgroup: PathBuf,
}

/// Everything about the file system, compiled.
#[derive(Debug)]
pub(crate) struct Rootfs {
    path: PathBuf,
    read_only: bool,
    /// What stands above the directory as the container's root.
    above: Above,
    isolation: Isolation,
    no_pivot: bool,
    /// What `/` of the new namespace gets before the first mount: it receives from the host, or not, and never sends.
    before: Propagation,
    /// What the container's root gets in the end, where that is more.
    after: Option<(Propagation, bool)>,
    mounts: Vec<Mount>,
    /// The maps of a user namespace that is to be made.
    container_maps: idmap::Maps,
    /// None when the host's `/dev` is bound: it is left as it is.
    devices: Option<Devices>,
    masks: Masks,
}

/// What the container's root is made from, beside the directory.
#[derive(Debug)]
enum Above {
    /// It is the directory itself.
    Nothing,
    /// The first mount, an overlay.
    Mount(Box<Mount>),
    /// An overlay by annotation, with the directory as its lowest layer.
    Image(Cover),
}

/// Words of `linux.rootfsPropagation`: the propagation, whether it goes for all mounts.
const PROPAGATION: &[(&str, Propagation, bool)] = &[
    ("shared", spread::SHARED, false),
    ("rshared", spread::SHARED, true),
    ("slave", spread::SLAVE, false),
    ("rslave", spread::SLAVE, true),
    ("private", spread::PRIVATE, false),
    ("rprivate", spread::PRIVATE, true),
    ("unbindable", spread::UNBINDABLE, false),
    ("runbindable", spread::UNBINDABLE, true),
];

impl Rootfs {
    /// Compiles the configuration. Touches nothing.
    ///
    /// # Errors
    /// Each names the field that is at fault.
    pub(crate) fn plan(request: &Request) -> Result<Rootfs> {
        let spec = request.spec;
        let Some(root) = spec.root().as_ref().filter(|root| !root.path().as_os_str().is_empty()) else {
            return Err(Error::new("must be set").field("/root/path"));
        };
        let linux = spec.linux().as_ref();
        let word = linux.and_then(|linux| linux.rootfs_propagation().as_deref()).unwrap_or("");
        let (before, after) = propagation(word).field(|| "/linux/rootfsPropagation")?;
        let label = linux.and_then(|linux| linux.mount_label().as_deref()).filter(|label| !label.is_empty());
        if label.is_some() && !request.selinux {
            return Err(
                Error::new("a label needs SELinux, which this kernel does not have on").field("/linux/mountLabel")
            );
        }

        let entries = spec.mounts().as_deref().unwrap_or(&[]);
        let mut mounts = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            mounts.push(Mount::plan(index, entry, request, before, label)?);
        }
        let above = above(&mut mounts, request, label)?;
        let covers = |path: &[u8]| mounts.iter().rfind(|mount| mount.target().bytes() == path);
        let devices = match covers(b"dev") {
            Some(mount) if mount.is_bind() => None,
            _ => {
                let list: &[LinuxDevice] = linux.and_then(|linux| linux.devices().as_deref()).unwrap_or(&[]);
                Some(Devices::plan(list, request.user_namespace, covers(b"proc").is_some(), label)?)
            }
        };
        let list = |paths: Option<&Vec<String>>| paths.cloned().unwrap_or_default();
        let masks = Masks::plan(
            &list(linux.and_then(|linux| linux.masked_paths().as_ref())),
            &list(linux.and_then(|linux| linux.readonly_paths().as_ref())),
        )?;
        let plan = Rootfs {
            path: request.bundle.join(root.path()),
            read_only: root.readonly().unwrap_or(false) || above.is_read_only(),
            above,
            isolation: request.mount_namespace,
            no_pivot: request.no_pivot,
            before,
            after,
            mounts,
            container_maps: idmap::container_maps(request),
            devices,
            masks,
        };
        plan.check_isolation(word, request.user_namespace)?;
        Ok(plan)
    }

    /// The rootfs as it was named, absolute.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is something to mount, and no mount namespace to do it in: what is known before that is done.
    pub(crate) fn guest(&self) -> Result<Option<Guest>> {
        let needed = self.isolation == Isolation::None && (self.read_only || !self.mounts.is_empty());
        if needed { Guest::plan(&self.path).map(Some) } else { Ok(None) }
    }

    /// Without a mount namespace every mount is the host's as well, so what cannot be kept to the root is refused and not
    /// left out. In a user namespace that is all: the host's mounts are beyond its power.
    fn check_isolation(&self, propagation: &str, user_namespace: bool) -> Result<()> {
        if self.isolation != Isolation::None {
            return Ok(());
        }
        let bound = self.devices.as_ref().is_some_and(Devices::binds);
        let needs = [
            (matches!(self.above, Above::Image(_)), image::FIELD, "an overlay"),
            (matches!(self.above, Above::Mount(_)), "/mounts", "an overlay"),
            (self.read_only && user_namespace, "/root/readonly", "a read-only root in a user namespace"),
            (!self.mounts.is_empty() && user_namespace, "/mounts", "a mount in a user namespace"),
            (self.masks.masks_something(), "/linux/maskedPaths", "a masked path"),
            (self.masks.makes_something_read_only(), "/linux/readonlyPaths", "a read-only path"),
            (!propagation.is_empty(), "/linux/rootfsPropagation", "propagation"),
            (bound, "/linux/devices", "a device in a user namespace"),
        ];
        match needs.iter().find(|(asked, ..)| *asked) {
            None => Ok(()),
            Some((_, field, what)) => Err(Error::new(format!("{what} needs a mount namespace of the container's own"))
                .field(*field)
                .hint("add {\"type\": \"mount\"} to /linux/namespaces")),
        }
    }

    /// Takes what only the host can reach: the rootfs, sources of binds, device nodes. Call it in the host's mount
    /// namespace, before the fork. `cgroup` is where the host has its cgroup2, if it has one; `user_namespace` the one
    /// that the container joins, if it does. With `later`, for a runtime that has no power over the host's mounts, nothing
    /// but the rootfs is taken: [`Opened::gather`] takes the rest.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR` and the like for the rootfs and for sources.
    pub(crate) fn open(
        self,
        cgroup: Option<CgroupPaths>,
        user_namespace: Option<BorrowedFd<'_>>,
        later: bool,
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
            above: None,
            plan: self,
            sources: Sources::default(),
            nodes: Taken::default(),
            world: World { cgroup, shared: false, shown: None },
            dev: None,
            read_only_last: Vec::new(),
            anchors: Vec::new(),
            host_namespace,
        };
        if !later {
            opened.above = opened.plan.cover(opened.root.fd(), user_namespace)?;
            opened.take(user_namespace, true)?;
        }
        Ok(opened)
    }

    /// The kernel wants power over the file system, and the ids of a map are those of the host, which mean others here.
    fn refuse_mapped(&self) -> Result<()> {
        let above = if let Above::Mount(mount) = &self.above { Some(&**mount) } else { None };
        let Some(mount) = above.into_iter().chain(&self.mounts).find(|mount| mount.is_mapped()) else { return Ok(()) };
        Err(Error::new("owners can only be mapped with power over the file system").field(mount.pointer()).hint(
            "leave the mapping out, or run as root, or as root of a user and mount namespace that has the file \
               system mounted",
        ))
    }

    fn opening(&self) -> String {
        format!("open the rootfs {}", self.path.display())
    }

    fn open_root(&self) -> Result<OwnedFd> {
        // A link is followed here, once. From now on the rootfs is this directory, whatever its name leads to.
        open(&self.path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .with_context(|| self.opening())
            .field(|| "/root/path")
    }

    /// Looks at all that can be seen of the root and the mounts without making anything; every fault is told. `None` where
    /// there is no root. `later` is that of [`Rootfs::open`].
    pub(crate) fn look(&self, later: bool, tell: &mut dyn FnMut(Error)) -> Option<View> {
        let root = self.open_root().map_err(&mut *tell).ok()?;
        if later {
            self.refuse_mapped().unwrap_or_else(&mut *tell);
        }
        if let Above::Image(cover) = &self.above {
            cover.look(root.as_fd()).unwrap_or_else(&mut *tell);
        }
        let base = match &self.above {
            // There its path may lead elsewhere.
            _ if self.isolation == Isolation::Joined => What::Unknown,
            Above::Mount(mount) => {
                mount.describe(mount.look_at_layers()).unwrap_or_else(&mut *tell);
                What::Unknown
            }
            above => match root.try_clone() {
                Ok(fd) => What::Tree(match above {
                    Above::Nothing => Tree::new(fd),
                    // What is to be made goes into the upper layer.
                    _ => Tree { read_only: false, ..Tree::new(fd) },
                }),
                Err(_) => What::Unknown,
            },
        };
        let mut view = View::new(Root::new(root), base);
        for mount in &self.mounts {
            let (outcome, what) = mount.look(&view);
            outcome.unwrap_or_else(&mut *tell);
            view.add(mount.target().clone(), what);
        }
        for outcome in self.devices.iter().flat_map(|devices| devices.look(!later)) {
            outcome.unwrap_or_else(&mut *tell);
        }
        Some(view)
    }

    /// The overlay above the image, when there is to be one.
    fn cover(&self, image: BorrowedFd<'_>, user_namespace: Option<BorrowedFd<'_>>) -> Result<Option<OwnedFd>> {
        let Above::Image(cover) = &self.above else { return Ok(None) };
        // Its own is made later, from below the overlay.
        let container = user_namespace.map_or_else(|| Container::Like(self.container_maps.clone()), Container::Joined);
        cover.mount(image, &self.path, &mut Namespaces::new(container)).map(Some)
    }
}

impl Above {
    fn is_read_only(&self) -> bool {
        match self {
            Above::Nothing => false,
            Above::Mount(mount) => mount.is_read_only(),
            Above::Image(cover) => cover.read_only,
        }
    }
}

/// Finds out what stands above the directory; a mount for it is taken from the list.
fn above(mounts: &mut Vec<Mount>, request: &Request, label: Option<&str>) -> Result<Above> {
    let annotation = request.spec.annotations().as_ref().and_then(|list| list.get(OVERLAY));
    let first = mounts.first().is_some_and(|mount| mount.target().is_root());
    match annotation {
        Some(_) if first => Err(Error::new("the first mount is the container's root already").field(image::FIELD)),
        Some(value) => Cover::plan(value, request.bundle, request.id, label, request.user_namespace)
            .field(|| image::FIELD)
            .map(Above::Image),
        None if first => Ok(Above::Mount(Box::new(mounts.remove(0)))),
        None => Ok(Above::Nothing),
    }
}

/// What `/` gets before the mounts, and what the container's root gets after the pivot. Shared and unbindable roots
/// cannot be pivoted to, so they come last; and `/` itself never sends to the host.
fn propagation(word: &str) -> Result<(Propagation, Option<(Propagation, bool)>)> {
    if word.is_empty() {
        return Ok((spread::SLAVE, None));
    }
    let Some(&(_, kind, all)) = PROPAGATION.iter().find(|(known, ..)| *known == word) else {
        return Err(Error::new(format!("{word} is no propagation")));
    };
    Ok(match kind {
        spread::SLAVE => (spread::SLAVE, None),
        spread::PRIVATE => (spread::PRIVATE, None),
        spread::SHARED => (spread::SLAVE, Some((kind, all))),
        _ => (spread::PRIVATE, Some((kind, all))),
    })
}

/// Which mount namespace this process is in; none where no procfs tells.
fn mount_namespace() -> Option<(u64, u64)> {
    let stat = nix::sys::stat::stat("/proc/self/ns/mnt").ok()?;
    Some((stat.st_dev, stat.st_ino))
}

/// The plan with its descriptors. The verbs are called in the container's process, with umask 0, in this order:
/// [`isolate`](Opened::isolate), [`mount`](Opened::mount), [`pivot`](Opened::pivot), [`make_dir`](Opened::make_dir)
/// and [`console`](Opened::console) where needed, [`seal`](Opened::seal).
pub(crate) struct Opened {
    plan: Rootfs,
    /// The host's directory until [`Opened::mount`], the container's root from then on.
    root: Root,
    identity: (u64, u64),
    /// The detached overlay that becomes the root.
    above: Option<OwnedFd>,
    /// Trees taken on the host.
    sources: Sources,
    /// Device nodes taken on the host.
    nodes: Taken,
    world: World,
    /// The container's `/dev`.
    dev: Option<OwnedFd>,
    read_only_last: Vec<OwnedFd>,
    /// The mounts of `/proc` and `/sys`.
    anchors: Vec<(Inside, Root)>,
    /// The namespace that must not be the one that was joined.
    host_namespace: Option<(u64, u64)>,
}

impl Opened {
    /// What `open` left to be taken: in the container's process, in its user and new mount namespace, before it changes its
    /// ids. There it still reaches what its creator reaches by user and groups, and has power over the mounts. The id maps
    /// have to be there: an overlay's work directory can only be passed by power over its owner.
    pub(crate) fn gather(&mut self) -> Result<()> {
        self.plan.refuse_mapped()?;
        self.take(None, false)
    }

    fn take(&mut self, user_namespace: Option<BorrowedFd<'_>>, makes_devices: bool) -> Result<()> {
        if let Above::Mount(mount) = &self.plan.above {
            self.above = Some(mount.open(&mut Namespaces::new(Container::Later))?.0);
        }
        self.sources = Sources::open(&self.plan.mounts, user_namespace, &self.plan.container_maps)?;
        if let Some(devices) = &self.plan.devices {
            let maps = || user_namespace.map_or_else(|| Ok(self.plan.container_maps.clone()), idmap::maps_of);
            self.nodes = devices.open(makes_devices.then_some(maps))?;
        }
        Ok(())
    }

    /// On the host, right before the fork: makes the rootfs the working directory. A new mount namespace carries the
    /// working directory over to its own copy of the mount, so the child finds the rootfs as `.` with no lookup, also
    /// below directories that the container's root may not pass.
    pub(crate) fn stand(&self) -> Result<()> {
        match self.plan.isolation {
            Isolation::New => fchdir(self.root.fd()).context("enter the rootfs"),
            _ => Ok(()),
        }
    }

    /// On the host, once the maps of a new user namespace are written and before its first process goes on: maps the
    /// owners of mounts that are to have the container's own map.
    pub(crate) fn map_ids(&self, init: Pid) -> Result<()> {
        self.sources.map_ids(&self.plan.mounts, init)
    }

    /// In a process that is outside of the container's pid namespace: that is the one which a procfs is to show.
    pub(crate) fn show_processes_of(&mut self, pid_namespace: Option<BorrowedFd<'_>>) -> Result<()> {
        self.world.shown = pid_namespace.map(Shown::new).transpose()?;
        Ok(())
    }

    /// First of all in the new mount namespace: from here on nothing that is mounted reaches the host.
    pub(crate) fn isolate(&self) -> Result<()> {
        let joined = self.host_namespace;
        ensure!(
            joined.is_none() || joined != mount_namespace(),
            "the mount namespace that was joined is the host's own"
        );
        match self.plan.isolation {
            Isolation::None => Ok(()),
            _ => match change_all(Change::spread(self.plan.before)).context("cut the mounts off from the host") {
                Err(error) if error.errno() == Some(Errno::EINVAL) => {
                    Err(error.hint("the runtime's own root must be a mount, and in a plain chroot it is none"))
                }
                done => done,
            },
        }
    }

    /// The rootfs becomes a mount of its own, at its place on the host, where hooks look for it; then the mounts in
    /// order, then devices and links. `settle` is called when all that is left may depend on the cgroup of this process.
    pub(crate) fn mount(&mut self, mut settle: Option<impl FnOnce() -> Result<()>>) -> Result<()> {
        if self.plan.isolation != Isolation::None {
            self.root = self.own_mount().with_context(|| format!("mount the rootfs {}", self.plan.path.display()))?;
        }
        let mut sources = std::mem::take(&mut self.sources);
        for mount in &self.plan.mounts {
            let source = if mount.is_early() { Some(sources.next()?) } else { None };
            if mount.is_cgroup() {
                settle.take().map_or(Ok(()), |settle| settle())?;
            }
            let tree = mount.attach(&self.root, source, &self.world)?;
            if let Some(tree) = &tree {
                mount.spread_again(tree, &self.world)?;
            }
            if mount.is_read_only_last() {
                self.read_only_last.extend(tree);
            } else if mount.is_anchor() {
                self.anchors.extend(tree.map(|tree| (mount.target().clone(), Root::new(tree))));
            }
            self.world.shared |= mount.shares();
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
        let tree = match self.above.take() {
            Some(tree) => tree,
            // An overlay was left to us, who are root of a user namespace: its layers have to be mounts of our own.
            None => match self.plan.cover(here.as_fd(), None)? {
                Some(overlay) => overlay,
                None => clone_fd(&here, true)?,
            },
        };
        attach(&tree, &here)?;
        Ok(Root::new(tree))
    }

    /// The container's root: where hooks of `createContainer` are to stand.
    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.root.fd()
    }

    /// The container's root becomes `/`, and what was `/` is gone.
    pub(crate) fn pivot(&mut self) -> Result<()> {
        match self.plan.isolation {
            Isolation::None => pivot::change_root(&self.root)?,
            _ if self.plan.no_pivot => pivot::shift(&self.root, &self.plan.path)?,
            _ => pivot::pivot(&self.root)?,
        }
        Ok(())
    }

    /// After the pivot: makes a directory and those above it with mode 0755, unless it is there.
    pub(crate) fn make_dir(&self, path: &Path) -> Result<()> {
        let make = |path: &Inside| self.root.directory(path).map(drop).map_err(Error::from);
        Inside::new(path).and_then(|path| make(&path)).with_context(|| format!("make the directory {}", path.display()))
    }

    /// After the pivot: puts a terminal of the container's own devpts on `/dev/console`.
    pub(crate) fn console(&self, terminal: BorrowedFd<'_>) -> Result<()> {
        // It would be the host's console.
        if self.plan.isolation == Isolation::None && self.plan.mounts.is_empty() {
            return Ok(());
        }
        devices::console(&self.root, self.dev.as_ref(), terminal).context("mount the terminal on /dev/console")
    }

    /// After the pivot: the container's `/dev/null`, verified to be it, open for reading and writing.
    pub(crate) fn null(&self) -> Result<OwnedFd> {
        devices::open_null(&self.root)
    }

    /// The propagation that was asked for, once nothing is left to be cloned and attached.
    fn spread(&self) -> Result<()> {
        let Some((kind, all)) = self.plan.after else { return Ok(()) };
        let mounts = &self.plan.mounts;
        // One call for all would overrule the words of single mounts, and what they were cannot be brought back.
        let one_by_one = all && mounts.iter().any(Mount::has_spread);
        if kind == spread::SHARED {
            // Not the slave of the host's mount besides, whose group it was cloned from.
            change(self.root.fd(), false, Change::spread(spread::PRIVATE)).context("cut the root off from the host")?;
        }
        change(self.root.fd(), all && !one_by_one, Change::spread(kind))
            .context("set the propagation of the root")
            .field(|| "/linux/rootfsPropagation")?;
        for mount in mounts.iter().filter(|mount| one_by_one && !mount.has_spread()) {
            let covers =
                |other: &Mount| other.target() != mount.target() && other.target().is_below(mount.target().bytes());
            mount.spread_as(&self.root, kind, !mounts.iter().any(covers))?;
        }
        Ok(())
    }

    /// Last: what is to be read-only becomes so, read-only and masked paths, the root. No descriptor remains.
    pub(crate) fn seal(self) -> Result<()> {
        for mount in &self.read_only_last {
            change(mount.as_fd(), false, Change::set(attr::RDONLY)).context("make a tmpfs read-only")?;
        }
        self.plan.masks.apply(&self.root, &self.anchors)?;
        self.spread()?;
        if self.plan.read_only {
            change(self.root.fd(), false, Change::set(attr::RDONLY))
                .context("make the root read-only")
                .field(|| "/root/readonly")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str, isolation: Isolation) -> Result<Rootfs> {
        let spec: Spec = serde_json::from_str(json).unwrap();
        Rootfs::plan(&Request {
            spec: &spec,
            bundle: Path::new("/b"),
            id: "c",
            mount_namespace: isolation,
            user_namespace: false,
            user_namespace_joined: false,
            cgroup_namespace: true,
            network_namespace_owned: true,
            no_pivot: false,
            selinux: false,
        })
    }

    fn fault(rest: &str, isolation: Isolation) -> (String, String) {
        let json = format!(r#"{{"ociVersion":"1.0.2","root":{{"path":"r"}},{rest}}}"#);
        let error = plan(&json, isolation).unwrap_err();
        (error.field_name().unwrap_or("").to_owned(), error.to_string())
    }

    #[test]
    fn b31_the_rootfs_may_be_spelled_in_every_way() {
        for (path, right) in [("r/", "/b/r"), (".", "/b/."), ("/abs", "/abs")] {
            let json = format!(r#"{{"ociVersion":"1.0.2","root":{{"path":"{path}"}}}}"#);
            assert_eq!(plan(&json, Isolation::New).unwrap().path, Path::new(right), "{path}");
        }
        assert_eq!(plan(r#"{"ociVersion":"1.0.2"}"#, Isolation::New).unwrap_err().field_name(), Some("/root/path"));
    }

    #[test]
    fn b16_read_only_promises_need_a_mount_namespace() {
        for (json, field) in [
            (r#""linux":{"maskedPaths":["/x"]}"#, "/linux/maskedPaths"),
            (r#""linux":{"readonlyPaths":["/x"]}"#, "/linux/readonlyPaths"),
            (r#""linux":{"rootfsPropagation":"private"}"#, "/linux/rootfsPropagation"),
            (r#""mounts":[{"destination":"/","type":"overlay","options":["lowerdir=/l:/m"]}]"#, "/mounts"),
        ] {
            assert_eq!(fault(json, Isolation::None).0, field, "{json}");
        }
        assert!(plan(r#"{"ociVersion":"1.0.2","root":{"path":"r"},"mounts":[],"linux":{"maskedPaths":[],"readonlyPaths":[]}}"#, Isolation::None).is_ok());
    }

    #[test]
    fn b23_only_a_procfs_may_cover_proc_and_only_some_files_below_it() {
        let mount =
            |target: &str, rest: &str| format!(r#""mounts":[{{"destination":"{target}","source":"/s",{rest}}}]"#);
        for target in ["/proc/net/dev", "/proc/sys/kernel/core_pattern", "//proc/../proc/self"] {
            let (field, error) = fault(&mount(target, r#""type":"bind""#), Isolation::New);
            assert_eq!(field, "/mounts/0/destination");
            assert!(error.contains("inside /proc"), "{error}");
        }
        assert!(fault(&mount("/proc", r#""type":"tmpfs""#), Isolation::New).1.contains("inside /proc"));
        for (target, rest) in
            [("/proc/uptime", r#""type":"bind""#), ("/host/proc", r#""type":"proc""#), ("/proc", r#""type":"proc""#)]
        {
            let json = format!(r#"{{"ociVersion":"1.0.2","root":{{"path":"r"}},{}}}"#, mount(target, rest));
            assert!(plan(&json, Isolation::New).is_ok(), "{target}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_mount_is_told_with_its_field() {
        for (entry, field) in [
            (r#"{"destination":"/","type":"tmpfs"}"#, "/mounts/0/destination"),
            (r#"{"destination":"/x/..","type":"tmpfs"}"#, "/mounts/0/destination"),
            (r#"{"destination":"/x"}"#, "/mounts/0/type"),
            (r#"{"destination":"/x","type":"none"}"#, "/mounts/0/type"),
            (r#"{"destination":"/x","type":"bind"}"#, "/mounts/0/source"),
            (r#"{"destination":"/x","type":"bind","source":"/s","options":["readonly"]}"#, "/mounts/0/options"),
            (r#"{"destination":"/x","type":"tmpfs","options":["ro","idmap"]}"#, "/mounts/0/options"),
            (r#"{"destination":"/x","type":"proc","options":["tmpcopyup"]}"#, "/mounts/0/options"),
            (
                r#"{"destination":"/x","source":"/s","options":["bind"],"uidMappings":[{"containerID":0,"hostID":1,"size":1}]}"#,
                "/mounts/0/gidMappings",
            ),
        ] {
            assert_eq!(fault(&format!(r#""mounts":[{entry}]"#), Isolation::New).0, field, "{entry}");
        }
        assert_eq!(fault(r#""linux":{"rootfsPropagation":"wide"}"#, Isolation::New).0, "/linux/rootfsPropagation");
        assert_eq!(fault(r#""linux":{"mountLabel":"a:b:c"}"#, Isolation::New).0, "/linux/mountLabel");
    }

    #[test]
    fn devices_are_left_alone_where_the_host_s_dev_is_bound() {
        let json = r#"{"ociVersion":"1.0.2","root":{"path":"r"},"mounts":[{"destination":"/dev","source":"/dev","options":["rbind"]}]}"#;
        assert!(plan(json, Isolation::New).unwrap().devices.is_none());
    }
}
