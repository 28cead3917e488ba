//! The directory in which what a container writes above a shared image is kept.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, fstat, mkdirat};

use crate::error::{Context, Error, Result, ensure};
use crate::sys::Errno;
use crate::sys::path::open_beneath;

pub(super) const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
pub(super) const DIRECTORY_PATH: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// Where the directory is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OverlayDir {
    /// Below the bundle, which no link and no mount on the way may leave: that much an image may ask for.
    Bundle { bundle: PathBuf, path: PathBuf },
    /// Anywhere on the host.
    Host(PathBuf),
}

/// Whether a path stays below the directory where it starts, as far as its words tell.
pub(super) fn is_below(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

impl OverlayDir {
    pub(super) fn new(bundle: &Path, path: &Path) -> OverlayDir {
        match is_below(path) {
            true => OverlayDir::Bundle { bundle: bundle.to_owned(), path: path.to_owned() },
            false => OverlayDir::Host(bundle.join(path)),
        }
    }

    /// The whole path.
    pub(super) fn path(&self) -> PathBuf {
        match self {
            OverlayDir::Bundle { bundle, path } => bundle.join(path),
            OverlayDir::Host(path) => path.clone(),
        }
    }

    pub(super) fn open(&self) -> Result<OwnedFd, Errno> {
        self.open_at(self.written(), OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
    }

    /// The path, of which the beginning may be the bundle.
    fn written(&self) -> &Path {
        let (OverlayDir::Bundle { path, .. } | OverlayDir::Host(path)) = self;
        path
    }

    /// Opens the path, or one above it.
    fn open_at(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
        match self {
            // The bundle itself is an empty path.
            OverlayDir::Bundle { bundle, .. } => {
                open_beneath(open(bundle, DIRECTORY_PATH, Mode::empty())?, &Path::new(".").join(path), flags)
            }
            OverlayDir::Host(_) => open(path, flags, Mode::empty()),
        }
    }

    /// Makes the directory. Only its owner may pass: programs with set-user-id bits may come to lie in it.
    pub(super) fn make(&self, image: BorrowedFd<'_>) -> Result<OwnedFd> {
        let (parent, name) = self.open_parent(image)?;
        match mkdirat(&parent, name, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error).context("make the directory"),
        }
        openat(&parent, name, DIRECTORY, Mode::empty()).context("open the new directory")
    }

    /// The directory in which one is to be made, and the name of that.
    pub(super) fn open_parent(&self, image: BorrowedFd<'_>) -> Result<(OwnedFd, &OsStr)> {
        let path = self.written();
        let Some((parent, name)) = path.parent().zip(path.file_name()) else { return Err(Errno::ENOENT.into()) };
        let parent = explain(self.open_at(parent, DIRECTORY_PATH), "open the directory above")?;
        check_outside(parent.as_fd(), image)?;
        Ok((parent, name))
    }
}

/// Says of a path that has left the bundle what to do about it.
pub(super) fn explain(opened: Result<OwnedFd, Errno>, what: &'static str) -> Result<OwnedFd> {
    match opened {
        Err(Errno::EXDEV) => Err(Error::new("a link or a mount on the way leads out of the bundle")
            .hint("write the absolute path of the directory, which the caller has to allow")),
        opened => opened.context(what),
    }
}

/// Refuses what lies in the image, where nothing is to be written; the kernel would not mind.
pub(super) fn check_outside(directory: BorrowedFd<'_>, image: BorrowedFd<'_>) -> Result<()> {
    let identity = |fd: BorrowedFd<'_>| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).context("look at a directory");
    let image = identity(image)?;
    let mut here = identity(directory)?;
    let mut above = openat(directory, c"..", DIRECTORY_PATH, Mode::empty()).context("open the directory above")?;
    loop {
        ensure!(here != image, "it lies in the image, which is never written to");
        let next = identity(above.as_fd())?;
        if next == here {
            return Ok(());
        }
        here = next;
        above = openat(&above, c"..", DIRECTORY_PATH, Mode::empty()).context("open the directory above")?;
    }
}
