//! What a source forbids, and a mount that is looked at and not made.

use nix::sys::statvfs::{FsFlags, fstatvfs};

use super::super::overlay::Overlay;
use super::super::view::{Sight, Tree, View, What};
use super::*;
use crate::sys::mount::clone_fd;

impl Mount {
    /// In a user namespace an attribute that the source has cannot be taken away, though host root could here.
    /// `rw` is left to [`Mount::check_read_only`].
    pub(super) fn check_locked(&self, tree: &OwnedFd) -> Result<()> {
        let wanted = self.all.then(self.own);
        let clear = wanted.clear & !wanted.set & !attr::RDONLY;
        if !self.locked || clear.is_empty() {
            return Ok(());
        }
        let flags = fstatvfs(tree)?.flags();
        let no_atime = clear.intersects(attr::ATIME) && wanted.set & attr::ATIME != attr::NOATIME;
        let kept = [
            (clear.contains(attr::NOSUID), FsFlags::ST_NOSUID, "nosuid"),
            (clear.contains(attr::NODEV), FsFlags::ST_NODEV, "nodev"),
            (clear.contains(attr::NOEXEC), FsFlags::ST_NOEXEC, "noexec"),
            (clear.contains(attr::NODIRATIME), FsFlags::ST_NODIRATIME, "nodiratime"),
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
        if !self.locked || !(wanted.clear & !wanted.set).contains(attr::RDONLY) || !is_read_only()? {
            return Ok(());
        }
        let what = "clear ro, which the source has";
        change(tree, false, Change { clear: attr::RDONLY, ..Change::default() }).context(what)?;
        if is_read_only()? { Ok(()) } else { Err(Errno::EPERM).context(what) }
    }

    /// What would be wrong with making it where a view ends, and what it adds to the view.
    pub(in super::super) fn look(&self, view: &View) -> (Result<()>, What) {
        let (outcome, what) = match self.look_inner(view) {
            Ok(what) => (Ok(()), what),
            Err(error) => (Err(error), What::Unknown),
        };
        (self.describe(outcome), what)
    }

    fn look_inner(&self, view: &View) -> Result<What> {
        let (directory, what) = match &self.source {
            Source::Bind { path, .. } => {
                let tree = self.look_at_source(path)?;
                if self.links.copy && is_link(&tree)? {
                    return Ok(What::Unknown);
                }
                (is_directory(&tree)?, What::Tree(self.tree(tree)))
            }
            Source::New { fstype, name, copy_up, .. } => {
                self.look_at_parameters(fstype, name.as_deref())?;
                (true, if fstype.as_bytes() == b"tmpfs" && !copy_up { What::Empty } else { What::Unknown })
            }
            Source::Overlay(_) => {
                self.look_at_layers()?;
                (true, What::Unknown)
            }
            Source::Cgroup { private } => {
                if *private {
                    self.look_at_parameters(CGROUP, Some(CGROUP_NAME))?;
                }
                (true, What::Unknown)
            }
            Source::Remount => return Ok(What::Unknown),
        };
        self.look_at_place(view, directory)?;
        Ok(if view.is_full() { What::Unknown } else { what })
    }

    /// Whether the kernel has the file system and takes what the entry says of it, in this user namespace. Most types
    /// judge each parameter as it comes; some, only all of them when the file system is made, which it is not here.
    fn look_at_parameters(&self, fstype: &CStr, name: Option<&CStr>) -> Result<()> {
        match start(fstype) {
            Ok(filesystem) => self.parametrize(&filesystem, name),
            // Who may not mount here is told nothing.
            Err(error) if error.errno() == Some(Errno::EPERM) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether the layers of an overlay are there.
    pub(in super::super) fn look_at_layers(&self) -> Result<()> {
        if let Source::Overlay(overlay) = &self.source { Overlay::look(overlay) } else { Ok(()) }
    }

    fn look_at_source(&self, path: &Path) -> Result<OwnedFd> {
        let links = if self.follows() { OFlag::empty() } else { OFlag::O_NOFOLLOW };
        let tree = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC | links, Mode::empty());
        let tree = found(tree, path)?;
        self.check_source(&tree, path)?;
        // Who may clone nothing here is told when it does so in the container.
        clone_fd(&tree, false).map_or(Ok(()), |clone| self.check_read_only(&clone))?;
        Ok(tree)
    }

    fn tree(&self, fd: OwnedFd) -> Tree {
        let wanted = self.all.then(self.own);
        let clear = wanted.clear | self.replaced;
        let as_wanted = |bit: attr, now: bool| wanted.set.contains(bit) || (now && !clear.contains(bit));
        let tree = Tree::new(fd);
        Tree {
            read_only: as_wanted(attr::RDONLY, tree.read_only),
            no_exec: as_wanted(attr::NOEXEC, tree.no_exec),
            mapped: self.idmap.is_some(),
            ..tree
        }
    }

    /// What [`Mount::place`] and attaching would say.
    fn look_at_place(&self, view: &View, directory: bool) -> Result<()> {
        let what = if self.plain { "make the destination" } else { "open the destination" };
        let path = self.target.to_string();
        match view.find(Path::new(&path), None) {
            Sight::There(thing) if self.plain && thing.linked => Err(self.is_link()),
            Sight::There(thing) => {
                let (linked, fits) = (thing.linked, thing.is_directory() == directory);
                let place = Place { fd: thing.fd, linked, made: false };
                if linked {
                    self.check_linked(view.root(), &place)?;
                }
                if fits || self.links.cover_destination { Ok(()) } else { Err(misfit(directory)) }
            }
            Sight::Missing { linked: true, .. } if self.plain => Err(self.is_link()),
            Sight::Missing { errno: Errno::ENOENT, read_only: false, .. } => Ok(()),
            Sight::Missing { errno: Errno::ENOENT, .. } => Err(Errno::EROFS).context(what),
            Sight::Missing { errno, .. } => Err(errno).context("open the destination"),
            Sight::Unknown => Ok(()),
        }
    }
}
