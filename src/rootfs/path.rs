//! Places below the container's root, found and made without ever leaving it.
//!
//! A place is a descriptor. Names are looked up by openat2(2) with the root as `/`, or one at a time in a directory
//! that is held open, so a link in the image, or one put there meanwhile, leads inside at worst
//! (CVE-2021-30465, CVE-2024-45310, CVE-2026-41579).

use std::ffi::{CString, OsStr};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat, mknodat};
use nix::unistd::symlinkat;

use crate::error::Error;
use crate::sys::path::{Links, open_in, read_link};
use crate::sys::{Errno, Result};

/// A path inside the container: no leading slash, no empty name, no `.` and no `..`. Empty is the root itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RootRelPath(CString);

impl RootRelPath {
    /// Cleans a path by its text alone, as the root were its parent too: `/a//b/../c/.` and `a/c` are the same.
    pub(super) fn new(path: &Path) -> crate::error::Result<RootRelPath> {
        let mut clean: Vec<u8> = Vec::with_capacity(path.as_os_str().len() + 1);
        for name in path.as_os_str().as_bytes().split(|&byte| byte == b'/') {
            match name {
                b"" | b"." => {}
                b".." => clean.truncate(clean.iter().rposition(|&byte| byte == b'/').unwrap_or(0)),
                _ => {
                    if !clean.is_empty() {
                        clean.push(b'/');
                    }
                    clean.extend_from_slice(name);
                }
            }
        }
        CString::new(clean).map(RootRelPath).map_err(|_| Error::new("a path must not contain a NUL byte"))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    pub(super) fn is_root(&self) -> bool {
        self.bytes().is_empty()
    }

    /// Whether it is `path` or lies below it; `path` has no leading slash.
    pub(super) fn is_below(&self, path: impl AsRef<[u8]>) -> bool {
        match self.bytes().strip_prefix(path.as_ref()) {
            Some(rest) => rest.is_empty() || rest[0] == b'/',
            None => false,
        }
    }

    /// What is left of it below `other`, where it is or lies below that.
    pub(super) fn beyond(&self, other: &RootRelPath) -> Option<RootRelPath> {
        let rest = self.bytes().strip_prefix(other.bytes())?;
        let rest = match rest.first() {
            None => rest,
            Some(b'/') => &rest[1..],
            Some(_) => return None,
        };
        CString::new(rest).ok().map(RootRelPath)
    }

    /// The directory and the last name. The root has none.
    pub(super) fn split(&self) -> Option<(RootRelPath, CString)> {
        let bytes = self.bytes();
        let (parent, name) = match bytes.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&bytes[..slash], &bytes[slash + 1..]),
            None => (&bytes[..0], bytes),
        };
        // Parts of a string without NUL have none either.
        let string = |part: &[u8]| CString::new(part).ok();
        if name.is_empty() { None } else { Some((RootRelPath(string(parent)?), string(name)?)) }
    }
}

impl fmt::Display for RootRelPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "/{}", String::from_utf8_lossy(self.bytes()))
    }
}

impl fmt::Debug for RootRelPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// What to make where nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
}

/// An object below the root, open as `O_PATH`.
pub(super) struct Place {
    pub(super) fd: OwnedFd,
    /// A symbolic link was followed: the text of the path does not say where this is.
    pub(super) linked: bool,
    /// It was not there before.
    pub(super) made: bool,
}

/// The container's root directory.
pub(super) struct Root(OwnedFd);

impl Root {
    pub(super) fn new(directory: OwnedFd) -> Root {
        Root(directory)
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Opens what is there. In the usual case, with no link on the way, this is one call.
    pub(super) fn find(&self, path: &RootRelPath) -> Result<Place> {
        match open_in(&self.0, lookup(path), OFlag::O_PATH, Links::Refuse) {
            Ok(fd) => Ok(Place { fd, linked: false, made: false }),
            Err(Errno::ELOOP) => {
                let fd = open_in(&self.0, lookup(path), OFlag::O_PATH, Links::Follow)?;
                Ok(Place { fd, linked: true, made: false })
            }
            Err(error) => Err(error),
        }
    }

    /// Opens what is there, but no link at any place of the path.
    ///
    /// # Errors
    /// `ELOOP`: there is one.
    pub(super) fn find_no_symlinks(&self, path: &RootRelPath) -> Result<OwnedFd> {
        open_in(&self.0, lookup(path), OFlag::O_PATH, Links::Refuse)
    }

    /// Opens what is there, or makes it; `kind` is asked for only when something must be made. Directories on the
    /// way are made with mode 0755.
    pub(super) fn find_or_make(&self, path: &RootRelPath, kind: impl FnOnce() -> Result<Kind>) -> Result<Place> {
        match self.find(path) {
            Err(Errno::ENOENT) => self.make(path, kind()?),
            done => done,
        }
    }

    /// As [`Root::find_or_make`], but a link at the last name is the place itself.
    pub(super) fn find_or_make_unfollowed(
        &self,
        path: &RootRelPath,
        kind: impl FnOnce() -> Result<Kind>,
    ) -> Result<Place> {
        let Some((parent, name)) = path.split() else { return self.find(path) };
        let Place { fd: parent, linked, .. } = self.directory(&parent)?;
        let here = || openat(&parent, name.as_c_str(), OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, NO_MODE);
        match here() {
            Ok(fd) => return Ok(Place { fd, linked, made: false }),
            Err(Errno::ENOENT) => {}
            Err(error) => return Err(error),
        }
        let made = match create(parent.as_fd(), &name, kind()?) {
            Ok(()) => true,
            Err(Errno::EEXIST) => false,
            Err(error) => return Err(error),
        };
        Ok(Place { fd: here()?, linked, made })
    }

    /// Makes a symbolic link, unless the same one is there.
    ///
    /// # Errors
    /// `EEXIST`: something else is there.
    pub(super) fn link(&self, path: &RootRelPath, target: &OsStr) -> Result<()> {
        let (parent, name) = path.split().ok_or(Errno::EEXIST)?;
        let parent = self.directory(&parent)?.fd;
        match symlinkat(target, &parent, name.as_c_str()) {
            Err(Errno::EEXIST) if readlinkat(&parent, name.as_c_str()).is_ok_and(|there| there == target) => Ok(()),
            done => done,
        }
    }

    /// Makes what [`Root::find`] has not found.
    pub(super) fn make(&self, path: &RootRelPath, kind: Kind) -> Result<Place> {
        match self.make_last(path, kind) {
            Some(place) => Ok(place),
            None => self.walk(path, kind),
        }
    }

    /// The usual case: only the last name is missing, and no link is on the way.
    fn make_last(&self, path: &RootRelPath, kind: Kind) -> Option<Place> {
        let (parent, name) = path.split()?;
        let held;
        let parent = if parent.is_root() {
            self.fd()
        } else {
            held = self.find_no_symlinks(&parent).ok()?;
            held.as_fd()
        };
        create(parent, &name, kind).ok()?;
        // It may already be something else, but not a link to elsewhere.
        let fd = open_in(parent, name.as_c_str(), OFlag::O_PATH, Links::Refuse).ok()?;
        Some(Place { fd, linked: false, made: true })
    }

    /// Opens a directory, or makes it and those above it.
    pub(super) fn directory(&self, path: &RootRelPath) -> Result<Place> {
        self.find_or_make(path, || Ok(Kind::Directory))
    }

    /// Goes down name by name. Links are followed here, also ones whose target does not exist yet; the directories
    /// passed are kept open, so that `..` in a link goes back to where we came from, and from the root to the root.
    fn walk(&self, path: &RootRelPath, kind: Kind) -> Result<Place> {
        let mut rest: Vec<CString> = names(path.bytes())?;
        let mut trail: Vec<OwnedFd> = Vec::new();
        let (mut linked, mut made, mut budget) = (false, false, BUDGET);
        while let Some(name) = rest.pop() {
            budget = budget.checked_sub(1).ok_or(Errno::ELOOP)?;
            if name.as_bytes() == b".." {
                trail.pop();
                continue;
            }
            let here = trail.last().unwrap_or(&self.0).as_fd();
            let fd = match openat(here, name.as_c_str(), OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, NO_MODE)
            {
                Ok(fd) => fd,
                Err(Errno::ENOENT) => {
                    let kind = if rest.is_empty() { kind } else { Kind::Directory };
                    match create(here, &name, kind) {
                        Ok(()) => made = rest.is_empty(),
                        // Somebody else made it between the two calls: look at it as at anything that was there.
                        Err(Errno::EEXIST) => {}
                        Err(error) => return Err(error),
                    }
                    rest.push(name);
                    continue;
                }
                Err(error) => return Err(error),
            };
            match format(&fstat(&fd)?) {
                SFlag::S_IFLNK => {
                    let target = read_link(&fd)?.into_vec();
                    if target.first() == Some(&b'/') {
                        trail.clear();
                    }
                    rest.extend(names(&target)?);
                    (linked, made) = (true, false);
                }
                _ if rest.is_empty() => return Ok(Place { fd, linked, made }),
                SFlag::S_IFDIR => trail.push(fd),
                _ => return Err(Errno::ENOTDIR),
            }
        }
        // The last link led to the root or back up.
        let fd = match trail.pop() {
            Some(fd) => fd,
            None => self.0.try_clone().map_err(|_| Errno::EMFILE)?,
        };
        Ok(Place { fd, linked, made: false })
    }
}

/// Steps of a walk: names of the longest path and of forty links, and some for races.
const BUDGET: u32 = 4096;
const NO_MODE: Mode = Mode::empty();

/// The names of a path, last first.
fn names(path: &[u8]) -> Result<Vec<CString>> {
    let names = path.split(|&byte| byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
    names.rev().map(|name| CString::new(name).map_err(|_| Errno::EINVAL)).collect()
}

/// Makes one entry of a directory that is held open. The umask is 0 in the container process.
fn create(parent: BorrowedFd<'_>, name: &CString, kind: Kind) -> Result<()> {
    match kind {
        Kind::Directory => mkdirat(parent, name.as_c_str(), Mode::from_bits_truncate(0o755)),
        Kind::File => mknodat(parent, name.as_c_str(), SFlag::S_IFREG, Mode::from_bits_truncate(0o644), 0),
    }
}

/// What openat2(2) takes for the root itself.
fn lookup(path: &RootRelPath) -> &std::ffi::CStr {
    if path.is_root() { c"." } else { &path.0 }
}

/// The kind of a file.
pub(super) fn format(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// Whether a descriptor is a directory.
pub(super) fn is_directory(fd: impl AsFd) -> Result<bool> {
    Ok(format(&fstat(fd)?) == SFlag::S_IFDIR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(path: &str) -> String {
        RootRelPath::new(Path::new(path)).unwrap().to_string()
    }

    #[test]
    fn what_is_left_below_another_path_is_told_by_whole_names() {
        let proc = RootRelPath::new(Path::new("/proc")).unwrap();
        for (path, rest) in [("/proc/sys/net", Some("/sys/net")), ("/proc", Some("/")), ("/process", None), ("/", None)]
        {
            let rest = rest.map(str::to_owned);
            assert_eq!(
                RootRelPath::new(Path::new(path)).unwrap().beyond(&proc).map(|left| left.to_string()),
                rest,
                "{path}"
            );
        }
    }

    #[test]
    fn odd_destinations_are_cleaned_and_never_leave_the_root() {
        for (odd, right) in [
            ("/m//sub/", "/m/sub"),
            ("m2/sub", "/m2/sub"),
            ("/m3/../m3b", "/m3b"),
            ("/m4/.", "/m4"),
            ("/../../x", "/x"),
            ("a/b/../../..", "/"),
            ("/", "/"),
            ("", "/"),
        ] {
            assert_eq!(clean(odd), right, "{odd}");
        }
    }

    #[test]
    fn below_means_whole_names() {
        let path = RootRelPath::new(Path::new("/process/x")).unwrap();
        assert!(!path.is_below("proc"));
        assert!(path.is_below("process"));
        assert!(RootRelPath::new(Path::new("/proc")).unwrap().is_below("proc"));
    }

    #[test]
    fn a_path_splits_into_its_directory_and_its_name() {
        let split = |path: &str| RootRelPath::new(Path::new(path)).unwrap().split();
        let (parent, name) = split("/dev/x/y").unwrap();
        assert_eq!((parent.to_string().as_str(), name.as_c_str()), ("/dev/x", c"y"));
        assert_eq!(split("/x").unwrap().0.to_string(), "/");
        assert!(split("/").is_none());
    }

    #[test]
    fn a_nul_byte_is_refused() {
        assert!(RootRelPath::new(Path::new("/a\0b")).is_err());
    }

    #[test]
    fn missing_places_are_made_inside_the_root_also_behind_dangling_links() {
        let scratch = std::env::temp_dir().join(format!("corten-path-{}", std::process::id()));
        std::fs::create_dir_all(scratch.join("root/etc")).unwrap();
        for (link, target) in
            [("etc/localtime", "/usr/share/zone"), ("etc/up", "../../../../x/y"), ("out", "/../.."), ("me", "me")]
        {
            std::os::unix::fs::symlink(target, scratch.join("root").join(link)).unwrap();
        }
        let root = Root::new(std::fs::File::open(scratch.join("root")).unwrap().into());
        let make = |path: &str, kind| root.find_or_make(&RootRelPath::new(Path::new(path)).unwrap(), || Ok(kind));

        let place = make("/etc/localtime", Kind::File).unwrap();
        assert!(place.linked && place.made);
        assert!(scratch.join("root/usr/share/zone").is_file());
        make("/etc/up/z", Kind::Directory).unwrap();
        assert!(scratch.join("root/x/y/z").is_dir());
        make("/out/inside", Kind::Directory).unwrap();
        assert!(scratch.join("root/inside").is_dir());
        assert!(!make("/inside", Kind::File).unwrap().made, "what is there stays");
        assert_eq!(make("/me/a", Kind::File).err(), Some(Errno::ELOOP));
        assert_eq!(make("/usr/share/zone/a", Kind::File).err(), Some(Errno::ENOTDIR));
        assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 1, "nothing outside");
        std::fs::remove_dir_all(&scratch).unwrap();
    }
}
