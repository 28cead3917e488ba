//! Reading and writing the small files of cgroupfs, and walking its tree.
//!
//! cgroupfs has no symlinks and cgroup v2 no rename, so a path below its mount cannot be turned elsewhere.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::dir::{Dir, Type};
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::sys::uio::pread;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::sys::{Errno, Result};

pub(super) fn open_dir(at: impl AsFd, path: &CStr) -> Result<OwnedFd> {
    openat(at, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

fn open(at: impl AsFd, path: &str, access: OFlag) -> Result<OwnedFd> {
    openat(at, path, access | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

/// Writes a value to an existing file, in one write as the kernel wants it.
pub(super) fn write_at(dir: impl AsFd, name: &str, value: &str) -> Result<()> {
    // The plain files of a test keep what is not overwritten.
    let access = if cfg!(test) { OFlag::O_WRONLY | OFlag::O_TRUNC } else { OFlag::O_WRONLY };
    let file = open(dir, name, access)?;
    nix::unistd::write(&file, value.as_bytes()).map(drop)
}

/// [`write_at`] by an absolute path.
pub(super) fn write(path: &str, value: &str) -> Result<()> {
    write_at(AT_FDCWD, path, value)
}

/// Reads a whole file.
pub(super) fn read_at(dir: impl AsFd, name: &str) -> Result<String> {
    read_open(open(dir, name, OFlag::O_RDONLY)?.as_fd())
}

/// [`read_at`] by an absolute path.
pub(super) fn read(path: &str) -> Result<String> {
    read_at(AT_FDCWD, path)
}

fn read_open(file: BorrowedFd) -> Result<String> {
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match pread(file, &mut piece, text.len() as i64) {
            Ok(0) => break,
            Ok(count) => text.extend_from_slice(&piece[..count]),
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
        }
        // The kernel fills a page with whole records before it stops, so half a page is the end: no call to learn it.
        if text.len() < piece.len() / 2 {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The value of a key in a flat-keyed file.
pub(super) fn value_of<'text>(text: &'text str, key: &str) -> Option<&'text str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
}

/// An open `cgroup.events`, which tells when its content changes.
pub(super) struct Events(OwnedFd);

impl Events {
    pub(super) fn open(path: &str) -> Result<Events> {
        open(AT_FDCWD, path, OFlag::O_RDONLY).map(Events)
    }

    pub(super) fn is(&self, key: &str, value: &str) -> Result<bool> {
        Ok(value_of(&read_open(self.0.as_fd())?, key) == Some(value))
    }

    /// Waits until `key` has `value`; `false` when that didn't happen until `deadline`.
    pub(super) fn wait(&self, key: &str, value: &str, deadline: Instant) -> Result<bool> {
        loop {
            if self.is(key, value)? {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.changed(left.min(Duration::from_millis(100)));
        }
    }

    /// Waits for any change, or a while.
    pub(super) fn changed(&self, a_while: Duration) {
        let mut one = [PollFd::new(self.0.as_fd(), PollFlags::POLLPRI)];
        let time = PollTimeout::try_from(a_while).unwrap_or(PollTimeout::ZERO);
        // Whatever ends the wait, the caller looks again.
        let _ = poll(&mut one, time);
    }
}

/// An open `memory.events`.
pub struct MemoryEvents {
    file: OwnedFd,
    /// How many processes the kernel has killed, as far as we have told.
    kills: u64,
}

impl MemoryEvents {
    /// `None` without the memory controller. What has happened until now is no news.
    pub(super) fn open(path: &str) -> Result<Option<MemoryEvents>> {
        let file = match open(AT_FDCWD, path, OFlag::O_RDONLY) {
            Err(Errno::ENOENT) => return Ok(None),
            file => file?,
        };
        let mut events = MemoryEvents { file, kills: 0 };
        events.has_killed();
        Ok(Some(events))
    }

    /// Whether the kernel has killed since the last time that this was asked.
    pub fn has_killed(&mut self) -> bool {
        let text = read_open(self.file.as_fd()).unwrap_or_default();
        let kills = value_of(&text, "oom_kill").and_then(|count| count.parse().ok()).unwrap_or(self.kills);
        std::mem::replace(&mut self.kills, kills) < kills
    }

    /// Waits until the file changes, the process of a pidfd ends or the time is over; whether the process has ended.
    pub fn wait(this: Option<&MemoryEvents>, pidfd: BorrowedFd, patience: Duration) -> Result<bool> {
        let mut fds = vec![PollFd::new(pidfd, PollFlags::POLLIN)];
        fds.extend(this.map(|events| PollFd::new(events.file.as_fd(), PollFlags::POLLPRI)));
        // Rounded up, or the last part of a millisecond would be spent in a busy loop.
        let time = PollTimeout::try_from(patience.saturating_add(Duration::from_millis(1))).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, time) {
            Ok(_) | Err(Errno::EINTR) => Ok(fds[0].any().unwrap_or(false)),
            Err(errno) => Err(errno),
        }
    }
}

/// Visits a tree of cgroups: `enter` gets each directory on the way down, `leave` the parent and the name of each
/// directory below the top on the way up. What vanishes meanwhile is skipped.
///
/// A container may have made the tree deep and wide: only one descriptor is open at any depth, and there is no recursion.
pub(super) fn walk(
    top: OwnedFd,
    mut enter: impl FnMut(BorrowedFd) -> Result<()>,
    mut leave: impl FnMut(BorrowedFd, &CStr) -> Result<()>,
) -> Result<()> {
    enter(top.as_fd())?;
    let mut waiting = vec![children(&top)?];
    let mut path: Vec<CString> = Vec::new();
    let mut here = top;
    while let Some(siblings) = waiting.last_mut() {
        let Some(name) = siblings.pop() else {
            waiting.pop();
            let Some(name) = path.pop() else { break };
            here = openat(&here, c"..", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
            leave(here.as_fd(), &name)?;
            continue;
        };
        let child = match open_dir(&here, &name) {
            Err(Errno::ENOENT | Errno::ENODEV) => continue,
            child => child?,
        };
        match enter(child.as_fd()).and_then(|()| children(&child)) {
            Err(Errno::ENOENT | Errno::ENODEV) => continue,
            below => waiting.push(below?),
        }
        path.push(name);
        here = child;
    }
    Ok(())
}

/// The names of the cgroups directly below a directory.
fn children(dir: &OwnedFd) -> Result<Vec<CString>> {
    let mut list = Dir::openat(dir, c".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut names = Vec::new();
    for entry in list.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() == Some(Type::Directory) && name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Removes a cgroup; one that is gone is fine. `false` when it is still in use.
pub(super) fn rmdir(at: impl AsFd, path: &(impl nix::NixPath + ?Sized)) -> Result<bool> {
    match unlinkat(at, path, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::EBUSY | Errno::ENOTEMPTY) => Ok(false),
        Err(errno) => Err(errno),
    }
}
