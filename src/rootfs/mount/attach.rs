//! From an entry that is compiled to its mount.
//!
//! First there is a detached tree: of a bind, a clone of the source with its attributes, its propagation and its mapped
//! owners. [`Mount::open`] makes it in the runtime, for those that only the host can make; [`Mount::attach`] makes the others,
//! in the container process, and puts each on its mount point, from descriptor to descriptor.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sys::stat::{SFlag, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use super::plan::{Mount, Source};
use crate::error::{Context, Error, Result, bail, ensure};
use crate::rootfs::copyup;
use crate::rootfs::filesystem::complain;
use crate::rootfs::idmap::{self, UserNamespaces};
use crate::rootfs::options::Attributes;
use crate::rootfs::path::{Kind, Place, Root, RootRelPath, format, is_directory};
use crate::rootfs::procfs::{Shown, is_proc_root};
use crate::rootfs::propagation::SetPropagation;
use crate::rootfs::request::CgroupPaths;
use crate::sys::Errno;
use crate::sys::mount::{Attr, Change, Filesystem, attach, change, clone_path, clone_unfollowed};
use crate::sys::path::read_link;

/// What attaching needs to know of the rest.
pub struct MountContext {
    pub cgroup: Option<CgroupPaths>,
    /// A shared mount has been attached before.
    pub shared: bool,
    /// The pid namespace that a procfs shows, if its maker is outside of that.
    pub shown: Option<Shown>,
}

/// The tree, on the host or in the container process.
impl Mount {
    /// On the host, before the fork: the tree to attach, for one that is opened there, and whether its owners are still to
    /// be mapped, by the container's user namespace.
    pub fn open(&self, namespaces: &mut UserNamespaces) -> Result<(OwnedFd, bool)> {
        self.open_showing(namespaces, None)
    }

    /// The same for a procfs that is to show another pid namespace than our own.
    pub fn open_showing(&self, namespaces: &mut UserNamespaces, shown: Option<&Shown>) -> Result<(OwnedFd, bool)> {
        let mut open = || {
            let tree = match &self.source {
                Source::Bind { path, recursive, .. } => self.clone_source(path, *recursive)?,
                Source::New { fstype, name, read_only_last, .. } => {
                    self.make(fstype, name.as_ref(), *read_only_last, None, shown)?
                }
                Source::Overlay(overlay) => self.make_overlay(overlay)?,
                Source::Cgroup { .. } | Source::Remount => bail!("id-mapped mounts are not supported for this type"),
            };
            let mapped = match &self.idmap {
                Some(map) => map.apply(&tree, namespaces, self.origin())?,
                None => true,
            };
            Ok((tree, !mapped))
        };
        self.describe(open())
    }

    /// On the host: maps the owners of a tree that waited for the container's user namespace.
    pub fn map_ids(&self, tree: &OwnedFd, namespace: BorrowedFd<'_>) -> Result<()> {
        match &self.idmap {
            Some(map) => self.describe(map.map(tree, namespace, self.origin())),
            None => Ok(()),
        }
    }

    fn origin(&self) -> idmap::Origin<'_> {
        match &self.source {
            Source::Bind { path, .. } => idmap::Origin::Path(path),
            Source::New { fstype, .. } => idmap::Origin::Type(fstype.to_str().unwrap_or_default()),
            Source::Overlay(_) => idmap::Origin::Type("overlay"),
            Source::Cgroup { .. } | Source::Remount => idmap::Origin::Type("cgroup2"),
        }
    }

    /// A detached copy of the source, with its attributes.
    fn clone_source(&self, path: &Path, recursive: bool) -> Result<OwnedFd> {
        let tree = if self.follows() { clone_path(path, recursive) } else { clone_unfollowed(path, recursive) };
        let tree = found(tree, path)?;
        self.check_source(&tree, path)?;
        self.check_read_only(&tree)?;
        self.apply_attributes(&tree, recursive)?;
        Ok(tree)
    }

    /// Whether a source that is a link is what that leads to.
    pub(super) fn follows(&self) -> bool {
        !self.links.copy && !self.links.mount_source
    }

    pub(super) fn check_source(&self, tree: &OwnedFd, path: &Path) -> Result<()> {
        if self.target.bytes() == b"proc" {
            ensure!(is_proc_root(tree)?, "{} is not a procfs, and nothing else may cover /proc", path.display());
        }
        self.check_locked(tree)
    }

    /// In a user namespace an attribute that the source has cannot be taken away, though host root could here.
    /// `rw` is left to [`Mount::check_read_only`].
    fn check_locked(&self, tree: &OwnedFd) -> Result<()> {
        let wanted = self.all.then(self.own);
        let clear = wanted.clear & !wanted.set & !Attr::RDONLY;
        if !self.locked || clear.is_empty() {
            return Ok(());
        }
        let flags = fstatvfs(tree)?.flags();
        let no_atime = clear.intersects(Attr::ATIME) && wanted.set & Attr::ATIME != Attr::NOATIME;
        let kept = [
            (clear.contains(Attr::NOSUID), FsFlags::ST_NOSUID, "nosuid"),
            (clear.contains(Attr::NODEV), FsFlags::ST_NODEV, "nodev"),
            (clear.contains(Attr::NOEXEC), FsFlags::ST_NOEXEC, "noexec"),
            (clear.contains(Attr::NODIRATIME), FsFlags::ST_NODIRATIME, "nodiratime"),
            (no_atime, FsFlags::ST_NOATIME, "noatime"),
        ];
        match kept.iter().find(|(cleared, flag, _)| *cleared && flags.contains(*flag)) {
            Some((_, _, name)) => Err(Errno::EPERM).context(format!("clear {name}, which the source has")),
            None => Ok(()),
        }
    }

    /// The same for `rw`. What statvfs(3) says of that is also said of a file system that is read-only by itself, so the
    /// detached `tree` is made writable, and looked at again.
    pub(super) fn check_read_only(&self, tree: &OwnedFd) -> Result<()> {
        let wanted = self.all.then(self.own);
        let is_read_only = || Ok::<_, Errno>(fstatvfs(tree)?.flags().contains(FsFlags::ST_RDONLY));
        if !self.locked || !(wanted.clear & !wanted.set).contains(Attr::RDONLY) || !is_read_only()? {
            return Ok(());
        }
        let what = "clear ro, which the source has";
        change(tree, false, Change { clear: Attr::RDONLY, ..Change::default() }).context(what)?;
        if is_read_only()? { Ok(()) } else { Err(Errno::EPERM).context(what) }
    }

    /// Attributes and propagation of a detached tree, in as few calls as they fit in.
    fn apply_attributes(&self, tree: &OwnedFd, recursive: bool) -> Result<()> {
        let mut steps: Vec<(bool, Change)> = Vec::with_capacity(2);
        let changes = |attributes: Attributes, replaced: Attr| {
            let clear = attributes.clear | replaced;
            Change { set: attributes.set, clear, propagation: None }
        };
        if recursive {
            steps.extend([(true, changes(self.all, Attr::empty())), (false, changes(self.own, self.replaced))]);
        } else {
            steps.push((false, changes(self.all.then(self.own), self.replaced)));
        }
        for propagation in &self.propagation {
            let deep = propagation.recursive && recursive;
            match steps.iter_mut().find(|(other, step)| *other == deep && step.propagation.is_none()) {
                Some((_, step)) => step.propagation = Some(propagation.kind),
                None => steps.push((deep, propagation.change())),
            }
        }
        for (deep, step) in steps {
            if !step.is_empty() {
                self.change(tree, deep, step).context("set its attributes")?;
            }
        }
        Ok(())
    }

    /// Flags that a more privileged mount namespace has locked stay, unless a word says to take them away.
    fn change(&self, tree: &OwnedFd, deep: bool, step: Change) -> crate::sys::Result<()> {
        match change(tree, deep, step) {
            Err(Errno::EPERM) if step.clear.intersects(self.replaced) => {
                change(tree, deep, Change { clear: step.clear & !self.replaced, ..step })
            }
            done => done,
        }
    }
}

/// The mount, in the container process.
impl Mount {
    /// Puts the tree in place, which is made first unless it was `opened` on the host. Gives back the mount, if it is a new
    /// one.
    pub fn attach(&self, root: &Root, opened: Option<OwnedFd>, context: &MountContext) -> Result<Option<OwnedFd>> {
        self.describe(self.attach_inner(root, opened, context))
    }

    fn attach_inner(&self, root: &Root, opened: Option<OwnedFd>, context: &MountContext) -> Result<Option<OwnedFd>> {
        let (place, tree) = match &self.source {
            Source::Bind { path, recursive, .. } => {
                let tree = match opened {
                    Some(tree) => tree,
                    None => self.clone_source(path, *recursive)?,
                };
                if self.links.copy && is_link(&tree)? {
                    root.link(&self.target, &read_link(&tree)?).context("copy the link")?;
                    return Ok(None);
                }
                let kind = || Ok(if is_directory(&tree)? { Kind::Directory } else { Kind::File });
                let place = self.place(root, kind)?;
                (place, tree)
            }
            Source::New { fstype, name, copy_up, read_only_last } => {
                let place = self.place(root, || Ok(Kind::Directory))?;
                let tree = match opened {
                    Some(tree) => tree,
                    None => self.make(fstype, name.as_ref(), *read_only_last, Some(&place), context.shown.as_ref())?,
                };
                if *copy_up && !place.made {
                    let given = |key: &str| self.has_parameter(key);
                    let explicit = copyup::Explicit { mode: given("mode"), user: given("uid"), group: given("gid") };
                    copyup::copy(&place.fd, &tree, explicit)?;
                }
                (place, tree)
            }
            Source::Overlay(overlay) => {
                let place = self.place(root, || Ok(Kind::Directory))?;
                (place, opened.map_or_else(|| self.make_overlay(overlay), Ok)?)
            }
            Source::Cgroup { private } => {
                let place = self.place(root, || Ok(Kind::Directory))?;
                (place, self.make_cgroup(*private, context.cgroup.as_ref())?)
            }
            Source::Remount => {
                self.remount(root)?;
                return Ok(None);
            }
        };
        attach(&tree, &place.fd).map_err(|errno| match (errno, is_directory(&tree), is_directory(&place.fd)) {
            // The kernel has one word for many reasons; this is the one people meet.
            (Errno::EINVAL, Ok(source), Ok(place)) if source != place => misfit(source),
            _ => errno.into(),
        })?;
        Ok(Some(tree))
    }

    /// Finds the destination or makes it, and checks that it may be covered.
    fn place(&self, root: &Root, kind: impl FnOnce() -> crate::sys::Result<Kind>) -> Result<Place> {
        let place = if self.no_symlinks {
            match root.find_no_symlinks(&self.target) {
                Ok(fd) => return Ok(Place { fd, linked: false, made: false }),
                Err(Errno::ENOENT) => root.make(&self.target, Kind::Directory).context("make the destination")?,
                Err(Errno::ELOOP) => return Err(self.is_symlink()),
                Err(error) => return Err(error).context("open the destination"),
            }
        } else if self.links.cover_destination {
            root.find_or_make_unfollowed(&self.target, kind).context("open the destination")?
        } else {
            root.find_or_make(&self.target, kind).context("open the destination")?
        };
        if place.linked && self.no_symlinks {
            return Err(self.is_symlink());
        }
        if place.linked {
            self.check_linked(root, &place)?;
        }
        Ok(place)
    }

    pub(super) fn is_symlink(&self) -> Error {
        Error::new(format!(
            "{} must be mounted on ordinary directory, and is or lies behind a symbolic link",
            self.target
        ))
    }

    /// Behind a link the text of the destination says nothing, so the rules are asked of the object.
    pub(super) fn check_linked(&self, root: &Root, place: &Place) -> Result<()> {
        let (here, top) = (fstat(&place.fd)?, fstat(root.fd())?);
        ensure!(
            (here.st_dev, here.st_ino) != (top.st_dev, top.st_ino),
            "the destination is a symbolic link to the container's root"
        );
        if fstatfs(&place.fd)?.filesystem_type() != PROC_SUPER_MAGIC {
            return Ok(());
        }
        let proc = RootRelPath::new(Path::new("proc"))?;
        let inside = root.find_no_symlinks(&proc).and_then(fstat).is_ok_and(|proc| proc.st_dev == here.st_dev);
        ensure!(!inside, "the destination is a symbolic link, and its target is inside /proc");
        Ok(())
    }

    /// Gives a mount that is in place its propagation: on a shared one it has become shared by being attached there.
    pub fn set_propagation_again(&self, tree: &OwnedFd, context: &MountContext) -> Result<()> {
        let set = || self.propagation.iter().try_for_each(|one| change(tree, one.recursive, one.change()));
        let done = if context.shared { set() } else { Ok(()) };
        self.describe(done.context("set its propagation"))
    }

    /// Gives it the propagation of the root, once all are in place.
    pub fn set_propagation_of_root(&self, root: &Root, propagation: SetPropagation) -> Result<()> {
        let set = || {
            let place = self.place(root, || Err(Errno::ENOENT))?;
            change(&place.fd, propagation.recursive, propagation.change()).context("set its propagation")
        };
        match self.describe(set()) {
            // A later mount hides it from everybody, or a link was copied and there is no mount.
            Err(error) if matches!(error.errno(), Some(Errno::ENOENT | Errno::ENOTDIR | Errno::EINVAL)) => Ok(()),
            done => done,
        }
    }

    fn remount(&self, root: &Root) -> Result<()> {
        let place = root.find(&self.target).context("open the destination")?;
        if place.linked {
            self.check_linked(root, &place)?;
        }
        if !self.parameters.is_empty() {
            let filesystem = Filesystem::pick(&place.fd).context("it is not a mount")?;
            self.parametrize(&filesystem, None)?;
            filesystem.reconfigure().map_err(|errno| complain(&filesystem, errno, "change the file system"))?;
        }
        self.apply_attributes(&place.fd, true)
    }
}

/// The source of a bind, which may not be there.
pub(super) fn found(tree: crate::sys::Result<OwnedFd>, path: &Path) -> Result<OwnedFd> {
    let tree = tree.map_err(|errno| match errno {
        Errno::ENOENT => Error::from(errno).hint("a bind shows what is on the host already: make it first"),
        _ => errno.into(),
    });
    tree.with_context(|| format!("open {}", path.display()))
}

/// That of source and destination one alone is a directory. dockerd takes that last phrase for a program that cannot be
/// executed, so no text of ours has it.
pub(super) fn misfit(source: bool) -> Error {
    Error::from(Errno::ENOTDIR).hint(match source {
        true => "a directory cannot cover a file: the destination must be a directory, too, or not be there yet",
        false => "a file cannot cover a directory: the destination must be a file, too, or not be there yet",
    })
}

pub(super) fn is_link(tree: &OwnedFd) -> Result<bool> {
    Ok(format(&fstat(tree)?) == SFlag::S_IFLNK)
}
