//! What the container will see, told from the plan and the trees of the host, with nothing mounted and nothing made.
//!
//! Paths are walked name by name in descriptors, with the container's root as `/`: a link of the image leads nowhere
//! else. What only a mount could show (a procfs, an overlay) is unknown, and never a reason to complain.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use super::path::{Root, RootRelPath, format};
use crate::error::{Context, Result};
use crate::sys::Errno;
use crate::sys::path::{read_link, xattr};

/// Steps of a walk: names of the longest path and of forty links.
const BUDGET: u32 = 4096;

/// More mounts than engines make; of those beyond it cannot be told what they show.
const MOST: usize = 256;

/// What a mount will show.
pub(super) enum Content {
    /// A tree of the host.
    Tree(Tree),
    /// A new, empty file system.
    Empty,
    /// It cannot be told.
    Unknown,
}

/// A tree of the host, and what its mount will be like.
pub(super) struct Tree {
    pub(super) fd: OwnedFd,
    pub(super) read_only: bool,
    pub(super) no_exec: bool,
    /// Owners are seen as others.
    pub(super) mapped: bool,
}

impl Tree {
    /// As the host has it.
    pub(super) fn new(fd: OwnedFd) -> Tree {
        let flags = fstatvfs(&fd).map_or(FsFlags::empty(), |fs| fs.flags());
        let (read_only, no_exec) = (flags.contains(FsFlags::ST_RDONLY), flags.contains(FsFlags::ST_NOEXEC));
        Tree { fd, read_only, no_exec, mapped: false }
    }
}

/// The container's files, as far as they can be told.
pub struct Preview {
    /// The directory that becomes the root.
    root: Root,
    base: Content,
    mounts: Vec<(RootRelPath, Content)>,
}

/// Whether somebody may search a directory.
pub type SearchPermission<'a> = &'a dyn Fn(&FileStat) -> bool;

/// What is at a path.
pub enum Lookup {
    /// Something.
    There(Found),
    /// Nothing, or nothing that can be reached.
    Missing {
        /// Why.
        errno: Errno,
        /// A link was followed.
        linked: bool,
        /// Nothing can be made there either.
        read_only: bool,
    },
    /// It cannot be told.
    Unknown,
}

/// An object that the container will see.
pub struct Found {
    /// Open as `O_PATH`.
    pub fd: OwnedFd,
    /// A link was followed.
    pub(super) linked: bool,
    /// Nothing can be executed there.
    pub no_exec: bool,
    /// Owners are seen as others.
    pub mapped: bool,
}

impl Found {
    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.stat().is_some_and(|stat| format(&stat) == SFlag::S_IFDIR)
    }

    /// What fstat(2) says of it.
    pub fn stat(&self) -> Option<FileStat> {
        fstat(&self.fd).ok()
    }

    /// It again, open for reading; a regular file or a directory.
    fn reopened(&self) -> Option<std::fs::File> {
        let plain = self.stat().is_some_and(|stat| matches!(format(&stat), SFlag::S_IFREG | SFlag::S_IFDIR));
        if plain { std::fs::File::open(format!("/proc/self/fd/{}", self.fd.as_raw_fd())).ok() } else { None }
    }

    /// The first bytes of a regular file.
    pub fn head(&self, length: u64) -> Option<Vec<u8>> {
        use std::io::Read;
        let mut bytes = Vec::new();
        self.reopened()?.take(length).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Whether rights are given to others than those that the mode speaks of, acl(5).
    pub fn has_acl(&self) -> bool {
        self.reopened().is_some_and(|file| xattr(&file, c"system.posix_acl_access").is_ok())
    }
}

/// Where a walk is.
enum Node<'a> {
    Tree(Held<'a>, &'a Tree),
    Empty,
    Unknown,
}

enum Held<'a> {
    Mount(BorrowedFd<'a>),
    Found(OwnedFd),
}

impl Held<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Held::Mount(fd) => *fd,
            Held::Found(fd) => fd.as_fd(),
        }
    }
}

impl Preview {
    pub(super) fn new(root: Root, base: Content) -> Preview {
        Preview { root, base, mounts: Vec::new() }
    }

    pub(super) fn add(&mut self, target: RootRelPath, what: Content) {
        self.mounts.push((target, what));
    }

    /// Something unknown will be mounted at a path.
    pub fn obscure(&mut self, path: &Path) {
        if let Ok(target) = RootRelPath::new(path) {
            match target.is_root() {
                true => self.base = Content::Unknown,
                false => self.add(target, Content::Unknown),
            }
        }
    }

    /// Whether it holds as many trees open as it should, far below any limit on open files.
    pub(super) fn is_full(&self) -> bool {
        self.mounts.len() > MOST
    }

    pub(super) fn root(&self) -> &Root {
        &self.root
    }

    /// What is at a path, for one who may search directories as `may` says.
    pub fn find(&self, path: &Path, may: Option<SearchPermission<'_>>) -> Lookup {
        let (mut linked, mut read_only) = (false, false);
        match self.walk(path.as_os_str().as_bytes(), may, &mut linked, &mut read_only) {
            Ok(Node::Tree(held, tree)) => match held.fd().try_clone_to_owned() {
                Ok(fd) => Lookup::There(Found { fd, linked, no_exec: tree.no_exec, mapped: tree.mapped }),
                Err(_) => Lookup::Unknown,
            },
            Ok(Node::Empty | Node::Unknown) => Lookup::Unknown,
            Err(errno @ (Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENAMETOOLONG | Errno::EACCES)) => {
                Lookup::Missing { errno, linked, read_only }
            }
            // What we may not see, the container's user still may.
            Err(_) => Lookup::Unknown,
        }
    }

    /// Whether a directory can be made, with those above it, unless it is there.
    ///
    /// # Errors
    /// Those of [`Opened::make_dir`](super::Opened::make_dir).
    pub fn check_dir(&self, path: &Path) -> Result<()> {
        let outcome = match self.find(path, None) {
            Lookup::Missing { errno: Errno::ENOENT, read_only: false, .. } => Ok(()),
            Lookup::Missing { errno: Errno::ENOENT, .. } => Err(Errno::EROFS),
            Lookup::Missing { errno, .. } => Err(errno),
            Lookup::There(_) | Lookup::Unknown => Ok(()),
        };
        outcome.with_context(|| format!("make the directory {}", path.display()))
    }

    fn walk<'a>(
        &'a self,
        path: &[u8],
        may: Option<SearchPermission<'_>>,
        linked: &mut bool,
        read_only: &mut bool,
    ) -> Result<Node<'a>, Errno> {
        let mut rest = names(path)?;
        let mut trail: Vec<(CString, Node<'a>)> = Vec::new();
        let base = start(&self.base);
        let mut budget = BUDGET;
        while let Some(name) = rest.pop() {
            budget = budget.checked_sub(1).ok_or(Errno::ELOOP)?;
            if name.as_bytes() == b".." {
                trail.pop();
                continue;
            }
            let mut place: Vec<u8> = trail.iter().flat_map(|(name, _)| [name.as_bytes(), b"/"].concat()).collect();
            place.extend_from_slice(name.as_bytes());
            let here = trail.last().map_or(&base, |(_, node)| node);
            if let Node::Tree(held, tree) = here {
                let stat = fstat(held.fd())?;
                if format(&stat) != SFlag::S_IFDIR {
                    return Err(Errno::ENOTDIR);
                }
                if !tree.mapped && may.is_some_and(|may| !may(&stat)) {
                    return Err(Errno::EACCES);
                }
            }
            let next = match (self.mounted(&place), here) {
                (Some(what), _) => start(what),
                (None, Node::Tree(held, tree)) => match below(held.fd(), &name) {
                    Ok(fd) => Node::Tree(Held::Found(fd), tree),
                    Err(Errno::ENOENT) if self.is_above_a_mount(&place) => Node::Empty,
                    Err(errno) => {
                        *read_only = tree.read_only;
                        // What we may not see, the container's user still may.
                        return Err(if errno == Errno::EACCES { Errno::EPERM } else { errno });
                    }
                },
                (None, Node::Empty) if self.is_above_a_mount(&place) => Node::Empty,
                // Devices and links are made there.
                (None, Node::Empty) if !place.starts_with(b"dev/") => return Err(Errno::ENOENT),
                (None, Node::Empty | Node::Unknown) => Node::Unknown,
            };
            match &next {
                Node::Tree(held @ Held::Found(_), _) if format(&fstat(held.fd())?) == SFlag::S_IFLNK => {
                    let target = read_link(held.fd())?.into_vec();
                    if target.first() == Some(&b'/') {
                        trail.clear();
                    }
                    rest.extend(names(&target)?);
                    *linked = true;
                }
                _ => trail.push((name, next)),
            }
        }
        Ok(trail.pop().map_or(base, |(_, node)| node))
    }

    /// What is mounted at a place, and not hidden by a later mount above it.
    fn mounted(&self, place: &[u8]) -> Option<&Content> {
        let index = self.mounts.iter().rposition(|(target, _)| target.bytes() == place)?;
        let here = &self.mounts[index].0;
        let hidden = self.mounts[index + 1..].iter().any(|(later, _)| here.is_below(later.bytes()));
        (!hidden).then(|| &self.mounts[index].1)
    }

    fn is_above_a_mount(&self, place: &[u8]) -> bool {
        self.mounts.iter().any(|(target, _)| target.is_below(place) && self.mounted(target.bytes()).is_some())
    }
}

fn start(what: &Content) -> Node<'_> {
    match what {
        Content::Tree(tree) => Node::Tree(Held::Mount(tree.fd.as_fd()), tree),
        Content::Empty => Node::Empty,
        Content::Unknown => Node::Unknown,
    }
}

fn below(directory: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    openat(directory, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

/// The names of a path, last first.
fn names(path: &[u8]) -> Result<Vec<CString>, Errno> {
    let names = path.split(|&byte| byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
    names.rev().map(|name| CString::new(name).map_err(|_| Errno::ENOENT)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use nix::fcntl::open;

    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        /// An image with a program and links, and beside it what the host has.
        fn new(name: &str) -> Scratch {
            let dir = std::env::temp_dir().join(format!("corten-preview-{}-{name}", std::process::id()));
            for sub in ["image/bin", "image/data", "host"] {
                fs::create_dir_all(dir.join(sub)).unwrap();
            }
            fs::write(dir.join("image/bin/sh"), "#!/bin/x\n").unwrap();
            fs::write(dir.join("host/secret"), "").unwrap();
            symlink("/bin", dir.join("image/abs")).unwrap();
            symlink("../../../../../..", dir.join("image/bin/up")).unwrap();
            symlink(dir.join("host"), dir.join("image/out")).unwrap();
            symlink("loop", dir.join("image/loop")).unwrap();
            Scratch(dir)
        }

        fn tree(&self, name: &str) -> Content {
            Content::Tree(Tree::new(open(&self.0.join(name), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).unwrap()))
        }

        fn preview(&self) -> Preview {
            let root = open(&self.0.join("image"), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
            Preview::new(Root::new(root), self.tree("image"))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn word(preview: &Preview, path: &str) -> String {
        match preview.find(Path::new(path), None) {
            Lookup::There(_) => "there".into(),
            Lookup::Missing { errno, .. } => format!("{errno:?}"),
            Lookup::Unknown => "unknown".into(),
        }
    }

    #[test]
    fn links_stay_in_the_image() {
        let scratch = Scratch::new("links");
        let preview = scratch.preview();
        for (path, expected) in [
            ("/bin/sh", "there"),
            ("/abs/sh", "there"),
            ("/bin/up/bin/sh", "there"),
            ("/../../bin/sh", "there"),
            ("/out", "ENOENT"),
            ("/out/secret", "ENOENT"),
            ("/loop", "ELOOP"),
            ("/bin/sh/x", "ENOTDIR"),
            ("/nowhere", "ENOENT"),
        ] {
            assert_eq!(word(&preview, path), expected, "{path}");
        }
    }

    #[test]
    fn mounts_hide_what_they_cover_and_show_what_they_are_made_of() {
        let scratch = Scratch::new("mounts");
        let mut preview = scratch.preview();
        let inside = |path: &str| RootRelPath::new(Path::new(path)).unwrap();
        preview.add(inside("/data"), scratch.tree("host"));
        preview.add(inside("/bin"), Content::Empty);
        preview.add(inside("/bin/deep/er"), scratch.tree("image/bin"));
        preview.add(inside("/proc"), Content::Unknown);
        for (path, expected) in [
            ("/data/secret", "there"),
            ("/bin/sh", "ENOENT"),
            ("/bin/deep", "unknown"),
            ("/bin/deep/er/sh", "there"),
            ("/proc/self", "unknown"),
        ] {
            assert_eq!(word(&preview, path), expected, "{path}");
        }
        preview.add(inside("/bin"), scratch.tree("image/bin"));
        assert_eq!(word(&preview, "/bin/deep/er/sh"), "ENOENT");
        assert_eq!(word(&preview, "/bin/sh"), "there");
    }
}
