//! A mount that is looked at and not made.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::attach::{found, is_link, misfit};
use super::open::{CGROUP, CGROUP_NAME};
use super::plan::{Mount, Source};
use crate::error::{Context, Result};
use crate::rootfs::filesystem::start;
use crate::rootfs::overlay::Overlay;
use crate::rootfs::path::{Place, is_directory};
use crate::rootfs::preview::{Content, Lookup, Preview, Tree};
use crate::sys::Errno;
use crate::sys::mount::{Attr, clone_fd};

impl Mount {
    /// What would be wrong with making it where a preview ends, and what it adds to that.
    pub fn preflight(&self, preview: &Preview) -> (Result<()>, Content) {
        let (outcome, what) = match self.look_inner(preview) {
            Ok(what) => (Ok(()), what),
            Err(error) => (Err(error), Content::Unknown),
        };
        (self.describe(outcome), what)
    }

    fn look_inner(&self, preview: &Preview) -> Result<Content> {
        let (directory, what) = match &self.source {
            Source::Bind { path, .. } => {
                let tree = self.look_at_source(path)?;
                if self.links.copy && is_link(&tree)? {
                    return Ok(Content::Unknown);
                }
                (is_directory(&tree)?, Content::Tree(self.tree(tree)))
            }
            Source::New { fstype, name, copy_up, .. } => {
                self.look_at_parameters(fstype, name.as_deref())?;
                (true, if fstype.as_bytes() == b"tmpfs" && !copy_up { Content::Empty } else { Content::Unknown })
            }
            Source::Overlay(_) => {
                self.look_at_layers()?;
                (true, Content::Unknown)
            }
            Source::Cgroup { private } => {
                if *private {
                    self.look_at_parameters(CGROUP, Some(CGROUP_NAME))?;
                }
                (true, Content::Unknown)
            }
            Source::Remount => return Ok(Content::Unknown),
        };
        self.look_at_place(preview, directory)?;
        Ok(if preview.is_full() { Content::Unknown } else { what })
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
    pub fn look_at_layers(&self) -> Result<()> {
        if let Source::Overlay(overlay) = &self.source { Overlay::preflight(overlay) } else { Ok(()) }
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
        let as_wanted = |bit: Attr, now: bool| wanted.set.contains(bit) || (now && !clear.contains(bit));
        let tree = Tree::new(fd);
        Tree {
            read_only: as_wanted(Attr::RDONLY, tree.read_only),
            no_exec: as_wanted(Attr::NOEXEC, tree.no_exec),
            mapped: self.idmap.is_some(),
            ..tree
        }
    }

    /// What [`Mount::place`] and attaching would say.
    fn look_at_place(&self, preview: &Preview, directory: bool) -> Result<()> {
        let what = if self.no_symlinks { "make the destination" } else { "open the destination" };
        let path = self.target.to_string();
        match preview.find(Path::new(&path), None) {
            Lookup::There(found) if self.no_symlinks && found.linked => Err(self.is_symlink()),
            Lookup::There(found) => {
                let (linked, fits) = (found.linked, found.is_directory() == directory);
                let place = Place { fd: found.fd, linked, made: false };
                if linked {
                    self.check_linked(preview.root(), &place)?;
                }
                if fits || self.links.cover_destination { Ok(()) } else { Err(misfit(directory)) }
            }
            Lookup::Missing { linked: true, .. } if self.no_symlinks => Err(self.is_symlink()),
            Lookup::Missing { errno: Errno::ENOENT, read_only: false, .. } => Ok(()),
            Lookup::Missing { errno: Errno::ENOENT, .. } => Err(Errno::EROFS).context(what),
            Lookup::Missing { errno, .. } => Err(errno).context("open the destination"),
            Lookup::Unknown => Ok(()),
        }
    }
}
