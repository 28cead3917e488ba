//! Whose a cgroup is: a mark on its directory that the container's record knows.
//!
//! The path alone does not tell. Another container may have taken an empty cgroup, and one that was removed may be made
//! anew: who ends what is at the path of a container that has stopped would end the other. So a container marks the
//! cgroup that it makes or takes, before the first process is in it.
//!
//! The mark is an extended attribute. Nobody but a process that is privileged on the host sets one of the kind
//! `trusted`, so that no container gets rid of it, one that was given its cgroup neither. Without that privilege it is one
//! of the kind `user` (cgroupfs has them since Linux 5.7), which who owns the directory may change.
//!
//! Its words: the container's id, when it was made, the state directory by device and inode, and how many directories the
//! container has made. So the cgroup is found again where the record is lost, and never that of a container which has the
//! same id in another state root.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::files;
use super::handle::Handle;
use super::location::Location;
use super::mount::Mount;
use crate::error::{Context, Result};
use crate::sys::Errno;
use crate::sys::path::{set_xattr, xattr, xattr_at};

/// The names of the mark. The first that is there counts.
const NAMES: [&CStr; 2] = [c"trusted.corten.container", c"user.corten.container"];

/// Longer than any mark: an id has 255 bytes at most.
const LONGEST: usize = 512;

/// Whose the cgroup at a place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// That of the record; also when there is none.
    Own,
    /// Another container.
    Other,
    /// Nobody has marked it, and the container of the record would have.
    Unmarked,
    /// Nobody has marked it, nor did the container of the record: it is of an older corten, or the kernel took no mark.
    Unknown,
}

/// A mark that no other container has, nor a later one with the same id.
pub(super) fn new(id: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{id} {}", now.as_nanos())
}

/// The cgroups with the mark of the container that has this id and this state directory, by device and inode. There is
/// more than one only where somebody else has set such a mark, in a cgroup that is his.
pub fn find_marked(id: &str, home: (u64, u64)) -> Result<Vec<Location>> {
    let Ok(mount) = Mount::find() else { return Ok(Vec::new()) };
    let what = || format!("look for the container's cgroup below {}", mount.path());
    let top = std::fs::File::open(mount.path()).with_context(what)?;
    let mut found = Vec::new();
    let look = |dir: BorrowedFd| {
        let mark = NAMES.iter().find_map(|name| xattr(dir, name).ok());
        let mark = mark.and_then(|mark| String::from_utf8(mark).ok());
        if let Some((mark, made)) = mark.and_then(|mark| made_by(&mark, id, home).map(|made| (mark.clone(), made))) {
            let path = std::fs::read_link(format!("/proc/self/fd/{}", dir.as_raw_fd()));
            found.extend(path.ok().and_then(|path| Location::marked(mount, &path, made, mark)));
        }
        Ok(())
    };
    files::walk(top.into(), look, |_, _| Ok(())).with_context(what)?;
    Ok(found)
}

/// How many directories a container has made, by a mark if it is this container's.
fn made_by(mark: &str, id: &str, home: (u64, u64)) -> Option<usize> {
    let mut words = mark.split(' ');
    let (name, _when, place) = (words.next()?, words.next()?, words.next()?);
    let made = words.next()?.parse().ok()?;
    (name == id && place == place_of(home)).then_some(made)
}

fn place_of((device, inode): (u64, u64)) -> String {
    format!("{device}:{inode}")
}

impl Location {
    /// Tells the mark the container's state directory, by device and inode, by which [`find_marked`] finds the cgroup.
    pub fn belong_to(&mut self, home: (u64, u64)) {
        let made = self.made();
        if let Some(owner) = &mut self.owner {
            *owner = format!("{owner} {} {made}", place_of(home));
        }
    }

    fn marked(mount: Mount, directory: &Path, made: usize, mark: String) -> Option<Location> {
        let path = directory.strip_prefix(mount.path()).ok()?.to_str().filter(|path| !path.is_empty())?;
        let made = made.min(path.split('/').count());
        let mut location = Location::new(mount, path.to_owned(), made);
        location.owner = Some(mark);
        Some(location)
    }

    /// Marks the cgroup as the container's, whoever had it before. Where no mark can be set, the place is one without.
    pub(super) fn mark(&mut self, dir: BorrowedFd) -> Result<()> {
        let Some(owner) = &self.owner else { return Ok(()) };
        for name in NAMES {
            match set_xattr(dir, name, owner.as_bytes()) {
                Err(Errno::EPERM | Errno::EACCES | Errno::ENOTSUP) => {}
                done => return done.with_context(|| format!("mark cgroup {self} as the container's")),
            }
        }
        self.owner = None;
        Ok(())
    }
}

impl Handle<'_> {
    /// Whose it is now.
    pub fn holder(&self) -> Result<Holder> {
        let mut buffer = [0; LONGEST];
        let location = self.location();
        let directory = location.directory();
        for name in NAMES {
            match xattr_at(directory.as_str(), name, &mut buffer) {
                Ok(mark) if location.owner.as_deref().map(str::as_bytes) == Some(mark) => return Ok(Holder::Own),
                Ok(_) | Err(Errno::ERANGE) => return Ok(Holder::Other),
                Err(Errno::ENOENT | Errno::ENODEV | Errno::ENOTDIR) => return Ok(Holder::Own),
                Err(Errno::ENODATA | Errno::ENOTSUP) => {}
                Err(errno) => return Err(errno).with_context(|| format!("look whose cgroup {self} is")),
            }
        }
        Ok(if location.owner.is_some() { Holder::Unmarked } else { Holder::Unknown })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_known_by_id_and_state_directory_alone() {
        let mark = "web 1700000000000000000 24:17 2";
        assert_eq!(made_by(mark, "web", (24, 17)), Some(2));
        for (mark, id, home) in [
            (mark, "we", (24, 17)),
            (mark, "web", (24, 18)),
            (mark, "web", (2, 417)),
            ("web 1700000000000000000", "web", (24, 17)),
            ("web 1700000000000000000 24:17", "web", (24, 17)),
            ("web 1700000000000000000 24:17 x", "web", (24, 17)),
            ("", "", (0, 0)),
        ] {
            assert_eq!(made_by(mark, id, home), None, "{mark:?}");
        }
    }
}
